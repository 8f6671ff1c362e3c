//! The client's end: AwaitReply → Ready → Closed.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::wire::{
    Message, Method, Reply, ReplyError, Request, Version,
    proto::{
        SatAuthReq, SatErrorResp, SatInStartReplicationResp, SatRpcRequest, SatRpcResponse,
        sat_error_resp::ErrorCode,
    },
    refusal,
};

use super::{
    AuthenticatedServer, CallError, CallId, Cause, ClientId, Close, End, Frame, Input, Output,
    Question, SendError, Session, Subject, Token, Violation, Window,
    calls::Calls,
    stream::{ClientStream, ServerStream},
};

/// The client's end of a connection.
///
/// Its first output is the auth request. A server that breaks a rule is closed without an answer;
/// those of its stream are in [`StreamError`](super::StreamError). They bind what is sent here, too.
#[derive(Debug)]
pub struct ClientSession {
    version: Version,
    client_id: ClientId,
    state: State,
    calls: Calls,
    /// What the server sends, and what we asked it for.
    incoming: ServerStream,
    /// What we send.
    outgoing: ClientStream,
    out: VecDeque<Output<AuthenticatedServer>>,
}

/// What may arrive next.
#[derive(Debug)]
enum State {
    /// The answer to the auth request, until the deadline.
    AwaitReply { deadline: Instant },
    /// Everything that a server may send to an authenticated client.
    Ready(Ready),
    /// Nothing.
    Closed,
}

/// The state of a connection that the server has let in.
#[derive(Debug)]
struct Ready {
    /// The server's last word on our stream was `startReplication`, not `stopReplication`.
    start_asked: bool,
    /// Our stream to the server is started: we have answered its `startReplication`.
    sending: bool,
    /// The error that the server has reported with its last message.
    complaint: Option<SatErrorResp>,
}

/// What ends a session, before it has.
struct Ending {
    close: Option<Close>,
    cause: Cause,
}

impl From<Violation> for Ending {
    fn from(violation: Violation) -> Ending {
        Ending { close: Some(violation.close()), cause: Cause::Violation(violation) }
    }
}

impl ClientSession {
    /// A connection that has just negotiated `version`, and now presents this token. The server
    /// has `auth_timeout` from `now` to answer.
    pub fn new(
        now: Instant,
        auth_timeout: Duration,
        version: Version,
        client_id: &ClientId,
        token: Token,
    ) -> ClientSession {
        let mut calls = Calls::counting_from(1);
        let call = calls.begin(Method::Authenticate);
        let frame = auth_request(client_id, token).frame(call.request_id);
        ClientSession {
            version,
            client_id: client_id.clone(),
            state: State::AwaitReply { deadline: now + auth_timeout },
            calls,
            incoming: ServerStream::new(version),
            outgoing: ClientStream::default(),
            out: VecDeque::from([Output::Send(frame.into())]),
        }
    }

    fn await_reply(&mut self, deadline: Instant, message: Message) -> Result<State, Ending> {
        let too_early = |subject| Err(Violation::Unauthenticated(subject).into());
        match message {
            Message::Response(envelope) => self.auth_answered(deadline, envelope),
            Message::Error(error) => Err(peer_error(error)),
            Message::Request(SatRpcRequest { method, request_id, .. }) => match method.parse() {
                Ok(method) => too_early(Subject::Call { method, request_id }),
                Err(()) => too_early(Subject::Message("SatRpcRequest")),
            },
            other => too_early(Subject::Message(other.name())),
        }
    }

    fn auth_answered(
        &mut self,
        deadline: Instant,
        envelope: SatRpcResponse,
    ) -> Result<State, Ending> {
        let Some(call) = self.expected(&envelope) else {
            return Ok(State::AwaitReply { deadline });
        };
        match Reply::decode(call.method, envelope) {
            Ok(Reply::Authenticate(reply)) => {
                let server = AuthenticatedServer { server_id: reply.id };
                self.out.push_back(Output::Authenticated(server));
                Ok(State::Ready(Ready { start_asked: false, sending: false, complaint: None }))
            }
            Ok(_) => unreachable!("a reply is decoded as its call's method"),
            Err(ReplyError::Refused(error)) => {
                Err(Ending { close: Some(Close::NORMAL), cause: Cause::RefusedByServer(error) })
            }
            Err(error) => Err(Violation::BadReply { method: call.method, error }.into()),
        }
    }

