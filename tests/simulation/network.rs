//! A network in memory, between one service and the hosts of its clients. Every byte takes its time,
//! and what happens to the bytes is decided by a seed.
//!
//! It is our own because turmoil is not made for this. It goes through time in steps of a fixed
//! length, in each of which every host has its turn: a minute of ten idle hosts takes 1.5 s in steps
//! of 10 ms, where paused time leaps from one timer to the next and the whole of a seed takes less
//! than a tenth of that. And what a partition takes from a TCP connection there is never sent again,
//! so that no connection survives one, and none can be cut at a byte of our choice.
//!
//! This is TCP as programs see it: bytes in order, a window, an orderly end, a reset, and silence.
//! Bytes in a link that is held are as good as sent again when it is released. Time is the
//! runtime's, which is paused.

use std::{
    collections::{BTreeMap, VecDeque},
    io, mem,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, mpsc},
    time::{Instant, Sleep, sleep, sleep_until},
};

use crate::random::Random;

/// Where a client is.
pub(crate) type Host = u8;

/// How many bytes may be under way and unread, each way.
const WINDOW: usize = 16 * 1024;

/// The most bytes that travel together.
const SEGMENT: usize = 1400;

/// How long a byte may take each way while nothing is wrong.
pub(crate) const NORMAL: Range<Duration> = Duration::from_millis(1)..Duration::from_millis(30);

/// Which way bytes go; the index of the pipe that they go through.
pub(crate) const UP: usize = 0;
pub(crate) const DOWN: usize = 1;
pub(crate) const BOTH: &[usize] = &[UP, DOWN];

/// The whole of it. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// A link is released, or the service is there again.
    changed: Notify,
}

struct State {
    random: Random,
    links: BTreeMap<Host, Link>,
    site: Site,
    wires: BTreeMap<u64, Wire>,
    /// How many wires there have been.
    count: u64,
}

/// What leads from a host to the service.
struct Link {
    delays: [Range<Duration>; 2],
    held: [bool; 2],
    /// How many new connections out of a hundred break somewhere.
    mishaps: usize,
}

/// What there is at the service's address.
enum Site {
    Listens(mpsc::UnboundedSender<(Host, End)>),
    /// The machine, and nobody who listens.
    Refuses,
    /// Nothing.
    Dark,
}

/// A connection, whose two ends are that of the client and that of the service.
struct Wire {
    host: Host,
    /// To the service, and from it.
    pipes: [Pipe; 2],
    /// When each end last noticed the other.
    noticed: [Noticed; 2],
    /// Which ends are not there any more. Whoever still sends to one gets a reset for it.
    gone: [bool; 2],
    /// The service's end is one of a machine that has crashed: it goes on for itself, unheard.
    orphaned: bool,
}

#[derive(Default)]
struct Pipe {
    /// What is under way or unread, and when it is there.
    queue: VecDeque<(Instant, Bytes)>,
    /// Bytes of the window that are taken.
    taken: usize,
    /// Bytes of these that are read, which whoever sent them does not know yet.
    read: usize,
    /// When what was sent last is there.
    last: Option<Instant>,
    /// When the reader learns that nothing more comes.
    ends: Option<Instant>,
    /// When the reader learns that the connection is reset.
    resets: Option<Instant>,
    /// Nothing is sent any more.
    shut: bool,
    /// What is sent does not arrive.
    lost: bool,
    /// What happens after so many bytes more.
    breaks: Option<(usize, Break)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How a connection breaks.
#[derive(Clone, Copy)]
enum Break {
    /// One way ends, as if there were no more to say.
    End,
    Reset,
    /// Nobody is told.
    Silence,
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn reset(&mut self, at: Instant) {
        self.resets = Some(self.resets.map_or(at, |known| known.min(at)));
        self.wake();
    }

