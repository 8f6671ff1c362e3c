//! The handshake of a client: the upgrade, and `authenticate`.

use std::{ops::RangeInclusive, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    conformance::{Case, must, octets::Http, script::*, should},
    wire::{
        Method, Request, Version,
        proto::{SatAuthResp, SatErrorResp, SatInStartReplicationResp, sat_error_resp::ErrorCode},
    },
};

/// How long a client is watched that is turned away again and again.
pub(super) const WATCHED: Duration = Duration::from_secs(15);

/// It comes back in that time, after pauses: no storm, and no end.
pub(super) const COMES_BACK: RangeInclusive<usize> = 2..=15;

/// It may give up, but causes no storm.
pub(super) const NO_STORM: RangeInclusive<usize> = 1..=15;

/// The client connects and authenticates, and the suite answers as it should.
pub(super) fn authenticated() -> Vec<Step> {
    vec![
        accept(),
        expect(called(Method::Authenticate)),
        send(answer(SatAuthResp { id: "the suite".into(), ..Default::default() })),
    ]
}

/// The client starts replication, too.
pub(super) fn in_replication() -> Vec<Step> {
    let mut steps = authenticated();
    steps.push(expect(called(Method::StartReplication)));
    steps.push(send(answer(SatInStartReplicationResp::default())));
    steps
}

/// One list of steps after the other.
pub(super) fn then(mut first: Vec<Step>, more: impl IntoIterator<Item = Step>) -> Vec<Step> {
    first.extend(more);
    first
}

/// The client connects and calls `authenticate`.
pub(super) fn asking() -> Vec<Step> {
    vec![accept(), expect(called(Method::Authenticate))]
}

pub(super) fn cases() -> Vec<Case> {
    [upgrade_request(), refused_upgrades(), broken_answers(), authentication(), refusals()]
        .into_iter()
        .flatten()
        .collect()
}

// ---- The upgrade ----

