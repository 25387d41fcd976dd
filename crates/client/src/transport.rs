//! How requests travel: over HTTP, or straight into a service of this process.

mod http;
mod in_process;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;

pub use self::http::HttpConfig;
pub(crate) use self::{http::HttpTransport, in_process::InProcess};

/// The cause of a failed transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every request and answer: a stream of frames that is pulled by its reader.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Carries one request to its server and brings the head of the answer back; the bodies are streamed.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request`. An answer of any status is a success; an error means that no answer came.
    fn send(&self, request: ::http::Request<Body>) -> BoxFuture<'static, Result<::http::Response<Body>, BoxError>>;
}

pub(crate) type SharedTransport = Arc<dyn Transport>;
