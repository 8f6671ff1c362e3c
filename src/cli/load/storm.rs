//! Every connection is cut at the same moment, and every client comes back at once.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    fleet::{Fleet, Member, Times, gather},
    idle::stay,
    tally::Laps,
};

pub(super) async fn run(fleet: &Arc<Fleet>) {
    let times = fleet.times();
    let members = gather(fleet, None, false, stay).await;
    sleep(times.warmup).await;
    let course = fleet.begin(Times { warmup: Duration::ZERO, rate: None, ..times });
    let cut_at = course.counts_from();
    for member in &members {
        member.knife.cut();
    }
    let mut clients = JoinSet::new();
    for member in members {
        clients.spawn(come_back(Arc::clone(fleet), member, cut_at));
    }
    // None leaves before all are back.
    let back = clients.join_all().await.into_iter().flatten();
    back.map(Member::leave).collect::<JoinSet<()>>().join_all().await;
}

/// Tries until it is back or the time is over.
async fn come_back(fleet: Arc<Fleet>, gone: Member, cut_at: Instant) -> Option<Member> {
    let course = fleet.course()?;
    let client = gone.client;
    gone.sender.closed().await;
    drop(gone);
    while !course.is_over() {
        let mut laps = Laps::default();
        match fleet.admit(client, Some(cut_at), &mut laps).await {
            Ok(member) => {
                fleet.tallies.end(client, &laps, Ok(()), true);
                fleet.tallies.of(client).last = Some(Instant::now());
                return Some(member);
            }
            Err(failure) => fleet.tallies.end(client, &laps, Err(failure), true),
        }
        course.pause().await;
    }
    None
}
