//! Tokens of every kind, good and bad, made when they are sent.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use crate::{
    auth::{Algorithm, Minter, shared_secret},
    session::{Token, UnixTime},
};

use super::play::Stop;

/// A token as a case wants it: a good one, and what is different about it.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    claims: Vec<Claim>,
    form: Form,
    words: Vec<String>,
}

#[derive(Clone, Debug)]
enum Claim {
    /// A claim of this name, where the user's claims are.
    Set(String, Value),
    /// A claim at the top level, also where the user's are in a namespace.
    Top(String, Value),
    /// The user, in `sub` and in the older `user_id`.
    User(Value),
    /// The member of the namespace itself.
    Namespace(Value),
    /// What the server wants in this claim, in a list with something else before it.
    Among(String),
    /// So many seconds from now.
    At(String, f64),
    Without(String),
}

/// How the claims become a token.
#[derive(Clone, Debug)]
enum Form {
    Good,
    /// `alg` is `none` and the signature is empty.
    Unsigned,
    /// The same without the second dot.
    TwoSegments,
    /// The good signature of other claims.
    OtherSignature,
    /// No signature, but the header of a signed token.
    Stripped,
    /// Of this algorithm by name, with the good signature of another header.
    Renamed(String),
    /// Signed by HMAC with the server's public key as the secret.
    PublicKeyAsSecret,
    /// More or other header members, signed as it should be where a secret is at hand.
    Header(Vec<(String, Value)>),
    /// A header or payload of these bytes, signed likewise.
    RawHeader(String),
    RawPayload(String),
    /// The good header or the good payload, its text changed, and signed likewise.
    HeaderText(Edit),
    PayloadText(Edit),
    /// Signed with the server's secret by another HMAC, which the header names.
    OtherHash,
    /// Signed as the server does, but with another secret, which the header holds if so.
    OtherSecret {
        in_header: bool,
    },
    /// The good token with another signature, made of its own.
    Signature(fn(Vec<u8>) -> Vec<u8>),
    /// The text of the good token, changed.
    Compact(Edit),
    /// The good token with something before and after it.
    Wrapped(String, String),
    /// This text.
    Text(String),
}

/// What is done to a text.
type Edit = fn(&str) -> String;

impl fmt::Display for TokenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words.is_empty() {
            true => f.write_str("a good token"),
            false => write!(f, "a token {}", self.words.join(", ")),
        }
    }
}

/// A good token, to be changed.
pub fn token() -> TokenSpec {
    TokenSpec::good()
}

impl TokenSpec {
    /// What the server must accept.
    pub fn good() -> TokenSpec {
        TokenSpec { claims: vec![], form: Form::Good, words: vec![] }
    }

    fn claiming(mut self, words: String, claim: Claim) -> TokenSpec {
        self.claims.push(claim);
        self.words.push(words);
        self
    }

    fn formed(mut self, words: impl Into<String>, form: Form) -> TokenSpec {
        self.words.push(words.into());
        TokenSpec { form, ..self }
    }

    /// With this claim, where the user's claims are.
    pub fn claim(self, name: &str, value: Value) -> TokenSpec {
        self.claiming(format!("with {name}: {value}"), Claim::Set(name.into(), value))
    }

    /// With this claim at the top level, also if the user's are in a namespace.
    pub fn top(self, name: &str, value: Value) -> TokenSpec {
        self.claiming(format!("with {name}: {value} at the top"), Claim::Top(name.into(), value))
    }

    /// With what the server wants as `iss` or `aud` in a list, behind something else.
    pub fn among(self, name: &str) -> TokenSpec {
        self.claiming(format!("with the right {name} in a list"), Claim::Among(name.into()))
    }

    /// With this time, in seconds from now.
    pub fn at(self, name: &str, seconds: f64) -> TokenSpec {
        self.claiming(
            format!("with {name} {seconds:+} s from now"),
            Claim::At(name.into(), seconds),
        )
    }

    /// Without this claim.
    pub fn without(self, name: &str) -> TokenSpec {
        self.claiming(format!("without {name}"), Claim::Without(name.into()))
    }

