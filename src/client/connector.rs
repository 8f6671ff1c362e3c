//! One connection, step by step: the URL, the upgrade, the authentication.

use std::{fmt, future::pending, io, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{
        self, ClientRequestBuilder,
        error::ProtocolError,
        http::{
            HeaderMap, Uri,
            header::{RETRY_AFTER, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL},
            uri::Scheme,
        },
        protocol::Role,
    },
};

use crate::{
    registry::Occupant,
    session::{AuthenticatedServer, ClientId, ClientSession, End, Token},
    transport::{self, Connection, Limits, Socket, Step, config, metered},
    wire::Version,
};

#[cfg(feature = "tls")]
use super::ClientTls;

/// The port of a service whose URL names none, like the published clients'.
const DEFAULT_PORT: u16 = 5133;

/// Where to connect and how. It makes one connection at a time, and none again when that ends: a
/// [`Client`](super::Client) does.
///
/// ```no_run
/// use electric_satellite::{client::Connector, session::{ClientId, Token}};
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = Connector::new("http://localhost:5133")?;
/// let connection = connector.connect(&ClientId::random(), Token::new("the token")?).await?;
/// println!("let in by {}", connection.server_id());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector {
    host: String,
    port: u16,
    /// Whether the URL asks for TLS.
    secure: bool,
    #[cfg(feature = "tls")]
    tls: Option<ClientTls>,
    dialer: Option<Dialer>,
    /// What is offered, newest first.
    versions: Vec<Version>,
    limits: Arc<Limits>,
}

/// Opens streams in another way than by TCP.
type Dialer =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync>;

/// Anything that leads to a service.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A WebSocket that has negotiated a version and is not authenticated yet.
pub struct Upgraded<S> {
    socket: Socket<S>,
    version: Version,
    limits: Arc<Limits>,
}

impl Connector {
    /// A connector to the service at this URL: `http` or `ws`, and with the feature `tls` `https` or
    /// `wss`. Only the host and the port count beside, as with the published clients.
    ///
    /// # Errors
    ///
    /// It is no such URL. Without the feature `tls`, `https` and `wss` need a stream of your own;
    /// see [`Connector::upgrade`].
    pub fn new(url: &str) -> Result<Connector, UrlError> {
        let url: Uri = url.parse().map_err(|_| UrlError::Malformed)?;
        let secure = match url.scheme().map(Scheme::as_str) {
            Some("http" | "ws") => false,
            Some("https" | "wss") if cfg!(feature = "tls") => true,
            Some("https" | "wss") => return Err(UrlError::Tls),
            _ => return Err(UrlError::Scheme),
        };
        let host = url.host().filter(|host| !host.is_empty()).ok_or(UrlError::Malformed)?;
        Ok(Connector {
            host: host.to_owned(),
            port: url.port_u16().unwrap_or(if secure { 443 } else { DEFAULT_PORT }),
            secure,
            #[cfg(feature = "tls")]
            tls: None,
            dialer: None,
            versions: vec![Version::V0_12],
            limits: Arc::new(Limits::client()),
        })
    }

    /// The same connector, offering another version; 0.12 unless set.
    pub fn with_version(self, version: Version) -> Connector {
        self.with_versions([version])
    }

    /// The same connector, offering these versions, the newest first. The service chooses. One
    /// that refuses the list, as Electric does, is offered them one by one
    /// ([`Connector::connect`] does that).
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn with_versions(self, versions: impl IntoIterator<Item = Version>) -> Connector {
        let mut versions: Vec<_> = versions.into_iter().collect();
        assert!(!versions.is_empty(), "a client offers at least one version");
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.dedup();
        Connector { versions, ..self }
    }

