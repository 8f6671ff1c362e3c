//! Those who flood a server: a process of its own, from many addresses.

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    select,
    task::JoinSet,
    time::interval,
};

use crate::{
    block_on,
    clients::{UPGRADE, masked},
    processes::questions,
    servers::BACKLOG,
    tokens::Signed,
};

/// From how many addresses they come.
const ADDRESSES: u64 = 40;

/// How many attempts are on their way at the same time: half of what a listener lets wait, so that
/// nobody is measured who has not reached the server.
const AT_ONCE: usize = BACKLOG as usize / 2;

/// What is flooded, and with what.
#[derive(Serialize, Deserialize)]
pub(crate) struct Target {
    server: SocketAddr,
    /// An upgrade and an auth request, in one go.
    request: Vec<u8>,
}

impl Target {
    pub(super) fn new(server: SocketAddr, forged: &Signed) -> Target {
        Target { server, request: [UPGRADE, &masked(&forged.frame(0))].concat() }
    }
}

/// What became of attempts that reached the server.
#[derive(Default)]
struct Answered {
    /// Closed without a word.
    closed: AtomicU64,
    turned_away: AtomicU64,
    verified: AtomicU64,
}

impl Answered {
    /// All counts, which begin anew.
    fn take(&self) -> String {
        let [closed, turned_away, verified] =
            [&self.closed, &self.turned_away, &self.verified].map(|count| count.swap(0, Relaxed));
        format!("{closed} {turned_away} {verified}")
    }
}

/// Floods as it is told to: a number begins a flood of so many attempts a second, any other word
/// ends it, and an empty line asks what was answered since the last question.
pub(crate) fn run(Target { server, request }: Target) {
    // Attackers have processors of their own. Here they share those of the server and of the honest
    // clients, and are the last to get them: the flood that is offered is measured, too.
    rustix::process::nice(19).expect("anybody may be nicer");
    let request: Arc<[u8]> = request.into();
    block_on(async {
        let answered = Arc::<Answered>::default();
        let mut questions = questions();
        let mut attack: LocalBoxFuture<'_, ()> = Box::pin(pending());
        let mut since = Instant::now();
        loop {
            let question = select! {
                () = &mut attack => return,
                question = questions.next_line() => question,
            };
            let Ok(Some(question)) = question else { return };
            if question.is_empty() {
                println!("{} {}", since.elapsed().as_secs_f64(), answered.take());
                since = Instant::now();
                continue;
            }
            attack = match question.parse() {
                Ok(rate) => Box::pin(flood(server, &request, rate, &answered)),
                Err(_) => Box::pin(pending()),
            };
            println!();
        }
    });
}

/// So many attempts a second, whatever becomes of them.
async fn flood(server: SocketAddr, request: &Arc<[u8]>, rate: f64, answered: &Arc<Answered>) {
    let start = Instant::now();
    let mut attempts = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(1));
    let mut begun = 0;
    loop {
        ticks.tick().await;
        while attempts.try_join_next().is_some() {}
        let due = (start.elapsed().as_secs_f64() * rate) as u64;
        for nth in begun..due {
            // Those for which there is no room are not made up for.
            if attempts.len() < AT_ONCE {
                let (request, answered) = (Arc::clone(request), Arc::clone(answered));
                let source = Ipv4Addr::new(127, 0, 1, (nth % ADDRESSES) as u8 + 1);
                attempts.spawn(async move {
                    let _ = attempt(source, server, &request, &answered).await;
                });
            }
        }
        begun = due;
    }
}

/// One attempt, which ends as soon as it is clear what became of it.
async fn attempt(
    source: Ipv4Addr,
    server: SocketAddr,
    request: &[u8],
    answered: &Answered,
) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let mut stream = socket.connect(server).await?;
    // It leaves no port behind that must be waited for.
    stream.set_zero_linger()?;
    // A server that closes at once may have done so before the request is written.
    let _ = stream.write_all(request).await;
    let mut answer = vec![];
    while stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {
        if answer.starts_with(b"HTTP/1.1 429 ") {
            answered.turned_away.fetch_add(1, Relaxed);
            return Ok(());
        }
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() > head + 4) {
            if answer.starts_with(b"HTTP/1.1 101 ") {
                answered.verified.fetch_add(1, Relaxed);
            }
            return Ok(());
        }
    }
    if answer.is_empty() {
        answered.closed.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// What became of a flood, over all of it.
#[derive(Default)]
pub(super) struct Tally {
    seconds: f64,
    closed: f64,
    turned_away: f64,
    verified: f64,
}

impl Tally {
    /// Adds what an answer says.
    pub(super) fn add(&mut self, answer: &str) {
        let numbers: Vec<f64> = answer.split(' ').map(|number| number.parse().unwrap()).collect();
        let [seconds, closed, turned_away, verified] = numbers[..] else { panic!("{answer:?}") };
        self.seconds += seconds;
        self.closed += closed;
        self.turned_away += turned_away;
        self.verified += verified;
    }

    /// How many attempts came to an end in a second.
    pub(super) fn offered_per_second(&self) -> f64 {
        (self.closed + self.turned_away + self.verified) / self.seconds
    }

    /// What share of its time this is.
    pub(super) fn share(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.seconds
    }

    pub(super) fn turned_away_per_second(&self) -> f64 {
        self.turned_away / self.seconds
    }

    pub(super) fn verified_per_second(&self) -> f64 {
        self.verified / self.seconds
    }
}
