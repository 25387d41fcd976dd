//! The launcher's own root: a small tmpfs with only what sandboxes are built from.
//!
//! ```text
//! /proc /sys   the host's, needed to write id maps and because the kernel lets a user namespace mount a new procfs or
//!              sysfs only while it sees an unobstructed one
//! /d           /dev of every sandbox: the six harmless nodes, links, mount points; read-only
//! /f           the template's shared immutable folder; read-only
//! /t/N         the template's host trees; read-only, nosuid, nodev
//! /s           where a sandbox's new root is attached before it is entered
//! /b           the lowest layer of the template: what all sandboxes begin with, read-only
//! /n           a layer of nothing
//! /l           the store of layers, if there is one
//! /h           where held layers are attached
//! /v           the held layers themselves, in the vault: see [`super::vault`]
//! ```
//!
//! A fork into a new mount namespace copies every mount it sees, so this is also what makes starting cheap; and a
//! sandbox's first process never sees the host's root, not even before its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, makedev, mknodat, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree, unmount,
};

use super::message::{At, Failure, Step};
use crate::sys::{Unshare, set_attributes, unshare};
use crate::template::{Entry, Owner, Template};

/// The places of the private root.
pub(super) const DEV: &str = "/d";
/// The template's shared folder.
pub(super) const FIXED: &str = "/f";
/// The folder of programs in it.
const PROGRAMS: &str = "bin";
/// How much of a program is copied at once.
const COPY_BYTES: usize = 1 << 30;
/// An empty read-only folder.
pub(super) const EMPTY: &str = "/f/empty";
/// The template's lowest layer.
pub(super) const BASE: &str = "/b";
/// A layer of nothing.
pub(super) const NOTHING: &str = "/n";
/// The store of layers.
pub(super) const LAYERS: &str = "/l";
/// Where held layers are attached.
pub(super) const HELD: &str = "/h";
/// The held layers themselves.
pub(super) const VAULT: &str = "/v";
/// Where new roots are attached.
pub(super) const STAGE: &str = "/s";

/// The path of host tree `index`.
pub(super) fn tree(index: usize) -> String {
    format!("/t/{index}")
}

/// Read-only, without set-user-id programs and device nodes.
pub(super) const LOCKED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Device nodes of every sandbox: name, major, minor.
const NODES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const DEV_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Parts of /proc that stay visible but become read-only.
const PROC_READ_ONLY: &[&str] = &["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// Parts of /proc that become empty.
const PROC_HIDDEN: &[&str] = &[
    "acpi",
    "asound",
    "interrupts",
    "kallsyms",
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];
/// Parts of /sys that become empty. Not in the list: kernel/debug, tracing, security and config, which are empty in every
/// new sysfs until something is mounted there.
const SYS_HIDDEN: &[&str] = &["firmware", "devices/virtual/powercap"];

/// What of the lists above this host has.
pub(super) struct Masks {
    pub(super) proc_read_only: Vec<&'static str>,
    pub(super) proc_hidden: Vec<Hidden>,
    pub(super) sys_hidden: Vec<Hidden>,
}

/// A path to hide.
pub(super) struct Hidden {
    pub(super) path: &'static str,
    pub(super) is_dir: bool,
}

impl Masks {
    pub(super) fn of_this_host() -> Self {
        let existing = |base: &str, list: &[&'static str]| {
            list.iter()
                .filter_map(|path| {
                    let kind = std::fs::symlink_metadata(Path::new(base).join(path)).ok()?;
                    Some(Hidden {
                        path,
                        is_dir: kind.is_dir(),
                    })
                })
                .collect()
        };
        Self {
            proc_read_only: PROC_READ_ONLY
                .iter()
                .copied()
                .filter(|path| Path::new("/proc").join(path).exists())
                .collect(),
            proc_hidden: existing("/proc", PROC_HIDDEN),
            sys_hidden: existing("/sys", SYS_HIDDEN),
        }
    }
}

/// Leaves the host's mounts for the private root.
///
/// `init` stands in the template's shared folder under each name of `programs`; `store` is the folder of layers, or empty;
/// `ids` own what is in the lowest layer.
pub(super) fn enter(
    template: &Template,
    init: Option<&OwnedFd>,
    programs: &[String],
    store: &str,
    ids: Option<Ids>,
) -> Result<(), Failure> {
    unshare(Unshare::Mounts).at(Step::MountNamespace)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Step::MountNamespace)?;
    rustix::process::umask(Mode::empty());
    let proc = bare_or_whole("/proc")?;
    let sys = bare_or_whole("/sys")?;
    let dev = open_dir(CWD, "/dev").on(Step::PrivateRoot, "/dev")?;
    let trees = template
        .trees
        .iter()
        .map(|tree| {
            let mount = host_tree(&tree.source)?;
            set_attributes(mount.as_fd(), true, LOCKED, None).on(Step::HostTree, &tree.source)?;
            Ok(mount)
        })
        .collect::<Result<Vec<_>, Failure>>()?;

    let store = if store.is_empty() {
        None
    } else {
        let mount = host_tree(store)?;
        let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        set_attributes(mount.as_fd(), true, safe, None).on(Step::Store, store)?;
        Some(mount)
    };

    let root = tmpfs(&[("mode", "0755")], MountAttrFlags::MOUNT_ATTR_NOSUID).at(Step::PrivateRoot)?;
    // Any folder will do to attach it to: it becomes the root in a moment. /usr is there, or there would be no template.
    attach(&root, CWD, "/usr").at(Step::PrivateRoot)?;
    for path in ["proc", "sys", "d", "f", "t", "s", "b", "n", "l", "h", "v"] {
        make_dir(&root, path, 0o755).on(Step::PrivateRoot, path)?;
    }
    attach(&proc, &root, "proc").on(Step::PrivateRoot, "/proc")?;
    attach(&sys, &root, "sys").on(Step::PrivateRoot, "/sys")?;
    for (index, (mount, tree)) in trees.iter().zip(&template.trees).enumerate() {
        let path = format!("t/{index}");
        make_dir(&root, &path, 0o755).on(Step::HostTree, &tree.source)?;
        attach(mount, &root, &path).on(Step::HostTree, &tree.source)?;
    }
    make_dev(&root, &dev)?;
    make_fixed(&root, template, init, programs)?;
    make_base(&root, template, ids)?;
    if let Some(store) = store {
        attach(&store, &root, "l").at(Step::Store)?;
    }
    let vault = tmpfs(&[("mode", "0700")], MountAttrFlags::MOUNT_ATTR_NOSUID).at(Step::PrivateRoot)?;
    attach(&vault, &root, "v").at(Step::PrivateRoot)?;
    set_attributes(root.as_fd(), false, LOCKED, None).at(Step::PrivateRoot)?;
    switch_to(&root).at(Step::PrivateRoot)
}

