//! `satellite serve`: the service.

use std::{
    io::{self, IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use clap::Args;
use electric_satellite::{
    auth::{Authenticator, ConfigError, ConfigErrors, JwtAuthenticator},
    registry::{DuplicatePolicy, InProcessRegistry},
    server::{Drain, ExpiryPolicy, Server, Tls, empty_database},
    session::AuthChangePolicy,
    transport::{BadLimit, Limits},
};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpSocket},
    select,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::{
    Auth,
    admin::{self, Admin},
    fail,
    signals::Signals,
};

/// The WebSocket library's targets. At trace level it prints payloads, tokens included.
const PAYLOAD_PRINTERS: [&str; 2] = ["tungstenite", "tokio_tungstenite"];

/// How often the files of the TLS certificate are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(5);

/// How many connections may wait to be accepted, if the system lets them. When clients come back all
/// at once, one that finds no room tries again after a second.
const BACKLOG: u32 = 4096;

/// How long a newcomer waits for another connection of the same client to leave.
const DUPLICATE_WAIT: Duration = Duration::from_secs(1);

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
    /// How to log: text or json.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// Where to answer /metrics, /livez and /readyz, such as 127.0.0.1:9133; nowhere unless set.
    #[arg(long, env = "ADMIN_ADDR", value_name = "ADDRESS:PORT")]
    admin_addr: Option<String>,
    /// The TLS certificate and those that lead to an authority, in PEM; read again when it changes.
    #[arg(long, env = "TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The private key of the TLS certificate, in PEM.
    #[arg(long, env = "TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// What happens when a client connects that is connected already: wait, refuse or takeover.
    #[arg(long, env = "DUPLICATE_CLIENTS", value_name = "POLICY", default_value = "wait")]
    duplicate_clients: String,
    /// What happens when a token expires while its client is connected: ignore or close.
    #[arg(long, env = "TOKEN_EXPIRY", value_name = "POLICY", default_value = "ignore")]
    token_expiry: String,
    /// What happens when a connected client authenticates again: refuse or renew-same-identity.
    #[arg(long, env = "AUTH_CHANGES", value_name = "POLICY", default_value = "refuse")]
    auth_changes: String,
    /// Pages of browsers that may connect, by origin, with commas; all unless set.
    #[arg(long, env = "ALLOWED_ORIGINS", value_name = "ORIGINS")]
    allowed_origins: Option<String>,
    /// Proxies that are believed when they say where a client is: address ranges, with commas.
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "RANGES")]
    trusted_proxies: Option<String>,
    /// How long a client may take for the upgrade, and then to be authenticated, in seconds.
    #[arg(long, env = "AUTH_TIMEOUT", value_name = "SECONDS", default_value = "10")]
    auth_timeout: String,
    /// How long a client may be silent before it is pinged, in seconds; 0 for no pings.
    #[arg(long, env = "PING_INTERVAL", value_name = "SECONDS", default_value = "20")]
    ping_interval: String,
    /// How long a connection may last, in seconds; for ever unless set.
    #[arg(long, env = "MAX_SESSION_AGE", value_name = "SECONDS")]
    max_session_age: Option<String>,
    /// The largest message of an authenticated client, in bytes.
    #[arg(long, env = "MAX_MESSAGE_SIZE", value_name = "BYTES", default_value = "16777216")]
    max_message_size: String,
    /// How many connections there may be.
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "N", default_value = "100000")]
    max_connections: String,
    /// How many of them may be unauthenticated.
    #[arg(long, env = "MAX_UNAUTHENTICATED", value_name = "N", default_value = "10000")]
    max_unauthenticated: String,
    /// How many of those may come from one address.
    #[arg(long, env = "MAX_UNAUTHENTICATED_PER_IP", value_name = "N", default_value = "1000")]
    max_unauthenticated_per_ip: String,
    /// How many handshakes may begin in a second; any number unless set.
    #[arg(long, env = "MAX_HANDSHAKES_PER_SECOND", value_name = "N")]
    max_handshakes_per_second: Option<String>,
    /// How long open calls may take to be answered when the service stops, in seconds.
    #[arg(long, env = "DRAIN_GRACE", value_name = "SECONDS", default_value = "10")]
    drain_grace: String,
}

/// A configuration that is in order.
struct Config {
    authenticator: JwtAuthenticator,
    listen: (Option<IpAddr>, u16),
    admin: Option<SocketAddr>,
    tls: Option<Tls>,
    duplicates: DuplicatePolicy,
    expiry: ExpiryPolicy,
    auth_changes: AuthChangePolicy,
    origins: Option<Vec<String>>,
    trusted_proxies: Vec<IpNet>,
    limits: Limits,
    drain: Drain,
    log_level: LevelFilter,
    json: bool,
}

