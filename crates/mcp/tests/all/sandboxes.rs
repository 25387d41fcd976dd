//! The default sandbox and the life of the others.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::stub::Session;

#[tokio::test]
async fn calls_side_by_side_make_one_default_sandbox() {
    let session = Session::open().await;
    let calls = (0..16).map(|i| session.good("run_command", json!({"cmd": format!("out {i}")})));
    let answers = join_all(calls).await;
    let first = &answers[0]["sandbox_id"];
    assert!(answers.iter().all(|a| a["sandbox_id"] == *first));
    assert_eq!(session.world.lock().unwrap().made, 1);
    assert_eq!(session.server.sandboxes_created(), [first.as_str().unwrap()]);
    session.close().await;
}

#[tokio::test]
async fn a_dead_default_is_told_once_and_then_replaced() {
    let session = Session::open().await;
    let first = session.good("run_command", json!({"cmd": "out 1"})).await;
    session.world.lock().unwrap().alive.clear();
    let told = session.bad("run_command", json!({"cmd": "out 2"})).await;
    assert_eq!(told["error"]["code"], "sandbox_ended");
    assert_eq!(told["sandbox_id"], first["sandbox_id"]);
    assert!(told["error"]["hint"].as_str().unwrap().contains("without sandbox_id"));
    let second = session.good("run_command", json!({"cmd": "out 3"})).await;
    assert_ne!(second["sandbox_id"], first["sandbox_id"]);
    session.close().await;
}

#[tokio::test]
async fn an_unknown_sandbox_is_told_with_what_to_call() {
    let session = Session::open().await;
    for (id, code) in [
        ("i00000000000000000099", "sandbox_not_found"),
        ("../etc", "invalid_argument"),
    ] {
        let told = session.bad("read_file", json!({"path": "/x", "sandbox_id": id})).await;
        assert_eq!(told["error"]["code"], code, "{told}");
        assert!(
            told["error"]["hint"].as_str().unwrap().contains("list_sandboxes"),
            "{told}"
        );
    }
    assert_eq!(session.world.lock().unwrap().made, 0);
    let told = session.bad("shutdown_sandbox", json!({})).await;
    assert_eq!(told["error"]["code"], "no_default_sandbox");
    session.close().await;
}

#[tokio::test]
async fn create_list_pause_connect_and_end() {
    let session = Session::open().await;
    let made = session
        .good(
            "create_sandbox",
            json!({"timeout_s": 60, "set_as_default": true, "envs": [{"name": "A", "value": "1"}]}),
        )
        .await;
    let id = made["sandbox_id"].as_str().unwrap().to_owned();
    assert_eq!((&made["state"], &made["template"]), (&json!("running"), &json!("base")));
    assert_eq!(session.world.lock().unwrap().timeouts, ["create 60"]);
    let list = session.good("list_sandboxes", json!({})).await;
    assert_eq!(list["sandboxes"][0]["is_default"], true);
    assert_eq!(session.good("pause_sandbox", json!({})).await["state"], "paused");
    let told = session.bad("run_command", json!({"cmd": "out x"})).await;
    assert_eq!(told["error"]["code"], "sandbox_paused");
    assert_eq!(session.good("sandbox_info", json!({})).await["state"], "paused");
    assert_eq!(
        session.good("connect_sandbox", json!({"sandbox_id": id})).await["state"],
        "running"
    );
    assert_eq!(
        session.good("run_command", json!({"cmd": "out x"})).await["sandbox_id"],
        id.as_str()
    );
    session.good("create_sandbox", json!({})).await;
    let ended = session.good("shutdown_all_sandboxes", json!({})).await;
    let rows: Vec<&Value> = ended["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["status"])
        .collect();
    assert_eq!(rows, ["ended", "ended"]);
    assert!(session.world.lock().unwrap().alive.is_empty());
    assert!(session.server.sandboxes_created().is_empty());
    session.close().await;
}

#[tokio::test]
async fn limits_name_what_was_wrong() {
    let session = Session::open().await;
    let many: Vec<Value> = (0..65).map(|i| json!({"name": i.to_string(), "value": ""})).collect();
    for (arguments, part) in [
        (json!({"timeout_s": 0}), "timeout_s is 0; 1 to 86400"),
        (json!({"cpus": -1}), "cpus is -1"),
        (json!({"metadata": many}), "metadata has 65 entries; at most 64"),
        (json!({"envs": [{"name": "1", "value": ""}]}), "envs has the name \"1\""),
        (json!({"network": {"allow": []}}), "argument network.allow"),
    ] {
        let told = session.bad("create_sandbox", arguments).await;
        assert!(told["error"]["message"].as_str().unwrap().contains(part), "{told}");
    }
    session.close().await;
}

#[tokio::test]
async fn the_server_ends_what_was_made_through_it() {
    let session = Session::open().await;
    session.good("create_sandbox", json!({})).await;
    session.good("run_command", json!({"cmd": "out x"})).await;
    assert_eq!(session.server.end_sandboxes(std::time::Duration::from_secs(5)).await, 0);
    assert!(session.world.lock().unwrap().alive.is_empty());
    session.close().await;
}
