//! How costs grow with the number of connections that are open: so many are authenticated and
//! idle while others come, shake hands and go.
//!
//! The servers with few and with many take turns, as in [`cpu`](super::cpu), and memory is what
//! [`memory`](super::memory) says it is. How throughput grows with the size of a message is among
//! the figures of [`stream`](super::stream), up to 1 MiB.

use super::{
    Measured, block_on,
    clients::Clients,
    cpu::Measurement,
    memory,
    report::Row,
    scale::Scale,
    servers::{Manner, Subject},
};

pub(crate) fn measure(scale: &Scale) -> Measured {
    let subjects = [Subject::bare_websocket(), Subject::satellite(Manner::Plain, "HS256")];
    let mut rows = vec![];
    for subject in &subjects {
        let costs = block_on(costs(subject, scale));
        rows.extend(costs.iter().flat_map(|cost| cost.rows(subject)));
        if let [few, .., many] = &costs[..] {
            let figure =
                format!("{} handshake, {} open / {} open", subject.name(), many.open, few.open);
            rows.push(Row::ratio(figure, many.handshake / few.handshake));
        }
    }
    Ok(rows)
}

/// What there is while so many connections are open.
struct Cost {
    open: usize,
    /// What one more handshake costs, in microseconds.
    handshake: f64,
    /// What each holds, in bytes.
    memory: f64,
}

async fn costs(subject: &Subject, scale: &Scale) -> Vec<Cost> {
    let mut servers = vec![];
    for &open in &scale.open {
        // A warm-up of more connections would leave behind what a few more can use.
        let (mut process, before) = memory::start(subject, 1).await;
        let idle = Clients::served(subject, process.address, 0..open).await;
        let memory = process.holdings().share(&before, open).memory;
        let measurement = Measurement { subject: subject.clone(), process, costs: vec![] };
        servers.push((measurement, open, memory, idle));
    }
    for round in 0..=scale.rounds {
        for (server, open, ..) in &mut servers {
            server.turn(*open, scale.turn).await;
            if round == 0 {
                // The first time is different.
                server.costs.clear();
            }
        }
    }
    let cost = |(server, open, memory, _): &(Measurement, usize, f64, Clients<'_>)| Cost {
        open: *open,
        handshake: server.handshake(),
        memory: *memory,
    };
    servers.iter().map(cost).collect()
}

impl Cost {
    fn rows(&self, subject: &Subject) -> [Row; 2] {
        let Cost { open, handshake, memory } = self;
        let figure = format!("{}, {open} open", subject.name());
        [
            Row::new(format!("{figure}: handshake"), *handshake, "µs"),
            Row::new(format!("{figure}: memory"), *memory, "B/connection"),
        ]
    }
}
