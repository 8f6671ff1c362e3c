//! Who may in: the verdict on an auth request.
//!
//! [`Authenticator`] is the trait a server asks. [`JwtAuthenticator`] is the implementation for
//! JSON Web Tokens, configured by hand or from Electric's own variables
//! ([`JwtAuthenticator::from_vars`]).

mod aside;
mod cache;
mod claims;
mod config;
mod explain;
mod json;
#[cfg(feature = "jwks-http")]
mod jwks_http;
mod keys;
mod keyset;
mod mint;
mod replay;
mod revocation;
pub(crate) mod source;

use std::{fmt, future::Future, sync::Arc};

use base64::{Engine, decoded_len_estimate, engine::general_purpose::URL_SAFE_NO_PAD};
use smallvec::{SmallVec, smallvec};

use crate::session::{AuthRequest, Refusal, Token, UnixTime, Verified};

use json::Value;

use aside::Aside;
use cache::{CachedToken, TokenCache, TokenDigest, token_digest};
use claims::Judged;
use keyset::Snapshot;
use source::Source;

pub use claims::ClaimRules;
#[cfg(feature = "conformance")]
pub(crate) use config::shared_secret;
pub use config::{ConfigError, ConfigErrors, VARIABLES, Variable};
pub use explain::Finding;
#[cfg(feature = "jwks-http")]
pub use jwks_http::{JwksUrl, JwksUrlError, Timing};
pub use keys::{Algorithm, Key, KeyError, UnknownAlgorithm};
pub use keyset::{KeyRing, KeySet, KeySetError, Lookup};
pub use mint::{MintError, Minter};
pub use replay::{InProcessReplayGuard, ReplayAnswer, ReplayError, ReplayGuard, TokenUse};
pub use revocation::{RevocationList, Revocations, Revoked};
pub use source::{FileError, KeyFile, RevocationFile};

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
///         Ok(Verified::vouched_for_by_authenticator(Identity::new(request.client_id().as_str())))
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

    /// What has to go on while the authenticator is used, such as reading keys again when they
    /// change. [`Server::serve`](crate::server::Server::serve) runs it; whoever serves otherwise
    /// runs it on a task of its own. By default, nothing.
    fn keep_fresh(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// What is revoked, if anything can be. A server looks at its live connections again whenever
    /// that changes, and closes those whose identity is revoked. By default, nothing.
    fn revocations(&self) -> Option<Arc<dyn Revocations>> {
        None
    }

    /// What this way to authenticate is called in metrics.
    fn method(&self) -> &'static str {
        "custom"
    }

    /// What whoever runs the service must not overlook; it is shown wherever the service tells
    /// how it is. By default, nothing.
    fn warning(&self) -> Option<&'static str> {
        None
    }
}

impl<A: Authenticator> Authenticator for Arc<A> {
    fn keep_fresh(&self) -> impl Future<Output = ()> + Send {
        A::keep_fresh(self)
    }

    fn revocations(&self) -> Option<Arc<dyn Revocations>> {
        A::revocations(self)
    }

