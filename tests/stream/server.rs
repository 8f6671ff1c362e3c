//! What a server sends, and what its client acknowledges.

use bytes::Bytes;
use electric_satellite::{
    session::{SendError, Session, StreamError, Window},
    wire::{Message, RowError, Version, proto::*},
};
use sat_error_resp::ErrorCode;
use sat_trans_op::Op;

use crate::{common::*, *};

// ---- When ----

#[test]
fn a_stream_comes_after_the_answer_to_start_replication() {
    let unasked = |client: &mut Client, message: &Message| {
        client.ends_at(message.clone(), StreamError::NotStarted { what: message.name() });
    };
    for message in stream_of_a_server() {
        if matches!(message, Message::SubsDataError(_)) {
            continue;
        }
        unasked(&mut ready(Version::V0_12), &message);
        let mut client = ready(Version::V0_12);
        client.calls(start());
        unasked(&mut client, &message);
    }
    started_with(Version::V0_12, start(), None).takes([table(1, 1)]);
}

#[test]
fn nothing_new_begins_after_the_answer_to_stop_replication() {
    let stopping = || {
        let mut client = receiving();
        client.subscribed("s", &[]);
        let call = client.calls(stop());
        // What was on its way.
        client.takes([log([announcing(2), insert(1), commit()])]);
        client.hears(reply(call.request_id, stopped()));
        // What the originals say after their answer.
        client.takes([error(ErrorCode::Internal)]);
        client
    };
    stopping().ends_at(log([begin()]), StreamError::NotStarted { what: "begin" });
    let additional = log([additional_begin(2)]);
    stopping().ends_at(additional, StreamError::NotStarted { what: "additional_begin" });
    stopping().ends_at(data_begin("s"), StreamError::NotStarted { what: "SatSubsDataBegin" });

    let mut client = stopping();
    // What answers a call is not of the stream.
    client.unsubscribed(&["s"]);
    client.takes([table(3, 3).into(), unsubs_begin(&["s"]), log([gone(3)]).into(), unsubs_end()]);
    // It starts again, and what was announced before is still known.
    let call = client.calls(resume(&[]));
    client.hears(reply(call.request_id, started()));
    client.takes([log([begin(), insert(1), commit(), additional_begin(2), additional_commit(2)])]);
}

#[test]
fn what_a_stop_has_cut_does_not_go_on() {
    let mut client = receiving();
    client.subscribed("s", &["a"]);
    client.takes([log([begin(), insert(1)])]);
    let call = client.calls(stop());
    client.hears(reply(call.request_id, stopped()));
    let call = client.calls(start());
    client.hears(reply(call.request_id, started()));
    client.takes([log([begin(), insert(1), commit()]).into(), data_begin("s"), shape_begin("a")]);
    // The same with data, which may begin again.
    let call = client.calls(stop());
    client.hears(reply(call.request_id, stopped()));
    let call = client.calls(start());
    client.hears(reply(call.request_id, started()));
    client.takes([data_begin("s"), shape_begin("a"), shape_end(), data_end()]);

    let mut client = receiving();
    client.takes([log([begin(), insert(1)])]);
    let call = client.calls(stop());
    client.hears(reply(call.request_id, stopped()));
    client.ends_at(log([commit()]), StreamError::NothingToEnd { what: "commit" });
}

// ---- Relations, operations and rows ----

#[test]
fn a_relation_is_announced_before_it_is_used() {
    let unknown = StreamError::UnknownRelation { relation_id: 3 };
    let all = changes(3, &row(3)).into_iter().chain([gone(3)]);
    for change in all {
        receiving().ends_at(log([begin(), change.clone()]), unknown);
        let mut client = receiving();
        client.takes([table(3, 3).into(), Message::from(log([begin(), change, commit()]))]);
    }
    let mut client = receiving();
    client.subscribed("s", &["a"]);
    client.takes([data_begin("s"), shape_begin("a")]);
    client.ends_at(log([insert(3)]), unknown);

    let mut client = receiving();
    client.takes([log([announcing(1), commit()])]);
    client.ends_at(log([additional_begin(1), insert(3)]), unknown);

    let mut client = receiving();
    client.unsubscribed(&["s"]);
    client.takes([unsubs_begin(&["s"])]);
    client.ends_at(log([gone(3)]), unknown);
}

