//! The handshake and what follows it, as state machines without I/O and without a clock.
//!
//! [`ServerSession`] and [`ClientSession`] are the two ends. A session owns no socket, no task
//! and no clock; whoever drives it follows one contract ([`Session`]):
//!
//! 1. hand in what happened with [`Session::handle_input`], and when, and
//! 2. **after every change, drain [`Session::poll_output`] to the end** and do what it says.
//!
//! A server session asks its driver one question, [`Output::Authenticate`]. The question is a
//! value that can be moved but not copied; it goes back into [`ServerSession::resolve`] together
//! with the verdict. While the verdict is pending the session takes no input, so a client may
//! send its next call behind `authenticate` without waiting, and is served in order.
//!
//! Nothing but `authenticate` is acted upon before a [`Verified`] exists, and once it exists it
//! stays: no later message changes who is connected.
//!
//! Then the streams keep their order ([`StreamError`]). What comes and breaks it is not handed out
//! but ends the session, and what a client would send against it is not sent. What a server sends
//! is left to whoever drives it.

mod calls;
mod client;
mod server;
mod stream;

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use crate::wire::{
    FrameError, Message, Method, Reply, ReplyError, Request, RequestError, Version,
    proto::{
        SatErrorResp, sat_error_resp::ErrorCode, sat_in_start_replication_resp::replication_error,
    },
    refusal,
};

pub use calls::CallId;
pub use client::ClientSession;
pub use server::ServerSession;
pub use stream::{StreamError, Window};

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted, as in
/// [RFC 7519 §2](https://www.rfc-editor.org/rfc/rfc7519#section-2) (`NumericDate`).
///
/// Tokens are judged by this clock, deadlines by [`Instant`]s; neither is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The time this many seconds after 1970 began.
    pub const fn from_secs(secs: i64) -> UnixTime {
        UnixTime(secs)
    }

    /// Whole seconds since 1970 began.
    pub const fn as_secs(self) -> i64 {
        self.0
    }

    /// The machine's clock, rounded down to the second.
    pub fn now() -> UnixTime {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
        UnixTime(i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX))
    }

    /// How long it is until then: nothing if it is over, and [`LONGEST`] at most.
    pub(crate) fn left(self, now: UnixTime) -> Duration {
        let left = self.0.saturating_sub(now.0);
        Duration::from_secs(u64::try_from(left).unwrap_or(0)).min(LONGEST)
    }
}

/// Longer than anybody waits or stays, and short enough to be added to every clock: 10 years.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The token of an auth request: a secret, never shown by `Debug`, never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps the text of a token.
    ///
    /// # Errors
    ///
    /// The text is empty.
    pub fn new(text: impl Into<String>) -> Result<Token, EmptyToken> {
        Some(text.into()).filter(|text| !text.is_empty()).map(Token).ok_or(EmptyToken)
    }

    /// The secret text. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    /// How long it is, and no more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token([{} bytes])", self.0.len())
    }
}

/// A token that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is empty")]
pub struct EmptyToken;

/// The id that a client keeps with its database and presents at every connection, usually a
/// UUID. It may be any text but the empty one; `Display` escapes what would garble a log line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Takes a text as a client id.
    ///
    /// # Errors
    ///
    /// The text is empty.
    pub fn new(text: impl Into<Arc<str>>) -> Result<ClientId, EmptyClientId> {
        Some(text.into()).filter(|text| !text.is_empty()).map(ClientId).ok_or(EmptyClientId)
    }

    /// A fresh random id (UUID version 4), for a client that has none yet.
    pub fn random() -> ClientId {
        ClientId(uuid::Uuid::new_v4().to_string().into())
    }

    /// The id as it travels.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_debug())
    }
}

/// A client id that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client id is empty")]
pub struct EmptyClientId;

/// Who a token speaks for, and what it says beside. `Debug` does not show the claims.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The user, from the claim `sub` (formerly `user_id`): not blank, and otherwise verbatim.
    pub user_id: String,
    /// When the token was issued, if it says so (`iat`, rounded down).
    pub issued_at: Option<UnixTime>,
    /// When the token expires, if it does (`exp`, rounded down).
    pub expires_at: Option<UnixTime>,
    /// The token's own id, if it has one (`jti`); an empty one is none.
    pub token_id: Option<String>,
    /// All claims, as the verified JSON text; empty if the authenticator has none. Electric's
    /// rules know them as `auth.*`.
    pub claims: Bytes,
}

