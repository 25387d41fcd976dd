//! `POST /files`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use async_compression::tokio::bufread::GzipDecoder;
use axum::body::Body;
use axum::extract::{Query as UrlQuery, State as Shared};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, StatusCode, header};
use multer::Multipart;
use percent_encoding::percent_decode_str;
use sandhold_wire::limits::{FILE_METADATA_KEY, FILE_METADATA_TOTAL};
use sandhold_wire::names::METADATA_HEADER_PREFIX;
use sandhold_wire::rest::WrittenFile;
use sandhold_wire::signature::Operation;
use tokio::task::spawn_blocking;
use tokio_util::io::{ReaderStream, StreamReader};

use super::access::{self, Query};
use super::encoding::{self, Coding};
use super::incoming::Incoming;
use super::target::Target;
use super::{QueryError, written};
use crate::auth;
use crate::error::{HttpError, json};
use crate::filesystem::error::FsError;
use crate::filesystem::limits::{DECODE_CHUNK, FILE_CHUNK, UPLOAD_FILES};
use crate::filesystem::resolve;
use crate::state::State;
use crate::users::User;

/// What an upload's files have in common.
struct Upload {
    state: Arc<State>,
    user: User,
    path: Option<String>,
    atomic: bool,
    metadata: BTreeMap<String, String>,
}

/// Writes the files that the body brings.
pub(crate) async fn upload(
    Shared(state): Shared<Arc<State>>,
    query: Result<UrlQuery<Query>, QueryError>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let UrlQuery(query) = query.map_err(super::bad_query)?;
    access::check(&state, &headers, &query, Operation::Write)?;
    let user = auth::user_named(&state, query.username.as_deref())?;
    let metadata = metadata(&headers)?;
    let body = decoded(body, encoding::of_body(&headers)?);
    let upload = Upload {
        state,
        user,
        path: query.path,
        atomic: query.atomic,
        metadata,
    };
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or("", |v| v.to_str().unwrap_or("?"));
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let files = if media_type == "application/octet-stream" {
        vec![upload.raw(body).await?]
    } else if media_type.starts_with("multipart/") {
        upload.multipart(body, content_type).await?
    } else {
        return Err(HttpError::bad_request(format!(
            "unsupported content type: {content_type}, expected multipart/form-data or application/octet-stream"
        )));
    };
    Ok(json(StatusCode::OK, &files))
}

type Pieces = BoxStream<'static, Result<Bytes, FsError>>;

/// The body without its content coding. However much comes out of it, little of it is in memory at a time.
fn decoded(body: Body, coding: Coding) -> Pieces {
    let body = Incoming::new(body);
    match coding {
        Coding::Identity => body
            .map_err(|e| FsError::invalid(format!("error reading request body: {e}")))
            .boxed(),
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(StreamReader::new(body.map_err(std::io::Error::other)));
            decoder.multiple_members(true);
            ReaderStream::with_capacity(decoder, DECODE_CHUNK)
                .map_err(|e| FsError::invalid(format!("error decompressing request body: {e}")))
                .boxed()
        }
    }
}

/// The metadata that the headers give.
fn metadata(headers: &HeaderMap) -> Result<BTreeMap<String, String>, FsError> {
    let mut metadata = BTreeMap::new();
    let mut total = 0;
    // Names of headers are lower case here, whatever the client wrote.
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(METADATA_HEADER_PREFIX) else {
            continue;
        };
        if key.is_empty() || key.len() > FILE_METADATA_KEY {
            let text = format!("metadata key '{key}' must have 1 to {FILE_METADATA_KEY} bytes");
            return Err(FsError::invalid(text));
        }
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
        let value = values.join(&b", "[..]);
        if !value.iter().all(|b| (0x20..0x7f).contains(b)) {
            let text = format!("the value of metadata '{key}' must be printable ASCII");
            return Err(FsError::invalid(text));
        }
        total += key.len() + value.len();
        metadata.insert(key.to_owned(), String::from_utf8_lossy(&value).into_owned());
    }
    if total > FILE_METADATA_TOTAL {
        let text = format!("metadata has {total} bytes, {FILE_METADATA_TOTAL} are allowed");
        return Err(FsError::invalid(text));
    }
    Ok(metadata)
}

impl Upload {
    async fn raw(self, body: Pieces) -> Result<WrittenFile, FsError> {
        let Some(path) = &self.path else {
            return Err(FsError::invalid("path query parameter is required for raw body upload"));
        };
        let path = resolve(&self.state, path, &self.user)?;
        self.receive(path, body).await
    }