#[test]
fn a_relation_may_be_announced_anywhere_and_again_with_other_columns() {
    let mut client = receiving();
    client.subscribed("s", &["a"]);
    client.takes([
        log([begin()]).into(),
        table(3, 3).into(),
        log([insert(3)]).into(),
        table(3, 1).into(),
        log([insert_of(3, row(1)), commit()]).into(),
        data_begin("s"),
        table(4, 4).into(),
        shape_begin("a"),
        table(5, 5).into(),
        log([insert(4), insert(5)]).into(),
    ]);
    let error = RowError::Arity { columns: 1, values: 3 };
    client.ends_at(log([insert(3)]), StreamError::Row { relation_id: 3, error });
}

#[test]
fn a_stream_has_a_limited_number_of_relations() {
    let mut client = started_with(Version::V0_12, start(), None);
    client.takes((0..LIMIT).map(|relation_id| table(relation_id, 0)));
    // Known ones may change.
    client.takes([table(0, 1), table(LIMIT - 1, 1)]);
    client.ends_at(table(LIMIT, 0), StreamError::TooManyRelations);
}

#[test]
fn an_operation_is_one_of_the_protocols() {
    let nothing = SatOpLog { ops: vec![SatTransOp { op: None }] };
    receiving().ends_at(nothing.clone(), StreamError::NoOperation);
    let mut client = receiving();
    client.takes([log([begin()])]);
    client.ends_at(nothing, StreamError::NoOperation);
    // No operation at all is none that is wrong.
    receiving().takes([SatOpLog::default()]);
}

#[test]
fn operations_are_inside_of_something() {
    let outside = [insert(1), update_of(1, row(1), None), delete_of(1, row(1)), gone(1), migrate()];
    for op in outside.into_iter().chain([compensation_of(1, row(1))]) {
        let ended = log([begin(), op.clone(), commit(), op.clone()]);
        let what = name_of(&op);
        receiving().ends_at(log([op.clone()]), StreamError::Outside { what });
        receiving().ends_at(ended, StreamError::Outside { what });
        receiving().takes([log([begin(), op, commit()])]);
    }
}

#[test]
fn a_change_holds_its_row() {
    let no_row = |op: Op, what| {
        receiving().ends_at(log([begin(), op]), StreamError::NoRow { what });
    };
    no_row(insert_of(1, None), "insert");
    no_row(update_of(1, None, row(1)), "update");
    no_row(delete_of(1, None), "delete");
    no_row(compensation_of(1, None), "compensation");
    no_row(gone_of(1, None), "gone");
    // The old row of an update is the one that may be missing.
    receiving().takes([log([begin(), update_of(1, row(1), None), commit()])]);
}

#[test]
fn a_row_fits_its_relation() {
    let short = Some(SatOpRow { nulls_bitmask: Bytes::new(), values: vec!["a".into(); 2] });
    let filled = SatOpRow { nulls_bitmask: vec![0x40].into(), values: vec!["a".into(); 2] };
    for (bad, error) in [
        (row(1), RowError::Arity { columns: 2, values: 1 }),
        (row(3), RowError::Arity { columns: 2, values: 3 }),
        (short, RowError::ShortBitmask { columns: 2, bytes: 0 }),
        (Some(filled), RowError::NullWithValue { column: 1 }),
    ] {
        let error = StreamError::Row { relation_id: 2, error };
        let old = update_of(2, row(2), bad.clone());
        for op in changes(2, &bad).into_iter().chain([gone_of(2, bad.clone()), old]) {
            receiving().ends_at(log([begin(), op]), error);
        }
    }
    let null: Option<SatOpRow> = Some([Some("a"), None].into_iter().collect());
    receiving().takes([log([begin()]), log(changes(2, &null)), log([gone_of(2, null), commit()])]);
}

// ---- Transactions and additional data ----

