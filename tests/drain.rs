//! How a service stops: no call that was answered loses its answer, nobody new comes in, and the
//! clients are told when to come back, one after the other.
//!
//! Where the clients are in memory, time is paused and every wait exact. What needs a listener or
//! a process runs in real time, and waits for events.

mod peers;

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::Authenticator,
    registry::Registry,
    server::{Drain, Server, empty_database},
    session::AuthenticatedClient,
    transport::{Connection, Event},
    wire::{
        Reply,
        proto::{SatSubsReq, SatSubsResp},
    },
};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep},
};

use peers::{
    Heard, Manners, POLITE, Peer, SECOND, WIDE, dial, ends, http, serve, server, soon, token_of,
    upgrade_request,
};

const MS: Duration = Duration::from_millis(1);

/// What a client is told by default.
const STOPS: Heard = Heard::closed(1001, "Service stops, retry after 5 s");

fn drain<A: Authenticator, R: Registry>(
    server: &Server<A, R>,
    drain: Drain,
) -> JoinHandle<Duration> {
    let (server, start) = (server.clone(), Instant::now());
    tokio::spawn(async move {
        server.drain(drain).await;
        start.elapsed()
    })
}

async fn let_in<A: Authenticator, R: Registry>(server: &Server<A, R>, id: &str) -> Peer {
    let (stream, _served) = dial(server, WIDE, empty_database);
    let mut peer = Peer::upgrade(stream).await;
    peer.authenticate(id, &token_of("u")).await;
    peer
}

/// A call by the name that its answer repeats.
fn call_named(name: &str) -> SatSubsReq {
    SatSubsReq { subscription_id: name.into(), ..Default::default() }
}

// Under load.

/// Calls, by client and name.
type Calls = BTreeSet<(String, String)>;

/// What a service has read and answered.
#[derive(Clone, Default)]
struct Ledger {
    read: Arc<Mutex<Calls>>,
    answered: Arc<Mutex<Calls>>,
}

impl Ledger {
    /// Answers calls, each after a time that depends on its name: one after the other, or all at
    /// the same time.
    async fn serve(self, mut connection: Connection<AuthenticatedClient>, at_once: bool) {
        while let Some(event) = connection.recv().await {
            let Event::Subscribe(SatSubsReq { subscription_id, .. }, responder) = event else {
                panic!("{event:?}");
            };
            let call = (connection.client_id().as_str().to_owned(), subscription_id.clone());
            self.read.lock().expect("no panic").insert(call.clone());
            let answered = Arc::clone(&self.answered);
            let answer = async move {
                sleep(delay(&call)).await;
                responder.reply(SatSubsResp { subscription_id, err: None });
                answered.lock().expect("no panic").insert(call);
            };
            match at_once {
                true => drop(tokio::spawn(answer)),
                false => answer.await,
            }
        }
    }
}

const LONGEST: Duration = Duration::from_millis(40);

/// From nothing to [`LONGEST`].
fn delay((client, name): &(String, String)) -> Duration {
    let sum: u32 = client.bytes().chain(name.bytes()).map(u32::from).sum();
    MS * (sum * 7919 % 41)
}

/// What came of a client that calls all the time.
struct Caller {
    received: Calls,
    end: Heard,
    at: Instant,
}

/// Calls, so many calls at a time, until the connection ends.
async fn call_on(mut peer: Peer, client: String, window: usize) -> Caller {
    let (mut made, mut received) = (0, Calls::new());
    loop {
        while made < received.len() + window {
            made += 1;
            let id = u32::try_from(made).expect("few calls") + 1;
            peer.call(id, call_named(&made.to_string())).await;
        }
        match peer.hear_at().await {
            (at, end @ (Heard::Close(_) | Heard::Gone)) => return Caller { received, end, at },
            (_, heard) => {
                let Ok(Reply::Subscribe(answer)) = heard.reply() else { panic!("{heard:?}") };
                received.insert((client.clone(), answer.subscription_id));
            }
        }
    }
}

