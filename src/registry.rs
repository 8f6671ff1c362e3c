//! Who is connected: one live connection per client id.
//!
//! Two connections of one client would write the same database. So a client registers after it is
//! authenticated and before it is told so, and the registration lasts as long as its connection.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, SetOnce},
    time::{Instant, timeout_at},
};

use crate::session::{AuthenticatedClient, ClientId, LONGEST};

/// Lets one connection of each client live at a time.
///
/// A registry for several processes needs a lock per client id that is shared among them, and a
/// way to reach the [`Occupant`] wherever it is.
pub trait Registry: Send + Sync + 'static {
    /// The proof that a connection is its client's only one. Dropping it gives the place free. It
    /// may be dropped under the lock of its connection, so that must neither wait nor use it.
    type Registration: Send + Sync + 'static;

    /// Registers a connection, which can be reached as `occupant` as long as it lives.
    ///
    /// # Errors
    ///
    /// The client is connected already, or that cannot be known; see [`RegistryError`].
    fn register(
        &self,
        client: &AuthenticatedClient,
        occupant: Occupant,
    ) -> impl Future<Output = Result<Self::Registration, RegistryError>> + Send;
}

/// Why a connection is not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Another connection of the same client lives. Clients from 0.7 on take this for final.
    #[error("attempted multiple connections from the same client")]
    Occupied,
    /// The registry's store does not answer. The connection is closed without an answer, so that
    /// the client tries again.
    #[error("the registry is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What happens when a client connects that is connected already. A different user never takes
/// the place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuplicatePolicy {
    /// The newcomer waits for a while, during which the incumbent is pinged. If the incumbent
    /// leaves, the newcomer proceeds at once. When the wait ends and the incumbent has answered,
    /// the newcomer is refused; if it has not, it is closed, and the newcomer proceeds.
    #[default]
    Wait,
    /// The newcomer is refused at once.
    Refuse,
    /// The newcomer of the same user takes the place; the incumbent is told and closed.
    Takeover,
}

/// Why a connection must leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It does not answer.
    Silent = 1,
    /// A newer connection of the same client and user takes its place.
    Replaced = 2,
}

/// A live connection, as its registry reaches it. Clones are the same connection.
#[derive(Clone, Debug, Default)]
pub struct Occupant {
    shared: Arc<OccupantShared>,
}

#[derive(Debug, Default)]
struct OccupantShared {
    /// How often a sign of life was asked for, and up to which time it was given.
    challenges: AtomicU64,
    answered: AtomicU64,
    eviction: AtomicU8,
    wake: Notify,
    /// It has left the registry.
    left: SetOnce<()>,
}

/// A sign of life that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Challenge(u64);

impl Occupant {
    /// Asks the connection for a sign of life: it pings its peer.
    pub fn challenge(&self) -> Challenge {
        let challenge = self.shared.challenges.fetch_add(1, Ordering::AcqRel) + 1;
        self.shared.wake.notify_one();
        Challenge(challenge)
    }

    /// Whether the peer has been heard since.
    pub fn has_answered(&self, challenge: Challenge) -> bool {
        self.shared.answered.load(Ordering::Acquire) >= challenge.0
    }

    /// Tells the connection to leave. It needs a moment; the first reason counts.
    pub fn evict(&self, eviction: Eviction) {
        let code = eviction as u8;
        let _ = self.shared.eviction.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.shared.wake.notify_one();
    }

    /// Wakes whoever drives the connection.
    pub(crate) fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Waits until there is something to look at here.
    pub(crate) async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    /// The latest sign of life that was asked for.
    pub(crate) fn challenged(&self) -> u64 {
        self.shared.challenges.load(Ordering::Acquire)
    }

    /// Whether a sign of life is wanted and was not given.
    pub(crate) fn is_challenged(&self) -> bool {
        self.challenged() > self.shared.answered.load(Ordering::Acquire)
    }

    /// The peer has been heard after it was pinged for this challenge.
    pub(crate) fn answer(&self, challenge: u64) {
        self.shared.answered.fetch_max(challenge, Ordering::AcqRel);
    }

    pub(crate) fn evicted(&self) -> Option<Eviction> {
        match self.shared.eviction.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Eviction::Silent),
            _ => Some(Eviction::Replaced),
        }
    }
}

