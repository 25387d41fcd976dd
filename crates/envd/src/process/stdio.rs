//! The pipes and terminals between a process and the daemon.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Uid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use sandhold_wire::proto::process::PTY;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::Io;
use super::hub::Source;
use super::input::Stdin;
use super::pump::Output;
use crate::sys::{async_fd, dev_null};
use crate::users::User;

/// The terminal of a process, seen from its other side.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Read by the pump.
    pub(crate) master: Arc<AsyncFd<OwnedFd>>,
    /// Writers take turns.
    pub(crate) writing: Mutex<()>,
}

/// The size of a terminal whose size was not said.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// A size as the kernel takes it.
pub(crate) fn winsize(pty: &PTY) -> Winsize {
    let given = |n: u32, default: u16| match u16::try_from(n) {
        Ok(0) => default,
        Ok(n) => n,
        Err(_) => u16::MAX,
    };
    let (cols, rows) = DEFAULT_SIZE;
    Winsize {
        ws_col: given(pty.size.cols, cols),
        ws_row: given(pty.size.rows, rows),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Both sides of a process's input and output.
pub(crate) struct Stdio {
    /// The process's side, for its descriptors 0 to 2.
    pub(crate) child: [Arc<OwnedFd>; 3],
    /// Where its input goes.
    pub(crate) io: Io,
    /// Where its output comes from.
    pub(crate) outputs: Vec<Output>,
}

/// Three pipes, or two and no stdin. `owner` is who may open them anew, where that is not the daemon.
pub(crate) fn pipes(with_stdin: bool, owner: Option<&User>) -> io::Result<Stdio> {
    let (stdin, writer) = if with_stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        (Arc::new(give(read, owner)), Some(write))
    } else {
        (Arc::new(dev_null()?), None)
    };
    let (stdout, out) = output(Source::Stdout, owner)?;
    let (stderr, err) = output(Source::Stderr, owner)?;
    let io = Io::Pipes(Stdin::new(writer)?);
    Ok(Stdio {
        child: [stdin, Arc::new(stdout), Arc::new(stderr)],
        io,
        outputs: vec![out, err],
    })
}

fn output(source: Source, owner: Option<&User>) -> io::Result<(OwnedFd, Output)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // The reading side alone: programs do not expect that their stdout does not block.
    rustix::io::ioctl_fionbio(&read, true)?;
    let read = async_fd(read, Interest::READABLE)?;
    Ok((give(write, owner), Output::new(source, Arc::new(read))))
}

/// Makes the user the owner, so that they may open `/dev/stdout` and `/dev/tty` anew.
fn give(fd: OwnedFd, owner: Option<&User>) -> OwnedFd {
    if let Some(user) = owner {
        // Without it only that opening fails.
        let _ = rustix::fs::fchown(&fd, Some(Uid::from_raw(user.uid)), None);
    }
    fd
}

/// The other end of a terminal. By its descriptor, where the kernel can: what stands at its path need not be it.
///
/// # Errors
/// Those of the system.
pub(crate) fn other_end(master: &OwnedFd, flags: OpenptFlags) -> io::Result<OwnedFd> {
    match ioctl_tiocgptpeer(master, flags) {
        // gVisor's kernel does not know the call.
        Err(Errno::NOTTY) => {
            let path = rustix::pty::ptsname(master, Vec::new())?;
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            Ok(rustix::fs::open(path, flags, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// One terminal for all three.
pub(crate) fn terminal(pty: &PTY, owner: Option<&User>) -> io::Result<Stdio> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    tcsetwinsize(&master, winsize(pty))?;
    let slave = Arc::new(give(other_end(&master, flags)?, owner));
    rustix::io::ioctl_fionbio(&master, true)?;
    let master = Arc::new(async_fd(master, Interest::READABLE | Interest::WRITABLE)?);
    let outputs = vec![Output::new(Source::Pty, Arc::clone(&master))];
    let io = Io::Terminal(Terminal {
        master,
        writing: Mutex::new(()),
    });
    Ok(Stdio {
        child: [Arc::clone(&slave), Arc::clone(&slave), slave],
        io,
        outputs,
    })
}
