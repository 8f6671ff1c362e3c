//! What a case is written in: the words of a script, each a value that can be printed.
//!
//! A script is a list of [`Step`]s. The functions here make them, so that a case reads from top to
//! bottom: `open()`, `send(authenticate(1))`, `expect(welcome(1))`, `ends(closed(1007))`.

use std::{borrow::Cow, fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    session::Close,
    wire::{
        Call, Message, Method, Reply, Request,
        proto::{
            SatAuthHeaderPair, SatErrorResp, SatInStartReplicationReq, SatInStartReplicationResp,
            SatInStopReplicationReq, SatRpcRequest, SatRpcResponse, SatSubsReq, SatUnsubsReq,
            sat_error_resp::ErrorCode, sat_in_start_replication_resp::replication_error::Code,
            sat_rpc_response::Result as Outcome,
        },
    },
};

use super::{
    octets::{self, Http},
    token::TokenSpec,
};

/// One line of a script.
#[derive(Clone, Debug)]
pub enum Step {
    /// Against a server: a new connection, and an upgrade that must succeed.
    Open(Upgrade),
    /// Against a server: a request on a new connection, and how its answer must be.
    Ask(Ask, Answer),
    /// The same on the connection at hand, which has not been upgraded.
    AskHere(Ask, Answer),
    /// Against a server: a new connection, on which nothing is sent yet.
    Dial,
    /// Against a client: its next connection, whose upgrade is answered so.
    Accept(Acceptance),
    /// Goes on with the connection that was the nth to be opened, counted from 1.
    On(usize),
    /// Sends this.
    Send(Sending),
    /// Sends all of these at once, so that they arrive together.
    SendTogether(Vec<Sending>),
    /// The next message that is not incidental must be this one, within so long if it is said.
    Expect(Expectation, Option<Duration>),
    /// The next message must be this one, and none before it that is incidental otherwise.
    Next(Expectation),
    /// As `Expect`, but if it does not come the case does not apply, for this reason.
    Given(Expectation, &'static str),
    /// All of these come, in any order, each in the time of the run.
    ExpectAll(Vec<Expectation>),
    /// Nothing but what is incidental arrives for so long, and the connection stays.
    Silence(Duration),
    /// Whatever comes is taken, until the connection ends or for so long; nothing is judged.
    Whatever(Duration),
    /// This does not arrive for so long, whatever else does.
    Absent(Expectation, Duration),
    /// Passes the time, and reads nothing.
    Wait(Duration),
    /// Drops the connection without a close.
    Cut,
    /// Ends the direction to the peer, and goes on reading.
    HalfClose,
    /// How the connection must end, or that it must not.
    Ends(Ending),
    /// Against a server: another client can authenticate now.
    Alive,
    /// Against a client: no further connection comes for so long.
    NoConnection(Duration),
    /// Against a client: it gives up and exits of its own accord, as a failure, within so long.
    Exits(Duration),
    /// Against a client: for so long, each of its next connections goes by these steps, the first
    /// of which lets it in or not; and so many must come.
    Repeatedly(Vec<Step>, Duration, RangeInclusive<usize>),
    /// Against a client: it is asked to end, a process by SIGTERM.
    Terminate,
    /// Against a client: it exits as a success within so long.
    Leaves(Duration),
    /// From here on pings are not answered.
    LeavePingsUnanswered,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Open(upgrade) => write!(f, "open a connection{upgrade}"),
            Step::Ask(ask, answer) => write!(f, "ask {ask}; the answer must be {answer}"),
            Step::AskHere(ask, answer) => {
                write!(f, "ask, on the same connection, {ask}; the answer must be {answer}")
            }
            Step::Dial => f.write_str("open a connection, and send nothing yet"),
            Step::Accept(acceptance) => write!(f, "the client connects{acceptance}"),
            Step::On(nth) => write!(f, "go on with connection {nth}"),
            Step::Send(sending) => write!(f, "send {sending}"),
            Step::SendTogether(sendings) => {
                let all: Vec<String> = sendings.iter().map(Sending::to_string).collect();
                write!(f, "send at once: {}", all.join("; "))
            }
            Step::Expect(expected, None) => write!(f, "expect {expected}"),
            Step::Expect(expected, Some(within)) => {
                write!(f, "expect {expected} within {within:?}")
            }
            Step::Next(expected) => write!(f, "expect {expected} before any other message"),
            Step::Given(expected, reason) => {
                write!(f, "if {expected} comes, go on (otherwise: {reason})")
            }
            Step::ExpectAll(expected) => {
                let all: Vec<String> = expected.iter().map(Expectation::to_string).collect();
                write!(f, "expect, in any order: {}", all.join("; "))
            }
            Step::Absent(expected, time) => write!(f, "expect no {expected} for {time:?}"),
            Step::Silence(time) => write!(f, "expect that nothing comes for {time:?}"),
            Step::Whatever(time) => {
                write!(f, "take whatever comes for {time:?}, or until the connection ends")
            }
            Step::Wait(time) => write!(f, "wait {time:?} without reading"),
            Step::Cut => f.write_str("drop the connection without a close"),
            Step::HalfClose => f.write_str("end the sending direction, and go on reading"),
            Step::Ends(ending) => write!(f, "the connection must {ending}"),
            Step::Alive => f.write_str("another client must be able to authenticate"),
            Step::NoConnection(time) => write!(f, "no further connection may come for {time:?}"),
            Step::Exits(within) => write!(f, "the client must give up within {within:?}"),
            Step::Repeatedly(steps, time, count) => {
                let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
                let (fewest, most) = (count.start(), count.end());
                write!(f, "for {time:?}, from {fewest} to {most} times: {}", steps.join("; "))
            }
            Step::Terminate => f.write_str("ask the client to end"),
            Step::Leaves(within) => write!(f, "the client must end well within {within:?}"),
            Step::LeavePingsUnanswered => f.write_str("leave pings unanswered from here on"),
        }
    }
}

