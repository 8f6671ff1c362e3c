//! Frames, as RFC 6455 has them, before and after authentication.

use crate::{
    conformance::{Case, may, must, script::*, should},
    wire::proto::sat_error_resp::ErrorCode::InvalidRequest,
};

/// First bytes of frames: FIN, reserved bits and opcode.
const BINARY_TO_BE_CONTINUED: u8 = 0x02;
const TEXT: u8 = 0x81;
const TEXT_TO_BE_CONTINUED: u8 = 0x01;
const CONTINUED: u8 = 0x00;
const LAST_PART: u8 = 0x80;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

/// A connection is upgraded, and this happens on it.
pub(in crate::conformance) fn upgraded(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    [open()].into_iter().chain(steps).collect()
}

/// A client is let in, and this happens then.
pub(in crate::conformance) fn authenticated(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    upgraded([send(authenticate(1)), expect(welcome(1))].into_iter().chain(steps))
}

/// A frame of a client whose length is told to be this, in so many bytes, and a few bytes of it.
pub(super) fn announced(words: &str, first: u8, length: &[u8]) -> Sending {
    let form = match length.len() {
        2 => 0x80 | 126,
        _ => 0x80 | 127,
    };
    let mask = [0; 4];
    raw(words, [&[first, form][..], length, &mask, b"the beginning"].concat())
}

fn a_breach() -> Sending {
    frame("a frame that no server may take", 0xc2, "x")
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    cases.extend(fragments());
    cases.extend(broken_fragments());
    cases.extend(breaches_of_framing());
    cases.extend(text());
    cases.extend(lengths());
    cases.extend(control_frames());
    cases.extend(closes());
    cases.extend(ends_of_streams());
    cases
}

fn fragments() -> Vec<Case> {
    let cuts_off = "Clients behind a proxy that cuts messages anew cannot connect.";
    vec![
        must("SAT-FRM-001", "A server MUST put a message together that comes in two fragments.")
            .from("RFC 6455 §5.4; preauth_fragmented_auth_two")
            .otherwise(cuts_off)
            .script(upgraded([
                send(authenticate(1).in_fragments_of(20)),
                expect(welcome(1)),
                ends(open_still()),
            ])),
        must("SAT-FRM-002", "A server MUST put a message together that comes byte by byte.")
            .from("RFC 6455 §5.4")
            .otherwise(cuts_off)
            .script(upgraded([send(authenticate(1).in_fragments_of(1)), expect(welcome(1))])),
        must(
            "SAT-FRM-003",
            "A server MUST answer a ping between two fragments before the message is complete.",
        )
        .from("RFC 6455 §5.4, §5.5.2")
        .otherwise("A client that sends something large takes the server for dead.")
        .script(upgraded([
            send(authenticate(1).in_frame(BINARY_TO_BE_CONTINUED)),
            send(ping(b"between")),
            expect(ponged(b"between")),
            send(frame("the last fragment, which is empty", LAST_PART, "")),
            expect(welcome(1)),
        ])),
        must("SAT-FRM-004", "A server MUST take pongs between the fragments of a message.")
            .from("RFC 6455 §5.4, §5.5.3")
            .otherwise("A client that answers a ping while it sends is cut off.")
            .script(upgraded([
                send(authenticate(1).in_fragments_with(10, 10)),
                expect(welcome(1)),
                ends(open_still()),
            ])),
        must("SAT-FRM-005", "A server MUST take a message whose first fragment is empty.")
            .from("RFC 6455 §5.4")
            .otherwise(cuts_off)
            .script(upgraded([
                send(frame("the first fragment, which is empty", BINARY_TO_BE_CONTINUED, "")),
                send(authenticate(1).in_frame(LAST_PART)),
                expect(welcome(1)),
            ])),
        must("SAT-FRM-006", "A server MUST take empty fragments in the middle of a message.")
            .from("RFC 6455 §5.4")
            .otherwise(cuts_off)
            .script(upgraded([
                send(authenticate(1).in_frame(BINARY_TO_BE_CONTINUED)),
                send(frame("an empty fragment", CONTINUED, "").times(3)),
                send(frame("the last fragment, which is empty", LAST_PART, "")),
                expect(welcome(1)),
            ])),
        must("SAT-FRM-007", "A server MUST put together fragments after authentication, too.")
            .from("RFC 6455 §5.4")
            .otherwise("The first large transaction of a client ends its connection.")
            .script(authenticated([
                send(call(2, start()).in_fragments_with(3, 9)),
                expect(ponged(b"between")),
                expect(started(2)),
                ends(open_still()),
            ])),
        must("SAT-FRM-008", "A server MUST take frames however the network cuts them.")
            .from("RFC 6455 §5")
            .otherwise("Connections fail at random on slow networks.")
            .script(upgraded([send(authenticate(1).dribbled(1)), expect(welcome(1))])),
        must("SAT-FRM-009", "A server MUST take several frames that arrive at once.")
            .from("RFC 6455 §5")
            .otherwise("Connections stall at random on fast networks.")
            .script(upgraded([
                send(raw(
                    "two pings in one write, whose mask is all zero",
                    &b"\x89\x83\0\0\0\0one\x89\x83\0\0\0\0two"[..],
                )),
                expect(ponged(b"two")),
                send(authenticate(1)),
                expect(welcome(1)),
            ])),
    ]
}

