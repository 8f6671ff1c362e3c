//! Connecting, disconnecting and dropping, at any moment; and what becomes of connections that are
//! handed out, or not.

use std::{pin::pin, sync::Arc, time::Duration};

use electric_satellite::{
    client::{Backoff, Client, Connectivity, Stopped, TokenReason},
    session::{Cause, Close, SendError},
    transport::{CallFailure, Limits},
    wire::proto::SatSubsReq,
};
use futures_util::FutureExt;
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::{
    common::net::{LastWords, Raw, closed_with},
    world::{World, connected, given_up, lets_in, waiting},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// No pauses, so that nothing needs time.
const AT_ONCE: Backoff = Backoff {
    initial: Duration::ZERO,
    max: Duration::ZERO,
    attempts: None,
    stable_after: Duration::from_secs(10),
    max_hint: Duration::ZERO,
};

fn is_offline(client: &Client) -> bool {
    let now = client.connectivity().borrow().clone();
    matches!(now, Connectivity::Disconnected { reason: None, next_attempt: None })
}

#[tokio::test(start_paused = true)]
async fn a_client_is_offline_until_it_is_told_to_connect_and_after_it_is_told_not_to() {
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    sleep(HOUR).await;
    assert!(is_offline(&client));
    assert!(matches!(client.connection().await, Err(Stopped::Offline)));
    client.connect();
    client.connect();
    let mut connection = client.connection().await.unwrap();
    let now = client.connectivity().borrow().clone();
    assert!(matches!(now, Connectivity::Connected { server_id, .. } if server_id == "server-1"));
    client.disconnect();
    client.disconnect();
    assert!(matches!(client.connection().await, Err(Stopped::Offline)));
    assert!(connection.recv().await.is_none());
    assert!(is_offline(&client));
    sleep(HOUR).await;
    assert_eq!(world.asked(), [TokenReason::Connect]);
    assert_eq!(world.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_when_its_connection_is_lost_or_dropped() {
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    client.connect();
    drop(client.connection().await.unwrap());
    let before = Instant::now();
    client.connection().await.unwrap().close(Close::NORMAL);
    assert!(before.elapsed() <= SECOND);
    client.connection().await.unwrap();
    assert_eq!(world.most_open(), 1);
}

/// What the client's connection ends with, for a raw server.
fn seen_from_the_server(world: &World) -> oneshot::Receiver<LastWords> {
    let (tell, told) = oneshot::channel();
    world.scene(|stream| async {
        let mut raw = lets_in(stream).await;
        let _ = tell.send(raw.last_words().await);
    });
    told
}

#[tokio::test(start_paused = true)]
async fn disconnecting_dropping_and_replacing_close_normally() {
    type Way = fn(Client) -> Option<Client>;
    let ways: [(&str, Way); 3] = [
        ("disconnected", |client| {
            client.disconnect();
            Some(client)
        }),
        ("dropped", |client| {
            drop(client);
            None
        }),
        ("told to start again", |client| {
            client.disconnect();
            client.connect();
            Some(client)
        }),
    ];
    for (what, way) in ways {
        for taken in [false, true] {
            let world = World::new(&["good user"]);
            let end = seen_from_the_server(&world);
            let client = world.builder().build();
            client.connect();
            connected(&client).await;
            let taken = if taken { Some(client.connection().await.unwrap()) } else { None };
            let _client = way(client);
            assert_eq!(end.await.unwrap(), closed_with(1000, ""), "{what}");
            if let Some(connection) = taken {
                assert_eq!(connection.closed().await.cause, Cause::Local);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closed_waits_until_the_last_words_are_through_or_given_up() {
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    client.closed().await;
    client.connect();
    connected(&client).await;
    client.disconnect();
    client.closed().await;
    assert_eq!(world.open(), 0);

    // A service that does not go: its time to take them is all that is waited for.
    world.scene(|stream| async {
        let raw = lets_in(stream).await;
        sleep(HOUR).await;
        drop(raw);
    });
    client.connect();
    connected(&client).await;
    let before = Instant::now();
    client.disconnect();
    client.closed().await;
    assert_eq!(before.elapsed(), Limits::client().close_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_told_to_start_again_does_with_another_connection() {
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    client.connect();
    let first = client.connection().await.unwrap();
    client.disconnect();
    client.connect();
    let second = client.connection().await.unwrap();
    assert_eq!(first.closed().await.cause, Cause::Local);
    assert_eq!(second.end(), None);
    assert_eq!(world.asked(), [TokenReason::Connect; 2]);
    assert_eq!(world.most_open(), 1);
}

/// Lets everybody do so many steps.
async fn steps(steps: usize) {
    for _ in 0..steps {
        yield_now().await;
    }
}

/// More steps than a handshake needs in memory, where nothing needs time.
const ENOUGH: usize = 60;

#[tokio::test(start_paused = true)]
async fn a_client_may_be_told_anything_at_any_moment() {
    for first in 0..ENOUGH {
        for second in [0, 1, 2, 3, 5, 8, 13, ENOUGH] {
            let world = World::new(&["good user"]);
            let client = world.builder().backoff(AT_ONCE).build();
            client.connect();
            steps(first).await;
            client.disconnect();
            assert!(matches!(client.connection().await, Err(Stopped::Offline)));
            steps(second).await;
            client.connect();
            client.connect();
            let connection = client.connection().await.unwrap();
            sleep(SECOND).await;
            assert_eq!(connection.end(), None, "after {first} and {second} steps");
            assert_eq!((world.open(), world.most_open()), (1, 1));

            client.disconnect();
            steps(second).await;
            client.disconnect();
            connection.closed().await;
            steps(1).await;
            assert_eq!(world.open(), 0);
            assert!(is_offline(&client));

            client.connect();
            steps(first).await;
            let mut connectivity = client.connectivity();
            drop(client);
            while connectivity.changed().await.is_ok() {}
            let now = connectivity.borrow().clone();
            assert!(matches!(now, Connectivity::Disconnected { reason: None, .. }));
            assert_eq!(world.open(), 0);
        }
    }
    let world = World::new(&["good user"]);
    let client = world.builder().build();
    client.connect();
    steps(ENOUGH).await;
    assert!(client.connection().now_or_never().is_some(), "{ENOUGH} steps are not enough");
}

/// A service that lets the client in and does not take its close has the time that it has.
#[tokio::test(start_paused = true)]
async fn there_is_no_other_connection_before_the_first_is_closed() {
    let world = World::new(&["good user"]);
    let (tell, told) = oneshot::channel::<Raw<_>>();
    world.scene(|stream| async {
        let _ = tell.send(lets_in(stream).await);
    });
    let client = world.builder().backoff(AT_ONCE).build();
    client.connect();
    let connection = client.connection().await.unwrap();
    let _stays = told.await.unwrap();
    let began = Instant::now();
    // However often it is told.
    drop(connection);
    steps(3).await;
    for _ in 0..10 {
        client.disconnect();
        steps(2).await;
        assert!(is_offline(&client));
        client.connect();
        steps(2).await;
        assert!(matches!(*client.connectivity().borrow(), Connectivity::Connecting));
    }
    client.connection().await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(world.most_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_answer_fails_at_once_when_the_client_disconnects() {
    let ways: [fn(&mut Option<Client>); 2] =
        [|client| client.as_ref().unwrap().disconnect(), |client| drop(client.take())];
    for way in ways {
        let world = World::new(&["good user"]);
        let client = world.builder().build();
        client.connect();
        let connection = Arc::new(client.connection().await.unwrap());
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let connection = Arc::clone(&connection);
                tokio::spawn(async move { connection.call(SatSubsReq::default(), HOUR).await })
            })
            .collect();
        sleep(SECOND).await;
        let now = Instant::now();
        way(&mut Some(client));
        for call in calls {
            assert_eq!(call.await.unwrap(), Err(CallFailure::Ended));
        }
        assert_eq!(now.elapsed(), Duration::ZERO);
        let late = connection.call(SatSubsReq::default(), HOUR).await;
        assert_eq!(late, Err(CallFailure::NotSent(SendError::Ended)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_handed_out_once_and_to_one_of_those_who_wait() {
    let world = World::new(&["good user"]);
    let client = Arc::new(world.builder().build());
    client.connect();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.connection().await.map(drop) })
        })
        .collect();
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(world.dials().len(), 3);

    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.connection().await })
        })
        .collect();
    sleep(HOUR).await;
    client.disconnect();
    let mut connections = 0;
    for waiter in waiters {
        match waiter.await.unwrap() {
            Ok(_) => connections += 1,
            Err(stopped) => assert!(matches!(stopped, Stopped::Offline)),
        }
    }
    assert_eq!(connections, 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_takes_no_connection_away() {
    for moment in 0..ENOUGH {
        let world = World::new(&["good user"]);
        let client = world.builder().build();
        client.connect();
        {
            let mut waiting = pin!(client.connection());
            for _ in 0..moment {
                if waiting.as_mut().now_or_never().is_some() {
                    // Taken, and dropped.
                    break;
                }
                yield_now().await;
            }
        }
        let connection = client.connection().await.unwrap();
        assert_eq!(connection.end(), None);
        assert!(world.dials().len() <= 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_ended_before_it_was_taken_is_not_handed_out() {
    let world = World::new(&["good user"]);
    world.scene(|stream| async { drop(lets_in(stream).await) });
    let client = world.builder().build();
    client.connect();
    waiting(&client).await;
    let connection = client.connection().await.unwrap();
    assert_eq!(connection.end(), None);
    assert_eq!(world.dials().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_given_up_can_be_told_to_be_offline() {
    let world = World::new(&["bad"]);
    let client = world.builder().build();
    client.connect();
    given_up(&client).await;
    assert!(!is_offline(&client));
    client.disconnect();
    assert!(matches!(client.connection().await, Err(Stopped::Offline)));
    steps(2).await;
    assert!(is_offline(&client));
}

/// Whoever sees that the client has given up may tell it to connect in the same moment.
#[test]
fn a_client_that_is_told_to_connect_as_it_gives_up_connects() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(&["good user"]);
        world.up.send_replace(false);
        let backoff = Backoff { attempts: Some(1), ..AT_ONCE };
        let client = world.builder().backoff(backoff).build();
        let mut connectivity = client.connectivity();
        client.connect();
        for attempts in 1..1000 {
            let given_up = |now: &Connectivity| matches!(now, Connectivity::Disconnected { .. });
            connectivity.wait_for(given_up).await.unwrap();
            client.connect();
            while world.dials().len() == attempts {
                yield_now().await;
            }
        }
    });
}

#[test]
fn nobody_waits_for_a_client_whose_runtime_is_shut_down() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for is_connected in [false, true] {
        let (there, here) = (runtime(), runtime());
        let world = World::new(&["good user"]);
        if !is_connected {
            world.scene(|stream| async move {
                std::future::pending::<()>().await;
                drop(stream);
            });
        }
        let client = there.block_on(async { world.builder().build() });
        client.connect();
        let mut connection = None;
        if is_connected {
            connection = Some(there.block_on(client.connection()).unwrap());
        } else {
            there.block_on(steps(ENOUGH));
        }
        here.block_on(async {
            let mut next = pin!(client.connection());
            assert!(next.as_mut().now_or_never().is_none());
            there.shutdown_background();
            assert!(matches!(next.await, Err(Stopped::Gone)));
            if let Some(mut connection) = connection {
                assert!(connection.recv().await.is_none());
            }
            client.connect();
            assert!(matches!(client.connection().await, Err(Stopped::Gone)));
            assert!(is_offline(&client));
        });
        assert_eq!(world.open(), 0);
    }
}
