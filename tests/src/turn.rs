//! Who may run at the same time: every test beside every other, but for those that count what the machine holds.

use std::{env, fs::File, path::PathBuf};

use anyhow::{Context, Result};

fn lock_file() -> Result<File> {
    let path: PathBuf = env::temp_dir().join(format!("sandhold-tests-{}.lock", rustix::process::getuid().as_raw()));
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))
}

/// A turn beside others; ends when dropped.
///
/// # Errors
/// The lock could not be had.
pub fn shared() -> Result<File> {
    let file = lock_file()?;
    file.lock_shared()?;
    Ok(file)
}

/// A turn of one's own; ends when dropped.
///
/// # Errors
/// The lock could not be had.
pub fn alone() -> Result<File> {
    let file = lock_file()?;
    file.lock()?;
    Ok(file)
}
