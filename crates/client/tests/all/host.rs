//! A daemon that knows processes alone and runs them on this machine, in a folder of the test: what the client does by way of
//! commands where a server cannot is tried with the real programs.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::BodyExt;
use sandhold_client::{Client, HttpConfig, Sandbox};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, Command},
};

use crate::stub::{ID, frame, reply, sandbox, sandbox_json, with};

/// Standard inputs that are open, by process.
type Inputs = Arc<Mutex<HashMap<u64, ChildStdin>>>;

/// A folder of the home: where there is one, its programs are all that there are.
pub(crate) const PROGRAMS: &str = "programs";

/// A sandbox whose home is `home`.
pub(crate) async fn host(home: &Path) -> Sandbox {
    let home = home.to_owned();
    let inputs = Inputs::default();
    let router = Router::new().fallback(move |request: Request| answer(request, home.clone(), inputs.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = HttpConfig {
        api_url: Some(url.clone()),
        sandbox_url: Some(url),
        ..HttpConfig::new("k")
    };
    sandbox(&Client::http(config).unwrap()).await
}

async fn answer(request: Request, home: PathBuf, inputs: Inputs) -> Response {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    match path.as_str() {
        "/v2/sandboxes" => reply(201, sandbox_json(ID).to_string()),
        "/process.Process/Start" => start(&body[5..], &home, inputs),
        "/process.Process/SendInput" => {
            let message: Value = serde_json::from_slice(&body).unwrap();
            let data = STANDARD.decode(message["input"]["stdin"].as_str().unwrap()).unwrap();
            let pid = message["process"]["pid"].as_u64().unwrap();
            let input = inputs.lock().unwrap().remove(&pid);
            let Some(mut input) = input else {
                return reply(500, r#"{"code":"internal","message":"closed"}"#);
            };
            if input.write_all(&data).await.is_err() {
                return reply(500, r#"{"code":"internal","message":"error writing to stdin"}"#);
            }
            inputs.lock().unwrap().insert(pid, input);
            reply(200, "{}")
        }
        "/process.Process/SendSignal" => reply(200, "{}"),
        _ => reply(404, "404 page not found\n"),
    }
}

fn start(message: &[u8], home: &Path, inputs: Inputs) -> Response {
    let message: Value = serde_json::from_slice(message).unwrap();
    let process = &message["process"];
    assert_eq!(process["cwd"], "~");
    let args = process["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap());
    let mut command = Command::new(process["cmd"].as_str().unwrap());
    command
        .args(args)
        .current_dir(home)
        .env("PWD", home)
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    if home.join(PROGRAMS).is_dir() {
        command.env("PATH", home.join(PROGRAMS));
    }
    command.stdin(if message["stdin"] == true {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = u64::from(child.id().unwrap());
    if let Some(input) = child.stdin.take() {
        inputs.lock().unwrap().insert(pid, input);
    }
    let event =
        |event: Value| Ok::<_, std::io::Error>(Bytes::from(frame(0, json!({"event": event}).to_string().as_bytes())));
    let (send, receive) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut out = child.stdout.take().unwrap();
        let mut err = child.stderr.take().unwrap();
        let _ = send.send(event(json!({"start": {"pid": pid}}))).await;
        let mut buffer = vec![0; 1000];
        while let Ok(n @ 1..) = out.read(&mut buffer).await {
            if send
                .send(event(json!({"data": {"stdout": STANDARD.encode(&buffer[..n])}})))
                .await
                .is_err()
            {
                let _ = child.start_kill();
            }
        }
        let mut text = Vec::new();
        err.read_to_end(&mut text).await.unwrap();
        let _ = send
            .send(event(json!({"data": {"stderr": STANDARD.encode(text)}})))
            .await;
        let code = child.wait().await.unwrap().code();
        let end = json!({"exitCode": code.unwrap_or(-1), "exited": code.is_some(), "status": "x"});
        let _ = send.send(event(json!({"end": end}))).await;
        let _ = send.send(Ok(frame(2, b"{}").into())).await;
    });
    let body = futures::stream::unfold(receive, |mut receive| async {
        receive.recv().await.map(|piece| (piece, receive))
    });
    with(
        reply(200, Body::from_stream(body)),
        "content-type",
        "application/connect+json",
    )
}

#[tokio::test]
async fn appends() {
    let home = tempfile::tempdir().unwrap();
    let files = host(home.path()).await.files();
    let read = |name: &str| std::fs::read(home.path().join(name)).unwrap();
    files.append("new", Bytes::from_static(b"one\n"), None).await.unwrap();
    files.append("~/new", Bytes::from_static(b"two\n"), None).await.unwrap();
    assert_eq!(read("new"), b"one\ntwo\n");
    files
        .append("-a/$(touch x)/`b` \"c\"\n", Bytes::from_static(b"odd"), None)
        .await
        .unwrap();
    assert_eq!(read("-a/$(touch x)/`b` \"c\"\n"), b"odd");
    assert!(!home.path().join("x").exists());
    files.append("empty", Bytes::new(), None).await.unwrap();
    assert_eq!(read("empty"), b"");
    let large: Vec<u8> = (0..1_500_000u32).map(|i| (i / 7) as u8).collect();
    let absolute = home.path().join("large");
    files
        .append(absolute.to_str().unwrap(), large.clone().into(), None)
        .await
        .unwrap();
    assert!(read("large") == large);
}

#[tokio::test]
async fn appends_not_to_a_folder() {
    let home = tempfile::tempdir().unwrap();
    let files = host(home.path()).await.files();
    std::fs::create_dir(home.path().join("d")).unwrap();
    let error = files.append("d", vec![b'x'; 200_000].into(), None).await.unwrap_err();
    assert!(
        matches!(&error, sandhold_client::Error::InvalidArgument(text) if text.contains("append to d")),
        "{error:?}"
    );
}
