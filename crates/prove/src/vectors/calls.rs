//! Groups 4, 6 and 7: system calls and sockets, each made once.

use super::{Listed, Tried};
use crate::attempt::{Attempt, by_errno, done, refused, unknown};
use crate::sys;

/// Families with a way into the kernel: name in `/proc/net/protocols` where it shows there, family, type, protocol.
const FAMILIES: &[(&str, &str, &str, i32, i32, i32)] = &[
    (
        "socket-alg",
        "crypto sockets (Copy Fail, CVE-2026-31431)",
        "ALG",
        38,
        libc::SOCK_SEQPACKET,
        0,
    ),
    (
        "socket-rxrpc",
        "RxRPC (Dirty Frag, CVE-2026-43500)",
        "RXRPC",
        33,
        libc::SOCK_DGRAM,
        2,
    ),
    ("socket-key", "IPsec keys (PF_KEY)", "KEY", 15, libc::SOCK_RAW, 2),
    (
        "socket-packet",
        "raw frames (AF_PACKET)",
        "PACKET",
        17,
        libc::SOCK_RAW,
        0,
    ),
    ("socket-tipc", "TIPC", "TIPC", 30, libc::SOCK_STREAM, 0),
    (
        "socket-vsock",
        "the hypervisor (AF_VSOCK)",
        "AF_VSOCK",
        40,
        libc::SOCK_STREAM,
        0,
    ),
    ("socket-bluetooth", "Bluetooth", "HCI", 31, libc::SOCK_RAW, 1),
    ("socket-can", "CAN", "CAN_RAW", 29, libc::SOCK_RAW, 1),
    ("socket-rds", "RDS", "RDS", 21, libc::SOCK_SEQPACKET, 0),
    ("socket-smc", "SMC", "SMC", 43, libc::SOCK_STREAM, 0),
    ("socket-xdp", "XDP", "XDP", 44, libc::SOCK_RAW, 0),
    (
        "socket-sctp",
        "SCTP",
        "SCTP",
        libc::AF_INET,
        libc::SOCK_STREAM,
        libc::IPPROTO_SCTP,
    ),
    ("socket-mptcp", "MPTCP", "MPTCP", libc::AF_INET, libc::SOCK_STREAM, 262),
    (
        "socket-udplite",
        "UDP-Lite",
        "UDP-Lite",
        libc::AF_INET,
        libc::SOCK_DGRAM,
        libc::IPPROTO_UDPLITE,
    ),
];

/// Netlink protocols; the number shows in `/proc/net/netlink` where the kernel has it.
const NETLINK: &[(&str, &str, i32)] = &[
    (
        "socket-xfrm",
        "IPsec's rules (XFRM netlink, CVE-2026-43284)",
        libc::NETLINK_XFRM,
    ),
    (
        "socket-netfilter",
        "the packet filter (nf_tables, CVE-2024-1086)",
        libc::NETLINK_NETFILTER,
    ),
    (
        "socket-sock-diag",
        "sockets of others (sock_diag)",
        libc::NETLINK_SOCK_DIAG,
    ),
    ("socket-crypto", "the kernel's ciphers (netlink)", libc::NETLINK_CRYPTO),
];

const KINDS: &[&str] = &["user", "mnt", "pid", "net", "ipc", "uts", "time"];

