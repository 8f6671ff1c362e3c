//! The clients of every server. They share two processors with it, so they do no more than is
//! needed to know that they are served.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use electric_satellite::wire::{Message, Method, Reply};
use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use super::servers::{Kind, Manner, Subject, certificate};

/// How many clients are on their way at the same time.
const AT_ONCE: usize = 32;

/// How many are when all of them want to be back.
const IN_A_HURRY: usize = 256;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The request of an upgrade.
pub(crate) const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: electric.0.12\r\n\r\n";

/// A connection, with TLS or without.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Clients of one server, by their numbers.
pub(crate) struct Clients<'a> {
    subject: &'a Subject,
    streams: Vec<Box<dyn Stream>>,
}

impl<'a> Clients<'a> {
    /// So many that are connected, and no more.
    pub(crate) async fn connected(subject: &'a Subject, server: SocketAddr, count: usize) -> Self {
        let connected = (0..count).map(|_| connect(subject, server));
        Clients { subject, streams: all(AT_ONCE, connected).await }
    }

    /// So many that are connected and upgraded.
    pub(crate) async fn upgraded(subject: &'a Subject, server: SocketAddr, count: usize) -> Self {
        let upgraded = async |_| {
            let mut stream = connect(subject, server).await;
            upgrade(subject, &mut stream).await;
            stream
        };
        Clients { subject, streams: all(AT_ONCE, (0..count).map(upgraded)).await }
    }

    /// Each says its one message, and is answered.
    pub(crate) async fn exchange(&mut self) {
        let exchanges = self.streams.iter_mut().enumerate();
        let exchanges = exchanges.map(|(client, stream)| exchange(self.subject, stream, client));
        all(AT_ONCE, exchanges).await;
    }

    /// These are connected, upgraded and answered, each as soon as it can be.
    pub(crate) async fn served(
        subject: &'a Subject,
        server: SocketAddr,
        clients: Range<usize>,
    ) -> Self {
        let served = clients.map(|client| served(subject, server, client));
        Clients { subject, streams: all(AT_ONCE, served).await }
    }

    /// All lose their connections at once, without a word, and come back as fast as they can.
    pub(crate) async fn cut_and_served_again(self, server: SocketAddr) -> Self {
        let Clients { subject, streams } = self;
        let served = (0..streams.len()).map(|client| served(subject, server, client));
        for stream in streams {
            // It is reset when it is dropped.
            stream.tcp().set_zero_linger().unwrap();
        }
        Clients { subject, streams: all(IN_A_HURRY, served).await }
    }

    /// All close, and wait until the server has.
    pub(crate) async fn close(self) {
        let closed = self.streams.into_iter().map(|stream| close(self.subject, stream));
        all(AT_ONCE, closed).await;
    }
}

/// The results, in any order, of so many at a time.
async fn all<T>(at_once: usize, futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let all = stream::iter(futures).buffer_unordered(at_once).collect();
    timeout(PATIENCE, all).await.expect("the server answers")
}

async fn connect(subject: &Subject, server: SocketAddr) -> Box<dyn Stream> {
    /// One for all, as in a process that has many connections.
    static TLS: LazyLock<TlsConnector> = LazyLock::new(|| {
        let authority = CertificateDer::from_pem_file(certificate("authority-a.pem")).unwrap();
        let mut trusted = RootCertStore::empty();
        trusted.add(authority).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Arc::new(config).into()
    });
    let stream = TcpStream::connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match subject.kind {
        Kind::Satellite(Manner::Tls) => {
            Box::new(TLS.connect(server.ip().into(), stream).await.unwrap())
        }
        _ => Box::new(stream),
    }
}

/// One that is connected, upgraded and answered.
pub(crate) async fn served(
    subject: &Subject,
    server: SocketAddr,
    client: usize,
) -> Box<dyn Stream> {
    let mut stream = connect(subject, server).await;
    upgrade(subject, &mut stream).await;
    exchange(subject, &mut stream, client).await;
    stream
}

/// The upgrade and its answer; or the same request, and it again.
async fn upgrade(subject: &Subject, stream: &mut Box<dyn Stream>) {
    stream.write_all(UPGRADE).await.unwrap();
    match subject.kind {
        Kind::Tcp => drop(read(stream, |read| read.len() == UPGRADE.len()).await),
        _ => {
            let answer = read(stream, |read| read.ends_with(b"\r\n\r\n")).await;
            assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", answer.escape_ascii());
        }
    }
}

/// The auth request and its answer; or the same message, and it again.
async fn exchange(subject: &Subject, stream: &mut Box<dyn Stream>, client: usize) {
    let message = subject.message(client);
    let frame = masked(&message);
    stream.write_all(&frame).await.unwrap();
    match subject.kind {
        Kind::Tcp => drop(read(stream, |read| read.len() == frame.len()).await),
        _ => {
            let answer = read(stream, |read| payload(read).is_some()).await;
            let answer = payload(&answer).unwrap();
            let is_right = match subject.kind {
                Kind::Satellite(_) => is_welcome(answer),
                _ => answer == message,
            };
            assert!(is_right, "{}", answer.escape_ascii());
        }
    }
}

/// Closes, and waits until the server has.
pub(crate) async fn close(subject: &Subject, mut stream: Box<dyn Stream>) {
    match subject.kind {
        Kind::Tcp => stream.shutdown().await.unwrap(),
        // 1000, with a mask of zeros.
        _ => stream.write_all(&[0x88, 0x80 | 2, 0, 0, 0, 0, 0x03, 0xe8]).await.unwrap(),
    }
    stream.read_to_end(&mut vec![]).await.unwrap();
}

/// What comes until it is complete.
async fn read(stream: &mut Box<dyn Stream>, is_complete: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut read = Vec::with_capacity(1024);
    while !is_complete(&read) {
        let length = stream.read_buf(&mut read).await.unwrap();
        assert!(length > 0, "closed after {}", read.escape_ascii());
    }
    read
}

/// Whether this is the answer to whoever is authenticated.
fn is_welcome(frame: &[u8]) -> bool {
    let Ok(Message::Response(envelope)) = Message::decode(Bytes::copy_from_slice(frame)) else {
        return false;
    };
    matches!(Reply::decode(Method::Authenticate, envelope), Ok(Reply::Authenticate(_)))
}

/// A binary message as a client's WebSocket sends it, with a mask of zeros
/// ([RFC 6455 §5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)).
pub(crate) fn masked(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    assert!((126..).contains(&length), "shorter ones are written differently");
    [&[0x82, 0x80 | 126][..], &length.to_be_bytes(), &[0; 4], payload].concat()
}

/// The payload of a binary message from a server, once all of it is there.
fn payload(read: &[u8]) -> Option<&[u8]> {
    assert!([None, Some(&0x82)].contains(&read.first()), "{}", read.escape_ascii());
    let (header, length): (usize, usize) = match *read.get(1)? {
        126 => (4, u16::from_be_bytes([*read.get(2)?, *read.get(3)?]).into()),
        length => (2, length.into()),
    };
    read.get(header..header + length)
}
