//! The HTTP upgrade and the negotiation of the version.
//!
//! Status codes and bodies are the original's, so are the paths: `/ws` and below for the
//! WebSocket, `/api/status` to see whether the service is up.

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::BytesMut;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Bytes,
    header::{
        CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER,
        SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, join, split};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{derive_accept_key, machine::TryParse},
        protocol::Role,
    },
};

use crate::{
    transport::{Limits, Socket, config, metered},
    wire::Version,
};

use super::{
    AcceptError, HttpError, Options, State,
    admission::{Overload, Place, retry_after},
    headers::{client_address, tokens},
    metrics, survive_call,
};

/// One short piece, whatever it says.
pub(super) type Answer = Response<Full<Bytes>>;

/// After how many seconds to try again while the service is not ready.
const NOT_READY_RETRY: u32 = 1;

/// Answers HTTP requests until one of them is an upgrade, or the connection ends.
///
/// A connection whose first request is granted has only that one, which is read without the HTTP
/// library: it keeps buffers of 8 KiB for as long as anybody takes to ask. What else may come is the
/// library's.
pub(super) async fn upgrade<S>(
    mut stream: S,
    place: &mut Place,
    overload: Option<Overload>,
    gate: &Gate<'_>,
) -> Result<(Socket<S>, Version), AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &gate.options.limits;
    let peer = place.address();
    let mut head = BytesMut::new();
    let mut first = overload.map(|overload| Box::new(gate.turn_away(overload)));
    if overload.is_none() {
        let get = read_get(&mut stream, &mut head, limits.max_head).await.map_err(http_error)?;
        // The request leaves with the verdict, before anything is waited for.
        let judged = get.map(|(size, request)| {
            let granted = gate.judge(&request, peer, place)?;
            Ok((granted.sent(), granted.version, size))
        });
        match judged {
            Some(Ok((answer, version, size))) => {
                stream.write_all(answer.as_bytes()).await.map_err(http_error)?;
                stream.flush().await.map_err(http_error)?;
                return Ok((websocket(stream, head[size..].to_vec(), limits), version));
            }
            Some(Err(answer)) => first = Some(answer),
            None => {}
        }
    }
    // What is there already goes with it: of what begins in the one and goes wrong in the other, the
    // library would wait for the end.
    while let Some(Ok(1..)) = read_more(&mut stream, &mut head, limits.max_head).now_or_never() {}
    // Boxed, for it is rare, and large.
    Box::pin(serve(stream, &head, first, peer, place, overload.is_none(), gate)).await
}

/// Reads the request that comes first, if it is a GET without a body, and how long its head is. The
/// bytes are left where they are read to, at most so many, with what came behind the head.
///
/// What cannot become one any more, such as TLS, waits for an answer and not for its end: so each read
/// is parsed, with all before it, which for a head of bytes that come one by one costs less than the
/// reads do.
async fn read_get<S>(
    stream: &mut S,
    head: &mut BytesMut,
    most: usize,
) -> io::Result<Option<(usize, Request<()>)>>
where
    S: AsyncRead + Unpin,
{
    head.reserve(HEAD);
    loop {
        if read_more(stream, head, most).await? == 0 {
            return Ok(None);
        }
        match Request::try_parse(head) {
            Ok(None) => {}
            Ok(Some((size, request))) => {
                let has = |name| request.headers().contains_key(name);
                let has_body = has(CONTENT_LENGTH) || has(TRANSFER_ENCODING);
                return Ok((!has_body).then_some((size, request)));
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Reads more, until it is at most so much. Returns how much it was: nothing at the end.
async fn read_more<S>(stream: &mut S, head: &mut BytesMut, most: usize) -> io::Result<usize>
where
    S: AsyncRead + Unpin,
{
    stream.take((most - head.len()) as u64).read_buf(head).await
}

/// What a head is granted room for at first.
const HEAD: usize = 512;

/// Answers requests with the HTTP library: those that begin with what has been read already, of which
/// the first may have its answer.
async fn serve<S>(
    stream: S,
    head: &[u8],
    first: Option<Box<Answer>>,
    peer: Option<IpAddr>,
    place: &mut Place,
    keep_alive: bool,
    gate: &Gate<'_>,
) -> Result<(Socket<S>, Version), AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &gate.options.limits;
    let upgrade = OnceLock::new();
    let state = Mutex::new((first, place));
    let service = service_fn(async |request| {
        let (first, place) = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
        let judge = || match gate.judge(&request, peer, place) {
            Ok(granted) => {
                let _ = upgrade.set(granted.version);
                granted.answer()
            }
            Err(answer) => *answer,
        };
        Ok::<_, Infallible>(first.take().map_or_else(judge, |first| *first))
    });
    let (reader, writer) = split(stream);
    let parts = http1::Builder::new()
        // All of it has one deadline, which is the caller's: the requests, and the reading of the
        // answers.
        .header_read_timeout(None)
        // An answer is one short piece.
        .writev(false)
        .max_buf_size(limits.max_head)
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(join(head.chain(reader), writer)), service)
        .without_shutdown()
        .await
        .map_err(http_error)?;
    let Some(&version) = upgrade.get() else {
        return Err(AcceptError::NotUpgraded);
    };
    let (reader, writer) = parts.io.into_inner().into_inner();
    let (unread, reader) = reader.into_inner();
    let pipelined = [&parts.read_buf, unread].concat();
    Ok((websocket(reader.unsplit(writer), pipelined, limits), version))
}

pub(super) fn http_error(error: impl Into<Box<dyn Error + Send + Sync>>) -> AcceptError {
    AcceptError::Http(HttpError(error.into()))
}

/// A WebSocket over a stream that has been upgraded, with what the client sent behind its request
/// without waiting for the answer.
pub(super) fn websocket<S>(stream: S, pipelined: Vec<u8>, limits: &Arc<Limits>) -> Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = WebSocketStream::from_partially_read(
        metered(stream, 0, limits),
        pipelined,
        Role::Server,
        Some(config(limits)),
    );
    // Awaited, it would be kept in the future of the upgrade with all that it is made of.
    let stream = stream.now_or_never().expect("there is nothing to wait for");
    Socket::new(stream, Role::Server, limits)
}

/// An upgrade that is granted.
pub(super) struct Granted<'r> {
    pub(super) version: Version,
    /// What the client calls the version.
    subprotocol: &'r str,
    accept: String,
}

