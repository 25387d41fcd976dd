use serde::{Deserialize, Serialize};

/// What a sandbox should be.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The sandbox's id: lower-case letters and digits. Part of the cgroup's name.
    pub id: String,
    /// What its files stand on.
    pub root: crate::Root,
    /// Where what it writes is kept.
    pub storage: Storage,
    /// The host name inside.
    pub hostname: String,
    /// Limits; absent ones get the engine's defaults.
    pub resources: Resources,
    /// Passed to the init program unread, as its first message.
    pub boot: Vec<u8>,
}

/// Where a sandbox keeps what it writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// In memory: it counts against the sandbox's memory.
    #[default]
    Memory,
    /// On the disk of the host.
    Disk,
}

/// Limits of a sandbox. `None` means the engine's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in bytes, the page cache and tmpfs of the sandbox included.
    pub memory_bytes: Option<u64>,
    /// Processors, in fractions.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of the writable root.
    pub disk_bytes: Option<u64>,
    /// Files and folders of the writable root.
    pub inodes: Option<u64>,
    /// Open files of a process.
    pub open_files: Option<u64>,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeInfo {
    /// How sandboxes are held on this machine.
    pub isolation: Isolation,
    /// The limits a sandbox gets when it asks for none; every field is set.
    pub defaults: Resources,
    /// The least that can be asked for; `None`: whatever is more than nothing.
    pub least: Resources,
    /// The most that can be asked for; `None`: no bound.
    pub most: Resources,
    /// Why roots other than the host's, snapshots and forks cannot be had here, and what mends it; `None`: they can.
    pub no_layers: Option<String>,
    /// Where the certificates that are trusted stand inside, if there are any.
    pub ca_bundle: Option<String>,
    /// How far a sandbox's connections can be led out.
    pub reach: crate::Reach,
    /// Whether freeze and thaw work.
    pub can_freeze: bool,
    /// Whether processes can run as users other than `user`.
    pub can_switch_user: bool,
}

/// How sandboxes are held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolation {
    /// The name of a [`crate::Level`], or what another engine calls its own.
    pub level: String,
    /// One line on how: ids, cgroups, filters.
    pub detail: String,
    /// What is missing here, one sentence each.
    pub warnings: Vec<String>,
}

/// What a sandbox uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Of that, page cache.
    pub cache_bytes: u64,
    /// Processor time since the start, in microseconds.
    pub cpu_us: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Limits that were met.
    pub met: Met,
}

/// How often a sandbox's processes met its limits since its start. `None` where nothing counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// Processes that were ended because the memory was used up.
    pub memory: Option<u64>,
    /// New processes and threads that were refused.
    pub pids: Option<u64>,
    /// How long processes were kept from running because the processors were used up, in microseconds.
    pub throttled_us: Option<u64>,
}
