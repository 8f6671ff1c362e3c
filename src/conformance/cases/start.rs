//! `startReplication` and `stopReplication`, in both directions.

use crate::{
    conformance::{Case, may, must, script::*, should},
    wire::{
        Call, Method, Reply, Version,
        proto::{
            SatInStartReplicationReq, SatInStartReplicationResp, SatInStopReplicationReq,
            SatInStopReplicationResp,
            sat_error_resp::ErrorCode::{InvalidRequest, ReplicationFailed},
            sat_in_start_replication_req::Dialect,
            sat_in_start_replication_resp::{
                ReplicationError,
                replication_error::Code::{BehindWindow, InvalidPosition, MalformedLsn},
            },
        },
    },
};

use super::handshake::{authenticated, authenticated_and};

/// A client is authenticated, and has started replication by the call 2.
pub(in crate::conformance) fn in_replication() -> Vec<Step> {
    authenticated_and([send(call(2, start())), expect(started(2))])
}

/// The same, and it goes on so.
pub(in crate::conformance) fn in_replication_and(
    steps: impl IntoIterator<Item = Step>,
) -> Vec<Step> {
    in_replication().into_iter().chain(steps).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let own_calls = own_calls().into_iter().map(|OwnCall { case, steps }| {
        case.script(in_replication().into_iter().chain([own_call()]).chain(steps))
    });
    [beginnings(), windows(), positions(), again(), stops()]
        .into_iter()
        .flatten()
        .chain(own_calls)
        .collect()
}

// ---- From the beginning ----

fn beginnings() -> Vec<Case> {
    let starts = |id, rule, source, request| {
        must(id, rule).from(source).otherwise("A new client never syncs.").script(
            authenticated_and([send(call(2, request)), expect(started(2)), ends(open_still())]),
        )
    };
    vec![
        starts(
            "SAT-START-001",
            "A server MUST start replication for a client without a position.",
            "S01; S03; authed_startReplication",
            start(),
        ),
        starts(
            "SAT-START-002",
            "A server MUST start replication for a client that asks for SQL in a dialect.",
            "versions: `sql_dialect` from 0.11 on",
            SatInStartReplicationReq {
                sql_dialect: Some(Dialect::Postgres.into()),
                ..Default::default()
            },
        ),
        may(
            "SAT-START-003",
            "A server without data MAY start replication for a client with any schema version.",
        )
        .from("README: schema version at the service without data; S05")
        .otherwise("A client that brings its migrations along cannot connect to a new service.")
        .script(authenticated_and([
            send(call(
                2,
                SatInStartReplicationReq {
                    schema_version: Some("20230101000000_1".into()),
                    ..Default::default()
                },
            )),
            expect(started(2)),
            ends(open_still()),
        ])),
        should(
            "SAT-START-004",
            "A server SHOULD NOT call `startReplication` before it has answered the client's own.",
        )
        .from("README: our own startReplication; authed_startReplication")
        .otherwise("Published clients crash when it crosses a refusal of their own start.")
        .script([
            open(),
            send(authenticate(1)),
            Step::Next(welcome(1)),
            Step::Wait(ms(500)),
            send(call(2, start())),
            Step::Next(started(2)),
        ]),
    ]
}

fn windows() -> Vec<Case> {
    let announced = |yes: bool| {
        let words = match yes {
            true => "SatInStartReplicationResp to 2 with a window of at least 1",
            false => "SatInStartReplicationResp to 2 without a window",
        };
        reply_such(words, Method::StartReplication, 2, move |reply| {
            matches!(reply, Reply::StartReplication(SatInStartReplicationResp {
                err: None,
                unacked_window_size,
            }) if unacked_window_size.is_some_and(|size| size > 0) == yes
                && unacked_window_size.is_some() == yes)
        })
    };
    let at = |id, rule, version, yes| {
        must(id, rule)
            .from("semantics §10#1; authed_startReplication")
            .otherwise("A client acknowledges nothing, and the stream stands still after a while.")
            .script([
                upgrade().offering([version]).step(),
                send(authenticate(1)),
                expect(welcome(1)),
                send(call(2, start())),
                expect(announced(yes)),
            ])
    };
    vec![
        at(
            "SAT-START-005",
            "A server MUST announce its window to a client of 0.10.",
            "electric.0.10",
            true,
        )
        .since(Version::V0_10),
        at(
            "SAT-START-006",
            "A server MUST announce its window to a client of 0.12.",
            "electric.0.12",
            true,
        )
        .since(Version::V0_12),
        at(
            "SAT-START-007",
            "A server MUST NOT announce a window to a client of 0.7, which has none.",
            "electric.0.7",
            false,
        ),
        at(
            "SAT-START-008",
            "A server MUST NOT announce a window to a client of 0.9, the last without.",
            "electric.0.9",
            false,
        )
        .since(Version::V0_9),
    ]
}

