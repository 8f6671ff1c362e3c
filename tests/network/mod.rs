//! A network in memory and in virtual time: streams that take their time, and break after any
//! byte, at any moment and in either direction.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// How many bytes may be under way in one direction.
const WINDOW: usize = 64 * 1024;

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Reading and writing fail, at both ends.
    Reset,
    /// What is written in this direction ends there, and the rest is lost.
    End,
    /// What is written in this direction is lost from there.
    Silence,
}

/// One direction of a connection.
#[derive(Debug)]
struct Lane {
    latency: Duration,
    /// What is under way, and when it arrives. Nothing is the end.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// After how many bytes it breaks, and how.
    breaks: Option<(usize, How)>,
    broken: Option<How>,
    /// Its writer has nothing more to say.
    is_shut: bool,
    /// Its reader is gone.
    is_deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn new(latency: Duration) -> Lane {
        Lane {
            latency,
            under_way: VecDeque::new(),
            bytes: 0,
            breaks: None,
            broken: None,
            is_shut: false,
            is_deaf: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn send(&mut self, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        self.under_way.push_back((Instant::now() + self.latency, bytes));
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn shut(&mut self) {
        if !self.is_shut && self.broken.is_none() {
            self.send(vec![]);
        }
        self.is_shut = true;
    }
}

/// A connection, as the network knows it: the lane from the client and the one to it.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Mutex<[Lane; 2]>>);

impl Link {
    /// A connection with this latency in each direction: the client's end and the server's.
    pub(crate) fn new(latency: Duration) -> (Link, End, End) {
        let link = Link(Arc::new(Mutex::new([Lane::new(latency), Lane::new(latency)])));
        let end = |writes| End { link: link.clone(), writes, arrival: None };
        let (client, server) = (end(0), end(1));
        (link, client, server)
    }

    /// It breaks after so many bytes of the client, or of the server.
    pub(crate) fn break_after(&self, of_client: bool, bytes: usize, how: How) {
        self.lanes()[usize::from(!of_client)].breaks = Some((bytes, how));
    }

    /// It breaks now, in the direction from the client or in the other.
    pub(crate) fn break_now(&self, from_client: bool, how: How) {
        self.broken(usize::from(!from_client), how);
    }

    /// Nobody is there any more, at either end.
    pub(crate) fn is_over(&self) -> bool {
        let lanes = self.lanes();
        lanes.iter().all(|lane| lane.is_deaf)
    }

    fn broken(&self, lane: usize, how: How) {
        let mut lanes = self.lanes();
        if how == How::End {
            lanes[lane].shut();
        }
        lanes[lane].broken.get_or_insert(how);
        if how == How::Reset {
            lanes[1 - lane].broken = Some(How::Reset);
            lanes[lane].broken = Some(How::Reset);
        }
        lanes.iter_mut().for_each(Lane::wake);
    }

    fn lanes(&self) -> MutexGuard<'_, [Lane; 2]> {
        self.0.lock().unwrap()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    link: Link,
    /// The lane that it writes to.
    writes: usize,
    /// When what comes next arrives.
    arrival: Option<Pin<Box<Sleep>>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut lanes = self.link.lanes();
        lanes[self.writes].shut();
        lanes[1 - self.writes].is_deaf = true;
        lanes[1 - self.writes].wake();
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let arrives = {
                let lane = &mut self.link.lanes()[1 - self.writes];
                if lane.broken == Some(How::Reset) {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                lane.reader = Some(cx.waker().clone());
                let Some((arrives, bytes)) = lane.under_way.front_mut() else {
                    return Poll::Pending;
                };
                if *arrives <= Instant::now() {
                    // The end stays where it is.
                    let length = bytes.len().min(buffer.remaining());
                    buffer.put_slice(&bytes[..length]);
                    bytes.drain(..length);
                    if length > 0 && bytes.is_empty() {
                        lane.under_way.pop_front();
                    }
                    lane.bytes -= length;
                    lane.writer.take().into_iter().for_each(Waker::wake);
                    return Poll::Ready(Ok(()));
                }
                *arrives
            };
            let sleep = self.arrival.get_or_insert_with(|| Box::pin(sleep_until(arrives)));
            if sleep.deadline() != arrives {
                sleep.as_mut().reset(arrives);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (lane, breaks) = (self.writes, {
            let lane = &mut self.link.lanes()[self.writes];
            match lane.broken {
                Some(How::Reset) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Some(How::End | How::Silence) => return Poll::Ready(Ok(bytes.len())),
                None if lane.is_deaf || lane.is_shut => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                None if lane.bytes >= WINDOW => {
                    lane.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                None => {}
            }
            let room = bytes.len().min(WINDOW - lane.bytes);
            match &mut lane.breaks {
                Some((left, how)) if *left < room => {
                    let (left, how) = (*left, *how);
                    if left > 0 {
                        lane.send(bytes[..left].to_vec());
                    }
                    Some(how)
                }
                breaks => {
                    if let Some((left, _)) = breaks {
                        *left -= room;
                    }
                    if room > 0 {
                        lane.send(bytes[..room].to_vec());
                    }
                    return Poll::Ready(Ok(room));
                }
            }
        });
        if let Some(how) = breaks {
            self.link.broken(lane, how);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.lanes()[self.writes].shut();
        Poll::Ready(Ok(()))
    }
}
