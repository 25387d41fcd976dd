//! The transport of 2024-11-05: the stream, the messages, who is let in, and what the end of a stream means.

use std::time::Duration;

use sandhold_mcp::{HttpOptions, limits, serve_http};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::stub::{Shared, server};

struct Endpoint {
    world: Shared,
    port: u16,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

async fn open() -> Endpoint {
    let (world, server) = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = HttpOptions {
        listener,
        token: Some("secret".into()),
        allowed_hosts: vec![],
        allowed_origins: vec![],
    };
    let stop = CancellationToken::new();
    let shutdown = stop.clone();
    let serving = tokio::spawn(async move { serve_http(server, options, shutdown).await.unwrap() });
    Endpoint {
        world,
        port,
        stop,
        serving,
    }
}

const RIGHT: &str = "host: localhost\r\nauthorization: Bearer secret\r\n";

impl Endpoint {
    /// One exchange. Returns the status.
    async fn exchange(&self, head: &str, body: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head = format!("{head}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // A body that is too long is refused before its end.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
    }

    async fn post(&self, path: &str, message: &Value) -> u16 {
        let head = format!("POST {path} HTTP/1.1\r\n{RIGHT}content-type: application/json\r\n");
        self.exchange(&head, &message.to_string()).await
    }

    /// Opens a session and initializes it.
    async fn session(&self, path: &str) -> Session {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        writer
            .write_all(format!("GET {path} HTTP/1.1\r\n{RIGHT}\r\n").as_bytes())
            .await
            .unwrap();
        let mut session = Session {
            lines: BufReader::new(reader).lines(),
            _writer: writer,
            path: String::new(),
        };
        session.path = session.event("endpoint").await;
        assert!(session.path.starts_with("/messages?session_id="), "{}", session.path);
        let hello =
            json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let told = self.ask(&mut session, 0, "initialize", hello).await;
        assert_eq!(told["result"]["protocolVersion"], "2024-11-05");
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(self.post(&session.path, &ready).await, 202);
        session
    }

    async fn send(&self, session: &Session, id: u32, method: &str, params: Value) {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        assert_eq!(self.post(&session.path, &request).await, 202);
    }

    async fn ask(&self, session: &mut Session, id: u32, method: &str, params: Value) -> Value {
        self.send(session, id, method, params).await;
        loop {
            let message: Value = serde_json::from_str(&session.event("message").await).unwrap();
            if message["id"] == id {
                return message;
            }
        }
    }

    /// Starts a command that does not end by itself and waits until it runs.
    async fn hang(&self, session: &Session, job: &mut Session) -> String {
        self.send(
            session,
            7,
            "tools/call",
            json!({"name": "run_command", "arguments": {"cmd": "hang"}}),
        )
        .await;
        for _ in 0..100 {
            let listed = self
                .ask(job, 8, "tools/call", json!({"name": "list_jobs", "arguments": {}}))
                .await;
            if let Some(id) = listed["result"]["structuredContent"]["jobs"][0]["job_id"].as_str() {
                return id.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the command did not start");
    }

    async fn close(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

struct Session {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _writer: OwnedWriteHalf,
    path: String,
}

impl Session {
    /// The data of the next event, which must be of this kind.
    async fn event(&mut self, kind: &str) -> String {
        loop {
            let line = self.lines.next_line().await.unwrap().expect("the stream goes on");
            if line.starts_with("event:") {
                assert_eq!(line, format!("event: {kind}"));
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return data.to_owned();
            }
        }
    }
}

#[tokio::test]
async fn a_session_lists_and_calls() {
    let endpoint = open().await;
    let mut session = endpoint.session("/sse").await;
    let tools = endpoint.ask(&mut session, 1, "tools/list", json!({})).await;
    assert!(tools.to_string().contains("\"run_command\""));
    let call = json!({"name": "run_command", "arguments": {"cmd": "out hello"}});
    let told = endpoint.ask(&mut session, 2, "tools/call", call).await;
    assert_eq!(told["result"]["structuredContent"]["stdout"], "hello\n");

    let mut narrow = endpoint.session("/sse?toolsets=files").await;
    assert_ne!(narrow.path, session.path);
    let tools = endpoint.ask(&mut narrow, 1, "tools/list", json!({})).await.to_string();
    assert!(
        tools.contains("\"read_file\"") && !tools.contains("\"run_command\""),
        "{tools}"
    );
    endpoint.close().await;
}

#[tokio::test]
async fn what_is_not_right_is_refused() {
    let endpoint = open().await;
    let session = endpoint.session("/sse").await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    assert_eq!(endpoint.post(&session.path, &list).await, 202, "the control");
    for path in [
        "/messages",
        "/messages?session_id=",
        "/messages?session_id=00000000000000000000000000000000",
    ] {
        assert_eq!(endpoint.post(path, &list).await, 404, "{path}");
    }
    assert_eq!(endpoint.post(&session.path, &json!({"no": "message"})).await, 400);
    assert_eq!(endpoint.post(&session.path, &json!([list])).await, 400);
    let (post, text) = (format!("POST {} HTTP/1.1\r\n", session.path), list.to_string());
    let json = "content-type: application/json\r\n";
    let mut got = Vec::new();
    for headers in [
        "host: localhost\r\n",
        "host: localhost\r\nauthorization: Bearer wrong\r\n",
        "host: evil.example\r\nauthorization: Bearer secret\r\n",
        "host: localhost\r\nauthorization: Bearer secret\r\norigin: https://evil.example\r\n",
    ] {
        got.push(endpoint.exchange(&format!("{post}{headers}{json}"), &text).await);
        got.push(endpoint.exchange(&format!("GET /sse HTTP/1.1\r\n{headers}"), "").await);
    }
    assert_eq!(got, [401, 401, 401, 401, 403, 403, 403, 403]);
    assert_eq!(
        endpoint
            .exchange(&format!("{post}{RIGHT}content-type: text/plain\r\n"), &text)
            .await,
        415
    );
    let long = json!({"jsonrpc": "2.0", "id": 1, "method": "x".repeat(limits::HTTP_BODY)});
    assert_eq!(endpoint.post(&session.path, &long).await, 413);
    assert_eq!(
        endpoint.exchange(&format!("POST /sse HTTP/1.1\r\n{RIGHT}"), "").await,
        405
    );
    endpoint.close().await;
}

#[tokio::test]
async fn the_end_of_the_stream_ends_the_session_and_kills_nothing() {
    let endpoint = open().await;
    let mut watching = endpoint.session("/sse").await;
    let session = endpoint.session("/sse").await;
    let job = endpoint.hang(&session, &mut watching).await;
    let path = session.path.clone();
    drop(session);
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let gone = async {
        while endpoint.post(&path, &list).await != 404 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        endpoint.world.lock().unwrap().signals.is_empty(),
        "a connection that breaks is no wish"
    );
    let status = json!({"name": "get_job_status", "arguments": {"job_id": job}});
    let told = endpoint.ask(&mut watching, 9, "tools/call", status).await;
    assert_eq!(told["result"]["structuredContent"]["status"], "running", "{told}");
    endpoint.close().await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_killed() {
    let endpoint = open().await;
    let mut watching = endpoint.session("/sse").await;
    let session = endpoint.session("/sse").await;
    endpoint.hang(&session, &mut watching).await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    assert_eq!(endpoint.post(&session.path, &cancel).await, 202);
    let killed = async {
        while !endpoint
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
    tokio::time::timeout(Duration::from_secs(5), killed).await.unwrap();
    endpoint.close().await;
}
