//! The child's side of one sandbox: from the fork to the exec of the init program.
//!
//! The launcher has one thread and the fork copied its memory, so allocating is safe here (see
//! [`crate::sys::SingleThreaded`]). Every failure is written to the status pipe as one JSON object; the pipe closes by
//! itself when the exec succeeds.
//!
//! The order matters:
//! 1. what needs no ids, while the launcher writes the maps;
//! 2. ids, then the death signal (a change of ids clears it) and a look whether the launcher still lives;
//! 3. mounts, from descriptors, into a root that nobody else can see, while the launcher makes its cgroups; then it
//!    moves into them; then the host trees and the pivot;
//! 4. what takes away: resource limits, capabilities, `no_new_privs`, the filter; then exec.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid, getrlimit, setrlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::create::Clock;
use super::doors;
use super::message::{At, Create, Failure, IdSource, Status, Step};
use super::root::{self, attach, clone_tree, make_entry, new_fs, tmpfs};
use super::setup::{CONTROL_FD, Launcher};
use super::stack::{self, Mounts, NewRoot};
use super::wall;
use crate::limits::{LOCKED_BYTES, MOUNTS, OOM_SCORE, QUEUE_BYTES, TERMINALS, USER_ID};
use crate::sys;
use crate::template::FIXED;
use crate::{cgroup, etc, packet};

/// Descriptors that the child goes on with.
pub(super) struct Inherited {
    pub(super) gate: OwnedFd,
    pub(super) control: OwnedFd,
    pub(super) status: OwnedFd,
    pub(super) born_in_cgroup: bool,
}

/// The capabilities that Docker gives by default, here over the sandbox's own user namespace only.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// The last capability that any kernel has so far; dropping an unknown one fails with EINVAL, which ends the loop.
pub(super) const LAST_CAPABILITY: u32 = 62;

/// Values of the new /proc/sys, written while it is still writable.
const SYSCTLS: &[(&str, &str, bool)] = &[
    // No user namespace inside, whatever gets around the filter.
    ("sys/user/max_user_namespaces", "0", true),
    // As Docker: `user` may listen on port 80 and ping.
    ("sys/net/ipv4/ip_unprivileged_port_start", "0", false),
    ("sys/net/ipv4/ping_group_range", "0 2147483647", false),
];

/// Environment of the init program.
const ENVIRONMENT: &[&CStr] = &[
    c"PATH=/opt/sandhold/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    c"HOME=/root",
];

/// Becomes the sandbox's first process. Does not return.
pub(super) fn run(launcher: &mut Launcher, create: &Create, inherited: Inherited) -> ! {
    let status = match rustix::io::fcntl_dupfd_cloexec(&inherited.status, CONTROL_FD + 1) {
        Ok(status) => status,
        Err(_) => leave(1),
    };
    let mut clock = Clock::new();
    match build(launcher, create, inherited, &status, &mut clock) {
        Ok(never) => match never {},
        Err(None) => leave(0),
        Err(Some(failure)) => {
            report(&status, &Status::Failed(failure));
            leave(1)
        }
    }
}

#[expect(clippy::exit, reason = "a forked child must not return into the launcher's loop")]
pub(super) fn leave(code: i32) -> ! {
    std::process::exit(code)
}

pub(super) fn report(status: &OwnedFd, what: &Status) {
    let text = serde_json::to_vec(what).unwrap_or_default();
    // If the engine is gone there is nobody to tell.
    let _ = rustix::io::write(status, &text);
}

