//! `send_keys`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shell_report;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct SendKeys;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Default: the last opened
    shell_id: Option<String>,
    /// In order
    keys: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    shell_id: String,
}

impl Tool for SendKeys {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "send_keys",
        title: "Press keys",
        description: "Press keys in a shell: ctrl+c, alt+x, up, pagedown, f5, enter, escape, tab, a single character; text:abc types abc.",
        toolset: Toolset::Shell,
        hints: Hints::RUNS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        if p.keys.is_empty() {
            return Err(ToolError::invalid(
                "keys is empty; at least one key is needed, for example enter",
            ));
        }
        limits::count("keys", p.keys.len(), limits::KEYS)?;
        let shell = shell_report::find(&call, p.shell_id.as_deref())?;
        let typed = shell.keys(&p.keys)?;
        shell.type_in(&typed, None).await?;
        let output = Output {
            shell_id: shell.id.clone(),
        };
        let text = format!("pressed {} keys in shell {}", p.keys.len(), shell.id);
        Ok(Reply::new(output, text).within(shell.target.id()))
    }
}
