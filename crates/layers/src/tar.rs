//! Reading tar archives: what stands before each file, within bounds. It knows nothing of paths.
//!
//! Read are ustar, PAX, and GNU's long names, large numbers and sparse files, as POSIX.1-2001 and GNU tar's manual have them.

mod pax;
mod sparse;

use std::io::Read;

use rustix::fs::Timespec;

use crate::attributes::Attributes;
use crate::error::Error;
use crate::limits::{EXTENSION, NOBODY};
use pax::Pax;
pub(crate) use sparse::Piece;

const BLOCK: u64 = 512;

/// Records that may stand before one entry.
const IN_A_ROW: usize = 16;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    SymbolicLink,
    Folder,
    Pipe,
    Device,
}

/// What stands before a file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// As it is in the archive.
    pub(crate) path: Vec<u8>,
    /// Where a link leads, as it is in the archive.
    pub(crate) link: Vec<u8>,
    pub(crate) attributes: Attributes,
    /// Bytes of the file, holes included.
    pub(crate) size: u64,
    /// What of a sparse file follows; else all of it.
    pub(crate) pieces: Option<Vec<Piece>>,
}

/// An archive that is read from its beginning.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    from: R,
    /// Bytes of the entry that were not read yet.
    data: u64,
    padding: u64,
    attributes: usize,
}

type Block = [u8; BLOCK as usize];

impl<R: Read> Reader<R> {
    /// Reads from `from`; extended attributes of a file may have so many bytes.
    pub(crate) fn new(from: R, attributes: usize) -> Self {
        Self {
            from,
            data: 0,
            padding: 0,
            attributes,
        }
    }

    /// The next entry; what is left of the one before is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let (mut pax, mut long_path, mut long_link) = (Pax::default(), None, None);
        for _ in 0..IN_A_ROW {
            self.pass_over()?;
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let size = number(&block[124..136])?;
            let size = u64::try_from(size).map_err(|_| Error::Damaged("a file has less than no bytes"))?;
            match block[156] {
                b'x' => pax = Pax::parse(&self.extension(size)?, self.attributes)?,
                // What holds for all files that follow: comments, as `git archive` writes them.
                b'g' => drop(self.extension(size)?),
                b'L' => long_path = Some(until_zero(&self.extension(size)?).to_vec()),
                b'K' => long_link = Some(until_zero(&self.extension(size)?).to_vec()),
                _ => return self.entry(&block, size, pax, long_path, long_link).map(Some),
            }
        }
        Err(Error::Damaged("too many records stand before one file"))
    }

    fn entry(
        &mut self,
        block: &Block,
        size: u64,
        mut pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Error> {
        let path = pax.take_path().or(long_path).unwrap_or_else(|| name(block));
        let link = pax
            .link
            .take()
            .or(long_link)
            .unwrap_or_else(|| until_zero(&block[157..257]).to_vec());
        let kind = match block[156] {
            // Before ustar a folder was a file whose name ends so.
            b'0' | 0 if path.ends_with(b"/") => Kind::Folder,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Folder,
            b'6' => Kind::Pipe,
            _ => return Err(Error::refused(&path, "it is of a kind that no layer has")),
        };
        let id = |inside: Option<u32>, field: &[u8]| match inside {
            Some(id) => Ok(id),
            None => number(field).map(|id| u32::try_from(id).unwrap_or(NOBODY)),
        };
        let attributes = Attributes {
            mode: (number(&block[100..108])? & 0o7777) as u32,
            uid: id(pax.uid, &block[108..116])?,
            gid: id(pax.gid, &block[116..124])?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => Timespec {
                    tv_sec: number(&block[136..148])? as _,
                    tv_nsec: 0,
                },
            },
            xattrs: std::mem::take(&mut pax.xattrs),
        };
        // Other kinds have no content, whatever their size says (a hard link may say that of its file).
        self.data = match kind {
            Kind::File => pax.size.unwrap_or(size),
            _ => 0,
        };
        self.padding = padding(self.data)?;
        let mut entry = Entry {
            kind,
            path,
            link,
            attributes,
            size: self.data,
            pieces: None,
        };
        if kind == Kind::File {
            let sparse = match block[156] {
                b'S' => Some(self.gnu_sparse(block)?),
                _ => self.pax_sparse(&pax)?,
            };
            if let Some((size, pieces)) = sparse {
                sparse::check(&pieces, size, self.data)?;
                entry.size = size;
                entry.pieces = Some(pieces);
            }
        }
        Ok(entry)
    }

    /// Reads of the entry's content; nothing at its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let length = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        self.fill(&mut buffer[..length])?;
        self.data -= length as u64;
        Ok(length)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.from.read_exact(buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Damaged("it ends within a file"),
            _ => Error::Read(error),
        })
    }

    /// A block of 512 bytes, which is no part of the entry's content.
    fn block(&mut self) -> Result<Block, Error> {
        let mut block = [0; BLOCK as usize];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn pass_over(&mut self) -> Result<(), Error> {
        let left = self.data + self.padding;
        let passed = std::io::copy(&mut (&mut self.from).take(left), &mut std::io::sink()).map_err(Error::Read)?;
        (self.data, self.padding) = (0, 0);
        if passed < left {
            return Err(Error::Damaged("it ends within a file"));
        }
        Ok(())
    }

    /// The next header; none at the end, which a block of zeros is or just nothing.
    fn header(&mut self) -> Result<Option<Block>, Error> {
        let mut block: Block = [0; BLOCK as usize];
        let mut read = 0;
        while read < block.len() {
            match self.from.read(&mut block[read..]) {
                Ok(0) if read == 0 => return Ok(None),
                Ok(0) => return Err(Error::Damaged("it ends within a header")),
                Ok(more) => read += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |value: fn(u8) -> i64| {
            let fields = block.iter().enumerate();
            fields
                .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { value(*byte) })
                .sum::<i64>()
        };
        let said = number(&block[148..156])?;
        // Some old programs added up signed bytes.
        if said != sum(i64::from) && said != sum(|byte| i64::from(byte as i8)) {
            return Err(Error::Damaged("the checksum of a header is wrong, or it is not a tar"));
        }
        Ok(Some(block))
    }

    /// What stands before an entry.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > EXTENSION {
            return Err(Error::Damaged("what stands before a file is larger than 1 MiB"));
        }
        self.data = size;
        self.padding = padding(size)?;
        let mut read = vec![0; size as usize];
        self.fill(&mut read)?;
        self.data = 0;
        Ok(read)
    }
}

