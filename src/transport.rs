//! Drives a session over a WebSocket: the same on both sides.
//!
//! [`Connection`] is what an application holds once the handshake is over. Behind it, one future
//! (the driver) moves bytes between the socket and the session, so pings are answered and
//! deadlines kept whatever the application is doing. The two share the session under a lock that
//! is never held across an `await`. Whoever holds it leaves nothing half done: what the session wants
//! is carried out before it is let go, or the driver is woken to do it. When the session ends under it,
//! its registration is dropped, which takes the registry's lock; nobody takes the two the other way.

mod connection;
mod keepalive;
mod limits;
mod metered;
mod socket;

use std::{
    collections::VecDeque,
    future::ready,
    mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    sync::{Notify, SetOnce, oneshot},
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    registry::{Eviction, Occupant},
    session::{
        AuthRequest, CallError, CallId, Cause, Close, End, Fault, Frame, Input, Output, Question,
        Session,
    },
    wire::{
        Message, Reply, Request, Version,
        proto::{SatErrorResp, sat_error_resp::ErrorCode},
    },
};

use keepalive::{Due, Keepalive};
use socket::Happened;

pub(crate) use connection::Handle;
pub use connection::{CallFailure, Connection, Event, Receiver, Responder, Sender};
pub use limits::{BadLimit, Limits, LimitsError};
pub(crate) use socket::{Socket, config, metered};

/// How far a handshake has come.
pub(crate) enum Step<P> {
    /// The session waits for the verdict on this request.
    Authenticate(AuthRequest),
    /// The handshake is over.
    Authenticated(P),
}

/// Drives a session to the next step of its handshake. What it wants sent is sent first; when it
/// ends instead, the socket is closed as it says; it is ended when `stop` says so.
pub(crate) async fn handshake<S, X>(
    socket: &mut Socket<S>,
    session: &mut X,
    stop: impl Future<Output = (Close, Cause)>,
) -> Result<Step<X::Peer>, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
    X: Session,
{
    let mut stop = pin!(stop);
    loop {
        while let Some(output) = session.poll_output() {
            match output {
                Output::Send(Frame(frame)) => socket.feed(frame),
                Output::Authenticate(request) => return Ok(Step::Authenticate(request)),
                Output::Authenticated(peer) => {
                    socket.authenticated();
                    return Ok(Step::Authenticated(peer));
                }
                // Boxed, for what takes the most room is rare.
                Output::End(end) => return Err(Box::pin(last_words(socket, end)).await),
                Output::Stray { method, request_id } => {
                    tracing::debug!(method, request_id, "a reply to no call is ignored");
                }
                Output::Message(_) | Output::Call(..) | Output::Reply(..) => {
                    unreachable!("nothing else happens before authentication")
                }
            }
        }
        let happened = select! {
            // What has arrived counts before time, and has its budget.
            biased;
            happened = socket.next(session.wants_input()) => happened,
            () = until(session.deadline()) => Happened::Input(Input::Timeout),
            (close, cause) = &mut stop => {
                session.end(None, close, cause);
                continue;
            }
        };
        if let Happened::Input(input) = happened {
            hand_in(session, Instant::now().into_std(), input);
        }
    }
}

/// Lets the last words through, and comes to how it ended.
async fn last_words<S>(socket: &mut Socket<S>, end: End) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socket.finish(end.close.as_ref()).await;
    end
}

/// Hands an input in. One that the session does not want any more, because it has ended while the
/// socket was read, is dropped.
fn hand_in<X: Session + ?Sized>(session: &mut X, now: std::time::Instant, input: Input) {
    let _ = session.handle_input(now, input);
}

async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// What the driver and the application's handles share.
struct Shared<P> {
    peer: P,
    version: Version,
    limits: Arc<Limits>,
    /// Wakes the driver: there is something to send, or room for something to receive, or the
    /// registry wants something.
    occupant: Occupant,
    /// For the receiver: there is something to read, or it is over.
    readable: Notify,
    /// For senders: there is room, or it is over.
    sendable: Notify,
    /// For the server: there is a renewal to decide on.
    renewable: Notify,
    end: SetOnce<Box<End>>,
    /// The last words are through, and the socket is not used any more.
    finished: SetOnce<()>,
    live: Mutex<Live<P>>,
}

