//! Small files of the system, read without trusting what stands in their place.

use std::fs::File;
use std::io::Read;

use rustix::fs::{Mode, OFlags, open};

/// The first `max` bytes of a regular file; empty where there is none. The sandbox's root may have put a pipe or a device
/// there: those are neither waited for nor read.
pub(crate) fn beginning(path: &str, max: u64) -> String {
    // Room for the usual file, so that one read brings it.
    let mut bytes = Vec::with_capacity(8 << 10);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open(path, flags, Mode::empty()).map(File::from);
    if let Some(file) = file
        .ok()
        .filter(|file| file.metadata().is_ok_and(|known| known.is_file()))
    {
        // What was read before an error is good.
        let _ = file.take(max).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    #[test]
    fn only_files_are_read_and_no_more_than_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("file"), "abcdef").unwrap();
        assert_eq!(beginning(&path("file"), 3), "abc");
        assert!(beginning("/proc/net/tcp", 64).contains("local_address"));
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(beginning(&path("pipe"), 3), "");
        assert_eq!(beginning("/dev/zero", 3), "");
        assert_eq!(beginning(&path("nothing"), 3), "");
    }
}
