#!/usr/bin/env bash
# Installs what the tests need, builds Sandhold once, and runs every test: the whole workspace as whoever calls this,
# and, called by root, the suites once more as two ordinary users, one with sub-ids and one without.
#
#   bash tests/run.sh [FILTER]     FILTER: only tests whose name contains it
#
# Needs Rust and, for what is not there yet, the registries of Debian, PyPI and npm. Everything but Debian's packages
# and the two users goes to .cache/ and to the folder of the build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD
filter=${1:-}
cache=${SANDHOLD_TEST_CACHE:-$top/.cache}
passed=0
failed=0
log=$(mktemp)
notes=$(mktemp)
kit=
trap 'rm -rf "$log" "$notes" ${kit:+"$kit"}' EXIT

say() { printf '\n== %s\n' "$*"; }
die() {
  printf 'tests/run.sh: %s\n' "$*" >&2
  exit 1
}

# --- what the tests need -------------------------------------------------------------------------------------------

debian_packages() {
  local wanted=(ca-certificates git python3 python3-venv uidmap) missing=() package
  command -v cc >/dev/null || wanted+=(gcc libc6-dev)
  command -v npm >/dev/null || wanted+=(nodejs npm)
  for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || die "missing Debian packages; run as root: apt-get install ${missing[*]}"
  say "Debian packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Programs that people use in a terminal, and a browser. Where one cannot be had, its scenario says that it was not shown.
programs() {
  local missing=() pair
  for pair in chromium:chromium vim:vim less:less top:procps htop:htop; do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -eq 0 ] || [ "$(id -u)" != 0 ] && return
  say "Debian packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    echo "not installed: ${missing[*]}"
}

# venv NAME: a virtual environment from tests/python/NAME.txt. Made with the system's Python: ordinary users reach it.
venv() {
  local name=$1 list=tests/python/$1.txt folder=$cache/$1
  cmp -s "$list" "$folder/installed.txt" && return
  say "Python: $list"
  rm -rf "$folder"
  /usr/bin/python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$list"
  cp "$list" "$folder/installed.txt"
}

node_modules() {
  local folder=$cache/node
  cmp -s tests/node/package-lock.json "$folder/installed.json" && return
  say "Node: tests/node/package-lock.json"
  rm -rf "$folder"
  mkdir -p "$folder"
  cp tests/node/package.json tests/node/package-lock.json tests/node/.npmrc "$folder/"
  (cd "$folder" && npm ci --ignore-scripts --silent --no-progress)
  cp tests/node/package-lock.json "$folder/installed.json"
}

# An ordinary user with a range of sub-ids, and one without.
users() {
  id sandhold-test >/dev/null 2>&1 || useradd --create-home --shell /bin/bash sandhold-test
  id sandhold-nosub >/dev/null 2>&1 ||
    useradd --create-home --shell /bin/bash -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 sandhold-nosub
  touch /etc/subuid /etc/subgid
  grep -q '^sandhold-test:' /etc/subuid || usermod --add-subuids 2000000000-2000065535 sandhold-test
  grep -q '^sandhold-test:' /etc/subgid || usermod --add-subgids 2000000000-2000065535 sandhold-test
}

command -v cargo >/dev/null || die "Rust is missing: https://rustup.rs"
# On another system its own packages are looked for where they are used.
if command -v dpkg-query >/dev/null; then
  debian_packages
  programs
fi
/usr/bin/python3 -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' ||
  die "/usr/bin/python3 has to be 3.11 or newer, with venv"
mkdir -p "$cache"
venv venv
venv venv-v1
venv venv-agents
venv venv-e2b-2.45.1
venv venv-e2b-2.0.0
venv venv-e2b-1.5.0
node_modules
[ "$(id -u)" = 0 ] && users

# --- build ---------------------------------------------------------------------------------------------------------

