//! `satellite conformance server`: the cases of a server, against one that is dialled.

use std::{fs, io, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use electric_satellite::{
    client::{ClientTls, Connector, TokenProvider, TokenReason},
    conformance::{Need, Server, SigningKey, Tokens, server_cases},
};
use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    Usage, carry_out,
    output::OutputArgs,
    selection::{RunArgs, SelectionArgs},
};
use crate::cli::{Auth, token_source::TokenSource};

#[derive(Args)]
pub(in crate::cli) struct ServerArgs {
    /// Where the server is, such as ws://localhost:5133.
    #[arg(required_unless_present_any = ["list", "explain"])]
    url: Option<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Trust servers with a certificate by an authority in this file, in PEM, and no others.
    #[arg(long, env = "SATELLITE_CA", value_name = "FILE", help_heading = "Authentication")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    auth: Auth,
    /// A file with the private key in PEM, for the algorithms with a public key.
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    private_key: Option<PathBuf>,
    /// A command that prints a good token each time, run by the shell, in place of keys. Cases that
    /// need other tokens are skipped.
    #[arg(long, value_name = "COMMAND", help_heading = "Authentication")]
    token_command: Option<String>,
}

/// How long each step may take unless it is said.
const PATIENCE: Duration = Duration::from_secs(5);

impl ServerArgs {
    pub(super) fn run(self) -> Result<ExitCode, Usage> {
        let cases = server_cases();
        if self.selection.list || self.selection.explain.is_some() {
            let nobody = async |_: &[_], _| unreachable!("nothing is run");
            return carry_out(&self.selection, &self.output, cases, nobody);
        }
        let known = self.run.known(&cases)?;
        let server = self.server()?.with_known_failures(known.into_keys());
        carry_out(&self.selection, &self.output, cases, async |cases, mut progress| {
            server.run(cases, |outcome| progress.done(outcome)).await
        })
    }

    fn patience(&self) -> Duration {
        self.run.timeout().unwrap_or(PATIENCE)
    }

    /// The server, as the options describe it.
    fn server(&self) -> Result<Server, Usage> {
        let url = self.url.as_deref().unwrap_or_default();
        let connector = self.connector(url)?;
        let mut server = Server::new(url, self.tokens()?, move || dial(connector.clone()))
            .with_host(authority(url))
            .with_profile(self.selection.profile())
            .with_timeout(self.patience())
            .with_repeats(self.run.repeat())
            .with_deadline(self.run.deadline());
        if let Some(jobs) = self.run.jobs() {
            server = server.with_cases_at_once(jobs);
        }
        // A command does not tell what it prints tokens for.
        Ok(match (&self.token_command, self.auth.set("AUTH_MODE").as_deref()) {
            (Some(_), Some("secure")) => server.with(Need::SecureMode),
            (Some(_), Some("insecure")) => server.with(Need::InsecureMode),
            _ => server,
        })
    }

    fn connector(&self, url: &str) -> Result<Connector, Usage> {
        let connector = Connector::new(url).map_err(|error| format!("{url}: {error}"))?;
        let connector = connector.with_timeout(self.patience());
        let tls = match (&self.ca, connector.is_secure()) {
            (_, false) => return Ok(connector),
            (Some(ca), _) => {
                ClientTls::trusting(ca).map_err(|error| format!("{}: {error}", ca.display()))
            }
            (None, _) => ClientTls::platform().map_err(|error| error.to_string()),
        };
        Ok(connector.with_tls(tls?))
    }

    fn tokens(&self) -> Result<Tokens, Usage> {
        match &self.token_command {
            Some(command) => Ok(from_command(command, self.patience())),
            None => self.signing_key().map(Tokens::made_with),
        }
    }

    fn signing_key(&self) -> Result<SigningKey, Usage> {
        let minter = self.auth.minter(self.private_key.as_deref()).map_err(|reason| {
            format!("{reason}\nand a command that prints tokens by --token-command COMMAND")
        })?;
        let mut key = SigningKey::configured(minter, |variable| self.auth.lookup(variable));
        if let (None, Some(file)) = (&key.public_key, self.auth.set("AUTH_JWT_KEY_FILE")) {
            let public_key = fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
            key.public_key = Some(public_key);
        }
        Ok(key)
    }
}

/// Host and port of a URL, as they are written in it.
fn authority(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// Tokens that a command prints, each within so long.
fn from_command(command: &str, within: Duration) -> Tokens {
    let command = command.to_owned();
    Tokens::fetched(move || {
        let source = TokenSource::Command(command.clone());
        async move {
            let token = timeout(within, source.token(TokenReason::Connect)).await;
            let token = token.map_err(|_| format!("the token command takes over {within:?}"))?;
            // It says already that there is none.
            token.map_err(|error| error.to_string().replacen("no token: ", "", 1))
        }
        .boxed()
    })
}

/// Anything that leads to a server.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn dial(connector: Connector) -> io::Result<Box<dyn Stream>> {
    let stream = connector.dial().await.map_err(io::Error::other)?;
    match connector.is_secure() {
        false => Ok(Box::new(stream)),
        true => Ok(Box::new(connector.secure(stream).await.map_err(io::Error::other)?)),
    }
}
