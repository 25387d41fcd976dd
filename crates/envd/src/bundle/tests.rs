//! Archives made by hand, good and hostile, packed and unpacked in folders of this machine.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use flate2::{Compression, Crc, write::GzEncoder};
use rawzip::path::EntryPath;
use rawzip::{CompressionMethod, DataDescriptorOutput, ZipArchiveWriter};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

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

struct Zipped {
    name: &'static [u8],
    content: Vec<u8>,
    mode: u32,
    encrypted: bool,
    crc: Option<u32>,
    size: Option<u64>,
}

fn file(name: &'static [u8], content: &[u8]) -> Zipped {
    Zipped {
        name,
        content: content.to_vec(),
        mode: 0o100_644,
        encrypted: false,
        crc: None,
        size: None,
    }
}

fn link(name: &'static [u8], to: &[u8]) -> Zipped {
    Zipped {
        mode: 0o120_777,
        ..file(name, to)
    }
}

fn zipped(entries: &[Zipped]) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Cursor::new(Vec::new()));
    for entry in entries {
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        deflate.write_all(&entry.content).unwrap();
        let packed = deflate.finish().unwrap();
        let (mut out, _) = archive
            .new_file(EntryPath::verbatim(entry.name))
            .compression_method(CompressionMethod::DEFLATE)
            .unix_permissions(entry.mode)
            .encrypted(entry.encrypted)
            .start()
            .unwrap();
        out.write_all(&packed).unwrap();
        let mut crc = Crc::new();
        crc.update(&entry.content);
        let size = entry.size.unwrap_or(entry.content.len() as u64);
        out.finish(DataDescriptorOutput::new(entry.crc.unwrap_or(crc.sum()), size))
            .unwrap();
    }
    archive.finish().unwrap().into_inner()
}

type Tarred<'a> = (&'a [u8], tar::EntryType, &'a [u8]);

