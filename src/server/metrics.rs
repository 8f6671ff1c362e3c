//! What a server counts; the names are in the documentation of [`super`].

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::session::End;

/// Counts a connection while it has not been authenticated.
pub(super) struct Handshake(());

impl Handshake {
    pub(super) fn begins() -> Handshake {
        counter!("satellite_connections_accepted_total").increment(1);
        gauge!("satellite_handshakes").increment(1);
        Handshake(())
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        gauge!("satellite_handshakes").decrement(1);
    }
}

pub(super) fn limit_hit(limit: &'static str) {
    counter!("satellite_limits_hit_total", "limit" => limit).increment(1);
}

pub(super) fn refused(reason: &'static str) {
    counter!("satellite_connections_refused_total", "reason" => reason).increment(1);
}

pub(super) fn upgraded(took: Duration) {
    histogram!("satellite_handshake_seconds", "phase" => "upgrade", "method" => "").record(took);
}

pub(super) fn authenticated(took: Duration, method: &'static str) {
    histogram!("satellite_handshake_seconds", "phase" => "authentication", "method" => method)
        .record(took);
    counter!("satellite_authenticated_total", "method" => method).increment(1);
}

/// Counts an authenticated connection while it lives.
pub(super) struct Living(());

impl Living {
    pub(super) fn begins() -> Living {
        gauge!("satellite_connections").increment(1);
        Living(())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        gauge!("satellite_connections").decrement(1);
    }
}

pub(super) fn ended(end: &End) {
    let code = end.close.as_ref().map_or("none".to_owned(), |close| close.code.to_string());
    counter!("satellite_closes_total", "code" => code).increment(1);
}
