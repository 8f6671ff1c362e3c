//! Electric 0.7, as recorded from 0.7.1.

use serde_json::{Value, json};

use crate::{
    conformance::{
        cases::{handshake::authenticated_and, reauth, tokens::lets_in},
        profiles::{Difference, Profile},
        script::*,
        token,
    },
    wire::{
        Method, Version,
        proto::{
            SatInStartReplicationResp, SatInStopReplicationReq, sat_error_resp::ErrorCode::Internal,
        },
    },
};

use super::{
    electric,
    originals::{self, crashes, refuses_token},
};

pub(super) fn profile() -> Profile {
    Profile {
        name: "electric-0.7",
        about: "the original sync service, release 0.7.1, quirks included",
        version: Version::new(0, 7),
        differences: [wire_level(), calls()].concat(),
    }
}

/// Upgrade, frames, keepalive, duplicates and hostile input.
fn wire_level() -> Vec<Difference> {
    const TOO_NEW: &str = "versions above 0.7 are refused: http_proto_electric_0_8, \
                           http_proto_electric_0_13";
    let newer = [
        (
            "SAT-UPG-001",
            "electric.0.12",
            "Cannot connect satellite version 0.12.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
        (
            "SAT-UPG-002",
            "electric.0.11",
            "Cannot connect satellite version 0.11.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
        (
            "SAT-UPG-003",
            "electric.0.10",
            "Cannot connect satellite version 0.10.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
        (
            "SAT-UPG-004",
            "electric.0.9",
            "Cannot connect satellite version 0.9.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
        (
            "SAT-UPG-005",
            "electric.0.8",
            "Cannot connect satellite version 0.8.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
    ];
    let newer = newer.into_iter().map(|(id, offer, body)| {
        Difference::script(id, TOO_NEW, electric::is_refused(offer, body))
    });
    electric::wire_level().into_iter().chain(newer).collect()
}

/// What is different from authentication on.
fn calls() -> Vec<Difference> {
    [originals::differences(), handshake(), users(), times(), later_authentication()].concat()
}

fn handshake() -> Vec<Difference> {
    const NOT_LOOKED_AT: &str = "preauth_auth_id_not_utf8: it does not look whether text is UTF-8, \
                                 and no conversation with such a text is recorded";
    let welcomed = |sending| [open(), send(sending), expect(welcome(1)), ends(closed(1011))];
    vec![
        Difference::script(
            "SAT-AUTH-016",
            "auth_insecure_id_nul: welcomed, then it crashes",
            welcomed(authenticate(1).as_client(Id::Text("sat-auth-016\0x"))),
        ),
        Difference::script(
            "SAT-AUTH-031",
            "preauth_auth_id_not_utf8: welcomed, then it crashes",
            // The last client id counts.
            welcomed(
                authenticate(1).with_more_in_body("an id that is not UTF-8", b"\x0a\x02\xff\xfe"),
            ),
        ),
        Difference::skip("SAT-AUTH-032", NOT_LOOKED_AT),
        Difference::skip("SAT-RPC-012", NOT_LOOKED_AT),
        Difference::script(
            "SAT-RPC-025",
            "preauth_method_not_utf8: it repeats the method as it is",
            [
                open(),
                send(binary("a call whose method is ff fe", &b"\x15\x0a\x02\xff\xfe\x10\x07"[..])),
                expect(such(
                    "a response that is not UTF-8",
                    |incoming| matches!(incoming, Incoming::Undecodable(bytes) if bytes.first() == Some(&22)),
                )),
                ends(closed(1007)),
            ],
        ),
    ]
}

fn users() -> Vec<Difference> {
    vec![
        Difference::script(
            "SAT-TOK-063",
            "auth_hs256_sub_only: `user_id` is all it knows",
            lets_in(token().claim("sub", json!(""))),
        ),
        Difference::script(
            "SAT-TOK-064",
            "auth_hs256_sub_only: `user_id` is all it knows",
            refuses_token(token().without("user_id")),
        ),
    ]
}

fn times() -> Vec<Difference> {
    let strict = |id, reason, name, seconds| {
        Difference::script(id, reason, refuses_token(token().at(name, seconds)))
    };
    let never =
        |id, reason, value| Difference::script(id, reason, lets_in(token().claim("exp", value)));
    vec![
        strict(
            "SAT-TOK-086",
            "auth_hs256_iat_+1: it allows for no difference of clocks",
            "iat",
            5.0,
        ),
        strict(
            "SAT-TOK-087",
            "auth_hs256_nbf_+1: it allows for no difference of clocks",
            "nbf",
            5.0,
        ),
        strict(
            "SAT-TOK-088",
            "auth_hs256_exp_+0: it allows for no difference of clocks",
            "exp",
            0.0,
        ),
        never("SAT-TOK-092", "auth_hs256_exp_string: it never expires", json!("32503680000")),
        never("SAT-TOK-093", "auth_insecure_exp_null: it never expires", Value::Null),
        Difference::skip("SAT-TOK-096", "no conversation with such a time is recorded"),
    ]
}

fn later_authentication() -> Vec<Difference> {
    const CRASH: &str = "authed_again_same_token: any second `authenticate` crashes it";
    let crash = |case: crate::conformance::Case| match case.id {
        // What cannot be decoded is refused before.
        "SAT-REAUTH-011" => None,
        id @ "SAT-REAUTH-013" => {
            let steps = [
                send(call(2, start())),
                expect(started(2)),
                send(call(3, stop())),
                expect(reply::<SatInStopReplicationReq>(3)),
                expect(error(Internal)),
                send(authenticate(4)),
            ];
            Some(Difference::script(
                id,
                CRASH,
                authenticated_and(steps.into_iter().chain(crashes())),
            ))
        }
        id @ "SAT-REAUTH-016" => {
            let steps = [
                expect(called(Method::StartReplication)),
                send(answer(SatInStartReplicationResp::default())),
                send(authenticate(2)),
            ];
            let reason = "authed_again_replied_first: any second `authenticate` crashes it";
            Some(Difference::script(
                id,
                reason,
                authenticated_and(steps.into_iter().chain(crashes())),
            ))
        }
        id => Some(Difference::script(id, CRASH, case.script)),
    };
    reauth::cases_ending(|_| crashes()).into_iter().filter_map(crash).collect()
}
