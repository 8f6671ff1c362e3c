//! A service that can be reached, or not, and may go by a script.

use std::{
    collections::VecDeque,
    future::{Future, ready},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::{AuthError, Authenticator},
    client::{Client, ClientBuilder, Connectivity, Failure, Stopped, TokenError, TokenReason},
    server::Server,
    session::{AuthRequest, Identity, Token, UnixTime, Verified},
    transport::Event,
    wire::proto::SatAuthResp,
};
use futures_util::future::BoxFuture;
use tokio::{
    io::{DuplexStream, duplex},
    sync::watch,
    time::Instant,
};

use crate::{
    common::{net::Raw, reply, started},
    counted::Counted,
};

/// Lets in whoever brings a token of this kind.
pub(crate) struct Tokens;

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

/// What happens to one connection instead of being served.
type Scene = Box<dyn FnOnce(DuplexStream) -> BoxFuture<'static, ()> + Send>;

/// A service, what becomes of the connections to it, and what was asked of the token provider.
pub(crate) struct World {
    serve: Box<dyn Fn(DuplexStream) + Send + Sync>,
    scenes: Mutex<VecDeque<Scene>>,
    pub(crate) up: watch::Sender<bool>,
    dials: Mutex<Vec<Instant>>,
    open: Arc<AtomicUsize>,
    most_open: AtomicUsize,
    asked: Mutex<Vec<TokenReason>>,
    tokens: Mutex<Vec<&'static str>>,
}

impl World {
    /// A service that accepts good tokens, and a provider that hands out these, the last one for
    /// ever.
    pub(crate) fn new(tokens: &[&'static str]) -> Arc<World> {
        World::around(Server::new(Tokens).with_server_id("server-1"), tokens)
    }

    /// A client's world around another server.
    pub(crate) fn around<A: Authenticator>(
        server: Server<A>,
        tokens: &[&'static str],
    ) -> Arc<World> {
        let serve = move |stream| {
            let server = server.clone();
            drop(tokio::spawn(async move {
                let Ok(mut connection) = server.accept(stream).await else { return };
                // Only the first call of a client is answered.
                let mut unanswered = vec![];
                while let Some(event) = connection.recv().await {
                    match event {
                        Event::StartReplication(_, responder) => responder.reply(started()),
                        other => unanswered.push(other),
                    }
                }
            }));
        };
        Arc::new(World {
            serve: Box::new(serve),
            scenes: Mutex::default(),
            up: watch::Sender::new(true),
            dials: Mutex::default(),
            open: Arc::default(),
            most_open: AtomicUsize::new(0),
            asked: Mutex::default(),
            tokens: Mutex::new(tokens.iter().rev().copied().collect()),
        })
    }

    /// The next connection that is not spoken for goes so.
    pub(crate) fn scene<F>(&self, scene: impl FnOnce(DuplexStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let scene: Scene = Box::new(move |stream| Box::pin(scene(stream)));
        self.scenes.lock().unwrap().push_back(scene);
    }

    /// A client whose tokens are those of this world.
    pub(crate) fn builder(self: &Arc<World>) -> ClientBuilder {
        let world = Arc::clone(self);
        self.builder_with(move |_| {
            let mut tokens = world.tokens.lock().unwrap();
            let text = if tokens.len() > 1 { tokens.pop().unwrap() } else { tokens[0] };
            ready(Ok(Token::new(text).unwrap()))
        })
    }

    /// A client with another provider.
    pub(crate) fn builder_with<F>(
        self: &Arc<World>,
        provider: impl Fn(TokenReason) -> F + Send + Sync + 'static,
    ) -> ClientBuilder
    where
        F: Future<Output = Result<Token, TokenError>> + Send + 'static,
    {
        let (asked, dialed) = (Arc::clone(self), Arc::clone(self));
        let provider = move |reason| {
            asked.asked.lock().unwrap().push(reason);
            provider(reason)
        };
        Client::builder("http://localhost", provider)
            .unwrap()
            .random_seed(1)
            .dialer(move |_, _| ready(dialed.dial()))
    }

    fn dial(&self) -> io::Result<Counted<DuplexStream, impl FnMut() + use<>>> {
        self.dials.lock().unwrap().push(Instant::now());
        if !*self.up.borrow() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = duplex(64 * 1024);
        match self.scenes.lock().unwrap().pop_front() {
            Some(scene) => drop(tokio::spawn(scene(far))),
            None => (self.serve)(far),
        }
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_open.fetch_max(open, Ordering::Relaxed);
        let open = Arc::clone(&self.open);
        Ok(Counted(near, move || {
            open.fetch_sub(1, Ordering::Relaxed);
        }))
    }

    /// What the provider was asked for.
    pub(crate) fn asked(&self) -> Vec<TokenReason> {
        self.asked.lock().unwrap().clone()
    }

    /// When the client has tried to connect.
    pub(crate) fn dials(&self) -> Vec<Instant> {
        self.dials.lock().unwrap().clone()
    }

    /// How many connections the client has now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many it has had at once.
    pub(crate) fn most_open(&self) -> usize {
        self.most_open.load(Ordering::Relaxed)
    }
}

/// A raw server that has let the client in as `server-1`.
pub(crate) async fn lets_in(stream: DuplexStream) -> Raw<DuplexStream> {
    let mut raw = Raw::accepted(stream).await;
    raw.hears().await;
    raw.says(reply(1, SatAuthResp { id: "server-1".into(), headers: vec![] })).await;
    raw
}

/// The client waits for its next attempt.
pub(crate) struct Waiting {
    pub(crate) failure: Arc<Failure>,
    pub(crate) next_attempt: Instant,
}

impl Waiting {
    /// For so long.
    pub(crate) fn pause(&self) -> Duration {
        self.next_attempt - Instant::now()
    }
}

/// Waits until the client waits.
pub(crate) async fn waiting(client: &Client) -> Waiting {
    let mut connectivity = client.connectivity();
    loop {
        let now = connectivity.borrow_and_update().clone();
        if let Connectivity::Disconnected { reason: Some(failure), next_attempt: Some(at) } = now {
            return Waiting { failure, next_attempt: at };
        }
        connectivity.changed().await.expect("the client lives");
    }
}

/// Waits until the client is connected.
pub(crate) async fn connected(client: &Client) {
    let is_connected = |now: &Connectivity| matches!(now, Connectivity::Connected { .. });
    client.connectivity().wait_for(is_connected).await.expect("the client lives");
}

/// Why the client has given up, which it has.
pub(crate) async fn given_up(client: &Client) -> Arc<Failure> {
    match client.connection().await {
        Err(Stopped::GivenUp(failure)) => failure,
        other => panic!("{other:?}"),
    }
}
