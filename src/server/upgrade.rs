//! The HTTP upgrade and the negotiation of the version.
//!
//! Status codes and bodies are the original's, so are the paths: `/ws` and below for the
//! WebSocket, `/api/status` to see whether the service is up.

use std::sync::OnceLock;

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        CONNECTION, HOST, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::{
    transport::{Socket, config, metered},
    wire::Version,
};

use super::{AcceptError, HttpError, Options, State};

/// After how many seconds to try again while the service is not ready.
const NOT_READY_RETRY: u32 = 1;

/// Answers HTTP requests until one of them is an upgrade, or the connection ends.
pub(super) async fn upgrade<S>(
    stream: S,
    options: &Options,
    state: &State,
) -> Result<(Socket<S>, Version), AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let negotiated = OnceLock::new();
    let service = service_fn(async |request| {
        Ok::<_, std::convert::Infallible>(respond(&request, options, state, &negotiated))
    });
    let parts = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.limits.upgrade_timeout)
        .max_buf_size(options.limits.max_head)
        .serve_connection(TokioIo::new(stream), service)
        .without_shutdown()
        .await
        .map_err(|error| AcceptError::Http(HttpError(error)))?;
    let Some(&version) = negotiated.get() else { return Err(AcceptError::NotUpgraded) };
    let stream = WebSocketStream::from_partially_read(
        metered(parts.io.into_inner(), &options.limits),
        // What a client sends behind the request without waiting for the answer.
        parts.read_buf.into(),
        Role::Server,
        Some(config(&options.limits)),
    )
    .await;
    Ok((Socket::new(stream, &options.limits), version))
}

/// The answer to one request. An upgrade leaves its version behind.
fn respond(
    request: &Request<Incoming>,
    options: &Options,
    state: &State,
    negotiated: &OnceLock<Version>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if path == "/ws" || path.starts_with("/ws/") {
        match negotiate(request, options) {
            Ok((version, accept)) => match unavailable(options, state) {
                Some(answer) => answer,
                None => {
                    let _ = negotiated.set(version);
                    switching_protocols(version, &accept)
                }
            },
            Err(reason) => {
                tracing::debug!(reason, "upgrade refused");
                text(StatusCode::BAD_REQUEST, reason)
            }
        }
    } else if path == "/api/status" && request.method() == Method::GET {
        text(StatusCode::OK, status(options.warning))
    } else {
        text(StatusCode::NOT_FOUND, "Not found")
    }
}

/// That the service is up, and what must not be overlooked.
fn status(warning: Option<&str>) -> String {
    let warning = warning.map(|warning| format!(". WARNING: {warning}"));
    format!("The Satellite service is up{}", warning.as_deref().unwrap_or_default())
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// Why no client can be served now, and when to come back.
fn unavailable(options: &Options, state: &State) -> Option<Response<Full<Bytes>>> {
    let readiness = options.readiness.as_ref().map_or(Ok(()), |readiness| readiness());
    let (reason, retry_after) = match (state.draining.get(), readiness) {
        (Some(&retry_after), _) => ("The service stops".to_owned(), retry_after),
        (None, Err(reason)) => (format!("The service is not ready: {reason}"), NOT_READY_RETRY),
        (None, Ok(())) => return None,
    };
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, reason);
    response.headers_mut().insert(RETRY_AFTER, retry_after.into());
    Some(response)
}

fn switching_protocols(version: Version, accept: &str) -> Response<Full<Bytes>> {
    let header = |text: &str| HeaderValue::try_from(text).expect("ASCII without controls");
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, header(accept));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, header(&version.to_string()));
    response
}

/// The version to speak and the answer to the client's key; or why the request is refused, in the
/// original's order and words.
fn negotiate(request: &Request<Incoming>, options: &Options) -> Result<(Version, String), String> {
    let key = websocket_key(request).ok_or("Bad request")?;
    let offers = || offers(request.headers());
    let newest = offers().max().ok_or("Missing satellite websocket subprotocol")?;
    let version = offers().filter(|offer| options.versions.contains(offer)).max().ok_or_else(|| {
        format!(
            "Cannot connect satellite version {}.{}.0: this server requires >= {}.{}.0 and <= {}",
            newest.major,
            newest.minor,
            options.versions.start().major,
            options.versions.start().minor,
            last_release(*options.versions.end()),
        )
    })?;
    Ok((version, derive_accept_key(key.as_bytes())))
}

/// The key of a valid WebSocket upgrade
/// ([RFC 6455 §4.2.1](https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1)). Like the original,
/// it takes any key.
fn websocket_key(request: &Request<Incoming>) -> Option<&HeaderValue> {
    let headers = request.headers();
    let valid = request.method() == Method::GET
        && request.version() == hyper::Version::HTTP_11
        && headers.contains_key(HOST)
        && tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"))
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    headers.get(SEC_WEBSOCKET_KEY).filter(|_| valid)
}

/// The protocol versions among the subprotocols, which may come in several lines and in lists
/// ([RFC 6455 §11.3.4](https://www.rfc-editor.org/rfc/rfc6455#section-11.3.4)).
fn offers(headers: &HeaderMap) -> impl Iterator<Item = Version> {
    tokens(headers, &SEC_WEBSOCKET_PROTOCOL).filter_map(|token| token.parse().ok())
}

/// The elements of a header's comma lists, over all its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// The last release that speaks a version, as it stands in a refusal.
fn last_release(version: Version) -> String {
    let patch = if version == Version::V0_12 { 1 } else { 0 };
    format!("{}.{}.{patch}", version.major, version.minor)
}
