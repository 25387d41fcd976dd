//! The start of the daemon: what it protects itself from, what it is told, what it answers.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::{Access, Mode};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, SocketType};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use sandhold_wire::boot::{BootReady, BootSpec, CONNECT_ARGUMENT, CONTROL_FD, PLAIN_VARIABLE};
use sandhold_wire::limits::BOOT_MESSAGE;
use sandhold_wire::names::DEFAULT_USER;

use crate::connections;
use crate::limits::{BLOCKING_IDLE, BLOCKING_THREADS, THREAD_STACK};
use crate::state::State;
use crate::{sudo, sys, users};

/// Found by `sandhold` in the daemon's file: the wire's mark, the version, the wire's end.
#[used]
static VERSION: &str = concat!("sandhold-envd version=", env!("CARGO_PKG_VERSION"), ";");

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("it was started without its control socket")]
    NoSocket,
    #[error("{0}")]
    System(&'static str, #[source] std::io::Error),
    #[error("the boot message is longer than {BOOT_MESSAGE} bytes")]
    TooLong,
    #[error("the host closed the control socket before it said anything")]
    HostGone,
    #[error("the boot message is not understood")]
    Message(#[source] serde_json::Error),
}

fn system(what: &'static str) -> impl Fn(Errno) -> BootError {
    move |errno| BootError::System(what, errno.into())
}

/// Runs the daemon until its host is gone. It is the whole program `sandhold-envd`.
///
/// Under the name `sudo` it asks the daemon to run a command as another user.
/// With `--version` it prints the version. Without its control socket it says what it is and fails with 2.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    match arguments.next().as_deref().map(Path::new).and_then(Path::file_name) {
        Some(name) if name == sudo::PROGRAM => return sudo::client(arguments),
        Some(name) if name == sudo::MONITOR => return sudo::monitor(arguments.next()),
        _ => {}
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|a| a == "--version" || a == "-V")
    {
        let version = std::hint::black_box(VERSION)
            .split('=')
            .next_back()
            .unwrap_or_default()
            .trim_end_matches(';');
        let printed = writeln!(std::io::stdout(), "sandhold-envd {version}");
        return if printed.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let Err(error) = run() else { return ExitCode::SUCCESS };
    let mut text = format!("sandhold-envd {}: {error}", env!("CARGO_PKG_VERSION"));
    let mut cause = std::error::Error::source(&error);
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    let by_hand = matches!(error, BootError::NoSocket);
    if by_hand {
        text.push_str(
            "\nIt is the daemon inside Sandhold's sandboxes. `sandhold` starts it there; by hand it has nothing to do.",
        );
    }
    // Where stderr is gone too there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(if by_hand { 2 } else { 1 })
}

fn run() -> Result<(), BootError> {
    // First of all: from here on no process of the sandbox may look into this one.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(system("it cannot shut its memory off"))?;
    let connect = connect_path();
    let control = match &connect {
        Some(path) => Control::Stream(connect_out(path)?),
        None => {
            let control = control_socket()?;
            sys::close_from(CONTROL_FD + 1);
            Control::Packets(control)
        }
    };
    sys::tame_allocator();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    no_core();

    if std::env::var_os(PLAIN_VARIABLE).is_some() {
        users::only(only_user());
    }
    let spec = read_spec(&control)?;
    rustix::io::ioctl_fionbio(control.fd(), true).map_err(system("the control socket"))?;
    let state = Arc::new(State::new(spec));
    if let Some(file) = sys::inherited_oom_file().map_err(|e| BootError::System("its standard input", e))? {
        state.reaper.with_oom_file(file);
    }
    more_files();
    let is_init = rustix::process::getpid().is_init();
    if !is_init {
        // Then orphans come here as they come to pid 1. Where they do not, somebody else reaps them.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_IDLE)
        .thread_stack_size(THREAD_STACK)
        .build()
        .map_err(|e| BootError::System("it cannot start its runtime", e))?;
    runtime.block_on(async {
        Arc::clone(&state.reaper)
            .start()
            .map_err(|e| BootError::System("it cannot listen for ended processes", e))?;
        answer(&control, &state)?;
        // The one blocking thread that is always there, see BLOCKING_IDLE. The host need not wait for it.
        tokio::task::spawn_blocking(|| ());
        let served = match (control, connect) {
            (Control::Stream(stream), Some(path)) => connections::connect(stream, path, Arc::clone(&state)).await,
            (Control::Stream(control) | Control::Packets(control), _) => {
                connections::accept(control, Arc::clone(&state)).await
            }
        };
        served.map_err(|e| BootError::System("the control socket failed", e))
    })?;
    // The kernel ends a sandbox's processes with its pid 1. Elsewhere they are ended here.
    if !is_init {
        for process in state.processes.running() {
            process.kill(rustix::process::Signal::KILL);
        }
    }
    runtime.shutdown_background();
    Ok(())
}

/// The one user of a sandbox on its host's own root.
fn only_user() -> users::User {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    users::User {
        name: DEFAULT_USER.to_owned(),
        uid,
        gid,
        groups: vec![gid],
        home: std::env::var("HOME").unwrap_or_else(|_| "/".to_owned()),
        shell: "/bin/bash".to_owned(),
    }
}

fn control_socket() -> Result<OwnedFd, BootError> {
    let control = sys::take_inherited(CONTROL_FD).map_err(|_| BootError::NoSocket)?;
    match rustix::net::sockopt::socket_type(&control) {
        Ok(SocketType::SEQPACKET) => {}
        _ => {
            // Somebody else's descriptor: left as it was found.
            std::mem::forget(control);
            return Err(BootError::NoSocket);
        }
    }
    rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::CLOEXEC).map_err(system("the control socket"))?;
    Ok(control)
}

