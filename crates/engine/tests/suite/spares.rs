//! Sandboxes that are made before anybody asks for one.

use std::collections::BTreeSet;
use std::sync::Arc;

use sandhold_engine::{Engine, EngineConfig};
use sandhold_runtime::{Resources, Runtime, RuntimeError, SandboxSpec};

use super::common::{USER, config, out, sh, spec};
use super::ends::{alone, descendants, eventually, launcher_of};

async fn start(max_sandboxes: usize) -> Arc<Engine> {
    let config = EngineConfig {
        spares: 1,
        max_sandboxes,
        ..config()
    };
    Engine::start(config).await.expect("an engine")
}

/// As the spare ones are.
fn usual() -> SandboxSpec {
    SandboxSpec {
        hostname: "sandhold".to_owned(),
        ..spec()
    }
}

/// The first processes of all sandboxes of this program.
fn first_processes() -> BTreeSet<u32> {
    let launcher = launcher_of(std::process::id());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent == Some(launcher.to_string().as_str())
    };
    descendants(launcher).into_iter().filter(is_child).collect()
}

/// The spare one, once it is there and the only sandbox.
async fn the_spare(engine: &Engine) -> u32 {
    eventually("a spare sandbox", || {
        engine.spares() == 1 && first_processes().len() == 1
    })
    .await;
    first_processes().into_iter().next().expect("a spare sandbox")
}

#[tokio::test]
async fn who_asks_for_the_usual_gets_it() {
    if !alone() {
        return;
    }
    let engine = start(1).await;
    let spare = the_spare(&engine).await;
    assert_eq!(engine.live(), 0, "it is nobody's");
    let spec = usual();
    let sandbox = engine.create(spec.clone()).await.unwrap();
    assert_eq!(sandbox.boot_answer(), b"ready");
    assert_eq!(engine.live(), 1);
    assert_eq!(out(&*sandbox, USER, "hostname; id -u").await, "sandhold\n1000");
    eventually("the next one", || engine.spares() == 1).await;
    assert!(first_processes().contains(&spare));

    // Its id is in use, and the place that it takes.
    let full = engine.create(usual()).await.err();
    assert!(matches!(full, Some(RuntimeError::Exhausted(_))), "{full:?}");
    sandbox.kill().await;
    eventually("the end of it", || !first_processes().contains(&spare)).await;
    assert_eq!(engine.live(), 0);
    let again = engine.create(spec.clone()).await.unwrap();
    let same = engine.create(spec).await.err();
    assert!(same.is_some());
    drop(again);
    engine.shutdown().await;
}

#[tokio::test]
async fn an_id_in_use_is_refused() {
    let engine = start(4).await;
    let spec = usual();
    let first = engine.create(spec.clone()).await.unwrap();
    for _ in 0..20 {
        let second = engine.create(spec.clone()).await.err();
        assert!(matches!(second, Some(RuntimeError::InvalidSpec(_))), "{second:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(engine.live(), 1);
    drop(first);
    engine.shutdown().await;
}

#[tokio::test]
async fn who_asks_for_anything_else_gets_one_of_their_own_and_the_next_finds_one() {
    if !alone() {
        return;
    }
    let engine = start(4).await;
    let spare = the_spare(&engine).await;
    let resources = Resources {
        open_files: Some(77),
        ..Resources::default()
    };
    let limited = || SandboxSpec { resources, ..usual() };
    let first = engine.create(limited()).await.unwrap();
    assert_eq!(out(&*first, USER, "ulimit -n").await, "77");
    assert!(first_processes().contains(&spare), "the usual one still waits");
    eventually("one of the other shape", || engine.spares() == 2).await;
    let before = first_processes();
    let second = engine.create(limited()).await.unwrap();
    assert_eq!(out(&*second, USER, "ulimit -n; hostname").await, "77\nsandhold");
    assert!(first_processes().contains(&spare));
    first.kill().await;
    second.kill().await;
    eventually("the end of both", || before.difference(&first_processes()).count() == 2).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn a_spare_one_stands_on_the_layers_that_were_asked_for() {
    if !alone() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut config = config();
    config.spares = 1;
    config.store = Some(place.path().join("layers"));
    let engine = Engine::start(config).await.expect("an engine");
    let first = engine.create(usual()).await.unwrap();
    out(&*first, USER, "echo kept > ~/kept").await;
    let layers = engine.layers().unwrap();
    let root = layers.keep(&first.checkpoint().await.unwrap()).await.unwrap();
    let of = || SandboxSpec {
        root: root.clone().into(),
        ..usual()
    };
    let second = engine.create(of()).await.unwrap();
    eventually("one of each", || engine.spares() == 2).await;
    let waiting = first_processes();
    let third = engine.create(of()).await.unwrap();
    assert_eq!(out(&*third, USER, "cat ~/kept; echo more >> ~/kept").await, "kept");
    assert_eq!(out(&*second, USER, "cat ~/kept").await, "kept");
    third.kill().await;
    eventually("the end of one that waited", || {
        waiting.difference(&first_processes()).count() == 1
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn one_that_died_is_not_given() {
    if !alone() {
        return;
    }
    // One at all, so that it is known which.
    let engine = Engine::start(EngineConfig {
        spares: 1,
        spares_most: 1,
        max_sandboxes: 4,
        ..config()
    })
    .await
    .expect("an engine");
    for round in 0..4 {
        let spare = the_spare(&engine).await;
        // At once, and after its end was noticed.
        let pid = rustix::process::Pid::from_raw(spare.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        if round % 2 == 1 {
            eventually("its end", || !first_processes().contains(&spare)).await;
        }
        let sandbox = engine.create(usual()).await.unwrap();
        assert_eq!(sh(&*sandbox, USER, "true").await.0, 0);
        sandbox.kill().await;
        assert_eq!(engine.live(), 0);
    }
    let launcher = launcher_of(std::process::id());
    let pid = rustix::process::Pid::from_raw(launcher.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let sandbox = loop {
        // While the launcher's end is not noticed, the answer is to try again.
        if let Ok(sandbox) = engine.create(usual()).await {
            break sandbox;
        }
    };
    assert_eq!(sh(&*sandbox, USER, "true").await.0, 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn shutdown_ends_it() {
    if !alone() {
        return;
    }
    let engine = start(4).await;
    the_spare(&engine).await;
    engine.shutdown().await;
    eventually("no process", || descendants(std::process::id()).is_empty()).await;

    // In the middle of being made.
    for pause in [0, 15, 19, 20, 21, 22, 24] {
        let engine = start(4).await;
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        engine.shutdown().await;
        drop(engine);
        eventually("no process", || descendants(std::process::id()).is_empty()).await;
    }
}
