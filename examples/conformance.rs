//! Holds a server of one's own to the protocol, as a test of it would: in this process, over pipes
//! in memory, and in simulated time, so that what takes minutes on a network is over at once.
//!
//! ```sh
//! cargo run --features conformance --example conformance
//! ```

use std::{process::ExitCode, time::Duration};

use electric_satellite::{
    auth::{JwtAuthenticator, Minter},
    conformance::{self, Report, SigningKey, Tokens, server_cases},
    server::{Server, empty_database},
};

/// How the server is configured. The suite makes its tokens from the same variables, so that it
/// can show good ones, and bad ones of every kind.
fn variable(name: &str) -> Option<String> {
    let value = match name {
        "AUTH_JWT_ALG" => "HS256",
        "AUTH_JWT_KEY" => "a secret for this example, and for nothing else",
        "AUTH_JWT_ISS" => "https://auth.example.com",
        _ => return None,
    };
    Some(value.to_owned())
}

/// Runs every case.
async fn judged() -> Report {
    // Here is where a server of your own goes, and what it does with a connection.
    let server = Server::new(JwtAuthenticator::from_vars(variable).expect("a good configuration"));
    let handler = empty_database;

    let minter = Minter::from_vars(variable).expect("a shared secret");
    let tokens = Tokens::made_with(SigningKey::configured(minter, variable));
    let dial = move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = server.clone();
        tokio::spawn(async move {
            if let Ok(connection) = server.accept(far).await {
                handler(connection).await;
            }
        });
        async { Ok(near) }
    };
    conformance::Server::new("the server of this example", tokens, dial)
        .with_deadline(Duration::from_secs(3600))
        .run(&server_cases(), |_| {})
        .await
}

/// A test has `#[tokio::test(start_paused = true)]` instead.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> ExitCode {
    let report = judged().await;
    // In a test: `assert!(report.is_as_expected(), "{}", report.text())`.
    print!("{}", report.text());
    if report.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
