use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::*;

const DEADLINE: (&str, &str) = ("deadline_exceeded", "context deadline exceeded");

fn error(run: &Run) -> Option<(&str, &str)> {
    run.error
        .as_ref()
        .map(|(code, message)| (code.as_str(), message.as_str()))
}

fn signal(pid: u64, name: &str) -> Value {
    json!({"process": {"pid": pid}, "signal": name})
}

#[tokio::test]
async fn a_deadline_kills_the_whole_group() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let began = Instant::now();
    let mut events = client
        .stream(
            "Start",
            &script("trap '' TERM; sleep 1000 & echo $!; wait"),
            &[("connect-timeout-ms", "300")],
        )
        .await;
    let pid = events.pid().await;
    let child: u64 = String::from_utf8(events.until("\n").await.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let run = events.rest().await;
    assert_eq!(error(&run), Some(DEADLINE));
    assert_eq!(run.end, Value::Null, "the error stands in for the end");
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(5));
    eventually("both are gone", || !alive(pid) && !alive(child)).await;
    let late = client.stream("Connect", &by_pid(pid), &[]).await.rest().await;
    assert_eq!(late.end["status"], "signal: killed");
}

#[tokio::test]
async fn a_deadline_that_is_none() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    for none in ["0", "-1"] {
        let run = client
            .run(&script("sleep 0.1; echo $?"), &[("connect-timeout-ms", none)])
            .await;
        assert_eq!((run.text(), error(&run)), ("0\n", None), "{none}");
    }
    let run = client
        .run(&script("echo quick"), &[("connect-timeout-ms", "60000")])
        .await;
    assert_eq!((run.text(), error(&run)), ("quick\n", None));
}

#[tokio::test]
async fn the_deadline_of_connect_is_its_own() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let mut first = a.stream("Start", &with_stdin("read x; echo over"), &[]).await;
    let pid = first.pid().await;
    let second = b
        .stream("Connect", &by_pid(pid), &[("connect-timeout-ms", "200")])
        .await
        .rest()
        .await;
    assert_eq!((second.pid, error(&second)), (pid, Some(DEADLINE)));
    assert!(alive(pid));
    b.call(
        "SendInput",
        json!({"process": {"pid": pid}, "input": {"stdin": "Cg=="}}),
    )
    .await
    .unwrap();
    assert_eq!(first.rest().await.text(), "over\n");
}

#[tokio::test]
async fn signals_reach_the_group() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    for (name, status) in [
        ("SIGNAL_SIGTERM", "signal: terminated"),
        ("SIGNAL_SIGKILL", "signal: killed"),
    ] {
        let mut events = a.stream("Start", &script("sleep 1000 & echo $!; wait"), &[]).await;
        let pid = events.pid().await;
        let child: u64 = String::from_utf8(events.until("\n").await.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        b.call("SendSignal", signal(pid, name)).await.unwrap();
        assert_eq!(events.rest().await.end["status"], status);
        eventually("the child is gone too", || !alive(child)).await;
    }
    let refused = b.call("SendSignal", signal(1, "SIGNAL_SIGKILL")).await.unwrap_err();
    assert_eq!(
        refused.message, "process with pid 1 not found",
        "only what the daemon started"
    );
}

#[tokio::test]
async fn who_ignores_sigterm_is_killed() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let mut events = a
        .stream(
            "Start",
            &script("trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done"),
            &[],
        )
        .await;
    let pid = events.pid().await;
    events.until("ready").await;
    b.call("SendSignal", signal(pid, "SIGNAL_SIGTERM")).await.unwrap();
    events.until("no").await;
    assert!(alive(pid));
    for bad in [json!("SIGNAL_UNSPECIFIED"), json!(2)] {
        let refused = b
            .call("SendSignal", json!({"process": {"pid": pid}, "signal": bad}))
            .await
            .unwrap_err();
        assert!(
            refused.message.contains("only SIGTERM (15) and SIGKILL (9)"),
            "{refused:?}"
        );
    }
    b.call("SendSignal", signal(pid, "SIGNAL_SIGKILL")).await.unwrap();
    assert_eq!(events.rest().await.end["status"], "signal: killed");
}

#[tokio::test]
async fn a_daemon_left_behind_does_not_hold_the_call() {
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alive");
    let mut client = daemon.client().await;
    let began = Instant::now();
    // It has a session of its own and keeps the pipe. Later it writes into it: that must not kill it.
    let text = format!(
        "setsid sh -c 'sleep 3.5; echo into nothing; touch {}' & echo left; exit 5",
        file.display()
    );
    let run = client.sh(&text).await;
    let took = began.elapsed();
    assert_eq!((run.text(), &run.end["exitCode"]), ("left\n", &json!(5)));
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_millis(3400),
        "{took:?}"
    );
    eventually("it lives and writes", || file.exists()).await;
}

#[tokio::test]
async fn what_a_child_still_prints_is_waited_for() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let run = client.sh("(for i in 1 2 3; do sleep 1; echo $i; done) & exit 0").await;
    assert_eq!(run.text(), "1\n2\n3\n");
}

#[tokio::test]
async fn after_a_kill_nothing_is_waited_for() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    for name in ["SIGNAL_SIGKILL", "SIGNAL_SIGTERM"] {
        let mut events = a
            .stream("Start", &script("setsid sleep 5 & echo up; sleep 1000"), &[])
            .await;
        let pid = events.pid().await;
        events.until("up").await;
        let began = Instant::now();
        b.call("SendSignal", signal(pid, name)).await.unwrap();
        let run = events.rest().await;
        assert_eq!(run.end["exitCode"], json!(-1));
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    }
}
