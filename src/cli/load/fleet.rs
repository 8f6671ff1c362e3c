//! The clients of a run: who they are, and how they connect.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    client::{ClientTls, ConnectError, Connector},
    session::{AuthenticatedServer, ClientId, Close, Token},
    transport::{Connection, Sender},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UdpSocket, lookup_host},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    course::Course,
    failure::Failure,
    incoming::Incoming,
    line::{Knife, Line},
    tally::{LONGEST, Laps, Phase, Tallies},
};
use crate::cli::destination::Destination;

/// The clients, and what they share.
pub(super) struct Fleet {
    pub(super) service: Destination,
    pub(super) tallies: Tallies,
    times: Times,
    course: OnceLock<Course>,
    joined: AtomicUsize,
    lost: AtomicUsize,
    connector: Connector,
    /// Of the service, to be tried in this order.
    addresses: Vec<SocketAddr>,
    /// Of this machine, to be dialled from in turn; the system's choice if there are none.
    sources: Vec<IpAddr>,
    dials: AtomicUsize,
    /// One for each user; clients have them in turn.
    tokens: Vec<Token>,
    ids: Vec<ClientId>,
    /// How many clients may connect at a time.
    doors: Semaphore,
}

/// What lasts how long, and the rate if there is one.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
    pub(super) rate: Option<f64>,
}

/// A client that is connected.
pub(super) struct Member {
    /// Its number.
    pub(super) client: usize,
    pub(super) sender: Sender<AuthenticatedServer>,
    pub(super) incoming: Incoming,
    pub(super) knife: Knife,
}

impl Member {
    fn new(client: usize, connection: Connection<AuthenticatedServer>, knife: Knife) -> Member {
        let (sender, receiver) = connection.split();
        let incoming = Incoming::new(sender.clone(), receiver);
        Member { client, sender, incoming, knife }
    }

    /// Closes normally, and waits until that is through.
    pub(super) async fn leave(self) {
        self.sender.close(Close::NORMAL);
        self.sender.closed().await;
    }
}

/// Where clients dial from, and as whom.
pub(super) struct Crew {
    pub(super) clients: usize,
    pub(super) concurrency: usize,
    pub(super) sources: Vec<IpAddr>,
    pub(super) tokens: Vec<Token>,
}

impl Fleet {
    /// Looks up the service, and makes ready to dial. Nothing is dialled yet.
    pub(super) async fn new(
        service: Destination,
        connector: Connector,
        crew: Crew,
        times: Times,
        tallies: Tallies,
    ) -> Result<Fleet, String> {
        let Crew { clients, concurrency, sources, tokens } = crew;
        let connector = match connector.is_secure() && service.tls()?.is_none() {
            // Once, and not for every connection.
            true => connector.with_tls(ClientTls::platform().map_err(|error| error.to_string())?),
            false => connector,
        };
        let addresses = addresses(&service, &connector, &sources).await?;
        Ok(Fleet {
            service,
            tallies,
            times,
            course: OnceLock::new(),
            joined: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            connector,
            addresses,
            sources,
            dials: AtomicUsize::new(0),
            tokens,
            ids: (0..clients).map(|_| ClientId::random()).collect(),
            doors: Semaphore::new(concurrency),
        })
    }

    pub(super) fn clients(&self) -> std::ops::Range<usize> {
        0..self.ids.len()
    }

    pub(super) fn times(&self) -> Times {
        self.times
    }

    /// Begins what is measured.
    pub(super) fn begin(&self, times: Times) -> &Course {
        let Times { warmup, duration, rate } = times;
        self.course.get_or_init(|| Course::new(Instant::now(), warmup, duration, rate))
    }

    /// What is measured, once it has begun.
    pub(super) fn course(&self) -> Option<&Course> {
        self.course.get()
    }

    /// How many clients have been connected before anything was measured.
    pub(super) fn joined(&self) -> usize {
        self.joined.load(Ordering::Relaxed)
    }

