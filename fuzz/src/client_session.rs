//! Whatever happens to a client's session, and in whatever order: it presents its token first and
//! does nothing else before it is let in; each call of either side is answered once; nothing comes
//! after the end; the deadline holds; and it acknowledges what has come, once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use electric_satellite::{
    session::{
        CallId, ClientId, ClientSession, Close, Fault, Input, Output, Question, SendError, Session,
        Token,
    },
    wire::{
        Message, Method, Reply, Request, Version,
        proto::{SatOpLog, SatRpcResponse, sat_trans_op::Op},
    },
};

use crate::{choices::Choices, said};

/// The input chooses the version, and then what happens.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut world = World::new(said::version(&mut choices));
    while !choices.is_empty() {
        world.happens(&mut choices);
        world.drain();
    }
    world.ends();
}

const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

struct World {
    session: ClientSession,
    version: Version,
    start: Instant,
    now: Instant,
    let_in: bool,
    /// The message that is being handled.
    heard: Option<Message>,
    /// How often the server has called, by method and number, and how often it was answered.
    called: HashMap<(String, u32), (usize, usize)>,
    questions: Vec<Question>,
    /// The server's last word on our stream, and whether we have answered it positively.
    start_asked: bool,
    sending: bool,
    /// Our calls, and how many answers came.
    calls: Vec<(CallId, usize)>,
    forgotten: Vec<CallId>,
    /// How often a transaction has begun, by its number, and was acknowledged.
    transactions: HashMap<u64, (usize, usize)>,
    ended: bool,
}

impl World {
    fn new(version: Version) -> World {
        let start = Instant::now();
        let client_id = ClientId::new("client").expect("it is not empty");
        let token = Token::new("t").expect("it is not empty");
        let mut session = ClientSession::new(start, AUTH_TIMEOUT, version, &client_id, token);
        let Some(Output::Send(frame)) = session.poll_output() else { panic!("no auth request") };
        let Ok(Message::Request(call)) = Message::decode(frame.0) else { panic!("no call") };
        let Ok(Request::Authenticate(auth)) = Request::decode(call) else { panic!("another call") };
        assert_eq!((auth.id.as_str(), auth.token.as_str()), ("client", "t"));
        assert!(session.poll_output().is_none());
        World {
            session,
            version,
            start,
            now: start,
            let_in: false,
            heard: None,
            called: HashMap::new(),
            questions: vec![],
            start_asked: false,
            sending: false,
            calls: vec![],
            forgotten: vec![],
            transactions: HashMap::new(),
            ended: false,
        }
    }

