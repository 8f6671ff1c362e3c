//! Electric's variables, with Electric's meaning.

use std::{borrow::Cow, fmt};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, general_purpose::NO_PAD},
};

use super::{Algorithm, ClaimRules, JwtAuthenticator, Key, KeyError, Minter};

/// `secure` (the default) or `insecure`.
const MODE: &str = "AUTH_MODE";
/// The algorithm of signatures.
const ALG: &str = "AUTH_JWT_ALG";
/// The shared secret, or the public key in PEM.
const KEY: &str = "AUTH_JWT_KEY";
/// Whether the shared secret is given in base64.
const KEY_IS_BASE64: &str = "AUTH_JWT_KEY_IS_BASE64_ENCODED";
/// The member that holds the user's claim.
const NAMESPACE: &str = "AUTH_JWT_NAMESPACE";
/// The required value of `iss`.
const ISS: &str = "AUTH_JWT_ISS";
/// The required value of `aud`.
const AUD: &str = "AUTH_JWT_AUD";

/// What is wrong with one variable. Reads on from its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {reason}")]
pub struct ConfigError {
    /// The variable's name.
    pub variable: &'static str,
    /// What is wrong with it, and what to do. Never the value of a key.
    pub reason: String,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    /// A banner, as Electric prints it, with a line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CONFIGURATION ERROR\n")?;
        writeln!(f, "The following configuration options have invalid or missing values:\n")?;
        self.0.iter().try_for_each(|error| writeln!(f, "  * {error}"))
    }
}

