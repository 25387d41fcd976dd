//! Layers, made of strange archives and compared with what others make of them.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where something is not as it should be"
)]

mod hostile;
mod kit;
mod random;
mod trees;
mod umoci;
