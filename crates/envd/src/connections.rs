//! Connections come as descriptors over the control socket.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use sandhold_wire::boot::CONNECTION;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::limits::CONNECTIONS;
use crate::serve::Server;
use crate::state::State;
use crate::sys::async_fd;

/// Serves connections until the host closes the control socket.
///
/// # Errors
/// The control socket cannot be waited for.
pub(crate) async fn accept(control: OwnedFd, state: Arc<State>) -> io::Result<()> {
    let control = async_fd(control, Interest::READABLE)?;
    let server = Server::new(state);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let message = control.async_io(Interest::READABLE, |fd| Ok(receive(fd)?)).await?;
        let socket = match message {
            Message::End => return Ok(()),
            Message::Other => continue,
            Message::Connection(socket) => socket,
        };
        // Too many, or not a socket: the host reads the end of the connection.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let Ok(stream) = stream(socket) else { continue };
        let server = server.clone();
        tokio::spawn(async move {
            server.serve(stream).await;
            drop(place);
        });
    }
}

/// Serves connections that this program makes when the host asks for one, until the host closes the first.
///
/// # Errors
/// The first connection cannot be waited for.
pub(crate) async fn connect(control: OwnedFd, path: PathBuf, state: Arc<State>) -> io::Result<()> {
    let mut control = stream(control)?;
    let server = Server::new(state);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut byte = [0];
    while control.read(&mut byte).await? > 0 {
        if byte != [CONNECTION] {
            continue;
        }
        // Connected all the same where there are too many: the host waits for it, and reads its end.
        let Ok(stream) = UnixStream::connect(&path).await else {
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let server = server.clone();
        tokio::spawn(async move {
            server.serve(stream).await;
            drop(place);
        });
    }
    Ok(())
}

fn stream(socket: OwnedFd) -> io::Result<UnixStream> {
    let stream = StdUnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

enum Message {
    Connection(OwnedFd),
    /// Nothing that is known: a newer host may say more.
    Other,
    End,
}

fn receive(control: &OwnedFd) -> Result<Message, Errno> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = match rustix::net::recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags) {
        Ok(got) => got,
        Err(Errno::INTR) => return Ok(Message::Other),
        Err(Errno::CONNRESET) => return Ok(Message::End),
        Err(errno) => return Err(errno),
    };
    let fds = ancillary.drain().filter_map(|m| match m {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = fds.flatten().last();
    Ok(match (got.bytes, fd) {
        (0, _) => Message::End,
        (_, Some(fd)) if byte == [CONNECTION] => Message::Connection(fd),
        _ => Message::Other,
    })
}
