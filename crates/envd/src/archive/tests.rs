//! Round trips and hostile archives.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use tempfile::TempDir;

use super::format::{Entry, Kind, write_head};
use super::{ArchiveError, pack, unpack};

fn packed(folder: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    pack::pack(folder.to_str().unwrap(), &mut out).unwrap();
    out
}

fn unpacked(mut archive: &[u8]) -> Result<TempDir, ArchiveError> {
    let folder = tempfile::tempdir().unwrap();
    unpack::unpack(folder.path().to_str().unwrap(), &mut archive, is_root())?;
    Ok(folder)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything that can be told of a tree, by path.
fn told(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn walk(root: &Path, path: &Path, all: &mut BTreeMap<Vec<u8>, String>, inodes: &mut BTreeMap<u64, usize>) {
        let meta = fs::symlink_metadata(path).unwrap();
        let kind = meta.file_type();
        let number = inodes.len();
        let inode = if kind.is_dir() {
            0
        } else {
            *inodes.entry(meta.ino()).or_insert(number)
        };
        let content = if kind.is_file() {
            format!("{:?}", fs::read(path).map(|c| sum(&c)))
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(path).unwrap())
        } else {
            String::new()
        };
        let mut xattr = [0; 64];
        let len = rustix::fs::lgetxattr(path, "user.note", &mut xattr[..]).unwrap_or(0);
        let size = if kind.is_dir() { 0 } else { meta.len() };
        let line = format!(
            "mode {:o} owner {}:{} time {}.{} size {size} links {} inode {inode} {content} {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            if kind.is_dir() { 0 } else { meta.nlink() },
            &xattr[..len]
        );
        all.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), line);
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            for name in names {
                walk(root, &name, all, inodes);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all, &mut BTreeMap::new());
    all
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(1469598103934665603, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(1099511628211)
    })
}

