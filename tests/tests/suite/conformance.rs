//! The official conformance suite, 0.2.0-alpha.12, for both protocol eras. What is expected to fail stands with its
//! reason in `tests/conformance/*.yaml`; an entry that no longer fails makes the run fail too.

use std::{process::Command, time::Duration};

use sandhold_tests::{places, run, scenario, turn};

use crate::inspector::Http;

fn conforms(version: &str) {
    let _turn = turn::shared().unwrap();
    let home = tempfile::tempdir().unwrap();
    let server = Http::start(home.path(), &["--no-token"]);
    let mut command = Command::new(places::node().unwrap());
    command
        .arg(places::node_module("@modelcontextprotocol/conformance/dist/index.js").unwrap())
        .args([
            "server",
            "--url",
            &server.url,
            "--suite",
            "all",
            "--spec-version",
            version,
        ])
        .arg("--expected-failures")
        .arg(places::tests().join("conformance").join(format!("{version}.yaml")))
        .arg("--output-dir")
        .arg(home.path().join("out"))
        .env("HOME", home.path())
        .current_dir(home.path());
    let ended = run::run(scenario::own_settings_only(&mut command), b"", Duration::from_secs(300)).unwrap();
    assert_eq!(ended.code(), 0, "{}\n{}", ended.stdout, ended.stderr);
    // A run that tested nothing would pass as well.
    let passed = ended.stdout.matches('✓').count();
    assert!(passed >= 8, "only {passed} scenarios passed:\n{}", ended.stdout);
}

#[test]
fn protocol_2025_11_25() {
    conforms("2025-11-25");
}

#[test]
fn protocol_2026_07_28() {
    conforms("2026-07-28");
}
