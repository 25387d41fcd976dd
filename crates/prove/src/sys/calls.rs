//! Calls that a sandbox has no business with, one each. The arguments are wrong on purpose where a success would do
//! something to the host: what shows is whether the kernel looks at them.

use std::ffi::{CStr, c_long};

use super::{call, clone_with, clone3_with, pad, socket};

/// One call.
pub(crate) struct Call {
    pub(crate) id: &'static str,
    pub(crate) group: usize,
    pub(crate) title: &'static str,
    pub(crate) make: fn() -> Result<usize, i32>,
}

const NONE: usize = usize::MAX;
const HERE: usize = (libc::AT_FDCWD as isize).cast_unsigned();
static ZEROES: [u64; 32] = [0; 32];

fn zeroes() -> usize {
    ZEROES.as_ptr() as usize
}

fn text(text: &'static CStr) -> usize {
    text.as_ptr() as usize
}

fn own() -> usize {
    std::process::id() as usize
}

fn namespace(flag: i32) -> Result<usize, i32> {
    call(libc::SYS_unshare, pad([flag as usize]))
}

fn with<const N: usize>(number: c_long, args: [usize; N]) -> Result<usize, i32> {
    call(number, pad(args))
}

/// Joins the namespace that it is in already.
fn join_own() -> Result<usize, i32> {
    let file = std::fs::File::open("/proc/self/ns/uts").map_err(|error| error.raw_os_error().unwrap_or(0))?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file).cast_unsigned() as usize;
    with(libc::SYS_setns, [fd, 0])
}

fn fsopen(kind: &'static CStr) -> Result<usize, i32> {
    with(libc::SYS_fsopen, [text(kind), 0])
}

/// Traces a child, the plainest use of ptrace.
fn trace_child() -> Result<usize, i32> {
    let child = super::sleeper().ok_or(libc::EAGAIN)?;
    let result = with(
        libc::SYS_ptrace,
        [libc::PTRACE_SEIZE as usize, child.cast_unsigned() as usize, 0, 0],
    );
    super::end(child);
    result
}

/// Copies a word of a child's memory.
fn read_child() -> Result<usize, i32> {
    let word = 7u64;
    let mut copy = 0u64;
    let child = super::sleeper().ok_or(libc::EAGAIN)?;
    let part = |address: usize| [address, size_of::<u64>()];
    let (local, remote) = (part(&raw mut copy as usize), part(&raw const word as usize));
    let child_id = child.cast_unsigned() as usize;
    let (local, remote) = (local.as_ptr() as usize, remote.as_ptr() as usize);
    let result = call(libc::SYS_process_vm_readv, [child_id, local, 1, remote, 1, 0]);
    super::end(child);
    result
}

/// The old 32-bit door, with `socketcall` behind it: getpid by `int 0x80`.
#[cfg(target_arch = "x86_64")]
fn int80() -> Result<usize, i32> {
    let result: i32;
    // SAFETY: getpid (20) touches no memory; the registers that the kernel changes are named.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    usize::try_from(result).map_err(|_| -result)
}

#[cfg(not(target_arch = "x86_64"))]
fn int80() -> Result<usize, i32> {
    Err(libc::ENOSYS)
}

#[cfg(target_arch = "x86_64")]
fn x86(number: c_long, args: [usize; 3]) -> Result<usize, i32> {
    with(number, args)
}

macro_rules! calls {
    ($($group:literal $id:literal $title:literal => $make:expr;)*) => {
        /// All of them. Those of the namespaces are real: the attempt's own process would be in a new one.
        pub(crate) const CALLS: &[Call] = &[$(
            Call { id: $id, group: $group, title: $title, make: || $make },
        )*];
    };
}

