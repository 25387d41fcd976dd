//! The server over HTTP: who is let in, and what an endpoint offers.

use sandhold_mcp::{HttpOptions, limits, serve_http};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::stub::server;

struct Endpoint {
    port: u16,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

async fn open(token: Option<&str>) -> Endpoint {
    let (_world, server) = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = HttpOptions {
        listener,
        token: token.map(str::to_owned),
        allowed_hosts: vec![],
        allowed_origins: vec!["https://app.example.com:443".into()],
    };
    let stop = CancellationToken::new();
    let shutdown = stop.clone();
    let serving = tokio::spawn(async move { serve_http(server, options, shutdown).await.unwrap() });
    Endpoint { port, stop, serving }
}

impl Endpoint {
    /// A request of the stateless revision. Returns the status and the whole answer.
    async fn post(&self, path: &str, headers: &[(&str, &str)], method: &str, mut params: Value) -> (u16, String) {
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}, "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut head = format!("POST {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += "host: localhost\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(name) = params["name"].as_str() {
            head += &format!("mcp-name: {name}\r\n");
        }
        head += &format!(
            "mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// Opens a legacy session, or tries to. Returns the status.
    async fn initialize(&self, version: &str, headers: &[u8]) -> u16 {
        let hello =
            json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).to_string();
        let mut head = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n".to_vec();
        head.extend_from_slice(headers);
        let rest = format!(
            "content-type: application/json\r\naccept: application/json, text/event-stream\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        head.extend_from_slice(rest.as_bytes());
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(&head).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
    }

    async fn close(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

#[tokio::test]
async fn the_token_is_asked_for() {
    let endpoint = open(Some("secret")).await;
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Basic secret")],
    ] {
        let (status, answer) = endpoint.post("/mcp", headers, "tools/list", json!({})).await;
        assert_eq!(status, 401, "{answer}");
        assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
    }
    let right = [("authorization", "Bearer secret")];
    let (status, answer) = endpoint.post("/mcp", &right, "tools/list", json!({})).await;
    assert!(status == 200 && answer.contains("run_command"), "{answer}");
    let call = json!({"name": "run_command", "arguments": {"cmd": "out hello"}});
    let (status, answer) = endpoint.post("/mcp", &right, "tools/call", call).await;
    assert!(status == 200 && answer.contains("hello"), "{answer}");
    endpoint.close().await;
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let endpoint = open(None).await;
    let allowed = [("origin", "https://app.example.com")];
    assert_eq!(endpoint.post("/mcp", &allowed, "tools/list", json!({})).await.0, 200);
    assert_eq!(
        endpoint
            .post("/mcp", &[("origin", "http://localhost:3000")], "tools/list", json!({}))
            .await
            .0,
        200
    );
    for headers in [[("origin", "https://evil.example")], [("host", "evil.example")]] {
        let (status, answer) = endpoint.post("/mcp", &headers, "tools/list", json!({})).await;
        assert_eq!(status, 403, "{answer}");
    }
    endpoint.close().await;
}

#[tokio::test]
async fn an_endpoint_can_offer_less() {
    let endpoint = open(None).await;
    let (_, answer) = endpoint.post("/mcp?toolsets=files", &[], "tools/list", json!({})).await;
    assert!(
        answer.contains("\"read_file\"") && !answer.contains("\"run_command\""),
        "{answer}"
    );
    let call = json!({"name": "run_command", "arguments": {"cmd": "out hello"}});
    let (_, answer) = endpoint.post("/mcp?toolsets=files", &[], "tools/call", call).await;
    assert!(answer.contains("Unknown tool: run_command"), "{answer}");
    let (_, answer) = endpoint.post("/mcp?toolsets=disk", &[], "tools/list", json!({})).await;
    assert!(answer.contains("there is no toolset"), "{answer}");
    endpoint.close().await;
}

#[tokio::test]
async fn no_header_opens_more_sessions_than_there_may_be() {
    let endpoint = open(None).await;
    let ways: [(&str, &[u8]); 5] = [
        ("2025-06-18", b""),
        ("2025-06-18", b"mcp-protocol-version: 2025-06-18\r\n"),
        ("2026-07-28", b"mcp-protocol-version: 2026-07-28\r\n"),
        (
            "2026-07-28",
            b"mcp-protocol-version: 2026-07-28\r\nmcp-method: initialize\r\n",
        ),
        // No text, so it names no session.
        ("2025-06-18", b"mcp-session-id: \xff\r\n"),
    ];
    for n in 0..limits::HTTP_SESSIONS {
        let (version, headers) = ways[n % ways.len()];
        assert_eq!(endpoint.initialize(version, headers).await, 200, "{n}");
    }
    for (version, headers) in ways {
        let status = endpoint.initialize(version, headers).await;
        assert_eq!(status, 503, "{}", String::from_utf8_lossy(headers));
    }
    // What needs no session goes on.
    let (status, answer) = endpoint.post("/mcp", &[], "tools/list", json!({})).await;
    assert_eq!(status, 200, "{answer}");
    endpoint.close().await;
}

#[tokio::test]
async fn health_needs_no_token() {
    let endpoint = open(Some("secret")).await;
    let mut stream = TcpStream::connect(("127.0.0.1", endpoint.port)).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    endpoint.close().await;
}
