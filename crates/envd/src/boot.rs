//! The start of the daemon.

/// Runs the daemon.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
