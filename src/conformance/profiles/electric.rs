//! What Electric 0.7.1 and 0.12.1 do alike on the wire, where that is not what a new server should
//! do: upgrades, frames, keepalive, duplicates, hostile input.

use crate::{
    conformance::{
        cases::{authenticated, upgraded},
        script::*,
        token,
    },
    wire::proto::sat_error_resp::ErrorCode::{Internal, InvalidRequest},
};

use super::Difference;

const MISSING: &str = "Missing satellite websocket subprotocol";
const NOT_RESPONDING: &str = "Client not responding to pings";

/// A refusal of an upgrade that offers this.
pub(super) fn is_refused(offer: &str, body: &'static str) -> Vec<Step> {
    vec![Ask::upgrade([offer]).answered(status([400]).saying(body))]
}

fn is_no_version(lines: &[&str]) -> Vec<Step> {
    vec![Ask::upgrade(lines).answered(status([400]).saying(MISSING))]
}

/// Upgrade, frames, keepalive, duplicates and hostile input.
pub(super) fn wire_level() -> Vec<Difference> {
    [upgrade(), frames(), keepalive(), duplicates(), hostile()].into_iter().flatten().collect()
}

fn upgrade() -> Vec<Difference> {
    const NO_LISTS: &str = "a header line counts as one offer, commas and all, and so is not of \
                            the form of a version: http_two_one_header_ok_first, \
                            http_two_one_header_ok_second, http_two_one_header_foo_first";
    const ONE_LINE: &str = "of the lines that begin with `electric.` there must be exactly one: \
                            http_two_headers_electric, http_two_headers_same";
    vec![
        Difference::script(
            "SAT-UPG-010",
            NO_LISTS,
            is_no_version(&["electric.0.10, electric.0.12, electric.0.11"]),
        ),
        Difference::script(
            "SAT-UPG-011",
            ONE_LINE,
            is_no_version(&["electric.0.10", "electric.0.12", "electric.0.11"]),
        ),
        Difference::script("SAT-UPG-012", NO_LISTS, is_no_version(&["graphql-ws, electric.0.12"])),
        Difference::script(
            "SAT-UPG-014",
            NO_LISTS,
            is_no_version(&["electric.0.99, electric.0.12, electric.0.1"]),
        ),
        Difference::script(
            "SAT-UPG-015",
            NO_LISTS,
            is_no_version(&["electric.0.9, electric.0.11"]),
        ),
        Difference::script("SAT-UPG-016", ONE_LINE, is_no_version(&[SPOKEN, SPOKEN])),
        Difference::script(
            "SAT-UPG-017",
            NO_LISTS,
            is_no_version(&["electric.0.10 ,\telectric.0.12 "]),
        ),
        Difference::script("SAT-UPG-018", NO_LISTS, is_no_version(&[", electric.0.12,,"])),
        Difference::script(
            "SAT-UPG-039",
            NO_LISTS,
            is_no_version(&["electric.0.4, electric.0.5, electric.0.3"]),
        ),
        Difference::script(
            "SAT-UPG-081",
            "HTTP has no mask, and what has no mask is neither answered nor closed: \
             preauth_unmasked, idle_unmasked_frame",
            upgraded([
                send(raw("another HTTP request", &b"GET /api/status HTTP/1.1\r\n\r\n"[..])),
                Step::Silence(secs(1)),
                Step::Alive,
            ]),
        ),
    ]
}

