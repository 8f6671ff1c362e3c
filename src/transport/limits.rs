//! What a connection may take, and which limits make no sense.

use std::{fmt, time::Duration};

/// Every limit of a connection, on either side.
///
/// Not every value makes sense: a server for no connections refuses everybody, and a deadline of
/// nothing is always over. [`Limits::check`] tells, and servers and clients take no limits that it
/// refuses. A server's own limits are checked on a client too, where they mean nothing.
///
/// ```
/// use std::time::Duration;
/// use electric_satellite::transport::Limits;
///
/// let limits = Limits { auth_timeout: Duration::from_secs(5), ..Limits::default() };
/// assert_eq!(limits.max_message, 16 * 1024 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// How long the HTTP upgrade may take, from the first byte to the last. 10 s.
    pub upgrade_timeout: Duration,
    /// How long authentication may take, from the upgrade to the verdict. 10 s.
    pub auth_timeout: Duration,
    /// How long a peer may be silent before it is pinged; it is never pinged without. 20 s.
    pub ping_interval: Option<Duration>,
    /// How long a peer may take to answer a ping before it counts as gone. 20 s.
    pub ping_timeout: Duration,
    /// How long a peer may take nothing of what is sent to it before it counts as gone. 30 s.
    pub write_timeout: Duration,
    /// How long a connection may last after authentication; for ever without. For ever.
    pub max_session_age: Option<Duration>,
    /// How long a connection that is being closed may take to let the last words through. 2 s.
    pub close_timeout: Duration,
    /// Server only: how many connections there may be. 100,000.
    pub max_connections: usize,
    /// Server only: how many of them may be unauthenticated. 10,000.
    pub max_unauthenticated: usize,
    /// Server only: how many of those may come from one IPv4 address, or from one /64 of IPv6.
    /// 1,000.
    pub max_unauthenticated_per_address: usize,
    /// Server only: how many handshakes may begin in a second; any number without. Any number.
    pub handshakes_per_second: Option<u32>,
    /// Server only: how many authentications from one address may fail before it has to wait. It is
    /// told so, with 429, sixty times a second; its other connections are just closed, whatever they
    /// would ask for. A trusted proxy's are read all the same. From where more than one has failed,
    /// as many as half of the processors, rounded up, are authenticated at the same time, in all. 60.
    pub failed_auths: u32,
    /// Server only: how many of those are forgiven in a second; a fraction of one will do. 1.
    pub failed_auths_per_second: f64,
    /// The largest head of an HTTP request or of its answer, in bytes; at least 8192. 16 KiB.
    pub max_head: usize,
    /// The largest message before authentication, in bytes; no larger than any other. 64 KiB.
    pub max_message_before_auth: usize,
    /// The largest message, in bytes. 16 MiB.
    pub max_message: usize,
    /// How many received messages wait for the application before the socket is left alone. 16;
    /// 256 for a [`Limits::client`].
    pub max_unread_messages: usize,
    /// How many bytes of received messages wait for the application before the socket is left
    /// alone. 256 KiB, which a processor has in its cache.
    pub max_unread_bytes: usize,
    /// How many bytes wait for the socket before [`Sender::send`](super::Sender::send) waits too.
    /// 256 KiB.
    pub max_unsent_bytes: usize,
    /// The buffer that each connection reads through, in bytes: what an idle connection costs
    /// against what a busy one does. 1,000 bytes, which is 1 KiB with what an allocator adds; 16 KiB
    /// for a [`Limits::client`].
    pub read_buffer: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            upgrade_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(10),
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(30),
            max_session_age: None,
            close_timeout: Duration::from_secs(2),
            max_connections: 100_000,
            max_unauthenticated: 10_000,
            max_unauthenticated_per_address: 1_000,
            handshakes_per_second: None,
            failed_auths: 60,
            failed_auths_per_second: 1.0,
            max_head: 16 * 1024,
            max_message_before_auth: 64 * 1024,
            max_message: 16 * 1024 * 1024,
            max_unread_messages: 16,
            max_unread_bytes: 256 * 1024,
            max_unsent_bytes: 256 * 1024,
            read_buffer: 1000,
        }
    }
}

/// What the timers can tell from nothing.
const SHORTEST: Duration = Duration::from_millis(1);

/// 136 years: as good as for ever, and no clock overflows.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// What hyper needs for a head; it panics with less.
const SMALLEST_HEAD: usize = 8192;

