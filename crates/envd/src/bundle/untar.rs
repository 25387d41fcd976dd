//! Reads tar files, plain and gzipped: once to look at all entries, a second time to write them.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::rc::Rc;

use tar::{Archive, Entry, EntryType};

use super::gunzip::Members;
use super::place::Meta;
use super::plan::{Kind, clean, possible, refused, shown, stays};
use super::unpack::{Job, Unpacked, after};
use super::{Listed, Work, parse_time};
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

pub(super) fn untar(file: &File, gzipped: bool, job: &Job<'_>) -> Result<Unpacked, FsError> {
    let failed = |e: &dyn std::fmt::Display| refused(format!("it is damaged: {e}"));
    let mut plan = job.plan(true);
    // What each link points to so far.
    let mut targets = HashMap::new();
    each(file, gzipped, job.work, failed, |entry, path, kind, _| {
        let kind = another_link(kind, |first| targets.get(first).cloned());
        let size = if kind == Kind::File { entry.size() } else { 0 };
        plan.add(&path, &kind, size)?;
        if let Kind::Link(target) = kind {
            targets.insert(path, target);
            return Ok(());
        }
        if kind != Kind::File {
            return Ok(());
        }
        // Read to its end here, where that is not taken for a part of a head.
        match io::copy(&mut Counted::new(entry, job.work), &mut io::sink()) {
            Ok(_) => Ok(()),
            Err(e) => Err(refused(format!("it is damaged in entry {}: {e}", shown(&path)))),
        }
    })?;
    drop(targets);
    let mut place = job.place(&plan)?;
    let mut links: HashMap<Vec<u8>, (Vec<u8>, Meta)> = HashMap::new();
    let written = each(
        file,
        gzipped,
        job.work,
        |e| FsError::invalid(format!("the archive is damaged: {e}")),
        |entry, path, kind, meta| {
            let kind = another_link(kind, |first| links.get(first).map(|(target, _)| target.clone()));
            if !plan.knows(&path, &kind) {
                return Err(FsError::invalid("the archive was changed while it was unpacked"));
            }
            match kind {
                Kind::Dir => place.dir(&path, meta)?,
                Kind::Link(target) => {
                    possible(&path, &target)?;
                    links.insert(path, (target, meta));
                    return Ok(());
                }
                Kind::Hard(first) => place.hard(&path, &first)?,
                Kind::File => return place.file(&path, meta, &mut Counted::new(entry, job.work), job.work),
            }
            job.work.entry();
            Ok(())
        },
    );
    written.map_err(|e| after(&place, &e))?;
    // Last, so that nothing is ever written through one.
    let mut left_out = Listed::default();
    for (path, (target, meta)) in links {
        if !stays(&path, &target) {
            left_out.add(&path);
            continue;
        }
        place.link(&path, &target, meta).map_err(|e| after(&place, &e))?;
        job.work.entry();
    }
    place.finish().map_err(|e| after(&place, &e))?;
    Ok((place, left_out))
}

/// GNU tar writes a second name of a symbolic link as another name: here it is a second link.
fn another_link(kind: Kind, target: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Kind {
    match kind {
        Kind::Hard(first) => target(&first).map_or(Kind::Hard(first), Kind::Link),
        kind => kind,
    }
}

type Content<'a, 'f> = Entry<'a, Rationed<'f>>;

/// Gives an entry's content, all of it or an error.
struct Counted<'e, 'a, 'f, 'w> {
    left: u64,
    entry: &'e mut Content<'a, 'f>,
    work: &'w Work,
}

impl<'e, 'a, 'f, 'w> Counted<'e, 'a, 'f, 'w> {
    fn new(entry: &'e mut Content<'a, 'f>, work: &'w Work) -> Self {
        Self {
            left: entry.size(),
            entry,
            work,
        }
    }
}

impl Read for Counted<'_, '_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // Asked here too: the holes of sparse files are not read from the archive.
        self.work.go_on().map_err(|e| io::Error::other(e.text()))?;
        let read = self.entry.read(into)?;
        self.left = self.left.saturating_sub(read as u64);
        if read == 0 && !into.is_empty() && self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut short"));
        }
        Ok(read)
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
        Box::new(BufReader::with_capacity(BUNDLE_PIECE, Members::new(plain, work)))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_cancels_is_heard_within_a_hole() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(1 << 40);
        gnu.sparse[0].set_length(0);
        gnu.set_real_size(1 << 40);
        header.set_size(0);
        header.set_cksum();
        let work = Work::new(Duration::from_secs(600));
        let mut archive = Archive::new(Rationed {
            from: Box::new(&header.as_bytes()[..]),
            left: Rc::new(Cell::new(u64::MAX)),
            work: &work,
        });
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut content = Counted::new(&mut entry, &work);
        assert_eq!(content.read(&mut [1; 100]).unwrap(), 100);
        work.cancelled.store(true, Ordering::Relaxed);
        let error = content.read(&mut [1; 100]).unwrap_err();
        assert!(error.to_string().contains("cancelled"), "{error}");
    }
}
