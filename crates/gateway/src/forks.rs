//! Forks: sandboxes that go on from the files of another.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http::StatusCode;
use sandhold_runtime::Root;
use sandhold_wire::{
    limits::{DEFAULT_TIMEOUT_V1_S, FORKS},
    names::OWN_METADATA,
    rest::{ForkResult, ForkSandbox},
};

use crate::{
    api::body,
    create::{fresh_tokens, new_id, start, timeout},
    entry::{Entry, Recipe},
    error::Refusal,
    events::Event,
    lifecycle::answer,
    limits::FORKS_PARALLEL,
    owner::Owner,
    sandboxes::Sandboxes,
};

/// `POST /sandboxes/{id}/fork`
pub(crate) async fn fork(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<Response, Refusal> {
    let request: ForkSandbox = body(request).await?;
    let count = request.count.unwrap_or(1);
    let count = usize::try_from(count)
        .ok()
        .filter(|count| (1..=FORKS).contains(count))
        .ok_or_else(|| Refusal::bad_request(format!("count is {count}; 1 to {FORKS} is allowed")))?;
    let timeout = timeout(request.timeout, DEFAULT_TIMEOUT_V1_S, sandboxes.config.max_timeout_s)?;
    let entry = sandboxes.find(&id, owner).await?;
    // In a task of its own: a caller that goes away leaves no fork that nobody knows.
    let task = tokio::spawn(async move {
        sandboxes.check_layers()?;
        let root = {
            let state = entry.state.lock().await;
            entry.check_not_ending()?;
            entry.checkpoint_now(&state).await?
        };
        let message = format!("forked {count} times");
        entry.events.note(Event::new("forked", message));
        let forks = futures::stream::iter(0..count).map(|_| one(&sandboxes, &entry, &root, timeout));
        let forks = forks.buffered(FORKS_PARALLEL).map(|made| match made {
            Ok(fork) => ForkResult {
                sandbox: Some(answer(&sandboxes, &fork)),
                error: None,
            },
            Err(refusal) => ForkResult {
                sandbox: None,
                error: Some(refusal.into_error()),
            },
        });
        Ok::<_, Refusal>(forks.collect::<Vec<_>>().await)
    });
    let forks = task
        .await
        .unwrap_or_else(|_| Err(Refusal::internal("the fork broke off")))?;
    Ok((StatusCode::CREATED, Json(forks)).into_response())
}

async fn one(
    sandboxes: &Arc<Sandboxes>,
    source: &Entry,
    root: &Root,
    timeout: std::time::Duration,
) -> Result<Arc<Entry>, Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut recipe = Recipe {
        started_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        ..source.recipe_live()
    };
    recipe.metadata.retain(|name, _| !name.starts_with(OWN_METADATA));
    fresh_tokens(&mut recipe)?;
    let id = new_id()?;
    let runtime = start(sandboxes, &id, &recipe, root.clone()).await?;
    let fork = Entry::running(id, recipe, runtime, timeout);
    fork.open_way_out(&sandboxes.config.egress);
    fork.events
        .note(Event::new("forked", format!("forked from sandbox {}", source.id)));
    Ok(sandboxes.insert(fork))
}
