//! `mount_setattr`.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

/// Sets `attributes` on the mount behind `mount`, on those below it too if `recursive`, and gives it the id map of
/// `user_namespace` if there is one.
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: MountAttrFlags,
    user_namespace: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: u64::from(attributes.bits())
            | if user_namespace.is_some() {
                libc::MOUNT_ATTR_IDMAP
            } else {
                0
            },
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` outlives the call and its true size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(super::last_error()) }
}
