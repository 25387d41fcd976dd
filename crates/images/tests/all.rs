//! Images of a real registry, and of archives that a real program wrote.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "all/archives.rs"]
mod archives;
#[path = "all/fake.rs"]
mod fake;
#[path = "all/kit.rs"]
mod kit;
#[path = "all/pull.rs"]
mod pull;
#[path = "all/sdk.rs"]
mod sdk;
