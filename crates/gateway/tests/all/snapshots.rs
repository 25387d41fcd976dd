//! Snapshots, forks, checkpoints, and paused sandboxes that are kept as layers.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::Router;
use http::{Method, StatusCode};
use sandhold_gateway::{Keys, Owner};
use serde_json::{Value, json};

use crate::{
    Answer, call, create,
    fake::{FakeLayers, FakeRuntime, gateway, gateway_at, gateway_that},
};

async fn post(router: &Router, path: &str, body: Value) -> Answer {
    call(router, Method::POST, path, &[], Some(body)).await
}

async fn get(router: &Router, path: &str) -> Answer {
    call(router, Method::GET, path, &[], None).await
}

async fn write(router: &Router, id: &str, text: &str) {
    let headers = [("e2b-sandbox-id", id)];
    let answer = call(router, Method::POST, "/write", &headers, Some(json!(text))).await;
    assert_eq!(answer.status, StatusCode::OK);
}

async fn files(router: &Router, id: &str) -> Value {
    let headers = [("e2b-sandbox-id", id)];
    let answer = call(router, Method::GET, "/sandhold/archive", &headers, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body
}

async fn snapshot(router: &Router, id: &str, body: Value) -> Value {
    let taken = post(router, &format!("/sandboxes/{id}/snapshots"), body).await;
    assert_eq!(taken.status, StatusCode::CREATED, "{}", taken.body);
    taken.body
}

fn layered() -> (tempfile::TempDir, Arc<FakeLayers>, Router) {
    let (home, layers) = (tempfile::tempdir().unwrap(), Arc::new(FakeLayers::default()));
    let router = gateway_at(home.path(), FakeRuntime::layered(&layers), true).router(Owner::LOCAL);
    (home, layers, router)
}

/// Waits until the collector has left so many layers.
async fn until_layers(layers: &FakeLayers, count: usize) {
    for _ in 0..500 {
        if layers.count() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} layers are left, not {count}", layers.count());
}

#[tokio::test]
async fn a_snapshot_outlives_its_sandbox_and_its_server() {
    let (home, layers, router) = layered();
    let id = create(&router, json!({"templateID": "base", "metadata": {"k": "v"}})).await;
    write(&router, &id, "one").await;
    let first = snapshot(&router, &id, json!({})).await;
    let own = first["snapshotID"].as_str().unwrap().to_owned();
    assert!(own.ends_with(":default") && first["names"] == json!([]), "{first}");
    assert_eq!(first["sandboxID"], json!(id));
    write(&router, &id, "two").await;
    let named = snapshot(
        &router,
        &id,
        json!({"name": "Team/kept".to_lowercase(), "memory": true}),
    )
    .await;
    assert_eq!(
        (&named["snapshotID"], &named["names"]),
        (&json!("kept:default"), &json!(["kept:default"]))
    );
    let killed = call(&router, Method::DELETE, &format!("/sandboxes/{id}"), &[], None).await;
    assert_eq!(killed.status, StatusCode::NO_CONTENT);
    drop(router);

    let next = gateway_at(home.path(), FakeRuntime::layered(&layers), true).router(Owner::LOCAL);
    let list = get(&next, "/snapshots").await.body;
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0], named, "the newest comes first");
    for (template, wanted) in [
        (own.as_str(), "one"),
        ("kept", "two"),
        ("kept:default", "two"),
        ("x/kept", "two"),
    ] {
        let body = json!({"templateID": template});
        let made = post(&next, "/v2/sandboxes", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
        let copy = made.body["sandboxID"].as_str().unwrap();
        assert_eq!(files(&next, copy).await, json!(wanted), "{template}");
    }
    let made = post(&next, "/v2/sandboxes", json!({"templateID": "kept"})).await.body;
    assert_eq!(made["alias"], "kept:default");
    for unknown in ["kept:v2", "other"] {
        let made = post(&next, "/v2/sandboxes", json!({"templateID": unknown})).await;
        assert_eq!(made.status, StatusCode::NOT_FOUND, "{unknown}");
    }
    for name in ["kept:default", &own] {
        let path = format!("/templates/{}", name.replace(':', "%3A"));
        let deleted = call(&next, Method::DELETE, &path, &[], None).await;
        assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.body);
        let again = call(&next, Method::DELETE, &path, &[], None).await;
        assert_eq!(
            (again.status, &again.body["code"]),
            (StatusCode::NOT_FOUND, &json!(404))
        );
    }
    assert_eq!(get(&next, "/snapshots").await.body, json!([]));
}

