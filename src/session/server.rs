//! The server's end: AwaitAuth → Deciding → Ready → Closed.

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::wire::{
    Message, Method, Reply, Request, Version,
    proto::{
        SatAuthReq, SatAuthResp, SatErrorResp, SatInStartReplicationResp, SatInStopReplicationResp,
        SatRpcRequest, SatRpcResponse, sat_error_resp::ErrorCode,
    },
    refusal,
};

use super::{
    AuthChangePolicy, AuthRequest, AuthenticatedClient, CallError, CallId, Cause, ClientId, Close,
    End, Frame, Input, Limit, Output, Question, Refusal, SendError, Session, Subject, Token,
    Verified, Violation, calls::Calls, stream::ClientStream,
};

/// The server's end of a connection.
///
/// ```
/// use std::time::{Duration, Instant};
/// use electric_satellite::{
///     session::{Identity, Input, Output, ServerSession, Session, Verified},
///     wire::{Request, Version, proto::SatAuthReq},
/// };
///
/// let now = Instant::now();
/// let mut session = ServerSession::new(now, Duration::from_secs(10), Version::V0_12, "server-1");
///
/// let call = Request::from(SatAuthReq { id: "client-1".into(), token: "t".into(), ..Default::default() });
/// session.handle_input(now, Input::Binary(call.encode(1).encode().into())).unwrap();
/// let Some(Output::Authenticate(request)) = session.poll_output() else { panic!() };
/// assert_eq!(request.client_id().as_str(), "client-1");
///
/// // Here the authenticator looks at the token and vouches for what it says.
/// let verified = Verified::vouched_for_by_authenticator(Identity::new("user-1"));
/// session.resolve(request, Ok(verified));
/// assert!(matches!(session.poll_output(), Some(Output::Send(_)))); // SatAuthResp
/// assert!(matches!(session.poll_output(), Some(Output::Authenticated(_))));
/// ```
///
/// A client that breaks a rule of its stream ([`StreamError`](super::StreamError)) is answered
/// INVALID_REQUEST and closed, as by the original.
///
/// `R` is what proves that the client may be connected beside all others, such as its place in a
/// registry. The session drops it when it ends.
#[derive(Debug)]
pub struct ServerSession<R = ()> {
    version: Version,
    server_id: Arc<str>,
    auth_timeout: Duration,
    auth_changes: AuthChangePolicy,
    state: State<R>,
    calls: Calls,
    /// What the client sends.
    incoming: ClientStream,
    out: VecDeque<Output<AuthenticatedClient>>,
}

/// What may arrive next.
#[derive(Debug)]
enum State<R> {
    /// The auth request, until the deadline.
    AwaitAuth { deadline: Instant },
    /// The verdict on the auth request that is out, until the deadline.
    Deciding { deadline: Instant },
    /// Everything that an authenticated client may send.
    Ready(Ready<R>),
    /// Nothing.
    Closed,
}

/// The state of a connection whose client is known. It cannot be built without a [`Verified`].
#[derive(Debug)]
struct Ready<R> {
    client: AuthenticatedClient,
    /// Held, and dropped with the state.
    _registration: R,
    /// When the token's time is over, if that is enforced.
    expires: Option<Instant>,
    /// When the connection is too old, if it can be.
    too_old: Option<Instant>,
    /// A renewal that is being decided on.
    renewing: Option<Renewal>,
    /// The client's last word was `startReplication`, not `stopReplication`.
    start_asked: bool,
    /// The client has our positive answer to it, so it takes the stream.
    streaming: bool,
}

/// The question whether a client may go on with another token.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    /// The number of its call.
    request_id: u32,
    /// Until when there must be a verdict.
    deadline: Instant,
}

/// What ends a session, before it has.
struct Ending {
    answer: Option<Bytes>,
    close: Option<Close>,
    cause: Cause,
}

impl From<Violation> for Box<Ending> {
    fn from(violation: Violation) -> Box<Ending> {
        Box::new(Ending {
            answer: violation.answer().map(|answer| answer.encode()),
            close: Some(violation.close()),
            cause: Cause::Violation(violation),
        })
    }
}