    fn happens(&mut self, choices: &mut Choices) {
        match choices.byte() % 16 {
            0..=5 => self.hears(choices),
            6 | 7 => self.answers(choices),
            8 | 9 => self.sends(said::stream(choices)),
            10 | 11 => self.calls(said::request(choices)),
            12 => self.waits(Duration::from_millis(choices.number().into())),
            13 => {
                if let Some((call, _)) = self.calls.get(usize::from(choices.byte())) {
                    self.session.forget(*call);
                    self.forgotten.push(*call);
                }
            }
            14 => {
                let called = self.session.reauthenticate(Token::new("new").expect("not empty"));
                self.has_called(called);
            }
            _ => {
                let error = choices.yes().then(|| said::error(choices));
                match choices.byte() % 8 {
                    5 => self.session.close(error, Close::NORMAL),
                    6 => self.input(Input::Closed(Some(Close::INTERNAL))),
                    7 => self.input(Input::Fault(Fault::Protocol)),
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
        assert_eq!(self.session.wants_input(), !self.ended);
        match self.session.handle_input(self.now, Input::Binary(frame.clone().into())) {
            Err(Input::Binary(back)) => assert!(self.ended && back.0 == frame),
            Err(other) => panic!("{other:?} came back"),
            Ok(()) => {
                self.heard = Message::decode(frame).ok();
                if let Some(Message::Request(call)) = &self.heard {
                    let key = (call.method.clone(), call.request_id);
                    self.called.entry(key).or_default().0 += 1;
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
        match (&answer, method) {
            (Ok(Reply::StartReplication(start)), _) => {
                self.sending = start.err.is_none() && self.start_asked;
            }
            (Ok(Reply::StopReplication(_)), _) => self.sending = false,
            _ => {}
        }
        let answered = self.session.answer(question, answer);
        assert_eq!(answered, if self.ended { Err(SendError::Ended) } else { Ok(()) });
    }

    fn sends(&mut self, message: Message) {
        let sent = self.session.send(message.clone());
        let may = match message {
            Message::OpLog(_) | Message::Relation(_) => self.sending,
            Message::OpLogAck(_) => self.version >= Version::V0_10,
            _ => false,
        };
        assert!(sent.is_err() || may && self.is_ready(), "{} was sent", message.name());
        if let (Ok(()), Message::OpLogAck(ack)) = (sent, message) {
            self.acknowledges(ack.transaction_id);
        }
    }

    fn acknowledges(&mut self, transaction_id: u64) {
        // It acknowledges data alone, where no transaction came before.
        if transaction_id == 0 && self.version >= Version::V0_12 {
            return;
        }
        let transaction = self.transactions.get_mut(&transaction_id);
        let (begun, acknowledged) = transaction.expect("it has not come");
        *acknowledged += 1;
        assert!(acknowledged <= begun, "it is acknowledged already");
    }

    fn calls(&mut self, request: Request) {
        let is_auth = request.method() == Method::Authenticate;
        let called = self.session.call(request);
        assert!(called.is_err() || !is_auth);
        match is_auth {
            true => {}
            false => self.has_called(called),
        }
    }

    fn has_called(&mut self, called: Result<CallId, SendError>) {
        assert_eq!(called.is_ok(), self.is_ready());
        if let Ok(call) = called {
            self.calls.push((call, 0));
        }
    }

    fn is_ready(&self) -> bool {
        self.let_in && !self.ended
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
                Output::Authenticate(_) => panic!("a client has nothing to ask"),
                Output::Authenticated(_) => {
                    assert!(!self.let_in, "it is let in once");
                    let Some(Message::Response(heard)) = self.heard.take() else {
                        panic!("without an answer")
                    };
                    assert_eq!(heard.method, "authenticate");
                    self.let_in = true;
                }
                Output::Message(message) => {
                    assert!(self.let_in, "before authentication");
                    if let Message::OpLog(log) = &message {
                        self.notes(log);
                    }
                    assert_eq!(Some(message), self.heard.take());
                }
                Output::Call(request, question) => {
                    assert!(self.let_in, "before authentication");
                    let Some(Message::Request(heard)) = self.heard.take() else {
                        panic!("nobody called")
                    };
                    assert_eq!(Request::decode(heard).as_ref(), Ok(&request));
                    self.start_asked = match request.method() {
                        Method::StartReplication => true,
                        Method::StopReplication => false,
                        other => panic!("{other} is not for a client"),
                    };
                    self.questions.push(question);
                }
                Output::Reply(call, _) => {
                    let made = self.calls.iter_mut().rfind(|(made, _)| *made == call);
                    made.expect("a call that was made").1 += 1;
                }
                Output::Stray { .. } => {}
                Output::End(_) => self.ended = true,
            }
        }
        self.heard = None;
        let deadline = (!self.let_in && !self.ended).then(|| self.start + AUTH_TIMEOUT);
        assert_eq!(self.session.deadline(), deadline);
        outputs
    }

    fn notes(&mut self, log: &SatOpLog) {
        for op in &log.ops {
            let id = match &op.op {
                Some(Op::Begin(begin)) => begin.transaction_id,
                _ => None,
            };
            if let Some(id) = id {
                self.transactions.entry(id).or_default().0 += 1;
            }
        }
    }

    fn sent(&mut self, message: Message) {
        assert!(message.since() <= self.version);
        let Message::Response(SatRpcResponse { method, request_id, .. }) = message else { return };
        let Some((called, answered)) = self.called.get_mut(&(method.clone(), request_id)) else {
            panic!("{method} {request_id} was not called")
        };
        *answered += 1;
        assert!(answered <= called, "{method} {request_id} is answered once too often");
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
        assert!(self.session.poll_output().is_none(), "after the end");
        assert!(!self.session.wants_input());
    }
}
