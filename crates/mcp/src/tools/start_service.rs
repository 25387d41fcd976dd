//! `start_service`

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sandhold_client::{Listener, Readiness, ReadyQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    job_report,
    run_command::{KillOnDrop, start},
    service_report,
};
use crate::{
    answer::{Reply, ToolError},
    args::Pair,
    budget,
    call::{Call, Target},
    jobs::{Job, Status},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct StartService;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Stays in the foreground
    cmd: String,
    port: u64,
    cwd: Option<String>,
    envs: Option<Vec<Pair>>,
    /// Default: /
    ready_path: Option<String>,
    /// Default 60
    ready_timeout_s: Option<u64>,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Output {
    job_id: String,
    pid: u32,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stdout: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stderr: String,
}

/// How waiting for a server ended.
enum End {
    Ready(Readiness),
    /// Its command ended before.
    Ended,
    /// All the time that was given has passed.
    Late(Readiness),
    /// The answer is due before that.
    Due(Readiness),
}

impl Tool for StartService {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "start_service",
        title: "Start a server",
        description: "Start a server as a job, wait until it answers and get its URL.",
        toolset: Toolset::Services,
        hints: Hints::RUNS,
        limited: false,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let port = limits::port(p.port)?;
        if let Some(path) = &p.ready_path {
            limits::url_path("ready_path", path)?;
        }
        let timeout = match p.ready_timeout_s {
            Some(seconds) => {
                Duration::from_secs(limits::between("ready_timeout_s", seconds, 1, limits::READY_TIMEOUT_S)?)
            }
            None => limits::DEFAULT_READY_TIMEOUT,
        };
        let mut start = start(p.cmd, p.cwd, p.envs, None)?;
        start.port = Some(port);
        let due = call.answer_at() - limits::READY_REPORT;
        let begin = async {
            let target = call.target(p.sandbox_id.as_deref()).await?;
            refuse_taken(&target, port).await?;
            let guard = call
                .tenant
                .start_job(target.clone(), start, KillOnDrop::hold(&call))
                .await?;
            Ok((target, guard))
        };
        let begun = tokio::time::timeout_at(due.into(), begin).await;
        let (target, guard) = begun.unwrap_or_else(|_| {
            Err(ToolError::new("timeout", "the sandbox did not start the command in time").hint("Try again."))
        })?;
        let job = std::sync::Arc::clone(guard.job());
        // Of calls side by side one has the port; the guard ends the others.
        if let Some(earlier) = earlier(&target, &job) {
            return Err(ToolError::new(
                "port_in_use",
                format!("job {earlier} was started to serve port {port} and still runs"),
            )
            .hint(format!("End it with kill_job {earlier}, or take another port."))
            .within(target.id()));
        }
        let query = Query {
            port,
            path: p.ready_path,
            deadline: Instant::now() + timeout,
            due,
        };
        let end = query.wait(&target, &job).await?;
        guard.disarm();
        Ok(match end {
            End::Ready(_) if !job.is_running() && !ended_well(&job) => failed(&target, &job, port, None).await,
            End::Ready(seen) => ready(&call, &target, &job, port, seen).await,
            End::Due(seen) => not_yet(&target, &job, port, seen),
            End::Ended => failed(&target, &job, port, None).await,
            End::Late(seen) => failed(&target, &job, port, Some((seen, timeout))).await,
        })
    }
}

/// Refuses a port that something listens on already: it would be taken for the new server.
async fn refuse_taken(target: &Target, port: u16) -> Result<(), ToolError> {
    let ports = target
        .services()
        .ports(Some(port), 0)
        .await
        .map_err(|e| target.error(&e))?;
    let Some(listener) = ports.listening.first() else {
        return Ok(());
    };
    let mend = match service_report::job_of(target, listener) {
        Some(job) => format!("End it with kill_job {job}, or take another port."),
        None => match listener.pid {
            Some(pid) => format!("End it with run_command \"kill {pid}\", or take another port."),
            None => "Take another port.".into(),
        },
    };
    let message = format!("port {port} is taken by {}", service_report::holder(target, listener));
    Err(ToolError::new("port_in_use", message).hint(mend).within(target.id()))
}

/// A job that was started before for the same port and runs.
fn earlier(target: &Target, job: &Job) -> Option<String> {
    let jobs = target.jobs().all();
    let before = jobs.iter().take_while(|other| other.id != job.id);
    let mut same = before.filter(|other| other.is_in(target.id()) && other.port == job.port && other.is_running());
    same.next().map(|other| other.id.clone())
}

struct Query {
    port: u16,
    /// As given: an answer to it is waited for. Without one a server may speak something else.
    path: Option<String>,
    deadline: Instant,
    due: Instant,
}

impl Query {
    async fn wait(&self, target: &Target, job: &Job) -> Result<End, ToolError> {
        let until = self.deadline.min(self.due);
        let seen = self.ready_by(until, target);
        tokio::pin!(seen);
        let seen = tokio::select! {
            biased;
            seen = &mut seen => seen?,
            true = job.ended_by(until + limits::READY_REPORT) => {
                if !ended_well(job) {
                    return Ok(End::Ended);
                }
                // It may have left the server behind.
                let detached = Instant::now() + limits::READY_DETACHED;
                match tokio::time::timeout_at(detached.into(), seen).await {
                    Ok(seen) => seen?,
                    Err(_) => return Ok(End::Ended),
                }
            }
        };
        Ok(if seen.ready {
            End::Ready(seen)
        } else if self.deadline <= self.due {
            End::Late(seen)
        } else {
            End::Due(seen)
        })
    }

