//! Conversations with a client's session: no socket, no task, and the clock is an argument.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use electric_satellite::{
    session::{
        CallError, CallId, Cause, ClientSession, Close, End, Fault, Input, SendError, Session,
        Subject, Violation,
    },
    wire::{FrameError, Message, Method, Reply, ReplyError, Request, Version, proto::*, refusal},
};
use proptest::{collection::vec, prelude::*, sample::select};
use sat_error_resp::ErrorCode;
use sat_in_start_replication_resp::{ReplicationError, replication_error::Code};

type Client = Table<ClientSession>;

/// The version is negotiated, and nothing has been said.
fn connected(version: Version) -> Client {
    let now = Instant::now();
    let (id, token) = (id("client-1"), token("token-1"));
    Table::new(now, ClientSession::new(now, AUTH_TIMEOUT, version, &id, token))
}

/// The auth request is out.
fn asking(version: Version) -> Client {
    let mut client = connected(version);
    client.drain();
    client
}

/// The server has let it in.
fn ready(version: Version) -> Client {
    let mut client = asking(version);
    client.hears(reply(1, welcome()));
    client
}

/// Both streams are started.
fn streaming(version: Version) -> Client {
    let mut client = ready(version);
    let call = client.calls(start());
    client.hears(reply(call.request_id, started()));
    client.hears_call(0, start());
    client.answers(started());
    client
}

fn welcome() -> SatAuthResp {
    SatAuthResp { id: "server-1".into(), headers: vec![] }
}

/// A message that only the stream to a server holds.
fn ack() -> Message {
    SatOpLogAck::default().into()
}

fn not_started(message: &'static str) -> Result<(), SendError> {
    Err(SendError::NotStarted { message })
}

// ---- The handshake ----

#[test]
fn the_auth_request_is_the_first_word_and_the_first_number() {
    let mut client = connected(Version::V0_12);
    assert_eq!(client.drain(), [sent(call(1, auth("client-1", "token-1")))]);
    assert_eq!(client.session.deadline(), Some(client.now + AUTH_TIMEOUT));
    assert!(client.session.wants_input());
}

#[test]
fn the_answer_tells_the_servers_id_which_may_be_empty() {
    for server_id in ["server-1", ""] {
        let mut client = asking(Version::V0_12);
        let welcome = SatAuthResp { id: server_id.into(), headers: vec![] };
        let seen = client.hears(reply(1, welcome));
        assert_eq!(seen, [Seen::Authenticated(server_id.into())]);
        assert_eq!(client.session.deadline(), None);
    }
}

#[test]
fn an_answer_to_another_call_is_noted_and_the_client_goes_on_waiting() {
    let mut client = asking(Version::V0_12);
    for (message, method, request_id) in [
        (reply(2, welcome()), "authenticate", 2),
        (reply(0, welcome()), "authenticate", 0),
        (reply(1, started()), "startReplication", 1),
        (SatRpcResponse::default().into(), "", 0),
        (refused(Method::Subscribe, 1, ErrorCode::AuthRequired), "subscribe", 1),
    ] {
        assert_eq!(client.hears(message), [Seen::Stray(method.into(), request_id)]);
        assert_eq!(client.session.deadline(), Some(client.now + AUTH_TIMEOUT));
    }
    let seen = client.hears(reply(1, welcome()));
    assert_eq!(seen, [Seen::Authenticated("server-1".into())]);
}

#[test]
fn a_second_answer_to_the_auth_request_is_a_stray() {
    let mut client = ready(Version::V0_12);
    let stray = || [Seen::Stray("authenticate".into(), 1)];
    let other = SatAuthResp { id: "server-2".into(), headers: vec![] };
    assert_eq!(client.hears(reply(1, other)), stray());
    assert_eq!(client.hears(refused(Method::Authenticate, 1, ErrorCode::AuthRequired)), stray());
    assert!(client.session.wants_input());
}

#[test]
fn a_refusal_is_kept_with_its_words_and_closed_normally() {
    for why in [
        error(ErrorCode::AuthRequired).with_message("expired token"),
        error(ErrorCode::AuthRequired),
        error(ErrorCode::InvalidRequest),
    ] {
        let mut client = asking(Version::V0_12);
        let seen = client.hears(refusal("authenticate", 1, why.clone()));
        assert_eq!(seen, [end(Close::NORMAL, Cause::RefusedByServer(why))]);
        client.is_silent_for_ever();
    }
}

