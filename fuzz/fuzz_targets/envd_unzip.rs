//! Zip, tar and tar.gz files that are unpacked inside a sandbox. The first byte says whether what follows is taken as it is,
//! gets the checksums of a tar, or is gzipped too.
#![no_main]

use std::{
    io::Write,
    path::{Component, Path},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use sandhold_fuzz::{Folder, with_checksums, within};

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    let archive = match how % 3 {
        0 => rest.to_vec(),
        1 => with_checksums(rest),
        _ => {
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            gz.write_all(&with_checksums(rest)).expect("memory takes it");
            gz.finish().expect("memory takes it")
        }
    };
    let folder = Folder::new();
    let (path, inside) = (folder.file(&archive), folder.inside());
    let done = within(32 << 20, || {
        sandhold_envd::fuzz::unzip(&path, &inside, Duration::from_millis(500))
    });
    let seen = folder.look();
    assert!(!seen.set_id, "a set-id bit was given");
    for (at, target) in &seen.links {
        let at = at.strip_prefix(&inside).expect("it is below");
        assert!(stays(at, target), "{at:?} leads to {target:?}");
    }
    match done {
        Ok((entries, bytes)) => assert!(
            seen.bytes <= 4 * bytes.max(seen.bytes / 4) && entries <= 4096,
            "{seen:?}"
        ),
        // What is refused before the first is written leaves nothing.
        Err(why) if why.contains("nothing was written") => assert_eq!(seen.names, 0, "{why}: {seen:?}"),
        Err(_) => {}
    }
});

/// Whether a link leads to below the folder that it is somewhere in, by its letters.
fn stays(at: &Path, target: &Path) -> bool {
    let mut depth = at.components().count() - 1;
    target.components().all(|part| match part {
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::CurDir => true,
        Component::ParentDir if depth > 0 => {
            depth -= 1;
            true
        }
        _ => false,
    })
}
