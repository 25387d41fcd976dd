use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::*;

fn terminal(script: &str, size: Value) -> Value {
    json!({"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "pty": {"size": size}})
}

fn keys(pid: u64, text: &str) -> Value {
    json!({"process": {"pid": pid}, "input": {"pty": STANDARD.encode(text)}})
}

#[tokio::test]
async fn a_terminal_of_its_own() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let text = "tty; test -t 0 && test -t 1 && test -t 2 && echo all; echo $TERM; stty size; : >/dev/tty && echo owns";
    let run = client.run(&terminal(text, json!({"cols": 101, "rows": 33})), &[]).await;
    let text = String::from_utf8(run.pty).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{text}");
    assert_eq!(lines[1..], ["all", "xterm-256color", "33 101", "owns"]);
    assert_eq!(run.end["status"], "exit status 0");
    assert!(run.stdout.is_empty() && run.stderr.is_empty());

    let mut named = terminal("echo $TERM; stty size", json!({}));
    named["process"]["envs"] = json!({"TERM": "dumb"});
    let run = client.run(&named, &[]).await;
    assert_eq!(String::from_utf8(run.pty).unwrap(), "dumb\r\n24 80\r\n");
}

#[tokio::test]
async fn echo_resize_and_ctrl_d() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let text = "echo up; while read x; do echo got $x $(stty size); done; echo over";
    let mut events = a
        .stream("Start", &terminal(text, json!({"cols": 80, "rows": 24})), &[])
        .await;
    let pid = events.pid().await;
    events.until("up").await;
    b.call("SendInput", keys(pid, "abc\n")).await.unwrap();
    let seen = String::from_utf8(events.until("got abc 24 80").await.pty).unwrap();
    assert!(seen.contains("abc\r\n"), "the terminal echoes: {seen:?}");
    b.call(
        "Update",
        json!({"process": {"pid": pid}, "pty": {"size": {"cols": 120, "rows": 40}}}),
    )
    .await
    .unwrap();
    b.call("SendInput", keys(pid, "x\n")).await.unwrap();
    events.until("got x 40 120").await;
    b.call("SendInput", keys(pid, "\u{4}")).await.unwrap();
    let run = events.rest().await;
    assert!(String::from_utf8(run.pty).unwrap().contains("over"));
    assert_eq!(run.end["status"], "exit status 0");
}

#[tokio::test]
async fn ctrl_c_interrupts() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let mut events = a.stream("Start", &terminal("exec cat", json!({})), &[]).await;
    let pid = events.pid().await;
    // What is typed comes back twice once the program reads: until then the key would meet the shell.
    b.call("SendInput", keys(pid, "abc\n")).await.unwrap();
    events.until("abc\r\nabc").await;
    b.call("SendInput", keys(pid, "\u{3}")).await.unwrap();
    assert_eq!(events.rest().await.end["status"], "signal: interrupt");
}

#[tokio::test]
async fn refusals() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let mut events = a.stream("Start", &terminal("read x", json!({})), &[]).await;
    let pid = events.pid().await;
    let stdin = json!({"process": {"pid": pid}, "input": {"stdin": "eA=="}});
    let refused = b.call("SendInput", stdin).await.unwrap_err();
    let text = "error writing to stdin: tty assigned to process — input should be written to the pty, not the stdin";
    assert_eq!((refused.code.as_str(), refused.message.as_str()), ("internal", text));
    let refused = b.call("CloseStdin", by_pid(pid)).await.unwrap_err();
    let text = "error closing stdin: cannot close stdin for PTY process — send Ctrl+D (0x04) instead";
    assert_eq!((refused.code.as_str(), refused.message.as_str()), ("unknown", text));

    let mut other = daemon.client().await;
    let mut plain = other.stream("Start", &with_stdin("read x"), &[]).await;
    let pid = plain.pid().await;
    let refused = b
        .call(
            "Update",
            json!({"process": {"pid": pid}, "pty": {"size": {"cols": 1, "rows": 1}}}),
        )
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code.as_str(), refused.message.as_str()),
        ("internal", "error resizing tty: tty not assigned to process")
    );
    b.call("Update", by_pid(pid)).await.unwrap();
}

#[tokio::test]
async fn a_flood_on_a_terminal_arrives_whole() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let run = client.run(&terminal("stty -opost; seq 1 200000", json!({})), &[]).await;
    let wanted: String = (1..=200_000).map(|i| format!("{i}\n")).collect();
    assert_eq!(String::from_utf8(run.pty).unwrap(), wanted);
}
