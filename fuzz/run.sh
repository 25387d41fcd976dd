#!/usr/bin/env bash
# Builds all targets with the project's own toolchain and runs each for some seconds, from the corpus that is checked in.
#   fuzz/run.sh [SECONDS [TARGET...]]
# FUZZ_JOBS: how many run side by side. FUZZ_OUT: where what made a target fail is left.
# With a nightly toolchain and cargo-fuzz, `cargo fuzz run TARGET` does the same with the address sanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-60}
shift || true
cache=$PWD/../.cache
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$cache/fuzz-target}
out=${FUZZ_OUT:-$cache/fuzz}
jobs=${FUZZ_JOBS:-2}
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz passes, but for the sanitizer, which a stable compiler does not have. It replaces the flags of
# .cargo/config.toml: the fuzzer is linked dynamically.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-$option"
done
export RUSTFLAGS
command -v c++ >/dev/null || { echo "fuzz: libFuzzer needs a C++ compiler, such as g++" >&2; exit 2; }
cargo build --quiet --release --bins --target "$host"

programs=$CARGO_TARGET_DIR/$host/release
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cd fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
mkdir -p "$out"

one() {
  local target=$1 status=0
  rm -rf "$out/$target"
  mkdir -p "$out/$target/found" "$out/$target/new"
  # What is new goes to the first folder; the corpus itself stays as it is.
  "$programs/$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -max_len=4096 -handle_xfsz=0 \
    -print_final_stats=1 -artifact_prefix="$out/$target/found/" "$out/$target/new" "corpus/$target" \
    >"$out/$target/log" 2>&1 || status=$?
  if [ "$status" = 0 ]; then
    rm -rf "$out/$target/new"
    printf 'fuzz: %-16s held, %s runs\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$target/log")"
  else
    tail -n 40 "$out/$target/log"
    echo "fuzz: $target FAILED; the input is in $out/$target/found, once mended it belongs to fuzz/corpus/$target"
    return 1
  fi
}
export -f one
export seconds out programs
printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I{} bash -c 'one "$1"' - {}
