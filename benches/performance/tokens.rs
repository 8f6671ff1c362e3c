//! Tokens, and what verifies them.

use bytes::Bytes;
use electric_satellite::{
    auth::{Algorithm, ClaimRules, JwtAuthenticator, Key, Minter},
    session::{Token, UnixTime},
    wire::{Request, proto::SatAuthReq},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A time at which every token here is valid.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

/// One token and what verifies it. Both are fixed, so every run does the same work.
#[derive(Clone, Serialize, Deserialize)]
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
        serde_json::from_str(include_str!("tokens.json")).unwrap()
    }

    pub(crate) fn with(algorithm: &str) -> Signed {
        Signed::all().into_iter().find(|signed| signed.algorithm == algorithm).unwrap()
    }

    pub(crate) fn token(&self) -> Token {
        Token::new(&self.token).unwrap()
    }

    /// The binary message by which one of several clients presents the token.
    pub(crate) fn frame(&self, client: usize) -> Bytes {
        frame(&self.token, client)
    }

    /// The same token with the signature of none: it is as long, and takes as long to verify.
    pub(crate) fn forged(&self) -> Signed {
        let mut token = self.token.clone();
        let signature = token.rfind('.').unwrap() + 1;
        // In the middle of its first half, which is a number that may be any.
        let at = signature + (token.len() - signature) / 4;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        token.replace_range(at..=at, other);
        Signed { token, ..self.clone() }
    }

    /// The same token for a server in insecure mode, which does not look at its signature.
    pub(crate) fn not_verified(&self) -> Signed {
        Signed { algorithm: "none".into(), ..self.clone() }
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

/// ES256 for so many clients: one of their tokens, and the message by which each presents its own.
pub(crate) fn for_each(clients: usize) -> (Signed, Vec<Bytes>) {
    let private = include_str!("../../tests/corpus/keys/p256.key.pem");
    let minter = Minter::from_pem(Algorithm::ES256, private.as_bytes()).unwrap();
    let token = |client: usize| {
        let (sub, iat) = (format!("3f1d2c4e-5b6a-4c7d-8e9f-{client:012}"), NOW.as_secs());
        let claims = json!({
            "iss": "https://auth.example.com", "aud": "electric", "sub": sub,
            "iat": iat, "exp": iat + 3_600,
        });
        minter.mint(&claims).unwrap()
    };
    let messages = (0..clients).map(|client| frame(token(client).expose(), client)).collect();
    let key = include_str!("../../tests/corpus/keys/p256.pub.pem").to_owned();
    let token = token(0).expose().to_owned();
    (Signed { algorithm: "ES256".into(), key, token }, messages)
}

fn frame(token: &str, client: usize) -> Bytes {
    let id = format!("c9a646d3-9c61-4cb7-bfcd-{client:012}");
    let request = SatAuthReq { id, token: token.to_owned(), headers: vec![] };
    Request::from(request).encode(1).encode()
}
