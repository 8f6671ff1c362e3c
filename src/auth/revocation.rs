//! Tokens and users that are not accepted any more.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use serde::Deserialize;
use tokio::sync::watch;

use crate::session::{Identity, UnixTime};

/// Says which verified tokens are nevertheless not accepted.
///
/// It is asked at every authentication; a server can also watch for changes, and look at its
/// live connections again when there is one.
pub trait Revocations: Send + Sync + 'static {
    /// Whether the identity is not accepted any more.
    fn is_revoked(&self, identity: &Identity) -> bool;

    /// Changes its value whenever more is revoked than before.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// A list of revocations, in this process. Clones are the same list.
///
/// A change is in force, under the list's lock, before the count goes up that tells of it. So who
/// takes note of the count and then looks at the list finds the change there, and so does who becomes
/// known to the watcher first and looks then: nobody slips in between. `tests/concurrency` tries it.
///
/// ```
/// use electric_satellite::{auth::{RevocationList, Revocations}, session::Identity};
///
/// let list = RevocationList::default();
/// let mut changes = list.changes();
/// list.revoke_user("user-1");
/// assert!(list.is_revoked(&Identity::new("user-1")));
/// assert!(changes.has_changed().unwrap());
/// ```
#[derive(Clone, Debug)]
pub struct RevocationList {
    revoked: Arc<RwLock<Revoked>>,
    changed: Arc<watch::Sender<u64>>,
}

/// What is revoked. It can be read from JSON:
/// `{"tokens":["a jti"],"users":["a user"],"issued_before":1700000000}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// Tokens, by their id (`jti`).
    #[serde(default)]
    pub tokens: HashSet<String>,
    /// Users, with all their tokens.
    #[serde(default)]
    pub users: HashSet<String>,
    /// Users, with their tokens issued before a time, in seconds since 1970 began. A token that
    /// does not say when it was issued counts as issued before.
    #[serde(default)]
    pub users_before: HashMap<String, i64>,
    /// All tokens issued before a time, in seconds since 1970 began. A token that does not say
    /// when it was issued counts as issued before.
    #[serde(default)]
    pub issued_before: Option<i64>,
}

impl Revoked {
    fn covers(&self, identity: &Identity) -> bool {
        let issued_before = |limit: i64| {
            identity.issued_at.is_none_or(|issued_at| issued_at < UnixTime::from_secs(limit))
        };
        identity.token_id.as_ref().is_some_and(|id| self.tokens.contains(id))
            || self.users.contains(&identity.user_id)
            || self.users_before.get(&identity.user_id).is_some_and(|&limit| issued_before(limit))
            || self.issued_before.is_some_and(issued_before)
    }
}

impl Default for RevocationList {
    fn default() -> RevocationList {
        RevocationList { revoked: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }
}

impl RevocationList {
    /// Revokes one token, by its id (`jti`).
    pub fn revoke_token(&self, token_id: impl Into<String>) {
        self.change(|revoked| {
            revoked.tokens.insert(token_id.into());
        });
    }

    /// Revokes all tokens of a user, those still to be issued included.
    pub fn revoke_user(&self, user_id: impl Into<String>) {
        self.change(|revoked| {
            revoked.users.insert(user_id.into());
        });
    }

    /// Revokes the tokens of a user that were issued before this time.
    pub fn revoke_user_before(&self, user_id: impl Into<String>, time: UnixTime) {
        self.change(|revoked| {
            revoked.users_before.insert(user_id.into(), time.as_secs());
        });
    }

    /// Revokes all tokens that were issued before this time.
    pub fn revoke_issued_before(&self, time: UnixTime) {
        self.change(|revoked| revoked.issued_before = Some(time.as_secs()));
    }

    /// Revokes this and nothing else. Whether that is a change.
    pub fn replace(&self, by: Revoked) -> bool {
        let same = *self.revoked.read().unwrap_or_else(PoisonError::into_inner) == by;
        if !same {
            self.change(|revoked| *revoked = by);
        }
        !same
    }

    /// The change is in force before anybody learns of it.
    fn change(&self, change: impl FnOnce(&mut Revoked)) {
        change(&mut self.revoked.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Revocations for RevocationList {
    fn is_revoked(&self, identity: &Identity) -> bool {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).covers(identity)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user_id: &str, token_id: Option<&str>, issued_at: Option<i64>) -> Identity {
        let mut identity = Identity::new(user_id);
        identity.token_id = token_id.map(str::to_owned);
        identity.issued_at = issued_at.map(UnixTime::from_secs);
        identity
    }

    #[test]
    fn tokens_users_and_times_are_revoked_and_nothing_else() {
        let list = RevocationList::default();
        list.revoke_token("t");
        list.revoke_user("u");
        list.revoke_user_before("v", UnixTime::from_secs(100));
        assert!(list.is_revoked(&identity("x", Some("t"), None)));
        assert!(list.is_revoked(&identity("u", None, Some(1000))));
        assert!(list.is_revoked(&identity("v", None, Some(99))));
        assert!(list.is_revoked(&identity("v", None, None)));
        assert!(!list.is_revoked(&identity("v", None, Some(100))));
        assert!(!list.is_revoked(&identity("x", Some("T"), Some(0))));
        list.revoke_issued_before(UnixTime::from_secs(50));
        assert!(list.is_revoked(&identity("x", None, Some(49))));
        assert!(list.is_revoked(&identity("x", None, None)));
        assert!(!list.is_revoked(&identity("x", None, Some(50))));
    }

    #[test]
    fn whoever_watches_learns_of_a_change_when_it_is_in_force() {
        let list = RevocationList::default();
        let mut changes = list.changes();
        assert!(!list.replace(Revoked::default()));
        assert!(!changes.has_changed().unwrap());
        let json = r#"{"users":["u"],"issued_before":1}"#;
        assert!(list.replace(serde_json::from_str(json).unwrap()));
        assert!(changes.has_changed().unwrap());
        let first = *changes.borrow_and_update();
        list.revoke_user("v");
        assert_ne!(*changes.borrow(), first);
        assert!(list.is_revoked(&identity("u", None, Some(5))));
        assert!(serde_json::from_str::<Revoked>(r#"{"user":["u"]}"#).is_err());
    }
}
