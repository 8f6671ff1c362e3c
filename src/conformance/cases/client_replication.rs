//! Replication as a client starts it, stops it, and takes and sends its stream.

use bytes::Bytes;

use crate::{
    conformance::{Case, Task, must, script::*, should},
    wire::{
        Message, Method, Request, Version,
        proto::{
            SatErrorResp, SatInStartReplicationReq, SatInStartReplicationResp,
            SatInStopReplicationReq, SatInStopReplicationResp, SatOpAdditionalBegin, SatOpBegin,
            SatOpCommit, SatOpInsert, SatOpLog, SatOpLogAck, SatOpRow, SatRelation,
            SatRelationColumn, SatTransOp,
            sat_error_resp::ErrorCode,
            sat_in_start_replication_resp::{ReplicationError, replication_error::Code},
            sat_trans_op::Op,
        },
    },
};

use super::client_handshake::{COMES_BACK, NO_STORM, WATCHED, authenticated, in_replication, then};

pub(super) fn cases() -> Vec<Case> {
    [starts(), calls_of_the_server(), start_errors(), stops(), stream(), broken_streams(), writes()]
        .into_iter()
        .flatten()
        .collect()
}

// ---- What a server sends ----

/// The number of the table `items` in the suite's stream.
const ITEMS: u32 = 77;

/// The relation of `items`, with its columns `id` and `content`.
pub(super) fn items() -> Step {
    let column = |name: &str, r#type: &str, primary_key| SatRelationColumn {
        name: name.into(),
        r#type: r#type.into(),
        primary_key,
        is_nullable: !primary_key,
    };
    send(message(SatRelation {
        schema_name: "public".into(),
        table_name: "items".into(),
        relation_id: ITEMS,
        columns: vec![column("id", "text", true), column("content", "text", false)],
        ..Default::default()
    }))
}

pub(super) fn ops(ops: impl IntoIterator<Item = Op>) -> Step {
    let ops = ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect();
    send(message(SatOpLog { ops }))
}

fn begin(lsn: &'static str, transaction_id: u64) -> Op {
    Op::Begin(SatOpBegin {
        // Some day in 2024.
        commit_timestamp: 1_704_103_445_000,
        lsn: lsn.into(),
        transaction_id: Some(transaction_id),
        ..Default::default()
    })
}

fn commit(lsn: &'static str, transaction_id: u64) -> Op {
    Op::Commit(SatOpCommit {
        commit_timestamp: 1_704_103_445_000,
        lsn: lsn.into(),
        transaction_id: Some(transaction_id),
        ..Default::default()
    })
}

/// A new row of a table.
fn insert_into(relation_id: u32, row: impl IntoIterator<Item = &'static str>) -> Op {
    let row: SatOpRow = row.into_iter().map(Some).collect();
    // A tag is a source and a time, as the original makes them.
    let tags = vec!["postgres_1@1704103445000".into()];
    Op::Insert(SatOpInsert { relation_id, row_data: Some(row), tags })
}

/// A new row of `items`.
pub(super) fn insert(id: &'static str) -> Op {
    insert_into(ITEMS, [id, "content"])
}

pub(super) fn commit_of_nothing() -> Op {
    commit("9", 9)
}

pub(super) fn begin_of_nothing() -> Op {
    begin("9", 9)
}

/// The start is granted, with a window of so many transactions.
fn granted(window: Option<u32>) -> Step {
    send(answer(SatInStartReplicationResp { unacked_window_size: window, ..Default::default() }))
}

/// The client has a transaction at position 7 and is back, with its next start.
fn come_back_with_a_position() -> Vec<Step> {
    let steps = then(
        in_replication(),
        [
            items(),
            ops([begin("7", 7), insert("a"), commit("7", 7)]),
            // Until it is stored.
            Step::Silence(secs(2)),
            Step::Cut,
        ],
    );
    let steps = then(steps, authenticated());
    then(steps, [expect(starts_from(b"7"))])
}

