//! Algorithms, and the keys that verify.
//!
//! A key is parsed and checked once, when it is configured, and then belongs to one algorithm: a
//! token cannot choose ([RFC 8725 §3.1](https://www.rfc-editor.org/rfc/rfc8725#section-3.1)).
//! `jsonwebtoken` reads the key formats; `aws-lc-rs` holds the parsed key and verifies, because
//! `jsonwebtoken` parses it anew for every token and lacks ES512.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::{
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rsa::PublicEncryptingKey,
    signature::{
        self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use pem::Pem;
use serde::Deserialize;
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
};

/// Declares the algorithms.
macro_rules! algorithms {
    ($($name:ident $doc:literal,)*) => {
        /// A signature algorithm
        /// ([RFC 7518 §3.1](https://www.rfc-editor.org/rfc/rfc7518#section-3.1),
        /// [RFC 8037](https://www.rfc-editor.org/rfc/rfc8037)).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Algorithm {
            $(#[doc = $doc] $name,)*
        }

        impl Algorithm {
            /// Every algorithm, Electric's own nine first.
            pub const ALL: &'static [Algorithm] = &[$(Algorithm::$name,)*];

            /// The name as it stands in a header.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Algorithm::$name => stringify!($name),)*
                }
            }
        }
    };
}

algorithms! {
    HS256 "HMAC with SHA-256.",
    HS384 "HMAC with SHA-384.",
    HS512 "HMAC with SHA-512.",
    RS256 "RSASSA-PKCS1-v1_5 with SHA-256.",
    RS384 "RSASSA-PKCS1-v1_5 with SHA-384.",
    RS512 "RSASSA-PKCS1-v1_5 with SHA-512.",
    ES256 "ECDSA on P-256 with SHA-256.",
    ES384 "ECDSA on P-384 with SHA-384.",
    ES512 "ECDSA on P-521 with SHA-512.",
    PS256 "RSASSA-PSS with SHA-256.",
    PS384 "RSASSA-PSS with SHA-384.",
    PS512 "RSASSA-PSS with SHA-512.",
    EdDSA "Ed25519.",
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    /// Names are case-sensitive; `none` is not among them.
    fn from_str(name: &str) -> Result<Algorithm, UnknownAlgorithm> {
        let found = Algorithm::ALL.iter().find(|algorithm| algorithm.as_str() == name);
        found.copied().ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such algorithm here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown signature algorithm")]
pub struct UnknownAlgorithm;

/// What kind of key an algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Hmac,
    Rsa,
    Ec,
    Ed,
}

impl Algorithm {
    pub(super) fn family(self) -> Family {
        use Algorithm::*;
        match self {
            HS256 | HS384 | HS512 => Family::Hmac,
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => Family::Rsa,
            ES256 | ES384 | ES512 => Family::Ec,
            EdDSA => Family::Ed,
        }
    }

    /// Whether the key is a shared secret rather than a public key.
    pub fn is_symmetric(self) -> bool {
        self.family() == Family::Hmac
    }

    /// Whether a verification takes a good part of a millisecond, in which a thread could have
    /// served others.
    pub(super) fn takes_long(self) -> bool {
        matches!(self, Algorithm::ES384 | Algorithm::ES512)
    }

    /// The fewest bytes that a shared secret may have
    /// ([RFC 7518 §3.2](https://www.rfc-editor.org/rfc/rfc7518#section-3.2)).
    pub(super) fn secret_bytes(self) -> usize {
        match self {
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => 32,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        }
    }

    /// How an RSA key verifies.
    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }

    /// How a public key verifies; the algorithms with a shared secret have no such way.
    fn public(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
            Algorithm::EdDSA => &signature::ED25519,
            _ => self.rsa()?,
        })
    }

    /// The curve of an EC key, by its name in a JWK, and the bytes of a coordinate.
    fn curve(self) -> Option<(&'static str, usize)> {
        match self {
            Algorithm::ES256 => Some(("P-256", 32)),
            Algorithm::ES384 => Some(("P-384", 48)),
            Algorithm::ES512 => Some(("P-521", 66)),
            _ => None,
        }
    }
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A shared secret is too short to be safe.
    #[error("has to be at least {} bytes long for {algorithm}", algorithm.secret_bytes())]
    TooShort {
        /// The algorithm it was meant for.
        algorithm: Algorithm,
    },
    /// A PEM text was given as a shared secret, which a public key is not.
    #[error("is a key in PEM, not a shared secret for {algorithm}")]
    NotASecret {
        /// The algorithm it was meant for.
        algorithm: Algorithm,
    },
    /// It is no public key of the kind, the curve and the size that the algorithm takes.
    #[error("is not a valid key for {algorithm} or it has invalid format")]
    Invalid {
        /// The algorithm it was meant for.
        algorithm: Algorithm,
    },
}

