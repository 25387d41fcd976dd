//! The registry of sandboxes: an SQLite file that several servers of one user share.
//!
//! It is off the path of a create: one thread owns the connection and is told what happened. What it is for: a sandbox
//! that ended with its server is still known, with the reason, and a paused one comes back with the next server.
//!
//! The row of a paused sandbox holds its tokens, so the file is its owner's alone.

use std::{
    collections::HashSet,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use futures::future::BoxFuture;
use sandhold_runtime::{LayerId, StoredRoot};
use serde::Deserialize;

use crate::{
    error::{Refusal, StoreError},
    layering::NamesLayers,
    limits::{REGISTRY_KEPT, STORE_BUSY},
    owner::Owner,
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
/// Columns that came later: the API key's number, and what a paused sandbox is made from again.
const LATER: [(&str, &str); 2] = [("owner", "INTEGER"), ("paused", "TEXT")];

enum Message {
    Started {
        id: String,
        owner: Owner,
        template: String,
        metadata: String,
        at: i64,
    },
    Ended {
        id: String,
        reason: String,
        at: i64,
    },
    Paused {
        id: String,
        recipe: String,
        answer: oneshot::Sender<bool>,
    },
    Resumed {
        id: String,
        answer: oneshot::Sender<bool>,
    },
    EndReason {
        id: String,
        owner: Owner,
        answer: oneshot::Sender<Option<String>>,
    },
    /// What all paused sandboxes are made from again.
    Recipes(oneshot::Sender<Option<Vec<String>>>),
    Flush(oneshot::Sender<()>),
}

/// The part of a paused sandbox's recipe that names layers.
#[derive(Deserialize)]
struct Layered {
    #[serde(default)]
    files: Option<StoredRoot>,
    #[serde(default)]
    origin: Option<StoredRoot>,
}

impl NamesLayers for Store {
    fn named(&self) -> BoxFuture<'_, Result<HashSet<LayerId>, Refusal>> {
        Box::pin(async {
            let unread = |why: &str| Refusal::internal(format!("the registry of sandboxes could not be read: {why}"));
            let (answer, wait) = oneshot::channel();
            let recipes = match self.0.send(Message::Recipes(answer)) {
                Ok(()) => wait.await.ok().flatten().ok_or_else(|| unread("no answer")),
                Err(_) => Err(unread("it is closed")),
            }?;
            let mut named = HashSet::new();
            for recipe in recipes {
                let Layered { files, origin } =
                    serde_json::from_str(&recipe).map_err(|error| unread(&error.to_string()))?;
                named.extend(files.into_iter().chain(origin).flat_map(|root| root.layers));
            }
            Ok(named)
        })
    }
}

/// A paused sandbox that an earlier server left.
pub(crate) struct Kept {
    pub(crate) id: String,
    /// As it was given to [`Store::paused`].
    pub(crate) recipe: String,
}

/// What the registry knew when it was opened.
#[derive(Default)]
pub(crate) struct Found {
    /// The paused sandboxes that this server takes over.
    pub(crate) kept: Vec<Kept>,
    /// Ids of all paused sandboxes, other servers' too.
    pub(crate) paused: Vec<String>,
}

/// A handle to the registry's thread.
#[derive(Clone)]
pub(crate) struct Store(Sender<Message>);

impl Store {
    /// Opens the registry. With `adopt`, paused sandboxes of servers that are gone become this server's.
    pub(crate) fn open(home: &Path, adopt: bool) -> Result<(Self, Found), StoreError> {
        let show = |p: &Path| p.display().to_string();
        std::fs::create_dir_all(home).map_err(|source| StoreError::Folder {
            path: show(home),
            source,
        })?;
        let file = home.join("sandboxes.db");
        make_private(&file).map_err(|source| StoreError::Private {
            path: show(&file),
            source,
        })?;
        let server = server_name(std::process::id());
        let (connection, found) = prepare(&file, &server, adopt).map_err(|source| StoreError::Open {
            path: show(&file),
            source,
        })?;
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("registry".into())
            .spawn(move || serve(&connection, &server, &receiver))
            .map_err(StoreError::Thread)?;
        Ok((Self(sender), found))
    }

    pub(crate) fn started(&self, id: &str, owner: Owner, template: &str, metadata: String, at: SystemTime) {
        let message = Message::Started {
            id: id.into(),
            owner,
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

    /// Notes that a sandbox can be made again from `recipe` and its files; with an empty one by this server alone. False if
    /// it could not be written.
    pub(crate) async fn paused(&self, id: &str, recipe: String) -> bool {
        let (answer, wait) = oneshot::channel();
        let id = id.into();
        self.0.send(Message::Paused { id, recipe, answer }).is_ok() && wait.await.unwrap_or(false)
    }

    /// Notes that a sandbox runs again and would end with this server. False if it could not be written.
    pub(crate) async fn resumed(&self, id: &str) -> bool {
        let (answer, wait) = oneshot::channel();
        let id = id.into();
        self.0.send(Message::Resumed { id, answer }).is_ok() && wait.await.unwrap_or(false)
    }

    /// Why an owner's sandbox of an earlier server ended, if it is known.
    pub(crate) async fn end_reason(&self, id: &str, owner: Owner) -> Option<String> {
        let (answer, wait) = oneshot::channel();
        let id = id.into();
        self.0.send(Message::EndReason { id, owner, answer }).ok()?;
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

/// SQLite gives its helper files the mode of the file itself.
pub(crate) fn make_private(file: &Path) -> std::io::Result<()> {
    private(std::fs::OpenOptions::new().append(true).create(true), file).map(drop)
}

/// Opens a file that its owner alone can read, also if it stood there before.
pub(crate) fn private(options: &mut std::fs::OpenOptions, file: &Path) -> std::io::Result<std::fs::File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    let opened = options.open(file)?;
    #[cfg(unix)]
    opened.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(opened)
}

fn prepare(file: &Path, server: &str, adopt: bool) -> rusqlite::Result<(Connection, Found)> {
    let mut connection = Connection::open(file)?;
    connection.busy_timeout(STORE_BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    // One transaction: two servers that start at once must not take over the same sandbox.
    let work = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    work.execute_batch(SCHEMA)?;
    for (column, kind) in LATER {
        let there = work
            .prepare("SELECT 1 FROM pragma_table_info('sandboxes') WHERE name = ?1")?
            .exists([column])?;
        if !there {
            work.execute_batch(&format!("ALTER TABLE sandboxes ADD COLUMN {column} {kind}"))?;
        }
    }
    let now = unix(SystemTime::now());
    let servers: Vec<String> = work
        .prepare("SELECT DISTINCT server FROM sandboxes WHERE ended_at IS NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut found = Found::default();
    for gone in servers.iter().filter(|s| *s == server || !is_alive(s)) {
        work.execute(
            "UPDATE sandboxes SET ended_at = ?1, end_reason = 'with the server that held it', paused = NULL \
             WHERE server = ?2 AND ended_at IS NULL AND coalesce(paused, '') = ''",
            params![now, gone],
        )?;
        if adopt {
            let mut rows = work.prepare(
                "UPDATE sandboxes SET server = ?1 WHERE server = ?2 AND ended_at IS NULL RETURNING id, paused",
            )?;
            let kept = rows.query_map([server, gone], |row| {
                Ok(Kept {
                    id: row.get(0)?,
                    recipe: row.get(1)?,
                })
            })?;
            found.kept.extend(kept.collect::<rusqlite::Result<Vec<_>>>()?);
        }
    }
    let kept = i64::try_from(REGISTRY_KEPT.as_secs()).unwrap_or(i64::MAX);
    work.execute("DELETE FROM sandboxes WHERE ended_at < ?1", [now - kept])?;
    found.paused = work
        .prepare("SELECT id FROM sandboxes WHERE ended_at IS NULL AND paused IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    work.commit()?;
    Ok((connection, found))
}

fn serve(connection: &Connection, server: &str, messages: &Receiver<Message>) {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        connection
            .prepare_cached(sql)
            .and_then(|mut s| s.execute(values))
            .map(|rows| rows > 0)
            .inspect_err(|error| tracing::warn!(%error, "the registry of sandboxes could not be written"))
            .unwrap_or(false)
    };
    while let Ok(message) = messages.recv() {
        match message {
            Message::Started {
                id,
                owner,
                template,
                metadata,
                at,
            } => {
                run(
                    "INSERT OR REPLACE INTO sandboxes (id, server, owner, template, metadata, started_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![id, server, owner.number(), template, metadata, at],
                );
            }
            // The tokens are of no use any more.
            Message::Ended { id, reason, at } => {
                run(
                    "UPDATE sandboxes SET ended_at = ?2, end_reason = ?3, paused = NULL WHERE id = ?1",
                    params![id, at, reason],
                );
            }
            Message::Paused { id, recipe, answer } => {
                let done = run("UPDATE sandboxes SET paused = ?2 WHERE id = ?1", params![id, recipe]);
                let _ = answer.send(done);
            }
            Message::Resumed { id, answer } => {
                let done = run("UPDATE sandboxes SET paused = NULL WHERE id = ?1", params![id]);
                let _ = answer.send(done);
            }
            Message::EndReason { id, owner, answer } => {
                let found = connection
                    .query_row(
                        "SELECT end_reason FROM sandboxes WHERE id = ?1 AND owner IS ?2 AND ended_at IS NOT NULL",
                        params![id, owner.number()],
                        |row| row.get::<_, Option<String>>(0),
                    )
                    .optional()
                    .inspect_err(|error| tracing::warn!(%error, "the registry of sandboxes could not be read"))
                    .unwrap_or_default();
                let _ = answer.send(found.flatten());
            }
            Message::Recipes(answer) => {
                let found = connection
                    .prepare_cached(
                        "SELECT paused FROM sandboxes WHERE ended_at IS NULL AND coalesce(paused, '') <> ''",
                    )
                    .and_then(|mut s| {
                        s.query_map([], |row| row.get(0))?
                            .collect::<rusqlite::Result<Vec<String>>>()
                    })
                    .inspect_err(|error| tracing::warn!(%error, "the registry of sandboxes could not be read"));
                let _ = answer.send(found.ok());
            }
            Message::Flush(answer) => {
                let _ = answer.send(());
            }
        }
    }
}

fn unix(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// A process id and when that process started: an id alone may be another process by now.
pub(crate) fn server_name(pid: u32) -> String {
    format!("{pid}:{}", start_time(pid).unwrap_or_default())
}

pub(crate) fn is_alive(server: &str) -> bool {
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

    /// The name of a server that is gone: no process 4194305 can exist (PID_MAX_LIMIT is 2^22).
    fn abandon(home: &Path, id: &str) {
        let raw = Connection::open(home.join("sandboxes.db")).unwrap();
        let changed = raw
            .execute("UPDATE sandboxes SET server = '4194305:1' WHERE id = ?1", [id])
            .unwrap();
        assert_eq!(changed, 1);
    }

    #[tokio::test]
    async fn a_dead_servers_sandboxes_are_known_to_have_ended() {
        let home = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(home.path(), false).unwrap();
        let (mine, other) = (Owner::key(7), Owner::LOCAL);
        for id in ["ialive", "iended"] {
            store.started(id, mine, "base", "{}".into(), SystemTime::now());
        }
        store.ended("iended", "its timeout was reached");
        store.flush().await;
        let reason = store.end_reason("iended", mine).await;
        assert_eq!(reason.as_deref(), Some("its timeout was reached"));
        assert_eq!(store.end_reason("iended", other).await, None);
        assert_eq!(store.end_reason("ialive", mine).await, None);
        assert_eq!(store.end_reason("iunknown", mine).await, None);

        abandon(home.path(), "ialive");
        let (next, found) = Store::open(home.path(), true).unwrap();
        assert!(found.kept.is_empty());
        let reason = next.end_reason("ialive", mine).await;
        assert_eq!(reason.as_deref(), Some("with the server that held it"));
    }

    #[tokio::test]
    async fn a_paused_sandbox_passes_to_the_next_server_that_keeps_them() {
        let home = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(home.path(), true).unwrap();
        for (id, recipe) in [("ipaused", "recipe"), ("iresumed", "recipe"), ("iown", "")] {
            store.started(id, Owner::LOCAL, "base", "{}".into(), SystemTime::now());
            assert!(store.paused(id, recipe.into()).await);
        }
        assert!(store.resumed("iresumed").await);
        assert!(!store.paused("iunknown", "recipe".into()).await);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &home.path().join("sandboxes.db").metadata().unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        for id in ["ipaused", "iresumed", "iown"] {
            abandon(home.path(), id);
        }

        let (other, found) = Store::open(home.path(), false).unwrap();
        assert_eq!(
            (found.kept.len(), found.paused.as_slice()),
            (0, &["ipaused".to_owned()][..])
        );
        for id in ["iresumed", "iown"] {
            assert!(other.end_reason(id, Owner::LOCAL).await.is_some(), "{id}");
        }
        let (_, found) = Store::open(home.path(), true).unwrap();
        let kept: Vec<_> = found.kept.iter().map(|k| (k.id.as_str(), k.recipe.as_str())).collect();
        assert_eq!(kept, [("ipaused", "recipe")]);
    }

    #[test]
    fn this_process_is_alive() {
        assert!(is_alive(&server_name(std::process::id())));
        assert!(!is_alive(&format!("{}:1", std::process::id())));
        assert!(!is_alive("nonsense"));
    }
}
