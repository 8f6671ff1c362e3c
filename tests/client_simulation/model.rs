//! What a client must do, as far as its documentation tells: when it may dial, why it may ask for
//! a token, how long it may wait, and what it may say about itself.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use electric_satellite::client::{
    Advice, Backoff, Connectivity, Failure, RenewalPolicy,
    TokenReason::{self, *},
};
use tokio::{sync::watch, time::Instant};

use crate::world::World;

/// The pauses of the clients here.
pub(crate) const BACKOFF: Backoff = Backoff {
    initial: Duration::from_secs(1),
    max: Duration::from_secs(10),
    attempts: None,
    stable_after: Duration::from_secs(10),
    max_hint: Duration::from_secs(20),
};

/// A client as it is seen from outside. Clones are the same.
#[derive(Clone)]
pub(crate) struct Model {
    world: Arc<World>,
    renewal: RenewalPolicy,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The application wants it to be connected.
    online: bool,
    /// It wants so anew, and the provider was not asked since.
    is_fresh: bool,
    /// What the provider was asked last for the sake of an attempt.
    asked: Option<TokenReason>,
    /// The failure that it has told since.
    failure: Option<Arc<Failure>>,
    /// When the next attempt may be made, if the client waits.
    next_attempt: Option<Instant>,
    /// It was told that the moment is good, which may cut a pause short.
    hasty: bool,
    /// How often in a row it has waited.
    pauses: u32,
    connected_since: Option<Instant>,
    /// How often it has been connected.
    connections: u64,
    /// How many streams it has.
    open: usize,
}

impl State {
    /// If there was a connection, it is no more.
    fn is_lost(&mut self, at: Instant) {
        let since = self.connected_since.take();
        if since.is_some_and(|since| at - since >= BACKOFF.stable_after) {
            self.pauses = 0;
        }
    }
}