    /// Of this user.
    pub fn of_user(self, user: &str) -> TokenSpec {
        self.named(json!(user))
    }

    /// With this in place of the user, in `sub` and in the older `user_id`.
    pub fn named(self, value: Value) -> TokenSpec {
        self.claiming(format!("whose user is {value}"), Claim::User(value))
    }

    /// Without a user.
    pub fn without_user(self) -> TokenSpec {
        self.without("sub").without("user_id")
    }

    /// With this in place of the namespace's own member.
    pub fn namespace(self, value: Value) -> TokenSpec {
        self.claiming(format!("whose namespace is {value}"), Claim::Namespace(value))
    }

    /// Unsigned.
    pub fn unsigned(self) -> TokenSpec {
        self.formed("that is not signed", Form::Unsigned)
    }

    /// Unsigned, and without the dot before the signature.
    pub fn in_two_segments(self) -> TokenSpec {
        self.formed("that is not signed and has one dot", Form::TwoSegments)
    }

    /// With the signature of another token.
    pub fn with_other_signature(self) -> TokenSpec {
        self.formed("with the signature of another token", Form::OtherSignature)
    }

    /// With the header of a signed token and an empty signature.
    pub fn without_signature(self) -> TokenSpec {
        self.formed("whose signature was taken off", Form::Stripped)
    }

    /// Whose header names another algorithm than it is signed with.
    pub fn renamed(self, algorithm: &str) -> TokenSpec {
        let words = format!("whose header says {algorithm:?}");
        self.formed(words, Form::Renamed(algorithm.into()))
    }

    /// Signed with the server's public key as if it were a shared secret.
    pub fn signed_with_public_key(self) -> TokenSpec {
        let words = "signed by HS256 with the server's public key as the secret";
        self.formed(words, Form::PublicKeyAsSecret)
    }

    /// With this member in its header, under a good signature.
    pub fn header(mut self, name: &str, value: Value) -> TokenSpec {
        self.words.push(format!("with {name}: {value} in its header"));
        let mut members = match self.form {
            Form::Header(members) => members,
            _ => vec![],
        };
        members.push((name.into(), value));
        TokenSpec { form: Form::Header(members), ..self }
    }

    /// With this text in place of its header, under a good signature.
    pub fn raw_header(self, text: &str) -> TokenSpec {
        self.formed(format!("with the header {text:?}"), Form::RawHeader(text.into()))
    }

    /// With this text in place of its claims, under a good signature.
    pub fn raw_payload(self, text: &str) -> TokenSpec {
        self.formed(format!("with the payload {text:?}"), Form::RawPayload(text.into()))
    }

    /// With another text of its header, under a good signature.
    pub fn header_text(self, words: &str, edit: fn(&str) -> String) -> TokenSpec {
        self.formed(format!("in whose header {words}"), Form::HeaderText(edit))
    }

    /// With another text of its claims, under a good signature.
    pub fn payload_text(self, words: &str, edit: fn(&str) -> String) -> TokenSpec {
        self.formed(format!("in whose payload {words}"), Form::PayloadText(edit))
    }

    /// Signed with the right secret by another HMAC than the server's.
    pub fn with_other_hash(self) -> TokenSpec {
        self.formed("signed by another HMAC with the same secret", Form::OtherHash)
    }

    /// Signed with another secret.
    pub fn with_other_secret(self) -> TokenSpec {
        self.formed("signed with another secret", Form::OtherSecret { in_header: false })
    }

    /// Signed with another secret, which is in its header.
    pub fn with_secret_in_header(self) -> TokenSpec {
        let words = "signed with another secret that its header holds as a jwk";
        self.formed(words, Form::OtherSecret { in_header: true })
    }

    /// With another signature, made of the good one.
    pub fn signature(self, words: &str, change: fn(Vec<u8>) -> Vec<u8>) -> TokenSpec {
        self.formed(format!("whose signature {words}"), Form::Signature(change))
    }

    /// With another text, made of the good one.
    pub fn compact(self, words: &str, edit: fn(&str) -> String) -> TokenSpec {
        self.formed(words, Form::Compact(edit))
    }

