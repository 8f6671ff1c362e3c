//! Configuration by variables: Electric's own, with Electric's meaning, and some more.

use std::{borrow::Cow, cell::RefCell, fmt, path::PathBuf, str::FromStr};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, general_purpose::NO_PAD},
};

use super::{
    Algorithm, ClaimRules, InProcessReplayGuard, JwtAuthenticator, Key, KeyFile, KeyRing, KeySet,
    Minter, RevocationFile, RevocationList, source::Source,
};

const MODE: &str = "AUTH_MODE";
const ALG: &str = "AUTH_JWT_ALG";
const KEY: &str = "AUTH_JWT_KEY";
const KEY_IS_BASE64: &str = "AUTH_JWT_KEY_IS_BASE64_ENCODED";
const NAMESPACE: &str = "AUTH_JWT_NAMESPACE";
const ISS: &str = "AUTH_JWT_ISS";
const AUD: &str = "AUTH_JWT_AUD";
const KEY_FILE: &str = "AUTH_JWT_KEY_FILE";
const JWKS_URL: &str = "AUTH_JWT_JWKS_URL";
const LEEWAY: &str = "AUTH_JWT_LEEWAY";
const MAX_AGE: &str = "AUTH_JWT_MAX_AGE";
const MAX_LIFETIME: &str = "AUTH_JWT_MAX_LIFETIME";
const USER_ID_POINTER: &str = "AUTH_JWT_USER_ID_POINTER";
const ONE_OFF: &str = "AUTH_JWT_ONE_OFF";
const CACHE: &str = "AUTH_JWT_CACHE";
const REVOCATIONS: &str = "AUTH_REVOCATIONS_FILE";

/// A variable that [`JwtAuthenticator::from_vars`] reads.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What kind of value it takes, in a word.
    pub value: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Whether it would only protect in secure mode, and is refused in insecure mode.
    pub secure_only: bool,
}

/// Every variable that [`JwtAuthenticator::from_vars`] reads, Electric's own first.
pub const VARIABLES: &[Variable] = &[
    variable(
        MODE,
        "MODE",
        "`secure` (signed tokens, the default) or `insecure` (unsigned allowed, for development)",
    ),
    secure_only(
        ALG,
        "ALG",
        "The algorithm of signatures, HS256 and so on; for a JWK Set it may be several, with commas",
    ),
    secure_only(
        KEY,
        "KEY",
        "The shared secret (HS*), or public keys or certificates in PEM, or a JWK (all others)",
    ),
    secure_only(KEY_IS_BASE64, "BOOL", "Whether the shared secret is given in base64"),
    variable(NAMESPACE, "CLAIM", "The claim, an object, that holds the user's id"),
    secure_only(
        ISS,
        "ISSUER",
        "The issuer that tokens must name; a JSON array of texts accepts several",
    ),
    secure_only(
        AUD,
        "AUDIENCE",
        "The audience that tokens must name; a JSON array of texts accepts several",
    ),
    secure_only(
        KEY_FILE,
        "FILE",
        "A file with public keys, PEM or a JWK Set, read again when it changes",
    ),
    secure_only(
        JWKS_URL,
        "URL",
        "Where a JWK Set is fetched from, again and again (needs the feature jwks-http)",
    ),
    variable(LEEWAY, "SECONDS", "How far clocks may disagree; 2 unless set"),
    secure_only(MAX_AGE, "SECONDS", "How old a token may be, by its iat"),
    secure_only(MAX_LIFETIME, "SECONDS", "How long a token may be valid, from its iat to its exp"),
    variable(
        USER_ID_POINTER,
        "POINTER",
        "Where the user's id is, if not in sub or user_id: a JSON Pointer such as /user/id",
    ),
    secure_only(
        ONE_OFF,
        "TOKENS",
        "Accept each token once, by its jti; so many are remembered until they expire",
    ),
    secure_only(CACHE, "TOKENS", "Remember so many verified tokens, for storms of reconnects"),
    secure_only(
        REVOCATIONS,
        "FILE",
        "A file with revocations, as JSON, read again when it changes",
    ),
];

const fn variable(name: &'static str, value: &'static str, help: &'static str) -> Variable {
    Variable { name, value, help, secure_only: false }
}

