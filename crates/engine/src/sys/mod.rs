//! The only module of the engine with `unsafe`: system calls that `rustix` does not wrap, each behind a safe function.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

mod clone;
mod filter;
mod guard;
mod mount;
mod process;
mod watch;

pub(crate) use clone::{CloneFlags, Forked, SingleThreaded, Unshare, clone3, unshare};
pub(crate) use filter::install;
pub(crate) use guard::{adopt, kill_all_others, landlock_abi, pending, signal_fd};
pub(crate) use mount::set_attributes;
pub(crate) use process::{
    close_from, close_on_exec_from, default_signals, execute, ignore_children, loopback_up, move_to, own_signals,
};

pub(crate) use watch::watch;

use rustix::io::Errno;

/// The error of a call that returned -1.
fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
