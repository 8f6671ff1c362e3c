//! Connecting, being let in and leaving, again and again.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{fleet::Fleet, tally::Phase};

pub(super) async fn run(fleet: &Arc<Fleet>) {
    fleet.begin(fleet.times());
    let mut clients = JoinSet::new();
    for client in fleet.clients() {
        clients.spawn(come_and_go(Arc::clone(fleet), client));
    }
    clients.join_all().await;
}

async fn come_and_go(fleet: Arc<Fleet>, client: usize) {
    let Some(course) = fleet.course() else { return };
    while let Some(turn) = course.turn().await {
        let mut laps = course.laps(&turn);
        match fleet.connect(client, &mut laps).await {
            Ok(member) => {
                laps.set(Phase::Whole, turn.due.elapsed());
                fleet.tallies.end(client, &laps, Ok(()), turn.counts);
                member.leave().await;
            }
            Err(failure) => {
                fleet.tallies.end(client, &laps, Err(failure), turn.counts);
                course.pause().await;
            }
        }
    }
}
