//! Whether a request's body was read to its end. One that was not ends its connection: hyper closes it after the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A request's body that leaves behind whether something of it was not read.
pub(crate) struct Watched {
    body: Incoming,
    unread: Arc<AtomicBool>,
}

impl Watched {
    /// The body and, once it was dropped, whether something of it was not read.
    pub(crate) fn new(body: Incoming) -> (Self, Arc<AtomicBool>) {
        let unread = Arc::new(AtomicBool::new(!body.is_end_stream()));
        (
            Self {
                body,
                unread: Arc::clone(&unread),
            },
            unread,
        )
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.unread.store(false, Ordering::Release);
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.unread.store(false, Ordering::Release);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
