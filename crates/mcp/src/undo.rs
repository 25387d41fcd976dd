//! Undo: a checkpoint of the sandbox before each call that may change its files, named in the answer of that call.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rmcp::model::{CallToolResult, ContentBlock};
use sandhold_client::Error;
use serde_json::json;

use crate::{
    budget,
    call::{Call, Target},
    errors, limits, lock,
};

/// What an answer says beside what its tool says.
#[derive(Default)]
pub(crate) struct Notes {
    lines: Mutex<Vec<String>>,
    /// Sandbox and checkpoint.
    points: Mutex<Vec<(String, String)>>,
}

impl Notes {
    /// Adds a line to what a model reads.
    pub(crate) fn line(&self, text: impl Into<String>) {
        lock(&self.lines).push(text.into());
    }

    /// Adds everything to an answer.
    pub(crate) fn add_to(&self, mut result: CallToolResult) -> CallToolResult {
        let mut lines = std::mem::take(&mut *lock(&self.lines));
        let points = std::mem::take(&mut *lock(&self.points));
        if let [(_, point)] = points.as_slice() {
            lines.push(format!(
                "checkpoint {point}: rollback_sandbox takes the files back to before this call"
            ));
            if let Some(fields) = result.structured_content.as_mut().and_then(|v| v.as_object_mut()) {
                fields.insert("checkpoint_id".into(), json!(point));
            }
        } else {
            let each = points
                .iter()
                .map(|(id, point)| format!("sandbox {id}: checkpoint {point} is before this call"));
            lines.extend(each);
        }
        if !lines.is_empty() {
            result.content.push(ContentBlock::text(lines.join("\n")));
        }
        result
    }
}

/// What a caller was told of checkpoints that were not taken.
#[derive(Default)]
pub(crate) struct Told {
    /// Nobody can.
    never: AtomicBool,
    /// Of these sandboxes it was said.
    sandboxes: Mutex<HashSet<String>>,
}

impl Call {
    /// Takes a checkpoint of a sandbox before this call changes it, where that was asked for. Whatever comes of it, the call
    /// goes on.
    pub(crate) async fn checkpoint(&self, target: &Target) {
        let Some(tool) = self.undo else { return };
        let told = &self.tenant.undo;
        let id = target.id();
        if told.never.load(Ordering::Relaxed) || lock(&self.notes.points).iter().any(|(of, _)| of == id) {
            return;
        }
        let making = self.client().checkpoint(id, Some(tool.to_owned()));
        let why = match tokio::time::timeout(limits::CHECKPOINT_WAIT, making).await {
            Ok(Ok(point)) => {
                lock(&self.notes.points).push((id.to_owned(), point.checkpoint_id));
                return;
            }
            // The call itself says that, and better.
            Ok(Err(Error::SandboxNotFound { .. })) => return,
            Ok(Err(error)) => {
                if matches!(error, Error::Unsupported(_)) && told.never.swap(true, Ordering::Relaxed) {
                    return;
                }
                errors::explain(&error).message
            }
            Err(_) => format!("it took longer than {} s", limits::CHECKPOINT_WAIT.as_secs()),
        };
        if lock(&told.sandboxes).insert(id.to_owned()) {
            let why = budget::line(&why, budget::LINE);
            self.notes.line(format!(
                "no checkpoint was taken before this call, it cannot be undone: {why}"
            ));
        }
    }
}
