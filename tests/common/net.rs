//! Both ends of a connection in one process, and raw WebSocket peers that need not behave.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use electric_satellite::{
    auth::{AuthError, Authenticator},
    client::Connector,
    server::Server,
    session::{AuthRequest, AuthenticatedClient, AuthenticatedServer, UnixTime, Verified},
    transport::{Connection, Limits},
    wire::{Message, Version},
};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        self, ClientRequestBuilder,
        handshake::server::{ErrorResponse, Request, Response},
        http::Uri,
    },
};

use super::{auth, call, id, token, verified};

/// Ends a test in which nothing happens any more, instead of leaving it to wait for ever: where the
/// clock is paused, this day is over as soon as everybody waits for somebody else.
fn watch() {
    tokio::spawn(async {
        tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        // Not captured, as what is printed would be.
        let _ = writeln!(std::io::stderr(), "{test}: everybody waits for somebody else");
        std::process::abort();
    });
}

/// Limits without what happens by itself when time goes on.
pub(crate) fn calm() -> Limits {
    let for_ever = Duration::from_secs(365 * 24 * 60 * 60);
    Limits { ping_interval: None, write_timeout: for_ever, ..Limits::default() }
}

/// The token that [`Gate::Word`] accepts.
pub(crate) const WORD: &str = "the word of the day";

/// An authenticator.
pub(crate) enum Gate {
    /// Lets in who knows the word.
    Word,
    /// Never comes to a verdict.
    Undecided,
    /// Cannot tell.
    Broken,
    /// Fails in an unforeseen way at a token of this text, else like [`Gate::Word`].
    PanicsAt(&'static str),
}

impl Authenticator for Gate {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        _now: UnixTime,
    ) -> Result<Verified, AuthError> {
        let word = request.token().expose();
        match self {
            Gate::Undecided => std::future::pending().await,
            Gate::Broken => Err(AuthError::Unavailable("the key server is down".into())),
            Gate::PanicsAt(text) if word == *text => panic!("as the test wants it"),
            Gate::Word | Gate::PanicsAt(_) if word == WORD => Ok(verified("user-1")),
            Gate::Word | Gate::PanicsAt(_) => Err(AuthError::InvalidSignature),
        }
    }
}

/// A server behind this gate.
pub(crate) fn server(gate: Gate, limits: Limits) -> Server<Gate> {
    Server::new(gate).with_server_id("server-1").with_limits(limits)
}

pub(crate) fn client(limits: Limits) -> Connector {
    Connector::new("http://localhost").unwrap().with_limits(limits)
}

/// Our client and our server, connected and authenticated.
pub(crate) async fn pair(
    limits: Limits,
) -> (Connection<AuthenticatedClient>, Connection<AuthenticatedServer>) {
    watch();
    let (near, far) = duplex(64 * 1024);
    let server = server(Gate::Word, limits.clone());
    let client = client(limits);
    let connecting = async {
        let upgraded = client.upgrade(near).await.unwrap();
        upgraded.authenticate(&id("client-1"), token(WORD)).await.unwrap()
    };
    let (server, client) = tokio::join!(server.accept(far), connecting);
    (server.unwrap(), client)
}

/// A peer that is a WebSocket and no more.
pub(crate) struct Raw<S> {
    pub(crate) socket: WebSocketStream<S>,
}

/// How a raw peer saw the connection end: what came before it, and the close frame.
#[derive(Debug, PartialEq)]
pub(crate) struct LastWords {
    pub(crate) messages: Vec<Message>,
    pub(crate) close: Option<(u16, String)>,
}

pub(crate) fn closed_with(code: u16, reason: &str) -> LastWords {
    LastWords { messages: vec![], close: Some((code, reason.to_owned())) }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// A client, upgraded to this version.
    pub(crate) async fn upgraded(stream: S, version: Version) -> Raw<S> {
        watch();
        let request = ClientRequestBuilder::new(Uri::from_static("ws://localhost/ws"))
            .with_sub_protocol(version.to_string());
        let (socket, _) = client_async(request, stream).await.unwrap();
        Raw { socket }
    }

    /// A client, let in by the word.
    pub(crate) async fn authenticated(stream: S) -> Raw<S> {
        let mut raw = Raw::upgraded(stream, Version::V0_12).await;
        raw.says(call(1, auth("client-1", WORD))).await;
        assert!(matches!(raw.hears().await, Message::Response(_)));
        raw
    }

    /// A server that takes any upgrade.
    #[allow(clippy::result_large_err, reason = "the library's own type")]
    pub(crate) async fn accepted(stream: S) -> Raw<S> {
        watch();
        let echo = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let name = "sec-websocket-protocol";
            let version = request.headers()[name].clone();
            response.headers_mut().insert(name, version);
            Ok(response)
        };
        Raw { socket: accept_hdr_async(stream, echo).await.unwrap() }
    }

    pub(crate) async fn says(&mut self, message: impl Into<Message>) {
        self.sends(message.into().encode()).await;
    }

    pub(crate) async fn sends(&mut self, frame: impl Into<Bytes>) {
        self.socket.send(tungstenite::Message::Binary(frame.into())).await.unwrap();
    }

    /// The next message.
    pub(crate) async fn hears(&mut self) -> Message {
        match self.socket.next().await.expect("a message").unwrap() {
            tungstenite::Message::Binary(frame) => Message::decode(frame).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads to the end, which must not be a reset.
    pub(crate) async fn last_words(&mut self) -> LastWords {
        let mut last = LastWords { messages: vec![], close: None };
        while let Some(message) = self.socket.next().await {
            match message.expect("no broken connection") {
                tungstenite::Message::Binary(frame) => {
                    last.messages.push(Message::decode(frame).unwrap());
                }
                tungstenite::Message::Close(frame) => {
                    let text = |reason: &str| reason.to_owned();
                    last.close = frame.map(|frame| (frame.code.into(), text(&frame.reason)));
                }
                _ => {}
            }
        }
        last
    }
}

/// A raw client of this server, let in, and the server's end of it. The pipe between them holds
/// this many bytes.
pub(crate) async fn raw_pair(
    limits: Limits,
    pipe: usize,
) -> (Connection<AuthenticatedClient>, Raw<DuplexStream>) {
    let (near, far) = duplex(pipe);
    let server = server(Gate::Word, limits);
    let (server, raw) = tokio::join!(server.accept(far), Raw::authenticated(near));
    (server.unwrap(), raw)
}
