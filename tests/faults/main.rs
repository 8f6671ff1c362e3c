//! One thing goes wrong, at every point at which it can.
//!
//! A whole conversation of our client and our server, over a stream in memory: the upgrade, the
//! handshake, calls in both directions, the stream, the close. It is repeated for every poll of
//! either end of the stream, at which the poll fails for good, or takes a while, or an hour, or for
//! ever, or the clock leaps, or the runtime is shut down and every task with it; and for every poll
//! of the futures that an application may drop, which are dropped there. Whatever it is:
//!
//! - nobody panics;
//! - both ends come to an end, in the time that the limits give them;
//! - a call that was answered was so by the other end, and one that is not fails;
//! - no place in the registry and no connection is left;
//! - and where nothing is lost, as by a delay within the limits, everything happens as it would.

mod brittle;
#[path = "../common/mod.rs"]
mod common;

use std::{
    cell::Cell,
    panic,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    id,
    net::{Gate, WORD, client, server},
    relation, start, started, stop, stopped, subscribe, subscribed, token,
};
use electric_satellite::{
    auth::{AuthError, Authenticator},
    registry::InProcessRegistry,
    server::{ExpiryPolicy, Server},
    session::{AuthRequest, AuthenticatedClient, Close, Identity, UnixTime, Verified},
    transport::{Connection, Event, Limits},
};
use tokio::{
    io::duplex,
    runtime,
    time::{Instant, advance, timeout},
};

use brittle::{Brittle, Fate, Mishap, cut};

const SECOND: Duration = Duration::from_secs(1);

/// Nothing takes longer, whatever happens: a handshake, two calls, the silence of the peer, a close.
const LONGEST: Duration = Duration::from_secs(120);

/// How long a call is waited for.
const CALL: Duration = Duration::from_secs(15);

/// How much the stream holds: little, so that there are many polls.
const PIPE: usize = 256;

/// Whose future is dropped, after how many polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Nothing,
    Accept(usize),
    Handler(usize),
    Client(usize),
}

impl Cut {
    /// How many polls each of them has.
    fn polls(self) -> [usize; 3] {
        let mut polls = [usize::MAX; 3];
        match self {
            Cut::Nothing => {}
            Cut::Accept(at) => polls[0] = at,
            Cut::Handler(at) => polls[1] = at,
            Cut::Client(at) => polls[2] = at,
        }
        polls
    }
}

/// What goes wrong.
struct Plan {
    /// At the server's end of the stream, and at the client's.
    fates: [Arc<Fate>; 2],
    cut: Cut,
    /// How far the monotonic clock leaps when a fate strikes.
    leap: Duration,
}

/// What has happened, in words.
#[derive(Clone, Debug, Default, PartialEq)]
struct Story {
    server: Vec<&'static str>,
    client: Vec<&'static str>,
    /// How often the futures were polled that can be cut.
    polls: [usize; 3],
}

type Log = Arc<Mutex<Vec<&'static str>>>;

fn note(log: &Log, what: &'static str) {
    log.lock().expect("no panic").push(what);
}

/// A client that lives through all of it, as far as it comes.
async fn lives(stream: Brittle, log: Log) {
    let connector = client(Limits::default());
    let Ok(upgraded) = connector.upgrade(stream).await else { return };
    let Ok(mut connection) = upgraded.authenticate(&id("client-1"), token(WORD)).await else {
        return;
    };
    note(&log, "in");
    let asks = connection.call(start(), CALL).await;
    note(&log, if asks.is_ok() { "started" } else { "not started" });
    let asks = connection.call(subscribe("s"), CALL).await;
    note(&log, if asks.is_ok() { "subscribed" } else { "not subscribed" });
    while let Some(event) = connection.recv().await {
        match event {
            Event::Message(_) => note(&log, "a message"),
            Event::StartReplication(_, responder) => {
                note(&log, "answers");
                responder.reply(started());
                break;
            }
            _ => note(&log, "something else"),
        }
    }
    let asks = connection.call(stop(), CALL).await;
    note(&log, if asks.is_ok() { "stopped" } else { "not stopped" });
    connection.close(Close::NORMAL);
    connection.closed().await;
    note(&log, "ended");
}

/// What the server's application does with it.
async fn handles(mut connection: Connection<AuthenticatedClient>, log: Log) {
    while let Some(event) = connection.recv().await {
        match event {
            Event::StartReplication(_, responder) => {
                note(&log, "starts");
                responder.reply(started());
                for number in 0..3 {
                    if connection.send(relation(number)).await.is_err() {
                        note(&log, "not sent");
                    }
                }
            }
            Event::Subscribe(_, responder) => {
                note(&log, "subscribes");
                responder.reply(subscribed("s"));
                let asks = connection.call(start(), CALL).await;
                note(&log, if asks.is_ok() { "is answered" } else { "is not answered" });
            }
            Event::StopReplication(_, responder) => {
                note(&log, "stops");
                responder.reply(stopped());
            }
            _ => note(&log, "something else"),
        }
    }
    connection.closed().await;
    note(&log, "ended");
}

