//! `sudo` without set-user-id programs.
//!
//! No process of a sandbox can gain rights by executing a file (`no_new_privs`), so the rights come from the daemon, which
//! has them. Three processes take part, all from the daemon's own program:
//!
//! ```text
//! sudo (the caller's process) ── SEQPACKET socket ──▶ daemon     who asks, and for which user
//!        │                                              │ starts, with the user's ids and the socket
//!        └── descriptors, arguments, signals ─────────▶ monitor ── fork, exec ──▶ the command
//!        ◀── stopped, ended ────────────────────────────┘
//! ```
//!
//! The daemon reads one short packet and never holds a descriptor of the caller. The monitor leads a session of its own;
//! where the caller has a terminal, `sudo` makes a new one for that session and copies between the two, so that job
//! control works and nothing of root's ever holds the caller's terminal. A caller who dies takes the command along: the
//! monitor reads the end of the socket.

mod arguments;
mod client;
mod command;
mod listen;
mod monitor;
mod packet;
mod terminal;

pub(crate) use client::main as client;
pub(crate) use listen::start;
pub(crate) use monitor::main as monitor;
#[cfg(fuzzing)]
pub(crate) use packet::same_again;

/// The name under which the daemon's program is `sudo`.
pub(crate) const PROGRAM: &str = "sudo";
/// The name under which it watches over one command.
pub(crate) const MONITOR: &str = "sandhold-sudo";
/// Names another socket than the sandbox's own, for tests.
const SOCKET_VARIABLE: &str = "SANDHOLD_SUDO_SOCKET";