#[test]
fn a_transaction_is_from_begin_to_commit_however_it_is_cut_into_messages() {
    receiving().takes([
        log([begin()]),
        log([]),
        log([insert(1), gone(2)]),
        log([migrate(), commit(), begin(), commit(), begin()]),
        log([commit()]),
    ]);
    let inside = |what| StreamError::InsideTransaction { what };
    receiving().ends_at(log([begin(), begin()]), inside("begin"));
    receiving().ends_at(log([commit()]), StreamError::NothingToEnd { what: "commit" });
    let twice = log([begin(), commit(), commit()]);
    receiving().ends_at(twice, StreamError::NothingToEnd { what: "commit" });
    for (message, error) in [
        (log([begin()]).into(), inside("begin")),
        (log([additional_begin(1)]).into(), inside("additional_begin")),
        (log([additional_commit(1)]).into(), inside("additional_commit")),
        (data_begin("s"), inside("SatSubsDataBegin")),
        (shape_begin("a"), inside("SatShapeDataBegin")),
        (shape_end(), inside("SatShapeDataEnd")),
        (data_end(), inside("SatSubsDataEnd")),
        (unsubs_begin(&["u"]), inside("SatUnsubsDataBegin")),
        (unsubs_end(), inside("SatUnsubsDataEnd")),
    ] {
        let mut client = receiving();
        client.subscribed("s", &["a"]);
        client.unsubscribed(&["u"]);
        client.takes([log([begin(), insert(1)])]);
        client.ends_at(message, error);
    }
}

#[test]
fn a_transaction_has_a_position_which_its_commit_repeats_if_it_has_one() {
    let nowhere = Op::Begin(SatOpBegin::default());
    receiving().ends_at(log([nowhere]), StreamError::NoPosition);
    let elsewhere = Op::Commit(SatOpCommit { lsn: "2".into(), ..Default::default() });
    receiving().ends_at(log([begin(), elsewhere]), StreamError::OtherPosition);
    receiving().takes([log([begin(), commit(), begin(), Op::Commit(SatOpCommit::default())])]);
}

#[test]
fn additional_data_is_announced() {
    let unannounced = |reference| StreamError::Unannounced { reference };
    receiving().ends_at(log([additional_begin(2)]), unannounced(2));
    let announced = || {
        let mut client = receiving();
        // Transactions that are handled together share a number.
        client.takes([log([announcing(2), commit(), announcing(2), commit()])]);
        client
    };
    announced().ends_at(log([additional_begin(3)]), unannounced(3));
    let mut client = announced();
    client.takes([
        log([additional_begin(2)]),
        log([insert(1)]),
        log([insert(2), additional_commit(2)]),
    ]);
    client.ends_at(log([additional_begin(2)]), unannounced(2));
    // 0 announces nothing.
    let mut client = receiving();
    client.takes([log([announcing(0), commit()])]);
    client.ends_at(log([additional_begin(0)]), unannounced(0));
}

#[test]
fn a_stream_that_goes_on_brings_what_an_earlier_connection_was_owed() {
    let mut client = started_with(Version::V0_12, resume(&["s"]), Some(30));
    client.takes([log([additional_begin(1), additional_commit(1)])]);
    client.ends_at(log([additional_begin(0)]), StreamError::Unannounced { reference: 0 });
}

#[test]
fn additional_data_is_inserts_until_its_end() {
    let inside = |what| StreamError::InsideAdditional { what };
    let additional = || {
        let mut client = receiving();
        client.subscribed("s", &["a"]);
        client.takes([log([announcing(2), commit(), additional_begin(2), insert(1)])]);
        client
    };
    for (op, what) in [
        (begin(), "begin"),
        (commit(), "commit"),
        (update_of(1, row(1), None), "update"),
        (delete_of(1, row(1)), "delete"),
        (compensation_of(1, row(1)), "compensation"),
        (gone(1), "gone"),
        (migrate(), "migrate"),
        (additional_begin(2), "additional_begin"),
    ] {
        additional().ends_at(log([op]), inside(what));
    }
    additional().ends_at(data_begin("s"), inside("SatSubsDataBegin"));
    additional().ends_at(data_end(), inside("SatSubsDataEnd"));
    let other = StreamError::OtherReference { began: 2, reference: 3 };
    additional().ends_at(log([additional_commit(3)]), other);
    additional().takes([log([insert(2), additional_commit(2)])]);
    let nothing = StreamError::NothingToEnd { what: "additional_commit" };
    receiving().ends_at(log([additional_commit(2)]), nothing);
}