// ---- From a position ----

fn positions() -> Vec<Case> {
    let malformed = |id, rule, source, lsn| {
        must(id, rule)
            .from(source)
            .otherwise("A position of another kind is taken for one of this service.")
            .script(authenticated_and([
                send(call(2, start_at(lsn))),
                expect(start_error(2, MalformedLsn)),
                ends(closed(1007)),
            ]))
    };
    let unknown = |id, rule, source, lsn| {
        let behind = start_error(2, BehindWindow);
        let failed = refused("startReplication", 2, ReplicationFailed);
        must(id, rule)
            .from(source)
            .otherwise("A client of another service goes on with a gap that nobody sees.")
            .script(authenticated_and([
                send(call(2, start_at(lsn))),
                expect(behind.or(failed)),
                ends(closed(1007)),
            ]))
    };
    vec![
        malformed(
            "SAT-START-009",
            "A server MUST answer a position that is no decimal number with MALFORMED_LSN, and \
             close the connection with 1007.",
            "X12; authed_startReplication_lsn_garbage",
            b"abc",
        ),
        malformed(
            "SAT-START-010",
            "A server MUST refuse a position of four bytes in binary, as clients give their own.",
            "authed_startReplication_lsn_binary",
            b"\0\0\0\x01",
        ),
        malformed(
            "SAT-START-011",
            "A server MUST refuse a position of eight bytes in binary.",
            "authed_startReplication_lsn_8bytes",
            b"\0\0\0\0\x01\x6b\x37\x48",
        ),
        malformed(
            "SAT-START-012",
            "A server MUST refuse a position as PostgreSQL writes it.",
            "authed_startReplication_lsn_pg",
            b"0/16B3748",
        ),
        malformed(
            "SAT-START-013",
            "A server MUST refuse a position with white space around it.",
            "semantics §3: a whole decimal integer",
            b" 1 ",
        ),
        malformed(
            "SAT-START-014",
            "A server MUST refuse a position with a fraction.",
            "semantics §3: a whole decimal integer",
            b"1.5",
        ),
        malformed(
            "SAT-START-015",
            "A server MUST refuse a sign without a number as a position.",
            "semantics §3: a whole decimal integer",
            b"-",
        ),
        malformed(
            "SAT-START-016",
            "A server MUST refuse a position in digits that are not ASCII.",
            "semantics §3: a whole decimal integer",
            "١٢٣".as_bytes(),
        ),
        unknown(
            "SAT-START-017",
            "A server MUST refuse to go on from a position that it did not give out, by \
             BEHIND_WINDOW or by REPLICATION_FAILED, and close the connection with 1007.",
            "S07; authed_startReplication_lsn_text_num",
            b"12345",
        ),
        unknown(
            "SAT-START-018",
            "A server MUST refuse to go on from the position 0.",
            "authed_startReplication_lsn_zero",
            b"0",
        ),
        unknown(
            "SAT-START-019",
            "A server MUST refuse to go on from a position beyond 64 bits.",
            "authed_startReplication_lsn_huge",
            b"123456789012345678901234567890",
        ),
        unknown(
            "SAT-START-020",
            "A server MUST take a sign before a position.",
            "semantics §3: an optional sign",
            b"-1",
        ),
        must(
            "SAT-START-021",
            "A server MUST answer subscriptions without a position with INVALID_POSITION, and \
             close the connection with 1007.",
        )
        .from("X12; authed_startReplication_unknown_sub_empty_lsn; data_empty_lsn_with_sub")
        .otherwise("A client that lost its position goes on with data that does not fit.")
        .script(authenticated_and([
            send(call(
                2,
                SatInStartReplicationReq {
                    subscription_ids: vec!["3d7c2a0e-9d3f-4c52-8a53-1f0a3c1d2b10".into()],
                    ..Default::default()
                },
            )),
            expect(start_error(2, InvalidPosition)),
            ends(closed(1007)),
        ])),
        must(
            "SAT-START-022",
            "A server MUST let a client start from the beginning on a new connection after it \
             refused its position.",
        )
        .from("semantics §11: the client resets its state and connects again")
        .otherwise("A client that has dropped its data never syncs again.")
        .script(authenticated_and([
            send(call(2, start_at(b"abc"))),
            expect(start_error(2, MalformedLsn)),
            ends(closed(1007)),
            open(),
            send(authenticate(1)),
            expect(welcome(1)),
            send(call(2, start())),
            expect(started(2)),
            ends(open_still()),
        ])),
    ]
}