fn starts_from(position: &'static [u8]) -> Expectation {
    let words = format!("startReplication from {:?}", String::from_utf8_lossy(position));
    called_such(
        words,
        Method::StartReplication,
        move |call| matches!(call, Request::StartReplication(request) if request.lsn == position),
    )
}

fn starts_anew() -> Expectation {
    called_such("startReplication from the beginning", Method::StartReplication, |call| {
        matches!(call, Request::StartReplication(request)
            if request.lsn.is_empty() && request.subscription_ids.is_empty())
    })
}

fn acknowledges(transaction_id: u64) -> Expectation {
    a_message(
        format!("SatOpLogAck of {transaction_id}"),
        move |message| matches!(message, Message::OpLogAck(ack) if ack.transaction_id == transaction_id),
    )
}

fn stays() -> [Step; 2] {
    [Step::Silence(secs(1)), ends(open_still())]
}

// ---- Start ----

fn starts() -> Vec<Case> {
    let asking = || then(authenticated(), [expect(called(Method::StartReplication))]);
    vec![
        must(
            "SAT-C-START-001",
            "A client MUST start replication once it is authenticated, and stay.",
        )
        .from("S23")
        .otherwise("It never syncs.")
        .script(then(in_replication(), stays())),
        must(
            "SAT-C-START-002",
            "A client that has nothing MUST start without a position and without subscriptions.",
        )
        .from("S24; published clients (0.6–0.12)")
        .otherwise("The server answers BEHIND_WINDOW or SUBSCRIPTION_NOT_FOUND.")
        .script(then(authenticated(), [expect(starts_anew())])),
        must(
            "SAT-C-START-003",
            "A client MUST ignore a response to `startReplication` with another request id, and \
             wait on.",
        )
        .from("X21; published clients (0.6–0.12)")
        .otherwise("It throws its data away for an answer that was not meant.")
        .script(then(
            asking(),
            [
                send(not_started(Code::BehindWindow).with_wrong_number()),
                Step::Silence(secs(1)),
                granted(None),
                Step::Silence(secs(1)),
                ends(open_still()),
            ],
        )),
        must(
            "SAT-C-START-004",
            "A client MUST ignore a response with the request id of `startReplication` and \
             another method, and wait on.",
        )
        .from("X21; published clients (0.6–0.12)")
        .otherwise("It believes that the stream runs, or that it does not.")
        .script(then(
            asking(),
            [
                send(refuse(ErrorCode::Internal).with_method("stopReplication")),
                Step::Silence(secs(1)),
                granted(None),
                Step::Silence(secs(1)),
                ends(open_still()),
            ],
        )),
        must("SAT-C-START-005", "A client MUST ignore a second answer to `startReplication`.")
            .from("X21")
            .otherwise("A duplicate ends the connection, or the data.")
            .script(then(
                asking(),
                [granted(None), send(not_started(Code::BehindWindow))].into_iter().chain(stays()),
            )),
        should(
            "SAT-C-START-006",
            "A client SHOULD close the connection when `startReplication` is not answered within \
             30 s, and come back.",
        )
        .from("H25; D13")
        .otherwise("It says that it is connected, and never syncs.")
        .script(then(asking(), [ends(gone().within(secs(30))), accept()])),
        must(
            "SAT-C-START-007",
            "A client MUST come back after pauses when `startReplication` is answered with \
             neither a result nor an error.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("It says that it is connected, and never syncs.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            then(asking(), [send(empty_response()), ends(gone())]),
        )]),
        must(
            "SAT-C-START-008",
            "A client MUST bear an answer to `startReplication` that announces a window, also of \
             size 0.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("It does not get on with servers that set none.")
        .script(then(asking(), [granted(Some(0))].into_iter().chain(stays()))),
        must(
            "SAT-C-START-009",
            "A client MUST start from the position of the last transaction that it has stored.",
        )
        .from("S24; published clients (0.6–0.12)")
        .otherwise("Everything comes again after every loss of the connection, or is lost.")
        .script(come_back_with_a_position()),
        must(
            "SAT-C-START-010",
            "A client MUST NOT start from the position of a transaction whose commit has not come.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("The rest of that transaction is lost.")
        .script(then(
            then(
                in_replication(),
                [
                    items(),
                    ops([begin("7", 7), insert("a"), commit("7", 7)]),
                    ops([begin("8", 8), insert("b")]),
                    Step::Silence(secs(2)),
                    Step::Cut,
                ],
            ),
            then(authenticated(), [expect(starts_from(b"7"))]),
        )),
    ]
}

