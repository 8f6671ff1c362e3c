//! Who may in: the verdict on an auth request.
//!
//! [`Authenticator`] is the trait a server asks. [`JwtAuthenticator`] is the implementation for
//! JSON Web Tokens, configured by hand or from Electric's own variables
//! ([`JwtAuthenticator::from_vars`]).

mod claims;
mod config;
mod json;
mod keys;
mod mint;

use std::{future::Future, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::session::{AuthRequest, Refusal, Token, UnixTime, Verified};

use json::Value;

pub use claims::ClaimRules;
pub use config::{ConfigError, ConfigErrors};
pub use keys::{Algorithm, Key, KeyError, UnknownAlgorithm};
pub use mint::{MintError, Minter};

/// Decides whether a client may in, and who it is.
///
/// A server asks once per connection, before anything else is accepted. A verdict that does not
/// come by the authentication deadline is a refusal.
///
/// ```
/// use electric_satellite::{
///     auth::{AuthError, Authenticator},
///     session::{AuthRequest, Identity, UnixTime, Verified},
/// };
///
/// /// Lets everyone in who knows the word of the day.
/// struct WordOfTheDay(String);
///
/// impl Authenticator for WordOfTheDay {
///     async fn authenticate(&self, request: &AuthRequest, _now: UnixTime) -> Result<Verified, AuthError> {
///         if request.token().expose() != self.0 {
///             return Err(AuthError::InvalidSignature);
///         }
///         let user_id = request.client_id().as_str().to_owned();
///         Ok(Verified::vouched_for_by_authenticator(Identity { user_id, expires_at: None }))
///     }
/// }
/// ```
pub trait Authenticator: Send + Sync + 'static {
    /// The verdict on one auth request, at this time.
    ///
    /// # Errors
    ///
    /// The client is not let in; see [`AuthError`].
    fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> impl Future<Output = Result<Verified, AuthError>> + Send;
}

impl<A: Authenticator> Authenticator for Arc<A> {
    fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> impl Future<Output = Result<Verified, AuthError>> + Send {
        A::authenticate(self, request, now)
    }
}

