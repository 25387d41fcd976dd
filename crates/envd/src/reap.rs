//! Reaping: the exit statuses of the daemon's own children, and of the orphans that pid 1 inherits.
//!
//! One loop waits for any child, so nothing is taken from anyone. A child is entered in the table under the same lock
//! that the loop holds: its status cannot come before its entry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::sys::{Job, SpawnError, Spawner};

/// Starts processes and tells how they ended.
#[derive(Debug)]
pub(crate) struct Reaper(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    spawner: Spawner,
    waiting: HashMap<Pid, oneshot::Sender<WaitStatus>>,
}

impl Reaper {
    /// Over what makes the children.
    pub(crate) fn new(spawner: Spawner) -> Self {
        Self(Mutex::new(Inner {
            spawner,
            waiting: HashMap::new(),
        }))
    }

    /// Starts a process; its status comes through the receiver.
    ///
    /// # Errors
    /// As [`Spawner::spawn`].
    pub(crate) fn spawn(&self, job: &Job<'_>) -> Result<(Pid, oneshot::Receiver<WaitStatus>), SpawnError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = inner.spawner.spawn(job)?;
        let (tell, told) = oneshot::channel();
        inner.waiting.insert(pid, tell);
        Ok((pid, told))
    }

    /// As [`Spawner::with_oom_file`].
    pub(crate) fn with_oom_file(&self, file: std::os::fd::OwnedFd) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.spawner.with_oom_file(file);
    }

    fn reap(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(tell) = inner.waiting.remove(&pid) {
                // Nobody listens any more: then nobody wants to know.
                let _ = tell.send(status);
            }
        }
    }

    /// Reaps for as long as the daemon lives.
    ///
    /// # Errors
    /// The signal cannot be listened for.
    pub(crate) fn start(self: std::sync::Arc<Self>) -> std::io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        tokio::spawn(async move {
            self.reap();
            while children.recv().await.is_some() {
                self.reap();
            }
        });
        Ok(())
    }
}