/// The control socket: inherited, or one that this program connected.
enum Control {
    /// `SOCK_SEQPACKET`: a packet is a message, and descriptors come with it.
    Packets(OwnedFd),
    /// A byte stream: four bytes of length, little endian, come before each message, and no descriptor.
    Stream(OwnedFd),
}

impl Control {
    fn fd(&self) -> &OwnedFd {
        let (Self::Packets(fd) | Self::Stream(fd)) = self;
        fd
    }
}

/// The socket of the host that this program is told to connect to: `--connect PATH`.
fn connect_path() -> Option<PathBuf> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == CONNECT_ARGUMENT).then(|| arguments.next().map(PathBuf::from))?
}

fn connect_out(path: &Path) -> Result<OwnedFd, BootError> {
    std::os::unix::net::UnixStream::connect(path)
        .map(OwnedFd::from)
        .map_err(|error| BootError::System("the host's socket cannot be reached", error))
}

fn read_spec(control: &Control) -> Result<BootSpec, BootError> {
    let control = match control {
        Control::Packets(control) => control,
        Control::Stream(stream) => return read_stream_spec(stream),
    };
    let mut bytes = vec![0; BOOT_MESSAGE];
    let mut none = RecvAncillaryBuffer::new(&mut []);
    let got = loop {
        match rustix::net::recvmsg(
            control,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut none,
            RecvFlags::empty(),
        ) {
            Err(Errno::INTR) => {}
            other => break other.map_err(system("the boot message cannot be read"))?,
        }
    };
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(BootError::TooLong);
    }
    match bytes.get(..got.bytes) {
        None | Some([]) => Err(BootError::HostGone),
        Some(message) => serde_json::from_slice(message).map_err(BootError::Message),
    }
}

fn read_stream_spec(stream: &OwnedFd) -> Result<BootSpec, BootError> {
    let gone = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => BootError::HostGone,
        _ => BootError::System("the boot message cannot be read", error),
    };
    let copy = stream.try_clone().map_err(gone)?;
    let mut stream = std::fs::File::from(copy);
    let mut len = [0; 4];
    stream.read_exact(&mut len).map_err(gone)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > BOOT_MESSAGE {
        return Err(BootError::TooLong);
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).map_err(gone)?;
    serde_json::from_slice(&bytes).map_err(BootError::Message)
}

fn answer(control: &Control, state: &Arc<State>) -> Result<(), BootError> {
    let mut warnings = Vec::new();
    if let Err(unknown) = users::lookup(&state.default_user) {
        warnings.push(format!("the default user does not exist: {unknown}"));
    }
    if let Err(error) = std::fs::metadata("/dev/ptmx") {
        warnings.push(format!("terminals cannot be opened: /dev/ptmx: {error}"));
    }
    if let Some(path) = &state.sudo_socket
        && let Err(error) = sudo::start(state, Path::new(path))
    {
        warnings.push(format!("sudo does not work: {path}: {error}"));
    }
    let mut missing = missing_programs(&state.path);
    missing.retain(|name| !(state.plain && *name == "sudo"));
    if !missing.is_empty() {
        warnings.push(format!("missing programs: {}", missing.join(", ")));
    }
    let ready = BootReady {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        warnings,
    };
    let bytes = serde_json::to_vec(&ready).map_err(BootError::Message)?;
    let control = match control {
        Control::Packets(control) => control,
        Control::Stream(stream) => {
            let mut message = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
            message.extend(bytes);
            // Far less than the buffer of a new socket, so that it goes at once or not at all.
            return match rustix::net::send(stream, &message, SendFlags::NOSIGNAL) {
                Ok(sent) if sent == message.len() => Ok(()),
                _ => Err(BootError::HostGone),
            };
        }
    };
    match rustix::net::send(control, &bytes, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(()),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(BootError::HostGone),
        Err(errno) => Err(BootError::System("the answer cannot be sent", errno.into())),
    }
}

/// What clients of E2B's sandboxes take for granted: the SDKs' shell, their git helpers, and what people run first.
const EXPECTED: &[&str] = &["bash", "curl", "git", "python3", "sudo"];

/// Which of [`EXPECTED`] stand in no folder of `path`.
fn missing_programs(path: &str) -> Vec<&'static str> {
    let runs = |name: &str| {
        let mut folders = path.split(':').filter(|folder| folder.starts_with('/'));
        folders.any(|folder| {
            let file = Path::new(folder).join(name);
            rustix::fs::access(&file, Access::EXEC_OK).is_ok() && file.is_file()
        })
    };
    EXPECTED.iter().copied().filter(|name| !runs(name)).collect()
}

/// No core files, of this program or of those it starts: they would fill the sandbox's disk. Users may raise it again.
fn no_core() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Core);
    // Lowering is always allowed.
    let _ = rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum,
        },
    );
}

/// As many descriptors as the system lets the daemon have: it holds up to four for a process.
fn more_files() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    // Where it is refused the daemon has fewer, and says so when they run out.
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

#[cfg(test)]
mod tests {
    use sandhold_wire::boot::{VERSION_END, VERSION_MARK};

    #[test]
    fn programs_that_are_nowhere_are_named() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = format!("/nowhere:{}", folder.path().display());
        assert_eq!(super::missing_programs(&path), super::EXPECTED);
        for (name, mode) in [("git", 0o755), ("curl", 0o644)] {
            let file = folder.path().join(name);
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(folder.path().join("sudo")).unwrap();
        assert_eq!(super::missing_programs(&path), ["bash", "curl", "python3", "sudo"]);
    }

    #[test]
    fn the_mark_is_the_wires() {
        assert_eq!(
            super::VERSION,
            format!("{VERSION_MARK}{}{VERSION_END}", env!("CARGO_PKG_VERSION"))
        );
    }
}
