//! Snapshots: the files of a sandbox at one time, from which others are made. Processes are no part of them.

mod name;
mod rows;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode};
use humantime::format_rfc3339_millis;
use sandhold_runtime::Root;
use sandhold_wire::{
    limits::LIST_PAGE,
    names,
    rest::{NewSnapshot, SNAPSHOT_NOT_FOUND, SnapshotInfo, State as SandboxState},
};

pub(crate) use self::rows::{Snapshot, Snapshots};
use self::{
    name::{DEFAULT_TAG, Name},
    rows::Wanted,
};
use crate::{
    api::body,
    create::{Origin, new_id},
    entry::Entry,
    error::Refusal,
    events::Event,
    owner::Owner,
    query::pairs,
    sandboxes::Sandboxes,
};

type Table = State<Arc<Sandboxes>>;

/// `POST /sandboxes/{id}/snapshots`
pub(crate) async fn create(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<Response, Refusal> {
    let request: NewSnapshot = body(request).await?;
    let name = request.name.filter(|name| !name.is_empty());
    let name = name.as_deref().map(Name::parse).transpose()?;
    if let Some(name) = name.as_ref().filter(|name| name.name == names::DEFAULT_TEMPLATE) {
        return Err(Refusal::bad_request(format!(
            "name is \"{}\", which is a template's",
            name.name
        )));
    }
    let entry = sandboxes.find(&id, owner).await?;
    // In a task of its own: a caller that goes away leaves nothing half done.
    let task = tokio::spawn(async move { take(&sandboxes, &entry, name).await });
    let taken = task
        .await
        .unwrap_or_else(|_| Err(Refusal::internal("taking the snapshot broke off")))?;
    Ok((StatusCode::CREATED, Json(taken)).into_response())
}

async fn take(sandboxes: &Sandboxes, entry: &Entry, name: Option<Name>) -> Result<SnapshotInfo, Refusal> {
    sandboxes.layers()?;
    let root = entry.files_now().await?;
    let written = sandboxes.write_layers(&root, &entry.origin()).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (name, tag) = match name {
        Some(Name { name, tag }) => (Some(name), tag),
        None => (None, DEFAULT_TAG.to_owned()),
    };
    let snapshot = Snapshot {
        id: new_id()?,
        name,
        tag,
        sandbox: entry.id.clone(),
        root: written.root.clone(),
        start: entry.recipe.start.clone(),
        bytes: written.bytes,
        created_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
    };
    let info = told(&snapshot);
    sandboxes.snapshots.insert(entry.owner(), snapshot).await?;
    // One whose name this one took may be gone.
    sandboxes.layering.collect_soon();
    let message = format!("snapshot {} taken", info.snapshot_id);
    entry.events.note(Event::new("snapshot", message));
    Ok(info)
}

fn told(snapshot: &Snapshot) -> SnapshotInfo {
    let at = UNIX_EPOCH + Duration::from_nanos(u64::try_from(snapshot.created_ns).unwrap_or_default());
    SnapshotInfo {
        snapshot_id: snapshot.shown().to_string(),
        names: snapshot.name.iter().map(|_| snapshot.shown().to_string()).collect(),
        sandbox_id: Some(snapshot.sandbox.clone()),
        created_at: Some(format_rfc3339_millis(at).to_string()),
        size_bytes: Some(snapshot.bytes),
    }
}

/// `GET /snapshots`
pub(crate) async fn list(
    State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Response, Refusal> {
    let mut wanted = Wanted {
        limit: LIST_PAGE,
        ..Wanted::default()
    };
    for (name, value) in pairs(request.uri().query().unwrap_or_default()) {
        match name.as_str() {
            "sandboxID" if !value.is_empty() => wanted.sandbox = Some(value),
            "name" if !value.is_empty() => wanted.name = Some(Name::parse(&value)?),
            "limit" => {
                wanted.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=LIST_PAGE).contains(limit))
                    .ok_or_else(|| {
                        Refusal::bad_request(format!("limit \"{value}\" is not between 1 and {LIST_PAGE}"))
                    })?;
            }
            "nextToken" if !value.is_empty() => {
                let after = value
                    .split_once('-')
                    .and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
                wanted.after =
                    Some(after.ok_or_else(|| Refusal::bad_request("nextToken was not given by this server"))?);
            }
            _ => {}
        }
    }
    let (found, more) = sandboxes.snapshots.list(owner, wanted).await?;
    let next = found.last().filter(|_| more);
    let next = next.and_then(|last| HeaderValue::from_str(&format!("{}-{}", last.created_ns, last.id)).ok());
    let mut response = Json(found.iter().map(told).collect::<Vec<_>>()).into_response();
    if let Some(next) = next {
        let header = HeaderName::from_static(names::NEXT_TOKEN_HEADER);
        response.headers_mut().insert(header, next);
    }
    Ok(response)
}

/// There is no such snapshot.
pub(crate) fn unknown(id: &str) -> Refusal {
    let shown: String = id.chars().take(200).collect();
    Refusal::new(StatusCode::NOT_FOUND, format!("snapshot \"{shown}\" does not exist")).code(SNAPSHOT_NOT_FOUND)
}

/// What a sandbox made of this snapshot stands on. `None`: no snapshot of the owner is called that.
pub(crate) async fn resolve(sandboxes: &Sandboxes, owner: Owner, name: &str) -> Result<Option<Origin>, Refusal> {
    let found = sandboxes.snapshots.find(owner, name).await?;
    Ok(found.map(|snapshot| Origin {
        template: snapshot.id.clone(),
        alias: snapshot.shown().to_string(),
        start: snapshot.start,
        root: Root::from(snapshot.root),
        cpus: None,
        memory_mb: None,
    }))
}

impl Entry {
    /// A root with the files as they are now: of what runs by a checkpoint, of what is nothing but files by those.
    pub(crate) async fn files_now(&self) -> Result<Root, Refusal> {
        let state = self.state.lock().await;
        self.check_not_ending()?;
        if *state == SandboxState::Paused
            && let Some(root) = self.kept_root()
        {
            return Ok(root.into());
        }
        self.checkpoint_now(&state).await
    }
}
