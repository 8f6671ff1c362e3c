//! What an application holds: a connection whose peer is known.

use std::{
    fmt,
    marker::PhantomData,
    mem,
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    session::{
        AuthRequest, AuthenticatedClient, AuthenticatedServer, CallError, CallId, Cause, ClientId,
        Close, End, Identity, Question, Refusal, SendError, Session, Token, Verified, Window,
    },
    wire::{
        Call, Message, Reply, ReplyError, Request, Version,
        proto::{
            SatErrorResp, SatInStartReplicationReq, SatInStopReplicationReq, SatSubsReq,
            SatUnsubsReq, sat_error_resp::ErrorCode,
        },
    },
};

use super::{Draining, Shared, Unread};

/// A connection on which the handshake is over: it cannot be had before, and who is at the other
/// end does not change while it lives.
///
/// The peer is an [`AuthenticatedClient`] on a server, an [`AuthenticatedServer`] on a client.
/// [`Connection::split`] gives two halves for concurrent use. When the last of them is dropped,
/// the connection is closed normally; if a panic drops it, or a part of it, with 1011.
pub struct Connection<P> {
    sender: Sender<P>,
    receiver: Receiver<P>,
}

/// The half of a connection that sends messages and makes calls. Its clones share it.
pub struct Sender<P> {
    guard: Arc<Guard<P>>,
}

/// The half of a connection that receives. When it is dropped, what arrives is dropped too, and
/// calls are refused with INTERNAL.
pub struct Receiver<P> {
    guard: Arc<Guard<P>>,
}

/// Closes the connection when nobody holds it any more.
struct Guard<P>(Arc<Shared<P>>);

impl<P> Drop for Guard<P> {
    fn drop(&mut self) {
        if !self.0.fail_if_panicking() {
            self.0.finish(None, Close::NORMAL, Cause::Local);
        }
    }
}

impl<P> Shared<P> {
    /// Ends the connection if it is a panic that drops a part of it: the peer learns that this end
    /// failed, and not that it is done or refuses something. Returns whether it is.
    fn fail_if_panicking(&self) -> bool {
        let panicking = thread::panicking();
        if panicking {
            self.finish(None, Close::INTERNAL, Cause::Panicked);
        }
        panicking
    }
}

/// What arrives on a connection, in the order in which it was sent.
///
/// A call comes with the means to answer it. A client receives only the first two calls.
pub enum Event<P> {
    /// A message of the stream. To a client, this may be an error that is no answer to a call.
    Message(Message),
    /// The peer asks for the stream in its direction to start.
    StartReplication(SatInStartReplicationReq, Responder<SatInStartReplicationReq, P>),
    /// The peer asks for it to stop.
    StopReplication(SatInStopReplicationReq, Responder<SatInStopReplicationReq, P>),
    /// A client asks for the rows of some shapes.
    Subscribe(SatSubsReq, Responder<SatSubsReq, P>),
    /// A client gives subscriptions up.
    Unsubscribe(SatUnsubsReq, Responder<SatUnsubsReq, P>),
}

impl<P> Connection<P> {
    pub(super) fn new(shared: Arc<Shared<P>>) -> Connection<P> {
        let guard = Arc::new(Guard(shared));
        Connection { sender: Sender { guard: Arc::clone(&guard) }, receiver: Receiver { guard } }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &P {
        self.sender.peer()
    }

    /// The negotiated protocol version.
    pub fn version(&self) -> Version {
        self.sender.version()
    }

    /// The half that sends, to be cloned and shared.
    pub fn sender(&self) -> &Sender<P> {
        &self.sender
    }

    /// See [`Sender::window`].
    pub fn window(&self) -> Option<Window> {
        self.sender.window()
    }

    /// How the connection ended, once it has.
    pub fn end(&self) -> Option<&End> {
        self.sender.end()
    }

    /// Waits for what arrives next; nothing once the connection has ended. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event<P>> {
        self.receiver.recv().await
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// See [`Sender::call`].
    ///
    /// # Errors
    ///
    /// See [`CallFailure`].
    pub async fn call<C: Call>(
        &self,
        request: C,
        within: Duration,
    ) -> Result<C::Reply, CallFailure> {
        self.sender.call(request, within).await
    }

    /// See [`Sender::fail`].
    pub fn fail(&self, error: SatErrorResp) {
        self.sender.fail(error);
    }

    /// See [`Sender::close`].
    pub fn close(&self, close: Close) {
        self.sender.close(close);
    }

    /// See [`Sender::closed`].
    pub async fn closed(&self) -> &End {
        self.sender.closed().await
    }

    /// The connection, for the server: it stays reachable, and is not kept open.
    pub(crate) fn handle(&self) -> Handle<P> {
        Handle(Arc::clone(&self.sender.guard.0))
    }

    /// Two halves, for concurrent use.
    pub fn split(self) -> (Sender<P>, Receiver<P>) {
        (self.sender, self.receiver)
    }
}

impl Connection<AuthenticatedClient> {
    /// The id that the client presented.
    pub fn client_id(&self) -> &ClientId {
        &self.peer().client_id
    }

