//! The connections that live now, and the end of them all.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    auth::Revocations,
    session::{AuthenticatedClient, Cause, Close, LONGEST},
    transport::Handle,
};

use super::survive_call;

/// How a service stops.
///
/// ```
/// use std::time::Duration;
/// use electric_satellite::server::Drain;
///
/// let drain = Drain { grace: Duration::from_secs(30), ..Drain::default() };
/// assert_eq!(drain.spread, Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Over how long the connections are told to go, the oldest first, so that they do not all
    /// come back at once. 2 s.
    pub spread: Duration,
    /// How long handlers may take to answer the calls that have arrived, from the beginning on.
    /// What is unanswered then is closed all the same. 10 s.
    pub grace: Duration,
    /// After how many seconds clients are told to come back, at the earliest. 5.
    pub retry_after: u32,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain { spread: Duration::from_secs(2), grace: Duration::from_secs(10), retry_after: 5 }
    }
}

/// What a server knows of its connections.
///
/// The table and the count change under one lock. Whoever does something to all connections (a drain,
/// a revocation) first makes it known and then looks at the table; a connection first enters the table
/// and then looks at what is known (`look_again` in [`super`]). The lock orders the two: either the one
/// finds the connection in the table, or the other finds what has been made known. Connections are
/// ended outside of the lock.
#[derive(Default)]
pub(super) struct LiveConnections {
    /// In the order in which they came.
    table: Mutex<BTreeMap<u64, Handle<AuthenticatedClient>>>,
    count: watch::Sender<usize>,
    /// Handshakes and handlers that go on.
    busy: AtomicUsize,
    /// None of them does any more.
    idle: Notify,
    next: AtomicU64,
}

/// A connection's entry, as long as the connection lives.
pub(super) struct Entry {
    live: Arc<LiveConnections>,
    key: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.live.change(|table| drop(table.remove(&self.key)));
    }
}

/// Something that a service should not stop in the middle of.
pub(super) struct Busy(Arc<LiveConnections>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// How a connection is closed because the service stops.
pub(super) fn stopping(retry_after: u32) -> Close {
    Close { code: 1001, reason: format!("Service stops, retry after {retry_after} s").into() }
}

/// Ends a connection whose identity is revoked, and one of which that cannot be told. Clients from
/// 0.9.4 on take the first close for an expired token, and stay away until they have another.
pub(super) fn end_if_revoked(
    connection: &Handle<AuthenticatedClient>,
    revocations: &dyn Revocations,
) {
    let identity = connection.peer().verified.identity();
    let tell = || tracing::error!("the revocation list panicked");
    match survive_call(|| revocations.is_revoked(identity), tell) {
        Some(false) => {}
        Some(true) => connection.end(None, Close::EXPIRED, Cause::Revoked),
        None => connection.end(None, Close::INTERNAL, Cause::Panicked),
    }
}

impl LiveConnections {
    /// Takes note of a handshake or a handler, as long as it goes on.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    pub(super) fn enter(self: &Arc<Self>, connection: Handle<AuthenticatedClient>) -> Entry {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.change(|table| drop(table.insert(key, connection)));
        Entry { live: Arc::clone(self), key }
    }

    /// How many there are, now and whenever that changes.
    pub(super) fn count(&self) -> watch::Receiver<usize> {
        let table = self.lock();
        self.count.send_replace(table.len());
        self.count.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, Handle<AuthenticatedClient>>)) {
        let mut table = self.lock();
        change(&mut table);
        // Mostly nobody wants to know, and telling has its price.
        if self.count.receiver_count() > 0 {
            self.count.send_replace(table.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Handle<AuthenticatedClient>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who have been there for longest come first.
    fn all(&self) -> Vec<Handle<AuthenticatedClient>> {
        self.lock().values().cloned().collect()
    }

    /// Closes the connections whose identity is revoked, now and whenever more is, for ever.
    pub(super) async fn enforce(&self, revocations: Arc<dyn Revocations>) {
        let mut changes = revocations.changes();
        loop {
            for connection in self.all() {
                end_if_revoked(&connection, &*revocations);
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends all connections, and waits for their handlers. New ones must not come.
    pub(super) async fn drain(&self, Drain { spread, grace, retry_after }: Drain) {
        let close = stopping(retry_after);
        let deadline = Instant::now() + grace.max(spread).min(LONGEST);
        let tell_all = async {
            let connections = self.all();
            let pause = spread / u32::try_from(connections.len().max(1)).unwrap_or(u32::MAX);
            for (nth, connection) in connections.into_iter().enumerate() {
                if nth > 0 {
                    sleep(pause).await;
                }
                connection.drain(close.clone());
            }
            self.all_gone().await;
        };
        if timeout_at(deadline, tell_all).await.is_err() {
            for connection in self.all() {
                connection.end(None, close.clone(), Cause::Drained);
            }
            self.all_gone().await;
        }
        // Handlers that have lost their connection, and the last words to who was not let in.
        let _ = timeout_at(deadline, self.idle()).await;
    }

    async fn idle(&self) {
        loop {
            // Before the look, so that what happens between the two is not missed.
            let idle = self.idle.notified();
            if self.busy.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    async fn all_gone(&self) {
        // The sender is here, so it is not closed.
        let _ = self.count().wait_for(|count| *count == 0).await;
    }
}
