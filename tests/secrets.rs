//! A token that is planted in a request shows up nowhere but on the wire: in no `Debug`, no
//! `Display`, no error, no log event. Nor does a key that is planted in a configuration.

mod common;

use std::{
    collections::HashSet,
    error::Error,
    fmt::{Debug, Write as _},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{
    net::{Gate, Raw, client},
    *,
};
use electric_satellite::{
    auth::{Algorithm, Authenticator, ClaimRules, JwtAuthenticator, Key, Minter},
    client::Connector,
    server::Server,
    session::{
        ClientSession, Close, End, Frame, Input, Output, Refusal, ServerSession, Session, UnixTime,
    },
    transport::{Event, Limits},
    wire::{Message, Method, Request, RequestError, Version, proto::*},
};
use futures_util::SinkExt;
use sat_error_resp::ErrorCode;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

// ---- Looking for a secret ----

/// A text that must not show, whole or in part, as text or as bytes.
struct Secret(HashSet<[u8; Secret::LEAK]>);

impl Secret {
    /// So many bytes of it in a row are a leak; fewer may be chance.
    const LEAK: usize = 12;

    fn new(secret: &str) -> Secret {
        assert!(secret.len() >= Secret::LEAK, "too short to be recognised");
        let parts = secret.as_bytes().windows(Secret::LEAK);
        Secret(parts.map(|part| part.try_into().unwrap()).collect())
    }

    /// Whether it shows in this text: as it is, as a list of numbers, or in hexadecimal.
    fn shows_in(&self, shown: &str) -> bool {
        let dense: String = shown.chars().filter(|c| !c.is_whitespace()).collect();
        let numbers = dense.split([',', '[', ']']).map(|number| number.parse().unwrap_or(0));
        let digits = dense.replace("\\x", "").replace([',', ':', '-'], "");
        self.is_among(shown.as_bytes())
            || self.is_among(&numbers.collect::<Vec<u8>>())
            || self.is_among(&from_hex(digits.as_bytes()))
            || self.is_among(&from_hex(digits.as_bytes().get(1..).unwrap_or_default()))
    }

    fn is_among(&self, bytes: &[u8]) -> bool {
        bytes.windows(Secret::LEAK).any(|part| self.0.contains(part))
    }

    #[track_caller]
    fn is_not_in(&self, shown: &str) {
        assert!(!self.shows_in(shown), "a secret shows: {shown}");
    }

    #[track_caller]
    fn is_not_shown_by(&self, value: &impl Debug) {
        self.is_not_in(&format!("{value:?}"));
        self.is_not_in(&format!("{value:#?}"));
    }

    #[track_caller]
    fn is_not_told_by(&self, error: &(impl Error + 'static)) {
        self.is_not_shown_by(error);
        let mut cause: Option<&dyn Error> = Some(error);
        while let Some(error) = cause {
            self.is_not_in(&format!("{error} {error:#} {error:?}"));
            cause = error.source();
        }
    }
}

/// The bytes that these digits are the hexadecimal form of, with 0 for what is none.
fn from_hex(digits: &[u8]) -> Vec<u8> {
    let value = |digit: u8| (digit as char).to_digit(16);
    let byte = |pair: &[u8]| Some((value(pair[0])? * 16 + value(*pair.get(1)?)?) as u8);
    digits.chunks(2).map(|pair| byte(pair).unwrap_or(0)).collect()
}

#[test]
fn a_secret_is_found_in_every_form() {
    for secret in ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.signature", "a text with spaces in between"] {
        let part = &secret[5..18];
        let bytes = part.as_bytes();
        let looks = Secret::new(secret);
        for leak in [
            format!("token={secret}"),
            format!("token={part}…"),
            format!("{part:?}"),
            format!("{bytes:?}"),
            format!("{bytes:#?}"),
            format!("{:?}", Bytes::from(bytes.to_vec())),
            format!("{bytes:x?}"),
            format!("{bytes:02X?}"),
            bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            format!("{:?}", SatErrorResp::default().with_message(part)),
        ] {
            assert!(looks.shows_in(&leak), "{leak}");
        }
        for harmless in ["", "Token([39 bytes])", "[1, 2, 3]", &secret[..Secret::LEAK - 1]] {
            assert!(!looks.shows_in(harmless), "{harmless}");
        }
    }
}

// ---- Listening to the log ----

/// Everything that this crate has logged, at any level.
static LOG: Mutex<String> = Mutex::new(String::new());

fn log() -> MutexGuard<'static, String> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes down every event and every span of this crate.
struct Everything;

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Everything {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        note(attributes.metadata(), |fields| attributes.record(fields));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("it was just recorded");
        note(span.metadata(), |fields| values.record(fields));
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        note(event.metadata(), |fields| event.record(fields));
    }
}

