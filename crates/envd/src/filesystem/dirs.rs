//! Folders: making them, listing them, removing what is in them.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Uid};
use rustix::io::Errno;
use sandhold_wire::proto::filesystem::EntryInfo;

use super::error::{FsError, Kind};
use super::{entry, limits, mounts};
use crate::users::{Names, User};

/// Makes `path` and the folders above it. New ones have mode 0755 and belong to `user`.
pub(crate) fn make(path: &Path, user: &User, names: &Names) -> Result<EntryInfo, FsError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let text = format!("directory already exists: {}", path.display());
            return Err(FsError::new(Kind::AlreadyExists, text));
        }
        Ok(_) => {
            let text = format!("path already exists but it is not a directory: {}", path.display());
            return Err(FsError::invalid(text));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            return Err(FsError::io(
                format!("error getting file info of '{}'", path.display()),
                e,
            ));
        }
    }
    ensure(path, user)?;
    entry::at(path, names)
}

/// Sees to it that the folder `path` exists; what is missing is made with mode 0755 for `user`.
pub(crate) fn ensure(path: &Path, user: &User) -> Result<(), FsError> {
    let mut missing: Vec<&Path> = Vec::new();
    for above in path.ancestors() {
        match std::fs::metadata(above) {
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => return Err(not_a_folder(above)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(above),
            // A file stands further up; the loop comes to it.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {}
            Err(e) => return Err(FsError::io(format!("error looking at '{}'", above.display()), e)),
        }
    }
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o755).create(dir) {
            Ok(()) => own(dir, user)?,
            // Someone else was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(not_a_folder(dir)),
            Err(e) => return Err(FsError::io(format!("error making directory '{}'", dir.display()), e)),
        }
    }
    Ok(())
}

fn not_a_folder(path: &Path) -> FsError {
    FsError::invalid(format!("path '{}' is not a directory", path.display()))
}

/// Gives `path` itself, not what it links to, to `user`.
fn own(path: &Path, user: &User) -> Result<(), FsError> {
    rustix::fs::chownat(
        rustix::fs::CWD,
        path,
        Some(Uid::from_raw(user.uid)),
        Some(Gid::from_raw(user.gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .or_else(|e| settle_owner(e, user))
    .map_err(|e| {
        FsError::io(
            format!("error changing the owner of '{}' to '{}'", path.display(), user.name),
            e,
        )
    })
}

/// Where the daemon has one id to give, and that is the user's, a file it may not give away stays as it is: its group,
/// or a former owner from before, has no meaning there.
pub(crate) fn settle_owner(error: Errno, user: &User) -> Result<(), Errno> {
    match error {
        Errno::PERM | Errno::INVAL if rustix::process::geteuid().as_raw() == user.uid => Ok(()),
        error => Err(error),
    }
}

/// The entries below `path`, `depth` folders deep, by name, each folder before what is in it. Links to folders are not
/// followed, except `path` itself.
pub(crate) fn list(path: &Path, depth: u32, names: &Names) -> Result<Vec<EntryInfo>, FsError> {
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => FsError::io(format!("path not found: '{}'", path.display()), e),
        _ => FsError::io(format!("error looking at '{}'", path.display()), e),
    })?;
    if !meta.is_dir() {
        return Err(FsError::invalid(format!("path is not a directory: {}", path.display())));
    }
    let mut entries = Vec::new();
    let mut open = vec![Children::read(path)?];
    while let Some(folder) = open.last_mut() {
        let Some((path, meta)) = folder.0.next() else {
            open.pop();
            continue;
        };
        if entries.len() == limits::LIST_ENTRIES {
            return Err(FsError::new(
                Kind::Exhausted,
                format!(
                    "more than {} entries; list a smaller folder or with less depth",
                    limits::LIST_ENTRIES
                ),
            ));
        }
        entries.push(entry::of(&path, &meta, names));
        if meta.is_dir() && (open.len() as u64) < u64::from(depth) {
            match Children::read(&path) {
                Ok(children) => open.push(children),
                // Removed since it was seen.
                Err(e) if e.kind == Kind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(entries)
}

/// What is in one folder, by name.
struct Children(std::vec::IntoIter<(PathBuf, Metadata)>);

impl Children {
    fn read(path: &Path) -> Result<Self, FsError> {
        let failed = |e| FsError::io(format!("error reading directory '{}'", path.display()), e);
        let mut children = Vec::new();
        for child in std::fs::read_dir(path).map_err(failed)? {
            let child = child.map_err(failed)?;
            match child.metadata() {
                Ok(meta) => children.push((child.path(), meta)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            }
            if children.len() > limits::LIST_ENTRIES {
                break;
            }
        }
        children.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self(children.into_iter()))
    }
}

/// Removes `path` and everything below it. What does not exist is removed already.
pub(crate) fn remove(path: &Path) -> Result<(), FsError> {
    if path == Path::new("/") {
        return Err(FsError::invalid("the root folder '/' cannot be removed"));
    }
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(failed_to_remove(path, e)),
    };
    // Checked first, so that a refusal does not leave half of the tree.
    mounts::refuse_within(path, "removed")?;
    let removed = if meta.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed_to_remove(path, e)),
        _ => Ok(()),
    }
}

fn failed_to_remove(path: &Path, error: io::Error) -> FsError {
    FsError::io(format!("error removing '{}'", path.display()), error)
}
