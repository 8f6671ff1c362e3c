//! Keys that come from a URL, fetched from a server on this machine.
//!
//! Time is real here, because sockets are. Where something must happen, it is waited for until it
//! does, for a minute at most; where something must not happen, the time until it would is set to
//! hours, or enough else is awaited that would come after it. No test measures how long anything
//! takes but from below.
#![cfg(feature = "jwks-http")]

#[path = "../asking/mod.rs"]
mod asking;
#[path = "../log/mod.rs"]
mod log;
mod server;
mod service;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use electric_satellite::{
    auth::{
        Algorithm, Authenticator, ClaimRules, JwksUrl, JwksUrlError, JwtAuthenticator, KeyRing,
        Minter, Timing,
    },
    session::{Token, UnixTime},
};
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, JoinSet, yield_now},
    time::{sleep, timeout},
};
use tracing::subscriber::DefaultGuard;

use asking::request;
use log::Log;
use server::{Answer, Jwks, PATH};

const HOUR: Duration = Duration::from_secs(3600);

/// Fetched once, and again only when a token asks for it.
const ON_DEMAND: Timing = Timing {
    refresh: HOUR,
    max_age: HOUR,
    min_interval: Duration::ZERO,
    timeout: HOUR,
    max_bytes: 64 * 1024,
};

/// Fetched again and again.
const OFTEN: Timing = Timing { refresh: Duration::from_millis(2), ..ON_DEMAND };

