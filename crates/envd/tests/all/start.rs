use std::collections::BTreeMap;

use http::{Request, StatusCode};
use sandhold_wire::proto::process::{ProcessConfig, StartRequest};
use serde_json::{Value, json};

use crate::harness::*;

fn as_user(name: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{name}:")))
}

#[tokio::test]
async fn output_and_exit() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let run = client.sh("echo out; echo err >&2; cat; exit 7").await;
    assert_eq!((run.text(), &run.stderr[..]), ("out\n", &b"err\n"[..]));
    assert_eq!(
        run.end,
        json!({"exitCode": 7, "exited": true, "status": "exit status 7", "error": "exit status 7"})
    );
    assert_eq!(run.error, None);
    assert!(run.pid > 0);
    let run = client.sh("true").await;
    assert_eq!(
        run.end,
        json!({"exited": true, "status": "exit status 0"}),
        "no error at 0"
    );
}

#[tokio::test]
async fn ends_by_signal_are_told_as_go_tells_them() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    for (signal, status) in [
        ("KILL", "signal: killed"),
        ("TERM", "signal: terminated"),
        ("HUP", "signal: hangup"),
        ("PIPE", "signal: broken pipe"),
        ("USR1", "signal: user defined signal 1"),
    ] {
        let run = client.sh(&format!("kill -{signal} $$; sleep 9")).await;
        assert_eq!(
            run.end,
            json!({"exitCode": -1, "status": status, "error": status}),
            "{signal}"
        );
    }
    // With room for a core it depends on the machine whether one is written.
    let run = client.sh("kill -SEGV $$; sleep 9").await;
    assert_eq!(
        run.end["status"], "signal: segmentation fault",
        "no core: the daemon's processes have none"
    );
}

#[tokio::test]
async fn binary_messages_work_too() {
    use sandhold_wire::proto::process::StartResponse;

    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let config = ProcessConfig {
        cmd: "echo".into(),
        args: vec!["hi".into()],
        ..ProcessConfig::default()
    };
    let message = StartRequest {
        process: config.into(),
        stdin: Some(false),
        ..StartRequest::default()
    };
    let body = envelope(&buffa::Message::encode_to_vec(&message));
    let request = Request::post("/process.Process/Start")
        .header("host", "x")
        .header("content-type", "application/connect+proto")
        .body(full(body))
        .unwrap();
    let mut response = client.send(request).await;
    assert_eq!(response.headers()["content-type"], "application/connect+proto");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let bytes = http_body_util::BodyExt::collect(response.body_mut())
        .await
        .unwrap()
        .to_bytes();
    let mut rest = &bytes[..];
    let mut events = Vec::new();
    while rest[0] == 0 {
        let len = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let event: StartResponse = buffa::Message::decode_from_slice(&rest[5..5 + len]).unwrap();
        events.push(serde_json::to_value(&event).unwrap());
        rest = &rest[5 + len..];
    }
    assert_eq!(rest[0], 2);
    assert!(events[0]["event"]["start"]["pid"].is_u64(), "{events:?}");
    assert_eq!(events[1], json!({"event": {"data": {"stdout": "aGkK"}}}));
    assert_eq!(events[2]["event"]["end"]["status"], "exit status 0");
}