/// Headers by hand: the library writes no hostile names.
fn tarred(entries: &[Tarred<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, what) in entries {
        let is_file = *kind == tar::EntryType::Regular;
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        header.set_mtime(1_500_000_000);
        header.set_size(if is_file { what.len() as u64 } else { 0 });
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        if !is_file {
            header.as_old_mut().linkname[..what.len()].copy_from_slice(what);
        }
        header.set_cksum();
        out.extend(header.as_bytes());
        if is_file {
            out.extend(*what);
            out.resize(out.len().next_multiple_of(512), 0);
        }
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn gzipped(data: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// A folder with an archive in it and something to be hurt.
fn stage(data: &[u8]) -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    fs::write(folder.path().join("canary"), "safe").unwrap();
    let archive = inner.join("archive");
    fs::write(&archive, data).unwrap();
    let dest = inner.join("dest");
    (folder, archive, dest)
}

/// Nothing is written at all, and the refusal holds `said`.
fn refused_whole(data: &[u8], said: &str) {
    let (folder, archive, dest) = stage(data);
    let before = tree(folder.path());
    let text = unpack(&archive, &dest).expect_err(said).text();
    assert!(text.contains(said), "{text}");
    assert_eq!(tree(folder.path()), before, "{text}");
}

#[test]
fn hostile_zip_files() {
    let good = || file(b"good", b"x");
    for (bad, said) in [
        (vec![good(), file(b"../evil", b"x")], "out of the folder"),
        (vec![good(), file(b"a/../../evil", b"x")], "out of the folder"),
        (vec![good(), file(b"/tmp/evil", b"x")], "absolute"),
        (vec![good(), file(b"..\\evil", b"x")], "out of the folder"),
        (vec![good(), file(b"C:\\evil", b"x")], "drive"),
        (vec![good(), file(b"a\0b", b"x")], "zero byte"),
        (vec![good(), link(b"l", b"/tmp")], "leads out"),
        (vec![good(), link(b"d/l", b"../../x")], "leads out"),
        (vec![link(b"l", b"d"), file(b"l/x", b"x")], "lies below"),
        (vec![file(b"l/x", b"x"), link(b"l", b"d")], "lies below"),
        (vec![link(b"a/s", b"../t"), link(b"a/l", b"s/../../e")], "may lead out"),
        (vec![link(b"l", &[b'x'; 5000])], "no valid target"),
        (vec![good(), good()], "stands twice"),
        (vec![file(b"a", b"x"), file(b"./a", b"x")], "stands twice"),
        (vec![file(b"a", b"x"), file(b"a/b", b"x")], "lies below"),
        (
            vec![Zipped {
                mode: 0o020_666,
                ..good()
            }],
            "no file, folder or link",
        ),
        (
            vec![Zipped {
                mode: 0o010_666,
                ..good()
            }],
            "no file, folder or link",
        ),
        (
            vec![Zipped {
                mode: 0o040_755,
                ..good()
            }],
            "folder with content",
        ),
        (
            vec![Zipped {
                encrypted: true,
                ..good()
            }],
            "encrypted",
        ),
        (
            vec![Zipped {
                size: Some(3 << 30),
                ..file(b"a", &[0; 100_000])
            }],
            "bomb",
        ),
        (
            vec![Zipped {
                size: Some(u64::MAX / 2),
                ..good()
            }],
            "bomb",
        ),
        (
            vec![Zipped {
                crc: Some(1),
                ..link(b"l", b"x")
            }],
            "damaged",
        ),
    ] {
        refused_whole(&zipped(&bad), said);
    }
    let data = zipped(&[good(), file(b"noise", &noise(5000))]);
    for cut in [10, data.len() / 2, data.len() - 10] {
        refused_whole(&data[..cut], "no whole zip file");
    }
    // The control: nothing of the kind.
    let (folder, archive, dest) = stage(&zipped(&[
        good(),
        Zipped {
            mode: 0o104_755,
            ..file(b"d/run", b"x")
        },
        link(b"d/l", b"../good"),
        file(b"d\\x", b"x"),
    ]));
    assert_eq!(unpack(&archive, &dest).unwrap().entries, 4);
    assert_eq!(fs::read(dest.join("d/l")).unwrap(), b"x");
    let mode = fs::metadata(dest.join("d/run")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755, "no set-id bit");
    drop(folder);
}

#[test]
fn zip_files_that_lie() {
    for bad in [
        Zipped {
            crc: Some(7),
            ..file(b"bad", &noise(100_000))
        },
        Zipped {
            size: Some(10),
            ..file(b"bad", &noise(100_000))
        },
        Zipped {
            size: Some(200_000),
            ..file(b"bad", &noise(100_000))
        },
    ] {
        let (_folder, archive, dest) = stage(&zipped(&[file(b"good", b"x"), bad]));
        let text = unpack(&archive, &dest).unwrap_err().text();
        assert!(text.contains("entry \"bad\" is damaged"), "{text}");
        assert!(text.ends_with("1 entries had been written before"), "{text}");
        assert_eq!(tree(&dest).len(), 1, "no half file");
    }
    // Two names for one content.
    let one = zipped(&[file(b"a", &[0; 1000])]);
    let find = |magic: &[u8]| one.windows(4).position(|w| w == magic).unwrap();
    let (at, end) = (find(b"PK\x01\x02"), find(b"PK\x05\x06"));
    let mut second = one[at..end].to_vec();
    second[46] = b'b';
    let mut tail = one[end..].to_vec();
    let size = u32::try_from(2 * (end - at)).unwrap();
    tail[8..12].copy_from_slice(&[2, 0, 2, 0]);
    tail[12..16].copy_from_slice(&size.to_le_bytes());
    refused_whole(&[&one[..end], &second, &tail].concat(), "overlap");
    // Another number of entries than it says.
    let mut tail = one[end..].to_vec();
    tail[8..12].copy_from_slice(&[9, 0, 9, 0]);
    refused_whole(&[&one[..end], &tail].concat(), "says it has 9 entries");
}

#[test]
fn hostile_tar_files() {
    use tar::EntryType as E;
    for (bad, said) in [
        (
            &[(&b"good"[..], E::Regular, &b"x"[..]), (b"../evil", E::Regular, b"x")][..],
            "out of the folder",
        ),
        (&[(b"/tmp/evil", E::Regular, b"x")], "absolute"),
        (
            &[(b"l", E::Symlink, b"/tmp"), (b"l/evil", E::Regular, b"x")],
            "leads out",
        ),
        (&[(b"l", E::Symlink, b"d"), (b"l/evil", E::Regular, b"x")], "lies below"),
        (&[(b"l", E::Symlink, b"d"), (b"l", E::Directory, b"")], "stands twice"),
        (&[(b"h", E::Link, b"/etc/passwd")], "absolute"),
        (&[(b"h", E::Link, b"../canary")], "out of the folder"),
        (&[(b"h", E::Link, b"nowhere")], "another name"),
        (&[(b"l", E::Symlink, b"x"), (b"h", E::Link, b"l")], "another name"),
        (&[(b"d", E::Char, b"")], "device or pipe"),
        (&[(b"f", E::Fifo, b"")], "device or pipe"),
        (&[(b"a", E::Regular, b"1"), (b"a", E::Regular, b"2")], "stands twice"),
        (&[(b"q", E::new(b'Q'), b"")], "not known"),
        (&[(b"l", E::Symlink, b"")], "no valid target"),
    ] {
        let data = tarred(bad);
        refused_whole(&data, said);
        refused_whole(&gzipped(&data), said);
    }
    let data = tarred(&[(b"good", E::Regular, &noise(50_000))]);
    refused_whole(&data[..20_000], "cut short");
    let packed = gzipped(&data);
    refused_whole(&packed[..packed.len() / 2], "damaged");
    let mut wrong = packed.clone();
    let crc = wrong.len() - 8;
    wrong[crc] ^= 0xff;
    refused_whole(&wrong, "damaged");
    let mut wrong = data.clone();
    wrong[0] = b'G';
    refused_whole(&wrong, "damaged");
    // A long name that would fill the memory.
    let mut long = tar::Header::new_gnu();
    long.set_entry_type(E::GNULongName);
    long.set_size(1 << 33);
    long.set_cksum();
    let endless = [&long.as_bytes()[..], &vec![b'a'; 4 << 20]].concat();
    refused_whole(&gzipped(&endless), "damaged");

    let fine = tarred(&[
        (b"./", E::Directory, b""),
        (b"good", E::Regular, b"x"),
        (b"d/l", E::Symlink, b"../good"),
        (b"h", E::Link, b"good"),
    ]);
    for data in [fine.clone(), gzipped(&fine)] {
        let (_folder, archive, dest) = stage(&data);
        assert_eq!(unpack(&archive, &dest).unwrap().entries, 4);
        assert_eq!(fs::read(dest.join("d/l")).unwrap(), b"x");
        let meta = fs::metadata(dest.join("h")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o755, 1_500_000_000));
    }
}

#[test]
fn what_stands_there_is_no_way_out() {
    let data = zipped(&[file(b"a/x", b"new"), file(b"b", b"new")]);
    let (folder, archive, dest) = stage(&data);
    fs::create_dir(&dest).unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    symlink(&out, dest.join("a")).unwrap();
    let text = unpack(&archive, &dest).unwrap_err().text();
    assert!(text.contains("is no folder, and links are not followed"), "{text}");
    assert_eq!(tree(&out).len(), 0);
    fs::remove_file(dest.join("a")).unwrap();
    symlink(folder.path().join("canary"), dest.join("b")).unwrap();
    unpack(&archive, &dest).unwrap();
    assert_eq!(fs::read(folder.path().join("canary")).unwrap(), b"safe");
    assert_eq!(fs::read(dest.join("b")).unwrap(), b"new");
    // A file over a folder, and a folder over a file.
    fs::remove_file(dest.join("b")).unwrap();
    fs::create_dir(dest.join("b")).unwrap();
    assert!(unpack(&archive, &dest).unwrap_err().text().contains("is a folder"));
}

#[test]
fn many_entries() {
    let mut archive = ZipArchiveWriter::new(Cursor::new(Vec::new()));
    for at in 0..100_000 {
        let name = format!("{}/{at}", at % 100);
        let (out, _) = archive.new_file(&name[..]).start().unwrap();
        out.finish(DataDescriptorOutput::new(0, 0)).unwrap();
    }
    let (_folder, archive, dest) = stage(&archive.finish().unwrap().into_inner());
    assert_eq!(unpack(&archive, &dest).unwrap().entries, 100_000);
    assert_eq!(fs::read_dir(dest.join("7")).unwrap().count(), 1000);
}

#[test]
fn what_is_no_archive() {
    for (data, said) in [
        (&b""[..], "something else"),
        (b"hello", "something else"),
        (&gzipped(b"hello"), "not of a tar file"),
        (&[7; 2000], "something else"),
    ] {
        refused_whole(data, said);
    }
    let folder = tempfile::tempdir().unwrap();
    let text = unpack(&folder.path().join("x"), folder.path()).unwrap_err().text();
    assert!(text.contains("does not exist"), "{text}");
    assert!(
        unpack(folder.path(), folder.path())
            .unwrap_err()
            .text()
            .contains("not a regular file")
    );
    // Archives of nothing.
    let empty = zipped(&[]);
    let (_folder, archive, dest) = stage(&empty);
    assert_eq!(unpack(&archive, &dest).unwrap().entries, 0);
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
