//! The service: servers that come and go, and a handler that streams numbered transactions.

use std::{
    collections::{HashSet, VecDeque},
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use electric_satellite::{
    auth::{AuthError, Authenticator, JwtAuthenticator},
    registry::{DuplicatePolicy, InProcessRegistry},
    server::{Drain, ExpiryPolicy, Server},
    session::{AuthChangePolicy, AuthRequest, AuthenticatedClient, Close, UnixTime, Verified},
    transport::{Connection, Event, Limits},
    wire::{Message, Version, proto::*},
};
use fastrand::Rng;
use sat_error_resp::ErrorCode;
use sat_in_start_replication_resp::{ReplicationError, replication_error::Code};
use sat_trans_op::Op;
use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    network::{End, How},
    world::World,
};

/// Everything is faster than it is by default, so that more happens.
pub(crate) fn limits() -> Limits {
    let seconds = Duration::from_secs;
    Limits {
        upgrade_timeout: seconds(3),
        auth_timeout: seconds(3),
        ping_interval: Some(seconds(5)),
        ping_timeout: seconds(5),
        write_timeout: seconds(8),
        close_timeout: seconds(1),
        ..Limits::client()
    }
}

/// The service as it is now.
pub(crate) struct Service {
    server: Option<Server<Gate>>,
    registry: InProcessRegistry,
    policy: DuplicatePolicy,
    expiry: ExpiryPolicy,
    changes: AuthChangePolicy,
    /// Transactions up to this are forgotten.
    forgotten: u64,
    presented: Arc<Mutex<HashSet<String>>>,
}

impl Service {
    pub(crate) fn new(random: &mut Rng) -> Service {
        let policies = [DuplicatePolicy::Wait, DuplicatePolicy::Refuse, DuplicatePolicy::Takeover];
        let policy = policies[random.usize(..3)];
        let leeway = random.u32(..3);
        Service {
            server: None,
            registry: InProcessRegistry::new(policy, Duration::from_secs(1)),
            policy,
            expiry: if random.bool() {
                ExpiryPolicy::Ignore
            } else {
                ExpiryPolicy::Close { leeway }
            },
            changes: match random.bool() {
                true => AuthChangePolicy::Refuse,
                false => AuthChangePolicy::RenewSameIdentity,
            },
            forgotten: 0,
            presented: Arc::default(),
        }
    }
}

/// Judges tokens, sometimes late or not at all.
struct Gate {
    tokens: JwtAuthenticator,
    world: Arc<World>,
    presented: Arc<Mutex<HashSet<String>>>,
}

impl Authenticator for Gate {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> Result<Verified, AuthError> {
        let world = &self.world;
        let is_new = self.presented.lock().unwrap().insert(request.token().expose().to_owned());
        world.check(is_new, || "a token is presented once".into());
        let misbehaves = world.weather().misbehaves;
        if world.chance(misbehaves / 5.0) {
            sleep(world.duration(5_000)).await;
        }
        if world.chance(misbehaves / 5.0) {
            return Err(AuthError::Unavailable("it is down".into()));
        }
        self.tokens.authenticate(request, now).await
    }
}

/// The first server.
pub(crate) fn start(world: &Arc<World>) {
    let is_new = world.is_calm() || world.chance(0.9);
    let newest = if is_new { Version::V0_12 } else { Version::V0_10 };
    start_with(world, newest);
}

fn start_with(world: &Arc<World>, newest: Version) {
    let mut service = world.service.lock().unwrap();
    let gate = Gate {
        tokens: JwtAuthenticator::insecure(None),
        world: Arc::clone(world),
        presented: Arc::clone(&service.presented),
    };
    let server = Server::new(gate)
        .with_server_id(format!("server-{}", world.number()))
        .with_limits(Limits { max_connections: 100, ..limits() })
        .with_versions(Version::V0_6..=newest)
        .with_clock(world.clock())
        .with_expiry(service.expiry)
        .with_auth_changes(service.changes)
        .with_registry(service.registry.clone());
    service.server = Some(server);
}

