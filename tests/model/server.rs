//! The server's session, with everything that its client, its driver and its application can do.

use bytes::Bytes;
use electric_satellite::{
    session::{
        AuthChangePolicy, AuthRequest, Cause, Close, Fault, Input, Limit, Refusal, ServerSession,
        Session,
    },
    wire::{Method, Version, proto::*},
};
use sat_error_resp::ErrorCode;

use crate::{
    common::{
        AUTH_TIMEOUT, auth, error, relation, reply, start, stop, stopped, subscribe, verified,
    },
    explore::{Found, Machine},
    faults::Seeded,
    ledger::{Checked, Event, OPENED, PeerCall, Place, Taken},
    words::{Which, With, begin, change, commit, not_started, ops, success},
};

/// What can happen to a server's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    // Frames.
    Auth,
    AuthOfAnother,
    AuthWithoutId,
    AuthWithoutToken,
    Start,
    Stop,
    Subscribe,
    Unsubscribe,
    UnknownMethod,
    UndecodableCall,
    Relation,
    Begin,
    Change,
    Commit,
    Ack,
    OfAServer,
    Replies(Which, With),
    StrayReply,
    Error,
    Garbage,
    // The authenticator and the registry.
    Accept,
    AcceptAnother,
    Refuse(Refusal),
    DropQuestion,
    // The driver.
    Expires,
    Ages,
    Early,
    Due,
    Gone,
    Closes,
    Faulty,
    Silent,
    Drain,
    Revoke,
    Replace,
    // The application.
    Sends,
    SendsNewer,
    SendsAck,
    CallsStart,
    CallsStop,
    CallsSubscribe,
    Forgets,
    Answers(Which),
    AnswersWithError,
    Refuses,
    Fails,
}

use Action::*;

const ALPHABET: &[Action] = &[
    Auth,
    AuthOfAnother,
    AuthWithoutId,
    AuthWithoutToken,
    Start,
    Stop,
    Subscribe,
    Unsubscribe,
    UnknownMethod,
    UndecodableCall,
    Relation,
    Begin,
    Change,
    Commit,
    Ack,
    OfAServer,
    Replies(Which::Oldest, With::Success),
    Replies(Which::Newest, With::Success),
    Replies(Which::Oldest, With::Refusal),
    Replies(Which::Oldest, With::Nothing),
    Replies(Which::Oldest, With::OtherMethod),
    StrayReply,
    Error,
    Garbage,
    Accept,
    AcceptAnother,
    Refuse(Refusal::Expired),
    Refuse(Refusal::Occupied),
    Refuse(Refusal::Unavailable),
    DropQuestion,
    Expires,
    Ages,
    Early,
    Due,
    Gone,
    Closes,
    Faulty,
    Silent,
    Drain,
    Revoke,
    Replace,
    Sends,
    SendsNewer,
    SendsAck,
    CallsStart,
    CallsStop,
    CallsSubscribe,
    Forgets,
    Answers(Which::Oldest),
    Answers(Which::Newest),
    AnswersWithError,
    Refuses,
    Fails,
];

/// What is explored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Calls in both directions.
    Calls,
    /// The client's stream.
    Stream,
    /// How long a connection may last, with renewals.
    Limits,
    /// The product of these.
    Everything,
}

impl Scope {
    fn holds(self, action: Action) -> bool {
        let of = |scopes: &[Scope]| self == Scope::Everything || scopes.contains(&self);
        match action {
            Relation | Begin | Change | Commit | Ack => of(&[Scope::Stream]),
            CallsStart | CallsStop | Replies(Which::Oldest, With::Success) => {
                of(&[Scope::Calls, Scope::Stream])
            }
            Start | Answers(Which::Oldest) => true,
            Expires | Ages => of(&[Scope::Limits]),
            Stop | Subscribe | Unsubscribe | UnknownMethod | UndecodableCall | OfAServer
            | Replies(..) | StrayReply | SendsNewer | SendsAck | CallsSubscribe | Forgets
            | Answers(_) | AnswersWithError | Refuses => of(&[Scope::Calls]),
            _ => true,
        }
    }
}

/// How a server is set up for an exploration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) version: Version,
    pub(crate) auth_changes: AuthChangePolicy,
    pub(crate) scope: Scope,
    /// How many questions, and how many calls, are open at a time at most.
    pub(crate) open: usize,
    pub(crate) seeded: Option<Seeded>,
}

pub(crate) struct Server {
    checked: Checked<ServerSession<Place>>,
    setup: Setup,
    /// Which limits are set.
    expires: bool,
    ages: bool,
}

impl Server {
    pub(crate) fn new(setup: Setup) -> Server {
        let Setup { version, auth_changes, seeded, .. } = setup;
        let session = ServerSession::registering(*OPENED, AUTH_TIMEOUT, version, "server-1")
            .with_auth_changes(auth_changes);
        let checked = Checked::new(session, version, seeded);
        Server { checked, setup, expires: false, ages: false }
    }