fn note(metadata: &tracing::Metadata<'_>, record: impl FnOnce(&mut Fields<'_>)) {
    if metadata.target().starts_with("electric_satellite") {
        let mut log = log();
        let _ = write!(log, "{} {}", metadata.level(), metadata.name());
        record(&mut Fields(&mut log));
        log.push('\n');
    }
}

/// From now on, the log is listened to.
fn listen() {
    static LISTENING: OnceLock<()> = OnceLock::new();
    LISTENING.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Everything);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");
    });
}

// ---- The secrets ----

const NOW: UnixTime = UnixTime::from_secs(1_700_000_030);

fn minter(secret: &[u8]) -> Minter {
    Minter::from_secret(Algorithm::HS256, secret).unwrap()
}

const KEY: &[u8] = b"the quick brown fox jumps over it";

/// A token of this user, and when it expires.
fn minted(key: &[u8], user: &str, expires: i64) -> String {
    let claims = serde_json::json!({ "sub": user, "iat": 1_700_000_000, "exp": expires });
    minter(key).mint(&claims).unwrap().expose().to_owned()
}

/// Tokens that are good, and bad in every way that has an error of its own.
fn tokens() -> Vec<String> {
    let good = minted(KEY, "u1", 1_700_000_060);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    vec![
        good.clone(),
        minted(b"another quick fox that jumps over it", "u2", 1_700_000_060),
        minted(KEY, "u3", 1_700_000_001),
        minted(KEY, " ", 1_700_000_060),
        signed.to_owned(),
        format!("{signed}."),
        format!("{signed}.{signature}.{signature}"),
        format!("{signed}.{signature}.{signature}.{signature}"),
        format!("{signed}.{}", &signature[1..]),
        format!("!{good}"),
        format!(" {good}\n"),
        "plain text that was planted as a token".into(),
        "planted-\u{0}-control-characters-and-ключ-and-\u{1f511}".into(),
        "planted%s{}\"quoted\"'and'\\escaped\\and<marked>up".into(),
    ]
}

// ---- Values ----

#[test]
fn no_value_that_holds_a_token_shows_it() {
    for text in tokens() {
        let secret = Secret::new(&text);
        let request = auth("client-1", &text);
        secret.is_not_shown_by(&token(&text));
        secret.is_not_shown_by(&request);
        secret.is_not_shown_by(&Request::from(request.clone()));
        secret.is_not_shown_by(&Request::from(request.clone()).method());
        let message = call(1, request);
        secret.is_not_shown_by(&message);
        let Message::Request(envelope) = &message else { panic!() };
        secret.is_not_shown_by(envelope);
        secret.is_not_shown_by(&Request::decode(envelope.clone()));
        let frame = Frame(message.encode());
        secret.is_not_shown_by(&frame);
        secret.is_not_shown_by(&Message::decode(frame.0.clone()));
        secret.is_not_shown_by(&Input::Binary(frame.clone()));
        secret.is_not_shown_by(&Output::<()>::Send(frame));
    }
}

