//! Snapshots, forks and the additions of Sandhold, against a server that answers what it is told to.

use std::time::Duration;

use sandhold_client::{Back, Error, SnapshotQuery};
use serde_json::json;

use crate::stub::{ID, Stub, reply, sandbox_json, with};

#[tokio::test]
async fn snapshots_are_taken_listed_and_deleted() {
    let stub = Stub::always(201, json!({"snapshotID": "abc:default", "names": []}).to_string());
    let client = stub.http().await;
    let taken = client.create_snapshot(ID, Some("kept".into())).await.unwrap();
    assert_eq!(taken.snapshot_id, "abc:default");
    let seen = stub.last();
    assert_eq!(seen.line, format!("POST /sandboxes/{ID}/snapshots"));
    assert_eq!(seen.json(), json!({"name": "kept"}));

    let page = json!([{"snapshotID": "a:default", "names": ["a:default"]}]);
    let stub = Stub::new(move |_, _| with(reply(200, page.to_string()), "x-next-token", "n/1"));
    let query = SnapshotQuery {
        sandbox_id: Some(ID.into()),
        limit: Some(5),
        cursor: Some("c=".into()),
    };
    let page = stub.http().await.snapshots(&query).await.unwrap();
    assert_eq!((page.snapshots.len(), page.next_cursor.as_deref()), (1, Some("n/1")));
    assert_eq!(
        stub.last().line,
        format!("GET /snapshots?sandboxID={ID}&limit=5&nextToken=c%3D")
    );

    let stub = Stub::always(204, String::new());
    assert!(stub.http().await.delete_snapshot("a:v1").await.unwrap());
    assert_eq!(stub.last().line, "DELETE /templates/a%3Av1");
    let stub = Stub::always(404, json!({"code": 404, "message": "no"}).to_string());
    assert!(!stub.http().await.delete_snapshot("a").await.unwrap());
}

#[tokio::test]
async fn each_fork_is_there_or_says_why_not() {
    let answer = json!([{"sandbox": sandbox_json(ID)}, {"error": {"code": 429, "message": "full"}}]);
    let stub = Stub::always(201, answer.to_string());
    let forks = stub.http().await.fork(ID, Duration::from_secs(60), 2).await.unwrap();
    assert_eq!(stub.last().json(), json!({"timeout": 60, "count": 2}));
    assert_eq!(forks[0].as_ref().unwrap().id(), ID);
    assert!(matches!(&forks[1], Err(Error::RateLimited(text)) if text == "full"));
}

#[tokio::test]
async fn a_provider_without_the_additions_is_told_from_a_sandbox_that_is_gone() {
    let detail = json!({"templateID": "t", "sandboxID": ID, "clientID": "c", "startedAt": "a", "endAt": "b", "cpuCount": 1,
        "memoryMB": 1, "state": "running", "envdVersion": "0.6.13"});
    for (alive, word, wanted) in [
        (true, None, "unsupported"),
        (false, None, "gone"),
        (true, Some("checkpoint_not_found"), "no such state"),
        (true, Some("snapshot_not_found"), "no such state"),
    ] {
        let detail = detail.clone();
        let stub = Stub::new(move |request, _| {
            if request.line == format!("GET /sandboxes/{ID}") && alive {
                return reply(200, detail.to_string());
            }
            reply(
                404,
                json!({"code": 404, "message": "no", "error_code": word}).to_string(),
            )
        });
        let client = stub.http().await;
        let errors = [
            client.roll_back(ID, Back::Checkpoint("cp-1".into())).await.unwrap_err(),
            client.changes(ID, Some("cp-1"), 10).await.unwrap_err(),
            client.checkpoint(ID, None).await.unwrap_err(),
        ];
        for error in errors {
            let told = match &error {
                Error::Unsupported(_) => "unsupported",
                Error::SandboxNotFound { .. } => "gone",
                Error::NotFound(_) => "no such state",
                _ => "other",
            };
            assert_eq!(told, wanted, "{error:?}");
        }
    }
}

#[tokio::test]
async fn what_is_full_is_told_as_such() {
    let stub = Stub::always(507, json!({"code": 507, "message": "too much"}).to_string());
    let error = stub.in_process().create_snapshot(ID, None).await.unwrap_err();
    assert!(matches!(error, Error::NoSpace(text) if text == "too much"));
}