    /// With text around it.
    pub fn wrapped(self, before: &str, after: &str) -> TokenSpec {
        let words = format!("with {before:?} before and {after:?} after it");
        self.formed(words, Form::Wrapped(before.into(), after.into()))
    }

    /// This text, which is no token.
    pub fn text(self, text: impl Into<String>) -> TokenSpec {
        let text = text.into();
        let words = match text.len() {
            ..60 => format!("that is {text:?}"),
            length => format!("of {length} bytes that is none"),
        };
        self.formed(words, Form::Text(text))
    }

    /// Whether a good token of the server will do.
    fn is_good(&self) -> bool {
        self.claims.is_empty() && matches!(self.form, Form::Good)
    }
}

/// How tokens come about.
pub struct Tokens(Source);

enum Source {
    Key(Box<SigningKey>),
    Fetched(Fetch),
}

type Fetch = Box<dyn Fn() -> BoxFuture<'static, Result<Token, String>> + Send + Sync>;

/// What is needed to make tokens for a server, as its own configuration says it.
pub struct SigningKey {
    /// Signs good tokens: [`Minter::unsigned`] for insecure mode.
    pub minter: Minter,
    /// The algorithm and the shared secret, if it is one that is shared.
    pub secret: Option<(Algorithm, Vec<u8>)>,
    /// The public key as the server has it, if it has one.
    pub public_key: Option<Vec<u8>>,
    /// Where the user's claims are, unless at the top.
    pub namespace: Option<String>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be.
    pub audience: Option<String>,
    /// The wall clock of the server.
    pub clock: fn() -> UnixTime,
}

impl SigningKey {
    /// Makes tokens with this, without namespace, issuer or audience, by the machine's clock.
    pub fn new(minter: Minter) -> SigningKey {
        SigningKey {
            minter,
            secret: None,
            public_key: None,
            namespace: None,
            issuer: None,
            audience: None,
            clock: UnixTime::now,
        }
    }

    /// Makes tokens with `minter` for a server that is configured by these variables, as
    /// [`JwtAuthenticator::from_vars`] reads them, whose errors are not looked for here. Of several
    /// issuers or audiences that it accepts, the first is taken.
    ///
    /// [`JwtAuthenticator::from_vars`]: crate::auth::JwtAuthenticator::from_vars
    pub fn configured(minter: Minter, variable: impl Fn(&str) -> Option<String>) -> SigningKey {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let first = |name: &str| {
            let value = set(name)?;
            let several: Option<Vec<String>> = serde_json::from_str(&value).ok();
            several.and_then(|values| values.into_iter().next()).or(Some(value))
        };
        let secret = shared_secret(&variable);
        let public_key = set("AUTH_JWT_KEY").filter(|_| secret.is_none());
        SigningKey {
            secret,
            public_key: public_key.map(String::into_bytes),
            namespace: set("AUTH_JWT_NAMESPACE"),
            issuer: first("AUTH_JWT_ISS"),
            audience: first("AUTH_JWT_AUD"),
            ..SigningKey::new(minter)
        }
    }
}

/// Why there is no such token for this server.
pub(super) type Unavailable = String;

/// How long good tokens are good, in seconds.
const LIFETIME: i64 = 300;

impl Tokens {
    /// Tokens made with a key that the server trusts, or unsigned ones.
    pub fn made_with(key: SigningKey) -> Tokens {
        Tokens(Source::Key(Box::new(key)))
    }

    /// Tokens that are fetched, each when it is needed. Cases that need others than good ones are
    /// skipped.
    pub fn fetched(
        fetch: impl Fn() -> BoxFuture<'static, Result<Token, String>> + Send + Sync + 'static,
    ) -> Tokens {
        Tokens(Source::Fetched(Box::new(fetch)))
    }

    pub(super) fn key(&self) -> Option<&SigningKey> {
        match &self.0 {
            Source::Key(key) => Some(key),
            Source::Fetched(_) => None,
        }
    }