impl Ending {
    /// A client that reports an error is closed normally and without a word, as the original does.
    fn peer_error(error: SatErrorResp) -> Box<Ending> {
        let cause = Cause::PeerError(error);
        Box::new(Ending { answer: None, close: Some(Close::NORMAL), cause })
    }

    /// A connection that has lasted as long as it may.
    fn over(limit: Limit) -> Box<Ending> {
        let (close, cause) = match limit {
            Limit::Expiry => (Close::EXPIRED, Cause::Expired),
            Limit::Age => (Close::new(1001, "Maximum connection age reached"), Cause::TooOld),
        };
        Box::new(Ending { answer: None, close: Some(close), cause })
    }

    fn peer_closed(close: Option<Close>) -> Box<Ending> {
        Box::new(Ending { answer: None, close: None, cause: Cause::Peer(close) })
    }
}

impl ServerSession {
    /// A connection that has just negotiated `version`. The client has `auth_timeout` from `now`
    /// to be authenticated, and as long for each renewal; `server_id` is what it is told then.
    pub fn new(
        now: Instant,
        auth_timeout: Duration,
        version: Version,
        server_id: impl Into<Arc<str>>,
    ) -> ServerSession {
        ServerSession::registering(now, auth_timeout, version, server_id)
    }

    /// Answers the question that [`Output::Authenticate`] asked, where clients are not registered.
    ///
    /// A verdict that comes after the session has ended changes nothing.
    pub fn resolve(&mut self, request: AuthRequest, verdict: Result<Verified, Refusal>) {
        self.resolve_registered(request, verdict.map(|verified| (verified, ())));
    }
}

impl<R> ServerSession<R> {
    /// The same as [`ServerSession::new`], where clients are registered.
    pub fn registering(
        now: Instant,
        auth_timeout: Duration,
        version: Version,
        server_id: impl Into<Arc<str>>,
    ) -> ServerSession<R> {
        ServerSession {
            version,
            server_id: server_id.into(),
            auth_timeout,
            auth_changes: AuthChangePolicy::default(),
            state: State::AwaitAuth { deadline: now + auth_timeout },
            calls: Calls::counting_from(0),
            incoming: ClientStream::default(),
            // A welcome and the news of it.
            out: VecDeque::with_capacity(2),
        }
    }

    /// Answers the question that [`Output::Authenticate`] asked: with the verified identity and
    /// then the registration of its client id, or with a refusal.
    ///
    /// A verdict that comes after the session has ended changes nothing.
    pub fn resolve_registered(
        &mut self,
        request: AuthRequest,
        verdict: Result<(Verified, R), Refusal>,
    ) {
        if !matches!(self.state, State::Deciding { .. }) {
            return;
        }
        let AuthRequest { request_id, client_id, .. } = request;
        match verdict {
            Ok((verified, registration)) => {
                let client = AuthenticatedClient { client_id, verified };
                self.welcome(request_id);
                self.out.push_back(Output::Authenticated(client.clone()));
                self.state = State::Ready(Ready {
                    client,
                    _registration: registration,
                    expires: None,
                    too_old: None,
                    renewing: None,
                    start_asked: false,
                    streaming: false,
                });
            }
            Err(refusal) => self.finish(refused(request_id, refusal)),
        }
    }

    /// Limits how long an authenticated connection lasts. The earliest limit counts.
    pub fn limit(&mut self, until: Instant, limit: Limit) {
        if let State::Ready(ready) = &mut self.state {
            match limit {
                Limit::Expiry => ready.expires = Some(until),
                Limit::Age => ready.too_old = Some(until),
            }
        }
    }

    /// The same session, with another policy for a second `authenticate`.
    pub fn with_auth_changes(self, auth_changes: AuthChangePolicy) -> ServerSession<R> {
        ServerSession { auth_changes, ..self }
    }

    /// The client, once it is authenticated and while the session lasts.
    pub fn client(&self) -> Option<&AuthenticatedClient> {
        match &self.state {
            State::Ready(ready) => Some(&ready.client),
            _ => None,
        }
    }

    fn await_auth(&mut self, deadline: Instant, message: Message) -> Result<State<R>, Box<Ending>> {
        match message {
            Message::Request(envelope) => {
                let request = self.auth_request(envelope)?;
                self.out.push_back(Output::Authenticate(request));
                Ok(State::Deciding { deadline })
            }
            Message::Error(error) => Err(Ending::peer_error(error)),
            other => Err(Violation::Unauthenticated(Subject::Message(other.name())).into()),
        }
    }

