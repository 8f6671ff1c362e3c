//! The examples that run by themselves, as they are run from a shell: those of the client against
//! `satellite serve` and against a service that asks for what was written.
#![cfg(feature = "cli")]

mod raw;
mod scripted;
mod service;
#[path = "../examples/token_endpoint.rs"]
#[expect(dead_code, reason = "it is a program, of which only the endpoint is run here")]
mod token_endpoint;

use std::{env, fs, process::Stdio};

use electric_satellite::{
    auth::Minter,
    transport::Event,
    wire::{Message, proto::*},
};
use sat_trans_op::Op;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
};

use raw::{PATIENCE, SECRET, guarded};
use scripted::{Kept, Peer, Scripted, insert, items};
use service::{Service, eventually, insecure, secure};

/// An example, as it runs.
struct Example {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Example {
    /// Cargo builds the examples with the tests, beside their folder.
    fn start(name: &str, variables: &[(&str, &str)]) -> Example {
        let test = env::current_exe().expect("a path");
        let target = test.parent().and_then(|deps| deps.parent()).expect("a target folder");
        let example = target.join("examples").join(name);
        let mut command = Command::new(&example);
        command.env_clear().envs(variables.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{}: {error}; `cargo build --examples --all-features`?", example.display())
        });
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Example { child, stdin, lines }
    }

    /// Types a line.
    async fn hears(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it reads");
        stdin.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    /// The next line that begins so.
    async fn says(&mut self, beginning: &str) -> String {
        let mut said = vec![];
        while let Some(line) = guarded(beginning, self.lines.next_line()).await.expect("a text") {
            if line.starts_with(beginning) {
                return line;
            }
            said.push(line);
        }
        panic!("it ends without {beginning:?}: {said:?}");
    }

    async fn ends_when_interrupted(self) {
        let pid = self.child.id().expect("it runs").to_string();
        let kill = Command::new("kill").args(["-INT", &pid]).status().await;
        assert!(kill.expect("kill runs").success());
        self.ends(0).await;
    }

    async fn ends(mut self, code: i32) {
        let mut stderr = String::new();
        let mut errors = self.child.stderr.take().expect("it is piped");
        guarded("the end", errors.read_to_string(&mut stderr)).await.expect("a text");
        let status = guarded("the end", self.child.wait()).await.expect("it can be waited for");
        assert_eq!(status.code(), Some(code), "{stderr}");
    }
}

#[tokio::test]
async fn follow_replicates_is_refused_a_table_that_is_not_there_and_goes_on() {
    let service = Service::start(insecure()).await;
    let (url, kept) = (service.url(), Kept::new("follow.json"));
    let variables = [("SATELLITE_URL", url.as_str()), ("KEPT", kept.path())];
    for _ in 0..2 {
        let mut follow = Example::start("follow", &variables);
        follow.says("replicating").await;
        let refused = follow.says("not subscribed").await;
        assert!(refused.contains("Unknown table items"), "{refused}");
        service.counts("satellite_connections", 1.0).await;
        follow.ends_when_interrupted().await;
        service.counts("satellite_connections", 0.0).await;
    }
    // Both runs were one client.
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(&kept.0).expect("it is kept")).expect("JSON");
    let client_id = json["client_id"].as_str().expect("an id");
    let left = |log: &str| {
        let is_it = |line: &&str| line.contains(client_id) && line.ends_with("by the peer: 1000");
        log.lines().filter(is_it).count()
    };
    eventually("both have left", async || left(&service.log()) == 2).await;
}

#[tokio::test]
async fn follow_prints_rows_and_goes_on_from_where_it_was() {
    let mut service = Scripted::start().await;
    let (url, kept) = (service.url(), Kept::new("rows.json"));
    let variables = [("SATELLITE_URL", url.as_str()), ("KEPT", kept.path())];
    let mut follow = Example::start("follow", &variables);
    let mut peer = service.next().await;
    peer.starts(None).await;
    let subscription_id = peer.subscribes().await.subscription_id;
    follow.says("subscribed").await;
    peer.says(items()).await;
    peer.delivers(&subscription_id, "11", [insert([Some(b"a"), None])]).await;
    assert_eq!(follow.says("insert").await, "insert items: id=\"a\" title=null");
    assert_eq!(peer.acknowledges().await.subscription_ids, [subscription_id.as_str()]);
    follow.ends_when_interrupted().await;

    let follow = Example::start("follow", &variables);
    let start = service.next().await.starts(None).await;
    assert_eq!((start.lsn.as_ref(), start.subscription_ids), (&b"11"[..], vec![subscription_id]));
    follow.ends_when_interrupted().await;
}