/// Why a client is not let in, for the embedder and the log; the client learns the [`Refusal`].
///
/// The texts are Electric's where Electric has one. None holds a value from the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// It is no JSON Web Token in the compact form.
    #[error("Invalid token: {0}")]
    Malformed(&'static str),
    /// It is a token of a kind that is not accepted: encrypted, compressed, nested, or with
    /// extensions that are not understood.
    #[error("Unsupported token: {0}")]
    Unsupported(&'static str),
    /// Its header names another algorithm than the configured one.
    #[error("Signing algorithm mismatch")]
    AlgorithmMismatch,
    /// Its signature is not the configured key's.
    #[error("Invalid token signature")]
    InvalidSignature,
    /// A required claim is absent.
    #[error("Missing required {0:?} claim")]
    MissingClaim(&'static str),
    /// A claim has the wrong type or a value that is not accepted.
    #[error("Invalid {0:?} claim value")]
    InvalidClaim(&'static str),
    /// `exp` is over.
    #[error("Expired token")]
    Expired,
    /// `nbf` has not come.
    #[error("Token is not yet valid")]
    NotYetValid,
    /// `iat` is longer ago than is allowed here.
    #[error("Token is older than allowed")]
    TooOld,
    /// `exp` is further from `iat` than is allowed here.
    #[error("Token is valid for longer than allowed")]
    LifetimeTooLong,
    /// No user is named, or not by a text that is not blank.
    #[error("Missing or invalid 'user_id'")]
    UserId,
    /// No verdict came in time.
    #[error("no verdict within the deadline")]
    TimedOut,
    /// The authenticator could not tell, which is not the client's fault.
    #[error("authentication is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<&AuthError> for Refusal {
    /// What the client may know. All failures of the signature look alike.
    fn from(error: &AuthError) -> Refusal {
        match error {
            AuthError::Malformed(_) | AuthError::Unsupported(_) => Refusal::Malformed,
            AuthError::AlgorithmMismatch | AuthError::InvalidSignature => Refusal::Signature,
            AuthError::Expired | AuthError::TooOld => Refusal::Expired,
            AuthError::NotYetValid => Refusal::NotYetValid,
            AuthError::MissingClaim(_)
            | AuthError::InvalidClaim(_)
            | AuthError::LifetimeTooLong
            | AuthError::UserId => Refusal::Claims,
            AuthError::TimedOut | AuthError::Unavailable(_) => Refusal::Unavailable,
        }
    }
}

/// Authenticates by JSON Web Token ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) in the
/// compact form ([RFC 7515 §7.1](https://www.rfc-editor.org/rfc/rfc7515#section-7.1)).
///
/// ```
/// use electric_satellite::{
///     auth::{Algorithm, ClaimRules, JwtAuthenticator, Key, Minter},
///     session::UnixTime,
/// };
///
/// let secret = b"the quick brown fox jumps over it";
/// let key = Key::from_secret(Algorithm::HS256, secret)?;
/// let authenticator = JwtAuthenticator::secure(key, ClaimRules::default());
///
/// let now = UnixTime::from_secs(1_700_000_000);
/// let claims = serde_json::json!({ "sub": "user-1", "iat": 1_700_000_000, "exp": 1_700_000_060 });
/// let token = Minter::from_secret(Algorithm::HS256, secret)?.mint(&claims)?;
///
/// let verified = authenticator.verify(&token, now)?;
/// assert_eq!(verified.identity().user_id, "user-1");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JwtAuthenticator {
    /// Nothing in insecure mode.
    key: Option<Key>,
    rules: ClaimRules,
}

impl JwtAuthenticator {
    /// Signed tokens only: production.
    pub fn secure(key: Key, rules: ClaimRules) -> JwtAuthenticator {
        JwtAuthenticator { key: Some(key), rules }
    }

    /// Unsigned tokens too: development. The header and the signature are not looked at, `iss`
    /// and `aud` are ignored, and `iat`, `nbf` and `exp` are judged if they are there.
    pub fn insecure(namespace: Option<String>) -> JwtAuthenticator {
        let rules = ClaimRules { namespace, times_required: false, ..Default::default() };
        JwtAuthenticator { key: None, rules }
    }

    /// Whether anybody can say who they are.
    pub fn is_insecure(&self) -> bool {
        self.key.is_none()
    }

    /// The verdict on a token, at this time.
    ///
    /// # Errors
    ///
    /// See [`AuthError`]. The first rule that fails is named, in this order: form, algorithm,
    /// extensions, signature, values of claims, absence of claims, user.
    pub fn verify(&self, token: &Token, now: UnixTime) -> Result<Verified, AuthError> {
        let payload = match &self.key {
            Some(key) => signed_payload(token.expose(), key)?,
            None => unsigned_payload(token.expose())?,
        };
        self.rules.judge(&payload, now).map(Verified::vouched_for_by_authenticator)
    }
}

impl Authenticator for JwtAuthenticator {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> Result<Verified, AuthError> {
        self.verify(request.token(), now)
    }
}

/// The payload of a token whose signature is the key's.
fn signed_payload(token: &str, key: &Key) -> Result<Vec<u8>, AuthError> {
    let mut segments = token.split('.');
    let (Some(header), Some(payload), Some(signature), extra) =
        (segments.next(), segments.next(), segments.next(), segments.count())
    else {
        return Err(AuthError::Malformed("fewer than three segments"));
    };
    match extra {
        0 => {}
        2 => return Err(AuthError::Unsupported("encrypted")),
        _ => return Err(AuthError::Malformed("more than three segments")),
    }
    let signed = &token[..header.len() + 1 + payload.len()];
    check_header(&decoded(header, "the header is not base64url")?, key.algorithm())?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AuthError::InvalidSignature)?;
    if !key.verifies(signed.as_bytes(), &signature) {
        return Err(AuthError::InvalidSignature);
    }
    decoded(payload, "the payload is not base64url")
}

/// The payload of a token whose header and signature are not looked at.
fn unsigned_payload(token: &str) -> Result<Vec<u8>, AuthError> {
    let mut segments = token.split('.');
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some(_), Some(payload), _, None) => decoded(payload, "the payload is not base64url"),
        _ => Err(AuthError::Malformed("not two or three segments")),
    }
}

/// Strict base64url: no padding, no white space, no bits to spare.
fn decoded(segment: &str, otherwise: &'static str) -> Result<Vec<u8>, AuthError> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| AuthError::Malformed(otherwise))
}

/// The header must name the configured algorithm and ask for nothing that is not done here
/// ([RFC 7515 §4.1.11](https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11)).
fn check_header(header: &[u8], algorithm: Algorithm) -> Result<(), AuthError> {
    let header =
        json::header(header).map_err(|_| AuthError::Malformed("the header is no JSON object"))?;
    if header.alg.is_absent() {
        return Err(AuthError::Malformed("the header names no algorithm"));
    }
    if header.alg.text() != Some(algorithm.as_str()) {
        return Err(AuthError::AlgorithmMismatch);
    }
    if !header.enc.is_absent() {
        return Err(AuthError::Unsupported("encrypted"));
    }
    if !header.zip.is_absent() {
        return Err(AuthError::Unsupported("compressed"));
    }
    if header.cty.text().is_some_and(|cty| cty.eq_ignore_ascii_case("JWT")) {
        return Err(AuthError::Unsupported("nested"));
    }
    if !header.crit.is_absent() || !matches!(header.b64, Value::Absent | Value::Bool(true)) {
        return Err(AuthError::Unsupported("extensions"));
    }
    Ok(())
}
