//! What the ends of the explored conversations say.

use electric_satellite::wire::{Message, Method, Reply, proto::*};
use sat_in_start_replication_resp::{ReplicationError, replication_error};
use sat_trans_op::Op;

use crate::common::{started, stopped, subscribed};

/// Of those that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Oldest,
    Newest,
}

/// How a call is answered by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    Success,
    Refusal,
    Nothing,
    /// The reply to another method, under the same number.
    OtherMethod,
}

/// A reply that grants a call. A start comes with a window of one transaction.
pub(crate) fn success(method: Method) -> Reply {
    match method {
        Method::Authenticate => SatAuthResp { id: "server-1".into(), headers: vec![] }.into(),
        Method::StartReplication => {
            SatInStartReplicationResp { unacked_window_size: Some(1), ..started() }.into()
        }
        Method::StopReplication => stopped().into(),
        Method::Subscribe => subscribed("s").into(),
        Method::Unsubscribe => SatUnsubsResp {}.into(),
    }
}

/// The reply that does not grant a start.
pub(crate) fn not_started() -> SatInStartReplicationResp {
    let code = replication_error::Code::BehindWindow.into();
    let error = ReplicationError { code, message: "behind".into() };
    SatInStartReplicationResp { err: Some(error), ..started() }
}

pub(crate) fn ops<const N: usize>(ops: [Op; N]) -> Message {
    SatOpLog { ops: ops.map(|op| SatTransOp { op: Some(op) }).into() }.into()
}

pub(crate) fn begin(transaction_id: u64) -> Op {
    let transaction_id = Some(transaction_id);
    Op::Begin(SatOpBegin { lsn: "1".into(), transaction_id, ..Default::default() })
}

/// A change of the relation that [`relation`](crate::common::relation) announces as number 1.
pub(crate) fn change() -> Op {
    let row_data = Some(SatOpRow::default());
    Op::Insert(SatOpInsert { relation_id: 1, row_data, tags: vec![] })
}

pub(crate) fn commit() -> Op {
    Op::Commit(SatOpCommit { lsn: "1".into(), ..Default::default() })
}

/// A row that leaves.
pub(crate) fn gone() -> Op {
    Op::Gone(SatOpGone { relation_id: 1, pk_data: Some(SatOpRow::default()) })
}
