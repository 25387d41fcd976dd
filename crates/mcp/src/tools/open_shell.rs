//! `open_shell`

use sandhold_client::{CommandRequest, PtySize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shell_report;
use crate::{
    answer::{Reply, ToolError},
    args::{self, Pair, User},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
    shells::Open,
};

/// The size of a terminal unless told.
const SIZE: PtySize = PtySize {
    cols: limits::DEFAULT_SHELL_COLS,
    rows: limits::DEFAULT_SHELL_ROWS,
};

pub(super) struct OpenShell;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Default: 100
    cols: Option<u64>,
    /// Default: 30
    rows: Option<u64>,
    /// Default: the home
    cwd: Option<String>,
    /// Environment
    envs: Option<Vec<Pair>>,
    /// Default: user
    user: Option<User>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    shell_id: String,
    pid: u32,
}

impl Tool for OpenShell {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "open_shell",
        title: "Open a terminal",
        description: "Open bash in a terminal, for programs that need one. It is the default shell_id from then on.",
        toolset: Toolset::Shell,
        hints: Hints::RUNS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let size = shell_report::size(p.cols, p.rows, SIZE)?;
        if let Some(cwd) = &p.cwd {
            limits::path("cwd", cwd)?;
        }
        limits::envs(p.envs.as_deref().unwrap_or_default())?;
        let mut envs = args::map(p.envs);
        // As E2B's SDKs have it: without a language that knows UTF-8, programs draw question marks.
        for (name, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8")] {
            envs.entry(name.into()).or_insert_with(|| value.into());
        }
        let request = CommandRequest {
            cmd: "/bin/bash".into(),
            args: vec!["-i".into(), "-l".into()],
            envs,
            cwd: p.cwd,
            user: p.user.map(User::name),
            ..CommandRequest::default()
        };
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let shell = call.tenant.open_shell(target.clone(), Open { request, size }).await?;
        let text = format!(
            "shell {} is open, {}x{}; type with write_line, look with read_shell",
            shell.id, size.cols, size.rows
        );
        let output = Output {
            shell_id: shell.id.clone(),
            pid: shell.pid(),
        };
        Ok(Reply::new(output, text).within(target.id()))
    }
}
