//! Thousands of schedules of a client that stays connected, against servers in one process, with
//! a network between them that breaks, in virtual time.
//!
//! A schedule is a seed. It has a time of trouble, in which streams break at any byte, in either
//! direction and in any way, upgrades are refused, tokens expire, are rejected or do not come,
//! servers restart and drain, other clients take the same id, and the application connects,
//! disconnects, is slow and starts anew; and then a time in which all is well. What must hold:
//!
//! - there are never two connections of a client, and none that is not wanted;
//! - a call has an answer, or fails when its connection ends;
//! - within a connection no transaction is lost or comes twice, and the first is the one after the
//!   last that was confirmed;
//! - the provider is asked when that is promised and for the reason that is promised, and a token
//!   is presented once;
//! - pauses are within their bounds, and attempts come after them;
//! - connectivity tells how it is;
//! - when all is well, the client is connected after a while, or has given up for a reason that is
//!   final, and connects when it is told to.
//!
//! `CLIENT_SIMULATION_SEED=7` runs one schedule and tells what happens;
//! `CLIENT_SIMULATION_SEEDS=100000` runs more of them.

#[path = "../counted/mod.rs"]
mod counted;
#[path = "../network/mod.rs"]
mod network;

mod app;
mod model;
mod service;
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use app::{Instance, other_client};
use network::How;
use world::World;

/// How many schedules there are, in four tests that run beside each other.
const SEEDS: u64 = 2000;

/// Longer than any schedule.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

fn run_every_fourth_from(first: u64) {
    let number = |name| env::var(name).ok().map(|text: String| text.parse().expect("a number"));
    match number("CLIENT_SIMULATION_SEED") {
        Some(seed) if seed % 4 == first => run(seed, true),
        Some(_) => {}
        None => {
            let seeds = number("CLIENT_SIMULATION_SEEDS").unwrap_or(SEEDS);
            (first..seeds).step_by(4).for_each(|seed| run(seed, false));
        }
    }
}

#[test]
fn whatever_happens_the_promises_hold() {
    run_every_fourth_from(0);
}

#[test]
fn whatever_happens_the_promises_hold_2() {
    run_every_fourth_from(1);
}

#[test]
fn whatever_happens_the_promises_hold_3() {
    run_every_fourth_from(2);
}

#[test]
fn whatever_happens_the_promises_hold_4() {
    run_every_fourth_from(3);
}

/// One schedule.
fn run(seed: u64, tells: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let world = World::new(seed, tells);
            let outcome = timeout(FOR_EVER, schedule(&world)).await;
            if outcome.is_err() {
                world.broken("somebody waits for ever");
            }
            world.all_broken()
        })
    }));
    let broken = outcome.unwrap_or_else(|_| vec!["a panic".into()]);
    assert!(
        broken.is_empty(),
        "CLIENT_SIMULATION_SEED={seed} breaks a promise:\n  {}",
        broken.join("\n  ")
    );
}

async fn schedule(world: &Arc<World>) {
    service::start(world);
    let mut instance = Instance::start(world);
    instance.connect();
    let mut others = vec![];
    let steps = world.between(5, 25);
    for _ in 0..steps {
        sleep(world.duration(4000)).await;
        instance = trouble(world, instance, &mut others).await;
        if world.is_broken() {
            return;
        }
    }
    others.into_iter().for_each(|other: JoinHandle<()>| other.abort());
    all_is_well(world, instance).await;
}

/// Something happens.
async fn trouble(
    world: &Arc<World>,
    mut instance: Instance,
    others: &mut Vec<JoinHandle<()>>,
) -> Instance {
    match world.between(0, 100) {
        0..20 => world.change_weather(),
        20..35 => world.break_links(),
        35..42 => service::restart(world),
        42..46 => service::drain(world),
        46..52 => instance.disconnect(),
        52..64 => instance.connect(),
        64..67 => {
            instance.disconnect();
            instance.connect();
        }
        67..76 => instance.retry_now(),
        76..80 => {
            instance.end().await;
            instance = Instance::start(world);
            if world.chance(0.7) {
                instance.connect();
            }
        }
        80..86 => others.push(tokio::spawn(other_client(Arc::clone(world)))),
        86..94 => world.change_pace(),
        _ => {}
    }
    instance
}

/// The trouble is over, and the client comes back.
async fn all_is_well(world: &Arc<World>, mut instance: Instance) {
    world.calm();
    world.break_all(How::Silence);
    service::be_up(world);
    sleep(world.duration(1000)).await;
    instance.connect();
    world.note("all is well");
    let before = world.transactions();
    let progress = async {
        while world.transactions() < before + 3 {
            // What was the client's fate when the trouble ended may end it once more.
            instance.connect();
            sleep(Duration::from_secs(1)).await;
        }
    };
    if timeout(Duration::from_secs(150), progress).await.is_err() {
        world.broken(format!("it is not back in time: {:?}", instance.connectivity()));
        return;
    }
    instance.end().await;
    sleep(Duration::from_secs(60)).await;
    if service::connections(world) != 0 {
        world.broken("the service has a connection that nobody holds");
    }
    if world.open_links() != 0 {
        world.broken("a stream is left");
    }
}
