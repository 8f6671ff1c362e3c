//! A token works once, whoever presents it when.

use loom::{future::block_on, sync::Arc, thread};

use crate::{
    explore,
    replay::{InProcessReplayGuard, ReplayError, ReplayGuard, TokenUse},
    session::UnixTime,
};

/// Uses it, in a thread of its own.
fn uses(
    guard: &Arc<InProcessReplayGuard>,
    token_id: &'static str,
    until: i64,
    now: i64,
) -> thread::JoinHandle<Result<(), ReplayError>> {
    let guard = Arc::clone(guard);
    let (until, now) = (UnixTime::from_secs(until), UnixTime::from_secs(now));
    thread::spawn(move || {
        block_on(guard.use_once(TokenUse { issuer: Some("i"), token_id, until, now }))
    })
}

#[test]
fn of_several_presentations_of_a_token_one_is_let_through() {
    explore("three presentations of one token", || {
        let guard = Arc::new(InProcessReplayGuard::new(10));
        let uses = [(); 3].map(|()| uses(&guard, "a", 9, 0));
        let accepted = uses.map(|it| it.join().unwrap()).iter().filter(|it| it.is_ok()).count();
        assert_eq!((accepted, guard.remembered()), (1, 1));
    });
}

#[test]
fn a_full_guard_does_not_let_two_through_for_one_place() {
    explore("two tokens and one place", || {
        let guard = Arc::new(InProcessReplayGuard::new(1));
        let uses = [uses(&guard, "a", 9, 0), uses(&guard, "b", 9, 0)].map(|it| it.join().unwrap());
        let full = uses.iter().filter(|it| matches!(it, Err(ReplayError::Full(1)))).count();
        assert_eq!((full, guard.remembered()), (1, 1));
    });
}

#[test]
fn what_is_forgotten_while_it_is_presented_is_not_accepted_again() {
    explore("a token that expires meanwhile, by a clock that is not everybody's", || {
        let guard = Arc::new(InProcessReplayGuard::new(10));
        let first = uses(&guard, "a", 9, 9);
        // Whoever comes later forgets it.
        let other = uses(&guard, "b", 99, 10);
        let again = uses(&guard, "a", 9, 8);
        let accepted = [first, again].map(|it| it.join().unwrap());
        assert!(other.join().unwrap().is_ok());
        assert!(accepted.iter().filter(|it| it.is_ok()).count() <= 1);
    });
}
