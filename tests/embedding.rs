//! The handshake inside an HTTP server of somebody else's, built on hyper: all policies hold.

mod raw;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::JwtAuthenticator,
    client::{ConnectError, Connector},
    registry::{DuplicatePolicy, InProcessRegistry},
    server::{Drain, Server, empty_database},
    session::{AuthenticatedServer, Cause, ClientId},
    transport::{Connection, Limits},
    wire::proto::SatInStartReplicationReq,
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

use raw::{WebSocket, authenticate, read_answer, unsigned_token, upgrade_request};

type Satellite = Server<JwtAuthenticator, InProcessRegistry>;

const WITHIN: Duration = Duration::from_secs(10);

fn server(limits: Limits) -> Satellite {
    let registry = InProcessRegistry::new(DuplicatePolicy::Wait, Duration::from_secs(1));
    Server::new(JwtAuthenticator::insecure(None)).with_limits(limits).with_registry(registry)
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, n).into()
}

/// A connection to an application that answers all its requests by this server.
fn dial(server: &Satellite, peer: IpAddr) -> DuplexStream {
    let (ours, theirs) = duplex(64 * 1024);
    let server = server.clone();
    tokio::spawn(async move {
        let service = service_fn(async |request| {
            let (answer, upgrading) = server.respond(request, peer);
            if let Some(upgrading) = upgrading {
                tokio::spawn(async move {
                    if let Ok(connection) = upgrading.accept().await {
                        empty_database(connection).await;
                    }
                });
            }
            Ok::<_, std::convert::Infallible>(answer)
        });
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(theirs), service)
            .with_upgrades()
            .await;
    });
    ours
}

async fn connect(
    server: &Satellite,
    client_id: &str,
) -> Result<Connection<AuthenticatedServer>, ConnectError> {
    let client = Connector::new("ws://localhost").expect("a URL");
    let upgraded = client.upgrade(dial(server, address(1))).await?;
    upgraded.authenticate(&ClientId::new(client_id).expect("an id"), unsigned_token()).await
}

async fn starts(connection: &Connection<AuthenticatedServer>) -> bool {
    let started = connection.call(SatInStartReplicationReq::default(), WITHIN).await;
    started.is_ok_and(|started| started.err.is_none())
}

/// The status of the answer to an upgrade, and after how many seconds to come back.
async fn refusal(server: &Satellite, peer: IpAddr, lines: &str) -> (u16, Option<u32>) {
    match WebSocket::open(dial(server, peer), lines).await {
        Ok(_) => (101, None),
        Err(answer) => {
            let answer = answer.expect("an answer");
            (answer.status, answer.retry_after())
        }
    }
}

async fn has_connections(server: &Satellite, expected: usize) {
    let mut connections = server.connections();
    let reached = connections.wait_for(|count| *count == expected);
    tokio::time::timeout(WITHIN, reached).await.expect("it comes to that").expect("it counts");
}