/// Makes `root`, an attached mount, the root of this mount namespace and lets go of the old one.
pub(super) fn switch_to(root: &OwnedFd) -> Result<(), rustix::io::Errno> {
    rustix::process::fchdir(root)?;
    // The old root is stacked on the new one, from where it is taken off: no folder for it is needed.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// A mount without those below it, which every fork would copy; in a user namespace those are locked to it and come along.
fn bare_or_whole(path: &str) -> Result<OwnedFd, Failure> {
    clone_tree(CWD, path, false)
        .or_else(|_| clone_tree(CWD, path, true))
        .on(Step::HostTree, path)
}

fn host_tree(path: &str) -> Result<OwnedFd, Failure> {
    clone_tree(CWD, path, true).on(Step::HostTree, path)
}

/// A copy of the mount at `path`, or of `at` itself if that is empty, with what is below it if `recursive`, attached nowhere.
pub(super) fn clone_tree(at: impl AsFd, path: &str, recursive: bool) -> Result<OwnedFd, rustix::io::Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(at, path, flags)
}

/// A new file system.
pub(super) fn new_fs(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, rustix::io::Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        fsconfig_set_string(&context, *name, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

pub(super) fn tmpfs(options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, rustix::io::Errno> {
    new_fs("tmpfs", options, attributes)
}

/// Puts a mount that is attached nowhere onto `path`.
pub(super) fn attach(mount: &OwnedFd, at: impl AsFd, path: &str) -> Result<(), rustix::io::Errno> {
    move_mount(mount, "", at, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn open_dir(at: impl AsFd, path: &str) -> Result<OwnedFd, rustix::io::Errno> {
    openat(
        at,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

pub(super) fn make_dir(at: impl AsFd, path: &str, mode: u32) -> Result<(), rustix::io::Errno> {
    rustix::fs::mkdirat(at, path, Mode::from_raw_mode(mode))
}

/// The ids of the owners of a template's entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    /// Of what is root's.
    pub(super) root: u32,
    /// Of what is the user's.
    pub(super) user: u32,
}

/// Makes one entry of a template below `root`, its owner's if ids can be given.
pub(super) fn make_entry(root: BorrowedFd<'_>, entry: &Entry, ids: Option<Ids>) -> Result<(), Failure> {
    let (Entry::Dir { path, .. } | Entry::File { path, .. } | Entry::Link { path, .. }) = entry;
    let give = |fd: BorrowedFd<'_>, path: &str, owner: Owner| {
        let Some(ids) = ids else { return Ok(()) };
        let id = match owner {
            Owner::Root => ids.root,
            Owner::User => ids.user,
        };
        let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
        rustix::fs::chownat(fd, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    };
    let make = || match entry {
        Entry::Dir { mode, owner, .. } => {
            make_dir(root, path, *mode)?;
            give(root, path, *owner)
        }
        Entry::File {
            mode, owner, content, ..
        } => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(root, path, flags, Mode::from_raw_mode(*mode))?;
            let mut rest = content.as_slice();
            while !rest.is_empty() {
                rest = &rest[rustix::io::write(&file, rest)?..];
            }
            give(root, path, *owner)
        }
        Entry::Link { target, .. } => {
            rustix::fs::symlinkat(target, root, path)?;
            give(root, path, Owner::Root)
        }
    };
    make().on(Step::Files, path)
}

/// The /dev that all sandboxes share.
fn make_dev(root: &OwnedFd, host: &OwnedFd) -> Result<(), Failure> {
    let dev = tmpfs(&[("mode", "0755"), ("size", "64k")], MountAttrFlags::MOUNT_ATTR_NOSUID).at(Step::Dev)?;
    attach(&dev, root, "d").at(Step::Dev)?;
    for (name, major, minor) in NODES {
        // Root makes nodes of its own, which costs a sandbox no mount; an ordinary user has to bind the host's.
        let mode = Mode::from_raw_mode(0o666);
        let made = mknodat(&dev, *name, FileType::CharacterDevice, mode, makedev(*major, *minor));
        let usable = made.is_ok() && openat(&dev, *name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).is_ok();
        if usable || (made.is_ok() && *name == "tty") {
            continue;
        }
        if made.is_err() {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&dev, *name, flags, mode).on(Step::Dev, name)?;
        }
        let node = clone_tree(host, name, false).on(Step::Dev, name)?;
        let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        set_attributes(node.as_fd(), false, safe, None).on(Step::Dev, name)?;
        attach(&node, &dev, name).on(Step::Dev, name)?;
    }
    for (name, target) in DEV_LINKS {
        rustix::fs::symlinkat(*target, &dev, *name).on(Step::Dev, name)?;
    }
    for name in ["pts", "shm"] {
        make_dir(&dev, name, 0o755).on(Step::Dev, name)?;
    }
    // NODEV would make the nodes useless.
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    set_attributes(dev.as_fd(), false, attributes, None).at(Step::Dev)
}

/// The lowest layer: what the template gives each sandbox as its own.
fn make_base(root: &OwnedFd, template: &Template, ids: Option<Ids>) -> Result<(), Failure> {
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let base = tmpfs(&[("mode", "0755")], safe).at(Step::Template)?;
    attach(&base, root, "b").at(Step::Template)?;
    for entry in &template.own {
        make_entry(base.as_fd(), entry, ids)?;
    }
    if let Some(ids) = ids {
        let (uid, gid) = (rustix::fs::Uid::from_raw(ids.root), rustix::fs::Gid::from_raw(ids.root));
        rustix::fs::chownat(&base, ".", Some(uid), Some(gid), AtFlags::empty()).at(Step::Template)?;
    }
    set_attributes(base.as_fd(), false, LOCKED, None).at(Step::Template)
}

/// The folder that all sandboxes share.
fn make_fixed(root: &OwnedFd, template: &Template, init: Option<&OwnedFd>, programs: &[String]) -> Result<(), Failure> {
    let fixed = tmpfs(
        &[("mode", "0755")],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )
    .at(Step::Template)?;
    attach(&fixed, root, "f").at(Step::Template)?;
    for entry in &template.fixed {
        make_entry(fixed.as_fd(), entry, None)?;
    }
    if let (Some(init), [first, others @ ..]) = (init, programs) {
        make_dir(&fixed, PROGRAMS, 0o755).on(Step::Template, PROGRAMS)?;
        let path = |name: &str| format!("{PROGRAMS}/{name}");
        copy_program(init, &fixed, &path(first)).on(Step::Template, first)?;
        for name in others {
            linkat(&fixed, path(first), &fixed, path(name), AtFlags::empty()).on(Step::Template, name)?;
        }
    }
    set_attributes(fixed.as_fd(), false, LOCKED, None).at(Step::Template)
}

/// A copy, because what runs as process 1 may be executed but not be read.
fn copy_program(init: &OwnedFd, folder: &OwnedFd, path: &str) -> Result<(), rustix::io::Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(folder, path, flags, Mode::from_raw_mode(0o755))?;
    let mut offset = 0;
    loop {
        match rustix::fs::sendfile(&file, init, Some(&mut offset), COPY_BYTES) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
