//! A runtime without sandboxes: each "daemon" is an axum service over pipes in this process.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
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
    Archive, Change, ChangeKind, Changes, FileKind, Held, Isolation, Layer, LayerId, Layers, Resources, Root, Runtime,
    RuntimeError, RuntimeInfo, Sandbox, SandboxSpec, StoredLayer, StoredRoot, Stream, Usage,
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::watch,
    task::AbortHandle,
};

use crate::{hostile::Hostile, process};

pub(crate) struct FakeRuntime {
    pub(crate) version: String,
    pub(crate) killed: Arc<AtomicUsize>,
    pub(crate) can_freeze: bool,
    /// How often daemons were asked what they use.
    pub(crate) asked: Arc<AtomicUsize>,
    /// Where it keeps layers; it outlives the runtime, as a disk does.
    pub(crate) layers: Option<Arc<FakeLayers>>,
}

impl FakeRuntime {
    pub(crate) fn layered(layers: &Arc<FakeLayers>) -> Self {
        Self {
            layers: Some(layers.clone()),
            ..Self::default()
        }
    }
}

/// What the fake daemon holds instead of files.
pub(crate) type Files = Arc<Mutex<Vec<u8>>>;

impl Default for FakeRuntime {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            killed: Arc::default(),
            can_freeze: true,
            asked: Arc::default(),
            layers: None,
        }
    }
}

pub(crate) fn gateway(runtime: FakeRuntime) -> (tempfile::TempDir, Gateway) {
    let home = tempfile::tempdir().unwrap();
    let gateway = gateway_at(&home.path().join("a/b"), runtime, false);
    (home, gateway)
}

pub(crate) fn gateway_at(home: &Path, runtime: FakeRuntime, keep_paused: bool) -> Gateway {
    gateway_that(home, runtime, keep_paused, false)
}

