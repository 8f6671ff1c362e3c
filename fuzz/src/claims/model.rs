//! What the documentation says about claims: README.md, `ClaimRules`, `AuthError` and
//! `JwtAuthenticator::verify`, RFC 7515, 7519 and 6901.

use std::{cmp::Ordering, collections::HashSet, fmt};

use electric_satellite::auth::ClaimRules;

/// JSON before it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<Member>),
    /// An object that holds lists in lists, so many levels in all.
    Deep(u8),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) value: Json,
}

/// A number, of which it is known how it compares with seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i128),
    /// So many, and a half.
    Half(i64),
    /// A double beyond every integer of 64 bits; below them if so.
    Huge(bool),
    /// Beyond every double.
    Infinite,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Malformed,
    Algorithm,
    Unsupported,
    Invalid(&'static str),
    Missing(&'static str),
    Expired,
    NotYetValid,
    TooOld,
    Lifetime,
    User,
}

/// What an accepted token says.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) user_id: String,
    pub(super) token_id: Option<String>,
    pub(super) issued_at: Option<i64>,
    pub(super) expires_at: Option<i64>,
}

/// "form, algorithm, extensions".
pub(super) fn judge_header(header: &Json) -> Result<(), Reason> {
    if !header.is_sound() {
        return Err(Reason::Malformed);
    }
    match header.get("alg") {
        None => return Err(Reason::Malformed),
        Some(Json::Text(alg)) if alg == "HS256" => {}
        Some(_) => return Err(Reason::Algorithm),
    }
    let is_there = |name| header.get(name).is_some();
    let nested =
        matches!(header.get("cty"), Some(Json::Text(cty)) if cty.eq_ignore_ascii_case("jwt"));
    let unencoded = !matches!(header.get("b64"), None | Some(Json::Bool(true)));
    match is_there("crit") || is_there("zip") || is_there("enc") || nested || unencoded {
        true => Err(Reason::Unsupported),
        false => Ok(()),
    }
}

/// "values of claims, absence of claims, user". Of several values that are not accepted any may be
/// named, and of several absent claims too.
pub(super) fn judge(claims: &Json, rules: &ClaimRules, now: i64) -> Result<Accepted, Vec<Reason>> {
    let is_object = matches!(claims, Json::Object(_) | Json::Deep(_));
    if !claims.is_sound() || !is_object {
        return Err(vec![Reason::Malformed]);
    }
    let wrong = wrong_values(claims, rules, now);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let missing: Vec<Reason> = required(rules)
        .into_iter()
        .filter(|name| claims.get(name).is_none())
        .map(Reason::Missing)
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    Ok(Accepted {
        user_id: user_id(claims, rules).ok_or_else(|| vec![Reason::User])?,
        token_id: token_id(claims),
        issued_at: claims.number("iat").map(Number::floor),
        expires_at: claims.number("exp").map(Number::floor),
    })
}

fn wrong_values(claims: &Json, rules: &ClaimRules, now: i64) -> Vec<Reason> {
    let mut wrong = vec![];
    for name in ["iat", "nbf", "exp"] {
        if claims.get(name).is_some() && claims.number(name).is_none() {
            wrong.push(Reason::Invalid(name));
        }
    }
    let (iat, nbf, exp) = (claims.number("iat"), claims.number("nbf"), claims.number("exp"));
    let (now, leeway) = (i128::from(now), i128::from(rules.leeway));
    if iat.is_some_and(|iat| iat.is_after(now + leeway)) {
        wrong.push(Reason::Invalid("iat"));
    }
    if nbf.is_some_and(|nbf| nbf.is_after(now + leeway)) {
        wrong.push(Reason::NotYetValid);
    }
    if exp.is_some_and(|exp| exp.is_before(now - leeway)) {
        wrong.push(Reason::Expired);
    }
    // The clock that wrote `iat` may have been ahead or behind, too.
    let oldest = rules.max_age.map(|max_age| now - i128::from(max_age) - leeway);
    if let (Some(iat), Some(oldest)) = (iat, oldest)
        && iat.is_before(oldest)
    {
        wrong.push(Reason::TooOld);
    }
    if let (Some(iat), Some(exp), Some(longest)) = (iat, exp, rules.max_lifetime)
        && exp.halves().saturating_sub(iat.halves()) > 2 * i128::from(longest)
    {
        wrong.push(Reason::Lifetime);
    }
    let accepted = |accepted: &[String], text: &Json| {
        text.text().is_some_and(|text| accepted.iter().any(|accepted| accepted == text))
    };
    if let Some(iss) = claims.get("iss")
        && !rules.issuers.is_empty()
        && !accepted(&rules.issuers, iss)
    {
        wrong.push(Reason::Invalid("iss"));
    }
    if let Some(aud) = claims.get("aud")
        && !rules.audiences.is_empty()
    {
        let is_accepted = match aud {
            Json::List(texts) => {
                texts.iter().all(|text| text.text().is_some())
                    && texts.iter().any(|text| accepted(&rules.audiences, text))
            }
            text => accepted(&rules.audiences, text),
        };
        if !is_accepted {
            wrong.push(Reason::Invalid("aud"));
        }
    }
    if rules.token_id_required && claims.get("jti").is_some() && token_id(claims).is_none() {
        wrong.push(Reason::Invalid("jti"));
    }
    wrong
}

