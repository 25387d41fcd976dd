//! `create_snapshot`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct CreateSnapshot;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    name: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    snapshot_id: String,
    names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

impl Tool for CreateSnapshot {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "create_snapshot",
        title: "Take a snapshot",
        description: "Keep a sandbox's files as they are now; it goes on. create_sandbox takes the snapshot_id as template. A name used again passes to the new one.",
        toolset: Toolset::Snapshots,
        hints: Hints::ADDS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        if let Some(name) = &p.name {
            limits::at_most("name", name.len(), limits::SNAPSHOT_NAME)?;
        }
        let id = call.existing(p.sandbox_id.as_deref())?;
        let taken = call
            .client()
            .create_snapshot(&id, p.name)
            .await
            .map_err(|e| call.error(&id, &e))?;
        let size = taken
            .size_bytes
            .map_or_else(String::new, |bytes| format!(", {bytes} bytes beside its template"));
        let text = format!(
            "snapshot {} of sandbox {id}{size}; create_sandbox with template {0:?} makes sandboxes of it, rollback_sandbox goes \
             back to it",
            taken.snapshot_id
        );
        let output = Output {
            snapshot_id: taken.snapshot_id,
            names: taken.names,
            size: taken.size_bytes,
        };
        Ok(Reply::new(output, text).within(&id))
    }
}
