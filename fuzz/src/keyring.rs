//! The keys of the token corpus, which everybody has.

use electric_satellite::{
    auth::{Algorithm, Key},
    session::UnixTime,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// When the tokens of the corpus are judged.
pub(crate) const NOW: i64 = 1_700_000_000;

pub(crate) fn at(seconds: i64) -> UnixTime {
    UnixTime::from_secs(seconds)
}

/// A file in `tests/corpus`.
macro_rules! corpus {
    ($file:literal) => {
        include_bytes!(concat!("../../tests/corpus/", $file))
    };
}
pub(crate) use corpus;

pub(crate) const HS256: &[u8] = corpus!("keys/hs256.txt");

/// What verifies tokens of an algorithm in the corpus.
pub(crate) fn verifying(algorithm: Algorithm) -> (&'static [u8], Key) {
    use Algorithm::*;
    let bytes: &[u8] = match algorithm {
        HS256 => corpus!("keys/hs256.txt"),
        HS384 => corpus!("keys/hs384.txt"),
        HS512 => corpus!("keys/hs512.txt"),
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => corpus!("keys/rsa2048.pub.pem"),
        ES256 => corpus!("keys/p256.pub.pem"),
        ES384 => corpus!("keys/p384.pub.pem"),
        ES512 => corpus!("keys/p521.pub.pem"),
        EdDSA => corpus!("keys/ed25519.pub.pem"),
    };
    let key = match algorithm.is_symmetric() {
        true => Key::from_secret(algorithm, bytes),
        false => Key::from_pem(algorithm, bytes),
    };
    (bytes, key.expect("a key of the corpus"))
}

/// The HMAC with SHA-256, by an implementation that is not the crate's.
pub(crate) fn hs256(message: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(HS256).expect("any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().into()
}
