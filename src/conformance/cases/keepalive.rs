//! Who is there and who is gone: pings with deadlines, and the time to authenticate.

use std::time::Duration;

use crate::conformance::{Case, Need, must, script::*, should, token};

use super::frames::{announced, authenticated, upgraded};

/// What a server says to whom it pings in vain.
const NOT_RESPONDING: &str = "Client not responding to pings";

/// How long a client may be silent before it should have been pinged, with room to spare: the
/// original takes up to 40 s.
const PINGED_BY: Duration = Duration::from_secs(50);

/// By when a client that answers no ping should be closed: two such rounds, less the spare room.
const CLOSED_BY: Duration = Duration::from_secs(70);

/// Shorter than the time to authenticate of any server.
const SOON: Duration = Duration::from_secs(1);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    cases.extend(before_authentication());
    cases.extend(after_authentication());
    cases
}

fn before_authentication() -> Vec<Case> {
    let held = "Connections that cost memory are had without a token, as many as one likes.";
    let timed_out = || closed(4408).saying("Authentication timeout");
    vec![
        must(
            "SAT-LIVE-001",
            "A server MUST NOT send anything before the client does, nor close for a second.",
        )
        .from("H01")
        .otherwise("Clients that fetch their token after they have connected are cut off.")
        .script(upgraded([
            Step::Silence(SOON),
            send(authenticate(1)),
            expect(welcome(1)),
            ends(open_still()),
        ])),
        should("SAT-LIVE-002", "A server SHOULD give a client 5 s to authenticate.")
            .from("README, time to authenticate; idle_preauth_pong")
            .otherwise(
                "Clients on slow networks, or whose token comes from elsewhere, are cut off.",
            )
            .needs(Need::Time)
            .script(upgraded([
                Step::Silence(secs(5)),
                send(authenticate(1)),
                expect(welcome(1)),
                ends(open_still()),
            ])),
        should(
            "SAT-LIVE-003",
            "A server SHOULD close with 4408 `Authentication timeout` when a client has not \
             authenticated within 10 s.",
        )
        .from("README, time to authenticate; idle_preauth_pong shows the original")
        .otherwise(held)
        .needs(Need::Time)
        .script(upgraded([ends(timed_out().within(secs(20)))])),
        should(
            "SAT-LIVE-004",
            "A server SHOULD NOT give a client more time to authenticate because it pings.",
        )
        .from("README, time to authenticate; idle_preauth_pong shows the original")
        .otherwise(held)
        .needs(Need::Time)
        .script(upgraded([
            Step::Silence(secs(4)),
            send(ping(b"still here")),
            expect(ponged(b"still here")),
            Step::Silence(secs(4)),
            send(ping(b"and now")),
            expect(ponged(b"and now")),
            ends(timed_out().within(secs(12))),
        ])),
        should(
            "SAT-LIVE-005",
            "A server SHOULD NOT give a client more time to authenticate because its message comes \
             slowly.",
        )
        .from("README, time to authenticate; idle_half_frame shows the original")
        .otherwise(held)
        .needs(Need::Time)
        .script(upgraded([
            send(announced("the beginning of a frame of 500 bytes", 0x82, &[1, 0xf4])),
            Step::Silence(secs(4)),
            send(raw("a byte more", "x")),
            Step::Silence(secs(4)),
            send(raw("a byte more", "x")),
            ends(timed_out().within(secs(12))),
        ])),
        should(
            "SAT-LIVE-006",
            "A server SHOULD NOT give a client more time to authenticate because fragments come.",
        )
        .from("README, time to authenticate; RFC 6455 §5.4")
        .otherwise(held)
        .needs(Need::Time)
        .script(upgraded([
            send(frame("the first fragment of a message", 0x02, "x")),
            Step::Silence(secs(4)),
            send(frame("a fragment more", 0x00, "x")),
            Step::Silence(secs(4)),
            send(frame("a fragment more", 0x00, "")),
            ends(timed_out().within(secs(12))),
        ])),
    ]
}

fn after_authentication() -> Vec<Case> {
    let pile = "Connections of clients that are gone pile up, and their ids stay taken.";
    vec![
        should("SAT-LIVE-010", "A server SHOULD ping a client that is silent, within 40 s.")
            .from("X09; idle_authed_pong")
            .otherwise("Proxies close connections that are silent for a minute.")
            .needs(Need::Time)
            .script(authenticated([pinged().within(PINGED_BY), ends(open_still())])),
        should(
            "SAT-LIVE-011",
            "A server SHOULD close with 4408 `Client not responding to pings` when a client does \
             not answer its pings.",
        )
        .from("X09; j_idle; idle_preauth_no_pong shows the original")
        .otherwise(pile)
        .needs(Need::Time)
        .script(authenticated([
            Step::LeavePingsUnanswered,
            ends(closed(4408).saying(NOT_RESPONDING).within(CLOSED_BY)),
            Step::Alive,
        ])),
        must("SAT-LIVE-012", "A server MUST NOT close a client that answers its pings.")
            .from("X09; idle_authed_pong")
            .otherwise("Clients that have nothing to say connect again and again.")
            .needs(Need::Time)
            .script(authenticated([Step::Silence(secs(48)), ends(open_still())])),
        must(
            "SAT-LIVE-013",
            "A server MUST take any frame for a sign of life, not only the answer to its ping.",
        )
        .from("RFC 6455 §5.5.3; preauth_pong")
        .otherwise("A client that is busy sending is cut off because its pong comes late.")
        .needs(Need::Time)
        .script(authenticated([
            Step::LeavePingsUnanswered,
            Step::Silence(secs(4)),
            send(pong(b"unasked")),
            Step::Silence(secs(4)),
            send(ping(b"a ping")),
            Step::Silence(secs(4)),
            send(pong(b"unasked")),
            Step::Silence(secs(4)),
            send(ping(b"a ping")),
            Step::Silence(secs(4)),
            send(pong(b"unasked")),
            Step::Silence(secs(4)),
            send(ping(b"a ping")),
            Step::Silence(secs(4)),
            send(pong(b"unasked")),
            Step::Silence(secs(4)),
            send(ping(b"a ping")),
            Step::Silence(secs(4)),
            send(pong(b"unasked")),
            Step::Silence(secs(4)),
            ends(open_still()),
        ])),
        should(
            "SAT-LIVE-014",
            "A server SHOULD close with 4408 when a client stops in the middle of a frame.",
        )
        .from("idle_half_frame")
        .otherwise(pile)
        .needs(Need::Time)
        .script(authenticated([
            send(announced("the beginning of a frame of 500 bytes", 0x82, &[1, 0xf4])),
            Step::LeavePingsUnanswered,
            ends(closed(4408).saying(NOT_RESPONDING).within(CLOSED_BY)),
            Step::Alive,
        ])),
        should(
            "SAT-LIVE-015",
            "A server SHOULD NOT close a connection because its token has run out, unless it is \
             told to.",
        )
        .from("H13, H14; idle_authed_exp_in_4s")
        .otherwise("Published clients up to 0.9.2, which cannot renew, lose sync for good.")
        .needs(Need::Time)
        .script(upgraded([
            send(authenticate(1).with_token(token().at("exp", 4.0))),
            expect(welcome(1)),
            Step::Silence(secs(9)),
            ends(open_still()),
        ])),
    ]
}
