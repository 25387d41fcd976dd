use std::{collections::BTreeMap, os::unix::fs::symlink};

use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

/// Names, and what they hold or lead to.
fn unpacked(context: &Context, source: &str) -> BTreeMap<String, String> {
    let mut bytes = Vec::new();
    context.pack(source, &mut bytes).unwrap();
    let mut archive = tar::Archive::new(&*bytes);
    let mut all = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        if let Some(to) = entry.link_name().unwrap() {
            content = format!("-> {}", to.display());
        }
        all.insert(String::from_utf8(entry.path_bytes().into_owned()).unwrap(), content);
    }
    all
}

fn names(context: &Context, source: &str) -> Vec<String> {
    unpacked(context, source).into_keys().collect()
}

#[test]
fn sources_are_files_folders_and_patterns() {
    let folder = folder(&[
        ("a.txt", "1"),
        ("b.txt", "2"),
        ("src/x/y.rs", "3"),
        ("src/z.rs", "4"),
        ("out/gone", "5"),
        ("out/kept", "6"),
        (".dockerignore", "out/*\n!out/kept\n.dockerignore\n"),
    ]);
    let context = Context::open(folder.path()).unwrap();
    assert_eq!(names(&context, "a.txt"), ["a.txt"]);
    assert_eq!(names(&context, "*.txt"), ["a.txt", "b.txt"]);
    assert_eq!(names(&context, "./src/"), ["src/", "src/x/", "src/x/y.rs", "src/z.rs"]);
    assert_eq!(names(&context, "s*"), ["src/", "src/x/", "src/x/y.rs", "src/z.rs"]);
    assert_eq!(names(&context, "src/**/*.rs"), ["src/x/y.rs", "src/z.rs"]);
    assert_eq!(names(&context, "out"), ["out/", "out/kept"]);
    assert_eq!(unpacked(&context, "src/x/../z.rs")["src/z.rs"], "4");
    let all = names(&context, ".");
    assert!(
        all.contains(&"./".to_owned()) && all.contains(&"src/x/y.rs".to_owned()),
        "{all:?}"
    );
    assert!(
        !all.iter().any(|name| name.contains("gone") || name.contains("ignore")),
        "{all:?}"
    );
    for nothing in ["none", "*.md", "out/gone", ".dockerignore"] {
        assert!(
            matches!(context.hash(nothing, "/"), Err(ContextError::Nothing(_))),
            "{nothing}"
        );
    }
    for wrong in ["/etc/passwd", "../x", "a/../../x", "["] {
        assert!(
            matches!(context.hash(wrong, "/"), Err(ContextError::Source { .. })),
            "{wrong}"
        );
    }
}

#[test]
fn nothing_outside_is_read() {
    let outside = folder(&[("secret", "s3cret"), ("d/secret", "s3cret")]);
    let folder = folder(&[("in/file", "1")]);
    let at = |name: &str| folder.path().join(name);
    symlink(outside.path().join("secret"), at("file")).unwrap();
    symlink(outside.path().join("d"), at("folder")).unwrap();
    symlink("in", at("inner")).unwrap();
    let context = Context::open(folder.path()).unwrap();
    // Links stay links.
    let all = unpacked(&context, ".");
    assert!(
        all["file"].starts_with("-> /") && all["folder"].starts_with("-> /") && all["inner"] == "-> in",
        "{all:?}"
    );
    assert!(!all.values().any(|content| content.contains("s3cret")));
    // One that stays inside may be gone through, one that leads out may not.
    assert_eq!(unpacked(&context, "inner/file")["inner/file"], "1");
    for out in ["folder/secret", "folder/*"] {
        let failed = context.pack(out, io::sink()).unwrap_err();
        assert!(
            matches!(failed, ContextError::Read { .. } | ContextError::Nothing(_)),
            "{failed:?}"
        );
    }
    symlink(outside.path().join("secret"), at(".dockerignore")).unwrap();
    assert!(matches!(Context::open(folder.path()), Err(ContextError::Read { .. })));
}

#[test]
fn the_hash_is_of_what_is_packed_and_the_tar_is_always_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder(&[("a/one", "1"), ("a/two", "2")]);
    let context = Context::open(folder.path()).unwrap();
    let hash = || context.hash("a", "/app").unwrap();
    let tar = || {
        let mut bytes = Vec::new();
        context.pack("a", &mut bytes).unwrap();
        bytes
    };
    let (first, packed) = (hash(), tar());
    assert_eq!((hash(), tar()), (first.clone(), packed.clone()));
    assert_ne!(context.hash("a", "/other").unwrap(), first);
    let file = folder.path().join("a/one");
    // A newer file of the same content is the same for the cache, and another tar.
    let newer = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(12345);
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(newer)
        .unwrap();
    assert_eq!(hash(), first);
    assert_ne!(tar(), packed);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let second = hash();
    assert_ne!(second, first);
    std::fs::write(&file, "3").unwrap();
    assert_ne!(hash(), second);
}

#[test]
fn pipes_are_left_out_and_told() {
    let folder = folder(&[("a/one", "1")]);
    let pipe = folder.path().join("a/pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let context = Context::open(folder.path()).unwrap();
    let packed = context.pack("a", io::sink()).unwrap();
    assert_eq!(
        (packed.files, packed.bytes, packed.left_out),
        (2, 1, vec!["a/pipe".to_owned()])
    );
}
