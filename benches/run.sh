#!/usr/bin/env bash
# Sandhold beside bubblewrap, runc, ripgrep, zip and the bare host, in one run: median and 95th percentile, and whether the aims
# are met.
#
#   bash benches/run.sh [--quick]
#   bash benches/run.sh --bombs              what a sandbox notices of another one that takes all it can get
#   bash benches/run.sh --serve [--quick]    sandhold serve under load, and a large file beside nginx
#   bash benches/run.sh --layers [--quick] [create] [states] [image] [crowd]
#                                            spare sandboxes, forks and snapshots, images, a thousand sandboxes at once
#
# As root it installs bubblewrap, ripgrep, runc and zip from Debian, for --layers umoci and podman; nginx is unpacked, not installed: its package starts a
# service. What is not there is told and left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
programs=(bwrap:bubblewrap rg:ripgrep runc:runc zip:zip)
if [[ " $* " == *" --layers "* ]]; then
  programs=(bwrap:bubblewrap umoci:umoci podman:podman)
fi
for program in "${programs[@]}"; do
  PATH=$PATH:/usr/sbin command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
done
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

nginx=$PWD/.cache/tools/nginx
if [[ " $* " == *" --serve "* ]] && ! command -v nginx >/dev/null && [ ! -d "$nginx" ] && command -v apt-get >/dev/null; then
  mkdir -p "$nginx"
  (cd "$nginx" && apt-get download -qq nginx 2>/dev/null && dpkg -x nginx_*.deb . && rm nginx_*.deb) || rm -rf "$nginx"
fi
export SANDHOLD_BENCH_NGINX=$nginx/usr/sbin/nginx

cargo build --locked --release --package sandhold --package sandhold-benches
host=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-$PWD/target}/$host/release
SANDHOLD_BIN=$built/sandhold exec "$built/sandhold-benches" "$@"