    fn end(&mut self, at: Instant) {
        self.ends.get_or_insert(at);
        self.wake();
    }
}

impl Wire {
    /// What was sent this way is read, and both ends notice the other: that which reads, and if
    /// it learns of it that which has room for more.
    fn is_read(&mut self, way: usize, bytes: usize, back_is_held: bool) {
        self.noticed[1 - way].lock().heard = Instant::now();
        if !self.pipes[1 - way].lost && !self.orphaned {
            self.pipes[way].read += bytes;
            if !back_is_held {
                self.gives_room(way);
            }
        }
    }

    /// The end that sends this way learns what was read.
    fn gives_room(&mut self, way: usize) {
        let pipe = &mut self.pipes[way];
        if pipe.read > 0 {
            pipe.taken -= mem::take(&mut pipe.read);
            pipe.writer.take().into_iter().for_each(Waker::wake);
            self.noticed[way].lock().taken = Instant::now();
        }
    }
}

impl Network {
    /// A network without hosts, in which nobody listens.
    pub(crate) fn new(random: Random) -> Network {
        let state = State {
            random,
            links: BTreeMap::new(),
            site: Site::Refuses,
            wires: BTreeMap::new(),
            count: 0,
        };
        Network(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no panic")
    }

    /// Adds a host, of whose connections so many out of a hundred break by themselves.
    pub(crate) fn add(&self, host: Host, mishaps: usize) {
        let link = Link { delays: [NORMAL, NORMAL], held: [false; 2], mishaps };
        self.lock().links.insert(host, link);
    }

    // The service's machine.

    /// Somebody listens; whoever did so before does not any more. Connections that a machine has
    /// forgotten are reset from now on when something is sent on them.
    pub(crate) fn listen(&self) -> mpsc::UnboundedReceiver<(Host, End)> {
        let (incoming, connections) = mpsc::unbounded_channel();
        self.lock().site = Site::Listens(incoming);
        self.0.changed.notify_waiters();
        connections
    }

    /// Nobody listens any more.
    pub(crate) fn refuse(&self) {
        self.lock().site = Site::Refuses;
        self.0.changed.notify_waiters();
    }

    /// The service's process is killed: its machine resets the connections.
    pub(crate) fn kill(&self) {
        let state = &mut *self.lock();
        state.site = Site::Refuses;
        for wire in state.wires.values_mut().filter(|wire| !wire.orphaned) {
            wire.orphaned = true;
            let at =
                Instant::now() + state.random.time(state.links[&wire.host].delays[DOWN].clone());
            wire.pipes[DOWN].reset(at);
        }
    }

    /// The service's machine has no power any more.
    pub(crate) fn cut_power(&self) {
        let state = &mut *self.lock();
        state.site = Site::Dark;
        state.wires.values_mut().for_each(|wire| wire.orphaned = true);
    }

    // Links.

    /// Nothing gets through these ways until they are released.
    pub(crate) fn hold(&self, host: Host, ways: &[usize]) {
        let state = &mut *self.lock();
        let link = state.links.get_mut(&host).expect("a host");
        ways.iter().for_each(|way| link.held[*way] = true);
    }

    pub(crate) fn release(&self, host: Host) {
        let state = &mut *self.lock();
        state.links.get_mut(&host).expect("a host").held = [false; 2];
        for wire in state.wires.values_mut().filter(|wire| wire.host == host) {
            wire.pipes.iter_mut().for_each(Pipe::wake);
            BOTH.iter().for_each(|way| wire.gives_room(*way));
        }
        self.0.changed.notify_waiters();
    }

    pub(crate) fn set_delays(&self, host: Host, delays: [Range<Duration>; 2]) {
        self.lock().links.get_mut(&host).expect("a host").delays = delays;
    }

    /// All connections of a host are dead these ways from now on, and nobody is told.
    pub(crate) fn lose(&self, host: Host, ways: &[usize]) {
        let state = &mut *self.lock();
        for wire in state.wires.values_mut().filter(|wire| wire.host == host) {
            ways.iter().for_each(|way| wire.pipes[*way].lost = true);
        }
    }

    /// All connections of a host are reset, on both ends.
    pub(crate) fn reset(&self, host: Host) {
        let state = &mut *self.lock();
        for wire in state.wires.values_mut().filter(|wire| wire.host == host) {
            wire.pipes.iter_mut().for_each(|pipe| pipe.reset(Instant::now()));
        }
    }

    /// Everything gets through again, in the usual time, and breaks no more. What is lost is lost.
    pub(crate) fn heal(&self) {
        let hosts: Vec<Host> = self.lock().links.keys().copied().collect();
        for host in hosts {
            self.release(host);
            let state = &mut *self.lock();
            let link = state.links.get_mut(&host).expect("a host");
            link.delays = [NORMAL, NORMAL];
            link.mishaps = 0;
        }
    }

    /// How many connections have an end somewhere.
    pub(crate) fn connections(&self) -> usize {
        self.lock().wires.len()
    }

    /// A connection to the service. Where nobody answers, it is waited for.
    pub(crate) async fn connect(&self, host: Host) -> io::Result<End> {
        self.travel(host, UP).await;
        let ours = loop {
            let changed = self.0.changed.notified();
            {
                let state = &mut *self.lock();
                match &state.site {
                    Site::Listens(incoming) if !incoming.is_closed() => {
                        let incoming = incoming.clone();
                        let wire = state.open(host);
                        let noticed = &state.wires[&wire].noticed;
                        let end = |way: usize| End::of(self, wire, way, noticed[way].clone());
                        let (ours, theirs) = (end(UP), end(DOWN));
                        let sent = incoming.send((host, theirs));
                        break Ok((ours, sent));
                    }
                    Site::Dark => {}
                    _ => break Err(io::ErrorKind::ConnectionRefused),
                }
            }
            changed.await;
        };
        self.travel(host, DOWN).await;
        let (ours, sent) = ours?;
        assert!(sent.is_ok(), "somebody listened");
        Ok(ours)
    }

    /// Takes as long as a byte that is sent now.
    async fn travel(&self, host: Host, way: usize) {
        loop {
            let changed = self.0.changed.notified();
            let delay = {
                let state = &mut *self.lock();
                let link = &state.links[&host];
                (!link.held[way]).then(|| state.random.time(link.delays[way].clone()))
            };
            match delay {
                Some(delay) => return sleep(delay).await,
                None => changed.await,
            }
        }
    }
}

impl State {
    fn open(&mut self, host: Host) -> u64 {
        let mut pipes = [Pipe::default(), Pipe::default()];
        if self.random.percent(self.links[&host].mishaps) {
            // Most often somewhere in the handshake.
            let way = self.random.below(2);
            let after = self.random.below([600, 300][way]);
            let breaks = [Break::End, Break::Reset, Break::Silence][self.random.below(3)];
            pipes[way].breaks = Some((after + 1, breaks));
        }
        self.count += 1;
        let noticed = [Noticed::now(), Noticed::now()];
        let wire = Wire { host, pipes, noticed, gone: [false; 2], orphaned: false };
        self.wires.insert(self.count, wire);
        self.count
    }

