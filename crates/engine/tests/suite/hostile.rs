//! Init programs that were replaced by an enemy: whatever they do to their end of the control socket, the engine says what
//! is wrong in time, and the other sandboxes go on.

use std::sync::Arc;
use std::time::Duration;

use sandhold_engine::Engine;
use sandhold_runtime::{Runtime, RuntimeError, Sandbox, SandboxSpec};

use super::common::{USER, engine, out, sandbox, spec};
use super::ends::alone;

async fn hostile(engine: &Engine, boot: &str) -> Result<Arc<dyn Sandbox>, RuntimeError> {
    let boot = boot.into();
    engine.create(SandboxSpec { boot, ..spec() }).await
}

fn own_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn an_init_program_that_answers_for_ever_fills_nothing_of_the_hosts() {
    if !alone() {
        return;
    }
    let engine = engine().await;
    let good = sandbox(&engine).await;
    let before = own_descriptors();
    let bad = hostile(&engine, "endless").await.expect("its first answer is one");
    assert_eq!(bad.boot_answer(), b"ready");
    for _ in 0..20 {
        assert_eq!(out(&*bad, USER, "echo on").await, "on", "it may still be used");
    }
    // The sandbox's own sockets, and no descriptor that it sent.
    assert!(own_descriptors() < before + 20, "{} after {before}", own_descriptors());
    assert_eq!(out(&*good, USER, "echo on").await, "on", "the other one");
    bad.kill().await;
}

#[tokio::test]
async fn an_init_program_that_takes_no_connection_is_told_in_time() {
    let engine = engine().await;
    let good = sandbox(&engine).await;
    let bad = hostile(&engine, "deaf").await.expect("a sandbox");
    let mut waiting = Vec::new();
    let error = loop {
        match bad.connect().await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100_000, "the control socket is bounded");
    };
    assert!(matches!(error, RuntimeError::Exhausted(_)), "{error}");
    assert!(error.to_string().contains("does not accept its connections"), "{error}");
    assert!(waiting.len() > 10, "the control: some fit");
    assert_eq!(out(&*good, USER, "echo on").await, "on", "the other one");
    bad.kill().await;
}

#[tokio::test]
async fn an_init_program_that_lets_go_or_talks_nonsense_is_told() {
    let engine = engine().await;
    let good = sandbox(&engine).await;
    let bad = hostile(&engine, "gone").await.expect("a sandbox");
    let error = loop {
        match bad.connect().await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, RuntimeError::Ended(_)), "{error}");
    // The engine passes answers on unread: what they say is its user's to judge.
    let nonsense = hostile(&engine, "garbage").await.expect("a sandbox");
    assert_eq!(nonsense.boot_answer(), [0xff; 4096]);
    let error = hostile(&engine, "empty").await.err().expect("no answer is no sandbox");
    assert!(std::error::Error::source(&error).is_some(), "{error}");
    assert_eq!(out(&*good, USER, "echo on").await, "on", "the other one");
}