const fn secure_only(name: &'static str, value: &'static str, help: &'static str) -> Variable {
    Variable { name, value, help, secure_only: true }
}

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
    /// Configured from variables, which `variable` looks up by name; [`VARIABLES`] lists them. A
    /// value of white space alone counts as unset.
    ///
    /// Files are read now, and again when they change if [`Authenticator::keep_fresh`] runs, as it
    /// does with [`Server::serve`](crate::server::Server::serve).
    ///
    /// ```
    /// use electric_satellite::auth::JwtAuthenticator;
    ///
    /// let errors = JwtAuthenticator::from_vars(|_| None).unwrap_err();
    /// assert_eq!(errors.0[0].to_string(), "AUTH_JWT_ALG not set");
    /// assert_eq!(errors.0[1].to_string(), "AUTH_JWT_KEY not set");
    /// ```
    ///
    /// [`Authenticator::keep_fresh`]: super::Authenticator::keep_fresh
    ///
    /// # Errors
    ///
    /// All problems at once, each naming its variable.
    pub fn from_vars(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<JwtAuthenticator, ConfigErrors> {
        let vars = Vars { lookup: &variable, errors: RefCell::default() };
        let authenticator = match vars.get(MODE).as_deref() {
            None | Some("secure") => secure(&vars),
            Some("insecure") => insecure(&vars),
            Some(other) => {
                let rule = r#"Must be one of ["secure", "insecure"]"#;
                vars.error(MODE, format!("has invalid value: {other:?}. {rule}"));
                None
            }
        };
        match (authenticator, vars.errors.into_inner()) {
            (Some(authenticator), errors) if errors.is_empty() => Ok(authenticator),
            (_, errors) => Err(ConfigErrors(errors)),
        }
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
        let Some((algorithm, secret)) = shared_secret(&variable) else {
            let reason = "is not a shared secret: a public key verifies, it does not sign";
            return Err(ConfigErrors(vec![ConfigError { variable: KEY, reason: reason.into() }]));
        };
        Ok(Minter::from_secret(algorithm, &secret).expect("it was just read"))
    }
}

/// The shared secret of a good configuration, and its algorithm, if it has one.
pub(crate) fn shared_secret(
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<(Algorithm, Vec<u8>)> {
    let vars = Vars { lookup: variable, errors: RefCell::default() };
    let algorithm = vars.algorithms().into_iter().find(|algorithm| algorithm.is_symmetric())?;
    let key = vars.get(KEY)?;
    let secret = secret(&key, vars.flag(KEY_IS_BASE64)).ok()?;
    Some((algorithm, secret.into_owned()))
}

/// The variables, and what is found wrong with them.
struct Vars<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    errors: RefCell<Vec<ConfigError>>,
}

impl Vars<'_> {
    fn get(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable).filter(|value| !value.trim().is_empty())
    }

    /// Electric's reading of a boolean: empty, `0` and `false` are false, all else is true.
    fn flag(&self, variable: &str) -> bool {
        let value = self.get(variable).map(|value| value.trim().to_ascii_lowercase());
        !matches!(value.as_deref(), None | Some("0" | "false"))
    }

    fn error(&self, variable: &'static str, reason: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError { variable, reason: reason.into() });
    }

    /// A value that can be parsed; if it cannot, that is noted.
    fn parsed<T: FromStr>(&self, variable: &'static str, what: &str) -> Option<T> {
        let value = self.get(variable)?;
        let parsed = value.trim().parse().ok();
        if parsed.is_none() {
            self.error(variable, format!("has invalid value: {value:?}. Must be {what}"));
        }
        parsed
    }

    fn seconds(&self, variable: &'static str) -> Option<u32> {
        self.parsed(variable, "a whole number of seconds")
    }

    /// One text, or several as a JSON array.
    fn texts(&self, variable: &'static str) -> Vec<String> {
        let Some(value) = self.get(variable) else { return vec![] };
        if !value.trim_start().starts_with('[') {
            return vec![value];
        }
        serde_json::from_str(&value).unwrap_or_else(|_| {
            self.error(
                variable,
                "has invalid value: it begins like a JSON array of texts, but is none",
            );
            vec![]
        })
    }

    /// The configured algorithms; none if that is noted as an error.
    fn algorithms(&self) -> Vec<Algorithm> {
        let Some(value) = self.get(ALG) else {
            self.error(ALG, "not set");
            return vec![];
        };
        let algorithms: Result<Vec<Algorithm>, _> =
            value.split(',').map(|name| name.trim().parse()).collect();
        algorithms.unwrap_or_else(|_| {
            let names: Vec<&str> = Algorithm::ALL.iter().map(|alg| alg.as_str()).collect();
            self.error(ALG, format!("has invalid value: {value:?}. Must be one of {names:?}"));
            vec![]
        })
    }
}

