//! Connections that are there, and nothing else.

use std::{sync::Arc, time::Duration};

use tokio::{select, task::JoinSet, time::sleep_until};

use super::{
    failure::Failure,
    fleet::{Fleet, Member, Times, gather},
    tally::Laps,
};

pub(super) async fn run(fleet: &Arc<Fleet>) {
    let times = fleet.times();
    let members = gather(fleet, times.rate, true, stay).await;
    fleet.begin(Times { warmup: Duration::ZERO, rate: None, ..times });
    let mut clients = JoinSet::new();
    for member in members {
        clients.spawn(live(Arc::clone(fleet), member));
    }
    clients.join_all().await;
}

/// Nothing more is to be done to be there.
pub(super) async fn stay(_: Arc<Fleet>, member: Member) -> Result<Member, Failure> {
    Ok(member)
}

async fn live(fleet: Arc<Fleet>, mut member: Member) {
    let Some(course) = fleet.course() else { return };
    let lost = select! {
        biased;
        end = member.sender.closed() => Some(Failure::ended(end)),
        () = member.incoming.attend(sleep_until(course.ends())) => None,
    };
    match lost {
        None => fleet.tallies.end(member.client, &Laps::default(), Ok(()), true),
        Some(failure) => fleet.lose(member.client, failure),
    }
    member.leave().await;
}
