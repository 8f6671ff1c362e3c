//! One connection for each client id.
//!
//! Newcomers wait up to a second, in which the connection that is there may be pinged; so the
//! scripts go back to it, to answer.

use crate::{
    conformance::{Case, must, script::*, should, token},
    wire::proto::sat_error_resp::ErrorCode::{AuthRequired, InvalidRequest},
};

use super::frames::authenticated;

/// Longer than a newcomer waits.
const WAITED: u64 = 2000;

/// A client is let in, and another connection comes with this.
fn and_another(second: Sending) -> Vec<Step> {
    authenticated([open(), send(second)])
}

/// The newcomer at hand is told that the place is taken.
fn turned_away() -> [Step; 2] {
    [expect(refused("authenticate", 1, InvalidRequest)), ends(closed(1007))]
}

fn chained(parts: impl IntoIterator<Item = Vec<Step>>) -> Vec<Step> {
    parts.into_iter().flatten().collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    cases.extend(the_first_stays());
    cases.extend(the_first_leaves());
    cases.extend(the_first_is_dead());
    cases
}

/// The first answers pings for as long as newcomers wait.
fn first_answers() -> Vec<Step> {
    vec![Step::On(1), Step::Silence(ms(WAITED))]
}

fn first_is_unaffected() -> Vec<Step> {
    vec![Step::On(1), send(call(2, start())), expect(started(2)), ends(open_still())]
}

fn the_first_stays() -> Vec<Case> {
    let twice = "Two connections write as one client, and its changes get lost.";
    let other = || authenticate(1).with_token(token().of_user("somebody else"));
    vec![
        must(
            "SAT-DUP-001",
            "A server MUST answer a second connection of a client that is connected with \
             INVALID_REQUEST, and close it with 1007.",
        )
        .from("H09, X06; dup_stays_second")
        .otherwise(twice)
        .script(chained([
            and_another(authenticate(1)),
            first_answers(),
            vec![Step::On(2)],
            turned_away().into(),
        ])),
        must("SAT-DUP-002", "A second connection MUST NOT affect the first, if that is alive.")
            .from("H09; dup_stays_first")
            .otherwise("Two tabs of one application throw each other out for ever.")
            .script(chained([
                and_another(authenticate(1)),
                first_answers(),
                first_is_unaffected(),
            ])),
        must(
            "SAT-DUP-003",
            "A server MUST turn away every connection of several that come while the first is \
             there.",
        )
        .from("X06; dup_simultaneous_1, dup_simultaneous_2")
        .otherwise(twice)
        .script(chained([
            and_another(authenticate(1)),
            vec![open(), send(authenticate(1)), open(), send(authenticate(1))],
            first_answers(),
            vec![Step::On(2)],
            turned_away().into(),
            vec![Step::On(3)],
            turned_away().into(),
            vec![Step::On(4)],
            turned_away().into(),
            first_is_unaffected(),
        ])),
        must(
            "SAT-DUP-004",
            "A connection that was turned away MUST NOT free the place of the first.",
        )
        .from("X06; dup_stays_second")
        .otherwise("The second attempt of the same client gets in, and both write.")
        .script(chained([
            and_another(authenticate(1)),
            first_answers(),
            vec![Step::On(2)],
            turned_away().into(),
            vec![open(), send(authenticate(1))],
            first_answers(),
            vec![Step::On(3)],
            turned_away().into(),
            first_is_unaffected(),
        ])),
        must(
            "SAT-DUP-005",
            "A server MUST turn away another user who comes with the id of a client.",
        )
        .from("X06; dup_stays_other_user_second")
        .otherwise("Whoever learns the id of a client takes over its place.")
        .script(chained([
            and_another(other()),
            first_answers(),
            vec![Step::On(2)],
            turned_away().into(),
            first_is_unaffected(),
        ])),
        must(
            "SAT-DUP-006",
            "A newcomer that gives up while it waits MUST NOT affect the first, nor take its place \
             later.",
        )
        .from("X06")
        .otherwise("A place is taken by nobody, and the client is locked out.")
        .script(chained([
            and_another(authenticate(1)),
            vec![Step::Cut],
            first_answers(),
            vec![ends(open_still()), Step::Cut, open(), send(authenticate(1)), expect(welcome(1))],
        ])),
        must(
            "SAT-DUP-007",
            "Clients of one user with ids of their own MUST be served side by side.",
        )
        .from("H02")
        .otherwise("A user has one device only.")
        .script(authenticated([
            open(),
            send(authenticate(1).as_client(Id::Other(1))),
            expect(welcome(1)),
            open(),
            send(authenticate(1).as_client(Id::Other(2))),
            expect(welcome(1)),
            Step::On(1),
            ends(open_still()),
            Step::On(2),
            ends(open_still()),
            Step::On(3),
            ends(open_still()),
        ])),
        must(
            "SAT-DUP-008",
            "A connection that has not presented a good token MUST NOT take the place of a client.",
        )
        .from("DESIGN, verified first, then registered")
        .otherwise("Whoever learns the id of a client locks it out.")
        .script([
            open(),
            send(authenticate(1).with_token(token().text("no token"))),
            open(),
            send(authenticate(1)),
            expect(welcome(1)),
            ends(open_still()),
        ]),
        must(
            "SAT-DUP-009",
            "A newcomer with a bad token MUST be refused with AUTH_REQUIRED, without a word on \
             who is connected.",
        )
        .from("DESIGN, verified first, then registered; X05")
        .otherwise("Whoever guesses ids learns who is online.")
        .script(authenticated([
            open(),
            send(authenticate(1).with_token(token().text("no token"))),
            expect(refused("authenticate", 1, AuthRequired)),
            ends(closed(1007)),
            Step::On(1),
            ends(open_still()),
        ])),
    ]
}

