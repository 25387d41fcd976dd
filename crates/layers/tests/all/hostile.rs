//! Archives that somebody made to do harm, or that are only strange.

use sandhold_layers::{Error, Limits};

use crate::kit::{Place, Tar};

/// What an archive does that must be refused: why, and that nothing came to be outside.
fn refused(tar: Tar) -> String {
    let place = Place::new();
    let layer = place.layer("layer");
    std::fs::write(place.path("outside"), "safe").unwrap();
    let error = layer.unpack(&tar.end(), &[]).unwrap_err();
    assert!(error.is_refusal(), "{error:?}");
    assert_eq!(std::fs::read(place.path("outside")).unwrap(), b"safe");
    assert_eq!(std::fs::read_dir(place.path("")).unwrap().count(), 2);
    error.to_string()
}

fn names(tar: Tar) -> String {
    let place = Place::new();
    let layer = place.layer("layer");
    layer.unpack(&tar.end(), &[]).unwrap();
    layer.names()
}

#[test]
fn names_that_lead_out_are_refused() {
    for path in ["../outside", "a/../../outside", "/../outside", "..", "./.."] {
        let reason = refused(Tar::new().file(path, "x"));
        assert!(reason.contains("leads out"), "{reason}");
    }
    let reason = refused(Tar::new().hardlink("link", "../outside"));
    assert!(reason.contains("leads out"), "{reason}");
    assert_eq!(
        names(Tar::new().file("/etc//./passwd", "x").file("a/../b", "x")),
        "f:b d:etc f:etc/passwd"
    );
}

#[test]
fn links_lead_nowhere_but_inside() {
    let tar = Tar::new()
        .symlink("up", "../..")
        .file("up/outside", "x")
        .symlink("root", "/")
        .file("root/tmp/file", "x")
        .symlink("dot", ".")
        .folder("dot")
        .file("dot/x", "x");
    assert_eq!(names(tar), "d:dot f:dot/x f:outside l:root d:tmp f:tmp/file l:up");
    // The last part of a name is never followed.
    let tar = Tar::new().symlink("link", "/outside").file("link", "x");
    assert_eq!(names(tar), "f:link");
    let tar = Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "x");
    assert!(refused(tar).contains("too many links"));
    let reason = refused(Tar::new().symlink("l", "/outside").hardlink("x", "l/y"));
    assert!(reason.contains("not there"), "{reason}");
    // A folder that becomes a link between two of its files.
    let tar = Tar::new()
        .file("a/one", "1")
        .symlink("a", "/b")
        .file("a/two", "2")
        .hardlink("b/three", "a/two");
    assert_eq!(names(tar), "l:a d:b f:b/three f:b/two");
    let reason = refused(Tar::new().file("a", "x").file("a/b", "x"));
    assert!(reason.contains("is a file"), "{reason}");
}

#[test]
fn a_name_that_a_link_gave_is_looked_up_again() {
    let tar = Tar::new()
        .symlink("x", ".")
        .file("x/a", "1")
        .folder("x/x")
        .file("x/b", "2");
    assert_eq!(names(tar), "f:a d:x f:x/b");
}

#[test]
fn the_last_of_several_entries_holds() {
    let tar = Tar::new()
        .file("a", "first")
        .file("a", "second")
        .file("b/c/d", "x")
        .file("b", "file")
        .file("c", "file")
        .folder("c")
        .file("c/d", "x")
        .symlink("d", "c")
        .hardlink("d", "a")
        .hardlink("a", "a");
    let place = Place::new();
    let layer = place.layer("layer");
    let done = layer.unpack(&tar.end(), &[]).unwrap();
    assert_eq!(layer.names(), "f:a f:b d:c f:c/d f:d");
    assert_eq!(std::fs::read(layer.path.join("d")).unwrap(), b"second");
    assert_eq!((done.files, done.bytes), (5, 6 + 4 + 1), "{done:?}");
}

