//! Paused sandboxes and their files: across restarts, without a freezer, and when something fails.

use std::{path::Path, sync::atomic::Ordering};

use axum::Router;
use http::{Method, StatusCode};
use sandhold_gateway::Owner;
use serde_json::{Value, json};

use crate::{
    Answer, call, create,
    fake::{FakeRuntime, gateway_at},
};

fn kept(home: &Path, runtime: FakeRuntime) -> Router {
    gateway_at(home, runtime, true).router(Owner::LOCAL)
}

async fn write(router: &Router, id: &str, text: &str) {
    let answer = call(
        router,
        Method::POST,
        "/write",
        &[("e2b-sandbox-id", id)],
        Some(json!(text)),
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK);
}

async fn post(router: &Router, id: &str, what: &str, body: Value) -> Answer {
    call(
        router,
        Method::POST,
        &format!("/sandboxes/{id}/{what}"),
        &[],
        Some(body),
    )
    .await
}

async fn detail(router: &Router, id: &str) -> Value {
    call(router, Method::GET, &format!("/sandboxes/{id}"), &[], None)
        .await
        .body
}

fn archives(home: &Path) -> Vec<String> {
    let folder = std::fs::read_dir(home.join("paused")).unwrap();
    folder.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_paused_sandbox_outlives_its_server_and_a_running_one_does_not() {
    let home = tempfile::tempdir().unwrap();
    let router = kept(home.path(), FakeRuntime::default());
    let body = json!({"templateID": "base", "metadata": {"k": "v"}, "network": {"allowPublicTraffic": false}});
    let made = call(&router, Method::POST, "/v2/sandboxes", &[], Some(body)).await.body;
    let id = made["sandboxID"].as_str().unwrap();
    let running = create(&router, json!({"templateID": "base"})).await;
    let resumed = create(&router, json!({"templateID": "base"})).await;
    write(&router, id, "files").await;
    for id in [id, &resumed] {
        assert_eq!(
            post(&router, id, "pause", json!({})).await.status,
            StatusCode::NO_CONTENT
        );
    }
    assert_eq!(detail(&router, id).await["pauseMode"], "full");
    assert_eq!(
        post(&router, &resumed, "connect", json!({"timeout": 60})).await.status,
        StatusCode::CREATED
    );
    assert_eq!(
        archives(home.path()),
        [format!("{id}.tar")],
        "the running one's files are not kept"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &home
            .path()
            .join("paused")
            .join(format!("{id}.tar"))
            .metadata()
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    // As after SIGKILL: nothing of the first server is told that it ends.
    let next = kept(home.path(), FakeRuntime::default());
    for gone in [&running, &resumed] {
        let told = call(&next, Method::GET, &format!("/sandboxes/{gone}"), &[], None).await;
        assert_eq!(told.status, StatusCode::NOT_FOUND);
        assert!(
            told.body["message"]
                .as_str()
                .unwrap()
                .ends_with("with the server that held it"),
            "{}",
            told.body
        );
    }
    let found = detail(&next, id).await;
    assert_eq!(
        (&found["state"], &found["pauseMode"]),
        (&json!("paused"), &json!("filesystem"))
    );
    assert_eq!(found["metadata"], json!({"k": "v"}));
    let list = call(&next, Method::GET, "/v2/sandboxes?state=paused", &[], None)
        .await
        .body;
    assert_eq!(list.as_array().unwrap().len(), 1);

    let back = post(&next, id, "connect", json!({"timeout": 60})).await;
    assert_eq!(back.status, StatusCode::CREATED, "{}", back.body);
    for same in ["sandboxID", "envdAccessToken", "trafficAccessToken"] {
        assert_eq!(back.body[same], made[same], "{same}");
    }
    let files = call(&next, Method::GET, "/sandhold/archive", &[("e2b-sandbox-id", id)], None).await;
    assert_eq!(files.body, json!("files"));
    assert_eq!(detail(&next, id).await["startedAt"], found["startedAt"]);
    assert!(archives(home.path()).is_empty());
    let logs = call(&next, Method::GET, &format!("/v2/sandboxes/{id}/logs"), &[], None)
        .await
        .body;
    assert!(logs.to_string().contains("did not come back"), "{logs}");
    assert_eq!(post(&next, id, "pause", json!({})).await.status, StatusCode::NO_CONTENT);
    let killed = call(&next, Method::DELETE, &format!("/sandboxes/{id}"), &[], None).await;
    assert_eq!(killed.status, StatusCode::NO_CONTENT);
    assert!(archives(home.path()).is_empty());
    let third = kept(home.path(), FakeRuntime::default());
    assert_eq!(
        call(&third, Method::GET, "/v2/sandboxes", &[], None).await.body,
        json!([])
    );
}

#[tokio::test]
async fn an_orderly_stop_keeps_what_is_paused() {
    let home = tempfile::tempdir().unwrap();
    let runtime = FakeRuntime::default();
    let killed = runtime.killed.clone();
    let gateway = gateway_at(home.path(), runtime, true);
    let router = gateway.router(Owner::LOCAL);
    let (paused, running) = (
        create(&router, json!({"templateID": "base"})).await,
        create(&router, json!({"templateID": "base"})).await,
    );
    post(&router, &paused, "pause", json!({})).await;
    gateway.shutdown().await;
    assert_eq!(killed.load(Ordering::SeqCst), 2, "nothing of either is left");
    let next = kept(home.path(), FakeRuntime::default());
    assert_eq!(detail(&next, &paused).await["state"], "paused");
    assert_eq!(detail(&next, &running).await["code"], 404);
}

#[tokio::test]
async fn files_alone_are_kept_where_asked_or_where_nothing_can_freeze() {
    for (can_freeze, body) in [(true, json!({"memory": false})), (false, json!({}))] {
        let home = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime {
            can_freeze,
            ..FakeRuntime::default()
        };
        let killed = runtime.killed.clone();
        let router = kept(home.path(), runtime);
        let id = create(&router, json!({"templateID": "base", "timeout": 1})).await;
        write(&router, &id, "files").await;
        assert_eq!(post(&router, &id, "pause", body).await.status, StatusCode::NO_CONTENT);
        assert_eq!(killed.load(Ordering::SeqCst), 1);
        let now = detail(&router, &id).await;
        assert_eq!(
            (&now["state"], &now["pauseMode"]),
            (&json!("paused"), &json!("filesystem"))
        );
        assert_eq!(
            post(&router, &id, "pause", json!({})).await.status,
            StatusCode::CONFLICT
        );
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        assert_eq!(
            post(&router, &id, "connect", json!({"timeout": 1})).await.status,
            StatusCode::CREATED
        );
        let files = call(
            &router,
            Method::GET,
            "/sandhold/archive",
            &[("e2b-sandbox-id", &id)],
            None,
        )
        .await;
        assert_eq!(files.body, json!("files"));
        // The new one has a clock too.
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert_eq!(detail(&router, &id).await["code"], 404);
    }
}

#[tokio::test]
async fn one_may_start_anew_from_the_files() {
    let home = tempfile::tempdir().unwrap();
    let runtime = FakeRuntime::default();
    let killed = runtime.killed.clone();
    let router = kept(home.path(), runtime);
    let id = create(&router, json!({"templateID": "base"})).await;
    write(&router, &id, "files").await;
    post(&router, &id, "pause", json!({})).await;
    let back = post(&router, &id, "connect", json!({"timeout": 60, "memory": false})).await;
    assert_eq!((back.status, killed.load(Ordering::SeqCst)), (StatusCode::CREATED, 1));
    let files = call(
        &router,
        Method::GET,
        "/sandhold/archive",
        &[("e2b-sandbox-id", &id)],
        None,
    )
    .await;
    assert_eq!(files.body, json!("files"));
    assert_eq!(detail(&router, &id).await["state"], "running");
}

#[tokio::test]
async fn without_keeping_a_pause_writes_nothing_unless_asked() {
    let home = tempfile::tempdir().unwrap();
    let runtime = FakeRuntime {
        can_freeze: false,
        ..FakeRuntime::default()
    };
    let router = gateway_at(home.path(), runtime, false).router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base"})).await;
    let refused = post(&router, &id, "pause", json!({})).await;
    assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED, "{}", refused.body);
    assert_eq!(detail(&router, &id).await["state"], "running");
    assert!(archives(home.path()).is_empty());
    assert_eq!(
        post(&router, &id, "pause", json!({"memory": false})).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        post(&router, &id, "connect", json!({})).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn files_that_cannot_be_brought_back_stay_where_they_are() {
    let home = tempfile::tempdir().unwrap();
    let router = kept(home.path(), FakeRuntime::default());
    let id = create(&router, json!({"templateID": "base"})).await;
    post(&router, &id, "pause", json!({})).await;
    let archive = home.path().join("paused").join(format!("{id}.tar"));
    std::fs::write(&archive, "broken").unwrap();
    let runtime = FakeRuntime::default();
    let killed = runtime.killed.clone();
    let next = kept(home.path(), runtime);
    let refused = post(&next, &id, "connect", json!({"timeout": 5})).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", refused.body);
    assert!(
        refused.body["message"]
            .as_str()
            .unwrap()
            .contains("could not be brought back")
    );
    assert_eq!(killed.load(Ordering::SeqCst), 1, "the half-made one is gone");
    assert_eq!(detail(&next, &id).await["state"], "paused");
    std::fs::write(&archive, "whole").unwrap();
    assert_eq!(
        post(&next, &id, "connect", json!({"timeout": 5})).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn of_two_who_end_a_sandbox_one_has_done_it() {
    let home = tempfile::tempdir().unwrap();
    let router = kept(home.path(), FakeRuntime::default());
    let id = create(&router, json!({"templateID": "base"})).await;
    let path = format!("/sandboxes/{id}");
    let (first, second) = tokio::join!(
        call(&router, Method::DELETE, &path, &[], None),
        call(&router, Method::DELETE, &path, &[], None)
    );
    let mut both = [first.status, second.status];
    both.sort();
    assert_eq!(both, [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND]);
}

#[tokio::test]
async fn a_sandbox_killed_while_it_is_paused_or_comes_back_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let router = kept(home.path(), FakeRuntime::default());
    for _ in 0..20 {
        let id = create(&router, json!({"templateID": "base"})).await;
        let path = format!("/sandboxes/{id}");
        let (_, killed) = tokio::join!(
            post(&router, &id, "pause", json!({})),
            call(&router, Method::DELETE, &path, &[], None)
        );
        assert_eq!(killed.status, StatusCode::NO_CONTENT);
        let id = create(&router, json!({"templateID": "base"})).await;
        post(&router, &id, "pause", json!({"memory": false})).await;
        let path = format!("/sandboxes/{id}");
        let (_, killed) = tokio::join!(
            post(&router, &id, "connect", json!({"timeout": 9})),
            call(&router, Method::DELETE, &path, &[], None)
        );
        assert_eq!(killed.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(
        call(&router, Method::GET, "/v2/sandboxes", &[], None).await.body,
        json!([])
    );
    assert!(archives(home.path()).is_empty(), "{:?}", archives(home.path()));
    let next = kept(home.path(), FakeRuntime::default());
    assert_eq!(
        call(&next, Method::GET, "/v2/sandboxes", &[], None).await.body,
        json!([])
    );
}
