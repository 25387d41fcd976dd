//! The daemon of one sandbox: how its endpoints are called.

mod frames;
mod rpc;

use std::{sync::atomic::AtomicBool, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use sandhold_wire::names;

use crate::{
    Error,
    answer::Refusal,
    limits,
    transport::{Body, Codec, ReadError, SharedTransport, empty, read_all},
};

pub(crate) use frames::{Broken, FrameStream};
pub(crate) use rpc::Streaming;

/// Everything that calls to one sandbox have in common.
pub(crate) struct Envd {
    pub(crate) id: String,
    transport: SharedTransport,
    /// Base of its URLs, empty in process.
    base: String,
    /// Base of its URLs for others than this client, where it has an address.
    pub(crate) direct: Option<String>,
    pub(crate) token: Option<String>,
    /// Names the sandbox and authenticates; part of every request.
    headers: HeaderMap,
    codec: Codec,
    version: Version,
    /// The server answered that it has no search of its own.
    pub(crate) no_search: AtomicBool,
    /// The server answered that it knows only the processes that clients started.
    pub(crate) no_processes: AtomicBool,
    /// The server answered that it does not know whether processes wait for input.
    pub(crate) no_awaiting: AtomicBool,
    /// The server answered that it has no endpoints for servers in the sandbox.
    pub(crate) no_services: AtomicBool,
    /// The server answered that it packs and unpacks nothing.
    pub(crate) no_archives: AtomicBool,
    /// The server answered that it keeps no list of jobs.
    pub(crate) no_jobs: AtomicBool,
}

/// What an [`Envd`] is made of.
pub(crate) struct Address {
    pub(crate) id: String,
    pub(crate) base: String,
    pub(crate) direct: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) codec: Codec,
    pub(crate) version: String,
}

/// Version of the daemon; decides what it understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32);

impl Version {
    /// Since then the server has a default user.
    const DEFAULT_USER: Self = Self(0, 4, 0);
    /// Since then a file can be uploaded as it is.
    const OCTET_STREAM: Self = Self(0, 5, 7);

    /// What cannot be read counts as the newest.
    fn parse(text: &str) -> Self {
        let mut parts = text.split(['.', '-', '+']).map(str::parse);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Self(major, minor, patch),
            _ => Self(u32::MAX, 0, 0),
        }
    }
}

impl Envd {
    pub(crate) fn new(transport: SharedTransport, address: Address) -> Result<Self, Error> {
        let Address {
            id,
            base,
            direct,
            token,
            codec,
            version,
        } = address;
        let mut headers = HeaderMap::with_capacity(8);
        let bad = |what: &str| Error::Protocol(format!("the server named {what} that cannot stand in a header"));
        headers.insert(
            names::SANDBOX_ID_HEADER,
            HeaderValue::from_str(&id).map_err(|_| bad("a sandbox id"))?,
        );
        headers.insert(names::SANDBOX_PORT_HEADER, HeaderValue::from(names::ENVD_PORT));
        if let Some(token) = &token {
            let mut value = HeaderValue::from_str(token).map_err(|_| bad("an access token"))?;
            value.set_sensitive(true);
            headers.insert(names::ACCESS_TOKEN_HEADER, value);
        }
        Ok(Self {
            id,
            transport,
            base,
            direct,
            token,
            headers,
            codec,
            version: Version::parse(&version),
            no_search: AtomicBool::new(false),
            no_processes: AtomicBool::new(false),
            no_awaiting: AtomicBool::new(false),
            no_services: AtomicBool::new(false),
            no_archives: AtomicBool::new(false),
            no_jobs: AtomicBool::new(false),
        })
    }

