//! Every limit of the engine. Bytes unless the name says otherwise.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

/// Memory of a sandbox that asks for none, its tmpfs included.
pub const MEMORY_DEFAULT: u64 = 2 << 30;
/// Least memory of a sandbox: below it not even an interpreter starts.
pub const MEMORY_MIN: u64 = 16 << 20;
/// Most memory of a sandbox.
pub const MEMORY_MAX: u64 = 1 << 40;
/// Processes and threads of a sandbox that asks for none.
pub const PIDS_DEFAULT: u64 = 512;
/// Least processes and threads.
pub const PIDS_MIN: u64 = 8;
/// Most processes and threads.
pub const PIDS_MAX: u64 = 1 << 20;
/// Least processors, in fractions: the kernel's smallest quota is one millisecond in a hundred.
pub const CPUS_MIN: f64 = 0.01;
/// Most processors.
pub const CPUS_MAX: f64 = 1024.0;
/// Writable root of a sandbox that asks for none. It is a tmpfs, so what is written counts as memory too.
pub const DISK_DEFAULT: u64 = disk_max(MEMORY_DEFAULT);
/// Least writable root.
pub const DISK_MIN: u64 = 1 << 20;
/// Most writable root.
pub const DISK_MAX: u64 = 1 << 40;
/// The largest writable root beside this much memory. A full disk must meet its own limit before that of memory: at the
/// limit of memory the kernel kills, at that of the disk a program is told. The rest is for the inodes and for processes.
pub const fn disk_max(memory: u64) -> u64 {
    memory / 8 * 5
}
/// Files and folders of a sandbox that asks for none.
pub const INODES_DEFAULT: u64 = 200_000;
/// Least files and folders; the engine's own skeleton takes about a hundred.
pub const INODES_MIN: u64 = 256;
/// Most files and folders.
pub const INODES_MAX: u64 = 100_000_000;
/// Open files of a process in a sandbox that asks for none. Never more than the server's own hard limit.
pub const OPEN_FILES_DEFAULT: u64 = 4096;
/// Least open files of a process.
pub const OPEN_FILES_MIN: u64 = 64;
/// Most open files of a process.
pub const OPEN_FILES_MAX: u64 = 1 << 20;
/// Sandboxes at once when the configuration names no number.
pub const SANDBOXES_DEFAULT: usize = 1024;

/// What a sandbox gets that asks for nothing, by an engine that was told nothing else.
#[must_use]
pub fn usual() -> sandhold_runtime::Resources {
    sandhold_runtime::Resources {
        memory_bytes: Some(MEMORY_DEFAULT),
        cpus: Some(std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)),
        pids: Some(PIDS_DEFAULT),
        disk_bytes: Some(DISK_DEFAULT),
        inodes: Some(INODES_DEFAULT),
        open_files: Some(OPEN_FILES_DEFAULT),
    }
}

/// Most that `/dev/shm` of a sandbox holds; what is in it counts as memory.
const SHM_MAX: u64 = 256 << 20;
/// `/dev/shm` beside this much memory.
pub(crate) const fn shm_bytes(memory: u64) -> u64 {
    let share = memory / 8;
    if share < SHM_MAX { share } else { SHM_MAX }
}
/// Terminals of one sandbox; without a limit one sandbox could take all that the machine has.
pub(crate) const TERMINALS: u32 = 256;
/// How much sooner than the host's own processes those of a sandbox are ended when the machine runs out of memory, in
/// thousandths of the machine's memory.
pub(crate) const OOM_SCORE: u32 = 300;
/// Memory that a process may lock.
pub(crate) const LOCKED_BYTES: u64 = 8 << 20;
/// Bytes in POSIX message queues.
pub(crate) const QUEUE_BYTES: u64 = 819_200;
/// The period of the processor quota, in microseconds.
pub(crate) const CPU_PERIOD_US: u64 = 100_000;

/// What a sandbox that waits for the others has of 1024 where the kernel cannot run it only when they do not want to.
pub(crate) const CPU_SHARES_WAITING: u64 = 64;
/// The same of 100.
pub(crate) const CPU_WEIGHT_WAITING: u64 = 6;
/// How often what sandboxes take of the processors is looked at.
pub(crate) const FAIR_EVERY: std::time::Duration = std::time::Duration::from_millis(100);
/// A sandbox that takes more of one processor than this waits for the others.
pub(crate) const FAIR_BUSY: f64 = 0.75;
/// One that takes less is calm.
pub(crate) const FAIR_CALM: f64 = 0.4;
/// Looks in a row at which it has to be calm before it need not wait any more.
pub(crate) const FAIR_CALM_LOOKS: u32 = 10;

/// A message between engine and launcher.
pub(crate) const MESSAGE: usize = 64 << 10;
/// What a child may write about its failure or its phases.
pub(crate) const STATUS: usize = 4 << 10;
/// The boot message and its answer.
pub(crate) const BOOT_MESSAGE: usize = 128 << 10;
/// The init program's file.
pub(crate) const INIT_FILE: u64 = 256 << 20;
/// The host's certificate bundle and its `ld.so.cache`, each.
pub(crate) const HOST_FILE: u64 = 8 << 20;
/// Length of a sandbox's id and of a host name.
pub(crate) const NAME: usize = 63;

