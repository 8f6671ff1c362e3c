//! `JwtAuthenticator::verify` on any text: accepted is what was signed, and nothing else.

use std::{collections::HashSet, sync::LazyLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use electric_satellite::{
    auth::{Algorithm, AuthError, ClaimRules, JwtAuthenticator},
    session::{Identity, Token},
};
use serde_json::Value;

use crate::keyring::{NOW, at, corpus, hs256, verifying};

/// The input is the text of a token, which is judged with each key of the corpus.
pub fn check(data: &[u8]) {
    let Ok(Ok(token)) = std::str::from_utf8(data).map(Token::new) else { return };
    let unsigned = INSECURE.verify(&token, at(NOW));
    if let Ok(verified) = &unsigned {
        names_its_user(&token, verified.identity());
    }
    for (algorithm, authenticator, cached) in &*SECURE {
        let verdict = authenticator.verify(&token, at(NOW));
        let again = cached.verify(&token, at(NOW));
        let once_more = cached.verify(&token, at(NOW));
        match &verdict {
            Err(error) => {
                let error = error.to_string();
                assert_eq!(again.expect_err("a cache accepts no more").to_string(), error);
                assert_eq!(once_more.expect_err("a cache accepts no more").to_string(), error);
            }
            Ok(verified) => {
                assert_eq!(again.as_ref().ok(), Some(verified), "a cache accepts no less");
                assert_eq!(once_more.as_ref().ok(), Some(verified), "a cache accepts no less");
                let unsigned = unsigned.as_ref().expect("insecure mode accepts no less");
                assert_eq!(unsigned.identity(), verified.identity());
                is_signed(*algorithm, &token);
                is_not_malleable(authenticator, &token);
                ends(authenticator, &token, verified.identity());
                ends(cached, &token, verified.identity());
            }
        }
    }
}

static INSECURE: LazyLock<JwtAuthenticator> = LazyLock::new(|| JwtAuthenticator::insecure(None));

/// For each algorithm, without a cache and with one.
static SECURE: LazyLock<Vec<(Algorithm, JwtAuthenticator, JwtAuthenticator)>> =
    LazyLock::new(|| {
        let secure =
            |algorithm| JwtAuthenticator::secure(verifying(algorithm).1, ClaimRules::default());
        Algorithm::ALL.iter().map(|&alg| (alg, secure(alg), secure(alg).with_cache(64))).collect()
    });

/// The user is what a plain reader of JSON finds.
fn names_its_user(token: &Token, identity: &Identity) {
    let payload = token.expose().split('.').nth(1).expect("a payload");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    assert_eq!(identity.claims, payload);
    let claims: Value = serde_json::from_slice(&payload).expect("JSON");
    let user = claims.get("sub").or(claims.get("user_id")).and_then(Value::as_str);
    assert_eq!(user, Some(identity.user_id.as_str()));
    assert!(!identity.user_id.trim().is_empty());
}

/// With the shared secret the signature is computed once more. Who has no private key cannot sign,
/// so what is signed with one of those is from the corpus.
fn is_signed(algorithm: Algorithm, token: &Token) {
    let (signed, signature) = token.expose().rsplit_once('.').expect("three segments");
    match algorithm {
        Algorithm::HS256 => assert_eq!(signature, URL_SAFE_NO_PAD.encode(hs256(signed))),
        _ => assert!(SIGNED.contains(signed), "a forged token: {}", token.expose()),
    }
    let header = URL_SAFE_NO_PAD.decode(signed.split('.').next().unwrap()).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    assert_eq!(header["alg"], algorithm.as_str());
    assert!(["crit", "zip", "enc"].iter().all(|name| header.get(name).is_none()));
}

/// What the tokens of the corpus have signed.
static SIGNED: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let lines = std::str::from_utf8(corpus!("tokens.jsonl")).expect("UTF-8");
    let tokens = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let signed = |case: Value| Some(case["token"].as_str()?.rsplit_once('.')?.0.to_owned());
    tokens.filter_map(signed).collect()
});

/// No character of a good token can be another, and none can be added.
fn is_not_malleable(authenticator: &JwtAuthenticator, token: &Token) {
    let text = token.expose();
    let refused = |text: String| {
        let token = Token::new(text).expect("it is not empty");
        assert!(authenticator.verify(&token, at(NOW)).is_err(), "{}", token.expose());
    };
    let place = text.bytes().map(usize::from).sum::<usize>() % text.len();
    // The last characters hold the bits that belong to no byte.
    for place in [place, text.len() - 1] {
        for other in ['A', 'Q', '_', '.'] {
            if !text[place..].starts_with(other) {
                refused(format!("{}{other}{}", &text[..place], &text[place + 1..]));
            }
        }
    }
    for other in [format!("{text}="), format!("{text}\n"), format!(" {text}"), format!("{text}.")] {
        refused(other);
    }
}

/// A token is good until its `exp` and the leeway are over, and not after.
fn ends(authenticator: &JwtAuthenticator, token: &Token, identity: &Identity) {
    let exp = identity.expires_at.expect("it is required").as_secs();
    let (Some(last), Some(over)) = (exp.checked_add(2), exp.checked_add(3)) else { return };
    assert!(authenticator.verify(token, at(last.max(NOW))).is_ok());
    let verdict = authenticator.verify(token, at(over));
    assert!(matches!(verdict, Err(AuthError::Expired)), "{verdict:?}");
}
