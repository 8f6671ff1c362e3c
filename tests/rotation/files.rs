//! Files that are read again when they change. Time is paused: it goes on when nothing else does,
//! so a pause is as long as the file's reader needs and no longer.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use electric_satellite::{
    auth::{
        Algorithm, Authenticator, JwtAuthenticator, KeyFile, KeyRing, RevocationFile,
        RevocationList, Revoked,
    },
    session::Token,
};
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};
use tracing::subscriber::DefaultGuard;

use crate::support::{Log, corpus_minter, corpus_token, ed25519_jwk, issuer, pem, secure, verify};

/// How often files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What the log says of a file that cannot be used.
const COMPLAINT: &str = "a changed file cannot be used";

/// A file in a directory of its own, which goes with it.
struct File {
    path: PathBuf,
}

impl File {
    fn with(name: &str, content: impl AsRef<[u8]>) -> File {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("rotation-{}-{name}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = File { path: dir.join("file") };
        file.put(content);
        file
    }

    /// Replaces the file as one that is read by others should be: by a rename.
    fn put(&self, content: impl AsRef<[u8]>) {
        let new = self.path.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path.parent().unwrap());
    }
}

/// Waits until it is so, for many looks at the file.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..100 {
        if is_so() {
            return;
        }
        sleep(EVERY).await;
    }
    panic!("never: {what}");
}

/// Waits for some looks at the file.
async fn some_looks() {
    sleep(10 * EVERY).await;
}

/// A key file that is kept fresh, from the first look on.
struct Kept {
    file: File,
    authenticator: JwtAuthenticator,
    log: Log,
    _log: DefaultGuard,
    keeping: JoinHandle<()>,
}

impl Kept {
    async fn new(name: &str, content: impl AsRef<[u8]>) -> Kept {
        let file = File::with(name, content);
        let (log, guard) = Log::capture();
        let key_file = KeyFile::new(&file.path, &[Algorithm::ES256, Algorithm::EdDSA]);
        let ring = KeyRing::default();
        // A file's keys are in the ring under its path.
        ring.replace(file.path.to_str().unwrap(), key_file.load().unwrap());
        let authenticator = secure(ring.clone());
        let keeping = tokio::spawn(async move {
            key_file.keep(ring, EVERY).await;
        });
        sleep(EVERY / 2).await;
        Kept { file, authenticator, log, _log: guard, keeping }
    }

    fn accepts(&self, token: &Token) -> bool {
        verify(&self.authenticator, token).is_ok()
    }

