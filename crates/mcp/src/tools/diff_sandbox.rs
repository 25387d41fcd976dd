//! `diff_sandbox`

use std::fmt::Write as _;

use sandhold_client::{ChangeKind, Error, FileKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct DiffSandbox;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Snapshot or checkpoint. Default: its creation
    since: Option<String>,
    /// Default 200, at most 1000
    limit: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    path: String,
    /// `added`, `changed` or `removed`.
    change: &'static str,
    /// `file`, `dir`, `symlink` or `other`.
    r#type: &'static str,
    size: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    changes: Vec<Row>,
    truncated: bool,
}

impl Tool for DiffSandbox {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "diff_sandbox",
        title: "What changed",
        description: "List the files that were added, changed or removed in a sandbox.",
        toolset: Toolset::Snapshots,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let limit = limits::between("limit", p.limit.unwrap_or(limits::CHANGES), 1, limits::CHANGES_MOST)?;
        if let Some(since) = &p.since {
            limits::snapshot("since", since)?;
        }
        let id = call.existing(p.sandbox_id.as_deref())?;
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let found = call.client().changes(&id, p.since.as_deref(), limit).await;
        let found = found.map_err(|error| {
            let told = call.error(&id, &error);
            match error {
                Error::NotFound(_) => told.hint("list_snapshots shows the snapshots; answers name the checkpoints."),
                _ => told,
            }
        })?;
        let rows = found.changes.into_iter().map(|one| Row {
            path: one.path,
            change: match one.change {
                ChangeKind::Added => "added",
                ChangeKind::Changed => "changed",
                ChangeKind::Removed => "removed",
            },
            r#type: match one.kind {
                FileKind::File => "file",
                FileKind::Dir => "dir",
                FileKind::Symlink => "symlink",
                FileKind::Other => "other",
            },
            size: one.size,
        });
        let (changes, cut) = budget::rows(rows.collect());
        let truncated = cut || found.truncated;
        let mut text = String::new();
        for row in &changes {
            let slash = if row.r#type == "dir" { "/" } else { "" };
            let path = budget::line(&row.path, budget::LINE);
            let _ = match (row.r#type, row.change) {
                ("file", "added" | "changed") => writeln!(text, "{} {path} ({} bytes)", row.change, row.size),
                _ => writeln!(text, "{} {path}{slash}", row.change),
            };
        }
        if changes.is_empty() {
            text.push_str("nothing changed");
        }
        if truncated {
            text.push_str("there is more than fits; a later since shows less");
        }
        Ok(Reply::new(Output { changes, truncated }, text.trim_end()).within(&id))
    }
}
