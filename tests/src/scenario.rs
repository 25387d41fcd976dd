//! Scenarios: programs in Python or Node that drive Sandhold through a foreign client and report on themselves.
//!
//! A scenario prints one line a check and, as its last line, `{"passed": n, "failed": n, "notes": [..]}`. A note says
//! what the machine could not show; the runner collects the notes and prints them at its end.

use std::{env, fs::OpenOptions, io::Write, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{places, run, turn};

/// Runs `tests/python/<script>` with the Python of `venv`. Returns the number of checks that passed.
///
/// # Errors
/// A check failed, no check ran, the script failed, or it took longer than `limit`.
pub fn python(venv: &str, script: &str, arguments: &[&str], limit: Duration) -> Result<u64> {
    let _turn = turn::shared()?;
    let folder = tempfile::Builder::new().prefix("sandhold-test-").tempdir()?;
    let mut command = Command::new(places::python(venv)?);
    command
        .arg("-u")
        .arg(places::tests().join("python").join(script))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SANDHOLD_BIN", places::sandhold()?)
        .env("SANDHOLD_TEST_SERVER", places::server()?)
        .env("SANDHOLD_HOME", folder.path().join("home"))
        .env("SANDHOLD_TEST_DIR", places::tests())
        .env("TMPDIR", folder.path())
        .env("NODE", places::node()?)
        .env("NODE_MODULES", places::node_module("")?)
        .current_dir(folder.path());
    own_settings_only(&mut command);
    let ended = run::run(&mut command, b"", limit)?;
    let name = format!("{script} {}", arguments.join(" "));
    report(&name, &ended)
}

/// Takes the caller's own settings for Sandhold out of the environment of `command`.
pub fn own_settings_only(command: &mut Command) -> &mut Command {
    for name in [
        "SANDHOLD_PROVIDER",
        "SANDHOLD_ISOLATION",
        "SANDHOLD_LOG",
        "SANDHOLD_URL",
        "SANDHOLD_API_KEY",
        "SANDHOLD_CA_FILE",
        "SANDHOLD_SECRETS",
        "SANDHOLD_CONFIRM",
        "SANDHOLD_ON_EXIT",
        "SANDHOLD_CHECKPOINT",
        "E2B_API_KEY",
        "E2B_DOMAIN",
        "E2B_API_URL",
        "E2B_SANDBOX_URL",
    ] {
        command.env_remove(name);
    }
    command
}

#[expect(clippy::print_stdout, reason = "what a scenario said is part of the test's output")]
fn report(name: &str, ended: &run::Ended) -> Result<u64> {
    // Without what went well: a runner may show only the beginning.
    let told = |line: &&str| !line.starts_with("ok ");
    let whole = || {
        let stdout: Vec<_> = ended.stdout.lines().filter(told).collect();
        format!("--- stdout\n{}\n--- stderr\n{}", stdout.join("\n"), ended.stderr)
    };
    let last = ended.stdout.lines().next_back().unwrap_or_default();
    let Ok(summary) = serde_json::from_str::<Value>(last) else {
        bail!("{name} ended without a report, exit code {}\n{}", ended.code(), whole());
    };
    for text in summary["notes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        note(text)?;
    }
    let failed = summary["failed"]
        .as_u64()
        .with_context(|| format!("{name}: no number of failures in {last}"))?;
    let passed = summary["passed"]
        .as_u64()
        .with_context(|| format!("{name}: no number of passes in {last}"))?;
    ensure!(
        failed == 0 && ended.code() == 0,
        "{name}: {failed} checks failed, exit code {}\n{}",
        ended.code(),
        whole()
    );
    ensure!(passed > 0, "{name}: no check ran\n{}", whole());
    println!("{name}: {passed} checks");
    println!("{}", ended.stdout);
    Ok(passed)
}

/// Tells what the machine could not show: in the test's output and, through the runner, at the end of the run.
///
/// # Errors
/// The file that the runner named could not be written.
#[expect(clippy::print_stdout, reason = "a test's output is where its notes belong")]
pub fn note(text: &str) -> Result<()> {
    println!("note: {text}");
    if let Some(path) = env::var_os("SANDHOLD_TEST_NOTES") {
        let user = rustix::process::getuid().as_raw();
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        writeln!(file, "as user id {user}: {text}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(script: &str) -> Result<u64> {
        let ended = run::run(Command::new("sh").args(["-c", script]), b"", Duration::from_secs(10))?;
        report("scenario", &ended)
    }

    #[test]
    fn only_checks_that_ran_and_passed_pass() {
        let _children = crate::CHILDREN.lock();
        assert_eq!(
            reported(r#"echo '{"passed": 2, "failed": 0, "notes": []}'"#).unwrap(),
            2
        );
        for bad in [
            r#"echo '{"passed": 2, "failed": 1, "notes": []}'"#,
            r#"echo '{"passed": 0, "failed": 0, "notes": []}'"#,
            r#"echo '{"passed": 2, "failed": 0, "notes": []}'; exit 1"#,
            "echo ok",
            "true",
        ] {
            assert!(reported(bad).is_err(), "{bad}");
        }
    }
}
