//! Frames that a client must take or refuse, and how its connections end.

use crate::{
    conformance::{Case, Need, must, script::*, should},
    wire::{
        Method,
        proto::{SatErrorResp, SatInStartReplicationReq, sat_error_resp::ErrorCode},
    },
};

use super::client_handshake::{COMES_BACK, NO_STORM, WATCHED, asking, in_replication, then};

pub(super) fn cases() -> Vec<Case> {
    [good_frames(), bad_frames(), errors(), ends_of_the_server(), ends_of_its_own()]
        .into_iter()
        .flatten()
        .collect()
}

/// The client has got on with its start, whatever it does then.
fn settled() -> Vec<Step> {
    then(in_replication(), [Step::Silence(secs(1))])
}

fn stays() -> [Step; 2] {
    [Step::Silence(secs(1)), ends(open_still())]
}

/// The server's `startReplication`, put into frames so, is answered.
fn answers(framed: fn(Sending) -> Sending) -> Vec<Step> {
    then(
        in_replication(),
        [
            send(framed(call(7, start()))),
            expect(reply::<SatInStartReplicationReq>(7)),
            ends(open_still()),
        ],
    )
}

fn ponged_longest() -> Expectation {
    such(
        "a pong with the payload of the ping",
        |incoming| matches!(incoming, Incoming::Pong(payload) if payload == &LONGEST[..]),
    )
}

/// The longest payload of a control frame.
const LONGEST: &[u8; 125] = &[b'p'; 125];

fn good_frames() -> Vec<Case> {
    vec![
        must("SAT-C-FRM-001", "A client MUST take a message in fragments.")
            .from("RFC 6455 §5.4")
            .otherwise("It does not get through proxies that split messages.")
            .script(answers(|call| call.in_fragments_of(3))),
        must(
            "SAT-C-FRM-002",
            "A client MUST take control frames between the fragments of a message.",
        )
        .from("RFC 6455 §5.4")
        .otherwise("A ping during a large message ends the connection.")
        .script(answers(|call| call.in_fragments_with(5, 9))),
        must("SAT-C-FRM-003", "A client MUST take a frame that comes byte by byte.")
            .from("RFC 6455 §5")
            .otherwise("It fails on slow networks.")
            .script(answers(|call| call.dribbled(1))),
        must("SAT-C-FRM-004", "A client MUST answer a ping with a pong of the same payload.")
            .from("RFC 6455 §5.5.3; published clients (0.6–0.12)")
            .otherwise("The server takes it for dead and drops it.")
            .script(then(
                in_replication(),
                [send(ping(b"are you there")), expect(ponged(b"are you there"))],
            )),
        must(
            "SAT-C-FRM-005",
            "A client MUST answer pings without a payload and with one of 125 bytes.",
        )
        .from("RFC 6455 §5.5")
        .otherwise("The server takes it for dead and drops it.")
        .script(then(
            in_replication(),
            [send(ping(b"")), expect(ponged(b"")), send(ping(LONGEST)), expect(ponged_longest())],
        )),
        must("SAT-C-FRM-006", "A client MUST answer pings while it waits for an answer.")
            .from("RFC 6455 §5.5.2")
            .otherwise("A server that is slow to answer drops it.")
            .script(then(asking(), [send(ping(b"wait")), expect(ponged(b"wait"))])),
        must("SAT-C-FRM-007", "A client MUST ignore a pong that it has not asked for.")
            .from("RFC 6455 §5.5.3")
            .otherwise("A server that keeps the connection alive so loses it.")
            .script(then(in_replication(), [send(pong(b"hello"))].into_iter().chain(stays()))),
    ]
}

