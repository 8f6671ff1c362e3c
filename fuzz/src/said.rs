//! What one end says to the other: frames that mean something, chosen by an input, or any bytes.

use bytes::Bytes;
use electric_satellite::wire::{Message, Method, Reply, Request, Version, proto::*, refusal};
use sat_trans_op::Op;

use crate::choices::Choices;

pub(crate) fn version(choices: &mut Choices) -> Version {
    Version::new(0, choices.within(6..13) as u64)
}

/// A frame. Numbers and names are few, so that they meet.
pub(crate) fn frame(choices: &mut Choices) -> Bytes {
    match choices.byte() % 8 {
        0 => Bytes::copy_from_slice(choices.bytes()),
        1 | 2 => request(choices).encode(choices.byte().into()).encode(),
        3 => response(choices).encode(),
        _ => stream(choices).encode(),
    }
}

const METHODS: [Method; 5] = [
    Method::StartReplication,
    Method::StopReplication,
    Method::Subscribe,
    Method::Unsubscribe,
    Method::Authenticate,
];

fn name(choices: &mut Choices) -> String {
    choices.one_of(&["s", "t", "client", ""]).into()
}

pub(crate) fn request(choices: &mut Choices) -> Request {
    match choices.one_of(&METHODS) {
        Method::StartReplication => SatInStartReplicationReq {
            lsn: choices.one_of(&["", "1"]).into(),
            subscription_ids: (0..choices.byte() % 3).map(|_| name(choices)).collect(),
            ..Default::default()
        }
        .into(),
        Method::StopReplication => SatInStopReplicationReq {}.into(),
        Method::Subscribe => SatSubsReq {
            subscription_id: name(choices),
            shape_requests: (0..choices.byte() % 3)
                .map(|_| SatShapeReq { request_id: name(choices), shape_definition: None })
                .collect(),
        }
        .into(),
        Method::Unsubscribe => {
            let subscription_ids = (0..choices.byte() % 3).map(|_| name(choices)).collect();
            SatUnsubsReq { subscription_ids }.into()
        }
        Method::Authenticate => {
            let token = choices.one_of(&["t", "another", ""]).into();
            SatAuthReq { id: name(choices), token, headers: vec![] }.into()
        }
    }
}

/// The positive answer to a call of this method, unless it holds an error of its own.
pub(crate) fn reply(choices: &mut Choices, method: Method) -> Reply {
    match method {
        Method::StartReplication => SatInStartReplicationResp {
            err: (choices.byte() % 8 == 7).then(Default::default),
            unacked_window_size: choices.one_of(&[None, Some(0), Some(1), Some(2)]),
        }
        .into(),
        Method::StopReplication => SatInStopReplicationResp {}.into(),
        Method::Subscribe => {
            let err = (choices.byte() % 8 == 7).then(Default::default);
            SatSubsResp { subscription_id: name(choices), err }.into()
        }
        Method::Unsubscribe => SatUnsubsResp {}.into(),
        Method::Authenticate => SatAuthResp { id: name(choices), headers: vec![] }.into(),
    }
}

pub(crate) fn error(choices: &mut Choices) -> SatErrorResp {
    SatErrorResp { error_type: i32::from(choices.byte() % 8), ..Default::default() }
}

fn response(choices: &mut Choices) -> Message {
    let (method, request_id) = (choices.one_of(&METHODS), u32::from(choices.byte()));
    match choices.byte() % 8 {
        7 => refusal(method.as_str(), request_id, error(choices)),
        6 => SatRpcResponse { method: method.as_str().into(), request_id, result: None }.into(),
        _ => reply(choices, method).encode(request_id),
    }
}

/// A message that travels alone and is no envelope.
pub(crate) fn stream(choices: &mut Choices) -> Message {
    match choices.byte() % 16 {
        0 => error(choices).into(),
        1 => SatSubsDataBegin { subscription_id: name(choices), lsn: "1".into() }.into(),
        2 => SatSubsDataEnd {}.into(),
        3 => SatShapeDataBegin { request_id: name(choices), uuid: "u".into() }.into(),
        4 => SatShapeDataEnd {}.into(),
        5 => SatSubsDataError { subscription_id: name(choices), ..Default::default() }.into(),
        6 => SatUnsubsDataBegin {
            subscription_ids: (0..choices.byte() % 3).map(|_| name(choices)).collect(),
            lsn: "1".into(),
        }
        .into(),
        7 => SatUnsubsDataEnd {}.into(),
        8 => {
            SatOpLogAck { transaction_id: (choices.byte() % 4).into(), ..Default::default() }.into()
        }
        9 | 10 => SatRelation {
            relation_id: (choices.byte() % 4).into(),
            columns: (0..choices.byte() % 3).map(|_| SatRelationColumn::default()).collect(),
            ..Default::default()
        }
        .into(),
        _ => {
            let ops = (0..choices.byte() % 8).map(|_| SatTransOp { op: Some(op(choices)) });
            SatOpLog { ops: ops.collect() }.into()
        }
    }
}

fn op(choices: &mut Choices) -> Op {
    let relation_id = u32::from(choices.byte() % 4);
    let transaction_id = choices.one_of(&[None, Some(0), Some(1), Some(2), Some(3)]);
    match choices.byte() % 12 {
        0 | 1 => Op::Begin(SatOpBegin {
            lsn: choices.one_of(&["1", "2", ""]).into(),
            transaction_id,
            additional_data_ref: (choices.byte() % 4).into(),
            ..Default::default()
        }),
        2 | 3 => Op::Commit(SatOpCommit {
            lsn: choices.one_of(&["1", "2", ""]).into(),
            transaction_id,
            additional_data_ref: (choices.byte() % 4).into(),
            ..Default::default()
        }),
        4..=6 => Op::Insert(SatOpInsert { relation_id, row_data: row(choices), tags: vec![] }),
        7 => Op::Update(SatOpUpdate {
            relation_id,
            row_data: row(choices),
            old_row_data: row(choices),
            tags: vec![],
        }),
        8 => Op::Delete(SatOpDelete { relation_id, old_row_data: row(choices), tags: vec![] }),
        9 => Op::Gone(SatOpGone { relation_id, pk_data: row(choices) }),
        10 => Op::AdditionalBegin(SatOpAdditionalBegin { r#ref: (choices.byte() % 4).into() }),
        _ => Op::AdditionalCommit(SatOpAdditionalCommit { r#ref: (choices.byte() % 4).into() }),
    }
}

fn row(choices: &mut Choices) -> Option<SatOpRow> {
    let columns = choices.byte() % 4;
    let values = (0..columns).map(|_| choices.one_of(&[Some("v"), Some(""), None]));
    (columns < 3).then(|| values.collect())
}