    /// The text of such a token for a user. A kind that cannot be made is a reason to skip the
    /// case; that no good one can be had is a failure.
    pub(super) async fn make(&self, spec: &TokenSpec, user: &str) -> Result<String, Stop> {
        match (&self.0, &spec.form) {
            (_, Form::Text(text)) => Ok(text.clone()),
            (Source::Key(key), _) => key.make(spec, user).map_err(Stop::Skipped),
            (Source::Fetched(fetch), _) if spec.is_good() => match fetch().await {
                Ok(token) => Ok(token.expose().to_owned()),
                Err(reason) => Err(Stop::Failed(format!("there is no token: {reason}"))),
            },
            (Source::Fetched(_), _) => {
                Err(Stop::Skipped(format!("{spec} cannot be made without a key")))
            }
        }
    }
}

impl SigningKey {
    fn make(&self, spec: &TokenSpec, user: &str) -> Result<String, Unavailable> {
        let claims = self.claims(&spec.claims, user);
        let good = self.mint(&self.minter, &claims)?;
        let (signed, signature) = good.rsplit_once('.').unwrap_or((&good, ""));
        let (header, payload) = signed.split_once('.').unwrap_or((signed, ""));
        Ok(match &spec.form {
            Form::Good => good,
            Form::Text(text) => text.clone(),
            Form::Wrapped(before, after) => format!("{before}{good}{after}"),
            Form::Unsigned => self.mint(&Minter::unsigned(), &claims)?,
            Form::TwoSegments => {
                let unsigned = self.mint(&Minter::unsigned(), &claims)?;
                unsigned.trim_end_matches('.').to_owned()
            }
            Form::Stripped => format!("{signed}."),
            Form::OtherSignature => {
                let mut other = claims.clone();
                other.insert("jti".into(), json!("another token"));
                let other = self.mint(&self.minter, &other)?;
                let (_, other) = other.rsplit_once('.').unwrap_or_default();
                if other.is_empty() {
                    return Err("nothing is signed in insecure mode".into());
                }
                format!("{signed}.{other}")
            }
            Form::Renamed(algorithm) => {
                let header = json!({ "alg": algorithm, "typ": "JWT" }).to_string();
                format!("{}.{payload}.{signature}", encoded(&header))
            }
            Form::PublicKeyAsSecret => {
                let key = self.public_key.as_ref().ok_or("the server's key is not public")?;
                let header = encoded(&json!({ "alg": "HS256", "typ": "JWT" }).to_string());
                let signed = format!("{header}.{payload}");
                let signature = hmac(hmac::HMAC_SHA256, key, &signed);
                format!("{signed}.{signature}")
            }
            Form::Header(members) => {
                let mut fields = Map::new();
                let algorithm = self.minter.algorithm().map_or("none", Algorithm::as_str);
                fields.insert("alg".into(), json!(algorithm));
                fields.extend(members.iter().cloned());
                fields.retain(|_, value| !value.is_null());
                self.sign(&encoded(&Value::Object(fields).to_string()), payload)?
            }
            Form::RawHeader(text) => self.sign(&encoded(text), payload)?,
            Form::RawPayload(text) => self.sign(header, &encoded(text))?,
            Form::HeaderText(edit) => self.sign(&encoded(&edit(&decoded(header)?)), payload)?,
            Form::PayloadText(edit) => self.sign(header, &encoded(&edit(&decoded(payload)?)))?,
            Form::OtherHash => {
                let (algorithm, secret) = self.shared()?;
                let other = match algorithm {
                    Algorithm::HS256 => Algorithm::HS384,
                    Algorithm::HS384 => Algorithm::HS512,
                    _ => Algorithm::HS256,
                };
                let header = json!({ "alg": other.as_str(), "typ": "JWT" }).to_string();
                signed_by(hash(other), secret, &format!("{}.{payload}", encoded(&header)))
            }
            Form::OtherSecret { in_header } => {
                let (algorithm, secret) = self.shared()?;
                let other: Vec<u8> = secret.iter().map(|byte| byte ^ 0x2a).collect();
                let mut fields = json!({ "alg": algorithm.as_str(), "typ": "JWT" });
                if *in_header {
                    fields["jwk"] = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(&other) });
                }
                let signed = format!("{}.{payload}", encoded(&fields.to_string()));
                signed_by(hash(*algorithm), &other, &signed)
            }
            Form::Signature(change) => {
                let bytes = URL_SAFE_NO_PAD.decode(signature).map_err(|error| error.to_string())?;
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode(change(bytes)))
            }
            Form::Compact(edit) => edit(&good),
        })
    }

    fn claims(&self, changes: &[Claim], user: &str) -> Map<String, Value> {
        let now = (self.clock)().as_secs();
        let mut own = Map::new();
        // The older claim too: servers before 0.9 know no other.
        for name in USER_CLAIMS {
            own.insert(name.into(), json!(user));
        }
        let mut top = Map::new();
        // Servers before 0.9 refuse what was issued this very second.
        top.insert("iat".into(), json!(now - 5));
        top.insert("exp".into(), json!(now + LIFETIME));
        top.insert("jti".into(), json!(uuid::Uuid::new_v4().to_string()));
        for (name, value) in [("iss", &self.issuer), ("aud", &self.audience)] {
            if let Some(value) = value {
                top.insert(name.into(), json!(value));
            }
        }
        for change in changes {
            match change {
                Claim::Set(name, value) => {
                    let standard = top.contains_key(name) || STANDARD.contains(&name.as_str());
                    let target = if standard { &mut top } else { &mut own };
                    target.insert(name.clone(), value.clone());
                }
                Claim::Top(name, value) => {
                    top.insert(name.clone(), value.clone());
                }
                Claim::User(value) => {
                    for name in USER_CLAIMS {
                        own.insert(name.into(), value.clone());
                    }
                }
                Claim::Namespace(value) => {
                    if let Some(namespace) = &self.namespace {
                        top.insert(namespace.clone(), value.clone());
                    }
                }
                Claim::Among(name) => {
                    let value = top.get(name).cloned().unwrap_or_default();
                    top.insert(name.clone(), json!(["https://example.org/other", value]));
                }
                Claim::At(name, seconds) => {
                    let time = now as f64 + seconds;
                    let time = if time.fract() == 0.0 { json!(time as i64) } else { json!(time) };
                    top.insert(name.clone(), time);
                }
                Claim::Without(name) => {
                    top.remove(name);
                    own.remove(name);
                }
            }
        }
        match &self.namespace {
            // What is said of the namespace itself stands.
            Some(namespace) if top.contains_key(namespace) => {}
            Some(namespace) => {
                top.insert(namespace.clone(), Value::Object(own));
            }
            None => own.into_iter().for_each(|(name, value)| {
                top.entry(name).or_insert(value);
            }),
        }
        top
    }

    fn mint(&self, minter: &Minter, claims: &Map<String, Value>) -> Result<String, Unavailable> {
        let token = minter.mint(claims).map_err(|error| error.to_string())?;
        Ok(token.expose().to_owned())
    }

    /// Signs a header and a payload as they are, which takes a shared secret; nothing is signed in
    /// insecure mode.
    fn sign(&self, header: &str, payload: &str) -> Result<String, Unavailable> {
        let signed = format!("{header}.{payload}");
        if self.minter.algorithm().is_none() {
            return Ok(signed + ".");
        }
        let (algorithm, secret) = self.shared()?;
        Ok(signed_by(hash(*algorithm), secret, &signed))
    }

    fn shared(&self) -> Result<&(Algorithm, Vec<u8>), Unavailable> {
        Ok(self.secret.as_ref().ok_or("only a shared secret signs what is no token")?)
    }
}

/// The claims that name the user.
const USER_CLAIMS: [&str; 2] = ["sub", "user_id"];

/// The claims of RFC 7519 that are at the top level in every token.
const STANDARD: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

fn encoded(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn decoded(segment: &str) -> Result<String, Unavailable> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn hash(algorithm: Algorithm) -> hmac::Algorithm {
    match algorithm {
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

fn signed_by(algorithm: hmac::Algorithm, key: &[u8], signed: &str) -> String {
    format!("{signed}.{}", hmac(algorithm, key, signed))
}

fn hmac(algorithm: hmac::Algorithm, key: &[u8], signed: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(algorithm, key), signed.as_bytes());
    URL_SAFE_NO_PAD.encode(tag)
}
