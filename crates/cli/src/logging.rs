//! Logs go to stderr: stdout belongs to MCP.

use tracing_subscriber::EnvFilter;

/// Crates that log messages and bodies as they are: file contents and tokens. They stay quiet whatever is asked for.
const TALKATIVE: [&str; 7] = [
    "rmcp=off",
    "h2=warn",
    "hyper=warn",
    "hyper_util=warn",
    "reqwest=warn",
    "rustls=warn",
    "tower=warn",
];

/// Starts logging. A filter that cannot be read is replaced by `warn`, and that is said.
pub(crate) fn start(filter: &str) {
    let parsed = EnvFilter::try_new(filter);
    let bad = parsed.is_err();
    let quiet = TALKATIVE.iter().filter_map(|directive| directive.parse().ok());
    let parsed = quiet.fold(
        parsed.unwrap_or_else(|_| EnvFilter::new("warn")),
        EnvFilter::add_directive,
    );
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .with_env_filter(parsed)
        .init();
    if bad {
        tracing::warn!(filter, "SANDHOLD_LOG is not a log filter; `warn` is used");
    }
}
