//! A sandbox's root as an overlay: layers that stay as they are, and over them what the sandbox writes.
//!
//! ```text
//! border (tmpfs, the root of the mount namespace)      Landlock's rule names it, so that overlays can come and go
//! ├─ t   upper: a tmpfs of the disk's size             u: what the sandbox writes, w: the overlay's own
//! ├─ o   the overlay                                   the root of every process
//! └─ over all of it: an empty folder                   where root inside comes who leaves its root by `chroot`
//! ```
//!
//! So no path from inside leads to the layers or the upper. The server holds a descriptor of the border; through it the
//! upper is found again when it becomes a layer ([`super::restack`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};

use super::message::{At, Failure, LayerName, Stack, Step};
use super::root::{self, clone_tree, make_dir, tmpfs};
use super::setup::Launcher;
use crate::etc;
use crate::limits::BORDER_INODES;

/// What a sandbox must not do with its own files.
pub(super) const SAFE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
/// The folder of the upper in the border.
pub(super) const UPPER: &str = "t";
/// The folder of the overlay in the border.
pub(super) const OVER: &str = "o";
/// In the upper: what the sandbox wrote.
pub(super) const WRITTEN: &str = "u";
/// In the upper: the overlay's own folder.
pub(super) const WORK: &str = "w";

/// Mount points of every sandbox.
pub(super) const POINTS: &[&str] = &["proc", "sys", "dev", "etc", "etc/sandhold"];

/// A sandbox's own root, attached at [`root::STAGE`].
pub(super) struct NewRoot {
    /// What processes see.
    pub(super) root: OwnedFd,
    /// What is below it, where it is an overlay.
    pub(super) border: Option<OwnedFd>,
}

/// The mounts that a sandbox gets from the launcher: with its id map, or because only the launcher has them.
#[derive(Default)]
pub(super) struct Mounts {
    /// The template's host trees.
    pub(super) trees: Vec<Option<OwnedFd>>,
    /// The template's lowest layer.
    pub(super) base: Option<OwnedFd>,
    /// The store of layers.
    pub(super) store: Option<OwnedFd>,
    /// The folder that it writes to.
    pub(super) upper: Option<OwnedFd>,
    /// The held layers, the lowest first.
    pub(super) held: Vec<OwnedFd>,
}

impl Mounts {
    /// In the order of a message.
    pub(super) fn join(self) -> Vec<Option<OwnedFd>> {
        let one = [self.base, self.store, self.upper];
        let held = self.held.into_iter().map(Some);
        self.trees.into_iter().chain(one).chain(held).collect()
    }

    /// From the order of a message.
    pub(super) fn split(launcher: &Launcher, joined: Vec<Option<OwnedFd>>) -> Self {
        let mut joined = joined.into_iter();
        Self {
            trees: joined.by_ref().take(launcher.template.trees.len()).collect(),
            base: joined.next().flatten(),
            store: joined.next().flatten(),
            upper: joined.next().flatten(),
            held: joined.flatten().collect(),
        }
    }
}

/// Makes the border at [`root::STAGE`]. Its files are the sandbox's root's, whom it is of no use.
pub(super) fn border() -> Result<OwnedFd, Failure> {
    let inodes = BORDER_INODES.to_string();
    let border = tmpfs(&[("mode", "0755"), ("size", "4k"), ("nr_inodes", &inodes)], SAFE).at(Step::Root)?;
    root::attach(&border, CWD, root::STAGE).at(Step::Root)?;
    make_dir(&border, UPPER, 0o755).at(Step::Root)?;
    make_dir(&border, OVER, 0o755).at(Step::Root)?;
    Ok(border)
}

/// A new upper in memory.
pub(super) fn memory(bytes: u64, inodes: u64) -> Result<OwnedFd, Failure> {
    let (size, inodes) = (bytes.to_string(), inodes.to_string());
    let upper = tmpfs(&[("mode", "0755"), ("size", &size), ("nr_inodes", &inodes)], SAFE).at(Step::Root)?;
    fill(upper.as_fd())?;
    Ok(upper)
}

/// Makes the two folders of an upper.
pub(super) fn fill(upper: BorrowedFd<'_>) -> Result<(), Failure> {
    make_dir(upper, WRITTEN, 0o755).at(Step::Root)?;
    make_dir(upper, WORK, 0o755).at(Step::Root)
}

/// Makes what each sandbox has of its own, before anything of the layers can be seen, so that no link in them leads
/// elsewhere: mount points, and the files of its name.
pub(super) fn furnish(
    written: BorrowedFd<'_>,
    stack: &Stack,
    hostname: &str,
    targets: &[String],
) -> Result<(), Failure> {
    let dir = |path: &str| match make_dir(written, path, 0o755) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).on(Step::Files, path),
    };
    let file = |path: &str, text: &[&str]| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let write = || {
            let file = rustix::fs::openat(written, path, flags, Mode::from_raw_mode(0o644))?;
            rustix::io::write(&file, text.concat().as_bytes())
        };
        write().map(drop).on(Step::Files, path)
    };
    if stack.host && stack.layers.is_empty() {
        dir("etc")?;
    } else {
        POINTS.iter().try_for_each(|path| dir(path))?;
        if stack.host {
            targets.iter().try_for_each(|path| dir(path))?;
        } else {
            dir("opt")?;
            rustix::fs::symlinkat("../etc/sandhold", written, "opt/sandhold").on(Step::Files, "opt/sandhold")?;
        }
        file(etc::RESOLV_CONF, &[&etc::resolv_conf()])?;
    }
    file(etc::HOSTNAME, &[hostname, "\n"])?;
    file(etc::HOSTS, &[etc::LOCAL_HOSTS, hostname, "\n"])
}