#[tokio::test]
async fn layers_go_with_the_last_that_names_them() {
    let (_home, layers, router) = layered();
    let id = create(&router, json!({"templateID": "base"})).await;
    write(&router, &id, "one").await;
    snapshot(&router, &id, json!({"name": "a"})).await;
    snapshot(&router, &id, json!({"name": "b"})).await;
    write(&router, &id, "two").await;
    snapshot(&router, &id, json!({"name": "c"})).await;
    assert_eq!(layers.count(), 2, "what both have in common is there once");
    let delete = async |name: &str| {
        let path = format!("/templates/{name}");
        let deleted = call(&router, Method::DELETE, &path, &[], None).await;
        assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    };
    delete("a").await;
    delete("c").await;
    until_layers(&layers, 1).await;
    let copy = create(&router, json!({"templateID": "b"})).await;
    assert_eq!(files(&router, &copy).await, json!("one"));
    // A name that passes on leaves what it stood for.
    write(&router, &id, "three").await;
    call(&router, Method::DELETE, &format!("/sandboxes/{copy}"), &[], None).await;
    snapshot(&router, &id, json!({"name": "b"})).await;
    assert_eq!(get(&router, "/snapshots").await.body.as_array().unwrap().len(), 1);
    delete("b").await;
    until_layers(&layers, 0).await;
}

