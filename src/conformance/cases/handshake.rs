//! The handshake: `authenticate`, and what comes before and instead of it.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use crate::{
    conformance::{Case, Need, must, script::*, should, token},
    wire::{
        Message, Method, Reply, Version,
        proto::{
            SatAuthResp, SatErrorResp, SatInStartReplicationResp, SatOpLog, SatOpLogAck,
            SatRelation, SatRpcResponse, SatShapeDataBegin, SatShapeDataEnd, SatSubsDataBegin,
            SatSubsDataEnd, SatSubsDataError, SatUnsubsDataBegin, SatUnsubsDataEnd,
            sat_error_resp::ErrorCode::{self, AuthRequired, InvalidRequest},
        },
    },
};

/// A client is authenticated, by the call 1.
pub(in crate::conformance) fn authenticated() -> Vec<Step> {
    vec![open(), send(authenticate(1)), expect(welcome(1))]
}

/// A client is authenticated, and goes on so.
pub(in crate::conformance) fn authenticated_and(
    steps: impl IntoIterator<Item = Step>,
) -> Vec<Step> {
    authenticated().into_iter().chain(steps).collect()
}

/// A message that must not come before authentication.
macro_rules! early {
    ($id:literal, $source:literal, $what:literal, $body:expr $(,)?) => {
        early(
            $id,
            concat!(
                "A server MUST answer ",
                $what,
                " before authentication with a bare AUTH_REQUIRED, and close the connection with \
                 1007."
            ),
            $source,
            $body,
        )
    };
}

pub(super) fn cases() -> Vec<Case> {
    [order(), ids(), bodies(), refusals(), calls_before(), messages_before()].concat()
}