#[test]
fn a_limited_number_of_additional_data_is_announced_at_a_time() {
    let mut client = receiving();
    let announce = |reference| [announcing(reference), commit()];
    client.takes([log((1..=u64::from(LIMIT)).flat_map(announce))]);
    // One comes, so there is room for one; and known ones take none.
    client.takes([log([additional_begin(7), additional_commit(7)])]);
    client.takes([log([announce(7), announce(7)].concat())]);
    client.ends_at(log(announce(u64::from(LIMIT) + 1)), StreamError::TooManyAnnounced);
}

// ---- Subscriptions ----

#[test]
fn the_data_of_a_subscription_comes_after_the_answer_to_its_call() {
    let unknown = StreamError::UnknownSubscription { what: "SatSubsDataBegin" };
    receiving().ends_at(data_begin("s"), unknown);

    let mut client = receiving();
    client.calls(shaped("s", &[]));
    client.ends_at(data_begin("s"), unknown);

    let mut client = receiving();
    let call = client.calls(shaped("s", &[]));
    let err = Some(sat_subs_resp::SatSubsError::default());
    let refused = SatSubsResp { subscription_id: "s".into(), err };
    client.hears(reply(call.request_id, refused));
    client.ends_at(data_begin("s"), unknown);

    let mut client = receiving();
    client.subscribed("s", &[]);
    client.takes([data_begin("s"), data_end()]);
    // Once.
    client.ends_at(data_begin("s"), StreamError::RepeatedSubscription);

    // Subscribed before the start, and by a call whose answer nobody waits for.
    let mut client = ready(Version::V0_12);
    client.subscribed("early", &[]);
    let call = client.calls(shaped("forgotten", &[]));
    client.session.forget(call);
    client.hears(reply(call.request_id, subscribed("forgotten")));
    let call = client.calls(start());
    client.hears(reply(call.request_id, started()));
    client.takes([data_begin("forgotten"), data_end(), data_begin("early"), data_end()]);
}

#[test]
fn an_answer_grants_what_its_own_call_asked_for() {
    let mut client = receiving();
    let [call, other] = ["a", "b"].map(|id| client.calls(shaped(id, &[])));
    client.hears(reply(other.request_id, subscribed("b")));
    client.takes([data_begin("b"), data_end()]);
    client.hears(reply(call.request_id, subscribed("a")));
    client.takes([data_begin("a"), data_end()]);
}

#[test]
fn a_refused_call_for_a_subscription_that_there_is_takes_nothing_away() {
    let mut client = receiving();
    client.subscribed("s", &["a"]);
    let call = client.calls(shaped("s", &["b"]));
    let err = Some(sat_subs_resp::SatSubsError::default());
    client.hears(reply(call.request_id, SatSubsResp { subscription_id: "s".into(), err }));
    client.takes([data_begin("s"), shape_begin("a"), shape_end(), data_end()]);
}

#[test]
fn of_a_subscription_that_is_resumed_no_shapes_are_known() {
    let mut client = started_with(Version::V0_12, resume(&["s"]), None);
    client.takes([data_begin("s"), shape_begin("x"), shape_end(), data_end()]);
    client.ends_at(data_begin("s"), StreamError::RepeatedSubscription);
    // Resuming one that is known changes nothing.
    let mut client = receiving();
    client.subscribed("s", &["a"]);
    let call = client.calls(resume(&["s"]));
    client.hears(reply(call.request_id, started()));
    client.takes([data_begin("s")]);
    client.ends_at(shape_begin("x"), StreamError::UnknownShape);
}

/// A client with two subscriptions, one of which is being delivered.
pub(crate) fn delivering() -> Client {
    let mut client = receiving();
    client.subscribed("s", &["a", "b"]);
    client.subscribed("t", &["c"]);
    client.unsubscribed(&["u"]);
    client.takes([data_begin("s")]);
    client
}

