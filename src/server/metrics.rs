//! What a server counts; the names are in the documentation of [`super`].

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::session::End;

use super::AcceptError;

/// Counts a connection while it has not been authenticated, and then what became of it: once,
/// whatever that is.
pub(super) struct Handshake {
    /// Why the client is not authenticated, unless it is.
    refused: Option<&'static str>,
}

impl Handshake {
    pub(super) fn begins() -> Handshake {
        counter!("satellite_connections_accepted_total").increment(1);
        gauge!("satellite_handshakes").increment(1);
        Handshake { refused: Some("dropped") }
    }

    /// The connection comes no further, for this reason.
    pub(super) fn refused(&mut self, error: &AcceptError) {
        self.refused = Some(error.name());
    }

    /// The same, if it is an error.
    pub(super) fn judged<T>(&mut self, result: Result<T, AcceptError>) -> Result<T, AcceptError> {
        result.inspect_err(|error| self.refused(error))
    }

    /// The client is authenticated, and its connection lives from now on.
    pub(super) fn authenticated(mut self, took: Duration, method: &'static str) -> Living {
        self.refused = None;
        histogram!("satellite_handshake_seconds", "phase" => "authentication", "method" => method)
            .record(took);
        counter!("satellite_authenticated_total", "method" => method).increment(1);
        gauge!("satellite_connections").increment(1);
        Living(())
    }
}

impl Drop for Handshake {
    /// Whoever sees the gauge fall sees what is counted here.
    fn drop(&mut self) {
        if let Some(reason) = self.refused {
            counter!("satellite_connections_refused_total", "reason" => reason).increment(1);
        }
        gauge!("satellite_handshakes").decrement(1);
    }
}

pub(super) fn limit_hit(limit: &'static str) {
    counter!("satellite_limits_hit_total", "limit" => limit).increment(1);
}

pub(super) fn accept_failed() {
    counter!("satellite_accept_errors_total").increment(1);
}

pub(super) fn upgraded(took: Duration) {
    histogram!("satellite_handshake_seconds", "phase" => "upgrade", "method" => "").record(took);
}

/// Counts an authenticated connection while it lives.
pub(super) struct Living(());

impl Drop for Living {
    fn drop(&mut self) {
        gauge!("satellite_connections").decrement(1);
    }
}

pub(super) fn ended(end: &End) {
    let code = end.close.as_ref().map_or("none".to_owned(), |close| close.code.to_string());
    counter!("satellite_closes_total", "code" => code).increment(1);
}
