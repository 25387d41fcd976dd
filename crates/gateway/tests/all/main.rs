//! The gateway against a runtime whose daemon is an axum service in this process.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod hostile;
mod keeping;
mod owners;
mod process;
mod snapshots;
mod telling;
mod templates;

use std::{collections::BTreeMap, time::Duration};

use axum::body::Body;
use fake::{FakeRuntime, gateway};
use http::{Method, Request, StatusCode};
use sandhold_gateway::Owner;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

async fn call(
    router: &axum::Router,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
    let response = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let body = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

async fn create(router: &axum::Router, body: Value) -> String {
    let made = call(router, Method::POST, "/v2/sandboxes", &[], Some(body)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    made.body["sandboxID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_sandbox_is_made_found_and_ended() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base", "metadata": {"k 1": "v&2"}})).await;
    assert!(id.starts_with('i') && id.len() == 21, "{id}");

    let detail = call(&router, Method::GET, &format!("/sandboxes/{id}"), &[], None).await;
    assert_eq!(detail.status, StatusCode::OK);
    assert_eq!(detail.body["state"], "running");
    assert_eq!(detail.body["metadata"], json!({"k 1": "v&2"}));
    assert_eq!(detail.body["isolation"]["level"], "fake");
    assert_eq!(detail.body["isolation"]["warnings"], json!(["missing programs: curl"]));

    let killed = call(&router, Method::DELETE, &format!("/sandboxes/{id}"), &[], None).await;
    assert_eq!(killed.status, StatusCode::NO_CONTENT);
    let gone = call(&router, Method::GET, &format!("/sandboxes/{id}"), &[], None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let message = gone.body["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("Sandbox \"{id}\" doesn't exist")) && message.ends_with("it was shut down"),
        "{message}"
    );
    assert_eq!(gone.body["code"], 404);
    assert_eq!(
        call(&router, Method::DELETE, &format!("/sandboxes/{id}"), &[], None)
            .await
            .status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let long = "x".repeat(2000);
    let many: BTreeMap<_, _> = (0..65).map(|i| (i.to_string(), String::new())).collect();
    for (body, status, text) in [
        (json!({}), 400, "templateID"),
        (json!({"templateID": "nope"}), 404, "nope"),
        (
            json!({"templateID": "base", "timeout": 0}),
            400,
            "Timeout must be greater than 0",
        ),
        (
            json!({"templateID": "base", "timeout": 999_999}),
            400,
            "cannot be greater than 3600",
        ),
        (json!({"templateID": "base", "metadata": {"k": long}}), 400, "2000"),
        (json!({"templateID": "base", "metadata": many}), 400, "65"),
        (json!({"templateID": "base", "envVars": {"A=B": "1"}}), 400, "A=B"),
        (
            json!({"templateID": "base", "allow_internet_access": true}),
            501,
            "loopback",
        ),
        (json!({"templateID": "base", "cpuCount": "many"}), 400, "cpuCount"),
    ] {
        let answer = call(&router, Method::POST, "/v2/sandboxes", &[], Some(body.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{body} {}", answer.body);
        assert_eq!(answer.body["code"], status);
        let message = answer.body["message"].as_str().unwrap();
        // serde names a field of the wrong type by its position; what matters is that it is refused with a text.
        assert!(message.contains(text) || text == "cpuCount", "{body}: {message}");
    }
    // Older SDKs say so in every create, asked or not.
    let body = json!({"templateID": "base", "allow_internet_access": true});
    let old = call(&router, Method::POST, "/sandboxes", &[], Some(body)).await;
    assert_eq!(old.status, StatusCode::CREATED, "{}", old.body);
    for (method, path) in [(Method::POST, "/templates"), (Method::GET, "/volumes")] {
        let answer = call(&router, method, path, &[], None).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (501, &json!(501)),
            "{path}"
        );
        assert!(answer.body["message"].as_str().unwrap().len() > 20, "{path}");
    }
    let unknown = call(&router, Method::GET, "/v9/nothing", &[], None).await;
    assert_eq!((unknown.status.as_u16(), &unknown.body["code"]), (404, &json!(404)));
    let method = call(&router, Method::PATCH, "/sandboxes", &[], None).await;
    assert_eq!((method.status.as_u16(), &method.body["code"]), (404, &json!(404)));
}

#[tokio::test]
async fn lists_page_by_page_and_filters() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(
            create(
                &router,
                json!({"templateID": "base", "metadata": {"parity": (n % 2).to_string()}}),
            )
            .await,
        );
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = call(
            &router,
            Method::GET,
            &format!("/v2/sandboxes?limit=2&order=asc&nextToken={token}"),
            &[],
            None,
        )
        .await;
        seen.extend(
            page.body
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s["sandboxID"].as_str().unwrap().to_owned()),
        );
        match page.headers.get("x-next-token") {
            Some(next) => next.to_str().unwrap().clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let odd = call(&router, Method::GET, "/v2/sandboxes?metadata=parity%3D1", &[], None).await;
    assert_eq!(odd.body.as_array().unwrap().len(), 2);
    let paused = call(&router, Method::GET, "/v2/sandboxes?state=paused", &[], None).await;
    assert_eq!(paused.body, json!([]));
}

