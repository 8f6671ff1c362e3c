//! The server's side: the HTTP upgrade, the authentication, and the accept loop.
//!
//! [`Server::accept`] takes one connection to the point where its client is authenticated;
//! [`Server::serve`] does so for every connection of a listener, and hands each to a handler, such
//! as [`empty_database`].
//!
//! # Metrics
//!
//! | name | what |
//! |---|---|
//! | `satellite_connections_accepted_total` | connections that came in |
//! | `satellite_connections_refused_total{reason}` | … and did not come to be authenticated |
//! | `satellite_handshakes` | … that are being upgraded or authenticated now |
//! | `satellite_connections` | authenticated connections now |
//! | `satellite_authenticated_total{method}` | clients that were authenticated, by algorithm |
//! | `satellite_handshake_seconds{phase,method}` | how long the upgrade and the authentication took |
//! | `satellite_closes_total{code}` | authenticated connections that ended, by close code |
//! | `satellite_limits_hit_total{limit}` | how often a limit was in the way |
//! | `satellite_pings_total` | pings that were sent |
//! | `satellite_unsent_bytes` | bytes of messages that wait for the network |

mod admission;
mod empty;
mod live;
mod metrics;
#[cfg(feature = "tls")]
mod tls;
mod upgrade;

use std::{
    future::{Future, ready},
    io,
    net::IpAddr,
    ops::RangeInclusive,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt;
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    join,
    net::{TcpListener, TcpStream},
    select,
    sync::{SetOnce, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{
    Instrument, Span,
    field::{Empty, display},
};

use crate::{
    auth::{AuthError, Authenticator},
    registry::{InProcessRegistry, Occupant, Registry, RegistryError},
    session::{
        AuthChangePolicy, AuthRequest, AuthenticatedClient, ClientId, End, Identity, Limit,
        Refusal, ServerSession, UnixTime, Verified,
    },
    transport::{self, Connection, Handle, Limits, Socket, Step},
    wire::Version,
};

use admission::{Admission, Overload, Place};
use live::LiveConnections;
use metrics::{Handshake, Living};
use upgrade::{Gate, Upgrade};

pub use empty::empty_database;
pub use live::Drain;
#[cfg(feature = "tls")]
pub use tls::{CertificateError, Tls, TlsError};

/// What happens when a token expires while its connection lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiryPolicy {
    /// Nothing: a token is judged when it is presented. That is what one-off tokens need.
    #[default]
    Ignore,
    /// The connection is closed with 4000 `JWT-expired`, leeway included: clients from 0.9.4 on
    /// stay away until they have another token.
    Close {
        /// How long after `exp`, in seconds.
        leeway: u32,
    },
}

/// A server that lets clients in. Its clones are the same server.
///
/// ```
/// use electric_satellite::{auth::JwtAuthenticator, server::Server, wire::Version};
///
/// let server = Server::new(JwtAuthenticator::insecure(None))
///     .with_server_id("instance-1")
///     .with_versions(Version::V0_10..=Version::V0_12);
/// ```
pub struct Server<A, R = InProcessRegistry> {
    authenticator: Arc<A>,
    registry: Arc<R>,
    options: Arc<Options>,
    state: Arc<State>,
}

/// What a server is configured with, beside its authenticator and its registry.
#[derive(Clone)]
struct Options {
    limits: Limits,
    versions: RangeInclusive<Version>,
    server_id: String,
    clock: Clock,
    expiry: ExpiryPolicy,
    auth_changes: AuthChangePolicy,
    origins: Option<Vec<String>>,
    trusted_proxies: Vec<IpNet>,
    readiness: Option<Readiness>,
    warning: Option<&'static str>,
}

/// The wall clock that tokens are judged by.
type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// Whether the service can be used, or why not.
type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What changes while a server runs.
#[derive(Default)]
struct State {
    live: Arc<LiveConnections>,
    admission: Arc<Admission>,
    /// After how many seconds to come back, once the service is going to stop.
    draining: OnceLock<u32>,
    drained: SetOnce<()>,
}

impl<A, R> Clone for Server<A, R> {
    fn clone(&self) -> Server<A, R> {
        Server {
            authenticator: Arc::clone(&self.authenticator),
            registry: Arc::clone(&self.registry),
            options: Arc::clone(&self.options),
            state: Arc::clone(&self.state),
        }
    }
}

impl<A: Authenticator> Server<A> {
    /// A server with this authenticator, the default [`Limits`], every version from 0.6 to 0.12,
    /// a registry in this process and a random instance id.
    pub fn new(authenticator: A) -> Server<A> {
        let options = Options {
            limits: Limits::default(),
            versions: Version::V0_6..=Version::V0_12,
            server_id: uuid::Uuid::new_v4().to_string(),
            clock: Arc::new(UnixTime::now),
            expiry: ExpiryPolicy::default(),
            auth_changes: AuthChangePolicy::default(),
            origins: None,
            trusted_proxies: vec![],
            readiness: None,
            warning: authenticator.warning(),
        };
        Server {
            authenticator: Arc::new(authenticator),
            registry: Arc::default(),
            options: Arc::new(options),
            state: Arc::default(),
        }
    }
}

impl<A: Authenticator, R: Registry> Server<A, R> {
    fn with(mut self, change: impl FnOnce(&mut Options)) -> Server<A, R> {
        change(Arc::make_mut(&mut self.options));
        self
    }

    /// The same server with other limits.
    pub fn with_limits(self, limits: Limits) -> Server<A, R> {
        self.with(|options| options.limits = limits)
    }

    /// The same server with other versions. Of several that a client offers, the newest among
    /// these is chosen.
    pub fn with_versions(self, versions: RangeInclusive<Version>) -> Server<A, R> {
        self.with(|options| options.versions = versions)
    }

    /// The same server with this instance id, which authenticated clients are told.
    pub fn with_server_id(self, server_id: impl Into<String>) -> Server<A, R> {
        self.with(|options| options.server_id = server_id.into())
    }

    /// The same server with another wall clock, by which tokens are judged: for tests.
    pub fn with_clock(self, clock: impl Fn() -> UnixTime + Send + Sync + 'static) -> Server<A, R> {
        self.with(|options| options.clock = Arc::new(clock))
    }

    /// The same server with another policy for tokens that expire.
    pub fn with_expiry(self, expiry: ExpiryPolicy) -> Server<A, R> {
        self.with(|options| options.expiry = expiry)
    }

    /// The same server with another policy for clients that call `authenticate` again.
    pub fn with_auth_changes(self, auth_changes: AuthChangePolicy) -> Server<A, R> {
        self.with(|options| options.auth_changes = auth_changes)
    }

    /// The same server, which refuses upgrades with 503 and this reason while it is not ready.
    pub fn with_readiness(
        self,
        readiness: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Server<A, R> {
        self.with(|options| options.readiness = Some(Arc::new(readiness)))
    }

    /// The same server, which only lets these pages of a browser open a WebSocket, by their origin
    /// such as `https://app.example`. Programs that are no browser are not concerned.
    pub fn with_origins(self, origins: impl IntoIterator<Item = String>) -> Server<A, R> {
        self.with(|options| options.origins = Some(origins.into_iter().collect()))
    }

    /// The same server, which believes proxies in these ranges when they say where a client is
    /// (`X-Forwarded-For`, `Forwarded`), for the limits per address. Others are not believed.
    pub fn with_trusted_proxies(self, proxies: impl IntoIterator<Item = IpNet>) -> Server<A, R> {
        self.with(|options| options.trusted_proxies = proxies.into_iter().collect())
    }

    /// The same server with another registry.
    pub fn with_registry<R2: Registry>(self, registry: R2) -> Server<A, R2> {
        let Server { authenticator, options, state, .. } = self;
        Server { authenticator, registry: Arc::new(registry), options, state }
    }

    /// Whether upgrades are granted now, or why not.
    ///
    /// # Errors
    ///
    /// The service stops, or [`Server::with_readiness`] says that it is not ready.
    pub fn ready(&self) -> Result<(), String> {
        Gate { options: &self.options, state: &self.state }.ready().map_err(|(reason, _)| reason)
    }

    /// What whoever runs the service must not overlook; see [`Authenticator::warning`].
    pub fn warning(&self) -> Option<&'static str> {
        self.options.warning
    }

    /// How many authenticated connections there are, now and whenever that changes.
    pub fn connections(&self) -> watch::Receiver<usize> {
        self.state.live.count()
    }

    /// Takes a connection through the upgrade and the authentication. It is driven by a task of
    /// its own from then on, and lives until it ends or the [`Connection`] is dropped.
    ///
    /// Must be called on a Tokio runtime with time enabled. [`Authenticator::keep_fresh`] and the
    /// revocation of live connections are [`Server::maintain`]'s, which must run beside.
    ///
    /// # Errors
    ///
    /// The connection did not come so far; see [`AcceptError`]. It has been answered and closed.
    pub async fn accept<S>(&self, stream: S) -> Result<Connection<AuthenticatedClient>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.accept_from(stream, None).await
    }

    /// The same as [`Server::accept`], for a stream that comes from this address, so that the
    /// limits per address hold for it.
    ///
    /// # Errors
    ///
    /// The connection did not come so far; see [`AcceptError`]. It has been answered and closed.
    pub async fn accept_from<S>(
        &self,
        stream: S,
        peer: impl Into<Option<IpAddr>>,
    ) -> Result<Connection<AuthenticatedClient>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let upgraded = self.upgrade(stream, self.enter(peer.into())?).await?;
        let (connection, driver) = self.authenticate(upgraded).await?;
        tokio::spawn(driver);
        Ok(connection)
    }

    /// Answers a request that came to an HTTP server of your own, built on hyper, such as axum's.
    /// If it is an upgrade that is granted, what is returned beside the answer becomes the
    /// connection once the answer is sent: accept it on a task of its own.
    ///
    /// All limits and policies hold, but those on the size and the time of the request, which is
    /// here already. `examples/axum.rs` shows it.
    pub fn respond<B>(
        &self,
        mut request: Request<B>,
        peer: impl Into<Option<IpAddr>>,
    ) -> (Response<Full<Bytes>>, Option<Upgrading<A, R>>) {
        let (gate, peer) = (Gate { options: &self.options, state: &self.state }, peer.into());
        let Ok(Entrance { mut place, overload: None, handshake, .. }) = self.enter(peer) else {
            return (gate.turn_away(Overload::Connections), None);
        };
        let upgrade = OnceLock::new();
        let answer = gate.answer(&request, peer, &upgrade);
        let upgrading = upgrade.into_inner().map(|Upgrade { version, address }| {
            place.comes_from(address);
            let on_upgrade = hyper::upgrade::on(&mut request);
            Upgrading { server: self.clone(), on_upgrade, version, place, handshake }
        });
        (answer, upgrading)
    }

    /// Accepts connections until the server is drained. Each authenticated one is handed to the
    /// handler, on a task of its own; when the handler is done, the connection is closed.
    ///
    /// A connection that fails concerns no other. An error of the listener itself, such as too
    /// many open files, is logged and survived after a pause.
    pub async fn serve<H, F>(&self, listener: TcpListener, handler: H)
    where
        H: Fn(Connection<AuthenticatedClient>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        self.serve_over(listener, |stream| ready(Ok(stream)), handler).await;
    }

    /// The same as [`Server::serve`], where each connection is taken through `open` first, such
    /// as a TLS handshake. That counts into [`upgrade_timeout`](Limits::upgrade_timeout).
    pub async fn serve_over<O, OF, S, H, F>(&self, listener: TcpListener, open: O, handler: H)
    where
        O: Fn(TcpStream) -> OF + Clone + Send + Sync + 'static,
        OF: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Fn(Connection<AuthenticatedClient>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        select! {
            () = self.accept_all(listener, open, handler) => {}
            () = self.maintain() => {}
            () = self.state.drained.wait().map(|_| ()) => {}
        }
    }

    /// Keeps the authenticator fresh and closes connections whose identity is revoked, until it
    /// is dropped. [`Server::serve`] does this itself.
    pub async fn maintain(&self) {
        let revocations = async {
            if let Some(revocations) = self.authenticator.revocations() {
                self.state.live.enforce(revocations).await;
            }
        };
        join!(self.authenticator.keep_fresh(), revocations);
        std::future::pending().await
    }

    /// Stops serving: upgrades are refused from now on with 503, connections are closed with 1001
    /// once the calls that have arrived are answered, and [`Server::serve`] returns. Done when no
    /// connection is left.
    pub async fn drain(&self, drain: Drain) {
        let _ = self.state.draining.set(drain.retry_after);
        self.state.live.drain(drain).await;
        let _ = self.state.drained.set(());
    }

    async fn accept_all<O, OF, S, H, F>(&self, listener: TcpListener, open: O, handler: H)
    where
        O: Fn(TcpStream) -> OF + Clone + Send + Sync + 'static,
        OF: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Fn(Connection<AuthenticatedClient>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let _ = stream.set_nodelay(true);
                    let (open, handler) = (open.clone(), handler.clone());
                    let span = tracing::info_span!("connection", %peer, client_id = Empty);
                    let task = self.clone().open_then_serve(stream, peer.ip(), open, handler);
                    tokio::spawn(task.instrument(span));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections, trying again soon");
                    metrics::refused("accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The way to the upgrade has its own task, so that a connection does not carry the size of
    /// it for life.
    async fn open_then_serve<O, OF, S, H, F>(
        self,
        stream: TcpStream,
        peer: IpAddr,
        open: O,
        handler: H,
    ) where
        O: Fn(TcpStream) -> OF,
        OF: Future<Output = io::Result<S>>,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Fn(Connection<AuthenticatedClient>) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let upgraded = async {
            let entrance = self.enter(Some(peer))?;
            let opened = timeout(self.options.limits.upgrade_timeout, open(stream)).await;
            let stream = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            self.upgrade(stream.map_err(AcceptError::Open)?, entrance).await
        };
        match upgraded.await {
            Ok(upgraded) => {
                let task = self.authenticate_then_serve(upgraded, handler);
                drop(tokio::spawn(task.in_current_span()));
            }
            Err(error) => {
                metrics::refused(error.name());
                if !matches!(error, AcceptError::NotUpgraded) {
                    tracing::info!(reason = %error, "connection not upgraded");
                }
            }
        }
    }

    async fn authenticate_then_serve<S, H, F>(self, upgraded: Upgraded<S>, handler: H)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        H: Fn(Connection<AuthenticatedClient>) -> F + Send + Sync,
        F: Future<Output = ()> + Send,
    {
        let version = upgraded.version;
        // Boxed, so that the connection does not carry the size of it for life.
        let (connection, driver) = match Box::pin(self.authenticate(upgraded)).await {
            Ok(authenticated) => authenticated,
            Err(error) => return tracing::info!(reason = %error, "client not authenticated"),
        };
        Span::current().record("client_id", display(connection.client_id()));
        tracing::info!(%version, "client authenticated");
        let handle = connection.handle();
        join!(driver, handler(connection));
        if let Some(end) = handle.ended() {
            tracing::info!(reason = %end.cause, "connection ended");
        }
    }

    /// Lets a connection in, if there is room.
    fn enter(&self, peer: Option<IpAddr>) -> Result<Entrance, AcceptError> {
        let handshake = Handshake::begins();
        let entered = self.state.admission.enter(peer, &self.options.limits);
        let (place, overload) = entered.ok_or(AcceptError::Overloaded)?;
        Ok(Entrance { place, overload, handshake, began: Instant::now() })
    }

    async fn upgrade<S>(
        &self,
        stream: S,
        Entrance { mut place, overload, handshake, began }: Entrance,
    ) -> Result<Upgraded<S>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let gate = Gate { options: &self.options, state: &self.state };
        let (socket, version) = upgrade::upgrade(stream, &mut place, overload, &gate).await?;
        metrics::upgraded(began.elapsed());
        Ok(Upgraded { socket, version, place, handshake })
    }

    async fn authenticate<S>(
        &self,
        upgraded: Upgraded<S>,
    ) -> Result<
        (Connection<AuthenticatedClient>, impl Future<Output = ()> + Send + use<S, A, R>),
        AcceptError,
    >
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let authenticated = self.try_authenticate(upgraded).await;
        if let Err(error) = &authenticated {
            metrics::refused(error.name());
        }
        authenticated
    }

    async fn try_authenticate<S>(
        &self,
        Upgraded { mut socket, version, mut place, handshake }: Upgraded<S>,
    ) -> Result<
        (Connection<AuthenticatedClient>, impl Future<Output = ()> + Send + use<S, A, R>),
        AcceptError,
    >
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Options { limits, server_id, .. } = &*self.options;
        let now = Instant::now();
        let deadline = now + limits.auth_timeout;
        let mut session =
            ServerSession::registering(now.into_std(), limits.auth_timeout, version, server_id);
        let occupant = Occupant::default();
        let mut refused = None;
        loop {
            match transport::handshake(&mut socket, &mut session).await {
                Ok(Step::Authenticated(client)) => {
                    place.authenticated();
                    self.limit(&mut session, client.verified.identity());
                    let (connection, driver) =
                        transport::connect(socket, session, client, occupant, version, limits);
                    let entry = self.state.live.enter(connection.handle());
                    self.look_again(&connection.handle());
                    metrics::authenticated(now.elapsed(), self.authenticator.method());
                    drop(handshake);
                    let (living, handle) = (Living::begins(), connection.handle());
                    let renewals = self.clone().renewals(handle.clone());
                    let driver = Box::pin(driver);
                    let driver = async move {
                        select! {
                            () = driver => {}
                            () = renewals => {}
                        }
                        handle.ended().into_iter().for_each(metrics::ended);
                        drop((entry, place, living));
                    };
                    return Ok((connection, driver));
                }
                Ok(Step::Authenticate(request)) => {
                    match timeout_at(deadline, self.admit(&request, &occupant)).await {
                        Ok(Ok(admitted)) => session.resolve_registered(request, Ok(admitted)),
                        Ok(Err(reason)) => {
                            let client_id = request.client_id().clone();
                            session.resolve_registered(request, Err(reason.refusal()));
                            refused = Some((client_id, reason));
                        }
                        // The session's own deadline is the same, and refuses.
                        Err(_) => drop(request),
                    }
                }
                Err(end) => {
                    return Err(match refused {
                        Some((client_id, NotAdmitted::Auth(error))) => {
                            let blameless = matches!(error, AuthError::Unavailable(_));
                            if let Some(address) = place.address().filter(|_| !blameless) {
                                self.state.admission.failed(address, limits);
                            }
                            AcceptError::Refused { client_id, error }
                        }
                        Some((client_id, NotAdmitted::Registry(error))) => {
                            AcceptError::NotRegistered { client_id, error }
                        }
                        None => AcceptError::Ended(end),
                    });
                }
            }
        }
    }

    /// The verdict on the token, and then the registration of the client id.
    async fn admit(
        &self,
        request: &AuthRequest,
        occupant: &Occupant,
    ) -> Result<(Verified, R::Registration), NotAdmitted> {
        let now = (self.options.clock)();
        let verified =
            self.authenticator.authenticate(request, now).await.map_err(NotAdmitted::Auth)?;
        let client = AuthenticatedClient { client_id: request.client_id().clone(), verified };
        let registration = self.registry.register(&client, occupant.clone()).await;
        Ok((client.verified, registration.map_err(NotAdmitted::Registry)?))
    }

    /// What may have happened to all connections while this one was not among them.
    fn look_again(&self, connection: &Handle<AuthenticatedClient>) {
        if let Some(&retry_after) = self.state.draining.get() {
            connection.drain(live::stopping(retry_after));
        }
        let identity = connection.peer().verified.identity();
        if self.authenticator.revocations().is_some_and(|list| list.is_revoked(identity)) {
            live::revoke(connection);
        }
    }

    /// Decides on renewals as long as the connection lives, if that is the policy.
    async fn renewals(self, connection: Handle<AuthenticatedClient>) {
        if self.options.auth_changes == AuthChangePolicy::Refuse {
            return std::future::pending().await;
        }
        loop {
            let request = connection.renewal().await;
            let now = (self.options.clock)();
            let verdict = self.authenticator.authenticate(&request, now);
            let verdict = timeout(self.options.limits.auth_timeout, verdict).await;
            let verdict = verdict.map_err(|_| Refusal::Unavailable).and_then(|verdict| {
                verdict.map_err(|error| {
                    tracing::info!(reason = %error, "renewal refused");
                    Refusal::from(&error)
                })
            });
            let expires = verdict.as_ref().ok().and_then(|new| self.expires(new.identity()));
            connection.renew(request, verdict, expires);
        }
    }

    /// Limits how long a connection lasts, as the policies want it.
    fn limit(&self, session: &mut ServerSession<R::Registration>, identity: &Identity) {
        if let Some(age) = self.options.limits.max_session_age {
            session.limit(Instant::now().into_std() + age, Limit::Age);
        }
        if let Some(expires) = self.expires(identity) {
            session.limit(expires, Limit::Expiry);
        }
    }

    /// When a token's time is over, if that is enforced.
    fn expires(&self, identity: &Identity) -> Option<std::time::Instant> {
        let ExpiryPolicy::Close { leeway } = self.options.expiry else { return None };
        let end = identity.expires_at?.as_secs().saturating_add(leeway.into());
        let left = end.saturating_sub((self.options.clock)().as_secs());
        let left = u64::try_from(left).unwrap_or(0).min(MAX_TIMER);
        Some(Instant::now().into_std() + Duration::from_secs(left))
    }
}

