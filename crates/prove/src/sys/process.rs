//! Processes: one an attempt, and those that are attempted on.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{call, last, pad};

/// How a process ended.
pub(crate) struct Ended {
    /// The signal that ended it; 0 if its time was up.
    pub(crate) signal: Option<i32>,
    /// What it said.
    pub(crate) said: Vec<u8>,
}

/// Runs `work` in a child, in a process group of its own that ends with it, and returns what it returned. The program has
/// one thread.
pub(crate) fn in_child(time: Duration, most: usize, work: impl FnOnce() -> Vec<u8>) -> Result<Ended, i32> {
    let (mut reader, writer) = std::io::pipe().map_err(|error| error.raw_os_error().unwrap_or(0))?;
    // SAFETY: the program has one thread, so the child may do whatever the parent may.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(last());
    }
    if pid == 0 {
        drop(reader);
        // SAFETY: makes the child the leader of its own group.
        unsafe { libc::setpgid(0, 0) };
        let said = work();
        let mut rest = said.as_slice();
        while let Ok(count @ 1..) = rustix::io::write(writer.as_fd(), rest) {
            rest = &rest[count..];
        }
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    drop(writer);
    let until = Instant::now() + time;
    let mut said = Vec::new();
    let mut late = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let ready = poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&timeout));
        if ready == Ok(0) {
            late = true;
            break;
        }
        let mut piece = [0; 4096];
        match reader.read(&mut piece) {
            Ok(count @ 1..) if said.len() + count <= most => said.extend_from_slice(&piece[..count]),
            _ => break,
        }
        // What it says is one JSON object; a grandchild may hold the pipe.
        if said.ends_with(b"}") {
            break;
        }
    }
    if !late && said.is_empty() {
        // The pipe ended: so does the child, and how is what matters.
        let signal = wait_until(pid, until);
        // SAFETY: ends what is left of the attempt's group.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
        return Ok(Ended { signal, said });
    }
    // SAFETY: ends the attempt's group, whose leader is a child not yet waited for.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    // SAFETY: ends the child, if it had not come to lead its group.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    wait_for(pid);
    let signal = late.then_some(0);
    Ok(Ended { signal, said })
}

fn wait_until(pid: i32, until: Instant) -> Option<i32> {
    loop {
        let mut status = 0;
        // SAFETY: the pid is a child's and `status` a valid place.
        let got = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if got != 0 {
            return (got == pid && libc::WIFSIGNALED(status)).then(|| libc::WTERMSIG(status));
        }
        if Instant::now() > until {
            end(pid);
            return Some(0);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for a child; the signal that ended it.
fn wait_for(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is a valid place.
    let got = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    (got == pid && libc::WIFSIGNALED(status)).then(|| libc::WTERMSIG(status))
}

/// A child that does nothing until it is killed, or its parent is.
pub(crate) fn sleeper() -> Option<i32> {
    // SAFETY: the program has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: asks for a signal at the parent's death.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    (pid > 0).then_some(pid)
}

/// Kills a child and waits for it.
pub(crate) fn end(pid: i32) {
    // SAFETY: the pid is a child's that was not waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    wait_for(pid);
}

/// Goes into new user, mount, network, IPC and UTS namespaces, as their root.
pub(crate) fn own_namespaces() -> Result<(), i32> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    call(libc::SYS_unshare, pad([flags as usize]))?;
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| error.raw_os_error().unwrap_or(0))
    };
    // Whoever may write the maps needs no `deny`.
    let _ = write("setgroups", "deny".to_owned());
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

/// A clone with these flags; the child ends at once.
pub(crate) fn clone_with(flags: i32) -> Result<usize, i32> {
    let result = call(libc::SYS_clone, pad([(flags | libc::SIGCHLD) as usize]));
    ended_child(result)
}

/// The same by clone3.
pub(crate) fn clone3_with(flags: i32) -> Result<usize, i32> {
    // SAFETY: clone_args is plain integers; all zeroes means "nothing asked".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.cast_unsigned());
    args.exit_signal = libc::SIGCHLD as u64;
    let result = call(
        libc::SYS_clone3,
        pad([&raw const args as usize, size_of::<libc::clone_args>()]),
    );
    ended_child(result)
}

fn ended_child(result: Result<usize, i32>) -> Result<usize, i32> {
    match result {
        // SAFETY: ends the child, which runs on a copy of the parent's memory.
        Ok(0) => unsafe { libc::_exit(0) },
        Ok(pid) => {
            wait_for(i32::try_from(pid).unwrap_or(0));
            Ok(pid)
        }
        error => error,
    }
}

/// Descriptors that are open besides the standard streams.
pub(crate) fn open_descriptors() -> Vec<i32> {
    let Ok(folder) = std::fs::File::open("/proc/self/fd") else {
        return Vec::new();
    };
    let own = folder.as_raw_fd();
    let numbers = std::fs::read_dir(format!("/proc/self/fd/{own}/"));
    let names = numbers.into_iter().flatten().flatten();
    let numbers: Vec<i32> = names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // The folder's own, and the one that the listing uses, are closed by now.
    numbers
        .into_iter()
        .filter(|number| *number > 2 && *number != own && still_open(*number))
        .collect()
}

fn still_open(number: i32) -> bool {
    call(
        libc::SYS_fcntl,
        pad([number.cast_unsigned() as usize, libc::F_GETFD as usize]),
    )
    .is_ok()
}
