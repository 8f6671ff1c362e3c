//! What a token says, and what would be said to it.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::session::{Token, UnixTime};

use super::{
    AuthError, JwtAuthenticator,
    json::{self, Claims, Header, Number, Value},
};

/// One thing that was found out about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `alg`, `signature`, `exp` and so on.
    pub subject: &'static str,
    /// Whether it is as it must be; nothing where it does not matter.
    pub good: Option<bool>,
    /// What it is, and by how much it misses. Holds values from the token.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.good {
            Some(true) => "ok",
            Some(false) => "FAIL",
            None => "-",
        };
        write!(f, "{mark:<5}{:<10} {}", self.subject, self.detail)
    }
}

impl JwtAuthenticator {
    /// Explains a token, claim by claim, against the rules that hold here and this time.
    ///
    /// The last finding is the verdict, with the subject `verdict`. The findings hold values from
    /// the token, but never its signature: they are meant for whoever holds the token.
    pub fn explain(&self, token: &Token, now: UnixTime) -> Vec<Finding> {
        let mut findings = Findings(vec![]);
        let segments: Vec<&str> = token.expose().split('.').collect();
        let secure = self.keys.is_some();
        let counts = if secure { 3..=3 } else { 2..=3 };
        let good = counts.contains(&segments.len());
        findings.add("form", Some(good), format!("{} segments", segments.len()));
        let header = segments.first().and_then(|segment| URL_SAFE_NO_PAD.decode(segment).ok());
        match header.as_deref().map(json::header) {
            Some(Ok(header)) => self.explain_header(&mut findings, &header),
            _ => findings.add("header", secure.then_some(false), "no JSON object in base64url"),
        }
        self.explain_signature(&mut findings, token);
        let payload = segments.get(1).and_then(|segment| URL_SAFE_NO_PAD.decode(segment).ok());
        let claims =
            payload.as_deref().map(|json| json::claims(json, self.rules.namespace.as_deref()));
        match claims {
            Some(Ok(claims)) => self.explain_claims(&mut findings, &claims, now),
            _ => findings.add("payload", Some(false), "no JSON object in base64url"),
        }
        match self.verify(token, now) {
            Ok(verified) => {
                let user = &verified.identity().user_id;
                findings.add("verdict", Some(true), format!("accepted, for user {user:?}"));
            }
            Err(error) => {
                if let AuthError::TooOld = error {
                    let max = self.rules.max_age.unwrap_or_default();
                    findings.add("age", Some(false), format!("more than {max} s since iat"));
                }
                if let AuthError::LifetimeTooLong = error {
                    let max = self.rules.max_lifetime.unwrap_or_default();
                    findings.add(
                        "lifetime",
                        Some(false),
                        format!("more than {max} s from iat to exp"),
                    );
                }
                if let AuthError::UserId = error {
                    findings.add(
                        "identity",
                        Some(false),
                        "no text that is not blank names the user",
                    );
                }
                findings.add("verdict", Some(false), error.to_string());
            }
        }
        findings.0
    }

    fn explain_header(&self, findings: &mut Findings, header: &Header<'_>) {
        let Some(keys) = self.keys() else {
            return findings.add("header", None, "not looked at in insecure mode");
        };
        let keys = keys.keys();
        let mut expected: Vec<&str> = vec![];
        for key in keys.keys() {
            if !expected.contains(&key.algorithm().as_str()) {
                expected.push(key.algorithm().as_str());
            }
        }
        let good = header.alg.text().is_some_and(|alg| expected.contains(&alg));
        let detail = format!("{}; must be one of {expected:?}", header.alg);
        findings.add("alg", Some(good), detail);
        if !header.kid.is_absent() {
            let kid = header.kid.text();
            let known = keys.keys().iter().any(|key| key.kid().is_none() || key.kid() == kid);
            // One that is no text chooses no key.
            findings.add("kid", kid.map(|_| known), header.kid.to_string());
        }
        for (subject, value, refused) in [
            ("crit", &header.crit, true),
            ("b64", &header.b64, !matches!(header.b64, Value::Bool(true))),
            ("zip", &header.zip, true),
            ("enc", &header.enc, true),
            ("cty", &header.cty, header.cty.text().is_some_and(|c| c.eq_ignore_ascii_case("JWT"))),
        ] {
            if !value.is_absent() {
                let detail = if refused { "; extensions are refused" } else { "" };
                findings.add(subject, refused.then_some(false), format!("{value}{detail}"));
            }
        }
    }

