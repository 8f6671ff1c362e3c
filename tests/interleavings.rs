//! Every order of what can happen to a server at once: clients that come, verdicts, registrations,
//! a revocation, an exchange of the key, a drain. Each of these is one step of the real server, which
//! then does all it can before the next.
//!
//! Between two steps nothing is half done: what changes together changes under one lock, which no
//! `await` divides, so the orders of the steps are all the orders there are on one thread. What two
//! threads can do to each other inside a step is for `tests/concurrency`, where the locks themselves
//! are looked at, and is argued where the types are documented.
//!
//! Two clients of one id are tried with one of the others, or with all of them if `INTERLEAVINGS=all`,
//! as `just concurrency` has it.

mod peers;

use std::{env, future::Future, iter, sync::Arc, time::Duration};

use electric_satellite::{
    auth::{
        Algorithm, AuthError, Authenticator, JwtAuthenticator, Key, RevocationList, Revocations,
    },
    registry::{
        DuplicatePolicy, InProcessRegistry, Occupant, Registration, Registry, RegistryError,
    },
    server::{Drain, Server},
    session::{AuthRequest, AuthenticatedClient, UnixTime, Verified},
};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    sync::Semaphore,
    task::{JoinHandle, yield_now},
    time::sleep,
};

use peers::{
    Heard, POLITE, Peer, SECOND, Served, WIDE, authenticator, dial, ends, http, server_with,
    token_with, upgrade_request,
};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A client connects and presents its token.
    Comes(usize),
    /// Its token is judged.
    Judged(usize),
    /// Its place is asked for.
    Registered(usize),
    /// Its user is revoked.
    Revoke,
    /// The key that signed the tokens is exchanged for another.
    Swap,
    /// The service begins to stop.
    Drain,
}

use Step::*;

/// All orders in which these sequences can run into each other.
fn orders(sequences: &[Vec<Step>]) -> Vec<Vec<Step>> {
    if sequences.iter().all(Vec::is_empty) {
        return vec![vec![]];
    }
    let mut all = vec![];
    for (nth, sequence) in sequences.iter().enumerate() {
        let Some((first, rest)) = sequence.split_first() else { continue };
        let mut others = sequences.to_vec();
        others[nth] = rest.to_vec();
        all.extend(
            orders(&others).into_iter().map(|rest| iter::once(*first).chain(rest).collect()),
        );
    }
    all
}

fn client(nth: usize) -> Vec<Step> {
    vec![Comes(nth), Judged(nth), Registered(nth)]
}

/// Where each client waits until its step has come.
type Gates = Arc<[Semaphore; 2]>;

async fn pass(gates: &Gates, nth: usize) {
    gates[nth].acquire().await.expect("it is not closed").forget();
}

/// The real authenticator, behind gates.
struct Judge {
    judge: JwtAuthenticator,
    gates: Gates,
}

impl Authenticator for Judge {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> Result<Verified, AuthError> {
        let nth = (0..2).find(|nth| token(*nth) == request.token().expose());
        pass(&self.gates, nth.expect("one of the clients")).await;
        self.judge.authenticate(request, now).await
    }

    fn revocations(&self) -> Option<Arc<dyn Revocations>> {
        self.judge.revocations()
    }
}

/// The real registry, behind gates.
struct Registrar {
    registry: InProcessRegistry,
    gates: Gates,
}

impl Registry for Registrar {
    type Registration = Registration;

    async fn register(
        &self,
        client: &AuthenticatedClient,
        occupant: Occupant,
    ) -> Result<Registration, RegistryError> {
        let id = client.verified.identity().token_id.as_ref().expect("a jti");
        pass(&self.gates, id.parse().expect("a number")).await;
        self.registry.register(client, occupant).await
    }
}

/// Both are of one user and have one client id; their tokens can be told from each other.
fn token(nth: usize) -> String {
    token_with(&json!({ "sub": "u", "jti": nth.to_string() }))
}

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was not upgraded.
    Http(u16),
    /// It was told an error, and closed.
    Refused,
    Closed(u16),
    Connected,
}

