//! Calls, one after the other on each connection.

use std::sync::Arc;

use electric_satellite::client::Resume;
use tokio::{task::JoinSet, time::Instant};

use super::{
    failure::Failure,
    fleet::{Fleet, Member, gather},
    idle::stay,
    tally::Phase,
};

pub(super) async fn run(fleet: &Arc<Fleet>) {
    let members = gather(fleet, None, false, stay).await;
    fleet.begin(fleet.times());
    let mut clients = JoinSet::new();
    for member in members {
        clients.spawn(call(Arc::clone(fleet), member));
    }
    clients.join_all().await;
}

/// Starts and stops replication in turn, until the time is over or the connection.
async fn call(fleet: Arc<Fleet>, mut member: Member) {
    let Some(course) = fleet.course() else { return };
    let mut started = false;
    while let Some(turn) = member.incoming.attend(course.turn()).await {
        let mut laps = course.laps(&turn);
        let called = Instant::now();
        let outcome = match started {
            false => start(&fleet, &mut member).await,
            true => stop(&fleet, &mut member).await,
        };
        started = !started;
        laps.set(Phase::Call, called.elapsed());
        if course.is_open() {
            laps.set(Phase::Whole, turn.due.elapsed());
        }
        let lost = outcome.is_err();
        fleet.tallies.end(member.client, &laps, outcome, turn.counts);
        if lost {
            break;
        }
    }
    member.leave().await;
}

/// From the beginning, each time.
async fn start(fleet: &Fleet, member: &mut Member) -> Result<(), Failure> {
    let mut resume = Resume::default();
    let start = member.sender.start_replication(&mut resume, fleet.timeout());
    let started = member.incoming.attend(start).await;
    started.map(drop).map_err(|error| Failure::starting(&error, member.sender.end()))
}

async fn stop(fleet: &Fleet, member: &mut Member) -> Result<(), Failure> {
    let stop = member.sender.stop_replication(fleet.timeout());
    let stopped = member.incoming.attend(stop).await;
    stopped.map_err(|failure| Failure::calling(&failure, member.sender.end()))
}
