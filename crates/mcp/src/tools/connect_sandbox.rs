//! `connect_sandbox`

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::sandbox_row::{self, Opened};
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ConnectSandbox;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Its id
    sandbox_id: String,
    /// Never shortens its life
    timeout_s: Option<u64>,
    set_as_default: Option<bool>,
}

impl Tool for ConnectSandbox {
    type Params = Params;
    type Output = Opened;
    const SPEC: Spec = Spec {
        name: "connect_sandbox",
        title: "Connect to a sandbox",
        description: "Attach to a sandbox. A paused one is resumed with its files.",
        toolset: Toolset::Sandbox,
        hints: Hints::ADDS_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Opened>, ToolError> {
        let timeout = match p.timeout_s {
            Some(seconds) => Some(Duration::from_secs(limits::between(
                "timeout_s",
                seconds,
                1,
                limits::SANDBOX_TIMEOUT_S,
            )?)),
            None => None,
        };
        let default = p.set_as_default.unwrap_or(false);
        let handle = call.tenant.connect(&p.sandbox_id, timeout, default).await?;
        let opened = sandbox_row::opened(&call, &p.sandbox_id).await?;
        let note = if default {
            "; it is your default sandbox now"
        } else {
            ""
        };
        let back = match handle.sandbox.resumed_from() {
            Some("filesystem") => "; its files came back, processes that ran before did not",
            Some(_) => "; it goes on where it was paused",
            None => "",
        };
        let text = format!(
            "sandbox {} runs ({}) until {}{note}{back}",
            p.sandbox_id, opened.template, opened.end_at
        );
        Ok(Reply::new(opened, text).within(&p.sandbox_id))
    }
}
