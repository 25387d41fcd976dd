//! Folders on the host's disk for sandboxes that have no root file system of their own.
//!
//! ```text
//! /var/tmp/sandhold-UID/          the user's, 0711 (root) or 0700
//!   PID-N/                        one server's; locked for as long as the server or its launcher lives
//!     SANDBOX/                    0700, the sandbox's own user's: home, tmp
//! ```
//!
//! What is in a sandbox's folder was written by strangers: it is only ever walked by descriptors, never through a link, and
//! taken apart without recursion, however deep it is. A folder whose lock is free is a dead server's and is removed by the
//! next server.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::limits::{PRIVATE_BASE, SERVER_FOLDERS};

/// One server's folder. Dropped: it is removed with all that is in it.
#[derive(Debug)]
pub(crate) struct ServerFolder {
    base: OwnedFd,
    name: String,
    path: PathBuf,
    lock: OwnedFd,
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl ServerFolder {
    /// Makes this server's folder, and removes those of dead ones.
    ///
    /// # Errors
    /// The base is somebody else's or cannot be made.
    pub(crate) fn make() -> io::Result<Self> {
        Self::make_in(Path::new(PRIVATE_BASE))
    }

    fn make_in(parent: &Path) -> io::Result<Self> {
        let uid = rustix::process::geteuid();
        let path = parent.join(format!("sandhold-{}", uid.as_raw()));
        // The sandboxes' own ids pass through root's folder, but cannot list it.
        let mode = Mode::from_raw_mode(if uid.is_root() { 0o711 } else { 0o700 });
        match rustix::fs::mkdir(&path, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let base = rustix::fs::open(&path, FOLDER, Mode::empty())?;
        let found = rustix::fs::fstat(&base)?;
        if found.st_uid != uid.as_raw() {
            return Err(io::Error::other(format!(
                "{} belongs to another user; remove it",
                path.display()
            )));
        }
        rustix::fs::fchmod(&base, mode)?;
        sweep(&base);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..SERVER_FOLDERS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            match rustix::fs::mkdirat(&base, &name, mode) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            }
            let lock = rustix::fs::openat(&base, &name, FOLDER, Mode::empty())?;
            // A sweeper that came in between takes it for a dead server's: then it is gone, and the next one is tried.
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
                || rustix::fs::openat(&base, &name, FOLDER, Mode::empty()).is_err()
            {
                continue;
            }
            rustix::fs::fchmod(&lock, mode)?;
            let path = path.join(&name);
            return Ok(Self { base, name, path, lock });
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open folder, whose copies keep the lock.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.lock
    }

    /// Removes a sandbox's folder. Only when its processes have ended.
    pub(crate) fn remove(&self, name: &str) {
        if let Err(error) = sandhold_layers::remove(self.lock.as_fd(), name.as_bytes()) {
            tracing::warn!(sandbox = name, %error, "a private folder was not removed; the next server tries again");
        }
    }
}

impl Drop for ServerFolder {
    fn drop(&mut self) {
        // The launcher may still be at it; whoever comes second finds nothing.
        let _ = sandhold_layers::remove(self.base.as_fd(), self.name.as_bytes());
    }
}

/// Makes a sandbox's folder with its home and its place for temporary files, for the user `owner`.
pub(crate) fn make(server: &OwnedFd, name: &str, owner: Option<u32>, files: &[(&str, &str)]) -> Result<(), Errno> {
    let private = Mode::from_raw_mode(0o700);
    rustix::fs::mkdirat(server, name, private)?;
    let folder = rustix::fs::openat(server, name, FOLDER, Mode::empty())?;
    let give = |path: &str| match owner {
        Some(id) => rustix::fs::chownat(
            &folder,
            path,
            Some(rustix::fs::Uid::from_raw(id)),
            Some(rustix::fs::Gid::from_raw(id)),
            AtFlags::SYMLINK_NOFOLLOW,
        ),
        None => Ok(()),
    };
    for path in ["home", "tmp"] {
        rustix::fs::mkdirat(&folder, path, Mode::from_raw_mode(0o755))?;
        give(path)?;
    }
    for (path, content) in files {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, *path, flags, Mode::from_raw_mode(0o644))?;
        rustix::io::write(&file, content.as_bytes())?;
        give(path)?;
    }
    if let Some(id) = owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
        rustix::fs::fchown(&folder, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// What is in a folder.
fn names(folder: &OwnedFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// Removes the folders of servers that are gone.
fn sweep(base: &OwnedFd) {
    for name in names(base).unwrap_or_default() {
        let Ok(folder) = rustix::fs::openat(base, &name, FOLDER, Mode::empty()) else {
            continue;
        };
        if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let name = name.to_string_lossy();
        if let Err(error) = sandhold_layers::remove(base.as_fd(), name.as_bytes()) {
            tracing::debug!(%name, %error, "a dead server's folder was not removed");
        }
    }
}

/// How much a folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

/// Adds up what a sandbox's folder holds. Ends as soon as a limit is passed: then it is at least so much.
pub(crate) fn measure(server: &Path, name: &str, most: Size) -> io::Result<Size> {
    let mut size = Size::default();
    let open =
        |parent: &File, name: &std::ffi::CStr| rustix::fs::openat(parent, name, FOLDER, Mode::empty()).map(File::from);
    let top = rustix::fs::openat(CWD, server.join(name), FOLDER, Mode::empty())?;
    // A list of open folders as deep as the tree would need as many descriptors: the deepest are looked into first, and
    // no more are open than this.
    const OPEN: usize = 64;
    let mut waiting = vec![File::from(top)];
    while let Some(folder) = waiting.pop() {
        // What is removed meanwhile is not there.
        let Ok(found) = names(&folder.try_clone()?.into()) else {
            continue;
        };
        for name in found {
            let Ok(stat) = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            size.files += 1;
            size.bytes = size
                .bytes
                .saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
            if size.bytes > most.bytes || size.files > most.files {
                return Ok(size);
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if waiting.len() >= OPEN {
                    // A tree as broad and deep as this is not looked at further; its files are counted elsewhere.
                    continue;
                }
                if let Ok(below) = open(&folder, &name) {
                    waiting.push(below);
                }
            }
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_any_depth_and_mode_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let server = ServerFolder::make_in(place.path()).unwrap();
        make(server.fd(), "a", None, &[("home/.profile", "x")]).unwrap();
        let top = rustix::fs::openat(server.fd(), "a", FOLDER, Mode::empty()).unwrap();
        let mut here = top;
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            rustix::fs::symlinkat("/etc", &here, "link").unwrap();
            let below = rustix::fs::openat(&here, "d", FOLDER, Mode::empty()).unwrap();
            here = below;
        }
        std::fs::create_dir(server.path().join("a/tmp/closed")).unwrap();
        std::fs::write(server.path().join("a/tmp/closed/file"), "x").unwrap();
        let none = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        std::fs::set_permissions(server.path().join("a/tmp/closed"), none).unwrap();
        server.remove("a");
        assert_eq!(std::fs::read_dir(server.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists(), "links are not followed");
    }

    #[test]
    fn folders_of_dead_servers_are_swept_and_those_of_live_ones_are_not() {
        let place = tempfile::tempdir().unwrap();
        let live = ServerFolder::make_in(place.path()).unwrap();
        make(live.fd(), "a", None, &[]).unwrap();
        let base = live.path().parent().unwrap().to_owned();
        std::fs::create_dir_all(base.join("1-0/b/home")).unwrap();
        let second = ServerFolder::make_in(place.path()).unwrap();
        assert!(live.path().join("a/home").exists(), "a live server's");
        assert!(!base.join("1-0").exists(), "a dead server's");
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_sandbox_wrote_is_counted_up_to_the_limit() {
        let place = tempfile::tempdir().unwrap();
        let server = ServerFolder::make_in(place.path()).unwrap();
        make(server.fd(), "a", None, &[]).unwrap();
        let most = Size {
            bytes: 1 << 30,
            files: 1000,
        };
        let before = measure(server.path(), "a", most).unwrap();
        std::fs::write(server.path().join("a/home/big"), vec![b'x'; 3 << 20]).unwrap();
        let after = measure(server.path(), "a", most).unwrap();
        assert!(
            after.bytes >= before.bytes + (3 << 20) && after.files == before.files + 1,
            "{after:?}"
        );
        let small = Size {
            bytes: 1 << 20,
            files: 1000,
        };
        assert!(measure(server.path(), "a", small).unwrap().bytes > 1 << 20);
    }
}
