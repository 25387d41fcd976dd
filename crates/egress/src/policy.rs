use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    address, limits,
    rule::{Rule, Target},
};

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
    allow: Vec<Rule>,
    deny: Vec<Rule>,
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

/// Why something is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Basis {
    /// A rule names exactly this target, or its name.
    Named,
    /// A rule allows everything.
    All,
    /// Nothing denies it, and the mode is public.
    Public,
}

/// Why something is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denial {
    /// No network at all.
    None,
    /// No rule allows it.
    Unnamed,
    /// This rule of `deny_out` names it.
    Rule(String),
}

impl Policy {
    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Reads the rules of a sandbox. `private` is what the operator opened.
    pub(crate) fn new(
        internet: Option<bool>,
        allow: &[String],
        deny: &[String],
        private: &[IpNet],
    ) -> Result<Self, PolicyError> {
        let allow = read("allow_out", allow)?;
        let deny = read("deny_out", deny)?;
        if let Some(error) = allow.iter().find_map(|rule| beyond(rule, private)) {
            return Err(error);
        }
        let closed = internet == Some(false) || deny.iter().any(Rule::is_all);
        let mode = match (closed, allow.is_empty()) {
            (true, true) => Mode::None,
            (true, false) => Mode::Allowlist,
            (false, _) => Mode::Public,
        };
        Ok(Self { mode, allow, deny })
    }

    /// Holds a target against the rules: an address, a name, or a name with the address it stands for. Without a port it
    /// is a question for the name alone. What an address itself forbids (private ranges) is not decided here.
    pub(crate) fn decide(&self, name: Option<&str>, ip: Option<IpAddr>, port: Option<u16>) -> Result<Basis, Denial> {
        let names = |rule: &&Rule| {
            rule.at(port) && (name.is_some_and(|name| rule.names(name)) || ip.is_some_and(|ip| rule.names_ip(ip)))
        };
        if self.allow.iter().any(|rule| names(&rule)) {
            return Ok(Basis::Named);
        }
        if self
            .allow
            .iter()
            .any(|rule| rule.target == Target::All && rule.at(port))
        {
            return Ok(Basis::All);
        }
        if self.mode == Mode::None {
            return Err(Denial::None);
        }
        // A name is not refused for what one of its ports is.
        let denies = |rule: &&Rule| {
            (port.is_some() || rule.port.is_none()) && (names(rule) || rule.target == Target::All && rule.at(port))
        };
        match self.deny.iter().find(denies) {
            Some(rule) if !rule.is_all() => Err(Denial::Rule(rule.text.clone())),
            _ if self.mode == Mode::Allowlist => Err(Denial::Unnamed),
            Some(rule) => Err(Denial::Rule(rule.text.clone())),
            None => Ok(Basis::Public),
        }
    }

    /// Whether a rule allows names at this port: then what an address does not allow, its name may.
    pub(crate) fn allows_names(&self, port: u16) -> bool {
        self.allow.iter().any(|rule| rule.is_name() && rule.at(Some(port)))
    }

    /// Whether a rule denies names: then the name of a connection has to be known even where its address is allowed.
    pub(crate) fn denies_names(&self) -> bool {
        self.deny.iter().any(Rule::is_name)
    }

    /// Whether every name may be asked for, with every kind of record.
    pub(crate) fn open_names(&self) -> bool {
        self.mode == Mode::Public || self.allow.iter().any(Rule::is_all)
    }
}

fn read(list: &'static str, entries: &[String]) -> Result<Vec<Rule>, PolicyError> {
    if let Some(rule) = entries.get(limits::RULES) {
        let why = format!(
            "a list holds at most {} rules; use ranges or *.example.com",
            limits::RULES
        );
        return Err(PolicyError {
            list,
            rule: rule.chars().take(limits::RULE).collect(),
            why,
        });
    }
    entries.iter().map(|entry| Rule::parse(list, entry)).collect()
}

/// What is wrong with a rule that names a private range which the operator did not open.
fn beyond(rule: &Rule, private: &[IpNet]) -> Option<PolicyError> {
    let Target::Net(net) = &rule.target else { return None };
    let range = address::reserved_net(net)?;
    if private.iter().any(|open| open.contains(net)) {
        return None;
    }
    let why = format!(
        "{range} is no part of the internet; only the operator of the server can open it, with --allow-private-network {net}"
    );
    Some(PolicyError {
        list: "allow_out",
        rule: rule.text.clone(),
        why,
    })
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
