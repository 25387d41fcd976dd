//! The test program of the engine: its launcher, an init program that runs commands, and the probes themselves.
//!
//! * `engine-probe __launcher` is the launcher;
//! * `probe-init` (its name as process 1) answers the boot message and then runs one command for each connection;
//! * `engine-probe under-policy NAME`, `engine-probe without GROUP NAME` and `engine-probe open GROUP NAME` try it under the
//!   system call policy, whole or with one group out of force;
//! * `engine-probe list FOLDER` prints what is in it;
//! * `engine-probe probe NAME` tries one thing and prints `ok` or the number of the error.
//!
//! A connection sends one line, `USER PROGRAM ARGUMENT…` separated by tabs, and reads `CODE` and a newline, then what the
//! program printed. `USER` is an id, the program `self` is this one.

#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod probes;

#[cfg(target_os = "linux")]
use sandhold_engine::{Weakened, restrict_self};

#[cfg(target_os = "linux")]
fn restricted(weakened: Weakened<'_>, name: &str) -> std::process::ExitCode {
    restrict_self(weakened).expect("the policy");
    probes::run(name)
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["probe-init", ..] => init::run(),
        [_, "__launcher"] => sandhold_engine::launcher_main(),
        [_, "probe", name, ..] => probes::run(name),
        [_, "list", folder] => list(folder),
        [_, "under-policy", name] => restricted(Weakened::Not, name),
        [_, "without", group, name] => restricted(Weakened::Without(group), name),
        [_, "open", group, name] => restricted(Weakened::Open(group), name),
        _ => std::process::ExitCode::from(2),
    }
}

/// Prints the names in a folder, for roots that have no program of their own.
#[cfg(target_os = "linux")]
fn list(folder: &str) -> std::process::ExitCode {
    use std::io::Write;
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let _ = writeln!(std::io::stdout(), "{}", names.join(" "));
    std::process::ExitCode::SUCCESS
}

#[cfg(not(target_os = "linux"))]
fn main() {}
