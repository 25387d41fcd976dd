//! Hard links of archives.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::Unpacker;
use super::paths::Names;
use crate::attributes::{mtime, set_mtime};
use crate::error::{At, Error};
use crate::file::Source;
use crate::trail::open_folder;

const NOWHERE: &str = "it links to a file that is not there";

impl Unpacker<'_> {
    pub(super) fn hard_link(&mut self, folders: Names, name: &[u8], target: &[u8], path: &[u8]) -> Result<(), Error> {
        let mut target = self.clean(target, path)?;
        let Some(target_name) = target.pop() else {
            return Err(Error::refused(path, "it links to a folder"));
        };
        let target = self
            .resolve(&target, path)?
            .ok_or_else(|| Error::refused(path, NOWHERE))?;
        let target_folder = self.target(&target, &target_name, path)?;
        self.parent(folders, path)?;
        let link = |parent: &super::Parent| {
            let flags = AtFlags::empty();
            rustix::fs::linkat(&target_folder, &*target_name, &parent.folder, name, flags)
        };
        match link(self.parent_here(path)?) {
            Err(Errno::EXIST) => {}
            made => {
                self.done.files += 1;
                return made.at("link", path);
            }
        }
        let wanted =
            rustix::fs::statat(&target_folder, &*target_name, AtFlags::SYMLINK_NOFOLLOW).at("look at", path)?;
        let there = self.stat(name, path)?;
        if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino) {
            return Ok(());
        }
        self.take_away(name, path)?;
        match link(self.parent_here(path)?) {
            // It was in the folder in whose place its link comes.
            Err(Errno::NOENT) => Err(Error::refused(path, NOWHERE)),
            made => made.at("link", path),
        }
    }

    /// The folder of this layer that has the file that is linked to; one of a layer below is copied.
    fn target(&mut self, folders: &Names, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
        let view = self.view(folders, path)?;
        let Some(found) = view.shown_from(0, name).at("look at", path)? else {
            return Err(Error::refused(path, NOWHERE));
        };
        if found.is_folder() {
            return Err(Error::refused(path, "it links to a folder"));
        }
        if found.layer == 0 {
            return open_folder(view.here(0), b".").at("open", path);
        }
        let folder = self.ensure(folders, path)?;
        let before = rustix::fs::fstat(&folder).at("look at", path)?;
        let source = Source {
            parent: view.here(found.layer),
            name,
            stat: &found.stat,
        };
        let left_out = self.copier.done().left_out;
        self.copier.copy(source, folder.as_fd(), path)?;
        if self.copier.done().left_out > left_out {
            return Err(Error::refused(path, "it links to a device"));
        }
        self.done.files += 1;
        set_mtime(&folder, mtime(&before)).at("set the time of", path)?;
        let copy = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).at("look at", path)?;
        self.copied.insert((copy.st_dev, copy.st_ino));
        Ok(folder)
    }
}
