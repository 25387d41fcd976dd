//! The fenced module: every raw system call, fork and clone of the probes.
#![expect(unsafe_code, reason = "raw system calls are what is tried")]

mod calls;
mod process;
mod sockets;

pub(crate) use calls::{CALLS, OLD_CALLS};
pub(crate) use process::{Ended, clone_with, clone3_with, end, in_child, open_descriptors, own_namespaces, sleeper};
pub(crate) use sockets::{
    abstract_stream, flags_of_loopback, icmp_echo, queue_exists, queue_make, raise_priority, socket, terminal_push,
    vsock_host,
};

use std::ffi::c_long;

/// One raw call: what it returned or the error's number. The arguments are null, small numbers or point to data that
/// outlives the call; see each caller.
pub(crate) fn call(number: c_long, args: [usize; 6]) -> Result<usize, i32> {
    // SAFETY: as above, and no caller names a call that changes this process's memory or frees a descriptor it owns.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    usize::try_from(result).map_err(|_| last())
}

/// The last error's number.
pub(crate) fn last() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Six arguments from fewer.
pub(crate) fn pad<const N: usize>(args: [usize; N]) -> [usize; 6] {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&args);
    all
}
