//! What a case is written in: the words of a script, each a value that can be printed.
//!
//! A script is a list of [`Step`]s. The functions here make them, so that a case reads from top to
//! bottom: `open()`, `send(authenticate(1))`, `expect(welcome(1))`, `ends(closed(1007))`.

mod ending;
mod expecting;
mod sending;
mod upgrade;

use std::{fmt, ops::RangeInclusive, time::Duration};

pub use ending::*;
pub use expecting::*;
pub use sending::*;
pub use upgrade::*;

/// One line of a script.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Against a server: a new connection, and an upgrade that must succeed.
    Open(Upgrade),
    /// Against a server: a request on a new connection, and how its answer must be.
    Ask(Ask, Answer),
    /// The same on the connection at hand, which has not been upgraded.
    AskHere(Ask, Answer),
    /// Against a server: a new connection, on which nothing is sent yet.
    Dial,
    /// Against a client: its next connection, whose upgrade is answered so.
    Accept(Acceptance),
    /// Goes on with the connection that was the nth to be opened, counted from 1.
    On(usize),
    /// Sends this.
    Send(Sending),
    /// Sends all of these at once, so that they arrive together.
    SendTogether(Vec<Sending>),
    /// The next message that is not incidental must be this one, within so long if it is said.
    Expect(Expectation, Option<Duration>),
    /// The next message must be this one, and none before it that is incidental otherwise.
    Next(Expectation),
    /// As `Expect`, but if it does not come the case does not apply, for this reason.
    Given(Expectation, &'static str),
    /// All of these come, in any order, each in the time of the run.
    ExpectAll(Vec<Expectation>),
    /// Nothing but what is incidental arrives for so long, and the connection stays.
    Silence(Duration),
    /// Whatever comes is taken, until the connection ends or for so long; nothing is judged.
    Whatever(Duration),
    /// This does not arrive for so long, whatever else does.
    Absent(Expectation, Duration),
    /// Passes the time, and reads nothing.
    Wait(Duration),
    /// Drops the connection without a close.
    Cut,
    /// Ends the direction to the peer, and goes on reading.
    HalfClose,
    /// How the connection must end, or that it must not.
    Ends(Ending),
    /// Against a server: another client can authenticate now.
    Alive,
    /// Against a client: no further connection comes for so long.
    NoConnection(Duration),
    /// Against a client: it gives up and exits of its own accord, as a failure, within so long.
    Exits(Duration),
    /// Against a client: for so long, each of its next connections goes by these steps, the first
    /// of which lets it in or not; and so many must come.
    Repeatedly(Vec<Step>, Duration, RangeInclusive<usize>),
    /// Against a client: it is asked to end, a process by SIGTERM.
    Terminate,
    /// Against a client: it exits as a success within so long.
    Leaves(Duration),
    /// From here on pings are not answered.
    LeavePingsUnanswered,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Open(upgrade) => write!(f, "open a connection{upgrade}"),
            Step::Ask(ask, answer) => write!(f, "ask {ask}; the answer must be {answer}"),
            Step::AskHere(ask, answer) => {
                write!(f, "ask, on the same connection, {ask}; the answer must be {answer}")
            }
            Step::Dial => f.write_str("open a connection, and send nothing yet"),
            Step::Accept(acceptance) => write!(f, "the client connects{acceptance}"),
            Step::On(nth) => write!(f, "go on with connection {nth}"),
            Step::Send(sending) => write!(f, "send {sending}"),
            Step::SendTogether(sendings) => {
                let all: Vec<String> = sendings.iter().map(Sending::to_string).collect();
                write!(f, "send at once: {}", all.join("; "))
            }
            Step::Expect(expected, None) => write!(f, "expect {expected}"),
            Step::Expect(expected, Some(within)) => {
                write!(f, "expect {expected} within {within:?}")
            }
            Step::Next(expected) => write!(f, "expect {expected} before any other message"),
            Step::Given(expected, reason) => {
                write!(f, "if {expected} comes, go on (otherwise: {reason})")
            }
            Step::ExpectAll(expected) => {
                let all: Vec<String> = expected.iter().map(Expectation::to_string).collect();
                write!(f, "expect, in any order: {}", all.join("; "))
            }
            Step::Absent(expected, time) => write!(f, "expect no {expected} for {time:?}"),
            Step::Silence(time) => write!(f, "expect that nothing comes for {time:?}"),
            Step::Whatever(time) => {
                write!(f, "take whatever comes for {time:?}, or until the connection ends")
            }
            Step::Wait(time) => write!(f, "wait {time:?} without reading"),
            Step::Cut => f.write_str("drop the connection without a close"),
            Step::HalfClose => f.write_str("end the sending direction, and go on reading"),
            Step::Ends(ending) => write!(f, "the connection must {ending}"),
            Step::Alive => f.write_str("another client must be able to authenticate"),
            Step::NoConnection(time) => write!(f, "no further connection may come for {time:?}"),
            Step::Exits(within) => write!(f, "the client must give up within {within:?}"),
            Step::Repeatedly(steps, time, count) => {
                let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
                let (fewest, most) = (count.start(), count.end());
                write!(f, "for {time:?}, from {fewest} to {most} times: {}", steps.join("; "))
            }
            Step::Terminate => f.write_str("ask the client to end"),
            Step::Leaves(within) => write!(f, "the client must end well within {within:?}"),
            Step::LeavePingsUnanswered => f.write_str("leave pings unanswered from here on"),
        }
    }
}

/// So many milliseconds.
pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// So many seconds.
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