fn order() -> Vec<Case> {
    let (first, second) = same_server_id();
    vec![
        must(
            "SAT-AUTH-001",
            "A server MUST answer the first `authenticate` that presents a client id and a good \
             token with a SatAuthResp that carries its own id.",
        )
        .from("H02; auth_insecure_none_user_id")
        .otherwise("No client gets in.")
        .script([open(), send(authenticate(1)), expect(welcome(1)), ends(open_still())]),
        must(
            "SAT-AUTH-002",
            "A server MUST answer a token that does not verify with AUTH_REQUIRED, and close the \
             connection with 1007.",
        )
        .from("H06; auth_hs256_wrong_signature")
        .otherwise("Whoever can write a token gets in.")
        .needs(Need::SecureMode)
        .script([
            open(),
            send(authenticate(1).with_token(token().with_other_signature())),
            expect(refused("authenticate", 1, AuthRequired)),
            ends(closed(1007)),
            Step::Alive,
        ]),
        must(
            "SAT-AUTH-003",
            "A server MUST answer every call but `authenticate` with AUTH_REQUIRED before \
             authentication, and close the connection with 1007.",
        )
        .from("H05; preauth_startReplication")
        .otherwise("Data of others can be had without a token.")
        .script([
            open(),
            send(call(1, start())),
            expect(refused("startReplication", 1, AuthRequired)),
            ends(closed(1007)),
        ]),
        must(
            "SAT-AUTH-004",
            "A server MUST NOT send a message before it has answered `authenticate`, and MUST \
             leave a client at least 1 s to call it.",
        )
        .from("H01; preauth_ping")
        .otherwise("A client takes what comes first for the answer, or is cut off on a slow line.")
        .script([
            open(),
            Step::Wait(secs(1)),
            send(authenticate(1)),
            Step::Next(welcome(1)),
        ]),
        must(
            "SAT-AUTH-005",
            "A server MUST send the answer to `authenticate` before any call or message of its \
             own.",
        )
        .from("semantics §2; authed_nothing")
        .otherwise("Clients refuse calls of a server that they do not know yet.")
        .script([
            open(),
            send(authenticate(1)),
            Step::Next(welcome(1)),
            ends(open_still()),
        ]),
        must(
            "SAT-AUTH-006",
            "A server MUST serve calls that were sent behind `authenticate` without waiting for \
             its answer, and in that order.",
        )
        .from("H43; semantics §1#7")
        .otherwise("A client that saves a round trip loses its first call.")
        .script([
            open(),
            send(authenticate(1)),
            send(call(2, start())),
            Step::Next(welcome(1)),
            expect(started(2)),
            ends(open_still()),
        ]),
        must(
            "SAT-AUTH-007",
            "A server MUST NOT serve what was sent behind an `authenticate` that it refuses.",
        )
        .from("X05; preauth_bad_auth_then_good_pipelined")
        .otherwise("A refused client gets data if it is quick.")
        .script([
            open(),
            send(authenticate(1).with_token(token().text("invalid_token"))),
            send(call(2, start())),
            expect(refused("authenticate", 1, AuthRequired)),
            ends(closed(1007)),
        ]),
        must(
            "SAT-AUTH-008",
            "A server MUST NOT take a second `authenticate` on a connection on which it refused \
             one, even if it is good and was sent along.",
        )
        .from("X05; preauth_bad_auth_then_good_pipelined")
        .otherwise("Tokens can be guessed without connecting anew.")
        .script([
            open(),
            send(authenticate(1).with_token(token().text("invalid_token"))),
            send(authenticate(2)),
            expect(refused("authenticate", 1, AuthRequired)),
            ends(closed(1007)),
        ]),
        must(
            "SAT-AUTH-009",
            "A server MUST let a client in on a new connection after it refused the same client \
             id.",
        )
        .from("H05; X05")
        .otherwise("A client with an expired token stays locked out after it has a fresh one.")
        .script([
            open(),
            send(authenticate(1).with_token(token().text("invalid_token"))),
            expect(refused("authenticate", 1, AuthRequired)),
            ends(closed(1007)),
            open(),
            send(authenticate(2)),
            expect(welcome(2)),
            ends(open_still()),
        ]),
        should("SAT-AUTH-010", "A server SHOULD present the same id on all its connections.")
            .from("H02: the id is that of the server instance")
            .otherwise("Clients and operators cannot tell whether they talk to the same service.")
            .script([
                open(),
                send(authenticate(1)),
                expect(first),
                open(),
                send(authenticate(1).as_client(Id::Other(1))),
                expect(second),
            ]),
        must(
            "SAT-AUTH-011",
            "A server MUST let several clients of the same user be connected at the same time.",
        )
        .from("H09: one connection for each client id, not for each user")
        .otherwise("A user's second device throws out the first.")
        .script([
            open(),
            send(authenticate(1)),
            expect(welcome(1)),
            open(),
            send(authenticate(1).as_client(Id::Other(1))),
            expect(welcome(1)),
            ends(open_still()),
            Step::On(1),
            ends(open_still()),
        ]),
        must(
            "SAT-AUTH-012",
            "A server MUST NOT disturb a connection because somebody presents its client id with a \
             token that is refused.",
        )
        .from("semantics §2: the token is judged first, the client id after it")
        .otherwise("Whoever knows a client id can throw its client out.")
        .script([
            open(),
            send(authenticate(1)),
            expect(welcome(1)),
            open(),
            send(authenticate(1).with_token(token().text("invalid_token"))),
            expect(refused("authenticate", 1, AuthRequired)),
            ends(closed(1007)),
            Step::On(1),
            ends(open_still()),
        ]),
    ]
}

/// Two welcomes of which the second must carry the id of the first.
fn same_server_id() -> (Expectation, Expectation) {
    let seen = Arc::new(Mutex::new(String::new()));
    let remembered = Arc::clone(&seen);
    let id_of = |reply: &Reply| match reply {
        Reply::Authenticate(SatAuthResp { id, .. }) => id.clone(),
        _ => String::new(),
    };
    let locked =
        |id: &Arc<Mutex<String>>| id.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let first = reply_such("SatAuthResp with an id", Method::Authenticate, 1, move |reply| {
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = id_of(reply);
        !id_of(reply).is_empty()
    });
    let second =
        reply_such("SatAuthResp with the same id", Method::Authenticate, 1, move |reply| {
            id_of(reply) == locked(&remembered)
        });
    (first, second)
}

