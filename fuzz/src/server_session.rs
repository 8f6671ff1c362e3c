//! Whatever happens to a server's session, and in whatever order: no handler hears anything before
//! somebody has vouched for the client, who stays who it is; each call is answered once; nothing
//! comes after the end; deadlines hold; and what may not be sent is not.

use std::{
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use electric_satellite::{
    session::{
        AuthChangePolicy, AuthRequest, CallId, Close, Fault, Identity, Input, Limit, Output,
        Question, Refusal, SendError, ServerSession, Session, Verified,
    },
    wire::{
        Message, Method, Reply, Request, Version,
        proto::{SatRpcResponse, sat_rpc_response::Result as Outcome},
    },
};

use crate::{choices::Choices, said};

/// The input chooses the version and the policy, and then what happens.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut world = World::new(said::version(&mut choices), choices.yes());
    while !choices.is_empty() {
        world.happens(&mut choices);
        world.drain();
    }
    world.ends();
}

const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

struct World {
    session: ServerSession<Rc<()>>,
    version: Version,
    renews: bool,
    start: Instant,
    now: Instant,
    /// The registration, of which the session holds another as long as it lasts.
    registration: Rc<()>,
    /// The question that is out.
    asked: Option<AuthRequest>,
    /// Who was let in: the client id and the identity.
    client: Option<(String, Verified)>,
    expires: Option<Instant>,
    too_old: Option<Instant>,
    /// Until when there must be a verdict on a renewal, if one is asked for.
    undecided: Option<Instant>,
    /// The message that is being handled.
    heard: Option<Message>,
    /// How often the client has called, by method and number, and how often it was answered.
    called: HashMap<(String, u32), (usize, usize)>,
    questions: Vec<Question>,
    /// The client's last word was `startReplication`, and then our answer to it was positive.
    start_asked: bool,
    streaming: bool,
    /// Our calls, and how many answers came.
    calls: Vec<(CallId, usize)>,
    forgotten: Vec<CallId>,
    ended: bool,
}

impl World {
    fn new(version: Version, renews: bool) -> World {
        let start = Instant::now();
        let policy = match renews {
            true => AuthChangePolicy::RenewSameIdentity,
            false => AuthChangePolicy::Refuse,
        };
        World {
            session: ServerSession::registering(start, AUTH_TIMEOUT, version, "server")
                .with_auth_changes(policy),
            version,
            renews,
            start,
            now: start,
            registration: Rc::new(()),
            asked: None,
            client: None,
            expires: None,
            too_old: None,
            undecided: None,
            heard: None,
            called: HashMap::new(),
            questions: vec![],
            start_asked: false,
            streaming: false,
            calls: vec![],
            forgotten: vec![],
            ended: false,
        }
    }

    fn happens(&mut self, choices: &mut Choices) {
        match choices.byte() % 16 {
            0..=5 => self.hears(choices),
            6 | 7 => self.resolves(choices),
            8 => self.answers(choices),
            9 => self.sends(said::stream(choices)),
            10 => self.calls(said::request(choices)),
            11 => self.waits(Duration::from_millis(choices.number().into())),
            12 => self.limits(choices),
            13 => {
                if let Some((call, _)) = self.calls.get(usize::from(choices.byte())) {
                    self.session.forget(*call);
                    self.forgotten.push(*call);
                }
            }
            14 => {
                let faults =
                    [Fault::Text, Fault::NotUtf8, Fault::TooLarge, Fault::Protocol, Fault::Silent];
                if choices.byte() % 4 == 3 {
                    self.input(Input::Fault(choices.one_of(&faults)));
                }
            }
            _ => {
                let error = choices.yes().then(|| said::error(choices));
                match choices.byte() % 4 {
                    3 => self.session.close(error, Close::GOING_AWAY),
                    2 => self.input(Input::Closed(Some(Close::NORMAL))),
                    _ => {}
                }
            }
        }
    }

    fn input(&mut self, input: Input) {
        assert!(self.session.handle_input(self.now, input).is_ok(), "it is always taken");
    }