// ---- Connections ----

/// An upgrade that a server must accept.
#[derive(Clone, Debug, Default)]
pub struct Upgrade {
    /// What is offered instead of the version of the run.
    pub(super) protocols: Option<Vec<String>>,
    /// What must be agreed to, if it is not the only one that is offered.
    pub(super) agreed: Option<String>,
    pub(super) path: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    /// On the connection at hand instead of a new one.
    pub(super) here: bool,
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.here {
            f.write_str(" by an upgrade of the one at hand")?;
        }
        if let Some(path) = &self.path {
            write!(f, " to {path}")?;
        }
        if let Some(protocols) = &self.protocols {
            write!(f, ", offering {protocols:?}")?;
        }
        if let Some(agreed) = &self.agreed {
            write!(f, "; the server must agree to {agreed:?}")?;
        }
        for (name, value) in &self.headers {
            write!(f, ", with {name}: {value}")?;
        }
        Ok(())
    }
}

impl Upgrade {
    /// Offers these subprotocols instead, one header line each.
    pub fn offering<P: Into<String>>(self, lines: impl IntoIterator<Item = P>) -> Upgrade {
        Upgrade { protocols: Some(lines.into_iter().map(Into::into).collect()), ..self }
    }

    /// The server must choose this one.
    pub fn agreeing_to(self, protocol: &str) -> Upgrade {
        Upgrade { agreed: Some(protocol.into()), ..self }
    }

    /// Asks for another path than `/ws`.
    pub fn at(self, path: &str) -> Upgrade {
        Upgrade { path: Some(path.into()), ..self }
    }

    /// On the connection at hand, on which requests have been refused, instead of a new one.
    pub fn here(self) -> Upgrade {
        Upgrade { here: true, ..self }
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: &str) -> Upgrade {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// As a step.
    pub fn step(self) -> Step {
        Step::Open(self)
    }
}

/// Opens a connection, which the steps after it are about.
pub fn open() -> Step {
    upgrade().step()
}

/// An upgrade, to be changed.
pub fn upgrade() -> Upgrade {
    Upgrade::default()
}

/// Stands, in a subprotocol that is offered or agreed to, for the version of the run, which every
/// peer speaks.
pub const SPOKEN: &str = "electric.{the version of the run}";

/// An HTTP request, by the byte.
#[derive(Clone)]
pub struct Ask {
    pub(super) head: String,
    words: String,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Ask {
    /// The upgrade of a good client, with one subprotocol line for each of these.
    pub fn upgrade<P: AsRef<str>>(protocols: impl IntoIterator<Item = P>) -> Ask {
        let lines: Vec<(String, String)> = protocols
            .into_iter()
            .map(|protocol| ("Sec-WebSocket-Protocol".into(), protocol.as_ref().into()))
            .collect();
        let words = lines.iter().map(|(_, protocol)| format!("{protocol:?}"));
        let words = words.collect::<Vec<_>>().join(" and ");
        let head = octets::upgrade_request("/ws", &lines);
        Ask { head, words: format!("for an upgrade, offering {words}") }
    }

    /// A request that is written out, without the empty line at its end.
    pub fn text(lines: &[&str]) -> Ask {
        Ask { head: format!("{}\r\n\r\n", lines.join("\r\n")), words: format!("{lines:?}") }
    }

    /// A request that does not end: these bytes and no more.
    pub fn unfinished(words: &str, text: String) -> Ask {
        Ask { head: text, words: words.into() }
    }

    /// The same request without a header.
    pub fn without(mut self, name: &str) -> Ask {
        let named = |line: &&str| {
            line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
        };
        let kept: Vec<&str> = self.head.split("\r\n").filter(|line| !named(line)).collect();
        self.head = kept.join("\r\n");
        self.words += &format!(", without {name}");
        self
    }

    /// The same request with another value of a header.
    pub fn with(self, name: &str, value: &str) -> Ask {
        let words = format!("{}, with {name}: {}", self.words, shortened(value));
        let mut ask = self.without(name);
        let at = ask.head.len() - 2;
        ask.head.insert_str(at, &format!("{name}: {value}\r\n"));
        Ask { words, ..ask }
    }

    /// The same request with another first line.
    pub fn line(mut self, line: &str) -> Ask {
        let at = self.head.find("\r\n").unwrap_or(0);
        self.head.replace_range(..at, line);
        self.words = format!("{} as {:?}", self.words, shortened(line));
        self
    }

    /// The answer must be so.
    pub fn answered(self, answer: Answer) -> Step {
        Step::Ask(self, answer)
    }

    /// On the connection at hand, and the answer must be so.
    pub fn answered_here(self, answer: Answer) -> Step {
        Step::AskHere(self, answer)
    }
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.len() {
        ..80 => text.into(),
        length => format!("[{length} bytes]").into(),
    }
}

/// How an HTTP answer must be.
#[derive(Clone, Debug)]
pub struct Answer {
    /// One of these; none for no answer, but the end of the connection.
    pub(super) statuses: Vec<u16>,
    pub(super) body: Option<&'static str>,
    pub(super) headers: Vec<(&'static str, Option<&'static str>)>,
    /// The end of the connection will do, too.
    pub(super) or_end: bool,
    pub(super) within: Option<Duration>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        write!(f, "HTTP {}", statuses.join(" or "))?;
        if let Some(body) = self.body {
            write!(f, " with {body:?} in its body")?;
        }
        for (name, value) in &self.headers {
            match value {
                Some(value) => write!(f, ", with {name}: {value}")?,
                None => write!(f, ", with {name}")?,
            }
        }
        if self.or_end {
            f.write_str(", or the end of the connection")?;
        }
        self.within.map_or(Ok(()), |within| write!(f, ", within {within:?}"))
    }
}

/// One of these statuses.
pub fn status(statuses: impl IntoIterator<Item = u16>) -> Answer {
    let statuses = statuses.into_iter().collect();
    Answer { statuses, body: None, headers: vec![], or_end: false, within: None }
}

impl Answer {
    /// With this in its body.
    pub fn saying(self, body: &'static str) -> Answer {
        Answer { body: Some(body), ..self }
    }