fn line(request: &Http) -> (&str, &str) {
    let mut words = request.line().split(' ');
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

fn protocols(request: &Http) -> Vec<&str> {
    request
        .headers("sec-websocket-protocol")
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .collect()
}

fn upgrade_request() -> Vec<Case> {
    vec![
        must("SAT-C-UPG-001", "A client MUST ask for `/ws` with GET and HTTP/1.1.")
            .from("RFC 6455 §4.1; published clients (0.5–0.12)")
            .otherwise("The server answers 404.")
            .script([accept_such("GET /ws HTTP/1.1", |request, _| {
                let path = line(request).1.split('?').next();
                line(request).0 == "GET"
                    && path == Some("/ws")
                    && request.line().ends_with("HTTP/1.1")
            })]),
        must(
            "SAT-C-UPG-002",
            "A client MUST offer the version that it speaks as the subprotocol \
             `electric.MAJOR.MINOR`, in digits without leading zeros and without a patch number.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("The server answers 400, which no browser shows to anyone.")
        .script([accept_such("a subprotocol such as electric.0.12", |request, _| {
            let offered = protocols(request);
            !offered.is_empty() && offered.iter().all(|offer| offer.parse::<Version>().is_ok())
        })]),
        should(
            "SAT-C-UPG-003",
            "A client SHOULD offer one subprotocol only.",
        )
        .from("D21; published clients (0.6–0.12)")
        .otherwise("The original servers refuse lists.")
        .script([accept_such("one subprotocol", |request, _| protocols(request).len() == 1)]),
        must(
            "SAT-C-UPG-004",
            "A client MUST send a `Sec-WebSocket-Key` of 16 bytes in base64.",
        )
        .from("RFC 6455 §4.1")
        .otherwise("Strict servers and proxies refuse the upgrade.")
        .script([accept_such("a key of 16 bytes", |request, _| {
            let key = request.header("sec-websocket-key").unwrap_or_default();
            STANDARD.decode(key).is_ok_and(|key| key.len() == 16)
        })]),
        must(
            "SAT-C-UPG-005",
            "A client MUST choose the key anew for every connection.",
        )
        .from("RFC 6455 §4.1")
        .otherwise("An answer that a cache has kept passes for a new one.")
        .script([
            accept(),
            Step::Cut,
            accept_such("another key", |request, before| {
                let key = request.header("sec-websocket-key");
                key.is_some()
                    && before.iter().all(|earlier| earlier.header("sec-websocket-key") != key)
            }),
        ]),
        must(
            "SAT-C-UPG-006",
            "A client MUST send one `Host` header, `Upgrade: websocket`, `Connection: Upgrade` and \
             `Sec-WebSocket-Version: 13`.",
        )
        .from("RFC 6455 §4.1; RFC 9112 §3.2")
        .otherwise("Proxies pass the request on as a plain GET, or not at all.")
        .script([accept_such("the headers of an upgrade, each once", |request, _| {
            let once = ["host", "upgrade", "sec-websocket-version", "sec-websocket-key"];
            once.iter().all(|name| request.headers(name).count() == 1)
        })]),
        must(
            "SAT-C-UPG-007",
            "A client MUST mask what it sends, and MUST NOT use an extension that the server has \
             not agreed to.",
        )
        .from("RFC 6455 §5.1, §9.1")
        .otherwise("The server closes with 1002.")
        .script([
            accept(),
            expect(called(Method::Authenticate)),
            send(answer(SatAuthResp::default())),
            expect(called(Method::StartReplication)),
        ]),
        should(
            "SAT-C-UPG-008",
            "A client SHOULD NOT send its token in the upgrade request.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("Servers ignore it there, and every proxy on the way writes it into its log.")
        .script([accept_such("no token in it", |request, _| !request.head.contains("eyJ"))]),
        must(
            "SAT-C-UPG-009",
            "A client MUST take the headers of the answer by name in any case and any order, and \
             the values of `Upgrade` and `Connection` in any case.",
        )
        .from("RFC 6455 §4.1; RFC 9110 §5.1")
        .otherwise("It does not get through proxies that rewrite headers.")
        .script([
            answer_upgrade(
                "HTTP/1.1 101 OK\r\nx-proxy: 1\r\nsec-websocket-protocol: {protocol}\r\n\
                 sec-websocket-accept: {accept}\r\nconnection: upgrade\r\nupgrade: WebSocket\r\n\r\n",
            ),
            expect(called(Method::Authenticate)),
        ]),
    ]
}

fn refused_upgrades() -> Vec<Case> {
    let comes_back = |id, rule, head, otherwise| {
        must(id, rule).from("G42, G43, G46").otherwise(otherwise).script([repeatedly(
            WATCHED,
            COMES_BACK,
            [turn_away(head, "not now")],
        )])
    };
    let stays_away = |id, rule, head, body| {
        should(id, rule)
            .from("G51; README, Failure::advice")
            .otherwise("It asks in vain for ever, and nobody is told.")
            .script([turn_away(head, body), Step::NoConnection(WATCHED)])
    };
    let waits = |id, rule, head| {
        should(id, rule)
            .from("G46; RFC 9110 §10.2.3")
            .otherwise("A server that is starting up is pressed by all of its clients.")
            .script([turn_away(head, "later"), Step::NoConnection(ms(3900)), accept()])
    };
    vec![
        stays_away(
            "SAT-C-UPG-010",
            "A client SHOULD NOT repeat by itself an offer that is answered with 400: the server \
             does not speak its version.",
            "HTTP/1.1 400 Bad Request",
            "Cannot connect",
        ),
        stays_away(
            "SAT-C-UPG-011",
            "A client SHOULD NOT repeat by itself what is answered with 401.",
            "HTTP/1.1 401 Unauthorized",
            "",
        ),
        stays_away(
            "SAT-C-UPG-012",
            "A client SHOULD NOT repeat by itself what is answered with 403.",
            "HTTP/1.1 403 Forbidden",
            "",
        ),
        comes_back(
            "SAT-C-UPG-013",
            "A client MUST come back after 404, and after pauses.",
            "HTTP/1.1 404 Not Found",
            "It is lost when a proxy is up before the service behind it.",
        ),
        comes_back(
            "SAT-C-UPG-014",
            "A client MUST come back after 429, and after pauses.",
            "HTTP/1.1 429 Too Many Requests",
            "It stays away for good, or keeps itself shut out.",
        ),
        comes_back(
            "SAT-C-UPG-015",
            "A client MUST come back after 500, and after pauses.",
            "HTTP/1.1 500 Internal Server Error",
            "It stays away for good after a passing fault.",
        ),
        comes_back(
            "SAT-C-UPG-016",
            "A client MUST come back after 503, and after pauses.",
            "HTTP/1.1 503 Service Unavailable",
            "It does not survive a restart of the service or of its database.",
        ),
        waits(
            "SAT-C-UPG-017",
            "A client SHOULD wait after 503 for as long as `Retry-After` says.",
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 4",
        ),
        waits(
            "SAT-C-UPG-018",
            "A client SHOULD wait after 429 for as long as `Retry-After` says.",
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 4",
        ),
        should(
            "SAT-C-UPG-019",
            "A client SHOULD take a redirect for a refusal, and come back to the same address \
             after a pause.",
        )
        .from("RFC 6455 §4.1: a client may follow redirects, and needs not")
        .otherwise("Whoever answers once in place of the server gets every token from then on.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            [turn_away("HTTP/1.1 301 Moved Permanently\r\nLocation: http://127.0.0.1:9/ws", "")],
        )]),
        must(
            "SAT-C-UPG-020",
            "A client MUST come back after an answer of 200, and after pauses: it is no upgrade.",
        )
        .from("RFC 6455 §4.1")
        .otherwise("A captive portal or a proxy's page passes for the service, or ends the client.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            [turn_away("HTTP/1.1 200 OK\r\nContent-Type: text/html", "<h1>Welcome</h1>")],
        )]),
        must(
            "SAT-C-UPG-021",
            "A client MUST come back after pauses when the connection ends without an answer.",
        )
        .from("G43")
        .otherwise("It is lost when the service behind a proxy is down.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            [Step::Accept(Acceptance::Silence), Step::Cut],
        )]),
        must(
            "SAT-C-UPG-022",
            "A client MUST come back after pauses when what answers does not speak HTTP.",
        )
        .from("RFC 6455 §4.1")
        .otherwise("It crashes, or hangs, on another service at the same port.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            [answer_upgrade("SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), ends(gone())],
        )]),
        should(
            "SAT-C-UPG-023",
            "A client SHOULD give up within 20 s an upgrade that has no answer, and come back.",
        )
        .from("published clients: no limit")
        .otherwise("A server that hangs keeps it away long after it is healed.")
        .script([Step::Accept(Acceptance::Silence), Step::Wait(secs(12)), accept()]),
    ]
}