    /// The identity that the client's token proved.
    pub fn identity(&self) -> &Identity {
        self.peer().verified.identity()
    }
}

impl Connection<AuthenticatedServer> {
    /// The instance id that the server answered with. It may be empty.
    pub fn server_id(&self) -> &str {
        &self.peer().server_id
    }
}

impl<P> Receiver<P> {
    /// Waits for what arrives next; nothing once the connection has ended and all that arrived
    /// before is read. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event<P>> {
        let shared = &self.guard.0;
        loop {
            if let Some(unread) = self.next_unread() {
                return Some(self.event(unread));
            }
            if shared.end.get().is_some() {
                // What arrived between the two looks.
                return self.next_unread().map(|unread| self.event(unread));
            }
            shared.readable.notified().await;
        }
    }

    /// How the connection ended, once it has.
    pub fn end(&self) -> Option<&End> {
        self.guard.0.end.get().map(Box::as_ref)
    }

    fn next_unread(&self) -> Option<Unread> {
        let shared = &self.guard.0;
        let live = &mut *shared.lock();
        let had_room = shared.has_room(live);
        let (unread, bytes) = live.unread.pop_front()?;
        live.unread_bytes -= bytes;
        if !had_room {
            shared.occupant.wake();
        }
        Some(unread)
    }

    fn event(&self, unread: Unread) -> Event<P> {
        let (request, question) = match unread {
            Unread::Message(message) => return Event::Message(message),
            Unread::Call(call) => *call,
        };
        let shared = &self.guard.0;
        match request {
            Request::StartReplication(request) => {
                Event::StartReplication(request, Responder::new(shared, question))
            }
            Request::StopReplication(request) => {
                Event::StopReplication(request, Responder::new(shared, question))
            }
            Request::Subscribe(request) => {
                Event::Subscribe(request, Responder::new(shared, question))
            }
            Request::Unsubscribe(request) => {
                Event::Unsubscribe(request, Responder::new(shared, question))
            }
            Request::Authenticate(_) => unreachable!("a session answers these itself"),
        }
    }
}

/// Reaches a connection without keeping it open.
pub(crate) struct Handle<P>(Arc<Shared<P>>);

impl<P> Clone for Handle<P> {
    fn clone(&self) -> Handle<P> {
        Handle(Arc::clone(&self.0))
    }
}

impl<P> Handle<P> {
    pub(crate) fn peer(&self) -> &P {
        &self.0.peer
    }

    /// How the connection ended, once it has.
    pub(crate) fn ended(&self) -> Option<&End> {
        self.0.end.get().map(Box::as_ref)
    }

    /// Waits until the client wants to be authenticated by another token. Cancel-safe.
    pub(crate) async fn renewal(&self) -> AuthRequest {
        loop {
            if let Some(request) = self.0.lock().renewal.take() {
                return *request;
            }
            self.0.renewable.notified().await;
        }
    }

    /// Decides on a renewal.
    pub(crate) fn renew(
        &self,
        request: AuthRequest,
        verdict: Result<Verified, Refusal>,
        expires: Option<Instant>,
    ) {
        self.0.lock().session.renew(request, verdict, expires);
        self.0.occupant.wake();
    }

    /// Ends the connection now.
    pub(crate) fn end(&self, error: Option<SatErrorResp>, close: Close, cause: Cause) {
        self.0.finish(error, close, cause);
    }

