//! Keeps a client connected: one task, one connection at a time.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    auth::unverified_expiry,
    session::{AuthenticatedServer, Cause, ClientId, Close, Token, UnixTime},
    transport::{Connection, Handle},
};

use super::{
    Advice, Backoff, ClientBuilder, Connectivity, Connector, Failure, RenewalPolicy, Shared,
    TokenReason, Wanted, token::DynProvider,
};

/// The task of one client.
pub(super) struct Supervisor {
    client_id: ClientId,
    connector: Connector,
    provider: DynProvider,
    token_timeout: Duration,
    server_id: Option<String>,
    backoff: Backoff,
    renewal: RenewalPolicy,
    random: fastrand::Rng,
    clock: Arc<dyn Fn() -> UnixTime + Send + Sync>,
    shared: Arc<Shared>,
    connectivity: watch::Sender<Connectivity>,
    /// The connection that lives.
    live: Option<Handle<AuthenticatedServer>>,
}

/// What became of a connection.
enum Held {
    Lost(Failure),
    /// It is closed because its token is about to expire, and this is another.
    Expiring(Token),
}

impl Supervisor {
    pub(super) fn new(
        builder: ClientBuilder,
        client_id: ClientId,
        shared: Arc<Shared>,
        connectivity: watch::Sender<Connectivity>,
    ) -> Supervisor {
        let ClientBuilder {
            connector,
            provider,
            token_timeout,
            client_id: _,
            server_id,
            backoff,
            renewal,
            random,
            clock,
        } = builder;
        Supervisor {
            client_id,
            connector,
            provider,
            token_timeout,
            server_id,
            backoff,
            renewal,
            random,
            clock,
            shared,
            connectivity,
            live: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut wanted = self.shared.wanted.subscribe();
        loop {
            match until(&mut wanted, |wanted| wanted != Wanted::Offline).await {
                Some(Wanted::Online) => {}
                _ => return,
            }
            let given_up = select! {
                biased;
                _ = until(&mut wanted, |wanted| wanted != Wanted::Online) => None,
                failure = self.stay_connected() => Some(failure),
            };
            self.close().await;
            if let Some(failure) = &given_up {
                tracing::warn!(reason = %failure, "the client gives up");
            }
            self.publish(Connectivity::Disconnected {
                reason: given_up.clone(),
                next_attempt: None,
            });
            if given_up.is_some() {
                self.shared.wanted.send_if_modified(|wanted| {
                    let is_online = *wanted == Wanted::Online;
                    if is_online {
                        *wanted = Wanted::Offline;
                    }
                    is_online
                });
            }
            self.shared.news.notify_waiters();
        }
    }

    /// Connects again and again, until there is a reason not to.
    async fn stay_connected(&mut self) -> Arc<Failure> {
        let mut reason = TokenReason::Connect;
        let mut token = None;
        let mut failures = 0;
        loop {
            self.publish(Connectivity::Connecting);
            let mut let_in = false;
            let failure = match self.attempt(reason, token.take()).await {
                Err(failure) => failure,
                Ok((connection, expires)) => {
                    let_in = true;
                    let since = Instant::now();
                    let held = self.hold(connection, expires).await;
                    if since.elapsed() >= self.backoff.stable_after {
                        failures = 0;
                    }
                    match held {
                        Held::Lost(failure) => failure,
                        Held::Expiring(fresh) => {
                            token = Some(fresh);
                            continue;
                        }
                    }
                }
            };
            failures += 1;
            let advice = failure.advice();
            // A fresh token was no better.
            let hopeless =
                advice == Advice::FreshToken && reason == TokenReason::Rejected && !let_in;
            let exhausted = self.backoff.attempts.is_some_and(|most| failures >= most);
            let failure = Arc::new(failure);
            if advice == Advice::GiveUp || hopeless || exhausted {
                return failure;
            }
            reason = match advice {
                Advice::FreshToken => TokenReason::Rejected,
                _ => TokenReason::Reconnect,
            };
            let pause = self.backoff.pause(failures, failure.retry_after(), self.random.f64());
            let next_attempt = Instant::now() + pause;
            tracing::info!(reason = %failure, ?pause, "not connected, trying again");
            self.publish(Connectivity::Disconnected {
                reason: Some(failure),
                next_attempt: Some(next_attempt),
            });
            select! {
                () = sleep_until(next_attempt) => {}
                () = self.shared.retry.notified() => failures = 0,
            }
        }
    }

    /// One attempt to connect, for which there is a token already or not. Returns when that
    /// expires, too.
    async fn attempt(
        &mut self,
        reason: TokenReason,
        token: Option<Token>,
    ) -> Result<(Connection<AuthenticatedServer>, Option<UnixTime>), Failure> {
        let token = match token {
            Some(token) => token,
            None => self.token(reason).await?,
        };
        let expires = unverified_expiry(&token);
        let connection =
            self.connector.connect(&self.client_id, token).await.map_err(Failure::Connect)?;
        let found = connection.server_id();
        match &self.server_id {
            Some(expected) if expected != found => {
                let (expected, found) = (expected.clone(), found.to_owned());
                Err(Failure::WrongServer { expected, found })
            }
            _ => Ok((connection, expires)),
        }
    }

    async fn token(&self, reason: TokenReason) -> Result<Token, Failure> {
        match timeout(self.token_timeout, (self.provider)(reason)).await {
            Ok(token) => token.map_err(Failure::Token),
            Err(_) => Err(Failure::TokenTimeout(self.token_timeout)),
        }
    }

    /// Hands a connection to the application, and waits until it is lost.
    async fn hold(
        &mut self,
        connection: Connection<AuthenticatedServer>,
        expires: Option<UnixTime>,
    ) -> Held {
        let handle = connection.handle();
        let server_id = connection.server_id().to_owned();
        tracing::info!(server_id, version = %connection.version(), "connected");
        self.live = Some(handle.clone());
        self.publish(Connectivity::Connected { server_id, version: connection.version() });
        self.shared.put(Some(connection));
        let fresh = select! {
            end = handle.closed() => Err(Failure::Ended(end.clone())),
            fresh = self.renewals(&handle, expires) => Ok(fresh),
            () = self.challenges(&handle) => unreachable!("it goes on for ever"),
        };
        self.close().await;
        match fresh {
            Ok(token) => Held::Expiring(token),
            Err(failure) => Held::Lost(failure),
        }
    }

    /// Closes the connection that lives, if there is one, and takes it from where the application
    /// would find it.
    async fn close(&mut self) {
        let Some(handle) = self.live.take() else { return };
        handle.end(None, Close::NORMAL, Cause::Local);
        self.shared.put(None);
        handle.closed().await;
    }

    /// Asks the service for a sign of life whenever the application wants it.
    async fn challenges(&self, connection: &Handle<AuthenticatedServer>) {
        loop {
            self.shared.retry.notified().await;
            connection.challenge();
        }
    }

    /// Presents other tokens before the one of the connection expires, or returns one for the next
    /// connection, as the policy wants it.
    async fn renewals(
        &self,
        connection: &Handle<AuthenticatedServer>,
        mut expires: Option<UnixTime>,
    ) -> Token {
        loop {
            let (before, in_place) = match self.renewal {
                RenewalPolicy::Never => return pending().await,
                RenewalPolicy::InPlace(before) => (before, true),
                RenewalPolicy::Reconnect(before) => (before, false),
            };
            let Some(left) = expires.map(|expires| self.left(expires)) else {
                return pending().await;
            };
            // Tokens that are short-lived beyond reason are not asked for without a pause.
            sleep(left.saturating_sub(before).max(left / 2).max(Duration::from_secs(1))).await;
            let fresh = self.expiring_token().await;
            if !in_place {
                return fresh;
            }
            expires = unverified_expiry(&fresh);
            if let Err(failure) = connection.reauthenticate(fresh, self.token_timeout).await {
                tracing::info!(reason = %failure, "the token is not renewed");
                // The service has closed the connection, or will when the token expires.
                return pending().await;
            }
        }
    }

    /// How long a token is still valid.
    fn left(&self, expires: UnixTime) -> Duration {
        let left = expires.as_secs().saturating_sub((self.clock)().as_secs());
        // Longer than any connection lasts, and short enough for every clock.
        Duration::from_secs(u64::try_from(left).unwrap_or(0).min(10 * 365 * 24 * 3600))
    }

    /// A token to follow the one that is about to expire. There may be none for a while.
    async fn expiring_token(&self) -> Token {
        let mut failures = 0;
        loop {
            match self.token(TokenReason::Expiring).await {
                Ok(token) => return token,
                Err(failure) => {
                    failures += 1;
                    tracing::info!(reason = %failure, "no token to follow the one that expires");
                    sleep(self.backoff.pause(failures, None, 1.0)).await;
                }
            }
        }
    }

    fn publish(&self, connectivity: Connectivity) {
        self.connectivity.send_replace(connectivity);
    }
}

/// Waits until this is wanted.
async fn until(
    wanted: &mut watch::Receiver<Wanted>,
    this: impl Fn(Wanted) -> bool,
) -> Option<Wanted> {
    wanted.wait_for(|wanted| this(*wanted)).await.ok().map(|wanted| *wanted)
}
