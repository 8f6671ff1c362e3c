//! A restart under clients that come back by themselves: they settle, without a storm.

mod peers;
mod random;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::JwtAuthenticator,
    client::Connector,
    server::{Drain, Server, empty_database},
    session::{AuthenticatedServer, ClientId, Token},
    transport::{Connection, Limits},
    wire::{Reply, proto::SatInStartReplicationReq},
};
use tokio::{
    io::{DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep},
};

use peers::{
    Heard, POLITE, Peer, SECOND, ends, http, serve, server, soon, token_of, upgrade_request,
};
use random::Random;

const MS: Duration = Duration::from_millis(1);

type Service = Server<JwtAuthenticator>;

// In memory and in paused time, by the rules of the published clients.

const CLIENTS: usize = 1000;

/// How many handshakes the service lets begin in a second.
const RATE: u32 = 100;

/// Where the service is to be found, if it runs.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Option<Service>>>);

impl Place {
    fn is_taken_by(&self, service: Option<&Service>) {
        *self.0.lock().expect("no panic") = service.cloned();
    }

    fn dial(&self, from: IpAddr) -> io::Result<DuplexStream> {
        let service = self.0.lock().expect("no panic").clone();
        let service = service.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, far) = duplex(4096);
        tokio::spawn(async move {
            if let Ok(connection) = service.accept_from(far, from).await {
                empty_database(connection).await;
            }
        });
        Ok(near)
    }
}

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Came {
    /// Nobody listens.
    ToNothing,
    /// 503, and a time to come back.
    TooEarly,
    /// The upgrade was granted.
    In,
}

/// Every attempt, in the order of time.
type Attempts = Arc<Mutex<Vec<(Instant, usize, Came)>>>;

/// A published client (0.7 to 0.12): it comes back at once when it is closed; when it is refused,
/// after a part by chance of 1 s, that doubles up to 10 s. It cannot see when it is told to.
struct Published {
    nth: usize,
    place: Place,
    attempts: Attempts,
    random: Random,
}

impl Published {
    async fn stay(mut self) {
        let mut pause = SECOND;
        loop {
            match self.attempt().await {
                Some(mut peer) => {
                    pause = SECOND;
                    while !matches!(peer.hear().await, Heard::Gone) {}
                }
                None => {
                    sleep(self.random.time(Duration::ZERO..pause)).await;
                    pause = (2 * pause).min(10 * SECOND);
                }
            }
        }
    }

    async fn attempt(&mut self) -> Option<Peer> {
        let address = Ipv4Addr::from(0x0a00_0000 + u32::try_from(self.nth).expect("few"));
        let Ok(mut stream) = self.place.dial(address.into()) else {
            return self.came(Came::ToNothing, None);
        };
        let answer = http(&mut stream, &upgrade_request()).await;
        if answer.status != 101 {
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.retry_after().is_some_and(|seconds| seconds >= 1), "{answer:?}");
            return self.came(Came::TooEarly, None);
        }
        self.came(Came::In, None);
        let mut peer = Peer::on(POLITE, stream);
        peer.authenticate(&format!("client {}", self.nth), &token_of("u")).await;
        peer.call(2, SatInStartReplicationReq::default()).await;
        let started = peer.hear().await;
        assert!(matches!(started.reply(), Ok(Reply::StartReplication(_))), "{started:?}");
        Some(peer)
    }

    fn came(&self, came: Came, peer: Option<Peer>) -> Option<Peer> {
        self.attempts.lock().expect("no panic").push((Instant::now(), self.nth, came));
        peer
    }
}

/// Takes the attempts so far.
fn take(attempts: &Attempts) -> Vec<(Instant, usize, Came)> {
    std::mem::take(&mut *attempts.lock().expect("no panic"))
}

/// That no more was let in than the rate has it, in any time whenever it began: a second's worth at
/// once, and the rest at its pace.
fn assert_paced(attempts: &[(Instant, usize, Came)]) {
    let let_in: Vec<_> = attempts.iter().filter(|(.., came)| *came == Came::In).collect();
    for (nth, (from, ..)) in let_in.iter().enumerate() {
        for (count, (to, ..)) in (1..).zip(&let_in[nth..]) {
            let time = *to - *from;
            assert!(
                count * 1000 <= u128::from(RATE) * (1000 + time.as_millis()),
                "{count} in {time:?}"
            );
        }
    }
}

