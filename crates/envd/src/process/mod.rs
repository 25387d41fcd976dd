//! `process.Process`: starting programs, following them, and what can be done to them.

pub(crate) mod awaiting;
mod event;
mod hub;
mod input;
pub(crate) mod jobs;
mod kept;
mod pump;
mod rate;
mod service;
mod start;
mod status;
mod stdio;
mod stream;
mod table;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Context;
use std::time::Instant;

use futures::task::AtomicWaker;
use rustix::process::{Pid, Signal};
use sandhold_wire::proto::process::ProcessConfig;
use tokio::io::unix::AsyncFd;

pub(crate) use rate::OutputRate;
pub(crate) use service::Service;
pub(crate) use stdio::other_end;
pub(crate) use stream::DEADLINE_EXCEEDED;
pub(crate) use table::Table;

use hub::Hub;
use input::Stdin;
use stdio::Terminal;

/// A process that the daemon started, until its end was told.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its id, and its process group's and session's.
    pub(crate) pid: u32,
    /// What the client called it.
    pub(crate) tag: Option<String>,
    /// What was asked for.
    config: ProcessConfig,
    /// The user id it was started with, and the group's.
    ids: (u32, u32),
    started: Instant,
    hub: Arc<Hub>,
    io: Io,
    /// Read by the pump, which drops them as they end.
    outputs: Vec<Weak<AsyncFd<OwnedFd>>>,
    exited: AtomicBool,
    given_up: AtomicBool,
    pump: AtomicWaker,
}

/// How a process is written to.
#[derive(Debug)]
enum Io {
    Pipes(Stdin),
    Terminal(Terminal),
}

impl Process {
    /// Sends a signal to the process and all of its group. Once it was told to end, what it leaves behind is not waited
    /// for.
    pub(crate) fn kill(&self, signal: Signal) {
        if signal == Signal::KILL || signal == Signal::TERM {
            self.given_up.store(true, Ordering::Release);
            self.pump.wake();
        }
        if let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // A group that is gone needs no signal.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    fn poll_given_up(&self, cx: &mut Context<'_>) -> bool {
        self.pump.register(cx.waker());
        self.given_up.load(Ordering::Acquire)
    }

    fn exited(&self) {
        self.exited.store(true, Ordering::Release);
    }

    /// Whether its stdin holds nothing that it has not read. A terminal's cannot be seen from here.
    fn has_taken_input(&self) -> bool {
        match &self.io {
            Io::Pipes(stdin) => stdin.is_empty(),
            Io::Terminal(_) => true,
        }
    }

    /// Whether all that it printed was handed to those who listen.
    fn is_told(&self) -> bool {
        let empty = |fd: Arc<AsyncFd<OwnedFd>>| rustix::io::ioctl_fionread(fd.as_ref()).is_ok_and(|n| n == 0);
        self.outputs.iter().filter_map(Weak::upgrade).all(empty) && self.hub.is_drained()
    }

    /// Whether the process itself still runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.exited.load(Ordering::Acquire)
    }
}
