//! The system call filter, each rule with the same probe outside as a control: there the call must get further.

use super::common::{USER, engine, has_root, probe_inside, probe_outside, sandbox, skip};

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