impl Model {
    pub(crate) fn new(world: &Arc<World>, renewal: RenewalPolicy) -> Model {
        Model { world: Arc::clone(world), renewal, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn is_online(&self) -> bool {
        self.state().online
    }

    pub(crate) fn connections(&self) -> u64 {
        self.state().connections
    }

    // ---- What the application does ----

    pub(crate) fn connects(&self, now: &Connectivity) {
        let has_given_up =
            matches!(now, Connectivity::Disconnected { reason: Some(_), next_attempt: None });
        let mut state = self.state();
        if !state.online || has_given_up {
            let (open, connections) = (state.open, state.connections);
            *state = State { online: true, is_fresh: true, open, connections, ..State::default() };
        }
    }

    pub(crate) fn disconnects(&self) {
        let mut state = self.state();
        (state.online, state.is_fresh) = (false, false);
    }

    pub(crate) fn retries_now(&self) {
        self.state().hasty = true;
    }

    // ---- What the client does ----

    /// It asks for a token.
    pub(crate) fn asks(&self, reason: TokenReason, now: &Connectivity) {
        let mut state = self.state();
        self.world.note(format_args!("a token is asked for: {reason:?}"));
        let check = |holds, what: &str| {
            self.world.check(holds, || format!("{reason:?} is asked for {what}"));
        };
        check(state.online, "when something is wanted");
        match reason {
            Expiring => {
                check(self.renewal != RenewalPolicy::Never, "where that is the policy");
                check(matches!(now, Connectivity::Connected { .. }), "while it is connected");
                if let RenewalPolicy::Reconnect(_) = self.renewal {
                    // Should there be one.
                    state.asked = Some(Expiring);
                }
                return;
            }
            Connect => check(state.is_fresh, "at the beginning"),
            Reconnect | Rejected => {
                check(!state.is_fresh, "after the beginning");
                // A failure after which it did not wait may not have been seen.
                let failure = state.failure.take();
                check(failure.is_some() || state.hasty, "after a failure that was told");
                if let Some(failure) = failure.as_deref().filter(|_| !state.hasty) {
                    let is_missing =
                        matches!(failure, Failure::Token(_) | Failure::TokenTimeout(_));
                    let expected = match failure.advice() {
                        Advice::FreshToken => Rejected,
                        _ if is_missing && state.asked == Some(Rejected) => Rejected,
                        _ => Reconnect,
                    };
                    check(reason == expected, &format!("after {failure}"));
                }
            }
        }
        state.is_fresh = false;
        state.asked = Some(reason);
    }

    /// It dials.
    pub(crate) fn dials(&self) {
        let state = self.state();
        self.world.note("it dials");
        self.world.check(state.online, || "nobody dials when nothing is wanted".into());
        self.world.check(!state.is_fresh, || "a token is asked for before an attempt".into());
        self.world.check(state.open == 0, || "there is one connection at a time".into());
        let early = state.next_attempt.is_some_and(|at| Instant::now() < at);
        self.world.check(!early || state.hasty, || "an attempt comes after the pause".into());
    }

    pub(crate) fn opened(&self) {
        self.state().open += 1;
    }

    pub(crate) fn closed(&self) {
        self.state().open -= 1;
    }

    /// Listens to what it says about itself.
    pub(crate) async fn listen(self, mut connectivity: watch::Receiver<Connectivity>) {
        while connectivity.changed().await.is_ok() {
            let now = connectivity.borrow_and_update().clone();
            self.says(now);
        }
    }

    fn says(&self, now: Connectivity) {
        let mut state = self.state();
        let at = Instant::now();
        match &now {
            Connectivity::Disconnected { reason, .. } => match reason {
                Some(failure) => self.world.note(format_args!("disconnected: {failure}")),
                None => self.world.note("offline"),
            },
            Connectivity::Connecting => self.world.note("connecting"),
            Connectivity::Connected { server_id, version } => {
                self.world.note(format_args!("connected to {server_id} by {version}"));
            }
            _ => {}
        }
        // What it said before it was told otherwise may be heard after.
        if !state.online || state.is_fresh {
            return;
        }
        match now {
            Connectivity::Connecting => {
                state.is_lost(at);
                if let Some(next_attempt) = state.next_attempt.take() {
                    if at < next_attempt {
                        state.pauses = 0;
                    }
                    state.hasty = false;
                }
            }
            Connectivity::Connected { .. } => {
                state.connected_since = Some(at);
                state.connections += 1;
                state.hasty = false;
            }
            Connectivity::Disconnected { reason: Some(failure), next_attempt: Some(next) } => {
                state.is_lost(at);
                state.pauses += 1;
                self.waits(&failure, next - at, state.pauses);
                (state.failure, state.next_attempt) = (Some(failure), Some(next));
            }
            Connectivity::Disconnected { reason: Some(failure), next_attempt: None } => {
                let is_final = match failure.advice() {
                    Advice::GiveUp => true,
                    Advice::FreshToken => {
                        state.asked == Some(Rejected) && matches!(*failure, Failure::Connect(_))
                    }
                    _ => false,
                };
                self.world.check(is_final, || format!("this is no reason to give up: {failure}"));
            }
            now => self.world.broken(format!("it is to be online, and says {now:?}")),
        }
    }

    /// It waits for so long, for the so many-th time in a row.
    fn waits(&self, failure: &Failure, pause: Duration, pauses: u32) {
        let hint = failure.retry_after().unwrap_or_default().min(BACKOFF.max_hint);
        let longest = BACKOFF.initial.saturating_mul(1 << (pauses - 1).min(10)).min(BACKOFF.max);
        self.world.check(pause >= hint, || format!("{pause:?} is shorter than {hint:?}"));
        self.world.check(pause <= hint + longest, || {
            format!("{pause:?} is longer than {longest:?} and {hint:?}")
        });
        if failure.advice() == Advice::GiveUp {
            self.world.broken(format!("it goes on after {failure}"));
        }
    }
}
