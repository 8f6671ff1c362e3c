//! The law of the house: a file in `src/` imports only from files above it in this list. Reading
//! order is dependency order, and nothing is entangled.

use std::{fs, path::Path};

/// The modules of the crate, from the ground up. Those of one row may import each other; a
/// sub-module belongs to the row of its parent.
const ROWS: &[&[&str]] = &[
    &["wire"],
    &["session"],
    &["auth"],
    &["registry"],
    &["transport"],
    &["server", "client"],
    &["conformance"],
    &["main", "cli"],
];

#[test]
fn every_file_imports_only_from_files_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files_of(&src);
    assert!(files.contains(&"lib.rs".into()), "{files:?}");
    let breaches: Vec<String> = files
        .iter()
        .flat_map(|file| breaches(file, &fs::read_to_string(src.join(file)).unwrap()))
        .collect();
    assert!(breaches.is_empty(), "the law of the house is broken:\n{}", breaches.join("\n"));
}

/// The files of a folder and its folders, by their paths in it.
fn files_of(folder: &Path) -> Vec<String> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_of(&entry.path()).iter().map(|file| format!("{name}/{file}")));
        } else if name.ends_with(".rs") {
            files.push(name);
        }
    }
    files.sort();
    files
}

/// What a file does against the law.
fn breaches(file: &str, source: &str) -> Vec<String> {
    let module = module_of(file);
    let tokens = tokens(source);
    if module.is_empty() {
        return match only_declares(&tokens) {
            true => vec![],
            false => vec![format!("src/{file}: it declares and re-exports, and does nothing else")],
        };
    }
    let Some(own) = row(&module[0]) else {
        return vec![format!("src/{file}: {}", unlisted(&module[0]))];
    };
    let breach = |import: String| match row(&import) {
        None => Some(format!("src/{file}: {}", unlisted(&import))),
        Some(row) if row > own => {
            Some(format!("src/{file}: it imports `{import}`, which is below `{}`", module[0]))
        }
        Some(_) => None,
    };
    imports(&module, &tokens).into_iter().filter_map(breach).collect()
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn unlisted(module: &str) -> String {
    format!("`{module}` is not in ROWS in tests/house.rs: give it its place there")
}

/// The path of the module that a file holds: empty for `lib.rs`.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').filter(|name| *name != "lib").map(str::to_owned).collect()
}

/// Whether there are only modules and re-exports, and attributes on them.
fn only_declares(tokens: &[String]) -> bool {
    let mut rest = tokens;
    while let [first, ..] = rest {
        // An attribute ends with a bracket, everything else with a semicolon.
        let end = if first == "#" { "]" } else { ";" };
        let Some(length) = rest.iter().position(|token| token == end) else { return false };
        let words: Vec<&str> = rest[..length].iter().map(String::as_str).collect();
        match words[..] {
            ["#", ..] | ["mod", _] | ["pub", "mod", _] | ["pub", "use", ..] => {}
            _ => return false,
        }
        rest = &rest[length + 1..];
    }
    true
}

/// The modules at the root that the paths in a file begin with.
fn imports(module: &[String], tokens: &[String]) -> Vec<String> {
    let mut found = vec![];
    // The module here, with those that are written out in the file; and where each of them ends.
    let mut here = module.to_vec();
    let mut depth = 0;
    let mut ends = vec![];
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => {
                depth += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    here.push(tokens[at - 1].clone());
                    ends.push(depth);
                }
            }
            "}" => {
                if ends.pop_if(|end| *end == depth).is_some() {
                    here.pop();
                }
                depth -= 1;
            }
            // What follows `::` goes on with a path that has begun before.
            "crate" | "super" if at == 0 || tokens[at - 1] != "::" => {
                found.extend(targets(&here, &tokens[at..]));
            }
            _ => {}
        }
    }
    found
}

/// The modules at the root that a path leads to, from `here`: several if it ends in braces.
fn targets(here: &[String], path: &[String]) -> Vec<String> {
    let mut base = if path[0] == "crate" { &[] } else { here };
    let mut rest = path;
    while let [step, after @ ..] = rest
        && (step == "crate" || step == "super")
    {
        if step == "super" {
            base = &base[..base.len().saturating_sub(1)];
        }
        match after {
            [colons, after @ ..] if colons == "::" => rest = after,
            // A visibility, such as `pub(crate)`.
            _ => return vec![],
        }
    }
    match (base, rest) {
        ([root, ..], _) => vec![root.clone()],
        ([], [brace, group @ ..]) if brace == "{" => heads(group),
        ([], [name, ..]) => vec![name.clone()],
        ([], []) => vec![],
    }
}