fn secure(vars: &Vars<'_>) -> Option<JwtAuthenticator> {
    let algorithms = vars.algorithms();
    let ring = KeyRing::default();
    let sources = keys(vars, &algorithms, &ring);
    let mut authenticator = JwtAuthenticator::secure(ring, claim_rules(vars));
    authenticator.sources = sources;
    if let Some(path) = vars.get(REVOCATIONS) {
        let (file, list) = (RevocationFile::new(path), RevocationList::default());
        match file.load() {
            Ok(revoked) => drop(list.replace(revoked)),
            Err(error) => vars.error(REVOCATIONS, format!("cannot be used: {error}")),
        }
        authenticator = authenticator.with_revocations(list.clone());
        authenticator.sources.push(Source::Revocations(file, list));
    }
    if let Some(tokens) = vars.parsed(CACHE, "a number of tokens") {
        authenticator = authenticator.with_cache(tokens);
    }
    if let Some(tokens) = vars.parsed(ONE_OFF, "a number of tokens") {
        if vars.get(CACHE).is_some() {
            vars.error(CACHE, "has no use with AUTH_JWT_ONE_OFF: no token comes twice");
        }
        authenticator = authenticator.with_replay_guard(InProcessReplayGuard::new(tokens));
    }
    Some(authenticator)
}

/// Puts the configured keys into the ring. Returns the sources that may have others later.
fn keys(vars: &Vars<'_>, algorithms: &[Algorithm], ring: &KeyRing) -> Vec<Source> {
    let (key, file, url) = (vars.get(KEY), vars.get(KEY_FILE), vars.get(JWKS_URL));
    let mut sources = vec![];
    if key.is_none() && file.is_none() && url.is_none() {
        vars.error(KEY, "not set");
    }
    let Some(&first) = algorithms.first() else { return sources };
    if let Some(key) = key {
        match parse_key(first, &key, vars.flag(KEY_IS_BASE64)) {
            _ if algorithms.len() > 1 => {
                vars.error(ALG, "has several algorithms, but AUTH_JWT_KEY is for one");
            }
            Ok(keys) => ring.replace(KEY, keys),
            Err(error) => vars.errors.borrow_mut().push(error),
        }
    }
    if let Some(path) = file {
        let file = KeyFile::new(PathBuf::from(path), algorithms);
        match file.load() {
            Ok(keys) => ring.replace(file.source(), keys),
            Err(error) => vars.error(KEY_FILE, format!("cannot be used: {error}")),
        }
        sources.push(Source::Keys(file, ring.clone()));
    }
    if let Some(url) = url {
        sources.extend(jwks_url(vars, &url, algorithms, ring));
    }
    sources
}

#[cfg(feature = "jwks-http")]
fn jwks_url(
    vars: &Vars<'_>,
    url: &str,
    algorithms: &[Algorithm],
    ring: &KeyRing,
) -> Option<Source> {
    match super::JwksUrl::new(url, algorithms) {
        Ok(url) => Some(Source::Url(url, ring.clone())),
        Err(error) => {
            vars.error(JWKS_URL, format!("cannot be used: {error}"));
            None
        }
    }
}

#[cfg(not(feature = "jwks-http"))]
fn jwks_url(vars: &Vars<'_>, _: &str, _: &[Algorithm], _: &KeyRing) -> Option<Source> {
    vars.error(JWKS_URL, "cannot be used: this program is built without the feature jwks-http");
    None
}

/// Insecure mode refuses what would only protect in secure mode, so that nobody believes to be
/// protected.
fn insecure(vars: &Vars<'_>) -> Option<JwtAuthenticator> {
    for variable in VARIABLES.iter().filter(|variable| variable.secure_only) {
        let set = match variable.name {
            KEY_IS_BASE64 => vars.flag(KEY_IS_BASE64),
            name => vars.get(name).is_some(),
        };
        if set {
            let hint = "Did you forget to set AUTH_MODE=secure?";
            vars.error(variable.name, format!("is not valid in Insecure auth mode. {hint}"));
        }
    }
    let rules = ClaimRules { times_required: false, ..claim_rules(vars) };
    Some(JwtAuthenticator::new(None, rules))
}

fn claim_rules(vars: &Vars<'_>) -> ClaimRules {
    let pointer = vars.get(USER_ID_POINTER);
    if pointer.as_ref().is_some_and(|pointer| !pointer.starts_with('/')) {
        vars.error(USER_ID_POINTER, "is no JSON Pointer: it must begin with /");
    }
    let defaults = ClaimRules::default();
    ClaimRules {
        namespace: vars.get(NAMESPACE),
        issuers: vars.texts(ISS),
        audiences: vars.texts(AUD),
        leeway: vars.seconds(LEEWAY).unwrap_or(defaults.leeway),
        max_age: vars.seconds(MAX_AGE),
        max_lifetime: vars.seconds(MAX_LIFETIME),
        user_id_pointer: pointer,
        ..defaults
    }
}