#[test]
fn devices_are_left_out_and_nobody_becomes_somebody_else() {
    use std::os::unix::fs::PermissionsExt;
    let tar = Tar::new()
        .raw(b'3', b"null", b"", 0o666, b"")
        .raw(b'4', b"disk", b"", 0o666, b"")
        .raw(b'6', b"pipe", b"", 0o6644, b"")
        .raw(b'0', b"sudo", b"", 0o6755, b"x")
        .raw(b'5', b"shared", b"", 0o3775, b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", b"x"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.kept", b"a\n=\0b"),
            ("mtime", b"1700000000.123456789"),
        ])
        .folder("folder");
    let place = Place::new();
    let layer = place.layer("layer");
    let done = layer.unpack(&tar.end(), &[]).unwrap();
    assert_eq!((done.left_out, done.files), (2, 4));
    assert_eq!(layer.names(), "d:folder p:pipe d:shared f:sudo");
    let mode = |name: &str| layer.path.join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("sudo"), mode("shared"), mode("pipe")), (0o755, 0o3775, 0o644));
    let list = layer.list();
    let line = list.lines().find(|line| line.contains("folder")).unwrap();
    assert!(line.ends_with("1700000000.123456789 user.kept=a\\n=\\x00b"), "{line}");
}

#[test]
fn whiteouts_hide_only_what_is_below() {
    let place = Place::new();
    let below = place.layer("below");
    let base = Tar::new()
        .file("a/one", "1")
        .file("a/two", "2")
        .file("b/c/d", "3")
        .symlink("bin", "usr/bin");
    below
        .unpack(&base.file("usr/bin/tool", "x").file("gone", "x").end(), &[])
        .unwrap();
    let unpack = |name: &str, tar: Tar| {
        let layer = place.layer(name);
        layer.unpack(&tar.end(), &[&below]).unwrap();
        layer.names()
    };
    assert_eq!(
        unpack(
            "1",
            Tar::new()
                .file(".wh.gone", "")
                .file("a/.wh.one", "")
                .file("a/.wh.none", "")
        ),
        "d:a w:a/one w:gone"
    );
    // Before or after the files of its folder: the same.
    let before = unpack("2", Tar::new().file("b/.wh..wh..opq", "").file("b/c/e", ""));
    let after = unpack("3", Tar::new().file("b/c/e", "").file("b/.wh..wh..opq", ""));
    assert_eq!((before.as_str(), &before), ("o:b d:b/c f:b/c/e", &after));
    // What hides something in a folder that hides all is not needed.
    assert_eq!(
        unpack("4", Tar::new().file("b/c/.wh.d", "").file("b/.wh..wh..opq", "")),
        "o:b d:b/c"
    );
    // A whiteout and a file of one name: the file is there, and nothing of what was below it.
    assert_eq!(
        unpack("5", Tar::new().file(".wh.b", "").file("b/new", "")),
        "o:b f:b/new"
    );
    assert_eq!(
        unpack("6", Tar::new().file("b/new", "").file(".wh.b", "")),
        "o:b f:b/new"
    );
    assert_eq!(unpack("7", Tar::new().file(".wh.gone", "").file("gone", "x")), "f:gone");
    assert_eq!(unpack("8", Tar::new().file("gone", "x").file(".wh.gone", "")), "f:gone");
    // A file in the place of a folder, and a folder in its place again.
    assert_eq!(unpack("9", Tar::new().file("b", "x").folder("b")), "o:b");
    // The root hides all by name.
    assert_eq!(
        unpack("10", Tar::new().file("b/x", "").file(".wh..wh..opq", "")),
        "w:a o:b f:b/x w:bin w:gone w:usr"
    );
    // Through a link of a layer below; notes of AUFS are none of ours.
    assert_eq!(
        unpack("11", Tar::new().file("bin/.wh.tool", "").file("bin/new", "")),
        "d:usr d:usr/bin f:usr/bin/new w:usr/bin/tool"
    );
    assert_eq!(
        unpack(
            "12",
            Tar::new()
                .file(".wh..wh.plnk", "")
                .file(".wh.bin", "")
                .file("bin/x", "")
        ),
        "d:bin f:bin/x"
    );
    for bad in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
        let layer = place.layer(&format!("bad {}", bad.replace('/', "-")));
        let error = layer.unpack(&Tar::new().file(bad, "").end(), &[&below]).unwrap_err();
        assert!(error.to_string().contains("hides nothing"), "{error}");
    }
}

