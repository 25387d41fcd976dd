//! REST types of the control plane, named and spelled as E2B's OpenAPI spells them.
//!
//! Unknown fields of requests are ignored, as E2B ignores them: newer SDKs send more than older servers know.

mod snapshots;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use snapshots::*;

/// The body of every refusal. `code` equals the HTTP status: the JavaScript SDK decides by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The HTTP status.
    pub code: u16,
    /// What a person reads.
    pub message: String,
    /// What a program reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// `POST /v2/sandboxes` and `POST /sandboxes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSandbox {
    /// Template id, name or alias.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Seconds until the sandbox ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Pause instead of ending when the timeout is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause: Option<bool>,
    /// Whether the automatic pause keeps memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause_memory: Option<bool>,
    /// Whether traffic wakes a paused sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_resume: Option<AutoResume>,
    /// v1 only; v2 always secures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// Whether the sandbox may reach the internet.
    #[serde(default, rename = "allow_internet_access", skip_serializing_if = "Option::is_none")]
    pub allow_internet_access: Option<bool>,
    /// Network rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Pairs to find the sandbox by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Environment of every process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// Virtual processors. An addition of Sandhold: E2B fixes them in the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<f64>,
    /// Memory in MiB. An addition of Sandhold.
    #[serde(default, rename = "memoryMB", skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Disk in MiB. An addition of Sandhold.
    #[serde(default, rename = "diskSizeMB", skip_serializing_if = "Option::is_none")]
    pub disk_size_mb: Option<u64>,
    /// Further limits, by [`crate::caps::Cap::rest_name`]. An addition of Sandhold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, f64>>,
}

/// Whether traffic wakes a paused sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoResume {
    /// It does.
    pub enabled: bool,
}

/// Network rules of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Whether ports can be opened without a traffic token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_public_traffic: Option<bool>,
    /// Addresses, ranges and names that may be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_out: Option<Vec<String>>,
    /// Addresses, ranges and names that may not be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_out: Option<Vec<String>>,
    /// Name servers that may be asked. Kept and shown; names are resolved outside of a sandbox in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<String>>,
    /// A proxy of the client's own for what leaves the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<serde_json::Value>,
    /// Replaces the `Host` header of forwarded requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_request_host: Option<String>,
    /// What is changed in requests, by the host they go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<BTreeMap<String, Vec<NetworkRule>>>,
}

/// A change of requests to a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRule {
    /// The change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<NetworkTransform>,
}

/// Headers that a request gets; what it had of these names is replaced. The values are secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkTransform {
    /// By name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl std::fmt::Debug for NetworkTransform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.headers.keys()).finish()
    }
}

/// `PUT /sandboxes/{id}/network`: replaces all rules on what the sandbox may reach. What is left out is cleared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateNetwork {
    /// The rules; what is not about the way out has no effect.
    #[serde(flatten)]
    pub network: Network,
    /// As [`NewSandbox::allow_internet_access`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_internet_access: Option<bool>,
}

/// `GET /sandboxes/{id}/network`: what a sandbox may reach, and what it was refused. An addition of Sandhold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkState {
    /// `none`, `allowlist` or `public`.
    pub mode: String,
    /// How connections get out: `transparent` for all programs, `proxy` for those that use the proxy of their
    /// environment, `nothing`.
    pub reach: String,
    /// What was refused, oldest first.
    pub blocked: Vec<BlockedConnection>,
}

/// A connection, datagram or name query that was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedConnection {
    /// Where to: a name where it is known, else an address.
    pub host: String,
    /// Port; 0 for a name query.
    pub port: u16,
    /// `tcp`, `udp` or `dns`.
    pub protocol: String,
    /// The rule that refused it.
    pub rule: String,
    /// How to allow it.
    pub remedy: String,
    /// How often.
    pub count: u64,
    /// How many milliseconds ago it was last.
    pub ago_ms: u64,
}

/// Answer of create and connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Template id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Sandbox id.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    /// Kept for old clients; part of host names once.
    #[serde(rename = "clientID", default)]
    pub client_id: String,
    /// Version of the envd protocol, gates features in the SDKs.
    pub envd_version: String,
    /// Name of the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Token for envd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    /// Token for other ports, where public traffic is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_access_token: Option<String>,
    /// Domain of the sandbox's host names; overrides the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Of a connect that resumed it: `full` if its processes went on, `filesystem` if it was made again from its files. An
    /// addition of Sandhold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<String>,
}

/// The state of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Processes run.
    Running,
    /// It stands still and can be resumed.
    Paused,
}

/// Entry of `GET /v2/sandboxes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedSandbox {
    /// Template id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Sandbox id.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    /// Kept for old clients.
    #[serde(rename = "clientID", default)]
    pub client_id: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub end_at: String,
    /// Virtual processors.
    pub cpu_count: f64,
    /// Memory limit in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u64,
    /// Disk limit in MiB.
    #[serde(rename = "diskSizeMB", default)]
    pub disk_size_mb: u64,
    /// Running or paused.
    pub state: State,
    /// Version of the envd protocol.
    pub envd_version: String,
    /// Name of the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Pairs given at create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Bytes that the files of a paused sandbox take on disk. An addition of Sandhold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_bytes: Option<u64>,
}

