//! What a server counts; the names are in the documentation of [`super`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{Key, Label, Level, Metadata, counter, gauge, histogram, with_recorder};

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
    pub(super) fn authenticated(mut self, took: Duration, by: &Method) -> Living {
        self.refused = None;
        with_recorder(|recorder| {
            recorder.register_histogram(&by.seconds, &METADATA).record(took);
            recorder.register_counter(&by.total, &METADATA).increment(1);
        });
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

/// What is counted of the clients that are authenticated in one way. Its keys are made once, for the
/// macros would make them, and allocate, for every client.
pub(super) struct Method {
    name: &'static str,
    seconds: Key,
    total: Key,
}

/// The way in which the last client was authenticated: nearly always that of the next.
#[derive(Default)]
pub(super) struct LastMethod(Mutex<Option<Arc<Method>>>);

impl LastMethod {
    /// What is counted of those who are authenticated so.
    pub(super) fn is(&self, name: &'static str) -> Arc<Method> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let method = last.take().filter(|method| method.name == name).unwrap_or_else(|| {
            let label = Label::from_static_parts("method", name);
            let phase = Label::from_static_parts("phase", "authentication");
            Arc::new(Method {
                name,
                seconds: Key::from_parts("satellite_handshake_seconds", vec![phase, label.clone()]),
                total: Key::from_parts("satellite_authenticated_total", vec![label]),
            })
        });
        Arc::clone(last.insert(method))
    }
}

/// What the macros say of a metric, too.
static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

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
