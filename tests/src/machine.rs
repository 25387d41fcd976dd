//! Counts what the machine holds, to compare it before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// What is held, each kind as a set so that a difference has names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Descendants of this process: `pid name`.
    pub processes: BTreeSet<String>,
    /// Mounts of the host's namespace, by mount point and source.
    pub mounts: BTreeSet<String>,
    /// Folders of every cgroup hierarchy.
    pub cgroups: BTreeSet<PathBuf>,
    /// Those of them that somebody else lives in.
    foreign: BTreeSet<PathBuf>,
    /// Network namespaces that descendants are in, beside this process's own.
    pub net_namespaces: BTreeSet<String>,
    /// Unix sockets of the host's network namespace that have a name.
    pub sockets: BTreeSet<String>,
    /// Files below the folders that were asked for, and in the machine's folders for temporary files.
    pub files: BTreeSet<PathBuf>,
}

impl Held {
    /// What is there now, with the files below `folders`.
    ///
    /// # Errors
    /// `/proc` could not be read.
    pub fn now(folders: &[&Path]) -> Result<Self> {
        let mut held = Self::default();
        let own = fs::read_link("/proc/self/ns/net")?;
        let below = descendants(process::id())?;
        for (pid, name) in &below {
            if let Ok(link) = fs::read_link(format!("/proc/{pid}/ns/net"))
                && link != own
            {
                held.net_namespaces.insert(link.display().to_string());
            }
            held.processes.insert(format!("{pid} {name}"));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let tail = line.split_once(" - ").map_or("", |(_, tail)| tail);
            let point = fields.get(4).copied().unwrap_or_default();
            held.mounts.insert(format!("{point} {tail}"));
            if tail.starts_with("cgroup") {
                walk(Path::new(point), true, &mut held.cgroups);
            }
        }
        for line in fs::read_to_string("/proc/net/unix")?.lines().skip(1) {
            if let Some(name) = line.split_whitespace().nth(7) {
                held.sockets.insert(name.to_owned());
            }
        }
        held.foreign = foreign(&held.cgroups, &below);
        for folder in folders {
            walk(folder, false, &mut held.files);
        }
        for folder in ["/dev/shm", "/tmp", "/var/tmp", "/run"] {
            // Only what is this user's: others work on the machine too.
            let own = rustix::process::getuid().as_raw();
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.metadata().is_ok_and(|found| found.uid() == own) {
                    held.files.insert(entry.path());
                }
            }
        }
        Ok(held)
    }

    /// What `self` holds that `before` did not, one line each.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        fn more<T: Ord + std::fmt::Debug>(kind: &str, now: &BTreeSet<T>, before: &BTreeSet<T>) -> Vec<String> {
            now.difference(before).map(|one| format!("{kind} {one:?}")).collect()
        }
        [
            more("process", &self.processes, &before.processes),
            more("mount", &self.mounts, &before.mounts),
            more(
                "cgroup",
                &self.cgroups.difference(&self.foreign).cloned().collect(),
                &before.cgroups,
            ),
            more("network namespace", &self.net_namespaces, &before.net_namespaces),
            more("socket", &self.sockets, &before.sockets),
            more("file", &self.files, &before.files),
        ]
        .concat()
    }

    /// Waits until nothing is held beyond `before`; returns what still is after `limit`.
    ///
    /// # Errors
    /// As [`Held::now`].
    pub fn settle(before: &Self, folders: &[&Path], limit: Duration) -> Result<Vec<String>> {
        let started = Instant::now();
        loop {
            reap();
            let beyond = Self::now(folders)?.beyond(before);
            if beyond.is_empty() || started.elapsed() > limit {
                return Ok(beyond);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The cgroups in or below which a process lives that is not one of `below`: they are somebody else's.
fn foreign(cgroups: &BTreeSet<PathBuf>, below: &BTreeMap<u32, String>) -> BTreeSet<PathBuf> {
    let lived_in = |folder: &&PathBuf| {
        let inside = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        inside
            .lines()
            .any(|pid| pid.parse().is_ok_and(|pid: u32| !below.contains_key(&pid)))
    };
    cgroups
        .iter()
        .filter(lived_in)
        .flat_map(|folder| folder.ancestors().map(Path::to_owned))
        .collect()
}

/// Makes this process the parent of every orphan below it, so that none of them is lost from sight.
///
/// # Errors
/// The system call failed.
pub fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("becoming a child subreaper")
}

/// Collects orphans that ended. Children that a [`process::Child`] stands for must have been waited for before.
pub fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

/// Processes below `root`, with their names. Zombies count: somebody must collect them.
///
/// # Errors
/// `/proc` could not be read.
pub fn descendants(root: u32) -> Result<BTreeMap<u32, String>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may end meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else {
            continue;
        };
        let parent = stat[close + 1..]
            .split_whitespace()
            .nth(1)
            .and_then(|text| text.parse::<u32>().ok());
        parents.insert(pid, (parent.unwrap_or(0), stat[open + 1..close].to_owned()));
    }
    let mut found = BTreeMap::new();
    let mut front = vec![root];
    while let Some(parent) = front.pop() {
        for (&pid, (of, name)) in &parents {
            if *of == parent && !found.contains_key(&pid) {
                found.insert(pid, name.clone());
                front.push(pid);
            }
        }
    }
    Ok(found)
}

/// Open descriptors of a process.
///
/// # Errors
/// It has ended or belongs to somebody else.
pub fn descriptors(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn walk(folder: &Path, folders_only: bool, into: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            into.insert(entry.path());
            walk(&entry.path(), folders_only, into);
        } else if !folders_only {
            into.insert(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_is_left_behind_is_seen() {
        let _children = crate::CHILDREN.lock();
        let folder = tempfile::tempdir().unwrap();
        let before = Held::now(&[folder.path()]).unwrap();
        // The shell ends at once; what it started is an orphan that only an adopting parent still sees.
        adopt_orphans().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & : > left"]).current_dir(folder.path());
        assert!(
            shell
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
        let beyond = Held::settle(&before, &[folder.path()], Duration::from_millis(300)).unwrap();
        assert!(
            beyond
                .iter()
                .any(|line| line.starts_with("process") && line.contains("sleep")),
            "{beyond:?}"
        );
        assert!(
            beyond
                .iter()
                .any(|line| line.starts_with("file") && line.contains("left")),
            "{beyond:?}"
        );
        for pid in descendants(process::id()).unwrap().keys() {
            let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        fs::remove_file(folder.path().join("left")).unwrap();
        // Others may come and go in the machine's own folders meanwhile.
        let ours = |line: &String| line.contains("sleep") || line.contains("left");
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            reap();
            let beyond = Held::now(&[folder.path()]).unwrap().beyond(&before);
            if !beyond.iter().any(ours) {
                break;
            }
            assert!(Instant::now() < until, "{beyond:?}");
        }
    }
}