/// Everything that comes out of a server session at this input, and it itself.
fn shown_by_session(version: Version, frames: &[Bytes], verdict: Option<Refusal>) -> String {
    let now = Instant::now();
    let mut session = ServerSession::new(now, AUTH_TIMEOUT, version, "server-1");
    let mut shown = format!("{session:?}");
    for frame in frames {
        let input = Input::Binary(frame.clone().into());
        let taken = session.handle_input(now, input);
        write!(shown, "{taken:?}{session:?}").unwrap();
        while let Some(output) = session.poll_output() {
            write!(shown, "{output:?}").unwrap();
            match output {
                Output::Authenticate(request) => {
                    write!(shown, "{} {:?}", request.client_id(), request.token()).unwrap();
                    let verdict = verdict.map_or(Ok(verified("user-1")), Err);
                    session.resolve(request, verdict);
                }
                Output::End(End { close, cause }) => {
                    let close = close.map_or(String::new(), |close| close.to_string());
                    write!(shown, "{cause} {close}").unwrap();
                }
                _ => {}
            }
        }
    }
    shown
}

#[test]
fn no_server_session_shows_a_token_whatever_the_verdict() {
    let verdicts = [
        None,
        Some(Refusal::Malformed),
        Some(Refusal::Signature),
        Some(Refusal::Expired),
        Some(Refusal::NotYetValid),
        Some(Refusal::Claims),
        Some(Refusal::Unavailable),
    ];
    for text in tokens() {
        let secret = Secret::new(&text);
        let frame = call(1, auth("client-1", &text)).encode();
        let without_id = call(1, auth("", &text)).encode();
        for verdict in verdicts {
            // The second comes back behind a refusal, and is refused behind a welcome.
            let frames = [frame.clone(), frame.clone()];
            secret.is_not_in(&shown_by_session(Version::V0_12, &frames, verdict));
        }
        secret.is_not_in(&shown_by_session(Version::V0_6, &[without_id], None));
    }
}

#[test]
fn no_client_session_shows_its_token() {
    for text in tokens() {
        let secret = Secret::new(&text);
        let now = Instant::now();
        let start = || {
            let (client_id, token) = (id("client-1"), token(&text));
            ClientSession::new(now, AUTH_TIMEOUT, Version::V0_12, &client_id, token)
        };
        let welcome = SatAuthResp { id: "server-1".into(), headers: vec![] };
        for answer in [
            reply(1, welcome),
            refused(Method::Authenticate, 1, ErrorCode::AuthRequired),
            error(ErrorCode::Internal).into(),
            relation(1).into(),
        ] {
            let mut session = start();
            secret.is_not_shown_by(&session);
            session.handle_input(now, Input::Binary(answer.encode().into())).unwrap();
            secret.is_not_shown_by(&session);
            while let Some(output) = session.poll_output() {
                secret.is_not_shown_by(&output);
            }
            secret.is_not_shown_by(&session);
        }
        let mut session = start();
        session.handle_input(now + AUTH_TIMEOUT, Input::Timeout).unwrap();
        while let Some(output) = session.poll_output() {
            secret.is_not_shown_by(&output);
        }
    }
}

/// Auth frames that are damaged so that they hold the token and are no auth requests.
fn damaged(token: &str) -> Vec<Bytes> {
    let frame = call(1, auth("client-1", token)).encode();
    let cut = (1..frame.len()).map(|length| frame.slice(..length));
    let other_types = (0..=u8::MAX).map(|byte| changed(&frame, 0, byte));
    let garbled = (1..frame.len()).map(|at| changed(&frame, at, 0xff));
    let nudged = (1..frame.len()).map(|at| changed(&frame, at, frame[at].wrapping_add(1)));
    // The token without what belongs around it.
    let bare = Bytes::from(token.to_owned());
    let after_type: Bytes = std::iter::once(21).chain(token.bytes()).collect();
    let Message::Request(envelope) = Message::decode(frame.clone()).unwrap() else { panic!() };
    let without_envelope: Bytes = std::iter::once(21).chain(envelope.message).collect();
    cut.chain(other_types)
        .chain(garbled)
        .chain(nudged)
        .chain([bare, after_type, without_envelope])
        .collect()
}

fn changed(frame: &Bytes, at: usize, byte: u8) -> Bytes {
    let mut changed = frame.to_vec();
    changed[at] = byte;
    changed.into()
}

