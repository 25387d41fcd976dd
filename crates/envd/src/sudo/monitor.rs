//! The process between the daemon and one command: it has the user's ids, leads the command's session, passes signals on
//! and tells the caller how the command ended.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, waitpid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::command::{Grant, Program, resolve};
use super::packet::{self, DESCRIPTORS, Request, kind, receive_request};
use crate::limits::SUDO_GRACE;
use crate::sys;

/// What a shell says of a file that is there and cannot be executed.
const NOT_EXECUTED: &str = "cannot be executed";

/// Runs the monitor; `grant` is the daemon's word, the socket is descriptor 0.
pub(crate) fn main(grant: Option<OsString>) -> ExitCode {
    let grant = grant.and_then(|text| serde_json::from_slice::<Grant>(text.as_encoded_bytes()).ok());
    let (Some(grant), Ok(socket)) = (grant, take_socket()) else {
        let _ = writeln!(io::stderr(), "it is started by Sandhold's daemon alone");
        return ExitCode::FAILURE;
    };
    // Nobody but the caller is left to tell: the descriptors are the null device.
    match run(&grant, socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn take_socket() -> io::Result<OwnedFd> {
    let inherited = sys::take_inherited(0)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(&inherited, 3)?;
    // Descriptor 0 stays taken, by the null device.
    rustix::stdio::dup2_stdin(sys::dev_null()?)?;
    std::mem::forget(inherited);
    rustix::net::sockopt::socket_type(&socket)?;
    Ok(socket)
}

fn run(grant: &Grant, socket: OwnedFd) -> io::Result<()> {
    let (terminal, fds, request) = match receive_request(&socket) {
        Ok(received) => received,
        Err(error) => return refuse(&socket, &error.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match start(grant, &socket, terminal, fds, &request) {
            Ok(pid) => {
                // From here on keys find the command where they are looked for.
                let _ = packet::send(&socket, kind::YES, b"", &[]);
                watch(socket, pid).await
            }
            Err(said) => refuse(&socket, &said),
        }
    })
}

fn refuse(socket: &OwnedFd, said: &str) -> io::Result<()> {
    Ok(packet::send(socket, kind::REFUSED, said.as_bytes(), &[])?)
}

fn start(
    grant: &Grant,
    socket: &OwnedFd,
    terminal: bool,
    fds: [OwnedFd; DESCRIPTORS],
    request: &Request,
) -> Result<Pid, String> {
    let [stdin, stdout, stderr, folder] = fds;
    // The terminal was made for this session alone.
    let foreground = if terminal {
        rustix::process::ioctl_tiocsctty(&stdin).map_err(|e| format!("the terminal cannot be taken: {e}"))?;
        Some(
            stdin
                .try_clone()
                .map_err(|e| format!("the terminal cannot be kept: {e}"))?,
        )
    } else {
        None
    };
    enter(grant, socket, request, &folder)?;
    let program = resolve(grant, request)?;
    let child = spawn(&program, [stdin, stdout, stderr])?;
    if let Some(terminal) = foreground {
        // It may have asked before it was its turn, and was stopped for it.
        let _ = rustix::termios::tcsetpgrp(&terminal, child);
        let _ = kill_process_group(child, Signal::CONT);
    }
    Ok(child)
}

/// The working folder: of a login shell the home, else what was asked for, else the caller's.
fn enter(grant: &Grant, socket: &OwnedFd, request: &Request, folder: &OwnedFd) -> Result<(), String> {
    let named = request
        .folder
        .clone()
        .or_else(|| request.login.then(|| grant.home.clone().into()));
    if let Some(named) = named {
        let said = |e| format!("the folder '{}' cannot be entered: {e}", named.to_string_lossy());
        return rustix::process::chdir(&*named).map_err(said);
    }
    match rustix::process::fchdir(folder) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS) => {
            let said = format!("{} may not enter the current folder: the command runs in /", grant.user);
            let _ = packet::send(socket, kind::WARNING, said.as_bytes(), &[]);
            Ok(())
        }
        Err(errno) => Err(format!("the current folder cannot be entered: {errno}")),
    }
}

