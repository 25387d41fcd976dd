//! `delete_snapshot`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    consent::show,
    errors, limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct DeleteSnapshot;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Id or name
    snapshot: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    deleted: bool,
}

impl Tool for DeleteSnapshot {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "delete_snapshot",
        title: "Delete a snapshot",
        description: "Delete a snapshot for good; sandboxes made of it live on.",
        toolset: Toolset::Snapshots,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::snapshot("snapshot", &p.snapshot)?;
        call.consent(format!("Delete the snapshot {} for good?", show::path(&p.snapshot)))
            .await?;
        let deleted = call
            .client()
            .delete_snapshot(&p.snapshot)
            .await
            .map_err(|e| errors::explain(&e))?;
        let text = match deleted {
            true => format!("snapshot {} is deleted", p.snapshot),
            false => format!("there was no snapshot {}", p.snapshot),
        };
        Ok(Reply::new(Output { deleted }, text))
    }
}