#[test]
fn no_damaged_frame_is_quoted() {
    // Each of these means more than a thousand frames.
    for text in [tokens().swap_remove(0), tokens().pop().unwrap()] {
        let secret = Secret::new(&text);
        let good = call(1, auth("client-1", &text)).encode();
        for frame in damaged(&text) {
            if let Err(error) = Message::decode(frame.clone()) {
                secret.is_not_told_by(&error);
            }
            if let Ok(Message::Request(envelope)) = Message::decode(frame.clone())
                && let Err(error) = Request::decode(envelope)
            {
                secret.is_not_told_by(&error);
            }
            secret.is_not_in(&shown_by_session(Version::V0_12, &[frame, good.clone()], None));
        }
    }
}

#[test]
fn a_token_in_the_place_of_a_method_is_not_shown() {
    // One wrong length is enough: the method's name then goes on to the end of the frame.
    for text in tokens().into_iter().filter(|text| text.len() < 100) {
        let secret = Secret::new(&text);
        let frame = call(1, auth("client-1", &text)).encode();
        let method: String = String::from_utf8_lossy(&frame[3..]).into_owned();
        let swallowed = SatRpcRequest { method, request_id: 1, message: Bytes::new() };
        secret.is_not_shown_by(&swallowed);
        let Err(error) = Request::decode(swallowed.clone()) else { panic!() };
        assert!(matches!(error, RequestError::UnknownMethod { .. }));
        secret.is_not_told_by(&error);
        let frames = [Message::from(swallowed).encode()];
        secret.is_not_in(&shown_by_session(Version::V0_12, &frames, None));
    }
}

// ---- Connections ----

fn secure() -> JwtAuthenticator {
    let key = Key::from_secret(Algorithm::HS256, KEY).unwrap();
    JwtAuthenticator::secure(key, ClaimRules::default())
}

fn short() -> Limits {
    Limits { auth_timeout: Duration::from_secs(1), ..Limits::default() }
}

/// Our client presents the token to our server; and everything that either shows of it.
async fn shown_by_handshake<A: Authenticator>(authenticator: A, text: &str) {
    let secret = Secret::new(text);
    let server = Server::new(authenticator).with_limits(short()).with_clock(|| NOW);
    let client = client(short());
    secret.is_not_shown_by(&client);
    let (near, far) = duplex(64 * 1024);
    let client_id = id("client-1");
    let connecting =
        async { client.upgrade(near).await?.authenticate(&client_id, token(text)).await };
    let (accepted, connected) = tokio::join!(server.accept(far), connecting);
    secret.is_not_shown_by(&accepted);
    secret.is_not_shown_by(&connected);
    if let Err(error) = &accepted {
        secret.is_not_told_by(error);
    }
    if let Err(error) = &connected {
        secret.is_not_told_by(error);
    }
    if let (Ok(mut server), Ok(client)) = (accepted, connected) {
        let (called, ()) = tokio::join!(client.call(start(), AUTH_TIMEOUT), async {
            let event = server.recv().await;
            secret.is_not_shown_by(&event);
            let Some(Event::StartReplication(_, responder)) = event else { panic!() };
            responder.reply(started());
        });
        secret.is_not_shown_by(&called);
        drop(client);
        secret.is_not_shown_by(server.closed().await);
        secret.is_not_shown_by(&server);
    }
    secret.is_not_in(&log());
}

#[tokio::test(start_paused = true)]
async fn no_handshake_shows_its_token() {
    listen();
    for text in tokens() {
        shown_by_handshake(secure(), &text).await;
        shown_by_handshake(JwtAuthenticator::insecure(None), &text).await;
        shown_by_handshake(JwtAuthenticator::insecure(Some("ns".into())), &text).await;
        shown_by_handshake(Gate::Broken, &text).await;
        shown_by_handshake(Gate::Undecided, &text).await;
    }
}

