//! Issuers, their tokens, and what an authenticator is asked.

#[path = "../asking/mod.rs"]
mod asking;
#[path = "../log/mod.rs"]
mod log;

use std::{fs, path::PathBuf};

pub(crate) use asking::request;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use electric_satellite::{
    auth::{Algorithm, Authenticator, ClaimRules, JwtAuthenticator, Key, KeyRing, Minter},
    session::{Token, UnixTime},
};
pub(crate) use log::Log;
use serde_json::{Map, Value, json};

/// The time so many seconds after the tests begin.
pub(crate) fn at(secs: i64) -> UnixTime {
    UnixTime::from_secs(1_700_000_000 + secs)
}

/// Whoever makes tokens, and the key that verifies them.
pub(crate) struct Issuer {
    pub(crate) key: Key,
    pub(crate) minter: Minter,
}

/// An issuer with a secret of its own, made of this byte.
pub(crate) fn issuer(byte: u8) -> Issuer {
    let secret = [byte; 32];
    Issuer {
        key: Key::from_secret(Algorithm::HS256, &secret).unwrap(),
        minter: Minter::from_secret(Algorithm::HS256, &secret).unwrap(),
    }
}

/// The same, whose tokens name their key.
pub(crate) fn named_issuer(byte: u8, kid: &str) -> Issuer {
    let Issuer { key, minter } = issuer(byte);
    Issuer { key: key.with_kid(kid), minter: minter.with_kid(kid) }
}

impl Issuer {
    /// A token for this user, issued when the tests begin and valid for a minute.
    pub(crate) fn token(&self, user: &str) -> Token {
        self.token_with(user, json!({}))
    }

    /// The same, which works once: with an id of its own.
    pub(crate) fn one_off(&self, jti: &str) -> Token {
        self.token_with("user", json!({ "jti": jti }))
    }

    /// The same with more claims, or others, or with `null` fewer.
    pub(crate) fn token_with(&self, user: &str, claims: Value) -> Token {
        self.minter.mint(&self::claims(user, claims)).unwrap()
    }
}

fn claims(user: &str, more: Value) -> Map<String, Value> {
    let times = json!({ "sub": user, "iat": at(0).as_secs(), "exp": at(60).as_secs() });
    let (Value::Object(mut claims), Value::Object(more)) = (times, more) else { panic!() };
    claims.extend(more);
    claims.retain(|_, value| !value.is_null());
    claims
}

/// Accepts what the keys verify, by the usual rules.
pub(crate) fn secure(keys: impl Into<KeyRing>) -> JwtAuthenticator {
    JwtAuthenticator::secure(keys, ClaimRules::default())
}

/// The user that a token is accepted for when the tests begin, or why it is not.
pub(crate) fn verify(authenticator: &JwtAuthenticator, token: &Token) -> Result<String, String> {
    verify_at(authenticator, token, 0)
}

/// The same, so many seconds later.
pub(crate) fn verify_at(
    authenticator: &JwtAuthenticator,
    token: &Token,
    secs: i64,
) -> Result<String, String> {
    let verified = authenticator.verify(token, at(secs)).map_err(|error| error.to_string())?;
    Ok(verified.identity().user_id.clone())
}

/// The same, as a server asks: what must be waited for is waited for.
pub(crate) async fn authenticate(
    authenticator: &impl Authenticator,
    token: &Token,
    secs: i64,
) -> Result<String, String> {
    let verdict = authenticator.authenticate(&request(token), at(secs)).await;
    Ok(verdict.map_err(|error| error.to_string())?.identity().user_id.clone())
}

/// A key of `tests/corpus/keys`, as text.
pub(crate) fn pem(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/keys").join(name);
    fs::read_to_string(path).expect("the corpus has this key")
}

/// Whoever signs with this private key of the corpus.
pub(crate) fn corpus_minter(algorithm: Algorithm, name: &str) -> Minter {
    Minter::from_pem(algorithm, pem(&format!("{name}.key.pem")).as_bytes()).unwrap()
}

/// A token of theirs, for this user, with the usual times.
pub(crate) fn corpus_token(minter: &Minter, user: &str) -> Token {
    minter.mint(&claims(user, json!({}))).unwrap()
}

/// An Ed25519 public key of the corpus as a JWK.
pub(crate) fn ed25519_jwk(name: &str, kid: &str) -> Value {
    let pem = pem(&format!("{name}.pub.pem"));
    let der: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let der = STANDARD.decode(der).unwrap();
    // The key is the end of it (RFC 8410 §4).
    let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid })
}
