//! The policy with a group out of force, for the tests that show that each is needed.

use super::{Action, Group, Policy, PolicyError, built_in, compile};

/// A policy with one group out of force, for the test that each is needed.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakened<'a> {
    /// The policy as it is.
    Not,
    /// What the group allows is not allowed: its calls get the default answer.
    Without(&'a str),
    /// What the group denies is allowed.
    Open(&'a str),
}

/// The groups of the policy: name, whether it allows anything, whether it denies anything.
#[doc(hidden)]
pub fn policy_groups() -> std::io::Result<Vec<(String, bool, bool)>> {
    let policy = built_in().map_err(std::io::Error::other)?;
    let facts = |group: Group| {
        let allows = group.action == Action::Allow;
        (group.name, allows, !allows || group.otherwise.is_some())
    };
    Ok(policy.groups.into_iter().map(facts).collect())
}

/// Puts the calling thread under the policy for good.
#[doc(hidden)]
pub fn restrict_self(weakened: Weakened<'_>) -> std::io::Result<()> {
    let policy = built_in().and_then(|policy| weaken(policy, weakened));
    let program = policy
        .and_then(|policy| compile(&policy))
        .map_err(std::io::Error::other)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(crate::sys::install(&program)?)
}

pub(super) fn weaken(mut policy: Policy, weakened: Weakened<'_>) -> Result<Policy, PolicyError> {
    let (Weakened::Without(name) | Weakened::Open(name)) = weakened else {
        return Ok(policy);
    };
    let at = policy.groups.iter().position(|group| group.name == name);
    let at = at.ok_or_else(|| PolicyError::UnknownGroup(name.to_owned()))?;
    if let Weakened::Without(_) = weakened {
        policy.groups.remove(at);
    } else {
        let group = &mut policy.groups[at];
        group.action = Action::Allow;
        group.when.clear();
        group.otherwise = None;
    }
    Ok(policy)
}
