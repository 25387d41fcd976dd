//! What reads the output of a sandbox's terminal, for the fuzzer in `fuzz/`; part of no other build.

pub use crate::shells::terminal;
