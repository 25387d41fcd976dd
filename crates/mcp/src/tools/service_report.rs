//! Servers of a sandbox as several tools show them.

use std::fmt::Write as _;

use sandhold_client::Listener;

use crate::{budget, call::Target, jobs::Job};

/// Who listens: `pid 12 (python3 -m http.server)`, with the job it belongs to.
pub(super) fn holder(target: &Target, listener: &Listener) -> String {
    let Some(pid) = listener.pid else {
        return "a process that cannot be told".into();
    };
    let mut text = format!("pid {pid}");
    if !listener.command.is_empty() {
        let _ = write!(text, " ({})", budget::command(&listener.command));
    }
    if let Some(job) = job_of(target, listener) {
        let _ = write!(text, ", job {job}");
    }
    text
}

/// The job whose process leads the session of the one that listens.
pub(super) fn job_of(target: &Target, listener: &Listener) -> Option<String> {
    let jobs = target.jobs().all();
    let is_its = |job: &&std::sync::Arc<Job>| job.is_in(target.id()) && belongs(job, listener);
    jobs.iter().rev().find(is_its).map(|job| job.id.clone())
}

/// Whether a listener belongs to a job.
pub(super) fn belongs(job: &Job, listener: &Listener) -> bool {
    let pid = job.pid();
    pid != 0 && (listener.session == Some(pid) || listener.pid == Some(pid))
}

/// One line for each: `8000 on 127.0.0.1: pid 12 (…)`.
pub(super) fn listing(target: &Target, listening: &[Listener]) -> String {
    let mut text = String::new();
    for listener in listening {
        let _ = writeln!(
            text,
            "{} on {}: {}",
            listener.port,
            listener.addresses.join(" and "),
            holder(target, listener)
        );
    }
    text
}

/// What listens, for an answer about a port on which nothing does.
pub(super) async fn others(target: &Target) -> String {
    match target.services().ports(None, 0).await {
        Ok(ports) if ports.listening.is_empty() => "Nothing listens in the sandbox.".into(),
        Ok(ports) => format!("What listens:\n{}", listing(target, &ports.listening))
            .trim_end()
            .to_owned(),
        Err(error) => {
            tracing::debug!(%error, "nobody could tell what listens");
            String::new()
        }
    }
}
