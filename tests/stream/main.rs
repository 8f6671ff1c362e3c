//! The rules of the streams: for each the smallest conversation that breaks it, and its neighbour
//! that does not ([`server`], [`client`]); and then every sequence ([`sequences`]).

#[path = "../common/mod.rs"]
mod common;

mod client;
mod faults;
mod sequences;
mod server;
mod streams;

use std::time::Instant;

use common::*;
use electric_satellite::{
    session::{ClientSession, Close, SendError, ServerSession, Session, StreamError, Violation},
    wire::{Message, Version, proto::*},
};
use sat_trans_op::Op;

type Client = Table<ClientSession>;
type Server = Table<ServerSession>;

/// The bound of what is remembered of a stream.
const LIMIT: u32 = 65_536;

// ---- At the table ----

/// The server has let the client in.
fn ready(version: Version) -> Client {
    let now = Instant::now();
    let (id, token) = (id("client-1"), token("token-1"));
    let mut client = Table::new(now, ClientSession::new(now, AUTH_TIMEOUT, version, &id, token));
    client.drain();
    client.hears(reply(1, SatAuthResp::default()));
    client
}

/// The server's stream is started and has relation 1 with one column, relation 2 with two.
fn receiving() -> Client {
    let mut client = started_with(Version::V0_12, start(), None);
    client.takes([table(1, 1), table(2, 2)]);
    client
}

/// The server's stream is started in answer to this request, with a window or none.
fn started_with(
    version: Version,
    request: SatInStartReplicationReq,
    unacked_window_size: Option<u32>,
) -> Client {
    let mut client = ready(version);
    let call = client.calls(request);
    let answer = SatInStartReplicationResp { err: None, unacked_window_size };
    client.hears(reply(call.request_id, answer));
    client
}

/// The server goes on from a position.
fn resume(subscription_ids: &[&str]) -> SatInStartReplicationReq {
    SatInStartReplicationReq {
        lsn: "7".into(),
        subscription_ids: subscription_ids.iter().map(|id| (*id).into()).collect(),
        ..Default::default()
    }
}

/// The client's stream is started and has relation 1 with one column, relation 2 with two.
fn sending() -> Client {
    let mut client = ready(Version::V0_12);
    client.hears_call(0, start());
    client.answers(started());
    client.sends(table(1, 1));
    client.sends(table(2, 2));
    client
}

/// A server that takes the stream of its client.
fn listening() -> Server {
    let now = Instant::now();
    let session = ServerSession::new(now, AUTH_TIMEOUT, Version::V0_12, "server-1");
    let mut server = Table::new(now, session);
    server.hears_call(1, auth("client-1", "token-1"));
    let asked = server.asked.take().unwrap();
    server.session.resolve(asked, Ok(verified("user-1")));
    server.drain();
    server.hears_call(2, start());
    server.answers(started());
    let call = server.calls(start());
    server.hears(reply(call.request_id, started()));
    server
}

impl Client {
    /// These come, and are handed out.
    #[track_caller]
    fn takes<M: Into<Message>>(&mut self, messages: impl IntoIterator<Item = M>) {
        for message in messages {
            let message = message.into();
            assert_eq!(self.hears(message.clone()), [got(message)]);
        }
    }

    /// This comes, and is the end.
    #[track_caller]
    fn ends_at(&mut self, message: impl Into<Message>, error: StreamError) {
        let violation = Violation::Stream(error);
        assert_eq!(violation.close(), Close::AFTER_ERROR);
        // Calls that wait learn it before.
        assert_eq!(self.hears(message).last(), Some(&broken(violation)));
        self.is_silent_for_ever();
    }

    /// This is sent.
    #[track_caller]
    fn sends(&mut self, message: impl Into<Message>) {
        let message = message.into();
        assert_eq!(self.session.send(message.clone()), Ok(()));
        assert_eq!(self.drain(), [sent(message)]);
    }

    /// This is not.
    #[track_caller]
    fn refuses_to_send(&mut self, message: impl Into<Message>, error: SendError) {
        assert_eq!(self.session.send(message.into()), Err(error));
        assert_eq!(self.drain(), []);
    }

    /// It has a subscription with these shapes, whose data has not come.
    fn subscribed(&mut self, id: &str, shapes: &[&str]) {
        let call = self.calls(shaped(id, shapes));
        self.hears(reply(call.request_id, subscribed(id)));
    }

    /// It has given these up.
    fn unsubscribed(&mut self, ids: &[&str]) {
        let call = self.calls(unsubscribe(ids));
        self.hears(reply(call.request_id, SatUnsubsResp {}));
    }
}

// ---- What is said ----

fn table(relation_id: u32, columns: usize) -> SatRelation {
    let columns = vec![SatRelationColumn::default(); columns];
    SatRelation { relation_id, columns, ..Default::default() }
}

fn log(ops: impl IntoIterator<Item = Op>) -> SatOpLog {
    SatOpLog { ops: ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect() }
}

fn begin() -> Op {
    Op::Begin(SatOpBegin { lsn: "1".into(), ..Default::default() })
}

