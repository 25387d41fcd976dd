//! The calls that Rust has no safe wrapper for. All `unsafe` of the daemon is here.
//!
//! The heart is [`Spawner::spawn`]: a child is made as `posix_spawn` makes it, with `CLONE_VM | CLONE_VFORK`. The child
//! borrows the daemon's memory until it executes the program, so nothing is copied, and the calling thread stands still
//! meanwhile. In exchange the child may only do what leaves that memory sound: system calls on data prepared before.
#![allow(unsafe_code, reason = "the one fenced module")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Pid, Resource, Rlimit, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Stack of a child between clone and exec. The path down to `execve` is shallow.
const CHILD_STACK: usize = 64 << 10;
/// How much more the `oom_score_adj` of every process is than the daemon's: they go before the daemon does, even those
/// that hold memory which the kernel does not count as theirs, such as files in a tmpfs.
const OOM_SCORE_ABOVE: i32 = 500;

/// What to execute and how.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Files to try, in this order: one for a path, one per folder of `PATH` for a name.
    pub(crate) programs: &'a [CString],
    /// Arguments, the program's name first.
    pub(crate) argv: &'a [CString],
    /// Environment, `NAME=value`.
    pub(crate) envp: &'a [CString],
    /// Working folder.
    pub(crate) cwd: &'a CStr,
    /// Becomes stdin, stdout and stderr. Each is above 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether stdin is a terminal to be taken as the controlling one.
    pub(crate) terminal: bool,
    /// User, group and all groups to take; none: stay who the daemon is.
    pub(crate) ids: Option<(Uid, Gid, &'a [Gid])>,
}

/// The step of a child that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// No child could be made at all.
    Clone,
    /// A session of its own.
    Session,
    /// The controlling terminal.
    Terminal,
    /// stdin, stdout, stderr.
    Stdio,
    /// User and groups.
    Ids,
    /// The working folder.
    Cwd,
    /// The program.
    Exec,
}

/// Why a process could not be started.
#[derive(Debug)]
pub(crate) struct SpawnError {
    /// Where it failed.
    pub(crate) step: Step,
    /// The system's answer.
    pub(crate) error: io::Error,
}

/// Starts processes. One at a time: it owns the stack that children run on until they execute.
#[derive(Debug)]
pub(crate) struct Spawner {
    stack: Box<[MaybeUninit<u128>]>,
    signals: Vec<c_int>,
    nofile: Rlimit,
    /// The daemon's own `oom_score_adj`, and that of children.
    oom_scores: [String; 2],
    /// The daemon's own file of that name, open for writing.
    oom_file: Option<OwnedFd>,
}

impl Spawner {
    /// `nofile` is the limit on open files that processes get.
    pub(crate) fn new(nofile: Rlimit) -> Self {
        let stack = vec![MaybeUninit::uninit(); CHILD_STACK / size_of::<u128>()].into_boxed_slice();
        Self {
            stack,
            signals: not_default(),
            nofile,
            oom_scores: oom_scores(),
            oom_file: None,
        }
    }

    /// Takes what [`inherited_oom_file`] found. Children have their score from their first instruction on then.
    pub(crate) fn with_oom_file(&mut self, file: OwnedFd) {
        self.oom_file = Some(file);
    }

