//! Shells as several tools find and show them.

use std::sync::Arc;

use sandhold_client::PtySize;

use crate::{answer::ToolError, call::Call, limits, shells::Shell};

/// The shell of this id, or the one that was opened last.
pub(super) fn find(call: &Call, shell_id: Option<&str>) -> Result<Arc<Shell>, ToolError> {
    let shell = call.tenant.shells.get(shell_id)?;
    call.tenant.touch(&shell.target.handle);
    Ok(shell)
}

/// A size of a terminal; what is not given is as in `before`.
pub(super) fn size(cols: Option<u64>, rows: Option<u64>, before: PtySize) -> Result<PtySize, ToolError> {
    let checked = |name: &str, given: Option<u64>, before: u32, max: u64| match given {
        None => Ok(before),
        Some(n) => limits::between(name, n, 1, max).map(|n| u32::try_from(n).unwrap_or(before)),
    };
    Ok(PtySize {
        cols: checked("cols", cols, before.cols, limits::SHELL_COLS)?,
        rows: checked("rows", rows, before.rows, limits::SHELL_ROWS)?,
    })
}
