//! Transactions of clients, as fast as they are taken or at a rate.

use std::sync::Arc;

use bytes::Bytes;
use electric_satellite::{
    session::{SendError, UnixTime},
    wire::{
        Message,
        proto::{
            SatOpBegin, SatOpCommit, SatOpInsert, SatOpLog, SatRelation, SatRelationColumn,
            SatTransOp, sat_trans_op::Op,
        },
    },
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    failure::Failure,
    fleet::{Fleet, Member, gather},
    reads,
    tally::{Phase, Traffic},
};

/// The number that stands for the table on every connection.
const RELATION: u32 = 1;

pub(super) async fn run(fleet: &Arc<Fleet>, table: &str, size: usize) {
    let members = gather(fleet, None, false, prepare).await;
    fleet.begin(fleet.times());
    let text = Bytes::from(vec![b'x'; size]);
    let mut clients = JoinSet::new();
    for member in members {
        let rows = Rows::new(fleet.id(member.client).as_str(), table, text.clone());
        clients.spawn(write(Arc::clone(fleet), member, rows));
    }
    clients.join_all().await;
}

/// Starts replication, and waits until the service wants the other direction too.
async fn prepare(fleet: Arc<Fleet>, member: Member) -> Result<Member, Failure> {
    let mut member = reads::start(Arc::clone(&fleet), member).await?;
    let asked = timeout(fleet.timeout(), member.incoming.is_asked()).await;
    match (asked, member.sender.end()) {
        (Ok(true), _) => Ok(member),
        (_, Some(end)) => Err(Failure::ended(end)),
        (_, None) => Err(Failure::new(
            "not asked for writes",
            format!(
                "the service has not asked for the client's stream within {} s: it did not call \
                 startReplication, so it takes no writes (`satellite serve` has no data, and never \
                 does)",
                fleet.timeout().as_secs()
            ),
        )),
    }
}

/// Sends until the time is over, and has the service say that all of it has come.
async fn write(fleet: Arc<Fleet>, mut member: Member, rows: Rows) {
    let outcome = send_all(&fleet, &mut member, rows).await;
    match outcome {
        Ok(()) => fleet.tallies.of(member.client).last = Some(Instant::now()),
        Err(failure) => fleet.tallies.fail(member.client, failure, true),
    }
    member.leave().await;
}

async fn send_all(fleet: &Fleet, member: &mut Member, mut rows: Rows) -> Result<(), Failure> {
    let Some(course) = fleet.course() else { return Ok(()) };
    send(member, rows.relation()).await?;
    while let Some(turn) = member.incoming.attend(course.turn()).await {
        let mut laps = course.laps(&turn);
        let message = rows.transaction();
        let bytes = message.encoded_len() as u64;
        send(member, message).await?;
        laps.set(Phase::Send, turn.begun.elapsed());
        if course.is_open() {
            laps.set(Phase::Whole, turn.due.elapsed());
        }
        fleet.tallies.end(member.client, &laps, Ok(()), turn.counts);
        if turn.counts {
            let traffic = Traffic { messages: 1, transactions: 1, bytes };
            fleet.tallies.of(member.client).traffic += traffic;
        }
    }
    let called = Instant::now();
    // Answers come in the order of what they answer, behind all that was sent before.
    let proof = member.sender.stop_replication(fleet.timeout());
    let answer = member.incoming.attend(proof).await;
    answer.map_err(|failure| Failure::calling(&failure, member.sender.end()))?;
    fleet.tallies.of(member.client).lap(Phase::Confirm, called.elapsed());
    Ok(())
}

async fn send(member: &mut Member, message: Message) -> Result<(), Failure> {
    let sent = member.incoming.attend(member.sender.send(message)).await;
    sent.map_err(|error| match (error, member.sender.end()) {
        (SendError::NotStarted { .. }, None) => {
            Failure::new("writes stopped", "the service has stopped the client's stream")
        }
        (_, Some(end)) => Failure::ended(end),
        (error, None) => Failure::new("not sent", error.to_string()),
    })
}

/// What one client writes: rows with an id that no other has, and a text.
struct Rows {
    client_id: String,
    table: String,
    text: Bytes,
    sent: u32,
}

impl Rows {
    fn new(client_id: &str, table: &str, text: Bytes) -> Rows {
        Rows { client_id: client_id.to_owned(), table: table.to_owned(), text, sent: 0 }
    }

    fn relation(&self) -> Message {
        let column = |name: &str, primary_key| SatRelationColumn {
            name: name.into(),
            r#type: "TEXT".into(),
            primary_key,
            is_nullable: !primary_key,
        };
        let relation = SatRelation {
            schema_name: "public".into(),
            table_name: self.table.clone(),
            relation_id: RELATION,
            columns: vec![column("id", true), column("content", false)],
            ..Default::default()
        };
        relation.into()
    }

    /// The next one.
    fn transaction(&mut self) -> Message {
        self.sent = self.sent.wrapping_add(1);
        let begin = SatOpBegin {
            // As published clients number their rows.
            lsn: Bytes::copy_from_slice(&self.sent.to_be_bytes()),
            commit_timestamp: UnixTime::now().as_secs().unsigned_abs() * 1000,
            ..Default::default()
        };
        let id = Bytes::from(format!("{}/{}", self.client_id, self.sent));
        let row = [Some(id), Some(self.text.clone())].into_iter().collect();
        let insert = SatOpInsert { relation_id: RELATION, row_data: Some(row), tags: vec![] };
        let ops = [Op::Begin(begin), Op::Insert(insert), Op::Commit(SatOpCommit::default())];
        SatOpLog { ops: ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect() }.into()
    }
}
