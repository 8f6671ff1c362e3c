//! Clients without manners: HTTP and WebSocket by the byte. Shared by the tests that need what no
//! good client sends.
#![allow(dead_code, reason = "each test uses a part of it")]

#[path = "../octets/mod.rs"]
mod octets;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use electric_satellite::{
    auth::{Algorithm, Minter},
    session::{Token, UnixTime},
    wire::{Message, Request, proto::SatAuthReq},
};
pub(crate) use octets::*;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    time::timeout,
};

/// A secret for HS256.
pub(crate) const SECRET: &str = "a secret that is known to tests only";

/// How long anything may take. Nothing waits for it to pass: it is only so that a service that
/// falls silent fails a test instead of hanging it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails when it takes too long.
pub(crate) async fn guarded<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: takes too long"))
}

/// A token for the user `u` that the service with [`SECRET`] accepts.
pub(crate) fn good_token() -> Token {
    signed_with(SECRET)
}

/// A token that it does not accept.
pub(crate) fn bad_token() -> Token {
    signed_with("another secret, that is not the one it is")
}

/// A token that only a service in insecure mode accepts.
pub(crate) fn unsigned_token() -> Token {
    Minter::unsigned().mint(&json!({ "sub": "u" })).expect("an object")
}

fn signed_with(secret: &str) -> Token {
    let now = UnixTime::now().as_secs();
    let claims = json!({ "sub": "u", "iat": now, "exp": now + 3600 });
    let minter = Minter::from_secret(Algorithm::HS256, secret.as_bytes()).expect("a long secret");
    minter.mint(&claims).expect("an object")
}

/// An upgrade request, with more header lines, each with its end.
pub(crate) fn upgrade_request(lines: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: electric.0.12\r\n{lines}\r\n"
    )
}

/// A whole binary message.
pub(crate) const BINARY: u8 = 0x82;

/// The frame of a call.
pub(crate) fn call(request: impl Into<Request>, request_id: u32) -> Vec<u8> {
    frame(BINARY, &request.into().encode(request_id).encode())
}

/// The frame of a server: not masked.
pub(crate) fn server_frame(message: &Message) -> Vec<u8> {
    let payload = message.encode();
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
    let mut bytes = vec![BINARY, length.expect("a short message")];
    bytes.extend(payload);
    bytes
}

/// The frame that presents a token.
pub(crate) fn authenticate(client_id: &str, token: &Token) -> Vec<u8> {
    let (id, token) = (client_id.into(), token.expose().into());
    call(SatAuthReq { id, token, ..Default::default() }, 1)
}

/// A WebSocket after the upgrade.
pub(crate) struct WebSocket<S> {
    pub(crate) stream: BufReader<BufWriter<S>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for an upgrade. The answer instead if it is refused, or nothing if there is none.
    pub(crate) async fn open(stream: S, lines: &str) -> Result<WebSocket<S>, Option<Answer>> {
        let mut stream = BufReader::new(BufWriter::new(stream));
        let sent = async {
            stream.write_all(upgrade_request(lines).as_bytes()).await?;
            stream.flush().await
        };
        if sent.await.is_err() {
            return Err(None);
        }
        match read_answer(&mut stream).await {
            Some(answer) if answer.status == 101 => Ok(WebSocket { stream }),
            answer => Err(answer),
        }
    }

    /// Sends these bytes. That the server has gone shows when reading.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The opcode and the payload of the server's next frame; nothing at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Bytes)> {
        read_frame(&mut self.stream).await
    }

    /// Reads to the end. The code and the reason of the close, if there was one.
    pub(crate) async fn close(&mut self) -> Option<(u16, String)> {
        read_close(&mut self.stream).await
    }
}

/// Reads to the end. The code and the reason of the close, if there was one.
pub(crate) async fn read_close<R: AsyncRead + Unpin>(stream: &mut R) -> Option<(u16, String)> {
    let mut close = None;
    while let Some((opcode, payload)) = read_frame(stream).await {
        if opcode == 8 && payload.len() >= 2 {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            close = Some((code, String::from_utf8_lossy(&payload[2..]).into_owned()));
        }
    }
    close
}
