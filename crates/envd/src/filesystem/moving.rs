//! Moving files and folders, also from one file system to another.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sandhold_wire::proto::filesystem::EntryInfo;

use super::error::{FsError, Kind};
use super::{dirs, entry, metadata, mounts};
use crate::users::{Names, User};

/// Moves `source` to `destination`, whose missing parents are made for `user`. A file or link there is replaced, as is an
/// empty folder by a folder.
pub(crate) fn rename(source: &Path, destination: &Path, user: &User, names: &Names) -> Result<EntryInfo, FsError> {
    let meta = std::fs::symlink_metadata(source).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            FsError::io(format!("source file not found: '{}'", source.display()), e).of_kind(Kind::NotFound)
        }
        _ => failed(source, destination, e),
    })?;
    if source == Path::new("/") {
        return Err(FsError::invalid("the root folder '/' cannot be moved"));
    }
    if source != destination {
        if destination.starts_with(source) && meta.is_dir() {
            return Err(into_itself(source, destination));
        }
        if let Some(parent) = destination.parent() {
            dirs::ensure(parent, user)?;
        }
        match rustix::fs::rename(source, destination) {
            Ok(()) => {}
            Err(Errno::XDEV) => across(source, &meta, destination, user)?,
            // The parents of the destination may be links that lead into the source.
            Err(Errno::INVAL) if meta.is_dir() => return Err(into_itself(source, destination)),
            Err(Errno::BUSY) => {
                mounts::refuse_within(source, "moved")?;
                return Err(failed(source, destination, Errno::BUSY));
            }
            Err(e @ (Errno::NOTEMPTY | Errno::EXIST)) => {
                return Err(failed(source, destination, e).of_kind(Kind::Invalid));
            }
            Err(e) => return Err(failed(source, destination, e)),
        }
    }
    entry::at(destination, names)
}

fn failed(source: &Path, destination: &Path, error: impl Into<io::Error>) -> FsError {
    FsError::io(
        format!("error moving '{}' to '{}'", source.display(), destination.display()),
        error,
    )
}

fn into_itself(source: &Path, destination: &Path) -> FsError {
    FsError::invalid(format!(
        "'{}' cannot be moved into itself ('{}')",
        source.display(),
        destination.display()
    ))
}

/// Copies beside the destination, puts the copy in its place, then removes the source: whatever fails, one of the two is
/// whole.
fn across(source: &Path, meta: &Metadata, destination: &Path, user: &User) -> Result<(), FsError> {
    mounts::refuse_within(source, "moved")?;
    match std::fs::symlink_metadata(destination) {
        Ok(there) if there.is_dir() != meta.is_dir() => {
            let errno = if there.is_dir() { Errno::ISDIR } else { Errno::NOTDIR };
            return Err(failed(source, destination, errno));
        }
        _ => {}
    }
    let copy = sibling(destination);
    let moved = copy_tree(source, meta, &copy, user)
        .and_then(|()| rustix::fs::rename(&copy, destination).map_err(|e| failed(source, destination, e)));
    if let Err(error) = moved {
        // The copy is ours alone; the reason that counts is the first one.
        let _ = dirs::remove(&copy);
        return Err(error);
    }
    dirs::remove(source)
}

/// A name beside `path` that nobody uses.
pub(crate) fn sibling(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    // Room for the rest within the 255 bytes of a name.
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    name.push(own.chars().take(40).collect::<String>());
    name.push(format!(".{}.tmp", super::random_id()));
    path.with_file_name(name)
}

fn copy_tree(source: &Path, meta: &Metadata, to: &Path, user: &User) -> Result<(), FsError> {
    let failed = |e: io::Error| FsError::io(format!("error copying '{}'", source.display()), e);
    let kind = meta.file_type();
    if kind.is_symlink() {
        symlink(std::fs::read_link(source).map_err(failed)?, to).map_err(failed)?;
    } else if kind.is_dir() {
        std::fs::create_dir(to).map_err(failed)?;
        for child in std::fs::read_dir(source).map_err(failed)? {
            let child = child.map_err(failed)?;
            copy_tree(
                &child.path(),
                &child.metadata().map_err(failed)?,
                &to.join(child.file_name()),
                user,
            )?;
        }
    } else if kind.is_file() {
        std::fs::copy(source, to).map_err(failed)?;
    } else {
        return Err(FsError::invalid(format!(
            "'{}' is {} and cannot be moved to another file system",
            source.display(),
            entry::special_kind(kind)
        )));
    }
    keep_attributes(source, meta, to, user).map_err(failed)
}

/// Owner, mode, times and metadata, in the order in which none undoes another.
fn keep_attributes(source: &Path, meta: &Metadata, to: &Path, user: &User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    rustix::fs::chownat(rustix::fs::CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .or_else(|e| dirs::settle_owner(e, user))?;
    if !meta.file_type().is_symlink() {
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        for (key, value) in metadata::read(source) {
            let name = format!("{}{key}", sandhold_wire::names::METADATA_XATTR_PREFIX);
            match rustix::fs::setxattr(to, name, value.as_bytes(), XattrFlags::empty()) {
                // The other file system keeps none; the file matters more.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    let time = |sec, nsec| Timespec {
        tv_sec: sec,
        tv_nsec: nsec,
    };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        to,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}
