//! Writes zip files. Small files are opened, read and deflated by the pool while others are written; large ones piece by
//! piece.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use flate2::Crc;
use rawzip::extra_fields::ExtraFieldId;
use rawzip::path::EntryPath;
use rawzip::path::ZipFilePath;
use rawzip::time::UtcDateTime;
use rawzip::{CompressionMethod, DataDescriptorOutput, Header, ZipArchiveWriter, ZipEntryWriter};
use rustix::io::Errno;

use super::deflate::{Pending, Piece, Pool, Task, wait};
use super::walk::{Found, Sink, What, open_file};
use super::{Report, Work, about};
use crate::filesystem::error::FsError;
use crate::limits::{BUNDLE_PIECE, BUNDLE_PIECES};

/// What is said of an entry.
struct Meta {
    path: Vec<u8>,
    mode: u32,
    mtime: i64,
}

enum Waiting {
    Dir,
    Link(Vec<u8>),
    File(Pending),
}

/// A zip file that is being written.
pub(super) struct Zip<'a, W> {
    out: ZipArchiveWriter<W>,
    pool: Pool,
    waiting: VecDeque<(Meta, Waiting)>,
    work: &'a Work,
    dest: String,
}

impl<'a, W: Write> Zip<'a, W> {
    pub(super) fn new(out: W, pool: Pool, work: &'a Work, dest: String) -> Self {
        Self {
            out: ZipArchiveWriter::new(out),
            pool,
            waiting: VecDeque::new(),
            work,
            dest,
        }
    }

    /// Writes what waits, and the directory at the end.
    pub(super) fn finish(mut self, report: &mut Report) -> Result<W, FsError> {
        self.drain(0, report)?;
        let dest = self.dest;
        self.out.finish().map_err(|e| failed(&dest, e))
    }

    /// Writes entries in their order until no more than `most` wait.
    fn drain(&mut self, most: usize, report: &mut Report) -> Result<(), FsError> {
        while self.waiting.len() > most {
            let Some((meta, waiting)) = self.waiting.pop_front() else {
                break;
            };
            self.work.go_on()?;
            let written = match waiting {
                Waiting::Dir => self.dir(&meta),
                Waiting::Link(target) => self.stored(&meta, &target),
                Waiting::File(pending) => match wait(&pending) {
                    Ok(piece) => self.piece(&meta, &piece, report),
                    Err(error) => {
                        unread(&meta.path, error, report)?;
                        continue;
                    }
                },
            };
            written.map_err(|e| failed(&self.dest, e))?;
            self.counted(report);
        }
        Ok(())
    }

    fn counted(&self, report: &mut Report) {
        report.entries += 1;
        self.work.entry();
    }

    fn dir(&mut self, meta: &Meta) -> Result<(), rawzip::Error> {
        let path = [&meta.path[..], b"/"].concat();
        self.out
            .new_dir(entry_path(&path))
            .unix_permissions(meta.mode)
            .last_modified(UtcDateTime::from_unix(meta.mtime))
            .extra_field(ExtraFieldId::EXTENDED_TIMESTAMP, &timestamp(meta.mtime), Header::LOCAL)?
            .create()
            .map(drop)
    }

    fn stored(&mut self, meta: &Meta, data: &[u8]) -> Result<(), rawzip::Error> {
        let mut crc = Crc::new();
        crc.update(data);
        let mut entry = begin(&mut self.out, meta, CompressionMethod::STORE)?;
        entry.write_all(data)?;
        entry
            .finish(DataDescriptorOutput::new(crc.sum(), data.len() as u64))
            .map(drop)
    }

    fn piece(&mut self, meta: &Meta, piece: &Piece, report: &mut Report) -> Result<(), rawzip::Error> {
        let mut entry = begin(&mut self.out, meta, CompressionMethod::DEFLATE)?;
        entry.write_all(&piece.data)?;
        entry.finish(DataDescriptorOutput::new(piece.crc.sum(), piece.len as u64))?;
        report.bytes += piece.len as u64;
        self.work.moved(piece.len);
        Ok(())
    }

