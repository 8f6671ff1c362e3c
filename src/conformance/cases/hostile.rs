//! What nobody sends in good faith. A server survives it, which is all that is asked here: after
//! each of these another client can authenticate.

use std::time::Duration;

use crate::{
    conformance::{Case, Need, must, script::*, should, token},
    wire::proto::SatRpcResponse,
};

use super::frames::{announced, authenticated, upgraded};

const BINARY: u8 = 0x82;

/// Time for a server to do whatever it does; nothing is expected of it but to go on.
const AWHILE: Duration = Duration::from_secs(2);

/// What breaks where a case gives nothing else.
const DOWN: &str = "One client without a token ends the service for all.";
const DOWN_BY_CLIENT: &str = "One client ends the service for all.";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    cases.extend(no_http());
    cases.extend(garbage());
    cases.extend(announcements());
    cases.extend(floods());
    cases.extend(crowds());
    cases.extend(drops());
    cases.extend(bad_protobuf());
    cases.extend(large_content());
    cases
}

/// The server does with it what it wants, and goes on to serve others.
fn survives(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    steps.into_iter().chain([Step::Whatever(AWHILE), Step::Alive]).collect()
}

/// Bytes without sense, the same in every run (xorshift, Marsaglia 2003).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn no_http() -> Vec<Case> {
    let refused = || status([400, 413, 414, 431]).or_end();
    vec![
        must(
            "SAT-HOST-001",
            "A server MUST answer a TLS greeting where it expects HTTP with 400, or end the \
             connection.",
        )
        .from("RFC 9112 §2.2; http_garbage_line shows the original")
        .otherwise("A client that takes the wrong scheme hangs, and so do port scans.")
        .script([
            Ask::unfinished(
                "with the beginning of a TLS handshake",
                "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{0}\u{3}\u{3} hello\r\n\r\n".into(),
            )
            .answered(refused()),
            Step::Alive,
        ]),
        must("SAT-HOST-002", "A server MUST refuse a header line of 1 MiB, or end the connection.")
            .from("RFC 6585 §5; README, limits")
            .otherwise(DOWN)
            .script([
                Ask::upgrade(["electric.0.12"])
                    .with("Cookie", &"a".repeat(1024 * 1024))
                    .answered(refused()),
                Step::Alive,
            ]),
        must("SAT-HOST-003", "A server MUST refuse 20,000 header lines, or end the connection.")
            .from("RFC 6585 §5; README, limits")
            .otherwise(DOWN)
            .script([
                Ask::unfinished(
                    "with 20,000 header lines",
                    format!("GET /ws HTTP/1.1\r\n{}\r\n", "X-Header: x\r\n".repeat(20_000)),
                )
                .answered(refused()),
                Step::Alive,
            ]),
        must(
            "SAT-HOST-004",
            "A server MUST refuse a request line of 100 KiB, or end the connection.",
        )
        .from("RFC 9112 §3; README, limits")
        .otherwise(DOWN)
        .script([
            Ask::upgrade(["electric.0.12"])
                .line(&format!("GET /ws?{} HTTP/1.1", "a".repeat(100 * 1024)))
                .answered(refused()),
            Step::Alive,
        ]),
        should(
            "SAT-HOST-005",
            "A server SHOULD end a connection whose request does not end, within 30 s.",
        )
        .from("README, limits")
        .otherwise("Connections that cost memory are had without a request, as many as one likes.")
        .needs(Need::Time)
        .script([
            Ask::unfinished(
                "for an upgrade, and never end the request",
                "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n".into(),
            )
            .answered(status([400, 408]).or_end().within(secs(35))),
            Step::Alive,
        ]),
        should(
            "SAT-HOST-006",
            "A server SHOULD end a connection on which nothing is asked, within 30 s.",
        )
        .from("README, limits")
        .otherwise("Connections that cost memory are had without a request, as many as one likes.")
        .needs(Need::Time)
        .script([
            Ask::unfinished("nothing", String::new())
                .answered(status([400, 408]).or_end().within(secs(35))),
            Step::Alive,
        ]),
        must("SAT-HOST-008", "A server MUST refuse HTTP/2 where it does not speak it, or end it.")
            .from("RFC 9113 §3.4")
            .otherwise("A proxy that takes HTTP/2 for granted hangs.")
            .script([
                Ask::unfinished(
                    "by HTTP/2",
                    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".into(),
                )
                .answered(status([400, 404, 405, 505]).or_end()),
                Step::Alive,
            ]),
        must("SAT-HOST-007", "A server MUST go on after requests whose headers make no sense.")
            .from("RFC 9112 §5; README, limits")
            .otherwise(DOWN)
            .script([
                Ask::text(&["GET /ws HTTP/1.1", "Host: localhost", "no colon here"])
                    .answered(status([400]).or_end()),
                Ask::text(&["GET /ws HTTP/9.9", "Host: localhost"])
                    .answered(status([400, 505]).or_end()),
                Ask::text(&["GET /ws", "Host: localhost"]).answered(status([400]).or_end()),
                Ask::text(&["POST /ws HTTP/1.1", "Host: localhost", "Content-Length: -1"])
                    .answered(status([400]).or_end()),
                Step::Alive,
            ]),
    ]
}

