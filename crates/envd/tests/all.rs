//! The daemon as a program of its own, spoken to as the gateway speaks to it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "all/harness.rs"]
mod harness;

#[path = "all/boot.rs"]
mod boot;
#[path = "all/endings.rs"]
mod endings;
#[path = "all/http.rs"]
mod http_endpoints;
#[path = "all/input.rs"]
mod input;
#[path = "all/jobs.rs"]
mod jobs;
#[path = "all/output.rs"]
mod output;
#[path = "all/pty.rs"]
mod pty;
#[path = "all/start.rs"]
mod start;
#[path = "all/sudo.rs"]
mod sudo;
#[path = "all/tunnel.rs"]
mod tunnel;