/// The folders of a stack's layers, as paths of the launcher's root, the highest first.
pub(super) fn lowers(stack: &Stack) -> Vec<String> {
    let layers = stack.layers.iter().rev().map(|layer| match layer {
        LayerName::Stored(id) => format!("{}/{id}/fs", root::LAYERS),
        LayerName::Held { number, .. } => held(*number),
    });
    let base = if stack.host { root::BASE } else { root::NOTHING };
    let base = (stack.host || stack.layers.is_empty()).then(|| base.to_owned());
    layers.chain(base).collect()
}

/// Where a held layer is attached.
pub(super) fn held(number: u64) -> String {
    format!("{}/{number}/{WRITTEN}", root::HELD)
}

/// Mounts the overlay: `lowers` with the highest first, and the upper at `upper`.
pub(super) fn overlay(lowers: &[String], upper: &str) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let (written, work) = (format!("{upper}/{WRITTEN}"), format!("{upper}/{WORK}"));
    match lowers {
        [one] => fsconfig_set_string(&context, "lowerdir", one.as_str())?,
        // Linux 6.8. Before it, one value of 255 bytes was all that could be said here.
        several => several
            .iter()
            .try_for_each(|lower| fsconfig_set_string(&context, "lowerdir+", lower.as_str()))?,
    }
    fsconfig_set_string(&context, "upperdir", written.as_str())?;
    fsconfig_set_string(&context, "workdir", work.as_str())?;
    // The kernel's own marks are kept where an ordinary user's may be.
    fsconfig_set_flag(&context, "userxattr")?;
    // What was an upper becomes a lower while it is one: with an index the kernel would refuse that.
    fsconfig_set_string(&context, "index", "off")?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, SAFE)
}

/// Puts a mount over the folder that is open as `over`.
pub(super) fn cover(mount: &OwnedFd, over: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", over, "", flags)
}

/// Attaches the layers that come as mounts of their own: those with the sandbox's id map, and held ones.
pub(super) fn attach_layers(stack: &Stack, mounts: &Mounts) -> Result<(), Failure> {
    if let Some(base) = &mounts.base {
        root::attach(base, CWD, root::BASE).at(Step::Layers)?;
    }
    if let Some(store) = &mounts.store {
        root::attach(store, CWD, root::LAYERS).at(Step::Layers)?;
    }
    let numbers = stack.layers.iter().filter_map(|layer| match layer {
        LayerName::Held { number, .. } => Some(*number),
        LayerName::Stored(_) => None,
    });
    if mounts.held.is_empty() {
        return Ok(());
    }
    // Mount points of their own: the launcher's root is read-only.
    let points = tmpfs(&[("mode", "0755")], SAFE).at(Step::Layers)?;
    root::attach(&points, CWD, root::HELD).at(Step::Layers)?;
    for (number, mount) in numbers.zip(&mounts.held) {
        let name = number.to_string();
        make_dir(&points, &name, 0o755).on(Step::Layers, &name)?;
        root::attach(mount, &points, &name).on(Step::Layers, &name)?;
    }
    Ok(())
}

/// Makes the whole root at [`root::STAGE`], but for what is mounted in it.
pub(super) fn mount(
    stack: &Stack,
    upper: Option<&OwnedFd>,
    (bytes, inodes): (u64, u64),
    hostname: &str,
    targets: &[String],
) -> Result<NewRoot, Failure> {
    let border = border()?;
    let made;
    let upper = match upper {
        Some(upper) => upper,
        None => {
            made = memory(bytes, inodes)?;
            &made
        }
    };
    root::attach(upper, &border, UPPER).at(Step::Root)?;
    let written = rustix::fs::openat(
        upper,
        WRITTEN,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Step::Root)?;
    furnish(written.as_fd(), stack, hostname, targets)?;
    let overlay = overlay(&lowers(stack), &format!("{}/{UPPER}", root::STAGE)).at(Step::Overlay)?;
    root::attach(&overlay, &border, OVER).at(Step::Overlay)?;
    Ok(NewRoot {
        root: overlay,
        border: Some(border),
    })
}

impl NewRoot {
    /// Enters it: the border becomes the root of the mount namespace, the overlay that of the process.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        let Some(border) = &self.border else {
            return root::switch_to(&self.root).at(Step::Pivot);
        };
        let empty = clone_tree(CWD, root::EMPTY, false).at(Step::Pivot)?;
        root::switch_to(border).at(Step::Pivot)?;
        cover(&empty, border).at(Step::Pivot)?;
        rustix::process::fchdir(&self.root).at(Step::Pivot)?;
        rustix::process::chroot(".").at(Step::Pivot)
    }
}

/// A copy of the mount at `path` of the launcher's root, read-only, with the id map of `user_namespace` if there is one.
pub(super) fn lower(path: &str, user_namespace: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
    let tree = clone_tree(CWD, path, false)?;
    crate::sys::set_attributes(tree.as_fd(), false, root::LOCKED, user_namespace)?;
    Ok(tree)
}
