//! What Electric 0.7.1 and 0.12.1 do alike from authentication on, where that is not what a new
//! server should do.

use crate::{
    conformance::{
        TokenSpec,
        cases::{
            handshake::{authenticated, authenticated_and},
            start::{OwnCall, in_replication_and, own_calls},
            stream,
            tokens::lets_in,
        },
        profiles::Difference,
        script::*,
        token,
    },
    wire::{
        Message, Method,
        proto::{
            SatInStartReplicationReq, SatInStartReplicationResp, SatInStopReplicationReq,
            SatOpBegin, SatOpCommit, SatOpLog, SatRelation, SatRpcResponse, SatShapeDataBegin,
            SatShapeDataEnd, SatSubsDataBegin, SatSubsDataEnd, SatSubsDataError, SatSubsReq,
            SatTransOp,
            sat_error_resp::ErrorCode::{AuthRequired, Internal, InvalidRequest},
            sat_in_start_replication_resp::replication_error::Code::UnknownSchemaVsn,
            sat_trans_op::Op,
        },
    },
};

/// The reason of the close after a crash.
const CRASHED: &str = "Failed to process message";

/// The server crashes on what came last.
pub(super) fn crashes() -> [Step; 2] {
    [expect(error(Internal)), ends(closed(1011).saying(CRASHED))]
}

/// The server refuses what came last, by an error that is no answer.
pub(super) fn refuses() -> [Step; 2] {
    [expect(error(InvalidRequest)), ends(closed(1007))]
}

/// This is sent before authentication, and then.
pub(super) fn before(body: impl Into<Message>, then: [Step; 2]) -> Vec<Step> {
    [open(), send(message(body))].into_iter().chain(then).collect()
}

/// A token is presented, and the server crashes.
pub(super) fn crashes_on(token: TokenSpec) -> Vec<Step> {
    [open(), send(authenticate(1).with_token(token))].into_iter().chain(crashes()).collect()
}

/// A token is presented, and refused.
pub(super) fn refuses_token(token: TokenSpec) -> Vec<Step> {
    vec![
        open(),
        send(authenticate(1).with_token(token)),
        expect(refused("authenticate", 1, AuthRequired)),
        ends(closed(1007)),
    ]
}

pub(super) fn differences() -> Vec<Difference> {
    [messages_before(), tokens(), starts(), stops(), own(), streams()].concat()
}

fn messages_before() -> Vec<Difference> {
    let answer = |method: &str| SatRpcResponse {
        method: method.into(),
        request_id: 0,
        result: Some(crate::wire::proto::sat_rpc_response::Result::Message(Default::default())),
    };
    let relation = SatRelation {
        schema_name: "public".into(),
        table_name: "items".into(),
        relation_id: 1,
        ..Default::default()
    };
    vec![
        Difference::skip(
            "SAT-AUTH-037",
            "no conversation with a SatOpLog before authentication is recorded",
        ),
        Difference::script(
            "SAT-AUTH-038",
            "preauth_SatRelation: it crashes",
            before(relation, crashes()),
        ),
        Difference::script(
            "SAT-AUTH-040",
            "preauth_SatSubsDataBegin: INVALID_REQUEST",
            before(SatSubsDataBegin::default(), refuses()),
        ),
        Difference::script(
            "SAT-AUTH-041",
            "preauth_SatSubsDataBegin: INVALID_REQUEST, for its end too",
            before(SatSubsDataEnd::default(), refuses()),
        ),
        Difference::script(
            "SAT-AUTH-042",
            "preauth_SatSubsDataError: INVALID_REQUEST",
            before(SatSubsDataError::default(), refuses()),
        ),
        Difference::script(
            "SAT-AUTH-043",
            "preauth_SatShapeDataBegin: INVALID_REQUEST",
            before(SatShapeDataBegin::default(), refuses()),
        ),
        Difference::script(
            "SAT-AUTH-044",
            "preauth_SatShapeDataEnd: INVALID_REQUEST",
            before(SatShapeDataEnd::default(), refuses()),
        ),
        Difference::script(
            "SAT-AUTH-047",
            "preauth_SatRpcResponse_authenticate: INVALID_REQUEST",
            before(answer("authenticate"), refuses()),
        ),
        Difference::script(
            "SAT-AUTH-048",
            "preauth_SatRpcResponse_startReplication: it crashes",
            before(answer("startReplication"), crashes()),
        ),
        Difference::script(
            "SAT-AUTH-049",
            "preauth_SatRpcResponse_empty: INVALID_REQUEST",
            before(SatRpcResponse::default(), refuses()),
        ),
    ]
}