fn broken_fragments() -> Vec<Case> {
    let table: [(_, _, Vec<Sending>); 5] = [
        (
            "SAT-FRM-012",
            "A server MUST close with 1002 on a continuation of nothing.",
            vec![authenticate(1).in_frame(LAST_PART)],
        ),
        (
            "SAT-FRM-013",
            "A server MUST close with 1002 on a message that begins inside another.",
            vec![
                frame("the first fragment of a message", BINARY_TO_BE_CONTINUED, "x"),
                authenticate(1),
            ],
        ),
        (
            "SAT-FRM-014",
            "A server MUST close with 1002 on a text message that begins inside a binary one.",
            vec![
                frame("the first fragment of a message", BINARY_TO_BE_CONTINUED, "x"),
                frame("a text message", TEXT, "x"),
            ],
        ),
        (
            "SAT-FRM-015",
            "A server MUST close with 1002 on a ping in fragments.",
            vec![frame("the first fragment of a ping", 0x09, "x")],
        ),
        (
            "SAT-FRM-016",
            "A server MUST close with 1002 on a close frame in fragments.",
            vec![frame("the first fragment of a close frame", 0x08, "")],
        ),
    ];
    table
        .into_iter()
        .map(|(id, rule, sendings)| {
            let steps = sendings.into_iter().map(send);
            must(id, rule)
                .from("RFC 6455 §5.4, §5.5")
                .otherwise("What was sent as one message is read as another.")
                .script(upgraded(steps.chain([ends(closed(1002)), Step::Alive])))
        })
        .collect()
}

