//! The stream of a client: relations and transactions, and what breaks their order.

use crate::{
    conformance::{Case, must, script::*},
    wire::{
        Message, Version,
        proto::{
            SatOpAdditionalBegin, SatOpAdditionalCommit, SatOpBegin, SatOpCommit,
            SatOpCompensation, SatOpDelete, SatOpGone, SatOpInsert, SatOpLog, SatOpLogAck,
            SatOpMigrate, SatOpRow, SatOpUpdate, SatRelation, SatRelationColumn, SatShapeDataBegin,
            SatShapeDataEnd, SatSubsDataBegin, SatSubsDataEnd, SatSubsDataError, SatTransOp,
            SatUnsubsDataBegin, sat_error_resp::ErrorCode::InvalidRequest, sat_trans_op::Op,
        },
    },
};

use super::{
    handshake::authenticated,
    start::{in_replication, in_replication_and},
};

/// The number of the relation that is announced.
const RELATION: u32 = 1;

pub(super) fn cases() -> Vec<Case> {
    [good(), order(), relations(), rows(), for_servers(), acknowledgements()].concat()
}

/// The cases in which a relation is announced.
pub(in crate::conformance) fn announcing() -> impl Iterator<Item = &'static str> {
    let announces = |step: &Step| match step {
        Step::Send(sending) => sending.begins_with(10),
        _ => false,
    };
    cases().into_iter().filter(move |case| case.script.iter().any(announces)).map(|case| case.id)
}

// ---- Words ----

/// A relation of two columns: a key and a text that may be null.
fn relation() -> Sending {
    let column = |name: &str, key| SatRelationColumn {
        name: name.into(),
        r#type: "text".into(),
        primary_key: key,
        is_nullable: !key,
    };
    message(SatRelation {
        schema_name: "public".into(),
        table_name: "conformance_items".into(),
        relation_id: RELATION,
        columns: vec![column("id", true), column("content", false)],
        ..Default::default()
    })
}

fn log(ops: impl IntoIterator<Item = Op>) -> Sending {
    let ops = ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect();
    message(SatOpLog { ops })
}

fn begin() -> Op {
    begin_at(b"\0\0\0\x01")
}

fn begin_at(lsn: &'static [u8]) -> Op {
    let commit_timestamp = 1_700_000_000_000;
    Op::Begin(SatOpBegin { commit_timestamp, lsn: lsn.into(), ..Default::default() })
}

fn commit() -> Op {
    Op::Commit(SatOpCommit { commit_timestamp: 1_700_000_000_000, ..Default::default() })
}

