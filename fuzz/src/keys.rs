//! Keys in PEM, JWK, JWK Sets, certificates and variables: what is read is what was asked for, is
//! read the same way twice, and a text that holds a secret is not quoted.

use electric_satellite::auth::{Algorithm, JwtAuthenticator, Key, KeySet, Minter};

/// The first byte chooses the algorithms and the second a place for the secret, or that there is
/// none; the rest is the text of a key.
pub fn check(data: &[u8]) {
    let [choice, place, text @ ..] = data else { return };
    let one = usize::from(*choice) % (Algorithm::ALL.len() + 1);
    let algorithms = Algorithm::ALL.get(one).map_or(Algorithm::ALL, std::slice::from_ref);
    if place % 4 != 3 {
        return read(algorithms, text);
    }
    let place = text.len() * usize::from(*place) / 255;
    read(algorithms, &[&text[..place], SECRET.as_bytes(), &text[place..]].concat());
}

/// It would be a part of any text in PEM, base64url or JSON.
const SECRET: &str = "5ecretOfNobodyButTheOneWhoHasTheKey0";

fn read(algorithms: &[Algorithm], text: &[u8]) {
    let set = KeySet::parse(algorithms, text);
    is_not_quoted(&set);
    if let Ok(set) = &set {
        is_of(set, algorithms);
        let again = KeySet::parse(algorithms, text).expect("it was read before");
        assert_eq!(format!("{set:?}"), format!("{again:?}"));
    }
    is_not_quoted(&KeySet::from_jwks(algorithms, text));
    for &algorithm in algorithms {
        let (secret, public) = (Key::from_secret(algorithm, text), Key::from_pem(algorithm, text));
        is_not_quoted(&secret);
        is_not_quoted(&public);
        assert!(secret.is_err() || algorithm.is_symmetric() && text.len() >= 32);
        if let Ok(key) = public {
            assert!(!algorithm.is_symmetric());
            assert_eq!((key.algorithm(), key.kid()), (algorithm, None));
            is_public(algorithm, text);
        }
    }
    configured(algorithms[0], text);
}

fn is_not_quoted(result: &impl std::fmt::Debug) {
    let said = format!("{result:?}");
    // A `kid` is shown, as it is no secret.
    let kid = said.split(" kid ").skip(1).any(|kid| kid.contains(SECRET));
    assert!(kid || !said.contains(SECRET), "{said}");
}

fn is_of(set: &KeySet, algorithms: &[Algorithm]) {
    assert!((1..=100 * algorithms.len()).contains(&set.keys().len()));
    for key in set.keys() {
        assert!(algorithms.contains(&key.algorithm()) && !key.algorithm().is_symmetric());
        assert_eq!(key.fingerprint().len(), 8);
    }
}

/// What verifies does not sign.
fn is_public(algorithm: Algorithm, text: &[u8]) {
    let minter = Minter::from_pem(algorithm, text);
    assert!(minter.is_err(), "a public key that signs");
}

/// As the value of a variable.
fn configured(algorithm: Algorithm, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for (name, is_base64) in [("AUTH_JWT_KEY", None), ("AUTH_JWT_KEY", Some("true"))] {
        let variable = |asked: &str| match asked {
            "AUTH_JWT_ALG" => Some(algorithm.to_string()),
            "AUTH_JWT_KEY_IS_BASE64_ENCODED" => is_base64.map(str::to_owned),
            _ => (asked == name).then(|| text.to_string()),
        };
        let authenticator = JwtAuthenticator::from_vars(variable);
        is_not_quoted(&authenticator);
        match authenticator {
            Err(errors) => assert!(!errors.to_string().contains(SECRET), "{errors}"),
            Ok(authenticator) => {
                assert!(!authenticator.is_insecure());
                let keys = authenticator.keys().expect("it has keys").keys();
                assert!(keys.keys().iter().all(|key| key.algorithm() == algorithm));
                assert_eq!(Minter::from_vars(variable).is_ok(), algorithm.is_symmetric());
            }
        }
    }
}