impl Granted<'_> {
    /// The answer that says so, as it is sent.
    fn sent(&self) -> String {
        let before_accept = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                             connection: Upgrade\r\nsec-websocket-accept: ";
        let before_protocol = "\r\nsec-websocket-protocol: ";
        [before_accept, &self.accept, before_protocol, self.subprotocol, "\r\n\r\n"].concat()
    }

    /// The same for the HTTP library.
    pub(super) fn answer(&self) -> Answer {
        const ASCII: &str = "ASCII without controls";
        let mut response = text(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.parse().expect(ASCII));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, self.subprotocol.parse().expect(ASCII));
        response
    }
}

/// What decides on requests.
pub(super) struct Gate<'a> {
    pub(super) options: &'a Options,
    pub(super) state: &'a State,
}

impl Gate<'_> {
    /// What is granted to one request, which has the connection in the place of the client that asked
    /// from then on; or the answer, if it is no upgrade or not granted.
    pub(super) fn judge<'r, B>(
        &self,
        request: &'r Request<B>,
        peer: Option<IpAddr>,
        place: &mut Place,
    ) -> Result<Granted<'r>, Box<Answer>> {
        let path = request.uri().path();
        if path == "/ws" || path.starts_with("/ws/") {
            let address = peer
                .map(|peer| client_address(peer, request.headers(), &self.options.trusted_proxies));
            self.negotiate(request, place, address)
        } else if path == "/api/status" && request.method() == Method::GET {
            Err(Box::new(text(StatusCode::OK, status(self.options.warning))))
        } else {
            Err(Box::new(text(StatusCode::NOT_FOUND, "Not found")))
        }
    }

    /// The upgrade; or the refusal, in the original's order and words where it has any.
    fn negotiate<'r, B>(
        &self,
        request: &'r Request<B>,
        place: &mut Place,
        address: Option<IpAddr>,
    ) -> Result<Granted<'r>, Box<Answer>> {
        let bad_request = |reason: String| {
            tracing::debug!(reason, "upgrade refused");
            Box::new(text(StatusCode::BAD_REQUEST, reason))
        };
        let key = websocket_key(request).ok_or_else(|| bad_request("Bad request".into()))?;
        let (version, subprotocol) = self.version(request.headers()).map_err(bad_request)?;
        if !self.origin_is_allowed(request.headers()) {
            return Err(Box::new(text(StatusCode::FORBIDDEN, "Origin not allowed")));
        }
        self.ready().map_err(|(reason, seconds)| {
            Box::new(later(StatusCode::SERVICE_UNAVAILABLE, reason, seconds))
        })?;
        let limits = &self.options.limits;
        let admitted = address.map_or(Ok(()), |address| place.comes_from(address, limits));
        let admitted = admitted.and_then(|()| place.handshake(limits));
        admitted.map_err(|overload| {
            metrics::limit_hit(overload.name());
            Box::new(self.turn_away(overload))
        })?;
        Ok(Granted { version, subprotocol, accept: derive_accept_key(key.as_bytes()) })
    }

    /// The newest version that is offered and spoken here, and what the client calls it.
    fn version<'a>(&self, headers: &'a HeaderMap) -> Result<(Version, &'a str), String> {
        let versions = &self.options.versions;
        let newest = offers(headers).max().ok_or("Missing satellite websocket subprotocol")?;
        let is_spoken = |(version, _): &(Version, &str)| versions.contains(version);
        let spoken = Some(newest).filter(is_spoken);
        spoken.or_else(|| offers(headers).filter(is_spoken).max()).ok_or_else(|| {
            format!(
                "Cannot connect satellite version {}.{}.0: this server requires >= {}.{}.0 and <= {}",
                newest.0.major,
                newest.0.minor,
                versions.start().major,
                versions.start().minor,
                last_release(*versions.end()),
            )
        })
    }

    /// Whether the page that opens the WebSocket may. Programs that are no browser do not say
    /// where they come from, and may.
    fn origin_is_allowed(&self, headers: &HeaderMap) -> bool {
        match (&self.options.origins, headers.get(ORIGIN)) {
            (Some(origins), Some(origin)) => origins.iter().any(|allowed| origin == allowed),
            _ => true,
        }
    }

    /// Whether clients can be served now; or why not, and after how many seconds to come back.
    pub(super) fn ready(&self) -> Result<(), (String, u32)> {
        if let Some(&seconds) = self.state.draining.get() {
            return Err(("The service stops".into(), seconds));
        }
        let readiness = self.options.readiness.as_ref().map_or(Ok(()), |readiness| {
            let tell = || tracing::error!("the readiness of the service panicked");
            // A service that cannot tell is not ready.
            survive_call(|| readiness(), tell).unwrap_or_else(|| Err("that cannot be told".into()))
        });
        readiness.map_err(|reason| (format!("The service is not ready: {reason}"), NOT_READY_RETRY))
    }

    /// The answer beyond a limit.
    pub(super) fn turn_away(&self, overload: Overload) -> Answer {
        tracing::debug!(reason = overload.name(), "turned away");
        let status = match overload.is_personal() {
            true => StatusCode::TOO_MANY_REQUESTS,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let seconds = retry_after(overload, &self.options.limits);
        later(status, format!("Try again later: {}", overload.name()), seconds)
    }
}

