//! Makes files below a folder and nowhere else: every folder on the way is opened by its own name, links are never followed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, fstatvfs, futimens, linkat, mkdirat, openat,
    renameat, statat, statvfs, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::plan::shown;
use super::{Work, about};
use crate::archive::open_dir;
use crate::filesystem::ensure_dir;
use crate::filesystem::error::{FsError, Kind as Failure};
use crate::limits::BUNDLE_PIECE;
use crate::users::User;

/// What the files of an archive have beside their content.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meta {
    /// Permissions; none: as a new file has them.
    pub(super) mode: Option<u32>,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: Option<(i64, u32)>,
}

/// Names that are tried for what is to replace another.
const BESIDE_TRIES: u32 = 1000;
/// What makes these names differ.
static BESIDE: AtomicU64 = AtomicU64::new(0);

/// Permissions that an archive may give: no set-id bits.
const PERMISSIONS: u32 = 0o777;

/// The folder.
pub(super) struct Place {
    root: OwnedFd,
    /// Folders that are open, each in the one before it.
    open: Vec<(Vec<u8>, OwnedFd)>,
    /// Folders that were made here, and what they are to have in the end.
    made: HashMap<Vec<u8>, Meta>,
    buffer: Vec<u8>,
    /// Entries so far.
    pub(super) entries: u64,
    /// Bytes of files so far.
    pub(super) bytes: u64,
}

/// Bytes and files that the disk of `path`, or of the nearest folder above it that exists, has left. Not every disk counts
/// files.
pub(super) fn left(path: &Path) -> (u64, Option<u64>) {
    let there = path.ancestors().find_map(|at| statvfs(at).ok());
    there.map_or((u64::MAX, None), |disk| {
        let files = (disk.f_files > 0).then_some(disk.f_favail);
        (disk.f_bavail.saturating_mul(disk.f_frsize), files)
    })
}

impl Place {
    /// The folder at `path`, made if it is missing. `path` itself may be a link.
    pub(super) fn open(path: &Path, user: &User) -> Result<Self, FsError> {
        ensure_dir(path, user)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())
            .map_err(|e| FsError::io(format!("error opening folder '{}'", path.display()), e))?;
        // Asked once more, now of the folder itself: what is missing is told before anything is written.
        fstatvfs(&root).map_err(|e| FsError::io(format!("error looking at the disk of '{}'", path.display()), e))?;
        Ok(Self {
            root,
            open: Vec::new(),
            made: HashMap::new(),
            buffer: vec![0; BUNDLE_PIECE],
            entries: 0,
            bytes: 0,
        })
    }

    /// Opens the folder `path`, which is made with all above it where it is missing.
    fn enter(&mut self, path: &[u8]) -> Result<(), FsError> {
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
        let same = self
            .open
            .iter()
            .zip(&parts)
            .take_while(|((name, _), part)| name == *part)
            .count();
        self.open.truncate(same);
        for depth in same..parts.len() {
            let part = OsStr::from_bytes(parts[depth]);
            let at = self.open.last().map_or(&self.root, |(_, fd)| fd);
            let here = || parts[..=depth].join(&b'/');
            let fd = match open_dir(at, part) {
                Err(Errno::NOENT) => {
                    mkdirat(at, part, Mode::from_raw_mode(0o755))
                        .map_err(|e| about("error making folder", &here(), e))?;
                    self.made.insert(here(), Meta::default());
                    open_dir(at, part)
                }
                fd => fd,
            };
            let fd = match fd {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let text = format!(
                        "{} stands already and is no folder, and links are not followed",
                        shown(&here())
                    );
                    return Err(FsError::invalid(text));
                }
                fd => fd.map_err(|e| about("error opening folder", &here(), e))?,
            };
            self.open.push((parts[depth].to_vec(), fd));
        }
        Ok(())
    }

    /// Opens the folder that `path` is in; gives the last part of `path`.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(&OwnedFd, &'p OsStr), FsError> {
        let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        self.enter(folder)?;
        Ok((
            self.open.last().map_or(&self.root, |(_, fd)| fd),
            OsStr::from_bytes(name),
        ))
    }

    /// A folder. One that stood already stays as it is.
    pub(super) fn dir(&mut self, path: &[u8], meta: Meta) -> Result<(), FsError> {
        self.enter(path)?;
        if let Some(made) = self.made.get_mut(path) {
            *made = meta;
        }
        self.entries += 1;
        Ok(())
    }

    /// A file with what `content` gives. Nothing is left of one that is not whole, and what stood there before stays then.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        meta: Meta,
        content: &mut impl Read,
        work: &Work,
    ) -> Result<(), FsError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let (at, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = New::make(at, name, path, |name| {
            openat(at, name, flags, Mode::from_raw_mode(0o600))
        })?;
        let fd = &new.made;
        let filled = fill(fd, path, content, &mut buffer, work).and_then(|bytes| {
            let mode = meta.mode.unwrap_or(0o644) & PERMISSIONS;
            fchmod(fd, Mode::from_raw_mode(mode)).map_err(|e| about("error setting the mode of", path, e))?;
            if let Some(mtime) = meta.mtime {
                futimens(fd, &times(mtime)).map_err(|e| about("error setting the time of", path, e))?;
            }
            Ok(bytes)
        });
        let kept = match filled {
            Ok(bytes) => new.keep(at, name, path).map(|()| bytes),
            Err(error) => {
                new.discard(at, name);
                Err(error)
            }
        };
        self.buffer = buffer;
        self.bytes += kept?;
        self.entries += 1;
        work.entry();
        Ok(())
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &[u8], target: &[u8], meta: Meta) -> Result<(), FsError> {
        let (at, name) = self.parent(path)?;
        let target = OsStr::from_bytes(target);
        New::make(at, name, path, |name| symlinkat(target, at, name))?.keep(at, name, path)?;
        if let Some(mtime) = meta.mtime {
            // Not every file system keeps it.
            let _ = utimensat(at, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW);
        }
        self.entries += 1;
        Ok(())
    }

    /// Another name for the file at `first`, which was made here.
    pub(super) fn hard(&mut self, path: &[u8], first: &[u8]) -> Result<(), FsError> {
        let (old_at, old) = self.parent(first)?;
        let old_at = rustix::io::fcntl_dupfd_cloexec(old_at, 0).map_err(|e| about("error linking", path, e))?;
        let (at, name) = self.parent(path)?;
        New::make(at, name, path, |name| linkat(&old_at, old, at, name, AtFlags::empty()))?.keep(at, name, path)?;
        self.entries += 1;
        Ok(())
    }

    /// Modes and times of folders, the innermost first: what is made in a folder changes them.
    pub(super) fn finish(&mut self) -> Result<(), FsError> {
        let mut made: Vec<(Vec<u8>, Meta)> = std::mem::take(&mut self.made).into_iter().collect();
        made.sort_by(|a, b| b.0.cmp(&a.0));
        for (path, meta) in made {
            self.enter(&path)?;
            let Some((_, fd)) = self.open.last() else { continue };
            if let Some(mtime) = meta.mtime {
                futimens(fd, &times(mtime)).map_err(|e| about("error setting the time of", &path, e))?;
            }
            if let Some(mode) = meta.mode {
                let mode = Mode::from_raw_mode(mode & PERMISSIONS);
                fchmod(fd, mode).map_err(|e| about("error setting the mode of", &path, e))?;
            }
        }
        Ok(())
    }
}

