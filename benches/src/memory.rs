//! What idle sandboxes cost, all counted: the processes' own memory, the kernel's, and what stands in tmpfs.

use std::fs;

use anyhow::{Context, Result};
use sandhold_tests::machine;

/// Parts of `/proc/meminfo` that a sandbox makes grow without being in any process's own memory.
const KERNEL: [&str; 5] = ["Slab:", "KernelStack:", "PageTables:", "Percpu:", "Shmem:"];

/// Bytes held now by everything below this process and by the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// Proportional set size of every descendant.
    pub(crate) processes: u64,
    /// The kernel's.
    pub(crate) kernel: u64,
}

impl Held {
    pub(crate) fn now() -> Result<Self> {
        let mut processes = 0;
        for pid in machine::descendants(std::process::id())?.into_keys() {
            // One that just ended has nothing left.
            let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
                continue;
            };
            processes += field(&rollup, "Pss:").unwrap_or(0);
        }
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let mut kernel = 0;
        for name in KERNEL {
            kernel += field(&meminfo, name).with_context(|| format!("/proc/meminfo has no {name}"))?;
        }
        Ok(Self { processes, kernel })
    }
}

/// A line's number in bytes; the files count in kB.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}
