//! `get_job_status`

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    job_report::{self, Shown},
    update_network::Blocked,
};
use crate::{
    answer::{LimitMet, Reply, ToolError},
    budget,
    call::Call,
    jobs::{Cursor, Job, Status},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

/// How often a job that is waited for is asked whether it waits for input.
const ASK_INPUT: Duration = Duration::from_millis(500);
/// How long output may take from the sandbox's daemon to its job: a question comes with its text.
const ON_ITS_WAY: Duration = Duration::from_millis(20);

pub(super) struct GetJobStatus;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    job_id: String,
    /// At most 40
    wait_s: Option<u64>,
    /// Of the answer before
    cursor: Option<String>,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Output {
    job_id: String,
    /// running, done, error, cancelled or `not_found`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    stdout: String,
    stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    awaiting_input: Option<bool>,
    duration_ms: u64,
    /// What the sandbox's network refused meanwhile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<Blocked>,
    /// The limit of its sandbox that it met.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitMet>,
}

impl Tool for GetJobStatus {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "get_job_status",
        title: "Read a job",
        description: "Read what a job printed since cursor, and how it stands. With wait_s it answers once the job ends or waits for input.",
        toolset: Toolset::Commands,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let wait = limits::between("wait_s", p.wait_s.unwrap_or(0), 0, limits::WAIT_S)?;
        let cursor = Cursor::decode(p.cursor.as_deref())?;
        let job = match call.tenant.job(&p.job_id).await {
            Ok(job) => job,
            Err(error) if error.code == "job_not_found" => {
                let output = Output {
                    job_id: budget::line(&p.job_id, limits::JOB_ID),
                    status: "not_found",
                    ..Output::default()
                };
                return Ok(Reply::new(output, "").failed(error));
            }
            Err(error) => return Err(error),
        };
        if let Some(target) = &job.target {
            call.tenant.touch(&target.handle);
        }
        let latest = call.answer_at() - limits::ANSWER_MARGIN;
        let awaiting = watch(&job, latest.min(Instant::now() + Duration::from_secs(wait))).await;
        let blocked = job_report::blocked(&job).await;
        Ok(answer(&job, cursor.within(job.since), awaiting, blocked))
    }
}

/// Waits for the job's end, for it to want input, or for the deadline. Tells whether it wants input, where that is known.
async fn watch(job: &Job, deadline: Instant) -> Option<bool> {
    loop {
        if !job.is_running() {
            return None;
        }
        // Without an open standard input there is nothing to wait for.
        let awaiting = match job.target.as_ref().filter(|_| job.takes_stdin) {
            Some(target) => target.commands().awaiting_input(job.pid()).await.ok().flatten(),
            None => None,
        };
        let now = Instant::now();
        if awaiting == Some(true) {
            job.ended_by(now + ON_ITS_WAY).await;
            return job.is_running().then_some(true);
        }
        if now >= deadline {
            return awaiting;
        }
        let until = if awaiting.is_some() {
            deadline.min(now + ASK_INPUT)
        } else {
            deadline
        };
        job.ended_by(until).await;
    }
}

fn answer(job: &Job, cursor: Cursor, awaiting: Option<bool>, blocked: Vec<Blocked>) -> Reply<Output> {
    let (status, shown, next, more) = job.look(|p| {
        let ended = p.status != Status::Running;
        let left = |total: u64, at: u64| total.saturating_sub(at);
        let (for_out, for_err) = budget::share(
            left(p.stdout.total(), cursor.stdout),
            left(p.stderr.total(), cursor.stderr),
            budget::ANSWER,
        );
        let out = p.stdout.page(cursor.stdout, for_out, ended);
        let err = p.stderr.page(cursor.stderr, for_err, ended);
        let mut notes = Vec::new();
        for (name, page, output, kept) in [
            ("stdout", &out, &p.stdout, &p.kept[0]),
            ("stderr", &err, &p.stderr, &p.kept[1]),
        ] {
            if page.skipped > 0 {
                let rest = job_report::where_kept(output, kept.as_ref());
                notes.push(format!(
                    "{} bytes of {name} before this are not shown. {rest}",
                    page.skipped
                ));
            }
        }
        let next = Cursor {
            stdout: out.next,
            stderr: err.next,
            since: job.since,
        };
        let more = out.more || err.more;
        if more {
            let left = left(p.stdout.total(), out.next) + left(p.stderr.total(), err.next);
            let files: Vec<&str> = p.kept.iter().flatten().map(|k| k.path.as_str()).collect();
            let files = if files.is_empty() {
                String::new()
            } else {
                format!(", or see {} in the sandbox", files.join(" and "))
            };
            notes.push(format!(
                "{left} bytes more: call again with cursor {:?}{files}.",
                next.encode()
            ));
        }
        notes.extend(p.note.clone());
        (
            p.status.clone(),
            Shown {
                stdout: out.text,
                stderr: err.text,
                notes,
                truncated: more,
            },
            next,
            more,
        )
    });
    let mut head = format!("job {}: {}", job.id, job_report::line(job, &status));
    if awaiting == Some(true) {
        head.push_str("; it waits for input: use send_stdin");
    }
    let limit = job_report::limit(job);
    if let Some(met) = &limit {
        head.push_str(&format!(". {}", met.text()));
    }
    if status == Status::Running && !more {
        head.push_str(&format!("; next cursor {:?}", next.encode()));
    }
    let mut shown = shown;
    shown.notes.extend(blocked.iter().map(Blocked::line));
    let text = job_report::text(&head, &shown);
    let output = Output {
        job_id: job.id.clone(),
        status: status.name(),
        exit_code: job_report::exit_code(&status),
        stdout: shown.stdout,
        stderr: shown.stderr,
        cursor: Some(next.encode()),
        more,
        awaiting_input: awaiting,
        duration_ms: u64::try_from(job.duration().as_millis()).unwrap_or(u64::MAX),
        blocked,
        limit: limit.and_then(|met| met.limit),
    };
    // A job that was cancelled or lost was told so; asking about it is not a failure.
    let artifacts = if more { job_report::artifacts(job) } else { Vec::new() };
    Reply::new(output, text)
        .within_any(job.sandbox_id())
        .artifacts(artifacts)
}
