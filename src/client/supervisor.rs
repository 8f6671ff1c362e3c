//! Keeps a client connected: one task, one connection at a time.

use std::{future::pending, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
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
    /// The connection that lives, or is not closed yet.
    live: Option<Handle<AuthenticatedServer>>,
}

/// What became of a connection.
enum Held {
    Lost(Failure),
    /// It is closed because its token is about to expire, and this is another.
    Expiring(Token),
}

/// How a pause ended.
#[derive(PartialEq, Eq)]
enum Pause {
    Over,
    /// The moment is good.
    CutShort,
}

/// Between two questions for a token that is to follow another.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

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
            let now = wanted.borrow_and_update().clone();
            let reason = match now.clone() {
                Wanted::Offline | Wanted::Nothing => None,
                Wanted::GivenUp(failure) => Some(failure),
                Wanted::Online(times) => {
                    select! {
                        biased;
                        _ = wanted.changed() => {}
                        failure = self.stay_connected() => {
                            tracing::warn!(reason = %failure, "the client gives up");
                            self.shared.give_up(times, failure);
                        }
                    }
                    continue;
                }
            };
            self.publish(Connectivity::Disconnected { reason, next_attempt: None });
            let closed = async {
                self.close().await;
                if !matches!(now, Wanted::Nothing) {
                    pending().await
                }
            };
            select! {
                _ = wanted.changed() => {}
                () = closed => return,
            }
        }
    }

    /// Connects again and again, until there is a reason not to.
    async fn stay_connected(&mut self) -> Arc<Failure> {
        // A moment that was good before counts no more.
        let _ = self.shared.retry.notified().now_or_never();
        let mut reason = TokenReason::Connect;
        let mut token = None;
        // The token that the service has turned down last, and how it did.
        let mut refused: Option<(Token, Arc<Failure>)> = None;
        let (mut failed, mut pauses) = (0, 0);
        loop {
            self.publish(Connectivity::Connecting);
            self.close().await;
            failed += 1;
            let asked = match token.take() {
                Some(token) => Ok(token),
                None => self.token(reason).await,
            };
            if let (TokenReason::Rejected, Ok(token), Some((same, failure))) =
                (reason, &asked, &refused)
                && token == same
            {
                // There is no other.
                return Arc::clone(failure);
            }
            let presented = asked.as_ref().ok().cloned();
            let failure = match self.attempt(asked).await {
                Err(failure) => failure,
                Ok((connection, expires)) => {
                    let since = Instant::now();
                    let held = self.hold(connection, expires).await;
                    if since.elapsed() >= self.backoff.stable_after {
                        (failed, pauses) = (0, 0);
                    }
                    match held {
                        Held::Lost(failure) => failure,
                        Held::Expiring(fresh) => {
                            (token, reason) = (Some(fresh), TokenReason::Expiring);
                            continue;
                        }
                    }
                }
            };
            let exhausted = self.backoff.attempts.is_some_and(|most| failed >= most);
            reason = match next_reason(&failure, reason) {
                Some(next) if !exhausted => next,
                _ => return Arc::new(failure),
            };
            pauses += 1;
            let failure = Arc::new(failure);
            if let (Advice::FreshToken, Some(token)) = (failure.advice(), presented) {
                refused = Some((token, Arc::clone(&failure)));
            }
            if self.pause(failure, pauses).await == Pause::CutShort {
                (failed, pauses) = (0, 0);
            }
        }
    }

    /// Waits before the next attempt, for the so many-th time in a row.
    async fn pause(&mut self, failure: Arc<Failure>, pauses: u32) -> Pause {
        let pause = self.backoff.pause(pauses, failure.retry_after(), self.random.f64());
        tracing::info!(reason = %failure, ?pause, "not connected, trying again");
        let next_attempt = Instant::now() + pause;
        self.publish(Connectivity::Disconnected {
            reason: Some(failure),
            next_attempt: Some(next_attempt),
        });
        select! {
            () = sleep_until(next_attempt) => Pause::Over,
            () = self.shared.retry.notified() => Pause::CutShort,
        }
    }

    /// One attempt to connect, if there is a token. Returns when that expires, too.
    async fn attempt(
        &mut self,
        token: Result<Token, Failure>,
    ) -> Result<(Connection<AuthenticatedServer>, Option<UnixTime>), Failure> {
        let token = token?;
        let expires = unverified_expiry(&token);
        let connection =
            self.connector.connect(&self.client_id, token).await.map_err(Failure::Connect)?;
        self.live = Some(connection.handle());
        self.shared.open.send_replace(true);
        let found = connection.server_id();
        match &self.server_id {
            Some(expected) if expected != found => {
                let (expected, found) = (expected.clone(), found.to_owned());
                Err(Failure::WrongServer { expected, found })
            }
            _ => Ok((connection, expires)),
        }
    }

    /// Asks for a token. The provider is the application's: it may take its time, or panic.
    async fn token(&self, reason: TokenReason) -> Result<Token, Failure> {
        let asked = AssertUnwindSafe((self.provider)(reason)).catch_unwind();
        match timeout(self.token_timeout, asked).await {
            Ok(Ok(token)) => token.map_err(Failure::Token),
            Ok(Err(_panic)) => Err(Failure::TokenPanic),
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
        self.publish(Connectivity::Connected { server_id, version: connection.version() });
        self.shared.put(Some(connection));
        let held = select! {
            biased;
            end = handle.over() => Held::Lost(Failure::Ended(end.clone())),
            fresh = self.renewals(&handle, expires) => match fresh {
                Ok(token) => Held::Expiring(token),
                Err(failure) => Held::Lost(failure),
            },
            () = self.challenges(&handle) => unreachable!("it goes on for ever"),
        };
        self.shared.put(None);
        held
    }

    /// Closes the connection that there is, and waits until that is through. Cancel-safe: there is
    /// no other connection before.
    async fn close(&mut self) {
        if let Some(handle) = &self.live {
            handle.end(None, Close::NORMAL, Cause::Local);
            self.shared.put(None);
            handle.closed().await;
            self.live = None;
            self.shared.open.send_replace(false);
        }
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
    ///
    /// # Errors
    ///
    /// There are no tokens any more.
    async fn renewals(
        &self,
        connection: &Handle<AuthenticatedServer>,
        mut expires: Option<UnixTime>,
    ) -> Result<Token, Failure> {
        loop {
            let (before, in_place) = match self.renewal {
                RenewalPolicy::Never => return pending().await,
                RenewalPolicy::InPlace(before) => (before, true),
                RenewalPolicy::Reconnect(before) => (before, false),
            };
            let Some(expiry) = expires else { return pending().await };
            let left = expiry.left((self.clock)());
            sleep(left.saturating_sub(before).max(left / 2).max(SHORTEST_PAUSE)).await;
            let fresh = self.following_token(expiry).await?;
            if !in_place {
                return Ok(fresh);
            }
            expires = unverified_expiry(&fresh);
            let within = self.connector.limits().auth_timeout;
            if let Err(failure) = connection.reauthenticate(fresh, within).await {
                tracing::info!(reason = %failure, "the token is not renewed");
                // The service has closed the connection, or will when the token expires.
                return pending().await;
            }
        }
    }

    /// A token that lasts longer than this. There may be none for a while.
    async fn following_token(&self, expiry: UnixTime) -> Result<Token, Failure> {
        for failures in 1.. {
            match self.token(TokenReason::Expiring).await {
                Ok(token) if unverified_expiry(&token).is_none_or(|its| its > expiry) => {
                    return Ok(token);
                }
                Ok(_) => tracing::info!("the token to follow does not last longer"),
                Err(failure) if failure.advice() == Advice::GiveUp => return Err(failure),
                Err(failure) => tracing::info!(reason = %failure, "no token to follow"),
            }
            sleep(self.backoff.pause(failures, None, 1.0).max(SHORTEST_PAUSE)).await;
        }
        unreachable!("it goes on for ever")
    }

    fn publish(&self, connectivity: Connectivity) {
        self.connectivity.send_replace(connectivity);
    }
}

/// Why a token is wanted after this failure, if the last was wanted for this reason; nothing if
/// the client gives up.
fn next_reason(failure: &Failure, reason: TokenReason) -> Option<TokenReason> {
    let was_rejected = reason == TokenReason::Rejected;
    match (failure.advice(), failure) {
        (Advice::GiveUp, _) => None,
        // A fresh token was no better.
        (Advice::FreshToken, Failure::Connect(_)) if was_rejected => None,
        (Advice::FreshToken, _) => Some(TokenReason::Rejected),
        // The rejected one is still the last that there was.
        (_, Failure::Token(_) | Failure::TokenTimeout(_)) if was_rejected => Some(reason),
        _ => Some(TokenReason::Reconnect),
    }
}

impl Drop for Supervisor {
    /// Whoever waits for the client learns it if this was too early: the runtime is shut down, or
    /// something of the application's has panicked.
    fn drop(&mut self) {
        if let Some(handle) = self.live.take() {
            handle.end(None, Close::NORMAL, Cause::Local);
        }
        self.shared.open.send_replace(false);
        self.shared.settle(Wanted::Nothing);
        self.publish(Connectivity::Disconnected { reason: None, next_attempt: None });
    }
}
