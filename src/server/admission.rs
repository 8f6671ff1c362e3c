//! Who may try: limits that hold before anybody is authenticated, per address and in all.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::available_parallelism,
    time::Duration,
};

use futures_util::future::OptionFuture;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use crate::transport::Limits;

use super::metrics;

/// How many connections beyond a limit are told so at the same time. The rest is just closed.
const MAX_TURNED_AWAY: usize = 256;

/// How many addresses with failed authentications are remembered.
const MAX_OFFENDERS: usize = 10_000;

/// How often an address from which too many authentications have failed is told so: at once, and in
/// each second. The rest is just closed.
const TOLD: u32 = 60;

/// Why somebody may not try now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overload {
    /// As many connections as there may be.
    Connections,
    /// As many unauthenticated connections as there may be.
    Unauthenticated,
    /// As many unauthenticated connections from one address as there may be.
    UnauthenticatedFromAddress,
    /// As many handshakes a second as there may be.
    HandshakeRate,
    /// Too many failed authentications from one address.
    FailedAuthentications,
}

impl Overload {
    /// Whether it is the address's own doing.
    pub(super) fn is_personal(self) -> bool {
        matches!(self, Overload::UnauthenticatedFromAddress | Overload::FailedAuthentications)
    }

    /// What it is called in metrics and answers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Overload::Connections => "too many connections",
            Overload::Unauthenticated => "too many unauthenticated connections",
            Overload::UnauthenticatedFromAddress => {
                "too many unauthenticated connections from this address"
            }
            Overload::HandshakeRate => "too many handshakes at once",
            Overload::FailedAuthentications => "too many failed authentications from this address",
        }
    }
}

/// Counts who is there, and remembers who failed: each change under one lock, whole, and no other
/// lock of this crate is taken meanwhile. A place counts itself out when it is dropped, so whatever happens to its
/// connection, the counts come back.
#[derive(Debug)]
pub(super) struct Admission {
    counts: Mutex<Counts>,
    /// The turns of those who may be authenticated at the same time although it is to be expected that
    /// they fail: as many as half of the processors can serve, so that nobody else waits for them.
    suspects: Semaphore,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    unauthenticated: usize,
    turned_away: usize,
    by_address: HashMap<AddressKey, usize>,
    handshakes: Option<Bucket>,
    offenders: HashMap<AddressKey, Offender>,
}

/// An IPv4 address, or the network that an IPv6 address is in: whoever has one of its addresses
/// has them all.
type AddressKey = IpAddr;

fn key(address: IpAddr) -> AddressKey {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// A token bucket: what is taken out comes back with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    since: Instant,
}

impl Bucket {
    fn full(size: u32) -> Bucket {
        Bucket { left: size.into(), since: Instant::now() }
    }

    /// What is in it now, if it gains so much a second.
    fn refill(&mut self, size: u32, per_second: f64) -> f64 {
        let now = Instant::now();
        let gained = now.saturating_duration_since(self.since).as_secs_f64() * per_second;
        self.left = (self.left + gained).min(size.into());
        self.since = now;
        self.left
    }

    /// Takes one out, or what is left of one.
    fn take(&mut self) {
        self.left = (self.left - 1.0).max(0.0);
    }
}

/// An address from which authentications have failed.
#[derive(Debug)]
struct Offender {
    /// How many more may.
    failures: Bucket,
    /// How often it is told that none may.
    answers: Bucket,
}

impl Offender {
    fn new(limits: &Limits) -> Offender {
        Offender { failures: Bucket::full(limits.failed_auths), answers: Bucket::full(TOLD) }
    }

    /// How many more authentications may fail now.
    fn left(&mut self, limits: &Limits) -> f64 {
        self.failures.refill(limits.failed_auths, limits.failed_auths_per_second)
    }

    /// One more has failed.
    fn fails(&mut self, limits: &Limits) {
        self.left(limits);
        self.failures.take();
    }

    /// How often it is told now that none may fail.
    fn answers(&mut self) -> f64 {
        self.answers.refill(TOLD, TOLD.into())
    }

    /// It is told.
    fn is_answered(&mut self) {
        self.answers();
        self.answers.take();
    }
}

/// A connection's place, from its first byte to its last.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
    standing: Standing,
}

#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Unauthenticated,
    Authenticated,
    /// Beyond a limit, and only there to be told so.
    TurnedAway,
}

impl Default for Admission {
    fn default() -> Admission {
        let processors = available_parallelism().map_or(1, usize::from);
        Admission { counts: Mutex::default(), suspects: Semaphore::new(processors.div_ceil(2)) }
    }
}

