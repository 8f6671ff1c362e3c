//! Counts the bytes underneath a WebSocket, and stops a peer that sends too many. Large frames go
//! past the WebSocket here.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, buf::Chain};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose bytes are counted.
pub(crate) struct Metered<S> {
    stream: S,
    /// How many bytes may still be read; nothing for any number.
    budget: Option<usize>,
    received: u64,
    written: u64,
    /// What leaves before anything that is written from now on: heads of frames, and payloads.
    ahead: VecDeque<Chain<Bytes, Bytes>>,
}

impl<S> Metered<S> {
    /// A stream of which so many bytes may be read.
    pub(crate) fn new(stream: S, budget: usize) -> Metered<S> {
        Metered { stream, budget: Some(budget), received: 0, written: 0, ahead: VecDeque::new() }
    }

    /// Any number of bytes may be read from now on.
    pub(super) fn lift_budget(&mut self) {
        self.budget = None;
    }

    /// Whether the peer has sent more than it may.
    pub(super) fn is_exhausted(&self) -> bool {
        self.budget == Some(0)
    }

    /// How many bytes have come.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// How many bytes the network has taken.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Queues a frame, as it is, in front of all that is written from now on. It leaves with what is
    /// written or flushed next.
    pub(super) fn write_ahead(&mut self, head: Bytes, payload: Bytes) {
        self.ahead.push_back(head.chain(payload));
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.written += bytes as u64;
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_exhausted() {
            return Poll::Ready(Err(io::Error::other("more bytes than are accepted")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.received += read as u64;
        self.budget = self.budget.map(|budget| budget.saturating_sub(read));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Metered<S> {
    /// Nothing is ahead any more.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(frame) = self.ahead.front() {
            let mut slices = [IoSlice::new(&[]); 2];
            let count = frame.chunks_vectored(&mut slices);
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]);
            let written = ready!(self.count(written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let frame = &mut self.ahead[0];
            frame.advance(written);
            if !frame.has_remaining() {
                self.ahead.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ahead(cx))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ahead(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ahead(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ahead(cx))?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
