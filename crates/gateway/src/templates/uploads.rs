//! Files of build steps, as clients bring them: one archive each, by what its owner calls it. Nothing reads them but the
//! sandbox that unpacks them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use futures::StreamExt;
use http::StatusCode;
use sandhold_wire::signature::{Operation, same, sign};
use tokio::io::AsyncWriteExt;

use crate::{
    create::{HEX, random_text},
    error::{Refusal, StoreError},
    limits::{TICKET_TIME, TOKEN_BYTES, UPLOAD_BYTES, UPLOAD_STALE, UPLOAD_TIME, UPLOADS_KEPT, UPLOADS_TOTAL},
    owner::Owner,
    store::private,
};

/// The folder of the archives.
pub(crate) struct Uploads {
    folder: PathBuf,
    /// Signs tickets of this server.
    secret: String,
    /// Held while what is there is counted, so that two uploads are not let in by the same room.
    counting: Mutex<()>,
}

impl Uploads {
    /// Opens the folder in `home`.
    pub(crate) fn open(home: &Path) -> Result<Self, StoreError> {
        let folder = home.join("uploads");
        std::fs::create_dir_all(&folder).map_err(|source| StoreError::Folder {
            path: folder.display().to_string(),
            source,
        })?;
        Ok(Self {
            folder,
            secret: random_text(TOKEN_BYTES * 2, HEX).map_err(StoreError::Random)?,
            counting: Mutex::default(),
        })
    }

    /// The folder, for what is there for a moment.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of an archive. `hash` was checked.
    pub(crate) fn path(&self, owner: Owner, hash: &str) -> PathBuf {
        self.folder.join(format!("{}-{hash}.tar", owner.number().unwrap_or(0)))
    }

    /// Whether an archive is there; if so it stays for a while.
    pub(crate) fn present(&self, owner: Owner, hash: &str) -> bool {
        let file = std::fs::OpenOptions::new().append(true).open(self.path(owner, hash));
        // One that cannot be marked may be removed early: then it is asked for again.
        file.is_ok_and(|file| file.set_modified(SystemTime::now()).is_ok())
    }

    /// What lets its bearer put an archive here for a while: the time it ends, and a signature.
    pub(crate) fn ticket(&self, owner: Owner, template: &str, hash: &str) -> (i64, String) {
        let end = unix() + i64::try_from(TICKET_TIME.as_secs()).unwrap_or(i64::MAX);
        (end, self.sign(owner, template, hash, end))
    }

    fn sign(&self, owner: Owner, template: &str, hash: &str, end: i64) -> String {
        let owner = owner.number().unwrap_or(0).to_string();
        sign(
            &format!("{template}/{hash}"),
            Operation::Write,
            &owner,
            &self.secret,
            Some(end),
        )
    }

    /// Whether a ticket is one of this server's and has not ended.
    pub(crate) fn admits(&self, owner: Owner, template: &str, hash: &str, end: i64, signature: &str) -> bool {
        let wanted = self.sign(owner, template, hash, end);
        same(signature.as_bytes(), wanted.as_bytes()) && unix() <= end
    }

    /// Takes an archive in. It is there as a whole or not at all.
    pub(crate) async fn take(&self, owner: Owner, hash: &str, length: Option<u64>, body: Body) -> Result<(), Refusal> {
        if length.is_some_and(|length| length > UPLOAD_BYTES) {
            return Err(too_large());
        }
        let part = self.folder.join(format!("{}.part", random_text(TOKEN_BYTES, HEX)?));
        let taking = self.write(&part, length, body);
        let taken = tokio::time::timeout(UPLOAD_TIME, taking).await.unwrap_or_else(|_| {
            let message = format!("the files of a step did not arrive within {} s", UPLOAD_TIME.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message))
        });
        let path = self.path(owner, hash);
        let kept = match taken {
            Ok(()) => tokio::fs::rename(&part, &path).await.map_err(|error| failed(&error)),
            Err(refusal) => Err(refusal),
        };
        if kept.is_err() {
            // It may not have been made.
            let _ = tokio::fs::remove_file(&part).await;
        }
        kept
    }

    async fn write(&self, part: &Path, length: Option<u64>, body: Body) -> Result<(), Refusal> {
        let room = self.room(length.unwrap_or(0))?;
        let file = private(std::fs::OpenOptions::new().write(true).create_new(true), part).map_err(|e| failed(&e))?;
        let mut file = tokio::io::BufWriter::with_capacity(256 << 10, tokio::fs::File::from_std(file));
        let mut written = 0u64;
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Refusal::bad_request("the files of a step broke off"))?;
            written = written.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if written > UPLOAD_BYTES {
                return Err(too_large());
            }
            if written > room {
                return Err(full());
            }
            file.write_all(&piece).await.map_err(|e| failed(&e))?;
        }
        if length.is_some_and(|length| length != written) {
            return Err(Refusal::bad_request("the files of a step broke off"));
        }
        file.flush().await.map_err(|e| failed(&e))?;
        file.get_ref().sync_all().await.map_err(|e| failed(&e))
    }

    /// How much fits, if `wanted` does; the archives that were not used for the longest time make room.
    fn room(&self, wanted: u64) -> Result<u64, Refusal> {
        let _alone = self.counting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut there = self.list().map_err(|e| failed(&e))?;
        there.sort_by_key(|(_, at, _)| *at);
        let mut used: u64 = there.iter().map(|(.., bytes)| bytes).sum();
        let need = wanted.max(UPLOAD_BYTES.min(UPLOADS_TOTAL / 4));
        for (path, at, bytes) in there {
            if used.saturating_add(need) <= UPLOADS_TOTAL {
                break;
            }
            // What came a moment ago waits for its build.
            let age = SystemTime::now().duration_since(at).unwrap_or_default();
            if age > UPLOAD_STALE && std::fs::remove_file(&path).is_ok() {
                used = used.saturating_sub(bytes);
            }
        }
        let room = UPLOADS_TOTAL.saturating_sub(used);
        if wanted > room { Err(full()) } else { Ok(room) }
    }

    /// Every file: path, when it was last used, bytes.
    fn list(&self) -> io::Result<Vec<(PathBuf, SystemTime, u64)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another server may have removed it.
            if let Ok(meta) = entry.metadata()
                && meta.is_file()
            {
                found.push((entry.path(), meta.modified()?, meta.len()));
            }
        }
        Ok(found)
    }

    /// Removes what was not used for long, and what an upload that broke off left.
    pub(crate) fn prune(&self) {
        let Ok(there) = self.list() else { return };
        for (path, at, _) in there {
            let age = SystemTime::now().duration_since(at).unwrap_or_default();
            let part = path.extension().is_some_and(|end| end == "part");
            let kept = if part { UPLOAD_TIME } else { UPLOADS_KEPT };
            if age > kept
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "files of an old build step stay");
            }
        }
    }
}

