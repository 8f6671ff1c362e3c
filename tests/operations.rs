//! What operators see and set: the admin address, metrics, logs, configuration, exit codes, and
//! the limits and policies at the door.
#![cfg(feature = "cli")]

mod raw;
mod service;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::JwtAuthenticator,
    client::{ConnectError, Connector},
    server::{Server, empty_database},
    session::{ClientId, Close, Token},
    transport::Limits,
};
use hyper::{Request, header::HeaderName};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinHandle,
    time::timeout,
};

use raw::{
    Answer, SECRET, WebSocket, authenticate, bad_token, good_token, guarded, read_answer,
    unsigned_token, upgrade_request,
};
use service::{
    Said, Service, connect_from, eventually, get, insecure, loopback, run, satellite, secure,
};

/// Connects with the library's own client, and leaves.
async fn connect(service: &Service, client_id: &str, token: Token) -> Result<(), ConnectError> {
    let client = Connector::new(&service.url()).expect("a URL");
    let client_id = ClientId::new(client_id).expect("an id");
    let connection = guarded("connect", client.connect(&client_id, token)).await?;
    connection.close(electric_satellite::session::Close::NORMAL);
    guarded("close", connection.closed()).await;
    Ok(())
}

/// Opens a WebSocket from an address, with more header lines.
async fn open(
    from: [u8; 3],
    to: SocketAddr,
    lines: &str,
) -> Result<WebSocket<TcpStream>, Option<Answer>> {
    let [a, b, c] = from;
    let stream = connect_from(loopback(a, b, c), to).await.expect("it listens");
    guarded("an upgrade", WebSocket::open(stream, lines)).await
}

/// The answer to an upgrade that is refused.
async fn refusal(from: [u8; 3], to: SocketAddr, lines: &str) -> Answer {
    match open(from, to, lines).await {
        Ok(_) => panic!("not refused"),
        Err(answer) => answer.expect("an answer"),
    }
}

