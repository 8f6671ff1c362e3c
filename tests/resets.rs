//! A connection that breaks after any byte of the handshake: reset, ended or silent. Each end
//! finishes in time, and nothing is left of it.

mod raw;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use electric_satellite::{
    auth::JwtAuthenticator,
    client::{ConnectError, Connector},
    registry::{DuplicatePolicy, InProcessRegistry},
    server::{Server, empty_database},
    session::{Cause, ClientId, Violation},
    transport::Limits,
    wire::{
        Reply,
        proto::{
            SatAuthResp, SatInStartReplicationReq, SatShapeDef, SatShapeReq, SatSubsReq,
            sat_shape_def::Select,
        },
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    time::{Instant, timeout},
};

use raw::{WebSocket, authenticate, call, server_frame, unsigned_token, upgrade_request};

/// Longer than all deadlines of an end together. Time is simulated.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// It is reset: reading and writing fail.
    Reset,
    /// The peer ends it, and takes what it is sent.
    End,
    /// Nothing comes any more, and what is sent is lost.
    Silence,
}

const ALL: [How; 3] = [How::Reset, How::End, How::Silence];

/// A stream that breaks after so many bytes were read.
struct Breaking {
    stream: DuplexStream,
    left: usize,
    how: How,
    /// How many bytes come at once, at most.
    at_once: usize,
}

