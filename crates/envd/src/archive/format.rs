//! The blocks of a tar stream: PAX records for what the old header has no room for, read and written with `tar`'s headers.

use std::io::{Read, Write};

use tar::{EntryType, Header};

use super::ArchiveError;
use crate::limits::{ARCHIVE_RECORDS, ARCHIVE_SEGMENTS};

pub(super) const BLOCK: usize = 512;
/// Bytes of a name that fit into the header.
const SHORT_NAME: usize = 100;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    File,
    Symlink,
    /// Another name of a file that came before.
    Hard,
    Fifo,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Without a leading slash; empty for the root itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Of a link.
    pub(super) target: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, u32),
    /// The file's size.
    pub(super) size: u64,
    /// Where its content is, as offset and length, if there are holes worth telling.
    pub(super) segments: Option<Vec<(u64, u64)>>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Writes everything of an entry but its content.
pub(super) fn write_head(out: &mut impl Write, entry: &Entry) -> Result<(), ArchiveError> {
    let mut path = entry.path.clone();
    if entry.kind == Kind::Dir {
        path = if path.is_empty() {
            b"./".to_vec()
        } else {
            [&path[..], b"/"].concat()
        };
    }
    let mut records = Vec::new();
    let map = entry.segments.as_ref().map(|segments| sparse_map(segments));
    let stored = match (&map, &entry.segments) {
        (Some(map), Some(segments)) => map.len() as u64 + segments.iter().map(|(_, len)| len).sum::<u64>(),
        _ => entry.size,
    };
    if map.is_some() {
        record(&mut records, b"GNU.sparse.major", b"1");
        record(&mut records, b"GNU.sparse.minor", b"0");
        record(&mut records, b"GNU.sparse.name", &path);
        record(&mut records, b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
    }
    record(&mut records, b"mtime", time_text(entry.mtime).as_bytes());
    if path.len() > SHORT_NAME {
        record(&mut records, b"path", &path);
    }
    if entry.target.len() > SHORT_NAME {
        record(&mut records, b"linkpath", &entry.target);
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &[XATTR, name].concat(), value);
    }
    let mut extension = Header::new_ustar();
    extension.set_entry_type(EntryType::XHeader);
    extension.set_size(records.len() as u64);
    extension.set_mode(0o600);
    write_header(out, extension, b"PaxHeader", b"")?;
    put(out, &records)?;
    pad(out, records.len() as u64)?;

    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        Kind::Dir => EntryType::Directory,
        Kind::File => EntryType::Regular,
        Kind::Symlink => EntryType::Symlink,
        Kind::Hard => EntryType::Link,
        Kind::Fifo => EntryType::Fifo,
    });
    header.set_size(if entry.kind == Kind::File { stored } else { 0 });
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(entry.mtime.0.try_into().unwrap_or(0));
    write_header(out, header, &path, &entry.target)?;
    if let Some(map) = map {
        put(out, &map)?;
    }
    Ok(())
}

fn write_header(out: &mut impl Write, mut header: Header, path: &[u8], target: &[u8]) -> Result<(), ArchiveError> {
    let old = header.as_old_mut();
    for (field, text) in [(&mut old.name, path), (&mut old.linkname, target)] {
        let len = text.len().min(SHORT_NAME);
        field[..len].copy_from_slice(&text[..len]);
    }
    header.set_cksum();
    put(out, header.as_bytes())
}

pub(super) fn put(out: &mut impl Write, bytes: &[u8]) -> Result<(), ArchiveError> {
    out.write_all(bytes).map_err(ArchiveError::Stream)
}

/// Fills the last block of `len` bytes.
pub(super) fn pad(out: &mut impl Write, len: u64) -> Result<(), ArchiveError> {
    put(out, &[0; BLOCK][..padding(len)])
}

fn padding(len: u64) -> usize {
    (BLOCK - (len % BLOCK as u64) as usize) % BLOCK
}

/// `LENGTH NAME=VALUE\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend(len.to_string().as_bytes());
    out.push(b' ');
    out.extend(name);
    out.push(b'=');
    out.extend(value);
    out.push(b'\n');
}

