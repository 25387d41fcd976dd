//! The server as its clients see it, against a control plane that does what the test says.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "all/commands.rs"]
mod commands;
#[path = "all/consent.rs"]
mod consent;
#[path = "all/elsewhere.rs"]
mod elsewhere;
#[path = "all/files.rs"]
mod files;
#[path = "all/http.rs"]
mod http;
#[path = "all/protocol.rs"]
mod protocol;
#[path = "all/sandboxes.rs"]
mod sandboxes;
#[path = "all/services.rs"]
mod services;
#[path = "all/shells.rs"]
mod shells;
#[path = "all/snapshots.rs"]
mod snapshots;
#[path = "all/sse.rs"]
mod sse;
#[path = "all/stub.rs"]
mod stub;
#[path = "all/templates.rs"]
mod templates;
