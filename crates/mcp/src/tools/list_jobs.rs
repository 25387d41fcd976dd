//! `list_jobs`

use std::{cmp::Reverse, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job_report;
use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    jobs::{Found, Job, Status},
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ListJobs;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    job_id: String,
    /// None of work outside of any sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<String>,
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
        let search = call.tenant.search_jobs().await;
        let known = call.tenant.jobs.all();
        let is_known = |found: &Found| {
            known
                .iter()
                .any(|job| job.id == found.job.id && job.is_in(&found.sandbox))
        };
        let mut listed: Vec<Listed> = known.iter().rev().map(|job| own(job)).collect();
        listed.extend(search.jobs.iter().filter(|found| !is_known(found)).map(elsewhere));
        // Those of which nobody knows when they were started come last.
        listed.sort_by_key(|listed| listed.age.unwrap_or(Duration::MAX));
        listed.sort_by_key(|listed| Reverse(listed.age.is_some()));
        let (rows, mut lines): (Vec<_>, Vec<_>) = listed.into_iter().map(|l| (l.row, l.line)).unzip();
        let (jobs, truncated) = budget::rows(rows);
        lines.truncate(jobs.len());
        if truncated {
            lines.push("[older ones did not fit]".into());
        }
        if lines.is_empty() {
            lines.push("no jobs".into());
        }
        lines.extend(search.missed.iter().map(|reason| format!("[{reason}]")));
        Ok(Reply::new(Output { jobs, truncated }, lines.join("\n")))
    }
}

/// A job in the list.
struct Listed {
    row: Row,
    line: String,
    /// How long ago it was started, where that is known.
    age: Option<Duration>,
}

fn own(job: &Job) -> Listed {
    let status = job.look(|p| p.status.clone());
    let cmd = shown(&job.cmd);
    Listed {
        line: format!("{} {}: {cmd}", job.id, job_report::line(job, &status)),
        age: Some(job.started.elapsed()),
        row: Row {
            job_id: job.id.clone(),
            sandbox_id: job.sandbox_id().map(str::to_owned),
            status: status.name(),
            exit_code: job_report::exit_code(&status),
            pid: Some(job.pid()).filter(|pid| *pid > 0),
            cmd,
            duration_ms: u64::try_from(job.duration().as_millis()).unwrap_or(u64::MAX),
        },
    }
}

fn elsewhere(Found { sandbox, job }: &Found) -> Listed {
    let status = job.exit.clone().map_or(Status::Running, Status::Done);
    let ran = job.ran.unwrap_or_default();
    let cmd = shown(&job.cmd);
    Listed {
        line: format!("{} {}: {cmd}", job.id, job_report::stands(&status, ran)),
        age: job.age,
        row: Row {
            job_id: job.id.clone(),
            sandbox_id: Some(sandbox.clone()),
            status: status.name(),
            exit_code: job_report::exit_code(&status),
            pid: Some(job.pid).filter(|pid| *pid > 0),
            cmd,
            duration_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
        },
    }
}

fn shown(cmd: &str) -> String {
    budget::command(cmd)
}
