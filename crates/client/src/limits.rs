//! Times, sizes and counts that the client keeps to.

use std::time::Duration;

/// A whole control-plane call with its retries, and a whole unary RPC.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The probe that tells a dead sandbox from a broken connection.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Setting up a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept.
pub(crate) const POOL_IDLE: Duration = Duration::from_secs(300);
/// Silence after which an HTTP/2 connection is asked whether it lives.
pub(crate) const HTTP2_PING: Duration = Duration::from_secs(30);
/// Seconds of silence after which a stream is asked to send a keepalive.
pub(crate) const KEEPALIVE_S: u64 = 50;
/// Silence after which a process stream counts as broken: two keepalives, even at the 90 s that servers take on their own.
pub(crate) const STREAM_SILENCE: Duration = Duration::from_secs(200);
/// How long a reader that comes back late waits at least, so that what has arrived meanwhile reaches it.
pub(crate) const STREAM_GRACE: Duration = Duration::from_millis(250);
/// A file transfer that moves nothing for this long is given up.
pub(crate) const TRANSFER_IDLE: Duration = Duration::from_secs(60);

/// Retries of a control-plane call after the first try.
pub(crate) const RETRIES: u32 = 3;
/// Retries of setting up a connection.
pub(crate) const CONNECT_RETRIES: u32 = 3;
/// The first wait between two tries; it doubles.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How much of a refusal's body is read.
pub(crate) const ERROR_BODY: usize = 64 << 10;
/// How much of a refusal that is not JSON is shown.
pub(crate) const ERROR_TEXT: usize = 512;
/// The list of a sandbox's jobs.
pub(crate) const JOBS_ANSWER: usize = 4 << 20;
/// The answer of a search.
pub(crate) const SEARCH_ANSWER: usize = 16 << 20;

/// A list of all processes.
pub(crate) const PROCESSES_ANSWER: usize = 16 << 20;
/// How long a script may run that looks at processes or signals one.
pub(crate) const SCRIPT_TIMEOUT: Duration = Duration::from_secs(30);

/// One piece of standard input.
pub(crate) const STDIN_CHUNK: usize = 512 << 10;
/// What a helper command may print to standard error before the rest is dropped.
pub(crate) const HELPER_STDERR: usize = 16 << 10;
/// What `find` or `grep` may print in a sandbox without a search of its own.
pub(crate) const HELPER_STDOUT: usize = 16 << 20;
/// Longest path of what `find` or `git` names there: that of the kernel.
pub(crate) const SEARCH_PATH: usize = 4096;
/// How long `find` or `grep` may run there.
pub(crate) const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a server in the sandbox is waited for, or a request made there may take: less than a call, so that its answer
/// comes as one.
pub(crate) const SERVICE_TIME: Duration = Duration::from_secs(50);
/// The answer about listening ports and busy processes.
pub(crate) const PORTS_ANSWER: usize = 2 << 20;
/// Listening sockets that are told.
pub(crate) const PORTS: usize = 512;
/// Bytes of a body that are asked for of a request made in the sandbox.
pub(crate) const PROBE_BODY: usize = 8 << 20;
/// Such an answer: the body in base64, and its headers.
pub(crate) const PROBE_ANSWER: usize = 12 << 20;
/// How long packing or unpacking may take there.
pub(crate) const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(3600);

/// How often a build is asked how far it is.
pub(crate) const BUILD_POLL: Duration = Duration::from_millis(200);
/// How long bringing the files of one step to the server may take.
pub(crate) const BUILD_UPLOAD: Duration = Duration::from_secs(3600);
/// What such a file is read in.
pub(crate) const UPLOAD_PIECE: usize = 256 << 10;
