//! The service: who may call, what is forwarded, and which path is what.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post, put},
};
use http::StatusCode;
use sandhold_wire::{limits, names, signature::SignatureError};
use serde::de::DeserializeOwned;

use crate::{
    Gateway, checkpoints,
    entry::Entry,
    error::Refusal,
    forks,
    forward::refuse,
    keys::Keys,
    lifecycle, listing, network,
    owner::Owner,
    pages,
    query::is_signed,
    route::{Route, route, text},
    sandboxes::Sandboxes,
    snapshots, status, templates, usage,
};

/// Who may call.
#[derive(Clone)]
pub(crate) enum Access {
    /// Whoever reaches the service, as this owner.
    As(Owner),
    /// Holders of a key, each as its own owner.
    Keys(Arc<Keys>),
}

/// The service. `beside` is served on the API's host too; it checks its callers itself.
pub(crate) fn router(gateway: Gateway, access: Access, beside: Router) -> Router {
    let open = Router::new()
        .route("/health", get(|| async { StatusCode::NO_CONTENT }))
        .route("/metrics", get(status::metrics))
        // Who has its URL was let in when it was asked for.
        .route("/templates/{id}/files/{hash}/upload", put(templates::put))
        .with_state(gateway.sandboxes.clone());
    let only = match &access {
        Access::As(owner) => Some(*owner),
        Access::Keys(_) => None,
    };
    Router::new()
        .route("/v2/sandboxes", post(lifecycle::create_v2).get(listing::list))
        .route("/sandboxes", post(lifecycle::create_v1).get(listing::list))
        .route("/sandboxes/metrics", get(usage::of_many))
        .route("/sandboxes/{id}", get(listing::detail))
        .route("/sandboxes/{id}", delete(lifecycle::kill))
        .route("/sandboxes/{id}/metrics", get(usage::of_one))
        .route("/sandboxes/{id}/limits", get(usage::limits))
        .route("/sandboxes/{id}/logs", get(listing::logs_v1))
        .route("/v2/sandboxes/{id}/logs", get(listing::logs_v2))
        .route("/v2/sandboxes/{id}/connect", post(lifecycle::connect))
        .route("/sandboxes/{id}/connect", post(lifecycle::connect))
        .route("/sandboxes/{id}/resume", post(lifecycle::resume))
        .route("/sandboxes/{id}/pause", post(lifecycle::pause))
        .route("/sandboxes/{id}/timeout", post(lifecycle::set_timeout))
        .route("/sandboxes/{id}/refreshes", post(lifecycle::refresh))
        .route("/sandboxes/{id}/network", get(network::show).put(network::update))
        .route("/sandboxes/{id}/snapshots", post(snapshots::create))
        .route("/sandboxes/{id}/fork", post(forks::fork))
        .route(
            "/sandboxes/{id}/checkpoints",
            post(checkpoints::create).get(checkpoints::list),
        )
        .route("/sandboxes/{id}/rollback", post(checkpoints::roll_back))
        .route("/sandboxes/{id}/diff", get(checkpoints::diff))
        .route("/snapshots", get(snapshots::list))
        .route("/v3/templates", post(templates::request))
        .route("/v2/templates", post(templates::request).get(templates::list))
        .route("/templates", post(templates::v1).get(templates::list))
        .route("/default-templates", get(templates::defaults))
        .route("/templates/aliases/{alias}", get(templates::alias))
        .route(
            "/templates/tags",
            post(templates::assign_tags).delete(templates::unassign_tags),
        )
        .route(
            "/templates/{id}",
            get(templates::get).patch(templates::update).delete(templates::delete),
        )
        .route("/v2/templates/{id}", patch(templates::update))
        .route("/templates/{id}/tags", get(templates::tags))
        .route("/templates/{id}/files/{hash}", get(templates::link))
        .route("/v2/templates/{id}/builds/{build}", post(templates::start_build))
        .route("/templates/{id}/builds/{build}/status", get(templates::build_status))
        .route("/templates/{id}/builds/{build}/logs", get(templates::build_logs))
        .route("/templates/{id}/builds/{build}/cancel", post(templates::cancel_build))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::max(limits::REST_BODY))
        .with_state(gateway.sandboxes.clone())
        .layer(middleware::from_fn_with_state(access, find_owner))
        .merge(open)
        .merge(beside)
        .layer(middleware::from_fn_with_state((gateway, only), to_sandbox))
}

/// Finds whose a call of the API is; without an owner it goes no further.
async fn find_owner(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    let owner = match &access {
        Access::As(owner) => *owner,
        Access::Keys(keys) => match text(request.headers(), names::API_KEY_HEADER).map(|key| keys.owner_of(key)) {
            Some(Some(owner)) => owner,
            Some(None) => {
                return Refusal::new(StatusCode::UNAUTHORIZED, "the API key is not one of this server's")
                    .into_response();
            }
            None => {
                return Refusal::new(StatusCode::UNAUTHORIZED, "the X-API-Key header is missing").into_response();
            }
        },
    };
    request.extensions_mut().insert(owner);
    next.run(request).await
}

/// Sends requests for a sandbox there. With `only`, sandboxes of other owners are not there.
async fn to_sandbox(State((gateway, only)): State<(Gateway, Option<Owner>)>, request: Request, next: Next) -> Response {
    let sandboxes = &gateway.sandboxes;
    let route = route(request.uri(), request.headers(), sandboxes.domain());
    if route == Route::Api {
        sandboxes.totals.calls.fetch_add(1, Ordering::Relaxed);
        return next.run(request).await;
    }
    sandboxes.totals.forwarded.fetch_add(1, Ordering::Relaxed);
    let page = pages::is_wanted(request.headers());
    let response = match route {
        Route::Sandbox { id, port } => gateway.forwarder.forward(&id, port, only, request).await,
        Route::BadPort { id, port } => refuse(
            StatusCode::BAD_REQUEST,
            &id,
            None,
            &format!("port \"{port}\" is not between 1 and 65535"),
        ),
        Route::SignedFile | Route::Api => match signed_for(sandboxes, only, &request) {
            Some(entry) => {
                gateway
                    .forwarder
                    .forward(&entry.id, names::ENVD_PORT, only, request)
                    .await
            }
            None => Refusal::new(StatusCode::UNAUTHORIZED, SignatureError::Invalid.to_string()).into_response(),
        },
    };
    if page { pages::show(response) } else { response }
}

/// The sandbox whose token a file URL was signed with. The daemon checks again, also whether the URL has expired.
fn signed_for(sandboxes: &Sandboxes, only: Option<Owner>, request: &Request) -> Option<Arc<Entry>> {
    let mine = |entry: &Arc<Entry>| only.is_none_or(|owner| entry.owner() == owner);
    sandboxes
        .all()
        .into_iter()
        .find(|entry| mine(entry) && is_signed(entry, request))
}

/// Parts of E2B's API that this server does not have, by the path's first word, and what to do instead.
const NOT_BUILT: [(&str, &str); 3] = [
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
async fn unknown(request: Request) -> Refusal {
    let path = request.uri().path();
    let mut words = path.split('/').skip(1).skip_while(|w| matches!(*w, "v2" | "v3"));
    let first = words.next().unwrap_or_default();
    if let Some((_, what)) = NOT_BUILT.iter().find(|(word, _)| *word == first) {
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
pub(crate) async fn body<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
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
