//! What an application does on a connection to a service: start, subscribe, acknowledge, stop; and
//! what it keeps to go on the next time.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    session::{AuthenticatedServer, SendError, UnixTime},
    transport::{CallFailure, Connection, Sender},
    wire::{
        Message, ReplyError, Version,
        proto::{
            SatInStartReplicationReq, SatInStopReplicationReq, SatOpBegin, SatOpLog, SatOpLogAck,
            SatShapeDef, SatShapeReq, SatSubsReq, SatTransOp, SatUnsubsReq,
            sat_in_start_replication_req::Dialect,
            sat_in_start_replication_resp::{ReplicationError, replication_error::Code},
            sat_shape_def::Select,
            sat_subs_resp::SatSubsError,
            sat_trans_op::Op,
        },
    },
};

use super::{Advice, failure};

/// Where a client's copy of the service's data stands: what `startReplication` tells the service.
///
/// The application keeps it with the data, in the same transaction, and calls
/// [`Resume::stored`] for every message that it has stored. What it has not confirmed so comes
/// again on the next connection. It can be serialized with `serde`.
///
/// ```
/// use electric_satellite::{client::Resume, wire::{Message, proto::*}};
///
/// let mut resume = Resume::default();
/// let op = |op| SatTransOp { op: Some(op) };
/// let begin = SatOpBegin { lsn: "7".into(), ..Default::default() };
/// let commit = SatOpCommit { lsn: "7".into(), ..Default::default() };
/// resume.stored(&Message::OpLog(SatOpLog {
///     ops: vec![op(sat_trans_op::Op::Begin(begin)), op(sat_trans_op::Op::Commit(commit))],
/// }));
/// assert_eq!(resume.position, "7");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Resume {
    /// Where the last of what is stored came; empty for a client that has nothing.
    ///
    /// Migrations alone leave it empty: those of a first connection share a position, so only
    /// [`schema_version`](Resume::schema_version) tells how many of them are applied.
    #[serde(with = "base64_text")]
    pub position: Bytes,
    /// The newest migration that is applied, by the name that its developer gave it.
    pub schema_version: Option<String>,
    /// Whether migrations are to come in PostgreSQL's SQL instead of SQLite's. From 0.11 on.
    pub postgres: bool,
    /// The subscriptions whose data is stored.
    pub subscriptions: Vec<String>,
    /// The transactions up to the position whose additional data is stored and has come after
    /// the last of them.
    pub observed_transaction_data: Vec<u64>,
    /// The ended subscriptions whose removed rows have come at the position.
    pub observed_gone_batch: Vec<String>,
    /// What belongs to the connection.
    #[serde(skip)]
    passing: Passing,
}

/// What is known of the stream of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Passing {
    /// The transaction that has begun. What its commit says is the same, or left out.
    begun: Option<SatOpBegin>,
    /// The migration that it holds.
    migration: Option<String>,
    /// The last transaction that is stored, 0 for none, and where it is.
    stored: u64,
    stored_at: Bytes,
    /// Stored transactions that announced additional data, by its reference.
    announced: Vec<(u64, u64)>,
    /// The subscription whose data comes.
    delivering: Option<(String, Bytes)>,
    /// The ended subscriptions whose removed rows come, and where.
    leaving: Option<(Vec<String>, Bytes)>,
    /// The subscriptions whose data has come after the last transaction.
    delivered: Vec<String>,
    /// What the service knows: what it was told at the start, or by the last acknowledgement.
    acknowledged: SatOpLogAck,
}

impl Resume {
    /// The same as the service is told it, from the beginning of a connection.
    fn request(&mut self) -> SatInStartReplicationReq {
        self.passing = Passing::default();
        self.passing.acknowledged = self.all_stored();
        SatInStartReplicationReq {
            lsn: self.position.clone(),
            subscription_ids: self.subscriptions.clone(),
            // Of use in an initial sync, and published clients send it only there.
            schema_version: self.schema_version.clone().filter(|_| self.position.is_empty()),
            observed_transaction_data: self.observed_transaction_data.clone(),
            observed_gone_batch: self.observed_gone_batch.clone(),
            sql_dialect: self.postgres.then_some(Dialect::Postgres.into()),
            ..Default::default()
        }
    }