/// A key that verifies signatures of one algorithm. Clones share it; `Debug` shows its
/// fingerprint, not the key.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    kid: Option<Arc<str>>,
    fingerprint: Arc<str>,
    material: Arc<Material>,
}

enum Material {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl Key {
    /// A shared secret of at least 32, 48 or 64 bytes, as its algorithm asks.
    ///
    /// # Errors
    ///
    /// The secret is too short or no secret, or the algorithm takes none.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Key, KeyError> {
        if !algorithm.is_symmetric() {
            return Err(KeyError::Invalid { algorithm });
        }
        // Whoever knows a public key could sign with it.
        if secret.trim_ascii_start().starts_with(b"-----BEGIN ") {
            return Err(KeyError::NotASecret { algorithm });
        }
        if secret.len() < algorithm.secret_bytes() {
            return Err(KeyError::TooShort { algorithm });
        }
        let key = hmac::Key::new(algorithm.hmac(), secret);
        Ok(Key::new(algorithm, secret, Material::Secret(Box::new(key))))
    }

    /// A public key in PEM: SPKI, PKCS#1 (RSA) or an X.509 certificate, of which only the key is
    /// looked at. There must be one block; text around it is passed over
    /// ([RFC 7468 §2](https://www.rfc-editor.org/rfc/rfc7468#section-2)).
    ///
    /// # Errors
    ///
    /// It is not a public key for this algorithm: another kind, another curve, RSA below 2048
    /// bits, a private key, several keys, or no PEM at all.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Key, KeyError> {
        let invalid = KeyError::Invalid { algorithm };
        let block = one_block(pem).ok_or(invalid)?;
        match block.tag() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Key::from_block(algorithm, &block),
            "CERTIFICATE" => {
                let certificate = Certificate::from_der(block.contents()).map_err(|_| invalid)?;
                let key = certificate.tbs_certificate.subject_public_key_info.to_der();
                Key::from_block(algorithm, &Pem::new("PUBLIC KEY", key.map_err(|_| invalid)?))
            }
            _ => Err(invalid),
        }
    }

    /// `aws-lc-rs` sees to the named curve, `jsonwebtoken` to the kind of the key.
    fn from_block(algorithm: Algorithm, block: &Pem) -> Result<Key, KeyError> {
        let invalid = KeyError::Invalid { algorithm };
        let verifies = algorithm.public().ok_or(invalid)?;
        ParsedPublicKey::new(verifies, block.contents()).map_err(|_| invalid)?;
        let pem = pem::encode(block);
        let key = match algorithm.family() {
            Family::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            Family::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
            Family::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
            Family::Hmac => return Err(invalid),
        };
        let key = key.map_err(|_| invalid)?;
        Key::from_public(algorithm, key.try_get_as_bytes().map_err(|_| invalid)?)
    }

    /// A public key of a JSON Web Key ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)) that
    /// is meant to verify with this algorithm, named by its `kid`.
    pub(super) fn from_jwk(algorithm: Algorithm, jwk: &Jwk) -> Result<Key, KeyError> {
        let invalid = KeyError::Invalid { algorithm };
        let field = |field: &Option<String>| {
            let text = field.as_ref().ok_or(invalid)?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid)
        };
        let key = match (algorithm.family(), jwk.kty.as_str()) {
            (Family::Rsa, "RSA") => {
                let components = RsaPublicKeyComponents { n: field(&jwk.n)?, e: field(&jwk.e)? };
                let parameters = algorithm.rsa().ok_or(invalid)?;
                let parsed = components.to_parsed_public_key(parameters).map_err(|_| invalid)?;
                Key::from_parsed(algorithm, &components.n, parsed)?
            }
            (Family::Ec, "EC") => {
                let (curve, length) = algorithm.curve().ok_or(invalid)?;
                let (x, y) = (field(&jwk.x)?, field(&jwk.y)?);
                if jwk.crv.as_deref() != Some(curve) || [x.len(), y.len()] != [length; 2] {
                    return Err(invalid);
                }
                Key::from_public(algorithm, &[&[UNCOMPRESSED_POINT][..], &x, &y].concat())?
            }
            (Family::Ed, "OKP") if jwk.crv.as_deref() == Some("Ed25519") => {
                Key::from_public(algorithm, &field(&jwk.x)?)?
            }
            _ => return Err(invalid),
        };
        Ok(Key { kid: jwk.kid.as_deref().map(Arc::from), ..key })
    }

    /// A public key as `aws-lc-rs` reads it: PKCS#1 for RSA, the point for EC and Ed25519.
    fn from_public(algorithm: Algorithm, key: &[u8]) -> Result<Key, KeyError> {
        let invalid = KeyError::Invalid { algorithm };
        let parsed = ParsedPublicKey::new(algorithm.public().ok_or(invalid)?, key);
        Key::from_parsed(algorithm, key, parsed.map_err(|_| invalid)?)
    }

    /// Sizes of RSA keys are checked here, because the library does it only when it verifies, and
    /// so are the Ed25519 keys that anybody can sign for.
    fn from_parsed(
        algorithm: Algorithm,
        key: &[u8],
        parsed: ParsedPublicKey,
    ) -> Result<Key, KeyError> {
        let invalid = KeyError::Invalid { algorithm };
        let info: PublicKeyX509Der<'_> = parsed.as_der().map_err(|_| invalid)?;
        let bits = || Some(PublicEncryptingKey::from_der(info.as_ref()).ok()?.key_size_bits());
        let is_rsa = algorithm.family() == Family::Rsa;
        if is_rsa && !bits().is_some_and(|bits| (2048..=8192).contains(&bits)) {
            return Err(invalid);
        }
        if algorithm.family() == Family::Ed && is_of_small_order(key) {
            return Err(invalid);
        }
        Ok(Key::new(algorithm, info.as_ref(), Material::Public(parsed)))
    }

    fn new(algorithm: Algorithm, bytes: &[u8], material: Material) -> Key {
        let fingerprint = fingerprint(bytes).into();
        Key { algorithm, kid: None, fingerprint, material: Arc::new(material) }
    }

    /// The same key, to be chosen by this `kid`. A token that names another one is not tried.
    pub fn with_kid(self, kid: &str) -> Key {
        Key { kid: Some(kid.into()), ..self }
    }

    /// The algorithm that this key is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The name by which tokens choose this key, if it has one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The first four bytes of a SHA-256, in hexadecimal, to tell keys apart in a log: of a secret
    /// itself, and of a public key's `SubjectPublicKeyInfo`
    /// ([RFC 5280 §4.1.2.7](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.7)), in whatever
    /// form the key came.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether the signature is this key's signature of the message. Takes the same time wherever
    /// the two differ.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &*self.material {
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// The one block of a PEM text, if there is one and no other.
pub(super) fn one_block(pem: &[u8]) -> Option<Pem> {
    let mut blocks = pem::parse_many(pem).ok()?.into_iter();
    blocks.next().filter(|_| blocks.next().is_none())
}

