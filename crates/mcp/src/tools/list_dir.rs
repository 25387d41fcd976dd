//! `list_dir`

use sandhold_client::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ListDir;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Which folder; . is the home
    path: String,
    /// Default 1, at most 16
    depth: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    entries: Vec<Entry>,
    truncated: bool,
}

impl Tool for ListDir {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "list_dir",
        title: "List a folder",
        description: "List entries with type, size, mode and time, hidden ones too.",
        toolset: Toolset::Files,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let depth = limits::between("depth", p.depth.unwrap_or(1), 1, limits::DEPTH)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let depth = u32::try_from(depth).unwrap_or(1);
        let listed = target.files().list(&p.path, depth, None).await.map_err(|e| match e {
            Error::RateLimited(text) if text.contains("entries") => ToolError::new("too_many_entries", text)
                .hint("Use search_files with mode name and a pattern, or run_command with ls and head.")
                .within(target.id()),
            e => target.error(&e),
        })?;
        let total = listed.len();
        let (entries, truncated) = budget::rows(listed.into_iter().map(Entry::from).collect());
        let mut lines: Vec<String> = entries.iter().map(Entry::line).collect();
        if total == 0 {
            lines.push(format!("{} is empty", p.path));
        }
        if truncated {
            lines.push(format!(
                "[{} of {total} entries; use a smaller depth, a folder inside, or search_files]",
                entries.len()
            ));
        }
        Ok(Reply::new(Output { entries, truncated }, lines.join("\n")).within(target.id()))
    }
}
