//! The client against servers that write down what they are asked.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "all/control.rs"]
mod control;
#[path = "all/errors.rs"]
mod errors;
#[path = "all/files.rs"]
mod files;
#[path = "all/host.rs"]
mod host;
#[path = "all/processes.rs"]
mod processes;
#[path = "all/search.rs"]
mod search;
#[path = "all/services.rs"]
mod services;
#[path = "all/snapshots.rs"]
mod snapshots;
#[path = "all/streams.rs"]
mod streams;
#[path = "all/stub.rs"]
mod stub;
#[path = "all/watch.rs"]
mod watch;
