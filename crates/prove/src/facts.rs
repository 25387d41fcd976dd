//! What the program is told: where it runs, and what of the host it is to look for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where the program runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the host, where nothing holds it.
    #[default]
    Outside,
    /// On the host in new namespaces, as their root: the sandbox's rights without its rules.
    OwnNamespaces,
    /// In a sandbox.
    Inside,
}

/// All that the attempts know. What is missing makes the vectors that need it untestable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Where the program runs.
    pub place: Place,
    /// Only these vectors; empty: those of [`Kind::Plain`](crate::Kind::Plain).
    pub only: Vec<String>,
    /// Only the controls that are made in the same place, not the attempts.
    pub controls: bool,
    /// The host's namespaces: `mnt` and what `/proc/self/ns/mnt` reads.
    pub namespaces: BTreeMap<String, String>,
    /// The host's name.
    pub hostname: Option<String>,
    /// A mark of the host's `/etc/passwd`, see [`Facts::mark`].
    pub passwd: Option<u64>,
    /// A file of the host that everybody may read, and what it holds.
    pub file: Option<(String, String)>,
    /// A file in the host's `/dev/shm`.
    pub shm: Option<String>,
    /// The key of a System V queue of the host.
    pub queue: Option<i32>,
    /// A word that stands in the environment of a process of the host, in two parts.
    pub word: Option<(String, String)>,
    /// Name of an abstract socket of the host that greets.
    pub abstract_socket: Option<String>,
    /// Path of a socket of the host that greets.
    pub socket: Option<String>,
    /// What listeners say to whoever connects.
    pub greeting: Option<String>,
    /// TCP port that greets on every address of the host.
    pub tcp: Option<u16>,
    /// UDP port that greets on every address of the host.
    pub udp: Option<u16>,
    /// Addresses of the host's interfaces.
    pub addresses: Vec<IpAddr>,
    /// An IPv6 link-local address of the host, with its scope.
    pub link_local: Option<(IpAddr, u32)>,
    /// A sandbox's own proxy.
    pub proxy: Option<SocketAddr>,
    /// TCP port at which the other sandbox greets on its loopback.
    pub neighbour_tcp: Option<u16>,
    /// Name of an abstract socket of the other sandbox, and of its file in `/dev/shm` and of its process.
    pub neighbour: Option<String>,
    /// A size in bytes that the sandbox's disk and shared memory stay below.
    pub disk: Option<u64>,
    /// The sandbox's memory in bytes, where it is bounded.
    pub memory: Option<u64>,
}

impl Facts {
    /// A number that tells whether two texts are the same (FNV-1a).
    #[must_use]
    pub fn mark(text: &[u8]) -> u64 {
        text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Whether the program runs in a sandbox.
    #[must_use]
    pub fn inside(&self) -> bool {
        self.place == Place::Inside
    }
}