say "build"
host=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-$top/target}/$host/debug
cargo build --locked --quiet --workspace --all-targets
suite=$(cargo test --locked --quiet --workspace --all-targets --no-run --message-format json 2>/dev/null |
  sed -n 's/.*"name":"suite".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$built/sandhold" ] && [ -x "$built/sandhold-envd" ] || die "the build left no $built/sandhold and sandhold-envd"
[ -x "$suite" ] || die "the build left no suite"

# --- run -----------------------------------------------------------------------------------------------------------

# Adds the last run's summaries, of nextest or of libtest, to the totals.
count() {
  local before=$((passed + failed)) p f
  while read -r p f; do
    passed=$((passed + p))
    failed=$((failed + f))
  done < <(sed -e 's/\x1b\[[0-9;]*m//g' "$log" | awk '
    /^ *Summary \[/ { p = 0; f = 0
      for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p = $(i - 1); if ($i ~ /^(failed|timed)/) f += $(i - 1) }
      print p, f }
    /^test result: / { p = 0; f = 0
      for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p = $(i - 1); if ($i ~ /^failed/) f = $(i - 1) }
      print p, f }')
  [ $((passed + failed)) -gt "$before" ]
}

# settle STATUS WHO: a run that failed, or that ran nothing, counts as a failure even if no test says so.
settle() {
  local before=$failed
  if ! count && [ -z "$filter" ]; then
    echo "no test ran: $2"
    failed=$((failed + 1))
  elif [ "$1" -ne 0 ] && [ "$failed" -eq "$before" ]; then
    echo "the run failed without naming a test: $2"
    failed=$((failed + 1))
  fi
}

export SANDHOLD_BIN=$built/sandhold SANDHOLD_TEST_CACHE=$cache SANDHOLD_TEST_NOTES=$notes
say "every test, as $(id -un)"
status=0
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --workspace --all-targets --no-tests pass ${filter:+"$filter"} 2>&1 | tee "$log" || status=$?
else
  cargo test --locked --workspace --all-targets --no-fail-fast -- --test-threads 4 ${filter:+"$filter"} 2>&1 | tee "$log" || status=$?
fi
settle "$status" "cargo as $(id -un)"

# What is the same whoever runs it: other ways to the same sandboxes, and other people's clients.
same=(foreign:: with_sandboxes_of_serve plain_daemon without_our_endpoints a_daemon_like every_tool_over_http
  e2b_2_45 e2b_2_0 e2b_1_5 e2b_for_javascript the_user_is_asked the_transport_of templates_on_a_server_elsewhere)

# as_user NAME: the suites as an ordinary user, from a folder that this user can read.
as_user() {
  say "the suites, as $1"
  status=0
  runuser -u "$1" -- env -i HOME="/home/$1" USER="$1" LOGNAME="$1" PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 \
    CI="${CI:-}" SANDHOLD_BIN="$kit/sandhold" SANDHOLD_TEST_CACHE="$kit/cache" SANDHOLD_TEST_DIR="$kit/tests" \
    SANDHOLD_TEST_NOTES="$notes" "$kit/suite" --test-threads 4 "${same[@]/#/--skip=}" ${filter:+"$filter"} 2>&1 | tee "$log" || status=$?
  settle "$status" "the suites as $1"
}

if [ "$(id -u)" = 0 ]; then
  kit=$(mktemp -d /var/tmp/sandhold-tests.XXXXXX)
  chmod 755 "$kit"
  chmod 666 "$notes"
  cp "$built/sandhold" "$built/sandhold-envd" "$built/sandhold-test-server" "$kit/"
  cp "$suite" "$kit/suite"
  cp -r tests "$kit/tests"
  cp README.md "$kit/"
  if runuser -u sandhold-nosub -- test -x "$cache/venv/bin/python"; then
    ln -s "$cache" "$kit/cache"
  else
    mkdir "$kit/cache"
    cp -a "$cache"/venv* "$cache/node" "$kit/cache/"
  fi
  chmod -R go+rX "$kit"
  as_user sandhold-test
  as_user sandhold-nosub
fi

if [ -s "$notes" ]; then
  say "what this machine could not show"
  sort -u "$notes"
fi
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
