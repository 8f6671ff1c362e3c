//! Every row of the table of `Failure::advice`, by what a service says: what it is taken for, and
//! what the client does.

use std::{sync::Arc, time::Duration};

use electric_satellite::{
    client::{
        Advice::{self, *},
        Client, ConnectError, Connectivity, Failure, Resume, StartError, TokenError, TokenReason,
    },
    session::{Cause, Close, Violation},
    transport::CallFailure,
    wire::{Message, Method, ReplyError, proto::*, refusal},
};
use futures_util::{FutureExt, SinkExt, future::BoxFuture};
use sat_error_resp::ErrorCode;
use sat_in_start_replication_resp::{ReplicationError, replication_error::Code};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::{
    self,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{
    common::{error, net::Raw, reply},
    world::{World, connected, given_up, lets_in, waiting},
};

const HOUR: Duration = Duration::from_secs(3600);

const CODES: [ErrorCode; 7] = [
    ErrorCode::Internal,
    ErrorCode::AuthRequired,
    ErrorCode::AuthFailed,
    ErrorCode::ReplicationFailed,
    ErrorCode::InvalidRequest,
    ErrorCode::ProtoVsnMismatch,
    ErrorCode::SchemaVsnMismatch,
];

/// What the application does with the connections that it is given.
async fn start(client: &Client) {
    while let Ok(connection) = client.connection().await {
        let _ = connection.start_replication(&mut Resume::default(), HOUR).await;
        connection.closed().await;
    }
}

/// The service does this to the first connection; the client takes it for that, and does what it
/// advises.
async fn meets<F>(
    what: &str,
    scene: impl FnOnce(DuplexStream) -> F + Send + 'static,
    advice: Advice,
) -> Arc<Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let world = World::new(&["good user", "good fresh"]);
    world.scene(scene);
    let client = Arc::new(world.builder().server_id("server-1").build());
    client.connect();
    let app = tokio::spawn({
        let client = Arc::clone(&client);
        async move { start(&client).await }
    });
    let failure = if advice == GiveUp {
        let mut connectivity = client.connectivity();
        let failure = loop {
            connectivity.changed().await.unwrap();
            let now = connectivity.borrow_and_update().clone();
            if let Connectivity::Disconnected { reason: Some(reason), next_attempt } = now {
                assert_eq!(next_attempt, None, "{what}");
                break reason;
            }
        };
        assert!(Arc::ptr_eq(&failure, &given_up(&client).await), "{what}");
        tokio::time::sleep(HOUR).await;
        assert_eq!((world.dials().len(), world.open()), (1, 0), "{what}");
        assert_eq!(world.asked(), [TokenReason::Connect], "{what}");
        failure
    } else {
        let failure = waiting(&client).await.failure;
        connected(&client).await;
        let reason =
            if advice == FreshToken { TokenReason::Rejected } else { TokenReason::Reconnect };
        assert_eq!(world.asked(), [TokenReason::Connect, reason], "{what}");
        assert_eq!(world.most_open(), 1, "{what}");
        failure
    };
    app.abort();
    assert_eq!(failure.advice(), advice, "{what}: {failure}");
    failure
}

/// How an attempt ended, or a connection.
fn cause(failure: &Failure) -> &Cause {
    match failure {
        Failure::Connect(ConnectError::Ended(end)) | Failure::Ended(end) => &end.cause,
        other => panic!("{other:?}"),
    }
}

/// Answers the upgrade, and holds the stream.
fn answers(text: &'static str) -> impl FnOnce(DuplexStream) -> BoxFuture<'static, ()> {
    move |mut stream| {
        Box::pin(async move {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(text.as_bytes()).await.unwrap();
            let _ = stream.read_u8().await;
        })
    }
}

/// Upgrades, hears the token, and says this.
fn says(message: Message) -> impl FnOnce(DuplexStream) -> BoxFuture<'static, ()> {
    move |stream| {
        Box::pin(async move {
            let mut raw = Raw::accepted(stream).await;
            raw.hears().await;
            raw.says(message).await;
            raw.last_words().await;
        })
    }
}

