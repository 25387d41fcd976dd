//! Folders into archives and back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

#[test]
fn there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let src = sample(folder.path());
    for name in ["x.zip", "x.tar.gz", "new/folder/x.tgz"] {
        let archive = folder.path().join(name);
        let packed = pack(&src, &archive).unwrap();
        assert_eq!(packed.size, fs::metadata(&archive).unwrap().len());
        assert_eq!(packed.entries, tree(&src).len() as u64);
        let back = folder.path().join(format!("back-{}", name.replace('/', "-")));
        let unpacked = unpack(&archive, &back).unwrap();
        assert_eq!(
            (unpacked.entries, unpacked.bytes),
            (packed.entries, packed.bytes),
            "{name}"
        );
        assert!(tree(&back) == tree(&src), "{name}");
        // Over what is there: the same again, but for the times of folders that stood.
        unpack(&archive, &back).unwrap();
        let files = |root: &Path| {
            tree(root)
                .into_iter()
                .filter(|line| !line.contains(" 40"))
                .collect::<Vec<_>>()
        };
        assert!(files(&back) == files(&src), "{name}");
    }
}

#[test]
fn hard_links_stay_in_tar() {
    let folder = tempfile::tempdir().unwrap();
    let src = folder.path().join("src");
    fs::create_dir_all(src.join("d")).unwrap();
    fs::write(src.join("a"), "x").unwrap();
    fs::hard_link(src.join("a"), src.join("d/b")).unwrap();
    let archive = folder.path().join("x.tgz");
    pack(&src, &archive).unwrap();
    let back = folder.path().join("back");
    unpack(&archive, &back).unwrap();
    let number = |name: &str| fs::metadata(back.join(name)).unwrap().ino();
    assert_eq!(number("a"), number("d/b"));
}

#[test]
fn an_archive_does_not_pack_itself_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let src = sample(folder.path());
    let entries = tree(&src).len() as u64;
    for _ in 0..2 {
        assert_eq!(pack(&src, &src.join("x.zip")).unwrap().entries, entries);
        assert_eq!(tree(&src).len() as u64, entries + 1);
    }
    fs::remove_file(src.join("x.zip")).unwrap();
    let cancelled = work();
    cancelled.cancelled.store(true, Ordering::Relaxed);
    pack::pack(&src, &src.join("x.zip"), false, &user(), &cancelled).unwrap_err();
    pack::pack(&src, &src.join("x.tgz"), false, &user(), &cancelled).unwrap_err();
    assert_eq!(tree(&src).len() as u64, entries);
}

#[test]
fn what_is_left_out_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let src = folder.path().join("src");
    for dir in ["node_modules/x", "env/lib", "target/debug", "keep/__pycache__", ".git"] {
        fs::create_dir_all(src.join(dir)).unwrap();
    }
    for file in ["env/pyvenv.cfg", "target/CACHEDIR.TAG", "keep/a", ".git/HEAD"] {
        fs::write(src.join(file), "").unwrap();
    }
    mknodat(CWD, src.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let dest = folder.path().join("x.zip");
    let report = pack::pack(&src, &dest, true, &user(), &work()).unwrap();
    assert_eq!(
        report.left_out.paths,
        ["env", "keep/__pycache__", "node_modules", "target"]
    );
    assert_eq!(report.special.paths, ["pipe"]);
    assert_eq!(report.entries, 4);
    assert_eq!(pack(&src, &dest).unwrap().left_out, Listed::default());
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("dir.zip")).unwrap();
    for (src, dest, said) in [
        ("nowhere", "x.zip", "does not exist"),
        ("file", "x.zip", "is not a directory"),
        (".", "x.rar", "only .zip"),
        (".", "dir.zip", "is a directory"),
        (".", "file/x.zip", "not a directory"),
    ] {
        let text = pack(&at(src), &at(dest)).unwrap_err().text();
        assert!(text.contains(said), "{text}");
    }
    assert_eq!(tree(folder.path()).len(), 2);
}
