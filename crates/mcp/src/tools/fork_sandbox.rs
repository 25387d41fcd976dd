//! `fork_sandbox`

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ForkSandbox;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Default 1, at most 20
    count: Option<u64>,
    /// Default 300
    timeout_s: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<String>,
    /// Why it could not be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    forks: Vec<Row>,
}

impl Tool for ForkSandbox {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "fork_sandbox",
        title: "Fork a sandbox",
        description: "Make sandboxes that go on from this one's files, to try things side by side; it goes on, too.",
        toolset: Toolset::Snapshots,
        hints: Hints::ADDS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let count = limits::between("count", p.count.unwrap_or(1), 1, limits::FORKS)?;
        let lifetime = match p.timeout_s {
            Some(seconds) => Duration::from_secs(limits::between("timeout_s", seconds, 1, limits::SANDBOX_TIMEOUT_S)?),
            None => limits::SANDBOX_LIFETIME,
        };
        let id = call.existing(p.sandbox_id.as_deref())?;
        let count = u32::try_from(count).unwrap_or(1);
        let forks = call.tenant.fork(&id, lifetime, count, p.timeout_s.is_none()).await?;
        let rows = forks.into_iter().map(|fork| match fork {
            Ok(handle) => Row {
                sandbox_id: Some(handle.sandbox.id().to_owned()),
                message: None,
            },
            Err(error) => Row {
                sandbox_id: None,
                message: Some(error.message),
            },
        });
        let forks: Vec<Row> = rows.collect();
        let failed = forks.iter().filter(|row| row.message.is_some()).count();
        let lines = forks.iter().map(|row| match (&row.sandbox_id, &row.message) {
            (Some(fork), _) => format!("sandbox {fork} goes on from the files of {id}"),
            (None, message) => format!("not made: {}", message.as_deref().unwrap_or_default()),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let reply = Reply::new(Output { forks }, text).within(&id);
        if failed == 0 {
            return Ok(reply);
        }
        let error = ToolError::new("partly_failed", format!("{failed} of {count} forks could not be made"));
        Ok(reply.failed(error.hint("End sandboxes that are no longer needed, then fork again.")))
    }
}
