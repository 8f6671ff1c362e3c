//! Those who come to the service: honest clients, and others.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    client::Connector,
    session::{AuthenticatedServer, ClientId, Close, SendError, Token},
    transport::{CallFailure, Sender},
    wire::proto::{SatInStartReplicationReq, SatSubsReq},
};
use tokio::{
    select,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    chronicle::Chronicle,
    network::{Host, Network},
    random::Random,
    raw::{WebSocket, authenticate, call},
    service::{BAD, CALM, CLOSE, DEAD, limits},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Longer than any connection lasts on which nothing comes.
const FOR_EVER: Duration = Duration::from_secs(60);

/// What all of them know.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) network: Network,
    pub(crate) chronicle: Chronicle,
    /// Until when somebody may notice that the service was away.
    pub(crate) missed: Arc<Mutex<Option<Instant>>>,
    /// Honest clients may go home.
    pub(crate) over: Arc<AtomicBool>,
}

impl World {
    /// The service goes, or is back: even those to whom nothing is done may notice for a while.
    pub(crate) fn is_missed(&self) {
        // Until it is found out, and one attempt to connect has come to its end.
        let until = Instant::now() + DEAD + CLOSE + 5 * SECOND;
        *self.missed.lock().expect("no panic") = Some(until);
    }

    fn may_be_missed(&self) -> bool {
        self.missed.lock().expect("no panic").is_some_and(|until| Instant::now() <= until)
    }
}

/// A client that connects again and again, and calls while it is connected.
pub(crate) struct Visitor {
    pub(crate) host: Host,
    pub(crate) client_id: String,
    pub(crate) user: String,
    /// How long it stays away in between.
    pub(crate) away: Range<Duration>,
    /// How many calls it makes, at most, before it leaves.
    pub(crate) stays: usize,
    pub(crate) world: World,
    pub(crate) random: Random,
    /// When it was served last.
    pub(crate) served: Arc<Mutex<Option<Instant>>>,
}

impl Visitor {
    /// Nothing happens to it but to the service.
    fn is_calm(&self) -> bool {
        self.user.starts_with(CALM)
    }

    pub(crate) async fn live(mut self) {
        while !self.world.over.load(Ordering::SeqCst) {
            if let Err(why) = self.visit().await {
                let it =
                    format!("{} of {} on host {}: {why}", self.client_id, self.user, self.host);
                match self.is_calm() && !self.world.may_be_missed() {
                    true => self.world.chronicle.wrong(it),
                    false => self.world.chronicle.tell(it),
                }
            }
            sleep(self.random.time(self.away.clone())).await;
        }
    }

    async fn visit(&mut self) -> Result<(), String> {
        let connecting = self.world.network.connect(self.host);
        let stream = timeout(limits().upgrade_timeout, connecting).await;
        let stream = stream.map_err(|_| "no answer")?.map_err(|error| error.to_string())?;
        let (noticed, vanish) = (stream.noticed(), stream.vanish());
        let client = Connector::new("ws://service").expect("a URL").with_limits(limits());
        let upgraded = client.upgrade(stream).await.map_err(|error| error.to_string())?;
        let client_id = ClientId::new(self.client_id.as_str()).expect("an id");
        let token = Token::new(self.user.as_str()).expect("a token");
        let connection = upgraded.authenticate(&client_id, token).await;
        let connection = connection.map_err(|error| error.to_string())?;
        if self.user == BAD {
            self.world.chronicle.wrong(format!("{BAD} is let in on host {}", self.host));
        }
        let began = Instant::now();
        let (sender, mut receiver) = connection.split();
        let mut reading = JoinSet::new();
        reading.spawn({
            let (world, host) = (self.world.clone(), self.host);
            async move {
                while receiver.recv().await.is_some() {}
                let absent = noticed.absence().min(began.elapsed());
                if absent > DEAD {
                    let what = format!("host {host} noticed nobody for {absent:?}, and stayed");
                    world.chronicle.wrong(what);
                }
            }
        });
        if self.talk(&sender).await {
            match self.random.below(3) {
                0 => {
                    sender.close(Close::NORMAL);
                    sender.closed().await;
                }
                1 if !self.is_calm() => vanish(),
                _ => {}
            }
            return Ok(());
        }
        let end = sender.closed().await;
        reading.join_all().await;
        Err(format!("it has ended: {}", end.cause))
    }

