//! `read_shell`

use std::{fmt::Write as _, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shell_report;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
    shells::{self, Reading, Shown, Status},
};

pub(super) struct ReadShell;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Default: the last opened
    shell_id: Option<String>,
    /// Wait for output this long; default: 1000
    timeout_ms: Option<u64>,
    /// Default: if a full-screen program is on
    screen: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Terminal {
    cols: u32,
    rows: u32,
    /// Row and column, the first is 1; absent while hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// A full-screen program is on.
    full_screen: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    shell_id: String,
    /// New since the last time; without a screen.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    /// The picture of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    screen: Option<String>,
    terminal: Terminal,
    /// running, ended or lost.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    awaiting_input: Option<bool>,
    more: bool,
    /// What a reader should know, such as a connection that broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// Bytes before the output that are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
}

impl Tool for ReadShell {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "read_shell",
        title: "Read a terminal",
        description: "Return what a shell printed since the last time, once it has settled; with screen the picture of the terminal instead.",
        toolset: Toolset::Shell,
        hints: Hints {
            // What was read once is not read again.
            idempotent: false,
            ..Hints::READS
        },
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let wait = p.timeout_ms.unwrap_or(limits::DEFAULT_SHELL_WAIT_MS);
        let wait = limits::between("timeout_ms", wait, 0, limits::SHELL_WAIT_MS)?;
        let shell = shell_report::find(&call, p.shell_id.as_deref())?;
        let awaiting = shell.settle(Duration::from_millis(wait), p.screen == Some(true)).await;
        let reading = shell.read(p.screen);
        let text = text(&shell.id, &reading, awaiting);
        let Reading {
            shown,
            size,
            title,
            alternate,
            status,
            note,
        } = reading;
        let (screen, part) = match shown {
            Shown::Screen(screen) => (Some(screen), None),
            Shown::Output(part) => (None, Some(part)),
        };
        let cursor = screen.as_ref().and_then(|s| s.cursor);
        let output = Output {
            shell_id: shell.id.clone(),
            terminal: Terminal {
                cols: size.cols,
                rows: size.rows,
                cursor: cursor.map(|(row, column)| vec![row, column]),
                title: Some(title).filter(|t| !t.is_empty()),
                full_screen: alternate,
            },
            screen: screen.map(|s| s.text),
            status: match status {
                Status::Running => "running",
                Status::Ended(_) => "ended",
                Status::Lost(_) => "lost",
            },
            exit_code: match &status {
                Status::Ended(exit) => Some(exit.exit_code),
                _ => None,
            },
            awaiting_input: awaiting,
            note,
            more: part.as_ref().is_some_and(|p| p.more),
            dropped: part.as_ref().map(|p| p.dropped).filter(|n| *n > 0),
            output: part.map(|p| p.text),
        };
        Ok(Reply::new(output, text).within(shell.target.id()))
    }
}

fn text(id: &str, reading: &Reading, awaiting: Option<bool>) -> String {
    let mut text = format!("shell {id}: ");
    text.push_str(&match (&reading.status, awaiting) {
        (Status::Running, Some(true)) => "it waits for input".to_owned(),
        (status, _) => shells::describe(status),
    });
    if reading.alternate {
        text.push_str("; a full-screen program is on");
    }
    if let Some(note) = &reading.note {
        let _ = write!(text, "\n{note}");
    }
    match &reading.shown {
        Shown::Screen(screen) => {
            let cursor = screen.cursor.map_or_else(
                || "cursor hidden".to_owned(),
                |(row, column)| format!("cursor at row {row}, column {column}"),
            );
            let _ = write!(text, "\nscreen {}x{}, {cursor}", reading.size.cols, reading.size.rows);
            if !reading.title.is_empty() {
                let _ = write!(text, ", title {:?}", reading.title);
            }
            let _ = write!(text, ":\n{}", screen.text);
        }
        Shown::Output(part) => {
            if part.dropped > 0 {
                let _ = write!(
                    text,
                    "\n{} bytes before this were not read in time and are gone: at most {} are kept.",
                    part.dropped,
                    limits::SHELL_UNREAD
                );
            }
            let _ = match part.text.as_str() {
                "" => write!(text, "\nno new output"),
                output => write!(text, "\n{output}"),
            };
            if part.more {
                text.push_str("\n[there is more: call read_shell again]");
            }
        }
    }
    text
}
