//! A case, for a person.

use std::fmt::Write;

use electric_satellite::conformance::{Case, Change, Profile, script::Step};

/// What a case says, and what a profile says of it.
pub(super) fn explained(case: &Case, profile: &Profile) -> String {
    let mut text = format!("{} ({})\n\n{}\n\n", case.id, case.level, case.rule);
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    fact("otherwise", case.otherwise);
    fact("source", case.source);
    fact("versions", &format!("{} to {}", case.versions.start(), case.versions.end()));
    for need in &case.needs {
        fact("needs", &need.to_string());
    }
    text += "\n";
    script(&mut text, &case.script);
    let difference = profile.differences.iter().find(|difference| difference.id == case.id);
    let _ = match difference {
        None => writeln!(text, "\nThe profile {} expects this.", profile.name),
        Some(difference) => {
            let _ = writeln!(text, "\nThe profile {} differs: {}", profile.name, difference.reason);
            match &difference.change {
                Change::Skip => writeln!(text, "The case is not run."),
                Change::End(ending) => writeln!(text, "The connection must {ending}."),
                Change::Script(steps) => {
                    text += "This is what happens instead:\n\n";
                    script(&mut text, steps);
                    Ok(())
                }
            }
        }
    };
    text
}

fn script(text: &mut String, steps: &[Step]) {
    for (nth, step) in steps.iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {step}", nth + 1);
    }
}
