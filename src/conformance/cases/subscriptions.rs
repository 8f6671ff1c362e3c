//! Subscriptions, as far as a service without data shows them.

use crate::{
    conformance::{Case, must, script::*},
    wire::{
        Method, Reply,
        proto::{
            SatShapeDef, SatShapeReq, SatSubsReq, SatSubsResp, SatUnsubsReq,
            sat_shape_def::Select,
            sat_subs_resp::{
                SatSubsError,
                sat_subs_error::shape_req_error::Code::{
                    self, EmptyShapeDefinition, TableNotFound,
                },
            },
        },
    },
};

use super::{handshake::authenticated_and, start::in_replication_and};

/// A subscription id as it should be.
const ID: &str = "5db97751-8ee3-441a-8ed3-cb6c19231ae7";

/// A table that no service has.
const NO_TABLE: &str = "no_such_table_7f3a91";

pub(super) fn cases() -> Vec<Case> {
    [forms(), tables(), lives(), unsubscribes()].concat()
}

/// A request for the rows of these tables.
fn shape(request_id: &str, tables: &[&str]) -> SatShapeReq {
    let select = |table: &&str| Select { tablename: (*table).into(), ..Default::default() };
    let selects = tables.iter().map(select).collect();
    SatShapeReq { request_id: request_id.into(), shape_definition: Some(SatShapeDef { selects }) }
}

fn subscription(id: &str, shape_requests: Vec<SatShapeReq>) -> SatSubsReq {
    SatSubsReq { subscription_id: id.into(), shape_requests }
}

/// The answer to a `subscribe` that holds an error which passes this test.
fn subs_error(
    words: &str,
    request_id: u32,
    test: impl Fn(&str, &SatSubsError) -> bool + Send + Sync + 'static,
) -> Step {
    let words = format!("SatSubsResp to {request_id} with {words}");
    expect(reply_such(words, Method::Subscribe, request_id, move |reply| {
        matches!(reply, Reply::Subscribe(SatSubsResp { subscription_id, err: Some(err) })
            if test(subscription_id, err))
    }))
}

/// Any error.
fn any_error(request_id: u32) -> Step {
    subs_error("an error", request_id, |_, _| true)
}

/// An error of this code for this request, and for no other.
fn shape_error(request_id: u32, code: Code, shapes: &'static [&'static str]) -> Step {
    let words = format!("{} for {shapes:?}", code.as_str_name());
    subs_error(&words, request_id, move |_, err| {
        let found: Vec<&str> =
            err.shape_request_error.iter().map(|error| error.request_id.as_str()).collect();
        found == shapes && err.shape_request_error.iter().all(|error| error.code() == code)
    })
}

fn forms() -> Vec<Case> {
    let refused = |id, rule, source, request| {
        must(id, rule)
            .from(source)
            .otherwise("A client waits for data that never comes, or loses all its subscriptions.")
            .script(authenticated_and([send(call(2, request)), any_error(2), ends(open_still())]))
    };
    let one = || vec![shape("r1", &[NO_TABLE])];
    vec![
        must(
            "SAT-SUB-001",
            "A server MUST answer a `subscribe` without a shape with an error in the SatSubsResp \
             that repeats the id, and leave the connection open.",
        )
        .from("X19; authed_subscribe_no_shapes")
        .otherwise("A client takes the refusal for that of another subscription.")
        .script(authenticated_and([
            send(call(2, subscribe(ID))),
            subs_error("its id and an error", 2, |id, _| id == ID),
            ends(open_still()),
        ])),
        refused(
            "SAT-SUB-002",
            "A server MUST refuse a subscription id of more than 128 bytes.",
            "X19; semantics §9#1",
            subscription(&"5db97751".repeat(17), one()),
        ),
        refused(
            "SAT-SUB-003",
            "A server MUST refuse a subscription id that is no UUID.",
            "X19; semantics §9#1",
            subscription("subscription-1", one()),
        ),
        refused(
            "SAT-SUB-004",
            "A server MUST refuse a subscription id that is a UUID in upper case.",
            "X19: the canonical form is in lower case",
            subscription(&ID.to_uppercase(), one()),
        ),
        refused(
            "SAT-SUB-005",
            "A server MUST refuse a subscription id that is a UUID without hyphens.",
            "X19: the canonical form has hyphens",
            subscription(&ID.replace('-', ""), one()),
        ),
        refused(
            "SAT-SUB-006",
            "A server MUST refuse an empty subscription id.",
            "X19",
            subscription("", one()),
        ),
        refused(
            "SAT-SUB-007",
            "A server MUST refuse a subscription with two shapes of the same request id.",
            "X19; semantics §9#1",
            subscription(ID, vec![shape("r1", &[NO_TABLE]), shape("r1", &["another_table"])]),
        ),
    ]
}