    fn ready(&mut self, mut ready: Ready, message: Message) -> Result<State, Ending> {
        ready.complaint = None;
        match message {
            Message::Request(envelope) => self.called(&mut ready, envelope),
            Message::Response(envelope) => self.answered(envelope)?,
            Message::OpLogAck(_) => return Err(Violation::Unexpected(message.name()).into()),
            Message::Error(error) => {
                ready.complaint = Some(error.clone());
                self.out.push_back(Output::Message(error.into()));
            }
            stream => {
                self.incoming.takes(&stream).map_err(Violation::Stream)?;
                self.out.push_back(Output::Message(stream));
            }
        }
        Ok(State::Ready(ready))
    }

    /// A call of the server. What it may not call is refused, and the connection goes on.
    fn called(&mut self, ready: &mut Ready, envelope: SatRpcRequest) {
        let request_id = envelope.request_id;
        let invalid = SatErrorResp::of(ErrorCode::InvalidRequest);
        match Request::decode(envelope) {
            Ok(request @ (Request::StartReplication(_) | Request::StopReplication(_))) => {
                ready.start_asked = request.method() == Method::StartReplication;
                let question = Question { method: request.method(), request_id };
                self.out.push_back(Output::Call(request, question));
            }
            Ok(other) => {
                self.send_frame(refusal(other.method().as_str(), request_id, invalid).encode());
            }
            Err(error) => self.send_frame(error.refusal(invalid).encode()),
        }
    }

    /// An answer of the server to a call of ours, or so it says.
    fn answered(&mut self, envelope: SatRpcResponse) -> Result<(), Ending> {
        let call = self.expected(&envelope);
        let SatRpcResponse { method, request_id, .. } = &envelope;
        // A call that was forgotten is answered, too.
        let asked = self.incoming.answered(method, *request_id);
        let Some(CallId { method, .. }) = call.or(asked.as_ref().map(|(call, _)| *call)) else {
            return Ok(());
        };
        let reply = Reply::decode(method, envelope);
        if let (Ok(reply), Some((_, request))) = (&reply, asked) {
            self.incoming.settle(request, reply);
        }
        if let Some(call) = call {
            self.out.push_back(Output::Reply(call, reply.clone().map_err(CallError::Reply)));
        }
        let cause = match reply {
            Ok(Reply::StartReplication(SatInStartReplicationResp { err: Some(error), .. })) => {
                Cause::NotStarted { code: error.code(), message: error.message }
            }
            Err(ReplyError::Refused(error)) => Cause::CallRefusedByServer { method, error },
            _ => return Ok(()),
        };
        // Servers close after these. Not to wait for it keeps the reason.
        Err(Ending { close: Some(Close::NORMAL), cause })
    }

    /// The call that a response answers. A response that answers none is noted, and no more.
    fn expected(&mut self, envelope: &SatRpcResponse) -> Option<CallId> {
        let SatRpcResponse { method, request_id, .. } = envelope;
        let call = self.calls.answered(method, *request_id);
        if call.is_none() {
            let stray = Output::Stray { method: method.clone(), request_id: *request_id };
            self.out.push_back(stray);
        }
        call
    }

    fn ready_mut(&mut self) -> Result<&mut Ready, SendError> {
        match &mut self.state {
            State::Ready(ready) => Ok(ready),
            State::Closed => Err(SendError::Ended),
            State::AwaitReply { .. } => Err(SendError::Unauthenticated),
        }
    }

    fn send_frame(&mut self, frame: Bytes) {
        self.out.push_back(Output::Send(frame.into()));
    }

    /// What becomes of our calls, and the end.
    fn finish(&mut self, Ending { close, cause }: Ending) {
        self.state = State::Closed;
        for call in self.calls.take_all() {
            // Nobody outside knows of the auth request.
            if call != AUTH_REQUEST {
                self.out.push_back(Output::Reply(call, Err(CallError::Ended)));
            }
        }
        self.out.push_back(Output::End(End { close, cause }));
    }
}

/// The call that the session itself makes, its first.
const AUTH_REQUEST: CallId = CallId { method: Method::Authenticate, request_id: 1 };

fn auth_request(client_id: &ClientId, Token(token): Token) -> Request {
    SatAuthReq { id: client_id.as_str().into(), token, headers: vec![] }.into()
}

fn peer_error(error: SatErrorResp) -> Ending {
    Ending { close: Some(Close::NORMAL), cause: Cause::PeerError(error) }
}

