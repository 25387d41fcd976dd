//! From a stream to files. No path is trusted: each is walked from the root's descriptor, without following links, without
//! leaving the file system, with `openat2`.

use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, fstat, ftruncate, futimens, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::ArchiveError;
use super::format::{Entry, Kind, invalid, read, read_head, skip_padding};
use super::pack::{is_elsewhere, names, open_dir};
use crate::limits::{ARCHIVE_DEPTH, ARCHIVE_READ};

/// Bytes of a path that the kernel takes at once.
const PATH_PIECE: usize = 4000;

/// Replaces everything below `root` by the archive. `switches`: owners can be given.
pub(super) fn unpack(root: impl rustix::path::Arg, input: &mut impl Read, switches: bool) -> Result<(), ArchiveError> {
    let root = open_dir(CWD, root).map_err(ArchiveError::file(b""))?;
    let device = fstat(&root).map_err(ArchiveError::file(b""))?.st_dev;
    let mut unpacker = Unpacker {
        root,
        device,
        switches,
        folders: Vec::new(),
    };
    // Nothing is removed for something that is no archive at all.
    let Some(mut entry) = read_head(input)? else {
        return Err(invalid("it is empty"));
    };
    unpacker.clear()?;
    loop {
        unpacker.restore(&entry, input)?;
        match read_head(input)? {
            Some(next) => entry = next,
            None => break,
        }
    }
    // What is made in a folder changes its time, so that comes last, and the innermost first.
    for (path, mtime) in std::mem::take(&mut unpacker.folders).iter().rev() {
        let fd = unpacker.open(path)?;
        futimens(&fd, &times(*mtime)).map_err(ArchiveError::file(path))?;
    }
    Ok(())
}

struct Unpacker {
    root: OwnedFd,
    device: u64,
    switches: bool,
    folders: Vec<(Vec<u8>, (i64, u32))>,
}

impl Unpacker {
    /// Removes all that is on the root's file system, but for sockets, which belong to processes that run, and for
    /// folders that something is mounted below.
    fn clear(&self) -> Result<(), ArchiveError> {
        struct Level {
            fd: OwnedFd,
            names: std::vec::IntoIter<CString>,
            name: CString,
        }
        let failed = ArchiveError::file(b"");
        let level = |fd: OwnedFd, name: CString| -> Result<Level, ArchiveError> {
            let names = names(&fd).map_err(&failed)?.into_iter();
            Ok(Level { fd, names, name })
        };
        let root = open_dir(&self.root, c".").map_err(&failed)?;
        let mut levels = vec![level(root, CString::default())?];
        loop {
            let depth = levels.len();
            let Some(top) = levels.last_mut() else { return Ok(()) };
            let Some(name) = top.names.next() else {
                let done = levels.pop();
                if let (Some(done), Some(parent)) = (done, levels.last()) {
                    // It stays if something in it does.
                    let _ = unlinkat(&parent.fd, &*done.name, AtFlags::REMOVEDIR);
                }
                continue;
            };
            let shown = ArchiveError::file(name.to_bytes());
            let stat = match statat(&top.fd, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(&shown)?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                _ if is_elsewhere(&top.fd, &name, &stat, self.device) => {}
                FileType::Directory => {
                    if depth >= ARCHIVE_DEPTH {
                        return Err(shown(Errno::NAMETOOLONG));
                    }
                    let below = open_dir(&top.fd, &*name).map_err(&shown)?;
                    levels.push(level(below, name)?);
                }
                FileType::Socket => {}
                _ => unlinkat(&top.fd, &*name, AtFlags::empty()).map_err(&shown)?,
            }
        }
    }

    /// The folder at `path`, below the root and nowhere else.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, ArchiveError> {
        let failed = ArchiveError::file(path);
        let mut at = open_dir(&self.root, c".").map_err(&failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let mut rest = path;
        while !rest.is_empty() {
            // The kernel takes so much at once; folders may be deeper.
            let piece = match rest.get(..PATH_PIECE) {
                Some(piece) => {
                    let slash = piece.iter().rposition(|b| *b == b'/');
                    &rest[..slash.ok_or_else(|| failed(Errno::NAMETOOLONG))?]
                }
                None => rest,
            };
            at = match openat2(&at, piece, flags, Mode::empty(), resolve) {
                Err(Errno::LOOP | Errno::XDEV | Errno::NOTDIR | Errno::NOENT) => {
                    let shown = String::from_utf8_lossy(path);
                    return Err(invalid(format!("/{shown} is not a folder of this archive")));
                }
                fd => fd.map_err(&failed)?,
            };
            rest = rest.get(piece.len() + 1..).unwrap_or_default();
        }
        Ok(at)
    }

