//! Keys that come from a URL.

use std::{convert::Infallible, time::Duration};

use reqwest::{Client, Url, redirect};
use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{Algorithm, KeyRing, KeySet, KeySetError, Lookup, source::fingerprints};

/// A URL with a JWK Set, which is fetched again and again.
///
/// The URL comes from configuration, never from a token. Its keys are kept under it, so another
/// source's keys with the same `kid` are others. Redirects are not followed.
#[derive(Clone, Debug)]
pub struct JwksUrl {
    url: Url,
    algorithms: Vec<Algorithm>,
    timing: Timing,
}

/// When a JWK Set is fetched, and how long it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often it is fetched. 5 minutes.
    pub refresh: Duration,
    /// How long keys are used that could not be fetched again. 1 hour.
    pub max_age: Duration,
    /// The shortest time between two fetches, of which an unknown `kid` causes some. 30 s.
    pub min_interval: Duration,
    /// How long a fetch may take. 5 s.
    pub timeout: Duration,
    /// The largest JWK Set, in bytes. 512 KiB.
    pub max_bytes: usize,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            refresh: Duration::from_secs(300),
            max_age: Duration::from_secs(3600),
            min_interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            max_bytes: 512 * 1024,
        }
    }
}

/// Why a URL is not one to fetch keys from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksUrlError {
    /// It is no URL.
    #[error("it is no URL")]
    Malformed,
    /// Whoever is on the way could exchange the keys.
    #[error("it must begin with https:// unless it is on this machine")]
    Insecure,
}

/// Why a JWK Set was not had this time.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    #[error("it took longer than {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Keys(#[from] KeySetError),
}

impl JwksUrl {
    /// The JWK Set at this URL, whose keys verify with these algorithms.
    ///
    /// # Errors
    ///
    /// It is no URL, or an `http` one that leads off this machine.
    pub fn new(url: &str, algorithms: &[Algorithm]) -> Result<JwksUrl, JwksUrlError> {
        let url: Url = url.trim().parse().map_err(|_| JwksUrlError::Malformed)?;
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            _ => return Err(JwksUrlError::Insecure),
        }
        Ok(JwksUrl { url, algorithms: algorithms.to_vec(), timing: Timing::default() })
    }

    /// The same URL, fetched at other times.
    pub fn with_timing(self, timing: Timing) -> JwksUrl {
        JwksUrl { timing, ..self }
    }

    /// Fetches the keys now, then so often, and when a token names an unknown one, and puts them
    /// into the ring. If they cannot be fetched, those of before are used until they are too old.
    pub async fn keep(self, ring: KeyRing) -> Infallible {
        let mut client = Client::builder();
        if self.url.scheme() == "http" {
            // What does not leave this machine must not leave it through a proxy.
            client = client.no_proxy();
        }
        let client = client
            .redirect(redirect::Policy::none())
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .build()
            .expect("no option that can fail");
        let mut lookups = ring.lookups();
        let mut fresh = Instant::now();
        let mut lookup = None;
        loop {
            let fetched = Instant::now();
            match self.fetch(&client).await {
                Ok(keys) => {
                    fresh = fetched;
                    self.exchange(&ring, keys);
                }
                Err(error) if fetched.duration_since(fresh) > self.timing.max_age => {
                    tracing::error!(url = %self.name(), %error, "no JWK Set, and its keys are too old");
                    ring.replace(self.name().as_str(), KeySet::default());
                }
                Err(error) => tracing::warn!(url = %self.name(), %error, "no JWK Set this time"),
            }
            drop(lookup.take());
            lookup = self.next_occasion(fetched, &mut lookups).await;
        }
    }

    /// Waits until it is time to fetch again, or a lookup makes it worth while.
    async fn next_occasion(
        &self,
        fetched: Instant,
        lookups: &mut mpsc::Receiver<Lookup>,
    ) -> Option<Lookup> {
        loop {
            select! {
                () = sleep_until(fetched + self.timing.refresh) => return None,
                Some(lookup) = lookups.recv() => {
                    if fetched.elapsed() >= self.timing.min_interval {
                        return Some(lookup);
                    }
                }
            }
        }
    }

    /// The URL without a password, as the log and the ring know it.
    fn name(&self) -> Url {
        let mut url = self.url.clone();
        // It has a host, so it may have none of these.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url
    }

    /// Exchanges the keys if they are others than before.
    fn exchange(&self, ring: &KeyRing, keys: KeySet) {
        let named = |keys: &KeySet| format!("{keys:?}");
        let before = ring.keys_of(self.name().as_str());
        if before.as_ref().map(named) != Some(named(&keys)) {
            tracing::info!(url = %self.name(), keys = %fingerprints(&keys), "new keys");
            ring.replace(self.name().as_str(), keys);
        }
    }

    async fn fetch(&self, client: &Client) -> Result<KeySet, FetchError> {
        let fetch = self.fetch_in_any_time(client);
        let limit = self.timing.timeout;
        timeout(limit, fetch).await.unwrap_or(Err(FetchError::TimedOut(limit)))
    }

    async fn fetch_in_any_time(&self, client: &Client) -> Result<KeySet, FetchError> {
        let mut response = client.get(self.url.clone()).send().await?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut json = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            json.extend_from_slice(&chunk);
            if json.len() > self.timing.max_bytes {
                return Err(FetchError::TooLarge(self.timing.max_bytes));
            }
        }
        Ok(KeySet::from_jwks(&self.algorithms, &json)?)
    }
}
