//! Finding the daemon that runs inside every sandbox: `sandhold-envd`, beside this program, of the same version.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use sandhold_gateway::daemon_version;

const NAME: &str = "sandhold-envd";

/// The daemon's file, after checking that it is there and of this version.
pub(crate) fn find() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program's file is")?;
    let folder = own.parent().context("this program's file is in no folder")?;
    let path = folder.join(NAME);
    check(&path)?;
    Ok(path)
}

fn check(path: &Path) -> Result<()> {
    let remedy = "`cargo install sandhold` installs both programs; keep them in one folder";
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "the sandboxes' daemon {NAME} is not beside sandhold: {} does not exist. {remedy}",
                path.display()
            );
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the sandboxes' daemon {}", path.display()));
        }
    };
    let ours = env!("CARGO_PKG_VERSION");
    match daemon_version(&bytes) {
        Some(version) if version == ours => Ok(()),
        Some(version) => bail!(
            "sandhold is version {ours}, but the sandboxes' daemon {} is version {version}. {remedy}",
            path.display()
        ),
        None => bail!(
            "{} is not Sandhold's daemon of version {ours}. {remedy}",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let message = |path: &Path| format!("{:#}", check(path).unwrap_err());
        assert!(message(&path).contains("does not exist"));
        fs::write(&path, "#!/bin/sh").unwrap();
        assert!(message(&path).contains("is not Sandhold's daemon"));
        fs::write(&path, "..sandhold-envd version=0.0.9;..").unwrap();
        assert!(message(&path).contains("is version 0.0.9"));
        fs::write(
            &path,
            concat!("..sandhold-envd version=", env!("CARGO_PKG_VERSION"), ";.."),
        )
        .unwrap();
        check(&path).unwrap();
    }
}
