//! The file that templates are written down in: SQLite, shared by the servers of one home. What was written is on the
//! disk when a call returns. Rows hold the environment of templates, so the file is its owner's alone.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::{
    error::{Refusal, StoreError},
    limits::STORE_BUSY,
    store::make_private,
};

/// `owner` is the number of an API key, 0 for callers in this process. Times are milliseconds since 1970.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS templates (
  id TEXT PRIMARY KEY,
  owner INTEGER NOT NULL,
  public INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  spawned INTEGER NOT NULL DEFAULT 0,
  spawned_at INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS names (
  owner INTEGER NOT NULL,
  name TEXT NOT NULL,
  template TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
  PRIMARY KEY (owner, name)
) STRICT;
CREATE INDEX IF NOT EXISTS names_of ON names (template);
CREATE TABLE IF NOT EXISTS builds (
  id TEXT PRIMARY KEY,
  template TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
  status TEXT NOT NULL,
  tags TEXT NOT NULL,
  cpus REAL,
  memory_mb INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  finished_at INTEGER,
  server TEXT,
  reason TEXT,
  root TEXT,
  start TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS builds_of ON builds (template, created_at);
CREATE TABLE IF NOT EXISTS tags (
  template TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
  tag TEXT NOT NULL,
  build TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (template, tag)
) STRICT;
CREATE TABLE IF NOT EXISTS logs (
  build TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
  line INTEGER NOT NULL,
  at INTEGER NOT NULL,
  level TEXT NOT NULL,
  step TEXT,
  message TEXT NOT NULL,
  PRIMARY KEY (build, line)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cached (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL,
  used_at INTEGER NOT NULL
) STRICT;
";
/// Columns that came later: table, name, type.
const LATER: [(&str, &str, &str); 0] = [];

/// Why a question was not answered.
#[derive(Debug)]
pub(crate) enum DbError {
    Sql(rusqlite::Error),
    /// What was asked cannot be.
    Refused(Refusal),
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Refusal> for DbError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<DbError> for Refusal {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Refused(refusal) => refusal,
            DbError::Sql(error) => {
                tracing::warn!(%error, "the registry of templates could not be used");
                Self::internal(format!("the registry of templates could not be used: {error}"))
            }
        }
    }
}

/// The open file. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Db {
    writer: Arc<Mutex<Connection>>,
    /// Its readers wait for no writer.
    reader: Arc<Mutex<Connection>>,
}

impl Db {
    /// Opens the file in `home`, which is there.
    pub(crate) fn open(home: &Path) -> Result<Self, StoreError> {
        let file = home.join("templates.db");
        let path = file.display().to_string();
        make_private(&file).map_err(|source| StoreError::Private {
            path: path.clone(),
            source,
        })?;
        let open = || -> rusqlite::Result<Self> {
            let writer = prepare(&file)?;
            let reader = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            reader.busy_timeout(STORE_BUSY)?;
            Ok(Self {
                writer: Arc::new(Mutex::new(writer)),
                reader: Arc::new(Mutex::new(reader)),
            })
        };
        open().map_err(|source| StoreError::Open { path, source })
    }

    /// Works in one transaction, which holds if `work` succeeds, on a thread that may wait.
    pub(crate) async fn run<T, W>(&self, work: W) -> Result<T, Refusal>
    where
        T: Send + 'static,
        W: FnOnce(&Transaction<'_>) -> Result<T, DbError> + Send + 'static,
    {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || this.run_now(work)).await;
        done.unwrap_or_else(|_| Err(Refusal::internal("the registry of templates broke off")))
    }

    /// Reads one state of everything, on a thread that may wait.
    pub(crate) async fn read<T, W>(&self, work: W) -> Result<T, Refusal>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    {
        let reader = self.reader.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = reader.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction()?;
            work(&transaction)
        });
        let done = done
            .await
            .unwrap_or_else(|_| Err(Refusal::internal("the registry of templates broke off").into()));
        Ok(done?)
    }

    /// As [`Db::run`], on this thread.
    pub(crate) fn run_now<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, DbError>) -> Result<T, Refusal> {
        let work = || -> Result<T, DbError> {
            let mut connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = work(&transaction)?;
            transaction.commit()?;
            Ok(answer)
        };
        Ok(work()?)
    }
}

fn prepare(file: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(file)?;
    connection.busy_timeout(STORE_BUSY)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let work = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    work.execute_batch(SCHEMA)?;
    for (table, column, kind) in LATER {
        let there = work
            .prepare("SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2")?
            .exists([table, column])?;
        if !there {
            work.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
        }
    }
    work.commit()?;
    Ok(connection)
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The same as RFC 3339.
pub(crate) fn shown(at: i64) -> String {
    let at = std::time::Duration::from_millis(u64::try_from(at).unwrap_or_default());
    humantime::format_rfc3339_millis(UNIX_EPOCH + at).to_string()
}
