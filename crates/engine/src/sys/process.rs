//! Signals, descriptors and exec of the launcher and its children.

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// The last signal number of Linux.
const LAST_SIGNAL: c_int = 64;

/// Gives every signal its default action, which children inherit through exec, and unblocks all.
pub(crate) fn default_signals() {
    // The kernel's struct sigaction is at most this long; all zeroes are the default action with no flags. Asked of the
    // kernel directly, because the C library keeps two signals to itself, which a parent may have left ignored.
    let default = [0u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the action runs no code of this process and `default` outlives the call; the numbers that cannot be
        // changed (SIGKILL, SIGSTOP) are refused without effect.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                0usize,
                size_of::<u64>(),
            )
        };
    }
    unblock_signals();
}

/// Lets the kernel reap children by itself.
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN runs no code of this process.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Undoes [`ignore_children`] in a child, whose init program has to reap.
pub(crate) fn own_signals() {
    // SAFETY: SIG_DFL runs no code of this process.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

fn unblock_signals() {
    // SAFETY: sigset_t is plain data, for which zeroes are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid place for a signal set.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: `set` was made by sigemptyset and the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Closes every descriptor from `first` on. Only for the start of a program, while nothing owns any of them.
pub(crate) fn close_from(first: u32) -> Result<(), Errno> {
    close_range(first, 0)
}

/// Marks every descriptor from `first` on to be closed by exec.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: with the flag nothing is closed now; without it the caller vouches that nothing owns the descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(super::last_error()) }
}

/// Makes `fd` appear as descriptor `number`, which exec keeps open. What was there is closed: the caller sees to it that
/// nothing uses it.
pub(crate) fn move_to(fd: OwnedFd, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        // Already there: only the flag has to go. The descriptor is meant to outlive its owner.
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty())?;
        let _ = fd.into_raw_fd();
        return Ok(());
    }
    // SAFETY: the number is reserved for this purpose by the launcher, so no owner's descriptor is replaced.
    let mut target = unsafe { OwnedFd::from_raw_fd(number) };
    let result = rustix::io::dup2(&fd, &mut target);
    let _ = target.into_raw_fd();
    result
}

/// Replaces this process by the program in `file`. Returns only the error.
pub(crate) fn execute(file: BorrowedFd<'_>, args: &[&CStr], env: &[&CStr]) -> Errno {
    let pointers = |list: &[&CStr]| -> Vec<*const c_char> {
        list.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists are null-terminated arrays of C strings that outlive the call; the path is an empty C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    super::last_error()
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(super::last_error()) }
}
