//! Who comes: honest clients, and others. Each kind says what it may be counted as.

use std::{
    future::Future,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    client::{ConnectError, Connector},
    session::{AuthenticatedServer, Cause, ClientId, Close, End, Token},
    transport::Connection,
    wire::proto::{SatInStartReplicationReq, SatInStopReplicationReq},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::sleep};

use crate::{
    random::Random,
    raw::{
        BINARY, WebSocket, authenticate, bad_token, call, frame, frame_head, read_answer,
        upgrade_request,
    },
    service::{connect_from, loopback},
    world::{PER_ADDRESS, World},
};

/// A kind of connection, and what the service may count it as.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// `authenticated`, or the reasons for which it is not.
    pub(crate) fates: &'static [&'static str],
    /// The close codes with which it ends, once authenticated.
    pub(crate) closes: &'static [&'static str],
}

const fn honest(name: &'static str, closes: &'static [&'static str]) -> Kind {
    Kind { name, fates: &["authenticated"], closes }
}

const fn hostile(name: &'static str, fates: &'static [&'static str]) -> Kind {
    Kind { name, fates, closes: &[] }
}

const VISIT: Kind = honest("honest: visit", &["none"]);
const SITTER: Kind = honest("honest: stays as long as it may", &["none"]);
pub(crate) const RESIDENT: Kind = honest("honest: is revoked", &["4000"]);
const TWIN: Kind = honest("honest: takes over from itself", &["1007", "none"]);
const PROBE: Kind = Kind {
    name: "honest: tries a key",
    fates: &["authenticated", "auth refused"],
    closes: &["none"],
};
const SILENT: Kind = hostile("http: silence", &["upgrade timed out"]);
const HALF: Kind = hostile("http: half a request", &["http failed", "not upgraded"]);
const RANDOM: Kind = hostile("http: random bytes", &["http failed", "not upgraded"]);
const QUESTIONS: Kind = hostile("http: other questions", &["not upgraded"]);
const OLD: Kind = hostile("http: a version that is not spoken", &["not upgraded"]);
const MUTE: Kind = hostile("websocket: silence", &["ended before authentication"]);
const GARBAGE: Kind = hostile("websocket: garbage", &["ended before authentication"]);
const STRANGER: Kind = hostile("a token of another key", &["auth refused"]);
const REPLAY: Kind = hostile("a token that was used", &["auth refused"]);
const THIEF: Kind = hostile("another user's client id", &["not registered"]);
const RESET: Kind = Kind {
    name: "a reset at any point",
    fates: &["http failed", "not upgraded", "ended before authentication", "authenticated"],
    closes: &["none"],
};
const VANISHING: Kind = honest("authenticated: vanishes", &["none"]);
const BREACH: Kind = honest("authenticated: breaks a rule", &["1002", "1003", "1007", "1009"]);
const ROOM: Kind = hostile("websocket: as many as there may be", &["ended before authentication"]);
const NO_ROOM: Kind = hostile("websocket: one more", &["not upgraded"]);

/// Clients that come again and again until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    pub(crate) fn begin(world: &World) -> Load {
        let mut load = Load { stop: Arc::default(), tasks: JoinSet::new() };
        for _ in 0..4 {
            load.again(world, visit);
        }
        for _ in 0..2 {
            load.again(world, twins);
            load.again(world, silent);
            load.again(world, mute);
            load.again(world, reset);
        }
        load.again(world, half);
        load.again(world, random);
        load.again(world, questions);
        load.again(world, old);
        load.again(world, garbage);
        load.again(world, stranger);
        load.again(world, replay);
        load.again(world, thief);
        load.again(world, vanishing);
        load.again(world, breach);
        for _ in 0..5 {
            let (world, stop) = (world.clone(), Arc::clone(&load.stop));
            load.tasks.spawn(async move { sit(&world, &stop).await });
        }
        load
    }

    fn again<F>(&mut self, world: &World, come: impl Fn(World, Random) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let (world, stop) = (world.clone(), Arc::clone(&self.stop));
        let mut random = world.random();
        self.tasks.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                come(world.clone(), random.fork()).await;
                sleep(random.time(Duration::from_millis(5)..Duration::from_millis(60))).await;
            }
        });
    }

    /// Lets everybody finish what it does.
    pub(crate) async fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no panic");
        }
    }
}