fn breaches_of_framing() -> Vec<Case> {
    let table = [
        (
            "SAT-FRM-020",
            "A server MUST close with 1002 on a frame with the first reserved bit.",
            authenticate(1).in_frame(0xc2),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-021",
            "A server MUST close with 1002 on a frame with the second reserved bit.",
            authenticate(1).in_frame(0xa2),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-022",
            "A server MUST close with 1002 on a frame with the third reserved bit.",
            authenticate(1).in_frame(0x92),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-023",
            "A server MUST close with 1002 on a ping with a reserved bit.",
            frame("a ping with a reserved bit", 0xc9, "x"),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-024",
            "A server MUST close with 1002 on the first reserved opcode of data, 3.",
            frame("a frame", 0x83, "abc"),
            "RFC 6455 §5.2; preauth_reserved_opcode_3",
        ),
        (
            "SAT-FRM-025",
            "A server MUST close with 1002 on the last reserved opcode of data, 7.",
            frame("a frame", 0x87, "abc"),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-026",
            "A server MUST close with 1002 on the first reserved opcode of control, 11.",
            frame("a frame", 0x8b, "abc"),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-027",
            "A server MUST close with 1002 on the last reserved opcode of control, 15.",
            frame("a frame", 0x8f, ""),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-028",
            "A server MUST close with 1002 on a ping of 126 bytes.",
            frame("a ping of 126 bytes", PING, vec![b'x'; 126]),
            "RFC 6455 §5.5; preauth_ping_126_bytes",
        ),
        (
            "SAT-FRM-029",
            "A server MUST close with 1002 on a pong of 126 bytes.",
            frame("a pong of 126 bytes", PONG, vec![b'x'; 126]),
            "RFC 6455 §5.5",
        ),
        (
            "SAT-FRM-030",
            "A server MUST close with 1002 on a binary frame without a mask.",
            authenticate(1).unmasked(),
            "RFC 6455 §5.1; preauth_unmasked shows the original",
        ),
        (
            "SAT-FRM-031",
            "A server MUST close with 1002 on a ping without a mask.",
            raw("a ping without a mask", &b"\x89\x03abc"[..]),
            "RFC 6455 §5.1",
        ),
    ];
    let before = table.into_iter().map(|(id, rule, sending, source)| {
        must(id, rule)
            .from(source)
            .otherwise("What is not understood is acted on, or the connection hangs.")
            .script(upgraded([send(sending), ends(closed(1002)), Step::Alive]))
    });
    let after = [
        (
            "SAT-FRM-032",
            "A server MUST close with 1002 on a reserved bit after authentication.",
            call(2, start()).in_frame(0xc2),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-033",
            "A server MUST close with 1002 on a reserved opcode after authentication.",
            frame("a frame", 0x83, "abc"),
            "RFC 6455 §5.2",
        ),
        (
            "SAT-FRM-034",
            "A server MUST close with 1002 on a frame without a mask after authentication.",
            call(2, start()).unmasked(),
            "RFC 6455 §5.1; idle_unmasked_frame shows the original",
        ),
    ];
    let after = after.into_iter().map(|(id, rule, sending, source)| {
        must(id, rule)
            .from(source)
            .otherwise("What is not understood is acted on, or the connection hangs.")
            .script(authenticated([send(sending), ends(closed(1002)), Step::Alive]))
    });
    let after_a_breach =
        must("SAT-FRM-035", "A server MUST NOT act on what comes after a breach of the framing.")
            .from("RFC 6455 §7.1.7")
            .otherwise(
                "Whoever can inject bytes is served by a server that has lost its place in them.",
            )
            .script(upgraded([send(a_breach()), send(authenticate(1)), ends(closed(1002))]));
    before.chain(after).chain([after_a_breach]).collect()
}

