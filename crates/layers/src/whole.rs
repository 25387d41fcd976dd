//! Questions about whole trees.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType};

use crate::attributes::kind;
use crate::error::{At, Error};
use crate::trail::{Trail, names};

/// How much a tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the files, holes included; a file with several names once.
    pub bytes: u64,
    /// Bytes that it takes on the disk.
    pub disk: u64,
    /// Everything with a name, without the folder itself.
    pub files: u64,
}

/// Open folders on the way to where a walk of one tree is.
pub(crate) const OPEN: usize = 32;

/// Adds up what is below `folder`.
///
/// # Errors
/// It cannot be read.
pub fn measure(folder: BorrowedFd<'_>) -> Result<Size, Error> {
    let mut size = Size::default();
    let mut several = HashSet::new();
    let mut trail = Trail::new(folder, OPEN).at("open", b"")?;
    let mut waiting = vec![names(trail.here(), u64::MAX).at("list", b"")?];
    while let Some(level) = waiting.last_mut() {
        let Some(name) = level.pop() else {
            waiting.pop();
            trail.leave().at("leave", b"")?;
            continue;
        };
        let stat = rustix::fs::statat(trail.here(), &*name, AtFlags::SYMLINK_NOFOLLOW).at("look at", &name)?;
        size.files += 1;
        if stat.st_nlink > 1 && kind(&stat) != FileType::Directory && !several.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        size.disk = size.disk.saturating_add((stat.st_blocks as u64).saturating_mul(512));
        match kind(&stat) {
            FileType::RegularFile => size.bytes = size.bytes.saturating_add(stat.st_size as u64),
            FileType::Directory => {
                trail.enter(&name).at("open", &name)?;
                waiting.push(names(trail.here(), u64::MAX).at("list", &name)?);
            }
            _ => {}
        }
    }
    Ok(size)
}

/// Makes all that was written to the file system of `folder` durable, the names of the folder itself and of those above it
/// included: when this returns it outlives a loss of power.
///
/// # Errors
/// The disk failed.
pub fn sync(folder: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::fs::syncfs(folder).at("write to the disk", b"")
}
