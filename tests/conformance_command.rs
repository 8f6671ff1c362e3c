//! `satellite conformance server` as it is run from a shell: against `satellite serve`, and against
//! servers that are none.
#![cfg(feature = "cli")]

mod raw;
mod service;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

use raw::{SECRET, unsigned_token};
use service::{Said, Service, insecure, run, satellite, secure};

/// The command against a server at this URL, with tokens for insecure mode.
fn conformance(url: &str, options: &[&str]) -> Command {
    let mut command = satellite(&["conformance", "server", url]);
    command.args(options).env("AUTH_MODE", "insecure");
    command
}

/// The same without a server, which is not got to.
async fn nowhere(options: &[&str]) -> Said {
    run(conformance("ws://127.0.0.1:1", options)).await
}

// ---- Against a service ----

#[tokio::test]
async fn a_service_in_insecure_mode_keeps_every_rule() {
    let service = Service::start(insecure()).await;
    let said = run(conformance(&service.url(), &[])).await;
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.ends_with("nothing unexpected\n"), "{}", said.stdout);
    assert!(said.stdout.contains("it needs a server in secure mode"), "{}", said.stdout);
}

#[tokio::test]
async fn a_service_in_secure_mode_keeps_every_rule() {
    let service = Service::start(secure()).await;
    let mut command = satellite(&["conformance", "server", &service.url()]);
    command.env("AUTH_JWT_ALG", "HS256").env("AUTH_JWT_KEY", SECRET);
    let said = run(command).await;
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(!said.stdout.contains("it needs a server in secure mode"), "{}", said.stdout);
}

#[tokio::test]
async fn a_command_can_print_the_tokens() {
    let service = Service::start(insecure()).await;
    let token = unsigned_token();
    let print = format!("echo {}", token.expose());
    let only = ["--only", "SAT-AUTH-001", "--json", "--token-command"];
    let said = run(conformance(&service.url(), &[&only[..], &[&print]].concat())).await;
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert_eq!(cases(&said)[0]["standing"], "passed");
    // Without a token nothing can be said of the server.
    let said = run(conformance(&service.url(), &[&only[..], &["exit 3"]].concat())).await;
    assert_eq!(said.code, Some(1));
    let reason = cases(&said)[0]["behaviour"]["reason"].clone();
    assert_eq!(reason, "there is no token: the token command: exit status: 3");
}

#[tokio::test]
async fn a_known_failure_that_passes_is_unexpected() {
    let service = Service::start(insecure()).await;
    let known = Scratch::new("passes-now");
    fs::write(&known.0, "# Fixed long ago.\nSAT-AUTH-001 # or is it?\n\n").expect("a file");
    let said = run(conformance(&service.url(), &["--only=sat-auth-001", "--known", known.path()]));
    let said = said.await;
    assert_eq!(said.code, Some(1), "{}", said.stdout);
    assert!(said.stdout.contains("1 passes now of 1 case"), "{}", said.stdout);
}

#[tokio::test]
async fn a_known_failure_is_run_and_does_not_count() {
    let known = Scratch::new("known");
    fs::write(&known.0, "SAT-AUTH-001\n").expect("a file");
    let said = nowhere(&["--only=SAT-AUTH-001", "--json", "--known", known.path()]).await;
    assert_eq!(said.code, Some(0), "{}", said.stdout);
    assert_eq!(cases(&said)[0]["standing"], "known failure");
    assert_eq!(cases(&said)[0]["behaviour"]["verdict"], "fail");
}

// ---- Usage ----

#[tokio::test]
async fn wrong_usage_is_told_apart_from_a_server_that_fails() {
    let known = Scratch::new("unknown");
    fs::write(&known.0, "SAT-AUTH-001\nSAT-NONE-001\n").expect("a file");
    for (options, reason) in [
        (&["--only", "SAT-NONE"][..], "--only: no case is called SAT-NONE, or begins so"),
        (&["--skip", "SAT-"], "no case is selected"),
        (&["--explain", "SAT-NONE-001"], "no case is called SAT-NONE-001"),
        (&["--known", known.path()], ":2: no case is called SAT-NONE-001"),
        (&["--junit", "/nonexistent/report.xml"], "/nonexistent/report.xml: No such file"),
        (&["--profile", "electric-0.1"], "invalid value 'electric-0.1'"),
        (&["--jobs", "0"], "invalid value '0'"),
        (&["--auth-mode", "lax"], "Must be one of"),
    ] {
        let said = nowhere(options).await;
        assert_eq!(said.code, Some(2), "{options:?}: {}", said.stdout);
        assert!(said.stderr.contains(reason), "{options:?}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{options:?}");
    }
    let said = run(conformance("ftp://localhost", &[])).await;
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    // No keys, and no command that prints tokens.
    let said = run(satellite(&["conformance", "server", "ws://127.0.0.1:1"])).await;
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("--token-command"), "{}", said.stderr);
}

