//! Judges every token of the corpus (see tests/corpus/README.md), and tokens that proptest alters
//! or signs with other keys.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
        KeyPair,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use electric_satellite::{
    auth::{Algorithm, AuthError, ClaimRules, JwtAuthenticator, Key, Minter},
    session::{Token, UnixTime},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use serde::Deserialize;
use serde_json::json;

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

const SYMMETRIC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// A line of tokens.jsonl.
#[derive(Deserialize)]
struct Case {
    name: String,
    source: String,
    config: String,
    now: i64,
    token: String,
    verdict: String,
    user: Option<String>,
}

/// A value of configs.json.
#[derive(Deserialize)]
struct Config {
    mode: String,
    alg: Option<String>,
    key_file: Option<String>,
    namespace: Option<String>,
    iss: Vec<String>,
    aud: Vec<String>,
}

#[test]
fn every_token_gets_its_verdict() {
    let cases = cases();
    let configs = configs();
    let authenticators: HashMap<&str, JwtAuthenticator> =
        configs.iter().map(|(name, config)| (name.as_str(), config.authenticator())).collect();

    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| disagreement(case, &authenticators[case.config.as_str()]))
        .collect();
    print_counts(&cases, &configs);
    assert!(wrong.is_empty(), "{} of {} disagree:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Where a configuration can be said in Electric's variables, they say the same.
#[test]
fn every_token_gets_its_verdict_from_the_variables_too() {
    let authenticators: HashMap<String, JwtAuthenticator> = configs()
        .into_iter()
        .filter_map(|(name, config)| Some((name, config.authenticator_from_vars()?)))
        .collect();
    assert!(authenticators.len() > Algorithm::ALL.len());

    let wrong: Vec<String> = cases()
        .iter()
        .filter_map(|case| disagreement(case, authenticators.get(&case.config)?))
        .collect();
    assert!(wrong.is_empty(), "{} disagree:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_corpus_covers_every_algorithm_twice_and_every_verdict() {
    let cases = cases();
    let configs = configs();
    assert!(cases.len() >= 300, "{} tokens", cases.len());

    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "names are unique");

    let has = |algorithm: &str, source: &str, verdict: &str| {
        cases.iter().any(|case| {
            configs[&case.config].alg.as_deref() == Some(algorithm)
                && case.implementation() == source
                && case.verdict == verdict
        })
    };
    for algorithm in Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()) {
        for source in ["pyjwt", "jose"] {
            assert!(has(algorithm, source, "ok"), "{algorithm}: a good token of {source}");
            assert!(has(algorithm, source, "signature"), "{algorithm}: a bad one of {source}");
        }
    }

    let verdicts: BTreeSet<&str> = cases.iter().map(|case| case.verdict.as_str()).collect();
    let all = [
        "algorithm_mismatch",
        "claims",
        "expired",
        "malformed",
        "missing_claim",
        "not_yet_valid",
        "ok",
        "signature",
        "unsupported",
        "user_id",
    ];
    assert_eq!(verdicts, BTreeSet::from(all));
}

/// A line for each case that is judged otherwise than it should be.
fn disagreement(case: &Case, authenticator: &JwtAuthenticator) -> Option<String> {
    let expected = Verdict { class: &case.verdict, user: case.user.clone() };
    let actual = verdict(authenticator, &case.token, case.now);
    (actual != expected)
        .then(|| format!("{}: {expected:?} expected, {actual:?} returned", case.name))
}

#[derive(Debug, PartialEq)]
struct Verdict<'a> {
    class: &'a str,
    user: Option<String>,
}

fn verdict(authenticator: &JwtAuthenticator, token: &str, now: i64) -> Verdict<'static> {
    // The text that is no token at all does not come as far as an authenticator.
    let Ok(token) = Token::new(token) else { return Verdict { class: "malformed", user: None } };
    match authenticator.verify(&token, UnixTime::from_secs(now)) {
        Ok(verified) => Verdict { class: "ok", user: Some(verified.identity().user_id.clone()) },
        Err(error) => Verdict { class: class(&error), user: None },
    }
}

fn class(error: &AuthError) -> &'static str {
    match error {
        AuthError::Malformed(_) => "malformed",
        AuthError::Unsupported(_) => "unsupported",
        AuthError::AlgorithmMismatch => "algorithm_mismatch",
        AuthError::InvalidSignature => "signature",
        AuthError::MissingClaim(_) => "missing_claim",
        AuthError::InvalidClaim(_) => "claims",
        AuthError::Expired => "expired",
        AuthError::NotYetValid => "not_yet_valid",
        AuthError::UserId => "user_id",
        _ => "a verdict that the corpus does not know",
    }
}

