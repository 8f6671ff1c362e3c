//! The order of the two streams, which [`StreamError`] describes.

mod from_client;
mod from_server;
mod subscriptions;

use std::collections::BTreeMap;

use crate::wire::{
    RowError,
    proto::{
        SatOpCompensation, SatOpDelete, SatOpGone, SatOpInsert, SatOpRow, SatOpUpdate, SatRelation,
        sat_trans_op::Op,
    },
};

pub(super) use from_client::ClientStream;
pub(super) use from_server::ServerStream;

/// How many relations, announcements of additional data, and transactions without an
/// acknowledgement are remembered of one stream: far more than any application has, and little
/// memory.
const LIMIT: usize = 1 << 16;

/// A rule of a stream that was broken, or would have been by sending. `Display` says which, and
/// never quotes a row.
///
/// The stream of a client is transactions and nothing else. The stream of a server holds these,
/// one after the other:
///
/// | begins with | holds | ends with |
/// |---|---|---|
/// | `begin` | changes, gone rows, migrations | `commit` |
/// | `additional_begin` | inserts | `additional_commit` |
/// | `SatSubsDataBegin` | shapes | `SatSubsDataEnd` |
/// | `SatShapeDataBegin`, in there | inserts | `SatShapeDataEnd` |
/// | `SatUnsubsDataBegin` | gone rows | `SatUnsubsDataEnd` |
///
/// Operations travel in `SatOpLog` messages, which may be cut between any two of them. Relations
/// are announced at any time before their use, on every connection anew. A transaction that is
/// open when its stream is stopped does not go on.
///
/// What is remembered for these rules has a bound that a peer cannot move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A server sends its stream from its answer to `startReplication` to its answer to
    /// `stopReplication`. What answers an `unsubscribe` may follow that.
    #[error("the stream is sent while replication is started, but {what} came when it was not")]
    NotStarted {
        /// What came.
        what: &'static str,
    },
    /// A relation is announced on the connection before it is used.
    #[error("a relation is announced before it is used, but {relation_id} was not")]
    UnknownRelation {
        /// The number used.
        relation_id: u32,
    },
    /// A stream has at most 65,536 relations.
    #[error("a stream has at most 65536 relations")]
    TooManyRelations,
    /// An operation is one that the protocol has.
    #[error("an operation is one that the protocol has")]
    NoOperation,
    /// An operation is part of something that has begun.
    #[error("operations are inside what has begun, such as a transaction, but {what} was outside")]
    Outside {
        /// The operation.
        what: &'static str,
    },
    /// What ends has begun.
    #[error("only what has begun ends, but {what} ended nothing")]
    NothingToEnd {
        /// What ended nothing.
        what: &'static str,
    },
    /// A transaction has a position.
    #[error("a transaction has a position, but one began without")]
    NoPosition,
    /// A transaction holds changes, gone rows and migrations until its commit.
    #[error("a transaction holds changes and migrations until its commit, but {what} came inside")]
    InsideTransaction {
        /// What came inside.
        what: &'static str,
    },
    /// A server's commit repeats the position of its begin, or has none.
    #[error("a commit repeats the position of its begin, but one had another")]
    OtherPosition,
    /// A client's transaction holds at least one operation: the original servers stop on one that
    /// does not.
    #[error("a client's transaction holds operations, but one was empty")]
    EmptyTransaction,
    /// Migrations, gone rows and additional data are for servers to send.
    #[error("a client sends changes, but {what} is for servers to send")]
    NotForClients {
        /// The operation.
        what: &'static str,
    },
    /// A change holds its row. Only the old row of an update may be left out, and by a client that
    /// of a delete.
    #[error("a change holds its row, but {what} came without")]
    NoRow {
        /// The operation.
        what: &'static str,
    },
    /// A row fits its relation.
    #[error("a row fits its relation, but one of {relation_id} had {error}")]
    Row {
        /// The number of the relation.
        relation_id: u32,
        /// What does not fit.
        error: RowError,
    },
    /// Additional data has been announced by a transaction, unless the stream was resumed.
    #[error("additional data is announced by a transaction, but {reference} was not")]
    Unannounced {
        /// The number it came under.
        reference: u64,
    },
    /// At most 65,536 announced additional data are to come.
    #[error("at most 65536 announced additional data are to come at a time")]
    TooManyAnnounced,
    /// Additional data holds inserts until its end.
    #[error("additional data holds inserts until its additional_commit, but {what} came inside")]
    InsideAdditional {
        /// What came inside.
        what: &'static str,
    },
    /// Additional data ends under the number under which it began.
    #[error("additional data ends under its number, but {reference} ended what was {began}")]
    OtherReference {
        /// The number under which it began.
        began: u64,
        /// The number under which it was to end.
        reference: u64,
    },
    /// Data, and the error instead of data, is for a subscription that the client has.
    #[error("data is for a subscription that the client has, but {what} named another")]
    UnknownSubscription {
        /// The message.
        what: &'static str,
    },
    /// The data of a subscription comes once.
    #[error("the data of a subscription comes once, but it began again")]
    RepeatedSubscription,
    /// The data of a subscription is the data of its shapes.
    #[error("a subscription's data is that of its shapes, but {what} came between them")]
    InsideSubscription {
        /// What came between two shapes.
        what: &'static str,
    },
    /// The data of a shape is part of that of its subscription.
    #[error("a shape's data is inside that of its subscription, but one began outside")]
    ShapeOutside,
    /// The shapes of a subscription are those that were asked for, each once.
    #[error("a subscription has the shapes that were asked for, each once, but another one began")]
    UnknownShape,
    /// The data of a shape is inserts.
    #[error("a shape's data holds inserts until its end, but {what} came inside")]
    InsideShape {
        /// What came inside.
        what: &'static str,
    },
    /// The data of a subscription ends when all its shapes have come.
    #[error("a subscription's data ends when all its shapes have come, but {missing} had not")]
    MissingShapes {
        /// How many have not come.
        missing: usize,
    },
    /// Rows leave with subscriptions that the client has given up.
    #[error("rows leave with subscriptions that were given up, but others were named")]
    NotUnsubscribed,
    /// The data of an unsubscription is gone rows.
    #[error("an unsubscription's data holds gone rows until its end, but {what} came inside")]
    InsideUnsubscription {
        /// What came inside.
        what: &'static str,
    },
    /// A server waits for an acknowledgement when the window is full.
    #[error("a server waits when {size} transactions are not acknowledged, but it went on")]
    WindowExceeded {
        /// The size of the window.
        size: u32,
    },
}

