//! Drives a session over a WebSocket: the same on both sides.
//!
//! [`Connection`] is what an application holds once the handshake is over. Behind it, one future
//! (the driver) moves bytes between the socket and the session, so pings are answered and
//! deadlines kept whatever the application is doing. The two share the session under a lock that
//! is never held across an `await`.

mod connection;
mod socket;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    sync::{Notify, SetOnce, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    session::{
        AuthRequest, CallError, CallId, Close, End, Frame, Input, Output, Question, Session,
    },
    wire::{Message, Reply, Request, Version},
};

pub use connection::{CallFailure, Connection, Event, Receiver, Responder, Sender};
pub(crate) use socket::{Socket, config};

/// Every limit of a connection, on either side.
///
/// ```
/// use std::time::Duration;
/// use electric_satellite::transport::Limits;
///
/// let limits = Limits { auth_timeout: Duration::from_secs(5), ..Limits::default() };
/// assert_eq!(limits.max_message, 16 * 1024 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long the HTTP upgrade may take, from the first byte to the last. 10 s.
    pub upgrade_timeout: Duration,
    /// How long authentication may take, from the upgrade to the verdict. 10 s.
    pub auth_timeout: Duration,
    /// How long a connection that is being closed may take to let the last words through. 2 s.
    pub close_timeout: Duration,
    /// The largest head of an HTTP request, in bytes; at least 8192. 16 KiB.
    pub max_head: usize,
    /// The largest message before authentication, in bytes. 64 KiB.
    pub max_message_before_auth: usize,
    /// The largest message, in bytes. 16 MiB.
    pub max_message: usize,
    /// How many received messages wait for the application before the socket is left alone. 16.
    pub max_unread_messages: usize,
    /// How many bytes wait for the socket before [`Sender::send`] waits too. 1 MiB.
    pub max_unsent_bytes: usize,
    /// The buffer that each connection reads through, in bytes. 4 KiB.
    pub read_buffer: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            upgrade_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
            max_head: 16 * 1024,
            max_message_before_auth: 64 * 1024,
            max_message: 16 * 1024 * 1024,
            max_unread_messages: 16,
            max_unsent_bytes: 1024 * 1024,
            read_buffer: 4 * 1024,
        }
    }
}

/// How far a handshake has come.
pub(crate) enum Step<P> {
    /// The session waits for the verdict on this request.
    Authenticate(AuthRequest),
    /// The handshake is over.
    Authenticated(P),
}

/// Drives a session to the next step of its handshake. What it wants sent is sent first; when it
/// ends instead, the socket is closed as it says.
pub(crate) async fn handshake<S, X>(
    socket: &mut Socket<S>,
    session: &mut X,
) -> Result<Step<X::Peer>, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
    X: Session,
{
    loop {
        while let Some(output) = session.poll_output() {
            match output {
                Output::Send(Frame(frame)) => socket.feed(frame),
                Output::Authenticate(request) => return Ok(Step::Authenticate(request)),
                Output::Authenticated(peer) => {
                    socket.max_message_now(usize::MAX);
                    return Ok(Step::Authenticated(peer));
                }
                Output::End(end) => {
                    socket.finish(end.close.as_ref()).await;
                    return Err(end);
                }
                Output::Stray { method, request_id } => {
                    tracing::debug!(method, request_id, "a reply to no call is ignored");
                }
                Output::Message(_) | Output::Call(..) | Output::Reply(..) => {
                    unreachable!("nothing else happens before authentication")
                }
            }
        }
        let input = select! {
            input = socket.next(session.wants_input()) => input,
            () = until(session.deadline()) => Some(Input::Timeout),
        };
        if let Some(input) = input {
            hand_in(session, input);
        }
    }
}

/// Hands an input in. One that the session does not want any more, because it has ended while the
/// socket was read, is dropped.
fn hand_in<X: Session + ?Sized>(session: &mut X, input: Input) {
    let _ = session.handle_input(Instant::now().into_std(), input);
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
    max_unsent_bytes: usize,
    max_unread_messages: usize,
    /// For the driver: there is something to send, or room for something to receive.
    wake: Notify,
    /// For the receiver: there is something to read, or it is over.
    readable: Notify,
    /// For senders: there is room, or it is over.
    sendable: Notify,
    end: SetOnce<End>,
    /// The last words are through, and the socket is not used any more.
    finished: SetOnce<()>,
    live: Mutex<Live<P>>,
}

