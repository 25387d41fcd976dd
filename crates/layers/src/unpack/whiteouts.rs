//! What a layer hides of those below.

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::paths::Names;
use super::{Unpacker, is_whiteout, make_opaque};
use crate::attributes::{mtime, set_mtime};
use crate::copy::Path;
use crate::error::{At, Error};
use crate::file::make_whiteout;
use crate::merge::list;
use crate::trail::open_folder;
use crate::view::View;

impl Unpacker<'_> {
    /// The entry `.wh.` + `hidden` of a folder.
    pub(super) fn hide(&mut self, folders: Names, hidden: &[u8], path: &[u8]) -> Result<(), Error> {
        match hidden {
            b".wh..opq" => self.hide_all(&folders, path),
            // Notes of AUFS, from which the form comes.
            _ if hidden.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => Err(Error::refused(path, "it hides nothing that has a name")),
            // In the place of its folder came a file, which hides it already.
            _ => match self.resolve(&folders, path)? {
                Some(names) => self.hide_one(&names, hidden, path),
                None => Ok(()),
            },
        }
    }

    fn hide_one(&mut self, folders: &Names, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let view = self.view(folders, path)?;
        let below = view.shown_from(1, name).at("look at", path)?;
        let here = view.lookup(name).at("look at", path)?.filter(|found| found.layer == 0);
        match here {
            Some(here) if here.is_folder() => {
                if below.is_some_and(|below| below.is_folder()) {
                    self.marked = true;
                    let folder = open_folder(view.here(0), name).at("open", path)?;
                    make_opaque(&folder).at("mark", path)?;
                }
                return Ok(());
            }
            Some(here) if !self.copied.contains(&(here.stat.st_dev, here.stat.st_ino)) => return Ok(()),
            // Nothing to hide, and here only because another file links to it.
            Some(_) | None => {}
        }
        if here.is_none() && below.is_none() {
            return Ok(());
        }
        self.settle()?;
        let folder = self.ensure(folders, path)?;
        let before = rustix::fs::fstat(&folder).at("look at", path)?;
        if here.is_some() {
            self.replaced = true;
            rustix::fs::unlinkat(&folder, name, AtFlags::empty()).at("hide", path)?;
        }
        if below.is_some() {
            self.done.files += 1;
            make_whiteout(&folder, name).at("hide", path)?;
        }
        set_mtime(&folder, mtime(&before)).at("set the time of", path)
    }

    fn hide_all(&mut self, folders: &Names, path: &[u8]) -> Result<(), Error> {
        let Some(mut names) = self.resolve(folders, path)? else {
            return Ok(());
        };
        self.settle()?;
        let Some(name) = names.pop() else {
            return self.hide_root(path);
        };
        let view = self.view(&names, path)?;
        let below = view.shown_from(1, &name).at("look at", path)?;
        names.push(name);
        let folder = self.ensure(&names, path)?;
        if below.is_some_and(|below| below.is_folder()) {
            self.marked = true;
            make_opaque(&folder).at("mark", path)?;
        }
        Ok(())
    }

    /// Overlayfs joins the top folders of all layers, whatever mark they bear: each name is hidden for itself.
    fn hide_root(&mut self, path: &[u8]) -> Result<(), Error> {
        let below = View::new(&self.layers[1..]).at("open", path)?;
        for name in list(&below, &self.limits, path)? {
            self.hide_one(&Names::new(), &name, path)?;
        }
        Ok(())
    }

    /// Takes whiteouts away that hide nothing, since their folder hides all: overlayfs would list them.
    pub(super) fn tidy(&mut self) -> Result<(), Error> {
        let mut view = View::new(&[self.into]).at("open", b"")?;
        let mut path = Path::default();
        let mut open = vec![list(&view, &self.limits, b"")?];
        while let Some(left) = open.last_mut() {
            let Some(name) = left.pop() else {
                open.pop();
                view.leave().at("leave", path.bytes())?;
                path.pop();
                continue;
            };
            path.push(&name);
            let at = path.bytes();
            let Some(found) = view.lookup(&name).at("look at", at)? else {
                return Err(Errno::STALE).at("look at", at);
            };
            if found.is_folder() {
                view.enter(&name).at("open", at)?;
                open.push(list(&view, &self.limits, at)?);
                continue;
            }
            if is_whiteout(&found.stat) && view.closed() {
                let before = rustix::fs::fstat(view.here(0)).at("look at", at)?;
                rustix::fs::unlinkat(view.here(0), &*name, AtFlags::empty()).at("remove", at)?;
                set_mtime(view.here(0), mtime(&before)).at("set the time of", at)?;
            }
            path.pop();
        }
        Ok(())
    }
}
