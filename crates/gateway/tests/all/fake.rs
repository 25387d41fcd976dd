//! A runtime without sandboxes: each "daemon" is an axum service over pipes in this process.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::Request,
    http::StatusCode,
    routing::{get, post},
};
use futures::StreamExt;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use sandhold_gateway::{CapRules, Gateway, GatewayConfig};
use sandhold_runtime::{
    Isolation, Resources, Root, Runtime, RuntimeError, RuntimeInfo, Sandbox, SandboxSpec, Stream, Usage,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::watch,
    task::AbortHandle,
};

use crate::hostile::Hostile;

pub(crate) struct FakeRuntime {
    pub(crate) version: String,
    pub(crate) killed: Arc<AtomicUsize>,
    pub(crate) can_freeze: bool,
    /// How often daemons were asked what they use.
    pub(crate) asked: Arc<AtomicUsize>,
}

/// What the fake daemon holds instead of files.
type Files = Arc<Mutex<Vec<u8>>>;

impl Default for FakeRuntime {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            killed: Arc::default(),
            can_freeze: true,
            asked: Arc::default(),
        }
    }
}

pub(crate) fn gateway(runtime: FakeRuntime) -> (tempfile::TempDir, Gateway) {
    let home = tempfile::tempdir().unwrap();
    let gateway = gateway_at(&home.path().join("a/b"), runtime, false);
    (home, gateway)
}

pub(crate) fn gateway_at(home: &Path, runtime: FakeRuntime, keep_paused: bool) -> Gateway {
    let config = GatewayConfig {
        egress: sandhold_egress::Egress::new(sandhold_egress::EgressConfig::default()).unwrap(),
        home: home.to_owned(),
        domain: Some("sandhold.localhost:3000".into()),
        max_timeout_s: 3600,
        caps: CapRules::default(),
        keep_paused,
    };
    Gateway::new(Arc::new(runtime), config).unwrap()
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo {
            isolation: Isolation {
                level: "fake".into(),
                ..Isolation::default()
            },
            defaults: Resources {
                cpus: Some(1.0),
                memory_bytes: Some(1 << 30),
                ..Resources::default()
            },
            least: Resources::default(),
            most: Resources::default(),
            no_layers: Some("a fake".into()),
            ca_bundle: None,
            reach: sandhold_runtime::Reach::Nothing,
            can_freeze: self.can_freeze,
            can_switch_user: true,
        }
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, RuntimeError> {
        let boot: serde_json::Value = serde_json::from_slice(&spec.boot).unwrap();
        let hostile = boot["envs"]["HOSTILE"].as_str().and_then(Hostile::named);
        let said = boot["envs"]["BOOT"].as_str().map(|said| said.as_bytes().to_vec());
        Ok(Arc::new(FakeSandbox {
            hostile,
            answer: said.unwrap_or_else(|| {
                serde_json::json!({"version": self.version, "warnings": ["missing programs: curl"]})
                    .to_string()
                    .into_bytes()
            }),
            ended: watch::Sender::new(false),
            tasks: Mutex::default(),
            killed: self.killed.clone(),
            can_freeze: self.can_freeze,
            asked: self.asked.clone(),
            files: Arc::default(),
        }))
    }
}

struct FakeSandbox {
    /// How its daemon treats whoever connects.
    hostile: Option<Hostile>,
    answer: Vec<u8>,
    ended: watch::Sender<bool>,
    tasks: Mutex<Vec<AbortHandle>>,
    killed: Arc<AtomicUsize>,
    can_freeze: bool,
    asked: Arc<AtomicUsize>,
    files: Files,
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn boot_answer(&self) -> &[u8] {
        &self.answer
    }