#[test]
fn an_answer_without_a_result_or_with_an_undecodable_one_breaks_a_rule() {
    use sat_rpc_response::Result::Message as Body;
    for result in [None, Some(Body(Bytes::from_static(b"\x0a")))] {
        let mut client = asking(Version::V0_12);
        let method = "authenticate".into();
        let seen = client.hears(SatRpcResponse { method, request_id: 1, result });
        let [Seen::End(End { close, cause })] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(*close, Some(Close::AFTER_ERROR));
        let Cause::Violation(Violation::BadReply { method, .. }) = cause else {
            panic!("{cause:?}")
        };
        assert_eq!(*method, Method::Authenticate);
        client.is_silent_for_ever();
    }
}

#[test]
fn a_server_that_reports_an_error_instead_is_closed_normally() {
    let mut client = asking(Version::V0_12);
    let why = error(ErrorCode::Internal).with_message("no");
    assert_eq!(client.hears(why.clone()), [end(Close::NORMAL, Cause::PeerError(why))]);
    client.is_silent_for_ever();
}

#[test]
fn a_server_that_calls_before_it_has_let_the_client_in_breaks_a_rule() {
    for request in [start().into(), stop().into(), auth("", "").into(), subscribe("a").into()] {
        let request: Request = request;
        let subject = Subject::Call { method: request.method(), request_id: 0 };
        let mut client = asking(Version::V0_12);
        let seen = client.hears_call(0, request);
        assert_eq!(seen, [broken(Violation::Unauthenticated(subject))]);
        client.is_silent_for_ever();
    }
    let mut client = asking(Version::V0_12);
    let seen = client.hears(SatRpcRequest { method: "rubbish".into(), ..Default::default() });
    let subject = Subject::Message("SatRpcRequest");
    assert_eq!(seen, [broken(Violation::Unauthenticated(subject))]);
}

#[test]
fn a_server_that_sends_before_it_has_let_the_client_in_breaks_a_rule() {
    for message in one_of_each() {
        if matches!(message, Message::Error(_) | Message::Request(_) | Message::Response(_)) {
            continue;
        }
        let mut client = asking(Version::V0_12);
        let subject = Subject::Message(message.name());
        assert_eq!(client.hears(message), [broken(Violation::Unauthenticated(subject))]);
        client.is_silent_for_ever();
    }
}

#[test]
fn nothing_can_be_sent_or_called_before_the_client_is_let_in() {
    let mut client = asking(Version::V0_12);
    for message in [relation(1).into(), SatOpLog::default().into(), ack()] {
        assert_eq!(client.session.send(message), Err(SendError::Unauthenticated));
    }
    for request in [start().into(), stop().into(), subscribe("a").into()] {
        assert_eq!(client.session.call(request), Err(SendError::Unauthenticated));
    }
    assert_eq!(client.drain(), []);
}

#[test]
fn the_deadline_is_over_when_it_is_reached_and_not_before() {
    let mut client = asking(Version::V0_12);
    let start = client.now;
    for early in [Duration::ZERO, AUTH_TIMEOUT - Duration::from_nanos(1)] {
        client.now = start + early;
        assert_eq!(client.input(Input::Timeout), []);
    }
    client.now = start + AUTH_TIMEOUT;
    assert_eq!(client.input(Input::Timeout), [broken(Violation::AuthTimeout)]);
    client.is_silent_for_ever();
}

#[test]
fn a_stray_answer_does_not_move_the_deadline() {
    let mut client = asking(Version::V0_12);
    let deadline = client.session.deadline();
    client.now += AUTH_TIMEOUT / 2;
    client.hears(reply(9, welcome()));
    assert_eq!(client.session.deadline(), deadline);
}

#[test]
fn a_client_that_is_let_in_has_no_deadline() {
    let mut client = ready(Version::V0_12);
    client.now += 1000 * AUTH_TIMEOUT;
    assert_eq!(client.input(Input::Timeout), []);
    assert!(client.session.wants_input());
}

#[test]
fn the_auth_request_is_no_call_that_anyone_learns_the_end_of() {
    let mut client = asking(Version::V0_12);
    assert_eq!(client.input(Input::Closed(None)), [end(None, Cause::Peer(None))]);
    client.is_silent_for_ever();
}

// ---- The client calls ----

#[test]
fn calls_are_numbered_on_from_the_auth_request() {
    let mut client = ready(Version::V0_12);
    let unsubscribe = SatUnsubsReq::default();
    let calls = [
        client.calls(start()),
        client.calls(subscribe("a")),
        client.calls(unsubscribe),
        client.calls(stop()),
    ];
    assert_eq!(calls.map(|call| call.request_id), [2, 3, 4, 5]);
}