    /// When a byte arrives that is sent now.
    fn arrival(&mut self, wire: u64, way: usize) -> Instant {
        let Wire { host, pipes, .. } = &self.wires[&wire];
        let at = Instant::now() + self.random.time(self.links[host].delays[way].clone());
        pipes[way].last.map_or(at, |last| last.max(at))
    }

    /// Sends some of these bytes, or says how many there is room for: none.
    fn send(&mut self, wire: u64, way: usize, bytes: &[u8]) -> usize {
        let at = self.arrival(wire, way);
        let length = match self.random.percent(10) {
            true => 1 + self.random.below(16),
            false => SEGMENT,
        };
        let dark = matches!(self.site, Site::Dark);
        let it = self.wires.get_mut(&wire).expect("it has an end");
        let pipe = &mut it.pipes[way];
        let left = pipe.breaks.map_or(usize::MAX, |(left, _)| left);
        let length = length.min(bytes.len()).min(WINDOW - pipe.taken).min(left);
        if length == 0 {
            return 0;
        }
        let (from_service, to_service) = (way == DOWN, way == UP);
        let answered_by_reset = it.gone[1 - way] || (to_service && it.orphaned);
        pipe.taken += length;
        if pipe.lost || (from_service && it.orphaned) || (to_service && it.orphaned && dark) {
            // The window fills.
        } else if answered_by_reset {
            pipe.taken -= length;
            let back = self.arrival(wire, 1 - way).max(at);
            let back = back + (back - Instant::now());
            let pipes = &mut self.wires.get_mut(&wire).expect("it has an end").pipes;
            if !pipes[1 - way].lost {
                pipes[1 - way].reset(back);
            }
            return length;
        } else {
            pipe.last = Some(at);
            pipe.queue.push_back((at, Bytes::copy_from_slice(&bytes[..length])));
            if let Some(reader) = pipe.reader.take() {
                reader.wake();
            }
        }
        match it.pipes[way].breaks.take() {
            Some((left, breaks)) if left > length => {
                it.pipes[way].breaks = Some((left - length, breaks));
            }
            Some((_, Break::End)) => {
                it.pipes[way].end(at);
                it.pipes[way].lost = true;
            }
            Some((_, Break::Reset)) => it.pipes.iter_mut().for_each(|pipe| pipe.reset(at)),
            Some((_, Break::Silence)) => it.pipes.iter_mut().for_each(|pipe| pipe.lost = true),
            None => {}
        }
        length
    }

