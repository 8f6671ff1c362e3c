//! Keys in PEM and as JWK: which forms are read, which keys are refused, and that each private key
//! signs for its public key and for no other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use electric_satellite::{
    auth::{
        Algorithm::{self, *},
        ClaimRules, JwtAuthenticator, Key, KeyError, KeySet, Minter,
    },
    session::{Token, UnixTime},
};
use serde_json::{Value, json};

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

const RSA: &[Algorithm] = &[RS256, RS384, RS512, PS256, PS384, PS512];

/// A file, whose key it holds, and what that is good for.
struct File {
    name: &'static str,
    key: &'static str,
    algorithms: &'static [Algorithm],
}

const fn file(name: &'static str, key: &'static str, algorithms: &'static [Algorithm]) -> File {
    File { name, key, algorithms }
}

/// Everything that verifies.
const PUBLIC: &[File] = &[
    // SPKI.
    file("rsa2048.pub.pem", "rsa2048", RSA),
    file("rsa2048-other.pub.pem", "rsa2048-other", RSA),
    file("rsa3072.pub.pem", "rsa3072", RSA),
    file("rsa4096.pub.pem", "rsa4096", RSA),
    file("p256.pub.pem", "p256", &[ES256]),
    file("p256-compressed.pub.pem", "p256", &[ES256]),
    file("p256-other.pub.pem", "p256-other", &[ES256]),
    file("p384.pub.pem", "p384", &[ES384]),
    file("p384-other.pub.pem", "p384-other", &[ES384]),
    file("p521.pub.pem", "p521", &[ES512]),
    file("p521-other.pub.pem", "p521-other", &[ES512]),
    file("ed25519.pub.pem", "ed25519", &[EdDSA]),
    file("ed25519-other.pub.pem", "ed25519-other", &[EdDSA]),
    file("electric-es256.pub.pem", "electric-es256", &[ES256]),
    file("electric-rs256.pub.pem", "electric-rs256", RSA),
    // PKCS#1.
    file("rsa2048.pkcs1.pub.pem", "rsa2048", RSA),
    // X.509 certificates.
    file("rsa2048.cert.pem", "rsa2048", RSA),
    file("rsa2048-by-p256.cert.pem", "rsa2048", RSA),
    file("p256.cert.pem", "p256", &[ES256]),
    file("p256-by-rsa.cert.pem", "p256", &[ES256]),
    file("p384.cert.pem", "p384", &[ES384]),
    file("p521.cert.pem", "p521", &[ES512]),
    file("ed25519.cert.pem", "ed25519", &[EdDSA]),
    file("ed25519-by-rsa.cert.pem", "ed25519", &[EdDSA]),
];

/// Certificates with the signature of an Ed25519 key.
const BY_ED25519: &[File] = &[
    file("p256-by-ed25519.cert.pem", "p256", &[ES256]),
    file("rsa2048-by-ed25519.cert.pem", "rsa2048", RSA),
];

/// Everything that signs.
const PRIVATE: &[File] = &[
    // PKCS#8.
    file("rsa2048.key.pem", "rsa2048", RSA),
    file("rsa2048-other.key.pem", "rsa2048-other", RSA),
    file("rsa3072.key.pem", "rsa3072", RSA),
    file("rsa4096.key.pem", "rsa4096", RSA),
    file("p256.key.pem", "p256", &[ES256]),
    file("p256-other.key.pem", "p256-other", &[ES256]),
    file("p384.key.pem", "p384", &[ES384]),
    file("p384-other.key.pem", "p384-other", &[ES384]),
    file("p521.key.pem", "p521", &[ES512]),
    file("p521-other.key.pem", "p521-other", &[ES512]),
    file("ed25519.key.pem", "ed25519", &[EdDSA]),
    file("ed25519-other.key.pem", "ed25519-other", &[EdDSA]),
    // PKCS#1.
    file("rsa2048.pkcs1.key.pem", "rsa2048", RSA),
];

