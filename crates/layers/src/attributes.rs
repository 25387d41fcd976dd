//! What a file is besides what it holds: mode, owner, times, extended attributes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{At, Error};
use crate::limits::{LAST_ID, NOBODY, XATTRS};
use crate::owners::Owners;

/// The mark of a folder below which nothing of lower layers shows.
pub(crate) const OPAQUE: &[u8] = b"user.overlay.opaque";
/// Overlayfs' own attributes.
const OVERLAY: &[u8] = b"user.overlay.";
/// What a sandbox set as `user.overlay.…` itself, as overlayfs stores it.
const ESCAPED: &[u8] = b"user.overlay.overlay.";

/// An extended attribute: its name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// The attributes of one file, with the ids inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timespec,
    /// Sorted by name.
    pub(crate) xattrs: Vec<Xattr>,
}

impl Default for Attributes {
    /// Those of a folder that nothing is known about.
    fn default() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timespec { tv_sec: 0, tv_nsec: 0 },
            xattrs: Vec::new(),
        }
    }
}

/// What `stat` says it is.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether it hides what is below.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// When it was last written.
pub(crate) fn mtime(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime as _,
        tv_nsec: stat.st_mtime_nsec as _,
    }
}

/// Whether a folder hides what is below it.
pub(crate) fn is_opaque(folder: impl AsFd) -> Result<bool, Errno> {
    let mut value = [0u8; 2];
    match rustix::fs::fgetxattr(folder, OPAQUE, &mut value) {
        Ok(1) => Ok(value[0] == b'y'),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks a folder as one that hides what is below it.
pub(crate) fn make_opaque(folder: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())
}

/// Whether a layer holds this attribute of a file.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") && (!name.starts_with(OVERLAY) || name.starts_with(ESCAPED))
}

/// The mode that a layer holds. No file on the host's disk may let who runs it be somebody else: a stranger wrote it.
pub(crate) fn tame(kind: FileType, mode: u32) -> u32 {
    match kind {
        FileType::Directory => mode & 0o7777,
        _ => mode & 0o1777,
    }
}

impl Attributes {
    /// Those of a file whose kind has no extended ones.
    pub(crate) fn of(stat: &Stat, owners: Owners) -> Self {
        let (uid, gid) = owners.inside(stat.st_uid, stat.st_gid);
        Self {
            mode: tame(kind(stat), stat.st_mode & 0o7777),
            uid: known(uid),
            gid: known(gid),
            mtime: mtime(stat),
            xattrs: Vec::new(),
        }
    }

    /// Those of an open file or folder.
    pub(crate) fn of_open(file: impl AsFd, stat: &Stat, owners: Owners) -> Result<Self, Errno> {
        let mut found = Self::of(stat, owners);
        found.xattrs = xattrs(file.as_fd())?;
        Ok(found)
    }

    /// Bytes of the extended ones.
    pub(crate) fn size(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Gives them to an open file or folder, which has no extended ones yet.
    pub(crate) fn give(&self, file: impl AsFd, owners: Owners, path: &[u8]) -> Result<(), Error> {
        let file = file.as_fd();
        if let Some((uid, gid)) = owners.disk(self.uid, self.gid) {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .at("set the owner of", path)?;
        }
        // After the owner: a change of that takes bits of the mode away.
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode)).at("set the mode of", path)?;
        for (name, value) in &self.xattrs {
            rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())
                .at("set an extended attribute of", path)?;
        }
        set_mtime(file, self.mtime).at("set the time of", path)
    }

    /// Gives them to a link or pipe that was just made.
    pub(crate) fn give_at(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        owners: Owners,
        path: &[u8],
    ) -> Result<(), Error> {
        if let Some((uid, gid)) = owners.disk(self.uid, self.gid) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .at("set the owner of", path)?;
        }
        if kind != FileType::Symlink {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(self.mode), AtFlags::empty())
                .at("set the mode of", path)?;
        }
        rustix::fs::utimensat(parent, name, &times(self.mtime), AtFlags::SYMLINK_NOFOLLOW).at("set the time of", path)
    }
}

/// An id as a layer has it.
pub(crate) fn known(id: u32) -> u32 {
    if id > LAST_ID { NOBODY } else { id }
}

fn times(mtime: Timespec) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: mtime,
    }
}

/// Sets when a file or folder was last written.
pub(crate) fn set_mtime(file: impl AsFd, mtime: Timespec) -> Result<(), Errno> {
    rustix::fs::futimens(file, &times(mtime))
}

/// Takes the attributes away that a layer holds.
pub(crate) fn clear_xattrs(file: BorrowedFd<'_>) -> Result<(), Errno> {
    for name in xattr_names(file)? {
        rustix::fs::fremovexattr(file, name.as_slice())?;
    }
    Ok(())
}

fn xattr_names(file: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    // Most files have none; the kernel's own limit is the largest that is tried.
    let mut small = [0u8; 512];
    let mut large = Vec::new();
    let list = match rustix::fs::flistxattr(file, &mut small) {
        Ok(length) => &small[..length],
        Err(Errno::RANGE) => {
            large.resize(XATTRS, 0);
            let length = rustix::fs::flistxattr(file, large.as_mut_slice())?;
            &large[..length]
        }
        Err(Errno::OPNOTSUPP) => &[],
        Err(error) => return Err(error),
    };
    let mut names: Vec<_> = list
        .split(|byte| *byte == 0)
        .filter(|name| is_kept(name))
        .map(<[u8]>::to_vec)
        .collect();
    names.sort_unstable();
    Ok(names)
}

fn xattrs(file: BorrowedFd<'_>) -> Result<Vec<Xattr>, Errno> {
    let names = xattr_names(file)?;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let mut value = vec![0; rustix::fs::fgetxattr_query(file, name.as_slice())?];
        let length = rustix::fs::fgetxattr(file, name.as_slice(), value.as_mut_slice())?;
        value.truncate(length);
        found.push((name, value));
    }
    Ok(found)
}
