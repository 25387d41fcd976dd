//! Archives that are hostile, damaged or odd.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use flate2::{Compression, Crc, write::GzEncoder};
use rawzip::path::EntryPath;
use rawzip::{CompressionMethod, DataDescriptorOutput, ZipArchiveWriter};
use tempfile::TempDir;

use super::*;

pub(super) struct Zipped {
    pub(super) name: &'static [u8],
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
    pub(super) encrypted: bool,
    pub(super) crc: Option<u32>,
    pub(super) size: Option<u64>,
}

pub(super) fn file(name: &'static [u8], content: &[u8]) -> Zipped {
    Zipped {
        name,
        content: content.to_vec(),
        mode: 0o100_644,
        encrypted: false,
        crc: None,
        size: None,
    }
}

pub(super) fn link(name: &'static [u8], to: &[u8]) -> Zipped {
    Zipped {
        mode: 0o120_777,
        ..file(name, to)
    }
}

pub(super) fn zipped(entries: &[Zipped]) -> Vec<u8> {
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

pub(super) type Tarred<'a> = (&'a [u8], tar::EntryType, &'a [u8]);

/// Headers by hand: the library writes no hostile names.
pub(super) fn tarred(entries: &[Tarred<'_>]) -> Vec<u8> {
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

pub(super) fn gzipped(data: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// A folder with an archive in it and something to be hurt.
pub(super) fn stage(data: &[u8]) -> (TempDir, PathBuf, PathBuf) {
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
pub(super) fn refused_whole(data: &[u8], said: &str) {
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
        (vec![good(), file(b"a\0b", b"x")], "zero byte"),
        (vec![link(b"l", b"/tmp"), file(b"l/x", b"x")], "lies below"),
        (vec![good(), link(b"l", b"")], "no valid target"),
        (vec![link(b"l", b"d"), file(b"l/x", b"x")], "lies below"),
        (vec![file(b"l/x", b"x"), link(b"l", b"d")], "lies below"),
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
            "lies below",
        ),
        (&[(b"l", E::Symlink, b"d"), (b"l/evil", E::Regular, b"x")], "lies below"),
        (&[(b"l", E::Symlink, b"d"), (b"l", E::Directory, b"")], "stands twice"),
        (&[(b"h", E::Link, b"/etc/passwd")], "absolute"),
        (&[(b"h", E::Link, b"../canary")], "out of the folder"),
        (&[(b"h", E::Link, b"nowhere")], "another name"),
        (
            &[
                (b"l", E::Symlink, b"x"),
                (b"h", E::Link, b"l"),
                (b"h/x", E::Regular, b""),
            ],
            "lies below",
        ),
        (&[(b"a", E::Regular, b"1"), (b"a", E::Symlink, b"2")], "stands twice"),
        (&[(b"d", E::Char, b"")], "device or pipe"),
        (&[(b"f", E::Fifo, b"")], "device or pipe"),
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
    // More than the old format counts.
    let again = archive.with_extension("zip");
    assert_eq!(pack(&dest, &again).unwrap().entries, 100_100);
    let mut buffer = vec![0; rawzip::RECOMMENDED_BUFFER_SIZE];
    let read = rawzip::ZipArchive::from_file(fs::File::open(&again).unwrap(), &mut buffer).unwrap();
    assert_eq!(read.entries_hint(), 100_100);
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