/// What changes while a connection lives.
struct Live<P> {
    session: Box<dyn Session<Peer = P> + Send>,
    /// With the bytes that each keeps from being freed.
    unread: VecDeque<(Unread, usize)>,
    unread_bytes: usize,
    /// Nobody will read.
    deaf: bool,
    /// Our calls that wait for an answer.
    calls: Vec<(CallId, oneshot::Sender<Result<Reply, CallError>>)>,
    /// Bytes of the stream that the session has and the socket has not.
    unsent: usize,
    /// Bytes of the stream that the socket has and the network has not.
    unflushed: usize,
    /// Bytes of answers and calls that the socket has and the network has not.
    unflushed_answers: usize,
    /// Calls of the peer that are not answered.
    unanswered: u32,
    /// How to end as soon as all calls are answered.
    drain: Option<Box<Draining>>,
    /// A client that is authenticated wants to be so by another token.
    renewal: Option<Box<AuthRequest>>,
}

/// The end that waits for the answers to the calls that have arrived.
struct Draining {
    close: Close,
    cause: Cause,
    /// What has arrived is taken. Calls that come now are not, or there would be no end to it.
    sealed: bool,
}

/// How much more is taken while a sign of life is wanted.
const CHALLENGED_TIMES: usize = 16;

/// How much of what has come is taken before anything else is looked at.
const MAX_AT_ONCE: usize = 64;

/// What has arrived and is not read yet.
enum Unread {
    Message(Message),
    /// Boxed, for it is rare, and larger than all messages.
    Call(Box<(Request, Question)>),
}

impl<P> Live<P> {
    /// Answers what nobody will read.
    fn refuse(&mut self, unread: Unread) {
        if let Unread::Call(call) = unread {
            let (_, question) = *call;
            self.unanswered = self.unanswered.saturating_sub(1);
            let internal = SatErrorResp::of(ErrorCode::Internal);
            // It can only fail if the connection has ended.
            let _ = self.session.answer(question, Err(internal));
        }
    }

    /// Our call that is waited for, which waits no more. Few wait at a time, so a list serves.
    fn take_call(&mut self, id: CallId) -> Option<oneshot::Sender<Result<Reply, CallError>>> {
        let index = self.calls.iter().position(|(waiting, _)| *waiting == id)?;
        Some(self.calls.swap_remove(index).1)
    }

    /// The socket has so many bytes more, some of them of the stream.
    fn fed(&mut self, bytes: usize) {
        let stream = mem::take(&mut self.unsent).min(bytes);
        self.unflushed += stream;
        self.unflushed_answers += bytes - stream;
        unsent_bytes().increment(bytes as f64);
    }

    /// The network has everything that the socket had, or never will have it.
    fn flushed(&mut self) {
        let bytes = mem::take(&mut self.unflushed) + mem::take(&mut self.unflushed_answers);
        unsent_bytes().decrement(bytes as f64);
    }
}

impl<P> Shared<P> {
    fn lock(&self) -> MutexGuard<'_, Live<P>> {
        // Nothing under the lock leaves it half changed by a panic.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An authenticated session and its socket become a connection for the application, and the
/// future that must run for the connection to live.
pub(crate) fn connect<P, S, X>(
    socket: Socket<S>,
    session: X,
    peer: P,
    occupant: Occupant,
    version: Version,
    limits: &Arc<Limits>,
    now: Instant,
) -> (Connection<P>, impl Future<Output = ()> + Send + use<P, S, X>)
where
    P: Send + Sync + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send,
    X: Session<Peer = P> + Send + 'static,
{
    let shared = Arc::new(Shared {
        peer,
        version,
        limits: Arc::clone(limits),
        occupant,
        readable: Notify::new(),
        sendable: Notify::new(),
        renewable: Notify::new(),
        end: SetOnce::new(),
        finished: SetOnce::new(),
        live: Mutex::new(Live {
            session: Box::new(session),
            unread: VecDeque::new(),
            unread_bytes: 0,
            deaf: false,
            calls: Vec::new(),
            unsent: 0,
            unflushed: 0,
            unflushed_answers: 0,
            unanswered: 0,
            drain: None,
            renewal: None,
        }),
    });
    let connection = Connection::new(Arc::clone(&shared));
    let watch = Watch {
        keepalive: Keepalive::new(now.into_std()),
        pinged_for: 0,
        ping_waits: false,
        progress: None,
    };
    (connection, drive(socket, shared, watch))
}

/// Moves bytes between the socket and the session until the session ends.
///
/// Every connection carries this future for life, so it is kept small: an async fn would keep its
/// arguments twice, and what only the end needs is allocated then.
fn drive<P, S>(
    mut socket: Socket<S>,
    shared: Arc<Shared<P>>,
    mut watch: Watch,
) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let driven = Driven(shared);
    async move {
        // One for life: deadlines move on with every message, and a timer need not be told so
        // under a lock when it is moved to a later time.
        let mut timer = pin!(sleep_until(watch.keepalive.last_heard().into()));
        let mut next = driven.0.step(&mut socket, &mut watch, None);
        while let Some(Next { wants_input, deadline, pauses }) = next {
            let is_timed = set(timer.as_mut(), deadline);
            let happened = select! {
                // What has arrived counts before time and everybody else.
                biased;
                happened = socket.next(wants_input) => Some(happened),
                () = &mut timer, if is_timed => None,
                () = driven.0.occupant.woken() => None,
                () = ready(()), if pauses => {
                    driven.0.paused();
                    None
                }
            };
            next = driven.0.step(&mut socket, &mut watch, happened);
        }
        let close = driven.0.end.get().and_then(|end| end.close.as_ref());
        Box::pin(socket.finish(close)).await;
    }
}

