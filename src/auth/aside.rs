//! Verifications that take so long that everybody else would wait for them.

use std::{sync::Arc, thread::available_parallelism};

use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking};

/// Runs such work beside the runtime's own threads: as much at the same time as there are
/// processors, for more of it would only make all of it slower. The rest waits in the order in which
/// it came.
#[derive(Debug)]
pub(super) struct Aside(Arc<Semaphore>);

impl Aside {
    pub(super) fn new() -> Aside {
        Aside(Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))))
    }

    /// What comes of the work; nothing if it panics. Where no Tokio runtime is, it is done at once.
    ///
    /// If this is dropped, the work is not begun; what is begun is done, and counts until then.
    pub(super) async fn run<T>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T>
    where
        T: Send + 'static,
    {
        if Handle::try_current().is_err() {
            return Some(work());
        }
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        spawn_blocking(work).await.ok()
    }
}