    fn method(&self) -> &'static str {
        A::method(self)
    }

    fn warning(&self) -> Option<&'static str> {
        A::warning(self)
    }

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
    /// Its header names a key that is not among the configured ones.
    #[error("Unknown signing key")]
    UnknownKey,
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
    /// It works once, and has been used.
    #[error("Token was used before")]
    Used,
    /// It, or its user, is not accepted any more.
    #[error("Token is revoked")]
    Revoked,
    /// The authenticator could not tell, which is not the client's fault.
    #[error("authentication is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<&AuthError> for Refusal {
    /// What the client may know. All failures of the signature look alike.
    fn from(error: &AuthError) -> Refusal {
        match error {
            AuthError::Malformed(_) | AuthError::Unsupported(_) => Refusal::Malformed,
            AuthError::AlgorithmMismatch | AuthError::UnknownKey | AuthError::InvalidSignature => {
                Refusal::Signature
            }
            AuthError::Used => Refusal::Used,
            AuthError::Revoked => Refusal::Revoked,
            AuthError::Expired | AuthError::TooOld => Refusal::Expired,
            AuthError::NotYetValid => Refusal::NotYetValid,
            AuthError::MissingClaim(_)
            | AuthError::InvalidClaim(_)
            | AuthError::LifetimeTooLong
            | AuthError::UserId => Refusal::Claims,
            AuthError::Unavailable(_) => Refusal::Unavailable,
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
pub struct JwtAuthenticator {
    /// Nothing in insecure mode.
    keys: Option<KeyRing>,
    rules: ClaimRules,
    replay_guard: Option<Arc<dyn ReplayGuard>>,
    revocations: Option<Arc<dyn Revocations>>,
    cache: Option<TokenCache>,
    aside: Aside,
    sources: Vec<Source>,
}

impl JwtAuthenticator {
    /// Signed tokens only: production. The keys may be exchanged while they are used.
    pub fn secure(keys: impl Into<KeyRing>, rules: ClaimRules) -> JwtAuthenticator {
        JwtAuthenticator::new(Some(keys.into()), rules)
    }

    /// Unsigned tokens too: development. The header and the signature are not looked at, `iss`
    /// and `aud` are ignored, and `iat`, `nbf` and `exp` are judged if they are there.
    pub fn insecure(namespace: Option<String>) -> JwtAuthenticator {
        let rules = ClaimRules { namespace, times_required: false, ..Default::default() };
        JwtAuthenticator::new(None, rules)
    }

    fn new(keys: Option<KeyRing>, rules: ClaimRules) -> JwtAuthenticator {
        JwtAuthenticator {
            keys,
            rules,
            replay_guard: None,
            revocations: None,
            cache: None,
            aside: Aside::new(),
            sources: vec![],
        }
    }

    /// Accepts each token once. It must have an id (`jti`) and an end (`exp`) then. The cache, if
    /// there is one, is given up.
    pub fn with_replay_guard(mut self, guard: impl ReplayGuard) -> JwtAuthenticator {
        self.rules.token_id_required = true;
        JwtAuthenticator { replay_guard: Some(Arc::new(guard)), cache: None, ..self }
    }

    /// Refuses what is revoked.
    pub fn with_revocations(self, revocations: impl Revocations) -> JwtAuthenticator {
        JwtAuthenticator { revocations: Some(Arc::new(revocations)), ..self }
    }

    /// Remembers so many verified tokens, so that clients that reconnect with the same ones cost
    /// a hash instead of a verification. The times of a token and its revocation are judged at
    /// every use, and an exchange of keys makes every token be verified again. With a replay
    /// guard there is no cache: no token comes twice.
    pub fn with_cache(self, tokens: usize) -> JwtAuthenticator {
        let cache = self.replay_guard.is_none().then(|| TokenCache::new(tokens));
        JwtAuthenticator { cache, ..self }
    }

    /// The keys, unless in insecure mode.
    pub fn keys(&self) -> Option<&KeyRing> {
        self.keys.as_ref()
    }

    /// The rules for claims.
    pub fn rules(&self) -> &ClaimRules {
        &self.rules
    }

    /// Whether anybody can say who they are.
    pub fn is_insecure(&self) -> bool {
        self.keys.is_none()
    }

    /// The verdict on a token, at this time, but for what must be waited for: whether it has been
    /// used before ([`ReplayGuard`]), and whether a key it names can be found ([`KeyRing`]).
    ///
    /// # Errors
    ///
    /// See [`AuthError`]. The first rule that fails is named, in this order: form, algorithm,
    /// extensions, signature, values of claims, absence of claims, user, revocation.
    pub fn verify(&self, token: &Token, now: UnixTime) -> Result<Verified, AuthError> {
        self.judge(token, now).map(|judged| Verified::vouched_for_by_authenticator(judged.identity))
    }

    fn judge(&self, token: &Token, now: UnixTime) -> Result<Judged, AuthError> {
        let judged = match &self.keys {
            None => self.rules.judge(unsigned_payload(token.expose())?.into(), now)?,
            Some(keys) => self.judge_signed(token, &keys.snapshot(), now)?,
        };
        self.unless_revoked(judged)
    }

    fn judge_signed(
        &self,
        token: &Token,
        keys: &Snapshot,
        now: UnixTime,
    ) -> Result<Judged, AuthError> {
        if keys.keys.keys().is_empty() {
            return Err(AuthError::Unavailable("there are no keys".into()));
        }
        let digest = self.digest(token);
        if let Some(judged) = self.remembered(digest.as_ref(), keys, now) {
            return judged;
        }
        let payload = signed_payload(token.expose(), &keys.keys)?;
        self.judge_payload(payload, digest, keys, now)
    }

    /// The same, without holding up the thread for a verification that takes long. Boxed then, so
    /// that others do not carry the size of it.
    async fn judge_aside(&self, token: &Token, now: UnixTime) -> Result<Judged, AuthError> {
        let keys = self.keys.as_ref().map(KeyRing::snapshot);
        match keys.filter(|keys| keys.keys.take_long()) {
            None => self.judge(token, now),
            Some(keys) => Box::pin(self.judge_long(token, keys, now)).await,
        }
    }

    async fn judge_long(
        &self,
        token: &Token,
        keys: Arc<Snapshot>,
        now: UnixTime,
    ) -> Result<Judged, AuthError> {
        let digest = self.digest(token);
        let judged = match self.remembered(digest.as_ref(), &keys, now) {
            Some(judged) => judged,
            None => {
                let (signed, by) = (token.clone(), Arc::clone(&keys));
                let verify = move || signed_payload(signed.expose(), &by.keys);
                let verified = self.aside.run(verify).await;
                let failed = || AuthError::Unavailable("the verification panicked".into());
                self.judge_payload(verified.ok_or_else(failed)??, digest, &keys, now)
            }
        };
        self.unless_revoked(judged?)
    }

    /// Under which a token is remembered, if any is.
    fn digest(&self, token: &Token) -> Option<TokenDigest> {
        self.cache.as_ref().map(|_| token_digest(token.expose()))
    }

    fn unless_revoked(&self, judged: Judged) -> Result<Judged, AuthError> {
        match &self.revocations {
            Some(revocations) if revocations.is_revoked(&judged.identity) => {
                Err(AuthError::Revoked)
            }
            _ => Ok(judged),
        }
    }

    /// The verdict on a token that these keys have verified already, if it is remembered.
    fn remembered(
        &self,
        digest: Option<&TokenDigest>,
        keys: &Snapshot,
        now: UnixTime,
    ) -> Option<Result<Judged, AuthError>> {
        let cached = self.cache.as_ref()?.get(digest?, keys.generation)?;
        let CachedToken { identity, times, .. } = cached;
        let in_time = self.rules.judge_times(&times, now);
        Some(in_time.map(|()| Judged { identity, times, issuer: None }))
    }

    /// The verdict on the payload of a token that these keys have verified, which is remembered.
    fn judge_payload(
        &self,
        payload: Vec<u8>,
        digest: Option<TokenDigest>,
        keys: &Snapshot,
        now: UnixTime,
    ) -> Result<Judged, AuthError> {
        // No more room than it has, lest its bytes have to be shared by way of another allocation.
        let judged = self.rules.judge(payload.into_boxed_slice().into(), now)?;
        if let Some((cache, digest)) = self.cache.as_ref().zip(digest) {
            let (identity, times) = (judged.identity.clone(), judged.times);
            cache.insert(digest, CachedToken { generation: keys.generation, identity, times });
        }
        Ok(judged)
    }

    /// Uses a token up, if that is asked for.
    async fn use_once(&self, judged: &Judged, now: UnixTime) -> Result<(), AuthError> {
        let Some(guard) = &self.replay_guard else { return Ok(()) };
        let identity = &judged.identity;
        let token_id = identity.token_id.as_deref().ok_or(AuthError::MissingClaim("jti"))?;
        let expires_at = identity.expires_at.ok_or(AuthError::MissingClaim("exp"))?;
        let until = expires_at.as_secs().saturating_add(i64::from(self.rules.leeway) + 1);
        let until = UnixTime::from_secs(until);
        let token = TokenUse { issuer: judged.issuer.as_deref(), token_id, until, now };
        guard.use_once(token).await.map_err(|error| match error {
            ReplayError::Used => AuthError::Used,
            error => AuthError::Unavailable(error.into()),
        })
    }
}

impl Authenticator for JwtAuthenticator {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> Result<Verified, AuthError> {
        // Before the verdict, so that no exchange is missed between it and the question.
        let before = self.keys.as_ref().map_or(0, |keys| keys.snapshot().generation);
        let mut verdict = self.judge_aside(request.token(), now).await;
        if let (Err(AuthError::UnknownKey), Some(keys)) = (&verdict, &self.keys)
            && keys.look_for_new_keys(before).await
        {
            verdict = self.judge_aside(request.token(), now).await;
        }
        let judged = verdict?;
        self.use_once(&judged, now).await?;
        Ok(Verified::vouched_for_by_authenticator(judged.identity))
    }

    async fn keep_fresh(&self) {
        let sources = self.sources.iter().cloned().map(Source::keep);
        futures_util::future::join_all(sources).await;
    }

    fn revocations(&self) -> Option<Arc<dyn Revocations>> {
        self.revocations.clone()
    }

    fn method(&self) -> &'static str {
        match &self.keys {
            None => "insecure",
            Some(keys) => match keys.snapshot().keys.keys() {
                [] => "none",
                [first, rest @ ..] => {
                    let same = rest.iter().all(|key| key.algorithm() == first.algorithm());
                    if same { first.algorithm().as_str() } else { "several" }
                }
            },
        }
    }

    fn warning(&self) -> Option<&'static str> {
        self.is_insecure().then_some(
            "insecure mode: unsigned tokens are accepted, anybody can say who they are; \
             for development only",
        )
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator")
            .field("keys", &self.keys)
            .field("rules", &self.rules)
            .field("replay_guard", &self.replay_guard.is_some())
            .field("revocations", &self.revocations.is_some())
            .field("cache", &self.cache.is_some())
            .finish()
    }
}

