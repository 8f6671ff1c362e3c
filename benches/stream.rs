//! How fast a stream is taken and delivered, beside a bare WebSocket that does the same.

use std::{
    env,
    error::Error,
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use electric_satellite::{
    auth::{AuthError, Authenticator},
    client::{Connector, Resume},
    server::Server,
    session::{AuthRequest, ClientId, Identity, Token, UnixTime, Verified},
    transport::{Event, Limits},
    wire::{Message as Satellite, Reply, Request, Version, proto::*},
};
use futures_util::{SinkExt, StreamExt};
use sat_trans_op::Op;
use tokio::runtime;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        ClientRequestBuilder, Message, WebSocket, accept_hdr,
        handshake::server::{ErrorResponse, Request as Upgrade, Response},
        http::Uri,
        protocol::{Role, WebSocketConfig},
    },
};

/// How many bytes one round takes at most, and how many messages.
const BYTES: usize = 128 * 1024 * 1024;
const MESSAGES: usize = 40_000;

/// In how many rounds. The shortest counts.
const ROUNDS: usize = 9;

/// What is measured, of messages of one size.
struct Row {
    size: usize,
    /// The shares of the bare rate that are asked for: of a client, and of both ends.
    client: Option<f64>,
    both: Option<f64>,
}

const ROWS: &[Row] = &[
    Row { size: 64, client: None, both: Some(0.65) },
    Row { size: 1024, client: Some(0.80), both: Some(0.85) },
    Row { size: 16 * 1024, client: None, both: None },
    Row { size: 64 * 1024, client: None, both: Some(0.95) },
];

/// How the other end sends.
#[derive(Clone, Copy, PartialEq)]
enum Sending {
    /// As many bytes at a time as the socket takes: the receiver is what is waited for.
    Saturated,
    /// Each message by itself, with feed and flush, by tokio-tungstenite.
    Fed,
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked = env::args().any(|argument| argument == "--bench");
    println!("              saturated                    feed + flush");
    println!("   message    bare/s  client/s  ratio      bare/s  client/s  ratio    both/s  ratio");
    for Row { size, client, both } in ROWS {
        let (messages, rounds) = match asked {
            true => (MESSAGES.min(BYTES / size), ROUNDS),
            false => (100, 1),
        };
        let message = transaction(*size);
        let frame = message.encode();
        let mut best = [Duration::MAX; 5];
        // In turns, so that whatever else the machine does concerns all of them.
        for _ in 0..rounds {
            let took = [
                bare(bare_service(&frame, messages, Sending::Saturated, false)?, messages)?,
                typed(bare_service(&frame, messages, Sending::Saturated, true)?, messages)?,
                bare(bare_service(&frame, messages, Sending::Fed, false)?, messages)?,
                typed(bare_service(&frame, messages, Sending::Fed, true)?, messages)?,
                typed(service(&message, messages)?, messages)?,
            ];
            for (best, took) in best.iter_mut().zip(took) {
                *best = took.min(*best);
            }
        }
        let rates = best.map(|took| messages as f64 / took.as_secs_f64());
        let [saturated, taken, fed, delivered, ours] = rates;
        println!(
            "{:>8} B  {saturated:>8.0}  {taken:>8.0}  {:>5.2}    {fed:>8.0}  {delivered:>8.0}  \
             {:>5.2}  {ours:>8.0}  {:>5.2}",
            frame.len(),
            taken / saturated,
            delivered / fed,
            ours / fed,
        );
        let judged = [("a client's", client, delivered / fed), ("both ends'", both, ours / fed)];
        for (whose, budget, ratio) in judged {
            if let Some(budget) = budget.filter(|budget| asked && ratio < *budget) {
                println!("           below the budget of {whose} rate, {budget}");
            }
        }
    }
    Ok(())
}

/// A `SatOpLog` of about this size: a transaction that inserts one row of two columns.
fn transaction(size: usize) -> Satellite {
    let of = |text: usize| {
        let op = |op| SatTransOp { op: Some(op) };
        let row = ["1".to_owned(), "x".repeat(text)].map(Some).into_iter().collect();
        let insert = SatOpInsert { relation_id: 1, row_data: Some(row), tags: vec![] };
        let ops = vec![
            op(Op::Begin(SatOpBegin { lsn: "28203208".into(), ..Default::default() })),
            op(Op::Insert(insert)),
            op(Op::Commit(SatOpCommit { lsn: "28203208".into(), ..Default::default() })),
        ];
        Satellite::OpLog(SatOpLog { ops })
    };
    of(size.saturating_sub(of(0).encoded_len()))
}

/// The table of its row.
fn relation() -> SatRelation {
    let columns = vec![SatRelationColumn::default(); 2];
    SatRelation { relation_id: 1, columns, ..Default::default() }
}

/// A bare WebSocket that sends so many of these; after the handshake, if there is one.
fn bare_service(
    frame: &Bytes,
    messages: usize,
    sending: Sending,
    handshake: bool,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let frame = frame.clone();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut socket = accept_hdr(stream, echo_protocol).unwrap();
        if handshake {
            welcome(&mut socket);
        }
        match sending {
            Sending::Saturated => saturate(&mut socket, &frame, messages),
            Sending::Fed => block_on(feed(socket.get_ref(), &frame, messages)),
        }
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

/// Our own end: the same messages, each encoded and sent by [`Connection::send`].
///
/// [`Connection::send`]: electric_satellite::transport::Connection::send
fn service(message: &Satellite, messages: usize) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let message = message.clone();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
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
    });
    Ok(address)
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

#[allow(clippy::result_large_err, reason = "the library's own type")]
fn echo_protocol(request: &Upgrade, mut response: Response) -> Result<Response, ErrorResponse> {
    let protocol = request.headers()["sec-websocket-protocol"].clone();
    response.headers_mut().insert("sec-websocket-protocol", protocol);
    Ok(response)
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

fn block_on<F: Future>(future: F) -> F::Output {
    runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// How long a bare WebSocket takes for all of them.
fn bare(address: SocketAddr, messages: usize) -> Result<Duration, Box<dyn Error>> {
    block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let uri: Uri = format!("ws://{address}/ws").parse()?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(Version::V0_12.to_string());
        let config = WebSocketConfig::default().read_buffer_size(Limits::client().read_buffer);
        let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        let start = Instant::now();
        for _ in 0..messages {
            socket.next().await.ok_or("too few")??;
        }
        Ok(start.elapsed())
    })
}

/// How long a client takes for all of them, each typed and delivered.
fn typed(address: SocketAddr, messages: usize) -> Result<Duration, Box<dyn Error>> {
    block_on(async {
        let connector = Connector::new(&format!("ws://{address}"))?;
        let token = Token::new("a token")?;
        let mut connection = connector.connect(&ClientId::random(), token).await?;
        connection.start_replication(&mut Resume::default(), Duration::from_secs(10)).await?;
        let mut start = Instant::now();
        // The relation comes first.
        for nth in 0..=messages {
            let Some(Event::Message(message)) = connection.recv().await else {
                return Err(format!("too few: {:?}", connection.end()).into());
            };
            match message {
                Satellite::Relation(_) if nth == 0 => start = Instant::now(),
                Satellite::OpLog(_) => {}
                other => return Err(other.name().into()),
            }
        }
        Ok(start.elapsed())
    })
}