fn text() -> Vec<Case> {
    let table = [
        (
            "SAT-FRM-040",
            "A server MUST close with 1003 on a text message.",
            frame("a text message", TEXT, "hello"),
            closed(1003),
            "README; preauth_text shows the original",
        ),
        (
            "SAT-FRM-041",
            "A server MUST close with 1003 on an empty text message.",
            frame("an empty text message", TEXT, ""),
            closed(1003),
            "README; preauth_text_empty shows the original",
        ),
        (
            "SAT-FRM-042",
            "A server MUST NOT take a good `authenticate` in a text message.",
            authenticate(1).in_frame(TEXT),
            // What is no UTF-8 has a code of its own.
            closed_with([1003, 1007]),
            "README; preauth_text_of_valid_auth shows the original",
        ),
    ];
    let before = table.into_iter().map(|(id, rule, sending, ending, source)| {
        must(id, rule)
            .from(source)
            .otherwise("A client that forgets to ask for binary messages does not learn why.")
            .script(upgraded([send(sending), ends(ending), Step::Alive]))
    });
    before
        .chain([
            must(
                "SAT-FRM-043",
                "A server MUST close with 1007 on a text message that is not UTF-8.",
            )
            .from("RFC 6455 §8.1; preauth_text_bad_utf8")
            .otherwise("The wrong reason is looked for.")
            .script(upgraded([
                send(frame("a text message that is not UTF-8", TEXT, &b"\xff\xfe"[..])),
                ends(closed_with([1007, 1003])),
                Step::Alive,
            ])),
            must("SAT-FRM-044", "A server MUST close with 1003 on a text message in fragments.")
                .from("RFC 6455 §5.4")
                .otherwise("A client that forgets to ask for binary messages does not learn why.")
                .script(upgraded([
                    send(frame("a text message to be continued", TEXT_TO_BE_CONTINUED, "he")),
                    send(frame("the rest of it", LAST_PART, "llo")),
                    ends(closed(1003)),
                ])),
            must(
                "SAT-FRM-045",
                "A server MUST close with 1003 on a text message after authentication.",
            )
            .from("README; authed_text shows the original")
            .otherwise("A client that forgets to ask for binary messages does not learn why.")
            .script(authenticated([
                send(frame("a text message", TEXT, "x")),
                ends(closed(1003)),
                Step::Alive,
            ])),
        ])
        .collect()
}

fn lengths() -> Vec<Case> {
    let too_large = "One client can take all the memory there is, without a token.";
    vec![
        may(
            "SAT-FRM-050",
            "A server MAY take a length that is written in more bytes than it needs, or close with \
             1002.",
        )
        .from("RFC 6455 §5.2")
        .otherwise("A server that assumes one form reads the next frame from the middle of this.")
        .script(upgraded([
            send(authenticate(1).with_length_in(8)),
            expect(welcome(1).or(such(
                "a close frame of 1002",
                |incoming| matches!(incoming, Incoming::Close(Some(close)) if close.code == 1002),
            ))),
            Step::Alive,
        ])),
        must("SAT-FRM-051", "A server MUST refuse a length whose highest bit is set.")
            .from("RFC 6455 §5.2")
            .otherwise("It waits for ever, or counts below zero.")
            .script(upgraded([
                send(announced(
                    "a frame whose length has the highest bit set",
                    BINARY,
                    &[0x80, 0, 0, 0, 0, 0, 0, 1],
                )),
                ends(closed_with([1002, 1009])),
                Step::Alive,
            ])),
        should(
            "SAT-FRM-052",
            "A server SHOULD close with 1009 before authentication when a frame of 1 TiB is \
             announced, and not wait for it.",
        )
        .from("README, frame size; size_declared_1TiB_no_payload shows the original")
        .otherwise(too_large)
        .script(upgraded([
            send(announced("the beginning of a frame of 1 TiB", BINARY, &[0, 0, 1, 0, 0, 0, 0, 0])),
            ends(closed(1009)),
            Step::Alive,
        ])),
        should(
            "SAT-FRM-053",
            "A server SHOULD close with 1009 before authentication on a message of 1 MiB.",
        )
        .from("README, frame size; size_unknown_type_1MiB shows the original")
        .otherwise(too_large)
        .script(upgraded([
            send(binary("a message of 1 MiB", vec![0xff; 1024 * 1024])),
            ends(closed(1009)),
            Step::Alive,
        ])),
        should(
            "SAT-FRM-054",
            "A server SHOULD close with 1009 before authentication on a message of 1 MiB in small \
             fragments.",
        )
        .from("README, frame size; size_fragmented_10MiB_of_64KiB shows the original")
        .otherwise("A limit on frames is no limit on messages.")
        .script(upgraded([
            send(binary("a message of 1 MiB", vec![0xff; 1024 * 1024]).in_fragments_of(4096)),
            ends(closed(1009)),
            Step::Alive,
        ])),
        must("SAT-FRM-055", "A server MUST take a message of 40 KiB before authentication.")
            .from("README, frame size; auth_insecure_big_token_200k")
            .otherwise("Tokens with many claims are too large.")
            .script(upgraded([
                send(authenticate(1).with_header(0, &"a".repeat(40 * 1024))),
                expect(welcome(1)),
            ])),
        must("SAT-FRM-056", "A server MUST take a message of 1 MiB after authentication.")
            .from("size_unknown_type_1MiB")
            .otherwise("Clients with large rows cannot write them, and try for ever.")
            .script(authenticated([
                send(call_of("noSuchMethod", 2, &vec![0; 1024 * 1024])),
                expect(refused("noSuchMethod", 2, InvalidRequest)),
            ])),
        should(
            "SAT-FRM-057",
            "A server SHOULD close with 1009 after authentication when a frame of 1 TiB is \
             announced, and not wait for it.",
        )
        .from("README, frame size")
        .otherwise("One client can take all the memory there is.")
        .script(authenticated([
            send(announced("the beginning of a frame of 1 TiB", BINARY, &[0, 0, 1, 0, 0, 0, 0, 0])),
            ends(closed(1009)),
            Step::Alive,
        ])),
    ]
}

