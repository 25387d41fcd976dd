//! `GET /sandhold/processes`: every process of the sandbox, also those that no client started. Ours, not part of E2B's
//! protocol.
//!
//! `/proc` is read twice, a moment apart: what a process used of a processor in between is its share right now.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use sandhold_wire::limits::{PROCESS_COMMAND, PROCESSES};
use sandhold_wire::procfs::{ProcessList, ProcessRow, Stat, boot_time, user_and_memory};

use crate::error::{HttpError, json};
use crate::filesystem::error::{FsError, blocking};
use crate::limits::{PROC_FILE, PROCESSES_LOOK};
use crate::state::State as Daemon;
use crate::users::Names;

/// The handler.
pub(crate) async fn get(State(state): State<Arc<Daemon>>) -> Response {
    match list(state.plain).await {
        Ok(list) => json(StatusCode::OK, &list),
        Err(error) => HttpError::from(error).into_response(),
    }
}

/// `plain`: those of the host are in `/proc`, too, and are left out.
async fn list(plain: bool) -> Result<ProcessList, FsError> {
    let began = Instant::now();
    let (before, _) = blocking(move || stats(plain)).await?;
    tokio::time::sleep(PROCESSES_LOOK).await;
    blocking(move || {
        let seconds = began.elapsed().as_secs_f64();
        let (now, truncated) = stats(plain)?;
        let before: HashMap<u32, Stat> = before.into_iter().map(|s| (s.pid, s)).collect();
        let names = Names::read();
        let boot = read("/proc/stat", 1 << 20)
            .and_then(|text| boot_time(&text))
            .unwrap_or(0);
        let processes = now.iter().map(|s| row(s, before.get(&s.pid), seconds, boot, &names));
        Ok(ProcessList {
            processes: processes.collect(),
            truncated,
        })
    })
    .await
}

/// The processes by their ids, and whether there were more than fit.
fn stats(plain: bool) -> Result<(Vec<Stat>, bool), FsError> {
    let entries = std::fs::read_dir("/proc").map_err(|e| FsError::io("error reading /proc", e))?;
    let mut pids: Vec<u32> = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let truncated = pids.len() > PROCESSES;
    pids.truncate(PROCESSES);
    // One that ends meanwhile is not there.
    let stats = pids
        .iter()
        .filter_map(|pid| Stat::parse(&read(&format!("/proc/{pid}/stat"), PROC_FILE)?));
    let mut stats: Vec<Stat> = stats.collect();
    if plain {
        own_only(&mut stats);
    }
    Ok((stats, truncated))
}

/// Keeps this process and what descends from it: it is the parent of the sandbox's orphans.
fn own_only(stats: &mut Vec<Stat>) {
    let parents: HashMap<u32, u32> = stats.iter().map(|s| (s.pid, s.ppid)).collect();
    let own = std::process::id();
    stats.retain(|stat| {
        let mut at = stat.pid;
        // Parents are read one after the other, so what they make need not be a tree.
        for _ in 0..parents.len() {
            if at == own {
                return true;
            }
            match parents.get(&at) {
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        false
    });
}

fn row(stat: &Stat, before: Option<&Stat>, seconds: f64, boot: i64, names: &Names) -> ProcessRow {
    let (uid, memory) = user_and_memory(&read(&format!("/proc/{}/status", stat.pid), PROC_FILE).unwrap_or_default());
    let cmdline = bytes(&format!("/proc/{}/cmdline", stat.pid), PROCESS_COMMAND as u64).unwrap_or_default();
    ProcessRow {
        pid: stat.pid,
        ppid: stat.ppid,
        user: uid.map_or_else(String::new, |uid| names.user(uid)),
        cpu: stat.cpu_since(before, seconds),
        memory,
        started: stat.started_at(boot),
        command: stat.command(&cmdline),
    }
}

fn bytes(path: &str, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read(path: &str, most: u64) -> Option<String> {
    bytes(path, most).map(|b| String::from_utf8_lossy(&b).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_busy_child_is_listed_as_it_is() {
        let mut child = Command::new("sh")
            .args(["-c", "while :; do :; done", "busy", "two  words"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // Time for `exec`, which gives it its command line.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let list = list(true).await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let found = |pid: u32| list.processes.iter().find(|r| r.pid == pid).cloned().unwrap();
        let (own, busy) = (found(std::process::id()), found(child.id()));
        assert_eq!(busy.ppid, std::process::id());
        assert_eq!(busy.command, "sh -c while :; do :; done busy two  words");
        assert!(busy.cpu > 0.0 && busy.memory > 0, "{busy:?}");
        assert!(
            !own.user.is_empty() && busy.user == own.user && busy.started >= own.started,
            "{own:?} {busy:?}"
        );
        assert!(
            list.processes.iter().all(|r| r.pid != 1),
            "the host's are not among them"
        );
        assert!(list.processes.windows(2).all(|p| p[0].pid < p[1].pid) && !list.truncated);
    }
}
