//! Messages, calls and answers: what is well formed, what is answered, and by what.

use crate::{
    conformance::{Case, must, script::*, should},
    wire::{
        Message, Reply, Version,
        proto::{
            SatAuthResp, SatErrorResp, SatInStartReplicationReq, SatInStartReplicationResp,
            SatInStopReplicationReq, SatRpcResponse, SatSubsReq,
            sat_error_resp::ErrorCode::{Internal, InvalidRequest, ReplicationFailed},
            sat_rpc_response::Result as Outcome,
        },
    },
};

use super::handshake::authenticated_and;

/// The reason of the close that follows what cannot be decoded.
const UNDECODABLE: &str = "Message not formatted according to Electric protocol";

pub(super) fn cases() -> Vec<Case> {
    [refused_calls(), undecodable(), numbers(), stray_answers(), tolerance()].concat()
}

// ---- Calls that are none ----

fn refused_calls() -> Vec<Case> {
    let before = |id, rule, source, method: &'static str, sending: Sending| {
        must(id, rule)
            .from(source)
            .otherwise("A caller waits for an answer that never comes, or cannot tell which it is.")
            .script([
                open(),
                send(sending),
                expect(refused(method, 7, InvalidRequest)),
                ends(closed(1007)),
                Step::Alive,
            ])
    };
    let after = |id, rule, source, method: &'static str, sending: Sending| {
        must(id, rule)
            .from(source)
            .otherwise("A caller waits for an answer that never comes, or cannot tell which it is.")
            .script(authenticated_and([
                send(sending),
                expect(refused(method, 7, InvalidRequest)),
                ends(closed(1007)),
                Step::Alive,
            ]))
    };
    vec![
        before(
            "SAT-RPC-001",
            "A server MUST answer a call of an unknown method with INVALID_REQUEST, repeating \
             method and number, and close the connection with 1007.",
            "X07; preauth_method_case",
            "noSuchMethod",
            call_of("noSuchMethod", 7, b""),
        ),
        before(
            "SAT-RPC-002",
            "A server MUST take names of methods as case-sensitive.",
            "preauth_method_case",
            "Authenticate",
            call_of("Authenticate", 7, b"\x0a\x01c\x12\x01t"),
        ),
        before(
            "SAT-RPC-003",
            "A server MUST NOT trim the name of a method.",
            "X07",
            " authenticate",
            call_of(" authenticate", 7, b"\x0a\x01c\x12\x01t"),
        ),
        before(
            "SAT-RPC-004",
            "A server MUST answer a call without a method with INVALID_REQUEST, and close the \
             connection with 1007.",
            "X07",
            "",
            call_of("", 7, b""),
        ),
        before(
            "SAT-RPC-005",
            "A server MUST answer a call whose body cannot be decoded with INVALID_REQUEST, \
             repeating method and number, and close the connection with 1007.",
            "X07; preauth_malformed_rpc_payload",
            "authenticate",
            call_of("authenticate", 7, b"\xff\xff\xff\xff"),
        ),
        before(
            "SAT-RPC-006",
            "A server MUST refuse a body that is cut off in the middle of a field.",
            "preauth_malformed_rpc_payload_truncated",
            "authenticate",
            call_of("authenticate", 7, b"\x0a\x20abc"),
        ),
        before(
            "SAT-RPC-007",
            "A server MUST refuse a body in which a field has another wire type than its own.",
            "X07; protobuf: the client id is no number",
            "authenticate",
            call_of("authenticate", 7, b"\x08\x01\x12\x01t"),
        ),
        after(
            "SAT-RPC-008",
            "A server MUST answer an authenticated client's call of an unknown method with \
             INVALID_REQUEST, and close the connection with 1007.",
            "X07",
            "startreplication",
            call_of("startreplication", 7, b""),
        ),
        after(
            "SAT-RPC-009",
            "A server MUST answer a `startReplication` that cannot be decoded with \
             INVALID_REQUEST, and close the connection with 1007.",
            "authed_startReplication_malformed",
            "startReplication",
            call_of("startReplication", 7, b"\xff\xff\xff\xff"),
        ),
        after(
            "SAT-RPC-010",
            "A server MUST answer a `stopReplication` that cannot be decoded with INVALID_REQUEST, \
             and close the connection with 1007.",
            "X07; authed_startReplication_malformed",
            "stopReplication",
            call_of("stopReplication", 7, b"\x0a"),
        ),
        after(
            "SAT-RPC-011",
            "A server MUST answer a `subscribe` that cannot be decoded with INVALID_REQUEST, and \
             close the connection with 1007.",
            "X07; authed_startReplication_malformed",
            "subscribe",
            // A shape request that promises more than there is.
            call_of("subscribe", 7, b"\x0a\x01s\x12\x05\x0a\x09r"),
        ),
        after(
            "SAT-RPC-012",
            "A server MUST answer an `unsubscribe` that cannot be decoded with INVALID_REQUEST, \
             and close the connection with 1007.",
            "X07; authed_startReplication_malformed",
            "unsubscribe",
            // An id that is not UTF-8.
            call_of("unsubscribe", 7, b"\x0a\x02\xc3\x28"),
        ),
    ]
}

