//! The client's session, with everything that its server, its driver and its application can do.

use bytes::Bytes;
use electric_satellite::{
    session::{CallId, Cause, ClientSession, Close, Fault, Input, Session},
    wire::{Message, Method, Reply, Version, proto::*},
};
use sat_error_resp::ErrorCode;
use sat_trans_op::Op;

use crate::{
    common::{
        AUTH_TIMEOUT, auth, error, id, refused, relation, reply, start, started, stop, stopped,
        subscribe, token,
    },
    explore::{Found, Machine},
    faults::Seeded,
    ledger::{Checked, Event, OPENED, PeerCall, Taken},
    words::{Which, With, begin, change, commit, gone, not_started, ops, success},
};

/// What can happen to a client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    // Frames.
    Welcome,
    Unwelcome,
    WelcomeAgain,
    OtherReplyToAuth,
    Start,
    Stop,
    Subscribe,
    UnknownMethod,
    UndecodableCall,
    Replies(Which, With),
    NotStarted,
    RepliesLate(With),
    StrayReply,
    Error,
    Garbage,
    Ack,
    Relation,
    Begin,
    Change,
    Commit,
    CommitElsewhere,
    Announce,
    AdditionalBegin,
    AdditionalCommit,
    Migrate,
    GoneRow,
    DataBegins,
    ShapeBegins,
    ShapeEnds,
    DataEnds,
    DataFails,
    LeaveBegins,
    LeaveEnds,
    // The driver.
    Early,
    Due,
    Gone,
    Closes,
    ClosesAfterError,
    Faulty,
    Silent,
    Cancel,
    // The application.
    CallsStart,
    CallsStartAgain,
    CallsStop,
    CallsSubscribe,
    CallsUnsubscribe,
    CallsAuth,
    Reauthenticates,
    Forgets,
    Answers(Which),
    AnswersWithError,
    Refuses,
    SendsRelation,
    SendsBegin,
    SendsChange,
    SendsCommit,
    SendsAck,
    SendsAckOfNothing,
    SendsOfAServer,
}

use Action::*;

/// A client grants a call of its server. It has no window to announce.
fn granted(method: Method) -> Reply {
    match method {
        Method::StartReplication => started().into(),
        other => success(other),
    }
}

/// What is explored together. The two streams do not touch each other, and neither touches the
/// calls that are not about them: their product would be large, and hold nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Calls in both directions.
    Calls,
    /// The server's stream, its transactions and the acknowledgements.
    Transactions,
    /// The server's stream, and its subscriptions.
    Subscriptions,
    /// The client's stream.
    Outgoing,
    /// Everything, for walks only.
    Everything,
}

impl Scope {
    fn holds(self, action: Action) -> bool {
        use Scope::{Calls, Everything, Outgoing, Subscriptions, Transactions};
        let of = |scopes: &[Scope]| self == Everything || scopes.contains(&self);
        match action {
            Welcome | Unwelcome | Early | Due | Gone | Closes | ClosesAfterError | Faulty
            | Silent | Cancel | Garbage => true,
            Start | Stop | Answers(Which::Oldest) => of(&[Calls, Outgoing]),
            CallsStart | Replies(Which::Oldest, With::Success) => {
                of(&[Calls, Transactions, Subscriptions])
            }
            CallsStop => of(&[Calls, Transactions, Subscriptions]),
            CallsStartAgain | Forgets | RepliesLate(With::Success) => of(&[Calls, Transactions]),
            CallsSubscribe | CallsUnsubscribe => of(&[Subscriptions]),
            WelcomeAgain | OtherReplyToAuth | Subscribe | UnknownMethod | UndecodableCall
            | Replies(..) | NotStarted | RepliesLate(_) | StrayReply | Error | Ack | CallsAuth
            | Reauthenticates | Answers(_) | AnswersWithError | Refuses | SendsOfAServer => {
                of(&[Calls])
            }
            Relation | Change => of(&[Transactions, Subscriptions]),
            Begin | Commit | CommitElsewhere | Announce | AdditionalBegin | AdditionalCommit
            | Migrate | SendsAck | SendsAckOfNothing => of(&[Transactions]),
            GoneRow | DataBegins | ShapeBegins | ShapeEnds | DataEnds | DataFails | LeaveBegins
            | LeaveEnds => of(&[Subscriptions]),
            SendsRelation | SendsBegin | SendsChange | SendsCommit => of(&[Outgoing]),
        }
    }
}

