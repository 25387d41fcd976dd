//! How requests travel: over HTTP, or straight into a service of this process.

mod http;
mod in_process;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

pub use self::http::HttpConfig;
pub(crate) use self::{http::HttpTransport, in_process::InProcess};

/// The cause of a failed transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every request and answer: frames that are pulled by their reader, so that nobody reads ahead.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Carries one request to its server and brings the head of the answer back; the bodies are streamed.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request`. An answer of any status is a success; an error means that no answer came.
    fn send(&self, request: ::http::Request<Body>) -> BoxFuture<'static, Result<::http::Response<Body>, BoxError>>;
}

pub(crate) type SharedTransport = Arc<dyn Transport>;

/// How RPC messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Protobuf JSON, as the official SDKs speak.
    Json,
    /// Binary protobuf.
    Binary,
}

/// Marks a request, as one of its extensions, whose answer is a file. E2B's proxy cuts files into pieces with empty ones in
/// between, which an HTTP/2 client has to take for an attack after a while, so these go over HTTP/1.1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Download;

/// A body that is known as a whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of nothing.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// Why a body could not be read as a whole.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It is larger than allowed.
    TooLarge,
    /// It broke off.
    Lost(BoxError),
}

/// Reads a whole body of at most `max` bytes. One that comes in one piece is not copied.
pub(crate) async fn read_all(mut body: Body, max: usize) -> Result<Bytes, ReadError> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(ReadError::Lost)?.into_data() else {
            continue;
        };
        if first.len().max(joined.len()) + piece.len() > max {
            return Err(ReadError::TooLarge);
        }
        if first.is_empty() {
            first = piece;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&piece);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}
