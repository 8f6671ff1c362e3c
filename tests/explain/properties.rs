//! What holds for the explanation of every token.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use electric_satellite::{
    auth::{
        Algorithm, ClaimRules, InProcessReplayGuard, JwtAuthenticator, Key, KeySet, RevocationList,
    },
    session::{Token, UnixTime},
};
use proptest::{collection::btree_map, prelude::*, sample::select, strategy::ValueTree};
use serde_json::{Value, json};

use crate::{
    EXTREME_NUMBERS, NOW, OTHER, SECRET, assert_nothing_secret, assert_plain, failures, key,
    other_key, secure, signed, verdict,
};

/// The last finding is what `verify` says; nothing secret is shown; and nothing fails in a token
/// that is accepted.
pub(crate) fn check(authenticator: &JwtAuthenticator, token: &Token, now: i64) {
    let now = UnixTime::from_secs(now);
    let findings = authenticator.explain(token, now);
    let expected = match authenticator.verify(token, now) {
        Ok(verified) => {
            assert!(failures(&findings).is_empty(), "accepted: {findings:?}");
            (Some(true), format!("accepted, for user {:?}", verified.identity().user_id))
        }
        Err(error) => (Some(false), error.to_string()),
    };
    let (good, detail) = verdict(&findings);
    assert_eq!((good, detail.to_owned()), expected);
    assert_plain(&findings);
    assert_nothing_secret(&findings, token);
}

/// Authenticators with all kinds of rules.
fn authenticators() -> Vec<JwtAuthenticator> {
    let default = ClaimRules::default;
    let two_keys = KeySet::new([
        key().with_kid("a"),
        other_key().with_kid("b"),
        Key::from_secret(Algorithm::HS512, &[7; 64]).unwrap(),
    ]);
    let revoked = RevocationList::default();
    revoked.revoke_user("a");
    vec![
        secure(default()),
        secure(ClaimRules { leeway: 0, times_required: false, ..default() }),
        secure(ClaimRules { namespace: Some("ns".into()), ..default() }),
        secure(ClaimRules { user_id_pointer: Some("/ns/sub".into()), ..default() }),
        secure(ClaimRules { issuers: vec!["a".into()], ..default() }),
        secure(ClaimRules { audiences: vec!["a".into(), "b".into()], ..default() }),
        secure(ClaimRules { max_age: Some(10), max_lifetime: Some(20), ..default() }),
        secure(default()).with_replay_guard(InProcessReplayGuard::new(1)),
        secure(default()).with_cache(4),
        secure(default()).with_revocations(revoked),
        JwtAuthenticator::secure(two_keys, default()),
        JwtAuthenticator::insecure(None),
        JwtAuthenticator::insecure(Some("ns".into())),
    ]
}

/// A value that some rule may like or not.
fn value() -> impl Strategy<Value = Value> {
    let number = |text: &&str| serde_json::from_str(text).expect("a number");
    let texts = select(vec!["a", "b", "", " ", "JWT", "HS256", "HS512", "none", "1700000000"]);
    let leaf = prop_oneof![
        4 => (NOW - 70..NOW + 70).prop_map(Value::from),
        1 => (0.0..4e9).prop_map(Value::from),
        1 => select(EXTREME_NUMBERS.iter().map(number).collect::<Vec<Value>>()),
        4 => texts.prop_map(Value::from),
        1 => "\\PC{0,8}".prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map(select(vec!["sub", "user_id", "x"]), inner, 0..3)
                .prop_map(|members| json!(members)),
        ]
    })
}

/// Good claims, of which some are others or absent.
fn claims() -> impl Strategy<Value = Value> {
    let names = select(vec!["iat", "exp", "nbf", "iss", "aud", "jti", "sub", "user_id", "ns"]);
    (btree_map(names, proptest::option::of(value()), 0..5)).prop_map(|changes| {
        let mut claims = json!({
            "iat": NOW, "exp": NOW + 15, "iss": "a", "aud": "a", "jti": "t", "sub": "u",
            "ns": { "sub": "v" },
        });
        for (name, value) in changes {
            match value {
                Some(value) => claims[name] = value,
                None => drop(claims.as_object_mut().unwrap().remove(name)),
            }
        }
        claims
    })
}

/// A good header, with some members more or others. A key name is a text.
fn header() -> impl Strategy<Value = Value> {
    let names = select(vec!["alg", "crit", "b64", "zip", "enc", "cty", "typ"]);
    let kid = proptest::option::of(select(vec!["a", "b", "c", ""]));
    let changes = prop_oneof![
        3 => btree_map(names.clone(), value(), 0..1),
        1 => btree_map(names, value(), 0..3),
    ];
    (changes, kid).prop_map(|(changes, kid)| {
        let mut header = json!({ "alg": "HS256" });
        header.as_object_mut().unwrap().extend(kid.map(|kid| ("kid".to_owned(), json!(kid))));
        for (name, value) in changes {
            header[name] = value;
        }
        header
    })
}

/// A token of ours or of somebody else's.
fn a_token() -> impl Strategy<Value = Token> {
    let secret = prop_oneof![4 => Just(SECRET), 1 => Just(OTHER)];
    (header(), claims(), secret).prop_map(|(header, claims, secret)| {
        signed(&header.to_string(), &claims.to_string(), secret)
    })
}

/// What is presented: a token, an altered one, or anything.
fn tokens() -> impl Strategy<Value = Token> {
    let altered = (a_token(), any::<prop::sample::Index>(), any::<char>()).prop_map(
        |(token, index, other)| {
            let mut text: Vec<char> = token.expose().chars().collect();
            let index = index.index(text.len());
            text[index] = other;
            Token::new(text.into_iter().collect::<String>()).unwrap()
        },
    );
    let segments = proptest::collection::vec(any::<Vec<u8>>(), 0..5).prop_map(|segments| {
        let segments: Vec<String> =
            segments.iter().map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).collect();
        Token::new(segments.join(".") + ".").unwrap()
    });
    let text = "\\PC{1,60}|[a-zA-Z0-9_.-]{1,60}".prop_map(|text| Token::new(text).unwrap());
    prop_oneof![8 => a_token(), 2 => altered, 1 => segments, 1 => text]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        // Failures are told with what caused them; no file keeps them.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_verdict_is_the_verdict_and_nothing_secret_is_shown(token in tokens()) {
        for authenticator in authenticators() {
            check(&authenticator, &token, NOW);
        }
    }
}

/// The property above looks at good tokens and at bad ones.
#[test]
fn random_tokens_are_of_both_kinds() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let authenticators = authenticators();
    let (mut accepted, mut refused) = (vec![0; authenticators.len()], 0);
    for _ in 0..500 {
        let token = tokens().new_tree(&mut runner).unwrap().current();
        for (count, authenticator) in accepted.iter_mut().zip(&authenticators) {
            match authenticator.verify(&token, UnixTime::from_secs(NOW)) {
                Ok(_) => *count += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(accepted.iter().all(|&count| count > 20), "{accepted:?}");
    assert!(refused > 500, "{refused}");
}
