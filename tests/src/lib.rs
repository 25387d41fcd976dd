//! The harness of the suites: finds the programs that were built, starts them each in a state folder of its own, runs
//! scenarios written for foreign clients in Python and Node, and counts what a machine holds.
//!
//! The suites drive the real programs from outside: nothing of Sandhold is linked in.
#![forbid(unsafe_code)]

pub mod machine;
pub mod mcp;
pub mod places;
pub mod run;
pub mod scenario;
pub mod turn;

/// Held by unit tests that have children: one of them looks at all children of this process.
#[cfg(test)]
static CHILDREN: std::sync::Mutex<()> = std::sync::Mutex::new(());
