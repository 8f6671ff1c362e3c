//! What a client keeps of the service's stream, tells the service about it, and acknowledges.

mod common;

use std::time::Duration;

use common::{
    net::{Raw, calm, client},
    *,
};
use electric_satellite::{
    client::{Resume, StartError},
    session::{AuthenticatedServer, SendError},
    transport::{Connection, Event},
    wire::{Message, Request, Version, proto::*},
};
use futures_util::FutureExt;
use proptest::prelude::*;
use sat_in_start_replication_req::Dialect;
use sat_in_start_replication_resp::{ReplicationError, replication_error::Code};
use sat_trans_op::Op;
use tokio::io::{DuplexStream, duplex};

const MINUTE: Duration = Duration::from_secs(60);

const V0_11: Version = Version::new(0, 11);

// ---- What a server sends ----

fn log(ops: impl IntoIterator<Item = Op>) -> Message {
    SatOpLog { ops: ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect() }.into()
}

/// A transaction with this id, which is its position too, and announces this additional data.
fn begin(id: u64, additional_data_ref: u64) -> Op {
    let lsn = id.to_string().into();
    let transaction_id = Some(id);
    Op::Begin(SatOpBegin { lsn, transaction_id, additional_data_ref, ..Default::default() })
}

fn commit(id: u64, additional_data_ref: u64) -> Op {
    let (lsn, transaction_id) = (id.to_string().into(), Some(id));
    Op::Commit(SatOpCommit { lsn, transaction_id, additional_data_ref, ..Default::default() })
}

fn transaction(id: u64) -> Message {
    log([begin(id, 0), commit(id, 0)])
}

fn announcing(id: u64, reference: u64) -> Message {
    log([begin(id, reference), commit(id, reference)])
}

