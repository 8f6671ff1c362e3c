//! The processor's time that a connection takes of its server.

use std::time::Duration;

use electric_satellite::transport::Limits;

use super::{
    clients::Clients,
    processes::Process,
    servers::{Kind, Subject},
};

/// What HS256 may cost in the place of a bare WebSocket: the times of it.
const BUDGET: f64 = 1.25;

/// What one connection cost, in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// From the first packet to the answer to the first message.
    handshake: f64,
    /// From the close frame to the end of everything.
    close: f64,
}

impl Cost {
    fn whole(&self) -> f64 {
        self.handshake + self.close
    }
}

/// What each server's connections cost, round by round.
pub(crate) type Costs = Vec<(Subject, Vec<Cost>)>;

/// The servers have their turns one after the other, round by round, so that what else the machine
/// does concerns all of them.
pub(crate) async fn measure(rounds: usize, turn: usize) -> Costs {
    let start =
        |subject| (Process::start(&subject, Limits::default().read_buffer), subject, vec![]);
    let mut servers: Vec<_> = Subject::all().into_iter().map(start).collect();
    for round in 0..=rounds {
        for (process, subject, costs) in &mut servers {
            let cost = cost(process, subject, turn).await;
            // The first time is different.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    servers.into_iter().map(|(_, subject, costs)| (subject, costs)).collect()
}

async fn cost(process: &Process, subject: &Subject, turn: usize) -> Cost {
    let each = |time: Duration| time.as_nanos() as f64 / 1000.0 / turn as f64;
    let start = process.cpu_time();
    let clients = Clients::served(subject, process.address, turn).await;
    let served = process.cpu_time();
    clients.close().await;
    let closed = process.cpu_time();
    Cost { handshake: each(served - start), close: each(closed - served) }
}

/// Prints the table. Whether HS256 exceeds its budget.
pub(crate) fn report(costs: &Costs) -> bool {
    let bare = costs.iter().find(|(subject, _)| subject.kind == Kind::WebSocket);
    let (_, bare) = bare.expect("a bare WebSocket");
    println!("CPU per connection, in µs ({} rounds)", bare.len());
    println!("            handshake               close    whole");
    println!("server      is       /WebSocket     is       is       /WebSocket");
    let mut exceeded = false;
    for (subject, costs) in costs {
        let ratio = |part| undisturbed(costs, part) / undisturbed(bare, part);
        let handshake = ratio(|cost| cost.handshake);
        let over = subject.name() == "HS256" && handshake > BUDGET;
        println!(
            "{:<10}  {:>7.1}  {handshake:<5.2} {:<7}  {:>7.1}  {:>7.1}  {:.2}",
            subject.name(),
            undisturbed(costs, |cost| cost.handshake),
            if over { "over!" } else { "" },
            undisturbed(costs, |cost| cost.close),
            undisturbed(costs, Cost::whole),
            ratio(Cost::whole),
        );
        exceeded |= over;
    }
    println!("budget of HS256: a handshake is at most {BUDGET} of WebSocket");
    exceeded
}

/// The best of ten, in every ten: whatever else the machine does only makes them cost more.
fn undisturbed(costs: &[Cost], part: fn(&Cost) -> f64) -> f64 {
    let mut parts: Vec<f64> = costs.iter().map(part).collect();
    parts.sort_by(f64::total_cmp);
    parts[parts.len() / 10]
}
