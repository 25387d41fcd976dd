//! The test program of the engine: its launcher, an init program that runs commands, and the probes themselves.
//!
//! * `engine-probe __launcher` is the launcher;
//! * `probe-init` (its name as process 1) answers the boot message and then runs one command for each connection;
//! * `engine-probe probe NAME` tries one thing and prints `ok` or the number of the error.
//!
//! A connection sends one line, `USER PROGRAM ARGUMENT…` separated by tabs, and reads `CODE` and a newline, then what the
//! program printed. `USER` is an id, the program `self` is this one.

#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod probes;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["probe-init", ..] => init::run(),
        [_, "__launcher"] => sandhold_engine::launcher_main(),
        [_, "probe", name, ..] => probes::run(name),
        _ => std::process::ExitCode::from(2),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
