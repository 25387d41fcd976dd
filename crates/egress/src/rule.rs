//! One entry of `allow_out` or `deny_out`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::{
    limits,
    name::{self, Host},
    policy::PolicyError,
};

/// What a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `0.0.0.0/0`, `::/0` or `*`.
    All,
    /// An address or a range.
    Net(IpNet),
    /// One name.
    Name(String),
    /// Every name below this one, at any depth.
    Below(String),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) target: Target,
    /// Only this port.
    pub(crate) port: Option<u16>,
    /// As it was written.
    pub(crate) text: String,
}

impl Rule {
    /// Reads an entry of `list`.
    pub(crate) fn parse(list: &'static str, text: &str) -> Result<Self, PolicyError> {
        let error = |why: String| PolicyError {
            list,
            rule: text.chars().take(limits::RULE).collect(),
            why,
        };
        if text.len() > limits::RULE {
            return Err(error(format!("it is longer than {} characters", limits::RULE)));
        }
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            return Err(error(format!("it is a URL; write the host alone: {host:?}")));
        }
        let shown = |why: &str| {
            error(format!(
                "it {why}; write an address, a range such as 192.0.2.0/24, a name such as example.com or *.example.com, each with :port if only one port is meant"
            ))
        };
        let (host, port) = name::split_port(text).map_err(shown)?;
        let target = match host {
            "*" => Target::All,
            _ => target(host).map_err(shown)?,
        };
        Ok(Self {
            target,
            port,
            text: text.to_owned(),
        })
    }

    /// Whether it names everything, at every port.
    pub(crate) fn is_all(&self) -> bool {
        self.target == Target::All && self.port.is_none()
    }

    /// Whether it names a name, so that it can be held against names only.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self.target, Target::Name(_) | Target::Below(_))
    }

    /// Whether it holds for a port. A question without a port (a name query) is answered by what holds for any.
    pub(crate) fn at(&self, port: Option<u16>) -> bool {
        match (self.port, port) {
            (Some(own), Some(port)) => own == port,
            _ => true,
        }
    }

    /// Whether it names this target: its name or its address, at its port.
    pub(crate) fn is_for(&self, name: Option<&str>, ip: Option<IpAddr>, port: Option<u16>) -> bool {
        self.at(port) && (name.is_some_and(|name| self.names(name)) || ip.is_some_and(|ip| self.names_ip(ip)))
    }

    /// The range it names.
    pub(crate) fn net(&self) -> Option<IpNet> {
        match self.target {
            Target::Net(net) => Some(net),
            _ => None,
        }
    }

    /// Whether it names an address, by range.
    pub(crate) fn names_ip(&self, ip: IpAddr) -> bool {
        matches!(&self.target, Target::Net(net) if net.contains(&name::canonical(ip)))
    }

    /// Whether it names a name. The name is in its one form.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.target.names(name)
    }
}

impl Target {
    /// See [`Rule::names`].
    pub(crate) fn names(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Below(parent) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Self::All | Self::Net(_) => false,
        }
    }
}

fn target(host: &str) -> Result<Target, &'static str> {
    if let Some(parent) = host.strip_prefix("*.") {
        return name::name(parent).map(Target::Below);
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(host);
    if bare.contains('/') {
        let net = range(bare).ok_or("is no range such as 192.0.2.0/24 or 2001:db8::/32")?;
        return Ok(if net.prefix_len() == 0 {
            Target::All
        } else {
            Target::Net(net)
        });
    }
    Ok(match name::host(host)? {
        Host::Ip(ip) => Target::Net(ip.into()),
        Host::Name(name) => Target::Name(name),
    })
}

/// Reads a range. One of IPv4 that is mapped into IPv6 is one of IPv4.
pub(crate) fn range(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok()?.trunc();
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.network().to_ipv4_mapped()
        && v6.prefix_len() >= 96
    {
        return Ipv4Net::new(v4, v6.prefix_len() - 96).ok().map(IpNet::V4);
    }
    Some(net)
}
