//! Whether a sandbox's processes use files of its root, as seen from outside through /proc.
//!
//! This is what a process would notice: its folders and descriptors. It is not all that could write: a descriptor may be on
//! its way through a socket, a mapping may become one for writing. That no such thing is there the kernel says, when the
//! old root becomes read-only ([`super::restack`]).

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::limits::END_OTHERS_S;

/// Most processes of one sandbox that are looked at.
const PROCESSES: usize = 1 << 16;
/// Pause between two looks at processes that are to stop or to end.
const LOOK: Duration = Duration::from_micros(200);
/// What is read of one file of /proc.
const FILE: u64 = 4 << 20;
/// How long a thread that is to stop may wait for something in the kernel before it counts as stopped: one that waits for
/// its `vfork` child, which has stopped, would wait for ever. It runs nothing before it stops.
const WAITS: Duration = Duration::from_millis(100);

/// A process's folder in /proc. It never becomes another process's of the same number.
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// That of `pid`.
    pub(super) fn open(pid: Pid) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{}", pid.as_raw_nonzero()), flags, Mode::empty()).map(Self)
    }

    fn copy(&self) -> Result<Self, Errno> {
        self.0.try_clone().map(Self).map_err(|_| Errno::MFILE)
    }

    /// Signals this process and no other that got its number since.
    fn signal(&self, pid: Pid, signal: Signal) -> Result<OwnedFd, Errno> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // If it is still there, the number was not given away before.
        self.text("stat")?;
        pidfd_send_signal(&pidfd, signal)?;
        Ok(pidfd)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.0, folder, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn text(&self, path: &str) -> Result<String, Errno> {
        let file = rustix::fs::openat(&self.0, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = Vec::new();
        let read = std::fs::File::from(file).take(FILE).read_to_end(&mut text);
        read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn stat(&self, path: &str) -> Result<(u64, u64), Errno> {
        let found = rustix::fs::statat(&self.0, path, AtFlags::empty())?;
        Ok((found.st_dev, found.st_ino))
    }

    /// The state of one of its threads and its parent's number (proc(5)); `None`: it is gone.
    fn state(&self, file: &str) -> Option<(char, i32)> {
        let text = self.text(file).ok()?;
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split_whitespace();
        Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
    }

    /// Its threads that have not ended. The first may have, while others go on.
    fn threads(&self) -> Vec<(String, char)> {
        let mut threads = self.names("task").unwrap_or_default();
        // The first one first: in numbers, not letters.
        threads.sort_by_key(|name| name.parse::<u32>().unwrap_or(u32::MAX));
        threads
            .into_iter()
            .filter_map(|name| {
                let (state, _) = self.state(&format!("task/{name}/stat"))?;
                (!['Z', 'X'].contains(&state)).then_some((name, state))
            })
            .collect()
    }

    /// Whether it has ended, though perhaps nobody asked for its end yet.
    fn has_ended(&self) -> bool {
        self.threads().is_empty()
    }
}

/// Processes that were stopped. Dropped: they go on.
pub(super) struct Stopped(Vec<OwnedFd>);

impl Drop for Stopped {
    fn drop(&mut self) {
        for process in &self.0 {
            // ESRCH: it was ended.
            let _ = pidfd_send_signal(process, Signal::CONT);
        }
    }
}

/// The processes of a sandbox, its first one first.
pub(super) struct Processes {
    first: Pid,
    proc: Proc,
}

impl Processes {
    /// Those of the sandbox whose first process is `first`, with this folder.
    pub(super) fn of(first: Pid, proc: &Proc) -> Result<Self, Errno> {
        Ok(Self {
            first,
            proc: proc.copy()?,
        })
    }

    /// All of them. Every process of the sandbox descends from the first, which adopts those whose parents end.
    fn list(&self) -> Result<Vec<(Pid, Proc)>, Errno> {
        let mut seen = BTreeSet::from([self.first.as_raw_nonzero()]);
        let mut found = vec![(self.first, self.proc.copy()?)];
        let mut next = 0;
        while let Some((_, proc)) = found.get(next) {
            let mut children = Vec::new();
            for thread in proc.names("task").unwrap_or_default() {
                let text = match proc.text(&format!("task/{thread}/children")) {
                    Ok(text) => text,
                    // It ended meanwhile, unless it is the first: then the kernel does not tell (CONFIG_PROC_CHILDREN).
                    Err(error) if next == 0 => return Err(error),
                    Err(_) => continue,
                };
                children.extend(
                    text.split_whitespace()
                        .filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)),
                );
            }
            for pid in children {
                if seen.contains(&pid.as_raw_nonzero()) {
                    continue;
                }
                // One that ended meanwhile uses nothing; what got its number is no child of these.
                let Ok(proc) = Proc::open(pid) else { continue };
                let parent = proc.state("stat").and_then(|(_, parent)| Pid::from_raw(parent));
                if parent.is_some_and(|parent| seen.contains(&parent.as_raw_nonzero())) {
                    seen.insert(pid.as_raw_nonzero());
                    found.push((pid, proc));
                }
            }
            if found.len() > PROCESSES {
                return Err(Errno::TOOBIG);
            }
            next += 1;
        }
        Ok(found)
    }

    /// Ends all but the first.
    pub(super) fn end_others(&self) -> Result<(), Errno> {
        let deadline = Instant::now() + Duration::from_secs(END_OTHERS_S);
        loop {
            let mut others = self.list()?;
            others.retain(|(pid, proc)| *pid != self.first && !proc.has_ended());
            if others.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Errno::TIMEDOUT);
            }
            for (pid, proc) in others {
                // ESRCH: it ended meanwhile.
                let _ = proc.signal(pid, Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Stops all of them by a signal; they go on when what is returned is dropped.
    pub(super) fn stop(&self) -> Result<Stopped, Errno> {
        let mut stopped = Stopped(Vec::new());
        let mut asked = BTreeSet::new();
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(END_OTHERS_S);
        loop {
            let mut running = self.list()?;
            let waits = begun.elapsed() > WAITS;
            let runs = |(_, state): &(String, char)| !(['T', 't'].contains(state) || (waits && *state == 'D'));
            running.retain(|(_, proc)| proc.threads().iter().any(runs));
            if running.is_empty() {
                return Ok(stopped);
            }
            if Instant::now() > deadline {
                return Err(Errno::TIMEDOUT);
            }
            for (pid, proc) in running {
                // ESRCH: it ended meanwhile.
                if let Ok(process) = proc.signal(pid, Signal::STOP)
                    && asked.insert(pid.as_raw_nonzero())
                {
                    stopped.0.push(process);
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The name of a process that uses something of the root `over`, if there is one.
    pub(super) fn user_of(&self, over: &OwnedFd) -> Result<Option<String>, Errno> {
        let root = Root::of(over)?;
        for (pid, proc) in self.list()? {
            match root.is_used_by(&proc) {
                Ok(false) => {}
                Ok(true) => return Ok(Some(proc.text("comm").unwrap_or_default().trim().to_owned())),
                // It ended meanwhile.
                Err(Errno::NOENT | Errno::SRCH) => {}
                // Into the first process an ordinary user may not look: it is ours, and keeps nothing open.
                Err(Errno::ACCESS | Errno::PERM) if pid == self.first => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// An overlay, as it shows in /proc.
struct Root {
    device: u64,
    inode: u64,
    mount: String,
    /// The device as inotify shows it.
    watched: String,
}

impl Root {
    fn of(over: &OwnedFd) -> Result<Self, Errno> {
        let found = rustix::fs::fstat(over)?;
        let own = Proc(rustix::fs::openat(
            CWD,
            "/proc/self",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        let info = own.text(&format!("fdinfo/{}", over.as_raw_fd()))?;
        let (major, minor) = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
        Ok(Self {
            device: found.st_dev,
            inode: found.st_ino,
            mount: mount_id(&info).ok_or(Errno::NOTSUP)?.to_owned(),
            // The kernel's own encoding: 20 bits of minor.
            watched: format!("sdev:{:x}", (u64::from(major) << 20) | u64::from(minor)),
        })
    }

    fn is_used_by(&self, proc: &Proc) -> Result<bool, Errno> {
        let threads = proc.threads();
        for (thread, _) in &threads {
            for place in ["root", "cwd"] {
                let (device, inode) = proc.stat(&format!("task/{thread}/{place}"))?;
                if device == self.device && inode != self.inode {
                    return Ok(true);
                }
            }
        }
        // Threads share their descriptors, unless one asked for its own.
        let Some((thread, _)) = threads.first() else {
            return Ok(false);
        };
        for fd in proc.names(&format!("task/{thread}/fd"))? {
            let info = proc.text(&format!("task/{thread}/fdinfo/{fd}"))?;
            let watches = info
                .lines()
                .any(|line| line.starts_with("inotify") && line.split_whitespace().any(|word| word == self.watched));
            if watches || mount_id(&info) == Some(&self.mount) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn mount_id(info: &str) -> Option<&str> {
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_children_of_a_process_are_found_and_ended() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & sleep 60"])
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let processes = Processes::of(pid, &Proc::open(pid).unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(8);
        while processes.list().unwrap().len() < 3 {
            assert!(Instant::now() < deadline, "two children");
        }
        let here = rustix::fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(processes.user_of(&here).unwrap(), None, "none of them works in /proc");
        let others = processes.list().unwrap();
        processes.end_others().unwrap();
        assert!(others[1..].iter().all(|(_, proc)| proc.has_ended()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