    /// With this header.
    pub fn header(mut self, name: &'static str, value: Option<&'static str>) -> Answer {
        self.headers.push((name, value));
        self
    }

    /// Or the connection ends without an answer.
    pub fn or_end(self) -> Answer {
        Answer { or_end: true, ..self }
    }

    /// Within so long.
    pub fn within(self, time: Duration) -> Answer {
        Answer { within: Some(time), ..self }
    }
}

/// How a client's upgrade is answered.
#[derive(Clone, Debug)]
pub enum Acceptance {
    /// As it wants; the request must be in order.
    Welcome,
    /// With another subprotocol, or none.
    Protocol(Option<&'static str>),
    /// With this answer instead: status line and headers, without the empty line, and a body.
    Refusal(&'static str, &'static str),
    /// Not at all.
    Silence,
    /// As it wants, if its request is such.
    Such(Requested),
    /// By this text, in which `{accept}` and `{protocol}` stand for what the client wants.
    Text(&'static str),
}

impl fmt::Display for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Acceptance::Welcome => f.write_str(", and is let in"),
            Acceptance::Protocol(None) => f.write_str(", and no subprotocol is agreed to"),
            Acceptance::Protocol(Some(protocol)) => write!(f, ", and {protocol:?} is agreed to"),
            Acceptance::Refusal(head, body) => write!(f, ", and is answered {head:?} {body:?}"),
            Acceptance::Silence => f.write_str(", and has no answer"),
            Acceptance::Such(requested) => write!(f, " with {}, and is let in", requested.words),
            Acceptance::Text(text) => write!(f, ", and is answered {text:?}"),
        }
    }
}

/// How the upgrade request of a client must be, beyond being in order.
#[derive(Clone)]
pub struct Requested {
    words: &'static str,
    test: fn(&Http, &[Http]) -> bool,
}

impl Requested {
    /// Whether this request is such, after those of the connections before.
    pub(super) fn is_met_by(&self, request: &Http, before: &[Http]) -> bool {
        (self.test)(request, before)
    }
}

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)
    }
}

impl fmt::Debug for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)
    }
}

/// The client connects, its upgrade request is in order, and it is let in.
pub fn accept() -> Step {
    Step::Accept(Acceptance::Welcome)
}

/// The same, and its request passes this test, which has the requests of the connections before.
pub(super) fn accept_such(words: &'static str, test: fn(&Http, &[Http]) -> bool) -> Step {
    Step::Accept(Acceptance::Such(Requested { words, test }))
}

/// The client connects, and is answered with this status line and headers, and this body.
pub fn turn_away(head: &'static str, body: &'static str) -> Step {
    Step::Accept(Acceptance::Refusal(head, body))
}

/// The client connects, and is answered with this text; see [`Acceptance::Text`].
pub fn answer_upgrade(text: &'static str) -> Step {
    Step::Accept(Acceptance::Text(text))
}

/// For so long, each connection of the client goes by these steps, and so many must come.
pub fn repeatedly(
    time: Duration,
    count: RangeInclusive<usize>,
    steps: impl IntoIterator<Item = Step>,
) -> Step {
    Step::Repeatedly(steps.into_iter().collect(), time, count)
}

// ---- Sending ----

/// What is sent, and in which frames.
#[derive(Clone, Debug)]
pub struct Sending {
    pub(super) payload: Payload,
    pub(super) framing: Framing,
    pub(super) times: usize,
    words: String,
}

