//! A WebSocket as a session's driver needs it.

use std::{
    future::poll_fn,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                FrameHeader,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use crate::session::{Close, Fault, Input};

use super::{Limits, metered::Metered};

/// The WebSocket, what of it is unflushed, and the limit that holds now.
pub(crate) struct Socket<S> {
    /// Boxed, because futures keep a copy of what is moved into them.
    stream: Box<WebSocketStream<Metered<S>>>,
    role: Role,
    flushed: bool,
    /// The library has nothing that has not left.
    library_flushed: bool,
    /// The network takes no more for now.
    full: bool,
    /// Messages may have the size that the WebSocket is configured with.
    authenticated: bool,
    /// Answers to pings that have not left.
    owed: u8,
    limits: Arc<Limits>,
}

/// How many bytes a payload has that goes past the library, which would copy it, and keep room for
/// as much as long as the connection lives. Smaller ones leave several at a time.
const LARGE: usize = 32 * 1024;

/// How many pings may wait for their answers to leave before no more is read.
const MAX_OWED: u8 = 64;

/// What happened on a socket.
pub(super) enum Happened {
    /// Something that was queued has left. If the network was full, it has room again, because the
    /// peer has taken something.
    Sent { was_full: bool },
    /// A ping or a pong came, or a part of a message.
    Heard,
    /// Something came that concerns the session.
    Input(Input),
}

/// What a peer may send before it is authenticated: the rest of a head of this size, one message,
/// and what may come around it.
pub(crate) fn metered<S>(stream: S, head: usize, limits: &Limits) -> Metered<S> {
    let message = limits.max_message_before_auth + 2 * limits.read_buffer;
    Metered::new(stream, head.saturating_add(message))
}

/// The configuration of the library that these limits ask for.
pub(crate) fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        // Allocated for every connection, and cleared at every read.
        .read_buffer_size(limits.read_buffer)
        .max_message_size(Some(limits.max_message))
        .max_frame_size(Some(limits.max_message))
}

/// The head of a server's binary message that is one frame
/// ([RFC 6455 §5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)).
fn head(payload: &Bytes) -> Bytes {
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    let mut head = Vec::with_capacity(MAX_HEAD);
    header.format(payload.len() as u64, &mut head).expect("a vector takes everything");
    head.into()
}

