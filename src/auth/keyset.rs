//! Several keys at once, and their exchange while they are used.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::{
    Algorithm, AuthError, Key, KeyError,
    keys::{Family, Jwk},
};

/// How many keys a token that names none is tried against.
pub(super) const MAX_TRIES: usize = 8;

/// How many keys a set may have.
const MAX_KEYS: usize = 100;

/// Keys that verify at the same time, such as the old one and the new one during a rotation.
///
/// A token chooses among those of its algorithm by `kid`; a token without one is tried against
/// the first eight, and so is one whose `kid` meets keys that have none.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a text holds no usable keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// A JWK Set is `{"keys":[…]}`.
    #[error("no JWK Set: it must be a JSON object with an array \"keys\"")]
    NoJwkSet,
    /// None of the keys can be used.
    #[error("none of its {0} keys can verify with the configured algorithms")]
    NoUsableKey(usize),
    /// It has more keys than anybody needs.
    #[error("it has more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// A key in PEM is not one for the configured algorithm.
    #[error("key {number} {error}")]
    Pem {
        /// Which of them, counted from 1.
        number: usize,
        /// What is wrong with it.
        error: KeyError,
    },
}

impl KeySet {
    /// These keys.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> KeySet {
        KeySet { keys: keys.into_iter().collect() }
    }

    /// Reads a JWK or a JWK Set if the text is a JSON object, else public keys in PEM, one or
    /// several.
    ///
    /// # Errors
    ///
    /// See [`KeySet::from_jwks`] and [`KeySet::from_pem`].
    pub fn parse(algorithms: &[Algorithm], text: &[u8]) -> Result<KeySet, KeySetError> {
        if text.trim_ascii_start().first() != Some(&b'{') {
            return KeySet::from_pem(algorithms, text);
        }
        match serde_json::from_slice::<Jwk>(text) {
            Ok(jwk) => KeySet::not_empty(usable(&jwk, algorithms), 1),
            Err(_) => KeySet::from_jwks(algorithms, text),
        }
    }

    /// Reads a JWK Set ([RFC 7517 §5](https://www.rfc-editor.org/rfc/rfc7517#section-5)).
    ///
    /// A key is used with the algorithm that its `alg` names, or else with those of the given
    /// algorithms that take its kind; never with another. Keys that are not for verifying
    /// signatures (`use`, `key_ops`), shared secrets (`oct`) and keys that cannot be read are
    /// passed over, as the RFC asks.
    ///
    /// # Errors
    ///
    /// It is no JWK Set, or no key in it can be used.
    pub fn from_jwks(algorithms: &[Algorithm], json: &[u8]) -> Result<KeySet, KeySetError> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<serde_json::Value>,
        }
        // A struct could be read from an array, too.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(KeySetError::NoJwkSet);
        }
        let Jwks { keys } = serde_json::from_slice(json).map_err(|_| KeySetError::NoJwkSet)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let count = keys.len();
        let jwks = keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        KeySet::not_empty(jwks.flat_map(|jwk| usable(&jwk, algorithms)).collect(), count)
    }

    /// The keys that can be used, of so many.
    fn not_empty(keys: Vec<Key>, of: usize) -> Result<KeySet, KeySetError> {
        if keys.is_empty() { Err(KeySetError::NoUsableKey(of)) } else { Ok(KeySet { keys }) }
    }

    /// Reads public keys or certificates in PEM, each for the first of these algorithms that
    /// takes it.
    ///
    /// # Errors
    ///
    /// There is none, or one of them is not for any of these algorithms.
    pub fn from_pem(algorithms: &[Algorithm], pem: &[u8]) -> Result<KeySet, KeySetError> {
        const BEGIN: &str = "-----BEGIN ";
        let text = String::from_utf8_lossy(pem);
        let blocks = text.split(BEGIN).skip(1).map(|block| format!("{BEGIN}{block}"));
        let keys = blocks.enumerate().map(|(index, block)| {
            let mut keys = algorithms.iter().map(|&alg| Key::from_pem(alg, block.as_bytes()));
            let first = keys.next().ok_or(KeySetError::NoUsableKey(1))?;
            first
                .or_else(|error| keys.find_map(Result::ok).ok_or(error))
                .map_err(|error| KeySetError::Pem { number: index + 1, error })
        });
        let keys: Vec<Key> = keys.take(MAX_KEYS + 1).collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err(KeySetError::NoUsableKey(0)),
            1..=MAX_KEYS => Ok(KeySet { keys }),
            _ => Err(KeySetError::TooManyKeys),
        }
    }

    /// The keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether there is one whose verifications take long.
    pub(super) fn take_long(&self) -> bool {
        self.keys.iter().any(|key| key.algorithm().takes_long())
    }

    /// The keys that a token with this header is tried against.
    pub(super) fn candidates(
        &self,
        alg: &str,
        kid: Option<&str>,
    ) -> Result<[Option<&Key>; MAX_TRIES], AuthError> {
        let mut of_algorithm =
            self.keys.iter().filter(|key| key.algorithm().as_str() == alg).peekable();
        if of_algorithm.peek().is_none() {
            return Err(AuthError::AlgorithmMismatch);
        }
        let fits = |key: &&Key| match (kid, key.kid()) {
            (Some(named), Some(kid)) => named == kid,
            _ => true,
        };
        let mut candidates = [None; MAX_TRIES];
        for (candidate, key) in candidates.iter_mut().zip(of_algorithm.filter(fits)) {
            *candidate = Some(key);
        }
        if candidates[0].is_none() { Err(AuthError::UnknownKey) } else { Ok(candidates) }
    }
}

