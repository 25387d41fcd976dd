//! Jobs as `GET /sandhold/jobs` of Sandhold's daemon shows them; E2B's daemon does not know it.

use serde::{Deserialize, Serialize};

/// The answer: the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    /// Those that run, and those that ended and are kept.
    pub jobs: Vec<Job>,
}

/// A process that was started as a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id: the tag without its prefix.
    pub id: String,
    /// Its process id inside the sandbox.
    pub pid: u32,
    /// The beginning of the shell command.
    pub cmd: String,
    /// Milliseconds since its start.
    pub age_ms: u64,
    /// Milliseconds it ran, or has run so far.
    pub ran_ms: u64,
    /// Whether its standard input is open.
    pub stdin: bool,
    /// Bytes that it wrote to standard output and to standard error.
    pub printed: [u64; 2],
    /// How it ended; none while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// −1 when a signal ended it.
    pub exit_code: i32,
    /// False when a signal ended it.
    pub exited: bool,
    /// `exit status 0`, `signal: killed`.
    pub status: String,
}