fn ids() -> Vec<Case> {
    let id = |id, rule, source, text| {
        must(id, rule)
            .from(source)
            .otherwise("A client whose id is of another kind than expected never gets in.")
            .script([
                open(),
                send(authenticate(1).as_client(Id::Text(text))),
                expect(welcome(1)),
                ends(open_still()),
            ])
    };
    vec![
        id(
            "SAT-AUTH-013",
            "A server MUST take a client id that is no UUID.",
            "auth_insecure_none_user_id",
            "sat-auth-013",
        ),
        id(
            "SAT-AUTH-014",
            "A server MUST take a client id with characters beyond ASCII.",
            "auth_insecure_id_unicode",
            "sat-auth-014 клиент 客户端 🛰",
        ),
        id(
            "SAT-AUTH-015",
            "A server MUST take a client id that is white space.",
            "auth_insecure_id_space",
            " ",
        ),
        id(
            "SAT-AUTH-016",
            "A server MUST take a client id with a NUL character.",
            "auth_insecure_id_nul",
            "sat-auth-016\0x",
        ),
        id(
            "SAT-AUTH-017",
            "A server MUST take a client id of 255 bytes.",
            "behaviours §13: no limit to the length of a client id",
            "sat-auth-017-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef012345678\
             9abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\
             f0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234",
        ),
        must(
            "SAT-AUTH-018",
            "A server MUST compare client ids byte by byte: two that differ in case are two clients.",
        )
        .from("X06: the id is the key of a registry")
        .otherwise("One client keeps another one out.")
        .script([
            open(),
            send(authenticate(1).as_client(Id::Text("sat-auth-018-client"))),
            expect(welcome(1)),
            open(),
            send(authenticate(1).as_client(Id::Text("SAT-AUTH-018-client"))),
            expect(welcome(1)),
            Step::On(1),
            ends(open_still()),
        ]),
        number("SAT-AUTH-019", "A server MUST answer the call of number 0.", 0, "auth_insecure_rid_0"),
        number(
            "SAT-AUTH-020",
            "A server MUST answer the call of number 4294967295.",
            u32::MAX,
            "auth_insecure_rid_max",
        ),
    ]
}

fn number(id: &'static str, rule: &'static str, request_id: u32, source: &'static str) -> Case {
    must(id, rule)
        .from(source)
        .otherwise("The client waits for an answer that it cannot recognise.")
        .script([open(), send(authenticate(request_id)), expect(welcome(request_id))])
}

fn bodies() -> Vec<Case> {
    let taken = |id, rule, source, sending: Sending| {
        must(id, rule)
            .from(source)
            .otherwise("A newer client cannot connect to an older server.")
            .script([open(), send(sending), expect(welcome(1)), ends(open_still())])
    };
    vec![
        taken(
            "SAT-AUTH-021",
            "A server MUST ignore the header pairs of `authenticate`.",
            "preauth_auth_with_headers",
            authenticate(1).with_header(0, "x").with_header(1, "electric.0.5"),
        ),
        taken(
            "SAT-AUTH-022",
            "A server MUST ignore header pairs whose key it does not know.",
            "protobuf: enums are open",
            authenticate(1).with_header(77, ""),
        ),
        taken(
            "SAT-AUTH-023",
            "A server MUST ignore unknown fields in the body of a call.",
            "preauth_auth_with_unknown_fields",
            // Field 15, a number; field 999, a text.
            authenticate(1).with_more_in_body("unknown fields", b"\x78\x07\xba\x3e\x02hi"),
        ),
        taken(
            "SAT-AUTH-024",
            "A server MUST ignore unknown fields in the envelope of a call.",
            "protobuf: unknown fields are passed over",
            authenticate(1).with_more_in_envelope("unknown fields", b"\x78\x07\xba\x3e\x02hi"),
        ),
        taken(
            "SAT-AUTH-025",
            "A server MUST take a token of 16 KiB.",
            "auth_insecure_big_token_200k",
            authenticate(1).with_token(token().top("padding", json!("x".repeat(12 * 1024)))),
        ),
        must("SAT-AUTH-026", "A server MUST let the last occurrence of a field count.")
            .from("protobuf: the last value of a field that is not repeated")
            .otherwise("Two readers of one message see different clients.")
            .script([
                open(),
                // Field 1 once more, empty.
                send(authenticate(1).with_more_in_body("another, empty id", b"\x0a\x00")),
                expect(refused("authenticate", 1, InvalidRequest)),
                ends(closed(1007)),
            ]),
    ]
}

