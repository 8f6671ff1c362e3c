//! The client's side: connecting, staying connected, replicating.
//!
//! A [`Client`] stays connected: it reconnects, with a fresh token each time, and hands the
//! application one [`Connection`] after the other. A [`Connector`] makes a single connection, as a
//! whole or step by step. What a [`Connection`] to a server can do beside is in `replication`:
//! start from a [`Resume`] state, subscribe, acknowledge.

mod backoff;
mod connector;
mod failure;
mod replication;
mod supervisor;
#[cfg(feature = "tls")]
mod tls;
mod token;

use std::{
    fmt,
    future::Future,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    session::{AuthenticatedServer, ClientId, UnixTime},
    transport::{Connection, Limits},
    wire::Version,
};

use supervisor::Supervisor;
use token::DynProvider;

pub use backoff::Backoff;
pub use connector::{ConnectError, Connector, UpgradeError, Upgraded, UrlError};
pub use failure::{Advice, Failure};
pub use replication::{Resume, StartError, SubscribeError, Subscription};
#[cfg(feature = "tls")]
pub use tls::ClientTls;
pub use token::{TokenError, TokenProvider, TokenReason};

/// A client that stays connected until it is told otherwise.
///
/// It is usable without a service: until [`Client::connect`] is called, and after
/// [`Client::disconnect`], it is offline and does nothing. In between it has at most one
/// connection at a time. Dropping it closes the connection normally.
///
/// ```no_run
/// use std::time::Duration;
/// use electric_satellite::{client::{Advice, Client, Resume}, session::Token};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://localhost:5133", Token::new("the token")?)?.build();
/// println!("keep this id: {}", client.client_id());
/// client.connect();
/// let mut resume = Resume::default(); // what was kept the last time, if there was one
/// while let Ok(mut connection) = client.connection().await {
///     if let Err(error) = connection.start_replication(&mut resume, Duration::from_secs(10)).await {
///         println!("{error}");
///         if error.advice() == Advice::ResetState {
///             resume.reset(); // with the data that came from the service
///         }
///         continue; // the client comes back with another connection, or gives up
///     }
///     while let Some(event) = connection.recv().await {
///         println!("{event:?}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Client {
    client_id: ClientId,
    shared: Arc<Shared>,
    connectivity: watch::Receiver<Connectivity>,
}

/// What a client and its supervisor share.
struct Shared {
    /// What the application wants, which comes before what the supervisor does.
    wanted: watch::Sender<Wanted>,
    /// How many times it has wanted to be connected.
    times: AtomicU64,
    /// For the supervisor: not to wait for the next attempt.
    retry: Notify,
    /// The connection that the application has not taken yet.
    ready: Mutex<Option<Connection<AuthenticatedServer>>>,
    /// For the application: there is one, or there will not be one.
    news: Notify,
    /// Whether there is a connection whose last words are not through.
    open: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// Nothing, by the application's will.
    Offline,
    /// To be connected, for the so many-th time.
    Online(u64),
    /// Nothing, because it was of no use.
    GivenUp(Arc<Failure>),
    /// Nothing any more: the client is dropped, or its supervisor is gone.
    Nothing,
}

/// Whether a client is connected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Connectivity {
    /// It is not.
    Disconnected {
        /// Why; nothing if it was told so, or never was told to connect.
        reason: Option<Arc<Failure>>,
        /// When it tries again, at the earliest: the connection before must be closed by then,
        /// which takes [`close_timeout`](Limits::close_timeout) at most. Nothing if it does not.
        next_attempt: Option<Instant>,
    },
    /// It tries to be.
    Connecting,
    /// The service has let it in.
    Connected {
        /// The service's instance id. It may be empty.
        server_id: String,
        /// The protocol version that was agreed on.
        version: Version,
    },
}

/// Why a client hands out no connection any more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// It is offline, because it was told so or has not been told to connect.
    #[error("the client is offline")]
    Offline,
    /// It has given up, for this reason. [`Client::connect`] makes it try again.
    #[error("the client has given up: {0}")]
    GivenUp(Arc<Failure>),
    /// Its task is gone, for good: the runtime on which it was built has been shut down, or the
    /// dialer or the clock has panicked.
    #[error("the task of the client is gone")]
    Gone,
}

