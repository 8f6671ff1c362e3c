//! Plays the script of a case against a peer, and finds where the peer departs from it.

mod ends;
mod upgrades;

use std::{
    future::poll_fn,
    ops::RangeInclusive,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    session::{ClientId, Token},
    wire::{
        Message, Method, Reply, Request, Version,
        proto::{
            SatAuthReq, SatInStartReplicationResp, SatInStopReplicationResp, SatRpcRequest,
            SatRpcResponse, SatShapeDataBegin, SatSubsDataBegin, SatSubsDataError, SatSubsReq,
            SatSubsResp, SatUnsubsDataBegin, sat_subs_resp::SatSubsError,
        },
    },
};

use super::{
    octets::{self, Http},
    script::{Expectation, Framing, Id, Incoming, Like, Part, Payload, Sending, Step, Upgrade},
    token::{TokenSpec, Tokens},
    wire::{Record, Stream, Wire},
};

/// Where connections come from: a server is dialled, a client comes.
pub(super) trait Stage: Send {
    /// Whether this end is the client.
    fn is_client(&self) -> bool;

    /// The next connection, or why there is none.
    fn connect(&mut self) -> BoxFuture<'_, Result<Box<dyn Stream>, String>>;

    /// Against a client: how it exits of its own accord, whether as a success.
    fn exit(&mut self) -> BoxFuture<'_, Exit>;

    /// Against a client: asks it to end.
    fn terminate(&mut self) {}
}

/// How a client under test exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As a success.
    Success,
    /// It does not do what it is asked to do, which is no fault: exit code 77.
    Unable,
    /// As a failure, in words.
    Failure(String),
}

/// Why a play is over before its script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The peer departs from the rule, in words.
    Failed(String),
    /// The peer ends the connection in another way than it must.
    Close(String),
    /// The case does not apply.
    Skipped(String),
}

/// What the steps of a case have in common.
pub(super) struct Play<'a> {
    pub(super) stage: Box<dyn Stage + 'a>,
    pub(super) tokens: &'a Tokens,
    pub(super) version: Version,
    /// How long a step may take.
    pub(super) patience: Duration,
    pub(super) client_id: String,
    /// What requests name as their host.
    pub(super) host: String,
    /// Against a client: the token that it was told.
    pub(super) told: Option<Token>,
    /// Against a client: the versions that the case holds for.
    pub(super) versions: RangeInclusive<Version>,
    pub(super) record: Record,
    wires: Vec<Wire>,
    current: usize,
    /// A connection of the client that has come, and is not looked at yet.
    pub(super) waiting: Option<Box<dyn Stream>>,
    /// The upgrade requests of the client.
    heads: Vec<Http>,
    /// The calls of the peer that were expected: on which connection, and with which numbers.
    calls: Vec<(usize, u32)>,
    /// The subscription that the peer has asked for last.
    subscription: Option<SatSubsReq>,
    /// What met the last expectation.
    met: Option<Incoming>,
    /// The call of the peer that was expected last.
    asked: Option<(String, u32)>,
    /// Which step is being played.
    pub(super) at: usize,
    /// How much has come during this step.
    arrived: usize,
    /// Whether the way a connection ends was judged.
    pub(super) close_judged: bool,
}

/// The user that tokens speak for unless they say otherwise.
pub(super) const USER: &str = "conformance";

/// How much may come during one step. It is for a peer that never stops, in simulated time, which
/// stands still as long as something happens.
const MOST_ARRIVALS: usize = 100_000;

/// How often a server may say that it has no room before that counts.
const MOST_DEFERRALS: usize = 20;

