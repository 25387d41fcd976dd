//! `write_line`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shell_report;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct WriteLine;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Default: the last opened
    shell_id: Option<String>,
    /// Without a newline
    line: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    shell_id: String,
}

impl Tool for WriteLine {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "write_line",
        title: "Type a line",
        description: "Type a line and Enter into a shell, then read what it does with read_shell.",
        toolset: Toolset::Shell,
        hints: Hints::RUNS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::at_most("line", p.line.len(), limits::STDIN)?;
        let shell = shell_report::find(&call, p.shell_id.as_deref())?;
        let line = p.line.strip_suffix('\n').unwrap_or(&p.line);
        // Enter sends a carriage return. What is typed ahead of a program that will read it has to hold line feeds, which
        // mean the same to those that read the lines themselves: the terminal no longer turns one into the other by then.
        let enter = if line.contains('\n') { '\n' } else { '\r' };
        let typed = format!("{line}{enter}").replace("\r\n", "\n");
        shell
            .type_in(typed.as_bytes(), Some(line.lines().last().unwrap_or_default()))
            .await?;
        let output = Output {
            shell_id: shell.id.clone(),
        };
        Ok(Reply::new(output, format!("typed into shell {}", shell.id)).within(shell.target.id()))
    }
}