fn bad_frames() -> Vec<Case> {
    let fails = |id, rule, source, otherwise, sending: Sending| {
        must(id, rule)
            .from(source)
            .otherwise(otherwise)
            .script(then(settled(), [send(sending), ends(gone()), accept()]))
    };
    let closes = |id, rule, source, otherwise, sending: Sending, code| {
        should(id, rule)
            .from(source)
            .otherwise(otherwise)
            .script(then(settled(), [send(sending), ends(closed(code)), accept()]))
    };
    vec![
        fails(
            "SAT-C-FRM-008",
            "A client MUST NOT go on when a frame of the server has a mask.",
            "RFC 6455 §5.1",
            "What it speaks to is no server.",
            call(7, start()).masked(),
        ),
        fails(
            "SAT-C-FRM-009",
            "A client MUST NOT go on when reserved bits are set.",
            "RFC 6455 §5.2",
            "It reads compressed data as if it were not.",
            call(7, start()).in_frame(0xc2),
        ),
        fails(
            "SAT-C-FRM-010",
            "A client MUST NOT go on when a frame has a reserved opcode.",
            "RFC 6455 §5.2",
            "It skips what it does not understand.",
            call(7, start()).in_frame(0x83),
        ),
        fails(
            "SAT-C-FRM-011",
            "A client MUST NOT go on when a control frame is fragmented.",
            "RFC 6455 §5.5",
            "It loses step with the frames.",
            frame("a ping without FIN", 0x09, &b"half"[..]),
        ),
        fails(
            "SAT-C-FRM-012",
            "A client MUST NOT go on when a control frame is longer than 125 bytes.",
            "RFC 6455 §5.5",
            "It loses step with the frames.",
            frame("a ping of 126 bytes", 0x89, &[b'p'; 126][..]),
        ),
        fails(
            "SAT-C-FRM-013",
            "A client MUST NOT go on when a continuation continues nothing.",
            "RFC 6455 §5.4",
            "It takes the rest of a message for a whole one.",
            call(7, start()).in_frame(0x80),
        ),
        fails(
            "SAT-C-FRM-014",
            "A client MUST NOT go on when a message begins inside another.",
            "RFC 6455 §5.4",
            "It takes two halves for one.",
            raw("a fragment, and then a whole message", &b"\x02\x01\x15\x82\x01\x15"[..]),
        ),
        fails(
            "SAT-C-FRM-015",
            "A client MUST NOT go on when a length has its highest bit set.",
            "RFC 6455 §5.2",
            "It reserves more memory than there is.",
            raw("the head of a frame of 2^63 bytes", &b"\x82\x7f\x80\0\0\0\0\0\0\0"[..]),
        ),
        closes(
            "SAT-C-FRM-016",
            "A client SHOULD refuse a frame that says that it is huge before it has come, and \
             close with 1009.",
            "RFC 6455 §7.4.1",
            "One frame fills its memory.",
            raw("the head of a frame of 2^40 bytes", &b"\x82\x7f\0\0\x01\0\0\0\0\0"[..]),
            1009,
        ),
        closes(
            "SAT-C-FRM-017",
            "A client SHOULD close with 1003 when a text message comes.",
            "H20",
            "It reads text as a message of the protocol, or crashes.",
            frame("a text message", 0x81, &b"hello"[..]),
            1003,
        ),
        closes(
            "SAT-C-FRM-018",
            "A client SHOULD close with 1007 when a message cannot be decoded.",
            "H21",
            "It loses a message, and is out of step without knowing it.",
            binary("a SatOpLog that is cut off", &b"\x09\x0a\xff"[..]),
            1007,
        ),
        closes(
            "SAT-C-FRM-019",
            "A client SHOULD close with 1007 when the type of a message is unknown.",
            "H21",
            "It loses a message, and is out of step without knowing it.",
            binary("a message of type 99", &b"\x63"[..]),
            1007,
        ),
        closes(
            "SAT-C-FRM-020",
            "A client SHOULD close with 1007 when a message is empty.",
            "H21",
            "It reads a type that is not there.",
            binary("an empty message", &b""[..]),
            1007,
        ),
        fails(
            "SAT-C-FRM-021",
            "A client MUST bear a close frame of one byte: it ends the connection, and comes back.",
            "RFC 6455 §5.5.1",
            "It crashes.",
            frame("a close frame of one byte", 0x88, &b"\x03"[..]),
        ),
        fails(
            "SAT-C-FRM-022",
            "A client MUST bear a close frame whose reason is not UTF-8: it ends the connection, \
             and comes back.",
            "RFC 6455 §5.5.1",
            "It crashes.",
            frame("a close frame with a reason that is not UTF-8", 0x88, &b"\x03\xe8\xff\xfe"[..]),
        ),
    ]
}