fn broken_answers() -> Vec<Case> {
    let fails = |id, rule, source, otherwise, text| {
        must(id, rule).from(source).otherwise(otherwise).script([
            answer_upgrade(text),
            ends(gone()),
            accept(),
        ])
    };
    vec![
        fails(
            "SAT-C-UPG-024",
            "A client MUST NOT go on when `Sec-WebSocket-Accept` does not match its key.",
            "RFC 6455 §4.1",
            "It takes a cached or forged answer for a server, and gives its token away.",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n",
        ),
        fails(
            "SAT-C-UPG-025",
            "A client MUST NOT go on without a `Sec-WebSocket-Accept`.",
            "RFC 6455 §4.1",
            "It sends its token to something that speaks no WebSocket.",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n",
        ),
        fails(
            "SAT-C-UPG-026",
            "A client MUST NOT go on when the answer has no `Upgrade: websocket`.",
            "RFC 6455 §4.1",
            "It sends its token to something that speaks no WebSocket.",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
        ),
        fails(
            "SAT-C-UPG-027",
            "A client MUST NOT go on when the server has agreed to no subprotocol.",
            "H19; RFC 6455 §4.1",
            "It speaks to a server of another protocol.",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n",
        ),
        fails(
            "SAT-C-UPG-028",
            "A client MUST NOT go on when the server has agreed to a subprotocol that was not \
             offered.",
            "H19; RFC 6455 §4.1",
            "The two ends speak different versions, and misread each other's data.",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: electric.0.5\r\n\r\n",
        ),
        fails(
            "SAT-C-UPG-029",
            "A client MUST NOT go on when the server uses an extension that was not offered.",
            "RFC 6455 §4.1",
            "What comes is compressed, say, and cannot be read.",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\
             Sec-WebSocket-Extensions: x-not-offered\r\n\r\n",
        ),
    ]
}

// ---- Authentication ----

fn welcome_of_the_suite() -> Step {
    send(answer(SatAuthResp { id: "the suite".into(), ..Default::default() }))
}