    /// A file of many pieces.
    fn large(&mut self, meta: &Meta, found: &Found<'_>, report: &mut Report) -> Result<(), FsError> {
        self.drain(0, report)?;
        let file = match open_file(found.at, found.name) {
            Ok(file) => Arc::new(file),
            Err(error) => return unread(found.path, error, report),
        };
        let Self {
            out, pool, work, dest, ..
        } = self;
        let size = found.size();
        let mut entry = begin(out, meta, CompressionMethod::DEFLATE).map_err(|e| failed(dest, e))?;
        let (mut crc, mut total, mut offset) = (Crc::new(), 0_u64, 0_u64);
        let mut pieces: VecDeque<Pending> = VecDeque::new();
        loop {
            while offset < size && pieces.len() < BUNDLE_PIECES {
                let len = usize::try_from(size - offset).map_or(BUNDLE_PIECE, |left| left.min(BUNDLE_PIECE));
                let last = offset + len as u64 == size;
                pieces.push_back(pool.begin(Task::Part {
                    file: Arc::clone(&file),
                    offset,
                    len,
                    last,
                }));
                offset += len as u64;
            }
            let Some(pending) = pieces.pop_front() else { break };
            work.go_on()?;
            let piece = wait(&pending).map_err(|e| about("error reading file", found.path, e))?;
            entry
                .write_all(&piece.data)
                .map_err(|e| FsError::io(format!("error writing '{dest}'"), e))?;
            crc.combine(&piece.crc);
            total += piece.len as u64;
            work.moved(piece.len);
        }
        entry
            .finish(DataDescriptorOutput::new(crc.sum(), total))
            .map_err(|e| failed(dest, e))?;
        report.bytes += total;
        self.counted(report);
        Ok(())
    }
}

impl<W: Write> Sink for Zip<'_, W> {
    fn add(&mut self, found: &Found<'_>, report: &mut Report) -> Result<(), FsError> {
        let meta = Meta {
            path: found.path.to_vec(),
            mode: found.mode(),
            mtime: found.mtime(),
        };
        let waiting = match &found.what {
            What::Dir => Waiting::Dir,
            What::Link(target) => Waiting::Link(target.clone()),
            What::File if found.size() > BUNDLE_PIECE as u64 => return self.large(&meta, found, report),
            What::File => Waiting::File(self.pool.begin(Task::Whole {
                at: Arc::clone(found.at),
                name: found.name.clone(),
                size: usize::try_from(found.size()).unwrap_or(BUNDLE_PIECE),
            })),
        };
        self.waiting.push_back((meta, waiting));
        self.drain(BUNDLE_PIECES, report)
    }
}

/// The time as the header before the content has it. The library writes it into the directory alone, and `unzip` takes an entry
/// for two where only one of them has such a field.
fn timestamp(mtime: i64) -> [u8; 5] {
    let seconds = u32::try_from(mtime.max(0)).unwrap_or(u32::MAX).to_le_bytes();
    [1, seconds[0], seconds[1], seconds[2], seconds[3]]
}

fn begin<'w, W: Write>(
    out: &'w mut ZipArchiveWriter<W>,
    meta: &Meta,
    method: CompressionMethod,
) -> Result<ZipEntryWriter<'w, W>, rawzip::Error> {
    let started = out
        .new_file(entry_path(&meta.path))
        .compression_method(method)
        .unix_permissions(meta.mode)
        .last_modified(UtcDateTime::from_unix(meta.mtime))
        .extra_field(ExtraFieldId::EXTENDED_TIMESTAMP, &timestamp(meta.mtime), Header::LOCAL)?
        .start();
    started.map(|(entry, _)| entry)
}

/// A file that could not be opened or read: it is told, unless it went away.
pub(super) fn unread(path: &[u8], error: Errno, report: &mut Report) -> Result<(), FsError> {
    match error {
        Errno::NOENT | Errno::LOOP | Errno::NXIO => Ok(()),
        Errno::ACCESS | Errno::PERM | Errno::IO => {
            report.unreadable.add(path);
            Ok(())
        }
        error => Err(about("error reading file", path, error)),
    }
}

/// The name as it is. One that readers would take for another, or that is no text, is written without being called UTF-8.
fn entry_path(path: &[u8]) -> EntryPath<'_> {
    match std::str::from_utf8(path) {
        Ok(text) if ZipFilePath::from_str(text).as_str() == text => EntryPath::conformant(text),
        _ => EntryPath::verbatim(path),
    }
}

fn failed(dest: &str, error: rawzip::Error) -> FsError {
    let what = format!("error writing '{dest}'");
    match error.into_kind() {
        rawzip::ErrorKind::IO(error) => FsError::io(what, error),
        other => FsError::io(what, io::Error::other(other.to_string())),
    }
}
