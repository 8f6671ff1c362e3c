//! `satellite serve`: the service.

use std::{
    io::{self, IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
};

use clap::Args;
use electric_satellite::{
    auth::{Authenticator, ConfigError, ConfigErrors, JwtAuthenticator},
    server::{Drain, Server, empty_database},
};
use tokio::{net::TcpListener, select};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Auth, fail};

/// The WebSocket library's targets. At trace level it prints payloads, tokens included.
const PAYLOAD_PRINTERS: [&str; 2] = ["tungstenite", "tokio_tungstenite"];

#[derive(Args)]
pub(super) struct Serve {
    #[command(flatten)]
    auth: Auth,
    /// The port to listen on; 0 picks a free one.
    #[arg(long, env = "HTTP_PORT", value_name = "PORT", default_value = "5133")]
    http_port: String,
    /// The address to listen on. All of them in secure mode, loopback in insecure mode.
    #[arg(long, env = "LISTEN_ADDRESS", value_name = "ADDRESS")]
    listen_address: Option<String>,
    /// The instance id that clients are told; a random one unless set.
    #[arg(long, env = "ELECTRIC_INSTANCE_ID", value_name = "ID")]
    instance_id: Option<String>,
    /// How much to log: error, warning, info or debug.
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// A configuration that is in order.
struct Config {
    authenticator: JwtAuthenticator,
    address: Option<IpAddr>,
    port: u16,
    log_level: LevelFilter,
}

impl Serve {
    pub(super) fn run(self) -> ExitCode {
        let config = match self.config() {
            Ok(config) => config,
            Err(errors) => return fail(errors),
        };
        init_log(config.log_level);
        let runtime = match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => return fail(format!("Cannot start: {error}")),
        };
        match runtime.block_on(serve(config, self.instance_id)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error),
        }
    }

    /// The configuration, or everything that is wrong with it.
    fn config(&self) -> Result<Config, ConfigErrors> {
        let authenticator = JwtAuthenticator::from_vars(|variable| self.auth.lookup(variable));
        let port = self.http_port.parse::<u16>().map_err(|_| {
            invalid("HTTP_PORT", &self.http_port, "Must be a port number from 0 to 65535")
        });
        let address = self.listen_address.as_ref().map(|address| address.parse()).transpose();
        let address = address.map_err(|_| {
            let address = self.listen_address.as_deref().unwrap_or_default();
            invalid("LISTEN_ADDRESS", address, "Must be an IP address")
        });
        let log_level = log_level(&self.log_level);
        match (authenticator, port, address, log_level) {
            (Ok(authenticator), Ok(port), Ok(address), Ok(log_level)) => {
                Ok(Config { authenticator, address, port, log_level })
            }
            (authenticator, port, address, log_level) => {
                let mut errors = authenticator.err().map(|errors| errors.0).unwrap_or_default();
                errors.extend(port.err());
                errors.extend(address.err());
                errors.extend(log_level.err());
                Err(ConfigErrors(errors))
            }
        }
    }
}

fn invalid(variable: &'static str, value: &str, rule: &str) -> ConfigError {
    ConfigError { variable, reason: format!("has invalid value: {value:?}. {rule}") }
}

fn log_level(value: &str) -> Result<LevelFilter, ConfigError> {
    match value {
        "error" => Ok(LevelFilter::ERROR),
        "warning" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        _ => {
            let rule = r#"Must be one of ["error", "warning", "info", "debug"]"#;
            Err(invalid("LOG_LEVEL", value, rule))
        }
    }
}

/// Logs to standard error.
fn init_log(level: LevelFilter) {
    let capped = level.min(LevelFilter::DEBUG);
    let targets = PAYLOAD_PRINTERS.map(|target| (target, capped));
    tracing_subscriber::registry()
        .with(fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()))
        .with(Targets::new().with_default(level).with_targets(targets))
        .init();
}

async fn serve(config: Config, instance_id: Option<String>) -> Result<(), String> {
    let Config { authenticator, address, port, .. } = config;
    let insecure = authenticator.is_insecure();
    let listener = listen(address, port, insecure).await?;
    let bound = listener.local_addr().map_err(|error| format!("Cannot listen: {error}"))?;
    announce(&authenticator);
    let mut server = Server::new(authenticator);
    if let Some(instance_id) = instance_id.filter(|id| !id.trim().is_empty()) {
        server = server.with_server_id(instance_id);
    }
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on ws://{bound}/ws")
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("Cannot write to standard output: {error}"))?;
    let stop = async {
        stop_signal().await;
        tracing::info!("asked to stop: no new clients, open calls are answered");
        select! {
            () = server.drain(Drain::default()) => {}
            () = stop_signal() => tracing::warn!("asked again: stopping now"),
        }
    };
    select! {
        () = server.serve(listener, empty_database) => {}
        () = stop => {}
    }
    Ok(())
}

/// Says how the service authenticates.
fn announce(authenticator: &JwtAuthenticator) {
    if let Some(warning) = authenticator.warning() {
        tracing::warn!("{warning}");
    }
    if let Some(keys) = authenticator.keys() {
        tracing::info!(keys = ?keys.keys().keys(), "secure mode: tokens must be signed");
    }
}

/// Listens on the given address, or on the one that the mode makes sensible.
async fn listen(address: Option<IpAddr>, port: u16, insecure: bool) -> Result<TcpListener, String> {
    let all = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    let addresses = match address {
        Some(address) => vec![address],
        None if insecure => vec![IpAddr::from(Ipv4Addr::LOCALHOST)],
        // The first serves IPv4 too, where the machine has IPv6.
        None => all.to_vec(),
    };
    let addresses: Vec<SocketAddr> =
        addresses.into_iter().map(|address| (address, port).into()).collect();
    TcpListener::bind(&*addresses)
        .await
        .map_err(|error| format!("Cannot listen on port {port} (HTTP_PORT): {error}"))
}

/// Waits until the process is asked to stop.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