#[tokio::test]
async fn pausing_stops_the_clock_and_the_traffic() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base", "timeout": 1})).await;
    let pause = format!("/sandboxes/{id}/pause");
    assert_eq!(
        call(&router, Method::POST, &pause, &[], Some(json!({}))).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        call(&router, Method::POST, &pause, &[], None).await.status,
        StatusCode::CONFLICT
    );
    let timeout = call(
        &router,
        Method::POST,
        &format!("/sandboxes/{id}/timeout"),
        &[],
        Some(json!({"timeout": 9})),
    )
    .await;
    assert_eq!(timeout.status, StatusCode::CONFLICT, "a paused sandbox has none");
    let to_envd = [("e2b-sandbox-id", id.as_str()), ("e2b-sandbox-port", "49983")];
    assert_eq!(
        call(&router, Method::GET, "/health", &to_envd, None).await.status,
        StatusCode::BAD_GATEWAY
    );
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let connect = format!("/v2/sandboxes/{id}/connect");
    assert_eq!(
        call(&router, Method::POST, &connect, &[], Some(json!({"timeout": 60})))
            .await
            .status,
        StatusCode::CREATED
    );
    assert_eq!(
        call(&router, Method::POST, &connect, &[], None).await.status,
        StatusCode::OK
    );
    assert_eq!(
        call(&router, Method::GET, "/health", &to_envd, None).await.status,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn a_timeout_ends_a_sandbox_and_connect_never_shortens_it() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base", "timeout": 600})).await;
    let detail = format!("/sandboxes/{id}");
    let end = call(&router, Method::GET, &detail, &[], None).await.body["endAt"]
        .as_str()
        .unwrap()[..18]
        .to_owned();
    call(
        &router,
        Method::POST,
        &format!("/v2{detail}/connect"),
        &[],
        Some(json!({"timeout": 1})),
    )
    .await;
    let after = call(&router, Method::GET, &detail, &[], None).await.body["endAt"]
        .as_str()
        .unwrap()[..18]
        .to_owned();
    assert_eq!(end, after);
    call(
        &router,
        Method::POST,
        &format!("{detail}/timeout"),
        &[],
        Some(json!({"timeout": 1})),
    )
    .await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = call(&router, Method::GET, &detail, &[], None).await;
        if answer.status == StatusCode::NOT_FOUND {
            assert!(
                answer.body["message"]
                    .as_str()
                    .unwrap()
                    .ends_with("its timeout was reached")
            );
            return;
        }
    }
    panic!("the sandbox outlived its timeout");
}

#[tokio::test]
async fn requests_reach_the_daemon_and_the_ports_behind_it() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base"})).await;
    let envd = [("e2b-sandbox-id", id.as_str()), ("x-seen", "1")];
    let echo = call(&router, Method::POST, "/echo?a=b%20c", &envd, Some(json!({"n": 1}))).await;
    assert_eq!(echo.body["path"], "/echo?a=b%20c");
    assert_eq!(echo.body["body"], r#"{"n":1}"#);
    assert_eq!(echo.body["port"], "daemon");

    let port = [("e2b-sandbox-id", id.as_str()), ("e2b-sandbox-port", "8080")];
    assert_eq!(
        call(&router, Method::GET, "/echo", &port, None).await.body["port"],
        "8080"
    );
    let closed = [("e2b-sandbox-id", id.as_str()), ("e2b-sandbox-port", "81")];
    let answer = call(&router, Method::GET, "/", &closed, None).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(
        answer.body,
        json!({"sandboxId": id, "message": "The sandbox is running but port is not open", "port": 81, "code": 502})
    );
    for bad in ["0", "65536", "x"] {
        let headers = [("e2b-sandbox-id", id.as_str()), ("e2b-sandbox-port", bad)];
        assert_eq!(
            call(&router, Method::GET, "/", &headers, None).await.status,
            StatusCode::BAD_REQUEST
        );
    }
    let nobody = call(&router, Method::GET, "/health", &[("e2b-sandbox-id", "inobody")], None).await;
    assert_eq!(nobody.status, StatusCode::BAD_GATEWAY);
    assert_eq!(nobody.body["message"], "The sandbox was not found");
}

