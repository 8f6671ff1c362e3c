//! What failures are called, so that those of one kind can be counted together.

use std::io;

use electric_satellite::{
    client::{ConnectError, StartError, SubscribeError},
    session::{Cause, Close, End, Violation},
    transport::CallFailure,
    wire::ReplyError,
};

use super::tally::Phase;
use crate::cli::destination::Destination;

/// A failure.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    /// What is counted together. There are not many of these, whatever the service does.
    pub(super) kind: String,
    /// This one, in more words.
    pub(super) example: String,
}

impl Failure {
    pub(super) fn new(kind: impl Into<String>, example: impl Into<String>) -> Failure {
        Failure { kind: kind.into(), example: example.into() }
    }

    /// A client was not let in: it came to this phase.
    pub(super) fn connecting(service: &Destination, phase: Phase, error: &ConnectError) -> Failure {
        let kind = match error {
            ConnectError::Unreachable(why) => return unreachable(service, error, why),
            ConnectError::Tls(_) => "tls failed".to_owned(),
            ConnectError::TimedOut(_) => timeout(phase),
            ConnectError::UpgradeRefused { status, .. } => {
                format!("upgrade refused: HTTP {status}")
            }
            ConnectError::UpgradeFailed(_) => "upgrade failed".to_owned(),
            ConnectError::Ended(End {
                cause: Cause::Violation(Violation::AuthTimeout), ..
            }) => timeout(phase),
            ConnectError::Ended(end) => ended(end),
            _ => format!("{} failed", phase.name()),
        };
        Failure::new(kind, service.explain(error))
    }

    /// A call was not answered positively.
    pub(super) fn calling(failure: &CallFailure, end: Option<&End>) -> Failure {
        match (failure, end) {
            (CallFailure::TimedOut, _) => Failure::new(timeout(Phase::Call), failure.to_string()),
            (CallFailure::Reply(ReplyError::Refused(error)), _) => {
                let kind = format!("call refused: {}", error.error_type().as_str_name());
                Failure::new(kind, format!("the service refused a call: {error}"))
            }
            (CallFailure::Ended | CallFailure::NotSent(_), Some(end)) => Failure::ended(end),
            (failure, _) => Failure::new("call failed", failure.to_string()),
        }
    }

    pub(super) fn starting(error: &StartError, end: Option<&End>) -> Failure {
        match error {
            StartError::Refused { code, .. } => {
                Failure::new(format!("start refused: {}", code.as_str_name()), error.to_string())
            }
            StartError::Call(failure) => Failure::calling(failure, end),
        }
    }

    pub(super) fn subscribing(error: &SubscribeError, end: Option<&End>) -> Failure {
        match error {
            SubscribeError::Refused(_) => Failure::new("subscription refused", error.to_string()),
            SubscribeError::Call(failure) => Failure::calling(failure, end),
        }
    }

    /// A connection that was to go on has ended.
    pub(super) fn ended(end: &End) -> Failure {
        Failure::new(ended(end), format!("a connection ended: {}", end.cause))
    }
}

fn timeout(phase: Phase) -> String {
    format!("timeout: {}", phase.name())
}

fn ended(end: &End) -> String {
    match &end.cause {
        Cause::Peer(None) => "connection lost".to_owned(),
        Cause::Peer(Some(Close { code, .. })) => format!("closed by the service: {code}"),
        Cause::RefusedByServer(error) => {
            format!("authentication refused: {}", error.error_type().as_str_name())
        }
        Cause::PeerError(error) => {
            format!("error of the service: {}", error.error_type().as_str_name())
        }
        Cause::NotStarted { code, .. } => format!("start refused: {}", code.as_str_name()),
        Cause::CallRefusedByServer { error, .. } => {
            format!("call refused: {}", error.error_type().as_str_name())
        }
        Cause::Violation(Violation::WebSocket(fault)) => format!("broken by the service: {fault}"),
        Cause::Violation(_) => "a rule of the protocol broken by the service".to_owned(),
        _ => "ended".to_owned(),
    }
}

