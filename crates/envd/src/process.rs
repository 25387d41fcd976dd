//! Processes.

/// The processes.
#[derive(Debug, Default)]
pub(crate) struct Table;
