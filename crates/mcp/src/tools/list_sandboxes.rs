//! `list_sandboxes`

use std::fmt::Write as _;

use sandhold_client::{ListQuery, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sandbox_row;
use crate::{
    answer::{Reply, ToolError},
    args::{self, Pair},
    budget,
    call::Call,
    errors, limits,
    registry::{Hints, Spec, Tool, Toolset},
};

/// Sandboxes of one page when no limit is given, and the most that are allowed.
const PAGE: (u32, u64) = (50, 100);

pub(super) struct ListSandboxes;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wanted {
    Running,
    Paused,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Default: both
    state: Option<Wanted>,
    /// All must match
    metadata: Option<Vec<Pair>>,
    /// Default 50, at most 100
    limit: Option<u64>,
    /// Of the page before
    cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    sandbox_id: String,
    template: String,
    state: &'static str,
    started_at: String,
    end_at: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<Pair>,
    is_default: bool,
    /// Of a paused one: bytes that its files take on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_bytes: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    sandboxes: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    truncated: bool,
}

impl Tool for ListSandboxes {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "list_sandboxes",
        title: "List sandboxes",
        description: "List the sandboxes that exist, with state and end.",
        toolset: Toolset::Sandbox,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::metadata(p.metadata.as_deref().unwrap_or_default())?;
        let limit = match p.limit {
            Some(limit) => u32::try_from(limits::between("limit", limit, 1, PAGE.1)?).unwrap_or(PAGE.0),
            None => PAGE.0,
        };
        if let Some(cursor) = &p.cursor {
            limits::at_most("cursor", cursor.len(), 1024)?;
        }
        let states = match p.state {
            Some(Wanted::Running) => vec![State::Running],
            Some(Wanted::Paused) => vec![State::Paused],
            None => Vec::new(),
        };
        let query = ListQuery {
            states,
            metadata: args::map(p.metadata),
            limit: Some(limit),
            cursor: p.cursor,
        };
        let page = call.client().list(query).await.map_err(|e| errors::explain(&e))?;
        let default = call.tenant.default_id();
        let rows = page.sandboxes.iter().map(|listed| Row {
            sandbox_id: listed.sandbox_id.clone(),
            template: sandbox_row::template(listed),
            state: sandbox_row::state(listed.state),
            started_at: listed.started_at.clone(),
            end_at: listed.end_at.clone(),
            metadata: sandbox_row::metadata(listed),
            is_default: default.as_deref() == Some(&listed.sandbox_id),
            kept_bytes: listed.kept_bytes,
        });
        let (sandboxes, truncated) = budget::rows(rows.collect());
        let mut text = if sandboxes.is_empty() {
            "no sandboxes".to_owned()
        } else {
            String::new()
        };
        for row in &sandboxes {
            let mark = if row.is_default { ", your default" } else { "" };
            let until = match row.kept_bytes {
                Some(bytes) => format!(", {bytes} bytes kept on disk"),
                None => format!(" until {}", row.end_at),
            };
            let _ = writeln!(text, "{} {} ({}){until}{mark}", row.sandbox_id, row.state, row.template);
        }
        if truncated {
            text.push_str("more did not fit; use a smaller limit or metadata\n");
        }
        if let Some(cursor) = &page.next_cursor {
            let _ = write!(text, "more: cursor {cursor:?}");
        }
        Ok(Reply::new(
            Output {
                sandboxes,
                next_cursor: page.next_cursor,
                truncated,
            },
            text.trim_end(),
        ))
    }
}
