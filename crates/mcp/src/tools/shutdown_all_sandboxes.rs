//! `shutdown_all_sandboxes`

use futures::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ShutdownAllSandboxes;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    sandbox_id: String,
    /// `ended`, `had_ended` or `failed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    results: Vec<Row>,
}

impl Tool for ShutdownAllSandboxes {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "shutdown_all_sandboxes",
        title: "End all sandboxes",
        description: "End every sandbox made through this server for you, with their files.",
        toolset: Toolset::Sandbox,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, _: Params) -> Result<Reply<Output>, ToolError> {
        let made = call.tenant.made();
        if !made.is_empty() {
            let ids = budget::line(&made.join(", "), budget::LINE);
            call.consent(format!(
                "End all {} sandboxes, with the files in them ({ids})?",
                made.len()
            ))
            .await?;
        }
        let end = |id: String| {
            let tenant = &call.tenant;
            async move {
                let (status, message) = match tenant.kill(&id).await {
                    Ok(true) => ("ended", None),
                    Ok(false) => ("had_ended", None),
                    Err(error) => ("failed", Some(error.message)),
                };
                Row {
                    sandbox_id: id,
                    status,
                    message,
                }
            }
        };
        let results = join_all(made.into_iter().map(end)).await;
        let failed = results.iter().filter(|r| r.status == "failed").count();
        let lines: Vec<String> = results
            .iter()
            .map(|r| format!("{} {}", r.sandbox_id, r.status))
            .collect();
        let text = if lines.is_empty() {
            "there was no sandbox to end".to_owned()
        } else {
            lines.join("\n")
        };
        let reply = Reply::new(Output { results }, text);
        if failed == 0 {
            return Ok(reply);
        }
        let error = ToolError::new("partly_failed", format!("{failed} sandboxes could not be ended"));
        Ok(reply.failed(error.hint("Try again, or end them one by one with shutdown_sandbox.")))
    }
}