/// The payload of a message. Some of it is known only when it is sent.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// These bytes.
    Bytes(Bytes),
    /// A call of `authenticate`.
    Authenticate {
        request_id: u32,
        id: Id,
        token: TokenSpec,
        headers: Vec<SatAuthHeaderPair>,
        /// What follows the fields of the body and those of the envelope.
        more: [&'static [u8]; 2],
    },
    /// The answer to the call of the peer that was expected last; with another number if so.
    Answer { result: Option<Outcome>, method: Option<&'static str>, off_by: u32 },
    /// What belongs to the subscription that the peer has asked for last.
    Delivery(Part),
}

/// What a server sends about the subscription that its client has asked for last.
#[derive(Clone, Debug)]
pub enum Part {
    /// The answer to `subscribe`: there will be data.
    Granted,
    /// The answer to `subscribe`: there will be none, for this reason.
    Denied(&'static str),
    /// SatSubsDataBegin at this position.
    Begin(&'static [u8]),
    /// SatShapeDataBegin of the first shape that was asked for.
    Shape,
    /// SatSubsDataError for this reason.
    Failed(&'static str),
    /// SatUnsubsDataBegin at this position.
    Gone(&'static [u8]),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Granted => f.write_str("the positive answer to subscribe"),
            Part::Denied(reason) => write!(f, "SatSubsResp with the error {reason:?}"),
            Part::Begin(lsn) => write!(f, "SatSubsDataBegin at {}", hex(lsn)),
            Part::Shape => f.write_str("SatShapeDataBegin"),
            Part::Failed(reason) => write!(f, "SatSubsDataError {reason:?}"),
            Part::Gone(lsn) => write!(f, "SatUnsubsDataBegin at {}", hex(lsn)),
        }
    }
}

/// Which client id is presented.
#[derive(Clone, Debug)]
pub enum Id {
    /// The id of the case.
    Own,
    /// Another id of the case, by its number.
    Other(u32),
    /// This text.
    Text(&'static str),
}

/// How a message is put into frames.
#[derive(Clone, Debug)]
pub(super) enum Framing {
    /// One frame, with this first byte.
    One(u8),
    /// One frame without a mask.
    Unmasked(u8),
    /// One frame with a mask, which only a client may send.
    Masked(u8),
    /// Fragments of so many bytes, with control frames between them.
    Fragments { size: usize, between: Option<u8> },
    /// No frame at all: bytes as they are.
    Raw,
    /// One frame, of which so many bytes go out at a time.
    Dribble(usize),
    /// A message that is well formed but for its length, which is written in so many bytes.
    LongLength(usize),
}

impl fmt::Display for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        match &self.framing {
            Framing::One(octets::BINARY) | Framing::Raw => {}
            Framing::One(first) => write!(f, " in a frame that begins with {first:#04x}")?,
            Framing::Unmasked(_) => f.write_str(" in a frame without a mask")?,
            Framing::Masked(_) => f.write_str(" in a frame with a mask")?,
            Framing::Fragments { size, between } => {
                write!(f, " in fragments of {size} bytes")?;
                if let Some(opcode) = between {
                    write!(f, " with a control frame of opcode {opcode} between them")?;
                }
            }
            Framing::Dribble(size) => write!(f, ", {size} bytes at a time")?,
            Framing::LongLength(size) => write!(f, ", its length written in {size} bytes")?,
        }
        match self.times {
            1 => Ok(()),
            times => write!(f, ", {times} times"),
        }
    }
}

impl Sending {
    pub(super) fn new(words: impl Into<String>, payload: Payload, framing: Framing) -> Sending {
        Sending { payload, framing, times: 1, words: words.into() }
    }

    fn framed(self, framing: Framing) -> Sending {
        Sending { framing, ..self }
    }

    /// Whether its first byte is this one.
    pub(super) fn begins_with(&self, byte: u8) -> bool {
        matches!(&self.payload, Payload::Bytes(bytes) if bytes.first() == Some(&byte))
    }

    /// In fragments of so many bytes.
    pub fn in_fragments_of(self, size: usize) -> Sending {
        self.framed(Framing::Fragments { size, between: None })
    }

    /// In fragments of so many bytes, with a control frame of this opcode between any two.
    pub fn in_fragments_with(self, size: usize, opcode: u8) -> Sending {
        self.framed(Framing::Fragments { size, between: Some(opcode) })
    }

    /// As a text message.
    pub fn as_text(self) -> Sending {
        self.framed(Framing::One(octets::TEXT))
    }

    /// In one frame that begins with this byte: FIN, reserved bits and opcode
    /// ([RFC 6455 §5.2](https://www.rfc-editor.org/rfc/rfc6455#section-5.2)).
    pub fn in_frame(self, first: u8) -> Sending {
        self.framed(Framing::One(first))
    }

    /// Without a mask, which a client must not do.
    pub fn unmasked(self) -> Sending {
        self.framed(Framing::Unmasked(octets::BINARY))
    }

    /// With a mask, which a server must not do.
    pub fn masked(self) -> Sending {
        self.framed(Framing::Masked(octets::BINARY))
    }

    /// So many bytes at a time.
    pub fn dribbled(self, size: usize) -> Sending {
        self.framed(Framing::Dribble(size))
    }

    /// With its length in more bytes than it needs: 2 or 8.
    pub fn with_length_in(self, bytes: usize) -> Sending {
        self.framed(Framing::LongLength(bytes))
    }

    /// So many times.
    pub fn times(self, times: usize) -> Sending {
        Sending { times, ..self }
    }

    /// With this client id, if it is a call of `authenticate`.
    pub fn as_client(mut self, other: Id) -> Sending {
        if let Payload::Authenticate { id, .. } = &mut self.payload {
            self.words += &match &other {
                Id::Own => String::new(),
                Id::Other(nth) => format!(" as another client ({nth})"),
                Id::Text(text) => format!(" as the client {}", shortened(&format!("{text:?}"))),
            };
            *id = other;
        }
        self
    }

    /// With this token, if it is a call of `authenticate`.
    pub fn with_token(mut self, other: TokenSpec) -> Sending {
        if let Payload::Authenticate { token, .. } = &mut self.payload {
            self.words += &format!(" with {other}");
            *token = other;
        }
        self
    }

    /// With these bytes, described in words, behind the fields of its body, if it is a call of
    /// `authenticate`.
    pub fn with_more_in_body(mut self, words: &str, bytes: &'static [u8]) -> Sending {
        if let Payload::Authenticate { more: [body, _], .. } = &mut self.payload {
            self.words += &format!(" with {words} in its body");
            *body = bytes;
        }
        self
    }

    /// The same behind the fields of its envelope.
    pub fn with_more_in_envelope(mut self, words: &str, bytes: &'static [u8]) -> Sending {
        if let Payload::Authenticate { more: [_, envelope], .. } = &mut self.payload {
            self.words += &format!(" with {words} in its envelope");
            *envelope = bytes;
        }
        self
    }

    /// With a header pair, if it is a call of `authenticate`.
    pub fn with_header(mut self, key: i32, value: &str) -> Sending {
        if let Payload::Authenticate { headers, .. } = &mut self.payload {
            self.words += &format!(" with the header {key}: {value:?}");
            headers.push(SatAuthHeaderPair { key, value: value.into() });
        }
        self
    }
}

/// Sends this.
pub fn send(sending: Sending) -> Step {
    Step::Send(sending)
}

/// A call of `authenticate` with this number, the id of the case and a good token.
pub fn authenticate(request_id: u32) -> Sending {
    let (id, token, headers, more) = (Id::Own, TokenSpec::good(), vec![], [&b""[..]; 2]);
    let payload = Payload::Authenticate { request_id, id, token, headers, more };
    Sending::new(format!("authenticate ({request_id})"), payload, Framing::One(octets::BINARY))
}

/// A call with this number.
pub fn call(request_id: u32, request: impl Into<Request>) -> Sending {
    let request = request.into();
    let words = format!("{} ({request_id}) {request:?}", request.method());
    message_in_words(words, &request.encode(request_id))
}

/// A call of any method, with any body.
pub fn call_of(method: &str, request_id: u32, body: &[u8]) -> Sending {
    let words = format!("a call of {method:?} ({request_id}) with the body {}", hex(body));
    let message = Bytes::copy_from_slice(body);
    let envelope = SatRpcRequest { method: method.into(), request_id, message };
    message_in_words(words, &envelope.into())
}

/// A message that travels alone.
pub fn message(message: impl Into<Message>) -> Sending {
    let message = message.into();
    message_in_words(format!("{message:?}"), &message)
}

/// A binary message of these bytes.
pub fn binary(words: &str, bytes: impl Into<Bytes>) -> Sending {
    Sending::new(words, Payload::Bytes(bytes.into()), Framing::One(octets::BINARY))
}

/// Bytes that are no frame, or several.
pub fn raw(words: &str, bytes: impl Into<Bytes>) -> Sending {
    Sending::new(words, Payload::Bytes(bytes.into()), Framing::Raw)
}

/// A control frame or any other, by the first byte of the frame.
pub fn frame(words: &str, first: u8, payload: impl Into<Bytes>) -> Sending {
    Sending::new(words, Payload::Bytes(payload.into()), Framing::One(first))
}

/// A WebSocket ping.
pub fn ping(payload: &'static [u8]) -> Sending {
    frame(&format!("a ping of {} bytes", payload.len()), octets::PING, payload)
}

/// A WebSocket pong that nobody has asked for.
pub fn pong(payload: &'static [u8]) -> Sending {
    frame("a pong", octets::PONG, payload)
}

/// A close frame with this code and reason.
pub fn close(code: u16, reason: &str) -> Sending {
    let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    frame(&format!("a close frame of {code} {reason:?}"), octets::CLOSE, payload)
}

/// The positive answer to the peer's call that was expected last.
pub fn answer(reply: impl Into<Reply>) -> Sending {
    let reply = reply.into();
    let words = format!("the answer {reply:?}");
    let Message::Response(SatRpcResponse { result, .. }) = reply.encode(0) else {
        return binary(&words, Bytes::new());
    };
    answering(words, result)
}

/// The negative answer to the peer's call that was expected last.
pub fn refuse(code: ErrorCode) -> Sending {
    let words = format!("the refusal {}", code.as_str_name());
    answering(words, Some(Outcome::Error(SatErrorResp::of(code))))
}

/// The same with an error type of this number.
pub fn refuse_with(error_type: i32) -> Sending {
    let error = SatErrorResp { error_type, ..Default::default() };
    answering(format!("a refusal of error type {error_type}"), Some(Outcome::Error(error)))
}

/// The positive answer to the peer's call that was expected last, with this body.
pub fn answer_of(body: &'static [u8]) -> Sending {
    let words = format!("an answer with the body {}", hex(body));
    answering(words, Some(Outcome::Message(Bytes::from_static(body))))
}

/// What belongs to the subscription that the peer has asked for last.
pub fn deliver(part: Part) -> Sending {
    Sending::new(part.to_string(), Payload::Delivery(part), Framing::One(octets::BINARY))
}

/// A response to the peer's call that was expected last that holds neither answer nor error.
pub fn empty_response() -> Sending {
    answering("a response without a result".into(), None)
}

fn answering(words: String, result: Option<Outcome>) -> Sending {
    let payload = Payload::Answer { result, method: None, off_by: 0 };
    Sending::new(words, payload, Framing::One(octets::BINARY))
}

impl Sending {
    /// With a wrong request id, if it is an answer.
    pub fn with_wrong_number(mut self) -> Sending {
        if let Payload::Answer { off_by, .. } = &mut self.payload {
            *off_by = 1000;
            self.words += " with a wrong request id";
        }
        self
    }

    /// With another method, if it is an answer.
    pub fn with_method(mut self, other: &'static str) -> Sending {
        if let Payload::Answer { method, .. } = &mut self.payload {
            *method = Some(other);
            self.words += &format!(" with the method {other:?}");
        }
        self
    }
}

fn message_in_words(words: String, message: &Message) -> Sending {
    Sending::new(words, Payload::Bytes(message.encode()), Framing::One(octets::BINARY))
}

/// `startReplication` from the beginning.
pub fn start() -> SatInStartReplicationReq {
    SatInStartReplicationReq::default()
}

/// `startReplication` from this position.
pub fn start_at(lsn: &'static [u8]) -> SatInStartReplicationReq {
    SatInStartReplicationReq { lsn: Bytes::from_static(lsn), ..Default::default() }
}

/// `stopReplication`.
pub fn stop() -> SatInStopReplicationReq {
    SatInStopReplicationReq {}
}

/// `subscribe` without shapes.
pub fn subscribe(id: &str) -> SatSubsReq {
    SatSubsReq { subscription_id: id.into(), shape_requests: vec![] }
}

/// `unsubscribe`.
pub fn unsubscribe(id: &str) -> SatUnsubsReq {
    SatUnsubsReq { subscription_ids: vec![id.into()] }
}

// ---- Expecting ----

/// What arrives, as far as a case looks at it.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A binary message that is one of this protocol.
    Message(Message),
    /// A binary message that is not.
    Undecodable(Bytes),
    /// A text message.
    Text(Bytes),
    /// A ping.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A close frame.
    Close(Option<Close>),
    /// A breach of RFC 6455, in words.
    Breach(String),
    /// The end of the stream.
    End,
}

impl fmt::Display for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incoming::Message(message) => Beginning(InWords(message), MOST_WORDS).fmt(f),
            Incoming::Undecodable(bytes) => write!(f, "a message that is none: {}", hex(bytes)),
            Incoming::Text(text) => write!(f, "a text message of {} bytes", text.len()),
            Incoming::Ping(payload) => write!(f, "a ping of {} bytes", payload.len()),
            Incoming::Pong(payload) => write!(f, "a pong of {} bytes", payload.len()),
            Incoming::Close(None) => f.write_str("a close frame without a code"),
            Incoming::Close(Some(close)) => write!(f, "a close frame of {close}"),
            Incoming::Breach(words) => write!(f, "a breach of RFC 6455: {words}"),
            Incoming::End => f.write_str("the end of the connection"),
        }
    }
}

