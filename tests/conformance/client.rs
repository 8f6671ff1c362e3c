//! The client cases against [`Client`].

use std::time::Duration;

use electric_satellite::{
    auth::Minter,
    client::{Client, Resume, Stopped, Subscription},
    conformance::{
        self, Case, Connections, Exit, Invitation, Launch, Launched, SigningKey, Task, Tokens,
        client_cases,
    },
    transport::Event,
};
use futures_util::{FutureExt, future::BoxFuture};
use libtest_mimic::Trial;

use super::{simulated, trial};

/// How long a call may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The client of this crate, in this process.
struct Ours;

impl Launch for Ours {
    fn launch(&self, invitation: Invitation) -> BoxFuture<'_, std::io::Result<Launched>> {
        let launched = Launched::new(|connections| app(invitation, connections));
        async { Ok(launched) }.boxed()
    }
}

/// An application that does what it is told.
async fn app(invitation: Invitation, connections: Connections) -> Exit {
    let client = Client::builder("ws://suite", invitation.token)
        .expect("a URL")
        .client_id(invitation.client_id)
        .dialer(move |_, _| {
            let connections = connections.clone();
            async move {
                let (near, far) = tokio::io::duplex(64 * 1024);
                connections.push(far).await;
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
            match error.advice() {
                electric_satellite::client::Advice::ResetState => resume.reset(),
                _ => {}
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
    trial(format!("client::{}", case.id), move || {
        simulated(async {
            let tokens = Tokens::made_with(SigningKey::new(Minter::unsigned()));
            conformance::Client::new("this crate", tokens, Ours).run_case(&case).await
        })
    })
}
