//! A control plane with sandboxes whose processes follow a script, and a client of the server under test.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{SinkExt as _, StreamExt as _, channel::mpsc};
use rmcp::{
    RoleClient, ServiceExt,
    model::{CallToolRequestParams, CallToolResult},
    service::RunningService,
};
use sandhold_client::{Client, HttpConfig};
use sandhold_mcp::{Confirm, Dockerfiles, Door, Keeping, Provider, Selection, Server, ServerConfig, serve_io};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(crate) struct World {
    pub(crate) alive: BTreeSet<String>,
    pub(crate) paused: BTreeSet<String>,
    pub(crate) made: usize,
    pub(crate) timeouts: Vec<String>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// `tag signal`
    pub(crate) signals: Vec<String>,
    /// What processes were given.
    pub(crate) stdin: BTreeMap<String, Vec<u8>>,
    /// What watches of a folder tell, one after the other, each a script.
    pub(crate) watches: Vec<String>,
    /// What the daemon says runs.
    pub(crate) processes: Vec<Value>,
    /// What a daemon of Sandhold's says of jobs; E2B's does not know the question.
    pub(crate) jobs: Option<Vec<Value>>,
    /// Where the replay of a daemon of Sandhold's begins.
    pub(crate) replays_from: Option<&'static str>,
    /// What listens in every sandbox.
    pub(crate) listening: Value,
    /// The answer to who waits for a server; without one they wait.
    pub(crate) ready: Option<Value>,
    /// Whether it knows what Sandhold adds to E2B's API.
    pub(crate) additions: bool,
    /// Snapshots that are there.
    pub(crate) snapshots: Vec<String>,
    /// Templates that are there: name, and how its build stands.
    pub(crate) templates: Vec<(String, &'static str)>,
    /// The bodies that builds were started with.
    pub(crate) builds: Vec<Value>,
    /// Builds that were given up.
    pub(crate) given_up: Vec<String>,
    /// What checkpoints were taken for.
    pub(crate) checkpoints: Vec<String>,
    /// The status of one that cannot be taken.
    pub(crate) no_checkpoint: Option<u16>,
    /// What sandboxes went back to.
    pub(crate) rolled_back: Vec<Value>,
    /// Metadata that sandboxes were made with.
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) killed: BTreeSet<String>,
}

pub(crate) type Shared = Arc<Mutex<World>>;

/// Serves the control plane and the daemons of its sandboxes on a port of this machine.
pub(crate) async fn control_plane() -> (Shared, Client) {
    let world = Shared::default();
    let shared = Arc::clone(&world);
    let app = Router::new().fallback(move |request: Request| answer(Arc::clone(&shared), request));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = HttpConfig {
        api_url: Some(url.clone()),
        sandbox_url: Some(url),
        ..HttpConfig::new("e2b_key")
    };
    (world, Client::http(config).unwrap())
}

fn reply(status: u16, body: impl Into<Body>) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

fn gone(id: &str) -> Response {
    reply(
        502,
        json!({"sandboxId": id, "message": "The sandbox was not found", "code": 502}).to_string(),
    )
}

fn missing(id: &str) -> Response {
    let message = format!("Sandbox \"{id}\" doesn't exist or you don't have access to it");
    reply(404, json!({"code": 404, "message": message}).to_string())
}

fn listed(id: &str, paused: bool) -> Value {
    json!({"templateID": "t1", "sandboxID": id, "clientID": "c", "alias": "base", "startedAt": "2026-01-01T00:00:00Z",
        "endAt": "2026-01-01T00:05:00Z", "cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1024, "envdVersion": "0.6.13",
        "state": if paused { "paused" } else { "running" }})
}

