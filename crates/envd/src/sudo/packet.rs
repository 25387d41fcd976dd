//! What caller, daemon and monitor say to each other: packets of a kind and bytes, one of them with descriptors.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::limits::{SUDO_PACKET, SUDO_REQUEST};

/// Descriptors in the one packet that has any: stdin, stdout, stderr, the working folder.
pub(crate) const DESCRIPTORS: usize = 4;

/// First byte of a packet.
pub(crate) mod kind {
    /// To the daemon: run something as the user named.
    pub(crate) const RUN: u8 = b'r';
    /// To the daemon: could something be run as the user named?
    pub(crate) const ASK: u8 = b'?';
    /// To the monitor: the descriptors; one byte says whether they are a terminal made for the command.
    pub(crate) const DESCRIPTORS: u8 = b'd';
    /// To the monitor: a piece of the request.
    pub(crate) const PIECE: u8 = b'p';
    /// To the monitor: the request is complete.
    pub(crate) const GO: u8 = b'g';
    /// To the monitor: a signal for the command's group.
    pub(crate) const SIGNAL: u8 = b's';
    /// To the caller: yes, it could be; or, the command runs.
    pub(crate) const YES: u8 = b'y';
    /// To the caller: no, and why.
    pub(crate) const REFUSED: u8 = b'x';
    /// To the caller: a line to show.
    pub(crate) const WARNING: u8 = b'w';
    /// To the caller: the command ended with this code.
    pub(crate) const EXITED: u8 = b'e';
    /// To the caller: this signal ended the command.
    pub(crate) const KILLED: u8 = b'k';
    /// To the caller: this signal stopped the command.
    pub(crate) const STOPPED: u8 = b't';
}

/// One packet.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) kind: u8,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Sends a packet.
///
/// # Errors
/// The other side is gone, or a non-blocking socket is full.
pub(crate) fn send(socket: impl AsFd, kind: u8, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    loop {
        let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(bytes)];
        match rustix::net::sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop),
        }
    }
}

/// The next packet; none at the end. What is cut off is refused, and descriptors that nobody expects are closed.
///
/// # Errors
/// The socket's, `EMSGSIZE` for a packet or a number of descriptors that is too large.
pub(crate) fn receive(socket: impl AsFd) -> rustix::io::Result<Option<Packet>> {
    let mut bytes = vec![0; SUDO_PACKET + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            // One who hangs up with unread packets resets the connection; the kernel says so once, and then gives what
            // they said before.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            got => break got?,
        }
    };
    let fds: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    let Some((kind, rest)) = bytes[..got.bytes].split_first() else {
        return Ok(None);
    };
    Ok(Some(Packet {
        kind: *kind,
        bytes: rest.to_vec(),
        fds,
    }))
}

/// What to run, in the caller's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// `-i`: a login shell.
    pub(crate) login: bool,
    /// `-s`: a shell.
    pub(crate) shell: bool,
    /// `-E`: all of the caller's environment.
    pub(crate) keep_env: bool,
    /// `-H`: the user's home, even with `-E`.
    pub(crate) set_home: bool,
    /// `-D`: the working folder, if not the caller's.
    pub(crate) folder: Option<OsString>,
    /// `--preserve-env=`: names of variables to keep.
    pub(crate) keep: Vec<OsString>,
    /// `NAME=value` before the command.
    pub(crate) set: Vec<OsString>,
    /// The command and its arguments.
    pub(crate) command: Vec<OsString>,
    /// The caller's environment, `NAME=value`.
    pub(crate) env: Vec<OsString>,
}

/// The request is too long or not one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the arguments and the environment take {0} bytes, at most {SUDO_REQUEST} are taken")]
    TooLong(usize),
    #[error("the request is not understood")]
    Unknown,
}