/// Whether an Ed25519 key is a point of small order, in any of its encodings: the `y` of the
/// points of order 1, 2, 4 and 8, and those of them that can also be written with `p` added
/// ([RFC 8032 §5.1](https://www.rfc-editor.org/rfc/rfc8032#section-5.1)).
fn is_of_small_order(key: &[u8]) -> bool {
    const Y: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let mut y = key.to_vec();
    if let Some(last) = y.last_mut() {
        // The sign of x.
        *last &= 0x7f;
    }
    Y.contains(&hex(&y).as_str())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A JSON Web Key, as far as it is looked into
/// ([RFC 7517 §4](https://www.rfc-editor.org/rfc/rfc7517#section-4),
/// [RFC 7518 §6](https://www.rfc-editor.org/rfc/rfc7518#section-6)).
#[derive(Deserialize)]
pub(super) struct Jwk {
    pub(super) kty: String,
    #[serde(rename = "use")]
    pub(super) usage: Option<String>,
    pub(super) key_ops: Option<Vec<String>>,
    pub(super) alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// What an EC point begins with that gives both coordinates
/// ([SEC 1 §2.3.3](https://www.secg.org/sec1-v2.pdf)).
const UNCOMPRESSED_POINT: u8 = 4;

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {}", self.algorithm, self.fingerprint)?;
        match &self.kid {
            Some(kid) => write!(f, " kid {kid:?})"),
            None => f.write_str(")"),
        }
    }
}

/// The first 4 bytes of the SHA-256, in hexadecimal: enough to tell keys apart.
fn fingerprint(key: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, key);
    hex(&digest.as_ref()[..4])
}