    /// The one call that is accepted before authentication.
    fn auth_request(&self, envelope: SatRpcRequest) -> Result<AuthRequest, Violation> {
        let request_id = envelope.request_id;
        match Request::decode(envelope).map_err(Violation::Request)? {
            Request::Authenticate(SatAuthReq { id, token, .. }) => Ok(AuthRequest {
                request_id,
                client_id: ClientId::new(id)
                    .map_err(|_| Violation::EmptyClientId { request_id })?,
                token: Token::new(token).map_err(|_| Violation::EmptyToken { request_id })?,
                version: self.version,
            }),
            other => Err(Violation::Unauthenticated(Subject::Call {
                method: other.method(),
                request_id,
            })),
        }
    }

    fn ready(
        &mut self,
        now: Instant,
        mut ready: Ready<R>,
        message: Message,
    ) -> Result<State<R>, Box<Ending>> {
        match message {
            Message::Request(envelope) => self.called(now, &mut ready, envelope)?,
            Message::Response(envelope) => self.answered(envelope)?,
            Message::Error(error) => return Err(Ending::peer_error(error)),
            Message::OpLog(_) | Message::Relation(_) | Message::OpLogAck(_) => {
                self.incoming.takes(&message).map_err(Violation::Stream)?;
                self.out.push_back(Output::Message(message));
            }
            other => return Err(Violation::Unexpected(other.name()).into()),
        }
        Ok(State::Ready(ready))
    }

    /// A second `authenticate`: refused, or, if that is the policy, a question whether the same
    /// client may go on with another token.
    fn renewal(
        &self,
        client_id: &ClientId,
        request_id: u32,
        SatAuthReq { id, token, .. }: SatAuthReq,
    ) -> Result<AuthRequest, Violation> {
        match (self.auth_changes, Token::new(token)) {
            (AuthChangePolicy::RenewSameIdentity, Ok(token)) if id == client_id.as_str() => {
                let (client_id, version) = (client_id.clone(), self.version);
                Ok(AuthRequest { request_id, client_id, token, version })
            }
            _ => Err(Violation::AlreadyAuthenticated { request_id }),
        }
    }

    /// A call of an authenticated client.
    fn called(
        &mut self,
        now: Instant,
        ready: &mut Ready<R>,
        envelope: SatRpcRequest,
    ) -> Result<(), Violation> {
        let request_id = envelope.request_id;
        let request = Request::decode(envelope).map_err(Violation::Request)?;
        match request {
            Request::Authenticate(request) => {
                let request = self.renewal(&ready.client.client_id, request_id, request)?;
                let deadline = now + self.auth_timeout;
                ready.renewing = Some(Renewal { request_id, deadline });
                self.out.push_back(Output::Authenticate(request));
                return Ok(());
            }
            Request::StartReplication(_) if ready.start_asked => {
                return Err(Violation::AlreadyStarted { request_id });
            }
            // Stopping what does not run has succeeded already. What the application has not stopped
            // yet does run.
            Request::StopReplication(_) if !ready.start_asked && !ready.streaming => {
                self.send_frame(Reply::from(SatInStopReplicationResp {}).frame(request_id));
                return Ok(());
            }
            Request::StartReplication(_) => ready.start_asked = true,
            Request::StopReplication(_) => ready.start_asked = false,
            Request::Subscribe(_) | Request::Unsubscribe(_) => {}
        }
        let question = Question { method: request.method(), request_id };
        self.out.push_back(Output::Call(request, question));
        Ok(())
    }

    /// An answer of the client to a call of ours, or so it says.
    fn answered(&mut self, envelope: SatRpcResponse) -> Result<(), Violation> {
        let Some(call) = self.calls.answered(&envelope.method, envelope.request_id) else {
            let SatRpcResponse { method, request_id, .. } = envelope;
            self.out.push_back(Output::Stray { method, request_id });
            return Ok(());
        };
        let reply = Reply::decode(call.method, envelope);
        self.out.push_back(Output::Reply(call, reply.clone().map_err(CallError::Reply)));
        match reply {
            // It has started or stopped.
            Ok(_) => self.incoming.restart(),
            Err(error) => return Err(Violation::BadReply { method: call.method, error }),
        }
        Ok(())
    }

