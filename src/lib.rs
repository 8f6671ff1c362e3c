//! The Satellite protocol of ElectricSQL: authenticated replication sessions over WebSocket.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod auth;
pub mod client;
pub mod server;
pub mod session;
pub mod transport;
pub mod wire;
