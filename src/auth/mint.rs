//! Making tokens: for tests, for development, and for a backend that issues them to its users.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm as JwtAlgorithm, EncodingKey, crypto};
use serde::Serialize;

use crate::session::Token;

use super::{Algorithm, KeyError, keys::Family};

/// Makes tokens, all with one key. `Debug` shows the algorithm, not the key.
pub struct Minter {
    signer: Signer,
    kid: Option<String>,
}

enum Signer {
    /// For insecure mode: `alg` is `none` and the signature is empty.
    Unsigned,
    Jwt(Algorithm, JwtAlgorithm, EncodingKey),
    /// The one algorithm that `jsonwebtoken` does not have.
    Es512(EcdsaKeyPair),
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The claims are not an object.
    #[error("the claims are no JSON object")]
    NoObject,
    /// The claims cannot be written as JSON.
    #[error("the claims cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// The key does not sign.
    #[error("the key does not sign")]
    Signing(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Minter {
    /// Makes unsigned tokens, which only a server in insecure mode accepts.
    pub fn unsigned() -> Minter {
        Minter { signer: Signer::Unsigned, kid: None }
    }

    /// Signs with a shared secret of at least 32, 48 or 64 bytes, as its algorithm asks.
    ///
    /// # Errors
    ///
    /// The secret is too short, or the algorithm takes no secret.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Minter, KeyError> {
        // The same checks as where it will be verified.
        super::Key::from_secret(algorithm, secret)?;
        let jwt = jwt_algorithm(algorithm).ok_or(KeyError::Invalid { algorithm })?;
        let signer = Signer::Jwt(algorithm, jwt, EncodingKey::from_secret(secret));
        Ok(Minter { signer, kid: None })
    }

    /// Signs with a private key in PEM: PKCS#8, or PKCS#1 for RSA.
    ///
    /// # Errors
    ///
    /// It is not a private key for this algorithm.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Minter, KeyError> {
        let invalid = KeyError::Invalid { algorithm };
        super::keys::one_block(pem).ok_or(invalid)?;
        let key = match algorithm.family() {
            Family::Rsa => EncodingKey::from_rsa_pem(pem),
            Family::Ec => EncodingKey::from_ec_pem(pem),
            Family::Ed => EncodingKey::from_ed_pem(pem),
            Family::Hmac => return Err(invalid),
        };
        let key = key.map_err(|_| invalid)?;
        let signer = match jwt_algorithm(algorithm) {
            Some(jwt) => Signer::Jwt(algorithm, jwt, key),
            None => Signer::Es512(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, key.as_bytes())
                    .map_err(|_| invalid)?,
            ),
        };
        // A key of another kind or curve shows only when it signs.
        signer.sign(b"").map_err(|_| invalid)?;
        Ok(Minter { signer, kid: None })
    }

    /// Names the key in every token's header, as `kid`.
    pub fn with_kid(self, kid: impl Into<String>) -> Minter {
        Minter { kid: Some(kid.into()), ..self }
    }

    /// What it signs with; nothing for [unsigned](Minter::unsigned) tokens.
    pub fn algorithm(&self) -> Option<Algorithm> {
        match &self.signer {
            Signer::Unsigned => None,
            Signer::Jwt(algorithm, ..) => Some(*algorithm),
            Signer::Es512(_) => Some(Algorithm::ES512),
        }
    }

    /// What it signs with, as the header of a token names it.
    fn alg(&self) -> &'static str {
        self.algorithm().map_or("none", Algorithm::as_str)
    }

    /// Makes a token with these claims, and no others.
    ///
    /// # Errors
    ///
    /// The claims are no JSON object.
    pub fn mint(&self, claims: &impl Serialize) -> Result<Token, MintError> {
        let claims = serde_json::to_value(claims).map_err(MintError::Json)?;
        if !claims.is_object() {
            return Err(MintError::NoObject);
        }
        let header = Header { alg: self.alg(), typ: "JWT", kid: self.kid.as_deref() };
        let header = serde_json::to_string(&header).map_err(MintError::Json)?;
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = self.signer.sign(token.as_bytes()).map_err(MintError::Signing)?;
        token.push('.');
        token.push_str(&signature);
        Ok(Token::new(token).expect("a token has two dots at least"))
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

impl Signer {
    /// The signature, in base64url.
    fn sign(&self, message: &[u8]) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        match self {
            Signer::Unsigned => Ok(String::new()),
            Signer::Jwt(_, algorithm, key) => Ok(crypto::sign(message, key, *algorithm)?),
            Signer::Es512(key) => {
                let signature = key.sign(&SystemRandom::new(), message)?;
                Ok(URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minter({})", self.alg())
    }
}

/// The same algorithm in `jsonwebtoken`, which has all but ES512.
fn jwt_algorithm(algorithm: Algorithm) -> Option<JwtAlgorithm> {
    algorithm.as_str().parse().ok()
}
