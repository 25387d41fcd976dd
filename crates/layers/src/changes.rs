//! What layers change.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use sandhold_runtime::{Change, ChangeKind, Changes, FileKind};

use crate::attributes::{Attributes, kind, mtime};
use crate::copy::Path;
use crate::error::{At, Error};
use crate::limits::CHANGED_PATHS;
use crate::merge::list;
use crate::view::{Found, View};
use crate::{Limits, Owners, file};

/// What the layers `upper` change of what `below` show, both the highest first: at most `most` paths, in the order of a walk
/// (a folder, then what is in it by the bytes of the names). Costs as much as `upper` hold, not `below`, but for folders
/// that hide what was there.
///
/// A folder whose files changed is no change itself, unless its own mode, owner or attributes differ. A file that was copied
/// up and has the same size, time, mode, owner and attributes as before is none either. What comes in the place of something
/// of another kind is [`ChangeKind::Changed`]; what was in a folder in whose place something else came is not named.
///
/// # Errors
/// A layer cannot be read.
pub fn changes(upper: &[BorrowedFd<'_>], below: &[BorrowedFd<'_>], most: usize) -> Result<Changes, Error> {
    let limits = Limits::default();
    let mut upper = View::new(upper).at("open", b"")?;
    let mut below = View::new(below).at("open", b"")?;
    let mut found = Collected {
        changes: Changes::default(),
        most,
        bytes: 0,
    };
    let mut path = Path::default();
    let mut open = vec![list(&upper, &limits, b"")?];
    while let Some(left) = open.last_mut() {
        let Some(name) = left.pop() else {
            open.pop();
            upper.leave().at("leave", path.bytes())?;
            below.leave().at("leave", path.bytes())?;
            path.pop();
            continue;
        };
        path.push(&name);
        let at = path.bytes();
        let before = below.shown_from(0, &name).at("look at", at)?;
        let now = upper.lookup(&name).at("look at", at)?;
        // What is only below is in the list where the folder hides it.
        let now = now.filter(|now| !now.is_whiteout());
        let change = match (&now, &before) {
            (None, None) => None,
            (None, Some(before)) => Some((ChangeKind::Removed, before.stat)),
            (Some(now), None) => Some((ChangeKind::Added, now.stat)),
            (Some(now), Some(before)) => {
                let same = is_same((&upper, now), (&below, before), &name).at("compare", at)?;
                (!same).then_some((ChangeKind::Changed, now.stat))
            }
        };
        if let Some((kind, stat)) = change
            && !found.add(at, kind, &stat)
        {
            break;
        }
        if now.is_none_or(|now| !now.is_folder()) {
            path.pop();
            continue;
        }
        upper.enter(&name).at("open", at)?;
        below.enter(&name).at("open", at)?;
        let mut names = list(&upper, &limits, at)?;
        if upper.closed() && before.is_some_and(|before| before.is_folder()) {
            names.append(&mut list(&below, &limits, at)?);
            names.sort_unstable_by(|a, b| b.cmp(a));
            names.dedup();
        }
        open.push(names);
    }
    Ok(found.changes)
}

struct Collected {
    changes: Changes,
    most: usize,
    bytes: usize,
}

impl Collected {
    /// Whether there was room for it.
    fn add(&mut self, path: &[u8], kind: ChangeKind, stat: &Stat) -> bool {
        self.bytes += path.len() + 1;
        if self.changes.changes.len() >= self.most || self.bytes > CHANGED_PATHS {
            self.changes.truncated = true;
            return false;
        }
        let file = file_kind(stat);
        self.changes.changes.push(Change {
            path: [b"/", path].concat(),
            kind,
            file,
            bytes: if file == FileKind::File { stat.st_size as u64 } else { 0 },
        });
        true
    }
}

fn file_kind(stat: &Stat) -> FileKind {
    match kind(stat) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Folder,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

/// Whether two files are the same as far as can be told without reading them.
fn is_same(now: (&View, &Found), before: (&View, &Found), name: &[u8]) -> Result<bool, Errno> {
    let (a, b) = (&now.1.stat, &before.1.stat);
    let plain = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    if plain(a) != plain(b) {
        return Ok(false);
    }
    let (now_in, before_in) = (now.0.here(now.1.layer), before.0.here(before.1.layer));
    let same_time = mtime(a) == mtime(b);
    match kind(a) {
        FileType::RegularFile if a.st_size != b.st_size || !same_time => return Ok(false),
        FileType::Symlink => {
            let read = |parent| rustix::fs::readlinkat(parent, name, Vec::new());
            return Ok(same_time && read(now_in)? == read(before_in)?);
        }
        FileType::RegularFile | FileType::Directory => {}
        _ => return Ok(same_time && a.st_rdev == b.st_rdev),
    }
    let extended = |parent, stat: &Stat| -> Result<_, Errno> {
        let opened = match kind(stat) {
            FileType::Directory => crate::trail::open_folder(parent, name)?,
            _ => file::open_file(parent, name, stat)?,
        };
        Ok(Attributes::of_open(opened, stat, Owners::Exact)?.xattrs)
    };
    Ok(extended(now_in, a)? == extended(before_in, b)?)
}
