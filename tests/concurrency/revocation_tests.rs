//! Whoever is revoked is out, whether it comes before, after or meanwhile.

use loom::{
    future::block_on,
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    explore,
    revocation::{RevocationList, Revocations},
    session::Identity,
};

#[test]
fn whoever_learns_of_a_change_finds_it_in_force() {
    explore("two changes and one who watches", || {
        let list = RevocationList::default();
        let mut changes = list.changes();
        let revoke = |user: &'static str| {
            let list = list.clone();
            thread::spawn(move || list.revoke_user(user))
        };
        let revoking = [revoke("u"), revoke("v")];
        block_on(changes.changed());
        let revoked = |user| list.is_revoked(&Identity::new(user));
        assert!(revoked("u") || revoked("v"));
        revoking.into_iter().for_each(|it| it.join().unwrap());
        assert!(revoked("u") && revoked("v"));
    });
}

/// The server's way (`look_again` and `enforce` in `src/server`): a newcomer enters the table and
/// then looks at the list; whoever enforces the list takes note of changes and then looks at the
/// table.
#[test]
fn nobody_slips_in_between_two_looks() {
    explore("a newcomer, a revocation and one who enforces it", || {
        let list = RevocationList::default();
        let table = Arc::new(Mutex::new(false));
        let closed = Arc::new(Mutex::new(false));
        let mut changes = list.changes();
        let newcomer = {
            let (list, table, closed) = (list.clone(), Arc::clone(&table), Arc::clone(&closed));
            thread::spawn(move || {
                if list.is_revoked(&Identity::new("u")) {
                    return *closed.lock().unwrap() = true;
                }
                *table.lock().unwrap() = true;
                if list.is_revoked(&Identity::new("u")) {
                    *closed.lock().unwrap() = true;
                }
            })
        };
        let revoking = {
            let list = list.clone();
            thread::spawn(move || list.revoke_user("u"))
        };
        block_on(changes.changed());
        if *table.lock().unwrap() && list.is_revoked(&Identity::new("u")) {
            *closed.lock().unwrap() = true;
        }
        newcomer.join().unwrap();
        revoking.join().unwrap();
        assert!(*closed.lock().unwrap());
    });
}

#[test]
fn of_two_lists_that_replace_it_one_holds_as_a_whole() {
    explore("two replacements at once", || {
        let list = RevocationList::default();
        let revoked = |user: &str| crate::revocation::Revoked {
            users: [user.to_owned()].into(),
            ..Default::default()
        };
        let replace = |user: &'static str| {
            let (list, by) = (list.clone(), revoked(user));
            thread::spawn(move || list.replace(by))
        };
        let replacing = [replace("u"), replace("v")];
        assert!(replacing.map(|it| it.join().unwrap()).iter().any(|changed| *changed));
        let is_revoked = |user| list.is_revoked(&Identity::new(user));
        assert!(is_revoked("u") != is_revoked("v"));
    });
}
