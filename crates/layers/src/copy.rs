//! Copies of the writable layer of a sandbox.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::attributes::{is_opaque, kind, make_opaque};
use crate::error::{At, Error};
use crate::file::{Copier, Source};
use crate::trail::{Trail, names};
use crate::whole::OPEN;
use crate::{Limits, Owners, Summary};

/// Copies a layer, such as what a sandbox wrote over its root, with its whiteouts and opaque folders, into the empty folder
/// `into`, which gets the attributes of `from`. Of files stay their holes, their further names, modes but for setuid and
/// setgid, owners, times to the nanosecond, and `user.` attributes but for overlayfs' own. Sockets and devices are left
/// out.
///
/// # Errors
/// There is more than allowed, or a file could not be read or written. What was copied by then stays in `into`.
pub fn copy(
    from: BorrowedFd<'_>,
    into: BorrowedFd<'_>,
    from_owners: Owners,
    to_owners: Owners,
    limits: &Limits,
) -> Result<Summary, Error> {
    let mut copier = Copier::new(from_owners, to_owners, *limits);
    copier.begin(into)?;
    let mut walk = Walk {
        from: Trail::new(from, OPEN).at("open", b"")?,
        into: Trail::new(into, OPEN).at("open", b"")?,
        path: Path::default(),
    };
    let top = copier.attributes(from, b"")?;
    let mut open = vec![(list(&walk.from, &copier, b"")?, top)];
    while let Some((left, attributes)) = open.last_mut() {
        let Some(name) = left.pop() else {
            if walk.into.depth() == 0 {
                copier.end(into)?;
            }
            let attributes = std::mem::take(attributes);
            attributes.give(walk.into.here(), to_owners, walk.path.bytes())?;
            open.pop();
            walk.leave()?;
            continue;
        };
        walk.path.push(&name);
        let path = walk.path.bytes();
        let stat = rustix::fs::statat(walk.from.here(), &*name, AtFlags::SYMLINK_NOFOLLOW).at("look at", path)?;
        if kind(&stat) == FileType::Directory {
            copier.count(path)?;
            walk.from.enter(&name).at("open", path)?;
            let attributes = copier.attributes(walk.from.here(), path)?;
            make_folder(&mut walk.into, &name, path)?;
            if is_opaque(walk.from.here()).at("read the attributes of", path)? {
                make_opaque(walk.into.here()).at("mark", path)?;
            }
            open.push((list(&walk.from, &copier, path)?, attributes));
            continue;
        }
        let source = Source {
            parent: walk.from.here(),
            name: &name,
            stat: &stat,
        };
        copier.copy(source, walk.into.here(), path)?;
        walk.path.pop();
    }
    Ok(copier.done())
}

/// Makes a folder and goes into it.
pub(crate) fn make_folder(into: &mut Trail, name: &[u8], path: &[u8]) -> Result<(), Error> {
    rustix::fs::mkdirat(into.here(), name, Mode::RWXU).at("make the folder", path)?;
    into.enter(name).at("open", path)
}

/// The names of the folder that a walk is in, as many as may still come.
fn list(from: &Trail, copier: &Copier, path: &[u8]) -> Result<Vec<Box<[u8]>>, Error> {
    let mut found = names(from.here(), copier.left()).map_err(|error| (error, copier.files()));
    if let Ok(names) = &mut found {
        names.sort_unstable_by(|a, b| b.cmp(a));
    }
    found.or_else(|(error, most)| match error {
        Errno::OVERFLOW => Err(Error::too_much("files", most, path)),
        error => Err(error).at("list", path),
    })
}

struct Walk {
    from: Trail,
    into: Trail,
    path: Path,
}

impl Walk {
    fn leave(&mut self) -> Result<(), Error> {
        let path = self.path.bytes();
        self.from.leave().at("leave", path)?;
        self.into.leave().at("leave", path)?;
        self.path.pop();
        Ok(())
    }
}

/// The path of where a walk is, without a slash before it.
#[derive(Debug, Default)]
pub(crate) struct Path(Vec<u8>);

impl Path {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn push(&mut self, name: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
    }

    pub(crate) fn pop(&mut self) {
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.0.truncate(end);
    }
}