/// A raw client does this, behind an upgrade; and everything that our server shows of it.
async fn shown_by_server<F>(secret: &Secret, act: impl FnOnce(Raw<DuplexStream>) -> F)
where
    F: Future<Output = ()>,
{
    let server = Server::new(secure()).with_limits(short()).with_clock(|| NOW);
    let (near, far) = duplex(64 * 1024);
    let acting = async { act(Raw::upgraded(near, Version::V0_12).await).await };
    let (accepted, ()) = tokio::join!(server.accept(far), acting);
    secret.is_not_shown_by(&accepted);
    match accepted {
        Err(error) => secret.is_not_told_by(&error),
        Ok(mut connection) => {
            let event = timeout(Duration::from_secs(1), connection.recv()).await;
            secret.is_not_shown_by(&event);
            connection.close(Close::NORMAL);
            secret.is_not_shown_by(connection.closed().await);
        }
    }
    secret.is_not_in(&log());
}

#[tokio::test(start_paused = true)]
async fn no_server_shows_the_token_of_a_client_that_misbehaves() {
    listen();
    for text in tokens() {
        let secret = Secret::new(&text);
        for frame in damaged(&text).into_iter().step_by(7) {
            shown_by_server(&secret, async |mut raw| {
                raw.sends(frame).await;
                // Some frames are good still.
                raw.socket.close(None).await.unwrap();
                secret.is_not_shown_by(&raw.last_words().await);
            })
            .await;
        }
        let message = tungstenite::Message::Text(text.as_str().into());
        shown_by_server(&secret, async |mut raw| raw.socket.send(message).await.unwrap()).await;
        let message =
            tungstenite::Message::Ping(text.as_bytes()[..text.len().min(125)].to_vec().into());
        shown_by_server(&secret, async |mut raw| raw.socket.send(message).await.unwrap()).await;
        let too_large = call(1, auth("client-1", &text.repeat(2000)));
        shown_by_server(&secret, async |mut raw| raw.says(too_large).await).await;
        // No WebSocket frames at all.
        shown_by_server(&secret, async |mut raw| {
            raw.socket.get_mut().write_all(text.as_bytes()).await.unwrap();
        })
        .await;
        // Twice, and after the welcome.
        let request = call(1, auth("client-1", &text));
        shown_by_server(&secret, async |mut raw| {
            raw.says(request.clone()).await;
            raw.says(request).await;
        })
        .await;
    }
}