#[tokio::test]
async fn traffic_wakes_a_paused_sandbox_that_wants_it() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let body = json!({"templateID": "base", "autoPause": true, "autoResume": {"enabled": true}, "timeout": 1});
    let made = call(&router, Method::POST, "/v2/sandboxes", &[], Some(body)).await.body;
    let (id, token) = (
        made["sandboxID"].as_str().unwrap(),
        made["envdAccessToken"].as_str().unwrap(),
    );
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let state = async || {
        call(&router, Method::GET, &format!("/sandboxes/{id}"), &[], None)
            .await
            .body["state"]
            .clone()
    };
    assert_eq!(state().await, "paused", "its timeout pauses it");
    let stranger = call(&router, Method::GET, "/health", &[("e2b-sandbox-id", id)], None).await;
    assert_eq!(
        (stranger.status, state().await),
        (StatusCode::BAD_GATEWAY, json!("paused"))
    );
    let owner = call(
        &router,
        Method::GET,
        "/health",
        &[("e2b-sandbox-id", id), ("x-access-token", token)],
        None,
    )
    .await;
    assert_eq!(
        (owner.status, state().await),
        (StatusCode::NO_CONTENT, json!("running"))
    );
}

#[tokio::test]
async fn the_network_side_asks_for_a_key_and_knows_host_names() {
    let (home, gateway) = gateway(FakeRuntime::default());
    let keys = std::sync::Arc::new(sandhold_gateway::Keys::open(home.path()).unwrap());
    let key = keys.create("test").unwrap();
    let router = gateway.router_with_keys(keys, axum::Router::new());
    let with = |key: &'static str| async move {
        call(&gateway.router(Owner::LOCAL), Method::GET, key, &[], None)
            .await
            .status
    };
    assert_eq!(
        with("/v2/sandboxes").await,
        StatusCode::OK,
        "in process no key is asked"
    );
    assert_eq!(
        call(&router, Method::GET, "/health", &[], None).await.status,
        StatusCode::NO_CONTENT
    );
    for headers in [&[][..], &[("x-api-key", "e2b_00")]] {
        let refused = call(&router, Method::GET, "/v2/sandboxes", headers, None).await;
        assert_eq!((refused.status.as_u16(), &refused.body["code"]), (401, &json!(401)));
    }
    let body = Some(json!({"templateID": "base"}));
    let made = call(&router, Method::POST, "/v2/sandboxes", &[("x-api-key", &key)], body)
        .await
        .body;
    assert_eq!(made["domain"], "sandhold.localhost:3000", "{made}");
    let host = format!("8080-{}.sandhold.localhost:3000", made["sandboxID"].as_str().unwrap());
    let echo = call(&router, Method::GET, "/echo?x=1", &[("host", &host)], None).await;
    assert_eq!(
        (&echo.body["port"], &echo.body["path"]),
        (&json!("8080"), &json!("/echo?x=1"))
    );

    let token = made["envdAccessToken"].as_str().unwrap();
    let signature = sandhold_wire::signature::sign("/a b", sandhold_wire::signature::Operation::Read, "", token, None);
    let encoded = signature.replace('+', "%2B").replace('/', "%2F");
    let found = call(
        &router,
        Method::GET,
        &format!("/files?path=/a%20b&signature={encoded}"),
        &[],
        None,
    )
    .await;
    assert_eq!(
        found.status,
        StatusCode::NOT_FOUND,
        "it reached the daemon, which has no files here"
    );
    let stranger = call(&router, Method::GET, "/files?path=/a&signature=v1_x", &[], None).await;
    assert_eq!(
        (stranger.status, &stranger.body["message"]),
        (StatusCode::UNAUTHORIZED, &json!("invalid signature"))
    );
}