    /// Forgets everything but the schema: for a client that has thrown the service's data away.
    pub fn reset(&mut self) {
        let (schema_version, postgres) = (self.schema_version.take(), self.postgres);
        *self = Resume { schema_version, postgres, ..Resume::default() };
    }

    /// Takes note that the application has given subscriptions up.
    pub fn unsubscribed(&mut self, subscriptions: &[String]) {
        self.subscriptions.retain(|id| !subscriptions.contains(id));
    }

    /// Takes note that a message and all before it are stored. Messages that do not move the
    /// position may be passed, and should.
    pub fn stored(&mut self, message: &Message) {
        match message {
            Message::OpLog(SatOpLog { ops }) => {
                ops.iter().filter_map(|SatTransOp { op }| op.as_ref()).for_each(|op| self.op(op));
            }
            Message::SubsDataBegin(begin) => {
                self.passing.delivering = Some((begin.subscription_id.clone(), begin.lsn.clone()));
            }
            Message::SubsDataEnd(_) => {
                if let Some((id, position)) = self.passing.delivering.take() {
                    self.delivered(id, &position);
                }
            }
            Message::SubsDataError(error) => {
                self.passing.delivering = None;
                self.subscriptions.retain(|id| *id != error.subscription_id);
            }
            Message::UnsubsDataBegin(begin) => {
                self.passing.leaving = Some((begin.subscription_ids.clone(), begin.lsn.clone()));
            }
            Message::UnsubsDataEnd(_) => {
                if let Some((gone, position)) = self.passing.leaving.take() {
                    self.gone(gone, &position);
                }
            }
            _ => {}
        }
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Begin(begin) => {
                // Copied, for the original shares the memory of the whole frame.
                let lsn = Bytes::copy_from_slice(&begin.lsn);
                self.passing.begun = Some(SatOpBegin { lsn, origin: None, ..begin.clone() });
                self.passing.migration = None;
            }
            Op::Migrate(migrate) => self.passing.migration = Some(migrate.version.clone()),
            Op::Commit(_) => self.committed(),
            Op::AdditionalCommit(commit) => {
                let announced = std::mem::take(&mut self.passing.announced);
                let (here, others) =
                    announced.into_iter().partition(|(reference, _)| *reference == commit.r#ref);
                self.passing.announced = others;
                let here: Vec<(u64, u64)> = here;
                self.observed_transaction_data.extend(here.into_iter().map(|(_, id)| id));
            }
            _ => {}
        }
    }

    fn committed(&mut self) {
        let Some(begun) = self.passing.begun.take() else { return };
        if let Some(migration) = self.passing.migration.take() {
            self.schema_version = Some(migration);
        }
        if !(begun.is_migration && self.position.is_empty()) {
            self.position = begun.lsn.clone();
        }
        self.observed_transaction_data.clear();
        self.observed_gone_batch.clear();
        self.passing.delivered.clear();
        self.passing.stored = begun.transaction_id.unwrap_or_default();
        self.passing.stored_at = begun.lsn;
        if begun.additional_data_ref != 0 {
            self.passing.announced.push((begun.additional_data_ref, self.passing.stored));
        }
    }

    fn delivered(&mut self, id: String, position: &Bytes) {
        // After the migrations, if there was nothing else.
        self.reached(&self.passing.stored_at.clone());
        self.reached(position);
        self.passing.delivered.push(id.clone());
        if !self.subscriptions.contains(&id) {
            self.subscriptions.push(id);
        }
    }

    fn gone(&mut self, ids: Vec<String>, position: &Bytes) {
        self.reached(position);
        self.unsubscribed(&ids);
        self.observed_gone_batch.extend(ids);
    }

    /// What lies between two transactions has a position of its own. What comes once more after a
    /// reconnect does not: Electric sends 0 then.
    fn reached(&mut self, position: &Bytes) {
        if position.is_empty() || *position == self.position || is_behind(position, &self.position)
        {
            return;
        }
        self.position = Bytes::copy_from_slice(position);
        self.observed_gone_batch.clear();
    }

