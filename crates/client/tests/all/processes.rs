//! Requests about processes, as they go over the wire.

use std::time::Duration;

use buffa::Message;
use sandhold_client::{CommandEvent, CommandRequest, CommandSelector, Error, ExitStatus, PtySize, SignalKind};
use sandhold_wire::proto::process as proto;
use serde_json::json;

use crate::stub::{ID, Seen, Stub, TOKEN, frame, json_stream, reply, sandbox, with};

fn about_the_sandbox(seen: &Seen) {
    assert_eq!(seen.header("e2b-sandbox-id"), Some(ID));
    assert_eq!(seen.header("e2b-sandbox-port"), Some("49983"));
    assert_eq!(seen.header("x-access-token"), Some(TOKEN));
    assert_eq!(seen.header("connect-protocol-version"), Some("1"));
    assert_eq!(seen.header("x-api-key"), None, "the key is for the control plane alone");
}

#[tokio::test]
async fn starts_over_http() {
    let stub = Stub::with_sandbox(|_, _| {
        json_stream(&[
            json!({"start": {"pid": 77}}),
            json!({"data": {"stdout": "aGkK"}}),
            json!({"keepalive": {}}),
            json!({"data": {"stderr": "ISE="}}),
            json!({"somethingNew": {}}),
            json!({"end": {"exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3"}}),
        ])
    });
    let commands = sandbox(&stub.http().await).await.commands();
    let request = CommandRequest {
        envs: [("B".into(), "2".into())].into(),
        cwd: Some("/tmp".into()),
        user: Some("root".into()),
        tag: Some("job".into()),
        timeout: Some(Duration::from_secs(5)),
        ..CommandRequest::shell("echo hi")
    };
    let mut process = commands.start(request).await.unwrap();
    assert_eq!(process.pid(), 77);
    assert_eq!(
        process.next().await.unwrap().unwrap(),
        CommandEvent::Stdout("hi\n".into())
    );
    assert_eq!(
        process.next().await.unwrap().unwrap(),
        CommandEvent::Stderr("!!".into())
    );
    let exit = ExitStatus {
        exit_code: 3,
        exited: true,
        status: "exit status 3".into(),
        error: Some("exit status 3".into()),
    };
    assert_eq!(process.next().await.unwrap().unwrap(), CommandEvent::Exited(exit));
    assert!(process.next().await.is_none());
    let seen = stub.last();
    about_the_sandbox(&seen);
    assert_eq!(seen.line, "POST /process.Process/Start");
    assert_eq!(seen.header("content-type"), Some("application/connect+json"));
    assert_eq!(seen.header("keepalive-ping-interval"), Some("50"));
    assert_eq!(seen.header("connect-timeout-ms"), Some("5000"));
    assert_eq!(seen.header("authorization"), Some("Basic cm9vdDo="));
    let message: serde_json::Value = serde_json::from_slice(&seen.message()).unwrap();
    assert_eq!(
        message,
        json!({"process": {"cmd": "/bin/bash", "args": ["-l", "-c", "echo hi"], "envs": {"B": "2"}, "cwd": "/tmp"},
            "tag": "job", "stdin": false})
    );
}

fn binary(events: &[proto::ProcessEvent]) -> axum::response::Response {
    let mut body = Vec::new();
    for event in events {
        let message = proto::StartResponse {
            event: Some(event.clone()).into(),
            ..Default::default()
        };
        body.extend(frame(0, &message.encode_to_vec()));
    }
    body.extend(frame(2, b"{}"));
    with(reply(200, body), "content-type", "application/connect+proto")
}