    /// The user to name in a request: old daemons have no default.
    pub(crate) fn user<'a>(&self, user: Option<&'a str>) -> Option<&'a str> {
        user.or((self.version < Version::DEFAULT_USER).then_some(names::DEFAULT_USER))
    }

    /// Whether a file can be uploaded as `application/octet-stream`.
    pub(crate) fn takes_octet_streams(&self) -> bool {
        self.version >= Version::OCTET_STREAM
    }

    /// A request to `path`, with its query.
    pub(crate) fn request(&self, method: Method, path: &str, body: Body) -> Result<Request<Body>, Error> {
        let uri = if self.base.is_empty() {
            path.parse::<Uri>()
        } else {
            format!("{}{path}", self.base).parse()
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() =
            uri.map_err(|_| Error::InvalidArgument(format!("the URL of sandbox {} is not valid", self.id)))?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    /// Sends a request and waits for the head of its answer. An answer of any status is a success.
    pub(crate) async fn send(&self, request: Request<Body>, wait: Duration) -> Result<Response<Body>, Error> {
        // The path without its query tells which call it was; queries hold signatures and names.
        let path = request.uri().path().to_owned();
        match tokio::time::timeout(wait, self.transport.send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => {
                let what = format!("sandbox {} did not answer {path}", self.id);
                Err(self.unless_gone(Error::Transport { what, source }).await)
            }
            Err(_) => Err(Error::Timeout(format!(
                "sandbox {} did not answer {path} within {wait:?}",
                self.id
            ))),
        }
    }

    /// Sends a request to an HTTP endpoint; a refusal is an error.
    pub(crate) async fn fetch(&self, request: Request<Body>, wait: Duration) -> Result<Response<Body>, Error> {
        let response = self.send(request, wait).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.settle(Refusal::read(response).await.of_http(&self.id)).await)
    }

    /// Asks with JSON. `None` when the server does not know the endpoint.
    pub(crate) async fn extension<T: serde::de::DeserializeOwned>(
        &self,
        request: Request<Body>,
        max: usize,
    ) -> Result<Option<T>, Error> {
        let path = request.uri().path().to_owned();
        let response = self.send(request, limits::REQUEST_TIMEOUT).await?;
        if !response.status().is_success() {
            let refusal = Refusal::read(response).await;
            if refusal.endpoint_is_missing() {
                return Ok(None);
            }
            return Err(self.settle(refusal.of_http(&self.id)).await);
        }
        let body = self.collect(response, max, limits::REQUEST_TIMEOUT).await?;
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| Error::Protocol(format!("the answer of {path} is not what was expected: {error}")))
    }

    /// Reads a whole body of at most `max` bytes.
    pub(crate) async fn collect(
        &self,
        response: Response<Body>,
        max: usize,
        wait: Duration,
    ) -> Result<bytes::Bytes, Error> {
        match tokio::time::timeout(wait, read_all(response.into_body(), max)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(ReadError::TooLarge)) => Err(Error::Protocol(format!(
                "sandbox {} answered with more than {max} bytes",
                self.id
            ))),
            Ok(Err(ReadError::Lost(source))) => {
                let what = format!("an answer of sandbox {} broke off", self.id);
                Err(self.unless_gone(Error::Transport { what, source }).await)
            }
            Err(_) => Err(Error::Timeout(format!(
                "sandbox {} did not end its answer within {wait:?}",
                self.id
            ))),
        }
    }

    /// Whether the daemon answers.
    pub(crate) async fn health(&self) -> Result<bool, Error> {
        match self.probe().await? {
            None => Ok(true),
            Some(Refusal { status: 502, .. }) => Ok(false),
            Some(refusal) => Err(either(refusal.of_http(&self.id))),
        }
    }

    /// Asks the daemon whether it is there; a refusal is what stands before it says.
    async fn probe(&self) -> Result<Option<Refusal>, Error> {
        let request = self.request(Method::GET, "/health", empty())?;
        match tokio::time::timeout(limits::HEALTH_TIMEOUT, self.transport.send(request)).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(None),
            Ok(Ok(response)) => Ok(Some(Refusal::read(response).await)),
            Ok(Err(source)) => {
                let what = format!("sandbox {} did not answer /health", self.id);
                Err(Error::Transport { what, source })
            }
            Err(_) => Err(Error::Timeout(format!("sandbox {} did not answer /health", self.id))),
        }
    }

    /// A call failed in a way that says nothing of the sandbox: looks whether it is gone.
    pub(crate) async fn unless_gone(&self, error: Error) -> Error {
        match self.probe().await {
            Ok(Some(refusal)) => match refusal.of_http(&self.id) {
                Ok(gone @ Error::SandboxNotFound { .. }) => gone,
                _ => error,
            },
            _ => error,
        }
    }

    /// Looks whether the sandbox is gone when the refusal did not say.
    pub(crate) async fn settle(&self, refusal: Result<Error, Error>) -> Error {
        match refusal {
            Ok(error) => error,
            Err(unclear) => self.unless_gone(unclear).await,
        }
    }
}

fn either(refusal: Result<Error, Error>) -> Error {
    match refusal {
        Ok(error) | Err(error) => error,
    }
}

/// Names `user` as the RPCs want it: HTTP Basic with an empty password.
fn basic(user: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(format!("{user}:"))))
        .map_err(|_| Error::InvalidArgument("the user's name cannot stand in a header".into()))
}

/// Adds who calls to a request.
fn authorize(headers: &mut HeaderMap, user: Option<&str>) -> Result<(), Error> {
    if let Some(user) = user {
        headers.insert(header::AUTHORIZATION, basic(user)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert!(Version::parse("0.3.9") < Version::DEFAULT_USER);
        assert!(Version::parse("0.4.0") >= Version::DEFAULT_USER);
        assert!(Version::parse("0.5.6") < Version::OCTET_STREAM);
        assert!(Version::parse("0.5.10-rc1") >= Version::OCTET_STREAM);
        assert!(Version::parse("main") >= Version::OCTET_STREAM);
    }
}