    /// Calls until it has enough, or the connection has ended. Returns whether it is there.
    async fn talk(&mut self, sender: &Sender<AuthenticatedServer>) -> bool {
        let started = sender.call(SatInStartReplicationReq::default(), FOR_EVER).await;
        if !self.is_answered(started.map(|_| true)) {
            return false;
        }
        for number in 0..1 + self.random.below(self.stays) {
            if self.world.over.load(Ordering::SeqCst) {
                break;
            }
            let name = format!("{} {number}", self.user);
            let question = SatSubsReq { subscription_id: name.clone(), ..Default::default() };
            let answer = sender.call(question, FOR_EVER).await;
            if !self.is_answered(answer.map(|answer| answer.subscription_id == name)) {
                return false;
            }
            *self.served.lock().expect("no panic") = Some(Instant::now());
            select! {
                biased;
                _ = sender.closed() => return false,
                () = sleep(self.random.time(100 * MS..3 * SECOND)) => {}
            }
        }
        true
    }

    /// Whether a call was answered. If not, the connection has ended.
    fn is_answered(&self, answer: Result<bool, CallFailure>) -> bool {
        match answer {
            Ok(true) => true,
            Err(CallFailure::Ended | CallFailure::NotSent(SendError::Ended)) => false,
            other => {
                let what = format!("{}: a call has come to {other:?}", self.client_id);
                self.world.chronicle.wrong(what);
                false
            }
        }
    }
}

/// A client that calls before it has presented a token: nobody may hear it.
pub(crate) async fn hasty(world: World, host: Host, mut random: Random) {
    loop {
        sleep(random.time(500 * MS..5 * SECOND)).await;
        let Ok(stream) = world.network.connect(host).await else { continue };
        let Ok(mut socket) = WebSocket::open(stream, "").await else { continue };
        socket.send(&call(SatInStartReplicationReq::default(), 1)).await;
        let token = Token::new("hasty").expect("a token");
        socket.send(&authenticate("hasty", &token)).await;
        let close = socket.close().await;
        world.chronicle.tell(format!("host {host} was hasty: {close:?}"));
    }
}

/// A client that vanishes in the middle of everything, most often while its token is looked at.
pub(crate) async fn fleeting(world: World, host: Host, client_id: String, mut random: Random) {
    loop {
        sleep(random.time(500 * MS..5 * SECOND)).await;
        let Ok(stream) = world.network.connect(host).await else { continue };
        let vanish = stream.vanish();
        let Ok(mut socket) = WebSocket::open(stream, "").await else { continue };
        let token = Token::new("fleeting").expect("a token");
        let request = authenticate(&client_id, &token);
        let length = [request.len(), random.below(request.len())][random.below(2)];
        socket.send(&request[..length]).await;
        sleep(random.time(Duration::ZERO..100 * MS)).await;
        if random.percent(70) {
            vanish();
        }
        world.chronicle.tell(format!("host {host} is gone after {length} bytes"));
    }
}

/// A client that comes twice at once, and answers nothing when it is let in.
pub(crate) async fn double(
    world: World,
    host: Host,
    client_id: String,
    user: String,
    mut random: Random,
) {
    // Both are there in the same moment.
    world.network.set_delays(host, [5 * MS..6 * MS, 5 * MS..6 * MS]);
    loop {
        sleep(random.time(500 * MS..3 * SECOND)).await;
        let stays = random.time(SECOND..4 * SECOND);
        let knock = async || {
            let stream = world.network.connect(host).await.ok()?;
            let mut socket = WebSocket::open(stream, "").await.ok()?;
            let token = Token::new(user.as_str()).expect("a token");
            socket.send(&authenticate(&client_id, &token)).await;
            sleep(stays).await;
            Some(socket)
        };
        let came = tokio::join!(knock(), knock());
        let came = [came.0, came.1].into_iter().flatten().count();
        world.chronicle.tell(format!("host {host} came {came} times at once"));
    }
}
