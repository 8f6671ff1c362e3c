//! What the service sends.

use std::{sync::Arc, time::Duration};

use electric_satellite::{client::Resume, session::AuthenticatedServer, transport::Sender};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    failure::Failure,
    fleet::{Fleet, Member, gather},
};
use crate::cli::shapes::Shape;

/// How often what has come is counted.
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) async fn run(fleet: &Arc<Fleet>, shapes: &[Shape]) {
    let members = gather(fleet, None, false, start).await;
    fleet.begin(fleet.times());
    let mut clients = JoinSet::new();
    for member in members {
        clients.spawn(subscribe(
            Arc::clone(fleet),
            member.client,
            member.sender.clone(),
            shapes.to_vec(),
        ));
        clients.spawn(read(Arc::clone(fleet), member));
    }
    clients.join_all().await;
}

/// Asks for the service's stream from the beginning. All that comes is acknowledged.
pub(super) async fn start(fleet: Arc<Fleet>, mut member: Member) -> Result<Member, Failure> {
    let resume = member.incoming.resume.insert(Resume::default());
    match member.sender.start_replication(resume, fleet.timeout()).await {
        Ok(_) => Ok(member),
        Err(error) => Err(Failure::starting(&error, member.sender.end())),
    }
}

async fn subscribe(
    fleet: Arc<Fleet>,
    client: usize,
    sender: Sender<AuthenticatedServer>,
    shapes: Vec<Shape>,
) {
    for shape in shapes {
        if let Err(error) = sender.subscribe(shape.subscription(), fleet.timeout()).await {
            fleet.tallies.fail(client, Failure::subscribing(&error, sender.end()), true);
        }
    }
}

/// Counts until the time is over, or the connection.
async fn read(fleet: Arc<Fleet>, mut member: Member) {
    let Some(course) = fleet.course() else { return };
    let mut from = Instant::now();
    while from < course.ends() && member.sender.end().is_none() {
        let until = match from < course.counts_from() {
            true => course.counts_from(),
            false => (from + INTERVAL).min(course.ends()),
        };
        member.incoming.attend(sleep_until(until)).await;
        let traffic = member.incoming.take_traffic();
        fleet.tallies.done(traffic.messages);
        if until > course.counts_from() {
            let mut tally = fleet.tallies.of(member.client);
            tally.traffic += traffic;
            tally.last = tally.last.max(Some(until));
        }
        from = until;
    }
    match member.sender.end().map(Failure::ended) {
        None => fleet.tallies.of(member.client).succeeded += 1,
        Some(failure) => fleet.lose(member.client, failure),
    }
    member.leave().await;
}
