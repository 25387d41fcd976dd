//! Reads tar files, plain and gzipped: once to look at all entries, a second time to write them.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use super::place::{Meta, Place, damaged};
use super::plan::{Kind, Plan, clean, refused, shown};
use super::unpack::{Job, after};
use super::{Work, parse_time};
use crate::filesystem::error::FsError;
use crate::limits::{BUNDLE_PIECE, UNPACK_HEAD};

/// Lets so many bytes through: heads of entries are read into memory, and gzip makes long ones of short ones.
struct Rationed<'a> {
    from: Box<dyn Read + 'a>,
    left: Rc<Cell<u64>>,
    work: &'a Work,
}

impl Read for Rationed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.work.go_on().map_err(|e| io::Error::other(e.text()))?;
        let most = usize::try_from(self.left.get()).map_or(into.len(), |left| left.min(into.len()));
        if most == 0 && !into.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the head of an entry is too long",
            ));
        }
        let read = self.from.read(&mut into[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

pub(super) fn untar(file: &File, gzipped: bool, job: &Job<'_>) -> Result<Place, FsError> {
    let failed = |e: &dyn std::fmt::Display| refused(format!("it is damaged: {e}"));
    let mut plan = Plan::default();
    each(file, gzipped, job.work, failed, |entry, path, kind, _| {
        let size = if kind == Kind::File { entry.size() } else { 0 };
        plan.add(&path, &kind, size)?;
        if kind != Kind::File {
            return Ok(());
        }
        // Read to its end here, where that is not taken for a part of a head.
        match io::copy(&mut Counted(entry), &mut io::sink()) {
            Ok(read) if read == size => Ok(()),
            Ok(_) => Err(refused(format!("it is cut short in entry {}", shown(&path)))),
            Err(e) => Err(refused(format!("it is damaged in entry {}: {e}", shown(&path)))),
        }
    })?;
    let mut place = job.place(&plan)?;
    let mut links = Vec::new();
    let written = each(
        file,
        gzipped,
        job.work,
        |e| FsError::invalid(format!("the archive is damaged: {e}")),
        |entry, path, kind, meta| {
            if !plan.knows(&path, &kind) {
                return Err(FsError::invalid("the archive was changed while it was unpacked"));
            }
            match kind {
                Kind::Dir => place.dir(&path, meta)?,
                Kind::Link(target) => {
                    links.push((path, target, meta));
                    return Ok(());
                }
                Kind::Hard(first) => place.hard(&path, &first)?,
                Kind::File => return write(entry, &path, meta, &mut place, job.work),
            }
            job.work.entry();
            Ok(())
        },
    );
    written.map_err(|e| after(&place, &e))?;
    // Last, so that nothing is ever written through one.
    for (path, target, meta) in links {
        let mut again = Plan::default();
        again.add(&path, &Kind::Link(target.clone()), 0)?;
        place.link(&path, &target, meta).map_err(|e| after(&place, &e))?;
        job.work.entry();
    }
    place.finish().map_err(|e| after(&place, &e))?;
    Ok(place)
}

fn write(entry: &mut Content<'_, '_>, path: &[u8], meta: Meta, place: &mut Place, work: &Work) -> Result<(), FsError> {
    let (size, before) = (entry.size(), place.bytes);
    place.file(path, meta, &mut Counted(entry), work)?;
    if place.bytes - before == size {
        Ok(())
    } else {
        Err(damaged(path, &"it is cut short"))
    }
}

type Content<'a, 'f> = Entry<'a, Rationed<'f>>;

/// Gives an entry's content: `Entry` itself would be taken by value.
struct Counted<'e, 'a, 'f>(&'e mut Content<'a, 'f>);

impl Read for Counted<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

/// Calls `take` for every entry.
fn each(
    mut file: &File,
    gzipped: bool,
    work: &Work,
    failed: impl Fn(&dyn std::fmt::Display) -> FsError,
    mut take: impl FnMut(&mut Content<'_, '_>, Vec<u8>, Kind, Meta) -> Result<(), FsError>,
) -> Result<(), FsError> {
    file.rewind().map_err(|e| FsError::io("error reading the archive", e))?;
    let plain = BufReader::with_capacity(BUNDLE_PIECE, file);
    let left = Rc::new(Cell::new(UNPACK_HEAD));
    let from: Box<dyn Read + '_> = if gzipped {
        Box::new(BufReader::with_capacity(BUNDLE_PIECE, MultiGzDecoder::new(plain)))
    } else {
        Box::new(plain)
    };
    let mut archive = Archive::new(Rationed {
        from,
        left: Rc::clone(&left),
        work,
    });
    let mut entries = archive.entries().map_err(|e| failed(&e))?;
    loop {
        work.go_on()?;
        left.set(UNPACK_HEAD);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|e| failed(&e))?;
        // A comment for all entries: nothing that is used here.
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let (path, kind, meta) = head(&mut entry)?;
        left.set(u64::MAX);
        take(&mut entry, path, kind, meta)?;
    }
    // What follows the end, checksums of gzip among it.
    left.set(UNPACK_HEAD);
    let mut rest = archive.into_inner();
    match io::copy(&mut rest, &mut io::sink()) {
        // There is more than padding: nothing that belongs to it.
        Err(e) if left.get() > 0 => Err(failed(&e)),
        _ => Ok(()),
    }
}

/// What is said of an entry.
fn head(entry: &mut Content<'_, '_>) -> Result<(Vec<u8>, Kind, Meta), FsError> {
    let raw = entry.path_bytes().into_owned();
    let path = clean(&raw)?;
    let name = shown(&raw);
    let target = |entry: &Content<'_, '_>| {
        let target = entry.link_name_bytes().map(|t| t.into_owned());
        target.ok_or_else(|| refused(format!("link {name} has no valid target")))
    };
    let kind = match entry.header().entry_type() {
        // Archives that are older than the kinds mark folders by a slash.
        EntryType::Regular if raw.ends_with(b"/") => Kind::Dir,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Dir,
        EntryType::Symlink => Kind::Link(target(entry)?),
        EntryType::Link => Kind::Hard(clean(&target(entry)?)?),
        EntryType::Fifo | EntryType::Char | EntryType::Block => {
            return Err(refused(format!("entry {name} is a device or pipe")));
        }
        other => {
            let letter = char::from(other.as_byte());
            return Err(refused(format!(
                "entry {name} is of kind {letter:?}, which is not known here"
            )));
        }
    };
    let mut meta = Meta {
        mode: entry.header().mode().ok(),
        mtime: entry
            .header()
            .mtime()
            .ok()
            .and_then(|t| Some((i64::try_from(t).ok()?, 0))),
    };
    let records = entry
        .pax_extensions()
        .map_err(|e| refused(format!("the head of entry {name} is damaged: {e}")))?;
    for record in records.into_iter().flatten() {
        let record = record.map_err(|e| refused(format!("the head of entry {name} is damaged: {e}")))?;
        match record.key_bytes() {
            b"mtime" => meta.mtime = parse_time(record.value_bytes()).or(meta.mtime),
            key if key.starts_with(b"GNU.sparse.") => {
                let why = "is a sparse file of a kind that is not known here; use the tar program";
                return Err(refused(format!("entry {name} {why}")));
            }
            _ => {}
        }
    }
    Ok((path, kind, meta))
}
