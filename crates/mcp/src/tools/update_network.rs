//! `update_network`

use sandhold_client::{BlockedConnection, Network, UpdateNetwork as Rules};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct UpdateNetwork;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Names, *.names, addresses, ranges
    allow_out: Option<Vec<String>>,
    deny_out: Option<Vec<String>>,
    allow_internet_access: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    /// `none`, `allowlist` or `public`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
}

impl Tool for UpdateNetwork {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "update_network",
        title: "Change network rules",
        description: "Replace all of a sandbox's network rules while it runs; what is left out is cleared. allow_out wins over deny_out. Only these: deny_out [\"0.0.0.0/0\"].",
        toolset: Toolset::Network,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        for (argument, list) in [("allow_out", &p.allow_out), ("deny_out", &p.deny_out)] {
            limits::count(argument, list.as_ref().map_or(0, Vec::len), limits::NETWORK_RULES)?;
        }
        let id = call.existing(p.sandbox_id.as_deref())?;
        let rules = Rules {
            network: Network {
                allow_out: p.allow_out,
                deny_out: p.deny_out,
                ..Network::default()
            },
            allow_internet_access: p.allow_internet_access,
        };
        let client = call.client();
        client
            .update_network(&id, &rules)
            .await
            .map_err(|e| call.error(&id, &e))?;
        let state = client.network(&id, None).await.ok().flatten();
        let mode = state.map(|state| state.mode);
        let text = match mode.as_deref() {
            Some("none") => "the rules were replaced; the sandbox reaches nothing",
            Some("allowlist") => "the rules were replaced; the sandbox reaches only what allow_out names",
            Some("public") => "the rules were replaced; the sandbox reaches the internet, but for what deny_out names",
            _ => "the rules were replaced",
        };
        Ok(Reply::new(Output { mode }, text).within(&id))
    }
}

/// What a command was refused, as tools show it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Blocked {
    host: String,
    port: u16,
    /// `tcp`, `udp` or `dns`.
    protocol: String,
    rule: String,
    remedy: String,
}

impl From<BlockedConnection> for Blocked {
    fn from(one: BlockedConnection) -> Self {
        Self {
            host: one.host,
            port: one.port,
            protocol: one.protocol,
            rule: one.rule,
            remedy: one.remedy,
        }
    }
}

impl Blocked {
    /// One line for a model.
    pub(super) fn line(&self) -> String {
        let Self {
            host,
            port,
            protocol,
            rule,
            remedy,
        } = self;
        let what = match (protocol.as_str(), port) {
            ("dns", _) | (_, 0) => format!("the name {host}"),
            ("udp", port) => format!("{host}:{port} (UDP)"),
            (_, port) => format!("{host}:{port}"),
        };
        format!("the sandbox's network blocked {what}: {rule}; {remedy}")
    }
}