// ---- Twice, and after a stop ----

fn again() -> Vec<Case> {
    vec![
        must(
            "SAT-START-023",
            "A server MUST answer `startReplication` with INVALID_REQUEST while replication is \
             started, and close the connection with 1007.",
        )
        .from("README: second startReplication; authed_startReplication_twice")
        .otherwise("Everything comes twice.")
        .script(in_replication_and([
            send(call(3, start())),
            expect(refused("startReplication", 3, InvalidRequest)),
            ends(closed(1007)),
        ])),
        must("SAT-START-024", "A server MUST start replication again after it was stopped.")
            .from("S08; authed_start_stop_start_stop")
            .otherwise("A client that pauses must connect again.")
            .script(in_replication_and([
                send(call(3, stop())),
                expect(reply::<SatInStopReplicationReq>(3)),
                send(call(4, start())),
                expect(started(4)),
                send(call(5, stop())),
                expect(reply::<SatInStopReplicationReq>(5)),
                ends(open_still()),
            ])),
    ]
}

fn stops() -> Vec<Case> {
    let stopped = |number| expect(reply::<SatInStopReplicationReq>(number));
    vec![
        must(
            "SAT-STOP-001",
            "A server MUST answer `stopReplication` while replication is started with success, and \
             with nothing else.",
        )
        .from("S27; authed_start_stop_start_stop; corrections #6")
        .otherwise("Published clients take the stray error behind it for a failure, and give up.")
        .script(in_replication_and([
            send(call(3, stop())),
            stopped(3),
            Step::Silence(ms(500)),
            ends(open_still()),
        ])),
        must(
            "SAT-STOP-002",
            "A server MUST answer `stopReplication` with success when replication was never \
             started.",
        )
        .from("X14; README: stopReplication when stopped")
        .otherwise("A client that stops to be sure loses its connection.")
        .script(authenticated_and([send(call(2, stop())), stopped(2), ends(open_still())])),
        must("SAT-STOP-003", "A server MUST answer a second `stopReplication` with success.")
            .from("X14; authed_start_stop_stop")
            .otherwise("A client that stops twice loses its connection.")
            .script(in_replication_and([
                send(call(3, stop())),
                stopped(3),
                send(call(4, stop())),
                stopped(4),
                ends(open_still()),
            ])),
        must(
            "SAT-STOP-004",
            "A server MUST serve starts and stops that are sent without waiting, in their order.",
        )
        .from("semantics §1#7; authed_start_stop_start_stop")
        .otherwise("A client that changes its mind at once ends up in the wrong state.")
        .script(authenticated_and([
            send(call(2, start())),
            send(call(3, stop())),
            send(call(4, start())),
            send(call(5, stop())),
            expect(started(2)),
            stopped(3),
            expect(started(4)),
            stopped(5),
            ends(open_still()),
        ])),
        must(
            "SAT-STOP-005",
            "A server MUST take a `stopReplication` with fields that it does not know.",
        )
        .from("protobuf: unknown fields are passed over")
        .otherwise("A newer client cannot stop.")
        .script(in_replication_and([
            send(call_of("stopReplication", 3, b"\x78\x01")),
            stopped(3),
            ends(open_still()),
        ])),
    ]
}