fn control_frames() -> Vec<Case> {
    let dead = "Clients and proxies take the server for dead.";
    vec![
        must("SAT-FRM-060", "A server MUST answer a ping with a pong of the same payload.")
            .from("RFC 6455 §5.5.3; preauth_ping")
            .otherwise(dead)
            .script(upgraded([send(ping(b"abc")), expect(ponged(b"abc")), ends(open_still())])),
        must("SAT-FRM-061", "A server MUST answer an empty ping with an empty pong.")
            .from("RFC 6455 §5.5.3")
            .otherwise(dead)
            .script(upgraded([send(ping(b"")), expect(ponged(b""))])),
        must("SAT-FRM-062", "A server MUST answer a ping of 125 bytes with all of them.")
            .from("RFC 6455 §5.5")
            .otherwise(dead)
            .script(upgraded([send(ping(&[0xff; 125])), expect(ponged(&[0xff; 125]))])),
        must("SAT-FRM-063", "A server MUST answer pings after authentication, and go on.")
            .from("RFC 6455 §5.5.3")
            .otherwise(dead)
            .script(authenticated([
                send(ping(b"abc")),
                expect(ponged(b"abc")),
                send(call(2, start())),
                expect(started(2)),
                send(ping(b"def")),
                expect(ponged(b"def")),
            ])),
        must("SAT-FRM-064", "A server MUST answer the last of many pings.")
            .from("RFC 6455 §5.5.3")
            .otherwise(dead)
            .script(authenticated([
                send(ping(b"one of many").times(100)),
                send(ping(b"the last")),
                expect(ponged(b"the last")),
                ends(open_still()),
            ])),
        must("SAT-FRM-065", "A server MUST ignore a pong that it has not asked for.")
            .from("RFC 6455 §5.5.3; preauth_pong")
            .otherwise("Clients that send pongs as a sign of life are cut off.")
            .script(upgraded([
                send(pong(b"abc")),
                Step::Silence(ms(200)),
                send(authenticate(1)),
                expect(welcome(1)),
            ])),
        must("SAT-FRM-066", "A server MUST take frames with any mask, also one of zeros.")
            .from("RFC 6455 §5.3")
            .otherwise("Clients of simple libraries cannot connect.")
            .script(upgraded([
                send(raw("a ping whose mask is all zero", &b"\x89\x83\0\0\0\0abc"[..])),
                expect(ponged(b"abc")),
            ])),
        must(
            "SAT-FRM-067",
            "A server MUST NOT mask its frames, nor set reserved bits, nor send anything but binary \
             messages and control frames.",
        )
        .from("RFC 6455 §5.1, §5.2; preauth_ping")
        .otherwise("Browsers close the connection.")
        .script(authenticated([
            send(ping(b"abc")),
            expect(ponged(b"abc")),
            send(call(2, start())),
            expect(started(2)),
            send(call_of("noSuchMethod", 3, b"")),
            expect(refused("noSuchMethod", 3, InvalidRequest)),
            ends(closed(1007)),
        ])),
    ]
}

