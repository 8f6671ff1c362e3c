//! The rules for claims, judged against a clock that is given.

use std::cmp::Ordering;

use crate::session::{Identity, UnixTime};

use super::{
    AuthError,
    json::{self, Claims, Number, User, Value},
};

/// What the claims of a token must say, beside naming a user.
///
/// The defaults are Electric's: `iat` and `exp` required, 2 s of leeway, any issuer and audience,
/// the user in `sub` or else `user_id` at the top level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRules {
    /// The member, itself an object, that holds the user's claim. The registered claims stay at
    /// the top level.
    pub namespace: Option<String>,
    /// Accepted values of `iss`. If there are any, the claim is required.
    pub issuers: Vec<String>,
    /// Accepted values of `aud`, of which the token must name at least one. If there are any, the
    /// claim is required.
    pub audiences: Vec<String>,
    /// How far clocks may disagree, in seconds, for `iat`, `nbf` and `exp`.
    pub leeway: u32,
    /// Whether a token without `iat` or without `exp` is refused. They are judged if present in
    /// any case.
    pub times_required: bool,
    /// The longest time since `iat`, in seconds, that a token is accepted. Requires `iat`.
    pub max_age: Option<u32>,
    /// The longest time from `iat` to `exp`, in seconds, that a token may be valid. Requires both.
    pub max_lifetime: Option<u32>,
}

impl Default for ClaimRules {
    fn default() -> ClaimRules {
        ClaimRules {
            namespace: None,
            issuers: vec![],
            audiences: vec![],
            leeway: 2,
            times_required: true,
            max_age: None,
            max_lifetime: None,
        }
    }
}

impl ClaimRules {
    /// Judges the payload of a token whose signature is settled.
    ///
    /// Values that are present come first, then what is missing, then the user, as in Electric.
    pub(super) fn judge(&self, payload: &[u8], now: UnixTime) -> Result<Identity, AuthError> {
        let claims = json::claims(payload, self.namespace.as_deref())
            .map_err(|_| AuthError::Malformed("the payload is no JSON object"))?;
        let times = self.judge_times(&claims, now)?;
        judge_one_of("iss", &claims.iss, &self.issuers)?;
        judge_one_of("aud", &claims.aud, &self.audiences)?;
        self.judge_presence(&claims)?;
        let user_id = user_id(claims.user).ok_or(AuthError::UserId)?;
        Ok(Identity { user_id, expires_at: times.exp.map(|exp| UnixTime::from_secs(exp.floor())) })
    }

    fn judge_times(&self, claims: &Claims<'_>, now: UnixTime) -> Result<Times, AuthError> {
        let now = now.as_secs();
        let earliest = now.saturating_sub(self.leeway.into());
        let latest = now.saturating_add(self.leeway.into());
        let iat = numeric_date("iat", &claims.iat)?;
        let nbf = numeric_date("nbf", &claims.nbf)?;
        let exp = numeric_date("exp", &claims.exp)?;
        if exp.is_some_and(|exp| exp.cmp(earliest) == Ordering::Less) {
            return Err(AuthError::Expired);
        }
        if nbf.is_some_and(|nbf| nbf.cmp(latest) == Ordering::Greater) {
            return Err(AuthError::NotYetValid);
        }
        if iat.is_some_and(|iat| iat.cmp(latest) == Ordering::Greater) {
            return Err(AuthError::InvalidClaim("iat"));
        }
        if let (Some(max_age), Some(iat)) = (self.max_age, iat)
            && iat.cmp(earliest.saturating_sub(max_age.into())) == Ordering::Less
        {
            return Err(AuthError::TooOld);
        }
        if let (Some(max), Some(iat), Some(exp)) = (self.max_lifetime, iat, exp)
            && exp.cmp(iat.floor().saturating_add(max.into())) == Ordering::Greater
        {
            return Err(AuthError::LifetimeTooLong);
        }
        Ok(Times { exp })
    }

    /// The first required claim that is absent, in alphabetical order.
    fn judge_presence(&self, claims: &Claims<'_>) -> Result<(), AuthError> {
        let lifetime = self.max_lifetime.is_some();
        let required = [
            ("aud", &claims.aud, !self.audiences.is_empty()),
            ("exp", &claims.exp, self.times_required || lifetime),
            ("iat", &claims.iat, self.times_required || lifetime || self.max_age.is_some()),
            ("iss", &claims.iss, !self.issuers.is_empty()),
        ];
        match required.iter().find(|(_, claim, required)| *required && claim.is_absent()) {
            Some((name, ..)) => Err(AuthError::MissingClaim(name)),
            None => Ok(()),
        }
    }
}

/// What the rules leave to know of a token's times.
struct Times {
    exp: Option<Number>,
}

/// A time, which must be a number if it is there
/// ([RFC 7519 §2](https://www.rfc-editor.org/rfc/rfc7519#section-2)).
fn numeric_date(name: &'static str, claim: &Value<'_>) -> Result<Option<Number>, AuthError> {
    match claim {
        Value::Absent => Ok(None),
        Value::Number(number) => Ok(Some(*number)),
        _ => Err(AuthError::InvalidClaim(name)),
    }
}

