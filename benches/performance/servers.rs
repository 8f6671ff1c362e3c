//! The servers that are measured. Each has one thread, so that the account of its time is complete.

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use electric_satellite::{
    server::{Server, Tls},
    session::AuthenticatedClient,
    transport::{Connection, Limits},
};
use futures_util::{SinkExt, StreamExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
    select,
};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::{
    accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::WebSocketConfig,
    },
};

use super::{
    block_on,
    processes::questions,
    tokens::{NOW, Signed},
    without_io::bare_verification,
};

/// A server that is measured.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    /// The token that is presented; or that only has the right size.
    pub(crate) signed: Signed,
    /// What each client says, if each has a token of its own.
    #[serde(skip)]
    pub(crate) messages: Vec<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Every byte comes back: what TCP costs.
    Tcp,
    /// Every message comes back: what a WebSocket costs.
    WebSocket,
    /// The same, after the bare cryptography of one verification.
    Verifying,
    /// Ours.
    Satellite(Manner),
}

/// How ours is run.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Manner {
    /// With limits of which none is in the way.
    Plain,
    /// The same, with a cache of verified tokens.
    Cached,
    /// The same as plain, over TLS.
    Tls,
    /// With the limits that a server has unless it is told otherwise.
    Guarded,
}

impl Subject {
    pub(crate) fn new(kind: Kind, signed: Signed) -> Subject {
        Subject { kind, signed, messages: vec![] }
    }

    pub(crate) fn bare_websocket() -> Subject {
        Subject::new(Kind::WebSocket, Signed::with("HS256"))
    }

    pub(crate) fn satellite(manner: Manner, algorithm: &str) -> Subject {
        Subject::new(Kind::Satellite(manner), Signed::with(algorithm))
    }

    pub(crate) fn name(&self) -> String {
        let algorithm = &self.signed.algorithm;
        match self.kind {
            Kind::Tcp => "TCP".into(),
            Kind::WebSocket => "WebSocket".into(),
            Kind::Verifying => format!("WebSocket and bare {algorithm}"),
            Kind::Satellite(Manner::Plain | Manner::Guarded) => algorithm.clone(),
            Kind::Satellite(Manner::Cached) => format!("{algorithm} cached"),
            Kind::Satellite(Manner::Tls) => format!("{algorithm} over TLS"),
        }
    }

    /// What one of several clients says.
    pub(crate) fn message(&self, client: usize) -> Bytes {
        self.messages.get(client).cloned().unwrap_or_else(|| self.signed.frame(client))
    }

    async fn serve(self, listener: TcpListener) {
        match self.kind {
            Kind::Tcp => each(listener, echo_bytes).await,
            Kind::WebSocket => each(listener, |stream| echo_messages(stream, || {})).await,
            Kind::Verifying => {
                // Its process ends with it.
                let verify: &'static (dyn Fn() + Send + Sync) =
                    Box::leak(bare_verification(&self.signed));
                each(listener, |stream| echo_messages(stream, verify)).await
            }
            Kind::Satellite(manner) => self.serve_satellite(manner, listener).await,
        }
    }

    async fn serve_satellite(self, manner: Manner, listener: TcpListener) {
        let authenticator = self.signed.authenticator();
        let authenticator = match manner {
            Manner::Cached => authenticator.with_cache(100_000),
            _ => authenticator,
        };
        let limits = match manner {
            Manner::Guarded => Limits::default(),
            _ => out_of_the_way(),
        };
        let server = Server::new(authenticator).with_limits(limits).with_clock(|| NOW);
        match manner {
            Manner::Tls => server.serve_over(listener, open_tls(), wait).await,
            _ => server.serve(listener, wait).await,
        }
    }
}

/// Runs a server in this process until nobody asks any more: its address is printed, and each line
/// of input is answered by the number of the runtime's live tasks.
pub(crate) fn run(subject: Subject) {
    block_on(async {
        let listener = listen().unwrap();
        println!("{}", listener.local_addr().unwrap());
        select! {
            () = subject.serve(listener) => {}
            () = answer_questions() => {}
        }
    });
}

/// How many connections may wait to be accepted. Tokio's own is 128; whoever is beyond that tries
/// again a second later, which says nothing about any server.
pub(crate) const BACKLOG: u32 = 1_024;

fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(BACKLOG)
}

async fn answer_questions() {
    let mut questions = questions();
    while let Ok(Some(_)) = questions.next_line().await {
        println!("{}", Handle::current().metrics().num_alive_tasks());
    }
}

/// Limits of which none is in the way; and clients that never answer a ping are not asked to.
fn out_of_the_way() -> Limits {
    Limits {
        auth_timeout: Duration::from_secs(60),
        ping_interval: Some(Duration::from_secs(3_600)),
        max_connections: usize::MAX,
        max_unauthenticated: usize::MAX,
        max_unauthenticated_per_address: usize::MAX,
        ..Limits::default()
    }
}

/// A file of `tests/certificates`.
pub(crate) fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

fn open_tls() -> impl Fn(TcpStream) -> Opening + Clone + Send + Sync {
    let tls = Tls::from_files(certificate("a.pem"), certificate("a.key")).unwrap();
    move |stream| {
        let tls = tls.clone();
        Box::pin(async move { tls.accept(stream).await })
    }
}

type Opening = BoxFuture<'static, io::Result<TlsStream<TcpStream>>>;

/// The simplest handler: takes what comes, until nothing does.
async fn wait(mut connection: Connection<AuthenticatedClient>) {
    while connection.recv().await.is_some() {}
}

/// Serves each connection on a task of its own.
async fn each<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(serve(stream));
    }
}

async fn echo_bytes(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// The upgrade is agreed to as it is asked for, subprotocol included. Before each message comes back,
/// something is done.
async fn echo_messages(stream: TcpStream, before: impl Fn()) {
    let config = WebSocketConfig::default().read_buffer_size(Limits::default().read_buffer);
    let upgraded = accept_hdr_async_with_config(stream, agree, Some(config)).await;
    // Boxed like ours, or the task would keep the size of the upgrade for life.
    let Ok(mut socket) = upgraded.map(Box::new) else { return };
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Binary(_)) {
            before();
            if socket.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Agrees to the subprotocol that is asked for.
#[expect(clippy::result_large_err, reason = "the library has it so")]
pub(crate) fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    const PROTOCOL: &str = "sec-websocket-protocol";
    response.headers_mut().insert(PROTOCOL, request.headers()[PROTOCOL].clone());
    Ok(response)
}
