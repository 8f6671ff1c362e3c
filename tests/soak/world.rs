//! What clients and service have in common: where it is, which keys and users are good, and what
//! the clients have done so far.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use electric_satellite::{
    auth::{Algorithm, Minter},
    session::{Cause, Close, Token, UnixTime},
};
use serde_json::json;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::{
    audit::Ledger,
    clients::{self, Kind},
    random::Random,
    raw::guarded,
    service::eventually,
};

/// How many unauthenticated connections one address may have.
pub(crate) const PER_ADDRESS: usize = 20;

/// How long a token is good. The service remembers so long that it was used.
const TOKEN_LIFE: i64 = 60;

/// Clones are the same world.
#[derive(Clone)]
pub(crate) struct World(Arc<Shared>);

struct Shared {
    directory: PathBuf,
    service: Mutex<SocketAddr>,
    /// It has been told to stop, so clients may fail.
    stopping: AtomicBool,
    /// The key that signs. A client holds it until its token has been presented.
    signing: RwLock<usize>,
    minters: [Minter; 2],
    public_keys: [String; 2],
    counter: AtomicU64,
    ledger: Ledger,
    failures: Mutex<Vec<String>>,
}

/// The right to sign, which keeps the key from being taken out of use.
pub(crate) struct Signing<'a> {
    world: &'a World,
    key: RwLockReadGuard<'a, usize>,
}

impl Signing<'_> {
    /// A token of this user that is good once.
    pub(crate) fn token(&self, user: &str) -> Token {
        self.world.token_by(*self.key, user)
    }
}

impl World {
    pub(crate) fn new() -> World {
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{}", process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let names = ["ed25519", "ed25519-other"];
        let minter =
            |name| Minter::from_pem(Algorithm::EdDSA, corpus(name, "key").as_bytes()).expect("one");
        let world = World(Arc::new(Shared {
            directory,
            service: Mutex::new(([0, 0, 0, 0], 0).into()),
            stopping: AtomicBool::new(false),
            signing: RwLock::new(0),
            minters: names.map(minter),
            public_keys: names.map(|name| corpus(name, "pub")),
            counter: AtomicU64::new(0),
            ledger: Ledger::default(),
            failures: Mutex::default(),
        }));
        world.keys_are(&[0]);
        put(&world.revocations(), &json!({ "users": [] }).to_string());
        world
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.0.directory.join("keys.pem")
    }

    pub(crate) fn revocations(&self) -> PathBuf {
        self.0.directory.join("revoked.json")
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    pub(crate) fn service(&self) -> SocketAddr {
        *self.0.service.lock().expect("no panic")
    }

    pub(crate) fn service_is_at(&self, address: SocketAddr) {
        *self.0.service.lock().expect("no panic") = address;
        self.0.stopping.store(false, Ordering::SeqCst);
    }

    /// The service is about to be told to stop.
    pub(crate) fn stops(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    /// A number that nobody else has.
    pub(crate) fn unique(&self) -> u64 {
        self.0.counter.fetch_add(1, Ordering::SeqCst)
    }

    /// Chance for somebody new.
    pub(crate) fn random(&self) -> Random {
        Random::seeded(0x50a4_0000_0000_0000 ^ self.unique())
    }

    pub(crate) async fn signing(&self) -> Signing<'_> {
        Signing { world: self, key: self.0.signing.read().await }
    }

    fn token_by(&self, key: usize, user: &str) -> Token {
        let now = UnixTime::now().as_secs();
        let claims = json!({
            "sub": user,
            "iat": now,
            "exp": now + TOKEN_LIFE,
            "jti": self.unique().to_string(),
        });
        self.0.minters[key].mint(&claims).expect("an object")
    }

    /// What an honest client did not expect. When the service stops, nothing is expected.
    pub(crate) fn failed(&self, what: &Kind, error: impl std::fmt::Debug) {
        if !self.is_stopping() {
            self.0.failures.lock().expect("no panic").push(format!("{}: {error:?}", what.name));
        }
    }

    pub(crate) fn no_failures(&self) {
        let failures = self.0.failures.lock().expect("no panic");
        assert!(failures.is_empty(), "{failures:#?}");
    }

    /// Some users who are connected are revoked, and the key is exchanged: both are good for a
    /// while, and no client notices.
    pub(crate) async fn revoke_and_rotate(&self) {
        let user = format!("resident {}", self.unique());
        let mut residents = vec![];
        for _ in 0..3 {
            residents.extend(clients::enter(self, &clients::RESIDENT, &user).await);
        }
        assert_eq!(residents.len(), 3, "residents are let in");
        let old = *self.0.signing.read().await;
        let new = 1 - old;
        put(&self.revocations(), &json!({ "users": [user] }).to_string());
        self.keys_are(&[old, new]);
        for resident in residents {
            let end = guarded("a revoked resident", resident.closed()).await;
            assert_eq!(end.cause, Cause::Peer(Some(Close::EXPIRED)));
        }
        assert!(!clients::is_let_in(self, self.signing().await.token(&user)).await);
        let accepts = async |key| clients::is_let_in(self, self.token_by(key, "u")).await;
        eventually("the new key", async || accepts(new).await).await;
        // Once nobody is about to present a token of the old one.
        *self.0.signing.write().await = new;
        self.keys_are(&[new]);
        eventually("the end of the old key", async || !accepts(old).await).await;
    }

    fn keys_are(&self, keys: &[usize]) {
        let keys: String = keys.iter().map(|&key| self.0.public_keys[key].as_str()).collect();
        put(&self.keys(), &keys);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Replaces a file as one that is read by others should be: by a rename.
fn put(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).expect("it can be written");
    fs::rename(&new, path).expect("it can be renamed");
}

/// A key of the corpus.
fn corpus(name: &str, half: &str) -> String {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/keys");
    fs::read_to_string(keys.join(format!("{name}.{half}.pem"))).expect("the corpus has it")
}