/// Servers close after the errors that they do not let pass. The error says more than the code.
fn closed_by_server(state: State, close: Option<Close>) -> Ending {
    let is_after_error = close.as_ref().is_none_or(|close| matches!(close.code, 1007 | 1011));
    let cause = match state {
        State::Ready(Ready { complaint: Some(error), .. }) if is_after_error => {
            Cause::PeerError(error)
        }
        _ => Cause::Peer(close),
    };
    Ending { close: None, cause }
}

impl Session for ClientSession {
    type Peer = AuthenticatedServer;

    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Input> {
        if matches!(input, Input::Binary(_)) && !self.wants_input() {
            return Err(input);
        }
        let deadline = self.deadline();
        let state = mem::replace(&mut self.state, State::Closed);
        let next = match (state, input) {
            (State::Closed, _) => Ok(State::Closed),
            (state, Input::Closed(close)) => Err(closed_by_server(state, close)),
            (_, Input::Fault(fault)) => Err(Violation::WebSocket(fault).into()),
            (state, Input::Timeout) => match deadline {
                Some(deadline) if deadline <= now => Err(Violation::AuthTimeout.into()),
                _ => Ok(state),
            },
            (state, Input::Binary(Frame(bytes))) => match Message::decode(bytes) {
                Err(error) => Err(Violation::Frame(error).into()),
                Ok(message) => match state {
                    State::AwaitReply { deadline } => self.await_reply(deadline, message),
                    State::Ready(ready) => self.ready(ready, message),
                    State::Closed => unreachable!("takes no input"),
                },
            },
        };
        match next {
            Ok(state) => self.state = state,
            Err(ending) => self.finish(ending),
        }
        Ok(())
    }

    fn wants_input(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    fn poll_output(&mut self) -> Option<Output<AuthenticatedServer>> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::AwaitReply { deadline } => Some(deadline),
            State::Ready(_) | State::Closed => None,
        }
    }

    fn send(&mut self, message: Message) -> Result<(), SendError> {
        let version = self.version;
        let sending = self.ready_mut()?.sending;
        let (name, since) = (message.name(), message.since());
        let started = match message {
            Message::OpLog(_) | Message::Relation(_) => sending,
            // An acknowledgement belongs to the stream that we receive.
            Message::OpLogAck(_) => self.incoming.is_started(),
            _ => return Err(SendError::NotOurs { message: name }),
        };
        if version < since {
            return Err(SendError::Unsupported { message: name, since });
        }
        if !started {
            return Err(SendError::NotStarted { message: name });
        }
        match &message {
            Message::OpLogAck(ack) => self.incoming.acknowledge(ack)?,
            changes => self.outgoing.takes(changes).map_err(SendError::Stream)?,
        }
        self.send_frame(message.encode());
        Ok(())
    }

    fn call(&mut self, request: Request) -> Result<CallId, SendError> {
        self.ready_mut()?;
        let method = request.method();
        if method == Method::Authenticate {
            return Err(SendError::NotOurs { message: method.as_str() });
        }
        let call = self.calls.begin(method);
        self.send_frame(request.frame(call.request_id));
        self.incoming.called(call, request);
        Ok(call)
    }

    fn reauthenticate(&mut self, token: Token) -> Result<CallId, SendError> {
        self.ready_mut()?;
        let call = self.calls.begin(Method::Authenticate);
        self.send_frame(auth_request(&self.client_id, token).frame(call.request_id));
        Ok(call)
    }

    fn window(&self) -> Option<Window> {
        self.incoming.window()
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
                match &reply {
                    // Unless it was stopped before it was answered.
                    Reply::StartReplication(start) => {
                        ready.sending = start.err.is_none() && ready.start_asked;
                    }
                    Reply::StopReplication(_) => ready.sending = false,
                    _ => {}
                }
                self.outgoing.restart();
                self.send_frame(reply.frame(request_id));
                Ok(())
            }
            Err(error) => {
                self.send_frame(refusal(method.as_str(), request_id, error).encode());
                Ok(())
            }
        }
    }

    fn end(&mut self, error: Option<SatErrorResp>, close: Close, cause: Cause) {
        if !matches!(self.state, State::Closed) {
            if let Some(error) = error {
                self.send_frame(Message::Error(error).encode());
            }
            self.finish(Ending { close: Some(close), cause });
        }
    }
}
