//! `POST /sandhold/zip` and `/sandhold/unzip`: folders into archives and back, inside the sandbox. Ours, not part of E2B's
//! protocol.
//!
//! The answer is a line of JSON now and then while the work goes on, and a last one with what was done or why not. Who
//! stops reading ends the work: half an archive is removed. All files are opened with the file-system ids of the user the
//! request is for, so an archive of a stranger can do no more than that user.

mod deflate;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod gunzip;
mod pack;
mod place;
mod plan;
mod targz;
mod unpack;
mod untar;
mod unzip;
mod walk;
mod zip;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderName, HeaderValue, header::CONTENT_TYPE};
use sandhold_wire::names::{UNZIP_PATH, ZIP_PATH};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::auth;
use crate::error::HttpError;
use crate::files::json_body;
use crate::filesystem::error::{FsError, Kind, blocking};
use crate::filesystem::resolve;
use crate::limits::{BUNDLE_LISTED, BUNDLE_TELL, BUNDLE_TIME, BUNDLES};
use crate::state::State;
use crate::sys::as_user;
use crate::users::User;

/// The routes of this module.
pub(crate) fn router(state: Arc<State>) -> Router {
    let bundles = Bundles {
        state,
        permits: Arc::new(Semaphore::new(BUNDLES)),
    };
    Router::new()
        .route(ZIP_PATH, post(zip))
        .route(UNZIP_PATH, post(unzip))
        .with_state(Arc::new(bundles))
}

struct Bundles {
    state: Arc<State>,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ZipRequest {
    src: String,
    dest: String,
    /// Leave out folders that tools make again: `node_modules`, virtual environments, caches.
    #[serde(default)]
    leave_out: bool,
    username: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnzipRequest {
    archive: String,
    dest: String,
    username: Option<String>,
}

/// Paths of some kind: how many, and the first of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Listed {
    count: u64,
    paths: Vec<String>,
}

impl Listed {
    fn add(&mut self, path: &[u8]) {
        self.count += 1;
        if self.paths.len() < BUNDLE_LISTED {
            self.paths.push(String::from_utf8_lossy(path).into_owned());
        }
    }
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Report {
    /// The archive, or the folder it was unpacked into.
    path: String,
    /// Bytes of the archive.
    size: u64,
    /// Files, folders and links.
    entries: u64,
    /// Bytes of the files.
    bytes: u64,
    /// What the user may not read.
    unreadable: Listed,
    /// Folders that tools make again; of an archive: links that lead out of the folder.
    left_out: Listed,
    /// Sockets, pipes and devices.
    special: Listed,
}

/// One line of an answer.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Progress { entries: u64, bytes: u64 },
    Done(&'a Report),
    Error { code: u16, message: String },
}

impl Line<'_> {
    fn bytes(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

async fn zip(Shared(bundles): Shared<Arc<Bundles>>, body: Body) -> Result<Response, HttpError> {
    let request: ZipRequest = json_body(body).await?;
    let user = auth::user_named(&bundles.state, request.username.as_deref())?;
    let src = resolve(&bundles.state, &request.src, &user)?;
    let dest = resolve(&bundles.state, &request.dest, &user)?;
    Ok(bundles.answer(user, move |user, work| {
        pack::pack(&src, &dest, request.leave_out, user, work)
    }))
}

async fn unzip(Shared(bundles): Shared<Arc<Bundles>>, body: Body) -> Result<Response, HttpError> {
    let request: UnzipRequest = json_body(body).await?;
    let user = auth::user_named(&bundles.state, request.username.as_deref())?;
    let archive = resolve(&bundles.state, &request.archive, &user)?;
    let dest = resolve(&bundles.state, &request.dest, &user)?;
    Ok(bundles.answer(user, move |user, work| unpack::unpack(&archive, &dest, user, work)))
}

/// How far a piece of work is, and whether it is still wanted.
#[derive(Debug)]
struct Work {
    cancelled: AtomicBool,
    deadline: Instant,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// Memory that the sandbox may use, where that is known.
    memory: Option<u64>,
}

impl Work {
    fn new(time: Duration) -> Self {
        Self {
            cancelled: AtomicBool::new(false),
            deadline: Instant::now() + time,
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            memory: None,
        }
    }

    /// In a sandbox that may use so many bytes of memory.
    fn within(mut self, memory: Option<u64>) -> Self {
        self.memory = memory;
        self
    }

    /// Whether to go on.
    fn go_on(&self) -> Result<(), FsError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(FsError::new(Kind::Exhausted, "it was cancelled"));
        }
        if Instant::now() >= self.deadline {
            let minutes = BUNDLE_TIME.as_secs() / 60;
            return Err(FsError::new(
                Kind::Exhausted,
                format!("it took longer than {minutes} minutes"),
            ));
        }
        Ok(())
    }