fn frames() -> Vec<Difference> {
    const UNMASKED: &str = "what has no mask is neither answered nor closed: preauth_unmasked, \
                            idle_unmasked_frame";
    const TEXT: &str = "a text message crashes the connection: preauth_text, preauth_text_empty, \
                        preauth_text_of_valid_auth, authed_text";
    const NO_LIMIT: &str = "there is no limit, and what is announced is waited for: \
                            size_declared_1TiB_no_payload";
    const NOT_LIMITED: &str = "there is no limit, and what cannot be decoded is said to be so: \
                               size_unknown_type_1MiB, size_fragmented_10MiB_of_64KiB";
    let waits = |sending: Sending| [send(sending), Step::Silence(secs(1)), Step::Alive];
    let beginning = |length: [u8; 8]| {
        let frame = [&[0x82, 0xff][..], &length, &[0; 4], b"the beginning"].concat();
        raw("the beginning of a large frame", frame)
    };
    let undecodable = |sending: Sending| {
        upgraded([send(sending), expect(error(Internal)), ends(closed(1007)), Step::Alive])
    };
    let one_mebibyte = || binary("a message of 1 MiB", vec![0xff; 1024 * 1024]);
    vec![
        Difference::script("SAT-FRM-030", UNMASKED, upgraded(waits(authenticate(1).unmasked()))),
        Difference::script(
            "SAT-FRM-031",
            UNMASKED,
            upgraded(waits(raw("a ping without a mask", &b"\x89\x03abc"[..]))),
        ),
        Difference::script(
            "SAT-FRM-034",
            UNMASKED,
            authenticated(waits(call(2, start()).unmasked())),
        ),
        Difference::end("SAT-FRM-040", TEXT, closed(1011)),
        Difference::end("SAT-FRM-041", TEXT, closed(1011)),
        Difference::end("SAT-FRM-042", TEXT, closed(1011)),
        Difference::end("SAT-FRM-044", TEXT, closed(1011)),
        Difference::end("SAT-FRM-045", TEXT, closed(1011)),
        Difference::script(
            "SAT-FRM-051",
            NO_LIMIT,
            upgraded(waits(beginning([0x80, 0, 0, 0, 0, 0, 0, 1]))),
        ),
        Difference::script(
            "SAT-FRM-052",
            NO_LIMIT,
            upgraded(waits(beginning([0, 0, 1, 0, 0, 0, 0, 0]))),
        ),
        Difference::script("SAT-FRM-053", NOT_LIMITED, undecodable(one_mebibyte())),
        Difference::script(
            "SAT-FRM-054",
            NOT_LIMITED,
            undecodable(one_mebibyte().in_fragments_of(4096)),
        ),
        Difference::script(
            "SAT-FRM-057",
            NO_LIMIT,
            authenticated(waits(beginning([0, 0, 1, 0, 0, 0, 0, 0]))),
        ),
        Difference::end(
            "SAT-FRM-076",
            "a close is answered with 1000, whatever its code: preauth_close_4000",
            closed(1000),
        ),
    ]
}

fn keepalive() -> Vec<Difference> {
    const NO_DEADLINE: &str = "who answers pings has all the time there is to authenticate: \
                               idle_preauth_pong";
    const DEAD: &str = "the close says 1005, which must not be sent: idle_preauth_no_pong, \
                        idle_half_frame";
    let dead = || closed(1005).saying(NOT_RESPONDING).within(secs(70));
    let waits = || upgraded([Step::Silence(secs(15)), ends(open_still())]);
    vec![
        Difference::script("SAT-LIVE-003", NO_DEADLINE, waits()),
        Difference::script("SAT-LIVE-004", NO_DEADLINE, waits()),
        Difference::script(
            "SAT-LIVE-005",
            "half a frame ends the connection only because pongs behind it are not seen: \
             idle_half_frame",
            upgraded([
                send(raw("half a frame", &b"\x82\xfe\x01\xf4\0\0\0\0the beginning"[..])),
                Step::LeavePingsUnanswered,
                ends(dead()),
            ]),
        ),
        Difference::script(
            "SAT-LIVE-006",
            NO_DEADLINE,
            upgraded([
                send(frame("the first fragment of a message", 0x02, "x")),
                Step::Silence(secs(15)),
                ends(open_still()),
            ]),
        ),
        Difference::end("SAT-LIVE-011", DEAD, dead()),
        Difference::end("SAT-LIVE-014", DEAD, dead()),
    ]
}

fn duplicates() -> Vec<Difference> {
    const NOT_PINGED: &str = "the first connection is not pinged, and stays until it is missed: \
                              dup_stays_second, dup_stays_other_user_second";
    ["SAT-DUP-020", "SAT-DUP-021", "SAT-DUP-023"]
        .into_iter()
        .map(|id| {
            let script = authenticated([
                Step::LeavePingsUnanswered,
                open(),
                send(authenticate(1).with_token(token())),
                expect(refused("authenticate", 1, InvalidRequest)),
                ends(closed(1007)),
                Step::On(1),
                ends(open_still()),
            ]);
            Difference::script(id, NOT_PINGED, script)
        })
        .collect()
}

fn hostile() -> Vec<Difference> {
    vec![Difference::script(
        "SAT-HOST-001",
        "what is no HTTP has no answer, and the connection stays open: http_garbage_line",
        vec![
            Step::Dial,
            send(raw(
                "the beginning of a TLS handshake",
                &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n"[..],
            )),
            Step::Silence(secs(1)),
            Step::Alive,
        ],
    )]
}
