//! A place in a tree of any depth, held by few descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;

/// How a folder of a stranger's tree is opened: it itself, never what a link leads to.
pub(crate) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the folder `name`.
pub(crate) fn open_folder(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, FOLDER, Mode::empty())
}

/// A folder and the way back up to where the walk began. Only the nearest few folders of the way are open: those further up
/// are opened again through `..`, and are known by their numbers, so that a tree that somebody moves is noticed.
#[derive(Debug)]
pub(crate) struct Trail {
    here: OwnedFd,
    above: Vec<Above>,
    open: usize,
}

#[derive(Debug)]
enum Above {
    Open(OwnedFd),
    Closed { device: u64, number: u64 },
}

impl Trail {
    /// Begins at `top`, with at most `open` folders of the way open.
    pub(crate) fn new(top: BorrowedFd<'_>, open: usize) -> Result<Self, Errno> {
        Ok(Self {
            here: open_folder(top, b".")?,
            above: Vec::new(),
            open,
        })
    }

    /// The folder that the walk is in.
    pub(crate) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// How many folders it is below its beginning.
    pub(crate) fn depth(&self) -> usize {
        self.above.len()
    }

    /// Goes into the folder `name`.
    pub(crate) fn enter(&mut self, name: &[u8]) -> Result<(), Errno> {
        let below = open_folder(&self.here, name)?;
        self.above.push(Above::Open(std::mem::replace(&mut self.here, below)));
        if let Some(far) = self.above.len().checked_sub(self.open + 1)
            && let Above::Open(folder) = &self.above[far]
        {
            let stat = rustix::fs::fstat(folder)?;
            self.above[far] = Above::Closed {
                device: stat.st_dev,
                number: stat.st_ino,
            };
        }
        Ok(())
    }

    /// Goes back up; not further than where it began.
    pub(crate) fn leave(&mut self) -> Result<(), Errno> {
        self.here = match self.above.pop() {
            None => return Ok(()),
            Some(Above::Open(folder)) => folder,
            Some(Above::Closed { device, number }) => {
                let folder = open_folder(&self.here, b"..")?;
                let stat = rustix::fs::fstat(&folder)?;
                if (stat.st_dev, stat.st_ino) != (device, number) {
                    return Err(Errno::STALE);
                }
                folder
            }
        };
        Ok(())
    }
}

/// The names in a folder, at most `most`: more is [`Errno::OVERFLOW`].
pub(crate) fn names(folder: BorrowedFd<'_>, most: u64) -> Result<Vec<Box<[u8]>>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            if found.len() as u64 >= most {
                return Err(Errno::OVERFLOW);
            }
            found.push(name.into());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_down_and_up_needs_few_descriptors_and_notices_a_move() {
        let place = tempfile::tempdir().unwrap();
        let top = rustix::fs::open(place.path(), FOLDER, Mode::empty()).unwrap();
        let mut trail = Trail::new(top.as_fd(), 2).unwrap();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for _ in 0..3000 {
            rustix::fs::mkdirat(trail.here(), "d", Mode::RWXU).unwrap();
            trail.enter(b"d").unwrap();
        }
        assert!(open() < before + 100, "{} descriptors", open());
        for depth in (0..3000).rev() {
            trail.leave().unwrap();
            assert_eq!(trail.depth(), depth);
        }
        assert_eq!(names(trail.here(), 9).unwrap(), [Box::from(&b"d"[..])]);
        assert_eq!(names(trail.here(), 0), Err(Errno::OVERFLOW));
        for _ in 0..8 {
            trail.enter(b"d").unwrap();
        }
        std::fs::rename(place.path().join("d/d/d/d"), place.path().join("moved")).unwrap();
        let end = (0..8).find_map(|_| trail.leave().err());
        assert_eq!(end, Some(Errno::STALE));
        crate::remove(top.as_fd(), b"d").unwrap();
        crate::remove(top.as_fd(), b"moved").unwrap();
    }

    #[test]
    fn a_link_is_not_a_folder() {
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", place.path().join("link")).unwrap();
        let top = rustix::fs::open(place.path(), FOLDER, Mode::empty()).unwrap();
        let mut trail = Trail::new(top.as_fd(), 2).unwrap();
        assert!(trail.enter(b"link").is_err());
        assert_eq!(trail.depth(), 0);
    }
}