    async fn multipart(self, body: Pieces, content_type: &str) -> Result<Vec<WrittenFile>, FsError> {
        let boundary = multer::parse_boundary(content_type)
            .map_err(|e| FsError::invalid(format!("error parsing multipart form: {e}")))?;
        let mut form = Multipart::new(body, boundary);
        let mut files: Vec<WrittenFile> = Vec::new();
        let mut seen: HashSet<PathBuf> = HashSet::new();
        while let Some(field) = form.next_field().await.map_err(form_error)? {
            if field.name() != Some("file") {
                continue;
            }
            let path = match &self.path {
                Some(path) => resolve(&self.state, path, &self.user)?,
                None => {
                    let name = file_name(field.headers()).or_else(|| field.file_name().map(str::to_owned));
                    let name = name.filter(|n| !n.is_empty()).ok_or_else(|| {
                        FsError::invalid("a file of the upload has no name, and the request names no path")
                    })?;
                    resolve(&self.state, &name, &self.user)?
                }
            };
            if !seen.insert(path.clone()) {
                return Err(duplicate(&path, &files));
            }
            if files.len() == UPLOAD_FILES {
                let text = format!("one upload may have {UPLOAD_FILES} files, the first of them were written");
                return Err(FsError::invalid(text));
            }
            files.push(self.receive(path, field.map_err(form_error).boxed()).await?);
        }
        Ok(files)
    }

    /// Writes one file: the next pieces are awaited while the former are written. One that comes at once is opened and
    /// written in one go.
    async fn receive(&self, path: PathBuf, mut pieces: Pieces) -> Result<WrittenFile, FsError> {
        let (mut batch, mut last) = fill(&mut pieces).await?;
        let file = written(&path, Some(self.metadata.clone()).filter(|m| !m.is_empty()));
        let (user, atomic, metadata) = (self.user.clone(), self.atomic, self.metadata.clone());
        let mut writing = spawn_blocking(move || {
            let mut target = Target::open(&path, &user, atomic, &metadata)?;
            target.write(&batch)?;
            finish_if(last, target)
        });
        while !last {
            let next = fill(&mut pieces).await;
            let target = joined(writing.await)?;
            // A body that broke off drops the target, which clears up.
            (batch, last) = next?;
            writing = spawn_blocking(move || {
                let mut target = target.ok_or_else(|| FsError::invalid("the upload ended twice"))?;
                target.write(&batch)?;
                finish_if(last, target)
            });
        }
        joined(writing.await)?;
        Ok(file)
    }
}

fn finish_if(last: bool, target: Target) -> Result<Option<Target>, FsError> {
    if last {
        target.finish().map(|()| None)
    } else {
        Ok(Some(target))
    }
}

fn joined<T>(result: Result<Result<T, FsError>, tokio::task::JoinError>) -> Result<T, FsError> {
    result.unwrap_or_else(|e| Err(FsError::io("writing stopped", std::io::Error::other(e))))
}

/// The next pieces, about [`FILE_CHUNK`] bytes; true when they are the last.
async fn fill(
    pieces: &mut (impl Stream<Item = Result<Bytes, FsError>> + Unpin),
) -> Result<(Vec<Bytes>, bool), FsError> {
    let mut batch = Vec::new();
    let mut size = 0;
    while size < FILE_CHUNK {
        match pieces.next().await {
            None => return Ok((batch, true)),
            Some(piece) => {
                let piece = piece?;
                size += piece.len();
                batch.push(piece);
            }
        }
    }
    Ok((batch, false))
}

fn duplicate(path: &std::path::Path, files: &[WrittenFile]) -> FsError {
    let mut text = format!(
        "you cannot upload multiple files to the same path '{}' in one upload request, only the first specified file was uploaded",
        path.display()
    );
    let others: Vec<&str> = files
        .iter()
        .map(|f| f.path.as_str())
        .filter(|p| std::path::Path::new(p) != path)
        .collect();
    if !others.is_empty() {
        text.push_str(", also the following files were uploaded: ");
        text.push_str(&others.join(", "));
    }
    FsError::invalid(text)
}

/// An error of the form, or the one of the body below it.
fn form_error(error: multer::Error) -> FsError {
    match error {
        multer::Error::StreamReadFailed(inner) => match inner.downcast::<FsError>() {
            Ok(inner) => *inner,
            Err(inner) => FsError::invalid(format!("error reading form: {inner}")),
        },
        error => FsError::invalid(format!("error reading form: {error}")),
    }
}

/// `filename*=utf-8''…` of a part, which wins over `filename`.
fn file_name(headers: &HeaderMap) -> Option<String> {
    let value = String::from_utf8_lossy(headers.get(header::CONTENT_DISPOSITION)?.as_bytes()).into_owned();
    let coded = value.split(';').find_map(|p| p.trim().strip_prefix("filename*="))?;
    let (charset, rest) = coded.split_once('\'')?;
    let (_, name) = rest.split_once('\'')?;
    charset
        .eq_ignore_ascii_case("utf-8")
        .then(|| percent_decode_str(name).decode_utf8_lossy().into_owned())
}
