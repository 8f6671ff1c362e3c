//! Tokens, and the handshake that benches run with them.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use electric_satellite::{
    auth::{ClaimRules, JwtAuthenticator, Key},
    session::{Frame, Input, Output, Refusal, ServerSession, Session, Token, UnixTime},
    wire::{Request, Version, proto::SatAuthReq},
};
use serde::Deserialize;

/// The instance id that all connections of a server share.
pub(crate) const SERVER_ID: &str = "0b8de0b8-3f5c-4c0e-8a57-6f6d7a2f4c1d";

/// A time at which every token here is valid.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

/// One token and what verifies it. Both are fixed, so every run does the same work.
#[derive(Deserialize)]
pub(crate) struct Signed {
    /// `none` stands for insecure mode.
    pub(crate) algorithm: String,
    /// The shared secret, or the public key in PEM. The private keys were not kept.
    pub(crate) key: String,
    token: String,
}

impl Signed {
    /// One of each algorithm, all with the same claims.
    pub(crate) fn all() -> Vec<Signed> {
        serde_json::from_str(include_str!("../tokens.json")).unwrap()
    }

    pub(crate) fn hs256() -> Signed {
        Signed::all().into_iter().find(|signed| signed.algorithm == "HS256").unwrap()
    }

    pub(crate) fn token(&self) -> Token {
        Token::new(&self.token).unwrap()
    }

    /// The binary message by which one of several clients presents the token.
    pub(crate) fn frame(&self, client: usize) -> Bytes {
        let id = format!("c9a646d3-9c61-4cb7-bfcd-{client:012}");
        let request = SatAuthReq { id, token: self.token.clone(), headers: vec![] };
        Request::from(request).encode(1).encode()
    }

    pub(crate) fn authenticator(&self) -> JwtAuthenticator {
        let algorithm = match self.algorithm.as_str() {
            "none" => return JwtAuthenticator::insecure(None),
            name => name.parse().unwrap(),
        };
        let key = match self.algorithm.as_str() {
            "HS256" => Key::from_secret(algorithm, self.key.as_bytes()),
            _ => Key::from_pem(algorithm, self.key.as_bytes()),
        };
        JwtAuthenticator::secure(key.unwrap(), ClaimRules::default())
    }
}

/// Everything of this crate in a handshake, without I/O: from the frame to the frame that
/// answers it.
pub(crate) fn handshake(
    now: Instant,
    server_id: &Arc<str>,
    authenticator: &JwtAuthenticator,
    frame: Bytes,
) -> (ServerSession, Bytes) {
    let mut session =
        ServerSession::new(now, Duration::from_secs(10), Version::V0_12, Arc::clone(server_id));
    session.handle_input(now, Input::Binary(frame.into())).unwrap();
    let Some(Output::Authenticate(request)) = session.poll_output() else { panic!() };
    let verdict = authenticator.verify(request.token(), NOW);
    session.resolve(request, verdict.map_err(|error| Refusal::from(&error)));
    let Some(Output::Send(Frame(reply))) = session.poll_output() else { panic!() };
    let Some(Output::Authenticated(_)) = session.poll_output() else { panic!("refused") };
    (session, reply)
}
