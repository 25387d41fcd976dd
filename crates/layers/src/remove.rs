//! Removal of trees of any depth.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;

use crate::error::{At, Error};
use crate::limits::NAMES;
use crate::trail::open_folder;

/// Removes `name` in `parent` with all that is in it, whatever it is; that it is not there is no error. No link is followed,
/// however deep the tree is no more than three folders are open, and of a folder's names no more than some thousand are
/// held.
///
/// # Errors
/// The kernel refused it, or somebody puts new files into it.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
    remove_quietly(parent, name).at("remove", name)
}

/// What a folder of a tree that is removed is called when it is brought up.
const BROUGHT: &str = ".sandhold-removed-";

pub(crate) fn remove_quietly(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let top = match open(parent, name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Folders found in folders are brought up to the top, so that none is ever deeper than two.
    let mut brought = 0u64;
    loop {
        let children = some_names(&top)?;
        if children.is_empty() {
            break;
        }
        let mut progress = false;
        for child in &children {
            match rustix::fs::unlinkat(&top, child.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    progress = true;
                    continue;
                }
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
            progress |= remove_child(&top, child, &mut brought)?;
        }
        if !progress {
            return Err(Errno::NOTEMPTY);
        }
    }
    drop(top);
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Empties and removes a folder of `top`; folders in it are brought up. Whether anything went.
fn remove_child(top: &OwnedFd, child: &[u8], brought: &mut u64) -> Result<bool, Errno> {
    let folder = match open(top.as_fd(), child) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut progress = false;
    loop {
        let names = some_names(&folder)?;
        if names.is_empty() {
            break;
        }
        let mut here = false;
        for name in &names {
            match rustix::fs::unlinkat(&folder, name.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    here = true;
                    continue;
                }
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
            // A folder that is moved has a new parent to write, which its mode may forbid.
            drop(open(folder.as_fd(), name)?);
            *brought += 1;
            match rustix::fs::renameat(&folder, name.as_slice(), top, format!("{BROUGHT}{brought}")) {
                Ok(()) => here = true,
                // Taken by chance or on purpose: the next number is tried in the next round.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                Err(error) => return Err(error),
            }
        }
        progress |= here;
        if !here {
            // All numbers that were tried were taken: those have come nearer to their end.
            return Ok(progress || !names.is_empty());
        }
    }
    match rustix::fs::unlinkat(top, child, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY) => Ok(progress),
        Err(error) => Err(error),
    }
}

/// Opens a folder; one that its owner may not read or change is opened up first.
fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory
        && found.st_mode & 0o700 != 0o700
        && !rustix::process::geteuid().is_root()
    {
        // Nobody else is there who could put a link here in between.
        rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    }
    open_folder(parent, name)
}

/// Some of the names in a folder; none if it is empty.
fn some_names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(name.to_vec());
            if found.len() == NAMES {
                break;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::trail::{FOLDER, Trail};

    #[test]
    fn a_tree_of_any_depth_width_and_mode_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let top = rustix::fs::open(place.path(), FOLDER, Mode::empty()).unwrap();
        std::fs::write(place.path().join("stays"), "x").unwrap();
        std::fs::create_dir(place.path().join("a")).unwrap();
        std::fs::create_dir(place.path().join("other")).unwrap();
        std::fs::write(place.path().join("other/file"), "x").unwrap();
        let mut trail = Trail::new(top.as_fd(), 2).unwrap();
        trail.enter(b"a").unwrap();
        for _ in 0..20_000 {
            rustix::fs::mkdirat(trail.here(), "d", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(place.path().join("other"), trail.here(), "link").unwrap();
            trail.enter(b"d").unwrap();
        }
        for number in 0..9000 {
            std::fs::write(place.path().join(format!("a/file-{number}")), "x").unwrap();
        }
        // Names that the removal itself uses.
        for number in 1..200 {
            std::fs::create_dir_all(place.path().join(format!("a/.sandhold-removed-{number}/x/y"))).unwrap();
        }
        std::fs::create_dir(place.path().join("a/closed")).unwrap();
        std::fs::create_dir(place.path().join("a/closed/more")).unwrap();
        std::fs::set_permissions(place.path().join("a/closed/more"), PermissionsExt::from_mode(0o000)).unwrap();
        std::fs::set_permissions(place.path().join("a/closed"), PermissionsExt::from_mode(0o000)).unwrap();
        remove(top.as_fd(), b"a").unwrap();
        assert!(!place.path().join("a").exists());
        assert!(place.path().join("other/file").exists() && place.path().join("stays").exists());
        remove(top.as_fd(), b"stays").unwrap();
        remove(top.as_fd(), b"never there").unwrap();
        assert!(!place.path().join("stays").exists());
    }
}
