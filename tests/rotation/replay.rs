//! Tokens that work once.

use std::{
    future::ready,
    sync::{Arc, mpsc},
    time::Duration,
};

use electric_satellite::{
    auth::{
        AuthError, Authenticator, ClaimRules, InProcessReplayGuard, JwtAuthenticator, ReplayAnswer,
        ReplayError, ReplayGuard, RevocationList, TokenUse,
    },
    session::{Token, UnixTime},
};
use serde_json::json;
use tokio::sync::{Barrier, Notify};

use crate::support::{at, authenticate, issuer, request, secure, verify};

const USED: &str = "Token was used before";

/// A guard that is looked at while it is used.
#[derive(Clone)]
struct Watched(Arc<InProcessReplayGuard>);

impl ReplayGuard for Watched {
    fn use_once<'a>(&'a self, token: TokenUse<'a>) -> ReplayAnswer<'a> {
        self.0.use_once(token)
    }
}

/// An authenticator that accepts each token once and remembers so many.
fn once(capacity: usize) -> (JwtAuthenticator, Watched) {
    let guard = Watched(Arc::new(InProcessReplayGuard::new(capacity)));
    (secure(issuer(1).key).with_replay_guard(guard.clone()), guard)
}

/// Whether a token is accepted, so many seconds after the tests begin.
async fn present(authenticator: &JwtAuthenticator, token: &Token, secs: i64) -> Result<(), String> {
    authenticate(authenticator, token, secs).await.map(drop)
}

fn used() -> Result<(), String> {
    Err(USED.into())
}

#[tokio::test]
async fn a_token_works_once() {
    let (authenticator, _) = once(10);
    let token = issuer(1).one_off("a");
    assert_eq!(present(&authenticator, &token, 0).await, Ok(()));
    for secs in [0, 1, 59, 62] {
        assert_eq!(present(&authenticator, &token, secs).await, used(), "after {secs} s");
    }
    // Another token for the same user is another token; the same id in another token is not.
    assert_eq!(present(&authenticator, &issuer(1).one_off("b"), 0).await, Ok(()));
    let other_user = issuer(1).token_with("other", json!({ "jti": "a" }));
    assert_eq!(present(&authenticator, &other_user, 0).await, used());
}

#[tokio::test]
async fn ids_are_unique_per_issuer() {
    let rules = ClaimRules { issuers: vec!["i".into(), "j".into()], ..ClaimRules::default() };
    let guard = InProcessReplayGuard::new(10);
    let authenticator = JwtAuthenticator::secure(issuer(1).key, rules).with_replay_guard(guard);
    for expected in [Ok(()), used()] {
        for iss in ["i", "j"] {
            let token = issuer(1).token_with("u", json!({ "jti": "a", "iss": iss }));
            assert_eq!(present(&authenticator, &token, 0).await, expected, "{iss}");
        }
    }
}