// ---- Calls of the server ----

fn calls_of_the_server() -> Vec<Case> {
    let asking = || then(authenticated(), [expect(called(Method::StartReplication))]);
    let started_7 = || reply::<SatInStartReplicationReq>(7);
    let stopped_8 = || reply::<SatInStopReplicationReq>(8);
    let refused_start = |id| refused("startReplication", id, ErrorCode::ReplicationFailed);
    let refused_stop = |id| refused("stopReplication", id, ErrorCode::ReplicationFailed);
    vec![
        must(
            "SAT-C-START-011",
            "A client MUST answer the server's `startReplication` with its number, its method and \
             a SatInStartReplicationResp that is present though empty.",
        )
        .from("S29; published clients (0.6–0.12)")
        .otherwise("The original servers close with 1007, and its writes are never asked for.")
        .script(then(
            in_replication(),
            [send(call(7, start())), expect(started_7())].into_iter().chain(stays()),
        )),
        must(
            "SAT-C-START-012",
            "A client MUST answer the server's `startReplication` also when it comes right after \
             the answer to `authenticate`, as the original sends it.",
        )
        .from("S29; published clients (0.6–0.12)")
        .otherwise("It does not get on with the original servers.")
        .script(then(
            asking(),
            [
                send(call(7, start())),
                granted(None),
                expect(started_7()),
                Step::Silence(secs(1)),
                ends(open_still()),
            ],
        )),
        must(
            "SAT-C-START-013",
            "A client MUST answer a second `startReplication` of the server, with success or with \
             REPLICATION_FAILED.",
        )
        .from("X22")
        .otherwise("The server waits for ever.")
        .script(then(
            in_replication(),
            [
                send(call(7, start())),
                expect(started_7()),
                send(call(8, start())),
                expect(reply::<SatInStartReplicationReq>(8).or(refused_start(8))),
            ],
        )),
        must("SAT-C-START-014", "A client MUST answer the server's `stopReplication`, and stay.")
            .from("published clients (0.6–0.12)")
            .otherwise("The server waits for ever.")
            .script(then(
                in_replication(),
                [
                    send(call(7, start())),
                    expect(started_7()),
                    send(call(8, stop())),
                    expect(stopped_8()),
                    Step::Silence(secs(1)),
                    ends(open_still()),
                ],
            )),
        must(
            "SAT-C-START-015",
            "A client MUST answer the server's `stopReplication` also when nothing was started, \
             with success or with REPLICATION_FAILED.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("The server waits for ever.")
        .script(then(
            in_replication(),
            [send(call(8, stop())), expect(stopped_8().or(refused_stop(8)))],
        )),
        must(
            "SAT-C-START-016",
            "A client MUST refuse a call of a method that it does not know with INVALID_REQUEST, \
             and stay.",
        )
        .from("X21; published clients (0.6–0.12)")
        .otherwise("No later server can ask for more and see that this client has not got it.")
        .script(then(
            in_replication(),
            [
                send(call_of("makeCoffee", 3, b"")),
                expect(refused("makeCoffee", 3, ErrorCode::InvalidRequest)),
            ]
            .into_iter()
            .chain(stays()),
        )),
        must(
            "SAT-C-START-017",
            "A client MUST refuse the methods that are not for servers to call with \
             INVALID_REQUEST, and stay.",
        )
        .from("X21; published clients (0.6–0.12)")
        .otherwise("A confused server turns it into something that it is not.")
        .script(then(
            in_replication(),
            [
                send(authenticate(3)),
                expect(refused("authenticate", 3, ErrorCode::InvalidRequest)),
                send(call(4, subscribe("a"))),
                expect(refused("subscribe", 4, ErrorCode::InvalidRequest)),
                send(call(5, unsubscribe("a"))),
                expect(refused("unsubscribe", 5, ErrorCode::InvalidRequest)),
                ends(open_still()),
            ],
        )),
        should(
            "SAT-C-START-018",
            "A client SHOULD refuse a call whose body cannot be decoded with INVALID_REQUEST, and \
             stay.",
        )
        .from("X21")
        .otherwise("One bad call ends the connection, or the client.")
        .script(then(
            in_replication(),
            [
                send(call_of("startReplication", 7, b"\x0a\xff")),
                expect(refused("startReplication", 7, ErrorCode::InvalidRequest)),
                ends(open_still()),
            ],
        )),
        must(
            "SAT-C-START-019",
            "A client MUST echo the request id of the server's call whatever it is, also 0 and \
             the largest.",
        )
        .from("H18")
        .otherwise("The server cannot tell which of its calls is answered.")
        .script(then(
            in_replication(),
            [
                send(call_of("makeCoffee", 0, b"")),
                expect(refused("makeCoffee", 0, ErrorCode::InvalidRequest)),
                send(call_of("makeTea", u32::MAX, b"")),
                expect(refused("makeTea", u32::MAX, ErrorCode::InvalidRequest)),
            ],
        )),
        must(
            "SAT-C-START-020",
            "A client MUST ignore responses to calls that it has not made, and stay.",
        )
        .from("X21; published clients (0.6–0.12)")
        .otherwise("A late answer ends the connection.")
        .script(then(
            in_replication(),
            [
                send(stray_response("subscribe", 4711)),
                send(stray_response("makeCoffee", 0)),
                send(stray_response("", 1)),
            ]
            .into_iter()
            .chain(stays()),
        )),
    ]
}

fn stray_response(method: &'static str, request_id: u32) -> Sending {
    use crate::wire::proto::{SatRpcResponse, sat_rpc_response::Result};
    let result = Some(Result::Error(SatErrorResp::of(ErrorCode::InvalidRequest)));
    message(SatRpcResponse { method: method.into(), request_id, result })
}

// ---- Errors of the start ----

fn not_started(code: Code) -> Sending {
    let err = ReplicationError { code: code.into(), message: "not from there".into() };
    answer(SatInStartReplicationResp { err: Some(err), ..Default::default() })
}

fn start_errors() -> Vec<Case> {
    let asking = || then(authenticated(), [expect(called(Method::StartReplication))]);
    let begins_anew = |id, rule, code| {
        must(id, rule)
            .from("S22; published clients (0.7–0.12)")
            .otherwise("It asks for what is not there any more, for ever.")
            .script(then(
                come_back_with_a_position(),
                then(
                    vec![send(not_started(code)), send(close(1007, "")), ends(gone())],
                    then(authenticated(), [expect(starts_anew())]),
                ),
            ))
    };
    let no_storm = |id, rule, sending| {
        must(id, rule)
            .from("G42; published clients (0.6–0.12)")
            .otherwise("One client opens hundreds of connections in a second.")
            .script([repeatedly(
                WATCHED,
                NO_STORM,
                then(asking(), [send(sending), send(close(1007, "")), ends(gone())]),
            )])
    };
    let stays_away = |id, rule, sending| {
        should(id, rule)
            .from("G42; published clients (0.7–0.12)")
            .otherwise("It asks in vain for ever, and nobody is told.")
            .script(then(
                asking(),
                [send(sending), send(close(1007, "")), ends(gone()), Step::NoConnection(WATCHED)],
            ))
    };
    vec![
        begins_anew(
            "SAT-C-START-021",
            "A client whose start is answered with BEHIND_WINDOW MUST begin anew.",
            Code::BehindWindow,
        ),
        begins_anew(
            "SAT-C-START-022",
            "A client whose start is answered with INVALID_POSITION MUST begin anew.",
            Code::InvalidPosition,
        ),
        begins_anew(
            "SAT-C-START-023",
            "A client whose start is answered with SUBSCRIPTION_NOT_FOUND MUST begin anew.",
            Code::SubscriptionNotFound,
        ),
        begins_anew(
            "SAT-C-START-024",
            "A client whose start is answered with MALFORMED_LSN MUST begin anew.",
            Code::MalformedLsn,
        ),
        stays_away(
            "SAT-C-START-025",
            "A client whose start is answered with UNKNOWN_SCHEMA_VSN SHOULD NOT come back by \
             itself.",
            not_started(Code::UnknownSchemaVsn),
        ),
        no_storm(
            "SAT-C-START-026",
            "A client MUST NOT storm a server that answers every start with BEHIND_WINDOW.",
            not_started(Code::BehindWindow),
        ),
        no_storm(
            "SAT-C-START-027",
            "A client MUST NOT storm a server that answers every start with MALFORMED_LSN.",
            not_started(Code::MalformedLsn),
        ),
        no_storm(
            "SAT-C-START-028",
            "A client MUST NOT storm a server that answers every start with CODE_UNSPECIFIED.",
            not_started(Code::Unspecified),
        ),
        should(
            "SAT-C-START-029",
            "A client SHOULD come back after pauses when `startReplication` is refused with \
             INTERNAL.",
        )
        .from("G43; README, Failure::advice")
        .otherwise("A passing fault of the server ends its sync for good.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            then(
                asking(),
                [send(refuse(ErrorCode::Internal)), send(close(1011, "")), ends(gone())],
            ),
        )]),
        must(
            "SAT-C-START-030",
            "A client whose start is refused with REPLICATION_FAILED MUST keep its position.",
        )
        .from("README, the service without data")
        .otherwise("A passing fault of the server costs it all its data.")
        .script(then(
            come_back_with_a_position(),
            then(
                vec![
                    send(refuse(ErrorCode::ReplicationFailed)),
                    send(close(1007, "")),
                    ends(gone()),
                ],
                then(authenticated(), [expect(starts_from(b"7"))]),
            ),
        )),
        stays_away(
            "SAT-C-START-031",
            "A client whose start is refused with INVALID_REQUEST SHOULD NOT come back by itself.",
            refuse(ErrorCode::InvalidRequest),
        ),
        must(
            "SAT-C-START-032",
            "A client whose start is refused with AUTH_REQUIRED MUST NOT come back with the same \
             token.",
        )
        .from("G01, G42")
        .otherwise("It spends its life, and the server's, on a token that is no good.")
        .script(then(
            asking(),
            [
                send(refuse(ErrorCode::AuthRequired)),
                send(close(1007, "")),
                ends(gone()),
                Step::NoConnection(WATCHED),
            ],
        )),
    ]
}

