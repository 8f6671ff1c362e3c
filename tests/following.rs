//! `satellite connect --follow`: what it prints, keeps and answers, and how it ends.
#![cfg(feature = "cli")]

mod raw;
mod scripted;
mod service;

use std::{fs, process::Stdio};

use electric_satellite::{session::Close, transport::Event, wire::proto::*};
use sat_error_resp::ErrorCode;
use sat_in_start_replication_resp::replication_error::Code;
use sat_trans_op::Op;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
};

use raw::{bad_token, good_token, guarded, unsigned_token};
use scripted::{Kept, Peer, Scripted, insert, items, log, row};
use service::{Said, Service, run, satellite, secure};

/// `satellite connect --follow` to this service.
fn connect(url: &str, arguments: &[&str]) -> Command {
    let mut command = satellite(&["connect", url, "--follow"]);
    command.args(arguments).env("SATELLITE_TOKEN", unsigned_token().expose());
    command
}

fn follow(service: &Scripted, arguments: &[&str]) -> Following {
    Following::start(connect(&service.url(), arguments))
}

/// `satellite connect --follow`, as it runs.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(mut command: Command) -> Following {
        let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Following { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = guarded("a line", self.lines.next_line()).await.expect("a text");
        line.expect("it goes on")
    }

    /// The next line that begins so.
    async fn line_of(&mut self, kind: &str) -> String {
        loop {
            let line = self.line().await;
            if line.starts_with(kind) {
                return line;
            }
        }
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).expect("a JSON object")
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let kill = Command::new("kill").args([signal, &pid]).status().await;
        assert!(kill.expect("kill runs").success());
    }

    /// Waits until it ends.
    async fn end(mut self) -> Said {
        let mut stdout = String::new();
        while let Some(line) = guarded("the end", self.lines.next_line()).await.expect("a text") {
            stdout += &(line + "\n");
        }
        let mut stderr = String::new();
        let mut errors = self.child.stderr.take().expect("it is piped");
        guarded("the end", errors.read_to_string(&mut stderr)).await.expect("a text");
        let status = guarded("the end", self.child.wait()).await.expect("it can be waited for");
        Said { code: status.code(), stdout, stderr }
    }

    async fn ends_by(self, signal: &str) -> Said {
        self.signal(signal).await;
        self.end().await
    }
}

fn begin(transaction_id: u64, lsn: &'static str) -> Op {
    Op::Begin(SatOpBegin {
        lsn: lsn.into(),
        transaction_id: Some(transaction_id),
        commit_timestamp: 1_700_000_000_000,
        ..Default::default()
    })
}

fn commit(lsn: &'static str) -> Op {
    Op::Commit(SatOpCommit { lsn: lsn.into(), ..Default::default() })
}

