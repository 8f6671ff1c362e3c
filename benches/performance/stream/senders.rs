//! Those who send: each on a thread of its own, to whoever connects.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use bytes::Bytes;
use electric_satellite::{
    auth::{AuthError, Authenticator},
    server::Server,
    session::{AuthRequest, Identity, UnixTime, Verified},
    transport::Event,
    wire::{Message as Satellite, Reply, Request, proto::*},
};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, WebSocket, accept_hdr, protocol::Role},
};

use crate::{block_on, servers::agree};

use super::relation;

/// How a bare WebSocket sends.
#[derive(Clone, Copy)]
pub(super) enum Sending {
    /// As many bytes at a time as the socket takes: the receiver is what is waited for.
    Saturated,
    /// Each message by itself, with feed and flush, by tokio-tungstenite.
    Fed,
}

/// When a bare WebSocket begins to send.
#[derive(Clone, Copy)]
pub(super) enum Beginning {
    /// After the upgrade.
    AtOnce,
    /// When a client is authenticated and has started its stream.
    WhenAsked,
}

/// Sends the bytes of so many messages, one message at a time, and ends.
pub(super) fn send_bytes(frame: &Bytes, messages: usize) -> io::Result<SocketAddr> {
    let bytes = one(frame);
    to_whoever_connects(move |mut stream| {
        for _ in 0..messages {
            stream.write_all(&bytes).unwrap();
        }
    })
}

/// A bare WebSocket that sends so many of these.
pub(super) fn send_frames(
    frame: &Bytes,
    messages: usize,
    sending: Sending,
    beginning: Beginning,
) -> io::Result<SocketAddr> {
    let frame = frame.clone();
    to_whoever_connects(move |stream| {
        let mut socket = accept_hdr(stream, agree).unwrap();
        match beginning {
            Beginning::AtOnce => {}
            Beginning::WhenAsked => welcome(&mut socket),
        }
        match sending {
            Sending::Saturated => saturate(&mut socket, &frame, messages),
            Sending::Fed => block_on(feed(socket.get_ref(), &frame, messages)),
        }
    })
}

/// Our own end: the same messages, each encoded and sent by [`Connection::send`].
///
/// [`Connection::send`]: electric_satellite::transport::Connection::send
pub(super) fn send_typed(message: &Satellite, messages: usize) -> io::Result<SocketAddr> {
    let message = message.clone();
    to_whoever_connects(move |stream| {
        stream.set_nonblocking(true).unwrap();
        block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let server = Server::new(Anyone);
            let mut connection = server.accept(stream).await.unwrap();
            let Some(Event::StartReplication(_, responder)) = connection.recv().await else {
                panic!("not started")
            };
            responder.reply(SatInStartReplicationResp::default());
            connection.send(relation()).await.unwrap();
            for _ in 0..messages {
                connection.send(message.clone()).await.unwrap();
            }
            connection.closed().await;
        });
    })
}

fn to_whoever_connects(send: impl FnOnce(TcpStream) + Send + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        send(stream);
    });
    Ok(address)
}

fn saturate(socket: &mut WebSocket<TcpStream>, frame: &Bytes, messages: usize) {
    let mut stream = socket.get_ref();
    let length = one(frame).len();
    let batch = batch(frame);
    let mut left = messages;
    while left > 0 {
        let now = left.min(batch.len() / length);
        stream.write_all(&batch[..now * length]).unwrap();
        left -= now;
    }
    // Until the peer has taken all of it, and goes.
    let _ = socket.read();
}

async fn feed(stream: &TcpStream, frame: &Bytes, messages: usize) {
    let stream = stream.try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    // The peer has nothing to say any more, so nothing is lost with what read its handshake.
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    for _ in 0..messages {
        socket.feed(Message::Binary(frame.clone())).await.unwrap();
        socket.flush().await.unwrap();
    }
    let _ = socket.next().await;
}

/// Lets everybody in: this is about what comes after.
struct Anyone;

impl Authenticator for Anyone {
    async fn authenticate(&self, _: &AuthRequest, _: UnixTime) -> Result<Verified, AuthError> {
        Ok(Verified::vouched_for_by_authenticator(Identity::new("somebody")))
    }
}

/// As the bytes of a WebSocket.
fn one(frame: &[u8]) -> Vec<u8> {
    match frame.len() {
        length @ ..126 => [&[0x82, length as u8][..], frame].concat(),
        length @ ..0x1_0000 => [&[0x82, 126][..], &(length as u16).to_be_bytes(), frame].concat(),
        length => [&[0x82, 127][..], &(length as u64).to_be_bytes(), frame].concat(),
    }
}

/// So many that each write takes about 256 KiB.
fn batch(frame: &[u8]) -> Vec<u8> {
    let one = one(frame);
    one.repeat((256 * 1024 / one.len()).max(1))
}

/// Lets the client in, starts its stream, and announces the table.
fn welcome(socket: &mut WebSocket<TcpStream>) {
    for _ in 0..2 {
        let Ok(Message::Binary(frame)) = socket.read() else { panic!("no call") };
        let Ok(Satellite::Request(call)) = Satellite::decode(frame) else { panic!("no call") };
        let id = call.request_id;
        let reply = match Request::decode(call).unwrap() {
            Request::Authenticate(_) => Reply::from(SatAuthResp::default()),
            _ => SatInStartReplicationResp::default().into(),
        };
        socket.send(Message::Binary(reply.frame(id))).unwrap();
    }
    socket.send(Message::Binary(Satellite::from(relation()).encode())).unwrap();
}
