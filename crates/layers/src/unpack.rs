//! Layers of images.

mod links;
mod paths;
mod whiteouts;

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec};
use rustix::io::Errno;

use crate::attributes::{Attributes, clear_xattrs, is_kept, is_whiteout, kind, known, make_opaque, set_mtime, tame};
use crate::content::write_at;
use crate::error::{At, Error};
use crate::file::{Copier, NEW};
use crate::limits::CHUNK;
use crate::remove::remove_quietly;
use crate::tar::{Entry, Kind, Reader};
use crate::trail::open_folder;
use crate::view::View;
use crate::{Limits, Owners, Summary};
use paths::Names;

/// Unpacks one layer of an image (the OCI image specification's `layer.md`), a tar without compression, into the empty
/// folder `into`, as a layer over those of `below`, the highest first.
///
/// - Names are relative to the layer's root, also absolute ones and those that lead through links of this layer or one below;
///   one that leads out by `..` is refused. Of several entries of one name the last holds.
/// - A folder that the archive leaves out has the attributes that it has below, or is root's, 0755, of 1970.
/// - `.wh.NAME` hides what is below, `.wh..wh..opq` all that is below in its folder, wherever in the archive they stand; what
///   this layer brings stays. Where nothing is below, nothing is written.
/// - A hard link to a file of a layer below brings a copy of that file into this one.
/// - Devices are left out. Files lose setuid and setgid, and all extended attributes but `user.` ones that are not
///   overlayfs'; times are kept to the nanosecond.
///
/// # Errors
/// [`Error::is_refusal`] tells whether it is the archive's fault. What was written by then stays in `into`.
pub fn unpack(
    tar: impl Read,
    into: BorrowedFd<'_>,
    below: &[BorrowedFd<'_>],
    owners: Owners,
    limits: &Limits,
) -> Result<Summary, Error> {
    let mut layers = vec![into];
    layers.extend_from_slice(below);
    let mut unpacker = Unpacker {
        into,
        layers,
        owners,
        limits: *limits,
        done: Summary::default(),
        data: 0,
        parent: None,
        copier: Copier::new(owners, owners, *limits),
        copied: HashSet::new(),
        marked: false,
        replaced: false,
        buffer: vec![0; CHUNK],
    };
    unpacker.begin()?;
    let mut reader = Reader::new(tar, limits.attributes);
    while let Some(entry) = reader.next()? {
        unpacker.entry(entry, &mut reader)?;
    }
    unpacker.end()
}

struct Unpacker<'a> {
    into: BorrowedFd<'a>,
    /// The new layer, then those below.
    layers: Vec<BorrowedFd<'a>>,
    owners: Owners,
    limits: Limits,
    done: Summary,
    /// Bytes of files that are no holes.
    data: u64,
    /// The folder of the last entry: mostly the next one's too.
    parent: Option<Parent>,
    copier: Copier,
    /// Files that are here because others link to them: the archive does not name them itself.
    copied: HashSet<(u64, u64)>,
    /// Whether a folder was marked: then there may be whiteouts in it that hide nothing.
    marked: bool,
    /// Whether something was taken away again: then what was counted is too much.
    replaced: bool,
    buffer: Vec<u8>,
}

/// An open folder of the new layer. Its time is kept, whatever is made in it.
struct Parent {
    /// As the archive names it.
    key: Names,
    /// Where that is.
    names: Names,
    folder: OwnedFd,
    mtime: Timespec,
    /// Whether a link of it went that its own name may lead through.
    stale: bool,
}

impl Parent {
    fn open(key: Names, names: Names, folder: OwnedFd, path: &[u8]) -> Result<Self, Error> {
        let stat = rustix::fs::fstat(&folder).at("look at", path)?;
        Ok(Self {
            key,
            names,
            folder,
            mtime: crate::attributes::mtime(&stat),
            stale: false,
        })
    }
}

