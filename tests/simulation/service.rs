//! The service, and what must never be seen in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::{AuthError, Authenticator},
    registry::{DuplicatePolicy, InProcessRegistry},
    server::Server,
    session::{
        AuthRequest, AuthenticatedClient, Cause, End, Fault, Identity, UnixTime, Verified,
        Violation,
    },
    transport::{Connection, Event, Limits, Sender},
    wire::proto::{
        SatInStartReplicationResp, SatInStopReplicationResp, SatRelation, SatRelationColumn,
        SatSubsReq, SatSubsResp, SatUnsubsResp,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    chronicle::Chronicle,
    network::{End as Stream, Host, Network, Noticed},
    random::Random,
};

pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
const UPGRADE: Duration = Duration::from_secs(4);
const AUTH: Duration = Duration::from_secs(4);
pub(crate) const CLOSE: Duration = Duration::from_secs(2);

/// How long a newcomer waits.
const WAIT: Duration = Duration::from_secs(1);

/// How long a connection may last while the other end does not show: on either end.
pub(crate) const DEAD: Duration = INTERVAL.saturating_add(TIMEOUT).saturating_add(TICK);

/// What timers are exact to, and a bit.
const TICK: Duration = Duration::from_millis(10);

/// The limits of both ends.
pub(crate) fn limits() -> Limits {
    Limits {
        upgrade_timeout: UPGRADE,
        auth_timeout: AUTH,
        ping_interval: Some(INTERVAL),
        ping_timeout: TIMEOUT,
        write_timeout: TIMEOUT,
        close_timeout: CLOSE,
        ..Limits::default()
    }
}

/// Users whose token is as good as their name; it takes a while to see it.
pub(crate) const BAD: &str = "nobody";
pub(crate) const CALM: &str = "calm";

/// An authenticator that takes its time, and remembers for whom it has vouched.
struct Gatekeeper {
    random: Mutex<Random>,
    vouched: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl Authenticator for Gatekeeper {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        _now: UnixTime,
    ) -> Result<Verified, AuthError> {
        let user = request.token().expose();
        let takes = {
            let mut random = self.random.lock().expect("no panic");
            match random.below(20) {
                _ if user.starts_with(CALM) => Duration::ZERO,
                // Now and then, longer than the client has.
                0 => random.time(Duration::ZERO..2 * AUTH),
                1..5 => random.time(Duration::ZERO..AUTH / 2),
                _ => Duration::ZERO,
            }
        };
        sleep(takes).await;
        if user == BAD {
            return Err(AuthError::InvalidSignature);
        }
        let client = (request.client_id().as_str().to_owned(), user.to_owned());
        self.vouched.lock().expect("no panic").insert(client);
        Ok(Verified::vouched_for_by_authenticator(Identity::new(user)))
    }
}

/// A process of the service, from its start to its end.
pub(crate) struct Service {
    number: usize,
    server: Server<Gatekeeper, InProcessRegistry>,
    registry: InProcessRegistry,
    vouched: Arc<Mutex<BTreeSet<(String, String)>>>,
    /// By client id, in the order in which they entered.
    owners: Mutex<BTreeMap<String, Vec<Arc<Owner>>>>,
    random: Mutex<Random>,
    chronicle: Chronicle,
}

/// A handler, of one client.
struct Owner {
    user: String,
    entered: Instant,
    /// It has seen its connection end.
    ended: AtomicBool,
}

impl Service {
    /// The service starts, and listens.
    pub(crate) fn start(
        number: usize,
        policy: DuplicatePolicy,
        network: &Network,
        mut random: Random,
        chronicle: &Chronicle,
    ) -> Arc<Service> {
        let registry = InProcessRegistry::new(policy, WAIT);
        let vouched = Arc::default();
        let gatekeeper =
            Gatekeeper { random: Mutex::new(random.fork()), vouched: Arc::clone(&vouched) };
        let server = Server::new(gatekeeper).with_limits(limits()).with_registry(registry.clone());
        let service = Arc::new(Service {
            number,
            server,
            registry,
            vouched,
            owners: Mutex::default(),
            random: Mutex::new(random),
            chronicle: chronicle.clone(),
        });
        chronicle.tell(format!("service {number} listens"));
        tokio::spawn(Arc::clone(&service).listen(network.listen()));
        service
    }

    pub(crate) fn server(&self) -> &Server<impl Authenticator, InProcessRegistry> {
        &self.server
    }

    /// Waits until nobody is connected. Nothing may be left then.
    pub(crate) async fn is_empty(&self) {
        let mut connections = self.server.connections();
        connections.wait_for(|count| *count == 0).await.expect("the server is here");
        // Whoever waits for the news is told as early as everybody else.
        sleep(TICK).await;
        if !self.registry.is_empty() {
            self.wrong(format!("{} places are taken, by nobody", self.registry.len()));
        }
        let owners = self.owners.lock().expect("no panic");
        for (client_id, owners) in owners.iter() {
            if owners.iter().any(|owner| !owner.ended.load(Ordering::SeqCst)) {
                self.wrong(format!("a handler of {client_id} is left"));
            }
        }
    }

    fn wrong(&self, what: String) {
        self.chronicle.wrong(format!("service {}: {what}", self.number));
    }

    async fn listen(self: Arc<Self>, mut incoming: mpsc::UnboundedReceiver<(Host, Stream)>) {
        while let Some((host, stream)) = incoming.recv().await {
            tokio::spawn(Arc::clone(&self).serve(host, stream));
        }
    }