/// What the shortest call of `authenticate` takes, whose client id and token have a byte each.
const SHORTEST_AUTH_REQUEST: usize = 23;

/// A protobuf message has less than 2 GiB. And the WebSocket library makes room for a message as
/// soon as its length is announced.
const LARGEST_MESSAGE: usize = i32::MAX as usize;

/// Enough for the longest head of a frame, which may come before the largest message.
const SMALLEST_BUFFER: usize = 14;

/// Every connection has such a buffer, from the beginning on.
const LARGEST_BUFFER: usize = 1024 * 1024;

impl Limits {
    /// The defaults of a client, which has one connection, and the larger stream to read.
    pub fn client() -> Limits {
        Limits { read_buffer: 16 * 1024, max_unread_messages: 256, ..Limits::default() }
    }

    /// Whether connections can live under these limits. What is refused is what would make a server
    /// or a client panic, let nobody in, end every connection or never come to rest.
    ///
    /// # Errors
    ///
    /// Every field that is wrong, in the order above.
    ///
    /// ```
    /// use electric_satellite::transport::Limits;
    ///
    /// let limits = Limits { max_connections: 0, failed_auths_per_second: -1.0, ..Limits::default() };
    /// assert_eq!(
    ///     limits.check().unwrap_err().to_string(),
    ///     "limits that make no sense: max_connections must be at least 1, \
    ///      failed_auths_per_second must be a number above 0",
    /// );
    /// ```
    pub fn check(&self) -> Result<(), LimitsError> {
        const TIME: &str = "at least 1 ms and at most 136 years";
        const NUMBER: &str = "at least 1";
        let is_time = |time: Duration| (SHORTEST..=LONGEST).contains(&time);
        let rate = self.failed_auths_per_second;
        let rules = [
            ("upgrade_timeout", is_time(self.upgrade_timeout), TIME),
            ("auth_timeout", is_time(self.auth_timeout), TIME),
            ("ping_interval", self.ping_interval.is_none_or(is_time), TIME),
            ("ping_timeout", is_time(self.ping_timeout), TIME),
            ("write_timeout", is_time(self.write_timeout), TIME),
            ("max_session_age", self.max_session_age.is_none_or(is_time), TIME),
            ("close_timeout", is_time(self.close_timeout), TIME),
            ("max_connections", self.max_connections > 0, NUMBER),
            ("max_unauthenticated", self.max_unauthenticated > 0, NUMBER),
            ("max_unauthenticated_per_address", self.max_unauthenticated_per_address > 0, NUMBER),
            ("handshakes_per_second", self.handshakes_per_second != Some(0), NUMBER),
            ("failed_auths", self.failed_auths > 0, NUMBER),
            ("failed_auths_per_second", rate.is_finite() && rate > 0.0, "a number above 0"),
            ("max_head", self.max_head >= SMALLEST_HEAD, "at least 8192"),
            (
                "max_message_before_auth",
                (SHORTEST_AUTH_REQUEST..=self.max_message).contains(&self.max_message_before_auth),
                "at least 23 and at most max_message",
            ),
            (
                "max_message",
                (SHORTEST_AUTH_REQUEST..=LARGEST_MESSAGE).contains(&self.max_message),
                "at least 23 and less than 2 GiB",
            ),
            ("max_unread_messages", self.max_unread_messages > 0, NUMBER),
            ("max_unread_bytes", self.max_unread_bytes > 0, NUMBER),
            ("max_unsent_bytes", self.max_unsent_bytes > 0, NUMBER),
            (
                "read_buffer",
                (SMALLEST_BUFFER..=LARGEST_BUFFER).contains(&self.read_buffer),
                "at least 14 and at most 1 MiB",
            ),
        ];
        let bad = rules.into_iter().filter(|(_, holds, _)| !holds);
        let bad: Vec<BadLimit> = bad.map(|(field, _, rule)| BadLimit { field, rule }).collect();
        if bad.is_empty() { Ok(()) } else { Err(LimitsError(bad)) }
    }