/// Sets the timer to the deadline. Whether there is one.
fn set(timer: Pin<&mut Sleep>, deadline: Option<std::time::Instant>) -> bool {
    let Some(deadline) = deadline.map(Instant::from) else { return false };
    if timer.deadline() != deadline {
        timer.reset(deadline);
    }
    true
}

/// A connection that is driven. That ends with its driver, even if the driver is dropped early: by
/// a runtime that is shut down.
struct Driven<P>(Arc<Shared<P>>);

impl<P> Drop for Driven<P> {
    fn drop(&mut self) {
        let Driven(shared) = self;
        if shared.end.get().is_none() {
            let live = &mut *shared.lock();
            live.session.end(None, Close::GOING_AWAY, Cause::Local);
            if let Some(end) = shared.carry_out(live, 0, drop) {
                shared.ended(live, end);
            }
        }
        let _ = shared.finished.set(());
    }
}

/// Whether the peer is listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attention {
    Listening,
    /// The application has enough to read.
    Busy,
    /// The peer has enough answers to take.
    Clogged,
}

/// What the driver keeps an eye on.
struct Watch {
    keepalive: Keepalive,
    /// The latest sign of life that the registry asked for and the peer was pinged for.
    pinged_for: u64,
    /// The ping whose answer is waited for has not left.
    ping_waits: bool,
    /// Since when the network has taken nothing, and how much it had taken then.
    progress: Option<(std::time::Instant, u64)>,
}

impl Watch {
    fn heard(&mut self, now: std::time::Instant, occupant: &Occupant) {
        self.keepalive.heard(now);
        occupant.answer(self.pinged_for);
    }

    /// Looks after the peer. What is found wrong with it is for the session to know.
    fn look<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        now: std::time::Instant,
        socket: &mut Socket<S>,
        occupant: &Occupant,
        attention: Attention,
        limits: &Limits,
    ) -> Option<Fault> {
        self.progress = match self.progress {
            _ if socket.is_flushed() => None,
            Some((since, written)) if written == socket.written() => Some((since, written)),
            _ => Some((now, socket.written())),
        };
        if self.stuck_at(limits).is_some_and(|stuck_at| stuck_at <= now) {
            return Some(Fault::Stuck);
        }
        // A peer need not answer a ping that is on its way here: what holds it up has a deadline.
        if self.ping_waits {
            self.keepalive.delayed(now);
        }
        let challenged = occupant.challenged();
        if attention != Attention::Listening {
            // Silence is our own doing; but a peer that takes no answers may be gone.
            self.keepalive.heard(now);
            if attention == Attention::Busy {
                occupant.answer(challenged);
            }
            return None;
        }
        if challenged > self.pinged_for {
            self.pinged_for = challenged;
            // One that is unanswered has its deadline, however often a sign of life is wanted.
            self.ping_waits |= self.keepalive.ping_now(now);
            socket.ping();
        }
        match self.keepalive.due(now, limits) {
            Due::Nothing => None,
            Due::Ping => {
                metrics::counter!("satellite_pings_total").increment(1);
                self.ping_waits = true;
                socket.ping();
                None
            }
            Due::Dead => Some(Fault::Silent),
        }
    }

    /// Something has left. A ping that was among it has its time from now on, and what is sent later
    /// gives it no more; but a peer that takes what had no room before is there, and may have much
    /// to read until it comes to the ping.
    fn sent(&mut self, now: std::time::Instant, was_full: bool, all: bool) {
        let ping_left = all && mem::take(&mut self.ping_waits);
        if ping_left || was_full {
            self.keepalive.delayed(now);
        }
    }

    fn stuck_at(&self, limits: &Limits) -> Option<std::time::Instant> {
        self.progress.map(|(since, _)| since + limits.write_timeout)
    }

    fn deadline(&self, listening: bool, limits: &Limits) -> Option<std::time::Instant> {
        let keepalive = self.keepalive.deadline(limits).filter(|_| listening);
        keepalive.into_iter().chain(self.stuck_at(limits)).min()
    }
}