impl From<Key> for KeySet {
    fn from(key: Key) -> KeySet {
        KeySet::new([key])
    }
}

/// The ways in which a JWK may be used here.
fn usable(jwk: &Jwk, algorithms: &[Algorithm]) -> Vec<Key> {
    let for_signatures = jwk.usage.as_ref().is_none_or(|usage| usage == "sig");
    let verifies =
        jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|op| op == "verify"));
    if !for_signatures || !verifies {
        return vec![];
    }
    algorithms
        .iter()
        .filter(|algorithm| algorithm.family() != Family::Hmac)
        .filter(|algorithm| jwk.alg.as_ref().is_none_or(|alg| alg == algorithm.as_str()))
        .filter_map(|&algorithm| Key::from_jwk(algorithm, jwk).ok())
        .collect()
}

/// Keys in use, from one or several sources, each of which can exchange its own. Clones are the
/// same ring.
///
/// An exchange is atomic: a verification uses the keys from before or from after it. Connections
/// that are authenticated already are not concerned.
///
/// A verification takes the keys once, as a whole that does not change; that is all it shares with
/// an exchange. Exchanges take their turns by the lock of the sources, under which the whole is put
/// together and put in place (two locks, always taken in this order), so none is lost and the generation only grows. No lock is held across an `await`.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    by_source: Mutex<BTreeMap<String, KeySet>>,
    current: RwLock<Arc<Snapshot>>,
    lookups: Mutex<Option<mpsc::Sender<Lookup>>>,
}

/// All keys at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Counts the exchanges.
    pub(super) generation: u64,
    pub(super) keys: KeySet,
}

impl KeyRing {
    /// A ring with these keys, under the source `"static"`.
    pub fn new(keys: impl Into<KeySet>) -> KeyRing {
        let ring = KeyRing::default();
        ring.replace("static", keys);
        ring
    }

    /// Exchanges all keys of one source. Those of other sources stay.
    pub fn replace(&self, source: &str, keys: impl Into<KeySet>) {
        let mut by_source = self.shared.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        by_source.insert(source.to_owned(), keys.into());
        let keys = by_source.values().flat_map(|set| set.keys.iter().cloned());
        let keys = KeySet::new(keys);
        let mut current = self.shared.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(Snapshot { generation: current.generation + 1, keys });
    }

    /// All keys now.
    pub fn keys(&self) -> KeySet {
        self.snapshot().keys.clone()
    }