/// What a client does about the expiry of the token that let it in. The token's `exp` is read
/// without being verified; a token without one does not expire.
///
/// The token to follow is asked for so long before the expiry, or when half of what is left is
/// over, whichever comes later; and again, after pauses like those between attempts, while there
/// is none that expires later. If there is none any more ([`TokenError::fatal`]), the client closes
/// the connection and gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenewalPolicy {
    /// Nothing: services judge a token when it is presented. One that enforces the expiry closes
    /// the connection, and the client comes back with a fresh token.
    #[default]
    Never,
    /// It presents the other token on the live connection. Electric from 0.9.3 on accepts that
    /// from the same user, and so does a server here that is configured to; others close the
    /// connection. A service that does not answer is not asked again.
    InPlace(Duration),
    /// It closes the connection when it has the other token, and connects with that.
    Reconnect(Duration),
}

/// Configures a [`Client`].
#[must_use = "build the client"]
pub struct ClientBuilder {
    connector: Connector,
    provider: DynProvider,
    token_timeout: Duration,
    client_id: Option<ClientId>,
    server_id: Option<String>,
    backoff: Backoff,
    renewal: RenewalPolicy,
    random: fastrand::Rng,
    clock: Arc<dyn Fn() -> UnixTime + Send + Sync>,
}

impl Client {
    /// Configures a client of the service at this URL: `http` or `ws`, and with the feature `tls`
    /// `https` or `wss`; of the rest, only the host and the port count. The tokens come from the
    /// provider, or are always this one.
    ///
    /// # Errors
    ///
    /// It is no such URL.
    pub fn builder(url: &str, provider: impl TokenProvider) -> Result<ClientBuilder, UrlError> {
        Ok(ClientBuilder {
            connector: Connector::new(url)?,
            provider: token::erase(provider),
            token_timeout: Duration::from_secs(30),
            client_id: None,
            server_id: None,
            backoff: Backoff::default(),
            renewal: RenewalPolicy::default(),
            random: fastrand::Rng::new(),
            clock: Arc::new(UnixTime::now),
        })
    }

    /// The id that it presents: to be kept beside the data and given to
    /// [`ClientBuilder::client_id`] the next time.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Connects, and stays connected from then on. Does nothing if it does so already; makes a
    /// client that has given up try again.
    pub fn connect(&self) {
        self.shared.wanted.send_if_modified(|wanted| match wanted {
            Wanted::Online(_) | Wanted::Nothing => false,
            Wanted::Offline | Wanted::GivenUp(_) => {
                *wanted = Wanted::Online(self.shared.times.fetch_add(1, Ordering::Relaxed));
                true
            }
        });
    }

    /// Goes offline: the connection is closed normally, an attempt is broken off, and the token
    /// provider's future is dropped. Does nothing if it is offline.
    ///
    /// What waits for an answer on the connection fails at once. [`Client::closed`] waits until
    /// the close is through.
    pub fn disconnect(&self) {
        self.shared.settle(Wanted::Offline);
    }

    /// Waits until there is no connection: until the last words of the last one are through, or
    /// given up ([`close_timeout`](Limits::close_timeout)). A program that ends after
    /// [`Client::disconnect`] without waiting cuts them off. Cancel-safe.
    pub async fn closed(&self) {
        // The sender is here, so it is not closed.
        let _ = self.shared.open.subscribe().wait_for(|open| !open).await;
    }

    /// The moment is good: the network has come back, or the application has been resumed. A
    /// client that waits for its next attempt makes it now, even if the service wants it later,
    /// and counts from the beginning; one that is in the middle of an attempt does so when that
    /// fails; one that is connected pings the service at once, so that a connection that has died
    /// meanwhile is noticed within [`ping_timeout`](Limits::ping_timeout).
    pub fn retry_now(&self) {
        self.shared.retry.notify_one();
    }

    /// Whether it is connected, and what it does about it.
    pub fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.connectivity.clone()
    }

    /// Waits for the next connection. Each is handed out once, and lives until it is lost or the
    /// application drops it; both make the client connect again. Cancel-safe.
    ///
    /// # Errors
    ///
    /// There will be none; see [`Stopped`].
    pub async fn connection(&self) -> Result<Connection<AuthenticatedServer>, Stopped> {
        loop {
            let mut news = std::pin::pin!(self.shared.news.notified());
            news.as_mut().enable();
            match &*self.shared.wanted.borrow() {
                Wanted::Online(_) => {}
                Wanted::Offline => return Err(Stopped::Offline),
                Wanted::GivenUp(failure) => return Err(Stopped::GivenUp(Arc::clone(failure))),
                Wanted::Nothing => return Err(Stopped::Gone),
            }
            // One that has ended before it was taken is of no use.
            if let Some(connection) = self.shared.take().filter(|ready| ready.end().is_none()) {
                return Ok(connection);
            }
            news.await;
        }
    }
}