impl Admission {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection comes in. That of a trusted proxy is somebody else's, who is looked at later.
    /// Beyond a limit it has a place too, from which it is told; when there are too many of those, or
    /// its address has been told too often, it has none.
    pub(super) fn enter(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        is_proxy: bool,
        limits: &Limits,
    ) -> Result<(Place, Option<Overload>), Overload> {
        let mut counts = self.lock();
        if !is_proxy
            && let Some(offender) = counts.offender(address)
            && offender.left(limits) < 1.0
            && offender.answers() < 1.0
        {
            metrics::limit_hit(Overload::FailedAuthentications.name());
            return Err(Overload::FailedAuthentications);
        }
        let from_address =
            address.and_then(|address| counts.by_address.get(&key(address)).copied());
        let overload = if counts.connections >= limits.max_connections {
            Some(Overload::Connections)
        } else if counts.unauthenticated >= limits.max_unauthenticated {
            Some(Overload::Unauthenticated)
        } else if !is_proxy && from_address.unwrap_or(0) >= limits.max_unauthenticated_per_address {
            Some(Overload::UnauthenticatedFromAddress)
        } else {
            None
        };
        if let Some(overload) = overload {
            metrics::limit_hit(overload.name());
        }
        let standing = match overload {
            None => Standing::Unauthenticated,
            Some(_) if counts.turned_away < MAX_TURNED_AWAY => Standing::TurnedAway,
            Some(overload) => return Err(overload),
        };
        counts.count(&standing, address);
        Ok((Place { admission: Arc::clone(self), address, standing }, overload))
    }

    /// An authentication failed, from this address.
    fn failed(&self, address: IpAddr, limits: &Limits) {
        let mut counts = self.lock();
        if counts.offenders.len() >= MAX_OFFENDERS {
            let size = f64::from(limits.failed_auths);
            counts.offenders.retain(|_, offender| offender.left(limits) < size);
        }
        let known = counts.offenders.contains_key(&key(address));
        if known || counts.offenders.len() < MAX_OFFENDERS {
            let new = || Offender::new(limits);
            counts.offenders.entry(key(address)).or_insert_with(new).fails(limits);
        }
    }
}

impl Counts {
    /// What is remembered of an address from which authentications have failed.
    fn offender(&mut self, address: Option<IpAddr>) -> Option<&mut Offender> {
        address.and_then(|address| self.offenders.get_mut(&key(address)))
    }

    fn count(&mut self, standing: &Standing, address: Option<IpAddr>) {
        match standing {
            Standing::TurnedAway => self.turned_away += 1,
            Standing::Authenticated => self.connections += 1,
            Standing::Unauthenticated => {
                self.connections += 1;
                self.unauthenticated += 1;
                if let Some(address) = address {
                    *self.by_address.entry(key(address)).or_default() += 1;
                }
            }
        }
    }

    fn discount(&mut self, standing: &Standing, address: Option<IpAddr>) {
        match standing {
            Standing::TurnedAway => self.turned_away -= 1,
            Standing::Authenticated => self.connections -= 1,
            Standing::Unauthenticated => {
                self.connections -= 1;
                self.unauthenticated -= 1;
                if let Some(address) = address.map(key)
                    && let Some(count) = self.by_address.get_mut(&address)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.by_address.remove(&address);
                    }
                }
            }
        }
    }
}

impl Place {
    /// Where the connection comes from, as far as is known.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Where the connection really comes from, which may be elsewhere, by way of a proxy.
    pub(super) fn comes_from(&mut self, address: IpAddr, limits: &Limits) -> Result<(), Overload> {
        if self.address != Some(address) {
            let mut counts = self.admission.lock();
            let there = counts.by_address.get(&key(address)).copied().unwrap_or(0);
            if there >= limits.max_unauthenticated_per_address {
                return Err(Overload::UnauthenticatedFromAddress);
            }
            counts.discount(&self.standing, self.address);
            self.address = Some(address);
            counts.count(&self.standing, self.address);
        }
        Ok(())
    }

    /// Whether a handshake may begin now.
    pub(super) fn handshake(&self, limits: &Limits) -> Result<(), Overload> {
        let counts = &mut *self.admission.lock();
        if let Some(offender) = counts.offender(self.address)
            && offender.left(limits) < 1.0
        {
            offender.is_answered();
            return Err(Overload::FailedAuthentications);
        }
        let Some(rate) = limits.handshakes_per_second else { return Ok(()) };
        let bucket = counts.handshakes.get_or_insert_with(|| Bucket::full(rate));
        if bucket.refill(rate, rate.into()) < 1.0 {
            return Err(Overload::HandshakeRate);
        }
        bucket.take();
        Ok(())
    }

    /// Waits for the turn to be authenticated. Only suspects have to: where more than one
    /// authentication has failed, for one may be that of a token whose time is over.
    pub(super) async fn turn(&self, limits: &Limits) -> Option<SemaphorePermit<'_>> {
        let is_suspect = {
            let mut counts = self.admission.lock();
            let offender = counts.offender(self.address);
            offender.is_some_and(|offender| {
                f64::from(limits.failed_auths) - offender.left(limits) > 1.0
            })
        };
        let turn = is_suspect.then(|| Box::pin(self.admission.suspects.acquire()));
        OptionFuture::from(turn).await?.ok()
    }

    /// The authentication failed.
    pub(super) fn failed(&self, limits: &Limits) {
        if let Some(address) = self.address {
            self.admission.failed(address, limits);
        }
    }

    /// The client is authenticated, and counts as such from now on.
    pub(super) fn authenticated(&mut self) {
        let mut counts = self.admission.lock();
        counts.discount(&self.standing, self.address);
        self.standing = Standing::Authenticated;
        counts.count(&self.standing, self.address);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.lock().discount(&self.standing, self.address);
    }
}