#[test]
fn a_client_does_not_authenticate_again() {
    let mut client = ready(Version::V0_12);
    let again = client.session.call(auth("client-1", "token-2").into());
    assert_eq!(again, Err(SendError::NotOurs { message: "authenticate" }));
    assert_eq!(client.drain(), []);
    assert_eq!(client.calls(start()).request_id, 2);
}

#[test]
fn replies_find_their_calls_in_any_order() {
    let mut client = ready(Version::V0_12);
    let calls = [client.calls(subscribe("a")), client.calls(subscribe("b")), client.calls(start())];
    for (call, answer) in [
        (calls[1], Reply::from(subscribed("b"))),
        (calls[2], started().into()),
        (calls[0], subscribed("a").into()),
    ] {
        let seen = client.hears(answer.encode(call.request_id));
        assert_eq!(seen, [Seen::Answered(call, Ok(answer))]);
    }
}

#[test]
fn a_call_that_is_refused_ends_the_connection_as_it_does_on_the_servers_side() {
    for method in [Method::StartReplication, Method::Subscribe] {
        let mut client = ready(Version::V0_12);
        let call = match method {
            Method::Subscribe => client.calls(subscribe("a")),
            _ => client.calls(start()),
        };
        let error = error(ErrorCode::InvalidRequest);
        let seen = client.hears(refusal(method.as_str(), 2, error.clone()));
        let answered = Err(CallError::Reply(ReplyError::Refused(error.clone())));
        let cause = Cause::CallRefusedByServer { method, error };
        let end = end(Close::NORMAL, cause);
        assert_eq!(seen, [Seen::Answered(call, answered), end]);
    }
}

#[test]
fn another_token_is_presented_by_the_same_client_and_answered_like_any_call() {
    let mut client = ready(Version::V0_12);
    let call = client.session.reauthenticate(token("another")).unwrap();
    assert_eq!(client.drain(), [sent(crate::call(2, auth("client-1", "another")))]);
    let seen = client.hears(reply(2, welcome()));
    assert_eq!(seen, [Seen::Answered(call, Ok(welcome().into()))]);

    let call = client.session.reauthenticate(token("another")).unwrap();
    client.drain();
    let seen = client.input(Input::Closed(None));
    assert_eq!(seen[0], Seen::Answered(call, Err(CallError::Ended)));
}

#[test]
fn a_reply_without_a_result_or_with_an_undecodable_one_is_told_as_a_failure() {
    use sat_rpc_response::Result::Message as Body;
    for result in [None, Some(Body(Bytes::from_static(b"\x0a")))] {
        let mut client = ready(Version::V0_12);
        let call = client.calls(start());
        let method = "startReplication".into();
        let seen = client.hears(SatRpcResponse { method, request_id: 2, result });
        let [Seen::Answered(answered, Err(CallError::Reply(_)))] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(*answered, call);
    }
}

#[test]
fn a_reply_that_matches_no_call_in_method_and_number_is_noted_and_ignored() {
    let mut client = ready(Version::V0_12);
    let call = client.calls(start());
    let stray = |method: &str, request_id| [Seen::Stray(method.into(), request_id)];
    assert_eq!(client.hears(reply(2, stopped())), stray("stopReplication", 2));
    assert_eq!(client.hears(reply(3, started())), stray("startReplication", 3));
    let answered = Seen::Answered(call, Ok(started().into()));
    assert_eq!(client.hears(reply(2, started())), [answered]);
    assert_eq!(client.hears(reply(2, started())), stray("startReplication", 2));
}

#[test]
fn the_reply_to_a_forgotten_call_is_a_stray_and_what_it_grants_is_granted() {
    let mut client = ready(Version::V0_12);
    let call = client.calls(start());
    client.session.forget(call);
    assert_eq!(client.session.send(ack()), not_started("SatOpLogAck"));
    assert_eq!(client.hears(reply(2, started())), [Seen::Stray("startReplication".into(), 2)]);
    // The server sends its stream now, and nothing is wrong with that.
    assert_eq!(client.hears(relation(1)), [got(relation(1))]);
    assert_eq!(client.session.send(ack()), Ok(()));
}

