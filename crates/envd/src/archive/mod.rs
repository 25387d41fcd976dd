//! `GET` and `PUT /sandhold/archive`: the sandbox's own files as one tar stream, and back.
//!
//! What belongs to it is what lies on the file system of `/`; what is mounted elsewhere (`/usr`, `/proc`, `/dev`) comes
//! with the sandbox. The format is PAX, with nanoseconds, extended attributes and sparse files as GNU tar writes them, so
//! other programs can read it. Restoring replaces: afterwards the files are those of the archive and no others. Both ways
//! memory is bounded by a few buffers and, for hard links, by the number of files that have several names.

mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod pack;
mod unpack;

pub(crate) use pack::{names, open_dir};

use std::ffi::OsString;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use sandhold_wire::names::ARCHIVE_PATH;
use tokio::sync::mpsc;

use crate::error::HttpError;
use crate::files::incoming::Incoming;
use crate::limits::{ARCHIVE_CHUNK, ARCHIVE_CHUNKS};
use crate::state::State;

/// Where everything starts: what the sandbox has of its own is below it. One that stands on its host's root has its home.
fn root(state: &State) -> OsString {
    let home = std::env::var_os("HOME").filter(|_| state.plain);
    home.unwrap_or_else(|| "/".into())
}

/// Why an archive was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The stream is not an archive of ours, or a hostile one.
    #[error("the archive is not valid: {0}")]
    Invalid(String),
    /// Something in the sandbox's files.
    #[error("{path}: {source}")]
    File {
        /// The path, shown.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The other side of the stream.
    #[error("the stream broke: {0}")]
    Stream(#[source] io::Error),
}

impl ArchiveError {
    fn file(path: &[u8]) -> impl Fn(rustix::io::Errno) -> Self + use<> {
        let path = path.to_vec();
        move |errno| Self::File {
            path: format!("/{}", String::from_utf8_lossy(&path)),
            source: errno.into(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Stream(_) => StatusCode::BAD_REQUEST,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

/// The endpoint.
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route(ARCHIVE_PATH, get(download).put(upload))
        .with_state(state)
}

async fn download(Shared(state): Shared<Arc<State>>) -> Response {
    let root = root(&state);
    let (send, receive) = mpsc::channel(ARCHIVE_CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut out = ChunkWriter {
            send: send.clone(),
            chunk: Vec::new(),
        };
        let packed = pack::pack(&root, &mut out).and_then(|()| out.finish().map_err(ArchiveError::Stream));
        if let Err(error) = packed {
            // The answer has begun: it breaks off, so that nobody takes it for whole.
            let _ = send.blocking_send(Err(io::Error::other(error.to_string())));
        }
    });
    let body = Body::from_stream(Chunks(receive));
    ([(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"))], body).into_response()
}

async fn upload(Shared(state): Shared<Arc<State>>, body: Body) -> Response {
    let (send, receive) = mpsc::channel(ARCHIVE_CHUNKS);
    let (root, switches) = (root(&state), state.can_switch_user);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut input = ChunkReader {
            receive,
            chunk: Bytes::new(),
        };
        unpack::unpack(&root, &mut input, switches)
    });
    let mut body = Incoming::new(body);
    while let Some(piece) = body.next().await {
        // It stopped listening: it says why below.
        if send.send(piece.map_err(io::Error::other)).await.is_err() {
            break;
        }
    }
    drop(send);
    match unpacking.await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(error)) => HttpError::new(error.status(), error.to_string()).into_response(),
        Err(_) => HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "the restore broke off").into_response(),
    }
}

/// Collects what is written into chunks.
struct ChunkWriter {
    send: mpsc::Sender<io::Result<Bytes>>,
    chunk: Vec<u8>,
}

impl ChunkWriter {
    fn finish(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() {
            return Ok(());
        }
        self.send
            .blocking_send(Ok(chunk.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= ARCHIVE_CHUNK {
            self.finish()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Chunks(mpsc::Receiver<io::Result<Bytes>>);

impl Stream for Chunks {
    type Item = io::Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

struct ChunkReader {
    receive: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
}

impl io::Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receive.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let len = into.len().min(self.chunk.len());
        into[..len].copy_from_slice(&self.chunk.split_to(len));
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
