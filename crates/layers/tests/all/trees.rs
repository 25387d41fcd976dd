//! Trees by chance, and what tar, overlayfs and this crate make of them.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sandhold_layers::{Limits, changes, copy, measure, merge};
use sandhold_runtime::ChangeKind;

use crate::kit::{Layer, Place, is_root, owners, shell, with_mounts};
use crate::random::{commands, seed};

fn xattr(path: &Path, name: &str, value: &str) {
    rustix::fs::lsetxattr(path, name, value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
}

/// Fills a folder by chance.
fn fill(layer: &Layer, rng: &mut fastrand::Rng) {
    let script = format!("cd \"$1\"\n{}", commands(rng, 60, is_root()));
    shell(&script, &[&layer.path]);
    std::fs::create_dir_all(layer.path.join("marked")).unwrap();
    std::fs::write(layer.path.join("marked/file"), "x").unwrap();
    xattr(&layer.path.join("marked"), "user.on.folder", "1");
    xattr(&layer.path.join("marked/file"), "user.on.file", "\n=\u{e4}");
}

#[test]
fn archives_of_tar_become_what_tar_makes_of_them() {
    let mut rng = seed();
    for round in 0..12 {
        let place = Place::new();
        let (tree, theirs, ours) = (place.layer("tree"), place.layer("theirs"), place.layer("ours"));
        fill(&tree, &mut rng);
        let format = [
            "pax --xattrs --xattrs-include=user.*",
            "gnu",
            "pax --sparse --sparse-version=1.0",
            "gnu --sparse",
            "pax --sparse --sparse-version=0.1",
            "pax --sparse --sparse-version=0.0",
        ][round % 6];
        let tar = place.path("tar");
        let script = format!(
            "tar --format={format} -cf \"$2\" -C \"$1\" . && tar -xpf \"$2\" --xattrs --xattrs-include='user.*' -C \"$3\""
        );
        shell(&script, &[&tree.path, &tar, &theirs.path]);
        ours.unpack(&std::fs::read(&tar).unwrap(), &[]).unwrap();
        assert_eq!(ours.list(), theirs.list(), "{format}");
        assert_eq!(ours.digest(), theirs.digest());
        let size = measure(ours.fd()).unwrap();
        assert_eq!(size.files as usize, ours.list().lines().count() - 1);
    }
}

#[test]
fn what_a_mounted_overlay_shows_is_what_the_merge_holds() {
    let mut rng = seed();
    for _ in 0..8 {
        let place = Place::new();
        let (bottom, lower, upper, shown) = (
            place.layer("bottom"),
            place.layer("lower"),
            place.layer("upper"),
            place.layer("shown"),
        );
        let (work, root, before) = (place.layer("work"), place.layer("root"), place.layer("before"));
        fill(&bottom, &mut rng);
        let script = format!(
            r#"over() {{ mount -t overlay -o "userxattr,lowerdir=$1,upperdir=$2,workdir=$3" overlay "$4"; }}
            over "$1" "$2" "$4" "$6"; pushd "$6" >/dev/null
            {}
            popd >/dev/null; cp -a "$6/." "$7/"; umount "$6"
            over "$2:$1" "$3" "$4" "$6"; pushd "$6" >/dev/null
            {}
            popd >/dev/null; cp -a "$6/." "$5/"; umount "$6""#,
            commands(&mut rng, 40, is_root()),
            commands(&mut rng, 40, is_root()),
        );
        let layers = [&bottom, &lower, &upper, &work, &shown, &root, &before];
        if with_mounts(&script, &layers.map(|layer| layer.path.as_path())).is_none() {
            return;
        }
        // A copy of what overlayfs wrote, twice: the same, whatever else overlayfs noted in it.
        let (copied, again) = (place.layer("copied"), place.layer("again"));
        let done = copy(upper.fd(), copied.fd(), owners(), owners(), &Limits::default()).unwrap();
        copy(copied.fd(), again.fd(), owners(), owners(), &Limits::default()).unwrap();
        assert_eq!(copied.digest(), upper.digest());
        assert_eq!(again.list(), copied.list());
        assert_eq!(done.files, measure(upper.fd()).unwrap().files);

        let flat = place.layer("flat");
        merge(
            &[copied.fd(), lower.fd(), bottom.fd()],
            &[],
            flat.fd(),
            owners(),
            &Limits::default(),
        )
        .unwrap();
        assert_eq!(seen(&flat), seen(&shown), "all at once");

        // Two as one, over the third: the same again, in fact and by the kernel's view.
        let (both, over) = (place.layer("both"), place.layer("over"));
        merge(
            &[copied.fd(), lower.fd()],
            &[bottom.fd()],
            both.fd(),
            owners(),
            &Limits::default(),
        )
        .unwrap();
        merge(&[both.fd(), bottom.fd()], &[], over.fd(), owners(), &Limits::default()).unwrap();
        assert_eq!(seen(&over), seen(&shown), "two as one");
        let mounted = place.layer("mounted");
        let mount = r#"mount -t overlay -o "userxattr,lowerdir=$1:$2" overlay "$3"; cp -a "$3/." "$4/""#;
        with_mounts(mount, &[&both.path, &bottom.path, &root.path, &mounted.path]);
        assert_eq!(seen(&mounted), seen(&shown), "two as one, mounted");

        check_changes(&[&copied], &[&lower, &bottom], &before, &shown);
        let start = place.layer("start");
        copy(bottom.fd(), start.fd(), owners(), owners(), &Limits::default()).unwrap();
        check_changes(&[&copied, &lower], &[&bottom], &start, &shown);
        check_changes(&[&both], &[&bottom], &start, &shown);
    }
}

/// A listing that the kernel's view can be held against. An overlay that was mounted without rights over the host does not
/// find what a file was copied up from (`ovl_can_decode_fh` in the kernel's fs/overlayfs/util.c asks for
/// `CAP_DAC_READ_SEARCH` there): of two names of one file, one may have the number of the lower file and the other that of
/// the upper one, and whoever copies them does not see that they are one.
fn seen(layer: &Layer) -> String {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let over_the_host = is_root() && map.split_whitespace().eq(["0", "0", "4294967295"]);
    let list = layer.list();
    if over_the_host {
        return list;
    }
    let lines = list.lines().map(|line| match line.rsplit_once(" = ") {
        Some((file, _)) if line.starts_with("f: ") => file,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What is said to differ against what two trees are.
fn check_changes(upper: &[&Layer], below: &[&Layer], before: &Layer, after: &Layer) {
    let fds = |layers: &[&Layer]| -> Vec<_> {
        layers
            .iter()
            .map(|layer| rustix::io::dup(layer.fd()).unwrap())
            .collect()
    };
    let (upper, below) = (fds(upper), fds(below));
    fn borrow(fds: &[std::os::fd::OwnedFd]) -> Vec<std::os::fd::BorrowedFd<'_>> {
        fds.iter().map(std::os::fd::AsFd::as_fd).collect()
    }
    let found = changes(&borrow(&upper), &borrow(&below), 100_000).unwrap();
    assert!(!found.truncated);
    let said: BTreeMap<_, _> = found
        .changes
        .iter()
        .map(|change| (change.path[1..].escape_ascii().to_string(), change.kind))
        .collect();
    assert_eq!(said.len(), found.changes.len(), "each path once");
    // Without what tells names of one file apart, and without times of folders.
    let tree = |layer: &Layer| -> BTreeMap<String, String> {
        let list = layer.list();
        let lines = list.lines().skip(1).map(|line| {
            let mut words: Vec<_> = line.split(" = ").next().unwrap().split(' ').collect();
            let name = words.remove(1).to_string();
            if words[0] == "d:" {
                words.remove(3);
            }
            (name, words.join(" "))
        });
        lines.collect()
    };
    let (before, after) = (tree(before), tree(after));
    let mut expected = BTreeMap::new();
    for (name, line) in &after {
        match before.get(name) {
            None => drop(expected.insert(name.clone(), ChangeKind::Added)),
            Some(old) if old != line => drop(expected.insert(name.clone(), ChangeKind::Changed)),
            Some(_) => {}
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        // What is below something that is gone, or is no folder any more, is not named.
        let parent = name.rsplit_once('/').map(|(parent, _)| parent);
        if parent.is_none_or(|parent| after.get(parent).is_some_and(|line| line.starts_with("d:"))) {
            expected.insert(name.clone(), ChangeKind::Removed);
        }
    }
    assert_eq!(said, expected);
    let few = changes(&borrow(&upper), &borrow(&below), 1).unwrap();
    assert_eq!(
        (few.changes.len(), few.truncated),
        (expected.len().min(1), expected.len() > 1)
    );
    assert_eq!(few.changes.first(), found.changes.first());
}

#[test]
fn a_tree_of_any_depth_is_copied_compared_and_merged() {
    let place = Place::new();
    let (deep, empty, copied, merged) = (
        place.layer("deep"),
        place.layer("empty"),
        place.layer("copied"),
        place.layer("merged"),
    );
    const DEPTH: usize = 6000;
    let mut here = rustix::io::dup(deep.fd()).unwrap();
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    for _ in 0..DEPTH {
        drop(rustix::fs::openat(&here, "f", flags, Mode::RUSR).unwrap());
        rustix::fs::mkdirat(&here, "folder", Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, "folder", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    copy(deep.fd(), copied.fd(), owners(), owners(), &Limits::default()).unwrap();
    assert_eq!(copied.digest(), deep.digest());
    merge(
        &[empty.fd(), copied.fd()],
        &[],
        merged.fd(),
        owners(),
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(measure(merged.fd()).unwrap().files as usize, 2 * DEPTH);
    assert_eq!(changes(&[merged.fd()], &[deep.fd()], 10).unwrap().changes, []);
    let added = changes(&[deep.fd()], &[], 100_000).unwrap();
    assert!(added.truncated, "their paths would be 250 MB");
    let few = Limits {
        files: 100,
        ..Limits::default()
    };
    let refused = copy(deep.fd(), place.layer("few").fd(), owners(), owners(), &few).unwrap_err();
    assert!(refused.is_refusal(), "{refused:?}");
}

#[test]
fn the_name_of_a_layer_depends_on_all_that_it_holds() {
    let place = Place::new();
    let layer = place.layer("layer");
    std::fs::create_dir(layer.path.join("d")).unwrap();
    std::fs::write(layer.path.join("d/f"), "x").unwrap();
    let mut known = vec![layer.digest()];
    let mut differs = |what: &str, layer: &Layer| {
        let now = layer.digest();
        assert_eq!(now, layer.digest());
        assert!(!known.contains(&now), "{what}");
        known.push(now);
    };
    for (what, command) in [
        ("content", "echo y > d/f; touch -d @5 d/f"),
        ("time of a file", "touch -d @5.000000001 d/f"),
        ("time of a folder", "touch -d @7 d"),
        ("mode", "chmod 600 d/f"),
        ("name", "mv d/f d/g; touch -d @7 d"),
        ("depth", "mv d/g .; touch -d @7 d ."),
        ("link", "ln -s g l; touch -hd @7 . l"),
        ("its target", "ln -sfn h l; touch -hd @7 . l"),
        ("another name", "ln g h; touch -d @7 ."),
        ("a file instead", "rm h; cp -p g h; touch -d @7 ."),
        ("pipe", "mkfifo p; touch -d @7 p ."),
        ("whiteout", "mknod w c 0 0; touch -d @7 ."),
        ("its own folder", "chmod 711 ."),
    ] {
        shell(&format!("cd \"$1\"; {command}"), &[&layer.path]);
        differs(what, &layer);
    }
    xattr(&layer.path.join("d"), "user.overlay.opaque", "y");
    differs("mark", &layer);
    xattr(&layer.path.join("d"), "user.other", "y");
    differs("attribute", &layer);
    xattr(&layer.path.join("d"), "user.overlay.origin", "y");
    assert_eq!(
        layer.digest(),
        *known.last().unwrap(),
        "what overlayfs notes is no part of it"
    );
    // An ordinary user's digest knows no owners.
    let one = || {
        sandhold_layers::digest(layer.fd(), sandhold_layers::Owners::One)
            .unwrap()
            .0
    };
    let before = one();
    if is_root() {
        shell("chown 5:7 \"$1/g\"", &[&layer.path]);
        let now = layer.digest();
        assert!(!known.contains(&now), "owner");
    }
    assert_eq!(one(), before);
}

#[test]
fn owners_are_shifted_on_the_way() {
    if !is_root() {
        eprintln!("skipped: only root gives files away");
        return;
    }
    use sandhold_layers::{Ids, Owners};
    let place = Place::new();
    let (canonical, shifted, back) = (place.layer("canonical"), place.layer("shifted"), place.layer("back"));
    shell(
        "cd \"$1\"; touch a; mkdir d; ln -s a l; mkfifo p; chown -h 0:7 a; chown -h 1000:1000 d l p",
        &[&canonical.path],
    );
    let ids = |first| Ids { first, count: 65_536 };
    let there = Owners::Shifted {
        uid: ids(100_000),
        gid: ids(200_000),
    };
    copy(canonical.fd(), shifted.fd(), Owners::Exact, there, &Limits::default()).unwrap();
    let list = shifted.list();
    assert!(
        list.contains("f: a 644 100000:200007 ") && list.contains("l: l 777 101000:201000 "),
        "{list}"
    );
    copy(shifted.fd(), back.fd(), there, Owners::Exact, &Limits::default()).unwrap();
    assert_eq!(back.list(), canonical.list());
    let name = |layer: &Layer, owners| sandhold_layers::digest(layer.fd(), owners).unwrap().0;
    assert_eq!(name(&shifted, there), name(&canonical, Owners::Exact));
}