/// The registry of one process. Clones are the same registry.
///
/// Its table changes in three ways, each under one lock that is held across no `await` and under
/// which nothing else is locked: a free place is taken, a place is taken over from the incumbent that
/// was seen, and a place is given free by who has it still. What an incumbent is asked and told is
/// beside the table, in atomics that only grow. `tests/concurrency` tries the orders of all this.
#[derive(Clone, Debug)]
pub struct InProcessRegistry {
    policy: DuplicatePolicy,
    wait: Duration,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    places: HashMap<ClientId, Place>,
    generations: u64,
}

/// A client's place, which is taken.
#[derive(Debug)]
struct Place {
    /// Tells this occupation from an earlier one of the same client.
    generation: u64,
    user_id: String,
    occupant: Occupant,
}

/// Whoever has a place, as a newcomer sees it.
struct Incumbent {
    generation: u64,
    same_user: bool,
    occupant: Occupant,
}

/// A place in an [`InProcessRegistry`]. Dropping it gives the place free, unless it has been
/// given to another already.
#[derive(Debug)]
pub struct Registration {
    client_id: ClientId,
    generation: u64,
    table: Arc<Mutex<Table>>,
    occupant: Occupant,
}

impl Default for InProcessRegistry {
    /// The newcomer waits up to 1 s, like with the original.
    fn default() -> InProcessRegistry {
        InProcessRegistry::new(DuplicatePolicy::default(), Duration::from_secs(1))
    }
}

impl InProcessRegistry {
    /// A registry with this policy, in which newcomers wait so long at most.
    pub fn new(policy: DuplicatePolicy, wait: Duration) -> InProcessRegistry {
        InProcessRegistry { policy, wait: wait.min(LONGEST), table: Arc::default() }
    }

    /// How many clients are connected.
    pub fn len(&self) -> usize {
        self.lock().places.len()
    }

    /// Whether no client is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Takes a place that is free, or tells who has it.
    fn claim(
        &self,
        client: &AuthenticatedClient,
        occupant: &Occupant,
    ) -> Result<Registration, Incumbent> {
        let Table { places, generations } = &mut *self.lock();
        match places.entry(client.client_id.clone()) {
            Entry::Occupied(entry) => Err(Incumbent {
                generation: entry.get().generation,
                same_user: entry.get().user_id == client.verified.identity().user_id,
                occupant: entry.get().occupant.clone(),
            }),
            free => Ok(self.occupy(free, generations, client, occupant)),
        }
    }

    /// Whether an incumbent has its place still.
    fn has_place(&self, client: &AuthenticatedClient, generation: u64) -> bool {
        let table = self.lock();
        table.places.get(&client.client_id).is_some_and(|place| place.generation == generation)
    }

    /// Takes the place of an incumbent, if it has it still.
    fn replace(
        &self,
        generation: u64,
        client: &AuthenticatedClient,
        occupant: &Occupant,
    ) -> Option<Registration> {
        let Table { places, generations } = &mut *self.lock();
        match places.entry(client.client_id.clone()) {
            Entry::Occupied(entry) if entry.get().generation != generation => None,
            left_to_it => Some(self.occupy(left_to_it, generations, client, occupant)),
        }
    }

    fn occupy(
        &self,
        entry: Entry<'_, ClientId, Place>,
        generations: &mut u64,
        client: &AuthenticatedClient,
        occupant: &Occupant,
    ) -> Registration {
        *generations += 1;
        let generation = *generations;
        entry.insert_entry(Place {
            generation,
            user_id: client.verified.identity().user_id.clone(),
            occupant: occupant.clone(),
        });
        let client_id = client.client_id.clone();
        let (table, occupant) = (Arc::clone(&self.table), occupant.clone());
        Registration { client_id, generation, table, occupant }
    }
}

impl Registry for InProcessRegistry {
    type Registration = Registration;

