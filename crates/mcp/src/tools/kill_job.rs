//! `kill_job`

use std::time::Instant;

use sandhold_client::SignalKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job_report;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    jobs::Job,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct KillJob;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Signal {
    Term,
    Kill,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    job_id: String,
    /// Default: term, then kill after 5 s
    signal: Option<Signal>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    /// False if it had ended already.
    cancelled: bool,
    status: &'static str,
}

impl Tool for KillJob {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "kill_job",
        title: "End a job",
        description: "End a job with its whole process group.",
        toolset: Toolset::Commands,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let job = call.tenant.job(&p.job_id).await?;
        let was_running = job.is_running();
        if was_running {
            match p.signal {
                Some(Signal::Kill) => signal(&job, SignalKind::Kill).await?,
                Some(Signal::Term) => signal(&job, SignalKind::Term).await?,
                None => {
                    signal(&job, SignalKind::Term).await?;
                    if job.is_running() {
                        signal(&job, SignalKind::Kill).await?;
                    }
                }
            }
        }
        let status = job.look(|s| s.status.clone());
        let text = if was_running {
            format!("job {}: {}", job.id, job_report::line(&job, &status))
        } else {
            format!("job {} had ended already: {}", job.id, job_report::line(&job, &status))
        };
        let still = job.is_running();
        let output = Output {
            cancelled: was_running && !still,
            status: status.name(),
        };
        let reply = Reply::new(output, text).within_any(job.sandbox_id());
        if !still {
            return Ok(reply);
        }
        let error = ToolError::new("still_running", format!("job {} did not end within 5 s", job.id));
        Ok(reply.failed(error.hint("Call kill_job with signal kill.")))
    }
}

/// Sends a signal and waits a while for the end.
async fn signal(job: &Job, signal: SignalKind) -> Result<(), ToolError> {
    job.signal(signal).await.map_err(|e| job.error(&e))?;
    job.ended_by(Instant::now() + limits::TERM_GRACE).await;
    Ok(())
}
