//! Layers of images that are unpacked over a layer below. The first byte says how: as it is, with the checksums of a tar, or as a
//! tar of one user.
#![no_main]

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use libfuzzer_sys::fuzz_target;
use sandhold_fuzz::{with_checksums, within};
use sandhold_layers::{Limits, Owners};

/// Most bytes of files, and most files.
const BYTES: u64 = 1 << 20;
const FILES: u64 = 512;

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    let archive = if how % 2 == 0 {
        rest.to_vec()
    } else {
        with_checksums(rest)
    };
    let owners = if how % 3 == 0 { Owners::Exact } else { Owners::One };
    let folder = tempfile::tempdir().expect("a folder");
    let (inside, below) = (folder.path().join("in"), folder.path().join("below"));
    std::fs::create_dir(&inside).expect("a folder");
    for path in ["usr/bin", "etc"] {
        std::fs::create_dir_all(below.join(path)).expect("a folder");
    }
    std::os::unix::fs::symlink("usr/bin", below.join("bin")).expect("a link");
    std::os::unix::fs::symlink("/etc/../..", below.join("out")).expect("a link");
    std::fs::write(below.join("etc/file"), "below").expect("a file");
    let (into, under) = (File::open(&inside).expect("it"), File::open(&below).expect("it"));
    let limits = Limits {
        bytes: BYTES,
        logical: BYTES,
        files: FILES,
        ..Limits::default()
    };
    let done = within(64 << 20, || {
        sandhold_layers::unpack(&archive[..], into.as_fd(), &[under.as_fd()], owners, &limits)
    });
    look(inside.clone());
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("it")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["below", "in"], "something stands beside the layer");
    assert_eq!(
        std::fs::read_to_string(below.join("etc/file")).expect("it"),
        "below",
        "what is below was written to"
    );
    if let Ok(summary) = done {
        assert!(summary.files <= FILES && summary.bytes <= BYTES, "{summary:?}");
        let digest = || sandhold_layers::digest(into.as_fd(), owners).expect("what was unpacked can be read");
        assert_eq!(digest(), digest());
    }
});

/// Nothing has rights of its own, and of devices there is none but what says that something is removed.
fn look(inside: PathBuf) {
    let mut waiting = vec![inside];
    while let Some(folder) = waiting.pop() {
        // A folder that its mode shuts is opened by root only.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let found = entry.path().symlink_metadata().expect("it is there");
            let kind = found.mode() & 0o170_000;
            assert!(
                kind == 0o040_000 || found.mode() & 0o6000 == 0,
                "a set-id bit was given"
            );
            assert!(
                kind != 0o060_000 && (kind != 0o020_000 || found.rdev() == 0),
                "a device was made"
            );
            if kind == 0o040_000 {
                waiting.push(entry.path());
            }
        }
    }
}