/// `Err(None)`: everything worked up to the exec, which was not asked for.
fn build(
    launcher: &mut Launcher,
    create: &Create,
    inherited: Inherited,
    status: &OwnedFd,
    clock: &mut Clock,
) -> Result<Infallible, Option<Failure>> {
    let Inherited {
        gate,
        control,
        status: _,
        born_in_cgroup,
    } = inherited;
    sys::own_signals();
    rustix::process::setsid().ok();
    // Raising it is open to all; where it fails, the host's own judgement has to do.
    let score = raise_oom_score().ok();
    rustix::system::sethostname(create.hostname.as_bytes()).at(Step::Hostname)?;
    sys::loopback_up().at(Step::Loopback)?;
    clock.mark("host name, loopback");
    let doors = doors::open();
    clock.mark("doors");

    let mounts = wait_at_gate(&gate)?;
    clock.mark("gate 1");
    take_ids(launcher.hello.ids, (create.uids.inside, create.gids.inside))?;
    stay_with_launcher(launcher)?;
    clock.mark("ids");

    rustix::process::umask(Mode::empty());
    let root = mount_root(launcher, create, Mounts::split(launcher, mounts.0), clock)?;
    doors::send(&control, doors, root.border.as_ref()).at(Step::Doors)?;
    let (_, tasks) = wait_at_gate(&gate)?;
    drop(gate);
    clock.mark("gate 2");
    for file in &tasks {
        rustix::io::write(file, b"0").on(Step::Cgroup, "tasks")?;
    }
    drop(tasks);
    if !born_in_cgroup {
        sys::unshare(sys::Unshare::Cgroup).on(Step::Cgroup, "namespace")?;
    }
    root.enter()?;
    clock.mark("pivot");

    arrange_descriptors(control, score)?;
    limit_resources(create)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    give_up_rights(create)?;
    clock.mark("descriptors, limits, rights");
    if launcher.wall {
        wall::close(root.border.as_ref().unwrap_or(&root.root))?;
    }
    clock.mark("second wall");
    sys::install(&launcher.filter).at(Step::Seccomp)?;
    clock.mark("filter");

    if create.trace {
        report(status, &Status::Phases(std::mem::take(&mut clock.phases)));
    }
    let (true, Some(init)) = (create.exec, &launcher.init) else {
        report(status, &Status::Dry);
        return Err(None);
    };
    let args: Vec<&CStr> = launcher.init_args.iter().map(|arg| arg.as_c_str()).collect();
    let error = sys::execute(init.as_fd(), &args, ENVIRONMENT);
    Err(Some(Failure {
        step: Step::Exec,
        object: String::new(),
        errno: error.raw_os_error(),
    }))
}

/// Waits at the gate: first until the maps are written, then until the cgroups are made. With the first come the mounts that
/// [`Mounts::split`] knows: one byte each says whether there is one. With the second come the files of the cgroups.
fn wait_at_gate(gate: &OwnedFd) -> Result<(Vec<Option<OwnedFd>>, Vec<OwnedFd>), Failure> {
    let mut present = [0; MOUNTS];
    let (len, fds) = packet::receive_bytes(gate, &mut present).at(Step::Gate)?;
    if len == 0 {
        return Err(Failure {
            step: Step::Gate,
            object: String::new(),
            errno: 0,
        });
    }
    let mut fds = fds.into_iter();
    let trees = present[..len]
        .iter()
        .map(|present| if *present == 1 { fds.next() } else { None })
        .collect();
    Ok((trees, fds.collect()))
}

/// Takes the ids of root inside, or the only one.
pub(super) fn take_ids(source: IdSource, (uid, gid): (u32, u32)) -> Result<(), Failure> {
    if source == IdSource::Single {
        // The one id that exists is the one this process has.
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[]).on(Step::Ids, "supplementary groups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).on(Step::Ids, "gid")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).on(Step::Ids, "uid")
}

/// Asks for SIGKILL when the launcher dies, and looks whether it died before it was asked: the launcher alone holds the
/// other end of the life pipe. (The parent's id is no help: seen from a new process namespace it is always 0.)
pub(super) fn stay_with_launcher(launcher: &mut Launcher) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Step::ParentDeath)?;
    // This copy of the write end would keep the pipe from hanging up.
    let null = rustix::io::dup(&launcher.life_read).at(Step::ParentDeath)?;
    drop(std::mem::replace(&mut launcher.life_write, null));
    let mut life = [PollFd::new(&launcher.life_read, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut life, Some(&now)).at(Step::ParentDeath)? > 0 {
        return Err(Failure {
            step: Step::Gate,
            object: String::new(),
            errno: 0,
        });
    }
    Ok(())
}