/// Lets clients call until they are told to go, and looks whether everything was answered.
async fn drain_under_load(window: usize, at_once: bool) {
    const CLIENTS: usize = 50;
    let (server, ledger) = (server(), Ledger::default());
    let mut callers = vec![];
    for client in 0..CLIENTS {
        let (client, ledger) = (client.to_string(), ledger.clone());
        let (stream, _served) = dial(&server, WIDE, move |it| ledger.serve(it, at_once));
        let mut peer = Peer::upgrade(stream).await;
        peer.authenticate(&client, &token_of("u")).await;
        callers.push(tokio::spawn(call_on(peer, client, window)));
    }
    sleep(SECOND).await;
    let start = Instant::now();
    let drained = drain(&server, Drain::default());
    let mut received = Calls::new();
    for caller in callers {
        let caller = ends(caller).await.expect("no panic");
        assert_eq!(caller.end, STOPS);
        // A client is gone when what it had asked for is answered.
        let last = 2 * SECOND + LONGEST * u32::try_from(window).expect("small");
        assert!(caller.at - start <= last, "{:?}", caller.at - start);
        received.extend(caller.received);
    }
    assert!(ends(drained).await.expect("no panic") <= 3 * SECOND);
    assert!(received.len() > CLIENTS * 20, "no load: {} calls", received.len());
    assert_lost_nothing(&ledger, &received);
}

