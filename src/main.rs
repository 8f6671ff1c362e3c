//! The `satellite` binary: a service, a token mint, a connection check, and the conformance
//! suite.
#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
