//! The REST API: paths, bodies and statuses as E2B has them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use humantime::format_rfc3339_millis;
use sandhold_wire::{
    limits, names,
    rest::{
        ConnectSandbox, Isolation, Lifecycle, ListedSandbox, NewSandbox, Refresh, Sandbox, SandboxDetail, SetTimeout,
        State as SandboxState,
    },
    signature::{Operation, SignatureError, same, sign},
};
use serde::de::DeserializeOwned;

use crate::{
    Gateway,
    create::{create, timeout},
    error::Refusal,
    forward::refuse,
    keys::Keys,
    query::{FileQuery, ListQuery},
    route::{Route, route, text},
    sandboxes::{Entry, Sandboxes},
};

const MIB: u64 = 1 << 20;

/// The service. `keys` are asked for in calls of the API; without them whoever reaches the service may call.
pub(crate) fn router(gateway: Gateway, keys: Option<Arc<Keys>>) -> Router {
    Router::new()
        .route("/health", get(|| async { StatusCode::NO_CONTENT }))
        .route("/v2/sandboxes", post(create_v2).get(list))
        .route("/sandboxes", post(create_v1).get(list))
        .route("/sandboxes/{id}", get(detail))
        .route("/sandboxes/{id}", delete(kill))
        .route("/v2/sandboxes/{id}/connect", post(connect))
        .route("/sandboxes/{id}/connect", post(connect))
        .route("/sandboxes/{id}/resume", post(resume))
        .route("/sandboxes/{id}/pause", post(pause))
        .route("/sandboxes/{id}/timeout", post(set_timeout))
        .route("/sandboxes/{id}/refreshes", post(refresh))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(limits::REST_BODY))
        .with_state(gateway.sandboxes.clone())
        .layer(middleware::from_fn_with_state(keys, ask_for_key))
        .layer(middleware::from_fn_with_state(gateway, to_sandbox))
}

/// Asks calls of the API for a key, where keys are asked.
async fn ask_for_key(State(keys): State<Option<Arc<Keys>>>, request: Request, next: Next) -> Response {
    let Some(keys) = keys.filter(|_| request.uri().path() != "/health") else {
        return next.run(request).await;
    };
    match text(request.headers(), names::API_KEY_HEADER) {
        Some(key) if keys.works(key) => next.run(request).await,
        Some(_) => Refusal::new(StatusCode::UNAUTHORIZED, "the API key is not one of this server's").into_response(),
        None => Refusal::new(StatusCode::UNAUTHORIZED, "the X-API-Key header is missing").into_response(),
    }
}

/// Sends requests for a sandbox there.
async fn to_sandbox(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    // Clients are told the domain with its port; a host name is compared without.
    let domain = gateway
        .sandboxes
        .config
        .domain
        .as_deref()
        .and_then(|d| d.split(':').next());
    match route(request.uri(), request.headers(), domain) {
        Route::Api => next.run(request).await,
        Route::Sandbox { id, port } => gateway.forwarder.forward(&id, port, request).await,
        Route::BadPort { id, port } => refuse(
            StatusCode::BAD_REQUEST,
            &id,
            None,
            &format!("port \"{port}\" is not between 1 and 65535"),
        ),
        Route::SignedFile => match signed_for(&gateway.sandboxes, &request) {
            Some(entry) => gateway.forwarder.forward(&entry.id, names::ENVD_PORT, request).await,
            None => Refusal::new(StatusCode::UNAUTHORIZED, SignatureError::Invalid.to_string()).into_response(),
        },
    }
}

/// The sandbox whose token a file URL was signed with. The daemon checks again, also whether the URL has expired.
fn signed_for(sandboxes: &Sandboxes, request: &Request) -> Option<Arc<Entry>> {
    let query = FileQuery::parse(request.uri().query().unwrap_or_default());
    let operation = if matches!(*request.method(), Method::GET | Method::HEAD) {
        Operation::Read
    } else {
        Operation::Write
    };
    let given = query.signature?;
    sandboxes.all().into_iter().find(|entry| {
        entry.token.as_deref().is_some_and(|token| {
            let wanted = sign(&query.path, operation, &query.username, token, query.expires_at);
            same(given.as_bytes(), wanted.as_bytes())
        })
    })
}