    /// What the client may be told, by its version.
    fn shaped(&self, reply: Reply) -> Reply {
        match reply {
            Reply::StartReplication(start) if self.version < Version::V0_10 => {
                SatInStartReplicationResp { unacked_window_size: None, ..start }.into()
            }
            other => other,
        }
    }

    fn ready_mut(&mut self) -> Result<&mut Ready<R>, SendError> {
        match &mut self.state {
            State::Ready(ready) => Ok(ready),
            State::Closed => Err(SendError::Ended),
            State::AwaitAuth { .. } | State::Deciding { .. } => Err(SendError::Unauthenticated),
        }
    }

    /// The positive answer to the auth request.
    fn welcome(&mut self, request_id: u32) {
        let reply = SatAuthResp { id: self.server_id.as_ref().into(), headers: vec![] };
        self.send_frame(Reply::from(reply).frame(request_id));
    }

    fn send_frame(&mut self, frame: Bytes) {
        self.out.push_back(Output::Send(frame.into()));
    }

    /// The last word, what becomes of our calls, and the end.
    fn finish(&mut self, Ending { answer, close, cause }: Ending) {
        self.state = State::Closed;
        if let Some(answer) = answer {
            self.send_frame(answer);
        }
        for call in self.calls.take_all() {
            self.out.push_back(Output::Reply(call, Err(CallError::Ended)));
        }
        self.out.push_back(Output::End(End { close, cause }));
    }
}

/// What a client that is not let in is told.
fn refused(request_id: u32, refusal: Refusal) -> Ending {
    let cause = Cause::Refused(refusal);
    let error = match refusal {
        Refusal::Unavailable => {
            return Ending { answer: None, close: Some(Close::INTERNAL), cause };
        }
        Refusal::Occupied => SatErrorResp::of(ErrorCode::InvalidRequest),
        _ => SatErrorResp::of(ErrorCode::AuthRequired).with_message(refusal.to_string()),
    };
    Ending {
        answer: Some(
            crate::wire::refusal(Method::Authenticate.as_str(), request_id, error).encode(),
        ),
        close: Some(Close::AFTER_ERROR),
        cause,
    }
}

impl<R> Session for ServerSession<R> {
    type Peer = AuthenticatedClient;

    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Input> {
        if matches!(input, Input::Binary(_)) && !self.wants_input() {
            return Err(input);
        }
        let deadline = self.deadline();
        let state = mem::replace(&mut self.state, State::Closed);
        let next = match (state, input) {
            (State::Closed, _) => Ok(State::Closed),
            (_, Input::Closed(close)) => Err(Ending::peer_closed(close)),
            (_, Input::Fault(fault)) => Err(Violation::WebSocket(fault).into()),
            (state, Input::Timeout) if deadline.is_none_or(|deadline| now < deadline) => Ok(state),
            (State::Ready(ready), Input::Timeout) => Err(match (ready.expires, ready.renewing) {
                (Some(expires), _) if expires <= now => Ending::over(Limit::Expiry),
                (_, Some(Renewal { request_id, deadline })) if deadline <= now => {
                    Violation::AlreadyAuthenticated { request_id }.into()
                }
                _ => Ending::over(Limit::Age),
            }),
            (_, Input::Timeout) => Err(Violation::AuthTimeout.into()),
            (state, Input::Binary(Frame(bytes))) => match Message::decode(bytes) {
                Err(error) => Err(Violation::Frame(error).into()),
                Ok(message) => match state {
                    State::AwaitAuth { deadline } => self.await_auth(deadline, message),
                    State::Ready(ready) => self.ready(now, ready, message),
                    State::Deciding { .. } | State::Closed => unreachable!("takes no input"),
                },
            },
        };
        match next {
            Ok(state) => self.state = state,
            Err(ending) => self.finish(*ending),
        }
        Ok(())
    }

    fn wants_input(&self) -> bool {
        match &self.state {
            State::AwaitAuth { .. } => true,
            State::Ready(ready) => ready.renewing.is_none(),
            State::Deciding { .. } | State::Closed => false,
        }
    }

