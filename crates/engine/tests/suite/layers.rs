//! Layers: what a sandbox wrote becomes one, others begin with it, and a sandbox goes back to one.

use std::collections::BTreeSet;

use sandhold_runtime::{Root, Runtime, RuntimeError, Sandbox, SandboxSpec};

use super::common::{USER, engine, has_root, is_root, out, sandbox, sh, spec};
use super::ends::{alone, descendants, eventually};

async fn of(engine: &sandhold_engine::Engine, root: Root) -> std::sync::Arc<dyn Sandbox> {
    engine
        .create(SandboxSpec { root, ..spec() })
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

/// The id of root inside, or the only one.
fn root(engine: &sandhold_engine::Engine) -> u32 {
    if has_root(engine) { 0 } else { USER }
}

#[tokio::test]
async fn there_are_layers_here() {
    assert_eq!(engine().await.info().no_layers, None);
}

#[tokio::test]
async fn a_fork_begins_with_what_was_written_and_goes_its_own_way() {
    let engine = engine().await;
    let first = sandbox(&engine).await;
    assert_eq!(first.root(), Root::default());
    out(
        &*first,
        USER,
        "echo one > ~/a; mkdir -p ~/d/e; echo x > ~/d/e/f; ln -s a ~/link; chmod 640 ~/a",
    )
    .await;
    out(
        &*first,
        root(&engine),
        "echo more >> /etc/environment; rm -f /etc/shells; mkdir /opt/mine",
    )
    .await;
    let checkpoint = first.checkpoint().await.unwrap();
    assert_eq!(checkpoint.layers.len(), 1);
    assert_eq!(first.root(), checkpoint);

    let fork = of(&engine, checkpoint.clone()).await;
    let look = "cat ~/a ~/link ~/d/e/f; stat -c %a:%u ~/a; cat /etc/environment; ls -d /etc/shells /opt/mine 2>&1; cat /etc/hostname";
    let expected =
        "one\none\nx\n640:1000\nmore\nls: cannot access '/etc/shells': No such file or directory\n/opt/mine\ntestbox";
    for sandbox in [&first, &fork] {
        let (_, seen) = sh(&**sandbox, USER, look).await;
        assert_eq!(seen.trim_end(), expected);
    }
    // Each goes its own way.
    out(&*first, USER, "echo first > ~/a; rm -r ~/d; echo n > ~/new").await;
    out(&*fork, USER, "echo fork >> ~/a; mv ~/d/e/f ~/d/e/g").await;
    assert_eq!(out(&*first, USER, "cat ~/a; ls ~").await, "first\na\nlink\nnew");
    assert_eq!(out(&*fork, USER, "cat ~/a; ls ~/d/e").await, "one\nfork\ng");
    // The layer stays as it was, whoever goes.
    first.kill().await;
    let second = of(&engine, checkpoint.clone()).await;
    assert_eq!(out(&*second, USER, "cat ~/a; ls ~/d/e").await, "one\nf");
    // Forks of forks.
    let deeper = fork.checkpoint().await.unwrap();
    assert!(deeper.stands_on(&checkpoint));
    let third = of(&engine, deeper).await;
    assert_eq!(out(&*third, USER, "cat ~/a; ls ~/d/e").await, "one\nfork\ng");
}

#[tokio::test]
async fn everything_works_over_a_new_root() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    for round in 0..5 {
        out(&*sandbox, USER, &format!("echo {round} > ~/round")).await;
        sandbox.checkpoint().await.unwrap();
        let script = "cat ~/round; python3 -c 'import os, pty; m, s = pty.openpty(); print(os.ttyname(s))'; \
                      echo x > /dev/shm/x; cat /dev/shm/x; ls /proc/self/status; echo > /tmp/t; id -u; \
                      cat /etc/sandhold/profile | head -1; mv ~/round ~/moved; mv ~/moved ~/round; touch ~/round; rm ~/round; ls ~";
        let said = out(&*sandbox, USER, script).await;
        assert_eq!(
            said,
            format!("{round}\n/dev/pts/0\nx\n/proc/self/status\n1000\n# Login shells.")
        );
    }
}