    fn hears(&mut self, choices: &mut Choices) {
        let frame = said::frame(choices);
        let wants = self.session.wants_input();
        assert_eq!(wants, !self.ended && self.asked.is_none(), "it waits for a verdict");
        match self.session.handle_input(self.now, Input::Binary(frame.clone().into())) {
            Err(Input::Binary(back)) => assert!(!wants && back.0 == frame),
            Err(other) => panic!("{other:?} came back"),
            Ok(()) => {
                assert!(wants);
                self.heard = Message::decode(frame).ok();
                if let Some(Message::Request(call)) = &self.heard {
                    let key = (call.method.clone(), call.request_id);
                    self.called.entry(key).or_default().0 += 1;
                }
            }
        }
    }

    fn resolves(&mut self, choices: &mut Choices) {
        let Some(request) = self.asked.take() else { return };
        let verdict = match choices.byte() % 8 {
            0 => Err(choices.one_of(&[
                Refusal::Malformed,
                Refusal::Expired,
                Refusal::Occupied,
                Refusal::Unavailable,
            ])),
            1 => Ok("another"),
            _ => Ok("user"),
        };
        let verdict =
            verdict.map(|user| Verified::vouched_for_by_authenticator(Identity::new(user)));
        match &self.client {
            None => {
                if let Ok(verified) = &verdict {
                    let client_id = request.client_id().as_str().to_owned();
                    self.client = Some((client_id, verified.clone())).filter(|_| !self.ended);
                }
                let registration = Rc::clone(&self.registration);
                self.session.resolve_registered(request, verdict.map(|who| (who, registration)));
            }
            Some((_, who)) => {
                let renewed = verdict
                    .as_ref()
                    .is_ok_and(|renewed| renewed.identity().user_id == who.identity().user_id);
                let expires = choices.yes().then(|| self.now + Duration::from_secs(60));
                self.session.renew(request, verdict, expires);
                if renewed && !self.ended {
                    self.expires = expires;
                }
            }
        }
    }

    fn answers(&mut self, choices: &mut Choices) {
        if self.questions.is_empty() {
            return;
        }
        let question = self.questions.swap_remove(choices.within(0..self.questions.len()));
        let method = question.method();
        let answer = match choices.byte() % 8 {
            0 => Err(said::error(choices)),
            _ => Ok(said::reply(choices, method)),
        };
        let starts = matches!(&answer, Ok(Reply::StartReplication(start)) if start.err.is_none());
        let answered = self.session.answer(question, answer);
        assert_eq!(answered, if self.ended { Err(SendError::Ended) } else { Ok(()) });
        match method {
            Method::StartReplication => self.streaming = starts && self.start_asked,
            Method::StopReplication => self.streaming = false,
            _ => {}
        }
    }

    fn sends(&mut self, message: Message) {
        let is_ours = !matches!(message, Message::Error(_) | Message::OpLogAck(_));
        let is_known = message.since() <= self.version;
        let may = self.is_ready() && self.streaming && is_ours && is_known;
        assert_eq!(self.session.send(message).is_ok(), may);
    }

    fn calls(&mut self, request: Request) {
        let may = match request.method() {
            Method::StartReplication => self.streaming,
            Method::StopReplication => true,
            _ => false,
        };
        let called = self.session.call(request);
        assert_eq!(called.is_ok(), may && self.is_ready());
        if let Ok(call) = called {
            self.calls.push((call, 0));
        }
    }

    fn is_ready(&self) -> bool {
        self.client.is_some() && !self.ended
    }

    fn waits(&mut self, time: Duration) {
        self.now += time;
        let is_over = self.session.deadline().is_some_and(|deadline| deadline <= self.now);
        self.input(Input::Timeout);
        let ended = self.ended;
        let outputs = self.drain();
        match is_over {
            true => assert!(!ended && self.ended, "a deadline that is not kept"),
            false => assert_eq!(outputs, 0, "it ends before its time"),
        }
    }

    fn limits(&mut self, choices: &mut Choices) {
        let until = self.now + Duration::from_millis(choices.number().into());
        let limit = choices.one_of(&[Limit::Expiry, Limit::Age]);
        self.session.limit(until, limit);
        if self.is_ready() {
            match limit {
                Limit::Expiry => self.expires = Some(until),
                Limit::Age => self.too_old = Some(until),
            }
        }
    }

