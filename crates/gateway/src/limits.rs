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
/// Templates of one owner.
pub const TEMPLATES: i64 = 1000;
/// Builds of one template that are remembered beside those that have a tag.
pub const BUILDS_KEPT: i64 = 20;
/// Builds of one server that are under way at once; others wait for their turn.
pub const BUILDS_AT_ONCE: usize = 2;
/// Builds of one server that wait or are under way.
pub const BUILDS_WAITING: usize = 64;
/// How long a build may take, waiting for its turn not counted.
pub const BUILD_TIME: Duration = Duration::from_secs(2 * 3600);
/// How long one command of a build may take.
pub const BUILD_STEP_TIME: Duration = Duration::from_secs(3600);
/// How long what the server itself does in a sandbox of a build may take: users, folders, files.
pub const BUILD_OWN_TIME: Duration = Duration::from_secs(600);
/// How long a ready command of a build is repeated until it succeeds.
pub const BUILD_READY_TIME: Duration = Duration::from_secs(600);
/// How long a start command that has no ready command has to go well in a build.
pub const BUILD_START_TIME: Duration = Duration::from_secs(20);
/// How long the ready command of a new sandbox is repeated; then it is handed out as it is.
pub const START_READY_TIME: Duration = Duration::from_secs(30);
/// How often a ready command is repeated.
pub const READY_EVERY: Duration = Duration::from_millis(250);
/// How long the end of a build is waited for when the server stops.
pub const BUILD_CANCEL_TIME: Duration = Duration::from_secs(10);
/// Lines of a build's log.
pub const BUILD_LOG_LINES: usize = 20_000;
/// Length of one of them in bytes.
pub const BUILD_LOG_LINE: usize = 4 << 10;
/// How long lines are gathered before they are written.
pub const BUILD_LOG_EVERY: Duration = Duration::from_millis(100);
/// Last lines of the log that come with the reason of a failure.
pub const BUILD_REASON_LINES: u32 = 10;
/// Length of a command or of another argument of a step, in bytes.
pub const BUILD_ARGUMENT: usize = 128 << 10;
/// Layers of one image.
pub const IMAGE_LAYERS: usize = 256;
/// Layers of an image that are fetched ahead of the one that is unpacked.
pub const IMAGE_AHEAD: usize = 3;
/// Bytes of the files of one layer of an image.
pub const LAYER_BYTES: u64 = 32 << 30;
/// Files of one layer of an image.
pub const LAYER_FILES: u64 = 2_000_000;
/// Steps and layers that later builds find again.
pub const CACHED_MOST: i64 = 2000;
/// For how long after their last use.
pub const CACHED_KEPT: Duration = Duration::from_secs(14 * 86_400);
/// Bytes of the packed files of one build step.
pub const UPLOAD_BYTES: u64 = 4 << 30;
/// Bytes of those of all.
pub const UPLOADS_TOTAL: u64 = 16 << 30;
/// How long they are kept after their last use.
pub const UPLOADS_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How long they are kept at least where room is needed: their build may not have begun.
pub const UPLOAD_STALE: Duration = Duration::from_secs(3600);
/// How long bringing them may take.
pub const UPLOAD_TIME: Duration = Duration::from_secs(3600);
/// How long the URL to bring them to is good.
pub const TICKET_TIME: Duration = Duration::from_secs(3600);
/// How often what builds left is looked through.
pub const TEMPLATES_PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// A message of the daemon about a process that the server runs, in bytes.
pub const COMMAND_MESSAGE: usize = 4 << 20;
/// How much longer than its deadline such a process is waited for.
pub const COMMAND_GRACE: Duration = Duration::from_secs(5);