#[tokio::test]
async fn environment() {
    let mut with_envs = spec();
    with_envs.envs = [("GLOBAL", "g"), ("BOTH", "global")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let daemon = Daemon::with(&with_envs);
    let mut client = daemon.client().await;
    let envs = json!({"BOTH": "request", "OWN": "a=b\nc", "USER": "other"});
    let run = client
        .run(&json!({"process": {"cmd": "env", "args": ["-0"], "envs": envs}}), &[])
        .await;
    let seen: BTreeMap<&str, &str> = run
        .text()
        .split_terminator('\0')
        .map(|l| l.split_once('=').unwrap())
        .collect();
    let home = std::env::var("HOME").unwrap_or_default();
    for (name, value) in [
        ("GLOBAL", "g"),
        ("BOTH", "request"),
        ("OWN", "a=b\nc"),
        ("USER", "other"),
        ("LOGNAME", &own_name()),
        ("E2B_SANDBOX", "true"),
        ("E2B_SANDBOX_ID", "itest"),
        ("E2B_TEMPLATE_ID", "base"),
    ] {
        assert_eq!(seen.get(name), Some(&value), "{name}");
    }
    assert!(seen["HOME"].starts_with('/') && seen.contains_key("PATH"));
    let mut names: Vec<_> = seen.keys().copied().collect();
    names.sort_unstable();
    let known = [
        "BOTH",
        "E2B_SANDBOX",
        "E2B_SANDBOX_ID",
        "E2B_TEMPLATE_ID",
        "GLOBAL",
        "HOME",
        "LOGNAME",
        "OWN",
        "PATH",
        "USER",
    ];
    assert_eq!(
        names, known,
        "nothing of the daemon's own environment (HOME here is {home})"
    );
    let run = client
        .run(
            &json!({"process": {"cmd": "sh", "args": ["-c", "echo $PATH"], "envs": {"PATH": "/bin"}}}),
            &[],
        )
        .await;
    assert_eq!(run.text(), "/bin\n");
}

#[tokio::test]
async fn working_folders() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    std::fs::create_dir(dir.join("sub")).unwrap();
    let mut with_dir = spec();
    with_dir.workdir = Some(dir.to_str().unwrap().to_owned());
    let daemon = Daemon::with(&with_dir);
    let mut client = daemon.client().await;
    let at = |cwd: Option<&str>| {
        let mut process = json!({"cmd": "/bin/pwd"});
        if let Some(cwd) = cwd {
            process["cwd"] = json!(cwd);
        }
        json!({"process": process, "stdin": false})
    };
    let home = client.sh("echo $HOME").await.text().trim().to_owned();
    let sub = dir.join("sub");
    for (cwd, wanted) in [
        (None, dir.to_str().unwrap()),
        (Some(""), dir.to_str().unwrap()),
        (Some("./x/../sub"), sub.to_str().unwrap()),
        (Some("/usr/."), "/usr"),
    ] {
        assert_eq!(client.run(&at(cwd), &[]).await.text().trim(), wanted, "{cwd:?}");
    }
    assert_eq!(client.run(&at(Some("~")), &[]).await.text().trim(), home);
    let missing = format!("cwd '{}' does not exist", dir.join("no").display());
    for (cwd, code, text) in [
        ("no", "invalid_argument", missing.as_str()),
        (
            "/etc/passwd",
            "invalid_argument",
            "cwd '/etc/passwd' cannot be entered: Not a directory",
        ),
        ("~someone", "invalid_argument", "cannot expand user-specific home dir"),
    ] {
        let (got, message) = client.run(&at(Some(cwd)), &[]).await.error.expect(cwd);
        assert_eq!(got, code);
        assert!(message.starts_with(text), "{message}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_told() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    for (process, text) in [
        (
            json!({"cmd": "no-such-program", "envs": {"PATH": "/usr/bin:/bin"}}),
            "executable file not found in $PATH",
        ),
        (
            json!({"cmd": "/no/such/program"}),
            "error starting process '/no/such/program': No such file",
        ),
        (json!({"cmd": "/etc/passwd"}), "Permission denied"),
        (json!({"cmd": ""}), "names no command"),
        (json!({"cmd": "a\0b"}), "zero byte"),
        (json!({"cmd": "true", "args": ["a\0b"]}), "zero byte"),
        (
            json!({"cmd": "true", "envs": {"A=B": "c"}}),
            "cannot be the name of an environment variable",
        ),
        (
            json!({"cmd": "true", "args": ["x".repeat(200_000)]}),
            "Argument list too long",
        ),
    ] {
        let run = client.run(&json!({"process": process}), &[]).await;
        let (code, message) = run.error.unwrap_or_else(|| panic!("{process} ran"));
        assert_eq!(
            (code.as_str(), message.contains(text)),
            ("invalid_argument", true),
            "{message}"
        );
        assert_eq!(run.pid, 0, "no start event");
    }
    let many: serde_json::Map<String, Value> = (0..1025).map(|i| (format!("V{i}"), json!(""))).collect();
    let run = client
        .run(&json!({"process": {"cmd": "true", "envs": many}}), &[])
        .await;
    assert!(run.error.unwrap().1.contains("at most 1024"));
    assert_eq!(
        client.call("List", json!({})).await.unwrap(),
        json!({}),
        "nothing is left over"
    );
}

#[tokio::test]
async fn users() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let own = as_user(&own_name());
    let run = client.run(&script("id -un"), &[("authorization", &own)]).await;
    assert_eq!(run.text().trim(), own_name());
    let run = client
        .run(&script("id"), &[("authorization", &as_user("no-such-user"))])
        .await;
    let (code, message) = run.error.unwrap();
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "unauthenticated",
            "error looking up user 'no-such-user': user: unknown user no-such-user"
        )
    );
    // Where ids can be switched they are; where not, that is said.
    let id = "id -u; id -G; echo $HOME $USER; cat /proc/self/status | grep CapEff; echo x >/dev/stdout";
    let message = json!({"process": {"cmd": "/bin/sh", "args": ["-c", id], "cwd": "/"}, "stdin": false});
    let run = client.run(&message, &[("authorization", &as_user("nobody"))]).await;
    if rustix::process::getuid().is_root() {
        let text = run.text();
        assert!(text.starts_with("65534\n65534\n"), "{text}");
        assert!(
            text.contains(" nobody\n") && text.contains("CapEff:\t0000000000000000") && text.ends_with("x\n"),
            "{text}"
        );
    } else {
        assert!(run.error.unwrap().1.contains("has one user id"));
    }

    let mut fixed = spec();
    fixed.can_switch_user = false;
    let daemon = Daemon::with(&fixed);
    let mut client = daemon.client().await;
    assert_eq!(client.sh("id -un").await.text().trim(), own_name());
    let (code, message) = client
        .run(&script("id"), &[("authorization", &as_user("bin"))])
        .await
        .error
        .unwrap();
    assert_eq!(code, "unauthenticated");
    let wanted = format!(
        "this sandbox has one user id: it cannot run anything as user 'bin', only as '{}'",
        own_name()
    );
    assert_eq!(message, wanted);
}

