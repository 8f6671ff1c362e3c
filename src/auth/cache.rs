//! Tokens that were verified a moment ago, for a storm of reconnecting clients.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::digest::{self, SHA256};

use crate::session::Identity;

use super::claims::Times;

/// The SHA-256 of a whole token.
pub(super) type TokenDigest = [u8; 32];

/// Verified tokens, a bounded number of them; the oldest make room. One lock guards both halves, for
/// one look or one insertion, and a token that was verified by keys from before an exchange is not
/// found after it, whichever came first: it has the old generation.
#[derive(Debug)]
pub(super) struct TokenCache {
    capacity: usize,
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    tokens: HashMap<TokenDigest, CachedToken>,
    /// In the order in which they came.
    order: VecDeque<TokenDigest>,
}

/// What was found out about a token.
#[derive(Clone, Debug)]
pub(super) struct CachedToken {
    /// Of the keys that verified it. Others would have to verify it anew.
    pub(super) generation: u64,
    pub(super) identity: Identity,
    /// To be judged again at every use.
    pub(super) times: Times,
}

impl TokenCache {
    pub(super) fn new(capacity: usize) -> TokenCache {
        TokenCache { capacity, cached: Mutex::default() }
    }

    pub(super) fn get(&self, token: &TokenDigest, generation: u64) -> Option<CachedToken> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.tokens.get(token).filter(|token| token.generation == generation).cloned()
    }

    pub(super) fn insert(&self, digest: TokenDigest, token: CachedToken) {
        let cached = &mut *self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.tokens.insert(digest, token).is_none() {
            cached.order.push_back(digest);
        }
        while cached.order.len() > self.capacity {
            if let Some(oldest) = cached.order.pop_front() {
                cached.tokens.remove(&oldest);
            }
        }
    }
}

pub(super) fn token_digest(token: &str) -> TokenDigest {
    let digest = digest::digest(&SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
