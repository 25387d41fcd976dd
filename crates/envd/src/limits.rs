//! Limits of the daemon. Those that clients must know too are in `sandhold_wire::limits`.

use std::time::Duration;

/// Bytes of output that a subscriber may leave unread before its process is held.
pub(crate) const UNREAD_OUTPUT: usize = 1 << 20;
/// How long a process may print faster than the sandbox's rate, as so much time's worth of it.
pub(crate) const OUTPUT_BURST: Duration = Duration::from_millis(250);
/// What one queued event costs beyond its bytes.
pub(crate) const EVENT_OVERHEAD: usize = 128;
/// Silence on the outputs of an ended process, held open by what it left behind, after which the stream ends.
pub(crate) const OUTPUT_QUIET: Duration = Duration::from_secs(2);
/// Bytes that are still read from a process that was told to end, after it did: what a pipe can hold.
pub(crate) const OUTPUT_AFTER_KILL: usize = 1 << 20;
/// Output that all jobs keep together; beyond it a job keeps less of its own.
pub(crate) const RETAINED_TOTAL: usize = 32 << 20;
/// Of that, what jobs that ended may keep; beyond it the oldest of them are forgotten.
pub(crate) const RETAINED_ENDED: usize = 8 << 20;
/// How long a job that ended is remembered.
pub(crate) const RETAINED_FOR: Duration = Duration::from_secs(6 * 3600);
/// Of a job's command, the characters that are shown.
pub(crate) const JOB_COMMAND: usize = 1024;
/// Ended processes that are remembered for a late `Connect`.
pub(crate) const ENDED_PROCESSES: usize = 1024;
/// Threads for blocking file operations.
pub(crate) const BLOCKING_THREADS: usize = 8;
/// How long an unused blocking thread stays. For good: when the sandbox has no process left to give, such as under a fork
/// bomb, no new thread starts, and without any the daemon could answer no request about files.
pub(crate) const BLOCKING_IDLE: Duration = Duration::from_secs(u32::MAX as u64);
/// Stack of a blocking thread.
pub(crate) const THREAD_STACK: usize = 512 << 10;
/// Connections that are served at once.
pub(crate) const CONNECTIONS: usize = 1024;
/// The largest head of a request.
pub(crate) const REQUEST_HEAD: usize = 64 << 10;
/// Bytes of `/etc/passwd` or `/etc/group` that are read: they belong to the sandbox.
pub(crate) const ACCOUNT_FILE: u64 = 4 << 20;
/// Buffer of a tunnel, each way.
pub(crate) const TUNNEL_BUFFER: usize = 32 << 10;
/// How long a tunnel waits for the port to answer.
pub(crate) const TUNNEL_CONNECT: Duration = Duration::from_secs(10);
/// What an archive is sent in.
pub(crate) const ARCHIVE_CHUNK: usize = 64 << 10;
/// Chunks of an archive that wait for the other side.
pub(crate) const ARCHIVE_CHUNKS: usize = 4;
/// Bytes of a file that are read or written at once for an archive.
pub(crate) const ARCHIVE_READ: usize = 64 << 10;
/// Depth of folders in an archive: each costs an open descriptor.
pub(crate) const ARCHIVE_DEPTH: usize = 1000;
/// Bytes of extended records before one entry of an archive: two paths and what attributes may take.
pub(crate) const ARCHIVE_RECORDS: usize = 4 << 20;
/// Pieces of one sparse file in an archive; a file in more pieces is stored whole.
pub(crate) const ARCHIVE_SEGMENTS: usize = 16 << 10;
/// Bytes of one extended attribute, or of the list of their names: the kernel's own limit.
pub(crate) const ARCHIVE_XATTRS: usize = 64 << 10;
/// The first packet of a caller of `sudo` names a user: bytes of the name.
pub(crate) const SUDO_USER_NAME: usize = 256;
/// Bytes of one packet between `sudo` and what runs its command.
pub(crate) const SUDO_PACKET: usize = 16 << 10;
/// Arguments and environment of one `sudo`.
pub(crate) const SUDO_REQUEST: usize = 1 << 20;
/// Callers of `sudo` that wait in the kernel.
pub(crate) const SUDO_BACKLOG: i32 = 64;
/// Callers of `sudo` that are being answered at once.
pub(crate) const SUDO_CALLERS: usize = 32;
/// How long a caller of `sudo` may take to say what they want.
pub(crate) const SUDO_PATIENCE: Duration = Duration::from_secs(10);
/// How long a command outlives the `sudo` that it was started by, if it does not end by itself.
pub(crate) const SUDO_GRACE: Duration = Duration::from_secs(1);
/// Bytes that are copied at once between two terminals.
pub(crate) const SUDO_COPY: usize = 16 << 10;
/// Bytes of a body that are read although its request was refused.
pub(crate) const REFUSED_BODY: usize = 64 << 10;
/// How long they are waited for.
pub(crate) const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// Processes of a session that are looked at to see whether one waits for input.
pub(crate) const AWAITING_SCAN: usize = 4096;
/// How often one that waits is looked at until its output is with the listeners, and the pause between two looks.
pub(crate) const AWAITING_LOOKS: usize = 20;
pub(crate) const AWAITING_PAUSE: Duration = Duration::from_millis(5);
/// Listening sockets that are told.
pub(crate) const PORTS: usize = 512;
/// Bytes of `/proc/net/tcp` that are read.
pub(crate) const PORTS_TABLE: u64 = 4 << 20;
/// Processes that are looked at to find who listens, and which are busiest.
pub(crate) const PORTS_PROCESSES: usize = 8192;
/// Descriptors of one process that are looked at.
pub(crate) const PORTS_DESCRIPTORS: usize = 16 << 10;
/// Bytes of a command line that are told.
pub(crate) const PORTS_COMMAND: usize = 300;
/// Over how long the busiest processes are watched.
pub(crate) const BUSY_WATCH: Duration = Duration::from_millis(150);
/// How many of them are told at most.
pub(crate) const BUSY: usize = 50;
/// Looks at the sockets and processes at the same time.
pub(crate) const PORTS_LOOKS: usize = 2;
/// The first pause between two tries of a port that is waited for; it doubles.
pub(crate) const READY_PAUSE: Duration = Duration::from_millis(1);
/// The longest. A try costs some 50 µs.
pub(crate) const READY_PAUSE_MAX: Duration = Duration::from_millis(5);
/// How long a port is waited for at most.
pub(crate) const READY_TIME: Duration = Duration::from_secs(60);
/// Ports that are waited for at the same time.
pub(crate) const READY_WAITERS: usize = 64;
/// Length of a path that is asked for to see whether a server is ready.
pub(crate) const READY_PATH: usize = 4096;
/// Bytes of an answer that are read so that its server is not cut off, and for how long.
pub(crate) const READY_DRAIN: u64 = 1 << 20;
pub(crate) const READY_DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long a request that is made for a client may take at most.
pub(crate) const PROBE_TIME: Duration = Duration::from_secs(60);
/// Bytes of its answer's body that are told at most.
pub(crate) const PROBE_BODY: usize = 8 << 20;
/// Bytes of its answer's head.
pub(crate) const PROBE_HEAD: usize = 64 << 10;
/// Such requests at the same time.
pub(crate) const PROBES: usize = 32;
/// Bytes of `/etc/hosts` that are read.
pub(crate) const HOSTS_FILE: u64 = 256 << 10;