/// A message in words, with the body of its envelope.
struct InWords<'a>(&'a Message);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Request(envelope) => match Request::decode(envelope.clone()) {
                Ok(request) => {
                    write!(f, "call {} ({}) {request:?}", request.method(), envelope.request_id)
                }
                Err(error) => error.fmt(f),
            },
            Message::Response(envelope) => {
                write!(f, "response to {:?} ({}): ", envelope.method, envelope.request_id)?;
                match (envelope.method.parse(), &envelope.result) {
                    (_, None) => f.write_str("without a result"),
                    (_, Some(Outcome::Error(error))) => write!(f, "refused: {error}"),
                    (Err(_), Some(Outcome::Message(body))) => f.write_str(&hex(body)),
                    (Ok(method), Some(_)) => match Reply::decode(method, envelope.clone()) {
                        Ok(reply) => write!(f, "{reply:?}"),
                        Err(error) => error.fmt(f),
                    },
                }
            }
            message => write!(f, "{message:?}"),
        }
    }
}

/// How many characters of a message in words are shown.
pub(super) const MOST_WORDS: usize = 1000;

/// The beginning of a text, if it has more than so many characters.
pub(super) struct Beginning<T>(pub(super) T, pub(super) usize);

impl<T: fmt::Display> fmt::Display for Beginning<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut until = Until { f, left: self.1, is_cut: false };
        // What stops writing is no error of what is written to.
        match fmt::write(&mut until, format_args!("{}", self.0)) {
            Err(_) if until.is_cut => f.write_str("…"),
            outcome => outcome,
        }
    }
}