calls! {
    4 "unshare-user" "make a user namespace" => namespace(libc::CLONE_NEWUSER);
    4 "unshare-mount" "make a mount namespace" => namespace(libc::CLONE_NEWNS);
    4 "unshare-net" "make a network namespace" => namespace(libc::CLONE_NEWNET);
    4 "unshare-pid" "make a process namespace" => namespace(libc::CLONE_NEWPID);
    4 "unshare-ipc" "make an IPC namespace" => namespace(libc::CLONE_NEWIPC);
    4 "unshare-cgroup" "make a cgroup namespace" => namespace(libc::CLONE_NEWCGROUP);
    4 "unshare-time" "make a time namespace" => namespace(0x80);
    4 "clone-user" "fork into a user namespace (clone)" => clone_with(libc::CLONE_NEWUSER);
    4 "clone-user-net" "fork into user and network namespaces, the way to nf_tables (CVE-2024-1086)" => clone_with(libc::CLONE_NEWUSER | libc::CLONE_NEWNET);
    4 "clone3-user" "fork into a user namespace (clone3)" => clone3_with(libc::CLONE_NEWUSER);
    4 "setns" "join a namespace" => join_own();
    4 "mount" "mount a file system" => with(libc::SYS_mount, [text(c"none"), text(c"/nonexistent"), text(c"tmpfs"), 0, 0]);
    4 "remount" "remount without read-only" => with(libc::SYS_mount, [0, text(c"/nonexistent"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as usize, 0]);
    4 "umount" "unmount a cover" => with(libc::SYS_umount2, [text(c"/nonexistent"), libc::MNT_DETACH as usize]);
    4 "pivot-root" "change the root of the namespace" => with(libc::SYS_pivot_root, [text(c"/nonexistent"), text(c"/nonexistent")]);
    4 "fsopen" "make a file system (fsopen)" => fsopen(c"tmpfs");
    4 "fspick" "reconfigure a file system (fspick)" => with(libc::SYS_fspick, [HERE, text(c"/nonexistent"), 0]);
    4 "open-tree" "copy the whole tree of mounts" => with(libc::SYS_open_tree, [HERE, text(c"/"), 0x8001]);
    4 "move-mount" "move a mount" => with(libc::SYS_move_mount, [NONE, text(c""), NONE, text(c""), 4]);
    4 "mount-setattr" "change a mount's attributes" => with(libc::SYS_mount_setattr, [NONE, text(c""), 0x1000, zeroes(), 32]);
    2 "fsopen-cgroup" "mount the cgroup tree anew" => fsopen(c"cgroup2");
    3 "fsopen-debugfs" "mount the kernel's debug file system" => fsopen(c"debugfs");
    3 "fsopen-tracefs" "mount the kernel's trace file system" => fsopen(c"tracefs");
    6 "int80" "the 32-bit calls, with a socketcall that filters cannot read" => int80();
    6 "x32-socket" "a socket by the x32 calls" => call(0x4000_0000 | libc::SYS_socket, pad([38, 5, 0]));
    7 "bpf" "load a BPF program" => with(libc::SYS_bpf, [5, 0, 0]);
    7 "io-uring-setup" "make an io_uring" => with(libc::SYS_io_uring_setup, [1, 0]);
    7 "io-uring-enter" "enter an io_uring" => call(libc::SYS_io_uring_enter, pad([NONE, 0, 0, 0, 0]));
    7 "io-uring-register" "register with an io_uring" => with(libc::SYS_io_uring_register, [NONE, 0, 0, 0]);
    7 "userfaultfd" "handle page faults (userfaultfd)" => with(libc::SYS_userfaultfd, [1]);
    7 "keyctl" "the session's keyring" => with(libc::SYS_keyctl, [0, (-3isize).cast_unsigned(), 0]);
    7 "add-key" "add a key" => call(libc::SYS_add_key, pad([text(c"user"), text(c"sandhold-prove"), zeroes(), 1, (-1isize).cast_unsigned()]));
    7 "request-key" "look for a key of the host" => with(libc::SYS_request_key, [text(c"user"), text(c"sandhold-none"), 0, 0]);
    7 "perf-event-open" "watch the processor's events" => call(libc::SYS_perf_event_open, pad([0, 0, NONE, NONE, 0]));
    7 "kexec-load" "load another kernel" => with(libc::SYS_kexec_load, [0, NONE, 0, 0]);
    7 "kexec-file-load" "load another kernel from a file" => call(libc::SYS_kexec_file_load, pad([NONE, NONE, 0, 0, NONE]));
    7 "init-module" "load a module" => with(libc::SYS_init_module, [0, 0, 0]);
    7 "finit-module" "load a module from a file" => with(libc::SYS_finit_module, [NONE, text(c""), 0]);
    7 "delete-module" "remove a module" => with(libc::SYS_delete_module, [text(c"sandhold_none"), 0x800]);
    7 "name-to-handle-at" "get a file's handle" => call(libc::SYS_name_to_handle_at, pad([HERE, text(c"/nonexistent"), zeroes(), zeroes(), 0]));
    7 "open-by-handle-at" "open a file of the host by handle (\"shocker\")" => with(libc::SYS_open_by_handle_at, [NONE, zeroes(), 0]);
    7 "reboot" "restart the machine" => with(libc::SYS_reboot, [0, 0, 0, 0]);
    7 "swapon" "add swap" => with(libc::SYS_swapon, [text(c"/nonexistent"), 0]);
    7 "swapoff" "remove swap" => with(libc::SYS_swapoff, [text(c"/nonexistent")]);
    7 "settimeofday" "set the clock" => with(libc::SYS_settimeofday, [0, 0]);
    7 "clock-settime" "set the clock (clock_settime)" => with(libc::SYS_clock_settime, [0, NONE]);
    7 "adjtimex" "tune the clock" => { let tune = [1u64; 64]; with(libc::SYS_adjtimex, [tune.as_ptr() as usize]) };
    7 "ptrace" "trace a process" => trace_child();
    7 "process-vm-readv" "read a process's memory" => read_child();
    7 "process-vm-writev" "write a process's memory" => call(libc::SYS_process_vm_writev, [own(), 0, 0, 0, 0, 0]);
    7 "process-madvise" "steer a process's memory" => call(libc::SYS_process_madvise, pad([NONE, 0, 0, 0, 0]));
    7 "kcmp" "compare kernel objects of processes" => call(libc::SYS_kcmp, pad([own(), own(), 0, 0, 0]));
    7 "personality" "turn address randomization off" => with(libc::SYS_personality, [0x0004_0000]);
    7 "vmsplice" "splice memory pages" => with(libc::SYS_vmsplice, [NONE, 0, 0, 0]);
    7 "acct" "process accounting to a file" => with(libc::SYS_acct, [text(c"/nonexistent")]);
    7 "quotactl" "disk quotas" => with(libc::SYS_quotactl, [0, 0, 0, 0]);
    7 "syslog" "the kernel's log" => with(libc::SYS_syslog, [10, 0, 0]);
    7 "sethostname" "set the host name" => with(libc::SYS_sethostname, [zeroes(), NONE]);
    7 "setdomainname" "set the domain name" => with(libc::SYS_setdomainname, [zeroes(), NONE]);
    7 "fanotify" "watch whole file systems (fanotify)" => with(libc::SYS_fanotify_init, [0, 0]);
    7 "mbind" "bind memory to a node" => call(libc::SYS_mbind, [0, 0, 0, 0, 0, 0]);
    7 "move-pages" "move a process's pages" => call(libc::SYS_move_pages, [0, 0, 0, 0, 0, 0]);
    7 "set-mempolicy" "memory policy" => with(libc::SYS_set_mempolicy, [0, 0, 0]);
    8 "tiocsti-masked" "push characters into a terminal, with upper bits set (CVE-2019-10063)" => with(libc::SYS_ioctl, [NONE, libc::TIOCSTI as usize | 1 << 32, zeroes()]);
    8 "tioclinux" "the console's paste (TIOCLINUX)" => with(libc::SYS_ioctl, [NONE, 0x541c, zeroes()]);
    8 "tiocsetd" "load a line discipline (TIOCSETD)" => with(libc::SYS_ioctl, [NONE, 0x5423, zeroes()]);
    6 "socket-uevent" "the kernel's device events (netlink)" => socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT);
    6 "socket-audit" "the kernel's audit (netlink)" => socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT);
    6 "socket-generic" "generic netlink, with its many families" => socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_GENERIC);
}

/// Calls of x86_64 alone.
#[cfg(target_arch = "x86_64")]
pub(crate) const OLD_CALLS: &[Call] = &[
    Call {
        id: "modify-ldt",
        group: 7,
        title: "the processor's segment table",
        make: || x86(libc::SYS_modify_ldt, [0, 0, 0]),
    },
    Call {
        id: "iopl",
        group: 7,
        title: "the processor's ports (iopl)",
        make: || x86(libc::SYS_iopl, [0, 0, 0]),
    },
    Call {
        id: "ioperm",
        group: 7,
        title: "one port of the processor (ioperm)",
        make: || x86(libc::SYS_ioperm, [0x80, 1, 0]),
    },
];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const OLD_CALLS: &[Call] = &[];
