//! Limits of the protocol that client and server share. Bytes unless the name says otherwise.

/// The largest body of a control-plane request or answer.
pub const REST_BODY: usize = 4 << 20;
/// The largest message of an envd RPC, one way.
pub const RPC_MESSAGE: usize = 64 << 20;
/// Pairs of metadata on a sandbox.
pub const METADATA_PAIRS: usize = 64;
/// Length of a metadata key or value.
pub const METADATA_LEN: usize = 1024;
/// Environment variables in one request.
pub const ENV_PAIRS: usize = 1024;
/// Timeout of a sandbox in seconds when a v2 create names none.
pub const DEFAULT_TIMEOUT_S: u64 = 300;
/// Timeout of a sandbox in seconds when a v1 create names none.
pub const DEFAULT_TIMEOUT_V1_S: u64 = 15;
/// Longest timeout of a sandbox in seconds that is accepted by default: 24 hours.
pub const MAX_TIMEOUT_S: u64 = 86_400;
/// Entries in one page of a sandbox list.
pub const LIST_PAGE: usize = 100;
/// Forks of one request.
pub const FORKS: usize = 20;
/// Seconds of silence before a keepalive event when the client names none.
pub const KEEPALIVE_S: u64 = 90;
/// How long the end of a process is kept for a late `Connect`, in seconds.
pub const END_RETAINED_S: u64 = 30;
/// Chunks in which a pipe's output is read.
pub const PIPE_CHUNK: usize = 32 << 10;
/// Chunks in which a terminal's output is read.
pub const PTY_CHUNK: usize = 16 << 10;
/// The boot message and its answer.
pub const BOOT_MESSAGE: usize = 128 << 10;
/// File metadata: all names and values of one file.
pub const FILE_METADATA_TOTAL: usize = 4096;
/// File metadata: one name.
pub const FILE_METADATA_KEY: usize = 246;
/// Processes in one list of all of a sandbox.
pub const PROCESSES: usize = 4096;
/// Command line of one process in such a list; the rest is cut.
pub const PROCESS_COMMAND: usize = 1024;
/// How long ending a process is waited for, in milliseconds.
pub const KILL_WAIT_MS: u64 = 5000;
/// Output that a sandbox's commands print together in a second, unless its maker says otherwise. Who prints more is slowed
/// down, as by a pipe that is read slowly.
pub const OUTPUT_RATE: u64 = 32 << 20;
/// The least that can be asked for.
pub const OUTPUT_RATE_MIN: u64 = 64 << 10;
/// The most.
pub const OUTPUT_RATE_MAX: u64 = 4 << 30;
/// Jobs of a sandbox that run at once, unless its maker says otherwise. A command that is waited for is one, too.
pub const JOBS: u64 = 64;
/// The most that can be asked for.
pub const JOBS_MAX: u64 = 4096;
/// Newest output of a job that its sandbox keeps, for each of its two streams, unless its maker says otherwise.
pub const LOG_BYTES: u64 = 512 << 10;
/// The least that can be asked for.
pub const LOG_BYTES_MIN: u64 = 4 << 10;
/// The most: what all jobs of a sandbox keep together.
pub const LOG_BYTES_MAX: u64 = 32 << 20;
/// Lines of a build's log in one answer.
pub const BUILD_LOG_PAGE: usize = 100;
/// Steps of one build.
pub const BUILD_STEPS: usize = 500;
/// Templates in one list.
pub const TEMPLATE_PAGE: usize = 100;
/// Tags in one request, and on one template.
pub const TEMPLATE_TAGS: usize = 100;
/// Length of a template's name or tag.
pub const TEMPLATE_NAME: usize = 128;