impl From<Key> for KeyRing {
    fn from(key: Key) -> KeyRing {
        KeyRing::new(key)
    }
}

impl From<KeySet> for KeyRing {
    fn from(keys: KeySet) -> KeyRing {
        KeyRing::new(keys)
    }
}

/// The payload of a token whose signature is by one of the keys.
fn signed_payload(token: &str, keys: &KeySet) -> Result<Vec<u8>, AuthError> {
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
    // Neither is kept, and both usually fit on the stack.
    let longest = decoded_len_estimate(header.len().max(signature.len()));
    let mut buffer: SmallVec<[u8; 512]> = smallvec![0; longest];
    let malformed = |_| AuthError::Malformed("the header is not base64url");
    let length = URL_SAFE_NO_PAD.decode_slice(header, &mut buffer).map_err(malformed)?;
    let candidates = check_header(&buffer[..length], keys)?;
    let payload = decoded(payload, "the payload is not base64url")?;
    let malformed = |_| AuthError::Malformed("the signature is not base64url");
    let length = URL_SAFE_NO_PAD.decode_slice(signature, &mut buffer).map_err(malformed)?;
    let signature = &buffer[..length];
    if !candidates.iter().flatten().any(|key| key.verifies(signed.as_bytes(), signature)) {
        return Err(AuthError::InvalidSignature);
    }
    Ok(payload)
}

