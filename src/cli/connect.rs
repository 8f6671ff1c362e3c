//! `satellite connect`: the handshake, step by step.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use electric_satellite::{
    client::{Connector, TokenProvider, TokenReason},
    session::{ClientId, Close, End, Token},
    transport::CallFailure,
    wire::{ReplyError, proto::SatInStartReplicationReq},
};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    destination::Destination,
    fail,
    follow::{self, FollowArgs},
    token_source::TokenArgs,
};

#[derive(Args)]
pub(super) struct Connect {
    #[command(flatten)]
    pub(super) service: Destination,
    #[command(flatten)]
    pub(super) token: TokenArgs,
    /// The client id to present; a random one unless given.
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    /// The newest migration that this client has, if any.
    #[arg(long, value_name = "VERSION")]
    pub(super) schema_version: Option<String>,
    /// Print one JSON object instead of lines for people; with --follow, one for each line.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) follow: FollowArgs,
}

/// A step that is done.
struct Step {
    name: &'static str,
    detail: String,
    took: Duration,
}

/// Prints steps as they are done, or keeps them for the end.
struct Report {
    json: bool,
    steps: Vec<Step>,
    started: Instant,
}

impl Report {
    fn done(&mut self, name: &'static str, detail: String) {
        let took = self.started.elapsed();
        if !self.json {
            println!("{name:<14}{:>8.1} ms  {detail}", took.as_secs_f64() * 1000.0);
        }
        self.steps.push(Step { name, detail, took });
        self.started = Instant::now();
    }

    fn finish(self, outcome: Result<(), String>) -> ExitCode {
        if self.json {
            let steps: Vec<_> = self
                .steps
                .iter()
                .map(|step| {
                    let ms = step.took.as_secs_f64() * 1000.0;
                    json!({ "step": step.name, "detail": step.detail, "ms": ms })
                })
                .collect();
            let error = outcome.as_ref().err();
            println!("{}", json!({ "ok": error.is_none(), "steps": steps, "error": error }));
        } else if let Err(reason) = &outcome {
            eprintln!("{:<14}{reason}", "failed");
        }
        if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl Connect {
    pub(super) fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(format!("Cannot start: {error}")),
        };
        if self.follow.follow {
            let outcome = runtime.block_on(follow::run(&self));
            // Standard output may be stuck.
            runtime.shutdown_background();
            return match outcome {
                Ok(()) | Err(follow::End::Unread) => ExitCode::SUCCESS,
                Err(follow::End::Failed(reason)) => fail(format!("{:<14} {reason}", "failed")),
            };
        }
        let mut report = Report { json: self.json, steps: vec![], started: Instant::now() };
        let outcome = runtime.block_on(self.steps(&mut report));
        report.finish(outcome)
    }

    async fn steps(&self, report: &mut Report) -> Result<(), String> {
        let client_id = match &self.client_id {
            Some(id) => ClientId::new(id.as_str()).map_err(|error| error.to_string())?,
            None => ClientId::random(),
        };
        let client = self.service.connector()?;
        let token = self.token.source()?.token(TokenReason::Connect).await;
        let token = token.map_err(|error| error.to_string())?;

        report.started = Instant::now();
        let stream = client.dial().await.map_err(|error| self.service.explain(&error))?;
        let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        report.done("connected", peer);
        if client.is_secure() {
            let stream =
                client.secure(stream).await.map_err(|error| self.service.explain(&error))?;
            report.done("secured", "TLS".into());
            self.handshake(report, &client, stream, &client_id, token).await
        } else {
            self.handshake(report, &client, stream, &client_id, token).await
        }
    }

    /// The steps over an open stream.
    async fn handshake<S>(
        &self,
        report: &mut Report,
        client: &Connector,
        stream: S,
        client_id: &ClientId,
        token: Token,
    ) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let upgraded =
            client.upgrade(stream).await.map_err(|error| self.service.explain(&error))?;
        report.done("upgraded", upgraded.version().to_string());
        let connection = upgraded
            .authenticate(client_id, token)
            .await
            .map_err(|error| self.service.explain(&error))?;
        let server_id = connection.server_id();
        report.done("authenticated", format!("client {client_id}, server {server_id:?}"));
        let start = SatInStartReplicationReq {
            schema_version: self.schema_version.clone(),
            ..Default::default()
        };
        let started = connection
            .call(start, self.service.timeout())
            .await
            .map_err(|failure| explain_call(&failure, connection.end()))?;
        if let Some(error) = started.err {
            let code = error.code().as_str_name();
            return Err(format!(
                "the service did not start replication: {code}: {:?}",
                error.message
            ));
        }
        report.done("replicating", window(started.unacked_window_size));
        connection.close(Close::NORMAL);
        connection.closed().await;
        Ok(())
    }
}

/// How many transactions the service sends ahead, in words.
pub(super) fn window(size: Option<u32>) -> String {
    match size {
        Some(size) => format!("{size} transactions may be unacknowledged"),
        None => "no limit on unacknowledged transactions".to_owned(),
    }
}

fn explain_call(failure: &CallFailure, end: Option<&End>) -> String {
    match (failure, end) {
        (CallFailure::Reply(ReplyError::Refused(error)), _) => {
            format!("the service refused to start replication: {error}")
        }
        (CallFailure::Ended, Some(end)) => {
            format!("the connection ended before replication started: {}", end.cause)
        }
        (failure, _) => format!("replication did not start: {failure}"),
    }
}
