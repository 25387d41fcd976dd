//! Calls that tell what sandboxes use.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
};
use futures::StreamExt;
use sandhold_runtime::Resources;
use sandhold_wire::{
    caps::{Cap, Caps},
    rest::{LimitsReport, SandboxMetric, State as SandboxState},
};

use crate::{
    caps::of_resources,
    entry::Entry,
    error::Refusal,
    history::Pressure,
    limits::{MET_TIME, METRICS_BATCH},
    owner::Owner,
    query::pairs,
    sandboxes::Sandboxes,
};

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

/// `GET /sandboxes/{id}/limits?withinMs=n`, an addition of Sandhold. A sandbox that has ended met none.
pub(crate) async fn limits(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<LimitsReport>, Refusal> {
    let mut time = MET_TIME;
    for (name, value) in pairs(request.uri().query().unwrap_or_default()) {
        if name == "withinMs" {
            let ms = value
                .parse()
                .map_err(|_| Refusal::bad_request(format!("withinMs \"{value}\" is not a number of milliseconds")))?;
            time = Duration::from_millis(ms);
        }
    }
    let Ok(entry) = sandboxes.find(&id, owner).await else {
        return Ok(Json(LimitsReport::default()));
    };
    let mut report = LimitsReport {
        limits: entry.recipe.caps().to_rest(),
        ..LimitsReport::default()
    };
    let Some(runtime) = entry.runtime().filter(|_| entry.state() == SandboxState::Running) else {
        return Ok(Json(report));
    };
    let token = entry.recipe.token.as_deref();
    let Pressure { usage, seen, met } = entry.history.pressure(&*runtime, token, time).await;
    let mut used = Caps::default();
    if let Some(usage) = usage {
        let own = Resources {
            memory_bytes: Some(usage.memory_bytes),
            pids: Some(usage.pids),
            ..Resources::default()
        };
        used = of_resources(&own);
        report.throttled_ms = usage.met.throttled_us.map(|us| us / 1000);
        for (cap, counted, times) in [
            (Cap::MemoryMb, usage.met.memory, met[0]),
            (Cap::Pids, usage.met.pids, met[1]),
        ] {
            if counted.is_some() {
                report.met.insert(cap.rest_name().to_owned(), times);
            }
        }
    }
    if let Some(seen) = seen {
        let own = Resources {
            disk_bytes: Some(seen.disk_used),
            inodes: Some(seen.inodes_used),
            ..Resources::default()
        };
        #[expect(clippy::cast_precision_loss, reason = "the number of jobs is small")]
        let jobs = seen.jobs as f64;
        used = used.or(&of_resources(&own)).with(Cap::Jobs, Some(jobs));
        report.shm_free = seen.shm_free;
    }
    report.used = used.to_rest();
    Ok(Json(report))
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
