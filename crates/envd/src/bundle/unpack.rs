//! An archive into a folder: what kind it is, then to the one that reads it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::place::{Place, left};
use super::plan::{Plan, Room};
use super::{Listed, Report, Work, untar, unzip};
use crate::filesystem::error::{FsError, Kind};
use crate::metrics::memory_limit;
use crate::users::User;

/// Where tar has its magic, and what it is.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");
/// Bytes that tell an archive's kind.
const START: u64 = 512;

/// What is unpacked, and where to.
pub(super) struct Job<'a> {
    /// Bytes of the archive.
    pub(super) size: u64,
    pub(super) dest: &'a Path,
    pub(super) user: &'a User,
    pub(super) work: &'a Work,
}

impl Job<'_> {
    /// An empty plan, with the room that there is.
    pub(super) fn plan(&self, last_wins: bool) -> Plan {
        let (free, files) = left(self.dest);
        Plan::new(Room {
            packed: self.size,
            free,
            files,
            memory: memory_limit(self.work.memory).unwrap_or(u64::MAX),
            last_wins,
        })
    }

    /// The folder, once all of the archive was looked at. Nothing is made before.
    pub(super) fn place(&self, plan: &Plan) -> Result<Place, FsError> {
        plan.check()?;
        Place::open(self.dest, self.user)
    }
}

/// Unpacks `archive` into the folder `dest`.
pub(super) fn unpack(archive: &Path, dest: &Path, user: &User, work: &Work) -> Result<Report, FsError> {
    let failed = |e| FsError::io(format!("error reading '{}'", archive.display()), e);
    let mut file = open(archive)?;
    let size = file.metadata().map_err(failed)?.len();
    let start = start(&mut file).map_err(failed)?;
    let job = Job { size, dest, user, work };
    let unknown = |what: &str| {
        let text = format!("'{}' is {what}, not a zip, tar or tar.gz file", archive.display());
        Err(FsError::invalid(text))
    };
    let (place, left_out) = if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        unzip::unzip(file, &job)
    } else if start.starts_with(&[0x1f, 0x8b]) {
        let inside = read_start(&mut MultiGzDecoder::new(&file)).unwrap_or_default();
        if !is_tar(&inside) {
            return unknown("gzip data, but not of a tar file");
        }
        untar::untar(&file, true, &job)
    } else if is_tar(&start) {
        untar::untar(&file, false, &job)
    } else {
        return unknown("something else");
    }?;
    Ok(Report {
        path: dest.to_string_lossy().into_owned(),
        size,
        entries: place.entries,
        bytes: place.bytes,
        left_out,
        ..Report::default()
    })
}

/// What was made, and the links that were not because they lead out of the folder.
pub(super) type Unpacked = (Place, Listed);

/// Says how far it had come before it failed.
pub(super) fn after(place: &Place, error: &FsError) -> FsError {
    let text = format!("{}; {} entries had been written before", error.text(), place.entries);
    FsError::new(error.kind, text)
}

fn open(path: &Path) -> Result<File, FsError> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            FsError::new(Kind::NotFound, format!("path '{}' does not exist", path.display()))
        }
        _ => FsError::io(format!("error opening file '{}'", path.display()), e),
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        Ok(file)
    } else {
        Err(FsError::invalid(format!(
            "path '{}' is not a regular file",
            path.display()
        )))
    }
}

fn start(file: &mut File) -> std::io::Result<Vec<u8>> {
    let start = read_start(file)?;
    file.rewind()?;
    Ok(start)
}

fn read_start(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    from.take(START).read_to_end(&mut start)?;
    Ok(start)
}

/// By the magic, or by the checksum of a header that is older than it. An archive of nothing is zeros.
fn is_tar(start: &[u8]) -> bool {
    let (at, magic) = TAR_MAGIC;
    if start.len() as u64 != START {
        return false;
    }
    let header = tar::Header::from_byte_slice(start);
    let sum: u32 = start[..148]
        .iter()
        .chain(&start[156..])
        .map(|b| u32::from(*b))
        .sum::<u32>()
        + 8 * 32;
    start[at..].starts_with(magic) || header.cksum().is_ok_and(|said| said == sum) || start.iter().all(|b| *b == 0)
}
