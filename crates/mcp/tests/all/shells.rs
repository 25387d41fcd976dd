//! Shells and watches: broken connections, sandboxes that end, what is typed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::stub::{Session, text};

async fn opened(script: &str) -> (Session, Value) {
    let session = Session::open().await;
    let envs = json!([{"name": "SCRIPT", "value": script}]);
    let shell = session.good("open_shell", json!({"envs": envs})).await;
    (session, shell)
}

/// What a shell was given, once it is something.
async fn typed(session: &Session, shell: &Value, length: usize) -> String {
    let tag = shell["shell_id"].as_str().unwrap();
    for _ in 0..500 {
        let given = session
            .world
            .lock()
            .unwrap()
            .stdin
            .get(tag)
            .cloned()
            .unwrap_or_default();
        if given.len() >= length {
            return String::from_utf8(given).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was typed");
}

#[tokio::test]
async fn the_end_of_a_shell_is_told() {
    let (session, _) = opened(r"pty \e[1mhi\e[0m\n; exit 3").await;
    let mut read = session.good("read_shell", json!({"timeout_ms": 10_000})).await;
    let mut output = read["output"].as_str().unwrap().to_owned();
    while read["status"] == "running" {
        read = session.good("read_shell", json!({"timeout_ms": 10_000})).await;
        output += read["output"].as_str().unwrap();
    }
    assert_eq!((output.as_str(), &read["exit_code"]), ("hi\n", &json!(3)));
    for (tool, arguments) in [
        ("write_line", json!({"line": "x"})),
        ("send_keys", json!({"keys": ["enter"]})),
        ("resize_shell", json!({"cols": 5})),
    ] {
        let refused = session.bad(tool, arguments).await;
        assert_eq!(refused["error"]["code"], "shell_ended", "{tool}");
        assert!(
            refused["error"]["message"].as_str().unwrap().contains("exit code 3"),
            "{refused}"
        );
    }
    assert_eq!(session.good("close_shell", json!({})).await["closed"], false);
    let none = session.bad("read_shell", json!({})).await;
    assert_eq!(none["error"]["code"], "shell_not_found");
    session.close().await;
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_again_and_told() {
    let (session, _) = opened(r"pty before\n; sleep 100; drop").await;
    let (mut output, mut notes) = (String::new(), String::new());
    loop {
        let result = session.call("read_shell", json!({"timeout_ms": 10_000})).await;
        let read = result.structured_content.clone().unwrap();
        output += read["output"].as_str().unwrap();
        notes += &text(&result);
        if read["status"] != "running" {
            assert_eq!(read["exit_code"], 7);
            break;
        }
    }
    assert_eq!(output, "before\nagain\n");
    assert!(notes.contains("The connection broke for a moment"), "{notes}");
    session.close().await;
}

#[tokio::test]
async fn the_shells_of_a_sandbox_end_with_it() {
    let (session, _) = opened(r"pty before\n; sleep 100; die").await;
    loop {
        let result = session.call("read_shell", json!({"timeout_ms": 10_000})).await;
        let read = result.structured_content.clone().unwrap();
        if read["status"] != "running" {
            assert_eq!(read["status"], "lost");
            assert!(text(&result).contains("sandbox"), "{}", text(&result));
            break;
        }
    }
    let refused = session.bad("write_line", json!({"line": "x"})).await;
    assert_eq!(refused["error"]["code"], "shell_ended");
    session.close().await;
}

#[tokio::test]
async fn what_is_typed_arrives_as_terminals_send_it() {
    let (session, shell) = opened(r"pty \e[?1h$ ; hang").await;
    session.good("read_shell", json!({"timeout_ms": 5000})).await;
    session.good("write_line", json!({"line": "echo ü"})).await;
    session
        .good("send_keys", json!({"keys": ["up", "ctrl+c", "text:a b"]}))
        .await;
    assert_eq!(typed(&session, &shell, 15).await, "echo ü\r\x1bOA\x03a b");
    session.good("write_line", json!({"line": "one\ntwo\n"})).await;
    assert_eq!(typed(&session, &shell, 23).await, "echo ü\r\x1bOA\x03a bone\ntwo\n");
    assert_eq!(session.good("close_shell", json!({})).await["closed"], true);
    let signals = session.world.lock().unwrap().signals.clone();
    let tag = shell["shell_id"].as_str().unwrap();
    assert_eq!(signals, [format!("{tag} SIGNAL_SIGKILL")]);
    session.close().await;
}

#[tokio::test]
async fn the_terminal_answers_and_output_types_nothing_else() {
    let (session, shell) = opened(r"pty ab\e[6n\e]0\srm -rf ~\e\\e[21t\e[c; hang").await;
    assert_eq!(typed(&session, &shell, 11).await, "\x1b[1;3R\x1b[?6c");
    let screen = session.good("read_shell", json!({"screen": true})).await;
    assert_eq!(
        (&screen["screen"], &screen["terminal"]["title"]),
        (&json!("ab"), &json!("rm -rf ~"))
    );
    assert_eq!(screen["terminal"]["cursor"], json!([1, 3]));
    session.close().await;
}

async fn watched(scripts: &[&str]) -> (Session, Value) {
    let session = Session::open().await;
    session.world.lock().unwrap().watches = scripts.iter().map(|&s| s.into()).collect();
    let watch = session.good("watch_dir", json!({"path": "w"})).await;
    assert_eq!(watch["path"], "/home/user/w");
    (session, json!({"watch_id": watch["watch_id"], "wait_ms": 10_000}))
}

#[tokio::test]
async fn a_watch_that_breaks_is_set_up_again_and_told() {
    let (session, which) = watched(&["CREATE a; WRITE a; WRITE a; sleep 100; drop", "REMOVE .; hang"]).await;
    let (mut events, mut notes) = (Vec::new(), String::new());
    while events.len() < 3 || notes.is_empty() {
        let fetched = session.good("get_watch_events", which.clone()).await;
        events.extend(fetched["events"].as_array().unwrap().clone());
        notes += fetched["note"].as_str().unwrap_or_default();
    }
    let expected = json!([
        {"event": "create", "path": "/home/user/w/a"}, {"event": "write", "path": "/home/user/w/a"},
        {"event": "remove", "path": "/home/user/w"},
    ]);
    assert_eq!(Value::from(events), expected);
    assert!(notes.contains("what changed meanwhile is not known"), "{notes}");
    session
        .good("unwatch_dir", json!({"watch_id": which["watch_id"]}))
        .await;
    let gone = session.bad("get_watch_events", which).await;
    assert_eq!(gone["error"]["code"], "watch_not_found");
    session.close().await;
}

#[tokio::test]
async fn the_watches_of_a_sandbox_end_with_it() {
    let (session, which) = watched(&["RENAME a; sleep 100; die"]).await;
    let first = session.good("get_watch_events", which.clone()).await;
    assert_eq!(first["events"][0]["event"], "rename");
    let ended = session.bad("get_watch_events", which).await;
    assert_eq!(ended["error"]["code"], "watch_ended");
    session.close().await;
}

#[tokio::test]
async fn files_are_not_watched() {
    let session = Session::open().await;
    session.world.lock().unwrap().files.insert("a.txt".into(), Vec::new());
    for (path, code) in [("a.txt", "invalid_argument"), ("b.txt", "not_found")] {
        let refused = session.bad("watch_dir", json!({"path": path})).await;
        assert_eq!(refused["error"]["code"], code);
    }
    session.close().await;
}
