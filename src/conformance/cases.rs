//! The cases, by subject.

mod client_connection;
mod client_handshake;
mod client_replication;
mod client_subscriptions;
mod handshake;

use super::Case;

/// What is asked of a server, in the order of the specification.
pub fn server_cases() -> Vec<Case> {
    [handshake::cases()].into_iter().flatten().collect()
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
