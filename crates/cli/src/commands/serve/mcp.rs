//! The MCP endpoint of `sandhold serve`: the bearer token is an API key, and the tools see what that key made.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, StatusCode, header};
use sandhold_client::Client;
use sandhold_gateway::{Gateway, Keys, Owner};
use sandhold_mcp::{ConfigError, Confirm, Keeping, Provider, Selection, Server, ServerConfig};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What holds for all of them.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    /// Whether this server, and with it the sandboxes' host names, is reached over TLS.
    pub(super) tls: bool,
    /// When users are asked before something is destroyed.
    pub(super) confirm: Confirm,
}

/// One MCP server for each key that came by.
struct Endpoint {
    gateway: Gateway,
    keys: Arc<Keys>,
    servers: Mutex<HashMap<Owner, Router>>,
    policy: Policy,
    stop: CancellationToken,
}

/// The routes. Their streams end when `stop` is cancelled.
pub(super) fn router(gateway: Gateway, keys: Arc<Keys>, policy: Policy, stop: CancellationToken) -> Router {
    let endpoint = Arc::new(Endpoint {
        gateway,
        keys,
        servers: Mutex::default(),
        policy,
        stop,
    });
    Router::new()
        .route("/mcp", any(serve))
        .route("/mcp/{*rest}", any(serve))
        .route("/sse", any(serve))
        .route("/messages", any(serve))
        .with_state(endpoint)
}

async fn serve(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let Some(owner) = bearer(request.headers()).and_then(|key| endpoint.keys.owner_of(key)) else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"sandhold\"")];
        let message = "an API key of this server is needed as the bearer token";
        return (
            StatusCode::UNAUTHORIZED,
            challenge,
            refusal(StatusCode::UNAUTHORIZED, message),
        )
            .into_response();
    };
    match endpoint.server_of(owner) {
        Ok(router) => router.oneshot(request).await.into_response(),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            (status, refusal(status, &error.to_string())).into_response()
        }
    }
}

fn refusal(status: StatusCode, message: &str) -> Json<serde_json::Value> {
    Json(serde_json::json!({"code": status.as_u16(), "message": message}))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Endpoint {
    fn server_of(&self, owner: Owner) -> Result<Router, ConfigError> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(router) = servers.get(&owner) {
            return Ok(router.clone());
        }
        let gateway = self.gateway.router(owner);
        let service = tower::service_fn(move |request: http::Request<sandhold_client::transport::Body>| {
            gateway.clone().oneshot(request.map(Body::new))
        });
        let server = Server::new(ServerConfig {
            client: match self.policy.tls {
                true => Client::in_process_behind_tls(service),
                false => Client::in_process(service),
            },
            provider: describe(),
            selection: Selection::default(),
            dockerfiles: Some(Arc::new(crate::dockerfile::Dockerfiles)),
            door: None,
            folders: Vec::new(),
            confirm: self.policy.confirm,
            keeping: Keeping::default(),
            checkpoint: false,
        })?;
        let router = sandhold_mcp::http_router(server, &self.stop);
        servers.insert(owner, router.clone());
        Ok(router)
    }
}

/// What `sandbox_info` says of where sandboxes run.
fn describe() -> Provider {
    let cannot = [
        "no network but the sandbox's own loopback",
        "/usr is the server's and read-only: packages install into the home folder only",
        "a paused sandbox keeps its files when the server ends, and its processes as long as the server runs",
    ];
    Provider {
        name: "local".into(),
        description: "the embedded engine of this server; sandboxes live on until their timeout when a client goes"
            .into(),
        cannot: cannot.map(str::to_owned).into(),
    }
}
