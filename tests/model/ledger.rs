//! A session at the table with the checker: what happens to it, what is seen of it, and a ledger
//! of what that amounts to, kept from the outside.

use std::{
    fmt::Debug,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use electric_satellite::{
    session::{CallId, Cause, ClientSession, Close, Input, SendError, ServerSession, Session},
    wire::{Message, Method, Reply, Request, Version, proto::*},
};
use sat_error_resp::ErrorCode;

use crate::{
    common::{AUTH_TIMEOUT, METHODS, Named, Seen, Table, refused},
    explore::Found,
    faults::Seeded,
    properties::OF_A_SESSION,
    words::{Which, With, success},
};

/// When every connection opens: the same time in every replay, so that states can be compared.
pub(crate) static OPENED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A place in the registry, as far as a session knows of it.
pub(crate) type Place = Arc<()>;

/// A call of the peer: its method and its number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PeerCall(pub(crate) String, pub(crate) u32);

/// Something that happens to a session.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A frame arrives.
    Frame {
        /// The call that it is.
        call: Option<PeerCall>,
        /// The open call of this end that it answers.
        answers: Option<CallId>,
        /// Who is vouched for by it: for a client, its server by the answer to the auth request.
        vouches: Option<String>,
    },
    /// The authenticator and the registry have decided, and for whom if they let somebody in.
    Verdict(Option<String>),
    /// Whoever was asked for a verdict has dropped the question.
    QuestionDropped,
    /// The application answers a call of the peer.
    Answer(PeerCall),
    /// The application has made a call.
    Call(CallId),
    /// The application gives up on a call.
    Forget(CallId),
    /// The application sends a message, or tries in vain to do something.
    Send,
    /// A timeout, and whether the deadline is over.
    Timeout { due: bool },
    /// What ends every connection: the peer is gone, a fault, or the driver wants it.
    Ender,
}

impl Event {
    /// A frame that is no message.
    pub(crate) fn nothing_said() -> Event {
        Event::Frame { call: None, answers: None, vouches: None }
    }
}

/// How the session took it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Taken {
    Yes,
    /// The frame came back.
    Back,
    Refused(SendError),
}

/// What can be seen of a session without touching it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Look {
    pub(crate) wants_input: bool,
    /// Since the connection opened.
    pub(crate) deadline: Option<Duration>,
    /// Who the peer is, as the session's own accessor says.
    pub(crate) identity: Option<String>,
    /// Whether the place in the registry is held.
    pub(crate) has_place: bool,
}

/// What has happened so far, from the outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ledger {
    /// Who was vouched for first.
    pub(crate) vouched: Option<String>,
    /// A verdict was asked for and has not come.
    pub(crate) asked: bool,
    /// Who is there has been told.
    pub(crate) introduced: bool,
    /// The peer's calls that have no response.
    pub(crate) waiting: Vec<PeerCall>,
    /// Those of them that the application was asked, oldest first.
    pub(crate) questions: Vec<PeerCall>,
    /// Calls of this end that have no outcome, oldest first.
    pub(crate) calls: Vec<CallId>,
    /// The last word to the peer on the stream of this end was that it is started.
    pub(crate) streaming: bool,
    pub(crate) ended: bool,
}

