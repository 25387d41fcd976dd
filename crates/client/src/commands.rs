//! Processes.
#![allow(unused_variables)]

mod types;

use crate::Error;

pub use types::{CommandEvent, CommandRequest, CommandSelector, ExitStatus, ProcessSummary, PtySize, SignalKind};

/// Processes of one sandbox.
#[derive(Clone)]
pub struct Commands {}

/// A process with its events. Dropping it leaves the process running.
pub struct Process {
    pid: u32,
}

impl Process {
    /// Its id inside the sandbox.
    pub fn pid(&self) -> u32 {
        self.pid
    }
    /// The next event; `None` after `Exited`. A stream that breaks is an error. Keepalives are swallowed.
    pub async fn next(&mut self) -> Option<Result<CommandEvent, Error>> {
        None
    }
}

impl Commands {
    /// Starts a process and waits for its start event.
    pub async fn start(&self, request: CommandRequest) -> Result<Process, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Attaches to a running process; within 30 s of its end the end is told.
    pub async fn connect(&self, which: CommandSelector) -> Result<Process, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn list(&self) -> Result<Vec<ProcessSummary>, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn send_stdin(&self, which: CommandSelector, data: &[u8]) -> Result<(), Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn send_pty(&self, which: CommandSelector, data: &[u8]) -> Result<(), Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn close_stdin(&self, which: CommandSelector) -> Result<(), Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Signals the process group. False if there is no such process.
    pub async fn signal(&self, which: CommandSelector, signal: SignalKind) -> Result<bool, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn resize(&self, which: CommandSelector, size: PtySize) -> Result<(), Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Whether the process waits for input; `None` where the server cannot tell.
    pub async fn awaiting_input(&self, pid: u32) -> Result<Option<bool>, Error> {
        Ok(None)
    }
}
