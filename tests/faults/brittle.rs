//! A stream that does what it is told at one poll of all.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::Notify,
    time::{Sleep, sleep},
};

/// What happens to a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It fails, and so does every one after it.
    Fails,
    /// It takes this long, and all that come meanwhile. Then it goes on.
    Takes(Duration),
    /// Somebody is told; see [`Fate::strikes`].
    Tells,
}

/// At which poll what happens. Reads, writes, flushes and shutdowns all count.
pub(crate) struct Fate {
    at: usize,
    mishap: Mishap,
    state: Mutex<State>,
    struck: Notify,
}

#[derive(Default)]
struct State {
    polls: usize,
    failed: bool,
    delay: Option<Pin<Box<Sleep>>>,
}

impl Fate {
    pub(crate) fn new(at: usize, mishap: Mishap) -> Arc<Fate> {
        Arc::new(Fate { at, mishap, state: Mutex::default(), struck: Notify::new() })
    }

    /// How many polls there were.
    pub(crate) fn polls(&self) -> usize {
        self.state.lock().expect("no panic").polls
    }

    /// Waits for the poll.
    pub(crate) async fn strikes(&self) {
        self.struck.notified().await;
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.lock().expect("no panic");
        if state.polls == self.at {
            match self.mishap {
                Mishap::Fails => state.failed = true,
                Mishap::Takes(time) => state.delay = Some(Box::pin(sleep(time))),
                Mishap::Tells => self.struck.notify_one(),
            }
        }
        state.polls += 1;
        if state.failed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(delay) = &mut state.delay {
            std::task::ready!(delay.as_mut().poll(cx));
            state.delay = None;
        }
        Poll::Ready(Ok(()))
    }
}

/// One end of a stream in memory, and its fate.
pub(crate) struct Brittle {
    inner: DuplexStream,
    fate: Arc<Fate>,
}

impl Brittle {
    pub(crate) fn new(inner: DuplexStream, fate: &Arc<Fate>) -> Brittle {
        Brittle { inner, fate: Arc::clone(fate) }
    }
}

impl AsyncRead for Brittle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.fate.poll(cx))?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Brittle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.fate.poll(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.fate.poll(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.fate.poll(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Polls a future so many times, and drops it then. Tells what it came to, and how often it was
/// polled.
pub(crate) async fn cut<F: Future>(future: F, polls: usize) -> (Option<F::Output>, usize) {
    let mut future = Some(Box::pin(future));
    let mut polled = 0;
    std::future::poll_fn(|cx| {
        let Some(living) = &mut future else { return Poll::Ready((None, polled)) };
        if polled == polls {
            future = None;
            return Poll::Ready((None, polled));
        }
        polled += 1;
        living.as_mut().poll(cx).map(|output| (Some(output), polled))
    })
    .await
}
