//! The parent's side of one sandbox.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Gid, Pid, Signal, Uid, pidfd_send_signal};

use super::message::{At, Create, Failure, IdMap, IdSource, LayerName, Phase, Stack, Step, Way};
use super::setup::Launcher;
use super::stack::{self, Mounts};
use super::vault::Vault;
use super::{child, guarded, keeper, protocol, root};
use crate::cgroup::{remove_at, write_at};
use crate::packet;
use crate::sys::{self, CloneFlags, Forked};

/// A first process that runs.
pub(super) struct Born {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) phases: Vec<Phase>,
}

/// Times of the phases.
pub(super) struct Clock {
    last: Instant,
    pub(super) phases: Vec<Phase>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            last: Instant::now(),
            phases: Vec::new(),
        }
    }

    pub(super) fn mark(&mut self, name: &str) {
        let now = Instant::now();
        self.phases.push(Phase {
            name: name.to_owned(),
            us: (now - self.last).as_micros() as u64,
        });
        self.last = now;
    }
}

/// Forks, writes the maps, makes the cgroups and opens the gate. On failure nothing is left.
pub(super) fn create(launcher: &mut Launcher, create: Create, fds: Vec<OwnedFd>) -> Result<Born, Failure> {
    let mut fds = fds.into_iter();
    let (Some(control), Some(status)) = (fds.next(), fds.next()) else {
        return Err(protocol("descriptors are missing"));
    };
    if create.claim {
        launcher.claims.extend(fds.next());
    }
    let mut folders = Folders::default();
    let result = if launcher.hello.way == Way::Namespaces {
        start(launcher, &create, control, status, &mut folders)
    } else {
        guarded::start(launcher, &create, (control, status), &mut folders)
    };
    if result.is_err() {
        for folder in &launcher.cgroups[..folders.made] {
            remove_at(folder, &create.id);
        }
    }
    result
}

/// The cgroup folders that were made so far.
#[derive(Default)]
pub(super) struct Folders {
    made: usize,
}

impl Folders {
    pub(super) fn make(&mut self, launcher: &Launcher, create: &Create) -> Result<(), Failure> {
        for folder in &launcher.cgroups {
            root::make_dir(folder, &create.id, 0o755).on(Step::Cgroup, &create.id)?;
            self.made += 1;
        }
        Ok(())
    }
}

pub(super) fn write_limits(launcher: &Launcher, create: &Create) -> Result<(), Failure> {
    for file in &create.cgroup_files {
        let Some(folder) = launcher.cgroups.get(file.hierarchy) else {
            return Err(protocol("no such hierarchy"));
        };
        let written = write_at(folder, &format!("{}/{}", create.id, file.name), &file.value);
        if file.required {
            written.on(Step::Cgroup, &file.name)?;
        }
    }
    Ok(())
}

fn start(
    launcher: &mut Launcher,
    create: &Create,
    control: OwnedFd,
    status: OwnedFd,
    folders: &mut Folders,
) -> Result<Born, Failure> {
    let mut clock = Clock::new();
    if launcher.hello.unified {
        folders.make(launcher, create)?;
    }
    let cgroup = if launcher.hello.unified {
        launcher.cgroups.first()
    } else {
        None
    };
    let cgroup = cgroup
        .map(|folder| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(folder, &create.id, flags, Mode::empty()).on(Step::Cgroup, &create.id)
        })
        .transpose()?;
    let (gate, child_gate) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).at(Step::Gate)?;
    let mut flags = CloneFlags::BASE;
    if launcher.facts.time_namespace {
        flags = flags.and(CloneFlags::TIME);
    }
    if cgroup.is_some() {
        // In a cgroup v2 the child is born where it stays; in a v1 it is moved first and makes the namespace itself.
        flags = flags.and(CloneFlags::CGROUP);
    }
    clock.mark("before clone3");
    let forked = sys::clone3(&launcher.proof, flags, cgroup.as_ref().map(AsFd::as_fd)).at(Step::Clone)?;
    let (pid, pidfd) = match forked {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            drop(gate);
            child::run(
                launcher,
                create,
                child::Inherited {
                    gate: child_gate,
                    control,
                    status,
                    born_in_cgroup: cgroup.is_some(),
                },
            )
        }
    };
    clock.mark("clone3");
    // Whatever fails from here on: without the gate the child ends by itself, and this makes sure.
    let result = release(launcher, create, (pid, &gate), folders, &mut clock);
    if let Err(failure) = result {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let mut wait = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(&mut wait, None);
        return Err(failure);
    }
    Ok(Born {
        pid,
        pidfd,
        phases: clock.phases,
    })
}

