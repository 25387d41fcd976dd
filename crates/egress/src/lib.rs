//! What sandboxes may reach.
//!
//! A sandbox has no interface that leads out. Its engine gives the sockets that stand inside its network
//! ([`sandhold_runtime::Doors`]), and [`Egress::attach`] serves them by a [`Policy`]: connections, datagrams and name
//! queries arrive here, are held against the rules, and are made anew from the host, or refused. What was refused is kept
//! ([`Attached::blocked`]) so that it can be told to whoever ran the program.
#![forbid(unsafe_code)]

mod blocked;
mod egress;
mod policy;

pub use blocked::Blocked;
pub use egress::{Attached, Egress, EgressConfig, EgressError};
pub use policy::{Mode, Policy, PolicyError};