// ---- Stop ----

fn stops() -> Vec<Case> {
    let stopping = || then(in_replication(), [expect(called_anew(Method::StopReplication))]);
    let stopped = || send(answer(SatInStopReplicationResp {}));
    let case = |case: Case| case.task(Task::Stop);
    vec![
        case(must(
            "SAT-C-STOP-001",
            "A client that wants no more MUST call `stopReplication` with a request id of its own, \
             and stay.",
        ))
        .from("S27")
        .otherwise("It can only stop by leaving.")
        .script(then(stopping(), [stopped()].into_iter().chain(stays()))),
        case(must(
            "SAT-C-STOP-002",
            "A client MUST bear what was on its way when it called `stopReplication`.",
        ))
        .from("S27")
        .otherwise("It loses its connection whenever there is traffic.")
        .script(then(
            stopping(),
            [items(), ops([begin("7", 7), insert("a"), commit("7", 7)]), stopped()]
                .into_iter()
                .chain(stays()),
        )),
        case(must(
            "SAT-C-STOP-003",
            "A client MUST bear a transaction that is cut off by the answer to its \
             `stopReplication`.",
        ))
        .from("S27")
        .otherwise("It loses its connection, or keeps half a transaction.")
        .script(then(
            stopping(),
            [items(), ops([begin("7", 7), insert("a")]), stopped()].into_iter().chain(stays()),
        )),
        case(must(
            "SAT-C-STOP-004",
            "A client MUST NOT storm a server that refuses its `stopReplication`.",
        ))
        .from("G42")
        .otherwise("All clients together keep a server down that is in trouble.")
        .script([repeatedly(
            WATCHED,
            NO_STORM,
            then(
                stopping(),
                [send(refuse(ErrorCode::Internal)), send(close(1011, "")), ends(gone())],
            ),
        )]),
    ]
}