/// Every call that was read was answered, and every answer has arrived.
fn assert_lost_nothing(ledger: &Ledger, received: &Calls) {
    let read = ledger.read.lock().expect("no panic");
    let answered = ledger.answered.lock().expect("no panic");
    let lost: Vec<_> = answered.difference(received).collect();
    assert!(lost.is_empty(), "answered and not received: {lost:?}");
    let forgotten: Vec<_> = read.difference(&answered).collect();
    assert!(forgotten.is_empty(), "read and not answered: {forgotten:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_loses_no_answer_of_clients_that_call_all_the_time() {
    drain_under_load(1, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_loses_no_answer_of_clients_that_do_not_wait_for_answers() {
    drain_under_load(4, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_loses_no_answer_that_is_given_on_another_task() {
    drain_under_load(4, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_over_tcp_loses_no_answer_and_then_serve_returns() {
    const CLIENTS: usize = 30;
    let (server, ledger) = (server(), Ledger::default());
    let (address, serving) = {
        let ledger = ledger.clone();
        serve(&server, move |it| ledger.clone().serve(it, true)).await
    };
    let mut callers = vec![];
    for client in 0..CLIENTS {
        let mut peer = Peer::upgrade(connect(address).await).await;
        peer.authenticate(&client.to_string(), &token_of("u")).await;
        callers.push(tokio::spawn(call_on(peer, client.to_string(), 1 + client % 4)));
    }
    // As soon as there is load.
    soon(async {
        while ledger.answered.lock().expect("no panic").len() < CLIENTS * 10 {
            sleep(MS).await;
        }
    })
    .await;
    let spread = SECOND / 2;
    let drained = drain(&server, Drain { spread, ..Drain::default() });
    let mut received = Calls::new();
    for caller in callers {
        let caller = soon(caller).await.expect("no panic");
        assert_eq!(caller.end, STOPS);
        received.extend(caller.received);
    }
    soon(drained).await.expect("no panic");
    assert_lost_nothing(&ledger, &received);
    soon(serving).await.expect("no panic");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

async fn connect(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream
}

// One after the other, and within bounds.

#[tokio::test(start_paused = true)]
async fn ends_are_spread_over_the_window() {
    let server = server();
    let mut peers = vec![];
    for id in 0..10 {
        peers.push(let_in(&server, &id.to_string()).await);
    }
    let start = Instant::now();
    let drained = drain(&server, Drain { spread: 2 * SECOND, ..Drain::default() });
    let mut ended = vec![];
    for mut peer in peers {
        let (at, heard) = peer.hear_at().await;
        assert_eq!(heard, STOPS);
        ended.push(at - start);
    }
    // The oldest first.
    let expected: Vec<_> = (0..10).map(|nth| nth * 200 * MS).collect();
    assert_eq!(ended, expected);
    // It is over when the last has left.
    assert_eq!(ends(drained).await.expect("no panic"), 1800 * MS);
}

#[tokio::test(start_paused = true)]
async fn without_connections_there_is_nothing_to_wait_for() {
    assert_eq!(ends(drain(&server(), Drain::default())).await.expect("no panic"), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_grace_without_end_is_one() {
    let server = server();
    let mut peer = let_in(&server, "client").await;
    let without_end = Drain { grace: Duration::MAX, ..Drain::default() };
    let drained = drain(&server, without_end);
    assert_eq!(peer.hear().await, STOPS);
    ends(drained).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn the_hint_is_the_one_that_is_configured() {
    let server = server();
    let mut peer = let_in(&server, "client").await;
    let drained = drain(&server, Drain { retry_after: 77, ..Drain::default() });
    assert_eq!(peer.hear().await, Heard::closed(1001, "Service stops, retry after 77 s"));
    ends(drained).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_is_cut_at_the_end_of_the_grace() {
    for (spread, grace, end) in [(2, 10, 10), (0, 3, 3), (2, 1, 2)] {
        let server = server();
        let mut idle = let_in(&server, "idle").await;
        let (stream, _served) = dial(&server, WIDE, never_answer);
        let mut peer = Peer::upgrade(stream).await;
        peer.authenticate("client", &token_of("u")).await;
        peer.call(2, call_named("x")).await;
        let start = Instant::now();
        let drain = drain(
            &server,
            Drain { spread: spread * SECOND, grace: grace * SECOND, retry_after: 5 },
        );
        assert_eq!(peer.hear_at().await, (start + end * SECOND, STOPS));
        let (at, heard) = idle.hear_at().await;
        assert!(heard == STOPS && at - start <= spread * SECOND, "{heard:?}");
        assert_eq!(ends(drain).await.expect("no panic"), end * SECOND);
    }
}

/// Takes calls and keeps the means to answer them.
async fn never_answer(mut connection: Connection<AuthenticatedClient>) {
    let mut unanswered = vec![];
    while let Some(event) = connection.recv().await {
        unanswered.push(event);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_handler_has_read_is_cut_as_well() {
    let server = server();
    let (stream, _served) = dial(&server, WIDE, |connection| async move {
        let _held = connection;
        pending().await
    });
    let mut peer = Peer::upgrade(stream).await;
    peer.authenticate("client", &token_of("u")).await;
    for id in 2..100 {
        peer.call(id, call_named("x")).await;
    }
    let start = Instant::now();
    let drained = drain(&server, Drain::default());
    assert_eq!(peer.hear_at().await, (start + 10 * SECOND, STOPS));
    assert_eq!(ends(drained).await.expect("no panic"), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_answer_within_the_grace_is_the_last_word_before_the_close() {
    let server = server();
    let (stream, _served) = dial(&server, WIDE, |mut connection: Connection<_>| async move {
        while let Some(Event::Subscribe(request, responder)) = connection.recv().await {
            sleep(9 * SECOND).await;
            let SatSubsReq { subscription_id, .. } = request;
            responder.reply(SatSubsResp { subscription_id, err: None });
        }
    });
    let mut peer = Peer::upgrade(stream).await;
    peer.authenticate("client", &token_of("u")).await;
    peer.call(2, call_named("x")).await;
    sleep(MS).await;
    let start = Instant::now();
    let drained = drain(&server, Drain::default());
    let answered = start + 9 * SECOND - MS;
    let (at, answer) = peer.hear_at().await;
    assert!(at == answered && answer.reply().is_ok(), "{answer:?} after {:?}", at - start);
    assert_eq!(peer.hear_at().await, (answered, STOPS));
    ends(drained).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn peers_that_do_not_leave_when_closed_do_not_hold_it_up() {
    let server = server();
    for id in ["a", "b"] {
        let (stream, _served) = dial(&server, WIDE, empty_database);
        let mut peer = Peer::upgrade_with(Manners { leaves: false, ..POLITE }, stream).await;
        peer.authenticate(id, &token_of("u")).await;
        std::mem::forget(peer);
    }
    let drained = drain(&server, Drain { spread: Duration::ZERO, ..Drain::default() });
    // The close timeout.
    assert_eq!(ends(drained).await.expect("no panic"), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_meanwhile_does_not_hold_it_up() {
    let server = server();
    let (stream, _served) = dial(&server, WIDE, |mut connection: Connection<_>| async move {
        while let Some(event) = connection.recv().await {
            tokio::spawn(async move {
                sleep(9 * SECOND).await;
                drop(event);
            });
        }
    });
    let mut peer = Peer::upgrade(stream).await;
    peer.authenticate("client", &token_of("u")).await;
    peer.call(2, call_named("x")).await;
    sleep(MS).await;
    let drained = drain(&server, Drain { spread: Duration::ZERO, ..Drain::default() });
    sleep(SECOND).await;
    peer.vanish().await;
    assert_eq!(ends(drained).await.expect("no panic"), SECOND);
}

// Nobody new.

#[tokio::test(start_paused = true)]
async fn upgrades_during_a_drain_are_refused_with_503_and_a_time_to_come_back() {
    let server = server();
    let _busy = {
        let (stream, _served) = dial(&server, WIDE, never_answer);
        let mut peer = Peer::upgrade(stream).await;
        peer.authenticate("client", &token_of("u")).await;
        peer.call(2, call_named("x")).await;
        peer
    };
    let drained = drain(&server, Drain { retry_after: 7, ..Drain::default() });
    sleep(MS).await;
    for drained in [Some(drained), None] {
        let (mut stream, _served) = dial(&server, WIDE, empty_database);
        let answer = http(&mut stream, &upgrade_request()).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("7"));
        assert_eq!(answer.body, "The service stops");
        // And after it.
        if let Some(drained) = drained {
            ends(drained).await.expect("no panic");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_can_be_asked_for_during_a_drain() {
    let server = server();
    ends(drain(&server, Drain::default())).await.expect("no panic");
    let (mut stream, _served) = dial(&server, WIDE, empty_database);
    let request = "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(http(&mut stream, request).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn nobody_comes_in_who_is_upgraded_and_not_authenticated_when_it_begins() {
    // At the beginning, in the middle and after the end of a drain that takes a second.
    for presents_at in [1, 500, 1500] {
        let server = server();
        let (stream, _served) = dial(&server, WIDE, never_answer);
        let mut busy = Peer::upgrade(stream).await;
        busy.authenticate("busy", &token_of("u")).await;
        busy.call(2, call_named("x")).await;
        let (stream, served) = dial(&server, WIDE, empty_database);
        let mut late = Peer::upgrade(stream).await;
        let drained =
            drain(&server, Drain { spread: Duration::ZERO, grace: SECOND, retry_after: 5 });
        sleep(presents_at * MS).await;
        late.present("late", &token_of("u")).await;
        assert_eq!(late.hear().await, STOPS, "presented after {presents_at} ms");
        assert_eq!(ends(drained).await.expect("no panic"), SECOND);
        ends(served).await.expect("no panic").expect_err("it is not let in");
        assert_eq!(*server.connections().borrow(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_comes_in_who_waits_for_a_place_when_it_begins() {
    let server = server();
    let mut first = let_in(&server, "client").await;
    let (stream, _served) = dial(&server, WIDE, empty_database);
    let mut second = Peer::upgrade(stream).await;
    second.present("client", &token_of("u")).await;
    sleep(MS).await;
    let drained = drain(&server, Drain { spread: Duration::ZERO, ..Drain::default() });
    assert_eq!(first.hear().await, STOPS);
    assert_eq!(second.hear().await, STOPS);
    assert_eq!(ends(drained).await.expect("no panic"), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_drain_comes_to_an_end_whoever_comes_in_late() {
    let server = server().with_registry(electric_satellite::registry::InProcessRegistry::new(
        Default::default(),
        5 * SECOND,
    ));
    let (stream, _served) = dial(&server, WIDE, never_answer);
    let mut first = Peer::upgrade(stream).await;
    first.authenticate("client", &token_of("u")).await;
    first.call(2, call_named("x")).await;
    // It waits for the first, which leaves when the grace is over.
    let (stream, _served) = dial(&server, WIDE, empty_database);
    let second = Peer::upgrade(stream).await;
    second.present("client", &token_of("u")).await;
    let grace = SECOND;
    let drained = drain(&server, Drain { spread: Duration::ZERO, grace, retry_after: 5 });
    assert!(ends(drained).await.expect("no panic") <= 3 * SECOND);
    assert_eq!(*server.connections().borrow(), 0);
}

#[tokio::test]
async fn handlers_may_finish_their_work_within_the_grace() {
    let (server, done) = (server(), Arc::new(AtomicBool::new(false)));
    let (address, serving) = {
        let done = Arc::clone(&done);
        serve(&server, move |mut connection| {
            let done = Arc::clone(&done);
            async move {
                while connection.recv().await.is_some() {}
                // What it still has to store.
                sleep(SECOND / 5).await;
                done.store(true, Ordering::SeqCst);
            }
        })
        .await
    };
    let mut peer = Peer::upgrade(connect(address).await).await;
    peer.authenticate("client", &token_of("u")).await;
    let drained = drain(&server, Drain { spread: Duration::ZERO, ..Drain::default() });
    assert_eq!(soon(peer.hear()).await, STOPS);
    soon(drained).await.expect("no panic");
    soon(serving).await.expect("no panic");
    assert!(done.load(Ordering::SeqCst), "serve returned and the handler was not done");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_given_up_can_be_begun_again() {
    let server = server();
    let (stream, _served) = dial(&server, WIDE, never_answer);
    let mut peer = Peer::upgrade(stream).await;
    peer.authenticate("client", &token_of("u")).await;
    peer.call(2, call_named("x")).await;
    let first = drain(&server, Drain::default());
    sleep(SECOND).await;
    first.abort();
    let grace = Duration::ZERO;
    let second = drain(&server, Drain { spread: Duration::ZERO, grace, ..Drain::default() });
    assert_eq!(ends(second).await.expect("no panic"), Duration::ZERO);
    assert_eq!(peer.hear().await, STOPS);
}

// The process.

#[cfg(all(feature = "cli", unix))]
mod process {
    use std::process::{ExitStatus, Stdio};

    use electric_satellite::auth::Minter;
    use serde_json::json;
    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        process::{Child, Command},
    };

    use super::*;

    struct Service {
        child: Child,
        address: String,
    }

    impl Service {
        async fn start() -> Service {
            let mut child = Command::new(env!("CARGO_BIN_EXE_satellite"))
                .arg("serve")
                .env_clear()
                .envs([("AUTH_MODE", "insecure"), ("HTTP_PORT", "0"), ("LOG_LEVEL", "error")])
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .expect("the binary starts");
            let stdout = child.stdout.take().expect("a pipe");
            let line = soon(BufReader::new(stdout).lines().next_line()).await;
            let line = line.expect("text").expect("a line");
            let address = line.strip_prefix("listening on ws://").expect("the address");
            let address = address.strip_suffix("/ws").expect("the path").to_owned();
            Service { child, address }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(&self.address).await.expect("a connection")
        }

        /// A client that does not leave when it is told to, so that the service waits for it.
        async fn let_in(&self, id: &str) -> Peer {
            let manners = Manners { leaves: false, ..POLITE };
            let mut peer = Peer::upgrade_with(manners, self.connect().await).await;
            let token = Minter::unsigned().mint(&json!({ "sub": "u" })).expect("a token");
            peer.authenticate(id, token.expose()).await;
            peer
        }

        async fn signal(&self, signal: &str) {
            let pid = self.child.id().expect("it runs").to_string();
            let mut kill = Command::new("kill");
            let status = soon(kill.args([signal, &pid]).status()).await.expect("kill runs");
            assert!(status.success());
        }

        async fn exit(&mut self) -> ExitStatus {
            soon(self.child.wait()).await.expect("it ends")
        }
    }

    #[tokio::test]
    async fn a_signal_drains_and_ends_the_process_well() {
        for signal in ["-TERM", "-INT"] {
            let mut service = Service::start().await;
            let mut peers = vec![];
            for id in ["a", "b", "c"] {
                peers.push(service.let_in(id).await);
            }
            let mut other = service.connect().await;
            service.signal(signal).await;
            for peer in &mut peers {
                assert_eq!(soon(peer.hear()).await, STOPS);
            }
            // It waits for the last peer to leave.
            let answer = soon(http(&mut other, &upgrade_request())).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
            assert_eq!(answer.body, "The service stops");
            assert_eq!(service.exit().await.code(), Some(0), "{signal}");
        }
    }

    #[tokio::test]
    async fn a_signal_right_after_the_start_ends_the_process_well() {
        for _ in 0..20 {
            let mut service = Service::start().await;
            service.signal("-TERM").await;
            assert_eq!(service.exit().await.code(), Some(0));
        }
    }

    #[tokio::test]
    async fn a_second_signal_ends_the_process_at_once() {
        let mut service = Service::start().await;
        let mut peers = vec![];
        for id in 0..20 {
            peers.push(service.let_in(&id.to_string()).await);
        }
        service.signal("-TERM").await;
        // The first is told at once, the last after almost 2 s.
        let told = tokio::sync::Notify::new();
        let listen = peers.iter_mut().map(async |peer| {
            let heard = peer.hear().await;
            told.notify_one();
            heard == STOPS
        });
        let listen = futures_util::future::join_all(listen);
        let again = async {
            told.notified().await;
            service.signal("-TERM").await;
        };
        let (were_told, ()) = soon(async { tokio::join!(listen, again) }).await;
        assert!(were_told.contains(&false), "the second signal changed nothing");
        assert_eq!(service.exit().await.code(), Some(0));
    }
}
