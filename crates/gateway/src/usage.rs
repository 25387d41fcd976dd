//! Calls that tell what sandboxes use.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
};
use futures::StreamExt;
use sandhold_wire::rest::{SandboxMetric, State as SandboxState};

use crate::{entry::Entry, error::Refusal, limits::METRICS_BATCH, owner::Owner, query::pairs, sandboxes::Sandboxes};

/// How many sandboxes are looked at together.
const TOGETHER: usize = 8;

/// `GET /sandboxes/{id}/metrics`
pub(crate) async fn of_one(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Vec<SandboxMetric>>, Refusal> {
    let (mut start, mut end) = (None, None);
    for (name, value) in pairs(request.uri().query().unwrap_or_default()) {
        let slot = match name.as_str() {
            "start" => &mut start,
            "end" => &mut end,
            _ => continue,
        };
        let seconds: i64 = value
            .parse()
            .map_err(|_| Refusal::bad_request(format!("{name} \"{value}\" is not a time in Unix seconds")))?;
        *slot = Some(seconds);
    }
    let entry = sandboxes.find(&id, owner).await?;
    freshen(&entry).await;
    Ok(Json(entry.history.between(start, end, &entry.recipe.resources)))
}

/// `GET /sandboxes/metrics`. Sandboxes that are not the caller's are left out.
pub(crate) async fn of_many(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Json<serde_json::Value>, Refusal> {
    let mut ids = Vec::new();
    for (name, value) in pairs(request.uri().query().unwrap_or_default()) {
        if name == "sandbox_ids" {
            ids.extend(value.split(',').filter(|id| !id.is_empty()).map(str::to_owned));
        }
    }
    if ids.is_empty() || ids.len() > METRICS_BATCH {
        return Err(Refusal::bad_request(format!(
            "sandbox_ids names {} sandboxes; it can name 1 to {METRICS_BATCH}",
            ids.len()
        )));
    }
    let metrics: BTreeMap<String, SandboxMetric> = futures::stream::iter(ids)
        .map(|id| {
            let entry = sandboxes.get(&id).filter(|e| e.owner() == owner);
            async move {
                let entry = entry?;
                freshen(&entry).await;
                Some((id, entry.history.last(&entry.recipe.resources)?))
            }
        })
        .buffer_unordered(TOGETHER)
        .filter_map(std::future::ready)
        .collect()
        .await;
    Ok(Json(serde_json::json!({"sandboxes": metrics})))
}

/// Looks now if the last look is old.
async fn freshen(entry: &Entry) {
    if entry.history.ask()
        && entry.state() == SandboxState::Running
        && let Some(runtime) = entry.runtime()
    {
        let recipe = &entry.recipe;
        entry
            .history
            .look(&*runtime, recipe.token.as_deref(), &recipe.resources)
            .await;
    }
}