pub(crate) fn started(pid: u32) -> proto::ProcessEvent {
    let event = proto::process_event::StartEvent {
        pid,
        ..Default::default()
    };
    proto::ProcessEvent {
        event: event.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn starts_in_process() {
    let stub = Stub::with_sandbox(|_, _| {
        let data = proto::process_event::DataEvent {
            output: Some(proto::process_event::data_event::Output::Pty(vec![0xff, 0])),
            ..Default::default()
        };
        let end = proto::process_event::EndEvent {
            exit_code: -1,
            exited: false,
            status: "signal: killed".into(),
            ..Default::default()
        };
        binary(&[
            started(4),
            proto::ProcessEvent {
                event: data.into(),
                ..Default::default()
            },
            proto::ProcessEvent {
                event: end.into(),
                ..Default::default()
            },
        ])
    });
    let commands = sandbox(&stub.in_process()).await.commands();
    let request = CommandRequest {
        pty: Some(PtySize { cols: 80, rows: 24 }),
        ..CommandRequest::shell("top")
    };
    let mut process = commands.start(request).await.unwrap();
    assert_eq!(
        process.next().await.unwrap().unwrap(),
        CommandEvent::Pty(vec![0xff, 0].into())
    );
    let exit = ExitStatus {
        exit_code: -1,
        exited: false,
        status: "signal: killed".into(),
        error: None,
    };
    assert_eq!(process.next().await.unwrap().unwrap(), CommandEvent::Exited(exit));
    let seen = stub.last();
    about_the_sandbox(&seen);
    assert_eq!(seen.header("content-type"), Some("application/connect+proto"));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(
        seen.header("connect-timeout-ms"),
        None,
        "a process without a deadline has none"
    );
    let message = proto::StartRequest::decode_from_slice(&seen.message()).unwrap();
    assert_eq!(
        message
            .pty
            .as_option()
            .unwrap()
            .size
            .as_option()
            .map(|s| (s.cols, s.rows)),
        Some((80, 24))
    );
    assert_eq!(message.stdin, None);
}

#[tokio::test]
async fn the_small_calls() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "POST /process.Process/List" => reply(
            200,
            r#"{"processes":[{"config":{"cmd":"a","args":["b"],"envs":{"C":"d"},"cwd":"/e"},"pid":7,"tag":"t","new":1}]}"#,
        ),
        _ => reply(200, "{}"),
    });
    let commands = sandbox(&stub.http().await).await.commands();
    let list = commands.list().await.unwrap();
    let told = (
        list[0].pid,
        list[0].tag.as_deref(),
        list[0].cmd.as_str(),
        list[0].args[0].as_str(),
        list[0].cwd.as_deref(),
    );
    assert_eq!(told, (7, Some("t"), "a", "b", Some("/e")));
    assert_eq!(list[0].envs["C"], "d");
    let seen = stub.last();
    about_the_sandbox(&seen);
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("connect-timeout-ms"), Some("60000"));
    assert_eq!(seen.json(), json!({}));

    let pid = || CommandSelector::Pid(77);
    commands.send_stdin(pid(), b"x").await.unwrap();
    assert_eq!(stub.last().line, "POST /process.Process/SendInput");
    assert_eq!(
        stub.last().json(),
        json!({"process": {"pid": 77}, "input": {"stdin": "eA=="}})
    );
    commands.send_pty(CommandSelector::Tag("t".into()), b"y").await.unwrap();
    assert_eq!(
        stub.last().json(),
        json!({"process": {"tag": "t"}, "input": {"pty": "eQ=="}})
    );
    assert!(commands.signal(pid(), SignalKind::Kill).await.unwrap());
    assert_eq!(stub.last().line, "POST /process.Process/SendSignal");
    assert_eq!(
        stub.last().json(),
        json!({"process": {"pid": 77}, "signal": "SIGNAL_SIGKILL"})
    );
    assert!(commands.signal(pid(), SignalKind::Term).await.unwrap());
    assert_eq!(stub.last().json()["signal"], "SIGNAL_SIGTERM");
    commands.close_stdin(pid()).await.unwrap();
    assert_eq!(
        (stub.last().line, stub.last().json()),
        (
            "POST /process.Process/CloseStdin".into(),
            json!({"process": {"pid": 77}})
        )
    );
    commands.resize(pid(), PtySize { cols: 1, rows: 2 }).await.unwrap();
    assert_eq!(stub.last().line, "POST /process.Process/Update");
    assert_eq!(
        stub.last().json(),
        json!({"process": {"pid": 77}, "pty": {"size": {"cols": 1, "rows": 2}}})
    );
}

