//! `GET /sandhold/process?pid=N`: whether a process runs, and whether it waits for input.
//!
//! It waits when a process of its session sits in `read` or `select` on the stdin that the daemon holds the other end of,
//! has taken all that was written there, and all that it printed before was sent to its listeners.
//! The kernel tells the first in `/proc/<pid>/syscall`, to those who could trace the process: so the question is asked
//! under the process's own user. Where it is not answered, the answer is no.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use sandhold_wire::proto::process::process_selector::Selector;
use serde::{Deserialize, Serialize};

use super::{Io, Process};
use crate::error::{HttpError, json};
use crate::limits::{AWAITING_LOOKS, AWAITING_PAUSE, AWAITING_SCAN};
use crate::state::State;
use crate::sys::as_user;

/// Which process is asked about.
#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    pid: u32,
}

#[derive(Debug, Serialize)]
struct Answer {
    pid: u32,
    running: bool,
    awaiting_input: bool,
}

/// The handler.
pub(crate) async fn get(Shared(state): Shared<Arc<State>>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let Ok(Query(Asked { pid })) = asked else {
        return HttpError::bad_request("the query parameter 'pid' must be the number of a process").into_response();
    };
    let answer = match state.processes.find(Some(&Selector::Pid(pid))) {
        Err(_) => return HttpError::not_found(format!("process with pid {pid} not found")).into_response(),
        Ok(super::table::Found::Ended(..)) => Answer {
            pid,
            running: false,
            awaiting_input: false,
        },
        Ok(super::table::Found::Running(process)) => {
            let running = process.is_running();
            let awaiting_input = running && awaits(process).await;
            Answer {
                pid,
                running,
                awaiting_input,
            }
        }
    };
    json(StatusCode::OK, &answer)
}

async fn awaits(process: Arc<Process>) -> bool {
    let mut seen = 0;
    // What was written to a terminal is on its way for a moment that cannot be looked at.
    let wanted = if matches!(process.io, Io::Terminal(_)) { 2 } else { 1 };
    for _ in 0..AWAITING_LOOKS {
        // Looked at first: what is taken later is followed by a look that finds the process at work.
        let taken = process.has_taken_input();
        let Some(stdin) = stdin_of(&process) else { return false };
        let asked = Arc::clone(&process);
        let look = move || as_user(asked.ids.0, asked.ids.1, || any_reads(asked.pid, &stdin));
        if !tokio::task::spawn_blocking(look).await.unwrap_or(false) {
            return false;
        }
        seen = if taken && process.is_told() { seen + 1 } else { 0 };
        if seen == wanted {
            return true;
        }
        tokio::time::sleep(AWAITING_PAUSE).await;
    }
    false
}

/// The stdin as `/proc/<pid>/fd/0` shows it.
fn stdin_of(process: &Process) -> Option<String> {
    match &process.io {
        Io::Pipes(stdin) => stdin
            .is_open()
            .then(|| stdin.inode())
            .flatten()
            .map(|inode| format!("pipe:[{inode}]")),
        Io::Terminal(terminal) => rustix::pty::ptsname(terminal.master.get_ref(), Vec::new())
            .ok()?
            .into_string()
            .ok(),
    }
}

fn any_reads(session: u32, stdin: &str) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return false;
    };
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| session_of(pid) == Some(session))
        .take(AWAITING_SCAN)
        .any(|pid| reads(pid, stdin))
}

fn session_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state ppid pgrp session: the name may hold anything, even a parenthesis.
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

fn reads(pid: u32, stdin: &str) -> bool {
    let Ok(call) = std::fs::read_to_string(format!("/proc/{pid}/syscall")) else {
        return false;
    };
    let link = || std::fs::read_link(format!("/proc/{pid}/fd/0")).is_ok_and(|l| l.as_os_str() == stdin);
    waits_on_stdin(&call) && link()
}

/// Whether the line of `/proc/<pid>/syscall` shows a read of descriptor 0, or a select over descriptor 0 alone.
fn waits_on_stdin(call: &str) -> bool {
    let mut words = call.split_whitespace();
    let Some(number) = words.next().and_then(|n| n.parse::<i64>().ok()) else {
        return false;
    };
    let Some(first) = words
        .next()
        .and_then(|a| u64::from_str_radix(a.trim_start_matches("0x"), 16).ok())
    else {
        return false;
    };
    #[cfg(target_arch = "x86_64")]
    let selects = [libc::SYS_pselect6, libc::SYS_select];
    #[cfg(not(target_arch = "x86_64"))]
    let selects = [libc::SYS_pselect6];
    (number == libc::SYS_read && first == 0) || (selects.contains(&number) && first == 1)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn calls() {
        let line = |number: i64, first: &str| format!("{number} {first} 0x7ffc 0x1 0x0 0x0 0x0 0x7ffd 0x7f00\n");
        assert!(waits_on_stdin(&line(libc::SYS_read, "0x0")));
        assert!(!waits_on_stdin(&line(libc::SYS_read, "0x3")));
        assert!(waits_on_stdin(&line(libc::SYS_pselect6, "0x1")));
        assert!(!waits_on_stdin(&line(libc::SYS_pselect6, "0x5")));
        assert!(!waits_on_stdin(&line(libc::SYS_write, "0x0")));
        assert!(!waits_on_stdin("running\n"));
        assert!(!waits_on_stdin("-1 0x7ffd 0x7f00\n"));
    }

    // Not this process's own session: where its leader is in another pid namespace, its number is zero.
    #[test]
    fn finds_the_session_of_a_process() {
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", "echo ready; read -r line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        leader.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(session_of(leader.id()), Some(leader.id()));
        drop(leader.stdin.take());
        leader.wait().unwrap();
    }
}
