use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    EgressConfig, address, limits,
    rule::{Rule, Target},
    secret::{Headers, Secret},
};

/// What a sandbox reaches when no rule names the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
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
    /// What the operator allows at most; without it, what the mode `public` does.
    within: Option<Arc<Policy>>,
    /// What requests get, by the host they go to.
    secrets: Vec<Secret>,
    /// The same, from the operator for all sandboxes.
    common: Arc<[Secret]>,
}

/// A rule that cannot be understood or may not be asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{list} holds {rule:?}: {why}")]
pub struct PolicyError {
    /// `allow_out`, `deny_out` or `network.rules`.
    pub list: &'static str,
    /// The rule as it was given.
    pub rule: String,
    /// What is wrong with it and what to write instead.
    pub why: String,
}

/// Why something is allowed, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Basis {
    /// Nothing denies it, and the mode is public.
    Public,
    /// A rule allows everything.
    All,
    /// A rule names exactly this target, or its name.
    Named,
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
    /// The operator does not allow it.
    Operator,
}

impl Policy {
    /// The mode, no wider than the operator's.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let most = self.within.as_ref().map_or(Mode::Public, |operator| operator.mode());
        self.mode.min(most)
    }

    /// The rules that bind all sandboxes; `None` if there are none.
    pub(crate) fn of_operator(config: &EgressConfig, private: &[IpNet]) -> Result<Option<Self>, PolicyError> {
        if config.mode == Mode::Public && config.allow.is_empty() && config.deny.is_empty() {
            return Ok(None);
        }
        let asked = Self::new(None, &config.allow, &config.deny, private)?;
        let most = match config.mode {
            // Targets that are allowed beside nothing are an allowlist.
            Mode::None if !config.allow.is_empty() => Mode::Allowlist,
            mode => mode,
        };
        Ok(Some(Self {
            mode: asked.mode.min(most),
            ..asked
        }))
    }

    /// The same, bound by what the operator allows.
    pub(crate) fn within(self, operator: Option<Arc<Self>>) -> Self {
        Self {
            within: operator,
            ..self
        }
    }

    /// The same, with headers that requests get. They allow nothing.
    ///
    /// # Errors
    /// There are too many.
    pub fn with_secrets(self, secrets: Vec<Secret>) -> Result<Self, PolicyError> {
        check_count(secrets.len())?;
        Ok(Self { secrets, ..self })
    }

    /// The same, with those of the operator.
    pub(crate) fn with_common(self, common: Arc<[Secret]>) -> Self {
        Self { common, ..self }
    }

    /// What requests to a host get.
    pub(crate) fn headers(&self, name: &str) -> Option<Headers> {
        Headers::find(&self.secrets, &self.common, name)
    }

    /// Whether requests to any host get anything.
    pub(crate) fn has_secrets(&self) -> bool {
        !self.secrets.is_empty() || !self.common.is_empty()
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
        Ok(Self {
            mode,
            allow,
            deny,
            within: None,
            secrets: Vec::new(),
            common: Arc::default(),
        })
    }

    /// Holds a target against the rules: an address, a name, or a name with the address it stands for. Without a port it
    /// is a question for the name alone. What an address itself forbids (private ranges) is not decided here.
    pub(crate) fn decide(&self, name: Option<&str>, ip: Option<IpAddr>, port: Option<u16>) -> Result<Basis, Denial> {
        let Some(operator) = &self.within else {
            return self.decide_alone(name, ip, port);
        };
        let most = operator.decide_alone(name, ip, port).map_err(|_| Denial::Operator)?;
        Ok(self.decide_alone(name, ip, port)?.min(most))
    }

    /// Whether a rule, the operator's or the sandbox's, allows this very target.
    pub(crate) fn is_named(&self, name: Option<&str>, ip: Option<IpAddr>, port: Option<u16>) -> bool {
        self.allow.iter().any(|rule| rule.is_for(name, ip, port))
            || self
                .within
                .as_ref()
                .is_some_and(|operator| operator.is_named(name, ip, port))
    }

    fn decide_alone(&self, name: Option<&str>, ip: Option<IpAddr>, port: Option<u16>) -> Result<Basis, Denial> {
        let names = |rule: &&Rule| rule.is_for(name, ip, port);
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
            || self.within.as_ref().is_some_and(|operator| operator.allows_names(port))
    }

    /// Whether a rule denies names: then the name of a connection has to be known even where its address is allowed.
    pub(crate) fn denies_names(&self) -> bool {
        self.deny.iter().any(Rule::is_name) || self.within.as_ref().is_some_and(|operator| operator.denies_names())
    }

    /// Ranges that rules allow, each with the port it is allowed for if that is one. Whether all rules together allow them is
    /// another question.
    pub(crate) fn allowed_nets(&self) -> Vec<(IpNet, Option<u16>)> {
        let own = self.allow.iter().filter_map(|rule| Some((rule.net()?, rule.port)));
        let operator = self.within.as_ref().map(|operator| operator.allowed_nets());
        own.chain(operator.into_iter().flatten()).collect()
    }

    /// Ranges that a rule denies whatever the port, unless another allows a part of them.
    pub(crate) fn denied_nets(&self) -> Vec<IpNet> {
        let own = self
            .deny
            .iter()
            .filter(|rule| rule.port.is_none())
            .filter_map(|rule| rule.net());
        let operator = self.within.as_ref().map(|operator| operator.denied_nets());
        own.chain(operator.into_iter().flatten()).collect()
    }

    /// Whether every name may be asked for, with every kind of record.
    pub(crate) fn open_names(&self) -> bool {
        (self.mode == Mode::Public || self.allow.iter().any(Rule::is_all))
            && self.within.as_ref().is_none_or(|operator| operator.open_names())
    }
}

/// Refuses more headers than there may be.
pub(crate) fn check_count(count: usize) -> Result<(), PolicyError> {
    if count <= limits::SECRETS {
        return Ok(());
    }
    Err(PolicyError {
        list: "network.rules",
        rule: format!("{count} headers"),
        why: format!("at most {} can be set, over all hosts", limits::SECRETS),
    })
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
