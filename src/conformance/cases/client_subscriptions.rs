//! Subscriptions of a client: asking for rows, taking them, giving them up.

use crate::{
    conformance::{Case, Task, must, script::*, should},
    wire::{
        Method, Request, Version,
        proto::{
            SatInStartReplicationResp, SatOpGone, SatOpRow, SatShapeDataBegin, SatShapeDataEnd,
            SatSubsDataBegin, SatSubsDataEnd, SatUnsubsDataEnd, SatUnsubsResp, sat_trans_op::Op,
        },
    },
};

use super::{
    client_handshake::{authenticated, in_replication, then},
    client_replication::{begin_of_nothing, commit_of_nothing, insert, items, ops},
};

pub(super) fn cases() -> Vec<Case> {
    [subscribing(), broken_deliveries(), unsubscribing()].into_iter().flatten().collect()
}

/// The client asks for the rows of `items`.
fn asked() -> Vec<Step> {
    then(in_replication(), [expect(called(Method::Subscribe))])
}

/// It is promised them, and has had the time to take note of it.
fn promised() -> Vec<Step> {
    then(asked(), [send(deliver(Part::Granted)), Step::Silence(ms(500))])
}

fn shape_end() -> Step {
    send(message(SatShapeDataEnd {}))
}

fn data_end() -> Step {
    send(message(SatSubsDataEnd {}))
}

/// All of the data.
fn data() -> Vec<Step> {
    vec![
        send(deliver(Part::Begin(b"5"))),
        items(),
        send(deliver(Part::Shape)),
        ops([insert("a"), insert("b")]),
        shape_end(),
        data_end(),
    ]
}

fn delivered() -> Vec<Step> {
    then(promised(), data())
}

/// The promise and all of the data, at once.
fn at_once() -> Step {
    let data = data().into_iter().filter_map(|step| match step {
        Step::Send(sending) => Some(sending),
        _ => None,
    });
    Step::SendTogether([deliver(Part::Granted)].into_iter().chain(data).collect())
}

fn stays() -> [Step; 2] {
    [Step::Silence(secs(1)), ends(open_still())]
}

/// The start of the next connection.
fn back_with(expected: Expectation) -> Vec<Step> {
    then(vec![Step::Silence(secs(2)), Step::Cut], then(authenticated(), [expect(expected)]))
}