struct World {
    server: Server<Judge, Registrar>,
    registry: InProcessRegistry,
    keys: electric_satellite::auth::KeyRing,
    revoked: RevocationList,
    judged: Gates,
    registered: Gates,
    fates: [Option<Fate>; 2],
    peers: [Option<Peer>; 2],
    served: Vec<Served>,
    draining: Option<JoinHandle<()>>,
    maintaining: JoinHandle<()>,
}

impl World {
    async fn new(policy: DuplicatePolicy) -> World {
        let gates = || Gates::new([Semaphore::new(0), Semaphore::new(0)]);
        let (judged, registered) = (gates(), gates());
        let revoked = RevocationList::default();
        let judge = authenticator().with_revocations(revoked.clone());
        let keys = judge.keys().expect("it is secure").clone();
        let registry = InProcessRegistry::new(policy, SECOND);
        let registrar = Registrar { registry: registry.clone(), gates: Arc::clone(&registered) };
        let judge = Judge { judge, gates: Arc::clone(&judged) };
        let server = server_with(judge).with_registry(registrar);
        let maintained = server.clone();
        let maintaining = tokio::spawn(async move { maintained.maintain().await });
        let world = World {
            server,
            registry,
            keys,
            revoked,
            judged,
            registered,
            fates: [None; 2],
            peers: [None, None],
            served: vec![],
            draining: None,
            maintaining,
        };
        settle().await;
        world
    }

    async fn does(&mut self, step: Step) {
        match step {
            Comes(nth) => self.comes(nth).await,
            Judged(nth) => self.judged[nth].add_permits(1),
            Registered(nth) => self.registered[nth].add_permits(1),
            Revoke => self.revoked.revoke_user("u"),
            Swap => {
                let other = Key::from_secret(Algorithm::HS256, b"thirty-two bytes of another key!");
                self.keys.replace("static", other.expect("a key"));
            }
            Drain => {
                let server = self.server.clone();
                let drain = Drain { spread: Duration::ZERO, ..Drain::default() };
                self.draining = Some(tokio::spawn(async move { server.drain(drain).await }));
            }
        }
        settle().await;
    }

    async fn comes(&mut self, nth: usize) {
        let handler = async |mut connection: electric_satellite::transport::Connection<_>| {
            while connection.recv().await.is_some() {}
        };
        let (mut near, served) = dial(&self.server, WIDE, handler);
        self.served.push(served);
        let answer = http(&mut near, &upgrade_request()).await;
        if answer.status != 101 {
            self.fates[nth] = Some(Fate::Http(answer.status));
            return near.shutdown().await.expect("it can be");
        }
        let peer = Peer::on(POLITE, near);
        peer.present("client", &token(nth)).await;
        self.peers[nth] = Some(peer);
    }

    /// Lets time pass, and looks what has become of everybody.
    async fn ends(&mut self) -> [Option<Fate>; 2] {
        sleep(60 * SECOND).await;
        settle().await;
        for (fate, peer) in self.fates.iter_mut().zip(&mut self.peers) {
            let Some(peer) = peer else { continue };
            let (mut was_let_in, mut end) = (false, None);
            while let Some(heard) = peer.heard_already() {
                match heard {
                    Heard::Close(close) => end = Some(close.code),
                    heard => was_let_in |= heard.reply().is_ok(),
                }
            }
            *fate = Some(match end {
                None => Fate::Connected,
                Some(1007) if !was_let_in => Fate::Refused,
                Some(code) => Fate::Closed(code),
            });
        }
        self.fates
    }

    /// Everybody leaves, and nothing stays.
    async fn leaves_nothing(mut self, order: &[Step]) {
        if let Some(draining) = self.draining.take() {
            ends(draining).await.expect("no panic");
        }
        for peer in self.peers.into_iter().flatten() {
            peer.close_and_vanish().await;
        }
        for served in self.served {
            let _ = ends(served).await.expect("no panic");
        }
        let gone = self.server.connections().wait_for(|count| *count == 0).await.is_ok();
        assert!(gone && self.registry.is_empty(), "{order:?}");
        self.maintaining.abort();
    }
}

/// Lets everybody do all they can, without any time.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