/// A tree with all that makes archives go wrong.
fn nasty(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir(at("deep")).unwrap();
    let mut deep = at("deep");
    for _ in 0..40 {
        deep.push("a-folder-with-quite-a-long-name-of-its-own");
        fs::create_dir(&deep).unwrap();
    }
    fs::write(deep.join("file"), "down here").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("block"), [7; 512]).unwrap();
    fs::write(at(&"n".repeat(255)), "long name").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"bytes\xff\n\x01 =")), "x").unwrap();
    let mut big = fs::File::create(at("big")).unwrap();
    for n in 0..40_000_u32 {
        big.write_all(&n.to_le_bytes()).unwrap();
    }
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(24 << 20).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"middle", (12 << 20) + 3).unwrap();
    fs::File::create(at("hole")).unwrap().set_len(1 << 20).unwrap();
    fs::hard_link(at("big"), at("deep/other name of big")).unwrap();
    symlink("nowhere/at/all", at("dangling")).unwrap();
    symlink("/etc/passwd", at("absolute")).unwrap();
    symlink("t".repeat(300), at("long target")).unwrap();
    fs::hard_link(at("dangling"), at("dangling too")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    rustix::fs::chmod(at("fifo"), Mode::from_raw_mode(0o640)).unwrap();
    fs::write(at("odd mode"), "").unwrap();
    rustix::fs::setxattr(at("block"), "user.note", b"a\n\0=b", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("deep"), "user.note", b"of a folder", XattrFlags::empty()).unwrap();
    if is_root() {
        rustix::fs::chown(
            at("odd mode"),
            Some(rustix::fs::Uid::from_raw(1234)),
            Some(rustix::fs::Gid::from_raw(99)),
        )
        .unwrap();
        let user = Some(rustix::fs::Uid::from_raw(1000));
        rustix::fs::chownat(CWD, at("dangling"), user, None, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    fs::set_permissions(at("odd mode"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::create_dir(at("sticky")).unwrap();
    fs::set_permissions(at("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    set_time(&at("block"), 1_234_567_890, 123_456_789);
    set_time(&at("empty"), -5, 250_000_000);
    set_time(&at("dangling"), 77, 1);
    set_time(&at("fifo"), 78, 2);
    set_time(&deep, 79, 3);
    set_time(&at("deep"), 80, 4);
    set_time(root, 81, 5);
}

#[test]
fn a_nasty_tree_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    nasty(folder.path());
    let archive = packed(folder.path());
    assert!(archive.len() < 2 << 20, "holes are not stored: {} bytes", archive.len());
    drop(listener);
    fs::remove_file(&socket).unwrap();
    set_time(folder.path(), 81, 5);
    let back = unpacked(&archive).unwrap();
    let (before, after) = (told(folder.path()), told(back.path()));
    for (path, line) in &before {
        assert_eq!(after.get(path), Some(line), "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(before.len(), after.len());
    let sparse = fs::metadata(back.path().join("sparse")).unwrap();
    assert!(sparse.blocks() < 1000, "{} blocks", sparse.blocks());
}

#[test]
fn other_programs_read_it() {
    let folder = tempfile::tempdir().unwrap();
    nasty(folder.path());
    let mut child = std::process::Command::new("tar")
        .args(["--list", "--verbose", "--file", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let archive = packed(folder.path());
    std::thread::spawn(move || stdin.write_all(&archive));
    let out = child.wait_with_output().unwrap();
    let list = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(list.contains("25165824"), "{list}");
    assert!(list.contains(&"n".repeat(255)), "{list}");
}

#[test]
fn what_was_there_goes_unless_it_is_a_socket() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("new"), "new").unwrap();
    fs::create_dir(source.path().join("both")).unwrap();
    let archive = packed(source.path());
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("old"), "old").unwrap();
    fs::write(target.path().join("both"), "a file").unwrap();
    fs::create_dir_all(target.path().join("x/y/z")).unwrap();
    fs::create_dir(target.path().join("run")).unwrap();
    symlink("/tmp", target.path().join("link")).unwrap();
    let _listener = UnixListener::bind(target.path().join("run/socket")).unwrap();
    unpack::unpack(target.path().to_str().unwrap(), &mut &archive[..], is_root()).unwrap();
    let left: Vec<Vec<u8>> = told(target.path()).into_keys().collect();
    assert_eq!(left, [&b""[..], b"both", b"new", b"run", b"run/socket"]);
    assert!(target.path().join("both").is_dir());
}

#[test]
fn broken_archives_are_refused_and_what_is_none_removes_nothing() {
    let source = tempfile::tempdir().unwrap();
    nasty(source.path());
    let archive = packed(source.path());
    for len in [
        0,
        1,
        511,
        512,
        1000,
        archive.len() / 2,
        archive.len() - 1,
        archive.len() - 512,
    ] {
        let error = unpacked(&archive[..len]).expect_err("a cut archive");
        assert!(matches!(error, ArchiveError::Invalid(_)), "{len}: {error}");
    }
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("old"), "old").unwrap();
    let noise = [b'x'; 2048];
    assert!(unpack::unpack(target.path().to_str().unwrap(), &mut &noise[..], true).is_err());
    assert!(target.path().join("old").exists());
    let mut wrong = archive.clone();
    wrong[700] ^= 1;
    let at = archive.len() / 2 / 512 * 512;
    wrong.truncate(at);
    assert!(unpacked(&wrong).is_err());
}

fn entry(path: &[u8], kind: Kind, target: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        target: target.to_vec(),
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: (1, 0),
        size: 0,
        segments: None,
        xattrs: Vec::new(),
    }
}

fn archive_of(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        write_head(&mut out, entry).unwrap();
    }
    out.extend([0; 1024]);
    out
}

#[test]
fn hostile_archives_reach_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let out = outside.path().as_os_str().as_bytes();
    let victim_bytes = victim.as_os_str().as_bytes();
    let good = entry(b"dir", Kind::Dir, b"");
    // The control: the same way in, without the trick.
    unpacked(&archive_of(&[good.clone(), entry(b"dir/x", Kind::File, b"")])).unwrap();
    let hostile: Vec<Vec<Entry>> = vec![
        vec![entry(b"../x", Kind::File, b"")],
        vec![good.clone(), entry(b"dir/../../x", Kind::File, b"")],
        vec![entry(b"link", Kind::Symlink, out), entry(b"link/x", Kind::File, b"")],
        vec![entry(b"link", Kind::Symlink, out), entry(b"link", Kind::Dir, b"")],
        vec![
            entry(b"link", Kind::Symlink, victim_bytes),
            entry(b"link", Kind::File, b""),
        ],
        vec![
            entry(b"link", Kind::Symlink, out),
            entry(b"hard", Kind::Hard, b"link/victim"),
        ],
        vec![entry(b"hard", Kind::Hard, b"../victim")],
        vec![entry(b"hard", Kind::Hard, victim_bytes)],
        vec![entry(b"no/such/folder", Kind::File, b"")],
    ];
    for entries in hostile {
        assert!(unpacked(&archive_of(&entries)).is_err(), "{entries:?}");
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{entries:?}");
    }
    let absolute = unpacked(&archive_of(&[entry(b"/inside", Kind::File, b"")])).unwrap();
    assert!(absolute.path().join("inside").exists());
    // A device: the kind of a good archive's entry, changed.
    let mut device = archive_of(&[entry(b"null", Kind::Fifo, b"")]);
    let header = device.len() - 1024 - 512;
    device[header + 156] = b'3';
    device[header + 148..header + 156].fill(b' ');
    let sum: u32 = device[header..header + 512].iter().map(|b| u32::from(*b)).sum();
    device[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let error = unpacked(&device).expect_err("a device").to_string();
    assert!(error.contains("of kind '3'"), "{error}");
}
