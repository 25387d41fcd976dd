//! Another overlay under a living sandbox: what it wrote so far becomes a layer, or its files become those of a layer.
//!
//! A process of its own does it, forked by the launcher, while the sandbox stands still:
//!
//! 1. it looks whether a process of the sandbox, its init program included, uses a file: such a one would go on with the
//!    old overlay, and write to what is a layer then;
//! 2. in mount namespaces of its own it makes the new upper and the new overlay, with the rights and ids of the sandbox;
//! 3. in the sandbox's mount namespace it makes the old overlay read-only, where that becomes a layer. The kernel refuses
//!    this while anything could still write to it, wherever it hides: a descriptor on its way through a socket, a shared
//!    mapping, a thread with descriptors of its own. From then on nothing can;
//! 4. it moves /proc, /dev and the like over, so that who works in them goes on, and turns the root: `pivot_root` gives the
//!    new one to every process whose root and working folder were the old one's root.
//!
//! Up to the last step nothing of the sandbox has changed, or it is undone.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, UnmountFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick, unmount};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::child::take_ids;
use super::message::{At, Failure, IdSource, Restack, Step, Worked};
use super::root::{self, attach, clone_tree, make_dir};
use super::setup::Launcher;
use super::stack::{self, OVER, UPPER, WRITTEN};
use super::vault;
use super::{busy, create, keeper};
use crate::sys::{Unshare, set_attributes, unshare};
use crate::template::FIXED;

/// The least that an upper is made with: bytes and files.
const LEAST: (u64, u64) = (64 << 10, 16);

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Puts a new overlay under the sandbox whose first process is `pid` and whose border is `border`.
pub(super) fn restack(
    launcher: &Launcher,
    (pid, proc): (Pid, busy::Proc),
    order: &Restack,
    border: &OwnedFd,
) -> Result<Worked, Failure> {
    let processes = busy::Processes::of(pid, &proc).on(Step::Look, "/proc")?;
    if order.end_others {
        processes.end_others().on(Step::Look, "ending processes")?;
    }
    let _stopped = order
        .stop
        .then(|| processes.stop())
        .transpose()
        .on(Step::Look, "stopping processes")?;
    let over = rustix::fs::openat(border, OVER, FOLDER | OFlags::NOFOLLOW, Mode::empty()).on(Step::Restack, OVER)?;
    if let Some(user) = processes.user_of(&over).on(Step::Look, "open files")? {
        return Ok(Worked::Busy(user));
    }
    let namespace = |kind: &str| {
        let path = format!("ns/{kind}");
        rustix::fs::openat(proc.fd(), &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on(Step::Restack, &path)
    };
    let (users, mounts) = (namespace("user")?, namespace("mnt")?);
    let mut size = (order.disk_bytes, order.inodes);
    let mapped = launcher.hello.ids == IdSource::Ranges;
    let vault = launcher.vault()?.for_worker().at(Step::Vault)?;

    // The old upper, from where it is attached.
    if let Some(number) = order.hold {
        let old = match &order.folder {
            // Without the sandbox's id map, which it gets from whoever takes it.
            Some(name) => clone_tree(CWD, &keeper::temporary(name), false),
            None => vault.at(&mounts, || {
                let upper = rustix::fs::openat(border, UPPER, FOLDER, Mode::empty())?;
                clone_tree(&upper, "", false)
            }),
        };
        let old = old.on(Step::Restack, "the old upper")?;
        size = left(&old).on(Step::Restack, "the old upper")?;
        set_attributes(old.as_fd(), false, root::LOCKED, None).on(Step::Restack, "the old upper")?;
        vault.put(number, &old).at(Step::Vault)?;
    }
    let lowers = create::lowers(&vault, &order.stack, mapped.then(|| users.as_fd()))?;
    // Before the store is covered by what the sandbox sees of it.
    let on_disk = order.stack.folder.as_ref();
    let on_disk =
        on_disk.map(|name| create::folder(launcher.hello.ids, name, order.ids, mapped.then(|| users.as_fd())));
    let on_disk = on_disk.transpose()?;
    stack::attach_layers(&order.stack, &lowers)?;
    drop(lowers);

    // With the sandbox's ids and rights, in a copy of all that.
    move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User)).on(Step::Restack, "its user namespace")?;
    take_ids(launcher.hello.ids, (order.ids.0.inside, order.ids.1.inside))?;
    unshare(Unshare::Mounts).on(Step::Restack, "a mount namespace")?;
    rustix::process::umask(Mode::empty());
    let upper = match on_disk {
        Some(upper) => upper,
        None => stack::memory(size.0, size.1)?,
    };
    attach(&upper, CWD, root::STAGE).on(Step::Restack, "the new upper")?;
    if order.end_others {
        let written = rustix::fs::openat(&upper, WRITTEN, FOLDER, Mode::empty()).at(Step::Root)?;
        stack::furnish(written.as_fd(), &order.stack, &order.hostname, &targets(launcher))?;
    }
    let overlay = stack::overlay(&stack::lowers(&order.stack), root::STAGE).at(Step::Overlay)?;
    let upper = clone_tree(CWD, root::STAGE, false).on(Step::Restack, "the new upper")?;
    let fixed = clone_tree(CWD, root::FIXED, true).on(Step::Restack, FIXED)?;

    vault::enter(&mounts).on(Step::Restack, "its mount namespace")?;
    // `pivot_root` turns those whose root is this process's.
    rustix::process::fchdir(&over).on(Step::Restack, "its root")?;
    rustix::process::chroot(".").on(Step::Restack, "its root")?;
    let targets = if order.stack.host {
        targets(launcher)
    } else {
        Vec::new()
    };
    let held = match order.hold.map(|_| ReadOnly::make(&over)).transpose() {
        Ok(held) => held,
        Err(Errno::BUSY) => return Ok(Worked::Busy(HIDDEN.to_owned())),
        Err(error) => return Err(error).on(Step::Restack, "the old root, read-only"),
    };
    let paths: Vec<&str> = ["dev", "proc", "sys"]
        .into_iter()
        .chain(targets.iter().map(String::as_str))
        .collect();
    stack::cover(&overlay, &over).on(Step::Restack, "the new root")?;
    let mut moved = Vec::new();
    if let Err(failure) = turn((&over, &overlay), &paths, &fixed, &mut moved) {
        for path in moved.iter().rev() {
            // They were there a moment ago.
            let _ = carry(path, &overlay, &over);
        }
        // Whatever is on top of it goes with it.
        let _ = rustix::process::fchdir(&overlay).and_then(|()| unmount(".", UnmountFlags::DETACH));
        return Err(failure);
    }
    if let Some(held) = held {
        held.stay();
    }
    // From here on the sandbox has its new root: what fails now is told as a warning.
    let replaced = || -> Result<(), Errno> {
        rustix::process::fchdir(border)?;
        unmount(UPPER, UnmountFlags::DETACH)?;
        attach(&upper, border, UPPER)
    };
    Ok(Worked::Restacked {
        untidy: replaced().err().map(|error| error.raw_os_error()),
    })
}

