//! `sandbox_metrics`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sandhold_client::SandboxMetric;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct SandboxMetrics;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// How far back, in seconds; default: 300
    since_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Row {
    at: String,
    /// Percent of all processors together.
    cpu: f64,
    /// Bytes.
    memory: u64,
    /// Bytes.
    disk: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    samples: Vec<Row>,
    cpus: f64,
    memory_limit: u64,
    disk_limit: u64,
    /// How long its processes had to wait because the processors were used up, since its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_ms: Option<u64>,
}

impl Tool for SandboxMetrics {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "sandbox_metrics",
        title: "Sandbox metrics",
        description: "Show what a sandbox used over time: cpu in percent of all its processors, memory and disk in bytes.",
        toolset: Toolset::Processes,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let since = p.since_s.unwrap_or(limits::DEFAULT_METRICS_SINCE_S);
        let since = limits::between("since_s", since, 1, limits::METRICS_SINCE_S)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let id = target.id();
        let start = SystemTime::now()
            .checked_sub(Duration::from_secs(since))
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .and_then(|at| i64::try_from(at.as_secs()).ok());
        let mut seen = call.client().metrics(id, start).await.map_err(|e| call.error(id, &e))?;
        if seen.is_empty() {
            // Nothing was noted yet: what it uses now.
            seen.push(now(&target).await?);
        }
        // What it adds is not worth a failure.
        let limits = call
            .client()
            .limits(id, Duration::from_secs(since))
            .await
            .ok()
            .flatten();
        let last = seen.last();
        let output = Output {
            cpus: last.map_or(0.0, |m| m.cpu_count),
            memory_limit: last.map_or(0, |m| m.mem_total),
            disk_limit: last.map_or(0, |m| m.disk_total),
            samples: thinned(&seen),
            throttled_ms: limits.and_then(|report| report.throttled_ms),
        };
        let mut lines = vec![format!(
            "{} cpus, memory limit {}, disk limit {}",
            output.cpus, output.memory_limit, output.disk_limit
        )];
        if let Some(ms) = output.throttled_ms.filter(|ms| *ms > 0) {
            lines.push(format!(
                "held back for {ms} ms in all by its limit of {} cpus",
                output.cpus
            ));
        }
        lines.push("at cpu% memory disk".into());
        lines.extend(
            output
                .samples
                .iter()
                .map(|r| format!("{} {} {} {}", r.at, r.cpu, r.memory, r.disk)),
        );
        Ok(Reply::new(output, lines.join("\n")).within(id))
    }
}

async fn now(target: &crate::call::Target) -> Result<SandboxMetric, ToolError> {
    let seen = target.handle.sandbox.metrics().await.map_err(|e| target.error(&e))?;
    let at = Duration::from_secs(u64::try_from(seen.ts).unwrap_or(0).min(u64::from(u32::MAX)));
    Ok(SandboxMetric {
        timestamp: humantime::format_rfc3339_seconds(UNIX_EPOCH + at).to_string(),
        timestamp_unix: seen.ts,
        cpu_count: seen.cpu_count,
        cpu_used_pct: seen.cpu_used_pct,
        mem_used: seen.mem_used,
        mem_total: seen.mem_total,
        mem_cache: seen.mem_cache,
        disk_used: seen.disk_used,
        disk_total: seen.disk_total,
    })
}

/// At most [`limits::METRICS_ROWS`] rows; of those that fall together, the busiest stands for all.
fn thinned(seen: &[SandboxMetric]) -> Vec<Row> {
    let together = seen.len().div_ceil(limits::METRICS_ROWS).max(1);
    let busiest = |some: &[SandboxMetric]| {
        let most = some.iter().max_by(|a, b| a.cpu_used_pct.total_cmp(&b.cpu_used_pct))?;
        Some(Row {
            at: most.timestamp.clone(),
            cpu: most.cpu_used_pct,
            memory: some.iter().map(|m| m.mem_used).max()?,
            disk: some.iter().map(|m| m.disk_used).max()?,
        })
    };
    seen.chunks(together).filter_map(busiest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_survive_thinning() {
        let metric = |at: u32| SandboxMetric {
            timestamp: at.to_string(),
            timestamp_unix: at.into(),
            cpu_count: 1.0,
            cpu_used_pct: if at == 70 { 99.0 } else { 1.0 },
            mem_used: if at == 71 { 5000 } else { 10 },
            mem_total: 0,
            mem_cache: 0,
            disk_used: at.into(),
            disk_total: 0,
        };
        let seen: Vec<SandboxMetric> = (0..720).map(metric).collect();
        let rows = thinned(&seen);
        assert_eq!(rows.len(), limits::METRICS_ROWS);
        let peak = Row {
            at: "70".into(),
            cpu: 99.0,
            memory: 5000,
            disk: 71,
        };
        assert_eq!(rows[5], peak);
        assert_eq!(thinned(&seen[..3]).len(), 3);
        assert_eq!(thinned(&[]), []);
    }
}