fn closes() -> Vec<Case> {
    let frameless = "The client waits for the end of the connection until it times out.";
    let echoed = [
        (
            "SAT-FRM-070",
            "A server MUST answer a close of 1000 with 1000, and end the connection.",
            close(1000, "bye"),
            1000,
        ),
        (
            "SAT-FRM-071",
            "A server MUST answer a close of 1001 with a close, and end the connection.",
            close(1001, ""),
            1001,
        ),
        (
            "SAT-FRM-072",
            "A server MUST answer a close of 3000 with a close, and end the connection.",
            close(3000, "registered"),
            3000,
        ),
        (
            "SAT-FRM-073",
            "A server MUST answer a close of 4999 with a close, and end the connection.",
            close(4999, "private"),
            4999,
        ),
        (
            "SAT-FRM-074",
            "A server MUST answer a close with a reason of 123 bytes.",
            close(1000, &"r".repeat(123)),
            1000,
        ),
    ];
    // RFC 6455 §5.5.1: an endpoint typically echoes the code.
    let echoed = echoed.into_iter().map(|(id, rule, close, code)| {
        must(id, rule)
            .from("RFC 6455 §5.5.1; preauth_close_4000")
            .otherwise(frameless)
            .script(upgraded([send(close), ends(closed_with([code, 1000]))]))
    });
    let empty = must(
        "SAT-FRM-075",
        "A server MUST answer a close without a code with a close, and end the connection.",
    )
    .from("RFC 6455 §5.5.1; preauth_close_empty")
    .otherwise("Published clients, which close so, wait for the end of the connection.")
    .script(upgraded([
        send(frame("a close frame without a code", CLOSE, "")),
        ends(closed(1000).or_without_code()),
    ]));
    let code = should("SAT-FRM-076", "A server SHOULD answer a close with the code of that close.")
        .from("RFC 6455 §5.5.1; README, answer to a client's close")
        .otherwise("The logs of both sides disagree.")
        .script(upgraded([send(close(4000, "bye")), ends(closed(4000))]));
    let bad = [
        ("SAT-FRM-080", "A server MUST answer a close of 1005 with 1002.", 1005),
        ("SAT-FRM-081", "A server MUST answer a close of 1006 with 1002.", 1006),
        ("SAT-FRM-082", "A server MUST answer a close of 1015 with 1002.", 1015),
        ("SAT-FRM-083", "A server MUST answer a close of 0 with 1002.", 0),
        ("SAT-FRM-084", "A server MUST answer a close of 999 with 1002.", 999),
    ];
    let bad = bad.into_iter().map(|(id, rule, code)| {
        must(id, rule)
            .from("RFC 6455 §7.4.1, §7.4.2; preauth_close_1005")
            .otherwise("A code that must not be sent is taken for a word of the peer.")
            .script(upgraded([send(close(code, "")), ends(closed(1002)), Step::Alive]))
    });
    let rest = vec![
        must("SAT-FRM-085", "A server MUST close with 1002 on a close frame of one byte.")
            .from("RFC 6455 §5.5.1")
            .otherwise("Half a code is read, or memory behind it.")
            .script(upgraded([
                send(frame("a close frame of one byte", CLOSE, &b"\x03"[..])),
                ends(closed(1002)),
                Step::Alive,
            ])),
        must(
            "SAT-FRM-086",
            "A server MUST end the connection on a close whose reason is not UTF-8.",
        )
        .from("RFC 6455 §5.5.1, §8.1")
        .otherwise("The reason breaks whatever it is logged to.")
        .script(upgraded([
            send(frame("a close frame with a bad reason", CLOSE, &b"\x03\xe8\xff\xfe"[..])),
            ends(closed_with([1007, 1002])),
            Step::Alive,
        ])),
        must("SAT-FRM-087", "A server MUST close with 1002 on a close frame of 126 bytes.")
            .from("RFC 6455 §5.5")
            .otherwise("What comes behind a short length is read as another frame.")
            .script(upgraded([
                send(close(1000, &"r".repeat(124))),
                ends(closed(1002)),
                Step::Alive,
            ])),
        must("SAT-FRM-088", "A server MUST NOT act on a message that comes after a close.")
            .from("RFC 6455 §1.4, §5.5.1")
            .otherwise("A client that has gone is served, and its id stays taken.")
            .script(upgraded([
                send(close(1000, "")),
                send(authenticate(1)),
                ends(closed(1000).or_without_code()),
            ])),
        must(
            "SAT-FRM-089",
            "A server MUST answer a close between two fragments, and forget the message.",
        )
        .from("RFC 6455 §5.4, §5.5.1")
        .otherwise("Half a message is acted on, or the close is never answered.")
        .script(upgraded([
            send(authenticate(1).in_frame(BINARY_TO_BE_CONTINUED)),
            send(close(1000, "")),
            ends(closed(1000).or_without_code()),
        ])),
        must("SAT-FRM-090", "A server MUST answer a close after authentication.")
            .from("RFC 6455 §5.5.1; dup_sequential_first")
            .otherwise(frameless)
            .script(authenticated([
                send(close(1000, "")),
                ends(closed(1000).or_without_code()),
                Step::Alive,
            ])),
        must("SAT-FRM-091", "A server MUST answer a close while replication is going on.")
            .from("RFC 6455 §5.5.1; replication recordings, j_idle")
            .otherwise(frameless)
            .script(authenticated([
                send(call(2, start())),
                expect(started(2)),
                send(frame("a close frame without a code", CLOSE, "")),
                ends(closed(1000).or_without_code()),
                Step::Alive,
            ])),
    ];
    echoed.chain([empty, code]).chain(bad).chain(rest).collect()
}

