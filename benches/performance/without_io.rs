//! What a handshake is made of, without I/O: this crate's part, and the cryptography alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    hmac,
    signature::{self, ParsedPublicKey, VerificationAlgorithm},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use electric_satellite::{
    auth::JwtAuthenticator,
    session::{Frame, Input, Output, Refusal, ServerSession, Session},
    wire::Version,
};

use super::tokens::{NOW, Signed};

/// The instance id that all connections of a server share.
pub(crate) const SERVER_ID: &str = "0b8de0b8-3f5c-4c0e-8a57-6f6d7a2f4c1d";

/// What can be done any number of times.
pub(crate) type Operation = Box<dyn Fn()>;

/// From the frame to the frame that answers it.
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

/// The signature over the same bytes, by the library alone and with a parsed key.
pub(crate) fn bare_verification(signed: &Signed) -> Box<dyn Fn() + Send + Sync> {
    let token = signed.token();
    let (message, signature) = token.expose().rsplit_once('.').unwrap();
    let message = message.to_owned().into_bytes();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let algorithm: &'static dyn VerificationAlgorithm = match signed.algorithm.as_str() {
        "none" => return Box::new(|| {}),
        "HS256" => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, signed.key.as_bytes());
            return Box::new(move || hmac::verify(&key, &message, &signature).unwrap());
        }
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
        "ES384" => &signature::ECDSA_P384_SHA384_FIXED,
        "ES512" => &signature::ECDSA_P521_SHA512_FIXED,
        "EdDSA" => &signature::ED25519,
        other => panic!("no bare {other}"),
    };
    let base64: String = signed.key.lines().filter(|line| !line.starts_with('-')).collect();
    let key = ParsedPublicKey::new(algorithm, STANDARD.decode(base64).unwrap()).unwrap();
    Box::new(move || key.verify_sig(&message, &signature).unwrap())
}