#[test]
fn calls_that_wait_when_it_ends_learn_it_before_the_end() {
    let mut client = ready(Version::V0_12);
    let calls = [client.calls(start()), client.calls(subscribe("a"))];
    let close = Some(Close::AFTER_ERROR);
    assert_eq!(
        client.input(Input::Closed(close.clone())),
        [
            Seen::Answered(calls[0], Err(CallError::Ended)),
            Seen::Answered(calls[1], Err(CallError::Ended)),
            end(None, Cause::Peer(close))
        ]
    );
}

// ---- The server calls ----

#[test]
fn calls_of_the_server_are_handed_out_and_answered_by_method_and_number() {
    let mut client = ready(Version::V0_12);
    assert_eq!(client.hears_call(0, start()), [called(start())]);
    assert_eq!(client.hears_call(0, stop()), [called(stop())]);
    client.questions.swap(0, 1);
    assert_eq!(client.answers(stopped()), [sent(reply(0, stopped()))]);
    assert_eq!(client.answers(started()), [sent(reply(0, started()))]);
}

#[test]
fn the_reply_of_another_method_is_not_sent() {
    let mut client = ready(Version::V0_12);
    client.hears_call(0, start());
    let question = client.questions.pop_front().unwrap();
    let answered = client.session.answer(question, Ok(stopped().into()));
    assert_eq!(answered, Err(SendError::NotOurs { message: "stopReplication" }));
    assert_eq!(client.drain(), []);
}

#[test]
fn a_call_that_the_client_refuses_is_answered_and_the_connection_goes_on() {
    let mut client = ready(Version::V0_12);
    client.hears_call(4, start());
    let why = error(ErrorCode::ReplicationFailed).with_message("sending already");
    let answer = refusal("startReplication", 4, why.clone());
    assert_eq!(client.refuses(why), [sent(answer)]);
    assert_eq!(client.hears_call(5, start()), [called(start())]);
}

#[test]
fn what_a_server_may_not_call_is_refused_and_the_connection_goes_on() {
    let mut client = ready(Version::V0_12);
    for request in
        [auth("client-1", "token-1").into(), subscribe("a").into(), SatUnsubsReq::default().into()]
    {
        let request: Request = request;
        let answer = refused(request.method(), 3, ErrorCode::InvalidRequest);
        assert_eq!(client.hears_call(3, request), [sent(answer)]);
    }
    assert!(client.session.wants_input());
}

#[test]
fn an_unknown_method_or_an_undecodable_body_is_refused_and_the_connection_goes_on() {
    let mut client = ready(Version::V0_12);
    for (method, body) in [("replicate", &b""[..]), ("startReplication", b"\x0a")] {
        let message = Bytes::from_static(body);
        let seen = client.hears(SatRpcRequest { method: method.into(), request_id: 3, message });
        assert_eq!(seen, [sent(refusal(method, 3, error(ErrorCode::InvalidRequest)))]);
    }
    assert!(client.session.wants_input());
}

#[test]
fn an_answer_after_the_end_is_not_sent() {
    let mut client = ready(Version::V0_12);
    client.hears_call(0, start());
    let question = client.questions.pop_front().unwrap();
    client.input(Input::Closed(None));
    assert_eq!(client.session.answer(question, Ok(started().into())), Err(SendError::Ended));
    assert_eq!(client.drain(), []);
}

// ---- The streams ----

#[test]
fn changes_are_sent_only_while_the_servers_start_is_answered_and_not_stopped() {
    let changes = || [Message::from(relation(1)), SatOpLog::default().into()];
    let assert_not_started = |client: &mut Client| {
        for message in changes() {
            let name = message.name();
            assert_eq!(client.session.send(message), not_started(name));
        }
        assert_eq!(client.drain(), []);
    };
    let mut client = ready(Version::V0_12);
    assert_not_started(&mut client);
    // The stream of the server is another one.
    client.calls(start());
    client.hears(reply(2, started()));
    assert_not_started(&mut client);
    client.hears_call(0, start());
    assert_not_started(&mut client);
    client.answers(started());
    for message in changes() {
        assert_eq!(client.session.send(message.clone()), Ok(()));
        assert_eq!(client.drain(), [sent(message)]);
    }
    client.hears_call(1, stop());
    client.answers(stopped());
    assert_not_started(&mut client);
}

#[test]
fn a_refused_start_starts_nothing() {
    let mut client = ready(Version::V0_12);
    client.hears_call(0, start());
    client.refuses(error(ErrorCode::Internal));
    assert_eq!(client.session.send(relation(1).into()), not_started("SatRelation"));
    client.hears_call(1, start());
    let err = Some(ReplicationError { code: 5, message: "no".into() });
    client.answers(SatInStartReplicationResp { err, unacked_window_size: None });
    assert_eq!(client.session.send(relation(1).into()), not_started("SatRelation"));
}