    /// These limits, of which none is bad.
    #[track_caller]
    pub(crate) fn checked(self) -> Limits {
        match self.check() {
            Ok(()) => self,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A limit that makes no sense. Reads on from the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {rule}")]
pub struct BadLimit {
    /// The field's name.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

/// Every limit that makes no sense, and at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsError(pub Vec<BadLimit>);

impl std::error::Error for LimitsError {}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("limits that make no sense")?;
        self.0
            .iter()
            .enumerate()
            .try_for_each(|(nth, bad)| write!(f, "{} {bad}", if nth == 0 { ":" } else { "," }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    /// The default limits with one changed.
    fn with(change: impl FnOnce(&mut Limits)) -> Limits {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    }

    fn bad_fields(limits: &Limits) -> Vec<&'static str> {
        let bad = limits.check().err().map(|error| error.0).unwrap_or_default();
        bad.iter().map(|bad| bad.field).collect()
    }

    /// That these values of a field are taken, and those are not.
    macro_rules! judges {
        ($field:ident takes $($good:expr),+; refuses $($bad:expr),+) => {
            for good in [$($good),+] {
                let limits = with(|limits| limits.$field = good);
                assert_eq!(bad_fields(&limits), [""; 0], "{good:?}");
            }
            for bad in [$($bad),+] {
                let limits = with(|limits| limits.$field = bad);
                assert_eq!(bad_fields(&limits), [stringify!($field)], "{bad:?}");
            }
        };
    }

    const NO_TIME: Duration = Duration::ZERO;
    const TOO_SHORT: Duration = Duration::from_micros(999);
    const TOO_LONG: Duration = Duration::from_secs(1 << 32);

    #[test]
    fn times_are_some_and_do_not_overflow() {
        judges!(upgrade_timeout takes SHORTEST, LONGEST; refuses NO_TIME, TOO_SHORT, TOO_LONG);
        judges!(auth_timeout takes SHORTEST, LONGEST; refuses NO_TIME, TOO_SHORT, TOO_LONG);
        judges!(ping_timeout takes SHORTEST, LONGEST; refuses NO_TIME, TOO_SHORT, TOO_LONG);
        judges!(write_timeout takes SHORTEST, LONGEST; refuses NO_TIME, TOO_SHORT, TOO_LONG);
        judges!(close_timeout takes SHORTEST, LONGEST; refuses NO_TIME, TOO_SHORT, Duration::MAX);
        judges!(ping_interval takes None, Some(SHORTEST), Some(LONGEST);
            refuses Some(NO_TIME), Some(TOO_SHORT), Some(TOO_LONG));
        judges!(max_session_age takes None, Some(SHORTEST), Some(LONGEST);
            refuses Some(NO_TIME), Some(TOO_SHORT), Some(TOO_LONG));
    }

    #[test]
    fn of_everything_that_is_counted_there_may_be_one() {
        judges!(max_connections takes 1, usize::MAX; refuses 0);
        judges!(max_unauthenticated takes 1, usize::MAX; refuses 0);
        judges!(max_unauthenticated_per_address takes 1, usize::MAX; refuses 0);
        judges!(handshakes_per_second takes None, Some(1), Some(u32::MAX); refuses Some(0));
        judges!(failed_auths takes 1, u32::MAX; refuses 0);
        judges!(max_unread_messages takes 1, usize::MAX; refuses 0);
        judges!(max_unread_bytes takes 1, usize::MAX; refuses 0);
        judges!(max_unsent_bytes takes 1, usize::MAX; refuses 0);
    }

    #[test]
    fn a_rate_is_a_number_above_nothing() {
        judges!(failed_auths_per_second takes f64::MIN_POSITIVE, 0.001, f64::MAX;
            refuses 0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY);
    }

    #[test]
    fn sizes_have_room_for_what_must_come() {
        judges!(max_head takes 8192, usize::MAX; refuses 0, 8191);
        judges!(read_buffer takes 14, 1024 * 1024; refuses 0, 13, 1024 * 1024 + 1, usize::MAX);
        judges!(max_message takes 64 * 1024, LARGEST_MESSAGE; refuses LARGEST_MESSAGE + 1);
        judges!(max_message_before_auth takes 23, 16 * 1024 * 1024;
            refuses 0, 22, 16 * 1024 * 1024 + 1, usize::MAX);
        let tiny =
            |size| Limits { max_message_before_auth: size, max_message: size, ..Limits::default() };
        assert_eq!(tiny(23).check(), Ok(()));
        assert_eq!(bad_fields(&tiny(22)), ["max_message_before_auth", "max_message"]);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let limits =
            Limits { auth_timeout: NO_TIME, max_head: 1, max_unsent_bytes: 0, ..Limits::default() };
        let error = limits.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "limits that make no sense: auth_timeout must be at least 1 ms and at most 136 years, \
             max_head must be at least 8192, max_unsent_bytes must be at least 1"
        );
    }
}
