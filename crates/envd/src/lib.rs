//! The daemon inside every sandbox.
//!
//! It is pid 1 there: it reaps, starts processes and serves files over E2B's envd protocol. It listens on no address;
//! connections come as descriptors over the control socket that it inherits (see `sandhold_wire::boot`).

#![allow(
    refining_impl_trait_internal,
    reason = "the services are called through their traits alone"
)]

mod archive;
mod auth;
mod beginning;
mod boot;
mod bundle;
mod connections;
mod error;
mod files;
mod filesystem;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod kill;
mod limits;
mod metrics;
mod paths;
mod process;
mod processes;
mod reap;
mod search;
mod serve;
mod services;
mod state;
mod sudo;
mod sys;
mod tunnel;
mod unread;
mod users;

pub use boot::main;
