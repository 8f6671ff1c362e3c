//! Model checking: the real sessions and the real registry, in every state that they can reach.
//!
//! Nothing here repeats the logic of what is checked. An explorer ([`explore`]) takes the real
//! thing along every path of actions, breadth first: it cannot be cloned, so each path is replayed
//! from the beginning. What the peer, the authenticator, the registry, the clock, the driver and
//! the application can do is an alphabet ([`server`], [`client`], [`places`]). What is seen is
//! entered into a ledger, and every step is judged by the properties ([`properties`]).
//!
//! # When two states are equal
//!
//! Two states are taken for one if their fingerprints are. That of a session is its `Debug` text,
//! which is derived and so shows every field, and the ledger beside it, with two simplifications:
//! numbers of calls stand for their order, because a session compares them and nothing else; and a
//! session that has ended is known by what it answers. The future of somebody who waits for a place
//! shows nothing: its fingerprint is whom it waits for, how long still, and whether that one has
//! answered. That all this is enough is checked, not believed:
//!
//! - of the arrivals at a known state, one in so many is a pair of *twins*: after either path,
//!   every action is seen to do the same, and leads to the same state;
//! - an action that changes nothing is followed by the next one without a replay;
//! - *walks* at random, long beside the shortest paths, meet no state that is not known.
//!
//! # What is finite, and how
//!
//! Nothing limits the length of a path: the exploration goes on until there is no new state. What
//! could grow for ever is limited instead: how many questions and how many calls are open at a
//! time, and how many `unsubscribe` calls a client makes. Who is there has one name until another
//! one is compared with it. The parts of a session that do not touch each other are explored one
//! by one (`Scope`), and their product where it is small enough; walks go through all of it.
//!
//! The short form is that of `cargo test`. `MODEL_DEPTH=2`, as by `just model`, has twice as many
//! calls open at a time, the product of the server's scopes, one person more at the registry, and
//! more twins and walks. Both print a table.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod explore;
mod faults;
mod ledger;
mod places;
mod properties;
#[path = "../random/mod.rs"]
mod random;
/// The file itself: only within the crate can a ping be answered.
#[allow(dead_code, unreachable_pub, reason = "it is used in part")]
#[path = "../../src/registry.rs"]
mod registry;
mod server;
mod words;

/// What the registry's file imports.
mod session {
    use std::time::Duration;

    pub(crate) use electric_satellite::session::*;

    pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
}

use std::env;

use electric_satellite::{
    session::AuthChangePolicy::{Refuse, RenewSameIdentity},
    wire::Version,
};

use client::Client;
use explore::{Explored, Machine, Table, explore, walk};
use faults::{OF_A_CLIENT, OF_A_SERVER, OF_PLACES};
use places::Places;
use properties::{OF_A_SESSION, OF_THE_REGISTRY};
use registry::DuplicatePolicy;
use server::Server;

/// How far an exploration goes.
#[derive(Clone, Copy)]
struct Effort {
    depth: usize,
    /// One in so many arrivals at a known state is compared with the first.
    twins: usize,
    walks: u64,
}

fn effort() -> Effort {
    match env::var("MODEL_DEPTH") {
        Err(_) => Effort { depth: 1, twins: 200, walks: 100 },
        Ok(depth) => {
            let depth = depth.parse().expect("a depth is a number");
            Effort { depth, twins: 100, walks: 500 }
        }
    }
}

const VERSIONS: [Version; 2] = [Version::new(0, 7), Version::V0_12];

#[test]
fn every_state_of_a_servers_session() {
    use server::{Scope, Setup};
    let Effort { depth, .. } = effort();
    let product = (depth > 1).then_some(Scope::Everything);
    let mut table = Table::new();
    for version in VERSIONS {
        for auth_changes in [Refuse, RenewSameIdentity] {
            for scope in [Scope::Calls, Scope::Stream, Scope::Limits].into_iter().chain(product) {
                // Versions and policies differ, but not in what several open calls do.
                let several = (version, auth_changes, scope) == (VERSIONS[1], Refuse, Scope::Calls);
                let open = if several { depth + 1 } else { 1 };
                let setup = Setup { version, auth_changes, scope, open, seeded: None };
                let name = format!("server, {version}, {auth_changes:?}, {scope:?}");
                table.add(explored(&name, || Server::new(setup)));
            }
        }
    }
}