fn authentication() -> Vec<Case> {
    vec![
        must(
            "SAT-C-AUTH-001",
            "A client MUST call `authenticate` first on every connection, with its client id and \
             a token.",
        )
        .from("H24; published clients (0.6–0.12)")
        .otherwise("The server closes the connection.")
        .script([
            accept(),
            expect(called_such(
                "authenticate with an id and a token",
                Method::Authenticate,
                |call| {
                    matches!(call, Request::Authenticate(request)
                    if !request.id.is_empty() && !request.token.is_empty())
                },
            )),
        ]),
        must(
            "SAT-C-AUTH-002",
            "A client MUST present the client id and the token that it was given as they are.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("The server verifies another text than was signed.")
        .script([accept(), expect(authenticates())]),
        must("SAT-C-AUTH-003", "A client MUST present the same client id on every connection.")
            .from("H29; published clients (0.6–0.12)")
            .otherwise("Its position and its own writes belong to somebody else.")
            .script(then(in_replication(), [Step::Cut, accept(), expect(authenticates())])),
        should(
            "SAT-C-AUTH-004",
            "A client SHOULD send nothing else until `authenticate` is answered.",
        )
        .from("H05; published clients (0.6–0.12)")
        .otherwise("If it is refused, what follows it is refused as well, and hides the reason.")
        .script([
            accept(),
            expect(called(Method::Authenticate)),
            Step::Silence(secs(2)),
            welcome_of_the_suite(),
            expect(called(Method::StartReplication)),
        ]),
        should(
            "SAT-C-AUTH-005",
            "A client SHOULD give each of its calls on a connection a request id of its own.",
        )
        .from("H28; published clients (0.6–0.12)")
        .otherwise("A late answer is taken for that to another call.")
        .script([
            accept(),
            expect(called(Method::Authenticate)),
            welcome_of_the_suite(),
            expect(called_anew(Method::StartReplication)),
        ]),
        must(
            "SAT-C-AUTH-006",
            "A client MUST ignore a response to `authenticate` with another request id, and wait \
             on.",
        )
        .from("X21; published clients (0.6–0.12)")
        .otherwise("It believes that it was let in, or that it was refused.")
        .script(then(
            asking(),
            [
                send(refuse(ErrorCode::AuthRequired).with_wrong_number()),
                Step::Silence(secs(1)),
                welcome_of_the_suite(),
                expect(called(Method::StartReplication)),
            ],
        )),
        must(
            "SAT-C-AUTH-007",
            "A client MUST ignore a response with the request id of `authenticate` and another \
             method, and wait on.",
        )
        .from("X21; published clients (0.6–0.12)")
        .otherwise("It takes the answer to something else for its own.")
        .script(then(
            asking(),
            [
                send(answer(SatInStartReplicationResp::default()).with_method("startReplication")),
                Step::Silence(secs(1)),
                welcome_of_the_suite(),
                expect(called(Method::StartReplication)),
            ],
        )),
        must("SAT-C-AUTH-008", "A client MUST accept a SatAuthResp with an empty id.")
            .from("published clients (0.6–0.12)")
            .otherwise("Servers that have no id are not talked to.")
            .script(then(
                asking(),
                [send(answer(SatAuthResp::default())), expect(called(Method::StartReplication))],
            )),
        must("SAT-C-AUTH-009", "A client MUST ignore fields of an answer that it does not know.")
            .from("protobuf: unknown fields")
            .otherwise("No later server can say more.")
            .script(then(
                asking(),
                [
                    send(answer_of(b"\x0a\x01s\x98\x06\x01")),
                    expect(called(Method::StartReplication)),
                ],
            )),
        must("SAT-C-AUTH-010", "A client MUST ignore a second answer to `authenticate`.")
            .from("X21")
            .otherwise("A duplicate starts everything twice, or ends the connection.")
            .script(then(
                asking(),
                [
                    welcome_of_the_suite(),
                    welcome_of_the_suite(),
                    expect(called(Method::StartReplication)),
                    send(answer(SatInStartReplicationResp::default())),
                    Step::Silence(secs(1)),
                    ends(open_still()),
                ],
            )),
        must(
            "SAT-C-AUTH-011",
            "A client MUST come back after pauses when `authenticate` is answered with neither a \
             result nor an error.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("It waits for ever for what has come.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            then(asking(), [send(empty_response()), ends(gone())]),
        )]),
        must(
            "SAT-C-AUTH-012",
            "A client MUST come back after pauses when the answer to `authenticate` cannot be \
             decoded.",
        )
        .from("H21")
        .otherwise("It crashes, or believes that it was let in.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            then(asking(), [send(answer_of(b"\x0a\xff")), ends(gone())]),
        )]),
        must(
            "SAT-C-AUTH-013",
            "A client MUST come back after pauses when a bare SatErrorResp comes in place of the \
             answer to `authenticate`.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("It waits for ever, or storms the server.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            then(asking(), [send(message(SatErrorResp::of(ErrorCode::Internal))), ends(gone())]),
        )]),
        must(
            "SAT-C-AUTH-014",
            "A client MUST come back after pauses when the server closes in place of answering \
             `authenticate`.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("A server that cannot tell just now loses its clients, or is stormed by them.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            then(asking(), [send(close(1011, "")), ends(gone())]),
        )]),
        must(
            "SAT-C-AUTH-015",
            "A client MUST come back after pauses when the connection is lost before \
             `authenticate` is answered.",
        )
        .from("published clients (0.6–0.12)")
        .otherwise("It does not survive a restart of the service.")
        .script([repeatedly(WATCHED, COMES_BACK, then(asking(), [Step::Cut]))]),
        should(
            "SAT-C-AUTH-016",
            "A client SHOULD close the connection when `authenticate` is not answered within 30 s, \
             and come back.",
        )
        .from("H25; published clients (0.6–0.12)")
        .otherwise("A server that hangs keeps it away long after it is healed.")
        .script(then(asking(), [ends(gone().within(secs(30))), accept()])),
        should(
            "SAT-C-AUTH-017",
            "A client SHOULD close the connection itself when `authenticate` is refused.",
        )
        .from("published clients (0.9.4–0.12)")
        .otherwise("Its place stays taken on a server that leaves the close to it.")
        .script(then(asking(), [send(refuse(ErrorCode::AuthRequired)), ends(gone())])),
    ]
}

