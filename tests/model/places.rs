//! The registry of one process, with people who come in, wait, answer and leave in every order.
//!
//! It is the real file, compiled into this test, because only the driver's side of an
//! [`Occupant`](registry::Occupant) can answer a ping. Its futures are polled by hand, whenever
//! their wakers say so; time is the runtime's, which is paused, and goes on in halves of a wait.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use electric_satellite::session::AuthenticatedClient;
use tokio::{
    runtime::{self, Runtime},
    time::advance,
};

use crate::{
    common::{id, verified},
    explore::{Found, Machine},
    faults::SeededPlace,
    properties::OF_THE_REGISTRY,
    registry::{
        DuplicatePolicy, Eviction, InProcessRegistry, Occupant, Registration, Registry,
        RegistryError,
    },
};

/// How long a newcomer waits, in ticks of the clock.
const WAIT: u8 = 2;
const TICK: Duration = Duration::from_millis(500);

/// A newcomer, and whoever it was later.
pub(crate) type Person = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It registers.
    Enters(Person),
    /// Its waker was called, and its task has its turn.
    Runs(Person),
    /// Its handshake is dropped, and with it the future.
    GivesUp(Person),
    /// Its connection answers the ping.
    Answers(Person),
    /// Its connection ends.
    Leaves(Person),
    /// Half of a wait is over.
    Ticks,
}

use Action::*;

/// Where somebody is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Where {
    Outside,
    Waiting(Waiting),
    Inside,
    Refused,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) incumbent: Person,
    /// Whether that has answered since.
    pub(crate) answered: bool,
    /// Ticks.
    pub(crate) left: u8,
    pub(crate) woken: bool,
}

/// Somebody, as can be seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) user: &'static str,
    pub(crate) place: Where,
    pub(crate) challenged: bool,
    pub(crate) evicted: Option<Eviction>,
}

/// All of it, as can be seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) people: Vec<Seen>,
    /// How many places are taken.
    pub(crate) taken: usize,
    /// Who took the place last, if it is taken.
    pub(crate) owner: Option<Person>,
}

/// One step, as a property judges it.
pub(crate) struct Turn<'a> {
    pub(crate) policy: DuplicatePolicy,
    pub(crate) before: &'a View,
    pub(crate) action: Action,
    pub(crate) after: &'a View,
}

/// How the people are set up for an exploration: one for each user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) policy: DuplicatePolicy,
    pub(crate) users: &'static [&'static str],
    pub(crate) seeded: Option<SeededPlace>,
}

pub(crate) struct Places {
    setup: Setup,
    clock: Rc<Runtime>,
    registry: InProcessRegistry,
    people: Vec<Someone>,
    owner: Option<Person>,
}

struct Someone {
    user: &'static str,
    occupant: Occupant,
    state: State,
}

enum State {
    Outside,
    Waiting { register: Register, flag: Arc<Flag>, waiting: Waiting },
    Inside(#[expect(dead_code, reason = "it is held")] Registration),
    Refused,
    Gone,
}

type Register = Pin<Box<dyn Future<Output = Result<Registration, RegistryError>>>>;

/// A waker that takes note.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A clock that stands until it is told to go on.
pub(crate) fn clock() -> Rc<Runtime> {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    Rc::new(runtime.expect("a runtime"))
}

impl Places {
    pub(crate) fn new(setup: Setup, clock: Rc<Runtime>) -> Places {
        let policy = match setup.seeded {
            Some(SeededPlace::OtherPolicy) => DuplicatePolicy::Takeover,
            _ => setup.policy,
        };
        let registry = InProcessRegistry::new(policy, TICK * WAIT.into());
        let outside = |user: &&'static str| Someone {
            user,
            occupant: Occupant::default(),
            state: State::Outside,
        };
        let people = setup.users.iter().map(outside).collect();
        Places { setup, clock, registry, people, owner: None }
    }

    pub(crate) fn view(&self) -> View {
        let taken = self.registry.len();
        let owner = self.owner.filter(|_| taken > 0);
        View { people: self.people.iter().map(Someone::seen).collect(), taken, owner }
    }

    fn is_enabled(&self, action: Action) -> bool {
        let state = |person: Person| &self.people[person].state;
        match action {
            Enters(person) => matches!(state(person), State::Outside),
            Runs(person) => match state(person) {
                State::Waiting { flag, .. } => flag.0.load(Ordering::Relaxed),
                _ => false,
            },
            GivesUp(person) => matches!(state(person), State::Waiting { .. }),
            Answers(person) => {
                matches!(state(person), State::Inside(_))
                    && self.people[person].occupant.is_challenged()
            }
            Leaves(person) => matches!(state(person), State::Inside(_)),
            Ticks => self.people.iter().any(|someone| match &someone.state {
                State::Waiting { waiting, .. } => waiting.left > 0,
                _ => false,
            }),
        }
    }

    fn perform(&mut self, action: Action) {
        let seeded = self.setup.seeded;
        match action {
            Enters(person) => self.enters(person),
            Runs(person) => self.runs(person),
            GivesUp(person) => self.people[person].state = State::Gone,
            Answers(person) => {
                let occupant = &self.people[person].occupant;
                if seeded != Some(SeededPlace::AnswersAreLost) {
                    occupant.answer(occupant.challenged());
                }
                for someone in &mut self.people {
                    if let State::Waiting { waiting, .. } = &mut someone.state
                        && waiting.incumbent == person
                    {
                        waiting.answered = true;
                    }
                }
            }
            Leaves(person) => {
                let left = std::mem::replace(&mut self.people[person].state, State::Gone);
                if seeded == Some(SeededPlace::PlaceIsKept) {
                    std::mem::forget(left);
                }
            }
            Ticks => {
                let clock = Rc::clone(&self.clock);
                clock.block_on(advance(TICK));
                for someone in &mut self.people {
                    if let State::Waiting { waiting, .. } = &mut someone.state {
                        waiting.left = waiting.left.saturating_sub(1);
                    }
                }
            }
        }
    }

