//! Output that is too long for one answer is also written to a file in the sandbox, while it comes.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use sandhold_client::{Error, Files, WriteOptions};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{budget, limits};

/// Where the files of a job are.
pub(crate) fn folder(job: &str) -> String {
    format!("/tmp/.sandhold/jobs/{job}")
}

/// Chunks on their way to the file; more slow the command down.
const QUEUE: usize = 16;
/// How long the file's end is waited for when the command has ended.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// A file with the output of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) path: String,
    /// False if it ends before the output does.
    pub(crate) complete: bool,
    pub(crate) bytes: u64,
}

/// Where the data goes, and the request that carries it.
type Writing = (mpsc::Sender<std::io::Result<Bytes>>, JoinHandle<Result<String, Error>>);

/// The writer of one stream's file.
pub(crate) struct Spill {
    files: Files,
    path: String,
    sent: u64,
    /// It could not be written.
    lost: bool,
    /// Its beginning is missing: a file would not be what it seems.
    off: bool,
    open: Option<Writing>,
    kept: Option<Kept>,
}

impl Spill {
    /// The file of the stream `name` of a job. It is made once there is too much output for one answer.
    pub(crate) fn new(files: Files, job: &str, name: &str) -> Self {
        Self {
            files,
            path: format!("{}/{name}", folder(job)),
            sent: 0,
            lost: false,
            off: false,
            open: None,
            kept: None,
        }
    }

    /// None for a job whose beginning is not known here; `found` is the file that another server wrote.
    pub(crate) fn off(mut self, found: Option<Kept>) -> Self {
        self.off = true;
        self.sent = found.as_ref().map_or(0, |kept| kept.bytes);
        self.kept = found;
        self
    }

    /// The file, once there is one.
    pub(crate) fn kept(&self) -> Option<Kept> {
        let kept = self.kept.clone().filter(|_| !self.lost)?;
        Some(Kept {
            bytes: self.sent,
            ..kept
        })
    }

    /// Whether the stream, `total` bytes long now, has to be written down.
    pub(crate) fn wants(&self, total: u64) -> bool {
        !self.off && total > budget::ANSWER as u64 && (self.open.is_some() || self.kept.is_none())
    }

    /// What was sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Writes what comes next.
    pub(crate) async fn write(&mut self, data: Bytes) {
        if self.kept.is_none() {
            self.start();
        }
        let room = usize::try_from(limits::SPILL - self.sent).unwrap_or(usize::MAX);
        let part = data.slice(..data.len().min(room));
        self.sent += part.len() as u64;
        let Some((queue, _)) = &self.open else { return };
        let failed = queue.send(Ok(part)).await.is_err();
        if failed || data.len() > room {
            self.finish(false).await;
        }
    }

    fn start(&mut self) {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let body = stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed();
        let (files, path) = (self.files.clone(), self.path.clone());
        let task = tokio::spawn(async move { files.write_stream(&path, body, WriteOptions::default()).await });
        self.open = Some((sender, task));
        self.kept = Some(Kept {
            path: self.path.clone(),
            complete: true,
            bytes: 0,
        });
    }

    /// Ends the file. `whole`: the stream ended too. A file that could not be written is removed: the disk may be full.
    pub(crate) async fn finish(&mut self, whole: bool) {
        let Some((queue, task)) = self.open.take() else { return };
        drop(queue);
        match tokio::time::timeout(LAST_WRITE, task).await {
            Ok(Ok(Ok(_))) => {
                if let Some(kept) = &mut self.kept {
                    kept.complete &= whole;
                }
            }
            Ok(Ok(Err(error))) => {
                tracing::debug!(path = self.path, %error, "output was not written down");
                self.lost = true;
                // That it cannot be removed either is said nowhere: the sandbox may be gone.
                let _ = self.files.remove(&self.path, None).await;
            }
            Ok(Err(_)) | Err(_) => self.lost = true,
        }
    }
}