/// RSA keys below 2048 bits.
const SHORT: &[&str] = &[
    "rsa1024.cert.pem",
    "rsa1024.key.pem",
    "rsa1024.pkcs1.key.pem",
    "rsa1024.pkcs1.pub.pem",
    "rsa1024.pub.pem",
    "rsa2047.cert.pem",
    "rsa2047.key.pem",
    "rsa2047.pkcs1.key.pem",
    "rsa2047.pkcs1.pub.pem",
    "rsa2047.pub.pem",
];

/// What is good for nothing here.
const USELESS: &[&str] = &[
    // Other curves.
    "brainpool256.key.pem",
    "brainpool256.pub.pem",
    "ed448.key.pem",
    "ed448.pub.pem",
    "secp256k1.key.pem",
    "secp256k1.pub.pem",
    // Other kinds of keys, and no key.
    "dsa.key.pem",
    "dsa.pub.pem",
    "rsa-pss.key.pem",
    "rsa-pss.pub.pem",
    "rsa2048.request.pem",
    "x25519.key.pem",
    "x25519.pub.pem",
    // Other forms of private keys.
    "p256-encrypted.key.pem",
    "p256.sec1.key.pem",
    "p384.sec1.key.pem",
    "p521.sec1.key.pem",
    "rsa2048-encrypted.key.pem",
];

/// The folders that hold the files.
const FOLDERS: [&str; 2] = ["tests/corpus/keys", "tests/keys"];

#[test]
fn a_public_key_is_read_in_every_form_and_for_its_algorithms_alone() {
    assert_read(PUBLIC, |algorithm, pem| Key::from_pem(algorithm, pem).map(drop));
}

#[test]
fn a_certificate_is_read_whoever_signed_it() {
    assert_read(BY_ED25519, |algorithm, pem| Key::from_pem(algorithm, pem).map(drop));
}

#[test]
fn a_private_key_is_read_in_every_form_and_for_its_algorithms_alone() {
    assert_read(PRIVATE, |algorithm, pem| Minter::from_pem(algorithm, pem).map(drop));
}

#[test]
fn a_private_key_verifies_nothing_and_a_public_key_signs_nothing() {
    for file in PRIVATE {
        assert_no_key(file.name, &read(file.name));
    }
    for file in PUBLIC.iter().chain(BY_ED25519) {
        assert_no_minter(file.name, &read(file.name));
    }
}

#[test]
fn other_keys_are_refused() {
    for name in USELESS {
        assert_refused(name, &read(name));
    }
}

#[test]
fn an_rsa_key_below_2048_bits_is_refused() {
    for name in SHORT {
        assert_refused(name, &read(name));
    }
}

#[test]
fn no_file_is_forgotten() {
    let found: BTreeSet<String> = FOLDERS
        .into_iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".pem"))
        .collect();
    let files = [PUBLIC, BY_ED25519, PRIVATE].into_iter().flatten().map(|file| file.name);
    let listed = files.chain([SHORT, USELESS].into_iter().flatten().copied());
    assert_eq!(found, listed.map(str::to_owned).collect());
}

#[test]
fn each_private_key_signs_for_its_public_key_and_for_no_other() {
    let minters: Vec<(&File, Algorithm, Minter)> = each_algorithm(PRIVATE)
        .map(|(file, algorithm)| (file, algorithm, minter(file.name, algorithm)))
        .collect();
    let authenticators: Vec<(&File, Algorithm, JwtAuthenticator)> = each_algorithm(PUBLIC)
        .map(|(file, algorithm)| (file, algorithm, authenticator(file.name, algorithm)))
        .collect();
    for (private, signed_by, minter) in &minters {
        let token = token(minter);
        for (public, verified_by, authenticator) in &authenticators {
            let matching = private.key == public.key && signed_by == verified_by;
            assert_eq!(
                authenticator.verify(&token, NOW).is_ok(),
                matching,
                "{} with {signed_by} for {} with {verified_by}",
                private.name,
                public.name,
            );
        }
    }
}