fn tokens() -> Vec<Difference> {
    const LAST: &str = "README: of a name that comes twice, the last one counts";
    let accepts = |id, reason, token| Difference::script(id, reason, lets_in(token));
    // In insecure mode it crashes; in secure mode the library that verifies refuses.
    let is_no_object = |id, token| {
        let reason =
            "auth_insecure_payload_array crashes, auth_hs256_payload_array_signed is refused";
        let refusal = refused("authenticate", 1, AuthRequired).or(error(Internal));
        Difference::script(
            id,
            reason,
            [
                open(),
                send(authenticate(1).with_token(token)),
                expect(refusal),
                ends(closed_with([1007, 1011])),
            ],
        )
    };
    vec![
        Difference::script(
            "SAT-TOK-019",
            "auth_hs256_header_array: it crashes",
            crashes_on(token().header_text("is an array", |header| format!("[{header}]"))),
        ),
        accepts(
            "SAT-TOK-021",
            LAST,
            token().header_text("alg comes twice", |header| {
                header.replacen('{', r#"{"alg":"none","#, 1)
            }),
        ),
        accepts(
            "SAT-TOK-022",
            "auth_hs256_crit_header: `crit` is not looked at",
            token().header("crit", serde_json::json!(["urn:example:only-on-mondays"])),
        ),
        accepts(
            "SAT-TOK-023",
            "auth_hs256_crit_header: `crit` is not looked at",
            token().header("crit", serde_json::json!([])),
        ),
        Difference::skip("SAT-TOK-024", "no conversation with an unencoded payload is recorded"),
        Difference::skip("SAT-TOK-025", "no conversation with a compressed token is recorded"),
        Difference::skip("SAT-TOK-026", "no conversation with a nested token is recorded"),
        is_no_object(
            "SAT-TOK-042",
            token().payload_text("all is in an array", |payload| format!("[{payload}]")),
        ),
        is_no_object("SAT-TOK-043", token().raw_payload("1")),
        is_no_object("SAT-TOK-044", token().raw_payload("\"text\"")),
        is_no_object("SAT-TOK-045", token().raw_payload("null")),
        accepts(
            "SAT-TOK-049",
            LAST,
            token().payload_text("exp comes twice", |payload| {
                payload.replacen('{', r#"{"exp":32503680000,"#, 1)
            }),
        ),
        accepts(
            "SAT-TOK-050",
            LAST,
            token().payload_text("an unknown claim comes twice", |payload| {
                payload.replacen('{', r#"{"x":1,"x":1,"#, 1)
            }),
        ),
        accepts(
            "SAT-TOK-051",
            LAST,
            token().payload_text("a name comes twice further in", |payload| {
                payload.replacen('{', r#"{"x":{"y":1,"y":2},"#, 1)
            }),
        ),
        accepts(
            "SAT-TOK-052",
            LAST,
            token().payload_text("sub comes twice", |payload| {
                payload.replacen('{', r#"{"sub":"somebody else","#, 1)
            }),
        ),
        accepts(
            "SAT-TOK-053",
            LAST,
            token().payload_text("sub comes twice, once with an escape", |payload| {
                payload.replacen('{', r#"{"s\u0075b":"somebody else","#, 1)
            }),
        ),
        Difference::script(
            "SAT-TOK-069",
            "auth_insecure-ns_ns_not_map: it crashes",
            crashes_on(token().namespace(serde_json::json!("conformance"))),
        ),
        Difference::script(
            "SAT-TOK-070",
            "auth_insecure-ns_ns_list: it crashes",
            crashes_on(token().namespace(serde_json::json!(["conformance"]))),
        ),
        Difference::script(
            "SAT-TOK-105",
            "README: `aud` must be the very text that is wanted",
            refuses_token(token().among("aud")),
        ),
    ]
}

/// The server's own call, which comes as soon as the client is authenticated.
fn own_call() -> Step {
    expect(called(Method::StartReplication))
}

fn starts() -> Vec<Difference> {
    vec![
        Difference::script(
            "SAT-START-003",
            "authed_startReplication_unknown_schema: UNKNOWN_SCHEMA_VSN",
            authenticated_and([
                send(call(
                    2,
                    SatInStartReplicationReq {
                        schema_version: Some("20230101000000_1".into()),
                        ..Default::default()
                    },
                )),
                expect(start_error(2, UnknownSchemaVsn)),
                ends(closed(1007)),
            ]),
        ),
        Difference::script(
            "SAT-START-004",
            "authed_nothing: it calls as soon as the client is authenticated",
            authenticated_and([own_call(), ends(open_still())]),
        ),
        Difference::script(
            "SAT-START-023",
            "authed_startReplication_twice: it starts a second stream",
            in_replication_and([send(call(3, start())), expect(started(3)), ends(open_still())]),
        ),
    ]
}

/// The answer to `stopReplication`, and the stray error behind it.
fn stopped(number: u32) -> [Step; 2] {
    [expect(reply::<SatInStopReplicationReq>(number)), expect(error(Internal))]
}

fn stops() -> Vec<Difference> {
    const STRAY: &str = "authed_start_stop_start_stop: a bare INTERNAL follows the answer";
    let ask = |number| send(call(number, subscribe("d0a5b4f2-5b5e-4d1c-8d0c-5f3a8a1c3c11")));
    let stops = |number| [vec![send(call(number, stop()))], stopped(number).to_vec()].concat();
    let starts = |number| vec![send(call(number, start())), expect(started(number))];
    let open = || vec![ends(open_still())];
    vec![
        Difference::script(
            "SAT-RPC-031",
            STRAY,
            authenticated_and(
                [
                    vec![send(call(2, start())), ask(3), send(call(4, stop())), ask(5)],
                    vec![expect(started(2)), expect(reply::<SatSubsReq>(3))],
                    stopped(4).to_vec(),
                    vec![expect(reply::<SatSubsReq>(5))],
                ]
                .concat(),
            ),
        ),
        Difference::script(
            "SAT-START-024",
            STRAY,
            in_replication_and([stops(3), starts(4), stops(5), open()].concat()),
        ),
        Difference::script("SAT-STOP-001", STRAY, in_replication_and([stops(3), open()].concat())),
        Difference::script(
            "SAT-STOP-002",
            "X14, authed_start_stop_stop: it crashes when replication is not started",
            authenticated_and([vec![send(call(2, stop()))], crashes().to_vec()].concat()),
        ),
        Difference::script(
            "SAT-STOP-003",
            "authed_start_stop_stop: it crashes",
            in_replication_and(
                [stops(3), vec![send(call(4, stop()))], crashes().to_vec()].concat(),
            ),
        ),
        Difference::script(
            "SAT-STOP-004",
            STRAY,
            authenticated_and([starts(2), stops(3), starts(4), stops(5), open()].concat()),
        ),
        Difference::script(
            "SAT-STOP-005",
            STRAY,
            in_replication_and(
                [
                    vec![send(call_of("stopReplication", 3, b"\x78\x01"))],
                    stopped(3).to_vec(),
                    open(),
                ]
                .concat(),
            ),
        ),
    ]
}

/// The cases that begin with the server's own call.
fn own() -> Vec<Difference> {
    let difference = |own: OwnCall| match own.case.id {
        // The number of the answer is not looked at.
        id @ "SAT-START-029" => {
            let answer = answer(SatInStartReplicationResp::default()).with_wrong_number();
            let rest = [own_call(), send(answer), ends(open_still())];
            Difference::script(id, "authed_reply_startReplication_rid9", authenticated_and(rest))
        }
        id @ ("SAT-START-028" | "SAT-START-030" | "SAT-START-031") => {
            Difference::skip(id, "no conversation with such an answer is recorded")
        }
        id => Difference::script(
            id,
            "authed_nothing: it calls as soon as the client is authenticated",
            own.at_once(),
        ),
    };
    own_calls().into_iter().map(difference).collect()
}

fn streams() -> Vec<Difference> {
    let relation = SatRelation {
        schema_name: "public".into(),
        table_name: "conformance_items".into(),
        relation_id: 1,
        ..Default::default()
    };
    let crash = || {
        let announced =
            authenticated().into_iter().chain([own_call(), send(message(relation.clone()))]);
        announced.chain(crashes())
    };
    let mut differences: Vec<Difference> = stream::announcing()
        .map(|id| Difference::script(id, "authed_SatRelation_unknown: it crashes", crash()))
        .collect();
    let ops = [
        Op::Begin(SatOpBegin { lsn: "1".into(), ..Default::default() }),
        Op::Commit(SatOpCommit::default()),
    ];
    let ops = ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect();
    differences.push(Difference::script(
        "SAT-STREAM-014",
        "replication, g_empty_tx: the transaction is lost, its stream stops and starts again",
        in_replication_and([
            send(message(SatOpLog { ops })),
            Step::Silence(secs(1)),
            ends(open_still()),
        ]),
    ));
    differences.push(Difference::skip(
        "SAT-STREAM-015",
        "no conversation with an unknown operation is recorded",
    ));
    differences
}
