//! `list_jobs`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job_report;
use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ListJobs;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    job_id: String,
    sandbox_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// None of work that is no process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    cmd: String,
    duration_ms: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    jobs: Vec<Row>,
    truncated: bool,
}

impl Tool for ListJobs {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "list_jobs",
        title: "List jobs",
        description: "List your commands in all sandboxes, newest first.",
        toolset: Toolset::Commands,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, _: Params) -> Result<Reply<Output>, ToolError> {
        let mut lines = Vec::new();
        let mut rows = Vec::new();
        for job in call.tenant.jobs.all().iter().rev() {
            let status = job.look(|p| p.status.clone());
            let cmd = budget::line(&job.cmd.replace('\n', " "), budget::COMMAND);
            lines.push(format!("{} {}: {cmd}", job.id, job_report::line(job, &status)));
            rows.push(Row {
                job_id: job.id.clone(),
                sandbox_id: job.target.id().to_owned(),
                status: status.name(),
                exit_code: job_report::exit_code(&status),
                pid: Some(job.pid()).filter(|pid| *pid > 0),
                cmd,
                duration_ms: u64::try_from(job.duration().as_millis()).unwrap_or(u64::MAX),
            });
        }
        let (jobs, truncated) = budget::rows(rows);
        lines.truncate(jobs.len());
        if truncated {
            lines.push("[older ones did not fit]".into());
        }
        let text = if lines.is_empty() {
            "no jobs".to_owned()
        } else {
            lines.join("\n")
        };
        Ok(Reply::new(Output { jobs, truncated }, text))
    }
}
