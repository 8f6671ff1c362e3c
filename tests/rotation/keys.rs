//! Which keys a token is tried against, while they are exchanged.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use electric_satellite::auth::{Algorithm, JwtAuthenticator, Key, KeyRing, KeySet};
use serde_json::json;
use tokio::task::{JoinSet, yield_now};

use crate::support::{Issuer, authenticate, issuer, named_issuer, secure, verify};

const UNKNOWN: &str = "Unknown signing key";
const NOT_BY_ITS_KEY: &str = "Invalid token signature";

fn ok(user: &str) -> Result<String, String> {
    Ok(user.into())
}

fn refused(reason: &str) -> Result<String, String> {
    Err(reason.into())
}

#[test]
fn during_a_rotation_both_keys_are_good_and_afterwards_the_old_one_is_not() {
    for (old, new, removed) in [
        (issuer(1), issuer(2), NOT_BY_ITS_KEY),
        (named_issuer(1, "old"), named_issuer(2, "new"), UNKNOWN),
    ] {
        let ring = KeyRing::new(old.key.clone());
        let authenticator = secure(ring.clone());
        let (by_old, by_new) = (old.token("old"), new.token("new"));
        let verdicts = || (verify(&authenticator, &by_old), verify(&authenticator, &by_new));

        assert_eq!(verdicts(), (ok("old"), refused(removed)));
        ring.replace("static", KeySet::new([old.key.clone(), new.key.clone()]));
        assert_eq!(verdicts(), (ok("old"), ok("new")));
        ring.replace("static", new.key.clone());
        assert_eq!(verdicts(), (refused(removed), ok("new")));
        // A rotation that is taken back is one more rotation.
        ring.replace("static", old.key.clone());
        assert_eq!(verdicts(), (ok("old"), refused(removed)));
    }
}

#[test]
fn a_kid_chooses_its_key_and_no_other() {
    let (a, b) = (named_issuer(1, "a"), named_issuer(2, "b"));
    let authenticator = secure(KeySet::new([a.key.clone(), b.key.clone()]));
    assert_eq!(verify(&authenticator, &a.token("u")), ok("u"));
    assert_eq!(verify(&authenticator, &b.token("u")), ok("u"));
    // The key is here, but it is not the one that the token names.
    let liar = Issuer { key: a.key.clone(), minter: issuer(1).minter.with_kid("b") };
    assert_eq!(verify(&authenticator, &liar.token("u")), refused(NOT_BY_ITS_KEY));
    for kid in ["c", "A", "", "a ", "../../dev/null", "a' OR '1'='1"] {
        let stranger = Issuer { key: a.key.clone(), minter: issuer(1).minter.with_kid(kid) };
        assert_eq!(verify(&authenticator, &stranger.token("u")), refused(UNKNOWN), "{kid:?}");
    }
}

#[test]
fn a_token_that_names_no_key_is_tried_against_all_that_fit() {
    let (a, b, other) = (named_issuer(1, "a"), named_issuer(2, "b"), issuer(3));
    let authenticator = secure(KeySet::new([a.key, b.key]));
    for byte in [1, 2] {
        assert_eq!(verify(&authenticator, &issuer(byte).token("u")), ok("u"));
    }
    assert_eq!(verify(&authenticator, &other.token("u")), refused(NOT_BY_ITS_KEY));
}

#[test]
fn a_token_that_names_a_key_is_also_tried_against_keys_without_a_name() {
    let (named, nameless) = (named_issuer(1, "a"), issuer(2));
    let authenticator = secure(KeySet::new([named.key, nameless.key]));
    assert_eq!(verify(&authenticator, &named_issuer(2, "whatever").token("u")), ok("u"));
    assert_eq!(
        verify(&authenticator, &named_issuer(3, "whatever").token("u")),
        refused(NOT_BY_ITS_KEY)
    );
}

#[test]
fn a_key_of_another_algorithm_is_never_tried() {
    // The same bytes and the same name, for the longer hash.
    let secret = [1; 64];
    let key = Key::from_secret(Algorithm::HS512, &secret).unwrap().with_kid("a");
    let authenticator = secure(key);
    let verdict = verify(&authenticator, &named_issuer(1, "a").token("u"));
    assert_eq!(verdict, refused("Signing algorithm mismatch"));
}