pub(crate) fn gateway_that(home: &Path, runtime: FakeRuntime, keep_paused: bool, pause_at_end: bool) -> Gateway {
    let images = Some(Arc::new(process::FakeImages) as Arc<dyn sandhold_gateway::ImageSource>);
    let config = GatewayConfig {
        egress: sandhold_egress::Egress::new(sandhold_egress::EgressConfig::default()).unwrap(),
        home: home.to_owned(),
        domain: Some("sandhold.localhost:3000".into()),
        max_timeout_s: 3600,
        caps: CapRules::default(),
        keep_paused,
        pause_at_end,
        templates: sandhold_gateway::TemplateConfig { images, https: false },
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
            no_layers: self.layers.is_none().then(|| "a fake".into()),
            ca_bundle: None,
            reach: sandhold_runtime::Reach::Nothing,
            can_freeze: self.can_freeze,
            can_switch_user: true,
        }
    }

    fn layers(&self) -> Option<Arc<dyn Layers>> {
        let layers = self.layers.clone()?;
        Some(layers)
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
            files: Arc::new(Mutex::new(match &self.layers {
                Some(layers) => layers.content(&spec.root)?,
                None => Vec::new(),
            })),
            root: Mutex::new(spec.root),
            layers: self.layers.clone(),
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
    root: Mutex<Root>,
    layers: Option<Arc<FakeLayers>>,
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn boot_answer(&self) -> &[u8] {
        &self.answer
    }

    fn root(&self) -> Root {
        self.root.lock().unwrap().clone()
    }

    async fn checkpoint(&self) -> Result<Root, RuntimeError> {
        let layers = self.layers()?;
        let mut root = self.root.lock().unwrap();
        let files = self.files.lock().unwrap().clone();
        if files != layers.content(&root)? {
            root.layers.push(layers.hold(files));
        }
        Ok(root.clone())
    }

    async fn roll_back(&self, root: &Root) -> Result<(), RuntimeError> {
        *self.files.lock().unwrap() = self.layers()?.content(root)?;
        *self.root.lock().unwrap() = root.clone();
        Ok(())
    }

    async fn changes(&self, since: &Root, most: usize) -> Result<Changes, RuntimeError> {
        let before = self.layers()?.content(since)?;
        if !self.root().stands_on(since) {
            return Err(RuntimeError::InvalidSpec("it does not stand on it".into()));
        }
        let now = self.files.lock().unwrap().clone();
        let (old, new) = (lines(&before), lines(&now));
        let path = |line: &str| format!("/{line}").into_bytes();
        let change = |line: &&str, kind| Change {
            path: path(line),
            kind,
            file: FileKind::File,
            bytes: 1,
        };
        let mut changes: Vec<_> = new.difference(&old).map(|l| change(l, ChangeKind::Added)).collect();
        changes.extend(old.difference(&new).map(|l| change(l, ChangeKind::Removed)));
        let truncated = changes.len() > most;
        changes.truncate(most);
        Ok(Changes { changes, truncated })
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

impl FakeSandbox {
    fn layers(&self) -> Result<&Arc<FakeLayers>, RuntimeError> {
        if *self.ended.borrow() {
            return Err(RuntimeError::Ended("killed".into()));
        }
        self.layers
            .as_ref()
            .ok_or_else(|| RuntimeError::Unsupported("the fake has no layers".into()))
    }
}

/// A sandbox's one file, a JSON text, as names of files.
fn lines(files: &[u8]) -> BTreeSet<&str> {
    std::str::from_utf8(files)
        .unwrap()
        .trim_matches('"')
        .split_whitespace()
        .collect()
}

/// Layers that hold all files of what stands on them.
#[derive(Default)]
pub(crate) struct FakeLayers {
    stored: Mutex<BTreeMap<LayerId, Vec<u8>>>,
    held: AtomicU64,
    /// How many archives were unpacked.
    pub(crate) unpacked: AtomicUsize,
    /// Fails what writes.
    pub(crate) full: AtomicBool,
}

impl FakeLayers {
    pub(crate) fn count(&self) -> usize {
        self.stored.lock().unwrap().len()
    }

    fn hold(&self, files: Vec<u8>) -> Layer {
        let number = self.held.fetch_add(1, Ordering::SeqCst);
        Layer::Held(Held::new(number, Arc::new(files)))
    }

    fn content_of(&self, layer: &Layer) -> Result<Vec<u8>, RuntimeError> {
        match layer {
            Layer::Held(held) => Ok(held.keep().downcast_ref::<Vec<u8>>().unwrap().clone()),
            Layer::Stored(id) => {
                let stored = self.stored.lock().unwrap();
                stored.get(id).cloned().ok_or(RuntimeError::UnknownLayer(*id))
            }
        }
    }

    fn content(&self, root: &Root) -> Result<Vec<u8>, RuntimeError> {
        root.layers
            .iter()
            .try_fold(Vec::new(), |_, layer| self.content_of(layer))
    }
}

#[async_trait]
impl Layers for FakeLayers {
    async fn unpack(&self, archive: Archive, below: &StoredRoot) -> Result<StoredLayer, RuntimeError> {
        let tar = std::io::read_to_string(std::fs::File::from(archive.file)).unwrap();
        if tar.contains("broken") {
            return Err(RuntimeError::InvalidSpec("the fake takes no broken archive".into()));
        }
        self.unpacked.fetch_add(1, Ordering::SeqCst);
        let mut files = self.content(&below.clone().into())?;
        files.extend(format!("{tar}\n").into_bytes());
        let id = LayerId(Sha256::digest(&files).into());
        let bytes = files.len() as u64;
        self.stored.lock().unwrap().insert(id, files);
        Ok(StoredLayer { id, bytes, files: 1 })
    }

    async fn keep(&self, root: &Root) -> Result<StoredRoot, RuntimeError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(RuntimeError::Exhausted("the fake disk is full".into()));
        }
        let mut kept = StoredRoot {
            base: root.base,
            layers: Vec::new(),
        };
        for layer in &root.layers {
            let files = self.content_of(layer)?;
            let id = LayerId(Sha256::digest(&files).into());
            self.stored.lock().unwrap().insert(id, files);
            kept.layers.push(id);
        }
        Ok(kept)
    }

    async fn stored(&self) -> Result<Vec<StoredLayer>, RuntimeError> {
        let stored = self.stored.lock().unwrap();
        let layer = |(id, files): (&LayerId, &Vec<u8>)| StoredLayer {
            id: *id,
            bytes: files.len() as u64,
            files: 1,
        };
        Ok(stored.iter().map(layer).collect())
    }

    async fn verify(&self, layer: &LayerId) -> Result<(), RuntimeError> {
        self.content_of(&Layer::Stored(*layer)).map(drop)
    }

    async fn remove(&self, layer: &LayerId) -> Result<bool, RuntimeError> {
        Ok(self.stored.lock().unwrap().remove(layer).is_some())
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
    let (saved, restored, commands) = (files.clone(), files.clone(), files.clone());
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
        .route(
            "/files",
            get(async || StatusCode::NOT_FOUND).post(async || StatusCode::OK),
        )
        .route(
            "/process.Process/Start",
            post(move |request| process::start(request, commands.clone())),
        )
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
