//! Fetches a one-off token from the application's backend before every attempt to connect.
//!
//! The backend is `examples/token_endpoint.rs`; see there for the whole picture.
//!
//! ```sh
//! export AUTH_JWT_ALG=HS256 AUTH_JWT_KEY="$(openssl rand -hex 32)"
//! cargo run --example token_endpoint &
//! AUTH_JWT_ONE_OFF=100000 cargo run --features cli -- serve &
//! cargo run --example token_provider
//! ```
//!
//! It stays connected until SIGINT: restart the service, and it comes back with another token.
//! `SATELLITE_URL` and `TOKEN_URL` name other addresses, and `SESSION` another session.

use std::{env, error::Error, time::Duration};

use electric_satellite::{
    client::{Client, Resume, TokenError, TokenReason},
    session::Token,
};
use reqwest::{StatusCode, header::COOKIE};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let http = reqwest::Client::new();
    let client = Client::builder(
        &setting("SATELLITE_URL", "http://localhost:5133"),
        // Whatever the reason, a new one: each is good for one connection.
        move |reason: TokenReason| {
            println!("fetching a token: {reason:?}");
            fetch(http.clone())
        },
    )?
    .build();
    client.connect();
    tokio::select! {
        outcome = stay(&client) => outcome?,
        _ = tokio::signal::ctrl_c() => {}
    }
    client.disconnect();
    client.closed().await;
    Ok(())
}

/// Asks the backend, which knows the user by the session.
async fn fetch(http: reqwest::Client) -> Result<Token, TokenError> {
    let request = http
        .post(setting("TOKEN_URL", "http://localhost:4000/token"))
        .header(COOKIE, format!("session={}", setting("SESSION", "demo")));
    // A backend that cannot be reached, or is in trouble, is asked again later.
    let answer = request.send().await.map_err(TokenError::temporary)?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        return Err(TokenError::fatal("signed out"));
    }
    let answer = answer.error_for_status().map_err(TokenError::temporary)?;
    let answer = answer.bytes().await.map_err(TokenError::temporary)?;
    let answer: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|_| TokenError::temporary("no JSON"))?;
    Token::new(answer["token"].as_str().unwrap_or_default()).map_err(TokenError::temporary)
}

async fn stay(client: &Client) -> Result<(), Box<dyn Error>> {
    let mut resume = Resume::default();
    loop {
        let mut connection = client.connection().await?;
        let started = connection.start_replication(&mut resume, Duration::from_secs(10)).await;
        match started {
            Ok(_) => println!("let in by {}, replicating", connection.server_id()),
            Err(error) => println!("not started: {error}"),
        }
        while connection.recv().await.is_some() {}
        println!("disconnected");
    }
}

fn setting(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}
