//! What every test starts from.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sandhold_engine::{Engine, EngineConfig, InitProgram};
use sandhold_runtime::{Level, Resources, Runtime, RuntimeError, Sandbox, SandboxSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Names the level that the suites run on; the default one if it is not set.
pub(super) const LEVEL: &str = "SANDHOLD_ISOLATION";
/// The id of `user` inside.
pub(super) const USER: u32 = 1000;

pub(super) fn probe_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_engine-probe"))
}

pub(super) fn config() -> EngineConfig {
    let probe = probe_program();
    let mut config = EngineConfig::new(
        InitProgram::Path(probe.clone()),
        vec![probe.into(), "__launcher".into()],
    );
    config.init_args = vec!["probe-init".to_owned()];
    config.search_path = std::env::var_os("PATH").unwrap_or_default();
    if let Ok(name) = std::env::var(LEVEL) {
        config.isolation = Level::named(&name).expect("a level");
    }
    config
}

pub(super) async fn engine() -> Arc<Engine> {
    Engine::start(config())
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

pub(super) fn spec() -> SandboxSpec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    SandboxSpec {
        id: format!("t{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
        root: sandhold_runtime::Root::default(),
        storage: sandhold_runtime::Storage::Memory,
        hostname: "testbox".to_owned(),
        resources: Resources::default(),
        boot: b"go".to_vec(),
    }
}

pub(super) async fn sandbox(engine: &Engine) -> Arc<dyn Sandbox> {
    engine.create(spec()).await.expect("a sandbox")
}

pub(super) async fn sandbox_with(engine: &Engine, resources: Resources) -> Arc<dyn Sandbox> {
    engine
        .create(SandboxSpec { resources, ..spec() })
        .await
        .expect("a sandbox")
}

/// Runs a program inside; its code (negative: the signal) and what it printed.
pub(super) async fn run(sandbox: &dyn Sandbox, user: u32, words: &[&str]) -> Result<(i32, String), RuntimeError> {
    let mut stream = sandbox.connect().await?;
    let line = format!("{user}\t{}\n", words.join("\t"));
    let failed = |error: std::io::Error| RuntimeError::failed("talking to the probe", error);
    stream.write_all(line.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((code, output)) = answer.split_once('\n') else {
        return Err(RuntimeError::Ended(format!("no answer: {answer:?}")));
    };
    Ok((code.parse().expect("a code"), output.to_owned()))
}

/// Runs a shell script inside.
pub(super) async fn sh(sandbox: &dyn Sandbox, user: u32, script: &str) -> (i32, String) {
    let script = script.replace('\n', "; ");
    run(sandbox, user, &["/bin/sh", "-c", &script])
        .await
        .expect("the sandbox lives")
}

/// What a shell script inside prints; it must succeed.
pub(super) async fn out(sandbox: &dyn Sandbox, user: u32, script: &str) -> String {
    let (code, output) = sh(sandbox, user, script).await;
    assert_eq!(code, 0, "{script}: {output}");
    output.trim_end().to_owned()
}

/// The outcome of a probe inside: 0, an error number, or the negative signal that ended it.
pub(super) async fn probe_inside(sandbox: &dyn Sandbox, user: u32, name: &str) -> i32 {
    let (code, output) = run(sandbox, user, &["self", "probe", name])
        .await
        .expect("the sandbox lives");
    if code == 0 {
        output.trim().parse().unwrap_or_else(|_| panic!("{name}: {output}"))
    } else {
        code
    }
}

/// The outcome of a probe on the host.
pub(super) fn probe_outside(name: &str) -> i32 {
    outside(&["probe", name])
}

/// The test program could not even write.
const SILENT: i32 = -1001;

/// What the test program says on the host when it is asked this.
pub(super) fn outside(arguments: &[&str]) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(probe_program())
        .args(arguments)
        .current_dir(folder.path())
        .output()
        .expect("the probe runs");
    if output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.is_empty() {
            SILENT
        } else {
            said.trim().parse().expect("a number")
        }
    } else {
        -output.status.signal().unwrap_or(1000)
    }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says what could not be checked here.
pub(super) fn skip(what: &str) {
    eprintln!("not checked on this machine: {what}");
}

/// Whether root exists inside on this machine.
pub(super) fn has_root(engine: &Engine) -> bool {
    let can = engine.info().can_switch_user;
    if !can {
        skip("root inside: this user has no sub-ids");
    }
    can
}