// ---- Messages that are none ----

fn undecodable() -> Vec<Case> {
    let end = || [expect(error(Internal)), ends(closed(1007).saying(UNDECODABLE)), Step::Alive];
    let before = |id, rule, source, words: &str, bytes: &'static [u8]| {
        must(id, rule)
            .from(source)
            .otherwise("A peer that speaks something else is left waiting, or the server crashes.")
            .script([open(), send(binary(words, bytes))].into_iter().chain(end()))
    };
    let after = |id, rule, source, words: &str, bytes: &'static [u8]| {
        must(id, rule)
            .from(source)
            .otherwise("A peer that speaks something else is left waiting, or the server crashes.")
            .script(authenticated_and([send(binary(words, bytes))].into_iter().chain(end())))
    };
    vec![
        before(
            "SAT-RPC-013",
            "A server MUST answer a message that it cannot decode with a bare SatErrorResp of type \
             INTERNAL, and close the connection with 1007 and the reason `Message not formatted \
             according to Electric protocol`.",
            "H03; X08",
            "the text \"rubbish\"",
            b"rubbish",
        ),
        after(
            "SAT-RPC-014",
            "A server MUST answer a message that it cannot decode in the same way after \
             authentication.",
            "H04; X08",
            "the text \"rubbish\"",
            b"rubbish",
        ),
        before(
            "SAT-RPC-015",
            "A server MUST treat an empty message as one that cannot be decoded.",
            "X08; authed_empty_binary",
            "nothing",
            b"",
        ),
        after(
            "SAT-RPC-016",
            "A server MUST treat an empty message of an authenticated client as one that cannot be \
             decoded.",
            "authed_empty_binary",
            "nothing",
            b"",
        ),
        before(
            "SAT-RPC-017",
            "A server MUST NOT know the type byte 1, which was `SatAuthReq` before 0.6.",
            "preauth_type_1",
            "type byte 1 and an id",
            b"\x01\x0a\x01c\x12\x01t",
        ),
        before(
            "SAT-RPC-018",
            "A server MUST NOT know the type byte 3, which was a ping before 0.6.",
            "preauth_type_3",
            "type byte 3",
            b"\x03",
        ),
        before(
            "SAT-RPC-019",
            "A server MUST NOT know a type byte between two that it knows.",
            "preauth_type_11",
            "type byte 11",
            b"\x0b",
        ),
        before(
            "SAT-RPC-020",
            "A server MUST NOT know the type byte 26, behind the last one.",
            "preauth_type_26",
            "type byte 26",
            b"\x1a",
        ),
        after(
            "SAT-RPC-021",
            "A server MUST NOT know the type byte 255.",
            "X08; preauth_type_127",
            "type byte 255",
            b"\xff\x08\x01",
        ),
        before(
            "SAT-RPC-022",
            "A server MUST treat an envelope that is cut off as a message that cannot be decoded.",
            "preauth_envelope_truncated",
            "half of a call",
            b"\x15\x0a\x0cauthent",
        ),
        before(
            "SAT-RPC-023",
            "A server MUST treat an envelope in which a field has another wire type than its own as \
             a message that cannot be decoded.",
            "preauth_envelope_wrong_wiretype",
            "a call whose method is a number",
            b"\x15\x08\x01\x10\x01",
        ),
        before(
            "SAT-RPC-024",
            "A server MUST treat an envelope of garbage as a message that cannot be decoded.",
            "preauth_malformed_rpc_envelope",
            "type byte 21 and garbage",
            b"\x15\xff\xff\xff\xff",
        ),
        before(
            "SAT-RPC-025",
            "A server MUST treat an envelope whose method is not UTF-8 as a message that cannot be \
             decoded.",
            "preauth_method_not_utf8",
            "a call whose method is ff fe",
            b"\x15\x0a\x02\xff\xfe\x10\x07",
        ),
        after(
            "SAT-RPC-026",
            "A server MUST treat a SatOpLog that cannot be decoded as a message that cannot be \
             decoded.",
            "X08; corrections #13",
            "a SatOpLog that is cut off",
            b"\x09\x0a\x05\x0a\x03\x08",
        ),
        after(
            "SAT-RPC-027",
            "A server MUST treat a field number of 0 as a message that cannot be decoded.",
            "protobuf: field numbers begin with 1",
            "a call with a field 0",
            b"\x15\x00\x01",
        ),
    ]
}

