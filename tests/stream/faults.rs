//! Faults in streams, and the rules that they break.

use bytes::Bytes;
use electric_satellite::{
    session::StreamError,
    wire::{Message, RowError, proto::*},
};
use proptest::sample::Index;
use sat_trans_op::Op;

use crate::{streams::Item, *};

/// A fault in a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    RelationMissing,
    BeginMissing,
    BeginTwice,
    PositionMissing,
    PositionOther,
    CommitMissing,
    TransactionEmpty,
    RowMissing,
    ValueMissing,
    BitsMissing,
    NullFilled,
    Migrates,
    ReferenceUnknown,
    ReferenceOther,
    AdditionalForeign,
    SubscriptionUnknown,
    SubscriptionAgain,
    DataBeginMissing,
    ShapeUnknown,
    ShapeMissing,
    ShapeBeginMissing,
    ShapeEndMissing,
    ShapeForeign,
    LeavingUnknown,
    LeavingForeign,
}

pub(crate) const FAULTS_OF_SERVERS: &[Fault] = &[
    Fault::RelationMissing,
    Fault::BeginMissing,
    Fault::BeginTwice,
    Fault::PositionMissing,
    Fault::PositionOther,
    Fault::CommitMissing,
    Fault::RowMissing,
    Fault::ValueMissing,
    Fault::BitsMissing,
    Fault::NullFilled,
    Fault::ReferenceUnknown,
    Fault::ReferenceOther,
    Fault::AdditionalForeign,
    Fault::SubscriptionUnknown,
    Fault::SubscriptionAgain,
    Fault::DataBeginMissing,
    Fault::ShapeUnknown,
    Fault::ShapeMissing,
    Fault::ShapeBeginMissing,
    Fault::ShapeEndMissing,
    Fault::ShapeForeign,
    Fault::LeavingUnknown,
    Fault::LeavingForeign,
];

pub(crate) const FAULTS_OF_CLIENTS: &[Fault] = &[
    Fault::RelationMissing,
    Fault::BeginMissing,
    Fault::BeginTwice,
    Fault::PositionMissing,
    Fault::CommitMissing,
    Fault::TransactionEmpty,
    Fault::RowMissing,
    Fault::ValueMissing,
    Fault::BitsMissing,
    Fault::NullFilled,
    Fault::Migrates,
];

impl Fault {
    /// Where in the stream it can be.
    pub(crate) fn places(self, stream: &[Item]) -> Vec<usize> {
        (0..stream.len()).filter(|at| self.put_at(stream, *at).is_some()).collect()
    }

    /// The stream with this fault in one of these places, and the rule that it breaks.
    pub(crate) fn put_into(self, stream: &[Item], at: Index) -> Option<(Vec<Item>, StreamError)> {
        let places = self.places(stream);
        if places.is_empty() {
            return None;
        }
        self.put_at(stream, *at.get(&places))
    }