#[tokio::test]
async fn cases_are_listed_and_explained_without_a_server() {
    let said = run(satellite(&["conformance", "server", "--list", "--only=SAT-AUTH"])).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.starts_with("SAT-AUTH-001  MUST    A server MUST "), "{}", said.stdout);
    let said = run(satellite(&["conformance", "server", "--list", "--json"])).await;
    let listed: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(listed[0]["versions"][0], "electric.0.6");
    let said = run(satellite(&["conformance", "server", "--explain", "sat-auth-003"])).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for part in ["SAT-AUTH-003 (MUST)", "otherwise ", "  1. open a connection", "profile strict"] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
}

// ---- Against what is no service ----

/// What is at the other end.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// It accepts, and says nothing.
    Nothing,
    /// It closes at once.
    Gone,
    /// It takes an HTTP request for one for a page.
    Page,
    /// Bytes without end, which are nothing.
    Garbage,
    /// The beginning of an HTTP answer, for ever.
    HalfAHead,
    /// An HTTP answer that promises more than there is.
    LongBody,
    /// A WebSocket that sends pings without end, and does not read.
    Pings,
    /// A WebSocket that sends a message without end.
    Fragments,
    /// A WebSocket that announces a frame of almost 2⁶³ bytes, and sends on.
    LongFrame,
    /// A WebSocket that sends a long message of the protocol, again and again.
    Rows,
}

/// What is dangerous in a page, in XML and on a terminal.
const PAGE: &str = "<script>alert('\x1b[31m')</script>& \u{202e} \x00 ]]>";

impl Lie {
    /// Listens for as long as the test runs.
    async fn tell(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.to(stream));
            }
        });
        format!("ws://{address}")
    }

    /// Ends when the suite does.
    async fn to(self, mut stream: TcpStream) -> std::io::Result<()> {
        match self {
            Lie::Gone => return Ok(()),
            Lie::Nothing => {}
            Lie::Page => {
                let _request = stream.read(&mut [0; 4096]).await?;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PAGE.len());
                stream.write_all(&[head.as_bytes(), PAGE.as_bytes()].concat()).await?;
            }
            Lie::Garbage => loop {
                stream.write_all(&[0xc3, 0x28, 0x00, 0xff, 0x0a].repeat(4000)).await?;
            },
            Lie::HalfAHead => loop {
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nX: y\r\n").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            },
            Lie::LongBody => {
                let head =
                    b"HTTP/1.1 101 Switching\r\nContent-Length: 18446744073709551615\r\n\r\n";
                stream.write_all(head).await?;
            }
            Lie::Pings => {
                upgrade(&mut stream).await?;
                loop {
                    stream.write_all(&of_server(0x89, b"are you there?").repeat(1000)).await?;
                }
            }
            Lie::Fragments => {
                upgrade(&mut stream).await?;
                stream.write_all(&of_server(0x02, b"\x03")).await?;
                loop {
                    stream.write_all(&of_server(0x00, &[b'x'; 60_000])).await?;
                }
            }
            Lie::LongFrame => {
                upgrade(&mut stream).await?;
                stream.write_all(&head_of(0x82, i64::MAX as u64)).await?;
                loop {
                    stream.write_all(&[b'x'; 60_000]).await?;
                }
            }
            Lie::Rows => {
                upgrade(&mut stream).await?;
                // An operation of the log that holds much, which is passed over.
                let message = raw_operations(500_000);
                loop {
                    stream.write_all(&of_server(0x82, &message)).await?;
                }
            }
        }
        // Until the suite goes.
        while stream.read(&mut [0; 4096]).await? > 0 {}
        Ok(())
    }
}

/// Agrees to whatever is asked for with the key of RFC 6455 §1.3, which the suite always sends.
async fn upgrade(stream: &mut TcpStream) -> std::io::Result<()> {
    let _request = stream.read(&mut [0; 4096]).await?;
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                Sec-WebSocket-Protocol: electric.0.12\r\n\r\n";
    stream.write_all(head.as_bytes()).await
}

/// A frame without a mask.
fn of_server(first: u8, payload: &[u8]) -> Vec<u8> {
    [&head_of(first, payload.len() as u64), payload].concat()
}

/// The head of one, with the longest form of a length.
fn head_of(first: u8, length: u64) -> [u8; 10] {
    let mut head = [0; 10];
    (head[0], head[1]) = (first, 127);
    head[2..].copy_from_slice(&length.to_be_bytes());
    head
}

/// A message of so many empty operations.
fn raw_operations(count: usize) -> Vec<u8> {
    use electric_satellite::wire::{Message, proto::SatOpLog};
    let log = SatOpLog { ops: vec![Default::default(); count] };
    Message::from(log).encode().to_vec()
}

/// Runs some cases in 1 GiB of memory, and looks at how they fail.
async fn fails(lie: Lie) -> Said {
    fails_within(lie, 1).await
}