    /// What can be read now, up to so many bytes: nothing at the end. Or when to look again.
    fn receive(&mut self, wire: u64, way: usize, most: usize) -> Result<io::Result<Bytes>, Look> {
        let it = self.wires.get_mut(&wire).expect("it has an end");
        let held = self.links[&it.host].held;
        if held[way] || (way == UP && it.orphaned) {
            return Err(Look { at: None });
        }
        let now = Instant::now();
        let pipe = &mut it.pipes[way];
        if pipe.resets.is_some_and(|at| at <= now) {
            return Ok(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match (pipe.queue.front_mut(), pipe.ends) {
            (Some((at, bytes)), _) if *at <= now => {
                let part = bytes.split_to(most.min(bytes.len()));
                if !bytes.has_remaining() {
                    pipe.queue.pop_front();
                }
                it.is_read(way, part.len(), held[1 - way]);
                Ok(Ok(part))
            }
            (None, Some(at)) if at <= now => Ok(Ok(Bytes::new())),
            (next, ends) => {
                let next = next.map(|(at, _)| *at).or(ends);
                Err(Look { at: next.into_iter().chain(pipe.resets).min() })
            }
        }
    }

    /// Whether this way has been reset, as far as whoever reads it knows. Or when to look again.
    fn is_reset(&self, wire: u64, way: usize) -> Result<bool, Look> {
        let it = &self.wires[&wire];
        if self.links[&it.host].held[way] || (way == UP && it.orphaned) {
            return Ok(false);
        }
        match it.pipes[way].resets {
            Some(at) if at > Instant::now() => Err(Look { at: Some(at) }),
            reset => Ok(reset.is_some()),
        }
    }

    fn shut(&mut self, wire: u64, way: usize) {
        let at = self.arrival(wire, way);
        let it = self.wires.get_mut(&wire).expect("it has an end");
        let unheard = it.pipes[way].lost || (way == DOWN && it.orphaned);
        it.pipes[way].shut = true;
        if !unheard {
            it.pipes[way].end(at);
        }
    }
}

/// When something may have changed, if nothing wakes before.
struct Look {
    at: Option<Instant>,
}

/// One end of a connection.
pub(crate) struct End {
    network: Network,
    wire: u64,
    /// Which way it sends.
    way: usize,
    noticed: Noticed,
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
}

impl End {
    fn of(network: &Network, wire: u64, way: usize, noticed: Noticed) -> End {
        End {
            network: network.clone(),
            wire,
            way,
            noticed,
            reading: Box::pin(sleep_until(Instant::now())),
            writing: Box::pin(sleep_until(Instant::now())),
        }
    }

    /// When it last noticed the other end.
    pub(crate) fn noticed(&self) -> Noticed {
        self.noticed.clone()
    }

    /// Takes the connection away from both ends, without telling them.
    pub(crate) fn vanish(&self) -> impl FnOnce() + Send + use<> {
        let (network, wire) = (self.network.clone(), self.wire);
        move || {
            if let Some(wire) = network.lock().wires.get_mut(&wire) {
                wire.pipes.iter_mut().for_each(|pipe| pipe.lost = true);
            }
        }
    }
}

/// When an end last noticed the other.
#[derive(Clone)]
pub(crate) struct Noticed(Arc<Mutex<Signs>>);

struct Signs {
    /// It read something.
    heard: Instant,
    /// Something that it had sent was taken.
    taken: Instant,
}

impl Noticed {
    fn now() -> Noticed {
        let now = Instant::now();
        Noticed(Arc::new(Mutex::new(Signs { heard: now, taken: now })))
    }

    fn lock(&self) -> MutexGuard<'_, Signs> {
        self.0.lock().expect("no panic")
    }

    /// For how long nothing was read.
    pub(crate) fn silence(&self) -> Duration {
        self.lock().heard.elapsed()
    }

    /// For how long the other end has not shown in any way.
    pub(crate) fn absence(&self) -> Duration {
        self.silence().min(self.lock().taken.elapsed())
    }
}

/// Waits for a timer, if there is one.
fn wait(timer: &mut Pin<Box<Sleep>>, look: &Look, cx: &mut Context<'_>) {
    if let Some(at) = look.at {
        timer.as_mut().reset(at);
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let End { network, wire, way, reading, .. } = self.get_mut();
        let from = 1 - *way;
        let mut state = network.lock();
        match state.receive(*wire, from, buffer.remaining()) {
            Ok(received) => {
                buffer.put_slice(&received?);
                Poll::Ready(Ok(()))
            }
            Err(look) => {
                let pipe = &mut state.wires.get_mut(wire).expect("it has an end").pipes[from];
                pipe.reader = Some(cx.waker().clone());
                drop(state);
                wait(reading, &look, cx);
                Poll::Pending
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
        let End { network, wire, way, writing, .. } = self.get_mut();
        let mut state = network.lock();
        let look = match state.is_reset(*wire, 1 - *way) {
            Ok(true) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Ok(false) => Look { at: None },
            Err(look) => look,
        };
        if state.wires[wire].pipes[*way].shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match state.send(*wire, *way, bytes) {
            0 if !bytes.is_empty() => {
                let pipe = &mut state.wires.get_mut(wire).expect("it has an end").pipes[*way];
                pipe.writer = Some(cx.waker().clone());
                drop(state);
                wait(writing, &look, cx);
                Poll::Pending
            }
            sent => Poll::Ready(Ok(sent)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.lock().shut(self.wire, self.way);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    /// An end that is dropped with something unread resets the connection, as sockets do.
    fn drop(&mut self) {
        let Ok(mut state) = self.network.0.state.lock() else { return };
        let (wire, way) = (self.wire, self.way);
        if !state.wires.contains_key(&wire) {
            return;
        }
        state.shut(wire, way);
        let at = state.arrival(wire, way);
        let it = state.wires.get_mut(&wire).expect("it is there");
        it.gone[way] = true;
        let unheard = it.pipes[way].lost || (way == DOWN && it.orphaned);
        let unread = !it.pipes[1 - way].queue.is_empty();
        if unread && !unheard {
            it.pipes[way].reset(at);
        }
        it.pipes[1 - way].queue.clear();
        it.pipes[1 - way].wake();
        if it.gone == [true; 2] {
            state.wires.remove(&wire);
        }
    }
}