#[test]
fn every_state_of_a_clients_session() {
    use client::{Scope, Setup};
    let Effort { depth, .. } = effort();
    let mut table = Table::new();
    for version in VERSIONS {
        for scope in [Scope::Calls, Scope::Outgoing, Scope::Transactions, Scope::Subscriptions] {
            if depth == 1 && (version, scope) == (VERSIONS[0], Scope::Subscriptions) {
                // The rules are the same.
                continue;
            }
            let open = if scope == Scope::Calls { depth } else { 1 };
            let setup = Setup { version, scope, open, seeded: None };
            table.add(explored(&format!("client, {version}, {scope:?}"), || Client::new(setup)));
        }
    }
}

#[test]
fn every_state_of_the_registry() {
    use places::Setup;
    let clock = places::clock();
    let crowds: &[&'static [&str]] = match effort().depth {
        1 => &[&["u", "u", "v"], &["u", "u", "u"]],
        _ => &[&["u", "u", "u", "v"], &["u", "u", "v", "v"], &["u", "u", "u", "u"]],
    };
    let mut table = Table::new();
    for policy in [DuplicatePolicy::Wait, DuplicatePolicy::Refuse, DuplicatePolicy::Takeover] {
        for users in crowds {
            let setup = Setup { policy, users, seeded: None };
            let name = format!("registry, {policy:?}, users {}", users.join(" "));
            table.add(explored(&name, || Places::new(setup, clock.clone())));
        }
    }
}

/// Explores everything, and then walks through it.
fn explored<M: Machine>(name: &str, start: impl Fn() -> M) -> Explored<M::Action> {
    let Effort { twins, walks, .. } = effort();
    let explored = explore(name, twins, &start);
    let mut explored = explored.unwrap_or_else(|wrong| panic!("{name}: {wrong:?}"));
    explored.walk(start, walks);
    explored
}

#[test]
fn walks_through_the_product_of_all_scopes() {
    let open = 4;
    let walks = 5 * effort().walks;
    for version in VERSIONS {
        let scope = server::Scope::Everything;
        let auth_changes = RenewSameIdentity;
        let server = server::Setup { version, auth_changes, scope, open, seeded: None };
        walk_through(walks, || Server::new(server));
        let scope = client::Scope::Everything;
        let client = client::Setup { version, scope, open, seeded: None };
        walk_through(walks, || Client::new(client));
    }
}

fn walk_through<M: Machine>(walks: u64, start: impl Fn() -> M) {
    for seed in 0..walks {
        let walked = walk(&start, seed, |_| ());
        walked.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong:?}"));
    }
}

// ---- The checker is checked ----

#[test]
fn every_seeded_fault_is_found_by_the_property_that_names_it() {
    let version = VERSIONS[0];
    for (seeded, property) in OF_A_SERVER {
        let (scope, auth_changes) = (server::Scope::Everything, RenewSameIdentity);
        let seeded = Some(*seeded);
        let setup = server::Setup { version, auth_changes, scope, open: 1, seeded };
        finds(property, || Server::new(setup));
    }
    for (seeded, property) in OF_A_CLIENT {
        let seeded = Some(*seeded);
        let setup = client::Setup { version, scope: client::Scope::Calls, open: 1, seeded };
        finds(property, || Client::new(setup));
    }
    for (seeded, property) in OF_PLACES {
        let policy = DuplicatePolicy::Wait;
        let setup = places::Setup { policy, users: &["u", "u", "v"], seeded: Some(*seeded) };
        let clock = places::clock();
        finds(property, || Places::new(setup, clock.clone()));
    }
}

#[track_caller]
fn finds<M: Machine>(property: &str, start: impl Fn() -> M) {
    match explore(property, usize::MAX, start) {
        Ok(_) => panic!("the fault is not found: {property}"),
        Err(it) => assert!(it.found.broken.contains(&property), "{property}: {it:?}"),
    }
}

#[test]
fn every_property_finds_a_seeded_fault() {
    let mut found: Vec<&str> = OF_A_SERVER.iter().map(|(_, property)| *property).collect();
    found.dedup();
    let properties: Vec<&str> = OF_A_SESSION.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, properties);
    let found: Vec<&str> = OF_PLACES.iter().map(|(_, property)| *property).collect();
    let properties: Vec<&str> = OF_THE_REGISTRY.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, properties);
}
