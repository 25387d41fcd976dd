//! Light checkpoints of a sandbox's files, going back to one, and what differs from one. Additions of Sandhold.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use humantime::format_rfc3339_millis;
use sandhold_runtime::{self as runtime, Root, RuntimeError};
use sandhold_wire::rest::{
    CHECKPOINT_NOT_FOUND, ChangeKind, Checkpoint, FileChange, FileKind, NewCheckpoint, RollBack, SINCE_CREATION,
    SandboxChanges, State as SandboxState,
};

use crate::{
    api::body,
    create::{ID_ALPHABET, random_text},
    entry::Entry,
    error::{Refusal, chain},
    events::Event,
    layering::in_time,
    limits::{CHANGES, CHANGES_BYTES, CHANGES_MOST, CHECKPOINT_ID_LEN, CHECKPOINT_LABEL, CHECKPOINTS},
    owner::Owner,
    query::pairs,
    sandboxes::Sandboxes,
    snapshots,
};

type Table = State<Arc<Sandboxes>>;

/// A state that a sandbox can go back to while this server runs.
struct Point {
    id: String,
    label: Option<String>,
    at: SystemTime,
    root: Root,
}

impl Point {
    fn told(&self, is_new: bool) -> Checkpoint {
        Checkpoint {
            checkpoint_id: self.id.clone(),
            label: self.label.clone(),
            created_at: format_rfc3339_millis(self.at).to_string(),
            is_new,
        }
    }
}

/// The checkpoints of a sandbox, the oldest first.
#[derive(Default)]
pub(crate) struct Checkpoints(VecDeque<Point>);

impl Checkpoints {
    /// What they stand on.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Root> {
        self.0.iter().map(|point| &point.root)
    }

    fn find(&self, id: &str) -> Option<&Point> {
        self.0.iter().find(|point| point.id == id)
    }

    /// One that has this root already, or a new one.
    fn add(&mut self, root: Root, label: Option<String>) -> Result<Checkpoint, Refusal> {
        if let Some(same) = self.0.iter().find(|point| point.root == root) {
            return Ok(same.told(false));
        }
        let point = Point {
            id: format!("cp-{}", random_text(CHECKPOINT_ID_LEN, ID_ALPHABET)?),
            label,
            at: SystemTime::now(),
            root,
        };
        if self.0.len() == CHECKPOINTS {
            self.0.pop_front();
        }
        let told = point.told(true);
        self.0.push_back(point);
        Ok(told)
    }
}

impl Entry {
    /// A root with the files of what runs as they are now. `state` is held.
    pub(crate) async fn checkpoint_now(&self, state: &SandboxState) -> Result<Root, Refusal> {
        let runtime = self.runtime_to_change(state)?;
        in_time("the checkpoint", runtime.checkpoint())
            .await
            .map_err(|error| match error {
                // Trying again at once would not help: it is no matter of a moment.
                RuntimeError::Exhausted(_) => Refusal::new(StatusCode::INSUFFICIENT_STORAGE, chain(&error)),
                error => error.into(),
            })
    }

    fn runtime_to_change(&self, state: &SandboxState) -> Result<Arc<dyn runtime::Sandbox>, Refusal> {
        let paused = || {
            let message = format!("Sandbox \"{}\" is paused, connect to it first", self.id);
            Refusal::new(StatusCode::CONFLICT, message)
        };
        self.runtime()
            .filter(|_| *state == SandboxState::Running)
            .ok_or_else(paused)
    }
}

/// `POST /sandboxes/{id}/checkpoints`: 201, or 200 with an earlier one where nothing changed since.
pub(crate) async fn create(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<Response, Refusal> {
    let request: NewCheckpoint = body(request).await?;
    if let Some(len) = request
        .label
        .as_ref()
        .map(String::len)
        .filter(|len| *len > CHECKPOINT_LABEL)
    {
        let message = format!("label has {len} bytes, at most {CHECKPOINT_LABEL} are allowed");
        return Err(Refusal::bad_request(message));
    }
    let entry = sandboxes.find(&id, owner).await?;
    sandboxes.check_layers()?;
    let task = tokio::spawn(async move {
        let state = entry.state.lock().await;
        entry.check_not_ending()?;
        let root = entry.checkpoint_now(&state).await?;
        entry.checkpoints().add(root, request.label)
    });
    let made = task
        .await
        .unwrap_or_else(|_| Err(Refusal::internal("the checkpoint broke off")))?;
    let status = if made.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(made)).into_response())
}

