//! Conversations with a server's session: no socket, no task, and the clock is an argument.

mod common;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::*;
use electric_satellite::{
    session::{
        AuthChangePolicy, AuthRequest, CallError, CallId, Cause, Close, End, Fault, Identity,
        Input, Limit, Refusal, SendError, ServerSession, Session, Subject, Verified, Violation,
    },
    wire::{
        FrameError, Message, Method, Reply, ReplyError, Request, RequestError, Version, proto::*,
        refusal,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};
use sat_error_resp::ErrorCode;
use sat_in_start_replication_resp::{ReplicationError, replication_error};

type Server = Table<ServerSession>;

/// A client has connected, and nothing more.
fn connected(version: Version) -> Server {
    let now = Instant::now();
    Table::new(now, ServerSession::new(now, AUTH_TIMEOUT, version, "server-1"))
}

/// It has presented its token, and the verdict is out.
fn asking(version: Version) -> Server {
    let mut server = connected(version);
    server.hears_call(1, auth("client-1", "token-1"));
    server
}

/// It is authenticated, as user-1.
fn ready(version: Version) -> Server {
    let mut server = asking(version);
    resolve(&mut server, Ok(()));
    server
}

/// The same, where clients may go on with other tokens.
fn renewable() -> Server {
    let now = Instant::now();
    let session = ServerSession::new(now, AUTH_TIMEOUT, Version::V0_12, "server-1")
        .with_auth_changes(AuthChangePolicy::RenewSameIdentity);
    let mut server = Table::new(now, session);
    server.hears_call(1, auth("client-1", "token-1"));
    resolve(&mut server, Ok(()));
    server
}

/// Its startReplication is answered.
fn streaming(version: Version) -> Server {
    let mut server = ready(version);
    server.hears_call(2, start());
    server.answers(started());
    server
}

/// The verdict comes.
fn resolve(server: &mut Server, verdict: Result<(), Refusal>) -> Vec<Seen> {
    let request = server.asked.take().expect("the question is out");
    server.session.resolve(request, verdict.map(|()| verified("user-1")));
    server.drain()
}

/// What follows a client's call that breaks a rule.
fn refused_and_closed(
    (method, request_id): (Method, u32),
    code: ErrorCode,
    violation: Violation,
) -> [Seen; 2] {
    [sent(refused(method, request_id, code)), end(Close::AFTER_ERROR, Cause::Violation(violation))]
}

/// An error that answers no call, and the close.
fn error_and_closed(code: ErrorCode, violation: Violation) -> [Seen; 2] {
    [sent(error(code)), end(Close::AFTER_ERROR, Cause::Violation(violation))]
}

fn envelope(method: &str, request_id: u32, message: &'static [u8]) -> SatRpcRequest {
    SatRpcRequest { method: method.into(), request_id, message: Bytes::from_static(message) }
}

fn every_request() -> Vec<Request> {
    vec![
        auth("client-1", "token-1").into(),
        start().into(),
        stop().into(),
        subscribe("s").into(),
        SatUnsubsReq::default().into(),
    ]
}

// ---- Before authentication ----

#[test]
fn a_client_is_asked_about_and_let_in() {
    let mut server = connected(Version::V0_12);
    assert_eq!(server.drain(), []);
    let asked = Seen::Asked { client_id: "client-1".into(), token: "token-1".into() };
    assert_eq!(server.hears_call(7, auth("client-1", "token-1")), [asked]);
    assert_eq!(server.asked.as_ref().map(AuthRequest::version), Some(Version::V0_12));
    assert!(server.session.client().is_none());

    let welcome = SatAuthResp { id: "server-1".into(), headers: vec![] };
    let seen = resolve(&mut server, Ok(()));
    assert_eq!(seen, [sent(reply(7, welcome)), Seen::Authenticated("client-1 as user-1".into())]);
    assert_eq!(server.session.client().unwrap().client_id, id("client-1"));
    assert_eq!(server.session.deadline(), None);
}

#[test]
fn every_call_but_authenticate_is_refused_before_authentication() {
    for request in every_request() {
        let method = request.method();
        if method == Method::Authenticate {
            continue;
        }
        let mut server = connected(Version::V0_12);
        let subject = Subject::Call { method, request_id: 5 };
        assert_eq!(
            server.hears_call(5, request),
            refused_and_closed(
                (method, 5),
                ErrorCode::AuthRequired,
                Violation::Unauthenticated(subject)
            )
        );
        server.is_silent_for_ever();
    }
}

#[test]
fn every_message_but_a_call_is_refused_before_authentication() {
    for message in one_of_each() {
        if matches!(message, Message::Request(_) | Message::Error(_)) {
            continue;
        }
        let mut server = connected(Version::V0_12);
        let subject = Subject::Message(message.name());
        assert_eq!(
            server.hears(message),
            error_and_closed(ErrorCode::AuthRequired, Violation::Unauthenticated(subject))
        );
        server.is_silent_for_ever();
    }
}

#[test]
fn nothing_can_be_sent_or_called_before_authentication() {
    for mut server in [connected(Version::V0_12), asking(Version::V0_12)] {
        for message in one_of_each() {
            assert_eq!(server.session.send(message), Err(SendError::Unauthenticated));
        }
        for request in every_request() {
            assert_eq!(server.session.call(request), Err(SendError::Unauthenticated));
        }
        assert_eq!(server.drain(), []);
    }
}

#[test]
fn an_answer_to_another_connections_call_is_not_sent_before_authentication() {
    let mut elsewhere = ready(Version::V0_12);
    elsewhere.hears_call(2, start());
    let question = elsewhere.questions.pop_front().unwrap();
    let mut server = connected(Version::V0_12);
    let answered = server.session.answer(question, Ok(started().into()));
    assert_eq!(answered, Err(SendError::Unauthenticated));
    assert_eq!(server.drain(), []);
}

#[test]
fn an_auth_request_without_a_client_id_is_invalid() {
    let mut server = connected(Version::V0_12);
    assert_eq!(
        server.hears_call(3, auth("", "token-1")),
        refused_and_closed(
            (Method::Authenticate, 3),
            ErrorCode::InvalidRequest,
            Violation::EmptyClientId { request_id: 3 }
        )
    );
}

#[test]
fn an_auth_request_without_a_token_is_invalid() {
    let mut server = connected(Version::V0_12);
    assert_eq!(
        server.hears_call(3, auth("client-1", "")),
        refused_and_closed(
            (Method::Authenticate, 3),
            ErrorCode::InvalidRequest,
            Violation::EmptyToken { request_id: 3 }
        )
    );
}

#[test]
fn any_client_id_but_the_empty_one_is_asked_about_verbatim() {
    for client_id in [" ", "\0", "ключ", "a\nb", "not-a-uuid"] {
        let mut server = connected(Version::V0_12);
        let asked = Seen::Asked { client_id: client_id.into(), token: " ".into() };
        assert_eq!(server.hears_call(1, auth(client_id, " ")), [asked]);
    }
}

// ---- The verdict ----

#[test]
fn what_is_pipelined_behind_a_pending_verdict_comes_back_and_is_served_afterwards() {
    let mut server = asking(Version::V0_12);
    assert!(!server.session.wants_input());
    let pipelined = call(2, start()).encode();
    for _ in 0..3 {
        let input = Input::Binary(pipelined.clone().into());
        let back = server.session.handle_input(server.now, input);
        assert!(matches!(back, Err(Input::Binary(frame)) if frame.0 == pipelined));
        assert_eq!(server.drain(), []);
    }
    resolve(&mut server, Ok(()));
    assert!(server.session.wants_input());
    assert_eq!(server.frame(pipelined), [called(start())]);
}

#[test]
fn even_rubbish_comes_back_while_the_verdict_is_pending() {
    let mut server = asking(Version::V0_12);
    let back = server.session.handle_input(server.now, Input::Binary(Bytes::new().into()));
    assert!(matches!(back, Err(Input::Binary(frame)) if frame.0.is_empty()));
    assert_eq!(server.drain(), []);
}

#[test]
fn a_refusal_is_answered_coarsely_and_closed() {
    for (why, text) in [
        (Refusal::Malformed, "malformed token"),
        (Refusal::Signature, "invalid token signature"),
        (Refusal::Expired, "expired token"),
        (Refusal::NotYetValid, "token is not yet valid"),
        (Refusal::Used, "token was used before"),
        (Refusal::Revoked, "token is revoked"),
        (Refusal::Claims, "token claims are not acceptable"),
        // Without a word, as by the original.
        (Refusal::Occupied, ""),
    ] {
        let mut server = connected(Version::V0_12);
        server.hears_call(9, auth("client-1", "token-1"));
        let seen = resolve(&mut server, Err(why));
        let told = match text {
            "" => error(ErrorCode::InvalidRequest),
            text => error(ErrorCode::AuthRequired).with_message(text),
        };
        let answer = refusal("authenticate", 9, told);
        assert_eq!(seen, [sent(answer), end(Close::AFTER_ERROR, Cause::Refused(why))]);
        assert!(server.session.client().is_none());
        server.is_silent_for_ever();
    }
}

#[test]
fn an_authenticator_that_cannot_tell_closes_without_an_answer() {
    let mut server = asking(Version::V0_12);
    let seen = resolve(&mut server, Err(Refusal::Unavailable));
    assert_eq!(seen, [end(Close::INTERNAL, Cause::Refused(Refusal::Unavailable))]);
    server.is_silent_for_ever();
}

#[test]
fn a_client_that_closes_while_the_verdict_is_pending_is_gone_and_a_late_verdict_changes_nothing() {
    let mut server = asking(Version::V0_12);
    let close = Some(Close::GOING_AWAY);
    assert_eq!(server.input(Input::Closed(close.clone())), [end(None, Cause::Peer(close))]);
    assert_eq!(resolve(&mut server, Ok(())), []);
    assert!(server.session.client().is_none());
    server.is_silent_for_ever();
}

#[test]
fn a_fault_while_the_verdict_is_pending_ends_the_session_and_a_late_verdict_changes_nothing() {
    let mut server = asking(Version::V0_12);
    let seen = server.input(Input::Fault(Fault::Protocol));
    assert_eq!(seen, [broken(Violation::WebSocket(Fault::Protocol))]);
    assert_eq!(resolve(&mut server, Ok(())), []);
    server.is_silent_for_ever();
}

#[test]
fn a_verdict_on_a_session_that_has_not_asked_changes_nothing() {
    let mut elsewhere = asking(Version::V0_12);
    let mut server = connected(Version::V0_12);
    server.session.resolve(elsewhere.asked.take().unwrap(), Ok(verified("user-1")));
    assert_eq!(server.drain(), []);
    assert!(server.session.client().is_none());

    let mut elsewhere = asking(Version::V0_12);
    let mut server = ready(Version::V0_12);
    server.session.resolve(elsewhere.asked.take().unwrap(), Ok(verified("user-2")));
    assert_eq!(server.drain(), []);
    assert_eq!(server.session.client().unwrap().verified, verified("user-1"));
}

// ---- The deadline ----

#[test]
fn the_deadline_counts_from_the_connection_and_the_auth_request_does_not_move_it() {
    let mut server = connected(Version::V0_12);
    let deadline = server.now + AUTH_TIMEOUT;
    assert_eq!(server.session.deadline(), Some(deadline));
    server.now += AUTH_TIMEOUT / 2;
    server.hears_call(1, auth("client-1", "token-1"));
    assert_eq!(server.session.deadline(), Some(deadline));
}

#[test]
fn the_deadline_is_over_when_it_is_reached_and_not_before() {
    for mut server in [connected(Version::V0_12), asking(Version::V0_12)] {
        let start = server.now;
        for early in [Duration::ZERO, AUTH_TIMEOUT - Duration::from_nanos(1)] {
            server.now = start + early;
            assert_eq!(server.input(Input::Timeout), [], "{early:?}");
        }
        server.now = start + AUTH_TIMEOUT;
        let close = Close::new(4408, "Authentication timeout");
        let seen = server.input(Input::Timeout);
        assert_eq!(seen, [end(close, Cause::Violation(Violation::AuthTimeout))]);
        server.is_silent_for_ever();
    }
}

#[test]
fn a_verdict_after_the_deadline_changes_nothing() {
    let mut server = asking(Version::V0_12);
    server.now += AUTH_TIMEOUT;
    assert_eq!(server.input(Input::Timeout), [broken(Violation::AuthTimeout)]);
    assert_eq!(resolve(&mut server, Ok(())), []);
    assert!(server.session.client().is_none());
    server.is_silent_for_ever();
}

#[test]
fn a_dropped_question_leaves_the_deadline_which_refuses() {
    let mut server = asking(Version::V0_12);
    drop(server.asked.take());
    assert!(!server.session.wants_input());
    server.now += AUTH_TIMEOUT;
    assert_eq!(server.input(Input::Timeout), [broken(Violation::AuthTimeout)]);
}

#[test]
fn a_renewal_has_a_deadline_of_its_own_which_refuses() {
    let mut server = renewable();
    assert_eq!(server.session.deadline(), None);

    server.now += 3 * AUTH_TIMEOUT;
    server.hears_call(2, auth("client-1", "token-2"));
    // However it comes that nobody decides.
    drop(server.asked.take());
    assert_eq!(server.session.deadline(), Some(server.now + AUTH_TIMEOUT));
    assert_eq!(server.input(Input::Timeout), []);
    server.now += AUTH_TIMEOUT;
    assert_eq!(server.input(Input::Timeout), renewal_refused());
    server.is_silent_for_ever();
}

/// What a client is told whose second auth request, number 2, is refused.
fn renewal_refused() -> [Seen; 2] {
    refused_and_closed(
        (Method::Authenticate, 2),
        ErrorCode::InvalidRequest,
        Violation::AlreadyAuthenticated { request_id: 2 },
    )
}

#[test]
fn a_connection_ends_at_its_earliest_limit_and_as_that_one_says() {
    const SECOND: Duration = Duration::from_secs(1);
    let expired = || end(Close::new(4000, "JWT-expired"), Cause::Expired);
    let too_old = || end(Close::new(1001, "Maximum connection age reached"), Cause::TooOld);
    // How many seconds there are until the token expires, the connection is too old, and a renewal
    // that begins now has had its time.
    let auth_timeout = AUTH_TIMEOUT.as_secs();
    for (expiry, age, renews, ends_after, as_it_says) in [
        (Some(5), None, false, 5, vec![expired()]),
        (None, Some(5), false, 5, vec![too_old()]),
        (Some(5), Some(6), false, 5, vec![expired()]),
        (Some(6), Some(5), false, 5, vec![too_old()]),
        (Some(5), Some(5), false, 5, vec![expired()]),
        (None, None, true, auth_timeout, renewal_refused().into()),
        (Some(5), None, true, 5, vec![expired()]),
        (None, Some(5), true, 5, vec![too_old()]),
        (Some(100), None, true, auth_timeout, renewal_refused().into()),
        (Some(100), Some(100), true, auth_timeout, renewal_refused().into()),
        (Some(auth_timeout), None, true, auth_timeout, vec![expired()]),
    ] {
        let mut server = renewable();
        let after = |seconds: u64| seconds as u32 * SECOND;
        for (limit, seconds) in [(Limit::Expiry, expiry), (Limit::Age, age)] {
            seconds.into_iter().for_each(|s| server.session.limit(server.now + after(s), limit));
        }
        if renews {
            server.hears_call(2, auth("client-1", "token-2"));
        }
        let over = server.now + after(ends_after);
        assert_eq!(server.session.deadline(), Some(over));
        server.now = over - Duration::from_nanos(1);
        assert_eq!(server.input(Input::Timeout), []);
        server.now = over;
        assert_eq!(server.input(Input::Timeout), as_it_says, "{expiry:?} {age:?} {renews}");
        server.is_silent_for_ever();
    }
}

#[test]
fn a_renewal_moves_the_expiry_and_nothing_else() {
    let mut server = renewable();
    let [first, second, too_old] = [1, 2, 3].map(|n| server.now + n * AUTH_TIMEOUT);
    server.session.limit(first, Limit::Expiry);
    server.session.limit(too_old, Limit::Age);
    for expires in [Some(second), None] {
        server.hears_call(2, auth("client-1", "token-2"));
        assert!(!server.session.wants_input());
        // Another identity of the same user, as that of a later token is.
        let mut identity = Identity::new("user-1");
        identity.token_id = Some("token-2".into());
        let verdict = Ok(Verified::vouched_for_by_authenticator(identity));
        server.session.renew(server.asked.take().unwrap(), verdict, expires);
        let welcome = SatAuthResp { id: "server-1".into(), headers: vec![] };
        assert_eq!(server.drain(), [sent(reply(2, welcome))]);
        assert_eq!(server.session.client().unwrap().verified, verified("user-1"));
        assert_eq!(server.session.deadline(), Some(expires.unwrap_or(too_old)));
        assert!(server.session.wants_input());
    }
}

#[test]
fn a_renewal_is_for_the_same_client_and_user_and_only_where_one_was_asked_for() {
    let mut server = renewable();
    assert_eq!(server.hears_call(2, auth("client-2", "token-2")), renewal_refused());

    for verdict in [Ok(verified("user-2")), Err(Refusal::Expired), Err(Refusal::Unavailable)] {
        let mut server = renewable();
        server.hears_call(2, auth("client-1", "token-2"));
        server.session.renew(server.asked.take().unwrap(), verdict, None);
        assert_eq!(server.drain(), renewal_refused());
        server.is_silent_for_ever();
    }

    // A question of another connection.
    let mut elsewhere = connected(Version::V0_12);
    elsewhere.hears_call(2, auth("client-1", "token-2"));
    let mut server = renewable();
    let request = elsewhere.asked.take().unwrap();
    server.session.renew(request, Ok(verified("user-1")), None);
    assert_eq!(server.drain(), renewal_refused());

    // A verdict that comes too late.
    let mut server = renewable();
    server.hears_call(2, auth("client-1", "token-2"));
    server.input(Input::Closed(None));
    server.session.renew(server.asked.take().unwrap(), Ok(verified("user-1")), None);
    assert_eq!(server.drain(), []);
}

#[test]
fn an_authenticated_client_has_no_deadline() {
    let mut server = ready(Version::V0_12);
    server.now += 1000 * AUTH_TIMEOUT;
    assert_eq!(server.input(Input::Timeout), []);
    assert_eq!(server.hears_call(2, start()), [called(start())]);
}

// ---- Who is connected does not change ----

#[test]
fn a_second_auth_request_is_refused_whatever_it_holds_and_the_identity_stays() {
    for second in [
        auth("client-1", "token-1"),
        auth("client-1", "token-2"),
        auth("client-2", "token-1"),
        auth("client-2", "token-2"),
        auth("", ""),
        auth("client-1", ""),
        auth("", "token-1"),
    ] {
        for mut server in [ready(Version::V0_12), streaming(Version::V0_12)] {
            assert_eq!(server.session.client().unwrap().verified, verified("user-1"));
            assert_eq!(
                server.hears_call(8, second.clone()),
                refused_and_closed(
                    (Method::Authenticate, 8),
                    ErrorCode::InvalidRequest,
                    Violation::AlreadyAuthenticated { request_id: 8 }
                )
            );
            assert!(server.asked.is_none());
            server.is_silent_for_ever();
        }
    }
}

#[test]
fn a_second_auth_request_that_cannot_be_decoded_is_refused_too() {
    let mut server = ready(Version::V0_12);
    let seen = server.hears(envelope("authenticate", 8, b"\xff"));
    assert_matches_bad_request(&seen, Method::Authenticate, 8);
    server.is_silent_for_ever();
}

// ---- Calls of the client ----

#[test]
fn calls_are_handed_out_in_order_and_their_answers_carry_method_and_number() {
    let mut server = ready(Version::V0_12);
    assert_eq!(server.hears_call(2, start()), [called(start())]);
    assert_eq!(server.hears_call(2, subscribe("a")), [called(subscribe("a"))]);
    let unsubscribe = SatUnsubsReq { subscription_ids: vec!["a".into()] };
    assert_eq!(server.hears_call(u32::MAX, unsubscribe.clone()), [called(unsubscribe)]);
    assert_eq!(server.hears_call(0, stop()), [called(stop())]);

    assert_eq!(server.answers(started()), [sent(reply(2, started()))]);
    assert_eq!(server.answers(subscribed("a")), [sent(reply(2, subscribed("a")))]);
    assert_eq!(server.answers(SatUnsubsResp {}), [sent(reply(u32::MAX, SatUnsubsResp {}))]);
    assert_eq!(server.answers(stopped()), [sent(reply(0, stopped()))]);
}

#[test]
fn calls_may_be_answered_in_another_order() {
    let mut server = ready(Version::V0_12);
    server.hears_call(2, subscribe("a"));
    server.hears_call(3, subscribe("b"));
    server.questions.swap(0, 1);
    assert_eq!(server.answers(subscribed("b")), [sent(reply(3, subscribed("b")))]);
    assert_eq!(server.answers(subscribed("a")), [sent(reply(2, subscribed("a")))]);
}

#[test]
fn the_reply_of_another_method_is_not_sent() {
    let mut server = ready(Version::V0_12);
    server.hears_call(2, start());
    let question = server.questions.pop_front().unwrap();
    let answered = server.session.answer(question, Ok(stopped().into()));
    assert_eq!(answered, Err(SendError::NotOurs { message: "stopReplication" }));
    assert_eq!(server.drain(), []);
}

#[test]
fn a_refused_call_is_answered_and_closed() {
    for request in [start().into(), subscribe("a").into(), SatUnsubsReq::default().into()] {
        let request: Request = request;
        let method = request.method();
        let mut server = ready(Version::V0_12);
        server.hears_call(4, request);
        let why = error(ErrorCode::ReplicationFailed).with_message("no");
        let answer = refusal(method.as_str(), 4, why.clone());
        let cause = Cause::CallRefused { method, error: "REPLICATION_FAILED: no".into() };
        assert_eq!(server.refuses(why), [sent(answer), end(Close::AFTER_ERROR, cause)]);
        server.is_silent_for_ever();
    }
}

#[test]
fn a_start_that_is_answered_with_an_error_of_its_own_is_closed_as_well() {
    let mut server = ready(Version::V0_12);
    server.hears_call(4, start());
    let code = replication_error::Code::BehindWindow.into();
    let err = Some(ReplicationError { code, message: "too old".into() });
    let answer = SatInStartReplicationResp { err, unacked_window_size: None };
    let cause = Cause::CallRefused { method: Method::StartReplication, error: "too old".into() };
    assert_eq!(
        server.answers(answer.clone()),
        [sent(reply(4, answer)), end(Close::AFTER_ERROR, cause)]
    );
}

#[test]
fn a_subscription_that_is_answered_with_an_error_of_its_own_leaves_the_connection_open() {
    let mut server = ready(Version::V0_12);
    server.hears_call(4, subscribe("a"));
    let err = Some(sat_subs_resp::SatSubsError { message: "no".into(), ..Default::default() });
    let answer = SatSubsResp { subscription_id: "a".into(), err };
    assert_eq!(server.answers(answer.clone()), [sent(reply(4, answer))]);
    assert!(server.session.wants_input());
}

#[test]
fn an_answer_after_the_end_is_not_sent() {
    let mut server = ready(Version::V0_12);
    server.hears_call(2, start());
    let question = server.questions.pop_front().unwrap();
    server.input(Input::Closed(None));
    assert_eq!(server.session.answer(question, Ok(started().into())), Err(SendError::Ended));
    assert_eq!(server.drain(), []);
}

fn assert_matches_bad_request(seen: &[Seen], method: Method, request_id: u32) {
    let [answer, Seen::End(End { close, cause })] = seen else { panic!("{seen:?}") };
    assert_eq!(*answer, sent(refused(method, request_id, ErrorCode::InvalidRequest)));
    assert_eq!(*close, Some(Close::AFTER_ERROR));
    let Cause::Violation(Violation::Request(error)) = cause else { panic!("{cause:?}") };
    assert!(
        matches!(error, RequestError::Body { method: m, request_id: id, .. }
            if (*m, *id) == (method, request_id)),
        "{error:?}"
    );
}

#[test]
fn the_undecodable_body_of_a_call_is_refused_by_its_number_before_and_after_authentication() {
    for method in METHODS {
        // One byte that promises more fits no message.
        for mut server in [connected(Version::V0_12), ready(Version::V0_12)] {
            let seen = server.hears(envelope(method.as_str(), 6, b"\x0a"));
            assert_matches_bad_request(&seen, method, 6);
            server.is_silent_for_ever();
        }
    }
}

#[test]
fn an_unknown_method_is_refused_by_its_name_before_and_after_authentication() {
    for name in ["", "replicate", "Authenticate", "authenticate ", "start_replication"] {
        for mut server in [connected(Version::V0_12), ready(Version::V0_12)] {
            let invalid = error(ErrorCode::InvalidRequest);
            let answer = refusal(name, 6, invalid);
            let unknown = RequestError::UnknownMethod { method: name.into(), request_id: 6 };
            let seen = server.hears(envelope(name, 6, b""));
            assert_eq!(seen, [sent(answer), broken(Violation::Request(unknown))]);
            server.is_silent_for_ever();
        }
    }
}

// ---- Starting and stopping ----

#[test]
fn a_second_start_is_refused_while_started() {
    let mut server = streaming(Version::V0_12);
    assert_eq!(
        server.hears_call(3, start()),
        refused_and_closed(
            (Method::StartReplication, 3),
            ErrorCode::InvalidRequest,
            Violation::AlreadyStarted { request_id: 3 }
        )
    );
    server.is_silent_for_ever();
}

#[test]
fn a_second_start_is_refused_while_the_first_is_not_answered() {
    let mut server = ready(Version::V0_12);
    server.hears_call(2, start());
    let seen = server.hears_call(3, start());
    assert_eq!(seen[0], sent(refused(Method::StartReplication, 3, ErrorCode::InvalidRequest)));
    assert_eq!(seen[1], broken(Violation::AlreadyStarted { request_id: 3 }));
}

#[test]
fn stopping_what_does_not_run_has_succeeded_already() {
    let mut server = ready(Version::V0_12);
    for request_id in [2, 3] {
        assert_eq!(server.hears_call(request_id, stop()), [sent(reply(request_id, stopped()))]);
    }
    assert!(server.questions.is_empty());
}

#[test]
fn a_second_stop_is_not_answered_while_the_first_has_not_stopped_the_stream() {
    let mut server = streaming(Version::V0_12);
    assert_eq!(server.hears_call(3, stop()), [called(stop())]);
    assert_eq!(server.hears_call(4, stop()), [called(stop())]);
    assert_eq!(server.session.send(relation(1).into()), Ok(()));
    assert_eq!(server.drain(), [sent(relation(1))]);
    assert_eq!(server.answers(stopped()), [sent(reply(3, stopped()))]);
    assert_not_started(&mut server);
    assert_eq!(server.answers(stopped()), [sent(reply(4, stopped()))]);
}

#[test]
fn replication_can_be_started_stopped_and_started() {
    let mut server = streaming(Version::V0_12);
    for round in 0..3 {
        assert_eq!(server.hears_call(3 + 2 * round, stop()), [called(stop())]);
        assert_eq!(server.answers(stopped()), [sent(reply(3 + 2 * round, stopped()))]);
        assert_eq!(server.hears_call(4 + 2 * round, start()), [called(start())]);
        assert_eq!(server.answers(started()), [sent(reply(4 + 2 * round, started()))]);
        assert_eq!(server.session.send(relation(1).into()), Ok(()));
        assert_eq!(server.drain(), [sent(relation(1))]);
    }
}

#[test]
fn start_stop_and_start_may_be_sent_without_waiting() {
    let mut server = ready(Version::V0_12);
    server.hears_call(2, start());
    server.hears_call(3, stop());
    server.hears_call(4, start());
    assert_eq!(server.questions.len(), 3);
    assert_eq!(server.answers(started()), [sent(reply(2, started()))]);
    assert_eq!(server.answers(stopped()), [sent(reply(3, stopped()))]);
    assert_not_started(&mut server);
    assert_eq!(server.answers(started()), [sent(reply(4, started()))]);
    assert_eq!(server.session.send(relation(1).into()), Ok(()));
}

/// Nothing of the stream can be sent.
fn assert_not_started(server: &mut Server) {
    for message in stream_of_a_server() {
        let error = SendError::NotStarted { message: message.name() };
        assert_eq!(server.session.send(message), Err(error));
    }
    assert_eq!(server.drain(), []);
}

#[test]
fn nothing_of_the_stream_is_sent_before_the_clients_start_is_answered() {
    let mut server = ready(Version::V0_12);
    assert_not_started(&mut server);
    server.hears_call(2, start());
    assert_not_started(&mut server);
    server.answers(started());
    for message in stream_of_a_server() {
        assert_eq!(server.session.send(message.clone()), Ok(()));
        assert_eq!(server.drain(), [sent(message)]);
    }
}

#[test]
fn nothing_of_the_stream_is_sent_after_a_stop_is_answered() {
    let mut server = streaming(Version::V0_12);
    server.hears_call(3, stop());
    // What was under way may still be sent.
    assert_eq!(server.session.send(relation(1).into()), Ok(()));
    server.drain();
    server.answers(stopped());
    assert_not_started(&mut server);
}

#[test]
fn a_start_that_is_answered_after_its_stop_does_not_start_the_stream() {
    let mut server = ready(Version::V0_12);
    server.hears_call(2, start());
    server.hears_call(3, stop());
    server.questions.swap(0, 1);
    server.answers(stopped());
    server.answers(started());
    assert_not_started(&mut server);
}

#[test]
fn what_is_no_message_of_the_stream_is_not_for_a_server_to_send() {
    let mut server = streaming(Version::V0_12);
    for message in one_of_each() {
        if stream_of_a_server().contains(&message) {
            continue;
        }
        let error = SendError::NotOurs { message: message.name() };
        assert_eq!(server.session.send(message), Err(error));
    }
    assert_eq!(server.drain(), []);
}

// ---- The version shapes what is sent ----

const VERSIONS: [Version; 7] = [
    Version::new(0, 6),
    Version::new(0, 7),
    Version::new(0, 8),
    Version::new(0, 9),
    Version::new(0, 10),
    Version::new(0, 11),
    Version::new(0, 12),
];

#[test]
fn clients_below_0_10_are_told_no_window() {
    for version in VERSIONS {
        let mut server = ready(version);
        server.hears_call(2, start());
        let answer = SatInStartReplicationResp { err: None, unacked_window_size: Some(30) };
        let expected = if version < Version::V0_10 { started() } else { answer.clone() };
        assert_eq!(server.answers(answer), [sent(reply(2, expected))], "{version}");
    }
}

#[test]
fn the_error_of_a_start_survives_when_the_window_is_taken_away() {
    let mut server = ready(Version::V0_6);
    server.hears_call(2, start());
    let err = Some(ReplicationError { code: 1, message: "no".into() });
    let answer = SatInStartReplicationResp { err: err.clone(), unacked_window_size: Some(30) };
    let shaped = SatInStartReplicationResp { err, unacked_window_size: None };
    assert_eq!(server.answers(answer)[0], sent(reply(2, shaped)));
}

#[test]
fn clients_below_0_12_are_not_sent_what_they_cannot_decode() {
    for version in VERSIONS {
        let mut server = streaming(version);
        for message in stream_of_a_server() {
            let name = message.name();
            let unknown = name.starts_with("SatUnsubsData") && version < Version::V0_12;
            let expected = match unknown {
                true => Err(SendError::Unsupported { message: name, since: Version::V0_12 }),
                false => Ok(()),
            };
            assert_eq!(server.session.send(message), expected, "{name} to {version}");
        }
        // What was refused left nothing behind.
        let sent = if version < Version::V0_12 { 7 } else { 9 };
        assert_eq!(server.drain().len(), sent);
    }
}

// ---- The server calls ----

#[test]
fn the_server_starts_its_own_direction_only_after_the_clients_start_is_answered() {
    let not_started = Err(SendError::NotStarted { message: "startReplication" });
    let mut server = ready(Version::V0_12);
    assert_eq!(server.session.call(start().into()), not_started);
    server.hears_call(2, start());
    assert_eq!(server.session.call(start().into()), not_started);
    server.answers(started());
    assert_eq!(server.calls(start()).request_id, 0);
    server.hears_call(3, stop());
    server.answers(stopped());
    assert_eq!(server.session.call(start().into()), not_started);
    assert_eq!(server.drain(), []);
}

#[test]
fn the_server_numbers_its_calls_from_0() {
    let mut server = streaming(Version::V0_12);
    for request_id in 0..4 {
        let call = server.calls(stop());
        assert_eq!(call, CallId { method: Method::StopReplication, request_id });
    }
}

#[test]
fn a_call_that_is_not_made_takes_no_number() {
    let mut server = ready(Version::V0_12);
    assert!(server.session.call(start().into()).is_err());
    assert!(server.session.call(subscribe("a").into()).is_err());
    assert_eq!(server.calls(stop()).request_id, 0);
}

#[test]
fn the_server_has_nothing_else_to_call() {
    let mut server = streaming(Version::V0_12);
    for request in
        [auth("client-1", "token-1").into(), subscribe("a").into(), SatUnsubsReq::default().into()]
    {
        let request: Request = request;
        let error = SendError::NotOurs { message: request.method().as_str() };
        assert_eq!(server.session.call(request), Err(error));
    }
    assert_eq!(server.drain(), []);
}

#[test]
fn replies_find_their_calls_in_any_order() {
    let mut server = streaming(Version::V0_12);
    let calls = [server.calls(start()), server.calls(stop()), server.calls(start())];
    for (call, answer) in [
        (calls[2], Reply::from(started())),
        (calls[0], SatInStartReplicationResp { err: None, unacked_window_size: Some(1) }.into()),
        (calls[1], stopped().into()),
    ] {
        let seen = server.hears(answer.encode(call.request_id));
        assert_eq!(seen, [Seen::Answered(call, Ok(answer))]);
    }
}

#[test]
fn a_reply_that_matches_no_call_in_method_and_number_is_noted_and_ignored() {
    let mut server = streaming(Version::V0_12);
    let call = server.calls(start());
    let stray = |method: &str, request_id| [Seen::Stray(method.into(), request_id)];
    assert_eq!(server.hears(reply(0, stopped())), stray("stopReplication", 0));
    assert_eq!(server.hears(reply(1, started())), stray("startReplication", 1));
    let refusal = refused(Method::Subscribe, 0, ErrorCode::Internal);
    assert_eq!(server.hears(refusal), stray("subscribe", 0));
    assert_eq!(server.hears(SatRpcResponse::default()), stray("", 0));
    // The call waits still, is answered once, and then no more.
    let answered = Seen::Answered(call, Ok(started().into()));
    assert_eq!(server.hears(reply(0, started())), [answered]);
    assert_eq!(server.hears(reply(0, started())), stray("startReplication", 0));
}

#[test]
fn the_reply_to_a_forgotten_call_is_a_stray() {
    let mut server = streaming(Version::V0_12);
    let call = server.calls(start());
    server.session.forget(call);
    assert_eq!(server.drain(), []);
    let stray = Seen::Stray("startReplication".into(), 0);
    assert_eq!(server.hears(refused(call.method, 0, ErrorCode::Internal)), [stray]);
    // Its number is not used again.
    assert_eq!(server.calls(start()).request_id, 1);
}

#[test]
fn a_client_that_refuses_a_call_is_told_and_closed() {
    let mut server = streaming(Version::V0_12);
    let call = server.calls(start());
    let refusal = ReplyError::Refused(error(ErrorCode::ReplicationFailed));
    let seen = server.hears(refused(call.method, 0, ErrorCode::ReplicationFailed));
    let [answered, rest @ ..] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(*answered, Seen::Answered(call, Err(CallError::Reply(refusal.clone()))));
    let bad = Violation::BadReply { method: call.method, error: refusal };
    assert_eq!(rest, error_and_closed(ErrorCode::InvalidRequest, bad));
    server.is_silent_for_ever();
}

#[test]
fn a_reply_without_a_result_or_with_an_undecodable_one_is_treated_like_a_refusal() {
    use sat_rpc_response::Result::Message as Body;
    for result in [None, Some(Body(Bytes::from_static(b"\x0a")))] {
        let mut server = streaming(Version::V0_12);
        let call = server.calls(start());
        let method = call.method.as_str().into();
        let seen = server.hears(SatRpcResponse { method, request_id: 0, result });
        let [Seen::Answered(answered, Err(CallError::Reply(error))), rest @ ..] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(*answered, call);
        let bad = Violation::BadReply { method: call.method, error: error.clone() };
        assert_eq!(rest, error_and_closed(ErrorCode::InvalidRequest, bad));
    }
}

#[test]
fn the_start_error_of_a_client_is_a_positive_reply_and_the_connection_goes_on() {
    let mut server = streaming(Version::V0_12);
    let call = server.calls(start());
    let err = Some(ReplicationError { code: 5, message: "no".into() });
    let answer = Reply::from(SatInStartReplicationResp { err, unacked_window_size: None });
    assert_eq!(server.hears(answer.encode(0)), [Seen::Answered(call, Ok(answer))]);
    assert!(server.session.wants_input());
}

#[test]
fn calls_that_wait_when_it_ends_learn_it_before_the_end() {
    let mut server = streaming(Version::V0_12);
    let calls = [server.calls(start()), server.calls(stop())];
    let seen = server.input(Input::Closed(None));
    assert_eq!(
        seen,
        [
            Seen::Answered(calls[0], Err(CallError::Ended)),
            Seen::Answered(calls[1], Err(CallError::Ended)),
            end(None, Cause::Peer(None))
        ]
    );
}

// ---- Messages of the client ----

#[test]
fn changes_relations_and_acknowledgements_are_handed_out_as_they_came() {
    let mut server = ready(Version::V0_12);
    let ack = SatOpLogAck { transaction_id: 5, ..Default::default() };
    for message in [relation(1).into(), SatOpLog::default().into(), ack.into()] {
        let message: Message = message;
        assert_eq!(server.hears(message.clone()), [got(message)]);
    }
}

#[test]
fn what_only_servers_send_is_refused() {
    for message in stream_of_a_server() {
        if matches!(message, Message::OpLog(_) | Message::Relation(_)) {
            continue;
        }
        let mut server = streaming(Version::V0_12);
        let unexpected = Violation::Unexpected(message.name());
        assert_eq!(server.hears(message), error_and_closed(ErrorCode::InvalidRequest, unexpected));
        server.is_silent_for_ever();
    }
}

#[test]
fn a_client_that_reports_an_error_is_closed_without_a_word() {
    for mut server in [connected(Version::V0_12), ready(Version::V0_12), streaming(Version::V0_12)]
    {
        let why = error(ErrorCode::ReplicationFailed).with_message("gap");
        let close = Close::new(1000, "");
        assert_eq!(server.hears(why.clone()), [end(close, Cause::PeerError(why))]);
        server.is_silent_for_ever();
    }
}

// ---- Frames and faults ----

/// Every kind of frame that cannot be decoded.
fn undecodable() -> Vec<Bytes> {
    let unknown_types = (0..=u8::MAX)
        .filter(|byte| Message::TYPES.iter().all(|(known, _)| known != byte))
        .flat_map(|byte| [vec![byte], vec![byte, 8, 1]]);
    // A length without the bytes; an end of a group; a varint that does not end.
    let broken_bodies = Message::TYPES.iter().flat_map(|(byte, _)| {
        [vec![*byte, 0x0a, 0x05, 0x01], vec![*byte, 0x0c], vec![*byte, 0xff, 0xff]]
    });
    let garbled_text = [vec![21, 0x0a, 0x01, 0xff]];
    std::iter::once(vec![])
        .chain(unknown_types)
        .chain(broken_bodies)
        .chain(garbled_text)
        .chain([b"rubbish".to_vec()])
        .map(Bytes::from)
        .collect()
}

#[test]
fn every_undecodable_frame_is_answered_with_00_and_closed_with_electrics_text() {
    for frame in undecodable() {
        for mut server in [connected(Version::V0_12), streaming(Version::V0_12)] {
            let seen = server.frame(frame.clone());
            let [Seen::Sent(answer), Seen::End(End { close, cause })] = &seen[..] else {
                panic!("{frame:?}: {seen:?}")
            };
            assert_eq!(answer.encode().as_ref(), [0]);
            let close = close.as_ref().unwrap();
            let text = "Message not formatted according to Electric protocol";
            assert_eq!((close.code, close.reason.as_ref()), (1007, text));
            assert!(matches!(cause, Cause::Violation(Violation::Frame(_))), "{cause:?}");
            server.is_silent_for_ever();
        }
    }
}

#[test]
fn what_was_wrong_with_a_frame_is_told_apart() {
    let mut server = connected(Version::V0_12);
    let seen = server.frame(Bytes::new());
    assert_eq!(seen[1], broken(Violation::Frame(FrameError::Empty)));
    let mut server = connected(Version::V0_12);
    let seen = server.frame(&b"rubbish"[..]);
    assert_eq!(seen[1], broken(Violation::Frame(FrameError::UnknownType(b'r'))));
}

#[test]
fn faults_of_the_websocket_are_closed_with_their_codes_and_not_answered() {
    for (fault, code, reason) in [
        (Fault::Text, 1003, "Text messages are not part of the protocol"),
        (Fault::NotUtf8, 1007, ""),
        (Fault::TooLarge, 1009, "Message too large"),
        (Fault::Protocol, 1002, ""),
        (Fault::Silent, 4408, "Client not responding to pings"),
        (Fault::Stuck, 4408, "Client not reading"),
    ] {
        for mut server in
            [connected(Version::V0_12), asking(Version::V0_12), streaming(Version::V0_12)]
        {
            let seen = server.input(Input::Fault(fault));
            let [Seen::End(End { close: Some(close), cause })] = &seen[..] else {
                panic!("{seen:?}")
            };
            assert_eq!(*close, Close::new(code, reason));
            assert_eq!(*cause, Cause::Violation(Violation::WebSocket(fault)));
            server.is_silent_for_ever();
        }
    }
}

#[test]
fn a_client_that_goes_is_not_closed_again() {
    for close in [None, Some(Close::NORMAL), Some(Close::new(4000, "bye"))] {
        for mut server in
            [connected(Version::V0_12), asking(Version::V0_12), streaming(Version::V0_12)]
        {
            let seen = server.input(Input::Closed(close.clone()));
            assert_eq!(seen, [end(None, Cause::Peer(close.clone()))]);
            server.is_silent_for_ever();
        }
    }
}

#[test]
fn this_end_may_close_at_any_time_with_or_without_an_error() {
    for mut server in [connected(Version::V0_12), asking(Version::V0_12), streaming(Version::V0_12)]
    {
        server.session.close(None, Close::GOING_AWAY);
        assert_eq!(server.drain(), [end(Close::GOING_AWAY, Cause::Local)]);
        server.is_silent_for_ever();
    }
    let mut server = streaming(Version::V0_12);
    let why = error(ErrorCode::ReplicationFailed);
    server.session.close(Some(why.clone()), Close::AFTER_ERROR);
    assert_eq!(server.drain(), [sent(why), end(Close::AFTER_ERROR, Cause::Local)]);
}

#[test]
fn after_the_end_nothing_is_sent_called_or_answered() {
    let mut server = streaming(Version::V0_12);
    server.session.close(None, Close::NORMAL);
    server.drain();
    assert_eq!(server.session.send(relation(1).into()), Err(SendError::Ended));
    assert_eq!(server.session.call(stop().into()), Err(SendError::Ended));
    server.session.forget(CallId { method: Method::StopReplication, request_id: 0 });
    assert!(server.session.client().is_none());
    server.is_silent_for_ever();
}

// ---- For every sequence ----

proptest! {
    #[test]
    fn whatever_a_client_sends_nothing_reaches_anyone_before_it_is_let_in(
        frames in vec(any_frame(), 1..12),
    ) {
        let mut server = connected(Version::V0_12);
        for frame in frames {
            let asked_before = server.asked.is_some();
            match server.session.handle_input(server.now, Input::Binary(frame.clone().into())) {
                Ok(()) => prop_assert!(!asked_before, "taken behind a pending verdict"),
                Err(Input::Binary(back)) => prop_assert_eq!(back.0, frame),
                Err(other) => prop_assert!(false, "{:?}", other),
            }
            for seen in server.drain() {
                let harmless = matches!(seen, Seen::Sent(_) | Seen::Asked { .. } | Seen::End(_));
                prop_assert!(harmless, "{:?}", seen);
                let welcome = matches!(&seen, Seen::Sent(Message::Response(SatRpcResponse {
                    result: Some(sat_rpc_response::Result::Message(_)), ..
                })));
                prop_assert!(!welcome, "{:?}", seen);
            }
            prop_assert!(server.session.client().is_none());
        }
    }

    #[test]
    fn whatever_happens_the_promises_hold(
        opening in prop_oneof![1 => 0..4_usize, 3 => Just(4)],
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
    /// A call of the client, with a number of its own.
    Called(Request),
    /// A reply of the client to one of our calls, if there are so many, else to none.
    Replied {
        which: usize,
        well: bool,
    },
    Fault(Fault),
    Closed,
    Wait(Duration),
    Resolve(Result<(), Refusal>),
    Send(Message),
    Call(Request),
    Forget(usize),
    Answer {
        which: usize,
        well: bool,
    },
    Close(bool),
}

/// What a well-behaved client does first. Most of what may happen comes after it.
fn opening() -> [Step; 4] {
    [
        Step::Called(auth("client-1", "token-1").into()),
        Step::Resolve(Ok(())),
        Step::Called(start().into()),
        Step::Answer { which: 0, well: true },
    ]
}

fn opening_of(length: usize) -> impl Iterator<Item = Step> {
    opening().into_iter().take(length)
}

/// Mostly what keeps a connection alive, so that long sequences are tried.
fn step() -> impl Strategy<Value = Step> {
    let requests = prop_oneof![
        1 => select(every_request()),
        40 => select(vec![stop().into(), subscribe("s").into(), SatUnsubsReq::default().into()]),
        4 => Just(start().into()),
    ];
    let own_calls = select(vec![start().into(), stop().into(), subscribe("s").into()]);
    let verdict = prop_oneof![
        9 => Just(Ok(())),
        1 => Just(Err(Refusal::Expired)),
        1 => Just(Err(Refusal::Unavailable)),
    ];
    let well = prop::bool::weighted(0.98);
    let seconds = prop_oneof![9 => 0..2_u64, 1 => 0..20_u64];
    prop_oneof![
        1 => any_frame().prop_map(Step::Frame),
        25 => requests.prop_map(Step::Called),
        25 => (0..6_usize, well).prop_map(|(which, well)| Step::Replied { which, well }),
        1 => select(vec![Fault::Text, Fault::TooLarge]).prop_map(Step::Fault),
        1 => Just(Step::Closed),
        5 => seconds.prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
        5 => verdict.prop_map(Step::Resolve),
        20 => select(one_of_each()).prop_map(Step::Send),
        25 => own_calls.prop_map(Step::Call),
        4 => (0..4_usize).prop_map(Step::Forget),
        30 => (0..4_usize, well).prop_map(|(which, well)| Step::Answer { which, well }),
        1 => any::<bool>().prop_map(Step::Close),
    ]
}

fn answer_of_client(CallId { method, request_id }: CallId, well: bool) -> Message {
    match (well, method) {
        (true, Method::StartReplication) => reply(request_id, started()),
        (true, _) => reply(request_id, stopped()),
        (false, method) => refused(method, request_id, ErrorCode::Internal),
    }
}

/// A session and what was promised about it.
struct Run {
    server: Server,
    next_id: u32,
    /// Our calls, and how many answers each has had.
    calls: Vec<(CallId, u32)>,
    forgotten: Vec<CallId>,
    /// The client's calls by number, and how many answers each has had.
    answers: BTreeMap<u32, u32>,
    /// Who was let in.
    who: Option<String>,
    /// A positive answer to a startReplication has been sent.
    ever_started: bool,
    ended: bool,
}

impl Run {
    fn new() -> Run {
        Run {
            server: connected(Version::V0_12),
            // Numbers that the arbitrary frames do not use.
            next_id: 100,
            calls: vec![],
            forgotten: vec![],
            answers: BTreeMap::new(),
            who: None,
            ever_started: false,
            ended: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Frame(frame) => self.frame(frame),
            Step::Called(request) => {
                self.next_id += 1;
                self.frame(call(self.next_id, request).encode());
            }
            Step::Replied { which, well } => {
                let stray = CallId { method: Method::StopReplication, request_id: 1000 };
                let call = self.calls.get(which).map_or(stray, |(call, _)| *call);
                self.frame(answer_of_client(call, well).encode());
            }
            Step::Fault(fault) => self.input(Input::Fault(fault)),
            Step::Closed => self.input(Input::Closed(None)),
            Step::Wait(time) => {
                self.server.now += time;
                self.input(Input::Timeout);
            }
            Step::Resolve(verdict) => {
                if let Some(request) = self.server.asked.take() {
                    self.server.session.resolve(request, verdict.map(|()| verified("user-1")));
                }
            }
            Step::Send(message) => {
                let stream = stream_of_a_server().contains(&message);
                let sent = self.server.session.send(message);
                assert!(sent.is_err() || (stream && self.ever_started && !self.ended));
            }
            Step::Call(request) => {
                if let Ok(call) = self.server.session.call(request) {
                    assert!(self.who.is_some() && !self.ended);
                    assert_eq!(call.request_id as usize, self.calls.len());
                    self.calls.push((call, 0));
                }
            }
            Step::Forget(which) => {
                if let Some((call, _)) = self.calls.get(which).copied() {
                    self.server.session.forget(call);
                    self.forgotten.push(call);
                }
            }
            Step::Answer { which, well } => self.answer(which, well),
            Step::Close(with_error) => {
                let why = with_error.then(|| error(ErrorCode::Internal));
                self.server.session.close(why, Close::NORMAL);
            }
        }
        self.drain();
    }

    fn frame(&mut self, frame: Bytes) {
        let wanted = self.server.session.wants_input();
        let input = Input::Binary(frame.clone().into());
        match self.server.session.handle_input(self.server.now, input) {
            Ok(()) => assert!(wanted),
            Err(Input::Binary(back)) => assert!(!wanted && back.0 == frame),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn input(&mut self, input: Input) {
        assert!(self.server.session.handle_input(self.server.now, input).is_ok());
    }

    fn answer(&mut self, which: usize, well: bool) {
        let Some(question) = self.server.questions.remove(which) else { return };
        let answer = match (well, question.method()) {
            (false, _) => Err(error(ErrorCode::Internal)),
            (true, Method::StartReplication) => Ok(started().into()),
            (true, Method::StopReplication) => Ok(stopped().into()),
            (true, Method::Subscribe) => Ok(subscribed("s").into()),
            (true, Method::Unsubscribe) => Ok(SatUnsubsResp {}.into()),
            (true, Method::Authenticate) => panic!("a session answers these itself"),
        };
        let answered = self.server.session.answer(question, answer);
        assert_eq!(answered, if self.ended { Err(SendError::Ended) } else { Ok(()) });
    }

    fn drain(&mut self) {
        for seen in self.server.drain() {
            assert!(!self.ended, "after the end: {seen:?}");
            match seen {
                Seen::Sent(Message::Response(answer)) => self.answered(&answer),
                Seen::Authenticated(who) => {
                    assert_eq!(self.who.replace(who), None, "authenticated once");
                }
                Seen::Got(_) | Seen::Called(_) => assert!(self.who.is_some()),
                Seen::Answered(call, _) => self.call_answered(call),
                Seen::Sent(message) if stream_of_a_server().contains(&message) => {
                    assert!(self.ever_started);
                }
                Seen::Sent(_) | Seen::Asked { .. } | Seen::Stray(..) => {}
                Seen::End(_) => self.ended = true,
            }
        }
        assert_eq!(self.server.session.client().is_some(), self.who.is_some() && !self.ended);
        if let Some(client) = self.server.session.client() {
            assert_eq!(Some(client.name()), self.who);
        }
    }

    fn call_answered(&mut self, call: CallId) {
        let (_, answers) = self.calls.iter_mut().find(|(made, _)| *made == call).unwrap();
        *answers += 1;
    }

    fn answered(&mut self, answer: &SatRpcResponse) {
        let positive = matches!(answer.result, Some(sat_rpc_response::Result::Message(_)));
        if positive && answer.method == "startReplication" {
            self.ever_started = true;
        }
        if answer.request_id >= 100 {
            let answers = self.answers.entry(answer.request_id).or_default();
            *answers += 1;
            assert_eq!(*answers, 1, "a question is answered once");
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
        for which in (0..self.server.questions.len()).rev() {
            self.answer(which, true);
        }
        if let Some(request) = self.server.asked.take() {
            self.server.session.resolve(request, Ok(verified("user-2")));
        }
        self.drain();
        self.server.is_silent_for_ever();
    }
}
