//! What commands are asked with and what they answer.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

/// What to run. [`CommandRequest::shell`] runs `/bin/bash -l -c cmd`, as E2B's SDKs do.
#[derive(Debug, Clone, Default)]
pub struct CommandRequest {
    /// The program: an absolute path or a name that is looked up in `PATH`.
    pub cmd: String,
    /// Its arguments, without the name of the program.
    pub args: Vec<String>,
    /// Environment on top of the sandbox's own.
    pub envs: BTreeMap<String, String>,
    /// Working folder; `None` is the home of the user.
    pub cwd: Option<String>,
    /// `None` is the sandbox's default user.
    pub user: Option<String>,
    /// Found again by this name in [`Commands::connect`](super::Commands::connect).
    pub tag: Option<String>,
    /// A terminal of this size instead of pipes.
    pub pty: Option<PtySize>,
    /// Whether standard input stays open for `send_stdin`.
    pub stdin: bool,
    /// Deadline of the process: it is killed then. `None`: it has none.
    pub timeout: Option<Duration>,
}

impl CommandRequest {
    /// Runs `cmd` in a login shell: `/bin/bash -l -c cmd`.
    pub fn shell(cmd: impl Into<String>) -> Self {
        Self {
            cmd: "/bin/bash".into(),
            args: vec!["-l".into(), "-c".into(), cmd.into()],
            ..Self::default()
        }
    }
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtySize {
    /// Width.
    pub cols: u32,
    /// Height.
    pub rows: u32,
}

/// Names a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandSelector {
    /// By its id inside the sandbox.
    Pid(u32),
    /// By the tag it was started with.
    Tag(String),
}

/// Which signal to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalKind {
    /// `SIGTERM`, which a process can answer.
    Term,
    /// `SIGKILL`, which it cannot.
    Kill,
}

/// What a process did.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandEvent {
    /// It wrote to standard output.
    Stdout(Bytes),
    /// It wrote to standard error.
    Stderr(Bytes),
    /// It wrote to its terminal.
    Pty(Bytes),
    /// It ended. Nothing follows.
    Exited(ExitStatus),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus {
    /// −1 when a signal ended it.
    pub exit_code: i32,
    /// False when a signal ended it.
    pub exited: bool,
    /// `exit status 0`, `signal: killed`.
    pub status: String,
    /// What the server says went wrong; it says so only when the process did not end with 0.
    pub error: Option<String>,
}

/// A process that runs, as [`Commands::list`](super::Commands::list) shows it.
#[derive(Debug, Clone)]
pub struct ProcessSummary {
    /// Its id inside the sandbox.
    pub pid: u32,
    /// The tag it was started with.
    pub tag: Option<String>,
    /// The program.
    pub cmd: String,
    /// Its arguments, without the name of the program.
    pub args: Vec<String>,
    /// The working folder it was started with.
    pub cwd: Option<String>,
    /// The environment it was started with.
    pub envs: BTreeMap<String, String>,
}
