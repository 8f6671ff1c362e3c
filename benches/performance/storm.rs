//! A reconnect storm: all clients lose their connections at once, and all come back.
//!
//! So many authenticated connections are reset without a close frame, and every client connects
//! again as fast as it can, 256 on their way at the same time, under the client id and with the
//! token that it had. Each client has an ES256 token of its own.
//!
//! The server with a cache of verified tokens is compared with one without JWT: insecure mode, to
//! which the very same tokens are presented. The two take turns. What counts is the processor's
//! time of the server, from the cut until all are back and it is idle, per client: the 10th
//! percentile of the turns. The wall time, which is that of the clients too, stands beside it.

use std::time::Instant;

use super::{
    Measured, block_on,
    clients::Clients,
    processes::ServerProcess,
    report::Row,
    scale::Scale,
    servers::{Kind, Manner, Subject},
    statistics::undisturbed,
    tokens,
};

/// What a cached token may cost in the place of none: the times of it.
const BUDGET: f64 = 1.15;

/// What one storm took.
#[derive(Clone, Copy)]
struct Storm {
    /// Of the server, per client, in microseconds.
    cpu: f64,
    /// Of everybody, in milliseconds.
    wall: f64,
}

/// A server, its clients, and the storms that they have been through.
struct Measurement<'a> {
    process: ServerProcess,
    clients: Clients<'a>,
    storms: Vec<Storm>,
}

impl<'a> Measurement<'a> {
    async fn start(subject: &'a Subject) -> Self {
        let process = ServerProcess::start(subject);
        let clients = 0..subject.messages.len();
        let clients = Clients::served(subject, process.address, clients).await;
        Measurement { process, clients, storms: vec![] }
    }

    async fn storm(self, count: usize) -> Self {
        let Measurement { process, clients, mut storms } = self;
        let before = process.cpu_time();
        let start = Instant::now();
        let clients = clients.cut_and_served_again(process.address).await;
        let wall = start.elapsed().as_secs_f64() * 1e3;
        let cpu = (process.cpu_time() - before).as_secs_f64() * 1e6 / count as f64;
        storms.push(Storm { cpu, wall });
        Measurement { process, clients, storms }
    }

    fn undisturbed(&self, part: fn(&Storm) -> f64) -> f64 {
        undisturbed(self.storms.iter().map(part))
    }
}

pub(crate) fn measure(scale: &Scale) -> Measured {
    let (signed, messages) = tokens::for_each(scale.cut);
    let insecure = signed.not_verified();
    let subject = |manner, signed| Subject {
        messages: messages.clone(),
        ..Subject::new(Kind::Satellite(manner), signed)
    };
    let (cached, insecure) = (subject(Manner::Cached, signed), subject(Manner::Plain, insecure));
    let (cached, insecure) = block_on(async {
        let mut cached = Measurement::start(&cached).await;
        let mut insecure = Measurement::start(&insecure).await;
        for round in 0..=scale.storms {
            cached = cached.storm(scale.cut).await;
            insecure = insecure.storm(scale.cut).await;
            if round == 0 {
                // The first time is different.
                cached.storms.clear();
                insecure.storms.clear();
            }
        }
        let undisturbed = |measurement: Measurement| Storm {
            cpu: measurement.undisturbed(|storm| storm.cpu),
            wall: measurement.undisturbed(|storm| storm.wall),
        };
        (undisturbed(cached), undisturbed(insecure))
    });
    Ok(vec![
        Row::ratio("CPU per reconnect, ES256 cached / insecure", cached.cpu / insecure.cpu)
            .at_most(BUDGET)
            .key("storm_cached_ratio"),
        Row::ratio("wall time, ES256 cached / insecure", cached.wall / insecure.wall),
        Row::new("clients that are cut", scale.cut as f64, "connections"),
        Row::new("CPU per reconnect, ES256 cached", cached.cpu, "µs"),
        Row::new("CPU per reconnect, insecure", insecure.cpu, "µs"),
        Row::new("wall time, ES256 cached", cached.wall, "ms"),
        Row::new("wall time, insecure", insecure.wall, "ms"),
    ])
}