fn the_first_leaves() -> Vec<Case> {
    let locked = "A client that connects again after a moment without network is refused for good.";
    vec![
        must(
            "SAT-DUP-010",
            "A newcomer MUST be let in when the first connection closes while it waits.",
        )
        .from("X06; dup_first_closes_at_300ms_second")
        .otherwise(locked)
        .script(chained([
            and_another(authenticate(1)),
            vec![
                Step::On(1),
                Step::Silence(ms(300)),
                send(close(1000, "")),
                ends(closed(1000).or_without_code()),
                Step::On(2),
                expect(welcome(1)),
                ends(open_still()),
            ],
        ])),
        must(
            "SAT-DUP-011",
            "A newcomer MUST be let in when the first connection drops while it waits.",
        )
        .from("X06; dup_first_tcp_drops_at_300ms_second")
        .otherwise(locked)
        .script(chained([
            and_another(authenticate(1)),
            vec![
                Step::On(1),
                Step::Silence(ms(300)),
                Step::Cut,
                Step::On(2),
                expect(welcome(1)),
                ends(open_still()),
            ],
        ])),
        must("SAT-DUP-012", "A client MUST be let in again as soon as its connection is closed.")
            .from("H10; dup_sequential_second")
            .otherwise(locked)
            .script(authenticated([
                send(close(1000, "")),
                ends(closed(1000).or_without_code()),
                open(),
                send(authenticate(1)),
                expect(welcome(1)),
                ends(open_still()),
            ])),
        must("SAT-DUP-013", "A client MUST be let in again when its connection has dropped.")
            .from("H10; dup_first_closes_at_0_second")
            .otherwise(locked)
            .script(authenticated([
                Step::Cut,
                open(),
                send(authenticate(1)),
                expect(welcome(1)),
                ends(open_still()),
            ])),
        must(
            "SAT-DUP-014",
            "A client MUST be let in again when its connection has dropped in replication.",
        )
        .from("H10, S10")
        .otherwise(locked)
        .script(authenticated([
            send(call(2, start())),
            expect(started(2)),
            Step::Cut,
            open(),
            send(authenticate(1)),
            expect(welcome(1)),
            send(call(2, start())),
            expect(started(2)),
        ])),
        must(
            "SAT-DUP-015",
            "A client MUST be let in again after the server has closed it for an error.",
        )
        .from("X05, X08; H10")
        .otherwise("One bad message locks a client out.")
        .script(authenticated([
            send(call_of("noSuchMethod", 2, b"")),
            expect(refused("noSuchMethod", 2, InvalidRequest)),
            ends(closed(1007)),
            open(),
            send(authenticate(1)),
            expect(welcome(1)),
        ])),
        must(
            "SAT-DUP-016",
            "A newcomer that is let in MUST have the place: another is turned away.",
        )
        .from("X06; dup_first_closes_at_0_second")
        .otherwise("What the first connection leaves behind frees the place of the second.")
        .script(authenticated([
            Step::Cut,
            open(),
            send(authenticate(1)),
            expect(welcome(1)),
            open(),
            send(authenticate(1)),
            Step::On(2),
            Step::Silence(ms(WAITED)),
            Step::On(3),
            expect(refused("authenticate", 1, InvalidRequest)),
            ends(closed(1007)),
        ])),
    ]
}

fn the_first_is_dead() -> Vec<Case> {
    let locked = "A client whose network has changed waits until the server misses it: a minute.";
    let dead_and_another =
        |second| authenticated([Step::LeavePingsUnanswered, open(), send(second)]);
    vec![
        should(
            "SAT-DUP-020",
            "A newcomer SHOULD take the place of a connection that does not answer pings.",
        )
        .from("X06; README, same client id twice")
        .otherwise(locked)
        .script(chained([
            dead_and_another(authenticate(1)),
            vec![expect(welcome(1)), ends(open_still())],
        ])),
        should(
            "SAT-DUP-021",
            "A connection that is replaced because it does not answer SHOULD be closed with 4408.",
        )
        .from("README, same client id twice, dead peer")
        .otherwise("A client that was only slow does not learn why it is alone.")
        .script(chained([
            dead_and_another(authenticate(1)),
            vec![
                expect(welcome(1)),
                Step::On(1),
                ends(closed(4408).saying("Client not responding to pings")),
            ],
        ])),
        must(
            "SAT-DUP-022",
            "Another user MUST NOT take the place of a client, even if that does not answer pings.",
        )
        .from("X06; dup_stays_other_user_second; README, same client id twice")
        .otherwise("Whoever learns the id of a client takes over its place when it is slow.")
        .script(chained([
            dead_and_another(authenticate(1).with_token(token().of_user("somebody else"))),
            turned_away().into(),
            first_is_unaffected(),
        ])),
        should(
            "SAT-DUP-023",
            "A newcomer that has replaced a dead connection SHOULD keep the place when that ends.",
        )
        .from("README, same client id twice")
        .otherwise("What the first connection leaves behind frees the place of the second.")
        .script(chained([
            dead_and_another(authenticate(1)),
            vec![
                expect(welcome(1)),
                Step::On(1),
                Step::Cut,
                open(),
                send(authenticate(1)),
                Step::On(2),
                Step::Silence(ms(WAITED)),
                ends(open_still()),
                Step::On(3),
            ],
            turned_away().into(),
        ])),
    ]
}
