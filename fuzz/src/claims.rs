//! The rules for claims: any claims and header, signed as they should be, get the verdict of a
//! model that was written from the documentation.
//!
//! The model judges the claims before they are written as JSON, so it reads no JSON.

mod model;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use electric_satellite::{
    auth::{Algorithm, AuthError, ClaimRules, JwtAuthenticator, Key},
    session::Token,
};

use crate::{
    choices::Choices,
    keyring::{HS256, NOW, at, hs256},
};
use model::{Json, Member, Number, Reason};

/// The input chooses the rules, the header and the claims.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let secure = choices.within(0..4) > 0;
    let rules = rules(&mut choices);
    let header = header(&mut choices);
    let claims = claims(&mut choices);
    let now = NOW + i64::from(choices.byte() % 8);

    let payload = claims.to_string();
    let header_text = header.to_string();
    let segment = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", segment(&header_text), segment(&payload));
    let signature = URL_SAFE_NO_PAD.encode(hs256(&signed));
    let token = Token::new(format!("{signed}.{signature}")).expect("it is not empty");

    let (authenticator, expected) = if secure {
        let key = Key::from_secret(Algorithm::HS256, HS256).expect("a secret");
        let expected = model::judge_header(&header)
            .map_err(|reason| vec![reason])
            .and_then(|()| model::judge(&claims, &rules, now));
        (JwtAuthenticator::secure(key, rules.clone()), expected)
    } else {
        let times_required = false;
        let namespace = rules.namespace.clone();
        let lax = ClaimRules { namespace, times_required, ..ClaimRules::default() };
        let expected = model::judge(&claims, &lax, now);
        (JwtAuthenticator::insecure(lax.namespace), expected)
    };
    match (authenticator.verify(&token, at(now)), expected) {
        (Ok(verified), Ok(expected)) => {
            let identity = verified.identity();
            assert_eq!(identity.user_id, expected.user_id, "{payload}");
            assert_eq!(identity.token_id, expected.token_id, "{payload}");
            assert_eq!(identity.issued_at, expected.issued_at.map(at), "{payload}");
            assert_eq!(identity.expires_at, expected.expires_at.map(at), "{payload}");
            assert_eq!(identity.claims, payload);
        }
        (Err(error), Err(reasons)) if reasons.contains(&reason(&error)) => {}
        (verdict, expected) => panic!(
            "{verdict:?} where the model has {expected:?}\n{rules:?}\n{now}\n{header_text}\n{payload}"
        ),
    }
}

fn reason(error: &AuthError) -> Reason {
    match error {
        AuthError::Malformed(_) => Reason::Malformed,
        AuthError::AlgorithmMismatch => Reason::Algorithm,
        AuthError::Unsupported(_) => Reason::Unsupported,
        AuthError::InvalidClaim(name) => Reason::Invalid(name),
        AuthError::MissingClaim(name) => Reason::Missing(name),
        AuthError::Expired => Reason::Expired,
        AuthError::NotYetValid => Reason::NotYetValid,
        AuthError::TooOld => Reason::TooOld,
        AuthError::LifetimeTooLong => Reason::Lifetime,
        AuthError::UserId => Reason::User,
        other => panic!("{other} is no verdict on claims"),
    }
}

fn rules(choices: &mut Choices) -> ClaimRules {
    let optional = choices.byte();
    let has = |bit: u8| optional >> bit & 1 == 1;
    let seconds = [0, 1, 2, 60, u32::MAX];
    ClaimRules {
        namespace: has(0).then(|| choices.one_of(&["ns", "a.b", ""]).into()),
        issuers: if has(1) { vec!["i".into(), "".into()] } else { vec![] },
        audiences: if has(2) { vec!["a".into(), "b".into()] } else { vec![] },
        leeway: if has(3) { choices.one_of(&seconds) } else { 2 },
        times_required: !has(4),
        max_age: has(5).then(|| choices.one_of(&seconds)),
        max_lifetime: has(6).then(|| choices.one_of(&seconds)),
        token_id_required: has(7),
        user_id_pointer: choices
            .one_of(&[None, None, None, Some("/user/id"), Some("/l/1"), Some("/a~1~0"), Some("")])
            .map(str::to_owned),
    }
}