/// How a driver goes on.
struct Next {
    wants_input: bool,
    deadline: Option<std::time::Instant>,
    /// The end waits for a moment in which nothing more has arrived, or has been answered.
    pauses: bool,
}

impl<P> Shared<P> {
    /// Takes note of what has happened, does what the session and the registry want done, and says
    /// how to go on, unless it is over.
    fn step<S>(
        &self,
        socket: &mut Socket<S>,
        watch: &mut Watch,
        happened: Option<Happened>,
    ) -> Option<Next>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let now = Instant::now().into_std();
        let live = &mut *self.lock();
        if socket.is_flushed() && live.unflushed + live.unflushed_answers > 0 {
            live.flushed();
            self.sendable.notify_waiters();
        }
        let mut end = self.take_in(live, socket, watch, now, happened);
        if end.is_none() {
            if let Some(eviction) = self.occupant.evicted() {
                evict(&mut *live.session, now, eviction);
            }
            // Not only when nothing else happens: a peer that never pauses has deadlines too.
            hand_in(&mut *live.session, now, Input::Timeout);
            end = self.carry_out(live, 0, |frame| socket.feed(frame));
        }
        let attention = self.attention(live);
        let listening = attention == Attention::Listening;
        if end.is_none()
            && let Some(fault) = watch.look(now, socket, &self.occupant, attention, &self.limits)
        {
            hand_in(&mut *live.session, now, Input::Fault(fault));
            end = self.carry_out(live, 0, |frame| socket.feed(frame));
        }
        if let Some(end) = end {
            self.ended(live, end);
            return None;
        }
        let deadlines =
            live.session.deadline().into_iter().chain(watch.deadline(listening, &self.limits));
        Some(Next {
            wants_input: listening,
            deadline: deadlines.min(),
            pauses: live
                .drain
                .as_ref()
                .is_some_and(|draining| !draining.sealed || live.unanswered == 0),
        })
    }

    /// Hands in what has happened, and what else has come already: a stream does not cost a look
    /// at everything for every message. Returns the end, if this is it.
    fn take_in<S>(
        &self,
        live: &mut Live<P>,
        socket: &mut Socket<S>,
        watch: &mut Watch,
        now: std::time::Instant,
        happened: Option<Happened>,
    ) -> Option<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut happened = happened?;
        for taken in 1.. {
            let input = match happened {
                Happened::Sent { was_full } => {
                    watch.sent(now, was_full, socket.is_flushed());
                    return None;
                }
                Happened::Heard => {
                    watch.heard(now, &self.occupant);
                    return None;
                }
                Happened::Input(input) => input,
            };
            watch.heard(now, &self.occupant);
            let bytes = match &input {
                Input::Binary(Frame(payload)) => payload.len(),
                _ => 0,
            };
            hand_in(&mut *live.session, now, input);
            if let Some(end) = self.carry_out(live, bytes, |frame| socket.feed(frame)) {
                return Some(end);
            }
            let goes_on = taken < MAX_AT_ONCE
                && socket.is_flushed()
                && self.attention(live) == Attention::Listening;
            happened = goes_on.then(|| socket.next(true).now_or_never()).flatten()?;
        }
        None
    }

    /// Does what the session wants done, after so many bytes have arrived. Returns its end, if
    /// this is it.
    fn carry_out(
        &self,
        live: &mut Live<P>,
        bytes: usize,
        mut feed: impl FnMut(Bytes),
    ) -> Option<End> {
        let mut fed = 0;
        let mut end = None;
        while let Some(output) = live.session.poll_output() {
            match output {
                Output::Send(Frame(frame)) => {
                    fed += frame.len();
                    feed(frame);
                }
                Output::Message(message) => self.arrived(live, Unread::Message(message), bytes),
                Output::Call(..) if live.drain.as_ref().is_some_and(|it| it.sealed) => {}
                Output::Call(request, question) => {
                    live.unanswered += 1;
                    self.arrived(live, Unread::Call(Box::new((request, question))), bytes);
                }
                Output::Reply(call, result) => {
                    if let Some(caller) = live.take_call(call) {
                        // A caller that has gone meanwhile does not mind.
                        let _ = caller.send(result);
                    }
                }
                Output::Stray { method, request_id } => {
                    tracing::debug!(method, request_id, "a reply to no call is ignored");
                }
                Output::End(this) => end = Some(this),
                Output::Authenticate(request) => {
                    live.renewal = Some(Box::new(request));
                    self.renewable.notify_one();
                }
                Output::Authenticated(_) => unreachable!("the handshake is over"),
            }
        }
        if fed > 0 {
            live.fed(fed);
        }
        end
    }

    fn arrived(&self, live: &mut Live<P>, unread: Unread, bytes: usize) {
        if live.deaf {
            return live.refuse(unread);
        }
        live.unread_bytes += bytes;
        live.unread.push_back((unread, bytes));
        if live.unread.len() == 1 {
            self.readable.notify_one();
        }
    }

    /// A peer that does not take its answers is not asked for more questions. What it is sent
    /// unasked does not count, lest two ends wait for each other.
    fn attention(&self, live: &Live<P>) -> Attention {
        if live.unflushed_answers >= self.limits.max_unsent_bytes {
            Attention::Clogged
        } else if self.has_room(live) && live.session.wants_input() {
            Attention::Listening
        } else {
            Attention::Busy
        }
    }

    /// Whether the application is to be given more to read. When a sign of life is wanted, more
    /// is taken than otherwise, for it may stand behind what is unread; so may the peer's close.
    fn has_room(&self, live: &Live<P>) -> bool {
        let times = if self.occupant.is_challenged() { CHALLENGED_TIMES } else { 1 };
        live.unread.len() < self.limits.max_unread_messages.saturating_mul(times)
            && live.unread_bytes < self.limits.max_unread_bytes.saturating_mul(times)
    }

    /// It is over: everybody who waits learns it.
    fn ended(&self, live: &mut Live<P>, end: End) {
        live.flushed();
        let first = self.end.set(Box::new(end)).is_ok();
        debug_assert!(first, "a session ends once");
        self.readable.notify_one();
        self.sendable.notify_waiters();
    }

    /// What has arrived is taken; if all of it is answered, the connection ends as it was told to.
    fn paused(&self) {
        let live = &mut *self.lock();
        let Some(draining) = &mut live.drain else { return };
        draining.sealed = true;
        if live.unanswered == 0 {
            let Draining { close, cause, .. } = &**draining;
            live.session.end(None, close.clone(), cause.clone());
        }
    }

    /// Ends the connection, after sending the error if there is one.
    fn finish(&self, error: Option<SatErrorResp>, close: Close, cause: Cause) {
        self.lock().session.end(error, close, cause);
        self.occupant.wake();
    }
}

/// Bytes of messages that wait for the network, of all connections.
fn unsent_bytes() -> metrics::Gauge {
    metrics::gauge!("satellite_unsent_bytes")
}

/// Ends a session whose place in the registry goes to another.
fn evict<P>(
    session: &mut (dyn Session<Peer = P> + Send),
    now: std::time::Instant,
    eviction: Eviction,
) {
    match eviction {
        Eviction::Silent => hand_in(session, now, Input::Fault(Fault::Silent)),
        // Clients that live do not come back after this error, else two would evict each other.
        Eviction::Replaced => session.end(
            Some(
                SatErrorResp::of(ErrorCode::InvalidRequest)
                    .with_message(Cause::Replaced.to_string()),
            ),
            Close::AFTER_ERROR,
            Cause::Replaced,
        ),
    }
}