/// A server dies, and another takes its place.
pub(crate) fn restart(world: &Arc<World>) {
    let how = world.way_to_break();
    world.note(format_args!("the server restarts: {how:?}"));
    world.break_all(how);
    {
        let mut service = world.service.lock().unwrap();
        if how != How::Silence || world.chance(0.5) {
            service.registry = InProcessRegistry::new(service.policy, Duration::from_secs(1));
        }
        if world.chance(0.2) {
            service.forgotten += world.between(0, 100);
            world.note(format_args!("transactions up to {} are forgotten", service.forgotten));
        }
    }
    start(world);
}

/// A server sends its clients away, and another takes its place.
pub(crate) fn drain(world: &Arc<World>) {
    let Some(server) = world.service.lock().unwrap().server.clone() else { return };
    let (world, retry_after) = (Arc::clone(world), world.between(0, 30) as u32);
    world.note(format_args!("the server drains, and wants its clients back after {retry_after} s"));
    tokio::spawn(async move {
        let (spread, grace) = (world.duration(500), world.duration(3_000));
        server.drain(Drain { spread, grace, retry_after }).await;
        sleep(world.duration(2_000)).await;
        world.note("it is drained");
        start(&world);
    });
}

/// There is a server that serves everybody.
pub(crate) fn be_up(world: &Arc<World>) {
    start_with(world, Version::V0_12);
}

/// How many connections the server has.
pub(crate) fn connections(world: &World) -> usize {
    let server = world.service.lock().unwrap().server.clone();
    server.map_or(0, |server| *server.connections().borrow())
}

/// A connection has come in.
pub(crate) fn serve(world: &Arc<World>, stream: End) {
    let Some(server) = world.service.lock().unwrap().server.clone() else { return };
    let world = Arc::clone(world);
    tokio::spawn(async move {
        if let Ok(connection) = server.accept(stream).await {
            Handler::new(&world, connection).run().await;
        }
    });
}

/// Streams to one client.
struct Handler {
    world: Arc<World>,
    connection: Connection<AuthenticatedClient>,
    /// The last transaction that was sent, once the stream is started.
    sent: Option<u64>,
    unacknowledged: VecDeque<u64>,
    window: usize,
    /// The subscriptions that wait for an answer that does not come.
    unanswered: Vec<Event<AuthenticatedClient>>,
}

impl Handler {
    fn new(world: &Arc<World>, connection: Connection<AuthenticatedClient>) -> Handler {
        let window = world.between(1, 30) as usize;
        let (sent, unacknowledged, unanswered) = (None, VecDeque::new(), vec![]);
        let world = Arc::clone(world);
        Handler { world, connection, sent, unacknowledged, window, unanswered }
    }

