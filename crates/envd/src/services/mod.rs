//! The servers of the sandbox: who listens where, whether one is ready, and a request to one. Ours, not part of E2B's
//! protocol; the messages are in `sandhold_wire::services`.

mod busy;
mod names;
mod ports;
mod probe;
mod ready;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::response::Response;
use axum::routing::{any, get, post};
use http::StatusCode;
use sandhold_wire::services::{Await, Ports, Probe};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::error::{HttpError, json};
use crate::files::json_body;
use crate::filesystem::error::{FsError, Kind, blocking};
use crate::limits::{BUSY, PORTS_LOOKS, PROBES, READY_WAITERS};

/// What is said where the sandbox has no internet sockets.
const NO_SOCKETS: &str = "this sandbox is held by the isolation level landlock, which has no network, not even a loopback: \
                          no program in it can listen on a port or connect to one. Services need the level namespaces or \
                          gvisor (`--isolation`)";

/// How many requests of each kind there may be at a time.
struct Places {
    looks: Semaphore,
    waiters: Semaphore,
    probes: Semaphore,
}

/// The routes of this module.
///
/// `plain`: the sandbox has no internet sockets, so that there is nothing to tell but that.
pub(crate) fn router(plain: bool) -> Router {
    if plain {
        let refuse = async || HttpError::new(StatusCode::NOT_IMPLEMENTED, NO_SOCKETS);
        return Router::new()
            .route("/sandhold/ports", any(refuse))
            .route("/sandhold/ready", any(refuse))
            .route("/sandhold/http", any(refuse));
    }
    let places = Arc::new(Places {
        looks: Semaphore::new(PORTS_LOOKS),
        waiters: Semaphore::new(READY_WAITERS),
        probes: Semaphore::new(PROBES),
    });
    Router::new()
        .route("/sandhold/ports", get(list))
        .route("/sandhold/ready", post(wait))
        .route("/sandhold/http", post(ask))
        .with_state(places)
}

#[derive(Debug, Deserialize)]
struct Asked {
    /// Only this one.
    port: Option<u16>,
    /// How many of the busiest processes to tell.
    #[serde(default)]
    busiest: usize,
}

async fn list(
    Shared(places): Shared<Arc<Places>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(asked) = asked.map_err(|error| HttpError::bad_request(error.body_text()))?;
    // Never closed.
    let _place = places.looks.acquire().await.ok();
    let before = (asked.busiest > 0).then(busy::Look::take);
    if before.is_some() {
        tokio::time::sleep(crate::limits::BUSY_WATCH).await;
    }
    let ports = blocking(move || {
        Ok::<_, FsError>(Ports {
            listening: ports::listening(asked.port),
            busiest: before.map_or_else(Vec::new, |look| look.busiest(asked.busiest.min(BUSY))),
        })
    });
    Ok(json(StatusCode::OK, &ports.await?))
}

async fn wait(Shared(places): Shared<Arc<Places>>, body: Body) -> Result<Response, HttpError> {
    let request: Await = json_body(body).await?;
    let _place = places.waiters.try_acquire().map_err(|_| {
        FsError::new(
            Kind::Exhausted,
            format!("{READY_WAITERS} ports are waited for already; more at a time are not allowed"),
        )
    })?;
    Ok(json(StatusCode::OK, &ready::wait(&request).await?))
}

async fn ask(Shared(places): Shared<Arc<Places>>, body: Body) -> Result<Response, HttpError> {
    let request: Probe = json_body(body).await?;
    let _place = places.probes.try_acquire().map_err(|_| {
        FsError::new(
            Kind::Exhausted,
            format!("{PROBES} requests are under way already; more at a time are not allowed"),
        )
    })?;
    Ok(json(StatusCode::OK, &probe::ask(request).await))
}
