//! The files of paused sandboxes: one tar each, written beside and renamed, so that one that is there is whole.
//!
//! A tar comes from inside a sandbox: here it is bytes that are counted, nothing reads it but the daemon that gets it back.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use axum::body::Body;
use futures::stream;
use http::Method;
use sandhold_runtime::Sandbox;
use sandhold_wire::names::ARCHIVE_PATH;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    daemon::{self, DaemonError},
    error::StoreError,
    limits::{ARCHIVE_STALE, ARCHIVE_TIME, PAUSED_TOTAL},
    store::private,
};

/// What a tar is read and sent in.
const CHUNK: usize = 256 << 10;

/// Why the files of a sandbox were not kept or brought back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("the files of paused sandboxes may take {PAUSED_TOTAL} bytes together, and these do not fit")]
    Full,
    #[error("the disk is full")]
    NoSpace,
    #[error("cannot use {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// The folder of the tars.
pub(crate) struct Archives {
    folder: PathBuf,
    used: AtomicU64,
    limit: u64,
}

impl Archives {
    /// Opens the folder; files that belong to none of `paused` and are old are removed.
    pub(crate) fn open(home: &Path, paused: &[String]) -> Result<Self, StoreError> {
        let folder = home.join("paused");
        let failed = |source| StoreError::Folder {
            path: folder.display().to_string(),
            source,
        };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let mut used = 0;
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let Ok(entry) = entry else { continue };
            let Ok(meta) = entry.metadata() else { continue };
            let path = entry.path();
            let id = path.file_stem().unwrap_or_default().to_string_lossy();
            let belongs = path.extension().is_some_and(|e| e == "tar") && paused.contains(&id.as_ref().to_owned());
            // Another server may be writing it now.
            let old = meta.modified().is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age > ARCHIVE_STALE)
            });
            if belongs || !old {
                used += meta.len();
            } else if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a file that belongs to no paused sandbox stays");
            }
        }
        Ok(Self {
            folder,
            used: AtomicU64::new(used),
            limit: PAUSED_TOTAL,
        })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.tar"))
    }

    /// Keeps the files of a sandbox.
    pub(crate) async fn save(&self, id: &str, sandbox: &dyn Sandbox, token: Option<&str>) -> Result<(), ArchiveError> {
        let part = self.folder.join(format!("{id}.part"));
        let mut written = 0;
        let writing = self.write(id, &part, sandbox, token, &mut written);
        let saved = tokio::time::timeout(ARCHIVE_TIME, writing)
            .await
            .unwrap_or(Err(DaemonError::Time(ARCHIVE_TIME).into()));
        if saved.is_err() {
            self.used.fetch_sub(written, Ordering::Relaxed);
            // It may not have been made yet.
            let _ = tokio::fs::remove_file(&part).await;
        }
        saved
    }

    async fn write(
        &self,
        id: &str,
        part: &Path,
        sandbox: &dyn Sandbox,
        token: Option<&str>,
        written: &mut u64,
    ) -> Result<(), ArchiveError> {
        let failed = |path: &Path, source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ArchiveError::NoSpace,
            _ => ArchiveError::File {
                path: path.to_owned(),
                source,
            },
        };
        let mut answer = daemon::ask(sandbox, token, Method::GET, ARCHIVE_PATH, Body::empty()).await?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let file = private(&mut options, part).map_err(|e| failed(part, e))?;
        let mut file = tokio::io::BufWriter::with_capacity(CHUNK, tokio::fs::File::from_std(file));
        while let Some(chunk) = answer.chunk().await? {
            let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            let before = self.used.fetch_add(len, Ordering::Relaxed);
            *written += len;
            if before.saturating_add(len) > self.limit {
                return Err(ArchiveError::Full);
            }
            file.write_all(&chunk).await.map_err(|e| failed(part, e))?;
        }
        file.flush().await.map_err(|e| failed(part, e))?;
        file.get_ref().sync_all().await.map_err(|e| failed(part, e))?;
        let path = self.path(id);
        self.remove(id).await;
        tokio::fs::rename(part, &path).await.map_err(|e| failed(&path, e))?;
        // The name is on the disk once its folder is.
        let folder = tokio::fs::File::open(&self.folder).await;
        match folder {
            Ok(folder) => folder.sync_all().await.map_err(|e| failed(&self.folder, e)),
            Err(error) => Err(failed(&self.folder, error)),
        }
    }

    /// Gives a new sandbox the files that were kept.
    pub(crate) async fn restore(
        &self,
        id: &str,
        sandbox: &dyn Sandbox,
        token: Option<&str>,
    ) -> Result<(), ArchiveError> {
        let path = self.path(id);
        let file = tokio::fs::File::open(&path)
            .await
            .map_err(|source| ArchiveError::File { path, source })?;
        let chunks = stream::try_unfold(file, |mut file| async move {
            let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
            let read = file.read_buf(&mut chunk).await?;
            Ok::<_, io::Error>((read > 0).then(|| (chunk.freeze(), file)))
        });
        let sending = daemon::ask(sandbox, token, Method::PUT, ARCHIVE_PATH, Body::from_stream(chunks));
        tokio::time::timeout(ARCHIVE_TIME, sending)
            .await
            .unwrap_or(Err(DaemonError::Time(ARCHIVE_TIME)))?;
        Ok(())
    }

    /// Forgets the files of a sandbox, if there are any.
    pub(crate) async fn remove(&self, id: &str) {
        let path = self.path(id);
        let Ok(meta) = tokio::fs::metadata(&path).await else {
            return;
        };
        match tokio::fs::remove_file(&path).await {
            Ok(()) => {
                self.used.fetch_sub(meta.len(), Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "the files of a sandbox could not be removed"),
        }
    }

    /// Bytes of a sandbox's files; 0 if there are none.
    pub(crate) fn size(&self, id: &str) -> u64 {
        std::fs::metadata(self.path(id)).map_or(0, |meta| meta.len())
    }

    /// Bytes that are kept.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}
