/// What a sandbox reaches when no rule names the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    None,
    /// Only what a rule allows.
    Allowlist,
    /// The internet: no private, local or reserved range, and not this host.
    #[default]
    Public,
}

/// Rules of one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    mode: Mode,
}

/// A rule that cannot be understood or may not be asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{list} holds {rule:?}: {why}")]
pub struct PolicyError {
    /// `allow_out` or `deny_out`.
    pub list: &'static str,
    /// The rule as it was given.
    pub rule: String,
    /// What is wrong with it and what to write instead.
    pub why: String,
}

impl Policy {
    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
}