fn row(values: &[Option<&'static str>]) -> SatOpRow {
    values.iter().copied().collect()
}

fn whole() -> Option<SatOpRow> {
    Some(row(&[Some("1"), Some("text")]))
}

fn insert(row_data: Option<SatOpRow>) -> Op {
    Op::Insert(SatOpInsert { relation_id: RELATION, row_data, tags: vec![] })
}

fn update(row_data: Option<SatOpRow>, old_row_data: Option<SatOpRow>) -> Op {
    Op::Update(SatOpUpdate { relation_id: RELATION, row_data, old_row_data, tags: vec![] })
}

fn delete(old_row_data: Option<SatOpRow>) -> Op {
    Op::Delete(SatOpDelete { relation_id: RELATION, old_row_data, tags: vec![] })
}

fn compensation(pk_data: Option<SatOpRow>) -> Op {
    Op::Compensation(SatOpCompensation { relation_id: RELATION, pk_data, tags: vec![] })
}

fn gone_row() -> Op {
    Op::Gone(SatOpGone { relation_id: RELATION, pk_data: whole() })
}

fn is_refused() -> [Step; 3] {
    [expect(error(InvalidRequest)), ends(closed(1007)), Step::Alive]
}

/// These messages are taken.
fn taken(
    id: &'static str,
    rule: &'static str,
    source: &'static str,
    messages: impl IntoIterator<Item = Sending>,
) -> Case {
    must(id, rule)
        .from(source)
        .otherwise("What a user has written is lost.")
        .script(in_replication_and(messages.into_iter().map(send).chain([ends(open_still())])))
}

/// The last of these messages is answered with INVALID_REQUEST and 1007.
fn broken(
    id: &'static str,
    rule: &'static str,
    source: &'static str,
    messages: impl IntoIterator<Item = Sending>,
) -> Case {
    must(id, rule)
        .from(source)
        .otherwise("What a buggy client writes is applied in part, or stops the writes of all.")
        .script(in_replication_and(messages.into_iter().map(send).chain(is_refused())))
}

/// A change in a transaction of its own, of the relation that is announced.
fn with_relation(change: Op) -> [Sending; 2] {
    [relation(), log([begin(), change, commit()])]
}

// ---- What is taken ----

fn good() -> Vec<Case> {
    vec![
        taken(
            "SAT-STREAM-001",
            "A server MUST take a relation and a transaction that inserts, updates and deletes.",
            "R06; data_client_write",
            [
                relation(),
                log([
                    begin(),
                    insert(whole()),
                    update(whole(), whole()),
                    delete(whole()),
                    commit(),
                ]),
            ],
        ),
        taken(
            "SAT-STREAM-002",
            "A server MUST take a transaction that is cut into several SatOpLog messages.",
            "R06",
            [relation(), log([begin(), insert(whole())]), log([insert(whole()), commit()])],
        ),
        taken(
            "SAT-STREAM-003",
            "A server MUST take several transactions in one SatOpLog.",
            "R06; corrections #13",
            [
                relation(),
                log([
                    begin(),
                    insert(whole()),
                    commit(),
                    begin_at(b"\0\0\0\x02"),
                    delete(whole()),
                    commit(),
                ]),
            ],
        ),
        taken(
            "SAT-STREAM-004",
            "A server MUST take a SatOpLog without operations.",
            "authed_SatOpLog_empty_replied",
            [log([])],
        ),
        taken(
            "SAT-STREAM-005",
            "A server MUST take an update and a delete without the old row.",
            "semantics §7#10",
            [relation(), log([begin(), update(whole(), None), delete(None), commit()])],
        ),
        taken(
            "SAT-STREAM-006",
            "A server MUST take a position of a client in any bytes.",
            "semantics §5: opaque to the server",
            [relation(), log([begin_at(b"\xff\0any"), insert(whole()), commit()])],
        ),
        taken(
            "SAT-STREAM-007",
            "A server MUST take a compensation that holds the key alone.",
            "semantics §7#10",
            [relation(), log([begin(), compensation(Some(row(&[Some("1"), None]))), commit()])],
        )
        .since(Version::new(0, 8)),
    ]
}

// ---- Transactions ----

fn order() -> Vec<Case> {
    vec![
        broken(
            "SAT-STREAM-008",
            "A server MUST refuse an operation outside a transaction with a bare INVALID_REQUEST, \
             and close the connection with 1007.",
            "X17",
            [relation(), log([insert(whole())])],
        ),
        broken(
            "SAT-STREAM-009",
            "A server MUST refuse a commit of nothing.",
            "X17",
            [relation(), log([commit()])],
        ),
        broken(
            "SAT-STREAM-010",
            "A server MUST refuse a begin inside a transaction.",
            "X17",
            [relation(), log([begin(), insert(whole()), begin(), insert(whole()), commit()])],
        ),
        broken(
            "SAT-STREAM-011",
            "A server MUST refuse a begin inside a transaction that began in an earlier message.",
            "X17",
            [relation(), log([begin(), insert(whole())]), log([begin()])],
        ),
        broken(
            "SAT-STREAM-012",
            "A server MUST refuse an operation behind the commit of its transaction.",
            "X17",
            [relation(), log([begin(), insert(whole()), commit(), insert(whole())])],
        ),
        broken(
            "SAT-STREAM-013",
            "A server MUST refuse a transaction without a position.",
            "X17; semantics §5",
            [relation(), log([begin_at(b""), insert(whole()), commit()])],
        ),
        broken(
            "SAT-STREAM-014",
            "A server MUST refuse a transaction without operations.",
            "README: a client's transaction without operations; corrections #8",
            [log([begin(), commit()])],
        ),
        broken(
            "SAT-STREAM-015",
            "A server MUST refuse an operation of a kind that it does not know.",
            "X17; protobuf: an unknown member of a oneof is none",
            [binary(
                "a SatOpLog of a begin and an operation 15",
                // Operation 1, a begin with the position 1; operation 15, empty.
                &b"\x09\x0a\x05\x0a\x03\x1a\x01\x01\x0a\x02\x7a\x00"[..],
            )],
        ),
    ]
}

// ---- Relations ----

fn relations() -> Vec<Case> {
    let unannounced = |id, rule, change| {
        broken(id, rule, "X17; semantics §6#1", [log([begin(), change, commit()])])
    };
    vec![
        unannounced(
            "SAT-STREAM-016",
            "A server MUST refuse an insert into a relation that was not announced.",
            insert(whole()),
        ),
        unannounced(
            "SAT-STREAM-017",
            "A server MUST refuse an update of a relation that was not announced.",
            update(whole(), whole()),
        ),
        unannounced(
            "SAT-STREAM-018",
            "A server MUST refuse a delete, even without a row, from a relation that was not \
             announced.",
            delete(None),
        ),
        must(
            "SAT-STREAM-019",
            "A server MUST forget the relations of a client with its connection.",
        )
        .from("semantics §6#1: both sides forget on reconnect")
        .otherwise("A client that was updated while it was away writes into the wrong columns.")
        .script(
            in_replication()
                .into_iter()
                .chain([
                    send(relation()),
                    ends(open_still()),
                    send(close(1000, "")),
                    ends(closed(1000)),
                ])
                .chain(in_replication())
                .chain([send(log([begin(), insert(whole()), commit()]))])
                .chain(is_refused()),
        ),
        broken(
            "SAT-STREAM-020",
            "A server MUST judge rows by the latest announcement of their relation.",
            "semantics §6",
            [
                relation(),
                message(SatRelation {
                    relation_id: RELATION,
                    table_name: "conformance_items".into(),
                    schema_name: "public".into(),
                    columns: vec![SatRelationColumn { name: "id".into(), ..Default::default() }],
                    ..Default::default()
                }),
                log([begin(), insert(whole()), commit()]),
            ],
        ),
    ]
}

// ---- Rows ----

fn rows() -> Vec<Case> {
    let bits = |nulls_bitmask: &'static [u8], values: &[&'static str]| {
        let values = values.iter().map(|value| (*value).into()).collect();
        Some(SatOpRow { nulls_bitmask: nulls_bitmask.into(), values })
    };
    vec![
        broken(
            "SAT-STREAM-021",
            "A server MUST refuse a row with fewer values than its relation has columns.",
            "X17; semantics §8",
            with_relation(insert(bits(b"\0", &["1"]))),
        ),
        broken(
            "SAT-STREAM-022",
            "A server MUST refuse a row with more values than its relation has columns.",
            "X17; semantics §8",
            with_relation(insert(bits(b"\0", &["1", "2", "3"]))),
        ),
        broken(
            "SAT-STREAM-023",
            "A server MUST refuse a row whose null bitmask is too short.",
            "semantics §8: missing bytes are an error",
            with_relation(insert(bits(b"", &["1", "2"]))),
        ),
        broken(
            "SAT-STREAM-024",
            "A server MUST refuse a row with a value where its bitmask says null.",
            "README: a client's value where its row says null",
            with_relation(insert(bits(b"\x40", &["1", "2"]))),
        ),
        broken(
            "SAT-STREAM-025",
            "A server MUST refuse an insert without a row.",
            "X17; semantics §7",
            with_relation(insert(None)),
        ),
        broken(
            "SAT-STREAM-026",
            "A server MUST refuse an update without a new row.",
            "X17; semantics §7#10",
            with_relation(update(None, whole())),
        ),
        broken(
            "SAT-STREAM-027",
            "A server MUST refuse an old row that does not fit its relation.",
            "X17; semantics §8",
            with_relation(delete(bits(b"\0", &["1"]))),
        ),
        taken(
            "SAT-STREAM-028",
            "A server MUST ignore bits of a null bitmask beyond the columns, and bytes beyond \
             those.",
            "semantics §8",
            with_relation(insert(bits(b"\x3f\xff", &["1", "2"]))),
        ),
        taken(
            "SAT-STREAM-029",
            "A server MUST tell an empty text from null.",
            "R31; R33; semantics §8",
            with_relation(insert(bits(b"\0", &["1", ""]))),
        ),
    ]
}