/// A refusal that will not last.
fn later(status: StatusCode, reason: String, seconds: u32) -> Answer {
    let mut response = text(status, reason);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

/// That the service is up, and what must not be overlooked.
fn status(warning: Option<&str>) -> String {
    let warning = warning.map(|warning| format!(". WARNING: {warning}"));
    format!("The Satellite service is up{}", warning.as_deref().unwrap_or_default())
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// The key of a valid WebSocket upgrade
/// ([RFC 6455 §4.2.1](https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1)). Like the original,
/// it takes any key. What may come only once must not come twice, for a proxy may have read the
/// other one (RFC 6455 §11.3.1 and §11.3.5,
/// [RFC 9112 §3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2)).
fn websocket_key<B>(request: &Request<B>) -> Option<&HeaderValue> {
    let headers = request.headers();
    let valid = request.method() == Method::GET
        && request.version() == hyper::Version::HTTP_11
        && only(headers, &HOST).is_some()
        && tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"))
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && only(headers, &SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    only(headers, &SEC_WEBSOCKET_KEY).filter(|_| valid)
}

/// The value of a header that comes exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

/// The protocol versions among the subprotocols, which may come in several lines and in lists
/// ([RFC 6455 §11.3.4](https://www.rfc-editor.org/rfc/rfc6455#section-11.3.4)).
fn offers(headers: &HeaderMap) -> impl Iterator<Item = (Version, &str)> {
    tokens(headers, &SEC_WEBSOCKET_PROTOCOL).filter_map(|token| Some((token.parse().ok()?, token)))
}

/// The last release that speaks a version, as it stands in a refusal.
fn last_release(version: Version) -> String {
    let patch = if version == Version::V0_12 { 1 } else { 0 };
    format!("{}.{}.{patch}", version.major, version.minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_come_only_once_must_not_come_twice() {
        let lines = [
            (HOST, "localhost"),
            (UPGRADE, "websocket"),
            (CONNECTION, "Upgrade"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let request = |twice: Option<&HeaderName>| {
            let mut request = Request::new(());
            for (name, value) in &lines {
                let times = if Some(name) == twice { 2 } else { 1 };
                for _ in 0..times {
                    request.headers_mut().append(name, HeaderValue::from_static(value));
                }
            }
            request
        };
        assert!(websocket_key(&request(None)).is_some());
        for name in [HOST, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY] {
            assert!(websocket_key(&request(Some(&name))).is_none(), "{name}");
        }
        // Lists may be spread over lines.
        for name in [UPGRADE, CONNECTION] {
            assert!(websocket_key(&request(Some(&name))).is_some(), "{name}");
        }
    }
}
