//! `run_command`

use std::{sync::Arc, time::Duration};

use sandhold_client::{CommandRequest, SignalKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    job_report::{self, Shown},
    update_network::Blocked,
};
use crate::{
    answer::{Reply, ToolError},
    args::{self, Pair, User},
    budget,
    call::{Call, Target},
    jobs::{Cursor, Job, Start, Status},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct RunCommand;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Run by bash -l -c
    cmd: String,
    cwd: Option<String>,
    envs: Option<Vec<Pair>>,
    user: Option<User>,
    /// It is killed then; default 60
    timeout_s: Option<u64>,
    stdin: Option<String>,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Output {
    stdout: String,
    stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    duration_ms: u64,
    truncated: bool,
    /// Of a command that still runs, or whose output was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    /// Where `get_job_status` reads on.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// What the sandbox's network refused meanwhile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<Blocked>,
}

impl Tool for RunCommand {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "run_command",
        title: "Run a command",
        description: "Run a shell command. After 45 s it goes on as a job: read it with get_job_status. For long work use run_command_bg.",
        toolset: Toolset::Commands,
        hints: Hints::RUNS,
        limited: false,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let timeout = match p.timeout_s {
            Some(seconds) => Duration::from_secs(limits::between("timeout_s", seconds, 1, limits::COMMAND_TIMEOUT_S)?),
            None => limits::DEFAULT_COMMAND_TIMEOUT,
        };
        let stdin = p.stdin.as_deref().unwrap_or_default();
        limits::at_most("stdin", stdin.len(), limits::STDIN)?;
        let mut start = start(p.cmd, p.cwd, p.envs, p.user)?;
        start.request.timeout = Some(timeout);
        start.request.stdin = !stdin.is_empty();
        let answer_at = call.answer_at();
        let begin = async {
            let target = call.target(p.sandbox_id.as_deref()).await?;
            let guard = call
                .tenant
                .start_job(target.clone(), start, KillOnDrop::hold(&call))
                .await?;
            Ok((target, guard))
        };
        let begun = tokio::time::timeout_at(answer_at.into(), begin).await;
        let (target, guard) = begun.unwrap_or_else(|_| {
            Err(ToolError::new("timeout", "the sandbox did not start the command in time").hint("Try again."))
        })?;
        let job = Arc::clone(guard.job());
        if !stdin.is_empty() {
            feed(&job, stdin.to_owned());
        }
        wait(&call, &job, answer_at).await;
        guard.disarm();
        let blocked = job_report::blocked(&job).await;
        Ok(answer(&job, &target, blocked))
    }
}

/// The request for a command with these arguments.
pub(super) fn start(
    cmd: String,
    cwd: Option<String>,
    envs: Option<Vec<Pair>>,
    user: Option<User>,
) -> Result<Start, ToolError> {
    limits::cmd(&cmd)?;
    limits::envs(envs.as_deref().unwrap_or_default())?;
    if let Some(cwd) = &cwd {
        limits::path("cwd", cwd)?;
    }
    let mut request = CommandRequest::shell(cmd.as_str());
    request.envs = args::map(envs);
    request.cwd = cwd;
    request.user = user.map(User::name);
    Ok(Start {
        request,
        job_id: None,
        cmd,
        port: None,
    })
}

/// Gives a command its input, as slowly as it takes it and for as long as it runs. One that ends without reading it is not
/// an error.
pub(super) fn feed(job: &Arc<Job>, data: String) {
    let job = Arc::clone(job);
    tokio::spawn(async move {
        let Some(target) = &job.target else { return };
        let commands = target.commands();
        let patience = job.timeout.unwrap_or(limits::DEFAULT_COMMAND_TIMEOUT) + limits::DEADLINE_GRACE;
        let fed = tokio::select! {
            fed = commands.feed(job.selector(), data.as_bytes(), patience) => fed,
            true = job.ended_by(std::time::Instant::now() + patience) => return,
        };
        if let Err(error) = fed
            && job.is_running()
        {
            job.note(format!("Its standard input was not given to it whole: {error}"));
            // It should not wait for what does not come; that this fails, too, says nothing new.
            let _ = commands.close_stdin(job.selector()).await;
        }
    });
}

/// Waits for the end of the command or the time to answer, and tells progress meanwhile.
async fn wait(call: &Call, job: &Job, answer_at: std::time::Instant) {
    let Some(progress) = &call.progress else {
        job.ended_by(answer_at).await;
        return;
    };
    loop {
        let next = std::time::Instant::now() + limits::PROGRESS_EVERY;
        if job.ended_by(next.min(answer_at)).await || next >= answer_at {
            return;
        }
        let line = job.look(|p| {
            let line = p.stdout.last_line();
            if line.is_empty() { p.stderr.last_line() } else { line }
        });
        progress.tell(call.started.elapsed().as_secs_f64(), &line).await;
    }
}

fn answer(job: &Job, target: &Target, blocked: Vec<Blocked>) -> Reply<Output> {
    // The cursor first: what comes between the two looks is shown twice rather than never.
    let (status, cursor) = job.look(|p| {
        (
            p.status.clone(),
            Cursor {
                stdout: p.stdout.total(),
                stderr: p.stderr.total(),
                since: job.since,
            },
        )
    });
    let mut shown = job_report::whole(job, budget::ANSWER);
    shown.notes.extend(blocked.iter().map(Blocked::line));
    let running = status == Status::Running;
    let mut head = job_report::line(job, &status);
    if running {
        head = format!(
            "still running as job {}; call get_job_status with its job_id and cursor {:?} for what comes, kill_job to end it",
            job.id,
            cursor.encode()
        );
    }
    let text = job_report::text(&head, &shown);
    let Shown {
        stdout,
        stderr,
        truncated,
        ..
    } = shown;
    let output = Output {
        stdout,
        stderr,
        exit_code: job_report::exit_code(&status),
        duration_ms: u64::try_from(job.duration().as_millis()).unwrap_or(u64::MAX),
        truncated,
        job_id: (running || truncated).then(|| job.id.clone()),
        cursor: running.then(|| cursor.encode()),
        blocked,
    };
    let artifacts = if truncated {
        job_report::artifacts(job)
    } else {
        Vec::new()
    };
    let reply = Reply::new(output, text).within(target.id()).artifacts(artifacts);
    match job_report::error(job, &status) {
        Some(error) => reply.failed(error),
        None => reply,
    }
}

/// Kills the command of a call that is cancelled: its future is dropped then.
pub(super) struct KillOnDrop {
    job: Arc<Job>,
    armed: bool,
    closing: CancellationToken,
}

impl KillOnDrop {
    /// Guards the work of a call.
    pub(super) fn new(call: &Call, job: &Arc<Job>) -> Self {
        Self::hold(call)(Arc::clone(job))
    }

    /// Guards a command from the moment it runs: for `Tenant::start_job`.
    pub(super) fn hold(call: &Call) -> impl FnOnce(Arc<Job>) -> Self + Send + 'static {
        let closing = call.closing.clone();
        move |job| Self {
            job,
            armed: true,
            closing,
        }
    }

    pub(super) fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// The command may go on.
    pub(super) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // A server that ends leaves what runs to whoever owns the sandbox.
        if !self.armed || self.closing.is_cancelled() {
            return;
        }
        let job = Arc::clone(&self.job);
        tokio::spawn(async move {
            if let Err(error) = job.signal(SignalKind::Kill).await {
                tracing::warn!(job = job.id, %error, "a cancelled command was not killed");
            }
        });
    }
}