    fn is_enabled(&self, action: Action) -> bool {
        let Setup { scope, open, .. } = self.setup;
        let Checked { ledger, table, .. } = &self.checked;
        let (questions, calls) = (ledger.questions.len(), ledger.calls.len());
        let is_in = ledger.introduced && !ledger.ended;
        scope.holds(action)
            && match action {
                Start | Stop | Subscribe | Unsubscribe => !is_in || questions < open,
                Replies(Which::Oldest, _) | Forgets => calls > 0,
                Replies(Which::Newest, _) => calls > 1,
                Accept | Refuse(_) | DropQuestion => table.asked.is_some(),
                // Names are compared, and nothing else: the first that comes can as well be this one.
                AuthOfAnother => ledger.asked || ledger.introduced || ledger.ended,
                AcceptAnother => table.asked.is_some() && ledger.introduced,
                Expires => is_in && !self.expires,
                Ages => is_in && !self.ages,
                Due => ledger.ended || table.session.deadline().is_some(),
                CallsStart | CallsStop => !is_in || calls < open,
                Answers(Which::Oldest) | Refuses => questions > 0,
                Answers(Which::Newest) => questions > 1,
                AnswersWithError => {
                    let start = Method::StartReplication.as_str();
                    ledger.questions.first().is_some_and(|PeerCall(method, _)| method == start)
                }
                _ => true,
            }
    }

    fn perform(&mut self, action: Action) -> (Event, Taken) {
        let it = &mut self.checked;
        match action {
            Auth => it.calls(auth("client-1", "token-1")),
            AuthOfAnother => it.calls(auth("client-2", "token-2")),
            AuthWithoutId => it.calls(auth("", "token-1")),
            AuthWithoutToken => it.calls(auth("client-1", "")),
            Start => it.calls(start()),
            Stop => it.calls(stop()),
            Subscribe => it.calls(subscribe("s")),
            Unsubscribe => it.calls(SatUnsubsReq { subscription_ids: vec!["s".into()] }),
            UnknownMethod => it.calls_by_name("replicate", ""),
            UndecodableCall => it.calls_by_name("subscribe", "\u{1}"),
            Relation => it.hears(relation(1)),
            Begin => it.hears(ops([begin(1)])),
            Change => it.hears(ops([change()])),
            Commit => it.hears(ops([commit()])),
            Ack => it.hears(SatOpLogAck::default()),
            OfAServer => it.hears(SatSubsDataBegin::default()),
            Replies(which, with) => it.replies(which, with),
            StrayReply => it.hears(reply(99, stopped())),
            Error => it.hears(error(ErrorCode::Internal)),
            Garbage => it.frame(Bytes::from_static(b"\x07"), Event::nothing_said()),
            Accept => self.decides(Ok("user-1")),
            AcceptAnother => self.decides(Ok("user-2")),
            Refuse(refusal) => self.decides(Err(refusal)),
            DropQuestion => {
                it.table.asked = None;
                (Event::QuestionDropped, Taken::Yes)
            }
            Expires => {
                self.expires = true;
                it.table.session.limit(*OPENED + 2 * AUTH_TIMEOUT, Limit::Expiry);
                (Event::Send, Taken::Yes)
            }
            Ages => {
                self.ages = true;
                it.table.session.limit(*OPENED + 3 * AUTH_TIMEOUT, Limit::Age);
                (Event::Send, Taken::Yes)
            }
            Early => it.timeout(false),
            Due => it.timeout(true),
            Gone => it.ends_by(Input::Closed(None)),
            Closes => it.ends_by(Input::Closed(Some(Close::NORMAL))),
            Faulty => it.ends_by(Input::Fault(Fault::Text)),
            Silent => it.ends_by(Input::Fault(Fault::Silent)),
            Drain => it.ends(None, Close::GOING_AWAY, Cause::Drained),
            Revoke => it.ends(None, Close::EXPIRED, Cause::Revoked),
            Replace => {
                let invalid = error(ErrorCode::InvalidRequest);
                it.ends(Some(invalid), Close::AFTER_ERROR, Cause::Replaced)
            }
            Fails => it.ends(Some(error(ErrorCode::Internal)), Close::AFTER_ERROR, Cause::Local),
            Sends => it.sends(relation(1)),
            SendsNewer => it.sends(SatUnsubsDataBegin::default()),
            SendsAck => it.sends(SatOpLogAck::default()),
            CallsStart => it.asks(start()),
            CallsStop => it.asks(stop()),
            CallsSubscribe => it.asks(subscribe("s")),
            Forgets => it.forgets(),
            Answers(Which::Oldest) => it.answers(0, |method| Ok(success(method))),
            Answers(Which::Newest) => it.answers(1, |method| Ok(success(method))),
            AnswersWithError => it.answers(0, |_| Ok(not_started().into())),
            Refuses => it.answers(0, |_| Err(error(ErrorCode::Internal))),
        }
    }

    /// The verdict comes, on a client that comes in or on one that is in.
    fn decides(&mut self, verdict: Result<&str, Refusal>) -> (Event, Taken) {
        let it = &mut self.checked;
        let request = it.table.asked.take().expect("the action is enabled");
        let vouches = verdict.map(|user| format!("{} as {user}", request.client_id()));
        let verdict = verdict.map(verified);
        if it.ledger.introduced {
            let expires = self.expires.then(|| *OPENED + 4 * AUTH_TIMEOUT);
            it.table.session.renew(request, verdict, expires);
        } else {
            let place = Place::clone(&it.place);
            it.table.session.resolve_registered(request, verdict.map(|it| (it, place)));
        }
        (Event::Verdict(vouches.ok()), Taken::Yes)
    }
}

impl Machine for Server {
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
        // The question that is out holds who asks.
        let asks = self.checked.table.asked.as_ref().map(AuthRequest::client_id);
        let limits = (!self.is_over()).then_some((self.expires, self.ages));
        format!("{} {asks:?} {limits:?}", self.checked.fingerprint())
    }

    fn is_over(&self) -> bool {
        self.checked.ledger.ended
    }
}
