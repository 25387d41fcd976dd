# The tasks of the project. `just` alone lists them.

_list:
    @just --list --unsorted

# Everything CI asks of a change, and what it does not have the time for
check: fmt lint deny
    cargo xtask check
    bash tests/run.sh

# Formats check
fmt:
    cargo fmt --all --check

# Warnings are errors
lint:
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Licences, advisories, bans, sources
deny:
    @command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
    cargo deny --all-features check

# Installs what the tests need and runs them all
test:
    bash tests/run.sh

# Feeds what parses bytes of strangers with bytes that nobody would send, each target for so many seconds
fuzz seconds="60" *targets:
    bash fuzz/run.sh {{seconds}} {{targets}}

# Side by side: Sandhold, bubblewrap, runc, the bare host
bench *args:
    bash benches/run.sh {{args}}

# Rewrites what is generated: schemas, the table of tools in the README
generate:
    cargo xtask generate