    fn entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn line(&self) -> Bytes {
        let line = Line::Progress {
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        };
        line.bytes()
    }
}

/// Dropped with the answer, also when the client goes away.
struct Cancel(Arc<Work>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Bundles {
    /// Does `what` as `user` and tells how it goes.
    fn answer<F>(&self, user: User, what: F) -> Response
    where
        F: FnOnce(&User, &Work) -> Result<Report, FsError> + Send + 'static,
    {
        let work = Arc::new(Work::new(BUNDLE_TIME).within(self.state.memory_bytes));
        let cancel = Cancel(Arc::clone(&work));
        let permits = Arc::clone(&self.permits);
        let done = async move {
            // Never closed. It stays with the thread, which goes on for a moment after a cancel.
            let permit = permits.acquire_owned().await.ok();
            blocking(move || {
                let _permit = permit;
                as_user(user.uid, user.gid, || what(&user, &work))
            })
            .await
        };
        let body = futures::stream::unfold(Some((done.boxed(), cancel)), tell);
        let head = [
            (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
            // Proxies must not hold lines back to fill a buffer.
            (
                HeaderName::from_static("x-accel-buffering"),
                HeaderValue::from_static("no"),
            ),
        ];
        (head, Body::from_stream(body)).into_response()
    }
}

type Running = (BoxFuture<'static, Result<Report, FsError>>, Cancel);

/// The next line.
async fn tell(running: Option<Running>) -> Option<(Result<Bytes, std::convert::Infallible>, Option<Running>)> {
    let (mut done, cancel) = running?;
    let line = match tokio::time::timeout(BUNDLE_TELL, &mut done).await {
        Err(_) => return Some((Ok(cancel.0.line()), Some((done, cancel)))),
        Ok(Ok(report)) => Line::Done(&report).bytes(),
        Ok(Err(error)) => {
            let error = HttpError::from(error);
            let line = Line::Error {
                code: error.status.as_u16(),
                message: error.message,
            };
            line.bytes()
        }
    };
    Some((Ok(line), None))
}

/// What an archive is called that has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Zip,
    TarGz,
}

impl Format {
    /// By the name that an archive is to have.
    fn of(path: &Path) -> Result<Self, FsError> {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase();
        if name.ends_with(".zip") {
            Ok(Self::Zip)
        } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            Ok(Self::TarGz)
        } else {
            Err(FsError::invalid(format!(
                "'{}' is to be made, but only .zip, .tar.gz and .tgz are known",
                path.display()
            )))
        }
    }
}

/// An error about the entry `path` of an archive or folder.
fn about(what: &str, path: &[u8], error: rustix::io::Errno) -> FsError {
    FsError::io(format!("{what} '{}'", String::from_utf8_lossy(path)), error)
}

/// A path without its last part, which may be empty.
fn parent_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

/// `1700000000.25` as seconds and nanoseconds. None for what is no time, or before 1970.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let nanos = format!("{part:0<9}").get(..9)?.parse().ok()?;
    Some((whole.parse().ok()?, nanos))
}