/// Parts of E2B's API that this server does not have, by the path's first word, and what to do instead.
const NOT_BUILT: [(&str, &str); 5] = [
    (
        "templates",
        "templates cannot be built or listed here yet; create sandboxes from \"base\"",
    ),
    (
        "snapshots",
        "snapshots are not built yet; keep what you need by downloading it",
    ),
    (
        "volumes",
        "volumes are not built yet; upload files into the sandbox instead",
    ),
    (
        "volumecontent",
        "volumes are not built yet; upload files into the sandbox instead",
    ),
    (
        "secrets",
        "secrets are not built yet; pass envVars to the sandbox instead",
    ),
];
/// The same for what follows `/sandboxes/{id}/`.
const NOT_BUILT_OF_SANDBOX: [(&str, &str); 4] = [
    ("snapshots", NOT_BUILT[1].1),
    (
        "fork",
        "forks are not built yet; create another sandbox and write the files again",
    ),
    (
        "network",
        "this engine gives a sandbox no network but its own loopback, there is nothing to change",
    ),
    (
        "logs",
        "this server keeps no logs of a sandbox; read the output of its processes",
    ),
];

async fn unknown(request: Request) -> Refusal {
    let path = request.uri().path();
    let mut words = path.split('/').skip(1).skip_while(|w| matches!(*w, "v2" | "v3"));
    let (first, third) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
    let missing = if first == "sandboxes" {
        NOT_BUILT_OF_SANDBOX.iter().find(|(word, _)| *word == third)
    } else {
        NOT_BUILT.iter().find(|(word, _)| *word == first)
    };
    if let Some((_, what)) = missing {
        return Refusal::new(StatusCode::NOT_IMPLEMENTED, *what);
    }
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!(
            "{} {} is not part of this server's API",
            request.method(),
            request.uri().path()
        ),
    )
}

/// Reads a JSON body; an absent one is an empty object, as E2B has it.
async fn body<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let bytes = axum::body::to_bytes(body, limits::REST_BODY).await.map_err(|_| {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {} bytes", limits::REST_BODY),
        )
    })?;
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text)
        .map_err(|error| Refusal::bad_request(format!("the body is not what this call takes: {error}")))
}

async fn create_v2(state: State<Arc<Sandboxes>>, request: Body) -> Result<Response, Refusal> {
    created(state, request, limits::DEFAULT_TIMEOUT_S).await
}

async fn create_v1(state: State<Arc<Sandboxes>>, request: Body) -> Result<Response, Refusal> {
    created(state, request, limits::DEFAULT_TIMEOUT_V1_S).await
}

async fn created(State(sandboxes): State<Arc<Sandboxes>>, request: Body, timeout: u64) -> Result<Response, Refusal> {
    let request: NewSandbox = body(request).await?;
    let entry = create(&sandboxes, request, timeout).await?;
    Ok((StatusCode::CREATED, Json(answer(&sandboxes, &entry))).into_response())
}

async fn connect(
    State(sandboxes): State<Arc<Sandboxes>>,
    Path(id): Path<String>,
    request: Body,
) -> Result<Response, Refusal> {
    let request: ConnectSandbox = body(request).await?;
    let timeout = timeout(
        request.timeout,
        limits::DEFAULT_TIMEOUT_S,
        sandboxes.config.max_timeout_s,
    )?;
    let entry = sandboxes.find(&id).await?;
    let status = if entry.resume(timeout).await? {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(answer(&sandboxes, &entry))).into_response())
}

async fn resume(
    State(sandboxes): State<Arc<Sandboxes>>,
    Path(id): Path<String>,
    request: Body,
) -> Result<Response, Refusal> {
    let request: ConnectSandbox = body(request).await?;
    let timeout = timeout(
        request.timeout,
        limits::DEFAULT_TIMEOUT_V1_S,
        sandboxes.config.max_timeout_s,
    )?;
    let entry = sandboxes.find(&id).await?;
    if !entry.resume(timeout).await? {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("Sandbox \"{id}\" is running already"),
        ));
    }
    Ok((StatusCode::CREATED, Json(answer(&sandboxes, &entry))).into_response())
}