/// A bare error on a connection that lives, and the close that follows it.
fn errors() -> Vec<Case> {
    let told = |code: ErrorCode| {
        then(
            settled(),
            [send(message(SatErrorResp::of(code))), send(close(1007, "")), ends(gone())],
        )
    };
    let stays_away = |id, rule, code| {
        should(id, rule)
            .from("G42; published clients (0.7–0.12)")
            .otherwise("It asks in vain for ever, and nobody is told.")
            .script(then(told(code), [Step::NoConnection(WATCHED)]))
    };
    let not_again = |id, rule, code| {
        must(id, rule)
            .from("G01, G42; published clients (0.7–0.12)")
            .otherwise("It spends its life, and the server's, on a token that is no good.")
            .script(then(told(code), [Step::NoConnection(WATCHED)]))
    };
    vec![
        must(
            "SAT-C-FRM-023",
            "A client MUST NOT storm a server that sends it the error INTERNAL each time.",
        )
        .from("G42")
        .otherwise("All clients together keep a server down that is in trouble.")
        .script([repeatedly(WATCHED, NO_STORM, told(ErrorCode::Internal))]),
        should(
            "SAT-C-FRM-024",
            "A client SHOULD come back after pauses when the server sends REPLICATION_FAILED and \
             closes.",
        )
        .from("published clients (0.7–0.12)")
        .otherwise("A passing fault of the server ends its sync for good.")
        .script([repeatedly(WATCHED, COMES_BACK, told(ErrorCode::ReplicationFailed))]),
        not_again(
            "SAT-C-FRM-025",
            "A client MUST NOT come back with the same token after the error AUTH_REQUIRED.",
            ErrorCode::AuthRequired,
        ),
        not_again(
            "SAT-C-FRM-026",
            "A client MUST NOT come back with the same token after the error AUTH_FAILED.",
            ErrorCode::AuthFailed,
        ),
        stays_away(
            "SAT-C-FRM-027",
            "A client SHOULD NOT come back by itself after the error INVALID_REQUEST.",
            ErrorCode::InvalidRequest,
        ),
        stays_away(
            "SAT-C-FRM-028",
            "A client SHOULD NOT come back by itself after the error PROTO_VSN_MISMATCH.",
            ErrorCode::ProtoVsnMismatch,
        ),
        stays_away(
            "SAT-C-FRM-029",
            "A client SHOULD NOT come back by itself after the error SCHEMA_VSN_MISMATCH.",
            ErrorCode::SchemaVsnMismatch,
        ),
    ]
}

// ---- Ends ----

