//! Carries a process's output into its job until it ends, through broken connections.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sandhold_client::{AttachedJob, CommandEvent, Error, ExitStatus, Process, SignalKind};
use tokio::time::Instant;

use super::{Job, Status, spill::Spill};
use crate::{
    call::Target,
    limits,
    met::{self, End},
};

/// Waits before the tries to attach again.
const RETRIES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
];

/// What happened next.
enum Step {
    Event(CommandEvent),
    Deadline,
    Broken(Option<Error>),
}

/// Runs until the job has ended.
pub(super) async fn pump(job: Arc<Job>, target: Target, mut process: Process, mut spills: [Spill; 2]) {
    let deadline = job
        .timeout
        .map(|t| Instant::from_std(job.started) + t + limits::DEADLINE_GRACE);
    let status = loop {
        match next(&mut process, deadline).await {
            Step::Event(CommandEvent::Stdout(data) | CommandEvent::Pty(data)) => take(&job, &mut spills, 0, data).await,
            Step::Event(CommandEvent::Stderr(data)) => take(&job, &mut spills, 1, data).await,
            Step::Event(CommandEvent::Exited(exit)) => break ended(&job, exit),
            Step::Deadline => break deadline_passed(&job, &target, &mut process, &mut spills).await,
            Step::Broken(error) => match attach(&job, &target, error).await {
                Ok(again) => process = again,
                Err(status) => break status,
            },
        }
    };
    for spill in &mut spills {
        spill.finish(true).await;
    }
    let ran = job.started.elapsed();
    let failed = if job.ended.is_none() {
        job.look(|p| End::of(p, &status, ran))
    } else {
        None
    };
    let limit = match failed {
        Some(end) => met::find(&target, &end).await,
        None => None,
    };
    job.update(|p| {
        p.limit = limit;
        p.kept = [spills[0].kept(), spills[1].kept()];
        p.ended = Some(job.ended.unwrap_or_else(std::time::Instant::now));
        p.status = status;
    });
    target.jobs().trim_files(target.id());
}

async fn next(process: &mut Process, deadline: Option<Instant>) -> Step {
    let event = match deadline {
        Some(at) => match tokio::time::timeout_at(at, process.next()).await {
            Ok(event) => event,
            Err(_) => return Step::Deadline,
        },
        None => process.next().await,
    };
    match event {
        Some(Ok(event)) => Step::Event(event),
        Some(Err(Error::Timeout(_))) => Step::Deadline,
        Some(Err(error)) => Step::Broken(Some(error)),
        None => Step::Broken(None),
    }
}

async fn take(job: &Job, spills: &mut [Spill; 2], stream: usize, data: Bytes) {
    let spill = &mut spills[stream];
    // What must be written down: the new part, or at first all that came so far.
    let written = job.update(|p| {
        let output = if stream == 0 { &mut p.stdout } else { &mut p.stderr };
        output.push(&data);
        let total = output.total();
        if !spill.wants(total) {
            return None;
        }
        Some(if spill.sent() == 0 {
            Bytes::from(output.since(0))
        } else {
            data
        })
    });
    if let Some(data) = written {
        spill.write(data).await;
        let kept = spill.kept();
        job.update(|p| p.kept[stream] = kept);
    }
}

/// Whether the job's own deadline has passed.
fn is_late(job: &Job) -> bool {
    job.timeout.is_some_and(|timeout| job.started.elapsed() >= timeout)
}

fn ended(job: &Job, exit: ExitStatus) -> Status {
    if job.look(|p| p.cancelled) && !exit.exited {
        Status::Cancelled
    } else if is_late(job) && !exit.exited {
        Status::TimedOut
    } else {
        Status::Done(exit)
    }
}

/// The server should have killed the process; where it did not, this does. What it still said is taken along.
async fn deadline_passed(job: &Job, target: &Target, process: &mut Process, spills: &mut [Spill; 2]) -> Status {
    if !is_late(job) {
        return Status::Lost("the server gave the command up before its deadline".into());
    }
    let commands = target.commands();
    let kill = commands.signal(job.selector(), SignalKind::Kill);
    let _ = tokio::time::timeout(limits::DEADLINE_GRACE, kill).await;
    let until = Instant::now() + limits::DEADLINE_GRACE;
    while let Ok(Some(Ok(event))) = tokio::time::timeout_at(until, process.next()).await {
        match event {
            CommandEvent::Stdout(data) | CommandEvent::Pty(data) => take(job, spills, 0, data).await,
            CommandEvent::Stderr(data) => take(job, spills, 1, data).await,
            CommandEvent::Exited(_) => break,
        }
    }
    Status::TimedOut
}

/// Attaches to the process again after its stream broke.
async fn attach(job: &Job, target: &Target, error: Option<Error>) -> Result<Process, Status> {
    if let Some(Error::SandboxNotFound { .. }) = error {
        return Err(sandbox_ended(job, target));
    }
    let mut last = error.map_or_else(|| "the connection to it ended".to_owned(), |e| e.to_string());
    for wait in RETRIES {
        tokio::time::sleep(wait).await;
        let has = job.look(|p| [p.stdout.total(), p.stderr.total()]);
        match target.commands().attach(&job.id, has).await {
            Ok(AttachedJob { process, replayed }) => {
                job.update(|p| match replayed.filter(|_| job.since == 0) {
                    Some(from) => p.skip_to(from),
                    None => p.note = Some("The connection broke for a moment; some output may be missing.".into()),
                });
                return Ok(process);
            }
            Err(Error::SandboxNotFound { .. }) => return Err(sandbox_ended(job, target)),
            Err(Error::NotFound(_)) => {
                if job.look(|p| p.cancelled) {
                    return Err(Status::Cancelled);
                }
                return Err(Status::Lost(
                    "the command ended while the connection to it was broken; its exit code is unknown".into(),
                ));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(Status::Lost(format!("the connection to the command is lost: {last}")))
}

fn sandbox_ended(job: &Job, target: &Target) -> Status {
    if job.look(|p| p.cancelled) {
        return Status::Cancelled;
    }
    Status::Lost(format!("sandbox {} ended while the command ran", target.id()))
}