fn print_counts(cases: &[Case], configs: &BTreeMap<String, Config>) {
    let mut by_verdict = BTreeMap::<&str, usize>::new();
    let mut by_algorithm = BTreeMap::<(&str, &str), usize>::new();
    for case in cases {
        let algorithm = configs[&case.config].alg.as_deref().unwrap_or("insecure");
        *by_verdict.entry(&case.verdict).or_default() += 1;
        *by_algorithm.entry((algorithm, case.implementation())).or_default() += 1;
    }
    println!("{} tokens", cases.len());
    for (verdict, count) in by_verdict {
        println!("{verdict:<20}{count:>6}");
    }
    for ((algorithm, implementation), count) in by_algorithm {
        println!("{algorithm:<9}{implementation:<11}{count:>6}");
    }
}

fn cases() -> Vec<Case> {
    let lines = fs::read_to_string(corpus("tokens.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn configs() -> BTreeMap<String, Config> {
    serde_json::from_str(&fs::read_to_string(corpus("configs.json")).unwrap()).unwrap()
}

fn corpus(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file)
}

impl Case {
    /// Whose token it is, without the version.
    fn implementation(&self) -> &str {
        self.source.split(' ').next().unwrap()
    }
}

impl Config {
    fn authenticator(&self) -> JwtAuthenticator {
        match self.mode.as_str() {
            "insecure" => JwtAuthenticator::insecure(self.namespace.clone()),
            _ => {
                let rules = ClaimRules {
                    namespace: self.namespace.clone(),
                    issuers: self.iss.clone(),
                    audiences: self.aud.clone(),
                    ..ClaimRules::default()
                };
                JwtAuthenticator::secure(self.key(), rules)
            }
        }
    }

    fn key(&self) -> Key {
        let algorithm: Algorithm = self.alg.as_ref().unwrap().parse().unwrap();
        let key = fs::read(corpus(self.key_file.as_ref().unwrap())).unwrap();
        match algorithm.is_symmetric() {
            true => Key::from_secret(algorithm, &key).unwrap(),
            false => Key::from_pem(algorithm, &key).unwrap(),
        }
    }

    /// Nothing where the variables cannot say it: several issuers or audiences, or any at all in
    /// insecure mode.
    fn authenticator_from_vars(&self) -> Option<JwtAuthenticator> {
        let several = self.iss.len() > 1 || self.aud.len() > 1;
        let ignored = self.mode == "insecure" && !(self.iss.is_empty() && self.aud.is_empty());
        if several || ignored {
            return None;
        }
        let key = self.key_file.as_ref().map(|file| fs::read_to_string(corpus(file)).unwrap());
        let authenticator = JwtAuthenticator::from_vars(|variable| match variable {
            "AUTH_MODE" => Some(self.mode.clone()),
            "AUTH_JWT_ALG" => self.alg.clone(),
            "AUTH_JWT_KEY" => key.clone(),
            "AUTH_JWT_NAMESPACE" => self.namespace.clone(),
            "AUTH_JWT_ISS" => self.iss.first().cloned(),
            "AUTH_JWT_AUD" => self.aud.first().cloned(),
            _ => None,
        });
        Some(authenticator.unwrap())
    }
}

/// What can sign, and what verifies it.
struct Pair {
    minter: Minter,
    authenticator: JwtAuthenticator,
}

impl Pair {
    fn new(minter: Minter, key: Key) -> Pair {
        Pair { minter, authenticator: JwtAuthenticator::secure(key, ClaimRules::default()) }
    }

    fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Pair {
        Pair::new(
            Minter::from_secret(algorithm, secret).unwrap(),
            Key::from_secret(algorithm, secret).unwrap(),
        )
    }

    fn from_pems(algorithm: Algorithm, private: &[u8], public: &[u8]) -> Pair {
        Pair::new(
            Minter::from_pem(algorithm, private).unwrap(),
            Key::from_pem(algorithm, public).unwrap(),
        )
    }

    /// A key of the corpus.
    fn from_corpus(algorithm: Algorithm) -> Pair {
        use Algorithm::*;
        let read = |name: String| fs::read(corpus(&format!("keys/{name}"))).unwrap();
        let name = match algorithm {
            HS256 | HS384 | HS512 => {
                let name = algorithm.as_str().to_lowercase();
                return Pair::from_secret(algorithm, &read(format!("{name}.txt")));
            }
            ES256 => "p256",
            ES384 => "p384",
            ES512 => "p521",
            EdDSA => "ed25519",
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => "rsa2048",
        };
        let private = read(format!("{name}.key.pem"));
        Pair::from_pems(algorithm, &private, &read(format!("{name}.pub.pem")))
    }

    /// A key that nobody has had before.
    fn fresh(algorithm: Algorithm) -> Pair {
        use Algorithm::*;
        match algorithm {
            HS256 | HS384 | HS512 => {
                let mut secret = [0; 64];
                aws_lc_rs::rand::fill(&mut secret).unwrap();
                Pair::from_secret(algorithm, &secret)
            }
            ES256 => Pair::fresh_ecdsa(algorithm, &ECDSA_P256_SHA256_FIXED_SIGNING),
            ES384 => Pair::fresh_ecdsa(algorithm, &ECDSA_P384_SHA384_FIXED_SIGNING),
            ES512 => Pair::fresh_ecdsa(algorithm, &ECDSA_P521_SHA512_FIXED_SIGNING),
            EdDSA => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let private = pair.to_pkcs8v1().unwrap();
                Pair::from_ders(algorithm, private.as_ref(), pair.public_key())
            }
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let private: Pkcs8V1Der = pair.as_der().unwrap();
                Pair::from_ders(algorithm, private.as_ref(), pair.public_key())
            }
        }
    }

    fn fresh_ecdsa(algorithm: Algorithm, signing: &'static EcdsaSigningAlgorithm) -> Pair {
        let private = EcdsaKeyPair::generate_pkcs8(signing, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(signing, private.as_ref()).unwrap();
        Pair::from_ders(algorithm, private.as_ref(), pair.public_key())
    }

    fn from_ders(
        algorithm: Algorithm,
        private: &[u8],
        public: &impl AsDer<PublicKeyX509Der<'static>>,
    ) -> Pair {
        let private = pem("PRIVATE KEY", private);
        let public = pem("PUBLIC KEY", public.as_der().unwrap().as_ref());
        Pair::from_pems(algorithm, private.as_bytes(), public.as_bytes())
    }

    fn mint(&self, user: &str) -> Token {
        let now = NOW.as_secs();
        self.minter.mint(&json!({ "sub": user, "iat": now, "exp": now + 60 })).unwrap()
    }

    fn accepts(&self, token: &Token) -> bool {
        self.authenticator.verify(token, NOW).is_ok()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A key and a good token of it.
struct Good {
    pair: Pair,
    token: Token,
}

/// One for each algorithm.
static GOOD: LazyLock<Vec<Good>> = LazyLock::new(|| {
    let good = |algorithm: &Algorithm| {
        let pair = Pair::from_corpus(*algorithm);
        Good { token: pair.mint("user-1"), pair }
    };
    Algorithm::ALL.iter().map(good).collect()
});

/// A small change of a text, or none.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, char),
    FlipBit(Index, u32),
    Insert(Index, char),
    Delete(Index),
    Swap(Index, Index),
    /// A stretch is put in once more.
    Repeat(Index, Index),
}

impl Change {
    fn apply(&self, text: &mut Vec<char>) {
        if text.is_empty() {
            return;
        }
        let len = text.len();
        let at = |index: &Index| index.index(len);
        match self {
            Change::Replace(index, char) => {
                let at = at(index);
                text[at] = *char;
            }
            Change::FlipBit(index, bit) => {
                let at = at(index);
                let flipped = char::from_u32(u32::from(text[at]) ^ 1 << bit);
                text[at] = flipped.unwrap_or(text[at]);
            }
            Change::Insert(index, char) => text.insert(index.index(len + 1), *char),
            Change::Delete(index) => {
                text.remove(at(index));
            }
            Change::Swap(a, b) => text.swap(at(a), at(b)),
            Change::Repeat(a, b) => {
                let (from, to) = (at(a).min(at(b)), at(a).max(at(b)));
                text.splice(from..from, text[from..to].to_vec());
            }
        }
    }
}

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What readers of base64 and of tokens like to skip, and what they cannot.
const ODD: [char; 12] =
    ['=', ' ', '\n', '\r', '\t', '\0', '.', '+', '/', 'A', '\u{a0}', '\u{feff}'];

fn any_char() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => select(&BASE64URL[..]).prop_map(char::from),
        1 => select(&ODD[..]),
        1 => any::<char>(),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any_char()).prop_map(|(index, char)| Change::Replace(index, char)),
        (any::<Index>(), 0..8_u32).prop_map(|(index, bit)| Change::FlipBit(index, bit)),
        (any::<Index>(), any_char()).prop_map(|(index, char)| Change::Insert(index, char)),
        any::<Index>().prop_map(Change::Delete),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Swap(a, b)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Repeat(a, b)),
    ]
}

