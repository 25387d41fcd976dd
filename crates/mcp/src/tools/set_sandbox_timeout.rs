//! `set_sandbox_timeout`

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sandbox_row;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct SetSandboxTimeout;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    timeout_s: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    end_at: String,
}

impl Tool for SetSandboxTimeout {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "set_sandbox_timeout",
        title: "Set lifetime",
        description: "End a sandbox this many seconds from now; calls no longer extend it.",
        toolset: Toolset::Sandbox,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let seconds = limits::between("timeout_s", p.timeout_s, 1, limits::SANDBOX_TIMEOUT_S)?;
        let id = call.existing(p.sandbox_id.as_deref())?;
        call.tenant.fixed(&id);
        call.client()
            .set_timeout(&id, Duration::from_secs(seconds))
            .await
            .map_err(|e| call.error(&id, &e))?;
        let detail = call.client().info(&id).await.map_err(|e| call.error(&id, &e))?;
        let end_at = sandbox_row::end_at(&detail).to_owned();
        let text = format!("sandbox {id} ends at {end_at}");
        Ok(Reply::new(Output { end_at }, text).within(&id))
    }
}
