//! A WebSocket client that sends any frame at all, good or bad.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::recorded::Frame;

/// A client's end after the upgrade.
pub(crate) struct WebSocket {
    stream: BufReader<TcpStream>,
}

impl WebSocket {
    pub(crate) fn new(stream: BufReader<TcpStream>) -> WebSocket {
        WebSocket { stream }
    }

    /// Sends a frame as it is ([RFC 6455 §5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)).
    /// That the server has gone shows when reading.
    pub(crate) async fn send(&mut self, frame: &Frame) {
        let _ = self.stream.write_all(&bytes_of(frame)).await;
    }

    /// The opcode and the payload of the server's next frame; nothing at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(u8, Bytes)> {
        let first = self.stream.read_u8().await.ok()?;
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        assert!(fin && first & 0x70 == 0, "a server's messages are whole and without extensions");
        let length = match self.stream.read_u8().await.ok()? {
            126 => self.stream.read_u16().await.ok()?.into(),
            127 => self.stream.read_u64().await.ok()?,
            length => {
                assert!(length < 126, "a server's frames are not masked");
                length.into()
            }
        };
        let mut payload = vec![0; usize::try_from(length).expect("a length that fits")];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((opcode, payload.into()))
    }

    /// Whether a ping is answered. What else the server says before is handed to `other`.
    pub(crate) async fn is_alive(&mut self, mut other: impl FnMut(u8, Bytes)) -> bool {
        let payload = Bytes::from_static(b"still there?");
        self.send(&Frame::of_client(9, payload.clone())).await;
        while let Some((opcode, answer)) = self.next().await {
            if opcode == 10 && answer == payload {
                return true;
            }
            other(opcode, answer);
        }
        false
    }
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mask_bit = if frame.masked { 0x80 } else { 0 };
    let mut bytes = vec![frame.opcode | if frame.fin { 0x80 } else { 0 }];
    match frame.payload.len() {
        length @ 0..126 => bytes.push(mask_bit | length as u8),
        length @ 126..0x1_0000 => {
            bytes.push(mask_bit | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask_bit | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if frame.masked {
        bytes.extend(MASK);
        bytes.extend(frame.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(&frame.payload);
    }
    bytes
}