#[test]
fn a_start_that_is_answered_after_its_stop_does_not_start_the_stream() {
    let mut client = ready(Version::V0_12);
    client.hears_call(0, start());
    client.hears_call(1, stop());
    client.questions.swap(0, 1);
    client.answers(stopped());
    client.answers(started());
    assert_eq!(client.session.send(relation(1).into()), not_started("SatRelation"));
}

#[test]
fn acknowledgements_are_sent_only_while_the_clients_start_is_answered_and_not_stopped() {
    let mut client = ready(Version::V0_12);
    assert_eq!(client.session.send(ack()), not_started("SatOpLogAck"));
    client.calls(start());
    assert_eq!(client.session.send(ack()), not_started("SatOpLogAck"));
    client.hears(reply(2, started()));
    assert_eq!(client.session.send(ack()), Ok(()));
    assert_eq!(client.drain(), [sent(ack())]);
    client.calls(stop());
    client.hears(reply(3, stopped()));
    assert_eq!(client.session.send(ack()), not_started("SatOpLogAck"));
    assert_eq!(client.drain(), []);
}

#[test]
fn a_start_that_the_server_answers_with_an_error_starts_nothing() {
    let mut client = ready(Version::V0_12);
    let call = client.calls(start());
    let err = Some(ReplicationError { code: 1, message: "too old".into() });
    let answer = Reply::from(SatInStartReplicationResp { err, unacked_window_size: None });
    let cause = Cause::NotStarted { code: Code::BehindWindow, message: "too old".into() };
    let end = end(Close::NORMAL, cause);
    assert_eq!(client.hears(answer.encode(2)), [Seen::Answered(call, Ok(answer)), end]);
    assert_eq!(client.session.send(ack()), Err(SendError::Ended));
}

#[test]
fn servers_below_0_10_are_sent_no_acknowledgements_and_below_0_12_none_of_nothing() {
    for minor in 6..=12 {
        let version = Version::new(0, minor);
        let mut client = streaming(version);
        let expected = match minor {
            6..10 => Err(SendError::Unsupported { message: "SatOpLogAck", since: Version::V0_10 }),
            10..12 => Err(SendError::NotReceived { transaction_id: 0 }),
            _ => Ok(()),
        };
        assert_eq!(client.session.send(ack()), expected, "{version}");
        assert_eq!(client.drain().len(), usize::from(expected.is_ok()));
    }
}

#[test]
fn what_only_servers_send_is_not_for_a_client_to_send() {
    let mut client = streaming(Version::V0_12);
    for message in one_of_each() {
        if matches!(message, Message::OpLog(_) | Message::Relation(_) | Message::OpLogAck(_)) {
            continue;
        }
        let error = SendError::NotOurs { message: message.name() };
        assert_eq!(client.session.send(message), Err(error));
    }
    assert_eq!(client.drain(), []);
}

#[test]
fn an_error_that_is_no_answer_is_handed_out_and_the_connection_goes_on() {
    for mut client in [ready(Version::V0_12), streaming(Version::V0_12)] {
        let trouble = error(ErrorCode::ReplicationFailed).with_message("gap");
        assert_eq!(client.hears(trouble.clone()), [got(trouble)]);
        assert!(client.session.wants_input());
    }
}

/// Servers close after an error, and do not say why again.
#[test]
fn an_error_is_the_reason_of_the_close_that_follows_it() {
    let why = error(ErrorCode::InvalidRequest).with_message("replaced");
    for close in [None, Some(Close::AFTER_ERROR), Some(Close::INTERNAL)] {
        let mut client = streaming(Version::V0_12);
        client.hears(why.clone());
        assert_eq!(client.input(Input::Closed(close)), [end(None, Cause::PeerError(why.clone()))]);
    }
    // A close with a meaning of its own, or after another message, has it.
    for close in [Close::EXPIRED, Close::GOING_AWAY, Close::NORMAL] {
        let mut client = streaming(Version::V0_12);
        client.hears(why.clone());
        let seen = client.input(Input::Closed(Some(close.clone())));
        assert_eq!(seen, [end(None, Cause::Peer(Some(close)))]);
    }
    let mut client = streaming(Version::V0_12);
    client.hears(why);
    client.hears(relation(1));
    let close = Some(Close::AFTER_ERROR);
    assert_eq!(client.input(Input::Closed(close.clone())), [end(None, Cause::Peer(close))]);
}