#[tokio::test]
async fn going_back_ends_processes_and_brings_the_files_back() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    out(&*sandbox, USER, "echo kept > ~/kept").await;
    let before = sandbox.checkpoint().await.unwrap();
    out(
        &*sandbox,
        USER,
        "echo changed > ~/kept; echo new > ~/new; cd ~; (setsid sh -c 'trap \"\" TERM HUP; sleep 300' >/dev/null 2>&1 &)",
    )
    .await;
    out(&*sandbox, root(&engine), "mv /etc/environment /etc/e; mkdir /srv/x").await;
    sandbox.roll_back(&before).await.unwrap();
    assert_eq!(sandbox.root(), before);
    assert_eq!(
        out(&*sandbox, USER, "cat ~/kept; ls ~ /srv; ls /etc/environment").await,
        "kept\n/home/user:\nkept\n\n/srv:\n/etc/environment"
    );
    assert_eq!(
        out(
            &*sandbox,
            USER,
            "for i in $(seq 50); do pgrep -r R,S,D,T sleep >/dev/null || break; sleep 0.1; done; pgrep -c -r R,S,D,T sleep || true"
        )
        .await,
        "0"
    );
    sandbox.roll_back(&Root::default()).await.unwrap();
    assert_eq!(out(&*sandbox, USER, "ls ~; cat /etc/hostname").await, "testbox");
    out(&*sandbox, USER, "echo works > ~/again").await;
}

#[tokio::test]
async fn links_made_by_root_lead_nowhere() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    if !has_root(&engine) {
        return;
    }
    // The folders that things are mounted at, replaced by links to elsewhere.
    let (code, _) = sh(
        &*sandbox,
        0,
        "mv /etc /elsewhere; ln -s /home /etc; rmdir /media; ln -s / /media",
    )
    .await;
    let checkpoint = sandbox.checkpoint().await.unwrap();
    let fork = of(&engine, checkpoint.clone()).await;
    for sandbox in [&sandbox, &fork] {
        let said = out(
            &**sandbox,
            0,
            "cat /etc/sandhold/profile | head -1; stat -c %F /etc; ls /home",
        )
        .await;
        assert!(said.starts_with("# Login shells.\ndirectory\n"), "{code} {said}");
        assert!(!said.contains("sandhold"), "{said}");
    }
}

#[tokio::test]
async fn while_files_are_in_use_the_layer_is_a_copy() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    for script in [
        "cd ~; sleep 300 >/dev/null 2>&1 & :",
        "cd /; sleep 300 > ~/log 2>&1 & :",
        "cd /; python3 -c 'import mmap,time; f=open(\"/home/user/m\",\"w+b\"); f.truncate(4096); m=mmap.mmap(f.fileno(),4096); f.close(); time.sleep(300)' >/dev/null 2>&1 & sleep 1",
    ] {
        out(
            &*sandbox,
            USER,
            &format!("echo one > ~/file; ln -f ~/file ~/same; {script}"),
        )
        .await;
        let checkpoint = sandbox.checkpoint().await.unwrap();
        assert_eq!(
            sandbox.root(),
            Root::default(),
            "it stands on what it stood on: {script}"
        );
        out(&*sandbox, USER, "echo two > ~/file").await;
        let fork = of(&engine, checkpoint.clone()).await;
        let said = out(
            &*fork,
            USER,
            "cat ~/file ~/same; stat -c %h:%U ~/file; id -un; pgrep -c -r R,S,D,T sleep || :",
        )
        .await;
        assert_eq!(said, "one\none\n2:user\nuser\n0", "{script}");
        let error = sandbox.changes(&checkpoint, 10).await.unwrap_err();
        assert!(matches!(error, RuntimeError::InvalidSpec(_)), "{error}");
        out(&*sandbox, USER, "pkill -9 sleep; pkill -9 python3; sleep 0.2").await;
    }
    out(&*sandbox, USER, "cd /; sleep 300 >/dev/null 2>&1 & :").await;
    let checkpoint = sandbox.checkpoint().await.unwrap();
    assert_eq!(sandbox.root(), checkpoint, "a process without files is no hindrance");
    assert_eq!(out(&*sandbox, USER, "pgrep -c -r R,S,D,T sleep").await, "1");
}