const ALPHABET: &[Action] = &[
    Welcome,
    Unwelcome,
    WelcomeAgain,
    OtherReplyToAuth,
    Start,
    Stop,
    Subscribe,
    UnknownMethod,
    UndecodableCall,
    Replies(Which::Oldest, With::Success),
    Replies(Which::Newest, With::Success),
    Replies(Which::Oldest, With::Refusal),
    Replies(Which::Oldest, With::Nothing),
    Replies(Which::Oldest, With::OtherMethod),
    NotStarted,
    RepliesLate(With::Success),
    RepliesLate(With::Refusal),
    StrayReply,
    Error,
    Garbage,
    Ack,
    Relation,
    Begin,
    Change,
    Commit,
    CommitElsewhere,
    Announce,
    AdditionalBegin,
    AdditionalCommit,
    Migrate,
    GoneRow,
    DataBegins,
    ShapeBegins,
    ShapeEnds,
    DataEnds,
    DataFails,
    LeaveBegins,
    LeaveEnds,
    Early,
    Due,
    Gone,
    Closes,
    ClosesAfterError,
    Faulty,
    Silent,
    Cancel,
    CallsStart,
    CallsStartAgain,
    CallsStop,
    CallsSubscribe,
    CallsUnsubscribe,
    CallsAuth,
    Reauthenticates,
    Forgets,
    Answers(Which::Oldest),
    Answers(Which::Newest),
    AnswersWithError,
    Refuses,
    SendsRelation,
    SendsBegin,
    SendsChange,
    SendsCommit,
    SendsAck,
    SendsAckOfNothing,
    SendsOfAServer,
];

/// How a client is set up for an exploration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) version: Version,
    pub(crate) scope: Scope,
    /// How many questions, and how many calls, are open at a time at most.
    pub(crate) open: usize,
    pub(crate) seeded: Option<Seeded>,
}

pub(crate) struct Client {
    checked: Checked<ClientSession>,
    setup: Setup,
    /// The calls that the server has not answered and the application has given up on.
    forgotten: Vec<CallId>,
    /// The transactions that have come and are not acknowledged, and the one that is coming.
    transactions: Vec<u64>,
    coming: Option<u64>,
    /// How many `unsubscribe` calls were made: a session remembers many of them.
    unsubscribes: usize,
}

impl Client {
    pub(crate) fn new(setup: Setup) -> Client {
        let Setup { version, seeded, .. } = setup;
        let (id, token) = (id("client-1"), token("token-1"));
        let session = ClientSession::new(*OPENED, AUTH_TIMEOUT, version, &id, token);
        let mut checked = Checked::new(session, version, seeded);
        // The auth request, which is there from the beginning.
        checked.repeat(Event::Send, Taken::Yes);
        let (forgotten, transactions) = (vec![], vec![]);
        Client { checked, setup, forgotten, transactions, coming: None, unsubscribes: 0 }
    }

    fn is_enabled(&self, action: Action) -> bool {
        let Checked { ledger, table, .. } = &self.checked;
        let (questions, calls) = (ledger.questions.len(), ledger.calls.len());
        let is_in = ledger.introduced && !ledger.ended;
        let has_room = !is_in || calls + self.forgotten.len() < self.setup.open;
        self.setup.scope.holds(action)
            && match action {
                Start | Stop => !is_in || questions < self.setup.open,
                Replies(Which::Oldest, _) | Forgets => calls > 0,
                Replies(Which::Newest, _) => calls > 1,
                NotStarted => {
                    let oldest = ledger.calls.first();
                    oldest.is_some_and(|call| call.method == Method::StartReplication)
                }
                RepliesLate(_) => !self.forgotten.is_empty(),
                Due => ledger.ended || table.session.deadline().is_some(),
                CallsStart | CallsStartAgain | CallsStop | CallsSubscribe | Reauthenticates => {
                    has_room
                }
                CallsUnsubscribe => !is_in || has_room && self.unsubscribes < 2,
                Answers(Which::Oldest) | Refuses => questions > 0,
                Answers(Which::Newest) => questions > 1,
                AnswersWithError => {
                    let start = Method::StartReplication.as_str();
                    ledger.questions.first().is_some_and(|PeerCall(method, _)| method == start)
                }
                // Without a window, a session remembers many transactions.
                Begin | Announce => self.transactions.len() < 2,
                SendsAck => !self.transactions.is_empty(),
                _ => true,
            }
    }

