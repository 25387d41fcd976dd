//! Things that a sandbox must not be able to do, one system call each where possible. Called outside a sandbox they reach
//! the kernel and fail differently, or succeed; every one is chosen so that it changes nothing on the host even as root:
//! the file it names does not exist, the descriptor is none, or the process that it changes is its own and ends.
#![expect(unsafe_code, reason = "raw system calls are what is tested")]

use std::process::ExitCode;

use libc::{c_long, syscall};

/// 0, or the error's number.
type Outcome = i32;

pub(crate) fn run(name: &str) -> ExitCode {
    match try_it(name) {
        Some(outcome) => {
            use std::io::Write;
            let _ = writeln!(std::io::stdout(), "{outcome}");
            ExitCode::SUCCESS
        }
        None => ExitCode::from(2),
    }
}

fn call(number: c_long, args: [usize; 6]) -> Outcome {
    // SAFETY: the arguments below are null, small numbers, or pointers to data that outlives the call.
    let result = unsafe { syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if result >= 0 {
        0
    } else {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    }
}

fn pad<const N: usize>(args: [usize; N]) -> [usize; 6] {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&args);
    all
}

const NONE: usize = usize::MAX;

fn socket(family: i32, kind: i32, protocol: i32) -> Outcome {
    call(
        libc::SYS_socket,
        pad([family as usize, kind as usize, protocol as usize]),
    )
}

fn text(text: &'static std::ffi::CStr) -> usize {
    text.as_ptr() as usize
}

