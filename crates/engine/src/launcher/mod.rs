//! The launcher: a small process with one thread that forks sandboxes.
//!
//! It is started before the server grows, because a fork copies the page tables of the process that forks: with a
//! gigabyte in use that costs 15 ms at the start and again at the end of each sandbox. It parses nothing but the engine's
//! own messages.
//!
//! ```text
//! engine ── Hello, init program ──────────────▶ launcher      own namespaces, private root, prepared template
//! engine ◀─ NeedsMap ─ Mapped ▶ (ordinary users with sub-ids) ─ Ready ── launcher
//! engine ── Create, control socket, status ───▶ launcher ── clone3 ──▶ child: host name, doors
//!                                               launcher: id maps, id-mapped mounts ─ gate 1 ▶ child: ids, its root
//!                                               launcher: cgroups ─ gate 2 ▶ child: pivot, limits, rights, filter,
//! engine ◀─ Created, pidfd ──────────────────── launcher      exec
//! engine ── Work, pipe ───────────────────────▶ launcher ── fork ──▶ worker: layers; what came of it goes to the pipe
//! engine ── Forget ───────────────────────────▶ launcher      (the sandbox ended and the engine cleaned up)
//! engine closes, or dies ─────────────────────▶ launcher      kills all, waits, removes their cgroups, ends
//! launcher dies ─▶ children get SIGKILL (PDEATHSIG); the engine cleans up and starts another launcher
//! ```

mod busy;
mod child;
mod create;
pub(crate) mod doors;
mod guarded;
pub(crate) mod keeper;
pub(crate) mod message;
mod netlink;
mod restack;
mod root;
mod setup;
mod stack;
mod vault;
mod wall;
mod worker;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use crate::cgroup::remove_at;
use crate::packet;
use create::Born;
use message::{Failure, Reply, Request, Step, Way};

/// A sandbox that this launcher started and nobody cleaned up after yet.
struct Started {
    id: String,
    pid: Pid,
    pidfd: OwnedFd,
}

/// The program of the launcher. The engine starts it as its own process, with the engine's socket as standard input.
/// Returns when the engine closed the socket and every sandbox is gone.
pub fn launcher_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Silent) => ExitCode::FAILURE,
        Err(Stop::Told(socket, failure)) => {
            // If the engine is gone too, nobody is left to tell.
            let _ = packet::send(&socket, &Reply::Failed(failure), &[]);
            ExitCode::FAILURE
        }
    }
}

/// Why the launcher ends early.
enum Stop {
    /// The engine is not there, or not one of ours.
    Silent,
    /// The engine should be told.
    Told(OwnedFd, Failure),
}

fn run() -> Result<(), Stop> {
    let socket = setup::take_socket().map_err(|_| Stop::Silent)?;
    let mut launcher = match setup::prepare(&socket) {
        Ok(launcher) => launcher,
        Err(Some(failure)) => return Err(Stop::Told(socket, failure)),
        Err(None) => return Err(Stop::Silent),
    };
    if packet::send(&socket, &Reply::Ready(launcher.facts.clone()), &[]).is_err() {
        return Err(Stop::Silent);
    }
    let mut started = HashMap::new();
    serve(&socket, &mut launcher, &mut started);
    end_all(&launcher, started);
    Ok(())
}

fn serve(socket: &OwnedFd, launcher: &mut setup::Launcher, started: &mut HashMap<u64, Started>) {
    loop {
        // A socket that ended, or a packet that is not ours: the engine is gone either way.
        let Ok((request, fds)) = packet::receive::<Request>(socket) else {
            return;
        };
        match request {
            Request::Create(create) => {
                let id = create.id.clone();
                let request = create.request;
                let sent = match create::create(launcher, *create, fds) {
                    Ok(born) => {
                        let reply = Reply::Created {
                            request,
                            pid: born.pid.as_raw_nonzero().get(),
                            phases: born.phases.clone(),
                        };
                        let sent = packet::send(socket, &reply, &[&born.pidfd]);
                        let Born { pid, pidfd, .. } = born;
                        started.insert(request, Started { id, pid, pidfd });
                        sent
                    }
                    Err(failure) => packet::send(socket, &Reply::Refused { request, failure }, &[]),
                };
                if sent.is_err() {
                    return;
                }
            }
            Request::Forget { request } => {
                started.remove(&request);
                if launcher.hello.way != Way::Namespaces {
                    let known: Vec<Pid> = started.values().map(|sandbox| sandbox.pid).collect();
                    guarded::end_strangers(&known);
                }
            }
            Request::Work(work) => {
                let first = |request: u64| started.get(&request).map(|sandbox| (sandbox.pid, &sandbox.pidfd));
                worker::start(launcher, &work, fds, first);
            }
            Request::Let { layer } => {
                worker::let_go(launcher, layer);
            }
            Request::Hello(_) | Request::Mapped => return,
        }
    }
}

/// The engine is gone: ends what it left.
fn end_all(launcher: &setup::Launcher, started: HashMap<u64, Started>) {
    let guarded = launcher.hello.way != Way::Namespaces;
    for sandbox in started.values() {
        // ESRCH: it ended by itself. A guard ends all before it ends.
        let signal = if guarded { Signal::TERM } else { Signal::KILL };
        let _ = pidfd_send_signal(&sandbox.pidfd, signal);
    }
    for sandbox in started.into_values() {
        launcher.thaw(&sandbox.id);
        let mut wait = [PollFd::new(&sandbox.pidfd, PollFlags::IN)];
        let _ = poll(&mut wait, None);
        if guarded {
            guarded::end_strangers(&[]);
        }
        for folder in &launcher.cgroups {
            remove_at(folder, &sandbox.id);
        }
        if let Some(private) = &launcher.private {
            // What is left is swept by the next server.
            let _ = sandhold_layers::remove(private.as_fd(), sandbox.id.as_bytes());
        }
    }
    if !launcher.hello.drafts.is_empty() {
        keeper::tidy(&launcher.hello.drafts);
    }
    // The server's own folders go with the last sandbox; what is still there is swept at the next start of a server.
    launcher.remove_cgroups();
}

fn protocol(object: &str) -> Failure {
    Failure {
        step: Step::Protocol,
        object: object.to_owned(),
        errno: 0,
    }
}
