//! Calls that make, change and end sandboxes.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::{self, Path},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use sandhold_wire::{
    limits, names,
    rest::{NewSandbox, PauseSandbox, Refresh, Sandbox, SetTimeout, State},
};
use serde::Deserialize;

use crate::{
    api::body,
    create::{create, timeout},
    entry::Entry,
    error::Refusal,
    events::Event,
    idempotency::Claim,
    owner::Owner,
    pausing::Resumed,
    sandboxes::Sandboxes,
};

type Table = extract::State<Arc<Sandboxes>>;

pub(crate) async fn create_v2(
    table: Table,
    Extension(owner): Extension<Owner>,
    headers: HeaderMap,
    request: Body,
) -> Result<Response, Refusal> {
    created(table, owner, &headers, request, Version::V2).await
}

/// As v2, with another default. `secure: false` is not heeded: the oldest clients too send the token they are given. Nor is
/// `allow_internet_access: true`, which these clients always send, whether they were asked for it or not.
pub(crate) async fn create_v1(
    table: Table,
    Extension(owner): Extension<Owner>,
    headers: HeaderMap,
    request: Body,
) -> Result<Response, Refusal> {
    created(table, owner, &headers, request, Version::V1).await
}

/// Which of both creates was called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// Seconds.
    fn default_timeout(self) -> u64 {
        match self {
            Self::V1 => limits::DEFAULT_TIMEOUT_V1_S,
            Self::V2 => limits::DEFAULT_TIMEOUT_S,
        }
    }
}

async fn created(
    extract::State(sandboxes): Table,
    owner: Owner,
    headers: &HeaderMap,
    request: Body,
    version: Version,
) -> Result<Response, Refusal> {
    let mut request: NewSandbox = body(request).await?;
    if version == Version::V1 && request.allow_internet_access == Some(true) {
        request.allow_internet_access = None;
    }
    let timeout = version.default_timeout();
    let Some(key) = headers.get(names::IDEMPOTENCY_HEADER) else {
        let entry = create(&sandboxes, owner, request, timeout).await?;
        return Ok((StatusCode::CREATED, Json(answer(&sandboxes, &entry))).into_response());
    };
    // What was understood of the request must be the same; how it was written need not be.
    let asked = serde_json::to_vec(&request).map_err(|e| Refusal::internal(e.to_string()))?;
    let key = key.to_str().unwrap_or_default();
    let slot = match sandboxes
        .idempotency
        .claim(owner, key, &[&timeout.to_le_bytes(), &asked])?
    {
        Claim::Done(answer) => return Ok((StatusCode::CREATED, Json(*answer)).into_response()),
        Claim::New(slot) => slot,
    };
    // A client that gave up asks again and must find what it made.
    let task = tokio::spawn(async move {
        let entry = create(&sandboxes, owner, request, timeout).await?;
        let answer = answer(&sandboxes, &entry);
        slot.fill(answer.clone());
        Ok::<_, Refusal>(answer)
    });
    let made = task
        .await
        .unwrap_or_else(|_| Err(Refusal::internal("the create broke off")))?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// The body of connect and resume.
#[derive(Deserialize)]
struct Connect {
    /// Seconds from now.
    timeout: Option<i64>,
    /// Whether processes go on; without, the sandbox starts anew from its files.
    #[serde(default = "yes")]
    memory: bool,
}

fn yes() -> bool {
    true
}

pub(crate) async fn connect(
    extract::State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<Response, Refusal> {
    let request: Connect = body(request).await?;
    let timeout = timeout(
        request.timeout,
        limits::DEFAULT_TIMEOUT_S,
        sandboxes.config.max_timeout_s,
    )?;
    let entry = sandboxes.find(&id, owner).await?;
    let resumed = sandboxes.resume(&entry, timeout, request.memory).await?;
    let status = if resumed.is_some() {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(resumed_answer(&sandboxes, &entry, resumed))).into_response())
}

pub(crate) async fn resume(
    extract::State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<Response, Refusal> {
    let request: Connect = body(request).await?;
    let timeout = timeout(
        request.timeout,
        limits::DEFAULT_TIMEOUT_V1_S,
        sandboxes.config.max_timeout_s,
    )?;
    let entry = sandboxes.find(&id, owner).await?;
    let resumed = sandboxes.resume(&entry, timeout, request.memory).await?;
    if resumed.is_none() {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("Sandbox \"{id}\" is running already"),
        ));
    }
    Ok((StatusCode::CREATED, Json(resumed_answer(&sandboxes, &entry, resumed))).into_response())
}

pub(crate) async fn pause(
    extract::State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<StatusCode, Refusal> {
    let request: PauseSandbox = body(request).await?;
    let entry = sandboxes.find(&id, owner).await?;
    if !sandboxes.pause(&entry, request.memory.unwrap_or(true)).await? {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("Sandbox \"{id}\" is paused already"),
        ));
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn kill(
    extract::State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let entry = sandboxes.find(&id, owner).await?;
    if sandboxes.kill(&entry, "it was shut down").await {
        Ok(StatusCode::NO_CONTENT)
    } else {
        // Its timeout, or another caller, was faster.
        Err(Refusal::no_sandbox(&entry.id, entry.end_reason().as_deref()))
    }
}

pub(crate) async fn set_timeout(
    extract::State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<StatusCode, Refusal> {
    let request: SetTimeout = body(request).await?;
    let timeout = timeout(Some(request.timeout), 0, sandboxes.config.max_timeout_s)?;
    let entry = sandboxes.find(&id, owner).await?;
    refuse_paused(&entry)?;
    entry.set_timeout(timeout);
    let message = format!("timeout set to {} s from now", timeout.as_secs());
    entry.events.note(Event::new("timeout set", message));
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn refresh(
    extract::State(sandboxes): Table,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<StatusCode, Refusal> {
    let request: Refresh = body(request).await?;
    let timeout = timeout(
        request.duration,
        limits::DEFAULT_TIMEOUT_V1_S,
        sandboxes.config.max_timeout_s,
    )?;
    let entry = sandboxes.find(&id, owner).await?;
    refuse_paused(&entry)?;
    entry.extend_timeout(timeout);
    Ok(StatusCode::NO_CONTENT)
}

/// A paused sandbox has no timeout. SDK 2.0.0 learns from this refusal that it has to resume.
fn refuse_paused(entry: &Entry) -> Result<(), Refusal> {
    if entry.state() == State::Running {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::CONFLICT,
        format!("Sandbox \"{}\" is paused, connect to it first", entry.id),
    ))
}

fn resumed_answer(sandboxes: &Sandboxes, entry: &Entry, resumed: Option<Resumed>) -> Sandbox {
    Sandbox {
        resumed_from: resumed.map(|resumed| resumed.name().to_owned()),
        ..answer(sandboxes, entry)
    }
}

/// What a client is told of a sandbox that it made or connects to.
pub(crate) fn answer(sandboxes: &Sandboxes, entry: &Entry) -> Sandbox {
    Sandbox {
        template_id: entry.recipe.template.clone(),
        sandbox_id: entry.id.clone(),
        client_id: names::CLIENT_ID.into(),
        envd_version: names::ENVD_VERSION.into(),
        alias: Some(entry.recipe.template_name().to_owned()),
        envd_access_token: entry.recipe.token.clone(),
        traffic_access_token: entry.recipe.traffic_token.clone(),
        domain: sandboxes.config.domain.clone(),
        resumed_from: None,
    }
}