#[tokio::test]
async fn snapshots_are_listed_page_by_page_and_by_owner() {
    let (home, layers) = (tempfile::tempdir().unwrap(), Arc::new(FakeLayers::default()));
    let gateway = gateway_at(home.path(), FakeRuntime::layered(&layers), true);
    let keys = Arc::new(Keys::open(home.path()).unwrap());
    let (mine, theirs) = (keys.create("mine").unwrap(), keys.create("theirs").unwrap());
    let router = gateway.router_with_keys(keys, Router::new());
    let (mine, theirs) = ([("x-api-key", mine.as_str())], [("x-api-key", theirs.as_str())]);
    let body = json!({"templateID": "base"});
    let made = call(&router, Method::POST, "/v2/sandboxes", &mine, Some(body))
        .await
        .body;
    let id = made["sandboxID"].as_str().unwrap();
    let path = format!("/sandboxes/{id}/snapshots");
    for name in ["a", "b:v1", "c"] {
        let taken = call(&router, Method::POST, &path, &mine, Some(json!({"name": name}))).await;
        assert_eq!(taken.status, StatusCode::CREATED, "{}", taken.body);
    }
    let first = call(&router, Method::GET, "/snapshots?limit=2", &mine, None).await;
    let token = first.headers["x-next-token"].to_str().unwrap().to_owned();
    let ids = |answer: &Answer| {
        let list = answer.body.as_array().unwrap();
        list.iter()
            .map(|s| s["snapshotID"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), ["c:default", "b:v1"]);
    let path = format!("/snapshots?limit=2&nextToken={token}");
    let second = call(&router, Method::GET, &path, &mine, None).await;
    assert_eq!(ids(&second), ["a:default"]);
    assert!(!second.headers.contains_key("x-next-token"));
    for (query, wanted) in [
        (format!("sandboxID={id}"), 3),
        ("sandboxID=iother".into(), 0),
        ("name=b%3Av1".into(), 1),
        ("name=b".into(), 0),
    ] {
        let found = call(&router, Method::GET, &format!("/snapshots?{query}"), &mine, None).await;
        assert_eq!(ids(&found).len(), wanted, "{query}");
    }
    for bad in ["limit=0", "limit=x", "nextToken=x", "name=A%20B"] {
        let refused = call(&router, Method::GET, &format!("/snapshots?{bad}"), &mine, None).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(
        call(&router, Method::GET, "/snapshots", &theirs, None).await.body,
        json!([])
    );
    let foreign = call(&router, Method::DELETE, "/templates/c", &theirs, None).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let foreign = call(
        &router,
        Method::POST,
        "/v2/sandboxes",
        &theirs,
        Some(json!({"templateID": "c"})),
    )
    .await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let own = call(
        &router,
        Method::POST,
        "/v2/sandboxes",
        &mine,
        Some(json!({"templateID": "c"})),
    )
    .await;
    assert_eq!(own.status, StatusCode::CREATED);
}

#[tokio::test]
async fn forks_go_on_by_themselves() {
    let (_home, _layers, router) = layered();
    let body = json!({"templateID": "base", "metadata": {"k": "v", "sandhold.default": "m"}, "envVars": {"A": "1"}, "memoryMB": 256,
        "network": {"allowPublicTraffic": false}});
    let made = post(&router, "/v2/sandboxes", body).await.body;
    let id = made["sandboxID"].as_str().unwrap();
    write(&router, id, "common").await;
    let forked = post(
        &router,
        &format!("/sandboxes/{id}/fork"),
        json!({"count": 3, "timeout": 60}),
    )
    .await;
    assert_eq!(forked.status, StatusCode::CREATED, "{}", forked.body);
    let forks: Vec<&Value> = forked.body.as_array().unwrap().iter().map(|f| &f["sandbox"]).collect();
    assert_eq!(forks.len(), 3);
    let mut seen = vec![made.clone()];
    for fork in forks {
        for own in ["sandboxID", "envdAccessToken", "trafficAccessToken"] {
            assert!(
                seen.iter()
                    .all(|other| other[own] != fork[own] && fork[own].is_string()),
                "{own}"
            );
        }
        let other = fork["sandboxID"].as_str().unwrap();
        let (detail, source) = (
            get(&router, &format!("/sandboxes/{other}")).await.body,
            get(&router, &format!("/sandboxes/{id}")).await.body,
        );
        assert_eq!(
            detail["metadata"],
            json!({"k": "v"}),
            "what Sandhold marked it with is its own"
        );
        for same in ["memoryMB", "network", "templateID", "limits"] {
            assert_eq!(detail[same], source[same], "{same}");
        }
        assert_eq!(files(&router, other).await, json!("common"));
        write(&router, other, "own").await;
        let diff = get(&router, &format!("/sandboxes/{other}/diff")).await.body;
        assert_eq!(diff["changes"].as_array().unwrap().len(), 2, "since the fork: {diff}");
        seen.push(fork.clone());
    }
    assert_eq!(files(&router, id).await, json!("common"));
    for (body, status) in [
        (json!({"count": 0}), 400),
        (json!({"count": 21}), 400),
        (json!({"timeout": 0}), 400),
        (json!({}), 201),
    ] {
        let answer = post(&router, &format!("/sandboxes/{id}/fork"), body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.body);
    }
    post(&router, &format!("/sandboxes/{id}/pause"), json!({})).await;
    let paused = post(&router, &format!("/sandboxes/{id}/fork"), json!({})).await;
    assert_eq!(
        (paused.status, &paused.body["code"]),
        (StatusCode::CONFLICT, &json!(409))
    );
}

#[tokio::test]
async fn files_go_back_to_checkpoints_and_snapshots() {
    let (_home, _layers, router) = layered();
    let id = create(&router, json!({"templateID": "base"})).await;
    let point = async |label: &str| {
        let made = post(
            &router,
            &format!("/sandboxes/{id}/checkpoints"),
            json!({"label": label}),
        )
        .await;
        let status = if made.body["isNew"] == true {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        assert_eq!(made.status, status, "{}", made.body);
        made.body["checkpointID"].as_str().unwrap().to_owned()
    };
    let back = async |body: Value| post(&router, &format!("/sandboxes/{id}/rollback"), body).await;
    let empty = point("start").await;
    assert_eq!(point("nothing changed").await, empty);
    write(&router, &id, "a b").await;
    let first = point("first").await;
    assert_ne!(first, empty);
    snapshot(&router, &id, json!({"name": "kept"})).await;
    write(&router, &id, "b c").await;
    let diff = async |query: &str| get(&router, &format!("/sandboxes/{id}/diff{query}")).await;
    assert_eq!(
        diff(&format!("?since={first}")).await.body,
        json!({"changes": [{"path": "/c", "change": "added", "type": "file", "size": 1},
            {"path": "/a", "change": "removed", "type": "file", "size": 1}], "truncated": false})
    );
    assert_eq!(diff("").await.body["changes"].as_array().unwrap().len(), 2);
    let one = diff("?since=creation&limit=1").await.body;
    assert_eq!(
        (one["changes"].as_array().unwrap().len(), &one["truncated"]),
        (1, &json!(true))
    );
    assert_eq!(
        back(json!({"checkpointID": first})).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(files(&router, &id).await, json!("a b"));
    assert_eq!(point("again").await, first, "it is there already");
    assert_eq!(
        back(json!({"checkpointID": empty})).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(diff("").await.body["changes"], json!([]));
    assert_eq!(diff(&format!("?since={first}")).await.status, StatusCode::CONFLICT);
    assert_eq!(back(json!({"snapshotID": "kept"})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(files(&router, &id).await, json!("a b"));
    for (body, status, code) in [
        (json!({}), 400, Value::Null),
        (json!({"checkpointID": first, "snapshotID": "kept"}), 400, Value::Null),
        (json!({"checkpointID": "cp-none"}), 404, json!("checkpoint_not_found")),
        (json!({"snapshotID": "none"}), 404, json!("snapshot_not_found")),
    ] {
        let refused = back(body.clone()).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.body["error_code"]),
            (status, &code),
            "{body}"
        );
    }
    for bad in ["?limit=0", "?limit=10001", "?limit=x"] {
        assert_eq!(diff(bad).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    // The oldest goes.
    for n in 0..40 {
        write(&router, &id, &format!("n{n}")).await;
        point("many").await;
    }
    let list = get(&router, &format!("/sandboxes/{id}/checkpoints")).await.body;
    assert_eq!(list.as_array().unwrap().len(), sandhold_gateway::limits::CHECKPOINTS);
    assert_eq!(back(json!({"checkpointID": first})).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_engine_without_layers_says_so() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base"})).await;
    for (what, body) in [
        ("snapshots", json!({})),
        ("fork", json!({})),
        ("checkpoints", json!({})),
        ("rollback", json!({"checkpointID": "x"})),
    ] {
        let refused = post(&router, &format!("/sandboxes/{id}/{what}"), body).await;
        assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED, "{what}");
        assert!(
            refused.body["message"].as_str().unwrap().contains("a fake"),
            "{}",
            refused.body
        );
    }
    assert_eq!(
        get(&router, &format!("/sandboxes/{id}/diff")).await.status,
        StatusCode::NOT_IMPLEMENTED
    );
    assert_eq!(get(&router, "/snapshots").await.body, json!([]));
}

#[tokio::test]
async fn a_full_disk_leaves_no_half_snapshot() {
    let (_home, layers, router) = layered();
    let id = create(&router, json!({"templateID": "base"})).await;
    write(&router, &id, "one").await;
    layers.full.store(true, Ordering::SeqCst);
    let refused = post(&router, &format!("/sandboxes/{id}/snapshots"), json!({"name": "a"})).await;
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE, "{}", refused.body);
    let refused = post(&router, &format!("/sandboxes/{id}/pause"), json!({})).await;
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE, "{}", refused.body);
    assert_eq!(get(&router, &format!("/sandboxes/{id}")).await.body["state"], "running");
    assert_eq!(get(&router, "/snapshots").await.body, json!([]));
    layers.full.store(false, Ordering::SeqCst);
    snapshot(&router, &id, json!({"name": "a"})).await;
}

#[tokio::test]
async fn paused_sandboxes_are_kept_as_layers() {
    let (home, layers, router) = layered();
    let id = create(&router, json!({"templateID": "base"})).await;
    write(&router, &id, "files").await;
    let paused = post(&router, &format!("/sandboxes/{id}/pause"), json!({})).await;
    assert_eq!(paused.status, StatusCode::NO_CONTENT, "{}", paused.body);
    assert_eq!(
        std::fs::read_dir(home.path().join("paused")).unwrap().count(),
        0,
        "no archive"
    );
    assert_eq!(get(&router, &format!("/sandboxes/{id}")).await.body["keptBytes"], 7);
    // As after SIGKILL.
    let next = gateway_at(home.path(), FakeRuntime::layered(&layers), true).router(Owner::LOCAL);
    // A collection in between takes nothing that is named.
    let other = create(&next, json!({"templateID": "base"})).await;
    call(&next, Method::DELETE, &format!("/sandboxes/{other}"), &[], None).await;
    let detail = get(&next, &format!("/sandboxes/{id}")).await.body;
    assert_eq!((&detail["state"], &detail["keptBytes"]), (&json!("paused"), &json!(7)));
    let taken = snapshot(&next, &id, json!({"name": "of-paused"})).await;
    assert_eq!(taken["sandboxID"], json!(id));
    let back = post(&next, &format!("/sandboxes/{id}/connect"), json!({"timeout": 60})).await;
    assert_eq!(
        (back.status, &back.body["resumedFrom"]),
        (StatusCode::CREATED, &json!("filesystem"))
    );
    assert_eq!(files(&next, &id).await, json!("files"));
    let diff = get(&next, &format!("/sandboxes/{id}/diff")).await.body;
    assert_eq!(
        diff["changes"].as_array().unwrap().len(),
        1,
        "since it was made in the first place"
    );
    call(&next, Method::DELETE, "/templates/of-paused", &[], None).await;
    call(&next, Method::DELETE, &format!("/sandboxes/{id}"), &[], None).await;
    until_layers(&layers, 0).await;
}

#[tokio::test]
async fn an_archive_of_an_older_version_still_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let old = gateway_at(home.path(), FakeRuntime::default(), true).router(Owner::LOCAL);
    let id = create(&old, json!({"templateID": "base"})).await;
    write(&old, &id, "files").await;
    post(&old, &format!("/sandboxes/{id}/pause"), json!({})).await;
    without_new_fields(home.path());
    let layers = Arc::new(FakeLayers::default());
    let next = gateway_at(home.path(), FakeRuntime::layered(&layers), true).router(Owner::LOCAL);
    assert_eq!(get(&next, &format!("/sandboxes/{id}")).await.body["keptBytes"], 7);
    let back = post(&next, &format!("/sandboxes/{id}/connect"), json!({"timeout": 60})).await;
    assert_eq!(back.status, StatusCode::CREATED, "{}", back.body);
    assert_eq!(files(&next, &id).await, json!("files"));
}

/// Makes the registry one of a version that knew no layers.
fn without_new_fields(home: &Path) {
    let raw = rusqlite::Connection::open(home.join("sandboxes.db")).unwrap();
    let paused: String = raw
        .query_row(
            "SELECT paused FROM sandboxes WHERE coalesce(paused, '') <> ''",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let mut recipe: Value = serde_json::from_str(&paused).unwrap();
    for field in ["alias", "start", "files", "origin", "kept_bytes"] {
        assert!(recipe.as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    let changed = raw.execute(
        "UPDATE sandboxes SET paused = ?1 WHERE paused IS NOT NULL",
        [recipe.to_string()],
    );
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test]
async fn what_runs_can_be_paused_at_the_end() {
    for layered in [true, false] {
        let (home, layers) = (tempfile::tempdir().unwrap(), Arc::new(FakeLayers::default()));
        let runtime = || {
            if layered {
                FakeRuntime::layered(&layers)
            } else {
                FakeRuntime::default()
            }
        };
        let gateway = gateway_that(home.path(), runtime(), true, true);
        let router = gateway.router(Owner::LOCAL);
        let body = json!({"templateID": "base", "metadata": {"k": "v"}});
        let (id, gone) = (
            create(&router, body).await,
            create(&router, json!({"templateID": "base"})).await,
        );
        write(&router, &id, "files").await;
        call(&router, Method::DELETE, &format!("/sandboxes/{gone}"), &[], None).await;
        gateway.shutdown().await;
        let next = gateway_that(home.path(), runtime(), true, true).router(Owner::LOCAL);
        let list = get(&next, "/v2/sandboxes").await.body;
        assert_eq!(list.as_array().unwrap().len(), 1);
        assert_eq!(
            (&list[0]["state"], &list[0]["metadata"]),
            (&json!("paused"), &json!({"k": "v"}))
        );
        let back = post(&next, &format!("/sandboxes/{id}/connect"), json!({"timeout": 60})).await;
        assert_eq!(back.body["resumedFrom"], "filesystem", "{}", back.body);
        assert_eq!(files(&next, &id).await, json!("files"));
    }
}

#[tokio::test]
async fn one_that_cannot_be_paused_at_the_end_ends() {
    let (home, layers) = (tempfile::tempdir().unwrap(), Arc::new(FakeLayers::default()));
    let gateway = gateway_that(home.path(), FakeRuntime::layered(&layers), true, true);
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base"})).await;
    layers.full.store(true, Ordering::SeqCst);
    gateway.shutdown().await;
    let next = gateway_that(home.path(), FakeRuntime::layered(&layers), true, true).router(Owner::LOCAL);
    let told = get(&next, &format!("/sandboxes/{id}")).await;
    assert_eq!(told.status, StatusCode::NOT_FOUND);
    assert!(
        told.body["message"].as_str().unwrap().contains("with the server"),
        "{}",
        told.body
    );
}
