//! What connections hold: memory, tasks, and the processor's attention.

use std::{thread::sleep, time::Duration};

use super::{
    clients::Clients,
    processes::{Holdings, Process},
    servers::Subject,
};

/// How many bytes an idle, authenticated connection may take.
const BUDGET: f64 = 5_000.0;

/// The sizes of what each connection reads through: the default of a server, which is judged, and
/// a larger one.
const READ_BUFFERS: [usize; 2] = [1024, 4096];

/// How many connections may wait until they are accepted: no more than a listener lets.
const UNACCEPTED: usize = 100;

/// What one connection of many holds.
struct Share {
    heap: f64,
    anonymous: f64,
    tasks: f64,
}

/// What a server's connections hold, one by one.
pub(crate) struct Shares {
    server: &'static str,
    read_buffer: usize,
    /// Connected, and silent.
    connected: Share,
    /// Upgraded, and silent since.
    upgraded: Share,
    /// Its message is answered: it is authenticated, with a handler that waits.
    served: Share,
    /// How often the server woke while nobody did anything.
    wakes: u64,
}

/// Each server has all its connections at the same time.
pub(crate) async fn measure(connections: usize, idle: Duration) -> Vec<Shares> {
    let mut shares = vec![];
    for read_buffer in READ_BUFFERS {
        for server in ["WebSocket", "HS256"] {
            shares.push(hold(server, read_buffer, connections, idle).await);
        }
    }
    shares
}

async fn hold(
    server: &'static str,
    read_buffer: usize,
    connections: usize,
    idle: Duration,
) -> Shares {
    let subject = Subject::named(server);
    let connected = connected(&subject, read_buffer, connections).await;
    let (mut process, before) = start(&subject, read_buffer).await;
    let mut clients = Clients::upgraded(&subject, process.address, connections).await;
    let upgraded = process.holdings().share(&before, connections);
    clients.exchange().await;
    let served = process.holdings().share(&before, connections);
    let sleeps = process.sleeps();
    sleep(idle);
    let wakes = process.sleeps() - sleeps;
    Shares { server, read_buffer, connected, upgraded, served, wakes }
}

/// In a process of its own, for what is freed later does not go back to the operating system.
async fn connected(subject: &Subject, read_buffer: usize, connections: usize) -> Share {
    let (mut process, before) = start(subject, read_buffer).await;
    let mut clients = vec![];
    for first in (0..connections).step_by(UNACCEPTED) {
        let count = UNACCEPTED.min(connections - first);
        clients.push(Clients::connected(subject, process.address, count).await);
        process.settle();
    }
    process.holdings().share(&before, connections)
}

/// A server that has what it only allocates once, and what it holds.
async fn start(subject: &Subject, read_buffer: usize) -> (Process, Holdings) {
    let mut process = Process::start(subject, read_buffer);
    Clients::served(subject, process.address, 100).await.close().await;
    let before = process.holdings();
    (process, before)
}

impl Holdings {
    /// What each of so many connections has added.
    fn share(&self, before: &Holdings, connections: usize) -> Share {
        let each = |now: u64, before| now.saturating_sub(before) as f64 / connections as f64;
        Share {
            heap: each(self.heap, before.heap),
            anonymous: each(self.anonymous, before.anonymous),
            tasks: each(self.tasks, before.tasks),
        }
    }
}

/// Prints the table. Returns whether the budget is exceeded with the default read buffer.
pub(crate) fn report(shares: &[Shares], connections: usize, idle: Duration) -> bool {
    let mut exceeded = false;
    println!();
    println!("heap and other memory per connection, in bytes ({connections} at the same time)");
    println!("            read    connected        upgraded         served");
    println!("server      buffer  heap    memory   heap    memory   heap    memory     tasks");
    for Shares { server, read_buffer, connected, upgraded, served, .. } in shares {
        print!("{server:<10}  {read_buffer:<6}  ");
        for Share { heap, anonymous, .. } in [connected, upgraded, served] {
            print!("{heap:<6.0}  {anonymous:<7.0}  ");
        }
        let over = *server == "HS256" && served.anonymous > BUDGET;
        exceeded |= over && *read_buffer == READ_BUFFERS[0];
        println!("{:1}  {:.2}", if over { "!" } else { "" }, served.tasks);
    }
    println!("budget of HS256, which ! exceeds: {BUDGET} bytes of memory, 1 task");
    let wakes: Vec<u64> = shares.iter().map(|shares| shares.wakes).collect();
    println!("woken in {idle:?} without anything to do: {wakes:?} times");
    exceeded
}