    /// Starts a process in a session of its own. Returns once it executes its program, or failed to.
    ///
    /// # Errors
    /// [`SpawnError`] names the step that failed; the child is gone then, but for its exit status.
    pub(crate) fn spawn(&mut self, job: &Job<'_>) -> Result<Pid, SpawnError> {
        let mut argv: Vec<*const c_char> = job.argv.iter().map(|a| a.as_ptr()).collect();
        argv.push(std::ptr::null());
        let mut envp: Vec<*const c_char> = job.envp.iter().map(|e| e.as_ptr()).collect();
        envp.push(std::ptr::null());
        let mut child = Child {
            job,
            argv: &argv,
            envp: &envp,
            signals: &self.signals,
            nofile: self.nofile,
            failed: None,
        };

        // Children are born with the score that the daemon has at that moment.
        let [own, raised] = &self.oom_scores;
        let file = self.oom_file.as_ref();
        let born_raised = file.is_some_and(|file| rustix::io::write(file, raised.as_bytes()).is_ok());
        let before = block_signals();
        let top = self.stack.as_mut_ptr_range().end.cast::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: `run_child` gets a pointer to `child`, which outlives the call because CLONE_VFORK returns only after
        // the child executed or ended. `top` is the aligned end of a stack that `&mut self` makes ours alone. Signals
        // are blocked, so no handler runs in the child.
        let pid = unsafe { libc::clone(run_child, top, flags, (&raw mut child).cast::<c_void>()) };
        let error = io::Error::last_os_error();
        restore_signals(&before);
        if let (true, Some(file)) = (born_raised, file) {
            // Back to what it was, which is always allowed.
            let _ = rustix::io::write(file, own.as_bytes());
        }

        if let Some((step, errno)) = child.failed {
            return Err(SpawnError {
                step,
                error: errno.into(),
            });
        }
        // The check comes first: a negative number is none that `from_raw` takes.
        let pid = (pid > 0).then(|| Pid::from_raw(pid)).flatten().ok_or(SpawnError {
            step: Step::Clone,
            error,
        })?;
        if !born_raised {
            // A kindness to the daemon, not worth a failed start; the process may have ended already.
            let _ = std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_pid()), raised);
        }
        Ok(pid)
    }
}

/// What the child sees of its parent's memory.
struct Child<'a> {
    job: &'a Job<'a>,
    argv: &'a [*const c_char],
    envp: &'a [*const c_char],
    signals: &'a [c_int],
    nofile: Rlimit,
    failed: Option<(Step, rustix::io::Errno)>,
}

extern "C" fn run_child(child: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a valid `Child` and does not touch it before this process has executed or ended.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    child.failed = Some(child.run());
    127
}

impl Child<'_> {
    /// Comes back only when something failed. No allocation, no lock, no panic from here on: system calls through
    /// rustix, which makes them without libc.
    fn run(&self) -> (Step, rustix::io::Errno) {
        match self.prepare() {
            Ok(()) => (Step::Exec, self.execute()),
            Err(failed) => failed,
        }
    }

    fn prepare(&self) -> Result<(), (Step, rustix::io::Errno)> {
        let at = |step| move |errno| (step, errno);
        let job = self.job;
        rustix::process::setsid().map_err(at(Step::Session))?;
        let [stdin, stdout, stderr] = job.stdio;
        rustix::stdio::dup2_stdin(stdin).map_err(at(Step::Stdio))?;
        rustix::stdio::dup2_stdout(stdout).map_err(at(Step::Stdio))?;
        rustix::stdio::dup2_stderr(stderr).map_err(at(Step::Stdio))?;
        if job.terminal {
            rustix::process::ioctl_tiocsctty(stdin).map_err(at(Step::Terminal))?;
        }
        // A kindness to programs that use select(), not worth a failed start.
        let _ = rustix::process::setrlimit(Resource::Nofile, self.nofile);
        if let Some((uid, gid, groups)) = job.ids {
            // Calls of the thread, not of libc's "all threads": the other threads belong to the daemon.
            rustix::thread::set_thread_groups(groups).map_err(at(Step::Ids))?;
            rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(at(Step::Ids))?;
            rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(at(Step::Ids))?;
        }
        rustix::process::chdir(job.cwd).map_err(at(Step::Cwd))?;
        for &signal in self.signals {
            default_signal(signal);
        }
        unblock_signals();
        Ok(())
    }

    /// As `execvpe` does it: a missing file leads to the next folder, a forbidden one is told when there is no other.
    fn execute(&self) -> rustix::io::Errno {
        use rustix::io::Errno;

        let mut told = Errno::NOENT;
        for program in self.job.programs {
            // SAFETY: a nul-terminated path, and null-terminated arrays of nul-terminated strings, all alive in the
            // parent, which stands still.
            unsafe { libc::execve(program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            match io::Error::last_os_error().raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::NOTDIR) | None => {}
                Some(Errno::ACCESS) => told = Errno::ACCESS,
                Some(other) => return other,
            }
        }
        told
    }
}

