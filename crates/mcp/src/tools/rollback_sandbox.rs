//! `rollback_sandbox`

use sandhold_client::{Back, Error};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    consent::show,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct RollbackSandbox;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Id or name
    snapshot: Option<String>,
    /// checkpoint_id of an answer
    checkpoint: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    rolled_back_to: String,
}

impl Tool for RollbackSandbox {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "rollback_sandbox",
        title: "Roll back",
        description: "Make a sandbox's files those of a snapshot or checkpoint; give one. What was written since is lost, and its processes end.",
        toolset: Toolset::Snapshots,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let (kind, name, back) = match (p.snapshot, p.checkpoint) {
            (Some(name), None) => ("snapshot", name.clone(), Back::Snapshot(name)),
            (None, Some(name)) => ("checkpoint", name.clone(), Back::Checkpoint(name)),
            _ => return Err(ToolError::invalid("exactly one of snapshot and checkpoint is needed")),
        };
        limits::snapshot(kind, &name)?;
        let id = call.existing(p.sandbox_id.as_deref())?;
        let question = format!(
            "Take the files of sandbox {id} back to {kind} {}? What was written since is lost, and its processes end.",
            show::path(&name)
        );
        call.consent(question).await?;
        // With undo on, the answer names the way back from here, too.
        let target = call.target(Some(&id)).await?;
        call.client().roll_back(target.id(), back).await.map_err(|error| {
            let told = call.error(&id, &error);
            match error {
                Error::NotFound(_) => told.hint("list_snapshots shows the snapshots; answers name the checkpoints."),
                _ => told,
            }
        })?;
        let text = format!("the files of sandbox {id} are those of {kind} {name}; its processes have ended");
        Ok(Reply::new(Output { rolled_back_to: name }, text).within(&id))
    }
}
