//! `pause_sandbox`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct PauseSandbox;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    state: &'static str,
}

impl Tool for PauseSandbox {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "pause_sandbox",
        title: "Pause a sandbox",
        description: "Freeze a sandbox until connect_sandbox. Its files are kept, its processes where the provider can.",
        toolset: Toolset::Sandbox,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let id = call.existing(p.sandbox_id.as_deref())?;
        let text = if call.tenant.pause(&id).await? {
            format!("sandbox {id} is paused; connect_sandbox brings it back")
        } else {
            format!("sandbox {id} was paused already; connect_sandbox brings it back")
        };
        Ok(Reply::new(Output { state: "paused" }, text).within(&id))
    }
}