/// Everything of the new root.
fn mount_root(launcher: &Launcher, create: &Create, mounts: Mounts, clock: &mut Clock) -> Result<NewRoot, Failure> {
    let size = (create.disk_bytes, create.inodes);
    let root = match &create.stack {
        Some(stack) => {
            stack::attach_layers(stack, &mounts)?;
            let targets: Vec<String> = launcher.template.trees.iter().map(|tree| tree.target.clone()).collect();
            stack::mount(stack, mounts.upper.as_ref(), size, &create.hostname, &targets)?
        }
        None => own_files(launcher, create)?,
    };
    clock.mark("root");
    let new_root = &root.root;

    let fixed = clone_tree(rustix::fs::CWD, root::FIXED, true).at(Step::Template)?;
    attach(&fixed, new_root, FIXED).at(Step::Template)?;
    clock.mark("shared folder");

    let dev = clone_tree(rustix::fs::CWD, root::DEV, true).at(Step::Dev)?;
    attach(&dev, new_root, "dev").at(Step::Dev)?;
    let terminals = TERMINALS.to_string();
    let mut pts_options = vec![("ptmxmode", "0666"), ("mode", "0620"), ("max", terminals.as_str())];
    if create.gids.holds(5) {
        pts_options.push(("gid", "5"));
    }
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = new_fs("devpts", &pts_options, quiet).on(Step::Dev, "pts")?;
    attach(&pts, &dev, "pts").on(Step::Dev, "pts")?;
    let shm_size = create.shm_bytes.to_string();
    let inodes = create.inodes.to_string();
    let shm = tmpfs(
        &[("mode", "1777"), ("size", &shm_size), ("nr_inodes", &inodes)],
        stack::SAFE,
    )
    .on(Step::Dev, "shm")?;
    attach(&shm, &dev, "shm").on(Step::Dev, "shm")?;
    clock.mark("dev");

    mount_proc(launcher, new_root)?;
    clock.mark("proc");
    mount_sys(launcher, new_root)?;
    clock.mark("sys");
    if create.stack.as_ref().is_none_or(|stack| stack.host) {
        bind_trees(launcher, new_root, &mounts.trees)?;
        clock.mark("host trees");
    }
    Ok(root)
}

/// A root with files of its own, for want of overlays.
fn own_files(launcher: &Launcher, create: &Create) -> Result<NewRoot, Failure> {
    let (size, inodes) = (create.disk_bytes.to_string(), create.inodes.to_string());
    let options = [("mode", "0755"), ("size", size.as_str()), ("nr_inodes", &inodes)];
    let root = tmpfs(&options, stack::SAFE).at(Step::Root)?;
    attach(&root, rustix::fs::CWD, root::STAGE).at(Step::Root)?;
    let ids = (create.uids.holds(0) && create.uids.holds(USER_ID) && create.gids.holds(USER_ID))
        .then_some(root::Ids { root: 0, user: USER_ID });
    for entry in &launcher.template.own {
        make_entry(root.as_fd(), entry, ids)?;
    }
    // Both end with the host name.
    for path in [etc::HOSTNAME, etc::HOSTS] {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&root, path, flags, Mode::empty()).on(Step::Files, path)?;
        rustix::io::write(&file, format!("{}\n", create.hostname).as_bytes()).on(Step::Files, path)?;
    }
    Ok(NewRoot { root, border: None })
}

fn bind_trees(launcher: &Launcher, new_root: &OwnedFd, mapped: &[Option<OwnedFd>]) -> Result<(), Failure> {
    for (index, tree) in launcher.template.trees.iter().enumerate() {
        let plain;
        let mount = match mapped.get(index) {
            Some(Some(mount)) => mount,
            _ => {
                plain = clone_tree(rustix::fs::CWD, &root::tree(index), true).on(Step::HostTree, &tree.source)?;
                &plain
            }
        };
        attach(mount, new_root, &tree.target).on(Step::HostTree, &tree.source)?;
    }
    Ok(())
}

/// The attributes of /proc and /sys.
const QUIET: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

fn mount_proc(launcher: &Launcher, new_root: &OwnedFd) -> Result<(), Failure> {
    let proc = new_fs("proc", &[], QUIET).at(Step::Proc)?;
    attach(&proc, new_root, "proc").at(Step::Proc)?;
    for (path, value, required) in SYSCTLS {
        let written = cgroup::write_at(&proc, path, value);
        if *required {
            written.on(Step::Proc, path)?;
        }
    }
    for path in &launcher.masks.proc_read_only {
        let part = clone_tree(&proc, path, true).on(Step::ProcMasks, path)?;
        sys::set_attributes(part.as_fd(), true, QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY, None)
            .on(Step::ProcMasks, path)?;
        attach(&part, &proc, path).on(Step::ProcMasks, path)?;
    }
    hide(&launcher.masks.proc_hidden, &proc, Step::ProcMasks)
}

