//! The daemon's part: a socket inside the sandbox, one short packet from each caller, one monitor for each.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, chmodat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Gid, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::MONITOR;
use super::command::Grant;
use super::packet::{self, kind};
use crate::auth;
use crate::limits::{SUDO_BACKLOG, SUDO_CALLERS, SUDO_PATIENCE, SUDO_USER_NAME};
use crate::state::State;
use crate::sys::{Job, async_fd, dev_null};
use crate::users::{self, User};

/// Listens at `path`, or where it begins with `@` at that abstract name, for as long as the daemon lives. Everybody inside may connect; from elsewhere the path cannot be
/// reached, and a caller whose process is not of this sandbox is refused.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn start(state: &Arc<State>, path: &Path) -> io::Result<()> {
    let address = address(path)?;
    if address.abstract_name().is_none() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    if address.abstract_name().is_none() {
        chmodat(CWD, path, Mode::from_raw_mode(0o666), rustix::fs::AtFlags::empty())?;
    }
    rustix::net::listen(&socket, SUDO_BACKLOG)?;
    let listener = async_fd(socket, Interest::READABLE)?;
    tokio::spawn(accept(listener, Arc::clone(state)));
    Ok(())
}

/// The address of the socket at `path`.
pub(super) fn address(path: &Path) -> Result<SocketAddrUnix, Errno> {
    match path.as_os_str().as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        _ => SocketAddrUnix::new(path),
    }
}

async fn accept(listener: AsyncFd<OwnedFd>, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(SUDO_CALLERS));
    // The semaphore is never closed. Without a place nobody is accepted: callers wait in the kernel's queue.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let accepted = listener
            .async_io(Interest::READABLE, |fd| {
                Ok(rustix::net::accept_with(
                    fd,
                    SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                )?)
            })
            .await;
        let Ok(socket) = accepted else {
            // Out of descriptors or memory: some become free.
            sleep(SUDO_PATIENCE / 100).await;
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // One who says nothing in time is nobody.
            let _ = timeout(SUDO_PATIENCE, serve(&state, socket)).await;
            drop(place);
        });
    }
}

async fn serve(state: &State, socket: OwnedFd) -> io::Result<()> {
    let socket = async_fd(socket, Interest::READABLE)?;
    let first = socket
        .async_io(Interest::READABLE, |fd| Ok(packet::receive(fd)?))
        .await?;
    let Some(first) = first else { return Ok(()) };
    let said = match answer(state, socket.get_ref(), &first) {
        Ok(None) => return Ok(()),
        Ok(Some(kind)) => packet::send(socket.get_ref(), kind, b"", &[]),
        Err(refusal) => packet::send(socket.get_ref(), kind::REFUSED, refusal.as_bytes(), &[]),
    };
    Ok(said?)
}

/// What the caller is told, or nothing when a monitor has the connection.
fn answer(state: &State, socket: &OwnedFd, first: &packet::Packet) -> Result<Option<u8>, String> {
    let caller = rustix::net::sockopt::socket_peercred(socket).map_err(|e| format!("who asks cannot be told: {e}"))?;
    // The kernel gives no number to a process of another process namespace.
    if caller.pid.as_raw_pid() <= 0 {
        return Err("the caller is not in this sandbox".to_owned());
    }
    if !first.fds.is_empty() || first.bytes.len() > SUDO_USER_NAME {
        return Err("the request is not understood".to_owned());
    }
    let name = std::str::from_utf8(&first.bytes).map_err(|_| "the user's name is not text".to_owned())?;
    let user = allowed(state, name)?;
    match first.kind {
        kind::ASK => Ok(Some(kind::YES)),
        kind::RUN => {
            let grant = Grant {
                caller: users::Names::read().user(caller.uid.as_raw()),
                caller_uid: caller.uid.as_raw(),
                caller_gid: caller.gid.as_raw(),
                user: user.name.clone(),
                home: user.home.clone(),
                shell: user.shell.clone(),
                path: state.path.clone(),
            };
            monitor(state, socket, &user, &grant).map_err(|e| format!("the command cannot be started: {e}"))?;
            Ok(None)
        }
        _ => Err("the request is not understood".to_owned()),
    }
}

fn allowed(state: &State, name: &str) -> Result<User, String> {
    auth::user_named(state, Some(name)).map_err(|error| match error {
        auth::UserError::Unknown(_) => format!("unknown user {name}"),
        auth::UserError::OneId(_, own) => format!(
            "there is no root here: this sandbox has the one user id of '{own}', because of how Sandhold was started"
        ),
    })
}

/// Starts a monitor that goes on with the caller, with the user's ids from its first instruction.
fn monitor(state: &State, socket: &OwnedFd, user: &User, grant: &Grant) -> io::Result<()> {
    rustix::io::ioctl_fionbio(socket, false)?;
    let null = dev_null()?;
    let grant = CString::new(serde_json::to_vec(grant)?).map_err(io::Error::other)?;
    let groups: Vec<Gid> = user.groups.iter().map(|&g| Gid::from_raw(g)).collect();
    let ids = (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups.as_slice());
    let job = Job {
        // The daemon's own program, whatever stands in the sandbox's files.
        programs: &[c"/proc/self/exe".to_owned()],
        argv: &[CString::new(MONITOR)?, grant],
        envp: &[],
        cwd: c"/",
        stdio: [socket.as_fd(), null.as_fd(), null.as_fd()],
        terminal: false,
        ids: state.can_switch_user.then_some(ids),
    };
    // Its end is the reaper's concern alone: the caller learns of it by the end of the connection.
    match state.reaper.spawn(&job) {
        Ok(_) => Ok(()),
        Err(failed) if Errno::from_io_error(&failed.error) == Some(Errno::AGAIN) => {
            Err(io::Error::other("the sandbox has as many processes as it may have"))
        }
        Err(failed) => Err(failed.error),
    }
}
