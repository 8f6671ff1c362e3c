//! The service in a network of which a seed decides everything: how long every byte takes, what is
//! held, lost and reset, when the service is restarted, killed or without power, and who comes.
//!
//! For a while everything goes wrong at once; then the network is healed, and whoever is honest must
//! be served in time. What must hold all along:
//!
//! - a client id has one live handler at most, and another user never evicts it;
//! - no handler sees a client for whom the authenticator has not vouched;
//! - a handshake has an end, and so has a connection whose other end is not there, on both sides;
//! - a call is answered, rightly, or its connection ends;
//! - nothing happens to those to whom nothing is done;
//! - a drain takes no longer than it may;
//!
//! and when everybody has gone, no connection, no place and no task is left.
//!
//! A seed that fails prints its story, and the variable with which it is run again, alone.

mod chronicle;
mod clients;
mod network;
#[path = "../random/mod.rs"]
mod random;
#[path = "../raw/mod.rs"]
mod raw;
mod service;

use std::{
    env, fmt,
    ops::Range,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use electric_satellite::{registry::DuplicatePolicy, server::Drain};
use tokio::{
    runtime::{self, Handle},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use chronicle::Chronicle;
use clients::{Visitor, World, double, fleeting, hasty};
use network::{BOTH, DOWN, Host, NORMAL, Network, UP};
use random::Random;
use service::{BAD, CALM, CLOSE, DEAD, Service};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The variable that names the seed to be run, or those from one to another, such as `100..2000`.
const VARIABLE: &str = "SIMULATION_SEED";

/// How many seeds each policy has.
const SEEDS: Range<u64> = 0..70;

/// Longer than any seed lasts.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long everything goes wrong.
const CHAOS: Duration = Duration::from_secs(40);

/// Until when everybody who is honest must have been served after that. A connection that is dead is
/// found out on both sides, what is begun comes to its end, and then there is one more attempt.
const SETTLED: Duration = DEAD.saturating_add(Duration::from_secs(20));

#[test]
fn newcomers_wait() {
    simulate("newcomers_wait", DuplicatePolicy::Wait);
}

#[test]
fn newcomers_are_refused() {
    simulate("newcomers_are_refused", DuplicatePolicy::Refuse);
}

#[test]
fn newcomers_take_over() {
    simulate("newcomers_take_over", DuplicatePolicy::Takeover);
}

#[test]
fn a_seed_repeats_itself() {
    for seed in seeds(0..5) {
        for policy in [DuplicatePolicy::Wait, DuplicatePolicy::Takeover] {
            let [one, two] = [(); 2].map(|()| run(seed, policy).0);
            let differs = one.iter().zip(&two).find(|(one, two)| one != two);
            assert!(differs.is_none() && one.len() == two.len(), "seed {seed}: {differs:?}");
        }
    }
}

/// The seeds that are named, or else these.
fn seeds(unless_named: Range<u64>) -> Range<u64> {
    let seed = |text: &str| text.parse::<u64>().expect("a seed is a number");
    match env::var(VARIABLE) {
        Err(_) => unless_named,
        Ok(named) => match named.split_once("..") {
            Some((from, to)) => seed(from)..seed(to),
            None => seed(&named)..seed(&named) + 1,
        },
    }
}

fn simulate(test: &str, policy: DuplicatePolicy) {
    for seed in seeds(SEEDS) {
        let (story, wrong) = run(seed, policy);
        if !wrong.is_empty() {
            story.iter().for_each(|event| println!("{event}"));
            let again = format!("{VARIABLE}={seed} cargo test --test simulation {test}");
            panic!("seed {seed}: {wrong:#?}\nagain: {again}");
        }
    }
}

/// What happens by this seed, and what of it is wrong.
fn run(seed: u64, policy: DuplicatePolicy) -> (Vec<String>, Vec<String>) {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let chronicle = Chronicle::new();
        let simulation = Simulation::new(Random::seeded(seed), policy, &chronicle);
        if timeout(DAY, simulation.run()).await.is_err() {
            chronicle.wrong("everybody waits for somebody else");
        }
        chronicle.end()
    })
}

