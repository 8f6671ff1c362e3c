//! Our verdict on a token against that of `jwt-simple`, which shares no code with ours: it has
//! another HMAC, RSA, ECDSA and Ed25519 (none of them from `aws-lc-rs`), another base64, and other
//! types for the JSON.
//!
//! What we accept it accepts, but for [`stricter`]. What it accepts has a good signature for us
//! too; the rules that we have and it has not are in [`laxer`].

use std::sync::LazyLock;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use electric_satellite::{
    auth::{Algorithm, AuthError, ClaimRules, JwtAuthenticator},
    session::Token,
};
use jwt_simple::prelude::*;
use serde_json::Value;

use crate::keyring::{NOW, at, corpus, verifying};

/// The first byte chooses the algorithm. If its highest bit is set, the rest is the text of a token;
/// else a header and, behind a line break, a payload, which are signed here.
pub fn check(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let Judge { ours, theirs, sign } = &JUDGES[usize::from(choice & 0x7f) % JUDGES.len()];
    let signed = || {
        let line_break = rest.iter().position(|byte| *byte == b'\n')?;
        let (header, payload) = (&rest[..line_break], &rest[line_break + 1..]);
        let text =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = sign.as_ref()?(text.as_bytes());
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    };
    let text = if choice & 0x80 == 0 { signed() } else { String::from_utf8(rest.to_vec()).ok() };
    let Some(Ok(token)) = text.map(Token::new) else { return };

    let segment = |index| {
        let segment = token.expose().split('.').nth(index)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
    };
    let (header, payload) = (segment(0).unwrap_or_default(), segment(1).unwrap_or_default());
    match ours.verify(&token, at(NOW)) {
        // It would say nothing new.
        Err(error) if laxer(&error, &header) => {}
        Err(error) => {
            let verdict = theirs(token.expose());
            assert!(verdict.is_err(), "only we refuse {}: {error}", token.expose());
        }
        Ok(verified) => match theirs(token.expose()) {
            Ok(claims) => {
                let identity = verified.identity();
                if let Some(subject) = claims.subject {
                    assert_eq!(identity.user_id, subject);
                }
                let token_id = claims.jwt_id.filter(|id| !id.is_empty());
                assert_eq!(identity.token_id, token_id);
            }
            Err(error) => {
                assert!(stricter(&header, &payload), "only we accept {}: {error}", token.expose());
            }
        },
    }
}

/// Why it refuses what we accept, for a good reason on either side:
///
/// - parameters of the header that we do not look at have to be of their type, and `jwk` a text;
/// - `typ` has to be `JWT` or end with `+JWT`;
/// - claims that we do not look at have to be of their type;
/// - times are not negative.
fn stricter(header: &Value, payload: &Value) -> bool {
    let text_or_null =
        |value: Option<&Value>| value.is_none_or(|value| value.is_string() || value.is_null());
    let texts = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(values)) => values.iter().all(Value::is_string),
        Some(_) => false,
    };
    let header_is_typed = ["cty", "kid", "typ", "jku", "jwk", "x5u", "x5t", "x5t#S256"]
        .iter()
        .all(|name| text_or_null(header.get(name)))
        && texts(header.get("x5c"))
        && header.get("salt").is_none();
    let typ = header.get("typ").and_then(Value::as_str).unwrap_or("JWT").to_uppercase();
    let is_jwt = typ == "JWT" || typ.ends_with("+JWT");
    let claims_are_typed =
        ["iss", "sub", "jti", "kid", "nonce"].iter().all(|name| text_or_null(payload.get(name)))
            && payload
                .get("aud")
                .is_none_or(|aud| aud.is_string() || (aud.is_array() && texts(Some(aud))));
    let is_negative = |name| {
        payload.get(name).and_then(Value::as_f64).is_some_and(|time| time.is_sign_negative())
    };
    !header_is_typed
        || !is_jwt
        || !claims_are_typed
        || ["iat", "nbf", "exp"].into_iter().any(is_negative)
}

/// Rules that it has not: what JSON and claims must be, extensions, the user. But it has signatures
/// and algorithms, of which it knows one by a newer name too (RFC 9864), and times in whole seconds.
fn laxer(error: &AuthError, header: &Value) -> bool {
    match error {
        AuthError::AlgorithmMismatch => header["alg"] == "Ed25519",
        AuthError::Malformed(what) => !what.contains("segments") && !what.contains("base64url"),
        AuthError::Unsupported(_)
        | AuthError::MissingClaim(_)
        | AuthError::InvalidClaim(_)
        | AuthError::UserId
        // Of a part of a second.
        | AuthError::Expired
        | AuthError::NotYetValid => true,
        _ => false,
    }
}

