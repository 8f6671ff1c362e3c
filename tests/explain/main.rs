//! What is said about a token to whoever holds it: by `JwtAuthenticator::explain` and by
//! `satellite token --inspect`.

#[cfg(feature = "cli")]
mod command;
mod properties;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use electric_satellite::{
    auth::{
        Algorithm, ClaimRules, Finding, InProcessReplayGuard, JwtAuthenticator, Key, KeySet,
        RevocationList,
    },
    session::{Token, UnixTime},
};
use serde_json::{Map, Value, json};

const NOW: i64 = 1_700_000_000;

/// The secret that verifies, and another.
const SECRET: &[u8; 32] = b"the quick brown fox jumps over i";
const OTHER: &[u8; 32] = b"t, and the lazy dog jumps up to ";

fn key() -> Key {
    Key::from_secret(Algorithm::HS256, SECRET).unwrap()
}

fn other_key() -> Key {
    Key::from_secret(Algorithm::HS256, OTHER).unwrap()
}

fn secure(rules: ClaimRules) -> JwtAuthenticator {
    JwtAuthenticator::secure(key(), rules)
}

/// A token of exactly these texts, signed with HMAC SHA-256.
fn signed(header: &str, payload: &str, secret: &[u8]) -> Token {
    let signed = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    Token::new(format!("{signed}.{signature}")).unwrap()
}

/// A token with a good header and signature and this payload.
fn token(payload: &str) -> Token {
    signed(r#"{"alg":"HS256"}"#, payload, SECRET)
}

/// A token with good claims, but for these. Null removes one.
fn with(claims: Value) -> Token {
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    let good = json!({ "sub": "u", "iat": NOW, "exp": NOW + 60 });
    let mut all: Map<String, Value> = good.as_object().unwrap().clone();
    all.extend(claims);
    all.retain(|_, value| !value.is_null());
    token(&Value::Object(all).to_string())
}

/// What is found, by the rules of this authenticator.
fn explain(authenticator: &JwtAuthenticator, token: &Token) -> Vec<Finding> {
    authenticator.explain(token, UnixTime::from_secs(NOW))
}

/// The one finding about this subject, if there is one: whether it is good, and what it is.
fn about<'a>(findings: &'a [Finding], subject: &str) -> Option<(Option<bool>, &'a str)> {
    let mut found = findings.iter().filter(|finding| finding.subject == subject);
    let first = found.next();
    assert!(found.next().is_none(), "{subject} is found twice: {findings:?}");
    first.map(|finding| (finding.good, finding.detail.as_str()))
}

/// The findings that fail, but for the verdict.
fn failures(findings: &[Finding]) -> Vec<&'static str> {
    let failing = findings.iter().filter(|finding| finding.good == Some(false));
    failing.map(|finding| finding.subject).filter(|&subject| subject != "verdict").collect()
}

fn verdict(findings: &[Finding]) -> (Option<bool>, &str) {
    assert_eq!(findings.last().unwrap().subject, "verdict");
    about(findings, "verdict").unwrap()
}

const BAD: Option<bool> = Some(false);
const GOOD: Option<bool> = Some(true);

#[test]
fn a_good_token_is_good_in_every_point() {
    let findings = explain(&secure(ClaimRules::default()), &with(json!({ "nbf": NOW - 5 })));
    let said: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert_eq!(
        said,
        [
            "ok   form       3 segments",
            r#"ok   alg        "HS256"; must be one of ["HS256"]"#,
            "ok   signature  by a configured key",
            "ok   iat        1700000000 (now)",
            "ok   nbf        1699999995 (5 s ago)",
            "ok   exp        1700000060 (in 60 s)",
            r#"-    sub        "u""#,
            r#"ok   verdict    accepted, for user "u""#,
        ]
    );
}

