//! The client's side: the URL, the upgrade, the authentication.

#[cfg(feature = "tls")]
mod tls;

use std::{future::pending, io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{
        self, ClientRequestBuilder,
        http::{Uri, uri::Scheme},
    },
};

use crate::{
    registry::Occupant,
    session::{AuthenticatedServer, ClientId, ClientSession, End, Token},
    transport::{self, Connection, Limits, Socket, Step, config, metered},
    wire::Version,
};

#[cfg(feature = "tls")]
pub use tls::ClientTls;

/// The port of a service whose URL names none, like the published clients'.
const DEFAULT_PORT: u16 = 5133;

/// Where to connect and how.
///
/// ```no_run
/// use electric_satellite::{client::Client, session::{ClientId, Token}};
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new("http://localhost:5133")?;
/// let connection = client.connect(&ClientId::random(), Token::new("the token")?).await?;
/// println!("let in by {}", connection.server_id());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    host: String,
    port: u16,
    /// Whether the URL asks for TLS.
    secure: bool,
    #[cfg(feature = "tls")]
    tls: Option<ClientTls>,
    version: Version,
    limits: Limits,
}

/// A WebSocket that has negotiated a version and is not authenticated yet.
pub struct Upgraded<S> {
    socket: Socket<S>,
    version: Version,
    limits: Limits,
}

impl Client {
    /// A client of the service at this URL: `http` or `ws`, and with the feature `tls` `https` or
    /// `wss`. Only the host and the port count beside, as with the published clients.
    ///
    /// # Errors
    ///
    /// It is no such URL. Without the feature `tls`, `https` and `wss` need a stream of your own;
    /// see [`Client::upgrade`].
    pub fn new(url: &str) -> Result<Client, UrlError> {
        let url: Uri = url.parse().map_err(|_| UrlError::Malformed)?;
        let secure = match url.scheme().map(Scheme::as_str) {
            Some("http" | "ws") => false,
            Some("https" | "wss") if cfg!(feature = "tls") => true,
            Some("https" | "wss") => return Err(UrlError::Tls),
            _ => return Err(UrlError::Scheme),
        };
        let host = url.host().filter(|host| !host.is_empty()).ok_or(UrlError::Malformed)?;
        Ok(Client {
            host: host.to_owned(),
            port: url.port_u16().unwrap_or(if secure { 443 } else { DEFAULT_PORT }),
            secure,
            #[cfg(feature = "tls")]
            tls: None,
            version: Version::V0_12,
            limits: Limits::default(),
        })
    }

    /// The same client, offering another version.
    pub fn with_version(self, version: Version) -> Client {
        Client { version, ..self }
    }

    /// The same client with other limits.
    ///
    /// # Panics
    ///
    /// The limits make no sense; [`Limits::check`] says so beforehand.
    #[track_caller]
    pub fn with_limits(self, limits: Limits) -> Client {
        Client { limits: limits.checked(), ..self }
    }

    /// The same client, which gives each step of connecting this long.
    ///
    /// # Panics
    ///
    /// It is no time, or more than 136 years; see [`Limits::check`].
    #[track_caller]
    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        let limits = Limits { upgrade_timeout: timeout, auth_timeout: timeout, ..self.limits };
        self.limits = limits.checked();
        self
    }

    /// Connects and authenticates. The connection is driven by a task of its own from then on,
    /// and lives until it ends or the [`Connection`] is dropped.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`], which tells how far it came.
    pub async fn connect(
        &self,
        client_id: &ClientId,
        token: Token,
    ) -> Result<Connection<AuthenticatedServer>, ConnectError> {
        let stream = self.dial().await?;
        #[cfg(feature = "tls")]
        if self.secure {
            let stream = self.secure(stream).await?;
            return self.upgrade(stream).await?.authenticate(client_id, token).await;
        }
        self.upgrade(stream).await?.authenticate(client_id, token).await
    }

    /// The same client, which trusts other servers; only those that the machine trusts unless set.
    #[cfg(feature = "tls")]
    pub fn with_tls(self, tls: ClientTls) -> Client {
        Client { tls: Some(tls), ..self }
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

    /// Opens the TCP connection: the first of the three steps of [`Client::connect`].
    ///
    /// # Errors
    ///
    /// The service cannot be reached.
    pub async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let stream = self.in_time(TcpStream::connect((self.bare_host(), self.port))).await?;
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
        let uri = format!("ws://{}:{}/ws", self.host, self.port);
        let uri: Uri = uri.parse().expect("made of the parts of a URL");
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(self.version.to_string());
        let stream = metered(stream, self.limits.max_head, &self.limits);
        let handshake = client_async_with_config(request, stream, Some(config(&self.limits)));
        let (stream, _) = self.in_time(handshake).await?.map_err(refused)?;
        let (version, limits) = (self.version, self.limits.clone());
        Ok(Upgraded { socket: Socket::new(stream, &limits), version, limits })
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
                let occupant = Occupant::default();
                let (connection, driver) =
                    transport::connect(socket, session, server, occupant, version, &limits);
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
    },
    /// What answered is no such service, or the connection broke.
    #[error("the upgrade failed: {0}")]
    UpgradeFailed(#[source] UpgradeError),
    /// The session ended before the service had let the client in.
    #[error("{}", .0.cause)]
    Ended(End),
}

/// What the WebSocket library says of a failed upgrade.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct UpgradeError(tungstenite::Error);

fn refused(error: tungstenite::Error) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().unwrap_or_default();
            ConnectError::UpgradeRefused { status, body: String::from_utf8_lossy(&body).into() }
        }
        error => ConnectError::UpgradeFailed(UpgradeError(error)),
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
            let client = Client::new(url).unwrap();
            assert_eq!((client.host.as_str(), client.port), (host, port), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_with_a_reason() {
        let error = |url| Client::new(url).unwrap_err();
        #[cfg(not(feature = "tls"))]
        assert_eq!(error("https://localhost"), UrlError::Tls);
        assert_eq!(error("ftp://localhost"), UrlError::Scheme);
        assert_eq!(error("localhost:5133"), UrlError::Scheme);
        assert_eq!(error("not a url"), UrlError::Malformed);
    }
}