pub(super) fn vectors() -> Vec<Listed> {
    let mut all = Vec::new();
    for call in sys::CALLS.iter().chain(sys::OLD_CALLS) {
        let make = call.make;
        all.push(Listed::new(
            call.group,
            call.id,
            call.title,
            "EPERM, ENOSYS, EAFNOSUPPORT or SIGSYS",
            move |_| by_errno(make()),
        ));
    }
    for (id, title, name, family, kind, protocol) in FAMILIES {
        all.push(Listed::new(6, *id, *title, "EAFNOSUPPORT", move |tried| {
            if !tried.facts.inside() && !in_kernel(name) {
                return unknown("the kernel has no such sockets loaded");
            }
            by_errno(sys::socket(*family, *kind, *protocol))
        }));
    }
    for (id, title, protocol) in NETLINK {
        all.push(Listed::new(6, *id, *title, "EAFNOSUPPORT", move |tried| {
            if !tried.facts.inside() && !netlink_in_kernel(*protocol) {
                return unknown("the kernel has no such sockets loaded");
            }
            by_errno(sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, *protocol))
        }));
    }
    for kind in KINDS {
        let title = format!("be in the host's {kind} namespace");
        all.push(Listed::new(
            4,
            format!("namespace-{kind}"),
            title,
            "it is another",
            |tried| same_namespace(tried, kind),
        ));
    }
    all.push(Listed::new(
        4,
        "nested-limit",
        "the kernel's own limit on user namespaces",
        "it is 0",
        |_| nested(),
    ));
    all.push(Listed::new(
        4,
        "chroot-escape",
        "climb out by chroot and read a file of the host",
        "it is not there",
        climb,
    ));
    all.push(Listed::new(
        4,
        "host-file",
        "read a file of the host that everybody may read",
        "ENOENT",
        |tried| host_file(tried, ""),
    ));
    all.push(Listed::new(
        4,
        "host-file-by-root",
        "the same through /proc/1/root",
        "EACCES",
        |tried| match tried.victim {
            Some(pid) => host_file(tried, &format!("/proc/{pid}/root")),
            None => unknown("there is no process to try it on"),
        },
    ));
    all
}

/// Whether a protocol is there. Outside nothing is asked for that is not: a question for a family makes the kernel load
/// it, and these are not to be loaded by a test.
fn in_kernel(name: &str) -> bool {
    // These two do not show there; they are part of nearly every kernel, and asking loads nothing that has no user.
    if name == "KEY" || name == "ALG" {
        return std::fs::read_to_string("/proc/modules").is_ok_and(|text| {
            text.lines()
                .any(|line| line.starts_with(if name == "KEY" { "af_key " } else { "af_alg " }))
        });
    }
    std::fs::read_to_string("/proc/net/protocols")
        .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().next() == Some(name)))
}

fn netlink_in_kernel(protocol: i32) -> bool {
    std::fs::read_to_string("/proc/net/netlink").is_ok_and(|text| {
        let number = protocol.to_string();
        text.lines()
            .any(|line| line.split_whitespace().nth(1) == Some(number.as_str()))
    })
}

pub(super) fn same_namespace(tried: &Tried, kind: &str) -> Attempt {
    let Some(host) = tried.facts.namespaces.get(kind) else {
        return unknown("the host's is not known");
    };
    match std::fs::read_link(format!("/proc/self/ns/{kind}")) {
        Ok(own) if own.as_os_str() == host.as_str() => done("it is the host's"),
        Ok(own) => refused(format!("{} instead of {host}", own.display())),
        Err(error) => unknown(crate::attempt::error_name(&error)),
    }
}

fn nested() -> Attempt {
    match std::fs::read_to_string("/proc/sys/user/max_user_namespaces") {
        Ok(text) if text.trim() == "0" => refused("0"),
        Ok(text) => done(format!("{} more can be made", text.trim())),
        Err(error) => unknown(crate::attempt::error_name(&error)),
    }
}

fn host_file(tried: &Tried, below: &str) -> Attempt {
    let Some((path, content)) = &tried.facts.file else {
        return unknown("no file was named");
    };
    match std::fs::read_to_string(format!("{below}{path}")) {
        Ok(text) if text == *content => done("it can be read"),
        Ok(_) => refused("another file"),
        Err(error) => refused(crate::attempt::error_name(&error)),
    }
}

/// The oldest way out: a root below the working folder holds nobody who stands above it.
fn climb(tried: &Tried) -> Attempt {
    let folder = std::env::temp_dir().join(format!("sandhold-climb-{}", std::process::id()));
    let _ = std::fs::create_dir(&folder);
    let result = (|| {
        std::env::set_current_dir("/")?;
        rustix::process::chroot(&folder)?;
        for _ in 0..64 {
            std::env::set_current_dir("..")?;
        }
        rustix::process::chroot(".")?;
        std::io::Result::Ok(())
    })();
    let found = match result {
        Ok(()) => host_file(tried, ""),
        Err(error) => refused(crate::attempt::error_name(&error)),
    };
    let _ = std::fs::remove_dir(&folder);
    found
}