/// When a token expires, as it says itself and nobody has verified; nothing if it does not say so.
pub(crate) fn unverified_expiry(token: &Token) -> Option<UnixTime> {
    let payload = unsigned_payload(token.expose()).ok()?;
    claims::expiry(&payload)
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

/// The header must name a configured algorithm and ask for nothing that is not done here
/// ([RFC 7515 §4.1.11](https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11)). Returns the keys
/// to try.
fn check_header<'k>(
    header: &[u8],
    keys: &'k KeySet,
) -> Result<[Option<&'k Key>; keyset::MAX_TRIES], AuthError> {
    let header =
        json::header(header).map_err(|_| AuthError::Malformed("the header is no JSON object"))?;
    if header.alg.is_absent() {
        return Err(AuthError::Malformed("the header names no algorithm"));
    }
    let alg = header.alg.text().ok_or(AuthError::AlgorithmMismatch)?;
    let candidates = keys.candidates(alg, header.kid.text());
    if let Err(error @ AuthError::AlgorithmMismatch) = candidates {
        return Err(error);
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
    candidates
}

#[cfg(test)]
mod tests {
    use crate::session::Identity;

    use super::*;

    /// An authenticator that says no more about itself than it must.
    struct Plain;

    impl Authenticator for Plain {
        async fn authenticate(&self, _: &AuthRequest, _: UnixTime) -> Result<Verified, AuthError> {
            Ok(Verified::vouched_for_by_authenticator(Identity::new("u")))
        }
    }

    fn of(algorithms: &[Algorithm]) -> JwtAuthenticator {
        let keys = algorithms.iter().map(|&alg| Key::from_secret(alg, &[7; 64]).unwrap());
        JwtAuthenticator::secure(KeySet::new(keys), ClaimRules::default())
    }

    #[test]
    fn an_authenticator_has_a_name_for_metrics_and_a_warning_if_it_needs_one() {
        fn told<A: Authenticator>(authenticator: A) -> (&'static str, Option<&'static str>) {
            let told = (authenticator.method(), authenticator.warning());
            let shared = Arc::new(authenticator);
            assert_eq!((shared.method(), shared.warning()), told);
            told
        }
        use Algorithm::{HS256, HS384};
        assert_eq!(told(Plain), ("custom", None));
        assert_eq!(told(of(&[])), ("none", None));
        assert_eq!(told(of(&[HS384])), ("HS384", None));
        assert_eq!(told(of(&[HS256, HS256])), ("HS256", None));
        assert_eq!(told(of(&[HS256, HS256, HS384])), ("several", None));
        let (method, warning) = told(JwtAuthenticator::insecure(None));
        assert_eq!(method, "insecure");
        assert!(warning.unwrap().starts_with("insecure mode: unsigned tokens are accepted"));
    }

    #[test]
    fn a_token_says_when_it_expires_whoever_signed_it() {
        let minter = Minter::from_secret(Algorithm::HS256, &[7; 32]).unwrap();
        for (exp, expiry) in [
            (serde_json::json!(60), Some(60)),
            (serde_json::json!(60.9), Some(60)),
            (serde_json::json!(null), None),
            (serde_json::json!("60"), None),
        ] {
            let token = minter.mint(&serde_json::json!({ "exp": exp })).unwrap();
            assert_eq!(unverified_expiry(&token), expiry.map(UnixTime::from_secs), "{exp}");
        }
        let without = minter.mint(&serde_json::json!({})).unwrap();
        for token in [without.expose(), "no token", "a.b.c", "e30.e30.e30.e30"] {
            assert_eq!(unverified_expiry(&Token::new(token).unwrap()), None, "{token}");
        }
    }
}