/// An `authenticate` that is no good whatever its token says.
fn refusals() -> Vec<Case> {
    let refusal = |id, rule, source, sending: Sending| {
        must(id, rule)
            .from(source)
            .otherwise("Clients without a name share one state, or a bug of a client is hidden.")
            .script([
                open(),
                send(sending),
                expect(refused("authenticate", 1, InvalidRequest)),
                ends(closed(1007)),
                Step::Alive,
            ])
    };
    vec![
        refusal(
            "SAT-AUTH-027",
            "A server MUST answer an `authenticate` with an empty client id with INVALID_REQUEST, \
             and close the connection with 1007.",
            "X04; auth_insecure_empty_id",
            authenticate(1).as_client(Id::Text("")),
        ),
        refusal(
            "SAT-AUTH-028",
            "A server MUST answer an `authenticate` with an empty token with INVALID_REQUEST, and \
             close the connection with 1007.",
            "X04",
            authenticate(1).with_token(token().text("")),
        ),
        refusal(
            "SAT-AUTH-029",
            "A server MUST find that the client id is empty before it judges the token.",
            "auth_insecure_empty_id_bad_token",
            authenticate(1).as_client(Id::Text("")).with_token(token().text("invalid_token")),
        ),
        refusal(
            "SAT-AUTH-030",
            "A server MUST answer an `authenticate` without a body with INVALID_REQUEST, and close \
             the connection with 1007.",
            "X04: absent and empty are the same in protobuf",
            call_of("authenticate", 1, b""),
        ),
        refusal(
            "SAT-AUTH-031",
            "A server MUST answer an `authenticate` whose client id is not UTF-8 with \
             INVALID_REQUEST, and close the connection with 1007.",
            "preauth_auth_id_not_utf8",
            call_of("authenticate", 1, b"\x0a\x02\xff\xfe\x12\x01t"),
        ),
        refusal(
            "SAT-AUTH-032",
            "A server MUST answer an `authenticate` whose token is not UTF-8 with INVALID_REQUEST, \
             and close the connection with 1007.",
            "X07; preauth_auth_id_not_utf8",
            call_of("authenticate", 1, b"\x0a\x01c\x12\x02\xff\xfe"),
        ),
    ]
}

fn calls_before() -> Vec<Case> {
    let early = |id, rule, source, method: &'static str, sending: Sending| {
        must(id, rule)
            .from(source)
            .otherwise("Something of somebody can be changed or had without a token.")
            .script([
                open(),
                send(sending),
                expect(refused(method, 1, AuthRequired)),
                ends(closed(1007)),
                Step::Alive,
            ])
    };
    vec![
        early(
            "SAT-AUTH-033",
            "A server MUST refuse `stopReplication` before authentication with AUTH_REQUIRED and \
             1007.",
            "preauth_stopReplication",
            "stopReplication",
            call(1, stop()),
        ),
        early(
            "SAT-AUTH-034",
            "A server MUST refuse `subscribe` before authentication with AUTH_REQUIRED and 1007.",
            "preauth_subscribe",
            "subscribe",
            call(1, subscribe("7c1d9a52-3a4b-4c54-9a3b-7a5d0f0a9a10")),
        ),
        early(
            "SAT-AUTH-035",
            "A server MUST refuse `unsubscribe` before authentication with AUTH_REQUIRED and 1007.",
            "preauth_unsubscribe",
            "unsubscribe",
            call(1, unsubscribe("7c1d9a52-3a4b-4c54-9a3b-7a5d0f0a9a10")),
        ),
        must(
            "SAT-AUTH-036",
            "A server MUST refuse a call before authentication even if a good `authenticate` was \
             sent along behind it.",
        )
        .from("X05; preauth_startReplication")
        .otherwise("The order of messages decides who a call is made for.")
        .script([
            open(),
            send(call(1, start())),
            send(authenticate(2)),
            expect(refused("startReplication", 1, AuthRequired)),
            ends(closed(1007)),
        ]),
    ]
}