impl Ledger {
    /// The ledger after this.
    fn after(&self, event: &Event, taken: Taken, seen: &[Seen]) -> Ledger {
        let mut ledger = self.clone();
        // A question is gone with the answer, even if it comes too late.
        if taken == Taken::Yes || matches!(event, Event::Answer(_)) {
            ledger.happens(event);
        }
        for seen in seen {
            ledger.sees(event, seen);
        }
        ledger
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Frame { call, vouches, .. } if !self.ended => {
                self.waiting.extend(call.clone());
                self.vouched = self.vouched.take().or_else(|| vouches.clone());
            }
            Event::Verdict(vouches) => {
                self.asked = false;
                if !self.ended {
                    self.vouched = self.vouched.take().or_else(|| vouches.clone());
                }
            }
            Event::QuestionDropped => self.asked = false,
            Event::Answer(call) => remove(&mut self.questions, call),
            Event::Call(call) => self.calls.push(*call),
            Event::Forget(call) => remove(&mut self.calls, call),
            _ => {}
        }
    }

    fn sees(&mut self, event: &Event, seen: &Seen) {
        match seen {
            Seen::Asked { .. } => self.asked = true,
            Seen::Authenticated(_) => self.introduced = true,
            Seen::Called(_) => {
                if let Event::Frame { call: Some(call), .. } = event {
                    self.questions.push(call.clone());
                }
            }
            Seen::Answered(call, _) => remove(&mut self.calls, call),
            Seen::Sent(Message::Response(response)) => {
                let call = PeerCall(response.method.clone(), response.request_id);
                remove(&mut self.waiting, &call);
                let Ok(method @ (Method::StartReplication | Method::StopReplication)) =
                    call.0.parse()
                else {
                    return;
                };
                if matches!(response.result, Some(sat_rpc_response::Result::Message(_))) {
                    let reply = Reply::decode(method, response.clone());
                    self.streaming =
                        matches!(reply, Ok(Reply::StartReplication(start)) if start.err.is_none());
                }
            }
            Seen::End(_) => {
                self.ended = true;
                self.streaming = false;
                self.calls.clear();
                self.waiting.clear();
            }
            _ => {}
        }
    }
}

fn remove<T: PartialEq>(list: &mut Vec<T>, it: &T) {
    if let Some(index) = list.iter().position(|other| other == it) {
        list.remove(index);
    }
}

/// One step, as a property judges it.
pub(crate) struct Step<'a> {
    pub(crate) version: Version,
    pub(crate) before: &'a Ledger,
    pub(crate) looked: &'a Look,
    pub(crate) event: &'a Event,
    pub(crate) taken: Taken,
    pub(crate) seen: &'a [Seen],
    pub(crate) look: &'a Look,
    pub(crate) after: &'a Ledger,
    /// The session is the same in every field as before.
    pub(crate) unchanged: bool,
}

/// A session that can be checked.
pub(crate) trait Subject: Session<Peer: Named> + Debug {
    fn identity(&self) -> Option<String>;
}

impl<R: Debug> Subject for ServerSession<R> {
    fn identity(&self) -> Option<String> {
        self.client().map(Named::name)
    }
}

impl Subject for ClientSession {
    /// It tells its server's id once, and keeps none.
    fn identity(&self) -> Option<String> {
        None
    }
}

/// A session, and everything that is known of it.
pub(crate) struct Checked<S> {
    pub(crate) table: Table<S>,
    pub(crate) ledger: Ledger,
    /// What a server's session is given clones of.
    pub(crate) place: Place,
    version: Version,
    /// A fault between the session and the checker.
    seeded: Option<Seeded>,
    /// The number of the peer's latest call.
    numbers: u32,
}

/// A session as it was before a step.
pub(crate) struct Before {
    look: Look,
    whole: String,
}

impl<S: Subject> Checked<S> {
    pub(crate) fn new(session: S, version: Version, seeded: Option<Seeded>) -> Checked<S> {
        let table = Table::new(*OPENED, session);
        let (ledger, place) = (Ledger::default(), Place::default());
        Checked { table, ledger, place, version, seeded, numbers: 100 }
    }

    fn look(&self) -> Look {
        let session = &self.table.session;
        Look {
            wants_input: session.wants_input(),
            deadline: session.deadline().map(|deadline| deadline - *OPENED),
            identity: session.identity(),
            has_place: Arc::strong_count(&self.place) > 1,
        }
    }

    pub(crate) fn before(&self) -> Before {
        Before { look: self.look(), whole: format!("{:?}", self.table.session) }
    }

    /// Drains the session, and judges what has happened by every property.
    pub(crate) fn judge(
        &mut self,
        Before { look: looked, whole }: Before,
        event: Event,
        mut taken: Taken,
    ) -> Result<(), Found> {
        let (seen, look) = self.see(&event, &mut taken);
        let after = self.ledger.after(&event, taken, &seen);
        let step = Step {
            version: self.version,
            before: &self.ledger,
            looked: &looked,
            event: &event,
            taken,
            seen: &seen,
            look: &look,
            after: &after,
            unchanged: whole == format!("{:?}", self.table.session),
        };
        let broken = OF_A_SESSION.iter().filter(|(_, holds)| !holds(&step));
        let broken: Vec<_> = broken.map(|(name, _)| *name).collect();
        if !broken.is_empty() {
            let told = format!("{event:?} {taken:?} {seen:?} {look:?}");
            return Err(Found { broken, told });
        }
        self.ledger = after;
        Ok(())
    }