fn additional(reference: u64) -> Message {
    let begin = SatOpAdditionalBegin { r#ref: reference };
    let commit = SatOpAdditionalCommit { r#ref: reference };
    log([Op::AdditionalBegin(begin), Op::AdditionalCommit(commit)])
}

fn migration(version: &str) -> Op {
    Op::Migrate(SatOpMigrate { version: version.into(), ..Default::default() })
}

/// The data of a subscription, from this position.
fn data(id: &str, lsn: &str) -> [Message; 2] {
    let (subscription_id, lsn) = (id.into(), lsn.to_owned().into());
    [SatSubsDataBegin { subscription_id, lsn }.into(), SatSubsDataEnd {}.into()]
}

/// The rows that leave with subscriptions.
fn gone(ids: &[&str]) -> [Message; 2] {
    let subscription_ids = ids.iter().map(|&id| id.into()).collect();
    let begin = SatUnsubsDataBegin { subscription_ids, lsn: "0".into() };
    [begin.into(), SatUnsubsDataEnd {}.into()]
}

/// All of that is stored.
fn stored(resume: &mut Resume, messages: impl IntoIterator<Item = Message>) {
    messages.into_iter().for_each(|message| resume.stored(&message));
}

// ---- What is kept ----

#[test]
fn the_position_moves_with_a_commit_and_not_before() {
    let mut resume = Resume::default();
    stored(&mut resume, [log([begin(7, 0)]), log([])]);
    assert_eq!(resume.position, "");
    stored(&mut resume, [log([commit(7, 0), begin(3, 0)])]);
    assert_eq!(resume.position, "7");
    // Several in one message; and ids that are no order.
    stored(&mut resume, [log([commit(3, 0), begin(12, 0), commit(12, 0), begin(5, 0)])]);
    assert_eq!(resume.position, "12");
    // What does not move it may be passed.
    stored(&mut resume, [relation(1).into(), call(1, start())]);
    assert_eq!(resume.position, "12");
    // A commit of nothing is none.
    stored(&mut resume, [log([commit(5, 0), commit(99, 0)])]);
    assert_eq!(resume.position, "5");
    // A commit need not repeat what its begin says.
    stored(&mut resume, [log([begin(13, 1), Op::Commit(SatOpCommit::default())]), additional(1)]);
    assert_eq!(
        (&resume.position[..], &resume.observed_transaction_data[..]),
        (&b"13"[..], &[13][..])
    );
}

#[test]
fn a_migration_counts_when_its_transaction_is_committed() {
    let mut resume = Resume::default();
    stored(&mut resume, [log([begin(1, 0), migration("2024"), migration("2024")])]);
    assert_eq!(resume.schema_version, None);
    stored(&mut resume, [log([commit(1, 0)])]);
    assert_eq!(resume.schema_version.as_deref(), Some("2024"));
    stored(&mut resume, [transaction(2)]);
    assert_eq!(resume.schema_version.as_deref(), Some("2024"));
    // One that was cut off by the end of its connection does not count into another.
    stored(&mut resume, [log([begin(3, 0), migration("2025")]), transaction(4)]);
    assert_eq!(resume.schema_version.as_deref(), Some("2024"));
}

#[test]
fn subscriptions_count_when_all_their_data_is_stored_until_they_end() {
    let mut resume = Resume::default();
    let [begin, end] = data("a", "5");
    resume.stored(&begin);
    assert_eq!(resume, {
        let mut fresh = Resume::default();
        fresh.stored(&begin);
        fresh
    });
    assert!(resume.subscriptions.is_empty());
    resume.stored(&end);
    // Data has a position of its own.
    assert_eq!((&resume.position[..], &resume.subscriptions[..]), (&b"5"[..], &["a".into()][..]));
    stored(&mut resume, data("b", "9").into_iter().chain(data("b", "9")));
    assert_eq!((&resume.position[..], resume.subscriptions.len()), (&b"9"[..], 2));

    let error = SatSubsDataError { subscription_id: "a".into(), ..Default::default() };
    stored(&mut resume, [error.into()]);
    assert_eq!(resume.subscriptions, ["b"]);
    resume.unsubscribed(&["b".into(), "c".into()]);
    assert!(resume.subscriptions.is_empty());
}

#[test]
fn data_that_fails_half_way_is_no_data() {
    let mut resume = Resume::default();
    let [begin, end] = data("a", "5");
    let error = SatSubsDataError { subscription_id: "a".into(), ..Default::default() };
    stored(&mut resume, [begin, error.into(), end]);
    assert_eq!(resume, Resume::default());
}

#[test]
fn additional_data_is_named_by_its_transactions_and_until_the_next_one() {
    let mut resume = Resume::default();
    // Two transactions may share it, and others may come before it.
    stored(&mut resume, [announcing(7, 1), announcing(8, 1), announcing(9, 2), transaction(10)]);
    assert!(resume.observed_transaction_data.is_empty());
    stored(&mut resume, [additional(1)]);
    assert_eq!(resume.observed_transaction_data, [7, 8]);
    stored(&mut resume, [additional(3)]);
    assert_eq!(resume.observed_transaction_data, [7, 8]);
    stored(&mut resume, [additional(2)]);
    assert_eq!(resume.observed_transaction_data, [7, 8, 9]);
    stored(&mut resume, [transaction(11), additional(1)]);
    assert!(resume.observed_transaction_data.is_empty());
}

#[test]
fn rows_that_have_left_are_named_until_the_next_transaction() {
    let mut resume = Resume::default();
    stored(&mut resume, data("a", "5").into_iter().chain(data("b", "5")));
    let [begin, end] = gone(&["a", "z"]);
    resume.stored(&begin);
    assert!(resume.observed_gone_batch.is_empty());
    resume.stored(&end);
    assert_eq!(resume.observed_gone_batch, ["a", "z"]);
    assert_eq!(resume.subscriptions, ["b"]);
    stored(&mut resume, [transaction(7)]);
    assert!(resume.observed_gone_batch.is_empty());
}

/// With something in everything that lasts.
fn full() -> Resume {
    let mut resume = Resume::default();
    resume.postgres = true;
    let migrates = log([begin(1, 9), migration("2024"), commit(1, 9)]);
    stored(&mut resume, [migrates, additional(9)]);
    stored(&mut resume, data("a", "").into_iter().chain(data("b", "")).chain(gone(&["b"])));
    resume
}

#[test]
fn a_reset_keeps_the_schema_and_nothing_else() {
    let mut resume = full();
    resume.reset();
    let mut expected = Resume::default();
    expected.postgres = true;
    expected.schema_version = Some("2024".into());
    assert_eq!(resume, expected);
}

#[test]
fn what_is_kept_survives_being_written_down() {
    let text = serde_json::to_string(&full()).unwrap();
    let back: Resume = serde_json::from_str(&text).unwrap();
    // But for what belongs to the connection.
    assert_eq!(
        serde_json::to_value(&back).unwrap(),
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    );
    assert_eq!(back.position, "1");
    assert_eq!(
        (&back.subscriptions[..], &back.observed_gone_batch[..]),
        (&["a".into()][..], &["b".into()][..])
    );
    assert_eq!((back.observed_transaction_data.as_slice(), back.postgres), (&[1][..], true));
    // What is not there is as at the beginning, and what a later version adds is no trouble.
    assert_eq!(serde_json::from_str::<Resume>(r#"{ "later": 1 }"#).unwrap(), Resume::default());
    for bad in [r#"{ "position": 5 }"#, r#"{ "position": "?" }"#, r#"{ "position": "YQ" }"#] {
        assert!(serde_json::from_str::<Resume>(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_position_survives_being_written_down(position: Vec<u8>) {
        let mut resume = Resume::default();
        resume.position = position.into();
        let text = serde_json::to_string(&resume).unwrap();
        prop_assert_eq!(serde_json::from_str::<Resume>(&text).unwrap(), resume);
    }
}

// ---- What the service is told ----

/// A client, and the server that it is connected to.
struct Pair {
    client: Connection<AuthenticatedServer>,
    server: Raw<DuplexStream>,
}

impl Pair {
    async fn new(version: Version, pipe: usize) -> Pair {
        let (near, far) = duplex(pipe);
        let connector = client(calm()).with_version(version);
        let connecting = async {
            let upgraded = connector.upgrade(near).await.unwrap();
            upgraded.authenticate(&id("client-1"), token("token-1")).await.unwrap()
        };
        let accepting = async {
            let mut server = Raw::accepted(far).await;
            server.hears().await;
            server.says(reply(1, SatAuthResp::default())).await;
            server
        };
        let (client, server) = tokio::join!(connecting, accepting);
        Pair { client, server }
    }

    /// The client starts from there. What it has told the server.
    async fn starts(&mut self, resume: &mut Resume) -> SatInStartReplicationReq {
        let answering = async {
            let Message::Request(envelope) = self.server.hears().await else { panic!("no call") };
            let request_id = envelope.request_id;
            let Ok(Request::StartReplication(request)) = Request::decode(envelope) else {
                panic!("another call")
            };
            self.server.says(reply(request_id, started())).await;
            request
        };
        let (started, request) =
            tokio::join!(self.client.start_replication(resume, MINUTE), answering);
        started.unwrap();
        request
    }

    /// The server sends these, and the client stores them.
    async fn stores(&mut self, resume: &mut Resume, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            self.server.says(message.clone()).await;
            let Some(Event::Message(received)) = self.client.recv().await else { panic!("an end") };
            assert_eq!(received, message);
            resume.stored(&received);
        }
    }

    /// The client acknowledges. What it says, if it does; the time aside.
    async fn acknowledges(&mut self, resume: &mut Resume) -> Option<SatOpLogAck> {
        if !self.client.acknowledge(resume).await.unwrap() {
            return None;
        }
        let Message::OpLogAck(ack) = self.server.hears().await else { panic!("something else") };
        assert_ne!(ack.ack_timestamp, 0);
        Some(SatOpLogAck { ack_timestamp: 0, ..ack })
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_is_told_the_schema_by_a_client_that_has_nothing_else() {
    let mut pair = Pair::new(Version::V0_12, 4096).await;
    let mut resume = Resume::default();
    assert_eq!(pair.starts(&mut resume).await, SatInStartReplicationReq::default());

    let mut pair = Pair::new(Version::V0_12, 4096).await;
    let mut resume = full();
    resume.reset();
    let expected = SatInStartReplicationReq {
        schema_version: Some("2024".into()),
        sql_dialect: Some(Dialect::Postgres.into()),
        ..Default::default()
    };
    assert_eq!(pair.starts(&mut resume).await, expected);
}

#[tokio::test(start_paused = true)]
async fn the_service_is_told_everything_by_a_client_that_has_a_position() {
    let mut pair = Pair::new(Version::V0_12, 4096).await;
    let expected = SatInStartReplicationReq {
        lsn: "1".into(),
        subscription_ids: vec!["a".into()],
        observed_transaction_data: vec![1],
        observed_gone_batch: vec!["b".into()],
        sql_dialect: Some(Dialect::Postgres.into()),
        ..Default::default()
    };
    assert_eq!(pair.starts(&mut full()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_changes_nothing_that_lasts() {
    let mut pair = Pair::new(Version::V0_12, 4096).await;
    let mut resume = full();
    let before = serde_json::to_string(&resume).unwrap();
    let refusing = async {
        pair.server.hears().await;
        let err =
            Some(ReplicationError { code: Code::BehindWindow.into(), message: "too old".into() });
        pair.server.says(reply(2, SatInStartReplicationResp { err, ..started() })).await;
    };
    let (refused, ()) = tokio::join!(pair.client.start_replication(&mut resume, MINUTE), refusing);
    let (code, message) = (Code::BehindWindow, "too old".into());
    assert_eq!(refused, Err(StartError::Refused { code, message }));
    assert_eq!(serde_json::to_string(&resume).unwrap(), before);
}

// ---- Acknowledgements ----

/// The acknowledgement of a transaction, or of none.
fn ack(position: &str, transaction_id: u64) -> SatOpLogAck {
    SatOpLogAck { lsn: position.to_owned().into(), transaction_id, ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_acknowledged_once() {
    let mut pair = Pair::new(Version::V0_12, 4096).await;
    let mut resume = Resume::default();
    pair.starts(&mut resume).await;
    assert_eq!(pair.acknowledges(&mut resume).await, None);
    pair.stores(&mut resume, [log([begin(7, 0)])]).await;
    assert_eq!(pair.acknowledges(&mut resume).await, None);
    pair.stores(&mut resume, [log([commit(7, 0)]), transaction(3)]).await;
    assert_eq!(pair.acknowledges(&mut resume).await, Some(ack("3", 3)));
    assert_eq!(pair.acknowledges(&mut resume).await, None);
    pair.stores(&mut resume, [relation(1).into()]).await;
    assert_eq!(pair.acknowledges(&mut resume).await, None);
    pair.stores(&mut resume, [transaction(4)]).await;
    assert_eq!(pair.acknowledges(&mut resume).await, Some(ack("4", 4)));
}

#[tokio::test(start_paused = true)]
async fn what_follows_an_acknowledged_transaction_is_acknowledged_by_none_from_0_12_on() {
    for version in [Version::V0_10, V0_11, Version::V0_12] {
        let mut pair = Pair::new(version, 4096).await;
        let mut resume = Resume::default();
        pair.starts(&mut resume).await;
        pair.stores(&mut resume, [announcing(7, 1)]).await;
        assert_eq!(pair.acknowledges(&mut resume).await, Some(ack("7", 7)));
        pair.stores(&mut resume, [additional(1)]).await;
        let again = SatOpLogAck { additional_data_source_ids: vec![7], ..ack("7", 0) };
        let again = (version >= Version::V0_12).then_some(again);
        assert_eq!(pair.acknowledges(&mut resume).await, again, "{version}");
        assert_eq!(pair.acknowledges(&mut resume).await, None);
        // It is not told that again with the next one.
        pair.stores(&mut resume, [transaction(8)]).await;
        assert_eq!(pair.acknowledges(&mut resume).await, Some(ack("8", 8)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_transaction_that_is_not_acknowledged_is_acknowledged_with_it() {
    let mut pair = Pair::new(Version::V0_12, 4096).await;
    let mut resume = Resume::default();
    pair.starts(&mut resume).await;
    pair.stores(&mut resume, [announcing(7, 1), additional(1)]).await;
    let expected = SatOpLogAck { additional_data_source_ids: vec![7], ..ack("7", 7) };
    assert_eq!(pair.acknowledges(&mut resume).await, Some(expected));
}

#[tokio::test(start_paused = true)]
async fn transactions_of_an_earlier_connection_are_not_acknowledged() {
    for version in [Version::V0_10, V0_11, Version::V0_12] {
        let mut resume = Resume::default();
        let mut pair = Pair::new(version, 4096).await;
        pair.starts(&mut resume).await;
        pair.stores(&mut resume, [transaction(7)]).await;

        let mut pair = Pair::new(version, 4096).await;
        pair.starts(&mut resume).await;
        // How far the client has come, the service was told by the start.
        assert_eq!(pair.acknowledges(&mut resume).await, None, "{version}");
        pair.stores(&mut resume, [transaction(8)]).await;
        assert_eq!(pair.acknowledges(&mut resume).await, Some(ack("8", 8)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_know_acknowledgements_gets_none() {
    for version in [Version::V0_6, Version::V0_9] {
        let mut pair = Pair::new(version, 4096).await;
        let mut resume = Resume::default();
        pair.starts(&mut resume).await;
        pair.stores(&mut resume, [transaction(7)]).await;
        assert_eq!(pair.acknowledges(&mut resume).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_was_not_sent_is_given_later() {
    let mut pair = Pair::new(Version::V0_12, 256).await;
    let mut resume = full();
    // Before the stream is started.
    let unsent = pair.client.acknowledge(&mut resume).await;
    assert_eq!(unsent, Err(SendError::NotStarted { message: "SatOpLogAck" }));
    pair.starts(&mut resume).await;
    pair.stores(&mut resume, [transaction(8)]).await;
    assert_eq!(pair.acknowledges(&mut resume).await, Some(ack("8", 8)));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_is_given_up_while_it_waits_is_given_later() {
    let limits = electric_satellite::transport::Limits { max_unsent_bytes: 1, ..calm() };
    let (near, far) = duplex(64);
    let connector = client(limits);
    let connecting = async {
        let upgraded = connector.upgrade(near).await.unwrap();
        upgraded.authenticate(&id("client-1"), token("token-1")).await.unwrap()
    };
    let accepting = async {
        let mut server = Raw::accepted(far).await;
        server.hears().await;
        server.says(reply(1, SatAuthResp::default())).await;
        server
    };
    let (client, server) = tokio::join!(connecting, accepting);
    let mut pair = Pair { client, server };
    let mut resume = Resume::default();
    pair.starts(&mut resume).await;
    // Nobody reads, so the third has to wait.
    let mut given = vec![];
    for id in 1.. {
        pair.stores(&mut resume, [transaction(id)]).await;
        match pair.client.acknowledge(&mut resume).now_or_never() {
            Some(sent) => given.push((id, sent.unwrap())),
            None => break,
        }
    }
    assert!(given.iter().all(|(_, sent)| *sent));
    let waited = given.len() as u64 + 1;
    let (acknowledged, ()) = tokio::join!(pair.client.acknowledge(&mut resume), async {
        for (id, _) in &given {
            let Message::OpLogAck(ack) = pair.server.hears().await else { panic!() };
            assert_eq!(ack.transaction_id, *id);
        }
        let Message::OpLogAck(ack) = pair.server.hears().await else { panic!() };
        assert_eq!(ack.transaction_id, waited);
    });
    assert!(acknowledged.unwrap());
}

/// What happens to a client.
#[derive(Clone, Debug)]
enum Step {
    /// So many transactions arrive.
    Store(u64),
    Acknowledge,
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..4_u64).prop_map(Step::Store),
        Just(Step::Acknowledge),
        Just(Step::Acknowledge),
        Just(Step::Reconnect),
    ];
    proptest::collection::vec(step, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A transaction is acknowledged at most once, on the connection on which it came, and none
    /// that is not stored.
    #[test]
    fn acknowledgements_keep_to_the_rules(steps in steps(), minor in 10..=12_u64) {
        let version = Version::new(0, minor);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut resume = Resume::default();
            let mut pair = Pair::new(version, 4096).await;
            pair.starts(&mut resume).await;
            let (mut last, mut here, mut acknowledged) = (0_u64, vec![], vec![]);
            for step in steps {
                match step {
                    Step::Store(transactions) => {
                        for _ in 0..transactions {
                            last += 1;
                            here.push(last);
                            pair.stores(&mut resume, [transaction(last)]).await;
                        }
                    }
                    Step::Reconnect => {
                        pair = Pair::new(version, 4096).await;
                        let request = pair.starts(&mut resume).await;
                        assert_eq!(request.lsn, resume.position);
                        (here, acknowledged) = (vec![], vec![]);
                    }
                    Step::Acknowledge => match pair.acknowledges(&mut resume).await {
                        None => {
                            let known = here.last().is_none_or(|last| acknowledged.contains(last));
                            assert!(known, "{here:?} {acknowledged:?}");
                        }
                        Some(ack) => {
                            assert_eq!(ack.lsn, resume.position);
                            match ack.transaction_id {
                                0 => assert!(version >= Version::V0_12 && here.is_empty()),
                                id => {
                                    assert_eq!(Some(&id), here.last());
                                    assert!(!acknowledged.contains(&id));
                                    acknowledged.push(id);
                                }
                            }
                        }
                    },
                }
            }
        });
    }
}
