//! The system call filter, each rule with the same probe outside as a control: there the call must get further.

use super::common::{USER, engine, has_root, outside, probe_inside, probe_outside, sandbox, skip};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const EAFNOSUPPORT: i32 = 97;
const SIGSYS: i32 = -31;

/// Probe and what it must meet inside, as `user` and as root alike.
const DENIED: &[(&str, i32)] = &[
    ("socket-vsock", EAFNOSUPPORT),
    ("socket-alg", EAFNOSUPPORT),
    ("socket-packet", EAFNOSUPPORT),
    ("socket-key", EAFNOSUPPORT),
    ("socket-xfrm", EAFNOSUPPORT),
    ("socket-netfilter", EAFNOSUPPORT),
    ("socket-sctp", EAFNOSUPPORT),
    ("socket-uevent", EAFNOSUPPORT),
    ("socketpair-inet", EAFNOSUPPORT),
    ("socket-tipc", EAFNOSUPPORT),
    ("socket-rxrpc", EAFNOSUPPORT),
    ("socket-bluetooth", EAFNOSUPPORT),
    ("unshare-user", EPERM),
    ("unshare-mount", EPERM),
    ("clone-user", EPERM),
    ("clone-net", EPERM),
    ("clone3", ENOSYS),
    ("setns", EPERM),
    ("mount", EPERM),
    ("remount", EPERM),
    ("umount", EPERM),
    ("pivot-root", EPERM),
    ("fsopen", EPERM),
    ("open-tree", EPERM),
    ("move-mount", EPERM),
    ("mount-setattr", EPERM),
    ("ptrace", EPERM),
    ("process-vm-readv", EPERM),
    ("process-vm-writev", EPERM),
    ("pidfd-getfd", EPERM),
    ("kcmp", EPERM),
    ("io-uring", EPERM),
    ("keyctl", EPERM),
    ("add-key", EPERM),
    ("request-key", EPERM),
    ("bpf", EPERM),
    ("userfaultfd", EPERM),
    ("perf-event-open", EPERM),
    ("open-by-handle-at", EPERM),
    ("name-to-handle-at", EPERM),
    ("init-module", EPERM),
    ("kexec-load", EPERM),
    ("reboot", EPERM),
    ("swapon", EPERM),
    ("settimeofday", EPERM),
    ("sethostname", EPERM),
    ("syslog", EPERM),
    ("acct", EPERM),
    ("quotactl", EPERM),
    ("vmsplice", EPERM),
    ("personality", EPERM),
    ("tiocsti", EPERM),
    ("tiocsti-high", EPERM),
    ("tioclinux", EPERM),
    ("tiocsetd", EPERM),
    ("set-mempolicy", EPERM),
    #[cfg(target_arch = "x86_64")]
    ("modify-ldt", EPERM),
    #[cfg(target_arch = "x86_64")]
    ("iopl", EPERM),
    #[cfg(target_arch = "x86_64")]
    ("int80", SIGSYS),
    ("x32", ENOSYS),
    ("unknown-call", ENOSYS),
];

/// Probes that must go through inside, so that a filter that denies everything cannot pass.
const ALLOWED: &[&str] = &[
    "socket-unix",
    "socket-inet",
    "socket-route",
    "clone-plain",
    "personality-read",
];

#[tokio::test]
async fn what_the_policy_denies_is_denied_to_user_and_to_root() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let users: &[u32] = if has_root(&engine) { &[USER, 0] } else { &[USER] };
    for user in users {
        for name in ALLOWED {
            assert_eq!(probe_inside(&*sandbox, *user, name).await, 0, "{name} as {user}");
        }
        for (name, expected) in DENIED {
            assert_eq!(
                probe_inside(&*sandbox, *user, name).await,
                *expected,
                "{name} as {user}"
            );
        }
    }
}