// ---- What only servers send ----

fn for_servers() -> Vec<Case> {
    let operation =
        |id, rule, source, op| broken(id, rule, source, [relation(), log([begin(), op])]);
    let message_of = |id, rule, source, body: Message| broken(id, rule, source, [message(body)]);
    vec![
        operation(
            "SAT-STREAM-030",
            "A server MUST refuse a migration by a client.",
            "semantics §7#8, §12; README",
            Op::Migrate(SatOpMigrate { version: "1".into(), ..Default::default() }),
        ),
        operation(
            "SAT-STREAM-031",
            "A server MUST refuse a gone row from a client.",
            "semantics §7#11",
            gone_row(),
        )
        .since(Version::V0_10),
        broken(
            "SAT-STREAM-032",
            "A server MUST refuse the begin of additional data from a client.",
            "semantics §7#12",
            [log([Op::AdditionalBegin(SatOpAdditionalBegin { r#ref: 1 })])],
        )
        .since(Version::V0_10),
        broken(
            "SAT-STREAM-033",
            "A server MUST refuse the end of additional data from a client.",
            "semantics §7#12",
            [log([Op::AdditionalCommit(SatOpAdditionalCommit { r#ref: 1 })])],
        )
        .since(Version::V0_10),
        message_of(
            "SAT-STREAM-034",
            "A server MUST answer a SatSubsDataBegin of a client with a bare INVALID_REQUEST, and \
             close the connection with 1007.",
            "preauth_SatSubsDataBegin",
            SatSubsDataBegin { subscription_id: "s".into(), ..Default::default() }.into(),
        ),
        message_of(
            "SAT-STREAM-035",
            "A server MUST refuse a SatSubsDataEnd of a client.",
            "preauth_SatSubsDataBegin",
            SatSubsDataEnd::default().into(),
        ),
        message_of(
            "SAT-STREAM-036",
            "A server MUST refuse a SatSubsDataError of a client.",
            "preauth_SatSubsDataError",
            SatSubsDataError::default().into(),
        ),
        message_of(
            "SAT-STREAM-037",
            "A server MUST refuse a SatShapeDataBegin of a client.",
            "preauth_SatShapeDataBegin",
            SatShapeDataBegin::default().into(),
        ),
        message_of(
            "SAT-STREAM-038",
            "A server MUST refuse a SatShapeDataEnd of a client.",
            "preauth_SatShapeDataEnd",
            SatShapeDataEnd::default().into(),
        ),
        message_of(
            "SAT-STREAM-039",
            "A server MUST refuse a SatUnsubsDataBegin of a client.",
            "preauth_type_24",
            SatUnsubsDataBegin::default().into(),
        )
        .since(Version::V0_12),
    ]
}

// ---- Acknowledgements ----

fn acknowledgements() -> Vec<Case> {
    let ack = |transaction_id| {
        message(SatOpLogAck {
            ack_timestamp: 1_700_000_000_000,
            lsn: "1".into(),
            transaction_id,
            ..Default::default()
        })
    };
    vec![
        broken(
            "SAT-STREAM-040",
            "A server MUST answer the acknowledgement of a transaction that it did not send on the \
             connection with a bare INVALID_REQUEST, and close the connection with 1007.",
            "X18; corrections: unknown ack 1007",
            [ack(4_000_000_001)],
        )
        .since(Version::V0_12),
        taken(
            "SAT-STREAM-041",
            "A server MUST take the acknowledgement of transaction 0, which stands for what came \
             before any.",
            "X18; semantics §10#2",
            [ack(0)],
        )
        .since(Version::V0_12),
        must(
            "SAT-STREAM-042",
            "A server MUST take a stream that begins before the client's own `startReplication`.",
        )
        .from("semantics §2: the two directions are independent of each other")
        .otherwise("A client that only writes cannot.")
        .script(authenticated().into_iter().chain([
            send(relation()),
            send(log([begin(), insert(whole()), commit()])),
            ends(open_still()),
            send(call(2, start())),
            expect(started(2)),
        ])),
    ]
}
