//! `sandhold doctor --prove`: what it says of this machine, and that it can say the opposite.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use sandhold_tests::{places, run, run::Ended, scenario, turn};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(300);

fn prove(program: &Path, arguments: &[&str]) -> Ended {
    let _turn = turn::shared().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command
        .args(["doctor", "--prove"])
        .args(arguments)
        .env("SANDHOLD_HOME", home.path());
    scenario::own_settings_only(&mut command);
    run::run(&mut command, b"", LIMIT).unwrap()
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// What is asserted of every sandbox, whatever the machine: facts that /proc tells inside, and their controls outside.
const FACTS: &[&str] = &[
    "capabilities",
    "capabilities-bounding",
    "no-new-privs",
    "seccomp",
    "namespace-user",
    "namespace-mnt",
    "namespace-pid",
    "namespace-net",
    "namespace-ipc",
    "namespace-uts",
    "namespace-cgroup",
    "mounts-nosuid",
    "inherited-descriptors",
    "host-file",
    "host-processes",
    "abstract-socket",
    "host-loopback-v4",
    "neighbour-tcp",
    "neighbour-file",
    "neighbour-process",
    "neighbour-lives",
    "unshare-user",
    "fork-bomb",
    "descriptor-bomb",
    "disk-bomb",
    "upload-link",
    "download-dots",
    "archive-climbs",
];

#[test]
fn everything_that_can_be_tested_here_is_held() {
    let ended = prove(&places::sandhold().unwrap(), &["--json"]);
    let report: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{} {}", ended.stdout, ended.stderr));
    let vectors = report["vectors"].as_array().unwrap();
    let of = |verdict: &str| -> Vec<&Value> { vectors.iter().filter(|row| row["verdict"] == verdict).collect() };
    assert_eq!(of("not_held"), Vec::<&Value>::new());
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let held = of("held");
    assert_eq!(report["held"], held.len());
    assert_eq!(report["tried"], vectors.len());
    // A vector counts as held only where its control got through. As root nearly all of them do; an ordinary user is
    // refused much on the host too.
    let least = if is_root() { 200 } else { 140 };
    assert!(
        held.len() >= least,
        "only {} of {} are held with a control",
        held.len(),
        vectors.len()
    );
    let mut groups: BTreeMap<u64, usize> = (1..=12).map(|group| (group, 0)).collect();
    for row in &held {
        *groups.get_mut(&row["group"].as_u64().unwrap()).expect("a group") += 1;
        assert!(!row["why"].as_str().unwrap().is_empty(), "{row}");
    }
    assert!(groups.values().all(|count| *count > 0), "{groups:?}");
    for name in FACTS {
        assert!(held.iter().any(|row| row["id"] == *name), "{name}");
    }
    for row in of("untestable") {
        assert!(!row["why"].as_str().unwrap().is_empty(), "{row}");
    }
    let untestable = of("untestable").len();
    scenario::note(&format!(
        "doctor --prove: {} held, {untestable} cannot be tested here",
        held.len()
    ))
    .unwrap();
}

#[test]
fn the_table_is_for_people() {
    let ended = prove(&places::sandhold().unwrap(), &[]);
    assert_eq!(ended.code(), 0, "{}{}", ended.stdout, ended.stderr);
    for text in [
        "1. proc and sys",
        "12. what the host reads",
        "  held                   make a user namespace: EPERM",
        "cannot be tested here",
        "All that can be tested here is held.",
    ] {
        assert!(ended.stdout.contains(text), "{text} in {}", ended.stdout);
    }
}

/// The positive control of the whole: the same program where nothing holds it.
#[test]
fn on_the_host_most_of_it_gets_through() {
    let _turn = turn::shared().unwrap();
    let daemon = places::sandhold().unwrap().with_file_name("sandhold-envd");
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(daemon);
    command.arg("--prove").current_dir(folder.path());
    let ended = run::run(&mut command, b"", LIMIT).unwrap();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |outcome: &str| lines.iter().filter(|line| line["outcome"] == outcome).count();
    let (held, not_held) = (of("held"), of("not_held"));
    if is_root() {
        assert!(
            not_held >= 110 && not_held > 2 * held,
            "{not_held} get through, {held} do not"
        );
    } else {
        assert!(not_held >= 50, "{not_held} get through, {held} do not");
    }
    for id in [
        "seccomp",
        "no-new-privs",
        "mounts-nosuid",
        "setns",
        "process-vm-readv",
        "name-to-handle-at",
        "personality",
    ] {
        let line = lines.iter().find(|line| line["id"] == id).unwrap();
        if id != "setns" || is_root() {
            assert_eq!(line["outcome"], "not_held", "{line}");
        }
    }
}

#[test]
fn where_nothing_can_be_tried_the_exit_code_tells() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("sandhold");
    fs::copy(places::sandhold().unwrap(), &alone).unwrap();
    let ended = prove(&alone, &["--json"]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("nothing could be tested"), "{}", ended.stderr);
    assert!(ended.stderr.contains("sandhold-envd"), "{}", ended.stderr);
}