fn mount_sys(launcher: &Launcher, new_root: &OwnedFd) -> Result<(), Failure> {
    let sys = new_fs("sysfs", &[], QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY).at(Step::Sys)?;
    attach(&sys, new_root, "sys").at(Step::Sys)?;
    hide(&launcher.masks.sys_hidden, &sys, Step::Sys)
}

/// Covers files with the null device and folders with an empty one.
fn hide(paths: &[root::Hidden], at: &OwnedFd, step: Step) -> Result<(), Failure> {
    for hidden in paths {
        let source = if hidden.is_dir {
            root::EMPTY.to_owned()
        } else {
            format!("{}/null", root::DEV)
        };
        let cover = clone_tree(rustix::fs::CWD, &source, false).on(step, hidden.path)?;
        match attach(&cover, at, hidden.path) {
            // What depends on the namespace (as /proc/asound on devices) may be missing here.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).on(step, hidden.path),
        }
    }
    Ok(())
}

/// Says how soon this process is ended for memory. The file stays open: once the process has other ids and an init program
/// that nobody may look into, it cannot open it again.
pub(super) fn raise_oom_score() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/proc/self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(&file, OOM_SCORE.to_string().as_bytes())?;
    Ok(file)
}

/// Descriptors 1 and 2 are the sandbox's own null device, 3 the control socket; the rest closes at exec. Descriptor 0 is the
/// init program's `oom_score_adj`, for it to change around its forks: its children should be ended sooner than itself.
pub(super) fn arrange_descriptors(control: OwnedFd, score: Option<OwnedFd>) -> Result<(), Failure> {
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).on(Step::Descriptors, "null")?;
    rustix::stdio::dup2_stdin(score.as_ref().unwrap_or(&null)).at(Step::Descriptors)?;
    rustix::stdio::dup2_stdout(&null).at(Step::Descriptors)?;
    rustix::stdio::dup2_stderr(&null).at(Step::Descriptors)?;
    sys::move_to(control, CONTROL_FD).at(Step::Descriptors)?;
    match sys::close_on_exec_from(CONTROL_FD as u32 + 1) {
        // Before Linux 5.11. Everything was opened to be closed at exec; this is the second lock.
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(error).at(Step::Descriptors),
    }
}

/// Lowers limits; never raises one, which would need a right over the host.
pub(super) fn limit_resources(create: &Create) -> Result<(), Failure> {
    let mut limits = vec![
        (Resource::Nofile, create.open_files),
        // 1 and not 0: a core pattern that pipes into a program of the host's heeds only this value.
        (Resource::Core, 1),
        (Resource::Memlock, LOCKED_BYTES),
        (Resource::Msgqueue, QUEUE_BYTES),
    ];
    limits.extend(create.max_processes.map(|limit| (Resource::Nproc, limit)));
    limits.extend(create.max_file.map(|limit| (Resource::Fsize, limit)));
    limits
        .into_iter()
        .try_for_each(|(resource, value)| limit(resource, value))
}

/// Lowers one limit.
pub(super) fn limit(resource: Resource, limit: u64) -> Result<(), Failure> {
    let limit = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
    setrlimit(
        resource,
        Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        },
    )
    .on(Step::ResourceLimits, &format!("{resource:?}"))
}

fn give_up_rights(create: &Create) -> Result<(), Failure> {
    let is_root = create.uids.holds(0);
    let kept = if is_root { CAPABILITIES } else { CapabilitySet::empty() };
    for number in 0..=LAST_CAPABILITY {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error).on(Step::Capabilities, "bounding set"),
        }
    }
    rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
    .on(Step::Capabilities, "securebits")?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).on(Step::Capabilities, "sets")?;
    rustix::thread::set_no_new_privs(true).on(Step::Capabilities, "no_new_privs")
}