impl Identity {
    /// This user, of whom nothing else is known.
    pub fn new(user_id: impl Into<String>) -> Identity {
        Identity {
            user_id: user_id.into(),
            issued_at: None,
            expires_at: None,
            token_id: None,
            claims: Bytes::new(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("user_id", &self.user_id)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .field("token_id", &self.token_id)
            .field("claims", &format_args!("[{} bytes]", self.claims.len()))
            .finish()
    }
}

/// The proof that an authenticator has vouched for an identity.
///
/// A session becomes ready only by consuming one of these, so replication before authentication
/// does not type-check. Clones share the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified(Arc<Identity>);

impl Verified {
    /// Vouches for an identity. Meant for authenticators, and for nobody else.
    pub fn vouched_for_by_authenticator(identity: Identity) -> Verified {
        Verified(Arc::new(identity))
    }

    /// Who was verified.
    pub fn identity(&self) -> &Identity {
        &self.0
    }
}

/// The question of a server session: may this client in?
///
/// It can be moved, not copied, and comes back in [`ServerSession::resolve`]. Dropping it leaves
/// the session waiting for its deadline, which refuses.
#[derive(Debug)]
pub struct AuthRequest {
    request_id: u32,
    client_id: ClientId,
    token: Token,
    version: Version,
}

impl AuthRequest {
    /// The id that the client claims.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The token that the client presents.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The negotiated protocol version.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// Why a client is not let in, as coarsely as the client may know it. `Display` is the text that
/// travels; it never holds a value from the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is not a token, or not one of a kind that is accepted here.
    #[error("malformed token")]
    Malformed,
    /// Its signature does not verify: other key, other algorithm, altered.
    #[error("invalid token signature")]
    Signature,
    /// Its time is over.
    #[error("expired token")]
    Expired,
    /// Its time has not come.
    #[error("token is not yet valid")]
    NotYetValid,
    /// It works once, and has been used.
    #[error("token was used before")]
    Used,
    /// It, or its user, is not accepted any more.
    #[error("token is revoked")]
    Revoked,
    /// Its claims are missing, of the wrong type, or not acceptable here.
    #[error("token claims are not acceptable")]
    Claims,
    /// The client is connected already. It is told INVALID_REQUEST without a word, as by the
    /// original.
    #[error("client is connected already")]
    Occupied,
    /// The authenticator could not tell. The connection is closed without an answer, because
    /// published clients take any answer for a final one and stop trying.
    #[error("authentication is unavailable")]
    Unavailable,
}

/// The client at the other end of a server's connection.
#[derive(Clone, Debug)]
pub struct AuthenticatedClient {
    /// The id that it presented.
    pub client_id: ClientId,
    /// The identity that its token proved.
    pub verified: Verified,
}

/// The server at the other end of a client's connection.
#[derive(Clone, Debug)]
pub struct AuthenticatedServer {
    /// The instance id that it answered with. It may be empty.
    pub server_id: String,
}

/// A close: status code and reason
/// ([RFC 6455 §5.5.1](https://www.rfc-editor.org/rfc/rfc6455#section-5.5.1)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The status code.
    pub code: u16,
    /// The reason, at most 123 bytes of UTF-8.
    pub reason: Cow<'static, str>,
}

impl Close {
    /// 1000: done.
    pub const NORMAL: Close = Close::new(1000, "");
    /// 1001: this end goes away.
    pub const GOING_AWAY: Close = Close::new(1001, "");
    /// 1007 without a reason: what follows every error that was answered.
    pub const AFTER_ERROR: Close = Close::new(1007, "");
    /// 1007 with Electric's text: what follows a frame that cannot be decoded.
    pub const UNDECODABLE: Close =
        Close::new(1007, "Message not formatted according to Electric protocol");
    /// 1011: this end failed.
    pub const INTERNAL: Close = Close::new(1011, "");
    /// 4000 with Electric's text, by which published clients know that they need another token.
    pub const EXPIRED: Close = Close::new(4000, "JWT-expired");
    /// 4408 with Electric's text: no sign of life.
    pub const SILENT: Close = Close::new(4408, "Client not responding to pings");
    /// 4408: no successful authentication in time.
    pub const AUTH_TIMEOUT: Close = Close::new(4408, "Authentication timeout");

