//! From files to a stream. Nothing is followed: every step goes through the descriptor of the folder it is in.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, StatxAttributes, StatxFlags, fstat, openat, readlinkat, seek,
    statat, statx,
};
use rustix::io::Errno;

use super::ArchiveError;
use super::format::{BLOCK, Entry, Kind, pad, put, write_head};
use crate::limits::{ARCHIVE_DEPTH, ARCHIVE_READ, ARCHIVE_SEGMENTS, ARCHIVE_XATTRS};

/// Below this size holes are not looked for.
const SPARSE_FROM: u64 = 64 << 10;

/// A folder whose entries are being written.
struct Level {
    fd: OwnedFd,
    names: std::vec::IntoIter<CString>,
    /// Bytes of the path up to here.
    path: usize,
}

/// Writes everything below `root` that is on its file system.
pub(super) fn pack(root: impl rustix::path::Arg, out: &mut impl Write) -> Result<(), ArchiveError> {
    let fd = open_dir(rustix::fs::CWD, root).map_err(ArchiveError::file(b""))?;
    let stat = fstat(&fd).map_err(ArchiveError::file(b""))?;
    let mut packer = Packer {
        out,
        device: stat.st_dev,
        links: HashMap::new(),
        path: Vec::new(),
    };
    packer.dir(&fd, &stat)?;
    let mut levels = vec![packer.level(fd)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        packer.path.truncate(level.path);
        if level.path > 0 {
            packer.path.push(b'/');
        }
        packer.path.extend(name.to_bytes());
        if let Some(below) = packer.entry(level.fd.as_fd(), &name)? {
            if levels.len() >= ARCHIVE_DEPTH {
                return Err(ArchiveError::file(&packer.path)(Errno::NAMETOOLONG));
            }
            levels.push(packer.level(below)?);
        }
    }
    // The end: two empty blocks.
    put(packer.out, &[0; 2 * BLOCK])
}