/// Any of many addresses, so that failing does not count against anybody.
fn somewhere(random: &mut Random) -> IpAddr {
    let byte = |n: usize| u8::try_from(n).expect("a byte");
    loopback(byte(1 + random.below(200)), byte(random.below(256)), byte(1 + random.below(254)))
}

/// One of the few addresses that the hostile share.
fn bad_quarter(random: &mut Random) -> IpAddr {
    loopback(210, 0, 1 + u8::from(random.percent(50)))
}

/// Connects, and enters that into the books.
async fn connect(world: &World, kind: &'static Kind, from: IpAddr) -> Option<TcpStream> {
    match connect_from(from, world.service()).await {
        Ok(stream) => {
            world.ledger().connected(kind);
            Some(stream)
        }
        Err(error) => {
            world.failed(kind, error);
            None
        }
    }
}

/// Upgrades, and says so if it is not let to.
async fn open(world: &World, kind: &'static Kind, from: IpAddr) -> Option<WebSocket<TcpStream>> {
    let stream = connect(world, kind, from).await?;
    let opened = WebSocket::open(stream, "").await;
    opened.map_err(|answer| world.failed(kind, answer)).ok()
}

/// The library's client is let in, or not.
async fn try_enter(
    world: &World,
    kind: &'static Kind,
    client_id: &ClientId,
    token: Token,
) -> Option<Result<Connection<AuthenticatedServer>, ConnectError>> {
    let stream = connect(world, kind, somewhere(&mut world.random())).await?;
    let client = Connector::new(&format!("ws://{}", world.service())).expect("a URL");
    Some(match client.upgrade(stream).await {
        Ok(upgraded) => upgraded.authenticate(client_id, token).await,
        Err(error) => Err(error),
    })
}

async fn enter_as(
    world: &World,
    kind: &'static Kind,
    client_id: &ClientId,
    user: &str,
) -> Option<Connection<AuthenticatedServer>> {
    let signing = world.signing().await;
    let entered = try_enter(world, kind, client_id, signing.token(user)).await?;
    entered.map_err(|error| world.failed(kind, error)).ok()
}

pub(crate) async fn enter(
    world: &World,
    kind: &'static Kind,
    user: &str,
) -> Option<Connection<AuthenticatedServer>> {
    enter_as(world, kind, &ClientId::random(), user).await
}

fn is_refused(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Ended(End { cause: Cause::RefusedByServer(_), .. }))
}

/// Whether the token is accepted.
pub(crate) async fn is_let_in(world: &World, token: Token) -> bool {
    match try_enter(world, &PROBE, &ClientId::random(), token).await {
        Some(Ok(connection)) => {
            leave(connection).await;
            true
        }
        Some(Err(error)) if is_refused(&error) => false,
        other => panic!("{other:?}"),
    }
}

async fn leave(connection: Connection<AuthenticatedServer>) {
    connection.close(Close::NORMAL);
    connection.closed().await;
}

async fn visit(world: World, _: Random) {
    const WITHIN: Duration = Duration::from_secs(20);
    let Some(connection) = enter(&world, &VISIT, "u").await else { return };
    let start = SatInStartReplicationReq::default();
    match connection.call(start, WITHIN).await {
        Ok(started) if started.err.is_none() => {}
        other => return world.failed(&VISIT, other),
    }
    if let Err(error) = connection.call(SatInStopReplicationReq {}, WITHIN).await {
        world.failed(&VISIT, error);
    }
    leave(connection).await;
}

