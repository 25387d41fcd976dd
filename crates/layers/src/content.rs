//! The bytes of files.

use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::limits::CHUNK;

/// Writes all of it at `offset`.
pub(crate) fn write_at(file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads at `offset` as much as there is and fits.
pub(crate) fn read_at(file: BorrowedFd<'_>, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    loop {
        match rustix::io::pread(file, &mut *bytes, offset) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Copies `size` bytes; holes stay holes. Says how many bytes were not holes. More than `most` of those is
/// [`Errno::FBIG`].
pub(crate) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    most: u64,
    buffer: &mut [u8],
) -> Result<u64, Errno> {
    let mut copied = 0u64;
    let mut at = 0;
    // Most files are small: their holes are not worth three more calls.
    let small = size <= CHUNK as u64;
    while at < size {
        let (begin, end) = if small { (0, size) } else { piece(from, at, size)? };
        copied = copied.saturating_add(end - begin);
        if copied > most {
            return Err(Errno::FBIG);
        }
        range(from, to, begin, end, buffer)?;
        at = end.max(at + 1);
    }
    rustix::fs::ftruncate(to, size)?;
    Ok(copied)
}

/// The next piece of a file from `at` on that is not a hole; an empty one at its end if there is none.
fn piece(file: BorrowedFd<'_>, at: u64, size: u64) -> Result<(u64, u64), Errno> {
    let begin = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(begin) => begin.min(size),
        Err(Errno::NXIO) => return Ok((size, size)),
        // Not every file system knows its holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, size)),
        Err(error) => return Err(error),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(begin)).map_or(size, |end| end.min(size));
    Ok((begin, end.max(begin)))
}

fn range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, begin: u64, end: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let mut at = begin;
    let large = end - begin > CHUNK as u64;
    while large && at < end {
        let (mut read, mut written) = (at, at);
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), length) {
            Ok(0) => break,
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            // Between these two file systems, or at all, the kernel cannot; whatever else it is, writing tells.
            Err(_) => break,
        }
    }
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        match read_at(from, &mut buffer[..length], at)? {
            // It became shorter: what is missing reads as zeros.
            0 => return Ok(()),
            read => {
                write_at(to, &buffer[..read], at)?;
                at += read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn holes_stay_holes_and_bytes_are_the_same() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let size = (100 << 20) + 5;
        from.set_len(size).unwrap();
        for at in [1u64 << 20, 50 << 20, (100 << 20) - 3] {
            write_at(
                from.as_fd(),
                &[7; 300_000][..8.max(((size - at).min(300_000)) as usize)],
                at,
            )
            .unwrap();
        }
        let mut buffer = vec![0; CHUNK];
        let copied = copy(from.as_fd(), to.as_fd(), size, u64::MAX, &mut buffer).unwrap();
        assert!((600_000..5 << 20).contains(&copied), "{copied}");
        assert_eq!(to.metadata().unwrap().len(), size);
        assert!(std::os::unix::fs::MetadataExt::blocks(&to.metadata().unwrap()) * 512 < 5 << 20);
        let mut other = vec![0; CHUNK];
        let mut at = 0;
        while at < size {
            let read = read_at(from.as_fd(), &mut buffer, at).unwrap();
            assert_eq!(read_at(to.as_fd(), &mut other[..read], at).unwrap(), read);
            assert!(buffer[..read] == other[..read], "at {at}");
            at += read as u64;
        }
        let refused = copy(from.as_fd(), to.as_fd(), size, 500_000, &mut buffer);
        assert_eq!(refused, Err(Errno::FBIG));
    }
}
