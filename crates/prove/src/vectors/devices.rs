//! Group 3: devices.

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::Listed;
use crate::attempt::{Attempt, done, open_to_read, refused, unknown};

const OPENS: &[(&str, &str)] = &[
    ("open-mem", "/dev/mem"),
    ("open-port", "/dev/port"),
    ("open-kmsg", "/dev/kmsg"),
    ("open-kvm", "/dev/kvm"),
    ("open-fuse", "/dev/fuse"),
    ("open-tun", "/dev/net/tun"),
    ("open-loop-control", "/dev/loop-control"),
    ("open-device-mapper", "/dev/mapper/control"),
    ("open-vsock", "/dev/vsock"),
    ("open-userfaultfd", "/dev/userfaultfd"),
    ("open-console", "/dev/console"),
];

pub(super) fn vectors() -> Vec<Listed> {
    let mut all: Vec<Listed> = OPENS
        .iter()
        .map(|(id, path)| Listed::new(3, *id, format!("open {path}"), "ENOENT", move |_| open_to_read(path)))
        .collect();
    all.push(Listed::new(
        3,
        "open-disk",
        "open the host's disk in /dev",
        "ENOENT",
        |_| match disk() {
            Some((name, ..)) => open_to_read(format!("/dev/{name}")),
            None => unknown("the machine shows no disk"),
        },
    ));
    all.push(Listed::new(
        3,
        "mknod-disk",
        "make a node for the host's disk and open it",
        "EPERM",
        |_| match disk() {
            Some((_, major, minor)) => node(FileType::BlockDevice, major, minor),
            None => unknown("the machine shows no disk"),
        },
    ));
    all.push(Listed::new(
        3,
        "mknod-kmsg",
        "make a node for the kernel's log and open it",
        "EPERM",
        |_| node(FileType::CharacterDevice, 1, 11),
    ));
    all.push(Listed::new(
        3,
        "mknod-mem",
        "make a node for the machine's memory and open it",
        "EPERM",
        |_| node(FileType::CharacterDevice, 1, 1),
    ));
    all
}

/// The first disk of the machine: name, major and minor number.
fn disk() -> Option<(String, u32, u32)> {
    let text = std::fs::read_to_string("/proc/partitions").ok()?;
    text.lines().skip(2).find_map(|line| {
        let mut words = line.split_whitespace();
        let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((words.nth(1)?.to_owned(), major, minor))
    })
}

fn node(kind: FileType, major: u32, minor: u32) -> Attempt {
    let path = std::env::temp_dir().join(format!("sandhold-node-{}", std::process::id()));
    let made = mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor));
    let found = match made {
        Ok(()) => match open_to_read(&path) {
            opened if opened.outcome == crate::Outcome::NotHeld => done("made and opened"),
            opened => refused(format!("made, but {}", opened.detail)),
        },
        Err(error) => refused(crate::attempt::errno_name(error.raw_os_error())),
    };
    let _ = std::fs::remove_file(&path);
    found
}
