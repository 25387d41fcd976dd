//! Watches, all processes of a sandbox, and what it used over time.

use std::time::Duration;

use sandhold_client::{Error, Signal, WatchEvent, WatchKind};
use serde_json::json;

use crate::stub::{ID, Stub, frame, json_stream, reply, sandbox, with};

fn told(messages: &[serde_json::Value], end: &[u8]) -> axum::response::Response {
    let mut body: Vec<u8> = messages
        .iter()
        .flat_map(|m| frame(0, m.to_string().as_bytes()))
        .collect();
    body.extend(end);
    with(reply(200, body), "content-type", "application/connect+json")
}

fn event(kind: WatchKind, name: &str) -> WatchEvent {
    WatchEvent {
        name: name.into(),
        kind,
    }
}

#[tokio::test]
async fn changes_come_and_the_end_is_told_once() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "GET /health" => reply(204, ""),
        _ => told(
            &[
                json!({"start": {}}),
                json!({"keepalive": {}}),
                json!({"filesystem": {"name": "a", "type": "EVENT_TYPE_CREATE"}}),
                json!({"filesystem": {"name": "a", "type": 5}}),
                json!({"filesystem": {"name": "b", "type": "EVENT_TYPE_UNSPECIFIED"}}),
                json!({"filesystem": {"name": ".", "type": "EVENT_TYPE_REMOVE"}}),
            ],
            b"",
        ),
    });
    let sandbox = sandbox(&stub.http().await).await;
    let mut watch = sandbox.files().watch("w", true, Some("root")).await.unwrap();
    for expected in [
        event(WatchKind::Create, "a"),
        event(WatchKind::Chmod, "a"),
        event(WatchKind::Remove, "."),
    ] {
        assert_eq!(watch.next().await.unwrap().unwrap(), expected);
    }
    assert!(matches!(watch.next().await, Some(Err(Error::Transport { .. }))));
    assert!(watch.next().await.is_none());
    let seen = stub.seen();
    let asked = seen.iter().find(|s| s.line.ends_with("WatchDir")).unwrap();
    let message: serde_json::Value = serde_json::from_slice(&asked.message()).unwrap();
    assert_eq!(message, json!({"path": "w", "recursive": true}));
    assert_eq!(asked.header("authorization"), Some("Basic cm9vdDo="));
}

#[tokio::test]
async fn refusals_of_a_watch() {
    let end = |code: &str, text: &str| {
        frame(
            2,
            json!({"error": {"code": code, "message": text}}).to_string().as_bytes(),
        )
    };
    let refuse = |code: &'static str, text: &'static str| {
        Stub::with_sandbox(move |seen, _| match seen.line.as_str() {
            "GET /health" => reply(204, ""),
            _ => told(&[], &end(code, text)),
        })
    };
    let absent = sandbox(&refuse("not_found", "path /x not found").http().await).await;
    assert!(
        matches!(absent.files().watch("/x", false, None).await, Err(Error::NotFound(text)) if text == "path /x not found")
    );
    let network = sandbox(&refuse("invalid_argument", "network").http().await).await;
    assert!(matches!(
        network.files().watch("/x", false, None).await,
        Err(Error::InvalidArgument(_))
    ));
    let mute = Stub::with_sandbox(|_, _| told(&[json!({"keepalive": {}})], &frame(2, b"{}")));
    let mute = sandbox(&mute.http().await).await;
    assert!(matches!(
        mute.files().watch("/x", false, None).await,
        Err(Error::Protocol(_))
    ));
}

#[tokio::test]
async fn processes_of_a_server_that_knows_them() {
    let stub = Stub::with_sandbox(|seen, _| {
        match seen.line.as_str() {
        "GET /sandhold/processes" => reply(
            200,
            json!({"processes": [{"pid": 7, "ppid": 1, "user": "user", "cpu": 1.5, "memory": 9, "started": 5, "command": "x"}],
                "truncated": true})
            .to_string(),
        ),
        "POST /sandhold/kill" => match seen.json()["pid"].as_u64().unwrap() {
            7 => reply(200, r#"{"ended":true}"#),
            8 => reply(403, r#"{"code":403,"message":"no power"}"#),
            1 => reply(400, r#"{"code":400,"message":"the daemon"}"#),
            _ => reply(404, r#"{"code":404,"message":"process with pid 9 not found"}"#),
        },
        _ => reply(500, ""),
    }
    });
    let commands = sandbox(&stub.in_process()).await.commands();
    let list = commands.processes().await.unwrap();
    assert!(list.truncated && list.processes.len() == 1 && list.processes[0].pid == 7);
    let wait = Duration::from_secs(60);
    assert!(commands.kill(7, Signal::Usr1, wait).await.unwrap());
    assert_eq!(stub.last().json(), json!({"pid": 7, "signal": "usr1", "wait_ms": 5000}));
    assert!(matches!(
        commands.kill(8, Signal::Term, wait).await,
        Err(Error::Server { status: 403, .. })
    ));
    assert!(matches!(
        commands.kill(9, Signal::Term, wait).await,
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        commands.kill(1, Signal::Term, wait).await,
        Err(Error::InvalidArgument(_))
    ));
}

#[tokio::test]
async fn elsewhere_a_script_looks_as_root_where_there_is_one() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "POST /process.Process/Start" if seen.header("authorization") == Some("Basic cm9vdDo=") => {
            let refused = json!({"error": {"code": "unauthenticated", "message": "no user root here"}});
            told(&[], &frame(2, refused.to_string().as_bytes()))
        }
        "POST /process.Process/Start" => json_stream(&[
            json!({"start": {"pid": 5}}),
            json!({"end": {"exitCode": 47, "exited": true, "status": "exit status 47"}}),
        ]),
        _ => reply(404, "404 page not found\n"),
    });
    let commands = sandbox(&stub.http().await).await.commands();
    assert!(
        !commands
            .kill(7, Signal::Term, Duration::from_millis(300))
            .await
            .unwrap()
    );
    let message: serde_json::Value = serde_json::from_slice(&stub.last().message()).unwrap();
    let args = message["process"]["args"].as_array().unwrap();
    assert_eq!(args[3..], [json!("7"), json!("TERM"), json!("3")]);
    // What the script printed is no list.
    assert!(matches!(commands.processes().await, Err(Error::Unsupported(_))));
    let asked = stub.lines().iter().filter(|l| l.contains("/sandhold/")).count();
    assert_eq!(asked, 1, "that the server has none is remembered");
}

#[tokio::test]
async fn metrics_since_a_time() {
    let stub = Stub::new(|_, _| {
        let metric = json!({"timestamp": "2026-01-01T00:00:00Z", "timestampUnix": 7, "cpuCount": 2, "cpuUsedPct": 1.5, "memUsed": 3,
            "memTotal": 4, "memCache": 5, "diskUsed": 6, "diskTotal": 7});
        reply(200, json!([metric]).to_string())
    });
    let client = stub.in_process();
    let metrics = client.metrics(ID, Some(5)).await.unwrap();
    assert_eq!((metrics.len(), metrics[0].mem_used), (1, 3));
    client.metrics(ID, None).await.unwrap();
    let path = format!("GET /sandboxes/{ID}/metrics");
    assert_eq!(stub.lines(), [format!("{path}?start=5"), path]);
}