async fn pause(State(sandboxes): State<Arc<Sandboxes>>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let entry = sandboxes.find(&id).await?;
    if !entry.pause().await? {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("Sandbox \"{id}\" is paused already"),
        ));
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(State(sandboxes): State<Arc<Sandboxes>>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let entry = sandboxes.find(&id).await?;
    sandboxes.kill(&entry, "it was shut down").await;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_timeout(
    State(sandboxes): State<Arc<Sandboxes>>,
    Path(id): Path<String>,
    request: Body,
) -> Result<StatusCode, Refusal> {
    let request: SetTimeout = body(request).await?;
    let timeout = timeout(Some(request.timeout), 0, sandboxes.config.max_timeout_s)?;
    sandboxes.find(&id).await?.set_timeout(timeout);
    Ok(StatusCode::NO_CONTENT)
}

async fn refresh(
    State(sandboxes): State<Arc<Sandboxes>>,
    Path(id): Path<String>,
    request: Body,
) -> Result<StatusCode, Refusal> {
    let request: Refresh = body(request).await?;
    let timeout = timeout(
        request.duration,
        limits::DEFAULT_TIMEOUT_V1_S,
        sandboxes.config.max_timeout_s,
    )?;
    sandboxes.find(&id).await?.extend_timeout(timeout);
    Ok(StatusCode::NO_CONTENT)
}

async fn detail(
    State(sandboxes): State<Arc<Sandboxes>>,
    Path(id): Path<String>,
) -> Result<Json<SandboxDetail>, Refusal> {
    let entry = sandboxes.find(&id).await?;
    let isolation = sandboxes.info().isolation;
    Ok(Json(SandboxDetail {
        listed: listed(&entry),
        envd_access_token: entry.token.clone(),
        domain: sandboxes.config.domain.clone(),
        allow_internet_access: Some(false),
        network: entry.network.clone(),
        lifecycle: Some(Lifecycle {
            auto_resume: entry.auto_resume,
            on_timeout: if entry.auto_pause { "pause" } else { "kill" }.into(),
        }),
        isolation: Some(Isolation {
            level: isolation.level,
            detail: isolation.detail,
            warnings: isolation.warnings,
        }),
    }))
}

async fn list(State(sandboxes): State<Arc<Sandboxes>>, request: Request) -> Result<Response, Refusal> {
    let query = ListQuery::parse(request.uri().query().unwrap_or_default())?;
    let after = query
        .started_after
        .as_deref()
        .map(|text| {
            humantime::parse_rfc3339_weak(text)
                .map_err(|_| Refusal::bad_request(format!("startedAfter \"{text}\" is not an RFC 3339 time")))
        })
        .transpose()?;
    let mut entries = sandboxes.all();
    entries.retain(|e| {
        (query.states.is_empty() || query.states.contains(&e.state()))
            && query.template.as_ref().is_none_or(|t| *t == e.template)
            && after.is_none_or(|at| e.started > at)
            && query.metadata.iter().all(|(k, v)| e.metadata.get(k) == Some(v))
    });
    let key = |e: &Entry| (e.started, e.id.clone());
    entries.sort_by_key(|e| key(e));
    if !query.ascending {
        entries.reverse();
    }
    let start = match &query.next_token {
        None => 0,
        Some(token) => {
            let after =
                page_key(token).ok_or_else(|| Refusal::bad_request("nextToken was not given by this server"))?;
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

/// Where a page ended: the start in nanoseconds and the id of its last sandbox. Sandboxes that start or end between two
/// pages shift nothing.
fn page_token(entry: &Entry) -> String {
    let nanos = entry
        .started
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    format!("{nanos}-{}", entry.id)
}

fn page_key(token: &str) -> Option<(SystemTime, String)> {
    let (nanos, id) = token.split_once('-')?;
    let since = Duration::from_nanos(nanos.parse().ok()?);
    Some((SystemTime::UNIX_EPOCH.checked_add(since)?, id.to_owned()))
}

fn answer(sandboxes: &Sandboxes, entry: &Entry) -> Sandbox {
    Sandbox {
        template_id: entry.template.clone(),
        sandbox_id: entry.id.clone(),
        client_id: String::new(),
        envd_version: names::ENVD_VERSION.into(),
        alias: Some(entry.template.clone()),
        envd_access_token: entry.token.clone(),
        traffic_access_token: entry.traffic_token.clone(),
        domain: sandboxes.config.domain.clone(),
    }
}

fn listed(entry: &Entry) -> ListedSandbox {
    ListedSandbox {
        template_id: entry.template.clone(),
        sandbox_id: entry.id.clone(),
        client_id: String::new(),
        started_at: format_rfc3339_millis(entry.started).to_string(),
        end_at: format_rfc3339_millis(entry.end_at()).to_string(),
        cpu_count: entry.resources.cpus.unwrap_or_default(),
        memory_mb: entry.resources.memory_bytes.unwrap_or_default() / MIB,
        disk_size_mb: entry.resources.disk_bytes.unwrap_or_default() / MIB,
        state: entry.state(),
        envd_version: names::ENVD_VERSION.into(),
        alias: Some(entry.template.clone()),
        metadata: Some(entry.metadata.clone()),
    }
}
