//! Servers: what is told when they are not what they should be, and URLs that cannot be had.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{FutureExt, future::BoxFuture};
use sandhold_mcp::Door;
use serde_json::json;

use crate::stub::{Session, text};

/// Counts who wants in, and opens for nobody or for all.
struct Counting {
    tries: AtomicUsize,
    why_not: Option<&'static str>,
}

impl Door for Counting {
    fn open(&self) -> BoxFuture<'_, Result<(), String>> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        let result = self.why_not.map_or(Ok(()), |why| Err(why.to_owned()));
        async { result }.boxed()
    }
}

fn door(why_not: Option<&'static str>) -> Arc<Counting> {
    Arc::new(Counting {
        tries: AtomicUsize::new(0),
        why_not,
    })
}

fn ready() -> Option<serde_json::Value> {
    Some(json!({"ready": true, "accepts": true, "http_status": 200, "waited_ms": 1}))
}

#[tokio::test]
async fn a_listener_that_cannot_be_opened_is_told_with_its_reason() {
    let closed = door(Some("all ports are taken"));
    let session = Session::open_with(Some(closed.clone() as Arc<dyn Door>)).await;
    session.world.lock().unwrap().ready = ready();
    let told = session.bad("get_public_url", json!({"port": 80})).await;
    assert_eq!(told["error"]["code"], "unsupported");
    assert!(
        told["error"]["message"]
            .as_str()
            .unwrap()
            .contains("all ports are taken"),
        "{told}"
    );
    assert_eq!(closed.tries.load(Ordering::Relaxed), 1);
    // The server runs all the same.
    let result = session
        .call("start_service", json!({"cmd": "out hi; hang", "port": 80}))
        .await;
    let value = result.structured_content.clone().unwrap();
    assert_eq!(
        (&value["ok"], &value["ready"], value.get("url")),
        (&json!(true), &json!(true), None)
    );
    assert!(
        text(&result).contains("all ports are taken") && text(&result).contains("http_probe"),
        "{}",
        text(&result)
    );
    session.close().await;
}

#[tokio::test]
async fn a_url_is_given_once_its_listener_is_open() {
    let opened = door(None);
    let session = Session::open_with(Some(opened.clone() as Arc<dyn Door>)).await;
    session.good("run_command", json!({"cmd": "out hi"})).await;
    assert_eq!(opened.tries.load(Ordering::Relaxed), 0, "nobody asked for a URL");
    let told = session.good("get_public_url", json!({"port": 80})).await;
    assert_eq!(told["listening"], false);
    assert!(told["url"].as_str().unwrap().starts_with("http://80-i"), "{told}");
    assert_eq!(opened.tries.load(Ordering::Relaxed), 1);
    session.close().await;
}

#[tokio::test]
async fn a_command_that_ends_is_not_waited_for() {
    let session = Session::open().await;
    // Readiness is asked for and not answered.
    let told = session
        .bad("start_service", json!({"cmd": "err no config; exit 3", "port": 80}))
        .await;
    assert_eq!(
        (&told["exit_code"], &told["stderr"]),
        (&json!(3), &json!("no config\n"))
    );
    assert_eq!(told["error"]["code"], "service_failed");
    session.close().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_before_anything_is_started() {
    let session = Session::open().await;
    session.world.lock().unwrap().ready = ready();
    let first = session.good("start_service", json!({"cmd": "hang", "port": 80})).await;
    session.world.lock().unwrap().listening =
        json!([{"port": 80, "addresses": ["0.0.0.0"], "pid": 50, "session": 42, "command": "node x.js"}]);
    let told = session.bad("start_service", json!({"cmd": "hang", "port": 80})).await;
    assert_eq!(told["error"]["code"], "port_in_use");
    let (message, hint) = (
        told["error"]["message"].as_str().unwrap(),
        told["error"]["hint"].as_str().unwrap(),
    );
    assert!(message.contains("pid 50 (node x.js)"), "{message}");
    assert!(hint.contains(first["job_id"].as_str().unwrap()), "{hint}");
    let jobs = session.good("list_jobs", json!({})).await;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
    session.close().await;
}

#[tokio::test]
async fn what_a_server_says_of_itself_is_cut() {
    let session = Session::open().await;
    let long = "x".repeat(5000);
    session.world.lock().unwrap().listening = json!([{"port": 80, "addresses": ["::"], "pid": 9, "command": long}]);
    let told = session.good("service_diagnostics", json!({})).await;
    assert!(
        told["listening"][0]["command"].as_str().unwrap().chars().count() <= 201,
        "{told}"
    );
    let result = session.call("get_public_url", json!({"port": 80})).await;
    assert!(text(&result).len() < 1000, "{}", text(&result));
    session.close().await;
}
