//! The table of snapshots: an SQLite file that the servers of one home share. What was written is on the disk when a call
//! returns.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sandhold_runtime::{LayerId, StoredRoot};

use super::name::Name;
use crate::{
    entry::Start,
    error::{Refusal, StoreError},
    layering::NamesLayers,
    limits::{SNAPSHOTS, STORE_BUSY},
    owner::Owner,
    store::make_private,
};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS snapshots (
  id TEXT PRIMARY KEY,
  owner INTEGER,
  name TEXT,
  tag TEXT NOT NULL,
  sandbox TEXT NOT NULL,
  root TEXT NOT NULL,
  start TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS snapshot_names ON snapshots (coalesce(owner, -1), name, tag) WHERE name IS NOT NULL;
";
const COLUMNS: &str = "id, name, tag, sandbox, root, start, bytes, created_at";

/// One snapshot.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// Letters and digits.
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) tag: String,
    /// The sandbox that it was taken of.
    pub(crate) sandbox: String,
    pub(crate) root: StoredRoot,
    /// What sandboxes of it start with.
    pub(crate) start: Start,
    /// Bytes of its layers beside those of the template.
    pub(crate) bytes: u64,
    /// Nanoseconds since 1970.
    pub(crate) created_ns: i64,
}

impl Snapshot {
    /// What it is called by.
    pub(crate) fn shown(&self) -> Name {
        Name {
            name: self.name.clone().unwrap_or_else(|| self.id.clone()),
            tag: self.tag.clone(),
        }
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let json = |column: usize, error: serde_json::Error| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
        };
        let (root, start): (String, String) = (row.get(4)?, row.get(5)?);
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            tag: row.get(2)?,
            sandbox: row.get(3)?,
            root: serde_json::from_str(&root).map_err(|error| json(4, error))?,
            start: serde_json::from_str(&start).map_err(|error| json(5, error))?,
            bytes: u64::try_from(row.get::<_, i64>(6)?).unwrap_or_default(),
            created_ns: row.get(7)?,
        })
    }
}

/// Which snapshots a list shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) sandbox: Option<String>,
    pub(crate) name: Option<Name>,
    /// Where the page before ended: time and id.
    pub(crate) after: Option<(i64, String)>,
    pub(crate) limit: usize,
}

/// The table.
#[derive(Clone)]
pub(crate) struct Snapshots(Arc<Mutex<Connection>>);

impl Snapshots {
    /// Opens the table of a home folder, which is there.
    pub(crate) fn open(home: &Path) -> Result<Self, StoreError> {
        let file = home.join("snapshots.db");
        let path = file.display().to_string();
        make_private(&file).map_err(|source| StoreError::Private {
            path: path.clone(),
            source,
        })?;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(&file)?;
            connection.busy_timeout(STORE_BUSY)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            // A snapshot that was told of outlives a loss of power.
            connection.pragma_update(None, "synchronous", "full")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        let connection = open().map_err(|source| StoreError::Open { path, source })?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let table = self.0.clone();
        let task = tokio::task::spawn_blocking(move || work(&mut table.lock().unwrap_or_else(PoisonError::into_inner)));
        let failed = |error: &dyn std::fmt::Display| Refusal::internal(format!("the table of snapshots: {error}"));
        match task.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Writes a snapshot down; one of the same name gives it up and is gone.
    pub(crate) async fn insert(&self, owner: Owner, snapshot: Snapshot) -> Result<(), Refusal> {
        let json = |error: serde_json::Error| Refusal::internal(error.to_string());
        let root = serde_json::to_string(&snapshot.root).map_err(json)?;
        let start = serde_json::to_string(&snapshot.start).map_err(json)?;
        let fits = self
            .with(move |table| {
                let work = table.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
                let Snapshot {
                    id,
                    name,
                    tag,
                    sandbox,
                    bytes,
                    created_ns,
                    ..
                } = snapshot;
                work.execute(
                    "DELETE FROM snapshots WHERE owner IS ?1 AND name = ?2 AND tag = ?3",
                    params![owner.number(), name, tag],
                )?;
                let count: i64 = work.query_row(
                    "SELECT count(*) FROM snapshots WHERE owner IS ?1",
                    [owner.number()],
                    |row| row.get(0),
                )?;
                if count >= SNAPSHOTS {
                    return Ok(false);
                }
                work.execute(
                    "INSERT INTO snapshots (id, owner, name, tag, sandbox, root, start, bytes, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                    params![
                        id,
                        owner.number(),
                        name,
                        tag,
                        sandbox,
                        root,
                        start,
                        i64::try_from(bytes).unwrap_or(i64::MAX),
                        created_ns
                    ],
                )?;
                work.commit()?;
                Ok(true)
            })
            .await?;
        if fits {
            return Ok(());
        }
        Err(Refusal::new(
            http::StatusCode::INSUFFICIENT_STORAGE,
            format!("there are {SNAPSHOTS} snapshots, which is the most: delete some first"),
        ))
    }

    /// An owner's snapshot by id or name.
    pub(crate) async fn find(&self, owner: Owner, name: &str) -> Result<Option<Snapshot>, Refusal> {
        let Ok(Name { name, tag }) = Name::parse(name) else {
            return Ok(None);
        };
        self.with(move |table| {
            table
                .query_row(
                    &format!(
                        "SELECT {COLUMNS} FROM snapshots WHERE owner IS ?1 AND (name = ?2 OR id = ?2) AND tag = ?3"
                    ),
                    params![owner.number(), name, tag],
                    Snapshot::read,
                )
                .optional()
        })
        .await
    }