impl Breaking {
    fn is_broken(&self) -> bool {
        self.left == 0
    }
}

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_broken() {
            return match self.how {
                How::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                How::End => Poll::Ready(Ok(())),
                How::Silence => Poll::Pending,
            };
        }
        let room = self.left.min(self.at_once).min(buffer.remaining());
        let mut part = vec![0; room];
        let mut part = ReadBuf::new(&mut part);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part)?;
        self.left -= part.filled().len();
        buffer.put_slice(part.filled());
        read.map(Ok)
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.how {
            How::Reset if self.is_broken() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            How::Silence if self.is_broken() => Poll::Ready(Ok(bytes.len())),
            _ => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection whose first end breaks, and whose other end is not read before it is awaited.
fn breaking(left: usize, how: How, at_once: usize) -> (Breaking, DuplexStream) {
    let (ours, theirs) = duplex(1024 * 1024);
    (Breaking { stream: ours, left, how, at_once }, theirs)
}

const CLIENT_ID: &str = "client";

/// A server, its registry, and a client that may be let in.
#[derive(Clone)]
struct House {
    server: Server<JwtAuthenticator, InProcessRegistry>,
    registry: InProcessRegistry,
}

impl House {
    fn new() -> House {
        let registry = InProcessRegistry::new(DuplicatePolicy::Wait, Duration::from_secs(1));
        let server = Server::new(JwtAuthenticator::insecure(None)).with_registry(registry.clone());
        House { server, registry }
    }

    /// A good client is let in, while there may be something left of another.
    async fn lets_in_another(&self, case: &str) {
        let (ours, theirs) = duplex(64 * 1024);
        let server = self.server.clone();
        let serving = tokio::spawn(async move {
            let connection = server.accept(theirs).await.expect("it is let in");
            empty_database(connection).await;
        });
        let upgraded = client().upgrade(ours).await.expect("it is upgraded");
        let client_id = ClientId::new(CLIENT_ID).expect("an id");
        let connection = upgraded.authenticate(&client_id, unsigned_token()).await;
        let connection = connection.unwrap_or_else(|error| panic!("{case}: {error}"));
        let start = SatInStartReplicationReq::default();
        let started = connection.call(start, FOR_EVER).await;
        assert!(started.is_ok_and(|started| started.err.is_none()), "{case}");
        drop(connection);
        serving.await.expect("no panic");
    }

    /// Nothing is left of anybody.
    async fn is_empty_in_the_end(&self, case: &str) {
        let mut connections = self.server.connections();
        let empty = timeout(FOR_EVER, connections.wait_for(|count| *count == 0)).await;
        assert!(empty.is_ok_and(|count| count.is_ok()), "{case}: a connection is left");
        assert!(self.registry.is_empty(), "{case}: a place is taken");
    }
}

fn client() -> Connector {
    Connector::new("ws://localhost").expect("a URL")
}

/// Each break of the client's connection, as the server sees it.
async fn the_server_sees(how: How, at_once: usize) {
    let house = House::new();
    let limits = Limits::default();
    let upgrade = upgrade_request("").into_bytes();
    let auth = authenticate(CLIENT_ID, &unsigned_token());
    let start = call(SatInStartReplicationReq::default(), 2);
    let authenticated = upgrade.len() + auth.len();
    let bytes = [upgrade, auth, start].concat();
    for cut in 0..=bytes.len() {
        let case = &format!("{how:?} after {cut} bytes, {at_once} at once");
        let (server_end, mut client_end) = breaking(cut, how, at_once);
        client_end.write_all(&bytes).await.expect("there is room");
        let began = Instant::now();
        let accepted = timeout(FOR_EVER, house.server.accept(server_end)).await;
        let accepted = accepted.unwrap_or_else(|_| panic!("{case}: it waits for ever"));
        let most = limits.upgrade_timeout + limits.auth_timeout + limits.close_timeout;
        assert!(began.elapsed() <= most, "{case}: {:?}", began.elapsed());
        // What is read together with the reset may not be answered any more.
        if how == How::Reset && at_once > 1 {
            assert!(accepted.is_err() || cut >= authenticated, "{case}");
        } else {
            assert_eq!(accepted.is_ok(), cut >= authenticated, "{case}");
        }
        let serving = accepted.ok().map(|connection| tokio::spawn(empty_database(connection)));
        // One that is lost and not known to be counts as there, until another comes.
        house.lets_in_another(case).await;
        if let Some(serving) = serving {
            let served = timeout(FOR_EVER, serving).await;
            served.unwrap_or_else(|_| panic!("{case}: its handler stays")).expect("no panic");
        }
        house.is_empty_in_the_end(case).await;
        drop(client_end);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_survives_a_break_after_every_byte() {
    for how in ALL {
        the_server_sees(how, usize::MAX).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_survives_a_break_after_every_byte_that_comes_alone() {
    for how in ALL {
        the_server_sees(how, 1).await;
    }
}

/// A silent peer that nobody replaces is found out by its silence.
#[tokio::test(start_paused = true)]
async fn silence_is_noticed_without_a_newcomer() {
    let house = House::new();
    let upgrade = upgrade_request("").into_bytes();
    let bytes = [upgrade, authenticate(CLIENT_ID, &unsigned_token())].concat();
    let (server_end, mut client_end) = breaking(bytes.len(), How::Silence, usize::MAX);
    client_end.write_all(&bytes).await.expect("there is room");
    let connection = house.server.accept(server_end).await.expect("it is let in");
    assert_eq!(house.registry.len(), 1);
    let began = Instant::now();
    empty_database(connection).await;
    let limits = Limits::default();
    let deadline = limits.ping_interval.expect("it pings") + limits.ping_timeout;
    assert!(began.elapsed() >= deadline, "{:?}", began.elapsed());
    assert!(began.elapsed() <= deadline + Duration::from_secs(1), "{:?}", began.elapsed());
    house.is_empty_in_the_end("silence").await;
}

/// One that does not take its answers is not listened to any more. It counts as lost all the same,
/// so that its client can come back.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_lost_with_answers_unread_comes_back() {
    let house = House::new();
    let (server_end, client_end) = duplex(64 * 1024);
    let server = house.server.clone();
    let serving = tokio::spawn(async move {
        let connection = server.accept(server_end).await.expect("it is let in");
        empty_database(connection).await;
    });
    let mut socket = WebSocket::open(client_end, "").await.expect("it is upgraded");
    socket.send(&authenticate(CLIENT_ID, &unsigned_token())).await;
    socket.next().await.expect("a welcome");
    let select = Select { tablename: "t".repeat(20), ..Default::default() };
    let shape = SatShapeDef { selects: vec![select; 1_000] };
    let question = SatSubsReq {
        subscription_id: "00000000-0000-4000-8000-000000000000".into(),
        shape_requests: vec![SatShapeReq { request_id: "r".into(), shape_definition: Some(shape) }],
    };
    let question = call(question, 2);
    for n in 0.. {
        assert!(n < 200, "it is listened to for ever");
        if timeout(Duration::from_secs(1), socket.send(&question)).await.is_err() {
            break;
        }
    }
    house.lets_in_another("answers unread").await;
    serving.await.expect("no panic");
    house.is_empty_in_the_end("answers unread").await;
}

/// What a good server says to a client, up to the answer to `authenticate`.
async fn say_welcome(mut stream: DuplexStream) -> (DuplexStream, usize, usize) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    let head = String::from_utf8(head).expect("a text");
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value.trim())
    });
    let salted = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.expect("a key"));
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, salted.as_bytes()));
    let upgraded = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Protocol: electric.0.12\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let welcome = Reply::from(SatAuthResp { id: "server".into(), headers: vec![] }).encode(1);
    let welcome = server_frame(&welcome);
    // Nobody may be there any more to say so, or to be told.
    let _ = stream.write_all(upgraded.as_bytes()).await;
    let _ = stream.read_u8().await;
    let _ = stream.write_all(&welcome).await;
    (stream, upgraded.len(), upgraded.len() + welcome.len())
}

