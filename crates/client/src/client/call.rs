//! One call of the control plane, with its retries.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use sandhold_wire::{limits::REST_BODY, names};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::{Client, retry};
use crate::{
    Error,
    answer::Refusal,
    limits,
    transport::{Body, ReadError, full, read_all},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A call of the control plane.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Bytes>,
    pub(super) idempotency_key: Option<HeaderValue>,
    /// The sandbox it is about.
    pub(super) id: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, path: String, id: Option<&'a str>) -> Self {
        Self {
            method,
            path,
            body: None,
            idempotency_key: None,
            id,
        }
    }

    pub(super) fn json(self, body: &impl Serialize) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Error::InvalidArgument(format!("the request cannot be written as JSON: {error}")))?;
        Ok(Self {
            body: Some(bytes.into()),
            ..self
        })
    }
}

impl Client {
    /// Calls a `/v2` endpoint; `None` when the server does not have it, which is kept in mind.
    pub(super) async fn newest<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<Option<T>, Error> {
        let what = format!("{} {}", call.method, call.path);
        let id = call.id;
        let response = self.send(call).await?;
        if response.status().is_success() {
            return decode(&what, response).await.map(|(_, answer)| Some(answer));
        }
        let refusal = Refusal::read(response).await;
        if refusal.endpoint_is_missing() {
            self.inner.v1.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        Err(refusal.of_control_plane(id))
    }

    /// Calls and reads the answer.
    pub(super) async fn read<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<(http::response::Parts, T), Error> {
        let what = format!("{} {}", call.method, call.path.split('?').next().unwrap_or_default());
        decode(&what, self.accepted(call).await?).await
    }

    /// Calls where only success matters.
    pub(super) async fn done(&self, call: Call<'_>) -> Result<(), Error> {
        self.accepted(call).await.map(drop)
    }

    async fn accepted(&self, call: Call<'_>) -> Result<Response<Body>, Error> {
        let id = call.id;
        let response = self.send(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(Refusal::read(response).await.of_control_plane(id))
    }

    /// Sends a call, again where the answer asks for it and time is left. An answer of any status is a success.
    async fn send(&self, call: Call<'_>) -> Result<Response<Body>, Error> {
        let deadline = Instant::now() + limits::REQUEST_TIMEOUT;
        let what = || format!("{} {}", call.method, call.path.split('?').next().unwrap_or_default());
        for attempt in 0.. {
            let request = self.request(&call)?;
            let response = match tokio::time::timeout_at(deadline, self.inner.transport.send(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(source)) => {
                    return Err(Error::Transport {
                        what: format!("{} got no answer", what()),
                        source,
                    });
                }
                Err(_) => {
                    let limit = limits::REQUEST_TIMEOUT;
                    return Err(Error::Timeout(format!("{} got no answer within {limit:?}", what())));
                }
            };
            if attempt == limits::RETRIES {
                return Ok(response);
            }
            match retry::delay(response.status(), response.headers(), attempt) {
                Some(delay) if Instant::now() + delay < deadline => {
                    tracing::debug!(status = response.status().as_u16(), ?delay, "trying {} again", what());
                    drop(response);
                    tokio::time::sleep(delay).await;
                }
                _ => return Ok(response),
            }
        }
        Err(Error::Timeout(format!("{} was tried too often", what())))
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Body>, Error> {
        let url = format!("{}{}", self.inner.base, call.path);
        let mut request = Request::new(full(call.body.clone().unwrap_or_default()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = url.parse().map_err(|_| {
            Error::InvalidArgument(format!(
                "the URL of the control plane is not valid: {}",
                self.inner.base
            ))
        })?;
        let headers = request.headers_mut();
        if let Some(key) = &self.inner.api_key {
            headers.insert(names::API_KEY_HEADER, key.clone());
        }
        if call.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = &call.idempotency_key {
            headers.insert(IDEMPOTENCY_KEY, key.clone());
        }
        Ok(request)
    }
}

/// Reads the answer to `what`.
async fn decode<T: DeserializeOwned>(
    what: &str,
    response: Response<Body>,
) -> Result<(http::response::Parts, T), Error> {
    let (head, body) = response.into_parts();
    let body = match tokio::time::timeout(limits::REQUEST_TIMEOUT, read_all(body, REST_BODY)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(ReadError::TooLarge)) => {
            return Err(Error::Protocol(format!(
                "the answer to {what} has more than {REST_BODY} bytes"
            )));
        }
        Ok(Err(ReadError::Lost(source))) => {
            return Err(Error::Transport {
                what: format!("the answer to {what} broke off"),
                source,
            });
        }
        Err(_) => return Err(Error::Timeout(format!("the answer to {what} did not end"))),
    };
    let answer = serde_json::from_slice(&body)
        .map_err(|error| Error::Protocol(format!("the answer to {what} is not what was expected: {error}")))?;
    Ok((head, answer))
}