/// How long a sandbox may take from `create` to its boot answer, in seconds.
pub(crate) const BOOT_DEADLINE_S: u64 = 10;
/// How long the launcher may take to get ready, in seconds.
pub(crate) const LAUNCHER_DEADLINE_S: u64 = 10;
/// Seconds until an init program must have room for another connection.
pub(crate) const CONNECT_DEADLINE_S: u64 = 10;
/// How long a kill waits for the kernel to end the processes, in seconds, before it is logged as stuck.
pub(crate) const KILL_DEADLINE_S: u64 = 10;
/// How often a cgroup's removal is tried; the pauses double from 200 µs to 50 ms, 1.5 s in all.
pub(crate) const REMOVE_TRIES: u32 = 36;
/// How long a frozen state is waited for, in milliseconds.
pub(crate) const FREEZE_DEADLINE_MS: u64 = 2_000;

/// Where the private id ranges begin: inside systemd's range for containers.
pub(crate) const IDS_FIRST: u32 = 1_500_000_000;
/// Ids of one sandbox.
pub(crate) const IDS_PER_SANDBOX: u32 = 65_536;
/// Ranges in one block; a block belongs to one server.
pub(crate) const RANGES_PER_BLOCK: u32 = 64;
/// Blocks up to the end of systemd's range (0x6fff_ffff).
pub(crate) const BLOCKS: u32 = (0x6fff_ffff - IDS_FIRST) / (IDS_PER_SANDBOX * RANGES_PER_BLOCK);
/// Most mounts that a sandbox gets from the launcher, and most layers that are held in one root.
pub(crate) const MOUNTS: usize = 64;
/// Most layers of one root that are held in memory. Below [`MOUNTS`], with the mounts of a template.
pub(crate) const LAYERS_HELD: usize = 48;
/// Most stored layers of one root; then the highest [`LAYERS_MERGED`] become one. An overlay takes 500 (the kernel's
/// `OVL_MAX_STACK`).
pub(crate) const LAYERS_STORED: usize = 200;
/// See [`LAYERS_STORED`].
pub(crate) const LAYERS_MERGED: usize = 150;
/// How long a stored layer stays after it was last asked for, in seconds, although nobody uses it: whoever made it has to
/// write down that it does.
pub(crate) const LAYER_YOUNG_S: u64 = 600;
/// Bytes of a tar that an entry takes beside its content.
pub(crate) const TAR_OVERHEAD: u64 = 4096;
/// What a copy of a sandbox's files may take more than its disk, in bytes and files.
pub(crate) const COPY_SLACK: (u64, u64) = (1 << 20, 64);
/// A held layer on a file system of so many bytes is let go of by a process of its own: about a millisecond's work.
pub(crate) const LET_GO_BYTES: u64 = 8 << 20;
/// Longest answer of a process that works on layers.
pub(crate) const WORKED: usize = 64 << 20;
/// How long work on layers may take, in seconds.
pub(crate) const WORK_DEADLINE_S: u64 = 1800;
/// How long processes have to end after SIGKILL, in seconds, before a sandbox goes back to a layer.
pub(crate) const END_OTHERS_S: u64 = 5;
/// Files of a sandbox's border: its root and the folders in it.
pub(crate) const BORDER_INODES: u64 = 4;
/// The id of `user` inside.
pub(crate) const USER_ID: u32 = 1000;

/// How long after a sandbox was made the next spare one is: its caller's first command goes first.
pub(crate) const SPARE_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Spare sandboxes of all shapes together, by default.
pub(crate) const SPARES_MOST: usize = 16;
/// Shapes of spare sandboxes at once.
pub(crate) const SHAPES: usize = 16;
/// As many spare sandboxes of a shape are kept as were asked for in this time.
pub(crate) const SPARE_DEMAND: std::time::Duration = std::time::Duration::from_secs(10);
/// How long one is kept after the last was asked for.
pub(crate) const SPARE_IDLE: std::time::Duration = std::time::Duration::from_secs(300);
/// While less than one part in so many of the machine's memory is left, only those that are always kept are made.
pub(crate) const SPARE_MEMORY_SHARE: u64 = 8;

/// Where sandboxes that have no root file system of their own keep their files.
pub(crate) const PRIVATE_BASE: &str = "/var/tmp";
/// How many names are tried for a server's own folder there.
pub(crate) const SERVER_FOLDERS: usize = 64;
/// How often it is looked how much such a sandbox has written, in seconds.
pub(crate) const DISK_LOOK_S: u64 = 5;
/// What is copied at once to and from a sandbox that no descriptor can be passed to.
pub(crate) const BRIDGE_BUFFER: usize = 64 << 10;
/// How much of what `runsc` said about its failure is told, in characters.
pub(crate) const RUNSC_SAID: usize = 500;