    fn enters(&mut self, person: Person) {
        let Someone { user, occupant, .. } = &self.people[person];
        let (user, registry) = match self.setup.seeded {
            Some(SeededPlace::UsersAreMistaken) => ("u", self.registry.clone()),
            Some(SeededPlace::TwoRegistries) if person > 0 => (*user, InProcessRegistry::default()),
            _ => (*user, self.registry.clone()),
        };
        let client = AuthenticatedClient { client_id: id("client"), verified: verified(user) };
        let occupant = occupant.clone();
        let register = Box::pin(async move { registry.register(&client, occupant).await });
        let waiting = Waiting { incumbent: person, answered: false, left: WAIT, woken: false };
        self.people[person].state = State::Waiting { register, flag: Arc::default(), waiting };
        self.runs(person);
    }

    /// The task of somebody who waits has its turn.
    fn runs(&mut self, person: Person) {
        let state = std::mem::replace(&mut self.people[person].state, State::Gone);
        let State::Waiting { mut register, flag, waiting } = state else { return };
        flag.0.store(false, Ordering::Relaxed);
        let marks = |places: &Places| -> Vec<_> {
            let mark = |it: &Someone| (it.occupant.challenged(), it.occupant.evicted().is_some());
            places.people.iter().map(mark).collect()
        };
        let (before, place) = (marks(self), self.place());
        let waker = Waker::from(Arc::clone(&flag));
        let clock = Rc::clone(&self.clock);
        let came =
            clock.block_on(async { register.as_mut().poll(&mut Context::from_waker(&waker)) });
        if self.place() != place && !self.registry.is_empty() {
            self.owner = Some(person);
        }
        self.people[person].state = match came {
            Poll::Ready(Ok(registration)) => State::Inside(registration),
            Poll::Ready(Err(_)) => State::Refused,
            Poll::Pending => {
                // Whoever was asked for a sign of life, or told to leave, is waited for.
                let after = marks(self);
                let asked = (0..after.len()).find(|it| after[*it].0 > before[*it].0);
                let told = || (0..after.len()).find(|it| after[*it].1 && !before[*it].1);
                let waiting = match asked.or_else(told) {
                    Some(incumbent) => {
                        Waiting { incumbent, answered: false, left: WAIT, woken: false }
                    }
                    None => waiting,
                };
                State::Waiting { register, flag, waiting }
            }
        };
        self.distort(person);
    }

    /// Does what a seeded fault does to somebody who has had its turn.
    fn distort(&mut self, person: Person) {
        let state = &mut self.people[person].state;
        match (self.setup.seeded, &mut *state) {
            (Some(SeededPlace::WakersAreLost), State::Waiting { flag, .. }) => {
                *flag = Arc::default();
            }
            (Some(SeededPlace::TurnsAwayForNothing), State::Inside(_)) => *state = State::Refused,
            (Some(SeededPlace::TurnsAwayTooEarly), State::Waiting { .. }) => {
                *state = State::Refused;
            }
            _ => {}
        }
    }

    /// The occupation of the place, which is the only one: its generation, as `Debug` tells it.
    fn place(&self) -> Option<String> {
        let told = format!("{:?}", self.registry);
        let (_, place) = told.split_once("generation: ")?;
        Some(place.split(',').next().unwrap_or_default().to_owned())
    }
}

impl Someone {
    fn seen(&self) -> Seen {
        let place = match &self.state {
            State::Outside => Where::Outside,
            State::Waiting { flag, waiting, .. } => {
                Where::Waiting(Waiting { woken: flag.0.load(Ordering::Relaxed), ..*waiting })
            }
            State::Inside(_) => Where::Inside,
            State::Refused => Where::Refused,
            State::Gone => Where::Gone,
        };
        let (challenged, evicted) = (self.occupant.is_challenged(), self.occupant.evicted());
        Seen { user: self.user, place, challenged, evicted }
    }
}

impl Machine for Places {
    type Action = Action;

    fn actions(&self) -> Vec<Action> {
        let people = 0..self.people.len();
        let of = |person| {
            [Enters(person), Runs(person), GivesUp(person), Answers(person), Leaves(person)]
        };
        people.flat_map(of).chain([Ticks]).filter(|action| self.is_enabled(*action)).collect()
    }

    fn act(&mut self, action: Action) -> Result<(), Found> {
        let before = self.view();
        self.perform(action);
        let after = self.view();
        let turn = Turn { policy: self.setup.policy, before: &before, action, after: &after };
        let broken = OF_THE_REGISTRY.iter().filter(|(_, holds)| !holds(&turn));
        let broken: Vec<_> = broken.map(|(name, _)| *name).collect();
        match broken.is_empty() {
            true => Ok(()),
            false => Err(Found { broken, told: format!("{after:?}") }),
        }
    }

    fn tell(&mut self, action: Action) -> String {
        self.perform(action);
        String::new()
    }

    fn repeat(&mut self, action: Action) {
        self.perform(action);
    }

    fn fingerprint(&self) -> String {
        format!("{:?}", self.view())
    }

    fn is_over(&self) -> bool {
        self.actions().is_empty()
    }
}
