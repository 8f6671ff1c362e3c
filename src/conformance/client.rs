//! A run against a client.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::session::{ClientId, Token};

use super::{
    Case, Need, Outcome, Profile, Report, Task, Tokens,
    play::{Exit, Play, Stage, Stop, USER},
    run::Run,
    server::judged,
    token::TokenSpec,
    wire::Stream,
};

/// What a client under test is told.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The token to present.
    pub token: Token,
    /// The client id to present.
    pub client_id: ClientId,
    /// What to do.
    pub task: Task,
}

/// A client that was started: where its connections come from, and how it ends.
pub struct Launched {
    connections: mpsc::Receiver<Box<dyn Stream>>,
    running: AbortOnDrop,
}

/// A client that ends when nobody looks at it any more.
struct AbortOnDrop(JoinHandle<Exit>);

impl AbortOnDrop {
    async fn exit(&mut self) -> Exit {
        (&mut self.0).await.unwrap_or_else(|error| Exit::Failure(error.to_string()))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Launched {
    /// A client that runs as this future, in a task of its own: it hands over its connections, and
    /// is dropped to end it.
    pub fn new<F>(client: impl FnOnce(Connections) -> F) -> Launched
    where
        F: Future<Output = Exit> + Send + 'static,
    {
        let (sender, connections) = mpsc::channel(64);
        let running = AbortOnDrop(tokio::spawn(client(Connections(sender))));
        Launched { connections, running }
    }
}

/// Takes the connections of a client.
#[derive(Clone)]
pub struct Connections(mpsc::Sender<Box<dyn Stream>>);

impl Connections {
    /// Another one.
    pub async fn push<S>(&self, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let _ = self.0.send(Box::new(stream)).await;
    }
}

/// Starts the client under test.
pub trait Launch: Send + Sync {
    /// Starts it once.
    fn launch(&self, invitation: Invitation) -> BoxFuture<'_, std::io::Result<Launched>>;
}

/// A client that cases are run against: it is started once for each.
#[derive(Clone)]
pub struct Client {
    launch: Arc<dyn Launch>,
    target: String,
    tokens: Arc<Tokens>,
    has: Vec<Need>,
    profile: Profile,
    patience: Duration,
    case_deadline: Duration,
    run: Run,
}

impl Client {
    /// A client that is started so. `target` is what it is called in the report.
    pub fn new(target: &str, tokens: Tokens, launch: impl Launch + 'static) -> Client {
        Client {
            launch: Arc::new(launch),
            target: target.into(),
            tokens: Arc::new(tokens),
            has: vec![Need::Time],
            profile: Profile::strict(),
            patience: Duration::from_secs(15),
            case_deadline: Duration::from_secs(120),
            run: Run::new(2),
        }
    }

    /// The same client, judged by another profile.
    pub fn with_profile(self, profile: Profile) -> Client {
        Client { profile, ..self }
    }

    /// The same client, which may take this long for everything it does; 15 s unless set.
    pub fn with_timeout(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    /// The same client, so many times at the same time; 2 unless set.
    pub fn with_cases_at_once(mut self, at_once: usize) -> Client {
        self.run.at_once = at_once.max(1);
        self
    }

    /// The same client, with every case run so many times; once unless set. Where the runs of a case
    /// differ, it is [flaky](super::Standing::Flaky).
    pub fn with_repeats(mut self, times: usize) -> Client {
        self.run.times = times.max(1);
        self
    }

    /// The same client, of which it is known that it fails these cases, by id. They are run all the
    /// same, and are not expected to pass.
    pub fn with_known_failures<I: Into<String>>(
        mut self,
        ids: impl IntoIterator<Item = I>,
    ) -> Client {
        self.run.known.extend(ids.into_iter().map(Into::into));
        self
    }

    /// The same client, for a run that is over after so long; without an end unless set. A case that
    /// is not done by then has failed, for that reason.
    pub fn with_deadline(mut self, deadline: Duration) -> Client {
        self.run.deadline = Some(deadline);
        self
    }

    /// Runs these cases, and tells of each when it is done.
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
        if let Some(need) = case.needs.iter().find(|need| !self.has.contains(need)) {
            return Outcome { differs, ..Outcome::skipped(&case, format!("it needs {need}")) };
        }
        let client_id = ClientId::random();
        let token = match self.tokens.make(&TokenSpec::good(), USER).await.map(Token::new) {
            Ok(Ok(token)) => token,
            Ok(Err(error)) => return Outcome::skipped(&case, error.to_string()),
            Err(Stop::Skipped(reason)) => return Outcome::skipped(&case, reason),
            Err(Stop::Failed(reason) | Stop::Close(reason)) => {
                return Outcome::new(&case, super::Verdict::Fail(reason));
            }
        };
        let invitation = Invitation { token, client_id: client_id.clone(), task: case.task };
        let launched = match self.launch.launch(invitation).await {
            Ok(launched) => launched,
            Err(error) => {
                let reason = format!("the client cannot be started: {error}");
                return Outcome::new(&case, super::Verdict::Fail(reason));
            }
        };
        let stage = Coming { launched, exited: None };
        let mut play =
            Play::new(Box::new(stage), &self.tokens, self.profile.version, self.patience);
        play.client_id = client_id.as_str().to_owned();
        Outcome { differs, ..judged(&case, play, self.case_deadline).await }
    }
}

/// A client comes of its own accord.
struct Coming {
    launched: Launched,
    exited: Option<Exit>,
}

impl Stage for Coming {
    fn is_client(&self) -> bool {
        false
    }

    fn connect(&mut self) -> BoxFuture<'_, Result<Box<dyn Stream>, String>> {
        async {
            loop {
                if let Some(exit) = &self.exited {
                    return Err(format!("the client does not connect; it has exited: {exit:?}"));
                }
                tokio::select! {
                    biased;
                    Some(stream) = self.launched.connections.recv() => return Ok(stream),
                    exit = self.launched.running.exit() => self.exited = Some(exit),
                }
            }
        }
        .boxed()
    }

    fn exit(&mut self) -> BoxFuture<'_, Exit> {
        async {
            match &self.exited {
                Some(exit) => exit.clone(),
                None => {
                    let exit = self.launched.running.exit().await;
                    self.exited.insert(exit).clone()
                }
            }
        }
        .boxed()
    }
}
