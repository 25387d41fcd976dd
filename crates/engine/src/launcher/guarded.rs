//! Sandboxes without namespaces: a guard, which is what the engine and the launcher know of, and below it the init program.
//!
//! ```text
//! launcher ── fork ──▶ guard ── fork ──▶ init program ──▶ what the sandbox runs
//!                      subreaper         takes ids, Landlock, filter, then exec
//! ```
//!
//! No process namespace ends all processes with the first one, so the guard does: it ends when the init program ends, when it
//! is told to (SIGTERM), and when the launcher is gone. Before it ends it sends SIGKILL to all at once, by user id or by
//! Landlock domain, and waits until the last one is gone: whatever the sandbox forks has the guard as its last parent. No
//! process of the sandbox can signal the guard: its user id is another, or it stands outside of their Landlock domain.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Resource, Signal, Uid, WaitOptions};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::child::{LAST_CAPABILITY, arrange_descriptors, leave, limit, limit_resources, raise_oom_score, report};
use super::create::{Born, Clock, Folders, doors, write_limits};
use super::message::{At, Create, Failure, Status, Step, Way};
use super::protocol;
use super::setup::{CONTROL_FD, Launcher};
use crate::landlock::Fence;
use crate::limits::RUNSC_SAID;
use crate::sys::{self, CloneFlags, Forked};
use crate::{etc, private};

/// Where the guard keeps what it listens to.
const LIFE_FD: i32 = 3;
const SIGNALS_FD: i32 = 4;

/// Forks the guard of one sandbox.
pub(super) fn start(
    launcher: &mut Launcher,
    create: &Create,
    (control, status): (OwnedFd, OwnedFd),
    folders: &mut Folders,
) -> Result<Born, Failure> {
    let mut clock = Clock::new();
    folders.make(launcher, create)?;
    write_limits(launcher, create)?;
    let file = if launcher.hello.unified {
        "cgroup.procs"
    } else {
        "tasks"
    };
    let doors = doors(launcher, create, file)?;
    clock.mark("cgroups");
    let forked = sys::clone3(&launcher.proof, CloneFlags::NONE, None).at(Step::Clone)?;
    match forked {
        Forked::Parent { pid, pidfd } => {
            clock.mark("fork");
            Ok(Born {
                pid,
                pidfd,
                phases: clock.phases,
            })
        }
        Forked::Child => {
            let end = guard(launcher, create, (control, status), doors);
            leave(u8::from(end.is_err()).into())
        }
    }
}

/// The guard, from its fork to its end. `Err`: the init program was not started, and the status pipe says why.
fn guard(
    launcher: &mut Launcher,
    create: &Create,
    (control, status): (OwnedFd, OwnedFd),
    doors: Vec<OwnedFd>,
) -> Result<(), ()> {
    let told = |failure: Failure| report(&status, &Status::Failed(failure));
    let signals = prepare(launcher).map_err(told)?;
    let own = rustix::process::getpid();
    let forked = sys::clone3(&launcher.proof, CloneFlags::NONE, None)
        .at(Step::Clone)
        .map_err(told)?;
    let init = match forked {
        Forked::Parent { pid, .. } => pid,
        Forked::Child => init(launcher, create, control, status, doors, own),
    };
    // All else closes: as long as a copy of the control socket or of the status pipe is here, no end of it is seen.
    let life = rustix::io::fcntl_dupfd_cloexec(&launcher.life_read, SIGNALS_FD + 1).map_err(drop)?;
    let signals = rustix::io::fcntl_dupfd_cloexec(&signals, SIGNALS_FD + 1).map_err(drop)?;
    sys::move_to(life, LIFE_FD).map_err(drop)?;
    sys::move_to(signals, SIGNALS_FD).map_err(drop)?;
    sys::close_from(SIGNALS_FD as u32 + 1).map_err(drop)?;
    if !watch(&sys::adopt(LIFE_FD), &sys::adopt(SIGNALS_FD), init) {
        // By its own id: it may not have taken those of the sandbox yet. After it nothing new comes.
        let _ = rustix::process::kill_process(init, Signal::KILL);
    }
    end_all(&launcher.hello.way, create);
    leave(0)
}

/// What the guard needs before there is anything to guard.
fn prepare(launcher: &mut Launcher) -> Result<OwnedFd, Failure> {
    sys::own_signals();
    rustix::process::setsid().ok();
    let signals = sys::signal_fd(&[libc::SIGTERM, libc::SIGCHLD]).at(Step::Guard)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Step::Guard)?;
    // This copy of the write end would keep the pipe from hanging up.
    let null = rustix::io::dup(&launcher.life_read).at(Step::ParentDeath)?;
    drop(std::mem::replace(&mut launcher.life_write, null));
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).at(Step::Guard)?;
    if let Way::Fenced(fence) = launcher.hello.way
        && !fence.own_ids
    {
        // From here on this process can signal what it starts, and nothing else of the user's.
        fence.enclose_signals().map_err(fenced)?;
    }
    Ok(signals)
}

