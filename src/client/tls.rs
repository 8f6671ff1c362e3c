//! TLS for a client.

use std::{fmt, io, path::Path, sync::Arc};

use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// Which servers a client trusts.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
}

impl ClientTls {
    /// Those that the machine trusts.
    ///
    /// # Errors
    ///
    /// The machine's certificate authorities cannot be had.
    pub fn platform() -> io::Result<ClientTls> {
        let config = builder()?.with_platform_verifier().map_err(io::Error::other)?;
        Ok(ClientTls::from_config(config.with_no_client_auth()))
    }

    /// Those with a certificate by one of the authorities in this file, in PEM, and no others.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no certificate.
    pub fn trusting(authorities: impl AsRef<Path>) -> io::Result<ClientTls> {
        let certificates = CertificateDer::pem_file_iter(authorities).map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            let certificate = certificate.map_err(io::Error::other)?;
            roots.add(certificate).map_err(io::Error::other)?;
        }
        if roots.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in PEM"));
        }
        let config = builder()?.with_root_certificates(roots).with_no_client_auth();
        Ok(ClientTls::from_config(config))
    }

    fn from_config(config: ClientConfig) -> ClientTls {
        ClientTls { connector: TlsConnector::from(Arc::new(config)) }
    }

    pub(super) async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }
}

fn builder() -> io::Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}
