//! The token provider: when it is asked, and why, and what it may do; tokens that are renewed.

use std::{
    future::{pending, ready},
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::JwtAuthenticator,
    client::{
        Advice, ClientBuilder, Failure, RenewalPolicy, Stopped, TokenError,
        TokenReason::{self, *},
    },
    server::{ExpiryPolicy, Server},
    session::{AuthChangePolicy, Cause, Close, Token},
    wire::{Method, proto::sat_error_resp::ErrorCode},
};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    common::error,
    peers::{NOW, server as jwt_server, token_with, wall_clock},
    table::closes,
    world::{World, connected, given_up, lets_in, waiting},
};

const SECOND: Duration = Duration::from_secs(1);

/// A provider that answers like this, one after the other, and then with a good token.
fn answers<const N: usize>(
    answers: [fn() -> Result<Token, TokenError>; N],
) -> impl Fn(TokenReason) -> std::future::Ready<Result<Token, TokenError>> {
    let next = AtomicUsize::new(0);
    move |_| {
        let next = next.fetch_add(1, Ordering::Relaxed);
        ready(answers.get(next).unwrap_or(&(good as fn() -> _))())
    }
}

fn good() -> Result<Token, TokenError> {
    Ok(Token::new("good user").unwrap())
}

fn bad() -> Result<Token, TokenError> {
    Ok(Token::new("bad").unwrap())
}

fn none_now() -> Result<Token, TokenError> {
    Err(TokenError::temporary("the backend is down"))
}

fn none_ever() -> Result<Token, TokenError> {
    Err(TokenError::fatal("signed out"))
}

#[tokio::test(start_paused = true)]
async fn a_token_is_asked_for_before_every_attempt_and_the_provider_is_told_why() {
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    assert_eq!(world.asked(), []);
    client.connect();
    client.connection().await.unwrap().close(Close::NORMAL);
    connected(&client).await;
    world.scene(|stream| async { drop(stream) });
    drop(client.connection().await.unwrap());
    client.connection().await.unwrap();
    client.disconnect();
    client.connect();
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [Connect, Reconnect, Reconnect, Reconnect, Connect]);
    assert_eq!(world.dials().len(), world.asked().len());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_once() {
    let world = World::new(&["good user"]);
    let client = world.builder_with(answers([bad, good, bad, bad])).build();
    client.connect();
    drop(client.connection().await.unwrap());
    let failure = given_up(&client).await;
    assert!(matches!(&*failure, Failure::Connect(_)));
    assert_eq!(failure.advice(), Advice::FreshToken);
    assert_eq!(world.asked(), [Connect, Rejected, Reconnect, Rejected]);
    // It is asked from the beginning when the client is told to connect again.
    client.connect();
    client.connection().await.unwrap();
    assert_eq!(world.asked()[4..], [Connect]);
}

