//! The suites, one module a subject. They drive the real programs from outside, through foreign clients where there
//! are any; `bash tests/run.sh` installs those and runs everything.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod cli;
mod conformance;
mod foreign;
mod image;
mod inspector;
mod leak;
mod prove;
mod python;