#[test]
fn a_key_has_one_fingerprint_in_all_its_forms() {
    let fingerprint = |name: &str, algorithm: Algorithm| {
        Key::from_pem(algorithm, &read(name)).unwrap().fingerprint().to_owned()
    };
    for (one, other, algorithm) in [
        ("rsa2048.pub.pem", "rsa2048.pkcs1.pub.pem", RS256),
        ("rsa2048.pub.pem", "rsa2048.cert.pem", PS512),
        ("p256.pub.pem", "p256.cert.pem", ES256),
        ("p384.pub.pem", "p384.cert.pem", ES384),
        ("p521.pub.pem", "p521.cert.pem", ES512),
        ("ed25519.pub.pem", "ed25519-by-rsa.cert.pem", EdDSA),
    ] {
        assert_eq!(fingerprint(one, algorithm), fingerprint(other, algorithm), "{one}, {other}");
    }
    let all: BTreeSet<String> =
        PUBLIC.iter().map(|file| fingerprint(file.name, file.algorithms[0])).collect();
    let keys: BTreeSet<&str> = PUBLIC.iter().map(|file| file.key).collect();
    assert!(all.len() >= keys.len(), "different keys have different fingerprints");
}

/// A public key of the corpus as a JWK.
struct AsJwk {
    key: &'static str,
    algorithms: &'static [Algorithm],
    jwk: Value,
}

/// One of each kind and size, with its private key in the corpus.
fn as_jwk() -> Vec<AsJwk> {
    let spki = |key: &str| der(&text(&format!("{key}.pub.pem")));
    let last = |der: &[u8], length: usize| URL_SAFE_NO_PAD.encode(&der[der.len() - length..]);
    let rsa = |key: &'static str, bits: usize| {
        let spki = spki(key);
        // The modulus, and the exponent 65537 in DER.
        let (modulus, exponent) = spki.split_at(spki.len() - 5);
        let jwk = json!({ "kty": "RSA", "n": last(modulus, bits / 8), "e": last(exponent, 3) });
        AsJwk { key, algorithms: RSA, jwk }
    };
    let ec = |key: &'static str, crv: &str, length: usize, algorithms: &'static [Algorithm]| {
        let spki = spki(key);
        let (x, y) = spki.split_at(spki.len() - length);
        let jwk = json!({ "kty": "EC", "crv": crv, "x": last(x, length), "y": last(y, length) });
        AsJwk { key, algorithms, jwk }
    };
    let ed = |key: &'static str| {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": last(&spki(key), 32) });
        AsJwk { key, algorithms: &[EdDSA], jwk }
    };
    vec![
        rsa("rsa2048", 2048),
        rsa("rsa2048-other", 2048),
        rsa("rsa4096", 4096),
        ec("p256", "P-256", 32, &[ES256]),
        ec("p256-other", "P-256", 32, &[ES256]),
        ec("p384", "P-384", 48, &[ES384]),
        ec("p521", "P-521", 66, &[ES512]),
        ed("ed25519"),
        ed("ed25519-other"),
    ]
}

/// The one key of a JWK Set that can be used with this algorithm, if it can.
fn key_of(algorithm: Algorithm, jwk: &Value) -> Option<Key> {
    let set = json!({ "keys": [jwk] }).to_string();
    let keys = KeySet::from_jwks(&[algorithm], set.as_bytes()).ok()?;
    let [key] = keys.keys() else { panic!("one JWK and one algorithm are one key") };
    Some(key.clone())
}

