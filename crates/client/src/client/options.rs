//! What the control plane is asked with and what it answers.

use std::{collections::BTreeMap, time::Duration};

use sandhold_wire::{
    caps::Caps,
    rest::{ListedSandbox, Network, State},
};

/// What a new sandbox should be. `Default` is the template `base` for 300 seconds.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Template name; `None` is `base`.
    pub template: Option<String>,
    /// How long it lives; `None` is the server's default.
    pub timeout: Option<Duration>,
    /// Pairs to find it by.
    pub metadata: BTreeMap<String, String>,
    /// Environment of every process.
    pub envs: BTreeMap<String, String>,
    /// Whether it is paused at the end of its life, and goes on when it is used again, instead of being ended.
    pub pause_at_timeout: bool,
    /// Whether it may reach the internet; `None` is the server's default.
    pub allow_internet_access: Option<bool>,
    /// Network rules.
    pub network: Option<Network>,
    /// Virtual processors (an addition of Sandhold, refused by E2B).
    pub cpus: Option<f64>,
    /// Memory in MiB (an addition of Sandhold, refused by E2B).
    pub memory_mb: Option<u64>,
    /// Disk in MiB (an addition of Sandhold, refused by E2B).
    pub disk_mb: Option<u64>,
    /// Further limits (an addition of Sandhold, ignored by E2B); the three above win.
    pub limits: Caps,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only these states; empty means all.
    pub states: Vec<State>,
    /// Only those with all of these pairs.
    pub metadata: BTreeMap<String, String>,
    /// At most this many; `None` is the server's page size.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// One page of sandboxes.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// The page's sandboxes, newest first.
    pub sandboxes: Vec<ListedSandbox>,
    /// Where the next page starts; `None` at the end.
    pub next_cursor: Option<String>,
}