fn tables() -> Vec<Case> {
    let otherwise = "A developer does not learn which of the tables is misspelt.";
    vec![
        must(
            "SAT-SUB-008",
            "A server MUST answer a `subscribe` to an unknown table with TABLE_NOT_FOUND for that \
             request, and leave the connection open.",
        )
        .from("semantics §9#1")
        .otherwise(otherwise)
        .script(authenticated_and([
            send(call(2, subscription(ID, vec![shape("r1", &[NO_TABLE])]))),
            shape_error(2, TableNotFound, &["r1"]),
            ends(open_still()),
        ])),
        must(
            "SAT-SUB-009",
            "A server MUST report every request of a subscription that names an unknown table.",
        )
        .from("semantics §9#1")
        .otherwise(otherwise)
        .script(authenticated_and([
            send(call(
                2,
                subscription(
                    ID,
                    vec![shape("r1", &[NO_TABLE]), shape("r2", &["no_such_table_either_7f3a91"])],
                ),
            )),
            shape_error(2, TableNotFound, &["r1", "r2"]),
            ends(open_still()),
        ])),
        must(
            "SAT-SUB-010",
            "A server MUST answer a shape that names no table with EMPTY_SHAPE_DEFINITION.",
        )
        .from("semantics §9#1")
        .otherwise(otherwise)
        .script(authenticated_and([
            send(call(2, subscription(ID, vec![shape("r1", &[])]))),
            shape_error(2, EmptyShapeDefinition, &["r1"]),
            ends(open_still()),
        ])),
        must(
            "SAT-SUB-011",
            "A server MUST treat a shape request without a definition as one that names no table.",
        )
        .from("protobuf: absent and empty are the same; semantics §9#1")
        .otherwise(otherwise)
        .script(authenticated_and([
            send(call(
                2,
                subscription(
                    ID,
                    vec![SatShapeReq { request_id: "r1".into(), shape_definition: None }],
                ),
            )),
            shape_error(2, EmptyShapeDefinition, &["r1"]),
            ends(open_still()),
        ])),
    ]
}

fn lives() -> Vec<Case> {
    vec![
        must("SAT-SUB-012", "A server MUST go on to serve a client whose subscription it refused.")
            .from("X19; semantics §1#4")
            .otherwise("One bad subscription ends all others.")
            .script(authenticated_and([
                send(call(2, subscribe("bad"))),
                any_error(2),
                send(call(3, start())),
                expect(started(3)),
                send(call(4, subscribe("bad"))),
                any_error(4),
                ends(open_still()),
            ])),
        must(
            "SAT-SUB-013",
            "A server MUST answer `subscribe` in the same way while replication is started.",
        )
        .from("semantics §9#2")
        .otherwise("What is refused before the start is accepted after it.")
        .script(in_replication_and([
            send(call(3, subscription(ID, vec![shape("r1", &[NO_TABLE])]))),
            shape_error(3, TableNotFound, &["r1"]),
            ends(open_still()),
        ])),
        must(
            "SAT-SUB-014",
            "A server MUST NOT count the id of a subscription that it refused as used.",
        )
        .from("SH06: only an id in use is refused")
        .otherwise("A client that corrects its request is told of a duplicate.")
        .script(authenticated_and([
            send(call(2, subscription(ID, vec![shape("r1", &[NO_TABLE])]))),
            shape_error(2, TableNotFound, &["r1"]),
            send(call(3, subscription(ID, vec![shape("r1", &[NO_TABLE])]))),
            shape_error(3, TableNotFound, &["r1"]),
        ])),
    ]
}

fn unsubscribes() -> Vec<Case> {
    let succeeds = |id, rule, source, ids: &[&str]| {
        let subscription_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        must(id, rule)
            .from(source)
            .otherwise("A client that tidies up after a crash loses its connection.")
            .script(in_replication_and([
                send(call(3, SatUnsubsReq { subscription_ids })),
                expect(reply::<SatUnsubsReq>(3)),
                ends(open_still()),
            ]))
    };
    vec![
        must(
            "SAT-SUB-015",
            "A server MUST answer `unsubscribe` with success before replication has started, also \
             for an id that it does not know.",
        )
        .from("authed_unsubscribe_unknown; README: unsubscribe")
        .otherwise("A client that tidies up before it starts loses its connection.")
        .script(authenticated_and([
            send(call(2, unsubscribe(ID))),
            expect(reply::<SatUnsubsReq>(2)),
            ends(open_still()),
        ])),
        succeeds(
            "SAT-SUB-016",
            "A server MUST answer an `unsubscribe` from a subscription that it does not know with \
             success.",
            "semantics §9#6",
            &[ID],
        ),
        succeeds(
            "SAT-SUB-017",
            "A server MUST answer an `unsubscribe` from nothing with success.",
            "semantics §9#6",
            &[],
        ),
        succeeds(
            "SAT-SUB-018",
            "A server MUST answer an `unsubscribe` from what can be no subscription with success.",
            "semantics §9#6",
            &["not a UUID", "", ID, ID],
        ),
    ]
}
