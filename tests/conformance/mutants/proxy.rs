//! Something between a client and a server that reads every frame, and passes on what it likes.

use electric_satellite::wire::Message;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split,
};

/// A WebSocket frame, without its mask.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// FIN, reserved bits and opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
    /// Whether it is masked on its way.
    pub(crate) masked: bool,
}

impl Frame {
    /// The message in it, if it is a whole one of this protocol.
    pub(crate) fn message(&self) -> Option<Message> {
        let whole = self.first == 0x82;
        whole.then(|| Message::decode(self.payload.clone().into()).ok())?
    }

    /// The same frame with another message.
    pub(crate) fn with(&self, message: &Message) -> Frame {
        Frame { payload: message.encode().to_vec(), ..self.clone() }
    }

    pub(crate) fn is(&self, opcode: u8) -> bool {
        self.first & 0x0f == opcode
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.first];
        let bit = if self.masked { 0x80 } else { 0 };
        match self.payload.len() {
            length @ ..126 => bytes.push(bit | length as u8),
            length @ ..0x1_0000 => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if self.masked {
            // A mask of nothing is a mask.
            bytes.extend([0; 4]);
        }
        bytes.extend(&self.payload);
        bytes
    }
}

/// Where a frame goes.
#[derive(Clone, Debug)]
pub(super) enum Pass {
    /// On its way.
    On(Frame),
    /// Back to where it came from, as if the other end had sent it.
    Back(Frame),
}

/// Alters what passes. What it does not say goes on as it is.
pub(super) trait Tamper: Send {
    /// The head of the request, with the empty line at its end.
    fn request(&mut self, head: String) -> String {
        head
    }

    /// The head of the answer, with the empty line at its end.
    fn answer(&mut self, head: String) -> String {
        head
    }

    /// A frame of the client.
    fn of_client(&mut self, frame: Frame) -> Vec<Pass> {
        vec![Pass::On(frame)]
    }

    /// A frame of the server.
    fn of_server(&mut self, frame: Frame) -> Vec<Pass> {
        vec![Pass::On(frame)]
    }

    /// Whether the end of the server's stream is passed on.
    fn ends_with_server(&self) -> bool {
        true
    }

    /// Whether the end of the client's stream is passed on.
    fn ends_with_client(&self) -> bool {
        true
    }
}

/// Passes between a client and a server until either is gone.
pub(super) async fn between(
    client: DuplexStream,
    server: DuplexStream,
    mut tamper: Box<dyn Tamper>,
) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let Some(head) = read_head(&mut from_client).await else { return };
    let _ = to_server.write_all(tamper.request(head).as_bytes()).await;
    let Some(head) = read_head(&mut from_server).await else { return };
    let upgraded = head.starts_with("HTTP/1.1 101");
    let _ = to_client.write_all(tamper.answer(head).as_bytes()).await;
    if !upgraded {
        // A body, and whatever comes after it.
        let _ = tokio::join!(
            tokio::io::copy(&mut from_client, &mut to_server),
            tokio::io::copy(&mut from_server, &mut to_client),
        );
        return;
    }
    let (mut client_ended, mut server_ended) = (false, false);
    let (mut of_client, mut of_server) = (Reader::default(), Reader::default());
    while !(client_ended && server_ended) {
        tokio::select! {
            frame = of_client.next(&mut from_client), if !client_ended => match frame {
                Some(frame) => {
                    for pass in tamper.of_client(frame) {
                        deliver(pass, &mut to_server, &mut to_client).await;
                    }
                }
                None => {
                    client_ended = true;
                    if tamper.ends_with_client() {
                        let _ = to_server.shutdown().await;
                    }
                }
            },
            frame = of_server.next(&mut from_server), if !server_ended => match frame {
                Some(frame) => {
                    for pass in tamper.of_server(frame) {
                        deliver(pass, &mut to_client, &mut to_server).await;
                    }
                }
                None => {
                    server_ended = true;
                    if tamper.ends_with_server() {
                        let _ = to_client.shutdown().await;
                    }
                }
            },
        }
    }
}

async fn deliver<A, B>(pass: Pass, on: &mut WriteHalf<A>, back: &mut WriteHalf<B>)
where
    A: AsyncWrite,
    B: AsyncWrite,
{
    // Whoever is gone misses it.
    let _ = match pass {
        Pass::On(frame) => on.write_all(&frame.bytes()).await,
        Pass::Back(frame) => back.write_all(&frame.bytes()).await,
    };
}

pub(crate) async fn read_head<S: AsyncRead>(stream: &mut ReadHalf<S>) -> Option<String> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Reads frames. Dropped in the middle of one, it goes on where it was.
#[derive(Default)]
pub(crate) struct Reader(Vec<u8>);

impl Reader {
    pub(crate) async fn next<S: AsyncRead>(&mut self, stream: &mut ReadHalf<S>) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            if stream.read_buf(&mut self.0).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let (first, second) = (*self.0.first()?, *self.0.get(1)?);
        let masked = second & 0x80 != 0;
        let (length, head) = match second & 0x7f {
            126 => (u16::from_be_bytes(self.0.get(2..4)?.try_into().ok()?).into(), 4),
            127 => (u64::from_be_bytes(self.0.get(2..10)?.try_into().ok()?), 10),
            length => (length.into(), 2),
        };
        let head: usize = head + if masked { 4 } else { 0 };
        let length = usize::try_from(length).ok()?;
        let mut payload = self.0.get(head..head.checked_add(length)?)?.to_vec();
        if masked {
            let mask: [u8; 4] = self.0[head - 4..head].try_into().ok()?;
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        self.0.drain(..head + length);
        Some(Frame { first, payload, masked })
    }
}
