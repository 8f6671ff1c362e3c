//! The server's side: the HTTP upgrade, the authentication, and the accept loop.
//!
//! [`Server::accept`] takes one connection to the point where its client is authenticated;
//! [`Server::serve`] does so for every connection of a listener, and hands each to a handler, such
//! as [`empty_database`].

mod empty;
mod upgrade;

use std::{
    convert::Infallible, future::Future, net::SocketAddr, ops::RangeInclusive, sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    select,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    auth::{AuthError, Authenticator},
    session::{
        AuthRequest, AuthenticatedClient, ClientId, End, Refusal, ServerSession, UnixTime, Verified,
    },
    transport::{self, Connection, Limits, Socket, Step},
    wire::Version,
};

pub use empty::empty_database;

/// A server that lets clients in. Its clones are the same server.
///
/// ```
/// use electric_satellite::{auth::JwtAuthenticator, server::Server, wire::Version};
///
/// let server = Server::new(JwtAuthenticator::insecure(None))
///     .with_server_id("instance-1")
///     .with_versions(Version::V0_10..=Version::V0_12);
/// ```
pub struct Server<A> {
    authenticator: Arc<A>,
    options: Arc<Options>,
}

/// What a server is configured with, beside its authenticator.
#[derive(Clone)]
struct Options {
    limits: Limits,
    versions: RangeInclusive<Version>,
    server_id: String,
    clock: Clock,
    warning: Option<&'static str>,
}

/// The wall clock that tokens are judged by.
type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;

impl<A> Clone for Server<A> {
    fn clone(&self) -> Server<A> {
        Server {
            authenticator: Arc::clone(&self.authenticator),
            options: Arc::clone(&self.options),
        }
    }
}

impl<A: Authenticator> Server<A> {
    /// A server with this authenticator, the default [`Limits`], every version from 0.6 to 0.12
    /// and a random instance id.
    pub fn new(authenticator: A) -> Server<A> {
        let options = Options {
            limits: Limits::default(),
            versions: Version::V0_6..=Version::V0_12,
            server_id: uuid::Uuid::new_v4().to_string(),
            clock: Arc::new(UnixTime::now),
            warning: authenticator.warning(),
        };
        Server { authenticator: Arc::new(authenticator), options: Arc::new(options) }
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Server<A> {
        change(Arc::make_mut(&mut self.options));
        self
    }

    /// The same server with other limits.
    pub fn with_limits(self, limits: Limits) -> Server<A> {
        self.with(|options| options.limits = limits)
    }

    /// The same server with other versions. Of several that a client offers, the newest among
    /// these is chosen.
    pub fn with_versions(self, versions: RangeInclusive<Version>) -> Server<A> {
        self.with(|options| options.versions = versions)
    }

    /// The same server with this instance id, which authenticated clients are told.
    pub fn with_server_id(self, server_id: impl Into<String>) -> Server<A> {
        self.with(|options| options.server_id = server_id.into())
    }

    /// The same server with another wall clock, by which tokens are judged: for tests.
    pub fn with_clock(self, clock: impl Fn() -> UnixTime + Send + Sync + 'static) -> Server<A> {
        self.with(|options| options.clock = Arc::new(clock))
    }

    /// Takes a connection through the upgrade and the authentication. It is driven by a task of
    /// its own from then on, and lives until it ends or the [`Connection`] is dropped.
    ///
    /// Must be called on a Tokio runtime with time enabled.
    ///
    /// # Errors
    ///
    /// The connection did not come so far; see [`AcceptError`]. It has been answered and closed.
    pub async fn accept<S>(&self, stream: S) -> Result<Connection<AuthenticatedClient>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (socket, version) = upgrade::upgrade(stream, &self.options).await?;
        let (connection, driver) = self.authenticate(socket, version).await?;
        tokio::spawn(driver);
        Ok(connection)
    }