    /// A client that was connected is of no more use.
    pub(super) fn lose(&self, client: usize, failure: Failure) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.tallies.fail(client, failure, true);
    }

    /// How many of those that have been connected are still there.
    pub(super) fn alive(&self) -> usize {
        self.joined().saturating_sub(self.lost.load(Ordering::Relaxed))
    }

    pub(super) fn timeout(&self) -> Duration {
        self.service.timeout()
    }

    pub(super) fn id(&self, client: usize) -> &ClientId {
        &self.ids[client]
    }

    /// Connects a client as soon as few enough others do so. The whole of it counts from when it
    /// was due; without, from then.
    pub(super) async fn admit(
        &self,
        client: usize,
        due: Option<Instant>,
        laps: &mut Laps,
    ) -> Result<Member, Failure> {
        let _door = self.doors.acquire().await;
        let begun = Instant::now();
        if let Some(due) = due {
            laps.set(Phase::Wait, begun - due);
        }
        // Room for what is under way, and not for all who wait.
        let member = Box::pin(self.connect(client, laps)).await?;
        laps.set(Phase::Whole, due.unwrap_or(begun).elapsed());
        Ok(member)
    }

    /// Connects a client, and takes the time of every phase that it comes through.
    pub(super) async fn connect(&self, client: usize, laps: &mut Laps) -> Result<Member, Failure> {
        let started = Instant::now();
        let dialled = timeout(self.timeout(), self.dial()).await;
        let dialled = match dialled {
            Ok(dialled) => dialled.map_err(ConnectError::Unreachable),
            Err(_) => Err(ConnectError::TimedOut(self.timeout())),
        };
        let (line, knife) = Line::new(self.passed(dialled, Phase::Connect)?);
        laps.set(Phase::Connect, started.elapsed());
        let connection = match self.connector.is_secure() {
            false => self.handshake(client, line, laps).await?,
            true => {
                let started = Instant::now();
                let secured = self.connector.secure(line).await;
                let stream = self.passed(secured, Phase::Tls)?;
                laps.set(Phase::Tls, started.elapsed());
                self.handshake(client, stream, laps).await?
            }
        };
        Ok(Member::new(client, connection, knife))
    }

    async fn handshake<S>(
        &self,
        client: usize,
        stream: S,
        laps: &mut Laps,
    ) -> Result<Connection<AuthenticatedServer>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let started = Instant::now();
        let upgraded = self.passed(self.connector.upgrade(stream).await, Phase::Upgrade)?;
        laps.set(Phase::Upgrade, started.elapsed());
        let started = Instant::now();
        let token = self.tokens[client % self.tokens.len()].clone();
        let connection = upgraded.authenticate(self.id(client), token).await;
        let connection = self.passed(connection, Phase::Authenticate)?;
        laps.set(Phase::Authenticate, started.elapsed());
        Ok(connection)
    }

    fn passed<T>(&self, outcome: Result<T, ConnectError>, phase: Phase) -> Result<T, Failure> {
        outcome.map_err(|error| Failure::connecting(&self.service, phase, &error))
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
        for address in &self.addresses {
            outcome = self.dial_to(*address).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn dial_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if !self.sources.is_empty() {
            let dial = self.dials.fetch_add(1, Ordering::Relaxed);
            socket.bind((self.sources[dial % self.sources.len()], 0).into())?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The addresses of the service that can be dialled from these.
async fn addresses(
    service: &Destination,
    connector: &Connector,
    sources: &[IpAddr],
) -> Result<Vec<SocketAddr>, String> {
    for source in sources {
        let bound = UdpSocket::bind((*source, 0)).await;
        bound.map_err(|error| format!("--source {source}: {error}; is it of this machine?"))?;
    }
    let found = lookup_host(connector.address()).await;
    let found: Vec<_> = found.map_err(|error| format!("{}: {error}", service.url))?.collect();
    let reachable =
        |address: &SocketAddr| sources.iter().all(|source| source.is_ipv4() == address.is_ipv4());
    let addresses: Vec<_> = found.iter().copied().filter(reachable).collect();
    match addresses.is_empty() {
        false => Ok(addresses),
        true => Err(format!(
            "{} cannot be reached from every --source: it is at {found:?}",
            service.url
        )),
    }
}

/// Connects every client, so many at a time or by a rate, and takes each through `then`. Failures
/// are counted, and the latencies if they are wanted.
pub(super) async fn gather<T, F>(
    fleet: &Arc<Fleet>,
    rate: Option<f64>,
    with_latencies: bool,
    then: fn(Arc<Fleet>, Member) -> F,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    // It ends when all have begun.
    let course = Arc::new(Course::new(Instant::now(), Duration::ZERO, LONGEST, rate));
    let mut joining = JoinSet::new();
    for client in fleet.clients() {
        let (fleet, course) = (Arc::clone(fleet), Arc::clone(&course));
        joining.spawn(async move {
            let turn = course.turn().await?;
            let due = rate.map(|_| turn.due);
            let mut laps = Laps::default();
            let member = fleet.admit(client, due, &mut laps).await;
            if with_latencies {
                fleet.tallies.of(client).laps(&laps);
            }
            match member {
                Ok(member) => {
                    fleet.joined.fetch_add(1, Ordering::Relaxed);
                    let joined = then(Arc::clone(&fleet), member).await;
                    joined.map_err(|failure| fleet.lose(client, failure)).ok()
                }
                Err(failure) => {
                    fleet.tallies.fail(client, failure, true);
                    None
                }
            }
        });
    }
    joining.join_all().await.into_iter().flatten().collect()
}