fn sparse_map(segments: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", segments.len()).into_bytes();
    for (offset, len) in segments {
        map.extend(format!("{offset}\n{len}\n").into_bytes());
    }
    map.resize(map.len() + padding(map.len() as u64), 0);
    map
}

fn time_text((seconds, nanos): (i64, u32)) -> String {
    if seconds < 0 && nanos > 0 {
        // Nanoseconds count up from the second before; the text counts away from zero.
        format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else {
        format!("{seconds}.{nanos:09}")
    }
}

fn time_of(text: &str) -> Option<(i64, u32)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{part:0<9}").get(..9)?.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos))
    } else {
        Some((seconds, nanos))
    }
}

pub(super) fn invalid(what: impl Into<String>) -> ArchiveError {
    ArchiveError::Invalid(what.into())
}

/// Reads the next entry up to its content; none at the end of the archive.
pub(super) fn read_head(input: &mut impl Read) -> Result<Option<Entry>, ArchiveError> {
    let mut records = Records::default();
    loop {
        let mut block = [0; BLOCK];
        read(input, &mut block)?;
        if block == [0; BLOCK] {
            read(input, &mut block)?;
            return if block == [0; BLOCK] && !records.any {
                Ok(None)
            } else {
                Err(invalid("its end is not marked"))
            };
        }
        let header = Header::from_byte_slice(&block);
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>()
            + 8 * 32;
        if number(header.cksum())? != sum {
            return Err(invalid("the checksum of a header is wrong"));
        }
        let size = number(header.entry_size())?;
        let kind = match header.entry_type() {
            EntryType::XHeader => {
                records = Records::read(input, size)?;
                continue;
            }
            EntryType::Directory => Kind::Dir,
            EntryType::Regular => Kind::File,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hard,
            EntryType::Fifo => Kind::Fifo,
            other => {
                return Err(invalid(format!(
                    "an entry is of kind {:?}",
                    char::from(other.as_byte())
                )));
            }
        };
        if kind != Kind::File && size != 0 {
            return Err(invalid("something that is no file has content"));
        }
        return records.entry(input, header, kind, size).map(Some);
    }
}

fn number<T>(parsed: std::io::Result<T>) -> Result<T, ArchiveError> {
    parsed.map_err(|_| invalid("a header holds a number that is none"))
}

/// Fills `into`; an early end is a broken archive.
pub(super) fn read(input: &mut impl Read, into: &mut [u8]) -> Result<(), ArchiveError> {
    input.read_exact(into).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => invalid("it is cut short"),
        _ => ArchiveError::Stream(error),
    })
}

/// Skips what fills the last block of `len` bytes.
pub(super) fn skip_padding(input: &mut impl Read, len: u64) -> Result<(), ArchiveError> {
    read(input, &mut [0; BLOCK][..padding(len)])
}

#[derive(Default)]
struct Records {
    any: bool,
    list: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    fn read(input: &mut impl Read, size: u64) -> Result<Self, ArchiveError> {
        let len = usize::try_from(size).ok().filter(|len| *len <= ARCHIVE_RECORDS);
        let len = len.ok_or_else(|| invalid("an extended header is too long"))?;
        let mut bytes = vec![0; len];
        read(input, &mut bytes)?;
        skip_padding(input, size)?;
        let mut list = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (one, after) = split_record(rest).ok_or_else(|| invalid("an extended header is malformed"))?;
            list.push(one);
            rest = after;
        }
        Ok(Self { any: true, list })
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.list
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, value)| &value[..])
    }

    fn text(&self, name: &[u8]) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    fn entry(self, input: &mut impl Read, header: &Header, kind: Kind, stored: u64) -> Result<Entry, ArchiveError> {
        let sparse = self.get(b"GNU.sparse.major").is_some();
        let field = |field: &[u8; SHORT_NAME]| field.split(|b| *b == 0).next().unwrap_or_default().to_vec();
        let path = self
            .get(b"GNU.sparse.name")
            .or_else(|| self.get(b"path"))
            .map(<[u8]>::to_vec);
        let mtime = match self.text(b"mtime") {
            Some(text) => time_of(text).ok_or_else(|| invalid("a time is none"))?,
            None => (i64::try_from(number(header.mtime())?).unwrap_or(i64::MAX), 0),
        };
        let id = |id: u64| u32::try_from(id).map_err(|_| invalid("an owner is none"));
        let mut size = stored;
        let mut segments = None;
        if sparse {
            let real = self.text(b"GNU.sparse.realsize").and_then(|text| text.parse().ok());
            size = real.ok_or_else(|| invalid("a sparse file has no size"))?;
            segments = Some(read_map(input, stored, size)?);
        }
        Ok(Entry {
            path: path.unwrap_or_else(|| field(&header.as_old().name)),
            kind,
            target: self
                .get(b"linkpath")
                .map_or_else(|| field(&header.as_old().linkname), <[u8]>::to_vec),
            mode: number(header.mode())? & 0o7777,
            uid: id(number(header.uid())?)?,
            gid: id(number(header.gid())?)?,
            mtime,
            size,
            segments,
            xattrs: self
                .list
                .iter()
                .filter_map(|(name, value)| Some((name.strip_prefix(XATTR)?.to_vec(), value.clone())))
                .collect(),
        })
    }
}

