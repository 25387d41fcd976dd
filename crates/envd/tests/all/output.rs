use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::*;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_flood_arrives_whole() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let run = client.sh("head -c 10000000 /dev/zero; echo end >&2").await;
    assert_eq!((run.stdout.len(), &run.stderr[..]), (10_000_000, &b"end\n"[..]));
    assert!(run.stdout.iter().all(|&b| b == 0));
}

#[tokio::test]
async fn a_slow_reader_holds_the_process_not_the_memory() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let before = daemon.resident();
    let mut events = client
        .stream("Start", &script("head -c 20000000 /dev/zero; echo done"), &[])
        .await;
    let pid = events.pid().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(alive(pid), "it cannot have written everything");
    let grown = (daemon.resident() - before) as usize * 1024;
    assert!(grown < 8 * MIB, "{grown} bytes");
    let run = events.rest().await;
    assert_eq!(run.stdout.len(), 20_000_000 + "done\n".len());
    assert_eq!(run.end["status"], "exit status 0");
}

#[tokio::test]
async fn a_reader_that_leaves_frees_the_process() {
    let daemon = Daemon::start();
    let mut slow = daemon.client().await;
    let mut stuck = slow
        .stream("Start", &script("head -c 20000000 /dev/zero; sleep 1000"), &[])
        .await;
    let pid = stuck.pid().await;
    let mut other = daemon.client().await;
    let mut second = other.stream("Connect", &by_pid(pid), &[]).await;
    assert_eq!(second.pid().await, pid);
    drop(stuck);
    drop(slow);
    // The one who stays gets what is written from now on, which is nearly all of it.
    let mut got = 0;
    while got < 10_000_000 {
        let event = second.next().await.expect("more output");
        got += event["event"]["data"]["stdout"].as_str().unwrap_or_default().len() / 4 * 3;
    }
    drop(second);
    drop(other);
    // Nobody listens: the rest is dropped and the script goes on to its sleep.
    let children = format!("/proc/{pid}/task/{pid}/children");
    eventually("the script sleeps", || {
        let Ok(list) = std::fs::read_to_string(&children) else {
            return false;
        };
        list.split_whitespace()
            .any(|c| std::fs::read_to_string(format!("/proc/{c}/comm")).is_ok_and(|name| name.trim() == "sleep"))
    })
    .await;
}

#[tokio::test]
async fn everybody_hears_everything() {
    let daemon = Daemon::start();
    let (mut a, mut b, mut c) = (daemon.client().await, daemon.client().await, daemon.client().await);
    let mut first = a
        .stream("Start", &with_stdin("read go; seq 1 20000; exit 4"), &[])
        .await;
    let pid = first.pid().await;
    let mut second = b.stream("Connect", &by_pid(pid), &[]).await;
    assert_eq!(second.pid().await, pid);
    c.call(
        "SendInput",
        json!({"process": {"pid": pid}, "input": {"stdin": "Cg=="}}),
    )
    .await
    .unwrap();
    let (first, second) = tokio::join!(first.rest(), second.rest());
    assert_eq!(first.text(), second.text());
    assert!(first.text().ends_with("19999\n20000\n"));
    assert_eq!((&first.end, &first.end["exitCode"]), (&second.end, &json!(4)));
}

#[tokio::test]
async fn disconnecting_does_not_kill() {
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("made");
    let mut client = daemon.client().await;
    let text = format!("sleep 0.3; echo still; touch {}", file.display());
    let mut events = client.stream("Start", &script(&text), &[]).await;
    let pid = events.pid().await;
    drop(events);
    drop(client);
    eventually("it goes on", || file.exists()).await;
    let mut client = daemon.client().await;
    eventually("it ends", || !alive(pid)).await;
    let late = client.stream("Connect", &by_pid(pid), &[]).await.rest().await;
    assert_eq!((late.pid, late.text()), (pid, ""), "what nobody heard is gone");
    assert_eq!(late.end["status"], "exit status 0");
}

#[tokio::test]
async fn silence_is_broken_by_keepalives() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let interval = [("keepalive-ping-interval", "1")];
    let run = client.run(&script("sleep 2.5"), &interval).await;
    assert_eq!(run.keepalives, 2, "{run:?}");
    let run = client
        .run(&script("for i in 1 2 3 4 5; do sleep 0.5; echo $i; done"), &interval)
        .await;
    assert_eq!(run.keepalives, 0, "it was never silent for long");
    assert_eq!(run.text(), "1\n2\n3\n4\n5\n");
}

#[tokio::test]
async fn many_at_once() {
    let daemon = Daemon::start();
    let began = Instant::now();
    let mut tasks = Vec::new();
    for i in 0..50 {
        let mut client = daemon.client().await;
        tasks.push(tokio::spawn(async move {
            (i, client.sh(&format!("sleep 0.2; echo {i}")).await)
        }));
    }
    for task in tasks {
        let (i, run) = task.await.unwrap();
        assert_eq!(run.text(), format!("{i}\n"));
    }
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "side by side: {:?}",
        began.elapsed()
    );
}
