//! `GET /files`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Query as UrlQuery, State as Shared};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::{Compression, read::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use sandhold_wire::signature::Operation;

use super::access::{self, Query};
use super::body::{FileBody, Plain, Source, read_up_to};
use super::conditions::{self, Verdict};
use super::encoding::{self, Coding};
use super::{QueryError, content};
use crate::auth;
use crate::error::HttpError;
use crate::filesystem::error::{FsError, Kind, blocking};
use crate::filesystem::limits::{FILE_CHUNK, SNIFF, UNSIZED_FILE};
use crate::filesystem::{entry, resolve};
use crate::state::State;

/// Answers with a file, or with the part of it that was asked for.
pub(crate) async fn download(
    Shared(state): Shared<Arc<State>>,
    method: Method,
    query: Result<UrlQuery<Query>, QueryError>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let UrlQuery(query) = query.map_err(super::bad_query)?;
    access::check(&state, &headers, &query, Operation::Read)?;
    let user = auth::user_named(&state, query.username.as_deref())?;
    let path = resolve(&state, query.path.as_deref().unwrap_or_default(), &user)?;
    let head_only = method == Method::HEAD;
    Ok(blocking(move || answer(&path, &headers, head_only)).await?)
}

fn answer(path: &Path, headers: &HeaderMap, head_only: bool) -> Result<Response, FsError> {
    let (mut file, size, modified) = open(path)?;
    let coding = encoding::accepted(headers)?;
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    out.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(modified)) {
        out.insert(header::LAST_MODIFIED, date);
    }
    if coding == Coding::Gzip && !conditions::present(headers) {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        out.insert(header::CONTENT_TYPE, content::content_type(path, None));
        out.insert(header::CONTENT_DISPOSITION, content::disposition(path));
        if !head_only {
            *response.body_mut() = gzipped(file, path)?;
        }
        return Ok(response);
    }
    let failed = |e| FsError::io(format!("error reading file '{}'", path.display()), e);
    let whole = StatusCode::OK;
    let (status, range) = match conditions::judge(headers, modified, size) {
        Verdict::Whole => (whole, 0..size),
        Verdict::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Verdict::NotModified => return Ok(with_status(response, StatusCode::NOT_MODIFIED)),
        Verdict::Failed => return Ok(with_status(response, StatusCode::PRECONDITION_FAILED)),
        Verdict::Unsatisfiable => {
            let refusal = HttpError::new(StatusCode::RANGE_NOT_SATISFIABLE, "the range is not within the file");
            let mut refusal = refusal.into_response();
            insert(&mut refusal, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(refusal);
        }
    };
    // The type needs the start of the file, which for most requests is what is sent first.
    let start = if range.start == 0 && !head_only {
        let limit = if size == 0 {
            UNSIZED_FILE
        } else {
            FILE_CHUNK.min(usize::try_from(range.end).unwrap_or(FILE_CHUNK))
        };
        read_up_to(&file, limit).map_err(failed)?
    } else {
        read_up_to(&file, SNIFF).map_err(failed)?
    };
    let sniffed = if start.len() < SNIFF && range.end < size && range.start == 0 {
        // A short range from the start shows less than the type is guessed from.
        let mut sniffed = start.clone();
        sniffed.extend(read_up_to(&file, SNIFF - start.len()).map_err(failed)?);
        content::content_type(path, Some(&sniffed))
    } else {
        content::content_type(path, Some(&start))
    };
    let length = if size == 0 {
        start.len() as u64
    } else {
        range.end - range.start
    };
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, sniffed);
    out.insert(header::CONTENT_DISPOSITION, content::disposition(path));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        insert(&mut response, header::CONTENT_RANGE, &value);
    }
    if !head_only {
        *response.body_mut() = if range.start > 0 {
            file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
            stream(Source::Plain(Plain::new(file, length)), path)?
        } else if start.len() as u64 == length {
            Body::from(start)
        } else if start.is_empty() {
            return Err(failed(io::Error::from(io::ErrorKind::UnexpectedEof)));
        } else {
            let left = length - start.len() as u64;
            Body::new(FileBody::new(start.into(), Source::Plain(Plain::new(file, left))))
        };
    }
    Ok(with_status(response, status))
}

fn with_status(mut response: Response, status: StatusCode) -> Response {
    *response.status_mut() = status;
    response
}

fn insert(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A body from `source`, its first piece read here, so that a short one needs no second thread.
fn stream(mut source: Source, path: &Path) -> Result<Body, FsError> {
    let first: Bytes = source
        .read()
        .map_err(|e| FsError::io(format!("error reading file '{}'", path.display()), e))?;
    Ok(Body::new(FileBody::new(first, source)))
}

fn gzipped(mut file: File, path: &Path) -> Result<Body, FsError> {
    let failed = |e| FsError::io(format!("error reading file '{}'", path.display()), e);
    let start = read_up_to(&file, FILE_CHUNK).map_err(failed)?;
    // Most of this travels within one machine: the fastest level costs least.
    let mut first = Vec::new();
    GzEncoder::new(&start[..], Compression::fast())
        .read_to_end(&mut first)
        .map_err(failed)?;
    if start.len() < FILE_CHUNK {
        return Ok(Body::from(first));
    }
    // And what does not get smaller is packed as it is, which costs next to nothing.
    let gains = first.len() < start.len() / 10 * 9;
    let level = if gains {
        Compression::fast()
    } else {
        Compression::none()
    };
    file.rewind().map_err(failed)?;
    stream(Source::Gzip(Box::new(GzEncoder::new(file, level))), path)
}

/// Opens a regular file; gives its size and the time of its last change.
fn open(path: &Path) -> Result<(File, u64, SystemTime), FsError> {
    let missing = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            FsError::new(Kind::NotFound, format!("path '{}' does not exist", path.display()))
        }
        _ => FsError::io(format!("error opening file '{}'", path.display()), e),
    };
    // Looked at before it is opened: opening a pipe or a device does something to it.
    regular(path, &std::fs::metadata(path).map_err(missing)?)?;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(missing)?;
    // And after: another may stand there by now.
    let meta = file.metadata().map_err(missing)?;
    regular(path, &meta)?;
    Ok((file, meta.len(), meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
}

fn regular(path: &Path, meta: &std::fs::Metadata) -> Result<(), FsError> {
    if meta.is_file() {
        return Ok(());
    }
    if meta.is_dir() {
        return Err(FsError::invalid(format!("path '{}' is a directory", path.display())));
    }
    Err(FsError::invalid(format!(
        "path '{}' is {}, only regular files can be read",
        path.display(),
        entry::special_kind(meta.file_type())
    )))
}
