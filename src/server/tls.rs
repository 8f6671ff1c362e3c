//! TLS, with certificates that are read again when they change.

use std::{
    convert::Infallible,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
    server::TlsStream,
};

use crate::auth::source::watch;

/// A certificate and its private key, from two files in PEM.
///
/// The certificate file holds the certificate first and then those that lead to an authority.
#[derive(Clone)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

/// The certificate that is shown to clients now.
struct Current(RwLock<Arc<CertifiedKey>>);

/// Why a certificate cannot be used. `Display` names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate and the key do not belong together, or the key is of no kind that is used.
    #[error("the certificate and its key cannot be used: {0}")]
    Mismatch(#[source] CertificateError),
}

/// What the TLS library says of a certificate.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CertificateError(rustls::Error);

impl Tls {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Tls, TlsError> {
        let (certificate, key) = (certificate.into(), key.into());
        let current = Arc::new(Current(RwLock::new(load(&certificate, &key)?)));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Mismatch(CertificateError(error)))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        Ok(Tls { certificate, key, current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Takes a connection through the TLS handshake.
    ///
    /// # Errors
    ///
    /// It failed, which is the peer's doing as a rule.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(stream).await
    }

    /// Looks at the files, now and every so often, and uses the new certificate from then on when
    /// they have changed. Files that cannot be used leave the old one, and are complained about in
    /// the log. Connections that live are not concerned.
    pub async fn keep(&self, every: Duration) -> Infallible {
        let (certificate, key) = (self.certificate.clone(), self.key.clone());
        let look = move || (fs::read(&certificate).ok(), fs::read(&key).ok());
        watch(every, look, || self.reload()).await
    }

    fn reload(&self) {
        let new = match load(&self.certificate, &self.key) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(%error, "a new TLS certificate cannot be used: the old one stays");
                return;
            }
        };
        let mut current = self.current.0.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever begins to watch has loaded it already, as a rule.
        if current.cert != new.cert {
            *current = new;
            tracing::info!(file = %self.certificate.display(), "new TLS certificate");
        }
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let error = |path: &Path, reason: String| TlsError::File { path: path.to_owned(), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|reason| error(certificate, reason.to_string()))?;
    if chain.is_empty() {
        return Err(error(certificate, "it holds no certificate in PEM".into()));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|reason| error(key, format!("no private key in PEM: {reason}")))?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(|error| TlsError::Mismatch(CertificateError(error)))
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.certificate.display())
    }
}
