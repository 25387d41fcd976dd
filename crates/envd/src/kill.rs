//! `POST /sandhold/kill`: signals any process of the sandbox, also one that no client started. Ours, not part of E2B's
//! protocol.
//!
//! The daemon signals by itself, so that it works where the sandbox has no room for one more process. The process is held by
//! a descriptor meanwhile: its id cannot become another's.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal as Sent, pidfd_open, pidfd_send_signal};
use sandhold_wire::limits::KILL_WAIT_MS;
use sandhold_wire::procfs::{KillAnswer, KillRequest, Signal};
use tokio::io::Interest;

use crate::error::{HttpError, json};
use crate::files::json_body;
use crate::sys;

/// The handler.
pub(crate) async fn post(body: Body) -> Response {
    let done = async { kill(json_body(body).await?).await };
    match done.await {
        Ok(ended) => json(StatusCode::OK, &KillAnswer { ended }),
        Err(error) => error.into_response(),
    }
}

async fn kill(request: KillRequest) -> Result<bool, HttpError> {
    let KillRequest { pid, signal, wait_ms } = request;
    let unknown = || HttpError::not_found(format!("process with pid {pid} not found"));
    if pid == 1 || pid == std::process::id() {
        return Err(HttpError::bad_request(format!(
            "process {pid} is the sandbox's own daemon: with it the sandbox would end"
        )));
    }
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(unknown)?;
    let failed = |error: Errno| match error {
        // The former is said of the id of a thread that is not a process.
        Errno::INVAL | Errno::SRCH => unknown(),
        Errno::PERM => HttpError::new(
            StatusCode::FORBIDDEN,
            format!("process {pid} belongs to a user that the sandbox's daemon has no power over"),
        ),
        other => HttpError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("process {pid} could not be signalled: {other}"),
        ),
    };
    let process = pidfd_open(id, PidfdFlags::NONBLOCK).map_err(failed)?;
    // One that has ended takes signals until its parent has looked.
    let mut now = [PollFd::new(&process, PollFlags::IN)];
    if poll(&mut now, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
        return Err(unknown());
    }
    pidfd_send_signal(&process, sent(signal)).map_err(failed)?;
    if !signal.ends() {
        return Ok(false);
    }
    let end = sys::async_fd(process, Interest::READABLE).map_err(|e| {
        HttpError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("process {pid} cannot be watched: {e}"),
        )
    })?;
    let wait = Duration::from_millis(wait_ms.min(KILL_WAIT_MS));
    Ok(tokio::time::timeout(wait, end.readable())
        .await
        .is_ok_and(|ready| ready.is_ok()))
}

fn sent(signal: Signal) -> Sent {
    match signal {
        Signal::Term => Sent::TERM,
        Signal::Kill => Sent::KILL,
        Signal::Int => Sent::INT,
        Signal::Hup => Sent::HUP,
        Signal::Quit => Sent::QUIT,
        Signal::Usr1 => Sent::USR1,
        Signal::Usr2 => Sent::USR2,
        Signal::Stop => Sent::STOP,
        Signal::Cont => Sent::CONT,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn asked(pid: u32, signal: Signal) -> KillRequest {
        KillRequest {
            pid,
            signal,
            wait_ms: KILL_WAIT_MS,
        }
    }

    #[tokio::test]
    async fn a_process_ends_and_then_is_unknown() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(kill(asked(child.id(), Signal::Stop)).await, Ok(false));
        assert_eq!(kill(asked(child.id(), Signal::Cont)).await, Ok(false));
        assert_eq!(kill(asked(child.id(), Signal::Term)).await, Ok(true));
        let zombie = kill(asked(child.id(), Signal::Term)).await.unwrap_err();
        assert_eq!(zombie.status, StatusCode::NOT_FOUND);
        child.wait().unwrap();
        let error = kill(asked(child.id(), Signal::Term)).await.unwrap_err();
        assert_eq!(error.status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn the_daemon_is_spared() {
        for pid in [1, std::process::id()] {
            let error = kill(asked(pid, Signal::Term)).await.unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{pid}");
        }
        for pid in [0, u32::MAX] {
            let error = kill(asked(pid, Signal::Kill)).await.unwrap_err();
            assert_eq!(error.status, StatusCode::NOT_FOUND, "{pid}");
        }
    }
}
