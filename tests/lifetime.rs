//! How long a connection lasts: deadlines, keepalive, expiry, revocation, and what a peer may
//! cost before and after it is let in.
//!
//! The clients are in memory and time is paused, so every deadline is exact.

mod peers;

use std::{future::pending, time::Duration};

use electric_satellite::{
    auth::{AuthError, Authenticator, JwtAuthenticator, Minter, RevocationList},
    registry::Registry,
    server::{AcceptError, ExpiryPolicy, Server, empty_database},
    session::{
        AuthChangePolicy, AuthRequest, AuthenticatedClient, Cause, Fault, UnixTime, Verified,
        Violation,
    },
    transport::{Connection, Event, Limits},
    wire::{
        Reply, Request,
        proto::{
            SatInStartReplicationReq, SatInStartReplicationResp, SatOpLogAck, SatRelation,
            SatSubsReq,
        },
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::oneshot,
    time::{Instant, advance, sleep, timeout},
};

use peers::{
    DEAF_TO_PINGS, Heard, Manners, NOW, POLITE, Peer, SECOND, Served, WIDE, auth_request,
    authenticator, dial, ends, frame, frame_head, http, read_frame, server, server_with, token_of,
    token_with, upgrade_request,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

const SILENT: Heard = Heard::closed(4408, "Client not responding to pings");
const EXPIRED: Heard = Heard::closed(4000, "JWT-expired");
const TOO_LARGE: Heard = Heard::closed(1009, "Message too large");
const AUTH_TIMEOUT: Heard = Heard::closed(4408, "Authentication timeout");

async fn connect<A: Authenticator, R: Registry>(server: &Server<A, R>) -> Peer {
    Peer::upgrade(dial(server, WIDE, empty_database).0).await
}

/// A client that is let in, and when.
async fn let_in<A: Authenticator, R: Registry>(
    server: &Server<A, R>,
    manners: Manners,
) -> (Peer, Instant) {
    let mut peer = Peer::upgrade_with(manners, dial(server, WIDE, empty_database).0).await;
    peer.authenticate("client", &token_of("u")).await;
    (peer, Instant::now())
}

fn with_limits(change: impl FnOnce(&mut Limits)) -> Server<JwtAuthenticator> {
    let mut limits = Limits::default();
    change(&mut limits);
    server().with_limits(limits)
}

// Keepalive.

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_after_the_interval_and_closed_after_the_timeout() {
    let (mut peer, start) = let_in(&server(), DEAF_TO_PINGS).await;
    assert_eq!(peer.hear_all_at().await, (start + 20 * SECOND, Heard::Ping));
    assert_eq!(peer.hear_all_at().await, (start + 40 * SECOND, SILENT));
    assert_eq!(peer.hear_all_at().await, (start + 40 * SECOND, Heard::Gone));
}

#[tokio::test(start_paused = true)]
async fn interval_and_timeout_are_as_configured() {
    let server = with_limits(|limits| {
        limits.ping_interval = Some(7 * SECOND);
        limits.ping_timeout = 3 * SECOND;
    });
    let (mut peer, start) = let_in(&server, DEAF_TO_PINGS).await;
    assert_eq!(peer.hear_all_at().await, (start + 7 * SECOND, Heard::Ping));
    assert_eq!(peer.hear_all_at().await, (start + 10 * SECOND, SILENT));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_lives_and_is_pinged_as_seldom_as_agreed() {
    let (mut peer, start) = let_in(&server(), POLITE).await;
    for pings in 1..=1000 {
        let expected = (start + pings * 20 * SECOND, Heard::Ping);
        assert_eq!(peer.hear_all_at().await, expected);
    }
    assert!(peer.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn every_frame_is_a_sign_of_life() {
    let message = Request::from(subscription("s")).encode(2).encode();
    for (what, bytes) in [
        ("message", frame(0x82, &message)),
        ("ping", frame(0x89, b"")),
        ("pong that nobody asked for", frame(0x8a, b"x")),
        ("beginning of a message", frame(0x02, &message[..4])),
    ] {
        let (mut peer, start) = let_in(&server(), DEAF_TO_PINGS).await;
        // Just before it would be pinged, and just before it would be closed.
        for (sent, pinged) in [(19, 39), (58, 78)] {
            sleep(start + sent * SECOND - Instant::now()).await;
            peer.send_bytes(&bytes).await;
            let mut next = peer.hear_all_at().await;
            while !matches!(next.1, Heard::Ping | Heard::Close(_)) {
                next = peer.hear_all_at().await;
            }
            assert_eq!(next, (start + pinged * SECOND, Heard::Ping), "{what}");
            if what == "beginning of a message" {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_in_the_middle_of_a_long_frame_is_alive() {
    let (mut peer, _) = let_in(&server(), DEAF_TO_PINGS).await;
    let request = SatSubsReq { subscription_id: "s".repeat(100_000), ..Default::default() };
    let long = frame(0x82, &Request::from(request).encode(2).encode());
    // Whoever is sending a frame cannot answer a ping before its end.
    for piece in long.chunks(1000) {
        sleep(SECOND).await;
        peer.send_bytes(piece).await;
    }
    let answer = peer.hear().await;
    assert!(answer.reply().is_ok(), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn without_an_interval_nobody_is_pinged() {
    let server = with_limits(|limits| limits.ping_interval = None);
    let (mut peer, _) = let_in(&server, DEAF_TO_PINGS).await;
    sleep(DAY).await;
    peer.ping().await;
    assert_eq!(peer.hear_all_at().await.1, Heard::Pong);
}

#[tokio::test(start_paused = true)]
async fn pings_do_not_need_the_handler() {
    let (stream, _served) = dial(&server(), WIDE, hold);
    let mut peer = Peer::upgrade_with(DEAF_TO_PINGS, stream).await;
    peer.authenticate("client", &token_of("u")).await;
    let start = Instant::now();
    assert_eq!(peer.hear_all_at().await, (start + 20 * SECOND, Heard::Ping));
    assert_eq!(peer.hear_all_at().await, (start + 40 * SECOND, SILENT));
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_is_sent_gives_it_no_more_time_to_answer_a_ping() {
    let server = server();
    let (stream, _served) = dial(&server, WIDE, |mut connection: Connection<_>| async move {
        let Some(Event::StartReplication(_, responder)) = connection.recv().await else {
            panic!("no call");
        };
        responder.reply(SatInStartReplicationResp::default());
        while connection.send(SatRelation::default()).await.is_ok() {
            sleep(SECOND).await;
        }
    });
    let mut peer = Peer::upgrade_with(DEAF_TO_PINGS, stream).await;
    peer.authenticate("client", &token_of("u")).await;
    peer.call(2, SatInStartReplicationReq::default()).await;
    let start = Instant::now();
    for told in 0.. {
        match peer.hear_at().await {
            (_, Heard::Message(_)) => assert!(told < 50, "it is sent messages for ever"),
            end => return assert_eq!((end, told > 30), ((start + 40 * SECOND, SILENT), true)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_the_handler_does_not_listen_to_is_not_blamed_for_silence() {
    let (stream, _served) = dial(&server(), WIDE, hold);
    let mut peer = Peer::upgrade(stream).await;
    peer.authenticate("client", &token_of("u")).await;
    for _ in 0..100 {
        peer.send_message(&SatOpLogAck::default().into()).await;
    }
    // Its answers to pings wait behind its messages.
    assert!(timeout(DAY, peer.next_frame()).await.is_err());
}

/// Does nothing, and keeps the connection.
async fn hold(connection: Connection<AuthenticatedClient>) {
    let _held = connection;
    pending().await
}

fn subscription(id: &str) -> SatSubsReq {
    SatSubsReq { subscription_id: id.into(), ..Default::default() }
}

// Peers that do not read.

/// A stream to a server that sends for ever, once it has sent all it can; and what it is told of
/// the end. Nothing is read from it any more.
async fn streaming(
    limits: Limits,
    width: usize,
) -> (DuplexStream, Instant, oneshot::Receiver<(Cause, Instant)>) {
    let (tell, told) = oneshot::channel();
    let server = server().with_limits(limits);
    let (mut stream, _served) =
        dial(&server, width, move |mut connection: Connection<_>| async move {
            let Some(Event::StartReplication(_, responder)) = connection.recv().await else {
                panic!("no call");
            };
            responder.reply(SatInStartReplicationResp::default());
            let relation = SatRelation { table_name: "t".repeat(1000), ..Default::default() };
            while connection.send(relation.clone()).await.is_ok() {}
            let cause = connection.end().expect("it has ended").cause.clone();
            let _ = tell.send((cause, Instant::now()));
        });
    enter(&mut stream).await;
    let start = Request::from(SatInStartReplicationReq::default()).encode(2).encode();
    stream.write_all(&frame(0x82, &start)).await.expect("the call is sent");
    let _answer = read_frame(&mut stream).await.expect("an answer");
    // The clock stands still until the server cannot send more.
    (stream, Instant::now(), told)
}

/// Is upgraded and let in.
async fn enter(stream: &mut DuplexStream) {
    assert_eq!(http(stream, &upgrade_request()).await.status, 101);
    let auth = Request::from(auth_request("client", &token_of("u"))).encode(1).encode();
    stream.write_all(&frame(0x82, &auth)).await.expect("the call is sent");
    read_frame(stream).await.expect("a welcome");
}

const STUCK: Cause = Cause::Violation(Violation::WebSocket(Fault::Stuck));

/// Pings are another matter.
fn unpinged() -> Limits {
    Limits { ping_interval: None, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_given_up_after_the_write_timeout() {
    for width in [64, 1000, 4096, 60_000] {
        let (mut stream, start, ended) = streaming(unpinged(), width).await;
        let (cause, at) = ends(ended).await.expect("it has ended");
        assert_eq!((cause, at - start), (STUCK, 30 * SECOND), "{width}");
        // And the stream with it.
        sleep(3 * SECOND).await;
        let mut rest = vec![];
        ends(stream.read_to_end(&mut rest)).await.expect("bytes");
        assert!(rest.len() <= width, "nothing is sent any more");
    }
}

#[tokio::test(start_paused = true)]
async fn every_byte_that_is_read_gives_a_peer_the_whole_write_timeout() {
    let (mut stream, start, ended) = streaming(unpinged(), 4096).await;
    let mut bytes = [0; 100];
    for _ in 0..3 {
        sleep(29 * SECOND).await;
        stream.read_exact(&mut bytes).await.expect("bytes");
    }
    let (cause, at) = ends(ended).await.expect("it has ended");
    assert_eq!((cause, at - start), (STUCK, 3 * 29 * SECOND + 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_but_steadily_stays() {
    let (mut stream, _, mut ended) = streaming(unpinged(), 4096).await;
    let mut bytes = [0; 64];
    for _ in 0..1000 {
        sleep(20 * SECOND).await;
        stream.read_exact(&mut bytes).await.expect("bytes");
    }
    ended.try_recv().expect_err("it has not ended");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_not_blamed_for_pings_that_it_has_not_read() {
    let (mut stream, _, mut ended) = streaming(Limits::default(), 4096).await;
    // A megabyte waits to be sent: at this pace, the first ping arrives after two minutes.
    let mut bytes = [0; 9000];
    for _ in 0..240 {
        sleep(SECOND).await;
        stream.read_exact(&mut bytes).await.expect("bytes");
        if ended.try_recv().is_ok() {
            panic!("it has ended, though the peer reads");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_answers_is_not_listened_to_for_ever() {
    let limits = unpinged();
    let most = limits.max_unsent_bytes;
    let (tell, ended) = oneshot::channel();
    let (mut stream, _served) =
        dial(&server().with_limits(limits), 4096, |mut connection: Connection<_>| async move {
            while connection.recv().await.is_some() {}
            let _ = tell.send(connection.end().expect("it has ended").cause.clone());
        });
    enter(&mut stream).await;
    let ping = frame(0x89, &[b'x'; 125]);
    let (start, mut sent) = (Instant::now(), 0);
    while sent < 2 * most && stream.write_all(&ping).await.is_ok() {
        sent += ping.len();
    }
    assert!(sent < most, "the server owes {sent} bytes of answers, and listens on");
    assert_eq!(ends(ended).await.expect("it has ended"), STUCK);
    // The write fails when the stream has ended, too.
    assert!(start.elapsed() <= 30 * SECOND + Limits::default().close_timeout);
}

// Expiry and age.

/// A client whose token ends 60 s from the beginning, and when it was let in.
async fn with_token_for_a_minute<A: Authenticator>(server: &Server<A>) -> (Peer, Instant) {
    let mut peer = connect(server).await;
    let token = token_with(&json!({ "sub": "u", "exp": NOW + 60 }));
    peer.authenticate("client", &token).await;
    (peer, Instant::now())
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_is_nobodys_business_by_default() {
    let (mut peer, _) = with_token_for_a_minute(&server()).await;
    sleep(DAY).await;
    assert!(peer.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn expiry_closes_at_exp_plus_leeway_if_that_is_the_policy() {
    for leeway in [0, 2, 3600] {
        let server = server().with_expiry(ExpiryPolicy::Close { leeway });
        let (mut peer, start) = with_token_for_a_minute(&server).await;
        let end = start + (60 + leeway) * SECOND;
        assert_eq!(peer.hear_at().await, (end, EXPIRED), "{leeway}");
    }
}

#[tokio::test(start_paused = true)]
async fn expiry_is_judged_by_the_clock_that_is_given() {
    for (shown, left) in [(0, 62), (50, 12), (60, 2), (62, 0), (-1000, 1062)] {
        let server = server()
            .with_clock(move || UnixTime::from_secs(NOW + shown))
            .with_expiry(ExpiryPolicy::Close { leeway: 2 });
        let mut peer = connect(&server).await;
        let claims = json!({ "sub": "u", "iat": NOW - 2000, "exp": NOW + 60 });
        peer.authenticate("client", &token_with(&claims)).await;
        let start = Instant::now();
        let (at, heard) = peer.hear_at().await;
        assert_eq!((at - start, heard), (left * SECOND, EXPIRED), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_end_does_not_expire() {
    let server = server_with(JwtAuthenticator::insecure(None))
        .with_limits(unpinged())
        .with_expiry(ExpiryPolicy::Close { leeway: 0 });
    let token = Minter::unsigned().mint(&json!({ "sub": "u" })).expect("a token");
    let mut peer = connect(&server).await;
    peer.authenticate("client", token.expose()).await;
    sleep(400 * DAY).await;
    assert!(peer.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_end_is_beyond_all_clocks_does_no_harm() {
    let server = server().with_expiry(ExpiryPolicy::Close { leeway: u32::MAX });
    let mut peer = connect(&server).await;
    let claims = json!({ "sub": "u", "exp": 9_007_199_254_740_991_i64 });
    peer.authenticate("client", &token_with(&claims)).await;
    sleep(DAY).await;
    assert!(peer.is_undisturbed().await);
}

#[tokio::test(start_paused = true)]
async fn another_token_of_the_same_user_moves_the_expiry_if_that_is_the_policy() {
    let closing = || server().with_expiry(ExpiryPolicy::Close { leeway: 0 });
    let another = || token_with(&json!({ "sub": "u", "exp": NOW + 100 }));
    let renewing = || closing().with_auth_changes(AuthChangePolicy::RenewSameIdentity);
    let (mut peer, start) = with_token_for_a_minute(&renewing()).await;
    peer.call(2, auth_request("client", &another())).await;
    assert!(matches!(peer.hear().await.reply(), Ok(Reply::Authenticate(_))));
    assert_eq!(peer.hear_at().await, (start + 100 * SECOND, EXPIRED));

    let (mut peer, _) = with_token_for_a_minute(&renewing()).await;
    peer.call(2, auth_request("client", &token_of("another user"))).await;
    assert_eq!(peer.last_words().await, "authenticate 2: refused, INVALID_REQUEST; close 1007");

    let (mut peer, _) = with_token_for_a_minute(&closing()).await;
    peer.call(2, auth_request("client", &another())).await;
    assert_eq!(peer.last_words().await, "authenticate 2: refused, INVALID_REQUEST; close 1007");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_on_which_nobody_decides_is_refused_in_time() {
    struct Undecided;
    impl Authenticator for Undecided {
        async fn authenticate(
            &self,
            request: &AuthRequest,
            now: UnixTime,
        ) -> Result<Verified, AuthError> {
            match request.token().expose() {
                "undecided" => pending().await,
                _ => authenticator().authenticate(request, now).await,
            }
        }
    }
    let server = server_with(Undecided).with_auth_changes(AuthChangePolicy::RenewSameIdentity);
    let (mut peer, _) = let_in(&server, POLITE).await;
    sleep(15 * SECOND).await;
    peer.call(2, auth_request("client", "undecided")).await;
    let asked = Instant::now();
    assert_eq!(peer.last_words().await, "authenticate 2: refused, INVALID_REQUEST; close 1007");
    assert_eq!(asked.elapsed(), Limits::default().auth_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_connection_lasts_as_long_as_it_may() {
    let server = with_limits(|limits| limits.max_session_age = Some(3600 * SECOND));
    let mut peer = connect(&server).await;
    // The handshake does not count.
    sleep(5 * SECOND).await;
    peer.authenticate("client", &token_of("u")).await;
    let end = Instant::now() + 3600 * SECOND;
    let close = Heard::closed(1001, "Maximum connection age reached");
    assert_eq!(peer.hear_at().await, (end, close));
}

#[tokio::test(start_paused = true)]
async fn of_expiry_and_age_the_earlier_counts() {
    let too_old = Heard::closed(1001, "Maximum connection age reached");
    for (age, end) in [(61, (61, too_old)), (63, (62, EXPIRED))] {
        let server = with_limits(|limits| limits.max_session_age = Some(age * SECOND))
            .with_expiry(ExpiryPolicy::Close { leeway: 2 });
        let (mut peer, start) = with_token_for_a_minute(&server).await;
        let (at, heard) = peer.hear_at().await;
        assert_eq!((at - start, heard), (end.0 * SECOND, end.1));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_never_pauses_does_not_last_longer() {
    let server = with_limits(|limits| limits.max_session_age = Some(10 * SECOND));
    let (mut stream, _served) = dial(&server, WIDE, empty_database);
    enter(&mut stream).await;
    // All of it has arrived when the time comes.
    let ping = frame(0x89, b"");
    let pings = WIDE / ping.len();
    let flood: Vec<u8> = ping.iter().copied().cycle().take(pings * ping.len()).collect();
    stream.write_all(&flood).await.expect("there is room");
    advance(10 * SECOND).await;
    let mut answered = 0;
    while let Some((10, _)) = ends(read_frame(&mut stream)).await {
        answered += 1;
    }
    assert!(answered < pings / 2, "{answered} of {pings} pings are answered after the end");
}

// Revocation.

/// A server that revokes, and keeps an eye on it.
fn revoking() -> (Server<JwtAuthenticator>, RevocationList) {
    let list = RevocationList::default();
    let server = server_with(authenticator().with_revocations(list.clone()));
    let maintained = server.clone();
    tokio::spawn(async move { maintained.maintain().await });
    (server, list)
}

#[tokio::test(start_paused = true)]
async fn revocation_closes_what_is_revoked_at_once_and_nothing_else() {
    let (server, list) = revoking();
    let mut peers = vec![];
    for (id, user, jti, iat) in [
        ("a", "u1", "t1", NOW),
        ("b", "u1", "t2", NOW),
        ("c", "u2", "t3", NOW),
        ("d", "u2", "t4", NOW),
        ("e", "u3", "t5", NOW - 100),
        ("f", "u3", "t6", NOW),
    ] {
        let mut peer = connect(&server).await;
        let token = token_with(&json!({ "sub": user, "jti": jti, "iat": iat }));
        peer.authenticate(id, &token).await;
        peers.push((id, peer));
    }
    let revocations: [(&dyn Fn(), &[&str]); 3] = [
        (&|| list.revoke_user("u1"), &["a", "b"]),
        (&|| list.revoke_token("t4"), &["d"]),
        (&|| list.revoke_user_before("u3", UnixTime::from_secs(NOW)), &["e"]),
    ];
    for (revoke, closed) in revocations {
        sleep(SECOND).await;
        let now = Instant::now();
        revoke();
        let mut left = vec![];
        for (id, mut peer) in peers {
            if closed.contains(&id) {
                assert_eq!(peer.hear_at().await, (now, EXPIRED), "{id}");
            } else {
                assert!(peer.is_undisturbed().await, "{id}");
                left.push((id, peer));
            }
        }
        assert_eq!(Instant::now(), now);
        peers = left;
    }
    let ids: Vec<_> = peers.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, ["c", "f"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_revoked_while_it_waits_for_its_place_does_not_stay() {
    let (server, list) = revoking();
    let token = |jti: &str| token_with(&json!({ "sub": "u", "jti": jti }));
    let mut first = connect(&server).await;
    first.authenticate("client", &token("t1")).await;
    let mut second = connect(&server).await;
    second.present("client", &token("t2")).await;
    sleep(SECOND / 10).await;
    list.revoke_token("t2");
    sleep(SECOND / 10).await;
    first.close_and_vanish().await;
    sleep(SECOND).await;
    let told = second.in_words().await;
    assert!(!told.ends_with("; open"), "{told}");
}

// Before authentication.

#[tokio::test(start_paused = true)]
async fn whoever_does_not_authenticate_is_closed_at_the_deadline() {
    for timeout in [SECOND, 10 * SECOND] {
        let server = with_limits(|limits| limits.auth_timeout = timeout);
        for trickle in [false, true] {
            let mut peer = connect(&server).await;
            let start = Instant::now();
            if trickle {
                let auth = auth_request("client", &token_of("u"));
                let bytes = frame(0x82, &Request::from(auth).encode(1).encode());
                for byte in &bytes[..9] {
                    sleep(timeout / 10).await;
                    peer.send_bytes(&[*byte]).await;
                }
            }
            assert_eq!(peer.hear_all_at().await, (start + timeout, AUTH_TIMEOUT), "{trickle}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_does_not_come_is_a_refusal_at_the_deadline() {
    struct Slow(Duration);
    impl Authenticator for Slow {
        async fn authenticate(
            &self,
            request: &AuthRequest,
            now: UnixTime,
        ) -> Result<Verified, AuthError> {
            sleep(self.0).await;
            authenticator().authenticate(request, now).await
        }
    }
    let limit = Limits::default().auth_timeout;
    let millisecond = Duration::from_millis(1);
    let mut peer = connect(&server_with(Slow(limit - millisecond))).await;
    peer.authenticate("client", &token_of("u")).await;

    let mut peer = connect(&server_with(Slow(limit + millisecond))).await;
    let start = Instant::now();
    peer.present("client", &token_of("u")).await;
    assert_eq!(peer.hear_at().await, (start + limit, AUTH_TIMEOUT));
}

/// After how long the server ends the stream, read or not, and what became of it.
async fn ended(
    mut stream: DuplexStream,
    served: Served,
    start: Instant,
) -> (Duration, AcceptError) {
    let error = ends(served).await.expect("no panic").expect_err("it was not let in");
    let after = start.elapsed();
    // What was on its way may still be read.
    let mut rest = vec![];
    let _ = ends(stream.read_to_end(&mut rest)).await;
    (after, error)
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_has_a_deadline_for_those_who_say_nothing() {
    let (stream, served) = dial(&server(), WIDE, empty_database);
    let (after, _) = ended(stream, served, Instant::now()).await;
    assert_eq!(after, 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_has_a_deadline_for_those_who_say_it_slowly() {
    let (mut stream, served) = dial(&server(), WIDE, empty_database);
    let start = Instant::now();
    let talking = tokio::spawn(async move {
        for byte in upgrade_request().into_bytes() {
            sleep(SECOND).await;
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        stream
    });
    let error = ends(served).await.expect("no panic").expect_err("it was not let in");
    assert_eq!(start.elapsed(), 10 * SECOND, "{error}");
    talking.abort();
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_has_a_deadline_for_those_who_ask_for_other_things_first() {
    let (mut stream, served) = dial(&server(), WIDE, empty_database);
    let start = Instant::now();
    let talking = tokio::spawn(async move {
        for _ in 0..100 {
            let request = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
            let _ = stream.write_all(request).await;
            sleep(3 * SECOND).await;
        }
    });
    let error = ends(served).await.expect("no panic").expect_err("it was not let in");
    assert_eq!(start.elapsed(), 10 * SECOND, "{error}");
    talking.abort();
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_has_a_deadline_for_those_who_do_not_read_the_answer() {
    let status = "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    for request in [upgrade_request(), status] {
        let (stream, served) = dial(&server(), 16, empty_database);
        let (reading, mut writing) = tokio::io::split(stream);
        let start = Instant::now();
        let talking = tokio::spawn(async move {
            let _unread = reading;
            let _ = writing.write_all(request.as_bytes()).await;
            pending::<()>().await;
        });
        let error = ends(served).await.expect("no panic").expect_err("it was not let in");
        assert_eq!(start.elapsed(), 10 * SECOND, "{error}");
        talking.abort();
    }
}

/// Sends these bytes again and again until the server has closed; how many that were.
async fn send_until_closed(peer: &mut Peer, bytes: &[u8], close: &Heard) -> usize {
    let mut sent = 0;
    loop {
        peer.send_bytes(bytes).await;
        sent += bytes.len();
        while let Some(heard) = peer.heard_already() {
            if heard != Heard::Pong {
                assert_eq!(&heard, close);
                return sent;
            }
        }
        assert!(sent < WIDE, "it takes everything");
        tokio::task::yield_now().await;
    }
}

/// One message, and a little more.
const BUDGET: usize = 64 * 1024 + 16 * 1024;

#[tokio::test(start_paused = true)]
async fn fragments_without_end_are_taken_up_to_a_budget() {
    for payload in [&b""[..], b"x"] {
        let (stream, _served) = dial(&server(), 256, empty_database);
        let mut peer = Peer::upgrade(stream).await;
        peer.send_bytes(&frame(0x02, b"x")).await;
        let sent = send_until_closed(&mut peer, &frame(0x00, payload), &TOO_LARGE).await;
        assert!(sent < BUDGET, "{sent} bytes are taken");
    }
}

#[tokio::test(start_paused = true)]
async fn pings_before_authentication_are_taken_up_to_a_budget() {
    for payload in [&b""[..], &[b'x'; 125]] {
        let (stream, _served) = dial(&server(), 256, empty_database);
        let mut peer = Peer::upgrade(stream).await;
        let sent = send_until_closed(&mut peer, &frame(0x89, payload), &TOO_LARGE).await;
        assert!(sent < BUDGET, "{sent} bytes are taken");
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_not_for_those_who_are_in() {
    let (mut peer, _) = let_in(&server(), POLITE).await;
    for _ in 0..2000 {
        peer.send(9, &[b'x'; 125]).await;
    }
    for _ in 0..2000 {
        assert_eq!(peer.hear().await, Heard::Pong);
    }
    assert!(peer.is_undisturbed().await);
}

/// An `authenticate` that is so long in all.
fn auth_of_length(length: usize) -> Vec<u8> {
    let encode = |id: usize| {
        let auth = auth_request(&"c".repeat(id), &token_of("u"));
        Request::from(auth).encode(1).encode().to_vec()
    };
    let around = encode(length).len() - length;
    let message = encode(length - around);
    assert_eq!(message.len(), length);
    message
}

#[tokio::test(start_paused = true)]
async fn a_message_before_authentication_may_be_so_large_and_no_larger() {
    let max = 64 * 1024;
    for fragments in [1, 3] {
        for (length, fits) in [(max - 1, true), (max, true), (max + 1, false), (2 * max, false)] {
            let mut peer = connect(&server()).await;
            let message = auth_of_length(length);
            let pieces: Vec<_> = message.chunks(length.div_ceil(fragments)).collect();
            for (at, piece) in pieces.iter().enumerate() {
                let fin = if at + 1 == pieces.len() { 0x80 } else { 0 };
                let opcode = if at == 0 { 2 } else { 0 };
                peer.send_bytes(&frame(fin | opcode, piece)).await;
            }
            let heard = peer.hear().await;
            match fits {
                true => assert!(heard.reply().is_ok(), "{length} in {fragments}: {heard:?}"),
                false => assert_eq!(heard, TOO_LARGE, "{length} in {fragments}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_after_authentication_may_be_as_large_as_configured() {
    let max = 300 * 1024;
    let server = with_limits(|limits| limits.max_message = max);
    for (length, fits) in [(max - 1, true), (max, true), (max + 1, false)] {
        let (mut peer, _) = let_in(&server, POLITE).await;
        let encode = |id: usize| Request::from(subscription(&"s".repeat(id))).encode(2).encode();
        let around = encode(length).len() - length;
        let message = encode(length - around);
        assert_eq!(message.len(), length);
        peer.send(2, &message).await;
        let heard = peer.hear().await;
        match fits {
            true => assert!(heard.reply().is_ok(), "{length}: {heard:?}"),
            false => assert_eq!(heard, TOO_LARGE, "{length}"),
        }
        peer.close_and_vanish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_beyond_the_limit_is_refused_before_anything_of_it_comes() {
    let server = server();
    for length in [16 * 1024 * 1024 + 1, 1 << 32, 1 << 62, (1 << 63) - 1] {
        let mut before = connect(&server).await;
        let (mut after, _) = let_in(&server, POLITE).await;
        for peer in [&mut before, &mut after] {
            let now = Instant::now();
            peer.send_bytes(&frame_head(0x82, length)).await;
            assert_eq!(peer.hear_at().await, (now, TOO_LARGE.clone()), "{length}");
        }
        after.close_and_vanish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_with_the_top_bit_set_does_no_harm() {
    let server = server();
    for length in [1 << 63, u64::MAX] {
        let mut peer = connect(&server).await;
        peer.send_bytes(&frame_head(0x82, length)).await;
        let heard = peer.hear().await;
        assert!(matches!(heard, Heard::Close(_)), "{length}: {heard:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn a_length_that_is_only_declared_costs_no_memory() {
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("how much memory is used");
        let pages = statm.split(' ').nth(1).expect("pages").parse::<usize>().expect("a number");
        pages * 4096
    }
    const CONNECTIONS: usize = 64;
    let server = server();
    let declared = Limits::default().max_message;
    let before = resident();
    let mut peers = vec![];
    for _ in 0..CONNECTIONS {
        let (stream, _served) = dial(&server, 1024, empty_database);
        let peer = Peer::upgrade(stream).await;
        peer.send_bytes(&frame_head(0x82, declared as u64)).await;
        peer.send_bytes(&[0; 100]).await;
        peers.push(peer);
    }
    sleep(SECOND).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < CONNECTIONS * declared / 4, "{grown} bytes for {CONNECTIONS} connections");
    for mut peer in peers {
        let heard = peer.hear().await;
        assert!([TOO_LARGE, AUTH_TIMEOUT].contains(&heard), "{heard:?}");
    }
}