#[test]
fn links_to_files_below_bring_a_copy() {
    let place = Place::new();
    let below = place.layer("below");
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.user.a", b"b")])
        .file("a/file", "content")
        .symlink("l", "a");
    below.unpack(&tar.end(), &[]).unwrap();
    let layer = place.layer("layer");
    layer
        .unpack(
            &Tar::new().hardlink("b/link", "l/file").hardlink("c", "a/file").end(),
            &[&below],
        )
        .unwrap();
    assert_eq!(layer.names(), "d:a f:a/file d:b f:b/link f:c");
    let list = layer.list();
    let lines: Vec<_> = list.lines().filter(|line| line.starts_with("f:")).collect();
    assert!(lines.iter().all(|line| line.ends_with(" = a/file user.a=b")), "{list}");
    let again = place.layer("again");
    let hidden = Tar::new().hardlink("link", "a/file").file("a/.wh.file", "");
    again.unpack(&hidden.end(), &[&below]).unwrap();
    assert_eq!(again.names(), "d:a w:a/file f:link");
    let wrong = place.layer("wrong");
    let error = wrong
        .unpack(&Tar::new().file(".wh.a", "").hardlink("x", "a/file").end(), &[&below])
        .unwrap_err();
    assert!(error.to_string().contains("not there"), "{error}");
}

#[test]
fn folders_that_are_left_out_are_as_below() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let below = place.layer("below");
    let tar = Tar::new()
        .raw(b'5', b".", b"", 0o711, b"")
        .pax(&[("mtime", b"99.5")])
        .raw(b'5', b"home/me", b"", 0o700, b"");
    below.unpack(&tar.end(), &[]).unwrap();
    let layer = place.layer("layer");
    layer
        .unpack(
            &Tar::new().file("home/me/file", "x").file("new/file", "x").end(),
            &[&below],
        )
        .unwrap();
    let line = |layer: &crate::kit::Layer, name: &str| {
        let start = format!("d: {name} ");
        layer
            .list()
            .lines()
            .find(|line| line.starts_with(&start))
            .unwrap()
            .to_string()
    };
    for name in [".", "home", "home/me"] {
        assert_eq!(line(&layer, name), line(&below, name));
    }
    assert!(line(&layer, "home/me").ends_with(" 99.500000000"));
    assert!(line(&layer, "new").ends_with(" 0.000000000"));
    assert_eq!(
        layer.path.join("new").metadata().unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

#[test]
fn bombs_are_refused() {
    let limits = Limits {
        bytes: 1000,
        logical: 5000,
        files: 10,
        ..Limits::default()
    };
    let tried = |tar: Tar| {
        let place = Place::new();
        let layer = place.layer("layer");
        layer.unpack_within(&tar.end(), &[], &limits)
    };
    assert!(tried(Tar::new().file("a", &"x".repeat(999))).is_ok());
    let files = |count: usize| (0..count).fold(Tar::new(), |tar, n| tar.file(&n.to_string(), ""));
    assert!(tried(files(10)).is_ok());
    let many_times = (0..11).fold(Tar::new(), |tar, _| tar.file("a", ""));
    let sparse = Tar::new()
        .pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"999999999999")])
        .file("a", "x");
    let deep = "d/".repeat(100_000);
    let long = "n".repeat(300);
    for (tar, says) in [
        (
            Tar::new().file("a", &"x".repeat(600)).file("b", &"x".repeat(600)),
            "1000 bytes of files",
        ),
        (files(11), "10 entries"),
        (many_times, "10 entries"),
        (sparse, "5000 bytes, holes included"),
        (Tar::new().file(&deep, ""), "4096 bytes of a path"),
        (Tar::new().folder(&"d/".repeat(1500)), "1024 folders"),
        (Tar::new().file(&long, ""), "255 bytes of a name"),
        (
            Tar::new().pax(&[("SCHILY.xattr.user.x", &[7; 70_000])]).file("a", ""),
            "65536 bytes of extended",
        ),
    ] {
        let error = tried(tar).unwrap_err();
        assert!(matches!(error, Error::TooMuch { .. }), "{error:?}");
        assert!(
            error.to_string().contains(says) && error.to_string().len() < 600,
            "{error}"
        );
    }
    let records = (0..17)
        .fold(Tar::new(), |tar, _| tar.pax(&[("comment", b"x")]))
        .file("a", "");
    assert!(tried(records).unwrap_err().to_string().contains("too many records"));
}

