use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;
use crate::files::tests::me;

#[tokio::test]
async fn stat_tells_everything_about_files_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.txt"), "hello").unwrap();
    std::fs::set_permissions(at("a.txt"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_250);
    std::fs::File::open(at("a.txt"))
        .unwrap()
        .set_modified(modified)
        .unwrap();
    let group = crate::users::Names::read().group(std::fs::metadata(at("a.txt")).unwrap().gid());
    let file = std::fs::File::open(at("a.txt")).unwrap();
    super::super::metadata::replace(&file, &at("a.txt"), &[("k".into(), "v".into())].into()).unwrap();
    let expected = json!({"entry": {
        "name": "a.txt", "type": "FILE_TYPE_FILE", "path": at("a.txt").to_str().unwrap(), "size": "5", "mode": 0o640,
        "permissions": "-rw-r-----", "owner": me(), "group": group, "modifiedTime": "1994-11-06T08:49:37.250Z",
        "metadata": {"k": "v"},
    }});
    assert_eq!(client.ask("Stat", path(&at("a.txt"))).await, expected);

    symlink("a.txt", at("link")).unwrap();
    let entry = client.ask("Stat", path(&at("link"))).await["entry"].clone();
    assert_eq!(entry["type"], "FILE_TYPE_FILE");
    assert_eq!(entry["isSymlink"], true);
    let real = at("a.txt").canonicalize().unwrap();
    assert_eq!(entry["symlinkTarget"], real.to_str().unwrap());
    assert_eq!(
        (&entry["mode"], &entry["permissions"]),
        (&json!(0o640), &json!("Lrwxrwxrwx"))
    );
    symlink(folder.path(), at("dirlink")).unwrap();
    assert_eq!(
        client.ask("Stat", path(&at("dirlink"))).await["entry"]["type"],
        "FILE_TYPE_DIRECTORY"
    );
    symlink("nowhere", at("broken")).unwrap();
    let entry = client.ask("Stat", path(&at("broken"))).await["entry"].clone();
    assert_eq!((&entry["type"], &entry["mode"]), (&Value::Null, &Value::Null));
    assert_eq!(entry["symlinkTarget"], at("broken").to_str().unwrap());

    let entry = client.ask("Stat", json!({"path": "/"})).await["entry"].clone();
    assert_eq!((&entry["name"], &entry["path"]), (&json!("/"), &json!("/")));
    let (code, text) = client.refusal("Stat", path(&at("no"))).await;
    assert_eq!(code, "not_found");
    assert_eq!(
        text,
        format!("file not found: '{}': no such file or directory", at("no").display())
    );
    let (code, _) = client.refusal("Stat", json!({"path": "~other/x"})).await;
    assert_eq!(code, "invalid_argument");
    let (status, answer) = client.ask_as(Some("no-such"), "Stat", json!({"path": "/"})).await;
    assert_eq!((status.as_u16(), &answer["code"]), (401, &json!("unauthenticated")));
}

#[tokio::test]
async fn folders_are_made_once_and_for_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new();
    let at = |name: &str| folder.path().join(name);
    let made = client.ask("MakeDir", path(&at("a/b/c"))).await;
    assert_eq!(
        (&made["entry"]["type"], &made["entry"]["name"]),
        (&json!("FILE_TYPE_DIRECTORY"), &json!("c"))
    );
    assert_eq!(made["entry"]["permissions"], "drwxr-xr-x");
    assert_eq!(
        client.refusal("MakeDir", path(&at("a/b"))).await,
        (
            "already_exists".into(),
            format!("directory already exists: {}", at("a/b").display())
        )
    );
    std::fs::write(at("file"), "").unwrap();
    let text = format!(
        "path already exists but it is not a directory: {}",
        at("file").display()
    );
    assert_eq!(
        client.refusal("MakeDir", path(&at("file"))).await,
        ("invalid_argument".into(), text)
    );
    assert_eq!(
        client.refusal("MakeDir", path(&at("file/x"))).await.0,
        "invalid_argument"
    );
    assert_eq!(
        client.refusal("MakeDir", path(&at(&"n".repeat(256)))).await.0,
        "invalid_argument"
    );
    assert_eq!(
        client.refusal("MakeDir", json!({"path": "/proc/nothing"})).await.0,
        "not_found"
    );
    if rustix::process::geteuid().is_root() {
        let (status, _) = client.ask_as(Some("nobody"), "MakeDir", path(&at("theirs/sub"))).await;
        assert_eq!(status, 200);
        for name in ["theirs", "theirs/sub"] {
            assert_eq!(std::fs::metadata(at(name)).unwrap().uid(), 65534);
        }
    }
}