/// Closes the WebSocket, and takes the answer.
pub(crate) async fn closes(raw: &mut Raw<DuplexStream>, close: &Close) {
    let code = CloseCode::from(close.code);
    let reason = close.reason.as_ref().into();
    raw.socket.close(Some(CloseFrame { code, reason })).await.unwrap();
    raw.last_words().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_reached_is_tried_again() {
    let world = World::new(&["good user"]);
    world.up.send_replace(false);
    let client = world.builder().build();
    client.connect();
    let failure = waiting(&client).await.failure;
    assert!(matches!(&*failure, Failure::Connect(ConnectError::Unreachable(_))));
    assert_eq!(failure.advice(), Retry);
    world.up.send_replace(true);
    client.connection().await.unwrap();
    assert_eq!(world.asked(), [TokenReason::Connect, TokenReason::Reconnect]);
}

#[tokio::test(start_paused = true)]
async fn whatever_is_no_service_is_tried_again() {
    let silent = |stream: DuplexStream| async move {
        tokio::time::sleep(HOUR).await;
        drop(stream);
    };
    let failure = meets("silence", silent, Retry).await;
    assert!(matches!(&*failure, Failure::Connect(ConnectError::TimedOut(_))), "{failure}");
    for (what, scene) in [
        ("nothing", answers("")),
        ("another protocol", answers("SSH-2.0-OpenSSH_9.6\r\n\r\n")),
        ("an upgrade to something else", answers("HTTP/1.1 101 Sw\r\nUpgrade: h2c\r\n\r\n")),
    ] {
        // It takes its time before it goes.
        let failure = meets(what, scene, Retry).await;
        assert!(matches!(&*failure, Failure::Connect(_)), "{what}: {failure}");
    }
    let gone = |stream: DuplexStream| async { drop(stream) };
    let failure = meets("a reset", gone, Retry).await;
    assert!(matches!(&*failure, Failure::Connect(ConnectError::UpgradeFailed(_))), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_upgrade_is_final_or_not_by_its_status() {
    for (status, advice) in [
        (200, Retry),
        (302, Retry),
        (400, GiveUp),
        (401, GiveUp),
        (403, GiveUp),
        (404, Retry),
        (429, Retry),
        (500, Retry),
        (502, Retry),
        (503, Retry),
    ] {
        let text = format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno");
        let failure = meets(&text, answers(text.clone().leak()), advice).await;
        let Failure::Connect(ConnectError::UpgradeRefused { status: found, body, .. }) = &*failure
        else {
            panic!("{failure:?}")
        };
        assert_eq!((*found, &body[..]), (status, "no"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_and_another_refusal_goes_by_its_code() {
    for code in CODES {
        let advice = match code {
            ErrorCode::AuthRequired | ErrorCode::AuthFailed => FreshToken,
            // Another connection of this client lives.
            ErrorCode::InvalidRequest => Retry,
            ErrorCode::Internal | ErrorCode::ReplicationFailed => Retry,
            ErrorCode::ProtoVsnMismatch | ErrorCode::SchemaVsnMismatch => GiveUp,
        };
        let what = code.as_str_name();
        let failure = meets(what, says(refusal("authenticate", 1, error(code))), advice).await;
        assert_eq!(*cause(&failure), Cause::RefusedByServer(error(code)));
    }
}

fn advice_by_code(code: ErrorCode) -> Advice {
    match code {
        ErrorCode::AuthRequired | ErrorCode::AuthFailed => FreshToken,
        ErrorCode::Internal | ErrorCode::ReplicationFailed => Retry,
        ErrorCode::InvalidRequest | ErrorCode::ProtoVsnMismatch | ErrorCode::SchemaVsnMismatch => {
            GiveUp
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_goes_by_its_code_before_and_after_the_client_is_let_in() {
    for code in CODES {
        let advice = advice_by_code(code);
        let what = format!("{} instead of an answer", code.as_str_name());
        let failure = meets(&what, says(error(code).into()), advice).await;
        assert_eq!(*cause(&failure), Cause::PeerError(error(code)));

        let what = format!("{} and a close", code.as_str_name());
        let scene = move |stream| async move {
            let mut raw = lets_in(stream).await;
            raw.says(error(code)).await;
            closes(&mut raw, &Close::AFTER_ERROR).await;
        };
        let failure = meets(&what, scene, advice).await;
        assert_eq!(*cause(&failure), Cause::PeerError(error(code)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_goes_by_the_code_and_ends_the_connection() {
    for code in CODES {
        let scene = move |stream| async move {
            let mut raw = lets_in(stream).await;
            raw.hears().await;
            raw.says(refusal("startReplication", 2, error(code))).await;
            raw.last_words().await;
        };
        let failure = meets(code.as_str_name(), scene, advice_by_code(code)).await;
        let (method, error) = (Method::StartReplication, error(code));
        assert_eq!(*cause(&failure), Cause::CallRefusedByServer { method, error: error.clone() });
        let reply = CallFailure::Reply(ReplyError::Refused(error));
        assert_eq!(StartError::Call(reply).advice(), failure.advice());
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_that_is_refused_is_for_the_application_to_reset() {
    for (code, advice) in [
        (Code::Unspecified, Retry),
        (Code::BehindWindow, ResetState),
        (Code::InvalidPosition, ResetState),
        (Code::SubscriptionNotFound, ResetState),
        (Code::MalformedLsn, ResetState),
        (Code::UnknownSchemaVsn, GiveUp),
    ] {
        let scene = move |stream| async move {
            let mut raw = lets_in(stream).await;
            raw.hears().await;
            let err = Some(ReplicationError { code: code.into(), message: "no".into() });
            raw.says(reply(2, SatInStartReplicationResp { err, unacked_window_size: None })).await;
            raw.last_words().await;
        };
        let failure = meets(code.as_str_name(), scene, advice).await;
        assert_eq!(*cause(&failure), Cause::NotStarted { code, message: "no".into() });
        assert_eq!(StartError::Refused { code, message: "no".into() }.advice(), advice);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_is_a_reason_for_another_token_if_it_says_so_by_code_or_reason() {
    let closes_with = [
        (Close::NORMAL, Retry),
        (Close::GOING_AWAY, Retry),
        (Close::new(1007, ""), Retry),
        (Close::INTERNAL, Retry),
        (Close::EXPIRED, FreshToken),
        (Close::new(4000, ""), FreshToken),
        (Close::new(1000, "JWT-expired"), FreshToken),
        (Close::SILENT, Retry),
        (Close::new(4999, "whatever"), Retry),
    ];
    for (close, advice) in closes_with {
        for let_in_first in [false, true] {
            let what = format!("{close}, let in: {let_in_first}");
            let said = close.clone();
            let scene = move |stream| async move {
                let mut raw = match let_in_first {
                    true => lets_in(stream).await,
                    false => Raw::accepted(stream).await,
                };
                closes(&mut raw, &said).await;
            };
            let failure = meets(&what, scene, advice).await;
            assert_eq!(*cause(&failure), Cause::Peer(Some(close.clone())), "{what}");
        }
    }
    let vanishes = |stream| async move { drop(lets_in(stream).await) };
    let failure = meets("no close", vanishes, Retry).await;
    assert_eq!(*cause(&failure), Cause::Peer(None));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_breaks_a_rule_is_tried_again() {
    type Breach = fn(&mut Raw<DuplexStream>) -> BoxFuture<'_, ()>;
    let text: Breach =
        |raw| raw.socket.send(tungstenite::Message::text("text")).map(|sent| sent.unwrap()).boxed();
    let breaches: [(&str, Breach); 4] = [
        ("a frame that cannot be decoded", |raw| raw.sends(&b"rubbish"[..]).boxed()),
        ("a text", text),
        ("an acknowledgement", |raw| raw.says(SatOpLogAck::default()).boxed()),
        ("silence", |_| tokio::time::sleep(HOUR).boxed()),
    ];
    for (what, breach) in breaches {
        let scene = move |stream| async move {
            let mut raw = lets_in(stream).await;
            breach(&mut raw).await;
            raw.last_words().await;
        };
        let failure = meets(what, scene, Retry).await;
        assert!(matches!(cause(&failure), Cause::Violation(_)), "{what}: {failure}");
    }
    let silent = |stream| async move {
        let _raw = Raw::accepted(stream).await;
        tokio::time::sleep(HOUR).await;
    };
    let failure = meets("no answer to the token", silent, Retry).await;
    assert_eq!(*cause(&failure), Cause::Violation(Violation::AuthTimeout));
    let failure = meets(
        "an answer that is none",
        says(reply(1, SatAuthResp::default()).with_result(None)),
        Retry,
    )
    .await;
    assert!(matches!(cause(&failure), Cause::Violation(Violation::BadReply { .. })));
}

#[tokio::test(start_paused = true)]
async fn another_service_than_the_one_that_was_asked_for_is_left_at_once() {
    let failure = meets(
        "another server id",
        says(reply(1, SatAuthResp { id: "server-2".into(), headers: vec![] })),
        GiveUp,
    )
    .await;
    let Failure::WrongServer { expected, found } = &*failure else { panic!("{failure:?}") };
    assert_eq!((&expected[..], &found[..]), ("server-1", "server-2"));
}

#[test]
fn a_token_that_is_missing_is_waited_for_unless_there_never_will_be_one() {
    for (failure, advice) in [
        (Failure::Token(TokenError::temporary("offline")), Retry),
        (Failure::TokenTimeout(HOUR), Retry),
        (Failure::Token(TokenError::fatal("signed out")), GiveUp),
        (Failure::TokenPanic, GiveUp),
    ] {
        assert_eq!(failure.advice(), advice, "{failure}");
        assert_eq!(failure.retry_after(), None);
    }
}

/// A message, changed.
trait WithResult {
    fn with_result(self, result: Option<sat_rpc_response::Result>) -> Message;
}

impl WithResult for Message {
    fn with_result(self, result: Option<sat_rpc_response::Result>) -> Message {
        let Message::Response(response) = self else { panic!("a response") };
        SatRpcResponse { result, ..response }.into()
    }
}