    /// The keys of one source.
    #[cfg(feature = "jwks-http")]
    pub(super) fn keys_of(&self, source: &str) -> Option<KeySet> {
        let by_source = self.shared.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        by_source.get(source).cloned()
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The requests to look for new keys, which come when a token names a key that is not here.
    /// For a source that can look on demand; the last one to ask gets them.
    pub fn lookups(&self) -> mpsc::Receiver<Lookup> {
        let (sender, receiver) = mpsc::channel(1);
        *self.shared.lookups.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Asks the source that looks on demand, if there is one, and waits until it has looked.
    /// Whether any keys were exchanged since the generation `before`.
    pub(super) async fn look_for_new_keys(&self, before: u64) -> bool {
        let lookups = self.shared.lookups.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(lookups) = lookups else { return false };
        let (done, looked) = oneshot::channel();
        if lookups.send(Lookup { _done: done }).await.is_ok() {
            // Dropped without a value, always.
            let _ = looked.await;
        }
        self.snapshot().generation != before
    }
}

/// A request to look for new keys. Drop it when that is done, or not worth doing so soon again:
/// the token that caused it is then tried once more.
#[derive(Debug)]
pub struct Lookup {
    _done: oneshot::Sender<()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8, kid: Option<&str>) -> Key {
        let key = Key::from_secret(Algorithm::HS256, &[byte; 32]).unwrap();
        kid.into_iter().fold(key, Key::with_kid)
    }

    fn chosen(set: &KeySet, alg: &str, kid: Option<&str>) -> Result<Vec<String>, String> {
        set.candidates(alg, kid)
            .map(|keys| keys.iter().flatten().map(|key| key.fingerprint().to_owned()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_kid_chooses_and_without_one_all_are_tried() {
        let (old, new, nameless) = (key(1, Some("old")), key(2, Some("new")), key(3, None));
        let print = |key: &Key| key.fingerprint().to_owned();
        let set = KeySet::new([old.clone(), new.clone()]);
        assert_eq!(chosen(&set, "HS256", Some("new")), Ok(vec![print(&new)]));
        assert_eq!(chosen(&set, "HS256", None), Ok(vec![print(&old), print(&new)]));
        assert_eq!(chosen(&set, "HS256", Some("other")), Err("Unknown signing key".into()));
        assert_eq!(chosen(&set, "HS384", Some("new")), Err("Signing algorithm mismatch".into()));
        let set = KeySet::new([old, nameless.clone()]);
        assert_eq!(chosen(&set, "HS256", Some("other")), Ok(vec![print(&nameless)]));
    }

    #[test]
    fn tries_are_bounded() {
        let set = KeySet::new((0..50).map(|byte| key(byte, None)));
        assert_eq!(chosen(&set, "HS256", None).unwrap().len(), MAX_TRIES);
    }

    #[test]
    fn a_jwk_set_is_read_with_care() {
        let jwks = |keys: &str| {
            let json = format!(r#"{{"keys":[{keys}]}}"#);
            KeySet::from_jwks(&[Algorithm::EdDSA, Algorithm::HS256], json.as_bytes())
        };
        // RFC 8037, appendix A.2.
        let ed = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let good = jwks(&format!(r#"{{{ed},"kid":"a"}},{{"kty":"surprise"}},7"#)).unwrap();
        assert_eq!(good.keys().len(), 1);
        assert_eq!(good.keys()[0].kid(), Some("a"));
        for unusable in [
            format!(r#"{{{ed},"use":"enc"}}"#),
            format!(r#"{{{ed},"key_ops":["sign"]}}"#),
            format!(r#"{{{ed},"alg":"ES256"}}"#),
            ed.replace("Ed25519", "X25519").replace("\"kty", "{\"kty") + "}",
            r#"{"kty":"oct","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}"#.into(),
        ] {
            let error = jwks(&unusable).unwrap_err();
            assert_eq!(error, KeySetError::NoUsableKey(1), "{unusable}");
        }
        assert_eq!(jwks("").unwrap_err(), KeySetError::NoUsableKey(0));
        let alone = KeySet::parse(&[Algorithm::EdDSA], format!(" {{{ed}}}").as_bytes()).unwrap();
        assert_eq!(alone.keys()[0].fingerprint(), good.keys()[0].fingerprint());
        let error = KeySet::parse(&[Algorithm::EdDSA], b" {\"key\":[]}").unwrap_err();
        assert_eq!(error, KeySetError::NoJwkSet);
    }

    #[test]
    fn a_text_has_100_keys_at_most() {
        // RFC 8410, section 10.1.
        let key = "-----BEGIN PUBLIC KEY-----\n\
                   MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                   -----END PUBLIC KEY-----\n";
        let in_pem = |count| KeySet::from_pem(&[Algorithm::EdDSA], key.repeat(count).as_bytes());
        let jwk =
            r#"{"kty":"OKP","crv":"Ed25519","x":"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}"#;
        let as_jwks = |count| {
            let json = format!(r#"{{"keys":[{}]}}"#, vec![jwk; count].join(","));
            KeySet::from_jwks(&[Algorithm::EdDSA], json.as_bytes())
        };
        for (count, expected) in [
            (0, Err(KeySetError::NoUsableKey(0))),
            (1, Ok(1)),
            (100, Ok(100)),
            (101, Err(KeySetError::TooManyKeys)),
            (150, Err(KeySetError::TooManyKeys)),
        ] {
            for keys in [in_pem(count), as_jwks(count)] {
                assert_eq!(keys.map(|keys| keys.keys().len()), expected);
            }
        }
        let second = key.to_owned() + &key.replace('M', "N");
        let error = KeyError::Invalid { algorithm: Algorithm::EdDSA };
        assert_eq!(
            KeySet::from_pem(&[Algorithm::EdDSA], second.as_bytes()).unwrap_err(),
            KeySetError::Pem { number: 2, error }
        );
    }

    #[test]
    fn sources_exchange_their_own_keys_and_no_others() {
        let ring = KeyRing::new(key(1, None));
        ring.replace("file", KeySet::new([key(2, None), key(3, None)]));
        assert_eq!(ring.keys().keys().len(), 3);
        let before = ring.snapshot();
        ring.replace("file", key(4, None));
        assert_eq!(ring.keys().keys().len(), 2);
        // A verification that began before goes on with what it has.
        assert_eq!(before.keys.keys().len(), 3);
    }
}
