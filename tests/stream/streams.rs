//! Streams that keep the rules.

use electric_satellite::wire::{Message, proto::*};
use proptest::{collection::vec, prelude::*};
use sat_trans_op::Op;

use crate::{common::*, *};

/// A part of a server's stream, before it is known what is announced already.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Transaction { changes: Vec<Change>, announces: bool },
    Migration,
    Additional { changes: Vec<Change> },
    Data { subscription: u8, shapes: [Vec<Change>; 2] },
    Leave { subscription: u8, changes: Vec<Change> },
}

/// A change of one of the relations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// Insert, update, delete, compensation, and gone rows.
    pub(crate) kind: u8,
    pub(crate) relation: u8,
    /// Of this its values are made.
    pub(crate) seed: u32,
}

/// How many columns the relations have.
const COLUMNS: [usize; 6] = [0, 1, 7, 8, 9, 17];

/// An operation or another message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Op(Op),
    Message(Message),
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    let relations = 0..COLUMNS.len() as u8;
    let change = (0..4_u8, relations, any::<u32>());
    change.prop_map(|(kind, relation, seed)| Change { kind, relation, seed })
}

pub(crate) fn part() -> impl Strategy<Value = Part> {
    let changes = || vec(change(), 0..4);
    let gone = change().prop_map(|change| Change { kind: 4, ..change });
    let shapes = [changes(), changes()];
    prop_oneof![
        4 => (vec(prop_oneof![4 => change(), 1 => gone], 0..5), any::<bool>())
            .prop_map(|(changes, announces)| Part::Transaction { changes, announces }),
        1 => Just(Part::Migration),
        2 => changes().prop_map(|changes| Part::Additional { changes }),
        2 => (0..3_u8, shapes)
            .prop_map(|(subscription, shapes)| Part::Data { subscription, shapes }),
        1 => (0..3_u8, changes())
            .prop_map(|(subscription, changes)| Part::Leave { subscription, changes }),
    ]
}

/// A client that has asked for all that may be in those parts.
pub(crate) fn expecting() -> Client {
    let mut client = started_with(Version::V0_12, start(), None);
    for number in 0..3 {
        client.subscribed(&format!("s{number}"), &["a", "b"]);
        client.unsubscribed(&[&format!("u{number}")]);
    }
    client
}

/// A stream as it grows.
#[derive(Default)]
struct Stream {
    items: Vec<Item>,
    relations: Vec<u8>,
    /// The highest number of additional data, and those that have not come.
    last_reference: u64,
    announced: Vec<u64>,
    /// The subscriptions whose data has come, and those whose rows have left.
    delivered: Vec<u8>,
    left: Vec<u8>,
}

impl Stream {
    fn message(&mut self, message: impl Into<Message>) {
        self.items.push(Item::Message(message.into()));
    }

    fn op(&mut self, op: Op) {
        self.items.push(Item::Op(op));
    }

    /// A change, of this kind or of its own, and its relation before if that is new.
    fn change(&mut self, Change { kind, relation, seed }: Change, forced: Option<u8>) {
        let (relation_id, columns) = (10 + u32::from(relation), COLUMNS[usize::from(relation)]);
        if !self.relations.contains(&relation) {
            self.relations.push(relation);
            self.message(table(relation_id, columns));
        }
        let value = |column: usize| match seed.rotate_left(column as u32) % 3 {
            0 => None,
            1 => Some(""),
            _ => Some("v"),
        };
        let row = Some((0..columns).map(value).collect());
        self.op(match forced.unwrap_or(kind) {
            4 => gone_of(relation_id, row),
            kind => changes(relation_id, &row)[usize::from(kind)].clone(),
        });
    }

    fn changes(&mut self, changes: &[Change], forced: Option<u8>) {
        changes.iter().for_each(|change| self.change(*change, forced));
    }

    fn part(&mut self, part: &Part) {
        const INSERT: Option<u8> = Some(0);
        const GONE: Option<u8> = Some(4);
        match part {
            Part::Transaction { changes, announces } => {
                if *announces {
                    self.last_reference += 1;
                    self.announced.push(self.last_reference);
                }
                self.op(announcing(if *announces { self.last_reference } else { 0 }));
                self.changes(changes, None);
                self.op(commit());
            }
            Part::Migration => {
                [begin(), migrate(), migrate(), commit()].into_iter().for_each(|op| self.op(op));
            }
            Part::Additional { changes } => {
                if let Some(reference) = self.announced.pop() {
                    self.op(additional_begin(reference));
                    self.changes(changes, INSERT);
                    self.op(additional_commit(reference));
                }
            }
            Part::Data { subscription, shapes } if !self.delivered.contains(subscription) => {
                self.delivered.push(*subscription);
                self.message(data_begin(&format!("s{subscription}")));
                for (shape, changes) in ["b", "a"].iter().zip(shapes) {
                    self.message(shape_begin(shape));
                    self.changes(changes, INSERT);
                    self.message(shape_end());
                }
                self.message(data_end());
            }
            Part::Leave { subscription, changes } if !self.left.contains(subscription) => {
                self.left.push(*subscription);
                self.message(unsubs_begin(&[&format!("u{subscription}")]));
                self.changes(changes, GONE);
                self.message(unsubs_end());
            }
            // What has come does not come again.
            Part::Data { .. } | Part::Leave { .. } => {}
        }
    }
}

pub(crate) fn stream_of_server(parts: &[Part]) -> Vec<Item> {
    let mut stream = Stream::default();
    parts.iter().for_each(|part| stream.part(part));
    stream.items
}

pub(crate) fn stream_of_client(transactions: &[Vec<Change>]) -> Vec<Item> {
    let mut stream = Stream::default();
    for changes in transactions {
        stream.op(begin());
        // A client has no gone rows.
        changes.iter().for_each(|change| stream.change(*change, Some(change.kind % 4)));
        stream.op(commit());
    }
    stream.items
}

pub(crate) fn cuts() -> impl Strategy<Value = Vec<bool>> {
    vec(any::<bool>(), 1..32)
}

/// The messages, where operations that follow each other share one or do not.
pub(crate) fn cut(stream: &[Item], cuts: &[bool]) -> Vec<Message> {
    let mut messages: Vec<Message> = vec![];
    for (item, cut) in stream.iter().zip(cuts.iter().cycle()) {
        match (item, messages.last_mut()) {
            (Item::Op(op), Some(Message::OpLog(open))) if !cut => {
                open.ops.push(SatTransOp { op: Some(op.clone()) });
            }
            (Item::Op(op), _) => messages.push(log([op.clone()]).into()),
            (Item::Message(message), _) => messages.push(message.clone()),
        }
    }
    messages
}