    fn perform(&mut self, action: Action) -> (Event, Taken) {
        let it = &mut self.checked;
        match action {
            Welcome => self.welcomes(),
            Unwelcome => it.hears(refused(Method::Authenticate, 1, ErrorCode::AuthRequired)),
            WelcomeAgain => {
                let other = SatAuthResp { id: "server-2".into(), headers: vec![] };
                it.hears(reply(if it.ledger.introduced { 1 } else { 2 }, other))
            }
            OtherReplyToAuth => it.hears(reply(1, started())),
            Start => it.calls(start()),
            Stop => it.calls(stop()),
            Subscribe => it.calls(subscribe("s")),
            UnknownMethod => it.calls_by_name("replicate", ""),
            UndecodableCall => it.calls_by_name("startReplication", "\u{1}"),
            Replies(which, with) => it.replies(which, with),
            NotStarted => {
                let call = it.ledger.calls[0];
                it.hears(reply(call.request_id, not_started()))
            }
            RepliesLate(with) => {
                let call = self.forgotten.remove(0);
                it.replies_to(call, with)
            }
            StrayReply => it.hears(reply(99, stopped())),
            Error => it.hears(error(ErrorCode::Internal)),
            Garbage => it.frame(Bytes::from_static(b"\x07"), Event::nothing_said()),
            Ack => it.hears(SatOpLogAck::default()),
            Relation => it.hears(relation(1)),
            Begin => self.begins(0),
            Announce => self.begins(7),
            Change => it.hears(ops([change()])),
            Commit => self.commits(),
            CommitElsewhere => {
                let lsn = Bytes::from_static(b"2");
                it.hears(ops([Op::Commit(SatOpCommit { lsn, ..Default::default() })]))
            }
            AdditionalBegin => {
                it.hears(ops([Op::AdditionalBegin(SatOpAdditionalBegin { r#ref: 7 })]))
            }
            AdditionalCommit => {
                it.hears(ops([Op::AdditionalCommit(SatOpAdditionalCommit { r#ref: 7 })]))
            }
            Migrate => it.hears(ops([Op::Migrate(SatOpMigrate::default())])),
            GoneRow => it.hears(ops([gone()])),
            DataBegins => {
                it.hears(SatSubsDataBegin { subscription_id: "s".into(), ..Default::default() })
            }
            ShapeBegins => {
                it.hears(SatShapeDataBegin { request_id: "r".into(), ..Default::default() })
            }
            ShapeEnds => it.hears(SatShapeDataEnd::default()),
            DataEnds => it.hears(SatSubsDataEnd::default()),
            DataFails => {
                it.hears(SatSubsDataError { subscription_id: "s".into(), ..Default::default() })
            }
            LeaveBegins => {
                let subscription_ids = vec!["s".into()];
                it.hears(SatUnsubsDataBegin { subscription_ids, ..Default::default() })
            }
            LeaveEnds => it.hears(SatUnsubsDataEnd::default()),
            Early => it.timeout(false),
            Due => it.timeout(true),
            Gone => it.ends_by(Input::Closed(None)),
            Closes => it.ends_by(Input::Closed(Some(Close::NORMAL))),
            ClosesAfterError => it.ends_by(Input::Closed(Some(Close::AFTER_ERROR))),
            Faulty => it.ends_by(Input::Fault(Fault::TooLarge)),
            Silent => it.ends_by(Input::Fault(Fault::Silent)),
            Cancel => it.ends(Some(error(ErrorCode::Internal)), Close::GOING_AWAY, Cause::Local),
            CallsStart => it.asks(start()),
            CallsStartAgain => it.asks(SatInStartReplicationReq { lsn: "1".into(), ..start() }),
            CallsStop => it.asks(stop()),
            CallsSubscribe => {
                let shape = SatShapeReq { request_id: "r".into(), ..Default::default() };
                it.asks(SatSubsReq { shape_requests: vec![shape], ..subscribe("s") })
            }
            CallsUnsubscribe => {
                let called = it.asks(SatUnsubsReq { subscription_ids: vec!["s".into()] });
                self.unsubscribes += usize::from(called.1 == Taken::Yes);
                called
            }
            CallsAuth => it.asks(auth("client-2", "token-2")),
            Reauthenticates => {
                let called = it.table.session.reauthenticate(token("token-2"));
                Checked::<ClientSession>::called(called)
            }
            Forgets => {
                self.forgotten.push(it.ledger.calls[0]);
                it.forgets()
            }
            Answers(Which::Oldest) => it.answers(0, |method| Ok(granted(method))),
            Answers(Which::Newest) => it.answers(1, |method| Ok(granted(method))),
            AnswersWithError => it.answers(0, |_| Ok(not_started().into())),
            Refuses => it.answers(0, |_| Err(error(ErrorCode::Internal))),
            SendsRelation => it.sends(relation(1)),
            SendsBegin => it.sends(ops([begin(1)])),
            SendsChange => it.sends(ops([change()])),
            SendsCommit => it.sends(ops([commit()])),
            SendsAck => self.acknowledges(),
            SendsAckOfNothing => it.sends(SatOpLogAck { transaction_id: 99, ..Default::default() }),
            SendsOfAServer => it.sends(SatSubsDataBegin::default()),
        }
    }

    /// The answer to the auth request, or what is a second one later.
    fn welcomes(&mut self) -> (Event, Taken) {
        let frame: Message = reply(1, success(Method::Authenticate));
        let vouches = Some("server-1".to_owned());
        let event = Event::Frame { call: None, answers: None, vouches };
        self.checked.frame(frame.encode(), event)
    }

    /// A transaction begins, under the least number that is free, and announces this.
    fn begins(&mut self, additional_data_ref: u64) -> (Event, Taken) {
        let is_free = |id: &u64| !self.transactions.contains(id) && self.coming != Some(*id);
        let transaction = (1..).find(is_free).expect("there are enough");
        let Op::Begin(begin) = begin(transaction) else { unreachable!() };
        // The number is new in 0.10.
        let transaction_id = begin.transaction_id.filter(|_| self.setup.version >= Version::V0_10);
        self.coming = transaction_id;
        let begin = SatOpBegin { additional_data_ref, transaction_id, ..begin };
        self.checked.hears(ops([Op::Begin(begin)]))
    }

    fn commits(&mut self) -> (Event, Taken) {
        self.transactions.extend(self.coming.take());
        self.checked.hears(ops([commit()]))
    }

    /// The oldest transaction is acknowledged.
    fn acknowledges(&mut self) -> (Event, Taken) {
        let transaction_id = self.transactions[0];
        let sent = self.checked.sends(SatOpLogAck { transaction_id, ..Default::default() });
        if sent.1 == Taken::Yes {
            self.transactions.remove(0);
        }
        sent
    }
}

impl Machine for Client {
    type Action = Action;

    fn actions(&self) -> Vec<Action> {
        ALPHABET.iter().copied().filter(|action| self.is_enabled(*action)).collect()
    }

    fn act(&mut self, action: Action) -> Result<(), Found> {
        let before = self.checked.before();
        let (event, taken) = self.perform(action);
        self.checked.judge(before, event, taken)
    }

    fn tell(&mut self, action: Action) -> String {
        let (event, taken) = self.perform(action);
        self.checked.tell(event, taken)
    }

    fn repeat(&mut self, action: Action) {
        let (event, taken) = self.perform(action);
        self.checked.repeat(event, taken);
    }

    fn fingerprint(&self) -> String {
        let session = self.checked.fingerprint();
        let forgotten: Vec<_> = self.forgotten.iter().map(|call| call.method).collect();
        let transactions = (&self.transactions, self.coming, self.unsubscribes);
        format!("{session} {forgotten:?} {transactions:?}")
    }

    fn is_over(&self) -> bool {
        self.checked.ledger.ended
    }
}