/// Something that was just made.
struct New<T> {
    made: T,
    /// What it is called as long as another stands in its place.
    beside: Option<String>,
}

impl<T> New<T> {
    /// Makes something by `make`, which gets its name and fails where that stands already: then it is made beside it.
    fn make(
        at: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        make: impl Fn(&OsStr) -> rustix::io::Result<T>,
    ) -> Result<Self, FsError> {
        let failed = |e| about("error writing", path, e);
        match make(name) {
            Err(Errno::EXIST) => {}
            made => return made.map(|made| Self { made, beside: None }).map_err(failed),
        }
        let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let text = format!("{} stands already and is a folder", shown(path));
            return Err(FsError::invalid(text));
        }
        let mut tries = 0;
        loop {
            // Never twice, so that two that unpack here do not meet.
            let number = BESIDE.fetch_add(1, Ordering::Relaxed);
            let beside = format!(".unpacked.{number}.tmp");
            match make(OsStr::new(&beside)) {
                Err(Errno::EXIST) if tries < BESIDE_TRIES => tries += 1,
                made => {
                    let made = made.map_err(failed)?;
                    let beside = Some(beside);
                    return Ok(Self { made, beside });
                }
            }
        }
    }

    /// It is whole: it takes its place.
    fn keep(self, at: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<(), FsError> {
        let Some(beside) = &self.beside else { return Ok(()) };
        let moved = renameat(at, beside.as_str(), at, name).map_err(|e| about("error replacing", path, e));
        // Two names of one file both stay after a rename.
        let _ = unlinkat(at, beside.as_str(), AtFlags::empty());
        moved
    }

    /// It is not whole. The error before is the one that is told.
    fn discard(self, at: &OwnedFd, name: &OsStr) {
        let name = self.beside.as_deref().map_or(name, OsStr::new);
        let _ = unlinkat(at, name, AtFlags::empty());
    }
}

fn fill(fd: &OwnedFd, path: &[u8], content: &mut impl Read, buffer: &mut [u8], work: &Work) -> Result<u64, FsError> {
    let mut total = 0;
    loop {
        work.go_on()?;
        let read = match content.read(buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(damaged(path, &e)),
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            match rustix::io::write(fd, rest) {
                Err(Errno::INTR) => {}
                written => rest = &rest[written.map_err(|e| about("error writing", path, e))?..],
            }
        }
        total += read as u64;
        work.moved(read);
    }
}

/// What an archive holds of an entry is not what it says.
pub(super) fn damaged(path: &[u8], why: &dyn std::fmt::Display) -> FsError {
    FsError::new(Failure::Invalid, format!("entry {} is damaged: {why}", shown(path)))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
