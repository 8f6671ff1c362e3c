//! A server in memory that says what a recorded one said, when it is told to.

use bytes::Bytes;
use electric_satellite::wire::Message;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

use crate::recorded::Frame;

/// The server's end of one connection.
pub(crate) struct RecordedServer {
    socket: WebSocketStream<DuplexStream>,
}

impl RecordedServer {
    /// Answers the upgrade as both originals do, but for the date.
    pub(crate) async fn accept(mut stream: DuplexStream, subprotocol: &str) -> RecordedServer {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an upgrade request"));
        }
        let head = String::from_utf8(head).expect("a text");
        let header = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            let found = fields.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.unwrap_or_else(|| panic!("no {name} in {head}")).1
        };
        assert_eq!(header("sec-websocket-protocol"), subprotocol);
        let accept = derive_accept_key(header("sec-websocket-key").as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\ndate: Mon, 23 Nov 2026 15:16:45 GMT\r\n\
             vary: accept-encoding\r\ncache-control: max-age=0, private, must-revalidate\r\n\
             sec-websocket-protocol: {subprotocol}\r\nupgrade: websocket\r\n\
             connection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.expect("it is taken");
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        RecordedServer { socket }
    }

    /// The client's next message; nothing once it has closed or gone.
    pub(crate) async fn hears(&mut self) -> Option<Message> {
        match self.socket.next().await?.ok()? {
            tungstenite::Message::Binary(frame) => {
                Some(Message::decode(frame).expect("a message of the protocol"))
            }
            tungstenite::Message::Close(_) => None,
            other => panic!("{other:?}"),
        }
    }

    /// That the client has gone shows when hearing.
    pub(crate) async fn says(&mut self, message: &Message) {
        let _ = self.socket.send(tungstenite::Message::Binary(message.encode())).await;
    }

    /// Closes as recorded.
    pub(crate) async fn closes(&mut self, Frame { payload, .. }: &Frame) {
        let _ = self.socket.send(tungstenite::Message::Close(close_frame(payload))).await;
    }
}

fn close_frame(payload: &Bytes) -> Option<CloseFrame> {
    let (code, reason) = payload.split_at_checked(2)?;
    let reason = std::str::from_utf8(reason).expect("UTF-8").to_owned();
    Some(CloseFrame { code: u16::from_be_bytes([code[0], code[1]]).into(), reason: reason.into() })
}