/// What changes while a connection lives.
struct Live<P> {
    session: Box<dyn Session<Peer = P> + Send>,
    unread: VecDeque<Unread>,
    /// Our calls that wait for an answer.
    calls: HashMap<CallId, oneshot::Sender<Result<Reply, CallError>>>,
    /// Bytes of messages that the session has and the socket has not.
    unsent: usize,
    /// Bytes of messages that the socket has and the network has not.
    unflushed: usize,
}

/// What has arrived and is not read yet.
enum Unread {
    Message(Message),
    Call(Request, Question),
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
    version: Version,
    limits: &Limits,
) -> (Connection<P>, impl Future<Output = ()> + Send + use<P, S, X>)
where
    P: Send + Sync + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send,
    X: Session<Peer = P> + Send + 'static,
{
    let shared = Arc::new(Shared {
        peer,
        version,
        max_unsent_bytes: limits.max_unsent_bytes,
        max_unread_messages: limits.max_unread_messages,
        wake: Notify::new(),
        readable: Notify::new(),
        sendable: Notify::new(),
        end: SetOnce::new(),
        finished: SetOnce::new(),
        live: Mutex::new(Live {
            session: Box::new(session),
            unread: VecDeque::new(),
            calls: HashMap::new(),
            unsent: 0,
            unflushed: 0,
        }),
    });
    let connection = Connection::new(Arc::clone(&shared));
    (connection, drive(socket, shared))
}

/// Moves bytes between the socket and the session until the session ends.
async fn drive<P, S>(mut socket: Socket<S>, shared: Arc<Shared<P>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let end = loop {
        let (end, wants_input, deadline) = shared.step(&mut socket);
        if let Some(end) = end {
            break end;
        }
        let input = select! {
            input = socket.next(wants_input) => input,
            () = until(deadline) => Some(Input::Timeout),
            () = shared.wake.notified() => None,
        };
        if let Some(input) = input {
            hand_in(&mut *shared.lock().session, input);
        }
    };
    let close = end.close.clone();
    shared.ended(end);
    socket.finish(close.as_ref()).await;
    let _ = shared.finished.set(());
}

impl<P> Shared<P> {
    /// Does what the session wants done, and says how to go on.
    fn step<S>(&self, socket: &mut Socket<S>) -> (Option<End>, bool, Option<std::time::Instant>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let live = &mut *self.lock();
        if socket.is_flushed() && live.unflushed > 0 {
            live.unflushed = 0;
            self.sendable.notify_waiters();
        }
        while let Some(output) = live.session.poll_output() {
            match output {
                Output::Send(Frame(frame)) => socket.feed(frame),
                Output::Message(message) => self.arrived(live, Unread::Message(message)),
                Output::Call(request, question) => {
                    self.arrived(live, Unread::Call(request, question));
                }
                Output::Reply(call, result) => {
                    if let Some(caller) = live.calls.remove(&call) {
                        // A caller that has gone meanwhile does not mind.
                        let _ = caller.send(result);
                    }
                }
                Output::Stray { method, request_id } => {
                    tracing::debug!(method, request_id, "a reply to no call is ignored");
                }
                Output::End(end) => return (Some(end), false, None),
                Output::Authenticate(_) | Output::Authenticated(_) => {
                    unreachable!("the handshake is over")
                }
            }
        }
        live.unflushed += std::mem::take(&mut live.unsent);
        let room = live.unread.len() < self.max_unread_messages;
        (None, room && live.session.wants_input(), live.session.deadline())
    }

    fn arrived(&self, live: &mut Live<P>, unread: Unread) {
        live.unread.push_back(unread);
        self.readable.notify_one();
    }

    /// It is over: everybody who waits learns it.
    fn ended(&self, end: End) {
        let first = self.end.set(end).is_ok();
        debug_assert!(first, "a session ends once");
        self.readable.notify_one();
        self.sendable.notify_waiters();
    }

    /// The application lets go of the connection.
    fn close(&self, close: Close) {
        self.lock().session.close(None, close);
        self.wake.notify_one();
    }
}