#[test]
fn eight_keys_are_tried_and_a_name_reaches_the_others() {
    let issuers: Vec<Issuer> = (1..=20).map(|byte| named_issuer(byte, &byte.to_string())).collect();
    let authenticator = secure(KeySet::new(issuers.iter().map(|issuer| issuer.key.clone())));
    for (index, named) in issuers.iter().enumerate() {
        assert_eq!(verify(&authenticator, &named.token("u")), ok("u"));
        let nameless = issuer(u8::try_from(index).unwrap() + 1).token("u");
        let expected = if index < 8 { ok("u") } else { refused(NOT_BY_ITS_KEY) };
        assert_eq!(verify(&authenticator, &nameless), expected, "key {index}");
    }
}

#[test]
fn without_any_key_nothing_is_accepted() {
    let ring = KeyRing::default();
    let authenticator = secure(ring.clone());
    let issuer = issuer(1);
    assert!(verify(&authenticator, &issuer.token("u")).is_err());
    ring.replace("static", issuer.key.clone());
    assert_eq!(verify(&authenticator, &issuer.token("u")), ok("u"));
    ring.replace("static", KeySet::default());
    assert!(verify(&authenticator, &issuer.token("u")).is_err());
}

#[test]
fn a_source_exchanges_its_own_keys_though_others_have_the_same_names() {
    let (file, url) = (named_issuer(1, "k"), named_issuer(2, "k"));
    let ring = KeyRing::default();
    ring.replace("file", file.key.clone());
    ring.replace("url", url.key.clone());
    let authenticator = secure(ring.clone());
    let verdicts =
        || [&file, &url].map(|issuer| verify(&authenticator, &issuer.token("u")).is_ok());
    assert_eq!(verdicts(), [true, true]);
    ring.replace("url", KeySet::default());
    assert_eq!(verdicts(), [true, false]);
    ring.replace("file", url.key.clone());
    assert_eq!(verdicts(), [false, true]);
}

/// An authenticator with an old key, whose ring is to learn of a new one.
struct Waiting {
    ring: KeyRing,
    authenticator: Arc<JwtAuthenticator>,
    new: Issuer,
}

fn waiting() -> Waiting {
    let ring = KeyRing::new(named_issuer(1, "old").key);
    let authenticator = Arc::new(secure(ring.clone()));
    Waiting { ring, authenticator, new: named_issuer(2, "new") }
}

#[tokio::test]
async fn a_token_with_an_unknown_key_waits_until_its_source_has_looked() {
    let Waiting { ring, authenticator, new } = waiting();
    let mut lookups = ring.lookups();
    let token = new.token("u");
    let verdict = tokio::spawn(async move { authenticate(&authenticator, &token, 0).await });
    let lookup = lookups.recv().await.expect("the source is asked");
    ring.replace("source", new.key.clone());
    for _ in 0..100 {
        yield_now().await;
    }
    assert!(!verdict.is_finished(), "the source is not done");
    drop(lookup);
    assert_eq!(verdict.await.unwrap(), ok("u"));
    assert!(lookups.try_recv().is_err(), "the source is asked once");
}

#[tokio::test]
async fn a_source_that_declines_refuses_the_token() {
    let Waiting { ring, authenticator, new } = waiting();
    let mut lookups = ring.lookups();
    let declining = tokio::spawn(async move {
        let mut asked = 0;
        while let Some(lookup) = lookups.recv().await {
            drop(lookup);
            asked += 1;
        }
        asked
    });
    for _ in 0..3 {
        assert_eq!(authenticate(&*authenticator, &new.token("u"), 0).await, refused(UNKNOWN));
    }
    // The source ends with the ring.
    drop((ring, authenticator));
    assert_eq!(declining.await.unwrap(), 3);
}

#[tokio::test]
async fn a_source_that_finds_other_keys_is_asked_once_and_the_token_is_refused() {
    let Waiting { ring, authenticator, new } = waiting();
    let mut lookups = ring.lookups();
    let source = async {
        let lookup = lookups.recv().await.expect("the source is asked");
        ring.replace("source", named_issuer(3, "newer").key);
        drop(lookup);
    };
    let token = new.token("u");
    let (verdict, ()) = tokio::join!(authenticate(&*authenticator, &token, 0), source);
    assert_eq!(verdict, refused(UNKNOWN));
    assert!(lookups.try_recv().is_err());
}