/// Reads options and keeps what is wrong with them.
#[derive(Default)]
struct Reader(Vec<ConfigError>);

impl Reader {
    fn error(&mut self, variable: &'static str, value: &str, rule: &str) {
        let reason = format!("has invalid value: {value:?}. Must be {rule}");
        self.0.push(ConfigError { variable, reason });
    }

    fn parse<T: FromStr>(&mut self, variable: &'static str, value: &str, rule: &str) -> Option<T> {
        let parsed = value.trim().parse().ok();
        if parsed.is_none() {
            self.error(variable, value, rule);
        }
        parsed
    }

    fn number<T: FromStr>(&mut self, variable: &'static str, value: &str) -> Option<T> {
        self.parse(variable, value, "a whole number")
    }

    fn seconds(&mut self, variable: &'static str, value: &str) -> Option<Duration> {
        let seconds = self.parse::<u32>(variable, value, "a whole number of seconds");
        seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// One of several words.
    fn word<T: Copy>(
        &mut self,
        variable: &'static str,
        value: &str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == value.trim());
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(variable, value, &format!("one of {words:?}"));
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// A list with commas.
    fn list<T: FromStr>(&mut self, variable: &'static str, value: &str, rule: &str) -> Vec<T> {
        let elements = value.split(',').map(str::trim).filter(|element| !element.is_empty());
        elements.filter_map(|element| self.parse(variable, element, rule)).collect()
    }
}

impl Serve {
    pub(super) fn run(self) -> ExitCode {
        let config = match self.config() {
            Ok(config) => config,
            Err(errors) => return fail(errors),
        };
        init_log(config.log_level, config.json);
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
        let mut reader = Reader::default();
        let authenticator = JwtAuthenticator::from_vars(|variable| self.auth.lookup(variable))
            .map_err(|errors| reader.0.extend(errors.0));
        let listen = (
            self.listen_address
                .as_ref()
                .and_then(|address| reader.parse("LISTEN_ADDRESS", address, "an IP address")),
            reader
                .parse("HTTP_PORT", &self.http_port, "a port number from 0 to 65535")
                .unwrap_or_default(),
        );
        let admin = self.admin_addr.as_ref().and_then(|address| {
            reader.parse("ADMIN_ADDR", address, "an IP address and a port, such as 127.0.0.1:9133")
        });
        let tls = self.tls(&mut reader);
        let duplicates = reader.word(
            "DUPLICATE_CLIENTS",
            &self.duplicate_clients,
            &[
                ("wait", DuplicatePolicy::Wait),
                ("refuse", DuplicatePolicy::Refuse),
                ("takeover", DuplicatePolicy::Takeover),
            ],
        );
        let leeway = authenticator.as_ref().map_or(0, |jwt| jwt.rules().leeway);
        let expiry = reader.word(
            "TOKEN_EXPIRY",
            &self.token_expiry,
            &[("ignore", ExpiryPolicy::Ignore), ("close", ExpiryPolicy::Close { leeway })],
        );
        let auth_changes = reader.word(
            "AUTH_CHANGES",
            &self.auth_changes,
            &[
                ("refuse", AuthChangePolicy::Refuse),
                ("renew-same-identity", AuthChangePolicy::RenewSameIdentity),
            ],
        );
        let origins = self.allowed_origins.as_ref().map(|origins| {
            reader.list("ALLOWED_ORIGINS", origins, "origins such as https://app.example")
        });
        let trusted_proxies = self.trusted_proxies.as_ref().map(|ranges| {
            reader.list("TRUSTED_PROXIES", ranges, "address ranges such as 10.0.0.0/8")
        });
        let limits = self.limits(&mut reader);
        let grace = reader.seconds("DRAIN_GRACE", &self.drain_grace).unwrap_or_default();
        let log_level = reader.word(
            "LOG_LEVEL",
            &self.log_level,
            &[
                ("error", LevelFilter::ERROR),
                ("warning", LevelFilter::WARN),
                ("info", LevelFilter::INFO),
                ("debug", LevelFilter::DEBUG),
            ],
        );
        let json = reader.word("LOG_FORMAT", &self.log_format, &[("text", false), ("json", true)]);
        match (authenticator, duplicates, expiry, log_level, json) {
            (Ok(authenticator), Some(duplicates), Some(expiry), Some(log_level), Some(json))
                if reader.0.is_empty() =>
            {
                Ok(Config {
                    authenticator,
                    listen,
                    admin,
                    tls,
                    duplicates,
                    expiry,
                    auth_changes: auth_changes.unwrap_or_default(),
                    origins,
                    trusted_proxies: trusted_proxies.unwrap_or_default(),
                    limits,
                    drain: Drain { grace, ..Drain::default() },
                    log_level,
                    json,
                })
            }
            _ => Err(ConfigErrors(reader.0)),
        }
    }