#[test]
fn sparse_files_of_archives_have_holes_and_must_fit() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let layer = place.layer("layer");
    let map = b"2\n1048576\n3\n4194304\n2\n";
    let mut content = map.to_vec();
    content.resize(512, 0);
    content.extend_from_slice(b"abcde");
    let version1 = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"v1"),
        ("GNU.sparse.realsize", b"5000000"),
    ];
    let version0 = [
        ("GNU.sparse.size", &b"5000000"[..]),
        ("GNU.sparse.offset", b"1048576"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"4194304"),
        ("GNU.sparse.numbytes", b"2"),
    ];
    let tar = Tar::new()
        .pax(&version1)
        .raw(b'0', b"x", b"", 0o644, &content)
        .pax(&version0)
        .file("v0", "abcde");
    layer.unpack(&tar.end(), &[]).unwrap();
    let mut expected = vec![0; 5_000_000];
    expected[1_048_576..1_048_579].copy_from_slice(b"abc");
    expected[4_194_304..4_194_306].copy_from_slice(b"de");
    for name in ["v0", "v1"] {
        assert!(std::fs::read(layer.path.join(name)).unwrap() == expected, "{name}");
        assert!(layer.path.join(name).metadata().unwrap().blocks() < 1000);
    }
    for bad in ["0,6", "4,3,0,2", "0,5,9999999,0", "18446744073709551615,5", "0"] {
        let tar = Tar::new()
            .pax(&[("GNU.sparse.map", bad.as_bytes()), ("GNU.sparse.size", b"100")])
            .file("a", "abcde");
        refused(tar);
    }
}

#[test]
fn what_is_cut_off_or_no_archive_is_refused() {
    let whole = Tar::new().file("a", &"x".repeat(2000)).end();
    for length in [100, 512, 1000, 2000] {
        let place = Place::new();
        let layer = place.layer("layer");
        assert!(
            layer.unpack(&whole[..length], &[]).unwrap_err().is_refusal(),
            "{length}"
        );
    }
    refused(Tar::new().bytes(&[b'x'; 512]));
    let reason = refused(Tar::new().raw(b'V', b"volume", b"", 0, b""));
    assert!(reason.contains("no layer has"), "{reason}");
}

#[test]
fn names_may_be_any_bytes() {
    let place = Place::new();
    let layer = place.layer("layer");
    let tar = Tar::new()
        .raw(b'0', b"a\nb\xff\x1b", b"", 0o644, b"x")
        .pax(&[("path", b"c\n\xfe/d")])
        .file("x", "y");
    layer.unpack(&tar.end(), &[]).unwrap();
    assert_eq!(layer.names(), "f:a\\nb\\xff\\x1b d:c\\n\\xfe f:c\\n\\xfe/d");
    refused(Tar::new().pax(&[("path", b"a\0b")]).file("x", "y"));
    let error = refused(Tar::new().raw(b'0', b"../\x1b[2J", b"", 0o644, b"x"));
    assert!(error.contains("\\u{1b}[2J"), "{error}");
}