#[tokio::test]
async fn the_admin_address_answers() {
    let service = Service::start(insecure()).await;
    let metrics = get(service.admin, "/metrics").await;
    assert_eq!(metrics.status, 200);
    let kind = metrics.header("content-type").expect("a type");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    for path in ["/livez", "/readyz", "/readyz?verbose"] {
        let answer = get(service.admin, path).await;
        assert_eq!(answer.status, 200, "{path}");
        // In insecure mode, nobody may overlook it.
        assert!(answer.body.contains("WARNING: insecure mode"), "{path}: {}", answer.body);
    }
    assert_eq!(get(service.admin, "/").await.status, 404);
    assert_eq!(get(service.admin, "/metrics/").await.status, 404);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in ["/metrics", "/livez", "/readyz"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(service::ask(service.admin, &request).await.status, 405, "{method} {path}");
        }
    }
    // The address for clients has none of it.
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(get(service.address, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_secure_mode_warns_of_nothing() {
    let service = Service::start(secure()).await;
    assert_eq!(get(service.admin, "/livez").await.body, "alive\n");
    assert_eq!(get(service.admin, "/readyz").await.body, "ready\n");
    let status = get(service.address, "/api/status").await;
    assert_eq!((status.status, status.body.as_str()), (200, "The Satellite service is up"));
    assert!(!service.log().contains("WARN"), "{}", service.log());
}

#[tokio::test]
async fn one_connection_answers_several_requests() {
    let service = Service::start(insecure()).await;
    for (address, path) in [(service.address, "/api/status"), (service.admin, "/livez")] {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        for _ in 0..3 {
            stream.write_all(request.as_bytes()).await.expect("it takes a request");
            let answer = guarded("an answer", read_answer(&mut stream)).await.expect("an answer");
            assert_eq!(answer.status, 200);
        }
    }
}

#[tokio::test]
async fn prometheus_accepts_the_metrics() {
    let service = Service::start(secure()).await;
    // Nothing has happened yet.
    service.metrics().await;
    connect(&service, "good", good_token()).await.expect("it is let in");
    connect(&service, "bad", bad_token()).await.expect_err("it is not let in");
    service.counts("satellite_handshakes", 0.0).await;
    service.counts("satellite_connections", 0.0).await;
    let metrics = service.metrics().await;
    let value = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels);
    for (name, kind, labels, expected) in [
        ("satellite_connections_accepted_total", "counter", &[][..], 2.0),
        ("satellite_connections_refused_total", "counter", &[("reason", "auth refused")], 1.0),
        ("satellite_handshakes", "gauge", &[], 0.0),
        ("satellite_connections", "gauge", &[], 0.0),
        ("satellite_authenticated_total", "counter", &[("method", "HS256")], 1.0),
        ("satellite_closes_total", "counter", &[("code", "none")], 1.0),
    ] {
        assert_eq!(metrics.kind(name), Some(kind), "{name}");
        assert_eq!(value(name, labels), Some(expected), "{name}{labels:?}");
    }
    let upgrades = [("phase", "upgrade"), ("method", "")];
    let authentications = [("phase", "authentication"), ("method", "HS256")];
    assert_eq!(metrics.kind("satellite_handshake_seconds"), Some("histogram"));
    assert_eq!(value("satellite_handshake_seconds_count", &upgrades), Some(2.0));
    assert_eq!(value("satellite_handshake_seconds_count", &authentications), Some(1.0));
    let sum = value("satellite_handshake_seconds_sum", &authentications).expect("a sum");
    assert!(sum > 0.0 && sum < 60.0, "{sum} s");
}

/// What is counted without the accept loop, of all that can happen to a connection.
#[tokio::test(start_paused = true)]
async fn whoever_accepts_connections_each_is_counted_as_what_became_of_it() {
    let buckets = Matcher::Suffix("_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &[1.0]);
    let recorder = builder.expect("a bucket").build_recorder();
    // Everything is on this thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Server::new(JwtAuthenticator::insecure(None));
    let token = unsigned_token();

    let (mut near, far) = duplex(4096);
    near.write_all(b"no HTTP\r\n\r\n").await.expect("it is taken");
    server.accept(far).await.map(drop).expect_err("it is not let in");

    let (near, far) = duplex(4096);
    drop(near);
    server.accept(far).await.map(drop).expect_err("it is not let in");

    let (_near, far) = duplex(4096);
    server.accept(far).await.map(drop).expect_err("it is not let in");

    let (_near, far) = duplex(4096);
    timeout(Duration::from_secs(1), server.accept(far)).await.map(drop).expect_err("given up");

    let (near, far) = duplex(4096);
    let client = async {
        let mut socket = WebSocket::open(near, "").await.expect("it is upgraded");
        socket.send(&authenticate("client", &token)).await;
        socket.next().await;
        socket
    };
    let (accepted, _socket) = tokio::join!(server.accept(far), client);
    let mut connection = accepted.expect("it is let in");
    connection.close(Close::NORMAL);
    assert!(connection.recv().await.is_none());
    connection.closed().await;

    let post = Request::post("/ws").body(()).expect("a request");
    assert!(server.respond(post, None).1.is_none());
    let mut upgrade = Request::get("/ws").body(()).expect("a request");
    for line in raw::upgrade_request("").lines().skip(1).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").expect("a header");
        let name: HeaderName = name.parse().expect("a name");
        upgrade.headers_mut().insert(name, value.parse().expect("a value"));
    }
    server.respond(upgrade, None).1.expect("an upgrade, which nobody accepts");

    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let text = recorder.handle().render();
    let metrics = service::prometheus::Metrics::parse(&text).expect("metrics");
    let refused = metrics.by("satellite_connections_refused_total", "reason");
    let expected =
        [("dropped", 2.0), ("http failed", 1.0), ("not upgraded", 2.0), ("upgrade timed out", 1.0)];
    assert_eq!(refused, expected.into());
    assert_eq!(metrics.sum("satellite_connections_accepted_total"), 7.0);
    assert_eq!(metrics.sum("satellite_authenticated_total"), 1.0);
    assert_eq!(metrics.sum("satellite_closes_total"), 1.0);
    assert_eq!(metrics.sum("satellite_handshakes"), 0.0);
    assert_eq!(metrics.sum("satellite_connections"), 0.0);
}

#[test]
fn the_parser_of_the_metrics_is_strict() {
    use service::prometheus::Metrics;
    let good = "# HELP a b c\n# TYPE a counter\na 1\na{x=\"y\\\"}\",z=\"\"} 2.5\n\n\
                # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\n\
                h_count 2\n";
    let metrics = Metrics::parse(good).expect("it is good");
    assert_eq!(metrics.value("a", &[("x", "y\"}"), ("z", "")]), Some(2.5));
    assert_eq!(metrics.sum("a"), 3.5);
    for bad in [
        "a 1\n",
        "# TYPE a counter\na 1",
        "# TYPE a counter\na -1\n",
        "# TYPE a counter\na one\n",
        "# TYPE a counter\na 1\na 2\n",
        "# TYPE a thing\na 1\n",
        "# TYPE a counter\na{x=\"y} 1\n",
        "# TYPE a counter\na{x=y} 1\n",
        "# TYPE a counter\n# TYPE a counter\na 1\n",
        "# TYPE 1a counter\n1a 1\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 3\nh_count 1\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 3\nh_count 1\n",
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 3\nh_count 2\n",
    ] {
        assert!(Metrics::parse(bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn the_log_is_json_with_stable_names() {
    let mut command = secure();
    command.env("LOG_FORMAT", "json");
    let service = Service::start(command).await;
    connect(&service, "the good one", good_token()).await.expect("it is let in");
    connect(&service, "the bad one", bad_token()).await.expect_err("it is not let in");
    service.logged(&["connection ended"]).await;
    service.logged(&["client not authenticated"]).await;
    let log = service.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let find = |message: &str| {
        let line = lines.iter().find(|line| line["fields"]["message"] == message);
        line.unwrap_or_else(|| panic!("{message:?} is not in\n{log}"))
    };
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        assert!(line["target"].is_string(), "{line}");
    }
    for message in ["client authenticated", "connection ended"] {
        let line = find(message);
        assert_eq!(line["span"]["name"], "connection", "{line}");
        assert_eq!(line["span"]["client_id"], "the good one", "{line}");
        let peer = line["span"]["peer"].as_str().expect("a peer");
        assert!(peer.parse::<SocketAddr>().is_ok(), "{line}");
    }
    assert!(find("connection ended")["fields"]["reason"].is_string());
    let refused = find("client not authenticated");
    assert!(refused["span"]["peer"].is_string(), "{refused}");
    let reason = refused["fields"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("the bad one") && reason.contains("signature"), "{reason}");
    // Nobody's secrets.
    for secret in [SECRET, good_token().expose(), bad_token().expose()] {
        assert!(!log.contains(secret.rsplit('.').next().expect("a part")), "{log}");
    }
}

#[tokio::test]
async fn the_first_line_says_what_was_started() {
    let mut command = secure();
    command.env("MAX_CONNECTIONS", "4321");
    let service = Service::start(command).await;
    let line = service.logged(&["mode="]).await;
    for part in ["mode=\"secure\"", "HS256", "max_connections: 4321", "auth_timeout: 10s"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!line.contains(SECRET), "{line}");
    // A fingerprint: the same for the same key, another for another.
    let fingerprint = |line: &str| {
        let (_, rest) = line.split_once("Key(HS256 ").expect("a fingerprint");
        rest.split_once(')').expect("its end").0.to_owned()
    };
    let again = Service::start(secure()).await.logged(&["mode="]).await;
    assert_eq!(fingerprint(&line), fingerprint(&again));
    let mut other = secure();
    other.env("AUTH_JWT_KEY", "another secret, that is not the one it is");
    let other = Service::start(other).await.logged(&["mode="]).await;
    assert_ne!(fingerprint(&line), fingerprint(&other));

    let service = Service::start(insecure()).await;
    service.logged(&["mode=\"insecure\""]).await;
    service.logged(&["WARN", "insecure mode"]).await;
}

#[tokio::test]
async fn limits_come_from_flags_and_variables() {
    let settings = [
        ("AUTH_TIMEOUT", "--auth-timeout", "7", "auth_timeout: 7s"),
        ("PING_INTERVAL", "--ping-interval", "0", "ping_interval: None"),
        ("MAX_SESSION_AGE", "--max-session-age", "99", "max_session_age: Some(99s)"),
        ("MAX_MESSAGE_SIZE", "--max-message-size", "70000", "max_message: 70000"),
        ("MAX_CONNECTIONS", "--max-connections", "11", "max_connections: 11"),
        ("MAX_UNAUTHENTICATED", "--max-unauthenticated", "12", "max_unauthenticated: 12"),
        (
            "MAX_UNAUTHENTICATED_PER_IP",
            "--max-unauthenticated-per-ip",
            "13",
            "max_unauthenticated_per_address: 13",
        ),
        (
            "MAX_HANDSHAKES_PER_SECOND",
            "--max-handshakes-per-second",
            "14",
            "handshakes_per_second: Some(14)",
        ),
    ];
    let by_variables = {
        let mut command = insecure();
        command.envs(settings.map(|(variable, _, value, _)| (variable, value)));
        command
    };
    // A flag wins over its variable.
    let by_flags = {
        let mut command = insecure();
        command.envs(settings.map(|(variable, ..)| (variable, "15")));
        command.args(settings.iter().flat_map(|(_, flag, value, _)| [*flag, *value]));
        command
    };
    for command in [by_variables, by_flags] {
        let line = Service::start(command).await.logged(&["mode="]).await;
        for (_, _, _, shown) in settings {
            assert!(line.contains(shown), "{shown} is not in {line}");
        }
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once() {
    let wrong = [
        ("AUTH_JWT_ALG", "HS1"),
        ("AUTH_JWT_LEEWAY", "a while"),
        ("HTTP_PORT", "70000"),
        ("LISTEN_ADDRESS", "here"),
        ("ADMIN_ADDR", "9133"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("DUPLICATE_CLIENTS", "both"),
        ("TOKEN_EXPIRY", "never"),
        ("AUTH_TIMEOUT", "-1"),
        ("PING_INTERVAL", "soon"),
        ("MAX_SESSION_AGE", "1h"),
        ("MAX_MESSAGE_SIZE", "1MB"),
        ("MAX_CONNECTIONS", "many"),
        ("MAX_UNAUTHENTICATED", ""),
        ("MAX_UNAUTHENTICATED_PER_IP", "1.5"),
        ("MAX_HANDSHAKES_PER_SECOND", "-3"),
        ("DRAIN_GRACE", "x"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("TLS_CERT", "/nowhere/certificate.pem"),
    ];
    let mut command = satellite(&["serve"]);
    command.env("AUTH_JWT_KEY", SECRET).envs(wrong);
    let Said { code, stdout, stderr } = run(command).await;
    assert_eq!(code, Some(1), "{stderr}");
    // It does not listen, or it would say where.
    assert_eq!(stdout, "");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("  * ")).collect();
    for (variable, _) in wrong {
        let named = if variable == "TLS_CERT" { "TLS_KEY" } else { variable };
        assert!(lines.iter().any(|line| line.starts_with(&format!("  * {named} "))), "{stderr}");
    }
    assert!(!stderr.contains(SECRET), "{stderr}");
}

#[tokio::test]
async fn limits_under_which_nobody_is_served_are_refused() {
    let nothing = [
        "AUTH_TIMEOUT",
        "MAX_SESSION_AGE",
        "MAX_MESSAGE_SIZE",
        "MAX_CONNECTIONS",
        "MAX_UNAUTHENTICATED",
        "MAX_UNAUTHENTICATED_PER_IP",
        "MAX_HANDSHAKES_PER_SECOND",
    ];
    let mut command = insecure();
    command.envs(nothing.map(|variable| (variable, "0")));
    let Said { code, stdout, stderr } = run(command).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("  * ")).collect();
    assert_eq!(lines.len(), nothing.len(), "each once: {stderr}");
    for variable in nothing {
        let said = format!("  * {variable} has invalid value: \"0\". Must be at least ");
        assert!(lines.iter().any(|line| line.starts_with(&said)), "{variable}: {stderr}");
    }
    // More than a protobuf message has, and less than the default before authentication.
    for (size, taken) in [("2147483648", false), ("1000", true)] {
        let mut command = insecure();
        command.env("MAX_MESSAGE_SIZE", size);
        if taken {
            let line = Service::start(command).await.logged(&["mode="]).await;
            assert!(line.contains("max_message_before_auth: 1000,"), "{line}");
        } else {
            let Said { code, stderr, .. } = run(command).await;
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.contains("MAX_MESSAGE_SIZE has invalid value"), "{stderr}");
        }
    }
}

#[tokio::test]
async fn each_mistake_alone_is_enough() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let admin = format!("127.0.0.1:{port}");
    for (variable, value) in [
        ("HTTP_PORT", port.as_str()),
        ("ADMIN_ADDR", admin.as_str()),
        ("AUTH_MODE", "open"),
        ("TLS_KEY", "/nowhere/key.pem"),
        ("LOG_FORMAT", "xml"),
    ] {
        let mut command = insecure();
        command.env(variable, value);
        let Said { code, stdout, stderr } = run(command).await;
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{variable}={value}: {stderr}");
        let named = if variable == "TLS_KEY" { "TLS_CERT" } else { variable };
        assert!(stderr.contains(named), "{variable}={value}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    // Without any key, it does not start in secure mode.
    let Said { code, stderr, .. } = run(satellite(&["serve"])).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("AUTH_JWT_ALG") && stderr.contains("AUTH_JWT_KEY"), "{stderr}");
}

#[tokio::test]
async fn an_unknown_option_is_a_mistake_of_use() {
    for arguments in [
        &["serve", "--no-such-option"][..],
        &["serve", "unexpected"],
        &["connect"],
        &["no-such-command"],
        &[],
    ] {
        let Said { code, stdout, stderr } = run(satellite(arguments)).await;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let Said { code, stderr, .. } = run(satellite(arguments)).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// `satellite connect`, whose token is in its environment.
fn connecting(url: &str, token: &Token, arguments: &[&str]) -> Command {
    let mut command = satellite(&["connect", url]);
    command.args(arguments).env("SATELLITE_TOKEN", token.expose());
    command
}

#[tokio::test]
async fn connect_says_how_far_it_came() {
    let service = Service::start(secure()).await;
    let nothing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        format!("ws://{}", listener.local_addr().expect("an address"))
    };
    let something_else = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let elsewhere = format!("ws://{}", something_else.local_addr().expect("an address"));
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = something_else.accept().await {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        }
    });
    let (good, bad) = (good_token(), bad_token());
    let url = service.url();
    let all = ["connected", "upgraded", "authenticated", "replicating"];
    for (url, token, arguments, steps, reason) in [
        (&url, &good, &[][..], 4, None),
        (&nothing, &good, &[], 0, Some("no service answers")),
        (&url, &good, &["--protocol", "0.13"], 1, Some("HTTP 400")),
        (&url, &bad, &[], 2, Some("did not accept the token")),
        (&elsewhere, &good, &[], 1, Some("is no Satellite service")),
    ] {
        let code = if reason.is_none() { Some(0) } else { Some(1) };
        let people = run(connecting(url, token, arguments)).await;
        assert_eq!(people.code, code, "{}", people.stderr);
        let begun: Vec<&str> =
            people.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(begun, all[..steps], "{}", people.stdout);
        assert!(people.stderr.contains(reason.unwrap_or_default()), "{}", people.stderr);

        let machine = run(connecting(url, token, &[arguments, &["--json"]].concat())).await;
        assert_eq!((machine.code, machine.stderr.as_str()), (code, ""));
        let json: Value = serde_json::from_str(&machine.stdout).expect("one JSON object");
        assert_eq!(json["ok"], reason.is_none(), "{json}");
        let listed = json["steps"].as_array().expect("steps");
        let names: Vec<&str> = listed.iter().filter_map(|step| step["step"].as_str()).collect();
        assert_eq!(names, all[..steps], "{json}");
        for step in listed {
            assert!(step["detail"].is_string() && step["ms"].is_f64(), "{json}");
        }
        match reason {
            None => assert!(json["error"].is_null(), "{json}"),
            Some(reason) => assert!(json["error"].as_str().is_some_and(|it| it.contains(reason))),
        }
        // Nobody's token.
        for text in [people.stdout, people.stderr, machine.stdout] {
            assert!(!text.contains(token.expose()), "{text}");
        }
    }
    task.abort();
}

/// An embedded server that listens until this is dropped.
struct Embedded {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Embedded {
    async fn start(server: Server<JwtAuthenticator>) -> Embedded {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move { server.serve(listener, empty_database).await });
        Embedded { address, task }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_service_that_is_not_ready_refuses_for_now() {
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let server = Server::new(JwtAuthenticator::insecure(None)).with_readiness(move || match asked
        .load(Ordering::SeqCst)
    {
        true => Ok(()),
        false => Err("the database is away".into()),
    });
    let embedded = Embedded::start(server.clone()).await;
    assert!(server.ready().is_err_and(|reason| reason.contains("the database is away")));
    let answer = refusal([0, 0, 1], embedded.address, "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.retry_after().is_some_and(|seconds| seconds > 0));
    assert!(answer.body.contains("the database is away"), "{}", answer.body);
    // Whether it is up is another question.
    assert_eq!(get(embedded.address, "/api/status").await.status, 200);
    ready.store(true, Ordering::SeqCst);
    assert!(server.ready().is_ok());
    assert!(open([0, 0, 1], embedded.address, "").await.is_ok());
}

#[tokio::test]
async fn pages_from_elsewhere_may_be_kept_out() {
    let mut command = insecure();
    command.env("ALLOWED_ORIGINS", "https://app.example, http://localhost:3000");
    let service = Service::start(command).await;
    for (lines, allowed) in [
        ("", true),
        ("Origin: https://app.example\r\n", true),
        ("Origin: http://localhost:3000\r\n", true),
        ("Origin: https://evil.example\r\n", false),
        ("Origin: https://app.example.evil.example\r\n", false),
        ("Origin: http://app.example\r\n", false),
        ("Origin: https://app.example:8443\r\n", false),
        ("Origin: null\r\n", false),
        ("Origin: \r\n", false),
    ] {
        match open([0, 0, 1], service.address, lines).await {
            Ok(_) => assert!(allowed, "{lines:?}"),
            Err(answer) => {
                assert_eq!((allowed, answer.expect("an answer").status), (false, 403), "{lines:?}");
            }
        }
    }
}

/// How many authentications of one address may fail at once.
const FAILURES: usize = 60;

/// Presents a bad token.
async fn fail(from: [u8; 3], to: SocketAddr, lines: &str) -> Result<(), Answer> {
    let mut socket = open(from, to, lines).await.map_err(|answer| answer.expect("an answer"))?;
    socket.send(&authenticate("client", &bad_token())).await;
    let close = guarded("a refusal", socket.close()).await.expect("a close");
    assert_eq!(close.0, 1007);
    Ok(())
}

/// Presents bad tokens until the address has to wait.
async fn fail_until_refused(from: [u8; 3], to: SocketAddr, lines: &str) -> (usize, Answer) {
    for failures in 0..10 * FAILURES {
        if let Err(answer) = fail(from, to, lines).await {
            return (failures, answer);
        }
    }
    panic!("never refused");
}

#[tokio::test]
async fn who_fails_too_often_waits_and_nobody_else() {
    let service = Service::start(secure()).await;
    let to = service.address;
    // What a stranger writes about where it comes from does not count.
    let lines = "X-Forwarded-For: 198.51.100.7\r\nForwarded: for=198.51.100.7\r\n";
    let (failures, answer) = fail_until_refused([0, 1, 1], to, lines).await;
    assert!(failures >= FAILURES, "{failures}");
    assert_eq!(answer.status, 429);
    assert!(answer.retry_after().is_some_and(|seconds| seconds > 0));
    // Another name does not help it, and another address has not done anything.
    let other = "X-Forwarded-For: 198.51.100.8\r\n";
    assert_eq!(refusal([0, 1, 1], to, other).await.status, 429);
    assert!(open([0, 1, 2], to, lines).await.is_ok());
    let metrics = service.metrics().await;
    let limit = [("limit", "too many failed authentications from this address")];
    assert!(metrics.value("satellite_limits_hit_total", &limit).is_some_and(|hits| hits >= 2.0));
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_counts() {
    let mut command = secure();
    command.env("TRUSTED_PROXIES", "127.0.2.0/24, 10.0.0.0/8");
    let service = Service::start(command).await;
    let to = service.address;
    // The client may have written the first; the trusted proxies have written the others.
    let lines = "X-Forwarded-For: 203.0.113.1, 198.51.100.7, 10.1.1.1\r\n";
    let (failures, answer) = fail_until_refused([0, 2, 1], to, lines).await;
    assert!(failures >= FAILURES, "{failures}");
    assert_eq!(answer.status, 429);
    // Through the other proxy it is the same client, and so is any address of ours it claims.
    assert_eq!(refusal([0, 2, 2], to, "X-Forwarded-For: 198.51.100.7\r\n").await.status, 429);
    assert_eq!(refusal([0, 2, 2], to, "Forwarded: for=\"198.51.100.7:80\"\r\n").await.status, 429);
    // Other clients of the proxy, and the proxy itself, have not failed.
    for lines in ["X-Forwarded-For: 198.51.100.8\r\n", "X-Forwarded-For: 203.0.113.1\r\n", ""] {
        assert!(open([0, 2, 1], to, lines).await.is_ok(), "{lines:?}");
    }
    // Nobody else can speak for that client, for better or worse.
    assert!(open([0, 3, 1], to, "X-Forwarded-For: 198.51.100.7\r\n").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_asks_for_one_client_after_the_other() {
    let limits = Limits { failed_auths: 1, failed_auths_per_second: 0.5, ..Limits::default() };
    let server = Server::new(JwtAuthenticator::insecure(None))
        .with_limits(limits)
        .with_trusted_proxies(["192.0.2.100/32".parse().expect("a range")]);
    let dial = || {
        let (ours, theirs) = duplex(64 * 1024);
        let (server, proxy) = (server.clone(), Ipv4Addr::new(192, 0, 2, 100));
        tokio::spawn(
            async move { server.accept_from(theirs, IpAddr::from(proxy)).await.map(drop) },
        );
        ours
    };
    let failing = "X-Forwarded-For: 198.51.100.7\r\n";
    let mut socket = WebSocket::open(dial(), failing).await.expect("it may try");
    let nonsense = Token::new("no token").expect("a text");
    socket.send(&authenticate("client", &nonsense)).await;
    assert_eq!(socket.close().await.expect("a close").0, 1007);
    let mut stream = dial();
    // Another client is not concerned, though it comes by the same connection.
    for (client, status) in [(7, 429), (7, 429), (8, 101)] {
        let lines = format!("X-Forwarded-For: 198.51.100.{client}\r\n");
        stream.write_all(upgrade_request(&lines).as_bytes()).await.expect("it takes a request");
        assert_eq!(read_answer(&mut stream).await.expect("an answer").status, status);
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_unauthenticated_clients_are_counted_each() {
    let mut command = insecure();
    command.env("TRUSTED_PROXIES", "127.0.2.0/24").env("MAX_UNAUTHENTICATED_PER_IP", "3");
    let service = Service::start(command).await;
    let to = service.address;
    let greedy = "X-Forwarded-For: 198.51.100.7\r\n";
    let (mut held, mut held_silent) = (vec![], vec![]);
    for _ in 0..3 {
        held.push(open([0, 2, 1], to, greedy).await.expect("there is room"));
    }
    let answer = refusal([0, 2, 1], to, greedy).await;
    assert_eq!(answer.status, 429);
    // The others behind the same proxy are not concerned, however many have not said anything yet.
    for _ in 0..6 {
        held_silent.push(connect_from(loopback(0, 2, 1), to).await.expect("it listens"));
    }
    for n in 0..6 {
        let lines = format!("X-Forwarded-For: 203.0.113.{n}\r\n");
        held.push(open([0, 2, 1], to, &lines).await.expect("there is room"));
    }
}

#[tokio::test]
async fn there_are_so_many_connections_and_no_more() {
    let mut command = insecure();
    command.env("MAX_CONNECTIONS", "2");
    let service = Service::start(command).await;
    let to = service.address;
    let token = unsigned_token();
    let mut first = open([0, 0, 1], to, "").await.expect("there is room");
    first.send(&authenticate("first", &token)).await;
    guarded("an answer", first.next()).await.expect("it is let in");
    let second = open([0, 0, 2], to, "").await.expect("there is room");
    let answer = refusal([0, 0, 3], to, "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.retry_after().is_some_and(|seconds| seconds > 0));
    assert_eq!(answer.header("connection"), Some("close"));
    // There is no room for a question either, but for the administrator's.
    assert_eq!(get(to, "/api/status").await.status, 503);
    let limit = [("limit", "too many connections")];
    let metrics = service.metrics().await;
    assert_eq!(metrics.value("satellite_limits_hit_total", &limit), Some(2.0));
    // One leaves, whether authenticated or not, and another may come.
    for leaving in [first, second] {
        drop(leaving);
        let free = async || open([0, 0, 3], to, "").await.is_ok();
        eventually("room", free).await;
    }
}

#[tokio::test]
async fn one_address_has_so_many_unauthenticated_and_no_more() {
    let mut command = insecure();
    command.env("MAX_UNAUTHENTICATED_PER_IP", "2").env("MAX_UNAUTHENTICATED", "4");
    let service = Service::start(command).await;
    let to = service.address;
    let token = unsigned_token();
    let mut held = vec![];
    // Those who are authenticated do not count.
    for n in 0..5 {
        let mut socket = open([0, 0, 1], to, "").await.expect("there is room");
        socket.send(&authenticate(&format!("client {n}"), &token)).await;
        guarded("an answer", socket.next()).await.expect("it is let in");
        held.push(socket);
    }
    for _ in 0..2 {
        held.push(open([0, 0, 1], to, "").await.expect("there is room"));
    }
    let answer = refusal([0, 0, 1], to, "").await;
    assert_eq!(answer.status, 429);
    assert!(answer.retry_after().is_some_and(|seconds| seconds > 0));
    for _ in 0..2 {
        held.push(open([0, 0, 2], to, "").await.expect("there is room"));
    }
    // Now there are too many of them all together, and that is nobody's own doing.
    let answer = refusal([0, 0, 3], to, "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.retry_after().is_some_and(|seconds| seconds > 0));
}

#[tokio::test(start_paused = true)]
async fn handshakes_are_paced() {
    let limits = Limits { handshakes_per_second: Some(3), ..Limits::default() };
    let server = Server::new(JwtAuthenticator::insecure(None)).with_limits(limits);
    let upgrade = async || {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let server = server.clone();
        tokio::spawn(async move { server.accept(theirs).await.map(drop) });
        WebSocket::open(ours, "").await
    };
    for _ in 0..3 {
        assert!(upgrade().await.is_ok());
    }
    let Err(Some(answer)) = upgrade().await else { panic!("not refused") };
    assert_eq!(answer.status, 503);
    assert!(answer.retry_after().is_some_and(|seconds| seconds > 0));
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..3 {
        assert!(upgrade().await.is_ok());
    }
    assert!(upgrade().await.is_err());
}

#[tokio::test]
async fn handshakes_are_paced_by_a_variable_too() {
    let mut command = insecure();
    command.env("MAX_HANDSHAKES_PER_SECOND", "1");
    let service = Service::start(command).await;
    let mut refused = 0;
    for _ in 0..50 {
        match open([0, 0, 1], service.address, "").await {
            Ok(_) => {}
            Err(answer) => {
                assert_eq!(answer.expect("an answer").status, 503);
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}
