//! Code of the embedder that panics: a handler, an authenticator, a registry, a revocation list. The
//! peer is told that this end failed, and nobody else is concerned.

mod common;
mod log;
#[cfg(feature = "cli")]
#[path = "service/prometheus.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod prometheus;

use std::{
    future::Future,
    net::SocketAddr,
    panic,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use common::{
    net::{Gate, LastWords, Raw, WORD, calm, closed_with, pair, server},
    *,
};
use electric_satellite::{
    auth::{AuthError, Authenticator, Revocations},
    registry::{InProcessRegistry, Occupant, Registration, Registry, RegistryError},
    server::{AcceptError, Drain, Server},
    session::{
        AuthChangePolicy, AuthRequest, AuthenticatedClient, Cause, Close, End, Identity, UnixTime,
        Verified,
    },
    transport::{Connection, Event, Limits},
    wire::{Version, proto::SatSubsReq},
};
use log::Log;
use tokio::{
    io::duplex,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};

type OfServer = Connection<AuthenticatedClient>;

/// What the peer is told.
fn failed() -> LastWords {
    closed_with(1011, "")
}

/// The end that a panic brings.
fn panicked() -> End {
    End { close: Some(Close::INTERNAL), cause: Cause::Panicked }
}

// ---- Server::serve ----

/// A server that listens, and its registry.
struct Service {
    address: SocketAddr,
    server: Server<Gate, InProcessRegistry>,
    registry: InProcessRegistry,
}

impl Service {
    async fn start<H, F>(gate: Gate, handler: H) -> Service
    where
        H: Fn(OfServer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        log::listen();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = InProcessRegistry::default();
        let server = server(gate, calm()).with_registry(registry.clone());
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(listener, handler).await });
        Service { address, server, registry }
    }

    /// The client `client-1`, let in.
    async fn client(&self) -> Raw<TcpStream> {
        Raw::authenticated(TcpStream::connect(self.address).await.unwrap()).await
    }

    /// A client makes the handler panic, or by another token the authenticator.
    async fn panics(&self, token: &str) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut doomed = Raw::upgraded(stream, Version::V0_12).await;
        doomed.says(call(1, auth("client-1", token))).await;
        doomed.says(call(2, subscribe("panic"))).await;
        assert_eq!(doomed.last_words().await.close, failed().close);
    }

    /// Waits until nothing goes on any more, and looks whether anything is left.
    async fn is_empty(&self) {
        self.server.connections().wait_for(|count| *count == 0).await.unwrap();
        assert!(self.registry.is_empty(), "a place is taken");
        self.server.drain(Drain::default()).await;
    }
}

/// Answers subscriptions, and panics at one named `panic`: with the call unanswered, or with
/// another one unread behind it.
async fn answer_subscriptions(mut connection: OfServer) {
    while let Some(event) = connection.recv().await {
        let Event::Subscribe(SatSubsReq { subscription_id, .. }, responder) = event else { return };
        assert_ne!(subscription_id, "panic", "as the test wants it");
        responder.reply(subscribed(&subscription_id));
    }
}

#[tokio::test]
async fn a_handler_that_panics_closes_its_connection_and_no_other() {
    let service = Service::start(Gate::Word, answer_subscriptions).await;
    let mut good =
        Raw::upgraded(TcpStream::connect(service.address).await.unwrap(), Version::V0_12).await;
    good.says(call(1, auth("the good one", WORD))).await;
    good.hears().await;
    for calls in [&["panic"][..], &["panic", "behind"], &["before", "panic", "panic"]] {
        let mut doomed = service.client().await;
        for (number, name) in (2..).zip(calls) {
            doomed.says(call(number, subscribe(name))).await;
        }
        // Answers to calls before it have been given.
        let mut seen = doomed.last_words().await;
        if calls[0] == "before" {
            assert_eq!(seen.messages.remove(0), reply(2, subscribed("before")));
        }
        assert_eq!(seen, failed(), "{calls:?}");
        good.says(call(2, subscribe("good"))).await;
        assert_eq!(good.hears().await, reply(2, subscribed("good")));
        assert_eq!(service.registry.len(), 1, "its place is free as soon as it is closed");
    }
    drop(good);
    service.is_empty().await;
}