fn cases_of(count: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(count) }
}

proptest! {
    #![proptest_config(cases_of(4096))]

    #[test]
    fn no_altered_token_is_accepted(
        good in 0..Algorithm::ALL.len(),
        changes in vec(any_change(), 1..4),
    ) {
        let Good { pair, token } = &GOOD[good];
        let mut altered: Vec<char> = token.expose().chars().collect();
        changes.iter().for_each(|change| change.apply(&mut altered));
        let altered: String = altered.into_iter().collect();
        if altered != token.expose() && !altered.is_empty() {
            let altered = Token::new(altered).unwrap();
            prop_assert!(!pair.accepts(&altered), "{:?}", altered.expose());
        }
    }

    #[test]
    fn no_segment_of_another_token_fits(
        good in 0..Algorithm::ALL.len(),
        segment in 0..3_usize,
        user in "[a-z]{1,12}",
    ) {
        let Good { pair, token } = &GOOD[good];
        let other = pair.mint(&user);
        let mut mixed: Vec<&str> = token.expose().split('.').collect();
        let foreign = other.expose().split('.').nth(segment).unwrap();
        // All tokens of one key have one header.
        let same = mixed[segment] == foreign;
        mixed[segment] = foreign;
        let mixed = Token::new(mixed.join(".")).unwrap();
        prop_assert_eq!(pair.accepts(&mixed), same, "{:?}", mixed.expose());
    }
}

