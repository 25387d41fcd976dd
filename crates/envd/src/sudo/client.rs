//! The program `sudo`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, getpgid, getpgrp, getpid, getppid, getsid, kill_process, kill_process_group};
use sandhold_wire::names::SUDO_SOCKET;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::SOCKET_VARIABLE;
use super::arguments::{Action, Invocation, UsageError, parse};
use super::packet::{self, DESCRIPTORS, Packet, kind};
use super::terminal::{self, Terminal};
use crate::limits::SUDO_PACKET;
use crate::sys;

const USAGE: &str = "\
usage: sudo [-EHiknSs] [-D folder] [-u user] [--preserve-env=list] [NAME=value] [command [argument ...]]
       sudo -l | -v | -k | -K | -V | -h
No password is asked for. What is run as root is root of this sandbox alone.";

/// Signals that are the command's.
const PASSED_ON: &[Signal] = &[
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::TSTP,
    Signal::CONT,
    Signal::WINCH,
];

/// How often a job in the background looks whether it is in the foreground by now: shells do not say so.
const LOOK: Duration = Duration::from_millis(200);

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
enum SudoError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error("{0}")]
    Refused(String),
    #[error("this sandbox was made without sudo")]
    Off,
    #[error("the sandbox's daemon does not answer: {0}")]
    Daemon(#[source] io::Error),
    #[error("the connection to the sandbox's daemon ended before the command did")]
    Lost,
    #[error("{0}: {1}")]
    System(&'static str, #[source] io::Error),
}

/// How the command ended.
enum End {
    Code(u8),
    Signal(i32),
}

/// Runs `sudo`.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let end = parse(arguments).map_err(SudoError::from).and_then(run);
    match end {
        Ok(End::Code(code)) => ExitCode::from(code),
        Ok(End::Signal(number)) => {
            die(number);
            // It was blocked or ignored by whoever started this: the shell's way to say it.
            ExitCode::from(128_u8.saturating_add(u8::try_from(number).unwrap_or(127)))
        }
        Err(error) => {
            say(&error.to_string());
            if matches!(error, SudoError::Usage(_)) {
                let _ = writeln!(io::stderr(), "{USAGE}");
            }
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "sudo: {text}");
}

/// Ends as the command ended, so that the caller's shell sees the same.
fn die(number: i32) {
    sys::default_signal(number);
    if let Some(signal) = Signal::from_named_raw(number) {
        let _ = kill_process(getpid(), signal);
    }
}

fn run(invocation: Invocation) -> Result<End, SudoError> {
    let print = |text: String| {
        let printed = writeln!(io::stdout(), "{text}");
        Ok(End::Code(u8::from(printed.is_err())))
    };
    match invocation.action {
        Action::Help => return print(USAGE.to_owned()),
        Action::Version => return print(format!("Sandhold sudo {}", env!("CARGO_PKG_VERSION"))),
        Action::Forget => return Ok(End::Code(0)),
        Action::Validate => return ask(&invocation.user).map(|()| End::Code(0)),
        Action::List => {
            ask(&invocation.user)?;
            return print("Everybody in this sandbox may run everything:\n    (ALL : ALL) NOPASSWD: ALL".to_owned());
        }
        Action::Run => {}
    }
    if invocation.group {
        say("-g is not obeyed: the command has the user's own groups");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| SudoError::System("it cannot start its runtime", e))?;
    runtime.block_on(follow(invocation))
}

/// Asks whether `user` could be become.
fn ask(user: &str) -> Result<(), SudoError> {
    let socket = connect()?;
    packet::send(&socket, kind::ASK, user.as_bytes(), &[]).map_err(|e| SudoError::Daemon(e.into()))?;
    match packet::receive(&socket).map_err(|e| SudoError::Daemon(e.into()))? {
        Some(Packet { kind: kind::YES, .. }) => Ok(()),
        Some(answer) => Err(refused(&answer)),
        None => Err(SudoError::Lost),
    }
}

fn refused(answer: &Packet) -> SudoError {
    SudoError::Refused(String::from_utf8_lossy(&answer.bytes).into_owned())
}

fn connect() -> Result<OwnedFd, SudoError> {
    let path = std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(SUDO_SOCKET), PathBuf::from);
    let daemon = |errno: Errno| SudoError::Daemon(errno.into());
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(daemon)?;
    let address = super::listen::address(&path).map_err(daemon)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {
            // Anybody may listen at an abstract name that the daemon did not take: what root passes on is for nobody but
            // the daemon, which is root's, or this user's where there is one id.
            let listener = rustix::net::sockopt::socket_peercred(&socket).map_err(daemon)?.uid;
            if listener.is_root() || listener == rustix::process::geteuid() {
                Ok(socket)
            } else {
                Err(SudoError::Off)
            }
        }
        Err(Errno::NOENT) => Err(SudoError::Off),
        Err(Errno::CONNREFUSED) if address.abstract_name().is_some() => Err(SudoError::Off),
        Err(errno) => Err(daemon(errno)),
    }
}

