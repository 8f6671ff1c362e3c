//! A run against a server.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};

use super::{
    Case, Need, Outcome, Profile, Report, Tokens, Verdict,
    play::{Exit, Play, Stage, Stop},
    run::Run,
    wire::Stream,
};

/// A server that cases are run against.
#[derive(Clone)]
pub struct Server {
    pub(super) dial: Dial,
    target: String,
    host: String,
    tokens: Arc<Tokens>,
    /// What it is set up with.
    has: Vec<Need>,
    profile: Profile,
    patience: Duration,
    case_deadline: Duration,
    run: Run,
}

type Dial = Arc<dyn Fn() -> BoxFuture<'static, std::io::Result<Box<dyn Stream>>> + Send + Sync>;

impl Server {
    /// A server that `dial` opens streams to, and the tokens it accepts. `target` is what it is
    /// called in the report.
    pub fn new<D, F, S>(target: &str, tokens: Tokens, dial: D) -> Server
    where
        D: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = std::io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let dial: Dial = Arc::new(move || {
            let stream = dial();
            async move { Ok(Box::new(stream.await?) as Box<dyn Stream>) }.boxed()
        });
        Server {
            dial,
            target: target.into(),
            host: "localhost".into(),
            has: needs_met_by(&tokens),
            tokens: Arc::new(tokens),
            profile: Profile::strict(),
            patience: Duration::from_secs(5),
            case_deadline: Duration::from_secs(90),
            run: Run::new(16),
        }
    }

    /// The same server, judged by another profile.
    pub fn with_profile(self, profile: Profile) -> Server {
        Server { profile, ..self }
    }

    /// The same server, which upgrade requests call by this name in `Host`; `localhost` unless set.
    pub fn with_host(self, host: &str) -> Server {
        Server { host: host.into(), ..self }
    }

    /// The same server, which is set up with this too.
    pub fn with(mut self, need: Need) -> Server {
        self.has.push(need);
        self
    }

    /// The same server, which is set up without this.
    pub fn without(mut self, need: Need) -> Server {
        self.has.retain(|has| *has != need);
        self
    }

    /// The same server, whose every answer may take this long; 5 s unless set.
    pub fn with_timeout(self, patience: Duration) -> Server {
        Server { patience, ..self }
    }

    /// The same server, for so many cases at the same time; 16 unless set. Of those that only
    /// wait for its timers there are more beside them, unless it is one at a time.
    pub fn with_cases_at_once(mut self, at_once: usize) -> Server {
        self.run.at_once = at_once.max(1);
        self
    }

    /// The same server, with every case run so many times; once unless set. Where the runs of a case
    /// differ, it is [flaky](super::Standing::Flaky).
    pub fn with_repeats(mut self, times: usize) -> Server {
        self.run.times = times.max(1);
        self
    }

    /// The same server, of which it is known that it fails these cases, by id. They are run all the
    /// same, and are not expected to pass.
    pub fn with_known_failures<I: Into<String>>(
        mut self,
        ids: impl IntoIterator<Item = I>,
    ) -> Server {
        self.run.known.extend(ids.into_iter().map(Into::into));
        self
    }

    /// The same server, for a run that is over after so long; without an end unless set. A case that
    /// is not done by then has failed, for that reason.
    pub fn with_deadline(mut self, deadline: Duration) -> Server {
        self.run.deadline = Some(deadline);
        self
    }

    /// Runs these cases, and tells of each when it is done. They end in any order; the report has
    /// them in the order given.
    pub async fn run(&self, cases: &[Case], done: impl FnMut(&Outcome)) -> Report {
        let started = Instant::now();
        let outcomes = self.run.all(cases, |case| self.run_case(case).boxed(), done).await;
        Report {
            target: self.target.clone(),
            profile: self.profile.name,
            outcomes,
            took: started.elapsed(),
        }
    }

    /// Runs one case.
    pub async fn run_case(&self, case: &Case) -> Outcome {
        let (applied, differs) = self.profile.applied(case);
        let Some(case) = applied else {
            let reason = differs.unwrap_or("not in this profile").to_owned();
            return Outcome { differs, ..Outcome::skipped(case, reason) };
        };
        if !case.versions.contains(&self.profile.version) {
            let reason = format!("it does not hold for {}", self.profile.version);
            return Outcome { differs, ..Outcome::skipped(&case, reason) };
        }
        if let Some(need) = case.needs.iter().find(|need| !self.has.contains(need)) {
            return Outcome { differs, ..Outcome::skipped(&case, format!("it needs {need}")) };
        }
        let stage = Dialled(Arc::clone(&self.dial));
        let mut play =
            Play::new(Box::new(stage), &self.tokens, self.profile.version, self.patience);
        play.host.clone_from(&self.host);
        Outcome { differs, ..judged(&case, play, self.case_deadline).await }
    }
}

/// What the tokens tell of how the server is set up.
fn needs_met_by(tokens: &Tokens) -> Vec<Need> {
    let mut has = vec![Need::Time];
    let Some(key) = tokens.key() else { return has };
    let is_signed = key.minter.algorithm().is_some();
    has.push(if is_signed { Need::SecureMode } else { Need::InsecureMode });
    has.push(if key.namespace.is_some() { Need::Namespace } else { Need::NoNamespace });
    let facts = [
        (key.secret.is_some(), Need::SharedSecret),
        (key.public_key.is_some(), Need::PublicKey),
        (key.issuer.is_some(), Need::Issuer),
        (key.audience.is_some(), Need::Audience),
    ];
    has.extend(facts.into_iter().filter(|(is, _)| *is).map(|(_, need)| need));
    has
}

/// Plays a case and judges it.
pub(super) async fn judged(case: &Case, mut play: Play<'_>, deadline: Duration) -> Outcome {
    let started = Instant::now();
    let played = timeout(deadline, play.script(&case.script)).await;
    let stopped = match played {
        Ok(Ok(())) => None,
        Ok(Err(stop)) => Some(stop),
        Err(_) => Some(Stop::Failed(format!("it is not over after {deadline:?}"))),
    };
    let mut outcome = Outcome::new(case, Verdict::Pass);
    outcome.close = play.close_judged.then_some(Verdict::Pass);
    match stopped {
        None => {}
        Some(Stop::Skipped(reason)) => {
            outcome.behaviour = Verdict::Skipped(reason);
            outcome.close = None;
        }
        Some(Stop::Failed(reason)) => {
            outcome.behaviour = Verdict::Fail(reason);
            outcome.departed = Some(play.at);
        }
        Some(Stop::Close(reason)) => {
            outcome.close = Some(Verdict::Fail(reason));
            outcome.departed = Some(play.at);
        }
    }
    outcome.record = play.record.into_lines();
    outcome.took = started.elapsed();
    outcome
}

/// A server is dialled.
struct Dialled(Dial);

impl Stage for Dialled {
    fn is_client(&self) -> bool {
        true
    }

    fn connect(&mut self) -> BoxFuture<'_, Result<Box<dyn Stream>, String>> {
        let stream = (self.0)();
        async move { stream.await.map_err(|error| format!("cannot connect: {error}")) }.boxed()
    }

    fn exit(&mut self) -> BoxFuture<'_, Exit> {
        std::future::pending().boxed()
    }
}