    /// Waits until it has ended. Cancel-safe.
    pub(crate) async fn over(&self) -> &End {
        self.0.end.wait().await
    }

    /// Waits until it has ended and its last words are through. Cancel-safe.
    pub(crate) async fn closed(&self) -> &End {
        self.0.closed().await
    }

    /// Pings the peer, which has the usual time to answer.
    pub(crate) fn challenge(&self) {
        self.0.occupant.challenge();
    }

    /// Presents another token to the server.
    pub(crate) async fn reauthenticate(
        &self,
        token: Token,
        within: Duration,
    ) -> Result<(), CallFailure> {
        self.0.call(|session| session.reauthenticate(token), within).await.map(drop)
    }

    /// Ends the connection when every call that has arrived is answered.
    pub(crate) fn drain(&self, close: Close) {
        let draining = Draining { close, cause: Cause::Drained, sealed: false };
        self.0.lock().drain.get_or_insert(Box::new(draining));
        self.0.occupant.wake();
    }
}

impl<P> Drop for Receiver<P> {
    /// Nobody reads any more: what arrives is dropped, and calls are refused, so that the driver
    /// goes on to listen for the end.
    fn drop(&mut self) {
        if Arc::strong_count(&self.guard) == 1 {
            // The last to go: the connection is closed, and in a friendlier way than by refusals.
            return;
        }
        let shared = &self.guard.0;
        if shared.fail_if_panicking() {
            return;
        }
        let live = &mut *shared.lock();
        live.deaf = true;
        for (unread, _) in mem::take(&mut live.unread) {
            live.refuse(unread);
        }
        live.unread_bytes = 0;
        shared.occupant.wake();
    }
}

impl<P> Clone for Sender<P> {
    fn clone(&self) -> Sender<P> {
        Sender { guard: Arc::clone(&self.guard) }
    }
}

impl<P> Sender<P> {
    /// Who is at the other end.
    pub fn peer(&self) -> &P {
        &self.guard.0.peer
    }

    /// The negotiated protocol version.
    pub fn version(&self) -> Version {
        self.guard.0.version
    }

    /// How many transactions the peer sends ahead of acknowledgements, and how many it has. Only
    /// on a client, from 0.10 on, and where the server has announced it.
    pub fn window(&self) -> Option<Window> {
        self.guard.0.lock().session.window()
    }

    /// How the connection ended, once it has.
    pub fn end(&self) -> Option<&End> {
        self.guard.0.end.get().map(Box::as_ref)
    }

    /// Sends a message of the stream. Waits while too much is unsent
    /// ([`max_unsent_bytes`](super::Limits::max_unsent_bytes)); if dropped before it is done,
    /// nothing was sent.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing was sent.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let message = message.into();
        let shared = &self.guard.0;
        let length = message.encoded_len();
        loop {
            let mut room = pin!(shared.sendable.notified());
            room.as_mut().enable();
            {
                let mut live = shared.lock();
                if live.unsent + live.unflushed < shared.limits.max_unsent_bytes {
                    live.session.send(message)?;
                    live.unsent += length;
                    break;
                }
            }
            if shared.end.get().is_some() {
                return Err(SendError::Ended);
            }
            room.await;
        }
        shared.occupant.wake();
        Ok(())
    }

    /// Calls the peer and waits for its answer, so long. If dropped before it is done, the answer
    /// is ignored when it comes.
    ///
    /// # Errors
    ///
    /// See [`CallFailure`].
    pub async fn call<C: Call>(
        &self,
        request: C,
        within: Duration,
    ) -> Result<C::Reply, CallFailure> {
        let request = request.into();
        let reply = self.guard.0.call(|session| session.call(request), within).await?;
        Ok(C::reply(reply).expect("a reply is decoded as its call's method"))
    }

    /// Reports an error that is no answer to a call, and closes as every error is closed (1007).
    /// Does nothing if the connection has ended.
    pub fn fail(&self, error: SatErrorResp) {
        self.guard.0.finish(Some(error), Close::AFTER_ERROR, Cause::Local);
    }

    /// Closes the connection. Does nothing if it has ended.
    pub fn close(&self, close: Close) {
        self.guard.0.finish(None, close, Cause::Local);
    }

    /// Waits until the connection has ended, and its last words are through or given up
    /// ([`close_timeout`](super::Limits::close_timeout)). Cancel-safe.
    pub async fn closed(&self) -> &End {
        self.guard.0.closed().await
    }
}