// ---- The stream ----

fn stream() -> Vec<Case> {
    let with_window = |size| {
        then(authenticated(), [expect(called(Method::StartReplication)), granted(Some(size))])
    };
    let any_ack = || a_message("SatOpLogAck", |message| matches!(message, Message::OpLogAck(_)));
    vec![
        must(
            "SAT-C-STREAM-001",
            "A client MUST take a relation and a transaction, in one message or in several.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("It loses its connection over every larger transaction.")
        .script(then(
            in_replication(),
            [
                items(),
                ops([begin("7", 7), insert("a"), commit("7", 7)]),
                ops([begin("8", 8)]),
                ops([insert("b")]),
                ops([]),
                ops([insert("c")]),
                ops([commit("8", 8)]),
            ]
            .into_iter()
            .chain(stays()),
        )),
        must("SAT-C-STREAM-002", "A client MUST take several transactions in one message.")
            .from("published clients (0.6–0.12)")
            .otherwise("It loses transactions.")
            .script(then(
                then(
                    in_replication(),
                    [
                        items(),
                        ops([
                            begin("7", 7),
                            insert("a"),
                            commit("7", 7),
                            begin("8", 8),
                            insert("b"),
                            commit("8", 8),
                        ]),
                        Step::Silence(secs(2)),
                        Step::Cut,
                    ],
                ),
                then(authenticated(), [expect(starts_from(b"8"))]),
            )),
        must("SAT-C-STREAM-003", "A client MUST take a relation again whose columns have changed.")
            .from("published clients (0.6–0.12)")
            .otherwise("It loses its connection with every migration.")
            .script(then(
                in_replication(),
                [items(), items(), ops([begin("7", 7), insert("a"), commit("7", 7)])]
                    .into_iter()
                    .chain(stays()),
            )),
        must(
            "SAT-C-STREAM-004",
            "A client of version 0.10 or later MUST acknowledge what it has stored before the \
             window of the server is full.",
        )
        .since(Version::V0_10)
        .from("G50; published clients (0.10–0.12)")
        .otherwise("The server waits for ever, and the stream with it.")
        .script(then(
            with_window(5),
            [
                items(),
                ops([begin("7", 7), insert("a"), commit("7", 7)]),
                ops([begin("8", 8), insert("b"), commit("8", 8)]),
                ops([begin("9", 9), insert("c"), commit("9", 9)]),
                ops([begin("10", 10), insert("d"), commit("10", 10)]),
                ops([begin("11", 11), insert("e"), commit("11", 11)]),
                expect(a_message("SatOpLogAck of one of 7 to 11", |message| {
                    matches!(message, Message::OpLogAck(SatOpLogAck { transaction_id: 7..=11, .. }))
                })),
            ],
        )),
        should(
            "SAT-C-STREAM-005",
            "A client of version 0.10 or later SHOULD acknowledge a transaction soon, with its id \
             and its position, when no other follows.",
        )
        .since(Version::V0_10)
        .from("G50")
        .otherwise("The server keeps what nobody needs any more.")
        .script(then(
            with_window(5),
            [
                items(),
                ops([begin("7", 7), insert("a"), commit("7", 7)]),
                expect(a_message("SatOpLogAck of 7 at \"7\"", |message| {
                    matches!(message, Message::OpLogAck(ack)
                        if ack.transaction_id == 7 && ack.lsn == Bytes::from_static(b"7"))
                })),
            ],
        )),
        must(
            "SAT-C-STREAM-006",
            "A client MUST NOT acknowledge a transaction whose commit has not come.",
        )
        .since(Version::V0_10)
        .from("G50")
        .otherwise("The server forgets what the client has not got.")
        .script(then(
            with_window(5),
            [items(), ops([begin("7", 7), insert("a")]), Step::Absent(acknowledges(7), secs(3))],
        )),
        must("SAT-C-STREAM-007", "A client of a version before 0.10 MUST NOT send SatOpLogAck.")
            .until(Version::V0_9)
            .from("proto/satellite.proto, SatOpLogAck")
            .otherwise("A server of that version closes with 1007: it knows no such message.")
            .script(then(
                in_replication(),
                [
                    items(),
                    ops([begin("7", 7), insert("a"), commit("7", 7)]),
                    Step::Absent(any_ack(), secs(3)),
                ],
            )),
    ]
}

fn broken_streams() -> Vec<Case> {
    let breaks = |id, rule, otherwise, steps: Vec<Step>| {
        // Once the client has got on with its start.
        let settled = then(in_replication(), [Step::Silence(secs(1))]);
        should(id, rule)
            .from("X23; README, the order of the stream")
            .otherwise(otherwise)
            .script(then(then(settled, steps), [ends(gone()), accept()]))
    };
    vec![
        should(
            "SAT-C-STREAM-008",
            "A client SHOULD close the connection when the stream comes before it has asked for it.",
        )
        .from("X23")
        .otherwise("It takes data for which it has no position.")
        .script(then(
            then(authenticated(), [expect(called(Method::StartReplication))]),
            [
                items(),
                ops([begin("7", 7), insert("a"), commit("7", 7)]),
                ends(gone()),
                accept(),
            ],
        )),
        breaks(
            "SAT-C-STREAM-009",
            "A client SHOULD close the connection when an operation uses a relation that was not \
             announced.",
            "It cannot tell which table is meant, and loses the change.",
            vec![ops([begin("7", 7), insert("a"), commit("7", 7)])],
        ),
        breaks(
            "SAT-C-STREAM-010",
            "A client SHOULD close the connection when an operation comes outside a transaction.",
            "It applies a change that has no position, and loses it or applies it twice.",
            vec![items(), ops([insert("a")])],
        ),
        breaks(
            "SAT-C-STREAM-011",
            "A client SHOULD close the connection when a transaction begins inside another.",
            "The first of them is applied in half, or as part of the second.",
            vec![items(), ops([begin("7", 7), insert("a"), begin("8", 8)])],
        ),
        breaks(
            "SAT-C-STREAM-012",
            "A client SHOULD close the connection when a commit comes without a begin.",
            "It takes a position for which it has no data.",
            vec![ops([commit("7", 7)])],
        ),
        breaks(
            "SAT-C-STREAM-013",
            "A client SHOULD close the connection when a transaction has no position.",
            "It forgets where it is, and begins anew the next time.",
            vec![items(), ops([begin("", 7), insert("a"), commit("", 7)])],
        ),
        breaks(
            "SAT-C-STREAM-014",
            "A client SHOULD close the connection when a row does not fit its relation.",
            "Values land in the wrong columns.",
            vec![
                items(),
                ops([begin("7", 7), insert_into(ITEMS, ["a"]), commit("7", 7)]),
            ],
        ),
        breaks(
            "SAT-C-STREAM-015",
            "A client SHOULD close the connection when an operation is none that it knows.",
            "It skips a change, and is out of step without knowing it.",
            vec![send(message(SatOpLog { ops: vec![SatTransOp { op: None }] }))],
        ),
        breaks(
            "SAT-C-STREAM-016",
            "A client SHOULD close the connection when additional data comes that no transaction \
             has announced.",
            "It takes rows that belong to no subscription of its own.",
            vec![ops([Op::AdditionalBegin(SatOpAdditionalBegin { r#ref: 5 })])],
        )
        .since(Version::V0_10),
        breaks(
            "SAT-C-STREAM-017",
            "A client SHOULD close the connection when a server acknowledges what it cannot have \
             got.",
            "The two ends have changed places, and each believes the other.",
            vec![send(message(SatOpLogAck { transaction_id: 7, ..Default::default() }))],
        ),
        must(
            "SAT-C-STREAM-018",
            "A client MUST NOT storm a server whose stream is broken each time.",
        )
        .from("G42")
        .otherwise("All clients together keep a server down that is in trouble.")
        .script([repeatedly(
            WATCHED,
            NO_STORM,
            then(
                in_replication(),
                [ops([begin("7", 7), insert("a"), commit("7", 7)]), Step::Wait(ms(100))],
            ),
        )]),
    ]
}

// ---- What the client writes ----

fn announces_items() -> Expectation {
    a_message("SatRelation of items", |message| {
        matches!(message, Message::Relation(relation)
            if relation.table_name == "items" && !relation.columns.is_empty())
    })
}

/// A transaction, in one message, with a position and at least one change of a row.
fn writes_a_transaction() -> Expectation {
    a_message("SatOpLog of a transaction with a position and a row", |message| {
        let Message::OpLog(log) = message else { return false };
        let ops: Vec<&Op> = log.ops.iter().filter_map(|op| op.op.as_ref()).collect();
        matches!(&ops[..], [Op::Begin(begin), .., Op::Commit(_)]
            if !begin.lsn.is_empty() && ops.iter().any(|op| matches!(op, Op::Insert(_))))
    })
}

fn writes() -> Vec<Case> {
    let asked = || vec![send(call(7, start())), expect(reply::<SatInStartReplicationReq>(7))];
    let case = |case: Case| case.task(Task::Write);
    vec![
        case(must(
            "SAT-C-STREAM-019",
            "A client MUST announce each relation before its first use, and then send transactions \
             that begin with a position, hold a change, and are committed.",
        ))
        .from("S29; published clients (0.6–0.12)")
        .otherwise("The server refuses the write, or stores nothing.")
        .script(then(
            then(in_replication(), asked()),
            [expect(announces_items()), expect(writes_a_transaction())],
        )),
        case(must(
            "SAT-C-STREAM-020",
            "A client MUST NOT send its writes before it has answered the server's \
             `startReplication`.",
        ))
        .from("D08; published clients (0.6–0.12)")
        .otherwise("The original servers drop them without a word.")
        .script(then(in_replication(), [Step::Silence(secs(3))])),
        case(must(
            "SAT-C-STREAM-021",
            "A client MUST announce relations on every connection anew.",
        ))
        .from("proto/satellite.proto, SatRelation")
        .otherwise("The server cannot tell which table is meant.")
        .script(then(
            then(
                then(in_replication(), asked()),
                [expect(announces_items()), expect(writes_a_transaction()), Step::Cut],
            ),
            then(
                then(in_replication(), asked()),
                [expect(announces_items()), expect(writes_a_transaction())],
            ),
        )),
    ]
}
