//! `list_templates`

use std::fmt::Write as _;

use sandhold_client::{Template, TemplateBuildStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    errors, limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ListTemplates;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    template_id: String,
    names: Vec<String>,
    /// Of the newest build: waiting, building, ready or error.
    state: &'static str,
    /// RFC 3339.
    created_at: String,
    cpus: f64,
    memory_mb: u64,
    /// Bytes of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    templates: Vec<Row>,
    truncated: bool,
}

/// The name of a state.
fn state(status: TemplateBuildStatus) -> &'static str {
    match status {
        TemplateBuildStatus::Waiting => "waiting",
        TemplateBuildStatus::Building => "building",
        TemplateBuildStatus::Ready => "ready",
        TemplateBuildStatus::Error => "error",
    }
}

impl Row {
    fn of(template: Template) -> Self {
        let names = if template.names.is_empty() {
            template.aliases
        } else {
            template.names
        };
        Self {
            template_id: template.template_id,
            names,
            state: state(template.build_status),
            created_at: template.created_at,
            cpus: template.cpu_count,
            memory_mb: template.memory_mb,
            size: template.size_bytes,
        }
    }

    fn line(&self) -> String {
        let name = if self.names.is_empty() {
            self.template_id.clone()
        } else {
            self.names.join(", ")
        };
        let mut line = format!("{name}: {}, made {}", self.state, self.created_at);
        if let Some(size) = self.size {
            let _ = write!(line, ", {size} bytes");
        }
        line
    }
}

impl Tool for ListTemplates {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "list_templates",
        title: "List templates",
        description: "List the templates that were built, the newest first; base is always there.",
        toolset: Toolset::Templates,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, _: Params) -> Result<Reply<Output>, ToolError> {
        let found = call.client().templates(limits::TEMPLATES + 1).await;
        let mut found = found.map_err(|e| errors::explain(&e))?;
        let more = found.len() > limits::TEMPLATES;
        found.truncate(limits::TEMPLATES);
        let (templates, cut) = budget::rows(found.into_iter().map(Row::of).collect());
        let truncated = more || cut;
        let mut lines: Vec<String> = templates.iter().map(Row::line).collect();
        if templates.is_empty() {
            lines.push("no templates but base".into());
        }
        if truncated {
            lines.push("[older ones did not fit]".into());
        }
        Ok(Reply::new(Output { templates, truncated }, lines.join("\n")))
    }
}
