//! `wait_for_service_ready`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sandhold_client::ReadyQuery;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{job_report, service_report};
use crate::{
    answer::{Reply, ToolError},
    budget,
    call::{Call, Target},
    jobs::{Job, Status},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct WaitForServiceReady;

/// Seconds when none are given.
const DEFAULT_S: u64 = 30;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    port: u64,
    /// Default: /
    path: Option<String>,
    /// Default 30, at most 40
    timeout_s: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    waited_ms: u64,
}

impl Tool for WaitForServiceReady {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "wait_for_service_ready",
        title: "Wait for a server",
        description: "Wait until a port answers HTTP, whatever the status, or accepts connections.",
        toolset: Toolset::Services,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let port = limits::port(p.port)?;
        if let Some(path) = &p.path {
            limits::url_path("path", path)?;
        }
        let seconds = limits::between("timeout_s", p.timeout_s.unwrap_or(DEFAULT_S), 0, limits::WAIT_S)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let query = ReadyQuery {
            port,
            patience: match p.path {
                Some(_) => limits::ANSWER_WITHIN,
                None => limits::READY_PATIENCE,
            },
            path: p.path.unwrap_or_else(|| "/".into()),
            timeout: Duration::from_secs(seconds),
        };
        let services = target.services();
        let ready = services.ready(&query);
        let seen = tokio::select! {
            biased;
            seen = ready => seen.map_err(|e| target.error(&e))?,
            job = failed(&target, port) => return Err(told(&job, port).within(target.id())),
        };
        let output = Output {
            ready: seen.ready,
            http_status: seen.http_status,
            waited_ms: seen.waited_ms,
        };
        let took = job_report::seconds(u128::from(seen.waited_ms));
        if seen.ready {
            let how = match seen.http_status {
                Some(status) => format!("answers HTTP {status}"),
                None => "accepts connections; no HTTP answer".into(),
            };
            return Ok(Reply::new(output, format!("port {port} {how} after {took}")).within(target.id()));
        }
        let what = if seen.accepts {
            format!(
                "port {port} accepts connections, but did not answer {} within {took}",
                query.path
            )
        } else {
            format!("nothing listens on port {port} after {took}")
        };
        let error =
            ToolError::new("not_ready", what).hint("See list_jobs and get_job_status for what the server prints.");
        let others = if seen.accepts {
            String::new()
        } else {
            service_report::others(&target).await
        };
        Ok(Reply::new(output, others).within(target.id()).failed(error))
    }
}

/// The job that was started to serve the port, once it has ended without having done so; one that left a server behind has
/// ended well.
async fn failed(target: &Target, port: u16) -> Arc<Job> {
    let jobs = target.jobs().all();
    let its = |job: &&Arc<Job>| job.port == Some(port) && job.is_in(target.id());
    let ended_well = |job: &Job| job.look(|p| matches!(&p.status, Status::Done(exit) if exit.exit_code == 0));
    if let Some(job) = jobs.iter().rev().find(its).filter(|job| job.is_running())
        && job.ended_by(Instant::now() + limits::ANSWER_WITHIN).await
        && !ended_well(job)
    {
        return Arc::clone(job);
    }
    std::future::pending().await
}

fn told(job: &Job, port: u16) -> ToolError {
    let status = job.look(|p| p.status.clone());
    let how = job_report::how(job, &status);
    let head = format!("job {} ended before anything answered on port {port}: {how}", job.id);
    ToolError::new(
        "service_failed",
        job_report::text(&head, &job_report::whole(job, budget::ANSWER)),
    )
    .hint("Mend what it printed, then start it again.")
}