fn ends_of_streams() -> Vec<Case> {
    let forgotten = "Connections of clients that are gone pile up.";
    vec![
        must(
            "SAT-FRM-095",
            "A server MUST end the connection after its own close, though the client does not \
             answer it.",
        )
        .from("RFC 6455 §7.1.1; idle_text_no_close_echo")
        .otherwise(forgotten)
        .script(upgraded([
            send(a_breach()),
            expect(such("a close frame", |incoming| matches!(incoming, Incoming::Close(_)))),
            ends(gone().within(secs(10))),
        ])),
        must(
            "SAT-FRM-096",
            "A server MUST end a connection that the client has ended before authentication.",
        )
        .from("idle_client_half_close_preauth")
        .otherwise(forgotten)
        .script(upgraded([Step::HalfClose, ends(gone()), Step::Alive])),
        must(
            "SAT-FRM-097",
            "A server MUST end a connection that the client has ended after authentication.",
        )
        .from("idle_client_half_close_authed")
        .otherwise(forgotten)
        .script(authenticated([Step::HalfClose, ends(gone()), Step::Alive])),
        must(
            "SAT-FRM-098",
            "A server MUST end a connection that the client has ended in the middle of a frame.",
        )
        .from("RFC 6455 §7.1.7")
        .otherwise(forgotten)
        .script(authenticated([
            send(announced("the beginning of a frame of 500 bytes", BINARY, &[1, 0xf4])),
            Step::HalfClose,
            ends(gone()),
            Step::Alive,
        ])),
    ]
}
