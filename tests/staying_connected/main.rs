//! A client that stays connected, in memory and in virtual time: against the server here, and
//! against services that go by a script.

#[path = "../common/mod.rs"]
mod common;
#[path = "../counted/mod.rs"]
mod counted;
#[path = "../network/mod.rs"]
mod network;
#[path = "../peers/mod.rs"]
mod peers;

mod lifecycle;
mod round_trips;
mod table;
mod tokens;
mod versions;
mod waits;
mod world;