fn spawn(program: &Program, stdio: [OwnedFd; 3]) -> Result<Pid, String> {
    let said = |error: io::Error| format!("{} {NOT_EXECUTED}: {error}", program.file.display());
    let mut command = Command::new(&program.file);
    command.arg0(&program.name).args(&program.args);
    let spawned = match ready(&mut command, program, &stdio).map_err(said)?.spawn() {
        // A script that does not say for whom is the shell's, as everywhere.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOEXEC) => {
            let mut shell = Command::new("/bin/sh");
            shell.arg(&program.file).args(&program.args);
            ready(&mut shell, program, &stdio).map_err(said)?.spawn()
        }
        spawned => spawned,
    };
    let pid = i32::try_from(spawned.map_err(said)?.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| said(Errno::SRCH.into()))
}

/// A group of its own, so that signals for the command reach the command alone.
fn ready<'a>(command: &'a mut Command, program: &Program, stdio: &[OwnedFd; 3]) -> io::Result<&'a mut Command> {
    let [stdin, stdout, stderr] = stdio;
    Ok(command
        .env_clear()
        .envs(&program.env)
        .process_group(0)
        .stdin(Stdio::from(stdin.try_clone()?))
        .stdout(Stdio::from(stdout.try_clone()?))
        .stderr(Stdio::from(stderr.try_clone()?)))
}

/// Passes signals on and tells what becomes of the command, until it ended or the caller is gone.
async fn watch(socket: OwnedFd, command: Pid) -> io::Result<()> {
    let mut children = signal(SignalKind::child())?;
    // The end of the caller's terminal is told by the socket too; it must not end this process first.
    let _hangup = signal(SignalKind::hangup())?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    let socket = sys::async_fd(socket, Interest::READABLE)?;
    let mut orphaned: Option<Instant> = None;
    loop {
        if report(&socket, command)? {
            return Ok(());
        }
        tokio::select! {
            _ = children.recv() => {}
            packet = socket.async_io(Interest::READABLE, |fd| Ok(packet::receive(fd)?)), if orphaned.is_none() => {
                match packet {
                    Ok(Some(packet)) if packet.kind == kind::SIGNAL => pass_on(command, &packet.bytes),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => {
                        for signal in [Signal::HUP, Signal::TERM, Signal::CONT] {
                            let _ = kill_process_group(command, signal);
                        }
                        orphaned = Some(Instant::now() + SUDO_GRACE);
                    }
                }
            }
            () = sleep_until(orphaned.unwrap_or_else(Instant::now)), if orphaned.is_some() => {
                let _ = kill_process_group(command, Signal::KILL);
                return Ok(());
            }
        }
    }
}

fn pass_on(command: Pid, number: &[u8]) {
    if let [number] = number
        && let Some(signal) = Signal::from_named_raw(i32::from(*number))
    {
        let _ = kill_process_group(command, signal);
    }
}

/// Tells of what happened to the command since the last look. True once it ended.
fn report(socket: &AsyncFd<OwnedFd>, command: Pid) -> io::Result<bool> {
    let looks = WaitOptions::NOHANG | WaitOptions::UNTRACED;
    loop {
        let Some((_, status)) = waitpid(Some(command), looks)? else {
            return Ok(false);
        };
        let byte = |number: i32| [u8::try_from(number).unwrap_or(u8::MAX)];
        let (kind, number, ended) = match told(status) {
            Told::Exited(code) => (kind::EXITED, code, true),
            Told::Killed(signal) => (kind::KILLED, signal, true),
            Told::Stopped(signal) => (kind::STOPPED, signal, false),
            Told::Other => continue,
        };
        // A caller who is gone is noticed where packets are read.
        let _ = packet::send(socket.get_ref(), kind, &byte(number), &[]);
        if ended {
            return Ok(true);
        }
    }
}

enum Told {
    Exited(i32),
    Killed(i32),
    Stopped(i32),
    Other,
}

fn told(status: WaitStatus) -> Told {
    if let Some(code) = status.exit_status() {
        Told::Exited(code)
    } else if let Some(signal) = status.terminating_signal() {
        Told::Killed(signal)
    } else if let Some(signal) = status.stopping_signal() {
        Told::Stopped(signal)
    } else {
        Told::Other
    }
}
