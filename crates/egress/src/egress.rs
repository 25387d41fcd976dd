use std::{io, os::fd::OwnedFd, sync::Arc};

use ipnet::IpNet;
use sandhold_runtime::Doors;
use tokio::net::TcpListener;

use crate::{
    Blocked, Mode, Policy, PolicyError, Secret, SecretConfig,
    authority::Authority,
    dns,
    door::Door,
    policy, proxy,
    resolve::System,
    rule,
    sandbox::{Sandbox, lock},
    tcp, udp,
    wall::{self, Wall},
    world::World,
};

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
    /// Headers that requests of every sandbox get. A sandbox's own rule for the same host wins.
    pub secrets: Vec<SecretConfig>,
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
    /// A rule of the operator.
    #[error("the rules of the server cannot be used")]
    Rule(#[from] PolicyError),
    /// The certificates for hosts whose requests get a secret.
    #[error("certificates for sandboxes cannot be made")]
    Authority {
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The resolver.
    #[error("name resolution cannot be set up")]
    Resolver {
        /// What the resolver says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The way out of all sandboxes of one server: its name resolution and the operator's limits.
#[derive(Debug)]
pub struct Egress {
    world: Arc<World>,
    /// Environment variables with nothing real in them.
    placeholders: Vec<(String, String)>,
}

/// One sandbox's way out, for as long as this is held.
#[derive(Debug)]
pub struct Attached {
    pub(crate) sandbox: Arc<Sandbox>,
}

impl Egress {
    /// Whether an address is of the internet, or one that the operator opened: for what the server itself reaches because
    /// somebody asked it to.
    #[must_use]
    pub fn is_open(&self, ip: std::net::IpAddr) -> bool {
        (self.world.guard)(ip).is_none() || self.world.opened(ip)
    }

    /// Sets it up. Reads the resolver's configuration of this host.
    ///
    /// # Errors
    /// What of the configuration cannot be understood.
    pub fn new(config: EgressConfig) -> Result<Arc<Self>, EgressError> {
        let range = |text: &String| {
            let parsed =
                rule::range(text).or_else(|| text.parse().ok().map(|ip| IpNet::from(crate::name::canonical(ip))));
            parsed.ok_or_else(|| EgressError::Range { range: text.clone() })
        };
        let private = config.private.iter().map(range).collect::<Result<Vec<_>, _>>()?;
        let resolver = System::new().map_err(|error| EgressError::Resolver { source: error.into() })?;
        let authority = Authority::new().map_err(|error| EgressError::Authority { source: error.into() })?;
        let mut world = World::new(Box::new(resolver), private, authority);
        policy::check_count(config.secrets.len())?;
        let secret = |one: &SecretConfig| Secret::new(&one.host, &one.header, &one.value);
        world.secrets = config.secrets.iter().map(secret).collect::<Result<_, _>>()?;
        world.operator = Policy::of_operator(&config, &world.private)?.map(Arc::new);
        let names = config.secrets.into_iter().filter_map(|secret| secret.env);
        Ok(Arc::new(Self {
            world: Arc::new(world),
            placeholders: names
                .map(|name| (name.clone(), format!("sandhold-secret-{name}")))
                .collect(),
        }))
    }

    #[cfg(test)]
    pub(crate) fn within(world: World) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::new(world),
            placeholders: Vec::new(),
        })
    }

    /// The certificate (PEM) of the authority that stands in for hosts whose requests get a secret. Sandboxes must trust
    /// it, and nobody else may. Its key is in this process alone.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.world.authority.pem()
    }

    /// Environment variables for every sandbox, with a placeholder where a program expects a key.
    pub fn placeholders(&self) -> impl Iterator<Item = (&str, &str)> {
        self.placeholders
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The rules of a sandbox, from what its creator asked for.
    ///
    /// # Errors
    /// The first rule that cannot be understood, or that asks for more than the operator allows.
    pub fn policy(&self, internet: Option<bool>, allow: &[String], deny: &[String]) -> Result<Policy, PolicyError> {
        let policy = Policy::new(internet, allow, deny, &self.world.private)?;
        let policy = policy.within(self.world.operator.clone());
        Ok(policy.with_common(Arc::clone(&self.world.secrets)))
    }

    /// Serves a sandbox's doors until the answer is dropped. Must be called within a tokio runtime.
    #[must_use]
    pub fn attach(self: &Arc<Self>, doors: Doors, policy: Policy) -> Attached {
        let sandbox = Sandbox::new(Arc::clone(&self.world), policy);
        let Doors {
            tcp,
            udp,
            dns,
            proxy,
            conntrack,
            firewall,
            transparent,
        } = doors;
        let serve = || -> io::Result<()> {
            if let Some(socket) = firewall {
                sandbox.set_wall(Wall::new(socket)?);
                sandbox.spawn(wall::watch(Arc::clone(&sandbox)));
            }
            sandbox.spawn(tcp::accept(Arc::clone(&sandbox), listener(proxy)?, proxy::serve));
            sandbox.spawn(dns::serve_udp(Arc::clone(&sandbox), Arc::new(Door::new(dns)?)));
            if transparent {
                sandbox.spawn(tcp::accept(Arc::clone(&sandbox), listener(tcp)?, tcp::serve));
                sandbox.spawn(udp::serve(Arc::clone(&sandbox), Arc::new(Door::new(udp)?), conntrack));
            }
            Ok(())
        };
        if let Err(error) = serve() {
            // A door that is no socket: nothing gets out, which is the safe side.
            tracing::error!(%error, "a sandbox's network cannot be served");
        }
        Attached { sandbox }
    }
}

fn listener(door: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(door);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Attached {
    /// Replaces the rules. Connections that the new ones forbid end.
    pub fn set_policy(&self, policy: Policy) {
        self.sandbox.policy.send_replace(Arc::new(policy));
        self.sandbox.raise_wall();
    }

    /// What was refused after refusal number `since`, oldest first, and the number of the newest refusal.
    #[must_use]
    pub fn blocked(&self, since: u64) -> (Vec<Blocked>, u64) {
        if let Some(wall) = self.sandbox.wall() {
            wall.look(&self.sandbox);
        }
        lock(&self.sandbox.ring).since(since)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.sandbox.stop();
    }
}