async fn follow(invocation: Invocation) -> Result<End, SudoError> {
    let Invocation { user, mut request, .. } = invocation;
    request.env = std::env::vars_os()
        .map(|(name, value)| [name, "=".into(), value].into_iter().collect())
        .collect();
    let request = request.encode().map_err(|e| SudoError::Refused(e.to_string()))?;
    // Before anything runs: a signal that comes early is passed on late.
    let mut signals = Vec::new();
    for signal in PASSED_ON {
        signals.push((*signal, listen(*signal)?));
    }
    let socket = connect()?;
    let terminal = send(&socket, &user, &request)?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(|e| SudoError::Daemon(e.into()))?;
    let socket = sys::async_fd(socket, Interest::READABLE).map_err(SudoError::Daemon)?;
    Follower {
        socket,
        terminal,
        signals,
    }
    .follow()
    .await
}

fn listen(which: Signal) -> Result<Signals, SudoError> {
    signal(SignalKind::from_raw(which.as_raw())).map_err(|e| SudoError::System("it cannot listen for signals", e))
}

/// Sends everything that the command is made of. Where stdin and stdout are this process's own terminal the command gets
/// a new one.
fn send(socket: &OwnedFd, user: &str, request: &[u8]) -> Result<Option<Terminal>, SudoError> {
    let daemon = |errno: Errno| match errno {
        // What the other side said before it hung up says more.
        Errno::PIPE | Errno::CONNRESET => match packet::receive(socket) {
            Ok(Some(answer)) if answer.kind == kind::REFUSED => refused(&answer),
            _ => SudoError::Lost,
        },
        errno => SudoError::Daemon(errno.into()),
    };
    let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder =
        openat(CWD, ".", flags, Mode::empty()).map_err(|e| SudoError::System("the current folder", e.into()))?;
    let made = if terminal::is_own(stdin) && terminal::is_own(stdout) {
        let made = Terminal::open(stdin, stdout);
        Some(made.map_err(|e| SudoError::System("no terminal can be made for the command", e))?)
    } else {
        None
    };
    packet::send(socket, kind::RUN, user.as_bytes(), &[]).map_err(daemon)?;
    let fds: [_; DESCRIPTORS] = match &made {
        Some((_, slave)) => {
            let slave = slave.as_fd();
            let stderr = if terminal::is_own(stderr) { slave } else { stderr };
            [slave, slave, stderr, folder.as_fd()]
        }
        None => [stdin, stdout, stderr, folder.as_fd()],
    };
    packet::send(socket, kind::DESCRIPTORS, &[u8::from(made.is_some())], &fds).map_err(daemon)?;
    for piece in request.chunks(SUDO_PACKET) {
        packet::send(socket, kind::PIECE, piece, &[]).map_err(daemon)?;
    }
    packet::send(socket, kind::GO, b"", &[]).map_err(daemon)?;
    Ok(made.map(|(terminal, _)| terminal))
}

/// One command, seen by its caller.
struct Follower {
    socket: AsyncFd<OwnedFd>,
    terminal: Option<Terminal>,
    signals: Vec<(Signal, Signals)>,
}

enum Event {
    Said(io::Result<Option<Packet>>),
    Signal(Signal),
    Copied,
    Look,
}

