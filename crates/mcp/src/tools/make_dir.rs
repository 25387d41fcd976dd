//! `make_dir`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct MakeDir;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    path: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    path: String,
    created: bool,
}

impl Tool for MakeDir {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "make_dir",
        title: "Make a folder",
        description: "Make a folder and its parents. Fine if it is there.",
        toolset: Toolset::Files,
        hints: Hints::ADDS_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let created = target
            .files()
            .make_dir(&p.path, None)
            .await
            .map_err(|e| target.error(&e))?;
        let text = if created {
            format!("made {}", p.path)
        } else {
            format!("{} stood already", p.path)
        };
        Ok(Reply::new(Output { path: p.path, created }, text).within(target.id()))
    }
}