impl Unpacker<'_> {
    /// Gives the layer's own folder what the one below has.
    fn begin(&mut self) -> Result<(), Error> {
        let attributes = match self.layers.get(1) {
            Some(below) => self.copier.attributes(*below, b"")?,
            None => Attributes::default(),
        };
        attributes.give(self.into, self.owners, b"")
    }

    fn end(mut self) -> Result<Summary, Error> {
        self.settle()?;
        if self.marked {
            self.tidy()?;
        }
        if self.marked || self.replaced {
            let size = crate::measure(self.into)?;
            (self.done.bytes, self.done.files) = (size.bytes, size.files);
        } else {
            self.done.bytes += self.copier.done().bytes;
        }
        Ok(self.done)
    }

    /// Closes the last entry's folder.
    fn settle(&mut self) -> Result<(), Error> {
        match self.parent.take() {
            Some(parent) => {
                set_mtime(&parent.folder, parent.mtime).at("set the time of", &paths::joined(&parent.names))
            }
            None => Ok(()),
        }
    }

    fn entry<R: Read>(&mut self, mut entry: Entry, reader: &mut Reader<R>) -> Result<(), Error> {
        self.done.entries += 1;
        if self.done.entries > self.limits.files {
            return Err(Error::too_much(
                "entries of the archive",
                self.limits.files,
                &entry.path,
            ));
        }
        let path = std::mem::take(&mut entry.path);
        let mut folders = self.clean(&path, &path)?;
        let attributes = &mut entry.attributes;
        attributes.xattrs.retain(|(name, _)| is_kept(name));
        (attributes.uid, attributes.gid) = (known(attributes.uid), known(attributes.gid));
        let Some(name) = folders.pop() else {
            return self.root(&entry, &path);
        };
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.hide(folders, hidden, &path);
        }
        match entry.kind {
            Kind::Device => {
                self.done.left_out += 1;
                Ok(())
            }
            Kind::HardLink => self.hard_link(folders, &name, &entry.link, &path),
            Kind::Folder => self.folder(folders, &name, entry.attributes, &path),
            Kind::File => self.file(folders, &name, entry, reader, &path),
            Kind::SymbolicLink | Kind::Pipe => self.special(folders, &name, entry, &path),
        }
    }

    /// The layer's own folder.
    fn root(&mut self, entry: &Entry, path: &[u8]) -> Result<(), Error> {
        if entry.kind != Kind::Folder {
            return Err(Error::refused(path, "only a folder can be the root"));
        }
        self.settle()?;
        clear_xattrs(self.into).at("change the attributes of", path)?;
        entry.attributes.give(self.into, self.owners, path)
    }

    fn folder(&mut self, folders: Names, name: &[u8], mut attributes: Attributes, path: &[u8]) -> Result<(), Error> {
        attributes.mode = tame(FileType::Directory, attributes.mode);
        let parent = self.parent(folders, path)?;
        let mut made = rustix::fs::mkdirat(&parent.folder, name, Mode::RWXU);
        let mut replaced = false;
        if made == Err(Errno::EXIST) {
            if kind(&self.stat(name, path)?) == FileType::Directory {
                return self.folder_again(name, &attributes, path);
            }
            self.take_away(name, path)?;
            replaced = true;
            made = rustix::fs::mkdirat(&self.parent_here(path)?.folder, name, Mode::RWXU);
        }
        made.at("make the folder", path)?;
        self.done.files += 1;
        let folder = open_folder(&self.parent_here(path)?.folder, name).at("open", path)?;
        if replaced && self.folder_below(name, path)? {
            // What was in its place hid what is below.
            self.marked = true;
            make_opaque(&folder).at("mark", path)?;
        }
        attributes.give(&folder, self.owners, path)
    }

    /// A folder that is there already gets other attributes.
    fn folder_again(&mut self, name: &[u8], attributes: &Attributes, path: &[u8]) -> Result<(), Error> {
        let folder = open_folder(&self.parent_here(path)?.folder, name).at("open", path)?;
        clear_xattrs(folder.as_fd()).at("change the attributes of", path)?;
        attributes.give(&folder, self.owners, path)
    }

    fn file<R: Read>(
        &mut self,
        folders: Names,
        name: &[u8],
        mut entry: Entry,
        reader: &mut Reader<R>,
        path: &[u8],
    ) -> Result<(), Error> {
        let before = self.copier.done().bytes;
        let logical = self.done.bytes.saturating_add(entry.size);
        if logical.saturating_add(before) > self.limits.logical {
            return Err(Error::too_much("bytes, holes included,", self.limits.logical, path));
        }
        let pieces = entry.pieces.take();
        let data = match &pieces {
            Some(pieces) => pieces.iter().map(|piece| piece.length).sum(),
            None => entry.size,
        };
        self.data = self.data.saturating_add(data);
        if self.data.saturating_add(before) > self.limits.bytes {
            return Err(Error::too_much("bytes of files", self.limits.bytes, path));
        }
        self.done.bytes = logical;
        self.parent(folders, path)?;
        let make = |parent: &Parent| rustix::fs::openat(&parent.folder, name, NEW, Mode::RUSR | Mode::WUSR);
        let file = self.make(name, path, make)?.at("make the file", path)?;
        self.done.files += 1;
        let whole = [crate::tar::Piece {
            offset: 0,
            length: data,
        }];
        let is_sparse = pieces.is_some();
        for piece in pieces.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (piece.offset, piece.offset + piece.length);
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
                let read = reader.read(&mut self.buffer[..most])?;
                if read == 0 {
                    return Err(Error::Damaged("a file is shorter than its header says"));
                }
                write_at(file.as_fd(), &self.buffer[..read], at).at("write", path)?;
                at += read as u64;
            }
        }
        if is_sparse {
            rustix::fs::ftruncate(&file, entry.size).at("write", path)?;
        }
        entry.attributes.mode = tame(FileType::RegularFile, entry.attributes.mode);
        entry.attributes.give(&file, self.owners, path)
    }

    fn special(&mut self, folders: Names, name: &[u8], mut entry: Entry, path: &[u8]) -> Result<(), Error> {
        self.parent(folders, path)?;
        let kind = match entry.kind {
            Kind::Pipe => FileType::Fifo,
            _ => FileType::Symlink,
        };
        entry.attributes.mode = tame(kind, entry.attributes.mode);
        if kind == FileType::Symlink && (entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() > 4095) {
            return Err(Error::refused(path, "a link must lead to a name of 1 to 4095 bytes"));
        }
        let target = entry.link.as_slice();
        let make = |parent: &Parent| match kind {
            FileType::Symlink => rustix::fs::symlinkat(target, &parent.folder, name),
            _ => rustix::fs::mknodat(&parent.folder, name, kind, Mode::from_raw_mode(0o600), 0),
        };
        self.make(name, path, make)?.at("make", path)?;
        self.done.files += 1;
        let parent = self.parent_here(path)?.folder.as_fd();
        entry.attributes.give_at(parent, name, kind, self.owners, path)
    }

    /// Makes something that is no folder; what this layer has there goes.
    fn make<T>(
        &mut self,
        name: &[u8],
        path: &[u8],
        make: impl Fn(&Parent) -> Result<T, Errno>,
    ) -> Result<Result<T, Errno>, Error> {
        let made = make(self.parent_here(path)?);
        if !matches!(made, Err(Errno::EXIST)) {
            return Ok(made);
        }
        self.take_away(name, path)?;
        Ok(make(self.parent_here(path)?))
    }

    /// What this layer has at a name of the last entry's folder.
    fn stat(&self, name: &[u8], path: &[u8]) -> Result<Stat, Error> {
        let folder = &self.parent_here(path)?.folder;
        rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).at("look at", path)
    }

    /// Takes away what this layer has at a name of the last entry's folder.
    fn take_away(&mut self, name: &[u8], path: &[u8]) -> Result<(), Error> {
        self.replaced = true;
        if let Some(parent) = &mut self.parent {
            parent.stale = parent.key != parent.names;
        }
        remove_quietly(self.parent_here(path)?.folder.as_fd(), name).at("replace", path)
    }

    /// Whether the layers below show a folder at a name of the last entry's folder.
    fn folder_below(&self, name: &[u8], path: &[u8]) -> Result<bool, Error> {
        let view = self.view(&self.parent_here(path)?.names, path)?;
        let found = view.shown_from(1, name).at("look at", path)?;
        Ok(found.is_some_and(|found| found.is_folder()))
    }

    /// The folder of the last entry.
    fn parent_here(&self, path: &[u8]) -> Result<&Parent, Error> {
        match &self.parent {
            Some(parent) => Ok(parent),
            None => Err(Errno::STALE).at("open", path),
        }
    }

    /// All layers, at a folder that no link leads through.
    fn view(&self, names: &Names, path: &[u8]) -> Result<View, Error> {
        let mut view = View::new(&self.layers).at("open", path)?;
        for name in names {
            view.enter(name).at("open", path)?;
        }
        Ok(view)
    }
}
