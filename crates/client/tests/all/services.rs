//! Servers in a sandbox, by the daemon and by programs.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sandhold_client::{Client, CreateOptions, Error, FailureKind, HttpRequest, ReadyQuery, Services};
use serde_json::json;

use crate::{
    host::{PROGRAMS, host},
    stub::{ID, Stub, reply, sandbox, sandbox_json},
};

fn ready(port: u16) -> ReadyQuery {
    ReadyQuery {
        port,
        path: "/x".into(),
        timeout: Duration::from_secs(20),
        patience: Duration::from_secs(10),
    }
}

fn request(method: &str, url: String) -> HttpRequest {
    HttpRequest {
        method: method.into(),
        url,
        headers: vec![("X-A".into(), "b".into())],
        body: STANDARD.encode("hello"),
        timeout: Duration::from_secs(20),
        max_body: 40,
    }
}

#[tokio::test]
async fn by_the_server() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.split('?').next().unwrap() {
        "GET /sandhold/ports" => reply(
            200,
            r#"{"listening":[{"port":80,"addresses":["::"],"pid":7,"command":"x"}],"busiest":[]}"#,
        ),
        "POST /sandhold/ready" => reply(200, r#"{"ready":true,"accepts":true,"http_status":204,"waited_ms":3}"#),
        _ => reply(200, r#"{"failure":{"kind":"refused","message":"nobody"}}"#),
    });
    let services = sandbox(&stub.in_process()).await.services();
    let ports = services.ports(Some(80), 3).await.unwrap();
    assert_eq!((ports.listening[0].pid, ports.listening[0].session), (Some(7), None));
    assert_eq!(stub.last().line, "GET /sandhold/ports?busiest=3&port=80");
    let seen = services.ready(&ready(80)).await.unwrap();
    assert_eq!((seen.ready, seen.http_status), (true, Some(204)));
    let asked = json!({"port": 80, "path": "/x", "timeout_ms": 20_000, "answer_ms": 10_000});
    assert_eq!(stub.last().json(), asked);
    let failure = services
        .http(&request("PUT", "http://a/".into()))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    let asked = json!({"method": "PUT", "url": "http://a/", "headers": [["X-A", "b"]], "body": "aGVsbG8=",
        "timeout_ms": 20_000, "max_body": 40});
    assert_eq!(stub.last().json(), asked);
    assert_eq!(stub.last().header("x-access-token"), Some(crate::stub::TOKEN));
}

#[tokio::test]
async fn what_the_server_refuses_is_not_tried_otherwise() {
    let stub = Stub::with_sandbox(|_, _| reply(400, r#"{"code":400,"message":"the path must begin with a slash"}"#));
    let services = sandbox(&stub.in_process()).await.services();
    let error = services.ready(&ready(80)).await.unwrap_err();
    assert!(
        matches!(&error, Error::InvalidArgument(text) if text.contains("slash")),
        "{error:?}"
    );
    assert_eq!(stub.lines().len(), 2);
}

/// Answers each request with what it was, in 44 bytes and more. Returns the port.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut seen = [0; 4096];
            let mut length = 0;
            loop {
                let read = stream.read(&mut seen[length..]).unwrap_or(0);
                length += read;
                let text = String::from_utf8_lossy(&seen[..length]).to_lowercase();
                let whole =
                    text.contains("\r\n\r\n") && (text.ends_with("hello") || !text.contains("content-length: 5"));
                // TLS begins with 22.
                if whole || read == 0 || seen[0] == 22 {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&seen[..length]).into_owned();
            let first = text.lines().next().unwrap_or_default();
            let body = format!("{first:<40}{}", if text.ends_with("hello") { "with body" } else { "" });
            let head = format!(
                "HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // One that asked for less has gone.
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    port
}

async fn is_asked(services: &Services, port: u16) {
    let answer = services
        .http(&request("PUT", format!("http://127.0.0.1:{port}/p?q")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((answer.status, answer.truncated), (302, true), "{answer:?}");
    assert!(answer.headers.contains(&("location".into(), "/y".into())), "{answer:?}");
    let body = String::from_utf8(STANDARD.decode(answer.body).unwrap()).unwrap();
    assert_eq!(body, format!("{:<40}", "PUT /p?q HTTP/1.1"));
    assert!(answer.total_ms >= answer.connect_ms);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = services
        .http(&request("GET", format!("http://127.0.0.1:{free}/")))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.kind, FailureKind::Refused, "{refused:?}");
    let tls = services
        .http(&request("GET", format!("https://127.0.0.1:{port}/")))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(tls.kind, FailureKind::Connection, "{tls:?}");
}

#[tokio::test]
async fn by_programs() {
    let home = tempfile::tempdir().unwrap();
    let services = host(home.path()).await.services();
    let port = serve();
    let ports = services.ports(Some(port), 3).await.unwrap();
    assert_eq!(ports.listening.len(), 1, "{ports:?}");
    assert_eq!(ports.listening[0].addresses, ["127.0.0.1"]);
    assert_eq!(ports.listening[0].pid, Some(std::process::id()));
    let seen = services.ready(&ready(port)).await.unwrap();
    assert_eq!((seen.ready, seen.accepts, seen.http_status), (true, true, Some(302)));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let query = ReadyQuery {
        timeout: Duration::ZERO,
        ..ready(free)
    };
    let seen = services.ready(&query).await.unwrap();
    assert_eq!((seen.ready, seen.accepts), (false, false));
    is_asked(&services, port).await;
}

fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

#[tokio::test]
async fn by_curl_where_there_is_no_python() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(PROGRAMS);
    std::fs::create_dir(&folder).unwrap();
    let link = |name: &str| {
        let path = program(name)?;
        std::os::unix::fs::symlink(path, folder.join(name)).ok()
    };
    link("head").unwrap();
    let services = host(home.path()).await.services();
    let port = serve();
    let probe = request("GET", format!("http://127.0.0.1:{port}/"));
    let unable = services.http(&probe).await.unwrap().unwrap_err();
    assert_eq!(unable.kind, FailureKind::Unable);
    assert!(
        unable.message.contains("neither python3 nor curl"),
        "{}",
        unable.message
    );
    if link("curl").is_none() {
        println!("this machine has no curl to make the request with");
        return;
    }
    is_asked(&services, port).await;
}

#[tokio::test]
async fn urls_begin_as_they_are_served() {
    let mut answer = sandbox_json(ID);
    answer["domain"] = json!("sandhold.localhost:1234");
    let service = tower::service_fn(move |_| {
        let answer = reply(201, answer.to_string());
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    for (client, scheme) in [
        (Client::in_process(service.clone()), "http"),
        (Client::in_process_behind_tls(service), "https"),
    ] {
        let made = client.create(CreateOptions::default()).await.unwrap();
        assert_eq!(
            made.url(80).unwrap(),
            format!("{scheme}://80-{ID}.sandhold.localhost:1234")
        );
        let file = made.files().download_url("a", None, None).unwrap();
        let wanted = format!("{scheme}://49983-{ID}.sandhold.localhost:1234/files?path=a&");
        assert!(file.starts_with(&wanted), "{file}");
    }
}
