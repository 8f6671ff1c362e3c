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
//! | `satellite_accept_errors_total` | how often the listener failed, such as for want of descriptors |
//! | `satellite_pings_total` | pings that were sent |
//! | `satellite_unsent_bytes` | bytes of messages that wait for the network |
//!
//! They add up, once nothing goes on: accepted = `satellite_handshakes` + refused + authenticated,
//! and authenticated = `satellite_connections` + closes. The reasons of the refused are three kinds:
//!
//! | kind | reasons |
//! |---|---|
//! | refused by the server | `overloaded`, `auth refused`, `not registered` |
//! | failed | `not opened` (TLS), `upgrade timed out`, `http failed`, `auth unavailable`, `panicked` |
//! | abandoned | `not upgraded` (asked for something else, or nothing, or was turned away by an HTTP answer), `ended before authentication` (left, broke the protocol or let the time pass), `dropped` (by whoever called [`Server::accept`]) |

mod admission;
mod empty;
mod error;
mod headers;
mod live;
mod metrics;
mod options;
mod respond;
#[cfg(feature = "tls")]
mod tls;
mod upgrade;

use std::{
    future::{Future, ready},
    io,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{self, OptionFuture},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    join,
    net::{TcpListener, TcpStream},
    select,
    sync::{SetOnce, watch},
    time::{Instant, sleep, timeout_at},
};
use tracing::{
    Instrument, Span,
    field::{Empty, display},
};

use crate::{
    auth::Authenticator,
    registry::{InProcessRegistry, Occupant, Registry},
    session::{
        AuthChangePolicy, AuthRequest, AuthenticatedClient, Cause, Close, Identity, Limit, Refusal,
        ServerSession, Session, UnixTime, Verified,
    },
    transport::{self, Connection, Handle, Limits, Socket, Step},
    wire::Version,
};

use admission::{Admission, Overload, Place};
use error::NotAdmitted;
use headers::is_trusted;
use live::{Busy, LiveConnections};
use metrics::{Handshake, LastMethod};
use options::Options;
use upgrade::Gate;

pub use empty::empty_database;
pub use error::{AcceptError, HttpError};
pub use live::Drain;
pub use options::ExpiryPolicy;
pub use respond::Upgrading;
#[cfg(feature = "tls")]
pub use tls::{CertificateError, Tls, TlsError};

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

/// What changes while a server runs.
#[derive(Default)]
struct State {
    live: Arc<LiveConnections>,
    admission: Arc<Admission>,
    method: LastMethod,
    /// After how many seconds to come back, once the service is going to stop.
    draining: SetOnce<u32>,
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
    /// A server with this authenticator, the default [`Limits`], every version from 0.6 to 0.12, a registry
    /// in this process and a random instance id.
    pub fn new(authenticator: A) -> Server<A> {
        let options = Options::new(authenticator.warning());
        Server {
            authenticator: Arc::new(authenticator),
            registry: Arc::default(),
            options: Arc::new(options),
            state: Arc::default(),
        }
    }
}

