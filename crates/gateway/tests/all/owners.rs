//! Two keys: what one made, the other cannot see, change or reach, and is told nothing that it would not be told of a
//! sandbox that never was.

use std::sync::Arc;

use http::{Method, StatusCode};
use sandhold_gateway::{Keys, Owner};
use serde_json::{Value, json};

use crate::{
    call,
    fake::{FakeRuntime, gateway},
};

#[tokio::test]
async fn every_way_in_is_closed_to_others() {
    let (home, gateway) = gateway(FakeRuntime::layered(&Arc::default()));
    let keys = Arc::new(Keys::open(home.path()).unwrap());
    let (mine, theirs) = (keys.create("mine").unwrap(), keys.create("theirs").unwrap());
    let router = gateway.router_with_keys(keys, axum::Router::new());
    let (mine, theirs) = ([("x-api-key", mine.as_str())], [("x-api-key", theirs.as_str())]);
    let made = call(
        &router,
        Method::POST,
        "/v2/sandboxes",
        &mine,
        Some(json!({"templateID": "base"})),
    )
    .await;
    let id = made.body["sandboxID"].as_str().unwrap().to_owned();
    let in_process = gateway.router(Owner::LOCAL);

    let ways = [
        (Method::GET, "/sandboxes/ID", Value::Null),
        (Method::GET, "/sandboxes/ID/metrics", Value::Null),
        (Method::GET, "/sandboxes/ID/logs", Value::Null),
        (Method::GET, "/v2/sandboxes/ID/logs", Value::Null),
        (Method::POST, "/v2/sandboxes/ID/connect", json!({})),
        (Method::POST, "/sandboxes/ID/connect", json!({"timeout": 5})),
        (Method::POST, "/sandboxes/ID/timeout", json!({"timeout": 5})),
        (Method::POST, "/sandboxes/ID/refreshes", json!({"duration": 5})),
        (Method::POST, "/sandboxes/ID/pause", json!({})),
        (Method::POST, "/sandboxes/ID/resume", json!({})),
        (Method::POST, "/sandboxes/ID/snapshots", json!({"name": "s"})),
        (Method::POST, "/sandboxes/ID/fork", json!({})),
        (Method::POST, "/sandboxes/ID/checkpoints", json!({})),
        (Method::GET, "/sandboxes/ID/checkpoints", Value::Null),
        (Method::POST, "/sandboxes/ID/rollback", json!({"snapshotID": "s"})),
        (Method::GET, "/sandboxes/ID/diff", Value::Null),
        (Method::DELETE, "/sandboxes/ID", Value::Null),
    ];
    for (method, path, body) in &ways {
        let body = Some(body.clone()).filter(|b| !b.is_null());
        let at = |id: &str| path.replace("ID", id);
        for (router, headers) in [(&router, &theirs[..]), (&in_process, &[][..])] {
            let foreign = call(router, method.clone(), &at(&id), headers, body.clone()).await;
            let unknown = call(
                router,
                method.clone(),
                &at("inever00000000000000x"),
                headers,
                body.clone(),
            )
            .await;
            assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{method} {path}");
            assert_eq!(
                foreign.body.to_string().replace(&id, "ID"),
                unknown.body.to_string().replace("inever00000000000000x", "ID"),
                "{method} {path}"
            );
        }
    }
    // The positive control: each way works for who made it.
    for (method, path, body) in &ways {
        let body = Some(body.clone()).filter(|b| !b.is_null());
        let own = call(&router, method.clone(), &path.replace("ID", &id), &mine, body).await;
        assert!(own.status.is_success(), "{method} {path}: {} {}", own.status, own.body);
    }
    // After its end too, the other is told less.
    let own = call(&router, Method::GET, &format!("/sandboxes/{id}"), &mine, None).await;
    let foreign = call(&router, Method::GET, &format!("/sandboxes/{id}"), &theirs, None).await;
    assert!(own.body["message"].as_str().unwrap().contains("it was shut down"));
    assert!(
        !foreign.body["message"].as_str().unwrap().contains("ended"),
        "{}",
        foreign.body
    );
    let logs = format!("/v2/sandboxes/{id}/logs");
    let own = call(&router, Method::GET, &logs, &mine, None).await;
    assert!(
        own.body["logs"].to_string().contains("it was shut down"),
        "{}",
        own.body
    );
    assert_eq!(
        call(&router, Method::GET, &logs, &theirs, None).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn lists_tokens_metrics_and_idempotency_keys_are_ones_own() {
    let (home, gateway) = gateway(FakeRuntime::default());
    let keys = Arc::new(Keys::open(home.path()).unwrap());
    let (mine, theirs) = (keys.create("mine").unwrap(), keys.create("theirs").unwrap());
    let router = gateway.router_with_keys(keys, axum::Router::new());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let headers = [("x-api-key", mine.as_str()), ("idempotency-key", "same")];
        let body = json!({"templateID": "base"});
        ids.push(
            call(&router, Method::POST, "/v2/sandboxes", &headers, Some(body))
                .await
                .body["sandboxID"]
                .clone(),
        );
    }
    assert_eq!(ids[0], ids[1], "the same key is the same sandbox");
    let headers = [("x-api-key", theirs.as_str()), ("idempotency-key", "same")];
    let other = call(
        &router,
        Method::POST,
        "/v2/sandboxes",
        &headers,
        Some(json!({"templateID": "base"})),
    )
    .await;
    assert_ne!(other.body["sandboxID"], ids[0], "another owner's key is another key");
    let (mine, theirs) = ([("x-api-key", mine.as_str())], [("x-api-key", theirs.as_str())]);
    call(
        &router,
        Method::POST,
        "/v2/sandboxes",
        &mine,
        Some(json!({"templateID": "base"})),
    )
    .await;

    let listed = call(&router, Method::GET, "/v2/sandboxes", &theirs, None).await;
    assert_eq!(listed.body.as_array().unwrap().len(), 1);
    assert_eq!(listed.body[0]["sandboxID"], other.body["sandboxID"]);
    assert_eq!(listed.headers["x-total-running"], "1");
    let page = call(&router, Method::GET, "/v2/sandboxes?limit=1", &mine, None).await;
    let token = page.headers["x-next-token"].to_str().unwrap();
    let next = format!("/v2/sandboxes?limit=1&nextToken={token}");
    assert_eq!(
        call(&router, Method::GET, &next, &mine, None)
            .await
            .body
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        call(&router, Method::GET, &next, &theirs, None).await.status,
        StatusCode::BAD_REQUEST
    );

    let both = format!(
        "/sandboxes/metrics?sandbox_ids={},{}",
        ids[0].as_str().unwrap(),
        other.body["sandboxID"].as_str().unwrap()
    );
    let metrics = call(&router, Method::GET, &both, &mine, None).await;
    let seen: Vec<_> = metrics.body["sandboxes"].as_object().unwrap().keys().collect();
    assert_eq!(seen, [ids[0].as_str().unwrap()]);
}

#[tokio::test]
async fn a_service_of_one_owner_reaches_that_owners_sandboxes_alone() {
    let (home, gateway) = gateway(FakeRuntime::default());
    let keys = Arc::new(Keys::open(home.path()).unwrap());
    let key = keys.create("mine").unwrap();
    let owner = keys.owner_of(&key).unwrap();
    let network = gateway.router_with_keys(keys, axum::Router::new());
    let made = call(
        &network,
        Method::POST,
        "/v2/sandboxes",
        &[("x-api-key", &key)],
        Some(json!({"templateID": "base"})),
    )
    .await;
    let id = made.body["sandboxID"].as_str().unwrap();
    let to = [("e2b-sandbox-id", id), ("e2b-sandbox-port", "8080")];
    let own = call(&gateway.router(owner), Method::GET, "/echo", &to, None).await;
    assert_eq!(own.status, StatusCode::OK);
    let other = call(&gateway.router(Owner::LOCAL), Method::GET, "/echo", &to, None).await;
    assert_eq!(
        (other.status, &other.body["message"]),
        (StatusCode::BAD_GATEWAY, &json!("The sandbox was not found"))
    );
}