#[test]
fn a_time_that_misses_says_by_how_much() {
    let authenticator = secure(ClaimRules::default());
    let ok = "ok";
    for (claim, time, detail, verdict_is) in [
        ("exp", json!(NOW - 2), "1699999998 (2 s ago)", ok),
        (
            "exp",
            json!(NOW - 3),
            "1699999997 (3 s ago, 1 s beyond the leeway of 2 s)",
            "Expired token",
        ),
        (
            "exp",
            json!(NOW - 100),
            "1699999900 (100 s ago, 98 s beyond the leeway of 2 s)",
            "Expired token",
        ),
        (
            "exp",
            json!(0),
            "0 (1700000000 s ago, 1699999998 s beyond the leeway of 2 s)",
            "Expired token",
        ),
        (
            "exp",
            json!(1_699_999_997.5),
            "1699999997 (3 s ago, 1 s beyond the leeway of 2 s)",
            "Expired token",
        ),
        ("nbf", json!(NOW + 2), "1700000002 (in 2 s)", ok),
        (
            "nbf",
            json!(NOW + 3),
            "1700000003 (in 3 s, 1 s beyond the leeway of 2 s)",
            "Token is not yet valid",
        ),
        (
            "nbf",
            json!(NOW + 50),
            "1700000050 (in 50 s, 48 s beyond the leeway of 2 s)",
            "Token is not yet valid",
        ),
        (
            "nbf",
            json!(1_700_000_002.5),
            "1700000002 (in 2 s, 1 s beyond the leeway of 2 s)",
            "Token is not yet valid",
        ),
        ("iat", json!(NOW + 2), "1700000002 (in 2 s)", ok),
        (
            "iat",
            json!(NOW + 7),
            "1700000007 (in 7 s, 5 s beyond the leeway of 2 s)",
            r#"Invalid "iat" claim value"#,
        ),
    ] {
        let findings = explain(&authenticator, &with(json!({ claim: time })));
        let good = verdict_is == ok;
        assert_eq!(about(&findings, claim), Some((Some(good), detail)));
        let expected = if good { r#"accepted, for user "u""# } else { verdict_is };
        assert_eq!(verdict(&findings), (Some(good), expected));
        assert_eq!(failures(&findings).len(), usize::from(!good), "{findings:?}");
    }
}

#[test]
fn the_leeway_is_the_configured_one() {
    let authenticator = secure(ClaimRules { leeway: 30, ..ClaimRules::default() });
    let findings = explain(&authenticator, &with(json!({ "exp": NOW - 30 })));
    assert_eq!(about(&findings, "exp"), Some((GOOD, "1699999970 (30 s ago)")));
    let findings = explain(&authenticator, &with(json!({ "exp": NOW - 40 })));
    let detail = "1699999960 (40 s ago, 10 s beyond the leeway of 30 s)";
    assert_eq!(about(&findings, "exp"), Some((BAD, detail)));
}

#[test]
fn a_time_of_the_wrong_type_is_shown() {
    for (value, shown) in [
        (json!("1700000000"), r#""1700000000" is no number"#),
        (json!(true), "true is no number"),
        (json!([NOW]), "an array is no number"),
        (json!(["a"]), r#"["a"] is no number"#),
        (json!({}), "an object is no number"),
    ] {
        for claim in ["iat", "nbf", "exp"] {
            let findings = explain(&secure(ClaimRules::default()), &with(json!({ claim: value })));
            assert_eq!(about(&findings, claim), Some((BAD, shown)));
            assert_eq!(verdict(&findings).1, format!("Invalid {claim:?} claim value"));
        }
    }
}

#[test]
fn another_algorithm_is_named_with_the_configured_ones() {
    let keys = KeySet::new([key(), Key::from_secret(Algorithm::HS384, &[7; 48]).unwrap()]);
    let authenticator = JwtAuthenticator::secure(keys, ClaimRules::default());
    for (header, shown) in [
        (r#"{"alg":"none"}"#, r#""none""#),
        (r#"{"alg":"hs256"}"#, r#""hs256""#),
        (r#"{"alg":"RS256","kid":"k"}"#, r#""RS256""#),
        (r#"{"alg":["HS256"]}"#, r#"["HS256"]"#),
        (r#"{"alg":256}"#, "256"),
    ] {
        let token = signed(header, r#"{"sub":"u"}"#, SECRET);
        let findings = explain(&authenticator, &token);
        let detail = format!(r#"{shown}; must be one of ["HS256", "HS384"]"#);
        assert_eq!(about(&findings, "alg"), Some((BAD, detail.as_str())));
        let (good, detail) = about(&findings, "signature").unwrap();
        assert!(good.is_none() && detail.starts_with("not looked at"), "{detail}");
        assert_eq!(verdict(&findings), (BAD, "Signing algorithm mismatch"));
    }
}

#[test]
fn another_key_is_told_by_the_fingerprints_of_those_that_were_tried() {
    let keys = [key(), Key::from_secret(Algorithm::HS256, &[7; 32]).unwrap()];
    let authenticator = JwtAuthenticator::secure(KeySet::new(keys.clone()), ClaimRules::default());
    let token = signed(r#"{"alg":"HS256"}"#, r#"{"sub":"u"}"#, OTHER);
    let findings = explain(&authenticator, &token);
    let (good, detail) = about(&findings, "signature").unwrap();
    assert_eq!(good, BAD);
    for key in keys {
        assert!(detail.contains(&format!("HS256 {}", key.fingerprint())), "{detail}");
    }
    assert!(!detail.contains(other_key().fingerprint()));
    assert_eq!(verdict(&findings), (BAD, "Invalid token signature"));
    assert_nothing_secret(&findings, &token);
}

#[test]
fn a_key_name_is_known_or_not() {
    let keys = KeySet::new([key().with_kid("a"), other_key().with_kid("b")]);
    let named = JwtAuthenticator::secure(keys, ClaimRules::default());
    let payload = format!(r#"{{"sub":"u","iat":{NOW},"exp":{NOW}}}"#);
    let token = |kid: &str| signed(&format!(r#"{{"alg":"HS256","kid":{kid}}}"#), &payload, SECRET);
    let findings = explain(&named, &token(r#""a""#));
    assert_eq!(about(&findings, "kid"), Some((GOOD, r#""a""#)));
    assert_eq!(verdict(&findings).0, GOOD);
    let findings = explain(&named, &token(r#""c""#));
    assert_eq!(about(&findings, "kid"), Some((BAD, r#""c""#)));
    assert_eq!(verdict(&findings), (BAD, "Unknown signing key"));
    let findings = explain(&secure(ClaimRules::default()), &token(r#""c""#));
    assert_eq!(about(&findings, "kid"), Some((GOOD, r#""c""#)), "no key here has a name");
    assert_eq!(verdict(&findings).0, GOOD);
}

/// A name that is no text chooses no key, as if it were absent, and then nothing fails.
#[test]
fn a_key_name_that_is_no_text_does_not_fail_in_an_accepted_token() {
    let authenticator = JwtAuthenticator::secure(key().with_kid("a"), ClaimRules::default());
    let payload = format!(r#"{{"sub":"u","iat":{NOW},"exp":{NOW}}}"#);
    let token = signed(r#"{"alg":"HS256","kid":7}"#, &payload, SECRET);
    let findings = explain(&authenticator, &token);
    assert_eq!(verdict(&findings).0, GOOD);
    assert_eq!(failures(&findings), [""; 0]);
}

#[test]
fn what_is_missing_is_named() {
    let rules = ClaimRules {
        issuers: vec!["i".into()],
        audiences: vec!["a".into()],
        ..ClaimRules::default()
    };
    let findings = explain(&secure(rules), &token("{}"));
    for claim in ["iat", "exp", "iss", "aud"] {
        assert_eq!(about(&findings, claim), Some((BAD, "absent, but required")), "{claim}");
    }
    assert_eq!(about(&findings, "nbf"), Some((None, "absent")));
    assert_eq!(verdict(&findings), (BAD, r#"Missing required "aud" claim"#));

    let one_off = secure(ClaimRules::default()).with_replay_guard(InProcessReplayGuard::new(1));
    let findings = explain(&one_off, &with(json!({})));
    assert_eq!(about(&findings, "jti"), Some((BAD, "absent")));
    assert_eq!(verdict(&findings), (BAD, r#"Missing required "jti" claim"#));
}

/// Some rules require a claim that is otherwise optional.
#[test]
fn what_is_missing_for_the_sake_of_another_rule_is_named() {
    let lenient = ClaimRules { times_required: false, ..ClaimRules::default() };
    let rules = |max_age, max_lifetime| ClaimRules { max_age, max_lifetime, ..lenient.clone() };
    let one_off = secure(lenient.clone()).with_replay_guard(InProcessReplayGuard::new(1));
    for (rule, authenticator, missing) in [
        ("max_age", secure(rules(Some(9), None)), "iat"),
        ("max_lifetime", secure(rules(None, Some(9))), "iat"),
        ("max_lifetime", secure(rules(None, Some(9))), "exp"),
        ("one-off", one_off, "exp"),
    ] {
        let mut claims = json!({ "jti": "t", "exp": NOW + 5 });
        claims[missing] = Value::Null;
        let findings = explain(&authenticator, &with(claims));
        assert_eq!(verdict(&findings).1, format!("Missing required {missing:?} claim"));
        let expected = Some((BAD, "absent, but required"));
        assert_eq!(about(&findings, missing), expected, "{missing}, by {rule}");
    }
}

#[test]
fn issuer_and_audience_are_shown_beside_the_accepted_ones() {
    let rules = ClaimRules {
        issuers: vec!["i".into()],
        audiences: vec!["a".into(), "b".into()],
        ..ClaimRules::default()
    };
    let authenticator = secure(rules);
    for (aud, good, shown) in [
        (json!("b"), true, r#""b""#),
        (json!(["x", "b"]), true, r#"["x", "b"]"#),
        (json!("x"), false, r#""x""#),
        (json!([]), false, "[]"),
        (json!(["a", 1]), false, "an array"),
        (json!(1), false, "1"),
    ] {
        let findings = explain(&authenticator, &with(json!({ "iss": "i", "aud": aud })));
        let detail = format!(r#"{shown}; must be one of ["a", "b"]"#);
        assert_eq!(about(&findings, "aud"), Some((Some(good), detail.as_str())));
        assert_eq!(verdict(&findings).0, Some(good));
    }
    let findings = explain(&authenticator, &with(json!({ "iss": "I", "aud": "a" })));
    assert_eq!(about(&findings, "iss"), Some((BAD, r#""I"; must be one of ["i"]"#)));
    // Where any is accepted, it is shown and does not matter.
    let findings = explain(&secure(ClaimRules::default()), &with(json!({ "aud": 5 })));
    assert_eq!(about(&findings, "aud"), Some((None, "5; any is accepted")));
    assert_eq!(about(&findings, "iss"), None);
}

#[test]
fn the_user_is_looked_for_where_it_must_be() {
    let rules = ClaimRules { namespace: Some("ns".into()), ..ClaimRules::default() };
    let authenticator = secure(rules);
    let findings =
        explain(&authenticator, &with(json!({ "sub": "out", "ns": { "user_id": "in" } })));
    assert_eq!(about(&findings, "user_id"), Some((None, r#""in" in the namespace "ns""#)));
    assert_eq!(about(&findings, "sub"), None);
    assert_eq!(verdict(&findings), (GOOD, r#"accepted, for user "in""#));
    let findings = explain(&authenticator, &with(json!({ "sub": "out" })));
    assert_eq!(verdict(&findings), (BAD, "Missing or invalid 'user_id'"));

    let rules = ClaimRules { user_id_pointer: Some("/user/id".into()), ..ClaimRules::default() };
    let findings = explain(&secure(rules), &with(json!({ "user": { "id": "v" } })));
    assert_eq!(about(&findings, "user"), Some((None, "looked for at /user/id")));
    assert_eq!(verdict(&findings), (GOOD, r#"accepted, for user "v""#));
}

#[test]
fn in_insecure_mode_only_the_claims_are_looked_at() {
    let authenticator = JwtAuthenticator::insecure(None);
    let payload = json!({ "sub": "u", "iss": "anybody" }).to_string();
    for token in [
        signed(r#"{"alg":"none"}"#, &payload, SECRET),
        signed("no JSON", &payload, OTHER),
        Token::new(format!("%%%.{}", URL_SAFE_NO_PAD.encode(&payload))).unwrap(),
    ] {
        let findings = explain(&authenticator, &token);
        assert_eq!(verdict(&findings), (GOOD, r#"accepted, for user "u""#));
        assert_eq!(failures(&findings), [""; 0]);
        let (good, detail) = about(&findings, "signature").unwrap();
        assert_eq!((good, detail), (None, "not looked at in insecure mode"));
        assert_eq!(about(&findings, "exp"), Some((None, "absent")));
    }
    let findings = explain(&authenticator, &with(json!({ "exp": NOW - 60 })));
    assert_eq!(verdict(&findings), (BAD, "Expired token"));
    assert_eq!(failures(&findings), ["exp"]);
}

#[test]
fn a_revoked_token_is_good_in_every_point_but_the_verdict() {
    let list = RevocationList::default();
    list.revoke_user("u");
    let authenticator = secure(ClaimRules::default()).with_revocations(list);
    let findings = explain(&authenticator, &with(json!({})));
    assert_eq!(failures(&findings), [""; 0]);
    assert_eq!(verdict(&findings), (BAD, "Token is revoked"));
}

#[test]
fn explaining_a_token_does_not_use_it_up() {
    let guard = InProcessReplayGuard::new(0);
    let authenticator = secure(ClaimRules::default()).with_replay_guard(guard);
    for _ in 0..2 {
        assert_eq!(verdict(&explain(&authenticator, &with(json!({ "jti": "t" })))).0, GOOD);
    }
}

/// Whoever asks why a token is refused is told what is wrong with it, beside the verdict.
#[test]
fn every_refusal_names_what_fails() {
    let default = ClaimRules::default;
    let header =
        |header: &str| signed(header, &format!(r#"{{"sub":"u","iat":{NOW},"exp":{NOW}}}"#), SECRET);
    let lifetime = ClaimRules { max_lifetime: Some(10), ..default() };
    let pointer = ClaimRules { user_id_pointer: Some("/user/id".into()), ..default() };
    let mut silent = vec![];
    for (case, rules, token) in [
        (
            "too old",
            ClaimRules { max_age: Some(10), ..default() },
            with(json!({ "iat": NOW - 50 })),
        ),
        ("valid for too long", lifetime, with(json!({}))),
        ("no user", default(), with(json!({ "sub": null }))),
        ("a blank user", default(), with(json!({ "sub": " " }))),
        ("a user of the wrong type", default(), with(json!({ "sub": 5 }))),
        ("no user at the pointer", pointer, with(json!({}))),
        ("extensions", default(), header(r#"{"alg":"HS256","crit":["x"]}"#)),
        ("b64", default(), header(r#"{"alg":"HS256","b64":false}"#)),
        ("compressed", default(), header(r#"{"alg":"HS256","zip":"DEF"}"#)),
        ("encrypted", default(), header(r#"{"alg":"HS256","enc":"A128GCM"}"#)),
        ("nested", default(), header(r#"{"alg":"HS256","cty":"JWT"}"#)),
        ("no algorithm", default(), header("{}")),
        ("a name twice", default(), token(r#"{"sub":"u","sub":"u"}"#)),
    ] {
        let findings = explain(&secure(rules), &token);
        assert_eq!(verdict(&findings).0, BAD, "{case}");
        if failures(&findings).is_empty() {
            silent.push(case);
        }
    }
    assert!(silent.is_empty(), "nothing is said to fail: {silent:?}");
}

/// What the service accepts in a header is not called refused.
#[test]
fn what_is_accepted_is_not_said_to_be_refused() {
    let payload = format!(r#"{{"sub":"u","iat":{NOW},"exp":{NOW}}}"#);
    for header in [r#"{"alg":"HS256","b64":true}"#, r#"{"alg":"HS256","cty":"text/plain"}"#] {
        let findings = explain(&secure(ClaimRules::default()), &signed(header, &payload, SECRET));
        assert_eq!(verdict(&findings).0, GOOD);
        let said: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(!said.iter().any(|line| line.contains("refused")), "{said:#?}");
    }
}

#[test]
fn each_algorithm_is_named_once() {
    let rsa = include_bytes!("../corpus/keys/rsa2048.pub.pem");
    let rsa = Key::from_pem(Algorithm::RS256, rsa).unwrap();
    let keys = KeySet::new([key(), rsa, other_key()]);
    let authenticator = JwtAuthenticator::secure(keys, ClaimRules::default());
    let findings = explain(&authenticator, &with(json!({})));
    let detail = r#""HS256"; must be one of ["HS256", "RS256"]"#;
    assert_eq!(about(&findings, "alg"), Some((GOOD, detail)));
}

#[test]
fn garbage_is_explained_as_far_as_it_can_be_read() {
    let long = "A".repeat(100_000);
    let many_dots = ".".repeat(1000);
    let header_only = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let latin1 = URL_SAFE_NO_PAD.encode(b"{\"sub\":\"\xff\"}");
    for garbage in [
        ".",
        "..",
        "...",
        "....",
        "a",
        "\0",
        " ",
        "\u{1b}[31mred",
        "😀.😀.😀",
        "e30.e30.e30",
        "bnVsbA.bnVsbA.bnVsbA",
        &long,
        &many_dots,
        &format!("{header_only}.{latin1}.AAAA"),
        &format!("{header_only}.e30"),
        &format!("{header_only}.e30.%%%"),
        &format!("{header_only}.e30..."),
        &format!("{header_only}==.e30.AAAA"),
    ] {
        let token = Token::new(garbage).unwrap();
        for authenticator in
            [secure(ClaimRules::default()), JwtAuthenticator::insecure(Some("ns".into()))]
        {
            let findings = explain(&authenticator, &token);
            assert_eq!(verdict(&findings).0, BAD, "{garbage:.20}");
            assert!(about(&findings, "form").is_some());
            assert_plain(&findings);
        }
    }
}

#[test]
fn what_a_token_says_does_not_garble_a_terminal() {
    let nasty = "\u{1b}[2J\r\n\u{202e}\u{7}ok   verdict    accepted\u{0}";
    let header = json!({ "alg": nasty, "kid": nasty, "cty": nasty, "crit": [nasty], "zip": nasty });
    let claims = json!({ "sub": nasty, "iss": nasty, "aud": [nasty], "jti": nasty, "exp": nasty });
    for header in [header, json!({ "alg": "HS256" })] {
        for claims in [&claims, &json!({ "sub": nasty, "iat": NOW, "exp": NOW })] {
            let token = signed(&header.to_string(), &claims.to_string(), SECRET);
            let one_off = secure(ClaimRules::default());
            let one_off = one_off.with_replay_guard(InProcessReplayGuard::new(1));
            for authenticator in [
                secure(ClaimRules { issuers: vec!["i".into()], ..ClaimRules::default() }),
                secure(ClaimRules::default()),
                one_off,
            ] {
                assert_plain(&explain(&authenticator, &token));
            }
        }
    }
}

/// Every finding is one line of characters that can be seen.
fn assert_plain(findings: &[Finding]) {
    for finding in findings {
        let line = finding.to_string();
        let hidden = line.chars().find(|c| c.is_control() || *c == '\u{202e}');
        assert_eq!(hidden, None, "{line:?}");
    }
}

/// The signature would make the rest a token again, and a key would make tokens.
fn assert_nothing_secret(findings: &[Finding], token: &Token) {
    let said: String = findings.iter().map(|finding| format!("{finding}\n{finding:?}\n")).collect();
    let signature = token.expose().rsplit('.').next().unwrap();
    assert!(signature.len() < 8 || !said.contains(signature), "{said}");
    for secret in [SECRET, OTHER] {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = String::from_utf8(secret.to_vec()).unwrap();
        for secret in [text, hex, URL_SAFE_NO_PAD.encode(secret), format!("{secret:?}")] {
            assert!(!said.contains(&secret), "{said}");
        }
    }
}

/// Numbers at the ends of what 64 bits and floating point can say, in every claim that is a time.
const EXTREME_NUMBERS: [&str; 16] = [
    "-9223372036854775808",
    "9223372036854775807",
    "18446744073709551615",
    "-9223372036854775809",
    "99999999999999999999",
    "1e308",
    "-1e308",
    "1.7976931348623157e308",
    "5e-324",
    "-5e-324",
    "0",
    "-0",
    "-0.0",
    "0.1",
    "-1",
    "9007199254740993",
];

#[test]
fn extreme_numbers_are_explained_as_they_are_judged() {
    let strict = ClaimRules {
        max_age: Some(u32::MAX),
        max_lifetime: Some(u32::MAX),
        leeway: u32::MAX,
        ..ClaimRules::default()
    };
    for rules in [ClaimRules::default(), strict, ClaimRules { leeway: 0, ..Default::default() }] {
        let authenticator = secure(rules);
        for number in EXTREME_NUMBERS {
            for claim in ["iat", "nbf", "exp", "jti", "iss", "sub"] {
                let token = match claim {
                    "sub" => token(&format!(r#"{{"iat":{NOW},"exp":{NOW},"sub":{number}}}"#)),
                    "iat" => token(&format!(r#"{{"sub":"u","exp":{NOW},"iat":{number}}}"#)),
                    "exp" => token(&format!(r#"{{"sub":"u","iat":{NOW},"exp":{number}}}"#)),
                    _ => token(&format!(
                        r#"{{"sub":"u","iat":{NOW},"exp":{NOW},"{claim}":{number}}}"#
                    )),
                };
                properties::check(&authenticator, &token, NOW);
            }
            let all =
                token(&format!(r#"{{"sub":"u","iat":{number},"nbf":{number},"exp":{number}}}"#));
            properties::check(&authenticator, &all, NOW);
        }
    }
}

/// The clock of a machine may say anything.
#[test]
fn extreme_clocks_are_survived() {
    for now in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
        for number in EXTREME_NUMBERS {
            let token =
                token(&format!(r#"{{"sub":"u","iat":{number},"nbf":{number},"exp":{number}}}"#));
            properties::check(&secure(ClaimRules::default()), &token, now);
        }
    }
}