#[tokio::test]
async fn moving_replaces_and_makes_parents() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new();
    let at = |name: &str| folder.path().join(name);
    let pair = |a: &str, b: &str| json!({"source": at(a).to_str().unwrap(), "destination": at(b).to_str().unwrap()});
    std::fs::write(at("a"), "1").unwrap();
    let moved = client.ask("Move", pair("a", "new/deep/b")).await;
    assert_eq!(moved["entry"]["path"], at("new/deep/b").to_str().unwrap());
    std::fs::write(at("c"), "2").unwrap();
    client.ask("Move", pair("c", "new/deep/b")).await;
    assert_eq!(std::fs::read(at("new/deep/b")).unwrap(), b"2");
    client.ask("Move", pair("new/deep/b", "new/deep/b")).await;
    let (code, text) = client.refusal("Move", pair("no", "elsewhere/x")).await;
    assert_eq!(code, "not_found");
    assert!(text.starts_with("source file not found"), "{text}");
    assert!(!at("elsewhere").exists());
    let (code, text) = client.refusal("Move", pair("new", "new/deep/again")).await;
    assert_eq!(code, "invalid_argument");
    assert!(text.contains("cannot be moved into itself"), "{text}");
    symlink(at("new"), at("link")).unwrap();
    assert_eq!(
        client.refusal("Move", pair("new", "link/deep/again")).await.0,
        "invalid_argument"
    );
    std::fs::write(at("file"), "").unwrap();
    assert_eq!(client.refusal("Move", pair("file", "new")).await.0, "invalid_argument");
    assert_eq!(client.refusal("Move", pair("new", "file")).await.0, "invalid_argument");
    std::fs::create_dir_all(at("full/x")).unwrap();
    assert_eq!(client.refusal("Move", pair("new", "full")).await.0, "invalid_argument");
    assert_eq!(
        client.refusal("Move", pair("file", "file/x")).await.0,
        "invalid_argument"
    );
    let root = json!({"source": "/", "destination": "/x"});
    assert_eq!(client.refusal("Move", root).await.0, "invalid_argument");
    client.ask("Move", pair("link", "link2")).await;
    assert!(at("link2").is_symlink());
}

#[tokio::test]
async fn moving_to_another_file_system_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let there = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    assert_ne!(
        device(folder.path()),
        device(there.path()),
        "the test needs two file systems"
    );
    let client = Client::new();
    let (from, to) = (folder.path().join("tree"), there.path().join("sub/tree"));
    std::fs::create_dir_all(from.join("deep")).unwrap();
    std::fs::write(from.join("deep/run"), "x".repeat(100_000)).unwrap();
    std::fs::set_permissions(from.join("deep/run"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    std::fs::set_permissions(from.join("deep"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    std::fs::File::open(from.join("deep/run"))
        .unwrap()
        .set_modified(modified)
        .unwrap();
    symlink("deep/run", from.join("link")).unwrap();
    let request = json!({"source": from.to_str().unwrap(), "destination": to.to_str().unwrap()});
    client.ask("Move", request).await;
    assert!(!from.exists());
    let run = std::fs::metadata(to.join("deep/run")).unwrap();
    assert_eq!(
        (run.len(), run.mode() & 0o7777, run.mtime()),
        (100_000, 0o4750, 784_111_777)
    );
    assert_eq!(std::fs::metadata(to.join("deep")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("deep/run"));
    // Back over something that exists; what cannot be copied stays where it is.
    std::fs::write(&from, "old").unwrap();
    let file = json!({"source": to.join("deep/run").to_str().unwrap(), "destination": from.to_str().unwrap()});
    client.ask("Move", file).await;
    assert_eq!(std::fs::metadata(&from).unwrap().len(), 100_000);
    let pipe = there.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let request =
        json!({"source": there.path().to_str().unwrap(), "destination": folder.path().join("x").to_str().unwrap()});
    let (code, text) = client.refusal("Move", request).await;
    assert_eq!(code, "invalid_argument");
    assert!(
        text.contains("is a named pipe and cannot be moved to another file system"),
        "{text}"
    );
    assert!(pipe.exists());
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["tree"]);
}

#[tokio::test]
async fn listing_goes_as_deep_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("b/c/d")).unwrap();
    for file in ["a", "b/x", "b/c/y", "z"] {
        std::fs::write(at(file), "").unwrap();
    }
    symlink("b", at("link")).unwrap();
    let list = async |name: &str, depth: u32| {
        let base = at(name);
        let answer = client
            .ask("ListDir", json!({"path": base.to_str().unwrap(), "depth": depth}))
            .await;
        let entries = answer["entries"].as_array().cloned().unwrap_or_default();
        let below = |e: &Value| {
            let path = e["path"].as_str().unwrap();
            Path::new(path)
                .strip_prefix(&base)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        entries.iter().map(below).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list("", 0).await, "a b link z");
    assert_eq!(list("", 1).await, "a b link z");
    assert_eq!(list("", 2).await, "a b b/c b/x link z");
    assert_eq!(list("", u32::MAX).await, "a b b/c b/c/d b/c/y b/x link z");
    assert_eq!(list("link", 1).await, "c x");
    assert_eq!(list("b/c/d", 1).await, "");
    assert_eq!(client.refusal("ListDir", path(&at("no"))).await.0, "not_found");
    let text = format!("path is not a directory: {}", at("a").display());
    assert_eq!(
        client.refusal("ListDir", path(&at("a"))).await,
        ("invalid_argument".into(), text)
    );
}

#[tokio::test]
async fn removing_spares_mounts_and_what_links_lead_to() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("dir/sub")).unwrap();
    std::fs::write(at("dir/sub/f"), "").unwrap();
    std::fs::write(at("kept"), "").unwrap();
    symlink(at("kept"), at("link")).unwrap();
    for name in ["dir", "link", "absent", "kept/below"] {
        assert_eq!(client.ask("Remove", path(&at(name))).await, json!({}));
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["kept"]);
    for (path, wanted) in [
        ("/", "the root folder '/' cannot be removed"),
        ("/tmp/../proc", "'/proc' is a mount point and cannot be removed"),
    ] {
        let refusal = client.refusal("Remove", json!({"path": path})).await;
        assert_eq!(refusal, ("invalid_argument".into(), wanted.into()));
    }
    let (code, _) = client.refusal("Remove", json!({"path": "/proc/self/status"})).await;
    assert_eq!(code, "permission_denied");
}
