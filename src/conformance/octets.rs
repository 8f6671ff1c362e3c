//! HTTP and WebSocket by the byte, for what no library would send or take.

use bytes::{Buf, Bytes, BytesMut};

/// The first byte of a whole binary message: FIN and opcode 2
/// ([RFC 6455 §5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)).
pub(super) const BINARY: u8 = 0x82;
pub(super) const TEXT: u8 = 0x81;
pub(super) const CLOSE: u8 = 0x88;
pub(super) const PING: u8 = 0x89;
pub(super) const PONG: u8 = 0x8a;

/// What the suite masks with: any mask will do, and the same one makes runs alike.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The handshake key of RFC 6455 §1.3, and what it must be answered with.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(super) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of an upgrade request, with these header lines.
pub(super) fn upgrade_request(path: &str, lines: &[(String, String)]) -> String {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
    );
    for (name, value) in lines {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// A frame with this first byte, its length in the shortest form or in so many bytes.
pub(super) fn frame(first: u8, payload: &[u8], mask: bool, long: Option<usize>) -> Vec<u8> {
    let mut bytes = vec![first];
    let bit = if mask { 0x80 } else { 0 };
    let length = payload.len();
    match long.unwrap_or(match length {
        0..126 => 0,
        126..0x1_0000 => 2,
        _ => 8,
    }) {
        0 => bytes.push(bit | length as u8),
        2 => {
            bytes.push(bit | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(bit | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    match mask {
        true => {
            bytes.extend(MASK);
            bytes.extend(masked(payload, MASK));
        }
        false => bytes.extend(payload),
    }
    bytes
}

fn masked(payload: &[u8], mask: [u8; 4]) -> impl Iterator<Item = u8> {
    payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask)
}

/// A frame that has arrived.
#[derive(Debug)]
pub(super) struct Frame {
    /// FIN, reserved bits and opcode.
    pub(super) first: u8,
    pub(super) masked: bool,
    pub(super) payload: Bytes,
}

/// Takes a frame off the front of what has arrived, if all of it is there.
pub(super) fn take_frame(buffer: &mut BytesMut) -> Option<Frame> {
    let (first, second) = (*buffer.first()?, *buffer.get(1)?);
    let masked = second & 0x80 != 0;
    let (length, head) = match second & 0x7f {
        126 => (u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?).into(), 4),
        127 => (u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?), 10),
        length => (length.into(), 2),
    };
    let head: usize = head + if masked { 4 } else { 0 };
    let length = usize::try_from(length).ok()?;
    if buffer.len() < head.checked_add(length)? {
        return None;
    }
    let mask: [u8; 4] = match masked {
        true => buffer[head - 4..head].try_into().ok()?,
        false => [0; 4],
    };
    buffer.advance(head);
    let payload = buffer.split_to(length);
    let payload = match masked {
        true => self::masked(&payload, mask).collect(),
        false => Bytes::copy_from_slice(&payload),
    };
    Some(Frame { first, masked, payload })
}

/// The head of an HTTP message and its body.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) head: String,
    pub(super) body: String,
}

impl Http {
    /// The status of an answer.
    pub(super) fn status(&self) -> Option<u16> {
        self.head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()
    }

    /// The first line.
    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Every value of a header.
    pub(super) fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.lines().skip(1).filter_map(move |line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(super) fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.headers(name).next()
    }
}

/// The largest body that is looked at.
const LARGEST: usize = 1024 * 1024;

/// What no HTTP message comes up to, head and body.
pub(super) const LARGEST_HTTP: usize = LARGEST + 64 * 1024;

/// Takes an HTTP message off the front of what has arrived, if all of it is there. Its body is
/// what `Content-Length` says.
pub(super) fn take_http(buffer: &mut BytesMut) -> Option<Http> {
    let end = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut http = Http { head, body: String::new() };
    let length: usize =
        http.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if buffer.len() < end + length.min(LARGEST) {
        return None;
    }
    buffer.advance(end);
    http.body = String::from_utf8_lossy(&buffer.split_to(length.min(LARGEST))).into_owned();
    Some(http)
}
