//! `satellite token`: prints a token, or explains one.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use electric_satellite::{
    auth::{Authenticator, JwtAuthenticator},
    session::UnixTime,
};
use serde_json::{Map, Value, json};

use super::{Auth, fail};

#[derive(Args)]
pub(super) struct MintToken {
    #[command(flatten)]
    auth: Auth,
    /// Explain this token against the AUTH_* variables instead, claim by claim; - reads it from
    /// standard input. Exits 0 if it would be accepted.
    #[arg(long, value_name = "TOKEN")]
    inspect: Option<String>,
    /// The user that the token speaks for.
    #[arg(long, value_name = "USER", required_unless_present = "inspect")]
    sub: Option<String>,
    /// How long the token is valid, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, allow_negative_numbers = true)]
    expires_in: i64,
    /// The token's own id; a random one unless given.
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// More claims, as a JSON object. They win over those that are set otherwise; null removes.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// A file with the private key in PEM, for the algorithms with a public key.
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// The key id to name in the header.
    #[arg(long, value_name = "KID")]
    kid: Option<String>,
}

impl MintToken {
    pub(super) fn run(self) -> ExitCode {
        if let Some(token) = &self.inspect {
            return self.explain(token);
        }
        match self.mint() {
            Ok(token) => {
                println!("{token}");
                ExitCode::SUCCESS
            }
            Err(reason) => fail(reason),
        }
    }

    fn explain(&self, token: &str) -> ExitCode {
        let authenticator = match JwtAuthenticator::from_vars(|name| self.auth.lookup(name)) {
            Ok(authenticator) => authenticator,
            Err(errors) => return fail(errors),
        };
        let token = match super::token_from(token) {
            Ok(token) => token,
            Err(reason) => return fail(reason),
        };
        wait_for_keys(&authenticator);
        let findings = authenticator.explain(&token, UnixTime::now());
        for finding in &findings {
            println!("{finding}");
        }
        match findings.last().and_then(|verdict| verdict.good) {
            Some(true) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    fn mint(&self) -> Result<String, String> {
        let minter = self.auth.minter(self.private_key.as_deref())?;
        let minter = match &self.kid {
            Some(kid) => minter.with_kid(kid),
            None => minter,
        };
        let token = minter.mint(&self.all_claims()?).map_err(|error| error.to_string())?;
        Ok(token.expose().to_owned())
    }

    fn all_claims(&self) -> Result<Value, String> {
        let user = self.sub.as_deref().unwrap_or_default();
        let mut claims = self.auth.claims(user, self.expires_in);
        if let Some(jti) = &self.jti {
            claims.insert("jti".into(), json!(jti));
        }
        if let Some(more) = &self.claims {
            let more: Map<String, Value> = serde_json::from_str(more)
                .map_err(|error| format!("--claims is no JSON object: {error}"))?;
            claims.extend(more);
            claims.retain(|_, value| !value.is_null());
        }
        Ok(Value::Object(claims))
    }
}

/// Keys from a URL are fetched by what keeps them fresh.
fn wait_for_keys(authenticator: &JwtAuthenticator) {
    let none = || authenticator.keys().is_some_and(|ring| ring.keys().keys().is_empty());
    let there = async {
        while none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if let Ok(runtime) = tokio::runtime::Runtime::new() {
        runtime.block_on(async {
            tokio::select! {
                () = there => {}
                () = authenticator.keep_fresh() => {}
                () = tokio::time::sleep(Duration::from_secs(10)) => {}
            }
        });
    }
}
