//! `wss`: who is trusted, what happens when one end speaks TLS and the other does not, and
//! certificates that change while the service runs.
#![cfg(feature = "tls")]

mod raw;
#[cfg(feature = "cli")]
mod service;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use electric_satellite::{
    auth::JwtAuthenticator,
    client::{ClientTls, ConnectError, Connector},
    server::{Server, Tls, TlsError, empty_database},
    session::{AuthenticatedServer, ClientId},
    transport::{Connection, Limits},
    wire::proto::{SatInStartReplicationReq, SatInStopReplicationReq},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use raw::{guarded, unsigned_token};

const WITHIN: Duration = Duration::from_secs(30);

/// A file of `tests/certificates`.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

fn certificate(name: &str) -> Tls {
    Tls::from_files(file(&format!("{name}.pem")), file(&format!("{name}.key"))).expect("both")
}

/// A directory that is gone when this is.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let name = format!("satellite-tls-{}", ClientId::random());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        Directory(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Puts a certificate and its key where the service finds them, each at once.
    fn put(&self, name: &str) {
        for (source, target) in [("key", "service.key"), ("pem", "service.pem")] {
            let new = self.path("new");
            fs::copy(file(&format!("{name}.{source}")), &new).expect("a copy");
            fs::rename(&new, self.path(target)).expect("a new name");
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that listens until this is dropped.
struct Listening {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listening {
    async fn start(tls: Option<Tls>, limits: Limits) -> Listening {
        let server = Server::new(JwtAuthenticator::insecure(None)).with_limits(limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            match tls {
                None => server.serve(listener, empty_database).await,
                Some(tls) => {
                    let open = move |stream| {
                        let tls = tls.clone();
                        async move { tls.accept(stream).await }
                    };
                    server.serve_over(listener, open, empty_database).await;
                }
            }
        });
        Listening { address, task }
    }

    /// A client of it, by this scheme and host, that trusts this authority.
    fn client(&self, scheme: &str, host: &str, authority: &str) -> Connector {
        let url = format!("{scheme}://{host}:{}", self.address.port());
        let tls = ClientTls::trusting(file(&format!("authority-{authority}.pem")));
        Connector::new(&url).expect("a URL").with_tls(tls.expect("an authority"))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(client: &Connector) -> Result<Connection<AuthenticatedServer>, ConnectError> {
    guarded("connect", client.connect(&ClientId::random(), unsigned_token())).await
}

/// That this is refused, by TLS.
async fn assert_distrusted(client: &Connector) {
    match connect(client).await {
        Err(ConnectError::Tls(error)) => {
            assert!(error.to_string().contains("certificate"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// The SHA-256 digest of the public key of a certificate; the documentation of
/// `ClientTls::pinned` says how to make it.
fn key_digest(certificate: &str) -> [u8; 32] {
    let hex = match certificate {
        "a" => "b1e36e3c3acb87f0909a0c2a0f56a65dba40f48aa6051184d8b658519f229b2b",
        "b" => "93cd3c2c89600d64e6ae4ae55588792788f4062338b0a161fb41b489a29eeb46",
        other => panic!("no digest of {other}"),
    };
    std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..][..2], 16).expect("hexadecimal"))
}

#[tokio::test]
async fn a_server_with_another_key_than_the_pinned_ones_is_refused_though_it_is_trusted() {
    let server = Listening::start(Some(certificate("a")), Limits::default()).await;
    let trusting = |authority: &str, pins: &[&str]| {
        let tls = ClientTls::trusting(file(&format!("authority-{authority}.pem")));
        let tls = tls.expect("an authority").pinned(pins.iter().map(|pin| key_digest(pin)));
        server.client("wss", "localhost", "a").with_tls(tls.expect("pins"))
    };
    connect(&trusting("a", &["b", "a"])).await.expect("one of them is the server's");
    assert_distrusted(&trusting("a", &["b"])).await;
    assert_distrusted(&trusting("a", &[])).await;
    // A pin alone is not trusted.
    assert_distrusted(&trusting("b", &["a"])).await;
}

#[tokio::test]
async fn a_trusted_server_is_reached_and_no_other() {
    let server = Listening::start(Some(certificate("a")), Limits::default()).await;
    for (scheme, host) in [("wss", "localhost"), ("https", "localhost"), ("wss", "127.0.0.1")] {
        let client = server.client(scheme, host, "a");
        assert!(client.is_secure());
        let connection = connect(&client).await.expect("it is let in");
        let start = SatInStartReplicationReq::default();
        let started = connection.call(start, WITHIN).await.expect("an answer");
        assert!(started.err.is_none());
    }
    // Another authority, another name, and what the machine trusts.
    assert_distrusted(&server.client("wss", "localhost", "b")).await;
    let stream = TcpStream::connect(server.address).await.expect("it listens");
    let elsewhere = server.client("wss", "elsewhere.example", "a");
    match guarded("TLS", elsewhere.secure(stream)).await {
        Err(ConnectError::Tls(error)) => {
            assert!(error.to_string().contains("elsewhere.example"), "{error}");
        }
        other => panic!("{:?}", other.map(drop)),
    }
    let url = format!("wss://localhost:{}", server.address.port());
    assert_distrusted(&Connector::new(&url).expect("a URL")).await;
    // It serves others all the same.
    connect(&server.client("wss", "localhost", "a")).await.expect("it is let in");
}

#[tokio::test]
async fn tls_and_none_do_not_meet() {
    let secure = Listening::start(Some(certificate("a")), Limits::default()).await;
    let plain = Listening::start(None, Limits::default()).await;
    match connect(&secure.client("ws", "127.0.0.1", "a")).await {
        Err(ConnectError::UpgradeFailed(_)) => {}
        other => panic!("{other:?}"),
    }
    match connect(&plain.client("wss", "localhost", "a")).await {
        Err(ConnectError::Tls(_)) => {}
        other => panic!("{other:?}"),
    }
    // Both go on.
    connect(&secure.client("wss", "localhost", "a")).await.expect("it is let in");
    connect(&plain.client("ws", "127.0.0.1", "a")).await.expect("it is let in");
}

/// Whoever opens a connection and does not go through with TLS is cut off.
#[tokio::test]
async fn the_tls_handshake_has_a_deadline() {
    let limits = Limits { upgrade_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Listening::start(Some(certificate("a")), limits).await;
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100]] {
        let mut stream = TcpStream::connect(server.address).await.expect("it listens");
        stream.write_all(bytes).await.expect("it takes bytes");
        let mut rest = vec![];
        // A TLS alert at the most, and then the end, which may be a reset.
        let _ = guarded("the end", stream.read_to_end(&mut rest)).await;
        assert!(rest.len() < 100, "{rest:?}");
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let pem = |certificate: &str, key: &str| Tls::from_files(file(certificate), file(key));
    for (tls, named) in [
        (pem("none.pem", "a.key"), "none.pem"),
        (pem("a.pem", "none.key"), "none.key"),
        (pem("a.key", "a.key"), "a.key"),
        (pem("a.pem", "a.pem"), "a.pem"),
        (pem("README.md", "a.key"), "README.md"),
    ] {
        match tls {
            Err(error @ TlsError::File { .. }) => {
                assert!(error.to_string().contains(named), "{error}");
            }
            other => panic!("{named}: {other:?}"),
        }
    }
    assert!(matches!(pem("a.pem", "b.key"), Err(TlsError::Mismatch(_))));
    for name in ["none.pem", "a.key", "README.md"] {
        assert!(ClientTls::trusting(file(name)).is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections() {
    let directory = Directory::new();
    directory.put("a");
    let tls = Tls::from_files(directory.path("service.pem"), directory.path("service.key"));
    let tls = tls.expect("both");
    let server = Listening::start(Some(tls.clone()), Limits::default()).await;
    let keeping = tokio::spawn(async move { tls.keep(Duration::from_millis(20)).await });
    // New ones each time: one that has been there resumes its session and sees no certificate.
    let by_a = || server.client("wss", "localhost", "a");
    let by_b = || server.client("wss", "localhost", "b");

    let old = connect(&by_a()).await.expect("it is let in");
    assert_distrusted(&by_b()).await;
    directory.put("b");
    let changed = async {
        while connect(&by_b()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    guarded("the new certificate", changed).await;
    assert_distrusted(&by_a()).await;
    // Whoever is connected stays so.
    old.call(SatInStopReplicationReq {}, WITHIN).await.expect("an answer");

    // What cannot be used changes nothing, for as long as it is there.
    for (name, text) in [("service.pem", "no certificate"), ("service.key", "no key")] {
        fs::write(directory.path(name), text).expect("a file");
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            connect(&by_b()).await.expect("it is let in");
        }
    }
    fs::remove_file(directory.path("service.pem")).expect("it is there");
    connect(&by_b()).await.expect("it is let in");
    // And the next that can is used.
    directory.put("a");
    let changed = async {
        while connect(&by_a()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    guarded("the next certificate", changed).await;
    old.call(SatInStopReplicationReq {}, WITHIN).await.expect("an answer");
    assert!(!keeping.is_finished());
    keeping.abort();
}

#[cfg(feature = "cli")]
mod binary {
    use super::*;
    use service::{Said, Service, run, satellite};

    fn connecting(url: &str, authority: &str) -> tokio::process::Command {
        let mut command = satellite(&["connect", url, "--ca"]);
        command.arg(file(authority)).env("SATELLITE_TOKEN", unsigned_token().expose());
        command
    }

    #[tokio::test]
    async fn the_binary_serves_and_connects_by_tls() {
        let directory = Directory::new();
        directory.put("a");
        let mut command = service::insecure();
        command.env("TLS_CERT", directory.path("service.pem"));
        command.env("TLS_KEY", directory.path("service.key"));
        let service = Service::start(command).await;
        let port = service.address.port();
        let url = format!("wss://localhost:{port}");
        let Said { code, stdout, stderr } = run(connecting(&url, "authority-a.pem")).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
        let steps: Vec<&str> =
            stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(steps, ["connected", "secured", "upgraded", "authenticated", "replicating"]);
        // Each mistake has its reason.
        for (url, authority, reason) in [
            (url.clone(), "authority-b.pem", "certificate"),
            (format!("ws://localhost:{port}"), "authority-a.pem", "no Satellite service"),
            (url.clone(), "none.pem", "none.pem"),
        ] {
            let Said { code, stderr, .. } = run(connecting(&url, authority)).await;
            assert_eq!(code, Some(1), "{url} {authority}: {stderr}");
            assert!(stderr.contains(reason), "{url} {authority}: {stderr}");
        }
        // The new certificate is used, and a bad one is complained about.
        directory.put("b");
        service.logged(&["INFO", "new TLS certificate", "service.pem"]).await;
        assert_eq!(run(connecting(&url, "authority-b.pem")).await.code, Some(0));
        fs::write(directory.path("service.pem"), "no certificate").expect("a file");
        service.logged(&["ERROR", "the old one stays", "service.pem"]).await;
        assert_eq!(run(connecting(&url, "authority-b.pem")).await.code, Some(0));
        assert!(!service.log().contains("panicked"), "{}", service.log());
    }
}