#[test]
fn the_same_probes_get_further_outside() {
    for name in ALLOWED {
        assert_eq!(probe_outside(name), 0, "{name}");
    }
    let mut controlled = 0;
    for (name, inside) in DENIED {
        let outside = probe_outside(name);
        // What the machine's own kernel or the missing rights of this user refuse the same way proves nothing.
        if outside == *inside {
            skip(&format!("a control for {name}: this machine refuses it outside too"));
        } else {
            controlled += 1;
        }
    }
    let least = if super::common::is_root() { 40 } else { 20 };
    assert!(
        controlled >= least,
        "only {controlled} of {} probes have a control here",
        DENIED.len()
    );
}

#[tokio::test]
async fn chroot_is_for_root_inside_alone() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    assert_eq!(probe_inside(&*sandbox, USER, "chroot").await, EPERM);
    if has_root(&engine) {
        assert_eq!(probe_inside(&*sandbox, 0, "chroot").await, 0);
    }
}

/// What each group of the policy allows, by a call that needs it.
const NEEDS: &[(&str, &str)] = &[
    ("files", "open-root"),
    ("xattrs", "getxattr"),
    ("memory", "mmap"),
    ("processes", "getppid"),
    ("scheduling", "sched-yield"),
    ("ids", "getuid"),
    ("time", "clock-getres"),
    ("events", "ppoll"),
    ("aio", "io-setup"),
    ("ipc", "pipe"),
    ("sockets", "getsockname"),
    ("machine", "getrandom"),
    ("self-restriction", "chroot-nowhere"),
    ("clone", "clone-plain"),
    ("socket", "socket-unix"),
    ("socketpair", "socketpair-unix"),
    ("ioctl", "fionread"),
    ("personality", "personality-read"),
];

/// What each group denies, by a call that only it stops, even for an ordinary user.
const STOPS: &[(&str, &str, i32)] = &[
    ("clone", "clone-user", EPERM),
    ("clone3", "clone3", ENOSYS),
    ("socket", "socket-uevent", EAFNOSUPPORT),
    ("socketpair", "socketpair-inet", EAFNOSUPPORT),
    ("ioctl", "tiocsti", EPERM),
    ("personality", "personality", EPERM),
    ("namespaces-and-mounts", "unshare-user", EPERM),
    ("handles", "name-to-handle-at", EPERM),
    ("other-processes", "process-vm-readv", EPERM),
    ("kernel-interfaces", "vmsplice", EPERM),
    ("keys", "request-key", EPERM),
    ("machine-administration", "settimeofday", EPERM),
    ("numa", "set-mempolicy", EPERM),
];

/// The policy is installed in the kernel, whole and with each group out of force in turn: each time one call, chosen for
/// the group, meets another end. A group that is not needed, or of which nothing is known here, fails.
#[test]
fn every_group_of_the_policy_is_needed() {
    let groups = sandhold_engine::policy_groups().unwrap();
    for (group, allows, denies) in &groups {
        let needed = NEEDS.iter().find(|(name, _)| name == group);
        assert_eq!(needed.is_some(), *allows, "{group}: a call that needs it");
        if let Some((_, probe)) = needed {
            let whole = outside(&["under-policy", probe]);
            assert!(whole >= 0 && whole != ENOSYS, "{group}: {probe} gave {whole}");
            // Without what it lives on, a program may end by a signal before it can say what it met.
            let without = outside(&["without", group, probe]);
            assert!(without == ENOSYS || without < 0, "{group}: {probe} gave {without}");
        }
        let stopped = STOPS.iter().find(|(name, ..)| name == group);
        assert_eq!(stopped.is_some(), *denies, "{group}: a call that it stops");
        if let Some((_, probe, answer)) = stopped {
            assert_eq!(outside(&["under-policy", probe]), *answer, "{group}: {probe}");
            assert_ne!(outside(&["open", group, probe]), *answer, "{group}: {probe}");
        }
    }
    assert_eq!(groups.iter().filter(|(_, allows, _)| *allows).count(), NEEDS.len());
    assert_eq!(groups.iter().filter(|(.., denies)| *denies).count(), STOPS.len());
}