    fn tls(&self, reader: &mut Reader) -> Option<Tls> {
        let mut missing = |variable, other| {
            let reason = format!("not set, but {other} is");
            reader.0.push(ConfigError { variable, reason });
            None
        };
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => None,
            (Some(_), None) => missing("TLS_KEY", "TLS_CERT"),
            (None, Some(_)) => missing("TLS_CERT", "TLS_KEY"),
            (Some(certificate), Some(key)) => match Tls::from_files(certificate, key) {
                Ok(tls) => Some(tls),
                Err(error) => {
                    let reason = format!("cannot be used: {error}");
                    reader.0.push(ConfigError { variable: "TLS_CERT", reason });
                    None
                }
            },
        }
    }

    fn limits(&self, reader: &mut Reader) -> Limits {
        let defaults = Limits::default();
        let auth_timeout = reader.seconds("AUTH_TIMEOUT", &self.auth_timeout);
        let auth_timeout = auth_timeout.unwrap_or(defaults.auth_timeout);
        let ping_interval = reader.seconds("PING_INTERVAL", &self.ping_interval);
        let age = self.max_session_age.as_ref();
        let max_message = reader.number("MAX_MESSAGE_SIZE", &self.max_message_size);
        let max_message = max_message.unwrap_or(defaults.max_message);
        let rate = self.max_handshakes_per_second.as_ref();
        let limits = Limits {
            upgrade_timeout: auth_timeout,
            auth_timeout,
            ping_interval: ping_interval.filter(|interval| !interval.is_zero()),
            max_session_age: age.and_then(|age| reader.seconds("MAX_SESSION_AGE", age)),
            max_message_before_auth: defaults.max_message_before_auth.min(max_message),
            max_message,
            max_connections: reader
                .number("MAX_CONNECTIONS", &self.max_connections)
                .unwrap_or(defaults.max_connections),
            max_unauthenticated: reader
                .number("MAX_UNAUTHENTICATED", &self.max_unauthenticated)
                .unwrap_or(defaults.max_unauthenticated),
            max_unauthenticated_per_address: reader
                .number("MAX_UNAUTHENTICATED_PER_IP", &self.max_unauthenticated_per_ip)
                .unwrap_or(defaults.max_unauthenticated_per_address),
            handshakes_per_second: rate
                .and_then(|rate| reader.number("MAX_HANDSHAKES_PER_SECOND", rate)),
            ..defaults
        };
        for BadLimit { field, rule } in limits.check().err().into_iter().flat_map(|bad| bad.0) {
            if let Some((variable, value)) = self.setting(field) {
                reader.error(variable, value, rule);
            }
        }
        limits
    }

    /// The variable that a limit comes from, and what it says. Two limits follow another that is as
    /// wrong as they are.
    fn setting(&self, field: &str) -> Option<(&'static str, &str)> {
        Some(match field {
            "auth_timeout" => ("AUTH_TIMEOUT", &self.auth_timeout),
            "ping_interval" => ("PING_INTERVAL", &self.ping_interval),
            "max_session_age" => ("MAX_SESSION_AGE", self.max_session_age.as_ref()?),
            "max_message" => ("MAX_MESSAGE_SIZE", &self.max_message_size),
            "max_connections" => ("MAX_CONNECTIONS", &self.max_connections),
            "max_unauthenticated" => ("MAX_UNAUTHENTICATED", &self.max_unauthenticated),
            "max_unauthenticated_per_address" => {
                ("MAX_UNAUTHENTICATED_PER_IP", &self.max_unauthenticated_per_ip)
            }
            "handshakes_per_second" => {
                ("MAX_HANDSHAKES_PER_SECOND", self.max_handshakes_per_second.as_ref()?)
            }
            _ => return None,
        })
    }
}