// ---- Numbers and order ----

fn numbers() -> Vec<Case> {
    let subscribed = |number| expect(reply::<SatSubsReq>(number));
    let ask = |number| send(call(number, subscribe("d0a5b4f2-5b5e-4d1c-8d0c-5f3a8a1c3c11")));
    let numbers = 10..42;
    vec![
        must(
            "SAT-RPC-028",
            "A server MUST repeat method and number of a call in its answer, the number 0 too.",
        )
        .from("semantics §1#2; auth_insecure_rid_0")
        .otherwise("A client matches no answer to its call.")
        .script(authenticated_and([
            ask(0),
            subscribed(0),
            ask(u32::MAX),
            subscribed(u32::MAX),
        ])),
        must("SAT-RPC-029", "A server MUST answer a call whose number was used before.")
            .from("semantics §1#2: the server never checks uniqueness")
            .otherwise("A client that counts anew after a restart gets no answer.")
            .script(authenticated_and([
                ask(2),
                subscribed(2),
                ask(2),
                subscribed(2),
                ask(1),
                subscribed(1),
            ])),
        must(
            "SAT-RPC-030",
            "A server MUST answer every one of many calls that are sent without waiting.",
        )
        .from("H28; semantics §1#7")
        .otherwise("A client that restores many subscriptions at once waits for some for ever.")
        .script(authenticated_and(
            numbers.clone().map(ask).chain(numbers.map(subscribed)).chain([ends(open_still())]),
        )),
        should(
            "SAT-RPC-031",
            "A server SHOULD answer calls of different methods in the order in which they came.",
        )
        .from("semantics §1#7")
        .otherwise("What is in the stream cannot be told to be before or after an answer.")
        .script(authenticated_and([
            send(call(2, start())),
            ask(3),
            send(call(4, stop())),
            ask(5),
            expect(started(2)),
            subscribed(3),
            expect(reply::<SatInStopReplicationReq>(4)),
            subscribed(5),
        ])),
        must(
            "SAT-RPC-032",
            "A server MUST tell calls of different methods with the same number apart.",
        )
        .from("corrections #7: only method and number together are unique")
        .otherwise("The answer to one call is taken for that to another.")
        .script(authenticated_and([
            send(call(2, start())),
            ask(2),
            expect(started(2)),
            subscribed(2),
            ends(open_still()),
        ])),
    ]
}

// ---- Answers to nothing ----