/// A claim that is one text or several, of which one must be accepted. Only `aud` may be several.
fn judge_one_of(
    name: &'static str,
    claim: &Value<'_>,
    accepted: &[String],
) -> Result<(), AuthError> {
    let is_accepted = |value: &str| accepted.iter().any(|accepted| accepted == value);
    let good = match claim {
        _ if accepted.is_empty() => true,
        Value::Absent => true,
        Value::Text(value) => is_accepted(value),
        Value::Texts(values) => name == "aud" && values.iter().any(|value| is_accepted(value)),
        _ => false,
    };
    if good { Ok(()) } else { Err(AuthError::InvalidClaim(name)) }
}

/// The user: `sub` if it is there at all, else `user_id`; a text that is not blank.
fn user_id(User { sub, user_id }: User<'_>) -> Option<String> {
    match if sub.is_absent() { user_id } else { sub } {
        Value::Text(user_id) if !user_id.trim().is_empty() => Some(user_id.into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);

    fn judge(rules: &ClaimRules, payload: &str) -> Result<String, String> {
        rules
            .judge(payload.as_bytes(), NOW)
            .map(|identity| identity.user_id)
            .map_err(|error| error.to_string())
    }

    /// A payload with good times and this beside them.
    fn with(claims: &str) -> String {
        format!(r#"{{"iat":1000000,"exp":1000000,{claims}}}"#)
    }

    #[test]
    fn clocks_may_disagree_by_the_leeway_and_no_more() {
        let rules = ClaimRules { times_required: false, ..Default::default() };
        for (claim, error) in [
            (r#""exp":999998"#, None),
            (r#""exp":999997.9"#, Some("Expired token")),
            (r#""exp":999997"#, Some("Expired token")),
            (r#""nbf":1000002"#, None),
            (r#""nbf":1000002.1"#, Some("Token is not yet valid")),
            (r#""nbf":1000003"#, Some("Token is not yet valid")),
            (r#""iat":1000002"#, None),
            (r#""iat":1000003"#, Some(r#"Invalid "iat" claim value"#)),
            (r#""exp":1e30"#, None),
            (r#""iat":-1"#, None),
        ] {
            let verdict = judge(&rules, &format!(r#"{{"sub":"u",{claim}}}"#));
            assert_eq!(verdict.err().as_deref(), error, "{claim}");
        }
    }

    #[test]
    fn a_time_that_is_no_number_is_refused() {
        for name in ["iat", "exp", "nbf"] {
            for value in [r#""1""#, "null", "true", "[]", "{}"] {
                let rules = ClaimRules { times_required: false, ..Default::default() };
                let verdict = judge(&rules, &format!(r#"{{"sub":"u","{name}":{value}}}"#));
                assert_eq!(verdict, Err(format!("Invalid {name:?} claim value")));
            }
        }
    }

    #[test]
    fn required_claims_are_missed_by_name() {
        let rules = ClaimRules::default();
        let missing = |payload: &str| judge(&rules, payload).unwrap_err();
        assert_eq!(missing(r#"{"sub":"u","exp":1000000}"#), r#"Missing required "iat" claim"#);
        assert_eq!(missing(r#"{"sub":"u","iat":1}"#), r#"Missing required "exp" claim"#);
        let rules = ClaimRules {
            issuers: vec!["i".into()],
            audiences: vec!["a".into(), "b".into()],
            ..rules
        };
        let verdict = |claims: &str| judge(&rules, &with(claims));
        assert_eq!(
            verdict(r#""sub":"u","iss":"i""#).unwrap_err(),
            r#"Missing required "aud" claim"#
        );
        assert_eq!(
            verdict(r#""sub":"u","aud":"b""#).unwrap_err(),
            r#"Missing required "iss" claim"#
        );
        assert!(verdict(r#""sub":"u","iss":"i","aud":["x","b"]"#).is_ok());
        for bad in [r#""x""#, "[]", r#"["x"]"#, r#"["b",1]"#, "1", "null", "{}"] {
            let claims = format!(r#""sub":"u","iss":"i","aud":{bad}"#);
            assert_eq!(verdict(&claims).unwrap_err(), r#"Invalid "aud" claim value"#, "{bad}");
        }
        for bad in [r#""I""#, r#"["i"]"#, "123"] {
            let claims = format!(r#""sub":"u","aud":"a","iss":{bad}"#);
            assert_eq!(verdict(&claims).unwrap_err(), r#"Invalid "iss" claim value"#, "{bad}");
        }
    }

    #[test]
    fn the_user_is_sub_or_else_user_id_and_never_blank() {
        let rules = ClaimRules::default();
        let user = |claims: &str| judge(&rules, &with(claims));
        assert_eq!(user(r#""sub":"a","user_id":"b""#).unwrap(), "a");
        assert_eq!(user(r#""user_id":" b ""#).unwrap(), " b ");
        for bad in [r#""x":1"#, r#""sub":"","user_id":"b""#, r#""sub":5"#, r#""sub":"\u00a0\t""#] {
            assert_eq!(user(bad).unwrap_err(), "Missing or invalid 'user_id'", "{bad}");
        }
    }

    #[test]
    fn age_and_lifetime_are_bounded_if_asked() {
        let rules = ClaimRules { max_age: Some(10), max_lifetime: Some(60), ..Default::default() };
        let verdict = |iat: i64, exp: i64| {
            judge(&rules, &format!(r#"{{"sub":"u","iat":{iat},"exp":{exp}}}"#)).err()
        };
        assert_eq!(verdict(999_988, 1_000_048), None);
        assert_eq!(verdict(999_987, 1_000_040).unwrap(), "Token is older than allowed");
        assert_eq!(
            verdict(1_000_000, 1_000_061).unwrap(),
            "Token is valid for longer than allowed"
        );
    }
}
