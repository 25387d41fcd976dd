//! What all doors of one sandbox share.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    blocked::{Refusal, Ring},
    handed::Handed,
    limits,
    policy::{Basis, Denial, Policy},
    resolve,
    secret::Headers,
    wall::Wall,
    world::{Reserved, World},
};

#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) world: Arc<World>,
    pub(crate) policy: watch::Sender<Arc<Policy>>,
    pub(crate) ring: Mutex<Ring>,
    pub(crate) queries: Arc<Semaphore>,
    handed: Mutex<Handed>,
    wall: OnceLock<Wall>,
    connections: Arc<Semaphore>,
    stop: CancellationToken,
}

/// A place in the number of connections, for as long as it is held.
pub(crate) type Permit = Arc<OwnedSemaphorePermit>;

/// What an open connection was allowed for; looked at again when the rules change.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) name: Option<String>,
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: &'static str,
    /// What its requests get, where its name has a secret.
    pub(crate) headers: Option<Headers>,
}

/// Why a name leads nowhere.
#[derive(Debug)]
pub(crate) enum Nowhere {
    Refused(Refusal),
    /// It has no address, or its name servers did not answer.
    Unresolved(&'static str),
}

impl Sandbox {
    pub(crate) fn new(world: Arc<World>, policy: Policy) -> Arc<Self> {
        Arc::new(Self {
            world,
            policy: watch::Sender::new(Arc::new(policy)),
            ring: Mutex::default(),
            queries: Arc::new(Semaphore::new(limits::QUERIES)),
            handed: Mutex::default(),
            wall: OnceLock::new(),
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS)),
            stop: CancellationToken::new(),
        })
    }

    /// Runs something until it or the sandbox ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Ends all that was spawned.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Holds a target against the rules and the ranges that are no internet.
    pub(crate) fn judge(
        &self,
        name: Option<&str>,
        ip: Option<IpAddr>,
        port: Option<u16>,
        protocol: &'static str,
    ) -> Result<Basis, Refusal> {
        let shown = name.map_or_else(|| ip.map(|ip| ip.to_string()).unwrap_or_default(), str::to_owned);
        let refusal = |rule: String, remedy: String| Refusal {
            host: shown.clone(),
            port: port.unwrap_or(0),
            protocol,
            rule,
            remedy,
        };
        let reserved = ip.and_then(|ip| (self.world.guard)(ip).map(|reserved| (ip, reserved)));
        if let Some((ip, reserved)) = &reserved
            && !self.world.opened(*ip)
        {
            let (rule, range) = match reserved {
                Reserved::Range(range) => (format!("private address, {range}"), range.to_string()),
                Reserved::Own => (format!("address of the server itself, {ip}"), ip.to_string()),
            };
            let rule = if name.is_some() { format!("{rule} ({ip})") } else { rule };
            return Err(refusal(
                rule,
                format!("only the operator can: --allow-private-network {range}"),
            ));
        }
        let basis = self.policy().decide(name, ip, port).map_err(|denial| match denial {
            Denial::None => refusal("this sandbox has no network".into(), allows(&shown)),
            Denial::Unnamed => refusal("not in allow_out".into(), allows(&shown)),
            Denial::Operator => refusal(
                "not allowed by the operator of the server".into(),
                format!("only the operator can: --allow-out {shown}"),
            ),
            Denial::Rule(rule) => refusal(
                format!("deny_out {rule}"),
                format!("update_network without this rule, or with allow_out [{shown:?}], allows it"),
            ),
        })?;
        if let Some((ip, _)) = reserved
            && !self.policy().is_named(name, Some(ip), port)
        {
            return Err(refusal(
                format!("private address {ip}, not in allow_out"),
                allows(&shown),
            ));
        }
        Ok(basis)
    }

    /// The addresses that a name stands for and that may be reached on its behalf.
    pub(crate) async fn addresses(&self, name: &str, port: u16) -> Result<Vec<IpAddr>, Nowhere> {
        self.judge(Some(name), None, Some(port), "tcp")
            .map_err(Nowhere::Refused)?;
        let resolved = tokio::time::timeout(limits::RESOLVE, resolve::addresses(&*self.world.resolver, name)).await;
        let Ok(Some(found)) = resolved else {
            return Err(Nowhere::Unresolved("its name servers do not answer"));
        };
        let mut refused = None;
        let mut left = Vec::new();
        for ip in found {
            match self.judge(Some(name), Some(ip), Some(port), "tcp") {
                Ok(_) => left.push(ip),
                Err(refusal) => refused = Some(refusal),
            }
        }
        match refused {
            _ if !left.is_empty() => Ok(left),
            Some(refusal) => Err(Nowhere::Refused(refusal)),
            None => Err(Nowhere::Unresolved("there is no such name")),
        }
    }

    /// Remembers an answer to a name query.
    pub(crate) fn hand_out(&self, ip: IpAddr, name: &Arc<str>) {
        lock(&self.handed).add(ip, name, Instant::now());
        if let Some(wall) = self.wall() {
            wall.give(ip);
        }
    }

    /// The firewall inside, if there is one.
    pub(crate) fn wall(&self) -> Option<&Wall> {
        self.wall.get()
    }

    /// Takes the firewall inside into use.
    pub(crate) fn set_wall(&self, wall: Wall) {
        // There is one socket to it, so this is the first.
        let _ = self.wall.set(wall);
        self.raise_wall();
    }

    /// Has the firewall inside follow the rules.
    pub(crate) fn raise_wall(&self) {
        let Some(wall) = self.wall() else { return };
        let mut given: Vec<IpAddr> = {
            let handed = lock(&self.handed);
            let allowed = |(ip, name): &(IpAddr, &Arc<str>)| self.judge(Some(name), Some(*ip), None, "tcp").is_ok();
            handed.all().filter(allowed).map(|(ip, _)| ip).collect()
        };
        given.sort_unstable();
        given.dedup();
        wall.follow(&self.world, &self.policy(), &given);
    }

    /// A name that this address was handed out for and that may be reached at it.
    pub(crate) fn handed(&self, ip: IpAddr, port: u16, protocol: &'static str) -> Option<Arc<str>> {
        let names = lock(&self.handed).names(ip, Instant::now());
        names
            .into_iter()
            .find(|name| self.judge(Some(name), Some(ip), Some(port), protocol).is_ok())
    }

    /// Counts a refusal.
    pub(crate) fn block(&self, refusal: Refusal) {
        tracing::debug!(host = ?refusal.host, port = refusal.port, protocol = refusal.protocol, rule = ?refusal.rule, "refused");
        lock(&self.ring).add(refusal);
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn permit(&self) -> Option<Permit> {
        Arc::clone(&self.connections).try_acquire_owned().ok().map(Arc::new)
    }

    /// Whether the rules forbid what was granted, or the secret in it is no longer the one to use.
    pub(crate) fn ended(&self, grant: &Grant) -> bool {
        let again = self.judge(grant.name.as_deref(), Some(grant.ip), Some(grant.port), grant.protocol);
        if let Err(refusal) = again {
            self.block(refusal);
            return true;
        }
        let name = grant.name.as_deref().unwrap_or_default();
        grant.headers.is_some() && self.policy().headers(name) != grant.headers
    }

    /// Returns when the rules forbid what was granted.
    pub(crate) async fn revoked(&self, grant: &Grant) {
        let mut policy = self.policy.subscribe();
        loop {
            if self.ended(grant) {
                return;
            }
            if policy.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

fn allows(host: &str) -> String {
    format!("update_network with allow_out [{host:?}] allows it")
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
