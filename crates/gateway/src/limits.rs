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
/// How long it may take to answer that.
pub const TUNNEL_TIME: Duration = Duration::from_secs(10);
/// How many sandboxes are ended at once when the server stops.
pub const SHUTDOWN_PARALLEL: usize = 64;
/// Bytes that the files of all paused sandboxes and snapshots of one home may take together, each layer counted once.
pub const PAUSED_TOTAL: u64 = 64 << 30;
/// How long an engine may work on layers in one step.
pub const LAYER_TIME: Duration = Duration::from_secs(600);
/// How often layers that nothing names any more are looked for.
pub const COLLECT_EVERY: Duration = Duration::from_secs(900);
/// Snapshots of one owner.
pub const SNAPSHOTS: i64 = 10_000;
/// Forks that are made side by side for one request.
pub const FORKS_PARALLEL: usize = 8;
/// Checkpoints of a sandbox; beyond it the oldest goes.
pub const CHECKPOINTS: usize = 32;
/// Letters of a checkpoint's id after `cp-`.
pub const CHECKPOINT_ID_LEN: usize = 10;
/// Bytes of what a checkpoint is said to be for.
pub const CHECKPOINT_LABEL: usize = 256;
/// Paths in one answer about what changed when no limit is said.
pub const CHANGES: usize = 1000;
/// The most that can be asked for.
pub const CHANGES_MOST: usize = 10_000;
/// Bytes of such an answer.
pub const CHANGES_BYTES: usize = 3 << 20;
/// How long pausing all sandboxes at the end of a server may take; those that are not paused by then end.
pub const SHUTDOWN_PAUSE: Duration = Duration::from_secs(60);
/// How long writing or restoring the files of a sandbox may take.
pub const ARCHIVE_TIME: Duration = Duration::from_secs(600);
/// Age at which a file among the paused sandboxes that belongs to none of them is removed.
pub const ARCHIVE_STALE: Duration = Duration::from_secs(3600);
/// How often what a sandbox uses is looked at.
pub const METRICS_EVERY: Duration = Duration::from_secs(5);
/// Looks that are remembered: one hour.
pub const METRICS_KEPT: usize = 720;
/// For how long after the last question a sandbox's daemon is asked for the disk at each look.
pub const METRICS_WATCHED: Duration = Duration::from_secs(60);
/// How long a sandbox's daemon may take to say what it uses.
pub const METRICS_TIME: Duration = Duration::from_secs(2);
/// The daemon's answer about what it uses, in bytes.
pub const METRICS_ANSWER: usize = 16 << 10;
/// Over how long limits that were met are told when no time is said.
pub const MET_TIME: Duration = Duration::from_secs(60);
/// Times at which limits were met that are remembered of a sandbox.
pub const MET_KEPT: usize = 64;
/// Sandboxes in one question for metrics.
pub const METRICS_BATCH: usize = 100;
/// Events that are remembered of a sandbox.
pub const EVENTS_KEPT: usize = 200;
/// Of an ended sandbox.
pub const EVENTS_KEPT_ENDED: usize = 32;
/// Entries in one answer of a sandbox's logs.
pub const LOGS_PAGE: usize = 1000;
/// Idempotency keys that are remembered for one owner.
pub const IDEMPOTENCY_KEYS: usize = 1024;
/// How long they are.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(86_400);
/// Length of an idempotency key.
pub const IDEMPOTENCY_KEY_LEN: usize = 255;
/// How much of a refused request's body is read and dropped, in bytes, so that its connection can be used again.
pub const UNREAD_BODY: usize = 16 << 20;
/// For how long.
pub const UNREAD_TIME: Duration = Duration::from_secs(5);