    /// The folder that `path` is in, and its last part.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), ArchiveError> {
        let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        Ok((self.open(folder)?, name))
    }

    fn restore(&mut self, entry: &Entry, input: &mut impl Read) -> Result<(), ArchiveError> {
        let path = clean(&entry.path)?;
        let failed = ArchiveError::file(&path);
        if path.is_empty() {
            if entry.kind != Kind::Dir {
                return Err(invalid("the root is not a folder in it"));
            }
            let root = open_dir(&self.root, c".").map_err(&failed)?;
            self.attributes(&root, entry, &path)?;
            self.folders.push((path, entry.mtime));
            return Ok(());
        }
        let (at, name) = self.parent(&path)?;
        let name = OsStr::from_bytes(name);
        match entry.kind {
            Kind::Dir => {
                match mkdirat(&at, name, Mode::from_raw_mode(0o700)) {
                    Err(Errno::EXIST) => {}
                    made => made.map_err(&failed)?,
                }
                let fd = match open_dir(&at, name) {
                    Err(Errno::NOTDIR | Errno::LOOP) => return Err(twice(&path)),
                    fd => fd.map_err(&failed)?,
                };
                // Something is mounted there: that comes with the sandbox.
                if fstat(&fd).map_err(&failed)?.st_dev != self.device {
                    return Ok(());
                }
                self.attributes(&fd, entry, &path)?;
                self.folders.push((path, entry.mtime));
                return Ok(());
            }
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = openat(&at, name, flags, Mode::from_raw_mode(0o600));
                let fd = fd.map_err(|e| exists(e, &path).unwrap_or_else(|| failed(e)))?;
                content(&fd, entry, input, &path)?;
                self.attributes(&fd, entry, &path)?;
                return futimens(&fd, &times(entry.mtime)).map_err(failed);
            }
            Kind::Symlink => symlinkat(OsStr::from_bytes(&entry.target), &at, name),
            Kind::Fifo => mknodat(&at, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0),
            Kind::Hard => {
                let target = clean(&entry.target)?;
                let (folder, old) = self.parent(&target)?;
                let made = linkat(&folder, OsStr::from_bytes(old), &at, name, AtFlags::empty());
                return made.map_err(|e| exists(e, &path).unwrap_or_else(|| failed(e)));
            }
        }
        .map_err(|e| exists(e, &path).unwrap_or_else(|| failed(e)))?;
        // By name: neither kind can be opened without a meaning. The folder is ours alone meanwhile, and a link is not
        // followed.
        self.given(chownat(
            &at,
            name,
            Some(uid(entry)),
            Some(gid(entry)),
            AtFlags::SYMLINK_NOFOLLOW,
        ))
        .map_err(&failed)?;
        if entry.kind == Kind::Fifo {
            rustix::fs::chmodat(&at, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).map_err(&failed)?;
        }
        utimensat(&at, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Owner, then attributes, then mode: a change of owner takes set-id bits away.
    fn attributes(&self, fd: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<(), ArchiveError> {
        let failed = ArchiveError::file(path);
        self.given(fchown(fd, Some(uid(entry)), Some(gid(entry))))
            .map_err(&failed)?;
        for (name, value) in &entry.xattrs {
            match fsetxattr(fd.as_fd(), &name[..], value, XattrFlags::empty()) {
                // Not the sandbox's to set here, or not kept by this file system.
                Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL) => {}
                set => set.map_err(&failed)?,
            }
        }
        fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(failed)
    }

    /// Where there is one id, everything is its.
    fn given(&self, given: rustix::io::Result<()>) -> rustix::io::Result<()> {
        match given {
            Err(Errno::PERM | Errno::INVAL) if !self.switches => Ok(()),
            given => given,
        }
    }
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

fn exists(errno: Errno, path: &[u8]) -> Option<ArchiveError> {
    (errno == Errno::EXIST).then(|| twice(path))
}

fn twice(path: &[u8]) -> ArchiveError {
    invalid(format!("/{} stands twice in it", String::from_utf8_lossy(path)))
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

/// A path without empty parts and `.`; one with `..` or a zero byte is refused.
fn clean(path: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(invalid("a path in it leads upwards")),
            part if part.contains(&0) => return Err(invalid("a path in it holds a zero byte")),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

fn content(fd: &OwnedFd, entry: &Entry, input: &mut impl Read, path: &[u8]) -> Result<(), ArchiveError> {
    let failed = ArchiveError::file(path);
    let whole = [(0, entry.size)];
    let mut buffer = vec![0; ARCHIVE_READ];
    let mut stored = 0;
    for (offset, len) in entry.segments.as_deref().unwrap_or(&whole) {
        let mut done = 0;
        while done < *len {
            let want = usize::try_from(len - done).map_or(ARCHIVE_READ, |left| left.min(ARCHIVE_READ));
            read(input, &mut buffer[..want])?;
            let mut rest = &buffer[..want];
            while !rest.is_empty() {
                match rustix::io::pwrite(fd, rest, offset + done) {
                    Err(Errno::INTR) => {}
                    written => {
                        let written = written.map_err(&failed)?;
                        rest = &rest[written..];
                        done += written as u64;
                    }
                }
            }
        }
        stored += len;
    }
    skip_padding(input, stored)?;
    if entry.segments.is_some() {
        ftruncate(fd, entry.size).map_err(failed)?;
    }
    Ok(())
}
