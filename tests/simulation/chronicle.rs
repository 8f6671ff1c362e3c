//! What happens in a simulation, and what of it must not.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::time::Instant;

/// Told by everybody, in the order in which it happens. Clones are the same.
#[derive(Clone)]
pub(crate) struct Chronicle(Arc<Mutex<Told>>);

struct Told {
    began: Instant,
    events: Vec<String>,
    wrong: Vec<String>,
}

impl Chronicle {
    /// Begins now.
    pub(crate) fn new() -> Chronicle {
        let told = Told { began: Instant::now(), events: vec![], wrong: vec![] };
        Chronicle(Arc::new(Mutex::new(told)))
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().expect("no panic")
    }

    pub(crate) fn tell(&self, what: impl fmt::Display) {
        let told = &mut *self.lock();
        told.events.push(format!("{:>7} ms  {what}", told.began.elapsed().as_millis()));
    }

    /// Something must never happen, and has.
    pub(crate) fn wrong(&self, what: impl fmt::Display) {
        self.tell(format!("WRONG: {what}"));
        self.lock().wrong.push(what.to_string());
    }

    /// Everything that was told, and what of it was wrong.
    pub(crate) fn end(&self) -> (Vec<String>, Vec<String>) {
        let told = &mut *self.lock();
        (std::mem::take(&mut told.events), std::mem::take(&mut told.wrong))
    }
}
