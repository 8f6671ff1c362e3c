//! An application: its client, its disk, and what it does with a connection.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::Minter,
    client::{
        Advice, Client, ClientBuilder, Connectivity, RenewalPolicy, Resume, Stopped, TokenError,
        TokenProvider, TokenReason,
    },
    session::{AuthenticatedServer, ClientId, Close, Token, UnixTime},
    transport::{CallFailure, Connection, Event, Sender},
    wire::{Message, Version, proto::*},
};
use sat_trans_op::Op;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::{JoinHandle, yield_now},
    time::{sleep, timeout},
};

use crate::{
    counted::Counted,
    model::{BACKOFF, Model},
    network::{End, Link},
    service,
    world::{Disk, World},
};

const SECOND: Duration = Duration::from_secs(1);

/// How long a dial hangs that does.
const FOR_EVER: Duration = Duration::from_secs(3600);

// ---- The network and the tokens, as the weather is ----

/// A stream to the service, or not.
async fn dial(world: Arc<World>) -> io::Result<End> {
    let weather = world.weather();
    sleep(world.duration(weather.latency)).await;
    if world.chance(weather.refused) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    if world.chance(weather.hangs) {
        sleep(FOR_EVER).await;
    }
    let (link, near, far) = Link::new(world.duration(weather.latency));
    if world.chance(weather.breaks) {
        let (how, of_client) = (world.way_to_break(), world.chance(0.5));
        link.break_after(of_client, world.between(0, weather.after as u64) as usize, how);
    }
    world.linked(&link);
    if world.chance(weather.no_service) {
        tokio::spawn(timeout(20 * SECOND, refuse(world, far)));
    } else {
        service::serve(&world, far);
    }
    Ok(near)
}

/// Something is in between that does not let it through.
async fn refuse(world: Arc<World>, mut stream: End) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let answer = match world.between(0, 8) {
        0 => "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        1 => "HTTP/1.1 503 Unavailable\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
        2 => "HTTP/1.1 429 Too Many\r\nRetry-After: 900\r\nContent-Length: 0\r\n\r\n",
        3 => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        4 => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        5 => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        6 => "\u{0}\u{1}\u{2}",
        _ => "",
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    sleep(world.duration(10_000)).await;
}

/// A token, or not.
async fn token(world: &World, now: UnixTime) -> Result<Token, TokenError> {
    let weather = world.weather();
    if world.chance(weather.late_token) {
        sleep(world.duration(8_000)).await;
    }
    if world.chance(weather.no_token) {
        return Err(match world.between(0, 20) {
            0 => TokenError::fatal("signed out"),
            _ => TokenError::temporary("the backend is down"),
        });
    }
    let id = world.number().to_string();
    let now = now.as_secs();
    let claims = if world.chance(weather.bad_token) {
        json!({ "sub": "user", "jti": id, "exp": now - 100 })
    } else if world.chance(0.5) {
        json!({ "sub": "user", "jti": id, "exp": now + world.between(1, 60) as i64 })
    } else {
        json!({ "sub": "user", "jti": id })
    };
    Ok(Minter::unsigned().mint(&claims).expect("an object"))
}

/// A client of the service, whose id they all share.
fn builder(world: &Arc<World>, provider: impl TokenProvider) -> ClientBuilder {
    let versions = [vec![Version::V0_12], vec![Version::V0_12, Version::V0_10, Version::V0_9]];
    Client::builder("http://localhost", provider)
        .expect("a URL")
        .client_id(ClientId::new("client").expect("an id"))
        .versions(versions[world.between(0, 2) as usize].clone())
        .limits(service::limits())
        .backoff(BACKOFF)
        .token_timeout(4 * SECOND)
        .random_seed(world.between(0, u64::MAX))
        .clock(world.clock())
}

/// A client of the same id, for a while, that does nothing.
pub(crate) async fn other_client(world: Arc<World>) {
    world.note("another client of this id comes");
    let (tokens, clock, dials) = (Arc::clone(&world), world.clock(), Arc::clone(&world));
    let client = builder(&world, move |_| {
        let (world, now) = (Arc::clone(&tokens), clock());
        async move { token(&world, now).await }
    });
    let client = client.dialer(move |_, _| dial(Arc::clone(&dials))).build();
    client.connect();
    sleep(world.duration(20_000)).await;
    world.note("another client of this id goes");
}

// ---- A run of the application ----

/// An application that runs, with its client.
pub(crate) struct Instance {
    world: Arc<World>,
    model: Model,
    client: Arc<Client>,
    /// How many of its calls have no answer.
    calls: Arc<AtomicUsize>,
    app: JoinHandle<()>,
}