    fn poll_output(&mut self) -> Option<Output<AuthenticatedClient>> {
        let output = self.out.pop_front();
        if output.is_none() {
            // Most connections are idle most of the time, and keep no memory for outputs.
            self.out.shrink_to_fit();
        }
        output
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitAuth { deadline } | State::Deciding { deadline } => Some(*deadline),
            State::Ready(Ready { expires, too_old, renewing, .. }) => {
                let renewing = renewing.map(|renewal| renewal.deadline);
                expires.iter().chain(too_old).copied().chain(renewing).min()
            }
            State::Closed => None,
        }
    }

    fn send(&mut self, message: Message) -> Result<(), SendError> {
        let version = self.version;
        let streaming = self.ready_mut()?.streaming;
        let (name, since) = (message.name(), message.since());
        match message {
            Message::Error(_) | Message::Request(_) | Message::Response(_) => {
                Err(SendError::NotOurs { message: name })
            }
            Message::OpLogAck(_) => Err(SendError::NotOurs { message: name }),
            _ if version < since => Err(SendError::Unsupported { message: name, since }),
            _ if !streaming => Err(SendError::NotStarted { message: name }),
            message => {
                self.send_frame(message.encode());
                Ok(())
            }
        }
    }

    fn call(&mut self, request: Request) -> Result<CallId, SendError> {
        let streaming = self.ready_mut()?.streaming;
        let method = request.method();
        match method {
            // Published clients crash when this crosses a refusal of their own start.
            Method::StartReplication if !streaming => {
                Err(SendError::NotStarted { message: method.as_str() })
            }
            Method::StartReplication | Method::StopReplication => {
                let call = self.calls.begin(method);
                self.send_frame(request.frame(call.request_id));
                Ok(call)
            }
            _ => Err(SendError::NotOurs { message: method.as_str() }),
        }
    }

    fn forget(&mut self, call: CallId) {
        self.calls.forget(call);
    }

    fn answer(
        &mut self,
        Question { method, request_id }: Question,
        answer: Result<Reply, SatErrorResp>,
    ) -> Result<(), SendError> {
        let ready = self.ready_mut()?;
        match answer {
            Ok(reply) if reply.method() != method => {
                Err(SendError::NotOurs { message: reply.method().as_str() })
            }
            Ok(reply) => {
                let error = match &reply {
                    Reply::StartReplication(start) => {
                        // Unless it was stopped before it was answered.
                        ready.streaming = start.err.is_none() && ready.start_asked;
                        start.err.as_ref().map(|error| error.message.clone())
                    }
                    Reply::StopReplication(_) => {
                        ready.streaming = false;
                        None
                    }
                    _ => None,
                };
                let answer = self.shaped(reply).frame(request_id);
                match error {
                    None => self.send_frame(answer),
                    Some(error) => self.finish(Ending {
                        answer: Some(answer),
                        close: Some(Close::AFTER_ERROR),
                        cause: Cause::CallRefused { method, error },
                    }),
                }
                Ok(())
            }
            Err(error) => {
                self.finish(Ending {
                    answer: Some(refusal(method.as_str(), request_id, error.clone()).encode()),
                    close: Some(Close::AFTER_ERROR),
                    cause: Cause::CallRefused { method, error: error.to_string() },
                });
                Ok(())
            }
        }
    }

    fn renew(
        &mut self,
        AuthRequest { request_id, .. }: AuthRequest,
        verdict: Result<Verified, Refusal>,
        expires: Option<Instant>,
    ) {
        let State::Ready(ready) = &mut self.state else { return };
        let user_id = &ready.client.verified.identity().user_id;
        match verdict {
            Ok(renewed) if ready.renewing.is_some() && renewed.identity().user_id == *user_id => {
                ready.renewing = None;
                ready.expires = expires;
                self.welcome(request_id);
            }
            _ => self.finish(*Box::from(Violation::AlreadyAuthenticated { request_id })),
        }
    }

    fn end(&mut self, error: Option<SatErrorResp>, close: Close, cause: Cause) {
        if !matches!(self.state, State::Closed) {
            let answer = error.map(|error| Message::Error(error).encode());
            self.finish(Ending { answer, close: Some(close), cause });
        }
    }
}