#[test]
fn a_jwk_is_read_for_its_algorithms_alone_and_verifies_as_the_same_key_in_pem() {
    let jwks = as_jwk();
    for AsJwk { key, algorithms, jwk } in &jwks {
        for algorithm in Algorithm::ALL.iter().copied() {
            let Some(read) = key_of(algorithm, jwk) else {
                assert!(!algorithms.contains(&algorithm), "{key} is none for {algorithm}");
                continue;
            };
            assert!(algorithms.contains(&algorithm), "{key} is one for {algorithm}");
            let file = text(&format!("{key}.pub.pem"));
            let pem = Key::from_pem(algorithm, file.as_bytes()).unwrap();
            assert_eq!(read.fingerprint(), pem.fingerprint(), "{key} for {algorithm}");
            let digest = digest::digest(&digest::SHA256, &der(&file));
            let first = u32::from_be_bytes(digest.as_ref()[..4].try_into().unwrap());
            assert_eq!(read.fingerprint(), format!("{first:08x}"), "{key}");
            let authenticator = JwtAuthenticator::secure(read, ClaimRules::default());
            for signer in jwks.iter().filter(|signer| signer.algorithms.contains(&algorithm)) {
                let token = token(&minter(&format!("{}.key.pem", signer.key), algorithm));
                let good = authenticator.verify(&token, NOW).is_ok();
                assert_eq!(good, signer.key == *key, "{} for {key} with {algorithm}", signer.key);
            }
        }
    }
}

#[test]
fn a_jwk_that_is_not_what_it_says_is_refused() {
    let with = |jwk: &Value, member: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[member] = value;
        jwk
    };
    let bytes =
        |jwk: &Value, member: &str| URL_SAFE_NO_PAD.decode(jwk[member].as_str().unwrap()).unwrap();
    let encoded = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
    for AsJwk { key, algorithms, jwk } in as_jwk() {
        let members: Vec<&String> = jwk.as_object().unwrap().keys().collect();
        let mut bad: Vec<Value> = vec![];
        for member in &members {
            bad.push(with(&jwk, member, Value::Null));
            bad.push(with(&jwk, member, json!("")));
        }
        for kty in ["RSA", "EC", "OKP", "oct"] {
            bad.extend((jwk["kty"] != kty).then(|| with(&jwk, "kty", json!(kty))));
        }
        if members.iter().any(|member| *member == "crv") {
            for crv in ["P-256", "P-384", "P-521", "Ed25519", "p-256"] {
                bad.extend((jwk["crv"] != crv).then(|| with(&jwk, "crv", json!(crv))));
            }
            let x = bytes(&jwk, "x");
            bad.push(with(&jwk, "x", encoded(&x[1..])));
            bad.push(with(&jwk, "x", encoded(&[&[0], &x[..]].concat())));
        }
        if members.iter().any(|member| *member == "y") {
            let (x, mut y) = (bytes(&jwk, "x"), bytes(&jwk, "y"));
            // As many bytes, divided otherwise.
            let shorter = with(&jwk, "x", encoded(&x[..x.len() - 1]));
            let longer = encoded(&[&x[x.len() - 1..], &y[..]].concat());
            bad.push(with(&shorter, "y", longer));
            // Off the curve.
            *y.last_mut().unwrap() ^= 1;
            bad.push(with(&jwk, "y", encoded(&y)));
        }
        for jwk in bad {
            for &algorithm in algorithms {
                assert!(key_of(algorithm, &jwk).is_none(), "{key} with {algorithm}: {jwk}");
            }
        }
    }
}

#[test]
fn a_secret_has_the_length_of_its_hash_and_public_algorithms_take_none() {
    for (algorithm, least) in [(HS256, 32), (HS384, 48), (HS512, 64)] {
        let secret = vec![1; least];
        assert!(Key::from_secret(algorithm, &secret).is_ok());
        assert!(Minter::from_secret(algorithm, &secret).is_ok());
        let short = Some(KeyError::TooShort { algorithm });
        for length in [0, 1, least - 1] {
            assert_eq!(Key::from_secret(algorithm, &secret[..length]).err(), short);
            assert_eq!(Minter::from_secret(algorithm, &secret[..length]).err(), short);
        }
    }
    for algorithm in Algorithm::ALL.iter().copied().filter(|algorithm| !algorithm.is_symmetric()) {
        let invalid = Some(KeyError::Invalid { algorithm });
        assert_eq!(Key::from_secret(algorithm, &[1; 64]).err(), invalid);
        assert_eq!(Minter::from_secret(algorithm, &[1; 64]).err(), invalid);
    }
}