    /// All that is stored, as an acknowledgement puts it.
    fn all_stored(&self) -> SatOpLogAck {
        SatOpLogAck {
            ack_timestamp: 0,
            // The last transaction's: what came after it is named.
            lsn: match self.passing.stored_at.is_empty() {
                true => self.position.clone(),
                false => self.passing.stored_at.clone(),
            },
            transaction_id: self.passing.stored,
            subscription_ids: self.passing.delivered.clone(),
            additional_data_source_ids: self.observed_transaction_data.clone(),
            gone_subscription_ids: self.observed_gone_batch.clone(),
        }
    }

    /// The acknowledgement of what is stored, if there is something that the service was not told
    /// on this connection.
    fn acknowledgement(&self, version: Version, now: UnixTime) -> Option<SatOpLogAck> {
        let all = self.all_stored();
        let told = &self.passing.acknowledged;
        // A transaction is acknowledged once; what came after it, by no transaction.
        let again = told.transaction_id == all.transaction_id;
        let is_possible = !all.lsn.is_empty() && (!again || version >= Version::V0_12);
        if *told == all || !is_possible {
            return None;
        }
        let transaction_id = if again { 0 } else { all.transaction_id };
        let ack_timestamp = u64::try_from(now.as_secs()).unwrap_or_default() * 1000;
        Some(SatOpLogAck { ack_timestamp, transaction_id, ..all })
    }

    /// The service has been told.
    fn acknowledged(&mut self) {
        self.passing.acknowledged = self.all_stored();
    }
}

/// Whether a position is behind another one, as far as they are the numbers that servers give out.
fn is_behind(position: &[u8], other: &[u8]) -> bool {
    let number = |position| std::str::from_utf8(position).ok()?.parse::<u64>().ok();
    number(position).zip(number(other)).is_some_and(|(position, other)| position < other)
}

/// A position in JSON: bytes, as base64.
mod base64_text {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}

/// Which rows a client wants: some shapes, under one id.
///
/// ```
/// use electric_satellite::client::Subscription;
///
/// let subscription = Subscription::new().shape_where("items", "this.done = false").shape("users");
/// assert_eq!(subscription.id().len(), 36);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription(SatSubsReq);

impl Default for Subscription {
    fn default() -> Subscription {
        Subscription::new()
    }
}

impl Subscription {
    /// No rows yet, under a fresh random id.
    pub fn new() -> Subscription {
        let subscription_id = uuid::Uuid::new_v4().to_string();
        Subscription(SatSubsReq { subscription_id, shape_requests: vec![] })
    }

    /// The id: it appears in [`Resume::subscriptions`] once the data is stored.
    pub fn id(&self) -> &str {
        &self.0.subscription_id
    }

    /// All rows of a table.
    pub fn shape(self, table: impl Into<String>) -> Subscription {
        self.shape_where(table, "")
    }

    /// The rows of a table for which a condition holds: SQL, with `this.` before the name of a
    /// column. From 0.10 on.
    pub fn shape_where(
        self,
        table: impl Into<String>,
        condition: impl Into<String>,
    ) -> Subscription {
        self.select(Select {
            tablename: table.into(),
            r#where: condition.into(),
            ..Default::default()
        })
    }

    /// Rows as the schema of the protocol puts it, with rows of other tables that belong to them
    /// (`include`, from 0.10 on).
    pub fn select(mut self, select: Select) -> Subscription {
        let request_id = self.0.shape_requests.len().to_string();
        let shape_definition = Some(SatShapeDef { selects: vec![select] });
        self.0.shape_requests.push(SatShapeReq { request_id, shape_definition });
        self
    }
}

impl From<SatSubsReq> for Subscription {
    fn from(request: SatSubsReq) -> Subscription {
        Subscription(request)
    }
}

/// Why replication has not started. The connection has ended, or is about to.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartError {
    /// The service refused, for this reason.
    #[error("the service does not start replication: {}: {message:?}", code.as_str_name())]
    Refused {
        /// The reason.
        code: Code,
        /// The service's words.
        message: String,
    },
    /// The call has no positive answer.
    #[error(transparent)]
    Call(#[from] CallFailure),
}