type Split<'a> = ((Vec<u8>, Vec<u8>), &'a [u8]);

fn split_record(bytes: &[u8]) -> Option<Split<'_>> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let one = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = one.iter().position(|b| *b == b'=')?;
    Some(((one[..equals].to_vec(), one[equals + 1..].to_vec()), &bytes[len..]))
}

/// The map of a sparse file, which stands before its content. It must fit `stored` bytes and lie within `size`.
fn read_map(input: &mut impl Read, stored: u64, size: u64) -> Result<Vec<(u64, u64)>, ArchiveError> {
    let wrong = || invalid("the map of a sparse file is malformed");
    let mut taken = 0;
    let mut line = || -> Result<u64, ArchiveError> {
        let mut text = String::new();
        loop {
            let mut byte = [0];
            read(input, &mut byte)?;
            taken += 1;
            match byte[0] {
                b'\n' => return text.parse().map_err(|_| wrong()),
                b'0'..=b'9' if text.len() < 20 => text.push(char::from(byte[0])),
                _ => return Err(wrong()),
            }
        }
    };
    let count = line()?;
    if count > ARCHIVE_SEGMENTS as u64 {
        return Err(wrong());
    }
    let (mut segments, mut end, mut sum) = (Vec::new(), 0_u64, 0_u64);
    for _ in 0..count {
        let (offset, len) = (line()?, line()?);
        let after = offset
            .checked_add(len)
            .filter(|after| *after <= size)
            .ok_or_else(wrong)?;
        if offset < end {
            return Err(wrong());
        }
        end = after;
        sum += len;
        segments.push((offset, len));
    }
    skip_padding(input, taken)?;
    if sum.checked_add(taken + padding(taken) as u64) == Some(stored) {
        Ok(segments)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_more_than_there_is_room_for_is_refused() {
        let archive = |len: u64, stored: u64| {
            let mut records = Vec::new();
            record(&mut records, b"GNU.sparse.major", b"1");
            record(&mut records, b"GNU.sparse.realsize", u64::MAX.to_string().as_bytes());
            let head = |kind, size| {
                let mut out = Vec::new();
                let mut header = Header::new_ustar();
                header.set_entry_type(kind);
                header.set_size(size);
                header.set_mode(0o644);
                header.set_mtime(0);
                header.set_uid(0);
                header.set_gid(0);
                write_header(&mut out, header, b"f", b"").unwrap();
                out
            };
            let mut bytes = head(EntryType::XHeader, records.len() as u64);
            put(&mut bytes, &records).unwrap();
            pad(&mut bytes, records.len() as u64).unwrap();
            bytes.extend(head(EntryType::Regular, stored));
            bytes.extend(sparse_map(&[(0, len)]));
            read_head(&mut &bytes[..])
        };
        assert_eq!(archive(5, 512 + 5).unwrap().unwrap().size, u64::MAX);
        // 512 bytes of the map and this many are 511 where sums wrap around.
        assert!(archive(u64::MAX, 511).is_err());
    }
}