/// Every bit of every character, every character left out, and all of these put in everywhere.
#[test]
fn no_token_with_one_small_change_is_accepted() {
    for Good { pair, token } in GOOD.iter() {
        assert!(pair.accepts(token));
        let text = token.expose();
        let mut altered: Vec<String> = vec![];
        for at in 0..=text.len() {
            let (before, after) = text.split_at(at);
            altered.extend(ODD.map(|char| format!("{before}{char}{after}")));
            let Some(here) = after.chars().next() else { continue };
            let after = &after[1..];
            altered.push(format!("{before}{after}"));
            let flipped = (0..7).map(|bit| char::from(here as u8 ^ 1 << bit));
            altered.extend(flipped.map(|char| format!("{before}{char}{after}")));
        }
        for altered in altered {
            let altered = Token::new(altered).unwrap();
            assert!(!pair.accepts(&altered), "{:?}", altered.expose());
        }
    }
}

/// Checks that each of some keys accepts its own tokens and no others.
fn assert_strangers(pairs: &[Pair]) {
    let tokens: Vec<Token> = pairs.iter().map(|pair| pair.mint("user-1")).collect();
    for (verifier, pair) in pairs.iter().enumerate() {
        for (signer, token) in tokens.iter().enumerate() {
            match pair.authenticator.verify(token, NOW) {
                Ok(_) => assert_eq!(signer, verifier),
                Err(error) => {
                    assert_ne!(signer, verifier, "{error}");
                    let refused =
                        matches!(error, AuthError::InvalidSignature | AuthError::AlgorithmMismatch);
                    assert!(refused, "{error}");
                }
            }
        }
    }
}

#[test]
fn a_key_accepts_no_token_of_another_fresh_key() {
    use Algorithm::*;
    for algorithm in [HS256, HS384, HS512, ES256, ES384, ES512, EdDSA] {
        let pairs: Vec<Pair> = (0..12).map(|_| Pair::fresh(algorithm)).collect();
        assert_strangers(&pairs);
    }
    // RSA keys take long to make.
    for algorithm in [RS256, PS512] {
        let pairs: Vec<Pair> = (0..3).map(|_| Pair::fresh(algorithm)).collect();
        assert_strangers(&pairs);
    }
}

#[test]
fn a_key_accepts_no_token_of_another_algorithm_even_with_the_same_key() {
    let pairs: Vec<Pair> = Algorithm::ALL.iter().map(|alg| Pair::from_corpus(*alg)).collect();
    assert_strangers(&pairs);
    let secret = [7; 64];
    assert_strangers(&SYMMETRIC.map(|algorithm| Pair::from_secret(algorithm, &secret)));
}

proptest! {
    #![proptest_config(cases_of(256))]

    /// Secrets of one length, as HMAC pads shorter ones with zeros.
    #[test]
    fn a_secret_accepts_no_token_of_another_secret(
        algorithm in select(&SYMMETRIC[..]),
        secret in vec(any::<u8>(), 64),
        change in any_secret_change(),
    ) {
        let mut other = secret.clone();
        change.iter().for_each(|(index, byte)| other[index.index(64)] ^= byte);
        prop_assume!(other != secret);
        let [one, other] = [secret, other].map(|secret| Pair::from_secret(algorithm, &secret));
        prop_assert!(one.accepts(&one.mint("user-1")));
        prop_assert!(!other.accepts(&one.mint("user-1")));
    }
}

fn any_secret_change() -> impl Strategy<Value = Vec<(Index, u8)>> {
    vec((any::<Index>(), 1..=u8::MAX), 1..3)
}