fn garbage() -> Vec<Case> {
    vec![
        must("SAT-HOST-010", "A server MUST go on after 64 KiB of noise in place of frames.")
            .from("H03; RFC 6455 §7.1.7")
            .otherwise(DOWN)
            .script(survives(upgraded([send(raw("noise", noise(64 * 1024)))]))),
        must("SAT-HOST-011", "A server MUST go on after 64 KiB of zeros in place of frames.")
            .from("RFC 6455 §7.1.7")
            .otherwise(DOWN)
            .script(survives(upgraded([send(raw("zeros", vec![0; 64 * 1024]))]))),
        must("SAT-HOST-012", "A server MUST go on after 64 KiB of ones in place of frames.")
            .from("RFC 6455 §7.1.7")
            .otherwise(DOWN)
            .script(survives(upgraded([send(raw("bytes of 0xff", vec![0xff; 64 * 1024]))]))),
        must("SAT-HOST-013", "A server MUST go on after noise behind a good handshake.")
            .from("H04; RFC 6455 §7.1.7")
            .otherwise(DOWN_BY_CLIENT)
            .script(survives(authenticated([send(raw("noise", noise(64 * 1024)))]))),
        must("SAT-HOST-014", "A server MUST go on after messages of noise, of many lengths.")
            .from("H03, X08")
            .otherwise(DOWN)
            .script(
                [1, 2, 3, 5, 8, 13, 100, 1000, 10_000]
                    .into_iter()
                    .flat_map(|length| {
                        let words = format!("{length} bytes of noise");
                        survives(upgraded([send(binary(&words, noise(length)))])).into_iter()
                    })
                    .collect::<Vec<_>>(),
            ),
    ]
}