fn stray_answers() -> Vec<Case> {
    let ignored = |id, rule, source, response: SatRpcResponse| {
        must(id, rule)
            .from(source)
            .otherwise("A late answer, which timeouts make normal, costs the connection.")
            .script(authenticated_and([
                send(message(response)),
                ends(open_still()),
                send(call(2, start())),
                expect(started(2)),
            ]))
    };
    let answer = |reply: Reply, number| match reply.encode(number) {
        Message::Response(envelope) => envelope,
        _ => SatRpcResponse::default(),
    };
    let start: Reply = SatInStartReplicationResp::default().into();
    let auth: Reply = SatAuthResp { id: "server".into(), headers: vec![] }.into();
    let error = Outcome::Error(SatErrorResp::of(ReplicationFailed));
    vec![
        ignored(
            "SAT-RPC-033",
            "A server MUST ignore an answer to no call of its own.",
            "authed_reply_startReplication_rid9",
            answer(start, 4242),
        ),
        ignored(
            "SAT-RPC-034",
            "A server MUST ignore an answer to an `authenticate` that it never called, and stay \
             with whom it knows.",
            "README: a reply to no call is ignored",
            answer(auth, 0),
        ),
        ignored(
            "SAT-RPC-035",
            "A server MUST ignore a negative answer to no call of its own.",
            "README: a reply to no call is ignored",
            SatRpcResponse {
                method: "startReplication".into(),
                request_id: 4242,
                result: Some(error),
            },
        ),
        ignored(
            "SAT-RPC-036",
            "A server MUST ignore an answer to a method that it does not know.",
            "README: a reply to no call is ignored",
            SatRpcResponse {
                method: "noSuchMethod".into(),
                request_id: 0,
                result: Some(Outcome::Message(b"\xff\xff"[..].into())),
            },
        ),
        must(
            "SAT-RPC-037",
            "A server MUST close the connection with 1000 and without an answer when a client \
             reports an error.",
        )
        .from("X10; authed_SatErrorResp")
        .otherwise("Two ends tell each other of their errors, over and over.")
        .script(authenticated_and([
            send(message(SatErrorResp::of(Internal))),
            ends(closed(1000)),
            Step::Alive,
        ])),
        must(
            "SAT-RPC-038",
            "A server MUST take an error of a type that it does not know as an error.",
        )
        .from("X10; protobuf: enums are open")
        .otherwise("A newer client's error keeps a dead connection open.")
        .script(authenticated_and([
            send(binary("a SatErrorResp of type 99", &b"\x00\x08\x63\x1a\x03odd"[..])),
            ends(closed(1000)),
        ])),
    ]
}

// ---- What must be borne ----

fn tolerance() -> Vec<Case> {
    vec![
        must(
            "SAT-RPC-039",
            "A server MUST take a call without a body as one whose fields all have their defaults.",
        )
        .from("protobuf: absent and empty are the same")
        .otherwise("Clients whose encoder leaves out what is empty cannot start.")
        .script(authenticated_and([
            send(binary(
                "startReplication (2) without a body",
                &b"\x15\x0a\x10startReplication\x10\x02"[..],
            )),
            expect(started(2)),
        ])),
        must("SAT-RPC-040", "A server MUST take the fields of an envelope in any order.")
            .from("protobuf: fields may come in any order")
            .otherwise("Clients with another encoder cannot call.")
            .script(authenticated_and([
                send(binary(
                    "startReplication (2), its number before its method",
                    &b"\x15\x1a\x00\x10\x02\x0a\x10startReplication"[..],
                )),
                expect(started(2)),
            ])),
        must(
            "SAT-RPC-041",
            "A server MUST ignore unknown fields and unknown options of `startReplication`.",
        )
        .from("authed_startReplication_option_unknown")
        .otherwise("A newer client cannot start at an older server.")
        .script(authenticated_and([
            // Options 0 and 77, packed; field 15, a number.
            send(call_of("startReplication", 2, b"\x12\x02\x00\x4d\x78\x01")),
            expect(started(2)),
            ends(open_still()),
        ])),
        must(
            "SAT-RPC-042",
            "A server MUST put an answer on the wire even where its message is empty: field 3 of \
             the response, of length 0.",
        )
        .from("semantics §1#3; authed_start_stop_start_stop")
        .otherwise("Published clients take a response without it for a failure.")
        .script(authenticated_and([
            send(call(2, start())),
            expect(started(2)),
            send(call(3, stop())),
            expect(such("a response that ends with 1a 00", |incoming| {
                matches!(incoming, Incoming::Message(Message::Response(SatRpcResponse {
                    request_id: 3,
                    result: Some(Outcome::Message(body)),
                    ..
                })) if body.is_empty())
            })),
        ])),
        must(
            "SAT-RPC-043",
            "A server MUST know fields of `startReplication` that its version has not, at least to \
             ignore them.",
        )
        .from("versions: fields 6 to 8 came with 0.10 to 0.12")
        .otherwise("Clients of two versions need two servers.")
        .until(Version::V0_12)
        .script(authenticated_and([
            send(call(
                2,
                SatInStartReplicationReq {
                    observed_transaction_data: vec![1, u64::MAX],
                    observed_gone_batch: vec!["gone".into()],
                    ..Default::default()
                },
            )),
            expect(started(2)),
        ])),
    ]
}
