//! Groups 1 and 2: files of /proc, /sys and the cgroups.

use std::path::{Path, PathBuf};

use super::{Listed, Tried};
use crate::attempt::{Attempt, by_result, done, list, open_to_write, read, read_beginning, refused, unknown};

const NOT_WRITABLE: &str = "cannot be opened for writing (EROFS, EACCES, ENOENT)";
const NOT_READABLE: &str = "cannot be opened, or is empty";

/// What changes the host, or lets it run a program.
const WRITES: &[(&str, &str)] = &[
    ("write-core-pattern", "/proc/sys/kernel/core_pattern"),
    ("write-modprobe", "/proc/sys/kernel/modprobe"),
    ("write-hostname-sysctl", "/proc/sys/kernel/hostname"),
    ("write-aslr", "/proc/sys/kernel/randomize_va_space"),
    ("write-drop-caches", "/proc/sys/vm/drop_caches"),
    ("write-overcommit", "/proc/sys/vm/overcommit_memory"),
    ("write-suid-dumpable", "/proc/sys/fs/suid_dumpable"),
    ("write-user-namespaces", "/proc/sys/user/max_user_namespaces"),
    ("write-ip-forward", "/proc/sys/net/ipv4/ip_forward"),
    ("write-binfmt-misc", "/proc/sys/fs/binfmt_misc/register"),
    ("write-sysrq", "/proc/sysrq-trigger"),
    ("write-irq", "/proc/irq/default_smp_affinity"),
    ("write-uevent-helper", "/sys/kernel/uevent_helper"),
    ("write-ksm", "/sys/kernel/mm/ksm/run"),
    ("write-hugepages", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("write-power-state", "/sys/power/state"),
    ("write-cpu-online", "/sys/devices/system/cpu/cpu1/online"),
    ("write-lo-mtu", "/sys/class/net/lo/mtu"),
];

/// What tells of the host's memory, kernel and processes.
const READS: &[(&str, &str)] = &[
    ("read-kcore", "/proc/kcore"),
    ("read-kmsg", "/proc/kmsg"),
    ("read-keys", "/proc/keys"),
    ("read-key-users", "/proc/key-users"),
    ("read-kallsyms", "/proc/kallsyms"),
    ("read-timer-list", "/proc/timer_list"),
    ("read-sched-debug", "/proc/sched_debug"),
    ("read-vmallocinfo", "/proc/vmallocinfo"),
    ("read-slabinfo", "/proc/slabinfo"),
    ("read-pagetypeinfo", "/proc/pagetypeinfo"),
    ("read-kpagecount", "/proc/kpagecount"),
    ("read-kpageflags", "/proc/kpageflags"),
    ("read-kpagecgroup", "/proc/kpagecgroup"),
    ("read-interrupts", "/proc/interrupts"),
    ("read-product-uuid", "/sys/devices/virtual/dmi/id/product_uuid"),
];

const LISTS: &[(&str, &str)] = &[
    ("list-firmware", "/sys/firmware"),
    ("list-debugfs", "/sys/kernel/debug"),
    ("list-tracefs", "/sys/kernel/tracing"),
    ("list-securityfs", "/sys/kernel/security"),
    ("list-bpffs", "/sys/fs/bpf"),
];

/// Parts of another process: of the sandbox's first one inside, of one of the same user outside.
const VICTIM: &[(&str, &str)] = &[
    ("init-environ", "environ"),
    ("init-maps", "maps"),
    ("init-auxv", "auxv"),
    ("init-stack", "syscall"),
];

pub(super) fn vectors() -> Vec<Listed> {
    let mut all = Vec::new();
    for (id, path) in WRITES {
        let title = format!("open {path} for writing");
        all.push(Listed::new(1, *id, title, NOT_WRITABLE, move |_| open_to_write(path)));
    }
    for (id, path) in READS {
        all.push(Listed::new(1, *id, format!("read {path}"), NOT_READABLE, move |_| {
            read(path)
        }));
    }
    for (id, path) in LISTS {
        all.push(Listed::new(1, *id, format!("list {path}"), NOT_READABLE, move |_| {
            list(path)
        }));
    }
    for (id, part) in VICTIM {
        let title = format!("read /proc/1/{part}");
        all.push(Listed::new(1, *id, title, "EACCES", |tried| {
            of_victim(tried, part, read)
        }));
    }
    all.push(Listed::new(1, "init-root", "list /proc/1/root", "EACCES", |tried| {
        of_victim(tried, "root/", list)
    }));
    let title = "read where the kernel lies in memory (/proc/iomem)";
    all.push(Listed::new(1, "read-iomem", title, "addresses are zero", |_| iomem()));
    let title = "find a process of the host by its environment";
    all.push(Listed::new(1, "host-processes", title, "none is in /proc", |tried| {
        host_process(tried)
    }));
    all.extend(cgroups());
    all
}

/// Does this to a part of the victim's folder.
pub(super) fn of_victim(tried: &Tried, part: &str, what: fn(PathBuf) -> Attempt) -> Attempt {
    match tried.victim {
        Some(pid) => what(PathBuf::from(format!("/proc/{pid}/{part}"))),
        None => unknown("there is no process to try it on"),
    }
}

fn iomem() -> Attempt {
    match read_beginning("/proc/iomem") {
        Ok(text)
            if text
                .lines()
                .any(|line| !line.trim_start().starts_with("00000000-00000000")) =>
        {
            done("addresses are shown")
        }
        Ok(_) => refused("addresses are zero"),
        Err(ended) => ended,
    }
}

fn host_process(tried: &Tried) -> Attempt {
    let Some((first, second)) = &tried.facts.word else {
        return unknown("no word to look for was given");
    };
    // In two parts, so that the facts themselves are not found.
    let word = format!("{first}{second}");
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return refused("/proc cannot be listed");
    };
    for process in processes.flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        if environment.windows(word.len()).any(|part| part == word.as_bytes()) {
            return done(format!("{} is one", process.path().display()));
        }
    }
    refused("none is in /proc")
}