/// Packing and unpacking at once: each holds a thread.
pub(crate) const BUNDLES: usize = 2;
/// How long one packing or unpacking may take.
pub(crate) const BUNDLE_TIME: Duration = Duration::from_secs(3600);
/// How often one that goes on tells how far it is.
pub(crate) const BUNDLE_TELL: Duration = Duration::from_millis(500);
/// Depth of folders in a zip file or tar.gz: each costs an open descriptor.
pub(crate) const BUNDLE_DEPTH: usize = 400;
/// Entries of a zip file or tar.gz: each costs memory.
pub(crate) const BUNDLE_ENTRIES: usize = 500_000;
/// All paths and link targets of an archive that is unpacked, together.
pub(crate) const BUNDLE_NAMES: usize = 64 << 20;
/// Bytes of memory that an entry of an archive takes while it is unpacked, beside its names, which are held twice.
pub(crate) const UNPACK_ENTRY: u64 = 400;
/// This part of the memory is for the list of what is unpacked: the sandbox's where its cgroup is seen from inside, else the
/// machine's.
pub(crate) const UNPACK_MEMORY_PART: u64 = 8;
/// One path or link target: the kernel's own limit.
pub(crate) const BUNDLE_PATH: usize = 4096;
/// Paths that an answer lists of those left out.
pub(crate) const BUNDLE_LISTED: usize = 20;
/// Pieces in which files are deflated, side by side.
pub(crate) const BUNDLE_PIECE: usize = 256 << 10;
/// Pieces that are being deflated or wait to be written.
pub(crate) const BUNDLE_PIECES: usize = 64;
/// Threads that deflate.
pub(crate) const BUNDLE_THREADS: usize = 4;
/// What is unpacked may be so many times larger than its archive...
pub(crate) const UNPACK_RATIO: u64 = 250;
/// ... once it is larger than this.
pub(crate) const UNPACK_RATIO_FROM: u64 = 1 << 30;
/// Bytes of a tar archive between two contents: headers and long names.
pub(crate) const UNPACK_HEAD: u64 = 1 << 20;
/// Between the two looks that tell what processes use of a processor.
pub(crate) const PROCESSES_LOOK: Duration = Duration::from_millis(200);
/// What is read of one file of a process below `/proc`.
pub(crate) const PROC_FILE: u64 = 16 << 10;