/// What is simulated.
struct Simulation {
    world: World,
    policy: DuplicatePolicy,
    random: Random,
    /// Every process of the service; the last one is the present one.
    services: Vec<Arc<Service>>,
    /// Hosts to which things happen.
    restless: Vec<Host>,
    honest: JoinSet<()>,
    served: Vec<(String, Arc<Mutex<Option<Instant>>>)>,
    others: JoinSet<()>,
}

impl Simulation {
    fn new(mut random: Random, policy: DuplicatePolicy, chronicle: &Chronicle) -> Simulation {
        let network = Network::new(random.fork());
        let world = World {
            network,
            chronicle: chronicle.clone(),
            missed: Arc::default(),
            over: Arc::default(),
        };
        Simulation {
            world,
            policy,
            random,
            services: vec![],
            restless: vec![],
            honest: JoinSet::new(),
            served: vec![],
            others: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        self.start_service();
        self.populate();
        let until = Instant::now() + CHAOS;
        while Instant::now() < until {
            sleep(self.random.time(MS..2 * SECOND)).await;
            self.mishap().await;
        }
        self.world.network.heal();
        self.others.shutdown().await;
        self.world.chronicle.tell("the network is healed");
        self.everybody_is_served().await;
        self.world.over.store(true, Ordering::SeqCst);
        while let Some(gone) = self.honest.join_next().await {
            gone.expect("no panic");
        }
        self.nothing_is_left().await;
    }

    /// Everybody who is honest is served, from now on and in time.
    async fn everybody_is_served(&self) {
        let healed = Instant::now();
        while healed.elapsed() < SETTLED && self.unserved_since(healed).next().is_some() {
            sleep(SECOND).await;
        }
        for client_id in self.unserved_since(healed) {
            self.wrong(format!("{client_id} was not served after everything was well"));
        }
    }

    fn unserved_since(&self, time: Instant) -> impl Iterator<Item = &str> {
        let unserved = self.served.iter().filter(move |(_, served)| {
            served.lock().expect("no panic").is_none_or(|served| served < time)
        });
        unserved.map(|(client_id, _)| client_id.as_str())
    }

    fn wrong(&self, what: impl fmt::Display) {
        self.world.chronicle.wrong(what);
    }

    fn start_service(&mut self) {
        let World { network, chronicle, .. } = &self.world;
        let (number, random) = (self.services.len(), self.random.fork());
        self.services.push(Service::start(number, self.policy, network, random, chronicle));
    }

    /// Those who come: some to whom nothing happens, and some to whom everything does, with their
    /// twins, thieves and whoever else is on the way.
    fn populate(&mut self) {
        for host in 0..2 {
            self.world.network.add(host, 0);
            let name = format!("{CALM} {host}");
            self.visitor(host, &name, &name, 300 * MS..SECOND, 15, true);
        }
        for host in 2..5 + self.random.below(3) as Host {
            self.add_restless(host);
            let (client_id, user) = (format!("client {host}"), format!("user {host}"));
            self.visitor(host, &client_id, &user, 50 * MS..2 * SECOND, 10, true);
            let other = 100 + host;
            self.add_restless(other);
            let (world, random) = (self.world.clone(), self.random.fork());
            match self.random.below(5) {
                // The same client on another machine.
                0 => self.visitor(other, &client_id, &user, 50 * MS..4 * SECOND, 5, false),
                // The client's id, and not its user.
                1 => self.visitor(other, &client_id, "thief", 50 * MS..4 * SECOND, 5, false),
                2 => drop(self.others.spawn(fleeting(world, other, client_id, random))),
                3 => drop(self.others.spawn(double(world, other, client_id, user, random))),
                _ => {}
            }
        }
        let [bad, hasty_one] = [200, 201];
        self.add_restless(bad);
        self.visitor(bad, "client 2", BAD, SECOND..5 * SECOND, 1, false);
        self.add_restless(hasty_one);
        let (world, random) = (self.world.clone(), self.random.fork());
        self.others.spawn(hasty(world, hasty_one, random));
    }

    fn add_restless(&mut self, host: Host) {
        self.world.network.add(host, 15);
        self.restless.push(host);
    }

    fn visitor(
        &mut self,
        host: Host,
        client_id: &str,
        user: &str,
        away: Range<Duration>,
        stays: usize,
        honest: bool,
    ) {
        let served = Arc::default();
        let visitor = Visitor {
            host,
            client_id: client_id.into(),
            user: user.into(),
            away,
            stays,
            world: self.world.clone(),
            random: self.random.fork(),
            served: Arc::clone(&served),
        };
        match honest {
            true => {
                self.served.push((client_id.into(), served));
                self.honest.spawn(visitor.live());
            }
            false => drop(self.others.spawn(visitor.live())),
        }
    }

    /// Something goes wrong.
    async fn mishap(&mut self) {
        let host = self.restless[self.random.below(self.restless.len())];
        let ways = [BOTH, BOTH, &[UP], &[DOWN]][self.random.below(4)];
        let World { network, chronicle, .. } = self.world.clone();
        match self.random.below(20) {
            0..6 => {
                // Shorter or longer than a connection may be silent.
                let time = [MS..4 * SECOND, 4 * SECOND..15 * SECOND][self.random.below(2)].clone();
                let time = self.random.time(time);
                chronicle.tell(format!("host {host} is held for {time:?}, ways {ways:?}"));
                network.hold(host, ways);
                self.others.spawn(async move {
                    sleep(time).await;
                    network.release(host);
                });
            }
            6..10 => {
                chronicle.tell(format!("connections of host {host} are lost, ways {ways:?}"));
                network.lose(host, ways);
            }
            10..13 => {
                chronicle.tell(format!("connections of host {host} are reset"));
                network.reset(host);
            }
            13..17 => {
                let slow = MS..[50, 400, 1500][self.random.below(3)] * MS;
                let delays = [[slow.clone(), NORMAL], [NORMAL, slow.clone()], [slow.clone(), slow]];
                let delays = delays[self.random.below(3)].clone();
                chronicle.tell(format!("host {host} has delays {delays:?}"));
                network.set_delays(host, delays);
            }
            17 => self.roll().await,
            18 => {
                chronicle.tell("the service is killed");
                network.kill();
                self.down(3 * SECOND).await;
            }
            _ => {
                chronicle.tell("the service has no power");
                network.cut_power();
                self.down(5 * SECOND).await;
            }
        }
    }

    /// The service is away for a while.
    async fn down(&mut self, longest: Duration) {
        self.world.is_missed();
        sleep(self.random.time(MS..longest)).await;
        self.start_service();
        self.world.is_missed();
    }

    /// The service is drained, and another takes its place.
    async fn roll(&mut self) {
        self.world.chronicle.tell("the service is drained");
        self.world.is_missed();
        let service = Arc::clone(self.services.last().expect("there is one"));
        let spread = self.random.time(MS..2 * SECOND);
        let drain = Drain { spread, grace: 2 * SECOND, retry_after: 1 };
        let most = spread.max(drain.grace) + CLOSE + 10 * MS;
        if timeout(most, service.server().drain(drain)).await.is_err() {
            self.wrong(format!("a drain takes longer than {most:?}"));
        }
        let left = *service.server().connections().borrow();
        if left > 0 {
            self.wrong(format!("{left} connections after a drain"));
        }
        self.world.network.refuse();
        self.down(2 * SECOND).await;
    }

    /// Everybody has gone, and nobody listens any more.
    async fn nothing_is_left(&self) {
        self.world.network.refuse();
        let most = DEAD + CLOSE + SECOND;
        for (number, service) in self.services.iter().enumerate() {
            if timeout(most, service.is_empty()).await.is_err() {
                let left = *service.server().connections().borrow();
                self.wrong(format!("service {number} has {left} connections for ever"));
            }
        }
        // Handshakes, last words and answers to nobody.
        sleep(30 * SECOND).await;
        let (tasks, connections) =
            (Handle::current().metrics().num_alive_tasks(), self.world.network.connections());
        if tasks > 0 || connections > 0 {
            self.wrong(format!("{tasks} tasks and {connections} connections are left"));
        }
    }
}
