//! Work on layers in the store: unpacking, keeping, comparing, merging, checking and removing them.
//!
//! ```text
//! /l/NAME/fs             a layer's files; NAME is the SHA-256 of what it holds
//! /l/NAME/layer.json     its size
//! /l/tmp/…               what is being made or removed
//! ```
//!
//! A layer is made in a folder of its own, written to the disk, and then renamed: one that has its name is whole.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, Timestamps};
use rustix::io::Errno;
use rustix::process::Pid;
use sandhold_layers::{Error, Ids, Limits, Owners, Summary};
use sandhold_runtime::{Change, ChangeKind, Changes, LayerId};

use super::message::{About, At, Failure, IdSource, Look, Step, Transfer, Unpack, Worked};
use super::root::{self, make_dir};
use super::setup::Launcher;
use super::stack::{self, UPPER, WRITTEN};
use super::{busy, create};
use crate::etc;
use crate::store::{FILES, LOCK, META, TEMPORARY};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How the owners of the store's files are those inside.
fn stored(launcher: &Launcher) -> Owners {
    let all = |first| Owners::Shifted {
        uid: Ids { first, count: 65_536 },
        gid: Ids { first, count: 65_536 },
    };
    match launcher.hello.ids {
        IdSource::Ranges => Owners::Exact,
        IdSource::SubIds => all(1),
        IdSource::Single => Owners::One,
    }
}

/// How those of a held layer are, which belonged to a sandbox whose root has these ids, or to nobody.
fn held(launcher: &Launcher, from: Option<(u32, u32)>) -> Owners {
    match (launcher.hello.ids, from) {
        (IdSource::Ranges, Some((uid, gid))) => Owners::Shifted {
            uid: Ids {
                first: uid,
                count: 65_536,
            },
            gid: Ids {
                first: gid,
                count: 65_536,
            },
        },
        _ => stored(launcher),
    }
}

/// An error of the crate that does the work.
fn failed(error: &Error, object: &str) -> Worked {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    Worked::Spoiled {
        refused: error.is_refusal(),
        said: if object.is_empty() {
            said
        } else {
            format!("{object}: {said}")
        },
    }
}

/// The path of a folder among the temporary ones.
pub(super) fn temporary(name: &str) -> String {
    format!("{}/{TEMPORARY}/{name}", root::LAYERS)
}

fn store() -> Result<OwnedFd, Failure> {
    rustix::fs::open(root::LAYERS, FOLDER, Mode::empty()).on(Step::Store, "its folder")
}

/// A layer that is being made: a folder that goes unless it gets its name.
struct Draft {
    place: OwnedFd,
    name: String,
    files: OwnedFd,
}

impl Draft {
    fn make(name: &str) -> Result<Self, Failure> {
        let make = || {
            let place = rustix::fs::openat(CWD, format!("{}/{TEMPORARY}", root::LAYERS), FOLDER, Mode::empty())?;
            make_dir(&place, name, 0o711)?;
            make_dir(&place, &format!("{name}/{FILES}"), 0o755)?;
            let files = rustix::fs::openat(&place, format!("{name}/{FILES}"), FOLDER, Mode::empty())?;
            Ok::<_, Errno>(Self {
                place,
                name: name.to_owned(),
                files,
            })
        };
        make().on(Step::Store, name)
    }

    /// Gives it its name, unless there is one of this name. It is on the disk then.
    fn finish(&self, owners: Owners) -> Result<Worked, Failure> {
        let (id, summary) = match sandhold_layers::digest(self.files.as_fd(), owners) {
            Ok(digest) => digest,
            Err(error) => return Ok(failed(&error, "")),
        };
        let name = id.to_string();
        let about = About {
            bytes: summary.bytes,
            files: summary.files,
        };
        let text = serde_json::to_vec(&about).unwrap_or_default();
        let finish = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let path = format!("{}/{META}", self.name);
            let file = rustix::fs::openat(&self.place, &path, flags, Mode::from_raw_mode(0o600))?;
            rustix::io::write(&file, &text)?;
            rustix::fs::syncfs(&self.files)?;
            let store = rustix::fs::open(root::LAYERS, FOLDER, Mode::empty())?;
            // Removed while it is touched: then there is room for this one.
            while let Err(error) =
                rustix::fs::renameat_with(&self.place, &self.name, &store, &name, RenameFlags::NOREPLACE)
            {
                match error {
                    Errno::EXIST if touch(&store, &name)? => break,
                    Errno::EXIST => {}
                    error => return Err(error),
                }
            }
            rustix::fs::fsync(&store)
        };
        finish().on(Step::Store, &name)?;
        Ok(Worked::Layer { id, about })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A layer that got its name is not here any more; what cannot be removed is swept by the next server.
        let _ = sandhold_layers::remove(self.place.as_fd(), self.name.as_bytes());
    }
}

