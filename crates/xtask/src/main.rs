//! `cargo xtask generate` writes what can be derived from the code, `cargo xtask check` tells whether that was done, and
//! whether the crates use each other as they should.
#![forbid(unsafe_code)]

mod edges;
mod readme;
mod schemas;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask generate | check";

#[expect(clippy::print_stderr, reason = "for the person who started it")]
fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    match run(task.as_deref()) {
        Ok(said) => {
            eprintln!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Option<&str>) -> Result<String> {
    let root = root()?;
    match task {
        Some("generate") => {
            let written = schemas::generate(&root)? + usize::from(readme::generate(&root)?);
            Ok(format!("{written} files written or removed"))
        }
        Some("check") => {
            let mut faults = schemas::check(&root)?;
            faults.extend(readme::check(&root)?);
            faults.extend(edges::check(&root)?);
            if faults.is_empty() {
                return Ok("schemas, README and crate edges are as they should be".into());
            }
            bail!("{}", faults.join("\n"))
        }
        Some(other) => bail!("there is no task {other:?}; {USAGE}"),
        None => bail!(USAGE),
    }
}

/// The workspace's folder.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).context("xtask is not in a workspace")?;
    Ok(root.to_owned())
}