/// The daemon's own score and that of children. One below the daemon's own would be refused: only root of the host may
/// lower it.
fn oom_scores() -> [String; 2] {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
    let own: i32 = own.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    [own, (own.max(0) + OOM_SCORE_ABOVE).min(1000)].map(|score| score.to_string())
}

/// The daemon's `oom_score_adj`, which the engine leaves open as standard input: a daemon that nobody may look into cannot
/// open it itself. Standard input becomes the null device.
pub(crate) fn inherited_oom_file() -> io::Result<Option<OwnedFd>> {
    let stdin = rustix::stdio::stdin();
    let on_proc = rustix::fs::fstatfs(stdin).is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC);
    if !on_proc {
        return Ok(None);
    }
    let file = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    rustix::stdio::dup2_stdin(dev_null()?)?;
    Ok(Some(file))
}

/// Signals that a child must set back to their default: those that are ignored are so in the program too, and a handler
/// must not run in borrowed memory.
fn not_default() -> Vec<c_int> {
    let mut signals: Vec<c_int> = (1..libc::SIGRTMIN())
        .filter(|&s| disposition(s) != Some(libc::SIG_DFL))
        .collect();
    // Taken by the reaper, maybe after this.
    signals.push(libc::SIGCHLD);
    signals.retain(|s| ![libc::SIGKILL, libc::SIGSTOP].contains(s));
    signals
}

fn disposition(signal: c_int) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; `action` has room for the answer.
    let rc = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeroes is a valid `sigaction`, and so is what the kernel wrote.
    let action = unsafe { action.assume_init() };
    (rc == 0).then_some(action.sa_sigaction)
}

/// Sets a signal of this process back to its default.
pub(crate) fn default_signal(signal: c_int) {
    // SAFETY: all zeroes is a valid `sigaction`: SIG_DFL, no flags, an empty mask.
    let action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: `action` is valid, the old one is not asked for. Without CLONE_SIGHAND this changes the child alone.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}

fn block_signals() -> libc::sigset_t {
    let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: fills the set it is given.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: both sets are valid and live across the call.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr()) };
    // SAFETY: all zeroes is a valid set, and so is what was written.
    unsafe { before.assume_init() }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: `before` came from `pthread_sigmask`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

fn unblock_signals() {
    let none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: all zeroes is the empty set on Linux. The mask is the thread's own, here the child's.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}

/// Takes the descriptor that the program was started with.
///
/// # Errors
/// It is not open.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: any number may be asked about; nothing is changed.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and called once at the start, before anything else could own it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor from `first` on. For the start alone, when nothing of ours is open yet.
pub(crate) fn close_from(first: RawFd) {
    let first = libc::c_long::from(first);
    let last = libc::c_long::from(u32::MAX);
    // SAFETY: at the start no descriptor above the control socket has an owner in this program.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0 as libc::c_long) };
}

