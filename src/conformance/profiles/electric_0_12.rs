//! Electric 0.12, as recorded from 0.12.1.

use serde_json::{Value, json};

use crate::{
    conformance::{
        cases::handshake::authenticated_and,
        profiles::{Difference, Profile},
        script::*,
        token,
    },
    wire::{
        Method, Version,
        proto::{
            SatInStartReplicationResp, SatOpLogAck, SatUnsubsDataBegin, SatUnsubsDataEnd,
            sat_error_resp::ErrorCode::{Internal, InvalidRequest},
        },
    },
};

use super::{
    electric,
    originals::{self, before, crashes, crashes_on, refuses},
};

pub(super) fn profile() -> Profile {
    Profile {
        name: "electric-0.12",
        about: "the original sync service, release 0.12.1, quirks included",
        version: Version::V0_12,
        differences: [wire_level(), calls()].concat(),
    }
}

/// Upgrade, frames, keepalive, duplicates and hostile input.
fn wire_level() -> Vec<Difference> {
    const TOO_OLD: &str = "versions below 0.10 are refused: http_proto_electric_0_8";
    let older = [
        (
            "SAT-UPG-004",
            "electric.0.9",
            "Cannot connect satellite version 0.9.0: this server requires >= 0.10.0 and <= 0.12.1",
        ),
        (
            "SAT-UPG-005",
            "electric.0.8",
            "Cannot connect satellite version 0.8.0: this server requires >= 0.10.0 and <= 0.12.1",
        ),
        (
            "SAT-UPG-006",
            "electric.0.7",
            "Cannot connect satellite version 0.7.0: this server requires >= 0.10.0 and <= 0.12.1",
        ),
        (
            "SAT-UPG-007",
            "electric.0.6",
            "Cannot connect satellite version 0.6.0: this server requires >= 0.10.0 and <= 0.12.1",
        ),
    ];
    let older = older.into_iter().map(|(id, offer, body)| {
        Difference::script(id, TOO_OLD, electric::is_refused(offer, body))
    });
    electric::wire_level().into_iter().chain(older).collect()
}

/// What is different from authentication on.
fn calls() -> Vec<Difference> {
    [originals::differences(), handshake(), times(), renewals(), later()].concat()
}

fn handshake() -> Vec<Difference> {
    vec![
        Difference::script(
            "SAT-AUTH-016",
            "auth_insecure_id_nul: welcomed, then its database fails",
            [
                open(),
                send(authenticate(1).as_client(Id::Text("sat-auth-016\0x"))),
                expect(welcome(1)),
                expect(error(Internal)),
                ends(closed(1007)),
            ],
        ),
        Difference::script(
            "SAT-AUTH-039",
            "preauth_type_23: it crashes",
            before(SatOpLogAck::default(), crashes()),
        ),
        Difference::script(
            "SAT-AUTH-045",
            "preauth_type_24: INVALID_REQUEST",
            before(SatUnsubsDataBegin::default(), refuses()),
        ),
        Difference::script(
            "SAT-AUTH-046",
            "preauth_type_25: INVALID_REQUEST",
            before(SatUnsubsDataEnd::default(), refuses()),
        ),
    ]
}

fn times() -> Vec<Difference> {
    let crash = |id, reason, name, value| {
        Difference::script(id, reason, crashes_on(token().claim(name, value)))
    };
    const WRONG_TYPE: &str = "README: times of the wrong type crash it";
    vec![
        crash("SAT-TOK-092", "auth_hs256_exp_string: it crashes", "exp", json!("32503680000")),
        crash("SAT-TOK-093", "auth_insecure_exp_null: it crashes", "exp", Value::Null),
        crash("SAT-TOK-094", "auth_insecure_nbf_null: it crashes", "nbf", Value::Null),
        crash("SAT-TOK-095", "auth_hs256_iat_string: it crashes", "iat", json!("0")),
        crash("SAT-TOK-096", WRONG_TYPE, "exp", json!(true)),
        crash("SAT-TOK-097", WRONG_TYPE, "nbf", json!([0])),
    ]
}

fn renewals() -> Vec<Difference> {
    let other = |number| authenticate(number).with_token(token().of_user("somebody else"));
    vec![
        Difference::script(
            "SAT-REAUTH-001",
            "authed_again_same_user_other_token: it renews",
            authenticated_and([send(authenticate(2)), expect(welcome(2)), ends(open_still())]),
        ),
        Difference::script(
            "SAT-REAUTH-013",
            "authed_start_stop_start_stop: a bare INTERNAL follows the answer to stopReplication",
            authenticated_and([
                send(call(2, start())),
                expect(started(2)),
                send(call(3, stop())),
                expect(reply::<crate::wire::proto::SatInStopReplicationReq>(3)),
                expect(error(Internal)),
                send(other(4)),
                expect(refused("authenticate", 4, InvalidRequest)),
                ends(closed(1007)),
            ]),
        ),
        Difference::script(
            "SAT-REAUTH-015",
            "authed_again_same_token: it renews",
            authenticated_and([send(authenticate(1)), expect(welcome(1)), ends(open_still())]),
        ),
        Difference::script(
            "SAT-REAUTH-016",
            "authed_again_replied_first: it renews",
            authenticated_and([
                expect(called(Method::StartReplication)),
                send(answer(SatInStartReplicationResp::default())),
                send(authenticate(2)),
                expect(welcome(2)),
                ends(open_still()),
            ]),
        ),
        Difference::skip("SAT-REAUTH-018", "authed_again_same_user_other_token: it renews"),
    ]
}

fn later() -> Vec<Difference> {
    const VERSIONS: &str = "http: 0.12.1 speaks 0.10 to 0.12";
    vec![
        Difference::skip("SAT-START-007", VERSIONS),
        Difference::skip("SAT-START-008", VERSIONS),
        Difference::script(
            "SAT-SUB-015",
            "authed_unsubscribe_unknown: it crashes before replication has started",
            authenticated_and(
                [
                    vec![send(call(2, unsubscribe("5db97751-8ee3-441a-8ed3-cb6c19231ae7")))],
                    crashes().to_vec(),
                ]
                .concat(),
            ),
        ),
    ]
}