    /// A close with a fixed reason.
    pub const fn new(code: u16, reason: &'static str) -> Close {
        Close { code, reason: Cow::Borrowed(reason) }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.is_empty() {
            true => write!(f, "{}", self.code),
            false => write!(f, "{} {:?}", self.code, self.reason),
        }
    }
}

/// Trouble below the messages of this protocol, as the WebSocket layer finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A text message, which this protocol does not have.
    #[error("a text message")]
    Text,
    /// A text message that is not UTF-8.
    #[error("a text message that is not UTF-8")]
    NotUtf8,
    /// A frame or message beyond the limit.
    #[error("a message beyond the size limit")]
    TooLarge,
    /// A breach of RFC 6455.
    #[error("a breach of the WebSocket protocol")]
    Protocol,
    /// No sign of life: the peer does not answer pings.
    #[error("silence")]
    Silent,
    /// The peer does not take what is sent to it.
    #[error("a standstill")]
    Stuck,
}

/// The payload of one binary WebSocket message. It may hold a token, so `Debug` shows its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(pub Bytes);

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame([{} bytes])", self.0.len())
    }
}

impl From<Bytes> for Frame {
    fn from(payload: Bytes) -> Frame {
        Frame(payload)
    }
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// A binary WebSocket message arrived.
    Binary(Frame),
    /// Something else arrived, which ends the connection.
    Fault(Fault),
    /// The peer closed, with its close frame if there was one; nothing more arrives.
    Closed(Option<Close>),
    /// Time passed: the deadline may be over.
    Timeout,
}

/// What a session wants done. `P` is what it learns of its peer.
#[derive(Debug)]
pub enum Output<P> {
    /// Send this binary WebSocket message.
    Send(Frame),
    /// Find out whether this client may in, and bring the answer to [`ServerSession::resolve`].
    Authenticate(AuthRequest),
    /// The handshake is over and this is who is there.
    Authenticated(P),
    /// A message of the stream, never an envelope.
    Message(Message),
    /// A call of the peer, and the question to hand to [`Session::answer`].
    Call(Request, Question),
    /// What became of an earlier call of ours.
    Reply(CallId, Result<Reply, CallError>),
    /// A reply that belongs to no call: of interest to a log, and otherwise ignored.
    Stray {
        /// The method it names.
        method: String,
        /// The request id it names.
        request_id: u32,
    },
    /// It is over: close as it says. No output follows.
    End(End),
}

/// A call of the peer that waits for its answer. It can be moved, not copied.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    method: Method,
    request_id: u32,
}

impl Question {
    /// The method that was called.
    pub fn method(&self) -> Method {
        self.method
    }
}

/// Why a call has no positive answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The peer answered, but not positively.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The connection ended before the answer came.
    #[error("the connection ended before the answer came")]
    Ended,
}

