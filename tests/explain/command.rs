//! `satellite token --inspect`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use electric_satellite::{
    auth::{Algorithm, Minter},
    session::{Token, UnixTime},
};
use serde_json::json;

use crate::{OTHER, SECRET, key, other_key};

const SECURE: &[(&str, &str)] =
    &[("AUTH_JWT_ALG", "HS256"), ("AUTH_JWT_KEY", "the quick brown fox jumps over i")];

/// What the command says, and how it ends.
struct Said {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

impl Said {
    /// The line about this subject.
    fn line(&self, subject: &str) -> &str {
        let is_about = |line: &&str| line.split_whitespace().nth(1) == Some(subject);
        self.stdout.lines().find(is_about).unwrap_or_else(|| panic!("{subject}: {}", self.stdout))
    }

    fn verdict(&self) -> &str {
        self.stdout.lines().last().expect("a verdict")
    }
}

/// Runs `satellite token --inspect` with these variables and no others.
fn inspect(variables: &[(&str, &str)], argument: &str, stdin: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_satellite"))
        .args(["token", "--inspect", argument])
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // It may end without having read this.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let said = Said {
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        code: output.status.code(),
    };
    for secret in [SECRET, OTHER] {
        let secret = std::str::from_utf8(secret).unwrap();
        assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret));
    }
    said
}

/// The same for a token, whose signature is not shown.
fn inspect_token(variables: &[(&str, &str)], token: &Token) -> Said {
    let said = inspect(variables, token.expose(), "");
    let signature = token.expose().rsplit('.').next().unwrap();
    if !signature.is_empty() {
        assert!(!said.stdout.contains(signature) && !said.stderr.contains(signature));
    }
    said
}

/// A token whose times are so many seconds from now.
fn token(secret: &[u8], iat: i64, exp: i64) -> Token {
    let now = UnixTime::now().as_secs();
    let claims = json!({ "sub": "u", "iat": now + iat, "exp": now + exp });
    Minter::from_secret(Algorithm::HS256, secret).unwrap().mint(&claims).unwrap()
}

#[test]
fn a_good_token_ends_with_0() {
    let said = inspect_token(SECURE, &token(SECRET, 0, 600));
    assert_eq!(said.verdict(), r#"ok   verdict    accepted, for user "u""#);
    assert_eq!(said.line("signature"), "ok   signature  by a configured key");
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_token_is_read_from_standard_input_with_white_space_around_it() {
    let token = token(SECRET, 0, 600);
    let said = inspect(SECURE, "-", &format!("\n {} \r\n", token.expose()));
    assert_eq!(said.code, Some(0), "{}", said.stdout);
    let said = inspect(SECURE, "-", " \n");
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    assert_eq!(said.stderr, "the token is empty\n");
}

#[test]
fn a_refused_token_ends_with_1_and_says_what_fails() {
    let said = inspect_token(SECURE, &token(SECRET, -700, -600));
    assert_eq!(said.code, Some(1));
    assert_eq!(said.verdict(), "FAIL verdict    Expired token");
    let exp = said.line("exp");
    // The clock goes on while the command starts.
    assert!(exp.starts_with("FAIL") && exp.ends_with("s beyond the leeway of 2 s)"), "{exp}");
    let beyond = exp.split(", ").nth(1).unwrap().split(' ').next().unwrap();
    assert!((598..700).contains(&beyond.parse::<i64>().unwrap()), "{exp}");

    let said = inspect_token(SECURE, &token(SECRET, 600, 700));
    assert_eq!(said.code, Some(1));
    assert!(said.line("iat").starts_with("FAIL"), "{}", said.stdout);

    let said = inspect_token(SECURE, &token(OTHER, 0, 600));
    assert_eq!(said.code, Some(1));
    assert_eq!(said.verdict(), "FAIL verdict    Invalid token signature");
    let signature = said.line("signature");
    assert!(signature.contains(key().fingerprint()), "{signature}");
    assert!(!signature.contains(other_key().fingerprint()), "{signature}");
}

#[test]
fn the_rules_are_those_of_the_variables() {
    let token = token(SECRET, 0, 600);
    for (variable, value, subject) in [
        ("AUTH_JWT_ISS", "issuer", "iss"),
        ("AUTH_JWT_AUD", "audience", "aud"),
        ("AUTH_JWT_ONE_OFF", "10", "jti"),
    ] {
        let said = inspect_token(&[SECURE, &[(variable, value)]].concat(), &token);
        assert_eq!(said.code, Some(1));
        assert!(said.line(subject).starts_with("FAIL"), "{}", said.stdout);
    }
    let said = inspect_token(&[SECURE, &[("AUTH_JWT_NAMESPACE", "ns")]].concat(), &token);
    assert_eq!(said.verdict(), "FAIL verdict    Missing or invalid 'user_id'");
    let said = inspect_token(&[("AUTH_MODE", "insecure")], &token);
    assert_eq!(said.code, Some(0));
    assert_eq!(said.line("signature"), "-    signature  not looked at in insecure mode");
}

#[test]
fn garbage_ends_with_1_and_is_explained() {
    for garbage in ["a", "a.b.c", "....", "\u{1b}[31m.x.y", "eyJhbGciOiJub25lIn0.e30."] {
        let said = inspect(SECURE, garbage, "");
        assert_eq!(said.code, Some(1), "{garbage}");
        assert!(said.verdict().starts_with("FAIL verdict"), "{}", said.stdout);
        assert_eq!(said.stderr, "");
        assert!(!said.stdout.contains('\u{1b}'));
    }
}

#[test]
fn without_a_configuration_there_is_no_verdict() {
    let said = inspect(&[], token(SECRET, 0, 600).expose(), "");
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    assert!(said.stderr.contains("AUTH_JWT_ALG not set"), "{}", said.stderr);
    // A key that is too short is not shown either.
    let short = [("AUTH_JWT_ALG", "HS256"), ("AUTH_JWT_KEY", "shortsecret")];
    let said = inspect(&short, "a.b.c", "");
    assert_eq!(said.code, Some(1));
    assert!(!said.stderr.contains("shortsecret"), "{}", said.stderr);
}

#[test]
fn a_wrong_use_ends_with_2() {
    let output = Command::new(env!("CARGO_BIN_EXE_satellite"))
        .args(["token", "--inspect"])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// The keys of a service may come from a URL; whoever inspects a token for it needs them too.
#[cfg(feature = "jwks-http")]
#[test]
fn keys_from_a_url_are_fetched_for_the_inspection() {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
    };

    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };

    let public: String = include_str!("../corpus/keys/ed25519.pub.pem")
        .lines()
        .filter(|line| !line.starts_with("--"))
        .collect();
    let public = STANDARD.decode(public).unwrap();
    // The key is the end of it (RFC 8410 §4).
    let x = URL_SAFE_NO_PAD.encode(&public[public.len() - 32..]);
    let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // Ends with the test.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
            let _ = write!(reader.get_mut(), "{head}: {}\r\n\r\n{keys}", keys.len());
        }
    });
    let private = include_bytes!("../corpus/keys/ed25519.key.pem");
    let now = UnixTime::now().as_secs();
    let claims = json!({ "sub": "u", "iat": now, "exp": now + 600 });
    let token = Minter::from_pem(Algorithm::EdDSA, private).unwrap().mint(&claims).unwrap();
    let variables = [("AUTH_JWT_ALG", "EdDSA"), ("AUTH_JWT_JWKS_URL", url.as_str())];
    let said = inspect_token(&variables, &token);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}
