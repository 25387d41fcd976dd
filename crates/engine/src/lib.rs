//! Sandhold's embedded engine: Linux namespaces, mounts, cgroups and a system call filter, made in about two
//! milliseconds and without any privilege where the kernel allows it.
//!
//! [`Engine`] implements [`sandhold_runtime::Runtime`]. Each sandbox is one `clone3` by a small [launcher](launcher_main)
//! process, a root file system put together from descriptors, and the exec of a sealed init program as process 1. The
//! engine passes the init program's boot message on unread and hands it one descriptor a connection; it parses nothing
//! that comes from inside.
//!
//! ```text
//! server process ── engine ── SEQPACKET ──▶ launcher ── clone3 ──▶ init program (process 1 of the sandbox)
//!                     └───────────── control socket (SEQPACKET, one end each) ───────────┘
//! ```
//!
//! What the sandbox may do is data: `policy/seccomp.json` for system calls, the template for files, `limits` for sizes.
//! Every way to end (kill, drop, exit or SIGKILL of the server, of the launcher or of both) leaves nothing behind; each
//! party cleans up after the others, see `sandbox`, `launcher` and `cgroup::sweep`.
//!
//! On other systems than Linux the crate compiles, and [`Engine::start`] says what to use instead.

mod config;
pub mod limits;
mod probe;

pub use config::{EngineConfig, InitProgram};
pub use probe::{ProbeItem, ProbeReport};
pub use sandhold_runtime::Level;

#[cfg(target_os = "linux")]
mod birth;
#[cfg(target_os = "linux")]
mod bridge;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod diagnose;
#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
mod etc;
#[cfg(target_os = "linux")]
mod fair;
#[cfg(target_os = "linux")]
mod gvisor;
#[cfg(target_os = "linux")]
mod held;
#[cfg(target_os = "linux")]
mod ids;
#[cfg(target_os = "linux")]
mod init_image;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod launcher;
#[cfg(target_os = "linux")]
mod layers;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod packet;
#[cfg(target_os = "linux")]
mod private;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod spare;
#[cfg(target_os = "linux")]
mod spec;
#[cfg(target_os = "linux")]
mod store;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod syscalls;
#[cfg(target_os = "linux")]
mod template;

#[cfg(target_os = "linux")]
pub use engine::Engine;
#[cfg(target_os = "linux")]
pub use launcher::launcher_main;
#[cfg(target_os = "linux")]
pub use launcher::message::Phase;
#[cfg(target_os = "linux")]
pub use probe::probe;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub use seccomp::{Weakened, policy_groups, restrict_self};

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Engine, launcher_main, probe};
