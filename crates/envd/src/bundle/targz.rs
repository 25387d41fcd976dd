//! Writes tar.gz files.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use flate2::Crc;
use tar::{Builder, EntryType, Header};

use super::deflate::{Pending, Pool, Task, wait};
use super::walk::{Found, Sink, What, open_file, read_at};
use super::{Report, Work, zip::unread};
use crate::filesystem::error::FsError;
use crate::limits::{BUNDLE_PIECE, BUNDLE_PIECES};

/// RFC 1952: magic, deflate, no flags, no time, no hint, Unix.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// Compresses what is written to it, in pieces that the pool works on side by side.
struct Gzip<W> {
    out: W,
    pool: Pool,
    block: Vec<u8>,
    pending: VecDeque<Pending>,
    crc: Crc,
    total: u64,
}

impl<W: Write> Gzip<W> {
    fn new(mut out: W, pool: Pool) -> io::Result<Self> {
        out.write_all(&GZIP_HEAD)?;
        Ok(Self {
            out,
            pool,
            block: Vec::with_capacity(BUNDLE_PIECE),
            pending: VecDeque::new(),
            crc: Crc::new(),
            total: 0,
        })
    }

    fn press(&mut self, last: bool) -> io::Result<()> {
        let data = std::mem::replace(&mut self.block, Vec::with_capacity(BUNDLE_PIECE));
        self.pending.push_back(self.pool.begin(Task::Block { data, last }));
        self.settle(if last { 0 } else { BUNDLE_PIECES })
    }

    fn settle(&mut self, most: usize) -> io::Result<()> {
        while self.pending.len() > most {
            let Some(pending) = self.pending.pop_front() else { break };
            let piece = wait(&pending)?;
            self.crc.combine(&piece.crc);
            self.total += piece.len as u64;
            self.out.write_all(&piece.data)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        self.press(true)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32, as the format has it.
        self.out.write_all(&self.total.to_le_bytes()[..4])?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(BUNDLE_PIECE - self.block.len());
        self.block.extend_from_slice(&data[..taken]);
        if self.block.len() == BUNDLE_PIECE {
            self.press(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tar.gz that is being written.
pub(super) struct TarGz<'a, W: Write> {
    out: Builder<Gzip<W>>,
    work: &'a Work,
    dest: String,
    /// Files with several names, by device and number: the name they were written under.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a, W: Write> TarGz<'a, W> {
    pub(super) fn new(out: W, pool: Pool, work: &'a Work, dest: String) -> Result<Self, FsError> {
        let gzip = Gzip::new(out, pool).map_err(|e| FsError::io(format!("error writing '{dest}'"), e))?;
        Ok(Self {
            out: Builder::new(gzip),
            work,
            dest,
            links: HashMap::new(),
        })
    }

    /// Writes the end.
    pub(super) fn finish(self) -> Result<W, FsError> {
        let dest = self.dest;
        let finished = self.out.into_inner().and_then(Gzip::finish);
        finished.map_err(|e| FsError::io(format!("error writing '{dest}'"), e))
    }

    fn file(&mut self, header: &mut Header, found: &Found<'_>, report: &mut Report) -> Result<bool, FsError> {
        let several = found.stat.st_nlink > 1;
        let id = (found.stat.st_dev, found.stat.st_ino);
        if let Some(first) = self.links.get(&id).filter(|_| several) {
            header.set_entry_type(EntryType::Link);
            let (path, first) = (as_path(found.path), as_path(first));
            let written = self.out.append_link(header, path, first);
            written.map_err(|e| self.failed(found.path, e))?;
            return Ok(true);
        }
        let file = match open_file(found.at, found.name) {
            Ok(file) => file,
            Err(error) => {
                unread(found.path, error, report)?;
                return Ok(false);
            }
        };
        header.set_entry_type(EntryType::Regular);
        header.set_size(found.size());
        let content = Exactly {
            file,
            done: 0,
            size: found.size(),
            work: self.work,
        };
        let written = self.out.append_data(header, as_path(found.path), content);
        written.map_err(|e| self.failed(found.path, e))?;
        report.bytes += found.size();
        if several {
            self.links.insert(id, found.path.to_vec());
        }
        Ok(true)
    }

    fn failed(&self, path: &[u8], error: io::Error) -> FsError {
        let (dest, path) = (&self.dest, String::from_utf8_lossy(path));
        FsError::io(format!("error packing '{path}' into '{dest}'"), error)
    }
}

impl<W: Write> Sink for TarGz<'_, W> {
    fn add(&mut self, found: &Found<'_>, report: &mut Report) -> Result<(), FsError> {
        let mut header = Header::new_gnu();
        header.set_mode(found.mode() & 0o777);
        header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
        header.set_uid(found.stat.st_uid.into());
        header.set_gid(found.stat.st_gid.into());
        header.set_size(0);
        match &found.what {
            What::Dir => {
                header.set_entry_type(EntryType::Directory);
                let path = [found.path, b"/"].concat();
                let written = self.out.append_data(&mut header, as_path(&path), io::empty());
                written.map_err(|e| self.failed(found.path, e))?;
            }
            What::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                let written = self.out.append_link(&mut header, as_path(found.path), as_path(target));
                written.map_err(|e| self.failed(found.path, e))?;
            }
            What::File => {
                if !self.file(&mut header, found, report)? {
                    return Ok(());
                }
            }
        }
        report.entries += 1;
        self.work.entry();
        Ok(())
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// A file's content, exactly as long as was said before: one that became shorter is filled up, one that grew is cut.
struct Exactly<'a> {
    file: OwnedFd,
    done: u64,
    size: u64,
    work: &'a Work,
}

impl Read for Exactly<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.work.go_on().map_err(|e| io::Error::other(e.text()))?;
        let want = usize::try_from(self.size - self.done).map_or(into.len(), |left| left.min(into.len()));
        let read = read_at(&self.file, &mut into[..want], self.done)?;
        into[read..want].fill(0);
        self.done += want as u64;
        self.work.moved(want);
        Ok(want)
    }
}