/// An engine with a store.
async fn keeping() -> (tempfile::TempDir, std::sync::Arc<sandhold_engine::Engine>) {
    let place = tempfile::tempdir().unwrap();
    let engine = again(&place).await;
    (place, engine)
}

async fn again(place: &tempfile::TempDir) -> std::sync::Arc<sandhold_engine::Engine> {
    let mut config = super::common::config();
    config.store = Some(place.path().join("layers"));
    sandhold_engine::Engine::start(config).await.unwrap()
}

#[tokio::test]
async fn what_is_kept_outlives_the_engine() {
    let (place, engine) = keeping().await;
    let layers = engine.layers().expect("a store");
    let first = sandbox(&engine).await;
    out(
        &*first,
        USER,
        "echo one > ~/a; mkdir ~/d; echo x > ~/d/x; chmod 4755 ~/a; setfattr -n user.k -v v ~/a 2>/dev/null || :",
    )
    .await;
    let one = first.checkpoint().await.unwrap();
    out(&*first, USER, "echo two > ~/b; rm -r ~/d").await;
    let two = first.checkpoint().await.unwrap();
    let stored = layers.keep(&two).await.unwrap();
    assert_eq!(stored.layers.len(), 2);
    assert_eq!(
        layers.keep(&one).await.unwrap().layers,
        stored.layers[..1],
        "the same is kept once"
    );
    let list = layers.stored().await.unwrap();
    assert_eq!(list.len(), 2);
    for layer in &list {
        layers.verify(&layer.id).await.unwrap();
        assert!(!layers.remove(&layer.id).await.unwrap(), "it is young");
    }
    drop(layers);
    first.kill().await;
    engine.shutdown().await;
    drop((first, one, two, engine));

    let engine = again(&place).await;
    let sandbox = of(&engine, stored.clone().into()).await;
    assert_eq!(
        out(&*sandbox, USER, "cat ~/a ~/b; ls ~; stat -c %a:%U ~/a").await,
        "one\ntwo\na\nb\n755:user"
    );
    // A layer whose files were changed is found out.
    let layers = engine.layers().unwrap();
    let file = place
        .path()
        .join("layers/store")
        .join(stored.layers[1].to_string())
        .join("fs/home/user/b");
    std::fs::write(&file, "tampered").ok();
    if is_root() {
        let error = layers.verify(&stored.layers[1]).await.unwrap_err();
        assert!(
            std::error::Error::source(&error).unwrap().to_string().contains("layer"),
            "{error:?}"
        );
    }
    let gone = sandhold_runtime::LayerId([7; 32]);
    for error in [
        layers.verify(&gone).await.err(),
        layers.remove(&gone).await.err(),
        engine
            .create(SandboxSpec {
                root: sandhold_runtime::StoredRoot {
                    layers: vec![gone],
                    ..stored
                }
                .into(),
                ..spec()
            })
            .await
            .err(),
    ] {
        assert!(
            matches!(error, Some(RuntimeError::UnknownLayer(id)) if id == gone),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_image_is_a_root() {
    let (place, engine) = keeping().await;
    let layers = engine.layers().unwrap();
    // A root of one static program and its folders, as tar.
    let image = |entries: &[(&str, &str)]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(if *content == "/" { 0o755 } else { 0o644 });
            header.set_size(0);
            match *content {
                "/" => header.set_entry_type(tar::EntryType::Directory),
                _ => header.set_size(content.len() as u64),
            }
            let data: &[u8] = if *content == "/" { b"" } else { content.as_bytes() };
            tar.append_data(&mut header, path, data).unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &tar.into_inner().unwrap()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        sandhold_runtime::Archive {
            file: file.into(),
            compression: sandhold_runtime::Compression::None,
            diff_id: None,
            max_bytes: 1 << 20,
            max_files: 100,
        }
    };
    let mut root = sandhold_runtime::StoredRoot {
        base: sandhold_runtime::Base::Empty,
        layers: Vec::new(),
    };
    for entries in [
        &[
            ("etc/", "/"),
            ("etc/one", "1"),
            ("etc/two", "2"),
            ("tmp/", "/"),
            ("home/", "/"),
            ("home/user/", "/"),
        ][..],
        &[("etc/.wh.one", ""), ("etc/three", "3")],
    ] {
        let layer = layers.unpack(image(entries), &root).await.unwrap();
        root.layers.push(layer.id);
    }
    let sandbox = of(&engine, root.clone().into()).await;
    // The test program runs by itself: it is no file of the image.
    let listing = super::common::run(&*sandbox, USER, &["self", "list", "/etc"])
        .await
        .unwrap();
    assert_eq!(listing.0, 0, "{}", listing.1);
    assert_eq!(listing.1.trim(), "hostname hosts resolv.conf sandhold three two");
    let bad = layers
        .unpack(
            sandhold_runtime::Archive {
                diff_id: Some([7; 32]),
                ..image(&[("etc/four", "4")])
            },
            &root,
        )
        .await
        .unwrap_err();
    assert!(matches!(bad, RuntimeError::InvalidSpec(_)), "{bad:?}");
    assert_eq!(layers.stored().await.unwrap().len(), 2);
    let drafts = std::fs::read_dir(place.path().join("layers/store/tmp"))
        .unwrap()
        .flatten();
    let left: Vec<_> = drafts
        .map(|entry| entry.file_name())
        .filter(|name| !name.to_string_lossy().ends_with(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn differences_are_told() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let told = |changes: sandhold_runtime::Changes| -> Vec<String> {
        assert!(!changes.truncated);
        let line =
            |change: sandhold_runtime::Change| format!("{:?} {}", change.kind, String::from_utf8_lossy(&change.path));
        changes.changes.into_iter().map(line).collect()
    };
    assert_eq!(
        told(sandbox.changes(&Root::default(), 100).await.unwrap()),
        Vec::<String>::new()
    );
    out(&*sandbox, USER, "echo x > ~/a; mkdir ~/d; echo y > ~/d/y").await;
    out(
        &*sandbox,
        root(&engine),
        "echo more >> /etc/environment; rm /etc/shells; echo 1.2.3.4 x >> /etc/hosts",
    )
    .await;
    let all = [
        "Changed /etc/environment",
        "Changed /etc/hosts",
        "Removed /etc/shells",
        "Added /home/user/a",
        "Added /home/user/d",
        "Added /home/user/d/y",
    ];
    let mut found = told(sandbox.changes(&Root::default(), 100).await.unwrap());
    found.sort_by_key(|line| line.split(' ').nth(1).map(ToOwned::to_owned));
    // The files of its name come with it, so a changed one was added.
    let found: Vec<String> = found
        .iter()
        .map(|line| line.replace("Added /etc/hosts", "Changed /etc/hosts"))
        .collect();
    assert_eq!(found, all);
    let one = sandbox.checkpoint().await.unwrap();
    assert_eq!(told(sandbox.changes(&one, 100).await.unwrap()), Vec::<String>::new());
    out(&*sandbox, USER, "rm -r ~/d; echo z > ~/a").await;
    assert_eq!(
        told(sandbox.changes(&one, 100).await.unwrap()),
        ["Changed /home/user/a", "Removed /home/user/d"]
    );
    let few = sandbox.changes(&Root::default(), 1).await.unwrap();
    assert!(few.truncated && few.changes.len() == 1);
}

#[tokio::test]
async fn nothing_is_left_of_layers() {
    if !alone() {
        return;
    }
    let engine = engine().await;
    let mounts = |pids: &BTreeSet<u32>| -> usize {
        let count = |pid: &u32| {
            let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            table.lines().count()
        };
        pids.iter().map(count).max().unwrap_or(0)
    };
    let launcher = || descendants(std::process::id());
    let few = mounts(&launcher());
    let first = sandbox(&engine).await;
    let mut kept = Vec::new();
    for _ in 0..10 {
        out(&*first, USER, "echo x >> ~/x").await;
        kept.push(first.checkpoint().await.unwrap());
    }
    let fork = of(&engine, kept[9].clone()).await;
    assert_eq!(out(&*fork, USER, "wc -l < ~/x").await, "10");
    first.kill().await;
    fork.kill().await;
    drop((first, fork, kept));
    eventually("the launcher sees few mounts", || mounts(&launcher()) <= few).await;
    let again = sandbox(&engine).await;
    assert_eq!(out(&*again, USER, "ls ~").await, "");
    if is_root() {
        let error = engine
            .create(SandboxSpec {
                root: sandhold_runtime::StoredRoot {
                    base: sandhold_runtime::Base::Empty,
                    layers: vec![sandhold_runtime::LayerId([7; 32])],
                }
                .into(),
                ..spec()
            })
            .await
            .err();
        assert!(matches!(error, Some(RuntimeError::UnknownLayer(_))), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_written_can_be_kept_on_disk() {
    let (place, engine) = keeping().await;
    let on_disk = |root: Root| SandboxSpec {
        root,
        storage: sandhold_runtime::Storage::Disk,
        ..spec()
    };
    let drafts = || {
        let entries = std::fs::read_dir(place.path().join("layers/store/tmp"))
            .unwrap()
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.ends_with(".lock")).count()
    };
    let first = engine.create(on_disk(Root::default())).await.unwrap();
    assert_eq!(drafts(), 1);
    out(&*first, USER, "echo one > ~/a; chmod 600 ~/a; stat -f -c %T ~ > ~/kind").await;
    out(&*first, root(&engine), "rm /etc/shells; echo x >> /etc/environment").await;
    let one = first.checkpoint().await.unwrap();
    assert_eq!(drafts(), 2);
    out(&*first, USER, "echo two >> ~/a").await;
    let fork = of(&engine, one.clone()).await;
    let second = engine.create(on_disk(one.clone())).await.unwrap();
    for sandbox in [&fork, &second] {
        let look =
            "cat ~/a; stat -c %a:%U ~/a; ls /etc/shells 2>&1 | wc -l; cat /etc/environment; touch ~/more /tmp/x; ls ~";
        assert_eq!(out(&**sandbox, USER, look).await, "one\n600:user\n1\nx\na\nkind\nmore");
    }
    assert_eq!(out(&*first, USER, "cat ~/a").await, "one\ntwo");
    let kept = engine.layers().unwrap().keep(&one).await.unwrap();
    let third = of(&engine, kept.into()).await;
    assert_eq!(out(&*third, USER, "cat ~/a; stat -c %a:%U ~/a").await, "one\n600:user");
    first.roll_back(&one).await.unwrap();
    assert_eq!(out(&*first, USER, "cat ~/a").await, "one");
    // More than it may: it is ended, and nothing of it is left.
    let resources = sandhold_runtime::Resources {
        disk_bytes: Some(64 << 20),
        ..sandhold_runtime::Resources::default()
    };
    let greedy = engine
        .create(SandboxSpec {
            resources,
            ..on_disk(Root::default())
        })
        .await
        .unwrap();
    sh(&*greedy, USER, "head -c 100000000 /dev/zero > ~/big").await;
    assert!(greedy.ended().await.contains("disk"), "{}", greedy.ended().await);
    for sandbox in [first, fork, second, third, greedy] {
        sandbox.kill().await;
    }
    drop(one);
    eventually("no folder is left", || drafts() == 0).await;
}
