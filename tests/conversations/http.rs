//! HTTP up to the upgrade: one request, its answer, and whether the connection lives on.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use electric_satellite::{auth::JwtAuthenticator, wire::Version};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{live, recorded::Exchange, websocket::WebSocket};

/// An answer, or the lack of one.
#[derive(Default, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    http_version: Option<String>,
    /// By lower-case name.
    headers: BTreeMap<String, String>,
    body: Option<String>,
}

/// What a server with the versions of the recorded one answers, in words.
pub(crate) async fn replay(exchange: &Exchange) -> String {
    let server = live::server(JwtAuthenticator::insecure(None));
    let server = live::listen(server.with_versions(Version::V0_10..=Version::V0_12)).await;
    let mut stream = server.connect().await;
    stream.write_all(exchange.request()).await.expect("a request is sent");
    let answer = read_answer(&mut stream, exchange.request()).await;
    let is_open = match answer.status {
        Some(101) => speaks_websocket(stream).await,
        _ => answers_again(stream).await,
    };
    in_words(exchange.request(), &answer, !is_open)
}

async fn speaks_websocket(stream: BufReader<TcpStream>) -> bool {
    WebSocket::new(stream).is_alive(|opcode, _| panic!("opcode {opcode}, unasked")).await
}

/// Whether the connection serves another request.
async fn answers_again(mut stream: BufReader<TcpStream>) -> bool {
    let request = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // That the server has gone shows when reading.
    let _ = stream.write_all(request).await;
    read_answer(&mut stream, request).await.status == Some(200)
}

/// The upgrade request of the recorded conversations.
pub(crate) fn upgrade_to(subprotocol: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
}

/// Reads the answer to this request; an empty one if the stream ends before.
pub(crate) async fn read_answer(stream: &mut BufReader<TcpStream>, request: &[u8]) -> Answer {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        match stream.read_line(&mut head).await {
            Ok(read) if read > 0 => {}
            _ => return Answer::default(),
        }
    }
    let mut answer = parse_head(&head);
    let length = match answer.headers.get("content-length") {
        Some(length) if !request.starts_with(b"HEAD") => length.parse().expect("a length"),
        _ => 0,
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body as long as promised");
    answer.body = Some(String::from_utf8(body).expect("a text"));
    answer
}

fn parse_head(head: &str) -> Answer {
    let (status_line, headers) = head.split_once("\r\n").expect("a status line");
    let mut words = status_line.split(' ');
    let http_version = words.next().and_then(|word| word.strip_prefix("HTTP/"));
    let headers = headers.lines().filter_map(|line| line.split_once(": "));
    Answer {
        status: words.next().and_then(|word| word.parse().ok()),
        http_version: http_version.map(Into::into),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.into())).collect(),
        body: None,
    }
}

/// The answer to a request and whether the server closed after it, in words.
pub(crate) fn in_words(request: &[u8], answer: &Answer, is_closed: bool) -> String {
    let state = if is_closed { "closed" } else { "open" };
    let Answer { status: Some(status), http_version, headers, body } = answer else {
        return format!("no answer; {state}");
    };
    let version = http_version.as_deref().unwrap_or("?");
    let answered = match status {
        101 => switched(request, headers),
        _ => format!("{:?}", body.as_deref().unwrap_or_default()),
    };
    let unexpected = unexpected(*status, headers);
    format!("HTTP/{version} {status} {answered}{unexpected}; {state}")
}

/// The subprotocol that is spoken from now on.
fn switched(request: &[u8], headers: &BTreeMap<String, String>) -> String {
    let has = |name, value: &str| headers.get(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    assert!(has("upgrade", "websocket") && has("connection", "upgrade"), "{headers:?}");
    assert_eq!(headers.get("sec-websocket-accept"), Some(&answer_to_key(request)));
    headers.get("sec-websocket-protocol").cloned().unwrap_or_default()
}

/// Headers that say something which the words would otherwise miss.
fn unexpected(status: u16, headers: &BTreeMap<String, String>) -> String {
    let said = match status {
        101 => &["upgrade", "sec-websocket-accept", "sec-websocket-protocol"][..],
        _ => &[],
    };
    let common = ["date", "connection", "content-length"];
    let names = headers.keys().map(String::as_str);
    let names = names.filter(|name| !said.contains(name) && !common.contains(name));
    names.map(|name| format!(" with {name}")).collect()
}

/// `Sec-WebSocket-Accept` ([RFC 6455 §4.2.2](https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2)).
fn answer_to_key(request: &[u8]) -> String {
    let request = String::from_utf8_lossy(request);
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let text = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.expect("a key"));
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(digest)
}