fn required(rules: &ClaimRules) -> Vec<&'static str> {
    let mut required = vec![];
    let mut require = |when: bool, names: &[&'static str]| {
        if when {
            required.extend(names);
        }
    };
    require(rules.times_required, &["iat", "exp"]);
    require(rules.max_age.is_some(), &["iat"]);
    require(rules.max_lifetime.is_some(), &["iat", "exp"]);
    require(rules.token_id_required, &["jti", "exp"]);
    require(!rules.issuers.is_empty(), &["iss"]);
    require(!rules.audiences.is_empty(), &["aud"]);
    required
}

/// "an empty one is none".
fn token_id(claims: &Json) -> Option<String> {
    claims.get("jti").and_then(Json::text).filter(|id| !id.is_empty()).map(str::to_owned)
}

fn user_id(claims: &Json, rules: &ClaimRules) -> Option<String> {
    let found = match (&rules.user_id_pointer, &rules.namespace) {
        (Some(pointer), _) => claims.at(pointer),
        (None, Some(namespace)) => named_user(claims.get(namespace)?),
        (None, None) => named_user(claims),
    };
    found?.text().filter(|user_id| !user_id.trim().is_empty()).map(str::to_owned)
}

/// "in `sub` if it is there at all, else `user_id`".
fn named_user(claims: &Json) -> Option<&Json> {
    claims.get("sub").or_else(|| claims.get("user_id"))
}

impl Json {
    fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => {
                members.iter().find(|member| member.name == name).map(|member| &member.value)
            }
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<Number> {
        match self.get(name) {
            Some(Json::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// RFC 6901.
    fn at(&self, pointer: &str) -> Option<&Json> {
        let mut steps = pointer.split('/');
        (steps.next() == Some("")).then_some(())?;
        steps.try_fold(self, |place, step| match place {
            Json::Object(_) => place.get(&step.replace("~1", "/").replace("~0", "~")),
            Json::List(values) => values.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// No name comes twice, no number is beyond every double, and there are 128 levels at most
    /// (of exactly so many nothing is said, and there are none here).
    fn is_sound(&self) -> bool {
        match self {
            Json::Number(number) => *number != Number::Infinite,
            Json::List(values) => values.iter().all(Json::is_sound),
            Json::Object(members) => {
                let names: HashSet<&str> = members.iter().map(|member| &*member.name).collect();
                names.len() == members.len() && members.iter().all(|member| member.value.is_sound())
            }
            Json::Deep(levels) => *levels <= 128,
            Json::Null | Json::Bool(_) | Json::Text(_) => true,
        }
    }
}

impl Number {
    /// Twice the number, for all that are compared.
    fn halves(self) -> i128 {
        match self {
            Number::Whole(whole) => 2 * whole,
            Number::Half(half) => 2 * i128::from(half) + 1,
            Number::Huge(true) => i128::MIN / 4,
            Number::Huge(false) | Number::Infinite => i128::MAX / 4,
        }
    }

    fn is_after(self, seconds: i128) -> bool {
        self.halves().cmp(&(2 * seconds)) == Ordering::Greater
    }

    fn is_before(self, seconds: i128) -> bool {
        self.halves().cmp(&(2 * seconds)) == Ordering::Less
    }

    /// Rounded down, to what 64 bits can say.
    fn floor(self) -> i64 {
        let floor = self.halves().div_euclid(2);
        i64::try_from(floor).unwrap_or(if floor < 0 { i64::MIN } else { i64::MAX })
    }
}

impl fmt::Display for Json {
    /// As JSON, not always in the shortest way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(truth) => write!(f, "{truth}"),
            Json::Number(number) => number.fmt(f),
            Json::Text(text) => quoted(f, text),
            Json::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { " ," })?;
                }
                f.write_str("]")
            }
            Json::Object(members) => {
                f.write_str("{")?;
                for (index, Member { name, value }) in members.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { "," })?;
                    quoted(f, name)?;
                    write!(f, ": {value}")?;
                }
                f.write_str("}")
            }
            Json::Deep(levels) => {
                let lists = usize::from(*levels) - 1;
                write!(f, "{{\"l\":{}{}}}", "[".repeat(lists), "]".repeat(lists))
            }
        }
    }
}

/// The first character of a text is escaped, and what must be.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for (index, character) in text.chars().enumerate() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            '\0'..' ' => write!(f, "\\u{:04x}", u32::from(character))?,
            _ if index == 0 && text.len() % 2 == 1 => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(f, "\\u{unit:04X}")?;
                }
            }
            _ => write!(f, "{character}")?,
        }
    }
    f.write_str("\"")
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(whole) => write!(f, "{whole}"),
            Number::Half(half) if *half < 0 => {
                // -3 and a half more is -2.5.
                write!(f, "-{}.5", half.unsigned_abs() - 1)
            }
            Number::Half(half) => write!(f, "{half}.50"),
            Number::Huge(below) => write!(f, "{}1e+308", if *below { "-" } else { "" }),
            Number::Infinite => f.write_str("1e999"),
        }
    }
}