    /// The same connector, whose streams are opened by `dialer` instead of by TCP: through a
    /// proxy, or in a test. It is given the host and the port of the URL. TLS, if the URL asks for
    /// it, goes over the stream.
    pub fn with_dialer<D, F, S>(self, dialer: D) -> Connector
    where
        D: Fn(String, u16) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let dialer = Arc::new(dialer);
        let boxed: Dialer = Arc::new(move |host, port| {
            let stream = dialer(host, port);
            Box::pin(async move { Ok(Box::new(stream.await?) as Box<dyn Stream>) })
        });
        Connector { dialer: Some(boxed), ..self }
    }

    /// The same connector with other limits; [`Limits::client`] unless set.
    ///
    /// # Panics
    ///
    /// The limits make no sense; [`Limits::check`] says so beforehand.
    #[track_caller]
    pub fn with_limits(self, limits: Limits) -> Connector {
        Connector { limits: Arc::new(limits.checked()), ..self }
    }

    /// The same connector, which gives each step of connecting this long.
    ///
    /// # Panics
    ///
    /// It is no time, or more than 136 years; see [`Limits::check`].
    #[track_caller]
    pub fn with_timeout(mut self, timeout: Duration) -> Connector {
        let limits = Limits {
            upgrade_timeout: timeout,
            auth_timeout: timeout,
            ..Limits::clone(&self.limits)
        };
        self.limits = Arc::new(limits.checked());
        self
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Connects and authenticates. The connection is driven by a task of its own from then on,
    /// and lives until it ends or the [`Connection`] is dropped. Dropped before it is done, it
    /// leaves nothing behind.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`], which tells how far it came.
    pub async fn connect(
        &self,
        client_id: &ClientId,
        token: Token,
    ) -> Result<Connection<AuthenticatedServer>, ConnectError> {
        let refused = match self.offer(&self.versions, client_id, token.clone()).await {
            Err(error) if self.versions.len() > 1 && error.is_version_refused() => error,
            outcome => return outcome,
        };
        for version in &self.versions {
            match self.offer(&[*version], client_id, token.clone()).await {
                Err(error) if error.is_version_refused() => {}
                outcome => return outcome,
            }
        }
        Err(refused)
    }

    /// One attempt to connect, with these versions.
    async fn offer(
        &self,
        versions: &[Version],
        client_id: &ClientId,
        token: Token,
    ) -> Result<Connection<AuthenticatedServer>, ConnectError> {
        match &self.dialer {
            None => self.over(self.dial().await?, versions, client_id, token).await,
            Some(dialer) => {
                let stream = self.in_time(dialer(self.host.clone(), self.port)).await?;
                let stream = stream.map_err(ConnectError::Unreachable)?;
                self.over(stream, versions, client_id, token).await
            }
        }
    }

    /// The steps over an open stream.
    async fn over<S>(
        &self,
        stream: S,
        versions: &[Version],
        client_id: &ClientId,
        token: Token,
    ) -> Result<Connection<AuthenticatedServer>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        #[cfg(feature = "tls")]
        if self.secure {
            let stream = self.secure(stream).await?;
            return self.upgrade_to(stream, versions).await?.authenticate(client_id, token).await;
        }
        self.upgrade_to(stream, versions).await?.authenticate(client_id, token).await
    }

    /// The same connector, which trusts other servers; those that the machine trusts unless set.
    #[cfg(feature = "tls")]
    pub fn with_tls(self, tls: ClientTls) -> Connector {
        Connector { tls: Some(tls), ..self }
    }

    /// Whether the URL asks for TLS, so that the TLS handshake (`secure`) is a step of its own.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Takes a stream through the TLS handshake: the step between the first and the second if the
    /// URL asks for it.
    ///
    /// # Errors
    ///
    /// It failed: the server is no TLS server, or not trusted.
    #[cfg(feature = "tls")]
    pub async fn secure<S>(
        &self,
        stream: S,
    ) -> Result<tokio_rustls::client::TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let tls = match &self.tls {
            Some(tls) => tls.clone(),
            None => ClientTls::platform().map_err(ConnectError::Tls)?,
        };
        let stream = self.in_time(tls.connect(self.bare_host(), stream)).await?;
        stream.map_err(ConnectError::Tls)
    }

    /// The host without the brackets of an IPv6 address.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The host of the URL, an IPv6 address without its brackets, and the port: what
    /// [`Connector::dial`] connects to.
    pub fn address(&self) -> (&str, u16) {
        (self.bare_host(), self.port)
    }

    /// Opens the TCP connection: the first of the three steps of [`Connector::connect`].
    ///
    /// # Errors
    ///
    /// The service cannot be reached.
    pub async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let stream = self.in_time(TcpStream::connect(self.address())).await?;
        let stream = stream.map_err(ConnectError::Unreachable)?;
        stream.set_nodelay(true).map_err(ConnectError::Unreachable)?;
        Ok(stream)
    }

    /// Upgrades a stream to a WebSocket and negotiates the version: the second step. The stream
    /// may be anything that leads to the service, such as a TLS stream.
    ///
    /// # Errors
    ///
    /// The service refused, or is none.
    pub async fn upgrade<S>(&self, stream: S) -> Result<Upgraded<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.upgrade_to(stream, &self.versions).await
    }

    async fn upgrade_to<S>(
        &self,
        stream: S,
        versions: &[Version],
    ) -> Result<Upgraded<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let uri = format!("ws://{}:{}/ws", self.host, self.port);
        let uri: Uri = uri.parse().expect("made of the parts of a URL");
        let request = versions.iter().fold(ClientRequestBuilder::new(uri), |request, version| {
            request.with_sub_protocol(version.to_string())
        });
        let stream = metered(stream, self.limits.max_head, &self.limits);
        let handshake = client_async_with_config(request, stream, Some(config(&self.limits)));
        let (stream, response) = self.in_time(handshake).await?.map_err(refused)?;
        // No extension was offered. The library does not look at them.
        if response.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            let error = ProtocolError::InvalidHeader(Box::new(SEC_WEBSOCKET_EXTENSIONS));
            return Err(ConnectError::UpgradeFailed(UpgradeError(error.into())));
        }
        // The library has checked that it is one of those.
        let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
        let version = chosen.and_then(|chosen| chosen.to_str().ok()?.parse().ok());
        let (version, limits) = (version.unwrap_or(versions[0]), Arc::clone(&self.limits));
        Ok(Upgraded { socket: Socket::new(stream, Role::Client, &limits), version, limits })
    }

    async fn in_time<F: Future>(&self, step: F) -> Result<F::Output, ConnectError> {
        timeout(self.limits.upgrade_timeout, step)
            .await
            .map_err(|_| ConnectError::TimedOut(self.limits.upgrade_timeout))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Upgraded<S> {
    /// The negotiated version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Presents the token: the third step.
    ///
    /// # Errors
    ///
    /// The service did not let the client in.
    pub async fn authenticate(
        self,
        client_id: &ClientId,
        token: Token,
    ) -> Result<Connection<AuthenticatedServer>, ConnectError> {
        let Upgraded { mut socket, version, limits } = self;
        let now = Instant::now().into_std();
        let mut session = ClientSession::new(now, limits.auth_timeout, version, client_id, token);
        match transport::handshake(&mut socket, &mut session, pending()).await {
            Ok(Step::Authenticated(server)) => {
                let (occupant, now) = (Occupant::default(), Instant::now());
                let (connection, driver) =
                    transport::connect(socket, session, server, occupant, version, &limits, now);
                tokio::spawn(driver);
                Ok(connection)
            }
            Ok(Step::Authenticate(_)) => unreachable!("only a server is asked"),
            Err(end) => Err(ConnectError::Ended(end)),
        }
    }
}

/// Why a text is not the URL of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no URL with a host.
    #[error("not a URL with a host, such as http://localhost:5133")]
    Malformed,
    /// It is a URL for something else.
    #[error("the URL must begin with http:// or ws://")]
    Scheme,
    /// It asks for TLS.
    #[error("TLS is not built in: bring a TLS stream of your own")]
    Tls,
}