impl Request {
    /// As bytes: a letter, a text without zero bytes, a zero byte, for each part.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, RequestError> {
        let mut out = Vec::new();
        let mut put = |letter: u8, text: &[u8]| {
            out.push(letter);
            out.extend(text);
            out.push(0);
        };
        for (letter, on) in [
            (b'i', self.login),
            (b's', self.shell),
            (b'E', self.keep_env),
            (b'H', self.set_home),
        ] {
            if on {
                put(letter, b"");
            }
        }
        if let Some(folder) = &self.folder {
            put(b'D', folder.as_bytes());
        }
        for (letter, list) in [
            (b'k', &self.keep),
            (b'v', &self.set),
            (b'c', &self.command),
            (b'e', &self.env),
        ] {
            for text in list {
                put(letter, text.as_bytes());
            }
        }
        if out.len() > SUDO_REQUEST {
            return Err(RequestError::TooLong(out.len()));
        }
        Ok(out)
    }

    /// The request in `bytes`.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RequestError> {
        let mut request = Self::default();
        let Some(parts) = bytes.strip_suffix(b"\0") else {
            return if bytes.is_empty() {
                Ok(request)
            } else {
                Err(RequestError::Unknown)
            };
        };
        for part in parts.split(|byte| *byte == 0) {
            let (letter, text) = part.split_first().ok_or(RequestError::Unknown)?;
            let text = OsString::from_vec(text.to_vec());
            match letter {
                b'i' => request.login = true,
                b's' => request.shell = true,
                b'E' => request.keep_env = true,
                b'H' => request.set_home = true,
                b'D' => request.folder = Some(text),
                b'k' => request.keep.push(text),
                b'v' => request.set.push(text),
                b'c' => request.command.push(text),
                b'e' => request.env.push(text),
                _ => return Err(RequestError::Unknown),
            }
        }
        Ok(request)
    }
}

/// For the fuzzer: whether `bytes` are a request, which written and read again is the same.
#[cfg(fuzzing)]
pub(crate) fn same_again(bytes: &[u8]) -> Option<bool> {
    let request = Request::decode(bytes).ok()?;
    let again = request.encode().ok().and_then(|bytes| Request::decode(&bytes).ok());
    Some(again.is_some_and(|again| again == request))
}

/// Takes the descriptors and the request from a caller.
///
/// # Errors
/// The caller is gone, or says something else.
pub(crate) fn receive_request(socket: impl AsFd) -> io::Result<(bool, [OwnedFd; DESCRIPTORS], Request)> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let first = receive(&socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if first.kind != kind::DESCRIPTORS {
        return Err(broken("the descriptors did not come first"));
    }
    let terminal = first.bytes == [1];
    let fds: [OwnedFd; DESCRIPTORS] = first.fds.try_into().map_err(|_| broken("descriptors are missing"))?;
    let mut bytes = Vec::new();
    loop {
        let packet = receive(&socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match packet.kind {
            kind::PIECE => bytes.extend(packet.bytes),
            kind::GO => break,
            _ => return Err(broken("the request is not understood")),
        }
        if bytes.len() > SUDO_REQUEST {
            return Err(broken("the request is too long"));
        }
    }
    let request = Request::decode(&bytes).map_err(|e| broken(&e.to_string()))?;
    Ok((terminal, fds, request))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn requests_survive_the_wire() {
        let request = Request {
            login: true,
            keep_env: true,
            folder: Some("/x y".into()),
            keep: vec!["A".into()],
            set: vec!["B=".into()],
            command: vec!["echo".into(), "".into(), OsString::from_vec(vec![0xff, b'\n'])],
            env: vec!["C=d=e".into()],
            ..Request::default()
        };
        assert_eq!(Request::decode(&request.encode().unwrap()).unwrap(), request);
        for bad in [&b"c"[..], b"\0", b"zx\0"] {
            assert!(Request::decode(bad).is_err(), "{bad:?}");
        }
        let long = Request {
            command: vec![OsString::from_vec(vec![b'x'; SUDO_REQUEST])],
            ..Request::default()
        };
        assert!(matches!(long.encode(), Err(RequestError::TooLong(_))));
    }

    #[test]
    fn packets_that_are_too_much_are_refused() {
        let (here, there) = pair();
        send(&here, kind::PIECE, &[7; SUDO_PACKET], &[]).unwrap();
        assert_eq!(receive(&there).unwrap().unwrap().bytes.len(), SUDO_PACKET);
        send(&here, kind::PIECE, &[7; SUDO_PACKET + 1], &[]).unwrap();
        assert_eq!(receive(&there).unwrap_err(), Errno::MSGSIZE);
        drop(here);
        assert!(receive(&there).unwrap().is_none());
    }

    #[test]
    fn descriptors_come_along_and_only_so_many() {
        let fds = |count: usize| {
            let (here, there) = pair();
            let fd = here.as_fd();
            send(&here, kind::DESCRIPTORS, &[0], &vec![fd; count]).unwrap();
            send(&here, kind::GO, b"", &[]).unwrap();
            receive_request(&there).map(|(_, fds, _)| fds.len())
        };
        assert_eq!(fds(DESCRIPTORS).unwrap(), DESCRIPTORS);
        assert!(fds(DESCRIPTORS - 1).is_err());
        assert!(fds(0).is_err());
        let (here, _there) = pair();
        let many = vec![here.as_fd(); 4 * DESCRIPTORS];
        assert_eq!(
            send(&here, kind::DESCRIPTORS, &[0], &many).unwrap_err(),
            Errno::TOOMANYREFS
        );
    }
}
