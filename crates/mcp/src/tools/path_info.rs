//! `path_info`

use sandhold_client::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct PathInfo;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    path: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<Entry>,
}

impl Tool for PathInfo {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "path_info",
        title: "Look at a path",
        description: "Tell whether a path exists, its type, size, mode, owner and time.",
        toolset: Toolset::Files,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let entry = match target.files().info(&p.path, None).await {
            Ok(entry) => Some(Entry::from(entry)),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(target.error(&error)),
        };
        let text = match &entry {
            Some(e) => format!("{} ({}, mode {}, owner {})", e.line(), e.kind, e.mode, e.owner),
            None => format!("{} does not exist", p.path),
        };
        Ok(Reply::new(
            Output {
                exists: entry.is_some(),
                entry,
            },
            text,
        )
        .within(target.id()))
    }
}
