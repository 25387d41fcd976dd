//! Sending netlink messages; what is in them is written by `sandhold_netlink`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use sandhold_netlink::{Batch, report};

/// A netlink socket of this process's network namespace. The rights that the kernel looks at are those of whoever opened
/// it and of whoever sends on it. No protocol is ROUTE, which is number 0.
pub(super) fn open(protocol: Option<Protocol>) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
}

/// Sends a batch, and waits for as many reports as were asked for. The first error is returned.
pub(super) fn tell(socket: impl AsFd, batch: &Batch, reports: usize) -> Result<(), Errno> {
    send(&socket, batch.bytes(), SendFlags::empty())?;
    let mut buffer = [0; 8192];
    for _ in 0..reports {
        let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        match report(&buffer[..len]) {
            Some(0) => {}
            Some(code) => return Err(Errno::from_raw_os_error(code)),
            None => return Err(Errno::BADMSG),
        }
    }
    Ok(())
}
