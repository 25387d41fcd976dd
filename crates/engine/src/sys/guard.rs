//! What the guard of a sandbox without namespaces needs.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

/// The version of Landlock that the kernel has; 0 or less where it has none or switched it off.
pub(crate) fn landlock_abi() -> i32 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel reads no memory: the pointer must be null and the size 0.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION,
        )
    };
    i32::try_from(version).unwrap_or(0)
}

/// Blocks these signals and makes a descriptor that tells of them.
pub(crate) fn signal_fd(signals: &[i32]) -> Result<OwnedFd, Errno> {
    // SAFETY: sigset_t is plain data, for which zeroes are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid place for a signal set.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: `set` was made by sigemptyset; an unknown number is refused.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    // SAFETY: `set` is a valid set and the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    // SAFETY: `set` is a valid set; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(super::last_error());
    }
    // SAFETY: the kernel made a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The numbers of the signals that a descriptor of [`signal_fd`] tells of now.
pub(crate) fn pending(fd: &OwnedFd) -> Vec<i32> {
    const ONE: usize = size_of::<libc::signalfd_siginfo>();
    let mut buffer = [0; ONE * 8];
    let mut found = Vec::new();
    while let Ok(len @ 1..) = rustix::io::read(fd, &mut buffer) {
        // The number comes first in each entry.
        found.extend(buffer[..len].chunks_exact(ONE).map(|entry| {
            let number = [entry[0], entry[1], entry[2], entry[3]];
            i32::from_ne_bytes(number)
        }));
    }
    found
}

/// Sends SIGKILL to every process that this one may send it to, itself left out.
pub(crate) fn kill_all_others() {
    // SAFETY: sends a signal; ESRCH (nobody is left) needs no answer.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// The descriptor `number`, which this process has and does not close any more.
pub(crate) fn adopt(number: i32) -> OwnedFd {
    // SAFETY: the guard put its own descriptors there and has closed or forgotten every other owner.
    unsafe { OwnedFd::from_raw_fd(number) }
}
