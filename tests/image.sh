#!/usr/bin/env bash
# Builds the run stage of the Dockerfile on a base made here, starts the image, and looks what its sandboxes are.
#
#   bash tests/image.sh FOLDER [BASE.tar]
#
# FOLDER holds `sandhold` and `sandhold-envd`. Without BASE.tar a Debian is made with mmdebstrap. Needs root, buildah and
# podman. Lines that begin with "note: " say what the machine could not show; the exit code is 0 when nothing failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
built=$(realpath "$1")
base=${2:-}
work=$(mktemp -d /var/tmp/sandhold-image.XXXXXX)
export STORAGE_DRIVER=vfs
root=("--root" "$work/storage" "--runroot" "$work/run")
trap 'podman "${root[@]}" system reset --force >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
failed=0

check() { # NAME WANTED TEXT
  if grep -Eq -- "$2" <<<"$3"; then
    echo "ok    $1"
  else
    printf 'FAIL  %s: no "%s" in:\n%s\n' "$1" "$2" "$3"
    failed=1
  fi
}

for program in buildah podman; do
  if ! command -v "$program" >/dev/null; then
    echo "note: the image was not built: there is no $program here"
    exit 0
  fi
done
if [ -z "$base" ]; then
  if ! command -v mmdebstrap >/dev/null; then
    echo "note: the image was not built: there is no mmdebstrap here to make its base with"
    exit 0
  fi
  base=$work/base.tar
  # A mirror may be some days old.
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,curl,git,libcap2-bin,python3,uidmap \
    --aptopt='Acquire::Check-Valid-Until "false"' stable "$base" 2>"$work/mmdebstrap.log" || {
    cat "$work/mmdebstrap.log"
    exit 1
  }
fi

mkdir -p "$work/stage/out/bin" "$work/context"
cp "$built/sandhold" "$built/sandhold-envd" "$work/stage/out/bin/"
chmod 755 "$work/stage/out/bin/"*
from=$(buildah "${root[@]}" from scratch)
buildah "${root[@]}" add --quiet "$from" "$base" / >/dev/null
buildah "${root[@]}" commit --quiet --rm "$from" localhost/sandhold-base >/dev/null
buildah "${root[@]}" build --quiet --isolation chroot --file Dockerfile --build-context "build=$work/stage" \
  --build-arg RUN_IMAGE=localhost/sandhold-base --tag localhost/sandhold "$work/context" >"$work/build.log" 2>&1 || {
  cat "$work/build.log"
  exit 1
}
echo "ok    the run stage builds"

# crun refuses machines with both kinds of cgroups, and podman wants limits raised that such machines do not give.
options=(--rm --network none --ulimit nofile=1024:20000 --ulimit nproc=4096:4096)
if command -v runc >/dev/null && [ -d /sys/fs/cgroup/unified ]; then
  options+=(--runtime runc)
fi
run() { podman "${root[@]}" --cgroup-manager cgroupfs run "${options[@]}" "$@" 2>&1; }
# The flags of deploy/README.md, in podman's spelling.
level=(--security-opt "seccomp=$PWD/deploy/seccomp.json" --security-opt unmask=ALL --security-opt apparmor=unconfined)

if ! said=$(run --entrypoint /usr/bin/id localhost/sandhold); then
  echo "note: the image was built but not started: podman cannot start any container here: $(tail -n 1 <<<"$said")"
  exit "$failed"
fi
check "the image's user is not root" 'uid=1000\(sandhold\)' "$said"
check "doctor, with the flags" 'Sandboxes work' "$(run "${level[@]}" localhost/sandhold doctor || true)"
check "a command in a sandbox" 'uid=1000\(user\)' "$(run "${level[@]}" localhost/sandhold run -- id || true)"
check "the programs of the image are the sandbox's" 'git version' "$(run "${level[@]}" localhost/sandhold run -- git --version || true)"
check "sudo: the sandbox has ids of its own" 'uid=0\(root\)' "$(run "${level[@]}" localhost/sandhold run -- sudo id || true)"
check "the image's own files are not" 'No such file' "$(run "${level[@]}" localhost/sandhold run -- ls /home/sandhold || true)"
exit "$failed"
