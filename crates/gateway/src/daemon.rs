//! Requests that the gateway itself makes of a sandbox's daemon.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sandhold_runtime::{RuntimeError, Sandbox};
use sandhold_wire::{
    names::ACCESS_TOKEN_HEADER,
    rest::{ApiError, EnvdMetrics},
};
use tokio::task::AbortHandle;

use crate::limits::{METRICS_ANSWER, METRICS_TIME};

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error("cannot reach the sandbox's daemon")]
    Reach(#[source] RuntimeError),
    #[error("the connection to the sandbox's daemon broke")]
    Connection(#[source] hyper::Error),
    #[error("the request cannot be written")]
    Request(#[source] http::Error),
    #[error("the sandbox's daemon refused with status {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("the answer of the sandbox's daemon cannot be read")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the sandbox's daemon did not answer within {} s", .0.as_secs())]
    Time(Duration),
}

/// An answer whose connection lives as long as it does.
pub(crate) struct Answer {
    response: Response<Incoming>,
    _connection: Connection,
}

struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, DaemonError> {
        while let Some(frame) = self.response.body_mut().frame().await {
            if let Ok(data) = frame.map_err(DaemonError::Connection)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    async fn whole(&mut self, max: usize) -> Result<Bytes, DaemonError> {
        let body = Limited::new(self.response.body_mut(), max).collect().await;
        Ok(body.map_err(DaemonError::Answer)?.to_bytes())
    }
}

/// Sends one request on a connection of its own. An answer without success is an error.
pub(crate) async fn ask(
    sandbox: &dyn Sandbox,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Body,
) -> Result<Answer, DaemonError> {
    let request = Request::builder().method(method).uri(path).body(body);
    send(sandbox, token, request.map_err(DaemonError::Request)?).await
}

/// The same for a request that has headers of its own.
pub(crate) async fn send(
    sandbox: &dyn Sandbox,
    token: Option<&str>,
    mut request: Request<Body>,
) -> Result<Answer, DaemonError> {
    let stream = sandbox.connect().await.map_err(DaemonError::Reach)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(DaemonError::Connection)?;
    // What breaks the connection is told by the request.
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }).abort_handle());
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    if let Some(token) = token {
        let token = HeaderValue::from_str(token).map_err(|error| DaemonError::Request(error.into()))?;
        headers.insert(ACCESS_TOKEN_HEADER, token);
    }
    let response = sender.send_request(request).await.map_err(DaemonError::Connection)?;
    let mut answer = Answer {
        response,
        _connection: connection,
    };
    let status = answer.response.status();
    if status.is_success() {
        return Ok(answer);
    }
    let said = answer.whole(METRICS_ANSWER).await.unwrap_or_default();
    let message = serde_json::from_slice::<ApiError>(&said).map_or_else(|_| String::new(), |e| e.message);
    Err(DaemonError::Refused { status, message })
}

/// What the daemon sees of its sandbox's use.
pub(crate) async fn metrics(sandbox: &dyn Sandbox, token: Option<&str>) -> Result<EnvdMetrics, DaemonError> {
    let asking = async {
        let mut answer = ask(sandbox, token, Method::GET, "/metrics", Body::empty()).await?;
        let said = answer.whole(METRICS_ANSWER).await?;
        serde_json::from_slice(&said).map_err(|error| DaemonError::Answer(error.into()))
    };
    tokio::time::timeout(METRICS_TIME, asking)
        .await
        .unwrap_or(Err(DaemonError::Time(METRICS_TIME)))
}
