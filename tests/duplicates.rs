//! Two connections with one client id: the recorded conversations, and every policy.
//!
//! The clients are in memory and time is paused, so every wait is exact.

mod peers;

use std::{
    future::pending,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use electric_satellite::{
    auth::{Authenticator, JwtAuthenticator, Minter},
    registry::{
        DuplicatePolicy, InProcessRegistry, Occupant, Registration, Registry, RegistryError,
    },
    server::{AcceptError, Server, empty_database},
    session::{AuthenticatedClient, Cause, UnixTime},
    transport::{Connection, Limits},
    wire::{
        Message, Request,
        proto::{SatInStartReplicationReq, SatOpLogAck},
    },
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until},
};

use peers::{
    DEAF_TO_PINGS, Heard, Manners, POLITE, Peer, SECOND, Served, WIDE, auth_request, dial, ends,
    frame, http, server, token_of, upgrade_request, upgrade_request_to, words,
};

const MS: Duration = Duration::from_millis(1);

const REFUSED: &str = "authenticate 1: refused, INVALID_REQUEST; close 1007";

/// A client of the server that is served as a database without tables.
async fn connect<A: Authenticator, R: Registry>(server: &Server<A, R>) -> Peer {
    Peer::upgrade(dial(server, WIDE, empty_database).0).await
}

/// A connection that is let in.
async fn incumbent<A: Authenticator, R: Registry>(server: &Server<A, R>) -> Peer {
    let mut peer = connect(server).await;
    peer.authenticate("client", &token_of("u1")).await;
    peer
}

/// A newcomer, what it is told first, and after how long.
async fn newcomer<A: Authenticator, R: Registry>(
    server: &Server<A, R>,
    user: &str,
) -> (Peer, Heard, Duration) {
    let mut peer = connect(server).await;
    let asked = Instant::now();
    peer.present("client", &token_of(user)).await;
    let (at, heard) = peer.hear_at().await;
    (peer, heard, at - asked)
}

/// A newcomer that is let in, and after how long.
async fn accepted<A: Authenticator, R: Registry>(server: &Server<A, R>) -> (Peer, Duration) {
    let (peer, heard, after) = newcomer(server, "u1").await;
    assert!(heard.reply().is_ok(), "{heard:?}");
    (peer, after)
}

/// A newcomer that is refused as the original refuses it; returns after how long.
async fn refused<A: Authenticator, R: Registry>(server: &Server<A, R>, user: &str) -> Duration {
    let mut peer = connect(server).await;
    let asked = Instant::now();
    peer.present("client", &token_of(user)).await;
    let (at, opcode, payload) = peer.next_frame().await.expect("an answer");
    assert_eq!(peer.in_words_after(vec![(opcode, payload)]).await, REFUSED);
    at - asked
}

/// A connection whose peer is there no more, though nobody has said so: it takes everything and
/// answers nothing.
async fn dead<A: Authenticator, R: Registry>(server: &Server<A, R>) -> (Peer, Served) {
    let (stream, served) = dial(server, WIDE, empty_database);
    let mut peer = Peer::upgrade_with(DEAF_TO_PINGS, stream).await;
    peer.authenticate("client", &token_of("u1")).await;
    (peer, served)
}

