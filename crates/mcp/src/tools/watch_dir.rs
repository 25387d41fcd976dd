//! `watch_dir`

use sandhold_client::EntryType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct WatchDir;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Folder
    path: String,
    /// Folders below it, too
    recursive: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    watch_id: String,
    path: String,
}

impl Tool for WatchDir {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "watch_dir",
        title: "Watch a folder",
        description: "Keep note of what changes in a folder from now on, for get_watch_events.",
        toolset: Toolset::Watch,
        // Nothing changes in the sandbox; each call is another watch.
        hints: Hints {
            idempotent: false,
            ..Hints::READS
        },
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        // For the absolute path, and for a refusal that says more than the watch's own.
        let entry = target.files().info(&p.path, None).await.map_err(|e| target.error(&e))?;
        if matches!(entry.kind, EntryType::File | EntryType::Other) {
            return Err(ToolError::invalid(format!("{} is no folder", entry.path))
                .hint("Watch the folder that it is in.")
                .within(target.id()));
        }
        let watch = call
            .tenant
            .watch(target.clone(), entry.path, p.recursive.unwrap_or(false))
            .await?;
        let text = format!("watching {}: watch {}", watch.path, watch.id);
        let output = Output {
            watch_id: watch.id.clone(),
            path: watch.path.clone(),
        };
        Ok(Reply::new(output, text).within(target.id()))
    }
}
