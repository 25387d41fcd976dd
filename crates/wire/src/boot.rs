//! What the daemon is told when it starts, and what it answers.
//!
//! The daemon inherits one `SOCK_SEQPACKET` socket, descriptor [`CONTROL_FD`]. Its peer is the engine's process on the
//! host; nothing else holds it. Standard input may be the daemon's own `/proc/self/oom_score_adj`, open for writing: the
//! daemon, into which nobody may look, cannot open it itself.
//!
//! ```text
//! host ── BootSpec (JSON, one packet) ──▶ envd
//! host ◀── BootReady (JSON, one packet) ── envd
//! host ── one byte and one descriptor (SCM_RIGHTS: a connected stream socket) ──▶ envd      for each connection
//! host closes ─▶ envd ends, and with it every process of the sandbox
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::caps::DaemonCaps;

/// The descriptor of the inherited control socket.
pub const CONTROL_FD: i32 = 3;
/// Where no descriptor can be passed to the daemon, it is started with this argument and the path of a socket of the host's,
/// which it connects to. Messages on that first connection come after four bytes of length, little endian; instead of a
/// descriptor comes [`CONNECTION`] alone, and the daemon connects once more.
pub const CONNECT_ARGUMENT: &str = "--connect";
/// Set in the daemon's environment where the sandbox stands on its host's own root, without namespaces. Then the one user is
/// `user`, whose ids are the daemon's own and whose home and folder for temporary files are the daemon's `HOME` and `TMPDIR`;
/// there is no `sudo`, there are no internet sockets, and most of `/proc` is not the sandbox's.
pub const PLAIN_VARIABLE: &str = "SANDHOLD_PLAIN";
/// The byte that comes with each connection's descriptor.
pub const CONNECTION: u8 = b'c';
/// Stands in the daemon's file, followed by its version and [`VERSION_END`], so that `sandhold` can compare versions
/// without running it.
pub const VERSION_MARK: &str = "sandhold-envd version=";
/// Ends the version after [`VERSION_MARK`].
pub const VERSION_END: char = ';';

/// What the daemon must know to serve a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSpec {
    /// The sandbox's id, in every process as `E2B_SANDBOX_ID`.
    pub sandbox_id: String,
    /// The template's id, in every process as `E2B_TEMPLATE_ID`.
    pub template_id: String,
    /// Environment of every process, `envVars` of the create request.
    #[serde(default)]
    pub envs: BTreeMap<String, String>,
    /// What requests must carry in `X-Access-Token`; absent: nothing is asked.
    #[serde(default)]
    pub access_token: Option<String>,
    /// The user of processes and files when a request names none.
    pub default_user: String,
    /// The folder that relative paths start from; absent: the user's home.
    #[serde(default)]
    pub workdir: Option<String>,
    /// Largest number of processes that the daemon keeps at once.
    pub max_processes: u32,
    /// Memory that all of the sandbox may use, in bytes; absent: not known.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// What the daemon holds processes to.
    #[serde(default)]
    pub caps: DaemonCaps,
    /// Whether user ids other than the daemon's own can be taken. False where the engine had one id to give.
    pub can_switch_user: bool,
    /// Path of the socket where the daemon awaits callers of `sudo`; absent: the sandbox has no `sudo`.
    #[serde(default)]
    pub sudo_socket: Option<String>,
}

/// The daemon serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootReady {
    /// The package version of the daemon.
    pub version: String,
    /// What it could not do and the user should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The version in the daemon's file, found by [`VERSION_MARK`]; `None` if it is not the daemon.
#[must_use]
pub fn daemon_version(file: &[u8]) -> Option<&str> {
    // The mark alone may stand in the file too, where the daemon's own code names it.
    memchr::memmem::find_iter(file, VERSION_MARK).find_map(|at| {
        let rest = &file[at + VERSION_MARK.len()..];
        let end = rest.iter().take(32).position(|b| *b == VERSION_END as u8)?;
        std::str::from_utf8(&rest[..end])
            .ok()
            .filter(|v| v.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version_in_a_file() {
        assert_eq!(
            daemon_version(b"\x7fELF sandhold-envd version=sandhold-envd version=1.2.3;\0"),
            Some("1.2.3")
        );
        for bad in [
            "",
            "sandhold-envd version=",
            "sandhold-envd version=1.2.3",
            "sandhold-envd version=x;",
        ] {
            assert_eq!(daemon_version(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_boot_spec_survives_the_wire() {
        let spec = BootSpec {
            sandbox_id: "i1".into(),
            envs: [("A".to_owned(), "b\n".to_owned())].into(),
            access_token: Some("t".into()),
            default_user: "user".into(),
            max_processes: 3,
            can_switch_user: true,
            ..BootSpec::default()
        };
        let text = serde_json::to_vec(&spec).unwrap();
        assert_eq!(serde_json::from_slice::<BootSpec>(&text).unwrap(), spec);
    }
}
