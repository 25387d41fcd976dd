use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::*;

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(body)))
}

#[tokio::test]
async fn a_token_is_asked_for_everywhere_but_at_health() {
    let mut secured = spec();
    secured.access_token = Some("secret".into());
    let daemon = Daemon::with(&secured);
    let mut client = daemon.client().await;
    assert_eq!(client.get("/health", &[]).await.0.status(), StatusCode::NO_CONTENT);
    for path in [
        "/envs",
        "/metrics",
        "/sandhold/process?pid=1",
        "/nowhere",
        "/process.Process/List",
    ] {
        for token in [&[][..], &[("x-access-token", "secreT")], &[("x-access-token", "")]] {
            let (head, body) = client.get(path, token).await;
            assert_eq!(head.status(), StatusCode::UNAUTHORIZED, "{path} {token:?}");
            let body = parsed(&body);
            assert_eq!(body["code"], 401);
            assert!(
                body["message"].as_str().unwrap().starts_with("unauthorized access"),
                "{body}"
            );
        }
    }
    let right = [("x-access-token", "secret")];
    assert_eq!(client.get("/envs", &right).await.0.status(), StatusCode::OK);
    assert_eq!(
        client.call("List", json!({})).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    let run = client.run(&script("echo in"), &right).await;
    assert_eq!(run.text(), "in\n");
}

#[tokio::test]
async fn plain_endpoints() {
    let mut with_envs = spec();
    with_envs.envs = [
        ("A".to_owned(), "b".to_owned()),
        ("E2B_SANDBOX".to_owned(), "mine".to_owned()),
    ]
    .into();
    let daemon = Daemon::with(&with_envs);
    let mut client = daemon.client().await;

    let (head, body) = client.get("/health", &[]).await;
    assert_eq!((head.status(), body.len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(head.headers()["x-sandhold-version"], env!("CARGO_PKG_VERSION"));

    let wanted = json!({"A": "b", "E2B_SANDBOX": "mine", "E2B_SANDBOX_ID": "itest", "E2B_TEMPLATE_ID": "base"});
    assert_eq!(parsed(&client.get("/envs", &[]).await.1), wanted);

    let metrics = parsed(&client.get("/metrics", &[]).await.1);
    for field in [
        "ts",
        "cpu_count",
        "cpu_used_pct",
        "mem_total",
        "mem_used",
        "mem_cache",
        "disk_used",
        "disk_total",
    ] {
        assert!(metrics[field].is_number(), "{field}: {metrics}");
    }

    for (path, status) in [
        ("/nowhere", 404),
        ("/sandhold/process", 400),
        ("/sandhold/process?pid=4000000", 404),
    ] {
        let (head, body) = client.get(path, &[]).await;
        assert_eq!(head.status(), status);
        assert_eq!(parsed(&body)["code"], status, "{path}");
        assert!(head.headers().contains_key("x-sandhold-version"));
    }
}

#[tokio::test]
async fn it_is_seen_that_a_process_waits_for_input() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let terminal = json!({"process": {"cmd": "/bin/sh", "args": ["-c", "read x"]}, "pty": {}});
    for (message, waits) in [
        (with_stdin("read x"), true),
        (with_stdin("sleep 1000"), false),
        (with_stdin("exec cat >/dev/null"), true),
        (with_stdin("cat </dev/zero >/dev/null"), false),
        (script("sleep 1000"), false),
        (terminal, true),
    ] {
        let mut other = daemon.client().await;
        let mut events = other.stream("Start", &message, &[]).await;
        let pid = events.pid().await;
        let path = format!("/sandhold/process?pid={pid}");
        let mut answer = Value::Null;
        // It has to get there first; what never waits is asked a few times.
        for _ in 0..if waits { 200 } else { 10 } {
            answer = parsed(&client.get(&path, &[]).await.1);
            if answer["awaiting_input"] == json!(true) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            answer,
            json!({"pid": pid, "running": true, "awaiting_input": waits}),
            "{message}"
        );
        client
            .call(
                "SendSignal",
                json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}),
            )
            .await
            .unwrap();
        events.rest().await;
        let answer = parsed(&client.get(&path, &[]).await.1);
        assert_eq!(answer, json!({"pid": pid, "running": false, "awaiting_input": false}));
    }
}
