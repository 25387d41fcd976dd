//! Folders into archives and back, inside the sandbox.

mod fallback;

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use http::{HeaderValue, Method, Request, header};
use http_body_util::BodyExt;
use sandhold_wire::names::{UNZIP_PATH, ZIP_PATH};
use serde::{Deserialize, Serialize};

use super::Files;
use crate::{
    Error,
    answer::Refusal,
    limits,
    transport::{Body, full},
};

/// A folder that is to be packed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ZipRequest {
    /// The folder. Paths in the archive start below it.
    pub src: String,
    /// The archive: `.zip`, `.tar.gz` or `.tgz`. One that stands there is replaced once the new one is whole.
    pub dest: String,
    /// Leave out folders that tools make again, such as `node_modules` and virtual environments.
    pub leave_out: bool,
    /// Who reads and writes; `None` is the sandbox's default user.
    #[serde(rename = "username", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// An archive that is to be unpacked: a zip, tar or tar.gz file, whatever its name says.
#[derive(Debug, Clone, Default, Serialize)]
pub struct UnzipRequest {
    /// The archive.
    pub archive: String,
    /// The folder it is unpacked into, made if it is missing.
    pub dest: String,
    /// Who reads and writes; `None` is the sandbox's default user.
    #[serde(rename = "username", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Paths of some kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PathList {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub paths: Vec<String>,
}

/// What was packed or unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ArchiveReport {
    /// Absolute path of the archive, or of the folder it was unpacked into.
    pub path: String,
    /// Bytes of the archive.
    pub size: u64,
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What the user may not read; it is not in the archive.
    pub unreadable: PathList,
    /// Folders that tools make again, left out as was asked; of what was unpacked: links that lead out of the folder.
    pub left_out: PathList,
    /// Sockets, pipes and devices, which no archive holds.
    pub special: PathList,
}

/// How packing or unpacking goes on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveEvent {
    /// So far.
    Progress {
        /// Entries.
        entries: u64,
        /// Bytes of files.
        bytes: u64,
    },
    /// It is done; nothing comes after this.
    Done(ArchiveReport),
}

/// Packing or unpacking that goes on. Dropping it ends it; half an archive is removed then.
pub struct ArchiveWork {
    events: BoxStream<'static, Result<ArchiveEvent, Error>>,
}

impl std::fmt::Debug for ArchiveWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveWork").finish_non_exhaustive()
    }
}

impl ArchiveWork {
    /// What comes next, some two times a second; `None` after the end or an error.
    pub async fn next(&mut self) -> Option<Result<ArchiveEvent, Error>> {
        self.events.next().await
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What [`ArchiveWork::next`] ends with.
    pub async fn done(&mut self) -> Result<ArchiveReport, Error> {
        loop {
            match self.next().await {
                Some(Ok(ArchiveEvent::Done(report))) => return Ok(report),
                Some(Ok(ArchiveEvent::Progress { .. })) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(Error::Protocol("an archive's last word is missing".into())),
            }
        }
    }
}

/// One line of the server.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Progress { entries: u64, bytes: u64 },
    Done(ArchiveReport),
    Error { code: u16, message: String },
}

impl Files {
    /// Packs a folder. Sandhold's envd does it side by side on all processors; elsewhere a helper in Python.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the folder is not there, [`Error::InvalidArgument`] when the archive's name is none,
    /// [`Error::NoSpace`] when the disk is full; here or as the last event.
    pub async fn zip(&self, request: ZipRequest) -> Result<ArchiveWork, Error> {
        match self.ask(ZIP_PATH, &request).await? {
            Some(work) => Ok(work),
            None => self.zip_by_command(&request).await,
        }
    }

    /// Unpacks an archive. One that is hostile or damaged is refused before anything is written, as far as its directory
    /// tells; nothing is ever written outside of the folder.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the archive is not there, [`Error::InvalidArgument`] when it is refused,
    /// [`Error::NoSpace`] when it does not fit the disk; here or as the last event.
    pub async fn unzip(&self, request: UnzipRequest) -> Result<ArchiveWork, Error> {
        match self.ask(UNZIP_PATH, &request).await? {
            Some(work) => Ok(work),
            None => self.unzip_by_command(&request).await,
        }
    }

