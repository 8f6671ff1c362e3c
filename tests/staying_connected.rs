//! A client that stays connected, against the server here, in memory and in virtual time.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use electric_satellite::{
    auth::{AuthError, Authenticator},
    client::{Advice, Backoff, Client, ClientBuilder, Connectivity, Failure, Stopped, TokenReason},
    server::Server,
    session::{AuthRequest, Close, Identity, Token, UnixTime, Verified},
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{mpsc, watch},
    time::Instant,
};

/// Lets in whoever brings a token of this kind.
struct Tokens;

impl Authenticator for Tokens {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        _now: UnixTime,
    ) -> Result<Verified, AuthError> {
        match request.token().expose().strip_prefix("good ") {
            Some(user) => Ok(Verified::vouched_for_by_authenticator(Identity::new(user))),
            None => Err(AuthError::Expired),
        }
    }
}

/// A service that can be reached, or not, and what was asked of the token provider.
struct World {
    streams: mpsc::UnboundedSender<DuplexStream>,
    up: watch::Sender<bool>,
    asked: Mutex<Vec<TokenReason>>,
    tokens: Mutex<Vec<&'static str>>,
}

impl World {
    fn new(tokens: &[&'static str]) -> Arc<World> {
        let (streams, mut arriving) = mpsc::unbounded_channel::<DuplexStream>();
        let server = Server::new(Tokens).with_server_id("server-1");
        tokio::spawn(async move {
            while let Some(stream) = arriving.recv().await {
                let server = server.clone();
                tokio::spawn(async move {
                    if let Ok(mut connection) = server.accept(stream).await {
                        while connection.recv().await.is_some() {}
                    }
                });
            }
        });
        Arc::new(World {
            streams,
            up: watch::Sender::new(true),
            asked: Mutex::default(),
            tokens: Mutex::new(tokens.iter().rev().copied().collect()),
        })
    }

    fn builder(self: &Arc<World>) -> ClientBuilder {
        let (asked, dialed) = (Arc::clone(self), Arc::clone(self));
        let provider = move |reason| {
            asked.asked.lock().unwrap().push(reason);
            let mut tokens = asked.tokens.lock().unwrap();
            // The last one for ever.
            let text = if tokens.len() > 1 { tokens.pop().unwrap() } else { tokens[0] };
            async move { Ok(Token::new(text).unwrap()) }
        };
        Client::builder("http://localhost", provider).unwrap().random_seed(1).dialer(move |_, _| {
            let world = Arc::clone(&dialed);
            async move {
                if !*world.up.borrow() {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let (near, far) = duplex(64 * 1024);
                world.streams.send(far).unwrap();
                Ok(near)
            }
        })
    }

    fn asked(&self) -> Vec<TokenReason> {
        self.asked.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_offline_until_it_is_told_to_connect_and_after_it_is_told_not_to() {
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    assert!(matches!(client.connection().await, Err(Stopped::Offline)));
    client.connect();
    client.connect();
    let mut connection = client.connection().await.unwrap();
    let connected = client.connectivity().borrow().clone();
    assert!(
        matches!(connected, Connectivity::Connected { server_id, .. } if server_id == "server-1")
    );
    client.disconnect();
    client.disconnect();
    assert!(connection.recv().await.is_none());
    assert!(matches!(client.connection().await, Err(Stopped::Offline)));
    assert_eq!(world.asked(), [TokenReason::Connect]);
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_with_another_token_when_its_connection_is_lost() {
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    client.connect();
    drop(client.connection().await.unwrap());
    let before = Instant::now();
    client.connection().await.unwrap().close(Close::NORMAL);
    assert!(before.elapsed() <= Backoff::default().initial);
    client.connection().await.unwrap();
    assert_eq!(
        world.asked(),
        [TokenReason::Connect, TokenReason::Reconnect, TokenReason::Reconnect]
    );
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_once() {
    let world = World::new(&["bad", "good user", "bad"]);
    let client = world.builder().build();
    client.connect();
    drop(client.connection().await.unwrap());
    let Err(Stopped::GivenUp(failure)) = client.connection().await else { panic!() };
    assert!(matches!(&*failure, Failure::Connect(_)));
    assert_eq!(failure.advice(), Advice::FreshToken);
    let expected = [
        TokenReason::Connect,
        TokenReason::Rejected,
        TokenReason::Reconnect,
        TokenReason::Rejected,
    ];
    assert_eq!(world.asked(), expected);
}

fn next_attempt(connectivity: &Connectivity) -> Option<Instant> {
    match connectivity {
        Connectivity::Disconnected { next_attempt, .. } => *next_attempt,
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_reach_its_service_says_when_it_tries_again_and_does() {
    let world = World::new(&["good user"]);
    world.up.send_replace(false);
    let client = world.builder().build();
    let mut connectivity = client.connectivity();
    client.connect();
    for failures in 1..20 {
        let waits = |now: &Connectivity| next_attempt(now).is_some_and(|at| at > Instant::now());
        let next = next_attempt(&connectivity.wait_for(waits).await.unwrap()).unwrap();
        let longest = Duration::from_secs(1 << (failures - 1).min(4)).min(Duration::from_secs(10));
        assert!(next - Instant::now() <= longest);
        tokio::time::sleep_until(next).await;
    }
    world.up.send_replace(true);
    client.retry_now();
    client.connection().await.unwrap();
}