    /// How many outputs there were.
    fn drain(&mut self) -> usize {
        let mut outputs = 0;
        while let Some(output) = self.session.poll_output() {
            assert!(!self.ended, "after the end: {output:?}");
            outputs += 1;
            match output {
                Output::Send(frame) => {
                    self.sent(Message::decode(frame.0).expect("it sends messages"));
                }
                Output::Authenticate(request) => self.is_asked(request),
                Output::Authenticated(client) => {
                    let (client_id, verified) = self.client.as_ref().expect("a verdict");
                    assert_eq!(client.client_id.as_str(), client_id);
                    assert_eq!(client.verified, *verified);
                }
                Output::Message(message) => {
                    assert!(self.client.is_some(), "before authentication");
                    assert_eq!(Some(message), self.heard.take());
                }
                Output::Call(request, question) => {
                    assert!(self.client.is_some(), "before authentication");
                    let Some(Message::Request(heard)) = self.heard.take() else {
                        panic!("nobody called")
                    };
                    assert_eq!(Request::decode(heard).as_ref(), Ok(&request));
                    match question.method() {
                        Method::StartReplication => self.start_asked = true,
                        Method::StopReplication => self.start_asked = false,
                        Method::Authenticate => panic!("not for a handler"),
                        _ => {}
                    }
                    self.questions.push(question);
                }
                Output::Reply(call, _) => {
                    let made = self.calls.iter_mut().rfind(|(made, _)| *made == call);
                    made.expect("a call that was made").1 += 1;
                }
                Output::Stray { .. } => assert!(self.client.is_some(), "before authentication"),
                Output::End(_) => self.ended = true,
            }
        }
        self.heard = None;
        self.is_consistent();
        outputs
    }

    fn is_asked(&mut self, request: AuthRequest) {
        assert!(self.client.is_none() || self.renews, "who is connected does not change");
        let Some(Message::Request(heard)) = self.heard.take() else { panic!("nobody asked") };
        let Ok(Request::Authenticate(heard)) = Request::decode(heard) else { panic!("no token") };
        assert_eq!(request.client_id().as_str(), heard.id);
        assert_eq!(request.token().expose(), heard.token);
        assert_eq!(request.version(), self.version);
        if let Some((client_id, _)) = &self.client {
            assert_eq!(request.client_id().as_str(), client_id);
            self.undecided = Some(self.now + AUTH_TIMEOUT);
        }
        assert!(self.asked.replace(request).is_none(), "one question at a time");
    }

    fn sent(&mut self, message: Message) {
        assert!(message.since() <= self.version || matches!(message, Message::Error(_)));
        let Message::Response(SatRpcResponse { method, request_id, result }) = message else {
            return;
        };
        if let Some(Outcome::Message(body)) = &result
            && method == "startReplication"
            && self.version < Version::V0_10
        {
            assert!(!body.starts_with(&[0x10]), "no window for this client");
        }
        let Some((called, answered)) = self.called.get_mut(&(method.clone(), request_id)) else {
            panic!("{method} {request_id} was not called")
        };
        *answered += 1;
        assert!(answered <= called, "{method} {request_id} is answered once too often");
    }

    fn is_consistent(&self) {
        let client = self.session.client();
        assert_eq!(client.is_some(), self.is_ready());
        if let (Some(client), Some((client_id, verified))) = (client, &self.client) {
            assert_eq!((client.client_id.as_str(), &client.verified), (&**client_id, verified));
        }
        let deadline = match (self.ended, &self.client) {
            (true, _) => None,
            (false, None) => Some(self.start + AUTH_TIMEOUT),
            (false, Some(_)) => {
                let undecided = self.undecided.filter(|_| self.asked.is_some());
                [self.expires, self.too_old, undecided].into_iter().flatten().min()
            }
        };
        assert_eq!(self.session.deadline(), deadline);
        assert_eq!(Rc::strong_count(&self.registration), 1 + usize::from(self.is_ready()));
    }

    /// Everything is settled, and stays so.
    fn ends(mut self) {
        self.input(Input::Closed(None));
        self.drain();
        assert!(self.ended);
        for (call, answers) in &self.calls {
            let least = usize::from(!self.forgotten.contains(call));
            assert!((least..=1).contains(answers), "{call:?} has {answers} answers");
        }
        for input in [Input::Timeout, Input::Closed(None), Input::Fault(Fault::Text)] {
            self.input(input);
        }
        self.session.close(None, Close::NORMAL);
        if let Some(request) = self.asked.take() {
            let verified = Verified::vouched_for_by_authenticator(Identity::new("user"));
            self.session.resolve_registered(request, Ok((verified, Rc::clone(&self.registration))));
        }
        assert!(self.session.poll_output().is_none(), "after the end");
        assert!(!self.session.wants_input());
        self.is_consistent();
    }
}
