//! `run_in_all_sandboxes`

use std::time::Duration;

use futures::{StreamExt, stream};
use sandhold_client::CommandRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    job_report,
    run_command::{KillOnDrop, feed},
};
use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    jobs::{Start, Status},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct RunInAllSandboxes;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    Python,
    Javascript,
    Bash,
}

impl Language {
    /// The command that takes the code on its standard input, in a login shell so that its PATH counts.
    fn command(self) -> &'static str {
        match self {
            Self::Python => "exec python3 -",
            Self::Javascript => "exec node -",
            Self::Bash => "exec bash -s",
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    code: String,
    /// Default: python
    language: Option<Language>,
    /// Default 60
    timeout_each_s: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    sandbox_id: String,
    /// `done`, `running`, `error`, `cancelled` or `not_started`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stdout: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Row {
    fn failed(sandbox_id: String, status: &'static str, message: String) -> Self {
        Self {
            sandbox_id,
            status,
            exit_code: None,
            stdout: String::new(),
            stderr: String::new(),
            job_id: None,
            message: Some(message),
        }
    }

    fn is_good(&self) -> bool {
        self.status == "running" || self.exit_code == Some(0)
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}", self.sandbox_id, self.status);
        if let Some(code) = self.exit_code {
            text.push_str(&format!(", exit code {code}"));
        }
        if let Some(id) = self.job_id.as_ref().filter(|_| self.status == "running") {
            text.push_str(&format!(" as job {id}"));
        }
        for part in [self.message.as_deref().unwrap_or_default(), &self.stdout, &self.stderr] {
            let part = part.trim_end();
            if !part.is_empty() {
                text.push('\n');
                text.push_str(part);
            }
        }
        text
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    results: Vec<Row>,
}

impl Tool for RunInAllSandboxes {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "run_in_all_sandboxes",
        title: "Run everywhere",
        description: "Run the same code in each of your sandboxes, side by side.",
        toolset: Toolset::Sandbox,
        hints: Hints::RUNS,
        limited: false,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let language = p.language.unwrap_or(Language::Python);
        limits::at_most("code", p.code.len(), limits::CODE)?;
        if p.code.trim().is_empty() {
            return Err(ToolError::invalid("code is empty; there is nothing to run"));
        }
        let timeout = match p.timeout_each_s {
            Some(s) => Duration::from_secs(limits::between("timeout_each_s", s, 1, limits::COMMAND_TIMEOUT_S)?),
            None => limits::DEFAULT_COMMAND_TIMEOUT,
        };
        let ids = call.tenant.sandboxes();
        if ids.is_empty() {
            return Err(ToolError::new("no_sandbox", "you have no sandbox yet")
                .hint("Make some with create_sandbox, or take others into use with connect_sandbox."));
        }
        let max = budget::ANSWER / ids.len().max(2);
        let (call, code) = (&call, p.code.as_str());
        let results: Vec<Row> = stream::iter(ids)
            .map(|id| one(call, id, language, code, timeout, max))
            .buffered(limits::SIDE_BY_SIDE)
            .collect()
            .await;
        let (all, bad) = (results.len(), results.iter().filter(|row| !row.is_good()).count());
        let mut lines = vec![format!("{} of {all} went well", all - bad)];
        lines.extend(results.iter().map(Row::text));
        Ok(Reply::new(Output { results }, lines.join("\n")))
    }
}

/// Runs the code in one sandbox; whatever goes wrong is this one's result.
async fn one(call: &Call, id: String, language: Language, code: &str, timeout: Duration, max: usize) -> Row {
    let answer_at = call.answer_at();
    let begin = async {
        let target = call.target(Some(&id)).await?;
        let mut request = CommandRequest::shell(language.command());
        request.timeout = Some(timeout);
        request.stdin = true;
        let start = Start {
            request,
            job_id: None,
            cmd: format!("{} # run_in_all_sandboxes", language.command()),
            port: None,
        };
        call.tenant.start_job(target, start, KillOnDrop::hold(call)).await
    };
    let guard = match tokio::time::timeout_at(answer_at.into(), begin).await {
        Ok(Ok(guard)) => guard,
        Ok(Err(error)) => return Row::failed(id, "error", error.text()),
        Err(_) => {
            let waited = limits::ANSWER_WITHIN.as_secs();
            return Row::failed(
                id,
                "not_started",
                format!("the {waited} s of this call were over before its turn came"),
            );
        }
    };
    let job = std::sync::Arc::clone(guard.job());
    feed(&job, code.to_owned());
    job.ended_by(answer_at).await;
    guard.disarm();
    let status = job.look(|p| p.status.clone());
    let shown = job_report::whole(&job, max);
    let mut said = shown.notes;
    said.extend(job_report::error(&job, &status).map(|error| error.message));
    Row {
        sandbox_id: id,
        status: status.name(),
        exit_code: job_report::exit_code(&status),
        stdout: shown.stdout,
        stderr: shown.stderr,
        job_id: (status == Status::Running || shown.truncated).then(|| job.id.clone()),
        message: Some(said.join("\n")).filter(|said| !said.is_empty()),
    }
}