/// A begin with a number by which it is acknowledged.
fn begin_of(transaction_id: u64) -> Op {
    let transaction_id = Some(transaction_id);
    Op::Begin(SatOpBegin { lsn: "1".into(), transaction_id, ..Default::default() })
}

/// A begin that announces additional data.
fn announcing(additional_data_ref: u64) -> Op {
    Op::Begin(SatOpBegin { lsn: "1".into(), additional_data_ref, ..Default::default() })
}

fn commit() -> Op {
    Op::Commit(SatOpCommit { lsn: "1".into(), ..Default::default() })
}

fn row(columns: usize) -> Option<SatOpRow> {
    Some(std::iter::repeat_n(Some("v"), columns).collect())
}

/// An insert into relation 1, 2, or another one of so many columns.
fn insert(relation_id: u32) -> Op {
    insert_of(relation_id, row(relation_id as usize))
}

fn insert_of(relation_id: u32, row_data: Option<SatOpRow>) -> Op {
    Op::Insert(SatOpInsert { relation_id, row_data, tags: vec![] })
}

fn update_of(relation_id: u32, row_data: Option<SatOpRow>, old_row_data: Option<SatOpRow>) -> Op {
    Op::Update(SatOpUpdate { relation_id, row_data, old_row_data, tags: vec![] })
}

fn delete_of(relation_id: u32, old_row_data: Option<SatOpRow>) -> Op {
    Op::Delete(SatOpDelete { relation_id, old_row_data, tags: vec![] })
}

fn compensation_of(relation_id: u32, pk_data: Option<SatOpRow>) -> Op {
    Op::Compensation(SatOpCompensation { relation_id, pk_data, tags: vec![] })
}

fn gone(relation_id: u32) -> Op {
    gone_of(relation_id, row(relation_id as usize))
}

fn gone_of(relation_id: u32, pk_data: Option<SatOpRow>) -> Op {
    Op::Gone(SatOpGone { relation_id, pk_data })
}

fn migrate() -> Op {
    Op::Migrate(SatOpMigrate::default())
}

fn additional_begin(reference: u64) -> Op {
    Op::AdditionalBegin(SatOpAdditionalBegin { r#ref: reference })
}

fn additional_commit(reference: u64) -> Op {
    Op::AdditionalCommit(SatOpAdditionalCommit { r#ref: reference })
}

/// All changes that a client may send, to the same relation with the same row.
fn changes(relation_id: u32, row: &Option<SatOpRow>) -> [Op; 4] {
    let row = || row.clone();
    [
        insert_of(relation_id, row()),
        update_of(relation_id, row(), row()),
        delete_of(relation_id, row()),
        compensation_of(relation_id, row()),
    ]
}

/// A transaction of a server that is acknowledged by this number.
fn transaction(transaction_id: u64) -> SatOpLog {
    log([begin_of(transaction_id), commit()])
}

fn shaped(id: &str, shapes: &[&str]) -> SatSubsReq {
    let shape =
        |request_id: &&str| SatShapeReq { request_id: (*request_id).into(), ..Default::default() };
    SatSubsReq { subscription_id: id.into(), shape_requests: shapes.iter().map(shape).collect() }
}

fn unsubscribe(ids: &[&str]) -> SatUnsubsReq {
    SatUnsubsReq { subscription_ids: ids.iter().map(|id| (*id).into()).collect() }
}

fn data_begin(subscription_id: &str) -> Message {
    SatSubsDataBegin { subscription_id: subscription_id.into(), lsn: "1".into() }.into()
}

fn data_end() -> Message {
    SatSubsDataEnd {}.into()
}

fn data_error(subscription_id: &str) -> Message {
    SatSubsDataError { subscription_id: subscription_id.into(), ..Default::default() }.into()
}

fn shape_begin(request_id: &str) -> Message {
    SatShapeDataBegin { request_id: request_id.into(), ..Default::default() }.into()
}

fn shape_end() -> Message {
    SatShapeDataEnd {}.into()
}

fn unsubs_begin(ids: &[&str]) -> Message {
    let subscription_ids = ids.iter().map(|id| (*id).into()).collect();
    SatUnsubsDataBegin { subscription_ids, lsn: "1".into() }.into()
}

fn unsubs_end() -> Message {
    SatUnsubsDataEnd {}.into()
}

fn ack(transaction_id: u64) -> SatOpLogAck {
    SatOpLogAck { transaction_id, lsn: "1".into(), ..Default::default() }
}

/// The name of an operation in the schema.
fn name_of(op: &Op) -> &'static str {
    match op {
        Op::Begin(_) => "begin",
        Op::Commit(_) => "commit",
        Op::Update(_) => "update",
        Op::Insert(_) => "insert",
        Op::Delete(_) => "delete",
        Op::Migrate(_) => "migrate",
        Op::Compensation(_) => "compensation",
        Op::Gone(_) => "gone",
        Op::AdditionalBegin(_) => "additional_begin",
        Op::AdditionalCommit(_) => "additional_commit",
    }
}
