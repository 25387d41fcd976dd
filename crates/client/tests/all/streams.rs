//! Streams that are cut, broken, refused or slow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::Response};
use buffa::Message;
use bytes::Bytes;
use futures::StreamExt;
use sandhold_client::{CommandEvent, CommandRequest, CommandSelector, Error, Process};
use sandhold_wire::proto::process as proto;
use serde_json::{Value, json};

use crate::processes::started;
use crate::stub::{ID, Stub, frame, reply, sandbox, with};

fn event(event: Value) -> Vec<u8> {
    frame(0, json!({"event": event}).to_string().as_bytes())
}

fn streamed(pieces: Vec<std::io::Result<Bytes>>) -> Response {
    let body = Body::from_stream(futures::stream::iter(pieces));
    with(
        reply(200, body),
        "content-type",
        "application/connect+json; charset=utf-8",
    )
}

/// A sandbox whose processes print these pieces; `health` is 502 when it is gone.
async fn start(
    pieces: impl Fn() -> Vec<std::io::Result<Bytes>> + Send + Sync + 'static,
    health: u16,
) -> Result<Process, Error> {
    let stub = Stub::with_sandbox(move |seen, _| match seen.line.as_str() {
        "GET /health" if health == 502 => reply(502, r#"{"message":"The sandbox was not found","code":502}"#),
        "GET /health" => reply(204, ""),
        _ => streamed(pieces()),
    });
    sandbox(&stub.http().await)
        .await
        .commands()
        .start(CommandRequest::shell("x"))
        .await
}

#[tokio::test]
async fn frames_cut_anywhere() {
    let mut wire = event(json!({"start": {"pid": 5}}));
    wire.extend(event(json!({"data": {"stdout": "YWJj"}})));
    wire.extend(event(json!({"end": {"exited": true, "status": "exit status 0"}})));
    wire.extend(frame(2, b"{}"));
    for size in [1, 2, 3, 5, 7, 64] {
        let pieces: Vec<Bytes> = wire.chunks(size).map(Bytes::copy_from_slice).collect();
        let mut process = start(move || pieces.iter().cloned().map(Ok).collect(), 204)
            .await
            .unwrap();
        assert_eq!(process.pid(), 5);
        assert_eq!(
            process.next().await.unwrap().unwrap(),
            CommandEvent::Stdout("abc".into()),
            "pieces of {size}"
        );
        match process.next().await.unwrap().unwrap() {
            CommandEvent::Exited(exit) => assert_eq!((exit.exit_code, exit.exited), (0, true)),
            other => panic!("{other:?}"),
        }
        assert!(process.next().await.is_none());
    }
}

async fn after_start(rest: Vec<u8>, health: u16) -> Error {
    let mut wire = event(json!({"start": {"pid": 5}}));
    wire.extend(rest);
    let mut process = start(move || vec![Ok(wire.clone().into())], health).await.unwrap();
    let error = process.next().await.unwrap().unwrap_err();
    assert!(process.next().await.is_none(), "an error is the end");
    error
}

#[tokio::test]
async fn the_last_message_can_be_an_error() {
    let end = |code: &str, message: &str| {
        frame(
            2,
            json!({"error": {"code": code, "message": message}})
                .to_string()
                .as_bytes(),
        )
    };
    let error = after_start(end("deadline_exceeded", "too long"), 204).await;
    assert!(
        matches!(&error, Error::Timeout(text) if text == "too long"),
        "{error:?}"
    );
    let gone = format!("The sandbox was not found: sandbox {ID} ended while the stream was open");
    let error = after_start(end("unavailable", &gone), 204).await;
    assert!(
        matches!(&error, Error::SandboxNotFound { id, .. } if id == ID),
        "{error:?}"
    );
    // E2B's newer proxy names the sandbox and says no more; whether it is gone is asked.
    let unclear = format!("the connection to sandbox {ID} ended before the stream completed");
    assert!(matches!(
        after_start(end("unavailable", &unclear), 502).await,
        Error::SandboxNotFound { .. }
    ));
    assert!(matches!(
        after_start(end("unavailable", &unclear), 204).await,
        Error::Server { status: 502, .. }
    ));
}

#[tokio::test]
async fn a_stream_that_just_ends() {
    let error = after_start(Vec::new(), 204).await;
    assert!(
        matches!(&error, Error::Transport { what, .. } if what.contains("process 5")),
        "{error:?}"
    );
    assert!(matches!(
        after_start(Vec::new(), 502).await,
        Error::SandboxNotFound { .. }
    ));
    // The regular end without the end of the process is no end either.
    assert!(matches!(
        after_start(frame(2, b"{}"), 204).await,
        Error::Transport { .. }
    ));
    // Half a message.
    assert!(matches!(
        after_start(vec![0, 0, 0, 0, 9, b'{'], 204).await,
        Error::Transport { .. }
    ));
}

#[tokio::test]
async fn what_is_not_this_protocol() {
    assert!(matches!(after_start(frame(1, b"zip"), 204).await, Error::Protocol(_)));
    assert!(matches!(after_start(frame(0, b"{"), 204).await, Error::Protocol(_)));
    assert!(matches!(
        after_start(vec![0, 0xff, 0xff, 0xff, 0xff], 204).await,
        Error::Protocol(_)
    ));
    assert!(matches!(after_start(frame(2, b"["), 204).await, Error::Protocol(_)));
    let stub = Stub::with_sandbox(|_, _| with(reply(200, "<html>"), "content-type", "text/html"));
    let sandbox = sandbox(&stub.in_process()).await;
    assert!(matches!(
        sandbox.commands().start(CommandRequest::shell("x")).await,
        Err(Error::Protocol(_))
    ));
}

#[tokio::test]
async fn the_start_comes_first() {
    let late = event(json!({"data": {"stdout": "YQ=="}}));
    assert!(matches!(
        start(move || vec![Ok(late.clone().into())], 204).await,
        Err(Error::Protocol(_))
    ));
    let refused = frame(
        2,
        br#"{"error":{"code":"invalid_argument","message":"cwd '/x' does not exist"}}"#,
    );
    let error = start(move || vec![Ok(refused.clone().into())], 204).await.unwrap_err();
    assert!(
        matches!(&error, Error::InvalidArgument(text) if text == "cwd '/x' does not exist"),
        "{error:?}"
    );
}

#[tokio::test]
async fn attaches() {
    let stub = Stub::with_sandbox(|_, _| {
        let mut wire = event(json!({"start": {"pid": 6}}));
        wire.extend(event(
            json!({"end": {"exitCode": 1, "exited": true, "status": "exit status 1"}}),
        ));
        streamed(vec![Ok(wire.into())])
    });
    let commands = sandbox(&stub.http().await).await.commands();
    let mut process = commands.connect(CommandSelector::Tag("t".into())).await.unwrap();
    assert_eq!(process.pid(), 6);
    assert!(matches!(process.next().await.unwrap().unwrap(), CommandEvent::Exited(exit) if exit.exit_code == 1));
    let seen = stub.last();
    assert_eq!(seen.line, "POST /process.Process/Connect");
    let message: Value = serde_json::from_slice(&seen.message()).unwrap();
    assert_eq!(message, json!({"process": {"tag": "t"}}));
    assert_eq!(seen.header("connect-timeout-ms"), None);
}

fn binary(event: proto::ProcessEvent) -> Bytes {
    frame(
        0,
        &proto::StartResponse {
            event: Some(event).into(),
            ..Default::default()
        }
        .encode_to_vec(),
    )
    .into()
}

/// Pieces are made only as they are asked for: a reader that waits holds the writer up.
#[tokio::test]
async fn a_slow_reader_slows_the_server() {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = made.clone();
    let stub = Stub::with_sandbox(move |_, _| {
        let counter = counter.clone();
        let start = futures::stream::iter([Ok::<_, std::io::Error>(binary(started(5)))]);
        let data = futures::stream::repeat_with(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let output = proto::process_event::data_event::Output::Stdout(b"a".to_vec());
            let data = proto::process_event::DataEvent {
                output: Some(output),
                ..Default::default()
            };
            Ok(binary(proto::ProcessEvent {
                event: data.into(),
                ..Default::default()
            }))
        });
        with(
            reply(200, Body::from_stream(start.chain(data))),
            "content-type",
            "application/connect+proto",
        )
    });
    let mut process = sandbox(&stub.in_process())
        .await
        .commands()
        .start(CommandRequest::shell("yes"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(made.load(Ordering::SeqCst), 0, "nobody has asked for output");
    for _ in 0..3 {
        assert_eq!(process.next().await.unwrap().unwrap(), CommandEvent::Stdout("a".into()));
    }
    assert_eq!(made.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_broken_stream() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "GET /health" => reply(204, ""),
        _ => {
            let start = futures::stream::iter([Ok::<_, std::io::Error>(binary(started(5)))]);
            let body = Body::from_stream(start.chain(futures::stream::pending()));
            with(reply(200, body), "content-type", "application/connect+proto")
        }
    });
    let mut process = sandbox(&stub.in_process())
        .await
        .commands()
        .start(CommandRequest::shell("x"))
        .await
        .unwrap();
    // A reader that is away does not make the server silent.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(
        tokio::time::timeout(Duration::from_secs(150), process.next())
            .await
            .is_err()
    );
    // Waiting in turns does not prolong the silence.
    let begun = tokio::time::Instant::now();
    let error = loop {
        if let Ok(told) = tokio::time::timeout(Duration::from_secs(30), process.next()).await {
            break told.unwrap().unwrap_err();
        }
    };
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn futures_can_move_between_threads() {
    let stub = Stub::with_sandbox(|_, _| reply(404, r#"{"code":"not_found","message":"no"}"#));
    let sandbox = sandbox(&stub.in_process()).await;
    let (one, two) = (sandbox.clone(), sandbox.clone());
    let begun = tokio::spawn(async move { one.commands().start(CommandRequest::shell("x")).await.map(drop) });
    let appended = tokio::spawn(async move { two.files().append("x", "y".into(), None).await });
    let task = tokio::spawn(async move { sandbox.files().list("/", 1, None).await });
    assert!(matches!(begun.await.unwrap(), Err(Error::NotFound(_))));
    assert!(matches!(appended.await.unwrap(), Err(Error::NotFound(_))));
    assert!(matches!(task.await.unwrap(), Err(Error::NotFound(_))));
}
