//! A job as several tools show it.

use std::{fmt::Write as _, time::Duration};

use sandhold_client::BlockedConnection;

use super::update_network::Blocked;
use crate::{
    answer::{Artifact, ToolError},
    budget,
    jobs::{Job, Kept, Output, Status},
    limits,
};

/// Output of a job, cut to one answer, with what a reader should know about it.
pub(super) struct Shown {
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) notes: Vec<String>,
    pub(super) truncated: bool,
}

/// What the network refused while the job ran. Over a network it is asked for only where something seems to have gone wrong.
pub(super) async fn blocked(job: &Job) -> Vec<Blocked> {
    let quiet = job.look(|p| matches!(&p.status, Status::Done(exit) if exit.exit_code == 0) && p.stderr.total() == 0);
    let Some(target) = job.target.as_ref().filter(|target| !quiet || target.is_near()) else {
        return Vec::new();
    };
    let blocked = target.blocked(job.started.elapsed()).await;
    let ended = job.look(|p| p.ended);
    let since_end = ended.map_or(Duration::ZERO, |at| at.elapsed().saturating_sub(limits::BLOCKED_GRACE));
    let during = |one: &BlockedConnection| Duration::from_millis(one.ago_ms) >= since_end;
    let mut blocked: Vec<Blocked> = blocked.into_iter().filter(during).map(Blocked::from).collect();
    blocked.drain(..blocked.len().saturating_sub(limits::BLOCKED_SHOWN));
    blocked
}

/// The files with a job's output.
pub(super) fn artifacts(job: &Job) -> Vec<Artifact> {
    let Some(id) = job.sandbox_id() else { return Vec::new() };
    let of = |kept: &Kept| Artifact::new(id, &kept.path, kept.bytes);
    job.look(|p| p.kept.iter().flatten().map(of).collect())
}

/// The whole output of a job in at most `max` bytes, each stream with its beginning and its end.
pub(super) fn whole(job: &Job, max: usize) -> Shown {
    job.look(|p| {
        let (for_out, for_err) = budget::share(p.stdout.total(), p.stderr.total(), max);
        let mut notes = Vec::new();
        let mut show = |name: &str, output: &Output, max: usize, kept: Option<&Kept>| {
            let view = output.view(max);
            if view.cut > 0 {
                notes.push(format!(
                    "{} bytes of {name} are not shown. {}",
                    view.cut,
                    where_kept(output, kept)
                ));
            }
            view.text
        };
        let stdout = show("stdout", &p.stdout, for_out, p.kept[0].as_ref());
        let stderr = show("stderr", &p.stderr, for_err, p.kept[1].as_ref());
        let truncated = !notes.is_empty();
        notes.extend(p.note.clone());
        Shown {
            stdout,
            stderr,
            notes,
            truncated,
        }
    })
}

/// Where the rest of an output is.
pub(super) fn where_kept(output: &Output, kept: Option<&Kept>) -> String {
    match kept {
        Some(kept) if kept.complete => format!("All of it is in {} in the sandbox.", kept.path),
        Some(kept) => format!(
            "The first {} MiB at most are in {} in the sandbox.",
            limits::SPILL >> 20,
            kept.path
        ),
        None if output.lost() == 0 => "get_job_status reads all of it.".to_owned(),
        None => "There is no file of it (any more).".to_owned(),
    }
}

/// The text of an answer: how it stands, then what it printed.
pub(super) fn text(head: &str, shown: &Shown) -> String {
    let mut text = head.to_owned();
    for note in &shown.notes {
        let _ = write!(text, "\n{note}");
    }
    for (name, output) in [("stdout", &shown.stdout), ("stderr", &shown.stderr)] {
        if !output.is_empty() {
            let _ = write!(text, "\n{name}:\n{}", output.trim_end_matches('\n'));
        }
    }
    text
}

/// The exit code that a shell would show.
pub(super) fn exit_code(status: &Status) -> Option<i32> {
    match status {
        Status::Done(exit) => Some(exit.exit_code),
        _ => None,
    }
}

/// One line on how a job stands.
pub(super) fn line(job: &Job, status: &Status) -> String {
    stands(status, job.duration())
}

/// The same, with the limit of its sandbox that it met.
pub(super) fn how(job: &Job, status: &Status) -> String {
    match limit(job) {
        Some(met) => format!("{}; {}", line(job, status), met.message),
        None => line(job, status),
    }
}

/// One line on how a job stands that ran so long.
pub(super) fn stands(status: &Status, ran: Duration) -> String {
    let took = seconds(ran.as_millis());
    match status {
        Status::Running => format!("running for {took}"),
        Status::Done(exit) if exit.exited => format!("exit code {} after {took}", exit.exit_code),
        Status::Done(exit) => format!("ended by {} after {took}", exit.status),
        Status::Cancelled => format!("cancelled after {took}"),
        Status::TimedOut => format!("killed at its deadline after {took}"),
        Status::Lost(reason) => format!("lost after {took}: {reason}"),
    }
}

/// The error of a command that neither ended by itself nor runs, or that met a limit.
pub(super) fn error(job: &Job, status: &Status) -> Option<ToolError> {
    let error = match status {
        Status::Running => return None,
        Status::Done(_) => return limit(job),
        Status::Cancelled => ToolError::new("cancelled", "the command was cancelled; its process group was killed"),
        Status::TimedOut => {
            let deadline = job.timeout.unwrap_or_default().as_secs();
            let timeout = ToolError::new(
                "timeout",
                format!("the command was killed at its deadline of {deadline} s, with its whole process group"),
            )
            .hint("Give a longer timeout_s, or use run_command_bg.");
            match limit(job) {
                None => timeout,
                Some(met) => ToolError {
                    message: format!("{}; {}", timeout.message, met.message),
                    hint: met.hint.or(timeout.hint),
                    limit: met.limit,
                    ..timeout
                },
            }
        }
        Status::Lost(reason) => ToolError::new("lost", reason.clone())
            .hint("See sandbox_info; if the sandbox has ended, leave sandbox_id out or call create_sandbox."),
    };
    Some(error)
}

/// The limit of its sandbox that a command met which failed.
pub(super) fn limit(job: &Job) -> Option<ToolError> {
    job.look(|p| p.limit.clone())
}

/// `0.013 s`
pub(super) fn seconds(millis: u128) -> String {
    format!("{}.{:03} s", millis / 1000, millis % 1000)
}