/// Answer of `GET /sandboxes/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxDetail {
    /// What a list shows.
    #[serde(flatten)]
    pub listed: ListedSandbox,
    /// Token for envd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    /// Domain of the sandbox's host names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Whether the sandbox may reach the internet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_internet_access: Option<bool>,
    /// Network rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What happens at the timeout and on traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Of a paused sandbox: `full` if its memory is kept, `filesystem` if its files alone are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_mode: Option<String>,
    /// How the sandbox is held. An addition of Sandhold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Every limit in force, by [`crate::caps::Cap::rest_name`]. An addition of Sandhold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, f64>>,
}

/// Answer of `GET /sandboxes/{id}/limits`, an addition of Sandhold: what a sandbox may use, what it uses, and which limits
/// its processes met. Maps by [`crate::caps::Cap::rest_name`], in the units of the limits. What nothing counts is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LimitsReport {
    /// In force.
    pub limits: BTreeMap<String, f64>,
    /// In use now.
    pub used: BTreeMap<String, f64>,
    /// How often each was met in the time that was asked about: processes ended for memory, forks refused.
    pub met: BTreeMap<String, u64>,
    /// How long its processes were kept from running by the limit of processors, in milliseconds since its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_ms: Option<u64>,
    /// Bytes left in `/dev/shm`, which has a limit of its own: a part of the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_free: Option<u64>,
}

/// What happens at the timeout and on traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Whether traffic wakes a paused sandbox.
    pub auto_resume: bool,
    /// `kill` or `pause`.
    pub on_timeout: String,
}

/// How a sandbox is held, and what that leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// `namespaces`, …
    pub level: String,
    /// One line on how: `65536 private ids, cgroup v2, …`
    pub detail: String,
    /// What the level lacks on this machine.
    pub warnings: Vec<String>,
}

/// `POST /v2/sandboxes/{id}/connect`, `POST /sandboxes/{id}/connect` and `…/resume`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ConnectSandbox {
    /// Seconds from now; never shortens a running sandbox's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// `POST /sandboxes/{id}/pause`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PauseSandbox {
    /// Whether processes and their memory are kept too; so it is unless this is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// `POST /sandboxes/{id}/timeout`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetTimeout {
    /// Seconds from now.
    pub timeout: i64,
}

/// `POST /sandboxes/{id}/refreshes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Refresh {
    /// Seconds from now; never shortens.
    #[serde(default)]
    pub duration: Option<i64>,
}

/// Sample of `GET /sandboxes/{id}/metrics`. Bytes and percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxMetric {
    /// RFC 3339.
    pub timestamp: String,
    /// Unix seconds.
    pub timestamp_unix: i64,
    /// Virtual processors.
    pub cpu_count: f64,
    /// Of all processors together.
    pub cpu_used_pct: f64,
    /// Memory used.
    pub mem_used: u64,
    /// Memory limit.
    pub mem_total: u64,
    /// Page cache.
    #[serde(default)]
    pub mem_cache: u64,
    /// Disk used.
    pub disk_used: u64,
    /// Disk limit.
    pub disk_total: u64,
}

/// One thing that happened to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// RFC 3339.
    pub timestamp: String,
    /// What a person reads.
    pub message: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// What a program reads.
    pub fields: BTreeMap<String, String>,
}

/// Answer of `GET /v2/sandboxes/{id}/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLogs {
    /// The entries.
    pub logs: Vec<LogEntry>,
}

/// Answer of envd's `GET /metrics`. Bytes and percent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvdMetrics {
    /// Unix seconds.
    pub ts: i64,
    /// Virtual processors.
    pub cpu_count: f64,
    /// Of all processors together.
    pub cpu_used_pct: f64,
    /// Memory limit.
    pub mem_total: u64,
    /// Memory used.
    pub mem_used: u64,
    /// Page cache.
    pub mem_cache: u64,
    /// Disk used.
    pub disk_used: u64,
    /// Disk limit.
    pub disk_total: u64,
    /// Files and folders of the root file system. An addition of Sandhold, as what follows.
    #[serde(default)]
    pub inodes_used: u64,
    /// Their limit; 0: none.
    #[serde(default)]
    pub inodes_total: u64,
    /// Bytes left in `/dev/shm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_free: Option<u64>,
    /// Jobs that run.
    #[serde(default)]
    pub jobs: u64,
}

/// Entry of the answer of `POST /files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Absolute path.
    pub path: String,
    /// Last part of the path.
    pub name: String,
    /// Always `file`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Metadata given with the upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Body of the gateway's 502 and 403 for traffic to a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyError {
    /// The sandbox that was named.
    #[serde(rename = "sandboxId")]
    pub sandbox_id: String,
    /// What a person reads; SDKs look for parts of it.
    pub message: String,
    /// The port that was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The HTTP status.
    pub code: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_sdks_send() {
        let body: NewSandbox = serde_json::from_str(
            r#"{"templateID":"base","timeout":120,"autoPause":true,"autoResume":{"enabled":true},"allow_internet_access":false,
            "network":{"allowPublicTraffic":false,"allowOut":["1.1.1.1"]},"metadata":{"k 1":"v&2"},"envVars":{"A":"1"},"mcp":null}"#,
        )
        .unwrap();
        assert_eq!(body.allow_internet_access, Some(false));
        assert_eq!(body.env_vars.unwrap()["A"], "1");
        assert_eq!(body.network.unwrap().allow_out.unwrap(), ["1.1.1.1"]);
    }

    #[test]
    fn sends_nothing_that_was_not_said() {
        let body = NewSandbox {
            template_id: "base".into(),
            ..NewSandbox::default()
        };
        assert_eq!(serde_json::to_string(&body).unwrap(), r#"{"templateID":"base"}"#);
    }
}
