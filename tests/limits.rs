//! Limits at the edge of sense: those that are taken work, and those that are not are told at once.

mod common;

use std::time::Duration;

use common::{
    net::{Gate, WORD, client, pair, server},
    *,
};
use electric_satellite::transport::{Event, Limits};

/// Both ends with these limits, and a call each way.
async fn they_work(limits: Limits) {
    let (mut server, mut client) = pair(limits).await;
    let within = Duration::from_secs(60);
    let (started, ()) = tokio::join!(client.call(start(), within), async {
        let Some(Event::StartReplication(_, responder)) = server.recv().await else { panic!() };
        responder.reply(started());
    });
    assert_eq!(started, Ok(common::started()));
    let (started, ()) = tokio::join!(server.call(start(), within), async {
        let Some(Event::StartReplication(_, responder)) = client.recv().await else { panic!() };
        responder.reply(common::started());
    });
    assert_eq!(started, Ok(common::started()));
    for number in 0..10 {
        server.send(relation(number)).await.expect("it is sent");
        let Some(Event::Message(message)) = client.recv().await else { panic!() };
        assert_eq!(message, relation(number).into());
    }
}

/// As little as is taken, but for the size of a token.
fn smallest() -> Limits {
    let shortest = Duration::from_millis(1);
    Limits {
        upgrade_timeout: shortest,
        auth_timeout: shortest,
        ping_interval: Some(shortest),
        ping_timeout: shortest,
        write_timeout: shortest,
        max_session_age: Some(shortest),
        close_timeout: shortest,
        max_connections: 1,
        max_unauthenticated: 1,
        max_unauthenticated_per_address: 1,
        handshakes_per_second: Some(1),
        failed_auths: 1,
        failed_auths_per_second: f64::MIN_POSITIVE,
        max_head: 8192,
        max_message_before_auth: call(1, auth("client-1", WORD)).encoded_len(),
        max_message: call(1, auth("client-1", WORD)).encoded_len(),
        max_unread_messages: 1,
        max_unread_bytes: 1,
        max_unsent_bytes: 1,
        read_buffer: 14,
    }
}

/// As much as is taken.
fn largest() -> Limits {
    let longest = Duration::from_secs(u32::MAX.into());
    Limits {
        upgrade_timeout: longest,
        auth_timeout: longest,
        ping_interval: Some(longest),
        ping_timeout: longest,
        write_timeout: longest,
        max_session_age: Some(longest),
        close_timeout: longest,
        max_connections: usize::MAX,
        max_unauthenticated: usize::MAX,
        max_unauthenticated_per_address: usize::MAX,
        handshakes_per_second: Some(u32::MAX),
        failed_auths: u32::MAX,
        failed_auths_per_second: f64::MAX,
        max_head: usize::MAX,
        max_message_before_auth: i32::MAX as usize,
        max_message: i32::MAX as usize,
        max_unread_messages: usize::MAX,
        max_unread_bytes: usize::MAX,
        max_unsent_bytes: usize::MAX,
        read_buffer: 1024 * 1024,
    }
}

#[tokio::test(start_paused = true)]
async fn the_smallest_limits_that_are_taken_work() {
    they_work(smallest()).await;
}

#[tokio::test(start_paused = true)]
async fn the_largest_limits_that_are_taken_work() {
    they_work(largest()).await;
}

#[test]
fn a_call_of_authenticate_is_no_shorter_than_the_smallest_message() {
    let shortest = call(0, auth("c", "t")).encoded_len();
    let limits =
        |size| Limits { max_message: size, max_message_before_auth: size, ..Limits::default() };
    assert_eq!(limits(shortest).check(), Ok(()));
    assert!(limits(shortest - 1).check().is_err());
}

#[test]
#[should_panic(expected = "limits that make no sense: max_connections must be at least 1")]
fn a_server_does_not_take_limits_that_make_no_sense() {
    server(Gate::Word, Limits { max_connections: 0, ..Limits::default() });
}

#[test]
#[should_panic(expected = "read_buffer must be at least 14 and at most 1 MiB")]
fn neither_does_a_client() {
    client(Limits { read_buffer: usize::MAX, ..Limits::default() });
}

#[test]
#[should_panic(expected = "auth_timeout must be at least 1 ms and at most 136 years")]
fn a_client_does_not_take_a_time_without_end() {
    let _ = client(Limits::default()).with_timeout(Duration::MAX);
}
