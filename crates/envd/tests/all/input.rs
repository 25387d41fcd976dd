use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::stream;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::harness::*;

fn stdin(pid: u64, bytes: &[u8]) -> Value {
    json!({"process": {"pid": pid}, "input": {"stdin": STANDARD.encode(bytes)}})
}

async fn stream_input(client: &mut Client, messages: Vec<Value>) -> (StatusCode, Value) {
    let frames = messages
        .into_iter()
        .map(|m| Ok(Frame::data(envelope(m.to_string().as_bytes()))));
    let request = Request::post("/process.Process/StreamInput")
        .header("host", "x")
        .header("content-type", "application/connect+json")
        .body(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())).boxed())
        .unwrap();
    let (head, body) = client.send(request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    // The answer, then the end; or the end alone, with an error.
    let mut rest = &body[..];
    let mut last = Value::Null;
    while !rest.is_empty() {
        let len = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        last = serde_json::from_slice(&rest[5..5 + len]).unwrap();
        rest = &rest[5 + len..];
    }
    (head.status, last)
}

#[tokio::test]
async fn input_and_its_end() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let mut events = a.stream("Start", &with_stdin("cat; echo over"), &[]).await;
    let pid = events.pid().await;
    b.call("SendInput", stdin(pid, b"one\n")).await.unwrap();
    events.until("one\n").await;
    b.call("CloseStdin", by_pid(pid)).await.unwrap();
    let run = events.rest().await;
    assert_eq!(run.text(), "over\n");
}

#[tokio::test]
async fn ten_megabytes_in_one_message() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let mut events = a.stream("Start", &with_stdin("sleep 0.2; cksum"), &[]).await;
    let pid = events.pid().await;
    let data: Vec<u8> = (0..10_000_000u32).map(|i| (i % 251) as u8).collect();
    b.call("SendInput", stdin(pid, &data)).await.unwrap();
    b.call("CloseStdin", by_pid(pid)).await.unwrap();
    let run = events.rest().await;
    assert!(run.text().contains(" 10000000"), "{}", run.text());
}

#[tokio::test]
async fn streamed_input() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let mut events = a.stream("Start", &with_stdin("wc -c"), &[]).await;
    let pid = events.pid().await;
    let mut messages = vec![json!({"start": {"process": {"pid": pid}}})];
    for _ in 0..200 {
        messages.push(json!({"data": {"input": {"stdin": STANDARD.encode([7; 5000])}}}));
        messages.push(json!({"keepalive": {}}));
    }
    let (status, end) = stream_input(&mut b, messages).await;
    assert_eq!((status, &end), (StatusCode::OK, &json!({})));
    b.call("CloseStdin", by_pid(pid)).await.unwrap();
    assert_eq!(events.rest().await.text().trim(), "1000000");

    let missing = json!({"start": {"process": {"pid": 4_000_000}}});
    let (_, end) = stream_input(&mut b, vec![missing]).await;
    assert_eq!(end["error"]["code"], "not_found");
    let (_, end) = stream_input(&mut b, vec![json!({"data": {"input": {"stdin": ""}}})]).await;
    assert_eq!(end["error"]["code"], "invalid_argument");
    assert!(
        end["error"]["message"].as_str().unwrap().contains("send a start event"),
        "{end}"
    );
}

#[tokio::test]
async fn without_stdin() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    assert_eq!(
        a.sh("cat; echo $?").await.text(),
        "0\n",
        "it reads an end, not an error"
    );
    let mut events = a.stream("Start", &script("sleep 1000"), &[]).await;
    let pid = events.pid().await;
    let refused = b.call("SendInput", stdin(pid, b"x")).await.unwrap_err();
    assert_eq!(
        (refused.code.as_str(), refused.message.as_str()),
        ("internal", "error writing to stdin: stdin not enabled or closed")
    );
    b.call("CloseStdin", by_pid(pid)).await.unwrap();
}

#[tokio::test]
async fn closed_and_refused() {
    let daemon = Daemon::start();
    let (mut a, mut b) = (daemon.client().await, daemon.client().await);
    let mut events = a
        .stream("Start", &with_stdin("exec 0<&-; echo shut; exec sleep 1000"), &[])
        .await;
    let pid = events.pid().await;
    events.until("shut").await;
    let refused = b.call("SendInput", stdin(pid, b"x")).await.unwrap_err();
    assert_eq!(refused.code, "internal");
    let text = format!("error writing to stdin: error writing to stdin of process '{pid}': Broken pipe");
    assert!(refused.message.starts_with(&text), "{}", refused.message);
    b.call("CloseStdin", by_pid(pid)).await.unwrap();
    b.call("CloseStdin", by_pid(pid)).await.unwrap();
    let refused = b.call("SendInput", stdin(pid, b"x")).await.unwrap_err();
    assert_eq!(refused.message, "error writing to stdin: stdin not enabled or closed");
    let pty = json!({"process": {"pid": pid}, "input": {"pty": "eA=="}});
    let refused = b.call("SendInput", pty).await.unwrap_err();
    let text = "error writing to tty: tty not assigned to process — input should be written to the stdin, not the tty";
    assert_eq!((refused.code.as_str(), refused.message.as_str()), ("internal", text));
    let refused = b.call("SendInput", by_pid(pid)).await.unwrap_err();
    assert_eq!(refused.code, "unimplemented");
}

#[tokio::test]
async fn a_writer_waits_for_the_process_and_no_one_else_does() {
    let daemon = Daemon::start();
    let (mut a, mut b, mut c) = (daemon.client().await, daemon.client().await, daemon.client().await);
    let mut events = a.stream("Start", &with_stdin("exec sleep 1000"), &[]).await;
    let pid = events.pid().await;
    let writer = tokio::spawn(async move { b.call("SendInput", stdin(pid, &[0; 300_000])).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!writer.is_finished(), "the pipe is full");
    assert_eq!(c.sh("echo free").await.text(), "free\n");
    c.call("CloseStdin", by_pid(pid)).await.unwrap();
    let refused = writer.await.unwrap().unwrap_err();
    assert_eq!(refused.message, "error writing to stdin: stdin not enabled or closed");
}
