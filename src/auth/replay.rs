//! One-off tokens: a token that works once.

use std::{
    collections::{BTreeMap, HashSet},
    future::{Future, ready},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest::{self, SHA256};

use crate::session::UnixTime;

/// The one use of a token that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TokenUse<'a> {
    /// Who issued it (`iss`), if it says so. Ids are unique per issuer.
    pub issuer: Option<&'a str>,
    /// Its own id (`jti`).
    pub token_id: &'a str,
    /// Until when it is accepted, leeway included: it must be remembered so long.
    pub until: UnixTime,
    /// The time now.
    pub now: UnixTime,
}

/// The answer of a guard.
pub type ReplayAnswer<'a> = Pin<Box<dyn Future<Output = Result<(), ReplayError>> + Send + 'a>>;

/// Remembers which tokens have been used.
///
/// Of several presentations of one token, at whatever time and however close together, exactly
/// one is told yes. A guard that serves several processes needs a store with an atomic
/// insert-if-absent that forgets by itself, such as `SET key value NX EXAT until` of Redis.
pub trait ReplayGuard: Send + Sync + 'static {
    /// Whether this is the token's first use; it is its last in any case.
    ///
    /// A future that is dropped before it is done may have used the token up.
    ///
    /// # Errors
    ///
    /// It has been used, or that cannot be known; see [`ReplayError`].
    fn use_once<'a>(&'a self, token: TokenUse<'a>) -> ReplayAnswer<'a>;
}

impl<G: ReplayGuard> ReplayGuard for Arc<G> {
    fn use_once<'a>(&'a self, token: TokenUse<'a>) -> ReplayAnswer<'a> {
        G::use_once(self, token)
    }
}

/// Why a token is not let through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It has been used.
    #[error("Token was used before")]
    Used,
    /// As many tokens are remembered as the guard can hold.
    #[error("the replay guard is full: {0} tokens that have not expired were used")]
    Full(usize),
    /// The guard's store does not answer.
    #[error("the replay guard is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A guard for one process, of bounded size: 32 bytes and their bookkeeping per used token that
/// has not expired. When it is full, tokens are refused until some expire.
///
/// A token is looked up and remembered under one lock, and nothing is waited for, so of several
/// presentations one comes first; `tests/concurrency` tries them in every order.
#[derive(Debug)]
pub struct InProcessReplayGuard {
    capacity: usize,
    used: Mutex<Used>,
}

/// A token's issuer and id, hashed, so that a peer does not choose how much is remembered.
type Key = [u8; 32];

#[derive(Debug, Default)]
struct Used {
    keys: HashSet<Key>,
    by_end: BTreeMap<UnixTime, Vec<Key>>,
    /// The latest time that was seen: what ended before it is forgotten, used or not.
    latest: Option<UnixTime>,
}

impl Used {
    fn forget_expired(&mut self, now: UnixTime) {
        self.latest = self.latest.max(Some(now));
        let live = self.by_end.split_off(&now);
        for key in std::mem::replace(&mut self.by_end, live).into_values().flatten() {
            self.keys.remove(&key);
        }
    }
}

impl InProcessReplayGuard {
    /// A guard that remembers so many tokens at a time.
    pub fn new(capacity: usize) -> InProcessReplayGuard {
        InProcessReplayGuard { capacity, used: Mutex::default() }
    }

    /// How many tokens are remembered, some of which may have expired since.
    pub fn remembered(&self) -> usize {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).keys.len()
    }

    fn try_use(&self, token: TokenUse<'_>) -> Result<(), ReplayError> {
        let key = key(token.issuer, token.token_id);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_expired(token.now);
        // A clock that went backwards must not make a token new that was forgotten.
        let forgotten = used.latest.is_some_and(|latest| token.until < latest);
        if forgotten || used.keys.contains(&key) {
            return Err(ReplayError::Used);
        }
        if used.keys.len() >= self.capacity {
            return Err(ReplayError::Full(self.capacity));
        }
        used.keys.insert(key);
        used.by_end.entry(token.until).or_default().push(key);
        Ok(())
    }
}

impl ReplayGuard for InProcessReplayGuard {
    fn use_once<'a>(&'a self, token: TokenUse<'a>) -> ReplayAnswer<'a> {
        Box::pin(ready(self.try_use(token)))
    }
}

/// An issuer and an id have one hash, and no two pairs share theirs.
fn key(issuer: Option<&str>, token_id: &str) -> Key {
    let mut context = digest::Context::new(&SHA256);
    if let Some(issuer) = issuer {
        context.update(&(issuer.len() as u64).to_be_bytes());
        context.update(issuer.as_bytes());
    }
    context.update(b"\0");
    context.update(token_id.as_bytes());
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn token(token_id: &str, until: i64, now: i64) -> TokenUse<'_> {
        let (until, now) = (UnixTime::from_secs(until), UnixTime::from_secs(now));
        TokenUse { issuer: None, token_id, until, now }
    }

    #[test]
    fn a_token_works_once_until_it_expires() {
        let guard = InProcessReplayGuard::new(10);
        assert!(guard.try_use(token("a", 100, 0)).is_ok());
        assert!(matches!(guard.try_use(token("a", 100, 0)), Err(ReplayError::Used)));
        // In the second in which it is accepted last, it is still remembered.
        assert!(matches!(guard.try_use(token("a", 100, 100)), Err(ReplayError::Used)));
        let other = TokenUse { issuer: Some("i"), ..token("a", 100, 0) };
        assert!(guard.try_use(other).is_ok());
    }

    #[test]
    fn a_full_guard_refuses_until_tokens_expire() {
        let guard = InProcessReplayGuard::new(2);
        assert!(guard.try_use(token("a", 10, 0)).is_ok());
        assert!(guard.try_use(token("b", 20, 0)).is_ok());
        assert!(matches!(guard.try_use(token("c", 30, 0)), Err(ReplayError::Full(2))));
        assert!(matches!(guard.try_use(token("a", 10, 0)), Err(ReplayError::Used)));
        assert!(guard.try_use(token("c", 30, 11)).is_ok());
        assert_eq!(guard.remembered(), 2);
    }

    #[test]
    fn of_many_presentations_at_once_exactly_one_is_let_through() {
        for _ in 0..200 {
            let guard = InProcessReplayGuard::new(10);
            let accepted = thread::scope(|scope| {
                let uses: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| guard.try_use(token("a", 9, 0)).is_ok()))
                    .collect();
                uses.into_iter()
                    .map(|used| used.join().unwrap())
                    .filter(|accepted| *accepted)
                    .count()
            });
            assert_eq!(accepted, 1);
        }
    }
}