impl<'a> Play<'a> {
    pub(super) fn new(
        stage: Box<dyn Stage + 'a>,
        tokens: &'a Tokens,
        version: Version,
        patience: Duration,
    ) -> Play<'a> {
        Play {
            stage,
            tokens,
            version,
            patience,
            client_id: ClientId::random().as_str().to_owned(),
            host: "localhost".to_owned(),
            told: None,
            versions: Version::V0_6..=Version::V0_12,
            record: Record::new(),
            wires: vec![],
            current: 0,
            waiting: None,
            heads: vec![],
            calls: vec![],
            subscription: None,
            met: None,
            asked: None,
            at: 0,
            arrived: 0,
            close_judged: false,
        }
    }

    /// Plays all of it.
    pub(super) async fn script(&mut self, steps: &[Step]) -> Result<(), Stop> {
        for (at, step) in steps.iter().enumerate() {
            self.at = at;
            self.record.step = at;
            self.arrived = 0;
            if let Err(stop) = self.step(step).await {
                return Err(self.excused().await.unwrap_or(stop));
            }
        }
        Ok(())
    }

    /// A client that says that it cannot do what it is asked to departs from no rule.
    async fn excused(&mut self) -> Option<Stop> {
        const SOON: Duration = Duration::from_secs(1);
        if self.stage.is_client() {
            return None;
        }
        match timeout(SOON, self.stage.exit()).await {
            Ok(Exit::Unable) => Some(Stop::Skipped("the client does not do this".into())),
            _ => None,
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Open(upgrade) => self.open(upgrade).await,
            Step::Ask(ask, answer) => self.ask(ask, answer).await,
            Step::AskHere(ask, answer) => {
                let within = answer.within.unwrap_or(self.patience);
                let http = self.request(&ask.head, within).await?;
                self.is_as_expected(http, answer)
            }
            Step::Dial => self.connect().await,
            Step::Accept(acceptance) => self.accept(acceptance).await,
            Step::On(nth) => {
                self.current = nth - 1;
                Ok(())
            }
            Step::Send(sending) => self.send(sending).await,
            Step::SendTogether(sendings) => self.send_together(sendings).await,
            Step::Expect(expected, within) => self.expect(expected, *within).await,
            Step::Next(expected) => self.next_is(expected).await,
            Step::Given(expected, reason) => match self.expect(expected, None).await {
                Err(Stop::Failed(_)) => Err(Stop::Skipped((*reason).to_owned())),
                outcome => outcome,
            },
            Step::ExpectAll(expected) => self.expect_all(expected).await,
            Step::Silence(time) => self.silence(*time, None).await,
            Step::Absent(expected, time) => self.silence(*time, Some(expected)).await,
            Step::Whatever(time) => self.whatever(*time).await,
            Step::Wait(time) => {
                sleep(*time).await;
                Ok(())
            }
            Step::Cut => {
                self.record.note(self.current + 1, "", "the suite drops it", String::new());
                self.replace_by_nothing();
                Ok(())
            }
            Step::HalfClose => {
                self.wire()?.half_close().await;
                Ok(())
            }
            Step::Ends(ending) => {
                self.close_judged = true;
                self.ends(ending).await
            }
            Step::Alive => self.alive().await,
            Step::NoConnection(time) => self.no_connection(*time).await,
            Step::Exits(within) => self.exits(*within).await,
            Step::Repeatedly(steps, time, count) => self.repeatedly(steps, *time, count).await,
            Step::Terminate => {
                self.record.note(0, "", "the client is asked to end", String::new());
                self.stage.terminate();
                Ok(())
            }
            Step::Leaves(within) => match timeout(*within, self.stage.exit()).await {
                Ok(Exit::Success) => Ok(()),
                Ok(exit) => Err(Stop::Failed(format!("the client must end well: {exit:?}"))),
                Err(_) => Err(Stop::Failed(format!("the client goes on for {within:?}"))),
            },
            Step::LeavePingsUnanswered => {
                self.wire()?.pongs = false;
                Ok(())
            }
        }
    }

    fn wire(&mut self) -> Result<&mut Wire, Stop> {
        self.at_hand().map(|(wire, _)| wire)
    }

    /// The connection that the steps are about, and the record.
    fn at_hand(&mut self) -> Result<(&mut Wire, &mut Record), Stop> {
        let wire = self.wires.get_mut(self.current);
        let wire = wire.ok_or(Stop::Failed("there is no connection".into()))?;
        Ok((wire, &mut self.record))
    }

    fn replace_by_nothing(&mut self) {
        let nth = self.current + 1;
        if let Some(wire) = self.wires.get_mut(self.current) {
            *wire = Wire::new(Box::new(tokio::io::empty()), nth, true);
        }
    }

    /// Another connection, which is the current one from now on.
    async fn connect(&mut self) -> Result<(), Stop> {
        let is_client = self.stage.is_client();
        if let Some(stream) = self.waiting.take() {
            return self.go_on_with(stream, is_client);
        }
        let stream = match timeout(self.patience, self.stage.connect()).await {
            Ok(stream) => stream.map_err(Stop::Failed)?,
            Err(_) if is_client => {
                return Err(Stop::Failed(format!("no connection within {:?}", self.patience)));
            }
            Err(_) => {
                return Err(Stop::Failed(format!(
                    "the client does not connect within {:?}",
                    self.patience
                )));
            }
        };
        self.go_on_with(stream, is_client)
    }

    fn go_on_with(&mut self, stream: Box<dyn Stream>, is_client: bool) -> Result<(), Stop> {
        self.wires.push(Wire::new(stream, self.wires.len() + 1, is_client));
        self.current = self.wires.len() - 1;
        Ok(())
    }

    // ---- Messages ----

    async fn send(&mut self, sending: &Sending) -> Result<(), Stop> {
        let payload = self.payload(&sending.payload).await?;
        let (words, patience) = (sending.to_string(), self.patience);
        let (wire, record) = self.at_hand()?;
        for nth in 0..sending.times {
            // What is sent many times stands in the record once.
            let words = if nth == 0 { words.as_str() } else { "" };
            wire.send(record, words, &payload, &sending.framing, patience).await;
        }
        Ok(())
    }

    async fn send_together(&mut self, sendings: &[Sending]) -> Result<(), Stop> {
        self.wire()?.held_back = Some(vec![]);
        for sending in sendings {
            self.send(sending).await?;
        }
        let patience = self.patience;
        let (wire, record) = self.at_hand()?;
        wire.let_go(record, patience).await;
        Ok(())
    }

    async fn payload(&mut self, payload: &Payload) -> Result<Bytes, Stop> {
        match payload {
            Payload::Bytes(bytes) => Ok(bytes.clone()),
            Payload::Authenticate { request_id, id, token, headers, more: [body, envelope] } => {
                let id = match id {
                    Id::Own => self.client_id.clone(),
                    Id::Other(nth) => format!("{}-{nth}", self.client_id),
                    Id::Text(text) => (*text).to_owned(),
                };
                let token = self.token(token).await?;
                let request = SatAuthReq { id, token, headers: headers.clone() };
                let message = [&request.encode_to_vec()[..], body].concat().into();
                let method = Method::Authenticate.as_str().into();
                let call = SatRpcRequest { method, request_id: *request_id, message };
                Ok([&Message::from(call).encode()[..], envelope].concat().into())
            }
            Payload::Answer { result, method, off_by } => {
                let (asked, request_id) =
                    self.asked.clone().ok_or(Stop::Failed("there is no call to answer".into()))?;
                let method = method.map_or(asked, str::to_owned);
                let request_id = request_id.wrapping_add(*off_by);
                let result = result.clone();
                Ok(Message::from(SatRpcResponse { method, request_id, result }).encode())
            }
            Payload::Delivery(part) => self.delivery(part),
        }
    }

    fn delivery(&self, part: &Part) -> Result<Bytes, Stop> {
        let nothing = || Stop::Failed("there is no subscription to deliver".into());
        let asked = self.subscription.as_ref().ok_or_else(nothing)?;
        let id = asked.subscription_id.clone();
        let answer = |err| {
            let reply = Reply::from(SatSubsResp { subscription_id: id.clone(), err });
            let request_id = self.asked.as_ref().map_or(0, |(_, request_id)| *request_id);
            reply.encode(request_id)
        };
        let message: Message = match part {
            Part::Granted => answer(None),
            Part::Denied(reason) => {
                answer(Some(SatSubsError { message: (*reason).into(), ..Default::default() }))
            }
            Part::Begin(lsn) => {
                SatSubsDataBegin { subscription_id: id, lsn: Bytes::from_static(lsn) }.into()
            }
            Part::Shape => {
                let first = asked.shape_requests.first().ok_or_else(nothing)?;
                let request_id = first.request_id.clone();
                SatShapeDataBegin { request_id, uuid: uuid::Uuid::new_v4().to_string() }.into()
            }
            Part::Failed(reason) => SatSubsDataError {
                subscription_id: id,
                message: (*reason).into(),
                ..Default::default()
            }
            .into(),
            Part::Gone(lsn) => {
                SatUnsubsDataBegin { subscription_ids: vec![id], lsn: Bytes::from_static(lsn) }
                    .into()
            }
        };
        Ok(message.encode())
    }

    async fn token(&mut self, spec: &TokenSpec) -> Result<String, Stop> {
        let token = self.tokens.make(spec, USER).await?;
        self.record.hide(&token);
        Ok(token)
    }

    /// The next message that is not incidental must be this one.
    async fn expect(
        &mut self,
        expected: &Expectation,
        within: Option<Duration>,
    ) -> Result<(), Stop> {
        let within = within.unwrap_or(self.patience);
        let deadline = Instant::now() + within;
        loop {
            let Some(incoming) = self.receive_until(deadline).await? else {
                return Err(Stop::Failed(format!(
                    "expected {expected}; nothing came within {within:?}"
                )));
            };
            if expected.is_met_by(&incoming) && self.is_like(expected.like, &incoming) {
                if let Incoming::Message(Message::Request(envelope)) = &incoming {
                    self.called(envelope);
                }
                if let Incoming::Ping(payload) = &incoming {
                    self.pong(payload).await?;
                }
                self.met = Some(incoming);
                return Ok(());
            }
            if !self.is_incidental(&incoming).await? {
                return Err(Stop::Failed(format!("expected {expected}; there came {incoming}")));
            }
        }
    }

    /// The next message must be this one. Pings and pongs are no messages.
    async fn next_is(&mut self, expected: &Expectation) -> Result<(), Stop> {
        let within = self.patience;
        let deadline = Instant::now() + within;
        loop {
            let incoming = self.receive_until(deadline).await?.ok_or_else(|| {
                Stop::Failed(format!("expected {expected}; nothing came within {within:?}"))
            })?;
            match &incoming {
                Incoming::Ping(payload) => self.pong(payload).await?,
                Incoming::Pong(_) => {}
                _ if expected.is_met_by(&incoming) => return Ok(()),
                _ => {
                    return Err(Stop::Failed(format!(
                        "expected {expected}; there came {incoming}"
                    )));
                }
            }
        }
    }

    async fn expect_all(&mut self, expected: &[Expectation]) -> Result<(), Stop> {
        let mut missing: Vec<Expectation> = expected.to_vec();
        while let [first, others @ ..] = &missing[..] {
            let any = others.iter().cloned().fold(first.clone(), Expectation::or);
            self.expect(&any, None).await?;
            let Some(last) = self.met.take() else { return Ok(()) };
            let found = missing.iter().position(|expected| expected.is_met_by(&last));
            found.map(|nth| missing.remove(nth));
        }
        Ok(())
    }

    /// The peer has called, as was expected.
    fn called(&mut self, envelope: &SatRpcRequest) {
        let SatRpcRequest { method, request_id, .. } = envelope;
        self.asked = Some((method.clone(), *request_id));
        self.calls.push((self.current, *request_id));
        if let Ok(Request::Subscribe(request)) = Request::decode(envelope.clone()) {
            self.subscription = Some(request);
        }
    }

    /// Whether a call compares so with what was before.
    fn is_like(&self, like: Option<Like>, incoming: &Incoming) -> bool {
        let Some(like) = like else { return true };
        let Incoming::Message(Message::Request(envelope)) = incoming else { return false };
        let request = Request::decode(envelope.clone());
        match like {
            Like::Invitation => matches!(request, Ok(Request::Authenticate(request))
                if request.id == self.client_id
                    && self.told.as_ref().is_none_or(|token| token.expose() == request.token)),
            Like::OtherNumbers => !self.calls.contains(&(self.current, envelope.request_id)),
            Like::Subscription => {
                let Some(asked) = &self.subscription else { return false };
                let named = match &request {
                    Ok(Request::Unsubscribe(request)) => &request.subscription_ids,
                    Ok(Request::StartReplication(request)) => &request.subscription_ids,
                    _ => return false,
                };
                named.contains(&asked.subscription_id)
            }
        }
    }

    /// What comes next, if it comes until then.
    async fn receive_until(&mut self, deadline: Instant) -> Result<Option<Incoming>, Stop> {
        // A timeout alone lets pass what is always there.
        if Instant::now() >= deadline {
            return Ok(None);
        }
        match timeout_at(deadline, self.receive()).await {
            Err(_) => Ok(None),
            Ok(incoming) => incoming.map(Some),
        }
    }

    async fn receive(&mut self) -> Result<Incoming, Stop> {
        self.arrived += 1;
        if self.arrived > MOST_ARRIVALS {
            return Err(Stop::Failed(format!("more than {MOST_ARRIVALS} messages came")));
        }
        loop {
            let current = self.current;
            if current >= self.wires.len() {
                return Err(Stop::Failed("there is no connection".into()));
            }
            let (wires, record) = (&mut self.wires, &mut self.record);
            let arrived = poll_fn(|cx| match poll_pings(wires, Some(current), cx, record) {
                Poll::Ready(ping) => Poll::Ready(Err(ping)),
                Poll::Pending => wires[current].poll_next(cx, record).map(Ok),
            });
            match arrived.await {
                Ok(incoming) => return Ok(incoming),
                // A client that waits on one connection lives on the others.
                Err((nth, payload)) => self.pong_on(nth, &payload).await,
            }
        }
    }

    /// Lets the time pass, in which the connections that there are live on.
    async fn pass(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        loop {
            let (wires, record) = (&mut self.wires, &mut self.record);
            let pinged = poll_fn(|cx| poll_pings(wires, None, cx, record));
            match timeout_at(deadline, pinged).await {
                Ok((nth, payload)) => self.pong_on(nth, &payload).await,
                Err(_) => return,
            }
        }
    }

    async fn pong_on(&mut self, nth: usize, payload: &Bytes) {
        let framing = Framing::One(octets::PONG);
        let wire = &mut self.wires[nth];
        wire.send(&mut self.record, "a pong", payload, &framing, self.patience).await;
    }

    /// Whether this may come at any time. What wants an answer gets it.
    async fn is_incidental(&mut self, incoming: &Incoming) -> Result<bool, Stop> {
        let is_client = self.stage.is_client();
        match incoming {
            Incoming::Ping(payload) => self.pong(payload).await.map(|()| true),
            Incoming::Pong(_) => Ok(true),
            Incoming::Message(Message::Request(envelope)) if is_client => {
                let reply: Reply = match envelope.method.parse() {
                    Ok(Method::StartReplication) => SatInStartReplicationResp::default().into(),
                    Ok(Method::StopReplication) => SatInStopReplicationResp {}.into(),
                    _ => return Ok(false),
                };
                let payload = reply.encode(envelope.request_id).encode();
                self.send_now("the answer to that", &payload, octets::BINARY).await?;
                Ok(true)
            }
            Incoming::Message(Message::OpLogAck(_)) => Ok(!is_client),
            Incoming::Message(Message::Error(_) | Message::Request(_) | Message::Response(_)) => {
                Ok(false)
            }
            Incoming::Message(_) => Ok(is_client),
            _ => Ok(false),
        }
    }

    async fn pong(&mut self, payload: &Bytes) -> Result<(), Stop> {
        match self.wire()?.pongs {
            true => self.send_now("a pong", payload, octets::PONG).await,
            false => Ok(()),
        }
    }

    async fn send_now(&mut self, words: &str, payload: &[u8], first: u8) -> Result<(), Stop> {
        let framing = Framing::One(first);
        let patience = self.patience;
        let (wire, record) = self.at_hand()?;
        wire.send(record, words, payload, &framing, patience).await;
        Ok(())
    }

    /// Nothing comes but what is incidental, and not this.
    async fn silence(
        &mut self,
        time: Duration,
        unwanted: Option<&Expectation>,
    ) -> Result<(), Stop> {
        let deadline = Instant::now() + time;
        loop {
            let Some(incoming) = self.receive_until(deadline).await? else { return Ok(()) };
            if let Some(unwanted) = unwanted {
                if unwanted.is_met_by(&incoming) {
                    return Err(Stop::Failed(format!("expected no {unwanted}; it came")));
                }
                if !matches!(incoming, Incoming::Close(_) | Incoming::End) {
                    self.is_incidental(&incoming).await?;
                    continue;
                }
            }
            if !self.is_incidental(&incoming).await? {
                return Err(Stop::Failed(format!(
                    "expected nothing for {time:?}; there came {incoming}"
                )));
            }
        }
    }

    async fn whatever(&mut self, time: Duration) -> Result<(), Stop> {
        let deadline = Instant::now() + time;
        while let Some(incoming) = self.receive_until(deadline).await? {
            match incoming {
                Incoming::End => break,
                Incoming::Ping(payload) => self.pong(&payload).await?,
                _ => {}
            }
        }
        Ok(())
    }

    // ---- The peer as a whole ----

    /// Another client can authenticate.
    async fn alive(&mut self) -> Result<(), Stop> {
        let before = self.current;
        let outcome = self.authenticates_another().await;
        self.current = before;
        outcome.map_err(|stop| match stop {
            Stop::Failed(reason) | Stop::Close(reason) => {
                Stop::Failed(format!("the server must go on to serve others: {reason}"))
            }
            skipped => skipped,
        })
    }

    async fn authenticates_another(&mut self) -> Result<(), Stop> {
        self.open(&Upgrade::default()).await?;
        self.send(&super::script::authenticate(1).as_client(Id::Other(9999))).await?;
        self.expect(&super::script::welcome(1), None).await?;
        self.send_now("a close frame", &1000u16.to_be_bytes(), octets::CLOSE).await?;
        self.replace_by_nothing();
        Ok(())
    }

    async fn no_connection(&mut self, time: Duration) -> Result<(), Stop> {
        match timeout(time, self.stage.connect()).await {
            Err(_) | Ok(Err(_)) => Ok(()),
            Ok(Ok(_)) => Err(Stop::Failed("the client connects again, which it must not".into())),
        }
    }

    async fn repeatedly(
        &mut self,
        steps: &[Step],
        time: Duration,
        count: &RangeInclusive<usize>,
    ) -> Result<(), Stop> {
        let deadline = Instant::now() + time;
        let mut seen = 0;
        // It ends with the time, or with the client.
        loop {
            let stream = match self.waiting.take() {
                Some(stream) => stream,
                None => match timeout_at(deadline, self.stage.connect()).await {
                    Ok(Ok(stream)) => stream,
                    _ => break,
                },
            };
            seen += 1;
            if seen > *count.end() {
                return Err(Stop::Failed(format!(
                    "at most {} connections may come within {time:?}; more have come",
                    count.end()
                )));
            }
            self.waiting = Some(stream);
            let played = async {
                for step in steps {
                    Box::pin(self.step(step)).await?;
                }
                Ok(())
            };
            if let Ok(Err(stop)) = timeout_at(deadline, played).await {
                return Err(stop);
            }
        }
        if seen < *count.start() {
            return Err(Stop::Failed(format!(
                "at least {} connections must come within {time:?}; there came {seen}",
                count.start()
            )));
        }
        Ok(())
    }

    async fn exits(&mut self, within: Duration) -> Result<(), Stop> {
        match timeout(within, self.stage.exit()).await {
            Ok(Exit::Failure(_)) => Ok(()),
            Ok(Exit::Unable) => Err(Stop::Skipped("the client does not do this".into())),
            Ok(Exit::Success) => Err(Stop::Failed("the client ended as a success".into())),
            Err(_) => Err(Stop::Failed(format!("the client goes on for {within:?}"))),
        }
    }
}

/// The next ping on any connection but this, and which it is.
fn poll_pings(
    wires: &mut [Wire],
    but: Option<usize>,
    cx: &mut Context<'_>,
    record: &mut Record,
) -> Poll<(usize, Bytes)> {
    let aside = wires.iter_mut().enumerate().filter(|(nth, _)| Some(*nth) != but);
    for (nth, wire) in aside {
        if let Poll::Ready(payload) = wire.poll_ping(cx, record) {
            return Poll::Ready((nth, payload));
        }
    }
    Poll::Pending
}