    async fn ready_by(&self, until: Instant, target: &Target) -> Result<Readiness, ToolError> {
        let query = ReadyQuery {
            port: self.port,
            path: self.path.clone().unwrap_or_else(|| "/".into()),
            timeout: until.saturating_duration_since(Instant::now()),
            patience: match self.path {
                Some(_) => limits::ANSWER_WITHIN,
                None => limits::READY_PATIENCE,
            },
        };
        target.services().ready(&query).await.map_err(|e| target.error(&e))
    }
}

fn ended_well(job: &Job) -> bool {
    job.look(|p| matches!(&p.status, Status::Done(exit) if exit.exit_code == 0))
}

async fn ready(call: &Call, target: &Target, job: &Arc<Job>, port: u16, seen: Readiness) -> Reply<Output> {
    let (url, reach) = match call.url(target, port).await {
        Ok((url, reach)) => (Some(url), reach.to_owned()),
        Err(error) => (None, error.text()),
    };
    let how = match seen.http_status {
        Some(status) => format!("HTTP {status}"),
        None => "it accepts connections; no HTTP answer".into(),
    };
    let place = url.clone().unwrap_or_else(|| format!("port {port}"));
    let text = format!(
        "ready after {}: {place} ({how}); job {}, pid {}\n{reach}",
        job_report::seconds(job.duration().as_millis()),
        job.id,
        job.pid(),
    );
    let output = Output {
        ready: true,
        url,
        http_status: seen.http_status,
        ..about(job)
    };
    Reply::new(output, text).within(target.id())
}

fn about(job: &Job) -> Output {
    Output {
        job_id: job.id.clone(),
        pid: job.pid(),
        ..Output::default()
    }
}

fn not_yet(target: &Target, job: &Arc<Job>, port: u16, seen: Readiness) -> Reply<Output> {
    let what = if seen.accepts {
        "accepts connections, but has not answered yet"
    } else {
        "does not listen yet"
    };
    let head = format!(
        "port {port} {what}; it goes on as job {}: call wait_for_service_ready, or get_job_status for what it prints",
        job.id
    );
    let shown = job_report::whole(job, budget::ANSWER);
    let text = job_report::text(&head, &shown);
    let output = Output {
        stdout: shown.stdout,
        stderr: shown.stderr,
        ..about(job)
    };
    Reply::new(output, text).within(target.id())
}

/// `late` is what was seen of a server that still runs, and how long it was waited for.
async fn failed(target: &Target, job: &Arc<Job>, port: u16, late: Option<(Readiness, Duration)>) -> Reply<Output> {
    let status = job.look(|p| p.status.clone());
    let listening = match target.services().ports(None, 0).await {
        Ok(ports) => ports.listening,
        Err(error) => {
            tracing::debug!(%error, "nobody could tell what listens");
            Vec::new()
        }
    };
    let error = match late {
        Some((seen, timeout)) => still_silent(job, port, seen, timeout, &listening),
        None => {
            let how = job_report::how(job, &status);
            let message = format!("the command ended before anything answered on port {port}: {how}");
            let taker = listening
                .iter()
                .find(|l| l.port == port && !service_report::belongs(job, l));
            let error = ToolError::new("service_failed", message);
            match taker {
                Some(l) => error.hint(format!(
                    "Meanwhile the port is taken by {}.",
                    service_report::holder(target, l)
                )),
                None if ended_well(job) => {
                    error.hint("The command must stay in the foreground: no & behind it, no daemon option.")
                }
                None => error.hint("Mend what it printed, then start it again."),
            }
        }
    };
    let shown = job_report::whole(job, budget::ANSWER);
    let text = job_report::text("", &shown);
    let output = Output {
        exit_code: job_report::exit_code(&status),
        stdout: shown.stdout,
        stderr: shown.stderr,
        ..about(job)
    };
    Reply::new(output, text.trim_start()).within(target.id()).failed(error)
}

fn still_silent(job: &Job, port: u16, seen: Readiness, timeout: Duration, listening: &[Listener]) -> ToolError {
    let what = if seen.accepts {
        format!("accepts connections on port {port}, but did not answer")
    } else {
        format!("does not listen on port {port}")
    };
    let message = format!("job {} runs and {what} after {} s", job.id, timeout.as_secs());
    let elsewhere: Vec<String> = listening
        .iter()
        .filter(|l| l.port != port && service_report::belongs(job, l))
        .map(|l| format!("{} ({})", l.port, l.addresses.join(" and ")))
        .collect();
    let hint = if elsewhere.is_empty() {
        format!(
            "See what it printed; kill_job {} ends it, wait_for_service_ready waits on.",
            job.id
        )
    } else {
        format!(
            "It listens on port {}: use that one with get_public_url, or kill_job {} and start it on {port}.",
            elsewhere.join(", "),
            job.id
        )
    };
    ToolError::new("not_ready", message).hint(hint)
}