    async fn run(mut self) {
        let world = Arc::clone(&self.world);
        let misbehaves = world.chance(world.weather().misbehaves).then(|| world.duration(10_000));
        let misbehaves = misbehaves.map(|after| Instant::now() + after);
        let misbehaves = async {
            match misbehaves {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let mut misbehaves = std::pin::pin!(misbehaves);
        let mut pause = world.duration(2_000);
        loop {
            select! {
                biased;
                event = self.connection.recv() => match event {
                    Some(event) => self.hears(event),
                    None => return,
                },
                () = &mut misbehaves => return self.misbehave().await,
                () = sleep(pause), if self.may_send() => {
                    self.send().await;
                    pause = world.duration(2_000);
                }
            }
        }
    }

    fn may_send(&self) -> bool {
        self.sent.is_some() && self.unacknowledged.len() < self.window
    }

    fn hears(&mut self, event: Event<AuthenticatedClient>) {
        let world = &self.world;
        match event {
            Event::StartReplication(request, responder) => {
                let forgotten = world.service.lock().unwrap().forgotten;
                let from = match &request.lsn[..] {
                    b"" => Some(forgotten),
                    digits => {
                        let text = String::from_utf8(digits.to_vec()).expect("a number");
                        Some(text.parse().expect("a number")).filter(|from| *from >= forgotten)
                    }
                };
                self.sent = from;
                let error =
                    |code: Code| ReplicationError { code: code.into(), ..Default::default() };
                let err = match from {
                    None => Some(error(Code::BehindWindow)),
                    Some(_) if world.chance(world.weather().misbehaves / 10.0) => {
                        self.sent = None;
                        Some(error(Code::InvalidPosition))
                    }
                    Some(_) => None,
                };
                let unacked_window_size = Some(self.window as u32);
                responder.reply(SatInStartReplicationResp { err, unacked_window_size });
            }
            Event::Subscribe(SatSubsReq { subscription_id, .. }, responder)
                if world.chance(0.6) || world.is_calm() =>
            {
                responder.reply(SatSubsResp { subscription_id, err: None });
            }
            Event::Message(Message::OpLogAck(ack)) => self.acknowledged(&ack),
            // Its answer does not come.
            event => self.unanswered.push(event),
        }
    }

    /// An acknowledgement is of what was sent on this connection, and not yet acknowledged.
    fn acknowledged(&mut self, ack: &SatOpLogAck) {
        let id = ack.transaction_id;
        match self.unacknowledged.iter().position(|sent| *sent == id) {
            Some(at) => {
                self.unacknowledged.drain(..=at);
                let is_so = ack.lsn == id.to_string();
                self.world.check(is_so, || format!("transaction {id} is at {:?}", ack.lsn));
            }
            None => {
                let may = id == 0 && self.connection.version() >= Version::V0_12;
                self.world.check(may, || format!("transaction {id} is acknowledged once"));
            }
        }
    }

    /// The next transaction, in one message or in several.
    async fn send(&mut self) {
        let Some(sent) = &mut self.sent else { return };
        *sent += 1;
        let id = *sent;
        let (lsn, transaction_id) = (id.to_string(), Some(id));
        let begin = SatOpBegin { lsn: lsn.clone().into(), transaction_id, ..Default::default() };
        let commit = SatOpCommit { lsn: lsn.into(), ..Default::default() };
        let ops = [Op::Begin(begin), Op::Commit(commit)].map(|op| SatTransOp { op: Some(op) });
        self.unacknowledged.push_back(id);
        let messages = match self.world.chance(0.5) {
            true => vec![ops.to_vec()],
            false => ops.map(|op| vec![op]).to_vec(),
        };
        for ops in messages {
            // It may have ended, which is for recv to tell.
            let _ = self.connection.send(SatOpLog { ops }).await;
        }
    }

    async fn misbehave(self) {
        let world = &self.world;
        let codes = [
            ErrorCode::Internal,
            ErrorCode::AuthRequired,
            ErrorCode::AuthFailed,
            ErrorCode::ReplicationFailed,
            ErrorCode::InvalidRequest,
            ErrorCode::ProtoVsnMismatch,
            ErrorCode::SchemaVsnMismatch,
        ];
        match world.between(0, 8) {
            0 => self.connection.close(Close::NORMAL),
            1 => self.connection.close(Close::GOING_AWAY),
            2 => self.connection.close(Close::new(1001, "Service stops, retry after 7 s")),
            3 => self.connection.close(Close::INTERNAL),
            4 => self.connection.close(Close::EXPIRED),
            5 | 6 => {
                let code = codes[world.between(0, 7) as usize];
                world.note(format_args!("the service fails: {}", code.as_str_name()));
                self.connection.fail(SatErrorResp::of(code));
            }
            // It does not read and does not send.
            _ => sleep(world.duration(60_000)).await,
        }
        self.connection.closed().await;
    }
}
