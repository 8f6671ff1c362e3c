//! The stream of a server, as its client takes it.

use std::{
    collections::{HashSet, VecDeque},
    mem,
};

use bytes::Bytes;

use crate::{
    session::{CallId, SendError, Window},
    wire::{
        Message, Reply, Request, Version,
        proto::{
            SatInStartReplicationReq, SatInStartReplicationResp, SatOpBegin, SatOpLogAck,
            SatTransOp, sat_trans_op::Op,
        },
    },
};

use super::{
    LIMIT, Relations, StreamError, name,
    subscriptions::{Delivery, Subscriptions},
};

/// What a server has sent, and what its client has asked for.
#[derive(Debug)]
pub(in crate::session) struct ServerStream {
    version: Version,
    /// The calls that wait for an answer, forgotten ones too: what the server has granted counts,
    /// whether or not anyone here still wants to know.
    asked: Vec<(CallId, Request)>,
    /// It has been started once.
    has_begun: bool,
    /// It is started now.
    is_started: bool,
    /// It was started from a position, so what an earlier connection left open may come.
    is_resumed: bool,
    relations: Relations,
    subscriptions: Subscriptions,
    place: Place,
    /// The additional data that transactions have announced, and that has not come.
    announced: HashSet<u64>,
    /// The transactions that are not acknowledged, oldest first.
    unacknowledged: VecDeque<u64>,
    /// How many these may be.
    window: Option<u32>,
}

/// What the next operation or message is a part of.
#[derive(Debug)]
enum Place {
    Between,
    Transaction {
        /// By this it is acknowledged.
        id: Option<u64>,
        /// Where it is. It keeps the frame of its begin in memory until the commit.
        lsn: Bytes,
    },
    Additional {
        reference: u64,
    },
    Subscription(Delivery),
    Shape(Delivery),
    Unsubscription,
}

impl ServerStream {
    /// A connection of this version, on which nothing was said.
    pub(in crate::session) fn new(version: Version) -> ServerStream {
        ServerStream {
            version,
            asked: vec![],
            has_begun: false,
            is_started: false,
            is_resumed: false,
            relations: Relations::default(),
            subscriptions: Subscriptions::default(),
            place: Place::Between,
            announced: HashSet::new(),
            unacknowledged: VecDeque::new(),
            window: None,
        }
    }

    // ---- Our calls ----

    /// We have called.
    pub(in crate::session) fn called(&mut self, call: CallId, request: Request) {
        self.asked.push((call, request));
    }

    /// A call of ours, which this answers.
    pub(in crate::session) fn answered(
        &mut self,
        method: &str,
        request_id: u32,
    ) -> Option<(CallId, Request)> {
        let is_it = |(call, _): &(CallId, Request)| {
            call.request_id == request_id && call.method.as_str() == method
        };
        let index = self.asked.iter().position(is_it)?;
        Some(self.asked.swap_remove(index))
    }

    /// The server has answered a call of ours. That it has refused one changes nothing.
    pub(in crate::session) fn settle(&mut self, request: Request, reply: &Reply) {
        match (request, reply) {
            (Request::StartReplication(request), Reply::StartReplication(reply))
                if reply.err.is_none() =>
            {
                self.start(request, reply);
            }
            (Request::StopReplication(_), Reply::StopReplication(_)) => self.stop(),
            (Request::Subscribe(request), Reply::Subscribe(reply)) if reply.err.is_none() => {
                self.subscriptions.subscribed(request);
            }
            (Request::Unsubscribe(request), Reply::Unsubscribe(_)) => {
                self.subscriptions.unsubscribed(request.subscription_ids);
            }
            _ => {}
        }
    }

    fn start(&mut self, request: SatInStartReplicationReq, reply: &SatInStartReplicationResp) {
        self.has_begun = true;
        self.is_started = true;
        self.is_resumed |= !request.lsn.is_empty();
        self.subscriptions.resumed(request.subscription_ids);
        // None of size 0 can be meant: nothing would ever be sent.
        let size = reply.unacked_window_size.filter(|size| *size > 0);
        self.window = size.filter(|_| self.version >= Version::V0_10);
    }

