//! Sandhold's MCP server: the tools that an agent sees, over standard input and output or over HTTP.
//!
//! A [`Server`] is made from a client of a control plane and a [`Selection`] of tools, then served with [`serve_stdio`] or
//! [`serve_http`]. Both answer the stateless revision of the protocol (2026-07-28) and the ones before it.
#![forbid(unsafe_code)]

mod answer;
mod args;
pub mod budget;
mod call;
mod cancelled;
mod consent;
mod dockerfiles;
mod edit;
mod elsewhere;
mod errors;
mod export;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod guide;
mod host_files;
mod http;
mod jobs;
mod keeping;
pub mod limits;
mod lines;
mod met;
mod prompts;
mod reattach;
mod registry;
mod resources;
mod sandboxes;
mod schema;
mod server;
mod shells;
mod stdio;
mod tenant;
mod tools;
mod undo;
mod watches;

pub use consent::Confirm;
pub use dockerfiles::{Dockerfiles, Planned};
pub use export::{Format, export};
pub use host_files::HostFolder;
pub use http::{HttpOptions, http_router, serve_http};
pub use keeping::Keeping;
pub use registry::{ConfigError, Selection, Toolset};
pub use server::{Door, Provider, Server, ServerConfig};
pub use stdio::{ServeError, serve_io, serve_stdio};

/// One tool as a client sees it, and the toolset it belongs to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolInfo {
    /// Its name.
    pub name: &'static str,
    /// The toolset that switches it on.
    pub toolset: Toolset,
    /// Its entry of `tools/list`: name, title, description, schemas and annotations.
    pub listed: serde_json::Value,
    /// The whole schema of its structured result, of which the list says little.
    pub output: serde_json::Value,
}

/// Every tool there is, in the order of the tool list.
#[must_use]
pub fn tools() -> Vec<ToolInfo> {
    let info = |entry: &registry::Entry| ToolInfo {
        name: entry.spec.name,
        toolset: entry.spec.toolset,
        listed: serde_json::to_value(&entry.listed).unwrap_or_default(),
        output: entry.output.clone().into(),
    };
    tools::all().iter().map(info).collect()
}

/// A lock whose holder panicked still guards data that is whole: no guard is held across a step that can fail halfway.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