    /// Drains the session and looks at it, through the fault if there is one.
    fn see(&mut self, event: &Event, taken: &mut Taken) -> (Vec<Seen>, Look) {
        let mut seen = self.table.drain();
        let mut look = self.look();
        if let Some(seeded) = self.seeded {
            seeded.distort(&self.ledger, event, taken, &mut seen, &mut look);
        }
        (seen, look)
    }

    /// Drains the session after a step that was judged before.
    pub(crate) fn repeat(&mut self, event: Event, mut taken: Taken) {
        let (seen, _) = self.see(&event, &mut taken);
        self.ledger = self.ledger.after(&event, taken, &seen);
    }

    /// Drains the session, and tells what was seen.
    pub(crate) fn tell(&mut self, event: Event, mut taken: Taken) -> String {
        let (seen, look) = self.see(&event, &mut taken);
        self.ledger = self.ledger.after(&event, taken, &seen);
        without_numbers(&format!("{event:?} {taken:?} {seen:?} {look:?}"))
    }

    // ---- What the peer does ----

    pub(crate) fn frame(&mut self, bytes: Bytes, event: Event) -> (Event, Taken) {
        let came = self.table.session.handle_input(*OPENED, Input::Binary(bytes.clone().into()));
        match came {
            Ok(()) => (event, Taken::Yes),
            Err(Input::Binary(back)) if back.0 == bytes => (event, Taken::Back),
            Err(other) => panic!("{other:?} came back"),
        }
    }

    /// A message arrives.
    pub(crate) fn hears(&mut self, message: impl Into<Message>) -> (Event, Taken) {
        let message = message.into();
        let (mut call, mut answers) = (None, None);
        match &message {
            Message::Request(it) => call = Some(PeerCall(it.method.clone(), it.request_id)),
            Message::Response(it) => {
                let is_it = |call: &&CallId| {
                    call.method.as_str() == it.method && call.request_id == it.request_id
                };
                answers = self.ledger.calls.iter().find(is_it).copied();
            }
            _ => {}
        }
        self.frame(message.encode(), Event::Frame { call, answers, vouches: None })
    }

    /// The peer calls.
    pub(crate) fn calls(&mut self, request: impl Into<Request>) -> (Event, Taken) {
        self.numbers += 1;
        self.hears(request.into().encode(self.numbers))
    }

    /// The peer calls something by this name, with this body.
    pub(crate) fn calls_by_name(&mut self, method: &str, body: &'static str) -> (Event, Taken) {
        self.numbers += 1;
        let (method, message) = (method.to_owned(), body.into());
        self.hears(SatRpcRequest { method, request_id: self.numbers, message })
    }

    /// The peer answers a call of this end.
    pub(crate) fn replies(&mut self, which: Which, with: With) -> (Event, Taken) {
        let calls = &self.ledger.calls;
        let call = match which {
            Which::Oldest => calls.first(),
            Which::Newest => calls.last(),
        };
        self.replies_to(*call.expect("the action is enabled"), with)
    }

    pub(crate) fn replies_to(&mut self, call: CallId, with: With) -> (Event, Taken) {
        let CallId { method, request_id } = call;
        self.hears(match with {
            With::Success => success(method).encode(request_id),
            With::Refusal => refused(method, request_id, ErrorCode::InvalidRequest),
            With::Nothing => {
                let method = method.as_str().to_owned();
                SatRpcResponse { method, request_id, result: None }.into()
            }
            With::OtherMethod => {
                let is_other = |other: &Method| {
                    *other != method
                        && !self.ledger.calls.contains(&CallId { method: *other, request_id })
                };
                let other = METHODS.into_iter().find(is_other).expect("few are open");
                success(other).encode(request_id)
            }
        })
    }

    // ---- What the driver does ----

    /// A timeout just before the deadline, or at it. Where there is none, it is never too late.
    pub(crate) fn timeout(&mut self, due: bool) -> (Event, Taken) {
        let session = &mut self.table.session;
        let now = match session.deadline() {
            Some(deadline) if due => deadline,
            Some(deadline) => deadline - Duration::from_nanos(1),
            None => *OPENED + 1000 * AUTH_TIMEOUT,
        };
        session.handle_input(now, Input::Timeout).expect("timeouts are taken");
        (Event::Timeout { due }, Taken::Yes)
    }