/// What a raw HTTP client sends instead of an upgrade, with the token in it.
#[tokio::test(start_paused = true)]
async fn no_server_shows_the_token_in_a_request_that_is_no_upgrade() {
    listen();
    let text = &tokens()[0];
    let secret = Secret::new(text);
    let upgrade = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for request in [
        format!("GET /ws?token={text} HTTP/1.1\r\n{upgrade}\r\n"),
        format!("GET /ws HTTP/1.1\r\n{upgrade}Authorization: Bearer {text}\r\n\r\n"),
        format!("GET /ws HTTP/1.1\r\n{upgrade}Sec-WebSocket-Protocol: {text}\r\n\r\n"),
        format!("GET /ws HTTP/1.1\r\n{upgrade}Sec-WebSocket-Protocol: electric.{text}\r\n\r\n"),
        format!("GET /{text} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("{text} /ws HTTP/1.1\r\n\r\n"),
        format!("GET /ws HTTP/{text}\r\n\r\n"),
        text.clone(),
    ] {
        let server = Server::new(secure()).with_limits(short()).with_clock(|| NOW);
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(request.as_bytes()).await.unwrap();
        near.shutdown().await.unwrap();
        let Err(error) = server.accept(far).await else { panic!("no upgrade: {request}") };
        secret.is_not_told_by(&error);
        secret.is_not_in(&log());
    }
}

/// A raw server does this to our client, which has presented the token.
async fn shown_by_client<F>(text: &str, act: impl FnOnce(Raw<DuplexStream>) -> F)
where
    F: Future<Output = ()>,
{
    let secret = Secret::new(text);
    let (near, far) = duplex(64 * 1024);
    let client = client(short());
    let client_id = id("client-1");
    let connecting =
        async { client.upgrade(near).await?.authenticate(&client_id, token(text)).await };
    let (connected, ()) = tokio::join!(connecting, async {
        let mut raw = Raw::accepted(far).await;
        raw.hears().await;
        act(raw).await;
    });
    secret.is_not_shown_by(&connected);
    if let Err(error) = &connected {
        secret.is_not_told_by(error);
    }
    secret.is_not_in(&log());
}

#[tokio::test(start_paused = true)]
async fn no_client_shows_its_token_whatever_the_server_does() {
    listen();
    for text in tokens() {
        let text = &text;
        shown_by_client(text, async |raw| drop(raw)).await;
        shown_by_client(text, async |mut raw| drop(raw.last_words().await)).await;
        shown_by_client(text, async |mut raw| raw.sends(&b"rubbish"[..]).await).await;
        shown_by_client(text, async |mut raw| raw.says(relation(1)).await).await;
        shown_by_client(text, async |mut raw| raw.says(error(ErrorCode::Internal)).await).await;
        shown_by_client(text, async |mut raw| raw.says(call(0, start())).await).await;
        shown_by_client(text, async |mut raw| {
            let method = Method::Authenticate;
            raw.says(refused(method, 1, ErrorCode::AuthRequired)).await;
        })
        .await;
        shown_by_client(text, async |mut raw| {
            raw.socket.send(tungstenite::Message::Text("text".into())).await.unwrap();
        })
        .await;
        shown_by_client(text, async |mut raw| raw.socket.close(None).await.unwrap()).await;
    }
}

#[tokio::test]
async fn the_log_is_heard() {
    listen();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(secure()).with_clock(|| NOW);
    tokio::spawn(async move {
        server
            .serve(listener, async |mut connection| while connection.recv().await.is_some() {})
            .await
    });
    let client = Connector::new(&format!("http://{address}")).unwrap();
    for text in tokens() {
        drop(client.connect(&id("heard"), token(&text)).await);
    }
    for expected in ["client authenticated", "client not authenticated", "connection ended"] {
        let heard = async {
            while !log().contains(expected) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(60), heard).await.expect(expected);
    }
    for text in tokens() {
        Secret::new(&text).is_not_in(&log());
    }
}

// ---- Keys ----

const LONG_KEY: &str = "planted key that is long enough for anything, or so it says";

/// Configurations that are wrong: a key that must not be shown, and what is set beside it.
fn wrong_configurations() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    const ALG: &str = "AUTH_JWT_ALG";
    const BASE64: &str = "AUTH_JWT_KEY_IS_BASE64_ENCODED";
    const MODE: &str = "AUTH_MODE";
    let private_key = include_str!("corpus/keys/rsa2048.key.pem");
    let other_kind = include_str!("corpus/keys/p256.pub.pem");
    let no_key = "-----BEGIN PUBLIC KEY-----\nplantedplantedplanted\n-----END PUBLIC KEY-----";
    vec![
        (LONG_KEY, vec![]),
        (LONG_KEY, vec![(ALG, "HS999")]),
        (LONG_KEY, vec![(ALG, "RS256")]),
        (LONG_KEY, vec![(ALG, "HS256"), (BASE64, "true")]),
        (LONG_KEY, vec![(MODE, "insecure")]),
        (LONG_KEY, vec![(MODE, "planted"), (ALG, "HS256")]),
        ("planted-short-key", vec![(ALG, "HS256")]),
        (no_key, vec![(ALG, "ES256")]),
        (private_key, vec![(ALG, "RS256")]),
        (private_key, vec![(ALG, "ES256")]),
        (other_kind, vec![(ALG, "RS256")]),
    ]
}

/// What of a key is secret: not the lines that every PEM has.
fn secrets_of(key: &str) -> Vec<Secret> {
    let secret = |line: &&str| !line.starts_with("-----") && line.len() >= Secret::LEAK;
    key.lines().filter(secret).map(Secret::new).collect()
}

