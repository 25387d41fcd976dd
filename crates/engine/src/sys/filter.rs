//! Installing a seccomp filter.

use rustix::io::Errno;

/// Installs `program` for the calling thread and all it starts. `no_new_privs` must be set already.
pub(crate) fn install(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` names `len` instructions that live until the call returns; the kernel copies and verifies them and
    // does not write to them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog) };
    if result == 0 { Ok(()) } else { Err(super::last_error()) }
}
