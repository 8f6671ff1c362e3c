//! The handshake of a client.

use crate::{
    conformance::{Case, must, script::*},
    wire::{
        Method, Request,
        proto::{SatAuthResp, SatInStartReplicationResp},
    },
};

/// The client authenticates and starts replication, and the suite answers as it should.
pub(super) fn in_replication() -> Vec<Step> {
    vec![
        accept(),
        expect(called(Method::Authenticate)),
        send(answer(SatAuthResp { id: "the suite".into(), ..Default::default() })),
        expect(called(Method::StartReplication)),
        send(answer(SatInStartReplicationResp::default())),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        must(
            "SAT-C-AUTH-001",
            "A client MUST call `authenticate` first on every connection, with its client id and \
             a token.",
        )
        .from("H24; clients.md §2")
        .otherwise("The server closes the connection.")
        .script([
            accept(),
            expect(called_such(
                "authenticate with an id and a token",
                Method::Authenticate,
                |call| {
                    matches!(call, Request::Authenticate(request)
                    if !request.id.is_empty() && !request.token.is_empty())
                },
            )),
        ]),
        must(
            "SAT-C-START-001",
            "A client MUST start replication once it is authenticated, and stay.",
        )
        .from("S23")
        .otherwise("It never syncs.")
        .script(in_replication().into_iter().chain([Step::Silence(secs(1)), ends(open_still())])),
    ]
}