fn fenced(error: landlock::RulesetError) -> Failure {
    Failure {
        step: Step::Landlock,
        object: error.to_string(),
        errno: 0,
    }
}

/// Waits for what ends a sandbox. Whether the init program has ended, and is no more.
fn watch(life: &OwnedFd, signals: &OwnedFd, init: Pid) -> bool {
    loop {
        let mut wait = [PollFd::new(life, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut wait, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return false,
        }
        if !wait[0].revents().is_empty() || sys::pending(signals).contains(&libc::SIGTERM) {
            return false;
        }
        while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == init {
                return true;
            }
        }
    }
}

/// Ends every process of the sandbox and waits until all are gone.
fn end_all(way: &Way, create: &Create) {
    match way {
        Way::Fenced(fence) if fence.own_ids => {
            // A process that takes the sandbox's id could be signalled by it, too: one that only does this, and again if
            // it was ended before.
            while !killed_by_id(create.uids.outside) {}
        }
        Way::Fenced(_) => sys::kill_all_others(),
        // Its own processes, which end with it; what does not is ended one by one.
        Way::Gvisor => end_strangers(&[]),
        Way::Namespaces => {}
    }
    // The kernel gives a process that is being killed no child, so one signal to all was enough; their orphans come here.
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Has all processes of a user id ended by a child that takes it. False: the child did not come to it.
fn killed_by_id(id: u32) -> bool {
    let Some(proof) = sys::SingleThreaded::prove() else {
        return true;
    };
    match sys::clone3(&proof, CloneFlags::NONE, None) {
        Ok(Forked::Child) => {
            let uid = Uid::from_raw(id);
            let taken = rustix::thread::set_thread_res_uid(uid, uid, uid);
            if taken.is_ok() {
                sys::kill_all_others();
            }
            leave(i32::from(taken.is_err()))
        }
        Ok(Forked::Parent { pid, .. }) => loop {
            match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => return status.exited(),
                Ok(None) | Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        },
        // No process can be made: then there is room again when one of the sandbox's has ended.
        Err(_) => {
            std::thread::sleep(std::time::Duration::from_millis(1));
            false
        }
    }
}

/// Becomes the sandbox's init program. Does not return.
fn init(launcher: &Launcher, create: &Create, control: OwnedFd, status: OwnedFd, doors: Vec<OwnedFd>, guard: Pid) -> ! {
    let status = match rustix::io::fcntl_dupfd_cloexec(&status, CONTROL_FD + 1) {
        Ok(status) => status,
        Err(_) => leave(1),
    };
    let mut clock = Clock::new();
    let built = if launcher.hello.way == Way::Gvisor {
        run_gvisor(launcher, create, &status, doors, guard)
    } else {
        build(launcher, create, control, &status, doors, guard, &mut clock)
    };
    match built {
        Ok(()) => leave(0),
        Err(failure) => {
            report(&status, &Status::Failed(failure));
            leave(1)
        }
    }
}

/// Everything up to the exec, which does not return. `Ok`: no exec was asked for.
fn build(
    launcher: &Launcher,
    create: &Create,
    control: OwnedFd,
    status: &OwnedFd,
    doors: Vec<OwnedFd>,
    guard: Pid,
    clock: &mut Clock,
) -> Result<(), Failure> {
    let (Way::Fenced(fence), Some(server)) = (launcher.hello.way, &launcher.private) else {
        return Err(protocol("no private folder"));
    };
    sys::default_signals();
    rustix::process::setsid().ok();
    let score = raise_oom_score().ok();
    for door in &doors {
        rustix::io::write(door, b"0").on(Step::Cgroup, "tasks")?;
    }
    drop(doors);
    let owner = fence.own_ids.then_some(create.uids.outside);
    rustix::process::umask(Mode::empty());
    let files = [("home/.profile", etc::DOT_PROFILE), ("home/.bashrc", etc::DOT_BASHRC)];
    private::make(server, &create.id, owner, &files).on(Step::PrivateFolder, &create.id)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    clock.mark("private folder");

    limit_resources(create)?;
    if let Some(limit_bytes) = create.max_data {
        limit(Resource::Data, limit_bytes)?;
    }
    give_up_rights(fence, create)?;
    stay_with_guard(guard)?;
    let folder = format!("{}/{}", launcher.hello.private, create.id);
    let (home, temporary) = (format!("{folder}/home"), format!("{folder}/tmp"));
    rustix::process::chdir(home.as_str()).on(Step::PrivateFolder, "home")?;
    arrange_descriptors(control, score)?;
    clock.mark("limits, rights, descriptors");
    fence.enclose(std::path::Path::new(&folder)).map_err(fenced)?;
    clock.mark("landlock");
    sys::install(&launcher.filter).at(Step::Seccomp)?;
    clock.mark("filter");

    if create.trace {
        report(status, &Status::Phases(std::mem::take(&mut clock.phases)));
    }
    let (true, Some(program)) = (create.exec, &launcher.init) else {
        report(status, &Status::Dry);
        return Ok(());
    };
    let own = |name: &str, value: &str| {
        CString::new(format!("{name}={value}")).map_err(|_| protocol("a path with a zero byte"))
    };
    let environment = [
        own("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")?,
        own("HOME", &home)?,
        own("TMPDIR", &temporary)?,
        // The init program's sign that it stands on the host's own root: see `sandhold_wire::boot`.
        own("SANDHOLD_PLAIN", "1")?,
    ];
    let environment: Vec<&CStr> = environment.iter().map(CString::as_c_str).collect();
    let args: Vec<&CStr> = launcher.init_args.iter().map(|arg| arg.as_c_str()).collect();
    let error = sys::execute(program.as_fd(), &args, &environment);
    Err(Failure {
        step: Step::Exec,
        object: String::new(),
        errno: error.raw_os_error(),
    })
}

/// Becomes `runsc`, or runs it to its end where no exec was asked for.
fn run_gvisor(
    launcher: &Launcher,
    create: &Create,
    status: &OwnedFd,
    doors: Vec<OwnedFd>,
    guard: Pid,
) -> Result<(), Failure> {
    sys::default_signals();
    rustix::process::setsid().ok();
    raise_oom_score().ok();
    for door in &doors {
        rustix::io::write(door, b"0").on(Step::Cgroup, "tasks")?;
    }
    drop(doors);
    stay_with_guard(guard)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).at(Step::Guard)?;
    let folder = format!("{}/{}", launcher.hello.private, create.id);
    let arguments = crate::gvisor::arguments(&folder, &create.id);
    let said = format!("{folder}/stderr");
    let null = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let stderr = std::fs::File::create(&said).on(Step::PrivateFolder, "stderr")?;
    let mut command = std::process::Command::new(&launcher.hello.runsc);
    command
        .args(&arguments[1..])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(null().on(Step::Descriptors, "null")?)
        .stdout(null().on(Step::Descriptors, "null")?)
        .stderr(stderr);
    let failed = |error: std::io::Error| Failure {
        step: Step::Runsc,
        object: launcher.hello.runsc.clone(),
        errno: error.raw_os_error().unwrap_or(0),
    };
    if create.exec {
        // Returns only the error.
        return Err(failed(std::os::unix::process::CommandExt::exec(&mut command)));
    }
    let ended = command.status().map_err(failed)?;
    if ended.success() {
        report(status, &Status::Dry);
        return Ok(());
    }
    let text = std::fs::read_to_string(&said).unwrap_or_default();
    let last: String = text
        .lines()
        .next_back()
        .unwrap_or_default()
        .chars()
        .take(RUNSC_SAID)
        .collect();
    Err(Failure {
        step: Step::Runsc,
        object: last,
        errno: 0,
    })
}

