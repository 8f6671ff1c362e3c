//! How long the client waits between attempts: jitter, hints of the service, and moments that are
//! good.

use std::{sync::Arc, time::Duration};

use electric_satellite::{
    client::{Backoff, Client, ConnectError, Failure, TokenReason},
    session::Close,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    common::net::Raw,
    world::{World, connected, given_up, lets_in, waiting},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn unreachable() -> Arc<World> {
    let world = World::new(&["good user"]);
    world.up.send_replace(false);
    world
}

/// The next attempt is made when it was said that it would be. Timers are as fine as that.
async fn attempts_in_time(world: &World, client: &Client) -> Duration {
    let attempts = world.dials().len();
    let waiting = waiting(client).await;
    let pause = waiting.pause();
    sleep_until(waiting.next_attempt - MILLISECOND.min(pause)).await;
    assert_eq!(world.dials().len(), attempts, "not before");
    sleep_until(waiting.next_attempt + MILLISECOND).await;
    assert_eq!(world.dials().len(), attempts + 1, "not after");
    pause
}

#[tokio::test(start_paused = true)]
async fn the_pauses_grow_to_the_longest_and_the_client_never_stops() {
    let mut total = [Duration::ZERO; 4];
    for seed in 0..100 {
        let world = unreachable();
        let client = world.builder().random_seed(seed).build();
        client.connect();
        connecting(&world).await;
        for (failures, longest) in [1, 2, 4, 8, 10, 10, 10, 10, 10, 10, 10, 10].iter().enumerate() {
            let pause = attempts_in_time(&world, &client).await;
            assert!(pause <= *longest * SECOND, "{pause:?} after {failures} more");
            if let Some(total) = total.get_mut(failures) {
                *total += pause;
            }
        }
        world.up.send_replace(true);
        connected(&client).await;
    }
    // Full jitter: half of the longest, on average.
    for (total, longest) in total.iter().zip([1, 2, 4, 8]) {
        let mean = total.as_secs_f64() / 100.0 / f64::from(longest);
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}

/// Waits until the first attempt is made.
async fn connecting(world: &World) {
    while world.dials().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_may_be_told_to_give_up_after_some_attempts_and_can_be_told_to_go_on() {
    let world = unreachable();
    let backoff = Backoff { attempts: Some(3), ..Backoff::default() };
    let client = world.builder().backoff(backoff).build();
    client.connect();
    let failure = given_up(&client).await;
    assert!(matches!(&*failure, Failure::Connect(ConnectError::Unreachable(_))), "{failure}");
    assert_eq!(world.dials().len(), 3);
    sleep(3600 * SECOND).await;
    assert_eq!(world.dials().len(), 3);

    world.up.send_replace(true);
    client.connect();
    let connection = client.connection().await.unwrap();
    assert_eq!(world.asked()[3..], [TokenReason::Connect]);
    // A connection that has become stable and is lost is no failed attempt.
    sleep(backoff.stable_after).await;
    world.up.send_replace(false);
    drop(connection);
    given_up(&client).await;
    assert_eq!(world.dials().len(), 4 + 3);
}

#[tokio::test(start_paused = true)]
async fn connections_that_do_not_become_stable_count_as_failed_attempts() {
    let world = World::new(&["good user"]);
    let backoff = Backoff { attempts: Some(3), ..Backoff::default() };
    let client = world.builder().backoff(backoff).build();
    client.connect();
    for _ in 0..3 {
        let connection = client.connection().await.unwrap();
        sleep(backoff.stable_after - MILLISECOND).await;
        drop(connection);
    }
    let failure = given_up(&client).await;
    assert!(matches!(&*failure, Failure::Ended(_)), "{failure}");
    assert_eq!(world.dials().len(), 3);
}

/// The pause after connections that last so long.
async fn pause_after(lasting: Duration, seed: u64) -> Duration {
    let world = World::new(&["good user"]);
    let client = world.builder().random_seed(seed).build();
    client.connect();
    for _ in 0..4 {
        drop(client.connection().await.unwrap());
    }
    let connection = client.connection().await.unwrap();
    sleep(lasting).await;
    drop(connection);
    waiting(&client).await.pause()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_lasts_forgives_the_failures_before() {
    let stable_after = Backoff::default().stable_after;
    let mut longest = Duration::ZERO;
    for seed in 0..50 {
        assert!(pause_after(stable_after, seed).await <= SECOND);
        longest = longest.max(pause_after(stable_after - MILLISECOND, seed).await);
    }
    assert!(longest > 5 * SECOND, "{longest:?}");
}

// ---- Hints ----

/// A service that refuses the upgrade so.
async fn refuses(mut stream: DuplexStream, answer: String) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_says_when_to_come_back_is_not_asked_before() {
    for (status, header, hint) in [
        (503, "Retry-After: 5\r\n", 5),
        (429, "retry-after:  60 \r\n", 60),
        (503, "Retry-After: 0\r\n", 0),
        (503, "Retry-After: 100000\r\n", 300),
        (503, "Retry-After: 18446744073709551615\r\n", 300),
        // What is no number of seconds is no hint.
        (503, "", 0),
        (503, "Retry-After: 18446744073709551616\r\n", 0),
        (503, "Retry-After: -1\r\n", 0),
        (503, "Retry-After: soon\r\n", 0),
        (503, "Retry-After: \r\n", 0),
        (503, "Retry-After: \u{fc}\r\n", 0),
    ] {
        let world = World::new(&["good user"]);
        let answer = format!("HTTP/1.1 {status} No\r\n{header}Content-Length: 0\r\n\r\n");
        world.scene(|stream| refuses(stream, answer));
        let client = world.builder().build();
        client.connect();
        connecting(&world).await;
        let pause = attempts_in_time(&world, &client).await;
        assert!((hint * SECOND..=(hint + 1) * SECOND).contains(&pause), "{header:?}: {pause:?}");
        client.connection().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_goes_away_may_say_for_how_long() {
    for (code, reason, hint) in [
        (1001, "Service stops, retry after 7 s", 7),
        (1001, "Service stops, retry after 86400 s", 300),
        (1001, "Service stops, retry after 99999999999999999999 s", 0),
        (1001, "Service stops, retry after -7 s", 0),
        (1001, "Service stops, retry after a while", 0),
        (1001, "", 0),
        (1000, "Service stops, retry after 7 s", 0),
    ] {
        let world = World::new(&["good user"]);
        world.scene(move |stream| async move {
            let mut raw = lets_in(stream).await;
            let (code, reason) = (code.into(), reason.into());
            let close = tokio_tungstenite::tungstenite::protocol::CloseFrame { code, reason };
            raw.socket.close(Some(close)).await.unwrap();
        });
        let client = world.builder().build();
        client.connect();
        let pause = waiting(&client).await.pause();
        assert!((hint * SECOND..=(hint + 1) * SECOND).contains(&pause), "{reason:?}: {pause:?}");
    }
}

// ---- Moments that are good ----

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_tries_at_once_when_the_moment_is_good_and_counts_anew() {
    for seed in 0..20 {
        let world = unreachable();
        let client = world.builder().random_seed(seed).build();
        client.connect();
        while world.dials().len() < 6 {
            sleep(SECOND).await;
        }
        waiting(&client).await;
        let (attempts, now) = (world.dials().len(), Instant::now());
        client.retry_now();
        while world.dials().len() == attempts {
            tokio::task::yield_now().await;
        }
        assert_eq!(now.elapsed(), Duration::ZERO);
        assert!(attempts_in_time(&world, &client).await <= SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_yields_to_a_moment_that_is_good() {
    let world = World::new(&["good user"]);
    let answer = "HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
    world.scene(|stream| refuses(stream, answer.into()));
    let client = world.builder().build();
    client.connect();
    waiting(&client).await;
    let now = Instant::now();
    client.retry_now();
    client.connection().await.unwrap();
    assert_eq!(now.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_moment_that_is_good_during_an_attempt_counts_when_that_has_failed() {
    let world = World::new(&["good user"]);
    world.scene(|stream| async {
        sleep(3600 * SECOND).await;
        drop(stream);
    });
    let client = world.builder().build();
    client.connect();
    sleep(SECOND).await;
    client.retry_now();
    client.connection().await.unwrap();
    let [first, second] = world.dials()[..] else { panic!("two attempts") };
    assert!(second - first <= 10 * SECOND + MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn a_moment_that_was_good_while_nothing_was_wanted_does_not_count_later() {
    let world = unreachable();
    let client = world.builder().build();
    client.retry_now();
    client.connect();
    connecting(&world).await;
    attempts_in_time(&world, &client).await;
    client.disconnect();
    client.retry_now();
    sleep(SECOND).await;
    client.connect();
    while world.dials().len() == 2 {
        tokio::task::yield_now().await;
    }
    attempts_in_time(&world, &client).await;
}

/// When a service that does not answer any more is noticed.
async fn noticed(moment: Option<Duration>) -> Duration {
    let world = World::new(&["good user"]);
    let (tell, told) = tokio::sync::oneshot::channel::<Raw<DuplexStream>>();
    world.scene(|stream| async {
        let _ = tell.send(lets_in(stream).await);
    });
    let client = world.builder().build();
    client.connect();
    let connection = client.connection().await.unwrap();
    let _dead = told.await.unwrap();
    let since = Instant::now();
    if let Some(moment) = moment {
        sleep(moment).await;
        client.retry_now();
    }
    let waiting = waiting(&client).await;
    assert!(waiting.failure.to_string().ends_with("not silence"), "{}", waiting.failure);
    assert_eq!(connection.end().unwrap().close, Some(Close::SILENT));
    since.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_died_is_noticed_sooner_when_the_moment_is_good() {
    assert_eq!(noticed(None).await.as_secs(), 20 + 20);
    assert_eq!(noticed(Some(5 * SECOND)).await.as_secs(), 5 + 20);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_lives_survives_moments_that_are_good() {
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    client.connect();
    let connection = client.connection().await.unwrap();
    for _ in 0..100 {
        client.retry_now();
        sleep(SECOND).await;
    }
    assert_eq!(connection.end(), None);
    assert_eq!(world.dials().len(), 1);
}