/// Logs to standard error.
fn init_log(level: LevelFilter, json: bool) {
    let capped = level.min(LevelFilter::DEBUG);
    let targets = PAYLOAD_PRINTERS.map(|target| (target, capped));
    let plain = fmt::layer().with_writer(io::stderr);
    let layer = match json {
        true => plain.json().boxed(),
        false => plain.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(Targets::new().with_default(level).with_targets(targets)))
        .init();
}

async fn serve(config: Config, instance_id: Option<String>) -> Result<(), String> {
    let insecure = config.authenticator.is_insecure();
    let listener = listen(config.listen, insecure)?;
    let admin = match config.admin {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|error| format!("Cannot listen on {address} (ADMIN_ADDR): {error}"))?,
        ),
        None => None,
    };
    let metrics = admin.as_ref().map(|_| admin::install_metrics()).transpose()?;
    announce(&config);
    let Config { authenticator, tls, drain, .. } = config;
    let registry = InProcessRegistry::new(config.duplicates, DUPLICATE_WAIT);
    let mut server = Server::new(authenticator)
        .with_limits(config.limits)
        .with_expiry(config.expiry)
        .with_auth_changes(config.auth_changes)
        .with_trusted_proxies(config.trusted_proxies)
        .with_registry(registry.clone());
    if let Some(origins) = config.origins {
        server = server.with_origins(origins);
    }
    if let Some(instance_id) = instance_id.filter(|id| !id.trim().is_empty()) {
        server = server.with_server_id(instance_id);
    }
    // Whoever reads the addresses may send signals.
    let mut signals = Signals::new()?;
    print_addresses(&listener, admin.as_ref(), tls.is_some())
        .map_err(|error| format!("Cannot tell the address: {error}"))?;
    if let (Some(listener), Some(metrics)) = (admin, metrics) {
        let server = server.clone();
        tokio::spawn(Admin { metrics, server, registry }.serve(listener));
    }
    let stop = async {
        signals.next().await;
        tracing::info!("asked to stop: no new clients, open calls are answered");
        select! {
            () = server.drain(drain) => tracing::info!("stopped"),
            () = signals.next() => tracing::warn!("asked again: stopping now"),
        }
    };
    match tls {
        None => select! {
            () = server.serve(listener, empty_database) => {}
            () = stop => {}
        },
        Some(tls) => {
            let handshakes = tls.clone();
            let open = move |stream| {
                let tls = handshakes.clone();
                async move { tls.accept(stream).await }
            };
            select! {
                () = server.serve_over(listener, open, empty_database) => {}
                never = tls.keep(CERTIFICATE_INTERVAL) => match never {},
                () = stop => {}
            }
        }
    }
    Ok(())
}

/// Prints where the service can be reached, for whoever has started it.
fn print_addresses(
    listener: &TcpListener,
    admin: Option<&TcpListener>,
    tls: bool,
) -> io::Result<()> {
    let mut stdout = io::stdout();
    let scheme = if tls { "wss" } else { "ws" };
    writeln!(stdout, "listening on {scheme}://{}/ws", listener.local_addr()?)?;
    if let Some(admin) = admin {
        writeln!(stdout, "admin on http://{}", admin.local_addr()?)?;
    }
    stdout.flush()
}

/// Says how the service authenticates and what its limits are.
fn announce(config: &Config) {
    let authenticator = &config.authenticator;
    if let Some(warning) = authenticator.warning() {
        tracing::warn!("{warning}");
    }
    let keys = authenticator.keys().map(|ring| ring.keys());
    let keys = keys.as_ref().map(|set| set.keys()).unwrap_or_default();
    tracing::info!(
        mode = if authenticator.is_insecure() { "insecure" } else { "secure" },
        ?keys,
        rules = ?authenticator.rules(),
        limits = ?config.limits,
        "satellite {}",
        env!("CARGO_PKG_VERSION"),
    );
}

/// Listens on the given address, or on the one that the mode makes sensible.
fn listen((address, port): (Option<IpAddr>, u16), insecure: bool) -> Result<TcpListener, String> {
    let listened = match address {
        Some(address) => listen_on((address, port)),
        None if insecure => listen_on((Ipv4Addr::LOCALHOST, port)),
        // It serves IPv4 too, where the machine has IPv6.
        None => listen_on((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| listen_on((Ipv4Addr::UNSPECIFIED, port))),
    };
    listened.map_err(|error| format!("Cannot listen on port {port} (HTTP_PORT): {error}"))
}

fn listen_on(address: impl Into<SocketAddr>) -> io::Result<TcpListener> {
    let address = address.into();
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // A service that starts again need not wait until the connections of the last one are forgotten.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