/// What the child waits for.
fn release(
    launcher: &mut Launcher,
    create: &Create,
    (pid, gate): (Pid, &OwnedFd),
    folders: &mut Folders,
    clock: &mut Clock,
) -> Result<(), Failure> {
    let number = pid.as_raw_nonzero().get();
    let proc = rustix::fs::open(
        format!("/proc/{number}"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .on(Step::IdMaps, "/proc")?;
    write_at(&proc, "uid_map", &create.uids.line()).on(Step::IdMaps, "uid_map")?;
    write_at(&proc, "gid_map", &create.gids.line()).on(Step::IdMaps, "gid_map")?;
    clock.mark("id maps");
    let mounts = mounts(launcher, create, &proc)?.join();
    clock.mark("id-mapped mounts");
    let present: Vec<u8> = mounts.iter().map(|mount| u8::from(mount.is_some())).collect();
    packet::send_bytes(gate, &present, &mounts.iter().flatten().collect::<Vec<_>>()).at(Step::Gate)?;
    drop(mounts);
    // Meanwhile the child mounts: what it needs the cgroups for comes last.
    if !launcher.hello.unified {
        folders.make(launcher, create)?;
    }
    write_limits(launcher, create)?;
    clock.mark("cgroup limits");
    let doors = if launcher.hello.unified {
        Vec::new()
    } else {
        doors(launcher, create, "tasks")?
    };
    clock.mark("cgroup doors");
    packet::send_bytes(gate, &[0], &doors.iter().collect::<Vec<_>>()).at(Step::Gate)
}

/// The files of the child's v1 cgroups through which it moves itself in. A thread that moves itself, by the number 0 in
/// `tasks`, holds up nothing; moving another process takes a lock that waits for every processor, milliseconds on a quiet
/// machine (cgroup_procs_write_start in the kernel's kernel/cgroup/cgroup.c, since Linux 5.6). The kernel asks for the
/// rights of who opened the file.
///
/// A cgroup v2 has `cgroup.procs` for it.
pub(super) fn doors(launcher: &Launcher, create: &Create, file: &str) -> Result<Vec<OwnedFd>, Failure> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let open = |folder: &OwnedFd| {
        rustix::fs::openat(folder, format!("{}/{file}", create.id), flags, Mode::empty()).on(Step::Cgroup, file)
    };
    launcher.cgroups.iter().map(open).collect()
}

/// What the child mounts and cannot have by itself.
fn mounts(launcher: &mut Launcher, create: &Create, proc: &OwnedFd) -> Result<Mounts, Failure> {
    let mapped = launcher.hello.ids == IdSource::Ranges;
    let user_namespace = mapped
        .then(|| rustix::fs::openat(proc, "ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
        .transpose()
        .on(Step::IdMaps, "ns/user")?;
    let user_namespace = user_namespace.as_ref().map(AsFd::as_fd);
    let host = create.stack.as_ref().is_none_or(|stack| stack.host);
    let trees = match user_namespace {
        Some(user_namespace) if host => mapped_trees(launcher, user_namespace),
        _ => launcher.template.trees.iter().map(|_| None).collect(),
    };
    let Some(stack) = &create.stack else {
        return Ok(Mounts {
            trees,
            ..Mounts::default()
        });
    };
    let lowers = lowers(launcher.vault()?, stack, user_namespace)?;
    let ids = (create.uids, create.gids);
    let upper = stack
        .folder
        .as_ref()
        .map(|name| folder(launcher.hello.ids, name, ids, user_namespace));
    Ok(Mounts {
        trees,
        upper: upper.transpose()?,
        ..lowers
    })
}

/// A new folder of the store for a sandbox to write to, as a mount with the id map of `user_namespace` if there is one.
pub(super) fn folder(
    source: IdSource,
    name: &str,
    (uids, gids): (IdMap, IdMap),
    user_namespace: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Failure> {
    let path = keeper::temporary(name);
    root::make_dir(rustix::fs::CWD, &path, 0o711).on(Step::Store, name)?;
    let folder = root::clone_tree(rustix::fs::CWD, &path, false).on(Step::Store, name)?;
    stack::fill(folder.as_fd())?;
    // Of the sandbox's root: on disk as inside where there is an id map, else as it is seen here.
    let owner = match source {
        IdSource::Ranges => None,
        IdSource::SubIds => Some((uids.outside, gids.outside)),
        IdSource::Single => None,
    };
    if let Some((uid, gid)) = owner {
        for part in [stack::WRITTEN, stack::WORK] {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&folder, part, Some(uid), Some(gid), flags).on(Step::Store, name)?;
        }
    }
    sys::set_attributes(folder.as_fd(), false, stack::SAFE, user_namespace).on(Step::Store, name)?;
    Ok(folder)
}

/// The layers of a root that come as mounts of their own, with the id map of `user_namespace` if there is one.
pub(super) fn lowers(vault: &Vault, stack: &Stack, user_namespace: Option<BorrowedFd<'_>>) -> Result<Mounts, Failure> {
    let mut mounts = Mounts::default();
    if user_namespace.is_some() {
        if stack.host {
            mounts.base = Some(stack::lower(root::BASE, user_namespace).on(Step::Layers, "the template's")?);
        }
        if stack.is_stored() {
            mounts.store = Some(stack::lower(root::LAYERS, user_namespace).on(Step::Layers, "the store")?);
        }
    }
    let held = stack.layers.iter().filter_map(|layer| match layer {
        LayerName::Held { number, own } => Some((*number, *own)),
        LayerName::Stored(_) => None,
    });
    let (numbers, own): (Vec<u64>, Vec<bool>) = held.unzip();
    mounts.held = vault.get(&numbers).on(Step::Layers, "held ones")?;
    for ((mount, own), number) in mounts.held.iter().zip(own).zip(numbers) {
        let map = user_namespace.filter(|_| !own);
        sys::set_attributes(mount.as_fd(), false, root::LOCKED, map).on(Step::Layers, &number.to_string())?;
    }
    Ok(mounts)
}

/// The host trees with the child's id map, so that root's files show as root's. Where a file system takes no id map they
/// show as nobody's: that is cosmetic, and the child binds the plain tree.
fn mapped_trees(launcher: &mut Launcher, user_namespace: BorrowedFd<'_>) -> Vec<Option<OwnedFd>> {
    let mut trees = Vec::new();
    for (index, unmapped) in launcher.unmapped.iter_mut().enumerate() {
        let mapped = if *unmapped {
            None
        } else {
            root::clone_tree(rustix::fs::CWD, &root::tree(index), true)
                .ok()
                .filter(|tree| {
                    sys::set_attributes(tree.as_fd(), true, MountAttrFlags::empty(), Some(user_namespace)).is_ok()
                })
        };
        *unmapped = mapped.is_none();
        trees.push(mapped);
    }
    trees
}