impl Instance {
    pub(crate) fn start(world: &Arc<World>) -> Instance {
        let renewal = match world.between(0, 3) {
            0 => RenewalPolicy::Never,
            1 => RenewalPolicy::InPlace(world.duration(20_000)),
            _ => RenewalPolicy::Reconnect(world.duration(20_000)),
        };
        world.note(format_args!("the application starts: {renewal:?}"));
        let model = Model::new(world, renewal);
        // The provider looks at the client that it is the provider of.
        let connectivity = Arc::new(OnceLock::<watch::Receiver<Connectivity>>::new());
        let (tokens, clock, asked) = (Arc::clone(world), world.clock(), model.clone());
        let seen = Arc::clone(&connectivity);
        let provider = move |reason: TokenReason| {
            asked.asks(reason, &seen.get().expect("the client is built").borrow());
            let (world, now) = (Arc::clone(&tokens), clock());
            async move { token(&world, now).await }
        };
        let (dials, dialed) = (Arc::clone(world), model.clone());
        let dialer = move |_, _| {
            dialed.dials();
            let (world, model) = (Arc::clone(&dials), dialed.clone());
            async move {
                let stream = dial(world).await?;
                model.opened();
                Ok(Counted(stream, move || model.closed()))
            }
        };
        let client = builder(world, provider).renewal(renewal).dialer(dialer).build();
        let _ = connectivity.set(client.connectivity());
        tokio::spawn(model.clone().listen(client.connectivity()));
        let (client, calls) = (Arc::new(client), Arc::default());
        let app = App {
            world: Arc::clone(world),
            model: model.clone(),
            client: Arc::clone(&client),
            calls: Arc::clone(&calls),
        };
        Instance { world: Arc::clone(world), model, client, calls, app: tokio::spawn(app.run()) }
    }

    pub(crate) fn connectivity(&self) -> Connectivity {
        self.client.connectivity().borrow().clone()
    }

    pub(crate) fn connect(&mut self) {
        self.world.note("connect");
        self.model.connects(&self.connectivity());
        self.client.connect();
    }

    pub(crate) fn disconnect(&mut self) {
        self.world.note("disconnect");
        self.model.disconnects();
        self.client.disconnect();
    }

    pub(crate) fn retry_now(&mut self) {
        self.world.note("the moment is good");
        self.model.retries_now();
        self.client.retry_now();
    }

    /// The application ends, and its client is dropped.
    pub(crate) async fn end(self) {
        self.world.note("the application ends");
        self.app.abort();
        let mut connectivity = self.client.connectivity();
        if let Err(error) = self.app.await {
            self.world.check(!error.is_panic(), || format!("the application has failed: {error}"));
        }
        self.model.disconnects();
        self.world.check(Arc::strong_count(&self.client) == 1, || "nobody else has it".into());
        drop(self.client);
        // It closes its connection, and says so before.
        let offline = Connectivity::Disconnected { reason: None, next_attempt: None };
        let told = format!("{offline:?}");
        let gone = timeout(2 * SECOND, async { while connectivity.changed().await.is_ok() {} });
        self.world.check(gone.await.is_ok(), || "a client that is dropped is gone soon".into());
        let is_offline = format!("{:?}", *connectivity.borrow()) == told;
        self.world.check(is_offline, || "a client that is dropped says so".into());
        let calls = self.calls.load(Ordering::Relaxed);
        self.world.check(calls == 0, || format!("{calls} calls have no answer"));
    }
}

/// What an application does.
struct App {
    world: Arc<World>,
    model: Model,
    client: Arc<Client>,
    calls: Arc<AtomicUsize>,
}

/// A call that has no answer yet.
struct Unanswered(Arc<AtomicUsize>);

