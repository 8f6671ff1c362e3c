//! One owner per client id, whatever the order: newcomers, incumbents who leave, answer or are
//! silent, and time that passes at any moment.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::Ordering,
    task::{Context, Waker},
    time::Duration,
};

use loom::{
    future::block_on,
    sync::{Arc, atomic::AtomicUsize},
    thread,
};

use crate::{
    explore,
    registry::{
        DuplicatePolicy, Eviction, InProcessRegistry, Occupant, Registration, Registry,
        RegistryError,
    },
    session::{AuthenticatedClient, ClientId, Identity, Verified},
    tokio::time,
};

type Registered = Result<Registration, RegistryError>;

fn registry(policy: DuplicatePolicy) -> InProcessRegistry {
    InProcessRegistry::new(policy, Duration::from_secs(1))
}

fn client(user: &str) -> AuthenticatedClient {
    AuthenticatedClient {
        client_id: ClientId::new("client").unwrap(),
        verified: Verified::vouched_for_by_authenticator(Identity::new(user)),
    }
}

/// A thread that registers as this user.
fn comes(
    registry: &InProcessRegistry,
    user: &'static str,
) -> (thread::JoinHandle<Registered>, Occupant) {
    let (registry, occupant) = (registry.clone(), Occupant::default());
    let own = occupant.clone();
    (thread::spawn(move || block_on(registry.register(&client(user), own))), occupant)
}

fn register(registry: &InProcessRegistry, user: &str) -> (Registration, Occupant) {
    let occupant = Occupant::default();
    (block_on(registry.register(&client(user), occupant.clone())).unwrap(), occupant)
}

#[test]
fn of_several_who_come_each_has_the_place_alone() {
    explore("two newcomers, who leave", || {
        let registry = registry(DuplicatePolicy::Wait);
        let owners = Arc::new(AtomicUsize::new(0));
        let visit = |user: &'static str| {
            let (registry, owners) = (registry.clone(), Arc::clone(&owners));
            move || {
                let (registration, occupant) = register(&registry, user);
                assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "two owners");
                assert_eq!(occupant.evicted(), None);
                owners.fetch_sub(1, Ordering::SeqCst);
                drop(registration);
            }
        };
        let others = [thread::spawn(visit("u")), thread::spawn(visit("v"))];
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(registry.is_empty());
    });
}

#[test]
fn whoever_waits_learns_that_the_incumbent_has_left() {
    explore("an incumbent who leaves, a newcomer of another user", || {
        let registry = registry(DuplicatePolicy::Wait);
        let (first, _) = register(&registry, "u");
        let (second, _) = comes(&registry, "v");
        // No time passes: whoever missed it would wait for ever, which loom finds.
        drop(first);
        let second = second.join().unwrap();
        assert!(second.is_ok());
        assert_eq!(registry.len(), 1);
        drop(second);
        assert!(registry.is_empty());
    });
}

#[test]
fn a_silent_incumbent_loses_its_place_once_whether_or_not_it_leaves_meanwhile() {
    explore("a silent incumbent who leaves when the time is over", || {
        let registry = registry(DuplicatePolicy::Wait);
        let (first, occupant) = register(&registry, "u");
        let (second, newcomer) = comes(&registry, "u");
        let clock = thread::spawn(time::pass);
        drop(first);
        clock.join().unwrap();
        let second = second.join().unwrap();
        assert!(second.is_ok(), "nobody else is there");
        assert_eq!(registry.len(), 1, "the late incumbent does not give away what it lost");
        assert_ne!(occupant.evicted(), Some(Eviction::Replaced));
        assert_eq!(newcomer.evicted(), None);
        drop(second);
        assert!(registry.is_empty());
    });
}

#[test]
fn an_incumbent_that_answers_in_time_stays_and_one_that_does_not_goes() {
    explore("an incumbent who answers, time that passes", || {
        let registry = registry(DuplicatePolicy::Wait);
        let (first, occupant) = register(&registry, "u");
        let (second, _) = comes(&registry, "u");
        let driver = {
            let occupant = occupant.clone();
            thread::spawn(move || {
                block_on(occupant.woken());
                occupant.answer(occupant.challenged());
            })
        };
        time::run_out();
        let second = second.join().unwrap();
        driver.join().unwrap();
        match &second {
            Ok(_) => assert_eq!(occupant.evicted(), Some(Eviction::Silent), "it is told to leave"),
            Err(RegistryError::Occupied) => {
                assert_eq!(occupant.evicted(), None, "who answered stays");
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(registry.len(), 1);
        drop((first, second));
        assert!(registry.is_empty());
    });
}

#[test]
fn of_two_who_take_over_one_has_the_place_and_the_others_know() {
    explore("two newcomers who take over", || {
        let registry = registry(DuplicatePolicy::Takeover);
        let (first, occupant) = register(&registry, "u");
        let newcomers = [comes(&registry, "u"), comes(&registry, "u")];
        drop(first);
        // Whoever waits for one that does not leave does not wait for ever.
        time::run_out();
        let newcomers =
            newcomers.map(|(registered, occupant)| (registered.join().unwrap(), occupant));
        let told = newcomers.iter().filter(|(_, it)| it.evicted() == Some(Eviction::Replaced));
        assert_eq!(told.count(), 1, "one of them took the place of the other");
        assert!(newcomers.iter().all(|(registered, _)| registered.is_ok()));
        assert_ne!(occupant.evicted(), Some(Eviction::Silent));
        assert_eq!(registry.len(), 1);
        drop(newcomers);
        assert!(registry.is_empty());
    });
}

#[test]
fn a_newcomer_that_gives_up_takes_no_place_with_it() {
    explore("a newcomer who gives up", || {
        for policy in [DuplicatePolicy::Wait, DuplicatePolicy::Takeover] {
            let registry = registry(policy);
            let (first, _) = register(&registry, "u");
            let newcomer = {
                let registry = registry.clone();
                thread::spawn(move || {
                    let client = client("u");
                    let mut waiting = pin!(registry.register(&client, Occupant::default()));
                    let mut context = Context::from_waker(Waker::noop());
                    // It looks once, and goes: with the place, if it has come to it.
                    let _ = waiting.as_mut().poll(&mut context).map(drop);
                })
            };
            drop(first);
            newcomer.join().unwrap();
            assert!(registry.is_empty());
        }
    });
}