/// What was awaited, unless it does not come for a minute.
async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    let Ok(output) = timeout(Duration::from_secs(60), future).await else {
        panic!("not in a minute: {what}")
    };
    output
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    in_time(what, async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The time at which all tokens are issued and judged.
const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

/// Whoever signs with one of the Ed25519 keys of `tests/corpus/keys`, which they name so.
struct Issuer {
    minter: Minter,
    jwk: Value,
}

fn issuer(name: &str, kid: &str) -> Issuer {
    let pem = |kind: &str| {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/keys");
        std::fs::read_to_string(format!("{directory}/{name}.{kind}.pem")).expect("a key")
    };
    let public: String = pem("pub").lines().filter(|line| !line.starts_with("--")).collect();
    let public = STANDARD.decode(public).unwrap();
    // The key is the end of it (RFC 8410 §4).
    let x = URL_SAFE_NO_PAD.encode(&public[public.len() - 32..]);
    Issuer {
        minter: Minter::from_pem(Algorithm::EdDSA, pem("key").as_bytes()).unwrap().with_kid(kid),
        jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA" }),
    }
}

fn old() -> Issuer {
    issuer("ed25519", "old")
}

fn new() -> Issuer {
    issuer("ed25519-other", "new")
}

impl Issuer {
    fn keys(&self) -> Answer {
        Answer::keys(std::slice::from_ref(&self.jwk))
    }

    fn token(&self) -> Token {
        mint(&self.minter)
    }
}

fn mint(minter: &Minter) -> Token {
    let claims = json!({ "sub": "u", "iat": NOW.as_secs(), "exp": NOW.as_secs() + 60 });
    minter.mint(&claims).unwrap()
}

/// A ring that is kept fresh from a URL, as long as this is not dropped.
struct Kept {
    ring: KeyRing,
    authenticator: Arc<JwtAuthenticator>,
    log: Log,
    _log: DefaultGuard,
    keeping: Vec<JoinHandle<()>>,
}

impl Kept {
    fn new(url: &str, timing: Timing) -> Kept {
        let (log, guard) = Log::capture();
        let ring = KeyRing::default();
        let authenticator = JwtAuthenticator::secure(ring.clone(), ClaimRules::default());
        let authenticator = Arc::new(authenticator.with_cache(100));
        let mut kept = Kept { ring, authenticator, log, _log: guard, keeping: vec![] };
        kept.keep(url, timing);
        kept
    }

    /// Keeps it fresh from one more URL.
    fn keep(&mut self, url: &str, timing: Timing) {
        let url = JwksUrl::new(url, &[Algorithm::EdDSA, Algorithm::HS256]).unwrap();
        let (url, ring) = (url.with_timing(timing), self.ring.clone());
        self.keeping.push(tokio::spawn(async move {
            url.keep(ring).await;
        }));
    }

    /// Whether a token is accepted with the keys that are there now.
    fn accepts(&self, token: &Token) -> bool {
        self.authenticator.verify(token, NOW).is_ok()
    }

    async fn until_accepted(&self, token: &Token) {
        until("the token is accepted", || self.accepts(token)).await;
    }

    async fn until_refused(&self, token: &Token) {
        until("the token is refused", || !self.accepts(token)).await;
    }

    /// Presents a token as a client does: it may wait for keys.
    fn present(&self, token: Token) -> impl Future<Output = Result<(), String>> + use<> {
        let authenticator = Arc::clone(&self.authenticator);
        async move {
            let request = request(&token);
            let verdict = in_time("a verdict", authenticator.authenticate(&request, NOW)).await;
            verdict.map(drop).map_err(|error| error.to_string())
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeping.iter().for_each(JoinHandle::abort);
    }
}

/// Waits until there is a line with this text.
async fn says(log: &Log, text: &str) {
    in_time(&format!("{text:?} in the log"), async {
        while log.count(text) == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[test]
fn a_url_must_be_safe_on_its_way() {
    for url in [
        "https://issuer.example/jwks.json",
        "HTTPS://issuer.example",
        " https://issuer.example/jwks.json\n",
        "http://localhost/jwks",
        "http://LOCALHOST:8080/jwks",
        "http://127.0.0.1:8080/jwks",
        "http://[::1]:8080/jwks",
    ] {
        assert!(JwksUrl::new(url, &[Algorithm::EdDSA]).is_ok(), "{url}");
    }
    for (url, error) in [
        ("http://issuer.example/jwks.json", JwksUrlError::Insecure),
        ("http://localhost.issuer.example/", JwksUrlError::Insecure),
        ("http://localhost@issuer.example/", JwksUrlError::Insecure),
        ("http://127.0.0.1.issuer.example/", JwksUrlError::Insecure),
        ("http://10.0.0.1/", JwksUrlError::Insecure),
        ("http://0.0.0.0/", JwksUrlError::Insecure),
        ("http://[::ffff:10.0.0.1]/", JwksUrlError::Insecure),
        ("ftp://localhost/jwks", JwksUrlError::Insecure),
        ("file:///etc/keys.json", JwksUrlError::Insecure),
        ("data:application/json,{}", JwksUrlError::Insecure),
        ("localhost:8080/jwks", JwksUrlError::Insecure),
        ("", JwksUrlError::Malformed),
        ("/jwks", JwksUrlError::Malformed),
        ("issuer.example/jwks", JwksUrlError::Malformed),
        ("http://", JwksUrlError::Malformed),
    ] {
        assert_eq!(JwksUrl::new(url, &[Algorithm::EdDSA]).unwrap_err(), error, "{url}");
    }
}

#[tokio::test]
async fn keys_are_fetched_at_once_and_then_used_without_asking_again() {
    let jwks = Jwks::new(old().keys()).await;
    let kept = Kept::new(&jwks.url(), ON_DEMAND);
    kept.until_accepted(&old().token()).await;
    for _ in 0..100 {
        assert_eq!(kept.present(old().token()).await, Ok(()));
    }
    let requests = jwks.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0][0], format!("GET {PATH} HTTP/1.1"));
}

#[tokio::test]
async fn keys_are_fetched_again_and_again() {
    let jwks = Jwks::new(old().keys()).await;
    let kept = Kept::new(&jwks.url(), OFTEN);
    kept.until_accepted(&old().token()).await;
    jwks.say(Answer::keys(&[old().jwk, new().jwk]));
    kept.until_accepted(&new().token()).await;
    assert!(kept.accepts(&old().token()));
    jwks.say(new().keys());
    kept.until_refused(&old().token()).await;
    assert!(kept.accepts(&new().token()));
}

#[tokio::test]
async fn keys_that_stay_the_same_are_not_exchanged() {
    let jwks = Jwks::new(old().keys()).await;
    let kept = Kept::new(&jwks.url(), OFTEN);
    let token = old().token();
    kept.until_accepted(&token).await;
    // A token stays in the cache until keys are exchanged, with its claims in one place.
    let before = kept.authenticator.verify(&token, NOW).unwrap();
    jwks.asked_again(5).await;
    // The same keys in other words.
    let mut keys = old().jwk;
    keys["more"] = json!([1, 2]);
    jwks.say(Answer::ok(format!("\n {{ \"x\": 1, \"keys\" : [ {keys:#} ] }} ")));
    jwks.asked_again(5).await;
    let after = kept.authenticator.verify(&token, NOW).unwrap();
    assert_eq!(after.identity().claims.as_ptr(), before.identity().claims.as_ptr());
    assert_eq!(kept.log.count("new keys"), 1);
    jwks.say(new().keys());
    kept.until_accepted(&new().token()).await;
    assert_eq!(kept.log.count("new keys"), 2);
}

#[tokio::test]
async fn a_token_with_an_unknown_key_waits_for_the_keys_that_it_makes_be_fetched() {
    let jwks = Jwks::new(old().keys()).await;
    let kept = Kept::new(&jwks.url(), ON_DEMAND);
    kept.until_accepted(&old().token()).await;
    jwks.say(Answer::keys(&[old().jwk, new().jwk]));
    jwks.hold();
    let verdict = tokio::spawn(kept.present(new().token()));
    jwks.asked(2).await;
    for _ in 0..100 {
        yield_now().await;
    }
    assert!(!verdict.is_finished(), "the keys are not there yet");
    assert_eq!(kept.present(old().token()).await, Ok(()), "others need not wait");
    jwks.release();
    assert_eq!(verdict.await.unwrap(), Ok(()));
    assert_eq!(kept.present(new().token()).await, Ok(()));
    assert_eq!(jwks.requests().len(), 2);
}

#[tokio::test]
async fn a_key_that_is_nowhere_is_refused_after_one_look() {
    let jwks = Jwks::new(old().keys()).await;
    let kept = Kept::new(&jwks.url(), ON_DEMAND);
    kept.until_accepted(&old().token()).await;
    assert_eq!(kept.present(new().token()).await, Err("Unknown signing key".into()));
    assert_eq!(jwks.requests().len(), 2);
}

#[tokio::test]
async fn a_fetch_that_fails_refuses_the_token_that_waits_for_it() {
    let jwks = Jwks::new(old().keys()).await;
    let kept = Kept::new(&jwks.url(), ON_DEMAND);
    kept.until_accepted(&old().token()).await;
    for answer in [Answer::nothing(), new().keys().with_status(500), Answer::ok("{")] {
        jwks.say(answer);
        assert_eq!(kept.present(new().token()).await, Err("Unknown signing key".into()));
        assert!(kept.accepts(&old().token()));
    }
    assert_eq!(jwks.requests().len(), 4);
}

#[tokio::test]
async fn unknown_keys_cause_no_fetch_before_the_shortest_interval_is_over() {
    let jwks = Jwks::new(old().keys()).await;
    let kept = Kept::new(&jwks.url(), Timing { min_interval: HOUR, ..ON_DEMAND });
    kept.until_accepted(&old().token()).await;
    let mut strangers = JoinSet::new();
    for kid in 0..200 {
        let stranger = issuer("ed25519-other", &format!("made up {kid}"));
        strangers.spawn(kept.present(stranger.token()));
    }
    for verdict in strangers.join_all().await {
        assert_eq!(verdict, Err("Unknown signing key".into()));
    }
    assert_eq!(jwks.requests().len(), 1);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_causes_one_fetch_per_interval() {
    const INTERVAL: Duration = Duration::from_millis(50);
    const FETCHES: u32 = 5;
    let jwks = Jwks::new(old().keys()).await;
    let begin = Instant::now();
    let kept = Kept::new(&jwks.url(), Timing { min_interval: INTERVAL, ..ON_DEMAND });
    kept.until_accepted(&old().token()).await;
    let stranger = new().token();
    let flood = async {
        loop {
            kept.present(stranger.clone()).await.unwrap_err();
            yield_now().await;
        }
    };
    tokio::select! {
        () = flood => {}
        () = jwks.asked(FETCHES as usize) => {}
    }
    assert!(begin.elapsed() >= INTERVAL * (FETCHES - 1));
}

#[tokio::test]
async fn a_token_that_comes_during_a_fetch_uses_it_and_causes_no_other() {
    let jwks = Jwks::new(old().keys()).await;
    let timing = Timing { min_interval: HOUR, ..OFTEN };
    let kept = Kept::new(&jwks.url(), timing);
    kept.until_accepted(&old().token()).await;
    jwks.hold();
    jwks.asked_again(1).await;
    let requests = jwks.requests().len();
    let verdict = tokio::spawn(kept.present(new().token()));
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(jwks.requests().len(), requests);
    jwks.say(new().keys());
    jwks.release();
    assert_eq!(verdict.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let jwks = Jwks::new(old().keys()).await;
    let elsewhere = Jwks::new(new().keys()).await;
    let kept = Kept::new(&jwks.url(), OFTEN);
    kept.until_accepted(&old().token()).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}", elsewhere.url());
        jwks.say(new().keys().with_status(status).with_header(&location));
        says(&kept.log, &format!("HTTP status {status}")).await;
        jwks.say(new().keys().with_status(status).with_header("location: /other"));
        jwks.asked_again(2).await;
    }
    assert!(kept.accepts(&old().token()) && !kept.accepts(&new().token()));
    assert!(elsewhere.requests().is_empty());
    let line = format!("GET {PATH} HTTP/1.1");
    assert!(jwks.requests().iter().all(|request| request[0] == line));
}

#[tokio::test]
async fn what_is_no_jwk_set_leaves_the_keys_as_they_are() {
    let jwks = Jwks::new(old().keys()).await;
    let kept = Kept::new(&jwks.url(), OFTEN);
    kept.until_accepted(&old().token()).await;
    let good = json!({ "keys": [new().jwk] }).to_string();
    let with_key = |change: Value| {
        let mut key = new().jwk;
        key.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        Answer::keys(&[key])
    };
    let answers = [
        ("HTTP status 500", new().keys().with_status(500)),
        ("HTTP status 503", new().keys().with_status(503)),
        ("HTTP status 404", new().keys().with_status(404)),
        ("HTTP status 304", Answer::ok("").with_status(304)),
        ("no JWK Set", Answer::ok("")),
        ("no JWK Set", Answer::ok("<!doctype html>")),
        ("no JWK Set", Answer::ok(&good[..good.len() - 1])),
        ("no JWK Set", Answer::ok(format!("{good} {good}"))),
        ("no JWK Set", Answer::ok(new().jwk.to_string())),
        ("no JWK Set", Answer::ok(json!([new().jwk]).to_string())),
        ("none of its 0 keys", Answer::keys(&[])),
        ("none of its 1 keys", with_key(json!({ "kty": "EC" }))),
        ("none of its 1 keys", with_key(json!({ "use": "enc" }))),
        ("none of its 1 keys", with_key(json!({ "alg": "ES256" }))),
        ("none of its 1 keys", with_key(json!({ "x": "AAAA" }))),
        ("more than 100 keys", Answer::keys(&vec![new().jwk; 101])),
        ("error", Answer::nothing()),
        ("error", Answer::cut_short(&good)),
        ("error", Answer::ok(good.clone()).with_header("bad header \u{1}")),
    ];
    for (reason, answer) in answers {
        let warnings = kept.log.count("no JWK Set this time");
        jwks.say(answer);
        // Of two more complaints, the second is about this answer.
        until(reason, || kept.log.count("no JWK Set this time") >= warnings + 2).await;
        let text = kept.log.text();
        let last = text.lines().rfind(|line| line.contains("no JWK Set this time")).unwrap();
        assert!(last.contains("WARN") && last.contains(&jwks.url()), "{last}");
        assert!(last.contains(reason), "{reason}: {last}");
        assert!(kept.accepts(&old().token()) && !kept.accepts(&new().token()), "{reason}");
    }
    jwks.say(Answer::ok(good));
    kept.until_accepted(&new().token()).await;
}

#[tokio::test]
async fn a_jwk_set_has_a_largest_size() {
    let set = json!({ "keys": [old().jwk] }).to_string();
    let max_bytes = set.len() + 100;
    let padded = |bytes: usize| format!("{set:bytes$}");
    let jwks = Jwks::new(Answer::ok(padded(max_bytes))).await;
    let kept = Kept::new(&jwks.url(), Timing { max_bytes, ..OFTEN });
    kept.until_accepted(&old().token()).await;
    let set = json!({ "keys": [new().jwk] }).to_string();
    jwks.say(Answer::ok(format!("{set:length$}", length = max_bytes + 1)));
    says(&kept.log, &format!("it is larger than {max_bytes} bytes")).await;
    // Nor is one without an end waited for.
    let before = kept.log.count("it is larger");
    jwks.say(Answer::endless());
    until("endless ones are given up", || kept.log.count("it is larger") > before + 2).await;
    assert!(kept.accepts(&old().token()) && !kept.accepts(&new().token()));
}

#[tokio::test]
async fn a_slow_server_is_given_up_and_asked_again() {
    let jwks = Jwks::new(old().keys()).await;
    let timing = Timing { timeout: Duration::from_millis(100), ..OFTEN };
    let kept = Kept::new(&jwks.url(), timing);
    kept.until_accepted(&old().token()).await;
    for answer in [Answer::silence(), Answer::stalled(), Answer::dripping()] {
        let before = kept.log.count("it took longer than 100ms");
        jwks.say(answer);
        let given_up = || kept.log.count("it took longer than 100ms") >= before + 2;
        until("it is given up", given_up).await;
        assert!(kept.accepts(&old().token()));
    }
    // A token that waits for keys does not wait longer either.
    assert_eq!(kept.present(new().token()).await, Err("Unknown signing key".into()));
    jwks.say(new().keys());
    kept.until_accepted(&new().token()).await;
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_any_more_are_dropped_when_they_are_too_old() {
    const MAX_AGE: Duration = Duration::from_millis(300);
    let jwks = Jwks::new(old().keys()).await;
    let begin = Instant::now();
    let kept = Kept::new(&jwks.url(), Timing { max_age: MAX_AGE, ..OFTEN });
    kept.until_accepted(&old().token()).await;
    jwks.say(Answer::nothing());
    kept.until_refused(&old().token()).await;
    assert!(begin.elapsed() > MAX_AGE, "they were not too old");
    assert!(kept.ring.keys().keys().is_empty());
    says(&kept.log, "its keys are too old").await;
    // They are back as soon as they can be fetched.
    jwks.say(old().keys());
    kept.until_accepted(&old().token()).await;
}

#[tokio::test]
async fn shared_secrets_in_a_jwk_set_are_ignored() {
    let secret = [7; 32];
    let oct = json!({
        "kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret), "kid": "secret", "alg": "HS256",
    });
    let jwks = Jwks::new(Answer::keys(&[oct, old().jwk])).await;
    let kept = Kept::new(&jwks.url(), ON_DEMAND);
    kept.until_accepted(&old().token()).await;
    let minter = Minter::from_secret(Algorithm::HS256, &secret).unwrap().with_kid("secret");
    assert!(!kept.accepts(&mint(&minter)));
    let algorithms: Vec<Algorithm> =
        kept.ring.keys().keys().iter().map(|key| key.algorithm()).collect();
    assert_eq!(algorithms, [Algorithm::EdDSA]);
    // Nor does a public key serve as a secret.
    let public = URL_SAFE_NO_PAD.decode(old().jwk["x"].as_str().unwrap()).unwrap();
    let minter = Minter::from_secret(Algorithm::HS256, &public).unwrap().with_kid("old");
    assert!(!kept.accepts(&mint(&minter)));
}

#[tokio::test]
async fn two_urls_whose_keys_have_one_name_do_not_mix() {
    let (a, b) = (issuer("ed25519", "k"), issuer("ed25519-other", "k"));
    let [at_a, at_b] = [Jwks::new(a.keys()).await, Jwks::new(b.keys()).await];
    let mut kept = Kept::new(&at_a.url(), OFTEN);
    kept.keep(&at_b.url(), OFTEN);
    kept.until_accepted(&a.token()).await;
    kept.until_accepted(&b.token()).await;
    // One of them fails and the other goes on, with its own keys and no others.
    at_b.say(Answer::nothing());
    at_a.asked_again(3).await;
    assert!(kept.accepts(&a.token()) && kept.accepts(&b.token()));
    at_a.say(issuer("ed25519", "k2").keys());
    kept.until_refused(&a.token()).await;
    assert!(kept.accepts(&b.token()));
    at_b.say(b.keys());
    at_b.asked_again(2).await;
    assert!(kept.accepts(&b.token()) && !kept.accepts(&a.token()));
}

/// A URL may carry a password, and logs are read by many.
#[tokio::test]
async fn a_password_in_the_url_is_used_and_not_logged() {
    let jwks = Jwks::new(old().keys()).await;
    let url = jwks.url().replace("http://", "http://user:hunter2@");
    let kept = Kept::new(&url, OFTEN);
    kept.until_accepted(&old().token()).await;
    let authorization = format!("authorization: Basic {}", STANDARD.encode("user:hunter2"));
    let used = |line: &String| line.eq_ignore_ascii_case(&authorization);
    assert!(jwks.requests()[0].iter().any(used), "{:?}", jwks.requests()[0]);
    jwks.say(Answer::nothing());
    says(&kept.log, "no JWK Set this time").await;
    let text = kept.log.text();
    let leaks: Vec<&str> = text.lines().filter(|line| line.contains("hunter2")).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    assert!(!format!("{:?}", kept.ring).contains("hunter2"), "{:?}", kept.ring);
}