/// A future that is no block of code: a panic leaves its fields where they are.
struct Handwritten(Option<OfServer>);

impl Future for Handwritten {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        assert!(self.0.is_none(), "as the test wants it");
        Poll::Ready(())
    }
}

#[tokio::test]
async fn it_does_not_matter_where_a_handler_holds_the_connection() {
    // In no future yet.
    let at_once = Service::start(Gate::Word, |connection: OfServer| {
        assert!(connection.client_id().as_str().is_empty(), "as the test wants it");
        async move { drop(connection) }
    });
    let at_once = at_once.await;
    assert_eq!(at_once.client().await.last_words().await, failed());
    let in_a_field = Service::start(Gate::Word, |connection| Handwritten(Some(connection))).await;
    assert_eq!(in_a_field.client().await.last_words().await, failed());
    let in_halves = Service::start(Gate::Word, |connection: OfServer| async move {
        let (sender, mut receiver) = connection.split();
        let _call = receiver.recv().await;
        assert!(sender.end().is_some(), "as the test wants it");
    });
    let in_halves = in_halves.await;
    let mut client = in_halves.client().await;
    client.says(call(2, subscribe("a"))).await;
    assert_eq!(client.last_words().await, failed());
    for service in [at_once, in_a_field, in_halves] {
        service.is_empty().await;
    }
}

#[tokio::test]
async fn an_authenticator_that_panics_closes_the_connection_and_no_other() {
    let service = Service::start(Gate::PanicsAt("panic"), answer_subscriptions).await;
    let mut good = service.client().await;
    for _ in 0..3 {
        service.panics("panic").await;
    }
    good.says(call(2, subscribe("good"))).await;
    assert_eq!(good.hears().await, reply(2, subscribed("good")));
    drop(good);
    service.is_empty().await;
}

#[tokio::test]
async fn panics_are_logged_without_their_words() {
    let (log, _guard) = Log::capture();
    let service = Service::start(Gate::PanicsAt("panic"), answer_subscriptions).await;
    service.panics(WORD).await;
    service.panics("panic").await;
    service.is_empty().await;
    for (line, level) in [
        ("the handler panicked", "ERROR"),
        ("connection ended reason=a panic at this end", "INFO"),
        ("the authenticator or the registry panicked", "ERROR"),
        ("client not authenticated reason=a panic at this end", "INFO"),
    ] {
        let lines = log.lines_with(line);
        assert_eq!(lines.len(), 1, "{line}: {}", log.text());
        assert!(lines[0].contains(level), "{}", lines[0]);
    }
    // They may hold what must not be logged.
    assert_eq!(log.count("as the test wants it"), 0, "{}", log.text());
}

#[tokio::test]
async fn panics_reach_the_panic_hook() {
    const WORDS: &str = "only in the test of the hook";
    let panics = Arc::new(AtomicUsize::new(0));
    let next = panic::take_hook();
    panic::set_hook(Box::new({
        let panics = Arc::clone(&panics);
        move |info| match info.payload_as_str() {
            Some(WORDS) => drop(panics.fetch_add(1, Ordering::SeqCst)),
            _ => next(info),
        }
    }));
    let service = Service::start(Gate::Word, async |_| panic!("{WORDS}")).await;
    for expected in 1..=3 {
        assert_eq!(service.client().await.last_words().await, failed());
        assert_eq!(panics.load(Ordering::SeqCst), expected);
    }
}

// ---- Server::maintain ----

/// Lets in whoever [`Gate::Word`] does, and fails in an unforeseen way beside that.
#[derive(Clone, Default)]
struct Touchy(Arc<Moods>);

#[derive(Default)]
struct Moods {
    /// How often the list may be asked before it panics, once.
    patience: AtomicUsize,
    changes: watch::Sender<u64>,
    /// How often it was to be kept fresh, of which the first two times panic.
    kept_fresh: AtomicUsize,
}

impl Authenticator for Touchy {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> Result<Verified, AuthError> {
        Gate::Word.authenticate(request, now).await
    }

