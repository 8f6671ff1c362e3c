//! Tokens that are remembered.
//!
//! Whether a verdict comes from the cache can be seen: an identity holds its claims in one shared
//! buffer, so two verdicts with the same buffer, both of them alive, come from one verification.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use electric_satellite::{
    auth::{
        Algorithm, Authenticator, ClaimRules, InProcessReplayGuard, JwtAuthenticator, Key, KeyRing,
        KeySet, RevocationList, Revoked,
    },
    session::{Token, Verified},
};
use futures_util::FutureExt;
use serde_json::json;

use crate::support::{
    at, corpus_minter, corpus_token, issuer, named_issuer, pem, request, secure, verify, verify_at,
};

fn verified(authenticator: &JwtAuthenticator, token: &Token) -> Verified {
    authenticator.verify(token, at(0)).expect("a good token")
}

/// Whether two verdicts come from one verification.
fn same(a: &Verified, b: &Verified) -> bool {
    let claims = |verified: &Verified| verified.identity().claims.as_ptr();
    claims(a) == claims(b)
}

/// Whether the next verdict on a token comes from where this one came from.
fn remembers(authenticator: &JwtAuthenticator, token: &Token, earlier: &Verified) -> bool {
    let again = verified(authenticator, token);
    assert_eq!(&again, earlier);
    same(&again, earlier)
}

#[test]
fn a_token_is_verified_once_and_then_remembered() {
    let token = issuer(1).token("u");
    let without = secure(issuer(1).key);
    let first = verified(&without, &token);
    assert!(!remembers(&without, &token, &first), "this is how it looks without a cache");
    let with = secure(issuer(1).key).with_cache(1);
    let first = verified(&with, &token);
    for _ in 0..3 {
        assert!(remembers(&with, &token, &first));
    }
}

