//! What can go wrong between a client and its service, and what is to be done about it.

use std::time::Duration;

use crate::{
    session::{Cause, Close, End},
    wire::{
        Method,
        proto::{
            SatErrorResp, sat_error_resp::ErrorCode,
            sat_in_start_replication_resp::replication_error::Code,
        },
    },
};

use super::{ConnectError, TokenError};

/// Why a client is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// There is no token to present.
    #[error(transparent)]
    Token(TokenError),
    /// The token provider took too long.
    #[error("no token within {0:?}")]
    TokenTimeout(Duration),
    /// The token provider panicked.
    #[error("the token provider panicked")]
    TokenPanic,
    /// The attempt to connect failed.
    #[error(transparent)]
    Connect(ConnectError),
    /// The service that let the client in is another than the one that was asked for.
    #[error("connected to service {found:?} instead of {expected:?}")]
    WrongServer {
        /// The instance id that was asked for.
        expected: String,
        /// The one that answered.
        found: String,
    },
    /// The connection ended.
    #[error("{}", .0.cause)]
    Ended(End),
}

/// What a [`Client`](super::Client) does about a failure, or leaves to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Try again after a pause.
    Retry,
    /// Try again after a pause, with another token; give up if there is no other.
    FreshToken,
    /// Try again after a pause. The application must throw away what it has of the service's data
    /// first, and start from the beginning ([`Resume::reset`](super::Resume::reset)).
    ResetState,
    /// Trying again is of no use until the application, its user or its operator has changed
    /// something.
    GiveUp,
}

impl Failure {
    /// What to do about it.
    ///
    /// | failure | advice |
    /// |---|---|
    /// | no token for now, or not in time | [`Retry`](Advice::Retry) |
    /// | no token any more, or a provider that panics | [`GiveUp`](Advice::GiveUp) |
    /// | unreachable, no TLS, no answer in time, no WebSocket | `Retry` |
    /// | upgrade refused with 400 (no common version), 401 or 403 (origin) | `GiveUp` |
    /// | upgrade refused with another status; 429 and 503 may say when to come back | `Retry` |
    /// | another service than the one asked for | `GiveUp` |
    /// | `authenticate` refused with AUTH_REQUIRED or AUTH_FAILED | [`FreshToken`](Advice::FreshToken) |
    /// | `authenticate` refused with INVALID_REQUEST: this client is connected already | `Retry` |
    /// | closed with 4000 or `JWT-expired` | `FreshToken` |
    /// | closed otherwise, or lost; 1001 may say when to come back | `Retry` |
    /// | a rule of the protocol broken by the service | `Retry` |
    /// | AUTH_REQUIRED or AUTH_FAILED on a live connection, or renewal refused | `FreshToken` |
    /// | INTERNAL or REPLICATION_FAILED | `Retry` |
    /// | INVALID_REQUEST: replaced by another connection of this client, or a mistake of this end | `GiveUp` |
    /// | PROTO_VSN_MISMATCH, SCHEMA_VSN_MISMATCH | `GiveUp` |
    /// | start refused: BEHIND_WINDOW, INVALID_POSITION, SUBSCRIPTION_NOT_FOUND, MALFORMED_LSN | [`ResetState`](Advice::ResetState) |
    /// | start refused: UNKNOWN_SCHEMA_VSN | `GiveUp` |
    /// | start refused without a known code | `Retry` |
    pub fn advice(&self) -> Advice {
        match self {
            Failure::Token(error) if error.is_fatal() => Advice::GiveUp,
            Failure::Token(_) | Failure::TokenTimeout(_) => Advice::Retry,
            Failure::TokenPanic | Failure::WrongServer { .. } => Advice::GiveUp,
            Failure::Connect(ConnectError::UpgradeRefused { status, .. }) => match status {
                400 | 401 | 403 => Advice::GiveUp,
                _ => Advice::Retry,
            },
            Failure::Connect(ConnectError::Ended(end)) | Failure::Ended(end) => ended(&end.cause),
            Failure::Connect(_) => Advice::Retry,
        }
    }

    /// After how long the service wants to be asked again, at the earliest, if it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Connect(ConnectError::UpgradeRefused { retry_after, .. }) => *retry_after,
            Failure::Connect(ConnectError::Ended(end)) | Failure::Ended(end) => match &end.cause {
                Cause::Peer(Some(close)) => hint(close),
                _ => None,
            },
            _ => None,
        }
    }
}

fn ended(cause: &Cause) -> Advice {
    match cause {
        Cause::Peer(Some(close)) if is_expiry(close) => Advice::FreshToken,
        Cause::RefusedByServer(error) => match error.error_type() {
            ErrorCode::InvalidRequest => Advice::Retry,
            _ => by_code(error),
        },
        // Another connection would do: this one presents its token first thing.
        Cause::CallRefusedByServer { method: Method::Authenticate, .. } => Advice::FreshToken,
        Cause::CallRefusedByServer { error, .. } | Cause::PeerError(error) => by_code(error),
        Cause::NotStarted { code, .. } => not_started(*code),
        _ => Advice::Retry,
    }
}

pub(super) fn by_code(error: &SatErrorResp) -> Advice {
    match error.error_type() {
        ErrorCode::Internal | ErrorCode::ReplicationFailed => Advice::Retry,
        ErrorCode::AuthRequired | ErrorCode::AuthFailed => Advice::FreshToken,
        ErrorCode::InvalidRequest | ErrorCode::ProtoVsnMismatch | ErrorCode::SchemaVsnMismatch => {
            Advice::GiveUp
        }
    }
}

pub(super) fn not_started(code: Code) -> Advice {
    match code {
        Code::BehindWindow
        | Code::InvalidPosition
        | Code::SubscriptionNotFound
        | Code::MalformedLsn => Advice::ResetState,
        Code::UnknownSchemaVsn => Advice::GiveUp,
        Code::Unspecified => Advice::Retry,
    }
}

/// Published clients go by the reason, services by the code.
fn is_expiry(close: &Close) -> bool {
    close.code == Close::EXPIRED.code || close.reason == Close::EXPIRED.reason
}

/// `retry after 5 s` at the end of the reason of a 1001, as the server here puts it.
fn hint(close: &Close) -> Option<Duration> {
    let (_, seconds) = close.reason.rsplit_once("retry after ")?;
    let seconds = seconds.strip_suffix(" s")?.parse().ok()?;
    (close.code == 1001).then_some(Duration::from_secs(seconds))
}