/// Explores these orders, and says how many there were.
async fn explore<F: Future<Output = ()>>(
    name: &str,
    sequences: &[Vec<Step>],
    mut look: impl FnMut(Vec<Step>) -> F,
) {
    let orders = orders(sequences);
    let (count, began) = (orders.len(), std::time::Instant::now());
    for order in orders {
        look(order).await;
    }
    println!("{name:<60}{count:>8} orders {:>8.1?}", began.elapsed());
}

/// What becomes of one client, by the rules: the server looks at the list of the revoked when it
/// judges, when the client has come in, and when the list changes; at its keys when it judges; and
/// at whether it stops, always.
fn by_the_rules(order: &[Step]) -> Fate {
    let (mut judged, mut registered, mut came) = (false, false, false);
    let before = |earlier: Step, later: Step| {
        let at = |step| order.iter().position(|it| *it == step);
        at(earlier).is_some_and(|earlier| Some(earlier) < at(later))
    };
    for step in order {
        match step {
            Comes(_) if before(Drain, *step) => return Fate::Http(503),
            Comes(_) => came = true,
            Judged(_) if before(Swap, *step) || before(Revoke, *step) => return Fate::Refused,
            Judged(_) => judged = true,
            Registered(_) if before(Revoke, *step) => return Fate::Closed(4000),
            Registered(_) => registered = true,
            Drain if came => return Fate::Closed(1001),
            Revoke if registered && judged => return Fate::Closed(4000),
            Drain | Revoke | Swap => {}
        }
    }
    Fate::Connected
}

#[tokio::test(start_paused = true)]
async fn a_client_meets_a_revocation_an_exchange_of_the_key_and_a_drain_in_any_order() {
    for with in [vec![], vec![Drain]] {
        let mut sequences = vec![client(0), vec![Revoke], vec![Swap]];
        sequences.extend(with.iter().map(|step| vec![*step]));
        explore(&format!("one client, Revoke, Swap {with:?}"), &sequences, async |order| {
            let mut world = World::new(DuplicatePolicy::Wait).await;
            for step in &order {
                world.does(*step).await;
            }
            let [fate, _] = world.ends().await;
            assert_eq!(fate, Some(by_the_rules(&order)), "{order:?}");
            let connected = usize::from(fate == Some(Fate::Connected));
            assert_eq!(*world.server.connections().borrow(), connected, "{order:?}");
            assert_eq!(world.registry.len(), connected, "{order:?}");
            world.leaves_nothing(&order).await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_clients_of_one_id_are_never_connected_both() {
    let all = env::var("INTERLEAVINGS").is_ok_and(|it| it == "all");
    let others = if all {
        vec![vec![Revoke, Drain, Swap]]
    } else {
        vec![vec![], vec![Revoke], vec![Drain], vec![Swap]]
    };
    for policy in [DuplicatePolicy::Wait, DuplicatePolicy::Refuse, DuplicatePolicy::Takeover] {
        for others in &others {
            let mut sequences = vec![client(0), client(1)];
            sequences.extend(others.iter().map(|step| vec![*step]));
            let name = format!("two clients, {policy:?}, {others:?}");
            explore(&name, &sequences, async |order| two_clients(policy, &order).await).await;
        }
    }
}

async fn two_clients(policy: DuplicatePolicy, order: &[Step]) {
    let mut world = World::new(policy).await;
    for step in order {
        world.does(*step).await;
    }
    let fates = world.ends().await;
    let connected = fates.iter().filter(|fate| **fate == Some(Fate::Connected)).count();
    let what = || format!("{policy:?} {order:?} {fates:?}");
    assert!(fates.iter().all(Option::is_some), "{}", what());
    assert!(connected <= 1, "{}", what());
    assert_eq!(*world.server.connections().borrow(), connected, "{}", what());
    assert_eq!(world.registry.len(), connected, "{}", what());
    let ended = order.contains(&Revoke) || order.contains(&Drain);
    // Whoever is judged before the exchange may stay, and one of two who may does.
    let position = |step| order.iter().position(|it| *it == step);
    let swapped = position(Swap).unwrap_or(order.len());
    let may = (0..2).any(|nth| position(Judged(nth)).is_some_and(|judged| judged < swapped));
    assert_eq!(connected == 1, !ended && may, "{}", what());
    world.leaves_nothing(order).await;
}