/// Why something was not sent. Nothing changes by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The handshake is not over.
    #[error("not authenticated yet")]
    Unauthenticated,
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended,
    /// The peer would not understand it: its version does not have this message.
    #[error("{message} needs a peer of {since} or later")]
    Unsupported {
        /// The protobuf name of the message.
        message: &'static str,
        /// The first version that has it.
        since: Version,
    },
    /// The other end has not asked for the stream yet, or has stopped it; published clients fail
    /// on what comes unasked.
    #[error("{message} cannot be sent: replication in this direction is not started")]
    NotStarted {
        /// What was to be sent.
        message: &'static str,
    },
    /// This end does not send such messages, or not by this way.
    #[error("{message} is not for this end to send")]
    NotOurs {
        /// What was to be sent.
        message: &'static str,
    },
    /// It would break a rule of the stream.
    #[error("it breaks a rule of the stream: {0}")]
    Stream(StreamError),
    /// A client acknowledges what it has received on this connection, once.
    #[error("transaction {transaction_id} has not come, or is acknowledged already")]
    NotReceived {
        /// The transaction that was to be acknowledged.
        transaction_id: u64,
    },
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// What to close with; nothing where the peer has closed or gone already.
    pub close: Option<Close>,
    /// Why.
    pub cause: Cause,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// This end closed it.
    #[error("closed here")]
    Local,
    /// The token expired while it was connected, and that is enforced.
    #[error("the token expired")]
    Expired,
    /// It lasted as long as a connection may.
    #[error("the connection is too old")]
    TooOld,
    /// The token or its user was revoked while it was connected.
    #[error("the token was revoked")]
    Revoked,
    /// A newer connection of the same client took its place.
    #[error("replaced by a newer connection of the same client")]
    Replaced,
    /// The service is going to stop.
    #[error("the service stops")]
    Drained,
    /// The program at this end panicked: whoever held the connection, the authenticator, the
    /// registry or the revocation list.
    #[error("a panic at this end")]
    Panicked,
    /// The peer closed it, with its close frame if there was one.
    #[error("closed by the peer{}", .0.as_ref().map(|close| format!(": {close}")).unwrap_or_default())]
    Peer(Option<Close>),
    /// The peer reported an error, and closed after it or was closed.
    #[error("the peer reported an error: {0}")]
    PeerError(SatErrorResp),
    /// The peer broke a rule.
    #[error("{0}")]
    Violation(Violation),
    /// The client was not let in.
    #[error("authentication refused: {0}")]
    Refused(Refusal),
    /// The server did not let this client in.
    #[error("authentication refused by the server: {0}")]
    RefusedByServer(SatErrorResp),
    /// The server refused to start replication, which ends the connection.
    #[error("the server does not start replication: {}: {message:?}", code.as_str_name())]
    NotStarted {
        /// The reason.
        code: replication_error::Code,
        /// The server's words.
        message: String,
    },
    /// The server answered a call with an error, which ends the connection.
    #[error("{method} refused by the server: {error}")]
    CallRefusedByServer {
        /// The method called.
        method: Method,
        /// The answer.
        error: SatErrorResp,
    },
    /// This end answered a call with an error, which ends the connection.
    #[error("{method} refused: {error}")]
    CallRefused {
        /// The method called.
        method: Method,
        /// The answer, in words.
        error: String,
    },
}

/// What happens when a client that is authenticated calls `authenticate` again. No policy lets the
/// client or the user change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthChangePolicy {
    /// It is refused with INVALID_REQUEST and closed, whatever its token says.
    #[default]
    Refuse,
    /// The same client may present another token of the same user, as with Electric from 0.9.3 on.
    /// That moves the expiry, where it is enforced, and nothing else: the identity, its claims and
    /// the age of the connection stay what they were.
    RenewSameIdentity,
}

/// What limits how long a connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The expiry of its token.
    Expiry,
    /// Its own age.
    Age,
}

/// A rule that the peer broke. `Display` says which.
///
/// What is answered, and the close that follows, are decided here and nowhere else.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Messages are binary and keep to RFC 6455 and to the limits; a peer answers pings and reads.
    #[error("rule broken: a peer sends binary messages within the limits, not {0}")]
    WebSocket(Fault),
    /// A frame is a known type byte and a decodable body.
    #[error("rule broken: a frame is a type byte and its protobuf message ({0})")]
    Frame(FrameError),
    /// A call names a known method and carries its request.
    #[error("rule broken: a call names a method of the protocol and carries its request ({0})")]
    Request(RequestError),
    /// A client authenticates before it does anything else.
    #[error("rule broken: nothing but authenticate is accepted before authentication, not {0}")]
    Unauthenticated(Subject),
    /// An auth request names the client.
    #[error("rule broken: an auth request names the client, but its id is empty")]
    EmptyClientId {
        /// The number of the call.
        request_id: u32,
    },
    /// An auth request carries a token.
    #[error("rule broken: an auth request carries a token, but it is empty")]
    EmptyToken {
        /// The number of the call.
        request_id: u32,
    },
    /// A client authenticates in time.
    #[error("rule broken: authentication is completed within its deadline")]
    AuthTimeout,
    /// Who is connected does not change while it is connected.
    #[error("rule broken: a connection authenticates once, and only for one client and user")]
    AlreadyAuthenticated {
        /// The number of the call.
        request_id: u32,
    },
    /// Replication is started once.
    #[error("rule broken: replication that is started is not started again")]
    AlreadyStarted {
        /// The number of the call.
        request_id: u32,
    },
    /// Each side sends its own messages.
    #[error("rule broken: {0} is not for that side to send at this point")]
    Unexpected(&'static str),
    /// A response carries the reply of its method; and a client refuses no call of its server.
    #[error("rule broken: {method} is answered by its reply, not {error}")]
    BadReply {
        /// The method called.
        method: Method,
        /// What came instead.
        error: ReplyError,
    },
    /// The stream keeps its order.
    #[error("rule broken: {0}")]
    Stream(StreamError),
}

