//! The cases, by subject.

mod calls;
mod client_connection;
mod client_handshake;
mod client_replication;
mod client_subscriptions;
mod duplicates;
mod frames;
pub(super) mod handshake;
mod hostile;
mod keepalive;
pub(super) mod reauth;
pub(super) mod start;
pub(super) mod stream;
mod subscriptions;
pub(super) mod tokens;
mod upgrade;

use super::Case;

pub(super) use frames::{authenticated, upgraded};

/// What is asked of a server, in the order of the specification.
pub fn server_cases() -> Vec<Case> {
    [
        upgrade::cases(),
        frames::cases(),
        calls::cases(),
        handshake::cases(),
        tokens::cases(),
        reauth::cases(),
        duplicates::cases(),
        start::cases(),
        subscriptions::cases(),
        stream::cases(),
        keepalive::cases(),
        hostile::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is asked of a client, in the order of the specification.
pub fn client_cases() -> Vec<Case> {
    [
        client_handshake::cases(),
        client_replication::cases(),
        client_subscriptions::cases(),
        client_connection::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