    pub(crate) fn ends_by(&mut self, input: Input) -> (Event, Taken) {
        self.table.session.handle_input(*OPENED, input).expect("it is no frame");
        (Event::Ender, Taken::Yes)
    }

    pub(crate) fn ends(
        &mut self,
        error: Option<SatErrorResp>,
        close: Close,
        cause: Cause,
    ) -> (Event, Taken) {
        self.table.session.end(error, close, cause);
        (Event::Ender, Taken::Yes)
    }

    // ---- What the application does ----

    pub(crate) fn sends(&mut self, message: impl Into<Message>) -> (Event, Taken) {
        let sent = self.table.session.send(message.into());
        (Event::Send, sent.map_or_else(Taken::Refused, |()| Taken::Yes))
    }

    /// This end calls.
    pub(crate) fn asks(&mut self, request: impl Into<Request>) -> (Event, Taken) {
        let called = self.table.session.call(request.into());
        Checked::<S>::called(called)
    }

    pub(crate) fn called(called: Result<CallId, SendError>) -> (Event, Taken) {
        match called {
            Ok(call) => (Event::Call(call), Taken::Yes),
            Err(error) => (Event::Send, Taken::Refused(error)),
        }
    }

    /// This end gives up on its oldest call.
    pub(crate) fn forgets(&mut self) -> (Event, Taken) {
        let call = *self.ledger.calls.first().expect("the action is enabled");
        self.table.session.forget(call);
        (Event::Forget(call), Taken::Yes)
    }

    /// The application answers a question.
    pub(crate) fn answers(
        &mut self,
        index: usize,
        answer: impl FnOnce(Method) -> Result<Reply, SatErrorResp>,
    ) -> (Event, Taken) {
        let question = self.table.questions.remove(index).expect("the action is enabled");
        let call = self.ledger.questions[index].clone();
        let answer = answer(question.method());
        let answered = self.table.session.answer(question, answer);
        (Event::Answer(call), answered.map_or_else(Taken::Refused, |()| Taken::Yes))
    }

    /// The state: every field of the session, and the ledger. Numbers of calls stand for their
    /// order, because a session tells them apart and does nothing else with them. Of a session that
    /// has ended, only what is still to come counts, and that it has.
    pub(crate) fn fingerprint(&self) -> String {
        let Ledger { vouched, asked, introduced, questions, calls, streaming, ended, .. } =
            &self.ledger;
        let questions: Vec<_> = questions.iter().map(|PeerCall(method, _)| method).collect();
        if *ended {
            return format!("ended {introduced} {questions:?} {:?}", self.look());
        }
        let session = in_order_of_age(&format!("{:?}", self.table.session));
        let calls: Vec<_> = calls.iter().map(|call| call.method).collect();
        format!("{session} {vouched:?} {asked} {introduced} {questions:?} {calls:?} {streaming}")
    }
}

/// The text with every request id replaced by its rank among them, and without the next one.
fn in_order_of_age(text: &str) -> String {
    const MARKS: [&str; 2] = ["request_id: ", "next: "];
    let mut ids: Vec<u32> = text
        .split(MARKS[0])
        .skip(1)
        .filter_map(|after| after[..digits(after)].parse().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, mark)) =
        MARKS.iter().filter_map(|mark| Some((rest.find(mark)?, *mark))).min()
    {
        let (before, after) = rest.split_at(at + mark.len());
        told.push_str(before);
        let length = digits(after);
        if mark == MARKS[0]
            && let Ok(id) = after[..length].parse::<u32>()
        {
            let rank = ids.binary_search(&id).expect("it is among them");
            told.push_str(&rank.to_string());
        }
        rest = &after[length..];
    }
    told + rest
}

/// The text without the numbers of calls, which equal states need not have in common. In a tuple
/// they follow a name.
fn without_numbers(told: &str) -> String {
    ["request_id: ", "\", "].into_iter().fold(told.to_owned(), |told, mark| {
        let mut parts = told.split(mark);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |told, part| told + mark + &part[digits(part)..])
    })
}

fn digits(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
}