fn ends_of_the_server() -> Vec<Case> {
    let comes_back = |id, rule, code, reason, otherwise| {
        must(id, rule).from("H27; published clients (0.9.4–0.12)").otherwise(otherwise).script(
            then(
                settled(),
                [
                    send(close(code, reason)),
                    ends(closed(code)),
                    accept(),
                    expect(called(Method::Authenticate)),
                ],
            ),
        )
    };
    vec![
        comes_back(
            "SAT-C-END-001",
            "A client MUST answer a close with 1000 by a close frame with 1000, and come back.",
            1000,
            "",
            "It believes that it is connected, and does not sync any more.",
        ),
        comes_back(
            "SAT-C-END-002",
            "A client MUST answer a close with 1001 by a close frame with 1001, and come back: the \
             server is restarted.",
            1001,
            "",
            "It does not survive a restart of the service.",
        ),
        comes_back(
            "SAT-C-END-003",
            "A client MUST answer a close with 1007 by a close frame with 1007, and come back.",
            1007,
            "",
            "One misunderstanding ends its sync for good.",
        ),
        comes_back(
            "SAT-C-END-004",
            "A client MUST answer a close with 1011 by a close frame with 1011, and come back.",
            1011,
            "",
            "A passing fault of the server ends its sync for good.",
        ),
        comes_back(
            "SAT-C-END-005",
            "A client MUST answer a close with 4408 by a close frame with 4408, and come back.",
            4408,
            "Connection timed out",
            "After sleep it does not sync any more.",
        ),
        must("SAT-C-END-006", "A client MUST answer a close without a code, and come back.")
            .from("H27; published clients (0.9.4–0.12)")
            .otherwise("It believes that it is connected, and does not sync any more.")
            .script(then(
                settled(),
                [
                    send(frame("a close frame without a code", 0x88, &b""[..])),
                    ends(closed_with_or_without([1000])),
                    accept(),
                    expect(called(Method::Authenticate)),
                ],
            )),
        should(
            "SAT-C-END-007",
            "A client SHOULD NOT come back with the same token after a close with 4000 and the \
             reason `JWT-expired`.",
        )
        .from("H26; published clients (0.9.4–0.12)")
        .otherwise("It asks in vain, and the application is not asked for another token.")
        .script(then(
            settled(),
            [send(close(4000, "JWT-expired")), ends(closed(4000)), Step::NoConnection(WATCHED)],
        )),
        must(
            "SAT-C-END-008",
            "A client MUST come back when the connection is lost without a close.",
        )
        .from("G43; published clients (0.9.4–0.12)")
        .otherwise("It believes that it is connected, and does not sync any more.")
        .script(then(settled(), [Step::Cut, accept(), expect(called(Method::Authenticate))])),
        must(
            "SAT-C-END-009",
            "A client MUST close its direction when the server has ended its own without a close, \
             and come back.",
        )
        .from("RFC 6455 §7.1.1")
        .otherwise("Half a connection stays for ever.")
        .script(then(
            settled(),
            [Step::HalfClose, ends(gone()), accept(), expect(called(Method::Authenticate))],
        )),
        must(
            "SAT-C-END-010",
            "A client MUST NOT storm a server that closes right after the start each time.",
        )
        .from("published clients (0.9.4–0.12)")
        .otherwise("One client opens hundreds of connections in a second.")
        .script([repeatedly(
            WATCHED,
            COMES_BACK,
            then(in_replication(), [send(close(1011, "")), ends(gone())]),
        )]),
        must(
            "SAT-C-END-011",
            "A client MUST NOT storm a server whose connections are lost right after the start.",
        )
        .from("published clients (0.9.4–0.12)")
        .otherwise("One client opens hundreds of connections in a second.")
        .script([repeatedly(WATCHED, COMES_BACK, then(in_replication(), [Step::Cut]))]),
        should(
            "SAT-C-END-012",
            "A client SHOULD give a connection up within 90 s on which the server is silent and \
             answers no pings, and come back.",
        )
        .from("G40, G43")
        .otherwise("A connection that has died unseen is kept for hours.")
        .needs(Need::Time)
        .script(then(
            settled(),
            [Step::LeavePingsUnanswered, ends(gone().within(secs(90))), accept()],
        )),
    ]
}

fn ends_of_its_own() -> Vec<Case> {
    vec![
        should(
            "SAT-C-END-013",
            "A client SHOULD end its connection with a close frame when it is told to end, with \
             1000, with 1001 or without a code.",
        )
        .from("H22; published clients (0.6–0.12)")
        .otherwise("The server keeps its place until the next ping fails.")
        .script(then(
            settled(),
            [
                Step::Terminate,
                ends(closed_with_or_without([1000, 1001])),
                Step::NoConnection(secs(3)),
            ],
        )),
        should(
            "SAT-C-END-014",
            "A client SHOULD exit as a success when it is told to end, and soon.",
        )
        .from("H22")
        .otherwise("Whoever supervises it takes every stop for a crash.")
        .script(then(
            in_replication(),
            [Step::Silence(ms(500)), Step::Terminate, ends(gone()), Step::Leaves(secs(10))],
        )),
        must(
            "SAT-C-END-015",
            "A client MUST NOT connect any more when it was told to end while it waits for its \
             next attempt.",
        )
        .from("G31")
        .otherwise("It comes back when its user has gone.")
        .script([
            repeatedly(secs(4), NO_STORM, [turn_away("HTTP/1.1 503 Service Unavailable", "later")]),
            Step::Terminate,
            Step::NoConnection(secs(6)),
        ]),
    ]
}
