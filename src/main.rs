//! The `satellite` binary: a service, a token mint and a connection check.
#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
