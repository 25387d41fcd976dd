//! The caller's terminal and the one that is made for the command: what is typed into the one comes out of the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::SUDO_COPY;
use crate::process::other_end;
use crate::sys::async_fd;

/// Both terminals.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The caller's, to read from. It may block: it is shared with other programs.
    tty: AsyncFd<OwnedFd>,
    /// The caller's, to write to.
    out: OwnedFd,
    /// The other side of the command's.
    master: AsyncFd<OwnedFd>,
    /// How the caller's was found.
    saved: Termios,
    /// Whether keys are taken as they come, which is so while the caller's job is in the foreground.
    raw: bool,
    /// What was typed and not yet taken.
    typed: Vec<u8>,
    /// Whether the command runs. Until then nothing is copied: the caller's terminal is not ready for what it says, and
    /// ^C would reach nobody.
    begun: bool,
    /// Whether the command's side may still say something.
    open: bool,
}

/// Whether `fd` is the terminal that controls this process.
pub(crate) fn is_own(fd: impl AsFd) -> bool {
    tcgetpgrp(fd).is_ok()
}

impl Terminal {
    /// Makes the command's terminal like the caller's, `stdin` and `stdout`. Returns the command's side too.
    ///
    /// # Errors
    /// There is no terminal left, or the caller's is gone.
    pub(crate) fn open(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = other_end(&master, flags)?;
        let saved = tcgetattr(stdin)?;
        tcsetattr(&slave, OptionalActions::Now, &saved)?;
        tcsetwinsize(&slave, tcgetwinsize(stdin)?)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let terminal = Self {
            tty: async_fd(stdin.try_clone_to_owned()?, Interest::READABLE)?,
            out: stdout.try_clone_to_owned()?,
            master: async_fd(master, Interest::READABLE | Interest::WRITABLE)?,
            saved,
            raw: false,
            typed: Vec::new(),
            begun: false,
            open: true,
        };
        Ok((terminal, slave))
    }

    /// Whether the command runs and its keys are still the shell's.
    pub(crate) fn waits(&self) -> bool {
        self.begun && !self.raw
    }

    /// The command runs, in the foreground of its terminal.
    pub(crate) fn begin(&mut self) {
        self.begun = true;
        self.take();
    }

    /// Takes the keys as they come, if this job is in the foreground: ^C is the command's then.
    pub(crate) fn take(&mut self) {
        let foreground = tcgetpgrp(self.tty.get_ref()).is_ok_and(|group| group == rustix::process::getpgrp());
        if self.raw || !self.begun || !foreground {
            return;
        }
        let mut raw = self.saved.clone();
        raw.make_raw();
        self.raw = tcsetattr(self.tty.get_ref(), OptionalActions::Drain, &raw).is_ok();
    }

    /// Leaves the caller's terminal as it was found.
    pub(crate) fn give_back(&mut self) {
        if self.raw {
            // Of a terminal that is gone nothing is left to be put in order.
            let _ = tcsetattr(self.tty.get_ref(), OptionalActions::Drain, &self.saved);
            self.raw = false;
        }
    }

    /// Makes the command's terminal as large as the caller's.
    pub(crate) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(self.tty.get_ref()) {
            let _ = tcsetwinsize(self.master.get_ref(), size);
        }
    }

    /// Copies once, whichever way there is something to copy.
    pub(crate) async fn copy(&mut self) {
        let listens = self.raw && self.typed.is_empty();
        let hears = self.begun && self.open;
        tokio::select! {
            ready = self.tty.readable(), if listens => {
                match ready {
                    Ok(mut guard) => match typed(guard.get_inner()) {
                        Typed::Keys(keys) => self.typed = keys,
                        Typed::Nothing => guard.clear_ready(),
                        Typed::Gone => self.raw = false,
                    },
                    Err(_) => self.raw = false,
                }
            }
            ready = self.master.writable(), if !self.typed.is_empty() => {
                match ready {
                    Ok(mut guard) => match rustix::io::write(guard.get_inner(), &self.typed) {
                        Ok(taken) => drop(self.typed.drain(..taken)),
                        Err(Errno::AGAIN) => guard.clear_ready(),
                        Err(Errno::INTR) => {}
                        // Nobody reads there any more.
                        Err(_) => self.typed.clear(),
                    },
                    Err(_) => self.typed.clear(),
                }
            }
            ready = self.master.readable(), if hears => {
                match ready {
                    Ok(mut guard) => match said(guard.get_inner()) {
                        Ok(Some(bytes)) => show(&self.out, &bytes),
                        Ok(None) => guard.clear_ready(),
                        Err(_) => self.open = false,
                    },
                    Err(_) => self.open = false,
                }
            }
            () = std::future::pending(), if !listens && self.typed.is_empty() && !hears => {}
        }
    }

    /// Shows what the command said last. Waits for what is under way, but not for those it left behind.
    pub(crate) fn drain(&mut self) {
        const UNDER_WAY: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        while self.open {
            match said(self.master.get_ref()) {
                Ok(Some(bytes)) => show(&self.out, &bytes),
                Ok(None) => {
                    let mut fds = [PollFd::new(self.master.get_ref(), PollFlags::IN)];
                    self.open = matches!(poll(&mut fds, Some(&UNDER_WAY)), Ok(1..) | Err(Errno::INTR));
                }
                Err(_) => self.open = false,
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.give_back();
    }
}

enum Typed {
    Keys(Vec<u8>),
    Nothing,
    Gone,
}

/// What was typed. The terminal blocks when nothing was, so it is asked first.
fn typed(tty: &OwnedFd) -> Typed {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(tty, PollFlags::IN)];
    match poll(&mut fds, Some(&now)) {
        Ok(1..) => {}
        _ => return Typed::Nothing,
    }
    let mut bytes = vec![0; SUDO_COPY];
    match rustix::io::read(tty, &mut bytes) {
        Ok(0) => Typed::Gone,
        Ok(n) => {
            bytes.truncate(n);
            Typed::Keys(bytes)
        }
        Err(Errno::INTR | Errno::AGAIN) => Typed::Nothing,
        Err(_) => Typed::Gone,
    }
}

/// What the command said; nothing when it said nothing.
fn said(master: &OwnedFd) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; SUDO_COPY];
    match rustix::io::read(master, &mut bytes) {
        Ok(0) => Err(Errno::IO),
        Ok(n) => {
            bytes.truncate(n);
            Ok(Some(bytes))
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Writes all of it; a terminal that is gone reads nothing.
fn show(out: &OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(out, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            // Somebody else made it so that it does not block.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(out, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            Err(_) => return,
        }
    }
}
