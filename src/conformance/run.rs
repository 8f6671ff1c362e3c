//! How cases are run: how many at the same time, how often, until when.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{Case, Need, Outcome, Profile, Report, Verdict};

/// What is the same for every case of a run, against a server or a client.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What the peer is called in the report.
    pub(super) target: String,
    /// What the peer is set up with.
    pub(super) has: Vec<Need>,
    pub(super) profile: Profile,
    /// How long a step may take, and a case.
    pub(super) patience: Duration,
    pub(super) case_deadline: Duration,
    pub(super) at_once: usize,
    pub(super) times: usize,
    /// The ids of cases that are known to fail.
    pub(super) known: BTreeSet<String>,
    pub(super) deadline: Option<Duration>,
}

/// The options of a run, which a server and a client have alike.
macro_rules! run_options {
    ($peer:ident, $patience:literal, $at_once:literal) => {
        impl $peer {
            /// The same peer, judged by another profile.
            pub fn with_profile(mut self, profile: Profile) -> $peer {
                self.run.profile = profile;
                self
            }

            #[doc = concat!("The same peer, which may take this long for each step; ", $patience)]
            /// seconds unless set.
            pub fn with_timeout(mut self, patience: Duration) -> $peer {
                self.run.patience = patience;
                self
            }

            #[doc = concat!("The same peer, for so many cases at the same time; ", $at_once)]
            /// unless set. Of those that only wait for its timers there are more beside them,
            /// unless it is one at a time.
            pub fn with_cases_at_once(mut self, at_once: usize) -> $peer {
                self.run.at_once = at_once.max(1);
                self
            }

            /// The same peer, with every case run so many times; once unless set. Where the runs
            /// of a case differ, it is [flaky](super::Standing::Flaky).
            pub fn with_repeats(mut self, times: usize) -> $peer {
                self.run.times = times.max(1);
                self
            }

            /// The same peer, of which it is known that it fails these cases, by id. They are run
            /// all the same, and are not expected to pass.
            pub fn with_known_failures<I: Into<String>>(
                mut self,
                ids: impl IntoIterator<Item = I>,
            ) -> $peer {
                self.run.known.extend(ids.into_iter().map(Into::into));
                self
            }

            /// The same peer, for a run that is over after so long; without an end unless set. A
            /// case that is not done by then has failed, for that reason.
            pub fn with_deadline(mut self, deadline: Duration) -> $peer {
                self.run.deadline = Some(deadline);
                self
            }

            /// Runs these cases, and tells of each when it is done. They end in any order; the
            /// report has them in the order given.
            pub async fn run(&self, cases: &[Case], done: impl FnMut(&Outcome)) -> Report {
                self.run.report(cases, |case| self.run_case(case).boxed(), done).await
            }
        }
    };
}
pub(super) use run_options;

impl Run {
    pub(super) fn new(
        target: &str,
        has: Vec<Need>,
        (patience, case_deadline): (Duration, Duration),
        at_once: usize,
    ) -> Run {
        Run {
            target: target.to_owned(),
            has,
            profile: Profile::strict(),
            patience,
            case_deadline,
            at_once,
            times: 1,
            known: BTreeSet::new(),
            deadline: None,
        }
    }

    /// The case as the profile has it, and why it is different; or that it is not run.
    pub(super) fn applied(
        &self,
        case: &Case,
    ) -> Result<(Case, Option<&'static str>), Box<Outcome>> {
        let (applied, differs) = self.profile.applied(case);
        applied.map(|case| (case, differs)).ok_or_else(|| {
            let reason = differs.unwrap_or("not in this profile").to_owned();
            Box::new(Outcome { differs, ..Outcome::skipped(case, reason) })
        })
    }

    /// Why a case does not apply, if the peer is not set up for it.
    pub(super) fn lacks(&self, case: &Case) -> Option<String> {
        let need = case.needs.iter().find(|need| !self.has.contains(need));
        need.map(|need| format!("it needs {need}"))
    }

    pub(super) async fn report<'a>(
        &self,
        cases: &'a [Case],
        run: impl Fn(&'a Case) -> BoxFuture<'a, Outcome>,
        done: impl FnMut(&Outcome),
    ) -> Report {
        let started = Instant::now();
        let outcomes = self.all(cases, run, done).await;
        Report {
            target: self.target.clone(),
            profile: self.profile.name,
            outcomes,
            took: started.elapsed(),
        }
    }

    /// Runs cases, and tells of each when it is done. They end in any order; the outcomes have the
    /// order of the cases.
    async fn all<'a>(
        &self,
        cases: &'a [Case],
        run: impl Fn(&'a Case) -> BoxFuture<'a, Outcome>,
        mut done: impl FnMut(&Outcome),
    ) -> Vec<Outcome> {
        let until = self.deadline.map(|deadline| Instant::now() + deadline);
        let busy = Semaphore::new(self.at_once);
        // Those that wait for a timer of the peer take long and cost little: they begin first, and
        // do not hold up the others.
        let idle = Semaphore::new(4 * self.at_once);
        let mut order: Vec<usize> = (0..cases.len()).collect();
        order.sort_by_key(|nth| !waits(&cases[*nth]));
        let one = async |nth: usize| {
            let case = &cases[nth];
            let room = if waits(case) && self.at_once > 1 { &idle } else { &busy };
            let _room = room.acquire().await;
            (nth, self.repeatedly(case, &run).await)
        };
        let mut running: FuturesUnordered<_> = order.into_iter().map(one).collect();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; cases.len()];
        while let Some((nth, outcome)) = next_until(&mut running, until).await {
            done(&outcome);
            outcomes[nth] = Some(outcome);
        }
        let undone = |case| {
            let outcome = self.undone(case);
            done(&outcome);
            outcome
        };
        let mut undone = undone;
        let outcomes = outcomes.into_iter().zip(cases);
        outcomes.map(|(outcome, case)| outcome.unwrap_or_else(|| undone(case))).collect()
    }

    /// Runs a case as often as is wanted: what counts is the worst.
    async fn repeatedly<'a>(
        &self,
        case: &'a Case,
        run: &impl Fn(&'a Case) -> BoxFuture<'a, Outcome>,
    ) -> Outcome {
        let mut worst = run(case).await;
        for _ in 1..self.times {
            worst = worst.or_worse(run(case).await);
        }
        worst.known = self.known.contains(case.id);
        worst
    }

    fn undone(&self, case: &Case) -> Outcome {
        let deadline = self.deadline.unwrap_or_default();
        let reason = format!("it was not done when the run was over, after {deadline:?}");
        let known = self.known.contains(case.id);
        Outcome { known, ..Outcome::new(case, Verdict::Fail(reason)) }
    }
}

/// Whether a case waits for what takes longer than some seconds.
fn waits(case: &Case) -> bool {
    case.needs.contains(&Need::Time)
}

/// The next that is done, if any is until then.
async fn next_until<F: Future>(
    running: &mut FuturesUnordered<F>,
    until: Option<Instant>,
) -> Option<F::Output> {
    match until {
        None => running.next().await,
        Some(until) => timeout_at(until, running.next()).await.ok().flatten(),
    }
}
