//! The handshake: `authenticate`, and what comes before and instead of it.

use crate::{
    conformance::{Case, Need, must, script::*, token},
    wire::proto::sat_error_resp::ErrorCode::AuthRequired,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        must(
            "SAT-AUTH-001",
            "A server MUST answer the first `authenticate` that presents a client id and a good \
             token with a SatAuthResp that carries its own id.",
        )
        .from("H02; auth_insecure_none_user_id")
        .otherwise("No client gets in.")
        .script([open(), send(authenticate(1)), expect(welcome(1)), ends(open_still())]),
        must(
            "SAT-AUTH-002",
            "A server MUST answer a token that does not verify with AUTH_REQUIRED, and close the \
             connection with 1007.",
        )
        .from("H06; auth_hs256_wrong_signature")
        .otherwise("Whoever can write a token gets in.")
        .needs(Need::SecureMode)
        .script([
            open(),
            send(authenticate(1).with_token(token().with_other_signature())),
            expect(refused("authenticate", 1, AuthRequired)),
            ends(closed(1007)),
            Step::Alive,
        ]),
        must(
            "SAT-AUTH-003",
            "A server MUST answer every call but `authenticate` with AUTH_REQUIRED before \
             authentication, and close the connection with 1007.",
        )
        .from("H05; preauth_startReplication")
        .otherwise("Data of others can be had without a token.")
        .script([
            open(),
            send(call(1, start())),
            expect(refused("startReplication", 1, AuthRequired)),
            ends(closed(1007)),
        ]),
    ]
}