/// Lets it all happen, and sees to what must hold in any case.
fn run(plan: Plan) -> Story {
    run_on(server(Gate::Word, Limits::default()), plan)
}

fn run_on<A: Authenticator>(server: Server<A>, plan: Plan) -> Story {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let registry = InProcessRegistry::default();
    let server = server.with_registry(registry.clone());
    let logs = [Log::default(), Log::default()];
    let polls = runtime.block_on(async {
        let before = Instant::now();
        let leap = plan.leap;
        let strikes = plan.fates.clone();
        let leaps = tokio::spawn(async move {
            tokio::select! {
                () = strikes[0].strikes() => {}
                () = strikes[1].strikes() => {}
            }
            advance(leap).await;
        });
        let all = timeout(LONGEST + leap, converse(&server, &plan, &logs));
        let polls = all.await.expect("both ends come to an end");
        leaps.abort();
        assert!(before.elapsed() <= LONGEST + leap);
        // The driver's task is behind its connection.
        let mut connections = server.connections();
        let gone = timeout(LONGEST, connections.wait_for(|count| *count == 0));
        gone.await.expect("no connection is left").expect("the server is there");
        polls
    });
    drop(runtime);
    assert!(registry.is_empty(), "a place is left");
    let [server, client] = logs.map(|log| log.lock().expect("no panic").clone());
    Story { server, client, polls }
}

/// Both ends, each in a task of its own.
async fn converse<A: Authenticator>(
    server: &Server<A>,
    plan: &Plan,
    [server_log, client_log]: &[Log; 2],
) -> [usize; 3] {
    let (near, far) = duplex(PIPE);
    let [far, near] = [Brittle::new(far, &plan.fates[0]), Brittle::new(near, &plan.fates[1])];
    let [accept_cut, handler_cut, client_cut] = plan.cut.polls();
    let (server, log) = (server.clone(), Arc::clone(server_log));
    let serves = tokio::spawn(async move {
        let (accepted, accept_polls) = cut(server.accept(far), accept_cut).await;
        let Some(Ok(connection)) = accepted else { return [accept_polls, 0] };
        let (_, handler_polls) = cut(handles(connection, log), handler_cut).await;
        [accept_polls, handler_polls]
    });
    let visits = tokio::spawn(cut(lives(near, Arc::clone(client_log)), client_cut));
    let [accept_polls, handler_polls] = serves.await.expect("the server does not panic");
    let (_, client_polls) = visits.await.expect("the client does not panic");
    [accept_polls, handler_polls, client_polls]
}

/// Nothing at all goes wrong.
fn undisturbed() -> (Plan, [Arc<Fate>; 2]) {
    let fates = [(); 2].map(|()| Fate::new(usize::MAX, Mishap::Fails));
    (Plan { fates: fates.clone(), cut: Cut::Nothing, leap: Duration::ZERO }, fates)
}

/// This happens to one end, at this poll.
fn plan(end: usize, at: usize, mishap: Mishap) -> Plan {
    let (mut plan, _) = undisturbed();
    plan.fates[end] = Fate::new(at, mishap);
    plan
}

/// Every poll of the undisturbed conversation: of which end, and which.
fn every_poll() -> impl Iterator<Item = (usize, usize)> {
    let (_, polls) = as_it_should_be();
    (0..2).flat_map(move |end| (0..polls[end]).map(move |at| (end, at)))
}

/// What happens when nothing goes wrong, and how many polls each end has.
fn as_it_should_be() -> (Story, [usize; 2]) {
    let (plan, fates) = undisturbed();
    let story = run(plan);
    (story, fates.map(|fate| fate.polls()))
}

thread_local! {
    /// How many panics there were here, where all tasks of a test run.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// From now on every panic counts, also one that its task keeps to itself.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            others(panic);
        }));
    });
}

/// What one end believes to have happened is what the other end did.
#[track_caller]
fn is_true(story: &Story, of: &str) {
    let did = |what| story.server.contains(&what);
    let heard = |what| story.client.contains(&what);
    for (heard_of, done) in
        [("started", "starts"), ("subscribed", "subscribes"), ("stopped", "stops")]
    {
        assert!(!heard(heard_of) || did(done), "{of}: {heard_of}: {story:?}");
    }
    assert!(!did("is answered") || heard("answers"), "{of}: {story:?}");
    // Whoever came in has ended.
    for (end, log) in [("server", &story.server), ("client", &story.client)] {
        let last = log.last();
        assert!(
            last.is_none_or(|last| *last == "ended"),
            "{of}: the {end} has not ended: {story:?}"
        );
    }
    assert_eq!(PANICS.get(), 0, "{of}: somebody panics");
}

#[test]
fn the_conversation_is_what_it_should_be() {
    let (story, polls) = as_it_should_be();
    assert_eq!(story.server, ["starts", "subscribes", "is answered", "stops", "ended"]);
    let client = ["in", "started", "subscribed", "a message", "a message", "a message", "answers"];
    assert_eq!(story.client[..7], client);
    assert_eq!(story.client[7..], ["stopped", "ended"]);
    assert!(polls.iter().all(|polls| *polls > 30), "{polls:?}");
}