#[test]
fn the_data_of_a_subscription_is_that_of_all_its_shapes_each_once_and_in_any_order() {
    // The originals since 0.10 send one shape with all rows, and the others without a SatOpLog.
    let rows = || Message::from(log([insert(1), insert(2)]));
    let mut client = delivering();
    client.takes([shape_begin("b"), shape_end(), shape_begin("a"), rows(), rows(), shape_end()]);
    client.takes([data_end(), data_begin("t")]);

    delivering().ends_at(shape_begin("c"), StreamError::UnknownShape);
    let mut client = delivering();
    client.takes([shape_begin("a"), shape_end()]);
    client.ends_at(shape_begin("a"), StreamError::UnknownShape);
    delivering().ends_at(data_end(), StreamError::MissingShapes { missing: 2 });
    let mut client = delivering();
    client.takes([shape_begin("a"), shape_end()]);
    client.ends_at(data_end(), StreamError::MissingShapes { missing: 1 });
}

#[test]
fn between_the_shapes_of_a_subscription_nothing_else_comes() {
    let between = |what| StreamError::InsideSubscription { what };
    delivering().ends_at(log([insert(1)]), between("insert"));
    delivering().ends_at(log([begin()]), between("begin"));
    delivering().ends_at(log([additional_begin(1)]), between("additional_begin"));
    delivering().ends_at(data_begin("t"), between("SatSubsDataBegin"));
    delivering().ends_at(shape_end(), between("SatShapeDataEnd"));
    delivering().ends_at(unsubs_begin(&["u"]), between("SatUnsubsDataBegin"));
    delivering().ends_at(unsubs_end(), between("SatUnsubsDataEnd"));
}

#[test]
fn inside_a_shape_nothing_but_inserts_comes() {
    let inside = |what| StreamError::InsideShape { what };
    let in_shape = || {
        let mut client = delivering();
        client.takes([shape_begin("a"), log([insert(1)]).into()]);
        client
    };
    for (op, what) in [
        (begin(), "begin"),
        (commit(), "commit"),
        (update_of(1, row(1), None), "update"),
        (delete_of(1, row(1)), "delete"),
        (compensation_of(1, row(1)), "compensation"),
        (gone(1), "gone"),
        (migrate(), "migrate"),
        (additional_begin(2), "additional_begin"),
        (additional_commit(2), "additional_commit"),
    ] {
        in_shape().ends_at(log([insert(2), op]), inside(what));
    }
    in_shape().ends_at(shape_begin("b"), inside("SatShapeDataBegin"));
    in_shape().ends_at(data_begin("t"), inside("SatSubsDataBegin"));
    in_shape().ends_at(data_end(), inside("SatSubsDataEnd"));
    in_shape().ends_at(unsubs_begin(&["u"]), inside("SatUnsubsDataBegin"));
    in_shape().ends_at(unsubs_end(), inside("SatUnsubsDataEnd"));
    in_shape().takes([shape_end()]);
}

#[test]
fn shapes_and_ends_are_part_of_what_has_begun() {
    let nothing = |what| StreamError::NothingToEnd { what };
    let mut client = receiving();
    client.subscribed("s", &["a"]);
    client.ends_at(shape_begin("a"), StreamError::ShapeOutside);
    receiving().ends_at(shape_end(), nothing("SatShapeDataEnd"));
    receiving().ends_at(data_end(), nothing("SatSubsDataEnd"));
    receiving().ends_at(unsubs_end(), nothing("SatUnsubsDataEnd"));
}

#[test]
fn an_error_comes_instead_of_data_and_ends_the_subscription() {
    let unknown = |what| StreamError::UnknownSubscription { what };
    receiving().ends_at(data_error("s"), unknown("SatSubsDataError"));
    // Even before the stream is started, where the data is prepared.
    let mut client = ready(Version::V0_12);
    client.subscribed("s", &[]);
    client.takes([data_error("s")]);
    client.ends_at(data_error("s"), unknown("SatSubsDataError"));

    let mut client = delivering();
    client.takes([data_error("t"), shape_begin("a")]);
    // This one has begun, and ends with it.
    client.takes([data_error("s"), log([begin(), commit()]).into()]);
    client.ends_at(data_begin("t"), unknown("SatSubsDataBegin"));

    // On its way when it was given up.
    let mut client = receiving();
    client.subscribed("s", &[]);
    client.unsubscribed(&["s"]);
    client.takes([data_error("s")]);
}