/// Whether a text can be the name of an archive: a SHA-256 in hexadecimal.
pub(crate) fn check_hash(hash: &str) -> Result<(), Refusal> {
    let fits = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if fits {
        return Ok(());
    }
    let shown: String = hash.chars().take(80).collect();
    Err(Refusal::bad_request(format!(
        "{shown:?} is no hash of files: 64 lower-case hexadecimal digits"
    )))
}

fn too_large() -> Refusal {
    let message = format!("the files of a step may take {UPLOAD_BYTES} bytes, packed, and these take more");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

fn full() -> Refusal {
    let message = format!("the files of all build steps may take {UPLOADS_TOTAL} bytes together: try again later");
    Refusal::new(StatusCode::INSUFFICIENT_STORAGE, message)
}

fn failed(error: &io::Error) -> Refusal {
    let status = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal::new(status, format!("the files of a step could not be written: {error}"))
}

fn unix() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[tokio::test]
    async fn archives_are_whole_and_their_owners() {
        let home = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(home.path()).unwrap();
        let (mine, other) = (Owner::key(1), Owner::LOCAL);
        uploads.take(mine, HASH, Some(3), Body::from("abc")).await.unwrap();
        assert!(uploads.present(mine, HASH) && !uploads.present(other, HASH));
        assert_eq!(std::fs::read(uploads.path(mine, HASH)).unwrap(), b"abc");
        for length in [Some(4), Some(2), Some(UPLOAD_BYTES + 1)] {
            assert!(
                uploads.take(other, HASH, length, Body::from("abc")).await.is_err(),
                "{length:?}"
            );
        }
        assert!(!uploads.present(other, HASH));
        assert_eq!(uploads.list().unwrap().len(), 1, "what broke off leaves nothing");
        let old = SystemTime::now() - UPLOADS_KEPT - Duration::from_secs(5);
        let file = std::fs::File::options()
            .append(true)
            .open(uploads.path(mine, HASH))
            .unwrap();
        file.set_modified(old).unwrap();
        uploads.prune();
        assert!(!uploads.present(mine, HASH));
    }

    #[test]
    fn tickets_are_for_one_archive() {
        let home = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(home.path()).unwrap();
        let (end, ticket) = uploads.ticket(Owner::LOCAL, "t", HASH);
        assert!(uploads.admits(Owner::LOCAL, "t", HASH, end, &ticket));
        assert!(!uploads.admits(Owner::key(1), "t", HASH, end, &ticket));
        assert!(!uploads.admits(Owner::LOCAL, "u", HASH, end, &ticket));
        assert!(!uploads.admits(Owner::LOCAL, "t", HASH, end + 1, &ticket));
        let past = unix() - 1;
        assert!(!uploads.admits(
            Owner::LOCAL,
            "t",
            HASH,
            past,
            &uploads.sign(Owner::LOCAL, "t", HASH, past)
        ));
        assert!(
            !Uploads::open(home.path())
                .unwrap()
                .admits(Owner::LOCAL, "t", HASH, end, &ticket)
        );
    }

    #[test]
    fn hashes() {
        assert!(check_hash(HASH).is_ok());
        for bad in ["", "../x", &HASH[1..], &HASH.to_uppercase()] {
            assert!(check_hash(bad).is_err(), "{bad}");
        }
    }
}
