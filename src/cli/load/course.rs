//! The course of a run: what begins when, and what of it counts.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::tally::{Laps, Phase};

/// When it counts, when it ends, and what sets the pace.
pub(super) struct Course {
    counts_from: Instant,
    ends: Instant,
    pace: Pace,
}

enum Pace {
    /// Each client begins when it is done with the last.
    Closed,
    /// What is due is due, whether the service keeps up or not.
    Open(Schedule),
}

/// When something was to begin, and when it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Turn {
    pub(super) due: Instant,
    pub(super) begun: Instant,
    /// Not part of the warm-up.
    pub(super) counts: bool,
}

/// How long a client waits after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// How late the last turns of a schedule may begin: timers are not exact.
const LATE: Duration = Duration::from_millis(10);

impl Course {
    /// Counts after the warm-up, for so long. With a rate, so many turns are due in each second of
    /// both.
    pub(super) fn new(
        now: Instant,
        warmup: Duration,
        duration: Duration,
        rate: Option<f64>,
    ) -> Course {
        let pace = match rate {
            None => Pace::Closed,
            Some(rate) => Pace::Open(Schedule::new(now, rate)),
        };
        let counts_from = now + warmup;
        Course { counts_from, ends: counts_from + duration, pace }
    }

    pub(super) fn counts_from(&self) -> Instant {
        self.counts_from
    }

    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    /// Whether there is a schedule.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.pace, Pace::Open(_))
    }

    /// What a client has of a turn when it begins.
    pub(super) fn laps(&self, turn: &Turn) -> Laps {
        let mut laps = Laps::default();
        if self.is_open() {
            laps.set(Phase::Wait, turn.begun - turn.due);
        }
        laps
    }

    /// After a failure, in a closed loop: a service that refuses at once is not to be asked again
    /// at once.
    pub(super) async fn pause(&self) {
        if !self.is_open() {
            sleep(PAUSE).await;
        }
    }

    /// Whether nothing begins any more.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    /// Waits until the client that asks is to begin again; nothing if it never is. What was due
    /// while every client was busy begins late, and stays due when it was.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let due = match &self.pace {
            Pace::Closed => Instant::now(),
            Pace::Open(schedule) => schedule.next(),
        };
        if due >= self.ends {
            return None;
        }
        let now = Instant::now();
        if due > now {
            sleep_until(due).await;
        } else if self.is_open() && now >= self.ends + LATE {
            return None;
        }
        if let Pace::Open(schedule) = &self.pace {
            schedule.begun.fetch_add(1, Ordering::Relaxed);
        }
        Some(Turn { due, begun: Instant::now(), counts: due >= self.counts_from })
    }

    /// How much time has counted.
    pub(super) fn measured(&self, now: Instant) -> Duration {
        now.min(self.ends).saturating_duration_since(self.counts_from)
    }

    /// How many were due and have not begun, once it has ended.
    pub(super) fn unbegun(&self) -> u64 {
        match &self.pace {
            Pace::Closed => 0,
            Pace::Open(schedule) => {
                let begun = schedule.begun.load(Ordering::Relaxed);
                schedule.due_before(self.ends).saturating_sub(begun)
            }
        }
    }
}

/// Turns at equal distances.
struct Schedule {
    start: Instant,
    rate: f64,
    given: AtomicU64,
    begun: AtomicU64,
}

impl Schedule {
    fn new(start: Instant, rate: f64) -> Schedule {
        Schedule { start, rate, given: AtomicU64::new(0), begun: AtomicU64::new(0) }
    }

    /// When the next turn is due. Each is given once.
    fn next(&self) -> Instant {
        self.due(self.given.fetch_add(1, Ordering::Relaxed))
    }

    fn due(&self, nth: u64) -> Instant {
        self.start + Duration::from_secs_f64(nth as f64 / self.rate)
    }

    fn due_before(&self, end: Instant) -> u64 {
        let about = (end - self.start).as_secs_f64() * self.rate;
        let mut turns = about.ceil() as u64;
        // As the turns themselves are rounded.
        while turns > 0 && self.due(turns - 1) >= end {
            turns -= 1;
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn course(rate: Option<f64>) -> Course {
        Course::new(Instant::now(), SECOND, 2 * SECOND, rate)
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_goes_on_at_once_until_the_end() {
        let course = course(None);
        let start = Instant::now();
        let turn = course.turn().await.unwrap();
        assert_eq!(turn, Turn { due: start, begun: start, counts: false });
        sleep(SECOND).await;
        assert!(course.turn().await.unwrap().counts);
        assert_eq!(course.measured(Instant::now()), Duration::ZERO);
        sleep(2 * SECOND).await;
        assert_eq!((course.turn().await, course.unbegun()), (None, 0));
        assert_eq!(course.measured(Instant::now() + SECOND), 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_keeps_to_its_schedule() {
        let course = course(Some(4.0));
        let start = Instant::now();
        let mut turns = vec![];
        while let Some(turn) = course.turn().await {
            assert_eq!(turn.due, turn.begun);
            turns.push((turn.due - start).as_millis());
        }
        assert_eq!(turns, (0..12).map(|nth| nth * 250).collect::<Vec<_>>());
        assert_eq!(course.unbegun(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_at_any_rate_are_counted_as_they_are_given() {
        for rate in [0.1, 0.5, 1.0, 3.0, 7.7, 1000.0 / 3.0, 2999.0] {
            let course = course(Some(rate));
            let mut given = 0;
            while course.turn().await.is_some() {
                given += 1;
            }
            let Pace::Open(schedule) = &course.pace else { unreachable!() };
            assert_eq!(schedule.due_before(course.ends), given, "{rate}");
        }
    }

    /// What a service does to so many clients that stands still for a second, once: the times from
    /// due and those from begun.
    async fn stalled(rate: Option<f64>) -> (Vec<Duration>, Vec<Duration>, u64) {
        let course = Arc::new(Course::new(Instant::now(), Duration::ZERO, 4 * SECOND, rate));
        let stall = Instant::now() + SECOND;
        let client = |course: Arc<Course>| async move {
            let mut times = vec![];
            while let Some(turn) = course.turn().await {
                sleep(MS).await;
                if Instant::now() >= stall && Instant::now() < stall + SECOND {
                    sleep_until(stall + SECOND).await;
                }
                times.push((turn.due.elapsed(), turn.begun.elapsed()));
            }
            times
        };
        let clients = [client(Arc::clone(&course)), client(Arc::clone(&course))];
        let times = futures_util::future::join_all(clients).await.concat();
        let unbegun = course.unbegun();
        let (due, begun) = times.into_iter().unzip();
        (due, begun, unbegun)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_not_hidden_from_what_was_due_in_it() {
        let slow = |times: &[Duration]| times.iter().filter(|time| **time > 100 * MS).count();
        let (due, begun, unbegun) = stalled(Some(100.0)).await;
        assert_eq!((due.len(), unbegun), (400, 0));
        // Two were under way; 95 of the 100 that were due in that second took over 100 ms with them.
        assert_eq!((slow(&begun), slow(&due)), (2, 95));
        let (due, begun, _) = stalled(None).await;
        assert_eq!((slow(&begun), slow(&due)), (2, 2), "in a closed loop nothing else was due");
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_begins_is_counted() {
        let course = course(Some(10.0));
        while course.turn().await.is_some() {
            sleep(2 * SECOND).await;
        }
        assert_eq!(course.unbegun(), 30 - 2);
    }
}
