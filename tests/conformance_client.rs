//! `satellite conformance client`: a client as a process, and what becomes of clients that are none.
#![cfg(all(feature = "cli", unix))]

mod raw;
mod service;

use std::{env, fs, path::PathBuf};

use tokio::process::Command;

use service::{Said, run, satellite};

/// The suite, for these cases, against a command.
fn suite(options: &[&str], command: &[&str]) -> Command {
    let arguments = [&["conformance", "client"], options, &["--"], command].concat();
    let mut suite = satellite(&arguments);
    // The command finds the shell, and the program that it is.
    suite.env("PATH", env::var_os("PATH").unwrap_or_default());
    suite.env("SATELLITE", env!("CARGO_BIN_EXE_satellite"));
    suite.current_dir(env!("CARGO_MANIFEST_DIR"));
    suite
}

async fn runs(options: &[&str], command: &[&str]) -> Said {
    run(suite(options, command)).await
}

const OURS: &[&str] = &["tests/conformance/satellite-client"];

/// A file in the folder of this test run.
fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("a file");
    path.into_os_string().into_string().expect("a path")
}

#[tokio::test]
async fn connect_follow_passes_as_a_process() {
    let cases =
        "SAT-C-UPG-001,SAT-C-AUTH-003,SAT-C-START-011,SAT-C-SUB-004,SAT-C-END-001,SAT-C-END-014";
    let said = runs(&["--only", cases], OURS).await;
    assert!(said.stdout.contains("6 passed of 6 cases"), "{}\n{}", said.stdout, said.stderr);
    assert_eq!(said.code, Some(0));
}

#[tokio::test]
async fn a_signed_token_is_presented_where_the_variables_say_how_to_sign() {
    let command = ["sh", "-c", "case $SATELLITE_TOKEN in *.*.?*) echo signed;; esac; exit 1"];
    let mut suite = suite(&["--only", "SAT-C-UPG-001", "--verbose"], &command);
    suite.env("AUTH_JWT_ALG", "HS256").env("AUTH_JWT_KEY", raw::SECRET);
    let said = run(suite).await;
    assert!(said.stdout.contains("it prints: signed"), "{}", said.stdout);
}

#[tokio::test]
async fn a_client_that_does_not_do_what_it_is_asked_to_is_skipped() {
    let said = runs(&["--only", "SAT-C-STOP"], &["sh", "-c", "exit 77"]).await;
    assert!(said.stdout.contains("4 skipped of 4 cases"), "{}", said.stdout);
    assert_eq!(said.code, Some(0));
}

#[tokio::test]
async fn a_client_that_exits_fails_with_that_reason() {
    let said = runs(&["--only", "SAT-C-UPG-001"], &["sh", "-c", "echo why >&2; exit 3"]).await;
    assert!(said.stdout.contains("it has exited: Failure(\"exit status: 3\")"), "{}", said.stdout);
    assert_eq!(said.code, Some(1));
}

#[tokio::test]
async fn a_command_that_is_none_fails_every_case() {
    let said = runs(&["--only", "SAT-C-START"], &["/no/such/program"]).await;
    assert!(said.stdout.contains("the client cannot be started"), "{}", said.stdout);
    assert!(said.stdout.contains("32 failed of 32 cases"), "{}", said.stdout);
    assert_eq!(said.code, Some(1));
}

#[tokio::test]
async fn known_failures_do_not_count_unless_they_pass() {
    let (known, report) =
        (file("known", "# Known.\nSAT-C-UPG-001  # It | exits.\n"), file("report.md", ""));
    let options =
        ["--only", "SAT-C-UPG-001", "--known", &known, "--markdown", &report, "--note", "By hand."];
    let said = runs(&options, &["false"]).await;
    assert!(said.stdout.contains("1 known failure of 1 case"), "{}", said.stdout);
    assert_eq!(said.code, Some(0));
    let report = fs::read_to_string(report).expect("a report");
    assert!(report.contains("It \\| exits.") && report.contains("By hand."), "{report}");

    let said = runs(&["--only", "SAT-C-UPG-001", "--known", &known], OURS).await;
    assert!(said.stdout.contains("1 passes now of 1 case"), "{}", said.stdout);
    assert_eq!(said.code, Some(1));
}

#[tokio::test]
async fn there_must_be_cases_and_a_command() {
    let said = runs(&["--only", "SAT-NONE"], OURS).await;
    assert!(said.stderr.contains("no case is called SAT-NONE"), "{}", said.stderr);
    assert_eq!(said.code, Some(2));
    assert_eq!(run(satellite(&["conformance", "client"])).await.code, Some(2));
}
