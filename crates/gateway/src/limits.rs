//! Limits of the gateway. Those that clients must know too stand in `sandhold_wire::limits`.

use std::time::Duration;

/// Ended sandboxes that are remembered in memory with the reason of their end.
pub const ENDED_REMEMBERED: usize = 4096;
/// How long ended sandboxes stay in the registry.
pub const REGISTRY_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How long a connection to a sandbox's daemon is kept without use.
pub const POOL_IDLE: Duration = Duration::from_secs(60);
/// Idle connections kept for one port of a sandbox.
pub const POOL_PER_PORT: usize = 16;
/// How long a write to the registry waits for another process's lock.
pub const STORE_BUSY: Duration = Duration::from_secs(5);
/// Length of the secret that opens a sandbox's daemon, in bytes.
pub const TOKEN_BYTES: usize = 32;
/// The answer of a sandbox's daemon to the tunnel request, in bytes.
pub const TUNNEL_HEAD: usize = 8 << 10;
/// How many sandboxes are ended at once when the server stops.
pub const SHUTDOWN_PARALLEL: usize = 64;
