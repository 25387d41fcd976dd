use std::sync::Arc;

use sandhold_runtime::Doors;

use crate::{Blocked, Mode, Policy, PolicyError};

/// What the operator of this server allows at most.
#[derive(Debug, Clone, Default)]
pub struct EgressConfig {
    /// What every sandbox reaches at most when no rule names the target.
    pub mode: Mode,
    /// What every sandbox may reach at most, beside what the mode allows. As the rules of a sandbox.
    pub allow: Vec<String>,
    /// What no sandbox may reach.
    pub deny: Vec<String>,
    /// Private ranges and addresses of this host that rules may open, as CIDR. Empty: none.
    pub private: Vec<String>,
}

/// What could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// A range of the configuration.
    #[error("the private range {range:?} is no CIDR such as 10.1.0.0/16")]
    Range {
        /// As it was given.
        range: String,
    },
}

/// The way out of all sandboxes of one server: its name resolution and the operator's limits.
#[derive(Debug)]
pub struct Egress {
    _config: EgressConfig,
}

/// One sandbox's way out, for as long as this is held.
#[derive(Debug)]
pub struct Attached {
    _doors: Doors,
}

impl Egress {
    /// Sets it up. Reads the resolver's configuration of this host.
    ///
    /// # Errors
    /// What of the configuration cannot be understood.
    pub fn new(config: EgressConfig) -> Result<Arc<Self>, EgressError> {
        Ok(Arc::new(Self { _config: config }))
    }

    /// The rules of a sandbox, from what its creator asked for.
    ///
    /// # Errors
    /// The first rule that cannot be understood, or that asks for more than the operator allows.
    pub fn policy(&self, _internet: Option<bool>, _allow: &[String], _deny: &[String]) -> Result<Policy, PolicyError> {
        Ok(Policy::default())
    }

    /// Serves a sandbox's doors until the answer is dropped. Must be called within a tokio runtime.
    #[must_use]
    pub fn attach(self: &Arc<Self>, doors: Doors, _policy: Policy) -> Attached {
        Attached { _doors: doors }
    }
}

impl Attached {
    /// Replaces the rules. Connections that the new ones forbid end.
    pub fn set_policy(&self, _policy: Policy) {}

    /// What was refused after refusal number `since`, oldest first, and the number of the newest refusal.
    #[must_use]
    pub fn blocked(&self, _since: u64) -> (Vec<Blocked>, u64) {
        (Vec::new(), 0)
    }
}
