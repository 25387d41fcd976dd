//! `clone3` as a fork with namespaces.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Proof that this process has one thread, so that a child made without `CLONE_VM` inherits no lock that a lost thread
/// held: it may allocate and use the whole standard library between clone and exec.
#[derive(Debug)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads. Whoever holds the proof must not start any.
    pub(crate) fn prove() -> Option<Self> {
        let tasks = std::fs::read_dir("/proc/self/task").ok()?;
        (tasks.count() == 1).then_some(Self(()))
    }
}

/// The `CLONE_*` bits of a child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloneFlags(u64);

impl CloneFlags {
    /// A plain fork.
    pub(crate) const NONE: Self = Self(0);
    /// User, mount, process, network, IPC and UTS namespaces.
    pub(crate) const BASE: Self = Self(
        (libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS) as u64,
    );
    /// A time namespace too (Linux 5.6, and a kernel option).
    pub(crate) const TIME: Self = Self(0x80);
    /// A cgroup namespace whose root is the cgroup that the child starts in.
    pub(crate) const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which side of the fork this is.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The process that called.
    Parent {
        /// The child's id.
        pid: Pid,
        /// Its descriptor; readable once it ended.
        pidfd: OwnedFd,
    },
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into new namespaces, and into `cgroup` (a cgroup v2 folder) if one is given.
pub(crate) fn clone3(
    _proof: &SingleThreaded,
    flags: CloneFlags,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Forked, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers; all zeroes means "nothing asked".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: neither CLONE_VM nor CLONE_FILES is set and the stack is null, so this is a fork: the child runs on its own
    // copy of memory. `args` and `pidfd` outlive the call. The proof says that no other thread's locks are copied.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if result == 0 {
        return Ok(Forked::Child);
    }
    let pid = i32::try_from(result)
        .ok()
        .and_then(Pid::from_raw)
        .filter(|_| result > 0)
        .ok_or_else(super::last_error)?;
    // SAFETY: the kernel put a new descriptor there, which nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent { pid, pidfd })
}

/// A namespace that this process can leave for a new one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unshare {
    /// User ids.
    Users,
    /// Mounts.
    Mounts,
    /// The view of cgroups.
    Cgroup,
}

/// Puts this process into a new namespace.
pub(crate) fn unshare(kind: Unshare) -> Result<(), Errno> {
    let flags = match kind {
        Unshare::Users => UnshareFlags::NEWUSER,
        Unshare::Mounts => UnshareFlags::NEWNS,
        Unshare::Cgroup => UnshareFlags::NEWCGROUP,
    };
    // SAFETY: none of these flags unshares descriptors, which is what could make an owned descriptor invalid.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
