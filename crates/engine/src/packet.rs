//! JSON packets with descriptors over a `SOCK_SEQPACKET` socket. Used by both ends of the launcher's socket; blocking or
//! not as the socket is.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{MESSAGE, MOUNTS};

/// Most descriptors beside one packet.
const FDS: usize = MOUNTS;

/// Sends one packet.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[&OwnedFd]) -> Result<(), Errno> {
    let text = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    if text.len() > MESSAGE {
        return Err(Errno::MSGSIZE);
    }
    send_bytes(socket, &text, fds)
}

/// Sends bytes as one packet.
pub(crate) fn send_bytes(socket: impl AsFd, bytes: &[u8], fds: &[&OwnedFd]) -> Result<(), Errno> {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Receives one packet of this kind. An end of the stream is `CONNRESET`, a packet that is too long, carries too many
/// descriptors or is not of this kind is `BADMSG`.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), Errno> {
    let mut buffer = vec![0; MESSAGE];
    let (len, fds) = receive_bytes(socket, &mut buffer)?;
    if len == 0 {
        return Err(Errno::CONNRESET);
    }
    Ok((serde_json::from_slice(&buffer[..len]).map_err(|_| Errno::BADMSG)?, fds))
}

/// Receives one packet into `buffer`; 0 bytes are the end of the stream.
pub(crate) fn receive_bytes(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match recvmsg(&socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::BADMSG);
    }
    Ok((received.bytes, fds))
}