fn subscribing() -> Vec<Case> {
    let case = |case: Case| case.task(Task::Subscribe);
    let starts_without = || {
        called_such("startReplication without subscriptions", Method::StartReplication, |call| {
            matches!(call, Request::StartReplication(request)
                if request.subscription_ids.is_empty())
        })
    };
    vec![
        case(must(
            "SAT-C-SUB-001",
            "A client MUST subscribe under an id that is not empty, to at least one shape with one \
             table.",
        ))
        .from("SH17; published clients (0.6–0.12)")
        .otherwise("The server refuses it, or cannot say whose the data is.")
        .script(then(
            in_replication(),
            [expect(called_such("subscribe to items", Method::Subscribe, |call| {
                let Request::Subscribe(request) = call else { return false };
                let mut selects = request
                    .shape_requests
                    .iter()
                    .filter_map(|shape| shape.shape_definition.as_ref())
                    .flat_map(|definition| &definition.selects);
                !request.subscription_id.is_empty()
                    && selects.any(|select| select.tablename == "items")
            }))],
        )),
        case(should(
            "SAT-C-SUB-002",
            "A client SHOULD give its `subscribe` a request id that no call on the connection has \
             had.",
        ))
        .from("H28; published clients (0.6–0.12)")
        .otherwise("A late answer is taken for that to another call.")
        .script(then(in_replication(), [expect(called_anew(Method::Subscribe))])),
        case(should(
            "SAT-C-SUB-003",
            "A client SHOULD NOT subscribe before its start is answered.",
        ))
        .from("G49; published clients (0.9.6–0.12)")
        .otherwise("The data can come before the stream that it belongs to.")
        .script(then(
            authenticated(),
            [
                expect(called(Method::StartReplication)),
                Step::Silence(secs(2)),
                send(answer(SatInStartReplicationResp::default())),
                expect(called(Method::Subscribe)),
            ],
        )),
        case(must(
            "SAT-C-SUB-004",
            "A client MUST take the answer to `subscribe` and all of the data back to back.",
        ))
        .from("SH18, SH21")
        .otherwise("It misses data that is quick.")
        .script(then(asked(), [at_once()].into_iter().chain(stays()))),
        case(must(
            "SAT-C-SUB-005",
            "A client MUST take the rows of a shape in several messages, or none.",
        ))
        .from("SH21; G48")
        .otherwise("It loses its connection over every larger table, and every empty one.")
        .script(then(
            promised(),
            [
                send(deliver(Part::Begin(b"5"))),
                items(),
                send(deliver(Part::Shape)),
                ops([insert("a")]),
                ops([]),
                ops([insert("b")]),
                shape_end(),
                data_end(),
            ]
            .into_iter()
            .chain(stays()),
        )),
        case(must(
            "SAT-C-SUB-006",
            "A client MUST take a subscription without any row.",
        ))
        .from("SH21")
        .otherwise("It loses its connection over every empty table.")
        .script(then(
            promised(),
            [
                send(deliver(Part::Begin(b"5"))),
                send(deliver(Part::Shape)),
                shape_end(),
                data_end(),
            ]
            .into_iter()
            .chain(stays()),
        )),
        case(must(
            "SAT-C-SUB-007",
            "A client MUST name the subscriptions whose data it has stored when it starts again, \
             and the position of that data if nothing came after it.",
        ))
        .from("SH23; published clients (0.6–0.12)")
        .otherwise("Rows that were changed meanwhile are missed.")
        .script(then(
            delivered(),
            back_with(called_about(
                "startReplication from \"5\" with the subscription",
                Method::StartReplication,
                |call| {
                    matches!(call, Request::StartReplication(request) if request.lsn == b"5"[..])
                },
            )),
        )),
        case(must(
            "SAT-C-SUB-008",
            "A client MUST stay connected when its subscription is refused.",
        ))
        .from("SH26; published clients (0.6–0.12)")
        .otherwise("One wrong shape ends everything else.")
        .script(then(asked(), [send(deliver(Part::Denied("no such table")))].into_iter().chain(stays()))),
        case(must(
            "SAT-C-SUB-009",
            "A client MUST NOT name a subscription that was refused when it starts again.",
        ))
        .from("SH26; published clients (0.6–0.12)")
        .otherwise("The server answers SUBSCRIPTION_NOT_FOUND, and all its data is thrown away.")
        .script(then(
            then(asked(), [send(deliver(Part::Denied("no such table")))]),
            back_with(starts_without()),
        )),
        case(should(
            "SAT-C-SUB-010",
            "A client SHOULD stay connected when SatSubsDataError comes in place of the data.",
        ))
        .from("SH19; published clients (0.6–0.12)")
        .otherwise("One shape that fails ends everything else.")
        .script(then(
            promised(),
            [send(deliver(Part::Failed("cannot be read")))].into_iter().chain(stays()),
        )),
        case(should(
            "SAT-C-SUB-011",
            "A client SHOULD stay connected when SatSubsDataError comes after the first of the \
             data.",
        ))
        .from("SH19")
        .otherwise("One shape that fails ends everything else.")
        .script(then(
            promised(),
            [send(deliver(Part::Begin(b"5"))), send(deliver(Part::Failed("cannot be read")))]
                .into_iter()
                .chain(stays()),
        )),
        case(must(
            "SAT-C-SUB-012",
            "A client MUST NOT name a subscription whose data has not come whole when it starts \
             again.",
        ))
        .from("SH19, SH27; published clients (0.6–0.12)")
        .otherwise("The rest of the data never comes.")
        .script(then(
            then(
                promised(),
                [
                    send(deliver(Part::Begin(b"5"))),
                    items(),
                    send(deliver(Part::Shape)),
                    ops([insert("a")]),
                ],
            ),
            back_with(starts_without()),
        )),
        case(should(
            "SAT-C-SUB-013",
            "A client SHOULD subscribe again when the connection was lost before the data came.",
        ))
        .from("SH27; published clients (0.10–0.12)")
        .otherwise("The application waits for ever.")
        .script(then(
            then(promised(), [Step::Silence(secs(1)), Step::Cut]),
            then(in_replication(), [expect(called(Method::Subscribe))]),
        )),
    ]
}

