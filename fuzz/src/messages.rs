//! `wire`: what decodes encodes to an equal message, in its canonical form, and shares the memory
//! of its frame; so do calls and replies in it; rows hold what their bitmask says.

use bytes::Bytes;
use electric_satellite::wire::{
    Message, Method, Reply, Request, ServerLsn, Version,
    proto::{
        SatOpLog, SatOpRow, SatRpcRequest, SatRpcResponse, sat_rpc_response::Result as Outcome,
        sat_trans_op::Op,
    },
};

/// The input is a binary frame.
pub fn check(data: &[u8]) {
    texts(data);
    let frame = Bytes::copy_from_slice(data);
    let Ok(message) = Message::decode(frame.clone()) else { return };
    let encoded = message.encode();
    assert_eq!(encoded.len(), message.encoded_len());
    assert!(Message::TYPES.contains(&(encoded[0], message.name())));
    let again = Message::decode(encoded.clone()).expect("what was encoded decodes");
    assert_eq!(again, message);
    assert_eq!(again.encode(), encoded, "the canonical form is canonical");
    match message {
        Message::Request(envelope) => call(&frame, envelope),
        Message::Response(envelope) => replies(&frame, &envelope),
        Message::Error(error) => error.message.iter().chain(&error.lsn).for_each(shared(&frame)),
        Message::OpLogAck(ack) => shared(&frame)(&ack.lsn),
        Message::OpLog(log) => rows(&frame, &log),
        _ => {}
    }
}

/// Fails on bytes that were copied.
fn shared(frame: &Bytes) -> impl Fn(&Bytes) {
    let memory = frame.as_ptr_range();
    move |bytes| assert!(bytes.is_empty() || memory.contains(&bytes.as_ptr()), "it was copied")
}

fn call(frame: &Bytes, envelope: SatRpcRequest) {
    shared(frame)(&envelope.message);
    let (method, request_id) = (envelope.method.clone(), envelope.request_id);
    match Request::decode(envelope) {
        Ok(request) => {
            assert_eq!(request.method().as_str(), method);
            let Message::Request(again) = request.encode(request_id) else { panic!("no call") };
            assert_eq!(again.request_id, request_id);
            assert_eq!(Request::decode(again), Ok(request));
        }
        Err(error) => {
            let Message::Response(refusal) = error.refusal(Default::default()) else {
                panic!("no refusal")
            };
            assert_eq!((refusal.method, refusal.request_id), (method, request_id));
        }
    }
}

/// The body is read as the answer to each method, for nothing in it says which it is.
fn replies(frame: &Bytes, envelope: &SatRpcResponse) {
    if let Some(Outcome::Message(body)) = &envelope.result {
        shared(frame)(body);
    }
    for method in METHODS {
        let Ok(reply) = Reply::decode(method, envelope.clone()) else { continue };
        assert_eq!(reply.method(), method);
        let Message::Response(again) = reply.encode(envelope.request_id) else {
            panic!("no reply")
        };
        assert_eq!((again.method.parse(), again.request_id), (Ok(method), envelope.request_id));
        assert_eq!(Reply::decode(method, again), Ok(reply));
    }
}

const METHODS: [Method; 5] = [
    Method::Authenticate,
    Method::StartReplication,
    Method::StopReplication,
    Method::Subscribe,
    Method::Unsubscribe,
];

fn rows(frame: &Bytes, log: &SatOpLog) {
    for op in &log.ops {
        let of_op = match &op.op {
            Some(Op::Insert(insert)) => [&insert.row_data, &None],
            Some(Op::Update(update)) => [&update.row_data, &update.old_row_data],
            Some(Op::Delete(delete)) => [&delete.old_row_data, &None],
            Some(Op::Compensation(compensation)) => [&compensation.pk_data, &None],
            Some(Op::Gone(gone)) => [&gone.pk_data, &None],
            _ => continue,
        };
        for row in of_op.into_iter().flatten() {
            row.values.iter().chain([&row.nulls_bitmask]).for_each(shared(frame));
            read(row);
        }
    }
}

fn read(row: &SatOpRow) {
    let columns = row.values.len();
    assert!(row.read(columns + 1).is_err() && (columns == 0 || row.read(columns - 1).is_err()));
    // The bit of a column, counted from the most significant one of the first byte.
    let bits: Vec<bool> = row
        .nulls_bitmask
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1 == 1))
        .collect();
    let fits = bits.len() >= columns
        && row.values.iter().zip(&bits).all(|(value, null)| !null || value.is_empty());
    let Ok(values) = row.read(columns) else { return assert!(!fits, "a row that fits") };
    assert!(fits, "a row that does not fit");
    assert_eq!(values.columns(), columns);
    assert_eq!(values.get(columns), None);
    for (column, null) in bits.into_iter().take(columns).enumerate() {
        assert_eq!(values.get(column), (!null).then_some(&row.values[column]));
    }
    let built: SatOpRow = values.iter().map(Option::<&Bytes>::cloned).collect();
    let built = built.read(columns).expect("a row that was built from one");
    assert!(built.iter().eq(values.iter()));
}

/// Positions and versions are texts.
fn texts(data: &[u8]) {
    let digits = data.strip_prefix(b"+").or_else(|| data.strip_prefix(b"-")).unwrap_or(data);
    let is_position = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let position = ServerLsn::parse(Bytes::copy_from_slice(data));
    assert_eq!(position.is_ok(), is_position);
    if let Some(version) =
        std::str::from_utf8(data).ok().and_then(|text| text.parse::<Version>().ok())
    {
        assert_eq!(version.to_string().as_bytes(), data);
    }
}
