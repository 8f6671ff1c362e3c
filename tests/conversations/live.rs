//! Replays a conversation through a live server, over TCP.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use electric_satellite::{
    auth::{Authenticator, JwtAuthenticator},
    server::{Server, empty_database},
    transport::Limits,
    wire::Message,
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    http,
    recorded::{Conversation, Frame, Side},
    websocket::WebSocket,
    words,
};

/// What the server says to the client's frames, in words.
pub(crate) async fn replay(conversation: &Conversation) -> String {
    let mut client = Client::connect(&listen_for(conversation).await, conversation).await;
    let mut frames = conversation.frames.iter().peekable();
    while let Some(frame) = frames.next() {
        if frame.from == Side::Client {
            client.send(frame).await;
            // What was sent together is sent together.
            if frames.peek().is_none_or(|next| next.from == Side::Server) {
                client.hear_all().await;
            }
        }
    }
    words::conversation(client.heard, client.is_open)
}

async fn listen_for(conversation: &Conversation) -> Listening {
    let now = conversation.now();
    listen(server(conversation.authenticator()).with_clock(move || now)).await
}

/// A server that no slow machine makes lose its patience.
pub(crate) fn server(authenticator: JwtAuthenticator) -> Server<JwtAuthenticator> {
    let hour = Duration::from_secs(3600);
    Server::new(authenticator).with_limits(Limits {
        upgrade_timeout: hour,
        auth_timeout: hour,
        close_timeout: hour,
        ..Limits::default()
    })
}

/// A server that accepts connections until this is dropped.
pub(crate) struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

pub(crate) async fn listen<A: Authenticator>(server: Server<A>) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        server.serve(listener, empty_database).await;
    });
    Listening { address, task }
}

impl Listening {
    pub(crate) async fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.expect("a connection"))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that listens to what it is told.
struct Client {
    socket: WebSocket,
    heard: Vec<(u8, Bytes)>,
    is_open: bool,
    has_closed: bool,
    /// The method and the request id of calls that have no answer yet.
    unanswered: Vec<(String, u32)>,
    /// What has been sent of a message in fragments.
    fragments: Vec<u8>,
}

impl Client {
    async fn connect(server: &Listening, conversation: &Conversation) -> Client {
        let mut stream = server.connect().await;
        let request = http::upgrade_to(&conversation.subprotocol);
        stream.write_all(request.as_bytes()).await.expect("a request is sent");
        let answer = http::read_answer(&mut stream, request.as_bytes()).await;
        assert_eq!(answer.status, Some(101), "{}: all were upgraded", conversation.case);
        Client {
            socket: WebSocket::new(stream),
            heard: vec![],
            is_open: true,
            has_closed: false,
            unanswered: vec![],
            fragments: vec![],
        }
    }

    async fn send(&mut self, frame: &Frame) {
        self.socket.send(frame).await;
        self.has_closed |= frame.opcode == 8;
        if matches!(frame.opcode, 0 | 2) {
            self.fragments.extend(&frame.payload);
        }
        if frame.fin {
            let message = std::mem::take(&mut self.fragments);
            if let Ok(Message::Request(call)) = Message::decode(message.into()) {
                self.unanswered.push((call.method, call.request_id));
            }
        }
    }

    /// Hears all that the server has to say to what it was sent: until it has answered every call
    /// and then a ping, or has ended the connection.
    async fn hear_all(&mut self) {
        while self.has_closed || !self.unanswered.is_empty() {
            match self.socket.next().await {
                Some((opcode, payload)) => self.hear(opcode, payload),
                None => return self.is_open = false,
            }
        }
        let heard = &mut self.heard;
        self.is_open = self.socket.is_alive(|opcode, frame| heard.push((opcode, frame))).await;
    }

    fn hear(&mut self, opcode: u8, payload: Bytes) {
        if let Ok(Message::Response(answer)) = Message::decode(payload.clone()) {
            let answered = (answer.method, answer.request_id);
            self.unanswered.retain(|call| *call != answered);
        }
        self.heard.push((opcode, payload));
    }
}