/// The same with so many seconds for each step.
async fn fails_within(lie: Lie, seconds: u32) -> Said {
    let url = lie.tell().await;
    let limited = format!(
        "ulimit -v 1048576; exec {} conformance server {url} --only SAT-AUTH-00 --timeout {seconds} \
         --jobs 4 --json",
        env!("CARGO_BIN_EXE_satellite")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &limited]).env_clear().env("AUTH_MODE", "insecure").kill_on_drop(true);
    let said = run(command).await;
    assert_eq!(said.code, Some(1), "{lie:?}: {}{}", said.stdout, said.stderr);
    let cases = cases(&said);
    let mut failed = 0;
    for case in &cases {
        let (standing, reason) = (case["standing"].as_str(), &case["behaviour"]["reason"]);
        assert_ne!(standing, Some("passed"), "{lie:?}: {case:#}");
        let took = case["took_ms"].as_u64().expect("a time");
        assert!(took < 60_000, "{lie:?}: {case:#}");
        if standing == Some("failed") {
            let close = &case["close"]["reason"];
            assert!(reason.is_string() || close.is_string(), "{lie:?}: {case:#}");
            failed += 1;
        }
    }
    assert!(failed >= 2, "{lie:?}: {}", said.stdout);
    // Conversations are cut, however long they were.
    assert!(said.stdout.len() < cases.len() * 2_000_000, "{lie:?}: {} bytes", said.stdout.len());
    said
}

fn cases(said: &Said) -> Vec<Value> {
    let report: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", said.stdout, said.stderr);
    });
    report["cases"].as_array().expect("cases").clone()
}

#[track_caller]
fn assert_reason(said: &Said, part: &str) {
    assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
}

#[tokio::test]
async fn a_server_that_is_not_there_fails_every_case() {
    let said = nowhere(&["--json"]).await;
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    for case in cases(&said) {
        assert!(case["standing"] == "failed" || case["standing"] == "skipped", "{case:#}");
    }
    assert_reason(&said, "cannot connect: ");
}

#[tokio::test]
async fn a_silent_server_fails() {
    let said = fails(Lie::Nothing).await;
    assert_reason(&said, "no HTTP answer within 1s");
    // It is called by its name.
    assert_reason(&said, "\\r\\nHost: 127.0.0.1:");
}

#[tokio::test]
async fn a_server_that_closes_at_once_fails() {
    assert_reason(&fails(Lie::Gone).await, "the connection ended instead of an HTTP answer");
}

#[tokio::test]
async fn a_web_server_fails() {
    assert_reason(&fails(Lie::Page).await, "expected HTTP 101; the answer is");
}

#[tokio::test]
async fn garbage_fails() {
    assert_reason(&fails(Lie::Garbage).await, "more than an HTTP message");
}

#[tokio::test]
async fn half_an_answer_fails() {
    assert_reason(&fails(Lie::HalfAHead).await, "no HTTP answer within 1s");
    assert_reason(&fails(Lie::LongBody).await, "no HTTP answer within 1s");
}

#[tokio::test]
async fn a_server_that_pings_without_end_fails() {
    fails(Lie::Pings).await;
}

#[tokio::test]
async fn a_message_without_end_fails() {
    assert_reason(&fails_within(Lie::Fragments, 30).await, "a message of more than 16 MiB");
    assert_reason(&fails_within(Lie::LongFrame, 30).await, "a frame of more than 16 MiB");
}

#[tokio::test]
async fn a_server_that_streams_without_end_fails() {
    fails(Lie::Rows).await;
}

#[tokio::test]
async fn a_run_has_a_deadline() {
    let url = Lie::Nothing.tell().await;
    let options = ["--only=SAT-AUTH-001", "--timeout=600", "--deadline=1", "--json"];
    let said = run(conformance(&url, &options)).await;
    assert_eq!(said.code, Some(1));
    assert_reason(&said, "it was not done when the run was over, after 1s");
}

#[tokio::test]
async fn what_a_server_says_stays_text_in_every_report() {
    let url = Lie::Page.tell().await;
    let (html, junit) = (Scratch::new("report.html"), Scratch::new("report.xml"));
    let options = ["--only=SAT-AUTH-001", "--html", html.path(), "--junit", junit.path()];
    let said = run(conformance(&url, &options)).await;
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let html = fs::read_to_string(&html.0).expect("a page");
    let junit = fs::read_to_string(&junit.0).expect("XML");
    for text in [&html, &junit, &said.stdout] {
        assert!(text.contains("alert("), "{text}");
        let is_control = |byte: u8| byte.is_ascii_control() && byte != b'\n';
        assert_eq!(text.bytes().find(|byte| is_control(*byte)), None, "{text}");
    }
    for text in [&html, &junit] {
        assert!(!text.contains("<script>alert") && !text.contains("]]>"), "{text}");
    }
    assert!(!html.contains('\u{202e}'), "{html}");
    // It needs nothing from anywhere.
    for part in [" src=", "<link", "url(", "@import"] {
        assert!(!html.contains(part), "{part}");
    }
    assert!(junit.contains("<failure type=\"behaviour\" message=\"expected HTTP 101"), "{junit}");
}

/// A file that is gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("satellite-conformance-{}-{name}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
