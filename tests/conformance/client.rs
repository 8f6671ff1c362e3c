//! The client cases against [`Client`].

use std::time::Duration;

use electric_satellite::{
    auth::Minter,
    client::{Advice, Client, Resume, Stopped, Subscription},
    conformance::{
        self, Case, Connections, Exit, Invitation, Launch, Launched, Outcome, SigningKey, Task,
        Tokens, client_cases,
    },
    transport::Event,
};
use futures_util::{FutureExt, future::BoxFuture};
use libtest_mimic::Trial;
use tokio::io::DuplexStream;

use super::{simulated, trial};

/// How long a call may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The client of this crate, in this process, behind something.
struct Ours<F>(F);

impl<F> Launch for Ours<F>
where
    F: Fn(DuplexStream) -> DuplexStream + Clone + Send + Sync + 'static,
{
    fn launch(&self, invitation: Invitation) -> BoxFuture<'_, std::io::Result<Launched>> {
        let through = self.0.clone();
        let launched = Launched::new(|connections| app(invitation, connections, through));
        async { Ok(launched) }.boxed()
    }
}

/// An application that does what it is told.
async fn app<F>(invitation: Invitation, connections: Connections, through: F) -> Exit
where
    F: Fn(DuplexStream) -> DuplexStream + Clone + Send + Sync + 'static,
{
    let client = Client::builder("ws://suite", invitation.token)
        .expect("a URL")
        .client_id(invitation.client_id)
        .dialer(move |_, _| {
            let (connections, through) = (connections.clone(), through.clone());
            async move {
                let (near, far) = tokio::io::duplex(64 * 1024);
                connections.push(through(far)).await;
                Ok(near)
            }
        })
        .build();
    let mut resume = Resume::default();
    client.connect();
    loop {
        let mut connection = match client.connection().await {
            Ok(connection) => connection,
            Err(Stopped::Offline) => return Exit::Success,
            Err(stopped) => return Exit::Failure(stopped.to_string()),
        };
        if let Err(error) = connection.start_replication(&mut resume, WITHIN).await {
            if error.advice() == Advice::ResetState {
                resume.reset();
            }
            continue;
        }
        let sender = connection.sender().clone();
        match invitation.task {
            Task::Start | Task::Write => {}
            Task::Stop => {
                tokio::spawn(async move { sender.stop_replication(WITHIN).await });
            }
            Task::Subscribe | Task::Unsubscribe => {
                tokio::spawn(async move {
                    sender.subscribe(Subscription::new().shape("items"), WITHIN).await
                });
            }
        }
        while let Some(event) = connection.recv().await {
            match event {
                Event::Message(message) => {
                    resume.stored(&message);
                    let _ = connection.acknowledge(&mut resume).await;
                }
                Event::StartReplication(_, responder) => responder.reply(Default::default()),
                Event::StopReplication(_, responder) => responder.reply(Default::default()),
                _ => {}
            }
        }
    }
}

pub(super) fn trials() -> Vec<Trial> {
    client_cases().into_iter().map(one).collect()
}

fn one(case: Case) -> Trial {
    trial(format!("client::{}", case.id), move || run_through(&case, |stream| stream))
}

/// Runs a case against the client behind something.
pub(super) fn run_through<F>(case: &Case, through: F) -> Outcome
where
    F: Fn(DuplexStream) -> DuplexStream + Clone + Send + Sync + 'static,
{
    simulated(async {
        let tokens = Tokens::made_with(SigningKey::new(Minter::unsigned()));
        conformance::Client::new("this crate", tokens, Ours(through)).run_case(case).await
    })
}
