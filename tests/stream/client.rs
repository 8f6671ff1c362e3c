//! What a client sends, at both ends.

use bytes::Bytes;
use electric_satellite::{
    session::{SendError, StreamError, Violation},
    wire::{Message, RowError, proto::*},
};
use sat_error_resp::ErrorCode;
use sat_trans_op::Op;

use crate::{common::*, *};

/// What the client refuses to send is what a server refuses to take: INVALID_REQUEST, 1007.
#[track_caller]
fn both_refuse(before: &[Message], message: impl Into<Message>, error: StreamError) {
    let message = message.into();
    let mut client = sending();
    before.iter().for_each(|message| client.sends(message.clone()));
    client.refuses_to_send(message.clone(), SendError::Stream(error));

    let mut server = listening();
    server.hears(table(1, 1));
    server.hears(table(2, 2));
    for message in before {
        assert_eq!(server.hears(message.clone()), [got(message.clone())]);
    }
    let answer = sent(SatErrorResp::of(ErrorCode::InvalidRequest));
    let violation = Violation::Stream(error);
    assert_eq!(server.hears(message), [answer, broken(violation)]);
    server.is_silent_for_ever();
}

#[track_caller]
fn both_take(messages: &[Message]) {
    let (mut client, mut server) = (sending(), listening());
    server.hears(table(1, 1));
    server.hears(table(2, 2));
    for message in messages {
        client.sends(message.clone());
        assert_eq!(server.hears(message.clone()), [got(message.clone())]);
    }
}

#[test]
fn a_client_announces_a_relation_before_it_uses_it() {
    let unknown = StreamError::UnknownRelation { relation_id: 3 };
    for change in changes(3, &row(3)) {
        both_refuse(&[], log([begin(), change.clone()]), unknown);
        both_take(&[table(3, 3).into(), log([begin(), change, commit()]).into()]);
    }
    // One that is announced by the server is another one.
    let mut client = sending();
    let call = client.calls(start());
    client.hears(reply(call.request_id, started()));
    client.takes([table(3, 3)]);
    client.refuses_to_send(log([begin(), insert(3)]), SendError::Stream(unknown));
}

#[test]
fn a_clients_stream_has_a_limited_number_of_relations() {
    let mut client = sending();
    (0..LIMIT).for_each(|relation_id| client.sends(table(relation_id, 0)));
    client.refuses_to_send(table(LIMIT, 0), SendError::Stream(StreamError::TooManyRelations));
    client.sends(table(LIMIT - 1, 1));
}

#[test]
fn a_clients_transaction_is_begin_operations_and_commit() {
    both_take(&[
        log([begin()]).into(),
        log([]).into(),
        log([insert(1)]).into(),
        table(3, 3).into(),
        log([insert(3), commit(), begin(), insert(2)]).into(),
        log([Op::Commit(SatOpCommit::default())]).into(),
    ]);
    both_refuse(&[], log([insert(1)]), StreamError::Outside { what: "insert" });
    both_refuse(&[], log([commit()]), StreamError::NothingToEnd { what: "commit" });
    let whole = log([begin(), insert(1), commit()]);
    let after = log([insert(1)]);
    both_refuse(&[whole.into()], after, StreamError::Outside { what: "insert" });
    let open = log([begin(), insert(1)]);
    let inside = StreamError::InsideTransaction { what: "begin" };
    both_refuse(&[open.into()], log([begin()]), inside);
    both_refuse(&[], SatOpLog { ops: vec![SatTransOp::default()] }, StreamError::NoOperation);
    both_refuse(&[], log([Op::Begin(SatOpBegin::default())]), StreamError::NoPosition);
}

#[test]
fn a_clients_transaction_is_not_empty() {
    both_refuse(&[], log([begin(), commit()]), StreamError::EmptyTransaction);
    both_refuse(&[log([begin()]).into()], log([commit()]), StreamError::EmptyTransaction);
}

#[test]
fn a_client_sends_changes_and_nothing_else() {
    for (op, what) in [
        (migrate(), "migrate"),
        (gone(1), "gone"),
        (additional_begin(1), "additional_begin"),
        (additional_commit(1), "additional_commit"),
    ] {
        let error = StreamError::NotForClients { what };
        both_refuse(&[], log([op.clone()]), error);
        both_refuse(&[log([begin()]).into()], log([op]), error);
    }
}

#[test]
fn a_clients_rows_fit_their_relations() {
    for change in changes(2, &row(1)) {
        let error = RowError::Arity { columns: 2, values: 1 };
        both_refuse(&[], log([begin(), change]), StreamError::Row { relation_id: 2, error });
    }
    let short = Some(SatOpRow { nulls_bitmask: Bytes::new(), values: vec!["a".into(); 2] });
    let error = RowError::ShortBitmask { columns: 2, bytes: 0 };
    let op = insert_of(2, short);
    both_refuse(&[], log([begin(), op]), StreamError::Row { relation_id: 2, error });
    both_refuse(&[], log([begin(), insert_of(1, None)]), StreamError::NoRow { what: "insert" });
    both_refuse(
        &[],
        log([begin(), update_of(1, None, None)]),
        StreamError::NoRow { what: "update" },
    );
    // A client may leave the old row out.
    both_take(&[log([begin(), delete_of(1, None), update_of(1, row(1), None), commit()]).into()]);
}

#[test]
fn a_refused_message_changes_nothing() {
    let mut client = sending();
    // Its begin does not count.
    let half_bad = log([begin(), insert(1), insert(3)]);
    let unknown = SendError::Stream(StreamError::UnknownRelation { relation_id: 3 });
    client.refuses_to_send(half_bad, unknown);
    let outside = SendError::Stream(StreamError::Outside { what: "insert" });
    client.refuses_to_send(log([insert(1)]), outside);
    // Nor does its commit.
    client.sends(log([begin(), insert(1)]));
    client.refuses_to_send(log([commit(), insert(1)]), outside);
    client.sends(log([insert(1), commit()]));
}

#[test]
fn a_transaction_that_the_server_has_stopped_does_not_go_on() {
    let mut client = sending();
    client.sends(log([begin(), insert(1)]));
    client.hears_call(0, stop());
    // Not before the answer.
    client.sends(log([insert(1)]));
    client.answers(stopped());
    client.hears_call(1, start());
    client.answers(started());
    let nothing = SendError::Stream(StreamError::NothingToEnd { what: "commit" });
    client.refuses_to_send(log([commit()]), nothing);
    client.sends(log([begin(), insert(1), commit()]));

    let mut server = listening();
    server.hears(table(1, 1));
    server.hears(log([begin(), insert(1)]));
    let call = server.calls(stop());
    let late = log([insert(1)]);
    assert_eq!(server.hears(late.clone()), [got(late)]);
    server.hears(reply(call.request_id, stopped()));
    let call = server.calls(start());
    server.hears(reply(call.request_id, started()));
    let again = log([begin(), insert(1), commit()]);
    assert_eq!(server.hears(again.clone()), [got(again)]);
}
