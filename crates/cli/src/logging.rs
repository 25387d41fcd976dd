//! Logs go to stderr: stdout belongs to MCP.

use tracing_subscriber::EnvFilter;

/// Starts logging. A filter that cannot be read is replaced by `warn`, and that is said.
pub(crate) fn start(filter: &str) {
    let parsed = EnvFilter::try_new(filter);
    let bad = parsed.is_err();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .with_env_filter(parsed.unwrap_or_else(|_| EnvFilter::new("warn")))
        .init();
    if bad {
        tracing::warn!(filter, "SANDHOLD_LOG is not a log filter; `warn` is used");
    }
}
