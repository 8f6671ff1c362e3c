//! Why a connection did not come so far.

use std::{error::Error, io};

use crate::{
    auth::AuthError,
    registry::RegistryError,
    session::{Cause, ClientId, End, Refusal},
};

/// Why a connection did not come to have an authenticated client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The peer went without asking for a WebSocket; it may have asked for something else.
    #[error("the connection ended before an upgrade")]
    NotUpgraded,
    /// There are so many connections beyond the limits, or beyond its address's own, that this one was
    /// not even told.
    #[error("too many connections")]
    Overloaded,
    /// The stream could not be opened: the TLS handshake failed or took too long.
    #[error("the connection could not be opened: {0}")]
    Open(#[source] io::Error),
    /// The upgrade took too long: the peer is slow to ask or to read the answers, or asks for
    /// other things.
    #[error("the upgrade took too long")]
    TimedOut,
    /// What the peer sent is not HTTP, or did not come in time, or the connection broke.
    #[error("the HTTP request failed")]
    Http(#[source] HttpError),
    /// The authenticator did not let the client in.
    #[error("authentication of client {client_id} failed: {error}")]
    Refused {
        /// The id that the client claims.
        client_id: ClientId,
        /// The exact reason.
        #[source]
        error: AuthError,
    },
    /// The client is connected already, or that cannot be known.
    #[error("client {client_id} not registered: {error}")]
    NotRegistered {
        /// The client's id.
        client_id: ClientId,
        /// The exact reason.
        #[source]
        error: RegistryError,
    },
    /// The session ended before the client was authenticated. If the authenticator or the registry
    /// panicked, the cause says so.
    #[error("{}", .0.cause)]
    Ended(End),
}

impl AcceptError {
    /// What it is called in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            AcceptError::NotUpgraded => "not upgraded",
            AcceptError::Overloaded => "overloaded",
            AcceptError::Open(_) => "not opened",
            AcceptError::TimedOut => "upgrade timed out",
            AcceptError::Http(_) => "http failed",
            AcceptError::Refused { error: AuthError::Unavailable(_), .. } => "auth unavailable",
            AcceptError::Refused { .. } => "auth refused",
            AcceptError::NotRegistered { .. } => "not registered",
            AcceptError::Ended(End { cause: Cause::Panicked, .. }) => "panicked",
            AcceptError::Ended(_) => "ended before authentication",
        }
    }
}

/// What the HTTP library or the stream says of a failed request.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HttpError(pub(super) Box<dyn Error + Send + Sync>);

/// Why a client is not admitted.
pub(super) enum NotAdmitted {
    Auth(AuthError),
    Registry(RegistryError),
}

impl NotAdmitted {
    /// Whether the authentication failed, rather than could not be made or was in vain.
    pub(super) fn is_failed_authentication(&self) -> bool {
        matches!(self, NotAdmitted::Auth(error) if !matches!(error, AuthError::Unavailable(_)))
    }

    pub(super) fn refusal(&self) -> Refusal {
        match self {
            NotAdmitted::Auth(error) => error.into(),
            NotAdmitted::Registry(RegistryError::Occupied) => Refusal::Occupied,
            NotAdmitted::Registry(RegistryError::Unavailable(_)) => Refusal::Unavailable,
        }
    }
}
