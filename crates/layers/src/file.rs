//! Copies of single files with all that belongs to them.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use crate::attributes::{Attributes, is_whiteout, kind};
use crate::error::{At, Error};
use crate::limits::CHUNK;
use crate::{Limits, Owners, Summary, content};

/// How a file of a stranger's tree is opened to be read: it itself, and without waiting for anybody.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// How a new file is made: it was not there, nor a link of that name.
pub(crate) const NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a file that `stat` says is a regular one.
pub(crate) fn open_file(parent: impl AsFd, name: &[u8], stat: &Stat) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::openat(parent, name, FILE, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    if (found.st_dev, found.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(Errno::STALE);
    }
    Ok(file)
}

/// Makes a whiteout.
pub(crate) fn make_whiteout(parent: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// One file of a tree.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a [u8],
    pub(crate) stat: &'a Stat,
}

/// Copies files, and counts.
#[derive(Debug)]
pub(crate) struct Copier {
    from: Owners,
    to: Owners,
    limits: Limits,
    done: Summary,
    /// Bytes that were not holes.
    data: u64,
    buffer: Vec<u8>,
    /// Files with several names: the number under which a further name is kept in `links`.
    several: HashMap<(u64, u64), u64>,
    links: Option<(OwnedFd, String)>,
}

/// Where the copies of files with several names have a further one while a tree is copied: the way to their first name
/// may be as long as the tree is deep.
const LINKS: &str = ".sandhold-links-";

impl Copier {
    pub(crate) fn new(from: Owners, to: Owners, limits: Limits) -> Self {
        Self {
            from,
            to,
            limits,
            done: Summary::default(),
            data: 0,
            buffer: vec![0; CHUNK],
            several: HashMap::new(),
            links: None,
        }
    }

    /// What was copied so far.
    pub(crate) fn done(&self) -> Summary {
        self.done
    }

    /// How many names may still come.
    pub(crate) fn left(&self) -> u64 {
        self.limits.files.saturating_sub(self.done.files)
    }

    /// How many names there may be.
    pub(crate) fn files(&self) -> u64 {
        self.limits.files
    }

    /// Counts one more name.
    pub(crate) fn count(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.left() == 0 {
            return Err(Error::too_much("files", self.limits.files, path));
        }
        self.done.files += 1;
        Ok(())
    }

    /// The attributes of an open folder.
    pub(crate) fn attributes(&self, folder: BorrowedFd<'_>, path: &[u8]) -> Result<Attributes, Error> {
        let stat = rustix::fs::fstat(folder).at("look at", path)?;
        let found = Attributes::of_open(folder, &stat, self.from).at("read the attributes of", path)?;
        self.check(&found, path)?;
        Ok(found)
    }

    fn check(&self, attributes: &Attributes, path: &[u8]) -> Result<(), Error> {
        if attributes.size() > self.limits.attributes {
            let most = self.limits.attributes as u64;
            return Err(Error::too_much("bytes of extended attributes", most, path));
        }
        Ok(())
    }

    /// Copies what is not a folder to the same name in `into`.
    pub(crate) fn copy(&mut self, source: Source<'_>, into: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
        let kind = kind(source.stat);
        match kind {
            _ if is_whiteout(source.stat) => {
                self.count(path)?;
                return make_whiteout(into, source.name).at("hide", path);
            }
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => self.count(path)?,
            _ => {
                self.done.left_out += 1;
                return Ok(());
            }
        }
        let number = (source.stat.st_dev, source.stat.st_ino);
        let links = self.links.as_ref().filter(|_| source.stat.st_nlink > 1);
        if let (Some((links, _)), Some(known)) = (links, self.several.get(&number)) {
            return rustix::fs::linkat(links, known.to_string(), into, source.name, AtFlags::empty()).at("link", path);
        }
        match kind {
            FileType::RegularFile => self.regular(source, into, path)?,
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(source.parent, source.name, Vec::new()).at("read the link", path)?;
                rustix::fs::symlinkat(target.as_c_str(), into, source.name).at("make the link", path)?;
            }
            _ => {
                rustix::fs::mknodat(into, source.name, kind, Mode::from_raw_mode(0o600), 0).at("make the pipe", path)?
            }
        }
        if kind != FileType::RegularFile {
            Attributes::of(source.stat, self.from).give_at(into, source.name, kind, self.to, path)?;
        }
        if let Some((links, _)) = self.links.as_ref().filter(|_| source.stat.st_nlink > 1) {
            let known = self.several.len() as u64;
            rustix::fs::linkat(into, source.name, links, known.to_string(), AtFlags::empty()).at("link", path)?;
            self.several.insert(number, known);
        }
        Ok(())
    }

    fn regular(&mut self, source: Source<'_>, into: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
        let file = open_file(source.parent, source.name, source.stat).at("open", path)?;
        let attributes = Attributes::of_open(&file, source.stat, self.from).at("read the attributes of", path)?;
        self.check(&attributes, path)?;
        let size = source.stat.st_size as u64;
        self.done.bytes = self.done.bytes.saturating_add(size);
        if self.done.bytes > self.limits.logical {
            return Err(Error::too_much("bytes, holes included,", self.limits.logical, path));
        }
        let copy = rustix::fs::openat(into, source.name, NEW, Mode::RUSR | Mode::WUSR).at("make the file", path)?;
        let most = self.limits.bytes - self.data;
        self.data += match content::copy(file.as_fd(), copy.as_fd(), size, most, &mut self.buffer) {
            Err(Errno::FBIG) => return Err(Error::too_much("bytes of files", self.limits.bytes, path)),
            done => done.at("copy", path)?,
        };
        attributes.give(&copy, self.to, path)
    }

    /// Makes a place at the top of a copy where files with several names get a further one: without it each name becomes
    /// a file of its own.
    pub(crate) fn begin(&mut self, top: BorrowedFd<'_>) -> Result<(), Error> {
        // No sandbox can have a file of a name that it cannot know.
        let mut token = [0u8; 16];
        rustix::rand::getrandom(&mut token, GetRandomFlags::empty()).at("name a folder in", b"")?;
        let name = format!("{LINKS}{:032x}", u128::from_ne_bytes(token));
        rustix::fs::mkdirat(top, name.as_str(), Mode::RWXU).at("make the folder", name.as_bytes())?;
        let folder = crate::trail::open_folder(top, name.as_bytes()).at("open", name.as_bytes())?;
        self.links = Some((folder, name));
        Ok(())
    }

    /// Takes that place away again.
    pub(crate) fn end(&mut self, top: BorrowedFd<'_>) -> Result<(), Error> {
        match self.links.take() {
            Some((_, name)) => crate::remove(top, name.as_bytes()),
            None => Ok(()),
        }
    }
}