/// Says that a layer was asked for just now: it is not removed for a while. `false`: it is being removed.
pub(crate) fn touch(store: &OwnedFd, name: &str) -> Result<bool, Errno> {
    let layer = match rustix::fs::openat(store, name, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    // Whoever removes it locks it alone, and looks at its age and renames it while it is.
    rustix::fs::flock(&layer, FlockOperation::LockShared)?;
    let there = rustix::fs::statat(store, name, AtFlags::SYMLINK_NOFOLLOW);
    if there.map(|there| there.st_ino) != Ok(rustix::fs::fstat(&layer)?.st_ino) {
        return Ok(false);
    }
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    rustix::fs::utimensat(&layer, META, &times, AtFlags::SYMLINK_NOFOLLOW).map(|()| true)
}

fn layer(store: &OwnedFd, id: &LayerId) -> Result<OwnedFd, Failure> {
    let path = format!("{id}/{FILES}");
    rustix::fs::openat(store, &path, FOLDER, Mode::empty()).on(Step::Layers, &path)
}

/// The files of layers, the highest first.
fn layers(store: &OwnedFd, ids: &[LayerId]) -> Result<Vec<OwnedFd>, Failure> {
    ids.iter().rev().map(|id| layer(store, id)).collect()
}

fn borrowed(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

/// Unpacks a layer of an image.
pub(super) fn unpack(launcher: &Launcher, order: &Unpack, archive: OwnedFd) -> Result<Worked, Failure> {
    let below = layers(&store()?, &order.below)?;
    let draft = Draft::make(&order.draft)?;
    let limits = Limits {
        bytes: order.max_bytes,
        files: order.max_files,
        ..Limits::default()
    };
    let owners = stored(launcher);
    let unpack = || -> Result<Summary, Error> {
        let mut tar = sandhold_layers::stream(File::from(archive), order.compression.into(), order.max_tar)?;
        let summary = sandhold_layers::unpack(&mut tar, draft.files.as_fd(), &borrowed(&below), owners, &limits)?;
        match &order.diff_id {
            Some(diff_id) => tar.expect(&diff_id.0)?,
            None => drop(tar.finish()?),
        }
        Ok(summary)
    };
    match unpack() {
        Ok(_) => draft.finish(owners),
        Err(error) => Ok(failed(&error, "")),
    }
}

/// Writes a held layer to the store.
pub(super) fn keep(launcher: &Launcher, order: &Transfer) -> Result<Worked, Failure> {
    let from = open_held(launcher, order.number)?;
    let draft = Draft::make(&order.draft)?;
    let owners = stored(launcher);
    let from_owners = held(launcher, order.from);
    match sandhold_layers::copy(
        from.as_fd(),
        draft.files.as_fd(),
        from_owners,
        owners,
        &Limits::default(),
    ) {
        Ok(_) => draft.finish(owners),
        Err(error) => Ok(failed(&error, "")),
    }
}

/// Writes what layers show together as one to the store.
pub(super) fn merge(launcher: &Launcher, draft: &str, below: &[LayerId], ids: &[LayerId]) -> Result<Worked, Failure> {
    let store = store()?;
    let (upper, below) = (layers(&store, ids)?, layers(&store, below)?);
    let draft = Draft::make(draft)?;
    let owners = stored(launcher);
    let limits = Limits::default();
    match sandhold_layers::merge(
        &borrowed(&upper),
        &borrowed(&below),
        draft.files.as_fd(),
        owners,
        &limits,
    ) {
        Ok(_) => draft.finish(owners),
        Err(error) => Ok(failed(&error, "")),
    }
}

/// Holds a layer's files against its name.
pub(super) fn verify(launcher: &Launcher, id: &LayerId) -> Result<Worked, Failure> {
    let files = layer(&store()?, id)?;
    Ok(match sandhold_layers::digest(files.as_fd(), stored(launcher)) {
        Ok((found, summary)) => Worked::Layer {
            id: found,
            about: About {
                bytes: summary.bytes,
                files: summary.files,
            },
        },
        Err(error) => failed(&error, &id.to_string()),
    })
}

/// Removes what is in the temporary folder under this name.
pub(super) fn remove(name: &str) -> Result<Worked, Failure> {
    let place = rustix::fs::open(format!("{}/{TEMPORARY}", root::LAYERS), FOLDER, Mode::empty());
    let place = place.on(Step::Store, TEMPORARY)?;
    Ok(match sandhold_layers::remove(place.as_fd(), name.as_bytes()) {
        Ok(()) => Worked::Removed,
        Err(error) => failed(&error, name),
    })
}

/// Removes what a server that is gone left of temporary folders, and its lock. What stays is swept by the next server.
pub(super) fn tidy(prefix: &str) {
    let Ok(place) = rustix::fs::open(temporary(""), FOLDER, Mode::empty()) else {
        return;
    };
    let names = rustix::fs::Dir::read_from(&place).into_iter().flatten().flatten();
    let names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let own = format!("{prefix}-");
    for name in names.iter().filter(|name| name.starts_with(&own)) {
        let _ = sandhold_layers::remove(place.as_fd(), name.as_bytes());
    }
    let _ = rustix::fs::unlinkat(&place, format!("{prefix}{LOCK}"), AtFlags::empty());
}

/// How much a temporary folder holds.
pub(super) fn measure(name: &str) -> Result<Worked, Failure> {
    let folder = rustix::fs::open(temporary(name), FOLDER, Mode::empty()).on(Step::Store, name)?;
    Ok(match sandhold_layers::measure(folder.as_fd()) {
        Ok(size) => Worked::Measured(About {
            bytes: size.disk,
            files: size.files,
        }),
        Err(error) => failed(&error, name),
    })
}

fn open_held(launcher: &Launcher, number: u64) -> Result<OwnedFd, Failure> {
    let held = launcher.vault()?.get(&[number]).on(Step::Layers, "held ones")?;
    let mount = held.first().ok_or(Errno::NOENT).on(Step::Layers, "held ones")?;
    rustix::fs::openat(mount, WRITTEN, FOLDER, Mode::empty()).on(Step::Layers, "held ones")
}

/// Copies what a sandbox wrote while it stands still, and holds the copy.
pub(super) fn copy(
    launcher: &Launcher,
    (pid, proc): (Pid, busy::Proc),
    order: &Transfer,
    border: &OwnedFd,
) -> Result<Worked, Failure> {
    let processes = busy::Processes::of(pid, &proc).on(Step::Look, "/proc")?;
    let _stopped = order
        .stop
        .then(|| processes.stop())
        .transpose()
        .on(Step::Look, "stopping processes")?;
    let from = upper_of(launcher, &proc, border)?;
    let copy = stack::memory(order.max_bytes, order.max_files)?;
    let into = rustix::fs::openat(&copy, WRITTEN, FOLDER, Mode::empty()).at(Step::Root)?;
    let limits = Limits {
        bytes: order.max_bytes,
        files: order.max_files,
        ..Limits::default()
    };
    let owners = (held(launcher, order.from), stored(launcher));
    if let Err(error) = sandhold_layers::copy(from.as_fd(), into.as_fd(), owners.0, owners.1, &limits) {
        return Ok(failed(&error, ""));
    }
    launcher.vault()?.put(order.number, &copy).at(Step::Vault)?;
    Ok(Worked::Copied)
}

/// What a sandbox writes to now.
fn upper_of(launcher: &Launcher, proc: &busy::Proc, border: &OwnedFd) -> Result<OwnedFd, Failure> {
    let mounts = rustix::fs::openat(proc.fd(), "ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mounts = mounts.on(Step::Look, "ns/mnt")?;
    let open = || rustix::fs::openat(border, format!("{UPPER}/{WRITTEN}"), FOLDER, Mode::empty());
    launcher.vault()?.at(&mounts, open).on(Step::Look, "what it wrote")
}

/// What differs between a part of a sandbox's root and its files now.
pub(super) fn changes(
    launcher: &Launcher,
    (_, proc): (Pid, busy::Proc),
    order: &Look,
    border: &OwnedFd,
) -> Result<Worked, Failure> {
    let users = rustix::fs::openat(proc.fd(), "ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let users = users.on(Step::Look, "ns/user")?;
    let written = upper_of(launcher, &proc, border)?;
    let vault = launcher.vault()?.for_worker().at(Step::Vault)?;
    // With the sandbox's id map, so that owners can be compared.
    let mapped = launcher.hello.ids == IdSource::Ranges;
    let lowers = create::lowers(&vault, &order.stack, mapped.then(|| users.as_fd()))?;
    stack::attach_layers(&order.stack, &lowers)?;
    let paths = stack::lowers(&order.stack);
    let folders = paths
        .iter()
        .map(|path| rustix::fs::open(path, FOLDER, Mode::empty()).on(Step::Layers, path))
        .collect::<Result<Vec<_>, _>>()?;
    let above = order.above.min(folders.len());
    let mut upper = vec![written.as_fd()];
    upper.extend(folders[..above].iter().map(AsFd::as_fd));
    let furnished = Furnished::of(launcher, order);
    let most = order.most + furnished.0.len();
    Ok(
        match sandhold_layers::changes(&upper, &borrowed(&folders[above..]), most) {
            Ok(changes) => Worked::Changes(furnished.left_out(changes, &upper, order.most).into()),
            Err(error) => failed(&error, ""),
        },
    )
}

/// What the sandbox's own files are made with: path, and content if it is a file.
struct Furnished(Vec<(String, Option<String>)>);

impl Furnished {
    fn of(launcher: &Launcher, order: &Look) -> Self {
        let hosts = format!("{}{}\n", etc::LOCAL_HOSTS, order.hostname);
        let files = [
            (etc::HOSTNAME, format!("{}\n", order.hostname)),
            (etc::HOSTS, hosts),
            (etc::RESOLV_CONF, etc::resolv_conf()),
        ];
        let points = stack::POINTS.iter().map(|path| (*path).to_owned());
        let trees = launcher.template.trees.iter().map(|tree| tree.target.clone());
        let folders = points
            .chain(trees)
            .chain(["opt/sandhold".to_owned()])
            .map(|path| (path, None));
        let files = files.map(|(path, content)| (path.to_owned(), Some(content)));
        Self(folders.chain(files).collect())
    }

    fn left_out(&self, mut changes: Changes, upper: &[BorrowedFd<'_>], most: usize) -> Changes {
        changes.changes.retain(|change| !self.is_one(change, upper));
        changes.truncated |= changes.changes.len() > most;
        changes.changes.truncate(most);
        changes
    }

    fn is_one(&self, change: &Change, upper: &[BorrowedFd<'_>]) -> bool {
        let Some(path) = change
            .path
            .strip_prefix(b"/")
            .and_then(|path| std::str::from_utf8(path).ok())
        else {
            return false;
        };
        let Some((path, content)) = self.0.iter().find(|(known, _)| known == path) else {
            return false;
        };
        match content {
            None => change.kind == ChangeKind::Added,
            Some(content) => upper.iter().any(|layer| {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let mut found = vec![0; content.len() + 1];
                // Its folders may be links to anywhere by now.
                let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let read = rustix::fs::openat2(layer, path.as_str(), flags, Mode::empty(), inside)
                    .and_then(|file| rustix::io::read(&file, &mut found));
                read == Ok(content.len()) && found.starts_with(content.as_bytes())
            }),
        }
    }
}
