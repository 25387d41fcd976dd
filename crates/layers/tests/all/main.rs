//! Layers, made of strange archives and compared with what others make of them.
#![cfg(target_os = "linux")]

mod hostile;
mod kit;
mod random;
mod trees;
mod umoci;
