//! The machine that all of this runs on.

use std::{env, fs, num::NonZero, process::Command, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

/// Raises the limit of open files, of this process and of those that it starts, as far as it may.
pub(crate) fn open_as_many_files_as_possible() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many files, and so connections, a process may have open.
pub(crate) fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| limit.try_into().ok()).unwrap_or(usize::MAX) // "unlimited"
}

/// What it is, as far as it says so.
pub(crate) fn description() -> Value {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    json!({
        "cores": thread::available_parallelism().map_or(0, NonZero::get),
        "cpu": model.map(|model| model.trim_start_matches([' ', '\t', ':'])),
        "kernel": kernel.as_deref().map(str::trim),
    })
}

/// What is measured, if git knows.
pub(crate) fn commit() -> Option<String> {
    let git = Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--exclude=*",
            "--dirty",
            "--abbrev=40",
        ])
        .output();
    let text = String::from_utf8(git.ok().filter(|git| git.status.success())?.stdout).ok()?;
    Some(text.trim().to_owned())
}