/// What is left of an upper's size, in bytes and files. Never nothing, which a tmpfs takes for no limit.
fn left(upper: &OwnedFd) -> Result<(u64, u64), Errno> {
    let written = rustix::fs::openat(
        upper,
        WRITTEN,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let found = rustix::fs::fstatvfs(&written)?;
    Ok((
        (found.f_bavail * found.f_frsize).max(LEAST.0),
        found.f_favail.max(LEAST.1),
    ))
}

/// The folders that host trees are bound at.
fn targets(launcher: &Launcher) -> Vec<String> {
    launcher.template.trees.iter().map(|tree| tree.target.clone()).collect()
}

/// Whoever it is that has a file which no look at the processes shows.
const HIDDEN: &str = "a process, or a socket on its behalf,";

/// An overlay that is read-only. Dropped: it is not any more.
struct ReadOnly<'a>(Option<&'a OwnedFd>);

impl<'a> ReadOnly<'a> {
    /// [`Errno::BUSY`]: something is open for writing, or was deleted and is open.
    fn make(over: &'a OwnedFd) -> Result<Self, Errno> {
        Self::set(over, "ro")?;
        Ok(Self(Some(over)))
    }

    fn set(over: &OwnedFd, flag: &str) -> Result<(), Errno> {
        let context = fspick(over, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_set_flag(&context, flag)?;
        fsconfig_reconfigure(&context)
    }

    /// For good.
    fn stay(mut self) {
        self.0 = None;
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        if let Some(over) = self.0 {
            // It was writable a moment ago.
            let _ = Self::set(over, "rw");
        }
    }
}

/// Moves what is mounted at `path` of one root to the same path of another.
fn carry(path: &str, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mount = rustix::fs::openat(from, path, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
    stack::cover(&mount, mount_point(to, path)?)
}

/// Moves what is mounted into the new overlay, which lies over the old one, and turns the root. What was moved stands in
/// `moved`.
fn turn<'a>(
    (old, new): (&OwnedFd, &OwnedFd),
    paths: &[&'a str],
    fixed: &OwnedFd,
    moved: &mut Vec<&'a str>,
) -> Result<(), Failure> {
    let point = mount_point(new, FIXED).on(Step::Restack, FIXED)?;
    stack::cover(fixed, &point).on(Step::Restack, FIXED)?;
    for path in paths {
        carry(path, old, new).on(Step::Restack, path)?;
        moved.push(path);
    }
    rustix::process::fchdir(new).on(Step::Restack, "the new root")?;
    rustix::process::pivot_root(".", ".").on(Step::Pivot, "the new root")?;
    unmount(".", UnmountFlags::DETACH).on(Step::Pivot, "the old root")
}

/// The folder at `path` of a root in which anybody may have put links; made where it is not there.
fn mount_point(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let mut here = root.try_clone().map_err(|_| Errno::MFILE)?;
    for name in path.split('/') {
        let flags = FOLDER | OFlags::NOFOLLOW;
        let next = match rustix::fs::openat(&here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => None,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                rustix::fs::unlinkat(&here, name, AtFlags::empty())?;
                None
            }
            other => Some(other?),
        };
        here = match next {
            Some(next) => next,
            None => {
                make_dir(&here, name, 0o755)?;
                rustix::fs::openat(&here, name, flags, Mode::empty())?
            }
        };
    }
    let found = rustix::fs::fstat(&here)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        Ok(here)
    } else {
        Err(Errno::NOTDIR)
    }
}
