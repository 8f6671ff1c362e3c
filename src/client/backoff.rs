//! How long to wait between attempts to connect.

use std::time::Duration;

use crate::session::LONGEST;

/// The pauses between attempts: exponential, with full jitter, so that clients that lost the same
/// server do not come back together.
///
/// Before the first retry a client waits a random time up to [`initial`](Backoff::initial), before
/// each further one up to twice as long, and never longer than [`max`](Backoff::max). A hint of
/// the server (`Retry-After`, or the reason of its close) is added to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest pause before the first retry. 1 s.
    pub initial: Duration,
    /// The longest pause. 10 s.
    pub max: Duration,
    /// After how many failed attempts in a row the client gives up; never without. A connection
    /// that did not become stable counts as one. Never.
    pub attempts: Option<u32>,
    /// How long a connection must last to be stable: what follows is the first failure. 10 s.
    pub stable_after: Duration,
    /// How much of a server's hint is believed. 5 min.
    pub max_hint: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(10),
            attempts: None,
            stable_after: Duration::from_secs(10),
            max_hint: Duration::from_secs(5 * 60),
        }
    }
}

impl Backoff {
    /// The pause after so many failures in a row, at least one. `random` is from 0 to 1.
    pub(super) fn pause(&self, failures: u32, hint: Option<Duration>, random: f64) -> Duration {
        let doubled = self.initial.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let jitter = doubled.min(self.max).min(LONGEST).mul_f64(random.clamp(0.0, 1.0));
        hint.unwrap_or_default().min(self.max_hint).min(LONGEST) + jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_are_jittered_in_full() {
        let backoff = Backoff::default();
        let longest = |failures| backoff.pause(failures, None, 1.0);
        assert_eq!([1, 2, 3, 4, 5, 100].map(longest), [1, 2, 4, 8, 10, 10].map(|n| n * SECOND));
        assert_eq!(backoff.pause(3, None, 0.5), 2 * SECOND);
        assert_eq!(backoff.pause(100, None, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_hint_is_added_as_far_as_it_is_believed() {
        let backoff = Backoff::default();
        assert_eq!(backoff.pause(1, Some(5 * SECOND), 0.5), Duration::from_millis(5_500));
        assert_eq!(backoff.pause(1, Some(Duration::MAX), 0.0), backoff.max_hint);
    }

    #[test]
    fn no_configuration_and_no_hint_is_too_long_for_a_clock() {
        let long = Duration::MAX;
        let backoff = Backoff { initial: long, max: long, max_hint: long, ..Backoff::default() };
        let pause = backoff.pause(u32::MAX, Some(long), 1.0);
        assert!(std::time::Instant::now().checked_add(pause).is_some());
    }
}