impl Follower {
    async fn follow(mut self) -> Result<End, SudoError> {
        loop {
            match self.event().await {
                Event::Copied => {}
                Event::Look => self.terminal.iter_mut().for_each(Terminal::take),
                Event::Signal(signal) => self.signalled(signal),
                Event::Said(Ok(Some(packet))) => {
                    if let Some(end) = self.told(&packet)? {
                        return Ok(end);
                    }
                }
                Event::Said(Ok(None) | Err(_)) => {
                    self.close();
                    return Err(SudoError::Lost);
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        let Self {
            socket,
            terminal,
            signals,
        } = self;
        let waits = terminal.as_ref().is_some_and(Terminal::waits);
        tokio::select! {
            said = socket.async_io(Interest::READABLE, |fd| Ok(packet::receive(fd)?)) => Event::Said(said),
            signal = any(signals) => Event::Signal(signal),
            () = copy(terminal.as_mut()) => Event::Copied,
            () = tokio::time::sleep(LOOK), if waits => Event::Look,
        }
    }

    fn signalled(&mut self, signal: Signal) {
        if let Some(terminal) = &mut self.terminal {
            match signal {
                // The kernel tells the command, once its terminal has the size.
                Signal::WINCH => return terminal.resize(),
                Signal::CONT => {
                    terminal.take();
                    terminal.resize();
                }
                _ => {}
            }
        }
        let number = u8::try_from(signal.as_raw()).unwrap_or_default();
        // A monitor that is gone is noticed where packets are read.
        let _ = packet::send(self.socket.get_ref(), kind::SIGNAL, &[number], &[]);
    }

    fn told(&mut self, packet: &Packet) -> Result<Option<End>, SudoError> {
        let number = packet.bytes.first().copied().unwrap_or(u8::MAX);
        match packet.kind {
            kind::EXITED => {
                self.close();
                Ok(Some(End::Code(number)))
            }
            kind::KILLED => {
                self.close();
                Ok(Some(End::Signal(number.into())))
            }
            kind::STOPPED => {
                self.stop();
                Ok(None)
            }
            kind::YES => {
                self.terminal.iter_mut().for_each(Terminal::begin);
                Ok(None)
            }
            kind::WARNING => {
                say(&String::from_utf8_lossy(&packet.bytes));
                Ok(None)
            }
            kind::REFUSED => {
                self.close();
                Err(refused(packet))
            }
            _ => Ok(None),
        }
    }

    fn close(&mut self) {
        if let Some(mut terminal) = self.terminal.take() {
            terminal.drain();
            terminal.give_back();
        }
    }

    /// Stops as the command did, so that the caller's shell sees it. Goes on when the shell says so.
    fn stop(&mut self) {
        if !can_stop() {
            // Nobody would ever wake this job: it is not stopped, as the kernel has it for such groups.
            self.signalled(Signal::CONT);
            return;
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.give_back();
            // Of a job in a terminal all stop: the key was for all of them.
            let _ = kill_process_group(getpgrp(), Signal::STOP);
        } else {
            let _ = kill_process(getpid(), Signal::STOP);
        }
        // From here on it was continued; the signal for that is passed on like any other.
    }
}

async fn any(signals: &mut [(Signal, Signals)]) -> Signal {
    std::future::poll_fn(|cx| {
        for (signal, stream) in signals.iter_mut() {
            if stream.poll_recv(cx).is_ready() {
                return std::task::Poll::Ready(*signal);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

async fn copy(terminal: Option<&mut Terminal>) {
    match terminal {
        Some(terminal) => terminal.copy().await,
        None => std::future::pending().await,
    }
}

/// Whether a shell watches over this job: some parent of the job's processes is in its session and outside its group.
fn can_stop() -> bool {
    let (group, Ok(session)) = (getpgrp(), getsid(None)) else {
        return false;
    };
    let mut parent = getppid();
    // Deeper jobs than this are nobody's by hand.
    for _ in 0..64 {
        let Some(pid) = parent.filter(|pid| getsid(Some(*pid)).is_ok_and(|s| s == session)) else {
            return false;
        };
        if getpgid(Some(pid)).is_ok_and(|g| g != group) {
            return true;
        }
        parent = parent_of(pid);
    }
    false
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let rest = stat.rsplit_once(')')?.1;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}