fn cgroups() -> Vec<Listed> {
    const EXPECTED: &str = "no such file can be opened for writing";
    let write = |name: &'static str| move |_: &Tried| anywhere(name, |path| open_to_write(path));
    vec![
        Listed::new(
            2,
            "release-agent",
            "open a release_agent for writing (CVE-2022-0492)",
            EXPECTED,
            write("release_agent"),
        ),
        Listed::new(
            2,
            "cgroup-procs",
            "move a process to another cgroup",
            EXPECTED,
            write("cgroup.procs"),
        ),
        Listed::new(2, "cgroup-devices", "allow a device", EXPECTED, write("devices.allow")),
        Listed::new(2, "cgroup-limit", "change a memory limit", EXPECTED, |_| {
            let v1 = anywhere("memory.limit_in_bytes", |path| open_to_write(path));
            if v1.outcome == crate::Outcome::NotHeld {
                v1
            } else {
                anywhere("memory.max", |path| open_to_write(path))
            }
        }),
        Listed::new(2, "cgroup-make", "make a cgroup", "EROFS, EACCES, ENOENT", |_| {
            anywhere("", |folder| {
                let folder = folder.join(format!("sandhold-prove-{}", std::process::id()));
                let made = std::fs::create_dir(&folder);
                let _ = std::fs::remove_dir(&folder);
                by_result(made, "made")
            })
        }),
        Listed::new(
            2,
            "namespace-cgroup",
            "be in the host's cgroup namespace",
            "it is another",
            |tried| super::calls::same_namespace(tried, "cgroup"),
        ),
    ]
}

/// Tries this on a file of the name anywhere in the first levels of the cgroup file systems.
fn anywhere(name: &str, what: impl Fn(&Path) -> Attempt) -> Attempt {
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut level = folders.clone();
    for _ in 0..2 {
        level = level
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flat_map(|entries| entries.flatten().take(64))
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        folders.extend(level.clone());
    }
    let mut last = None;
    for folder in folders {
        let path = folder.join(name);
        if path.exists() {
            let ended = what(&path);
            if ended.outcome == crate::Outcome::NotHeld {
                return ended;
            }
            last = Some(ended);
        }
    }
    last.unwrap_or_else(|| refused("none in sight"))
}
