//! Proof that a sandbox holds: a list of [vectors](Listed), a program that tries them, and the [verdict](judge).
//!
//! ```text
//! sandhold doctor --prove ─┬─ the program on the host ───────────────▶ what each attempt does where nothing holds it
//!                          ├─ the program in a sandbox, as each user ▶ what it does there
//!                          └─ judge: held, not held, cannot be tested here
//! ```
//!
//! The program is the same file on both sides. It makes one process an attempt, so that an attempt may be killed, change
//! its own process or never end. Every attempt is harmless outside, as root too: what would do damage is asked for with
//! arguments that the kernel refuses after it has looked at the caller's rights (an object that does not exist, a
//! descriptor that is none), files are opened but not written.
//!
//! An attempt inside that fails proves nothing if it would fail anywhere. So a vector counts as held only where its control
//! got through; otherwise it is said why it cannot be tested here.

mod facts;
mod report;

#[cfg(target_os = "linux")]
mod attempt;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod queue;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod vectors;

pub use facts::{Facts, Place};
pub use report::{Found, GROUPS, Judged, Line, Outcome, Verdict, judge};

#[cfg(target_os = "linux")]
pub use program::{FLAG, main};
#[cfg(target_os = "linux")]
pub use queue::Queue;
#[cfg(target_os = "linux")]
pub use vectors::{Control, Kind, Listed, all};
