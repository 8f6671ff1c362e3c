//! The cases, by subject.

mod calls;
mod client_handshake;
pub(super) mod handshake;
pub(super) mod reauth;
pub(super) mod start;
pub(super) mod stream;
mod subscriptions;
pub(super) mod tokens;

use super::Case;

/// What is asked of a server, in the order of the specification.
pub fn server_cases() -> Vec<Case> {
    [
        calls::cases(),
        handshake::cases(),
        tokens::cases(),
        reauth::cases(),
        start::cases(),
        subscriptions::cases(),
        stream::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is asked of a client, in the order of the specification.
pub fn client_cases() -> Vec<Case> {
    [client_handshake::cases()].into_iter().flatten().collect()
}