/// Why a client is not connected; how far it came can be told from the variant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No TCP connection.
    #[error("the service cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// No TLS connection.
    #[error("the service cannot be reached by TLS: {0}")]
    Tls(#[source] io::Error),
    /// A step before authentication took too long.
    #[error("the service did not answer within {0:?}")]
    TimedOut(Duration),
    /// The service answered the upgrade with an HTTP error: a wrong path, a version that it does
    /// not speak, or not ready.
    #[error("the upgrade was refused: {status} {body:?}")]
    UpgradeRefused {
        /// The HTTP status code.
        status: u16,
        /// The body, as text; it says why.
        body: String,
        /// After how long the service wants to be asked again, at the earliest, if it says so
        /// (`Retry-After` in seconds,
        /// [RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
        retry_after: Option<Duration>,
    },
    /// What answered is no such service, or the connection broke.
    #[error("the upgrade failed: {0}")]
    UpgradeFailed(#[source] UpgradeError),
    /// The session ended before the service had let the client in.
    #[error("{}", .0.cause)]
    Ended(End),
}

impl ConnectError {
    /// Whether the service refuses what was offered, as far as its status can tell.
    fn is_version_refused(&self) -> bool {
        matches!(self, ConnectError::UpgradeRefused { status: 400, .. })
    }
}

/// What the WebSocket library says of a failed upgrade.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct UpgradeError(tungstenite::Error);

fn refused(error: tungstenite::Error) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) => {
            let status = response.status().as_u16();
            let retry_after = retry_after(response.headers());
            let body = response.into_body().unwrap_or_default();
            let body = String::from_utf8_lossy(&body).into();
            ConnectError::UpgradeRefused { status, body, retry_after }
        }
        error => ConnectError::UpgradeFailed(UpgradeError(error)),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("secure", &self.secure)
            .field("versions", &self.versions)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_of_a_url_count() {
        for (url, host, port) in [
            ("http://localhost", "localhost", 5133),
            ("ws://127.0.0.1:80/any/path?x=1", "127.0.0.1", 80),
            ("http://[::1]:5133/", "[::1]", 5133),
            #[cfg(feature = "tls")]
            ("wss://example", "example", 443),
        ] {
            let connector = Connector::new(url).unwrap();
            assert_eq!((connector.host.as_str(), connector.port), (host, port), "{url}");
        }
    }

    #[test]
    fn the_address_is_without_brackets() {
        let connector = Connector::new("http://[::1]").unwrap();
        assert_eq!(connector.address(), ("::1", 5133));
    }

    #[test]
    fn other_urls_are_refused_with_a_reason() {
        let error = |url| Connector::new(url).unwrap_err();
        #[cfg(not(feature = "tls"))]
        assert_eq!(error("https://localhost"), UrlError::Tls);
        assert_eq!(error("ftp://localhost"), UrlError::Scheme);
        assert_eq!(error("localhost:5133"), UrlError::Scheme);
        assert_eq!(error("not a url"), UrlError::Malformed);
    }
}
