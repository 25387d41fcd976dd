//! Reads zip files. The directory at the end is looked at as a whole before anything is written.

use std::fs::File;
use std::io::Read;

use flate2::read::DeflateDecoder;
use rawzip::{
    CompressionMethod, CreatorSystem, FileReader, RECOMMENDED_BUFFER_SIZE, ZipArchive, ZipArchiveEntryWayfinder,
    ZipFileHeaderRecord, ZipReader, extra_fields::ExtraFieldId,
};

use super::Listed;
use super::place::{Meta, Place, damaged};
use super::plan::{Kind, Plan, clean_zip, refused, shown, stays};
use super::unpack::{Job, Unpacked, after};
use crate::filesystem::error::FsError;
use crate::limits::BUNDLE_PATH;

const FILE_KIND: u32 = 0o170_000;
const DIR: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const REGULAR: u32 = 0o100_000;
/// How far from its end a file is searched for the directory: the longest comment and what belongs to it.
const SEARCH: u64 = 66 << 10;

struct Item {
    path: Vec<u8>,
    kind: Kind,
    meta: Meta,
    method: CompressionMethod,
    way: ZipArchiveEntryWayfinder,
}

type Archive = ZipArchive<FileReader>;

pub(super) fn unzip(file: File, job: &Job<'_>) -> Result<Unpacked, FsError> {
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::with_max_search_space(SEARCH)
        .locate_in_file(file, &mut buffer)
        .map_err(|(_, e)| refused(format!("it is no whole zip file: {e}")))?;
    let mut plan = job.plan(false);
    // Before as much as the list is in memory.
    plan.count(archive.entries_hint(), 0)?;
    let items = list(&archive, &mut buffer, &mut plan, job)?;
    let mut place = job.place(&plan)?;
    let mut inflate = None;
    for item in &items {
        let written = job
            .work
            .go_on()
            .and_then(|()| extract(&archive, item, &mut place, &mut inflate, job));
        written.map_err(|e| after(&place, &e))?;
    }
    // Last, so that nothing is ever written through one.
    let mut left_out = Listed::default();
    for item in &items {
        if let Kind::Link(target) = &item.kind {
            if !stays(&item.path, target) {
                left_out.add(&item.path);
                continue;
            }
            let written = place.link(&item.path, target, item.meta);
            written.map_err(|e| after(&place, &e))?;
            job.work.entry();
        }
    }
    place.finish().map_err(|e| after(&place, &e))?;
    Ok((place, left_out))
}

/// What is in it. Refuses what may not be unpacked.
fn list(archive: &Archive, buffer: &mut [u8], plan: &mut Plan, job: &Job<'_>) -> Result<Vec<Item>, FsError> {
    let mut items = Vec::new();
    let mut ranges = Vec::new();
    let mut entries = archive.entries(buffer);
    loop {
        job.work.go_on()?;
        let record = match entries.next_entry() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(e) => {
                return Err(refused(format!(
                    "its directory is damaged after entry {}: {e}",
                    items.len()
                )));
            }
        };
        let name = shown(record.file_path().as_bytes());
        let way = record.wayfinder();
        let entry = archive
            .get_entry(way)
            .map_err(|e| refused(format!("entry {name} is not where the directory says: {e}")))?;
        let (_, end) = entry.compressed_data_range();
        ranges.push((record.local_header_offset(), end));
        let item = read_record(archive, &record, &name)?;
        plan.add(&item.path, &item.kind, way.uncompressed_size_hint())?;
        items.push(item);
    }
    if items.len() as u64 != archive.entries_hint() {
        return Err(refused(format!(
            "it says it has {} entries and has {}",
            archive.entries_hint(),
            items.len()
        )));
    }
    ranges.sort_unstable();
    let overlap = ranges.windows(2).any(|pair| pair[0].1 > pair[1].0);
    if overlap || ranges.last().is_some_and(|(_, end)| *end > archive.directory_offset()) {
        return Err(refused("its entries overlap, which only a bomb's do"));
    }
    Ok(items)
}

