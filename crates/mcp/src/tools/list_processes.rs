//! `list_processes`

use std::time::{Duration, UNIX_EPOCH};

use sandhold_client::ProcessRow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ListProcesses;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    pid: u32,
    ppid: u32,
    user: String,
    /// Percent of one processor.
    cpu: f64,
    /// Bytes.
    memory: u64,
    started: String,
    command: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    processes: Vec<Row>,
    truncated: bool,
}

impl Tool for ListProcesses {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "list_processes",
        title: "List processes",
        description: "List all processes of a sandbox, the busiest first: cpu in percent of one processor, memory in bytes.",
        toolset: Toolset::Processes,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let mut list = target.commands().processes().await.map_err(|e| target.error(&e))?;
        list.processes.sort_by(|a, b| {
            b.cpu
                .total_cmp(&a.cpu)
                .then(b.memory.cmp(&a.memory))
                .then(a.pid.cmp(&b.pid))
        });
        let (processes, cut) = budget::rows(list.processes.into_iter().map(row).collect());
        let truncated = cut || list.truncated;
        let mut lines = vec!["pid ppid user cpu% memory started command".to_owned()];
        lines.extend(processes.iter().map(|r| {
            format!(
                "{} {} {} {} {} {} {}",
                r.pid, r.ppid, r.user, r.cpu, r.memory, r.started, r.command
            )
        }));
        if truncated {
            lines.push("[more did not fit; those are less busy]".into());
        }
        Ok(Reply::new(Output { processes, truncated }, lines.join("\n")).within(target.id()))
    }
}

fn row(row: ProcessRow) -> Row {
    let since = Duration::from_secs(u64::try_from(row.started).unwrap_or(0).min(u64::from(u32::MAX)));
    Row {
        pid: row.pid,
        ppid: row.ppid,
        user: budget::line(&row.user, 32),
        cpu: row.cpu,
        memory: row.memory,
        started: humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string(),
        command: budget::command(&row.command),
    }
}