/// There is no TCP connection. Where it is for want of something at this end, that is said.
fn unreachable(service: &Destination, error: &ConnectError, why: &io::Error) -> Failure {
    if is_out_of_files(why) {
        let advice = "raise the limit of open files (ulimit -n), or take fewer --connections";
        return Failure::new("too many open files", format!("{why}: {advice}"));
    }
    match why.kind() {
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => {
            let advice = "every local port is in use or was a moment ago: dial from more addresses \
                 with --source IP, more than once, or go slower with --rate";
            Failure::new("no local port left", format!("{why}: {advice}"))
        }
        kind => Failure::new(format!("unreachable: {kind}"), service.explain(error)),
    }
}

#[cfg(unix)]
fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(not(unix))]
fn is_out_of_files(_: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use electric_satellite::{session::Fault, wire::proto::SatErrorResp};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        service: Destination,
    }

    fn connecting(phase: Phase, error: &ConnectError) -> Failure {
        let Cli { service } = Cli::parse_from(["test", "ws://there"]);
        Failure::connecting(&service, phase, error)
    }

    fn end(cause: Cause) -> End {
        End { close: None, cause }
    }

    #[test]
    fn each_way_of_not_being_let_in_has_a_name() {
        let ended = |cause| ConnectError::Ended(end(cause));
        let refused =
            |status| ConnectError::UpgradeRefused { status, body: "so".into(), retry_after: None };
        for (phase, error, kind) in [
            (
                Phase::Connect,
                ConnectError::Unreachable(io::ErrorKind::ConnectionRefused.into()),
                "unreachable: connection refused",
            ),
            (Phase::Connect, ConnectError::TimedOut(Duration::from_secs(1)), "timeout: connect"),
            (Phase::Tls, ConnectError::TimedOut(Duration::from_secs(1)), "timeout: tls"),
            (Phase::Tls, ConnectError::Tls(io::ErrorKind::Other.into()), "tls failed"),
            (Phase::Upgrade, refused(503), "upgrade refused: HTTP 503"),
            (
                Phase::Authenticate,
                ended(Cause::Violation(Violation::AuthTimeout)),
                "timeout: authenticate",
            ),
            (
                Phase::Authenticate,
                ended(Cause::RefusedByServer(SatErrorResp::default())),
                "authentication refused: INTERNAL",
            ),
            (
                Phase::Authenticate,
                ended(Cause::Peer(Some(Close::GOING_AWAY))),
                "closed by the service: 1001",
            ),
            (Phase::Authenticate, ended(Cause::Peer(None)), "connection lost"),
        ] {
            assert_eq!(connecting(phase, &error).kind, kind);
        }
    }

    #[test]
    fn a_want_of_this_end_comes_with_advice() {
        for (error, kind, advice) in [
            #[cfg(unix)]
            (rustix::io::Errno::MFILE.into(), "too many open files", "ulimit -n"),
            #[cfg(unix)]
            (rustix::io::Errno::NFILE.into(), "too many open files", "ulimit -n"),
            (io::ErrorKind::AddrNotAvailable.into(), "no local port left", "--source"),
            (io::ErrorKind::AddrInUse.into(), "no local port left", "--source"),
        ] {
            let error: io::Error = error;
            let failure = connecting(Phase::Connect, &ConnectError::Unreachable(error));
            assert_eq!(failure.kind, kind);
            assert!(failure.example.contains(advice), "{}", failure.example);
        }
    }

    #[test]
    fn a_call_fails_for_the_reason_that_ended_its_connection() {
        let lost = end(Cause::Peer(None));
        let silent = end(Cause::Violation(Violation::WebSocket(Fault::Silent)));
        let refused = ReplyError::Refused(SatErrorResp::default());
        for (failure, end, kind) in [
            (CallFailure::TimedOut, None, "timeout: call"),
            (CallFailure::Reply(refused), None, "call refused: INTERNAL"),
            (CallFailure::Ended, Some(&lost), "connection lost"),
            (CallFailure::Ended, Some(&silent), "broken by the service: silence"),
            (CallFailure::Ended, None, "call failed"),
        ] {
            assert_eq!(Failure::calling(&failure, end).kind, kind);
        }
    }
}