/// How far a server may run ahead of the acknowledgements of its client. Transactions count that
/// have come whole and with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many transactions may be without an acknowledgement. The server waits then.
    pub size: u32,
    /// How many are; beyond 65,536 they are not counted.
    pub unacknowledged: u32,
}

/// The relations that were announced in a stream, with how many columns they have.
#[derive(Debug, Default)]
struct Relations(BTreeMap<u32, usize>);

impl Relations {
    /// Takes a new relation, or the new columns of one.
    fn announce(&mut self, relation: &SatRelation) -> Result<(), StreamError> {
        if self.0.len() >= LIMIT && !self.0.contains_key(&relation.relation_id) {
            return Err(StreamError::TooManyRelations);
        }
        self.0.insert(relation.relation_id, relation.columns.len());
        Ok(())
    }

    /// Whether a change is of a known relation and its rows fit it. What is no change passes.
    fn check(&self, op: &Op) -> Result<(), StreamError> {
        let what = name(op);
        match op {
            Op::Insert(SatOpInsert { relation_id, row_data, .. }) => {
                self.of(*relation_id)?.holds(what, row_data)
            }
            Op::Update(SatOpUpdate { relation_id, row_data, old_row_data, .. }) => {
                let relation = self.of(*relation_id)?;
                relation.holds(what, row_data)?;
                relation.may_hold(old_row_data)
            }
            Op::Delete(SatOpDelete { relation_id, old_row_data, .. }) => {
                self.of(*relation_id)?.may_hold(old_row_data)
            }
            Op::Compensation(SatOpCompensation { relation_id, pk_data, .. })
            | Op::Gone(SatOpGone { relation_id, pk_data }) => {
                self.of(*relation_id)?.holds(what, pk_data)
            }
            _ => Ok(()),
        }
    }

    fn of(&self, relation_id: u32) -> Result<Relation, StreamError> {
        let columns = self.0.get(&relation_id);
        let columns = *columns.ok_or(StreamError::UnknownRelation { relation_id })?;
        Ok(Relation { relation_id, columns })
    }
}

/// One of them.
struct Relation {
    relation_id: u32,
    columns: usize,
}

impl Relation {
    fn holds(&self, what: &'static str, row: &Option<SatOpRow>) -> Result<(), StreamError> {
        match row {
            Some(_) => self.may_hold(row),
            None => Err(StreamError::NoRow { what }),
        }
    }

    fn may_hold(&self, row: &Option<SatOpRow>) -> Result<(), StreamError> {
        let &Relation { relation_id, columns } = self;
        match row.as_ref().map(|row| row.read(columns)) {
            Some(Err(error)) => Err(StreamError::Row { relation_id, error }),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

/// The name of an operation in the schema.
fn name(op: &Op) -> &'static str {
    match op {
        Op::Begin(_) => "begin",
        Op::Commit(_) => "commit",
        Op::Update(_) => "update",
        Op::Insert(_) => "insert",
        Op::Delete(_) => "delete",
        Op::Migrate(_) => "migrate",
        Op::Compensation(_) => "compensation",
        Op::Gone(_) => "gone",
        Op::AdditionalBegin(_) => "additional_begin",
        Op::AdditionalCommit(_) => "additional_commit",
    }
}