fn error(variable: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError { variable, reason: reason.into() }
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

fn parse_key(algorithm: Algorithm, key: &str, base64: bool) -> Result<KeySet, ConfigError> {
    if algorithm.is_symmetric() {
        let key = Key::from_secret(algorithm, &secret(key, base64)?);
        return key.map(KeySet::from).map_err(|reason| error(KEY, reason.to_string()));
    }
    KeySet::parse(&[algorithm], key.as_bytes()).map_err(|_| {
        error(
            KEY,
            format!(
                "is not a valid key for AUTH_JWT_ALG={algorithm} or it has invalid format. It must \
                 be a public key in PEM, including the lines \"-----BEGIN PUBLIC KEY-----\" and \
                 \"-----END PUBLIC KEY-----\", or a JWK"
            ),
        )
    })
}

/// Standard base64, with or without padding.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent));

#[cfg(test)]
mod tests {
    use crate::session::UnixTime;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn lookup(vars: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn from(vars: &[(&str, &str)]) -> Result<JwtAuthenticator, Vec<String>> {
        JwtAuthenticator::from_vars(lookup(vars))
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
            authenticator.keys().map(|ring| ring.keys().keys()[0].fingerprint().to_owned())
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
    fn what_is_configured_is_what_holds() {
        let rules = from(&[
            (ALG, "HS256"),
            (KEY, SECRET),
            (ISS, "issuer"),
            (AUD, r#"["a","b"]"#),
            (LEEWAY, "5"),
            (MAX_AGE, "60"),
            (MAX_LIFETIME, "120"),
            (USER_ID_POINTER, "/user/id"),
            (ONE_OFF, "1000"),
        ]);
        let expected = ClaimRules {
            issuers: vec!["issuer".into()],
            audiences: vec!["a".into(), "b".into()],
            leeway: 5,
            max_age: Some(60),
            max_lifetime: Some(120),
            user_id_pointer: Some("/user/id".into()),
            token_id_required: true,
            ..ClaimRules::default()
        };
        assert_eq!(*rules.unwrap().rules(), expected);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let errors = from(&[
            (ALG, "RS256,ES256"),
            (KEY_FILE, "/no/such/file"),
            (REVOCATIONS, "/no/such/list"),
            (LEEWAY, "-1"),
            (AUD, "[1]"),
            (USER_ID_POINTER, "user"),
            (ONE_OFF, "many"),
        ]);
        let variables: Vec<String> = errors
            .unwrap_err()
            .iter()
            .map(|error| error.split(' ').next().unwrap().to_owned())
            .collect();
        assert_eq!(variables, [KEY_FILE, USER_ID_POINTER, AUD, LEEWAY, REVOCATIONS, ONE_OFF]);
    }

    #[test]
    fn problems_are_printed_under_a_banner_each_on_its_line() {
        let errors = JwtAuthenticator::from_vars(|_| None).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "CONFIGURATION ERROR\n\n\
             The following configuration options have invalid or missing values:\n\n  \
             * AUTH_JWT_ALG not set\n  * AUTH_JWT_KEY not set\n"
        );
    }

    #[test]
    fn several_algorithms_are_for_sets_of_keys_and_not_for_one_key() {
        let several = "has several algorithms, but AUTH_JWT_KEY is for one";
        for key in [SECRET, "no key"] {
            let errors = from(&[(ALG, "HS256,HS384"), (KEY, key)]).unwrap_err();
            assert_eq!(errors, [format!("{ALG} {several}")]);
        }
    }

    #[test]
    fn a_minter_makes_what_the_same_variables_accept() {
        let now = UnixTime::from_secs(1_700_000_000);
        let claims = serde_json::json!({ "sub": "u", "iat": now.as_secs(), "exp": now.as_secs() });
        let base64 = BASE64.encode(SECRET);
        for vars in [
            &[(MODE, "insecure")][..],
            &[(ALG, "HS256"), (KEY, SECRET)],
            &[(ALG, "HS256"), (KEY, &base64), (KEY_IS_BASE64, "1")],
        ] {
            let authenticator = from(vars).unwrap();
            let minter = Minter::from_vars(lookup(vars)).unwrap();
            assert!(authenticator.verify(&minter.mint(&claims).unwrap(), now).is_ok(), "{vars:?}");
        }
        let jwk =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let public = [(ALG, "EdDSA"), (KEY, jwk)];
        assert!(from(&public).is_ok());
        let errors = Minter::from_vars(lookup(&public)).unwrap_err();
        assert_eq!(errors.0[0].variable, KEY);
        assert!(errors.0[0].reason.starts_with("is not a shared secret"), "{errors}");
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
