//! Jobs: their output is kept for those who come later, and they are listed, also when they have ended.

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, alive, eventually};

const REPLAY: &str = "sandhold-replay";

/// The message that starts a shell script as a job, or as what somebody else tagged.
fn tagged(tag: &str, text: &str) -> Value {
    json!({"process": {"cmd": "/bin/sh", "args": ["-c", text]}, "tag": tag})
}

fn by_tag(tag: &str) -> Value {
    json!({"process": {"tag": tag}})
}

async fn jobs(client: &mut Client) -> Vec<Value> {
    let (head, body) = client.get("/sandhold/jobs", &[]).await;
    assert_eq!(head.status(), 200);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    answer["jobs"].as_array().unwrap().clone()
}

#[tokio::test]
async fn who_comes_later_reads_on() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let text = "echo one; echo two >&2; read x; echo $x; exit 4";
    let mut events = client.stream("Start", &tagged("sandhold-job:a", text), &[]).await;
    let pid = events.pid().await;
    events.until("two").await;
    drop(events);
    drop(client);

    let mut client = daemon.client().await;
    let listed = jobs(&mut client).await;
    let job = &listed[0];
    assert_eq!(
        (listed.len(), &job["id"], &job["pid"], &job["cmd"]),
        (1, &json!("a"), &json!(pid), &json!(text))
    );
    assert_eq!((&job["printed"], &job["stdin"]), (&json!([4, 4]), &json!(true)));
    assert!(job.get("exit").is_none(), "{job}");
    let events = client
        .stream("Connect", &by_tag("sandhold-job:a"), &[(REPLAY, "2.0")])
        .await;
    assert_eq!(events.response.headers()[REPLAY], "2.0");
    let mut input = daemon.client().await;
    let message = json!({"process": {"tag": "sandhold-job:a"}, "input": {"stdin": "dGhyZWUK"}});
    input.call("SendInput", message).await.unwrap();
    let run = events.rest().await;
    assert_eq!(
        (run.text(), &run.stderr[..], &run.end["exitCode"]),
        ("e\nthree\n", &b"two\n"[..], &json!(4))
    );
    eventually("it ends", || !alive(pid)).await;

    // It has ended, and nobody forgot it.
    let listed = jobs(&mut input).await;
    assert_eq!(
        listed[0]["exit"],
        json!({"exit_code": 4, "exited": true, "status": "exit status 4"})
    );
    assert_eq!(
        (&listed[0]["printed"], &listed[0]["stdin"]),
        (&json!([10, 4]), &json!(false))
    );
    for (has, wanted, begins) in [
        ("0.0", "one\nthree\n", "0.0"),
        ("8.4", "e\n", "8.4"),
        ("99.99", "", "10.4"),
    ] {
        let events = input
            .stream("Connect", &by_tag("sandhold-job:a"), &[(REPLAY, has)])
            .await;
        assert_eq!(events.response.headers()[REPLAY], begins);
        let run = events.rest().await;
        assert_eq!(
            (run.pid, run.text(), &run.end["exitCode"]),
            (pid, wanted, &json!(4)),
            "{has}"
        );
    }
    let plain = input.stream("Connect", &by_tag("sandhold-job:a"), &[]).await;
    assert!(plain.response.headers().get(REPLAY).is_none());
    assert_eq!(
        plain.rest().await.text(),
        "",
        "who does not ask hears what E2B's daemon says"
    );
}

#[tokio::test]
async fn of_much_output_the_newest_is_kept() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let text = "head -c 3000000 /dev/zero | tr '\\0' x; echo end";
    client.run(&tagged("sandhold-job:much", text), &[]).await;
    let events = client
        .stream("Connect", &by_tag("sandhold-job:much"), &[(REPLAY, "0.0")])
        .await;
    let begins = events.response.headers()[REPLAY].to_str().unwrap().to_owned();
    let run = events.rest().await;
    assert_eq!(begins, format!("{}.0", 3_000_004 - run.stdout.len()));
    assert!(
        run.stdout.len() >= 256 << 10 && run.text().ends_with("xend\n"),
        "{}",
        run.stdout.len()
    );
}

#[tokio::test]
async fn what_others_tagged_is_no_job() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    client.run(&tagged("web", "echo hello"), &[]).await;
    assert_eq!(jobs(&mut client).await, [] as [Value; 0]);
    let late = client.stream("Connect", &by_tag("web"), &[(REPLAY, "0.0")]).await;
    assert!(late.response.headers().get(REPLAY).is_none());
    assert_eq!(late.rest().await.text(), "");
}

#[tokio::test]
async fn a_new_job_takes_the_place_of_one_that_ended() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    for (text, code) in [("echo first; exit 1", 1), ("echo second; exit 2", 2)] {
        client.run(&tagged("sandhold-job:again", text), &[]).await;
        let listed = jobs(&mut client).await;
        assert_eq!((listed.len(), &listed[0]["exit"]["exit_code"]), (1, &json!(code)));
    }
    let run = client
        .stream("Connect", &by_tag("sandhold-job:again"), &[(REPLAY, "0.0")])
        .await
        .rest()
        .await;
    assert_eq!(run.text(), "second\n");
}