fn messages_before() -> Vec<Case> {
    let response =
        |method: &str, result| SatRpcResponse { method: method.into(), request_id: 0, result };
    let answer = |reply: Reply| match reply.encode(0) {
        Message::Response(envelope) => envelope,
        _ => SatRpcResponse::default(),
    };
    let start: Reply = SatInStartReplicationResp::default().into();
    let auth: Reply = SatAuthResp { id: "server".into(), headers: vec![] }.into();
    let mut cases = vec![
        early!("SAT-AUTH-037", "X16; semantics §2", "a SatOpLog", SatOpLog::default()),
        early!("SAT-AUTH-038", "preauth_SatRelation", "a SatRelation", SatRelation::default()),
        early!("SAT-AUTH-039", "preauth_type_23", "a SatOpLogAck", SatOpLogAck::default())
            .since(Version::V0_10),
        early!(
            "SAT-AUTH-040",
            "preauth_SatSubsDataBegin",
            "a SatSubsDataBegin",
            SatSubsDataBegin::default(),
        ),
        early!(
            "SAT-AUTH-041",
            "preauth_SatSubsDataBegin",
            "a SatSubsDataEnd",
            SatSubsDataEnd::default()
        ),
        early!(
            "SAT-AUTH-042",
            "preauth_SatSubsDataError",
            "a SatSubsDataError",
            SatSubsDataError::default(),
        ),
        early!(
            "SAT-AUTH-043",
            "preauth_SatShapeDataBegin",
            "a SatShapeDataBegin",
            SatShapeDataBegin::default(),
        ),
        early!(
            "SAT-AUTH-044",
            "preauth_SatShapeDataEnd",
            "a SatShapeDataEnd",
            SatShapeDataEnd::default(),
        ),
        early!(
            "SAT-AUTH-045",
            "preauth_type_24",
            "a SatUnsubsDataBegin",
            SatUnsubsDataBegin::default(),
        )
        .since(Version::V0_12),
        early!(
            "SAT-AUTH-046",
            "preauth_type_25",
            "a SatUnsubsDataEnd",
            SatUnsubsDataEnd::default()
        )
        .since(Version::V0_12),
        early!(
            "SAT-AUTH-047",
            "preauth_SatRpcResponse_authenticate",
            "the answer to a call of `authenticate` that was not made",
            answer(auth),
        ),
        early!(
            "SAT-AUTH-048",
            "preauth_SatRpcResponse_startReplication",
            "the answer to a call of `startReplication` that was not made",
            answer(start),
        ),
        early!(
            "SAT-AUTH-049",
            "preauth_SatRpcResponse_empty",
            "a response to nothing",
            response("", None),
        ),
    ];
    cases.push(
        must(
            "SAT-AUTH-050",
            "A server MUST close the connection with 1000 and without an answer when a client \
             reports an error before authentication.",
        )
        .from("X10; preauth_SatErrorResp")
        .otherwise("Two ends tell each other of their errors, over and over.")
        .script([
            open(),
            send(message(SatErrorResp::of(ErrorCode::Internal))),
            ends(closed(1000)),
            Step::Alive,
        ]),
    );
    cases
}

fn early(
    id: &'static str,
    rule: &'static str,
    source: &'static str,
    body: impl Into<Message>,
) -> Case {
    must(id, rule)
        .from(source)
        .otherwise("Messages of nobody reach what handles those of clients, which crashes.")
        .script([
            open(),
            send(message(body)),
            expect(error(AuthRequired)),
            ends(closed(1007)),
            Step::Alive,
        ])
}