fn header(choices: &mut Choices) -> Json {
    const NAMES: [&str; 9] = ["alg", "typ", "kid", "crit", "zip", "enc", "b64", "cty", "jwk"];
    let mut members = vec![];
    for _ in 0..choices.byte() % 4 {
        let name = choices.one_of(&NAMES);
        let value = match (name, choices.yes()) {
            ("b64", true) => Json::Bool(choices.yes()),
            ("cty", true) => text(choices.one_of(&["JWT", "jwt", "json"])),
            ("alg", true) => text(choices.one_of(&["HS256", "HS512", "none", "hs256"])),
            _ => value(choices, 2),
        };
        members.push(Member { name: name.into(), value });
    }
    if choices.byte() % 16 != 15 && members.iter().all(|member| member.name != "alg") {
        members.push(Member { name: "alg".into(), value: text("HS256") });
    }
    Json::Object(members)
}

/// Mostly what the rules look into, and mostly of the right type.
fn claims(choices: &mut Choices) -> Json {
    const NAMES: [&str; 14] = [
        "sub", "user_id", "iat", "exp", "nbf", "iss", "aud", "jti", "ns", "a.b", "", "user", "l",
        "a/~",
    ];
    let mut members = vec![];
    // A good token, from which the others differ.
    let left_out = choices.byte();
    for (bit, name, good) in [(0, "sub", text("u")), (1, "iat", second(0)), (2, "exp", second(60))]
    {
        if left_out >> bit & 1 == 0 {
            members.push(Member { name: name.into(), value: good });
        }
    }
    for _ in 0..choices.byte() % 8 {
        let name = choices.one_of(&NAMES);
        let value = match (name, choices.byte() % 4) {
            (_, 0) => value(choices, 3),
            ("iat" | "exp" | "nbf", _) => number(choices),
            ("aud", 1) => {
                let list = (0..choices.byte() % 3).map(|_| text(choices.one_of(&["a", "z", "b"])));
                Json::List(list.collect())
            }
            ("aud" | "iss", _) => text(choices.one_of(&["a", "i", "", "z"])),
            ("ns" | "a.b" | "" | "user", _) => {
                let names = ["sub", "user_id", "id", "sub"];
                let members = (0..choices.byte() % 3).map(|_| Member {
                    name: choices.one_of(&names).into(),
                    value: value(choices, 1),
                });
                Json::Object(members.collect())
            }
            ("l", _) => Json::List((0..choices.byte() % 3).map(|_| value(choices, 1)).collect()),
            _ => text(choices.one_of(TEXTS)),
        };
        let known = members.iter().position(|member| member.name == name);
        match known {
            // Mostly instead of the one there is, for a name that comes twice ends it all.
            Some(index) if choices.byte() % 8 != 7 => members[index].value = value,
            _ => members.push(Member { name: name.into(), value }),
        }
    }
    match choices.byte() {
        255 => value(choices, 2),
        254 => Json::Deep(choices.one_of(&[2, 127, 129, 200])),
        _ => Json::Object(members),
    }
}

const TEXTS: &[&str] =
    &["u", "", " ", "\u{a0}\t\n", "\u{200b}", "\0", "a\"b\\c", "\u{1f6f0} \u{43f}", "\u{85}"];

fn value(choices: &mut Choices, depth: u8) -> Json {
    match choices.byte() % if depth == 0 { 6 } else { 8 } {
        0 => Json::Null,
        1 => Json::Bool(choices.yes()),
        2 | 3 => number(choices),
        4 | 5 => text(choices.one_of(TEXTS)),
        6 => Json::List((0..choices.byte() % 4).map(|_| value(choices, depth - 1)).collect()),
        _ => {
            let names = ["sub", "user_id", "id", "", "\u{e9}"];
            let members = (0..choices.byte() % 4).map(|_| Member {
                name: choices.one_of(&names).into(),
                value: value(choices, depth - 1),
            });
            Json::Object(members.collect())
        }
    }
}

fn number(choices: &mut Choices) -> Json {
    Json::Number(match choices.byte() % 8 {
        0 => Number::Whole(choices.long().into()),
        1 => Number::Whole(i128::from(choices.long() as u64)),
        2 => Number::Half(i64::from(choices.number() as i16)),
        3 => Number::Half(NOW + i64::from(choices.byte()) - 128),
        4 => choices.one_of(&[Number::Huge(true), Number::Huge(false), Number::Infinite]),
        _ => Number::Whole(i128::from(NOW + i64::from(choices.byte()) - 128)),
    })
}

fn second(after: i64) -> Json {
    Json::Number(Number::Whole((NOW + after).into()))
}

fn text(text: &str) -> Json {
    Json::Text(text.into())
}