    /// Deletes an owner's snapshot by id or name. False if there is none.
    pub(crate) async fn delete(&self, owner: Owner, name: &str) -> Result<bool, Refusal> {
        let Ok(Name { name, tag }) = Name::parse(name) else {
            return Ok(false);
        };
        self.with(move |table| {
            let deleted = table.execute(
                "DELETE FROM snapshots WHERE owner IS ?1 AND (name = ?2 OR id = ?2) AND tag = ?3",
                params![owner.number(), name, tag],
            )?;
            Ok(deleted > 0)
        })
        .await
    }

    /// An owner's snapshots, the newest first, and whether there are more.
    pub(crate) async fn list(&self, owner: Owner, wanted: Wanted) -> Result<(Vec<Snapshot>, bool), Refusal> {
        let limit = wanted.limit;
        let mut found = self
            .with(move |table| {
                let (name, tag) = wanted.name.map(|n| (n.name, n.tag)).unzip();
                let (at, id) = wanted.after.unwrap_or((i64::MAX, String::new()));
                let more = i64::try_from(wanted.limit.saturating_add(1)).unwrap_or(i64::MAX);
                let mut found = table.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM snapshots WHERE owner IS ?1 AND (?2 IS NULL OR sandbox = ?2) \
                     AND (?3 IS NULL OR name = ?3 AND tag = ?4) AND (created_at, id) < (?5, ?6) \
                     ORDER BY created_at DESC, id DESC LIMIT ?7"
                ))?;
                let rows = found.query_map(
                    params![owner.number(), wanted.sandbox, name, tag, at, id, more],
                    Snapshot::read,
                )?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }
}

impl NamesLayers for Snapshots {
    fn named(&self) -> BoxFuture<'_, Result<HashSet<LayerId>, Refusal>> {
        Box::pin(async {
            let roots = self
                .with(|table| {
                    let mut roots = table.prepare_cached("SELECT root FROM snapshots")?;
                    let roots = roots.query_map([], |row| row.get::<_, String>(0))?;
                    roots.collect::<rusqlite::Result<Vec<_>>>()
                })
                .await?;
            let mut named = HashSet::new();
            for root in roots {
                let root: StoredRoot = serde_json::from_str(&root)
                    .map_err(|error| Refusal::internal(format!("the root of a snapshot cannot be read: {error}")))?;
                named.extend(root.layers);
            }
            Ok(named)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: &str, name: Option<&str>, at: i64) -> Snapshot {
        Snapshot {
            id: id.into(),
            name: name.map(str::to_owned),
            tag: "default".into(),
            sandbox: "isource".into(),
            root: StoredRoot {
                layers: vec![LayerId([u8::try_from(at).unwrap(); 32])],
                ..StoredRoot::default()
            },
            start: Start::default(),
            bytes: 3,
            created_ns: at,
        }
    }

    #[tokio::test]
    async fn a_name_passes_to_the_newest() {
        let home = tempfile::tempdir().unwrap();
        let (mine, theirs) = (Owner::LOCAL, Owner::key(1));
        let rows = Snapshots::open(home.path()).unwrap();
        rows.insert(mine, snapshot("s1", Some("name"), 1)).await.unwrap();
        rows.insert(theirs, snapshot("s2", Some("name"), 2)).await.unwrap();
        rows.insert(mine, snapshot("s3", Some("name"), 3)).await.unwrap();
        rows.insert(mine, snapshot("s4", None, 4)).await.unwrap();
        // Another server of the same home.
        let rows = Snapshots::open(home.path()).unwrap();
        assert_eq!(rows.find(mine, "name").await.unwrap().unwrap().id, "s3");
        assert_eq!(rows.find(theirs, "name:default").await.unwrap().unwrap().id, "s2");
        for gone in ["s1", "name:v2", "s4:v2", "s2", "", "no such"] {
            assert!(rows.find(mine, gone).await.unwrap().is_none(), "{gone}");
        }
        let named = rows.named().await.unwrap();
        assert_eq!(named, [2, 3, 4].map(|n| LayerId([n; 32])).into());
        assert!(rows.delete(mine, "s3:default").await.unwrap());
        assert!(!rows.delete(mine, "name").await.unwrap());
        assert!(!rows.delete(mine, "s2").await.unwrap());
    }

    #[tokio::test]
    async fn pages() {
        let home = tempfile::tempdir().unwrap();
        let rows = Snapshots::open(home.path()).unwrap();
        for (at, id) in (1..).zip(["a", "b", "c"]) {
            rows.insert(Owner::LOCAL, snapshot(id, None, at)).await.unwrap();
        }
        let page = |after| Wanted {
            after,
            limit: 2,
            ..Wanted::default()
        };
        let (first, more) = rows.list(Owner::LOCAL, page(None)).await.unwrap();
        assert_eq!((first[0].id.as_str(), first[1].id.as_str(), more), ("c", "b", true));
        let after = Some((first[1].created_ns, first[1].id.clone()));
        let (last, more) = rows.list(Owner::LOCAL, page(after)).await.unwrap();
        assert_eq!((last.len(), last[0].id.as_str(), more), (1, "a", false));
        let other = Wanted {
            sandbox: Some("iother".into()),
            limit: 9,
            ..Wanted::default()
        };
        assert!(rows.list(Owner::LOCAL, other).await.unwrap().0.is_empty());
    }
}
