//! `send_stdin`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job_report;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct SendStdin;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    job_id: String,
    /// End a line with a newline
    data: String,
    close: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    sent: usize,
}

impl Tool for SendStdin {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "send_stdin",
        title: "Write to a job",
        description: "Write to a job's standard input. Read the answer with get_job_status.",
        toolset: Toolset::Commands,
        hints: Hints::RUNS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::at_most("data", p.data.len(), limits::STDIN)?;
        let job = call.tenant.job(&p.job_id).await?;
        if !job.is_running() {
            let status = job.look(|p| p.status.clone());
            let how = job_report::line(&job, &status);
            return Err(
                ToolError::new("job_ended", format!("job {} does not run: {how}", job.id)).within_any(job.sandbox_id()),
            );
        }
        let Some(target) = job.target.as_ref().filter(|_| job.takes_stdin) else {
            return Err(
                ToolError::new("no_stdin", format!("the input of job {} is closed", job.id))
                    .hint("Start it with run_command_bg to be able to write to it.")
                    .within_any(job.sandbox_id()),
            );
        };
        call.tenant.touch(&target.handle);
        let commands = target.commands();
        if !p.data.is_empty() {
            commands
                .send_stdin(job.selector(), p.data.as_bytes())
                .await
                .map_err(|e| target.error(&e))?;
        }
        let mut text = format!("sent {} bytes to job {}", p.data.len(), job.id);
        if p.close.unwrap_or(false) {
            commands
                .close_stdin(job.selector())
                .await
                .map_err(|e| target.error(&e))?;
            text.push_str(" and closed its input");
        }
        Ok(Reply::new(Output { sent: p.data.len() }, text).within(target.id()))
    }
}
