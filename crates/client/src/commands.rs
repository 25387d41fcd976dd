use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::Error;

/// Processes of one sandbox.
#[derive(Clone)]
pub struct Commands { /* private */ }

/// What to run. `CommandRequest::shell(cmd)` runs `/bin/bash -l -c cmd`, as E2B's SDKs do.
#[derive(Debug, Clone, Default)]
pub struct CommandRequest {
    pub cmd: String,
    pub args: Vec<String>,
    pub envs: BTreeMap<String, String>,
    pub cwd: Option<String>,
    /// `None` is the sandbox's default user.
    pub user: Option<String>,
    /// Found again by this name in `Commands::connect`.
    pub tag: Option<String>,
    /// A terminal of this size instead of pipes.
    pub pty: Option<PtySize>,
    /// Whether standard input stays open for `send_stdin`.
    pub stdin: bool,
    /// Deadline of the process: it is killed then. `None`: it has none.
    pub timeout: Option<Duration>,
}
impl CommandRequest {
    pub fn shell(cmd: impl Into<String>) -> Self;
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtySize { pub cols: u32, pub rows: u32 }

/// Names a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandSelector { Pid(u32), Tag(String) }

/// Which signal to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalKind { Term, Kill }

/// What a process did.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandEvent { Stdout(Bytes), Stderr(Bytes), Pty(Bytes), Exited(ExitStatus) }

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus {
    /// −1 when a signal ended it.
    pub exit_code: i32,
    /// False when a signal ended it.
    pub exited: bool,
    /// `exit status 0`, `signal: killed`.
    pub status: String,
    pub error: Option<String>,
}

/// A process that runs, as `Commands::list` shows it.
#[derive(Debug, Clone)]
pub struct ProcessSummary { pub pid: u32, pub tag: Option<String>, pub cmd: String, pub args: Vec<String>, pub cwd: Option<String>, pub envs: BTreeMap<String, String> }

/// A process with its events. Dropping it leaves the process running.
pub struct Process { /* private */ }
impl Process {
    pub fn pid(&self) -> u32;
    /// The next event; `None` after `Exited`. A stream that breaks is an error. Keepalives are swallowed.
    pub async fn next(&mut self) -> Option<Result<CommandEvent, Error>>;
}

impl Commands {
    /// Starts a process and waits for its start event.
    pub async fn start(&self, request: CommandRequest) -> Result<Process, Error>;
    /// Attaches to a running process; within 30 s of its end the end is told.
    pub async fn connect(&self, which: CommandSelector) -> Result<Process, Error>;
    pub async fn list(&self) -> Result<Vec<ProcessSummary>, Error>;
    pub async fn send_stdin(&self, which: CommandSelector, data: &[u8]) -> Result<(), Error>;
    pub async fn send_pty(&self, which: CommandSelector, data: &[u8]) -> Result<(), Error>;
    pub async fn close_stdin(&self, which: CommandSelector) -> Result<(), Error>;
    /// Signals the process group. False if there is no such process.
    pub async fn signal(&self, which: CommandSelector, signal: SignalKind) -> Result<bool, Error>;
    pub async fn resize(&self, which: CommandSelector, size: PtySize) -> Result<(), Error>;
}
