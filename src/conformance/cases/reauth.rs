//! A second `authenticate`: who is connected does not change.

use crate::{
    conformance::{Case, Need, must, script::*, token},
    wire::{
        Method,
        proto::{
            SatInStartReplicationResp, SatInStopReplicationReq,
            sat_error_resp::ErrorCode::InvalidRequest,
        },
    },
};

use super::handshake::authenticated_and;

/// What the second `authenticate` of a client must lead to, if it has this number.
fn is_refused(request_id: u32) -> [Step; 2] {
    [expect(refused("authenticate", request_id, InvalidRequest)), ends(closed(1007))]
}

pub(super) fn cases() -> Vec<Case> {
    cases_ending(is_refused)
}

/// How the call of this number must end.
type Refusal = fn(u32) -> [Step; 2];

/// The cases, where a second `authenticate` leads to this.
pub(in crate::conformance) fn cases_ending(is_refused: Refusal) -> Vec<Case> {
    [variants(is_refused), phases(is_refused), aftermath(is_refused)].concat()
}

fn variants(is_refused: Refusal) -> Vec<Case> {
    let again = || authenticate(2);
    // A client is authenticated, sends this with the number 2, and is refused.
    let second = |id, rule, source, again: Sending| {
        must(id, rule)
            .from(source)
            .otherwise("A connection that was judged once goes on as somebody else.")
            .script(authenticated_and([send(again)].into_iter().chain(is_refused(2))))
    };
    vec![
        second(
            "SAT-REAUTH-001",
            "A server MUST answer another `authenticate` of the same client with a fresh token of \
             the same user with INVALID_REQUEST, and close the connection with 1007.",
            "README: second authenticate; authed_again_same_user_other_token",
            again(),
        ),
        second(
            "SAT-REAUTH-002",
            "A server MUST refuse an `authenticate` that names another client id.",
            "H11; authed_again_other_client",
            again().as_client(Id::Other(1)),
        ),
        second(
            "SAT-REAUTH-003",
            "A server MUST refuse an `authenticate` with the token of another user.",
            "H12",
            again().with_token(token().of_user("somebody else")),
        ),
        second(
            "SAT-REAUTH-004",
            "A server MUST refuse an `authenticate` that names another client id and another user.",
            "H11; H12",
            again().as_client(Id::Other(1)).with_token(token().of_user("somebody else")),
        ),
        second(
            "SAT-REAUTH-005",
            "A server MUST refuse an `authenticate` with a token that has expired.",
            "authed_again_expired",
            again().with_token(token().at("exp", -3600.0)),
        ),
        second(
            "SAT-REAUTH-006",
            "A server MUST refuse an `authenticate` with an empty token.",
            "authed_again_empty_token",
            again().with_token(token().text("")),
        ),
        second(
            "SAT-REAUTH-007",
            "A server MUST refuse an `authenticate` with what is no token.",
            "authed_again_expired",
            again().with_token(token().text("invalid_token")),
        ),
        second(
            "SAT-REAUTH-008",
            "A server MUST refuse an `authenticate` with an empty client id.",
            "authed_again_empty_id",
            again().as_client(Id::Text("")),
        ),
        second(
            "SAT-REAUTH-009",
            "A server in secure mode MUST refuse an `authenticate` with an unsigned token.",
            "H12; A05",
            again().with_token(token().unsigned()),
        )
        .needs(Need::SecureMode),
        second(
            "SAT-REAUTH-010",
            "A server MUST refuse an `authenticate` without a body.",
            "X04; authed_again_empty_id",
            call_of("authenticate", 2, b""),
        ),
        second(
            "SAT-REAUTH-011",
            "A server MUST refuse an `authenticate` that cannot be decoded.",
            "X07; authed_startReplication_malformed",
            call_of("authenticate", 2, b"\xff\xff\xff\xff"),
        ),
    ]
}