/// How many attempts the client made that made most.
fn most_of_one<'a>(attempts: impl IntoIterator<Item = &'a (Instant, usize, Came)>) -> usize {
    let mut made = vec![0; CLIENTS];
    attempts.into_iter().for_each(|(_, nth, _)| made[*nth] += 1);
    made.into_iter().max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clients_settle_after_a_restart_at_the_rate_that_is_set() {
    let paced = || {
        let limits = Limits { handshakes_per_second: Some(RATE), ..Limits::default() };
        server().with_limits(limits)
    };
    let (place, attempts) = (Place::default(), Attempts::default());
    let before = paced();
    place.is_taken_by(Some(&before));
    let mut random = Random::seeded(1000);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|nth| {
            let (place, attempts) = (place.clone(), Arc::clone(&attempts));
            tokio::spawn(Published { nth, place, attempts, random: random.fork() }.stay())
        })
        .collect();
    let all_in = |count: &usize| *count == CLIENTS;
    ends(before.connections().wait_for(all_in)).await.expect("it serves");
    // They all came at once.
    let storm = take(&attempts);
    assert_paced(&storm);

    ends(before.drain(Drain::default())).await;
    assert_eq!(*before.connections().borrow(), 0);
    place.is_taken_by(None);
    sleep(3 * SECOND).await;
    let meanwhile = take(&attempts);
    assert!(meanwhile.iter().all(|(.., came)| *came != Came::In), "it stops, or is down");

    let after = paced();
    place.is_taken_by(Some(&after));
    let began = Instant::now();
    ends(after.connections().wait_for(all_in)).await.expect("it serves");
    let took = began.elapsed();
    let back = take(&attempts);
    assert_paced(&back);
    assert!(back.iter().any(|(.., came)| *came == Came::TooEarly), "there was nothing to pace");
    // The rate alone would have it 9 s.
    assert!(took <= 30 * SECOND, "settled after {took:?}");
    assert!(back.len() <= 2 * CLIENTS, "{} attempts", back.len());
    assert!(storm.len() <= 5 * CLIENTS, "{} attempts", storm.len());
    // They would give up after 50.
    assert!(most_of_one(&storm) <= 15, "{}", most_of_one(&storm));
    let most = most_of_one(meanwhile.iter().chain(&back));
    assert!(most <= 15, "{most}");

    // That was all.
    sleep(100 * SECOND).await;
    assert_eq!(take(&attempts), []);
    assert_eq!(*after.connections().borrow(), CLIENTS);
    clients.iter().for_each(JoinHandle::abort);
}

// Over TCP, where time is real. Fewer, for that reason alone: they go to and fro through the
// kernel, while those above wait in no time.

/// Shared by clients that come back whenever they are closed.
#[derive(Default)]
struct Fleet {
    attempts: AtomicUsize,
    refused: AtomicUsize,
    refusals: Notify,
}

impl Fleet {
    /// Stays connected: at once when it is closed, like clients from 0.9.4 on, and with a back-off
    /// when it is refused.
    async fn stay(self: Arc<Fleet>, address: SocketAddr, nth: usize) {
        let client = Connector::new(&format!("ws://{address}")).expect("a URL");
        let id = ClientId::new(format!("client {nth}")).expect("an id");
        let first = 10 * MS + MS * u32::try_from(nth).expect("small");
        let mut pause = first;
        loop {
            self.attempts.fetch_add(1, Ordering::SeqCst);
            match Fleet::connect(&client, address, &id).await {
                Some(connection) => {
                    connection.closed().await;
                    pause = first;
                }
                None => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    self.refusals.notify_one();
                    sleep(pause).await;
                    pause = (2 * pause).min(SECOND);
                }
            }
        }
    }

    async fn connect(
        client: &Connector,
        address: SocketAddr,
        id: &ClientId,
    ) -> Option<Connection<AuthenticatedServer>> {
        let stream = TcpStream::connect(address).await.ok()?;
        // While nobody listens on a port of the dynamic range, a connection may meet itself.
        if stream.local_addr().ok()? == address {
            return None;
        }
        let token = Token::new(token_of("u")).expect("a token");
        client.upgrade(stream).await.ok()?.authenticate(id, token).await.ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fleet_comes_back_after_a_restart() {
    const CLIENTS: usize = 200;
    let patient =
        Limits { upgrade_timeout: 100 * SECOND, auth_timeout: 100 * SECOND, ..Default::default() };
    let before = server().with_limits(patient.clone());
    let (address, serving) = serve(&before, empty_database).await;
    let fleet = Arc::new(Fleet::default());
    let clients: Vec<_> =
        (0..CLIENTS).map(|nth| tokio::spawn(Arc::clone(&fleet).stay(address, nth))).collect();
    soon(before.connections().wait_for(|&count| count == CLIENTS)).await.expect("it serves");

    soon(before.drain(Drain { spread: SECOND / 2, ..Drain::default() })).await;
    soon(serving).await.expect("no panic");
    assert_eq!(*before.connections().borrow(), 0);
    // Down until everybody has noticed.
    soon(async {
        while fleet.refused.load(Ordering::SeqCst) < 2 * CLIENTS {
            fleet.refusals.notified().await;
        }
    })
    .await;

    let attempts_before = fleet.attempts.load(Ordering::SeqCst);
    let after = server().with_limits(patient);
    let listener = soon(async {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                // A connection that has met itself.
                Err(_) => sleep(MS).await,
            }
        }
    })
    .await;
    let serving = {
        let after = after.clone();
        tokio::spawn(async move { after.serve(listener, empty_database).await })
    };
    soon(after.connections().wait_for(|&count| count == CLIENTS)).await.expect("it serves");
    let attempts = fleet.attempts.load(Ordering::SeqCst) - attempts_before;
    assert!(attempts <= 3 * CLIENTS, "{attempts} attempts until {CLIENTS} clients were in");
    assert_eq!(*before.connections().borrow(), 0);
    clients.iter().for_each(JoinHandle::abort);
    serving.abort();
}