#[tokio::test]
async fn without_a_source_to_ask_a_token_with_an_unknown_key_is_refused_at_once() {
    let Waiting { ring, authenticator, new } = waiting();
    assert_eq!(authenticate(&*authenticator, &new.token("u"), 0).await, refused(UNKNOWN));
    drop(ring.lookups());
    assert_eq!(authenticate(&*authenticator, &new.token("u"), 0).await, refused(UNKNOWN));
}

#[tokio::test]
async fn the_last_source_to_ask_for_lookups_gets_them() {
    let Waiting { ring, authenticator, new } = waiting();
    let mut first = ring.lookups();
    let mut second = ring.lookups();
    assert!(first.recv().await.is_none(), "nothing comes here any more");
    let source = async {
        let _lookup = second.recv().await.expect("the source is asked");
        ring.replace("source", new.key.clone());
    };
    let token = new.token("u");
    let (verdict, ()) = tokio::join!(authenticate(&*authenticator, &token, 0), source);
    assert_eq!(verdict, ok("u"));
}

#[tokio::test]
async fn only_an_unknown_key_makes_a_source_look() {
    let Waiting { ring, authenticator, new } = waiting();
    let mut lookups = ring.lookups();
    let old = named_issuer(1, "old");
    let forged = Issuer { key: new.key, minter: issuer(3).minter.with_kid("old") };
    for (token, accepted) in [
        (old.token("u"), true),
        (forged.token("u"), false),
        (issuer(3).token("u"), false),
        (old.token_with("u", json!({ "exp": 0 })), false),
    ] {
        let verdict = authenticate(&*authenticator, &token, 0).await;
        assert_eq!(verdict.is_ok(), accepted, "{verdict:?}");
    }
    assert!(lookups.try_recv().is_err());
}

#[tokio::test]
async fn many_tokens_wait_for_one_source_and_one_that_gives_up_holds_up_nobody() {
    let Waiting { ring, authenticator, new } = waiting();
    let mut lookups = ring.lookups();
    let mut verdicts = JoinSet::new();
    let mut present = || {
        let (authenticator, token) = (Arc::clone(&authenticator), new.token("u"));
        verdicts.spawn(async move { authenticate(&authenticator, &token, 0).await })
    };
    let gives_up = present();
    let first = lookups.recv().await.expect("the source is asked");
    for _ in 0..20 {
        present();
    }
    gives_up.abort();
    yield_now().await;
    ring.replace("source", new.key.clone());
    drop(first);
    let mut accepted = 0;
    let source = async {
        while let Some(lookup) = lookups.recv().await {
            drop(lookup);
        }
    };
    let gather = async {
        while let Some(verdict) = verdicts.join_next().await {
            match verdict {
                Ok(verdict) => {
                    assert_eq!(verdict, ok("u"));
                    accepted += 1;
                }
                Err(error) => assert!(error.is_cancelled()),
            }
        }
    };
    tokio::select! {
        () = source => panic!("the ring is in use"),
        () = gather => {}
    }
    assert_eq!(accepted, 20);
}

/// Explored: an exchange that ends between the verdict "unknown key" and the question to the
/// source, which has nothing newer and declines. When the key has come before the source lets go
/// of the question, the token must be accepted: it is tried once more.
#[test]
fn a_key_that_comes_just_before_its_source_is_asked_is_not_missed() {
    const ROUNDS: usize = 20_000;
    let (old, new) = (named_issuer(1, "old").key, named_issuer(2, "new"));
    let token = new.token("u");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let rings: Vec<KeyRing> = (0..ROUNDS).map(|_| KeyRing::new(old.clone())).collect();
    let exchanged: Vec<AtomicBool> = (0..ROUNDS).map(|_| AtomicBool::new(false)).collect();
    let begin = Barrier::new(2);
    let mut missed = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for (round, ring) in rings.iter().enumerate() {
                begin.wait();
                // Later and later, to meet the other thread everywhere on its way.
                for _ in 0..round % 500 {
                    std::hint::spin_loop();
                }
                ring.replace("source", new.key.clone());
                exchanged[round].store(true, SeqCst);
            }
        });
        for (ring, exchanged) in rings.iter().zip(&exchanged) {
            let authenticator = secure(ring.clone());
            let mut lookups = ring.lookups();
            let mut key_was_there = false;
            begin.wait();
            let verdict = runtime.block_on(async {
                let source = async {
                    while let Some(lookup) = lookups.recv().await {
                        key_was_there = exchanged.load(SeqCst);
                        drop(lookup);
                    }
                };
                tokio::select! {
                    verdict = authenticate(&authenticator, &token, 0) => verdict,
                    () = source => Err("the ring is gone".into()),
                }
            });
            missed += usize::from(verdict.is_err() && key_was_there);
        }
    });
    assert_eq!(missed, 0, "of {ROUNDS} tokens whose key was there");
}