/// Takes so many characters, and then no more: the rest is not even made.
struct Until<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    left: usize,
    is_cut: bool,
}

impl fmt::Write for Until<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.char_indices().nth(self.left) {
            None => {
                self.left -= text.chars().count();
                self.f.write_str(text)
            }
            Some((end, _)) => {
                self.f.write_str(&text[..end])?;
                self.is_cut = true;
                Err(fmt::Error)
            }
        }
    }
}

/// How many bytes are shown in hex.
pub(super) const MOST_HEX: usize = 512;

/// Bytes in hex; only the beginning of many.
pub(super) fn hex(bytes: &[u8]) -> String {
    hex_of(bytes, bytes.len())
}

/// The beginning, in hex, of so many bytes.
pub(super) fn hex_of(beginning: &[u8], length: usize) -> String {
    let shown = beginning.iter().take(MOST_HEX);
    let mut text: String = shown.map(|byte| format!("{byte:02x}")).collect();
    if length > MOST_HEX {
        text += &format!("… ({length} bytes)");
    }
    text
}

/// What must come next.
#[derive(Clone)]
pub struct Expectation {
    words: String,
    test: Arc<dyn Fn(&Incoming) -> bool + Send + Sync>,
    pub(super) like: Option<Like>,
}

/// What a message is compared with beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Like {
    /// The client id and the token that the client was told.
    Invitation,
    /// The numbers of the calls on this connection, which a new call does not repeat.
    OtherNumbers,
    /// The id of the subscription that was asked for last.
    Subscription,
}

