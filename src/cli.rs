//! Command line: what the subcommands share.

mod connect;
mod serve;
mod token;

use std::{fmt, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// The Satellite protocol of ElectricSQL: a service, a token mint and a connection check.
#[derive(Parser)]
#[command(name = "satellite", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service: it authenticates clients and has no data to sync.
    Serve(serve::Serve),
    /// Print a token for a user, signed as the AUTH_* variables say.
    Token(token::MintToken),
    /// Connect to a service, show every step, and start replication.
    Connect(connect::Connect),
}

/// How tokens are signed. Each option has Electric's variable, with Electric's meaning.
#[derive(Args)]
struct Auth {
    /// `secure` (signed tokens, the default) or `insecure` (unsigned allowed, for development).
    #[arg(long, env = "AUTH_MODE", value_name = "MODE")]
    auth_mode: Option<String>,
    /// The algorithm of signatures: HS256 and so on.
    #[arg(long, env = "AUTH_JWT_ALG", value_name = "ALG")]
    auth_jwt_alg: Option<String>,
    /// The shared secret (HS*), or the public key in PEM (all others). Better set as a variable:
    /// command lines can be read by other users of the machine.
    #[arg(long, env = "AUTH_JWT_KEY", value_name = "KEY", hide_env_values = true)]
    auth_jwt_key: Option<String>,
    /// Whether the shared secret is given in base64.
    #[arg(long, env = "AUTH_JWT_KEY_IS_BASE64_ENCODED", value_name = "BOOL")]
    auth_jwt_key_is_base64_encoded: Option<String>,
    /// The claim, an object, that holds the user's id.
    #[arg(long, env = "AUTH_JWT_NAMESPACE", value_name = "CLAIM")]
    auth_jwt_namespace: Option<String>,
    /// The issuer that tokens must name.
    #[arg(long, env = "AUTH_JWT_ISS", value_name = "ISSUER")]
    auth_jwt_iss: Option<String>,
    /// The audience that tokens must name.
    #[arg(long, env = "AUTH_JWT_AUD", value_name = "AUDIENCE")]
    auth_jwt_aud: Option<String>,
}

impl Auth {
    /// The value of the option that belongs to a variable.
    fn lookup(&self, variable: &str) -> Option<String> {
        match variable {
            "AUTH_MODE" => self.auth_mode.clone(),
            "AUTH_JWT_ALG" => self.auth_jwt_alg.clone(),
            "AUTH_JWT_KEY" => self.auth_jwt_key.clone(),
            "AUTH_JWT_KEY_IS_BASE64_ENCODED" => self.auth_jwt_key_is_base64_encoded.clone(),
            "AUTH_JWT_NAMESPACE" => self.auth_jwt_namespace.clone(),
            "AUTH_JWT_ISS" => self.auth_jwt_iss.clone(),
            "AUTH_JWT_AUD" => self.auth_jwt_aud.clone(),
            _ => None,
        }
    }
}

/// Says what went wrong, for a person.
fn fail(reason: impl fmt::Display) -> ExitCode {
    eprintln!("{}", reason.to_string().trim_end());
    ExitCode::FAILURE
}

pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Token(mint) => mint.run(),
        Command::Connect(connect) => connect.run(),
    }
}