/// How long to stay away, in seconds.
pub(super) fn retry_after(overload: Overload, limits: &Limits) -> u32 {
    match overload {
        Overload::FailedAuthentications => {
            let seconds = 1.0 / limits.failed_auths_per_second.max(0.001);
            (seconds.ceil() as u32).max(1)
        }
        _ => u32::try_from(RETRY_SOON.as_secs()).unwrap_or(1),
    }
}

const RETRY_SOON: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits() -> Limits {
        Limits {
            max_connections: 3,
            max_unauthenticated: 2,
            max_unauthenticated_per_address: 1,
            failed_auths: 2,
            failed_auths_per_second: 0.5,
            handshakes_per_second: Some(2),
            ..Limits::default()
        }
    }

    fn enter(admission: &Arc<Admission>, address: &str) -> (Place, Option<Overload>) {
        admission.enter(Some(ip(address)), false, &limits()).unwrap()
    }

    #[test]
    fn each_limit_is_named_when_it_is_reached() {
        let admission = Arc::new(Admission::default());
        let (mut a, none) = enter(&admission, "1.1.1.1");
        assert_eq!(none, None);
        assert_eq!(enter(&admission, "1.1.1.1").1, Some(Overload::UnauthenticatedFromAddress));
        let (mut b, none) = enter(&admission, "2.2.2.2");
        assert_eq!(none, None);
        assert_eq!(enter(&admission, "3.3.3.3").1, Some(Overload::Unauthenticated));
        a.authenticated();
        b.authenticated();
        let (_c, none) = enter(&admission, "1.1.1.1");
        assert_eq!(none, None);
        assert_eq!(enter(&admission, "4.4.4.4").1, Some(Overload::Connections));
        drop(a);
        assert_eq!(enter(&admission, "4.4.4.4").1, None);
    }

    #[test]
    fn nothing_is_left_when_everybody_has_gone() {
        let admission = Arc::new(Admission::default());
        let mut places: Vec<Place> =
            (0..5).map(|n| enter(&admission, &format!("1.1.1.{n}")).0).collect();
        places[0].authenticated();
        places[1].comes_from(ip("9.9.9.9"), &limits()).unwrap();
        drop(places);
        let counts = admission.lock();
        let left = (counts.connections, counts.unauthenticated, counts.turned_away);
        assert_eq!(left, (0, 0, 0));
        assert!(counts.by_address.is_empty());
    }

    #[test]
    fn those_who_are_turned_away_are_bounded_too() {
        let admission = Arc::new(Admission::default());
        let limits = Limits { max_connections: 0, ..limits() };
        let places: Vec<_> =
            (0..MAX_TURNED_AWAY).map(|_| admission.enter(None, false, &limits).unwrap()).collect();
        assert!(admission.enter(None, false, &limits).is_err());
        drop(places);
        assert!(admission.enter(None, false, &limits).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_too_often_waits() {
        let limits = Limits { handshakes_per_second: None, ..limits() };
        let admission = Arc::new(Admission::default());
        let tried = |address: &str| {
            let (place, _) = enter(&admission, address);
            place.handshake(&limits).map(|()| place)
        };
        let waits = Some(Overload::FailedAuthentications);
        for _ in 0..2 {
            tried("2001:db8:1:2:3::1").unwrap().failed(&limits);
        }
        assert_eq!(tried("2001:db8:1:2:ffff::9").err(), waits);
        assert!(tried("2001:db8:1:3::1").is_ok());
        tokio::time::advance(Duration::from_secs(2)).await;
        tried("2001:db8:1:2:3::1").unwrap().failed(&limits);
        assert_eq!(tried("2001:db8:1:2:3::1").err(), waits);
        assert_eq!(retry_after(Overload::FailedAuthentications, &limits), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_are_paced() {
        let admission = Arc::new(Admission::default());
        let (place, _) = admission.enter(None, false, &limits()).unwrap();
        for _ in 0..2 {
            assert_eq!(place.handshake(&limits()), Ok(()));
        }
        assert_eq!(place.handshake(&limits()), Err(Overload::HandshakeRate));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(place.handshake(&limits()), Ok(()));
    }

    #[test]
    fn offenders_are_bounded() {
        let admission = Admission::default();
        for n in 0..MAX_OFFENDERS as u32 + 100 {
            admission.failed(IpAddr::V4(n.into()), &limits());
        }
        assert_eq!(admission.lock().offenders.len(), MAX_OFFENDERS);
    }
}
