//! Whether a sandbox's processes use files of its root, as seen from outside through /proc.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::limits::END_OTHERS_S;

/// Most processes of one sandbox that are looked at.
const PROCESSES: usize = 1 << 16;
/// Pause between two looks at processes that are to stop or to end.
const LOOK: Duration = Duration::from_micros(200);
/// What is read of one file of /proc.
const FILE: u64 = 4 << 20;

/// A process's folder in /proc.
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// That of `pid`.
    pub(super) fn open(pid: Pid) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{}", pid.as_raw_nonzero()), flags, Mode::empty()).map(Self)
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

    /// Whether it has ended and nobody asked for its end yet.
    fn is_zombie(&self) -> bool {
        self.is_state(&['Z', 'X'])
    }

    /// Whether it is in one of these states (proc(5)), or gone.
    fn is_state(&self, states: &[char]) -> bool {
        let state = self.text("stat").ok();
        let state = state
            .as_deref()
            .and_then(|stat| stat.rsplit_once(") "))
            .map(|(_, rest)| rest);
        state.is_none_or(|rest| rest.starts_with(states))
    }
}

/// Processes that were stopped. Dropped: they go on.
pub(super) struct Stopped(Vec<Pid>);

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            // ESRCH: it was ended.
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

/// The processes of a sandbox, its first one first.
pub(super) struct Processes {
    first: Pid,
}

impl Processes {
    /// Those of the sandbox whose first process is `first`.
    pub(super) fn of(first: Pid) -> Self {
        Self { first }
    }

    /// All of them. Every process of the sandbox descends from the first, which adopts those whose parents end.
    fn list(&self) -> Result<Vec<(Pid, Proc)>, Errno> {
        let mut seen = BTreeSet::from([self.first.as_raw_nonzero()]);
        let mut found = vec![(self.first, Proc::open(self.first)?)];
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
                if seen.insert(pid.as_raw_nonzero()) {
                    // One that ended meanwhile uses nothing.
                    if let Ok(proc) = Proc::open(pid) {
                        found.push((pid, proc));
                    }
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
            others.retain(|(pid, proc)| *pid != self.first && !proc.is_zombie());
            if others.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Errno::TIMEDOUT);
            }
            for (pid, _) in others {
                // ESRCH: it ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Stops all of them by a signal; they go on when what is returned is dropped.
    pub(super) fn stop(&self) -> Result<Stopped, Errno> {
        let mut stopped = Stopped(Vec::new());
        let deadline = Instant::now() + Duration::from_secs(END_OTHERS_S);
        loop {
            let mut running = self.list()?;
            running.retain(|(_, proc)| !proc.is_state(&['Z', 'X', 'T', 't']));
            if running.is_empty() {
                return Ok(stopped);
            }
            if Instant::now() > deadline {
                return Err(Errno::TIMEDOUT);
            }
            for (pid, _) in running {
                // ESRCH: it ended meanwhile.
                if kill_process(pid, Signal::STOP).is_ok() {
                    stopped.0.push(pid);
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The name of a process that uses something of the root `over`, if there is one.
    pub(super) fn user_of(&self, over: &OwnedFd) -> Result<Option<String>, Errno> {
        let root = Root::of(over)?;
        for (pid, proc) in self.list()? {
            if proc.is_zombie() {
                continue;
            }
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
        for place in ["root", "cwd"] {
            let (device, inode) = proc.stat(place)?;
            if device == self.device && inode != self.inode {
                return Ok(true);
            }
        }
        for fd in proc.names("fd")? {
            let Ok(info) = proc.text(&format!("fdinfo/{fd}")) else {
                continue;
            };
            let watches = info
                .lines()
                .any(|line| line.starts_with("inotify") && line.split_whitespace().any(|word| word == self.watched));
            if watches || mount_id(&info) == Some(&self.mount) {
                return Ok(true);
            }
        }
        // What is mapped for writing and shared writes to the file without a descriptor.
        let maps = proc.text("maps")?;
        Ok(maps.lines().any(is_shared_file))
    }
}

fn mount_id(info: &str) -> Option<&str> {
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .map(str::trim)
}

/// Whether a line of `maps` is of a file that is written to, other than memory that has the shape of a file.
fn is_shared_file(line: &str) -> bool {
    let mut fields = line.split_whitespace().skip(1);
    let (Some(rights), Some(path)) = (fields.next(), fields.nth(3)) else {
        return false;
    };
    let memory = ["/dev/shm/", "/memfd:", "/dev/zero", "/SYSV", "["];
    rights.ends_with('s') && rights.contains('w') && !memory.iter().any(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_told_apart() {
        for (line, shared) in [
            ("7f0-7f1 rw-s 00000000 00:2a 12   /home/user/data.bin", true),
            ("7f0-7f1 rw-p 00000000 00:2a 12   /home/user/data.bin", false),
            ("7f0-7f1 r--s 00000000 00:2a 12   /home/user/data.bin", false),
            ("7f0-7f1 rw-s 00000000 00:01 12   /memfd:x (deleted)", false),
            ("7f0-7f1 rw-s 00000000 00:2b 2    /dev/shm/x", false),
            ("7f0-7f1 rw-p 00000000 00:00 0", false),
            ("", false),
        ] {
            assert_eq!(is_shared_file(line), shared, "{line}");
        }
    }

    #[test]
    fn the_children_of_a_process_are_found_and_ended() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & sleep 60"])
            .spawn()
            .unwrap();
        let processes = Processes::of(Pid::from_child(&child));
        let deadline = Instant::now() + Duration::from_secs(8);
        while processes.list().unwrap().len() < 3 {
            assert!(Instant::now() < deadline, "two children");
        }
        let here = rustix::fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(processes.user_of(&here).unwrap(), None, "none of them works in /proc");
        let others = processes.list().unwrap();
        processes.end_others().unwrap();
        assert!(others[1..].iter().all(|(_, proc)| proc.is_zombie()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