impl Unanswered {
    fn new(calls: &Arc<AtomicUsize>) -> Unanswered {
        calls.fetch_add(1, Ordering::Relaxed);
        Unanswered(Arc::clone(calls))
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl App {
    async fn run(self) {
        let mut resume = None;
        loop {
            match self.client.connection().await {
                Ok(connection) => resume = self.uses(connection, resume).await,
                Err(Stopped::Gone) => return self.world.broken("the task of the client is gone"),
                // The user will tell it to connect.
                Err(_) => sleep(self.world.duration(1_000)).await,
            }
        }
    }

    /// Goes on from what is in memory, or from what is on the disk, and returns it.
    async fn uses(
        &self,
        mut connection: Connection<AuthenticatedServer>,
        in_memory: Option<Resume>,
    ) -> Option<Resume> {
        let world = &self.world;
        self.is_told(&connection).await;
        let nth = self.model.connections();
        let disk = world.disk.lock().unwrap().clone();
        let on_disk = disk.resume.as_deref().map(|text| serde_json::from_str(text).expect("JSON"));
        let in_memory = in_memory.filter(|_| world.chance(0.7));
        let mut resume = in_memory.or(on_disk).unwrap_or_default();
        let position = disk.confirmed.map_or(String::new(), |confirmed| confirmed.to_string());
        world.check(resume.position == position, || {
            format!("it resumes from {:?}, and {position:?} is confirmed", resume.position)
        });
        world.note(format_args!("it starts from {position:?}"));
        let within = world.duration(20_000);
        let started = connection.start_replication(&mut resume, within).await;
        if let Err(error) = started {
            world.note(format_args!("it is not started: {error}"));
            if error.advice() == Advice::ResetState {
                *world.disk.lock().unwrap() = Disk::default();
                return None;
            }
            return Some(resume);
        }
        let mut stream = Stream { next: disk.confirmed.map(|it| it + 1), began: None };
        let mut unconfirmed = vec![];
        while let Some(event) = connection.recv().await {
            let Event::Message(message) = event else { continue };
            if let Message::OpLog(log) = &message {
                stream.takes(world, log);
            }
            unconfirmed.push(message);
            self.lives_on(&connection, &mut resume, &mut unconfirmed).await;
            if world.chance(0.01) {
                world.note("the application closes its connection");
                // Dropping it is not enough as long as calls wait.
                connection.close(Close::NORMAL);
                return Some(resume);
            }
        }
        self.is_told_of_the_end(nth).await;
        Some(resume)
    }

    /// What an application does between two messages.
    async fn lives_on(
        &self,
        connection: &Connection<AuthenticatedServer>,
        resume: &mut Resume,
        unconfirmed: &mut Vec<Message>,
    ) {
        let world = &self.world;
        let pace = world.pace.load(Ordering::Relaxed);
        if pace > 0 {
            sleep(world.duration(pace)).await;
        }
        // A service that counts waits otherwise.
        if unconfirmed.len() > 4 || world.is_calm() || world.chance(0.4) {
            let some = world.between(1, unconfirmed.len() as u64 + 1) as usize;
            unconfirmed.drain(..some).for_each(|message| resume.stored(&message));
            let text = serde_json::to_string(resume).expect("JSON");
            let digits = String::from_utf8(resume.position.to_vec()).expect("digits");
            let confirmed = digits.parse().ok();
            *world.disk.lock().unwrap() = Disk { resume: Some(text), confirmed };
            if let Ok(true) = connection.acknowledge(resume).await {
                world.note(format_args!("it acknowledges {digits}"));
            }
        }
        if world.chance(0.1) {
            let (world, sender) = (Arc::clone(world), connection.sender().clone());
            tokio::spawn(call(world, sender, Unanswered::new(&self.calls)));
        }
        if world.chance(0.1) {
            self.is_told(connection).await;
        }
    }

    /// A connection that lives is what the client says there is.
    async fn is_told(&self, connection: &Connection<AuthenticatedServer>) {
        let is_so = || {
            let now = self.client.connectivity().borrow().clone();
            let is_this = matches!(&now, Connectivity::Connected { server_id, version }
                if server_id == connection.server_id() && *version == connection.version());
            is_this || connection.end().is_some()
        };
        self.world.check(soon(is_so).await, || "it is connected, and does not say so".into());
    }

    /// When that has ended, there is none, or another.
    async fn is_told_of_the_end(&self, nth: u64) {
        let is_so = || {
            let now = self.client.connectivity().borrow().clone();
            !matches!(now, Connectivity::Connected { .. }) || self.model.connections() > nth
        };
        self.world.check(soon(is_so).await, || "it is not connected, and says so".into());
        let is_so = || {
            let now = self.client.connectivity().borrow().clone();
            let offline =
                matches!(now, Connectivity::Disconnected { reason: None, next_attempt: None });
            self.model.is_online() != offline
        };
        self.world.check(soon(is_so).await, || "it is offline if that is wanted".into());
    }
}

/// Whether this comes to be without anybody waiting for anything.
async fn soon(is_so: impl Fn() -> bool) -> bool {
    for _ in 0..200 {
        if is_so() {
            return true;
        }
        yield_now().await;
    }
    false
}

/// A call is answered, or fails in time, or as soon as its connection has ended.
async fn call(world: Arc<World>, sender: Sender<AuthenticatedServer>, unanswered: Unanswered) {
    let within = match world.chance(0.5) {
        true => world.duration(10_000),
        false => FOR_EVER,
    };
    let subscription_id = format!("00000000-0000-4000-8000-{:012}", world.number());
    let request = SatSubsReq { subscription_id, ..Default::default() };
    let answer = timeout(within + SECOND, sender.call(request, within)).await;
    match answer {
        Err(_) => world.broken("a call has no answer in time"),
        Ok(Err(CallFailure::Ended | CallFailure::NotSent(_))) => {
            let is_so = soon(|| sender.end().is_some()).await;
            world.check(is_so, || "calls fail when their connection ends".into());
        }
        Ok(_) => {}
    }
    drop((sender, unanswered));
}

/// The stream of one connection.
struct Stream {
    /// The transaction that comes next; any where there is no data yet.
    next: Option<u64>,
    /// The one that has begun.
    began: Option<u64>,
}

impl Stream {
    fn takes(&mut self, world: &World, log: &SatOpLog) {
        for op in log.ops.iter().filter_map(|op| op.op.as_ref()) {
            match op {
                Op::Begin(begin) => {
                    let id = begin.transaction_id.expect("an id");
                    world.note(format_args!("transaction {id} arrives"));
                    let next = self.next.unwrap_or(id);
                    world.check(id == next, || format!("transaction {next} is next, and not {id}"));
                    self.began = Some(id);
                }
                Op::Commit(_) => {
                    self.next = self.began.take().map(|id| id + 1);
                    world.check(self.next.is_some(), || "what ends has begun".into());
                    world.arrived();
                }
                other => world.broken(format!("nobody has sent {other:?}")),
            }
        }
    }
}