    /// What is half sent does not go on.
    fn stop(&mut self) {
        self.is_started = false;
        self.place = Place::Between;
    }

    // ---- What the server sends ----

    /// The server has sent a message of its stream. One that breaks a rule is the last.
    pub(in crate::session) fn takes(&mut self, message: &Message) -> Result<(), StreamError> {
        let what = message.name();
        match message {
            // The one thing that needs no start: data is prepared before it.
            Message::SubsDataError(error) => return self.failed(&error.subscription_id),
            _ if !self.has_begun => return Err(StreamError::NotStarted { what }),
            Message::Relation(relation) => return self.relations.announce(relation),
            Message::OpLog(log) => return log.ops.iter().try_for_each(|op| self.operation(op)),
            _ => {}
        }
        self.place = match (mem::replace(&mut self.place, Place::Between), message) {
            (Place::Between, Message::SubsDataBegin(_)) if !self.is_started => {
                return Err(StreamError::NotStarted { what });
            }
            (Place::Between, Message::SubsDataBegin(begin)) => {
                Place::Subscription(self.subscriptions.begin(&begin.subscription_id)?)
            }
            (Place::Subscription(mut delivery), Message::ShapeDataBegin(begin)) => {
                delivery.shape(&begin.request_id)?;
                Place::Shape(delivery)
            }
            (Place::Shape(delivery), Message::ShapeDataEnd(_)) => Place::Subscription(delivery),
            (Place::Subscription(delivery), Message::SubsDataEnd(_)) => {
                self.subscriptions.end(&delivery)?;
                Place::Between
            }
            (Place::Between, Message::UnsubsDataBegin(begin)) => {
                self.subscriptions.leave(&begin.subscription_ids, self.is_resumed)?;
                Place::Unsubscription
            }
            (Place::Unsubscription, Message::UnsubsDataEnd(_)) => Place::Between,
            (Place::Between, Message::ShapeDataBegin(_)) => return Err(StreamError::ShapeOutside),
            (place, _) => {
                return Err(place.refuses(what).unwrap_or(StreamError::NothingToEnd { what }));
            }
        };
        Ok(())
    }

    /// It comes instead of data, or after the first of it.
    fn failed(&mut self, subscription_id: &str) -> Result<(), StreamError> {
        self.subscriptions.failed(subscription_id)?;
        if let Place::Subscription(delivery) | Place::Shape(delivery) = &self.place
            && delivery.is_of(subscription_id)
        {
            self.place = Place::Between;
        }
        Ok(())
    }