fn phases(is_refused: Refusal) -> Vec<Case> {
    let at = |id, rule, source, steps: Vec<Step>| {
        must(id, rule)
            .from(source)
            .otherwise("There is a moment in which a connection can become somebody else's.")
            .script(steps)
    };
    let other = |number| authenticate(number).with_token(token().of_user("somebody else"));
    vec![
        at(
            "SAT-REAUTH-012",
            "A server MUST refuse another `authenticate` while replication is started.",
            "H11; H12",
            authenticated_and(
                [send(call(2, start())), expect(started(2)), send(other(3))]
                    .into_iter()
                    .chain(is_refused(3)),
            ),
        ),
        at(
            "SAT-REAUTH-013",
            "A server MUST refuse another `authenticate` after replication has stopped.",
            "H11; H12",
            authenticated_and(
                [
                    send(call(2, start())),
                    expect(started(2)),
                    send(call(3, stop())),
                    expect(reply::<SatInStopReplicationReq>(3)),
                    send(other(4)),
                ]
                .into_iter()
                .chain(is_refused(4)),
            ),
        ),
        at(
            "SAT-REAUTH-014",
            "A server MUST refuse another `authenticate` that was sent behind the first without \
             waiting.",
            "H12; semantics §1#7",
            [open(), send(authenticate(1)), send(other(2)), expect(welcome(1))]
                .into_iter()
                .chain(is_refused(2))
                .collect(),
        ),
        at(
            "SAT-REAUTH-015",
            "A server MUST refuse another `authenticate` that has the number of the first.",
            "authed_again_same_token",
            authenticated_and([send(authenticate(1))].into_iter().chain(is_refused(1))),
        ),
        at(
            "SAT-REAUTH-016",
            "A server MUST refuse another `authenticate` when its own call has been answered.",
            "authed_again_replied_first",
            authenticated_and(
                [
                    send(call(2, start())),
                    expect(started(2)),
                    Step::Given(
                        called(Method::StartReplication),
                        "the server does not call startReplication",
                    ),
                    send(answer(SatInStartReplicationResp::default())),
                    send(authenticate(3)),
                ]
                .into_iter()
                .chain(is_refused(3)),
            ),
        ),
    ]
}

fn aftermath(is_refused: Refusal) -> Vec<Case> {
    vec![
        must(
            "SAT-REAUTH-017",
            "A server MUST NOT serve what was sent behind an `authenticate` that it refuses on a \
             live connection.",
        )
        .from("authed_again_other_client; X05")
        .otherwise("What one user asks for is done for another.")
        .script(authenticated_and(
            [
                send(authenticate(2).with_token(token().of_user("somebody else"))),
                send(call(3, start())),
            ]
            .into_iter()
            .chain(is_refused(2)),
        )),
        must(
            "SAT-REAUTH-018",
            "A server MUST let a client in again on a new connection after a refused second \
             `authenticate`.",
        )
        .from("H10; X05")
        .otherwise("A client that tried to renew its token is locked out.")
        .script(authenticated_and(
            [send(authenticate(2))].into_iter().chain(is_refused(2)).chain([
                open(),
                send(authenticate(1)),
                expect(welcome(1)),
                ends(open_still()),
            ]),
        )),
        must(
            "SAT-REAUTH-019",
            "A server MUST NOT disturb a connected client because another connection tries to \
             become it.",
        )
        .from("H09; H11")
        .otherwise("Any client can throw out any other of which it knows the id.")
        .script(authenticated_and(
            [
                open(),
                send(authenticate(1).as_client(Id::Other(1))),
                expect(welcome(1)),
                send(authenticate(2)),
            ]
            .into_iter()
            .chain(is_refused(2))
            .chain([Step::On(1), ends(open_still())]),
        )),
        must(
            "SAT-REAUTH-020",
            "A server MUST NOT hold a client id for a connection that tried to become it.",
        )
        .from("H10; H11")
        .otherwise("A client finds its own id taken.")
        .script(authenticated_and(
            [send(authenticate(2).as_client(Id::Other(1)))].into_iter().chain(is_refused(2)).chain(
                [
                    open(),
                    send(authenticate(1).as_client(Id::Other(1))),
                    expect(welcome(1)),
                    ends(open_still()),
                ],
            ),
        )),
    ]
}