    async fn register(
        &self,
        client: &AuthenticatedClient,
        occupant: Occupant,
    ) -> Result<Registration, RegistryError> {
        loop {
            let incumbent = match self.claim(client, &occupant) {
                Ok(registration) => return Ok(registration),
                Err(_) if self.policy == DuplicatePolicy::Refuse => {
                    return Err(RegistryError::Occupied);
                }
                Err(incumbent) => incumbent,
            };
            // Whoever has the place has the whole wait to answer, even if it has just taken it.
            let deadline = Instant::now() + self.wait;
            if self.policy == DuplicatePolicy::Takeover && incumbent.same_user {
                // The place is the newcomer's from now on, whoever else waits for it.
                let taken = self.replace(incumbent.generation, client, &occupant);
                let Some(registration) = taken else { continue };
                incumbent.occupant.evict(Eviction::Replaced);
                let _ = timeout_at(deadline, incumbent.occupant.shared.left.wait()).await;
                return Ok(registration);
            }
            let challenge = incumbent.occupant.challenge();
            if timeout_at(deadline, incumbent.occupant.shared.left.wait()).await.is_ok() {
                continue;
            }
            if !incumbent.same_user || incumbent.occupant.has_answered(challenge) {
                if self.has_place(client, incumbent.generation) {
                    return Err(RegistryError::Occupied);
                }
                // It was replaced by another, who may have left since.
                continue;
            }
            incumbent.occupant.evict(Eviction::Silent);
            if let Some(registration) = self.replace(incumbent.generation, client, &occupant) {
                return Ok(registration);
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if let Entry::Occupied(entry) = table.places.entry(self.client_id.clone())
            && entry.get().generation == self.generation
        {
            entry.remove();
        }
        drop(table);
        // After the place is free.
        let _ = self.occupant.shared.left.set(());
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use crate::session::{Identity, Verified};

    use super::*;

    fn client(user_id: &str) -> AuthenticatedClient {
        AuthenticatedClient {
            client_id: ClientId::new("client").unwrap(),
            verified: Verified::vouched_for_by_authenticator(Identity::new(user_id)),
        }
    }

    async fn register(
        registry: &InProcessRegistry,
        user_id: &str,
    ) -> Result<(Registration, Occupant), RegistryError> {
        let occupant = Occupant::default();
        let registration = registry.register(&client(user_id), occupant.clone()).await?;
        Ok((registration, occupant))
    }

    /// An occupant whose peer answers every ping at once.
    fn answers(occupant: Occupant) {
        tokio::spawn(async move {
            loop {
                occupant.woken().await;
                occupant.answer(occupant.challenged());
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_is_refused_after_the_wait_if_the_incumbent_answers() {
        let registry = InProcessRegistry::default();
        let (_first, occupant) = register(&registry, "u").await.unwrap();
        answers(occupant.clone());
        let before = Instant::now();
        assert!(matches!(register(&registry, "u").await, Err(RegistryError::Occupied)));
        assert_eq!(before.elapsed(), Duration::from_secs(1));
        assert_eq!(occupant.evicted(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_proceeds_at_once_when_the_incumbent_leaves() {
        let registry = InProcessRegistry::default();
        let (first, _) = register(&registry, "u").await.unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(first);
        });
        let before = Instant::now();
        // Whoever has left may have been another user.
        let (_second, _) = register(&registry, "v").await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_millis(300));
    }

    #[tokio::test(start_paused = true)]
    async fn of_those_who_wait_the_first_is_next() {
        for _ in 0..20 {
            let registry = InProcessRegistry::default();
            let (first, _) = register(&registry, "u").await.unwrap();
            let mut waiting = vec![];
            for user in ["v", "w", "x"] {
                let registry = registry.clone();
                waiting.push(tokio::spawn(async move { register(&registry, user).await }));
                tokio::task::yield_now().await;
            }
            drop(first);
            let next = waiting.remove(0).await.unwrap();
            assert!(next.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_incumbent_is_evicted_after_the_wait() {
        let registry = InProcessRegistry::default();
        let (first, occupant) = register(&registry, "u").await.unwrap();
        let (_second, _) = register(&registry, "u").await.unwrap();
        assert_eq!(occupant.evicted(), Some(Eviction::Silent));
        // It leaves late, and the place stays the newcomer's.
        drop(first);
        assert_eq!(registry.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_different_user_never_evicts() {
        for policy in [DuplicatePolicy::Wait, DuplicatePolicy::Refuse, DuplicatePolicy::Takeover] {
            let registry = InProcessRegistry::new(policy, Duration::from_secs(1));
            let (_first, occupant) = register(&registry, "u").await.unwrap();
            assert!(matches!(register(&registry, "v").await, Err(RegistryError::Occupied)));
            assert_eq!(occupant.evicted(), None, "{policy:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_user_takes_over_if_that_is_the_policy() {
        let registry = InProcessRegistry::new(DuplicatePolicy::Takeover, Duration::from_secs(1));
        let (first, occupant) = register(&registry, "u").await.unwrap();
        answers(occupant.clone());
        let second = tokio::spawn({
            let registry = registry.clone();
            async move { register(&registry, "u").await.map(|(second, _)| second) }
        });
        while occupant.evicted().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(occupant.evicted(), Some(Eviction::Replaced));
        assert!(!second.is_finished(), "the first has not left");
        drop(first);
        let _second = second.await.unwrap().unwrap();
        assert_eq!(registry.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_over_does_not_wait_for_ever() {
        let registry = InProcessRegistry::new(DuplicatePolicy::Takeover, Duration::from_secs(1));
        let (first, occupant) = register(&registry, "u").await.unwrap();
        answers(occupant);
        let before = Instant::now();
        let _second = register(&registry, "u").await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_secs(1));
        drop(first);
        assert_eq!(registry.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_taken_over_is_not_given_to_another_user_who_waits() {
        let registry = InProcessRegistry::new(DuplicatePolicy::Takeover, Duration::from_secs(1));
        let (first, occupant) = register(&registry, "u").await.unwrap();
        let [thief, second] = ["v", "u"].map(|user| {
            let registry = registry.clone();
            tokio::spawn(async move { register(&registry, user).await })
        });
        while occupant.evicted().is_none() {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(matches!(thief.await.unwrap(), Err(RegistryError::Occupied)));
        assert!(second.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_refused_for_an_incumbent_that_has_lost_its_place() {
        let registry = InProcessRegistry::default();
        let (_first, occupant) = register(&registry, "u").await.unwrap();
        let [second, third] = [("u", 0), ("v", 1)].map(|(user, later)| {
            let registry = registry.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(later)).await;
                register(&registry, user).await
            })
        });
        // The first, which is silent, is still there when the second, in its place, leaves.
        drop(second.await.unwrap().unwrap());
        assert_eq!(occupant.evicted(), Some(Eviction::Silent));
        let _third = third.await.unwrap().unwrap();
        assert_eq!(registry.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_who_take_over_the_later_stays() {
        let registry = InProcessRegistry::new(DuplicatePolicy::Takeover, Duration::from_secs(1));
        let (first, _) = register(&registry, "u").await.unwrap();
        let [second, third] = [(); 2].map(|()| {
            let registry = registry.clone();
            tokio::spawn(async move { register(&registry, "u").await })
        });
        tokio::task::yield_now().await;
        drop(first);
        let (second, occupant) = second.await.unwrap().unwrap();
        assert_eq!(occupant.evicted(), Some(Eviction::Replaced));
        drop(second);
        let (_third, occupant) = third.await.unwrap().unwrap();
        assert_eq!(occupant.evicted(), None);
        assert_eq!(registry.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_refused_at_once_if_that_is_the_policy() {
        let registry = InProcessRegistry::new(DuplicatePolicy::Refuse, Duration::from_secs(1));
        let (first, _) = register(&registry, "u").await.unwrap();
        let before = Instant::now();
        assert!(register(&registry, "u").await.is_err());
        assert_eq!(before.elapsed(), Duration::ZERO);
        drop(first);
        assert!(registry.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_race_leaves_two_owners_or_none() {
        let registry = InProcessRegistry::new(DuplicatePolicy::Wait, Duration::from_secs(10));
        let owners = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (registry, owners) = (registry.clone(), Arc::clone(&owners));
                tokio::spawn(async move {
                    let occupant = Occupant::default();
                    let registration = registry.register(&client("u"), occupant).await.unwrap();
                    assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    assert_eq!(owners.fetch_sub(1, Ordering::SeqCst), 1);
                    drop(registration);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(registry.is_empty());
    }
}
