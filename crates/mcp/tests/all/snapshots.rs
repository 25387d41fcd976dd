//! Snapshots, forks, undo, and sandboxes that outlive their server.

use sandhold_mcp::Keeping;
use serde_json::{Value, json};

use crate::stub::{Session, Setup, World, text};

async fn session(checkpoint: bool) -> Session {
    Session::set_up(Setup {
        checkpoint,
        world: World {
            additions: true,
            ..World::default()
        },
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn snapshots_are_taken_listed_used_and_deleted() {
    let session = session(false).await;
    let told = session.bad("create_snapshot", json!({})).await;
    assert_eq!(told["error"]["code"], "no_default_sandbox", "none is made for it");
    session.good("run_command", json!({"cmd": "out 1"})).await;
    let taken = session.good("create_snapshot", json!({"name": "kept"})).await;
    assert_eq!(
        (&taken["snapshot_id"], &taken["names"]),
        (&json!("kept:default"), &json!(["kept:default"]))
    );
    let list = session.call("list_snapshots", json!({})).await;
    assert!(
        text(&list).contains("kept:default taken 2026-01-01T00:00:00Z of sandbox i1, 7 bytes"),
        "{}",
        text(&list)
    );
    let rows = list.structured_content.unwrap();
    assert_eq!(rows["snapshots"][0]["snapshot_id"], "kept:default");
    let gone = session
        .good("delete_snapshot", json!({"snapshot": "kept:default"}))
        .await;
    assert_eq!(gone["deleted"], true);
    let gone = session
        .good("delete_snapshot", json!({"snapshot": "kept:default"}))
        .await;
    assert_eq!(gone["deleted"], false);
    for (tool, bad) in [
        ("delete_snapshot", json!({"snapshot": "a b"})),
        ("list_snapshots", json!({"limit": 101})),
        ("list_snapshots", json!({"of_sandbox": "../x"})),
        ("diff_sandbox", json!({"since": "?"})),
        ("diff_sandbox", json!({"limit": 0})),
        ("fork_sandbox", json!({"count": 21})),
        ("rollback_sandbox", json!({})),
        ("rollback_sandbox", json!({"snapshot": "a", "checkpoint": "b"})),
    ] {
        let told = session.bad(tool, bad.clone()).await;
        assert_eq!(told["error"]["code"], "invalid_argument", "{tool} {bad}: {told}");
    }
    session.close().await;
}

#[tokio::test]
async fn forks_are_the_callers_own() {
    let session = session(false).await;
    session.good("run_command", json!({"cmd": "out 1"})).await;
    let forks = session.good("fork_sandbox", json!({"count": 2})).await;
    let ids: Vec<&str> = forks["forks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["sandbox_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(session.server.sandboxes_created().len(), 3);
    session
        .good("run_command", json!({"cmd": "out 2", "sandbox_id": ids[0]}))
        .await;
    let told = session.bad("fork_sandbox", json!({"count": 3})).await;
    assert_eq!(told["error"]["code"], "partly_failed");
    assert_eq!(told["forks"][2]["message"], "no room");
    assert!(
        told["forks"][1]["sandbox_id"].is_string(),
        "the others are told: {told}"
    );
    session.close().await;
}

#[tokio::test]
async fn what_changed_and_back() {
    let session = session(false).await;
    session.good("run_command", json!({"cmd": "out 1"})).await;
    let diff = session.call("diff_sandbox", json!({})).await;
    assert_eq!(text(&diff), "added /home/user/a (3 bytes)\nremoved /tmp/b/");
    let cut = session.good("diff_sandbox", json!({"limit": 2})).await;
    assert_eq!(cut["truncated"], true);
    session.good("rollback_sandbox", json!({"snapshot": "kept"})).await;
    session.good("rollback_sandbox", json!({"checkpoint": "cp-1"})).await;
    let back = session.world.lock().unwrap().rolled_back.clone();
    assert_eq!(back, [json!({"snapshotID": "kept"}), json!({"checkpointID": "cp-1"})]);
    let told = session.bad("rollback_sandbox", json!({"checkpoint": "cp-none"})).await;
    assert_eq!(told["error"]["code"], "not_found");
    assert!(
        told["error"]["hint"].as_str().unwrap().contains("list_snapshots"),
        "{told}"
    );
    assert!(
        session.world.lock().unwrap().checkpoints.is_empty(),
        "nobody asked for undo"
    );
    session.close().await;
}

#[tokio::test]
async fn a_provider_without_them_says_so() {
    let session = Session::set_up(Setup {
        checkpoint: true,
        ..Setup::default()
    })
    .await;
    let first = session.call("run_command", json!({"cmd": "out 1"})).await;
    assert!(text(&first).contains("no checkpoint was taken"), "{}", text(&first));
    let second = session.call("run_command", json!({"cmd": "out 1"})).await;
    assert!(
        !text(&second).contains("checkpoint"),
        "it is said once: {}",
        text(&second)
    );
    for (tool, args) in [
        ("rollback_sandbox", json!({"snapshot": "a"})),
        ("diff_sandbox", json!({})),
    ] {
        let told = session.bad(tool, args).await;
        assert_eq!(told["error"]["code"], "unsupported", "{told}");
    }
    session.close().await;
}

#[tokio::test]
async fn undo_names_a_checkpoint_in_the_answer_of_each_call_that_may_change_files() {
    let session = session(true).await;
    let ran = session.call("run_command", json!({"cmd": "out 1"})).await;
    assert_eq!(ran.structured_content.as_ref().unwrap()["checkpoint_id"], "cp-1");
    assert!(
        text(&ran).contains("checkpoint cp-1: rollback_sandbox"),
        "{}",
        text(&ran)
    );
    let wrote = session.good("write_file", json!({"path": "/a", "content": "x"})).await;
    assert_eq!(wrote["checkpoint_id"], "cp-2");
    let failed = session
        .bad("edit_file", json!({"path": "/none", "old_text": "a", "new_text": "b"}))
        .await;
    assert_eq!(failed["checkpoint_id"], "cp-3", "part of it may have happened");
    for (tool, args) in [
        ("read_file", json!({"path": "/a"})),
        ("list_jobs", json!({})),
        ("diff_sandbox", json!({})),
        ("list_sandboxes", json!({})),
    ] {
        let answer = session.good(tool, args).await;
        assert!(answer.get("checkpoint_id").is_none(), "{tool}: {answer}");
    }
    let back = session.good("rollback_sandbox", json!({"checkpoint": "cp-2"})).await;
    assert_eq!(back["checkpoint_id"], "cp-4", "the way back from there");
    assert_eq!(
        session.world.lock().unwrap().checkpoints,
        ["run_command", "write_file", "edit_file", "rollback_sandbox"]
    );
    session.close().await;
}

#[tokio::test]
async fn a_call_goes_on_without_a_checkpoint_and_says_so_once() {
    let session = session(true).await;
    session.world.lock().unwrap().no_checkpoint = Some(507);
    for (n, wanted) in [(1, true), (2, false)] {
        let ran = session.call("run_command", json!({"cmd": format!("out {n}")})).await;
        let said = text(&ran);
        assert_eq!(
            said.contains("no checkpoint was taken") && said.contains("too busy"),
            wanted,
            "{said}"
        );
        assert_eq!(ran.structured_content.unwrap()["ok"], true);
    }
    // It was a matter of that moment.
    session.world.lock().unwrap().no_checkpoint = None;
    let ran = session.good("run_command", json!({"cmd": "out 3"})).await;
    assert_eq!(ran["checkpoint_id"], "cp-1");
    session.close().await;
}

fn keeping() -> Setup {
    Setup {
        keeping: Keeping::in_folder("/project".as_ref()),
        world: World {
            additions: true,
            ..World::default()
        },
        ..Setup::default()
    }
}

#[tokio::test]
async fn the_default_sandbox_of_before_comes_back() {
    let first = Session::set_up(keeping()).await;
    let id = first.good("run_command", json!({"cmd": "out 1"})).await["sandbox_id"].clone();
    let id = id.as_str().unwrap().to_owned();
    let metadata: Value = first.world.lock().unwrap().metadata[&id].clone();
    first.close().await;

    let mut second = keeping();
    second.world.alive = ["iother".to_owned(), id.clone()].into();
    second.world.paused = second.world.alive.clone();
    second.world.metadata.insert(id.clone(), metadata.clone());
    second
        .world
        .metadata
        .insert("iother".into(), json!({"sandhold.default": "another"}));
    let second = Session::set_up(second).await;
    let back = second.call("run_command", json!({"cmd": "out 2"})).await;
    assert_eq!(back.structured_content.as_ref().unwrap()["sandbox_id"], json!(id));
    assert!(text(&back).contains("is back with its files") && text(&back).contains("did not come back"));
    assert_eq!(second.world.lock().unwrap().made, 0);
    let next = second.call("run_command", json!({"cmd": "out 3"})).await;
    assert!(!text(&next).contains("is back"), "it is said once");
    second.close().await;

    // Who starts it elsewhere is another.
    let mut third = keeping();
    third.keeping = Keeping::in_folder("/elsewhere".as_ref());
    third.world.made = 10;
    third.world.alive = [id.clone()].into();
    third.world.paused = [id.clone()].into();
    third.world.metadata.insert(id.clone(), metadata);
    let third = Session::set_up(third).await;
    let other = third.good("run_command", json!({"cmd": "out 4"})).await;
    assert_ne!(other["sandbox_id"], json!(id));
    let back = third.call("connect_sandbox", json!({"sandbox_id": id})).await;
    assert!(
        text(&back).contains("processes that ran before did not"),
        "{}",
        text(&back)
    );
    third.close().await;
}
