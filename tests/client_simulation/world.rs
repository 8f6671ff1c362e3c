//! What all parts of a schedule share: chance, the weather, and what was found to be broken.

use std::{
    fmt::Display,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use electric_satellite::session::UnixTime;
use fastrand::Rng;
use tokio::time::Instant;

use crate::{
    network::{How, Link},
    service::Service,
};

/// When schedules begin, in seconds since 1970.
const NOW: i64 = 1_700_000_000;

pub(crate) struct World {
    random: Mutex<Rng>,
    tells: bool,
    began: Instant,
    broken: Mutex<Vec<String>>,
    /// How likely trouble is, and how long it takes.
    pub(crate) weather: Mutex<Weather>,
    calm: AtomicBool,
    /// The application takes its time, in milliseconds.
    pub(crate) pace: AtomicU64,
    links: Mutex<Vec<Link>>,
    pub(crate) service: Mutex<Service>,
    /// What the application has on its disk.
    pub(crate) disk: Mutex<Disk>,
    /// How many transactions have arrived.
    transactions: AtomicUsize,
    /// What numbers tokens, clients and connections.
    numbers: AtomicU64,
}

/// What an application keeps.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    /// The state that a client resumes from, in JSON; nothing at first.
    pub(crate) resume: Option<String>,
    /// The transaction up to which everything is confirmed; nothing where there is no data.
    pub(crate) confirmed: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// How likely a dial is refused, hangs, or leads to something that is no service.
    pub(crate) refused: f64,
    pub(crate) hangs: f64,
    pub(crate) no_service: f64,
    /// How likely a connection breaks, and after how many bytes at most.
    pub(crate) breaks: f64,
    pub(crate) after: usize,
    /// The longest latency, in milliseconds.
    pub(crate) latency: u64,
    /// How likely there is no token, a bad one, or a late one.
    pub(crate) no_token: f64,
    pub(crate) bad_token: f64,
    pub(crate) late_token: f64,
    /// How likely the service misbehaves towards a connection, or cannot tell whether to let it in.
    pub(crate) misbehaves: f64,
}

impl World {
    pub(crate) fn new(seed: u64, tells: bool) -> Arc<World> {
        let mut random = Rng::with_seed(seed);
        let service = Service::new(&mut random);
        let world = World {
            random: Mutex::new(random),
            tells,
            began: Instant::now(),
            broken: Mutex::default(),
            weather: Mutex::default(),
            calm: AtomicBool::new(false),
            pace: AtomicU64::new(10),
            links: Mutex::default(),
            service: Mutex::new(service),
            disk: Mutex::default(),
            transactions: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
        };
        Arc::new(world)
    }

    // ---- Chance ----

    pub(crate) fn with<T>(&self, choose: impl FnOnce(&mut Rng) -> T) -> T {
        choose(&mut self.random.lock().unwrap())
    }

    /// A number from the first and below the second.
    pub(crate) fn between(&self, first: u64, end: u64) -> u64 {
        self.with(|random| random.u64(first..end))
    }

    pub(crate) fn chance(&self, likely: f64) -> bool {
        self.with(|random| random.f64()) < likely
    }

    /// Up to so many milliseconds.
    pub(crate) fn duration(&self, most: u64) -> Duration {
        Duration::from_millis(self.between(0, most + 1))
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    // ---- Time ----

    /// A wall clock that goes with the time of the runtime.
    pub(crate) fn clock(self: &Arc<World>) -> impl Fn() -> UnixTime + Send + Sync + 'static {
        let began = self.began;
        move || UnixTime::from_secs(NOW + i64::try_from(began.elapsed().as_secs()).expect("years"))
    }

    // ---- Weather ----

    pub(crate) fn weather(&self) -> Weather {
        *self.weather.lock().unwrap()
    }

    pub(crate) fn change_weather(&self) {
        let weather = self.with(|random| {
            let mut up_to = |most: f64| if random.bool() { 0.0 } else { random.f64() * most };
            let weather = Weather {
                refused: up_to(1.0),
                hangs: up_to(0.4),
                no_service: up_to(0.5),
                breaks: up_to(1.0),
                no_token: up_to(0.5),
                bad_token: up_to(0.5),
                late_token: up_to(0.5),
                misbehaves: up_to(1.0),
                ..Weather::default()
            };
            Weather {
                after: [200, 1_000, 5_000][random.usize(..3)],
                latency: [0, 10, 300, 2_000][random.usize(..4)],
                ..weather
            }
        });
        self.note(format_args!("{weather:?}"));
        *self.weather.lock().unwrap() = weather;
    }

    /// How fast the application is from now on.
    pub(crate) fn change_pace(&self) {
        let pace = self.with(|random| [0, 0, 10, 100, 1_000, 10_000][random.usize(..6)]);
        self.note(format_args!("the application takes {pace} ms"));
        self.pace.store(pace, Ordering::Relaxed);
    }

    pub(crate) fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.pace.store(0, Ordering::Relaxed);
        *self.weather.lock().unwrap() = Weather { latency: 10, ..Weather::default() };
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    // ---- Links ----

    pub(crate) fn linked(&self, link: &Link) {
        let mut links = self.links.lock().unwrap();
        links.retain(|link| !link.is_over());
        links.push(link.clone());
    }

    /// Every connection that there is breaks in a way of its own, or some of them do.
    pub(crate) fn break_links(&self) {
        for link in &*self.links.lock().unwrap() {
            let (how, from_client) = (self.way_to_break(), self.chance(0.5));
            match self.between(0, 4) {
                0 => continue,
                1 => link.break_after(from_client, self.between(0, 500) as usize, how),
                2 => {
                    link.break_now(from_client, how);
                    link.break_now(!from_client, how);
                }
                _ => link.break_now(from_client, how),
            }
            self.note(format_args!("a connection breaks: {how:?}"));
        }
    }

    pub(crate) fn break_all(&self, how: How) {
        for link in &*self.links.lock().unwrap() {
            link.break_now(false, how);
            link.break_now(true, how);
        }
    }

    pub(crate) fn way_to_break(&self) -> How {
        [How::Reset, How::End, How::Silence][self.between(0, 3) as usize]
    }

    pub(crate) fn open_links(&self) -> usize {
        self.links.lock().unwrap().iter().filter(|link| !link.is_over()).count()
    }

    // ---- What is found ----

    pub(crate) fn note(&self, what: impl Display) {
        if self.tells {
            println!("{:>10.3} {what}", self.began.elapsed().as_secs_f64());
        }
    }

    /// A promise is broken.
    pub(crate) fn broken(&self, promise: impl Into<String>) {
        let promise = promise.into();
        self.note(format_args!("BROKEN: {promise}"));
        let when = self.began.elapsed().as_secs_f64();
        self.broken.lock().unwrap().push(format!("at {when:.3}: {promise}"));
    }

    pub(crate) fn check(&self, holds: bool, promise: impl FnOnce() -> String) {
        if !holds {
            self.broken(promise());
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        !self.broken.lock().unwrap().is_empty()
    }

    pub(crate) fn all_broken(&self) -> Vec<String> {
        self.broken.lock().unwrap().clone()
    }

    pub(crate) fn arrived(&self) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn transactions(&self) -> usize {
        self.transactions.load(Ordering::Relaxed)
    }
}
