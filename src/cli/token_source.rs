//! Where the token of `satellite connect` comes from.

use std::process::Stdio;

use clap::Args;
use electric_satellite::{
    client::{TokenError, TokenProvider, TokenReason},
    session::Token,
};
use tokio::process::Command;

#[derive(Args)]
pub(super) struct TokenArgs {
    /// The token to present; - reads it from standard input.
    #[arg(
        long,
        env = "SATELLITE_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        required_unless_present = "token_command"
    )]
    token: Option<String>,
    /// A command that prints the token, run by the shell before every attempt, in place of
    /// --token. SATELLITE_TOKEN_REASON says why one is wanted: connect, reconnect, or rejected if
    /// the last one was. If it fails there is none for now.
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
}

/// One token for ever, or one from a command each time.
pub(super) enum TokenSource {
    Given(Token),
    Command(String),
}

impl TokenArgs {
    pub(super) fn source(&self) -> Result<TokenSource, String> {
        match (&self.token_command, &self.token) {
            (Some(command), _) => Ok(TokenSource::Command(command.clone())),
            (None, Some(token)) => super::token_from(token).map(TokenSource::Given),
            (None, None) => Err("--token or --token-command is needed".to_owned()),
        }
    }
}

impl TokenProvider for TokenSource {
    async fn token(&self, reason: TokenReason) -> Result<Token, TokenError> {
        match self {
            TokenSource::Given(token) => Ok(token.clone()),
            TokenSource::Command(command) => run(command, reason).await,
        }
    }
}

/// What the command prints. What it complains of goes where ours goes.
async fn run(command: &str, reason: TokenReason) -> Result<Token, TokenError> {
    let output = Command::new("sh")
        .args(["-c", command])
        .env("SATELLITE_TOKEN_REASON", name(reason))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| TokenError::fatal(format!("the token command cannot be run: {error}")))?;
    match output.status.code() {
        Some(0) => {}
        // The shell's own: not executable, not found.
        Some(126 | 127) => return Err(TokenError::fatal("the token command cannot be run")),
        _ => return Err(TokenError::temporary(format!("the token command: {}", output.status))),
    }
    // Not what it printed: it may be a token, but for a byte.
    let text = String::from_utf8(output.stdout)
        .map_err(|_| TokenError::temporary("the token command printed no text"))?;
    Token::new(text.trim()).map_err(TokenError::temporary)
}

fn name(reason: TokenReason) -> &'static str {
    match reason {
        TokenReason::Connect => "connect",
        TokenReason::Reconnect => "reconnect",
        TokenReason::Rejected => "rejected",
        TokenReason::Expiring => "expiring",
    }
}