    fn root(&self) -> Root {
        Root::default()
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, RuntimeError> {
        if *self.ended.borrow() {
            return Err(RuntimeError::Ended("killed".into()));
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        if let Some(hostile) = self.hostile {
            let task = tokio::spawn(hostile.serve(theirs));
            self.tasks.lock().unwrap().push(task.abort_handle());
            return Ok(Box::new(ours));
        }
        self.tasks
            .lock()
            .unwrap()
            .push(tokio::spawn(daemon(theirs, self.files.clone(), self.asked.clone())).abort_handle());
        Ok(Box::new(ours))
    }

    async fn freeze(&self) -> Result<(), RuntimeError> {
        if *self.ended.borrow() {
            return Err(RuntimeError::Ended("killed".into()));
        }
        if self.can_freeze {
            Ok(())
        } else {
            Err(RuntimeError::Unsupported("the fake cannot freeze".into()))
        }
    }

    async fn thaw(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn usage(&self) -> Result<Usage, RuntimeError> {
        Ok(Usage {
            memory_bytes: 3 << 20,
            cache_bytes: 1 << 20,
            ..Usage::default()
        })
    }

    async fn kill(&self) {
        if !self.ended.send_replace(true) {
            self.killed.fetch_add(1, Ordering::SeqCst);
        }
        self.tasks.lock().unwrap().drain(..).for_each(|t| t.abort());
        // As with real ones, an end takes a while.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    async fn ended(&self) -> String {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
        "killed".into()
    }
}

/// Serves one connection: `CONNECT` joins it with a port, of which 8080 alone is open, everything else is the daemon.
async fn daemon(mut stream: DuplexStream, files: Files, asked: Arc<AtomicUsize>) {
    let mut start = [0; 8];
    stream.read_exact(&mut start).await.unwrap();
    if &start != b"CONNECT " {
        return serve(stream, start, "daemon", files, asked).await;
    }
    let mut head = start.to_vec();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    if String::from_utf8_lossy(&head).contains(":8080 ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        stream.read_exact(&mut start).await.unwrap();
        serve(stream, start, "8080", files, asked).await;
    } else {
        stream
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
    }
}

/// Serves HTTP on a stream whose first bytes were read already.
async fn serve(stream: DuplexStream, first: [u8; 8], port: &'static str, files: Files, asked: Arc<AtomicUsize>) {
    let (saved, restored) = (files.clone(), files.clone());
    let archive = get(async move || saved.lock().unwrap().clone()).put(async move |body: Bytes| {
        if body.starts_with(b"broken") {
            return StatusCode::BAD_REQUEST;
        }
        *restored.lock().unwrap() = body.to_vec();
        StatusCode::NO_CONTENT
    });
    let written = post(async move |body: Bytes| *files.lock().unwrap() = body.to_vec());
    let metrics = get(async move || {
        asked.fetch_add(1, Ordering::SeqCst);
        Json(
            serde_json::json!({"ts": 1, "cpu_count": 1.0, "cpu_used_pct": 1.0, "mem_total": 1, "mem_used": 1,
            "mem_cache": 1, "disk_used": 4096, "disk_total": 8192}),
        )
    });
    let app = Router::new()
        .route("/health", get(|| async { StatusCode::NO_CONTENT }))
        .route("/echo", get(move |r| echo(port, r)).post(move |r| echo(port, r)))
        .route("/stream", get(stream_frames))
        .route("/metrics", metrics)
        .route("/write", written)
        .route("/sandhold/archive", archive);
    let (read, write) = tokio::io::split(stream);
    let io = tokio::io::join(std::io::Cursor::new(first).chain(read), write);
    let service = TowerToHyperService::new(app);
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .await;
}

async fn echo(port: &'static str, request: Request) -> Json<serde_json::Value> {
    let path = request.uri().to_string();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    Json(serde_json::json!({"port": port, "path": path, "body": String::from_utf8_lossy(&body)}))
}

/// One Connect frame, and then nothing until the connection is cut.
async fn stream_frames() -> ([(&'static str, &'static str); 1], Body) {
    let first = futures::stream::iter([Ok::<_, std::io::Error>(b"\0\0\0\0\x02{}".to_vec())]);
    (
        [("content-type", "application/connect+json")],
        Body::from_stream(first.chain(futures::stream::pending())),
    )
}
