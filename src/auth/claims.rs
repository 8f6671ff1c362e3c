//! The rules for claims, judged against a clock that is given.

use std::cmp::Ordering;

use bytes::Bytes;

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
    /// Whether a token without an id of its own (`jti`, not empty) and an end (`exp`) is refused.
    pub token_id_required: bool,
    /// Where the user's id is, if not in `sub` or `user_id`: a JSON Pointer
    /// ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)) into the claims, such as
    /// `/user/id`. The namespace is not used then.
    pub user_id_pointer: Option<String>,
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
            token_id_required: false,
            user_id_pointer: None,
        }
    }
}

impl ClaimRules {
    /// Judges the payload of a token whose signature is settled.
    ///
    /// Values that are present come first, then what is missing, then the user, as in Electric.
    pub(super) fn judge(&self, payload: Bytes, now: UnixTime) -> Result<Judged, AuthError> {
        let claims = json::claims(&payload, self.namespace.as_deref())
            .map_err(|_| AuthError::Malformed("the payload is no JSON object"))?;
        let times = Times {
            iat: numeric_date("iat", &claims.iat)?,
            nbf: numeric_date("nbf", &claims.nbf)?,
            exp: numeric_date("exp", &claims.exp)?,
        };
        self.judge_times(&times, now)?;
        judge_one_of("iss", &claims.iss, &self.issuers)?;
        judge_one_of("aud", &claims.aud, &self.audiences)?;
        let token_id = self.token_id(&claims.jti)?;
        self.judge_presence(&claims)?;
        let issuer = claims.iss.text().filter(|_| self.token_id_required).map(str::to_owned);
        let user_id = match &self.user_id_pointer {
            None => user_id(claims.user),
            Some(pointer) => user_id_at(pointer, &payload),
        };
        let mut identity = Identity::new(user_id.ok_or(AuthError::UserId)?);
        identity.issued_at = times.iat.map(|iat| UnixTime::from_secs(iat.floor()));
        identity.expires_at = times.exp.map(|exp| UnixTime::from_secs(exp.floor()));
        identity.token_id = token_id;
        identity.claims = payload;
        Ok(Judged { identity, times, issuer })
    }

    /// Judges the times of a token, at this time.
    pub(super) fn judge_times(&self, times: &Times, now: UnixTime) -> Result<(), AuthError> {
        let Times { iat, nbf, exp } = *times;
        let now = now.as_secs();
        let earliest = now.saturating_sub(self.leeway.into());
        let latest = now.saturating_add(self.leeway.into());
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
            && exp.is_later_by_more_than(max, iat)
        {
            return Err(AuthError::LifetimeTooLong);
        }
        Ok(())
    }

    /// The token's own id. Where none is required, one of the wrong type is ignored.
    fn token_id(&self, jti: &Value<'_>) -> Result<Option<String>, AuthError> {
        match jti {
            Value::Text(id) if !id.is_empty() => Ok(Some(id.clone().into_owned())),
            Value::Absent => Ok(None),
            _ if self.token_id_required => Err(AuthError::InvalidClaim("jti")),
            _ => Ok(None),
        }
    }

    /// The first required claim that is absent, in alphabetical order.
    fn judge_presence(&self, claims: &Claims<'_>) -> Result<(), AuthError> {
        let times = self.times_required || self.max_lifetime.is_some();
        let required = [
            ("aud", &claims.aud, !self.audiences.is_empty()),
            ("exp", &claims.exp, times || self.token_id_required),
            ("iat", &claims.iat, times || self.max_age.is_some()),
            ("iss", &claims.iss, !self.issuers.is_empty()),
            ("jti", &claims.jti, self.token_id_required),
        ];
        match required.iter().find(|(_, claim, required)| *required && claim.is_absent()) {
            Some((name, ..)) => Err(AuthError::MissingClaim(name)),
            None => Ok(()),
        }
    }
}

/// When claims say that their token expires.
pub(super) fn expiry(payload: &[u8]) -> Option<UnixTime> {
    let claims = json::claims(payload, None).ok()?;
    let exp = numeric_date("exp", &claims.exp).ok()?;
    exp.map(|exp| UnixTime::from_secs(exp.floor()))
}

/// What the rules make of a token.
pub(super) struct Judged {
    pub(super) identity: Identity,
    pub(super) times: Times,
    pub(super) issuer: Option<String>,
}

/// The times of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    iat: Option<Number>,
    nbf: Option<Number>,
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
pub(super) fn judge_one_of(
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

/// The user, at a place of the operator's choice. The text is read once more: few need this.
fn user_id_at(pointer: &str, payload: &[u8]) -> Option<String> {
    let claims: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let user_id = claims.pointer(pointer)?.as_str()?;
    (!user_id.trim().is_empty()).then(|| user_id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);

    fn judge(rules: &ClaimRules, payload: &str) -> Result<String, String> {
        rules
            .judge(Bytes::copy_from_slice(payload.as_bytes()), NOW)
            .map(|judged| judged.identity.user_id)
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
    fn the_user_may_be_elsewhere() {
        let rules =
            ClaimRules { user_id_pointer: Some("/user~1s/0/id".into()), ..Default::default() };
        let user = |claims: &str| judge(&rules, &with(claims));
        assert_eq!(user(r#""sub":"a","user/s":[{"id":"b"}]"#).unwrap(), "b");
        for bad in [r#""sub":"a""#, r#""user/s":[{"id":7}]"#, r#""user/s":[{"id":" "}]"#] {
            assert_eq!(user(bad).unwrap_err(), "Missing or invalid 'user_id'", "{bad}");
        }
    }

    #[test]
    fn an_id_of_its_own_is_required_if_asked() {
        let rules = ClaimRules { token_id_required: true, ..Default::default() };
        let verdict = |claims: &str| judge(&rules, &with(claims)).err();
        assert_eq!(verdict(r#""sub":"u","jti":"1""#), None);
        assert_eq!(verdict(r#""sub":"u""#).unwrap(), r#"Missing required "jti" claim"#);
        for bad in ["1", "null", r#""""#] {
            let error = verdict(&format!(r#""sub":"u","jti":{bad}"#)).unwrap();
            assert_eq!(error, r#"Invalid "jti" claim value"#, "{bad}");
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
