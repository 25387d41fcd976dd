//! Control groups: what limits and counts a sandbox where the host lets us.
//!
//! All sandboxes of a server together weigh on the processors as one process of the host's does: their folder keeps the
//! weight that the kernel gives it, and each thread of the server has as much. What one sandbox takes from another is
//! `fair`'s matter.
//!
//! Each server has one folder in each hierarchy it uses ([`detect()`]), each sandbox one below it. The launcher makes them
//! (it must do so between the engine's request and the fork), the engine reads, freezes and removes them; whichever
//! survives the other removes what is left, and the next server sweeps after both (`sweep`).

mod detect;
mod sweep;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sandhold_runtime::{Met, Usage};

use crate::launcher::message::CgroupFile;
use crate::limits::{CPU_PERIOD_US, CPU_SHARES_WAITING, CPU_WEIGHT_WAITING, FREEZE_DEADLINE_MS, REMOVE_TRIES};

pub(crate) use detect::{Cgroups, detect};

/// Which interface the folders have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One folder for all controllers.
    Two,
    /// One folder a hierarchy.
    One,
}

/// Limits as the cgroups get them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CgroupLimits {
    pub(crate) memory_bytes: u64,
    pub(crate) pids: u64,
    /// `None`: all there are.
    pub(crate) cpus: Option<f64>,
}

impl Cgroups {
    /// Processor time of all sandboxes so far, in microseconds.
    pub(crate) fn cpu_us(&self) -> Option<u64> {
        match self.version {
            Version::Two => field(self.folders.first().map(PathBuf::as_path), "cpu.stat", "usage_usec "),
            Version::One => {
                let folder = self.hierarchy("cpuacct").and_then(|index| self.folders.get(index));
                number(folder.map(PathBuf::as_path), "cpuacct.usage").map(|ns| ns / 1000)
            }
        }
    }

    /// What the launcher has to write for one sandbox.
    pub(crate) fn files(&self, limits: CgroupLimits) -> Vec<CgroupFile> {
        let mut files = Vec::new();
        let mut put = |controller: &str, name: &str, value: String, required: bool| {
            if let Some(hierarchy) = self.hierarchy(controller) {
                files.push(CgroupFile {
                    hierarchy,
                    name: name.to_owned(),
                    value,
                    required,
                });
            }
        };
        let memory = limits.memory_bytes.to_string();
        // Never more than a second's worth in a period: 64 bits hold any product of the two limits.
        let quota = limits.cpus.map(|cpus| (cpus * CPU_PERIOD_US as f64).ceil() as u64);
        match self.version {
            Version::Two => {
                put("memory", "memory.max", memory, true);
                put("memory", "memory.swap.max", "0".to_owned(), false);
                put("pids", "pids.max", limits.pids.to_string(), true);
                if let Some(quota) = quota {
                    put("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_US}"), true);
                }
            }
            Version::One => {
                put("memory", "memory.limit_in_bytes", memory.clone(), true);
                // Memory and swap together: no more than memory alone. Absent without swap accounting.
                put("memory", "memory.memsw.limit_in_bytes", memory, false);
                put("pids", "pids.max", limits.pids.to_string(), true);
                if let Some(quota) = quota {
                    put("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string(), false);
                    put("cpu", "cpu.cfs_quota_us", quota.to_string(), true);
                }
            }
        }
        files
    }

    /// The folders of one sandbox.
    pub(crate) fn of(&self, id: &str) -> SandboxCgroups {
        let folder = |controller| self.hierarchy(controller).map(|index| self.folders[index].join(id));
        SandboxCgroups {
            version: self.version,
            folders: self.folders.iter().map(|folder| folder.join(id)).collect(),
            memory: folder("memory"),
            pids: folder("pids"),
            cpu: folder("cpu"),
            // Every v2 group counts its time, also without the controller that limits it.
            cpu_time: match self.version {
                Version::Two => self.folders.first().map(|folder| folder.join(id)),
                Version::One => folder("cpuacct"),
            },
            freezer: folder("freezer"),
        }
    }
}

/// The folders of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct SandboxCgroups {
    version: Version,
    folders: Vec<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpu_time: Option<PathBuf>,
    freezer: Option<PathBuf>,
}

impl SandboxCgroups {
    /// Whether processes can be stopped where they stand.
    pub(crate) fn can_freeze(&self) -> bool {
        self.freezer.is_some()
    }