/// Stays until everybody goes. Only a service that stops may send it away, and not without a word.
async fn sit(world: &World, stop: &AtomicBool) {
    let Some(connection) = enter(world, &SITTER, "sitter").await else { return };
    while connection.end().is_none() && !stop.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(50)).await;
    }
    connection.close(Close::NORMAL);
    match &connection.closed().await.cause {
        Cause::Local => {}
        Cause::Peer(Some(close)) if close.code == 1001 && world.is_stopping() => {}
        cause => panic!("a sitter was sent away: {cause}"),
    }
}

/// One client twice: the second takes the place of the first.
async fn twins(world: World, _: Random) {
    let client_id = ClientId::random();
    let Some(first) = enter_as(&world, &TWIN, &client_id, "twin").await else { return };
    let Some(second) = enter_as(&world, &TWIN, &client_id, "twin").await else { return };
    let end = first.closed().await;
    if end.close.as_ref().is_some_and(|close| close.code == 1000) || second.end().is_some() {
        world.failed(&TWIN, end);
    }
    leave(second).await;
}

/// Another user with the client id of somebody who is there.
async fn thief(world: World, _: Random) {
    let client_id = ClientId::random();
    let Some(owner) = enter_as(&world, &VISIT, &client_id, "owner").await else { return };
    let signing = world.signing().await;
    match try_enter(&world, &THIEF, &client_id, signing.token("thief")).await {
        Some(Err(error)) if is_refused(&error) => {}
        other => world.failed(&THIEF, other),
    }
    drop(signing);
    if let Some(end) = owner.end() {
        world.failed(&VISIT, end);
    }
    leave(owner).await;
}

async fn replay(world: World, _: Random) {
    let signing = world.signing().await;
    let token = signing.token("u");
    let client_id = ClientId::random();
    let once = try_enter(&world, &VISIT, &client_id, token.clone()).await;
    let Some(Ok(connection)) = once else { return world.failed(&VISIT, once) };
    leave(connection).await;
    match try_enter(&world, &REPLAY, &client_id, token).await {
        Some(Err(error)) if is_refused(&error) => {}
        other => world.failed(&REPLAY, other),
    }
}

async fn stranger(world: World, mut random: Random) {
    let Some(mut socket) = open(&world, &STRANGER, somewhere(&mut random)).await else { return };
    socket.send(&authenticate("stranger", &bad_token())).await;
    match socket.close().await {
        Some((1007, _)) => {}
        other => world.failed(&STRANGER, other),
    }
}

/// Reads until the service has had enough.
async fn until_cut_off(mut stream: TcpStream) {
    while read_answer(&mut stream).await.is_some() {}
}

async fn silent(world: World, mut random: Random) {
    let Some(stream) = connect(&world, &SILENT, bad_quarter(&mut random)).await else { return };
    until_cut_off(stream).await;
}

/// Says this, and no more.
async fn say(world: &World, kind: &'static Kind, from: IpAddr, bytes: &[u8]) {
    let Some(mut stream) = connect(world, kind, from).await else { return };
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    until_cut_off(stream).await;
}

async fn half(world: World, mut random: Random) {
    let request = upgrade_request("");
    let half = random.below(request.len());
    say(&world, &HALF, bad_quarter(&mut random), &request.as_bytes()[..half]).await;
}

async fn random(world: World, mut random: Random) {
    // Long enough that it is not taken for the beginning of something.
    let bytes = random.bytes(2000);
    say(&world, &RANDOM, bad_quarter(&mut random), &bytes).await;
}

/// Asks, and goes when it has these answers.
async fn ask(world: &World, kind: &'static Kind, from: IpAddr, request: &str, statuses: &[u16]) {
    let Some(mut stream) = connect(world, kind, from).await else { return };
    let _ = stream.write_all(request.as_bytes()).await;
    for status in statuses {
        match read_answer(&mut stream).await {
            Some(answer) if answer.status == *status => {}
            other => return world.failed(kind, other),
        }
    }
}

