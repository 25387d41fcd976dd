use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sandhold_wire::rest::{EnvdMetrics, ListedSandbox, Network, SandboxDetail, State};

use crate::{Commands, Error, Files, HttpConfig};

/// A client of one control plane. Cloning is cheap and shares connections.
#[derive(Clone)]
pub struct Client { /* private */ }

/// What a new sandbox should be. `Default` is the template `base` for 300 seconds.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Template name; `None` is `base`.
    pub template: Option<String>,
    /// How long it lives; `None` is the server's default.
    pub timeout: Option<Duration>,
    /// Pairs to find it by.
    pub metadata: BTreeMap<String, String>,
    /// Environment of every process.
    pub envs: BTreeMap<String, String>,
    /// Whether it may reach the internet; `None` is the server's default.
    pub allow_internet_access: Option<bool>,
    /// Network rules.
    pub network: Option<Network>,
    /// Virtual processors (an addition of Sandhold, refused by E2B).
    pub cpus: Option<f64>,
    /// Memory in MiB (an addition of Sandhold, refused by E2B).
    pub memory_mb: Option<u64>,
    /// Disk in MiB (an addition of Sandhold, refused by E2B).
    pub disk_mb: Option<u64>,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only these states; empty means all.
    pub states: Vec<State>,
    /// Only those with all of these pairs.
    pub metadata: BTreeMap<String, String>,
    /// At most this many; `None` is the server's page size.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// One page of sandboxes.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// The page's sandboxes, newest first.
    pub sandboxes: Vec<ListedSandbox>,
    /// Where the next page starts; `None` at the end.
    pub next_cursor: Option<String>,
}

impl Client {
    /// A client of a control plane over HTTP.
    pub fn http(config: HttpConfig) -> Result<Self, Error>;
    /// A client of a service in this process, in place of a socket. Requests for a sandbox carry the `E2b-Sandbox-Id` and
    /// `E2b-Sandbox-Port` headers, all others are control-plane requests.
    pub fn in_process<S>(service: S) -> Self;
    /// `local` or `e2b`, for messages.
    pub fn provider(&self) -> &'static str;
    pub async fn create(&self, options: CreateOptions) -> Result<Sandbox, Error>;
    /// Attaches to a sandbox; resumes it if it is paused; never shortens its life.
    pub async fn connect(&self, id: &str, timeout: Option<Duration>) -> Result<Sandbox, Error>;
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, Error>;
    pub async fn info(&self, id: &str) -> Result<SandboxDetail, Error>;
    /// False if there was none.
    pub async fn kill(&self, id: &str) -> Result<bool, Error>;
    pub async fn set_timeout(&self, id: &str, timeout: Duration) -> Result<(), Error>;
    /// False if it was paused already.
    pub async fn pause(&self, id: &str) -> Result<bool, Error>;
}

/// A sandbox that was created or connected to. Cloning is cheap. Dropping it does not end the sandbox.
#[derive(Clone)]
pub struct Sandbox { /* private */ }

impl Sandbox {
    pub fn id(&self) -> &str;
    pub fn template(&self) -> &str;
    pub fn files(&self) -> Files;
    pub fn commands(&self) -> Commands;
    /// `https://<port>-<id>.<domain>`, or what the provider has instead.
    pub fn url(&self, port: u16) -> Option<String>;
    /// Whether envd answers.
    pub async fn is_running(&self) -> Result<bool, Error>;
    pub async fn metrics(&self) -> Result<EnvdMetrics, Error>;
    pub async fn kill(&self) -> Result<bool, Error>;
    pub async fn info(&self) -> Result<SandboxDetail, Error>;
}
