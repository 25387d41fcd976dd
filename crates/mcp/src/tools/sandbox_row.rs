//! A sandbox as several tools show it.

use sandhold_client::{ListedSandbox, SandboxDetail, State};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{answer::ToolError, args::Pair, call::Call};

/// What making or attaching to a sandbox answers with.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Opened {
    pub(crate) template: String,
    /// RFC 3339.
    pub(crate) end_at: String,
    pub(crate) state: &'static str,
}

/// Looks at a sandbox that was just opened.
pub(crate) async fn opened(call: &Call, id: &str) -> Result<Opened, ToolError> {
    let detail = call.client().info(id).await.map_err(|e| call.error(id, &e))?;
    Ok(Opened {
        template: template(&detail.listed),
        end_at: detail.listed.end_at,
        state: state(detail.listed.state),
    })
}

/// The name of a state.
pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Paused => "paused",
    }
}

/// The template's name, or its id where it has none.
pub(crate) fn template(listed: &ListedSandbox) -> String {
    listed.alias.clone().unwrap_or_else(|| listed.template_id.clone())
}

/// Metadata as pairs.
pub(crate) fn metadata(listed: &ListedSandbox) -> Vec<Pair> {
    let pairs = listed.metadata.iter().flatten();
    pairs
        .map(|(name, value)| Pair {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

/// When it ends, for messages.
pub(crate) fn end_at(detail: &SandboxDetail) -> &str {
    &detail.listed.end_at
}
