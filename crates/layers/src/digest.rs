//! The name of a layer: a hash of all that it holds.
//!
//! What is hashed is a text of bytes, numbers little-endian. It begins with [`FORMAT`]; then comes the layer's own folder,
//! then, for each folder, what is in it, ordered by the bytes of the names, and the byte `e` at its end:
//!
//! ```text
//! name        u32 length, bytes          empty for the layer's own folder
//! attributes  u32 mode, u32 uid, u32 gid (the ids inside; 0 where one user owns all), i64 seconds, u32 nanoseconds
//! extended    u32 count, then of each, ordered by name: u32 length, name, u32 length, value
//!
//! d  name attributes extended u8 opaque (0 or 1)          … what is in it … e
//! f  name attributes extended u64 size, SHA-256 of the content
//! l  name attributes u32 length, target
//! p  name attributes                                       a pipe
//! s  name attributes u32 kind, u64 device                  a socket or device
//! w  name                                                  a whiteout
//! h  name u64 number                                       another name of a file: the number of its first, counted from 0
//!                                                          among the f, l, p and s of this text
//! ```
//!
//! So two layers with one name hold the same, byte for byte and attribute for attribute. Overlayfs' own attributes but for the
//! mark of opaque folders are not part of it, nor are times of access or change.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;
use sandhold_runtime::LayerId;
use sha2::{Digest, Sha256};

use crate::attributes::{Attributes, is_opaque, is_whiteout, kind};
use crate::content::read_at;
use crate::copy::Path;
use crate::error::{At, Error};
use crate::file::open_file;
use crate::limits::CHUNK;
use crate::trail::{Trail, names};
use crate::whole::OPEN;
use crate::{Owners, Summary};

/// With what the text begins that is hashed: another format has another line.
pub const FORMAT: &[u8] = b"sandhold layer 1\n";

/// Names what is in `folder`, and adds it up.
///
/// # Errors
/// It cannot be read.
pub fn digest(folder: BorrowedFd<'_>, owners: Owners) -> Result<(LayerId, Summary), Error> {
    let mut text = Text {
        hash: Sha256::new(),
        owners,
        several: HashMap::new(),
        number: 0,
        done: Summary::default(),
        buffer: vec![0; CHUNK],
    };
    text.hash.update(FORMAT);
    let mut trail = Trail::new(folder, OPEN).at("open", b"")?;
    let mut path = Path::default();
    text.folder(b"", trail.here(), b"")?;
    let mut open = vec![list(&trail, b"")?];
    while let Some(left) = open.last_mut() {
        let Some(name) = left.pop() else {
            text.hash.update(b"e");
            open.pop();
            trail.leave().at("leave", path.bytes())?;
            path.pop();
            continue;
        };
        path.push(&name);
        let at = path.bytes();
        let stat = rustix::fs::statat(trail.here(), &*name, AtFlags::SYMLINK_NOFOLLOW).at("look at", at)?;
        text.done.files += 1;
        if kind(&stat) == FileType::Directory {
            trail.enter(&name).at("open", at)?;
            text.folder(&name, trail.here(), at)?;
            open.push(list(&trail, at)?);
        } else {
            text.other(trail.here(), &name, &stat, at)?;
            path.pop();
        }
    }
    Ok((LayerId(text.hash.finalize().into()), text.done))
}

/// The names of the folder that the walk is in, the last first.
fn list(trail: &Trail, path: &[u8]) -> Result<Vec<Box<[u8]>>, Error> {
    let mut found = names(trail.here(), u64::MAX).at("list", path)?;
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

struct Text {
    hash: Sha256,
    owners: Owners,
    /// The numbers of files with several names.
    several: HashMap<(u64, u64), u64>,
    number: u64,
    done: Summary,
    buffer: Vec<u8>,
}

impl Text {
    fn bytes(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u32).to_le_bytes());
        self.hash.update(bytes);
    }

    fn attributes(&mut self, found: &Attributes) {
        for number in [found.mode, found.uid, found.gid] {
            self.hash.update(number.to_le_bytes());
        }
        self.hash.update(found.mtime.tv_sec.to_le_bytes());
        self.hash.update((found.mtime.tv_nsec as u32).to_le_bytes());
    }

    fn extended(&mut self, found: &Attributes) {
        self.hash.update((found.xattrs.len() as u32).to_le_bytes());
        for (name, value) in &found.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn folder(&mut self, name: &[u8], folder: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
        let stat = rustix::fs::fstat(folder).at("look at", path)?;
        let found = Attributes::of_open(folder, &stat, self.owners).at("read the attributes of", path)?;
        let opaque = is_opaque(folder).at("read the attributes of", path)?;
        self.hash.update(b"d");
        self.bytes(name);
        self.attributes(&found);
        self.extended(&found);
        self.hash.update([u8::from(opaque)]);
        Ok(())
    }

    fn other(&mut self, parent: BorrowedFd<'_>, name: &[u8], stat: &Stat, path: &[u8]) -> Result<(), Error> {
        if is_whiteout(stat) {
            self.hash.update(b"w");
            self.bytes(name);
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let place = (stat.st_dev, stat.st_ino);
            if let Some(number) = self.several.get(&place).copied() {
                self.hash.update(b"h");
                self.bytes(name);
                self.hash.update(number.to_le_bytes());
                return Ok(());
            }
            self.several.insert(place, self.number);
        }
        self.number += 1;
        match kind(stat) {
            FileType::RegularFile => self.regular(parent, name, stat, path)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).at("read the link", path)?;
                self.hash.update(b"l");
                self.bytes(name);
                self.attributes(&Attributes::of(stat, self.owners));
                self.bytes(target.as_bytes());
            }
            kind => {
                let pipe = kind == FileType::Fifo;
                self.hash.update(if pipe { b"p" } else { b"s" });
                self.bytes(name);
                self.attributes(&Attributes::of(stat, self.owners));
                if !pipe {
                    self.hash.update(kind.as_raw_mode().to_le_bytes());
                    self.hash.update(stat.st_rdev.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    fn regular(&mut self, parent: BorrowedFd<'_>, name: &[u8], stat: &Stat, path: &[u8]) -> Result<(), Error> {
        let file = open_file(parent, name, stat).at("open", path)?;
        let found = Attributes::of_open(&file, stat, self.owners).at("read the attributes of", path)?;
        let size = stat.st_size as u64;
        self.done.bytes = self.done.bytes.saturating_add(size);
        self.hash.update(b"f");
        self.bytes(name);
        self.attributes(&found);
        self.extended(&found);
        self.hash.update(size.to_le_bytes());
        let mut content = Sha256::new();
        let mut at = 0;
        while at < size {
            let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = match read_at(file.as_fd(), &mut self.buffer[..length], at).at("read", path)? {
                0 => return Err(Errno::STALE).at("read", path),
                read => read,
            };
            content.update(&self.buffer[..read]);
            at += read as u64;
        }
        self.hash.update(content.finalize());
        Ok(())
    }
}
