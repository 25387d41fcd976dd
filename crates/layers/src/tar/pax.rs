//! PAX records: `LENGTH KEY=VALUE` and a line break, where the length counts all of it.

use rustix::fs::Timespec;

use super::sparse::Piece;
use crate::attributes::is_kept;
use crate::error::Error;
use crate::limits::{NOBODY, PIECES};

/// What the records before an entry say.
#[derive(Debug, Default)]
pub(super) struct Pax {
    path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timespec>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// GNU's records of a sparse file, in its three versions.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    name: Option<Vec<u8>>,
    /// The version, where it is said: 1.0.
    pub(super) major: Option<u64>,
    /// Bytes of the file, holes included.
    pub(super) size: Option<u64>,
    /// Its pieces in versions 0.0 and 0.1.
    pub(super) pieces: Option<Vec<Piece>>,
    offset: Option<u64>,
}

const BAD: Error = Error::Damaged("a PAX record is none");

impl Pax {
    pub(super) fn parse(mut text: &[u8], attributes: usize) -> Result<Self, Error> {
        let mut pax = Self::default();
        while !text.is_empty() {
            let space = text.iter().take(20).position(|byte| *byte == b' ').ok_or(BAD)?;
            let length = usize::try_from(decimal(&text[..space])?).map_err(|_| BAD)?;
            let record = text.get(space + 1..length).ok_or(BAD)?;
            let record = record.strip_suffix(b"\n").ok_or(BAD)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
            pax.take(&record[..equals], &record[equals + 1..])?;
            text = &text[length..];
        }
        pax.xattrs.sort_unstable();
        // Of records of one name the last holds; they are of one value mostly.
        pax.xattrs.dedup_by(|b, a| a.0 == b.0);
        if pax
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
            > attributes
        {
            let path = pax.path.unwrap_or_default();
            return Err(Error::too_much(
                "bytes of extended attributes",
                attributes as u64,
                &path,
            ));
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        // Nothing says: as if it were not there.
        let text = (!value.is_empty()).then(|| value.to_vec());
        let number = || (!value.is_empty()).then(|| decimal(value)).transpose();
        let id = || Ok::<_, Error>(number()?.map(|id| u32::try_from(id).unwrap_or(NOBODY)));
        match key {
            b"path" => self.path = text,
            b"linkpath" => self.link = text,
            b"size" => self.size = number()?,
            b"uid" => self.uid = id()?,
            b"gid" => self.gid = id()?,
            b"mtime" => self.mtime = (!value.is_empty()).then(|| time(value)).transpose()?,
            b"GNU.sparse.name" => self.sparse.name = text,
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.size = number()?,
            b"GNU.sparse.offset" => self.sparse.offset = number()?,
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or(BAD)?;
                let length = decimal(value)?;
                self.sparse
                    .pieces
                    .get_or_insert_default()
                    .push(Piece { offset, length });
            }
            b"GNU.sparse.map" => {
                let numbers = value
                    .split(|byte| *byte == b',')
                    .map(decimal)
                    .collect::<Result<Vec<_>, _>>()?;
                let (pairs, rest) = numbers.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(BAD);
                }
                let pieces = pairs.iter().map(|[offset, length]| Piece {
                    offset: *offset,
                    length: *length,
                });
                self.sparse.pieces = Some(pieces.collect());
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|name| is_kept(name)) {
                    self.xattrs.retain(|(known, _)| known != name);
                    if self.xattrs.len() >= XATTRS_OF_A_FILE {
                        return Err(Error::Damaged("a file has too many extended attributes"));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        if self.sparse.pieces.as_ref().is_some_and(|pieces| pieces.len() > PIECES) {
            return Err(Error::Damaged("a sparse file has too many pieces"));
        }
        Ok(())
    }

    /// The path; that of a sparse file is a record of its own.
    pub(super) fn take_path(&mut self) -> Option<Vec<u8>> {
        self.sparse.name.take().or(self.path.take())
    }
}

/// Extended attributes that one file may have.
const XATTRS_OF_A_FILE: usize = 1000;

/// A number without a sign.
pub(super) fn decimal(text: &[u8]) -> Result<u64, Error> {
    if text.is_empty() || text.len() > 20 {
        return Err(BAD);
    }
    text.iter().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'9' => sum
            .checked_mul(10)
            .and_then(|sum| sum.checked_add(u64::from(byte - b'0')))
            .ok_or(BAD),
        _ => Err(BAD),
    })
}

/// Seconds with a fraction.
fn time(text: &[u8]) -> Result<Timespec, Error> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next().unwrap_or_default())?).map_err(|_| BAD)?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let nanos = (0..9).fold(0i64, |sum, at| {
        sum * 10 + fraction.get(at).map_or(0, |byte| i64::from(byte - b'0'))
    });
    let (seconds, nanos) = match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    };
    Ok(Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_any_bytes() {
        let pax = Pax::parse(
            b"12 path=a\nb\n30 mtime=1700000000.123456789\n29 SCHILY.xattr.user.x=a=b\n\xff\n",
            100,
        );
        let pax = match pax {
            Ok(pax) => pax,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"a=b\n\xff".to_vec())]);
        let time = pax.mtime.unwrap();
        assert_eq!((time.tv_sec, time.tv_nsec), (1_700_000_000, 123_456_789));
        for bad in [
            &b"5 a=b"[..],
            b"7 path\n",
            b"99 path=a\n",
            b"x",
            b"1 path=a\n",
            b"0 \n",
            b"10 size=1x\n",
        ] {
            assert!(Pax::parse(bad, 100).is_err(), "{bad:?}");
        }
        assert!(Pax::parse(b"29 SCHILY.xattr.user.x=a=b\n\xff\n", 5).is_err());
    }

    #[test]
    fn times_before_1970_are_read() {
        let read = |text: &[u8]| time(text).map(|time| (time.tv_sec, time.tv_nsec)).unwrap();
        assert_eq!(read(b"-1.5"), (-2, 500_000_000));
        assert_eq!(read(b"-3"), (-3, 0));
        assert_eq!(read(b"7.0000000019"), (7, 1));
    }
}
