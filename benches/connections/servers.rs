//! The servers that are measured.

use std::{future::Future, process, time::Duration};

use bytes::Bytes;
use electric_satellite::{
    server::Server,
    session::AuthenticatedClient,
    transport::{Connection, Limits},
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime::{self, Handle},
    select,
};
use tokio_tungstenite::{
    accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::WebSocketConfig,
    },
};

use super::{
    HEAP,
    common::{NOW, Signed},
};

/// A server that is measured.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    /// The token that is presented; or that only has the right size.
    signed: Signed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every byte comes back: what TCP costs.
    Tcp,
    /// Every message comes back: what a WebSocket costs.
    WebSocket,
    /// Ours.
    Satellite,
}

impl Subject {
    /// The floor first, and then what stands on it.
    pub(crate) fn all() -> Vec<Subject> {
        let ours = Signed::all().into_iter().map(|signed| (Kind::Satellite, signed));
        [(Kind::Tcp, Signed::hs256()), (Kind::WebSocket, Signed::hs256())]
            .into_iter()
            .chain(ours)
            .map(|(kind, signed)| Subject { kind, signed })
            .collect()
    }

    pub(crate) fn named(name: &str) -> Subject {
        Subject::all().into_iter().find(|subject| subject.name() == name).unwrap()
    }

    pub(crate) fn name(&self) -> &str {
        match self.kind {
            Kind::Tcp => "TCP",
            Kind::WebSocket => "WebSocket",
            Kind::Satellite => &self.signed.algorithm,
        }
    }

    /// What one of several clients says.
    pub(crate) fn message(&self, client: usize) -> Bytes {
        self.signed.frame(client)
    }

    async fn serve(self, listener: TcpListener, read_buffer: usize) {
        match self.kind {
            Kind::Tcp => each(listener, echo_bytes).await,
            Kind::WebSocket => {
                each(listener, move |stream| echo_messages(stream, read_buffer)).await;
            }
            Kind::Satellite => {
                let server = Server::new(self.signed.authenticator())
                    .with_limits(limits(read_buffer))
                    .with_clock(|| NOW);
                server.serve(listener, wait).await;
            }
        }
    }
}

/// Runs a server in this process until nobody asks any more: its port is printed, and each line of
/// input is answered by one of the heap's live bytes and the runtime's live tasks.
pub(crate) fn run(subject: Subject, read_buffer: usize) -> ! {
    // One thread, so that the account of its time is complete.
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        select! {
            () = subject.serve(listener, read_buffer) => {}
            () = answer_questions() => {}
        }
    });
    process::exit(0)
}

async fn answer_questions() {
    let mut questions = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(_)) = questions.next_line().await {
        let heap = HEAP.stats();
        let bytes = heap.bytes_allocated - heap.bytes_deallocated;
        println!("{bytes} {}", Handle::current().metrics().num_alive_tasks());
    }
}

/// Limits of which none is in the way.
fn limits(read_buffer: usize) -> Limits {
    Limits {
        auth_timeout: Duration::from_secs(60),
        max_connections: usize::MAX,
        max_unauthenticated: usize::MAX,
        max_unauthenticated_per_address: usize::MAX,
        read_buffer,
        ..Limits::default()
    }
}

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

/// The upgrade is agreed to as it is asked for, subprotocol included.
async fn echo_messages(stream: TcpStream, read_buffer: usize) {
    const PROTOCOL: &str = "sec-websocket-protocol";
    let config = WebSocketConfig::default().read_buffer_size(read_buffer);
    #[expect(clippy::result_large_err, reason = "the library has it so")]
    let agree = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        response.headers_mut().insert(PROTOCOL, request.headers()[PROTOCOL].clone());
        Ok(response)
    };
    let upgraded = accept_hdr_async_with_config(stream, agree, Some(config)).await;
    // Boxed like ours, or the task would keep the size of the upgrade for life.
    let Ok(mut socket) = upgraded.map(Box::new) else { return };
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}
