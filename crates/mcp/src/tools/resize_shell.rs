//! `resize_shell`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shell_report;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ResizeShell;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Default: the last opened
    shell_id: Option<String>,
    /// At most 300
    cols: Option<u64>,
    /// At most 100
    rows: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    shell_id: String,
    cols: u32,
    rows: u32,
}

impl Tool for ResizeShell {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "resize_shell",
        title: "Resize a terminal",
        description: "Change the size of a shell's terminal; its program is told and draws anew.",
        toolset: Toolset::Shell,
        hints: Hints::ADDS_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let shell = shell_report::find(&call, p.shell_id.as_deref())?;
        let size = shell_report::size(p.cols, p.rows, shell.size())?;
        shell.resize(size).await?;
        let output = Output {
            shell_id: shell.id.clone(),
            cols: size.cols,
            rows: size.rows,
        };
        let text = format!("shell {} is {}x{} now", shell.id, size.cols, size.rows);
        Ok(Reply::new(output, text).within(shell.target.id()))
    }
}