/// Refused, and closed as servers do.
fn refused_and_closed(code: ErrorCode) -> Vec<Step> {
    then(asking(), [send(refuse(code)), send(close(1007, "")), ends(gone())])
}

fn refusals() -> Vec<Case> {
    let not_again = |id, rule, code| {
        must(id, rule)
            .from("G01, G42; published clients (0.7–0.12)")
            .otherwise("It spends its life, and the server's, on a token that is no good.")
            .script(then(refused_and_closed(code), [Step::NoConnection(WATCHED)]))
    };
    let stays_away = |id, rule, code| {
        should(id, rule)
            .from("G42; published clients (0.7–0.12)")
            .otherwise("It asks in vain for ever, and nobody is told.")
            .script(then(refused_and_closed(code), [Step::NoConnection(WATCHED)]))
    };
    let comes_back = |id, rule, code, otherwise| {
        should(id, rule).from("G40, G42").otherwise(otherwise).script([repeatedly(
            WATCHED,
            COMES_BACK,
            refused_and_closed(code),
        )])
    };
    vec![
        not_again(
            "SAT-C-AUTH-018",
            "A client MUST NOT present a token again that was refused with AUTH_REQUIRED.",
            ErrorCode::AuthRequired,
        ),
        not_again(
            "SAT-C-AUTH-019",
            "A client MUST NOT present a token again that was refused with AUTH_FAILED.",
            ErrorCode::AuthFailed,
        ),
        comes_back(
            "SAT-C-AUTH-020",
            "A client SHOULD come back after pauses when `authenticate` is refused with \
             INVALID_REQUEST: its last connection is not gone yet.",
            ErrorCode::InvalidRequest,
            "After sleep or a crash it is shut out by itself, for good.",
        ),
        comes_back(
            "SAT-C-AUTH-021",
            "A client SHOULD come back after pauses when `authenticate` is refused with INTERNAL.",
            ErrorCode::Internal,
            "A passing fault of the server ends its sync for good.",
        ),
        stays_away(
            "SAT-C-AUTH-022",
            "A client SHOULD NOT come back by itself when `authenticate` is refused with \
             PROTO_VSN_MISMATCH.",
            ErrorCode::ProtoVsnMismatch,
        ),
        stays_away(
            "SAT-C-AUTH-023",
            "A client SHOULD NOT come back by itself when `authenticate` is refused with \
             SCHEMA_VSN_MISMATCH.",
            ErrorCode::SchemaVsnMismatch,
        ),
        must(
            "SAT-C-AUTH-024",
            "A client MUST NOT storm a server that refuses `authenticate` with \
             REPLICATION_FAILED: it pauses between attempts, or stays away.",
        )
        .from("G42")
        .otherwise("All clients together keep a server down that is in trouble.")
        .script([repeatedly(
            WATCHED,
            NO_STORM,
            refused_and_closed(ErrorCode::ReplicationFailed),
        )]),
        must(
            "SAT-C-AUTH-025",
            "A client MUST NOT crash on an error type that it does not know, and not storm the \
             server that sends it.",
        )
        .from("protobuf: open enums")
        .otherwise("No later server can have another reason.")
        .script([repeatedly(
            WATCHED,
            NO_STORM,
            then(asking(), [send(refuse_with(99)), send(close(1007, "")), ends(gone())]),
        )]),
    ]
}