pub(crate) fn open_dir(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Whether something is mounted at `name` of `at`, or with an empty name at `at` itself, so that it is not of the file
/// system with this `device`. The folders of an overlay have its device; its other files may have those of its layers.
pub(crate) fn is_elsewhere(at: impl AsFd, name: &CStr, stat: &Stat, device: u64) -> bool {
    if stat.st_dev == device {
        return false;
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return true;
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let mounted = StatxAttributes::MOUNT_ROOT;
    statx(at, name, flags, StatxFlags::empty()).map_or(true, |told| {
        !told.stx_attributes_mask.contains(mounted) || told.stx_attributes.contains(mounted)
    })
}

/// The names in a folder, sorted, without `.` and `..`.
pub(crate) fn names(fd: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

struct Packer<'a, W> {
    out: &'a mut W,
    device: u64,
    /// Files with several names, by device and number: the name they were written under.
    links: HashMap<(u64, u64), Vec<u8>>,
    path: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    fn level(&self, fd: OwnedFd) -> Result<Level, ArchiveError> {
        let names = names(&fd).map_err(ArchiveError::file(&self.path))?;
        Ok(Level {
            fd,
            names: names.into_iter(),
            path: self.path.len(),
        })
    }

    /// Writes one entry. Returns a folder that is to be entered.
    fn entry(&mut self, at: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, ArchiveError> {
        let path = self.path.clone();
        let failed = ArchiveError::file(&path);
        let stat = match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            // It went away since its folder was read.
            Err(Errno::NOENT) => return Ok(None),
            stat => stat.map_err(&failed)?,
        };
        if is_elsewhere(at, name, &stat, self.device) {
            return Ok(None);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory
            && stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            let entry = Entry {
                target: first.clone(),
                ..self.plain(Kind::Hard, &stat)
            };
            write_head(self.out, &entry)?;
            return Ok(None);
        }
        let written = match kind {
            FileType::Directory => {
                let fd = match open_dir(at, name) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                    fd => fd.map_err(&failed)?,
                };
                let stat = fstat(&fd).map_err(&failed)?;
                if stat.st_dev != self.device {
                    return Ok(None);
                }
                self.dir(&fd, &stat)?;
                return Ok(Some(fd));
            }
            FileType::RegularFile => self.file(at, name)?,
            FileType::Symlink => match readlinkat(at, name, Vec::new()) {
                Err(Errno::NOENT | Errno::INVAL) => false,
                target => {
                    let entry = Entry {
                        target: target.map_err(&failed)?.into_bytes(),
                        ..self.plain(Kind::Symlink, &stat)
                    };
                    write_head(self.out, &entry)?;
                    true
                }
            },
            FileType::Fifo => {
                write_head(self.out, &self.plain(Kind::Fifo, &stat))?;
                true
            }
            // A socket means nothing without its process; device nodes do not work here.
            _ => false,
        };
        if written && stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path);
        }
        Ok(None)
    }

    #[expect(clippy::unnecessary_cast, reason = "the types differ between architectures")]
    fn plain(&self, kind: Kind, stat: &Stat) -> Entry {
        Entry {
            path: self.path.clone(),
            kind,
            target: Vec::new(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime as i64, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            size: 0,
            segments: None,
            xattrs: Vec::new(),
        }
    }

    fn dir(&mut self, fd: &OwnedFd, stat: &Stat) -> Result<(), ArchiveError> {
        let entry = Entry {
            xattrs: xattrs(fd).map_err(ArchiveError::file(&self.path))?,
            ..self.plain(Kind::Dir, stat)
        };
        write_head(self.out, &entry)
    }

    fn file(&mut self, at: BorrowedFd<'_>, name: &CStr) -> Result<bool, ArchiveError> {
        let path = self.path.clone();
        let failed = ArchiveError::file(&path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match openat(at, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            fd => fd.map_err(&failed)?,
        };
        let stat = fstat(&fd).map_err(&failed)?;
        // Something else took its name meanwhile.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || is_elsewhere(&fd, c"", &stat, self.device)
        {
            return Ok(false);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let holes = size >= SPARSE_FROM && u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        let segments = if holes { segments(&fd, size) } else { None };
        let entry = Entry {
            size,
            segments,
            xattrs: xattrs(&fd).map_err(&failed)?,
            ..self.plain(Kind::File, &stat)
        };
        write_head(self.out, &entry)?;
        let whole = [(0, size)];
        let mut written = 0;
        for (offset, len) in entry.segments.as_deref().unwrap_or(&whole) {
            self.content(&fd, *offset, *len).map_err(|e| match e {
                Copy::Read(errno) => failed(errno),
                Copy::Write(error) => error,
            })?;
            written += len;
        }
        pad(self.out, written)?;
        Ok(true)
    }

    /// Exactly `len` bytes: a file that became shorter is filled up, one that grew is cut.
    fn content(&mut self, fd: &OwnedFd, offset: u64, len: u64) -> Result<(), Copy> {
        let mut buffer = vec![0; ARCHIVE_READ];
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).map_or(ARCHIVE_READ, |left| left.min(ARCHIVE_READ));
            let got = match rustix::io::pread(fd, &mut buffer[..want], offset + done) {
                Err(Errno::INTR) => continue,
                got => got.map_err(Copy::Read)?,
            };
            if got == 0 {
                buffer[..want].fill(0);
            }
            let got = if got == 0 { want } else { got };
            put(self.out, &buffer[..got]).map_err(Copy::Write)?;
            done += got as u64;
        }
        Ok(())
    }
}

enum Copy {
    Read(Errno),
    Write(ArchiveError),
}

/// Where a file's content is. None: nowhere worth telling, or too scattered.
fn segments(fd: &OwnedFd, size: u64) -> Option<Vec<(u64, u64)>> {
    let mut segments = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(fd, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            start => start.ok()?.min(size),
        };
        let end = seek(fd, SeekFrom::Hole(start)).ok()?.min(size);
        if end > start {
            segments.push((start, end - start));
        }
        if segments.len() > ARCHIVE_SEGMENTS || end <= at {
            return None;
        }
        at = end;
    }
    // As GNU tar has it, a hole at the end is told by a piece of nothing.
    if segments.last().is_none_or(|(start, len)| start + len < size) {
        segments.push((size, 0));
    }
    Some(segments)
}

fn xattrs(fd: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; ARCHIVE_XATTRS];
    let len = match rustix::fs::flistxattr(fd, &mut list[..]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        len => len?,
    };
    let mut found = Vec::new();
    for name in list[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; ARCHIVE_XATTRS];
        match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                found.push((name.to_vec(), value));
            }
            // Gone meanwhile, or not for the sandbox's root to see.
            Err(Errno::NODATA | Errno::PERM | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}
