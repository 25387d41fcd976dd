//! `service_diagnostics`

use std::fmt::Write as _;

use sandhold_client::{Busy, EntryType, Error, Listener, ReadOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{job_report, service_report};
use crate::{
    answer::{Reply, ToolError},
    budget,
    call::{Call, Target},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ServiceDiagnostics;

/// Where servers leave their logs.
const FOLDER: &str = "/tmp";
/// How deep below it.
const DEPTH: u32 = 2;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    port: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    port: u16,
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Worker {
    pid: u32,
    cpu_pct: f64,
    memory_mb: u64,
    command: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Log {
    name: String,
    tail: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    listening: Vec<Row>,
    busiest: Vec<Worker>,
    logs: Vec<Log>,
}

impl Tool for ServiceDiagnostics {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "service_diagnostics",
        title: "Diagnose servers",
        description: "See who listens where, the busiest processes, and the ends of job output and of /tmp/*.log.",
        toolset: Toolset::Services,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let port = p.port.map(limits::port).transpose()?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let services = target.services();
        let (ports, files) = tokio::join!(services.ports(port, limits::BUSIEST), file_logs(&target));
        let ports = ports.map_err(|e| target.error(&e))?;
        let mut logs = job_logs(&target, port.map(|_| ports.listening.as_slice()));
        logs.extend(files);
        let (logs, _) = budget::rows(logs);
        let text = render(&target, port, &ports.listening, &ports.busiest, &logs);
        let (listening, _) = budget::rows(ports.listening.into_iter().map(|l| row(&target, l)).collect());
        let output = Output {
            listening,
            busiest: ports.busiest.into_iter().map(worker).collect(),
            logs,
        };
        Ok(Reply::new(output, text.trim_end()).within(target.id()))
    }
}

fn row(target: &Target, listener: Listener) -> Row {
    Row {
        job_id: service_report::job_of(target, &listener),
        port: listener.port,
        addresses: listener.addresses,
        pid: listener.pid,
        command: budget::command(&listener.command),
    }
}

fn worker(busy: Busy) -> Worker {
    Worker {
        pid: busy.pid,
        cpu_pct: busy.cpu_pct,
        memory_mb: busy.memory >> 20,
        command: budget::command(&busy.command),
    }
}

/// The end of what the latest jobs printed, those that serve `listening` alone where it is given and any does.
fn job_logs(target: &Target, listening: Option<&[Listener]>) -> Vec<Log> {
    let mut jobs = target.jobs().all();
    // Work that is no process has nothing to do with servers.
    jobs.retain(|job| job.is_in(target.id()) && job.pid() != 0);
    let serves = |job: &crate::jobs::Job| listening.is_some_and(|l| l.iter().any(|l| service_report::belongs(job, l)));
    if jobs.iter().any(|job| serves(job)) {
        jobs.retain(|job| serves(job));
    }
    // The newest come last, and of all those the servers that run.
    jobs.sort_by_key(|job| job.port.is_some() && job.is_running());
    let latest = jobs.iter().rev().take(limits::LOGS);
    let log = |job: &std::sync::Arc<crate::jobs::Job>| {
        let (status, tail) = job.look(|p| {
            let mut tail = String::new();
            for output in [&p.stdout, &p.stderr] {
                let from = output.total().saturating_sub(limits::LOG_TAIL as u64);
                tail.push_str(&last_lines(&output.since(from), from > 0));
            }
            (p.status.clone(), tail)
        });
        let command = budget::command(&job.cmd);
        Log {
            name: format!("job {} ({command}; {})", job.id, job_report::line(job, &status)),
            tail,
        }
    };
    latest.map(log).collect()
}

/// The ends of the log files that were written to last. A sandbox that shows none of them has none.
async fn file_logs(target: &Target) -> Vec<Log> {
    let files = target.files();
    let mut found = match files.list(FOLDER, DEPTH, None).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "the logs were not found");
            return Vec::new();
        }
    };
    found.retain(|entry| entry.kind == EntryType::File && entry.name.ends_with(".log"));
    found.sort_by(|a, b| b.modified.cmp(&a.modified));
    found.truncate(limits::LOGS);
    let mut logs = Vec::new();
    for entry in found {
        let from = entry.size.saturating_sub(limits::LOG_TAIL as u64);
        let tail = match entry.size {
            0 => String::new(),
            _ => read_end(target, &entry.path, from)
                .await
                .unwrap_or_else(|error| format!("[it cannot be read: {error}]")),
        };
        logs.push(Log { name: entry.path, tail });
    }
    logs
}

async fn read_end(target: &Target, path: &str, from: u64) -> Result<String, Error> {
    let options = ReadOptions {
        range: Some((from, limits::LOG_TAIL as u64)),
        ..ReadOptions::default()
    };
    let bytes = target.files().read(path, options, limits::READ_TAIL).await?;
    Ok(last_lines(&bytes, from > 0))
}

/// Whole lines where it is known that the first one is cut.
fn last_lines(bytes: &[u8], cut: bool) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.split_once('\n').filter(|_| cut) {
        Some((_, rest)) if !rest.is_empty() => rest.to_owned(),
        _ => text.into_owned(),
    }
}

fn render(target: &Target, port: Option<u16>, listening: &[Listener], busiest: &[Busy], logs: &[Log]) -> String {
    let mut text = match (port, listening.is_empty()) {
        (Some(port), true) => format!("Nothing listens on port {port}.\n"),
        (None, true) => "Nothing listens.\n".into(),
        _ => format!("Listening:\n{}", service_report::listing(target, listening)),
    };
    text.push_str("Busiest:\n");
    for busy in busiest {
        let command = budget::command(&busy.command);
        let _ = writeln!(
            text,
            "pid {}: {} % cpu, {} MiB, {command}",
            busy.pid,
            busy.cpu_pct,
            busy.memory >> 20
        );
    }
    for Log { name, tail } in logs {
        let _ = writeln!(text, "--- {name}\n{}", tail.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_left_out() {
        assert_eq!(last_lines(b"ab\ncd\n", true), "cd\n");
        assert_eq!(last_lines(b"ab\ncd\n", false), "ab\ncd\n");
        assert_eq!(last_lines(b"abcd\n", true), "abcd\n");
    }
}
