//! One connection: HTTP/1.1, on it the RPCs, the plain endpoints and tunnels.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use connectrpc::{ConnectRpcService, Limits};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sandhold_wire::limits::RPC_MESSAGE;
use sandhold_wire::names::CONNECT_TIMEOUT_HEADER;
use tokio::net::UnixStream;
use tower::{Service, ServiceExt};

use crate::auth::{self, Token};
use crate::error::{HttpError, json};
use crate::limits::{REFUSED_BODY, REFUSED_WAIT, REQUEST_HEAD};
use crate::process::{self, awaiting, jobs};
use crate::state::State;
use crate::unread::Watched;
use crate::{archive, bundle, files, filesystem, kill, metrics, processes, search, services, tunnel};

/// Names the daemon's version in every answer.
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-sandhold-version");
const VERSION: HeaderValue = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));

/// The text of envd's 401.
const UNAUTHORIZED: &str = "unauthorized access, please provide a valid access token or method signing if supported";

/// Serves connections; cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    state: Arc<State>,
    rpc: ConnectRpcService,
    plain: Router,
}

impl Server {
    /// Over the daemon's state.
    pub(crate) fn new(state: Arc<State>) -> Self {
        let rpc = connectrpc::Router::new()
            .add_service(Arc::new(process::Service::new(Arc::clone(&state))))
            .add_service(Arc::new(filesystem::Service::new(Arc::clone(&state))));
        let limits = Limits::default()
            .with_max_message_size(RPC_MESSAGE)
            .with_max_request_body_size(RPC_MESSAGE);
        let plain = Router::new()
            .route("/health", get(async || StatusCode::NO_CONTENT))
            .route(
                "/envs",
                get(async |Shared(state): Shared<Arc<State>>| json(StatusCode::OK, &state.envs())),
            )
            .route("/metrics", get(metrics::get))
            .route("/sandhold/process", get(awaiting::get))
            .route("/sandhold/processes", get(processes::get))
            .route("/sandhold/kill", post(kill::post))
            .route("/sandhold/jobs", get(jobs::get))
            .with_state(Arc::clone(&state))
            .merge(archive::router(Arc::clone(&state)))
            .merge(bundle::router(Arc::clone(&state)))
            .merge(files::router(Arc::clone(&state)))
            .merge(search::router(Arc::clone(&state)))
            .merge(services::router(state.plain))
            .fallback(async || HttpError::not_found("there is no such endpoint"))
            .method_not_allowed_fallback(async || {
                HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "the endpoint does not know this method")
            });
        Self {
            state,
            rpc: ConnectRpcService::new(rpc).with_limits(limits),
            plain,
        }
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, stream: UnixStream) {
        let service = service_fn(|request| self.clone().answer(request));
        let connection = hyper::server::conn::http1::Builder::new()
            // A caller who has gone is noticed, so that nothing is written for them any more.
            .half_close(false)
            .auto_date_header(false)
            .max_buf_size(REQUEST_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // A connection that breaks concerns nobody here: its streams are dropped, and the other side knows.
        let _ = connection.await;
    }

    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        if request.method() == Method::CONNECT {
            return Ok(with_version(tunnel::open(request).await));
        }
        let (head, body) = request.into_parts();
        let (body, unread) = Watched::new(body);
        let mut request = Request::from_parts(head, body);
        let mut response = if !auth::is_open(request.method(), request.uri().path())
            && auth::token(&self.state, request.headers()) != Token::Right
        {
            // A short body is read in vain, which keeps the connection.
            let body = Limited::new(request.into_body(), REFUSED_BODY).collect();
            let _ = tokio::time::timeout(REFUSED_WAIT, body).await;
            HttpError::unauthorized(UNAUTHORIZED).into_response()
        } else if is_rpc(request.uri().path()) {
            drop_empty_timeout(&mut request);
            match self.rpc.call(request).await {
                Ok(response) => response.map(Body::new),
                Err(never) => match never {},
            }
        } else {
            match self.plain.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        let refused = response.status().is_client_error() || response.status().is_server_error();
        if refused && unread.load(Ordering::Acquire) {
            // Said beforehand, so that nobody sends the next request into a connection that ends.
            response
                .headers_mut()
                .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(with_version(response))
    }
}

fn with_version(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(VERSION_HEADER, VERSION);
    response
}

fn is_rpc(path: &str) -> bool {
    path.starts_with("/process.Process/") || path.starts_with("/filesystem.Filesystem/")
}

/// A timeout of zero or less is how some clients say "none".
fn drop_empty_timeout<B>(request: &mut Request<B>) {
    let asked = request
        .headers()
        .get(CONNECT_TIMEOUT_HEADER)
        .and_then(|v| v.to_str().ok()?.trim().parse::<i64>().ok());
    if asked.is_some_and(|ms| ms <= 0) {
        request.headers_mut().remove(CONNECT_TIMEOUT_HEADER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_timeouts_are_none() {
        for (value, kept) in [("0", false), ("-1", false), (" 0", false), ("1", true), ("60000", true)] {
            let mut request = Request::builder()
                .header(CONNECT_TIMEOUT_HEADER, value)
                .body(())
                .unwrap();
            drop_empty_timeout(&mut request);
            assert_eq!(
                request.headers().contains_key(CONNECT_TIMEOUT_HEADER),
                kept,
                "{value:?}"
            );
        }
    }
}