#[tokio::test]
async fn headers_of_requests_are_checked_and_not_shown() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let rule = |host: &str, transform: Value| json!({host: [{"transform": transform}]});
    let good = rule("a.test", json!({"headers": {"Authorization": "hidden"}}));
    let body = |rules: &Value| json!({"templateID": "base", "network": {"rules": rules}});
    let id = create(&router, body(&good)).await;
    let shown = call(&router, Method::GET, &format!("/sandboxes/{id}"), &[], None).await;
    let rules = &shown.body["network"]["rules"];
    assert_eq!(
        rules["a.test"][0]["transform"]["headers"]["Authorization"], "***",
        "{}",
        shown.body
    );
    let many: serde_json::Map<_, _> = (0..65).map(|n| (format!("X-{n}"), json!("hidden"))).collect();
    for (rules, word) in [
        (rule("a.test", json!({"headers": {"Host": "hidden"}})), "HTTP's own"),
        (
            rule("a.test", json!({"headers": {"X": "hidden\r\nY: z"}})),
            "line break",
        ),
        (rule("a.test", json!({"headers": {"X": ""}})), "must have 1 to"),
        (
            rule("10.0.0.0/8", json!({"headers": {"X": "hidden"}})),
            "a name such as",
        ),
        (rule("a.test", json!({"headers": many})), "at most 64"),
        (
            rule("a.test", json!({"headers": {}, "body": "x"})),
            "unknown field `body`",
        ),
        (json!({"a.test": [{"rewrite": {}}]}), "unknown field `rewrite`"),
    ] {
        let network = json!({"rules": rules});
        for (method, path, body) in [
            (Method::POST, "/v2/sandboxes".to_owned(), body(&rules)),
            (Method::PUT, format!("/sandboxes/{id}/network"), network),
        ] {
            let refused = call(&router, method, &path, &[], Some(body)).await;
            let message = refused.body["message"].as_str().unwrap_or_default();
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{rules}");
            assert!(message.contains(word) && !message.contains("hidden"), "{message}");
        }
    }
    let path = format!("/sandboxes/{id}/network");
    let changed = call(&router, Method::PUT, &path, &[], Some(json!({"rules": good}))).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn private_ports_ask_for_the_token() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let body = json!({"templateID": "base", "network": {"allowPublicTraffic": false}});
    let made = call(&router, Method::POST, "/v2/sandboxes", &[], Some(body)).await.body;
    let (id, token) = (
        made["sandboxID"].as_str().unwrap(),
        made["trafficAccessToken"].as_str().unwrap(),
    );
    let to = |token: &'static str| {
        [
            ("e2b-sandbox-id", id.to_owned()),
            ("e2b-sandbox-port", "8080".to_owned()),
            ("e2b-traffic-access-token", token.to_owned()),
        ]
    };
    let wrong = to("wrong");
    let wrong: Vec<_> = wrong.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(
        call(&router, Method::GET, "/echo", &wrong[..2], None).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        call(&router, Method::GET, "/echo", &wrong, None).await.status,
        StatusCode::FORBIDDEN
    );
    let right = [wrong[0], wrong[1], ("e2b-traffic-access-token", token)];
    assert_eq!(
        call(&router, Method::GET, "/echo", &right, None).await.status,
        StatusCode::OK
    );
    assert_eq!(
        call(&router, Method::GET, "/echo", &wrong[..1], None).await.status,
        StatusCode::OK,
        "the daemon has its own token"
    );
}

#[tokio::test]
async fn a_daemon_of_another_version_is_refused_and_its_sandbox_ended() {
    let runtime = FakeRuntime {
        version: "0.0.1".into(),
        ..FakeRuntime::default()
    };
    let killed = runtime.killed.clone();
    let (_home, gateway) = gateway(runtime);
    let answer = call(
        &gateway.router(Owner::LOCAL),
        Method::POST,
        "/v2/sandboxes",
        &[],
        Some(json!({"templateID": "base"})),
    )
    .await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        answer.body["message"].as_str().unwrap().contains("version 0.0.1"),
        "{}",
        answer.body
    );
    assert_eq!(killed.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_cut_by_the_sandboxs_end_says_so() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let id = create(&router, json!({"templateID": "base"})).await;
    let request = Request::get("/stream")
        .header("e2b-sandbox-id", &id)
        .body(Body::empty())
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let reading = tokio::spawn(axum::body::to_bytes(response.into_body(), 1 << 20));
    tokio::time::sleep(Duration::from_millis(100)).await;
    call(&router, Method::DELETE, &format!("/sandboxes/{id}"), &[], None).await;
    let bytes = reading.await.unwrap().unwrap();
    let end = bytes
        .windows(5)
        .position(|w| w[0] == 2 && w[1..3] == [0, 0])
        .expect("an end frame");
    let frame: Value = serde_json::from_slice(&bytes[end + 5..]).unwrap();
    assert_eq!(frame["error"]["code"], "unavailable");
    assert!(frame["error"]["message"].as_str().unwrap().contains(&id));
}

#[tokio::test]
async fn shutdown_ends_everything() {
    let runtime = FakeRuntime::default();
    let killed = runtime.killed.clone();
    let (_home, gateway) = gateway(runtime);
    for _ in 0..3 {
        create(&gateway.router(Owner::LOCAL), json!({"templateID": "base"})).await;
    }
    gateway.shutdown().await;
    assert_eq!(killed.load(std::sync::atomic::Ordering::SeqCst), 3);
    assert_eq!(
        call(&gateway.router(Owner::LOCAL), Method::GET, "/v2/sandboxes", &[], None)
            .await
            .body,
        json!([])
    );
}
