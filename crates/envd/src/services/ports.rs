//! Who listens where: the kernel's tables of sockets, and the descriptors of the processes.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use sandhold_wire::services::{DOORS, Listener, ListeningSocket, listening_sockets};

use crate::beginning::beginning;
use crate::limits::{PORTS, PORTS_COMMAND, PORTS_DESCRIPTORS, PORTS_PROCESSES, PORTS_TABLE};
use crate::sys::as_user;

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The ports that something listens on, or that one of them.
pub(crate) fn listening(only: Option<u16>) -> Vec<Listener> {
    let mut sockets: Vec<ListeningSocket> = TABLES
        .iter()
        .flat_map(|table| listening_sockets(&beginning(table, PORTS_TABLE), PORTS))
        .filter(|socket| only.is_none_or(|port| port == socket.port))
        .collect();
    sockets.sort_by_key(|socket| (socket.port, socket.address));
    sockets.dedup_by_key(|socket| (socket.port, socket.address));
    if sockets.is_empty() {
        return Vec::new();
    }
    let holders = holders(&sockets);
    sockets.retain(|socket| !DOORS.contains(&socket.port) || holders.contains_key(&socket.inode));
    let mut found: Vec<Listener> = Vec::new();
    for socket in sockets {
        let address = socket.address.to_string();
        match found.last_mut().filter(|last| last.port == socket.port) {
            Some(last) => last.addresses.push(address),
            None => found.push(Listener {
                port: socket.port,
                addresses: vec![address],
                ..Listener::default()
            }),
        }
        let Some(listener) = found.last_mut().filter(|l| l.pid.is_none()) else {
            continue;
        };
        if let Some(&pid) = holders.get(&socket.inode) {
            listener.pid = Some(pid);
            listener.session = session_of(pid);
            listener.command = command(pid);
        }
    }
    found
}

/// The processes that hold these sockets; of several that do, the one that started first.
fn holders(sockets: &[ListeningSocket]) -> HashMap<u64, u32> {
    let mut found = HashMap::new();
    for pid in processes() {
        if found.len() == sockets.len() {
            break;
        }
        // Its descriptors are shown to those who could trace it.
        let Ok(owner) = fs::metadata(format!("/proc/{pid}")) else {
            continue;
        };
        let held = as_user(owner.uid(), owner.gid(), || sockets_of(pid));
        for inode in held {
            if sockets.iter().any(|socket| socket.inode == inode) {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    found
}

/// All processes in ascending order.
pub(crate) fn processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut pids: Vec<u32> = entries.flatten().filter_map(number).take(PORTS_PROCESSES).collect();
    pids.sort_unstable();
    pids
}

fn sockets_of(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let socket = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    };
    entries.flatten().take(PORTS_DESCRIPTORS).filter_map(socket).collect()
}

/// pid (name) state ppid pgrp session: the name may hold anything, even a parenthesis.
fn session_of(pid: u32) -> Option<u32> {
    let stat = beginning(&format!("/proc/{pid}/stat"), 4096);
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

/// The command line of a process, or its name in brackets where it has none.
pub(crate) fn command(pid: u32) -> String {
    let line = beginning(&format!("/proc/{pid}/cmdline"), PORTS_COMMAND as u64);
    let line = line.trim_end_matches('\0').replace('\0', " ");
    if !line.trim().is_empty() {
        return line;
    }
    match beginning(&format!("/proc/{pid}/comm"), 64).trim() {
        "" => String::new(),
        name => format!("[{name}]"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_found_with_its_process() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = listening(Some(port));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].port, found[0].addresses.as_slice()),
            (port, &["127.0.0.1".to_owned()][..])
        );
        assert_eq!(found[0].pid, Some(std::process::id()));
        assert_eq!(found[0].command, command(std::process::id()));
        assert!(!found[0].command.is_empty());
        drop(socket);
        assert_eq!(listening(Some(port)), []);
    }
}
