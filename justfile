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

# The published npm clients under the client cases of the conformance suite; writes docs/reports.
clients:
    tests/interop/conformance 0.7.1
    tests/interop/conformance 0.12.1

# Tokens of `satellite token` against PyJWT and jose, and the reverse.
cross:
    tests/cross/run

# Every state of the sessions and the registry, further than `just test` goes: a few minutes.
model:
    MODEL_DEPTH=2 cargo test --all-features --test model -- --nocapture --test-threads 1

# One thing goes wrong, at every point at which it can.
faults:
    cargo test --all-features --test faults

# The code that guards the handshake, broken in every way; hours. See tests/README.md.
mutants *PARTS:
    tests/mutants/run {{PARTS}}

# What it costs and how fast it is, in under ten minutes; see docs/PERFORMANCE.md.
bench *ARGS:
    cargo bench --features tls --bench performance -- {{ARGS}}

# A service under honest and hostile load for so many seconds, audited; see tests/soak.
soak SECONDS="600":
    SOAK_SECONDS={{SECONDS}} cargo test --all-features --test soak -- --nocapture

# Every order in which locks can be taken (loom), and in which a server's steps can happen.
concurrency:
    cargo test --manifest-path tests/concurrency/Cargo.toml --target-dir target/concurrency -- --nocapture
    INTERLEAVINGS=all cargo test --all-features --test interleavings -- --nocapture

# Licences, sources, advisories, Rust version, lowest versions, public API, package.
supply-chain:
    .ci/supply-chain

# Every fuzz target for so many seconds; see fuzz/README.md.
fuzz SECONDS *TARGETS:
    fuzz/run {{SECONDS}} {{TARGETS}}
