//! Bad tokens in great number: what becomes of those who present them, and of the others.

mod raw;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    thread::available_parallelism,
    time::Duration,
};

use electric_satellite::{
    auth::{AuthError, Authenticator},
    server::{AcceptError, Server},
    session::{AuthRequest, AuthenticatedClient, Identity, Token, UnixTime, Verified},
    transport::{Connection, Limits},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::Semaphore,
    task::JoinHandle,
    time::advance,
};

use raw::{WebSocket, authenticate, read_answer, upgrade_request};

/// Lets everybody in but the bad, and the slow not before it is told to.
#[derive(Clone)]
struct Gate {
    asked: Arc<Mutex<Vec<String>>>,
    slow: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Gate {
        Gate { asked: Arc::default(), slow: Arc::new(Semaphore::new(0)) }
    }

    /// In whose names it has been asked, since it was last looked at.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Authenticator for Gate {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        _: UnixTime,
    ) -> Result<Verified, AuthError> {
        let client = request.client_id().as_str();
        self.asked.lock().unwrap().push(client.to_owned());
        match request.token().expose() {
            "bad" => return Err(AuthError::InvalidSignature),
            "slow" => self.slow.acquire().await.unwrap().forget(),
            _ => {}
        }
        Ok(Verified::vouched_for_by_authenticator(Identity::new(client)))
    }
}

type Accepted = JoinHandle<Result<Connection<AuthenticatedClient>, AcceptError>>;

/// A connection from this address, and what becomes of it.
fn dial(server: &Server<Gate>, from: u8) -> (DuplexStream, Accepted) {
    let (ours, theirs) = duplex(64 * 1024);
    let (server, from) = (server.clone(), IpAddr::from(Ipv4Addr::new(192, 0, 2, from)));
    (ours, tokio::spawn(async move { server.accept_from(theirs, from).await }))
}

/// A client from this address that has presented its token.
async fn present(
    server: &Server<Gate>,
    from: u8,
    client: &str,
    token: &str,
) -> (WebSocket<DuplexStream>, Accepted) {
    let (stream, accepted) = dial(server, from);
    let mut socket = WebSocket::open(stream, "").await.expect("it is upgraded");
    socket.send(&authenticate(client, &Token::new(token).expect("a text"))).await;
    (socket, accepted)
}

async fn fail(server: &Server<Gate>, from: u8) {
    let (mut socket, accepted) = present(server, from, "bad", "bad").await;
    assert_eq!(socket.close().await.expect("a close").0, 1007);
    assert!(matches!(accepted.await.unwrap(), Err(AcceptError::Refused { .. })));
}

/// The status of the answer to this request, unless the connection is just closed.
async fn status(server: &Server<Gate>, from: u8, request: &str) -> Option<u16> {
    let (mut stream, accepted) = dial(server, from);
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = read_answer(&mut stream).await.map(|answer| answer.status);
    if answer.is_none() {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert!(matches!(accepted.await.unwrap(), Err(AcceptError::Overloaded)));
    }
    answer
}

#[tokio::test(start_paused = true)]
async fn an_address_is_told_sixty_times_a_second_that_it_has_to_wait() {
    let limits = Limits { failed_auths: 1, failed_auths_per_second: 0.1, ..Limits::default() };
    let server = Server::new(Gate::new()).with_limits(limits);
    let upgrade = upgrade_request("");
    fail(&server, 1).await;
    for _ in 0..60 {
        assert_eq!(status(&server, 1, &upgrade).await, Some(429));
    }
    assert_eq!(status(&server, 1, &upgrade).await, None);
    assert_eq!(status(&server, 1, "GET /api/status HTTP/1.1\r\nHost: x\r\n\r\n").await, None);
    assert_eq!(status(&server, 2, &upgrade).await, Some(101));
    advance(Duration::from_millis(17)).await;
    assert_eq!(status(&server, 1, &upgrade).await, Some(429));
    assert_eq!(status(&server, 1, &upgrade).await, None);
    advance(Duration::from_secs(10)).await;
    assert_eq!(status(&server, 1, &upgrade).await, Some(101));
}

#[tokio::test(start_paused = true)]
async fn what_comes_by_a_proxy_is_always_read() {
    let limits = Limits { failed_auths: 1, failed_auths_per_second: 0.1, ..Limits::default() };
    let proxies = ["192.0.2.1/32".parse().expect("a range")];
    let server = Server::new(Gate::new()).with_limits(limits).with_trusted_proxies(proxies);
    let behind = |client| upgrade_request(&format!("X-Forwarded-For: 198.51.100.{client}\r\n"));
    fail(&server, 1).await;
    for _ in 0..100 {
        assert_eq!(status(&server, 1, &upgrade_request("")).await, Some(429));
    }
    assert_eq!(status(&server, 1, &behind(1)).await, Some(101));
}

#[tokio::test(start_paused = true)]
async fn suspects_wait_for_each_other_and_nobody_else_for_them() {
    let gate = Gate::new();
    let limits = Limits { failed_auths_per_second: 0.001, ..Limits::default() };
    let server = Server::new(gate.clone()).with_limits(limits);
    fail(&server, 1).await;
    // One failure is not suspicious: a token's time may have been over.
    let turns = available_parallelism().unwrap().get().div_ceil(2);
    let mut waiting = vec![];
    for _ in 0..=turns {
        waiting.push(present(&server, 1, "not suspicious", "slow").await);
    }
    present(&server, 2, "other", "good").await.1.await.unwrap().expect("it is let in");
    assert_eq!(gate.asked().len(), 1 + waiting.len() + 1);

    fail(&server, 1).await;
    gate.asked();
    for _ in 0..turns {
        waiting.push(present(&server, 1, "suspect", "slow").await);
    }
    let (_socket, last) = present(&server, 1, "last", "good").await;
    present(&server, 2, "other", "good").await.1.await.unwrap().expect("it is let in");
    assert_eq!(gate.asked(), [vec!["suspect"; turns], vec!["other"]].concat());

    // All of them have waited for less than the deadline.
    gate.slow.add_permits(waiting.len());
    last.await.unwrap().expect("it is let in");
}