/// How many bytes the longest head has that no mask is in.
const MAX_HEAD: usize = 10;

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A WebSocket before authentication.
    pub(crate) fn new(
        stream: WebSocketStream<Metered<S>>,
        role: Role,
        limits: &Arc<Limits>,
    ) -> Socket<S> {
        Socket {
            stream: Box::new(stream),
            role,
            flushed: true,
            library_flushed: true,
            full: false,
            authenticated: false,
            owed: 0,
            limits: Arc::clone(limits),
        }
    }

    /// The peer is authenticated: messages may have the size that the WebSocket is configured with.
    pub(super) fn authenticated(&mut self) {
        self.authenticated = true;
        self.stream.get_mut().lift_budget();
    }

    /// How many bytes the network has taken.
    pub(super) fn written(&self) -> u64 {
        self.stream.get_ref().written()
    }

    /// Queues a ping.
    pub(super) fn ping(&mut self) {
        self.queued();
        let _ = self.stream.start_send_unpin(Message::Ping(Bytes::new()));
    }

    /// Whether everything fed has left.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed
    }

    /// Queues a binary message, to be sent while [`Socket::next`] is awaited. An error shows
    /// there as well.
    pub(super) fn feed(&mut self, payload: Bytes) {
        // What a client sends is masked, and so copied. And what the library has begun to write
        // comes first.
        if self.role == Role::Server && payload.len() >= LARGE && self.library_flushed {
            self.flushed = false;
            self.stream.get_mut().write_ahead(head(&payload), payload);
        } else {
            self.queued();
            let _ = self.stream.start_send_unpin(Message::Binary(payload));
        }
    }

    /// The library has something that has not left.
    fn queued(&mut self) {
        self.flushed = false;
        self.library_flushed = false;
    }

    /// Sends what is queued and, if input is wanted, waits for some. Cancel-safe.
    pub(super) async fn next(&mut self, wants_input: bool) -> Happened {
        poll_fn(|cx| {
            if !self.flushed {
                let before = self.written();
                match self.stream.poll_flush_unpin(cx) {
                    Poll::Ready(flushed) => {
                        self.flushed = true;
                        self.library_flushed = true;
                        self.owed = 0;
                        return Poll::Ready(match flushed {
                            Ok(()) => Happened::Sent { was_full: mem::take(&mut self.full) },
                            Err(error) => Happened::Input(self.failed(&error)),
                        });
                    }
                    Poll::Pending if self.written() > before => {
                        let was_full = mem::take(&mut self.full);
                        return Poll::Ready(Happened::Sent { was_full });
                    }
                    Poll::Pending => self.full = true,
                }
            }
            // A peer that pings and does not read must not make us keep its pongs.
            if wants_input && self.owed < MAX_OWED { self.poll_input(cx) } else { Poll::Pending }
        })
        .await
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        let before = self.stream.get_ref().received();
        let message = match self.stream.poll_next_unpin(cx) {
            Poll::Ready(Some(message)) => message,
            Poll::Ready(None) => return Poll::Ready(Happened::Input(Input::Closed(None))),
            Poll::Pending if self.stream.get_ref().received() > before => {
                return Poll::Ready(Happened::Heard);
            }
            Poll::Pending => return Poll::Pending,
        };
        let input = match message {
            Ok(Message::Ping(_)) => {
                // The library has queued an answer.
                self.queued();
                self.owed += 1;
                return Poll::Ready(Happened::Heard);
            }
            Ok(Message::Pong(_) | Message::Frame(_)) => return Poll::Ready(Happened::Heard),
            Ok(Message::Binary(payload)) if self.is_too_large(&payload) => {
                Input::Fault(Fault::TooLarge)
            }
            // Copied, for as long as what is read keeps the buffer, the library goes on in a new
            // one, no larger than the next message: a system call for each.
            Ok(Message::Binary(payload)) if payload.len() <= self.limits.read_buffer => {
                Input::Binary(Bytes::copy_from_slice(&payload).into())
            }
            Ok(Message::Binary(payload)) => Input::Binary(payload.into()),
            Ok(Message::Text(_)) => Input::Fault(Fault::Text),
            Ok(Message::Close(frame)) => Input::Closed(frame.map(|frame| Close {
                code: frame.code.into(),
                reason: frame.reason.as_str().to_owned().into(),
            })),
            Err(error) => self.failed(&error),
        };
        Poll::Ready(Happened::Input(input))
    }

    fn is_too_large(&self, payload: &[u8]) -> bool {
        !self.authenticated && payload.len() > self.limits.max_message_before_auth
    }

    /// What an error of the WebSocket library means to a session.
    fn failed(&self, error: &Error) -> Input {
        match error {
            Error::Capacity(_) => Input::Fault(Fault::TooLarge),
            Error::Utf8(_) => Input::Fault(Fault::NotUtf8),
            // A peer that vanishes is reported as a breach of the protocol.
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Input::Closed(None),
            Error::Protocol(_) => Input::Fault(Fault::Protocol),
            _ if self.stream.get_ref().is_exhausted() => Input::Fault(Fault::TooLarge),
            _ => Input::Closed(None),
        }
    }

    /// Sends the close, or echoes the peer's, and lets the peer read it.
    ///
    /// A socket that is closed with input unread is reset, which loses what the peer has not read
    /// yet; so the sending side is shut, and what still arrives is read and thrown away.
    pub(super) async fn finish(&mut self, close: Option<&Close>) {
        let last_words = async {
            match close {
                Some(Close { code, reason }) => {
                    let code = CloseCode::from(*code);
                    let reason = reason.as_ref().into();
                    self.stream.close(Some(CloseFrame { code, reason })).await.ok();
                }
                // The peer has closed, and sends nothing more.
                None => {
                    self.stream.flush().await.ok();
                    self.stream.get_mut().shutdown().await.ok();
                    return;
                }
            }
            let stream = self.stream.get_mut();
            stream.lift_budget();
            stream.shutdown().await.ok();
            let mut discarded = vec![0; 4096];
            while stream.read(&mut discarded).await.is_ok_and(|read| read > 0) {}
        };
        let _ = timeout(self.limits.close_timeout, last_words).await;
    }
}