    /// `None` when the server does not know the endpoint, which is remembered.
    async fn ask(&self, path: &str, message: &impl Serialize) -> Result<Option<ArchiveWork>, Error> {
        if self.envd.no_archives.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let body = serde_json::to_vec(message)
            .map_err(|error| Error::InvalidArgument(format!("the request cannot be written as JSON: {error}")))?;
        let mut request: Request<Body> = self.envd.request(Method::POST, path, full(body))?;
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.envd.send(request, limits::REQUEST_TIMEOUT).await?;
        if !response.status().is_success() {
            let refusal = Refusal::read(response).await;
            if refusal.endpoint_is_missing() {
                self.envd.no_archives.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            return Err(self.envd.settle(refusal.of_http(&self.envd.id)).await);
        }
        let envd = self.envd.clone();
        let path = path.to_owned();
        let pieces = futures::stream::unfold(Some(response.into_body()), move |body| {
            let (envd, path) = (envd.clone(), path.clone());
            async move {
                let mut body = body?;
                loop {
                    let frame = match tokio::time::timeout(limits::TRANSFER_IDLE, body.frame()).await {
                        Ok(frame) => frame?,
                        Err(_) => {
                            let idle = limits::TRANSFER_IDLE;
                            let error = Error::Timeout(format!("{path} said nothing for {idle:?}"));
                            return Some((Err(error), None));
                        }
                    };
                    match frame.map(http_body::Frame::into_data) {
                        Ok(Ok(data)) => return Some((Ok(data), Some(body))),
                        Ok(Err(_trailers)) => {}
                        Err(source) => {
                            let what = format!("the answer of {path} broke off");
                            let error = envd.unless_gone(Error::Transport { what, source }).await;
                            return Some((Err(error), None));
                        }
                    }
                }
            }
        });
        Ok(Some(ArchiveWork {
            events: events(pieces.boxed(), self.envd.id.clone()),
        }))
    }
}

/// Cuts what comes into lines and understands them. The stream ends with the first that is the last or an error.
fn events(
    pieces: BoxStream<'static, Result<Bytes, Error>>,
    id: String,
) -> BoxStream<'static, Result<ArchiveEvent, Error>> {
    let state = Some((pieces, BytesMut::new(), id));
    futures::stream::unfold(state, |state| async move {
        let (mut pieces, mut held, id) = state?;
        loop {
            if let Some(end) = held.iter().position(|b| *b == b'\n') {
                let line = held.split_to(end + 1);
                return Some(match understood(&line, &id) {
                    Ok(event @ ArchiveEvent::Progress { .. }) => (Ok(event), Some((pieces, held, id))),
                    last => (last, None),
                });
            }
            if held.len() > limits::ERROR_BODY {
                let error = Error::Protocol("a line about an archive is too long".into());
                return Some((Err(error), None));
            }
            match pieces.next().await {
                Some(Ok(piece)) => held.extend_from_slice(&piece),
                Some(Err(error)) => return Some((Err(error), None)),
                None => {
                    let error = Error::Protocol("the work on an archive broke off and did not say why".into());
                    return Some((Err(error), None));
                }
            }
        }
    })
    .boxed()
}

/// For the fuzzer: whether a line about an archive is understood.
#[cfg(fuzzing)]
pub(crate) fn is_understood(line: &[u8]) -> bool {
    understood(line, "i").is_ok()
}

fn understood(line: &[u8], id: &str) -> Result<ArchiveEvent, Error> {
    match serde_json::from_slice(line) {
        Ok(Line::Progress { entries, bytes }) => Ok(ArchiveEvent::Progress { entries, bytes }),
        Ok(Line::Done(report)) => Ok(ArchiveEvent::Done(report)),
        Ok(Line::Error { code, message }) => Err(match Refusal::known(code, message).of_http(id) {
            Ok(error) | Err(error) => error,
        }),
        Err(error) => Err(Error::Protocol(format!(
            "a line about an archive cannot be read: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(pieces: &[&str]) -> Vec<Result<ArchiveEvent, Error>> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|p| Ok(Bytes::copy_from_slice(p.as_bytes())))
            .collect();
        events(futures::stream::iter(pieces).boxed(), "i1".into())
            .collect()
            .await
    }

    #[tokio::test]
    async fn lines_in_any_pieces() {
        let got = all(&[
            "{\"progress\":{\"entries\":1,\"by",
            "tes\":2}}\n{\"done\":{\"path\":\"/a.zip\",\"size\":3,\"entries\":1,\"bytes\":2,\"new\":1}}\n",
            "more",
        ])
        .await;
        assert!(matches!(got[0], Ok(ArchiveEvent::Progress { entries: 1, bytes: 2 })));
        assert!(matches!(&got[1], Ok(ArchiveEvent::Done(r)) if r.path == "/a.zip" && r.size == 3));
        assert_eq!(got.len(), 2);
    }

    #[tokio::test]
    async fn errors_are_the_last() {
        let got = all(&["{\"error\":{\"code\":507,\"message\":\"full\"}}\n"]).await;
        assert!(matches!(&got[..], [Err(Error::NoSpace(text))] if text == "full"));
        let got = all(&["{\"progress\":{\"entries\":1,\"bytes\":2}}\n"]).await;
        assert!(matches!(got.last(), Some(Err(Error::Protocol(_)))));
        let got = all(&["nonsense\n"]).await;
        assert!(matches!(&got[..], [Err(Error::Protocol(_))]));
        let long = "x".repeat(limits::ERROR_BODY + 1);
        assert!(matches!(&all(&[&long]).await[..], [Err(Error::Protocol(_))]));
    }
}