fn padding(size: u64) -> Result<u64, Error> {
    // So that adding the two never overflows.
    if size > i64::MAX as u64 {
        return Err(Error::Damaged("a file is too large"));
    }
    Ok(size.next_multiple_of(BLOCK) - size)
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn name(block: &Block) -> Vec<u8> {
    let name = until_zero(&block[..100]);
    let prefix = until_zero(&block[345..500]);
    // GNU's own headers have other things there.
    if &block[257..263] != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// A number: octal digits, or GNU's large form.
fn number(field: &[u8]) -> Result<i64, Error> {
    if let Some(first @ (0x80 | 0xff)) = field.first() {
        // Two's complement; what is before the last eight bytes must be the sign alone.
        let negative = *first == 0xff;
        let (sign, value) = field[1..].split_at(field.len().saturating_sub(9));
        let fill = if negative { 0xff } else { 0 };
        let start = if negative { -1 } else { 0 };
        let value = value.iter().fold(start, |sum: i64, byte| (sum << 8) | i64::from(*byte));
        if sign.iter().any(|byte| *byte != fill) || (value < 0) != negative {
            return Err(Error::Damaged("a number is too large"));
        }
        return Ok(value);
    }
    let is_digit = |byte: &u8| !matches!(byte, b' ' | 0);
    let Some(begin) = field.iter().position(is_digit) else {
        return Ok(0);
    };
    let digits = field[begin..].split(|byte| !is_digit(byte)).next().unwrap_or_default();
    digits.iter().try_fold(0i64, |sum, byte| match byte {
        b'0'..=b'7' => Ok((sum << 3) | i64::from(byte - b'0')),
        _ => Err(Error::Damaged("a number in a header is none")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_large() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"77777777777\0").unwrap(), 0o77_777_777_777);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x01\0\0\0\0").unwrap(), 1 << 32);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0").unwrap(), 256);
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe").unwrap(), -2);
        for bad in [
            &b"0000648\0"[..],
            b"-000644\0",
            b"\x80\x01\0\0\0\0\0\0\0\0\0\0",
            b"\x80\0\0\0\xff\0\0\0\0\0\0\0",
        ] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        let read = |bytes: &[u8]| {
            Reader::new(bytes, 100)
                .next()
                .map(|entry| entry.map(|entry| entry.path))
        };
        assert_eq!(read(b"").unwrap(), None);
        assert_eq!(read(&[0; 1024]).unwrap(), None);
        for bad in [&[1; 512][..], &[0; 100], b"\x1f\x8b\x08"] {
            assert!(read(bad).unwrap_err().is_refusal(), "{bad:?}");
        }
    }
}