#[tokio::test]
async fn large_input_goes_in_pieces() {
    let stub = Stub::with_sandbox(|_, _| reply(200, ""));
    let commands = sandbox(&stub.in_process()).await.commands();
    let data: Vec<u8> = (0..1_200_000u32).map(|i| i as u8).collect();
    commands.send_stdin(CommandSelector::Pid(1), &data).await.unwrap();
    let mut got = Vec::new();
    for seen in &stub.seen()[1..] {
        let message = proto::SendInputRequest::decode_from_slice(&seen.body).unwrap();
        match message.input.into_option().unwrap().input.unwrap() {
            proto::process_input::Input::Stdin(bytes) => got.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((got == data, stub.seen().len()), (true, 4));
}

#[tokio::test]
async fn no_such_process() {
    let stub =
        Stub::with_sandbox(|_, _| reply(404, r#"{"code":"not_found","message":"process with pid 9 not found"}"#));
    let commands = sandbox(&stub.in_process()).await.commands();
    assert!(
        !commands
            .signal(CommandSelector::Pid(9), SignalKind::Term)
            .await
            .unwrap()
    );
    let error = commands.connect(CommandSelector::Pid(9)).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(text) if text == "process with pid 9 not found"),
        "{error:?}"
    );
}

#[tokio::test]
async fn waiting_for_input() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "GET /sandhold/process?pid=7" => reply(200, r#"{"pid":7,"running":true,"awaiting_input":true}"#),
        _ => reply(404, r#"{"code":404,"message":"process with pid 8 not found"}"#),
    });
    let commands = sandbox(&stub.in_process()).await.commands();
    assert_eq!(commands.awaiting_input(7).await.unwrap(), Some(true));
    assert!(matches!(commands.awaiting_input(8).await, Err(Error::NotFound(_))));

    let foreign = Stub::with_sandbox(|_, _| reply(404, "404 page not found\n"));
    let sandbox = sandbox(&foreign.in_process()).await;
    assert_eq!(sandbox.commands().awaiting_input(7).await.unwrap(), None);
    assert_eq!(sandbox.commands().awaiting_input(7).await.unwrap(), None);
    assert_eq!(foreign.lines().len(), 2, "the second answer comes from memory");
}

#[tokio::test]
async fn jobs_of_a_daemon_that_knows_them() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "GET /sandhold/jobs" => reply(
            200,
            r#"{"jobs":[{"id":"build","pid":7,"cmd":"make","age_ms":5000,"ran_ms":3000,"stdin":false,"printed":[4,0],
               "exit":{"exit_code":2,"exited":true,"status":"exit status 2"}}]}"#,
        ),
        _ => with(
            json_stream(&[
                json!({"start": {"pid": 7}}),
                json!({"end": {"exitCode": 2, "exited": true, "status": "exit status 2"}}),
            ]),
            "sandhold-replay",
            "3.0",
        ),
    });
    let commands = sandbox(&stub.http().await).await.commands();
    let jobs = commands.jobs().await.unwrap();
    let job = &jobs[0];
    assert_eq!(
        (job.id.as_str(), job.pid, job.running, job.stdin),
        ("build", 7, false, Some(false))
    );
    assert_eq!(
        (job.age, job.ran),
        (Some(Duration::from_secs(5)), Some(Duration::from_secs(3)))
    );
    assert_eq!(
        (job.printed, job.exit.as_ref().map(|exit| exit.exit_code)),
        (Some([4, 0]), Some(2))
    );
    let attached = commands.attach("build", [1, 0]).await.unwrap();
    assert_eq!((attached.process.pid(), attached.replayed), (7, Some([3, 0])));
    assert_eq!(stub.last().header("sandhold-replay"), Some("1.0"));
    let asked: serde_json::Value = serde_json::from_slice(&stub.last().message()).unwrap();
    assert_eq!(asked, json!({"process": {"tag": "sandhold-job:build"}}));
}

#[tokio::test]
async fn jobs_of_a_daemon_that_knows_only_processes() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "GET /sandhold/jobs" => reply(404, "404 page not found\n"),
        "POST /process.Process/List" => reply(
            200,
            r#"{"processes":[{"pid":7,"tag":"sandhold-job:build","config":{"cmd":"/bin/bash","args":["-l","-c","make"]}},
               {"pid":8,"tag":"web","config":{"cmd":"serve"}},{"pid":9,"config":{"cmd":"ls"}}]}"#,
        ),
        _ => json_stream(&[json!({"start": {"pid": 7}})]),
    });
    let commands = sandbox(&stub.http().await).await.commands();
    for _ in 0..2 {
        let jobs = commands.jobs().await.unwrap();
        assert_eq!(
            (jobs.len(), jobs[0].id.as_str(), jobs[0].cmd.as_str()),
            (1, "build", "make")
        );
        assert!(jobs[0].running && jobs[0].age.is_none() && jobs[0].printed.is_none());
    }
    let asked = stub
        .lines()
        .iter()
        .filter(|line| line.as_str() == "GET /sandhold/jobs")
        .count();
    assert_eq!(asked, 1, "the second answer comes from memory");
    assert_eq!(commands.attach("build", [0, 0]).await.unwrap().replayed, None);
}

#[tokio::test]
async fn old_daemons_want_a_user() {
    let stub = Stub::new(|seen, _| match seen.line.as_str() {
        "POST /v2/sandboxes" => reply(
            201,
            r#"{"templateID":"t","sandboxID":"i1","clientID":"","envdVersion":"0.3.3"}"#,
        ),
        _ => reply(200, "{}"),
    });
    sandbox(&stub.http().await).await.commands().list().await.unwrap();
    assert_eq!(stub.last().header("authorization"), Some("Basic dXNlcjo="));
    assert_eq!(stub.last().header("x-access-token"), None);
}