impl StartError {
    /// What to do about it; see [`Failure::advice`](super::Failure::advice). A
    /// [`Client`](super::Client) follows it where it can: throwing the data away is the
    /// application's.
    pub fn advice(&self) -> Advice {
        match self {
            StartError::Refused { code, .. } => failure::not_started(*code),
            StartError::Call(CallFailure::Reply(ReplyError::Refused(error))) => {
                failure::by_code(error)
            }
            StartError::Call(_) => Advice::Retry,
        }
    }
}

/// Why there is no subscription. The connection goes on, unless the call itself failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubscribeError {
    /// The service refused.
    #[error("{}", refused(.0))]
    Refused(SatSubsError),
    /// The call has no positive answer.
    #[error(transparent)]
    Call(#[from] CallFailure),
}

fn refused(error: &SatSubsError) -> String {
    let shapes = error.shape_request_error.iter().map(|shape| format!("; {}", shape.message));
    std::iter::once(error.message.clone()).chain(shapes).collect()
}

impl Sender<AuthenticatedServer> {
    /// Asks the service for its stream, from where the resume state stands. Returns how many
    /// transactions the service sends ahead of acknowledgements, if it says so.
    ///
    /// If dropped before it is done, the answer is ignored when it comes; drop the connection
    /// then.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start_replication(
        &self,
        resume: &mut Resume,
        within: Duration,
    ) -> Result<Option<u32>, StartError> {
        let reply = self.call(resume.request(), within).await?;
        match reply.err {
            None => Ok(reply.unacked_window_size),
            Some(error) => {
                let ReplicationError { message, .. } = &error;
                Err(StartError::Refused { code: error.code(), message: message.clone() })
            }
        }
    }

    /// Asks the service to stop its stream. What is on its way still arrives. If dropped before it
    /// is done, the service stops all the same.
    ///
    /// # Errors
    ///
    /// See [`CallFailure`].
    pub async fn stop_replication(&self, within: Duration) -> Result<(), CallFailure> {
        self.call(SatInStopReplicationReq {}, within).await.map(drop)
    }

    /// Asks the service for rows. They arrive in the stream, after the answer; also if this is
    /// dropped before it is done.
    ///
    /// The stream must be read meanwhile, here as with every call: the answer comes behind what
    /// was sent before it, and a connection with much unread
    /// ([`max_unread_messages`](crate::transport::Limits::max_unread_messages)) reads no further.
    ///
    /// # Errors
    ///
    /// See [`SubscribeError`].
    pub async fn subscribe(
        &self,
        Subscription(request): Subscription,
        within: Duration,
    ) -> Result<(), SubscribeError> {
        match self.call(request, within).await?.err {
            None => Ok(()),
            Some(error) => Err(SubscribeError::Refused(error)),
        }
    }

    /// Gives subscriptions up. From 0.12 on the rows that leave with them arrive in the stream;
    /// before, removing them is the application's ([`Resume::unsubscribed`] belongs to it). If
    /// dropped before it is done, they are given up all the same.
    ///
    /// # Errors
    ///
    /// See [`CallFailure`].
    pub async fn unsubscribe(
        &self,
        subscription_ids: Vec<String>,
        within: Duration,
    ) -> Result<(), CallFailure> {
        self.call(SatUnsubsReq { subscription_ids }, within).await.map(drop)
    }

    /// Tells the service what is stored, so that it sends more and may forget what is not needed
    /// any more. Returns whether there was something to tell: not before 0.10, and not twice.
    ///
    /// A service that counts ([`Connection::window`]) stops sending when it has waited for this
    /// too long. Cancel-safe: dropped before it is done, it has told nothing.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn acknowledge(&self, resume: &mut Resume) -> Result<bool, SendError> {
        let version = self.version();
        if version < Version::V0_10 {
            return Ok(false);
        }
        match resume.acknowledgement(version, UnixTime::now()) {
            None => Ok(false),
            Some(acknowledgement) => {
                self.send(acknowledgement).await?;
                resume.acknowledged();
                Ok(true)
            }
        }
    }
}

