//! The client cases against [`Client`].

use std::time::Duration;

use electric_satellite::{
    auth::Minter,
    client::{Advice, Client, Resume, Stopped, Subscription},
    conformance::{
        self, Case, Connections, Exit, Invitation, Launch, Launched, Outcome, SigningKey, Task,
        Tokens, client_cases,
    },
    session::AuthenticatedServer,
    transport::{Connection, Event},
    wire::{
        Message, Version,
        proto::{
            SatInStartReplicationResp, SatInStopReplicationResp, SatOpBegin, SatOpCommit,
            SatOpInsert, SatOpLog, SatRelation, SatRelationColumn, SatTransOp, sat_trans_op::Op,
        },
    },
};
use futures_util::{FutureExt, future::BoxFuture};
use libtest_mimic::Trial;
use tokio::io::DuplexStream;

use super::{simulated, trial};

/// How long a call may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The client of this crate, in this process, behind something.
struct Ours<F>(Version, F);

impl<F> Launch for Ours<F>
where
    F: Fn(DuplexStream) -> DuplexStream + Clone + Send + Sync + 'static,
{
    fn launch(&self, invitation: Invitation) -> BoxFuture<'_, std::io::Result<Launched>> {
        let (version, through) = (self.0, self.1.clone());
        let launched =
            Launched::new(move |connections| app(invitation, version, connections, through));
        async { Ok(launched) }.boxed()
    }
}

/// An application that does what it is told, until it is told to end.
async fn app<F>(
    invitation: Invitation,
    version: Version,
    connections: Connections,
    through: F,
) -> Exit
where
    F: Fn(DuplexStream) -> DuplexStream + Clone + Send + Sync + 'static,
{
    let Invitation { token, client_id, task } = invitation;
    let streams = connections.clone();
    let client = Client::builder("ws://suite", token)
        .expect("a URL")
        .client_id(client_id)
        .versions([version])
        .dialer(move |_, _| {
            let (streams, through) = (streams.clone(), through.clone());
            async move {
                let (near, far) = tokio::io::duplex(64 * 1024);
                streams.push(through(far)).await;
                Ok(near)
            }
        })
        .build();
    client.connect();
    tokio::select! {
        exit = replicate(&client, task) => exit,
        () = connections.ended() => {
            client.disconnect();
            client.closed().await;
            Exit::Success
        }
    }
}

/// One connection after the other.
async fn replicate(client: &Client, task: Task) -> Exit {
    let mut resume = Resume::default();
    loop {
        match client.connection().await {
            Ok(connection) => session(connection, &mut resume, task).await,
            Err(Stopped::Offline) => return Exit::Success,
            Err(stopped) => return Exit::Failure(stopped.to_string()),
        }
    }
}

async fn session(mut connection: Connection<AuthenticatedServer>, resume: &mut Resume, task: Task) {
    if let Err(error) = connection.start_replication(resume, WITHIN).await {
        if error.advice() == Advice::ResetState {
            resume.reset();
        }
        return;
    }
    let sender = connection.sender().clone();
    match task {
        Task::Stop => drop(tokio::spawn(async move { sender.stop_replication(WITHIN).await })),
        Task::Subscribe | Task::Unsubscribe if resume.subscriptions.is_empty() => {
            let items = Subscription::new().shape("items");
            drop(tokio::spawn(async move { sender.subscribe(items, WITHIN).await }));
        }
        _ => {}
    }
    while let Some(event) = connection.recv().await {
        match event {
            Event::Message(message) => {
                resume.stored(&message);
                let _ = connection.acknowledge(resume).await;
                if task == Task::Unsubscribe && matches!(message, Message::SubsDataEnd(_)) {
                    let (sender, ids) = (connection.sender().clone(), resume.subscriptions.clone());
                    tokio::spawn(async move { sender.unsubscribe(ids, WITHIN).await });
                }
            }
            Event::StartReplication(_, responder) => {
                responder.reply(SatInStartReplicationResp::default());
                if task == Task::Write {
                    for message in row() {
                        let _ = connection.send(message).await;
                    }
                }
            }
            Event::StopReplication(_, responder) => responder.reply(SatInStopReplicationResp {}),
            _ => {}
        }
    }
}

/// A row of `items`, written in a transaction.
fn row() -> [Message; 2] {
    let column = |name: &str, primary_key| SatRelationColumn {
        name: name.into(),
        r#type: "TEXT".into(),
        primary_key,
        is_nullable: !primary_key,
    };
    let items = SatRelation {
        schema_name: "public".into(),
        table_name: "items".into(),
        relation_id: 1,
        columns: vec![column("id", true), column("content", false)],
        ..Default::default()
    };
    let begin = SatOpBegin { lsn: "1".into(), ..Default::default() };
    let insert = SatOpInsert {
        relation_id: 1,
        row_data: Some([Some("1"), Some("one")].into_iter().collect()),
        tags: vec![],
    };
    let commit = SatOpCommit { lsn: "1".into(), ..Default::default() };
    let ops = [Op::Begin(begin), Op::Insert(insert), Op::Commit(commit)];
    let ops = ops.map(|op| SatTransOp { op: Some(op) }).into();
    [items.into(), SatOpLog { ops }.into()]
}

/// The versions whose streams differ most.
const VERSIONS: [Version; 2] = [Version::V0_12, Version::V0_6];

pub(super) fn trials() -> Vec<Trial> {
    let cases = client_cases();
    VERSIONS
        .iter()
        .flat_map(|version| cases.iter().map(|case| one(*version, case.clone())))
        .collect()
}

fn one(version: Version, case: Case) -> Trial {
    trial(format!("client::{version}::{}", case.id), move || {
        run_through(&case, version, |stream| stream)
    })
}

/// Runs a case against the client behind something.
pub(super) fn run_through<F>(case: &Case, version: Version, through: F) -> Outcome
where
    F: Fn(DuplexStream) -> DuplexStream + Clone + Send + Sync + 'static,
{
    simulated(async {
        let tokens = Tokens::made_with(SigningKey::new(Minter::unsigned()));
        conformance::Client::new("this crate", tokens, Ours(version, through)).run_case(case).await
    })
}