#[test]
fn data_that_is_on_its_way_when_its_subscription_is_given_up_comes_to_its_end() {
    let mut client = delivering();
    let call = client.calls(unsubscribe(&["s", "t"]));
    client.takes([shape_begin("a"), shape_end()]);
    client.hears(reply(call.request_id, SatUnsubsResp {}));
    client.takes([shape_begin("b"), shape_end(), data_end()]);
    client.takes([unsubs_begin(&["s", "t"]), log([gone(1)]).into(), unsubs_end()]);
    client.ends_at(data_begin("t"), StreamError::UnknownSubscription { what: "SatSubsDataBegin" });
}

#[test]
fn rows_leave_with_subscriptions_that_were_given_up() {
    receiving().ends_at(unsubs_begin(&["s"]), StreamError::NotUnsubscribed);
    let mut client = receiving();
    client.subscribed("s", &[]);
    client.ends_at(unsubs_begin(&["s"]), StreamError::NotUnsubscribed);
    // Not before the answer.
    let mut client = receiving();
    client.calls(unsubscribe(&["s"]));
    client.ends_at(unsubs_begin(&["s"]), StreamError::NotUnsubscribed);

    let given_up = || {
        let mut client = receiving();
        client.unsubscribed(&["s", "t"]);
        client.unsubscribed(&["v"]);
        client
    };
    given_up().ends_at(unsubs_begin(&[]), StreamError::NotUnsubscribed);
    given_up().ends_at(unsubs_begin(&["s", "v"]), StreamError::NotUnsubscribed);
    given_up().ends_at(unsubs_begin(&["s", "t", "s"]), StreamError::NotUnsubscribed);
    let mut client = given_up();
    client.takes([unsubs_begin(&["v"]), unsubs_end(), unsubs_begin(&["s", "t"]), unsubs_end()]);
    client.ends_at(unsubs_begin(&["s"]), StreamError::NotUnsubscribed);
}

#[test]
fn of_what_was_given_up_the_latest_is_remembered() {
    let ids: Vec<String> = (0..257).map(|number| format!("s{number}")).collect();
    let given_up = || {
        let mut client = receiving();
        ids.iter().for_each(|id| client.unsubscribed(&[id]));
        client
    };
    given_up().takes(ids[1..].iter().flat_map(|id| [unsubs_begin(&[id]), unsubs_end()]));
    given_up().ends_at(unsubs_begin(&[&ids[0]]), StreamError::NotUnsubscribed);
}

#[test]
fn rows_leave_again_where_an_earlier_connection_did_not_see_it() {
    let resumed = || started_with(Version::V0_12, resume(&["s"]), None);
    resumed().takes([unsubs_begin(&["t"]), unsubs_end()]);
    resumed().ends_at(unsubs_begin(&["s"]), StreamError::NotUnsubscribed);
    resumed().ends_at(unsubs_begin(&[]), StreamError::NotUnsubscribed);
}

#[test]
fn an_unsubscriptions_data_is_gone_rows() {
    let inside = |what| StreamError::InsideUnsubscription { what };
    let leaving = || {
        let mut client = receiving();
        client.subscribed("s", &["a"]);
        client.unsubscribed(&["u"]);
        client.takes([unsubs_begin(&["u"]), log([gone(1)]).into()]);
        client
    };
    for (op, what) in [
        (begin(), "begin"),
        (commit(), "commit"),
        (insert(1), "insert"),
        (delete_of(1, row(1)), "delete"),
        (migrate(), "migrate"),
        (additional_begin(1), "additional_begin"),
    ] {
        leaving().ends_at(log([op]), inside(what));
    }
    leaving().ends_at(data_begin("s"), inside("SatSubsDataBegin"));
    leaving().ends_at(unsubs_begin(&["u"]), inside("SatUnsubsDataBegin"));
    leaving().ends_at(data_end(), inside("SatSubsDataEnd"));
    leaving().takes([log([gone(2)]).into(), unsubs_end(), log([begin()]).into()]);
}

