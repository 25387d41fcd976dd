//! Jobs that another server started, on a daemon that keeps their output and on one that does not.

use serde_json::{Value, json};

use crate::stub::{Session, text};

fn process(tag: &str, cmd: &str) -> Value {
    json!({"pid": 77, "tag": tag, "config": {"cmd": "/bin/bash", "args": ["-l", "-c", cmd]}})
}

#[tokio::test]
async fn without_kept_output_what_is_not_known_is_said() {
    let session = Session::open().await;
    let sandbox = session.good("create_sandbox", json!({})).await["sandbox_id"].clone();
    session.world.lock().unwrap().processes = vec![process("sandhold-job:build", "make all"), process("web", "serve")];
    let listed = session.good("list_jobs", json!({})).await;
    let row = json!({"job_id": "build", "sandbox_id": sandbox, "status": "running", "pid": 77, "cmd": "make all", "duration_ms": 0});
    assert_eq!(listed["jobs"], json!([row]), "what others tagged is no job");
    for tool in ["get_job_status", "kill_job"] {
        let told = session.bad(tool, json!({"job_id": "web"})).await;
        assert_eq!(told["error"]["code"], "job_not_found");
    }
    let told = session
        .bad("run_command_bg", json!({"cmd": "out x", "job_id": "build"}))
        .await;
    assert!(told["error"]["message"].as_str().unwrap().contains("taken"), "{told}");

    // The cursor is of the server that started it.
    let status = session
        .call(
            "get_job_status",
            json!({"job_id": "build", "wait_s": 5, "cursor": "1000.0"}),
        )
        .await;
    let answer = status.structured_content.clone().unwrap();
    assert_eq!(
        (&answer["stdout"], &answer["status"]),
        (&json!("again\n"), &json!("done"))
    );
    assert_eq!(answer["exit_code"], 7);
    assert!(
        text(&status).contains("What it printed before is not kept"),
        "{}",
        text(&status)
    );
    let cursor = answer["cursor"].as_str().unwrap();
    assert_eq!(cursor.split('.').count(), 3, "it counts from elsewhere: {cursor}");
    let on = session
        .good("get_job_status", json!({"job_id": "build", "cursor": cursor}))
        .await;
    assert_eq!((&on["stdout"], &on["cursor"]), (&json!(""), &json!(cursor)));
    session.close().await;
}

#[tokio::test]
async fn with_kept_output_the_reader_goes_on() {
    let session = Session::open().await;
    session.good("create_sandbox", json!({})).await;
    {
        let mut world = session.world.lock().unwrap();
        // Ten bytes are kept no longer; what the stub sends are the last six.
        world.jobs = Some(vec![
            json!({"id": "build", "pid": 77, "cmd": "make all", "age_ms": 60_000, "ran_ms": 50_000,
            "stdin": false, "printed": [16, 0], "exit": {"exit_code": 7, "exited": true, "status": "exit status 7"}}),
        ]);
        world.replays_from = Some("10.0");
    }
    let listed = session.good("list_jobs", json!({})).await;
    let row = &listed["jobs"][0];
    assert_eq!(
        (&row["status"], &row["exit_code"], &row["duration_ms"]),
        (&json!("done"), &json!(7), &json!(50_000))
    );
    let answer = session
        .good("get_job_status", json!({"job_id": "build", "cursor": "12.0"}))
        .await;
    assert_eq!(
        (&answer["stdout"], &answer["cursor"]),
        (&json!("ain\n"), &json!("16.0"))
    );
    assert_eq!(
        (&answer["status"], &answer["exit_code"], &answer["duration_ms"]),
        (&json!("done"), &json!(7), &json!(50_000))
    );
    let whole = session.call("get_job_status", json!({"job_id": "build"})).await;
    assert!(
        text(&whole).contains("10 bytes of stdout before this are not shown"),
        "{}",
        text(&whole)
    );
    let told = session.bad("send_stdin", json!({"job_id": "build", "data": "x"})).await;
    assert_eq!(told["error"]["code"], "job_ended");
    session.close().await;
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_was() {
    let session = Session::open().await;
    session.world.lock().unwrap().replays_from = Some("7.0");
    let result = session
        .call("run_command", json!({"cmd": "out before; sleep 50; drop"}))
        .await;
    let answer = result.structured_content.clone().unwrap();
    assert_eq!(
        (&answer["stdout"], &answer["exit_code"]),
        (&json!("before\nagain\n"), &json!(7))
    );
    assert!(!text(&result).contains("missing"), "{}", text(&result));
    session.close().await;
}

#[tokio::test]
async fn the_same_id_in_two_sandboxes_is_not_guessed() {
    let session = Session::open().await;
    session.good("create_sandbox", json!({"set_as_default": false})).await;
    let second = session.good("create_sandbox", json!({"set_as_default": false})).await["sandbox_id"].clone();
    session.world.lock().unwrap().processes = vec![process("sandhold-job:build", "make all")];
    let told = session.bad("kill_job", json!({"job_id": "build"})).await;
    assert_eq!(told["error"]["code"], "ambiguous_job");
    assert!(session.world.lock().unwrap().signals.is_empty());
    session
        .good("connect_sandbox", json!({"sandbox_id": second, "set_as_default": true}))
        .await;
    let status = session
        .good("get_job_status", json!({"job_id": "build", "wait_s": 5}))
        .await;
    assert_eq!(status["sandbox_id"], second);
    session.close().await;
}
