//! `list_snapshots`

use std::fmt::Write as _;

use sandhold_client::SnapshotQuery;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    errors, limits,
    registry::{Hints, Spec, Tool, Toolset},
};

/// Snapshots of one page when no limit is given, and the most that are allowed.
const PAGE: (u32, u64) = (50, 100);

pub(super) struct ListSnapshots;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Only of this sandbox
    of_sandbox: Option<String>,
    /// Default 50, at most 100
    limit: Option<u64>,
    /// Of the page before
    cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    snapshot_id: String,
    names: Vec<String>,
    /// The sandbox it was taken of.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_sandbox: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    /// Bytes beside those of the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    snapshots: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    truncated: bool,
}

impl Tool for ListSnapshots {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "list_snapshots",
        title: "List snapshots",
        description: "List the snapshots that exist, the newest first.",
        toolset: Toolset::Snapshots,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let limit = match p.limit {
            Some(limit) => u32::try_from(limits::between("limit", limit, 1, PAGE.1)?).unwrap_or(PAGE.0),
            None => PAGE.0,
        };
        if let Some(cursor) = &p.cursor {
            limits::at_most("cursor", cursor.len(), 1024)?;
        }
        if let Some(id) = &p.of_sandbox {
            errors::sandbox_id(id)?;
        }
        let query = SnapshotQuery {
            sandbox_id: p.of_sandbox,
            limit: Some(limit),
            cursor: p.cursor,
        };
        let page = call.client().snapshots(&query).await.map_err(|e| errors::explain(&e))?;
        let rows = page.snapshots.into_iter().map(|one| Row {
            snapshot_id: one.snapshot_id,
            names: one.names,
            of_sandbox: one.sandbox_id,
            created_at: one.created_at,
            size: one.size_bytes,
        });
        let (snapshots, truncated) = budget::rows(rows.collect());
        let mut text = String::new();
        for row in &snapshots {
            let _ = write!(text, "{}", row.snapshot_id);
            if let Some(at) = &row.created_at {
                let _ = write!(text, " taken {at}");
            }
            if let Some(id) = &row.of_sandbox {
                let _ = write!(text, " of sandbox {id}");
            }
            if let Some(size) = row.size {
                let _ = write!(text, ", {size} bytes");
            }
            text.push('\n');
        }
        if snapshots.is_empty() {
            text.push_str("no snapshots");
        }
        if truncated {
            text.push_str("more did not fit; use a smaller limit\n");
        }
        if let Some(cursor) = &page.next_cursor {
            let _ = write!(text, "more: cursor {cursor:?}");
        }
        let output = Output {
            snapshots,
            next_cursor: page.next_cursor,
            truncated,
        };
        Ok(Reply::new(output, text.trim_end()))
    }
}
