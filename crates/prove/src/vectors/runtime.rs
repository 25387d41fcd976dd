//! Group 5: the daemon that runs the sandbox.

use super::kernel_files::of_victim;
use super::{Listed, Tried};
use crate::attempt::{Attempt, by_errno, done, errno_name, link, list, open_to_read, open_to_write, refused, unknown};
use crate::sys;

/// Where the daemon's programs stand.
const PROGRAM: &str = "/opt/sandhold/bin/sudo";

pub(super) fn vectors() -> Vec<Listed> {
    let mut all = vec![
        Listed::new(
            5,
            "init-exe-write",
            "overwrite the daemon through /proc/1/exe (CVE-2019-5736)",
            "EACCES",
            |tried| of_victim(tried, "exe", open_to_write),
        ),
        Listed::new(5, "init-exe-link", "find the daemon's file", "EACCES", |tried| {
            of_victim(tried, "exe", link)
        }),
        Listed::new(5, "init-mem-read", "open the daemon's memory", "EACCES", |tried| {
            of_victim(tried, "mem", open_to_read)
        }),
        Listed::new(
            5,
            "init-mem-write",
            "open the daemon's memory for writing",
            "EACCES",
            |tried| of_victim(tried, "mem", open_to_write),
        ),
        Listed::new(
            5,
            "init-descriptors",
            "list the daemon's descriptors",
            "EACCES",
            |tried| of_victim(tried, "fd/", list),
        ),
        Listed::new(5, "init-cwd", "go to the daemon's folder", "EACCES", |tried| {
            of_victim(tried, "cwd", link)
        }),
        Listed::new(
            5,
            "init-namespaces",
            "open the daemon's namespaces",
            "EACCES",
            |tried| of_victim(tried, "ns/mnt", open_to_read),
        ),
        Listed::new(5, "init-trace", "trace the daemon", "EPERM", |tried| {
            on_victim(tried, |pid| {
                let seize = libc::PTRACE_SEIZE as usize;
                sys::call(libc::SYS_ptrace, sys::pad([seize, pid, 0, 0]))
            })
        }),
        Listed::new(
            5,
            "init-inject",
            "write the daemon's memory (process_vm_writev)",
            "EPERM",
            |tried| {
                on_victim(tried, |pid| {
                    sys::call(libc::SYS_process_vm_writev, [pid, 0, 0, 0, 0, 0])
                })
            },
        ),
        Listed::new(
            5,
            "init-take-descriptor",
            "take the daemon's descriptor 2 (pidfd_getfd)",
            "EPERM",
            |tried| {
                on_victim(tried, |pid| {
                    let pidfd = sys::call(libc::SYS_pidfd_open, sys::pad([pid, 0]))?;
                    sys::call(libc::SYS_pidfd_getfd, sys::pad([pidfd, 2, 0]))
                })
            },
        ),
        Listed::new(5, "init-kill", "kill the daemon", "it lives on", |tried| {
            signalled(tried, libc::SIGKILL)
        }),
        Listed::new(5, "init-stop", "stop the daemon", "it goes on", |tried| {
            signalled(tried, libc::SIGSTOP)
        }),
        Listed::new(
            5,
            "init-oom",
            "offer the daemon to the kernel when memory is short",
            "EACCES",
            |tried| of_victim(tried, "oom_score_adj", open_to_write),
        ),
    ];
    let title = "find a descriptor that was left open (CVE-2024-21626)";
    all.push(
        Listed::new(
            5,
            "inherited-descriptors",
            title,
            "only the standard streams",
            |tried| match &tried.inherited[..] {
                [] => refused("only the standard streams"),
                some => done(format!("{some:?} are open")),
            },
        )
        .shown_by(|_| {
            let _open = std::fs::File::open("/proc/self/status");
            match sys::open_descriptors().len() {
                0 => refused("one that is open is not found"),
                count => done(format!("{count} that are open are found")),
            }
        }),
    );
    all.push(
        Listed::new(
            5,
            "program-write",
            format!("open {PROGRAM} for writing"),
            "EROFS or EACCES",
            |tried| {
                if tried.facts.inside() {
                    open_to_write(PROGRAM)
                } else {
                    unknown("it stands in sandboxes alone")
                }
            },
        )
        .shown_by(|_| {
            let path = std::env::temp_dir().join(format!("sandhold-program-{}", std::process::id()));
            let written = std::fs::write(&path, "x").map(|()| open_to_write(&path));
            let _ = std::fs::remove_file(&path);
            written.unwrap_or_else(|error| refused(crate::attempt::error_name(&error)))
        }),
    );
    all
}

/// A call that works on the victim.
fn on_victim(tried: &Tried, make: fn(usize) -> Result<usize, i32>) -> Attempt {
    match tried.victim {
        Some(pid) => by_errno(make(pid.cast_unsigned() as usize)),
        None => unknown("there is no process to try it on"),
    }
}

/// Signals the daemon, outside a process made for it, and looks whether that did anything.
fn signalled(tried: &Tried, signal: i32) -> Attempt {
    let inside = tried.facts.inside();
    let Some(pid) = (if inside { Some(1) } else { sys::sleeper() }) else {
        return unknown("no process could be made");
    };
    let sent = sys::call(
        libc::SYS_kill,
        sys::pad([pid.cast_unsigned() as usize, signal as usize]),
    );
    std::thread::sleep(std::time::Duration::from_millis(50));
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|text| text.rsplit(") ").next()?.chars().next());
    if !inside {
        sys::end(pid);
    }
    match (state, sent) {
        (None | Some('Z' | 'X'), _) => done("it is dead"),
        (Some('T' | 't'), _) => done("it is stopped"),
        (_, Err(code)) => refused(errno_name(code)),
        _ => refused("the signal has no effect"),
    }
}
