//! The registry of sandboxes: an SQLite file that several servers of one user share.
//!
//! It is off the path of a create: one thread owns the connection and is told what happened. What it is for: a sandbox
//! that ended with its server is still known, with the reason.

use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use crate::{
    error::StoreError,
    limits::{REGISTRY_KEPT, STORE_BUSY},
};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS sandboxes (
  id TEXT PRIMARY KEY,
  server TEXT NOT NULL,
  template TEXT NOT NULL,
  metadata TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  end_reason TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS live ON sandboxes (server) WHERE ended_at IS NULL;
";

enum Message {
    Started {
        id: String,
        template: String,
        metadata: String,
        at: i64,
    },
    Ended {
        id: String,
        reason: String,
        at: i64,
    },
    EndReason {
        id: String,
        answer: oneshot::Sender<Option<String>>,
    },
    Flush(oneshot::Sender<()>),
}

/// A handle to the registry's thread.
#[derive(Clone)]
pub(crate) struct Store(Sender<Message>);

impl Store {
    pub(crate) fn open(home: &Path) -> Result<Self, StoreError> {
        let show = |p: &Path| p.display().to_string();
        std::fs::create_dir_all(home).map_err(|source| StoreError::Folder {
            path: show(home),
            source,
        })?;
        let file = home.join("sandboxes.db");
        let server = server_name(std::process::id());
        let connection = prepare(&file, &server).map_err(|source| StoreError::Open {
            path: show(&file),
            source,
        })?;
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("registry".into())
            .spawn(move || serve(&connection, &server, &receiver))
            .map_err(StoreError::Thread)?;
        Ok(Self(sender))
    }

    pub(crate) fn started(&self, id: &str, template: &str, metadata: String, at: SystemTime) {
        let message = Message::Started {
            id: id.into(),
            template: template.into(),
            metadata,
            at: unix(at),
        };
        // The thread lives as long as a sender does.
        let _ = self.0.send(message);
    }

    pub(crate) fn ended(&self, id: &str, reason: &str) {
        let at = unix(SystemTime::now());
        let _ = self.0.send(Message::Ended {
            id: id.into(),
            reason: reason.into(),
            at,
        });
    }

    /// Why a sandbox of an earlier server ended, if it is known.
    pub(crate) async fn end_reason(&self, id: &str) -> Option<String> {
        let (answer, wait) = oneshot::channel();
        self.0.send(Message::EndReason { id: id.into(), answer }).ok()?;
        wait.await.ok().flatten()
    }

    /// Waits until everything said so far is written.
    pub(crate) async fn flush(&self) {
        let (answer, wait) = oneshot::channel();
        if self.0.send(Message::Flush(answer)).is_ok() {
            let _ = wait.await;
        }
    }
}

fn prepare(file: &Path, server: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(STORE_BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.execute_batch(SCHEMA)?;
    let now = unix(SystemTime::now());
    let servers: Vec<String> = connection
        .prepare("SELECT DISTINCT server FROM sandboxes WHERE ended_at IS NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for gone in servers.iter().filter(|s| *s == server || !is_alive(s)) {
        connection.execute(
            "UPDATE sandboxes SET ended_at = ?1, end_reason = 'with the server that held it' WHERE server = ?2 AND ended_at IS NULL",
            params![now, gone],
        )?;
    }
    let kept = i64::try_from(REGISTRY_KEPT.as_secs()).unwrap_or(i64::MAX);
    connection.execute("DELETE FROM sandboxes WHERE ended_at < ?1", [now - kept])?;
    Ok(connection)
}

fn serve(connection: &Connection, server: &str, messages: &Receiver<Message>) {
    while let Ok(message) = messages.recv() {
        let done = match message {
            Message::Started { id, template, metadata, at } => connection
                .prepare_cached("INSERT OR REPLACE INTO sandboxes (id, server, template, metadata, started_at) VALUES (?1, ?2, ?3, ?4, ?5)")
                .and_then(|mut s| s.execute(params![id, server, template, metadata, at]))
                .map(drop),
            Message::Ended { id, reason, at } => connection
                .prepare_cached("UPDATE sandboxes SET ended_at = ?2, end_reason = ?3 WHERE id = ?1")
                .and_then(|mut s| s.execute(params![id, at, reason]))
                .map(drop),
            Message::EndReason { id, answer } => connection
                .query_row("SELECT end_reason FROM sandboxes WHERE id = ?1 AND ended_at IS NOT NULL", [id], |row| row.get(0))
                .optional()
                .map(|reason| drop(answer.send(reason.flatten()))),
            Message::Flush(answer) => {
                let _ = answer.send(());
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the registry of sandboxes could not be read or written");
        }
    }
}

fn unix(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// A process id and when that process started: an id alone may be another process by now.
fn server_name(pid: u32) -> String {
    format!("{pid}:{}", start_time(pid).unwrap_or_default())
}

fn is_alive(server: &str) -> bool {
    server
        .split_once(':')
        .and_then(|(pid, _)| pid.parse().ok())
        .is_some_and(|pid| server_name(pid) == server)
}

/// Field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)); the name before it may hold spaces and parentheses.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_servers_sandboxes_are_known_to_have_ended() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        store.started("ialive", "base", "{}".into(), SystemTime::now());
        store.started("iended", "base", "{}".into(), SystemTime::now());
        store.ended("iended", "its timeout was reached");
        store.flush().await;
        assert_eq!(
            store.end_reason("iended").await.as_deref(),
            Some("its timeout was reached")
        );
        assert_eq!(store.end_reason("ialive").await, None);
        assert_eq!(store.end_reason("iunknown").await, None);

        // The row of a server that is gone: no process 4194305 can exist (PID_MAX_LIMIT is 2^22).
        let raw = Connection::open(home.path().join("sandboxes.db")).unwrap();
        raw.execute("UPDATE sandboxes SET server = '4194305:1' WHERE id = 'ialive'", [])
            .unwrap();
        let next = Store::open(home.path()).unwrap();
        assert_eq!(
            next.end_reason("ialive").await.as_deref(),
            Some("with the server that held it")
        );
    }

    #[test]
    fn this_process_is_alive() {
        assert!(is_alive(&server_name(std::process::id())));
        assert!(!is_alive(&format!("{}:1", std::process::id())));
        assert!(!is_alive("nonsense"));
    }
}