/// Longer than any connection lasts, and short enough for every clock: 10 years.
const MAX_TIMER: u64 = 10 * 365 * 24 * 3600;

/// Why a client is not admitted.
enum NotAdmitted {
    Auth(AuthError),
    Registry(RegistryError),
}

impl NotAdmitted {
    fn refusal(&self) -> Refusal {
        match self {
            NotAdmitted::Auth(error) => error.into(),
            NotAdmitted::Registry(RegistryError::Occupied) => Refusal::Occupied,
            NotAdmitted::Registry(RegistryError::Unavailable(_)) => Refusal::Unavailable,
        }
    }
}

/// A request that is about to become a connection; see [`Server::respond`].
pub struct Upgrading<A, R = InProcessRegistry> {
    server: Server<A, R>,
    on_upgrade: OnUpgrade,
    version: Version,
    place: Place,
    handshake: Handshake,
}

impl<A: Authenticator, R: Registry> Upgrading<A, R> {
    /// Takes the connection through the authentication, as [`Server::accept`] does.
    ///
    /// # Errors
    ///
    /// The connection did not come so far; see [`AcceptError`]. It has been answered and closed.
    pub async fn accept(self) -> Result<Connection<AuthenticatedClient>, AcceptError> {
        let Upgrading { server, on_upgrade, version, place, handshake } = self;
        let stream = on_upgrade.await.map_err(|error| AcceptError::Http(HttpError(error)))?;
        let limits = &server.options.limits;
        let socket = upgrade::websocket(TokioIo::new(stream), Bytes::new(), limits).await;
        let (connection, driver) =
            server.authenticate(Upgraded { socket, version, place, handshake }).await?;
        tokio::spawn(driver);
        Ok(connection)
    }
}