fn announcements() -> Vec<Case> {
    let table: [(_, _, &[u8]); 3] = [
        (
            "SAT-HOST-020",
            "A server MUST NOT make room for 2 GiB because a frame announces them.",
            &[0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
        ),
        (
            "SAT-HOST-021",
            "A server MUST NOT make room for 2^63 - 1 bytes because a frame announces them.",
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (
            "SAT-HOST-022",
            "A server MUST NOT make room for 2^64 - 1 bytes because a frame announces them.",
            &[0xff; 8],
        ),
    ];
    table
        .into_iter()
        .map(|(id, rule, length)| {
            let announcement = || send(announced("the beginning of that frame", BINARY, length));
            must(id, rule)
                .from("RFC 6455 §5.2, §10.4; size_declared_1TiB_no_payload")
                .otherwise(DOWN)
                .script(
                    survives(upgraded([announcement()]))
                        .into_iter()
                        .chain(survives(authenticated([announcement()]))),
                )
        })
        .collect()
}

fn floods() -> Vec<Case> {
    let starved = "One client takes all the time there is.";
    vec![
        must("SAT-HOST-030", "A server MUST go on while a client floods it with pings.")
            .from("RFC 6455 §5.5.2, §10.4")
            .otherwise(starved)
            .script(survives(upgraded([send(ping(b"p").times(5000))]))),
        must("SAT-HOST-031", "A server MUST go on while a client floods it with pongs.")
            .from("RFC 6455 §5.5.3, §10.4")
            .otherwise(starved)
            .script(survives(upgraded([send(pong(b"p").times(5000))]))),
        must("SAT-HOST-032", "A server MUST go on while a client sends fragments without end.")
            .from("RFC 6455 §5.4, §10.4")
            .otherwise(starved)
            .script(survives(upgraded([
                send(frame("the first fragment", 0x02, "x")),
                send(frame("an empty fragment", 0x00, "").times(5000)),
                send(frame("a fragment of one byte", 0x00, "x").times(5000)),
            ]))),
        must("SAT-HOST-033", "A server MUST go on while a client floods it with empty messages.")
            .from("X08; RFC 6455 §10.4")
            .otherwise(starved)
            .script(survives(upgraded([send(binary("an empty message", "").times(5000))]))),
        must("SAT-HOST-034", "A server MUST go on while a client floods it with close frames.")
            .from("RFC 6455 §5.5.1")
            .otherwise(starved)
            .script(survives(upgraded([send(close(1000, "").times(1000))]))),
        must(
            "SAT-HOST-035",
            "A server MUST go on while a client calls `authenticate` again and again without \
             waiting.",
        )
        .from("H43; preauth_bad_auth_then_good_pipelined")
        .otherwise("Signatures are verified for one client all the time.")
        .script(survives(upgraded([send(
            authenticate(1).with_token(token().text("no.good.token")).times(500),
        )]))),
        must(
            "SAT-HOST-036",
            "A server MUST go on while a client calls again and again without reading answers.",
        )
        .from("S08; RFC 6455 §10.4")
        .otherwise(starved)
        .script(survives(authenticated([
            send(call(2, start())),
            send(call(3, subscribe("")).times(2000)),
            Step::Wait(AWHILE),
        ]))),
        must("SAT-HOST-037", "A server MUST go on while a client pings and does not read.")
            .from("README, peer that does not read")
            .otherwise("Answers pile up in memory until there is none.")
            .script(authenticated([
                send(ping(&[b'p'; 125]).times(5000)),
                Step::Wait(AWHILE),
                Step::Alive,
            ])),
        must("SAT-HOST-038", "A server MUST go on while a client sends on after its close.")
            .from("RFC 6455 §5.5.1")
            .otherwise(starved)
            .script(survives(authenticated([
                send(close(1000, "")),
                send(binary("a message of 64 KiB", vec![0x15; 64 * 1024]).times(64)),
            ]))),
        must("SAT-HOST-039", "A server MUST go on while a client answers calls that nobody made.")
            .from("X21; DESIGN, a reply that matches no call")
            .otherwise(starved)
            .script(survives(authenticated([send(
                message(SatRpcResponse {
                    method: "startReplication".into(),
                    request_id: 4711,
                    result: None,
                })
                .times(2000),
            )]))),
    ]
}

fn crowds() -> Vec<Case> {
    let crowd = 64;
    vec![
        must("SAT-HOST-045", "A server MUST serve others beside 64 connections that say nothing.")
            .from("README, limits")
            .otherwise(DOWN)
            .script(vec![Step::Dial; crowd].into_iter().chain([Step::Alive])),
        must("SAT-HOST-046", "A server MUST serve others beside 64 upgrades that say nothing.")
            .from("README, limits; H01")
            .otherwise(DOWN)
            .script(vec![open(); crowd].into_iter().chain([Step::Alive])),
        must("SAT-HOST-047", "A server MUST serve others beside 64 halves of a message.")
            .from("README, limits")
            .otherwise(DOWN)
            .script(
                (0..crowd)
                    .flat_map(|_| {
                        let half = announced("the beginning of 40 KiB", BINARY, &[0xa0, 0]);
                        upgraded([send(half)])
                    })
                    .chain([Step::Alive]),
            ),
        must("SAT-HOST-048", "A server MUST go on after 200 connections that come and go at once.")
            .from("H10")
            .otherwise("Files or memory of connections that are gone are not given back.")
            .script(
                (0..200)
                    .flat_map(|nth| match nth % 2 {
                        0 => vec![Step::Dial, Step::Cut],
                        _ => vec![open(), Step::Cut],
                    })
                    .chain([Step::Alive]),
            ),
    ]
}

/// A connection that drops at every point of a conversation.
fn drops() -> Vec<Case> {
    let left = "What a client leaves behind stays for ever, or takes the service down.";
    let half_a_frame = || send(announced("half a frame", BINARY, &[1, 0xf4]));
    let table = [
        (
            "SAT-HOST-050",
            "A server MUST go on after a connection that drops before its request.",
            vec![Step::Dial],
        ),
        (
            "SAT-HOST-051",
            "A server MUST go on after a connection that drops in the middle of its request.",
            vec![Step::Dial, send(raw("half a request", "GET /ws HTTP/1.1\r\nHost: loc"))],
        ),
        (
            "SAT-HOST-052",
            "A server MUST go on after a connection that drops in the middle of a frame.",
            upgraded([half_a_frame()]),
        ),
        (
            "SAT-HOST-053",
            "A server MUST go on after a connection that drops between two fragments.",
            upgraded([send(authenticate(1).in_frame(0x02))]),
        ),
        (
            "SAT-HOST-054",
            "A server MUST go on after a connection that drops while it is authenticated.",
            upgraded([send(authenticate(1))]),
        ),
        (
            "SAT-HOST-055",
            "A server MUST go on after a connection that drops in the middle of a frame in \
             replication.",
            authenticated([send(call(2, start())), expect(started(2)), half_a_frame()]),
        ),
        (
            "SAT-HOST-056",
            "A server MUST go on after a connection that drops with calls unanswered.",
            authenticated([send(call(2, start())), send(call(3, stop())), send(call(4, start()))]),
        ),
    ];
    table
        .into_iter()
        .map(|(id, rule, steps)| {
            must(id, rule)
                .from("H10; RFC 6455 §7.1.7")
                .otherwise(left)
                .script(steps.into_iter().chain([Step::Cut, Step::Alive]))
        })
        .collect()
}

/// A message with a type byte before its body.
fn of_type(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], body].concat()
}

