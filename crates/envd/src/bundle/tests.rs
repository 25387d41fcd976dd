//! Archives made by hand, good and hostile, packed and unpacked in folders of this machine.

mod odd;
mod packing;
mod replacing;
mod unpacking;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Crc;

use super::*;
use crate::users::User;

fn user() -> User {
    User {
        name: "me".into(),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: vec![],
        home: "/".into(),
        shell: String::new(),
    }
}

fn work() -> Work {
    Work::new(Duration::from_secs(600))
}

fn pack(src: &Path, dest: &Path) -> Result<Report, FsError> {
    pack::pack(src, dest, false, &user(), &work())
}

fn unpack(archive: &Path, dest: &Path) -> Result<Report, FsError> {
    unpack::unpack(archive, dest, &user(), &work())
}

/// Name, kind and mode, time in seconds, target or content of everything below.
fn tree(root: &Path) -> Vec<String> {
    fn visit(root: &Path, at: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else if meta.is_file() {
                let mut crc = Crc::new();
                crc.update(&fs::read(&path).unwrap());
                format!("{} {}", meta.len(), crc.sum())
            } else {
                String::new()
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii();
            into.push(format!("{name} {:o} {} {what}", meta.mode(), meta.mtime()));
            if meta.is_dir() {
                visit(root, &path, into);
            }
        }
    }
    let mut all = Vec::new();
    visit(root, root, &mut all);
    all.sort();
    all
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = len as u64 + 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

/// A folder with what archives have trouble with.
fn sample(root: &Path) -> PathBuf {
    let src = root.join("src");
    for dir in ["a/b/c", "empty", "z z"] {
        fs::create_dir_all(src.join(dir)).unwrap();
    }
    let long = "n".repeat(200);
    for (name, content) in [
        ("a/one", b"one".to_vec()),
        ("a/none", Vec::new()),
        ("a/b/large", noise(3 << 20)),
        ("a/b/text", b"again and again ".repeat(100_000)),
        ("z z/\u{fc}\u{20ac}", b"x".to_vec()),
        ("back\\slash", b"y".to_vec()),
        (&format!("a/{long}"), b"z".to_vec()),
    ] {
        fs::write(src.join(name), content).unwrap();
    }
    fs::write(src.join(std::ffi::OsStr::from_bytes(b"no\xfftext")), "w").unwrap();
    for at in 0..300 {
        fs::write(src.join(format!("a/b/c/{at}")), format!("{at}").repeat(at)).unwrap();
    }
    symlink("../one", src.join("a/b/link")).unwrap();
    symlink("nowhere", src.join("dangling")).unwrap();
    for (name, mode) in [
        ("a/one", 0o640),
        ("a/none", 0o755),
        ("empty", 0o700),
        ("a/b/text", 0o444),
    ] {
        fs::set_permissions(src.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (at, name) in ["a/one", "a/b/large", "a/b/c", "empty", "a"].iter().enumerate() {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_500_000_000 + at as u64 * 1001);
        fs::File::open(src.join(name)).unwrap().set_modified(time).unwrap();
    }
    src
}

#[tokio::test]
async fn lines_tell_how_it_goes() {
    let cancel = || Cancel(Arc::new(work()));
    let slow = futures::future::pending().boxed();
    let (line, running) = tell(Some((slow, cancel()))).await.unwrap();
    assert_eq!(line.unwrap(), "{\"progress\":{\"entries\":0,\"bytes\":0}}\n");
    assert!(running.is_some());
    let failed = async { Err(FsError::invalid("no")) }.boxed();
    let (line, running) = tell(Some((failed, cancel()))).await.unwrap();
    assert_eq!(line.unwrap(), "{\"error\":{\"code\":400,\"message\":\"no\"}}\n");
    assert!(tell(running).await.is_none());
    let work = Arc::new(work());
    drop(Cancel(Arc::clone(&work)));
    work.go_on().unwrap_err();
}

#[test]
fn names_of_archives() {
    for (name, format) in [
        ("/a.ZIP", Format::Zip),
        ("/a.tar.gz", Format::TarGz),
        ("/a.tgz", Format::TarGz),
    ] {
        assert_eq!(Format::of(Path::new(name)).unwrap(), format);
    }
    Format::of(Path::new("/zip")).unwrap_err();
    assert_eq!(parse_time(b"1500000000.25"), Some((1_500_000_000, 250_000_000)));
    assert_eq!(parse_time(b"-1"), None);
}
