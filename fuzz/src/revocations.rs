//! Revocation files: what is read is what a plain reader of JSON finds, and it is what is revoked.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    path::PathBuf,
    process,
    sync::LazyLock,
};

use electric_satellite::{
    auth::{RevocationFile, RevocationList, Revocations, Revoked},
    session::Identity,
};
use serde_json::Value;

use crate::keyring::at;

/// The input is the content of a file.
pub fn check(data: &[u8]) {
    fs::write(&*PATH, data).expect("a temporary file can be written");
    let loaded = RevocationFile::new(&*PATH).load();
    let model = model(data);
    match (&loaded, &model) {
        (Ok(revoked), Some(expected)) => assert_eq!(revoked, expected),
        // A name that comes twice: the model, which cannot see that, has the last one.
        (Err(error), Some(_)) if error.to_string().contains("duplicate field") => {}
        (Err(_), None) => {}
        _ => panic!("{loaded:?} where the model has {model:?}"),
    }
    if let Ok(revoked) = loaded {
        is_in_force(&revoked);
    }
}

/// In memory, where that is to be had.
static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { env::temp_dir() };
    folder.join(format!("revocations-{}.json", process::id()))
});

fn model(data: &[u8]) -> Option<Revoked> {
    const NAMES: [&str; 4] = ["tokens", "users", "users_before", "issued_before"];
    let Value::Object(file) = serde_json::from_slice(data).ok()? else { return None };
    if file.keys().any(|name| !NAMES.contains(&name.as_str())) {
        return None;
    }
    let texts = |name: &str| -> Option<HashSet<String>> {
        let Some(list) = file.get(name) else { return Some(HashSet::new()) };
        list.as_array()?.iter().map(|text| Some(text.as_str()?.to_owned())).collect()
    };
    let users_before = match file.get("users_before") {
        None => HashMap::new(),
        Some(times) => {
            let times = times.as_object()?.iter();
            times.map(|(user, time)| Some((user.clone(), time.as_i64()?))).collect::<Option<_>>()?
        }
    };
    let issued_before = match file.get("issued_before") {
        None | Some(Value::Null) => None,
        Some(time) => Some(time.as_i64()?),
    };
    Some(Revoked { tokens: texts("tokens")?, users: texts("users")?, users_before, issued_before })
}

/// Each entry revokes what it names, and no other.
fn is_in_force(revoked: &Revoked) {
    let list = RevocationList::default();
    let changed = list.replace(revoked.clone());
    assert_eq!(changed, *revoked != Revoked::default());
    assert!(!list.replace(revoked.clone()), "it is the same");
    let identity = |user: &str, token: Option<&str>, issued_at: Option<i64>| {
        let mut identity = Identity::new(user);
        identity.token_id = token.map(str::to_owned);
        identity.issued_at = issued_at.map(at);
        identity
    };
    let is_revoked = |user: &str, token: Option<&str>, issued_at: Option<i64>| {
        list.is_revoked(&identity(user, token, issued_at))
    };
    for token in &revoked.tokens {
        assert!(is_revoked("another", Some(token), Some(i64::MAX)));
    }
    for user in &revoked.users {
        assert!(is_revoked(user, None, Some(i64::MAX)));
    }
    let named = |user: &str| revoked.users.contains(user);
    let too_early = |time: i64| revoked.issued_before.is_some_and(|limit| time < limit);
    for (user, &limit) in &revoked.users_before {
        assert!(is_revoked(user, None, None));
        assert_eq!(is_revoked(user, None, Some(limit)), named(user) || too_early(limit));
        if let Some(before) = limit.checked_sub(1) {
            assert!(is_revoked(user, None, Some(before)));
        }
    }
    const STRANGER: &str = "a user whom nobody would name";
    if !named(STRANGER) && !revoked.users_before.contains_key(STRANGER) {
        assert_eq!(is_revoked(STRANGER, None, None), revoked.issued_before.is_some());
        let limit = revoked.issued_before.unwrap_or(0);
        assert!(!is_revoked(STRANGER, None, Some(limit)));
    }
}
