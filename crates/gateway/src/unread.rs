//! Refusals that come before their request's body was read.
//!
//! What is left of such a body would stand where the server expects the connection's next request. hyper closes the
//! connection then, and a client that sends its next request meanwhile loses it. So the rest is read and dropped; where it
//! is too long, or too slow, the answer says that the connection closes.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use bytes::Bytes;
use http::{HeaderValue, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::limits::{UNREAD_BODY, UNREAD_TIME};

/// A layer: reads the rest of a refused request's body, or has the connection closed.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    // From HTTP/2 on a body that is given up ends its stream alone.
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Who waits for `100 Continue` has not sent a body that could stand in the way; reading would ask for it.
    let asks_first = request.headers().contains_key(header::EXPECT);
    let rest = Arc::new(Mutex::new(Rest::Reading));
    let request = request.map(|body| {
        Body::new(Returned {
            body,
            rest: rest.clone(),
        })
    });
    let mut response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let left = std::mem::replace(&mut *rest.lock().unwrap_or_else(PoisonError::into_inner), Rest::Reading);
    let ended = match left {
        Rest::Ended => true,
        Rest::Left(body) if !asks_first => drop_rest(body).await,
        Rest::Left(_) | Rest::Reading => false,
    };
    if !ended {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Reads `body` to its end. False if that is too far.
async fn drop_rest(mut body: Body) -> bool {
    let reading = async {
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > UNREAD_BODY {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(UNREAD_TIME, reading).await.unwrap_or(false)
}

/// Where a request's body is.
enum Rest {
    /// With whoever reads it.
    Reading,
    /// Given up; this is what is left.
    Left(Body),
    /// Read to its end.
    Ended,
}

/// A body that comes back when its reader gives it up.
struct Returned {
    body: Body,
    rest: Arc<Mutex<Rest>>,
}

impl Drop for Returned {
    fn drop(&mut self) {
        let body = std::mem::take(&mut self.body);
        let rest = if body.is_end_stream() {
            Rest::Ended
        } else {
            Rest::Left(body)
        };
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}

impl http_body::Body for Returned {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            // One that has no length knows its end only by this; the empty one knows it.
            self.body = Body::empty();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware::from_fn, routing::post};
    use futures::{StreamExt, stream};
    use http::StatusCode;
    use tower::ServiceExt;

    use super::*;

    /// A body of `pieces` times one MiB, and how many of them were not taken.
    fn body(pieces: usize) -> (Body, Arc<Mutex<usize>>) {
        let left = Arc::new(Mutex::new(pieces));
        let count = left.clone();
        let pieces = stream::iter(0..pieces).map(move |_| {
            *count.lock().unwrap() -= 1;
            Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 20]))
        });
        (Body::from_stream(pieces), left)
    }

    async fn refused(path: &str, body: Body) -> Option<HeaderValue> {
        let app = Router::new()
            .route("/unread", post(|_: Body| async { StatusCode::FORBIDDEN }))
            .route(
                "/read",
                post(|body: Body| async { body.collect().await.map_or(StatusCode::OK, |_| StatusCode::FORBIDDEN) }),
            )
            .layer(from_fn(finish));
        let response = app.oneshot(Request::post(path).body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        response.headers().get(header::CONNECTION).cloned()
    }

    #[tokio::test]
    async fn what_is_short_is_read_and_the_connection_stays() {
        let (short, left) = body(3);
        assert_eq!(refused("/unread", short).await, None);
        assert_eq!(*left.lock().unwrap(), 0);
        assert_eq!(refused("/read", body(3).0).await, None);
        assert_eq!(refused("/unread", Body::empty()).await, None);
    }

    #[tokio::test]
    async fn what_is_long_closes_it() {
        let pieces = (UNREAD_BODY >> 20) + 10;
        let (long, left) = body(pieces);
        assert_eq!(refused("/unread", long).await.unwrap(), "close");
        assert!(*left.lock().unwrap() > 0);
        assert_eq!(refused("/read", body(pieces).0).await, None, "it was read");
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_what_never_ends() {
        let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(refused("/unread", slow).await.unwrap(), "close");
    }
}