impl JwtAuthenticator {
    /// Configured from Electric's variables, which `variable` looks up by name:
    /// `AUTH_MODE` (`secure` unless set), `AUTH_JWT_ALG`, `AUTH_JWT_KEY`,
    /// `AUTH_JWT_KEY_IS_BASE64_ENCODED`, `AUTH_JWT_NAMESPACE`, `AUTH_JWT_ISS`, `AUTH_JWT_AUD`.
    /// A value of white space alone counts as unset.
    ///
    /// ```
    /// use electric_satellite::auth::JwtAuthenticator;
    ///
    /// let errors = JwtAuthenticator::from_vars(|_| None).unwrap_err();
    /// assert_eq!(errors.0[0].to_string(), "AUTH_JWT_ALG not set");
    /// assert_eq!(errors.0[1].to_string(), "AUTH_JWT_KEY not set");
    /// ```
    ///
    /// # Errors
    ///
    /// All problems at once, each naming its variable.
    pub fn from_vars(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<JwtAuthenticator, ConfigErrors> {
        let lookup = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        match lookup(MODE).as_deref() {
            None | Some("secure") => secure(&lookup),
            Some("insecure") => insecure(&lookup),
            Some(other) => Err(vec![error(
                MODE,
                format!(r#"has invalid value: {other:?}. Must be one of ["secure", "insecure"]"#),
            )]),
        }
        .map_err(ConfigErrors)
    }

    /// Configured from the environment; see [`JwtAuthenticator::from_vars`].
    ///
    /// # Errors
    ///
    /// All problems at once, each naming its variable.
    pub fn from_env() -> Result<JwtAuthenticator, ConfigErrors> {
        JwtAuthenticator::from_vars(|name| std::env::var(name).ok())
    }
}

impl Minter {
    /// Makes tokens that [`JwtAuthenticator::from_vars`] with the same variables accepts:
    /// unsigned ones in insecure mode, else signed with the shared secret.
    ///
    /// # Errors
    ///
    /// All problems with the variables at once; or they hold a public key, which does not sign.
    pub fn from_vars(variable: impl Fn(&str) -> Option<String>) -> Result<Minter, ConfigErrors> {
        if JwtAuthenticator::from_vars(&variable)?.is_insecure() {
            return Ok(Minter::unsigned());
        }
        let algorithm = algorithm(variable(ALG)).expect("it was just read");
        if !algorithm.is_symmetric() {
            return Err(ConfigErrors(vec![error(
                KEY,
                format!(
                    "is a public key for AUTH_JWT_ALG={algorithm}: it verifies, it does not sign"
                ),
            )]));
        }
        let key = variable(KEY).expect("it was just read");
        let base64 = variable(KEY_IS_BASE64).is_some_and(|value| is_true(&value));
        let secret = secret(&key, base64).expect("it was just read");
        Ok(Minter::from_secret(algorithm, &secret).expect("it was just read"))
    }
}

fn error(variable: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError { variable, reason: reason.into() }
}

fn secure(lookup: &impl Fn(&str) -> Option<String>) -> Result<JwtAuthenticator, Vec<ConfigError>> {
    let algorithm = algorithm(lookup(ALG));
    let key = lookup(KEY).ok_or_else(|| error(KEY, "not set"));
    let key = match (algorithm, key) {
        (Ok(algorithm), Ok(key)) => {
            let base64 = lookup(KEY_IS_BASE64).is_some_and(|value| is_true(&value));
            parse_key(algorithm, &key, base64).map_err(|error| vec![error])?
        }
        (algorithm, key) => return Err(algorithm.err().into_iter().chain(key.err()).collect()),
    };
    let rules = ClaimRules {
        namespace: lookup(NAMESPACE),
        issuers: lookup(ISS).into_iter().collect(),
        audiences: lookup(AUD).into_iter().collect(),
        ..ClaimRules::default()
    };
    Ok(JwtAuthenticator::secure(key, rules))
}

/// Insecure mode takes a namespace. What would only protect in secure mode is refused, so that
/// nobody believes to be protected.
fn insecure(
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<JwtAuthenticator, Vec<ConfigError>> {
    let base64 = lookup(KEY_IS_BASE64).is_some_and(|value| is_true(&value));
    let set = |name| lookup(name).is_some();
    let errors: Vec<ConfigError> = [
        (ALG, set(ALG)),
        (KEY, set(KEY)),
        (KEY_IS_BASE64, base64),
        (ISS, set(ISS)),
        (AUD, set(AUD)),
    ]
    .into_iter()
    .filter(|(_, set)| *set)
    .map(|(variable, _)| {
        error(
            variable,
            "is not valid in Insecure auth mode. Did you forget to set AUTH_MODE=secure?",
        )
    })
    .collect();
    if errors.is_empty() { Ok(JwtAuthenticator::insecure(lookup(NAMESPACE))) } else { Err(errors) }
}

fn algorithm(value: Option<String>) -> Result<Algorithm, ConfigError> {
    let Some(value) = value else { return Err(error(ALG, "not set")) };
    value.parse().map_err(|_| {
        let names: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
        error(ALG, format!("has invalid value: {value:?}. Must be one of {names:?}"))
    })
}

/// The bytes of a shared secret.
fn secret(key: &str, base64: bool) -> Result<Cow<'_, [u8]>, ConfigError> {
    match base64 {
        false => Ok(Cow::Borrowed(key.as_bytes())),
        true => {
            let secret = BASE64.decode(key.trim());
            secret.map(Cow::Owned).map_err(|_| error(KEY, "has invalid base64 encoding"))
        }
    }
}

fn parse_key(algorithm: Algorithm, key: &str, base64: bool) -> Result<Key, ConfigError> {
    let parsed = match algorithm.is_symmetric() {
        true => Key::from_secret(algorithm, &secret(key, base64)?),
        false => Key::from_pem(algorithm, key.as_bytes()),
    };
    parsed.map_err(|reason| match reason {
        KeyError::TooShort { .. } => error(KEY, reason.to_string()),
        KeyError::Invalid { algorithm } => error(
            KEY,
            format!(
                "is not a valid key for AUTH_JWT_ALG={algorithm} or it has invalid format. It must \
                 be a public key in PEM, including the lines \"-----BEGIN PUBLIC KEY-----\" and \
                 \"-----END PUBLIC KEY-----\""
            ),
        ),
    })
}

/// Standard base64, with or without padding.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Electric's reading of a boolean: empty, `0` and `false` are false, all else is true.
fn is_true(value: &str) -> bool {
    !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "false")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn from(vars: &[(&str, &str)]) -> Result<JwtAuthenticator, Vec<String>> {
        JwtAuthenticator::from_vars(|name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
        .map_err(|errors| errors.0.iter().map(ConfigError::to_string).collect())
    }

    #[test]
    fn secure_is_the_default_and_names_everything_it_misses() {
        assert_eq!(from(&[]).unwrap_err(), ["AUTH_JWT_ALG not set", "AUTH_JWT_KEY not set"]);
        assert_eq!(
            from(&[(MODE, " "), (ALG, "none"), (KEY, " ")]).unwrap_err(),
            [
                "AUTH_JWT_ALG has invalid value: \"none\". Must be one of [\"HS256\", \"HS384\", \
                 \"HS512\", \"RS256\", \"RS384\", \"RS512\", \"ES256\", \"ES384\", \"ES512\", \
                 \"PS256\", \"PS384\", \"PS512\", \"EdDSA\"]",
                "AUTH_JWT_KEY not set"
            ]
        );
        assert!(!from(&[(ALG, "HS256"), (KEY, SECRET)]).unwrap().is_insecure());
    }

    #[test]
    fn an_unknown_mode_is_refused_with_the_known_ones() {
        assert_eq!(
            from(&[(MODE, "foo")]).unwrap_err(),
            [r#"AUTH_MODE has invalid value: "foo". Must be one of ["secure", "insecure"]"#]
        );
    }

    #[test]
    fn a_short_secret_is_refused_by_length() {
        for (alg, bytes) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
            let short = "x".repeat(bytes - 1);
            let error = format!("AUTH_JWT_KEY has to be at least {bytes} bytes long for {alg}");
            assert_eq!(from(&[(ALG, alg), (KEY, &short)]).unwrap_err(), [error]);
            assert!(from(&[(ALG, alg), (KEY, &(short + "x"))]).is_ok());
        }
    }

    #[test]
    fn base64_is_decoded_only_on_request() {
        let encoded = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
        let padded = format!("{encoded}=");
        let fingerprint = |authenticator: JwtAuthenticator| {
            authenticator.key.as_ref().map(|key| key.fingerprint().to_owned())
        };
        let raw = fingerprint(from(&[(ALG, "HS256"), (KEY, SECRET)]).unwrap());
        for key in [encoded, &padded] {
            let decoded = from(&[(ALG, "HS256"), (KEY, key), (KEY_IS_BASE64, "true")]).unwrap();
            assert_eq!(fingerprint(decoded), raw);
            let verbatim = from(&[(ALG, "HS256"), (KEY, key), (KEY_IS_BASE64, "FALSE")]).unwrap();
            assert_ne!(fingerprint(verbatim), raw);
        }
        let bad = from(&[(ALG, "HS256"), (KEY, "%%%"), (KEY_IS_BASE64, "1")]).unwrap_err();
        assert_eq!(bad, ["AUTH_JWT_KEY has invalid base64 encoding"]);
        let short = from(&[(ALG, "HS256"), (KEY, "AAAA"), (KEY_IS_BASE64, "1")]).unwrap_err();
        assert_eq!(short, ["AUTH_JWT_KEY has to be at least 32 bytes long for HS256"]);
    }

    #[test]
    fn a_public_key_that_does_not_fit_is_refused_and_not_shown() {
        for alg in ["RS256", "PS512", "ES256", "ES512", "EdDSA"] {
            let errors = from(&[(ALG, alg), (KEY, "secret-text")]).unwrap_err();
            assert!(errors[0].contains(&format!("valid key for AUTH_JWT_ALG={alg}")), "{errors:?}");
            assert!(!errors[0].contains("secret-text"));
        }
    }

    #[test]
    fn insecure_mode_refuses_what_would_only_protect_in_secure_mode() {
        assert!(from(&[(MODE, "insecure"), (NAMESPACE, "ns"), (KEY, "")]).unwrap().is_insecure());
        assert!(from(&[(MODE, "insecure"), (KEY_IS_BASE64, "false")]).is_ok());
        let errors = from(&[(MODE, "insecure"), (ALG, "HS256"), (KEY, SECRET)]).unwrap_err();
        assert_eq!(
            errors,
            [ALG, KEY].map(|name| format!(
                "{name} is not valid in Insecure auth mode. Did you forget to set AUTH_MODE=secure?"
            ))
        );
    }
}
