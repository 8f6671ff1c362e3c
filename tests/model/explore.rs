//! An explorer of our own: breadth first, by replaying paths of actions from the beginning.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use crate::random::Random;

/// Something real that is explored.
pub(crate) trait Machine {
    type Action: Copy + fmt::Debug + PartialEq;

    /// What can happen here.
    fn actions(&self) -> Vec<Self::Action>;

    /// Lets it happen, and judges it.
    fn act(&mut self, action: Self::Action) -> Result<(), Found>;

    /// Lets it happen, and tells what was seen, without what two equal states may tell differently.
    fn tell(&mut self, action: Self::Action) -> String;

    /// Lets it happen again, as it was judged before.
    fn repeat(&mut self, action: Self::Action);

    /// The state: equal texts are equal states.
    fn fingerprint(&self) -> String;

    /// Whether nothing new can happen.
    fn is_over(&self) -> bool;
}

/// A step that breaks properties.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) broken: Vec<&'static str>,
    pub(crate) told: String,
}

/// A way to a step that breaks properties.
pub(crate) struct Counterexample {
    pub(crate) found: Found,
    path: Vec<String>,
}

impl fmt::Debug for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {:?}", self.found.broken)?;
        self.path.iter().try_for_each(|action| writeln!(f, "    {action}"))?;
        write!(f, "seen: {}", self.found.told)
    }
}

/// What an exploration comes to.
pub(crate) struct Explored<A> {
    name: String,
    actions: usize,
    states: HashMap<Key, usize>,
    /// The state before each, and the action that led to it; none for the first.
    ways: Vec<Option<(usize, A)>>,
    depth: usize,
    transitions: usize,
    twins: usize,
    walked: usize,
    time: Duration,
}

/// 64 bits of a fingerprint: of a million states, two have the same once in ten million times.
type Key = u64;

fn key(fingerprint: &str) -> Key {
    let mut hasher = DefaultHasher::new();
    fingerprint.hash(&mut hasher);
    hasher.finish()
}

impl<A> fmt::Display for Explored<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explored { name, actions, transitions, depth, twins, walked, .. } = self;
        let (states, seconds) = (self.states.len(), self.time.as_secs_f64());
        write!(
            f,
            "| {name} | {actions} | {states} | {transitions} | {depth} | {twins} | {walked} | {seconds:.1} |"
        )
    }
}

/// Prints what explorations come to, a row each, and what they come to together.
pub(crate) struct Table {
    states: usize,
    transitions: usize,
    time: Duration,
}

impl Table {
    pub(crate) fn new() -> Table {
        println!("| machine | actions | states | transitions | depth | twins | walked | seconds |");
        println!("|---|---|---|---|---|---|---|---|");
        Table { states: 0, transitions: 0, time: Duration::ZERO }
    }

    pub(crate) fn add<A>(&mut self, explored: Explored<A>) {
        println!("{explored}");
        self.states += explored.states.len();
        self.transitions += explored.transitions;
        self.time += explored.time;
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let Table { states, transitions, time } = self;
        println!("| all | | {states} | {transitions} | | | | {:.1} |", time.as_secs_f64());
    }
}

/// Takes a new machine along a path.
fn replay<M: Machine>(start: &impl Fn() -> M, path: &[M::Action]) -> M {
    let mut machine = start();
    for action in path {
        machine.repeat(*action);
    }
    machine
}

impl<A: Copy> Explored<A> {
    /// The actions that lead to a state.
    fn path(&self, mut state: usize) -> Vec<A> {
        let mut path = vec![];
        while let Some((before, action)) = self.ways[state] {
            path.push(action);
            state = before;
        }
        path.reverse();
        path
    }

    /// How many actions lead to a state.
    fn distance(&self, state: usize) -> usize {
        std::iter::successors(self.ways[state], |(before, _)| self.ways[*before]).count()
    }
}

