//! Connections: our server and our client with each other, and each with a raw peer that need not
//! behave. Where time matters, the clock is paused and moves by itself.

mod common;
mod raw;

use std::{
    collections::BTreeSet,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{
    net::{Gate, LastWords, Raw, WORD, calm, client, closed_with, pair, raw_pair, server},
    *,
};
use electric_satellite::{
    auth::{Algorithm, AuthError, Authenticator, ClaimRules, JwtAuthenticator, Key, Minter},
    client::{ConnectError, Connector},
    server::{AcceptError, Server},
    session::{
        AuthenticatedClient, AuthenticatedServer, Cause, ClientId, Close, End, Fault, SendError,
        UnixTime, Violation,
    },
    transport::{CallFailure, Connection, Event, Limits},
    wire::{Message, Method, ReplyError, Version, proto::*, refusal},
};
use futures_util::{FutureExt, SinkExt, StreamExt};
use raw::upgrade_request;
use sat_error_resp::ErrorCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    net::{TcpListener, TcpStream},
    task::{JoinSet, yield_now},
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

type OfServer = Connection<AuthenticatedClient>;
type OfClient = Connection<AuthenticatedServer>;

/// Both streams are started.
async fn streaming(limits: Limits) -> (OfServer, OfClient) {
    let (mut server, mut client) = pair(limits).await;
    let (started_by_server, ()) =
        tokio::join!(client.call(start(), SECOND), answer_start(&mut server));
    started_by_server.unwrap();
    let (started_by_client, ()) =
        tokio::join!(server.call(start(), SECOND), answer_start(&mut client));
    started_by_client.unwrap();
    (server, client)
}

async fn answer_start<P>(connection: &mut Connection<P>) {
    match connection.recv().await {
        Some(Event::StartReplication(_, responder)) => responder.reply(started()),
        other => panic!("{other:?}"),
    }
}

/// A raw client that has started the server's stream.
async fn raw_streaming(limits: Limits, pipe: usize) -> (OfServer, Raw<DuplexStream>) {
    let (mut server, mut raw) = raw_pair(limits, pipe).await;
    raw.says(call(2, start())).await;
    answer_start(&mut server).await;
    assert_eq!(raw.hears().await, reply(2, started()));
    (server, raw)
}

/// The number of the relation that arrives next.
async fn next_relation<P>(connection: &mut Connection<P>) -> u32 {
    match connection.recv().await {
        Some(Event::Message(Message::Relation(relation))) => relation.relation_id,
        other => panic!("{other:?}"),
    }
}

/// A message of this many bytes and a few more.
fn bulky(relation_id: u32, bytes: usize) -> SatRelation {
    SatRelation { relation_id, table_name: "x".repeat(bytes), ..Default::default() }
}

fn violation(end: &End) -> &Violation {
    match &end.cause {
        Cause::Violation(violation) => violation,
        other => panic!("{other:?}"),
    }
}

// ---- Messages and calls ----

#[tokio::test(start_paused = true)]
async fn both_ends_know_each_other() {
    let (server, client) = pair(calm()).await;
    assert_eq!(server.client_id(), &id("client-1"));
    assert_eq!(server.identity().user_id, "user-1");
    assert_eq!(client.server_id(), "server-1");
    assert_eq!((server.version(), client.version()), (Version::V0_12, Version::V0_12));
    assert_eq!((server.end(), client.end()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn messages_go_both_ways_in_order() {
    let (mut server, mut client) = streaming(calm()).await;
    for number in 0..100 {
        server.send(relation(number)).await.unwrap();
        client.send(relation(1000 + number)).await.unwrap();
        assert_eq!(next_relation(&mut client).await, number);
        assert_eq!(next_relation(&mut server).await, 1000 + number);
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_client_is_handed_out_and_answered() {
    let (mut server, client) = pair(calm()).await;
    let answering = async {
        loop {
            match server.recv().await {
                Some(Event::StartReplication(_, responder)) => responder.reply(started()),
                Some(Event::StopReplication(_, responder)) => responder.reply(stopped()),
                Some(Event::Subscribe(request, responder)) => {
                    responder.reply(subscribed(&request.subscription_id));
                }
                Some(Event::Unsubscribe(_, responder)) => {
                    responder.reply(SatUnsubsResp {});
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let calling = async {
        assert_eq!(client.call(start(), SECOND).await, Ok(started()));
        assert_eq!(client.call(stop(), SECOND).await, Ok(stopped()));
        assert_eq!(client.call(subscribe("a"), SECOND).await, Ok(subscribed("a")));
        let unsubscribe = SatUnsubsReq { subscription_ids: vec!["a".into()] };
        assert_eq!(client.call(unsubscribe, SECOND).await, Ok(SatUnsubsResp {}));
    };
    tokio::join!(answering, calling);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_each_get_their_own_answer() {
    const CALLS: usize = 200;
    let (mut server, client) = pair(calm()).await;
    let (sender, _receiver) = client.split();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let sender = sender.clone();
        calls.spawn(async move {
            let id = format!("subscription {number}");
            assert_eq!(sender.call(subscribe(&id), MINUTE).await, Ok(subscribed(&id)));
        });
    }
    let mut waiting = vec![];
    while waiting.len() < CALLS {
        match server.recv().await {
            Some(Event::Subscribe(request, responder)) => waiting.push((request, responder)),
            other => panic!("{other:?}"),
        }
    }
    for (request, responder) in waiting.into_iter().rev() {
        responder.reply(subscribed(&request.subscription_id));
    }
    assert_eq!(calls.join_all().await.len(), CALLS);
}

#[tokio::test(start_paused = true)]
async fn calls_cross_in_both_directions() {
    let (server, client) = streaming(calm()).await;
    let (server_sender, mut server_receiver) = server.split();
    let (client_sender, mut client_receiver) = client.split();
    let (of_server, of_client, (), ()) = tokio::join!(
        async { server_sender.call(stop(), MINUTE).await },
        async { client_sender.call(subscribe("a"), MINUTE).await },
        async {
            let Some(Event::Subscribe(_, asked)) = server_receiver.recv().await else { panic!() };
            asked.reply(subscribed("a"));
        },
        async {
            let Some(Event::StopReplication(_, asked)) = client_receiver.recv().await else {
                panic!()
            };
            asked.reply(stopped());
        },
    );
    assert_eq!((of_server, of_client), (Ok(stopped()), Ok(subscribed("a"))));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_times_out_and_a_late_answer_is_ignored() {
    let (mut server, mut client) = streaming(calm()).await;
    let before = Instant::now();
    let called = client.call(subscribe("slow"), 5 * SECOND).await;
    assert_eq!(called, Err(CallFailure::TimedOut));
    assert_eq!(before.elapsed(), 5 * SECOND);

    let Some(Event::Subscribe(_, late)) = server.recv().await else { panic!() };
    late.reply(subscribed("slow"));
    // The connection goes on, and the next call gets its own answer.
    let (answer, ()) = tokio::join!(client.call(subscribe("next"), SECOND), async {
        let Some(Event::Subscribe(_, responder)) = server.recv().await else { panic!() };
        responder.reply(subscribed("next"));
    });
    assert_eq!(answer, Ok(subscribed("next")));
    server.send(relation(1)).await.unwrap();
    assert_eq!(next_relation(&mut client).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_is_ignored_as_well() {
    let (server, mut raw) = raw_streaming(calm(), 1024).await;
    assert_eq!(server.call(stop(), SECOND).await, Err(CallFailure::TimedOut));
    assert_eq!(raw.hears().await, call(0, stop()));
    raw.says(refused(Method::StopReplication, 0, ErrorCode::Internal)).await;
    // In time, it would have ended the connection.
    let (called, ()) = tokio::join!(server.call(stop(), SECOND), async {
        assert_eq!(raw.hears().await, call(1, stop()));
        raw.says(reply(1, stopped())).await;
    });
    assert_eq!(called, Ok(stopped()));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_forgotten_and_its_answer_ignored() {
    let (mut server, client) = pair(calm()).await;
    for _ in 0..20 {
        assert_eq!(client.call(subscribe("dropped"), MINUTE).now_or_never(), None);
        let Some(Event::Subscribe(_, responder)) = server.recv().await else { panic!() };
        responder.reply(subscribed("dropped"));
    }
    let (answer, ()) = tokio::join!(client.call(subscribe("kept"), MINUTE), async {
        let Some(Event::Subscribe(_, responder)) = server.recv().await else { panic!() };
        responder.reply(subscribed("kept"));
    });
    assert_eq!(answer, Ok(subscribed("kept")));
}

#[tokio::test(start_paused = true)]
async fn recv_may_be_dropped_at_any_time_and_loses_nothing() {
    const MESSAGES: u32 = 300;
    let (mut server, client) = streaming(calm()).await;
    let sending = async {
        for number in 0..MESSAGES {
            client.send(relation(number)).await.unwrap();
            if number % 7 == 0 {
                yield_now().await;
            }
        }
    };
    let receiving = async {
        let mut received = 0;
        let mut dropped = 0;
        while received < MESSAGES {
            match server.recv().now_or_never() {
                Some(Some(Event::Message(Message::Relation(relation)))) => {
                    assert_eq!(relation.relation_id, received);
                    received += 1;
                }
                Some(other) => panic!("{other:?}"),
                None => {
                    dropped += 1;
                    yield_now().await;
                }
            }
        }
        assert!(dropped > 0, "some were dropped while they waited");
    };
    tokio::join!(sending, receiving);
}

#[tokio::test(start_paused = true)]
async fn a_recv_that_was_woken_and_dropped_leaves_its_message_to_the_next() {
    let (mut server, client) = streaming(calm()).await;
    {
        let mut woken = Box::pin(server.recv());
        assert!((&mut woken).now_or_never().is_none());
        client.send(relation(1)).await.unwrap();
        // Both drivers run, and wake the one that waits.
        for _ in 0..100 {
            yield_now().await;
        }
    }
    assert_eq!(next_relation(&mut server).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_halves_work_at_the_same_time() {
    const MESSAGES: u32 = 1000;
    async fn both_ways<P: Send + Sync + 'static>(connection: Connection<P>) {
        let (sender, mut receiver) = connection.split();
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move {
                for number in 0..MESSAGES {
                    sender.send(bulky(number, 500)).await.unwrap();
                }
            }
        });
        for number in 0..MESSAGES {
            match receiver.recv().await {
                Some(Event::Message(Message::Relation(relation))) => {
                    assert_eq!(relation.relation_id, number);
                }
                other => panic!("{other:?}"),
            }
        }
        sending.await.unwrap();
    }
    let limits = Limits { max_unsent_bytes: 4096, ..calm() };
    let (server, client) = streaming(limits).await;
    let both = async { tokio::join!(both_ways(server), both_ways(client)) };
    timeout(MINUTE, both).await.expect("neither end waits for the other for ever");
}

// ---- Answers that are not positive ----

#[tokio::test(start_paused = true)]
async fn a_dropped_responder_of_a_server_refuses_and_the_connection_ends() {
    let (mut server, client) = pair(calm()).await;
    let (called, ()) = tokio::join!(client.call(subscribe("a"), MINUTE), async {
        drop(server.recv().await);
    });
    assert_eq!(called, Err(CallFailure::Reply(ReplyError::Refused(error(ErrorCode::Internal)))));
    let cause = Cause::CallRefused { method: Method::Subscribe, error: "INTERNAL".into() };
    assert_eq!(server.closed().await.cause, cause);
    let (method, error) = (Method::Subscribe, error(ErrorCode::Internal));
    assert_eq!(client.closed().await.cause, Cause::CallRefusedByServer { method, error });
}

#[tokio::test(start_paused = true)]
async fn a_dropped_responder_of_a_client_refuses_and_the_server_ends_the_connection() {
    let (server, mut client) = streaming(calm()).await;
    let (called, ()) = tokio::join!(server.call(stop(), MINUTE), async {
        drop(client.recv().await);
    });
    let refused = ReplyError::Refused(error(ErrorCode::Internal));
    assert_eq!(called, Err(CallFailure::Reply(refused.clone())));
    let bad = Violation::BadReply { method: Method::StopReplication, error: refused };
    assert_eq!(*violation(server.closed().await), bad);
    // The client is told, in a message of its own, and then it is over.
    match client.recv().await {
        Some(Event::Message(Message::Error(told))) => {
            assert_eq!(told, error(ErrorCode::InvalidRequest));
        }
        other => panic!("{other:?}"),
    }
    assert!(client.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_words_arrives_in_these_words() {
    let (mut server, client) = pair(calm()).await;
    let why = error(ErrorCode::ReplicationFailed).with_message("no such position");
    let (called, ()) = tokio::join!(client.call(start(), MINUTE), async {
        let Some(Event::StartReplication(_, responder)) = server.recv().await else { panic!() };
        responder.refuse(why.clone());
    });
    assert_eq!(called, Err(CallFailure::Reply(ReplyError::Refused(why))));
}

#[tokio::test(start_paused = true)]
async fn what_the_session_does_not_allow_is_not_sent() {
    let (server, client) = pair(calm()).await;
    let not_started = SendError::NotStarted { message: "SatRelation" };
    assert_eq!(server.send(relation(1)).await, Err(not_started));
    assert_eq!(client.send(relation(1)).await, Err(not_started));
    let not_started = SendError::NotStarted { message: "startReplication" };
    assert_eq!(server.call(start(), MINUTE).await, Err(CallFailure::NotSent(not_started)));
    assert_eq!((server.end(), client.end()), (None, None));
}

// ---- The end ----

#[tokio::test(start_paused = true)]
async fn dropping_a_connection_closes_it_normally() {
    let (server, mut raw) = raw_pair(calm(), 1024).await;
    drop(server);
    assert_eq!(raw.last_words().await, closed_with(1000, ""));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_half_closes_the_connection_and_no_half_before_it() {
    let (server, mut raw) = raw_streaming(calm(), 1024).await;
    let (sender, receiver) = server.split();
    let clone = sender.clone();
    drop(receiver);
    drop(sender);
    clone.send(relation(1)).await.unwrap();
    assert_eq!(raw.hears().await, relation(1).into());
    assert!(timeout(MINUTE, raw.socket.next()).await.is_err(), "still open");
    drop(clone);
    assert_eq!(raw.last_words().await, closed_with(1000, ""));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_alone_keeps_the_connection_open() {
    let (server, mut raw) = raw_pair(calm(), 1024).await;
    let (sender, mut receiver) = server.split();
    drop(sender);
    assert!(timeout(MINUTE, raw.socket.next()).await.is_err(), "still open");
    raw.says(relation(1)).await;
    assert!(matches!(receiver.recv().await, Some(Event::Message(_))));
    drop(receiver);
    assert_eq!(raw.last_words().await, closed_with(1000, ""));
}

#[tokio::test(start_paused = true)]
async fn a_sender_learns_of_the_end_though_nobody_receives() {
    let (server, mut raw) = raw_pair(calm(), 1024).await;
    let (sender, receiver) = server.split();
    drop(receiver);
    let more_than_is_kept = 2 * calm().max_unread_messages;
    let sending = async {
        for _ in 0..more_than_is_kept {
            raw.says(bulky(1, 1000)).await;
        }
    };
    timeout(MINUTE, sending).await.expect("what nobody receives is read and dropped");
    drop(raw);
    timeout(MINUTE, sender.closed()).await.expect("the end is seen");
}

#[tokio::test(start_paused = true)]
async fn a_responder_alone_does_not_keep_the_connection_open() {
    let (mut server, mut raw) = raw_pair(calm(), 1024).await;
    raw.says(call(2, subscribe("a"))).await;
    let Some(Event::Subscribe(_, responder)) = server.recv().await else { panic!() };
    drop(server);
    assert_eq!(raw.last_words().await, closed_with(1000, ""));
    responder.reply(subscribed("a"));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_close_arrives_before_it() {
    let (server, mut raw) = raw_streaming(calm(), 512).await;
    for number in 0..100 {
        server.send(bulky(number, 1000)).await.unwrap();
    }
    drop(server);
    let messages = (0..100).map(|number| bulky(number, 1000).into()).collect();
    let expected = LastWords { messages, close: Some((1000, String::new())) };
    assert_eq!(raw.last_words().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_close_has_the_code_and_the_reason_that_it_is_given() {
    let (server, mut raw) = raw_pair(calm(), 1024).await;
    server.close(Close::new(4000, "JWT-expired"));
    // The first close counts.
    server.close(Close::NORMAL);
    assert_eq!(raw.last_words().await, closed_with(4000, "JWT-expired"));
    drop(raw);
    assert_eq!(server.closed().await.close, Some(Close::new(4000, "JWT-expired")));
}

#[tokio::test(start_paused = true)]
async fn fail_reports_the_error_and_closes_as_every_error_is_closed() {
    let (server, mut raw) = raw_pair(calm(), 1024).await;
    let why = error(ErrorCode::ReplicationFailed).with_message("gap");
    server.fail(why.clone());
    server.fail(error(ErrorCode::Internal));
    let expected = LastWords { messages: vec![why.into()], close: Some((1007, String::new())) };
    assert_eq!(raw.last_words().await, expected);
}

#[tokio::test(start_paused = true)]
async fn closed_waits_until_the_last_words_are_through() {
    let (server, mut raw) = raw_pair(calm(), 1024).await;
    server.close(Close::NORMAL);
    let before = Instant::now();
    assert!(timeout(SECOND, server.closed()).await.is_err(), "the peer is still there");
    let expected = End { close: Some(Close::NORMAL), cause: Cause::Local };
    assert_eq!(server.end(), Some(&expected));
    assert_eq!(raw.last_words().await, closed_with(1000, ""));
    drop(raw);
    assert_eq!(server.closed().await, &expected);
    assert_eq!(before.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn closed_gives_up_on_a_peer_that_stays() {
    let limits = Limits { close_timeout: 7 * SECOND, ..calm() };
    let (server, raw) = raw_pair(limits, 1024).await;
    let before = Instant::now();
    server.close(Close::NORMAL);
    server.closed().await;
    assert_eq!(before.elapsed(), 7 * SECOND);
    drop(raw);
}

#[tokio::test(start_paused = true)]
async fn closed_gives_up_on_a_peer_that_does_not_read() {
    let (server, raw) = raw_streaming(calm(), 512).await;
    server.send(bulky(1, 100_000)).await.unwrap();
    let before = Instant::now();
    server.close(Close::NORMAL);
    server.closed().await;
    assert_eq!(before.elapsed(), calm().close_timeout);
    drop(raw);
}

#[tokio::test(start_paused = true)]
async fn an_application_may_outlive_its_peer() {
    let (mut server, mut raw) = raw_streaming(calm(), 1024).await;
    raw.says(relation(1)).await;
    raw.says(call(3, subscribe("a"))).await;
    drop(raw);
    // What arrived before the end is there to be read.
    assert_eq!(next_relation(&mut server).await, 1);
    let Some(Event::Subscribe(_, responder)) = server.recv().await else { panic!() };
    for _ in 0..3 {
        assert!(server.recv().await.is_none());
    }
    assert_eq!(server.end(), Some(&End { close: None, cause: Cause::Peer(None) }));
    responder.reply(subscribed("a"));
    assert_eq!(server.send(relation(2)).await, Err(SendError::Ended));
    let not_sent = Err(CallFailure::NotSent(SendError::Ended));
    assert_eq!(server.call(stop(), MINUTE).await, not_sent);
    server.fail(error(ErrorCode::Internal));
    server.close(Close::NORMAL);
    assert_eq!(server.closed().await.cause, Cause::Peer(None));
}

#[tokio::test(start_paused = true)]
async fn the_close_of_the_peer_is_told_with_its_reason() {
    let (mut server, client) = pair(calm()).await;
    client.close(Close::new(4321, "because"));
    assert!(server.recv().await.is_none());
    let close = Some(Close::new(4321, "because"));
    assert_eq!(server.closed().await, &End { close: None, cause: Cause::Peer(close) });
    assert_eq!(client.closed().await.cause, Cause::Local);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_learns_that_the_peer_is_gone() {
    let (server, raw) = raw_streaming(calm(), 1024).await;
    let (called, ()) = tokio::join!(server.call(stop(), MINUTE), async { drop(raw) });
    assert_eq!(called, Err(CallFailure::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_send_that_waits_learns_that_the_peer_is_gone() {
    let limits = Limits { max_unsent_bytes: 1000, ..calm() };
    let (server, raw) = raw_streaming(limits, 512).await;
    server.send(bulky(1, 2000)).await.unwrap();
    let (sent, ()) = tokio::join!(server.send(relation(2)), async {
        yield_now().await;
        drop(raw);
    });
    assert_eq!(sent, Err(SendError::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_send_that_waits_learns_that_this_end_has_closed() {
    let limits = Limits { max_unsent_bytes: 1000, ..calm() };
    let (server, raw) = raw_streaming(limits, 512).await;
    server.send(bulky(1, 2000)).await.unwrap();
    let (sent, ()) = tokio::join!(server.send(relation(2)), async {
        yield_now().await;
        server.close(Close::NORMAL);
    });
    assert_eq!(sent, Err(SendError::Ended));
    drop(raw);
}

/// What a connection lives on is one runtime, and who uses it may live on another.
#[test]
fn a_connection_has_ended_when_its_runtime_is_shut_down() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (there, here) = (runtime(), runtime());
    let (_server, mut client) = there.block_on(pair(calm()));
    here.block_on(async {
        let (sender, caller) = (client.sender().clone(), client.sender().clone());
        let mut call = pin!(caller.call(subscribe("a"), MINUTE));
        assert!((&mut call).now_or_never().is_none());
        there.shutdown_background();
        assert_eq!(call.await, Err(CallFailure::Ended));
        assert!(client.recv().await.is_none());
        assert_eq!(client.closed().await.cause, Cause::Local);
        assert_eq!(sender.send(relation(1)).await, Err(SendError::Ended));
    });
}

// ---- Back-pressure ----

/// A message whose frame has exactly this many bytes.
fn relation_of(bytes: usize) -> Message {
    let mut candidates = (0..bytes).rev().map(|filler| Message::from(bulky(7, filler)));
    candidates.find(|message| message.encoded_len() == bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_send_waits_as_soon_as_the_limit_is_reached() {
    for (size, accepted) in [(1000, 1), (999, 2)] {
        let limits = Limits { max_unsent_bytes: 1000, ..calm() };
        // The pipe holds no message.
        let (server, _raw) = raw_streaming(limits, 64).await;
        for _ in 0..accepted {
            let sent = timeout(MINUTE, server.send(relation_of(size))).await;
            assert_eq!(sent.expect("there is room"), Ok(()));
        }
        assert!(timeout(MINUTE, server.send(relation_of(size))).await.is_err(), "{size}");
    }
}

/// What a connection may hold beyond its limit: the pipe, a message and some headers.
const SLACK: usize = 4096;

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_makes_send_wait_and_gets_everything_once_when_it_reads() {
    let limits = Limits { max_unsent_bytes: 10_000, ..calm() };
    let (server, mut raw) = raw_streaming(limits, 1024).await;
    let mut accepted: u32 = 0;
    while timeout(MINUTE, server.send(bulky(accepted, 1000))).await.is_ok_and(|sent| sent.is_ok()) {
        accepted += 1;
        assert!(accepted as usize * 1000 <= 10_000 + SLACK, "more is held than allowed");
    }
    assert!(accepted >= 10, "{accepted}");
    // The one that waited and was dropped was not sent.
    let (sent, ()) = tokio::join!(server.send(bulky(accepted, 1000)), async {
        for number in 0..=accepted {
            assert_eq!(raw.hears().await, bulky(number, 1000).into());
        }
    });
    assert_eq!(sent, Ok(()));
}

/// From 32 KiB on, what a server sends goes past the WebSocket library.
#[tokio::test(start_paused = true)]
async fn large_messages_small_ones_pongs_and_the_close_keep_their_order_in_a_narrow_pipe() {
    const SIZES: [usize; 9] = [100, 32_768, 65_535, 65_536, 32_767, 200_000, 300, 65_537, 40_000];
    // What is sent at once begins with each of them.
    let sizes = (0..SIZES.len()).flat_map(|first| {
        let mut sizes = SIZES;
        sizes.rotate_left(first);
        sizes
    });
    let (server, mut raw) = raw_streaming(calm(), 1000).await;
    let sending = async {
        for size in sizes.clone() {
            server.send(relation_of(size)).await.unwrap();
        }
        server.close(Close::NORMAL);
    };
    let receiving = async {
        let (mut pings, mut pongs) = (0_u8.., 0_u8..);
        for (nth, size) in sizes.clone().enumerate() {
            if nth % 4 == 0 {
                let ping = Bytes::from(vec![pings.next().unwrap()]);
                raw.socket.send(tungstenite::Message::Ping(ping)).await.unwrap();
            }
            loop {
                match raw.socket.next().await.unwrap().unwrap() {
                    tungstenite::Message::Pong(pong) => assert_eq!(pong[0], pongs.next().unwrap()),
                    message => {
                        let frame = relation_of(size).encode();
                        assert_eq!(message, tungstenite::Message::Binary(frame));
                        break;
                    }
                }
            }
        }
        assert!(pongs.next() > Some(0), "they come between the messages");
        raw.last_words().await
    };
    let both = async { tokio::join!(receiving, sending) };
    let (last_words, ()) = timeout(MINUTE, both).await.unwrap();
    assert_eq!(last_words, closed_with(1000, ""));
}

#[tokio::test(start_paused = true)]
async fn an_application_that_does_not_read_leaves_the_rest_in_the_socket() {
    // Neither the pipe nor the buffer holds a message.
    let limits = Limits { max_unread_messages: 5, read_buffer: 64, ..calm() };
    let (mut server, mut raw) = raw_pair(limits, 64).await;
    let mut read = 0;
    loop {
        let frame = Message::from(bulky(read, 1000)).encode();
        let sending = raw.socket.send(tungstenite::Message::Binary(frame));
        if timeout(MINUTE, sending).await.is_err() {
            break;
        }
        read += 1;
    }
    assert_eq!(read, 5);
    // The last is with the raw peer, and leaves once there is room for one.
    assert_eq!(next_relation(&mut server).await, 0);
    timeout(MINUTE, raw.socket.flush()).await.expect("there is room").unwrap();
    for number in 1..=read {
        assert_eq!(next_relation(&mut server).await, number);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_calls_and_does_not_read_the_answers_is_not_read_for_ever() {
    let limits = Limits { max_unsent_bytes: 10_000, ..calm() };
    let (mut server, mut raw) = raw_pair(limits, 1024).await;
    let serving = async {
        while let Some(event) = server.recv().await {
            let Event::Subscribe(_, responder) = event else { panic!("{event:?}") };
            responder.reply(subscribed(&"x".repeat(1000)));
        }
    };
    let calling = async {
        let mut calls = 0;
        let calls_made = &mut calls;
        let endless = async {
            loop {
                raw.says(call(2, subscribe("a"))).await;
                *calls_made += 1;
                assert!(*calls_made < 10_000, "10 MB of answers are held");
            }
        };
        assert!(timeout(MINUTE, endless).await.is_err());
    };
    tokio::select! {
        () = serving => panic!("it goes on"),
        () = calling => {}
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_the_session_answers_itself_do_not_pile_up_either() {
    let limits = Limits { max_unsent_bytes: 10_000, ..calm() };
    let (_server, mut raw) = raw_pair(limits, 1024).await;
    let endless = async {
        for _ in 0..100_000 {
            raw.says(call(2, stop())).await;
        }
        panic!("2 MB of answers are held");
    };
    assert!(timeout(MINUTE, endless).await.is_err());
}

// ---- The authentication deadline and the verdict ----

/// The server's error, what a raw client saw, and how long it took.
async fn refusal_seen(
    gate: Gate,
    limits: Limits,
    words: Option<Message>,
) -> (AcceptError, LastWords, Duration) {
    let (near, far) = duplex(1024);
    let server = server(gate, limits);
    let before = Instant::now();
    let (accepted, last_words) = tokio::join!(server.accept(far), async {
        let mut raw = Raw::upgraded(near, Version::V0_12).await;
        if let Some(words) = words {
            raw.says(words).await;
        }
        raw.last_words().await
    });
    (accepted.unwrap_err(), last_words, before.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_at_the_deadline() {
    let (error, seen, elapsed) = refusal_seen(Gate::Word, calm(), None).await;
    let AcceptError::Ended(end) = error else { panic!("{error:?}") };
    assert_eq!(*violation(&end), Violation::AuthTimeout);
    assert_eq!(seen, closed_with(4408, "Authentication timeout"));
    assert_eq!(elapsed, 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_never_answers_is_given_the_same_deadline() {
    let limits = Limits { auth_timeout: 3 * SECOND, ..calm() };
    let request = Some(call(1, auth("client-1", WORD)));
    let (error, seen, elapsed) = refusal_seen(Gate::Undecided, limits, request).await;
    let AcceptError::Ended(end) = error else { panic!("{error:?}") };
    assert_eq!(*violation(&end), Violation::AuthTimeout);
    assert_eq!(seen, closed_with(4408, "Authentication timeout"));
    assert_eq!(elapsed, 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn pings_do_not_move_the_deadline() {
    let (near, far) = duplex(1024);
    let server = server(Gate::Word, calm());
    let before = Instant::now();
    let (accepted, seen) = tokio::join!(server.accept(far), async {
        let mut raw = Raw::upgraded(near, Version::V0_12).await;
        for _ in 0..9 {
            tokio::time::sleep(SECOND).await;
            raw.socket.send(tungstenite::Message::Ping("alive".into())).await.unwrap();
        }
        raw.last_words().await
    });
    assert!(accepted.is_err());
    assert_eq!(seen, closed_with(4408, "Authentication timeout"));
    assert_eq!(before.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_even_upgrade_is_dropped_at_the_deadline() {
    let (near, far) = duplex(1024);
    let before = Instant::now();
    let accepted = server(Gate::Word, calm()).accept(far).await;
    assert!(matches!(accepted, Err(AcceptError::TimedOut)));
    assert_eq!(before.elapsed(), 10 * SECOND);
    drop(near);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_trickles_in_is_dropped_at_the_deadline() {
    let (mut near, far) = duplex(1024);
    let before = Instant::now();
    let server = server(Gate::Word, calm());
    let trickling = async {
        for byte in b"GET /ws HTTP/1.1\r\n".iter().cycle() {
            tokio::time::sleep(SECOND).await;
            if near.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    let (accepted, ()) = tokio::join!(server.accept(far), trickling);
    assert!(matches!(accepted, Err(AcceptError::TimedOut)));
    assert!(before.elapsed() <= 11 * SECOND, "{:?}", before.elapsed());
}

/// Sends bytes through a pipe that holds so many, and reads until the end of what is heard is this.
async fn asked(server: &Server<Gate>, sent: &[u8], pipe: usize, end: &[u8]) -> String {
    let (near, far) = duplex(pipe);
    let (mut hearing, mut saying) = split(near);
    let asking = async move {
        let mut heard = vec![];
        let hear = async {
            while !heard.ends_with(end) {
                assert!(hearing.read_buf(&mut heard).await.unwrap() > 0, "{heard:?}");
            }
        };
        // What is refused is not read to its end.
        let (_said, ()) = tokio::join!(saying.write_all(sent), hear);
        String::from_utf8_lossy(&heard).into_owned()
    };
    let (_connection, heard) = tokio::join!(server.accept(far), asking);
    heard
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_granted_however_it_comes() {
    let upgrade = upgrade_request("");
    let elsewhere = "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let refused = upgrade.replace("electric", "eclectic");
    let ways = [
        ("whole", upgrade.clone()),
        ("behind a blank line", format!("\r\n{upgrade}")),
        ("in bare lines", upgrade.replace('\r', "")),
        ("with much else", upgrade_request(&format!("Cookie: {}\r\n", "x".repeat(12 * 1024)))),
        ("with a body of nothing", upgrade_request("Content-Length: 0\r\n")),
        ("behind another request", format!("{elsewhere}{upgrade}")),
        ("behind two", format!("{elsewhere}{elsewhere}{upgrade}")),
        ("after a refusal", format!("{refused}{upgrade}")),
    ];
    let request = call(1, auth("client-1", WORD)).encode();
    let size = u8::try_from(request.len()).unwrap();
    let masked = [&[0x82, 0x80 | size, 0, 0, 0, 0], &request[..]].concat();
    let welcome = SatAuthResp { id: "server-1".into(), headers: vec![] };
    let welcome = reply(1, welcome).encode();
    let server = server(Gate::Word, calm());
    for (way, head) in ways {
        let sent = [head.as_bytes(), &masked].concat();
        for pipe in [1, 7, 64 * 1024] {
            let heard = asked(&server, &sent, pipe, &welcome).await;
            let accepts = heard.matches("HTTP/1.1 101 Switching Protocols\r\n").count();
            assert_eq!(accepts, 1, "{way}, {pipe}: {heard}");
            // That of RFC 6455 §1.3, whose key it is.
            let accept = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
            assert!(heard.contains(accept), "{way}, {pipe}: {heard}");
            assert!(heard.contains("sec-websocket-protocol: electric.0.12\r\n"), "{way}: {heard}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_become_a_request_is_answered_before_it_ends() {
    let server = server(Gate::Word, calm());
    let start = Instant::now();
    let refused = upgrade_request("").replace("electric", "eclectic");
    let long = format!("Cookie: {}\r\n", "x".repeat(700));
    for (before, lines, pipe, answers) in [
        ("", "", 1000, 1),
        ("", &*long, 1000, 1),
        ("", &long, 64 * 1024, 1),
        (&*refused, &long, 64 * 1024, 2),
    ] {
        // No line follows the one that is wrong.
        let sent = format!("{before}GET /ws HTTP/1.1\r\nHost: localhost\r\n{lines}no name\r\n");
        let heard = asked(&server, sent.as_bytes(), pipe, b"\r\n\r\n").await;
        assert_eq!(heard.matches("HTTP/1.1 400 ").count(), answers, "{heard}");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_head_is_exact() {
    let limits = Limits { max_head: 8192, ..calm() };
    let server = server(Gate::Word, limits);
    let filled = |size: usize| {
        let empty = upgrade_request("Cookie: \r\n").len();
        upgrade_request(&format!("Cookie: {}\r\n", "x".repeat(size - empty)))
    };
    for pipe in [1000, 64 * 1024] {
        let heard = asked(&server, filled(8192).as_bytes(), pipe, b"\r\n\r\n").await;
        assert!(heard.starts_with("HTTP/1.1 101 "), "{pipe}: {heard}");
        let heard = asked(&server, filled(8193).as_bytes(), pipe, b"\r\n\r\n").await;
        assert!(heard.starts_with("HTTP/1.1 431 "), "{pipe}: {heard}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_is_refused_to_the_client_coarsely_and_to_the_embedder_exactly() {
    let request = Some(call(5, auth("client-1", "another word")));
    let (error, seen, elapsed) = refusal_seen(Gate::Word, calm(), request).await;
    let AcceptError::Refused { client_id, error } = error else { panic!("{error:?}") };
    assert_eq!(client_id, id("client-1"));
    assert!(matches!(error, AuthError::InvalidSignature));
    let why = common::error(ErrorCode::AuthRequired).with_message("invalid token signature");
    let messages = vec![refusal("authenticate", 5, why)];
    assert_eq!(seen, LastWords { messages, close: Some((1007, String::new())) });
    assert_eq!(elapsed, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_authenticator_that_cannot_tell_closes_without_an_answer() {
    let request = Some(call(1, auth("client-1", WORD)));
    let (error, seen, _) = refusal_seen(Gate::Broken, calm(), request).await;
    assert!(matches!(error, AcceptError::Refused { error: AuthError::Unavailable(_), .. }));
    assert_eq!(seen, closed_with(1011, ""));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_before_it_is_authenticated_is_no_connection() {
    let (near, far) = duplex(1024);
    let server = server(Gate::Word, calm());
    let (accepted, ()) = tokio::join!(server.accept(far), async {
        drop(Raw::upgraded(near, Version::V0_12).await);
    });
    let Err(AcceptError::Ended(end)) = accepted else { panic!() };
    assert_eq!(end, End { close: None, cause: Cause::Peer(None) });
}

#[tokio::test(start_paused = true)]
async fn a_call_before_authentication_is_refused_and_nothing_behind_it_is_looked_at() {
    let (near, far) = duplex(4096);
    let server = server(Gate::Word, calm());
    let (accepted, seen) = tokio::join!(server.accept(far), async {
        let mut raw = Raw::upgraded(near, Version::V0_12).await;
        raw.says(call(1, start())).await;
        raw.says(call(2, auth("client-1", WORD))).await;
        raw.last_words().await
    });
    assert!(matches!(accepted, Err(AcceptError::Ended(_))));
    let messages = vec![refused(Method::StartReplication, 1, ErrorCode::AuthRequired)];
    assert_eq!(seen, LastWords { messages, close: Some((1007, String::new())) });
}

#[tokio::test(start_paused = true)]
async fn what_is_pipelined_behind_the_auth_request_is_served_in_order() {
    let (near, far) = duplex(4096);
    let server = server(Gate::Word, calm());
    let (accepted, mut raw) = tokio::join!(server.accept(far), async {
        let mut raw = Raw::upgraded(near, Version::V0_12).await;
        raw.says(call(1, auth("client-1", WORD))).await;
        raw.says(call(2, start())).await;
        raw.says(call(3, subscribe("a"))).await;
        raw
    });
    let mut server = accepted.unwrap();
    answer_start(&mut server).await;
    let Some(Event::Subscribe(_, responder)) = server.recv().await else { panic!() };
    responder.reply(subscribed("a"));
    let welcome = SatAuthResp { id: "server-1".into(), headers: vec![] };
    assert_eq!(raw.hears().await, reply(1, welcome));
    assert_eq!(raw.hears().await, reply(2, started()));
    assert_eq!(raw.hears().await, reply(3, subscribed("a")));
}

#[tokio::test]
async fn a_refusal_arrives_though_much_is_pipelined_behind_what_is_refused() {
    const PIPELINED: usize = 8 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    // As long as a slow machine may need.
    let limits = Limits { close_timeout: MINUTE, ..calm() };
    let server = server(Gate::Word, limits);
    let refusing = tokio::spawn(async move { server.accept(far).await.map(drop) });

    let mut raw = Raw::upgraded(near, Version::V0_12).await;
    let refused = call(1, auth("client-1", "another word")).encode();
    raw.socket.feed(tungstenite::Message::Binary(refused)).await.unwrap();
    let behind = Message::from(bulky(1, 32 * 1024)).encode();
    for _ in 0..PIPELINED / behind.len() {
        raw.sends(behind.clone()).await;
    }
    // Only now does the client read.
    let seen = raw.last_words().await;
    assert_eq!(seen.close, Some((1007, String::new())));
    assert_eq!(seen.messages.len(), 1);
    drop(raw);
    assert!(matches!(refusing.await.unwrap(), Err(AcceptError::Refused { .. })));
}

// ---- Limits ----

/// An auth request whose frame has exactly this many bytes.
fn auth_of(bytes: usize) -> Message {
    let request = |filler: usize| call(1, auth(&"x".repeat(filler), WORD));
    let filler = (0..bytes).rev().find(|filler| request(*filler).encoded_len() <= bytes).unwrap();
    assert_eq!(request(filler).encoded_len(), bytes);
    request(filler)
}

#[tokio::test(start_paused = true)]
async fn the_limit_before_authentication_is_exact() {
    let limits = Limits { max_message_before_auth: 1000, ..calm() };
    let (near, far) = duplex(4096);
    let server = server(Gate::Word, limits.clone());
    let (accepted, _raw) = tokio::join!(server.accept(far), async {
        let mut raw = Raw::upgraded(near, Version::V0_12).await;
        raw.says(auth_of(1000)).await;
        raw
    });
    assert!(accepted.is_ok());

    let (error, seen, _) = refusal_seen(Gate::Word, limits, Some(auth_of(1001))).await;
    let AcceptError::Ended(end) = error else { panic!("{error:?}") };
    assert_eq!(*violation(&end), Violation::WebSocket(Fault::TooLarge));
    assert_eq!(seen, closed_with(1009, "Message too large"));
}

#[tokio::test(start_paused = true)]
async fn the_limit_after_authentication_is_another_one_and_exact_too() {
    let limits = Limits { max_message_before_auth: 1000, max_message: 10_000, ..calm() };
    let (mut server, mut raw) = raw_pair(limits, 1024).await;
    raw.says(relation_of(10_000)).await;
    assert_eq!(next_relation(&mut server).await, 7);

    raw.sends(vec![9; 10_001]).await;
    assert_eq!(raw.last_words().await, closed_with(1009, "Message too large"));
    drop(raw);
    assert_eq!(*violation(server.closed().await), Violation::WebSocket(Fault::TooLarge));
}

/// The head of a masked frame from a client that announces a payload of this size.
fn frame_head(opcode_and_fin: u8, payload: u64) -> Vec<u8> {
    let mut head = vec![opcode_and_fin, 0x80 | 127];
    head.extend(payload.to_be_bytes());
    head.extend([0; 4]);
    head
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_before_authentication_is_not_waited_for() {
    let (near, far) = duplex(1024);
    let server = server(Gate::Word, calm());
    let before = Instant::now();
    let (accepted, seen) = tokio::join!(server.accept(far), async {
        let mut raw = Raw::upgraded(near, Version::V0_12).await;
        let stream = raw.socket.get_mut();
        stream.write_all(&frame_head(0x82, 8 * 1024 * 1024)).await.unwrap();
        // More than the limit, and the rest never comes.
        stream.write_all(&[0; 200 * 1024]).await.unwrap();
        raw.last_words().await
    });
    assert!(accepted.is_err());
    assert_eq!(seen, closed_with(1009, "Message too large"));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn fragments_before_authentication_count_together() {
    let (near, far) = duplex(1024);
    let server = server(Gate::Word, calm());
    let before = Instant::now();
    let (accepted, seen) = tokio::join!(server.accept(far), async {
        let mut raw = Raw::upgraded(near, Version::V0_12).await;
        let stream = raw.socket.get_mut();
        for opcode in [0x02, 0x00, 0x00] {
            stream.write_all(&frame_head(opcode, 30 * 1024)).await.unwrap();
            // What is behind a refusal is read, and thrown away.
            stream.write_all(&[0; 30 * 1024]).await.unwrap();
        }
        raw.last_words().await
    });
    assert!(accepted.is_err());
    assert_eq!(seen, closed_with(1009, "Message too large"));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_binary_message_ends_the_connection_with_its_code() {
    for (message, code) in [
        (vec![0x81, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'], 1003),
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        // An unmasked frame, a reserved bit, a reserved opcode, a lone continuation.
        (vec![0x82, 0x00], 1002),
        (vec![0xc2, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x83, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x80, 0x80, 0, 0, 0, 0], 1002),
    ] {
        let (server, mut raw) = raw_pair(calm(), 1024).await;
        raw.socket.get_mut().write_all(&message).await.unwrap();
        let seen = raw.last_words().await;
        assert_eq!(seen.messages, []);
        assert_eq!(seen.close.map(|(code, _)| code), Some(code), "{message:x?}");
        drop(raw);
        assert!(matches!(violation(server.closed().await), Violation::WebSocket(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_frame_is_answered_and_closed() {
    let (server, mut raw) = raw_pair(calm(), 1024).await;
    raw.sends(&b"rubbish"[..]).await;
    let reason = "Message not formatted according to Electric protocol".to_owned();
    let messages = vec![SatErrorResp::default().into()];
    assert_eq!(raw.last_words().await, LastWords { messages, close: Some((1007, reason)) });
    drop(raw);
    assert!(matches!(violation(server.closed().await), Violation::Frame(_)));
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_while_the_application_waits() {
    let (_server, mut raw) = raw_pair(calm(), 1024).await;
    raw.socket.send(tungstenite::Message::Ping("are you there".into())).await.unwrap();
    let pong = raw.socket.next().await.unwrap().unwrap();
    assert_eq!(pong, tungstenite::Message::Pong("are you there".into()));
}

// ---- Our client and servers that do not behave ----

/// What our client makes of a raw server.
async fn connect_to<F>(serve: impl FnOnce(Raw<DuplexStream>) -> F) -> Result<OfClient, ConnectError>
where
    F: Future<Output = ()>,
{
    let (near, far) = duplex(4096);
    let client = client(calm());
    let (client_id, token) = (id("client-1"), token(WORD));
    let connecting = async { client.upgrade(near).await?.authenticate(&client_id, token).await };
    let (connected, ()) = tokio::join!(connecting, async { serve(Raw::accepted(far).await).await });
    connected
}

fn ended(connected: Result<OfClient, ConnectError>) -> End {
    match connected {
        Err(ConnectError::Ended(end)) => end,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_presents_itself_and_is_let_in() {
    let connected = connect_to(|mut raw| async move {
        assert_eq!(raw.hears().await, call(1, auth("client-1", WORD)));
        raw.says(reply(1, SatAuthResp { id: "elsewhere".into(), headers: vec![] })).await;
    });
    assert_eq!(connected.await.unwrap().server_id(), "elsewhere");
}

#[tokio::test(start_paused = true)]
async fn a_client_gives_a_silent_server_its_deadline() {
    let before = Instant::now();
    let connected = connect_to(|mut raw| async move {
        raw.hears().await;
        assert_eq!(raw.last_words().await, closed_with(4408, "Authentication timeout"));
    });
    assert_eq!(*violation(&ended(connected.await)), Violation::AuthTimeout);
    assert_eq!(before.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_client_gives_a_server_that_does_not_upgrade_its_deadline() {
    let (near, far) = duplex(1024);
    let before = Instant::now();
    let upgraded = client(calm()).upgrade(near).await;
    assert!(matches!(upgraded, Err(ConnectError::TimedOut(_))));
    assert_eq!(before.elapsed(), 10 * SECOND);
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn a_client_gives_each_step_the_time_that_it_is_told() {
    let client = client(calm()).with_timeout(3 * SECOND);
    let before = Instant::now();
    let (near, far) = duplex(1024);
    assert!(matches!(client.upgrade(near).await, Err(ConnectError::TimedOut(_))));
    assert_eq!(before.elapsed(), 3 * SECOND);
    drop(far);

    let (near, far) = duplex(1024);
    let (upgraded, mut raw) = tokio::join!(client.upgrade(near), Raw::accepted(far));
    let before = Instant::now();
    let client_id = id("client-1");
    let authenticating = upgraded.unwrap().authenticate(&client_id, token(WORD));
    let (connected, ()) = tokio::join!(authenticating, async move {
        assert_eq!(raw.last_words().await.close.unwrap().0, 4408);
    });
    assert_eq!(*violation(&ended(connected)), Violation::AuthTimeout);
    assert_eq!(before.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_client_learns_why_it_is_refused() {
    let why = error(ErrorCode::AuthRequired).with_message("expired token");
    let answer = refusal("authenticate", 1, why.clone());
    let connected = connect_to(|mut raw| async move {
        raw.hears().await;
        raw.says(answer).await;
        assert_eq!(raw.last_words().await, closed_with(1000, ""));
    });
    let end = End { close: Some(Close::NORMAL), cause: Cause::RefusedByServer(why) };
    assert_eq!(ended(connected.await), end);
}

#[tokio::test(start_paused = true)]
async fn a_client_closes_a_server_that_breaks_a_rule() {
    let connected = connect_to(|mut raw| async move {
        raw.hears().await;
        raw.says(relation(1)).await;
        assert_eq!(raw.last_words().await, closed_with(1007, ""));
    });
    assert!(matches!(violation(&ended(connected.await)), Violation::Unauthenticated(_)));
}

#[tokio::test(start_paused = true)]
async fn a_client_learns_how_the_server_closed() {
    let connected = connect_to(|mut raw| async move {
        raw.hears().await;
        let code = 1011.into();
        let frame = tungstenite::protocol::CloseFrame { code, reason: "".into() };
        raw.socket.close(Some(frame)).await.unwrap();
        raw.last_words().await;
    });
    assert_eq!(ended(connected.await).cause, Cause::Peer(Some(Close::INTERNAL)));
}

// ---- Servers ----

/// A listening server whose handler answers subscriptions, and panics at one named `panic`.
async fn serving(gate: Gate) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = server(gate, calm());
    tokio::spawn(async move { server.serve(listener, answer_subscriptions).await });
    address
}

async fn answer_subscriptions(mut connection: OfServer) {
    while let Some(event) = connection.recv().await {
        if let Event::Subscribe(request, responder) = event {
            assert_ne!(request.subscription_id, "panic", "as the test wants it");
            responder.reply(subscribed(&request.subscription_id));
        }
    }
}

async fn connect(address: std::net::SocketAddr, word: &str) -> Result<OfClient, ConnectError> {
    let client = Connector::new(&format!("http://{address}")).unwrap();
    client.connect(&ClientId::random(), token(word)).await
}

async fn is_served(client: &OfClient) {
    assert_eq!(client.call(subscribe("a"), MINUTE).await, Ok(subscribed("a")));
}

#[tokio::test]
async fn a_connection_that_misbehaves_concerns_no_other() {
    let address = serving(Gate::PanicsAt("panic")).await;
    let good = connect(address, WORD).await.unwrap();
    is_served(&good).await;

    // Half an upgrade, and one that never authenticates; both stay.
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /ws HT").await.unwrap();
    let _silent = Raw::upgraded(TcpStream::connect(address).await.unwrap(), Version::V0_12).await;
    is_served(&good).await;

    // No HTTP.
    let mut rubbish = TcpStream::connect(address).await.unwrap();
    rubbish.write_all(&[0xff; 100]).await.unwrap();
    let _ = rubbish.read_to_end(&mut vec![]).await;
    is_served(&good).await;

    // Rubbish in a WebSocket, before and after authentication.
    let mut raw = Raw::upgraded(TcpStream::connect(address).await.unwrap(), Version::V0_12).await;
    raw.sends(&b"rubbish"[..]).await;
    assert_eq!(raw.last_words().await.close.unwrap().0, 1007);
    let mut raw = Raw::authenticated(TcpStream::connect(address).await.unwrap()).await;
    raw.sends(&b"rubbish"[..]).await;
    assert_eq!(raw.last_words().await.close.unwrap().0, 1007);
    is_served(&good).await;

    // A bad token, an authenticator that panics, and a handler that does.
    assert!(connect(address, "another word").await.is_err());
    assert!(connect(address, "panic").await.is_err());
    let doomed = connect(address, WORD).await.unwrap();
    assert_eq!(doomed.call(subscribe("panic"), MINUTE).await, Err(CallFailure::Ended));
    assert!(matches!(doomed.closed().await.cause, Cause::Peer(_)));
    is_served(&good).await;
    is_served(&connect(address, WORD).await.unwrap()).await;
}

#[tokio::test]
async fn a_handler_that_is_done_closes_its_connection_normally() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = server(Gate::Word, calm());
    tokio::spawn(async move { server.serve(listener, async |connection| drop(connection)).await });
    let mut client = connect(address, WORD).await.unwrap();
    assert!(client.recv().await.is_none());
    assert_eq!(client.closed().await.cause, Cause::Peer(Some(Close::NORMAL)));
}

/// The server's id as a client of this version learns it.
async fn server_id<A: Authenticator>(
    server: &Server<A>,
    version: Version,
    word: &str,
) -> Result<String, ConnectError> {
    let (near, far) = duplex(4096);
    let client = client(calm()).with_version(version);
    let (client_id, token) = (id("client-1"), token(word));
    let connecting = async { client.upgrade(near).await?.authenticate(&client_id, token).await };
    // A refused upgrade leaves the connection open for another request.
    tokio::select! {
        biased;
        connected = connecting => connected.map(|client| client.server_id().to_owned()),
        _ = async { let _kept = server.accept(far).await; std::future::pending::<()>().await } => {
            unreachable!("the client comes to an end first")
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_clone_is_given_does_not_change_the_server_it_was_cloned_from() {
    let one = Server::new(Gate::Word).with_server_id("one");
    let two = one.clone().with_server_id("two").with_versions(Version::V0_6..=Version::V0_9);
    assert_eq!(server_id(&one, Version::V0_12, WORD).await.unwrap(), "one");
    assert_eq!(server_id(&two, Version::V0_9, WORD).await.unwrap(), "two");
    let refused = server_id(&two, Version::V0_12, WORD).await.unwrap_err();
    assert!(matches!(refused, ConnectError::UpgradeRefused { status: 400, .. }), "{refused:?}");
    assert_eq!(server_id(&one.clone(), Version::V0_12, WORD).await.unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_server_has_a_random_id_unless_it_is_given_one() {
    let ids = [Server::new(Gate::Word), Server::new(Gate::Word)];
    let mut seen = BTreeSet::new();
    for server in &ids {
        let id = server_id(server, Version::V0_12, WORD).await.unwrap();
        // It is the server's, not the connection's.
        assert_eq!(server_id(&server.clone(), Version::V0_6, WORD).await.unwrap(), id);
        seen.insert(id);
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_judged_by_the_clock_that_the_server_is_given() {
    let secret = b"a secret of thirty-two bytes, no less";
    let key = Key::from_secret(Algorithm::HS256, secret).unwrap();
    let minter = Minter::from_secret(Algorithm::HS256, secret).unwrap();
    let claims = serde_json::json!({ "sub": "user-1", "iat": 1000, "exp": 1060 });
    let token = minter.mint(&claims).unwrap();
    let time = Arc::new(AtomicI64::new(1030));
    let server = Server::new(JwtAuthenticator::secure(key, ClaimRules::default())).with_clock({
        let time = Arc::clone(&time);
        move || UnixTime::from_secs(time.load(Ordering::Relaxed))
    });
    assert!(server_id(&server, Version::V0_12, token.expose()).await.is_ok());
    time.store(2000, Ordering::Relaxed);
    let refused = server_id(&server, Version::V0_12, token.expose()).await.unwrap_err();
    let expected = "authentication refused by the server: AUTH_REQUIRED: expired token";
    assert_eq!(refused.to_string(), expected);
}
