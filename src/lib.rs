//! The Satellite protocol of ElectricSQL: authenticated replication sessions over WebSocket.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod auth;
pub mod session;
pub mod wire;