#[tokio::test]
async fn a_token_needs_an_id_and_an_end() {
    // An authenticator that would not ask for times otherwise.
    let rules = ClaimRules { times_required: false, ..ClaimRules::default() };
    let guard = Watched(Arc::new(InProcessReplayGuard::new(10)));
    let authenticator =
        JwtAuthenticator::secure(issuer(1).key, rules).with_replay_guard(guard.clone());
    for (claims, reason) in [
        (json!({}), r#"Missing required "jti" claim"#),
        (json!({ "jti": "" }), r#"Invalid "jti" claim value"#),
        (json!({ "jti": 1 }), r#"Invalid "jti" claim value"#),
        (json!({ "jti": "a", "exp": null }), r#"Missing required "exp" claim"#),
        (json!({ "jti": "a", "exp": "1" }), r#"Invalid "exp" claim value"#),
    ] {
        let token = issuer(1).token_with("u", claims.clone());
        let verdict = present(&authenticator, &token, 0).await;
        assert_eq!(verdict, Err(reason.into()), "{claims}");
    }
    assert_eq!(guard.0.remembered(), 0);
    let token = issuer(1).token_with("u", json!({ "jti": "a", "iat": null }));
    assert_eq!(present(&authenticator, &token, 0).await, Ok(()));
}

#[tokio::test]
async fn a_token_that_is_refused_for_another_reason_is_not_used_up() {
    let revocations = RevocationList::default();
    let guard = Watched(Arc::new(InProcessReplayGuard::new(10)));
    let authenticator = secure(issuer(1).key)
        .with_replay_guard(guard.clone())
        .with_revocations(revocations.clone());
    let token = issuer(1).token_with("u", json!({ "jti": "a", "nbf": at(10).as_secs() }));
    // By another key, with the id of somebody else's token.
    let forged = issuer(2).token_with("u", json!({ "jti": "a" }));
    let nobodys = issuer(1).token_with(" ", json!({ "jti": "a" }));
    assert_eq!(present(&authenticator, &forged, 20).await, Err("Invalid token signature".into()));
    assert_eq!(
        present(&authenticator, &nobodys, 20).await,
        Err("Missing or invalid 'user_id'".into())
    );
    assert_eq!(present(&authenticator, &token, 0).await, Err("Token is not yet valid".into()));
    revocations.revoke_user("u");
    assert_eq!(present(&authenticator, &token, 20).await, Err("Token is revoked".into()));
    assert_eq!(guard.0.remembered(), 0);
    revocations.replace(Default::default());
    // Nor does a look at it use it up.
    assert_eq!(authenticator.verify(&token, at(20)).map(drop).map_err(|e| e.to_string()), Ok(()));
    assert_eq!(present(&authenticator, &token, 20).await, Ok(()));
    assert_eq!(present(&authenticator, &token, 20).await, used());
}

#[tokio::test]
async fn a_token_is_remembered_as_long_as_it_is_accepted_and_then_forgotten() {
    let (authenticator, guard) = once(1);
    let token = issuer(1).one_off("a");
    let later = issuer(1).token_with("u", json!({ "jti": "b", "exp": at(1000).as_secs() }));
    assert_eq!(present(&authenticator, &token, 0).await, Ok(()));
    // With the leeway, it is good until 62 s after the tests begin.
    assert_eq!(verify_at_is_ok(&authenticator, &token, 62), (true, false));
    assert_eq!(present(&authenticator, &token, 62).await, used());
    // There is no room for another as long as this one is remembered.
    assert!(present(&authenticator, &later, 62).await.is_err());
    assert_eq!(present(&authenticator, &token, 64).await, Err("Expired token".into()));
    assert_eq!(present(&authenticator, &later, 64).await, Ok(()));
    assert_eq!(guard.0.remembered(), 1);
}

/// Whether the token would be good at this time, and a second later.
fn verify_at_is_ok(authenticator: &JwtAuthenticator, token: &Token, secs: i64) -> (bool, bool) {
    let is_ok = |secs| authenticator.verify(token, at(secs)).is_ok();
    (is_ok(secs), is_ok(secs + 1))
}

/// A guard that notes until when a token must be remembered.
struct Noting(mpsc::Sender<UnixTime>);

impl ReplayGuard for Noting {
    fn use_once<'a>(&'a self, token: TokenUse<'a>) -> ReplayAnswer<'a> {
        self.0.send(token.until).unwrap();
        Box::pin(ready(Ok(())))
    }
}

/// A store with a clock of its own forgets at this time, and not after it.
#[tokio::test]
async fn when_a_token_may_be_forgotten_it_is_accepted_no_more() {
    for (fraction, leeway) in [(0.0, 2), (0.999, 2), (0.0, 0)] {
        let (sender, noted) = mpsc::channel();
        let rules = ClaimRules { leeway, ..ClaimRules::default() };
        let authenticator =
            JwtAuthenticator::secure(issuer(1).key, rules).with_replay_guard(Noting(sender));
        let exp = at(60).as_secs() as f64 + fraction;
        let token = issuer(1).token_with("u", json!({ "jti": "a", "exp": exp }));
        assert_eq!(present(&authenticator, &token, 0).await, Ok(()));
        let forgotten = noted.recv().unwrap().as_secs() - at(0).as_secs();
        assert_eq!(verify_at_is_ok(&authenticator, &token, forgotten - 1), (true, false));
    }
}

#[tokio::test]
async fn an_end_in_fractions_of_a_second_is_remembered_to_the_end() {
    let (authenticator, _) = once(10);
    let exp = at(60).as_secs() as f64 + 0.999;
    let token = issuer(1).token_with("u", json!({ "jti": "a", "exp": exp }));
    assert_eq!(present(&authenticator, &token, 0).await, Ok(()));
    for secs in 50..=62 {
        assert_eq!(present(&authenticator, &token, secs).await, used(), "after {secs} s");
    }
    assert_eq!(present(&authenticator, &token, 63).await, Err("Expired token".into()));
}

#[tokio::test]
async fn an_end_beyond_all_clocks_is_an_end() {
    let (authenticator, _) = once(10);
    for (jti, exp) in [("a", json!(i64::MAX)), ("b", json!(u64::MAX)), ("c", json!(1e308))] {
        let token = issuer(1).token_with("u", json!({ "jti": jti, "exp": exp }));
        assert_eq!(present(&authenticator, &token, 0).await, Ok(()), "{exp}");
        assert_eq!(present(&authenticator, &token, 1_000_000_000).await, used(), "{exp}");
    }
}

/// A clock that is set back makes tokens good again that were forgotten as expired.
#[tokio::test]
async fn a_clock_that_goes_backwards_does_not_make_a_used_token_work_again() {
    let (authenticator, _) = once(10);
    let token = issuer(1).one_off("a");
    let later = issuer(1).token_with("u", json!({ "jti": "b", "exp": at(1000).as_secs() }));
    assert_eq!(present(&authenticator, &token, 0).await, Ok(()));
    // A little backwards, when nothing has been forgotten.
    assert_eq!(present(&authenticator, &token, -1).await, used());
    // Far ahead and back again.
    assert_eq!(present(&authenticator, &later, 100).await, Ok(()));
    assert!(present(&authenticator, &token, 0).await.is_err(), "accepted twice");
}

/// The same without a clock that errs: a presentation is judged by the time at which it came, and
/// another, that came later, may be done before it.
#[tokio::test]
async fn a_presentation_that_was_overtaken_does_not_make_a_used_token_work_again() {
    let (_, guard) = once(10);
    let token = |token_id: &'static str, until: i64, now: i64| TokenUse {
        issuer: None,
        token_id,
        until: at(until),
        now: at(now),
    };
    guard.use_once(token("a", 63, 0)).await.unwrap();
    // Came at 64, a second after the first has ended.
    guard.use_once(token("b", 100, 64)).await.unwrap();
    // Came at 62, and waited for a key to be looked up.
    let verdict = guard.use_once(token("a", 63, 62)).await;
    assert!(verdict.is_err(), "accepted twice");
}

#[tokio::test]
async fn a_full_guard_lets_nobody_in_and_says_that_it_is_not_the_clients_fault() {
    let (authenticator, guard) = once(2);
    let [a, b, c] = ["a", "b", "c"].map(|jti| issuer(1).one_off(jti));
    assert_eq!(present(&authenticator, &a, 0).await, Ok(()));
    assert_eq!(present(&authenticator, &b, 0).await, Ok(()));
    let verdict = authenticator.authenticate(&request(&c), at(0)).await;
    assert!(matches!(verdict, Err(AuthError::Unavailable(_))), "{verdict:?}");
    assert_eq!(guard.0.remembered(), 2);
    // What is known is still known.
    assert_eq!(present(&authenticator, &a, 0).await, used());
    // Nor is the refused one used up: it comes again when there is room.
    let [d, c] = ["d", "c"]
        .map(|jti| issuer(1).token_with("u", json!({ "jti": jti, "exp": at(1000).as_secs() })));
    assert_eq!(present(&authenticator, &c, 64).await, Ok(()));
    assert_eq!(present(&authenticator, &d, 64).await, Ok(()));
}

/// Explored: fifty presentations of one token, on as many tasks as fit on four threads, all let
/// loose at once. Any may be the first, and exactly one is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_presentations_at_once_exactly_one_is_accepted() {
    const PRESENTATIONS: usize = 50;
    let (authenticator, guard) = once(1000);
    let authenticator = Arc::new(authenticator);
    for round in 0..100 {
        let token = issuer(1).one_off(&round.to_string());
        let begin = Arc::new(Barrier::new(PRESENTATIONS));
        let presentations: Vec<_> = (0..PRESENTATIONS)
            .map(|_| {
                let (authenticator, begin) = (Arc::clone(&authenticator), Arc::clone(&begin));
                let token = token.clone();
                tokio::spawn(async move {
                    begin.wait().await;
                    present(&authenticator, &token, 0).await
                })
            })
            .collect();
        let mut accepted = 0;
        for presentation in presentations {
            match presentation.await.unwrap() {
                Ok(()) => accepted += 1,
                refused => assert_eq!(refused, used()),
            }
        }
        assert_eq!(accepted, 1, "round {round}");
        assert_eq!(guard.0.remembered(), round + 1);
    }
}

/// Explored: many tokens, each presented twice at once, when there is room for half of them.
/// Whatever the order, no token is accepted twice and no more are accepted than there is room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_guard_that_fills_up_in_a_race_accepts_as_many_as_it_remembers() {
    const TOKENS: usize = 40;
    for _ in 0..20 {
        let (authenticator, guard) = once(TOKENS / 2);
        let authenticator = Arc::new(authenticator);
        let begin = Arc::new(Barrier::new(2 * TOKENS));
        let presentations: Vec<_> = (0..2 * TOKENS)
            .map(|index| {
                let (authenticator, begin) = (Arc::clone(&authenticator), Arc::clone(&begin));
                let token = issuer(1).one_off(&(index / 2).to_string());
                tokio::spawn(async move {
                    begin.wait().await;
                    present(&authenticator, &token, 0).await.is_ok()
                })
            })
            .collect();
        let mut accepted = [0; TOKENS];
        for (index, presentation) in presentations.into_iter().enumerate() {
            accepted[index / 2] += usize::from(presentation.await.unwrap());
        }
        assert!(accepted.iter().all(|&times| times <= 1), "{accepted:?}");
        assert_eq!(accepted.iter().sum::<usize>(), TOKENS / 2);
        assert_eq!(guard.0.remembered(), TOKENS / 2);
    }
}

#[test]
fn verify_alone_does_not_use_a_token_up() {
    let (authenticator, guard) = once(10);
    let token = issuer(1).one_off("a");
    for _ in 0..3 {
        assert_eq!(verify(&authenticator, &token), Ok("user".into()));
    }
    assert_eq!(guard.0.remembered(), 0);
}

/// A store that does not answer until it is told to, and then that it is down.
struct Slow(Arc<Notify>);

impl ReplayGuard for Slow {
    fn use_once<'a>(&'a self, _: TokenUse<'a>) -> ReplayAnswer<'a> {
        Box::pin(async {
            self.0.notified().await;
            Err(ReplayError::Unavailable("the store is down".into()))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_lets_nobody_in() {
    let answer = Arc::new(Notify::new());
    let authenticator = secure(issuer(1).key).with_replay_guard(Slow(Arc::clone(&answer)));
    let request = request(&issuer(1).one_off("a"));
    let mut verdict = std::pin::pin!(authenticator.authenticate(&request, at(0)));
    let hour = Duration::from_secs(3600);
    let early = tokio::time::timeout(hour, &mut verdict).await;
    assert!(early.is_err(), "a verdict without the store's answer: {early:?}");
    answer.notify_one();
    let verdict = verdict.await;
    assert!(matches!(verdict, Err(AuthError::Unavailable(_))), "{verdict:?}");
}