/// A connection that has come in.
struct Entrance {
    place: Place,
    overload: Option<Overload>,
    handshake: Handshake,
    began: Instant,
}

/// A connection that has negotiated a version.
struct Upgraded<S> {
    socket: Socket<S>,
    version: Version,
    place: Place,
    handshake: Handshake,
}

/// How long nothing is accepted when that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection did not come to have an authenticated client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The peer went without asking for a WebSocket; it may have asked for something else.
    #[error("the connection ended before an upgrade")]
    NotUpgraded,
    /// There are so many connections beyond the limits that this one was not even told.
    #[error("too many connections")]
    Overloaded,
    /// The stream could not be opened: the TLS handshake failed or took too long.
    #[error("the connection could not be opened: {0}")]
    Open(#[source] io::Error),
    /// What the peer sent is not HTTP, or did not come in time, or the connection broke.
    #[error("the HTTP request failed")]
    Http(#[source] HttpError),
    /// The authenticator did not let the client in.
    #[error("authentication of client {client_id} failed: {error}")]
    Refused {
        /// The id that the client claims.
        client_id: ClientId,
        /// The exact reason.
        #[source]
        error: AuthError,
    },
    /// The client is connected already, or that cannot be known.
    #[error("client {client_id} not registered: {error}")]
    NotRegistered {
        /// The client's id.
        client_id: ClientId,
        /// The exact reason.
        #[source]
        error: RegistryError,
    },
    /// The session ended before the client was authenticated.
    #[error("{}", .0.cause)]
    Ended(End),
}

impl AcceptError {
    /// What it is called in metrics.
    fn name(&self) -> &'static str {
        match self {
            AcceptError::NotUpgraded => "not upgraded",
            AcceptError::Overloaded => "overloaded",
            AcceptError::Open(_) => "not opened",
            AcceptError::Http(_) => "http failed",
            AcceptError::Refused { error: AuthError::Unavailable(_), .. } => "auth unavailable",
            AcceptError::Refused { .. } => "auth refused",
            AcceptError::NotRegistered { .. } => "not registered",
            AcceptError::Ended(_) => "ended before authentication",
        }
    }
}

/// What the HTTP library says of a failed request.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HttpError(hyper::Error);
