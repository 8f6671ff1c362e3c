//! `satellite load`: what its clients do to a service, and what it tells of it. How fast anything
//! is, no test says.
#![cfg(feature = "cli")]

mod raw;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use electric_satellite::{
    auth::{AuthError, Authenticator, JwtAuthenticator},
    server::Server,
    session::{AuthRequest, AuthenticatedClient, Cause, Close, UnixTime, Verified},
    transport::{Connection, Event},
    wire::{Message, proto::*},
};
use sat_trans_op::Op;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::{OnceCell, mpsc},
    time::Instant,
};

use raw::{PATIENCE, SECRET, bad_token, good_token, guarded};
use service::{Said, Service, eventually, insecure, run, satellite, secure};

/// `satellite load` with unsigned tokens of its own.
fn load(url: &str, arguments: &[&str]) -> Command {
    let mut command = satellite(&["load", url]);
    command.args(arguments).env("AUTH_MODE", "insecure");
    command
}

/// What it tells machines, and how it ends.
async fn result_of(mut command: Command) -> (Value, Option<i32>) {
    command.arg("--json");
    let Said { code, stdout, stderr } = run(command).await;
    let result = serde_json::from_str(&stdout);
    (result.unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")), code)
}

/// The same of one that has nothing to complain of.
async fn good_result_of(command: Command) -> Value {
    let (result, code) = result_of(command).await;
    assert_eq!((code, &result["ok"]), (Some(0), &Value::Bool(true)), "{result:#}");
    assert_eq!(result["failures"].as_array().map(Vec::len), Some(0), "{result:#}");
    result
}

fn number(result: &Value, name: &str) -> u64 {
    result[name].as_u64().unwrap_or_else(|| panic!("{name} in {result:#}"))
}

/// How many came through a phase.
fn count(result: &Value, phase: &str) -> u64 {
    number(&result["latencies_us"][phase], "count")
}

fn phases(result: &Value) -> Vec<&str> {
    result["latencies_us"].as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The failures by what they were.
fn failures(result: &Value) -> BTreeMap<&str, u64> {
    let failures = result["failures"].as_array().expect("an array");
    failures.iter().map(|it| (it["what"].as_str().expect("a text"), number(it, "count"))).collect()
}

fn example(result: &Value) -> &str {
    result["failures"][0]["example"].as_str().expect("a text")
}

/// A service in this process, whose handler is the test's.
struct Embedded {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Embedded {
    async fn start<F>(
        handler: impl Fn(Connection<AuthenticatedClient>) -> F + Clone + Send + Sync + 'static,
    ) -> Embedded
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Embedded::with(JwtAuthenticator::insecure(None), handler).await
    }

    async fn with<F>(
        authenticator: impl Authenticator,
        handler: impl Fn(Connection<AuthenticatedClient>) -> F + Clone + Send + Sync + 'static,
    ) -> Embedded
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let server = Server::new(authenticator);
        let task = tokio::spawn(async move { server.serve(listener, handler).await });
        Embedded { url, task }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for the end of a connection and lets the client do nothing.
async fn attend(mut connection: Connection<AuthenticatedClient>) {
    while connection.recv().await.is_some() {}
}

// ---- Handshakes ----

#[tokio::test]
async fn handshakes_are_made_one_after_the_other_and_all_are_counted() {
    let service = Service::start(insecure()).await;
    let arguments = ["--connections=4", "--duration=1", "--warmup=0"];
    let result = good_result_of(load(&service.url(), &arguments)).await;
    let succeeded = number(&result, "succeeded");
    assert_eq!(phases(&result), ["authenticate", "connect", "upgrade", "whole"]);
    for phase in phases(&result) {
        assert_eq!(count(&result, phase), succeeded, "{phase}");
    }
    for (name, value) in [
        ("what", "handshakes"),
        ("unit", "handshakes"),
        ("url", &service.url()),
        ("version", "electric.0.12"),
        ("loop", "closed"),
        ("latency_from", "begun"),
    ] {
        assert_eq!(result[name], value, "{name}");
    }
    assert_eq!((number(&result, "connections"), number(&result, "users")), (4, 4));
    assert_eq!((number(&result, "unbegun"), &result["interrupted"]), (0, &false.into()));
    assert_eq!(result["traffic"], Value::Null);
    let metrics = service.metrics().await;
    assert_eq!(metrics.sum("satellite_authenticated_total"), succeeded as f64);
    service.counts("satellite_connections", 0.0).await;
}

#[tokio::test]
async fn the_parts_of_a_handshake_are_no_longer_than_the_whole() {
    let service = Service::start(insecure()).await;
    let arguments = ["--connections=1", "--duration=1", "--warmup=0"];
    let result = good_result_of(load(&service.url(), &arguments)).await;
    let mean = |phase: &str| result["latencies_us"][phase]["mean"].as_f64().expect("a number");
    let parts: f64 = ["connect", "upgrade", "authenticate"].into_iter().map(mean).sum();
    // But for three digits of each.
    assert!(parts <= mean("whole") * 1.01, "{result:#}");
    for phase in phases(&result) {
        let marks = ["p50", "p90", "p99", "p99_9", "max"];
        let marks = marks.map(|mark| number(&result["latencies_us"][phase], mark));
        assert!(marks.is_sorted(), "{phase}: {marks:?}");
    }
}

#[tokio::test]
async fn what_begins_in_the_warm_up_does_not_count() {
    let service = Service::start(insecure()).await;
    let arguments = ["--connections=2", "--duration=1", "--warmup=1", "--rate=20"];
    let (result, _) = result_of(load(&service.url(), &arguments)).await;
    let all = service.metrics().await.sum("satellite_authenticated_total");
    // 20 were due in either second.
    assert_eq!(all, (40 - number(&result, "unbegun")) as f64);
    assert!(number(&result, "succeeded") <= 20, "{result:#}");
}

#[tokio::test]
async fn an_open_loop_makes_as_many_as_are_due() {
    let service = Service::start(insecure()).await;
    let arguments = ["--connections=20", "--duration=2", "--warmup=0", "--rate=50"];
    let (result, code) = result_of(load(&service.url(), &arguments)).await;
    assert_eq!((&result["loop"], &result["latency_from"]), (&"open".into(), &"due".into()));
    assert_eq!(result["rate"], 50.0);
    let (succeeded, unbegun) = (number(&result, "succeeded"), number(&result, "unbegun"));
    assert_eq!((succeeded + unbegun, number(&result, "failed")), (100, 0));
    assert_eq!(code, Some(i32::from(unbegun > 0)), "{result:#}");
    assert_eq!((count(&result, "wait"), count(&result, "whole")), (succeeded, succeeded));
}

/// Lets everybody in, but stands still for a while once, from the first client on.
struct Stalling {
    stall: Duration,
    until: OnceCell<Instant>,
    inner: JwtAuthenticator,
}

impl Authenticator for Stalling {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> Result<Verified, AuthError> {
        let until = self.until.get_or_init(async || Instant::now() + self.stall).await;
        tokio::time::sleep_until(*until).await;
        self.inner.authenticate(request, now).await
    }
}

#[tokio::test]
async fn a_stall_of_the_service_shows_in_what_was_due_meanwhile() {
    let stall = Duration::from_secs(1);
    let inner = JwtAuthenticator::insecure(None);
    let stalling = Stalling { stall, until: OnceCell::new(), inner };
    let service = Embedded::with(stalling, attend).await;
    let arguments = ["--connections=2", "--duration=2", "--warmup=0", "--rate=50"];
    let (result, _) = result_of(load(&service.url, &arguments)).await;
    let micros = |phase: &str, mark| number(&result["latencies_us"][phase], mark);
    // Of 100 that were due in two seconds, two were with the service in the first of them. The
    // others waited for those: half of all that have begun for the better part of it, and the more
    // the slower the machine is.
    assert!(micros("wait", "max") > 900_000, "{result:#}");
    assert!(micros("whole", "p50") >= micros("wait", "p50"), "{result:#}");
    assert!(micros("wait", "p90") > 700_000, "{result:#}");
}

#[tokio::test]
async fn what_never_begins_is_told_and_is_no_success() {
    // It lets nobody in before the time is over.
    let inner = JwtAuthenticator::insecure(None);
    let stall = Duration::from_secs(3);
    let stalling = Stalling { stall, until: OnceCell::new(), inner };
    let service = Embedded::with(stalling, attend).await;
    let arguments = ["--connections=1", "--duration=1", "--warmup=0", "--rate=10"];
    let Said { code, stdout, .. } = run(load(&service.url, &arguments)).await;
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("9 were due and never begun"), "{stdout}");
    assert!(stdout.contains("1 handshakes"), "{stdout}");
}

#[tokio::test]
async fn tls_is_a_phase_of_its_own() {
    let certificates = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");
    let file = |name: &str| format!("{certificates}/{name}");
    let mut command = insecure();
    command.env("TLS_CERT", file("a.pem")).env("TLS_KEY", file("a.key"));
    let service = Service::start(command).await;
    let (url, ca) = (service.url().replace("ws:", "wss:"), file("authority-a.pem"));
    let arguments = ["--connections=2", "--duration=1", "--warmup=0", "--ca", &ca];
    let result = good_result_of(load(&url, &arguments)).await;
    assert_eq!(count(&result, "tls"), number(&result, "succeeded"));
    let other = file("authority-b.pem");
    let arguments = ["--connections=1", "--duration=1", "--warmup=0", "--ca", &other];
    let (result, code) = result_of(load(&url, &arguments)).await;
    assert_eq!((code, number(&result, "succeeded")), (Some(1), 0));
    assert_eq!(failures(&result).into_keys().collect::<Vec<_>>(), ["tls failed"]);
}

// ---- Who the clients are ----

/// A service that tells of each client and its user.
async fn registering() -> (Embedded, mpsc::UnboundedReceiver<(String, String)>) {
    let (tell, told) = mpsc::unbounded_channel();
    let service = Embedded::start(move |connection| {
        let tell = tell.clone();
        async move {
            let user = connection.identity().user_id.to_string();
            let _ = tell.send((connection.client_id().as_str().to_owned(), user));
            attend(connection).await;
        }
    });
    (service.await, told)
}

async fn all_of<T>(told: &mut mpsc::UnboundedReceiver<T>) -> Vec<T> {
    let mut all = vec![];
    while let Ok(one) = told.try_recv() {
        all.push(one);
    }
    all
}

#[tokio::test]
async fn each_client_has_an_id_and_the_users_are_as_many_as_asked_for() {
    let (service, mut told) = registering().await;
    for (arguments, users) in [
        (&["idle", "--connections=4", "--duration=1"][..], 4),
        (&["idle", "--connections=4", "--duration=1", "--users=2"], 2),
    ] {
        let result = good_result_of(load(&service.url, arguments)).await;
        assert_eq!(number(&result, "users"), users);
        let clients = all_of(&mut told).await;
        let ids: BTreeSet<_> = clients.iter().map(|(id, _)| id).collect();
        assert_eq!((clients.len(), ids.len()), (4, 4));
        let names: BTreeSet<_> = clients.iter().map(|(_, user)| user.clone()).collect();
        assert_eq!(names, (0..users).map(|nth| format!("user-{nth}")).collect());
    }
}

#[tokio::test]
async fn tokens_are_signed_as_the_service_wants_or_given() {
    let service = Service::start(secure()).await;
    let arguments = ["--connections=2", "--duration=1", "--warmup=0", "--quiet"];
    let mut signed = satellite(&["load", &service.url()]);
    signed.args(arguments).env("AUTH_JWT_ALG", "HS256").env("AUTH_JWT_KEY", SECRET);
    good_result_of(signed).await;
    let mut given = satellite(&["load", &service.url()]);
    given.args(arguments).env("SATELLITE_TOKEN", good_token().expose());
    assert_eq!(number(&good_result_of(given).await, "users"), 1);
    // It is not told what the token is.
    let mut refused = satellite(&["load", &service.url()]);
    let token = bad_token();
    refused.args(arguments).env("SATELLITE_TOKEN", token.expose());
    let Said { code, stdout, stderr } = run(refused).await;
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    assert!(stdout.contains("authentication refused: AUTH_REQUIRED"), "{stdout}");
    assert!(stdout.contains("the service did not accept the token: invalid token signature"));
    let signature = token.expose().rsplit('.').next().expect("a part");
    assert!(!stdout.contains(signature), "{stdout}");
}

#[tokio::test]
async fn clients_dial_from_the_given_addresses_in_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let from = ["idle", "--connections=4", "--source=127.0.0.2", "--source=127.0.0.3"];
    let running = tokio::spawn(result_of(load(&url, &from)));
    let mut dialled = vec![];
    for _ in 0..4 {
        let (_, peer) = guarded("a client", listener.accept()).await.expect("a client");
        dialled.push(peer.ip().to_string());
    }
    dialled.sort();
    assert_eq!(dialled, ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"]);
    let (result, code) = guarded("the result", running).await.expect("it runs");
    assert_eq!((code, number(&result, "failed")), (Some(1), 4), "{result:#}");
}

// ---- Connections that stay ----

#[tokio::test]
async fn idle_connections_live_until_the_end_and_are_closed_normally() {
    let causes = Arc::new(Mutex::new(vec![]));
    let kept = Arc::clone(&causes);
    let service = Embedded::start(move |connection| {
        let kept = Arc::clone(&kept);
        async move {
            let cause = connection.closed().await.cause.clone();
            kept.lock().unwrap().push(cause);
        }
    })
    .await;
    let arguments = ["idle", "--connections=5", "--duration=1", "--rate=20"];
    let result = good_result_of(load(&service.url, &arguments)).await;
    assert_eq!((number(&result, "connected"), number(&result, "succeeded")), (5, 5));
    assert_eq!((count(&result, "wait"), count(&result, "whole")), (5, 5));
    assert_eq!((&result["loop"], &result["per_second"]), (&"open".into(), &Value::Null));
    eventually("all have gone", async || causes.lock().unwrap().len() == 5).await;
    let normal = Cause::Peer(Some(Close::NORMAL));
    assert!(causes.lock().unwrap().iter().all(|cause| *cause == normal), "{causes:?}");
}

#[tokio::test]
async fn what_becomes_of_idle_connections_is_told_by_the_code() {
    let mut service = Service::start(insecure()).await;
    let url = service.url();
    let arguments = ["idle", "--connections=3", "--duration=600"];
    let running = tokio::spawn(result_of(load(&url, &arguments)));
    service.counts("satellite_connections", 3.0).await;
    service.terminate().await;
    // It does not wait when nobody is left.
    let (result, code) = guarded("the result", running).await.expect("it runs");
    assert_eq!((code, number(&result, "connected"), number(&result, "succeeded")), (Some(1), 3, 0));
    assert_eq!(failures(&result), BTreeMap::from([("closed by the service: 1001", 3)]));
}

#[tokio::test]
async fn a_storm_cuts_all_and_all_come_back() {
    let ends = Arc::new(Mutex::new(vec![]));
    let kept = Arc::clone(&ends);
    let service = Embedded::start(move |connection| {
        let kept = Arc::clone(&kept);
        async move {
            let id = connection.client_id().as_str().to_owned();
            let cause = connection.closed().await.cause.clone();
            kept.lock().unwrap().push((id, cause));
        }
    })
    .await;
    let arguments = ["storm", "--connections=20", "--concurrency=3", "--warmup=0"];
    let result = good_result_of(load(&service.url, &arguments)).await;
    assert_eq!((number(&result, "connected"), number(&result, "succeeded")), (20, 20));
    assert_eq!(result["latency_from"], "cut");
    for phase in ["wait", "connect", "upgrade", "authenticate", "whole"] {
        assert_eq!(count(&result, phase), 20, "{phase}");
    }
    let longest = number(&result["latencies_us"]["whole"], "max") as f64 / 1e6;
    let seconds = result["seconds"].as_f64().expect("a number");
    assert!(seconds >= longest * 0.99, "{result:#}");
    eventually("all have gone twice", async || ends.lock().unwrap().len() == 40).await;
    let ends = ends.lock().unwrap();
    let by = |cause: Cause| -> BTreeSet<_> {
        let of_it = ends.iter().filter(|(_, this)| *this == cause);
        of_it.map(|(id, _)| id).collect()
    };
    let (cut, closed) = (by(Cause::Peer(None)), by(Cause::Peer(Some(Close::NORMAL))));
    assert_eq!((cut.len(), closed.len()), (20, 20));
    assert_eq!(cut, closed, "the same clients have come back");
}

// ---- Traffic ----

/// Answers calls to start and to stop, and counts them.
async fn switched(mut connection: Connection<AuthenticatedClient>, calls: Arc<Mutex<[u64; 2]>>) {
    while let Some(event) = connection.recv().await {
        match event {
            Event::StartReplication(_, responder) => {
                calls.lock().unwrap()[0] += 1;
                responder.reply(SatInStartReplicationResp::default());
            }
            Event::StopReplication(_, responder) => {
                calls.lock().unwrap()[1] += 1;
                responder.reply(SatInStopReplicationResp {});
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn calls_are_made_in_turn_and_all_are_counted() {
    for (rate, phases_told) in
        [(None, &["call"][..]), (Some("--rate=50"), &["call", "wait", "whole"])]
    {
        let calls = Arc::new(Mutex::new([0, 0]));
        let kept = Arc::clone(&calls);
        let service =
            Embedded::start(move |connection| switched(connection, Arc::clone(&kept))).await;
        let mut command = load(&service.url, &["calls", "--connections=3", "--duration=1"]);
        command.arg("--warmup=0").args(rate);
        let (result, _) = result_of(command).await;
        let [starts, stops] = *calls.lock().unwrap();
        assert_eq!((number(&result, "succeeded"), number(&result, "failed")), (starts + stops, 0));
        // On each connection, a start comes first.
        assert!(stops > 0 && (stops..=stops + 3).contains(&starts), "{starts} {stops}");
        assert_eq!(phases(&result), phases_told);
        assert_eq!(count(&result, "call"), starts + stops);
    }
}

#[tokio::test]
async fn a_call_that_is_refused_ends_its_client() {
    let service = Embedded::start(attend).await;
    let arguments = ["calls", "--connections=2", "--duration=600", "--warmup=0"];
    let (result, code) = result_of(load(&service.url, &arguments)).await;
    assert_eq!(code, Some(1));
    assert_eq!(failures(&result), BTreeMap::from([("call refused: INTERNAL", 2)]));
}

/// Asks for the client's stream and counts it: messages, transactions, and bytes of texts.
async fn written(mut connection: Connection<AuthenticatedClient>, seen: Arc<Mutex<Vec<Message>>>) {
    while let Some(event) = connection.recv().await {
        match event {
            Event::StartReplication(_, responder) => {
                responder.reply(SatInStartReplicationResp::default());
                let sender = connection.sender().clone();
                tokio::spawn(async move {
                    let _ = sender.call(SatInStartReplicationReq::default(), PATIENCE).await;
                });
            }
            Event::StopReplication(_, responder) => responder.reply(SatInStopReplicationResp {}),
            Event::Message(message) => seen.lock().unwrap().push(message),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn writes_are_all_taken_in_when_they_are_told() {
    let seen = Arc::new(Mutex::new(vec![]));
    let kept = Arc::clone(&seen);
    let service = Embedded::start(move |connection| written(connection, Arc::clone(&kept))).await;
    let arguments = [
        "writes",
        "--connections=2",
        "--duration=1",
        "--warmup=0",
        "--rate=100",
        "--size=1000",
        "--table=notes",
    ];
    let (result, _) = result_of(load(&service.url, &arguments)).await;
    let seen = seen.lock().unwrap();
    let (relations, logs): (Vec<&Message>, _) =
        seen.iter().partition(|message| matches!(message, Message::Relation(_)));
    assert_eq!(relations.len(), 2);
    let Message::Relation(relation) = relations[0] else { unreachable!() };
    let columns: Vec<_> = relation.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!((relation.table_name.as_str(), &columns[..]), ("notes", &["id", "content"][..]));
    let mut ids = BTreeSet::new();
    for message in &logs {
        let Message::OpLog(log) = message else { panic!("{}", message.name()) };
        let ops: Vec<_> = log.ops.iter().filter_map(|op| op.op.as_ref()).collect();
        let [Op::Begin(_), Op::Insert(insert), Op::Commit(_)] = ops[..] else { panic!("{ops:?}") };
        let row = insert.row_data.as_ref().expect("a row").read(2).expect("two columns");
        assert!(ids.insert(row.get(0).expect("an id").clone()), "an id comes again");
        assert_eq!(row.get(1).map(|text| text.len()), Some(1000));
    }
    let sent = logs.len() as u64;
    assert_eq!((number(&result, "succeeded"), number(&result, "failed")), (sent, 0));
    let traffic = &result["traffic"];
    assert_eq!((number(traffic, "messages"), number(traffic, "transactions")), (sent, sent));
    let bytes: usize = logs.iter().map(|message| message.encoded_len()).sum();
    assert_eq!(number(traffic, "bytes"), bytes as u64);
    assert_eq!(phases(&result), ["confirm", "send", "wait", "whole"]);
    assert_eq!((count(&result, "confirm"), count(&result, "send")), (2, sent));
}

#[tokio::test]
async fn a_service_that_takes_no_writes_is_told_of() {
    let service = Service::start(insecure()).await;
    let arguments = ["writes", "--connections=2", "--timeout=1"];
    let (result, code) = result_of(load(&service.url(), &arguments)).await;
    assert_eq!((code, number(&result, "connected")), (Some(1), 2));
    assert_eq!(failures(&result), BTreeMap::from([("not asked for writes", 2)]));
    assert!(example(&result).contains("`satellite serve` has no data"), "{result:#}");
}

/// Sends two transactions in one message to whoever starts, and grants subscriptions to `items`.
async fn sending(mut connection: Connection<AuthenticatedClient>, acks: Arc<Mutex<Vec<u64>>>) {
    while let Some(event) = connection.recv().await {
        match event {
            Event::StartReplication(_, responder) => {
                let unacked_window_size = Some(30);
                responder.reply(SatInStartReplicationResp { unacked_window_size, err: None });
                let transaction = |id: u64| {
                    let lsn = id.to_string();
                    let begin = SatOpBegin {
                        lsn: lsn.clone().into(),
                        transaction_id: Some(id),
                        ..Default::default()
                    };
                    let commit = SatOpCommit { lsn: lsn.into(), ..Default::default() };
                    [Op::Begin(begin), Op::Commit(commit)]
                };
                let ops = [transaction(1), transaction(2)].concat();
                let ops = ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect();
                connection.send(SatOpLog { ops }).await.expect("it can be sent");
            }
            Event::Subscribe(request, responder) => {
                let wanted = &request.shape_requests[0].shape_definition;
                let table = &wanted.as_ref().expect("a shape").selects[0].tablename;
                let err = (table != "items").then(sat_subs_resp::SatSubsError::default);
                let subscription_id = request.subscription_id.clone();
                responder.reply(SatSubsResp { subscription_id, err });
            }
            Event::Message(Message::OpLogAck(ack)) => acks.lock().unwrap().push(ack.transaction_id),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn reads_are_counted_and_acknowledged() {
    let acks = Arc::new(Mutex::new(vec![]));
    let kept = Arc::clone(&acks);
    let service = Embedded::start(move |connection| sending(connection, Arc::clone(&kept))).await;
    let arguments = ["reads", "--connections=3", "--duration=1", "--warmup=0"];
    let mut command = load(&service.url, &arguments);
    command.arg("--subscribe=items");
    let result = good_result_of(command).await;
    assert_eq!((number(&result, "connected"), number(&result, "succeeded")), (3, 3));
    let traffic = &result["traffic"];
    assert_eq!((number(traffic, "messages"), number(traffic, "transactions")), (3, 6));
    assert!(number(traffic, "bytes") > 0);
    assert_eq!(*acks.lock().unwrap(), [2, 2, 2]);
    assert_eq!((phases(&result), &result["loop"]), (vec![], &Value::Null));
    let mut command = load(&service.url, &arguments);
    command.arg("--subscribe=other");
    let (result, code) = result_of(command).await;
    assert_eq!((code, number(&result, "succeeded")), (Some(1), 3));
    assert_eq!(failures(&result), BTreeMap::from([("subscription refused", 3)]));
}

// ---- What goes wrong ----

#[tokio::test]
async fn failures_are_named() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}", closed.local_addr().expect("an address"));
    drop(closed);
    let arguments = ["idle", "--connections=2", "--timeout=1"];
    let (result, code) = result_of(load(&url, &arguments)).await;
    assert_eq!(
        (code, failures(&result)),
        (Some(1), [("unreachable: connection refused", 2)].into())
    );
    assert!(example(&result).ends_with("Is it running?"), "{result:#}");

    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}", silent.local_addr().expect("an address"));
    let (result, _) = result_of(load(&url, &arguments)).await;
    assert_eq!(failures(&result), [("timeout: upgrade", 2)].into());
    assert_eq!(count(&result, "connect"), 2, "so far they came");

    let mut command = insecure();
    command.env("MAX_CONNECTIONS", "1");
    let service = Service::start(command).await;
    let (result, _) =
        result_of(load(&service.url(), &["idle", "--connections=3", "--duration=1"])).await;
    assert_eq!(failures(&result), [("upgrade refused: HTTP 503", 2)].into());
    assert_eq!((number(&result, "connected"), number(&result, "succeeded")), (1, 1));
}

#[tokio::test]
async fn a_closed_loop_of_failures_does_not_become_a_flood() {
    let service = Service::start(secure()).await;
    let arguments = ["--connections=1", "--duration=1", "--warmup=0"];
    let (result, code) = result_of(load(&service.url(), &arguments)).await;
    assert_eq!((code, number(&result, "succeeded")), (Some(1), 0));
    // One at a time, with 100 ms between.
    assert!((1..=10).contains(&number(&result, "failed")), "{result:#}");
}

#[tokio::test]
async fn wrong_usage_is_refused_with_what_to_do() {
    let service = "ws://127.0.0.1:9";
    for (arguments, told) in [
        (&["storm", "--rate=5"][..], "--rate is not for storm: use it with handshakes"),
        (&["--subscribe=a"], "--subscribe is for reads"),
        (&["--size=5"], "--size is for writes"),
        (&["calls", "--table=a"], "--table is for writes"),
        (&["--concurrency=5"], "--concurrency is not for handshakes"),
        (&["--rate=0"], "a number from 0.001"),
        (&["--rate=nan"], "a number from 0.001"),
        (&["--connections=0"], "--connections"),
        (&["dance"], "possible values: handshakes, idle, storm, calls, writes, reads"),
        (&["--source=192.0.2.1"], "--source 192.0.2.1"),
        (&["--source=::1"], "cannot be reached from every --source"),
        (&["--token=t", "--users=2"], "cannot be used with"),
        (&["--protocol=x"], "--protocol takes a version"),
        (&["--ca=/nowhere.pem"], "/nowhere.pem"),
    ] {
        let Said { code, stdout, stderr } = run(load(service, arguments)).await;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
    }
    let Said { code, stderr, .. } = run(load("localhost", &[])).await;
    assert_eq!(code, Some(2), "{stderr}");
    // Without keys there are no tokens.
    let Said { code, stderr, .. } = run(satellite(&["load", service])).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("AUTH_JWT_ALG") && stderr.contains("--token TOKEN"), "{stderr}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_limit_of_open_files_is_known_before_it_is_met() {
    let limited = |limits: &str, arguments: &str| {
        let binary = env!("CARGO_BIN_EXE_satellite");
        let mut command = Command::new("sh");
        let script =
            format!("{limits}; exec {binary} load ws://127.0.0.1:9 idle {arguments} \"$@\"");
        command.args(["-c", &script, "sh"]).env_clear().env("AUTH_MODE", "insecure");
        command
    };
    let hard = limited("ulimit -n 200", "--connections=1000");
    let Said { code, stderr, .. } = run(hard).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("may have 200 open files, which is enough for 136"), "{stderr}");
    // A soft limit is raised: nobody listens there, but that is found out by trying.
    let (result, _) = result_of(limited("ulimit -Sn 30", "--connections=100")).await;
    assert_eq!(failures(&result), [("unreachable: connection refused", 100)].into());
}

// ---- How it is told ----

/// A run that goes on until it is stopped, and has begun.
async fn going_on(url: &str, arguments: &[&str]) -> Child {
    let mut command = load(url, arguments);
    let streams = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let mut told = async |part: &str| {
        let line = guarded("progress", lines.next_line()).await.expect("a text");
        let line = line.expect("it goes on");
        assert!(line.contains(part), "{line}");
    };
    told("   1 s  ").await;
    told("   2 s  ").await;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

async fn interrupted(child: Child) -> Said {
    let pid = child.id().expect("it runs").to_string();
    let kill = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(kill.expect("kill runs").success());
    let mut child = child;
    let mut stdout = String::new();
    let mut output = child.stdout.take().expect("it is piped");
    guarded("the end", output.read_to_string(&mut stdout)).await.expect("a text");
    let status = guarded("the end", child.wait()).await.expect("it can be waited for");
    Said { code: status.code(), stdout, stderr: String::new() }
}

#[tokio::test]
async fn a_run_that_is_interrupted_tells_what_it_has() {
    let service = Service::start(insecure()).await;
    for what in ["handshakes", "idle", "calls", "reads"] {
        let arguments = [what, "--connections=2", "--duration=600", "--warmup=0", "--json"];
        let child = going_on(&service.url(), &arguments).await;
        let Said { code, stdout, .. } = interrupted(child).await;
        let result: Value = serde_json::from_str(&stdout).expect("one JSON object");
        assert_eq!((&result["interrupted"], &result["unbegun"]), (&true.into(), &Value::Null));
        assert_eq!(number(&result, "failed"), 0, "{result:#}");
        let seconds = result["seconds"].as_f64().expect("a number");
        assert!(seconds > 0.5 && seconds < 600.0, "{result:#}");
        assert_eq!((code, &result["ok"]), (Some(0), &true.into()), "{what}: {result:#}");
        if matches!(what, "idle" | "reads") {
            assert_eq!(number(&result, "succeeded"), 2, "{what}");
        }
    }
}

#[tokio::test]
async fn people_are_told_in_a_table_and_progress_is_quiet_if_wanted() {
    let service = Service::start(insecure()).await;
    let arguments = ["--connections=2", "--duration=2", "--warmup=0"];
    let Said { code, stdout, stderr } = run(load(&service.url(), &arguments)).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for part in [
        "2 connections of 2 users; closed loop: each begins the next when the last is over",
        " handshakes, ",
        "latency in ms; the whole counts from when it began",
        " p99.9        max",
        "\nauthenticate ",
        "\nwhole ",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert!(stderr.starts_with("   1 s  ") && stderr.contains(" handshakes, "), "{stderr}");
    let mut quiet = load(&service.url(), &arguments);
    quiet.args(["--quiet", "--rate=20"]);
    let Said { stdout, stderr, .. } = run(quiet).await;
    assert!(stdout.contains("open loop: 20 due in a second"), "{stdout}");
    assert!(stdout.contains("the whole counts from when it was due"), "{stdout}");
    assert_eq!(stderr, "");
}