async fn questions(world: World, mut random: Random) {
    let questions = "GET /api/status HTTP/1.1\r\nHost: x\r\n\r\nPUT /x HTTP/1.1\r\nHost: x\r\n\r\n";
    ask(&world, &QUESTIONS, bad_quarter(&mut random), questions, &[200, 404]).await;
}

async fn old(world: World, mut random: Random) {
    let request = upgrade_request("").replace("electric.0.12", "electric.0.5");
    ask(&world, &OLD, bad_quarter(&mut random), &request, &[400]).await;
}

async fn mute(world: World, mut random: Random) {
    let Some(mut socket) = open(&world, &MUTE, bad_quarter(&mut random)).await else { return };
    match socket.close().await {
        Some((4408, _)) => {}
        other => world.failed(&MUTE, other),
    }
}

async fn garbage(world: World, mut random: Random) {
    let Some(mut socket) = open(&world, &GARBAGE, bad_quarter(&mut random)).await else { return };
    let length = 1 + random.below(300);
    socket.send(&frame(BINARY, &random.bytes(length))).await;
    socket.close().await;
}

/// A raw client that is let in.
async fn enter_raw(
    world: &World,
    kind: &'static Kind,
    random: &mut Random,
) -> Option<WebSocket<TcpStream>> {
    let signing = world.signing().await;
    let mut socket = open(world, kind, somewhere(random)).await?;
    let client_id = format!("raw {}", world.unique());
    socket.send(&authenticate(&client_id, &signing.token("raw"))).await;
    match socket.next().await {
        Some((2, _)) => Some(socket),
        other => {
            world.failed(kind, other);
            None
        }
    }
}

async fn vanishing(world: World, mut random: Random) {
    let Some(mut socket) = enter_raw(&world, &VANISHING, &mut random).await else { return };
    let calls = call(SatInStopReplicationReq {}, 2).repeat(random.below(50));
    socket.send(&calls).await;
    reset_now(socket.stream.get_ref().get_ref());
}

async fn breach(world: World, mut random: Random) {
    let Some(mut socket) = enter_raw(&world, &BREACH, &mut random).await else { return };
    let breach = match random.below(4) {
        0 => frame(BINARY | 0x40, b"reserved"),
        1 => frame(0x81, b"text"),
        2 => frame(BINARY, &[0xff; 40]),
        _ => frame_head(BINARY, 17 << 20),
    };
    socket.send(&breach).await;
    if socket.close().await.is_none() {
        world.failed(&BREACH, "no close");
    }
}

async fn reset(world: World, mut random: Random) {
    let signing = world.signing().await;
    let mut bytes = upgrade_request("").into_bytes();
    let client_id = format!("reset {}", world.unique());
    bytes.extend(authenticate(&client_id, &signing.token("reset")));
    bytes.extend(call(SatInStartReplicationReq::default(), 2));
    bytes.extend(frame(0x89, b"x"));
    let point = random.below(bytes.len());
    let Some(mut stream) = connect(&world, &RESET, bad_quarter(&mut random)).await else { return };
    let _ = stream.write_all(&bytes[..point]).await;
    sleep(Duration::from_millis(random.below(30) as u64)).await;
    reset_now(&stream);
}

/// Dropping the stream resets the connection.
fn reset_now(stream: &TcpStream) {
    stream.set_zero_linger().expect("an option");
}

/// Whether an address of the hostile has all its places again: all can be taken, and no more.
pub(crate) async fn all_places_are_free(world: &World) {
    let from = loopback(210, 0, 1);
    let mut held = vec![];
    for n in 0..PER_ADDRESS {
        let socket = open(world, &ROOM, from).await;
        held.push(socket.unwrap_or_else(|| panic!("of {PER_ADDRESS} places, {n} are free")));
    }
    let stream = connect(world, &NO_ROOM, from).await.expect("it listens");
    match WebSocket::open(stream, "").await {
        Err(Some(answer)) if answer.status == 429 => world.ledger().limit_hit(),
        _ => panic!("one more than there may be"),
    }
}
