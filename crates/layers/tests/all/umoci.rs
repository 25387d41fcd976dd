//! Images as umoci unpacks them, beside this crate.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sandhold_layers::{Limits, merge, stream, unpack};
use sandhold_runtime::Compression;

use crate::kit::{Layer, Place, Tar, is_root, owners, shell};
use crate::random::{commands, seed};

/// The layers of an image in a folder of the OCI's layout, the lowest first: their files, and the digests without compression.
fn layers(image: &Path) -> Vec<(std::path::PathBuf, [u8; 32])> {
    let read = |digest: &str| {
        let blob = image.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        (
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(&blob).unwrap_or_default()).ok(),
            blob,
        )
    };
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(image.join("index.json")).unwrap()).unwrap();
    let manifest = read(index["manifests"][0]["digest"].as_str().unwrap()).0.unwrap();
    let config = read(manifest["config"]["digest"].as_str().unwrap()).0.unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), diff_ids.len());
    let blob = |layer: &serde_json::Value| {
        let digest = layer["digest"].as_str().unwrap();
        image.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    };
    let id = |text: &serde_json::Value| {
        text.as_str()
            .unwrap()
            .strip_prefix("sha256:")
            .unwrap()
            .parse::<sandhold_runtime::LayerId>()
            .unwrap()
            .0
    };
    layers.iter().map(blob).zip(diff_ids.iter().map(id)).collect()
}

#[test]
fn an_image_of_thirty_layers_becomes_what_umoci_makes_of_it() {
    if !is_root() || std::process::Command::new("umoci").arg("--version").output().is_err() {
        eprintln!("skipped: only with the program umoci, and as root, are the owners the same");
        return;
    }
    let mut rng = seed();
    let place = Place::new();
    let image = place.path("image");
    shell(
        "cd \"$1\"; umoci init --layout image; umoci new --image image:x; umoci unpack --image image:x bundle",
        &[&place.path("")],
    );
    // Fifteen that umoci writes: whiteouts, links, changes of kind.
    for number in 0..15 {
        let script = format!(
            "cd \"$1\"/bundle/rootfs; {}\ncd \"$1\"; umoci repack --refresh-bundle --image image:x bundle",
            // umoci writes whiteouts below a folder that became a link, and cannot read them where that link leads to itself.
            commands(&mut rng, if number == 0 { 80 } else { 25 }, true).replace("ln -s ", "ln -s ../nowhere/")
        );
        shell(&script, &[&place.path("")]);
    }
    // Fifteen that no program writes so: opaque folders before and after their files, names through links, hard links to files
    // below, duplicates.
    for number in 0..15 {
        let file = |name: &str| format!("{name}-{number}");
        let tar = match number % 5 {
            0 => Tar::new()
                .folder("usr")
                .folder("usr/bin")
                .file("usr/bin/tool", "x")
                .symlink("bin", "usr/bin")
                .folder("lib")
                .folder("lib/x")
                .file("lib/x/y", "y"),
            1 => Tar::new()
                .file(&file("bin/tool"), "new")
                .file("bin/.wh.tool", "")
                .hardlink("link", "lib/x/y"),
            2 => Tar::new()
                .folder("lib")
                .file("lib/x/z", "z")
                .file("lib/.wh..wh..opq", "")
                .file("lib/w", "w"),
            3 => Tar::new()
                .folder("lib")
                .file("lib/.wh..wh..opq", "")
                .folder("lib/x")
                .file("lib/x/new", "n")
                .hardlink("lib/x/again", "lib/x/new"),
            _ => Tar::new()
                .file("usr", "now a file")
                .file("dup", "1")
                .file("dup", "2")
                .file(".wh.bin", "")
                .raw(b'5', b"lib", b"", 0o711, b""),
        };
        std::fs::write(place.path("layer.tar"), tar.end()).unwrap();
        shell(
            "cd \"$1\"; umoci raw add-layer --image image:x layer.tar",
            &[&place.path("")],
        );
    }
    shell("cd \"$1\"; umoci unpack --image image:x theirs", &[&place.path("")]);

    let mut made: Vec<Layer> = Vec::new();
    let blobs = layers(&image);
    assert!(blobs.len() >= 30, "{} layers", blobs.len());
    for (number, (blob, diff_id)) in blobs.iter().enumerate() {
        let layer = place.layer(&number.to_string());
        let mut tar = stream(File::open(blob).unwrap(), Compression::Gzip, u64::MAX).unwrap();
        let below: Vec<_> = made.iter().rev().map(Layer::fd).collect();
        unpack(&mut tar, layer.fd(), &below, owners(), &Limits::default()).unwrap();
        tar.expect(diff_id).unwrap();
        made.push(layer);
    }
    let ours = place.layer("ours");
    let all: Vec<_> = made.iter().rev().map(Layer::fd).collect();
    merge(&all, &[], ours.fd(), owners(), &Limits::default()).unwrap();
    let lines = |layer: &Layer| layer.list().lines().map(str::to_string).collect::<Vec<_>>();
    let (ours, theirs) = (lines(&ours), lines(&place.open("theirs/rootfs")));
    let only = |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
    assert_eq!((only(&ours, &theirs), only(&theirs, &ours)), (vec![], vec![]));
    for name in ["d: .", "f: dup", "d: lib", "f: lib/x/again", "f: lib/x/new", "f: usr"] {
        assert!(ours.iter().any(|line| line.starts_with(&format!("{name} "))), "{name}");
    }
}

#[test]
fn streams_are_decompressed_hashed_and_bounded() {
    let place = Place::new();
    let script = r#"cd "$1"; seq 100000 > plain; head -c 300000 plain | gzip > gz; tail -c +300001 plain | gzip >> gz;
        sha256sum plain | cut -c1-64"#;
    let said = shell(script, &[&place.path("")]).stdout;
    let id = String::from_utf8(said)
        .unwrap()
        .trim()
        .parse::<sandhold_runtime::LayerId>()
        .unwrap()
        .0;
    let plain = std::fs::read(place.path("plain")).unwrap();
    let half = plain.len() / 2;
    let zstd: Vec<u8> = [&plain[..half], &plain[half..]]
        .iter()
        .flat_map(|part| zstd::encode_all(*part, 3).unwrap())
        .collect();
    std::fs::write(place.path("zst"), zstd).unwrap();
    for (name, compression) in [
        ("plain", Compression::None),
        ("gz", Compression::Gzip),
        ("zst", Compression::Zstd),
    ] {
        let open = |most| stream(File::open(place.path(name)).unwrap(), compression, most).unwrap();
        let mut read = Vec::new();
        let mut whole = open(plain.len() as u64);
        whole.read_to_end(&mut read).unwrap();
        assert!(read == plain, "{name}");
        assert_eq!(whole.finish().unwrap(), id);
        open(u64::MAX).expect(&id).unwrap();
        assert!(open(u64::MAX).expect(&[0; 32]).unwrap_err().is_refusal());
        assert!(open(plain.len() as u64 - 1).finish().is_err(), "more than allowed");
        let cut = std::fs::read(place.path(name)).unwrap();
        let cut = stream(&cut[..cut.len() - 9], compression, u64::MAX).unwrap();
        assert!(cut.expect(&id).is_err(), "cut off");
    }
}
