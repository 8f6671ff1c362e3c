//! Fuzz targets: functions of bytes that panic when a promise of the crate is broken.
//!
//! `fuzz_targets/` hands them to libFuzzer, `examples/smoke.rs` runs them without it, and
//! `examples/seed.rs` makes what they begin with. README.md says what each of them asserts.

mod choices;
pub mod claims;
pub mod client_session;
pub mod differential;
pub mod frames;
mod keyring;
pub mod keys;
pub mod messages;
pub mod revocations;
mod said;
mod served;
pub mod server_session;
pub mod subprotocols;
pub mod token;
pub mod upgrade_head;

/// A target: its name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("upgrade_head", upgrade_head::check),
    ("subprotocols", subprotocols::check),
    ("frames", frames::check),
    ("messages", messages::check),
    ("token", token::check),
    ("claims", claims::check),
    ("differential", differential::check),
    ("server_session", server_session::check),
    ("client_session", client_session::check),
    ("keys", keys::check),
    ("revocations", revocations::check),
];