    fn explain_signature(&self, findings: &mut Findings, token: &Token) {
        let Some(keys) = self.keys() else {
            return findings.add("signature", None, "not looked at in insecure mode");
        };
        let keys = keys.keys();
        match super::signed_payload(token.expose(), &keys) {
            Ok(_) => findings.add("signature", Some(true), "by a configured key"),
            Err(AuthError::InvalidSignature) => {
                let tried = super::source::fingerprints(&keys);
                findings.add("signature", Some(false), format!("by none of the keys {tried}"));
            }
            Err(error) => findings.add("signature", None, format!("not looked at: {error}")),
        }
    }

    fn explain_claims(&self, findings: &mut Findings, claims: &Claims<'_>, now: UnixTime) {
        let rules = self.rules();
        let leeway = i64::from(rules.leeway);
        let now = now.as_secs();
        let (earliest, latest) = (now.saturating_sub(leeway), now.saturating_add(leeway));
        let times = [("iat", &claims.iat), ("nbf", &claims.nbf), ("exp", &claims.exp)];
        for (subject, claim) in times {
            let both = rules.times_required || rules.max_lifetime.is_some();
            let required = match subject {
                "iat" => both || rules.max_age.is_some(),
                "exp" => both || rules.token_id_required,
                _ => false,
            };
            match claim {
                Value::Absent => findings.absent(subject, required),
                Value::Number(number) => {
                    // By how much the claim misses, if it does.
                    let over = match subject {
                        "exp" => number
                            .cmp(earliest)
                            .is_lt()
                            .then(|| earliest.saturating_sub(number.floor())),
                        _ => {
                            number.cmp(latest).is_gt().then(|| number.ceil().saturating_sub(latest))
                        }
                    };
                    findings.time(subject, *number, now, leeway, over);
                }
                other => findings.add(subject, Some(false), format!("{other} is no number")),
            }
        }
        for (subject, claim, accepted) in
            [("iss", &claims.iss, &rules.issuers), ("aud", &claims.aud, &rules.audiences)]
        {
            if accepted.is_empty() {
                if !claim.is_absent() {
                    findings.add(subject, None, format!("{claim}; any is accepted"));
                }
            } else if claim.is_absent() {
                findings.absent(subject, true);
            } else {
                let good = super::claims::judge_one_of(subject, claim, accepted).is_ok();
                findings.add(subject, Some(good), format!("{claim}; must be one of {accepted:?}"));
            }
        }
        if !claims.jti.is_absent() || rules.token_id_required {
            let good = claims.jti.text().is_some_and(|id| !id.is_empty());
            findings.add("jti", rules.token_id_required.then_some(good), claims.jti.to_string());
        }
        if let Some(pointer) = &rules.user_id_pointer {
            return findings.add("user", None, format!("looked for at {pointer}"));
        }
        let place = rules
            .namespace
            .as_ref()
            .map_or(String::new(), |namespace| format!(" in the namespace {namespace:?}"));
        for (subject, claim) in [("sub", &claims.user.sub), ("user_id", &claims.user.user_id)] {
            if !claim.is_absent() {
                findings.add(subject, None, format!("{claim}{place}"));
            }
        }
    }
}

/// Findings, as they are made.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, subject: &'static str, good: Option<bool>, detail: impl Into<String>) {
        self.0.push(Finding { subject, good, detail: detail.into() });
    }

    fn absent(&mut self, subject: &'static str, required: bool) {
        let detail = if required { "absent, but required" } else { "absent" };
        self.add(subject, required.then_some(false), detail);
    }

    fn time(
        &mut self,
        subject: &'static str,
        time: Number,
        now: i64,
        leeway: i64,
        over: Option<i64>,
    ) {
        let away = time.floor().saturating_sub(now);
        let when = match away {
            0 => "now".to_owned(),
            1.. => format!("in {away} s"),
            _ => format!("{} s ago", away.saturating_neg()),
        };
        let over = over.map(|over| format!(", {over} s beyond the leeway of {leeway} s"));
        let detail = format!("{} ({when}{})", time.floor(), over.as_deref().unwrap_or_default());
        self.add(subject, Some(over.is_none()), detail);
    }
}
