//! Algorithms, and the keys that verify.
//!
//! A key is parsed and checked once, when it is configured, and then belongs to one algorithm: a
//! token cannot choose ([RFC 8725 §3.1](https://www.rfc-editor.org/rfc/rfc8725#section-3.1)).
//! `jsonwebtoken` reads the key formats; `aws-lc-rs` holds the parsed key and verifies, because
//! `jsonwebtoken` parses it anew for every token and lacks ES512.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    digest, hmac,
    signature::{self, ParsedPublicKey, VerificationAlgorithm},
};
use jsonwebtoken::DecodingKey;

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

    /// How a public key verifies; the algorithms with a shared secret have no such way.
    fn public(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return None,
            Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
            Algorithm::EdDSA => &signature::ED25519,
        })
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
    /// It is no public key of the kind, the curve and the size that the algorithm takes.
    #[error("is not a valid key for {algorithm} or it has invalid format")]
    Invalid {
        /// The algorithm it was meant for.
        algorithm: Algorithm,
    },
}

/// A key that verifies signatures of one algorithm. `Debug` shows its fingerprint, not the key.
pub struct Key {
    algorithm: Algorithm,
    material: Material,
    fingerprint: String,
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
    /// The secret is too short, or the algorithm takes no secret.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Key, KeyError> {
        if !algorithm.is_symmetric() {
            return Err(KeyError::Invalid { algorithm });
        }
        if secret.len() < algorithm.secret_bytes() {
            return Err(KeyError::TooShort { algorithm });
        }
        Ok(Key {
            algorithm,
            material: Material::Secret(Box::new(hmac::Key::new(algorithm.hmac(), secret))),
            fingerprint: fingerprint(secret),
        })
    }

    /// A public key in PEM: SPKI, PKCS#1 (RSA) or an X.509 certificate, of which only the key is
    /// looked at.
    ///
    /// # Errors
    ///
    /// It is not a public key for this algorithm: another kind, another curve, RSA below 2048
    /// bits, a private key, or no PEM at all.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Key, KeyError> {
        let key = match algorithm.family() {
            Family::Rsa => DecodingKey::from_rsa_pem(pem),
            Family::Ec => DecodingKey::from_ec_pem(pem),
            Family::Ed => DecodingKey::from_ed_pem(pem),
            Family::Hmac => return Err(KeyError::Invalid { algorithm }),
        };
        let invalid = |_| KeyError::Invalid { algorithm };
        Key::from_public(algorithm, key.map_err(invalid)?.try_get_as_bytes().map_err(invalid)?)
    }

    /// A public key as `aws-lc-rs` reads it: PKCS#1 for RSA, the point for EC and Ed25519.
    fn from_public(algorithm: Algorithm, key: &[u8]) -> Result<Key, KeyError> {
        let invalid = KeyError::Invalid { algorithm };
        let verifies = algorithm.public().ok_or(invalid)?;
        let parsed = ParsedPublicKey::new(verifies, key).map_err(|_| invalid)?;
        let fingerprint = fingerprint(key);
        Ok(Key { algorithm, material: Material::Public(parsed), fingerprint })
    }

    /// The algorithm that this key is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The beginning of the key's SHA-256, to tell keys apart in a log.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether the signature is this key's signature of the message. Takes the same time wherever
    /// the two differ.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.algorithm, self.fingerprint)
    }
}

/// The first 4 bytes of the SHA-256, in hexadecimal: enough to tell keys apart.
fn fingerprint(key: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, key);
    digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
