//! Archives that are odd and fine, and those that only say that they are large.

use std::fs;

use tar::EntryType as E;

use super::unpacking::{file, gzipped, link, refused_whole, stage, tarred, zipped};
use super::*;

/// A file of one block that is said to be so large, the rest of it a hole.
fn sparse(real: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..6].copy_from_slice(b"sparse");
    header.set_entry_type(E::GNUSparse);
    header.set_mode(0o644);
    header.set_size(512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(512);
    gnu.sparse[1].set_offset(real);
    gnu.sparse[1].set_length(0);
    gnu.set_real_size(real);
    header.set_cksum();
    [&header.as_bytes()[..], &[b'x'; 512], &[0; 1024]].concat()
}

#[test]
fn what_is_too_large_is_not_read() {
    refused_whole(&sparse(1 << 62), "bomb");
    refused_whole(&gzipped(&sparse(1 << 62)), "bomb");
    let (_folder, archive, dest) = stage(&sparse(1 << 20));
    unpack(&archive, &dest).unwrap();
    assert_eq!(fs::metadata(dest.join("sparse")).unwrap().len(), 1 << 20);
    // The content is not even there, which would be told if it were looked at.
    let mut header = tar::Header::new_ustar();
    header.set_path("a").unwrap();
    header.set_size(3 << 30);
    header.set_cksum();
    refused_whole(&gzipped(header.as_bytes()), "bomb");
    header.set_size(3 << 20);
    header.set_cksum();
    refused_whole(&gzipped(header.as_bytes()), "cut short");
}

/// As a program of another system says it is.
fn from_elsewhere(mut data: Vec<u8>) -> Vec<u8> {
    let entries: Vec<usize> = (0..data.len() - 4)
        .filter(|at| data[*at..].starts_with(b"PK\x01\x02"))
        .collect();
    for at in entries {
        data[at + 5] = 0;
    }
    data
}

#[test]
fn drives_are_known_where_there_are_some() {
    for name in [&b"c:x"[..], b"C:\\evil"] {
        let data = zipped(&[file(name, b"x")]);
        refused_whole(&from_elsewhere(data.clone()), "drive");
        let (_folder, archive, dest) = stage(&data);
        unpack(&archive, &dest).unwrap();
        assert_eq!(tree(&dest).len(), 1);
    }
}

#[test]
fn links_that_lead_out_are_left_out() {
    let links: [(&[u8], &[u8]); 5] = [
        (b"bin/python", b"/usr/bin/python3"),
        (b"bin/up", b"../../x"),
        (b"bin/round", b"lib/../../x"),
        (b"bin/fine", b"../lib"),
        (b"fine", b"bin/python"),
    ];
    let zip: Vec<_> = links.iter().map(|(path, target)| link(path, target)).collect();
    let tar: Vec<_> = links
        .iter()
        .map(|(path, target)| (*path, E::Symlink, *target))
        .collect();
    for data in [zipped(&zip), tarred(&tar), gzipped(&tarred(&tar))] {
        let (_folder, archive, dest) = stage(&data);
        let report = unpack(&archive, &dest).unwrap();
        let mut left_out = report.left_out.paths;
        left_out.sort();
        assert_eq!(left_out, ["bin/python", "bin/round", "bin/up"]);
        assert_eq!((report.left_out.count, report.entries), (3, 2));
        assert_eq!(tree(&dest).len(), 3);
        assert_eq!(fs::read_link(dest.join("bin/fine")).unwrap(), Path::new("../lib"));
    }
}

#[test]
fn zeros_behind_gzip_data_do_not_count() {
    let plain = tarred(&[(b"a", E::Regular, b"x")]);
    let (first, second) = plain.split_at(600);
    let members = [gzipped(first), gzipped(b""), gzipped(second)].concat();
    for whole in [gzipped(&plain), members] {
        for zeros in [0, 1, 10_240, 3 << 20] {
            let (_folder, archive, dest) = stage(&[&whole[..], &vec![0; zeros]].concat());
            assert_eq!(unpack(&archive, &dest).unwrap().entries, 1, "{zeros}");
        }
        for more in [&b"x"[..], b"\0\0x"] {
            refused_whole(&[&whole[..], more].concat(), "damaged");
        }
    }
}

#[test]
fn the_last_of_a_name_wins_in_tar_files() {
    let (_folder, archive, dest) = stage(&tarred(&[
        (b"a", E::Regular, b"old"),
        (b"h", E::Link, b"a"),
        (b"l", E::Symlink, b"/out"),
        (b"a", E::Regular, b"new"),
        (b"l", E::Symlink, b"a"),
    ]));
    let report = unpack(&archive, &dest).unwrap();
    assert_eq!(report.left_out.count, 0);
    for (name, content) in [("a", b"new"), ("h", b"old"), ("l", b"new")] {
        assert_eq!(fs::read(dest.join(name)).unwrap(), content, "{name}");
    }
}

#[test]
fn another_name_of_a_link_is_a_link() {
    let (_folder, archive, dest) = stage(&tarred(&[
        (b"d/l", E::Symlink, b"../a"),
        (b"d/again", E::Link, b"d/l"),
        (b"out", E::Link, b"d/l"),
    ]));
    let report = unpack(&archive, &dest).unwrap();
    assert_eq!(report.left_out.paths, ["out"]);
    assert_eq!(fs::read_link(dest.join("d/again")).unwrap(), Path::new("../a"));
    assert_eq!(tree(&dest).len(), 3);
}
