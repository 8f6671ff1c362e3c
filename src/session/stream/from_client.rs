//! The stream of a client, at either end.

use crate::wire::{
    Message,
    proto::{SatTransOp, sat_trans_op::Op},
};

use super::{Relations, StreamError, name};

/// What a client has sent: the relations that it announced, and whether a transaction is open.
///
/// A message that breaks a rule changes nothing.
#[derive(Debug, Default)]
pub(in crate::session) struct ClientStream {
    relations: Relations,
    place: Place,
}

/// What the next operation is a part of.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Between,
    Transaction {
        is_empty: bool,
    },
}

impl ClientStream {
    /// The client sends a message of its stream, or has sent it.
    pub(in crate::session) fn takes(&mut self, message: &Message) -> Result<(), StreamError> {
        match message {
            Message::Relation(relation) => self.relations.announce(relation)?,
            Message::OpLog(log) => {
                let mut ops = log.ops.iter();
                self.place = ops.try_fold(self.place, |place, op| self.after(place, op))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The stream starts or stops: a transaction that is open does not go on. Relations stay.
    pub(in crate::session) fn restart(&mut self) {
        self.place = Place::Between;
    }

    fn after(&self, place: Place, SatTransOp { op }: &SatTransOp) -> Result<Place, StreamError> {
        use Place::{Between, Transaction};
        let op = op.as_ref().ok_or(StreamError::NoOperation)?;
        let what = name(op);
        match (place, op) {
            (
                _,
                Op::Migrate(_) | Op::Gone(_) | Op::AdditionalBegin(_) | Op::AdditionalCommit(_),
            ) => Err(StreamError::NotForClients { what }),
            (Between, Op::Begin(begin)) if begin.lsn.is_empty() => Err(StreamError::NoPosition),
            (Between, Op::Begin(_)) => Ok(Transaction { is_empty: true }),
            (Between, Op::Commit(_)) => Err(StreamError::NothingToEnd { what }),
            (Between, _) => Err(StreamError::Outside { what }),
            (Transaction { .. }, Op::Begin(_)) => Err(StreamError::InsideTransaction { what }),
            (Transaction { is_empty: true }, Op::Commit(_)) => Err(StreamError::EmptyTransaction),
            (Transaction { is_empty: false }, Op::Commit(_)) => Ok(Between),
            (Transaction { .. }, change) => {
                self.relations.check(change)?;
                Ok(Transaction { is_empty: false })
            }
        }
    }
}
