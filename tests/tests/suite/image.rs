//! The image of the Dockerfile, built and started; and its seccomp profile beside the engine's policy.

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use sandhold_tests::{places, run, scenario};
use serde_json::Value;

/// Asks for the test that needs root, buildah, podman, some minutes, and Debian's mirrors or the base that
/// `SANDHOLD_TEST_IMAGE_BASE` names.
const ASKED: &str = "SANDHOLD_TEST_IMAGE";

#[test]
fn the_image_runs_sandboxes() {
    if std::env::var_os(ASKED).is_none() {
        let why =
            format!("the image was not built: that takes minutes, root and Debian's mirrors; {ASKED}=1 asks for it");
        scenario::note(&why).unwrap();
        return;
    }
    let sandhold = places::sandhold().unwrap();
    let mut command = Command::new("bash");
    command
        .arg(places::tests().join("image.sh"))
        .arg(sandhold.parent().unwrap());
    command.args(std::env::var_os("SANDHOLD_TEST_IMAGE_BASE"));
    let ended = run::run(&mut command, b"", Duration::from_secs(600)).unwrap();
    for line in ended.stdout.lines().filter_map(|line| line.strip_prefix("note: ")) {
        scenario::note(line).unwrap();
    }
    assert!(
        ended.code() == 0 && !ended.stdout.contains("FAIL"),
        "exit code {}\n{}\n{}",
        ended.code(),
        ended.stdout,
        ended.stderr
    );
}

fn json(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn names(rules: &Value, list: &str, action: &str, of: &str) -> BTreeSet<String> {
    rules[list]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["action"] == action)
        .flat_map(|rule| rule[of].as_array().unwrap())
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

/// Run only from the sources: users whose tests are a copy have no engine beside them.
#[test]
fn the_images_profile_allows_what_sandboxes_may() {
    if !Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/seccomp.json")
        .exists()
    {
        return;
    }
    let profile = json("deploy/seccomp.json");
    let allowed = names(&profile, "syscalls", "SCMP_ACT_ALLOW", "names");
    let policy = json("crates/engine/policy/seccomp.json");
    let inside = names(&policy, "groups", "allow", "syscalls");
    let missing: Vec<_> = inside.difference(&allowed).collect();
    assert!(inside.len() > 200 && missing.is_empty(), "{missing:?}");
    // And the engine's own, by name: what a sandbox must not call.
    for name in [
        "clone3",
        "unshare",
        "setns",
        "mount",
        "fsopen",
        "move_mount",
        "mount_setattr",
        "pivot_root",
        "sethostname",
    ] {
        assert!(allowed.contains(name), "{name}");
    }
    for name in [
        "bpf",
        "kexec_load",
        "init_module",
        "io_uring_setup",
        "keyctl",
        "userfaultfd",
        "ptrace",
        "reboot",
    ] {
        assert!(!allowed.contains(name), "{name}");
    }
}