    async fn until_only(&self, accepted: &Token, refused: &Token) {
        until("one is accepted and the other refused", || {
            self.accepts(accepted) && !self.accepts(refused)
        })
        .await;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// The tokens of two keys of the corpus.
fn tokens() -> [Token; 2] {
    ["ed25519", "ed25519-other"]
        .map(|name| corpus_token(&corpus_minter(Algorithm::EdDSA, name), "u"))
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_replaced_brings_new_keys_and_takes_the_old_ones_away() {
    let [old, new] = tokens();
    let kept = Kept::new("replaced", pem("ed25519.pub.pem")).await;
    assert!(kept.accepts(&old) && !kept.accepts(&new));
    // Both, while tokens of the old one are about.
    kept.file.put(pem("ed25519.pub.pem") + &pem("ed25519-other.pub.pem"));
    until("both are accepted", || kept.accepts(&old) && kept.accepts(&new)).await;
    kept.file.put(pem("ed25519-other.pub.pem"));
    kept.until_only(&new, &old).await;
    // And once more, so that the second change is not the last that is noticed.
    kept.file.put(pem("ed25519.pub.pem"));
    kept.until_only(&old, &new).await;
    // The log tells keys apart and does not show them.
    let fingerprint = kept.authenticator.keys().unwrap().keys().keys()[0].fingerprint().to_owned();
    let told = kept.log.lines_with("new keys");
    assert!(told.last().unwrap().contains(&format!("EdDSA {fingerprint}")), "{told:?}");
    assert!(kept.log.lines_with(COMPLAINT).is_empty());
}

#[tokio::test(start_paused = true)]
async fn pem_and_jwk_set_may_follow_each_other_in_one_file() {
    let [old, new] = tokens();
    let kept = Kept::new("formats", pem("ed25519.pub.pem")).await;
    kept.file.put(json!({ "keys": [ed25519_jwk("ed25519-other", "k")] }).to_string());
    kept.until_only(&new, &old).await;
    let other_kind = corpus_token(&corpus_minter(Algorithm::ES256, "p256"), "u");
    kept.file.put(pem("p256.pub.pem"));
    kept.until_only(&other_kind, &new).await;
    kept.file.put(json!({ "keys": [ed25519_jwk("ed25519", "k")] }).to_string());
    kept.until_only(&old, &other_kind).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_used_leaves_the_keys_and_is_complained_about_once() {
    let [old, new] = tokens();
    let kept = Kept::new("unusable", pem("ed25519.pub.pem")).await;
    let good = pem("ed25519-other.pub.pem");
    let jwks = json!({ "keys": [ed25519_jwk("ed25519-other", "k")] }).to_string();
    let unusable: [&[u8]; 9] = [
        b"",
        b"\n",
        b"no key",
        &good.as_bytes()[..good.len() / 2],
        &jwks.as_bytes()[..jwks.len() - 1],
        br#"{"keys":[]}"#,
        &[0xff; 100],
        // A good one and one that is not for any of the algorithms.
        &[good.as_bytes(), pem("rsa2048.pub.pem").as_bytes()].concat(),
        &[b'x'; 1024 * 1024 + 1],
    ];
    for (index, content) in unusable.into_iter().enumerate() {
        kept.file.put(content);
        until("a complaint", || kept.log.lines_with(COMPLAINT).len() > index).await;
        some_looks().await;
        let complaints = kept.log.lines_with(COMPLAINT);
        assert_eq!(complaints.len(), index + 1, "{complaints:?}");
        assert!(complaints[index].contains("ERROR"));
        assert!(complaints[index].contains(kept.file.path.to_str().unwrap()), "{complaints:?}");
        assert!(kept.accepts(&old) && !kept.accepts(&new));
    }
    kept.file.put(good);
    kept.until_only(&new, &old).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_leaves_the_keys_until_it_is_back() {
    let [old, new] = tokens();
    let kept = Kept::new("gone", pem("ed25519.pub.pem")).await;
    fs::remove_file(&kept.file.path).unwrap();
    until("a complaint", || kept.log.lines_with(COMPLAINT).len() == 1).await;
    assert!(kept.accepts(&old));
    // Something else in its place.
    fs::create_dir(&kept.file.path).unwrap();
    until("a complaint", || kept.log.lines_with(COMPLAINT).len() == 2).await;
    assert!(kept.accepts(&old));
    fs::remove_dir(&kept.file.path).unwrap();
    kept.file.put(pem("ed25519-other.pub.pem"));
    kept.until_only(&new, &old).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_written_in_place_is_read_when_it_is_whole() {
    let [old, new] = tokens();
    let kept = Kept::new("in-place", pem("ed25519.pub.pem")).await;
    let good = pem("ed25519-other.pub.pem");
    fs::write(&kept.file.path, &good[..good.len() / 2]).unwrap();
    until("a complaint", || !kept.log.lines_with(COMPLAINT).is_empty()).await;
    assert!(kept.accepts(&old) && !kept.accepts(&new));
    fs::write(&kept.file.path, &good).unwrap();
    kept.until_only(&new, &old).await;
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_link_that_is_pointed_elsewhere_is_followed() {
    // As Kubernetes mounts secrets.
    let [old, new] = tokens();
    let kept = Kept::new("link", pem("ed25519.pub.pem")).await;
    let [target, link] = ["target", "link"].map(|name| kept.file.path.with_extension(name));
    fs::write(&target, pem("ed25519-other.pub.pem")).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    fs::rename(&link, &kept.file.path).unwrap();
    kept.until_only(&new, &old).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_the_same_is_not_exchanged() {
    let kept = Kept::new("same", pem("ed25519.pub.pem")).await;
    some_looks().await;
    let before = kept.log.lines_with("new keys").len();
    // Another file, the same text.
    kept.file.put(pem("ed25519.pub.pem"));
    some_looks().await;
    assert_eq!(kept.log.lines_with("new keys").len(), before);
}

/// A file is read when the service is configured, and looked at again once it serves. Whatever
/// happens to the file in between must not be taken for seen.
#[tokio::test(start_paused = true)]
async fn a_change_between_reading_and_keeping_is_not_missed() {
    let [old, new] = tokens();
    let file = File::with("between", pem("ed25519.pub.pem"));
    let path = file.path.to_str().unwrap().to_owned();
    let authenticator = JwtAuthenticator::from_vars(|name| match name {
        "AUTH_JWT_ALG" => Some("EdDSA".into()),
        "AUTH_JWT_KEY_FILE" => Some(path.clone()),
        _ => None,
    })
    .unwrap();
    assert!(verify(&authenticator, &old).is_ok());
    file.put(pem("ed25519-other.pub.pem"));
    let changed = until("the change is noticed", || {
        verify(&authenticator, &new).is_ok() && verify(&authenticator, &old).is_err()
    });
    tokio::select! {
        () = authenticator.keep_fresh() => panic!("it has a file to look at"),
        () = changed => {}
    }
}

/// The same for revocations, where what is missed is let in.
#[tokio::test(start_paused = true)]
async fn a_revocation_between_reading_and_keeping_is_not_missed() {
    let file = File::with("between-revocations", "{}");
    let path = file.path.to_str().unwrap().to_owned();
    let authenticator = JwtAuthenticator::from_vars(|name| match name {
        "AUTH_JWT_ALG" => Some("HS256".into()),
        "AUTH_JWT_KEY" => Some("\u{1}".repeat(32)),
        "AUTH_REVOCATIONS_FILE" => Some(path.clone()),
        _ => None,
    })
    .unwrap();
    let token = issuer(1).token("u");
    assert_eq!(verify(&authenticator, &token), Ok("u".into()));
    file.put(r#"{"users":["u"]}"#);
    let revoked = until("the token is revoked", || verify(&authenticator, &token).is_err());
    tokio::select! {
        () = authenticator.keep_fresh() => panic!("it has a file to look at"),
        () = revoked => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_configured_service_reads_its_files_again() {
    let [old, new] = tokens();
    let keys = File::with("configured-keys", pem("ed25519.pub.pem"));
    let revocations = File::with("configured-revocations", "{}");
    let path = |file: &File| Some(file.path.to_str().unwrap().to_owned());
    let authenticator = JwtAuthenticator::from_vars(|name| match name {
        "AUTH_JWT_ALG" => Some("EdDSA".into()),
        "AUTH_JWT_KEY_FILE" => path(&keys),
        "AUTH_REVOCATIONS_FILE" => path(&revocations),
        _ => None,
    })
    .unwrap();
    let change_both = async {
        // The first look is over.
        sleep(EVERY).await;
        keys.put(pem("ed25519-other.pub.pem"));
        until("new keys", || verify(&authenticator, &new).is_ok()).await;
        assert!(verify(&authenticator, &old).is_err());
        revocations.put(r#"{"users":["u"]}"#);
        until("revoked", || verify(&authenticator, &new) == Err("Token is revoked".into())).await;
        revocations.put("{}");
        until("not revoked any more", || verify(&authenticator, &new).is_ok()).await;
    };
    tokio::select! {
        () = authenticator.keep_fresh() => panic!("it has files to look at"),
        () = change_both => {}
    }
}

#[tokio::test(start_paused = true)]
async fn revocations_are_read_again_and_a_bad_file_revokes_as_before() {
    let (log, _guard) = Log::capture();
    let file = File::with("revocations", r#"{"users":["a"]}"#);
    let revocations = RevocationFile::new(&file.path);
    let list = RevocationList::default();
    assert!(list.replace(revocations.load().unwrap()));
    let authenticator = secure(issuer(1).key).with_revocations(list.clone());
    let keeping = tokio::spawn(async move {
        revocations.keep(list, EVERY).await;
    });
    sleep(EVERY / 2).await;
    let revoked = |user: &str| {
        let token = issuer(1).token_with(user, json!({ "jti": format!("token of {user}") }));
        verify(&authenticator, &token).is_err()
    };
    assert!(revoked("a") && !revoked("b") && !revoked("c"));
    file.put(r#"{"users":["a"],"tokens":["token of b"]}"#);
    until("b is revoked", || revoked("b")).await;
    let unusable = ["", "{", "null", "{} {}", r#"{"user":["c"]}"#, r#"{"issued_before":"now"}"#];
    for (index, content) in unusable.into_iter().enumerate() {
        file.put(content);
        until("a complaint", || log.lines_with(COMPLAINT).len() == index + 1).await;
        assert!(revoked("a") && revoked("b") && !revoked("c"), "{content}");
    }
    fs::remove_file(&file.path).unwrap();
    until("a complaint", || log.lines_with(COMPLAINT).len() > unusable.len()).await;
    assert!(revoked("a") && revoked("b") && !revoked("c"));
    file.put(r#"{"users":["c"]}"#);
    until("c is revoked, a and b are not", || revoked("c") && !revoked("a") && !revoked("b")).await;
    keeping.abort();
}

#[test]
fn a_file_has_a_mebibyte_at_most() {
    const MOST: usize = 1024 * 1024;
    let file = File::with("large", " ".repeat(MOST - 2) + "{}");
    assert!(RevocationFile::new(&file.path).load().is_ok());
    file.put(" ".repeat(MOST - 1) + "{}");
    let error = RevocationFile::new(&file.path).load().unwrap_err().to_string();
    assert!(error.ends_with("it is larger than 1048576 bytes"), "{error}");
}

#[test]
fn a_file_of_revocations_says_what_it_says_and_no_more() {
    let file = File::with(
        "revoked",
        r#"{"tokens":["t"],"users":["u"],"users_before":{"v":5},"issued_before":-1}"#,
    );
    let revoked = RevocationFile::new(&file.path).load().unwrap();
    let expected = Revoked {
        tokens: ["t".to_owned()].into(),
        users: ["u".to_owned()].into(),
        users_before: [("v".to_owned(), 5)].into(),
        issued_before: Some(-1),
    };
    assert_eq!(revoked, expected);
    file.put("{}");
    assert_eq!(RevocationFile::new(&file.path).load().unwrap(), Revoked::default());
}

/// A list of users is no object of revocations, and must not be taken for one that revokes nothing
/// or something else.
#[test]
fn a_file_of_revocations_is_an_object_and_no_array() {
    for content in ["[]", r#"[["u"]]"#, r#"[[],["u"],{},7]"#] {
        let file = File::with("array", content);
        let revoked = RevocationFile::new(&file.path).load();
        assert!(revoked.is_err(), "{content} is read as {revoked:?}");
    }
}
