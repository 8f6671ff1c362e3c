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
    run::{Run, run_options},
    wire::Stream,
};

/// A server that cases are run against.
#[derive(Clone)]
pub struct Server {
    dial: Dial,
    host: String,
    tokens: Arc<Tokens>,
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
        let times = (Duration::from_secs(5), Duration::from_secs(90));
        Server {
            dial,
            host: "localhost".into(),
            run: Run::new(target, needs_met_by(&tokens), times, 16),
            tokens: Arc::new(tokens),
        }
    }

    /// The same server, which upgrade requests call by this name in `Host`; `localhost` unless set.
    pub fn with_host(self, host: &str) -> Server {
        Server { host: host.into(), ..self }
    }

    /// The same server, which is set up with this too.
    pub fn with(mut self, need: Need) -> Server {
        self.run.has.push(need);
        self
    }

    /// The same server, which is set up without this.
    pub fn without(mut self, need: Need) -> Server {
        self.run.has.retain(|has| *has != need);
        self
    }

    /// Runs one case.
    pub async fn run_case(&self, case: &Case) -> Outcome {
        let (case, differs) = match self.run.applied(case) {
            Ok(applied) => applied,
            Err(skipped) => return *skipped,
        };
        let version = self.run.profile.version;
        let does_not_hold = !case.versions.contains(&version);
        let reason = does_not_hold.then(|| format!("it does not hold for {version}"));
        if let Some(reason) = reason.or_else(|| self.run.lacks(&case)) {
            return Outcome { differs, ..Outcome::skipped(&case, reason) };
        }
        let stage = Dialled(Arc::clone(&self.dial));
        let mut play = Play::new(Box::new(stage), &self.tokens, version, self.run.patience);
        play.host.clone_from(&self.host);
        Outcome { differs, ..judged(&case, play, self.run.case_deadline).await }
    }
}

run_options!(Server, "5", "16");

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
