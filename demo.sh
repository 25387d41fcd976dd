#!/usr/bin/env bash
# Builds both programs and shows an agent's calls in a real sandbox. Needs Rust and a C compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cargo build --release --locked --package sandhold
host=$(rustc -vV | sed -n 's/^host: //p')
exec "${CARGO_TARGET_DIR:-target}/$host/release/sandhold" demo
