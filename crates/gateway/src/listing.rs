//! Calls that tell about sandboxes: one, many, and what happened to one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue};
use humantime::format_rfc3339_millis;
use sandhold_wire::{
    limits, names,
    rest::{Isolation, Lifecycle, ListedSandbox, SandboxDetail, SandboxLogs, State as SandboxState},
};

use sandhold_egress::Mode;

use crate::{
    create::boot_warnings,
    entry::Entry,
    error::Refusal,
    events::Event,
    limits::LOGS_PAGE,
    owner::Owner,
    query::{ListQuery, pairs},
    sandboxes::Sandboxes,
};

const MIB: u64 = 1 << 20;

pub(crate) async fn detail(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Json<SandboxDetail>, Refusal> {
    let entry = sandboxes.find(&id, owner).await?;
    let mut isolation = sandboxes.info().isolation;
    isolation
        .warnings
        .extend(entry.runtime().map(|r| boot_warnings(&*r)).unwrap_or_default());
    Ok(Json(SandboxDetail {
        listed: listed(&entry),
        envd_access_token: entry.recipe.token.clone(),
        domain: sandboxes.config.domain.clone(),
        allow_internet_access: Some(entry.way_out.mode(&sandboxes.config.egress) != Mode::None),
        network: Some(entry.way_out.shown()),
        lifecycle: Some(Lifecycle {
            auto_resume: entry.recipe.auto_resume,
            on_timeout: if entry.recipe.auto_pause { "pause" } else { "kill" }.into(),
        }),
        pause_mode: (entry.state() == SandboxState::Paused).then(|| {
            let files = entry.runtime().is_none();
            if files { "filesystem" } else { "full" }.into()
        }),
        isolation: Some(Isolation {
            level: isolation.level,
            detail: isolation.detail,
            warnings: isolation.warnings,
        }),
        limits: Some(entry.recipe.caps().to_rest()),
    }))
}

pub(crate) async fn list(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = ListQuery::parse(request.uri().query().unwrap_or_default())?;
    let after = query
        .started_after
        .as_deref()
        .map(|text| {
            humantime::parse_rfc3339_weak(text)
                .map_err(|_| Refusal::bad_request(format!("startedAfter \"{text}\" is not an RFC 3339 time")))
        })
        .transpose()?;
    let mut entries = sandboxes.all_of(owner);
    entries.retain(|e| {
        (query.states.is_empty() || query.states.contains(&e.state()))
            && query
                .template
                .as_ref()
                .is_none_or(|t| *t == e.recipe.template || t == e.recipe.template_name())
            && after.is_none_or(|at| e.started() > at)
            && query.metadata.iter().all(|(k, v)| e.recipe.metadata.get(k) == Some(v))
    });
    let key = |e: &Entry| (e.started(), e.id.clone());
    entries.sort_by_key(|e| key(e));
    if !query.ascending {
        entries.reverse();
    }
    let start = match &query.next_token {
        None => 0,
        Some(token) => {
            let after =
                page_key(token, owner).ok_or_else(|| Refusal::bad_request("nextToken was not given by this server"))?;
            entries.partition_point(|e| {
                if query.ascending {
                    key(e) <= after
                } else {
                    key(e) >= after
                }
            })
        }
    };
    let limit = query.limit.unwrap_or(limits::LIST_PAGE);
    let page: Vec<_> = entries[start..].iter().take(limit).collect();
    let next = (start + page.len() < entries.len())
        .then(|| page.last().map(|e| page_token(e)))
        .flatten();
    let running = entries.iter().filter(|e| e.state() == SandboxState::Running).count();
    let mut response = Json(page.iter().map(|e| listed(e)).collect::<Vec<_>>()).into_response();
    let headers = response.headers_mut();
    headers.insert("x-total-running", HeaderValue::from(running));
    if let Some(token) = next.and_then(|t| HeaderValue::from_str(&t).ok()) {
        headers.insert(HeaderName::from_static(names::NEXT_TOKEN_HEADER), token);
    }
    Ok(response)
}

/// Where a page ended: the start in nanoseconds and the id of its last sandbox, and whose page it was. Sandboxes that start or end between two
/// pages shift nothing.
fn page_token(entry: &Entry) -> String {
    let nanos = entry
        .started()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let owner = entry.owner().number().unwrap_or_default();
    format!("{nanos}-{}-{owner}", entry.id)
}

fn page_key(token: &str, owner: Owner) -> Option<(SystemTime, String)> {
    let (nanos, rest) = token.split_once('-')?;
    let (id, number) = rest.split_once('-')?;
    if number.parse() != Ok(owner.number().unwrap_or_default()) {
        return None;
    }
    let since = Duration::from_nanos(nanos.parse().ok()?);
    Some((SystemTime::UNIX_EPOCH.checked_add(since)?, id.to_owned()))
}

fn listed(entry: &Entry) -> ListedSandbox {
    ListedSandbox {
        template_id: entry.recipe.template.clone(),
        sandbox_id: entry.id.clone(),
        client_id: names::CLIENT_ID.into(),
        started_at: format_rfc3339_millis(entry.started()).to_string(),
        end_at: format_rfc3339_millis(entry.end_at()).to_string(),
        cpu_count: entry.recipe.resources.cpus.unwrap_or_default(),
        memory_mb: entry.recipe.resources.memory_bytes.unwrap_or_default() / MIB,
        disk_size_mb: entry.recipe.resources.disk_bytes.unwrap_or_default() / MIB,
        state: entry.state(),
        envd_version: names::ENVD_VERSION.into(),
        alias: Some(entry.recipe.template_name().to_owned()),
        metadata: Some(entry.recipe.metadata.clone()),
        kept_bytes: entry.get_kept().map(|kept| kept.bytes),
    }
}

/// The query of both versions of the logs.
struct LogsQuery {
    /// Milliseconds since 1970.
    from: Option<u128>,
    limit: usize,
    backward: bool,
    level: Option<String>,
    search: Option<String>,
}

impl LogsQuery {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parsed = Self {
            from: None,
            limit: LOGS_PAGE,
            backward: false,
            level: None,
            search: None,
        };
        for (name, value) in pairs(query) {
            let bad = || Refusal::bad_request(format!("{name} \"{value}\" is not what this call takes"));
            match name.as_str() {
                "start" | "cursor" => parsed.from = Some(value.parse().map_err(|_| bad())?),
                "limit" => parsed.limit = value.parse::<usize>().map_err(|_| bad())?.min(LOGS_PAGE),
                "direction" if value == "backward" => parsed.backward = true,
                "direction" if value != "forward" => return Err(bad()),
                "level" => parsed.level = Some(value),
                "search" if !value.is_empty() => parsed.search = Some(value),
                _ => {}
            }
        }
        Ok(parsed)
    }

    fn select(&self, mut events: Vec<Event>) -> Vec<Event> {
        events.retain(|e| {
            self.from.is_none_or(|at| {
                if self.backward {
                    e.millis() <= at
                } else {
                    e.millis() >= at
                }
            }) && self.level.as_deref().is_none_or(|level| rank(e.level()) >= rank(level))
                && self.search.as_deref().is_none_or(|text| e.message.contains(text))
        });
        if self.backward {
            events.reverse();
        }
        events.truncate(self.limit);
        events
    }
}

/// The order of the levels.
fn rank(level: &str) -> usize {
    ["debug", "info", "warn", "error"]
        .iter()
        .position(|l| *l == level)
        .unwrap_or(0)
}

pub(crate) async fn logs_v1(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<serde_json::Value>, Refusal> {
    let query = LogsQuery::parse(request.uri().query().unwrap_or_default())?;
    let events = query.select(sandboxes.events(&id, owner).await?);
    let lines: Vec<_> = events
        .iter()
        .map(|e| serde_json::json!({"timestamp": e.timestamp(), "line": e.message}))
        .collect();
    let entries: Vec<_> = events.iter().map(Event::entry).collect();
    Ok(Json(serde_json::json!({"logs": lines, "logEntries": entries})))
}

pub(crate) async fn logs_v2(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<SandboxLogs>, Refusal> {
    let query = LogsQuery::parse(request.uri().query().unwrap_or_default())?;
    let events = query.select(sandboxes.events(&id, owner).await?);
    Ok(Json(SandboxLogs {
        logs: events.iter().map(Event::entry).collect(),
    }))
}