impl Expectation {
    pub(super) fn is_met_by(&self, incoming: &Incoming) -> bool {
        (self.test)(incoming)
    }

    /// As a step, with a deadline of its own.
    pub fn within(self, time: Duration) -> Step {
        Step::Expect(self, Some(time))
    }

    /// This, or another.
    pub fn or(self, other: Expectation) -> Expectation {
        let words = format!("{}, or {}", self.words, other.words);
        such(words, move |incoming| self.is_met_by(incoming) || other.is_met_by(incoming))
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl fmt::Debug for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// This must come next, in the time of the run.
pub fn expect(expectation: Expectation) -> Step {
    Step::Expect(expectation, None)
}

/// All of these must come, in any order.
pub fn expect_all(expected: impl IntoIterator<Item = Expectation>) -> Step {
    Step::ExpectAll(expected.into_iter().collect())
}

/// Anything that passes this test, in words.
pub fn such(
    words: impl Into<String>,
    test: impl Fn(&Incoming) -> bool + Send + Sync + 'static,
) -> Expectation {
    Expectation { words: words.into(), test: Arc::new(test), like: None }
}

/// A message that passes this test.
pub fn a_message(
    words: impl Into<String>,
    test: impl Fn(&Message) -> bool + Send + Sync + 'static,
) -> Expectation {
    such(words, move |incoming| matches!(incoming, Incoming::Message(message) if test(message)))
}

/// The positive answer to the call with this number that passes this test.
pub fn reply_such(
    words: impl Into<String>,
    method: Method,
    request_id: u32,
    test: impl Fn(&Reply) -> bool + Send + Sync + 'static,
) -> Expectation {
    a_message(words, move |message| {
        let Message::Response(envelope) = message else { return false };
        envelope.request_id == request_id
            && envelope.method == method.as_str()
            && Reply::decode(method, envelope.clone()).is_ok_and(|reply| test(&reply))
    })
}

/// Any positive answer to the call of this kind with this number.
pub fn reply<C: Call>(request_id: u32) -> Expectation {
    let words = format!("the positive answer to {} ({request_id})", C::METHOD);
    reply_such(words, C::METHOD, request_id, |_| true)
}

/// The positive answer to `authenticate`, with the id of the server.
pub fn welcome(request_id: u32) -> Expectation {
    let words = format!("SatAuthResp to {request_id} with an id");
    reply_such(
        words,
        Method::Authenticate,
        request_id,
        |reply| matches!(reply, Reply::Authenticate(welcome) if !welcome.id.is_empty()),
    )
}

/// The positive answer to `startReplication`, without an error in it.
pub fn started(request_id: u32) -> Expectation {
    let words = format!("SatInStartReplicationResp to {request_id} without an error");
    reply_such(words, Method::StartReplication, request_id, |reply| {
        matches!(reply, Reply::StartReplication(SatInStartReplicationResp { err: None, .. }))
    })
}

/// The answer to `startReplication` with this error in it.
pub fn start_error(request_id: u32, code: Code) -> Expectation {
    let words = format!("SatInStartReplicationResp to {request_id} with {}", code.as_str_name());
    reply_such(words, Method::StartReplication, request_id, move |reply| {
        matches!(reply, Reply::StartReplication(SatInStartReplicationResp { err: Some(err), .. })
            if err.code() == code)
    })
}

/// The negative answer to the call with this number, of this error type.
pub fn refused(method: &str, request_id: u32, code: ErrorCode) -> Expectation {
    let words = format!("the refusal {} of {method:?} ({request_id})", code.as_str_name());
    let method = method.to_owned();
    a_message(words, move |message| {
        matches!(message, Message::Response(SatRpcResponse {
            method: found,
            request_id: number,
            result: Some(Outcome::Error(error)),
        }) if *found == method && *number == request_id && error.error_type() == code)
    })
}

/// An error that is no answer, of this type.
pub fn error(code: ErrorCode) -> Expectation {
    let words = format!("a bare SatErrorResp {}", code.as_str_name());
    a_message(
        words,
        move |message| matches!(message, Message::Error(error) if error.error_type() == code),
    )
}

/// A call of the peer.
pub fn called(method: Method) -> Expectation {
    called_such(format!("a call of {method}"), method, |_| true)
}

/// A call of the peer that passes this test.
pub fn called_such(
    words: impl Into<String>,
    method: Method,
    test: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> Expectation {
    a_message(words, move |message| {
        let Message::Request(envelope) = message else { return false };
        envelope.method == method.as_str()
            && Request::decode(envelope.clone()).is_ok_and(|request| test(&request))
    })
}

/// A call of `authenticate` with the client id and the token that the client was told.
pub fn authenticates() -> Expectation {
    let words = "authenticate with the client id and the token that the client was told";
    Expectation {
        like: Some(Like::Invitation),
        ..called_such(words, Method::Authenticate, |_| true)
    }
}

/// A call of the peer whose number no other call on the connection has had.
pub fn called_anew(method: Method) -> Expectation {
    let words = format!("a call of {method} with a request id of its own");
    Expectation { like: Some(Like::OtherNumbers), ..called_such(words, method, |_| true) }
}

/// A call of the peer that passes this test, and names the subscription that it has asked for
/// last.
pub fn called_about(
    words: impl Into<String>,
    method: Method,
    test: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> Expectation {
    Expectation { like: Some(Like::Subscription), ..called_such(words, method, test) }
}

/// A pong with this payload.
pub fn ponged(payload: &'static [u8]) -> Expectation {
    such(
        "a pong with the payload of the ping",
        move |incoming| matches!(incoming, Incoming::Pong(found) if found == payload),
    )
}

/// A ping.
pub fn pinged() -> Expectation {
    such("a ping", |incoming| matches!(incoming, Incoming::Ping(_)))
}

// ---- Ends ----

/// How a connection must end.
#[derive(Clone, Debug)]
pub struct Ending {
    pub(super) kind: EndKind,
    pub(super) within: Option<Duration>,
}

/// The ways to end.
#[derive(Clone, Debug)]
pub(super) enum EndKind {
    /// It stays open, which a ping proves.
    Open,
    /// By a close frame with one of these codes, and this reason if one is given, and then the end
    /// of the stream. None of them stands for a frame without a code.
    Closed(Vec<Option<u16>>, Option<&'static str>),
    /// By a close frame of any code, or by the end of the stream.
    Gone,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            EndKind::Open => f.write_str("stay open"),
            EndKind::Gone => f.write_str("be closed"),
            EndKind::Closed(codes, reason) => {
                let codes: Vec<String> = codes
                    .iter()
                    .map(|code| code.map_or("no code".into(), |code| code.to_string()))
                    .collect();
                write!(f, "be closed with {}", codes.join(" or "))?;
                reason.map_or(Ok(()), |reason| write!(f, " and the reason {reason:?}"))
            }
        }?;
        self.within.map_or(Ok(()), |within| write!(f, " within {within:?}"))
    }
}

impl Ending {
    /// And with this reason.
    pub fn saying(mut self, reason: &'static str) -> Ending {
        if let EndKind::Closed(_, expected) = &mut self.kind {
            *expected = Some(reason);
        }
        self
    }

    /// Or by a close frame without a code.
    pub fn or_without_code(mut self) -> Ending {
        if let EndKind::Closed(codes, _) = &mut self.kind {
            codes.push(None);
        }
        self
    }

    /// And within so long.
    pub fn within(self, time: Duration) -> Ending {
        Ending { within: Some(time), ..self }
    }
}

/// The connection must end so, or stay.
pub fn ends(ending: Ending) -> Step {
    Step::Ends(ending)
}

/// It stays open.
pub fn open_still() -> Ending {
    Ending { kind: EndKind::Open, within: None }
}

/// It is closed with this code.
pub fn closed(code: u16) -> Ending {
    closed_with([code])
}

/// It is closed with one of these codes.
pub fn closed_with(codes: impl IntoIterator<Item = u16>) -> Ending {
    let codes = codes.into_iter().map(Some).collect();
    Ending { kind: EndKind::Closed(codes, None), within: None }
}

/// It is closed with one of these codes, or without a code.
pub fn closed_with_or_without(codes: impl IntoIterator<Item = u16>) -> Ending {
    let codes = codes.into_iter().map(Some).chain([None]).collect();
    Ending { kind: EndKind::Closed(codes, None), within: None }
}

/// It is closed somehow: with any code, or none, or by the end of the stream.
pub fn gone() -> Ending {
    Ending { kind: EndKind::Gone, within: None }
}

/// Passes the time of so many milliseconds.
pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Passes the time of so many seconds.
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
