//! Memory per connection, and allocations per handshake.

mod common;

use std::{
    alloc::System,
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use electric_satellite::{server::Server, session::AuthenticatedClient, transport::Connection};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
};

use common::{NOW, SERVER_ID, Signed, handshake};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many connections the mean is taken of: no more than a listener keeps waiting.
const CONNECTIONS: usize = 100;

fn main() {
    let signed = Signed::all().into_iter().find(|signed| signed.algorithm == "HS256").unwrap();
    println!("allocations per handshake (HS256, without I/O; budget 12)");
    allocations(&signed);
    println!("bytes of a future");
    runtime().block_on(future(&signed));
    println!("heap bytes per connection");
    runtime().block_on(connections(&signed));
}

/// A runtime of its own for every measurement, so that each starts from nothing.
fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn allocations(signed: &Signed) {
    let (authenticator, token, frame) = (signed.authenticator(), signed.token(), signed.frame(0));
    let (now, server_id) = (Instant::now(), SERVER_ID.into());
    let whole = || drop(black_box(handshake(now, &server_id, &authenticator, frame.clone())));
    let verdict = || drop(black_box(authenticator.verify(&token, NOW)));
    for (name, operation) in [("all", &whole as &dyn Fn()), ("of these, the verdict", &verdict)] {
        operation(); // The first time is different.
        let region = Region::new(HEAP);
        operation();
        let change = region.change();
        let (allocated, bytes) = (change.allocations, change.bytes_allocated);
        println!(
            "  {name:<42}  {allocated:>6}  ({bytes} bytes, {} reallocations)",
            change.reallocations
        );
    }
}

/// The size of what takes a connection through the upgrade and the authentication.
async fn future(signed: &Signed) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let server = Server::new(signed.authenticator());
    println!("  {:<42}  {:>6}", "Server::accept", size_of_val(&server.accept(stream)));
}

/// Takes connections through their phases, all at once.
async fn connections(signed: &Signed) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(signed.authenticator()).with_clock(|| NOW);
    tokio::spawn(async move { server.serve(listener, wait).await });
    settle().await;

    let mut peers = Vec::with_capacity(CONNECTIONS);
    let region = Region::new(HEAP);
    let print = |phase: &str| {
        let change = region.change();
        let bytes = change.bytes_allocated - change.bytes_deallocated;
        println!("  {phase:<42}  {:>6}", bytes / CONNECTIONS);
    };
    peers.extend((0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()));
    settle().await;
    print("upgrade: connected, and silent");

    exchange(&mut peers, |_| upgrade(address).into_bytes(), b"HTTP/1.1 101").await;
    print("authentication: upgraded, and silent");

    exchange(&mut peers, |client| masked(&signed.frame(client)), &[0x82]).await;
    print("idle: authenticated, with a waiting handler");
}

/// The simplest handler: takes what comes, until nothing does.
async fn wait(mut connection: Connection<AuthenticatedClient>) {
    while connection.recv().await.is_some() {}
}

/// Lets the server do all it can.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// Sends something on every connection and reads the answers, which begin like this.
async fn exchange(peers: &mut [TcpStream], question: impl Fn(usize) -> Vec<u8>, answer: &[u8]) {
    for (client, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&question(client)).unwrap();
    }
    settle().await;
    for peer in peers {
        peer.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut read = [0; 1024];
        let length = peer.read(&mut read).unwrap();
        assert!(read[..length].starts_with(answer), "{:?}", &read[..length]);
    }
}

fn upgrade(address: SocketAddr) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: electric.0.12\r\n\r\n"
    )
}

/// A binary message as a client's WebSocket sends it, with a mask of zeros
/// ([RFC 6455 §5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)).
fn masked(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    assert!((126..).contains(&length), "shorter ones are written differently");
    [&[0x82, 0x80 | 126][..], &length.to_be_bytes(), &[0; 4], payload].concat()
}