impl Connection<AuthenticatedServer> {
    /// See [`Sender::start_replication`].
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start_replication(
        &self,
        resume: &mut Resume,
        within: Duration,
    ) -> Result<Option<u32>, StartError> {
        self.sender().start_replication(resume, within).await
    }

    /// See [`Sender::stop_replication`].
    ///
    /// # Errors
    ///
    /// See [`CallFailure`].
    pub async fn stop_replication(&self, within: Duration) -> Result<(), CallFailure> {
        self.sender().stop_replication(within).await
    }

    /// See [`Sender::subscribe`].
    ///
    /// # Errors
    ///
    /// See [`SubscribeError`].
    pub async fn subscribe(
        &self,
        subscription: Subscription,
        within: Duration,
    ) -> Result<(), SubscribeError> {
        self.sender().subscribe(subscription, within).await
    }

    /// See [`Sender::unsubscribe`].
    ///
    /// # Errors
    ///
    /// See [`CallFailure`].
    pub async fn unsubscribe(
        &self,
        subscription_ids: Vec<String>,
        within: Duration,
    ) -> Result<(), CallFailure> {
        self.sender().unsubscribe(subscription_ids, within).await
    }

    /// See [`Sender::acknowledge`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn acknowledge(&self, resume: &mut Resume) -> Result<bool, SendError> {
        self.sender().acknowledge(resume).await
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::proto::{
        SatOpAdditionalCommit, SatOpCommit, SatOpMigrate, SatSubsDataBegin, SatSubsDataEnd,
        SatUnsubsDataBegin, SatUnsubsDataEnd,
    };

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(7);

    fn log(ops: impl IntoIterator<Item = Op>) -> Message {
        SatOpLog { ops: ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect() }.into()
    }

    fn begin(id: u64, lsn: &'static str) -> SatOpBegin {
        SatOpBegin { lsn: lsn.into(), transaction_id: Some(id), ..Default::default() }
    }

    fn transaction(id: u64, lsn: &'static str) -> Message {
        log([Op::Begin(begin(id, lsn)), Op::Commit(SatOpCommit::default())])
    }

    fn migration(version: &str, lsn: &'static str) -> Message {
        let begin = SatOpBegin { is_migration: true, ..begin(1, lsn) };
        let migrate = SatOpMigrate { version: version.into(), ..Default::default() };
        log([Op::Begin(begin), Op::Migrate(migrate), Op::Commit(SatOpCommit::default())])
    }

    fn data(id: &str, lsn: &'static str) -> [Message; 2] {
        let begin = SatSubsDataBegin { subscription_id: id.into(), lsn: lsn.into() };
        [begin.into(), SatSubsDataEnd {}.into()]
    }

    fn gone(id: &str, lsn: &'static str) -> [Message; 2] {
        let begin = SatUnsubsDataBegin { subscription_ids: vec![id.into()], lsn: lsn.into() };
        [begin.into(), SatUnsubsDataEnd {}.into()]
    }

    fn resume(messages: impl IntoIterator<Item = Message>) -> Resume {
        let mut resume = Resume::default();
        messages.into_iter().for_each(|message| resume.stored(&message));
        resume
    }

    #[test]
    fn a_transaction_counts_when_it_is_whole_and_where_it_began() {
        let mut resume = resume([transaction(1, "10"), log([Op::Begin(begin(2, "20"))])]);
        assert_eq!(resume.position, "10");
        resume.stored(&log([Op::Commit(SatOpCommit::default())]));
        assert_eq!(resume.position, "20");
    }

    #[test]
    fn migrations_alone_are_gone_on_from_by_their_version() {
        let mut resume = resume([migration("m1", "10"), migration("m2", "10")]);
        let request = resume.request();
        assert_eq!(
            (request.lsn.as_ref(), request.schema_version.as_deref()),
            (&b""[..], Some("m2"))
        );
        let [begin, end] = data("a", "10");
        resume.stored(&begin);
        assert_eq!(resume.position, "");
        resume.stored(&end);
        resume.stored(&migration("m3", "20"));
        let request = resume.request();
        assert_eq!((request.lsn.as_ref(), request.schema_version), (&b"20"[..], None));
        assert_eq!(resume.schema_version.as_deref(), Some("m3"));
    }

