//! What the gateway tells: metrics, logs, pages, numbers for the operator, and answers to creates sent twice.

use std::{sync::atomic::Ordering, time::Duration};

use http::{Method, StatusCode};
use sandhold_gateway::Owner;
use serde_json::json;

use crate::{
    call, create,
    fake::{FakeRuntime, gateway},
};

#[tokio::test(start_paused = true)]
async fn metrics_have_a_history_and_idle_daemons_are_left_alone() {
    let runtime = FakeRuntime::default();
    let asked = runtime.asked.clone();
    let (_home, gateway) = gateway(runtime);
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base", "timeout": 3600})).await;
    tokio::time::sleep(Duration::from_secs(26)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody asked for anything");
    let path = format!("/sandboxes/{id}/metrics");
    let all = call(&router, Method::GET, &path, &[], None).await.body;
    let all = all.as_array().unwrap();
    assert!((5..=7).contains(&all.len()), "{}", all.len());
    let last = all.last().unwrap();
    assert_eq!(
        (
            &last["memUsed"],
            &last["memCache"],
            &last["memTotal"],
            &last["diskUsed"],
            &last["cpuCount"]
        ),
        (
            &json!(2 << 20),
            &json!(1 << 20),
            &json!(1 << 30),
            &json!(4096),
            &json!(1.0)
        )
    );
    for field in ["timestamp", "timestampUnix", "cpuUsedPct", "diskTotal"] {
        assert!(!last[field].is_null(), "{field}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let later = format!("{path}?start={}", last["timestampUnix"].as_i64().unwrap() + 3600);
    assert_eq!(call(&router, Method::GET, &later, &[], None).await.body, json!([]));
    let earlier = format!("{path}?start=0&end={}", last["timestampUnix"]);
    assert!(
        !call(&router, Method::GET, &earlier, &[], None)
            .await
            .body
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        call(&router, Method::GET, &format!("{path}?start=now"), &[], None)
            .await
            .status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        call(&router, Method::GET, "/sandboxes/metrics", &[], None).await.status,
        StatusCode::BAD_REQUEST
    );
    // While one watches the daemon is asked at each look, and a minute later no more.
    tokio::time::sleep(Duration::from_secs(300)).await;
    let while_watched = asked.load(Ordering::SeqCst);
    assert!((10..=14).contains(&while_watched), "{while_watched}");
}

#[tokio::test]
async fn logs_tell_what_happened() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base"})).await;
    for (what, body) in [
        ("timeout", json!({"timeout": 60})),
        ("pause", json!({})),
        ("resume", json!({})),
    ] {
        call(
            &router,
            Method::POST,
            &format!("/sandboxes/{id}/{what}"),
            &[],
            Some(body),
        )
        .await;
    }
    let v2 = format!("/v2/sandboxes/{id}/logs");
    let logs = call(&router, Method::GET, &v2, &[], None).await.body;
    let events = |logs: &serde_json::Value| -> Vec<String> {
        let entries = logs["logs"].as_array().unwrap();
        entries
            .iter()
            .map(|e| e["fields"]["event"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(events(&logs), ["created", "timeout set", "paused", "resumed"]);
    assert_eq!(logs["logs"][0]["level"], "info");
    let back = call(
        &router,
        Method::GET,
        &format!("{v2}?direction=backward&limit=1"),
        &[],
        None,
    )
    .await
    .body;
    assert_eq!(events(&back), ["resumed"]);
    let found = call(&router, Method::GET, &format!("{v2}?search=60+s"), &[], None)
        .await
        .body;
    assert_eq!(events(&found), ["timeout set"]);
    let warned = call(&router, Method::GET, &format!("{v2}?level=warn"), &[], None)
        .await
        .body;
    assert!(events(&warned).is_empty());
    let v1 = call(
        &router,
        Method::GET,
        &format!("/sandboxes/{id}/logs?limit=2"),
        &[],
        None,
    )
    .await
    .body;
    assert_eq!(v1["logs"].as_array().unwrap().len(), 2);
    assert!(
        v1["logs"][0]["line"].is_string() && v1["logEntries"][0]["message"].is_string(),
        "{v1}"
    );
    assert_eq!(
        call(&router, Method::GET, &format!("{v2}?cursor=x"), &[], None)
            .await
            .status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_create_sent_twice_makes_one_sandbox() {
    let runtime = FakeRuntime::default();
    let (_home, gateway) = gateway(runtime);
    let router = gateway.router(Owner::LOCAL);
    let post = async |key: &str, path: &str, body: serde_json::Value| {
        call(&router, Method::POST, path, &[("idempotency-key", key)], Some(body)).await
    };
    let body = json!({"templateID": "base", "metadata": {"a": "b"}});
    let first = post("k-1", "/v2/sandboxes", body.clone()).await;
    let second = post("k-1", "/v2/sandboxes", body.clone()).await;
    assert_eq!(
        (first.status, second.status),
        (StatusCode::CREATED, StatusCode::CREATED)
    );
    assert_eq!(first.body, second.body);
    let other = post("k-1", "/v2/sandboxes", json!({"templateID": "base"})).await;
    assert_eq!((other.status.as_u16(), &other.body["code"]), (422, &json!(422)));
    assert_eq!(post("k-1", "/sandboxes", body.clone()).await.status.as_u16(), 422);
    assert_ne!(
        post("k-2", "/v2/sandboxes", body.clone()).await.body["sandboxID"],
        first.body["sandboxID"]
    );
    for bad in ["", &"x".repeat(256), "a b"] {
        assert_eq!(
            post(bad, "/v2/sandboxes", body.clone()).await.status.as_u16(),
            400,
            "{bad}"
        );
    }
    // One that failed can be tried again.
    assert_eq!(
        post("k-3", "/v2/sandboxes", json!({"templateID": "nope"}))
            .await
            .status
            .as_u16(),
        404
    );
    assert_eq!(post("k-3", "/v2/sandboxes", body.clone()).await.status.as_u16(), 201);
    // Side by side: one makes it, the others wait or are told.
    let many = futures::future::join_all((0..8).map(|_| post("k-4", "/v2/sandboxes", body.clone()))).await;
    let mut ids: Vec<_> = many
        .iter()
        .filter(|a| a.status.as_u16() == 201)
        .map(|a| a.body["sandboxID"].to_string())
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert!(many.iter().all(|a| matches!(a.status.as_u16(), 201 | 409)));
}

#[tokio::test]
async fn browsers_get_pages() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base"})).await;
    let host = format!("81-{id}.sandhold.localhost:3000");
    let browser = [("host", host.as_str()), ("accept", "text/html,*/*;q=0.8")];
    let page = call(&router, Method::GET, "/", &browser, None).await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(
        page.body.as_str().unwrap().contains("Nothing listens on port 81"),
        "{}",
        page.body
    );
    let program = call(&router, Method::GET, "/", &browser[..1], None).await;
    assert_eq!(program.body["port"], 81);
    let host = "81-inever.sandhold.localhost";
    let page = call(&router, Method::GET, "/", &[("host", host), browser[1]], None).await;
    assert!(
        page.body.as_str().unwrap().contains("Sandbox not found"),
        "{}",
        page.body
    );
    // What an application inside answers is its own.
    let host = format!("8080-{id}.sandhold.localhost");
    let own = call(
        &router,
        Method::GET,
        "/missing",
        &[("host", host.as_str()), browser[1]],
        None,
    )
    .await;
    assert_eq!((own.status, own.body), (StatusCode::NOT_FOUND, json!("")));
}

#[tokio::test]
async fn the_operator_sees_numbers_without_a_key() {
    let (home, gateway) = gateway(FakeRuntime::default());
    let keys = std::sync::Arc::new(sandhold_gateway::Keys::open(home.path()).unwrap());
    let local = gateway.router(Owner::LOCAL);
    let id = create(&local, json!({"templateID": "base"})).await;
    create(&local, json!({"templateID": "base"})).await;
    call(&local, Method::POST, &format!("/sandboxes/{id}/pause"), &[], None).await;
    let beside = axum::Router::new().route("/beside", axum::routing::get(async || "beside"));
    let network = gateway.router_with_keys(keys, beside);
    let text = call(&network, Method::GET, "/metrics", &[], None).await;
    let text = text.body.as_str().unwrap().to_owned();
    for line in [
        "sandhold_sandboxes{state=\"running\"} 1",
        "sandhold_sandboxes{state=\"paused\"} 1",
        "sandhold_sandboxes_created_total 2",
        "# TYPE sandhold_sandboxes_created_total counter",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(!text.contains(&id), "it names no sandbox");
    assert_eq!(
        call(&network, Method::GET, "/beside", &[], None).await.body,
        json!("beside")
    );
    // On a sandbox's host the same path is the sandbox's.
    let host = format!("8080-{id}.sandhold.localhost");
    let inside = call(&network, Method::GET, "/beside", &[("host", &host)], None).await;
    assert_ne!(inside.body, json!("beside"));
}
