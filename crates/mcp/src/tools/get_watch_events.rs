//! `get_watch_events`

use std::{fmt::Write as _, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
    watches,
};

pub(super) struct GetWatchEvents;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Which
    watch_id: String,
    /// Wait for a change this long; default: 0
    wait_ms: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    /// create, write, remove, rename or chmod.
    event: &'static str,
    path: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    events: Vec<Row>,
    more: bool,
    /// Changes after these that there was no room for.
    lost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Tool for GetWatchEvents {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "get_watch_events",
        title: "Fetch changes",
        description: "Fetch what changed in a watched folder since the last time: create, write, remove, rename (the old name), chmod.",
        toolset: Toolset::Watch,
        hints: Hints {
            // What was fetched once is not fetched again.
            idempotent: false,
            ..Hints::READS
        },
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let wait = limits::between("wait_ms", p.wait_ms.unwrap_or(0), 0, limits::WATCH_WAIT_MS)?;
        let watch = call.tenant.watches.get(&p.watch_id)?;
        let id = watch.target.id();
        call.tenant.touch(&watch.target.handle);
        let fetched = watch.fetch(Duration::from_millis(wait)).await;
        let row = |event| Row {
            event: watches::name(event),
            path: watch.path_of(event),
        };
        let events: Vec<Row> = fetched.events.iter().map(row).collect();
        let mut text = if events.is_empty() {
            format!("nothing changed in {}", watch.path)
        } else {
            let lines = events.iter().map(|e| format!("{} {}", e.event, e.path));
            lines.collect::<Vec<_>>().join("\n")
        };
        if fetched.more {
            text.push_str("\n[there are more: call get_watch_events again]");
        }
        if fetched.lost > 0 {
            let _ = write!(
                text,
                "\n{} changes after these are not known: at most {} are kept. Look with list_dir.",
                fetched.lost,
                limits::WATCH_EVENTS
            );
        }
        if let Some(note) = &fetched.note {
            let _ = write!(text, "\n{note}");
        }
        let nothing = events.is_empty() && fetched.lost == 0 && fetched.note.is_none();
        let reply = Reply::new(
            Output {
                events,
                more: fetched.more,
                lost: fetched.lost,
                note: fetched.note,
            },
            text,
        )
        .within(id);
        match fetched.ended {
            // Told once nothing else is left to tell.
            Some(why) if nothing => {
                let error = ToolError::new("watch_ended", format!("watch {} has ended: {why}", watch.id));
                Ok(reply.failed(error.hint("End it with unwatch_dir; watch_dir starts another one.")))
            }
            _ => Ok(reply),
        }
    }
}