#[tokio::test]
async fn token_provider_fetches_a_token_for_every_attempt() {
    let endpoint = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let variable = |name: &str| match name {
            "AUTH_JWT_ALG" => Some("HS256".to_owned()),
            "AUTH_JWT_KEY" => Some(SECRET.to_owned()),
            _ => None,
        };
        let app = token_endpoint::app(Minter::from_vars(variable).expect("a key"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/token")
    };
    let mut command = secure();
    // Each token once, and a connection for a second.
    command.env("AUTH_JWT_ONE_OFF", "100").env("MAX_SESSION_AGE", "1");
    let service = Service::start(command).await;
    let url = service.url();
    let variables = [("SATELLITE_URL", url.as_str()), ("TOKEN_URL", &endpoint)];
    let mut provider = Example::start("token_provider", &variables);
    for reason in ["Connect", "Reconnect", "Reconnect"] {
        assert_eq!(provider.says("fetching").await, format!("fetching a token: {reason}"));
        provider.says("let in by").await;
    }
    provider.ends_when_interrupted().await;
    assert!(!service.log().contains("not authenticated"), "{}", service.log());

    // Whoever is signed out need not try again.
    let signed_out = [&variables[..], &[("SESSION", "another")]].concat();
    let mut provider = Example::start("token_provider", &signed_out);
    provider.says("fetching").await;
    provider.ends(1).await;
}

#[tokio::test]
async fn conformance_finds_nothing_unexpected() {
    let mut conformance = Example::start("conformance", &[]);
    conformance.says("nothing unexpected").await;
    conformance.ends(0).await;
}

#[tokio::test]
async fn offline_needs_no_service_and_keeps_what_none_asks_for() {
    let kept = Kept::new("offline.db");
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("an address")
    };
    let url = format!("ws://{address}");
    let mut offline =
        Example::start("offline", &[("SATELLITE_URL", &url), ("DATABASE", kept.path())]);
    offline.hears("add milk").await;
    assert_eq!(offline.says("wrote").await, "wrote 1");
    offline.hears("connect").await;
    let trouble = offline.says("offline: ").await;
    assert!(trouble.contains("; trying again in "), "{trouble}");
    offline.hears("quit").await;
    offline.ends(0).await;

    let service = Service::start(insecure()).await;
    let url = service.url();
    let mut offline =
        Example::start("offline", &[("SATELLITE_URL", &url), ("DATABASE", kept.path())]);
    offline.hears("add bread").await;
    assert_eq!(offline.says("wrote").await, "wrote 2");
    offline.hears("connect").await;
    offline.says("connected to ").await;
    offline.hears("list").await;
    assert_eq!(offline.says("2 items").await, "2 items, 2 in the outbox");
    offline.hears("disconnect").await;
    offline.says("offline").await;
    service.logged(&["connection ended", "closed by the peer: 1000"]).await;
    // The end of the input is the end.
    drop(offline.stdin.take());
    offline.ends(0).await;
}

#[tokio::test]
async fn offline_sends_what_was_written_when_it_is_asked_in_order_and_once() {
    let mut service = Scripted::start().await;
    let (url, kept) = (service.url(), Kept::new("outbox.db"));
    let variables = [("SATELLITE_URL", url.as_str()), ("DATABASE", kept.path())];
    let mut offline = Example::start("offline", &variables);
    for title in ["one", "two", "three"] {
        offline.hears(&format!("add {title}")).await;
    }
    offline.says("wrote 3").await;
    offline.hears("connect").await;
    let mut peer = service.next().await;
    peer.starts(None).await;
    asks_for_what_comes_after(&mut peer, b"").await;
    let mut written = vec![];
    for expected in ["one", "two", "three"] {
        let (position, title) = hears_a_write(&mut peer).await;
        assert_eq!(title, expected);
        written.push(position);
    }
    // And what is written from then on.
    offline.hears("add four").await;
    assert_eq!(hears_a_write(&mut peer).await.1, "four");
    drop(peer);

    // The service has the first two. Nobody knows whether it has more, so the rest comes again.
    let mut peer = service.next().await;
    peer.starts(None).await;
    asks_for_what_comes_after(&mut peer, &written[1]).await;
    assert_eq!(hears_a_write(&mut peer).await, (written.pop().expect("three"), "three".to_owned()));
    assert_eq!(hears_a_write(&mut peer).await.1, "four");
    offline.hears("list").await;
    offline.says("4 items, 2 in the outbox").await;
    offline.ends_when_interrupted().await;
}

/// Asks for the client's changes, and hears which table they are of.
async fn asks_for_what_comes_after(peer: &mut Peer, position: &[u8]) {
    let lsn = position.to_vec().into();
    let request = SatInStartReplicationReq { lsn, ..Default::default() };
    peer.0.call(request, PATIENCE).await.expect("it answers");
    let Event::Message(Message::Relation(relation)) = peer.hears().await else { panic!("none") };
    assert_eq!(relation.table_name, "items");
}

/// Hears one transaction that inserts one row: its position, and the row's title.
async fn hears_a_write(peer: &mut Peer) -> (Vec<u8>, String) {
    let Event::Message(Message::OpLog(log)) = peer.hears().await else { panic!("no write") };
    let ops: Vec<_> = log.ops.iter().filter_map(|op| op.op.as_ref()).collect();
    let [Op::Begin(begin), Op::Insert(insert), Op::Commit(commit)] = &ops[..] else {
        panic!("{} operations", ops.len())
    };
    assert_eq!(begin.lsn, commit.lsn);
    let row = insert.row_data.as_ref().expect("a row");
    let title = row.read(2).expect("two columns").get(1).expect("a title");
    (begin.lsn.to_vec(), String::from_utf8(title.to_vec()).expect("a text"))
}
