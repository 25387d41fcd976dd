//! The server over HTTP: streamable at `/mcp`, for older clients at `/sse` and `/messages`, with `/healthz` beside them.

mod callers;
pub(crate) mod sse;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use rmcp::{
    RoleServer,
    model::ProtocolVersion,
    service::RequestContext,
    transport::{
        StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager,
    },
};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::callers::Callers;
use crate::{ServeError, Server, limits};

/// How long open connections may take to end.
const DRAIN: Duration = Duration::from_millis(1500);

/// How to serve over HTTP.
pub struct HttpOptions {
    /// Where connections come in.
    pub listener: TcpListener,
    /// The bearer token that every request must carry; `None` lets everyone in.
    pub token: Option<String>,
    /// Names or `name:port` that the `Host` header may have, besides `localhost`, `127.0.0.1` and `::1`.
    pub allowed_hosts: Vec<String>,
    /// Origins that browsers may call from, besides those of this machine: `https://app.example.com:443`.
    pub allowed_origins: Vec<String>,
}

/// Whose a request is: the hash of its token, so that the token itself is kept nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Principal(Option<[u8; 32]>);

impl Principal {
    /// The holder of `token`.
    #[cfg(test)]
    pub(crate) fn holding(token: &str) -> Self {
        Self(Some(digest(token)))
    }

    /// What tells it from others.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |hash| hash.as_slice())
    }

    /// The caller of a request: over HTTP the holder of its token, otherwise the only one there is.
    pub(crate) fn of(cx: &RequestContext<RoleServer>) -> Self {
        let parts = cx.extensions.get::<http::request::Parts>();
        parts
            .and_then(|p| p.extensions.get::<Self>())
            .cloned()
            .unwrap_or_default()
    }
}

/// What a request is checked against.
struct Gate {
    token: Option<[u8; 32]>,
    sessions: Arc<LocalSessionManager>,
}

/// Serves until `shutdown` is cancelled.
///
/// # Errors
///
/// The listener fails.
pub async fn serve_http(server: Server, options: HttpOptions, shutdown: CancellationToken) -> Result<(), ServeError> {
    let stop = after_closing(&server, &shutdown);
    let app = router(server, &options, &stop);
    // Without it every answer waits for the client's delayed acknowledgement, some 40 ms.
    let listener = options.listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
    });
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        served = serving.into_future() => served.map_err(ServeError::Http),
        // Event streams stay open as long as their clients like.
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}

/// The server as a service at `/mcp`, `/sse` and `/messages`, for a server of other things that checks its callers itself: every request is let
/// in, whatever its `Host`, and all of them are one principal. Browsers may call from this machine's own origins only.
/// Open streams end when `shutdown` is cancelled. Must be called within a tokio runtime.
pub fn http_router(server: Server, shutdown: &CancellationToken) -> Router {
    let stop = after_closing(&server, shutdown);
    // No host is named: with a key that every request must bring, a name that points here by deceit opens nothing.
    routes(server, None, Vec::new(), Vec::new(), &stop)
}

/// Is cancelled when `shutdown` is, once the server knows: calls that end with it leave alone what they started.
fn after_closing(server: &Server, shutdown: &CancellationToken) -> CancellationToken {
    let stop = CancellationToken::new();
    let (shutdown, closing, after) = (shutdown.clone(), server.closing().clone(), stop.clone());
    tokio::spawn(async move {
        shutdown.cancelled().await;
        closing.cancel();
        after.cancel();
    });
    stop
}

/// The routes of a server of its own.
fn router(server: Server, options: &HttpOptions, shutdown: &CancellationToken) -> Router {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    hosts.extend(options.allowed_hosts.iter().cloned());
    let token = options.token.as_deref().map(digest);
    routes(server, token, hosts, options.allowed_origins.clone(), shutdown).route("/healthz", get(|| async { "ok" }))
}

fn routes(
    server: Server,
    token: Option<[u8; 32]>,
    hosts: Vec<String>,
    allowed_origins: Vec<String>,
    stop: &CancellationToken,
) -> Router {
    let mut origins: Vec<String> = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"]
        .map(str::to_owned)
        .into();
    origins.extend(allowed_origins);
    let callers = Callers { hosts, origins };
    let config = StreamableHttpServerConfig::default()
        .with_cancellation_token(stop.child_token())
        .with_allowed_hosts(callers.hosts.clone())
        .with_allowed_origins(callers.origins.clone())
        .enforce_origin_validation()
        .with_sse_keep_alive(Some(limits::HTTP_KEEP_ALIVE))
        .with_max_request_body_bytes(limits::HTTP_BODY);
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(limits::HTTP_SESSION_IDLE);
    let sessions = Arc::new(sessions);
    let gate = Arc::new(Gate {
        token,
        sessions: Arc::clone(&sessions),
    });
    let older = sse::routes(server.clone(), callers, stop.child_token());
    let mcp = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
    Router::new()
        .nest_service("/mcp", mcp)
        .merge(older)
        .layer(middleware::from_fn_with_state(gate, admit))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |different, (x, y)| different | (x ^ y)) == 0
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a message with these headers may open a legacy session. `initialize` does whatever version it names; what else
/// the stateless revision sends must name its method, and a name that is not the message's own is refused further on.
fn may_open_session(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let stateless = text("mcp-protocol-version").is_some_and(|v| v >= ProtocolVersion::V_2026_07_28.as_str())
        && text("mcp-method").is_some_and(|method| method != "initialize");
    text("mcp-session-id").is_none() && !stateless
}

/// Lets requests with the token in, and names their principal.
async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let given = bearer(request.headers()).map(digest);
    if let Some(expected) = &gate.token
        && !given.as_ref().is_some_and(|given| same(given, expected))
    {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"sandhold\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "a bearer token is needed").into_response();
    }
    let may_open = request.method() == http::Method::POST
        && request.uri().path() != "/messages"
        && may_open_session(request.headers());
    if may_open && gate.sessions.sessions.read().await.len() >= limits::HTTP_SESSIONS {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many sessions").into_response();
    }
    request.extensions_mut().insert(Principal(gate.token.and(given)));
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.insert(header::AUTHORIZATION, "bearer  abc".parse().unwrap());
        assert_eq!(bearer(&headers), Some("abc"));
        headers.insert(header::AUTHORIZATION, "Basic abc".parse().unwrap());
        assert_eq!(bearer(&headers), None);
        assert!(same(&digest("a"), &digest("a")));
        assert!(!same(&digest("a"), &digest("b")));
    }
}
