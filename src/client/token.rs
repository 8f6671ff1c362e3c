//! Where a client's tokens come from.

use std::{error::Error, future::Future, sync::Arc};

use futures_util::future::BoxFuture;

use crate::session::Token;

/// Why a token is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenReason {
    /// The client connects for the first time, or after it was told to disconnect, or after it
    /// has given up.
    Connect,
    /// The connection was lost, or the last attempt failed for another reason than its token.
    Reconnect,
    /// The last token was rejected, or has expired on a live connection: the same again will not
    /// do. The client gives up if the next one is rejected, too.
    Rejected,
    /// The token of the live connection is about to expire; see
    /// [`RenewalPolicy`](super::RenewalPolicy).
    Expiring,
}

/// Hands out tokens: one for every authentication, right before the attempt that presents it.
///
/// A closure that returns a future is one, and so is a [`Token`], which is presented every time.
/// Recommended practice is to fetch a one-off token from the application's backend, such as
/// `examples/token_endpoint.rs`.
///
/// ```
/// use electric_satellite::{client::{TokenError, TokenReason}, session::Token};
///
/// let provider = |reason: TokenReason| async move {
///     let text = match reason {
///         TokenReason::Rejected => "a fresh token", // do not take this one from a cache
///         _ => "any valid token",
///     };
///     Token::new(text).map_err(TokenError::fatal)
/// };
/// # fn takes(_: impl electric_satellite::client::TokenProvider) {}
/// # takes(provider);
/// ```
pub trait TokenProvider: Send + Sync + 'static {
    /// A token, for this reason. It may take its time, but not longer than
    /// [`token_timeout`](super::ClientBuilder::token_timeout); it is dropped when the client is
    /// told to disconnect. It should not block the thread.
    ///
    /// # Errors
    ///
    /// There is none now, or there never will be; see [`TokenError`]. If it panics, the client
    /// gives up.
    fn token(&self, reason: TokenReason) -> impl Future<Output = Result<Token, TokenError>> + Send;
}

impl<F, Fut> TokenProvider for F
where
    F: Fn(TokenReason) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, TokenError>> + Send,
{
    fn token(&self, reason: TokenReason) -> impl Future<Output = Result<Token, TokenError>> + Send {
        self(reason)
    }
}

impl TokenProvider for Token {
    async fn token(&self, _reason: TokenReason) -> Result<Token, TokenError> {
        Ok(self.clone())
    }
}

/// Why there is no token. What the provider says must not hold one.
#[derive(Debug, thiserror::Error)]
#[error("no token: {source}")]
pub struct TokenError {
    source: Box<dyn Error + Send + Sync>,
    fatal: bool,
}

impl TokenError {
    /// None now: the backend cannot be reached, for example. The client tries again.
    pub fn temporary(reason: impl Into<Box<dyn Error + Send + Sync>>) -> TokenError {
        TokenError { source: reason.into(), fatal: false }
    }

    /// None any more: the user has signed out, for example. The client gives up.
    pub fn fatal(reason: impl Into<Box<dyn Error + Send + Sync>>) -> TokenError {
        TokenError { source: reason.into(), fatal: true }
    }

    /// Whether the client gives up.
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }
}

/// A provider whose type does not matter.
pub(super) type DynProvider =
    Arc<dyn Fn(TokenReason) -> BoxFuture<'static, Result<Token, TokenError>> + Send + Sync>;

pub(super) fn erase(provider: impl TokenProvider) -> DynProvider {
    let provider = Arc::new(provider);
    Arc::new(move |reason| {
        let provider = Arc::clone(&provider);
        Box::pin(async move { provider.token(reason).await })
    })
}
