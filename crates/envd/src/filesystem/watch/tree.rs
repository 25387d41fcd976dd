//! One watched folder: inotify's events as the client sees them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use sandhold_wire::proto::filesystem::EventType;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::error::{FsError, Kind};
use super::super::limits;
use crate::sys;

/// One change. `name` is relative to the watched folder, which itself is `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: PathBuf,
    pub(crate) kind: EventType,
}

/// A watched folder and, where that was asked for, all folders below it.
#[derive(Debug)]
pub(crate) struct Tree {
    inotify: Arc<AsyncFd<OwnedFd>>,
    root: PathBuf,
    recursive: bool,
    /// Watched folders, relative to the root.
    dirs: HashMap<i32, PathBuf>,
    /// What was reported because a scan of a new folder saw it, until the queue that could report it again is read.
    scanned: HashSet<PathBuf>,
    /// Folders that were moved away and may arrive elsewhere in the tree: where they were and since when, by cookie.
    leaving: HashMap<u32, (PathBuf, Instant)>,
}

/// One event as read, its name copied out of the buffer.
struct Raw {
    wd: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Option<PathBuf>,
}

impl Tree {
    /// Starts to watch the folder `root`.
    pub(crate) fn new(root: &Path, recursive: bool) -> Result<Self, FsError> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|e| match e {
            Errno::MFILE | Errno::NFILE => FsError::new(
                Kind::Exhausted,
                "too many watchers (fs.inotify.max_user_instances); remove some first",
            ),
            e => FsError::io("error creating watcher", e),
        })?;
        let inotify =
            sys::async_fd(inotify, Interest::READABLE).map_err(|e| FsError::io("error creating watcher", e))?;
        let mut tree = Self {
            inotify: Arc::new(inotify),
            root: root.to_owned(),
            recursive,
            dirs: HashMap::new(),
            scanned: HashSet::new(),
            leaving: HashMap::new(),
        };
        // The root may be a link to a folder, nothing below it is followed.
        tree.watch(PathBuf::new(), WatchFlags::empty())?;
        if recursive {
            tree.cover(PathBuf::new(), None)?;
        }
        Ok(tree)
    }

    /// What becomes readable when something changed.
    pub(crate) fn fd(&self) -> Arc<AsyncFd<OwnedFd>> {
        Arc::clone(&self.inotify)
    }

    fn watch(&mut self, dir: PathBuf, more: WatchFlags) -> Result<(), FsError> {
        if self.dirs.len() >= limits::WATCHED_DIRS {
            return Err(FsError::new(
                Kind::Exhausted,
                format!(
                    "more than {} folders below '{}' to watch",
                    limits::WATCHED_DIRS,
                    self.root.display()
                ),
            ));
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | more;
        let path = self.root.join(&dir);
        let wd = inotify::add_watch(self.inotify.get_ref(), &path, flags).map_err(|e| match e {
            Errno::NOSPC => FsError::new(
                Kind::Exhausted,
                "too many watched folders (fs.inotify.max_user_watches); watch a smaller folder",
            ),
            e => FsError::io(format!("error adding path '{}' to watcher", path.display()), e),
        })?;
        self.dirs.insert(wd, dir);
        Ok(())
    }

    /// Watches the folders below `dir`, which is watched. With `found`, everything there is reported as created: it was
    /// there before the watch was.
    fn cover(&mut self, dir: PathBuf, mut found: Option<&mut Vec<Change>>) -> Result<(), FsError> {
        let mut open = vec![dir];
        while let Some(dir) = open.pop() {
            // What is gone again needs no watch.
            let Ok(children) = std::fs::read_dir(self.root.join(&dir)) else {
                continue;
            };
            for child in children.flatten() {
                let name = dir.join(child.file_name());
                if let Some(changes) = found.as_deref_mut()
                    && self.scanned.insert(name.clone())
                {
                    changes.push(Change {
                        name: name.clone(),
                        kind: EventType::EVENT_TYPE_CREATE,
                    });
                }
                if child.file_type().is_ok_and(|t| t.is_dir()) && self.watch_below(name.clone())? {
                    open.push(name);
                }
            }
        }
        Ok(())
    }

    /// Watches a folder below the root, unless it is gone again.
    fn watch_below(&mut self, dir: PathBuf) -> Result<bool, FsError> {
        match self.watch(dir, WatchFlags::DONT_FOLLOW) {
            Ok(()) => Ok(true),
            Err(e) if e.kind == Kind::Exhausted => Err(e),
            Err(_) => Ok(false),
        }
    }

    /// Reads what waits in the queue, without waiting for more. True when something was left there.
    pub(crate) fn read(&mut self) -> Result<(Vec<Change>, bool), FsError> {
        let mut changes = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); limits::INOTIFY_BUFFER];
        loop {
            let batch = self.batch(&mut buffer)?;
            if batch.is_empty() {
                // Whatever a scan saw too has been reported by now.
                self.scanned.clear();
                return Ok((changes, false));
            }
            for raw in batch {
                self.handle(raw, &mut changes)?;
            }
            // A folder that changes all the time must not keep its events from the client.
            if changes.len() >= limits::WATCHER_EVENTS {
                return Ok((changes, true));
            }
        }
    }

    /// The events of one read; none when none wait.
    fn batch(&self, buffer: &mut [MaybeUninit<u8>]) -> Result<Vec<Raw>, FsError> {
        let mut reader = inotify::Reader::new(self.inotify.get_ref(), buffer);
        let mut batch = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => batch.push(Raw {
                    wd: event.wd(),
                    flags: event.events(),
                    cookie: event.cookie(),
                    name: event
                        .file_name()
                        .map(|n| PathBuf::from(OsStr::from_bytes(n.to_bytes()))),
                }),
                Err(Errno::AGAIN) => return Ok(batch),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(FsError::io("error reading watcher", io::Error::from(e))),
            }
            if reader.is_buffer_empty() {
                return Ok(batch);
            }
        }
    }

    fn handle(&mut self, raw: Raw, changes: &mut Vec<Change>) -> Result<(), FsError> {
        if raw.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Err(FsError::new(
                Kind::Internal,
                "watcher error: more changes than the queue holds, some were lost; watch again",
            ));
        }
        self.forget_left();
        let Some(dir) = self.dirs.get(&raw.wd).cloned() else {
            return Ok(());
        };
        if raw.flags.contains(ReadFlags::IGNORED) {
            self.dirs.remove(&raw.wd);
            return Ok(());
        }
        let Some(name) = raw.name else {
            self.itself(&dir, raw.flags, changes);
            return Ok(());
        };
        let name = dir.join(name);
        let mut report = |name: &Path, kind| {
            changes.push(Change {
                name: name.to_owned(),
                kind,
            })
        };
        let is_dir = raw.flags.contains(ReadFlags::ISDIR);
        if raw.flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            if !self.scanned.remove(&name) {
                report(&name, EventType::EVENT_TYPE_CREATE);
            }
            if is_dir && self.recursive && !self.arrive(raw.cookie, &name) && self.watch_below(name.clone())? {
                self.cover(name, Some(changes))?;
            }
        } else if raw.flags.contains(ReadFlags::MOVED_FROM) {
            self.scanned.remove(&name);
            report(&name, EventType::EVENT_TYPE_RENAME);
            if is_dir && self.recursive {
                self.leaving.insert(raw.cookie, (name, Instant::now()));
            }
        } else if raw.flags.contains(ReadFlags::DELETE) {
            self.scanned.remove(&name);
            report(&name, EventType::EVENT_TYPE_REMOVE);
        } else if raw.flags.contains(ReadFlags::MODIFY) {
            report(&name, EventType::EVENT_TYPE_WRITE);
        } else if raw.flags.contains(ReadFlags::ATTRIB) {
            report(&name, EventType::EVENT_TYPE_CHMOD);
        }
        Ok(())
    }

    /// A change of a watched folder itself. Of those below the root, the folder above tells it too.
    fn itself(&self, dir: &Path, flags: ReadFlags, changes: &mut Vec<Change>) {
        if !dir.as_os_str().is_empty() {
            return;
        }
        let kind = if flags.contains(ReadFlags::DELETE_SELF) {
            EventType::EVENT_TYPE_REMOVE
        } else if flags.contains(ReadFlags::MOVE_SELF) {
            EventType::EVENT_TYPE_RENAME
        } else if flags.contains(ReadFlags::ATTRIB) {
            EventType::EVENT_TYPE_CHMOD
        } else {
            return;
        };
        changes.push(Change {
            name: PathBuf::from("."),
            kind,
        });
    }

    /// A folder came to `name`. True when it was moved from elsewhere in the tree: what is below it is watched already.
    fn arrive(&mut self, cookie: u32, name: &Path) -> bool {
        let Some((old, _)) = self.leaving.remove(&cookie) else {
            return false;
        };
        for dir in self.dirs.values_mut() {
            if let Ok(below) = dir.strip_prefix(&old) {
                *dir = if below.as_os_str().is_empty() {
                    name.to_owned()
                } else {
                    name.join(below)
                };
            }
        }
        true
    }

    /// Stops watching folders that left the tree.
    fn forget_left(&mut self) {
        let left: Vec<u32> = self
            .leaving
            .iter()
            .filter(|(_, (_, since))| since.elapsed() >= limits::MOVE_PAIRING)
            .map(|(cookie, _)| *cookie)
            .collect();
        for cookie in left {
            let Some((old, _)) = self.leaving.remove(&cookie) else {
                continue;
            };
            let inotify = self.inotify.get_ref();
            self.dirs.retain(|wd, dir| {
                let gone = dir.starts_with(&old);
                if gone {
                    // Fails only when the folder was removed since, and with it the watch.
                    let _ = inotify::remove_watch(inotify, *wd);
                }
                !gone
            });
        }
    }
}
