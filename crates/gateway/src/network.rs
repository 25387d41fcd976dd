//! What a sandbox may reach: its rules, and who serves its way out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
};
use http::StatusCode;
use sandhold_egress::{Attached, Egress, Mode, Policy, PolicyError, Secret};
use sandhold_runtime::Reach;
use sandhold_wire::rest::{BlockedConnection, Network, NetworkState, UpdateNetwork};
use serde::Deserialize;

use crate::{
    api::body,
    entry::{Entry, Files, Recipe},
    error::Refusal,
    events::{Event, Events},
    owner::Owner,
    sandboxes::Sandboxes,
};

/// The rules of a sandbox as they are now, and what serves its way out while it lives.
pub(crate) struct WayOut {
    rules: Mutex<Rules>,
    attached: Mutex<Option<Attached>>,
}

#[derive(Clone)]
struct Rules {
    internet: Option<bool>,
    network: Network,
}

impl WayOut {
    /// `events` is told what of the recipe is lost.
    pub(crate) fn new(recipe: &Recipe, events: &Events) -> Self {
        let mut network = recipe.network.clone().unwrap_or_default();
        // No client may give an empty value: they come from a registry.
        if headers(&mut network).any(|value| value.is_empty()) {
            let hosts = network.rules.take().unwrap_or_default().into_keys();
            let hosts: Vec<_> = hosts.take(HOSTS_TOLD).collect();
            let message = format!(
                "network.rules are gone, as no secret is kept on disk: requests to {} get no headers until the rules are set again",
                hosts.join(", ")
            );
            events.note(Event::warning("network", message));
        }
        let rules = Rules {
            internet: recipe.internet,
            network,
        };
        Self {
            rules: Mutex::new(rules),
            attached: Mutex::default(),
        }
    }

    fn rules(&self) -> Rules {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn attached(&self) -> std::sync::MutexGuard<'_, Option<Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules as a client is shown them: the values of headers stay here.
    pub(crate) fn shown(&self) -> Network {
        let mut network = self.rules().network;
        headers(&mut network).for_each(|value| "***".clone_into(value));
        network
    }

    pub(crate) fn mode(&self, egress: &Egress) -> Mode {
        let rules = self.rules();
        policy(egress, rules.internet, &rules.network).map_or(Mode::None, |policy| policy.mode())
    }

    pub(crate) fn close(&self) {
        *self.attached() = None;
    }
}

impl Entry {
    /// Has the way out of the sandbox served, where its engine gives one.
    pub(crate) fn open_way_out(&self, egress: &Arc<Egress>) {
        let Some(doors) = self.runtime().and_then(|runtime| runtime.take_doors()) else {
            return;
        };
        let rules = self.way_out.rules();
        // They were checked when they came; those of another server's registry may not hold here.
        let policy = policy(egress, rules.internet, &rules.network).or_else(|error| {
            let message = format!("its network rules do not hold here, it has no network: {error}");
            self.events.note(Event::warning("network", message));
            policy(egress, Some(false), &Network::default())
        });
        if let Ok(policy) = policy {
            *self.way_out.attached() = Some(egress.attach(doors, policy));
        }
    }

    /// What it is made from again: with the rules of now, and without the values of headers, which no registry holds.
    pub(crate) fn recipe_now(&self) -> Recipe {
        let mut recipe = self.recipe_live();
        headers(recipe.network.get_or_insert_default()).for_each(String::clear);
        let Some(kept) = self.get_kept() else { return recipe };
        recipe.files = match kept.files {
            Files::Layers(root) => Some(root),
            Files::Archive => None,
        };
        recipe.origin = kept.origin;
        recipe.kept_bytes = kept.bytes;
        recipe
    }

