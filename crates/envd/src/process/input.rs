//! What is written to a process: its stdin pipe, or its terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, Notify};

use crate::sys::async_fd;

/// Why nothing was written. The texts are envd's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Input for stdin, but the process has a terminal.
    #[error("tty assigned to process — input should be written to the pty, not the stdin")]
    HasTerminal,
    /// Input for a terminal, but the process has none.
    #[error("tty not assigned to process — input should be written to the stdin, not the tty")]
    NoTerminal,
    /// There is no stdin, or none any more.
    #[error("stdin not enabled or closed")]
    Closed,
    /// Ctrl+D is a terminal's end of input.
    #[error("cannot close stdin for PTY process — send Ctrl+D (0x04) instead")]
    CloseTerminal,
    /// The process does not take it.
    #[error("error writing to {0} of process '{1}': {2}")]
    Write(&'static str, u32, io::Error),
}

/// The writing end of a process's stdin.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// Writers take turns, so that what one call brings stays together.
    pipe: Mutex<Option<AsyncFd<OwnedFd>>>,
    closed: AtomicBool,
    closing: Notify,
}

impl Stdin {
    /// Over the pipe's end, or over nothing: then it counts as closed.
    pub(crate) fn new(pipe: Option<OwnedFd>) -> io::Result<Self> {
        let pipe = pipe.map(|fd| async_fd(fd, Interest::WRITABLE)).transpose()?;
        Ok(Self {
            closed: AtomicBool::new(pipe.is_none()),
            pipe: Mutex::new(pipe),
            closing: Notify::new(),
        })
    }

    /// Writes everything, at the pace of the process.
    ///
    /// # Errors
    /// [`InputError::Closed`], also when it is closed meanwhile, and [`InputError::Write`].
    pub(crate) async fn write(&self, pid: u32, bytes: &[u8]) -> Result<(), InputError> {
        let closing = self.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if self.closed.load(Ordering::Acquire) {
            return Err(InputError::Closed);
        }
        let work = async {
            let pipe = self.pipe.lock().await;
            let pipe = pipe.as_ref().ok_or(InputError::Closed)?;
            write_all(pipe, bytes)
                .await
                .map_err(|error| InputError::Write("stdin", pid, error))
        };
        tokio::select! {
            biased;
            done = work => done,
            () = closing => Err(InputError::Closed),
        }
    }

    /// Closes it: the process reads the end. Closed already is fine.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
        self.pipe.lock().await.take();
    }

    /// Whether it can still be written to.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Whether all that was written has been read; false while it is being written to.
    pub(crate) fn is_empty(&self) -> bool {
        let queued = |pipe: &AsyncFd<OwnedFd>| rustix::io::ioctl_fionread(pipe.as_fd()).unwrap_or(0);
        self.pipe
            .try_lock()
            .is_ok_and(|pipe| pipe.as_ref().map_or(0, queued) == 0)
    }

    /// The pipe's inode, which names it in `/proc`; none when it is closed or being written to.
    pub(crate) fn inode(&self) -> Option<u64> {
        let pipe = self.pipe.try_lock().ok()?;
        Some(rustix::fs::fstat(pipe.as_ref()?.as_fd()).ok()?.st_ino)
    }
}

/// Writes everything to a descriptor that does not block.
pub(crate) async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = fd
            .async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?))
            .await?;
        bytes = bytes.get(n..).unwrap_or_default();
    }
    Ok(())
}