#[tokio::test(start_paused = true)]
async fn a_silent_incumbent_gives_way_to_its_own_user_after_the_wait() {
    let server = server();
    let (mut first, served) = dead(&server).await;
    let (mut second, after) = accepted(&server).await;
    assert_eq!(after, SECOND);
    assert_eq!(first.last_words().await, "close 4408 \"Client not responding to pings\"");
    ends(served).await.expect("no panic").expect("it was let in");
    assert!(second.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_even_read_gives_way_as_well() {
    let server = server();
    // Narrower than the ping that asks for a sign of life.
    let (stream, ended) = dial_and_tell_end(&server, 1);
    stuck_after_welcome(stream).await;
    let (mut second, after) = accepted(&server).await;
    assert_eq!(after, SECOND);
    let (cause, _) = ends(ended).await.expect("no panic");
    assert!(cause.to_string().contains("silence"), "{cause}");
    assert!(second.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_end_is_one() {
    let registry = InProcessRegistry::new(DuplicatePolicy::Wait, Duration::MAX);
    let server = server().with_registry(registry);
    let first = incumbent(&server).await;
    tokio::spawn(async move {
        sleep(5 * SECOND).await;
        first.close_and_vanish().await;
    });
    assert_eq!(accepted(&server).await.1, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_silent_incumbent_stays_when_another_user_comes() {
    let server = server();
    let (mut first, _served) = dead(&server).await;
    assert_eq!(refused(&server, "u2").await, SECOND);
    assert!(first.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn the_question_has_the_deadline_of_every_ping() {
    let server = server();
    let (mut first, _served) = dead(&server).await;
    sleep(5 * SECOND).await;
    let asked = Instant::now();
    assert_eq!(refused(&server, "u2").await, SECOND);
    let silent = Heard::closed(4408, "Client not responding to pings");
    assert_eq!(first.hear_at().await, (asked + 20 * SECOND, silent));
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_again_and_again_give_a_dead_incumbent_no_more_time() {
    let server = server();
    let (mut first, _served) = dead(&server).await;
    let asked = Instant::now();
    let asking = tokio::spawn(async move {
        for _ in 0..4 {
            assert_eq!(refused(&server, "u2").await, SECOND);
            sleep(3 * SECOND).await;
        }
    });
    let silent = Heard::closed(4408, "Client not responding to pings");
    assert_eq!(first.hear_at().await, (asked + 20 * SECOND, silent));
    ends(asking).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn any_sign_of_life_saves_the_incumbent() {
    let server = server();
    let (first, _served) = dead(&server).await;
    let talking = tokio::spawn(async move {
        loop {
            sleep(900 * MS).await;
            first.send_message(&SatOpLogAck::default().into()).await;
        }
    });
    assert_eq!(refused(&server, "u1").await, SECOND);
    talking.abort();
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_from_before_the_question_does_not_count() {
    let server = server();
    let (mut first, _served) = dead(&server).await;
    assert!(first.is_undisturbed().await);
    assert_eq!(accepted(&server).await.1, SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_incumbent_with_a_slow_handler_stays() {
    let server = server();
    let (stream, _served) = dial(&server, WIDE, |connection| async move {
        let _held = connection;
        pending().await
    });
    let mut first = Peer::upgrade(stream).await;
    first.authenticate("client", &token_of("u1")).await;
    // The handler reads nothing, and after a few messages the server does not read either.
    for messages in [0, 1, 100] {
        for _ in 0..messages {
            first.send_message(&SatOpLogAck::default().into()).await;
        }
        sleep(SECOND).await;
        assert_eq!(refused(&server, "u1").await, SECOND, "after {messages} messages");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_gone_gets_through_though_its_handler_is_slow() {
    let server = server();
    let (stream, _served) = dial(&server, WIDE, |connection| async move {
        let _held = connection;
        pending().await
    });
    let mut first = Peer::upgrade(stream).await;
    first.authenticate("client", &token_of("u1")).await;
    for _ in 0..100 {
        first.send_message(&SatOpLogAck::default().into()).await;
    }
    first.close_and_vanish().await;
    accepted(&server).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_newcomers_after_a_silent_incumbent_one_gets_in_and_stays() {
    let server = server();
    let (_first, _served) = dead(&server).await;
    assert_eq!(two_newcomers(&server).await, ONE_IN_ONE_REFUSED);
}

#[tokio::test(start_paused = true)]
async fn of_two_newcomers_after_one_that_leaves_one_gets_in_and_stays() {
    for leaves_after in [0, 10, 990, 999] {
        let server = server();
        let first = incumbent(&server).await;
        tokio::spawn(async move {
            sleep(leaves_after * MS).await;
            first.close_and_vanish().await;
        });
        assert_eq!(two_newcomers(&server).await, ONE_IN_ONE_REFUSED, "{leaves_after}");
    }
}

const ONE_IN_ONE_REFUSED: [&str; 2] = [REFUSED, "authenticate 1: welcome; open"];

/// What two newcomers at once are told, in words. They are 20 ms away from the server.
async fn two_newcomers<A: Authenticator, R: Registry>(server: &Server<A, R>) -> Vec<String> {
    let far_away = Manners { pongs: Some(20 * MS), ..POLITE };
    let mut newcomers = vec![];
    for _ in 0..2 {
        let stream = dial(server, WIDE, empty_database).0;
        newcomers.push(Peer::upgrade_with(far_away, stream).await);
    }
    for peer in &newcomers {
        peer.present("client", &token_of("u1")).await;
    }
    sleep(5 * SECOND).await;
    let mut told = vec![];
    for mut peer in newcomers {
        told.push(peer.in_words().await);
    }
    told.sort();
    told
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_again_at_once_always_gets_through() {
    let server = server();
    for round in 0..100 {
        let (peer, after) = accepted(&server).await;
        assert_eq!(after, Duration::ZERO, "round {round}");
        match round % 2 {
            0 => peer.close_and_vanish().await,
            _ => peer.vanish().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_again_before_it_has_gone_gets_through() {
    let server = server();
    let (mut last, _) = accepted(&server).await;
    for round in 0..100 {
        let next = connect(&server).await;
        next.present("client", &token_of("u1")).await;
        last.close_and_vanish().await;
        last = next;
        let answer = last.hear().await;
        assert!(answer.reply().is_ok(), "round {round}: {answer:?}");
    }
}

#[tokio::test]
async fn over_tcp_too() {
    // So that no slow machine makes a client wait for too long.
    let registry = InProcessRegistry::new(DuplicatePolicy::Wait, 60 * SECOND);
    let server = server().with_registry(registry).with_limits(patient());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move { server.serve(listener, empty_database).await });
    for round in 0..100 {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let mut peer = Peer::upgrade(stream).await;
        peer.authenticate("client", &token_of("u1")).await;
        match round % 2 {
            0 => peer.close_and_vanish().await,
            _ => peer.vanish().await,
        }
    }
    serving.abort();
}

fn patient() -> Limits {
    let hour = Duration::from_secs(3600);
    Limits { upgrade_timeout: hour, auth_timeout: hour, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn refuse_refuses_at_once_and_leaves_the_first_alone() {
    let registry = InProcessRegistry::new(DuplicatePolicy::Refuse, SECOND);
    let server = server().with_registry(registry);
    // Even a dead one.
    let (mut first, _served) = dead(&server).await;
    for user in ["u1", "u2"] {
        assert_eq!(refused(&server, user).await, Duration::ZERO, "{user}");
    }
    assert!(first.is_undisturbed().await);
    first.close_and_vanish().await;
    assert_eq!(accepted(&server).await.1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn takeover_tells_the_first_and_lets_the_same_user_in_at_once() {
    let registry = InProcessRegistry::new(DuplicatePolicy::Takeover, SECOND);
    let server = server().with_registry(registry);
    let mut first = incumbent(&server).await;
    let (mut second, after) = accepted(&server).await;
    assert_eq!(after, Duration::ZERO);
    assert_eq!(
        first.last_words().await,
        "error INVALID_REQUEST: replaced by a newer connection of the same client; close 1007"
    );
    assert!(second.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn takeover_by_another_user_is_refused() {
    let registry = InProcessRegistry::new(DuplicatePolicy::Takeover, SECOND);
    let server = server().with_registry(registry);
    let mut first = incumbent(&server).await;
    assert_eq!(refused(&server, "u2").await, SECOND);
    assert!(first.is_undisturbed().await);
    // Not from a dead one either.
    let (mut dead, _served) = {
        first.close_and_vanish().await;
        dead(&server).await
    };
    assert_eq!(refused(&server, "u2").await, SECOND);
    assert!(dead.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn takeover_from_a_peer_that_reads_nothing_takes_no_longer() {
    let registry = InProcessRegistry::new(DuplicatePolicy::Takeover, SECOND);
    let server = server().with_registry(registry);
    let (stream, ended) = dial_and_tell_end(&server, 1);
    stuck_after_welcome(stream).await;
    assert_eq!(accepted(&server).await.1, Duration::ZERO);
    assert_eq!(ends(ended).await.expect("no panic").0, Cause::Replaced);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_over_again_and_again_is_connected_once() {
    let registry = InProcessRegistry::new(DuplicatePolicy::Takeover, SECOND);
    let server = server().with_registry(registry.clone());
    let mut peers = vec![incumbent(&server).await];
    for _ in 0..20 {
        let (peer, after) = accepted(&server).await;
        assert_eq!(after, Duration::ZERO);
        peers.push(peer);
        assert_eq!(registry.len(), 1);
        assert!(!registry.is_empty());
    }
    let mut last = peers.pop().expect("a peer");
    for mut peer in peers {
        assert!(peer.last_words().await.ends_with("close 1007"));
    }
    assert!(last.is_undisturbed().await);
    last.close_and_vanish().await;
    ends(server.connections().wait_for(|&count| count == 0)).await.expect("the server lives");
    assert!(registry.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_late_release_does_not_give_the_newcomers_place_away() {
    let registry = Late::default();
    let released = Arc::clone(&registry.released);
    let server = server().with_registry(registry);
    let (mut first, _served) = dead(&server).await;
    let (mut second, _) = accepted(&server).await;
    assert_eq!(first.last_words().await, "close 4408 \"Client not responding to pings\"");
    let late = released.lock().expect("no panic").pop().expect("the first has left");
    drop(late);
    assert_eq!(refused(&server, "u1").await, SECOND);
    assert!(second.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_when_its_owner_has_left_however_late_the_one_before_leaves() {
    let registry = Late::default();
    let released = Arc::clone(&registry.released);
    let server = server().with_registry(registry);
    let (_first, _served) = dead(&server).await;
    let (second, _) = accepted(&server).await;
    second.vanish().await;
    ends(server.connections().wait_for(|&count| count == 0)).await.expect("the server lives");
    // The second's release is not late, the first's is still to come.
    drop(released.lock().expect("no panic").pop());
    assert_eq!(accepted(&server).await.1, Duration::ZERO);
}

/// A registry whose places are given free when the test wants it.
#[derive(Default)]
struct Late {
    registry: InProcessRegistry,
    released: Arc<Mutex<Vec<Registration>>>,
}

/// Leaves its registration behind.
struct LateRegistration {
    registration: Option<Registration>,
    released: Arc<Mutex<Vec<Registration>>>,
}

impl Registry for Late {
    type Registration = LateRegistration;

    async fn register(
        &self,
        client: &AuthenticatedClient,
        occupant: Occupant,
    ) -> Result<LateRegistration, RegistryError> {
        let registration = Some(self.registry.register(client, occupant).await?);
        Ok(LateRegistration { registration, released: Arc::clone(&self.released) })
    }
}

impl Drop for LateRegistration {
    fn drop(&mut self) {
        self.released.lock().expect("no panic").extend(self.registration.take());
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_closes_without_an_answer() {
    struct Down;
    impl Registry for Down {
        type Registration = ();
        async fn register(
            &self,
            _: &AuthenticatedClient,
            _: Occupant,
        ) -> Result<(), RegistryError> {
            Err(RegistryError::Unavailable("no connection to the store".into()))
        }
    }
    let server = server().with_registry(Down);
    let (stream, served) = dial(&server, WIDE, empty_database);
    let mut peer = Peer::upgrade(stream).await;
    peer.present("client", &token_of("u1")).await;
    assert_eq!(peer.last_words().await, "close 1011");
    let error = ends(served).await.expect("no panic").expect_err("it was not let in");
    assert!(matches!(&error, AcceptError::NotRegistered { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_time_to_authenticate() {
    let registry = InProcessRegistry::new(DuplicatePolicy::Wait, 60 * SECOND);
    let server = server().with_registry(registry.clone());
    let first = incumbent(&server).await;
    let mut second = connect(&server).await;
    let upgraded = Instant::now();
    second.present("client", &token_of("u1")).await;
    let (at, heard) = second.hear_at().await;
    assert_eq!(heard, Heard::closed(4408, "Authentication timeout"));
    assert_eq!(at - upgraded, 10 * SECOND);
    // It has left nothing behind.
    first.close_and_vanish().await;
    assert_eq!(accepted(&server).await.1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_while_it_waits_leaves_no_trace() {
    let server = server();
    let mut first = incumbent(&server).await;
    // Its peer goes, or whoever serves it.
    for abort in [false, true] {
        let (stream, served) = dial(&server, WIDE, empty_database);
        let second = Peer::upgrade(stream).await;
        second.present("client", &token_of("u1")).await;
        sleep(500 * MS).await;
        match abort {
            true => served.abort(),
            false => second.vanish().await,
        }
        sleep(SECOND).await;
        assert!(first.is_undisturbed().await);
    }
    first.close_and_vanish().await;
    assert_eq!(accepted(&server).await.1, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_done_or_dropped_or_panics_frees_the_place() {
    let server = server();
    for how in ["done", "dropped", "panics"] {
        let (stream, served) = dial(&server, WIDE, move |connection| async move {
            match how {
                "done" => drop(connection),
                "panics" => panic!("as intended by the test"),
                _ => {
                    let _held = connection;
                    pending().await
                }
            }
        });
        let mut first = Peer::upgrade(stream).await;
        first.authenticate("client", &token_of("u1")).await;
        if how == "dropped" {
            served.abort();
        }
        let (second, after) = accepted(&server).await;
        assert_eq!(after, Duration::ZERO, "{how}");
        second.close_and_vanish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn clients_with_other_ids_do_not_wait() {
    let server = server();
    let _first = incumbent(&server).await;
    for id in ["Client", "client ", "another"] {
        let mut peer = connect(&server).await;
        let asked = Instant::now();
        peer.authenticate(id, &token_of("u1")).await;
        assert_eq!(asked.elapsed(), Duration::ZERO, "{id}");
    }
}

/// A connection, and a task that tells why and when it ended.
fn dial_and_tell_end<A: Authenticator, R: Registry>(
    server: &Server<A, R>,
    width: usize,
) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<(Cause, Instant)>) {
    let (tell, told) = mpsc::channel();
    let (stream, served) = dial(server, width, move |mut connection: Connection<_>| async move {
        while connection.recv().await.is_some() {}
        let cause = connection.end().expect("it has ended").cause.clone();
        let _ = tell.send((cause, Instant::now()));
    });
    let ended = tokio::spawn(async move {
        served.await.expect("no panic").expect("it was let in");
        told.recv().expect("it has told")
    });
    (stream, ended)
}

/// Is let in, and reads not a byte more.
async fn stuck_after_welcome(mut stream: tokio::io::DuplexStream) {
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let head = async {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reading.read_u8().await.expect("an answer"));
        }
        peers::read_frame(&mut reading).await.expect("a welcome")
    };
    let auth = Request::from(auth_request("client", &token_of("u1"))).encode(1).encode();
    let ask = async {
        use tokio::io::AsyncWriteExt;
        writing.write_all(upgrade_request().as_bytes()).await.expect("the request is sent");
        writing.write_all(&frame(0x82, &auth)).await.expect("the call is sent");
    };
    ends(async { tokio::join!(head, ask) }).await;
    tokio::spawn(async move {
        let _held = stream;
        pending::<()>().await;
    });
}

mod recorded {
    //! The recordings, as `tests/vectors/README.md` describes them.

    use super::*;

    #[derive(Clone, Deserialize)]
    struct Line {
        case: String,
        now: i64,
        subprotocol: String,
        group: String,
        connection: String,
        answer_ms: u64,
        frames: Vec<Frame>,
        open: bool,
    }

    #[derive(Clone, Deserialize)]
    struct Frame {
        from: String,
        opcode: u8,
        hex: String,
    }

    impl Frame {
        fn payload(&self) -> Bytes {
            let byte = |at| u8::from_str_radix(&self.hex[at..at + 2], 16).expect("hex");
            (0..self.hex.len()).step_by(2).map(byte).collect()
        }

        /// Electric's own `startReplication` after the welcome, which we do not send then.
        fn is_unasked_start(&self) -> bool {
            let start = Request::from(SatInStartReplicationReq::default()).encode(0);
            self.from == "server"
                && self.opcode == 2
                && Message::decode(self.payload()) == Ok(start)
        }
    }

    impl Line {
        fn of_client(&self) -> impl Iterator<Item = (u8, Bytes)> {
            let frames = self.frames.iter().filter(|frame| frame.from == "client");
            frames.map(|frame| (frame.opcode, frame.payload()))
        }

        /// What the server said.
        fn in_words(&self) -> String {
            let frames = self.frames.iter().filter(|frame| frame.from == "server");
            let frames = frames.filter(|frame| !frame.is_unasked_start());
            words::conversation(frames.map(|frame| (frame.opcode, frame.payload())), self.open)
        }
    }

    fn lines() -> Vec<Line> {
        let text = std::fs::read_to_string("tests/vectors/dup.jsonl").expect("the recordings");
        text.lines().map(|line| serde_json::from_str(line).expect("a recording")).collect()
    }

    /// One connection of a group.
    #[derive(Clone, Copy)]
    struct Part {
        connection: &'static str,
        /// When each of the client's frames is sent, in milliseconds.
        sends: &'static [u64],
        /// When it vanishes.
        vanishes: Option<u64>,
        /// After how long its `authenticate` is answered here.
        answer: u64,
    }

    const fn part(connection: &'static str, sends: &'static [u64], answer: u64) -> Part {
        Part { connection, sends, vanishes: None, answer }
    }

    /// What happens in each group, as the README of the recordings tells it.
    const GROUPS: [(&str, &[Part]); 7] = [
        ("sequential", &[part("first", &[0, 0], 0), part("second", &[10], 0)]),
        ("first_closes_at_0", &[part("first", &[0, 10], 0), part("second", &[10], 0)]),
        ("first_closes_at_300ms", &[part("first", &[0, 310], 0), part("second", &[10], 300)]),
        (
            "first_tcp_drops_at_300ms",
            &[Part { vanishes: Some(310), ..part("first", &[0], 0) }, part("second", &[10], 300)],
        ),
        ("simultaneous", &[part("0", &[0], 0), part("1", &[0], 1000), part("2", &[0], 1000)]),
        ("stays", &[part("first", &[0, 1500], 0), part("second", &[10], 1000)]),
        ("stays_other_user", &[part("first", &[0], 0), part("second", &[10], 1000)]),
    ];

    #[tokio::test(start_paused = true)]
    async fn a_live_server_says_what_electric_said_and_after_the_same_wait() {
        let lines = lines();
        let mut replayed = 0;
        for (group, parts) in GROUPS {
            let of_group: Vec<_> = lines.iter().filter(|line| line.group == group).collect();
            let (server, start) = (server_of(&of_group), Instant::now());
            let playing: Vec<_> = parts
                .iter()
                .map(|part| {
                    let recorded = of_group.iter().find(|line| line.connection == part.connection);
                    let line = match recorded {
                        Some(line) => (*line).clone(),
                        None => first_of(&of_group),
                    };
                    let expected = match recorded {
                        Some(line) => {
                            replayed += 1;
                            assert!(line.answer_ms.abs_diff(part.answer) <= 5, "{}", line.case);
                            line.in_words()
                        }
                        None => "authenticate 1: welcome; open".into(),
                    };
                    let played = tokio::spawn(play(server.clone(), line, *part, start));
                    ((expected, part.answer), played)
                })
                .collect();
            let (mut expected, mut said) = (vec![], vec![]);
            for (expect, play) in playing {
                // A connection that vanishes hears nothing to the end.
                if let Some(heard) = ends(play).await.expect("no panic") {
                    expected.push(expect);
                    said.push(heard);
                }
            }
            // Which of several comes first is nobody's business.
            expected.sort();
            said.sort();
            assert_eq!(said, expected, "{group}");
        }
        assert_eq!(replayed, lines.len(), "every recorded connection is replayed");
    }

    fn server_of(lines: &[&Line]) -> Server<JwtAuthenticator> {
        let now = UnixTime::from_secs(lines[0].now);
        Server::new(JwtAuthenticator::insecure(None)).with_clock(move || now)
    }

    /// The connection that was there before the recorded one, which was not recorded: the same
    /// client, user `u1`.
    fn first_of(lines: &[&Line]) -> Line {
        let second = lines[0];
        let (_, call) = second.of_client().next().expect("an authenticate");
        let Ok(Message::Request(call)) = Message::decode(call) else { panic!("no call") };
        let Ok(Request::Authenticate(second_auth)) = Request::decode(call) else { panic!() };
        let token = Minter::unsigned().mint(&json!({ "user_id": "u1" })).expect("a token");
        let auth = Request::from(auth_request(&second_auth.id, token.expose())).encode(1);
        let hex = auth.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let frames = vec![Frame { from: "client".into(), opcode: 2, hex }];
        Line { connection: "first".into(), frames, ..second.clone() }
    }

    /// What a connection is told, in words, and after how many milliseconds first; nothing if it
    /// vanishes.
    async fn play(
        server: Server<JwtAuthenticator>,
        line: Line,
        part: Part,
        start: Instant,
    ) -> Option<(String, u64)> {
        let at = |ms: u64| start + Duration::from_millis(ms);
        sleep_until(at(part.sends[0])).await;
        let mut stream = dial(&server, WIDE, empty_database).0;
        let answer = http(&mut stream, &upgrade_request_to(&line.subprotocol)).await;
        assert_eq!(answer.status, 101);
        let mut peer = Peer::on(POLITE, stream);
        for (&ms, (opcode, payload)) in part.sends.iter().zip(line.of_client()) {
            sleep_until(at(ms)).await;
            peer.send(opcode, &payload).await;
        }
        if let Some(ms) = part.vanishes {
            sleep_until(at(ms)).await;
            peer.vanish().await;
            return None;
        }
        let (first, opcode, payload) = peer.next_frame().await.expect("an answer");
        sleep_until(at(5000)).await;
        let said = peer.in_words_after(vec![(opcode, payload)]).await;
        let after = (first - at(part.sends[0])).as_millis();
        Some((said, u64::try_from(after).expect("milliseconds")))
    }
}