fn broken_deliveries() -> Vec<Case> {
    let breaks = |id, rule, steps: Vec<Step>| {
        should(id, rule)
            .task(Task::Subscribe)
            .from("SH20; README, the order of the stream")
            .otherwise("The client believes that it has data that it has not.")
            .script(then(steps, [ends(gone()), accept()]))
    };
    let begun = || then(promised(), [send(deliver(Part::Begin(b"5"))), items()]);
    let in_shape = || then(begun(), [send(deliver(Part::Shape))]);
    vec![
        breaks(
            "SAT-C-SUB-014",
            "A client SHOULD close the connection when the data of a shape begins outside that of \
             a subscription.",
            then(promised(), [send(deliver(Part::Shape))]),
        ),
        breaks(
            "SAT-C-SUB-015",
            "A client SHOULD close the connection when the data of a shape ends that has not begun.",
            then(begun(), [shape_end()]),
        ),
        breaks(
            "SAT-C-SUB-016",
            "A client SHOULD close the connection when the data of a subscription ends that has \
             not begun.",
            then(promised(), [data_end()]),
        ),
        breaks(
            "SAT-C-SUB-017",
            "A client SHOULD close the connection when the data of a subscription ends inside a \
             shape.",
            then(in_shape(), [ops([insert("a")]), data_end()]),
        ),
        breaks(
            "SAT-C-SUB-018",
            "A client SHOULD close the connection when the data of a subscription ends without \
             that of its shapes.",
            then(begun(), [data_end()]),
        ),
        breaks(
            "SAT-C-SUB-019",
            "A client SHOULD close the connection when rows come between the shapes of a \
             subscription.",
            then(begun(), [ops([insert("a")])]),
        ),
        breaks(
            "SAT-C-SUB-020",
            "A client SHOULD close the connection when a transaction begins inside a shape.",
            then(in_shape(), [ops([insert("a"), begin_of_nothing()])]),
        ),
        breaks(
            "SAT-C-SUB-021",
            "A client SHOULD close the connection when a commit comes inside a shape.",
            then(in_shape(), [ops([insert("a"), commit_of_nothing()])]),
        ),
        breaks(
            "SAT-C-SUB-022",
            "A client SHOULD close the connection when data comes for a subscription that was \
             refused.",
            then(
                asked(),
                [send(deliver(Part::Denied("no such table"))), send(deliver(Part::Begin(b"5")))],
            ),
        ),
        breaks(
            "SAT-C-SUB-023",
            "A client SHOULD close the connection when data comes for a subscription that it has \
             not asked for.",
            then(
                promised(),
                [send(message(SatSubsDataBegin {
                    subscription_id: "another".into(),
                    lsn: "5".into(),
                }))],
            ),
        ),
        breaks(
            "SAT-C-SUB-024",
            "A client SHOULD close the connection when the data of a subscription comes twice.",
            then(delivered(), [send(deliver(Part::Begin(b"6")))]),
        ),
        breaks(
            "SAT-C-SUB-025",
            "A client SHOULD close the connection when the data of a shape comes that it has not \
             asked for.",
            then(
                begun(),
                [send(message(SatShapeDataBegin {
                    request_id: "no such shape".into(),
                    uuid: "5f2e6a0c-4b7e-4f55-9a0e-0f6f0f6f0f6f".into(),
                }))],
            ),
        ),
    ]
}

fn unsubscribing() -> Vec<Case> {
    let case = |case: Case| case.task(Task::Unsubscribe);
    let given_up = || {
        then(
            delivered(),
            [expect(called_about("unsubscribe from it", Method::Unsubscribe, |_| true))],
        )
    };
    let granted = || send(answer(SatUnsubsResp {}));
    let row: SatOpRow = [Some("a"), None].into_iter().collect();
    let gone_row = Op::Gone(SatOpGone { relation_id: 77, pk_data: Some(row) });
    vec![
        case(must(
            "SAT-C-SUB-026",
            "A client that wants the rows no more MUST call `unsubscribe` with the id under which \
             it has subscribed.",
        ))
        .from("SH22; published clients (0.6–0.12)")
        .otherwise("The server goes on to send them.")
        .script(then(given_up(), [granted()].into_iter().chain(stays()))),
        case(must(
            "SAT-C-SUB-027",
            "A client of version 0.12 MUST take the rows that leave with a subscription.",
        ))
        .since(Version::V0_12)
        .from("SH22, SH28")
        .otherwise("It loses its connection, or keeps rows that nobody updates any more.")
        .script(then(
            given_up(),
            [
                granted(),
                send(deliver(Part::Gone(b"6"))),
                ops([gone_row]),
                send(message(SatUnsubsDataEnd {})),
            ]
            .into_iter()
            .chain(stays()),
        )),
    ]
}