#[tokio::test]
async fn a_full_sandbox_says_so() {
    let mut small = spec();
    small.max_processes = 2;
    let daemon = Daemon::with(&small);
    let (mut a, mut b, mut c) = (daemon.client().await, daemon.client().await, daemon.client().await);
    let mut one = a.stream("Start", &with_stdin("read x"), &[]).await;
    let pid = one.pid().await;
    let mut two = b.stream("Start", &with_stdin("read x"), &[]).await;
    two.pid().await;
    let (code, message) = c.sh("true").await.error.unwrap();
    assert_eq!(code, "resource_exhausted");
    assert_eq!(
        message,
        "this sandbox keeps at most 2 processes at once (its limit pids): end one first"
    );
    c.call(
        "SendSignal",
        json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}),
    )
    .await
    .unwrap();
    one.rest().await;
    assert_eq!(c.sh("echo again").await.text(), "again\n");
}

#[tokio::test]
async fn list_and_tags() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    assert_eq!(client.call("List", json!({})).await.unwrap(), json!({}));
    let mut message = with_stdin("read x");
    message["tag"] = json!("mine");
    message["process"]["envs"] = json!({"A": "b"});
    let mut other = daemon.client().await;
    let mut events = other.stream("Start", &message, &[]).await;
    let pid = events.pid().await;
    let config = json!({"cmd": "/bin/sh", "args": ["-c", "read x"], "envs": {"A": "b"}});
    let wanted = json!({"processes": [{"config": config, "pid": pid, "tag": "mine"}]});
    assert_eq!(client.call("List", json!({})).await.unwrap(), wanted);
    let tagged = json!({"tag": "mine"});
    client
        .call("SendInput", json!({"process": tagged, "input": {"stdin": "Cg=="}}))
        .await
        .unwrap();
    assert_eq!(events.rest().await.end["status"], "exit status 0");
    assert_eq!(client.call("List", json!({})).await.unwrap(), json!({}));
    let late = client
        .stream("Connect", &json!({"process": tagged}), &[])
        .await
        .rest()
        .await;
    assert_eq!((late.pid, &late.end["status"]), (pid, &json!("exit status 0")));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    for (selector, text) in [
        (json!({"pid": 4_000_000}), "process with pid 4000000 not found"),
        (json!({"tag": "no"}), "process with tag no not found"),
    ] {
        for method in ["Update", "SendInput", "SendSignal", "CloseStdin"] {
            let refused = client.call(method, json!({"process": selector})).await.unwrap_err();
            let wanted = Refused {
                status: StatusCode::NOT_FOUND,
                code: "not_found".into(),
                message: text.into(),
            };
            assert_eq!(refused, wanted, "{method}");
        }
        let run = client
            .stream("Connect", &json!({"process": selector}), &[])
            .await
            .rest()
            .await;
        assert_eq!(run.error, Some(("not_found".into(), text.into())));
    }
    let refused = client.call("SendInput", json!({})).await.unwrap_err();
    assert_eq!(refused.code, "invalid_argument");
    assert_eq!(
        client.call("Nope", json!({})).await.unwrap_err().status,
        StatusCode::NOT_FOUND
    );
}