/// Each break of the server's connection, as the client sees it.
async fn the_client_sees(how: How, at_once: usize) {
    let limits = Limits::default();
    let mut cut = 0;
    loop {
        let case = &format!("{how:?} after {cut} bytes, {at_once} at once");
        let (client_end, server_end) = breaking(cut, how, at_once);
        // Where the connection is broken at once, the request may not arrive.
        let server = tokio::spawn(say_welcome(server_end));
        let began = Instant::now();
        let connecting = async {
            let client_id = ClientId::new(CLIENT_ID).expect("an id");
            client().upgrade(client_end).await?.authenticate(&client_id, unsigned_token()).await
        };
        let connected = timeout(FOR_EVER, connecting).await;
        let connected = connected.unwrap_or_else(|_| panic!("{case}: it waits for ever"));
        let most = limits.upgrade_timeout + limits.auth_timeout + limits.close_timeout;
        assert!(began.elapsed() <= most, "{case}: {:?}", began.elapsed());
        if cut == 0 {
            server.abort();
            assert!(connected.is_err(), "{case}");
            cut += 1;
            continue;
        }
        let (_server_end, upgraded, welcomed) = server.await.expect("it says so");
        match connected {
            Ok(mut connection) => {
                assert!(cut >= welcomed, "{case}");
                // It ends, by what has become of its connection.
                let end = timeout(FOR_EVER, connection.recv()).await;
                assert!(end.is_ok_and(|event| event.is_none()), "{case}");
                let cause = &timeout(FOR_EVER, connection.closed()).await.expect("an end").cause;
                match how {
                    How::Reset | How::End => assert_eq!(*cause, Cause::Peer(None), "{case}"),
                    How::Silence => assert!(matches!(cause, Cause::Violation(_)), "{case}"),
                }
                return;
            }
            Err(error) if cut < upgraded => match how {
                How::Silence => assert!(matches!(error, ConnectError::TimedOut(_)), "{case}"),
                How::Reset | How::End => {
                    assert!(matches!(error, ConnectError::UpgradeFailed(_)), "{case}: {error:?}");
                }
            },
            Err(ConnectError::Ended(end)) if cut < welcomed => match how {
                How::Silence => {
                    assert_eq!(end.cause, Cause::Violation(Violation::AuthTimeout), "{case}");
                }
                How::Reset | How::End => assert_eq!(end.cause, Cause::Peer(None), "{case}"),
            },
            Err(error) => panic!("{case}: {error:?}"),
        }
        cut += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_survives_a_break_after_every_byte() {
    for how in ALL {
        the_client_sees(how, usize::MAX).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_survives_a_break_after_every_byte_of_small_parts() {
    // Smaller ones in such numbers the WebSocket library takes for an attack.
    for how in ALL {
        the_client_sees(how, 3).await;
    }
}