impl<P> Shared<P> {
    /// Makes a call and waits for its answer, so long.
    async fn call(
        &self,
        begin: impl FnOnce(&mut (dyn Session<Peer = P> + Send)) -> Result<CallId, SendError>,
        within: Duration,
    ) -> Result<Reply, CallFailure> {
        let (caller, answer) = oneshot::channel();
        let id = {
            let mut live = self.lock();
            let id = begin(&mut *live.session).map_err(CallFailure::NotSent)?;
            live.calls.push((id, caller));
            id
        };
        self.occupant.wake();
        let _waiting = Waiting { shared: self, id };
        match timeout(within, answer).await {
            Err(_) => Err(CallFailure::TimedOut),
            Ok(Err(_)) | Ok(Ok(Err(CallError::Ended))) => Err(CallFailure::Ended),
            Ok(Ok(Err(CallError::Reply(error)))) => Err(CallFailure::Reply(error)),
            Ok(Ok(Ok(reply))) => Ok(reply),
        }
    }

    async fn closed(&self) -> &End {
        self.finished.wait().await;
        self.end.wait().await
    }
}

/// A call that is waited for. Dropping it forgets the call.
struct Waiting<'a, P> {
    shared: &'a Shared<P>,
    id: CallId,
}

impl<P> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        let mut live = self.shared.lock();
        if live.take_call(self.id).is_some() {
            live.session.forget(self.id);
        }
    }
}

/// Why a call has no positive answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallFailure {
    /// The call was not sent.
    #[error("not sent: {0}")]
    NotSent(SendError),
    /// No answer came in time.
    #[error("no answer in time")]
    TimedOut,
    /// The peer answered, but not positively.
    #[error(transparent)]
    Reply(ReplyError),
    /// The connection ended before the answer came.
    #[error("the connection ended before the answer came")]
    Ended,
}

/// The means to answer one call of the peer, once. Dropped without an answer, it refuses with
/// INTERNAL; if a panic drops it, the connection is closed with 1011.
///
/// On a server, every refusal ends the connection, as published clients expect; a subscription
/// is better refused by the `err` of its positive reply. Once the connection has ended, answers
/// do nothing.
#[must_use = "dropping it refuses the call"]
pub struct Responder<C: Call, P> {
    shared: Arc<Shared<P>>,
    question: Option<Question>,
    call: PhantomData<fn(C)>,
}

impl<C: Call, P> Responder<C, P> {
    fn new(shared: &Arc<Shared<P>>, question: Question) -> Responder<C, P> {
        Responder { shared: Arc::clone(shared), question: Some(question), call: PhantomData }
    }

    /// Answers positively.
    pub fn reply(mut self, reply: C::Reply) {
        self.answer(Ok(reply.into()));
    }

    /// Answers with an error.
    pub fn refuse(mut self, error: SatErrorResp) {
        self.answer(Err(error));
    }

    fn answer(&mut self, answer: Result<Reply, SatErrorResp>) {
        if let Some(question) = self.question.take() {
            let live = &mut *self.shared.lock();
            live.unanswered = live.unanswered.saturating_sub(1);
            // The reply's type is the method's, so only an ended connection can refuse it.
            let _ = live.session.answer(question, answer);
            self.shared.occupant.wake();
        }
    }
}

impl<C: Call, P> Drop for Responder<C, P> {
    fn drop(&mut self) {
        if self.question.is_some() && !self.shared.fail_if_panicking() {
            self.answer(Err(SatErrorResp::of(ErrorCode::Internal)));
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for Connection<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", self.peer())
            .field("version", &self.version())
            .field("end", &self.end())
            .finish()
    }
}

impl<P> fmt::Debug for Event<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Message(message) => write!(f, "Message({})", message.name()),
            Event::StartReplication(request, _) => request.fmt(f),
            Event::StopReplication(request, _) => request.fmt(f),
            Event::Subscribe(request, _) => request.fmt(f),
            Event::Unsubscribe(request, _) => request.fmt(f),
        }
    }
}