/// Keeps the allocator small: one arena, large blocks given back at once.
pub(crate) fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, 128 << 10),
        (libc::M_TRIM_THRESHOLD, 64 << 10),
    ] {
        // SAFETY: sets a number; called before there is a second thread.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Runs `f` with the file-system ids of a user, so that the kernel answers as it would answer them. For blocking threads:
/// the ids are the calling thread's own and are set back before it returns.
pub(crate) fn as_user<T>(uid: u32, gid: u32, f: impl FnOnce() -> T) -> T {
    struct Back(libc::c_long, libc::c_long);
    impl Drop for Back {
        fn drop(&mut self) {
            set_fs_id(libc::SYS_setfsuid, self.0);
            set_fs_id(libc::SYS_setfsgid, self.1);
        }
    }
    let gid_before = set_fs_id(libc::SYS_setfsgid, gid.into());
    let uid_before = set_fs_id(libc::SYS_setfsuid, uid.into());
    let _back = Back(uid_before, gid_before);
    f()
}

fn set_fs_id(call: libc::c_long, id: libc::c_long) -> libc::c_long {
    // SAFETY: one number in, the former number out; a refused change leaves all as it was.
    unsafe { libc::syscall(call, id) }
}

/// Puts a descriptor under the runtime's poller. It must not block.
///
/// # Errors
/// The poller does not take it.
pub(crate) fn async_fd(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open, with the same number, for as long as the `AsyncFd` that owns it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|e| e.into_parts().1)
}

/// The `/dev/null` that stands in for a stdin that was not asked for.
pub(crate) fn dev_null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        c"/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn words(list: &[&str]) -> Vec<CString> {
        list.iter().map(|w| CString::new(*w).unwrap()).collect()
    }

    fn start(programs: &[&str], argv: &[&str], cwd: &CStr) -> Result<(Pid, String), SpawnError> {
        let (mut out, into) = std::io::pipe().unwrap();
        let null = dev_null().unwrap();
        let (programs, argv, envp) = (words(programs), words(argv), words(&["A=b"]));
        let job = Job {
            programs: &programs,
            argv: &argv,
            envp: &envp,
            cwd,
            stdio: [null.as_fd(), into.as_fd(), into.as_fd()],
            terminal: false,
            ids: None,
        };
        let pid = Spawner::new(rustix::process::getrlimit(Resource::Nofile)).spawn(&job)?;
        drop(into);
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        Ok((pid, text))
    }

    #[test]
    fn a_child_gets_what_the_job_says() {
        let script = "echo $0 $A $PWD; ps -o pid=,sid= -p $$ 2>/dev/null | tr -s ' '; trap";
        let (pid, text) = start(&["/nowhere/sh", "/bin/sh"], &["name", "-c", script], c"/tmp").unwrap();
        assert!(text.starts_with("name b /tmp\n"), "{text}");
        // It has ended, but nobody has reaped it.
        let score = |process: &str| -> i32 {
            let text = std::fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap();
            text.trim().parse().unwrap()
        };
        let (theirs, own) = (score(&pid.as_raw_pid().to_string()), score("self"));
        assert!(theirs > own || own == 1000, "{theirs} is not above the daemon's {own}");
        let stat = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
            .unwrap()
            .unwrap();
        assert_eq!(stat.1.exit_status(), Some(0));
    }

    #[test]
    fn no_signal_stays_blocked_or_ignored() {
        let (_, text) = start(&["/bin/cat"], &["cat", "/proc/self/status"], c"/").unwrap();
        // Above 31 are those that libc keeps to itself.
        let ordinary = |name| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap() & 0x7fff_ffff
        };
        assert_eq!((ordinary("SigBlk:"), ordinary("SigIgn:")), (0, 0), "{text}");
    }

    #[test]
    fn failures_name_their_step() {
        for (programs, cwd, step, kind) in [
            (["/nowhere/x"], c"/", Step::Exec, io::ErrorKind::NotFound),
            (["/etc/passwd"], c"/", Step::Exec, io::ErrorKind::PermissionDenied),
            (["/bin/true"], c"/nowhere", Step::Cwd, io::ErrorKind::NotFound),
            (["/bin/true"], c"/etc/passwd", Step::Cwd, io::ErrorKind::NotADirectory),
        ] {
            let failed = start(&programs, &["x"], cwd).unwrap_err();
            assert_eq!((failed.step, failed.error.kind()), (step, kind), "{programs:?} {cwd:?}");
        }
    }
}
