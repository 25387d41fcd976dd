//! Which control groups this server may use.

use std::path::{Path, PathBuf};

use super::{Version, sweep};

/// The controllers that limit a sandbox, and what is not limited without each.
const WANTED: &[(&str, &str)] = &[
    ("memory", "memory"),
    ("pids", "the number of processes"),
    ("cpu", "processor time"),
];

/// Controllers of cgroup v1 that the engine uses.
const V1: &[&str] = &["memory", "pids", "cpu", "cpuacct", "freezer"];

/// Where root's servers have their folders in cgroup v2, below the top.
const ROOTS_FOLDER: &str = "sandhold";

/// The folders of this server.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    pub(crate) version: Version,
    /// One a hierarchy.
    pub(crate) folders: Vec<PathBuf>,
    /// Controller and index into `folders`. `freezer` is what freezes; in v2 every folder does.
    controllers: Vec<(String, usize)>,
    /// What is not limited here, and what would mend it.
    pub(crate) warnings: Vec<String>,
}

impl Cgroups {
    /// Nothing at all.
    fn none() -> Self {
        Self {
            version: Version::Two,
            folders: Vec::new(),
            controllers: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The hierarchy of a controller.
    pub(crate) fn hierarchy(&self, controller: &str) -> Option<usize> {
        self.controllers
            .iter()
            .find(|(name, _)| name == controller)
            .map(|(_, index)| *index)
    }

    /// Whether children are born in their cgroup.
    pub(crate) fn unified(&self) -> bool {
        self.version == Version::Two && !self.folders.is_empty()
    }

    /// In a few words.
    pub(crate) fn describe(&self) -> String {
        if self.folders.is_empty() {
            return "no cgroups".to_owned();
        }
        let names: Vec<&str> = self.controllers.iter().map(|(name, _)| name.as_str()).collect();
        let version = if self.version == Version::Two { "v2" } else { "v1" };
        format!("cgroup {version} ({})", names.join(", "))
    }

    /// Removes this server's folders, if they are empty.
    pub(crate) fn remove(&self) {
        for folder in &self.folders {
            // Sandboxes that are still ending keep it; the next server sweeps.
            let _ = std::fs::remove_dir(folder);
            if let Some(parent) = folder.parent().filter(|parent| parent.ends_with(ROOTS_FOLDER)) {
                let _ = std::fs::remove_dir(parent);
            }
        }
    }
}

/// A mounted hierarchy.
struct Mount {
    root: String,
    point: PathBuf,
    unified: bool,
    options: Vec<String>,
}

/// Finds the hierarchies, sweeps after dead servers and makes this server's folders.
pub(crate) fn detect() -> Cgroups {
    let mounts = mounts(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let name = sweep::server_name();
    let mut found = unified(&mounts, &own, &name)
        .or_else(|| split(&mounts, &own, &name))
        .unwrap_or_else(Cgroups::none);
    let missing: Vec<&str> = WANTED
        .iter()
        .filter(|(name, _)| found.hierarchy(name).is_none())
        .map(|(_, what)| *what)
        .collect();
    if !missing.is_empty() {
        let remedy = if rustix::process::geteuid().is_root() {
            "the server needs writable cgroups with the memory, pids and cpu controllers; in a container, mount \
             /sys/fs/cgroup writable"
        } else {
            "start the server with `systemd-run --user --scope -p Delegate=yes …`"
        };
        found
            .warnings
            .push(format!("no cgroup limits {}: {remedy}", missing.join(", ")));
    }
    found
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        let kind = *back.first()?;
        matches!(kind, "cgroup" | "cgroup2").then_some(())?;
        Some(Mount {
            root: (*front.get(3)?).to_owned(),
            point: PathBuf::from(*front.get(4)?),
            unified: kind == "cgroup2",
            options: back.get(2)?.split(',').map(str::to_owned).collect(),
        })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// The folder of this process's own group below a mount.
fn own_folder(mount: &Mount, path: &str) -> PathBuf {
    let below = if mount.root == "/" {
        path
    } else {
        path.strip_prefix(mount.root.as_str()).unwrap_or("")
    };
    // In a cgroup namespace paths may lead above its root; then what is mounted is what can be used.
    if below.contains("..") {
        mount.point.clone()
    } else {
        mount.point.join(below.trim_start_matches('/'))
    }
}

/// The path of this process in the hierarchy of `controller`; the empty name is cgroup v2.
fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        names.split(',').any(|name| name == controller).then_some(path)
    })
}

fn unified(mounts: &[Mount], own: &str, name: &str) -> Option<Cgroups> {
    let mount = mounts.iter().find(|mount| mount.unified)?;
    let here = own_folder(mount, own_path(own, "")?);
    let mut parents = vec![here.clone()];
    if rustix::process::geteuid().is_root() {
        parents.push(mount.point.join(ROOTS_FOLDER));
    }
    parents.into_iter().find_map(|parent| unified_in(&parent, &here, name))
}

/// Makes this server's folder in a v2 parent, with whichever of the wanted controllers can be handed down to it.
fn unified_in(parent: &Path, here: &Path, name: &str) -> Option<Cgroups> {
    if parent != here {
        // As root, below the top: the top group may have processes and children both.
        let top = parent.parent()?;
        if !has_wanted(top) || (!parent.exists() && std::fs::create_dir(parent).is_err()) {
            return None;
        }
        hand_down(top);
    }
    if !has_wanted(parent) {
        return None;
    }
    sweep::sweep(parent);
    if !hand_down(parent) && parent == here {
        // A group that hands controllers down may not hold processes. If this server is alone in it, it steps aside.
        step_aside(parent);
        hand_down(parent);
    }
    let folder = parent.join(name);
    std::fs::create_dir(&folder).ok()?;
    hand_down(&folder);
    let active = read_words(&folder.join("cgroup.subtree_control"));
    let mut controllers: Vec<(String, usize)> = WANTED
        .iter()
        .filter(|(name, _)| active.iter().any(|have| have == name))
        .map(|(name, _)| ((*name).to_owned(), 0))
        .collect();
    if controllers.is_empty() {
        let _ = std::fs::remove_dir(&folder);
        return None;
    }
    controllers.push(("freezer".to_owned(), 0));
    Some(Cgroups {
        version: Version::Two,
        folders: vec![folder],
        controllers,
        warnings: Vec::new(),
    })
}

/// Whether a group has any of the wanted controllers.
fn has_wanted(folder: &Path) -> bool {
    let available = read_words(&folder.join("cgroup.controllers"));
    WANTED.iter().any(|(name, _)| available.iter().any(|have| have == name))
}

/// Enables the wanted controllers for the children of `folder`, one by one. Says whether all could be.
fn hand_down(folder: &Path) -> bool {
    let write = |name: &str| std::fs::write(folder.join("cgroup.subtree_control"), format!("+{name}"));
    WANTED.iter().filter(|(name, _)| write(name).is_err()).count() == 0
}

fn step_aside(parent: &Path) {
    let own = std::process::id().to_string();
    let members = std::fs::read_to_string(parent.join("cgroup.procs")).unwrap_or_default();
    if members.split_whitespace().eq([own.as_str()]) {
        let leaf = parent.join("sandhold-server");
        let _ = std::fs::create_dir(&leaf);
        // If it fails, the controllers stay missing, and the warning says so.
        let _ = std::fs::write(leaf.join("cgroup.procs"), own);
    }
}

fn read_words(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn split(mounts: &[Mount], own: &str, name: &str) -> Option<Cgroups> {
    let mut found = Cgroups {
        version: Version::One,
        ..Cgroups::none()
    };
    for controller in V1 {
        let is_it = |mount: &&Mount| !mount.unified && mount.options.iter().any(|option| option == controller);
        let (Some(mount), Some(path)) = (mounts.iter().find(is_it), own_path(own, controller)) else {
            continue;
        };
        let parent = own_folder(mount, path);
        let folder = parent.join(name);
        // cpu and cpuacct are often one hierarchy.
        if let Some(index) = found.folders.iter().position(|known| *known == folder) {
            found.controllers.push(((*controller).to_owned(), index));
            continue;
        }
        sweep::sweep(&parent);
        if std::fs::create_dir(&folder).is_ok() {
            found.controllers.push(((*controller).to_owned(), found.folders.len()));
            found.folders.push(folder);
        }
    }
    (!found.folders.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_folders_are_found_in_plain_and_namespaced_mounts() {
        let mounts = mounts(
            "25 20 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             26 20 0:23 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n\
             27 20 0:24 / /sys rw - sysfs sysfs rw\n",
        );
        assert_eq!(mounts.len(), 2);
        assert_eq!(own_folder(&mounts[0], "/a/b"), Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(
            own_folder(&mounts[1], "/docker/x/leaf"),
            Path::new("/sys/fs/cgroup/leaf")
        );
        assert_eq!(own_folder(&mounts[1], "/../other"), Path::new("/sys/fs/cgroup"));
        let own = "4:cpu,cpuacct:/x\n0::/y\n";
        assert_eq!(own_path(own, "cpuacct"), Some("/x"));
        assert_eq!(own_path(own, ""), Some("/y"));
        assert_eq!(own_path(own, "memory"), None);
    }
}
