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
            "for i in $(seq 50); do pgrep sleep >/dev/null || break; sleep 0.1; done; pgrep -c sleep || true"
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
async fn what_is_in_use_is_told() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    for script in [
        "cd ~; sleep 300 >/dev/null 2>&1 & :",
        "cd /; sleep 300 > ~/log 2>&1 & :",
        "cd /; python3 -c 'import mmap,time; f=open(\"/home/user/m\",\"w+b\"); f.truncate(4096); m=mmap.mmap(f.fileno(),4096); f.close(); time.sleep(300)' >/dev/null 2>&1 & sleep 1",
    ] {
        out(&*sandbox, USER, script).await;
        let refused = sandbox.checkpoint().await;
        assert!(matches!(refused, Ok(_)), "{script}: {refused:?}");
        out(&*sandbox, USER, "pkill -9 sleep; pkill -9 python3; sleep 0.2").await;
    }
    out(&*sandbox, USER, "cd /; sleep 300 >/dev/null 2>&1 & :").await;
    sandbox
        .checkpoint()
        .await
        .expect("a process without files is no hindrance");
    assert_eq!(out(&*sandbox, USER, "pgrep -c sleep").await, "1");
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