/// Whoever has but one token has none when that is refused.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_is_not_presented_again() {
    let world = World::new(&["bad"]);
    let client = world.builder().build();
    client.connect();
    let failure = given_up(&client).await;
    assert!(matches!(&*failure, Failure::Connect(_)), "{failure}");
    assert_eq!(world.asked(), [Connect, Rejected]);
    assert_eq!(world.dials().len(), 1);
    // It may be good by now, for whoever says so.
    client.connect();
    given_up(&client).await;
    assert_eq!(world.dials().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_on_a_live_connection_is_not_presented_again() {
    let world = World::new(&["good user"]);
    world.scene(|stream| async {
        let mut raw = lets_in(stream).await;
        closes(&mut raw, &Close::EXPIRED).await;
    });
    let client = world.builder().build();
    client.connect();
    let failure = given_up(&client).await;
    assert!(matches!(&*failure, Failure::Ended(_)), "{failure}");
    assert_eq!((world.asked(), world.dials().len()), (vec![Connect, Rejected], 1));
}

/// As long as there is no other, the rejected token is the last that there was.
#[tokio::test(start_paused = true)]
async fn a_rejected_token_stays_rejected_while_there_is_no_other() {
    let world = World::new(&["good user"]);
    let client = world.builder_with(answers([bad, none_now, none_now])).build();
    client.connect();
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [Connect, Rejected, Rejected, Rejected]);
    assert_eq!(world.dials().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_not_presented_is_no_rejected_one() {
    let world = World::new(&["good user"]);
    let client = world.builder_with(answers([bad, good, bad, good])).build();
    client.connect();
    waiting(&client).await;
    world.scene(|stream| async { drop(stream) });
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [Connect, Rejected, Reconnect, Rejected]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_has_none_now_is_asked_again() {
    let world = World::new(&["good user"]);
    let client = world.builder_with(answers([none_now, none_now])).build();
    client.connect();
    let failure = waiting(&client).await.failure;
    assert_eq!(failure.to_string(), "no token: the backend is down");
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [Connect, Reconnect, Reconnect]);
    assert_eq!(world.dials().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_will_have_one_ends_it_until_the_client_is_told_to_connect() {
    let world = World::new(&["good user"]);
    let client = world.builder_with(answers([none_ever])).build();
    client.connect();
    let failure = given_up(&client).await;
    assert_eq!(failure.to_string(), "no token: signed out");
    sleep(3600 * SECOND).await;
    assert_eq!(world.asked(), [Connect]);
    client.connect();
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [Connect, Connect]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_given_its_time_and_no_more() {
    let world = World::new(&["good user"]);
    let asked = AtomicUsize::new(0);
    let client = world
        .builder_with(move |_| {
            let takes = [29, 31, 30_000, 0][asked.fetch_add(1, Ordering::Relaxed).min(3)];
            async move {
                sleep(takes * SECOND).await;
                good()
            }
        })
        .build();
    let began = Instant::now();
    client.connect();
    drop(client.connection().await.unwrap());
    assert_eq!(began.elapsed().as_secs(), 29);
    for _ in 0..2 {
        let since = Instant::now();
        let failure = loop {
            let waiting = waiting(&client).await;
            match &*waiting.failure {
                Failure::TokenTimeout(_) => break waiting.failure,
                _ => tokio::time::sleep_until(waiting.next_attempt + SECOND).await,
            }
        };
        assert_eq!(failure.to_string(), "no token within 30s");
        assert!(since.elapsed() <= 33 * SECOND);
        sleep(11 * SECOND).await;
    }
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [Connect, Reconnect, Reconnect, Reconnect]);
}

/// A defect of the application is not tried again and again; and nobody waits for ever.
#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_ends_it_until_the_client_is_told_to_connect() {
    let world = World::new(&["good user"]);
    let asked = AtomicUsize::new(0);
    let client = world
        .builder_with(move |_| {
            let asked = asked.fetch_add(1, Ordering::Relaxed);
            // Without a message on the screen.
            if asked == 0 {
                resume_unwind(Box::new("as the test wants it"));
            }
            async move {
                if asked == 1 {
                    resume_unwind(Box::new("as the test wants it"));
                }
                good()
            }
        })
        .build();
    for _ in 0..2 {
        client.connect();
        assert!(matches!(&*given_up(&client).await, Failure::TokenPanic));
    }
    client.connect();
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [Connect, Connect, Connect]);
}

/// A dialer that does is beyond repair.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_client_whose_task_has_panicked() {
    let world = World::new(&["good user"]);
    let client = world
        .builder()
        .dialer(|_, _| -> std::future::Ready<std::io::Result<tokio::io::DuplexStream>> {
            resume_unwind(Box::new("as the test wants it"))
        })
        .build();
    client.connect();
    assert!(matches!(client.connection().await, Err(Stopped::Gone)));
    client.connect();
    client.disconnect();
    assert!(matches!(client.connection().await, Err(Stopped::Gone)));
}

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_not_needed_any_more_is_dropped_at_once() {
    let world = World::new(&["good user"]);
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let client = world
        .builder_with(move |_| {
            let dropped = Dropped(Arc::clone(&counter));
            async move {
                let _dropped = dropped;
                pending().await
            }
        })
        .build();
    for times in 1..=3 {
        client.connect();
        sleep(SECOND).await;
        client.disconnect();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(dropped.load(Ordering::Relaxed), times);
    }
    client.connect();
    sleep(SECOND).await;
    drop(client);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(dropped.load(Ordering::Relaxed), 4);
    assert_eq!(world.asked(), [Connect; 4]);
}

// ---- Renewal ----

/// A provider of tokens that last so long each, one after the other, and what it was asked, when.
struct Minting {
    asked: Arc<Mutex<Vec<(u64, TokenReason)>>>,
}

impl Minting {
    /// A client of a server that knows these tokens, which last so long from when they are asked
    /// for; those that last no time are not there yet.
    fn new(
        server: Server<JwtAuthenticator>,
        renewal: RenewalPolicy,
        lasting: &'static [i64],
    ) -> (Arc<World>, ClientBuilder, Minting) {
        let world = World::around(server, &["none"]);
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let (asking, clock, began) = (Arc::clone(&asked), wall_clock(), Instant::now());
        let provider = move |reason| {
            let mut asked = asking.lock().unwrap();
            let lasting = *lasting.get(asked.len()).unwrap_or(lasting.last().unwrap());
            asked.push((began.elapsed().as_secs(), reason));
            let exp = clock().as_secs() + lasting;
            ready(match lasting {
                0 => none_now(),
                -1 => none_ever(),
                _ => Ok(Token::new(token_with(&json!({ "sub": "u", "exp": exp }))).unwrap()),
            })
        };
        let builder = world.builder_with(provider).renewal(renewal).clock(wall_clock());
        (world, builder, Minting { asked })
    }

    fn asked(&self) -> Vec<(u64, TokenReason)> {
        self.asked.lock().unwrap().clone()
    }
}

/// A server that closes when the token expires.
fn enforcing() -> Server<JwtAuthenticator> {
    jwt_server().with_expiry(ExpiryPolicy::Close { leeway: 0 }).with_server_id("server-1")
}

fn renewing() -> Server<JwtAuthenticator> {
    enforcing().with_auth_changes(AuthChangePolicy::RenewSameIdentity)
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_is_replaced_when_the_service_says_so_unless_told_otherwise() {
    let (world, client, minting) = Minting::new(enforcing(), RenewalPolicy::Never, &[100]);
    let client = client.build();
    client.connect();
    let mut connection = client.connection().await.unwrap();
    assert!(connection.recv().await.is_none());
    let failure = waiting(&client).await.failure;
    assert_eq!(failure.advice(), Advice::FreshToken);
    client.connection().await.unwrap();
    let asked = minting.asked();
    assert_eq!(asked[0], (0, Connect));
    assert!(matches!(asked[1], (100..=101, Rejected)), "{asked:?}");
    assert_eq!(world.most_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_in_place_where_the_service_lets_it_and_the_connection_lives() {
    let policy = RenewalPolicy::InPlace(30 * SECOND);
    let (world, client, minting) = Minting::new(renewing(), policy, &[100]);
    let client = client.build();
    client.connect();
    let connection = client.connection().await.unwrap();
    sleep(1000 * SECOND).await;
    assert_eq!(connection.end(), None);
    assert_eq!(world.dials().len(), 1);
    let expected = (0..15).map(|n| (70 * n, if n == 0 { Connect } else { Expiring }));
    assert_eq!(minting.asked(), expected.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_refuses_to_renew_is_left_for_a_connection_with_another_token() {
    let policy = RenewalPolicy::InPlace(30 * SECOND);
    let (world, client, minting) = Minting::new(enforcing(), policy, &[100]);
    let client = client.build();
    client.connect();
    let connection = client.connection().await.unwrap();
    let failure = waiting(&client).await.failure;
    let Cause::CallRefusedByServer { method, error: why } = &connection.closed().await.cause else {
        panic!("{connection:?}")
    };
    assert_eq!((*method, why), (Method::Authenticate, &error(ErrorCode::InvalidRequest)));
    assert_eq!(failure.advice(), Advice::FreshToken);
    client.connection().await.unwrap();
    let asked = minting.asked();
    assert_eq!(asked[..2], [(0, Connect), (70, Expiring)]);
    assert!(matches!(asked[2..], [(70..=71, Rejected)]), "{asked:?}");
    assert_eq!(world.most_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_answer_a_renewal_is_not_asked_again() {
    let policy = RenewalPolicy::InPlace(30 * SECOND);
    let (world, client, minting) = Minting::new(enforcing(), policy, &[100]);
    world.scene(|stream| async {
        let mut raw = lets_in(stream).await;
        while raw.socket.next().await.is_some() {}
    });
    let client = client.build();
    client.connect();
    let connection = client.connection().await.unwrap();
    sleep(10_000 * SECOND).await;
    assert_eq!(connection.end(), None);
    assert_eq!(minting.asked(), [(0, Connect), (70, Expiring)]);
}

#[tokio::test(start_paused = true)]
async fn a_client_reconnects_with_another_token_before_the_one_it_has_expires() {
    let policy = RenewalPolicy::Reconnect(30 * SECOND);
    let (world, client, minting) = Minting::new(enforcing(), policy, &[100]);
    let client = client.build();
    client.connect();
    for n in 0..5 {
        let mut connection = client.connection().await.unwrap();
        let connected_at = world.dials()[n].elapsed();
        assert!(connected_at < SECOND, "at once");
        assert!(connection.recv().await.is_none());
        assert_eq!(connection.end().unwrap().cause, Cause::Local);
    }
    client.connection().await.unwrap();
    let expected = (0..6).map(|n| (70 * n, if n == 0 { Connect } else { Expiring }));
    assert_eq!(minting.asked(), expected.collect::<Vec<_>>());
    assert_eq!((world.dials().len(), world.most_open()), (6, 1));
}

/// The service may not know the token that was to follow.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_to_follow_and_is_rejected_is_replaced_once() {
    let world = World::around(enforcing(), &["none"]);
    let texts: [String; 5] = [100, 10_000, 10_000, 10_000, 10_000].map(|lasting| {
        let exp = NOW + lasting;
        token_with(&json!({ "sub": "u", "exp": exp }))
    });
    // The first fails for its token, and the one that was to follow.
    let mut texts = texts.to_vec();
    texts.insert(0, "bad".into());
    texts[2] = texts[2].replace('.', ".x");
    let next = AtomicUsize::new(0);
    let client = world
        .builder_with(move |_| {
            ready(Ok(Token::new(&*texts[next.fetch_add(1, Ordering::Relaxed)]).unwrap()))
        })
        .renewal(RenewalPolicy::Reconnect(30 * SECOND))
        .clock(wall_clock())
        .build();
    client.connect();
    client.connection().await.unwrap().closed().await;
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [Connect, Rejected, Expiring, Rejected]);
}

#[tokio::test(start_paused = true)]
async fn while_there_is_no_token_to_follow_the_connection_stays_and_the_provider_is_asked_again() {
    let policy = RenewalPolicy::InPlace(60 * SECOND);
    // One that does not last longer is none.
    let (world, client, minting) = Minting::new(renewing(), policy, &[100, 0, 0, 40, 100]);
    let client = client.build();
    client.connect();
    let connection = client.connection().await.unwrap();
    sleep(120 * SECOND).await;
    assert_eq!(connection.end(), None);
    let asked = minting.asked();
    assert_eq!(asked[0], (0, Connect));
    assert_eq!(asked[1..], [50, 51, 53, 57, 107].map(|second| (second, Expiring)));
    assert_eq!(world.dials().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_will_have_a_token_to_follow_ends_it() {
    for policy in [RenewalPolicy::InPlace(30 * SECOND), RenewalPolicy::Reconnect(30 * SECOND)] {
        let (world, client, minting) = Minting::new(renewing(), policy, &[100, -1]);
        let client = client.build();
        client.connect();
        let connection = client.connection().await.unwrap();
        connection.closed().await;
        assert_eq!(given_up(&client).await.to_string(), "no token: signed out");
        assert_eq!(minting.asked(), [(0, Connect), (70, Expiring)]);
        assert_eq!(world.open(), 0);
    }
}

/// A provider that has but one token, and one whose tokens are hardly good for anything.
#[tokio::test(start_paused = true)]
async fn no_token_makes_the_client_ask_or_reconnect_in_a_storm() {
    for policy in [RenewalPolicy::InPlace(3600 * SECOND), RenewalPolicy::Reconnect(3600 * SECOND)] {
        for (lasting, most) in [(&[1][..], 105), (&[100, 90], 20)] {
            let server = jwt_server().with_auth_changes(AuthChangePolicy::RenewSameIdentity);
            let (world, client, minting) = Minting::new(server, policy, lasting);
            let client = client.build();
            client.connect();
            sleep(100 * SECOND).await;
            assert!(minting.asked().len() <= most, "{policy:?}: {:?}", minting.asked());
            assert!(world.dials().len() <= most);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_expiry_is_not_renewed() {
    for policy in [RenewalPolicy::InPlace(30 * SECOND), RenewalPolicy::Reconnect(30 * SECOND)] {
        for text in ["good user", "good a.b.c", "good e30.e30.", "good e30.eyJleHAiOiJ4In0."] {
            let world = World::new(&[text]);
            let client = world.builder().renewal(policy).build();
            client.connect();
            let connection = client.connection().await.unwrap();
            sleep(20 * 3600 * SECOND).await;
            assert_eq!(connection.end(), None);
            assert_eq!(world.asked(), [Connect]);
        }
    }
}