impl Shared {
    /// There is nothing to do from now on, unless that is final already.
    fn settle(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|now| {
            let is_so = matches!(
                (&*now, &wanted),
                (Wanted::Nothing, _) | (Wanted::Offline, Wanted::Offline)
            );
            if !is_so {
                *now = wanted;
            }
            !is_so
        });
        self.put(None);
    }

    /// The supervisor has given up what it was told the so many-th time. The application may have
    /// told it something else meanwhile.
    fn give_up(&self, times: u64, failure: Arc<Failure>) {
        self.wanted.send_if_modified(|now| {
            let is_wanted = matches!(now, Wanted::Online(now) if *now == times);
            if is_wanted {
                *now = Wanted::GivenUp(failure);
            }
            is_wanted
        });
        self.news.notify_waiters();
    }

    fn take(&self) -> Option<Connection<AuthenticatedServer>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves a connection for the application, or takes one away that it has not taken.
    fn put(&self, connection: Option<Connection<AuthenticatedServer>>) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = connection;
        self.news.notify_waiters();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.settle(Wanted::Nothing);
    }
}

impl ClientBuilder {
    /// The id to present: the one of the last time. A random one unless set.
    pub fn client_id(self, client_id: ClientId) -> ClientBuilder {
        ClientBuilder { client_id: Some(client_id), ..self }
    }

    /// The instance id of the service to accept: another one is a failure, and the client gives
    /// up. Any unless set.
    pub fn server_id(self, server_id: impl Into<String>) -> ClientBuilder {
        ClientBuilder { server_id: Some(server_id.into()), ..self }
    }

    /// How long the token provider may take. 30 s unless set.
    pub fn token_timeout(self, token_timeout: Duration) -> ClientBuilder {
        ClientBuilder { token_timeout, ..self }
    }

    /// The protocol versions to offer; 0.12 unless set. See [`Connector::with_versions`].
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn versions(self, versions: impl IntoIterator<Item = Version>) -> ClientBuilder {
        ClientBuilder { connector: self.connector.with_versions(versions), ..self }
    }

    /// Limits on size and time; [`Limits::client`] unless set.
    ///
    /// # Panics
    ///
    /// The limits make no sense; [`Limits::check`] says so beforehand.
    #[track_caller]
    pub fn limits(self, limits: Limits) -> ClientBuilder {
        ClientBuilder { connector: self.connector.with_limits(limits), ..self }
    }

    /// Which servers to trust; those that the machine trusts unless set.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: ClientTls) -> ClientBuilder {
        ClientBuilder { connector: self.connector.with_tls(tls), ..self }
    }

    /// How to open streams instead of by TCP. See [`Connector::with_dialer`].
    pub fn dialer<D, F, S>(self, dialer: D) -> ClientBuilder
    where
        D: Fn(String, u16) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        ClientBuilder { connector: self.connector.with_dialer(dialer), ..self }
    }

    /// The pauses between attempts.
    pub fn backoff(self, backoff: Backoff) -> ClientBuilder {
        ClientBuilder { backoff, ..self }
    }

    /// What to do about the expiry of the token.
    pub fn renewal(self, renewal: RenewalPolicy) -> ClientBuilder {
        ClientBuilder { renewal, ..self }
    }

    /// Makes the pauses the same at every run: for tests.
    pub fn random_seed(self, seed: u64) -> ClientBuilder {
        ClientBuilder { random: fastrand::Rng::with_seed(seed), ..self }
    }

    /// Another wall clock, by which the expiry of tokens is judged: for tests.
    pub fn clock(self, clock: impl Fn() -> UnixTime + Send + Sync + 'static) -> ClientBuilder {
        ClientBuilder { clock: Arc::new(clock), ..self }
    }

    /// The client, offline. Must be called on a Tokio runtime with time and I/O enabled; a task of
    /// its own looks after the connection as long as the client is not dropped.
    pub fn build(self) -> Client {
        let client_id = self.client_id.clone().unwrap_or_else(ClientId::random);
        let shared = Arc::new(Shared {
            wanted: watch::Sender::new(Wanted::Offline),
            times: AtomicU64::new(0),
            retry: Notify::new(),
            ready: Mutex::new(None),
            news: Notify::new(),
            open: watch::Sender::new(false),
        });
        let offline = Connectivity::Disconnected { reason: None, next_attempt: None };
        let (publish, connectivity) = watch::channel(offline);
        let supervisor = Supervisor::new(self, client_id.clone(), Arc::clone(&shared), publish);
        tokio::spawn(supervisor.run());
        Client { client_id, shared, connectivity }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("client_id", &self.client_id)
            .field("connectivity", &*self.connectivity.borrow())
            .finish_non_exhaustive()
    }
}
