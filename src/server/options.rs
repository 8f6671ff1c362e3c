//! What a server can be configured with.

use std::{ops::RangeInclusive, sync::Arc};

use ipnet::IpNet;

use crate::{
    auth::Authenticator,
    registry::Registry,
    session::{AuthChangePolicy, UnixTime},
    transport::Limits,
    wire::Version,
};

use super::Server;

/// What happens when a token expires while its connection lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiryPolicy {
    /// Nothing: a token is judged when it is presented. That is what one-off tokens need.
    #[default]
    Ignore,
    /// The connection is closed with 4000 `JWT-expired`, leeway included: clients from 0.9.4 on
    /// stay away until they have another token.
    Close {
        /// How long after `exp`, in seconds.
        leeway: u32,
    },
}

/// What a server is configured with, beside its authenticator and its registry.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) limits: Arc<Limits>,
    pub(super) versions: RangeInclusive<Version>,
    pub(super) server_id: Arc<str>,
    pub(super) clock: Clock,
    pub(super) expiry: ExpiryPolicy,
    pub(super) auth_changes: AuthChangePolicy,
    pub(super) origins: Option<Vec<String>>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) readiness: Option<Readiness>,
    pub(super) warning: Option<&'static str>,
}

/// The wall clock that tokens are judged by.
type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// Whether the service can be used, or why not.
type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

impl Options {
    /// The defaults, for an authenticator with this to say.
    pub(super) fn new(warning: Option<&'static str>) -> Options {
        Options {
            limits: Arc::default(),
            versions: Version::V0_6..=Version::V0_12,
            server_id: uuid::Uuid::new_v4().to_string().into(),
            clock: Arc::new(UnixTime::now),
            expiry: ExpiryPolicy::default(),
            auth_changes: AuthChangePolicy::default(),
            origins: None,
            trusted_proxies: vec![],
            readiness: None,
            warning,
        }
    }
}

impl<A: Authenticator, R: Registry> Server<A, R> {
    fn with(mut self, change: impl FnOnce(&mut Options)) -> Server<A, R> {
        change(Arc::make_mut(&mut self.options));
        self
    }

    /// The same server with other limits.
    ///
    /// # Panics
    ///
    /// The limits make no sense; [`Limits::check`] says so beforehand.
    #[track_caller]
    pub fn with_limits(self, limits: Limits) -> Server<A, R> {
        let limits = limits.checked();
        self.with(|options| options.limits = Arc::new(limits))
    }

    /// The same server with other versions. Of several that a client offers, the newest among
    /// these is chosen.
    pub fn with_versions(self, versions: RangeInclusive<Version>) -> Server<A, R> {
        self.with(|options| options.versions = versions)
    }

    /// The same server with this instance id, which authenticated clients are told.
    pub fn with_server_id(self, server_id: impl Into<Arc<str>>) -> Server<A, R> {
        self.with(|options| options.server_id = server_id.into())
    }

    /// The same server with another wall clock, by which tokens are judged: for tests.
    pub fn with_clock(self, clock: impl Fn() -> UnixTime + Send + Sync + 'static) -> Server<A, R> {
        self.with(|options| options.clock = Arc::new(clock))
    }

    /// The same server with another policy for tokens that expire.
    pub fn with_expiry(self, expiry: ExpiryPolicy) -> Server<A, R> {
        self.with(|options| options.expiry = expiry)
    }

    /// The same server with another policy for clients that call `authenticate` again.
    pub fn with_auth_changes(self, auth_changes: AuthChangePolicy) -> Server<A, R> {
        self.with(|options| options.auth_changes = auth_changes)
    }

    /// The same server, which refuses upgrades with 503 and this reason while it is not ready, or
    /// panics when it is asked.
    pub fn with_readiness(
        self,
        readiness: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Server<A, R> {
        self.with(|options| options.readiness = Some(Arc::new(readiness)))
    }

    /// The same server, which only lets these pages of a browser open a WebSocket, by their origin
    /// such as `https://app.example`. Programs that are no browser are not concerned.
    pub fn with_origins(self, origins: impl IntoIterator<Item = String>) -> Server<A, R> {
        self.with(|options| options.origins = Some(origins.into_iter().collect()))
    }

    /// The same server, which believes proxies in these ranges when they say where a client is
    /// (`X-Forwarded-For`, `Forwarded`), for the limits per address. Others are not believed.
    pub fn with_trusted_proxies(self, proxies: impl IntoIterator<Item = IpNet>) -> Server<A, R> {
        self.with(|options| options.trusted_proxies = proxies.into_iter().collect())
    }

    /// The same server with another registry.
    pub fn with_registry<R2: Registry>(self, registry: R2) -> Server<A, R2> {
        let Server { authenticator, options, state, .. } = self;
        Server { authenticator, registry: Arc::new(registry), options, state }
    }
}
