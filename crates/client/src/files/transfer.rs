//! Reading and writing whole files, streamed both ways.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use sandhold_wire::{names::METADATA_HEADER_PREFIX, rest::WrittenFile};

use super::{Files, ReadOptions, WriteOptions, url::pair};
use crate::{
    Error,
    answer::Refusal,
    limits,
    transport::{Body, BoxError, Download, empty, full},
};

/// Separates the parts of a form; random enough not to be in any file by chance.
const BOUNDARY: &str = "sandhold-7f3c1d9ab24e46d18c50e6f2a9b3";

impl Files {
    /// The whole file, at most `max` bytes: a larger one is an error that names its size. A range that starts after the end
    /// reads nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such file, [`Error::InvalidArgument`] when it is a folder or too large.
    pub async fn read(&self, path: &str, options: ReadOptions, max: u64) -> Result<Bytes, Error> {
        let (length, mut stream) = self.open(path, options).await?;
        let too_large = |size: String| Error::InvalidArgument(format!("{path} has {size} bytes, more than {max}"));
        if let Some(length) = length.filter(|length| *length > max) {
            return Err(too_large(length.to_string()));
        }
        let Some(first) = stream.next().await.transpose()? else {
            return Ok(Bytes::new());
        };
        let mut rest = BytesMut::new();
        let mut total = u64::try_from(first.len()).unwrap_or(u64::MAX);
        while let Some(piece) = stream.next().await.transpose()? {
            if rest.is_empty() {
                rest.reserve(length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0));
                rest.extend_from_slice(&first);
            }
            total = total.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if total > max {
                return Err(too_large(format!("at least {total}")));
            }
            rest.extend_from_slice(&piece);
        }
        if total > max {
            return Err(too_large(format!("at least {total}")));
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }

    /// The file as it comes; no more is read than is taken.
    ///
    /// # Errors
    /// As [`Files::read`]; a stream that breaks off ends with an error.
    pub async fn read_stream(
        &self,
        path: &str,
        options: ReadOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        Ok(self.open(path, options).await?.1)
    }

    /// The content with its length, where that is known.
    async fn open(
        &self,
        path: &str,
        options: ReadOptions,
    ) -> Result<(Option<u64>, BoxStream<'static, Result<Bytes, Error>>), Error> {
        let target = self.target(path, options.user.as_deref(), false);
        let mut request = self.envd.request(Method::GET, &target, empty())?;
        request.extensions_mut().insert(Download);
        // Packed answers have no ranges and no length.
        request
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some((first, count)) = options.range {
            let Some(last) = count.checked_sub(1).map(|more| first.saturating_add(more)) else {
                return Ok((Some(0), futures::stream::empty().boxed()));
            };
            let range = HeaderValue::from_str(&format!("bytes={first}-{last}"));
            request
                .headers_mut()
                .insert(header::RANGE, range.map_err(|_| bad_header("range"))?);
        }
        let response = self.envd.send(request, limits::REQUEST_TIMEOUT).await?;
        let status = response.status();
        if status == StatusCode::RANGE_NOT_SATISFIABLE && options.range.is_some() {
            return Ok((Some(0), futures::stream::empty().boxed()));
        }
        if !status.is_success() {
            return Err(self
                .envd
                .settle(Refusal::read(response).await.of_http(&self.envd.id))
                .await);
        }
        let length = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        // A server that ignores the range, as it may for virtual files, sends everything: then the part is cut out here.
        let cut = options.range.filter(|_| status != StatusCode::PARTIAL_CONTENT);
        let length = match cut {
            Some((first, count)) => length.map(|length: u64| length.saturating_sub(first).min(count)),
            None => length,
        };
        Ok((length, self.contents(path, response.into_body(), cut)))
    }