/// `GET /sandboxes/{id}/checkpoints`, the oldest first.
pub(crate) async fn list(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Json<Vec<Checkpoint>>, Refusal> {
    let entry = sandboxes.find(&id, owner).await?;
    let told = entry.checkpoints().0.iter().map(|point| point.told(false)).collect();
    Ok(Json(told))
}

/// `POST /sandboxes/{id}/rollback`
pub(crate) async fn roll_back(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<StatusCode, Refusal> {
    let request: RollBack = body(request).await?;
    let entry = sandboxes.find(&id, owner).await?;
    sandboxes.check_layers()?;
    let (root, name) = match (request.snapshot_id, request.checkpoint_id) {
        (Some(name), None) => (
            snapshot_root(&sandboxes, owner, &name).await?,
            format!("snapshot {name}"),
        ),
        (None, Some(name)) => {
            let root = entry.checkpoints().find(&name).map(|point| point.root.clone());
            (root.ok_or_else(|| unknown(&name))?, format!("checkpoint {name}"))
        }
        _ => {
            return Err(Refusal::bad_request(
                "exactly one of snapshotID and checkpointID is needed",
            ));
        }
    };
    let task = tokio::spawn(async move {
        let state = entry.state.lock().await;
        entry.check_not_ending()?;
        let runtime = entry.runtime_to_change(&state)?;
        in_time("the rollback", runtime.roll_back(&root)).await?;
        let message = format!("its files went back to {name}, its processes ended");
        entry.events.note(Event::new("rolled back", message));
        Ok::<_, Refusal>(())
    });
    task.await
        .unwrap_or_else(|_| Err(Refusal::internal("the rollback broke off")))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn snapshot_root(sandboxes: &Sandboxes, owner: Owner, name: &str) -> Result<Root, Refusal> {
    let found = snapshots::resolve(sandboxes, owner, name).await?;
    found.map(|origin| origin.root).ok_or_else(|| snapshots::unknown(name))
}

fn unknown(id: &str) -> Refusal {
    let shown: String = id.chars().take(80).collect();
    let message =
        format!("checkpoint \"{shown}\" does not exist; a sandbox's last {CHECKPOINTS} are kept while it lives");
    Refusal::new(StatusCode::NOT_FOUND, message).code(CHECKPOINT_NOT_FOUND)
}

/// `GET /sandboxes/{id}/diff?since=&limit=`: `since` is a checkpoint, a snapshot or `creation`.
pub(crate) async fn diff(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<SandboxChanges>, Refusal> {
    let (mut since, mut limit) = (SINCE_CREATION.to_owned(), CHANGES);
    for (name, value) in pairs(request.uri().query().unwrap_or_default()) {
        match name.as_str() {
            "since" if !value.is_empty() => since = value,
            "limit" => {
                let allowed = value.parse().ok().filter(|limit| (1..=CHANGES_MOST).contains(limit));
                limit = allowed.ok_or_else(|| {
                    Refusal::bad_request(format!("limit \"{value}\" is not between 1 and {CHANGES_MOST}"))
                })?;
            }
            _ => {}
        }
    }
    let entry = sandboxes.find(&id, owner).await?;
    sandboxes.check_layers()?;
    let point = entry.checkpoints().find(&since).map(|point| point.root.clone());
    let root = match point {
        Some(root) => root,
        None if since == SINCE_CREATION => entry.origin(),
        None => snapshot_root(&sandboxes, owner, &since).await?,
    };
    let state = entry.state.lock().await;
    entry.check_not_ending()?;
    let runtime = entry.runtime_to_change(&state)?;
    let changes = in_time("finding what changed", runtime.changes(&root, limit)).await;
    drop(state);
    let changes = changes.map_err(|error| match error {
        RuntimeError::InvalidSpec(why) => {
            let message = format!("what differs in sandbox {id} from \"{since}\" is not known: {why}");
            Refusal::new(StatusCode::CONFLICT, message)
        }
        error => error.into(),
    })?;
    Ok(Json(shown(changes)))
}

/// As much of the changes as fits into an answer.
fn shown(found: runtime::Changes) -> SandboxChanges {
    let mut told = SandboxChanges {
        truncated: found.truncated,
        ..SandboxChanges::default()
    };
    let mut size = 0;
    for change in found.changes {
        let path = String::from_utf8_lossy(&change.path).into_owned();
        // A byte of a path takes six at most in JSON.
        size += 80 + path.len() * 6;
        if size > CHANGES_BYTES {
            told.truncated = true;
            break;
        }
        told.changes.push(FileChange {
            path,
            change: match change.kind {
                runtime::ChangeKind::Added => ChangeKind::Added,
                runtime::ChangeKind::Changed => ChangeKind::Changed,
                runtime::ChangeKind::Removed => ChangeKind::Removed,
            },
            kind: match change.file {
                runtime::FileKind::File => FileKind::File,
                runtime::FileKind::Folder => FileKind::Dir,
                runtime::FileKind::Link => FileKind::Symlink,
                runtime::FileKind::Other => FileKind::Other,
            },
            size: change.bytes,
        });
    }
    told
}
