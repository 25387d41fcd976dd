//! What stood there before an archive was unpacked.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::unpacking::{Zipped, file, gzipped, link, stage, tarred, zipped};
use super::*;

#[test]
fn what_is_not_whole_replaces_nothing() {
    let broken = Zipped {
        crc: Some(7),
        ..file(b"old", &noise(100_000))
    };
    let tar = tarred(&[(b"old", tar::EntryType::Regular, &noise(100_000))]);
    let mut cut = gzipped(&tar);
    let crc = cut.len() - 8;
    cut[crc] ^= 0xff;
    for (data, whole) in [
        (zipped(&[broken]), false),
        (zipped(&[file(b"old", b"new")]), true),
        (cut, false),
        (tar, true),
    ] {
        let (_folder, archive, dest) = stage(&data);
        fs::create_dir(&dest).unwrap();
        fs::write(dest.join("old"), "old").unwrap();
        let before = tree(&dest);
        assert_eq!(unpack(&archive, &dest).is_ok(), whole);
        assert_eq!(tree(&dest) != before, whole);
        assert_eq!(tree(&dest).len(), 1, "nothing beside it");
    }
}

#[test]
fn a_cancel_in_a_file_leaves_the_old_one() {
    /// Is cancelled while it is read.
    struct Slow<'a>(&'a Work);
    impl std::io::Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.0.cancelled.store(true, Ordering::Relaxed);
            into.fill(b'n');
            Ok(into.len())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old"), "old").unwrap();
    let mut place = place::Place::open(folder.path(), &user()).unwrap();
    let work = work();
    for name in [&b"old"[..], b"new"] {
        let text = place.file(name, place::Meta::default(), &mut Slow(&work), &work);
        assert!(text.unwrap_err().text().contains("cancelled"));
    }
    assert_eq!(fs::read(folder.path().join("old")).unwrap(), b"old");
    assert_eq!(tree(folder.path()).len(), 1);
}

#[test]
fn links_and_other_names_replace() {
    use tar::EntryType as E;
    let data = tarred(&[
        (b"one", E::Regular, b"new"),
        (b"two", E::Link, b"one"),
        (b"link", E::Symlink, b"one"),
        (b"two", E::Link, b"one"),
    ]);
    let (folder, archive, dest) = stage(&data);
    fs::create_dir(&dest).unwrap();
    fs::write(dest.join("two"), "old").unwrap();
    symlink(folder.path().join("canary"), dest.join("link")).unwrap();
    fs::hard_link(folder.path().join("canary"), dest.join("one")).unwrap();
    for _ in 0..2 {
        unpack(&archive, &dest).unwrap();
        assert_eq!(tree(&dest).len(), 3, "nothing beside them");
        assert_eq!(fs::read(dest.join("link")).unwrap(), b"new");
        let ino = |name| fs::symlink_metadata(dest.join(name)).unwrap().ino();
        assert_eq!(ino("one"), ino("two"));
    }
    assert_eq!(fs::read(folder.path().join("canary")).unwrap(), b"safe");
    let (_folder, archive, dest) = stage(&zipped(&[link(b"l", b"x")]));
    fs::create_dir(&dest).unwrap();
    fs::create_dir(dest.join("l")).unwrap();
    assert!(unpack(&archive, &dest).unwrap_err().text().contains("is a folder"));
}