/// Explored: verifications that run while the key is removed. Before the exchange has returned, a
/// token of the removed key may get either verdict; a verification that begins after it must
/// refuse. Tokens of the key that stays are accepted throughout.
#[test]
fn no_verification_that_begins_after_the_exchange_uses_the_removed_key() {
    for (old, new, removed) in [
        (issuer(1), issuer(2), NOT_BY_ITS_KEY),
        (named_issuer(1, "old"), named_issuer(2, "new"), UNKNOWN),
    ] {
        for cached in [false, true] {
            for round in 0..50 {
                let ring = KeyRing::new(KeySet::new([old.key.clone(), new.key.clone()]));
                let authenticator = secure(ring.clone());
                let authenticator =
                    if cached { authenticator.with_cache(4) } else { authenticator };
                remove_while_verifying(&ring, &authenticator, [&old, &new], removed, round);
            }
        }
    }
}

fn remove_while_verifying(
    ring: &KeyRing,
    authenticator: &JwtAuthenticator,
    [old, new]: [&Issuer; 2],
    removed: &str,
    round: usize,
) {
    const THREADS: usize = 3;
    let (by_old, by_new) = (old.token("old"), new.token("new"));
    let is_removed = AtomicBool::new(false);
    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut verdicts_after = 0;
                begun.fetch_add(1, SeqCst);
                while verdicts_after < 20 {
                    // Looked at before the verification begins.
                    let after = is_removed.load(SeqCst);
                    match verify(authenticator, &by_old) {
                        Ok(user) => {
                            assert_eq!(user, "old");
                            assert!(!after, "accepted by a key that was removed");
                        }
                        Err(reason) => assert_eq!(reason, removed),
                    }
                    assert_eq!(verify(authenticator, &by_new), ok("new"));
                    verdicts_after += usize::from(after);
                }
            });
        }
        while begun.load(SeqCst) < THREADS {
            std::hint::spin_loop();
        }
        // At another moment in every round.
        for _ in 0..round * 200 {
            std::hint::spin_loop();
        }
        ring.replace("static", new.key.clone());
        is_removed.store(true, SeqCst);
    });
}

/// Explored: two sources that exchange their keys at the same time. At every moment the ring has
/// one key of each, and no exchange is lost.
#[test]
fn sources_that_exchange_at_the_same_time_do_not_undo_each_other() {
    const ROUNDS: usize = 2000;
    let ring = KeyRing::default();
    let kid = |source: &str, round: usize| format!("{source}{round}");
    let key = |source: &str, round: usize| issuer(1).key.with_kid(&kid(source, round));
    let sources = ["a", "b"];
    for source in sources {
        ring.replace(source, key(source, 0));
    }
    thread::scope(|scope| {
        let exchanging = sources.map(|source| {
            let ring = &ring;
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    ring.replace(source, key(source, round));
                    let now = ring.keys();
                    let own = now.keys().iter().filter_map(Key::kid);
                    let own: Vec<&str> = own.filter(|kid| kid.starts_with(source)).collect();
                    assert_eq!(own, [kid(source, round)]);
                }
            })
        });
        while !exchanging.iter().all(|thread| thread.is_finished()) {
            let now = ring.keys();
            let mut begins: Vec<&str> =
                now.keys().iter().filter_map(Key::kid).map(|kid| &kid[..1]).collect();
            begins.sort_unstable();
            assert_eq!(begins, sources);
        }
    });
    let now = ring.keys();
    let last: Vec<&str> = now.keys().iter().filter_map(Key::kid).collect();
    assert_eq!(last, sources.map(|source| kid(source, ROUNDS)));
}
