//! The Satellite protocol of ElectricSQL: authenticated replication sessions over WebSocket.
//!
//! Three kinds of programs stand on this crate: sync services embed [`server`], applications
//! connect with [`client`], and tests of either drive [`session`] without any I/O. The path of
//! one auth request is the way to read it, and each module uses only those before it:
//!
//! | module | what it is |
//! |---|---|
//! | [`wire`] | frames, messages, calls, versions: bytes to types and back |
//! | [`session`] | the handshake and what follows, as state machines without I/O or clock |
//! | [`auth`] | the verdict on a token |
//! | [`registry`] | who is connected: one live connection per client id |
//! | [`transport`] | drives a session over a WebSocket; [`Connection`](transport::Connection) |
//! | [`server`] | upgrade, limits, authentication, accept loop, drain |
//! | [`client`] | connecting, staying connected, replicating |
//! | `conformance` | cases that any server or client can be held to (feature `conformance`) |
//!
//! A [`Connection`](transport::Connection) exists only once the handshake is over, and who is at
//! its other end does not change.
//!
//! # Features
//!
//! All are off by default. `tls` adds TLS to both sides, `jwks-http` key sets from a URL,
//! `conformance` the conformance suite, and `cli` the `satellite` binary.
//!
//! # Metrics
//!
//! Counters and histograms go to the [`metrics`](https://docs.rs/metrics) facade, for whoever
//! installs a recorder; [`server`] lists them.
//!
//! # Logging
//!
//! Events go to [`tracing`]; none holds a token or a value of a row. The WebSocket library below
//! logs whole payloads at trace level, tokens included, to the targets `tungstenite` and
//! `tokio_tungstenite`: keep those at debug or above.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
// The README's examples, compiled.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

pub mod auth;
pub mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod registry;
pub mod server;
pub mod session;
pub mod transport;
pub mod wire;