// ---- The server's own calls ----

/// A case that begins when the server calls `startReplication` itself.
pub(in crate::conformance) struct OwnCall {
    pub(in crate::conformance) case: Case,
    pub(in crate::conformance) steps: Vec<Step>,
}

impl OwnCall {
    /// The script against a server that calls as soon as the client is authenticated.
    pub(in crate::conformance) fn at_once(&self) -> Vec<Step> {
        let call = expect(called(Method::StartReplication));
        authenticated().into_iter().chain([call]).chain(self.steps.clone()).collect()
    }
}

fn own_call() -> Step {
    Step::Given(
        called(SatInStartReplicationReq::METHOD),
        "the server does not call startReplication, which it need not do",
    )
}

/// What follows the server's own `startReplication`.
pub(in crate::conformance) fn own_calls() -> Vec<OwnCall> {
    let own = |case: Case, source, otherwise, steps: Vec<Step>| OwnCall {
        case: case.from(source).otherwise(otherwise),
        steps,
    };
    let good = || answer(SatInStartReplicationResp::default());
    let closes = || vec![expect(error(InvalidRequest)), ends(closed(1007)), Step::Alive];
    vec![
        own(
            must(
                "SAT-START-025",
                "A server MUST take the client's positive answer to its own `startReplication`.",
            ),
            "S06; authed_startReplication_replied",
            "No client can write.",
            vec![send(good()), Step::Silence(ms(500)), ends(open_still())],
        ),
        own(
            must(
                "SAT-START-026",
                "A server MUST answer a client that refuses its `startReplication` with a bare \
                 INVALID_REQUEST, and close the connection with 1007.",
            ),
            "X15; authed_reply_startReplication_SatError",
            "Server and client disagree on whether writes are sent.",
            [vec![send(refuse(ReplicationFailed))], closes()].concat(),
        ),
        own(
            must(
                "SAT-START-027",
                "A server MUST take an answer to its `startReplication` with an error inside \
                 without closing the connection.",
            ),
            "authed_reply_startReplication_err",
            "A client that cannot write now cannot read either.",
            vec![
                send(answer(SatInStartReplicationResp {
                    err: Some(ReplicationError { code: MalformedLsn.into(), message: "no".into() }),
                    ..Default::default()
                })),
                ends(open_still()),
            ],
        ),
        own(
            must(
                "SAT-START-028",
                "A server MUST answer a response to its `startReplication` that holds no result \
                 with a bare INVALID_REQUEST, and close the connection with 1007.",
            ),
            "semantics §1#3",
            "A failure is taken for success.",
            [vec![send(empty_response())], closes()].concat(),
        ),
        own(
            must(
                "SAT-START-029",
                "A server MUST ignore an answer to its `startReplication` under another number.",
            ),
            "authed_reply_startReplication_rid9",
            "A late answer to an earlier call costs the connection.",
            vec![send(good().with_wrong_number()), send(good()), ends(open_still())],
        ),
        own(
            must(
                "SAT-START-030",
                "A server MUST ignore an answer to its `startReplication` under another method.",
            ),
            "semantics §1#2: method and number name a call",
            "The answer to one call settles another.",
            vec![
                send(answer(SatInStopReplicationResp {}).with_method("stopReplication")),
                send(good()),
                ends(open_still()),
            ],
        ),
        own(
            must(
                "SAT-START-031",
                "A server MUST ignore a second answer to its `startReplication`.",
            ),
            "README: a reply to no call is ignored",
            "A client that answers twice by mistake loses its connection.",
            vec![send(good()), send(good()), ends(open_still())],
        ),
        own(
            must(
                "SAT-START-032",
                "A server MUST serve the client's calls while its own `startReplication` waits for \
                 an answer.",
            ),
            "semantics §2: independent of each other",
            "Both ends wait for each other.",
            vec![
                send(call(7, subscribe("0f8fad5b-d9cb-469f-a165-70867728950e"))),
                expect(reply::<crate::wire::proto::SatSubsReq>(7)),
                send(good()),
                ends(open_still()),
            ],
        ),
    ]
}
