//! Commands and jobs: output, ends, cancelling, broken connections.

use std::time::Duration;

use rmcp::{
    model::{CallToolRequest, CallToolRequestParams, ClientRequest},
    service::PeerRequestOptions,
};
use sandhold_mcp::{budget, limits};
use serde_json::{Value, json};

use crate::stub::{Session, text};

#[tokio::test]
async fn output_and_exit_code() {
    let session = Session::open().await;
    let result = session
        .call("run_command", json!({"cmd": "out hi; err oops; exit 3"}))
        .await;
    assert_ne!(result.is_error, Some(true), "an exit code is no failure of the tool");
    let answer = result.structured_content.clone().unwrap();
    assert_eq!(answer["ok"], true);
    assert_eq!(
        (&answer["stdout"], &answer["stderr"], &answer["exit_code"]),
        (&json!("hi\n"), &json!("oops\n"), &json!(3))
    );
    assert!(answer.get("job_id").is_none());
    let text = text(&result);
    assert!(
        text.starts_with("exit code 3 after") && text.ends_with("stdout:\nhi\nstderr:\noops"),
        "{text}"
    );
    session.close().await;
}

#[tokio::test]
async fn a_deadline_is_told_with_what_was_printed() {
    let session = Session::open().await;
    let answer = session
        .bad("run_command", json!({"cmd": "out before; hang", "timeout_s": 1}))
        .await;
    assert_eq!(
        (&answer["error"]["code"], &answer["stdout"]),
        (&json!("timeout"), &json!("before\n"))
    );
    assert!(answer.get("exit_code").is_none());
    session.close().await;
}

#[tokio::test]
async fn input_is_given_and_closed() {
    let session = Session::open().await;
    let answer = session
        .good("run_command", json!({"cmd": "sleep 200", "stdin": "hello"}))
        .await;
    assert_eq!(answer["exit_code"], 0);
    let given: Vec<Vec<u8>> = session.world.lock().unwrap().stdin.values().cloned().collect();
    assert_eq!(given, [b"hello"]);
    session.close().await;
}

#[tokio::test]
async fn a_cancelled_call_kills_its_command() {
    let session = Session::open().await;
    session.good("run_command", json!({"cmd": "out x"})).await;
    let arguments = json!({"cmd": "hang"}).as_object().unwrap().clone();
    let request = CallToolRequest::new(CallToolRequestParams::new("run_command").with_arguments(arguments));
    let options = PeerRequestOptions::no_options();
    let handle = session
        .client
        .peer()
        .send_cancellable_request(ClientRequest::CallToolRequest(request), options)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    handle.cancel(Some("no longer needed".into())).await.unwrap();
    let killed = async {
        while !session
            .world
            .lock()
            .unwrap()
            .signals
            .iter()
            .any(|s| s.ends_with("SIGNAL_SIGKILL"))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), killed)
        .await
        .expect("the command was killed");
    let wait = json!({"job_id": job_of(&session.good("list_jobs", json!({})).await, "hang"), "wait_s": 5});
    assert_eq!(session.good("get_job_status", wait).await["status"], "cancelled");
    session.close().await;
}

#[tokio::test]
async fn a_client_that_stops_waiting_loses_nothing() {
    let session = Session::open().await;
    session.good("run_command", json!({"cmd": "out x"})).await;
    let arguments = json!({"cmd": "hang"}).as_object().unwrap().clone();
    let request = CallToolRequest::new(CallToolRequestParams::new("run_command").with_arguments(arguments));
    // The client of rmcp cancels with its reason when its time is over, as those of other SDKs do.
    let options = PeerRequestOptions::with_timeout(Duration::from_millis(300));
    let handle = session
        .client
        .peer()
        .send_cancellable_request(ClientRequest::CallToolRequest(request), options)
        .await
        .unwrap();
    assert!(handle.await_response().await.is_err());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let job = job_of(&session.good("list_jobs", json!({})).await, "hang");
    assert_eq!(
        session.good("get_job_status", json!({"job_id": job})).await["status"],
        "running"
    );
    assert!(session.world.lock().unwrap().signals.is_empty());
    session.close().await;
}

