//! What the fuzzer has found (see fuzz/README.md), so that it is not to be found again.

use electric_satellite::{
    auth::{Algorithm, AuthError, ClaimRules, JwtAuthenticator, Key, Minter},
    session::UnixTime,
};
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;

const SECRET: &[u8] = b"thirty-two bytes that nobody knows";

/// The verdict on these claims, behind a good signature.
fn verdict(rules: ClaimRules, claims: &Value) -> Result<(), AuthError> {
    let minter = Minter::from_secret(Algorithm::HS256, SECRET).unwrap();
    let key = Key::from_secret(Algorithm::HS256, SECRET).unwrap();
    let authenticator = JwtAuthenticator::secure(key, rules);
    let token = minter.mint(claims).unwrap();
    authenticator.verify(&token, UnixTime::from_secs(NOW)).map(|_| ())
}

#[test]
fn a_lifetime_is_measured_from_the_part_of_a_second_in_which_it_begins() {
    let rules = ClaimRules { max_lifetime: Some(60), ..ClaimRules::default() };
    for (iat, exp, is_good) in [
        (json!(1_700_000_000.5), json!(1_700_000_060.5), true),
        (json!(1_700_000_000.5), json!(1_700_000_060.75), false),
        (json!(1_700_000_000.5), json!(1_700_000_060), true),
        (json!(1_700_000_000), json!(1_700_000_060.5), false),
        (json!(1_700_000_000), json!(1_700_000_060), true),
    ] {
        let verdict = verdict(rules.clone(), &json!({ "sub": "u", "iat": iat, "exp": exp }));
        match is_good {
            true => assert!(verdict.is_ok(), "{iat} {exp}: {verdict:?}"),
            false => assert!(
                matches!(verdict, Err(AuthError::LifetimeTooLong)),
                "{iat} {exp}: {verdict:?}"
            ),
        }
    }
}
