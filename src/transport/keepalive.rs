//! Whether the peer is still there: pings with a deadline, without a clock.

use std::time::Instant;

use super::Limits;

/// When a silent peer is pinged, and when it counts as gone.
#[derive(Debug)]
pub(super) struct Keepalive {
    heard: Instant,
    pinged: Option<Instant>,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    /// It has been pinged and was not heard in time.
    Dead,
}

impl Keepalive {
    pub(super) fn new(now: Instant) -> Keepalive {
        Keepalive { heard: now, pinged: None }
    }

    /// When the peer was heard last, or was not listened to.
    pub(super) fn last_heard(&self) -> Instant {
        self.heard
    }

    /// The peer was heard, or is not listened to.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// A ping is sent out of turn. Returns whether it is the one whose answer is waited for: if not,
    /// an earlier one is.
    pub(super) fn ping_now(&mut self, now: Instant) -> bool {
        let first = self.pinged.is_none();
        self.pinged.get_or_insert(now);
        first
    }

    /// A ping that has been sent has not left yet.
    pub(super) fn delayed(&mut self, now: Instant) {
        self.pinged = self.pinged.map(|_| now);
    }

    pub(super) fn due(&mut self, now: Instant, limits: &Limits) -> Due {
        if self.deadline(limits).is_none_or(|deadline| now < deadline) {
            return Due::Nothing;
        }
        match self.pinged {
            Some(_) => Due::Dead,
            None => {
                self.pinged = Some(now);
                Due::Ping
            }
        }
    }

    /// When something is due, if the peer stays silent.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        match self.pinged {
            Some(pinged) => Some(pinged + limits.ping_timeout),
            None => limits.ping_interval.map(|interval| self.heard + interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(ping_interval: Option<Duration>) -> Limits {
        Limits { ping_interval, ping_timeout: 5 * SECOND, ..Limits::default() }
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_counts_as_gone() {
        let start = Instant::now();
        let limits = limits(Some(20 * SECOND));
        let mut keepalive = Keepalive::new(start);
        assert_eq!(keepalive.due(start + 19 * SECOND, &limits), Due::Nothing);
        assert_eq!(keepalive.due(start + 20 * SECOND, &limits), Due::Ping);
        assert_eq!(keepalive.due(start + 24 * SECOND, &limits), Due::Nothing);
        assert_eq!(keepalive.due(start + 25 * SECOND, &limits), Due::Dead);
    }

    #[test]
    fn a_peer_that_is_heard_is_left_alone() {
        let start = Instant::now();
        let limits = limits(Some(20 * SECOND));
        let mut keepalive = Keepalive::new(start);
        assert_eq!(keepalive.due(start + 20 * SECOND, &limits), Due::Ping);
        keepalive.heard(start + 21 * SECOND);
        assert_eq!(keepalive.due(start + 40 * SECOND, &limits), Due::Nothing);
        assert_eq!(keepalive.deadline(&limits), Some(start + 41 * SECOND));
    }

    #[test]
    fn without_an_interval_only_pings_out_of_turn_have_a_deadline() {
        let start = Instant::now();
        let limits = limits(None);
        let mut keepalive = Keepalive::new(start);
        assert_eq!(keepalive.deadline(&limits), None);
        assert!(keepalive.ping_now(start));
        assert!(!keepalive.ping_now(start + SECOND));
        assert_eq!(keepalive.due(start + 5 * SECOND, &limits), Due::Dead);
    }
}
