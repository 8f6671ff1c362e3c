//! How cases are run: how many at the same time, how often, until when.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{Case, Need, Outcome, Verdict};

/// What is the same for every case of a run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) at_once: usize,
    pub(super) times: usize,
    /// The ids of cases that are known to fail.
    pub(super) known: BTreeSet<String>,
    pub(super) deadline: Option<Duration>,
}

impl Run {
    pub(super) fn new(at_once: usize) -> Run {
        Run { at_once, times: 1, known: BTreeSet::new(), deadline: None }
    }

    /// Runs cases, and tells of each when it is done. They end in any order; the outcomes have the
    /// order of the cases.
    pub(super) async fn all<'a>(
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
