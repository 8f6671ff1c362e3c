//! A run against a client.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::session::{ClientId, Token};

use super::{
    Case, Line, Need, Outcome, Profile, Report, Task, Tokens,
    play::{Exit, Play, Stage, Stop, USER},
    run::{Run, run_options},
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
    remarks: mpsc::Receiver<(Instant, String)>,
    /// Whether it is asked to end.
    end: watch::Sender<bool>,
    running: AbortOnDrop,
}

/// How long a client may take from its start to its first connection.
const LONGEST_START: Duration = Duration::from_secs(60);

/// How many of a client's words are kept.
const MOST_REMARKS: usize = 500;

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
        let (streams, connections) = mpsc::channel(64);
        let (words, remarks) = mpsc::channel(MOST_REMARKS);
        let (end, ending) = watch::channel(false);
        let running = AbortOnDrop(tokio::spawn(client(Connections { streams, words, ending })));
        Launched { connections, remarks, end, running }
    }

    /// What the client has said, for the record that began then.
    fn remarks(&mut self, began: Instant) -> Vec<Line> {
        let line = |(at, what): (Instant, String)| {
            let at_ms = at.saturating_duration_since(began).as_millis();
            let at_ms = u64::try_from(at_ms).unwrap_or(u64::MAX);
            let bytes = String::new();
            Line { at_ms, connection: 0, from: "", step: 0, what, bytes, http: false }
        };
        std::iter::from_fn(|| self.remarks.try_recv().ok()).map(line).collect()
    }
}

/// Takes the connections of a client, and tells it when to end.
#[derive(Clone)]
pub struct Connections {
    streams: mpsc::Sender<Box<dyn Stream>>,
    words: mpsc::Sender<(Instant, String)>,
    ending: watch::Receiver<bool>,
}

impl Connections {
    /// Waits until the client is asked to end, as it would by its user: it closes its connection
    /// and exits. Cancel-safe.
    pub async fn ended(&self) {
        let mut ending = self.ending.clone();
        if ending.wait_for(|end| *end).await.is_err() {
            // Nobody is there to ask any more; it is dropped.
            std::future::pending().await
        }
    }

    /// A line for the record: what the client says of itself. Beyond some hundreds they are lost.
    pub fn remark(&self, what: impl Into<String>) {
        let _ = self.words.try_send((Instant::now(), what.into()));
    }

    /// Another one.
    pub async fn push<S>(&self, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let _ = self.streams.send(Box::new(stream)).await;
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
    tokens: Arc<Tokens>,
    run: Run,
}

impl Client {
    /// A client that is started so. `target` is what it is called in the report.
    pub fn new(target: &str, tokens: Tokens, launch: impl Launch + 'static) -> Client {
        let times = (Duration::from_secs(15), Duration::from_secs(120));
        Client {
            launch: Arc::new(launch),
            tokens: Arc::new(tokens),
            run: Run::new(target, vec![Need::Time], times, 2),
        }
    }

    /// Runs one case.
    pub async fn run_case(&self, case: &Case) -> Outcome {
        let (case, differs) = match self.run.applied(case) {
            Ok(applied) => applied,
            Err(skipped) => return *skipped,
        };
        if let Some(reason) = self.run.lacks(&case) {
            return Outcome { differs, ..Outcome::skipped(&case, reason) };
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
        let (id, told) = (client_id.clone(), token.clone());
        let invitation = Invitation { token: told, client_id: id, task: case.task };
        let launched = match self.launch.launch(invitation).await {
            Ok(launched) => launched,
            Err(error) => {
                let reason = format!("the client cannot be started: {error}");
                return Outcome::new(&case, super::Verdict::Fail(reason));
            }
        };
        let mut coming = Coming { launched, exited: None };
        // How long it takes to start is not judged. If it does not, its script says so.
        let first = timeout(LONGEST_START, (&mut coming).connect()).await;
        let (began, stage) = (Instant::now(), Box::new(&mut coming));
        let mut play = Play::new(stage, &self.tokens, self.run.profile.version, self.run.patience);
        play.client_id = client_id.as_str().to_owned();
        play.record.hide(token.expose());
        play.versions = case.versions.clone();
        play.told = Some(token.clone());
        play.waiting = first.ok().and_then(Result::ok);
        let mut outcome = Outcome { differs, ..judged(&case, play, self.run.case_deadline).await };
        for mut remark in coming.launched.remarks(began) {
            remark.what = without(&token, &remark.what);
            outcome.record.push(remark);
        }
        outcome.record.sort_by_key(|line| line.at_ms);
        outcome
    }
}

run_options!(Client, "15", "2");

/// A line without the signature of a token.
fn without(token: &Token, line: &str) -> String {
    match token.expose().rsplit_once('.') {
        Some((_, signature)) if !signature.is_empty() => line.replace(signature, "***"),
        _ => line.to_owned(),
    }
}

/// A client comes of its own accord.
struct Coming {
    launched: Launched,
    exited: Option<Exit>,
}

impl Stage for &mut Coming {
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

    fn terminate(&mut self) {
        self.launched.end.send_replace(true);
    }
}
