//! `sandbox_info`

use sandhold_client::{Cap, Caps, SandboxDetail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{sandbox_row, update_network::Blocked};
use crate::{
    answer::{Reply, ToolError},
    args::Pair,
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
    server::Provider,
};

pub(super) struct SandboxInfo;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Resources {
    cpus: f64,
    memory_mb: u64,
    disk_mb: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inodes: Option<u64>,
    /// Of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_files: Option<u64>,
    /// Of all commands together.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_bytes_per_s: Option<u64>,
    /// Commands and jobs at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<u64>,
    /// Of a job's output that is kept for late readers, for each stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_bytes: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Reach {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_internet_access: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow_out: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deny_out: Vec<String>,
    /// `none`, `allowlist` or `public`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// What was refused, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<Blocked>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Held {
    level: String,
    detail: String,
    warnings: Vec<String>,
}

/// Everything that is known of a sandbox.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Output {
    template: String,
    state: &'static str,
    started_at: String,
    end_at: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<Pair>,
    resources: Resources,
    network: Reach,
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    isolation: Option<Held>,
    cannot: Vec<String>,
    /// Of a paused one: bytes that its files take on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_bytes: Option<u64>,
}

impl Tool for SandboxInfo {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "sandbox_info",
        title: "Sandbox info",
        description: "Show a sandbox's state, end, resources, network, isolation, and what its provider cannot do.",
        toolset: Toolset::Sandbox,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        // A paused sandbox is shown too, so its id is enough; only the default one may have to be made.
        let id = match (&p.sandbox_id, call.tenant.default_id()) {
            (None, None) => call.target(None).await?.id().to_owned(),
            (given, _) => call.existing(given.as_deref())?,
        };
        let detail = call.client().info(&id).await.map_err(|e| call.error(&id, &e))?;
        let mut output = describe(&detail, &call.provider);
        // An aside: where it is not told, the rest is still worth an answer.
        if let Ok(Some(state)) = call.client().network(&id, None).await {
            output.network.mode = Some(state.mode);
            let newest = state.blocked.len().saturating_sub(limits::BLOCKED_SHOWN);
            output.network.blocked = state.blocked.into_iter().skip(newest).map(Blocked::from).collect();
        }
        let text = text(&id, &output);
        Ok(Reply::new(output, text).within(&id))
    }
}

/// What is known of a sandbox, for the tool and for the resource of the same content.
pub(crate) fn describe(detail: &SandboxDetail, provider: &Provider) -> Output {
    let listed = &detail.listed;
    let network = detail.network.clone().unwrap_or_default();
    let caps = detail.limits.as_ref().map(Caps::of_rest).unwrap_or_default();
    Output {
        template: sandbox_row::template(listed),
        state: sandbox_row::state(listed.state),
        started_at: listed.started_at.clone(),
        end_at: listed.end_at.clone(),
        metadata: sandbox_row::metadata(listed),
        resources: Resources {
            cpus: listed.cpu_count,
            memory_mb: listed.memory_mb,
            disk_mb: listed.disk_size_mb,
            pids: caps.whole(Cap::Pids),
            inodes: caps.whole(Cap::Inodes),
            open_files: caps.whole(Cap::OpenFiles),
            output_bytes_per_s: caps.whole(Cap::OutputBytesPerS),
            jobs: caps.whole(Cap::Jobs),
            log_bytes: caps.whole(Cap::LogBytes),
        },
        network: Reach {
            allow_internet_access: detail.allow_internet_access,
            allow_out: network.allow_out.unwrap_or_default(),
            deny_out: network.deny_out.unwrap_or_default(),
            mode: None,
            blocked: Vec::new(),
        },
        provider: provider.name.clone(),
        isolation: detail.isolation.clone().map(|i| Held {
            level: i.level,
            detail: i.detail,
            warnings: i.warnings,
        }),
        cannot: provider.cannot.clone(),
        kept_bytes: listed.kept_bytes,
    }
}

/// The limits that not every provider tells.
fn further(r: &Resources) -> String {
    let limits = [
        (Cap::Pids, r.pids),
        (Cap::Inodes, r.inodes),
        (Cap::OpenFiles, r.open_files),
        (Cap::OutputBytesPerS, r.output_bytes_per_s),
        (Cap::Jobs, r.jobs),
        (Cap::LogBytes, r.log_bytes),
    ];
    let told = limits
        .iter()
        .filter_map(|(cap, value)| Some(format!(", {} {}", cap.name(), (*value)?)));
    told.collect()
}

fn text(id: &str, o: &Output) -> String {
    let r = &o.resources;
    let mut lines = vec![
        format!(
            "sandbox {id} ({}) is {} since {}, until {}",
            o.template, o.state, o.started_at, o.end_at
        ),
        format!(
            "{} cpus, {} MiB memory, {} MiB disk{}",
            r.cpus,
            r.memory_mb,
            r.disk_mb,
            further(r)
        ),
        format!("provider: {}", o.provider),
    ];
    if let Some(bytes) = o.kept_bytes {
        lines.push(format!(
            "its files take {bytes} bytes on disk until it is ended or resumed"
        ));
    }
    if let Some(access) = o.network.allow_internet_access {
        lines.push(format!("internet access: {}", if access { "yes" } else { "no" }));
    }
    for (list, targets) in [("allow_out", &o.network.allow_out), ("deny_out", &o.network.deny_out)] {
        if !targets.is_empty() {
            lines.push(format!("{list}: {}", targets.join(", ")));
        }
    }
    lines.extend(o.network.blocked.iter().map(Blocked::line));
    if let Some(held) = &o.isolation {
        lines.push(format!("isolation: {} ({})", held.level, held.detail));
        lines.extend(held.warnings.iter().map(|w| format!("warning: {w}")));
    }
    lines.extend(o.metadata.iter().map(|m| format!("metadata {}={}", m.name, m.value)));
    lines.extend(o.cannot.iter().map(|c| format!("not possible here: {c}")));
    lines.join("\n")
}
