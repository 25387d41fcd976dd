//! The servers of a sandbox: who listens, whether one is ready, and a request to one from inside.
//!
//! Sandhold's envd does all of it. On plain E2B scripts stand in for it: they need `python3` or `curl` in the sandbox to
//! speak HTTP.

mod fallback;

#[cfg(fuzzing)]
pub(crate) use fallback::read_ports;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderValue, Method, Request, header};
use sandhold_wire::services::{Await, FailureKind, Ports, Probe, ProbeAnswer, ProbeFailure, Probed, Readiness};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error,
    envd::Envd,
    limits,
    transport::{Body, empty, full},
};

/// The servers of a sandbox.
#[derive(Clone)]
pub struct Services {
    pub(crate) envd: Arc<Envd>,
}

/// How to see that a server is ready.
#[derive(Debug, Clone)]
pub struct ReadyQuery {
    /// Its port.
    pub port: u16,
    /// What is asked for; begins with a slash.
    pub path: String,
    /// How long to wait: at most 50 seconds are kept to.
    pub timeout: Duration,
    /// How long a server that accepts may stay silent before it counts as one that does not speak HTTP.
    pub patience: Duration,
}

/// A request to make from inside.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// `GET`, …
    pub method: String,
    /// `http://…` or `https://…`
    pub url: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body, in base64.
    pub body: String,
    /// How long it may take: at most 50 seconds are kept to.
    pub timeout: Duration,
    /// How many bytes of the answer's body are wanted.
    pub max_body: usize,
}

impl Services {
    /// The ports that something listens on, or that one of them, and the `busiest` processes.
    ///
    /// # Errors
    /// Those of the connection and of the sandbox.
    pub async fn ports(&self, port: Option<u16>, busiest: usize) -> Result<Ports, Error> {
        if !self.envd.no_services.load(Ordering::Relaxed) {
            let mut path = format!("/sandhold/ports?busiest={busiest}");
            if let Some(port) = port {
                path = format!("{path}&port={port}");
            }
            let request = self.envd.request(Method::GET, &path, empty())?;
            if let Some(ports) = self.ask(request, limits::PORTS_ANSWER).await? {
                return Ok(ports);
            }
        }
        self.ports_by_command(port, busiest).await
    }

    /// Waits until a server answers on a port, or accepts and does not speak HTTP. Time that runs out is no error.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a path that cannot be asked for; those of the connection.
    pub async fn ready(&self, query: &ReadyQuery) -> Result<Readiness, Error> {
        let query = ReadyQuery {
            timeout: query.timeout.min(limits::SERVICE_TIME),
            ..query.clone()
        };
        if !self.envd.no_services.load(Ordering::Relaxed) {
            let message = Await {
                port: query.port,
                path: query.path.clone(),
                timeout_ms: millis(query.timeout),
                answer_ms: millis(query.patience),
            };
            let request = self.post("/sandhold/ready", &message)?;
            if let Some(ready) = self.ask(request, limits::ERROR_BODY).await? {
                return Ok(ready);
            }
        }
        self.ready_by_command(&query).await
    }

    /// Makes a request from inside the sandbox. Redirects are not followed.
    ///
    /// # Errors
    /// Those of the connection to the sandbox; what the request met is in the answer's `Err`.
    pub async fn http(&self, request: &HttpRequest) -> Result<Result<ProbeAnswer, ProbeFailure>, Error> {
        let message = Probe {
            method: request.method.clone(),
            url: request.url.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
            timeout_ms: millis(request.timeout.min(limits::SERVICE_TIME)),
            max_body: request.max_body.min(limits::PROBE_BODY),
        };
        if !self.envd.no_services.load(Ordering::Relaxed) {
            let request = self.post("/sandhold/http", &message)?;
            let probed = self.ask::<Probed>(request, limits::PROBE_ANSWER).await?.map(either);
            match probed.transpose()? {
                // TLS and names that need DNS are for a program of the sandbox.
                Some(Err(failure)) if failure.kind == FailureKind::Unable => {}
                Some(outcome) => return Ok(outcome),
                None => {}
            }
        }
        self.http_by_command(&message).await
    }

    fn post(&self, path: &str, message: &impl Serialize) -> Result<Request<Body>, Error> {
        let body = serde_json::to_vec(message)
            .map_err(|error| Error::InvalidArgument(format!("the request cannot be written as JSON: {error}")))?;
        let mut request = self.envd.request(Method::POST, path, full(body))?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(request)
    }

    /// `None` when the server does not know the endpoint, which is kept in mind.
    async fn ask<T: DeserializeOwned>(&self, request: Request<Body>, max: usize) -> Result<Option<T>, Error> {
        let answer = self.envd.extension(request, max).await?;
        if answer.is_none() {
            self.envd.no_services.store(true, Ordering::Relaxed);
        }
        Ok(answer)
    }
}

fn either(probed: Probed) -> Result<Result<ProbeAnswer, ProbeFailure>, Error> {
    match (probed.answer, probed.failure) {
        (Some(answer), _) => Ok(Ok(answer)),
        (None, Some(failure)) => Ok(Err(failure)),
        (None, None) => Err(Error::Protocol("the answer to a request from inside is empty".into())),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