// ---- Acknowledgements ----

fn not_received(transaction_id: u64) -> SendError {
    SendError::NotReceived { transaction_id }
}

#[test]
fn a_client_acknowledges_what_it_has_received_whole_and_once() {
    for version in [Version::V0_10, Version::new(0, 11), Version::V0_12] {
        let mut client = started_with(version, start(), None);
        client.refuses_to_send(ack(1), not_received(1));
        client.takes([log([begin_of(1)])]);
        client.refuses_to_send(ack(1), not_received(1));
        client.takes([log([commit()])]);
        client.sends(ack(1));
        client.refuses_to_send(ack(1), not_received(1));
    }
}

#[test]
fn an_acknowledgement_is_of_everything_up_to_it() {
    let mut client = started_with(Version::V0_12, start(), None);
    // The numbers do not grow steadily.
    client.takes([7, 3, 9, 5].map(transaction));
    client.sends(ack(9));
    for transaction_id in [7, 3, 9] {
        client.refuses_to_send(ack(transaction_id), not_received(transaction_id));
    }
    client.sends(ack(5));
}

#[test]
fn an_acknowledgement_of_nothing_changes_nothing() {
    let mut client = started_with(Version::V0_12, start(), Some(2));
    client.takes([transaction(1)]);
    client.sends(ack(0));
    assert_eq!(client.session.window(), Some(Window { size: 2, unacknowledged: 1 }));
    client.sends(ack(1));
}

#[test]
fn a_window_tells_how_many_transactions_are_not_acknowledged() {
    let mut client = ready(Version::V0_12);
    assert_eq!(client.session.window(), None);
    let call = client.calls(start());
    let answer = SatInStartReplicationResp { err: None, unacked_window_size: Some(30) };
    client.hears(reply(call.request_id, answer));
    let window = |unacknowledged| Some(Window { size: 30, unacknowledged });
    assert_eq!(client.session.window(), window(0));
    client.takes([transaction(1), transaction(2)]);
    // What has no number cannot be acknowledged, and what is not whole is not counted yet.
    client.takes([log([begin(), commit(), begin_of(3)])]);
    assert_eq!(client.session.window(), window(2));
    client.sends(ack(1));
    assert_eq!(client.session.window(), window(1));

    // None is announced, or none can be.
    for (version, size) in
        [(Version::V0_12, None), (Version::V0_12, Some(0)), (Version::V0_9, Some(30))]
    {
        let mut client = started_with(version, start(), size);
        client.takes((1..100).map(transaction));
        assert_eq!(client.session.window(), None);
    }
}

#[test]
fn a_server_waits_when_the_window_is_full() {
    let full = || {
        let mut client = started_with(Version::V0_12, start(), Some(2));
        client.takes([transaction(1), transaction(2)]);
        assert_eq!(client.session.window(), Some(Window { size: 2, unacknowledged: 2 }));
        client
    };
    full().ends_at(log([begin_of(3)]), StreamError::WindowExceeded { size: 2 });
    let mut client = full();
    // What is no transaction does not wait.
    client.subscribed("s", &[]);
    client.takes([table(1, 1).into(), data_begin("s"), data_end()]);
    client.sends(ack(1));
    client.takes([transaction(3)]);
    client.ends_at(transaction(4), StreamError::WindowExceeded { size: 2 });
}

#[test]
fn without_a_window_the_latest_transactions_are_remembered() {
    let mut client = started_with(Version::V0_12, start(), None);
    let whole = |id| [begin_of(id), commit()];
    client.takes([log((1..=u64::from(LIMIT) + 1).flat_map(whole))]);
    client.refuses_to_send(ack(1), not_received(1));
    client.sends(ack(2));
    client.sends(ack(u64::from(LIMIT) + 1));
}
