//! Where an upload goes: the file itself, or one beside it that takes its place when it is whole.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use crate::filesystem::error::{FsError, Kind};
use crate::filesystem::{ensure_dir, entry, limits, metadata, settle_owner, sibling};
use crate::metrics;
use crate::users::User;

/// A file that is being written. Dropped before [`Target::finish`], it leaves no half of a file behind.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) file: File,
    path: PathBuf,
    undo: Undo,
}

#[derive(Debug)]
enum Undo {
    /// It is whole, or as it was.
    Nothing,
    /// It did not exist before.
    Remove,
    /// Its old content is gone.
    Empty,
    /// It waits beside the file at this path.
    Temporary {
        temporary: PathBuf,
        real: PathBuf,
        /// The mode that it takes over.
        mode: Option<u32>,
    },
}

impl Target {
    /// Opens `path` for a new content. Missing parents are made for `user`, to whom the file belongs then. A file that
    /// exists keeps its inode and mode; with `atomic` it keeps its content until [`Target::finish`], its mode and its owner.
    pub(crate) fn open(
        path: &Path,
        user: &User,
        atomic: bool,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, FsError> {
        if let Some(parent) = path.parent() {
            ensure_dir(parent, user).map_err(no_space)?;
        }
        let existing = match std::fs::metadata(path) {
            Ok(meta) => Some(meta),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                return Err(FsError::io(
                    format!("error getting file info of '{}'", path.display()),
                    e,
                ));
            }
        };
        if let Some(meta) = &existing {
            refuse_special(path, meta)?;
        }
        if atomic {
            let target = Self::beside(path, user, existing)?;
            metadata::replace(&target.file, path, metadata).map_err(no_space)?;
            return Ok(target);
        }
        let mut target = Self::in_place(path, user, existing)?;
        metadata::replace(&target.file, path, metadata).map_err(no_space)?;
        // Last, so that what is refused loses nothing.
        let length = target.file.metadata().map_err(|e| target.failed(e))?.len();
        if length > 0 {
            target.undo = Undo::Empty;
            target.file.set_len(0).map_err(|e| target.failed(e))?;
        }
        Ok(target)
    }

