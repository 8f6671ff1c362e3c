//! `satellite serve` under mixed load for a long time: honest clients come and go, hostile ones do
//! what they like, keys are exchanged and users revoked by file, and the service is stopped and
//! started amid all this. Every round ends in a silence in which the books are audited.
//!
//! `SOAK_SECONDS` says how long; 10 unless set, for `cargo test`. `just soak` runs for 10 minutes.
//! A service lives for some rounds, is stopped under load, and another takes its place.
#![cfg(all(feature = "cli", target_os = "linux"))]

#[path = "../random/mod.rs"]
mod random;
#[path = "../raw/mod.rs"]
mod raw;
#[path = "../service/mod.rs"]
mod service;

mod audit;
mod clients;
mod world;

use std::{
    env,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use audit::Books;
use clients::Load;
use service::{Service, secure};
use world::World;

/// How long a round of a long run is under load.
const ROUND: Duration = Duration::from_secs(15);

/// How many rounds a service lives, in a long run.
const ROUNDS: usize = 6;

/// How long a service is under load before what it uses is taken for what it needs.
const WARM_UP: Duration = Duration::from_secs(3);

/// A service that is told to stop ends within its grace and the last words to its clients.
const STOPS_WITHIN: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_under_load_comes_back_to_nothing_whenever_the_load_does() {
    let seconds = env::var("SOAK_SECONDS").map_or(10, |it| it.parse().expect("seconds"));
    let (length, began) = (Duration::from_secs(seconds), Instant::now());
    let (round, rounds) = if length < 4 * ROUND { (length / 5, 1) } else { (ROUND, ROUNDS) };
    let world = World::new();
    let mut books = Books::default();
    println!("{}", Books::HEAD);
    for life in 1.. {
        live(&world, &mut books, life, round, rounds).await;
        if began.elapsed() >= length {
            break;
        }
    }
    println!("{books}");
    println!("{:?} under load and audited", began.elapsed());
}

/// The life of one service: a round to warm up, rounds with everything, and a stop under load.
async fn live(world: &World, books: &mut Books, life: usize, round: Duration, rounds: usize) {
    let mut service = Service::start(command(world)).await;
    world.service_is_at(service.address);

    let load = Load::begin(world);
    sleep(WARM_UP).await;
    load.end().await;
    let before = books.audit(&format!("{life} warm-up"), &service, world, None).await;

    for nth in 1..=rounds {
        let load = Load::begin(world);
        tokio::join!(sleep(round), world.revoke_and_rotate());
        load.end().await;
        books.audit(&format!("{life} round {nth}"), &service, world, Some(&before)).await;
    }

    let load = Load::begin(world);
    sleep(round.min(WARM_UP)).await;
    world.stops();
    let told = Instant::now();
    let status = service.terminate().await;
    println!("{life} stopped under load in {:?}: {status}", told.elapsed());
    load.end().await;
    assert!(status.success(), "{status}");
    assert!(told.elapsed() < STOPS_WITHIN, "it takes long to stop");
    // Warnings and errors: there is nothing to warn of.
    assert_eq!(service.log(), "");
    world.no_failures();
    books.close(world);
}

fn command(world: &World) -> tokio::process::Command {
    let mut command = secure();
    command
        .env_remove("AUTH_JWT_KEY")
        .env("AUTH_JWT_ALG", "EdDSA")
        .env("AUTH_JWT_KEY_FILE", world.keys())
        .env("AUTH_REVOCATIONS_FILE", world.revocations())
        .env("AUTH_JWT_ONE_OFF", "100000")
        .env("AUTH_TIMEOUT", "3")
        .env("PING_INTERVAL", "2")
        .env("DUPLICATE_CLIENTS", "takeover")
        .env("MAX_UNAUTHENTICATED_PER_IP", world::PER_ADDRESS.to_string())
        .env("DRAIN_GRACE", "5")
        .env("LOG_LEVEL", "warning");
    command
}
