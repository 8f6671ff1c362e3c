//! `docs/PROTOCOL.md` and the conformance suite say the same: every sentence with a key word of RFC
//! 2119 names the cases that judge it, and every case has its sentence.

use std::collections::BTreeSet;

use electric_satellite::conformance::{
    Case, Difference, Level, Profile, client_cases, server_cases,
};

const DOCUMENT: &str = include_str!("../docs/PROTOCOL.md");

fn cases() -> Vec<Case> {
    server_cases().into_iter().chain(client_cases()).collect()
}

/// What stands in a sentence and the ids in the brackets behind it. Sentences end with a full stop
/// and a space, with a bracket, or with their line.
fn sentences(document: &str) -> Vec<(String, Vec<String>)> {
    // The key words are introduced before the first section.
    let sections = document.split_once("\n## ").map_or("", |(_, sections)| sections);
    let mut found = vec![];
    for line in sections.lines() {
        let mut rest = line;
        while !rest.trim().is_empty() {
            let end = rest.find(". ").map_or(rest.len(), |at| at + 1);
            let (sentence, after) = rest.split_at(end);
            let after = after.trim_start();
            let bracket = after.strip_prefix('[').and_then(|ids| ids.split_once(']'));
            let (ids, after) = match bracket {
                Some((ids, after)) if ids.starts_with("SAT-") => {
                    (ids.split(',').map(|id| id.trim().to_owned()).collect(), after.trim_start())
                }
                _ => (vec![], after),
            };
            found.push((sentence.to_owned(), ids));
            rest = after;
        }
    }
    found
}

/// The strongest key word of a sentence.
fn level(sentence: &str) -> Option<Level> {
    let has = |word| sentence.split(|c: char| !c.is_alphanumeric()).any(|found| found == word);
    let words = [("MUST", Level::Must), ("SHOULD", Level::Should), ("MAY", Level::May)];
    words.into_iter().find(|(word, _)| has(*word)).map(|(_, level)| level)
}

#[test]
fn every_normative_sentence_names_its_cases_and_no_other_does() {
    let known: BTreeSet<&str> = cases().iter().map(|case| case.id).collect();
    for (sentence, ids) in sentences(DOCUMENT) {
        assert_eq!(level(&sentence).is_some(), !ids.is_empty(), "{sentence} {ids:?}");
        for id in &ids {
            assert!(known.contains(id.as_str()), "{sentence}: there is no case {id}");
        }
    }
}

#[test]
fn every_case_has_its_sentence_of_the_same_level() {
    let sentences = sentences(DOCUMENT);
    for case in cases() {
        let judged = sentences.iter().find(|(_, ids)| ids.iter().any(|id| id == case.id));
        let (sentence, _) = judged.unwrap_or_else(|| panic!("{} has no sentence", case.id));
        assert_eq!(level(sentence), Some(case.level), "{}: {sentence}", case.id);
    }
}

#[test]
fn every_case_is_complete() {
    let mut ids = BTreeSet::new();
    for case in cases() {
        let id = case.id;
        assert!(ids.insert(id), "{id} is there twice");
        let number = id.rsplit_once('-').map(|(_, number)| number);
        let numbered = |number: &str| number.len() == 3 && number.parse::<u32>().is_ok();
        assert!(id.starts_with("SAT-") && number.is_some_and(numbered), "{id} is no id");
        assert_eq!(level(case.rule), Some(case.level), "{id}: {}", case.rule);
        assert!(case.rule.ends_with('.'), "{id}: the rule is a sentence");
        assert!(!case.source.is_empty(), "{id} has a source");
        assert!(case.otherwise.ends_with('.'), "{id} says what breaks");
        assert!(!case.script.is_empty(), "{id} has a script");
    }
}

#[test]
fn every_difference_of_a_profile_is_of_one_case_and_has_a_reason() {
    let known: BTreeSet<&str> = cases().iter().map(|case| case.id).collect();
    for profile in Profile::all() {
        let mut seen = BTreeSet::new();
        for Difference { id, reason, .. } in &profile.differences {
            assert!(known.contains(id), "{}: there is no case {id}", profile.name);
            assert!(seen.insert(*id), "{}: {id} is there twice", profile.name);
            assert!(!reason.is_empty(), "{}: {id} has no reason", profile.name);
        }
    }
}

#[test]
fn sentences_are_told_apart() {
    let text = "before\n## 1\nIt MUST be. [SAT-A-001, SAT-B-002] It is. It MAY. [SAT-C-003]\n";
    let found = sentences(text);
    let ids: Vec<usize> = found.iter().map(|(_, ids)| ids.len()).collect();
    assert_eq!(ids, [0, 2, 0, 1], "{found:?}");
    assert_eq!(level("It MUST NOT be, MAY it?"), Some(Level::Must));
    assert_eq!(level("A MUSTARD"), None);
}
