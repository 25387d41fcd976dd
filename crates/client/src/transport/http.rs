//! The transport over HTTP.

use futures::future::BoxFuture;

use super::{Body, BoxError, Transport};
use crate::Error;

/// Where a control plane and its sandboxes are. Nothing is read from the environment.
#[derive(Clone, Default)]
pub struct HttpConfig {
    /// Sent as `X-API-KEY`.
    pub api_key: Option<String>,
    /// The domain of the control plane (`api.<domain>`) and of the sandboxes; `None` is `e2b.app`.
    pub domain: Option<String>,
    /// Base of the control plane in place of `https://api.<domain>`.
    pub api_url: Option<String>,
    /// Base of every sandbox in place of `https://<port>-<id>.<domain>`.
    pub sandbox_url: Option<String>,
}

impl HttpConfig {
    /// E2B's cloud with this key.
    #[must_use]
    pub fn new(api_key: impl Into<String>) -> Self {
        Self {
            api_key: Some(api_key.into()),
            ..Self::default()
        }
    }
}

pub(crate) struct HttpTransport;

impl HttpTransport {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self)
    }
}

impl Transport for HttpTransport {
    fn send(&self, _: http::Request<Body>) -> BoxFuture<'static, Result<http::Response<Body>, BoxError>> {
        Box::pin(async { Err("not there yet".into()) })
    }
}