    async fn serve(self: Arc<Self>, host: Host, stream: Stream) {
        let (began, noticed) = (Instant::now(), stream.noticed());
        let address = IpAddr::from(Ipv4Addr::new(10, 0, 0, host));
        let accepted = self.server.accept_from(stream, address).await;
        let took = began.elapsed();
        if took > UPGRADE + AUTH + CLOSE + TICK {
            self.wrong(format!("a handshake took {took:?}"));
        }
        match accepted {
            Ok(connection) => self.handle(connection, noticed).await,
            Err(error) => self
                .chronicle
                .tell(format!("service {}: host {host} is not let in: {error}", self.number)),
        }
    }

    async fn handle(
        self: &Arc<Self>,
        connection: Connection<AuthenticatedClient>,
        noticed: Noticed,
    ) {
        let client_id = connection.client_id().as_str().to_owned();
        let user = connection.identity().user_id.clone();
        self.chronicle.tell(format!("service {}: {client_id} is let in as {user}", self.number));
        let known = (client_id.clone(), user.clone());
        if !self.vouched.lock().expect("no panic").contains(&known) {
            self.wrong(format!("nobody has vouched for {client_id} as {user}"));
        }
        let owner = self.enters(&client_id, user);
        let (sender, mut receiver) = connection.split();
        while let Some(event) = receiver.recv().await {
            self.answer(&sender, event);
        }
        owner.ended.store(true, Ordering::SeqCst);
        let end = sender.end().expect("it has ended");
        self.leaves(client_id, owner, end, &noticed);
    }

    /// Answers calls, each after a while, and streams to whoever asks for the stream.
    fn answer(&self, sender: &Sender<AuthenticatedClient>, event: Event<AuthenticatedClient>) {
        let mut random = self.random.lock().expect("no panic").fork();
        let after = random.time(Duration::ZERO..Duration::from_millis(200));
        match event {
            Event::Subscribe(SatSubsReq { subscription_id, .. }, responder) => {
                tokio::spawn(async move {
                    sleep(after).await;
                    responder.reply(SatSubsResp { subscription_id, err: None });
                });
            }
            Event::StartReplication(_, responder) => {
                responder.reply(SatInStartReplicationResp::default());
                tokio::spawn(stream(sender.clone(), random));
            }
            Event::StopReplication(_, responder) => responder.reply(SatInStopReplicationResp {}),
            Event::Unsubscribe(_, responder) => responder.reply(SatUnsubsResp {}),
            Event::Message(_) => {}
        }
    }

    /// A handler begins. All others of its client have ended, or will at once.
    fn enters(self: &Arc<Self>, client_id: &str, user: String) -> Arc<Owner> {
        let owner =
            Arc::new(Owner { user, entered: Instant::now(), ended: AtomicBool::new(false) });
        let others = {
            let mut owners = self.owners.lock().expect("no panic");
            let ours = owners.entry(client_id.to_owned()).or_default();
            let others = ours.clone();
            ours.push(Arc::clone(&owner));
            others
        };
        let (this, client_id) = (Arc::clone(self), client_id.to_owned());
        tokio::spawn(async move {
            // Time goes on when everybody has done what there was to do.
            sleep(TICK).await;
            if others.iter().any(|other| !other.ended.load(Ordering::SeqCst)) {
                this.wrong(format!("{client_id} has two owners"));
            }
        });
        owner
    }

    fn leaves(
        self: &Arc<Self>,
        client_id: String,
        owner: Arc<Owner>,
        end: &End,
        noticed: &Noticed,
    ) {
        let [silent, absent] =
            [noticed.silence(), noticed.absence()].map(|it| it.min(owner.entered.elapsed()));
        self.chronicle.tell(format!(
            "service {}: {client_id} of {} has ended, {}, heard {silent:?} ago",
            self.number, owner.user, end.cause
        ));
        if absent > DEAD {
            self.wrong(format!("{client_id} was connected for {absent:?} without being there"));
        }
        let evicted = match &end.cause {
            Cause::Replaced => true,
            // A ping of its own would have had a longer time.
            Cause::Violation(Violation::WebSocket(Fault::Silent)) => silent < TIMEOUT,
            _ => false,
        };
        if evicted {
            let (this, now) = (Arc::clone(self), Instant::now());
            tokio::spawn(async move {
                sleep(TICK).await;
                let owners = this.owners.lock().expect("no panic");
                // Whoever has the place now, if the connection has not been lost meanwhile.
                let mut later = owners[&client_id].iter().skip_while(|it| !Arc::ptr_eq(it, &owner));
                let next = later.nth(1).filter(|next| next.entered.duration_since(now) <= TICK);
                if let Some(next) = next.filter(|next| next.user != owner.user) {
                    let (of, by) = (&owner.user, &next.user);
                    this.wrong(format!("{client_id} of {of} is evicted by {by}"));
                }
            });
        }
    }
}

/// Sends something of the stream now and then, as long as the connection lives.
async fn stream(sender: Sender<AuthenticatedClient>, mut random: Random) {
    for relation_id in 0.. {
        // Now and then, more than there is room for on the way.
        let most = if random.percent(10) { 6000 } else { 300 };
        let name = "column".repeat(random.below(most));
        let columns = vec![SatRelationColumn { name, ..Default::default() }];
        let relation = SatRelation { relation_id, columns, ..Default::default() };
        if sender.send(relation).await.is_err() {
            return;
        }
        sleep(random.time(Duration::from_millis(200)..Duration::from_secs(3))).await;
    }
}