    #[test]
    fn data_and_gone_rows_have_a_position_of_their_own_which_never_goes_back() {
        let mut resume = resume([transaction(1, "9")].into_iter().chain(data("a", "10")));
        assert_eq!(
            (resume.position.as_ref(), &resume.subscriptions[..]),
            (&b"10"[..], &["a".into()][..])
        );
        gone("a", "12").iter().for_each(|message| resume.stored(message));
        assert_eq!((resume.position.as_ref(), resume.subscriptions.len()), (&b"12"[..], 0));
        // The same position, and one that comes again after a reconnect.
        gone("b", "12").iter().chain(&gone("c", "0")).for_each(|message| resume.stored(message));
        assert_eq!(resume.position, "12");
        assert_eq!(resume.observed_gone_batch, ["a", "b", "c"]);
        gone("d", "13").iter().for_each(|message| resume.stored(message));
        assert_eq!(
            (resume.position.as_ref(), &resume.observed_gone_batch[..]),
            (&b"13"[..], &["d".into()][..])
        );
    }

    #[test]
    fn a_transaction_is_acknowledged_once_and_what_comes_after_it_by_none() {
        let mut resume = resume([transaction(5, "9")]);
        let ack = resume.acknowledgement(Version::V0_12, NOW).unwrap();
        assert_eq!((ack.transaction_id, ack.lsn.as_ref(), ack.ack_timestamp), (5, &b"9"[..], 7000));
        resume.acknowledged();
        assert_eq!(resume.acknowledgement(Version::V0_12, NOW), None);
        data("a", "10").iter().for_each(|message| resume.stored(message));
        // Before 0.12, that of the next transaction covers it.
        assert_eq!(resume.clone().acknowledgement(Version::V0_10, NOW), None);
        let ack = resume.acknowledgement(Version::V0_12, NOW).unwrap();
        assert_eq!((ack.transaction_id, ack.lsn.as_ref()), (0, &b"9"[..]));
        assert_eq!(ack.subscription_ids, ["a"]);
        resume.acknowledged();
        assert_eq!(resume.acknowledgement(Version::V0_12, NOW), None);
        // At the start of the next connection, the service is told all of it.
        resume.request();
        assert_eq!(resume.acknowledgement(Version::V0_12, NOW), None);
    }

    #[test]
    fn additional_data_is_known_by_the_transactions_that_announced_it() {
        let announcing = |id, lsn, reference| {
            let begin = SatOpBegin { additional_data_ref: reference, ..begin(id, lsn) };
            log([Op::Begin(begin), Op::Commit(SatOpCommit::default())])
        };
        let commit =
            |reference| log([Op::AdditionalCommit(SatOpAdditionalCommit { r#ref: reference })]);
        let mut resume = resume([
            announcing(1, "1", 7),
            announcing(2, "2", 7),
            announcing(3, "3", 8),
            commit(7),
        ]);
        assert_eq!(resume.observed_transaction_data, [1, 2]);
        resume.stored(&commit(8));
        assert_eq!(resume.request().observed_transaction_data, [1, 2, 3]);
        resume.stored(&transaction(4, "4"));
        assert_eq!(resume.observed_transaction_data, [] as [u64; 0]);
    }

    #[test]
    fn it_is_kept_as_json() {
        let mut resume = resume([transaction(5, "9")].into_iter().chain(data("a", "10")));
        let json = serde_json::to_string(&resume).unwrap();
        assert!(json.contains(r#""position":"MTA=""#), "{json}");
        let mut kept: Resume = serde_json::from_str(&json).unwrap();
        assert_eq!(kept.request(), resume.request());
        assert_eq!(kept, resume);
        assert_eq!(serde_json::from_str::<Resume>("{}").unwrap(), Resume::default());
    }
}