#[test]
fn an_error_with_the_close_after_it_is_the_cause_of_the_end() {
    let trouble = error(ErrorCode::InvalidRequest).with_message("a bad value");
    let closed = |client: &mut Client, close: Close| client.input(Input::Closed(Some(close)));
    let mut client = streaming(Version::V0_12);
    client.hears(trouble.clone());
    let cause = Cause::PeerError(trouble.clone());
    assert_eq!(closed(&mut client, Close::AFTER_ERROR), [end(None, cause)]);
    // One that the server has let pass is not.
    let mut client = streaming(Version::V0_12);
    client.hears(trouble.clone());
    client.hears(relation(1));
    let cause = Cause::Peer(Some(Close::AFTER_ERROR));
    assert_eq!(closed(&mut client, Close::AFTER_ERROR), [end(None, cause)]);
    let mut client = streaming(Version::V0_12);
    client.hears(trouble);
    let cause = Cause::Peer(Some(Close::NORMAL));
    assert_eq!(closed(&mut client, Close::NORMAL), [end(None, cause)]);
}

#[test]
fn an_acknowledgement_is_not_for_a_server_to_send() {
    let mut client = streaming(Version::V0_12);
    assert_eq!(client.hears(ack()), [broken(Violation::Unexpected("SatOpLogAck"))]);
    client.is_silent_for_ever();
}

// ---- Frames, faults and ends ----

#[test]
fn undecodable_frames_are_closed_with_electrics_text_and_not_answered() {
    for frame in [&b""[..], b"rubbish", b"\x01", b"\x15\xff\xff", b"\x09\x0a\x05\x01", b"\xff"] {
        for mut client in [asking(Version::V0_12), streaming(Version::V0_12)] {
            let seen = client.frame(frame);
            let [Seen::End(End { close, cause })] = &seen[..] else { panic!("{seen:?}") };
            assert_eq!(*close, Some(Close::UNDECODABLE));
            assert!(matches!(cause, Cause::Violation(Violation::Frame(_))), "{cause:?}");
            client.is_silent_for_ever();
        }
    }
    let seen = asking(Version::V0_12).frame(Bytes::new());
    assert_eq!(seen, [broken(Violation::Frame(FrameError::Empty))]);
}

#[test]
fn faults_of_the_websocket_are_closed_with_their_codes() {
    for (fault, code) in [
        (Fault::Text, 1003),
        (Fault::NotUtf8, 1007),
        (Fault::TooLarge, 1009),
        (Fault::Protocol, 1002),
    ] {
        for mut client in [asking(Version::V0_12), streaming(Version::V0_12)] {
            let seen = client.input(Input::Fault(fault));
            let [Seen::End(End { close: Some(close), .. })] = &seen[..] else { panic!("{seen:?}") };
            assert_eq!(close.code, code);
            assert_eq!(seen, [broken(Violation::WebSocket(fault))]);
            client.is_silent_for_ever();
        }
    }
}

#[test]
fn a_server_that_goes_is_not_closed_again() {
    for close in [None, Some(Close::GOING_AWAY), Some(Close::new(4000, "JWT-expired"))] {
        for mut client in [asking(Version::V0_12), streaming(Version::V0_12)] {
            let seen = client.input(Input::Closed(close.clone()));
            assert_eq!(seen, [end(None, Cause::Peer(close.clone()))]);
            client.is_silent_for_ever();
        }
    }
}

#[test]
fn this_end_may_close_at_any_time_with_or_without_an_error() {
    for mut client in [asking(Version::V0_12), ready(Version::V0_12), streaming(Version::V0_12)] {
        client.session.close(None, Close::NORMAL);
        assert_eq!(client.drain(), [end(Close::NORMAL, Cause::Local)]);
        client.is_silent_for_ever();
    }
    let mut client = streaming(Version::V0_12);
    let why = error(ErrorCode::Internal);
    client.session.close(Some(why.clone()), Close::AFTER_ERROR);
    assert_eq!(client.drain(), [sent(why), end(Close::AFTER_ERROR, Cause::Local)]);
}

#[test]
fn after_the_end_nothing_is_sent_called_or_answered() {
    let mut client = streaming(Version::V0_12);
    client.session.close(None, Close::NORMAL);
    client.drain();
    assert_eq!(client.session.send(relation(1).into()), Err(SendError::Ended));
    assert_eq!(client.session.call(start().into()), Err(SendError::Ended));
    client.session.forget(CallId { method: Method::StartReplication, request_id: 2 });
    client.is_silent_for_ever();
}

