//! What a connection costs after another: round trips on a network where each takes its time.

use std::{
    future::{Ready, ready},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use electric_satellite::{
    auth::Authenticator,
    client::{Backoff, Client, ClientBuilder, RenewalPolicy},
    server::Server,
    session::{AuthenticatedClient, AuthenticatedServer, Close, Token},
    transport::Connection,
    wire::Version,
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    network::{End, Link},
    peers::{authenticator, server_with, token_with, wall_clock},
    world::Tokens,
};

/// How long a byte is under way.
const LATENCY: Duration = Duration::from_millis(100);

const AT_ONCE: Backoff = Backoff {
    initial: Duration::ZERO,
    max: Duration::ZERO,
    attempts: None,
    stable_after: Duration::from_secs(10),
    max_hint: Duration::ZERO,
};

/// A client, and the far ends of its connections.
struct Far {
    connections: mpsc::UnboundedReceiver<Connection<AuthenticatedClient>>,
    dials: Arc<Mutex<Vec<Instant>>>,
}

impl Far {
    /// How to reach this server over the network. The dial itself, which is TCP's, takes no time.
    fn new<A: Authenticator>(server: Server<A>) -> (Far, impl Dialer) {
        let (tell, connections) = mpsc::unbounded_channel();
        let dials: Arc<Mutex<Vec<_>>> = Arc::default();
        let dialed = Arc::clone(&dials);
        let dialer = move |_, _| {
            dialed.lock().unwrap().push(Instant::now());
            let (_, near, far) = Link::new(LATENCY);
            let (server, tell) = (server.clone(), tell.clone());
            tokio::spawn(async move {
                if let Ok(connection) = server.accept(far).await {
                    let _ = tell.send(connection);
                }
            });
            ready(Ok(near))
        };
        (Far { connections, dials }, dialer)
    }

    async fn next(&mut self) -> Connection<AuthenticatedClient> {
        self.connections.recv().await.expect("a connection")
    }

    fn last_dial(&self) -> Instant {
        *self.dials.lock().unwrap().last().expect("a dial")
    }
}

/// Opens streams on the network.
trait Dialer: Fn(String, u16) -> Ready<io::Result<End>> + Send + Sync + 'static {}

impl<F: Fn(String, u16) -> Ready<io::Result<End>> + Send + Sync + 'static> Dialer for F {}

/// How many times the latency that was, as far as timers can tell.
fn latencies(time: Duration) -> f64 {
    (time.as_secs_f64() / LATENCY.as_secs_f64() * 10.0).round() / 10.0
}

fn good_client(dialer: impl Dialer) -> ClientBuilder {
    Client::builder("http://localhost", Token::new("good user").unwrap())
        .unwrap()
        .backoff(AT_ONCE)
        .dialer(dialer)
}

/// The upgrade is one, the authentication is one, and there is no other.
#[tokio::test(start_paused = true)]
async fn connecting_takes_two_round_trips_whatever_is_offered() {
    for versions in [vec![Version::V0_12], vec![Version::V0_12, Version::V0_10, Version::V0_9]] {
        let (far, dialer) = Far::new(Server::new(Tokens));
        let client = good_client(dialer).versions(versions).build();
        let began = Instant::now();
        client.connect();
        let connection = client.connection().await.unwrap();
        assert_eq!(latencies(began.elapsed()), 4.0);
        assert_eq!(far.last_dial(), began);
        drop(connection);
    }
}

/// From the moment at which the client can know of it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_the_service_has_closed_is_replaced_in_two_round_trips() {
    let (mut far, dialer) = Far::new(Server::new(Tokens));
    let client = good_client(dialer).build();
    client.connect();
    for _ in 0..3 {
        let mut near = client.connection().await.unwrap();
        let connection = far.next().await;
        sleep(60 * LATENCY).await;
        let closed = Instant::now();
        connection.close(Close::GOING_AWAY);
        assert!(near.recv().await.is_none());
        assert_eq!(latencies(closed.elapsed()), 1.0);
        client.connection().await.unwrap();
        assert_eq!(latencies(far.last_dial() - closed), 1.0);
        assert_eq!(latencies(closed.elapsed()), 1.0 + 4.0);
        sleep(LATENCY).await;
        far.next().await;
    }
}

/// One more, for the close.
#[tokio::test(start_paused = true)]
async fn a_connection_that_the_client_has_closed_is_replaced_in_three_round_trips() {
    let (mut far, dialer) = Far::new(Server::new(Tokens));
    let client = good_client(dialer).build();
    client.connect();
    type Way = fn(&Client, Connection<AuthenticatedServer>);
    let ways: [Way; 2] = [
        |_, connection| drop(connection),
        |client, _kept| {
            client.disconnect();
            client.connect();
        },
    ];
    let mut near = client.connection().await.unwrap();
    for way in ways {
        let mut connection = far.next().await;
        tokio::spawn(async move { while connection.recv().await.is_some() {} });
        let closed = Instant::now();
        way(&client, near);
        near = client.connection().await.unwrap();
        assert_eq!(latencies(far.last_dial() - closed), 2.0);
        assert_eq!(latencies(closed.elapsed()), 2.0 + 4.0);
    }
}

/// A token that is renewed in place costs the application nothing; one that needs another
/// connection, as much as a close of the client.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_replaced_for_its_token_is_so_in_three_round_trips() {
    let (mut far, dialer) = Far::new(server_with(authenticator()));
    let clock = wall_clock();
    let provider = move |_| {
        let exp = clock().as_secs() + 100;
        ready(Ok(Token::new(token_with(&json!({ "sub": "u", "exp": exp }))).unwrap()))
    };
    let client = Client::builder("http://localhost", provider)
        .unwrap()
        .backoff(AT_ONCE)
        .clock(wall_clock())
        .renewal(RenewalPolicy::Reconnect(30 * Duration::from_secs(1)))
        .dialer(dialer)
        .build();
    client.connect();
    let mut near = client.connection().await.unwrap();
    let mut connection = far.next().await;
    tokio::spawn(async move { while connection.recv().await.is_some() {} });
    assert!(near.recv().await.is_none());
    let closed = Instant::now();
    client.connection().await.unwrap();
    assert_eq!(latencies(closed.elapsed()), 2.0 + 4.0);
}