#[test]
fn every_poll_fails() {
    count_panics();
    for (end, at) in every_poll() {
        let story = run(plan(end, at, Mishap::Fails));
        is_true(&story, &format!("poll {at} of end {end} fails"));
    }
}

#[test]
fn every_poll_takes_a_while_and_nothing_is_lost() {
    count_panics();
    let (undisturbed, _) = as_it_should_be();
    for (end, at) in every_poll() {
        let story = run(plan(end, at, Mishap::Takes(SECOND)));
        let told = (&story.server, &story.client);
        let expected = (&undisturbed.server, &undisturbed.client);
        assert_eq!(told, expected, "poll {at} of end {end} takes a second");
    }
}

#[test]
fn every_poll_takes_too_long() {
    count_panics();
    for time in [3600 * SECOND, 365 * 24 * 3600 * SECOND] {
        for (end, at) in every_poll() {
            let story = run(plan(end, at, Mishap::Takes(time)));
            is_true(&story, &format!("poll {at} of end {end} takes {time:?}"));
        }
    }
}

#[test]
fn the_clock_leaps_at_every_poll() {
    count_panics();
    for leap in [SECOND, 3600 * SECOND] {
        for (end, at) in every_poll() {
            let plan = Plan { leap, ..plan(end, at, Mishap::Tells) };
            is_true(&run(plan), &format!("a leap of {leap:?} at {at} of {end}"));
        }
    }
}

#[test]
fn every_future_is_dropped_at_every_poll() {
    count_panics();
    let (Story { polls: [accept, handler, client], .. }, _) = as_it_should_be();
    let cuts = (0..accept).map(Cut::Accept).chain((0..handler).map(Cut::Handler));
    for cut in cuts.chain((0..client).map(Cut::Client)) {
        let (plan, _) = undisturbed();
        let story = run(Plan { cut, ..plan });
        // Whoever is dropped says nothing more.
        let Story { mut server, mut client, polls } = story;
        match cut {
            Cut::Client(_) => client.push("ended"),
            _ if !server.is_empty() || !client.is_empty() => server.push("ended"),
            _ => {}
        }
        is_true(&Story { server, client, polls }, &format!("{cut:?}"));
    }
}

/// Whose tokens last an hour.
struct Expiring;

/// When they are presented.
const NOW: i64 = 1_700_000_000;

impl Authenticator for Expiring {
    async fn authenticate(&self, _: &AuthRequest, _: UnixTime) -> Result<Verified, AuthError> {
        let mut identity = Identity::new("user-1");
        identity.expires_at = Some(UnixTime::from_secs(NOW + 3600));
        Ok(Verified::vouched_for_by_authenticator(identity))
    }
}

#[test]
fn the_wall_clock_leaps_at_every_look() {
    count_panics();
    for leap in [i64::MIN, -NOW, -3600, 3600, i64::MAX] {
        for at in 0..3 {
            let (looks, time) = (AtomicUsize::new(0), AtomicI64::new(NOW));
            let clock = move || {
                if looks.fetch_add(1, Ordering::Relaxed) == at {
                    time.store(NOW.saturating_add(leap), Ordering::Relaxed);
                }
                UnixTime::from_secs(time.load(Ordering::Relaxed))
            };
            let server = Server::new(Expiring)
                .with_expiry(ExpiryPolicy::Close { leeway: 0 })
                .with_clock(clock);
            let story = run_on(server, undisturbed().0);
            is_true(&story, &format!("the wall clock leaps by {leap} at look {at}"));
            // Where it is late before the client is in, that is not for long.
            let late = leap >= 3600 && at < 2;
            assert_eq!(story.client.last(), Some(&"ended"), "{leap} {at}");
            assert_eq!(!story.client.contains(&"stopped"), late, "{leap} {at}");
        }
    }
}

#[test]
fn the_runtime_is_shut_down_at_every_poll() {
    count_panics();
    for (end, at) in every_poll() {
        let plan = plan(end, at, Mishap::Tells);
        let runtime =
            runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let registry = InProcessRegistry::default();
        let server = server(Gate::Word, Limits::default()).with_registry(registry.clone());
        let connections = server.connections();
        let (near, far) = duplex(PIPE);
        let far = Brittle::new(far, &plan.fates[0]);
        let near = Brittle::new(near, &plan.fates[1]);
        // Somebody who is not on the runtime holds the connection.
        let mut sender = None;
        runtime.block_on(async {
            let serves = async {
                let Ok(connection) = server.accept(far).await else { return };
                sender = Some(connection.sender().clone());
                handles(connection, Log::default()).await;
            };
            tokio::select! {
                biased;
                () = plan.fates[end].strikes() => {}
                _ = async { tokio::join!(serves, lives(near, Log::default())) } => {}
            }
        });
        drop(runtime);
        assert!(registry.is_empty(), "poll {at} of end {end}: a place is left");
        assert_eq!(*connections.borrow(), 0, "poll {at} of end {end}");
        let ended = sender.is_none_or(|sender| sender.end().is_some());
        assert!(ended, "poll {at} of end {end}: the connection has not ended");
        assert_eq!(PANICS.get(), 0, "poll {at} of end {end}");
    }
}
