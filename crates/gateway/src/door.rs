//! The service for browsers of this machine: ports of one owner's sandboxes by host name, and signed URLs of their files.
//!
//! Any page that a browser here shows can send requests to it, also one that a sandbox serves. So there is no REST API,
//! no header that names a sandbox, and of the sandbox's daemon nothing that a signature does not open.

use std::sync::atomic::Ordering;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
};
use http::{Method, StatusCode};
use sandhold_wire::{names::ENVD_PORT, signature::SignatureError};

use crate::{
    Gateway,
    forward::refuse,
    owner::Owner,
    pages,
    query::is_signed,
    route::{Route, of_host},
};

pub(crate) fn router(gateway: Gateway, owner: Owner) -> Router {
    Router::new().fallback(enter).with_state((gateway, owner))
}

async fn enter(State((gateway, owner)): State<(Gateway, Owner)>, request: Request) -> Response {
    gateway.sandboxes.totals.forwarded.fetch_add(1, Ordering::Relaxed);
    let page = pages::is_wanted(request.headers());
    let response = admit(&gateway, owner, request).await;
    if page { pages::show(response) } else { response }
}

async fn admit(gateway: &Gateway, owner: Owner, request: Request) -> Response {
    let domain = gateway.sandboxes.domain().unwrap_or_default();
    let (id, port) = match of_host(request.uri(), request.headers(), domain) {
        Some(Route::Sandbox { id, port }) => (id, port),
        Some(Route::BadPort { id, port }) => {
            let message = format!("port \"{port}\" is not between 1 and 65535");
            return refuse(StatusCode::BAD_REQUEST, &id, None, &message);
        }
        _ => {
            let message = format!("only the ports of sandboxes are here, under <port>-<sandbox id>.{domain}");
            return refuse(StatusCode::NOT_FOUND, "", None, &message);
        }
    };
    if port == ENVD_PORT {
        let file =
            request.uri().path() == "/files" && matches!(*request.method(), Method::GET | Method::HEAD | Method::POST);
        if !file {
            let message = "of the sandbox's daemon only signed URLs of files are here";
            return refuse(StatusCode::NOT_FOUND, &id, Some(port), message);
        }
        let entry = gateway.sandboxes.get(&id).filter(|entry| entry.owner() == owner);
        if entry.is_some_and(|entry| !is_signed(&entry, &request)) {
            let message = SignatureError::Invalid.to_string();
            return refuse(StatusCode::UNAUTHORIZED, &id, Some(port), &message);
        }
    }
    gateway.forwarder.forward(&id, port, Some(owner), request).await
}