/// What came too early: a call or a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A call, which is refused by its number.
    Call {
        /// The method called.
        method: Method,
        /// The number of the call.
        request_id: u32,
    },
    /// A message that travels alone.
    Message(&'static str),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Call { method, .. } => write!(f, "a call of {method}"),
            Subject::Message(name) => f.write_str(name),
        }
    }
}

impl Violation {
    /// What a server answers, if anything: an error in the reply to the call that broke the rule
    /// or, where there is no call to reply to, a bare one.
    pub fn answer(&self) -> Option<Message> {
        let invalid = || SatErrorResp::of(ErrorCode::InvalidRequest);
        let auth_required = || SatErrorResp::of(ErrorCode::AuthRequired);
        match self {
            Violation::WebSocket(_) | Violation::AuthTimeout => None,
            Violation::Frame(_) => Some(SatErrorResp::of(ErrorCode::Internal).into()),
            Violation::Request(error) => Some(error.refusal(invalid())),
            Violation::Unauthenticated(Subject::Call { method, request_id }) => {
                Some(refusal(method.as_str(), *request_id, auth_required()))
            }
            Violation::Unauthenticated(Subject::Message(_)) => Some(auth_required().into()),
            Violation::EmptyClientId { request_id }
            | Violation::EmptyToken { request_id }
            | Violation::AlreadyAuthenticated { request_id } => {
                Some(refusal(Method::Authenticate.as_str(), *request_id, invalid()))
            }
            Violation::AlreadyStarted { request_id } => {
                Some(refusal(Method::StartReplication.as_str(), *request_id, invalid()))
            }
            Violation::Unexpected(_) | Violation::BadReply { .. } | Violation::Stream(_) => {
                Some(invalid().into())
            }
        }
    }

    /// The close that follows the answer.
    pub fn close(&self) -> Close {
        match self {
            Violation::WebSocket(Fault::Protocol) => Close::new(1002, ""),
            Violation::WebSocket(Fault::Text) => {
                Close::new(1003, "Text messages are not part of the protocol")
            }
            Violation::WebSocket(Fault::NotUtf8) => Close::new(1007, ""),
            Violation::WebSocket(Fault::TooLarge) => Close::new(1009, "Message too large"),
            Violation::WebSocket(Fault::Silent) => Close::SILENT,
            Violation::WebSocket(Fault::Stuck) => Close::new(4408, "Client not reading"),
            Violation::Frame(_) => Close::UNDECODABLE,
            Violation::AuthTimeout => Close::AUTH_TIMEOUT,
            _ => Close::AFTER_ERROR,
        }
    }
}

/// The contract between a session and its driver; see the module's documentation.
pub trait Session {
    /// What the session learns of its peer by the handshake.
    type Peer;

    /// Tells the session what happened, and when.
    ///
    /// # Errors
    ///
    /// The session does not take messages now (see [`Session::wants_input`]): the message comes
    /// back, to be handed in again later. Faults, closes and timeouts are always taken.
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Input>;

    /// Whether the session takes messages now. If not, leave the bytes in the socket.
    fn wants_input(&self) -> bool;

    /// The next thing to do, until there is nothing more.
    fn poll_output(&mut self) -> Option<Output<Self::Peer>>;