    /// Stops all processes, or lets them go on, and waits until the kernel says so. Blocks for up to
    /// [`FREEZE_DEADLINE_MS`].
    pub(crate) fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        let Some(folder) = &self.freezer else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (file, value, state, wanted) = match (self.version, frozen) {
            (Version::Two, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            (Version::Two, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
            (Version::One, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
            (Version::One, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED"),
        };
        let deadline = Instant::now() + Duration::from_millis(FREEZE_DEADLINE_MS);
        // Processes that wait are frozen within microseconds.
        let mut pause = Duration::from_micros(10);
        loop {
            std::fs::write(folder.join(file), value)?;
            if std::fs::read_to_string(folder.join(state))?
                .lines()
                .any(|line| line == wanted)
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                // Half frozen is worse than running.
                if frozen {
                    std::fs::write(
                        folder.join(file),
                        if self.version == Version::Two { "0" } else { "THAWED" },
                    )?;
                }
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_micros(200));
        }
    }

    /// Processor time of the processes so far, in microseconds.
    pub(crate) fn cpu_us(&self) -> Option<u64> {
        let folder = self.cpu_time.as_deref();
        match self.version {
            Version::Two => field(folder, "cpu.stat", "usage_usec "),
            Version::One => number(folder, "cpuacct.usage").map(|ns| ns / 1000),
        }
    }

    /// Whether the processes run only when those of no other sandbox want to. What the kernel refuses stays as it is.
    pub(crate) fn set_waiting(&self, waits: bool) {
        let Some(folder) = &self.cpu else { return };
        // Going back to 0 brings the usual weight back, too.
        if std::fs::write(folder.join("cpu.idle"), if waits { "1" } else { "0" }).is_ok() {
            return;
        }
        // Before Linux 5.15.
        let (file, usual, waiting) = match self.version {
            Version::Two => ("cpu.weight", 100, CPU_WEIGHT_WAITING),
            Version::One => ("cpu.shares", 1024, CPU_SHARES_WAITING),
        };
        let weight = if waits { waiting } else { usual };
        if let Err(error) = std::fs::write(folder.join(file), weight.to_string()) {
            tracing::debug!(folder = %folder.display(), %error, "a sandbox's part of the processors was not changed");
        }
    }

    /// What the processes use. `None` where nothing counts it.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let memory = self.memory.as_deref();
        let (memory_bytes, cache_bytes) = match self.version {
            Version::Two => (number(memory, "memory.current"), field(memory, "memory.stat", "file ")),
            Version::One => (
                number(memory, "memory.usage_in_bytes"),
                field(memory, "memory.stat", "total_cache "),
            ),
        };
        let cpu_us = self.cpu_us();
        let pids = number(self.pids.as_deref(), "pids.current");
        if memory_bytes.is_none() && cpu_us.is_none() && pids.is_none() {
            return None;
        }
        Some(Usage {
            memory_bytes: memory_bytes.unwrap_or(0),
            cache_bytes: cache_bytes.unwrap_or(0),
            cpu_us: cpu_us.unwrap_or(0),
            pids: pids.unwrap_or(0),
            met: self.met(),
        })
    }

    /// Which limits the processes met.
    fn met(&self) -> Met {
        let [memory, pids, cpu] = [&self.memory, &self.pids, &self.cpu].map(|folder| folder.as_deref());
        let (memory, throttled_us) = match self.version {
            Version::Two => (
                field(memory, "memory.events", "oom_kill "),
                field(cpu, "cpu.stat", "throttled_usec "),
            ),
            Version::One => (
                field(memory, "memory.oom_control", "oom_kill "),
                field(cpu, "cpu.stat", "throttled_time ").map(|ns| ns / 1000),
            ),
        };
        Met {
            memory,
            pids: field(pids, "pids.events", "max "),
            throttled_us,
        }
    }

    /// Lets frozen processes end (v1; a v2 group kills frozen ones).
    pub(crate) fn release_for_kill(&self) {
        if let (Version::One, Some(folder)) = (self.version, &self.freezer) {
            // Not there any more: nothing to let go.
            let _ = std::fs::write(folder.join("freezer.state"), "THAWED");
        }
    }

    /// Removes the folders, once. Says whether all are gone.
    pub(crate) fn try_remove(&self) -> bool {
        // Each of them is tried, also behind one that is busy.
        let left = self
            .folders
            .iter()
            .filter(|folder| !removed(std::fs::remove_dir(folder)))
            .count();
        left == 0
    }
}

/// A file that holds one number.
fn number(folder: Option<&Path>, file: &str) -> Option<u64> {
    std::fs::read_to_string(folder?.join(file)).ok()?.trim().parse().ok()
}

/// The number behind `name` in a file of several lines.
fn field(folder: Option<&Path>, file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(folder?.join(file)).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn removed(result: io::Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The pause before try number `attempt` of a removal.
pub(crate) fn remove_pause(attempt: u32) -> Duration {
    Duration::from_micros((200u64 << attempt.min(8)).min(50_000))
}

/// Removes a folder, again and again for about a second: the kernel lets go of ended processes a little later.
pub(crate) fn remove_at(folder: impl AsFd, name: &str) -> bool {
    for attempt in 0..REMOVE_TRIES {
        match rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return true,
            Err(Errno::BUSY) => std::thread::sleep(remove_pause(attempt)),
            Err(_) => return false,
        }
    }
    false
}

/// Writes a file of a kernel file system below an open folder.
pub(crate) fn write_at(folder: impl AsFd, path: &str, value: &str) -> Result<(), Errno> {
    let file = rustix::fs::openat(folder, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}
