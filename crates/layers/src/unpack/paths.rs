//! Where a name of an archive leads.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, ResolveFlags};
use rustix::io::Errno;

use super::{Parent, Unpacker};
use crate::attributes::{Attributes, make_opaque, mtime, set_mtime};
use crate::error::{At, Error};
use crate::limits::{LINKS, STEPS};
use crate::trail::{FOLDER, open_folder};
use crate::view::View;

/// The names of a path.
pub(super) type Names = Vec<Box<[u8]>>;

const IN_A_FILE: &str = "what it is in is a file";

/// Nothing outside, nothing through a link.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The names with slashes between.
pub(super) fn joined(names: &Names) -> Vec<u8> {
    names.join(&b'/')
}

impl Unpacker<'_> {
    /// The names of an archive's path, without `.` and `..`. `entry` is whose it is.
    pub(super) fn clean(&self, path: &[u8], entry: &[u8]) -> Result<Names, Error> {
        if path.len() > self.limits.path {
            return Err(Error::too_much("bytes of a path", self.limits.path as u64, entry));
        }
        if path.contains(&0) {
            return Err(Error::refused(entry, "its name has a zero byte"));
        }
        let mut names = Names::new();
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." if names.pop().is_none() => {
                    return Err(Error::refused(entry, "its name leads out of the root by \"..\""));
                }
                b".." => {}
                name => self.push(&mut names, name, entry)?,
            }
        }
        Ok(names)
    }

    fn push(&self, names: &mut Names, name: &[u8], entry: &[u8]) -> Result<(), Error> {
        if name.len() > self.limits.name {
            return Err(Error::too_much("bytes of a name", self.limits.name as u64, entry));
        }
        if names.len() >= self.limits.depth {
            return Err(Error::too_much(
                "folders in one another",
                self.limits.depth as u64,
                entry,
            ));
        }
        names.push(name.into());
        Ok(())
    }

    /// Opens the folder that an entry is in; what is missing of the way there is made.
    pub(super) fn parent(&mut self, key: Names, path: &[u8]) -> Result<&Parent, Error> {
        let same = self
            .parent
            .as_ref()
            .is_some_and(|parent| parent.key == key && !parent.stale);
        if !same {
            self.settle()?;
            let parent = match self.open_at_once(&key) {
                Some(folder) => Parent::open(key.clone(), key, folder, path)?,
                None => {
                    let names = self
                        .resolve(&key, path)?
                        .ok_or_else(|| Error::refused(path, IN_A_FILE))?;
                    let folder = self.ensure(&names, path)?;
                    Parent::open(key, names, folder, path)?
                }
            };
            self.parent = Some(parent);
        }
        self.parent_here(path)
    }

    /// The folder, if this layer has it and no link leads there. What the kernel cannot or may not do here is done step by
    /// step.
    fn open_at_once(&self, names: &Names) -> Option<OwnedFd> {
        let path = if names.is_empty() { b".".to_vec() } else { joined(names) };
        rustix::fs::openat2(self.into, path, FOLDER, Mode::empty(), INSIDE).ok()
    }

    /// Follows links as they would be inside, in this layer and those below: where the folder is, or would be. None where
    /// it would be in a file.
    pub(super) fn resolve(&self, names: &Names, path: &[u8]) -> Result<Option<Names>, Error> {
        let mut view = View::new(&self.layers).at("open", path)?;
        let mut found = Names::new();
        let mut waiting: Vec<Box<[u8]>> = names.iter().rev().cloned().collect();
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = waiting.pop() {
            steps += 1;
            if steps > STEPS {
                return Err(Error::refused(path, "its name leads through too many links"));
            }
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    found.pop();
                    view.leave().at("leave", path)?;
                    continue;
                }
                _ => {}
            }
            let there = view.shown_from(0, &name).at("look at", path)?;
            match there.map(|there| (there.kind(), there.layer)) {
                Some((FileType::Symlink, layer)) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Error::refused(path, "its name leads through too many links"));
                    }
                    let target =
                        rustix::fs::readlinkat(view.here(layer), &*name, Vec::new()).at("read a link of", path)?;
                    let target = target.as_bytes();
                    if target.starts_with(b"/") {
                        found.clear();
                        while view.depth() > 0 {
                            view.leave().at("leave", path)?;
                        }
                    }
                    waiting.extend(target.split(|byte| *byte == b'/').rev().map(Box::from));
                }
                Some((FileType::Directory, _)) | None => {
                    self.push(&mut found, &name, path)?;
                    view.enter(&name).at("open", path)?;
                }
                Some(_) => return Ok(None),
            }
        }
        if found.iter().map(|name| name.len() + 1).sum::<usize>() > self.limits.path {
            return Err(Error::too_much("bytes of a path", self.limits.path as u64, path));
        }
        Ok(Some(found))
    }

    /// Opens a folder that no link leads through; what of it only layers below have is made here with their attributes.
    pub(super) fn ensure(&mut self, names: &Names, path: &[u8]) -> Result<OwnedFd, Error> {
        let mut view = View::new(&self.layers).at("open", path)?;
        for name in names {
            let there = view.lookup_from(0, name).at("look at", path)?;
            let here = there.filter(|there| there.layer == 0);
            if !here.is_some_and(|there| there.is_folder()) {
                let stat = rustix::fs::fstat(view.here(0)).at("look at", path)?;
                self.mirror(&view, name, here.is_some(), path)?;
                set_mtime(view.here(0), mtime(&stat)).at("set the time of", path)?;
            }
            view.enter(name).at("open", path)?;
        }
        open_folder(view.here(0), b".").at("open", path)
    }

    /// Makes a folder that the archive leaves out, in the place of a whiteout if there is one.
    fn mirror(&mut self, view: &View, name: &[u8], hidden: bool, path: &[u8]) -> Result<(), Error> {
        let below = view
            .shown_from(1, name)
            .at("look at", path)?
            .filter(|below| below.is_folder());
        let mut attributes = Attributes::default();
        if hidden {
            rustix::fs::unlinkat(view.here(0), name, rustix::fs::AtFlags::empty()).at("replace", path)?;
            self.replaced = true;
        } else if let Some(below) = &below {
            let folder = open_folder(view.here(below.layer), name).at("open", path)?;
            attributes = self.copier.attributes(std::os::fd::AsFd::as_fd(&folder), path)?;
        }
        match rustix::fs::mkdirat(view.here(0), name, Mode::RWXU) {
            // A file of this layer is in the way.
            Err(Errno::EXIST) => return Err(Error::refused(path, IN_A_FILE)),
            made => made.at("make the folder", path)?,
        }
        self.done.files += 1;
        let folder = open_folder(view.here(0), name).at("open", path)?;
        if hidden && below.is_some() {
            self.marked = true;
            make_opaque(&folder).at("mark", path)?;
        }
        attributes.give(&folder, self.owners, path)
    }
}