fn read_record(archive: &Archive, record: &ZipFileHeaderRecord<'_>, name: &str) -> Result<Item, FsError> {
    let flags = record.flags();
    if flags.is_encrypted() || flags.has_strong_encryption() || flags.is_masked() {
        return Err(refused(format!(
            "entry {name} is encrypted; a program inside the sandbox may know the password"
        )));
    }
    let method = record.compression_method();
    if method != CompressionMethod::STORE && method != CompressionMethod::DEFLATE {
        return Err(refused(format!(
            "entry {name} is compressed by {method:?}, which is not known here"
        )));
    }
    let system = record.version_made_by().creator_system();
    let from_unix = matches!(system, CreatorSystem::UNIX | CreatorSystem::MACOS);
    let path = clean_zip(record.file_path().as_bytes(), from_unix)?;
    // Python's `ZipFile.writestr` and others leave the kind, or all of it, out.
    let raw = if from_unix {
        record.external_attributes() >> 16
    } else {
        0
    };
    let is_dir = record.is_dir() || (!from_unix && record.file_path().as_bytes().ends_with(b"\\"));
    let kind = match raw & FILE_KIND {
        LINK => Kind::Link(target(archive, record, name)?),
        DIR => Kind::Dir,
        0 | REGULAR if is_dir => Kind::Dir,
        0 | REGULAR => Kind::File,
        _ => return Err(refused(format!("entry {name} is no file, folder or link"))),
    };
    if kind == Kind::Dir && record.uncompressed_size_hint() > 0 {
        return Err(refused(format!("entry {name} is a folder with content")));
    }
    let meta = Meta {
        mode: Some(raw & 0o7777).filter(|mode| *mode != 0),
        mtime: mtime(record),
    };
    Ok(Item {
        path,
        kind,
        meta,
        method,
        way: record.wayfinder(),
    })
}

/// Seconds since 1970, where the archive has them; the older field knows no time zone and is taken for UTC.
fn mtime(record: &ZipFileHeaderRecord<'_>) -> Option<(i64, u32)> {
    for (id, data) in record.extra_fields() {
        if let (ExtraFieldId::EXTENDED_TIMESTAMP, [flags, a, b, c, d, ..]) = (id, data)
            && flags & 1 == 1
        {
            return Some((i32::from_le_bytes([*a, *b, *c, *d]).into(), 0));
        }
    }
    let dos = record.last_modified_dos();
    let days = days(dos.year().into(), dos.month().into(), dos.day().into())?;
    let seconds = i64::from(dos.hour()) * 3600 + i64::from(dos.minute()) * 60 + i64::from(dos.second());
    Some((days * 86_400 + seconds, 0))
}

/// Days since 1970 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last.
    let shifted = year - i64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468)
}

/// What a link points to, which is its content.
fn target(archive: &Archive, record: &ZipFileHeaderRecord<'_>, name: &str) -> Result<Vec<u8>, FsError> {
    if record.uncompressed_size_hint() > BUNDLE_PATH as u64 {
        return Err(refused(format!("link {name} has no valid target")));
    }
    let entry = archive
        .get_entry(record.wayfinder())
        .map_err(|e| refused(format!("entry {name} is not where the directory says: {e}")))?;
    let mut target = Vec::new();
    let read = if record.compression_method() == CompressionMethod::STORE {
        entry.verifying_reader(entry.reader()).read_to_end(&mut target)
    } else {
        let inflate = DeflateDecoder::new(entry.reader());
        entry.verifying_reader(inflate).read_to_end(&mut target)
    };
    read.map_err(|e| refused(format!("entry {name} is damaged: {e}")))?;
    Ok(target)
}

type Inflate<'a> = DeflateDecoder<ZipReader<&'a FileReader>>;

fn extract<'a>(
    archive: &'a Archive,
    item: &Item,
    place: &mut Place,
    inflate: &mut Option<Inflate<'a>>,
    job: &Job<'_>,
) -> Result<(), FsError> {
    match &item.kind {
        Kind::Link(_) | Kind::Hard(_) => return Ok(()),
        Kind::Dir => {
            job.work.entry();
            return place.dir(&item.path, item.meta);
        }
        Kind::File => {}
    }
    let entry = archive.get_entry(item.way).map_err(|e| damaged(&item.path, &e))?;
    if item.method == CompressionMethod::STORE {
        let mut content = entry.verifying_reader(entry.reader());
        return place.file(&item.path, item.meta, &mut content, job.work);
    }
    match inflate {
        // What it needs in memory is kept from file to file.
        Some(inflate) => drop(inflate.reset(entry.reader())),
        None => *inflate = Some(DeflateDecoder::new(entry.reader())),
    }
    let Some(inflate) = inflate else { return Ok(()) };
    place.file(&item.path, item.meta, &mut entry.verifying_reader(inflate), job.work)
}

#[cfg(test)]
mod tests {
    use super::days;

    #[test]
    fn dates() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 3, 1), Some(11_017));
        assert_eq!(days(2024, 2, 29), Some(19_782));
        assert_eq!(days(2024, 13, 1), None);
        assert_eq!(days(2024, 0, 1), None);
    }
}
