//! `run_command_bg`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run_command::start;
use crate::{
    answer::{Reply, ToolError},
    args::{Pair, User},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct RunCommandBg;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    cmd: String,
    cwd: Option<String>,
    envs: Option<Vec<Pair>>,
    user: Option<User>,
    /// A name of your own
    job_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    job_id: String,
    pid: u32,
}

impl Tool for RunCommandBg {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "run_command_bg",
        title: "Start a job",
        description: "Start a shell command as a job without a deadline. Read it with get_job_status, end it with kill_job.",
        toolset: Toolset::Commands,
        hints: Hints::RUNS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let mut start = start(p.cmd, p.cwd, p.envs, p.user)?;
        if let Some(id) = &p.job_id {
            limits::job_id(id)?;
        }
        start.job_id = p.job_id;
        start.request.stdin = true;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let job = call.tenant.start_job(target.clone(), start, |job| job).await?;
        let text = format!("job {} runs (pid {}); read it with get_job_status", job.id, job.pid());
        Ok(Reply::new(
            Output {
                job_id: job.id.clone(),
                pid: job.pid(),
            },
            text,
        )
        .within(target.id()))
    }
}