    async fn keep_fresh(&self) {
        if self.0.kept_fresh.fetch_add(1, Ordering::SeqCst) < 2 {
            panic!("as the test wants it");
        }
    }

    fn revocations(&self) -> Option<Arc<dyn Revocations>> {
        Some(Arc::new(self.clone()))
    }
}

impl Revocations for Touchy {
    fn is_revoked(&self, _: &Identity) -> bool {
        let patience = self.0.patience.fetch_sub(1, Ordering::SeqCst);
        assert_ne!(patience, 1, "as the test wants it");
        false
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_list_that_panics_closes_the_connection_in_question_and_no_other() {
    let touchy = Touchy::default();
    touchy.0.patience.store(4, Ordering::SeqCst);
    let server = Server::new(touchy.clone()).with_limits(calm());
    let maintained = server.clone();
    tokio::spawn(async move { maintained.maintain().await });
    // Each is looked at when it comes.
    let mut clients = vec![];
    for name in ["first", "second"] {
        let (near, far) = duplex(4096);
        let (accepted, raw) = tokio::join!(server.accept(far), async {
            let mut raw = Raw::upgraded(near, Version::V0_12).await;
            raw.says(call(1, auth(name, WORD))).await;
            raw.hears().await;
            raw
        });
        clients.push((accepted.unwrap(), raw));
    }
    // The second of them is in question when the list panics.
    touchy.0.changes.send_modify(|change| *change += 1);
    let (connection, mut raw) = clients.pop().unwrap();
    assert_eq!(raw.last_words().await, failed());
    assert_eq!(*connection.closed().await, panicked());
    // The list is watched all the same, and has nothing against the first.
    touchy.0.changes.send_modify(|change| *change += 1);
    sleep(Duration::from_secs(1)).await;
    assert!(clients[0].0.end().is_none());
    assert_eq!(touchy.0.patience.load(Ordering::SeqCst), usize::MAX);
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_panics_is_kept_fresh_all_the_same() {
    let touchy = Touchy::default();
    let server = Server::new(touchy.clone());
    let maintained = tokio::spawn(async move { server.maintain().await });
    sleep(Duration::from_secs(60)).await;
    assert_eq!(touchy.0.kept_fresh.load(Ordering::SeqCst), 3);
    assert!(!maintained.is_finished());
}

#[tokio::test]
async fn a_service_that_panics_when_asked_whether_it_is_ready_is_not() {
    let server = server(Gate::Word, calm()).with_readiness(|| panic!("as the test wants it"));
    let reason = server.ready().unwrap_err();
    assert_eq!(reason, "The service is not ready: that cannot be told");
}

// ---- Server::accept ----

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_with_a_connection_closes_it() {
    for take in [
        |connection: OfServer| drop(tokio::spawn(async { doomed(connection) })),
        // Only a half of it, and the other is kept elsewhere.
        |connection: OfServer| {
            let (sender, receiver) = connection.split();
            tokio::spawn(async move { sender.closed().await.clone() });
            tokio::spawn(async { doomed(receiver) });
        },
    ] {
        let (server, client) = pair(calm()).await;
        take(server);
        assert_eq!(client.closed().await.cause, Cause::Peer(Some(Close::INTERNAL)));
    }
}

fn doomed<T>(_held: T) {
    panic!("as the test wants it");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_with_a_call_closes_the_connection() {
    let (mut server, client) = pair(calm()).await;
    let (called, ()) = tokio::join!(client.call(subscribe("a"), Duration::from_secs(60)), async {
        let event = server.recv().await.unwrap();
        tokio::spawn(async { doomed(event) });
    });
    assert!(called.is_err());
    assert_eq!(client.closed().await.cause, Cause::Peer(Some(Close::INTERNAL)));
    assert_eq!(*server.closed().await, panicked());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_panics_closes_its_connection_the_same_way() {
    let (server, client) = pair(calm()).await;
    tokio::spawn(async { doomed(client) });
    assert_eq!(server.closed().await.cause, Cause::Peer(Some(Close::INTERNAL)));
}

/// What a server makes of a client with this token, and what the client sees.
async fn refusal<R: Registry>(server: Server<Gate, R>, token: &str) -> (AcceptError, LastWords) {
    let (near, far) = duplex(4096);
    let (accepted, seen) = tokio::join!(server.accept(far), async {
        let mut raw = Raw::upgraded(near, Version::V0_12).await;
        raw.says(call(1, auth("client-1", token))).await;
        raw.last_words().await
    });
    (accepted.map(drop).unwrap_err(), seen)
}

#[tokio::test(start_paused = true)]
async fn accept_survives_an_authenticator_that_panics() {
    let before = Instant::now();
    let (error, seen) = refusal(server(Gate::PanicsAt("panic"), calm()), "panic").await;
    assert!(matches!(&error, AcceptError::Ended(end) if *end == panicked()), "{error:?}");
    assert_eq!(seen, failed());
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// A registry that fails in an unforeseen way.
struct Panics;

impl Registry for Panics {
    type Registration = Registration;

    async fn register(
        &self,
        _: &AuthenticatedClient,
        _: Occupant,
    ) -> Result<Registration, RegistryError> {
        panic!("as the test wants it")
    }
}

#[tokio::test(start_paused = true)]
async fn accept_survives_a_registry_that_panics() {
    let (error, seen) = refusal(server(Gate::Word, calm()).with_registry(Panics), WORD).await;
    assert!(matches!(&error, AcceptError::Ended(end) if *end == panicked()), "{error:?}");
    assert_eq!(seen, failed());
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_not_held_against_the_address() {
    let limits = Limits { failed_auths: 1, ..calm() };
    let server = server(Gate::PanicsAt("panic"), limits);
    for _ in 0..3 {
        let (near, far) = duplex(4096);
        let (accepted, seen) = tokio::join!(server.accept_from(far, address()), async {
            let mut raw = Raw::upgraded(near, Version::V0_12).await;
            raw.says(call(1, auth("client-1", "panic"))).await;
            raw.last_words().await
        });
        assert!(accepted.is_err());
        assert_eq!(seen, failed());
    }
}

fn address() -> std::net::IpAddr {
    std::net::Ipv4Addr::new(192, 0, 2, 1).into()
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_makes_the_authenticator_panic_closes_the_connection() {
    let server = server(Gate::PanicsAt("panic"), calm())
        .with_auth_changes(AuthChangePolicy::RenewSameIdentity);
    let (near, far) = duplex(4096);
    let (accepted, mut raw) = tokio::join!(server.accept(far), Raw::authenticated(near));
    let mut connection = accepted.unwrap();
    raw.says(call(2, auth("client-1", "panic"))).await;
    assert_eq!(raw.last_words().await, failed());
    drop(raw);
    assert!(connection.recv().await.is_none());
    assert_eq!(*connection.closed().await, panicked());
    assert_eq!(*server.connections().borrow(), 0);
}

// ---- Metrics ----

#[cfg(feature = "cli")]
mod counted {
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

    use super::{prometheus::Metrics, *};

    #[tokio::test]
    async fn metrics_add_up_after_panics() {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &[1.0])
            .unwrap()
            .build_recorder();
        let rendered = recorder.handle();
        // Everything is on this thread.
        let _guard = metrics::set_default_local_recorder(&recorder);
        let service = Service::start(Gate::PanicsAt("panic"), answer_subscriptions).await;
        service.panics(WORD).await;
        service.panics("panic").await;
        service.is_empty().await;
        let metrics = Metrics::parse(&rendered.render()).unwrap();
        for (name, labels, value) in [
            ("satellite_connections_accepted_total", &[][..], 2.0),
            ("satellite_authenticated_total", &[("method", "custom")], 1.0),
            ("satellite_connections_refused_total", &[("reason", "panicked")], 1.0),
            ("satellite_closes_total", &[("code", "1011")], 1.0),
            ("satellite_handshakes", &[], 0.0),
            ("satellite_connections", &[], 0.0),
            ("satellite_unsent_bytes", &[], 0.0),
        ] {
            assert_eq!(metrics.value(name, labels), Some(value), "{name} {labels:?}");
        }
    }
}
