//! Errors of the client, said to a model with what to do next.

use std::error::Error as _;

use sandhold_client::Error;

use crate::answer::ToolError;

/// Says what `error` means for a model. What concerns a sandbox that has ended is said by the tenant, which knows more.
pub(crate) fn explain(error: &Error) -> ToolError {
    let (code, hint) = match error {
        Error::SandboxNotFound { .. } => (
            "sandbox_not_found",
            Some("Call list_sandboxes to see which run, or create_sandbox."),
        ),
        Error::NotFound(_) => (
            "not_found",
            Some("Check the path with path_info or list_dir; relative paths start at the user's home."),
        ),
        Error::AlreadyExists(_) => ("already_exists", None),
        Error::InvalidArgument(_) => ("invalid_argument", None),
        Error::Unauthenticated(_) => (
            "unauthenticated",
            Some("The user must check the API key the server was started with."),
        ),
        Error::RateLimited(_) => (
            "rate_limited",
            Some("End sandboxes or jobs that are no longer needed, or try again later."),
        ),
        Error::NoSpace(_) => (
            "no_space",
            Some("Free space with remove_path, or make a sandbox with a larger disk_mb."),
        ),
        Error::Timeout(_) => (
            "timeout",
            Some("Try again; if it stays so, the sandbox is overloaded: see list_jobs."),
        ),
        Error::Conflict(_) => ("conflict", Some("Look at the state with sandbox_info, then try again.")),
        Error::Unsupported(_) => ("unsupported", Some("This provider cannot do it; see sandbox_info.")),
        Error::Server { .. } => ("server_error", None),
        Error::Transport { .. } => (
            "unreachable",
            Some("Try again; if it stays so, make a new sandbox with create_sandbox."),
        ),
        _ => ("internal", None),
    };
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    let mut told = ToolError::new(code, message);
    told.hint = hint.map(str::to_owned);
    told
}

/// Refuses what cannot be the id of a sandbox.
pub(crate) fn sandbox_id(id: &str) -> Result<(), ToolError> {
    let fits = !id.is_empty() && id.len() <= 64;
    if fits && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(());
    }
    let shown: String = id.chars().take(80).collect();
    Err(
        ToolError::invalid(format!("sandbox_id is {shown:?}; an id is letters and digits"))
            .hint("Call list_sandboxes to see the ids, or leave sandbox_id out for the default sandbox."),
    )
}
