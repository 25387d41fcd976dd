//! `close_shell`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    registry::{Hints, Spec, Tool, Toolset},
    shells::Rest,
};

pub(super) struct CloseShell;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Default: the last opened
    shell_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    shell_id: String,
    /// False if it had ended already.
    closed: bool,
}

impl Tool for CloseShell {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "close_shell",
        title: "Close a terminal",
        description: "End a shell and what runs in it, and forget its output.",
        toolset: Toolset::Shell,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let shell = call.tenant.shells.get(p.shell_id.as_deref())?;
        let rest = call.tenant.shells.close(&shell).await?;
        let id = &shell.id;
        let text = match rest {
            None => format!("shell {id} had ended already"),
            Some(Rest::Killed(0)) => format!("shell {id} is closed"),
            Some(Rest::Killed(1)) => format!("shell {id} is closed; 1 program ignored the hang-up and was killed"),
            Some(Rest::Killed(n)) => format!("shell {id} is closed; {n} programs ignored the hang-up and were killed"),
            Some(Rest::Unknown) => {
                format!("shell {id} is closed; programs that ignore hang-ups may go on: see list_processes and kill")
            }
        };
        let output = Output {
            shell_id: shell.id.clone(),
            closed: rest.is_some(),
        };
        Ok(Reply::new(output, text).within(shell.target.id()))
    }
}
