//! TLS for a client.

use std::{fmt, io, path::Path, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
        SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{self, CryptoProvider},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    },
};
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
};

/// Which servers a client trusts.
#[derive(Clone)]
pub struct ClientTls {
    verifier: Arc<dyn ServerCertVerifier>,
    connector: TlsConnector,
}

impl ClientTls {
    /// Those that the machine trusts.
    ///
    /// # Errors
    ///
    /// The machine's certificate authorities cannot be had.
    pub fn platform() -> io::Result<ClientTls> {
        let verifier = Verifier::new(provider()).map_err(io::Error::other)?;
        ClientTls::verifying(Arc::new(verifier))
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
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider());
        ClientTls::verifying(verifier.build().map_err(io::Error::other)?)
    }

    /// Of those, only servers with one of these public keys: the SHA-256 digests of the
    /// `SubjectPublicKeyInfo` of their certificates
    /// ([RFC 7469 §2.4](https://www.rfc-editor.org/rfc/rfc7469#section-2.4)), which outlive the
    /// certificates if the keys do. Keep a spare one.
    ///
    /// `openssl x509 -in cert.pem -pubkey -noout | openssl pkey -pubin -outform der | sha256sum`
    /// prints it.
    ///
    /// # Errors
    ///
    /// TLS cannot be configured.
    pub fn pinned(self, keys: impl IntoIterator<Item = [u8; 32]>) -> io::Result<ClientTls> {
        let keys = keys.into_iter().collect();
        ClientTls::verifying(Arc::new(Pinned { keys, verifier: self.verifier }))
    }

    fn verifying(verifier: Arc<dyn ServerCertVerifier>) -> io::Result<ClientTls> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            // The verifiers of the libraries, and one that accepts less.
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier))
            .with_no_client_auth();
        Ok(ClientTls { verifier, connector: TlsConnector::from(Arc::new(config)) })
    }

    pub(super) async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::aws_lc_rs::default_provider())
}

/// Accepts what another verifier accepts, if its key is one of these.
#[derive(Debug)]
struct Pinned {
    keys: Vec<[u8; 32]>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl Pinned {
    fn holds_key_of(&self, certificate: &CertificateDer<'_>) -> bool {
        let key = Certificate::from_der(certificate)
            .and_then(|certificate| certificate.tbs_certificate.subject_public_key_info.to_der());
        key.is_ok_and(|key| self.keys.iter().any(|pin| pin == digest(&SHA256, &key).as_ref()))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.holds_key_of(end_entity) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}