    fn put_at(self, stream: &[Item], at: usize) -> Option<(Vec<Item>, StreamError)> {
        let (before, [item, after @ ..]) = stream.split_at(at) else { return None };
        // What the fault is noticed by: the first that is no relation.
        let is_relation = |item: &&Item| matches!(item, Item::Message(Message::Relation(_)));
        let next = after.iter().find(|item| !is_relation(item)).map(name);
        let with = |items: &[Item], error| Some(([before, items, after].concat(), error));
        match (self, item) {
            (Fault::RelationMissing, Item::Message(Message::Relation(relation))) => {
                with(&[], StreamError::UnknownRelation { relation_id: relation.relation_id })
            }
            (Fault::BeginMissing, Item::Op(Op::Begin(_))) => match next? {
                "commit" => with(&[], StreamError::NothingToEnd { what: "commit" }),
                what => with(&[], StreamError::Outside { what }),
            },
            (Fault::BeginTwice, Item::Op(Op::Begin(_))) => {
                let error = StreamError::InsideTransaction { what: "begin" };
                with(&[item.clone(), item.clone()], error)
            }
            (Fault::PositionMissing, Item::Op(Op::Begin(begin))) => {
                let begin = SatOpBegin { lsn: Bytes::new(), ..begin.clone() };
                with(&[Item::Op(Op::Begin(begin))], StreamError::NoPosition)
            }
            (Fault::PositionOther, Item::Op(Op::Commit(commit))) => {
                let commit = SatOpCommit { lsn: "other".into(), ..*commit };
                with(&[Item::Op(Op::Commit(commit))], StreamError::OtherPosition)
            }
            (Fault::CommitMissing, Item::Op(Op::Commit(_))) => {
                with(&[], StreamError::InsideTransaction { what: next? })
            }
            (Fault::TransactionEmpty, Item::Op(Op::Begin(_))) => {
                let is_commit = |item: &Item| matches!(item, Item::Op(Op::Commit(_)));
                let (inside, rest) = after.split_at(after.iter().position(is_commit)?);
                let relations = inside.iter().filter(is_relation).cloned().collect::<Vec<_>>();
                let begin = std::slice::from_ref(item);
                let stream = [before, begin, &relations, rest].concat();
                Some((stream, StreamError::EmptyTransaction))
            }
            (
                Fault::RowMissing | Fault::ValueMissing | Fault::BitsMissing | Fault::NullFilled,
                Item::Op(op),
            ) => {
                let mut op = op.clone();
                let error = self.spoil(&mut op)?;
                with(&[Item::Op(op)], error)
            }
            (Fault::Migrates, Item::Op(_)) => {
                let error = StreamError::NotForClients { what: "migrate" };
                with(&[item.clone(), Item::Op(migrate())], error)
            }
            (Fault::ReferenceUnknown, Item::Op(Op::AdditionalBegin(_))) => {
                let unknown = Item::Op(additional_begin(1000));
                with(&[unknown], StreamError::Unannounced { reference: 1000 })
            }
            (Fault::ReferenceOther, Item::Op(Op::AdditionalCommit(commit))) => {
                let error = StreamError::OtherReference { began: commit.r#ref, reference: 1000 };
                with(&[Item::Op(additional_commit(1000))], error)
            }
            (Fault::AdditionalForeign, Item::Op(Op::AdditionalBegin(_))) => {
                let error = StreamError::InsideAdditional { what: "gone" };
                with(&[item.clone(), Item::Op(gone(1))], error)
            }
            (Fault::SubscriptionUnknown, Item::Message(Message::SubsDataBegin(_))) => {
                let error = StreamError::UnknownSubscription { what: "SatSubsDataBegin" };
                with(&[Item::Message(data_begin("unknown"))], error)
            }
            (Fault::SubscriptionAgain, Item::Message(Message::SubsDataEnd(_))) => {
                let is_begin =
                    |item: &&Item| matches!(item, Item::Message(Message::SubsDataBegin(_)));
                let begin = before.iter().rfind(is_begin)?;
                with(&[item.clone(), begin.clone()], StreamError::RepeatedSubscription)
            }
            (Fault::DataBeginMissing, Item::Message(Message::SubsDataBegin(_))) => {
                with(&[], StreamError::ShapeOutside)
            }
            (Fault::ShapeUnknown, Item::Message(Message::ShapeDataBegin(_))) => {
                with(&[Item::Message(shape_begin("c"))], StreamError::UnknownShape)
            }
            (Fault::ShapeMissing, Item::Message(Message::ShapeDataBegin(_))) => {
                let [Item::Message(Message::ShapeDataEnd(_)), after @ ..] = after else {
                    return None;
                };
                Some(([before, after].concat(), StreamError::MissingShapes { missing: 1 }))
            }
            (Fault::ShapeBeginMissing, Item::Message(Message::ShapeDataBegin(_))) => {
                with(&[], StreamError::InsideSubscription { what: next? })
            }
            (Fault::ShapeEndMissing, Item::Message(Message::ShapeDataEnd(_))) => {
                with(&[], StreamError::InsideShape { what: next? })
            }
            (Fault::ShapeForeign, Item::Message(Message::ShapeDataBegin(_))) => {
                let error = StreamError::InsideShape { what: "begin" };
                with(&[item.clone(), Item::Op(begin())], error)
            }
            (Fault::LeavingUnknown, Item::Message(Message::UnsubsDataBegin(_))) => {
                with(&[Item::Message(unsubs_begin(&["s0"]))], StreamError::NotUnsubscribed)
            }
            (Fault::LeavingForeign, Item::Message(Message::UnsubsDataBegin(_))) => {
                let error = StreamError::InsideUnsubscription { what: "commit" };
                with(&[item.clone(), Item::Op(commit())], error)
            }
            _ => None,
        }
    }

    /// Spoils the row of a change, if it has one that can be.
    fn spoil(self, op: &mut Op) -> Option<StreamError> {
        let what = name_of(op);
        let (relation_id, row) = match op {
            Op::Insert(insert) => (insert.relation_id, &mut insert.row_data),
            Op::Update(update) => (update.relation_id, &mut update.row_data),
            Op::Compensation(it) => (it.relation_id, &mut it.pk_data),
            Op::Gone(gone) => (gone.relation_id, &mut gone.pk_data),
            _ => return None,
        };
        if self == Fault::RowMissing {
            *row = None;
            return Some(StreamError::NoRow { what });
        }
        let SatOpRow { nulls_bitmask, values } = row.as_mut()?;
        let columns = values.len();
        let error = match self {
            Fault::ValueMissing => {
                values.pop()?;
                RowError::Arity { columns, values: columns - 1 }
            }
            Fault::BitsMissing => {
                let bytes = nulls_bitmask.len().checked_sub(1)?;
                nulls_bitmask.truncate(bytes);
                RowError::ShortBitmask { columns, bytes }
            }
            _ => {
                let column = values.iter().position(|value| !value.is_empty())?;
                *nulls_bitmask = vec![0xff; nulls_bitmask.len()].into();
                RowError::NullWithValue { column }
            }
        };
        Some(StreamError::Row { relation_id, error })
    }
}

fn name(item: &Item) -> &'static str {
    match item {
        Item::Op(op) => name_of(op),
        Item::Message(message) => message.name(),
    }
}