#[test]
fn a_minter_is_shown_by_its_algorithm_and_not_by_its_key() {
    assert_eq!(format!("{:?}", Minter::unsigned()), "Minter(none)");
    let secret = Minter::from_secret(HS256, &[7; 32]).unwrap().with_kid("a");
    assert_eq!(format!("{secret:?}"), "Minter(HS256)");
    for (_, private, algorithm) in KINDS {
        assert_eq!(format!("{:?}", minter(private, algorithm)), format!("Minter({algorithm})"));
    }
}

/// A public and a private file for each kind of key.
const KINDS: [(&str, &str, Algorithm); 5] = [
    ("rsa2048.pub.pem", "rsa2048.key.pem", RS256),
    ("p256.pub.pem", "p256.key.pem", ES256),
    ("p384.cert.pem", "p384.key.pem", ES384),
    ("p521.pub.pem", "p521.key.pem", ES512),
    ("ed25519.pub.pem", "ed25519.key.pem", EdDSA),
];

#[test]
fn line_ends_of_any_system_are_read() {
    let forms: [fn(&str) -> String; 4] = [
        |pem| pem.replace('\n', "\r\n"),
        |pem| pem.trim_end().to_owned(),
        |pem| format!("\n\n{pem}\n\n"),
        // Where a variable cannot hold line breaks.
        |pem| pem.replace('\n', " "),
    ];
    for (public, private, algorithm) in KINDS {
        for form in forms {
            let public = form(&text(public));
            let private = form(&text(private));
            let minter = Minter::from_pem(algorithm, private.as_bytes()).expect(&private);
            let key = Key::from_pem(algorithm, public.as_bytes()).expect(&public);
            let authenticator = JwtAuthenticator::secure(key, ClaimRules::default());
            assert!(authenticator.verify(&token(&minter), NOW).is_ok(), "{public:?}");
        }
    }
}

