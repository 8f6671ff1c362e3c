//! Tokens and users that are revoked while they are authenticated.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use electric_satellite::auth::{RevocationList, Revocations};
use serde_json::json;

use crate::support::{at, authenticate, issuer, secure, verify};

#[tokio::test]
async fn a_revoked_token_a_revoked_user_and_what_was_issued_before() {
    let list = RevocationList::default();
    let authenticator = secure(issuer(1).key).with_revocations(list.clone());
    let token = |user: &str, jti: &str, iat: i64| {
        issuer(1).token_with(user, json!({ "jti": jti, "iat": at(iat).as_secs() }))
    };
    let revoked = Err("Token is revoked".to_owned());
    let verdict = async |user: &str, jti: &str, iat: i64| {
        authenticate(&authenticator, &token(user, jti, iat), 0).await
    };
    assert_eq!(verdict("u", "1", 0).await, Ok("u".into()));
    list.revoke_token("1");
    assert_eq!(verdict("u", "1", 0).await, revoked);
    assert_eq!(verdict("u", "2", 0).await, Ok("u".into()));
    list.revoke_user_before("u", at(-5));
    assert_eq!(verdict("u", "2", -6).await, revoked);
    assert_eq!(verdict("u", "2", -5).await, Ok("u".into()));
    list.revoke_user("u");
    assert_eq!(verdict("u", "2", 0).await, revoked);
    assert_eq!(verdict("v", "2", -10).await, Ok("v".into()));
    list.revoke_issued_before(at(-9));
    assert_eq!(verdict("v", "2", -10).await, revoked);
    assert_eq!(verdict("v", "2", -9).await, Ok("v".into()));
}

#[test]
fn a_forged_token_does_not_learn_that_its_user_is_revoked() {
    let list = RevocationList::default();
    list.revoke_user("u");
    let authenticator = secure(issuer(1).key).with_revocations(list);
    let forged = issuer(2).token("u");
    assert_eq!(verify(&authenticator, &forged), Err("Invalid token signature".into()));
}

/// Explored: verifications that run while a user is revoked. One that begins after the call has
/// returned must refuse; and whoever is told of the change must find it in force.
#[test]
fn no_verification_that_begins_after_the_revocation_accepts() {
    const THREADS: usize = 3;
    for round in 0..50 {
        for cached in [false, true] {
            let list = RevocationList::default();
            let authenticator = secure(issuer(1).key).with_revocations(list.clone());
            let authenticator = if cached { authenticator.with_cache(4) } else { authenticator };
            let token = issuer(1).token("u");
            let (is_revoked, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        let changes = list.changes();
                        let mut verdicts_after = 0;
                        begun.fetch_add(1, SeqCst);
                        while verdicts_after < 20 {
                            let after = is_revoked.load(SeqCst) || changes.has_changed().unwrap();
                            let accepted = verify(&authenticator, &token).is_ok();
                            assert!(!(after && accepted), "accepted though revoked");
                            verdicts_after += usize::from(after);
                        }
                    });
                }
                while begun.load(SeqCst) < THREADS {
                    std::hint::spin_loop();
                }
                for _ in 0..round * 200 {
                    std::hint::spin_loop();
                }
                list.revoke_user("u");
                is_revoked.store(true, SeqCst);
            });
        }
    }
}
