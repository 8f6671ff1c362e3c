//! The cases, by subject.

mod client_handshake;
mod duplicates;
mod frames;
mod handshake;
mod hostile;
mod keepalive;
mod upgrade;

use super::Case;

pub(super) use frames::{authenticated, upgraded};

/// What is asked of a server, in the order of the specification.
pub fn server_cases() -> Vec<Case> {
    [
        upgrade::cases(),
        frames::cases(),
        handshake::cases(),
        duplicates::cases(),
        keepalive::cases(),
        hostile::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is asked of a client, in the order of the specification.
pub fn client_cases() -> Vec<Case> {
    [client_handshake::cases()].into_iter().flatten().collect()
}