/// Says everything that can arrive but an error, and hears what is acknowledged. Returns the id of
/// the subscription.
async fn say_everything(peer: &mut Peer) -> String {
    peer.starts(None).await;
    let subscription_id = peer.subscribes().await.subscription_id;
    peer.says(items()).await;
    let migrate = SatOpMigrate {
        version: "m1".into(),
        stmts: vec![sat_op_migrate::Stmt { r#type: 0, sql: "CREATE TABLE items\n()".into() }],
        ..Default::default()
    };
    peer.says(log([begin(1, "10"), Op::Migrate(migrate), commit("10")])).await;
    assert_eq!(peer.acknowledges().await.transaction_id, 1);
    let rows = [
        insert([Some(b"a"), Some(b"a \"secret\"\x1b[2J")]),
        insert([Some(b"b"), None]),
        insert([Some(b"c"), Some(b"\xff\x00")]),
    ];
    peer.delivers(&subscription_id, "11", rows).await;
    let ack = peer.acknowledges().await;
    assert_eq!(ack.transaction_id, 0);
    assert_eq!(ack.subscription_ids, [subscription_id.as_str()]);
    peer.says(changes()).await;
    assert_eq!(peer.acknowledges().await.transaction_id, 2);
    peer.says(log([
        Op::AdditionalBegin(SatOpAdditionalBegin { r#ref: 5 }),
        insert([Some(b"d"), None]),
        Op::AdditionalCommit(SatOpAdditionalCommit { r#ref: 5 }),
    ]))
    .await;
    assert_eq!(peer.acknowledges().await.additional_data_source_ids, [2]);
    let message = "too large".into();
    let error = SatSubsDataError { message, subscription_id, ..Default::default() };
    peer.says(error.clone()).await;
    error.subscription_id
}

/// A transaction of every kind of change but an insert.
fn changes() -> SatOpLog {
    let Op::Begin(begin) = begin(2, "12") else { unreachable!("it begins") };
    let begin = SatOpBegin { additional_data_ref: 5, origin: Some("me".into()), ..begin };
    let update = SatOpUpdate {
        relation_id: 7,
        row_data: row([Some(b"a"), Some(b"new")]),
        old_row_data: row([Some(b"a"), None]),
        tags: vec![],
    };
    let old_row_data = row([Some(b"b"), Some(b"")]);
    let pk_data = row([Some(b"c"), None]);
    log([
        Op::Begin(begin),
        Op::Update(update),
        Op::Delete(SatOpDelete { relation_id: 7, old_row_data, tags: vec![] }),
        Op::Compensation(SatOpCompensation {
            relation_id: 7,
            pk_data: pk_data.clone(),
            tags: vec![],
        }),
        Op::Gone(SatOpGone { relation_id: 7, pk_data }),
        commit("12"),
    ])
}

#[tokio::test]
async fn people_are_told_what_arrives() {
    let mut service = Scripted::start().await;
    let mut following = follow(&service, &["--subscribe", "items"]);
    let mut peer = service.next().await;
    let id = say_everything(&mut peer).await;
    for step in ["connected ", "upgraded ", "authenticated ", "replicating "] {
        let line = following.line().await;
        assert!(line.starts_with(step), "{line}");
    }
    let expected = r#"
subscribed     items subscription="ID"
relation       items schema="public" (id text, title text)
begin          position="10" transaction=1 time_ms=1700000000000 is_migration=false
migration      version="m1" statements=["CREATE TABLE items\n()"]
commit
subscription_begin subscription="ID" position="11"
shape_begin    shape="0"
insert         items (id="a", title="a \"secret\"\u{1b}[2J")
insert         items (id="b", title=null)
insert         items (id="c", title=base64:/wA=)
shape_end
subscription_end
begin          position="12" transaction=2 origin="me" time_ms=1700000000000 is_migration=false
update         items (id="a", title="new") old_row=(id="a", title=null)
delete         items old_row=(id="b", title="")
compensation   items key=(id="c")
gone           items key=(id="c")
commit
additional_begin ref=5
insert         items (id="d", title=null)
additional_commit ref=5
subscription_error subscription="ID" message="too large"
"#;
    for expected in expected.trim().lines() {
        assert_eq!(following.line().await, expected.replace("ID", &id));
    }
    let Said { code, stdout, stderr } = following.ends_by("-INT").await;
    // What arrives is for standard output alone.
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""));
    assert_eq!(peer.left().await.to_string(), "closed by the peer: 1000");
}

#[tokio::test]
async fn machines_are_told_what_arrives() {
    let mut service = Scripted::start().await;
    let arguments = ["--json", "--client-id", "me", "--subscribe", "items"];
    let mut following = follow(&service, &arguments);
    let mut peer = service.next().await;
    let id = say_everything(&mut peer).await;
    let connected = following.json().await;
    assert_eq!(connected["client_id"], "me");
    assert_eq!(connected["version"], "electric.0.12");
    let time = 1_700_000_000_000_u64;
    for expected in [
        json!({ "type": "replicating", "window": 30 }),
        json!({ "type": "subscribed", "subscription": id, "table": "items", "where": null }),
        json!({ "type": "relation", "table": "items", "schema": "public", "columns": [
            { "name": "id", "type": "text", "primary_key": true, "nullable": false },
            { "name": "title", "type": "text", "primary_key": false, "nullable": true },
        ]}),
        json!({ "type": "begin", "position": "10", "transaction": 1, "origin": null,
                "time_ms": time, "is_migration": false }),
        json!({ "type": "migration", "version": "m1", "statements": ["CREATE TABLE items\n()"] }),
        json!({ "type": "commit" }),
        json!({ "type": "subscription_begin", "subscription": id, "position": "11" }),
        json!({ "type": "shape_begin", "shape": "0" }),
        json!({ "type": "insert", "table": "items",
                "row": { "id": "a", "title": "a \"secret\"\u{1b}[2J" } }),
        json!({ "type": "insert", "table": "items", "row": { "id": "b", "title": null } }),
        json!({ "type": "insert", "table": "items",
                "row": { "id": "c", "title": { "base64": "/wA=" } } }),
        json!({ "type": "shape_end" }),
        json!({ "type": "subscription_end" }),
        json!({ "type": "begin", "position": "12", "transaction": 2, "origin": "me",
                "time_ms": time, "is_migration": false }),
        json!({ "type": "update", "table": "items", "row": { "id": "a", "title": "new" },
                "old_row": { "id": "a", "title": null } }),
        json!({ "type": "delete", "table": "items", "old_row": { "id": "b", "title": "" } }),
        json!({ "type": "compensation", "table": "items", "key": { "id": "c" } }),
        json!({ "type": "gone", "table": "items", "key": { "id": "c" } }),
        json!({ "type": "commit" }),
        json!({ "type": "additional_begin", "ref": 5 }),
        json!({ "type": "insert", "table": "items", "row": { "id": "d", "title": null } }),
        json!({ "type": "additional_commit", "ref": 5 }),
        json!({ "type": "subscription_error", "subscription": id, "message": "too large" }),
    ] {
        assert_eq!(following.json().await, expected);
    }
    let Said { code, stderr, .. } = following.ends_by("-TERM").await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(peer.left().await.to_string(), "closed by the peer: 1000");
}

#[tokio::test]
async fn each_condition_belongs_to_the_table_before_it() {
    let mut service = Scripted::start().await;
    let mut following = follow(
        &service,
        &[
            "--subscribe=a",
            "--where=this.x = 1",
            "--subscribe=b",
            "--subscribe=c",
            "--where=this.y = 2",
        ],
    );
    let mut peer = service.next().await;
    peer.starts(None).await;
    let mut asked = vec![];
    for _ in 0..3 {
        let shape = peer.subscribes().await.shape_requests.remove(0).shape_definition;
        let select = shape.expect("a shape").selects.remove(0);
        asked.push((select.tablename, select.r#where));
    }
    asked.sort();
    let expected = [("a", "this.x = 1"), ("b", ""), ("c", "this.y = 2")];
    assert_eq!(asked, expected.map(|(table, condition)| (table.into(), condition.into())));
    following.line_of("subscribed").await;
    assert_eq!(following.ends_by("-INT").await.code, Some(0));
}

#[tokio::test]
async fn an_answer_may_stand_behind_a_long_stream() {
    let mut service = Scripted::start().await;
    let mut following = follow(&service, &["--subscribe", "items"]);
    let mut peer = service.next().await;
    peer.starts(None).await;
    let Event::Subscribe(SatSubsReq { subscription_id, .. }, responder) = peer.hears().await else {
        panic!("no subscription")
    };
    // More than a connection leaves unread.
    for relation_id in 0..100 {
        peer.says(SatRelation { relation_id, ..items() }).await;
    }
    responder.reply(SatSubsResp { subscription_id, err: None });
    following.line_of("subscribed").await;
    assert_eq!(following.ends_by("-INT").await.code, Some(0));
}

#[tokio::test]
async fn the_services_stream_is_asked_for_nothing() {
    let mut service = Scripted::start().await;
    let following = follow(&service, &[]);
    let mut peer = service.next().await;
    peer.starts(None).await;
    let start = peer.0.call(SatInStartReplicationReq::default(), raw::PATIENCE).await;
    assert_eq!(start, Ok(SatInStartReplicationResp::default()));
    let stop = peer.0.call(SatInStopReplicationReq {}, raw::PATIENCE).await;
    assert_eq!(stop, Ok(SatInStopReplicationResp {}));
    assert_eq!(following.ends_by("-INT").await.code, Some(0));
}

/// One transaction, and the data of a subscription after it.
async fn say_a_little(peer: &mut Peer, subscription_id: &str) {
    peer.says(items()).await;
    peer.says(log([begin(1, "10"), commit("10")])).await;
    assert_eq!(peer.acknowledges().await.lsn, "10");
    peer.delivers(subscription_id, "11", []).await;
    assert_eq!(peer.acknowledges().await.subscription_ids, [subscription_id]);
}

fn table(request: &SatSubsReq) -> &str {
    &request.shape_requests[0].shape_definition.as_ref().expect("a shape").selects[0].tablename
}

#[tokio::test]
async fn a_connection_that_is_lost_is_followed_by_one_that_goes_on() {
    let mut service = Scripted::start().await;
    let mut following = follow(&service, &["--subscribe", "items", "--subscribe", "others"]);
    let mut peer = service.next().await;
    peer.starts(None).await;
    let lost = peer.subscribes().await.subscription_id;
    let Event::Subscribe(_, unanswered) = peer.hears().await else { panic!("another one") };
    following.line_of("subscribed").await;
    peer.0.close(Close::new(1001, "gone for a while"));
    drop((peer, unanswered));

    let mut peer = service.next().await;
    assert_eq!(peer.starts(None).await, SatInStartReplicationReq::default());
    let [items, others] = [peer.subscribes().await, peer.subscribes().await];
    assert_eq!([table(&items), table(&others)], ["items", "others"]);
    assert_ne!(items.subscription_id, lost);
    say_a_little(&mut peer, &items.subscription_id).await;
    drop(peer);

    let mut peer = service.next().await;
    let start = peer.starts(None).await;
    assert_eq!(start.lsn, "11");
    assert_eq!(start.subscription_ids, [items.subscription_id]);
    // What has not come is asked for again, and no more.
    assert_eq!(table(&peer.subscribes().await), "others");
    let Said { code, stderr, .. } = following.ends_by("-INT").await;
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].contains("1001 \"gone for a while\""), "{stderr}");
    assert!(lines.iter().all(|line| line.contains("; trying again in ")), "{stderr}");
}

#[tokio::test]
async fn who_cannot_go_on_begins_anew() {
    let mut service = Scripted::start().await;
    let following = follow(&service, &["--subscribe", "items"]);
    let mut peer = service.next().await;
    peer.starts(None).await;
    let id = peer.subscribes().await.subscription_id;
    say_a_little(&mut peer, &id).await;
    drop(peer);
    let mut peer = service.next().await;
    assert_eq!(peer.starts(Some(Code::BehindWindow)).await.lsn, "11");
    drop(peer);
    let mut peer = service.next().await;
    assert_eq!(peer.starts(None).await, SatInStartReplicationReq::default());
    assert_eq!(table(&peer.subscribes().await), "items");
    let Said { code, stderr, .. } = following.ends_by("-INT").await;
    assert_eq!(code, Some(0));
    assert!(stderr.contains("BEHIND_WINDOW: \"so\"; beginning anew"), "{stderr}");
}

#[tokio::test]
async fn a_file_keeps_how_far_it_came() {
    let mut service = Scripted::start().await;
    let kept = Kept::new("how-far-it-came");
    let from = ["--from", kept.path()];
    let following = follow(&service, &[&from[..], &["--subscribe=items"]].concat());
    let mut peer = service.next().await;
    let client_id = peer.0.client_id().clone();
    peer.starts(None).await;
    let id = peer.subscribes().await.subscription_id;
    say_a_little(&mut peer, &id).await;
    assert_eq!(following.ends_by("-TERM").await.code, Some(0));

    // The subscription is in the file, and one to the same rows is not another.
    for more in [&[][..], &["--subscribe=items"]] {
        let following = follow(&service, &[&from[..], more].concat());
        let mut peer = service.next().await;
        assert_eq!(*peer.0.client_id(), client_id);
        let start = peer.starts(None).await;
        assert_eq!(start.lsn, "11");
        assert_eq!(start.subscription_ids, [id.as_str()]);
        peer.says(items()).await;
        peer.says(log([begin(2, "11"), commit("11")])).await;
        assert_eq!(peer.acknowledges().await.transaction_id, 2);
        assert_eq!(following.ends_by("-TERM").await.code, Some(0));
    }

    // What was kept is not thrown away unasked.
    let following = follow(&service, &from);
    let mut peer = service.next().await;
    peer.starts(Some(Code::BehindWindow)).await;
    let Said { code, stderr, .. } = following.end().await;
    assert_eq!(code, Some(1), "{stderr}");
    let advice = format!("it cannot go on from where {} says: remove that", kept.path());
    assert!(stderr.contains("BEHIND_WINDOW") && stderr.contains(&advice), "{stderr}");
}

#[tokio::test]
async fn a_file_of_another_kind_is_left_alone() {
    let service = Scripted::start().await;
    let kept = Kept::new("of-another-kind");
    for contents in ["", "[]", "{}", "{\"client_id\": 1}"] {
        fs::write(&kept.0, contents).expect("it can be written");
        let Said { code, stderr, .. } =
            run(connect(&service.url(), &["--from", kept.path()])).await;
        assert_eq!(code, Some(1), "{contents}: {stderr}");
        assert!(stderr.contains(kept.path()), "{contents}: {stderr}");
        assert_eq!(fs::read_to_string(&kept.0).expect("it is there"), contents);
    }
}

#[tokio::test]
async fn a_service_that_is_away_is_waited_for() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("an address")
    };
    let mut following = Following::start(connect(&format!("ws://{address}"), &[]));
    let mut errors = BufReader::new(following.child.stderr.take().expect("it is piped")).lines();
    for _ in 0..2 {
        let line = guarded("a line", errors.next_line()).await.expect("a text").expect("a line");
        assert!(line.contains("no service answers"), "{line}");
        assert!(line.contains("; trying again in "), "{line}");
    }
    following.signal("-INT").await;
    let status = guarded("the end", following.child.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn it_fails_when_the_client_gives_up() {
    let service = Service::start(secure()).await;
    let token = bad_token();
    let mut command = satellite(&["connect", &service.url(), "--follow", "--json"]);
    command.env("SATELLITE_TOKEN", token.expose());
    let Said { code, stdout, stderr } = run(command).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let last = stderr.lines().last().expect("a line");
    assert!(last.starts_with("failed ") && last.ends_with("another token is needed"), "{stderr}");
    assert!(!stderr.contains(token.expose()), "{stderr}");

    let mut service = Scripted::start().await;
    let following = follow(&service, &[]);
    let mut peer = service.next().await;
    peer.starts(None).await;
    peer.0.fail(SatErrorResp::of(ErrorCode::InvalidRequest));
    let Said { code, stderr, .. } = following.end().await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("INVALID_REQUEST; trying again is of no use until "), "{stderr}");
}

#[tokio::test]
async fn a_command_is_asked_for_a_token_before_every_attempt() {
    let service = Service::start(secure()).await;
    let (good, bad) = (good_token(), bad_token());
    let asked = Kept::new("asked");
    let command = format!(
        "echo $SATELLITE_TOKEN_REASON >> {}; test $SATELLITE_TOKEN_REASON = connect && echo {} || echo {}",
        asked.path(),
        bad.expose(),
        good.expose(),
    );
    let arguments = ["connect", &service.url(), "--follow", "--token-command", &command];
    let mut following = Following::start(satellite(&arguments));
    following.line_of("replicating").await;
    let Said { code, stdout, stderr } = following.ends_by("-INT").await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("did not accept the token"), "{stderr}");
    assert_eq!(fs::read_to_string(&asked.0).expect("it was asked"), "connect\nrejected\n");
    for token in [&good, &bad] {
        assert!(!stdout.contains(token.expose()) && !stderr.contains(token.expose()), "{stderr}");
    }
    // It serves a single connection as well, and takes the place of a token.
    let command = format!("echo {}", good.expose());
    let mut command = satellite(&["connect", &service.url(), "--token-command", &command]);
    command.env("SATELLITE_TOKEN", bad.expose());
    let Said { code, stderr, .. } = run(command).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_command_that_cannot_be_run_is_the_end() {
    let service = Service::start(secure()).await;
    let arguments = ["connect", &service.url(), "--follow", "--token-command", "no-such-command"];
    let Said { code, stdout, stderr } = run(satellite(&arguments)).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("the token command cannot be run"), "{stderr}");
    // One that fails has none for now.
    let arguments = ["connect", &service.url(), "--token-command", "echo a secret; exit 3"];
    let Said { code, stderr, .. } = run(satellite(&arguments)).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("exit status: 3") && !stderr.contains("secret"), "{stderr}");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let mut service = Scripted::start().await;
    let mut following = follow(&service, &[]);
    let mut peer = service.next().await;
    peer.starts(None).await;
    following.line_of("replicating").await;
    let Following { mut child, lines } = following;
    drop(lines);
    peer.says(items()).await;
    let output = guarded("the end", child.wait()).await.expect("it ends");
    assert_eq!(output.code(), Some(0));
    let mut stderr = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).await.expect("a text");
    assert_eq!(stderr, "");
    assert_eq!(peer.left().await.to_string(), "closed by the peer: 1000");
}

#[tokio::test]
async fn what_makes_no_sense_is_a_mistake_of_use() {
    for arguments in [
        &["--subscribe=a"][..],
        &["--from=state.json"],
        &["--follow", "--where=this.x = 1"],
        &["--follow", "--where=this.x = 1", "--subscribe=a"],
        &["--follow", "--subscribe=a", "--where=this.x = 1", "--where=this.y = 1"],
    ] {
        let mut command = satellite(&["connect", "ws://localhost", "--token=t"]);
        command.args(arguments);
        let Said { code, stdout, stderr } = run(command).await;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
    }
    let Said { code, .. } = run(satellite(&["connect", "ws://localhost", "--follow"])).await;
    assert_eq!(code, Some(2), "without a token");
}