    /// What another one like it is made from in this process: with the rules of now and the values of headers.
    pub(crate) fn recipe_live(&self) -> Recipe {
        let rules = self.way_out.rules();
        Recipe {
            network: Some(rules.network),
            internet: rules.internet,
            ..self.recipe.clone()
        }
    }
}

/// Hosts that are named in an event.
const HOSTS_TOLD: usize = 8;

/// The values of all headers.
fn headers(network: &mut Network) -> impl Iterator<Item = &mut String> {
    let rules = network.rules.iter_mut().flat_map(BTreeMap::values_mut).flatten();
    rules
        .filter_map(|rule| rule.transform.as_mut())
        .flat_map(|transform| transform.headers.values_mut())
}

fn policy(egress: &Egress, internet: Option<bool>, network: &Network) -> Result<Policy, PolicyError> {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let policy = egress.policy(internet, &list(&network.allow_out), &list(&network.deny_out))?;
    let mut secrets = Vec::new();
    for (host, rules) in network.rules.iter().flatten() {
        let headers = rules.iter().filter_map(|rule| rule.transform.as_ref());
        for (name, value) in headers.flat_map(|transform| &transform.headers) {
            secrets.push(Secret::new(host, name, value)?);
        }
    }
    policy.with_secrets(secrets)
}

/// Checks what a client asks for.
pub(crate) fn check(sandboxes: &Sandboxes, internet: Option<bool>, network: &Network) -> Result<(), Refusal> {
    if network.egress_proxy.as_ref().is_some_and(|proxy| !proxy.is_null()) {
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "egressProxy is not built here; what a sandbox sends leaves from this server's own address",
        ));
    }
    let asks = internet == Some(true) || network.allow_out.as_ref().is_some_and(|out| !out.is_empty());
    let policy =
        policy(&sandboxes.config.egress, internet, network).map_err(|error| Refusal::bad_request(error.to_string()))?;
    if asks && policy.mode() != Mode::None && sandboxes.info().reach == Reach::Nothing {
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "this engine gives a sandbox no network but its own loopback; leave allow_internet_access and allowOut out",
        ));
    }
    Ok(())
}

pub(crate) async fn update(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    request: Body,
) -> Result<StatusCode, Refusal> {
    let asked: UpdateNetwork = body(request).await?;
    let entry = sandboxes.find(&id, owner).await?;
    let before = entry.way_out.rules().network;
    let network = Network {
        allow_public_traffic: before.allow_public_traffic,
        mask_request_host: before.mask_request_host,
        ..asked.network
    };
    check(&sandboxes, asked.allow_internet_access, &network)?;
    let policy = policy(&sandboxes.config.egress, asked.allow_internet_access, &network)
        .map_err(|error| Refusal::bad_request(error.to_string()))?;
    // In this order under one lock: what is shown and what holds are the same, whoever else updates.
    let mut rules = entry.way_out.rules.lock().unwrap_or_else(PoisonError::into_inner);
    *rules = Rules {
        internet: asked.allow_internet_access,
        network,
    };
    if let Some(attached) = entry.way_out.attached().as_ref() {
        attached.set_policy(policy);
    }
    drop(rules);
    entry
        .events
        .note(Event::new("network", "its network rules were replaced"));
    Ok(StatusCode::NO_CONTENT)
}

/// What of the refusals is wanted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Since {
    /// Those of the last milliseconds; all that are known without it.
    within_ms: Option<u64>,
}

pub(crate) async fn show(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    Query(since): Query<Since>,
) -> Result<Json<NetworkState>, Refusal> {
    let entry = sandboxes.find(&id, owner).await?;
    let after = since
        .within_ms
        .and_then(|ms| SystemTime::now().checked_sub(Duration::from_millis(ms)));
    let blocked = entry.way_out.attached().as_ref().map(|attached| attached.blocked(0).0);
    let blocked = blocked
        .unwrap_or_default()
        .into_iter()
        .filter(|one| after.is_none_or(|after| one.at >= after))
        .map(|one| BlockedConnection {
            ago_ms: one
                .at
                .elapsed()
                .map_or(0, |ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            host: one.host,
            port: one.port,
            protocol: one.protocol.to_owned(),
            rule: one.rule,
            remedy: one.remedy,
            count: one.count,
        })
        .collect();
    let mode = match entry.way_out.mode(&sandboxes.config.egress) {
        Mode::None => "none",
        Mode::Allowlist => "allowlist",
        Mode::Public => "public",
    };
    let reach = match sandboxes.info().reach {
        Reach::Nothing => "nothing",
        Reach::Proxy => "proxy",
        Reach::Transparent => "transparent",
    };
    Ok(Json(NetworkState {
        mode: mode.to_owned(),
        reach: reach.to_owned(),
        blocked,
    }))
}

#[cfg(test)]
mod tests {
    use sandhold_runtime::{DNS_PORT, PROXY_PORT, TCP_PORT, UDP_PORT};
    use sandhold_wire::services::DOORS;

    #[test]
    fn the_daemon_knows_the_ports_of_the_doors() {
        assert_eq!(DOORS, TCP_PORT..=PROXY_PORT);
        assert!(DOORS.contains(&UDP_PORT) && DOORS.contains(&DNS_PORT));
    }
}