    /// Accepts connections for ever. Each authenticated one is handed to the handler, on a task
    /// of its own; when the handler is done, the connection is closed.
    ///
    /// A connection that fails concerns no other. An error of the listener itself, such as too
    /// many open files, is logged and survived after a pause.
    pub async fn serve<H, F>(&self, listener: TcpListener, handler: H) -> Infallible
    where
        H: Fn(Connection<AuthenticatedClient>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let keep_fresh = async {
            self.authenticator.keep_fresh().await;
            std::future::pending().await
        };
        select! {
            never = self.accept_for_ever(listener, handler) => never,
            never = keep_fresh => never,
        }
    }

    async fn accept_for_ever<H, F>(&self, listener: TcpListener, handler: H) -> Infallible
    where
        H: Fn(Connection<AuthenticatedClient>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(self.clone().upgrade_then_serve(stream, peer, handler.clone()));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections, trying again soon");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// The upgrade has its own task, so that a connection does not carry the size of it for life.
    async fn upgrade_then_serve<S, H, F>(self, stream: S, peer: SocketAddr, handler: H)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Fn(Connection<AuthenticatedClient>) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        match upgrade::upgrade(stream, &self.options).await {
            Ok((socket, version)) => {
                tokio::spawn(self.authenticate_then_serve(socket, version, peer, handler));
            }
            Err(AcceptError::NotUpgraded) => {}
            Err(error) => tracing::info!(%peer, reason = %error, "connection not upgraded"),
        }
    }

    async fn authenticate_then_serve<S, H, F>(
        self,
        socket: Socket<S>,
        version: Version,
        peer: SocketAddr,
        handler: H,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        H: Fn(Connection<AuthenticatedClient>) -> F + Send + Sync,
        F: Future<Output = ()> + Send,
    {
        let (connection, driver) = match self.authenticate(socket, version).await {
            Ok(authenticated) => authenticated,
            Err(error) => {
                tracing::info!(%peer, reason = %error, "client not authenticated");
                return;
            }
        };
        let client_id = connection.client_id().clone();
        tracing::info!(%peer, %client_id, %version, "client authenticated");
        let ending = connection.ending();
        tokio::join!(driver, handler(connection));
        if let Some(end) = ending.get() {
            tracing::info!(%peer, %client_id, reason = %end.cause, "connection ended");
        }
    }

    async fn authenticate<S>(
        &self,
        mut socket: Socket<S>,
        version: Version,
    ) -> Result<
        (Connection<AuthenticatedClient>, impl Future<Output = ()> + Send + use<S, A>),
        AcceptError,
    >
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Options { limits, server_id, .. } = &*self.options;
        let now = Instant::now();
        let deadline = now + limits.auth_timeout;
        let mut session =
            ServerSession::new(now.into_std(), limits.auth_timeout, version, server_id);
        let mut refused = None;
        loop {
            match transport::handshake(&mut socket, &mut session).await {
                Ok(Step::Authenticated(client)) => {
                    return Ok(transport::connect(socket, session, client, version, limits));
                }
                Ok(Step::Authenticate(request)) => match self.verdict(&request, deadline).await {
                    Some(Ok(verified)) => session.resolve(request, Ok(verified)),
                    Some(Err(error)) => {
                        let refusal = Refusal::from(&error);
                        refused = Some((request.client_id().clone(), error));
                        session.resolve(request, Err(refusal));
                    }
                    // The session's own deadline is the same, and refuses.
                    None => drop(request),
                },
                Err(end) => {
                    return Err(match refused {
                        Some((client_id, error)) => AcceptError::Refused { client_id, error },
                        None => AcceptError::Ended(end),
                    });
                }
            }
        }
    }

    /// The authenticator's verdict, if it comes by the deadline.
    async fn verdict(
        &self,
        request: &AuthRequest,
        deadline: Instant,
    ) -> Option<Result<Verified, AuthError>> {
        let now = (self.options.clock)();
        timeout_at(deadline, self.authenticator.authenticate(request, now)).await.ok()
    }
}

/// Why a connection did not come to have an authenticated client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The peer went without asking for a WebSocket; it may have asked for something else.
    #[error("the connection ended before an upgrade")]
    NotUpgraded,
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
    /// The session ended before the client was authenticated.
    #[error("{}", .0.cause)]
    Ended(End),
}

/// What the HTTP library says of a failed request.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HttpError(hyper::Error);