/// A clone that would make a namespace; the child ends at once.
fn clone_with(flags: i32) -> Outcome {
    // SAFETY: without CLONE_VM and with a null stack this is a fork; the child only exits.
    let result = unsafe { syscall(libc::SYS_clone, (flags | libc::SIGCHLD) as usize, 0, 0, 0, 0) };
    if result == 0 {
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    if result > 0 {
        0
    } else {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    }
}

/// The old 32-bit door: getpid by `int 0x80`. A killed process prints nothing.
#[cfg(target_arch = "x86_64")]
fn int80() -> Outcome {
    let result: i32;
    // SAFETY: getpid (20) touches no memory; the registers that the kernel changes are named.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    if result > 0 { 0 } else { -result }
}

#[cfg(not(target_arch = "x86_64"))]
fn int80() -> Outcome {
    libc::ENOSYS
}

fn try_it(name: &str) -> Option<Outcome> {
    let mut zero = [0u64; 16];
    let data = zero.as_mut_ptr() as usize;
    let own = std::process::id() as usize;
    Some(match name {
        "socket-unix" => socket(libc::AF_UNIX, libc::SOCK_STREAM, 0),
        "socket-inet" => socket(libc::AF_INET, libc::SOCK_STREAM, 0),
        "socket-route" => socket(libc::AF_NETLINK, libc::SOCK_RAW, 0),
        "socket-vsock" => socket(40, libc::SOCK_STREAM, 0),
        "socket-alg" => socket(38, libc::SOCK_SEQPACKET, 0),
        "socket-packet" => socket(17, libc::SOCK_RAW, 0),
        "socket-key" => socket(15, libc::SOCK_RAW, 2),
        "socket-xfrm" => socket(16, libc::SOCK_RAW, 6),
        "socket-netfilter" => socket(16, libc::SOCK_RAW, 12),
        "socket-sctp" => socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        "socket-uevent" => socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
        "socketpair-unix" => call(
            libc::SYS_socketpair,
            pad([libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, data]),
        ),
        "socketpair-inet" => call(
            libc::SYS_socketpair,
            pad([libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0, data]),
        ),
        "socket-tipc" => socket(30, libc::SOCK_STREAM, 0),
        "socket-rxrpc" => socket(33, libc::SOCK_DGRAM, 2),
        "socket-bluetooth" => socket(31, libc::SOCK_RAW, 1),
        "unshare-user" => call(libc::SYS_unshare, pad([libc::CLONE_NEWUSER as usize])),
        "unshare-mount" => call(libc::SYS_unshare, pad([libc::CLONE_NEWNS as usize])),
        "clone-user" => clone_with(libc::CLONE_NEWUSER),
        "clone-net" => clone_with(libc::CLONE_NEWNET),
        "clone-plain" => clone_with(0),
        "clone3" => call(libc::SYS_clone3, pad([0, 0])),
        "setns" => call(libc::SYS_setns, pad([NONE, 0])),
        "mount" => call(
            libc::SYS_mount,
            pad([text(c"none"), text(c"/nonexistent"), text(c"tmpfs"), 0, 0]),
        ),
        "remount" => call(
            libc::SYS_mount,
            pad([
                0,
                text(c"/nonexistent"),
                0,
                (libc::MS_REMOUNT | libc::MS_BIND) as usize,
                0,
            ]),
        ),
        "umount" => call(
            libc::SYS_umount2,
            pad([text(c"/nonexistent"), libc::MNT_DETACH as usize]),
        ),
        "pivot-root" => call(
            libc::SYS_pivot_root,
            pad([text(c"/nonexistent"), text(c"/nonexistent")]),
        ),
        "fsopen" => call(libc::SYS_fsopen, pad([text(c"tmpfs"), 0])),
        "open-tree" => call(libc::SYS_open_tree, pad([libc::AT_FDCWD as usize, text(c"/"), 1])),
        "move-mount" => call(libc::SYS_move_mount, pad([NONE, 0, NONE, 0, 0])),
        "mount-setattr" => call(libc::SYS_mount_setattr, pad([NONE, text(c""), 0, data, 32])),
        "ptrace" => call(libc::SYS_ptrace, pad([0, 0, 0, 0])),
        "process-vm-readv" => call(libc::SYS_process_vm_readv, pad([own, 0, 0, 0, 0, 0])),
        "process-vm-writev" => call(libc::SYS_process_vm_writev, pad([own, 0, 0, 0, 0, 0])),
        "pidfd-getfd" => call(libc::SYS_pidfd_getfd, pad([NONE, 0, 0])),
        "kcmp" => call(libc::SYS_kcmp, pad([own, own, 0, 0, 0])),
        "io-uring" => call(libc::SYS_io_uring_setup, pad([0, 0])),
        "keyctl" => call(libc::SYS_keyctl, pad([0, (-3isize) as usize, 0])),
        "add-key" => call(
            libc::SYS_add_key,
            pad([text(c"user"), text(c"sandhold-test"), data, 1, (-1isize) as usize]),
        ),
        "request-key" => call(
            libc::SYS_request_key,
            pad([text(c"user"), text(c"sandhold-none"), 0, 0]),
        ),
        "bpf" => call(libc::SYS_bpf, pad([NONE, 0, 0])),
        "userfaultfd" => call(libc::SYS_userfaultfd, pad([1])),
        "perf-event-open" => call(libc::SYS_perf_event_open, pad([0, 0, NONE, NONE, 0])),
        "open-by-handle-at" => call(libc::SYS_open_by_handle_at, pad([NONE, data, 0])),
        "name-to-handle-at" => call(
            libc::SYS_name_to_handle_at,
            pad([libc::AT_FDCWD as usize, text(c"/nonexistent"), data, data, 0]),
        ),
        "init-module" => call(libc::SYS_init_module, pad([0, 0, 0])),
        "kexec-load" => call(libc::SYS_kexec_load, pad([0, NONE, 0, 0])),
        "reboot" => call(libc::SYS_reboot, pad([0, 0, 0, 0])),
        "swapon" => call(libc::SYS_swapon, pad([text(c"/nonexistent"), 0])),
        "settimeofday" => call(libc::SYS_settimeofday, pad([0, 0])),
        "sethostname" => call(libc::SYS_sethostname, pad([data, NONE])),
        "syslog" => call(libc::SYS_syslog, pad([10, 0, 0])),
        "acct" => call(libc::SYS_acct, pad([text(c"/nonexistent")])),
        "quotactl" => call(libc::SYS_quotactl, pad([0, 0, 0, 0])),
        "vmsplice" => call(libc::SYS_vmsplice, pad([NONE, 0, 0, 0])),
        "personality" => call(libc::SYS_personality, pad([0x0004_0000])),
        "personality-read" => call(libc::SYS_personality, pad([0xffff_ffff])),
        "chroot" => call(libc::SYS_chroot, pad([text(c"/")])),
        "tiocsti" => call(libc::SYS_ioctl, pad([NONE, libc::TIOCSTI as usize, data])),
        "tiocsti-high" => call(libc::SYS_ioctl, pad([NONE, libc::TIOCSTI as usize | 1 << 32, data])),
        "tioclinux" => call(libc::SYS_ioctl, pad([NONE, 0x541c, data])),
        "tiocsetd" => call(libc::SYS_ioctl, pad([NONE, 0x5423, data])),
        "fionread" => call(libc::SYS_ioctl, pad([NONE, libc::FIONREAD as usize, data])),
        "open-root" => call(libc::SYS_openat, pad([libc::AT_FDCWD as usize, text(c"/"), 0])),
        "getxattr" => call(libc::SYS_getxattr, pad([text(c"/"), text(c"user.sandhold"), 0, 0])),
        "mmap" => call(
            libc::SYS_mmap,
            [0, 4096, 3, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize, NONE, 0],
        ),
        "getppid" => call(libc::SYS_getppid, [0; 6]),
        "sched-yield" => call(libc::SYS_sched_yield, [0; 6]),
        "getuid" => call(libc::SYS_getuid, [0; 6]),
        "clock-getres" => call(libc::SYS_clock_getres, pad([0, data])),
        "ppoll" => call(libc::SYS_ppoll, pad([0, 0, data, 0, 0])),
        "io-setup" => call(libc::SYS_io_setup, pad([1, data])),
        "pipe" => call(libc::SYS_pipe2, pad([data, 0])),
        "getsockname" => call(libc::SYS_getsockname, pad([NONE, data, data])),
        "getrandom" => call(libc::SYS_getrandom, pad([data, 8, 0])),
        "chroot-nowhere" => call(libc::SYS_chroot, pad([text(c"/nonexistent")])),
        "set-mempolicy" => call(libc::SYS_set_mempolicy, pad([0, 0, 0])),
        "mknod-block" => call(
            libc::SYS_mknodat,
            pad([libc::AT_FDCWD as usize, text(c"sandhold-node"), 0o060_666, 0x0700]),
        ),
        "int80" => int80(),
        "x32" => call(0x4000_0000 | 39, [0; 6]),
        "unknown-call" => call(1_000, [0; 6]),
        #[cfg(target_arch = "x86_64")]
        "modify-ldt" => call(libc::SYS_modify_ldt, pad([0, 0, 0])),
        #[cfg(target_arch = "x86_64")]
        "iopl" => call(libc::SYS_iopl, pad([0])),
        _ => return None,
    })
}