#[test]
fn what_is_no_pem_is_refused() {
    let without_first_line = |pem: &str| pem.split_once('\n').unwrap().1.to_owned();
    let forms: [fn(&str) -> String; 9] = [
        |pem| pem[1..].to_owned(),
        |pem| pem.lines().filter(|line| !line.starts_with('-')).collect(),
        |pem| pem.lines().enumerate().filter(|(at, _)| *at != 1).map(|(_, line)| line).collect(),
        |pem| pem.replace('\n', "\\n"),
        |pem| pem.replacen('M', "?M", 1),
        |pem| pem.replace("-----BEGIN", "-----BEGIN A"),
        |pem| pem.replace("BEGIN ", "BEGIN A ").replace("END ", "END A "),
        |pem| pem.to_lowercase(),
        |pem| STANDARD.encode(pem),
    ];
    for (public, private, _) in KINDS {
        for pem in [text(public), text(private)] {
            for form in forms {
                assert_refused(&form(&pem), form(&pem).as_bytes());
            }
            assert_refused("no first line", without_first_line(&pem).as_bytes());
            assert_refused("DER", &der(&pem));
        }
    }
    let label = |body: &[u8]| pem("PUBLIC KEY", body);
    for garbage in [
        "",
        " ",
        "-",
        "garbage",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----",
        &label(b""),
        &label(b"garbage"),
        &label(&[0x30, 0]),
        &label(&[0x30, 0x80]),
        &label(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        &label(&[0xff; 300]),
    ] {
        assert_refused(garbage, garbage.as_bytes());
    }
    assert_refused("no UTF-8", &[0xff; 300]);
}

#[test]
fn no_beginning_of_a_pem_is_read() {
    for (public, private, _) in KINDS {
        for pem in [text(public), text(private)] {
            for length in 0..pem.trim_end().len() {
                assert_refused(&pem[..length], &pem.as_bytes()[..length]);
            }
        }
    }
}

#[test]
fn several_keys_in_one_text_are_refused() {
    let (public, other) = (text("p256.pub.pem"), text("p256-other.pub.pem"));
    let private = text("p256.key.pem");
    for several in [
        format!("{public}{other}"),
        format!("{public}{public}"),
        format!("{public}{private}"),
        format!("{private}{public}"),
        format!("{private}{private}"),
        format!("{}{}", text("p256.cert.pem"), text("p384.cert.pem")),
        format!("{}{}", text("rsa2048.pub.pem"), text("rsa2048-other.pub.pem")),
        format!("{}{}", text("ed25519.pub.pem"), text("p256.pub.pem")),
    ] {
        assert_refused(&several, several.as_bytes());
    }
}

/// As RFC 7468, section 2, allows: tools put explanations there.
#[test]
fn text_around_a_key_is_passed_over() {
    for (public, private, algorithm) in KINDS {
        for (before, behind) in [("text\n", ""), ("", "text\n"), ("subject=/CN=x\n", "\n\n")] {
            let around = |name: &str| format!("{before}{}{behind}", text(name));
            let fingerprint = |pem: &str| {
                Key::from_pem(algorithm, pem.as_bytes()).map(|key| key.fingerprint().to_owned())
            };
            assert_eq!(fingerprint(&around(public)), fingerprint(&text(public)));
            assert!(Minter::from_pem(algorithm, around(private).as_bytes()).is_ok());
        }
    }
}

#[test]
fn a_key_in_pem_is_no_shared_secret() {
    for (public, private, _) in KINDS {
        for algorithm in [HS256, HS384, HS512] {
            for pem in [text(public), format!("\n {}", text(private))] {
                let error = Key::from_secret(algorithm, pem.as_bytes()).unwrap_err();
                assert_eq!(error, KeyError::NotASecret { algorithm });
            }
        }
    }
}

#[test]
fn a_point_that_is_not_on_the_curve_is_refused() {
    for name in ["p256.pub.pem", "p384.pub.pem", "p521.pub.pem"] {
        let mut spki = der(&text(name));
        *spki.last_mut().unwrap() ^= 1;
        assert_refused(name, pem("PUBLIC KEY", &spki).as_bytes());
    }
    // Infinity, which is one byte.
    let spki = der(&text("p256.pub.pem"));
    let algorithm = &spki[2..][..21];
    let infinity = sequence(&[algorithm, &tagged(3, &[0, 0])]);
    assert_refused("infinity", pem("PUBLIC KEY", &infinity).as_bytes());
}

#[test]
fn a_key_that_names_another_curve_than_that_of_its_point_is_refused() {
    // The last byte of the names prime256v1 and prime192v1.
    let (p256, p192) = (7, 1);
    let mut spki = der(&text("p256.pub.pem"));
    assert_eq!(spki[22], p256);
    spki[22] = p192;
    assert_refused("P-192", pem("PUBLIC KEY", &spki).as_bytes());
}

/// The points of small order, in all encodings. With one of them as the key, anybody can make
/// signatures.
#[test]
fn an_ed25519_key_for_which_anybody_can_sign_is_refused() {
    let y = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        // -1, 0 and 1 again: p - 1, p and p + 1 for p = 2^255 - 19.
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for mut point in y.map(hex) {
        for sign in [0, 0x80] {
            point[31] |= sign;
            assert_refused(&format!("{point:02x?}"), ed25519(&point).as_bytes());
        }
    }
}

/// Half of all texts are no point. Whether one is shows only when it verifies.
#[test]
fn an_ed25519_key_that_is_no_point_lets_nobody_in() {
    let no_point = hex("0200000000000000000000000000000000000000000000000000000000000000");
    let Ok(key) = Key::from_pem(EdDSA, ed25519(&no_point).as_bytes()) else { return };
    let authenticator = JwtAuthenticator::secure(key, ClaimRules::default());
    let good = token(&minter("ed25519.key.pem", EdDSA));
    let (signed, good_signature) = good.expose().rsplit_once('.').unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    for signature in [good_signature, &zeros] {
        let token = Token::new(format!("{signed}.{signature}")).unwrap();
        assert!(authenticator.verify(&token, NOW).is_err());
    }
}

#[test]
fn an_rsa_key_has_2048_to_8192_bits_and_is_odd() {
    let long = &[1, 0, 1][..];
    for (bytes, exponent, good) in [
        (256, long, true),
        (1024, long, true),
        (256, &[3], true),
        (64, long, false),
        (255, long, false),
        (1025, long, false),
        (2048, long, false),
        (256, &[1], false),
        (256, &[2], false),
        (256, &[0], false),
        (256, &[0xff], false),
    ] {
        let public = pem("RSA PUBLIC KEY", &rsa(&vec![0xc5; bytes], exponent));
        for algorithm in [RS256, PS512] {
            let read = Key::from_pem(algorithm, public.as_bytes()).is_ok();
            assert_eq!(read, good, "{} bits, exponent {exponent:?}", bytes * 8);
        }
    }
    let mut even = vec![0xc5; 256];
    even[255] = 0xc4;
    assert_refused("an even modulus", pem("RSA PUBLIC KEY", &rsa(&even, long)).as_bytes());
}

/// Checks for each file that exactly its algorithms take it.
fn assert_read(files: &[File], read_as: impl Fn(Algorithm, &[u8]) -> Result<(), KeyError>) {
    for File { name, algorithms, .. } in files {
        for algorithm in Algorithm::ALL.iter().copied() {
            let expected = match algorithms.contains(&algorithm) {
                true => Ok(()),
                false => Err(KeyError::Invalid { algorithm }),
            };
            assert_eq!(read_as(algorithm, &read(name)), expected, "{name} for {algorithm}");
        }
    }
}

/// Checks that a text is neither a key that verifies nor one that signs, for any algorithm.
fn assert_refused(what: &str, pem: &[u8]) {
    assert_no_key(what, pem);
    assert_no_minter(what, pem);
}

fn assert_no_key(what: &str, pem: &[u8]) {
    for algorithm in Algorithm::ALL.iter().copied() {
        let error = Key::from_pem(algorithm, pem).err();
        assert_eq!(error, Some(KeyError::Invalid { algorithm }), "{what:?} verifies");
    }
}

fn assert_no_minter(what: &str, pem: &[u8]) {
    for algorithm in Algorithm::ALL.iter().copied() {
        let error = Minter::from_pem(algorithm, pem).err();
        assert_eq!(error, Some(KeyError::Invalid { algorithm }), "{what:?} signs");
    }
}

fn each_algorithm(files: &[File]) -> impl Iterator<Item = (&File, Algorithm)> {
    files.iter().flat_map(|file| file.algorithms.iter().map(move |algorithm| (file, *algorithm)))
}

fn minter(name: &str, algorithm: Algorithm) -> Minter {
    Minter::from_pem(algorithm, &read(name)).unwrap()
}

fn authenticator(name: &str, algorithm: Algorithm) -> JwtAuthenticator {
    let key = Key::from_pem(algorithm, &read(name)).unwrap();
    JwtAuthenticator::secure(key, ClaimRules::default())
}

fn token(minter: &Minter) -> Token {
    let now = NOW.as_secs();
    minter.mint(&json!({ "sub": "user-1", "iat": now, "exp": now + 60 })).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> Vec<u8> {
    let mut paths = FOLDERS.iter().map(|folder| root().join(folder).join(name));
    fs::read(paths.find(|path: &PathBuf| path.exists()).expect(name)).unwrap()
}

fn text(name: &str) -> String {
    String::from_utf8(read(name)).unwrap()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn der(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(base64).unwrap()
}

/// A value in DER.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let mut der = match length {
        0..0x80 => vec![tag, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    der.extend(value);
    der
}

fn sequence(values: &[&[u8]]) -> Vec<u8> {
    tagged(0x30, &values.concat())
}

/// A public key in PKCS#1.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    sequence(&[&tagged(2, &[&[0], modulus].concat()), &tagged(2, exponent)])
}

/// An Ed25519 public key in SPKI.
fn ed25519(point: &[u8; 32]) -> String {
    let mut spki = der(&text("ed25519.pub.pem"));
    let at = spki.len() - point.len();
    spki[at..].copy_from_slice(point);
    pem("PUBLIC KEY", &spki)
}

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..][..2], 16).unwrap())
}