/// The names that the elements of a group begin with.
fn heads(group: &[String]) -> Vec<String> {
    let mut heads = vec![];
    let mut depth = 0;
    let mut at_head = true;
    for token in group {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 0 => break,
            "}" => depth -= 1,
            "," => at_head = depth == 0,
            name if at_head => {
                heads.push(name.to_owned());
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// The words and signs of a source text, without comments and literals. `::` is one sign.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = vec![];
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if let Some(length) = ignored(rest) {
            rest = &rest[length..];
            continue;
        } else if rest.starts_with("::") {
            2
        } else {
            let word = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
            word.max(first.len_utf8())
        };
        tokens.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    tokens
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How much of what begins here is white space, a comment or a literal.
fn ignored(text: &str) -> Option<usize> {
    let to = |end: &str, from: usize| {
        text[from..].find(end).map_or(text.len(), |at| from + at + end.len())
    };
    if text.starts_with(char::is_whitespace) {
        Some(text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len()))
    } else if text.starts_with("//") {
        Some(to("\n", 2))
    } else if text.starts_with("/*") {
        Some(to("*/", 2))
    } else if let Some(hashes) = raw_string(text) {
        Some(to(&format!("\"{hashes}"), 2 + hashes.len() + usize::from(text.starts_with("br"))))
    } else if text.starts_with('"') {
        Some(quoted(text, '"'))
    } else if text.starts_with("'\\") || text.chars().nth(2) == Some('\'') {
        // Not a lifetime.
        text.starts_with('\'').then(|| quoted(text, '\''))
    } else {
        None
    }
}

/// The `#`s of a raw string that begins here.
fn raw_string(text: &str) -> Option<&str> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let quote = after.find('"')?;
    after[..quote].chars().all(|c| c == '#').then_some(&after[..quote])
}

/// How long the literal is that begins with this quote.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        // The opening quote counts as escaped.
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

// ---- The test is tested ----

#[track_caller]
fn breaks(file: &str, source: &str, expected: &[&str]) {
    let breaches = breaches(file, source);
    assert_eq!(breaches.len(), expected.len(), "{breaches:?}");
    for (breach, expected) in breaches.iter().zip(expected) {
        assert!(breach.contains(expected), "{breach:?} does not tell {expected:?}");
    }
}

#[track_caller]
fn keeps(file: &str, source: &str) {
    breaks(file, source, &[]);
}

#[test]
fn importing_from_above_and_from_the_own_row_is_lawful() {
    keeps("auth.rs", "mod keys; use crate::{session::Token, wire::proto::*}; use keys::Key;");
    keeps("server/upgrade.rs", "use crate::client::Connector; use super::Options;");
    keeps("client.rs", "use crate::server::Server;");
    keeps("session/server.rs", "use super::{Token, client::ClientSession, super::wire::Message};");
    keeps("main.rs", "mod cli; fn main() { cli::main() }");
    keeps("cli/serve.rs", "use electric_satellite::conformance; use super::Auth;");
}

#[test]
fn importing_from_below_is_a_breach_in_every_way_of_writing_it() {
    for source in [
        "use crate::auth::Key;",
        "use crate::auth;",
        "use crate :: auth :: { Key , KeyError } ;",
        "use crate::{wire::Message, auth::{Key, keys::Family}};",
        "use crate::{\n    auth as a,\n    wire,\n};",
        "pub(crate) use crate::auth::Key;",
        "fn f() -> crate::auth::Key { todo!() }",
        "impl From<crate::auth::Key> for u8 {}",
        "use super::auth::Key;",
        "use super::{wire::Message, auth::Key};",
        "mod tests { use super::super::auth::Key; }",
        "mod tests { mod more { use super::super::super::auth::Key; } }",
        "macro_rules! m { () => { $crate::auth::Key }; }",
        "/* a comment */ use /* another */ crate::auth::Key;",
        "const S: &str = \"\\\"//\"; use crate::auth::Key;",
        "const C: char = '\"'; use crate::auth::Key;",
        "const R: &str = r#\"a \" quote\"#; use crate::auth::Key;",
        "fn f<'a>(x: &'a str) {} use crate::auth::Key;",
    ] {
        breaks("session.rs", source, &["it imports `auth`, which is below `session`"]);
    }
    breaks("wire/rpc.rs", "use super::super::session::Token;", &["imports `session`"]);
    breaks("wire/rpc.rs", "use crate::{auth, session};", &["imports `auth`", "imports `session`"]);
}

#[test]
fn what_is_no_import_is_no_breach() {
    for source in [
        "// use crate::auth::Key;",
        "/// ```\n/// use crate::auth::Key;\n/// ```\nstruct S;",
        "/* use crate::auth::Key; */",
        "const S: &str = \"use crate::auth::Key;\";",
        "const S: &str = \"\\\\\"; // use crate::auth::Key;",
        "const S: &str = r#\"\"use crate::auth::Key;\"\"#;",
        "const S: &[u8] = br\"use crate::auth::Key;\";",
        "pub(crate) struct S; pub(super) struct T; pub(in crate::session) struct U;",
        "mod tests { use super::*; } mod more { use super::Token; }",
        "fn f() { if true { } } mod tests { fn g() { { } } use super::Token; }",
        "use self::auth::Key;",
        "use other::crate_::auth;",
    ] {
        keeps("session.rs", source);
    }
}

#[test]
fn a_module_without_a_place_is_told_to_take_one() {
    let place = "`metrics` is not in ROWS in tests/house.rs";
    breaks("metrics.rs", "", &[place]);
    breaks("metrics/counters.rs", "use super::Counter;", &[place]);
    breaks("transport.rs", "use crate::metrics::Counter;", &[place]);
    // What is re-exported at the root is imported from where it is.
    breaks("transport.rs", "use crate::Token;", &["`Token` is not in ROWS"]);
}

#[test]
fn no_import_of_the_real_files_is_overlooked() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files_of(&src) {
        let source = fs::read_to_string(src.join(&file)).unwrap();
        let lines = source.lines().filter(|line| line.trim().starts_with("use crate::")).count();
        let found = imports(&module_of(&file), &tokens(&source)).len();
        assert!(found >= lines, "src/{file}: {found} imports found in {lines} lines");
    }
}

#[test]
fn the_root_declares_and_does_nothing_else() {
    keeps(
        "lib.rs",
        "//! Docs.\n#![forbid(unsafe_code)]\n/// Docs.\npub mod wire;\nmod hidden;\n\
         #[cfg(feature = \"x\")]\npub mod x;\n#[doc(inline)]\npub use wire::{Message, Version};",
    );
    for source in ["pub fn f() {}", "pub mod wire; struct S;", "mod m { }", "use wire::Message;"] {
        breaks("lib.rs", source, &["declares and re-exports"]);
    }
}