#[tokio::test(start_paused = true)]
async fn clients_are_served_until_they_leave() {
    let server = server(Limits::default());
    let one = connect(&server, "one").await.expect("it is let in");
    let other = connect(&server, "other").await.expect("it is let in");
    assert!(starts(&one).await && starts(&other).await);
    has_connections(&server, 2).await;
    drop(one);
    has_connections(&server, 1).await;
    drop(other);
    has_connections(&server, 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_upgrade_is_answered_too() {
    let server = server(Limits::default());
    let mut stream = dial(&server, address(1));
    for (request, status) in [
        ("GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 400),
    ] {
        stream.write_all(request.as_bytes()).await.expect("it takes a request");
        let answer = read_answer(&mut stream).await.expect("an answer");
        assert_eq!(answer.status, status, "{request}");
    }
    // The same connection can still become a WebSocket.
    assert!(WebSocket::open(stream, "").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_behind_the_request_arrives() {
    let server = server(Limits::default());
    let mut stream = dial(&server, address(1));
    let mut bytes = upgrade_request("").into_bytes();
    bytes.extend(authenticate("client", &unsigned_token()));
    stream.write_all(&bytes).await.expect("there is room");
    assert_eq!(read_answer(&mut stream).await.expect("an answer").status, 101);
    assert_eq!(raw::read_frame(&mut stream).await.expect("a welcome").0, 2);
}

#[tokio::test(start_paused = true)]
async fn one_client_is_connected_once() {
    let server = server(Limits::default());
    let first = connect(&server, "client").await.expect("it is let in");
    let began = Instant::now();
    let second = connect(&server, "client").await;
    let Err(ConnectError::Ended(end)) = second else { panic!("it is let in") };
    assert!(matches!(end.cause, Cause::RefusedByServer(_)), "{end:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "it waits for the first to leave");
    assert!(starts(&first).await, "the first is not concerned");
    drop(first);
    assert!(connect(&server, "client").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn authentication_has_a_deadline() {
    let limits = Limits::default();
    let server = server(limits.clone());
    let mut silent = WebSocket::open(dial(&server, address(1)), "").await.expect("upgraded");
    let began = Instant::now();
    assert_eq!(silent.close().await.expect("a close").0, 4408);
    let elapsed = began.elapsed();
    assert!(elapsed >= limits.auth_timeout && elapsed <= limits.auth_timeout * 2, "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_then_gone() {
    let limits = Limits::default();
    let server = server(limits.clone());
    let mut socket = WebSocket::open(dial(&server, address(1)), "").await.expect("upgraded");
    socket.send(&authenticate("client", &unsigned_token())).await;
    assert_eq!(socket.next().await.expect("a welcome").0, 2);
    let began = Instant::now();
    assert_eq!(socket.next().await.expect("a ping").0, 9);
    assert_eq!(began.elapsed().as_secs(), limits.ping_interval.expect("it pings").as_secs());
    assert_eq!(socket.close().await.expect("a close").0, 4408);
    has_connections(&server, 0).await;
}

#[tokio::test(start_paused = true)]
async fn limits_are_told_from_each_other() {
    let limits = Limits {
        max_connections: 4,
        max_unauthenticated: 3,
        max_unauthenticated_per_address: 2,
        ..Limits::default()
    };
    let server = server(limits);
    let mut held = vec![];
    for peer in [1, 1, 2] {
        let socket = WebSocket::open(dial(&server, address(peer)), "").await.expect("room");
        held.push(socket);
        if peer == 1 && held.len() == 2 {
            // The address's own doing.
            let (status, retry_after) = refusal(&server, address(1), "").await;
            assert_eq!((status, retry_after.is_some()), (429, true));
        }
    }
    let (status, retry_after) = refusal(&server, address(3), "").await;
    assert_eq!((status, retry_after.is_some()), (503, true));
    for (n, socket) in held.iter_mut().enumerate() {
        socket.send(&authenticate(&format!("client {n}"), &unsigned_token())).await;
        assert_eq!(socket.next().await.expect("a welcome").0, 2);
    }
    held.push(WebSocket::open(dial(&server, address(3)), "").await.expect("room"));
    let (status, retry_after) = refusal(&server, address(4), "").await;
    assert_eq!((status, retry_after.is_some()), (503, true));
}

#[tokio::test(start_paused = true)]
async fn questions_take_no_place() {
    let limits = Limits { max_unauthenticated_per_address: 1, ..Limits::default() };
    let server = server(limits);
    let mut streams = vec![];
    for _ in 0..5 {
        let mut stream = dial(&server, address(1));
        let request = "GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("it takes a request");
        assert_eq!(read_answer(&mut stream).await.expect("an answer").status, 200);
        streams.push(stream);
    }
    assert_eq!(refusal(&server, address(1), "").await.0, 101);
}

#[tokio::test(start_paused = true)]
async fn who_fails_too_often_waits() {
    let limits = Limits { failed_auths: 3, failed_auths_per_second: 0.5, ..Limits::default() };
    let proxies = ["192.0.2.100/32".parse().expect("a range")];
    let server = server(limits).with_trusted_proxies(proxies);
    let fail = async |peer, lines: &'static str| {
        let mut socket = WebSocket::open(dial(&server, peer), lines).await.expect("upgraded");
        let nonsense = electric_satellite::session::Token::new("no token").expect("a text");
        socket.send(&authenticate("client", &nonsense)).await;
        assert_eq!(socket.close().await.expect("a close").0, 1007);
    };
    let behind = "X-Forwarded-For: 198.51.100.7\r\n";
    for _ in 0..3 {
        fail(address(1), behind).await;
        fail(address(100), behind).await;
    }
    assert_eq!(refusal(&server, address(1), "").await, (429, Some(2)));
    assert_eq!(refusal(&server, address(100), behind).await, (429, Some(2)));
    // Neither the proxy nor anybody else has failed.
    assert_eq!(refusal(&server, address(100), "").await.0, 101);
    assert_eq!(refusal(&server, address(2), behind).await.0, 101);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(refusal(&server, address(1), "").await.0, 101);
}

#[tokio::test(start_paused = true)]
async fn pages_from_elsewhere_and_bad_times_are_refused() {
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let server = server(Limits::default())
        .with_origins(["https://app.example".to_owned()])
        .with_readiness(move || match asked.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err("not yet".into()),
        });
    let (status, retry_after) = refusal(&server, address(1), "").await;
    assert_eq!((status, retry_after.is_some()), (503, true));
    ready.store(true, Ordering::SeqCst);
    for (origin, status) in [("https://app.example", 101), ("https://evil.example", 403)] {
        let lines = format!("Origin: {origin}\r\n");
        assert_eq!(refusal(&server, address(1), &lines).await.0, status, "{origin}");
    }
}

#[tokio::test(start_paused = true)]
async fn handshakes_are_paced() {
    let limits = Limits { handshakes_per_second: Some(2), ..Limits::default() };
    let server = server(limits);
    for status in [101, 101, 503] {
        assert_eq!(refusal(&server, address(1), "").await.0, status);
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(refusal(&server, address(1), "").await.0, 101);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_what_there_is_and_refuses_what_comes() {
    let server = server(Limits::default());
    let connection = connect(&server, "client").await.expect("it is let in");
    assert!(starts(&connection).await);
    let drain = Drain { retry_after: 7, ..Drain::default() };
    let draining = tokio::spawn({
        let server = server.clone();
        async move { server.drain(drain).await }
    });
    let Cause::Peer(Some(close)) = &connection.closed().await.cause else { panic!("a close") };
    assert_eq!(close.code, 1001);
    assert_eq!(refusal(&server, address(1), "").await, (503, Some(7)));
    tokio::time::timeout(WITHIN, draining).await.expect("it ends").expect("no panic");
    has_connections(&server, 0).await;
}

/// An upgrade that is granted and then left lying leaves no place taken.
#[tokio::test(start_paused = true)]
async fn an_upgrade_that_nobody_accepts_takes_no_place() {
    let limits = Limits { max_unauthenticated: 1, ..Limits::default() };
    let server = server(limits);
    for _ in 0..3 {
        let request = hyper::Request::builder()
            .uri("/ws")
            .header("host", "x")
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "electric.0.12")
            .body(())
            .expect("a request");
        let (answer, upgrading) = server.respond(request, None);
        assert_eq!(answer.status(), 101);
        drop(upgrading.expect("it is granted"));
    }
    // Nor does one whose connection cannot be had, because no server has it.
    let peer = SocketAddr::from(([192, 0, 2, 1], 80)).ip();
    let request = hyper::Request::builder().uri("/ws").body(()).expect("a request");
    assert_eq!(server.respond(request, peer).0.status(), 400);
    assert_eq!(refusal(&server, address(1), "").await.0, 101);
}
