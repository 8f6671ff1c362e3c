//! HTTP and WebSocket by the byte: what a client sends, and how it reads what a server says. Shared
//! by the clients with manners (`peers`) and without (`raw`).
#![allow(dead_code, reason = "each test uses a part of it")]

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

/// An answer to an HTTP request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// After how many seconds to come back.
    pub(crate) fn retry_after(&self) -> Option<u32> {
        self.header("retry-after").map(|seconds| seconds.parse().expect("whole seconds"))
    }
}

/// Reads one answer. Nothing if the stream ends before it has.
pub(crate) async fn read_answer<S>(stream: &mut S) -> Option<Answer>
where
    S: AsyncRead + Unpin + ?Sized,
{
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a text");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let mut answer = Answer { status, head, body: String::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().expect("one"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    answer.body = String::from_utf8(body).expect("a text");
    Some(answer)
}

/// A client's frame, masked: the first byte holds FIN and the opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a client's frame, with its mask. It may lie about the length.
pub(crate) fn frame_head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The opcode and the payload of a server's next frame; nothing at the end of the stream.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Bytes)> {
    let first = stream.read_u8().await.ok()?;
    assert_eq!(first & 0xf0, 0x80, "a server's messages are whole and without extensions");
    let length = match stream.read_u8().await.ok()? {
        126 => stream.read_u16().await.ok()?.into(),
        127 => stream.read_u64().await.ok()?,
        length => {
            assert!(length < 126, "a server's frames are not masked");
            length.into()
        }
    };
    let mut payload = vec![0; usize::try_from(length).expect("a length that fits")];
    stream.read_exact(&mut payload).await.ok()?;
    Some((first & 0x0f, payload.into()))
}