#[test]
fn no_configuration_error_shows_the_key() {
    for (key, variables) in wrong_configurations() {
        let lookup = |name: &str| match name {
            "AUTH_JWT_KEY" => Some(key.to_owned()),
            name => {
                variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).into())
            }
        };
        let authenticator = JwtAuthenticator::from_vars(lookup).map(drop);
        let minter = Minter::from_vars(lookup).map(drop);
        for secret in secrets_of(key) {
            for error in [authenticator.as_ref().unwrap_err(), minter.as_ref().unwrap_err()] {
                secret.is_not_told_by(error);
                for error in &error.0 {
                    secret.is_not_told_by(error);
                }
            }
        }
    }
}

#[test]
fn no_value_that_holds_a_key_shows_it() {
    let secret = Secret::new(std::str::from_utf8(KEY).unwrap());
    secret.is_not_shown_by(&Key::from_secret(Algorithm::HS256, KEY).unwrap());
    secret.is_not_shown_by(&secure());
    secret.is_not_shown_by(&minter(KEY));
    secret.is_not_shown_by(&Key::from_secret(Algorithm::HS512, KEY));
    secret.is_not_shown_by(&Key::from_pem(Algorithm::RS256, KEY));
    let pem = include_str!("corpus/keys/rsa2048.key.pem");
    for secret in secrets_of(pem) {
        secret.is_not_shown_by(&Minter::from_pem(Algorithm::RS256, pem.as_bytes()).unwrap());
        secret.is_not_shown_by(&Minter::from_pem(Algorithm::ES256, pem.as_bytes()));
    }
}

// ---- The binary ----

#[cfg(feature = "cli")]
mod binary {
    use std::{
        io::{BufRead, BufReader},
        process::{Child, Command, Output, Stdio},
        sync::mpsc::{Receiver, channel},
    };

    use tokio::net::TcpStream;

    use super::*;

    /// The binary, with these variables and no others.
    fn satellite(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_satellite"));
        command.args(arguments).env_clear().envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Everything that it printed.
    fn printed(output: &Output) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    }

    /// A running service. It is killed when it is dropped.
    struct Service {
        child: Child,
        address: String,
        log: Receiver<String>,
    }

    impl Drop for Service {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Service {
        /// A service that logs as much as it can be asked to.
        fn start() -> Service {
            let key = std::str::from_utf8(KEY).unwrap();
            let variables = [
                ("AUTH_JWT_ALG", "HS256"),
                ("AUTH_JWT_KEY", key),
                ("HTTP_PORT", "0"),
                ("LISTEN_ADDRESS", "127.0.0.1"),
                ("LOG_LEVEL", "debug"),
                // Ours does not listen to this one.
                ("RUST_LOG", "trace"),
            ];
            let mut child = satellite(&["serve"], &variables).spawn().unwrap();
            let mut first = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
            let url = first.trim().strip_prefix("listening on ws://").unwrap();
            let address = url.strip_suffix("/ws").unwrap().to_owned();
            let (line, log) = channel();
            let stderr = BufReader::new(child.stderr.take().unwrap());
            std::thread::spawn(move || {
                stderr.lines().map_while(Result::ok).try_for_each(|text| line.send(text))
            });
            Service { child, address, log }
        }

        fn url(&self) -> String {
            format!("ws://{}", self.address)
        }

        async fn raw(&self) -> Raw<TcpStream> {
            let stream = TcpStream::connect(&self.address).await.unwrap();
            Raw::upgraded(stream, Version::V0_12).await
        }

        /// What it logs up to so many lines with this text.
        fn log_up_to(&self, text: &str, times: usize) -> String {
            let mut log = String::new();
            while log.matches(text).count() < times {
                let line = self.log.recv_timeout(Duration::from_secs(60));
                log += &line.unwrap_or_else(|_| panic!("not {times} times {text:?} in\n{log}"));
                log.push('\n');
            }
            log
        }

        /// What it logs until it is killed.
        fn log_to_the_end(mut self) -> String {
            self.child.kill().unwrap();
            self.log.iter().map(|line| line + "\n").collect()
        }
    }

