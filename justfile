# Everyday commands; `just` lists them.

_:
    @just --list

# What CI runs.
ci:
    .ci/run

# The tests of the README.
test:
    cargo test --all-features

# Format, lint, documentation.
check:
    cargo fmt --check
    cargo clippy --all-targets --all-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# A service for development, and a client of it.
serve:
    AUTH_MODE=insecure cargo run --features cli -- serve

connect:
    cargo run -q --features cli -- connect ws://localhost:5133 --token "$(AUTH_MODE=insecure cargo run -q --features cli -- token --sub me)"

# The published npm clients against the service.
interop:
    tests/interop/run

# Tokens of `satellite token` against PyJWT and jose, and the reverse.
cross:
    tests/cross/run

# Instruction counts, sizes, what connections and streams cost; see benches/README.md.
bench:
    cargo bench --bench instructions
    cargo bench --bench sizes
    cargo bench --bench connections
    cargo bench --bench stream

# Every fuzz target for so many seconds; see fuzz/README.md.
fuzz SECONDS *TARGETS:
    fuzz/run {{SECONDS}} {{TARGETS}}

# Licences, sources, duplicates (needs cargo-deny).
deny:
    cargo deny --all-features check bans licenses sources