impl<A: Authenticator, R: Registry> Server<A, R> {
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
        let entrance = self.enter(peer.into()).map_err(|_| AcceptError::Overloaded)?;
        let upgraded = self.upgrade(stream, entrance).await?;
        let (connection, driver) = self.clone().authenticate(upgraded).await?;
        tokio::spawn(driver);
        Ok(connection)
    }

    /// Accepts connections until the server is drained. Each authenticated one is handed to the
    /// handler, on a task of its own; when the handler is done, the connection is closed.
    ///
    /// A connection that fails concerns no other. Where the handler, the authenticator, the registry
    /// or the revocation list panics, it is closed with 1011. An error of the listener itself, such as too many open files, is logged
    /// and survived after a pause.
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
        let fresh = async {
            let tell = || tracing::error!("the authenticator panicked while it was kept fresh");
            // Again after a panic, or keys would not be exchanged any more.
            while survive(self.authenticator.keep_fresh(), tell).await.is_none() {
                sleep(KEEP_FRESH_PAUSE).await;
            }
        };
        join!(fresh, revocations);
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
        // Earlier than the deadlines of all handshakes that begin before it is over. Tokio wakes its
        // driver, by a system call, for every timer that is earlier than all that it knew when it went
        // to sleep: in a burst, that would be two for each handshake.
        let mut earliest = pin!(sleep(Duration::ZERO));
        let soonest = self.options.limits.upgrade_timeout.min(self.options.limits.auth_timeout);
        loop {
            let accepted = select! {
                biased;
                accepted = listener.accept() => accepted,
                () = &mut earliest, if !earliest.is_elapsed() => continue,
            };
            if earliest.is_elapsed() {
                earliest.as_mut().reset(Instant::now() + soonest);
            }
            match accepted {
                Ok((stream, peer)) => match self.enter(Some(peer.ip())) {
                    Ok(entrance) => {
                        let _ = stream.set_nodelay(true);
                        let (open, handler) = (open.clone(), handler.clone());
                        let span = tracing::info_span!("connection", %peer, client_id = Empty);
                        let task = self.clone().serve_one(stream, entrance, open, handler);
                        tokio::spawn(task.instrument(span));
                    }
                    Err(overload) => {
                        tracing::debug!(%peer, reason = overload.name(), "just closed");
                    }
                },
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections, trying again soon");
                    metrics::accept_failed();
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// When the service is going to stop: how to close, and why.
    async fn stops(&self) -> (Close, Cause) {
        (live::stopping(*self.state.draining.wait().await), Cause::Drained)
    }

    /// One connection from its first byte to its last. The way to the authentication is boxed, and that
    /// to the upgrade once more, so that none of it is carried further than to its end.
    fn serve_one<O, OF, S, H, F>(
        self,
        stream: TcpStream,
        entrance: Entrance,
        open: O,
        handler: H,
    ) -> impl Future<Output = ()> + Send
    where
        O: FnOnce(TcpStream) -> OF + Send,
        OF: Future<Output = io::Result<S>> + Send,
        S: AsyncRead + AsyncWrite + Unpin + Send,
        H: FnOnce(Connection<AuthenticatedClient>) -> F + Send,
        F: Future<Output = ()> + Send,
    {
        let upgraded = Box::pin(self.open_then_upgrade(stream, entrance, open));
        let authenticated = Box::pin(async {
            let (server, upgraded) = upgraded.await?;
            server.authenticate_then_attend(upgraded, handler).await
        });
        // An `async` block would keep what serves the connection twice.
        authenticated.then(OptionFuture::from).map(drop)
    }

    /// Until the connection is upgraded; nothing if it is not, which is logged.
    async fn open_then_upgrade<O, OF, S>(
        self,
        stream: TcpStream,
        mut entrance: Entrance,
        open: O,
    ) -> Option<(Server<A, R>, Upgraded<S>)>
    where
        O: FnOnce(TcpStream) -> OF,
        OF: Future<Output = io::Result<S>>,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let opened = timeout_at(entrance.deadline(&self.options.limits), open(stream)).await;
        let stream = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = entrance.handshake.judged(stream.map_err(AcceptError::Open));
        let stream = stream.inspect_err(log_not_upgraded).ok()?;
        let upgraded = self.upgrade(stream, entrance).await;
        let upgraded = upgraded.inspect_err(log_not_upgraded).ok()?;
        Some((self, upgraded))
    }

    /// Until the client is authenticated, and then what serves it; nothing if it is not, which is
    /// logged. An `async` function would keep what it is called with, too.
    fn authenticate_then_attend<S, H, F>(
        self,
        upgraded: Upgraded<S>,
        handler: H,
    ) -> impl Future<Output = Option<impl Future<Output = ()> + Send>> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        H: FnOnce(Connection<AuthenticatedClient>) -> F + Send,
        F: Future<Output = ()> + Send,
    {
        let busy = self.state.live.busy();
        self.authenticate(upgraded).map(|authenticated| match authenticated {
            Ok((connection, driver)) => Some(attend(connection, driver, handler, busy)),
            Err(error) => {
                tracing::info!(reason = %error, "client not authenticated");
                None
            }
        })
    }

    /// Lets a connection in, or names the limit beyond which it is not even told so.
    fn enter(&self, peer: Option<IpAddr>) -> Result<Entrance, Overload> {
        let mut handshake = Handshake::begins();
        let Options { trusted_proxies, limits, .. } = &*self.options;
        let is_proxy = peer.is_some_and(|peer| is_trusted(peer, trusted_proxies));
        let entered = self.state.admission.enter(peer, is_proxy, limits);
        let refused = |_: &_| handshake.refused(&AcceptError::Overloaded);
        let (place, overload) = entered.inspect_err(refused)?;
        Ok(Entrance { place, overload, handshake, began: Instant::now() })
    }

    async fn upgrade<S>(&self, stream: S, entrance: Entrance) -> Result<Upgraded<S>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let gate = Gate { options: &self.options, state: &self.state };
        let deadline = entrance.deadline(&self.options.limits);
        let Entrance { mut place, overload, mut handshake, began } = entrance;
        let upgrade = upgrade::upgrade(stream, &mut place, overload, &gate);
        let upgraded = timeout_at(deadline, upgrade).await;
        let upgraded = upgraded.unwrap_or(Err(AcceptError::TimedOut));
        let (socket, version) = handshake.judged(upgraded)?;
        let now = Instant::now();
        metrics::upgraded(now - began);
        Ok(Upgraded { socket, version, place, handshake, since: now })
    }

    /// Until the client is authenticated, and then what drives its connection. An `async` function
    /// would keep what it is called with twice.
    fn authenticate<S>(
        self,
        upgraded: Upgraded<S>,
    ) -> impl Future<
        Output = Result<
            (Connection<AuthenticatedClient>, impl Future<Output = ()> + Send),
            AcceptError,
        >,
    > + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Upgraded { mut socket, version, mut place, mut handshake, since } = upgraded;
        async move {
            let Options { limits, server_id, auth_changes, .. } = &*self.options;
            let _busy = self.state.live.busy();
            let deadline = since + limits.auth_timeout;
            let mut session = ServerSession::registering(
                since.into_std(),
                limits.auth_timeout,
                version,
                server_id.clone(),
            )
            .with_auth_changes(*auth_changes);
            let occupant = Occupant::default();
            let mut refused = None;
            let mut stops = pin!(self.stops());
            loop {
                match transport::handshake(&mut socket, &mut session, &mut stops).await {
                    Ok(Step::Authenticated(client)) => {
                        place.authenticated();
                        self.limit(&mut session, client.verified.identity());
                        let now = Instant::now();
                        let (connection, driver) = transport::connect(
                            socket, session, client, occupant, version, limits, now,
                        );
                        let entry = self.state.live.enter(connection.handle());
                        self.look_again(&connection.handle());
                        let method = self.state.method.is(self.authenticator.method());
                        let living = handshake.authenticated(now - since, &method);
                        let handle = connection.handle();
                        let driver = Box::pin(driver);
                        // Boxed where there are any, so that the others do not carry their size.
                        let renewals = (self.options.auth_changes != AuthChangePolicy::Refuse)
                            .then(|| Box::pin(self.clone().renewals(handle.clone())));
                        let driver = async move {
                            select! {
                                () = driver => {}
                                Some(()) = OptionFuture::from(renewals) => {}
                            }
                            handle.ended().into_iter().for_each(metrics::ended);
                            // The place first, for whoever waits until there is room.
                            drop((place, living, entry));
                        };
                        return Ok((connection, driver));
                    }
                    Ok(Step::Authenticate(request)) => {
                        let admission =
                            survive(self.admit(&request, &place, &occupant), auth_panicked);
                        let verdict = select! {
                            biased;
                            (close, cause) = &mut stops => {
                                session.end(None, close, cause);
                                continue;
                            }
                            verdict = timeout_at(deadline, admission) => verdict,
                        };
                        match verdict {
                            Ok(Some(Ok(admitted))) => {
                                session.resolve_registered(request, Ok(admitted));
                            }
                            Ok(Some(Err(reason))) => {
                                // Before the refusal is sent, which may take its time.
                                if reason.is_failed_authentication() {
                                    place.failed(limits);
                                }
                                let client_id = request.client_id().clone();
                                session.resolve_registered(request, Err(reason.refusal()));
                                refused = Some((client_id, reason));
                            }
                            Ok(None) => session.end(None, Close::INTERNAL, Cause::Panicked),
                            // The session's own deadline is the same, and refuses.
                            Err(_) => drop(request),
                        }
                    }
                    Err(end) => {
                        let error = match refused {
                            Some((client_id, NotAdmitted::Auth(error))) => {
                                AcceptError::Refused { client_id, error }
                            }
                            Some((client_id, NotAdmitted::Registry(error))) => {
                                AcceptError::NotRegistered { client_id, error }
                            }
                            None => AcceptError::Ended(end),
                        };
                        handshake.refused(&error);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// The verdict on the token, and then the registration of the client id.
    async fn admit(
        &self,
        request: &AuthRequest,
        place: &Place,
        occupant: &Occupant,
    ) -> Result<(Verified, R::Registration), NotAdmitted> {
        let verified = {
            let _turn = place.turn(&self.options.limits).await;
            let now = (self.options.clock)();
            self.authenticator.authenticate(request, now).await.map_err(NotAdmitted::Auth)?
        };
        let client = AuthenticatedClient { client_id: request.client_id().clone(), verified };
        let registration = self.registry.register(&client, occupant.clone()).await;
        Ok((client.verified, registration.map_err(NotAdmitted::Registry)?))
    }

    /// What may have happened to all connections while this one was not among them.
    fn look_again(&self, connection: &Handle<AuthenticatedClient>) {
        if let Some(&retry_after) = self.state.draining.get() {
            connection.drain(live::stopping(retry_after));
        }
        if let Some(revocations) = self.authenticator.revocations() {
            live::end_if_revoked(connection, &*revocations);
        }
    }

    /// Decides on renewals as long as the connection lives.
    async fn renewals(self, connection: Handle<AuthenticatedClient>) {
        loop {
            let request = connection.renewal().await;
            let now = (self.options.clock)();
            // The session has a deadline for it, which refuses.
            let verdict = survive(self.authenticator.authenticate(&request, now), auth_panicked);
            let Some(verdict) = verdict.await else {
                connection.end(None, Close::INTERNAL, Cause::Panicked);
                continue;
            };
            let verdict = verdict.map_err(|error| {
                tracing::info!(reason = %error, "renewal refused");
                Refusal::from(&error)
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
        let left = UnixTime::from_secs(end).left((self.options.clock)());
        Some(Instant::now().into_std() + left)
    }
}

/// Who asks for something else, or for nothing, is nothing to speak of.
fn log_not_upgraded(error: &AcceptError) {
    if !matches!(error, AcceptError::NotUpgraded) {
        tracing::info!(reason = %error, "connection not upgraded");
    }
}

/// Runs a connection and its handler to their ends.
fn attend<H, F>(
    connection: Connection<AuthenticatedClient>,
    driver: impl Future<Output = ()> + Send,
    handler: H,
    busy: Busy,
) -> impl Future<Output = ()> + Send
where
    H: FnOnce(Connection<AuthenticatedClient>) -> F + Send,
    F: Future<Output = ()> + Send,
{
    Span::current().record("client_id", display(connection.client_id()));
    tracing::info!(version = %connection.version(), "client authenticated");
    let handle = connection.handle();
    // In a block of its own, which a panic drops with all that the handler holds.
    let handled = async move { handler(connection).await };
    let handled = survive(handled, || tracing::error!("the handler panicked"));
    future::join(driver, handled).map(move |_| {
        if let Some(end) = handle.ended() {
            tracing::info!(reason = %end.cause, "connection ended");
        }
        drop(busy);
    })
}

/// What the embedder's code comes to; nothing if it panics, which is for whoever installed a panic
/// hook and for the log, and is the end of no more than one connection.
fn survive<F: Future>(code: F, tell: impl FnOnce()) -> impl Future<Output = Option<F::Output>> {
    AssertUnwindSafe(code).catch_unwind().map(|came| came.map_err(|_| tell()).ok())
}

/// The same of code that is no future.
fn survive_call<T>(code: impl FnOnce() -> T, tell: impl FnOnce()) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|_| tell()).ok()
}

fn auth_panicked() {
    tracing::error!("the authenticator or the registry panicked");
}

/// A connection that has come in.
struct Entrance {
    place: Place,
    overload: Option<Overload>,
    handshake: Handshake,
    began: Instant,
}

impl Entrance {
    /// Until when it has to be upgraded, what opens it included.
    fn deadline(&self, limits: &Limits) -> Instant {
        self.began + limits.upgrade_timeout
    }
}

/// A connection that has negotiated a version.
struct Upgraded<S> {
    socket: Socket<S>,
    version: Version,
    place: Place,
    handshake: Handshake,
    /// Since when.
    since: Instant,
}

/// How long nothing is done to keep an authenticator fresh that has panicked over it.
const KEEP_FRESH_PAUSE: Duration = Duration::from_secs(1);

/// How long nothing is accepted when that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
