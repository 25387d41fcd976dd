//! `move_path`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct MovePath;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    from: String,
    to: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    entry: Entry,
}

impl Tool for MovePath {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "move_path",
        title: "Move or rename",
        description: "Move or rename. `to` is the new path itself, not a folder to put it in.",
        toolset: Toolset::Files,
        hints: Hints::CHANGES,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("from", &p.from)?;
        limits::path("to", &p.to)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let moved = target
            .files()
            .rename(&p.from, &p.to, None)
            .await
            .map_err(|e| target.error(&e))?;
        let entry = Entry::from(moved);
        let text = format!("moved {} to {}", p.from, entry.path);
        Ok(Reply::new(Output { entry }, text).within(target.id()))
    }
}