    fn in_place(path: &Path, user: &User, existing: Option<Metadata>) -> Result<Self, FsError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o666)
            // Should a pipe stand there by now, opening it must not wait for its reader.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|e| no_space(FsError::io(format!("error opening file '{}'", path.display()), e)))?;
        let undo = if existing.is_some() {
            Undo::Nothing
        } else {
            Undo::Remove
        };
        let target = Self {
            file,
            path: path.to_owned(),
            undo,
        };
        let meta = target.file.metadata().map_err(|e| target.failed(e))?;
        refuse_special(path, &meta)?;
        if (meta.uid(), meta.gid()) != (user.uid, user.gid) {
            target.own(user.uid, user.gid, user)?;
        }
        Ok(target)
    }

    fn beside(path: &Path, user: &User, existing: Option<Metadata>) -> Result<Self, FsError> {
        let real = follow(path)?;
        if existing.is_none()
            && let Some(parent) = real.parent()
        {
            ensure_dir(parent, user).map_err(no_space)?;
        }
        let temporary = sibling(&real);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if existing.is_some() { 0o600 } else { 0o666 })
            .open(&temporary)
            .map_err(|e| {
                no_space(FsError::io(
                    format!("error creating a file beside '{}'", path.display()),
                    e,
                ))
            })?;
        let target = Self {
            file,
            path: path.to_owned(),
            undo: Undo::Temporary {
                temporary,
                real,
                mode: existing.as_ref().map(|meta| meta.mode() & 0o7777),
            },
        };
        match existing {
            None => target.own(user.uid, user.gid, user)?,
            Some(meta) => target.own(meta.uid(), meta.gid(), user)?,
        }
        Ok(target)
    }

    /// Gives the file to `uid` on behalf of `user`.
    fn own(&self, uid: u32, gid: u32, user: &User) -> Result<(), FsError> {
        rustix::fs::fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .or_else(|e| settle_owner(e, user))
            .map_err(|e| FsError::io(format!("error changing the owner of '{}'", self.path.display()), e))
    }

    /// Writes what came.
    pub(crate) fn write(&mut self, pieces: &[Bytes]) -> Result<(), FsError> {
        for piece in pieces {
            self.file.write_all(piece).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// The file is whole; it takes its place now.
    pub(crate) fn finish(mut self) -> Result<(), FsError> {
        if let Undo::Temporary { temporary, real, mode } = &self.undo {
            if let Some(mode) = mode {
                // After the last write, which takes the set-user bit away.
                let mode = Permissions::from_mode(*mode);
                self.file.set_permissions(mode).map_err(|e| self.failed(e))?;
            }
            rustix::fs::rename(temporary, real)
                .map_err(|e| FsError::io(format!("error replacing '{}'", self.path.display()), e))?;
        }
        self.undo = Undo::Nothing;
        Ok(())
    }

    /// What a failed write is to the client.
    pub(crate) fn failed(&self, error: io::Error) -> FsError {
        no_space(FsError::io(
            format!("error writing file '{}'", self.path.display()),
            error,
        ))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // The first failure is the one that is told; this is as much as can be done.
        let _ = match &self.undo {
            Undo::Nothing => Ok(()),
            Undo::Remove => follow(&self.path).map_or(Ok(()), std::fs::remove_file),
            Undo::Empty => self.file.set_len(0),
            Undo::Temporary { temporary, .. } => std::fs::remove_file(temporary),
        };
    }
}

fn refuse_special(path: &Path, meta: &Metadata) -> Result<(), FsError> {
    if meta.is_file() {
        return Ok(());
    }
    if meta.is_dir() {
        return Err(FsError::invalid(format!("path is a directory: {}", path.display())));
    }
    Err(FsError::invalid(format!(
        "path '{}' is {}, only regular files can be written",
        path.display(),
        entry::special_kind(meta.file_type())
    )))
}

fn no_space(error: FsError) -> FsError {
    match error.kind {
        Kind::NoSpace => FsError::new(
            Kind::NoSpace,
            format!("not enough disk space available: {}{}", error.text(), metrics::room()),
        ),
        _ => error,
    }
}

/// Where `path` leads when it is a link, be there something or not.
fn follow(path: &Path) -> Result<PathBuf, FsError> {
    let mut path = path.to_owned();
    for _ in 0..limits::SYMLINK_HOPS {
        let Ok(to) = std::fs::read_link(&path) else {
            return Ok(path);
        };
        path = path.parent().unwrap_or(Path::new("/")).join(to);
    }
    Err(FsError::io(
        format!("error opening file '{}'", path.display()),
        Errno::LOOP,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_and_nothing_is_left() {
        // The one full disk that is always there is a device, which is refused before it is opened: made by hand.
        let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let temporary = folder.path().join("b");
        std::fs::write(&path, "old").unwrap();
        std::fs::write(&temporary, "").unwrap();
        let undo = Undo::Temporary {
            temporary: temporary.clone(),
            real: path.clone(),
            mode: None,
        };
        let mut target = Target {
            file: full(),
            path: path.clone(),
            undo,
        };
        let error = target.write(&[Bytes::new(), Bytes::from_static(b"x")]).unwrap_err();
        assert_eq!(error.status(), 507);
        let expected = format!(
            "not enough disk space available: error writing file '{}': no space left on device{}",
            path.display(),
            metrics::room()
        );
        assert_eq!(error.text(), expected);
        drop(target);
        assert!(!temporary.exists());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(Target {
            file: full(),
            path: path.clone(),
            undo: Undo::Remove,
        });
        assert!(!path.exists());
        std::fs::write(&path, "half").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        drop(Target {
            file,
            path: path.clone(),
            undo: Undo::Empty,
        });
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
