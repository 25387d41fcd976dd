//! E2B's sandbox protocol: the messages of envd ([`proto`]), the REST types of the control plane ([`rest`]), what the
//! daemon is told at its start ([`boot`]) and asked about servers ([`services`]), file signatures ([`signature`]), and the names both sides must agree on.
//!
//! No I/O, no clock and no randomness: whoever needs the time passes it in.
//!
//! The field numbers and texts were checked against the published SDKs (e2b 1.5 to 2.63 for Python, 2.51 for JavaScript).
#![forbid(unsafe_code)]

pub mod boot;
pub mod caps;
pub mod jobs;
pub mod limits;
pub mod names;
pub mod procfs;
pub mod rest;
pub mod services;
pub mod signature;
pub mod templates;

/// Generated from `proto/*.proto`: messages and services of the packages `process` and `filesystem`.
#[expect(missing_docs, reason = "generated; the protos hold the comments")]
pub mod proto {
    connectrpc::include_generated!();
}
