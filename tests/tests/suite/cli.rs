//! `sandhold run`, `sandhold doctor`, `--help`, and what is said when the daemon beside the program does not fit.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sandhold_tests::{machine, places, run, run::Ended, scenario, turn};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn command(home: &Path) -> Command {
    let mut command = Command::new(places::sandhold().unwrap());
    command.env("SANDHOLD_HOME", home);
    scenario::own_settings_only(&mut command);
    command
}

fn sandhold<S: AsRef<OsStr>>(arguments: &[S], input: &str) -> Ended {
    let _turn = turn::shared().unwrap();
    let home = tempfile::tempdir().unwrap();
    run::run(command(home.path()).args(arguments), input.as_bytes(), LIMIT).unwrap()
}

#[test]
fn run_passes_output_and_exit_code_on() {
    let ended = sandhold(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], "");
    assert_eq!((ended.code(), ended.stdout.as_str()), (7, "out\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("err\n"), "{}", ended.stderr);
    assert_eq!(sandhold(&["run", "true"], "").code(), 0);
}

#[test]
fn run_passes_arguments_as_they_are() {
    let ended = sandhold(&["run", "--", "printf", "%s|", "a b", "$HOME", "*", "", "it's"], "");
    assert_eq!(ended.stdout, "a b|$HOME|*||it's|", "{}", ended.stderr);
}

#[test]
fn tools_are_printed_for_other_stacks() {
    let printed = |arguments: &[&str]| {
        let ended = sandhold(&[&["tools"], arguments].concat(), "");
        assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    let mcp = printed(&[]);
    let all = mcp["tools"].as_array().unwrap().len();
    assert!(all > 30, "{all} tools");
    assert_eq!(printed(&["--format", "openai"]).as_array().unwrap().len(), all);
    assert_eq!(printed(&["--format", "anthropic"]).as_array().unwrap().len(), all);
    let gemini = printed(&["--format", "gemini"]);
    assert_eq!(gemini["functionDeclarations"].as_array().unwrap().len(), all);
    let one = printed(&["--format", "openai", "--tools", "run_command"]);
    assert_eq!(one[0]["function"]["name"], "run_command");
    assert_eq!(one.as_array().unwrap().len(), 1);
    let refused = sandhold(&["tools", "--toolsets", "disk"], "");
    assert!(
        refused.code() != 0 && refused.stderr.contains("there is no toolset \"disk\""),
        "{}",
        refused.stderr
    );
}

#[test]
fn run_passes_standard_input() {
    let ended = sandhold(&["run", "--", "sh", "-c", "wc -c; cat"], &"x".repeat(300_000));
    assert_eq!(ended.stdout.trim(), "300000", "{}", ended.stderr);
    let ended = sandhold(&["run", "--", "cat"], "to the end\n");
    assert_eq!(ended.stdout, "to the end\n", "{}", ended.stderr);
}

#[test]
fn run_knows_users_folders_and_environment() {
    let ended = sandhold(
        &[
            "run",
            "--cwd",
            "/tmp",
            "--env",
            "A=b=c",
            "--",
            "sh",
            "-c",
            "id -un; pwd; echo $A",
        ],
        "",
    );
    assert_eq!(ended.stdout, "user\n/tmp\nb=c\n", "{}", ended.stderr);
    let ended = sandhold(&["run", "--root", "--", "id", "-u"], "");
    if ended.code() == 0 {
        assert_eq!(ended.stdout, "0\n");
    } else {
        // Without sub-ids there is one id to give: it has to say so.
        assert!(!rustix::process::getuid().is_root(), "{}", ended.stderr);
        assert!(ended.stderr.contains("root"), "{}", ended.stderr);
        scenario::note("sandhold run --root: this user has one id to give, no root inside").unwrap();
    }
}

#[test]
fn run_tells_what_cannot_run() {
    let ended = sandhold(&["run", "--", "no-such-program"], "");
    assert!([126, 127].contains(&ended.code()), "{} {}", ended.code(), ended.stderr);
    assert!(ended.stderr.contains("no-such-program"), "{}", ended.stderr);
    let ended = sandhold(&["run", "--cwd", "/nowhere", "--", "true"], "");
    assert_ne!(ended.code(), 0);
    assert!(ended.stderr.contains("/nowhere"), "{}", ended.stderr);
    let ended = sandhold(&["run"], "");
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    let ended = sandhold(&["run", "--env", "=x", "--", "true"], "");
    assert_ne!(ended.code(), 0, "an environment variable without a name");
}

#[test]
fn run_keeps_to_its_timeout() {
    let started = Instant::now();
    let ended = sandhold(
        &[
            "run",
            "--timeout",
            "1",
            "--",
            "sh",
            "-c",
            "trap '' TERM; sleep 60; sleep 60",
        ],
        "",
    );
    assert_eq!(ended.code(), 124, "{}", ended.stderr);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(ended.stderr.contains("timeout"), "{}", ended.stderr);
}

#[test]
fn run_streams() {
    let _turn = turn::shared().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut child = command(home.path())
        .args(["run", "--", "sh", "-c", "echo first; read line; echo got $line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    // If the first line came only at the end, this would wait for ever: the runner's deadline would tell.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"an answer\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got an answer");
    drop(input);
    assert_eq!(
        run::wait(&mut child, LIMIT).unwrap().and_then(|status| status.code()),
        Some(0)
    );
}

/// Sends `signal` so often, to `sandhold run` of `script`, and returns its exit code, after nothing of it is left.
fn interrupted(script: &str, signal: Signal, times: usize) -> i32 {
    let home = tempfile::tempdir().unwrap();
    let mut child = command(home.path())
        .args(["run", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let tree = machine::descendants(child.id()).unwrap();
    assert!(
        tree.len() >= 3,
        "the control: launcher, daemon and command are there: {tree:?}"
    );
    for _ in 0..times {
        kill_process(Pid::from_child(&child), signal).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    let status = run::wait(&mut child, Duration::from_secs(15))
        .unwrap()
        .expect("it ends");
    let until = Instant::now() + Duration::from_secs(5);
    let left = || {
        tree.keys()
            .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
            .count()
    };
    while left() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(left(), 0, "{tree:?}");
    status
        .code()
        .or_else(|| std::os::unix::process::ExitStatusExt::signal(&status).map(|number| 128 + number))
        .unwrap()
}

#[test]
fn run_is_interrupted_with_everything_it_started() {
    let _turn = turn::shared().unwrap();
    let plain = "setsid sleep 60 & echo ready; sleep 60";
    assert_eq!(interrupted(plain, Signal::INT, 1), 130);
    assert_eq!(interrupted(plain, Signal::TERM, 1), 143);
}

#[test]
fn run_insists_when_it_is_interrupted_twice() {
    let _turn = turn::shared().unwrap();
    let deaf = "trap '' INT TERM; echo ready; sleep 60; sleep 60";
    assert_eq!(interrupted(deaf, Signal::INT, 2), 130);
    assert_eq!(interrupted(deaf, Signal::TERM, 2), 143);
}

#[test]
fn doctor_tells_what_the_machine_can_do() {
    let text = sandhold(&["doctor"], "");
    assert_eq!(text.code(), 0, "{}{}", text.stdout, text.stderr);
    for word in ["isolation", "cgroup", "user"] {
        assert!(text.stdout.to_lowercase().contains(word), "{word} in {}", text.stdout);
    }
    let json = sandhold(&["doctor", "--json"], "");
    assert_eq!(json.code(), 0, "{}", json.stderr);
    let found: Value = serde_json::from_str(&json.stdout).expect("one JSON value and nothing else");
    assert!(found.is_object(), "{found}");
}

#[test]
fn help_is_for_strangers() {
    let help = sandhold(&["--help"], "");
    assert_eq!(help.code(), 0);
    for word in ["mcp", "run", "doctor", "demo", "sandbox"] {
        assert!(help.stdout.contains(word), "{word} in {}", help.stdout);
    }
    for subcommand in ["mcp", "run", "doctor", "demo"] {
        let help = sandhold(&[subcommand, "--help"], "");
        assert_eq!(help.code(), 0, "{subcommand}");
        assert!(help.stdout.contains("Usage"), "{subcommand}: {}", help.stdout);
    }
    let version = sandhold(&["--version"], "");
    assert!(version.stdout.starts_with("sandhold "), "{}", version.stdout);
    let typo = sandhold(&["doctr"], "");
    assert_eq!(typo.code(), 2);
    assert!(
        typo.stderr.contains("doctor"),
        "a typing error gets a proposal: {}",
        typo.stderr
    );
}

#[test]
fn a_daemon_that_does_not_fit_is_told() {
    let _turn = turn::shared().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("sandhold");
    let daemon = folder.path().join("sandhold-envd");
    fs::copy(places::sandhold().unwrap(), &program).unwrap();
    let start = || {
        let mut command = Command::new(&program);
        command
            .env("SANDHOLD_HOME", folder.path().join("home"))
            .args(["run", "--", "true"]);
        scenario::own_settings_only(&mut command);
        run::run(&mut command, b"", LIMIT).unwrap()
    };
    let missing = start();
    assert_ne!(missing.code(), 0);
    assert!(missing.stderr.contains("sandhold-envd"), "{}", missing.stderr);

    let real = fs::read(places::sandhold().unwrap().with_file_name("sandhold-envd")).unwrap();
    let mark = b"sandhold-envd version=";
    let at = real
        .windows(mark.len())
        .position(|window| window == mark)
        .expect("the daemon's file holds its version");
    let mut other = real.clone();
    other[at + mark.len()] = b'9';
    fs::write(&daemon, &other).unwrap();
    fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
    let differs = start();
    assert_ne!(differs.code(), 0);
    assert!(
        differs.stderr.contains("version") && differs.stderr.contains("sandhold-envd"),
        "{}",
        differs.stderr
    );

    fs::write(&daemon, "#!/bin/sh\necho no daemon\n").unwrap();
    let script = start();
    assert_ne!(script.code(), 0);
    assert!(script.stderr.contains("sandhold-envd"), "{}", script.stderr);

    fs::write(&daemon, &real).unwrap();
    let fits = start();
    assert_eq!(
        fits.code(),
        0,
        "the control: the real daemon beside it works: {}",
        fits.stderr
    );
}

#[test]
fn demo_shows_the_main_job() {
    let ended = sandhold(&["demo"], "");
    assert_eq!(ended.code(), 0, "{}{}", ended.stdout, ended.stderr);
    for word in ["run_command", "write_file", "exit"] {
        assert!(ended.stdout.contains(word), "{word} in {}", ended.stdout);
    }
}
