//! `shutdown_sandbox`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ShutdownSandbox;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    /// `ended` or `had_ended`.
    status: &'static str,
}

impl Tool for ShutdownSandbox {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "shutdown_sandbox",
        title: "End a sandbox",
        description: "End a sandbox for good, with its processes and files.",
        toolset: Toolset::Sandbox,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let id = call.existing(p.sandbox_id.as_deref())?;
        let (status, text) = if call.tenant.kill(&id).await? {
            ("ended", format!("sandbox {id} is ended; its files are gone"))
        } else {
            ("had_ended", format!("sandbox {id} had ended already"))
        };
        Ok(Reply::new(Output { status }, text).within(&id))
    }
}
