//! The archive of a paused sandbox's files, which comes back from the host. What looks like a head gets its checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_fuzz::{Folder, with_checksums, within};

fuzz_target!(|data: &[u8]| {
    let data = with_checksums(data);
    let (count, _) = within((4 << 20) + 64 * data.len(), || sandhold_envd::fuzz::entries(&data));
    assert!(count <= data.len() / 512);
    let folder = Folder::new();
    let inside = folder.inside();
    std::fs::write(inside.join("old"), "old").expect("a file");
    let root = inside.to_str().expect("a plain name");
    // SAFETY: it only asks.
    let is_root = unsafe { libc::geteuid() } == 0;
    let done = within((8 << 20) + 64 * data.len(), || {
        sandhold_envd::fuzz::restore(root, &data, is_root)
    });
    let seen = folder.look();
    if done.is_ok() {
        assert!(count > 0 && seen.names <= data.len() as u64 / 512, "{seen:?}");
        assert!(
            !inside.join("old").is_file() || data.windows(3).any(|name| name == b"old"),
            "an old file stayed"
        );
    }
});
