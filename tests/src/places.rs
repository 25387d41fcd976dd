//! Where the programs, the scripts and the foreign clients are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The program under test: what `SANDHOLD_BIN` names, or what the same build put beside this test.
///
/// # Errors
/// It was not built.
pub fn sandhold() -> Result<PathBuf> {
    let path = match env::var_os("SANDHOLD_BIN") {
        Some(path) => PathBuf::from(path),
        // A test's program lies in `target/…/debug/deps`.
        None => env::current_exe()
            .context("finding this test's own program")?
            .ancestors()
            .nth(2)
            .map(|folder| folder.join("sandhold"))
            .context("this test's program lies in no build folder")?,
    };
    ensure!(
        path.is_file(),
        "{} is missing: run `cargo build -p sandhold` first",
        path.display()
    );
    Ok(path)
}

/// The server in Rust that scenarios start inside sandboxes: it lies beside the program under test.
///
/// # Errors
/// It was not built.
pub fn server() -> Result<PathBuf> {
    let path = sandhold()?.with_file_name("sandhold-test-server");
    ensure!(
        path.is_file(),
        "{} is missing: run `cargo build -p sandhold-tests --bins` first",
        path.display()
    );
    Ok(path)
}

/// The folder `tests/` of the sources, or a copy of it that `SANDHOLD_TEST_DIR` names.
#[must_use]
pub fn tests() -> PathBuf {
    env::var_os("SANDHOLD_TEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// The folder of the foreign clients that `tests/run.sh` installed.
#[must_use]
pub fn cache() -> PathBuf {
    match env::var_os("SANDHOLD_TEST_CACHE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache"),
    }
}

fn installed(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{} is missing: run `bash tests/run.sh` once, it installs it",
        path.display()
    );
    Ok(path)
}

/// The Python of one of the virtual environments: `venv` (mcp 2), `venv-v1` (mcp 1), `venv-agents` (stacks on mcp 2).
///
/// # Errors
/// It was not installed.
pub fn python(venv: &str) -> Result<PathBuf> {
    installed(cache().join(venv).join("bin/python"))
}

/// Node 22: the Inspector and the conformance suite need it, Debian 12 has 18.
///
/// # Errors
/// It was not installed.
pub fn node() -> Result<PathBuf> {
    let cpu = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    installed(cache().join(format!("node/node_modules/node-linux-{cpu}/bin/node")))
}

/// A file of an npm package.
///
/// # Errors
/// It was not installed.
pub fn node_module(file: &str) -> Result<PathBuf> {
    installed(cache().join("node/node_modules").join(file))
}