// ---- For every sequence ----

proptest! {
    #[test]
    fn whatever_a_server_sends_nothing_reaches_anyone_before_the_client_is_let_in(
        frames in vec(any_frame(), 1..12),
    ) {
        let mut client = asking(Version::V0_12);
        for frame in frames {
            if client.session.deadline().is_none() {
                break;
            }
            let seen = client.frame(frame.clone());
            let welcomed = matches!(seen[..], [Seen::Authenticated(_)]);
            prop_assert!(
                welcomed || matches!(seen[..], [Seen::Stray(..)] | [Seen::End(_)]),
                "{frame:?}: {seen:?}"
            );
            prop_assert!(welcomed || client.session.call(start().into()).is_err());
        }
    }

    #[test]
    fn whatever_happens_the_promises_hold(
        opening in prop_oneof![1 => 0..5_usize, 3 => Just(5)],
        steps in vec(step(), 1..60),
    ) {
        let mut run = Run::new();
        for step in opening_of(opening).chain(steps) {
            run.take(step);
        }
        run.finish();
    }
}

/// Something that may happen to a session, on either side of it.
#[derive(Clone, Debug)]
enum Step {
    Frame(Bytes),
    /// The server lets the client in.
    Welcome,
    /// A call of the server, with a number of its own.
    Called(Request),
    /// A reply of the server to one of our calls, if there are so many, else to none.
    Replied {
        which: usize,
        well: bool,
    },
    Fault(Fault),
    Closed,
    Wait(Duration),
    Send(Message),
    Call(Request),
    Forget(usize),
    Answer {
        which: usize,
        well: bool,
    },
    Close(bool),
}

/// What a well-behaved server does first. Most of what may happen comes after it.
fn opening_of(length: usize) -> impl Iterator<Item = Step> {
    let opening = [
        Step::Welcome,
        Step::Call(start().into()),
        Step::Replied { which: 0, well: true },
        Step::Called(start().into()),
        Step::Answer { which: 0, well: true },
    ];
    opening.into_iter().take(length)
}

/// Mostly what keeps a connection alive, so that long sequences are tried.
fn step() -> impl Strategy<Value = Step> {
    let requests = select(vec![start().into(), stop().into(), subscribe("s").into()]);
    let well = prop::bool::weighted(0.9);
    let seconds = prop_oneof![9 => 0..2_u64, 1 => 0..20_u64];
    prop_oneof![
        1 => any_frame().prop_map(Step::Frame),
        5 => Just(Step::Welcome),
        20 => requests.clone().prop_map(Step::Called),
        20 => (0..6_usize, well).prop_map(|(which, well)| Step::Replied { which, well }),
        1 => select(vec![Fault::Text, Fault::TooLarge]).prop_map(Step::Fault),
        1 => Just(Step::Closed),
        5 => seconds.prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
        20 => select(one_of_each()).prop_map(Step::Send),
        20 => requests.prop_map(Step::Call),
        4 => (0..4_usize).prop_map(Step::Forget),
        20 => (0..4_usize, well).prop_map(|(which, well)| Step::Answer { which, well }),
        1 => any::<bool>().prop_map(Step::Close),
    ]
}

/// A session and what was promised about it.
struct Run {
    client: Client,
    next_id: u32,
    /// Our calls, and how many answers each has had.
    calls: Vec<(CallId, u32)>,
    forgotten: Vec<CallId>,
    /// The server's calls that are answered.
    answers: Vec<u32>,
    let_in: bool,
    /// A positive answer to a startReplication has gone this way or that.
    ever_sending: bool,
    ever_receiving: bool,
    ended: bool,
}