    fn operation(&mut self, SatTransOp { op }: &SatTransOp) -> Result<(), StreamError> {
        let op = op.as_ref().ok_or(StreamError::NoOperation)?;
        let what = name(op);
        match (&self.place, op) {
            (Place::Transaction { .. }, Op::Delete(delete)) if delete.old_row_data.is_none() => {
                Err(StreamError::NoRow { what })
            }
            (
                Place::Transaction { .. },
                Op::Insert(_) | Op::Update(_) | Op::Delete(_) | Op::Compensation(_) | Op::Gone(_),
            )
            | (Place::Additional { .. } | Place::Shape(_), Op::Insert(_))
            | (Place::Unsubscription, Op::Gone(_)) => self.relations.check(op),
            (Place::Transaction { .. }, Op::Migrate(_)) => Ok(()),
            (Place::Between, Op::Begin(begin)) => self.begin(begin),
            (Place::Transaction { id, lsn }, Op::Commit(commit)) => {
                if !commit.lsn.is_empty() && commit.lsn != *lsn {
                    return Err(StreamError::OtherPosition);
                }
                self.commit(*id);
                Ok(())
            }
            (Place::Between, Op::AdditionalBegin(begin)) => self.additional(begin.r#ref),
            (Place::Additional { reference }, Op::AdditionalCommit(commit)) => {
                let (began, reference) = (*reference, commit.r#ref);
                if began != reference {
                    return Err(StreamError::OtherReference { began, reference });
                }
                self.place = Place::Between;
                Ok(())
            }
            (Place::Between, Op::Commit(_) | Op::AdditionalCommit(_)) => {
                Err(StreamError::NothingToEnd { what })
            }
            (place, _) => Err(place.refuses(what).unwrap_or(StreamError::Outside { what })),
        }
    }

    fn begin(&mut self, begin: &SatOpBegin) -> Result<(), StreamError> {
        let &SatOpBegin { additional_data_ref: reference, transaction_id: id, .. } = begin;
        if !self.is_started {
            return Err(StreamError::NotStarted { what: "begin" });
        }
        if begin.lsn.is_empty() {
            return Err(StreamError::NoPosition);
        }
        // The originals wait exactly then: they count as we do, and later, because they send
        // before we receive, and we acknowledge before they know. No recorded conversation comes
        // near it: `c0121_s0121_i_acks_of_the_ts_client` has 18 of 30.
        if let Some(size) = self.window
            && self.unacknowledged.len() >= size as usize
        {
            return Err(StreamError::WindowExceeded { size });
        }
        // Transactions that are handled together share a number.
        if reference != 0 && self.announced.insert(reference) && self.announced.len() > LIMIT {
            return Err(StreamError::TooManyAnnounced);
        }
        self.place = Place::Transaction { id, lsn: begin.lsn.clone() };
        Ok(())
    }

    fn commit(&mut self, id: Option<u64>) {
        self.place = Place::Between;
        if let Some(id) = id {
            // Only where the window is wider than this, or where there is none. The last one can
            // be acknowledged, and all before it with it.
            if self.unacknowledged.len() == LIMIT {
                self.unacknowledged.pop_front();
            }
            self.unacknowledged.push_back(id);
        }
    }

    fn additional(&mut self, reference: u64) -> Result<(), StreamError> {
        if !self.is_started {
            return Err(StreamError::NotStarted { what: "additional_begin" });
        }
        // What was announced on an earlier connection comes under a new number
        // (`raw_s0121_f_additional_data_and_reconnect`).
        let expected = self.announced.remove(&reference) || (self.is_resumed && reference != 0);
        if !expected {
            return Err(StreamError::Unannounced { reference });
        }
        self.place = Place::Additional { reference };
        Ok(())
    }

    // ---- What we acknowledge ----

    /// Whether acknowledgements have somebody to go to.
    pub(in crate::session) fn is_started(&self) -> bool {
        self.is_started
    }

    /// We acknowledge a transaction, and with it all before.
    pub(in crate::session) fn acknowledge(&mut self, ack: &SatOpLogAck) -> Result<(), SendError> {
        let transaction_id = ack.transaction_id;
        if transaction_id == 0 && self.version >= Version::V0_12 {
            return Ok(());
        }
        let index = self.unacknowledged.iter().position(|id| *id == transaction_id);
        let index = index.ok_or(SendError::NotReceived { transaction_id })?;
        self.unacknowledged.drain(..=index);
        Ok(())
    }

    /// The window that the server has announced, and how much of it is used.
    pub(in crate::session) fn window(&self) -> Option<Window> {
        let unacknowledged = self.unacknowledged.len() as u32;
        self.window.map(|size| Window { size, unacknowledged })
    }
}

impl Place {
    /// Why this cannot go on with something else; `None` where nothing has begun.
    fn refuses(&self, what: &'static str) -> Option<StreamError> {
        match self {
            Place::Between => None,
            Place::Transaction { .. } => Some(StreamError::InsideTransaction { what }),
            Place::Additional { .. } => Some(StreamError::InsideAdditional { what }),
            Place::Subscription(_) => Some(StreamError::InsideSubscription { what }),
            Place::Shape(_) => Some(StreamError::InsideShape { what }),
            Place::Unsubscription => Some(StreamError::InsideUnsubscription { what }),
        }
    }
}