/// As root: other ids, and no capability can come back. As a user there is nothing to give up but the way to new rights.
fn give_up_rights(fence: Fence, create: &Create) -> Result<(), Failure> {
    if fence.own_ids {
        for number in 0..=LAST_CAPABILITY {
            match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
                Ok(()) => {}
                Err(Errno::INVAL) => break,
                Err(error) => return Err(error).on(Step::Capabilities, "bounding set"),
            }
        }
        let bits = CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        rustix::thread::set_capabilities_secure_bits(bits).on(Step::Capabilities, "securebits")?;
        let (uid, gid) = (Uid::from_raw(create.uids.outside), Gid::from_raw(create.gids.outside));
        rustix::thread::set_thread_groups(&[]).on(Step::Ids, "supplementary groups")?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).on(Step::Ids, "gid")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).on(Step::Ids, "uid")?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).on(Step::Capabilities, "sets")?;
    rustix::thread::set_no_new_privs(true).on(Step::Capabilities, "no_new_privs")
}

/// Asks for SIGKILL when the guard dies, and looks whether it died before it was asked.
fn stay_with_guard(guard: Pid) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Step::ParentDeath)?;
    if rustix::process::getppid() == Some(guard) {
        return Ok(());
    }
    Err(Failure {
        step: Step::Gate,
        object: String::new(),
        errno: 0,
    })
}

/// Ends processes that a guard which was ended itself left behind: the launcher is their parent then, and did not make them.
pub(super) fn end_strangers(known: &[Pid]) {
    let own = rustix::process::getpid().as_raw_pid();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    loop {
        let path = format!("/proc/self/task/{own}/children");
        let Ok(file) = rustix::fs::open(&path, flags, Mode::empty()) else {
            return;
        };
        let mut text = String::new();
        if std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut text).is_err() {
            return;
        }
        let strangers: Vec<Pid> = text
            .split_ascii_whitespace()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
            .filter(|pid| !known.contains(pid))
            .collect();
        // In the launcher the kernel does that by itself.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        if strangers.is_empty() {
            return;
        }
        for pid in strangers {
            // ESRCH: it has ended.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
