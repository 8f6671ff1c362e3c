//! Which service is connected to, and how: what `satellite connect` and `satellite load` share.

use std::{path::PathBuf, time::Duration};

use clap::{Args, value_parser};
use electric_satellite::{
    client::{ClientTls, ConnectError, Connector},
    session::{Cause, Close, End, Violation},
    transport::Limits,
    wire::{
        Version,
        proto::{SatErrorResp, sat_error_resp::ErrorCode},
    },
};

#[derive(Clone, Args)]
pub(super) struct Destination {
    /// Where the service is, such as ws://localhost:5133.
    pub(super) url: String,
    /// The protocol version to offer, from 0.6 to 0.12.
    #[arg(long, value_name = "VERSION", default_value = "0.12")]
    protocol: String,
    /// Trust servers with a certificate by an authority in this file, in PEM, and no others.
    #[arg(long, env = "SATELLITE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long each step may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u32).range(1..))]
    timeout: u32,
}

impl Destination {
    pub(super) fn version(&self) -> Result<Version, String> {
        format!("electric.{}", self.protocol)
            .parse()
            .map_err(|_| "--protocol takes a version such as 0.12".to_owned())
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    pub(super) fn limits(&self) -> Limits {
        let timeout = self.timeout();
        Limits { upgrade_timeout: timeout, auth_timeout: timeout, ..Limits::client() }
    }

    /// The authorities that are trusted, if not those of the machine.
    pub(super) fn tls(&self) -> Result<Option<ClientTls>, String> {
        let trusting = |ca: &PathBuf| {
            ClientTls::trusting(ca).map_err(|error| format!("{}: {error}", ca.display()))
        };
        self.ca.as_ref().map(trusting).transpose()
    }

    pub(super) fn connector(&self) -> Result<Connector, String> {
        let connector = Connector::new(&self.url)
            .map_err(|error| format!("{}: {error}", self.url))?
            .with_version(self.version()?)
            .with_limits(self.limits());
        Ok(match self.tls()? {
            Some(tls) => connector.with_tls(tls),
            None => connector,
        })
    }

    /// What went wrong, and what to do about it.
    pub(super) fn explain(&self, error: &ConnectError) -> String {
        match error {
            ConnectError::Unreachable(error) => {
                format!("no service answers at {}: {error}. Is it running?", self.url)
            }
            ConnectError::UpgradeRefused { status, body, .. } => {
                format!("the service refused the upgrade with HTTP {status}: {}", body.trim())
            }
            ConnectError::UpgradeFailed(error) => {
                format!("what answers at {} is no Satellite service: {error}", self.url)
            }
            ConnectError::Ended(End { cause: Cause::RefusedByServer(error), .. }) => {
                explain_refusal(error)
            }
            ConnectError::Ended(End {
                cause: Cause::Violation(Violation::AuthTimeout), ..
            }) => {
                format!("the service did not answer the auth request within {} s", self.timeout)
            }
            ConnectError::Ended(End { cause: Cause::Peer(close), .. }) => format!(
                "the service closed the connection during authentication ({})",
                close.as_ref().map_or("no reason given".to_owned(), Close::to_string)
            ),
            error => error.to_string(),
        }
    }
}

fn explain_refusal(error: &SatErrorResp) -> String {
    match error.error_type() {
        ErrorCode::AuthRequired => match error.text() {
            Some(reason) => format!("the service did not accept the token: {reason}"),
            None => "the service did not accept the token; its log says why".to_owned(),
        },
        ErrorCode::InvalidRequest => "the service refused the auth request: the client id or the \
             token is empty, or this client id is connected already"
            .to_owned(),
        _ => format!("the service refused the auth request: {error}"),
    }
}