/// Explores every state that can be reached. One in `twins` arrivals at a known state is compared
/// with the first.
///
/// An action after which the state is the same is followed by the next one without a replay: where
/// it did leave something behind after all, that is found like everything else.
pub(crate) fn explore<M: Machine>(
    name: &str,
    twins: usize,
    start: impl Fn() -> M,
) -> Result<Explored<M::Action>, Counterexample> {
    let began = Instant::now();
    let mut explored = Explored {
        name: name.to_owned(),
        actions: 0,
        states: HashMap::from([(key(&start().fingerprint()), 0)]),
        ways: vec![None],
        depth: 0,
        transitions: 0,
        twins: 0,
        walked: 0,
        time: Duration::ZERO,
    };
    let mut alphabet = vec![];
    let mut state = 0;
    while state < explored.ways.len() {
        let path = explored.path(state);
        let mut machine = replay(&start, &path);
        let here = key(&machine.fingerprint());
        let mut trail = path.clone();
        let mut stayed = true;
        for action in machine.actions() {
            if !alphabet.contains(&action) {
                alphabet.push(action);
            }
            if !stayed {
                machine = replay(&start, &path);
                trail.clone_from(&path);
            }
            trail.push(action);
            explored.transitions += 1;
            if let Err(found) = machine.act(action) {
                let path = trail.iter().map(|action| format!("{action:?}")).collect();
                return Err(Counterexample { found, path });
            }
            let there = key(&machine.fingerprint());
            stayed = there == here;
            match explored.states.get(&there) {
                Some(known) if explored.transitions.is_multiple_of(twins) => {
                    let first = explored.path(*known);
                    compare(&start, &first, &trail);
                    explored.twins += 1;
                }
                Some(_) => {}
                None => {
                    explored.states.insert(there, explored.ways.len());
                    explored.ways.push(Some((state, action)));
                }
            }
        }
        state += 1;
    }
    explored.actions = alphabet.len();
    explored.depth = explored.distance(explored.ways.len() - 1);
    explored.time = began.elapsed();
    Ok(explored)
}

/// Two ways to one state: whatever happens next, the same is seen and the state is the same again.
fn compare<M: Machine>(start: &impl Fn() -> M, one: &[M::Action], other: &[M::Action]) {
    let actions = replay(start, one).actions();
    assert_eq!(actions, replay(start, other).actions(), "after {one:?} and {other:?}");
    for action in actions {
        let [one, other] = [one, other].map(|path| {
            let mut machine = replay(start, path);
            (machine.tell(action), machine.fingerprint())
        });
        assert_eq!(one, other, "{action:?} tells two states of one fingerprint apart");
    }
}

/// How many actions a walk has.
const WALK: usize = 60;

impl<A: Copy + fmt::Debug + PartialEq> Explored<A> {
    /// Walks at random, and meets no state that is not known.
    pub(crate) fn walk<M: Machine<Action = A>>(&mut self, start: impl Fn() -> M, walks: u64) {
        let began = Instant::now();
        for seed in 0..walks {
            let path = walk(&start, seed, |machine| {
                assert!(
                    self.states.contains_key(&key(&machine.fingerprint())),
                    "{}: a walk (seed {seed}) leads to an unknown state: {}",
                    self.name,
                    machine.fingerprint()
                );
            });
            self.walked += path.unwrap_or_else(|wrong| panic!("{}: {wrong:?}", self.name));
        }
        self.time += began.elapsed();
    }
}

/// One walk at random. Of the many ways to end it, most are not taken.
pub(crate) fn walk<M: Machine>(
    start: &impl Fn() -> M,
    seed: u64,
    mut look: impl FnMut(&M),
) -> Result<usize, Counterexample> {
    let mut random = Random::seeded(seed);
    let mut machine = start();
    let mut path = vec![];
    while path.len() < WALK && !machine.is_over() {
        let actions = machine.actions();
        let action = actions[random.below(actions.len())];
        path.push(action);
        if let Err(found) = machine.act(action) {
            let path = path.iter().map(|action| format!("{action:?}")).collect();
            return Err(Counterexample { found, path });
        }
        look(&machine);
        if machine.is_over() && random.percent(95) {
            path.pop();
            machine = replay(start, &path);
        }
    }
    Ok(path.len())
}