async fn answer(world: Shared, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    if let Some(id) = head.headers.get("e2b-sandbox-id") {
        let id = id.to_str().unwrap().to_owned();
        if !world.lock().unwrap().alive.contains(&id) {
            return gone(&id);
        }
        return daemon(world, &head.method, &path, &query, &head.headers, body).await;
    }
    let mut w = world.lock().unwrap();
    let parts: Vec<&str> = path.trim_matches('/').split('/').filter(|p| *p != "v2").collect();
    match (head.method.as_str(), parts.as_slice()) {
        ("POST", ["sandboxes"]) => {
            w.made += 1;
            let id = format!("i{:020}", w.made);
            w.alive.insert(id.clone());
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let template = asked["templateID"].as_str().unwrap().to_owned();
            if template != "base" && !w.snapshots.contains(&template) && !w.templates.iter().any(|t| t.0 == template) {
                let message = format!("template '{template}' not found");
                return reply(404, json!({"code": 404, "message": message}).to_string());
            }
            w.metadata.insert(id.clone(), asked["metadata"].clone());
            w.timeouts.push(format!(
                "create {}",
                serde_json::from_slice::<Value>(&body).unwrap()["timeout"]
            ));
            reply(201, listed(&id, false).to_string())
        }
        ("GET", ["sandboxes"]) => {
            let marked = |id: &&String| match query.split('&').find_map(|pair| pair.strip_prefix("metadata=")) {
                Some(asked) => {
                    let pairs = w.metadata.get(*id).and_then(Value::as_object);
                    pairs.is_some_and(|pairs| pairs.values().any(|v| asked.contains(v.as_str().unwrap())))
                }
                None => true,
            };
            let found = w.alive.iter().filter(marked);
            let found = found.filter(|id| !query.contains("state=paused") || w.paused.contains(*id));
            let all: Vec<Value> = found.map(|id| listed(id, w.paused.contains(id))).collect();
            reply(200, Value::from(all).to_string())
        }
        (method, ["sandboxes", id, rest @ ..]) => {
            if !w.alive.contains(*id) {
                return missing(id);
            }
            match (method, rest) {
                ("GET", []) => reply(200, listed(id, w.paused.contains(*id)).to_string()),
                ("DELETE", []) => {
                    w.alive.remove(*id);
                    reply(204, "")
                }
                ("POST", ["connect"]) => {
                    let mut answer = listed(id, false);
                    if w.paused.remove(*id) && w.additions {
                        answer["resumedFrom"] = "filesystem".into();
                    }
                    w.timeouts.push("connect".into());
                    reply(200, answer.to_string())
                }
                ("POST", ["snapshots"]) => {
                    let asked: Value = serde_json::from_slice(&body).unwrap();
                    let name = format!("{}:default", asked["name"].as_str().unwrap_or("s1"));
                    w.snapshots.push(name.clone());
                    reply(201, json!({"snapshotID": name, "names": [name]}).to_string())
                }
                ("POST", ["fork"]) => {
                    let count = serde_json::from_slice::<Value>(&body).unwrap()["count"]
                        .as_u64()
                        .unwrap();
                    let mut forks = Vec::new();
                    for _ in 0..count {
                        w.made += 1;
                        let id = format!("i{:020}", w.made);
                        w.alive.insert(id.clone());
                        forks.push(json!({"sandbox": listed(&id, false)}));
                    }
                    if count > 2 {
                        let full = json!({"error": {"code": 429, "message": "no room"}});
                        *forks.last_mut().unwrap() = full;
                    }
                    reply(201, Value::from(forks).to_string())
                }
                ("POST", ["checkpoints"]) if w.additions => {
                    if let Some(status) = w.no_checkpoint {
                        return reply(status, json!({"code": status, "message": "too busy"}).to_string());
                    }
                    let asked: Value = serde_json::from_slice(&body).unwrap();
                    w.checkpoints.push(asked["label"].as_str().unwrap().to_owned());
                    let id = format!("cp-{}", w.checkpoints.len());
                    let made = json!({"checkpointID": id, "createdAt": "2026-01-01T00:00:00Z", "isNew": true});
                    reply(201, made.to_string())
                }
                ("POST", ["rollback"]) if w.additions => {
                    let back: Value = serde_json::from_slice(&body).unwrap();
                    if back["checkpointID"] == "cp-none" {
                        let refused = json!({"code": 404, "message": "checkpoint \"cp-none\" does not exist",
                            "error_code": "checkpoint_not_found"});
                        return reply(404, refused.to_string());
                    }
                    w.rolled_back.push(back);
                    reply(204, "")
                }
                ("GET", ["diff"]) if w.additions => {
                    let file = json!({"path": "/home/user/a", "change": "added", "type": "file", "size": 3});
                    let folder = json!({"path": "/tmp/b", "change": "removed", "type": "dir", "size": 0});
                    reply(
                        200,
                        json!({"changes": [file, folder], "truncated": query.ends_with("limit=2")}).to_string(),
                    )
                }
                ("POST", ["pause"]) => {
                    w.paused.insert((*id).to_owned());
                    reply(204, "")
                }
                ("POST", ["timeout"]) => reply(204, ""),
                _ => reply(404, "{}"),
            }
        }
        ("POST", ["v3", "templates"]) => {
            let name = serde_json::from_slice::<Value>(&body).unwrap()["name"]
                .as_str()
                .unwrap()
                .to_owned();
            w.templates.retain(|known| known.0 != name);
            w.templates.push((name.clone(), "building"));
            let made = json!({"templateID": format!("t-{name}"), "buildID": format!("b-{name}"), "names": [name]});
            reply(202, made.to_string())
        }
        ("POST", ["templates", _, "builds", _]) => {
            w.builds.push(serde_json::from_slice(&body).unwrap());
            reply(202, "{}")
        }
        ("POST", ["templates", _, "builds", build, "cancel"]) if w.additions => {
            w.given_up.push((*build).to_owned());
            reply(204, "")
        }
        ("GET", ["templates", template, "builds", build, "status"]) => {
            let name = template.strip_prefix("t-").unwrap();
            let state = w.templates.iter().find(|known| known.0 == name).unwrap().1;
            let lines = ["FROM x", "secret detail", "[1/1] RUN y"]
                .iter()
                .zip(["info", "debug", "info"]);
            let lines = lines.map(
                |(message, level)| json!({"timestamp": "2026-01-01T00:00:00Z", "message": message, "level": level}),
            );
            let from: usize = query.strip_prefix("logsOffset=").unwrap().parse().unwrap();
            let mut answer = json!({"templateID": template, "buildID": build, "status": state,
                "logEntries": lines.skip(from).collect::<Vec<_>>()});
            if state == "error" {
                answer["reason"] = json!({"message": "exit status 3", "step": "1"});
            }
            reply(200, answer.to_string())
        }
        ("GET", ["templates"]) => {
            let all = w.templates.iter().map(|(name, state)| {
                json!({"templateID": format!("t-{name}"), "buildID": "b", "cpuCount": 2, "memoryMB": 512, "names": [name],
                    "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "buildStatus": state})
            });
            reply(200, Value::from(all.collect::<Vec<_>>()).to_string())
        }
        ("GET", ["templates", "aliases", name]) => match w.templates.iter().any(|known| known.0 == *name) {
            true => reply(200, json!({"templateID": format!("t-{name}")}).to_string()),
            false => reply(404, "{}"),
        },
        ("DELETE", ["templates", id]) if id.starts_with("t-") => {
            w.templates.retain(|known| format!("t-{}", known.0) != *id);
            reply(204, "")
        }
        ("GET", ["snapshots"]) => {
            let all = w.snapshots.iter().map(|name| {
                json!({"snapshotID": name, "names": [name], "sandboxID": "i1",
                "createdAt": "2026-01-01T00:00:00Z", "sizeBytes": 7})
            });
            reply(200, Value::from(all.collect::<Vec<_>>()).to_string())
        }
        ("DELETE", ["templates", name]) => {
            let name = name.replace("%3A", ":");
            let before = w.snapshots.len();
            w.snapshots.retain(|other| *other != name);
            reply(if w.snapshots.len() < before { 204 } else { 404 }, "")
        }
        _ => reply(404, "{}"),
    }
}

async fn daemon(
    world: Shared,
    method: &http::Method,
    path: &str,
    query: &str,
    headers: &http::HeaderMap,
    body: Bytes,
) -> Response {
    let argument = |name: &str| {
        let pairs = query.split('&').filter_map(|p| p.split_once('='));
        pairs
            .filter(|(k, _)| *k == name)
            .map(|(_, v)| v.replace("%2F", "/"))
            .next()
            .unwrap_or_default()
    };
    match (method.as_str(), path) {
        ("GET", "/health") => reply(204, ""),
        ("GET", "/files") => match world.lock().unwrap().files.get(&argument("path")) {
            Some(data) => reply(200, data.clone()),
            None => reply(404, json!({"code": 404, "message": "path does not exist"}).to_string()),
        },
        ("POST", "/files") => {
            let path = argument("path");
            let name = path.rsplit('/').next().unwrap().to_owned();
            world.lock().unwrap().files.insert(path.clone(), body.to_vec());
            reply(200, json!([{"path": path, "name": name, "type": "file"}]).to_string())
        }
        ("POST", "/filesystem.Filesystem/Stat") => {
            let message: Value = serde_json::from_slice(&body).unwrap();
            let path = message["path"].as_str().unwrap();
            match world.lock().unwrap().files.get(path) {
                Some(data) => {
                    let size = data.len().to_string();
                    let entry = json!({"name": path, "path": path, "type": "FILE_TYPE_FILE", "size": size});
                    reply(200, json!({ "entry": entry }).to_string())
                }
                None if path == "w" => {
                    let entry = json!({"name": "w", "path": "/home/user/w", "type": "FILE_TYPE_DIRECTORY"});
                    reply(200, json!({ "entry": entry }).to_string())
                }
                None => reply(404, json!({"code": "not_found", "message": "no such file"}).to_string()),
            }
        }
        ("POST", "/process.Process/Start") => {
            let message: Value = serde_json::from_slice(&body[5..]).unwrap();
            let process = &message["process"];
            // A shell in a terminal has no place for a script but its environment.
            let script = process["args"][2].as_str().or(process["envs"]["SCRIPT"].as_str());
            let script = script.unwrap().to_owned();
            let tag = message["tag"].as_str().map(job).unwrap_or_default();
            let deadline = headers
                .get("connect-timeout-ms")
                .and_then(|v| v.to_str().ok()?.parse().ok());
            stream(world, script, tag, deadline)
        }
        ("POST", "/process.Process/Connect") => {
            let message: Value = serde_json::from_slice(&body[5..]).unwrap();
            let tag = message["process"]["tag"].as_str().map(job).unwrap();
            let from = world.lock().unwrap().replays_from;
            let mut response = stream(world, "out again; exit 7".into(), tag, None);
            if let (Some(from), true) = (from, headers.contains_key("sandhold-replay")) {
                response.headers_mut().insert("sandhold-replay", from.parse().unwrap());
            }
            response
        }
        ("POST", "/process.Process/SendSignal") => {
            let message: Value = serde_json::from_slice(&body).unwrap();
            let tag = message["process"]["tag"].as_str().map(job).unwrap();
            let mut w = world.lock().unwrap();
            w.signals.push(format!("{tag} {}", message["signal"].as_str().unwrap()));
            w.killed.insert(tag);
            reply(200, "{}")
        }
        ("POST", "/process.Process/SendInput") => {
            let message: Value = serde_json::from_slice(&body).unwrap();
            let tag = message["process"]["tag"].as_str().map(job).unwrap();
            let input = &message["input"];
            let input = input["stdin"].as_str().or(input["pty"].as_str()).unwrap();
            let data = STANDARD.decode(input).unwrap();
            world.lock().unwrap().stdin.entry(tag).or_default().extend(data);
            reply(200, "{}")
        }
        ("POST", "/process.Process/CloseStdin" | "/process.Process/Update") => reply(200, "{}"),
        ("POST", "/filesystem.Filesystem/WatchDir") => {
            let mut w = world.lock().unwrap();
            let script = if w.watches.is_empty() {
                "hang".into()
            } else {
                w.watches.remove(0)
            };
            drop(w);
            watch(world, &script)
        }
        ("POST", "/filesystem.Filesystem/ListDir") => reply(200, "{}"),
        ("GET", "/sandhold/ports") => {
            let listening = world.lock().unwrap().listening.clone();
            let listening = if listening.is_null() { json!([]) } else { listening };
            reply(200, json!({ "listening": listening }).to_string())
        }
        ("POST", "/sandhold/ready") => {
            let ready = world.lock().unwrap().ready.clone();
            match ready {
                Some(ready) => reply(200, ready.to_string()),
                None => std::future::pending().await,
            }
        }
        ("POST", "/process.Process/List") => {
            let processes = Value::from(world.lock().unwrap().processes.clone());
            reply(200, json!({"processes": processes}).to_string())
        }
        ("GET", "/sandhold/jobs") if world.lock().unwrap().jobs.is_some() => {
            let jobs = world.lock().unwrap().jobs.clone().unwrap();
            reply(200, json!({"jobs": jobs}).to_string())
        }
        ("GET", "/sandhold/jobs") => reply(404, "404 page not found"),
        _ => reply(404, json!({"code": "unimplemented", "message": "unknown"}).to_string()),
    }
}

/// The id of the job with this tag; other tags stand for themselves.
fn job(tag: &str) -> String {
    tag.strip_prefix("sandhold-job:").unwrap_or(tag).to_owned()
}

fn frame(flags: u8, message: &Value) -> Bytes {
    let message = message.to_string();
    let mut out = vec![flags];
    out.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message.as_bytes());
    out.into()
}

/// A watch that follows a script of steps parted by `;`: `KIND NAME`, `sleep MS`, `drop`, `die`, `hang`.
fn watch(world: Shared, script: &str) -> Response {
    let (mut sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let steps: Vec<String> = script.split(';').map(|s| s.trim().to_owned()).collect();
    tokio::spawn(async move {
        let _ = sender.send(Ok(frame(0, &json!({"start": {}})))).await;
        for step in steps {
            match step.split_once(' ') {
                Some(("sleep", ms)) => tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await,
                Some((kind, name)) => {
                    let event = json!({"filesystem": {"name": name, "type": format!("EVENT_TYPE_{kind}")}});
                    let _ = sender.send(Ok(frame(0, &event))).await;
                }
                None if step == "hang" => std::future::pending().await,
                None => {
                    if step == "die" {
                        world.lock().unwrap().alive.clear();
                    }
                    let _ = sender.send(Err(std::io::Error::other("broken"))).await;
                    return;
                }
            }
        }
    });
    Response::builder()
        .header("content-type", "application/connect+json")
        .body(Body::from_stream(receiver))
        .unwrap()
}

/// Follows a script of steps parted by `;`: `out TEXT`, `err TEXT`, `pty TEXT`, `flood BYTES`, `sleep MS`, `hang`, `drop`, `exit CODE`.
fn stream(world: Shared, script: String, tag: String, deadline: Option<u64>) -> Response {
    let (mut sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    tokio::spawn(async move {
        let began = tokio::time::Instant::now();
        let data = |stream: &str, bytes: &[u8]| frame(0, &json!({"event": {"data": {stream: STANDARD.encode(bytes)}}}));
        let end = |code: i32, exited: bool, status: &str| {
            frame(
                0,
                &json!({"event": {"end": {"exitCode": code, "exited": exited, "status": status}}}),
            )
        };
        let mut code = 0;
        let _ = sender
            .send(Ok(frame(0, &json!({"event": {"start": {"pid": 42}}}))))
            .await;
        for step in script.split(';').map(str::trim) {
            let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
            match verb {
                "out" => drop(sender.send(Ok(data("stdout", format!("{rest}\n").as_bytes()))).await),
                "pty" => {
                    let text = rest.replace("\\e", "\x1b").replace("\\s", ";").replace("\\n", "\r\n");
                    let _ = sender.send(Ok(data("pty", text.as_bytes()))).await;
                }
                "err" => drop(sender.send(Ok(data("stderr", format!("{rest}\n").as_bytes()))).await),
                "flood" => {
                    let mut left: usize = rest.parse().unwrap();
                    while left > 0 {
                        let part = left.min(32 << 10);
                        let _ = sender.send(Ok(data("stdout", &vec![b'x'; part]))).await;
                        left -= part;
                    }
                }
                "sleep" => tokio::time::sleep(Duration::from_millis(rest.parse().unwrap())).await,
                "hang" => loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let late = deadline.is_some_and(|ms| began.elapsed() > Duration::from_millis(ms));
                    if late || world.lock().unwrap().killed.contains(&tag) {
                        let _ = sender.send(Ok(end(-1, false, "signal: killed"))).await;
                        let _ = sender.send(Ok(frame(2, &json!({})))).await;
                        return;
                    }
                },
                "drop" => {
                    let _ = sender.send(Err(std::io::Error::other("broken"))).await;
                    return;
                }
                "die" => {
                    world.lock().unwrap().alive.clear();
                    let _ = sender.send(Err(std::io::Error::other("broken"))).await;
                    return;
                }
                // An interpreter that reads its program from standard input.
                "exec" => {
                    let _ = sender.send(Ok(data("stdout", format!("{rest}\n").as_bytes()))).await;
                    while !world.lock().unwrap().stdin.contains_key(&tag) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                "exit" => code = rest.parse().unwrap(),
                other => panic!("no step {other}"),
            }
        }
        let _ = sender.send(Ok(end(code, true, &format!("exit status {code}")))).await;
        let _ = sender.send(Ok(frame(2, &json!({})))).await;
    });
    let body = Body::from_stream(receiver.map(|item| item));
    Response::builder()
        .header("content-type", "application/connect+json")
        .body(body)
        .unwrap()
}

/// A server under test with one client.
pub(crate) struct Session {
    pub(crate) world: Shared,
    pub(crate) server: Server,
    pub(crate) client: RunningService<RoleClient, ()>,
    serving: JoinHandle<()>,
}

pub(crate) async fn server() -> (Shared, Server) {
    server_that(Confirm::default()).await
}

/// A server that asks its users as `confirm` says.
pub(crate) async fn server_that(confirm: Confirm) -> (Shared, Server) {
    server_with(Setup {
        confirm,
        ..Setup::default()
    })
    .await
}

/// How a server is set up beside the usual.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) door: Option<Arc<dyn Door>>,
    pub(crate) dockerfiles: Option<Arc<dyn Dockerfiles>>,
    pub(crate) confirm: Confirm,
    pub(crate) keeping: Keeping,
    pub(crate) checkpoint: bool,
    /// What the control plane knows.
    pub(crate) world: World,
}

async fn server_with(setup: Setup) -> (Shared, Server) {
    let (world, client) = control_plane().await;
    *world.lock().unwrap() = setup.world;
    let provider = Provider {
        name: "stub".into(),
        description: "for tests".into(),
        cannot: vec!["fly".into()],
    };
    let config = ServerConfig {
        client,
        provider,
        selection: Selection {
            toolsets: Some(vec!["all".into()]),
            ..Selection::default()
        },
        door: setup.door,
        dockerfiles: setup.dockerfiles,
        folders: Vec::new(),
        confirm: setup.confirm,
        keeping: setup.keeping,
        checkpoint: setup.checkpoint,
    };
    (world, Server::new(config).unwrap())
}

impl Session {
    pub(crate) async fn open() -> Self {
        Self::open_with(None).await
    }

    /// The same behind a listener that has to be opened.
    pub(crate) async fn open_with(door: Option<Arc<dyn Door>>) -> Self {
        Self::set_up(Setup {
            door,
            ..Setup::default()
        })
        .await
    }

    /// The same set up in another way.
    pub(crate) async fn set_up(setup: Setup) -> Self {
        let (world, server) = server_with(setup).await;
        let (near, far) = tokio::io::duplex(64 << 10);
        let (reader, writer) = tokio::io::split(far);
        let under_test = server.clone();
        let serving = tokio::spawn(async move {
            serve_io(under_test, reader, writer, CancellationToken::new())
                .await
                .unwrap();
        });
        let client = ().serve(near).await.unwrap();
        Self {
            world,
            server,
            client,
            serving,
        }
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, tool: &'static str, arguments: Value) -> CallToolResult {
        let params = CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone());
        self.client.call_tool(params).await.unwrap()
    }

    /// Calls a tool that must do its work.
    pub(crate) async fn good(&self, tool: &'static str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        let value = result.structured_content.clone().unwrap();
        assert!(result.is_error != Some(true) && value["ok"] == true, "{tool}: {value}");
        value
    }

    /// Calls a tool that must refuse. Returns its answer; the error's text must be in the text for the model too.
    pub(crate) async fn bad(&self, tool: &'static str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        let value = result.structured_content.clone().unwrap();
        assert!(result.is_error == Some(true) && value["ok"] == false, "{tool}: {value}");
        let text = text(&result);
        assert!(text.contains(value["error"]["message"].as_str().unwrap()), "{text}");
        if let Some(hint) = value["error"]["hint"].as_str() {
            assert!(text.contains(hint), "{text}");
        }
        value
    }

    /// Ends it and waits until the server has.
    pub(crate) async fn close(self) {
        self.client.cancel().await.unwrap();
        self.serving.await.unwrap();
    }
}

/// What a model reads.
pub(crate) fn text(result: &CallToolResult) -> String {
    result
        .content
        .iter()
        .filter_map(|c| c.as_text())
        .map(|t| t.text.as_str())
        .collect()
}
