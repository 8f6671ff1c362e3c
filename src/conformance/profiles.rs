//! What is expected of a certain implementation, where that is not what a new one should do.

mod electric;
mod electric_0_12;
mod electric_0_7;
mod originals;

use crate::wire::Version;

use super::{
    Case,
    script::{Ending, Step},
};

/// What is expected of an implementation: the cases as they are, and differences from them.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name, such as `electric-0.12`.
    pub name: &'static str,
    /// What it describes.
    pub about: &'static str,
    /// The newest version that is spoken with it.
    pub version: Version,
    /// Where it is not as the cases say.
    pub differences: Vec<Difference>,
}

/// How one case is different in a profile, and why.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The id of the case.
    pub id: &'static str,
    /// Why.
    pub reason: &'static str,
    /// What is expected.
    pub change: Change,
}

/// What is expected instead.
#[derive(Clone, Debug)]
pub enum Change {
    /// Nothing: the case is not run.
    Skip,
    /// Another script.
    Script(Vec<Step>),
    /// Another end of the connection; the rest is the same.
    End(Ending),
}

impl Difference {
    /// The case is not run.
    fn skip(id: &'static str, reason: &'static str) -> Difference {
        Difference { id, reason, change: Change::Skip }
    }

    /// Another script.
    fn script(
        id: &'static str,
        reason: &'static str,
        script: impl IntoIterator<Item = Step>,
    ) -> Difference {
        Difference { id, reason, change: Change::Script(script.into_iter().collect()) }
    }

    /// Another end of the connection.
    fn end(id: &'static str, reason: &'static str, ending: Ending) -> Difference {
        Difference { id, reason, change: Change::End(ending) }
    }
}

impl Profile {
    /// What a new implementation should do: the cases as they are.
    pub fn strict() -> Profile {
        Profile {
            name: "strict",
            about: "what a new implementation should do",
            version: Version::V0_12,
            differences: vec![],
        }
    }

    /// Every profile there is.
    pub fn all() -> Vec<Profile> {
        vec![Profile::strict(), electric_0_12::profile(), electric_0_7::profile()]
    }

    /// The profile of this name.
    pub fn named(name: &str) -> Option<Profile> {
        Profile::all().into_iter().find(|profile| profile.name == name)
    }

    /// The case as this profile has it, and why it is different; no case if it is not run.
    pub(super) fn applied(&self, case: &Case) -> (Option<Case>, Option<&'static str>) {
        let Some(difference) = self.differences.iter().find(|found| found.id == case.id) else {
            return (Some(case.clone()), None);
        };
        let mut case = case.clone();
        match &difference.change {
            Change::Skip => return (None, Some(difference.reason)),
            Change::Script(script) => case.script = script.clone(),
            Change::End(ending) => {
                let last = case.script.iter_mut().rev().find(|step| matches!(step, Step::Ends(_)));
                if let Some(step) = last {
                    *step = Step::Ends(ending.clone());
                }
            }
        }
        (Some(case), Some(difference.reason))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::conformance::{client_cases, server_cases};

    #[test]
    fn every_difference_is_of_one_case_that_there_is() {
        let cases: Vec<Case> = server_cases().into_iter().chain(client_cases()).collect();
        for profile in Profile::all() {
            let mut ids = BTreeSet::new();
            for Difference { id, reason, change } in &profile.differences {
                let case = cases.iter().find(|case| case.id == *id);
                let case = case.unwrap_or_else(|| panic!("{}: there is no {id}", profile.name));
                assert!(ids.insert(id), "{}: {id} is there twice", profile.name);
                assert!(!reason.is_empty(), "{}: {id} has no reason", profile.name);
                let has_end = case.script.iter().any(|step| matches!(step, Step::Ends(_)));
                assert!(has_end || !matches!(change, Change::End(_)), "{id} has no end to change");
            }
        }
    }
}
