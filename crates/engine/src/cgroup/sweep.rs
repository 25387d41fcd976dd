//! Folders of servers that died together with their launcher.
//!
//! A server's folder is named `sandhold-<pid namespace>-<pid>-<start time>-<number>`; with the process gone, or another
//! one under its number, whatever is left in the folder is ended and the folder removed. Servers of other process
//! namespaces cannot be told dead from alive and are left alone.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::remove_pause;
use crate::limits::REMOVE_TRIES;

/// Engines in this process so far.
static ENGINES: AtomicU32 = AtomicU32::new(0);

/// The name of a new server's folders.
pub(super) fn server_name() -> String {
    let pid = std::process::id();
    let number = ENGINES.fetch_add(1, Ordering::Relaxed);
    format!(
        "sandhold-{}-{pid}-{}-{number}",
        pid_namespace(),
        start_time(pid).unwrap_or(0)
    )
}

fn pid_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

/// When a process started, in ticks since boot.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the start is the 20th field after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Whether the server of this folder is known to be dead.
fn is_stale(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("sandhold-") else {
        return false;
    };
    let parts: Vec<&str> = rest.split('-').collect();
    let [namespace, pid, start, _] = parts[..] else {
        return false;
    };
    let (Ok(pid), Ok(start)) = (pid.parse::<u32>(), start.parse::<u64>()) else {
        return false;
    };
    namespace == pid_namespace() && start_time(pid) != Some(start)
}

/// Removes what dead servers left in `parent`.
pub(crate) fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_stale) {
            remove_tree(&entry.path());
        }
    }
}

fn remove_tree(server: &Path) {
    if let Ok(sandboxes) = std::fs::read_dir(server) {
        for sandbox in sandboxes.flatten().filter(|entry| entry.path().is_dir()) {
            remove_group(&sandbox.path());
        }
    }
    // Not empty: its launcher is still at it, or the next server's turn.
    let _ = std::fs::remove_dir(server);
}

fn remove_group(folder: &Path) {
    for attempt in 0..REMOVE_TRIES {
        kill_members(folder);
        if std::fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        std::thread::sleep(remove_pause(attempt));
    }
}

/// Ends every process that is still in a group.
fn kill_members(folder: &Path) {
    let _ = std::fs::write(folder.join("freezer.state"), "THAWED");
    let members = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in members
        .split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
    {
        // ESRCH: it ended in between.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_servers_of_this_namespace_are_stale() {
        let own = server_name();
        assert!(!is_stale(&own), "{own}");
        let parts: Vec<&str> = own.split('-').collect();
        assert!(
            is_stale(&format!("sandhold-{}-{}-1-0", parts[1], parts[2])),
            "another process under the number"
        );
        assert!(
            is_stale(&format!("sandhold-{}-4194304-77-0", parts[1])),
            "no such process"
        );
        assert!(!is_stale("sandhold-1-4194304-77-0"), "another namespace");
        assert!(!is_stale("sandhold-server"));
        assert!(!is_stale("user.slice"));
    }
}