type Judging = dyn Fn(&str) -> Result<JWTClaims<NoCustomClaims>, jwt_simple::Error> + Send + Sync;
type Signing = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

struct Judge {
    ours: JwtAuthenticator,
    theirs: Box<Judging>,
    /// Signs, where that takes little time.
    sign: Option<Box<Signing>>,
}

/// One for each algorithm, but for ES512, which `jwt-simple` does not have.
static JUDGES: LazyLock<Vec<Judge>> = LazyLock::new(|| {
    let algorithms = Algorithm::ALL.iter().filter(|algorithm| **algorithm != Algorithm::ES512);
    algorithms.map(|algorithm| Judge::new(*algorithm)).collect()
});

impl Judge {
    fn new(algorithm: Algorithm) -> Judge {
        let (bytes, key) = verifying(algorithm);
        let pem = || std::str::from_utf8(bytes).expect("a PEM text");
        macro_rules! theirs {
            ($key:expr) => {{
                let key = $key;
                Box::new(move |token: &str| key.verify_token(token, Some(options())))
            }};
        }
        use Algorithm::*;
        Judge {
            ours: JwtAuthenticator::secure(key, ClaimRules::default()),
            theirs: match algorithm {
                HS256 => theirs!(HS256Key::from_bytes(bytes)),
                HS384 => theirs!(HS384Key::from_bytes(bytes)),
                HS512 => theirs!(HS512Key::from_bytes(bytes)),
                RS256 => theirs!(RS256PublicKey::from_pem(pem()).expect("a key")),
                RS384 => theirs!(RS384PublicKey::from_pem(pem()).expect("a key")),
                RS512 => theirs!(RS512PublicKey::from_pem(pem()).expect("a key")),
                PS256 => theirs!(PS256PublicKey::from_pem(pem()).expect("a key")),
                PS384 => theirs!(PS384PublicKey::from_pem(pem()).expect("a key")),
                PS512 => theirs!(PS512PublicKey::from_pem(pem()).expect("a key")),
                ES256 => theirs!(ES256PublicKey::from_pem(pem()).expect("a key")),
                ES384 => theirs!(ES384PublicKey::from_pem(pem()).expect("a key")),
                EdDSA => theirs!(Ed25519PublicKey::from_pem(pem()).expect("a key")),
                ES512 => unreachable!("filtered"),
            },
            sign: signing(algorithm, bytes),
        }
    }
}

fn options() -> VerificationOptions {
    VerificationOptions {
        time_tolerance: Some(Duration::from_secs(2)),
        artificial_time: Some(UnixTimeStamp::from_secs(NOW as u64)),
        max_token_length: None,
        max_header_length: Some(usize::MAX),
        ..VerificationOptions::default()
    }
}

/// Made with our library, and judged with theirs.
fn signing(algorithm: Algorithm, secret: &[u8]) -> Option<Box<Signing>> {
    let der = |text: &[u8]| pem::parse(text).expect("a PEM text").into_contents();
    let hmac = |algorithm| {
        let key = hmac::Key::new(algorithm, secret);
        Box::new(move |text: &[u8]| hmac::sign(&key, text).as_ref().to_vec()) as _
    };
    let ecdsa = |algorithm, key: &[u8]| {
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &der(key)).expect("a private key");
        let random = SystemRandom::new();
        Box::new(move |text: &[u8]| key.sign(&random, text).expect("it signs").as_ref().to_vec())
            as _
    };
    Some(match algorithm {
        Algorithm::HS256 => hmac(hmac::HMAC_SHA256),
        Algorithm::HS384 => hmac(hmac::HMAC_SHA384),
        Algorithm::HS512 => hmac(hmac::HMAC_SHA512),
        Algorithm::ES256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, corpus!("keys/p256.key.pem")),
        Algorithm::ES384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, corpus!("keys/p384.key.pem")),
        Algorithm::EdDSA => {
            let key =
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(corpus!("keys/ed25519.key.pem")));
            let key = key.expect("a private key");
            Box::new(move |text: &[u8]| key.sign(text).as_ref().to_vec()) as _
        }
        _ => return None,
    })
}