#[test]
fn times_are_judged_at_every_use() {
    let authenticator = secure(issuer(1).key).with_cache(10);
    let token = issuer(1).token_with("u", json!({ "nbf": at(10).as_secs() }));
    let verdict = |secs| verify_at(&authenticator, &token, secs).map_err(|error| error.to_owned());
    assert_eq!(verdict(20), Ok("u".into()));
    // It is remembered, and neither early nor late is it accepted.
    for (secs, expected) in [
        (62, Ok("u".to_owned())),
        (63, Err("Expired token".to_owned())),
        (7, Err("Token is not yet valid".into())),
        (8, Ok("u".into())),
        (-3, Err("Token is not yet valid".into())),
    ] {
        assert_eq!(verdict(secs), expected, "after {secs} s");
    }
    let future = issuer(1).token("u");
    assert_eq!(verify_at(&authenticator, &future, 0), Ok("u".into()));
    assert_eq!(
        verify_at(&authenticator, &future, -3),
        Err(r#"Invalid "iat" claim value"#.into()),
        "issued in the future"
    );
}

#[test]
fn age_is_judged_at_every_use() {
    let rules = ClaimRules { max_age: Some(30), ..ClaimRules::default() };
    let authenticator = JwtAuthenticator::secure(issuer(1).key, rules).with_cache(10);
    let token = issuer(1).token("u");
    for _ in 0..2 {
        assert_eq!(verify_at(&authenticator, &token, 32), Ok("u".into()));
        let old = verify_at(&authenticator, &token, 33);
        assert_eq!(old, Err("Token is older than allowed".into()));
    }
}

#[test]
fn what_is_refused_is_not_remembered() {
    let authenticator = secure(issuer(1).key).with_cache(10);
    let token = issuer(1).token_with("u", json!({ "nbf": at(10).as_secs() }));
    assert!(verify(&authenticator, &token).is_err());
    let first = authenticator.verify(&token, at(10)).unwrap();
    let second = authenticator.verify(&token, at(10)).unwrap();
    assert!(same(&first, &second));
}

#[test]
fn an_exchange_of_keys_makes_every_token_be_verified_again() {
    let (old, new) = (named_issuer(1, "old"), named_issuer(2, "new"));
    let ring = KeyRing::new(KeySet::new([old.key.clone(), new.key.clone()]));
    let authenticator = secure(ring.clone()).with_cache(10);
    let (by_old, by_new) = (old.token("old"), new.token("new"));
    let before = [verified(&authenticator, &by_old), verified(&authenticator, &by_new)];
    assert!(remembers(&authenticator, &by_old, &before[0]));
    // Of another source, which changes nothing for these tokens.
    ring.replace("other", named_issuer(3, "third").key);
    assert!(!remembers(&authenticator, &by_old, &before[0]));
    assert!(!remembers(&authenticator, &by_new, &before[1]));
    let before = verified(&authenticator, &by_new);
    assert!(remembers(&authenticator, &by_new, &before), "it is remembered anew");
    ring.replace("static", new.key.clone());
    assert_eq!(verify(&authenticator, &by_old), Err("Unknown signing key".into()));
    assert!(!remembers(&authenticator, &by_new, &before));
    // A key that is back makes its tokens good again, by a new verification.
    ring.replace("static", KeySet::new([old.key, new.key]));
    assert_eq!(verify(&authenticator, &by_old), Ok("old".into()));
}

#[test]
fn revocation_comes_before_what_is_remembered() {
    let list = RevocationList::default();
    let authenticator = secure(issuer(1).key).with_revocations(list.clone()).with_cache(10);
    let token = issuer(1).token_with("u", json!({ "jti": "t" }));
    let first = verified(&authenticator, &token);
    assert!(remembers(&authenticator, &token, &first));
    let revocations: [&dyn Fn(); 4] = [
        &|| list.revoke_token("t"),
        &|| list.revoke_user("u"),
        &|| list.revoke_user_before("u", at(1)),
        &|| list.revoke_issued_before(at(1)),
    ];
    for revoke in revocations {
        revoke();
        assert_eq!(verify(&authenticator, &token), Err("Token is revoked".into()));
        list.replace(Revoked::default());
        assert!(remembers(&authenticator, &token, &first));
    }
    // A token that is revoked when it comes first is no better for being remembered.
    list.revoke_user("v");
    for _ in 0..2 {
        assert!(verify(&authenticator, &issuer(1).token("v")).is_err());
    }
}

#[test]
fn only_so_many_are_remembered_and_the_oldest_make_room() {
    let authenticator = secure(issuer(1).key).with_cache(2);
    let tokens = ["a", "b", "c"].map(|user| issuer(1).token(user));
    let verdicts = tokens.each_ref().map(|token| verified(&authenticator, token));
    assert!(remembers(&authenticator, &tokens[1], &verdicts[1]));
    assert!(remembers(&authenticator, &tokens[2], &verdicts[2]));
    assert!(!remembers(&authenticator, &tokens[0], &verdicts[0]));
    // Which has put it in and the next out.
    assert!(!remembers(&authenticator, &tokens[1], &verdicts[1]));
}

#[test]
fn a_cache_that_remembers_nothing_accepts_all_the_same() {
    let authenticator = secure(issuer(1).key).with_cache(0);
    let token = issuer(1).token("u");
    let first = verified(&authenticator, &token);
    assert!(!remembers(&authenticator, &token, &first));
}

#[test]
fn a_token_that_differs_in_one_character_is_another_token() {
    let authenticator = secure(issuer(1).key).with_cache(1000);
    let token = issuer(1).token("u");
    let first = verified(&authenticator, &token);
    let text = token.expose();
    for index in 0..text.len() {
        let mut altered = text.as_bytes().to_vec();
        altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
        let altered = Token::new(String::from_utf8(altered).unwrap()).unwrap();
        assert!(verify(&authenticator, &altered).is_err(), "character {index}");
    }
    for altered in [format!("{text}="), format!("{text} "), format!(" {text}"), format!("{text}.")]
    {
        assert!(verify(&authenticator, &Token::new(altered).unwrap()).is_err());
    }
    assert!(remembers(&authenticator, &token, &first));
    // The same claims, signed by somebody else.
    let forged = issuer(2).token("u");
    assert!(verify(&authenticator, &forged).is_err());
}

#[test]
fn with_a_replay_guard_there_is_no_cache_whichever_came_first() {
    let guard = || InProcessReplayGuard::new(10);
    let token = issuer(1).one_off("a");
    for authenticator in [
        secure(issuer(1).key).with_cache(10).with_replay_guard(guard()),
        secure(issuer(1).key).with_replay_guard(guard()).with_cache(10),
    ] {
        let first = verified(&authenticator, &token);
        assert!(!remembers(&authenticator, &token, &first));
        assert!(format!("{authenticator:?}").contains("cache: false"), "{authenticator:?}");
    }
}

/// Explored: tokens of many users on several threads, in a cache that has room for few of them,
/// while the keys are exchanged for equal ones. Every verdict is for the token's own user.
#[test]
fn users_are_never_mixed_up() {
    const USERS: usize = 16;
    let ring = KeyRing::new(issuer(1).key);
    let authenticator = secure(ring.clone()).with_cache(USERS / 2);
    let users: Vec<String> = (0..USERS).map(|user| format!("user {user}")).collect();
    let tokens: Vec<Token> = users.iter().map(|user| issuer(1).token(user)).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let (authenticator, tokens, users) = (&authenticator, &tokens, &users);
                scope.spawn(move || {
                    for round in 0..5000 {
                        let user = (round * (2 * thread + 1) + round / 7) % USERS;
                        let verdict = verify(authenticator, &tokens[user]);
                        assert_eq!(verdict.as_ref(), Ok(&users[user]));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(SeqCst) {
                ring.replace("static", issuer(1).key);
                thread::yield_now();
            }
        });
        let finished: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        done.store(true, SeqCst);
        assert!(finished.iter().all(Result::is_ok));
    });
}

#[tokio::test]
async fn a_verification_that_takes_long_does_not_hold_up_its_thread_and_is_remembered_too() {
    // Whether the first look brings the verdict. If not, it is waited for.
    async fn at_once(authenticator: &JwtAuthenticator, token: &Token) -> (bool, Verified) {
        let request = request(token);
        let mut verdict = pin!(authenticator.authenticate(&request, at(0)));
        let first = verdict.as_mut().now_or_never();
        let waited = first.is_none();
        let verdict = match first {
            Some(verdict) => verdict,
            None => verdict.await,
        };
        (!waited, verdict.expect("a good token"))
    }
    for (algorithm, name, is_short) in
        [(Algorithm::ES256, "p256", true), (Algorithm::ES384, "p384", false)]
    {
        let key = Key::from_pem(algorithm, pem(&format!("{name}.pub.pem")).as_bytes()).unwrap();
        let token = corpus_token(&corpus_minter(algorithm, name), "u");
        let authenticator = secure(key).with_cache(10);
        let (first, verdict) = at_once(&authenticator, &token).await;
        assert_eq!(first, is_short, "{algorithm}");
        let (again, same_verdict) = at_once(&authenticator, &token).await;
        assert!(again && same(&verdict, &same_verdict), "{algorithm}");
        let forged = Token::new(format!("{}AAAA", token.expose())).unwrap();
        let verdict = authenticator.authenticate(&request(&forged), at(0)).await;
        assert_eq!(verdict.unwrap_err().to_string(), "Invalid token signature", "{algorithm}");
    }
}