    /// A token that is good now, or would have been long ago.
    fn planted(user: &str, good: bool) -> String {
        let now = if good { UnixTime::now().as_secs() } else { 1_000_000_000 };
        let claims = serde_json::json!({ "sub": user, "iat": now, "exp": now + 600 });
        minter(KEY).mint(&claims).unwrap().expose().to_owned()
    }

    #[tokio::test]
    async fn a_service_that_logs_at_debug_level_shows_no_token() {
        let service = Service::start();
        let client = Connector::new(&service.url()).unwrap();
        let (good, bad) = (planted("u1", true), planted("u2", false));
        let connection = client.connect(&id("client-1"), token(&good)).await.unwrap();
        connection.call(start(), Duration::from_secs(60)).await.unwrap();
        connection.close(Close::NORMAL);
        client.connect(&id("client-2"), token(&bad)).await.unwrap_err();
        let mut refused = 1;
        for frame in damaged(&good).into_iter().step_by(11) {
            let mut raw = service.raw().await;
            raw.sends(frame).await;
            // Some are good still.
            raw.socket.close(None).await.unwrap();
            let close = raw.last_words().await.close;
            refused += usize::from(close.is_some_and(|(code, _)| code == 1007));
        }
        assert!(refused > 10, "{refused}");
        let log = service.log_up_to("client not authenticated", refused);
        assert!(log.contains("client authenticated"), "{log}");
        let log = log + &service.log_to_the_end();
        Secret::new(&good).is_not_in(&log);
        Secret::new(&bad).is_not_in(&log);
        Secret::new(std::str::from_utf8(KEY).unwrap()).is_not_in(&log);
    }

    #[test]
    fn a_level_at_which_payloads_are_printed_cannot_be_asked_for() {
        let variables = [("AUTH_MODE", "insecure"), ("HTTP_PORT", "0"), ("LOG_LEVEL", "trace")];
        let output = satellite(&["serve"], &variables).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(printed(&output).contains("LOG_LEVEL"));
    }

    #[test]
    fn a_connection_check_shows_no_token() {
        let service = Service::start();
        let url = service.url();
        let good = planted("u1", true);
        for (text, exit) in [
            (good.clone(), 0),
            (planted("u2", false), 1),
            (format!("{good}x"), 1),
            ("planted text that is no token".into(), 1),
        ] {
            let secret = Secret::new(&text);
            for more in [&[][..], &["--json"], &["--protocol", "0.5"], &["--timeout", "x"]] {
                let arguments = [&["connect", &url, "--token", &text][..], more].concat();
                let output = satellite(&arguments, &[("RUST_LOG", "trace")]).output().unwrap();
                secret.is_not_in(&printed(&output));
                if more.is_empty() {
                    assert_eq!(output.status.code(), Some(exit), "{}", printed(&output));
                }
            }
            for arguments in [&["connect", &url][..], &["connect", "--help"], &["connect"]] {
                let output = satellite(arguments, &[("SATELLITE_TOKEN", &text)]).output().unwrap();
                secret.is_not_in(&printed(&output));
            }
        }
    }

    #[test]
    fn no_wrong_configuration_shows_the_key() {
        for (key, mut variables) in wrong_configurations() {
            variables.extend([("AUTH_JWT_KEY", key), ("HTTP_PORT", "0")]);
            for arguments in [&["serve"][..], &["token", "--sub", "user-1"]] {
                let output = satellite(arguments, &variables).output().unwrap();
                assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
                for secret in secrets_of(key) {
                    secret.is_not_in(&printed(&output));
                }
            }
        }
    }

    #[test]
    fn no_help_and_no_usage_error_shows_the_key() {
        let secret = Secret::new(LONG_KEY);
        for arguments in [
            &["serve", "--help"][..],
            &["token", "--help"],
            &["serve", "--no-such-option"],
            &["serve", "--auth-jwt-key", LONG_KEY, "--no-such-option"],
            &["token"],
        ] {
            let output = satellite(arguments, &[("AUTH_JWT_KEY", LONG_KEY)]).output().unwrap();
            assert!(!printed(&output).is_empty());
            secret.is_not_in(&printed(&output));
        }
    }
}