    /// When to hand in [`Input::Timeout`], if nothing else happens before.
    fn deadline(&self) -> Option<Instant>;

    /// Sends a message of the stream. What breaks a rule is not sent, and changes nothing.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    fn send(&mut self, message: Message) -> Result<(), SendError>;

    /// Calls the peer. The answer comes as [`Output::Reply`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    fn call(&mut self, request: Request) -> Result<CallId, SendError>;

    /// Presents another token, on a connection that is authenticated. Only a client does that. The
    /// answer comes as [`Output::Reply`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    fn reauthenticate(&mut self, _token: Token) -> Result<CallId, SendError> {
        Err(SendError::NotOurs { message: Method::Authenticate.as_str() })
    }

    /// How far the peer may run ahead of our acknowledgements. Only a client has such a window,
    /// from 0.10 on, and where the server has announced one.
    fn window(&self) -> Option<Window> {
        None
    }

    /// Gives up on a call: its reply, should it come, is [`Output::Stray`]. What the peer grants
    /// by it is granted nonetheless.
    fn forget(&mut self, call: CallId);

    /// Answers a call of the peer, positively or with an error.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the reply is not one to the method that was called.
    fn answer(
        &mut self,
        question: Question,
        answer: Result<Reply, SatErrorResp>,
    ) -> Result<(), SendError>;

    /// Answers a question that [`Output::Authenticate`] asked about a connection that is
    /// authenticated already: whether its client may go on with another token, and until when.
    /// Only asked where [`AuthChangePolicy::RenewSameIdentity`] holds.
    fn renew(
        &mut self,
        _request: AuthRequest,
        _verdict: Result<Verified, Refusal>,
        _expires: Option<Instant>,
    ) {
    }

    /// Ends the session from this end and for this reason, after sending the error if there is
    /// one. Does nothing if it has ended.
    fn end(&mut self, error: Option<SatErrorResp>, close: Close, cause: Cause);

    /// Ends the session from this end, because the application wants it.
    fn close(&mut self, error: Option<SatErrorResp>, close: Close) {
        self.end(error, close, Cause::Local);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_until_a_time_is_neither_below_nothing_nor_beyond_every_clock() {
        let left = |until, now| UnixTime(until).left(UnixTime(now));
        assert_eq!(left(160, 100), Duration::from_secs(60));
        assert_eq!(left(100, 100), Duration::ZERO);
        assert_eq!(left(99, 100), Duration::ZERO);
        assert_eq!(left(i64::MIN, i64::MAX), Duration::ZERO);
        assert_eq!(left(i64::MAX, i64::MIN), Duration::from_secs(315_360_000), "ten years");
    }

    #[test]
    fn secrets_are_shown_by_their_size() {
        let secret = "eyJhbGciOiJub25lIn0.e30.";
        let token = Token::new(secret).unwrap();
        assert_eq!(format!("{token:?}"), "Token([24 bytes])");
        assert_eq!(format!("{:?}", Frame(Bytes::from(secret))), "Frame([24 bytes])");
        let identity = Identity {
            issued_at: Some(UnixTime(1)),
            expires_at: Some(UnixTime(2)),
            token_id: Some("id".into()),
            claims: Bytes::from(secret),
            ..Identity::new("user")
        };
        assert_eq!(
            format!("{identity:?}"),
            r#"Identity { user_id: "user", issued_at: Some(UnixTime(1)), "#.to_owned()
                + r#"expires_at: Some(UnixTime(2)), token_id: Some("id"), claims: [24 bytes] }"#
        );
    }

    #[test]
    fn closes_and_what_came_too_early_are_named_in_a_log() {
        let early = Subject::Call { method: Method::Subscribe, request_id: 7 };
        for (shown, text) in [
            (Close::NORMAL.to_string(), "1000"),
            (Close::EXPIRED.to_string(), r#"4000 "JWT-expired""#),
            (Close::new(4000, "a\nb").to_string(), r#"4000 "a\nb""#),
            (early.to_string(), "a call of subscribe"),
            (Subject::Message("SatOpLog").to_string(), "SatOpLog"),
        ] {
            assert_eq!(shown, text);
        }
    }
}
