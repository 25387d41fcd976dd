//! Output that is too long for one answer is also written to a file in the sandbox, while it comes.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use sandhold_client::{Error, Files, WriteOptions};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{budget, limits};

/// Where such files are.
const FOLDER: &str = "/tmp/.sandhold/jobs";
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
}

/// Where the data goes, and the request that carries it.
type Writing = (mpsc::Sender<std::io::Result<Bytes>>, JoinHandle<Result<String, Error>>);

/// The writer of one stream's file.
pub(crate) struct Spill {
    files: Files,
    path: String,
    user: Option<String>,
    sent: u64,
    open: Option<Writing>,
    kept: Option<Kept>,
}

impl Spill {
    /// The file of the stream `name` of a job. It is made once there is too much output for one answer.
    pub(crate) fn new(files: Files, job: &str, name: &str, user: Option<String>) -> Self {
        Self {
            files,
            path: format!("{FOLDER}/{job}/{name}"),
            user,
            sent: 0,
            open: None,
            kept: None,
        }
    }

    /// The file, once there is one.
    pub(crate) fn kept(&self) -> Option<Kept> {
        self.kept.clone()
    }

    /// Whether the stream, `total` bytes long now, has to be written down.
    pub(crate) fn wants(&self, total: u64) -> bool {
        total > budget::ANSWER as u64 && (self.open.is_some() || self.kept.is_none())
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
        let options = WriteOptions {
            user: self.user.clone(),
            ..WriteOptions::default()
        };
        let (files, path) = (self.files.clone(), self.path.clone());
        let task = tokio::spawn(async move { files.write_stream(&path, body, options).await });
        self.open = Some((sender, task));
        self.kept = Some(Kept {
            path: self.path.clone(),
            complete: true,
        });
    }

    /// Ends the file. `whole`: the stream ended too.
    pub(crate) async fn finish(&mut self, whole: bool) {
        let Some((queue, task)) = self.open.take() else { return };
        drop(queue);
        let written = tokio::time::timeout(LAST_WRITE, task).await;
        let complete = matches!(written, Ok(Ok(Ok(_)))) && whole;
        if let Ok(Ok(Err(error))) = &written {
            tracing::debug!(path = self.path, %error, "output was not written down");
        }
        if let Some(kept) = &mut self.kept {
            kept.complete &= complete;
        }
    }
}