    fn contents(&self, path: &str, body: Body, cut: Option<(u64, u64)>) -> BoxStream<'static, Result<Bytes, Error>> {
        let (skip, left) = cut.unwrap_or((0, u64::MAX));
        let state = (self.envd.clone(), path.to_owned(), Some(body), skip, left);
        futures::stream::unfold(state, |(envd, path, body, mut skip, mut left)| async move {
            let mut body = body?;
            loop {
                if left == 0 {
                    return None;
                }
                let frame = match tokio::time::timeout(limits::TRANSFER_IDLE, body.frame()).await {
                    Ok(frame) => frame?,
                    Err(_) => {
                        let idle = limits::TRANSFER_IDLE;
                        let error = Error::Timeout(format!("reading {path}: nothing came for {idle:?}"));
                        return Some((Err(error), (envd, path, None, 0, 0)));
                    }
                };
                match frame.map(Frame::into_data) {
                    Ok(Ok(mut data)) => {
                        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                        let skipped = skip.min(length);
                        skip -= skipped;
                        drop(data.split_to(usize::try_from(skipped).unwrap_or(data.len())));
                        data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                        if data.is_empty() {
                            continue;
                        }
                        left -= u64::try_from(data.len()).unwrap_or(left);
                        return Some((Ok(data), (envd, path, Some(body), skip, left)));
                    }
                    Ok(Err(_trailers)) => {}
                    Err(source) => {
                        let what = format!("reading {path} broke off");
                        let error = envd.unless_gone(Error::Transport { what, source }).await;
                        return Some((Err(error), (envd, path, None, 0, 0)));
                    }
                }
            }
        })
        .boxed()
    }

    /// Writes a file and makes the folders above it. Returns the absolute path.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the path is a folder or metadata cannot be kept, [`Error::NoSpace`] when the disk is
    /// full.
    pub async fn write(&self, path: &str, data: Bytes, options: WriteOptions) -> Result<String, Error> {
        let body = if self.envd.takes_octet_streams() {
            full(data)
        } else {
            stream_body(form(path, futures::stream::iter([Ok(data)])))
        };
        self.upload(path, body, options).await
    }

    /// Writes a file of any size; no more is taken from `data` than the server takes. Returns the absolute path.
    ///
    /// # Errors
    /// As [`Files::write`]; an error of `data` ends the upload.
    pub async fn write_stream(
        &self,
        path: &str,
        data: BoxStream<'static, std::io::Result<Bytes>>,
        options: WriteOptions,
    ) -> Result<String, Error> {
        let body = if self.envd.takes_octet_streams() {
            stream_body(data)
        } else {
            stream_body(form(path, data))
        };
        self.upload(path, body, options).await
    }

    async fn upload(&self, path: &str, body: Body, options: WriteOptions) -> Result<String, Error> {
        let target = self.target(path, options.user.as_deref(), options.atomic);
        // Counts what the transport took, so that a slow upload is told from a stuck one.
        let moved = Arc::new(AtomicU64::new(0));
        let body = if http_body::Body::size_hint(&body).exact().is_some() {
            body
        } else {
            counted(body, moved.clone())
        };
        let mut request = self.envd.request(Method::POST, &target, body)?;
        let headers = request.headers_mut();
        let kind = if self.envd.takes_octet_streams() {
            HeaderValue::from_static("application/octet-stream")
        } else {
            HeaderValue::from_str(&format!("multipart/form-data; boundary={BOUNDARY}"))
                .map_err(|_| bad_header("form"))?
        };
        headers.insert(header::CONTENT_TYPE, kind);
        metadata(headers, &options.metadata)?;
        let mut sending = pin!(self.envd.fetch(request, std::time::Duration::MAX));
        let mut before = 0;
        let response = loop {
            match tokio::time::timeout(limits::TRANSFER_IDLE, &mut sending).await {
                Ok(response) => break response?,
                Err(_) => {
                    let now = moved.load(Ordering::Relaxed);
                    if now == before {
                        let idle = limits::TRANSFER_IDLE;
                        return Err(Error::Timeout(format!("writing {path}: nothing moved for {idle:?}")));
                    }
                    before = now;
                }
            }
        };
        let body = self
            .envd
            .collect(response, limits::ERROR_BODY, limits::REQUEST_TIMEOUT)
            .await?;
        let written: Vec<WrittenFile> = serde_json::from_slice(&body)
            .map_err(|error| Error::Protocol(format!("the answer to writing {path} cannot be read: {error}")))?;
        let first = written.into_iter().next();
        first
            .map(|file| file.path)
            .ok_or_else(|| Error::Protocol(format!("writing {path} was answered with no file")))
    }

    /// `/files` with its query.
    fn target(&self, path: &str, user: Option<&str>, atomic: bool) -> String {
        let mut query = String::with_capacity(path.len() + 32);
        pair(&mut query, "path", path);
        if let Some(user) = self.envd.user(user) {
            pair(&mut query, "username", user);
        }
        if atomic {
            pair(&mut query, "atomic", "true");
        }
        query.insert_str(0, "/files");
        query
    }
}

fn bad_header(what: &str) -> Error {
    Error::InvalidArgument(format!("the {what} cannot stand in a header"))
}

/// Adds the metadata of a file.
fn metadata(headers: &mut HeaderMap, pairs: &BTreeMap<String, String>) -> Result<(), Error> {
    for (key, value) in pairs {
        let name = HeaderName::try_from(format!("{METADATA_HEADER_PREFIX}{key}"));
        match (name, HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => headers.insert(name, value),
            _ => {
                return Err(Error::InvalidArgument(format!(
                    "metadata {key:?}: only printable ASCII can be kept"
                )));
            }
        };
    }
    Ok(())
}

fn stream_body(data: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(data.map(|piece| piece.map(Frame::data).map_err(BoxError::from))).boxed_unsync()
}

fn counted(body: Body, moved: Arc<AtomicU64>) -> Body {
    body.map_frame(move |frame| {
        let length = frame.data_ref().map_or(0, Bytes::len);
        moved.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
        frame
    })
    .boxed_unsync()
}

/// The file as the only part of a form, which is the only upload that old daemons take.
fn form(
    path: &str,
    data: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let name: String = path
        .chars()
        .map(|c| {
            if matches!(c, '"' | '\\') || c.is_control() {
                '_'
            } else {
                c
            }
        })
        .collect();
    // The path of the query goes before the name of the part.
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    futures::stream::iter([Ok(Bytes::from(head))])
        .chain(data)
        .chain(futures::stream::iter([Ok(Bytes::from(tail))]))
}
