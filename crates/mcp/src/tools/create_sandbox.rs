//! `create_sandbox`

use std::time::Duration;

use sandhold_client::{Caps, CreateOptions, Network};
use schemars::JsonSchema;
use serde::Deserialize;

use super::sandbox_row::{self, Opened};
use crate::{
    answer::{Reply, ToolError},
    args::{self, Pair},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct CreateSandbox;

/// Network rules.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    /// Hosts or CIDRs
    allow_out: Option<Vec<String>>,
    deny_out: Option<Vec<String>>,
    /// Open its ports to all
    allow_public_traffic: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Or a snapshot. Default: base
    template: Option<String>,
    /// Default 300
    timeout_s: Option<u64>,
    /// Pairs to find it by
    metadata: Option<Vec<Pair>>,
    envs: Option<Vec<Pair>>,
    allow_internet_access: Option<bool>,
    network: Option<Rules>,
    cpus: Option<f64>,
    memory_mb: Option<u64>,
    disk_mb: Option<u64>,
    /// pids=64,jobs=8
    limits: Option<String>,
    set_as_default: Option<bool>,
}

impl Tool for CreateSandbox {
    type Params = Params;
    type Output = Opened;
    const SPEC: Spec = Spec {
        name: "create_sandbox",
        title: "Create a sandbox",
        description: "Make another sandbox; the default one makes itself. Without timeout_s each call gives it 300 s more.",
        toolset: Toolset::Sandbox,
        hints: Hints::ADDS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Opened>, ToolError> {
        let keep_alive = p.timeout_s.is_none();
        let default = p.set_as_default.unwrap_or(false);
        let options = options(p)?;
        let template = options.template.clone();
        let handle = match call.tenant.create(options, keep_alive, default).await {
            Err(error) if error.code == "not_found" => {
                return Err(unknown(&call, template.as_deref().unwrap_or_default(), error).await);
            }
            made => made?,
        };
        let id = handle.sandbox.id();
        let opened = sandbox_row::opened(&call, id).await?;
        let note = if default {
            "; it is your default sandbox now"
        } else {
            ""
        };
        let text = format!("sandbox {id} runs ({}) until {}{note}", opened.template, opened.end_at);
        Ok(Reply::new(opened, text).within(id))
    }
}

/// There is no such template: which there are.
async fn unknown(call: &Call, template: &str, error: ToolError) -> ToolError {
    let asked = call.client().templates(limits::TEMPLATES);
    let found = tokio::time::timeout(limits::NAMES_WAIT, asked).await;
    let found = found.ok().and_then(Result::ok).unwrap_or_default();
    let name = template.split(':').next().unwrap_or_default();
    let mut names: Vec<(f64, String)> = found
        .into_iter()
        .filter_map(|one| one.names.into_iter().chain(one.aliases).next())
        .chain(["base".to_owned()])
        .map(|known| (strsim::jaro_winkler(name, &known), known))
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names = names.into_iter().take(limits::NAMES_TOLD).map(|(_, name)| name);
    let names = names.collect::<Vec<_>>().join(", ");
    ToolError::new("template_not_found", error.message).hint(format!(
        "The nearest there are: {names}. list_templates shows all, build_template makes one."
    ))
}

fn options(p: Params) -> Result<CreateOptions, ToolError> {
    limits::metadata(p.metadata.as_deref().unwrap_or_default())?;
    limits::envs(p.envs.as_deref().unwrap_or_default())?;
    let timeout = match p.timeout_s {
        Some(seconds) => Duration::from_secs(limits::between("timeout_s", seconds, 1, limits::SANDBOX_TIMEOUT_S)?),
        None => limits::SANDBOX_LIFETIME,
    };
    if let Some(cpus) = p.cpus.filter(|c| !(c.is_finite() && *c > 0.0 && *c <= 1024.0)) {
        return Err(ToolError::invalid(format!(
            "cpus is {cpus}; more than 0 and at most 1024 is allowed"
        )));
    }
    for (argument, value) in [("memory_mb", p.memory_mb), ("disk_mb", p.disk_mb)] {
        value.map_or(Ok(0), |v| limits::between(argument, v, 16, 1 << 24))?;
    }
    if let Some(template) = &p.template {
        limits::at_most("template", template.len(), 256)?;
    }
    let network = match p.network {
        Some(rules) => {
            for (argument, list) in [("allow_out", &rules.allow_out), ("deny_out", &rules.deny_out)] {
                limits::count(argument, list.as_ref().map_or(0, Vec::len), limits::NETWORK_RULES)?;
            }
            Some(Network {
                allow_public_traffic: rules.allow_public_traffic,
                allow_out: rules.allow_out,
                deny_out: rules.deny_out,
                ..Network::default()
            })
        }
        None => None,
    };
    Ok(CreateOptions {
        template: p.template,
        timeout: Some(timeout),
        metadata: args::map(p.metadata),
        envs: args::map(p.envs),
        allow_internet_access: p.allow_internet_access,
        network,
        cpus: p.cpus,
        memory_mb: p.memory_mb,
        disk_mb: p.disk_mb,
        pause_at_timeout: false,
        limits: Caps::parse(p.limits.as_deref().unwrap_or_default())
            .map_err(|why| ToolError::invalid(format!("limits: {why}")))?,
    })
}