impl Run {
    fn new() -> Run {
        Run {
            client: asking(Version::V0_12),
            // Numbers that the arbitrary frames do not use.
            next_id: 100,
            calls: vec![],
            forgotten: vec![],
            answers: vec![],
            let_in: false,
            ever_sending: false,
            ever_receiving: false,
            ended: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Frame(frame) => self.frame(frame),
            Step::Welcome => self.frame(reply(1, welcome()).encode()),
            Step::Called(request) => {
                self.next_id += 1;
                self.frame(call(self.next_id, request).encode());
            }
            Step::Replied { which, well } => {
                let stray = CallId { method: Method::Subscribe, request_id: 1000 };
                let call = self.calls.get(which).map_or(stray, |(call, _)| *call);
                self.ever_receiving |= well && call.method == Method::StartReplication;
                self.frame(answer_of_server(call, well).encode());
            }
            Step::Fault(fault) => self.input(Input::Fault(fault)),
            Step::Closed => self.input(Input::Closed(None)),
            Step::Wait(time) => {
                self.client.now += time;
                self.input(Input::Timeout);
            }
            Step::Send(message) => {
                let allowed = match message {
                    Message::OpLog(_) | Message::Relation(_) => self.ever_sending,
                    Message::OpLogAck(_) => self.ever_receiving,
                    _ => false,
                };
                let sent = self.client.session.send(message);
                assert!(sent.is_err() || (allowed && !self.ended));
            }
            Step::Call(request) => {
                if let Ok(call) = self.client.session.call(request) {
                    assert!(self.let_in && !self.ended);
                    assert_eq!(call.request_id as usize, self.calls.len() + 2);
                    self.calls.push((call, 0));
                }
            }
            Step::Forget(which) => {
                if let Some((call, _)) = self.calls.get(which).copied() {
                    self.client.session.forget(call);
                    self.forgotten.push(call);
                }
            }
            Step::Answer { which, well } => self.answer(which, well),
            Step::Close(with_error) => {
                let why = with_error.then(|| error(ErrorCode::Internal));
                self.client.session.close(why, Close::NORMAL);
            }
        }
        self.drain();
    }

    fn frame(&mut self, frame: Bytes) {
        let input = Input::Binary(frame.clone().into());
        match self.client.session.handle_input(self.client.now, input) {
            Ok(()) => assert!(!self.ended),
            Err(Input::Binary(back)) => assert!(self.ended && back.0 == frame),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn input(&mut self, input: Input) {
        assert!(self.client.session.handle_input(self.client.now, input).is_ok());
    }

    fn answer(&mut self, which: usize, well: bool) {
        let Some(question) = self.client.questions.remove(which) else { return };
        let answer = match (well, question.method()) {
            (false, _) => Err(error(ErrorCode::Internal)),
            (true, Method::StartReplication) => Ok(started().into()),
            (true, Method::StopReplication) => Ok(stopped().into()),
            (true, other) => panic!("no call for a client: {other}"),
        };
        self.ever_sending |= well && question.method() == Method::StartReplication;
        let answered = self.client.session.answer(question, answer);
        assert_eq!(answered, if self.ended { Err(SendError::Ended) } else { Ok(()) });
    }

    fn drain(&mut self) {
        for seen in self.client.drain() {
            assert!(!self.ended, "after the end: {seen:?}");
            match seen {
                Seen::Sent(Message::Response(answer)) if answer.request_id >= 100 => {
                    assert!(!self.answers.contains(&answer.request_id), "answered once");
                    self.answers.push(answer.request_id);
                }
                Seen::Authenticated(_) => {
                    assert!(!self.let_in, "authenticated once");
                    self.let_in = true;
                }
                Seen::Got(_) | Seen::Called(_) => assert!(self.let_in),
                Seen::Answered(call, _) => {
                    let made = self.calls.iter_mut().find(|(made, _)| *made == call);
                    made.unwrap().1 += 1;
                }
                Seen::Asked { .. } => panic!("a client has nothing to ask"),
                Seen::Sent(_) | Seen::Stray(..) => {}
                Seen::End(_) => self.ended = true,
            }
        }
    }

    /// It ends, and then the accounts are balanced.
    fn finish(mut self) {
        self.input(Input::Closed(None));
        self.drain();
        assert!(self.ended);
        for (call, answers) in &self.calls {
            match self.forgotten.contains(call) {
                true => assert!(*answers <= 1, "{call:?}"),
                false => assert_eq!(*answers, 1, "{call:?}"),
            }
        }
        for which in (0..self.client.questions.len()).rev() {
            self.answer(which, true);
        }
        self.drain();
        self.client.is_silent_for_ever();
    }
}

fn answer_of_server(CallId { method, request_id }: CallId, well: bool) -> Message {
    match (well, method) {
        (false, method) => refused(method, request_id, ErrorCode::Internal),
        (true, Method::StartReplication) => reply(request_id, started()),
        (true, Method::StopReplication) => reply(request_id, stopped()),
        (true, Method::Subscribe) => reply(request_id, subscribed("s")),
        (true, _) => panic!("a client calls these only"),
    }
}