const REQUEST: u8 = 21;
const OP_LOG: u8 = 12;

fn bad_protobuf() -> Vec<Case> {
    let nested = 100_000;
    // Field 15 as a group, over and over: what is unknown is passed over to the end of the group.
    let groups = [vec![0x7b; nested], vec![0x7c; nested]].concat();
    // SatOpLog.ops = 1, then whatever: length-delimited fields in one another, as deep as it goes.
    let mut deep = vec![];
    for _ in 0..3000 {
        let mut outer = vec![0x0a];
        let mut length = deep.len();
        while length > 0x7f {
            outer.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(&deep);
        deep = outer;
    }
    let bodies: [(_, _, Vec<u8>); 8] = [
        (
            "SAT-HOST-060",
            "A server MUST go on after 100,000 groups inside one another.",
            of_type(REQUEST, &groups),
        ),
        (
            "SAT-HOST-061",
            "A server MUST go on after 3,000 messages inside one another.",
            of_type(OP_LOG, &deep),
        ),
        (
            "SAT-HOST-062",
            "A server MUST go on after a field that is longer than its message.",
            of_type(REQUEST, b"\x0a\xff\xff\xff\xff\x0f"),
        ),
        (
            "SAT-HOST-063",
            "A server MUST go on after a field of 2^64 - 1 bytes.",
            of_type(REQUEST, b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ),
        (
            "SAT-HOST-064",
            "A server MUST go on after a number that does not end.",
            of_type(REQUEST, &[&[0x10][..], &[0xff; 64]].concat()),
        ),
        (
            "SAT-HOST-065",
            "A server MUST go on after a field of number 0.",
            of_type(REQUEST, b"\x02\x01x"),
        ),
        (
            "SAT-HOST-066",
            "A server MUST go on after wire types that do not exist.",
            of_type(REQUEST, b"\x0e\x0f\x16\x17"),
        ),
        (
            "SAT-HOST-067",
            "A server MUST go on after the end of a group that did not begin.",
            of_type(REQUEST, b"\x7c"),
        ),
    ];
    let bodies = bodies.into_iter().map(|(id, rule, body)| {
        let bad = || send(binary("that message", body.clone()));
        must(id, rule)
            .from("X08; preauth_malformed_rpc_envelope")
            .otherwise(DOWN)
            .script(survives(upgraded([bad()])).into_iter().chain(survives(authenticated([bad()]))))
    });
    let every_type = must(
        "SAT-HOST-068",
        "A server MUST go on after messages of every type with bodies of noise.",
    )
    .from("X08; preauth_type_1 and the like")
    .otherwise(DOWN_BY_CLIENT)
    .script(
        (0..=27)
            .chain([63, 64, 127, 128, 255])
            .flat_map(|kind| {
                let words = format!("a message of type {kind} with a body of noise");
                authenticated([
                    send(binary(&words, of_type(kind, &noise(40)))),
                    Step::Whatever(ms(50)),
                    Step::Cut,
                ])
            })
            .chain([Step::Alive]),
    );
    let wrong_types = must(
        "SAT-HOST-069",
        "A server MUST go on after messages whose fields all have another wire type.",
    )
    .from("X08; preauth_envelope_wrong_wiretype")
    .otherwise(DOWN_BY_CLIENT)
    .script(
        [0_u8, 9, 11, 12, 16, 17, 20, 21, 22, 23]
            .into_iter()
            .flat_map(|kind| {
                // Fields 1 to 4: a number, 8 bytes, 4 bytes, and a number again.
                let body = b"\x08\x01\x11\0\0\0\0\0\0\0\x01\x1d\0\0\0\x01\x20\x01";
                let words = format!("a message of type {kind} with fields of other types");
                authenticated([
                    send(binary(&words, of_type(kind, body))),
                    Step::Whatever(ms(50)),
                    Step::Cut,
                ])
            })
            .chain([Step::Alive]),
    );
    let cut_off =
        must("SAT-HOST-070", "A server MUST go on after calls that are cut off after any byte.")
            .from("X07, X08; preauth_envelope_truncated")
            .otherwise(DOWN_BY_CLIENT)
            .script(
                (1..=18)
                    .flat_map(|length| {
                        // `startReplication`, number 2, and a body of its own.
                        let call = b"\x15\x0a\x10startReplication\x10\x02\x1a\x02\x28\x01";
                        let words = format!("the first {length} bytes of a call");
                        authenticated([
                            send(binary(&words, call[..length].to_vec())),
                            Step::Whatever(ms(50)),
                            Step::Cut,
                        ])
                    })
                    .chain([Step::Alive]),
            );
    bodies.chain([every_type, wrong_types, cut_off]).collect()
}

fn large_content() -> Vec<Case> {
    vec![
        must("SAT-HOST-075", "A server MUST go on after a token of 60,000 bytes.")
            .from("auth_insecure_big_token_200k; size_auth_garbage_token_1MiB")
            .otherwise(DOWN)
            .script(survives(upgraded([send(
                authenticate(1).with_token(token().text("a.".repeat(30_000))),
            )]))),
        must("SAT-HOST-076", "A server MUST go on after 10,000 headers in one `authenticate`.")
            .from("preauth_auth_with_headers")
            .otherwise(DOWN)
            .script(survives(upgraded([send(call_of(
                "authenticate",
                1,
                &b"\x1a\x02\x08\x01".repeat(10_000),
            ))]))),
        must("SAT-HOST-077", "A server MUST go on after a method name of 1 MiB.")
            .from("X07")
            .otherwise(DOWN_BY_CLIENT)
            .script(survives(authenticated([send(binary(
                "a call of a method whose name has 1 MiB",
                of_type(REQUEST, &[&b"\x0a\x80\x80\x40"[..], &vec![b'm'; 1 << 20]].concat()),
            ))]))),
        must("SAT-HOST-078", "A server MUST go on after 100,000 empty operations in one message.")
            .from("X17; idle_authed_client_SatOpLog_every_3s")
            .otherwise(DOWN_BY_CLIENT)
            .script(survives(authenticated([
                send(call(2, start())),
                expect(started(2)),
                send(binary(
                    "100,000 empty operations",
                    of_type(OP_LOG, &b"\x0a\0".repeat(100_000)),
                )),
            ]))),
        must(
            "SAT-HOST-079",
            "A server MUST go on after 100,000 subscriptions to be ended at once.",
        )
        .from("authed_unsubscribe_unknown")
        .otherwise(DOWN_BY_CLIENT)
        .script(survives(authenticated([send(call_of(
            "unsubscribe",
            2,
            &b"\x0a\x01x".repeat(100_000),
        ))]))),
    ]
}
