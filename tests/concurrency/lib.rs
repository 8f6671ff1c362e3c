//! Registry, replay guard and revocation list under [loom](https://docs.rs/loom): each test runs
//! for every order in which its threads can take the locks and see the atomics of the real code.
//!
//! Loom knows `std`'s locks and atomics, and stands in for them. Of `tokio` the files use little,
//! which is modelled here by locks: what notifies and is waited for, and a clock that goes on when a
//! test says so. So a wait ends at any moment that the clock's thread may have.
#![cfg(test)]

mod registry_tests;
mod replay_tests;
mod revocation_tests;

#[allow(dead_code, unreachable_pub, clippy::all)]
mod registry {
    include!(concat!(env!("OUT_DIR"), "/registry.rs"));
}

#[allow(dead_code, unreachable_pub, clippy::all)]
mod replay {
    include!(concat!(env!("OUT_DIR"), "/replay.rs"));
}

#[allow(dead_code, unreachable_pub, clippy::all)]
mod revocation {
    include!(concat!(env!("OUT_DIR"), "/revocation.rs"));
}

mod session {
    pub(crate) use electric_satellite::session::*;
    pub(crate) const LONGEST: std::time::Duration = std::time::Duration::MAX;
}

mod std {
    pub(crate) use ::std::*;

    pub(crate) mod sync {
        pub(crate) use ::std::sync::PoisonError;
        pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, RwLock, atomic};
    }
}

/// What the files use of tokio, as its documentation has it.
#[allow(dead_code)]
mod tokio {
    pub(crate) mod sync {
        use std::{
            future::{Future, poll_fn},
            mem,
            task::{Poll, Waker},
        };

        use loom::sync::Mutex;

        /// What is waited for, and who waits.
        #[derive(Debug, Default)]
        struct Waited<T> {
            value: T,
            wakers: Vec<Waker>,
        }

        impl<T> Waited<T> {
            fn wake(&mut self) {
                mem::take(&mut self.wakers).into_iter().for_each(Waker::wake);
            }
        }

        fn wait<T, O>(
            waited: &Mutex<Waited<T>>,
            mut look: impl FnMut(&mut T) -> Option<O>,
        ) -> impl Future<Output = O> {
            poll_fn(move |context| {
                let mut waited = waited.lock().unwrap();
                match look(&mut waited.value) {
                    Some(output) => Poll::Ready(output),
                    None => {
                        waited.wakers.push(context.waker().clone());
                        Poll::Pending
                    }
                }
            })
        }

        /// Holds one permit.
        #[derive(Debug, Default)]
        pub(crate) struct Notify(Mutex<Waited<bool>>);

        impl Notify {
            pub(crate) fn notify_one(&self) {
                let mut waited = self.0.lock().unwrap();
                waited.value = true;
                waited.wake();
            }

            pub(crate) async fn notified(&self) {
                wait(&self.0, |permit| mem::take(permit).then_some(())).await;
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct SetOnce<T>(Mutex<Waited<Option<T>>>);

        impl<T: Copy> SetOnce<T> {
            pub(crate) fn set(&self, value: T) -> Result<(), T> {
                let mut waited = self.0.lock().unwrap();
                if waited.value.is_some() {
                    return Err(value);
                }
                waited.value = Some(value);
                waited.wake();
                Ok(())
            }

            pub(crate) async fn wait(&self) -> T {
                wait(&self.0, |value| *value).await
            }
        }

        pub(crate) mod watch {
            use loom::sync::{Arc, Mutex};

            use super::{Waited, wait};

            type Shared<T> = Arc<Mutex<Waited<(u64, T)>>>;

            #[derive(Debug)]
            pub(crate) struct Sender<T>(Shared<T>);

            pub(crate) struct Receiver<T> {
                shared: Shared<T>,
                seen: u64,
            }

            impl<T> Sender<T> {
                pub(crate) fn new(value: T) -> Sender<T> {
                    Sender(Arc::new(Mutex::new(Waited { value: (0, value), wakers: vec![] })))
                }

                pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
                    let mut waited = self.0.lock().unwrap();
                    change(&mut waited.value.1);
                    waited.value.0 += 1;
                    waited.wake();
                }

                pub(crate) fn subscribe(&self) -> Receiver<T> {
                    let seen = self.0.lock().unwrap().value.0;
                    Receiver { shared: Arc::clone(&self.0), seen }
                }
            }

            impl<T> Receiver<T> {
                pub(crate) async fn changed(&mut self) {
                    let seen = self.seen;
                    let newer = |(version, _): &mut (u64, T)| (*version > seen).then_some(*version);
                    self.seen = wait(&self.shared, newer).await;
                }
            }
        }
    }

    pub(crate) mod time {
        use std::{
            future::{Future, poll_fn},
            mem,
            ops::Add,
            pin::pin,
            task::{Poll, Waker},
            time::Duration,
        };

        use loom::sync::Mutex;

        loom::lazy_static! {
            /// How many waits have passed, and who waits for the next.
            static ref CLOCK: Mutex<(u64, Vec<Waker>)> = Mutex::new((0, vec![]));
        }

        /// Lets so much time pass that every wait that has begun is over.
        pub(crate) fn pass() {
            set(|now| now + 1);
        }

        /// From now on every wait is over when it begins.
        pub(crate) fn run_out() {
            set(|_| u64::MAX);
        }

        fn set(time: impl FnOnce(u64) -> u64) {
            let mut clock = CLOCK.lock().unwrap();
            clock.0 = time(clock.0);
            mem::take(&mut clock.1).into_iter().for_each(Waker::wake);
        }

        #[derive(Clone, Copy)]
        pub(crate) struct Instant(u64);

        impl Instant {
            pub(crate) fn now() -> Instant {
                Instant(CLOCK.lock().unwrap().0)
            }
        }

        impl Add<Duration> for Instant {
            type Output = Instant;

            fn add(self, _: Duration) -> Instant {
                Instant(self.0.saturating_add(1))
            }
        }

        pub(crate) async fn timeout_at<F: Future>(
            Instant(deadline): Instant,
            future: F,
        ) -> Result<F::Output, ()> {
            let mut future = pin!(future);
            poll_fn(|context| {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    return Poll::Ready(Ok(output));
                }
                let mut clock = CLOCK.lock().unwrap();
                if clock.0 >= deadline {
                    return Poll::Ready(Err(()));
                }
                clock.1.push(context.waker().clone());
                Poll::Pending
            })
            .await
        }
    }
}

/// Explores all orders, and says how many there were.
fn explore(name: &str, test: impl Fn() + Sync + Send + 'static) {
    use ::std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    let (orders, began) = (Arc::new(AtomicUsize::new(0)), ::std::time::Instant::now());
    let counted = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions();
    // Threads that wait for each other by looking again and again do not end.
    builder.max_branches = 2_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        test();
    });
    println!("{name:<72}{:>9} orders {:>8.1?}", orders.load(Ordering::Relaxed), began.elapsed());
}

/// How often a thread may be interrupted in one order, where it could go on: all that is known of
/// real faults needs two or three. `LOOM_MAX_PREEMPTIONS` says otherwise; 0 for no bound.
fn preemptions() -> Option<usize> {
    let set = ::std::env::var("LOOM_MAX_PREEMPTIONS").ok();
    Some(set.map_or(3, |it| it.parse().expect("a number"))).filter(|bound| *bound > 0)
}
