//! Command line: what the subcommands share.

mod admin;
mod conformance;
mod connect;
mod destination;
mod follow;
mod load;
mod serve;
mod shapes;
mod signals;
mod token;
mod token_source;

use std::{collections::HashMap, fmt, fs, io, path::Path, process::ExitCode};

use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use electric_satellite::{
    auth::{Algorithm, Minter, VARIABLES},
    session::{Token, UnixTime},
};
use serde_json::{Map, Value, json};

/// The Satellite protocol of ElectricSQL: a service, a token mint, a connection check, a load generator, and
/// the conformance suite.
#[derive(Parser)]
#[command(name = "satellite", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service: it authenticates clients and has no data to sync.
    Serve(Box<serve::Serve>),
    /// Print a token for a user, signed as the AUTH_* variables say.
    Token(token::MintToken),
    /// Connect to a service, show every step, and start replication; print what arrives.
    #[command(after_long_help = follow::OUTPUT)]
    Connect(connect::Connect),
    /// Put a service under the load of many clients, and tell how long they wait for it.
    #[command(after_long_help = load::OUTPUT)]
    Load(Box<load::Load>),
    /// Hold a server or a client to the rules of the protocol, case by case.
    #[command(subcommand)]
    Conformance(conformance::Conformance),
}

/// The variables that say how tokens are verified, each with an option of the same name.
struct Auth(HashMap<&'static str, String>);

impl Auth {
    /// The value of the option or the variable.
    fn lookup(&self, variable: &str) -> Option<String> {
        self.0.get(variable).cloned()
    }

    /// The same, if it is more than white space.
    fn set(&self, variable: &str) -> Option<String> {
        self.lookup(variable).filter(|value| !value.trim().is_empty())
    }

    /// Signs as the service with the same variables verifies, with the private key in this file if
    /// its algorithm takes one.
    fn minter(&self, private_key: Option<&Path>) -> Result<Minter, String> {
        if let Some(file) = private_key {
            let algorithm = self.lookup("AUTH_JWT_ALG").unwrap_or_default();
            let algorithm: Algorithm = algorithm
                .parse()
                .map_err(|_| format!("AUTH_JWT_ALG={algorithm} names no algorithm to sign with"))?;
            let pem = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            return Minter::from_pem(algorithm, &pem)
                .map_err(|error| format!("{} {error}", file.display()));
        }
        Minter::from_vars(|variable| self.lookup(variable)).map_err(|errors| {
            format!("{errors}\nA private key to sign with is given by --private-key FILE")
        })
    }

    /// The claims that the service with the same variables wants of a token for this user, which is
    /// valid for so many seconds from now on.
    fn claims(&self, user: &str, expires_in: i64) -> Map<String, Value> {
        let now = UnixTime::now().as_secs();
        let mut claims = Map::new();
        match self.set("AUTH_JWT_NAMESPACE") {
            Some(namespace) => claims.insert(namespace, json!({ "sub": user })),
            None => claims.insert("sub".into(), json!(user)),
        };
        claims.insert("jti".into(), json!(uuid::Uuid::new_v4().to_string()));
        claims.insert("iat".into(), json!(now));
        claims.insert("exp".into(), json!(now.saturating_add(expires_in)));
        for (variable, claim) in [("AUTH_JWT_ISS", "iss"), ("AUTH_JWT_AUD", "aud")] {
            if let Some(value) = self.set(variable) {
                // Of several that are accepted, the first.
                let several: Option<Vec<String>> = serde_json::from_str(&value).ok();
                let value = several.and_then(|values| values.into_iter().next()).unwrap_or(value);
                claims.insert(claim.into(), json!(value));
            }
        }
        claims
    }
}

impl Args for Auth {
    fn augment_args(command: clap::Command) -> clap::Command {
        VARIABLES.iter().fold(command, |command, variable| {
            command.arg(
                Arg::new(variable.name)
                    .long(variable.name.to_lowercase().replace('_', "-"))
                    .env(variable.name)
                    // Some hold secrets.
                    .hide_env_values(true)
                    .value_name(variable.value)
                    .help(variable.help)
                    .help_heading("Authentication"),
            )
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Auth::augment_args(command)
    }
}

impl FromArgMatches for Auth {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Auth, clap::Error> {
        let value = |name: &str| matches.get_one::<String>(name).cloned();
        let set =
            VARIABLES.iter().filter_map(|variable| Some((variable.name, value(variable.name)?)));
        Ok(Auth(set.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Auth::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A token as it was given, or from standard input where a dash was.
fn token_from(argument: &str) -> Result<Token, String> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text = io::read_to_string(io::stdin())
            .map_err(|error| format!("cannot read the token: {error}"))?;
    }
    Token::new(text.trim()).map_err(|error| error.to_string())
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
        Command::Load(load) => load.run(),
        Command::Conformance(conformance) => conformance.run(),
    }
}
