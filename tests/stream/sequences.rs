//! Every sequence of messages, and every stream that keeps the rules but for one fault.

use electric_satellite::{
    session::{Cause, SendError, Session, StreamError, Violation},
    wire::{Message, proto::*},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use sat_trans_op::Op;

use crate::{common::*, faults::*, server::delivering, streams::*, *};

proptest! {
    #[test]
    fn whatever_a_server_sends_is_taken_or_ends_it_with_a_rule(
        messages in vec(any_message(), 1..40),
    ) {
        let mut client = delivering();
        for message in messages {
            let seen = client.hears(message.clone());
            if seen != [got(message)] {
                let [Seen::End(end)] = &seen[..] else { panic!("{seen:?}") };
                prop_assert!(matches!(end.cause, Cause::Violation(Violation::Stream(_))));
                client.is_silent_for_ever();
                break;
            }
        }
    }

    #[test]
    fn whatever_a_client_sends_is_judged_alike_by_both_ends(
        messages in vec(any_message(), 1..40),
    ) {
        let (mut client, mut server) = (sending(), listening());
        server.hears(table(1, 1));
        server.hears(table(2, 2));
        let of_client = |message: &Message| {
            matches!(message, Message::OpLog(_) | Message::Relation(_))
        };
        for message in messages.into_iter().filter(of_client) {
            match client.session.send(message.clone()) {
                Ok(()) => prop_assert_eq!(server.hears(message.clone()), [got(message)]),
                Err(SendError::Stream(error)) => {
                    let end = Some(broken(Violation::Stream(error)));
                    prop_assert_eq!(server.hears(message).pop(), end);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_servers_stream_that_keeps_the_rules_is_taken_however_it_is_cut(
        parts in vec(part(), 0..16),
        cuts in cuts(),
    ) {
        let mut client = expecting();
        for message in cut(&stream_of_server(&parts), &cuts) {
            prop_assert_eq!(client.hears(message.clone()), [got(message)]);
        }
    }

    #[test]
    fn a_servers_stream_with_one_fault_is_refused_for_that(
        parts in vec(part(), 1..16),
        cuts in cuts(),
        fault in select(FAULTS_OF_SERVERS),
        at in any::<Index>(),
    ) {
        if let Some((stream, error)) = fault.put_into(&stream_of_server(&parts), at) {
            let mut client = expecting();
            let mut messages = cut(&stream, &cuts).into_iter();
            let refused = messages.find_map(|message| {
                let seen = client.hears(message.clone());
                (seen != [got(message)]).then_some(seen)
            });
            prop_assert_eq!(refused, Some(vec![broken(Violation::Stream(error))]));
        }
    }

    #[test]
    fn a_clients_stream_that_keeps_the_rules_is_sent_and_taken_however_it_is_cut(
        transactions in vec(vec(change(), 1..5), 0..12),
        cuts in cuts(),
    ) {
        let (mut client, mut server) = (sending(), listening());
        for message in cut(&stream_of_client(&transactions), &cuts) {
            client.sends(message.clone());
            prop_assert_eq!(server.hears(message.clone()), [got(message)]);
        }
    }

    #[test]
    fn a_clients_stream_with_one_fault_is_refused_for_that(
        transactions in vec(vec(change(), 1..5), 1..12),
        cuts in cuts(),
        fault in select(FAULTS_OF_CLIENTS),
        at in any::<Index>(),
    ) {
        if let Some((stream, error)) = fault.put_into(&stream_of_client(&transactions), at) {
            let mut client = sending();
            let mut messages = cut(&stream, &cuts).into_iter();
            let refused = messages.find_map(|message| client.session.send(message).err());
            prop_assert_eq!(refused, Some(SendError::Stream(error)));
        }
    }

    #[test]
    fn what_is_not_sent_leaves_no_trace(
        transactions in vec(vec(change(), 1..5), 1..12),
        cuts in cuts(),
    ) {
        let mut client = sending();
        for message in cut(&stream_of_client(&transactions), &cuts) {
            // The same, and then what a client may not send.
            if let Message::OpLog(good) = &message {
                let ops = good.ops.iter().cloned().chain(log([migrate()]).ops).collect();
                let error = StreamError::NotForClients { what: "migrate" };
                client.refuses_to_send(SatOpLog { ops }, SendError::Stream(error));
            }
            client.sends(message);
        }
    }
}

#[test]
fn every_fault_is_one() {
    let change = |kind| Change { kind, relation: 2, seed: 1 };
    let changes = || (0..5).map(change).collect::<Vec<_>>();
    let parts = [
        Part::Data { subscription: 0, shapes: [vec![], changes()] },
        Part::Leave { subscription: 0, changes: changes() },
        Part::Transaction { changes: changes(), announces: true },
        Part::Additional { changes: changes() },
        Part::Transaction { changes: changes(), announces: false },
    ];
    let server = stream_of_server(&parts);
    let client = stream_of_client(&[changes(), changes()]);
    for (faults, stream) in [(FAULTS_OF_SERVERS, server), (FAULTS_OF_CLIENTS, client)] {
        for fault in faults {
            assert!(!fault.places(&stream).is_empty(), "{fault:?} is nowhere");
        }
    }
}

/// Something that may be in a stream, in its place or not.
fn any_message() -> impl Strategy<Value = Message> {
    let ids = || select(vec!["s", "t", "u", "a", "b", "c"]);
    let tables = (1..4_u32, 0..3_usize);
    prop_oneof![
        8 => vec(any_op(), 0..4).prop_map(|ops| log(ops).into()),
        1 => tables.prop_map(|(relation_id, columns)| table(relation_id, columns).into()),
        2 => ids().prop_map(data_begin),
        2 => Just(data_end()),
        1 => ids().prop_map(data_error),
        4 => ids().prop_map(shape_begin),
        4 => Just(shape_end()),
        1 => ids().prop_map(|id| unsubs_begin(&[id])),
        1 => Just(unsubs_end()),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let rows = prop::option::weighted(0.9, 0..3_usize).prop_map(|columns| columns.and_then(row));
    let changes = (1..4_u32, rows, 0..5_usize).prop_map(|(relation_id, row, kind)| match kind {
        4 => gone_of(relation_id, row),
        kind => changes(relation_id, &row)[kind].clone(),
    });
    prop_oneof![
        6 => changes,
        4 => (0..3_u64).prop_map(announcing),
        4 => Just(commit()),
        1 => Just(migrate()),
        1 => (0..3_u64).prop_map(additional_begin),
        1 => (0..3_u64).prop_map(additional_commit),
    ]
}
