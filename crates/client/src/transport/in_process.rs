//! The transport into a service of this process.

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

use super::{Body, BoxError, Transport};

/// Calls a clone of the service for every request.
pub(crate) struct InProcess<S>(pub(crate) S);

impl<S, B> Transport for InProcess<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn send(&self, request: http::Request<Body>) -> BoxFuture<'static, Result<http::Response<Body>, BoxError>> {
        // Combinators rather than an async block: rustc cannot show that a block which holds this future is `Send`.
        let answer = self.0.clone().oneshot(request);
        Box::pin(answer.map(|result| match result {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) => Err(error.into()),
        }))
    }
}