fn job_of(jobs: &Value, cmd: &str) -> String {
    let all = jobs["jobs"].as_array().unwrap();
    all.iter().find(|j| j["cmd"] == cmd).unwrap()["job_id"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_job_is_read_on_without_a_gap() {
    let session = Session::open().await;
    let cmd = "out first; sleep 300; flood 100000; sleep 300; out last; exit 5";
    let started = session
        .good("run_command_bg", json!({"cmd": cmd, "job_id": "build-1"}))
        .await;
    assert_eq!((&started["job_id"], &started["pid"]), (&json!("build-1"), &json!(42)));
    let (mut all, mut cursor, mut last) = (String::new(), None::<String>, Value::Null);
    for _ in 0..50 {
        let mut arguments = json!({"job_id": "build-1", "wait_s": 1});
        if let Some(cursor) = &cursor {
            arguments["cursor"] = json!(cursor);
        }
        let page = session.good("get_job_status", arguments).await;
        let part = page["stdout"].as_str().unwrap();
        assert!(part.len() <= budget::ANSWER);
        all.push_str(part);
        cursor = Some(page["cursor"].as_str().unwrap().to_owned());
        let done = page["more"] == false && page["status"] != "running";
        last = page;
        if done {
            break;
        }
    }
    assert_eq!((&last["status"], &last["exit_code"]), (&json!("done"), &json!(5)));
    assert_eq!(all, format!("first\n{}last\n", "x".repeat(100_000)));
    let again = session.good("get_job_status", json!({"job_id": "build-1"})).await;
    assert_eq!(
        again["stdout"].as_str().unwrap(),
        &all[..budget::ANSWER],
        "the beginning can be read again"
    );
    let told = session
        .bad("run_command_bg", json!({"cmd": "out x", "job_id": "build-1"}))
        .await;
    assert!(told["error"]["message"].as_str().unwrap().contains("taken"));
    session.close().await;
}

#[tokio::test]
async fn output_that_is_cut_is_kept_in_the_sandbox() {
    let session = Session::open().await;
    let bytes = limits::JOB_STREAM * 3;
    let result = session
        .call(
            "run_command",
            json!({"cmd": format!("out begin; flood {bytes}; out end")}),
        )
        .await;
    let answer = result.structured_content.clone().unwrap();
    let stdout = answer["stdout"].as_str().unwrap();
    assert!(stdout.len() <= budget::ANSWER + 100 && stdout.starts_with("begin\n") && stdout.ends_with("end\n"));
    assert_eq!(answer["truncated"], true);
    let path = format!("/tmp/.sandhold/jobs/{}/stdout", answer["job_id"].as_str().unwrap());
    assert!(text(&result).contains(&format!("All of it is in {path}")));
    let kept = session.world.lock().unwrap().files[&path].clone();
    assert_eq!(kept.len(), bytes + "begin\nend\n".len());
    assert!(kept.starts_with(b"begin\nx") && kept.ends_with(b"xend\n"));
    session.close().await;
}

#[tokio::test]
async fn a_broken_connection_is_mended() {
    let session = Session::open().await;
    let result = session
        .call("run_command", json!({"cmd": "out before; sleep 50; drop"}))
        .await;
    let answer = result.structured_content.clone().unwrap();
    assert_eq!(
        (&answer["stdout"], &answer["exit_code"]),
        (&json!("before\nagain\n"), &json!(7))
    );
    assert!(text(&result).contains("some output may be missing"));
    session.close().await;
}

#[tokio::test]
async fn a_sandbox_that_ends_under_a_command_is_told() {
    let session = Session::open().await;
    let answer = session
        .bad("run_command", json!({"cmd": "out before; sleep 50; die"}))
        .await;
    assert_eq!(
        (&answer["error"]["code"], &answer["stdout"]),
        (&json!("lost"), &json!("before\n"))
    );
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("ended while the command ran"),
        "{answer}"
    );
    session.close().await;
}

#[tokio::test]
async fn jobs_are_ended_and_written_to() {
    let session = Session::open().await;
    session
        .good("run_command_bg", json!({"cmd": "hang", "job_id": "j"}))
        .await;
    assert_eq!(
        session.good("send_stdin", json!({"job_id": "j", "data": "y\n"})).await["sent"],
        2
    );
    assert_eq!(session.world.lock().unwrap().stdin["j"], b"y\n");
    let ended = session.good("kill_job", json!({"job_id": "j"})).await;
    assert_eq!(
        (&ended["cancelled"], &ended["status"]),
        (&json!(true), &json!("cancelled"))
    );
    assert_eq!(session.world.lock().unwrap().signals, ["j SIGNAL_SIGTERM"]);
    assert_eq!(
        session.good("kill_job", json!({"job_id": "j"})).await["cancelled"],
        false
    );
    let told = session.bad("send_stdin", json!({"job_id": "j", "data": ""})).await;
    assert_eq!(told["error"]["code"], "job_ended");
    for tool in ["get_job_status", "kill_job"] {
        assert_eq!(
            session.bad(tool, json!({"job_id": "nobody"})).await["error"]["code"],
            "job_not_found"
        );
    }
    assert_eq!(
        session.bad("get_job_status", json!({"job_id": "nobody"})).await["status"],
        "not_found"
    );
    session.close().await;
}

#[tokio::test]
async fn refusals_of_commands() {
    let session = Session::open().await;
    for (arguments, part) in [
        (
            json!({"cmd": "x".repeat(limits::CMD + 1)}),
            "cmd is 65537 bytes; at most 65536",
        ),
        (json!({"cmd": "x", "timeout_s": 0}), "timeout_s is 0; 1 to 86400"),
        (json!({"cmd": "x", "user": "admin"}), "expected `user` or `root`"),
        (json!({"cmd": "x", "cwd": "a\0b"}), "cwd contains a NUL byte"),
    ] {
        let told = session.bad("run_command", arguments).await;
        assert!(told["error"]["message"].as_str().unwrap().contains(part), "{told}");
    }
    let told = session
        .bad("get_job_status", json!({"job_id": "j", "wait_s": 41}))
        .await;
    assert_eq!(told["error"]["message"], "wait_s is 41; 0 to 40 is allowed");
    session.close().await;
}
